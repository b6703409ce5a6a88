//! A byte stream that is never reset: whatever remains in it, the next frame is found.

mod values;

use ioward_channel::{
    AgentMessage, Frame, FrameError, Hello, MAX_FRAME_BYTES, MAX_PAYLOAD_BYTES,
    stream::{Decoder, START, encode},
};
use ioward_model::VfOp;
use proptest::{collection::vec, prelude::*, sample::Index};

/// Everything that a decoder finds in a stream, cut into these pieces.
fn decode<'a>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Result<Frame, FrameError>> {
    let mut found = Vec::new();
    for mut piece in pieces {
        while let Some(item) = decoder.next(&mut piece) {
            found.push(item);
        }
        assert!(piece.is_empty());
    }
    found
}

fn hello() -> Frame {
    let agent = "ioward-agent 0.1.0".to_owned();
    AgentMessage::Hello(Hello { min_version: 1, max_version: 1, agent, nonce: 0x0100_0000_0000_0001 })
        .to_frame()
}

fn stream_of(frames: &[Frame]) -> Vec<u8> {
    let mut stream = START.to_vec();
    frames.iter().for_each(|frame| encode(frame, &mut stream));
    stream
}

proptest! {
    #[test]
    fn frames_come_out_however_the_stream_is_cut(
        messages in vec(values::agent_message(), 1..5), cuts in vec(any::<Index>(), 0..6),
    ) {
        let frames: Vec<_> = messages.iter().map(AgentMessage::to_frame).collect();
        let stream = stream_of(&frames);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]);
        let expected: Vec<_> = frames.into_iter().map(Ok).collect();
        prop_assert_eq!(decode(&mut Decoder::new(), pieces), expected);
    }

    /// Whatever a guest writes, the decoder neither panics nor loses the frame after it.
    #[test]
    fn any_garbage_is_survived(garbage in vec(any::<u8>(), 0..2000)) {
        let mut decoder = Decoder::new();
        decode(&mut decoder, [&garbage[..]]);
        let found = decode(&mut decoder, [&stream_of(&[hello()])[..]]);
        prop_assert_eq!(found.last(), Some(&Ok(hello())));
        prop_assert!(found.len() <= 2, "the garbage ends where the sender begins");
    }
}

/// The example of docs/channel.md, which other agents are written from.
#[test]
fn a_request_goes_over_a_stream_as_documented() {
    let list = AgentMessage::Request { id: 1, op: VfOp::List }.to_frame();
    let documented = [0, 5, 0x49, 0x57, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1, 3, 3, 0xa1, 1, 1, 0];
    assert_eq!(stream_of(&[list]), documented);
}

#[test]
fn a_stream_may_be_cut_at_every_byte() {
    let stream = stream_of(&[hello(), hello()]);
    for at in 0..=stream.len() {
        let found = decode(&mut Decoder::new(), [&stream[..at], &stream[at..]]);
        assert_eq!(found, [Ok(hello()), Ok(hello())], "cut at {at}");
    }
    assert_eq!(decode(&mut Decoder::new(), stream.chunks(1)), [Ok(hello()), Ok(hello())]);
}

/// The agent was killed in the middle of a frame. Virtio-serial keeps what it wrote, and the agent that is started next
/// must not have its hello taken for the rest of that frame.
#[test]
fn half_a_frame_does_not_swallow_the_next_hello() {
    let mut frame = Vec::new();
    encode(&hello(), &mut frame);
    let next = stream_of(&[hello()]);
    for cut in 0..frame.len() {
        let found = decode(&mut Decoder::new(), [&frame[..cut], &next]);
        let (last, before) = found.split_last().unwrap();
        assert_eq!(last, &Ok(hello()), "cut at {cut}");
        // The next sender's start completes a frame that only lacks its end.
        let whole = cut == frame.len() - 1;
        assert!(
            before.len() <= 1 && before.iter().all(|item| item.is_ok() == whole),
            "cut at {cut}: {before:?}"
        );
    }
}

#[test]
fn a_frame_that_is_too_long_is_reported_once_and_skipped() {
    let mut decoder = Decoder::new();
    let megabyte = vec![0xff; 1 << 20];
    let pieces = megabyte.chunks(4096).chain(megabyte.chunks(5000));
    assert_eq!(decode(&mut decoder, pieces), [Err(FrameError::TooLong)]);
    assert_eq!(decode(&mut decoder, [&stream_of(&[hello()])[..]]), [Ok(hello())]);
    let whole = [&megabyte[..], &stream_of(&[hello()])].concat();
    assert_eq!(decode(&mut decoder, [&whole[..]]), [Err(FrameError::TooLong), Ok(hello())]);
}

#[test]
fn the_longest_frame_goes_through() {
    for byte in [0, 1] {
        let longest = Frame::new(1, 0, 0, vec![byte; MAX_PAYLOAD_BYTES]).unwrap();
        assert_eq!(longest.to_bytes().len(), MAX_FRAME_BYTES);
        assert_eq!(
            decode(&mut Decoder::new(), stream_of(std::slice::from_ref(&longest)).chunks(999)),
            [Ok(longest)]
        );
    }
}

#[test]
fn empty_frames_are_skipped() {
    assert_eq!(decode(&mut Decoder::new(), [&[0; 10_000][..]]), []);
}
