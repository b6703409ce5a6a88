//! The change that a step makes to a host, and how to tell from a look at it whether that is so.

use ioward_pci::Bdf;

use super::{Outcome, Step};
use crate::{Inventory, Name, Owner, PartitionStatus, VfId, VfSettings};

/// Something about a host that a step changes and a look can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// NumVFs of a PF.
    VfCount(Bdf),
    /// `sriov_drivers_autoprobe` of a PF.
    Autoprobe(Bdf),
    /// The driver of a VF.
    Driver(VfId),
    /// Settings of a VF.
    Settings(VfId),
    /// Whether the hypervisor knows a partition.
    Defined(Name),
    /// Whether a partition has a channel.
    Channel(Name),
    /// Whether a partition runs.
    Running(Name),
    /// Whether the hypervisor has a VF for a partition.
    Attached(Owner),
    /// Whether the hypervisor has a standby on a bridge for a VF.
    Standby(Owner),
}

/// How an [`Aspect`] of a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number of VFs.
    Count(u16),
    /// It is so, or it is not.
    Is(bool),
    /// A driver; `None`: there is none.
    Driver(Option<String>),
    /// These settings; those that it does not speak of may be anything.
    Settings(VfSettings),
}

/// The change that a step makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The aspect that changes.
    pub aspect: Aspect,
    /// As it was before.
    pub from: Value,
    /// As it is to be.
    pub to: Value,
}

/// A look at a host.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The PCI side of it.
    pub inventory: &'a Inventory,
    /// All that the hypervisor knows.
    pub partitions: &'a [PartitionStatus],
}

impl Step {
    /// The change that the step makes to the host, given what was found before it. `None`: nothing that a look can tell.
    #[must_use]
    pub fn change(&self, found: &Outcome) -> Option<Change> {
        let is = |aspect, to: bool| Change { aspect, from: Value::Is(!to), to: Value::Is(to) };
        Some(match self {
            Self::SetVfCount { pf, to, from } => {
                let (from, to) = (Value::Count(*from), Value::Count(*to));
                Change { aspect: Aspect::VfCount(*pf), from, to }
            }
            Self::SetAutoprobe { pf, to, from } => {
                Change { aspect: Aspect::Autoprobe(*pf), from: Value::Is(*from), to: Value::Is(*to) }
            }
            Self::BindDriver { vf, to } => {
                let from = Value::Driver(found.driver_before.clone());
                Change { aspect: Aspect::Driver(*vf), from, to: Value::Driver(to.clone()) }
            }
            Self::ConfigureVf { vf, to } => {
                let from = to.restored_from(&found.settings_before.clone().unwrap_or_default());
                let (from, to) = (Value::Settings(from), Value::Settings(to.clone()));
                Change { aspect: Aspect::Settings(*vf), from, to }
            }
            Self::DefinePartition { to, from } => {
                let from = Value::Is(from.is_some());
                Change { aspect: Aspect::Defined(to.name.clone()), from, to: Value::Is(true) }
            }
            Self::UndefinePartition { from } => is(Aspect::Defined(from.name.clone()), false),
            Self::CreateChannel { partition } => is(Aspect::Channel(partition.clone()), true),
            Self::DestroyChannel { partition } => is(Aspect::Channel(partition.clone()), false),
            Self::StartPartition { partition } => is(Aspect::Running(partition.clone()), true),
            Self::StopPartition { partition, .. } => is(Aspect::Running(partition.clone()), false),
            Self::AttachVf { owner, .. } => is(Aspect::Attached(owner.clone()), true),
            Self::AdoptVf { owner, .. } => is(Aspect::Attached(owner.clone()), true),
            Self::ReleaseVf { owner, .. } => is(Aspect::Attached(owner.clone()), false),
            Self::DetachVf { owner, .. } => is(Aspect::Attached(owner.clone()), false),
            Self::AttachStandby { owner, .. } => is(Aspect::Standby(owner.clone()), true),
            Self::DetachStandby { owner, .. } => is(Aspect::Standby(owner.clone()), false),
            Self::HoldAdapter { .. }
            | Self::ReleaseAdapter { .. }
            | Self::TakeOutOfService { .. }
            | Self::ReturnToService { .. }
            | Self::Assign { .. }
            | Self::Unassign { .. }
            | Self::SwitchOver { .. }
            | Self::ResetVf { .. } => return None,
        })
    }
}

impl Value {
    /// This value; of settings, those of `base` too that it does not speak of.
    #[must_use]
    pub fn or(self, base: Self) -> Self {
        match (self, base) {
            (Self::Settings(settings), Self::Settings(base)) => Self::Settings(settings.or(&base)),
            (value, _) => value,
        }
    }
}

impl Observation<'_> {
    /// Whether an aspect of the host is like that. A VF that is not there has neither driver nor settings to be wrong.
    #[must_use]
    pub fn shows(&self, aspect: &Aspect, value: &Value) -> bool {
        let pf = |pf: &Bdf| self.inventory.physical_function(*pf);
        let partition = |name: &Name| self.partitions.iter().find(|known| known.name == *name);
        match (aspect, value) {
            (Aspect::VfCount(at), Value::Count(count)) => pf(at).is_some_and(|pf| pf.num_vfs() == *count),
            (Aspect::Autoprobe(at), Value::Is(on)) => {
                pf(at).is_some_and(|pf| pf.drivers_autoprobe == Some(*on))
            }
            (Aspect::Driver(vf), Value::Driver(driver)) => self.vf(*vf).is_none_or(|vf| vf.driver == *driver),
            (Aspect::Settings(vf), Value::Settings(settings)) => {
                self.vf(*vf).is_none_or(|vf| settings.missing_from(&vf.settings).is_empty())
            }
            (Aspect::Defined(name), Value::Is(defined)) => partition(name).is_some() == *defined,
            (Aspect::Channel(name), Value::Is(there)) => {
                partition(name).is_some_and(|known| known.channel) == *there
            }
            (Aspect::Running(name), Value::Is(runs)) => {
                partition(name).is_some_and(|known| known.running) == *runs
            }
            (Aspect::Attached(owner), Value::Is(attached)) => {
                let has = |known: &PartitionStatus| known.vfs.iter().any(|(vf, _)| *vf == owner.vf);
                partition(&owner.partition).is_some_and(has) == *attached
            }
            (Aspect::Standby(owner), Value::Is(there)) => {
                let has = |known: &PartitionStatus| known.standbys.contains(&owner.vf);
                partition(&owner.partition).is_some_and(has) == *there
            }
            _ => false,
        }
    }

    fn vf(&self, vf: VfId) -> Option<&crate::VirtualFunction> {
        self.inventory.physical_function(vf.pf)?.virtual_function(vf.index)
    }
}
