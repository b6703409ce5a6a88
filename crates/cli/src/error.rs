//! Why a command was not carried out: what is printed on stderr, and the exit status that follows from it.

use std::{
    error::Error,
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

use ioward_api::{ApiError, ChangeId, ErrorBody, ErrorKind};
use ioward_model::{Name, Reason, Rule, Spec, SpecError, SpecPlace, TextPlace};
use ioward_tls::TlsError;
use serde_json::{Value, json};

use crate::{client::ClientError, present::text, spec_file::SpecSource, terminal};

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line makes no sense.
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
    #[error("{}: {error}", .from.file)]
    Spec {
        /// Its text.
        from: Box<SpecSource>,
        /// Everything that is wrong with it.
        error: SpecError,
    },
    /// The API could not be spoken to.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The daemon said no.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The daemon, or the planner itself, said no to a Spec that came as text.
    #[error("{}", .0.1)]
    SpecRefused(Box<(SpecSource, ApiError)>),
    /// A step of a plan failed.
    #[error("plan {plan} failed: {error}; {}", after_failure(*.undone))]
    PlanFailed {
        /// The number of the change that it is.
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
    #[error(
        "{file}: this is no plan: {why}; 'ioward plan -f SPEC -o FILE' writes one, and a Spec goes with -f"
    )]
    NoPlan {
        /// The file.
        file: String,
        /// The problem.
        why: String,
    },
    /// Requests of a partition for which there is nothing; why has been shown.
    #[error("nothing suits {0}: what is shown says which rules stand in the way")]
    NothingSuits(String),
    /// Orphans could not be reaped; why has been shown.
    #[error("{left} of {of} could not be reaped: what is shown says why")]
    Unreaped {
        /// So many.
        left: usize,
        /// Of so many.
        of: usize,
    },
    /// A Spec can't be written.
    #[error("cannot write {file}: {}", plain(.source))]
    SpecUnwritten {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A signal, or Ctrl-C, ended the choice.
    #[error("select was ended by signal {signal}; {}{choice}", if *.undoing { AND_UNDOING } else { "" })]
    SelectEnded {
        /// The signal's number.
        signal: u8,
        /// Whether a plan was being carried out.
        undoing: bool,
        /// What became of the choice.
        choice: Unsettled,
    },
    /// This host lacks so many things; they have been shown.
    #[error("{} for VFs of partitions: see the lines that begin with ✗", lacking(*.0))]
    Missing(usize),
    /// The person does not want the plan.
    #[error("not applied; nothing has changed")]
    Declined,
    /// Nobody could be asked about a plan that disturbs somebody.
    #[error(
        "this takes something from {0} or stops it, and there is nobody to ask: --yes says that it is wanted; nothing has changed"
    )]
    Unasked(String),
    /// Nobody could be asked about something that is asked about in any case.
    #[error("there is nobody to ask whether this is wanted: --yes says that it is; nothing has changed")]
    Unanswered,
    /// Ctrl-C before anything was carried out.
    #[error("interrupted; nothing has changed")]
    InterruptedBefore,
    /// Ctrl-C while a plan was carried out, which was rolled back.
    #[error("interrupted; {}", after_failure(*.undone))]
    Interrupted {
        /// Whether everything is as before.
        undone: bool,
    },
    /// The choice was left while a plan was rolled back.
    #[error("interrupted: {UNDOING}")]
    LeftRollback,
    /// A second Ctrl-C: the rollback goes on.
    #[error("left change {0} while the daemon rolls it back; 'ioward changes {0}' shows how it ends")]
    Left(ChangeId),
    /// A signal ended a console.
    #[error("the console of {partition} was left because of signal {signal}")]
    ConsoleSignal {
        /// Whose console.
        partition: Name,
        /// The signal's number.
        signal: u8,
    },
    /// This process did not get what it needs to work at all.
    #[error("cannot start: {}", plain(.0))]
    Start(io::Error),
    /// The page can't be served.
    #[error("cannot listen at {address}: {}; another: --port, --listen", plain(.source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The page can't be served to users of other machines.
    #[error("{}", with_causes(.0))]
    Tls(#[from] TlsError),
    /// No browser takes the page's certificate.
    #[error(
        "the certificate in {} has no DNS name and is not for {ip} either: no browser will take it; name the page in its subjectAltName",
        .certificate.display()
    )]
    Nameless {
        /// The certificate's file.
        certificate: PathBuf,
        /// Where the page would be.
        ip: IpAddr,
    },
    /// The terminal does not do what it should.
    #[error("cannot use the terminal: {}", plain(.0))]
    Terminal(io::Error),
    /// A thing that was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// stdout takes nothing.
    #[error("cannot write to stdout: {}", plain(.0))]
    Output(io::Error),
    /// The argument of `--root` is no folder that can be opened.
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
    /// The stored state can't be read.
    #[error("{0}")]
    State(String),
    /// The demonstration can't go on.
    #[error("the demonstration cannot go on: {0}")]
    Demo(String),
    /// The demonstration was ended by Ctrl-C, or another signal.
    #[error("the demonstration was ended; nothing is left of it")]
    DemoEnded {
        /// The signal's number.
        signal: u8,
    },
    /// A partition that was to be moved to another host has not left.
    #[error("{partition} stays here: {why}")]
    Stays {
        /// The partition.
        partition: Name,
        /// Why.
        why: String,
        /// Whether Ctrl-C has cancelled it.
        interrupted: bool,
    },
    /// Some partitions that were to be moved have not left: each with why.
    #[error("not all have left this host: {}", .0.join("; "))]
    SomeStay(Vec<String>),
    /// A domain must not start, and why.
    #[error("{0}")]
    Hook(String),
    /// The daemon could not go on.
    #[error("the daemon ended: {0}")]
    Serve(String),
}

/// The fate of a choice that was neither applied nor saved when it was ended from outside.
#[derive(Debug)]
pub enum Unsettled {
    /// There was none.
    Nothing,
    /// It is in this file.
    Kept(String),
    /// It could not be kept, and why.
    Lost(String),
    /// Whoever chose did not want it.
    Dropped,
}

impl fmt::Display for Unsettled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing that was chosen is lost"),
            Self::Kept(file) => {
                write!(f, "what was chosen is kept: 'ioward select -f {file}' goes on with it")
            }
            Self::Lost(why) => write!(f, "what was chosen is lost: {why}"),
            Self::Dropped => f.write_str("what was chosen and neither applied nor saved is lost"),
        }
    }
}

const UNDOING: &str = "undoing; the daemon puts everything back, 'ioward events --follow' shows how";
const AND_UNDOING: &str = "undoing; the daemon puts everything back, 'ioward events --follow' shows how; ";

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

/// Reasons that differ in nothing but whose request they are about are told once, with the others named or counted.
fn alike(reasons: &[Reason]) -> Vec<(&Reason, String)> {
    let mut groups: Vec<(&Reason, Vec<&str>)> = Vec::new();
    for reason in reasons {
        let same = |(first, _): &&mut (&Reason, _)| {
            Reason { request: None, ..(*first).clone() } == Reason { request: None, ..reason.clone() }
        };
        match (groups.iter_mut().find(same), reason.request.as_deref()) {
            (Some((first, others)), Some(request)) if first.request.is_some() => others.push(request),
            _ => groups.push((reason, Vec::new())),
        }
    }
    let told = |others: Vec<&str>| match others.as_slice() {
        [] => String::new(),
        few if few.len() <= NAMED => format!("; the same for {}", few.join(", ")),
        many => format!("; the same for {} and {} more", many[..NAMED].join(", "), many.len() - NAMED),
    };
    groups.into_iter().map(|(reason, others)| (reason, told(others))).collect()
}

/// So many of those of whom the same is to be said are named.
const NAMED: usize = 3;

/// A line of a Spec, with what is wrong in it underlined.
fn underlined(source: &str, place: TextPlace, width: usize) -> String {
    let line = source.lines().nth(place.line - 1).unwrap_or_default().replace('\t', " ");
    let number = place.line.to_string();
    let gutter = " ".repeat(number.len());
    let room = width.saturating_sub(number.len() + 6).min(MAX_QUOTED);
    let before: String = line.chars().take(place.column - 1).collect();
    let marked: String = line.chars().skip(place.column - 1).take(place.length).collect();
    let (start, length) = (text::columns(&before), text::columns(&marked).max(1));
    let mut quoted = format!("  {number} | {}\n", text::elide(line.trim_end(), room));
    if start < room {
        quoted += &format!("  {gutter} | {}{}\n", " ".repeat(start), "^".repeat(length.min(room - start)));
    }
    quoted
}

/// The most columns of a line of a Spec that are shown.
const MAX_QUOTED: usize = 120;

/// Without the numbers of errno, which the words before them say: " (os error 2)".
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(')') {
            Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => out += rest,
            _ => out += &format!(" (os error {part}"),
        }
    }
    out
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

/// Prints clap's answer to a command line that makes no sense, or the help that was asked for; gives the exit status.
#[must_use]
pub fn usage(error: &clap::Error) -> ExitCode {
    let written_raw = |argument: std::ffi::OsString| argument.to_string_lossy().chars().any(char::is_control);
    if std::env::args_os().any(written_raw) {
        // clap repeats arguments as they are.
        let text = text::printable(&error.render().to_string());
        let _ = io::Write::write_all(&mut io::stderr(), text.as_bytes());
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

impl CliError {
    /// A partition that was named and is not there.
    #[must_use]
    pub fn no_such_partition(name: &Name) -> Self {
        Self::NotFound(format!("there is no partition {name}; 'ioward partitions' lists them"))
    }

    /// The exit status.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            // Whoever closed the pipe has seen enough.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
            Self::Usage(_) | Self::NoRoot(_) | Self::SpecUnread { .. } | Self::Spec { .. } => 2,
            Self::SnapshotUnread { .. } | Self::Snapshot { .. } => 2,
            Self::NoPlan { .. } => 2,
            Self::NothingSuits(_) | Self::Unasked(_) | Self::Unanswered | Self::Hook(_) => 3,
            Self::Api(_) | Self::SpecRefused(_) => self.refusal().map_or(1, |error| error.kind.exit_status()),
            // As a shell reports a process that a signal ended.
            Self::Stays { interrupted: true, .. }
            | Self::Interrupted { .. }
            | Self::LeftRollback
            | Self::Left(_)
            | Self::InterruptedBefore => 130,
            Self::ConsoleSignal { signal, .. }
            | Self::DemoEnded { signal }
            | Self::SelectEnded { signal, .. } => 128_u8.saturating_add(*signal),
            _ => 1,
        }
    }

    /// The text for stderr; lines are broken at `width` columns, where there is one.
    #[must_use]
    pub fn text(&self, width: Option<usize>) -> String {
        let width = width.unwrap_or(usize::MAX);
        let mut out = String::new();
        match self {
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Self::Spec { from, error } => {
                for problem in &error.problems {
                    out += &text::wrap(&format!("ioward: {}: {problem}", from.file), width, "", "  ");
                    out +=
                        &problem.place.map(|place| underlined(&from.text, place, width)).unwrap_or_default();
                }
            }
            _ => out = text::wrap(&format!("ioward: {self}"), width, "", "  "),
        }
        if let Some(error) = self.refusal() {
            for (reason, more) in alike(&error.reasons) {
                let place = self
                    .place(reason)
                    .map(|(file, place)| format!("{file}: line {}: {}: ", place.line, place.key));
                let line = format!("{}{}: {reason}{more}", place.unwrap_or_default(), reason.rule);
                out += &text::wrap(&line, width, "  ", "    ");
            }
            for way in &error.ways {
                out += &text::wrap(&format!("possible if {way}"), width, "  ", "    ");
            }
        }
        text::printable(&without_numbers(&out))
    }

    /// Whether a plan was refused for nothing but that the host or the state has moved on since it was made.
    #[must_use]
    pub fn is_of_an_old_plan(&self) -> bool {
        let reasons = self.refusal().map_or(&[][..], |error| &error.reasons);
        !reasons.is_empty() && reasons.iter().all(|reason| reason.rule == Rule::PlanCurrent)
    }

    /// Whether another change was being carried out.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.refusal().is_some_and(|error| error.kind == ErrorKind::Busy)
    }

    /// The daemon's refusal, if it is one.
    fn refusal(&self) -> Option<&ApiError> {
        match self {
            Self::Api(error) => Some(error),
            Self::SpecRefused(refused) => Some(&refused.1),
            _ => None,
        }
    }

    /// The file and the place in it that ask for what a reason is about.
    fn place(&self, reason: &Reason) -> Option<(&str, SpecPlace)> {
        let Self::SpecRefused(refused) = self else { return None };
        let source = &refused.0;
        Some((&source.file, Spec::locate(&source.text, reason)?))
    }

    /// A "no" as data, for those who asked for JSON: as the API has it, with the place of each reason in the Spec's file.
    #[must_use]
    pub fn as_json(&self) -> Option<Value> {
        if let Self::Spec { from, error } = self {
            let error = ApiError::new(ErrorKind::Invalid, format!("{}: {error}", from.file));
            return serde_json::to_value(ErrorBody { error }).ok();
        }
        let error = self.refusal()?;
        let mut body = serde_json::to_value(ErrorBody { error: error.clone() }).ok()?;
        for (n, reason) in error.reasons.iter().enumerate() {
            if let Some((file, SpecPlace { line, key })) = self.place(reason) {
                body["error"]["reasons"][n]["at"] = json!({"file": file, "line": line, "key": key});
            }
        }
        Some(body)
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
    use ioward_model::{Relaxation, Rule, Way};

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
        let error = CliError::Api(ApiError { kind: ErrorKind::Refused, message, reasons, ways: Vec::new() });
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
    fn a_refusal_of_a_spec_names_the_place_that_asks_and_what_would_have_to_give_way() {
        let text = "version = 1\n[[partition]]\nname = \"web\"\nboot = { disk = \"d\" }\n\n[[partition.vf]]\n\
            name = \"net0\"\nclass = \"network\"\nmin_link_speed = \"10Gbit\"\n";
        let reason =
            |key: &str| Reason::new(Rule::LinkSpeed, "10Gbit", "1Gbit").for_request("web/net0").key(key);
        let reasons =
            vec![reason("min_link_speed"), reason("carrier"), Reason::new(Rule::Iommu, "one", "none")];
        let request: ioward_model::Owner = "web/net0".parse().unwrap();
        let leave_out = Relaxation::LeaveOut { request: request.clone(), key: "min_link_speed".into() };
        let other_node = Relaxation::OtherNumaNode { request, node: 1 };
        let ways = vec![Way { gives: vec![leave_out.clone()] }, Way { gives: vec![other_node, leave_out] }];
        let source = SpecSource { file: "web.toml".into(), text: text.into() };
        let error = source.place(CliError::Api(ApiError::refused(reasons, ways)));
        assert_eq!(error.exit_status(), 3);
        let expected = "\
ioward: refused: rules are not met
  web.toml: line 9: partition[0].vf[0].min_link_speed: link-speed: web/net0: required 10Gbit; found 1Gbit
  web.toml: line 6: partition[0].vf[0].carrier: link-speed: web/net0: required 10Gbit; found 1Gbit
  iommu: required one; found none
  possible if web/net0 does without min_link_speed
  possible if web/net0 may be on NUMA node 1 and web/net0 does without min_link_speed
";
        assert_eq!(error.text(None), expected);
        let body = error.as_json().unwrap();
        let at = json!({"file": "web.toml", "line": 9, "key": "partition[0].vf[0].min_link_speed"});
        assert_eq!(body["error"]["reasons"][0]["at"], at);
        assert_eq!(body["error"]["reasons"][2].get("at"), None);
        assert_eq!(body["error"]["ways"][0]["gives"][0]["relaxation"], "leave-out");
    }

    #[test]
    fn what_a_guest_wrote_does_not_reach_the_terminal_as_it_is() {
        let message = "agent said \u{1b}]0;owned\u{7}".to_owned();
        let error = CliError::Api(ApiError::new(ErrorKind::Failed, message));
        assert_eq!(error.text(None), "ioward: agent said \u{fffd}]0;owned\u{fffd}\n");
    }
}
