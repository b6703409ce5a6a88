//! Runs in level 1 of the lab: ioward against what else does the same there, and against the least that could be done, in turns.
//! `cargo xtask bench lab` boots level 1 for it.
//!
//! ```text
//!   bench-lab [--quick] [--bound SECONDS] [ROW…]   measures; the last line is all rows as JSON
//!   bench-lab --check [ROW…]                       says, anywhere, whether there are such rows
//! ```
//!
//! Each row sets the host up, takes turns, and leaves the host as the next ones expect it. A row that can't be run says why, and so does
//! one that takes too long: then the rest is not run, for nobody knows what state the host is in.

#![forbid(unsafe_code)]

mod api;
mod by_hand;
mod guests;
mod host;
mod libvirt;
mod namespaces;
mod rows;
mod trio;

use std::{
    env,
    error::Error,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use ioward_benches::{
    parts::{Part, check_names, within},
    report,
    row::Row,
};
use serde_json::json;

use rows::{ROWS, Rounds, Shared};

/// What the rows of this binary give.
type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What comes before the JSON in the last line.
const JSON: &str = "JSON ";
/// How long one part may take: on a busy machine, several guests that boot on one emulated CPU take minutes.
const BOUND: Duration = Duration::from_secs(15 * 60);

/// What is asked for.
struct Asked {
    quick: bool,
    checks: bool,
    bound: Duration,
    wanted: Vec<String>,
}

impl Asked {
    fn of(mut words: impl Iterator<Item = String>) -> std::result::Result<Self, String> {
        let mut asked = Self { quick: false, checks: false, bound: BOUND, wanted: Vec::new() };
        while let Some(word) = words.next() {
            match &*word {
                "--quick" => asked.quick = true,
                "--check" => asked.checks = true,
                "--bound" => {
                    let seconds = words.next().and_then(|word| word.parse().ok());
                    asked.bound = Duration::from_secs(seconds.ok_or("--bound needs a number of seconds")?);
                }
                _ => asked.wanted.push(word),
            }
        }
        let names: Vec<&str> = ROWS.iter().map(|part| part.name).collect();
        check_names(&asked.wanted.iter().map(String::as_str).collect::<Vec<_>>(), &names)?;
        Ok(asked)
    }

    fn wants(&self, name: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|wanted| wanted == name)
    }
}

fn main() -> ExitCode {
    let asked = match Asked::of(env::args().skip(1)) {
        Ok(asked) => asked,
        Err(why) => {
            eprintln!("bench-lab: {why}");
            return ExitCode::FAILURE;
        }
    };
    if asked.checks {
        return ExitCode::SUCCESS;
    }
    measure(&asked)
}

fn measure(asked: &Asked) -> ExitCode {
    let quick = asked.quick;
    let rounds = if quick { Rounds::QUICK } else { Rounds::FULL };
    let begun = Instant::now();
    let mut done: Vec<Row> = Vec::new();
    let mut whole = true;
    let shared = Shared::default();
    // Its peers are missing otherwise.
    if let Err(error) = libvirt::lay_files() {
        eprintln!("bench-lab: {error}");
    }
    for part in ROWS.iter().filter(|part| asked.wants(part.name)) {
        let started = Instant::now();
        let (shared, measure) = (shared.clone(), part.work);
        let work = move || measure(&shared, rounds).map_err(|error| error.to_string());
        let (rows, goes_on) = within(asked.bound, Part { name: part.name, needs: part.needs, work });
        for row in rows {
            print!("{}", report::text(&row, !quick));
            whole &= row.is_whole();
            done.push(row);
        }
        println!("  ({}: {:.1} s)", part.name, started.elapsed().as_secs_f64());
        if !goes_on {
            println!("what comes after {} was not run", part.name);
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
