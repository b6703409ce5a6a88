//! Runs in the lab's guest, for `cargo xtask bench lab`: how long operations on a VF take through the channel, seen by who asks. One line for each, in microseconds.
//!
//! `bench-guest get VF COUNT`, `bench-guest set VF COUNT`: the set writes two MACs in turns.

#![forbid(unsafe_code)]

use std::{env, error::Error, process::ExitCode, time::Instant};

use ioward_agent::{Agent, Options, find_port};
use ioward_model::VfSettings;

/// The MACs that are set in turns, locally administered as the guest's `guest_may` has it.
const MACS: [&str; 2] = ["52:54:00:aa:77:01", "52:54:00:aa:77:02"];
/// What comes first is not counted: the channel says hello.
const FIRST: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words[..] {
        [what @ ("get" | "set"), vf, count] => run(what == "set", vf, count),
        _ => Err("usage: bench-guest get|set VF COUNT".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(sets: bool, vf: &str, count: &str) -> Result<(), Box<dyn Error>> {
    let (vf, count): (ioward_model::Name, usize) = (vf.parse()?, count.parse()?);
    let mut agent = Agent::open(&find_port()?, Options::default())?;
    let mut took = Vec::new();
    for number in 0..FIRST + count {
        let mac = MACS[number % MACS.len()].parse()?;
        let begun = Instant::now();
        if sets {
            agent.set(vf.clone(), VfSettings { mac: Some(mac), ..VfSettings::default() })?;
        } else {
            agent.get(vf.clone())?;
        }
        took.push(begun.elapsed());
    }
    // All at once: the console that this is written to would take its time.
    let lines: Vec<String> = took.iter().skip(FIRST).map(|took| took.as_micros().to_string()).collect();
    println!("{}", lines.join("\n"));
    Ok(())
}
