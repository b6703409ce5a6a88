//! The agent over shared memory: the same sessions as over a port, and a management partition that leaves or cheats.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::{
    os::fd::AsFd,
    thread::{self, JoinHandle},
    time::Duration,
};

use ioward_agent::{Agent, AgentError, Notice, Options, WatchEvent, command};
use ioward_channel::{
    AgentMessage, ImpMessage, VERSION, Welcome,
    shared::{self, EndFds, Endpoint, Side},
};
use ioward_model::{Class, OpError, OpErrorKind, OpOutcome, VfOp, VfSettings, VfView};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(200);

struct Imp(Endpoint);

impl Imp {
    /// Runs a script beside the test, at the other end of the returned descriptors.
    fn runs(script: impl FnOnce(&mut Self) + Send + 'static) -> (EndFds, JoinHandle<()>) {
        let (imp, guest) = shared::create().unwrap();
        let mut imp = Self(Endpoint::from_fds(Side::Imp, imp).unwrap());
        (guest, thread::spawn(move || script(&mut imp)))
    }

    fn send(&mut self, message: &ImpMessage) {
        for frame in message.to_frames() {
            while !self.0.try_send(&frame).unwrap() {
                self.wait();
            }
        }
    }

    fn receive(&mut self) -> AgentMessage {
        loop {
            match self.0.try_receive().unwrap() {
                Some(frame) => return AgentMessage::from_frame(&frame.unwrap()).unwrap(),
                None => self.wait(),
            }
        }
    }

    fn wait(&mut self) {
        let bound = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.0.as_fd(), PollFlags::IN)], Some(&bound)).unwrap();
        self.0.clear().unwrap();
    }

    fn greet(&mut self) {
        let AgentMessage::Hello(hello) = self.receive() else { panic!("a hello") };
        let partition = "web".parse().unwrap();
        self.send(&ImpMessage::Welcome(Welcome {
            version: VERSION,
            epoch: 1,
            nonce: hello.nonce,
            partition,
        }));
    }

    fn answer(&mut self, result: Result<OpOutcome, OpError>) -> Option<VfOp> {
        let (id, op) = match self.receive() {
            AgentMessage::Request { id, op } => (id, Some(op)),
            AgentMessage::Subscribe { id } => (id, None),
            AgentMessage::Hello(_) => panic!("another hello"),
        };
        self.send(&ImpMessage::Response { id, more: false, result });
        op
    }
}

fn view(name: &str) -> VfView {
    VfView {
        name: name.parse().unwrap(),
        class: Class::Network,
        host_address: "0000:01:10.0".parse().unwrap(),
        settings: VfSettings::default(),
        may: vec![],
        failover: None,
        fault: None,
    }
}

fn open(fds: EndFds) -> Result<Agent, AgentError> {
    Agent::from_shared(fds, Options { connect: LONG, answer: LONG, nonce: 1 })
}

#[test]
fn an_agent_asks_and_is_answered_through_shared_memory() {
    let (fds, imp) = Imp::runs(|imp| {
        imp.send(&ImpMessage::Reset { epoch: 1 });
        imp.greet();
        imp.greet();
        assert_eq!(imp.answer(Ok(OpOutcome::Vfs(vec![view("net0"); 1000]))), Some(VfOp::List));
        imp.answer(Ok(OpOutcome::Done));
        imp.answer(Ok(OpOutcome::Vfs(vec![])));
        imp.send(&ImpMessage::Notice(Notice::Added(view("net1"))));
    });
    let mut agent = open(fds).unwrap();
    assert_eq!(agent.list().unwrap().len(), 1000, "many frames, one answer");
    let mut watch = agent.watch();
    assert_eq!(watch.wait().unwrap(), WatchEvent::Present(vec![]));
    assert_eq!(watch.wait().unwrap(), WatchEvent::Notice(Notice::Added(view("net1"))));
    imp.join().unwrap();
    assert!(matches!(watch.wait().unwrap_err(), AgentError::Closed { .. }));
}

#[test]
fn words_of_a_console_become_operations_and_exit_statuses() {
    let (fds, imp) = Imp::runs(|imp| {
        imp.greet();
        imp.answer(Ok(OpOutcome::Vfs(vec![])));
        imp.answer(Err(OpError::new(OpErrorKind::Denied, "not in guest_may")));
    });
    let mut agent = open(fds).unwrap();
    let mut run = |words: &[&str]| {
        let mut out = Vec::new();
        let status = command(&mut agent, words, &mut out, &mut || true).unwrap();
        (status, String::from_utf8(out).unwrap())
    };
    assert_eq!(run(&["vf", "list"]), (0, "This partition holds no VF.\n".to_owned()));
    assert_eq!(run(&["vf", "set", "net0", "vlan=5"]), (3, "not in guest_may\n".to_owned()));
    assert_eq!(run(&["vf", "set", "net0", "vlan=4095"]).0, 2);
    assert_eq!(run(&["vf", "get", "../etc"]).0, 2);
    assert_eq!(run(&["vf", "watch"]), (0, String::new()), "interrupted before it asked for anything");
    imp.join().unwrap();
}

#[test]
fn a_silent_management_partition_is_an_error_at_the_bound() {
    let (_imp, guest) = shared::create().unwrap();
    let error = Agent::from_shared(guest, Options { connect: SHORT, answer: SHORT, nonce: 1 }).err().unwrap();
    assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");
}

#[test]
fn a_management_partition_that_leaves_is_noticed() {
    let (fds, imp) = Imp::runs(Imp::greet);
    let mut agent = open(fds).unwrap();
    imp.join().unwrap();
    assert!(matches!(agent.list().unwrap_err(), AgentError::Closed { .. }));
}

#[test]
fn a_region_that_was_corrupted_is_an_error() {
    let (_imp, guest) = shared::create().unwrap();
    rustix::io::pwrite(&guest.memory, &u32::MAX.to_ne_bytes(), 2048).unwrap();
    let error = open(guest).err().unwrap();
    assert!(matches!(error, AgentError::Io { .. }), "{error}");
}

#[test]
fn invalid_memory_is_refused_as_a_region() {
    let (_imp, guest) = shared::create().unwrap();
    let error = open(EndFds { memory: rustix::pipe::pipe().unwrap().0, ..guest }).err().unwrap();
    assert!(matches!(error, AgentError::Open { .. }), "{error}");
}
