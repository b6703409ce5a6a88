//! A frame: a fixed header of 16 bytes and a payload, at most 64 KiB together. Numbers are big-endian, as in CBOR.
//!
//! ```text
//! byte   0    1    2        3     4    5    6    7    8 … 11      12 … 15         16 …
//!      +----+----+---------+------+---------+---------+-----------+----------------+---------
//!      | 49 | 57 | version | kind |  flags  | 00   00 | request   | payload length | payload
//!      +----+----+---------+------+---------+---------+-----------+----------------+---------
//! ```

/// Bytes before the payload.
pub const HEADER_BYTES: usize = 16;
/// The greatest length of a frame, header included.
pub const MAX_FRAME_BYTES: usize = 64 * 1024;
/// The greatest length of a payload.
pub const MAX_PAYLOAD_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES;

/// `IW`.
const MAGIC: [u8; 2] = [0x49, 0x57];
/// Version of this layout. The payloads have a version of their own, agreed in the hello.
const LAYOUT: u8 = 1;

/// One frame: its kind, its request number, and an unchecked payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    kind: u8,
    flags: u16,
    request: u32,
    payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// More bytes without an end than a frame can have. Reported once; the rest is skipped.
    #[error("a frame is longer than {MAX_FRAME_BYTES} bytes")]
    TooLong,
    /// The frame is incomplete: its sender died while it wrote.
    #[error("a frame is cut short")]
    CutShort,
    /// It does not begin with the magic number.
    #[error("a frame does not begin with 'IW'")]
    Magic,
    /// The header has an unknown layout.
    #[error("a frame has header version {0}; this side knows {LAYOUT}")]
    Layout(u8),
    /// The length in the header differs from the actual length.
    #[error("a frame says that its payload has {stated} bytes and has {found}")]
    Length {
        /// The length in the header.
        stated: u32,
        /// The actual length.
        found: usize,
    },
}

impl Frame {
    /// A frame; `None` when the payload is longer than [`MAX_PAYLOAD_BYTES`].
    #[must_use]
    pub fn new(kind: u8, flags: u16, request: u32, payload: Vec<u8>) -> Option<Self> {
        (payload.len() <= MAX_PAYLOAD_BYTES).then_some(Self { kind, flags, request, payload })
    }

    /// The kind of message in the payload.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Flags, whose meaning depends on the kind.
    #[must_use]
    pub fn flags(&self) -> u16 {
        self.flags
    }

    /// The number of its request, or of the request that it answers; 0 for none.
    #[must_use]
    pub fn request(&self) -> u32 {
        self.request
    }

    /// The payload: CBOR, unchecked.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Header and payload, for a transport that keeps frames apart.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        #[expect(clippy::cast_possible_truncation, reason = "a payload is at most 64 KiB")]
        let length = self.payload.len() as u32;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + self.payload.len());
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[LAYOUT, self.kind]);
        bytes.extend_from_slice(&self.flags.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.request.to_be_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Parses exactly one frame.
    ///
    /// # Errors
    /// When the bytes are not one whole frame of this layout.
    pub fn parse(bytes: &[u8]) -> Result<Self, FrameError> {
        if bytes.len() > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong);
        }
        let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(FrameError::CutShort)?;
        let [m0, m1, layout, kind, f0, f1, _, _, r0, r1, r2, r3, l0, l1, l2, l3] = *header;
        if [m0, m1] != MAGIC {
            return Err(FrameError::Magic);
        }
        if layout != LAYOUT {
            return Err(FrameError::Layout(layout));
        }
        let stated = u32::from_be_bytes([l0, l1, l2, l3]);
        if usize::try_from(stated) != Ok(payload.len()) {
            return Err(FrameError::Length { stated, found: payload.len() });
        }
        let (flags, request) = (u16::from_be_bytes([f0, f1]), u32::from_be_bytes([r0, r1, r2, r3]));
        Ok(Self { kind, flags, request, payload: payload.to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of docs/channel.md.
    #[test]
    fn a_frame_is_laid_out_as_documented() {
        let frame = Frame::new(0x02, 0x0001, 0x0a0b_0c0d, vec![0xa1, 0x00, 0x00]).unwrap();
        let bytes = [0x49, 0x57, 1, 2, 0, 1, 0, 0, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 3, 0xa1, 0, 0];
        assert_eq!(frame.to_bytes(), bytes);
        assert_eq!(Frame::parse(&bytes), Ok(frame));
    }

    #[test]
    fn an_invalid_frame_says_why() {
        let good = Frame::new(1, 0, 0, vec![0xa0]).unwrap().to_bytes();
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            Frame::parse(&bytes)
        };
        assert_eq!(Frame::parse(&good[..15]), Err(FrameError::CutShort));
        assert_eq!(with(0, b'X'), Err(FrameError::Magic));
        assert_eq!(with(2, 9), Err(FrameError::Layout(9)));
        assert_eq!(with(15, 2), Err(FrameError::Length { stated: 2, found: 1 }));
        assert_eq!(Frame::parse(&good[..16]), Err(FrameError::Length { stated: 1, found: 0 }));
        assert_eq!(Frame::parse(&vec![0; MAX_FRAME_BYTES + 1]), Err(FrameError::TooLong));
        assert_eq!(Frame::new(1, 0, 0, vec![0; MAX_PAYLOAD_BYTES + 1]), None);
        assert!(Frame::parse(&with(6, 0xff).unwrap().to_bytes()).is_ok(), "reserved bytes are not looked at");
    }
}
