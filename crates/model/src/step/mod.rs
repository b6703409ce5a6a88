//! One operation on a host, and all that it means: [`Step`].
//!
//! ```text
//!   step ──> meaning    its subject, what is found before it, whom it keeps out, how long it may take     meaning.rs
//!        ├─> change     what it changes on the host, from what to what: tells whether it is done          change.rs
//!        ├─> inverse    the step that rolls it back                                                       here
//!        └─> record     how it is noted in the state                                                      record.rs
//! ```
//!
//! The order of steps, the executor, rollback, recovery and the tests derive from these. A new step is added here, to the
//! planner that makes it, and to whoever carries it out.

mod change;
mod meaning;
mod record;

pub use change::{Aspect, Change, Observation, Value};
pub use meaning::{FoundBefore, KeepsOut, Meaning, Subject};

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{
    AdapterState, Assignment, FailedOver, Name, OutOfService, Owner, PartitionSpec, StandbyNic, VfId,
    VfSettings,
};

/// One idempotent operation, with an inverse.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Note what an adapter looked like before ioward touches it, or what is now wanted of it.
    HoldAdapter {
        /// The PF.
        pf: Bdf,
        /// The new note.
        to: AdapterState,
        /// The note before.
        from: Option<AdapterState>,
    },
    /// Forget an adapter: it is as it was found.
    ReleaseAdapter {
        /// The PF.
        pf: Bdf,
        /// The note before.
        from: AdapterState,
    },
    /// Note that an adapter is out of service: from here on none of its VFs is given to anybody.
    TakeOutOfService {
        /// The PF.
        pf: Bdf,
        /// The note of it.
        to: OutOfService,
    },
    /// Note that an adapter is in service again.
    ReturnToService {
        /// The PF.
        pf: Bdf,
        /// The note before.
        from: OutOfService,
    },
    /// Set `sriov_drivers_autoprobe`.
    SetAutoprobe {
        /// The PF.
        pf: Bdf,
        /// The new value.
        to: bool,
        /// The value before.
        from: bool,
    },
    /// Set NumVFs. Both are the numbers between which the kernel lets go: one of them is 0.
    SetVfCount {
        /// The PF.
        pf: Bdf,
        /// The new value.
        to: u16,
        /// The value before.
        from: u16,
    },
    /// Note that a VF belongs to a partition. From here on no one else gets it.
    Assign {
        /// Whose it becomes.
        owner: Owner,
        /// The note of it: [`Assignment::new`] for a VF that it did not have before, and what was found for one that it had.
        to: Assignment,
    },
    /// Note that a VF belongs to nobody.
    Unassign {
        /// Whose it was.
        owner: Owner,
        /// The note of it before.
        from: Assignment,
    },
    /// Set a VF's settings through its PF.
    ConfigureVf {
        /// The VF.
        vf: VfId,
        /// Settings to change; the rest stays.
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
    /// Create a partition, or change what it is to have when it starts next. A domain or a namespace that is there becomes one.
    DefinePartition {
        /// The new value.
        to: PartitionSpec,
        /// The value before.
        from: Option<PartitionSpec>,
    },
    /// Forget a partition: a machine that is stopped, or a domain or a namespace, which stays as it is.
    UndefinePartition {
        /// The value before.
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
    /// Note with the hypervisor that a domain has had a VF before it was a partition. Nothing of the domain changes.
    AdoptVf {
        /// The partition and the VF's name in it.
        owner: Owner,
        /// The VF.
        vf: VfId,
    },
    /// Have the hypervisor forget a VF of a domain, which keeps it.
    ReleaseVf {
        /// The partition and the VF's name in it.
        owner: Owner,
        /// The VF.
        vf: VfId,
    },
    /// Give a machine an adapter on a bridge, the standby of a VF that comes after it.
    AttachStandby {
        /// The partition, and the VF's name in it.
        owner: Owner,
        /// What it is.
        nic: StandbyNic,
    },
    /// Take such a standby out of its machine, after the VF.
    DetachStandby {
        /// The partition, and the VF's name in it.
        owner: Owner,
        /// What it is.
        nic: StandbyNic,
    },
    /// Note which of a primary VF and its standby is active. The partition, or a look at the host, does the rest.
    SwitchOver {
        /// The primary.
        owner: Owner,
        /// That the standby is active, and why; `None`: the primary is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<FailedOver>,
        /// The note before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<FailedOver>,
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

/// Results of a step: the inverse and the state need them, and the plan could not know them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// Whether a partition that was defined runs already: a domain or a namespace that others have started.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub runs: bool,
    /// The partition may have had before what it was given: that was in doubt, and is not to be taken back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_in_doubt: bool,
    /// When it was carried out, in milliseconds since 1970 (UTC), where that is noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_ms: Option<u64>,
    /// A note for people, as "no KVM: runs in software emulation".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Step {
    /// Its name in JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::HoldAdapter { .. } => "hold-adapter",
            Self::ReleaseAdapter { .. } => "release-adapter",
            Self::TakeOutOfService { .. } => "take-out-of-service",
            Self::ReturnToService { .. } => "return-to-service",
            Self::SetAutoprobe { .. } => "set-autoprobe",
            Self::SetVfCount { .. } => "set-vf-count",
            Self::Assign { .. } => "assign",
            Self::Unassign { .. } => "unassign",
            Self::ConfigureVf { .. } => "configure-vf",
            Self::BindDriver { .. } => "bind-driver",
            Self::ResetVf { .. } => "reset-vf",
            Self::DefinePartition { .. } => "define-partition",
            Self::UndefinePartition { .. } => "undefine-partition",
            Self::CreateChannel { .. } => "create-channel",
            Self::DestroyChannel { .. } => "destroy-channel",
            Self::AttachVf { .. } => "attach-vf",
            Self::DetachVf { .. } => "detach-vf",
            Self::AdoptVf { .. } => "adopt-vf",
            Self::ReleaseVf { .. } => "release-vf",
            Self::AttachStandby { .. } => "attach-standby",
            Self::DetachStandby { .. } => "detach-standby",
            Self::SwitchOver { .. } => "switch-over",
            Self::StartPartition { .. } => "start-partition",
            Self::StopPartition { .. } => "stop-partition",
        }
    }

    /// The step that rolls this one back, given what carrying it out showed. `None`: there is nothing to roll back.
    #[must_use]
    pub fn inverse(&self, outcome: &Outcome) -> Option<Self> {
        Some(match self.clone() {
            Self::HoldAdapter { pf, to, from: None } => Self::ReleaseAdapter { pf, from: to },
            Self::HoldAdapter { pf, to, from: Some(from) } => {
                Self::HoldAdapter { pf, to: from, from: Some(to) }
            }
            Self::ReleaseAdapter { pf, from } => Self::HoldAdapter { pf, to: from, from: None },
            Self::TakeOutOfService { pf, to } => Self::ReturnToService { pf, from: to },
            Self::ReturnToService { pf, from } => Self::TakeOutOfService { pf, to: from },
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
            Self::CreateChannel { .. } | Self::AttachVf { .. } if outcome.was_in_doubt => return None,
            Self::CreateChannel { partition } => Self::DestroyChannel { partition },
            Self::DestroyChannel { partition } => Self::CreateChannel { partition },
            Self::AttachVf { owner, vf } => Self::DetachVf { owner, vf, force: true },
            Self::DetachVf { owner, vf, .. } => Self::AttachVf { owner, vf },
            Self::AdoptVf { owner, vf } => Self::ReleaseVf { owner, vf },
            Self::AttachStandby { owner, nic } => Self::DetachStandby { owner, nic },
            Self::DetachStandby { owner, nic } => Self::AttachStandby { owner, nic },
            Self::SwitchOver { owner, to, from } => Self::SwitchOver { owner, to: from, from: to },
            Self::ReleaseVf { owner, vf } => Self::AdoptVf { owner, vf },
            // A partition that this very plan has started has nothing to lose yet.
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
            Self::TakeOutOfService { pf, .. } => write!(f, "take {pf} out of service"),
            Self::ReturnToService { pf, .. } => write!(f, "return {pf} to service"),
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
                write!(f, "{verb} partition {}: {}", to.name, to.kind)
            }
            Self::UndefinePartition { from } => write!(f, "remove partition {}", from.name),
            Self::CreateChannel { partition } => write!(f, "create the channel of {partition}"),
            Self::DestroyChannel { partition } => write!(f, "destroy the channel of {partition}"),
            Self::AttachVf { owner, vf } => write!(f, "attach {vf} to {} as {}", owner.partition, owner.vf),
            Self::DetachVf { owner, vf, .. } => {
                write!(f, "detach {} ({vf}) from {}", owner.vf, owner.partition)
            }
            Self::AdoptVf { owner, vf } => {
                write!(f, "take over {vf}, which {} has, as {}", owner.partition, owner.vf)
            }
            Self::ReleaseVf { owner, vf } => {
                write!(f, "forget {} ({vf}), which {} keeps", owner.vf, owner.partition)
            }
            Self::AttachStandby { owner, nic } => write!(f, "give {owner} a standby: {nic}"),
            Self::DetachStandby { owner, nic } => write!(f, "take the standby of {owner}: {nic}"),
            Self::SwitchOver { owner, to: Some(to), .. } => {
                write!(f, "have the standby of {owner} active: {}", to.describe())
            }
            Self::SwitchOver { owner, to: None, .. } => write!(f, "have {owner} active again"),
            Self::StartPartition { partition } => write!(f, "start partition {partition}"),
            Self::StopPartition { partition, force } => {
                write!(f, "stop partition {partition}{}", if *force { " at once" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests;
