//! What the planner chose and why, and what would have to give way where it could not: [`Placement`], [`Way`].

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Name, Owner, VfId};

/// Which VF a request gets, and what decided it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The request.
    pub owner: Owner,
    /// The VF it gets.
    pub vf: VfId,
    /// What decided between its PF and the others that suit.
    pub decided_by: Criterion,
    /// The PF that came next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Bdf>,
    /// How many PFs suited.
    pub suited: u32,
}

/// What decides between PFs that suit, in this order: an earlier one is never given up for a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Criterion {
    /// The partition has it already.
    Kept,
    /// The request names it.
    Pinned,
    /// No other suits.
    OnlyOne,
    /// The other would disturb something that runs.
    Disruption,
    /// The host uses the other.
    HostUse,
    /// The other shares a failure domain with a VF that the request would rather be apart from.
    Redundancy,
    /// The other is farther from the partition's NUMA node.
    NumaNode,
    /// The other's number of VFs would have to change.
    VfCount,
    /// The other is faster than needed: it is left for a request that needs it.
    FreeCapacity,
    /// Nothing but the address.
    Address,
    /// The other would have been better for this request alone, and is needed for others.
    Together,
}

/// How far from the best a placement may be that a bounded search found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first criterion by which there may be a better one.
    pub criterion: Criterion,
    /// By how much at most: VFs, or distance added up.
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

/// One way to make possible what is refused: everything in it has to give way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Way {
    /// What gives way; at least one thing.
    pub gives: Vec<Relaxation>,
}

/// Something that gives way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "relaxation", rename_all = "kebab-case")]
pub enum Relaxation {
    /// `--allow-disruption`.
    AllowDisruption,
    /// `--allow-management-nic`.
    AllowManagementNic,
    /// A request does without one of its keys.
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
        /// The node on which there is a VF for it.
        node: u32,
    },
    /// A request may share a failure domain with one that it is to be apart from.
    Together {
        /// The request.
        request: Owner,
        /// The other one.
        with: Owner,
    },
    /// A partition that holds VFs gives one back.
    GiveUpVf {
        /// The partition.
        partition: Name,
        /// Of which adapter.
        pf: Bdf,
    },
    /// An adapter gives another number of VFs than the Spec says.
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
