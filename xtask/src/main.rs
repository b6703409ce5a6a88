//! A developer's commands: `cargo xtask test`, `cargo xtask lab`, `cargo xtask lint`,
//! `cargo xtask bench`, `cargo xtask docs`, `cargo xtask package`.
//!
//! This file is the command line; each command has a file of its own.

#![forbid(unsafe_code)]

mod apt;
mod backports;
mod bench;
mod chart;
mod cockpit;
mod cpio;
mod dist;
mod docs;
mod error;
mod error_suites;
mod images;
mod kernel;
mod lab;
mod lab_tests;
mod libvirt;
mod licences;
mod lint;
mod machine;
mod netdevsim;
mod package;
mod packages;
mod peers;
mod process;
mod schema;
mod terminal;
mod test;
mod ui;
mod unpacked;
mod workspace;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::lab::Lab;
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What a developer of ioward runs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run all tests: lint, unit and command line tests here, lab tests in level 1.
    Test {
        /// Run only these.
        #[arg(long)]
        only: Option<Only>,
        /// Run only tests whose name contains this.
        filter: Option<String>,
    },
    /// Check format, clippy and licences.
    Lint,
    /// Measure: as ratios within one run, taken in turns; the build in CPU time and bytes. Ends with 1 when a goal is missed.
    Bench {
        /// The subject.
        what: bench::Bench,
        /// `lab`: few rounds, to see that each row works; no time is asserted.
        #[arg(long)]
        quick: bool,
        /// Where the rows are written as JSON [default: target/bench/WHAT.json]; `chart`: where they are read [default: those of `lab`].
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Only these rows.
        rows: Vec<String>,
    },
    /// Make the picture in docs/ from what the program prints on the simulated machine.
    Docs,
    /// Build the page's files (ui/dist), which `ioward` holds and which are committed, from their sources.
    Ui,
    /// Build a Debian package, and print where it is.
    Package {
        /// Of the binaries of the dev profile: soon built, and large.
        #[arg(long)]
        dev: bool,
    },
    /// Real SR-IOV on a machine that has none: a software-emulated Linux host with SR-IOV adapters ("level 1").
    Lab {
        #[command(subcommand)]
        command: LabCommand,
        /// Turn level 1 off after this many seconds, whatever it is doing.
        #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        timeout: Option<u64>,
    },
}

#[derive(Subcommand)]
enum LabCommand {
    /// Run a shell command in level 1, with its output here, and end with its exit status.
    Run {
        /// The command; several words are joined by spaces.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Show the main job of ioward from end to end.
    Demo,
    /// Show a domain of libvirt's that is adopted, given a second VF while it runs, and released.
    Libvirt,
    /// Fail over: a guest is pinged while its adapter loses its link, and is taken out of service
    Failover,
    /// Fail over to a bridge: a guest is pinged while its VF is taken out of it and put back
    Standby,
    /// Move a guest from one daemon to another while it is pinged
    Migrate,
    /// Kill the daemon and reset the host under running partitions, and show that nothing is lost.
    Restart,
    /// Serve the page on real VFs to a browser on this machine, until Ctrl-C.
    Ui,
    /// An interactive shell in level 1.
    Shell,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Only {
    /// Tests that run on this machine.
    Unit,
    /// The API against its OpenAPI document, by Schemathesis.
    Schema,
    /// Tests of the page, in a browser.
    Ui,
    /// Tests that run in level 1.
    Lab,
}

/// How long `lab run` and what shows something may take. Generous, as a busy machine takes several times as long: what hangs is
/// found out sooner by its silence.
const RUN_BOUND: Duration = Duration::from_secs(30 * 60);
/// How long one level 1 may go on with lab tests.
const LAB_TESTS_BOUND: Duration = Duration::from_secs(60 * 60);
/// How long `lab shell` and `lab ui` may be open.
const SHELL_BOUND: Duration = Duration::from_secs(24 * 60 * 60);

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> error::Result<u8> {
    match command {
        Command::Test { only, filter } => test::run(only, filter.as_deref()),
        Command::Lint => lint::run().map(|()| 0),
        Command::Bench { what, quick, json, rows } => bench::run(what, quick, json, &rows),
        Command::Docs => docs::make().map(|()| 0),
        Command::Ui => ui::build(&Workspace::find()?).map(|()| 0),
        Command::Package { dev } => {
            println!("{}", package::build(dev)?.display());
            Ok(0)
        }
        Command::Lab { command, timeout } => {
            let bound = |default| timeout.map_or(default, Duration::from_secs);
            let lab = Lab::prepare()?;
            match command {
                LabCommand::Run { command } => lab.run(&command.join(" "), bound(RUN_BOUND)),
                LabCommand::Demo => lab.show(lab::DEMO, bound(RUN_BOUND)),
                LabCommand::Libvirt => lab.show(lab::LIBVIRT, bound(RUN_BOUND)),
                LabCommand::Failover => lab.show(lab::FAILOVER, bound(RUN_BOUND)),
                LabCommand::Standby => lab.show(lab::STANDBY, bound(RUN_BOUND)),
                LabCommand::Migrate => lab.show(lab::MIGRATE, bound(RUN_BOUND)),
                LabCommand::Restart => lab.show(lab::RESTART, bound(RUN_BOUND)),
                LabCommand::Ui => lab.page(bound(SHELL_BOUND)),
                LabCommand::Shell => lab.shell(bound(SHELL_BOUND)),
            }
        }
    }
}
