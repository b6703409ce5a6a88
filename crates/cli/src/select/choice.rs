//! The Spec that is being chosen, and what it changes of what is held.

use std::collections::BTreeSet;

use ioward_model::{AdapterSpec, Name, Owner, PartitionSpec, Spec, SpecError, VfCount, VfRequest};
use ioward_pci::Bdf;

use super::rows::Row;
use crate::{assign, present::diff::Sign};

/// The Spec that is being chosen.
#[derive(Clone, Debug)]
pub struct Choice {
    spec: Spec,
    /// The Spec of what the daemon holds.
    held: Spec,
    /// The Spec last saved, applied or begun from.
    settled: Spec,
}

impl Choice {
    /// Begins from this Spec, or from what is held.
    #[must_use]
    pub fn new(spec: Option<Spec>, held: Spec) -> Self {
        let spec = spec.unwrap_or_else(|| held.clone());
        Self { settled: spec.clone(), spec, held }
    }

    /// The Spec as it is now.
    #[must_use]
    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Whether there is something that is neither saved nor applied.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        self.spec != self.settled
    }

    /// Notes that the Spec as it is now is safe somewhere.
    pub fn settle(&mut self) {
        self.settled = self.spec.clone();
    }

    /// Notes what the daemon holds now.
    pub fn held_is(&mut self, held: Spec) {
        self.held = held;
    }

    /// How many VFs an adapter is to give; `None`: as many as are assigned.
    #[must_use]
    pub fn count(&self, pf: Bdf) -> Option<VfCount> {
        count_in(&self.spec, pf)
    }

    /// Whether that is another number than what is held.
    #[must_use]
    pub fn count_changes(&self, pf: Bdf) -> bool {
        let is_named = self.spec.adapters.iter().any(|adapter| adapter.pf == pf);
        is_named && self.count(pf) != count_in(&self.held, pf)
    }

    /// Has an adapter give so many VFs.
    pub fn set_count(&mut self, pf: Bdf, count: Option<VfCount>) {
        let (vfs, spare) = match count {
            Some(VfCount::Spare(spare)) => (None, Some(spare)),
            count => (count, None),
        };
        let wanted = AdapterSpec { pf, vfs, spare };
        // A number that is held is taken back by naming the adapter without one.
        let is_said = count.is_some() || count_in(&self.held, pf).is_some();
        let adapters = &mut self.spec.adapters;
        match adapters.iter().position(|adapter| adapter.pf == pf) {
            Some(n) if is_said => adapters[n] = wanted,
            Some(n) => drop(adapters.remove(n)),
            None if is_said => adapters.push(wanted),
            None => {}
        }
    }

    /// The partition of this name.
    #[must_use]
    pub fn partition(&self, name: &Name) -> Option<&PartitionSpec> {
        partition_in(&self.spec, name)
    }

    /// The VF request of this name; of one that is to be given back, what is held.
    #[must_use]
    pub fn vf(&self, owner: &Owner) -> Option<&VfRequest> {
        let held = || vf_in(&self.held, owner);
        vf_in(&self.spec, owner).or_else(held)
    }

    /// Whether the daemon holds the partition already.
    #[must_use]
    pub fn is_held(&self, name: &Name) -> bool {
        partition_in(&self.held, name).is_some()
    }

    /// A name for one more VF of a partition, after its class.
    #[must_use]
    pub fn free_name(&self, partition: &Name, class: ioward_model::Class) -> String {
        let all = [&self.spec, &self.held].into_iter().filter_map(|spec| partition_in(spec, partition));
        let taken: BTreeSet<&str> =
            all.flat_map(|partition| &partition.vfs).map(|vf| vf.name.as_str()).collect();
        assign::free_names(class.vf_prefix(), 1, &taken).concat()
    }

    /// Adds a partition, or puts it in the place of that of the same name; its VF requests stay.
    ///
    /// # Errors
    /// When the Spec would make no sense; it stays as it was.
    pub fn put_partition(&mut self, partition: PartitionSpec) -> Result<(), SpecError> {
        let mut spec = self.spec.clone();
        match spec.partitions.iter_mut().find(|present| present.name == partition.name) {
            Some(present) => *present = PartitionSpec { vfs: std::mem::take(&mut present.vfs), ..partition },
            None => spec.partitions.push(partition),
        }
        self.put(spec)
    }

    /// Adds a VF request, or puts it in the place of that of the same name.
    ///
    /// # Errors
    /// When the Spec would make no sense; it stays as it was.
    pub fn put_vf(&mut self, partition: &Name, vf: VfRequest) -> Result<(), SpecError> {
        let mut spec = self.spec.clone();
        let partitions = spec.partitions.iter_mut();
        for partition in partitions.filter(|present| present.name == *partition) {
            match partition.vfs.iter_mut().find(|present| present.name == vf.name) {
                Some(present) => *present = vf.clone(),
                None => partition.vfs.push(vf.clone()),
            }
        }
        self.put(spec)
    }

    fn put(&mut self, spec: Spec) -> Result<(), SpecError> {
        spec.validate()?;
        self.spec = spec;
        Ok(())
    }

    /// Takes a partition out of the Spec; the daemon leaves alone what a Spec does not name.
    pub fn drop_partition(&mut self, name: &Name) {
        self.spec.partitions.retain(|partition| partition.name != *name);
    }

    /// Takes a VF request out of the Spec; one that is held is given back by that, and comes back when dropped again.
    pub fn drop_vf(&mut self, owner: &Owner) {
        let held = vf_in(&self.held, owner).cloned();
        let partitions = self.spec.partitions.iter_mut();
        for partition in partitions.filter(|partition| partition.name == owner.partition) {
            match (partition.vf(&owner.vf).is_some(), &held) {
                (true, _) => partition.vfs.retain(|vf| vf.name != owner.vf),
                (false, Some(held)) => partition.vfs.push(held.clone()),
                (false, None) => {}
            }
        }
    }

    /// The Spec with this request pinned to nothing, to ask what would suit it.
    #[must_use]
    pub fn unpinned(&self, owner: &Owner) -> Spec {
        let mut other = self.clone();
        other.pin(owner, None, None);
        other.spec
    }

    /// Has a request get this function: a VF, any VF of a PF, or whichever suits.
    pub fn pin(&mut self, owner: &Owner, pf: Option<Bdf>, index: Option<u16>) {
        let partitions = self.spec.partitions.iter_mut();
        let of_owner = partitions.filter(|partition| partition.name == owner.partition);
        for vf in of_owner.flat_map(|partition| &mut partition.vfs).filter(|vf| vf.name == owner.vf) {
            (vf.pf, vf.index) = (pf, index);
        }
    }

    /// How a row is other than what is held; `None`: it is not.
    #[must_use]
    pub fn sign(&self, row: &Row) -> Option<Sign> {
        match row {
            Row::Partition(name) => {
                let bare = |spec| {
                    let partition: &PartitionSpec = partition_in(spec, name)?;
                    Some(PartitionSpec { vfs: Vec::new(), ..partition.clone() })
                };
                Sign::between(bare(&self.held).as_ref(), bare(&self.spec).as_ref())
            }
            Row::Vf(owner) => Sign::between(vf_in(&self.held, owner), vf_in(&self.spec, owner)),
        }
    }

    /// Partitions of the Spec, each followed by its VF requests and by those that it is to give back.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for partition in &self.spec.partitions {
            rows.push(Row::Partition(partition.name.clone()));
            let held = partition_in(&self.held, &partition.name);
            let goes = held.into_iter().flat_map(|held| &held.vfs);
            let goes = goes.filter(|vf| partition.vf(&vf.name).is_none());
            rows.extend(
                partition
                    .vfs
                    .iter()
                    .chain(goes)
                    .map(|vf| Row::Vf(Owner { partition: partition.name.clone(), vf: vf.name.clone() })),
            );
        }
        rows
    }
}

fn count_in(spec: &Spec, pf: Bdf) -> Option<VfCount> {
    spec.adapters.iter().find(|adapter| adapter.pf == pf)?.count()
}

fn partition_in<'a>(spec: &'a Spec, name: &Name) -> Option<&'a PartitionSpec> {
    spec.partitions.iter().find(|partition| partition.name == *name)
}

fn vf_in<'a>(spec: &'a Spec, owner: &Owner) -> Option<&'a VfRequest> {
    partition_in(spec, &owner.partition)?.vf(&owner.vf)
}
