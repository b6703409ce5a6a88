//! VF configuration operations: what a client partition asks of the management partition for its own VFs.

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Class, Name, Reason, VfSettings, VfStatistics};

/// One operation on the VFs of the partition that asks. It names VFs as the partition's Spec does; a partition cannot
/// even name another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// What to change.
        change: VfSettings,
    },
    /// Function Level Reset; settings made by the PF stay.
    Reset {
        /// The VF's name.
        vf: Name,
    },
    /// Traffic counters.
    Stats {
        /// The VF's name.
        vf: Name,
    },
}

impl VfOp {
    /// The word for it in logs and on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Get { .. } => "get",
            Self::Set { .. } => "set",
            Self::Reset { .. } => "reset",
            Self::Stats { .. } => "stats",
        }
    }

    /// The VF it is about.
    #[must_use]
    pub fn vf(&self) -> Option<&Name> {
        match self {
            Self::List => None,
            Self::Get { vf } | Self::Set { vf, .. } | Self::Reset { vf } | Self::Stats { vf } => Some(vf),
        }
    }
}

/// A VF as its partition sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VfView {
    /// Its name in the partition's Spec.
    pub name: Name,
    /// What it is for.
    pub class: Class,
    /// Its address on the host: for talking to the host's people. The guest sees another.
    pub host_address: Bdf,
    /// Settings as the PF reports them.
    pub settings: VfSettings,
    /// What the partition may do to it, as words of `guest_may`.
    pub may: Vec<String>,
}

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", content = "value", rename_all = "kebab-case")]
pub enum OpOutcome {
    /// To `list`.
    Vfs(Vec<VfView>),
    /// To `get` and `set`: the VF afterwards.
    Vf(VfView),
    /// To `reset`.
    Done,
    /// To `stats`.
    Stats(VfStatistics),
}

/// What kind of no an operation met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpErrorKind {
    /// The Spec does not allow it (`guest_may`).
    Denied,
    /// The partition holds no VF of that name.
    NoSuchVf,
    /// The request makes no sense for this VF.
    Invalid,
    /// The adapter or its driver said no.
    Failed,
    /// Too many requests at once: ask again later.
    Busy,
}

/// Why an operation was not done. Nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct OpError {
    /// What kind of no.
    pub kind: OpErrorKind,
    /// What, where, why, and what to do.
    pub message: String,
    /// The rules behind it, where there are any.
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
