//! The agent on a channel that others have used before it, and with a management partition that restarts, falls
//! silent or sends nonsense.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod imp;

use std::time::Duration;

use imp::{Imp, done, encoded, vfs, view, welcome};
use ioward_agent::{Agent, AgentError, Notice, Options, WatchEvent};
use ioward_channel::{ChannelError, ErrorCode, Frame, ImpMessage, MAX_VFS, Welcome, stream};
use ioward_model::{OpError, OpErrorKind, OpOutcome, VfOp, VfSettings, VfView, Vlan};

/// Ample on a slow machine: a test that uses it ends by a message, not by time.
const LONG: Duration = Duration::from_secs(60);
/// For waits that must time out.
const SHORT: Duration = Duration::from_millis(200);

fn open_within(imp: &Imp, connect: Duration, answer: Duration) -> Result<Agent, AgentError> {
    Agent::open(imp.port(), Options { connect, answer, nonce: 41 })
}

fn open(imp: &Imp) -> Result<Agent, AgentError> {
    open_within(imp, LONG, LONG)
}

fn names(views: &[VfView]) -> Vec<&str> {
    views.iter().map(|view| view.name.as_str()).collect()
}

fn change() -> VfSettings {
    VfSettings { vlan: Vlan::new(5), ..VfSettings::default() }
}

#[test]
fn an_agent_says_hello_and_asks() {
    let imp = Imp::runs(|agent| {
        let hello = agent.hello();
        assert_eq!((hello.min_version, hello.max_version, hello.nonce), (1, 3, 42));
        assert!(hello.agent.starts_with("ioward-agent "));
        agent.send(&welcome(42, 7));
        let (id, op) = agent.request();
        assert_eq!(op, VfOp::Get { vf: "net0".parse().unwrap() });
        agent.send(&ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Vf(view("net0"))) });
    });
    let mut agent = open(&imp).unwrap();
    assert_eq!(agent.welcome().unwrap().epoch, 7);
    assert_eq!(agent.get("net0".parse().unwrap()).unwrap(), view("net0"));
    imp.ended();
}

/// An agent was killed before it read its answers. The next agent reads them first.
#[test]
fn answers_to_an_earlier_agent_are_ignored() {
    let imp = Imp::runs(|agent| {
        agent.send(&welcome(7, 1));
        agent.send(&vfs(42, vec![view("stale")]));
        agent.send(&ImpMessage::Notice(Notice::Added(view("stale"))));
        let nonce = agent.hello().nonce;
        agent.send(&vfs(43, vec![view("stale")]));
        agent.send(&welcome(nonce, 1));
        let (id, _) = agent.request();
        agent.send(&vfs(id.wrapping_add(1), vec![view("stale")]));
        agent.send(&vfs(id, vec![view("net0")]));
    });
    assert_eq!(names(&open(&imp).unwrap().list().unwrap()), ["net0"]);
    imp.ended();
}

/// The management partition was killed in the middle of an answer.
#[test]
fn half_a_frame_before_the_welcome_is_ignored() {
    let imp = Imp::runs(|agent| {
        let stale = encoded(&vfs(1, vec![view("stale")]));
        agent.write(&stale[..stale.len() / 2]);
        agent.greet();
        let (id, _) = agent.request();
        agent.write(&[0xff; 100]);
        agent.send(&vfs(id, vec![view("net0")]));
    });
    assert_eq!(names(&open(&imp).unwrap().list().unwrap()), ["net0"]);
    imp.ended();
}

#[test]
fn a_welcome_for_another_hello_is_ignored() {
    let imp = Imp::runs(|agent| {
        let nonce = agent.hello().nonce;
        agent.send(&welcome(nonce.wrapping_add(1), 1));
        agent.agent_leaves();
    });
    assert!(matches!(open_within(&imp, SHORT, LONG), Err(AgentError::NoAnswer { .. })));
    imp.ended();
}

/// The hello went to a management partition that died before it answered.
#[test]
fn a_reset_before_the_welcome_brings_another_hello() {
    let imp = Imp::runs(|agent| {
        let first = agent.hello().nonce;
        agent.send(&ImpMessage::Reset { epoch: 2 });
        let second = agent.hello().nonce;
        assert_ne!(first, second, "an answer to the first must not pass for one to the second");
        agent.send(&welcome(first, 1));
        agent.send(&welcome(second, 2));
    });
    assert_eq!(open(&imp).unwrap().welcome().unwrap().epoch, 2);
    imp.ended();
}

#[test]
fn a_read_interrupted_by_a_restart_is_repeated() {
    let imp = Imp::runs(|agent| {
        agent.greet_in(1);
        agent.request();
        agent.send(&ImpMessage::Reset { epoch: 2 });
        agent.greet_in(2);
        let (id, _) = agent.request();
        agent.send(&vfs(id, vec![view("net0")]));
    });
    let mut agent = open(&imp).unwrap();
    assert_eq!(names(&agent.list().unwrap()), ["net0"]);
    assert_eq!(agent.welcome().unwrap().epoch, 2);
    imp.ended();
}

/// It may have been done before the restart: repeating it is the user's decision.
#[test]
fn a_change_interrupted_by_a_restart_is_not_repeated() {
    let imp = Imp::runs(|agent| {
        agent.greet_in(1);
        agent.request();
        agent.send(&ImpMessage::Reset { epoch: 2 });
        agent.greet_in(2);
        let (id, op) = agent.request();
        assert_eq!(op, VfOp::List, "the change is not repeated, and the agent can go on");
        agent.send(&vfs(id, vec![]));
    });
    let mut agent = open(&imp).unwrap();
    let error = agent.set("net0".parse().unwrap(), change()).unwrap_err();
    assert!(matches!(error, AgentError::Interrupted { op: "set" }), "{error}");
    assert!(agent.list().unwrap().is_empty());
    imp.ended();
}

/// The management partition reports that it had no hello: it has not done the request, so repeating is safe.
#[test]
fn a_change_before_a_hello_is_repeated_after_it() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        let (id, _) = agent.request();
        let (code, message) = (ErrorCode::HelloNeeded, "hello?".to_owned());
        let error = ChannelError { id, code, message, min_version: 1, max_version: 1, nonce: None };
        agent.send(&ImpMessage::Error(error));
        agent.greet();
        let (id, op) = agent.request();
        assert_eq!(op, VfOp::Set { vf: "net0".parse().unwrap(), change: change() });
        agent.send(&ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Vf(view("net0"))) });
    });
    assert_eq!(open(&imp).unwrap().set("net0".parse().unwrap(), change()).unwrap(), view("net0"));
    imp.ended();
}

#[test]
fn an_incompatible_version_and_silence_give_different_errors() {
    let imp = Imp::runs(|agent| {
        let nonce = Some(agent.hello().nonce);
        let (code, message) = (ErrorCode::UnsupportedVersion, String::new());
        let error = ChannelError { id: 0, code, message, min_version: 2, max_version: 3, nonce };
        agent.send(&ImpMessage::Error(ChannelError { nonce: Some(1), min_version: 8, ..error.clone() }));
        agent.send(&ImpMessage::Error(error));
    });
    let error = open(&imp).err().unwrap();
    assert!(matches!(error, AgentError::UnsupportedVersion { imp_min: 2, imp_max: 3 }), "{error}");
    imp.ended();
}

/// It would set the VLAN without its tag, and say that all was done.
#[test]
fn a_tag_is_not_sent_to_a_management_partition_of_version_1() {
    let imp = Imp::runs(|agent| {
        let nonce = agent.hello().nonce;
        let partition = "web".parse().unwrap();
        agent.send(&ImpMessage::Welcome(Welcome { version: 1, epoch: 1, nonce, partition }));
        let (id, op) = agent.request();
        assert_eq!(op, VfOp::Set { vf: "net0".parse().unwrap(), change: change() }, "a plain VLAN");
        agent.send(&ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Vf(view("net0"))) });
    });
    let mut agent = open(&imp).unwrap();
    let tagged = VfSettings { vlan: "5,prio=3".parse().ok(), ..VfSettings::default() };
    let error = agent.set("net0".parse().unwrap(), tagged).unwrap_err();
    assert!(matches!(error, AgentError::TooOld { needs: 2, spoken: 1 }), "{error}");
    agent.set("net0".parse().unwrap(), change()).unwrap();
    imp.ended();
}

#[test]
fn silence_ends_at_the_bound() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        agent.agent_leaves();
    });
    let error = open_within(&imp, LONG, SHORT).unwrap().list().unwrap_err();
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
    imp.ended();
}

/// A peer that sends all the time, but never the answer, must not hold the agent indefinitely.
#[test]
fn chatter_ends_at_the_bound() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        let chatter: Vec<u8> = encoded(&done(0)).repeat(100);
        let stream = agent.stream();
        while std::io::Write::write_all(stream, &chatter).is_ok() {}
    });
    let error = open_within(&imp, LONG, SHORT).unwrap().list().unwrap_err();
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
    imp.ended();
}

#[test]
fn a_closed_channel_is_reported() {
    let imp = Imp::runs(imp::Connection::greet);
    let mut agent = open(&imp).unwrap();
    imp.ended();
    let error = agent.list().unwrap_err();
    assert!(matches!(error, AgentError::Closed { .. }), "{error}");
}

#[test]
fn a_long_list_is_put_together_and_an_endless_one_refused() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        let (id, _) = agent.request();
        agent.send(&ImpMessage::Response {
            id,
            more: true,
            result: Ok(OpOutcome::Vfs(vec![view("a"), view("b")])),
        });
        agent.send(&vfs(id, vec![view("c")]));
        let (id, _) = agent.request();
        let part = ImpMessage::Response { id, more: true, result: Ok(OpOutcome::Vfs(vec![view("a"); 500])) };
        (0..=MAX_VFS / 500).for_each(|_| agent.send(&part));
    });
    let mut agent = open(&imp).unwrap();
    assert_eq!(names(&agent.list().unwrap()), ["a", "b", "c"]);
    assert!(matches!(agent.list().unwrap_err(), AgentError::Nonsense(_)));
    imp.ended();
}

#[test]
fn an_invalid_answer_is_an_error_at_once() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        let (id, _) = agent.request();
        agent.send(&done(id));
        let (id, _) = agent.request();
        let mut bytes = stream::START.to_vec();
        stream::encode(&Frame::new(0x77, 0, id, vec![]).unwrap(), &mut bytes);
        stream::encode(&Frame::new(0x82, 0, id, vec![0xa1, 0, 9]).unwrap(), &mut bytes);
        agent.write(&bytes);
    });
    let mut agent = open(&imp).unwrap();
    assert_eq!(
        agent.list().unwrap_err().to_string(),
        "the management partition answered what makes no sense: 'done' to 'list'"
    );
    let error = agent.list().unwrap_err().to_string();
    assert!(error.ends_with("response: result: there is no result 9"), "{error}");
    imp.ended();
}

#[test]
fn a_refusal_reaches_the_caller_unchanged() {
    let refusal = OpError::new(OpErrorKind::Denied, "net0: vlan is not in guest_may of this VF");
    let said = refusal.clone();
    let imp = Imp::answers(|_| Err(said));
    let error = open(&imp).unwrap().set("net0".parse().unwrap(), change()).unwrap_err();
    assert!(matches!(error, AgentError::Operation(found) if found == refusal));
    imp.ended();
}

#[test]
fn a_watcher_sees_all_there_is_and_then_what_changes_across_a_restart() {
    let imp = Imp::runs(|agent| {
        agent.greet_in(1);
        agent.subscribe(vec![view("net0")]);
        agent.send(&ImpMessage::Notice(Notice::Added(view("net1"))));
        agent.send(&ImpMessage::Notice(Notice::Removed("net0".parse().unwrap())));
        agent.send(&ImpMessage::Reset { epoch: 2 });
        agent.greet_in(2);
        agent.subscribe(vec![view("net1"), view("net2")]);
        agent.send(&ImpMessage::Notice(Notice::Changed(view("net2"))));
    });
    let mut agent = open(&imp).unwrap();
    let mut watch = agent.watch();
    assert_eq!(watch.wait().unwrap(), WatchEvent::Present(vec![view("net0")]));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Notice(Notice::Added(view("net1"))));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Notice(Notice::Removed("net0".parse().unwrap())));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Present(vec![view("net1"), view("net2")]));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Notice(Notice::Changed(view("net2"))));
    imp.ended();
    assert!(matches!(watch.wait().unwrap_err(), AgentError::Closed { .. }));
}

/// A VF came between the subscription and the list: the wait for the answer must keep the notice.
#[test]
fn a_notice_before_the_list_is_kept() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        let ioward_channel::AgentMessage::Subscribe { id } = agent.receive() else { unreachable!() };
        agent.send(&done(id));
        agent.send(&ImpMessage::Notice(Notice::Added(view("net1"))));
        let (id, _) = agent.request();
        agent.send(&vfs(id, vec![view("net0")]));
    });
    let mut agent = open(&imp).unwrap();
    let mut watch = agent.watch();
    assert_eq!(watch.wait().unwrap(), WatchEvent::Present(vec![view("net0")]));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Notice(Notice::Added(view("net1"))));
    imp.ended();
}
