//! Who holds what, now and once the plan is carried out: what the rules look at.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use ioward_model::{
    Assignment, Disturbance, Inventory, NvmeResources, Options, Owner, PhysicalFunction, State, VfCount,
    VfId, VfSettings, VirtualFunction,
};
use ioward_pci::Bdf;

use crate::{goal::Goal, macs::Macs};

/// The driver through which partitions get their VFs.
pub(crate) const VFIO: &str = "vfio-pci";

/// The host, the state, and what the plan has decided so far.
pub(crate) struct Ledger<'a> {
    pub inventory: &'a Inventory,
    pub state: &'a State,
    pub options: Options,
    pub macs: Macs,
    present: BTreeMap<VfId, Owner>,
    holders: BTreeMap<VfId, Owner>,
    counts: BTreeMap<Bdf, u16>,
    /// VFs that a person asked PFs to give beyond those that are assigned.
    spare: BTreeMap<Bdf, u16>,
    /// Flexible NVMe queue and interrupt resources of the holders.
    nvme: BTreeMap<VfId, (u16, u16)>,
    /// PFs whose number of VFs the Spec at hand sets: they change whatever is placed on them.
    named: BTreeSet<Bdf>,
}

/// A VF that something running would lose while its PF's number of VFs changes.
pub(crate) struct Loser {
    /// The partition, or `host`.
    pub who: String,
    /// Its name in the partition, or what the host does with it.
    pub what: String,
    /// Where it is.
    pub address: Bdf,
}

impl Loser {
    /// As a part of the plan.
    pub fn disturbance(self, why: &str) -> Disturbance {
        Disturbance { what: format!("loses {} {why}", self.what), who: self.who, function: self.address }
    }
}

impl<'a> Ledger<'a> {
    /// With what stays as it is: the VFs of partitions that the goal does not concern.
    pub fn new(inventory: &'a Inventory, state: &'a State, options: Options, goal: &Goal) -> Self {
        let total = |pf| inventory.physical_function(pf).map_or(0, PhysicalFunction::total_vfs);
        let resolve = |(pf, count): (&Bdf, &VfCount)| match *count {
            VfCount::Exactly(count) => Some((*pf, count)),
            VfCount::Max => Some((*pf, total(*pf))),
            VfCount::Spare(_) => None,
        };
        let remembered = state.adapters.iter().map(|(pf, adapter)| (*pf, adapter.wanted));
        let remembered = remembered.filter(|(pf, _)| !goal.adapters.contains_key(pf));
        let named = goal.adapters.iter().map(|(pf, count)| (*pf, *count));
        let wanted: BTreeMap<Bdf, VfCount> =
            remembered.chain(named).filter_map(|(pf, count)| Some((pf, count?))).collect();
        let spare = wanted.iter().filter_map(|(pf, count)| match count {
            VfCount::Spare(spare) => Some((*pf, *spare)),
            VfCount::Exactly(_) | VfCount::Max => None,
        });
        let fixes =
            |(_, count): &(&Bdf, &Option<VfCount>)| matches!(count, Some(VfCount::Exactly(_) | VfCount::Max));
        let mut ledger = Self {
            inventory,
            state,
            options,
            macs: Macs::new(inventory, state, goal),
            present: state.assignments().map(|(owner, assignment)| (assignment.vf, owner)).collect(),
            holders: BTreeMap::new(),
            counts: wanted.iter().filter_map(resolve).collect(),
            spare: spare.collect(),
            nvme: BTreeMap::new(),
            named: goal.adapters.iter().filter(fixes).map(|(pf, _)| *pf).collect(),
        };
        for (owner, assignment) in state.assignments().filter(|(owner, _)| !goal.concerns(&owner.partition)) {
            ledger.hold(&owner, assignment.vf, &assignment.effective_settings());
        }
        ledger
    }

    /// Notes that a VF is to be this owner's, with these settings.
    pub fn hold(&mut self, owner: &Owner, vf: VfId, settings: &VfSettings) {
        self.holders.insert(vf, owner.clone());
        if let (Some(queues), Some(interrupts)) = (settings.queues, settings.interrupts) {
            self.nvme.insert(vf, (queues, interrupts));
        }
    }

    /// Who is to hold a VF.
    pub fn holder(&self, vf: VfId) -> Option<&Owner> {
        self.holders.get(&vf)
    }

    /// Who is to hold VFs of this PF, by index.
    pub fn holders_on(&self, pf: Bdf) -> impl DoubleEndedIterator<Item = (VfId, &Owner)> {
        self.holders.range(all_of(pf)).map(|(vf, owner)| (*vf, owner))
    }

    /// What is noted of an owner's VF now.
    pub fn assignment(&self, owner: &Owner) -> Option<&'a Assignment> {
        self.state.partitions.get(&owner.partition)?.vfs.get(&owner.vf)
    }

    /// Whether a partition runs now.
    pub fn runs(&self, owner: &Owner) -> bool {
        self.state.partitions.get(&owner.partition).is_some_and(|partition| partition.running)
    }

    /// The VF, when it exists now.
    pub fn existing(&self, vf: VfId) -> Option<&'a VirtualFunction> {
        self.inventory.physical_function(vf.pf)?.virtual_function(vf.index)
    }

    /// The number of VFs that a person asked this PF to give; `None`: as many as are assigned.
    pub fn count_asked(&self, pf: Bdf) -> Option<u16> {
        self.counts.get(&pf).copied()
    }

    /// The number of VFs that a person asked this PF to give beyond those that are assigned.
    pub fn spare(&self, pf: Bdf) -> Option<u16> {
        self.spare.get(&pf).copied()
    }

    /// VFs that this PF may come to give: what was asked for, or TotalVFs.
    pub fn limit(&self, pf: &PhysicalFunction) -> u16 {
        self.count_asked(pf.address).unwrap_or(pf.total_vfs()).min(pf.total_vfs())
    }

    /// Whether the Spec at hand sets this PF's number of VFs.
    pub fn is_named(&self, pf: Bdf) -> bool {
        self.named.contains(&pf)
    }

    /// Whether placing a VF with this index means that the PF's number of VFs changes for its sake alone.
    pub fn would_grow(&self, pf: &PhysicalFunction, index: u16) -> bool {
        index >= pf.num_vfs() && !self.is_named(pf.address)
    }

    /// What makes a VF somebody else's: the host uses it, or it is bound for a guest that ioward does not know.
    pub fn foreign_use(&self, pf: &PhysicalFunction, vf: &VirtualFunction) -> Option<String> {
        if let Some(host_use) = vf.in_use_by_host.first() {
            return Some(host_use.to_string());
        }
        let ours = self.present.contains_key(&VfId { pf: pf.address, index: vf.index });
        let driver = vf.driver.as_deref().filter(|driver| !ours && driver.contains("vfio"))?;
        Some(format!("it is bound to {driver}, and not by ioward"))
    }

    /// Who loses a VF when this PF's number of VFs goes through zero: running partitions that keep theirs, and the host
    /// where it uses one or lends it to somebody ioward does not know.
    pub fn losers(&self, pf: &PhysicalFunction) -> Vec<Loser> {
        let loser = |vf: &VirtualFunction| {
            let id = VfId { pf: pf.address, index: vf.index };
            if let Some(what) = self.foreign_use(pf, vf) {
                return Some(Loser {
                    who: "host".into(),
                    what: format!("{id} ({what})"),
                    address: vf.address,
                });
            }
            let owner = self.holder(id).filter(|owner| self.runs(owner))?;
            self.assignment(owner).filter(|held| held.attached && held.vf == id)?;
            Some(Loser { who: owner.partition.to_string(), what: owner.vf.to_string(), address: vf.address })
        };
        pf.virtual_functions.iter().filter_map(loser).collect()
    }

    /// Flexible queue and interrupt resources that a VF of this PF could get: all, less those of other VFs, but for
    /// VFs that are given back.
    pub fn nvme_left(&self, pf: &PhysicalFunction, resources: &NvmeResources, index: u16) -> (u16, u16) {
        let id = |index| VfId { pf: pf.address, index };
        let ours =
            self.nvme.range(all_of(pf.address)).filter(|(vf, _)| vf.index != index).map(|(_, held)| *held);
        let secondaries = pf.nvme.iter().flat_map(|nvme| &nvme.secondaries);
        let others = secondaries
            .filter(|vf| {
                vf.index != index
                    && !self.nvme.contains_key(&id(vf.index))
                    && !self.present.contains_key(&id(vf.index))
            })
            .map(|vf| (vf.queues, vf.interrupts));
        let left = |total: u32, used: u32| u16::try_from(total.saturating_sub(used)).unwrap_or(u16::MAX);
        let (queues, interrupts) = ours.chain(others).fold((0_u32, 0_u32), |(queues, interrupts), (q, i)| {
            (queues.saturating_add(q.into()), interrupts.saturating_add(i.into()))
        });
        (left(resources.queues_total, queues), left(resources.interrupts_total, interrupts))
    }
}

fn all_of(pf: Bdf) -> RangeInclusive<VfId> {
    VfId { pf, index: 0 }..=VfId { pf, index: u16::MAX }
}
