//! VF configuration operations: a client partition's requests to the management partition, for its own VFs.

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Class, Name, Reason, VfSettings, VfStatistics};

/// One operation on the requesting partition's VFs. It uses the names of the partition's Spec, so a partition can't
/// even name another's VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum VfOp {
    /// All its VFs.
    List,
    /// One VF with its settings.
    Get {
        /// The VF's name.
        vf: Name,
    },
    /// Change settings of one VF: all of them or none.
    Set {
        /// The VF's name.
        vf: Name,
        /// The change.
        change: VfSettings,
    },
    /// Function Level Reset; settings made by the PF remain.
    Reset {
        /// The VF's name.
        vf: Name,
    },
    /// Have the standby of this VF active in its place, or the VF itself again.
    Failover {
        /// The primary's name.
        vf: Name,
        /// Back to the primary.
        back: bool,
    },
    /// Traffic counters.
    Stats {
        /// The VF's name.
        vf: Name,
    },
}

impl VfOp {
    /// Its name in logs and on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Reset { .. } => "reset",
            Self::Failover { .. } => "failover",
            Self::Stats { .. } => "stats",
        }
    }

    /// The VF concerned.
    #[must_use]
    pub fn vf(&self) -> Option<&Name> {
        match self {
            Self::List => None,
            Self::Get { vf }
            | Self::Set { vf, .. }
            | Self::Reset { vf }
            | Self::Failover { vf, .. }
            | Self::Stats { vf } => Some(vf),
        }
    }
}

/// A VF as its partition sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VfView {
    /// Its name in the partition's Spec.
    pub name: Name,
    /// Its device class.
    pub class: Class,
    /// Its address on the host, for talking to the host's administrators. The guest sees another.
    pub host_address: Bdf,
    /// Settings as the PF reports them.
    pub settings: VfSettings,
    /// The operations that the partition may do on it, as words of `guest_may`.
    pub may: Vec<String>,
    /// Its part in a failover pair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<PairView>,
    /// Why nothing can be asked of it now; `None`: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The part that a VF has in a failover pair, as its partition sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PairView {
    /// Its part.
    pub role: PairRole,
    /// The other one's name.
    pub partner: Name,
    /// Whether the partition is to send by this one.
    pub active: bool,
}

/// Which of a failover pair a VF is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum PairRole {
    /// The one that is to be used.
    Primary,
    /// The one that is fallen back on.
    Standby,
}

/// The result of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "result", content = "value", rename_all = "kebab-case")]
pub enum OpOutcome {
    /// Of `list`.
    Vfs(Vec<VfView>),
    /// Of `get` and `set`: the VF afterwards.
    Vf(VfView),
    /// Of `reset`.
    Done,
    /// Of `stats`.
    Stats(VfStatistics),
}

/// The kind of error of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OpErrorKind {
    /// The Spec does not allow it (`guest_may`).
    Denied,
    /// The partition holds no VF of that name.
    NoSuchVf,
    /// The request is invalid for this VF; with a reason, its adapter or that one's driver cannot do it.
    Invalid,
    /// The adapter or its driver refused.
    Failed,
    /// Too many requests at once: try again later.
    Busy,
}

/// Why an operation was not carried out. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[error("{message}")]
pub struct OpError {
    /// The kind of error.
    pub kind: OpErrorKind,
    /// The failure, its place, its cause, and what to do.
    pub message: String,
    /// The rules behind it, if any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

impl OpError {
    /// An error without reasons.
    #[must_use]
    pub fn new(kind: OpErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), reasons: Vec::new() }
    }
}
