//! 4 KiB of configuration space as registers: their values after reset, the bits that software may write, and those
//! it clears by writing ones. Side effects are left to the device.

use std::sync::Arc;

/// Bytes of a function's configuration space.
pub(super) const SIZE: usize = 4096;

/// The pointer to the capability list, and the Status bit for its presence.
const CAPABILITIES_POINTER: usize = 0x34;
const STATUS: usize = 0x06;
const CAPABILITIES_LIST: u8 = 0x10;

/// A kind of function: the part common to all functions of the kind.
#[derive(Debug)]
pub(super) struct Template {
    initial: Vec<u8>,
    writable: Vec<u8>,
    cleared_by_one: Vec<u8>,
    /// The byte that will point to the next capability.
    next_pointer: usize,
    last_extended: Option<usize>,
}

impl Template {
    /// All zeros, none of them writable.
    pub(super) fn new() -> Self {
        Self {
            initial: vec![0; SIZE],
            writable: vec![0; SIZE],
            cleared_by_one: vec![0; SIZE],
            next_pointer: CAPABILITIES_POINTER,
            last_extended: None,
        }
    }

    /// Sets the bytes at an offset after reset.
    pub(super) fn value<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.initial[at..at + N].copy_from_slice(&bytes);
    }

    /// Marks bits that software may write.
    pub(super) fn writable<const N: usize>(&mut self, at: usize, mask: [u8; N]) {
        self.writable[at..at + N].copy_from_slice(&mask);
    }

    /// Marks bits that software clears by writing ones.
    pub(super) fn cleared_by_one<const N: usize>(&mut self, at: usize, mask: [u8; N]) {
        self.cleared_by_one[at..at + N].copy_from_slice(&mask);
    }

    /// Adds a capability to the list.
    pub(super) fn capability(&mut self, at: u8, id: u8) {
        self.initial[STATUS] |= CAPABILITIES_LIST;
        self.initial[self.next_pointer] = at;
        self.initial[usize::from(at)] = id;
        self.next_pointer = usize::from(at) + 1;
    }

    /// Adds an extended capability to the list. The first one must be at 0x100.
    pub(super) fn extended(&mut self, at: usize, id: u16, version: u8) {
        if let Some(last) = self.last_extended {
            // The upper twelve bits of the header point to the next one.
            let [low, high] = u16::to_le_bytes(u16::try_from(at << 4).unwrap_or(0));
            self.initial[last + 2] |= low;
            self.initial[last + 3] = high;
        }
        self.value(at, id.to_le_bytes());
        self.initial[at + 2] = version;
        self.last_extended = Some(at);
    }
}

/// The registers of one function.
#[derive(Clone, Debug)]
pub(super) struct Registers {
    template: Arc<Template>,
    bytes: Vec<u8>,
}

impl Registers {
    pub(super) fn new(template: &Arc<Template>) -> Self {
        Self { template: Arc::clone(template), bytes: template.initial.clone() }
    }

    /// Restores the values after reset.
    pub(super) fn reset(&mut self) {
        self.bytes.copy_from_slice(&self.template.initial);
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    pub(super) fn u32(&self, at: usize) -> u32 {
        u32::from(self.u16(at)) | u32::from(self.u16(at + 2)) << 16
    }

    /// A write by the device itself.
    pub(super) fn set<const N: usize>(&mut self, at: usize, bytes: [u8; N]) {
        self.bytes[at..at + N].copy_from_slice(&bytes);
    }

    /// A write by software. `limit` restricts the mask of writable bits at an offset to those writable now.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8], limit: impl Fn(usize, u8) -> u8) {
        for (at, new) in (offset..SIZE).zip(bytes) {
            let mask = limit(at, self.template.writable[at]);
            let cleared = new & self.template.cleared_by_one[at];
            self.bytes[at] = ((self.bytes[at] & !mask) | (new & mask)) & !cleared;
        }
    }
}
