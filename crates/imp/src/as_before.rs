//! Whether the host is as it was before a plan already. A daemon that could undo a plan on the host but not write that down (the
//! disk was full) leaves a journal that says it is half done; undone step by step once more, a VF that its guest has open again
//! would be taken out of its hands on the way.
//!
//! What each step found first is what there was before the plan: NumVFs and autoprobe of a PF, driver and settings of a VF, what
//! the hypervisor has. When all of that is so now, only the notes are put back.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use ioward_fabric::FabricError;
use ioward_hypervisor::PartitionStatus;
use ioward_model::{Inventory, Name, Outcome, Owner, Step, VfId, VfSettings};
use ioward_pci::Bdf;

use crate::{
    imp::Imp,
    rollback::{Carried, cannot_be_withdrawn},
};

/// What there was before a plan, of all that its steps have touched.
#[derive(Default)]
struct Before {
    counts: BTreeMap<Bdf, u16>,
    autoprobe: BTreeMap<Bdf, bool>,
    drivers: BTreeMap<VfId, Option<String>>,
    settings: BTreeMap<VfId, VfSettings>,
    defined: BTreeMap<Name, bool>,
    channels: BTreeMap<Name, bool>,
    running: BTreeMap<Name, bool>,
    attached: BTreeMap<Owner, bool>,
    /// Steps that finish what may be half so, and do nothing where it is so.
    make_sure: Vec<Step>,
}

impl Before {
    /// From steps in the order in which they were done.
    fn of(steps: &[Carried<'_>]) -> Self {
        let mut before = Self::default();
        for Carried { step, outcome, .. } in steps {
            let is_first = before.add(step, outcome);
            let inverse = step.inverse(outcome).filter(|_| is_first);
            before.make_sure.extend(inverse.filter(|inverse| {
                matches!(
                    inverse,
                    Step::DefinePartition { .. }
                        | Step::CreateChannel { .. }
                        | Step::AttachVf { .. }
                        | Step::BindDriver { to: None, .. }
                )
            }));
        }
        // As they would be undone: a partition before its channel, and that before its VFs.
        before.make_sure.reverse();
        before
    }

    /// Whether a step is the first about what it is about.
    fn add(&mut self, step: &Step, outcome: &Outcome) -> bool {
        match step {
            Step::SetVfCount { pf, from, .. } => first(&mut self.counts, pf, *from),
            Step::SetAutoprobe { pf, from, .. } => first(&mut self.autoprobe, pf, *from),
            Step::BindDriver { vf, .. } => first(&mut self.drivers, vf, outcome.driver_before.clone()),
            Step::ConfigureVf { vf, to } => {
                let found = to.restored_from(&outcome.settings_before.clone().unwrap_or_default());
                let before = self.settings.entry(*vf).or_default();
                *before = before.or(&found);
                false
            }
            Step::DefinePartition { to, from } => first(&mut self.defined, &to.name, from.is_some()),
            Step::UndefinePartition { from } => first(&mut self.defined, &from.name, true),
            Step::CreateChannel { partition } => first(&mut self.channels, partition, false),
            Step::DestroyChannel { partition } => first(&mut self.channels, partition, true),
            Step::StartPartition { partition } => first(&mut self.running, partition, false),
            Step::StopPartition { partition, .. } => first(&mut self.running, partition, true),
            Step::AttachVf { owner, .. } => first(&mut self.attached, owner, false),
            Step::DetachVf { owner, .. } => first(&mut self.attached, owner, true),
            Step::HoldAdapter { .. }
            | Step::ReleaseAdapter { .. }
            | Step::Assign { .. }
            | Step::Unassign { .. }
            | Step::ResetVf { .. } => false,
        }
    }

    fn is_so_of_adapters(&self, inventory: &Inventory) -> bool {
        let counts = self.counts.iter().all(|(pf, count)| {
            inventory.physical_function(*pf).is_some_and(|found| found.num_vfs() == *count)
        });
        let autoprobe = self.autoprobe.iter().all(|(pf, on)| {
            inventory.physical_function(*pf).is_some_and(|found| found.drivers_autoprobe == Some(*on))
        });
        counts && autoprobe
    }

    fn is_so_of_partitions(&self, machines: &[PartitionStatus]) -> bool {
        let of = |name: &Name| machines.iter().find(|machine| machine.name == *name);
        let has = |owner: &Owner| {
            of(&owner.partition).is_some_and(|machine| machine.vfs.iter().any(|(vf, _)| *vf == owner.vf))
        };
        self.defined.iter().all(|(name, was)| of(name).is_some() == *was)
            && self.channels.iter().all(|(name, was)| of(name).is_some_and(|machine| machine.channel) == *was)
            && self.running.iter().all(|(name, was)| of(name).is_some_and(|machine| machine.running) == *was)
            && self.attached.iter().all(|(owner, was)| has(owner) == *was)
    }
}

fn first<K: Ord + Clone, V>(values: &mut BTreeMap<K, V>, key: &K, value: V) -> bool {
    match values.entry(key.clone()) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            true
        }
        Entry::Occupied(_) => false,
    }
}

impl Imp {
    /// Whether the host is as it was before these steps, in the order in which they were done.
    pub(crate) async fn is_as_before(&self, steps: &[Carried<'_>]) -> bool {
        // What a guest was asked for may still come.
        if steps.iter().any(|carried| carried.in_doubt && cannot_be_withdrawn(carried.step)) {
            return false;
        }
        let before = Before::of(steps);
        let (Ok(inventory), Ok(machines)) = (self.look().await, self.hypervisor.partitions().await) else {
            return false;
        };
        if !before.is_so_of_adapters(&inventory) || !before.is_so_of_partitions(&machines) {
            return false;
        }
        let vfs: BTreeSet<_> = before.drivers.keys().chain(before.settings.keys()).copied().collect();
        for vf in vfs {
            if !self.is_so_of_vf(&before, vf).await {
                return false;
            }
        }
        for step in &before.make_sure {
            match self.do_step(step, Outcome::default()).await.map_err(|failure| failure.error) {
                Ok(_) | Err(crate::error::ImpError::Fabric(FabricError::NoSuchVf { .. })) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// One that is not there was made by the plan: as many as there were before are there.
    async fn is_so_of_vf(&self, before: &Before, vf: VfId) -> bool {
        if let Some(driver) = before.drivers.get(&vf) {
            match self.fabric.driver(vf).await {
                Err(FabricError::NoSuchVf { .. }) => return true,
                Ok(found) if found == *driver => {}
                _ => return false,
            }
        }
        match before.settings.get(&vf) {
            Some(settings) if !settings.is_empty() => match self.fabric.settings(vf).await {
                Err(FabricError::NoSuchVf { .. }) => true,
                found => found.is_ok_and(|found| settings.missing_from(&found).is_empty()),
            },
            _ => true,
        }
    }
}
