//! The values that travel over the API socket beside those of `ioward-model`. Neither server nor client: a client
//! needs no daemon crate. docs/api.md describes the routes.
#![forbid(unsafe_code)]

mod change;
mod moves;
mod prepare;
mod problem;
mod routes;
mod topic;

pub use change::{ChangeId, ChangeIdError, ChangeStatus, ChangeView};
pub use moves::{BeginMove, FromSource, FromTarget, Leaving, Offer, Settled};
pub use prepare::{DomainFunction, PrepareRequest, Prepared};
pub use problem::{ApiError, ErrorBody, ErrorKind, PROBLEM_JSON, Problem};
pub use routes::{ADMIN_GROUP, ROUTES, Role, Route, VIEW_GROUP, WhoAmI};
pub use topic::{Topic, Topics, TopicsError};

use std::path::PathBuf;

use ioward_model::{
    Accelerator, AuditDropped, AuditEntry, Class, DomainRef, FailedOver, Halt, Intent, InterfaceName,
    Machine, MemorySize, Name, NamespaceRef, Options, Orphan, Owner, PairView, PartitionKind, Plan, Reason,
    Spec, VfId, VfSettings, VirtualFunction,
};
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/ioward/api.sock";

/// Body of `POST /v1/plan`; the answer is a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanRequest {
    /// The intent to plan for.
    #[serde(flatten)]
    pub intent: Intent,
    /// The options of the planner.
    #[serde(default)]
    pub options: Options,
}

/// Body of `POST /v1/apply`. The answer is a stream of events, one JSON object a line, that ends with `plan-done` or
/// `plan-failed`. Closing the connection before that cancels the change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// A plan from `POST /v1/plan`; refused when the host or the state has changed since.
    pub plan: Plan,
    /// How many seconds it waits for other changes, running or queued; absent: it does not wait, and is refused
    /// while there are any. After a wait, the plan is valid only if the same plan would be made now.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_seconds: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A line of the answer of `GET /v1/audit`; entries come first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum AuditLine {
    /// An operation.
    Entry(NumberedEntry),
    /// Entries of a partition that were dropped.
    Dropped {
        /// The partition.
        partition: Name,
        /// Their number.
        dropped: AuditDropped,
    },
}

/// An entry of the audit log, with its number where pages of it were asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NumberedEntry {
    /// Its number in the log; the next one has a greater one. Absent without `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// The entry.
    #[serde(flatten)]
    pub entry: AuditEntry,
}

/// Body of `POST /v1/changes`; the answer is a [`ChangeView`]. The change continues when the connection closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ChangeRequest {
    /// A plan from `POST /v1/plan`; refused when the host or the state has changed since.
    pub plan: Plan,
    /// As in [`ApplyRequest`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_seconds: u64,
}

/// Body of `POST /v1/changes` in its other form: an intent that is planned and begun at once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntentRequest {
    /// The intent.
    #[serde(flatten)]
    pub intent: Intent,
    /// The options of the planner.
    #[serde(default)]
    pub options: Options,
    /// As in [`ApplyRequest`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub wait_seconds: u64,
}

/// Body of `POST /v1/compatible`; the answer is a list of [`Compatible`], one for each VF that the partition asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CompatibleRequest {
    /// The Spec.
    pub spec: Spec,
    /// The partition in it.
    pub partition: Name,
}

/// The functions that suit one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Compatible {
    /// The request, as `web/net0`.
    pub request: Owner,
    /// Suitable VFs first, best first; then the others, by address. Empty when the host has no SR-IOV adapter.
    pub candidates: Vec<Candidate>,
}

/// A function considered for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidate {
    /// The VF.
    pub vf: VfId,
    /// Its address; absent when the VF does not exist yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Bdf>,
    /// Why it does not suit; empty when it does.
    pub reasons: Vec<Reason>,
}

impl Compatible {
    /// Whether anything suits.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.reasons.is_empty())
    }
}

/// A partition, as listed by `GET /v1/partitions`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PartitionView {
    /// Its name.
    pub name: Name,
    /// Whether its machine runs.
    pub running: bool,
    /// Why its machine executes nothing, while it is there and does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halted: Option<Halt>,
    /// The accelerator, while it runs.
    pub accelerator: Option<Accelerator>,
    /// The process ID, while it runs.
    pub pid: Option<u32>,
    /// What it is.
    #[serde(flatten)]
    pub kind: KindView,
    /// Whether it has a channel.
    pub channel: bool,
    /// The name and version its agent gave in its hello.
    pub agent: Option<String>,
    /// Unix stream socket of its serial console; `None`: a domain's is libvirt's, a namespace has none.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub console: Option<PathBuf>,
    /// Its VFs.
    pub vfs: Vec<AssignedVf>,
}

/// What a partition is, by the keys of a Spec.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum KindView {
    /// A machine of ioward's own.
    Machine {
        /// Number of virtual CPUs.
        cpus: u16,
        /// Memory size.
        memory: MemorySize,
    },
    /// A domain of libvirt's.
    Domain {
        /// Its name or UUID.
        libvirt: DomainRef,
    },
    /// A network namespace.
    Namespace {
        /// Its name or file.
        netns: NamespaceRef,
    },
}

impl From<&PartitionKind> for KindView {
    fn from(kind: &PartitionKind) -> Self {
        match kind.clone() {
            PartitionKind::Machine(Machine { cpus, memory, .. }) => Self::Machine { cpus, memory },
            PartitionKind::Domain(libvirt) => Self::Domain { libvirt },
            PartitionKind::Namespace(netns) => Self::Namespace { netns },
        }
    }
}

/// A VF of a partition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignedVf {
    /// Its name in the partition.
    pub name: Name,
    /// Its device class.
    pub class: Class,
    /// The VF.
    #[serde(flatten)]
    pub vf: VfId,
    /// Its PCI address.
    pub address: Option<Bdf>,
    /// The settings that ioward made.
    pub settings: VfSettings,
    /// The settings that the guest may change.
    pub guest_may: Vec<String>,
    /// Its part in a failover pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<PairView>,
    /// The bridge of the host's that its standby is on, where it has such a one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standby_bridge: Option<InterfaceName>,
    /// It is a primary whose standby is active: why, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_over: Option<FailedOver>,
}

/// A VF, as `GET /v1/adapters/{pf}/vfs/{index}` shows it: as in the inventory, with what ioward knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VfDetail {
    /// Its PF.
    pub pf: Bdf,
    /// As in the inventory: `owner` is the partition that holds it, `settings` what its PF reports.
    #[serde(flatten)]
    pub vf: VirtualFunction,
    /// The settings that ioward made: by plans, and for the partition or a user since; absent where no partition holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<VfSettings>,
}

/// The outcome for one orphan, as listed by `POST /v1/orphans/reap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reaped {
    /// The orphan.
    #[serde(flatten)]
    pub orphan: Orphan,
    /// Why it could not be removed, if it could not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
