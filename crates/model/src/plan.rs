//! From a wish to a list of steps: [`Intent`], [`Options`], [`Plan`].

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{
    Adoptable, DomainRef, Drift, Gap, Name, Placement, Reason, Spec, Step, VfRequest, VfSettings, Way,
};

/// A request to the management partition. Everything that changes something begins as one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "intent", rename_all = "kebab-case")]
pub enum Intent {
    /// Make what the Spec names so; leave the rest alone.
    Apply {
        /// The Spec.
        spec: Spec,
    },
    /// Stop a partition and give its VFs back as they were found.
    Remove {
        /// The partition.
        partition: Name,
    },
    /// Start a stopped partition.
    Start {
        /// The partition.
        partition: Name,
    },
    /// Stop a running partition; it keeps its VFs.
    Stop {
        /// The partition.
        partition: Name,
    },
    /// Give more VFs to a partition: all of them or none.
    Attach {
        /// The partition.
        partition: Name,
        /// The VFs it is to have, at least one.
        vfs: Vec<VfRequest>,
    },
    /// Take a VF from a partition.
    Detach {
        /// The partition.
        partition: Name,
        /// The VF's name in it.
        vf: Name,
    },
    /// Make a partition of a domain that has VFs already, as it is: nothing of it changes, nor of its VFs.
    Adopt {
        /// The domain.
        domain: DomainRef,
        /// The name that the partition gets; left out: the domain's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        partition: Option<Name>,
        /// What the domain was found to have. The daemon looks for itself, whatever is said here.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        found: Option<Box<Adoptable>>,
    },
    /// Forget a partition that is a domain: the domain keeps its VFs, and they stay as they are.
    Release {
        /// The partition.
        partition: Name,
    },
    /// Take an adapter out of service: its VFs go to other adapters, and it gives none any more.
    Evacuate {
        /// The PF.
        pf: Bdf,
        /// Take VFs from their partitions for which there is none on another adapter; else these are in the way.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        leave_out: bool,
    },
    /// Take all VFs from a machine that is to be moved to another host. Its standbys stay: it goes on by them.
    Depart {
        /// The partition.
        partition: Name,
    },
    /// Stop everything that runs here with ioward's VFs, so that the host can be turned off. What is stopped keeps its VFs. Namespaces are
    /// others', and stay.
    EvacuateHost,
    /// Have an adapter in service again. Nothing moves back by itself.
    Return {
        /// The PF.
        pf: Bdf,
    },
    /// Have the standby of a VF active in its place, or the VF itself again.
    Failover {
        /// The partition.
        partition: Name,
        /// The primary's name in it.
        vf: Name,
        /// Back to the primary.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        back: bool,
    },
    /// Make the host as it is noted again. It is the daemon that asks for this, nobody else.
    Reconcile {
        /// Differences that are to be repaired.
        drifts: Vec<Drift>,
        /// Partitions that are to start with the host, and are ready to.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        start: Vec<Name>,
        /// Partitions whose machines run: nothing is taken from them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        running: Vec<Name>,
    },
}

impl Intent {
    /// The word for it, as in JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Apply { .. } => "apply",
            Self::Remove { .. } => "remove",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Attach { .. } => "attach",
            Self::Detach { .. } => "detach",
            Self::Adopt { .. } => "adopt",
            Self::Release { .. } => "release",
            Self::Evacuate { .. } => "evacuate",
            Self::Depart { .. } => "depart",
            Self::EvacuateHost => "evacuate-host",
            Self::Return { .. } => "return",
            Self::Failover { .. } => "failover",
            Self::Reconcile { .. } => "reconcile",
        }
    }

    /// How a plan for it is carried out.
    #[must_use]
    pub fn policy(&self) -> Policy {
        match self {
            Self::Reconcile { .. } => Policy::BestEffort,
            _ => Policy::AllOrNothing,
        }
    }
}

/// How a plan is carried out when a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All that was done is rolled back.
    AllOrNothing,
    /// Steps that do not depend on it go on, and nothing is rolled back: each step makes something so that is noted already.
    BestEffort,
}

/// Risks that a person allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Change PFs that the host itself uses.
    pub allow_management_nic: bool,
    /// Take VFs away from running partitions, for a while or for good.
    pub allow_disruption: bool,
    /// Turn partitions off without asking their guests, and take VFs that the guest does not let go of.
    pub force: bool,
}

/// Ordered steps from what is to what is wanted. Immutable; it holds for one state and one inventory only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// The state's revision once it is carried out: its parent's plus one. A plan of [`Policy::BestEffort`] changes nothing that
    /// another plan is made from, and leaves it as it is.
    pub id: u64,
    /// The revision of the state it was made from.
    pub parent: u64,
    /// The generation of the inventory it was made from.
    pub generation: u64,
    /// The request: planning it again from the same state and inventory gives this very plan.
    pub intent: Intent,
    /// The risks that were allowed.
    pub options: Options,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The settings that the steps change of VFs which stay with their partitions, as they are before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<SettingsBefore>,
    /// Who loses something while running, for a while or for good.
    pub disturbs: Vec<Disturbance>,
    /// What a domain has that is not taken over with it, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<Reason>,
    /// Which VF each request of the intent gets, and why that one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub placements: Vec<Placement>,
    /// How far from the best these may be; left out: nothing is better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
    /// For a plan that disturbs somebody: what would have to give way so that nobody is disturbed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instead: Vec<Way>,
}

impl Plan {
    /// Whether two plans are the same but for the state and the inventory that they were made from.
    #[must_use]
    pub fn does_the_same_as(&self, other: &Self) -> bool {
        let Self { id, parent, generation, .. } = *self;
        *self == Self { id, parent, generation, ..other.clone() }
    }
}

/// Settings of a VF before a plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SettingsBefore {
    /// The VF.
    pub vf: VfId,
    /// The settings that the plan changes, where they are known.
    pub settings: VfSettings,
}

/// Something that runs and is disturbed by a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Disturbance {
    /// The partition, `host`, or in words who else has the function: `libvirt domain web (qemu pid 812)`.
    pub who: String,
    /// The function it loses.
    pub function: Bdf,
    /// The disturbance, and how long it lasts.
    pub what: String,
}

/// A virtual function by its PF and its index: it has this name before it exists, and whatever its address will be
/// (First VF Offset and VF Stride may change with NumVFs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VfId {
    /// The physical function.
    pub pf: Bdf,
    /// The index under it, from 0.
    pub index: u16,
}

impl fmt::Display for VfId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VF {} of {}", self.index, self.pf)
    }
}
