//! The configuration space of one function, as bytes: its header, and bounds-checked reads of the rest.

/// Bytes of the header, readable by every user.
const HEADER_SIZE: usize = 64;
/// Bytes of a PCI Express configuration space (PCIe 6.0 §7.2.2).
const MAX_SIZE: usize = 4096;

/// An invalid configuration space. Offsets are in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is shorter than a header or longer than the maximum.
    #[error("a configuration space of {length} bytes; it has 64 to 4096")]
    Length {
        /// Its length.
        length: usize,
    },
    /// Every bit of the header is set: nothing answered (PCIe 6.0 §2.3.2).
    #[error("the function does not answer: every byte of its header reads as ff")]
    NoAnswer,
    /// Something reaches beyond the end of the bytes there are.
    #[error("the configuration space ends at {length:#x}, before the {size} bytes at {offset:#x}")]
    Truncated {
        /// Where the missing bytes would begin.
        offset: usize,
        /// How many are needed.
        size: usize,
        /// How many bytes there are.
        length: usize,
    },
    /// A capability list loops.
    #[error("the capability list loops: the capability at {from:#x} points back to {offset:#x}")]
    Loop {
        /// The capability whose pointer closes the loop.
        from: usize,
        /// Where it points to.
        offset: usize,
    },
    /// A capability pointer has one of its two lowest bits set; they are reserved and read as zero here.
    #[error("the capability pointer {pointer:#x}, found at {from:#x}, is not a multiple of 4")]
    Misaligned {
        /// Where the pointer is.
        from: usize,
        /// The pointer as found.
        pointer: usize,
    },
    /// A capability pointer leads to an offset where no capability can be.
    #[error("the capability pointer {pointer:#x}, found at {from:#x}, points into the header")]
    IntoHeader {
        /// Where the pointer is.
        from: usize,
        /// The pointer as found.
        pointer: usize,
    },
}

/// The bytes of a function's configuration space: 64 (all that an unprivileged reader gets), 256 or 4096 of them.
#[derive(Clone, Copy, Debug)]
pub struct ConfigSpace<'a> {
    header: &'a [u8; HEADER_SIZE],
    bytes: &'a [u8],
}

impl<'a> ConfigSpace<'a> {
    /// Takes 64 to 4096 bytes.
    ///
    /// # Errors
    /// [`ConfigError::Length`] for fewer or more, [`ConfigError::NoAnswer`] when the function is not there.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ConfigError> {
        let length = bytes.len();
        let header =
            bytes.first_chunk().filter(|_| length <= MAX_SIZE).ok_or(ConfigError::Length { length })?;
        // A VF's vendor ID reads as ffff although it answers, so check the whole header.
        if header.iter().all(|byte| *byte == 0xff) {
            Err(ConfigError::NoAnswer)
        } else {
            Ok(Self { header, bytes })
        }
    }

    /// How many bytes there are.
    #[must_use]
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Whether only the header is present: all that the kernel shows to a reader without CAP_SYS_ADMIN.
    #[must_use]
    pub fn is_header_only(&self) -> bool {
        self.bytes.len() == HEADER_SIZE
    }

    /// Whether the extended part, from 0x100 on, is readable.
    #[must_use]
    pub fn has_extended(&self) -> bool {
        self.bytes.len() > 256
    }

    /// Vendor ID; ffff for a VF, which has that of its PF (PCIe 6.0 §9.3.4.1.1).
    #[must_use]
    pub fn vendor_id(&self) -> u16 {
        self.header_u16(0x00)
    }

    /// Device ID; ffff for a VF, whose device ID is in the SR-IOV capability of its PF (PCIe 6.0 §9.3.4.1.2).
    #[must_use]
    pub fn device_id(&self) -> u16 {
        self.header_u16(0x02)
    }

    /// Class code, 24 bits: base class, sub-class, programming interface.
    #[must_use]
    pub fn class_code(&self) -> u32 {
        let [interface, sub_class, base_class] = [self.header[0x09], self.header[0x0a], self.header[0x0b]];
        u32::from_be_bytes([0, base_class, sub_class, interface])
    }

    /// Header layout: 0 for an endpoint, 1 for a bridge.
    #[must_use]
    pub fn header_type(&self) -> u8 {
        self.header[0x0e] & 0x7f
    }

    /// Whether the device says that it has more functions than number 0.
    #[must_use]
    pub fn is_multifunction(&self) -> bool {
        self.header[0x0e] & 0x80 != 0
    }

    /// Subsystem vendor ID and subsystem ID; `None` for a bridge, which keeps them elsewhere.
    #[must_use]
    pub fn subsystem(&self) -> Option<(u16, u16)> {
        (self.header_type() == 0).then(|| (self.header_u16(0x2c), self.header_u16(0x2e)))
    }

    /// Where the capability list begins, as found in the header; `None` when there is no list.
    pub(crate) fn capabilities_pointer(&self) -> Option<u8> {
        let has_list = self.header_u16(0x06) & 0x10 != 0;
        has_list.then_some(self.header[0x34])
    }

    /// The 16 bits at an offset.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] beyond the end.
    pub fn u16(&self, offset: usize) -> Result<u16, ConfigError> {
        self.chunk(offset).map(u16::from_le_bytes)
    }

    /// The 32 bits at an offset.
    ///
    /// # Errors
    /// [`ConfigError::Truncated`] beyond the end.
    pub fn u32(&self, offset: usize) -> Result<u32, ConfigError> {
        self.chunk(offset).map(u32::from_le_bytes)
    }

    fn chunk<const N: usize>(&self, offset: usize) -> Result<[u8; N], ConfigError> {
        let found = self.bytes.get(offset..).and_then(|rest| rest.first_chunk());
        found.copied().ok_or(ConfigError::Truncated { offset, size: N, length: self.bytes.len() })
    }

    fn header_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.header[offset], self.header[offset + 1]])
    }
}
