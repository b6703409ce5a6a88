//! `ioward-agent`: a client partition's command line for its own VFs.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use ioward_agent::{
    Agent, Options,
    command::{Failure, Request},
    find_port,
};

/// Configures this partition's virtual functions (VFs) through the host's management partition.
///
/// Exit status: 0 done; 1 failed; 2 wrong usage; 3 refused by the host's policy (guest_may).
#[derive(Parser)]
#[command(name = "ioward-agent", version)]
struct Arguments {
    #[command(flatten)]
    request: Request,
    /// Unix socket or character device of the channel [default: /run/ioward/channel.sock in a container, the virtio-serial port
    /// org.ioward.0 in a machine]
    #[arg(long, visible_alias = "socket", global = true, value_name = "PATH")]
    port: Option<PathBuf>,
}

fn main() -> ExitCode {
    let failure = match run(Arguments::parse()) {
        Ok(()) => return ExitCode::SUCCESS,
        // The reader has closed the pipe on purpose.
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => return ExitCode::SUCCESS,
        Err(failure) => failure,
    };
    // If stderr is closed too, the exit status still reports the failure.
    let _ = writeln!(io::stderr(), "ioward-agent: {}", failure.message());
    ExitCode::from(failure.exit_status())
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let request = arguments.request.check()?;
    let port = arguments.port.map_or_else(find_port, Ok)?;
    let mut agent = Agent::open(&port, Options::default())?;
    request.run(&mut agent, &mut io::stdout().lock(), &mut || false)
}
