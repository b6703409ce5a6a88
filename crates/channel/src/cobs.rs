//! Consistent Overhead Byte Stuffing (Cheshire and Baker, 1999): bytes without a zero among them, so that a zero can
//! end a frame.
//!
//! The encoded form is a row of blocks: a code byte `n` from 1 to 255, then `n - 1` bytes that are not zero. Each block
//! with a code below 255 stands for its bytes and a zero; the zero after the last block is not part of the data.

/// The longest run in one block.
const MAX_RUN: usize = 254;

/// The maximum encoded length for this number of bytes.
pub const fn max_encoded(bytes: usize) -> usize {
    bytes + bytes / MAX_RUN + 1
}

/// Appends the encoded form of `bytes`, which has no zero in it.
pub fn encode(bytes: &[u8], encoded: &mut Vec<u8>) {
    for mut run in bytes.split(|byte| *byte == 0) {
        while let Some((full, rest)) = run.split_at_checked(MAX_RUN) {
            encoded.push(u8::MAX);
            encoded.extend_from_slice(full);
            run = rest;
        }
        #[expect(clippy::cast_possible_truncation, reason = "the run is shorter than 254")]
        encoded.push(run.len() as u8 + 1);
        encoded.extend_from_slice(run);
    }
}

/// The decoded bytes; `None` when the last block is cut short or a zero stands in place of a code.
pub fn decode(mut encoded: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(encoded.len());
    while let Some((&code, rest)) = encoded.split_first() {
        let (run, after) = rest.split_at_checked(usize::from(code).checked_sub(1)?)?;
        bytes.extend_from_slice(run);
        if code < u8::MAX && !after.is_empty() {
            bytes.push(0);
        }
        encoded = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encoders go wrong at lengths around the longest run.
    #[test]
    fn runs_of_every_length_around_a_block_survive() {
        for length in [0, 1, 2, 253, 254, 255, 256, 507, 508, 509, 1000] {
            for (first, last) in [(1, 1), (0, 1), (1, 0), (0, 0)] {
                let mut bytes = vec![7; length];
                if let Some(byte) = bytes.first_mut() {
                    *byte = first;
                }
                if let Some(byte) = bytes.last_mut() {
                    *byte = last;
                }
                let mut encoded = Vec::new();
                encode(&bytes, &mut encoded);
                assert!(!encoded.contains(&0));
                assert!(encoded.len() <= max_encoded(bytes.len()), "{length}");
                assert_eq!(decode(&encoded).as_ref(), Some(&bytes), "{length} {first} {last}");
            }
        }
    }

    #[test]
    fn the_examples_of_the_paper_encode_as_printed() {
        let encoded = |bytes: &[u8]| {
            let mut encoded = Vec::new();
            encode(bytes, &mut encoded);
            encoded
        };
        assert_eq!(encoded(&[]), [1]);
        assert_eq!(encoded(&[0]), [1, 1]);
        assert_eq!(encoded(&[0x45, 0, 0, 0x2c]), [2, 0x45, 1, 2, 0x2c]);
    }

    #[test]
    fn a_truncated_block_is_refused() {
        assert_eq!(decode(&[5, 1, 2]), None);
        assert_eq!(decode(&[2, 1, 0]), None);
    }
}
