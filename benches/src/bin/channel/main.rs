//! The channel through shared memory, against the least that two processes could do to ask each other something: an eventfd each way, where
//! both wait; and a cache line that two CPUs pass to each other, where both spin.
//!
//! ```text
//!   bench ── operation ─────> the agent's library in this process asks; another answers, with the protocol's messages, and no host behind it
//!         ── eventfd ───────> the same two processes and nothing but a number in an eventfd
//!         ── frames ────────> two threads that never wait send frames of a get to each other
//!         ── cache line ────> two threads and a number
//! ```
//!
//! Who asks has a CPU, and who answers has another, in all four: else the scheduler has now both on one and now each on its own, which differ
//! by more than what is measured.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

use std::{
    env,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Command, ExitCode, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

use ioward_agent::{Agent, Options};
use ioward_benches::{
    row::{Role, Row},
    run::Run,
};
use ioward_channel::{
    AgentMessage, Frame, ImpMessage, Welcome,
    shared::{EndFds, Endpoint, Side, create},
};
use ioward_model::{Class, Name, OpOutcome, VfOp, VfSettings, VfView};
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    io::{read, write},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// Rounds.
const ROUNDS: usize = 15;
/// Operations in each round, where both sides wait.
const WAITING: u32 = 2_000;
/// And where both spin.
const SPINNING: u32 = 20_000;
/// What an operation may take of two eventfds.
const OF_EVENTFD: f64 = 1.5;
/// What frames may take of a cache line.
const OF_CACHE_LINE: f64 = 3.0;
/// Who spins lets others run after so many looks: there may be more threads than CPUs.
const LOOKS: u32 = 20_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["answer", cpu] => {
            run_on(cpu.parse().unwrap());
            let [memory, doorbell_in, doorbell_out] = inherited();
            answer(EndFds { memory, doorbell_in, doorbell_out });
            ExitCode::SUCCESS
        }
        ["echo", cpu] => {
            run_on(cpu.parse().unwrap());
            let [asks, answers, _] = inherited();
            while let Some(number) = take(asks.as_fd()) {
                give(answers.as_fd(), number);
            }
            ExitCode::SUCCESS
        }
        _ => bench(),
    }
}

/// Has this thread, and those that it begins, run on one CPU.
fn run_on(cpu: usize) {
    let mut one = CpuSet::new();
    one.set(cpu);
    sched_setaffinity(None, &one).unwrap();
}

fn bench() -> ExitCode {
    let mut run = match Run::asked_for("channel", &["operation", "frames"]) {
        Ok(run) => run,
        Err(status) => return status,
    };
    let allowed = sched_getaffinity(None).unwrap();
    let allowed: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    // The same where there is only one.
    let (asks, answers) = (allowed[0], allowed[allowed.len() - 1]);
    run_on(asks);
    if run.wants("operation") {
        run.row(operations(answers));
    }
    if run.wants("frames") {
        run.row(frames(answers));
    }
    run.end()
}

fn operations(cpu: usize) -> Row {
    let (mut agent, mut answers) = agent(cpu);
    let vf: Name = "net0".parse().unwrap();
    let ([asks, hears], mut echoes) = eventfds(cpu);
    let what = "both sides wait: a get of a VF, there and back, two processes, each on a CPU of its own";
    let row = Row::new("operation", what, "us")
        .with(Role::Ours, "VfOp get through shared memory")
        .with(Role::Floor, "eventfd ping-pong")
        .ratio(0, 1, OF_EVENTFD);
    let row = row.take_turns(ROUNDS, |_, place| {
        let begun = Instant::now();
        for _ in 0..WAITING {
            if place == 0 {
                agent.get(vf.clone()).map_err(|error| error.to_string())?;
            } else {
                give(asks.as_fd(), 1);
                take(hears.as_fd()).ok_or("nobody answers")?;
            }
        }
        Ok::<_, String>(each(begun, WAITING))
    });
    drop(agent);
    answers.wait().unwrap();
    // More than one is the end.
    give(asks.as_fd(), 2);
    echoes.wait().unwrap();
    row.unwrap()
}

fn frames(cpu: usize) -> Row {
    let row =
        Row::new("frames", "both sides spin: two threads, there and back, each on a CPU of its own", "us")
            .with(Role::Ours, "a frame of a get through the rings")
            .with(Role::Floor, "cache-line ping-pong")
            .ratio(0, 1, OF_CACHE_LINE);
    let row = row.take_turns(ROUNDS, |_, place| {
        Ok::<_, String>(if place == 0 { frames_there_and_back(cpu) } else { line_there_and_back(cpu) })
    });
    row.unwrap()
}

/// In microseconds.
fn each(begun: Instant, count: u32) -> f64 {
    begun.elapsed().as_secs_f64() * 1e6 / f64::from(count)
}

/// The three descriptors that a process of this benchmark inherits in place of stdin, stdout and stderr.
fn inherited() -> [OwnedFd; 3] {
    let fds = [std::io::stdin().as_fd().try_clone_to_owned(), std::io::stdout().as_fd().try_clone_to_owned()];
    let [first, second] = fds.map(Result::unwrap);
    [first, second, std::io::stderr().as_fd().try_clone_to_owned().unwrap()]
}

fn this(what: &str, cpu: usize, fds: [OwnedFd; 3]) -> Child {
    let [stdin, stdout, stderr] = fds.map(Stdio::from);
    let mut command = Command::new(env::current_exe().unwrap());
    command.arg(what).arg(cpu.to_string()).stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap()
}

/// The agent's library, and a process at the other end.
fn agent(cpu: usize) -> (Agent, Child) {
    let (imp, guest) = create().unwrap();
    let child = this("answer", cpu, [imp.memory, imp.doorbell_in, imp.doorbell_out]);
    (Agent::from_shared(guest, Options::default()).unwrap(), child)
}

/// The management partition's end, with nothing behind it but a VF that is always the same.
fn answer(fds: EndFds) {
    let mut end = Endpoint::from_fds(Side::Imp, fds).unwrap();
    loop {
        match end.try_receive() {
            Ok(Some(frame)) => {
                for frame in outcome(&AgentMessage::from_frame(&frame.unwrap()).unwrap()).to_frames() {
                    assert!(end.try_send(&frame).unwrap(), "one answer at a time fits");
                }
            }
            Ok(None) => {
                wait(end.as_fd());
                end.clear().unwrap();
            }
            // The agent has left.
            Err(_) => return,
        }
    }
}

fn outcome(message: &AgentMessage) -> ImpMessage {
    match message {
        AgentMessage::Hello(hello) => ImpMessage::Welcome(Welcome {
            version: hello.version().unwrap(),
            epoch: 1,
            nonce: hello.nonce,
            partition: "web".parse().unwrap(),
        }),
        AgentMessage::Request { id, .. } | AgentMessage::Subscribe { id } => {
            ImpMessage::Response { id: *id, more: false, result: Ok(OpOutcome::Vf(view())) }
        }
    }
}

fn view() -> VfView {
    VfView {
        name: "net0".parse().unwrap(),
        class: Class::Network,
        host_address: "0000:01:10.0".parse().unwrap(),
        settings: VfSettings {
            mac: Some("52:54:00:aa:00:01".parse().unwrap()),
            trust: Some(false),
            ..VfSettings::default()
        },
        may: vec!["mac".to_owned(), "reset".to_owned()],
        failover: None,
        fault: None,
    }
}

/// Two eventfds that block, and a process that answers what comes through the first by the second.
fn eventfds(cpu: usize) -> ([OwnedFd; 2], Child) {
    let [asks, answers] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let [theirs, their_answers, unused] =
        [&asks, &answers, &answers].map(|fd| fd.as_fd().try_clone_to_owned().unwrap());
    ([asks, answers], this("echo", cpu, [theirs, their_answers, unused]))
}

fn give(fd: BorrowedFd<'_>, number: u64) {
    write(fd, &number.to_ne_bytes()).unwrap();
}

/// Waits for a number; `None` for the one that says that nothing more comes.
fn take(fd: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes = [0; 8];
    read(fd, &mut bytes).unwrap();
    Some(u64::from_ne_bytes(bytes)).filter(|number| *number == 1)
}

fn wait(fd: BorrowedFd<'_>) {
    poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None).unwrap();
}

fn frames_there_and_back(cpu: usize) -> f64 {
    let (imp, guest) = create().unwrap();
    let mut imp = Endpoint::from_fds(Side::Imp, imp).unwrap();
    let mut guest = Endpoint::from_fds(Side::Guest, guest).unwrap();
    let op = VfOp::Get { vf: "net0".parse().unwrap() };
    let request = AgentMessage::Request { id: 1, op }.to_frame();
    let answers = thread::spawn(move || {
        run_on(cpu);
        for _ in 0..SPINNING {
            let frame = receive(&mut imp);
            assert!(imp.try_send(&frame).unwrap());
        }
        // Not dropped before the last answer is read.
        imp
    });
    let begun = Instant::now();
    for _ in 0..SPINNING {
        assert!(guest.try_send(&request).unwrap());
        assert_eq!(receive(&mut guest), request);
    }
    let took = each(begun, SPINNING);
    drop(answers.join().unwrap());
    took
}

fn receive(end: &mut Endpoint) -> Frame {
    let mut looks = 0;
    loop {
        if let Some(frame) = end.try_receive().unwrap() {
            return frame.unwrap();
        }
        spin(&mut looks);
    }
}

/// A cache line with a number in it, and nothing else.
#[repr(align(128))]
struct Line(AtomicU32);

fn line_there_and_back(cpu: usize) -> f64 {
    let lines = Arc::new([Line(AtomicU32::new(0)), Line(AtomicU32::new(0))]);
    let others = Arc::clone(&lines);
    let answers = thread::spawn(move || {
        run_on(cpu);
        for number in 1..=SPINNING {
            until(&others[0].0, number);
            others[1].0.store(number, Ordering::Release);
        }
    });
    let begun = Instant::now();
    for number in 1..=SPINNING {
        lines[0].0.store(number, Ordering::Release);
        until(&lines[1].0, number);
    }
    let took = each(begun, SPINNING);
    answers.join().unwrap();
    took
}

fn until(word: &AtomicU32, number: u32) {
    let mut looks = 0;
    while word.load(Ordering::Acquire) != number {
        spin(&mut looks);
    }
}

fn spin(looks: &mut u32) {
    *looks += 1;
    if looks.is_multiple_of(LOOKS) {
        thread::yield_now();
    }
    std::hint::spin_loop();
}
