//! Messages survive encoding and decoding, and an invalid message is refused with the field that is wrong.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod values;

use ioward_channel::{AgentMessage, Frame, Hello, ImpMessage, MAX_FRAME_BYTES, MAX_VFS, MessageError};
use ioward_model::{Class, OpError, OpErrorKind, OpOutcome, VfOp, VfSettings, VfView};
use proptest::prelude::*;

const HELLO: u8 = 1;
const REQUEST: u8 = 2;
const RESPONSE: u8 = 0x82;

/// A payload written by hand, as somebody else's agent would.
fn cbor(write: impl FnOnce(&mut minicbor::Encoder<Vec<u8>>)) -> Vec<u8> {
    let mut encoder = minicbor::Encoder::new(Vec::new());
    write(&mut encoder);
    encoder.into_writer()
}

fn from_agent(kind: u8, payload: Vec<u8>) -> Result<AgentMessage, MessageError> {
    AgentMessage::from_frame(&Frame::new(kind, 0, 7, payload).unwrap())
}

fn problem(kind: u8, payload: Vec<u8>) -> String {
    from_agent(kind, payload).unwrap_err().to_string()
}

proptest! {
    #[test]
    fn every_message_of_an_agent_is_decoded_as_it_was_encoded(message in values::agent_message()) {
        prop_assert_eq!(AgentMessage::from_frame(&message.to_frame()), Ok(message));
    }

    #[test]
    fn every_message_of_the_management_partition_is_decoded_as_it_was_encoded(message in values::imp_message()) {
        let frames = message.to_frames();
        prop_assert_eq!(frames.len(), 1);
        prop_assert_eq!(ImpMessage::from_frame(&frames[0]), Ok(message));
    }

    /// The peer is hostile: any payload gives a message or an error.
    #[test]
    fn no_payload_panics(kind: u8, payload in proptest::collection::vec(any::<u8>(), 0..300)) {
        let frame = Frame::new(kind, 0, 0, payload).unwrap();
        let _ = AgentMessage::from_frame(&frame);
        let _ = ImpMessage::from_frame(&frame);
    }

    /// One wrong byte in a good message reaches checks that random bytes never reach.
    #[test]
    fn no_damaged_payload_panics(message in values::imp_message(), at: proptest::sample::Index, byte: u8) {
        let frame = &message.to_frames()[0];
        let mut payload = frame.payload().to_vec();
        let at = at.index(payload.len());
        payload[at] = byte;
        let _ = ImpMessage::from_frame(&Frame::new(frame.kind(), 0, 0, payload).unwrap());
    }
}

/// A newer agent may send more fields than this side knows, at every level.
#[test]
fn fields_of_a_later_version_are_skipped() {
    let payload = cbor(|e| {
        e.map(4).unwrap().u8(99).unwrap().begin_map().unwrap().str("deep").unwrap().array(1).unwrap();
        e.bool(true).unwrap().end().unwrap();
        e.u8(0).unwrap().u8(2).unwrap().u8(1).unwrap().str("net0").unwrap();
        e.u8(2).unwrap().map(2).unwrap().u8(1).unwrap().u16(5).unwrap().u8(77).unwrap().str("later").unwrap();
    });
    let change = VfSettings { vlan: ioward_model::Vlan::new(5), ..VfSettings::default() };
    let request = AgentMessage::Request { id: 7, op: VfOp::Set { vf: "net0".parse().unwrap(), change } };
    assert_eq!(from_agent(REQUEST, payload), Ok(request));
}

/// A VLAN was sent as its ID alone, so an 802.1ad one became 802.1Q. A plain one is still sent as its ID alone, which
/// agents of version 1 read.
#[test]
fn a_vlan_goes_with_its_protocol_and_priority() {
    let settings_of = |vlan: &str| {
        let change = VfSettings { vlan: vlan.parse().ok(), ..VfSettings::default() };
        let op = VfOp::Set { vf: "net0".parse().unwrap(), change };
        let message = AgentMessage::Request { id: 7, op };
        let frame = message.to_frame();
        assert_eq!(AgentMessage::from_frame(&frame).as_ref(), Ok(&message));
        // After the operation and the name, the change is the last field.
        let name = frame.payload().windows(4).position(|bytes| bytes == b"net0").unwrap();
        (message.needs_version(), frame.payload()[name + 5..].to_vec())
    };
    assert_eq!(settings_of("100"), (1, vec![0xa1, 0x01, 0x18, 100]));
    let service = vec![0xa2, 0x01, 0x18, 100, 0x0a, 0xa2, 0x00, 0x19, 0x88, 0xa8, 0x01, 0x03];
    assert_eq!(settings_of("100,proto=802.1ad,prio=3"), (2, service));
}

#[test]
fn an_invalid_tag_is_refused() {
    let tag = |vlan: bool, protocol: u16, priority: u8| {
        let payload = cbor(|e| {
            e.map(3).unwrap().u8(0).unwrap().u8(2).unwrap().u8(1).unwrap().str("net0").unwrap();
            e.u8(2).unwrap().map(if vlan { 2 } else { 1 }).unwrap();
            if vlan {
                e.u8(1).unwrap().u16(100).unwrap();
            }
            e.u8(10).unwrap().map(2).unwrap().u8(0).unwrap().u16(protocol).unwrap();
            e.u8(1).unwrap().u8(priority).unwrap();
        });
        problem(REQUEST, payload)
    };
    assert_eq!(tag(true, 0x9100, 0), "request: change.vlan_tag: 0x9100 is neither 0x8100 nor 0x88a8");
    assert_eq!(tag(true, 0x88a8, 8), "request: change.vlan_tag: priority 8 is above 7");
    assert_eq!(tag(false, 0x88a8, 0), "request: change.vlan_tag: it is without a vlan");
}

/// Skipping the only setting that a change names would answer "done" to a change that was not made.
#[test]
fn a_change_without_any_known_setting_is_refused() {
    let payload = cbor(|e| {
        e.map(3).unwrap().u8(0).unwrap().u8(2).unwrap().u8(1).unwrap().str("net0").unwrap();
        e.u8(2).unwrap().map(1).unwrap().u8(77).unwrap().u16(9000).unwrap();
    });
    assert_eq!(problem(REQUEST, payload), "request: change: no known setting is in it");
}

#[test]
fn a_refused_request_says_which_field_is_wrong() {
    let set = |field: u8, value: &dyn Fn(&mut minicbor::Encoder<Vec<u8>>)| {
        let payload = cbor(|e| {
            e.map(3).unwrap().u8(0).unwrap().u8(2).unwrap().u8(1).unwrap().str("net0").unwrap();
            e.u8(2).unwrap().map(1).unwrap().u8(field).unwrap();
            value(e);
        });
        problem(REQUEST, payload)
    };
    assert_eq!(
        set(1, &|e| {
            e.u16(4095).unwrap();
        }),
        "request: change.vlan: 4095 is above 4094"
    );
    assert_eq!(
        set(6, &|e| {
            e.u8(3).unwrap();
        }),
        "request: change.link_state: 3 is above 2"
    );
    let multicast = set(0, &|e| {
        e.bytes(&[1, 0, 0x5e, 0, 0, 1]).unwrap();
    });
    assert_eq!(multicast, "request: change.mac: 01:00:5e:00:00:01 is no unicast address");
    assert!(
        set(0, &|e| {
            e.bytes(&[2; 5]).unwrap();
        })
        .starts_with("request: "),
        "a MAC of five bytes"
    );
    assert!(
        set(1, &|e| {
            e.u32(70_000).unwrap();
        })
        .starts_with("request: "),
        "a VLAN of 17 bits"
    );

    let request = |op: u8, name: Option<&str>| {
        let payload = cbor(|e| {
            e.map(2).unwrap().u8(0).unwrap().u8(op).unwrap().u8(1).unwrap();
            if let Some(name) = name {
                e.str(name).unwrap()
            } else {
                e.null().unwrap()
            };
        });
        problem(REQUEST, payload)
    };
    assert_eq!(request(1, None), "request: vf: missing");
    assert_eq!(request(9, Some("net0")), "request: op: there is no operation 9");
    assert!(request(1, Some("../../etc")).contains("vf: '../../etc' is no name"));
    assert!(request(1, Some(&"x".repeat(41))).contains("40 at most"));
    assert!(!request(1, Some("\x1b[2J")).contains('\x1b'), "an error can be printed on a terminal");
    assert!(request(1, Some(&"x".repeat(60_000))).len() < 300);
}

#[test]
fn an_invalid_message_is_refused() {
    assert_eq!(from_agent(0x55, vec![0xa0]), Err(MessageError::Kind(0x55)));
    assert_eq!(from_agent(0x82, vec![0xa0]), Err(MessageError::Kind(0x82)), "an agent does not answer");
    let mut hello =
        AgentMessage::Hello(Hello { min_version: 1, max_version: 1, agent: "a".into(), nonce: 1 })
            .to_frame()
            .payload()
            .to_vec();
    hello.push(0);
    assert_eq!(problem(HELLO, hello), "hello: 1 bytes follow the payload");
    let long = cbor(|e| {
        e.map(4).unwrap().u8(0).unwrap().u8(1).unwrap().u8(1).unwrap().u8(1).unwrap();
        e.u8(2).unwrap().str(&"a".repeat(81)).unwrap().u8(3).unwrap().u8(1).unwrap();
    });
    assert_eq!(problem(HELLO, long), "hello: agent: 81 bytes; at most 80");
    for payload in [
        vec![],
        vec![0x80],
        vec![0xbf],
        vec![0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
        vec![0x9f; 60_000],
    ] {
        assert!(problem(HELLO, payload).starts_with("hello: "));
    }
}

/// An unknown field is skipped unchecked, but must not cost more than its bytes.
#[test]
fn a_deeply_nested_field_is_skipped() {
    for opening in [0x81, 0x9f, 0xa1, 0xbf, 0xc1] {
        let mut payload = vec![0xa1, 0x18, 99];
        payload.resize(65_000, opening);
        assert!(from_agent(HELLO, payload).is_err());
    }
}

#[test]
fn a_list_has_a_bound() {
    let views = cbor(|e| {
        e.map(2).unwrap().u8(0).unwrap().u8(3).unwrap().u8(2).unwrap().array(2000).unwrap();
        for _ in 0..2000 {
            e.map(5).unwrap().u8(0).unwrap().str("n").unwrap().u8(1).unwrap().u8(0).unwrap().u8(2).unwrap();
            e.u8(0).unwrap().u8(3).unwrap().map(0).unwrap().u8(4).unwrap().array(0).unwrap();
        }
    });
    let error = ImpMessage::from_frame(&Frame::new(RESPONSE, 0, 1, views).unwrap()).unwrap_err();
    assert!(error.to_string().contains("more than 1024 elements"), "{error}");
}

fn fat_view(number: usize) -> VfView {
    VfView {
        name: format!("v{number}").parse().unwrap(),
        class: Class::Network,
        host_address: "10000:01:10.0".parse().unwrap(),
        settings: VfSettings::default(),
        may: vec!["vlan 1,3,5,7,9".repeat(20); 12],
        failover: None,
        fault: None,
    }
}

#[test]
fn a_list_longer_than_a_frame_takes_several_frames() {
    let views: Vec<_> = (0..MAX_VFS).map(fat_view).collect();
    let message = ImpMessage::Response { id: 9, more: false, result: Ok(OpOutcome::Vfs(views.clone())) };
    let frames = message.to_frames();
    assert!(frames.len() > 1);
    let mut names = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        assert!(frame.to_bytes().len() <= MAX_FRAME_BYTES);
        let ImpMessage::Response { id: 9, more, result: Ok(OpOutcome::Vfs(part)) } =
            ImpMessage::from_frame(frame).unwrap()
        else {
            panic!("a part of a list");
        };
        assert_eq!(more, number + 1 < frames.len());
        names.extend(part.into_iter().map(|view| view.name));
    }
    assert_eq!(names, views.into_iter().map(|view| view.name).collect::<Vec<_>>());
}

/// Found by fuzzing: an answer that is not a list could say that more follows, and came out different when it was
/// encoded again.
#[test]
fn only_a_list_can_be_continued() {
    let more = |result: Result<OpOutcome, OpError>| {
        let frame = ImpMessage::Response { id: 9, more: false, result }.to_frames().remove(0);
        let flagged = Frame::new(frame.kind(), 1, frame.request(), frame.payload().to_vec()).unwrap();
        let Ok(ImpMessage::Response { more, .. }) = ImpMessage::from_frame(&flagged) else {
            panic!("{flagged:?}")
        };
        more
    };
    assert!(more(Ok(OpOutcome::Vfs(Vec::new()))));
    for single in [Ok(OpOutcome::Done), Err(OpError::new(OpErrorKind::Busy, "in reset"))] {
        assert!(!more(single.clone()), "{single:?}");
    }
}

#[test]
fn a_list_beyond_the_bound_is_refused_when_it_is_sent() {
    let views = vec![fat_view(0); MAX_VFS + 1];
    let message = ImpMessage::Response { id: 9, more: false, result: Ok(OpOutcome::Vfs(views)) };
    let answer = ImpMessage::from_frame(&message.to_frames()[0]).unwrap();
    assert!(matches!(answer, ImpMessage::Response { id: 9, more: false, result: Err(error) }
        if error.kind == OpErrorKind::Failed && error.message.contains("1024")));
}

/// Driver messages end up in errors: they can be long, and hold anything.
#[test]
fn texts_are_cut_and_cleaned_when_sent() {
    let error = OpError::new(OpErrorKind::Failed, format!("igb: \x1b[31m{}", "é".repeat(100_000)));
    let message = ImpMessage::Response { id: 1, more: false, result: Err(error) };
    let ImpMessage::Response { result: Err(error), .. } =
        ImpMessage::from_frame(&message.to_frames()[0]).unwrap()
    else {
        panic!("an error");
    };
    assert!(error.message.starts_with("igb:  [31mé") && error.message.ends_with('…'));
    assert!(error.message.len() <= 1024);
}

#[test]
fn the_newest_common_version_is_spoken() {
    let version = |min_version, max_version| {
        Hello { min_version, max_version, agent: String::new(), nonce: 0 }.version()
    };
    assert_eq!(version(1, 1), Some(1));
    assert_eq!(version(0, 9), Some(3));
    assert_eq!(version(3, 9), Some(3));
    assert_eq!(version(4, 9), None);
    assert_eq!(version(0, 0), None);
    assert_eq!(version(9, 0), None);
}
