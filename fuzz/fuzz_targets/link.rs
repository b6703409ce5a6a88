//! The socket between the two sides of the daemon, both directions: a stream of bytes to frames, frames to messages. A stream that
//! comes in two pieces means the same as in one, and what is understood is written and read again, and is the same.
#![no_main]

use ioward_model::Inventory;
use ioward_privsep::{Decoder, Frame, LinkError, MAX_FROM_HOST, Received, ToHost, ToImp};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|bytes: &[u8]| {
    let Some((at, stream)) = bytes.split_first() else { return };
    for received in both_ways::<ToHost>(Decoder::of_host, usize::from(*at), stream) {
        assert!(received.value.is_empty());
        again(&received.message, Decoder::of_host());
    }
    for received in both_ways::<ToImp>(Decoder::of_imp, usize::from(*at), stream) {
        again(&received.message, Decoder::of_imp());
        // The longest result there is; the others are made of the same parts.
        if let Ok(inventory) = serde_json::from_slice::<Inventory>(&received.value) {
            let written = serde_json::to_vec(&inventory).unwrap();
            assert_eq!(serde_json::from_slice::<Inventory>(&written).unwrap(), inventory);
        }
    }
});

/// The frames of a stream, as one piece and as two.
fn both_ways<T: DeserializeOwned + Serialize>(
    decoder: fn() -> Decoder,
    at: usize,
    stream: &[u8],
) -> Vec<Received<T>> {
    let (first, second) = stream.split_at(at.min(stream.len()));
    let (whole, ended) = frames(decoder(), &[stream]);
    let (pieces, piecewise_ended) = frames(decoder(), &[first, second]);
    let texts = |frames: &[Received<T>]| -> Vec<_> {
        frames.iter().map(|frame| (text(&frame.message), frame.value.clone())).collect()
    };
    assert_eq!(texts(&whole), texts(&pieces));
    assert_eq!(ended.is_some(), piecewise_ended.is_some());
    whole
}

fn frames<T: DeserializeOwned>(
    mut decoder: Decoder,
    pieces: &[&[u8]],
) -> (Vec<Received<T>>, Option<LinkError>) {
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fn again<T: DeserializeOwned + Serialize>(message: &T, mut decoder: Decoder) {
    // What was shortened may be longer in full.
    let Ok(frame) = Frame::new(message, MAX_FROM_HOST) else { return };
    decoder.push(frame.as_bytes());
    if let Ok(read) = decoder.next_frame::<T>() {
        assert_eq!(text(&read.unwrap().message), text(message));
    }
}

fn text(message: &impl Serialize) -> String {
    serde_json::to_string(message).unwrap()
}
