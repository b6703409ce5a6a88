//! Runs in level 1 of the lab: ioward against what else does the same there, and against the least that could be done, in turns.
//! `cargo xtask bench lab` boots level 1 for it.
//!
//! Each row sets the host up, takes turns, and leaves the host as it was after the boot. A row that can't be run says why, and so does
//! one that takes too long: then the rest is not run, for nobody knows what state the host is in. The last line is all rows as JSON.

#![forbid(unsafe_code)]

mod api;
mod by_hand;
mod guests;
mod host;
mod libvirt;
mod rows;

use std::{
    env,
    error::Error,
    process::ExitCode,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use ioward_benches::{report, row::Row};
use serde_json::json;

use rows::{ROWS, Rounds};

/// What the rows of this binary give.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What comes before the JSON in the last line.
const JSON: &str = "JSON ";
/// How long one part may take: on a busy machine, several guests that boot on one emulated CPU take minutes.
const BOUND: Duration = Duration::from_secs(15 * 60);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let quick = arguments.iter().any(|word| word == "--quick");
    let wanted: Vec<&str> = arguments.iter().map(String::as_str).filter(|word| *word != "--quick").collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !ROWS.iter().any(|(name, _)| name == *wanted)) {
        let names: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
        eprintln!("bench-lab: there is no row {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let rounds = if quick { Rounds::QUICK } else { Rounds::FULL };
    let begun = Instant::now();
    let mut done: Vec<Row> = Vec::new();
    let mut whole = true;
    for (name, measure) in ROWS {
        if !wanted.is_empty() && !wanted.contains(&name) {
            continue;
        }
        let started = Instant::now();
        let (rows, goes_on) = within(BOUND, name, move || measure(rounds));
        for row in rows {
            print!("{}", report::text(&row, !quick));
            whole &= row.is_whole();
            done.push(row);
        }
        println!("  ({name}: {} s)", started.elapsed().as_secs());
        if !goes_on {
            println!("what comes after {name} was not run");
            whole = false;
            break;
        }
    }
    let missed: usize = done.iter().map(Row::missed).sum();
    let judged = if quick { "no time is asserted".to_owned() } else { format!("goals missed: {missed}") };
    let failed = done.iter().filter(|row| !row.is_whole()).count();
    println!("{} rows, {failed} failed; {judged}; {} s", done.len(), begun.elapsed().as_secs());
    println!("{JSON}{}", report::document("lab", &about(quick), &done));
    if whole && (quick || missed == 0) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a part within a bound. Gives its rows, or one that says why there are none, and whether anything may come after it.
fn within(
    bound: Duration,
    name: &'static str,
    work: impl FnOnce() -> Result<Vec<Row>> + Send + 'static,
) -> (Vec<Row>, bool) {
    let (sender, done) = mpsc::channel();
    thread::spawn(move || sender.send(work().map_err(|error| error.to_string())));
    match done.recv_timeout(bound) {
        Ok(Ok(rows)) => (rows, true),
        Ok(Err(why)) => (vec![Row::failed(name, "could not be run", why)], true),
        Err(RecvTimeoutError::Disconnected) => {
            (vec![Row::failed(name, "could not be run", "it panicked".into())], true)
        }
        Err(RecvTimeoutError::Timeout) => {
            let why = format!("not done after {} s", bound.as_secs());
            (vec![Row::failed(name, "took too long", why)], false)
        }
    }
}

/// What all of it was measured on.
fn about(quick: bool) -> serde_json::Value {
    let version = |command: &str| ioward_tests::level1::sh(command).map(|text| text.trim().to_owned()).ok();
    json!({
        "quick": quick,
        "kernel": version("uname -r"),
        "qemu": version("qemu-system-x86_64 --version | head -1"),
        "libvirt": version("virsh --version"),
        "ioward": version("ioward --version"),
        "cpus": thread::available_parallelism().map_or(0, usize::from),
        "emulated": true,
    })
}
