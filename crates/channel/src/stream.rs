//! Frames in a byte stream that outlives those who write to it.
//!
//! A virtio-serial port is not reset when the process that holds it dies, nor when the management partition connects
//! again: half a frame may stand where the next one's first is expected. Therefore each frame goes COBS-encoded and
//! ends with a zero byte, and each sender begins with [`START`], which ends whatever was left. No timer is needed.

use crate::{Frame, FrameError, MAX_FRAME_BYTES, cobs};

/// What each sender writes before its first frame.
pub const START: [u8; 1] = [END];

/// Ends a frame. COBS leaves none inside.
const END: u8 = 0;

/// The greatest length of an encoded frame, without its end.
const MAX_ENCODED: usize = cobs::max_encoded(MAX_FRAME_BYTES);

/// Appends a frame as it goes over a stream.
pub fn encode(frame: &Frame, stream: &mut Vec<u8>) {
    cobs::encode(&frame.to_bytes(), stream);
    stream.push(END);
}

/// Finds frames in what comes from a stream, however it is cut into pieces.
///
/// Holds no more than one encoded frame. After bytes that are no frame it goes on with the next one.
#[derive(Debug, Default)]
pub struct Decoder {
    /// What came of the present frame.
    encoded: Vec<u8>,
    /// The present frame is too long, that has been said, and the rest of it is thrown away.
    skipping: bool,
}

impl Decoder {
    /// A decoder at the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next frame, or why the next bytes are none. Takes what it has used from the front of `input`; `None` once
    /// all is used and more is needed.
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
                // Nothing between two ends is no error: START is often one.
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
