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
}

/// Runs one benchmark of the crate in benches/.
pub fn run(what: Bench) -> Result<()> {
    let binary = match what {
        Bench::Planner => "planner",
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
