//! Frames in a byte stream that outlives its writers.
//!
//! A virtio-serial port is not reset when the process that holds it dies, nor when the management partition connects
//! again: half a frame may stand where the next one should begin. Therefore each frame is COBS-encoded and ends
//! with a zero byte, and each sender begins with [`START`], which ends any leftover. No timer is needed.

use crate::{Frame, FrameError, MAX_FRAME_BYTES, cobs};

/// Written by each sender before its first frame.
pub const START: [u8; 1] = [END];

/// Ends a frame. COBS leaves no such byte inside.
const END: u8 = 0;

/// Maximum length of an encoded frame, without its end.
const MAX_ENCODED: usize = cobs::max_encoded(MAX_FRAME_BYTES);

/// Appends a frame, encoded for a stream.
pub fn encode(frame: &Frame, stream: &mut Vec<u8>) {
    cobs::encode(&frame.to_bytes(), stream);
    stream.push(END);
}

/// Finds frames in a stream, however it is cut into pieces.
///
/// Holds at most one encoded frame. After bytes that are not a frame it continues with the next one.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The current frame so far.
    encoded: Vec<u8>,
    /// The current frame is too long: this has been reported, and the rest is discarded.
    skipping: bool,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next frame, or why the next bytes are not a frame. Removes the bytes it uses from the front of `input`;
    /// `None` once all are used and more are needed.
    pub fn next(&mut self, input: &mut &[u8]) -> Option<Result<Frame, FrameError>> {
        while !input.is_empty() {
            let end = input.iter().position(|byte| *byte == END);
            let (part, rest) = input.split_at(end.unwrap_or(input.len()));
            *input = rest.get(1..).unwrap_or_default();
            if self.skipping {
                self.skipping = end.is_none();
            } else if self.encoded.len() + part.len() > MAX_ENCODED {
                self.encoded.clear();
                self.skipping = end.is_none();
                return Some(Err(FrameError::TooLong));
            } else {
                self.encoded.extend_from_slice(part);
                // Nothing between two ends is not an error: START often causes it.
                if end.is_some() && !self.encoded.is_empty() {
                    let bytes = cobs::decode(&self.encoded);
                    self.encoded.clear();
                    return Some(bytes.ok_or(FrameError::CutShort).and_then(|bytes| Frame::parse(&bytes)));
                }
            }
        }
        None
    }
}
