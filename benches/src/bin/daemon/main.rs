//! The daemon, measured from outside, as a process of its own: how long one that takes the place of another needs until it
//! is ready, and how much memory it holds while nothing happens; and what changing the settings of many VFs takes of the messages
//! that the kernel gets.
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
mod setting;
mod stayed;

use std::{env, path::Path, process::ExitCode, time::Duration};

use daemon::Machines;
use guests::Guests;
use ioward_benches::{
    cpu::milliseconds,
    growth::LINEAR,
    row::{Role, Row},
    run::Run,
};
use process::Process;

/// How often a start is measured.
const ROUNDS: usize = 7;
/// Partitions of the restart.
const MANY: [usize; 3] = [62, 250, 1_000];
/// Partitions of the daemon at rest.
const SOME: usize = 100;
/// How soon a daemon in the place of one with the most partitions is to be ready, in milliseconds.
const READY_WITHIN: f64 = 200.0;
/// What a daemon may hold with [`SOME`] partitions, the simulated machine included, in MB.
const AT_REST: f64 = 30.0;
/// Until a daemon that has nothing to do is at rest: a few of its own ticks of a second.
const REST: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["partition"] => ioward_agent::simulated::main(),
        ["prepare", folder, partitions] => {
            daemon::prepare(Path::new(folder), partitions.parse().unwrap());
            ExitCode::SUCCESS
        }
        ["serve", folder, machines, partitions] => {
            daemon::serve(Path::new(folder), machines.parse().unwrap(), partitions.parse().unwrap());
            ExitCode::SUCCESS
        }
        _ => bench(),
    }
}

fn bench() -> ExitCode {
    let mut run = match Run::asked_for("daemon", &["restart", "rest", "set"]) {
        Ok(run) => run,
        Err(status) => return status,
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for partitions in [0, SOME].into_iter().chain(MANY) {
        process::prepare(&folder.join(partitions.to_string()), partitions);
    }
    if run.wants("restart") {
        restart(&mut run, folder);
    }
    if run.wants("rest") {
        run.row(at_rest(folder));
    }
    if run.wants("set") {
        setting::many().into_iter().for_each(|row| run.row(row));
    }
    run.end()
}

/// By the number of partitions: the sizes of contenders from this place on.
fn by_partitions(from: usize) -> Vec<(f64, usize)> {
    (from..).zip(MANY).map(|(place, partitions)| (partitions as f64, place)).collect()
}

/// Daemons in the place of one that was killed.
fn restart(run: &mut Run, folder: &Path) {
    let most = MANY[2];
    let starts = [
        (0, Machines::Run),
        (MANY[0], Machines::Run),
        (MANY[1], Machines::Run),
        (most, Machines::Run),
        (most, Machines::Stopped),
        (most, Machines::Gone),
    ];
    let what = "a daemon in the place of one that was killed, until the list of partitions is answered whole";
    let mut row = Row::new("restart", what, "ms");
    // The same starts: how much of each is the simulated machine, and when all guests have heard from it.
    let mut simulated =
        Row::new("restart-simulated", "of that, making the simulated machine as it was", "ms");
    let mut greeted =
        Row::new("restart-guests", "the same, until the guests of all machines have heard", "ms");
    for (partitions, machines) in starts {
        let name = format!("{partitions}, whose machines {}", machines.told());
        row = row.with(Role::Ours, &name);
        simulated = simulated.with(Role::Ours, &name);
        if machines == Machines::Run && partitions > 0 {
            greeted = greeted.with(Role::Ours, &name);
        }
    }
    let row =
        row.at_most(3, READY_WITHIN).ratio(3, 0, None).grows("ready", "partitions", by_partitions(1), LINEAR);
    let row = row.take_turns(ROUNDS, |_, place| {
        let (partitions, machines) = starts[place];
        let state = process::copy(&folder.join(partitions.to_string()));
        let guests = Guests::play(state.path());
        let process = Process::start(state.path(), machines, partitions);
        let ready = process.ready(partitions);
        if (1..=MANY.len()).contains(&place) {
            let all = guests.all_greeted(partitions, process.started);
            greeted.contenders[place - 1].samples.push(milliseconds(all));
        }
        simulated.contenders[place].samples.push(milliseconds(process.simulated()));
        Ok::<_, String>(milliseconds(ready))
    });
    run.row(row.unwrap());
    run.row(simulated.grows("simulated", "partitions", by_partitions(1), None));
    run.row(greeted.grows("guests", "partitions", by_partitions(0), LINEAR));
}

/// Resident memory, the simulated machine included; and what there is more than with none.
fn at_rest(folder: &Path) -> Row {
    let mut row = Row::new("rest", "resident memory at rest, the simulated machine included", "MB");
    let none = resident(folder, 0, Machines::Run);
    row = row.with_samples(Role::Ours, "no partition", vec![none]);
    let some = resident(folder, SOME, Machines::Run);
    row = row.with_samples(Role::Ours, format!("{SOME} adopted, with agents that listen"), vec![some]);
    let started = resident(folder, SOME, Machines::Started);
    row = row.with_samples(Role::Ours, format!("{SOME} that it started itself"), vec![started]);
    for partitions in MANY {
        let more = resident(folder, partitions, Machines::Run) - none;
        row = row.with_samples(Role::Ours, format!("{partitions} adopted: more than none"), vec![more]);
    }
    let row = row.ratio(1, 0, None).ratio(2, 0, None).at_most(1, AT_REST).at_most(2, AT_REST);
    row.grows("what there is more", "partitions", by_partitions(3), LINEAR)
}

/// In MB, of a million bytes.
fn resident(folder: &Path, partitions: usize, machines: Machines) -> f64 {
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
    process.memory() as f64 * 1024.0 / 1e6
}
