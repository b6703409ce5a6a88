//! The daemon, measured from outside, as a process of its own: how long one that takes the place of another needs until it
//! is ready, and how much memory it holds while nothing happens.
//!
//! ```text
//!   bench ── prepare FOLDER N ──> applies a Spec of N partitions for real, and leaves its state
//!         ── serve FOLDER … ────> a daemon over that state: started, asked, looked at, killed
//!         ── (played by itself) ─> the guests that stayed: each says hello when its channel is connected
//! ```
//!
//! The host is the simulated machine, and it is in the daemon's process: making it anew is part of every start, and its
//! memory part of every figure. On a real host both are the kernel's.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod daemon;
mod guests;
mod process;
mod stayed;

use std::{env, path::Path, process::ExitCode, time::Duration};

use daemon::Machines;
use guests::Guests;
use ioward_benches::goals::Goals;
use process::Process;

/// How often a start is measured.
const ROUNDS: usize = 7;
/// Partitions of the restart.
const MANY: usize = 1_000;
/// Partitions of the daemon at rest.
const SOME: usize = 100;
/// The target for a restart with [`MANY`] partitions.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// The target for the memory of a daemon with [`SOME`] partitions, in KiB.
const AT_REST: u64 = 30 * 1024;
/// Until a daemon that has nothing to do is at rest: a few of its own ticks of a second.
const REST: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => bench(),
        ["partition"] => ioward_agent::simulated::main(),
        ["prepare", folder, partitions] => {
            daemon::prepare(Path::new(folder), partitions.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["serve", folder, machines, partitions] => {
            daemon::serve(Path::new(folder), machines.parse().unwrap(), partitions.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => panic!("started by cargo xtask bench daemon, without arguments"),
    }
}

fn bench() -> ExitCode {
    let goals = Goals::default();
    let folder = tempfile::tempdir().unwrap();
    for partitions in [0, SOME, MANY] {
        process::prepare(&folder.path().join(partitions.to_string()), partitions);
    }
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("A daemon in the place of one that was killed, on {cpus} CPUs, {ROUNDS} times each");
    println!("ready: from the start of its process until the list of partitions is answered whole");
    println!(
        "{:>10} {:<34} {:>11} {:>11} {:>13} {:>12}",
        "partitions", "their machines", "ready (ms)", "slowest", "of that, sim", "guests (ms)"
    );
    let mut all = Vec::new();
    for (partitions, machines) in [
        (0, Machines::Run),
        (SOME, Machines::Run),
        (MANY, Machines::Run),
        (MANY, Machines::Stopped),
        (MANY, Machines::Gone),
    ] {
        let ready = restart(folder.path(), partitions, machines);
        all.push(ready);
    }
    let (nothing, many) = (all[0], all[2]);
    println!(
        "with {MANY} partitions that run it takes {:.1} times as long as with none, {:.2} of the second it may take: {}\n",
        many.as_secs_f64() / nothing.as_secs_f64(),
        many.as_secs_f64() / READY_WITHIN.as_secs_f64(),
        goals.judge(many < READY_WITHIN)
    );

    println!("Resident memory of a daemon at rest, the simulated machine included (KiB)");
    let none = at_rest("no partition", folder.path(), 0, Machines::Run);
    let adopted = at_rest("100 adopted, each with an agent that listens", folder.path(), SOME, Machines::Run);
    let started =
        at_rest("100 that it planned, applied and started itself", folder.path(), SOME, Machines::Started);
    at_rest("1,000 adopted, each with an agent that listens", folder.path(), MANY, Machines::Run);
    let most = adopted.max(started);
    println!(
        "with {SOME} partitions it holds {:.2} times as much as with none, {:.2} of the 30 MiB it may hold: {}",
        ratio(most, none),
        ratio(most, AT_REST),
        goals.judge(most < AT_REST)
    );
    goals.status()
}

/// Measures starts over the state of so many partitions; gives the one in the middle.
fn restart(folder: &Path, partitions: usize, machines: Machines) -> Duration {
    let mut starts = Vec::new();
    for _ in 0..ROUNDS {
        let state = process::copy(&folder.join(partitions.to_string()));
        let guests = Guests::play(state.path());
        let process = Process::start(state.path(), machines, partitions);
        let ready = process.ready(partitions);
        let greeted = (machines == Machines::Run).then(|| guests.all_greeted(partitions, process.started));
        starts.push((ready, process.simulated(), greeted));
    }
    starts.sort();
    let (ready, simulated, greeted) = starts[ROUNDS / 2];
    let (slowest, ..) = starts[ROUNDS - 1];
    let greeted = greeted.filter(|_| partitions > 0).map_or_else(|| "-".to_owned(), milliseconds);
    println!(
        "{partitions:>10} {:<34} {:>11} {:>11} {:>13} {greeted:>12}",
        machines.to_string(),
        milliseconds(ready),
        milliseconds(slowest),
        milliseconds(simulated)
    );
    ready
}

fn at_rest(what: &str, folder: &Path, partitions: usize, machines: Machines) -> u64 {
    // One that starts them begins with nothing.
    let known = if machines == Machines::Started { 0 } else { partitions };
    let state = process::copy(&folder.join(known.to_string()));
    let guests = Guests::play(state.path());
    let process = Process::start(state.path(), machines, partitions);
    process.ready(partitions);
    if machines == Machines::Run {
        guests.all_greeted(partitions, process.started);
    }
    std::thread::sleep(REST);
    let (resident, peak) = process.memory();
    println!("{resident:>10} {what} (its peak: {peak})");
    resident
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64() * 1000.0)
}

fn ratio(of: u64, to: u64) -> f64 {
    of as f64 / to as f64
}
