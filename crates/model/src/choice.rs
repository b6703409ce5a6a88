//! The planner's choices with their grounds, and the relaxations where it found none: [`Placement`], [`Way`].

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Name, Owner, VfId};

/// The VF for a request, and the criterion that decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// The request.
    pub owner: Owner,
    /// The VF.
    pub vf: VfId,
    /// The criterion that decided between its PF and the other suitable ones.
    pub decided_by: Criterion,
    /// The runner-up PF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Bdf>,
    /// Number of suitable PFs.
    pub suited: u32,
}

/// A criterion between suitable PFs, in order of precedence: an earlier one is never given up for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The partition has it already.
    Kept,
    /// The request names it.
    Pinned,
    /// No other PF suits.
    OnlyOne,
    /// The other would disturb something that is running.
    Disruption,
    /// The host uses the other.
    HostUse,
    /// The other shares a failure domain with a VF that the request prefers to be apart from.
    Redundancy,
    /// The other is farther from the partition's NUMA node.
    NumaNode,
    /// The other would need a different number of VFs.
    VfCount,
    /// The other is faster than needed: it is left for a request that needs it.
    FreeCapacity,
    /// Only the address differs.
    Address,
    /// The other would suit this request alone better, but others need it.
    Together,
}

/// How far a placement from a bounded search may be from the optimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Gap {
    /// The first criterion in which a better placement may exist.
    pub criterion: Criterion,
    /// The maximum improvement: VFs, or summed distance.
    pub at_most: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the search for the best placement was given up: there may be a better one, by at most ",
        )?;
        write!(f, "{} of ", self.at_most)?;
        self.criterion.serialize(f)
    }
}

impl fmt::Display for Criterion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "it has it already",
            Self::Pinned => "the Spec names it",
            Self::OnlyOne => "no other suits",
            Self::Disruption => "nothing that runs is disturbed",
            Self::HostUse => "the host does not use it",
            Self::Redundancy => "it is apart from what it would rather be apart from",
            Self::NumaNode => "it is nearer to the partition's NUMA node",
            Self::VfCount => "the number of its VFs need not change for this",
            Self::FreeCapacity => "it leaves the faster one free",
            Self::Address => "it has the lower address",
            Self::Together => "others need what would be better for it",
        })
    }
}

/// One way to make a refused request possible: all of its relaxations together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Way {
    /// The relaxations; at least one.
    pub gives: Vec<Relaxation>,
}

/// A relaxation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "relaxation", rename_all = "kebab-case")]
pub enum Relaxation {
    /// `--allow-disruption`.
    AllowDisruption,
    /// `--allow-management-nic`.
    AllowManagementNic,
    /// A request drops one of its keys.
    LeaveOut {
        /// The request.
        request: Owner,
        /// The key, as `min_link_speed`.
        key: String,
    },
    /// A request may be on another NUMA node than its partition.
    OtherNumaNode {
        /// The request.
        request: Owner,
        /// A node that has a VF for it.
        node: u32,
    },
    /// A request may share a failure domain with a VF that it must be apart from.
    Together {
        /// The request.
        request: Owner,
        /// The other VF.
        with: Owner,
    },
    /// A partition that holds VFs gives one back.
    GiveUpVf {
        /// The partition.
        partition: Name,
        /// The adapter.
        pf: Bdf,
    },
    /// An adapter has another number of VFs than the Spec says.
    OtherVfCount {
        /// The adapter.
        pf: Bdf,
        /// The number of VFs.
        vfs: u16,
    },
}

impl fmt::Display for Relaxation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllowDisruption => f.write_str("--allow-disruption is given"),
            Self::AllowManagementNic => f.write_str("--allow-management-nic is given"),
            Self::LeaveOut { request, key } => write!(f, "{request} does without {key}"),
            Self::OtherNumaNode { request, node } => write!(f, "{request} may be on NUMA node {node}"),
            Self::Together { request, with } => write!(f, "{request} need not be apart from {with}"),
            Self::GiveUpVf { partition, pf } => write!(f, "{partition} gives up one VF of {pf}"),
            Self::OtherVfCount { pf, vfs } => write!(f, "{pf} gives {vfs} VFs"),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, relaxation) in self.gives.iter().enumerate() {
            write!(f, "{}{relaxation}", if n > 0 { " and " } else { "" })?;
        }
        Ok(())
    }
}
