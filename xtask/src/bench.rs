//! `cargo xtask bench`: benchmarks, built for speed and run one at a time.

use clap::ValueEnum;

use crate::error::Result;
use crate::process::run as run_program;
use crate::workspace::Workspace;

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// The planner: how it grows with the host, against an ILP solver, and planning again after a small change.
    Planner,
    /// The daemon: how soon one is ready that takes the place of another with 1,000 partitions, and what one with 100 holds.
    Daemon,
}

/// Runs one benchmark of the crate in benches/.
pub fn run(what: Bench) -> Result<()> {
    let binary = match what {
        Bench::Planner => "planner",
        Bench::Daemon => "daemon",
    };
    let workspace = Workspace::find()?;
    run_program(workspace.cargo().args([
        "run",
        "--release",
        "--quiet",
        "--package",
        "ioward-benches",
        "--bin",
        binary,
    ]))
}
