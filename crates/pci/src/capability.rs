//! The two capability lists of a configuration space. Every walk ends, whatever the bytes say.
//!
//! Both walks remember which dwords they have visited, so that a loop is found at its first repetition. A pointer with
//! reserved low bits set is reported and then followed with them cleared, as the specification asks of software.

use crate::{ConfigError, ConfigSpace};

const EXTENDED_START: usize = 0x100;
const DWORDS: usize = 4096 / 4;

/// An entry of the capability list (PCI Local Bus 3.0 §6.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Capability ID: 11h is MSI-X, 10h PCI Express.
    pub id: u8,
    /// Where it begins.
    pub offset: usize,
}

impl Capability {
    /// PCI Express.
    pub const PCI_EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// An entry of the extended capability list (PCIe 6.0 §7.6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExtendedCapability {
    /// Capability ID: 10h is SR-IOV.
    pub id: u16,
    /// Version of its layout.
    pub version: u8,
    /// Where it begins.
    pub offset: usize,
}

impl ExtendedCapability {
    /// Device Serial Number.
    pub const SERIAL_NUMBER: u16 = 0x0003;
    /// Access Control Services.
    pub const ACS: u16 = 0x000d;
    /// Alternative Routing-ID Interpretation.
    pub const ARI: u16 = 0x000e;
    /// Single Root I/O Virtualization.
    pub const SRIOV: u16 = 0x0010;
}

impl<'a> ConfigSpace<'a> {
    /// Walks the capability list. After an error other than [`ConfigError::Misaligned`] the walk is over.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities<'a> {
        let next = self.capabilities_pointer().map_or(0, usize::from);
        Capabilities { walk: Walk::new(*self, 0x40, 0x34, next) }
    }

    /// Walks the extended capability list; empty where the extended part is not readable. After an error other than
    /// [`ConfigError::Misaligned`] the walk is over.
    #[must_use]
    pub fn extended_capabilities(&self) -> ExtendedCapabilities<'a> {
        // An absent list reads as zeros, or as ones where nothing answers for the extended part.
        let absent = matches!(self.u32(EXTENDED_START), Ok(0 | u32::MAX));
        let next = if self.has_extended() && !absent { EXTENDED_START } else { 0 };
        ExtendedCapabilities { walk: Walk::new(*self, EXTENDED_START, EXTENDED_START, next) }
    }

    /// Where the first capability with this ID begins. Errors in the list count as its end.
    #[must_use]
    pub fn find(&self, id: u8) -> Option<usize> {
        self.capabilities()
            .flatten()
            .find(|capability| capability.id == id)
            .map(|capability| capability.offset)
    }

    /// Where the first extended capability with this ID begins. Errors in the list count as its end.
    #[must_use]
    pub fn find_extended(&self, id: u16) -> Option<usize> {
        self.extended_capabilities()
            .flatten()
            .find(|capability| capability.id == id)
            .map(|found| found.offset)
    }
}

/// The part common to both walks: the next pointer, the dwords visited, and the checks.
#[derive(Clone, Debug)]
struct Walk<'a> {
    config: ConfigSpace<'a>,
    /// Lowest offset at which an entry may be.
    lowest: usize,
    /// The capability, or the header field, that holds `next`.
    from: usize,
    /// 0 when the walk is over.
    next: usize,
    visited: [u64; DWORDS / 64],
}

impl<'a> Walk<'a> {
    fn new(config: ConfigSpace<'a>, lowest: usize, from: usize, next: usize) -> Self {
        Self { config, lowest, from, next, visited: [0; DWORDS / 64] }
    }

    /// The next entry's offset. Then `next` is 0 until the caller has read the entry and set it.
    fn step(&mut self) -> Option<Result<usize, ConfigError>> {
        let (from, pointer) = (self.from, self.next);
        if pointer == 0 {
            return None;
        }
        self.next = pointer & !3;
        if pointer & 3 != 0 {
            return Some(Err(ConfigError::Misaligned { from, pointer }));
        }
        self.next = 0;
        if pointer < self.lowest {
            return Some(Err(ConfigError::IntoHeader { from, pointer }));
        }
        let (word, bit) = (pointer / 4 / 64, 1 << (pointer / 4 % 64));
        match self.visited.get_mut(word) {
            Some(bits) if *bits & bit == 0 => *bits |= bit,
            _ => return Some(Err(ConfigError::Loop { from, offset: pointer })),
        }
        Some(Ok(pointer))
    }

    fn move_on(&mut self, offset: usize, next: usize) {
        (self.from, self.next) = (offset, next);
    }
}

/// The walk of [`ConfigSpace::capabilities`].
#[derive(Clone, Debug)]
pub struct Capabilities<'a> {
    walk: Walk<'a>,
}

impl Iterator for Capabilities<'_> {
    type Item = Result<Capability, ConfigError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.walk.step()?.and_then(|offset| {
            let [id, next] = self.walk.config.u16(offset)?.to_le_bytes();
            self.walk.move_on(offset, usize::from(next));
            Ok(Capability { id, offset })
        });
        Some(entry)
    }
}

/// The walk of [`ConfigSpace::extended_capabilities`].
#[derive(Clone, Debug)]
pub struct ExtendedCapabilities<'a> {
    walk: Walk<'a>,
}

impl Iterator for ExtendedCapabilities<'_> {
    type Item = Result<ExtendedCapability, ConfigError>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.walk.step()?.and_then(|offset| {
            let [a, b, c, d] = self.walk.config.u32(offset)?.to_le_bytes();
            let (version, next) = (c & 0xf, u16::from_le_bytes([c, d]) >> 4);
            self.walk.move_on(offset, usize::from(next));
            Ok(ExtendedCapability { id: u16::from_le_bytes([a, b]), version, offset })
        });
        Some(entry)
    }
}
