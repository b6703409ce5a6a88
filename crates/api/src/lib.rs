//! The values that travel over the API socket, besides those of `ioward-model`: no server and no client, so that a client needs
//! no crate of the daemon's. docs/api.md describes the routes.
#![forbid(unsafe_code)]

mod change;

pub use change::{ChangeId, ChangeIdError, ChangeStatus, ChangeView};

use std::path::PathBuf;

use ioward_model::{
    Accelerator, AuditDropped, AuditEntry, Class, Intent, MemorySize, Name, Options, Orphan, Owner, Plan,
    Reason, Spec, VfId, VfSettings, Way,
};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ioward/api.sock";

/// Body of `POST /v1/plan`; the answer is a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// What is wanted.
    #[serde(flatten)]
    pub intent: Intent,
    /// What is allowed.
    #[serde(default)]
    pub options: Options,
}

/// Body of `POST /v1/apply`. The answer is a stream of events, one JSON object a line, that ends with `plan-done` or
/// `plan-failed`. Closing the connection before that cancels the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// A plan as `POST /v1/plan` gave it; refused when the host or the state has moved on since.
    pub plan: Plan,
    /// So many seconds it waits for other changes that are being carried out or wait already; left out: it does not, and is told
    /// that another is at it. A plan that has waited is still good where it would do the very same now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_seconds: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A line of the answer of `GET /v1/audit`: the entries come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum AuditLine {
    /// Somebody asked for something.
    Entry(AuditEntry),
    /// Some entries of a partition are not kept any more.
    Dropped {
        /// The partition.
        partition: Name,
        /// How many.
        dropped: AuditDropped,
    },
}

/// Body of `POST /v1/changes`; the answer is a [`ChangeView`]. The change goes on whatever becomes of the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// A plan as `POST /v1/plan` gave it; refused when the host or the state has moved on since.
    pub plan: Plan,
    /// As in [`ApplyRequest`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_seconds: u64,
}

/// Body of `POST /v1/compatible`; the answer is a list of [`Compatible`], one for each VF that the partition asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompatibleRequest {
    /// The Spec.
    pub spec: Spec,
    /// A partition of it.
    pub partition: Name,
}

/// Which functions suit one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatible {
    /// The request, as `web/net0`.
    pub request: Owner,
    /// Those that suit, best first; then those that don't, by address. Nothing: the host has no SR-IOV adapter.
    pub candidates: Vec<Candidate>,
}

/// A function that was looked at for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The VF.
    pub vf: VfId,
    /// Where it is; left out: it has to be made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Bdf>,
    /// Why it does not suit; empty: it does.
    pub reasons: Vec<Reason>,
}

impl Compatible {
    /// Whether anything suits.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.reasons.is_empty())
    }
}

/// A partition, in the answer of `GET /v1/partitions`: a list of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PartitionView {
    /// Its name.
    pub name: Name,
    /// Whether its machine runs.
    pub running: bool,
    /// What executes it, while it runs.
    pub accelerator: Option<Accelerator>,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Virtual CPUs.
    pub cpus: u16,
    /// Memory.
    pub memory: MemorySize,
    /// Whether it has a channel.
    pub channel: bool,
    /// What its agent said it is, once it said hello.
    pub agent: Option<String>,
    /// Unix stream socket of its serial console.
    pub console: PathBuf,
    /// Its VFs.
    pub vfs: Vec<AssignedVf>,
}

/// A VF of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AssignedVf {
    /// Its name in the partition.
    pub name: Name,
    /// What it is for.
    pub class: Class,
    /// Which it is.
    #[serde(flatten)]
    pub vf: VfId,
    /// Where it is.
    pub address: Option<Bdf>,
    /// What ioward set.
    pub settings: VfSettings,
    /// What the guest may change.
    pub guest_may: Vec<String>,
}

/// What became of an orphan, in the answer of `POST /v1/orphans/reap`: a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reaped {
    /// Which it is.
    #[serde(flatten)]
    pub orphan: Orphan,
    /// Why it is still there, where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ApiError,
}

/// What went wrong, as data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind of no.
    pub kind: ErrorKind,
    /// What, where, why, and what to do; without the reasons.
    pub message: String,
    /// The rules that are not met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
    /// What would have to give way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ways: Vec<Way>,
}

impl ApiError {
    /// One without reasons.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), reasons: Vec::new(), ways: Vec::new() }
    }

    /// A refusal, with what would have to give way.
    #[must_use]
    pub fn refused(reasons: Vec<Reason>, ways: Vec<Way>) -> Self {
        let rules = if reasons.len() == 1 { "a rule is" } else { "rules are" };
        Self { kind: ErrorKind::Refused, message: format!("refused: {rules} not met"), reasons, ways }
    }
}

/// What kind of no. The command's exit status follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request makes no sense (HTTP 400, exit status 2).
    Invalid,
    /// Policy, compatibility or disruption forbids it (HTTP 409, exit status 3).
    Refused,
    /// Another change is being carried out (HTTP 423, exit status 1).
    Busy,
    /// There is no such thing (HTTP 404, exit status 1).
    NotFound,
    /// It was tried and did not work (HTTP 500, exit status 1).
    Failed,
}
