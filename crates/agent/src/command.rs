//! The commands `vf …`, for a command line and for a simulated partition's console: parsed, asked, printed.

use std::{
    error::Error,
    io::{self, Write},
};

use clap::{Args, Parser, Subcommand};
use ioward_model::{Name, OpErrorKind, Setting, VfSettings};

use crate::{Agent, AgentError, BondError, bonding, change, show::Printer};

/// The command line.
#[derive(Args, Debug)]
pub struct Request {
    #[command(subcommand)]
    command: Command,
    /// Print JSON: one value, or one a line for watch
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// This partition's virtual functions
    #[command(subcommand)]
    Vf(VfCommand),
    /// Bond each VF that has a standby with it, and send by the one that is active, until interrupted (Linux)
    Bond {
        /// End once all is as it is to be now
        #[arg(long)]
        once: bool,
    },
}

#[derive(Subcommand, Debug)]
enum VfCommand {
    /// All of them
    List,
    /// One with its settings, and what this partition may change of them
    Get {
        /// The VF's name in the partition's Spec
        name: Name,
    },
    /// Change settings: all of them or none
    Set {
        /// The VF's name in the partition's Spec
        name: Name,
        #[arg(required = true, value_name = "KEY=VALUE", help = settings_help())]
        settings: Vec<String>,
    },
    /// Function Level Reset
    Reset {
        /// The VF's name in the partition's Spec
        name: Name,
    },
    /// Send by the standby of a VF instead, or by the VF itself again
    Failover {
        /// The primary's name in the partition's Spec
        name: Name,
        /// By the primary again
        #[arg(long)]
        back: bool,
    },
    /// Traffic counters, as the host sees them
    Stats {
        /// The VF's name in the partition's Spec
        name: Name,
    },
    /// VFs as they come, go and change, until interrupted
    Watch,
}

/// How each setting is written: `trust=on|off, …`.
fn settings_help() -> String {
    let words = Setting::ALL.iter().map(|setting| format!("{setting}={}", setting.kind().form()));
    words.collect::<Vec<_>>().join(", ")
}

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The words are wrong.
    Usage(String),
    /// The channel failed or the management partition refused.
    Agent(AgentError),
    /// The result can't be printed.
    Output(io::Error),
    /// Pairs are not bonded as they should be.
    Bond(Vec<BondError>),
}

impl From<AgentError> for Failure {
    fn from(error: AgentError) -> Self {
        Self::Agent(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Failure {
    /// The failure, in one line.
    #[must_use]
    pub fn message(&self) -> String {
        match self {
            Self::Usage(message) => message.clone(),
            Self::Bond(errors) => errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            Self::Output(error) => format!("the result can't be printed: {error}"),
            Self::Agent(error) => {
                let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                format!("{error}{source}")
            }
        }
    }

    /// Its exit status: 1 failed, 2 wrong usage, 3 refused by the host's policy.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Agent(AgentError::Operation(error)) => match error.kind {
                OpErrorKind::Denied => 3,
                OpErrorKind::Invalid => 2,
                OpErrorKind::NoSuchVf | OpErrorKind::Failed | OpErrorKind::Busy => 1,
            },
            Self::Bond(_) | Self::Output(_) | Self::Agent(_) => 1,
        }
    }
}

/// A request that passed the local checks.
#[derive(Debug)]
pub struct Checked {
    command: Command,
    change: VfSettings,
    json: bool,
}

impl Request {
    /// Checks locally, before it connects.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn check(self) -> Result<Checked, Failure> {
        let change = match &self.command {
            Command::Vf(VfCommand::Set { settings, .. }) => {
                change::parse(settings).map_err(Failure::Usage)?
            }
            _ => VfSettings::default(),
        };
        Ok(Checked { command: self.command, change, json: self.json })
    }
}

impl Checked {
    /// Sends the request and prints the answer. `interrupted` ends a watch; it is called between events.
    ///
    /// # Errors
    /// The failure; it has not been printed.
    pub fn run(
        self,
        agent: &mut Agent,
        out: &mut impl Write,
        interrupted: &mut dyn FnMut() -> bool,
    ) -> Result<(), Failure> {
        let mut printer = Printer { out, json: self.json };
        let command = match self.command {
            Command::Vf(command) => command,
            Command::Bond { once } => return bonding::run(agent, once, &mut printer, interrupted),
        };
        match command {
            VfCommand::List => printer.list(&agent.list()?)?,
            VfCommand::Get { name } => printer.vf(&agent.get(name)?)?,
            VfCommand::Set { name, .. } => printer.vf(&agent.set(name, self.change)?)?,
            VfCommand::Reset { name } => {
                agent.reset(name.clone())?;
                printer.reset(&name)?;
            }
            VfCommand::Failover { name, back } => printer.vf(&agent.failover(name, back)?)?,
            VfCommand::Stats { name } => printer.stats(&name, &agent.stats(name.clone())?)?,
            VfCommand::Watch => {
                let mut watch = agent.watch();
                while !interrupted() {
                    if let Some(event) = watch.wait_a_while()? {
                        printer.watched(&event)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Words of a console.
#[derive(Parser)]
#[command(name = "", no_binary_name = true, disable_help_subcommand = true)]
struct Line {
    #[command(flatten)]
    request: Request,
}

/// Parses words, as `["vf", "list"]`, for [`command`].
///
/// # Errors
/// [`Failure::Usage`]: the mistake and its correction, or the help that was asked for.
pub fn parse(words: &[&str]) -> Result<Checked, Failure> {
    let line = Line::try_parse_from(words);
    line.map_err(|error| Failure::Usage(error.to_string().trim_end().to_owned()))?.request.check()
}

/// Runs a command, as `["vf", "list"]`, and prints the answer or the error. Returns the exit status: 0 done; 1
/// failed; 2 wrong usage; 3 refused by the host's policy. `interrupted` ends a watch.
///
/// # Errors
/// When nothing can be printed.
pub fn command(
    agent: &mut Agent,
    words: &[&str],
    out: &mut impl Write,
    interrupted: &mut dyn FnMut() -> bool,
) -> io::Result<u8> {
    match parse(words).and_then(|checked| checked.run(agent, out, interrupted)) {
        Ok(()) => Ok(0),
        Err(Failure::Output(error)) => Err(error),
        Err(failure) => {
            writeln!(out, "{}", failure.message())?;
            Ok(failure.exit_status())
        }
    }
}
