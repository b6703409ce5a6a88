//! The channel, both directions: a stream of bytes to frames, frames to messages. What is understood is written
//! again and read again, and means the same.
#![no_main]

use ioward_channel::{AgentMessage, Frame, ImpMessage, stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut decoder = stream::Decoder::new();
    let mut input = bytes;
    while let Some(decoded) = decoder.next(&mut input) {
        if let Ok(frame) = decoded {
            look(&frame);
        }
    }
    // The encoding is seldom hit upon by chance: the same bytes as one frame, and as a payload of each kind.
    if let Ok(frame) = Frame::parse(bytes) {
        look(&frame);
    }
    if let Some((kind, payload)) = bytes.split_first() {
        let frame = Frame::new(*kind, 0, 1, payload.to_vec());
        frame.iter().for_each(look);
    }
});

fn look(frame: &Frame) {
    let mut encoded = Vec::new();
    stream::encode(frame, &mut encoded);
    let decoded = stream::Decoder::new().next(&mut &encoded[..]);
    assert_eq!(decoded, Some(Ok(frame.clone())));
    if let Ok(message) = AgentMessage::from_frame(frame) {
        assert_eq!(AgentMessage::from_frame(&message.to_frame()).as_ref(), Ok(&message));
    }
    if let Ok(message) = ImpMessage::from_frame(frame)
        && let [again] = &message.to_frames()[..]
    {
        assert_eq!(ImpMessage::from_frame(again).as_ref(), Ok(&message));
    }
}
