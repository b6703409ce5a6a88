//! Builds configuration spaces: a header, and capabilities chained in the order they are added.

/// A configuration space under construction.
pub struct Builder {
    bytes: Vec<u8>,
    /// Where the pointer to the next capability goes.
    next_pointer: usize,
    last_extended: Option<usize>,
}

impl Builder {
    pub fn new(vendor: u16, device: u16) -> Self {
        Self { bytes: vec![0; 4096], next_pointer: 0x34, last_extended: None }.u16(0, vendor).u16(2, device)
    }

    pub fn u8(self, offset: usize, value: u8) -> Self {
        self.put(offset, &[value])
    }

    pub fn u16(self, offset: usize, value: u16) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    pub fn u32(self, offset: usize, value: u32) -> Self {
        self.put(offset, &value.to_le_bytes())
    }

    /// Adds a capability; `body` is what follows its two header bytes.
    pub fn capability(mut self, offset: u8, id: u8, body: &[u8]) -> Self {
        let pointer = std::mem::replace(&mut self.next_pointer, usize::from(offset) + 1);
        self.u16(0x06, 0x10)
            .u8(pointer, offset)
            .put(offset.into(), &[id, 0])
            .put(usize::from(offset) + 2, body)
    }

    /// Adds an extended capability, the first at 0x100; `body` is what follows its four header bytes.
    pub fn extended(mut self, offset: u16, id: u16, body: &[u8]) -> Self {
        if let Some(last) = self.last_extended.replace(offset.into()) {
            self = self.u16(last + 2, offset << 4 | 1);
        }
        self.u16(offset.into(), id).u16(usize::from(offset) + 2, 1).put(usize::from(offset) + 4, body)
    }

    /// The body of an SR-IOV capability from registers, by their offset in the structure.
    pub fn sriov_body(registers: &[(usize, u32)]) -> Vec<u8> {
        let mut body = vec![0; 0x3c];
        for (offset, value) in registers {
            body[offset - 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        body
    }

    /// The first `length` bytes.
    pub fn bytes(mut self, length: usize) -> Vec<u8> {
        self.bytes.truncate(length);
        self.bytes
    }

    fn put(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
        self
    }
}
