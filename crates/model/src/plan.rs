//! From a wish to a list of steps: [`Intent`], [`Options`], [`Plan`], [`Step`].

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{
    AdapterState, Assignment, Gap, Name, Owner, PartitionSpec, Placement, Spec, VfRequest, VfSettings, Way,
};

/// What is asked of the management partition. Everything that changes something begins as one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
        }
    }
}

/// What a person allows beyond the safe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// Change PFs that the host itself uses.
    pub allow_management_nic: bool,
    /// Take VFs away from running partitions for a while.
    pub allow_disruption: bool,
    /// Turn partitions off without asking their guests, and take VFs that the guest does not let go of.
    pub force: bool,
}

/// Ordered steps from what is to what is wanted. Immutable; it holds for one state and one inventory only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The state's revision once it is carried out: its parent's plus one.
    pub id: u64,
    /// The revision of the state it was made from.
    pub parent: u64,
    /// The generation of the inventory it was made from.
    pub generation: u64,
    /// What was asked for: planning it again from the same state and inventory gives this very plan.
    pub intent: Intent,
    /// What was allowed.
    pub options: Options,
    /// The steps, in order.
    pub steps: Vec<Step>,
    /// The settings that the steps change of VFs which stay with their partitions, as they are before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<SettingsBefore>,
    /// Who loses something for a while.
    pub disturbs: Vec<Disturbance>,
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

/// Settings of a VF before a plan is carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsBefore {
    /// The VF.
    pub vf: VfId,
    /// The settings that the plan changes, where they are known.
    pub settings: VfSettings,
}

/// Something that runs and is disturbed by a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disturbance {
    /// The partition, or `host`.
    pub who: String,
    /// The function it loses.
    pub function: Bdf,
    /// What happens to it, and for how long.
    pub what: String,
}

/// A virtual function by its PF and its index: it has this name before it exists, and whatever its address will be
/// (First VF Offset and VF Stride may change with NumVFs).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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

/// One idempotent operation, with an inverse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Note what an adapter looked like before ioward touches it, or what is now wanted of it.
    HoldAdapter {
        /// The PF.
        pf: Bdf,
        /// What is noted.
        to: AdapterState,
        /// What was noted before.
        from: Option<AdapterState>,
    },
    /// Forget an adapter: it is as it was found.
    ReleaseAdapter {
        /// The PF.
        pf: Bdf,
        /// What was noted.
        from: AdapterState,
    },
    /// Set `sriov_drivers_autoprobe`.
    SetAutoprobe {
        /// The PF.
        pf: Bdf,
        /// What it is to be.
        to: bool,
        /// What it was.
        from: bool,
    },
    /// Set NumVFs. Both are the numbers between which the kernel lets go: one of them is 0.
    SetVfCount {
        /// The PF.
        pf: Bdf,
        /// What it is to be.
        to: u16,
        /// What it was.
        from: u16,
    },
    /// Note that a VF belongs to a partition. From here on no one else gets it.
    Assign {
        /// Whose it becomes.
        owner: Owner,
        /// What is noted of it: [`Assignment::new`] for a VF that it did not have before.
        to: Assignment,
    },
    /// Note that a VF belongs to nobody.
    Unassign {
        /// Whose it was.
        owner: Owner,
        /// What was noted of it.
        from: Assignment,
    },
    /// Set a VF's settings through its PF.
    ConfigureVf {
        /// The VF.
        vf: VfId,
        /// What to set; the rest stays.
        to: VfSettings,
    },
    /// Bind a VF to a driver (`driver_override`), or to none.
    BindDriver {
        /// The VF.
        vf: VfId,
        /// The driver; `None` leaves it without one and without an override.
        to: Option<String>,
    },
    /// Function Level Reset.
    ResetVf {
        /// The VF.
        vf: VfId,
    },
    /// Create a partition, or change what it is to have when it starts next.
    DefinePartition {
        /// What it is to be.
        to: PartitionSpec,
        /// What it was.
        from: Option<PartitionSpec>,
    },
    /// Forget a stopped partition.
    UndefinePartition {
        /// What it was.
        from: PartitionSpec,
    },
    /// Make a partition's communication structure.
    CreateChannel {
        /// The partition.
        partition: Name,
    },
    /// Take a partition's communication structure away.
    DestroyChannel {
        /// The partition.
        partition: Name,
    },
    /// Give a bound VF to a partition: at its next start, or at once when it runs.
    AttachVf {
        /// The partition and the VF's name in it.
        owner: Owner,
        /// The VF.
        vf: VfId,
    },
    /// Take a VF out of a partition; done only once the guest has let go.
    DetachVf {
        /// The partition and the VF's name in it.
        owner: Owner,
        /// The VF.
        vf: VfId,
        /// Do not wait for the guest.
        force: bool,
    },
    /// Start a partition.
    StartPartition {
        /// The partition.
        partition: Name,
    },
    /// Stop a partition.
    StopPartition {
        /// The partition.
        partition: Name,
        /// Do not ask the guest.
        force: bool,
    },
}

/// What carrying out a step showed: what the inverse and the state need and the plan could not know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The VF's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Bdf>,
    /// The VF's settings before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings_before: Option<VfSettings>,
    /// The VF's driver before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_before: Option<String>,
    /// What a person should know, as "no KVM: runs in software emulation".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Step {
    /// The step that undoes this one, given what carrying it out showed. `None`: there is nothing to undo.
    #[must_use]
    pub fn inverse(&self, outcome: &Outcome) -> Option<Self> {
        Some(match self.clone() {
            Self::HoldAdapter { pf, to, from: None } => Self::ReleaseAdapter { pf, from: to },
            Self::HoldAdapter { pf, to, from: Some(from) } => {
                Self::HoldAdapter { pf, to: from, from: Some(to) }
            }
            Self::ReleaseAdapter { pf, from } => Self::HoldAdapter { pf, to: from, from: None },
            Self::SetAutoprobe { pf, to, from } => Self::SetAutoprobe { pf, to: from, from: to },
            Self::SetVfCount { pf, to, from } => Self::SetVfCount { pf, to: from, from: to },
            Self::Assign { owner, to } => Self::Unassign { owner, from: to },
            Self::Unassign { owner, from } => Self::Assign { owner, to: from },
            Self::ConfigureVf { vf, to } => {
                let before = to.restored_from(outcome.settings_before.as_ref()?);
                (!before.is_empty()).then_some(Self::ConfigureVf { vf, to: before })?
            }
            Self::BindDriver { vf, .. } => Self::BindDriver { vf, to: outcome.driver_before.clone() },
            Self::ResetVf { .. } => return None,
            Self::DefinePartition { to, from: None } => Self::UndefinePartition { from: to },
            Self::DefinePartition { to, from: Some(from) } => {
                Self::DefinePartition { to: from, from: Some(to) }
            }
            Self::UndefinePartition { from } => Self::DefinePartition { to: from, from: None },
            Self::CreateChannel { partition } => Self::DestroyChannel { partition },
            Self::DestroyChannel { partition } => Self::CreateChannel { partition },
            Self::AttachVf { owner, vf } => Self::DetachVf { owner, vf, force: true },
            Self::DetachVf { owner, vf, .. } => Self::AttachVf { owner, vf },
            // What started within this very plan has nothing to lose yet.
            Self::StartPartition { partition } => Self::StopPartition { partition, force: true },
            Self::StopPartition { partition, .. } => Self::StartPartition { partition },
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = |to: &VfSettings| {
            let words: Vec<_> =
                to.describe().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
            words.join(" ")
        };
        match self {
            Self::HoldAdapter { pf, to, .. } => {
                write!(
                    f,
                    "note how {pf} was found: {} VFs, autoprobe {}",
                    to.original.num_vfs, to.original.autoprobe
                )
            }
            Self::ReleaseAdapter { pf, .. } => write!(f, "let go of {pf}"),
            Self::SetAutoprobe { pf, to, .. } => {
                write!(f, "turn driver autoprobe {} for {pf}", if *to { "on" } else { "off" })
            }
            Self::SetVfCount { pf, to, from } => {
                write!(f, "set the number of VFs of {pf} from {from} to {to}")
            }
            Self::Assign { owner, to } => write!(f, "assign {} to {owner}", to.vf),
            Self::Unassign { owner, from } => write!(f, "take {} from {owner}", from.vf),
            Self::ConfigureVf { vf, to } => write!(f, "configure {vf}: {}", settings(to)),
            Self::BindDriver { vf, to: Some(driver) } => write!(f, "bind {vf} to {driver}"),
            Self::BindDriver { vf, to: None } => write!(f, "leave {vf} without a driver"),
            Self::ResetVf { vf } => write!(f, "reset {vf}"),
            Self::DefinePartition { to, from } => {
                let verb = if from.is_some() { "redefine" } else { "create" };
                let plural = if to.cpus == 1 { "" } else { "s" };
                write!(f, "{verb} partition {}: {} CPU{plural}, {}", to.name, to.cpus, to.memory)
            }
            Self::UndefinePartition { from } => write!(f, "remove partition {}", from.name),
            Self::CreateChannel { partition } => write!(f, "create the channel of {partition}"),
            Self::DestroyChannel { partition } => write!(f, "destroy the channel of {partition}"),
            Self::AttachVf { owner, vf } => write!(f, "attach {vf} to {} as {}", owner.partition, owner.vf),
            Self::DetachVf { owner, vf, .. } => {
                write!(f, "detach {} ({vf}) from {}", owner.vf, owner.partition)
            }
            Self::StartPartition { partition } => write!(f, "start partition {partition}"),
            Self::StopPartition { partition, force } => {
                write!(f, "stop partition {partition}{}", if *force { " at once" } else { "" })
            }
        }
    }
}
