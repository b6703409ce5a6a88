//! Why a command was not carried out: what is printed on stderr, and the exit status that follows from it.

use std::{error::Error, io, path::PathBuf, process::ExitCode};

use ioward_imp::api::{ApiError, ErrorKind};
use ioward_model::{Name, SpecError};

use crate::{client::ClientError, present::text, terminal};

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// What stands on the command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A Spec can't be read at all.
    #[error("cannot read {file}: {}", plain(.source))]
    SpecUnread {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A Spec is no valid one.
    #[error("{file}: {error}")]
    Spec {
        /// The file.
        file: String,
        /// Everything that is wrong with it.
        error: SpecError,
    },
    /// The API could not be spoken to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// A step of a plan failed.
    #[error("plan {plan} failed: {error}; {}", after_failure(*.undone))]
    PlanFailed {
        /// The plan.
        plan: u64,
        /// Why.
        error: String,
        /// Whether everything is as before.
        undone: bool,
    },
    /// A plan can't be written.
    #[error("cannot write {file}: {}", plain(.source))]
    PlanUnwritten {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file is no plan.
    #[error("{file}: this is no plan: {why}; 'ioward plan -f SPEC -o FILE' writes one")]
    NoPlan {
        /// The file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// Requests of a partition for which there is nothing; why has been shown.
    #[error("nothing suits {0}: what is shown says which rules stand in the way")]
    NothingSuits(String),
    /// What this host lacks; what has been shown.
    #[error("{} for VFs of partitions: see the lines that begin with ✗", lacking(*.0))]
    Missing(usize),
    /// The person does not want the plan.
    #[error("not applied; nothing has changed")]
    Declined,
    /// Ctrl-C while a plan was carried out.
    #[error("interrupted: undoing; the daemon puts everything back, 'ioward events --follow' shows how")]
    Interrupted,
    /// A signal ended a console.
    #[error("the console of {partition} was left because of signal {signal}")]
    ConsoleSignal {
        /// Whose console.
        partition: Name,
        /// The signal's number.
        signal: u8,
    },
    /// A partition's console can't be used.
    #[error("cannot use the console of {partition}, {}: {}; 'ioward partitions' shows whether it runs", .path.display(), plain(.source))]
    Console {
        /// Whose console.
        partition: Name,
        /// Its socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This process did not get what it needs to work at all.
    #[error("cannot start: {}", plain(.0))]
    Start(io::Error),
    /// The terminal does not do what it should.
    #[error("cannot set the terminal up: {}", plain(.0))]
    Terminal(io::Error),
    /// What was asked for is not there.
    #[error("{0}")]
    NotFound(String),
    /// stdout takes nothing.
    #[error("cannot write to stdout: {}", plain(.0))]
    Output(io::Error),
    /// What `--root` names is no folder that can be opened.
    #[error("{0}; --root takes a folder that holds sys/ and proc/ of a host")]
    NoRoot(String),
    /// A copied tree can't be looked at.
    #[error("{0}; a copied tree has at least sys/bus/pci/devices")]
    Identify(String),
    /// This host, or a copied tree, could not be recorded.
    #[error("cannot record the host: {0}")]
    Record(String),
    /// A snapshot can't be written.
    #[error("cannot write {file}: {}", plain(.source))]
    SnapshotUnwritten {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A snapshot can't be read at all.
    #[error("cannot read {file}: {}", plain(.source))]
    SnapshotUnread {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file is no snapshot that can be looked at.
    #[error("{file}: {error}")]
    Snapshot {
        /// The file.
        file: String,
        /// Why not.
        error: String,
    },
    /// The demonstration can't go on.
    #[error("the demonstration cannot go on: {0}")]
    Demo(String),
    /// The demonstration was ended by Ctrl-C, or another signal.
    #[error("the demonstration was ended; nothing is left of it")]
    DemoEnded {
        /// The signal's number.
        signal: u8,
    },
    /// The daemon could not go on.
    #[error("the daemon ended: {0}")]
    Serve(String),
}

/// The words for an errno, without its number: "No such file or directory".
#[must_use]
pub fn plain(error: &dyn Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// An error and all that is behind it, in one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = plain(error);
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {}", plain(error));
        cause = error.source();
    }
    text
}

fn lacking(things: usize) -> String {
    let are = if things == 1 { "is" } else { "are" };
    format!("{} {are} missing", text::counted(things, "thing"))
}

fn after_failure(undone: bool) -> &'static str {
    if undone {
        "everything is as it was before"
    } else {
        "not all of it could be undone: 'ioward events' says what, 'ioward host' and 'ioward partitions' show what is left"
    }
}

impl CliError {
    /// The exit status (DESIGN §5).
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            // Whoever closed the pipe has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) | Self::NoRoot(_) | Self::SpecUnread { .. } | Self::Spec { .. } => 2,
            Self::SnapshotUnread { .. } | Self::Snapshot { .. } => 2,
            Self::NoPlan { .. } => 2,
            Self::NothingSuits(_) => 3,
            Self::Api(error) => match error.kind {
                ErrorKind::Invalid => 2,
                ErrorKind::Refused => 3,
                ErrorKind::Busy | ErrorKind::NotFound | ErrorKind::Failed => 1,
            },
            // As a shell reports a process that a signal ended.
            Self::Interrupted => 130,
            Self::ConsoleSignal { signal, .. } | Self::DemoEnded { signal } => 128_u8.saturating_add(*signal),
            _ => 1,
        }
    }

    /// What stderr is told; lines are broken at `width` columns, where there is one.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(usize::MAX);
        let mut out = String::new();
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Spec { file, error } => {
                for problem in &error.problems {
                    out += &text::wrap(&format!("ioward: {file}: {problem}"), width, "", "  ");
                }
            }
            _ => out = text::wrap(&format!("ioward: {self}"), width, "", "  "),
        }
        if let Self::Api(error) = self {
            for reason in &error.reasons {
                out += &text::wrap(&format!("{}: {reason}", reason.rule), width, "  ", "    ");
            }
        }
        text::printable(&out)
    }

    /// Tells stderr, and gives the exit status.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        // stderr is the last resort: where it takes nothing there is nobody left to tell.
        let _ = io::Write::write_all(&mut io::stderr(), self.text(terminal::width(io::stderr())).as_bytes());
        ExitCode::from(self.exit_status())
    }
}

#[cfg(test)]
mod tests {
    use ioward_model::{Reason, Rule};

    use super::*;

    #[test]
    fn a_refusal_has_its_reasons_one_by_one_below_it() {
        let pf = "0000:01:00.0".parse().unwrap();
        let reasons = vec![
            Reason::new(Rule::VfCapacity, "9 VFs", "TotalVFs is 7")
                .on(pf)
                .for_request("web/net0")
                .remedy("ask for 7 at most"),
            Reason::new(Rule::Iommu, "an IOMMU", "none"),
        ];
        let message = "this Spec cannot be carried out on this host".to_owned();
        let error = CliError::Api(ApiError { kind: ErrorKind::Refused, message, reasons });
        assert_eq!(error.exit_status(), 3);
        let expected = "\
ioward: this Spec cannot be carried out on this host
  vf-capacity: web/net0: 0000:01:00.0: required 9 VFs; found
    TotalVFs is 7; ask for 7 at most
  iommu: required an IOMMU; found none
";
        assert_eq!(error.text(Some(64)), expected);
        assert_eq!(error.text(None).lines().count(), 3, "one line a reason where lines are not for eyes");
    }

    #[test]
    fn what_a_guest_wrote_does_not_reach_the_terminal_as_it_is() {
        let message = "agent said \u{1b}]0;owned\u{7}".to_owned();
        let error = CliError::Api(ApiError { kind: ErrorKind::Failed, message, reasons: Vec::new() });
        assert_eq!(error.text(None), "ioward: agent said \u{fffd}]0;owned\u{fffd}\n");
    }
}
