//! The holders of VFs, now and once the plan is carried out: the rules look here.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use ioward_model::{
    Apart, Assignment, BitRate, Disturbance, FailureDomain, IntoMap, Inventory, KindName, MacAddress, Name,
    NvmeResources, Options, Owner, PartitionSpec, PhysicalFunction, Reason, Rule, StandbyNic, State, VfCount,
    VfId, VfRef, VfRequest, VfSettings, VirtualFunction, checks,
};
use ioward_pci::Bdf;

use crate::{
    drivers,
    goal::Goal,
    held::{Held, Survey},
    macs::Macs,
};

/// The host, the state, and what the plan has decided so far.
pub(crate) struct Ledger<'a> {
    pub inventory: &'a Inventory,
    pub state: &'a State,
    pub options: Options,
    macs: Macs<'a>,
    pfs: BTreeMap<Bdf, &'a PhysicalFunction>,
    /// Obstacles of PFs that can't give VFs.
    obstacles: BTreeMap<Bdf, Vec<checks::Obstacle>>,
    /// Holders as they are now.
    now: Survey<'a>,
    /// Holders that the plan has decided on so far.
    holders: BTreeMap<VfId, Holder>,
    /// The same, by owner.
    held: BTreeMap<Owner, VfId>,
    /// Partitions whose VFs are decided anew.
    concerned: BTreeSet<Name>,
    /// What partitions are that are no machines.
    kinds: BTreeMap<Name, KindName>,
    /// An adapter that all VFs leave.
    leaving: Option<Bdf>,
    /// Adapters that are out of service once the plan is carried out.
    out: BTreeSet<Bdf>,
    ties: BTreeMap<Owner, Vec<Tie>>,
    counts: BTreeMap<Bdf, u16>,
    /// VFs that a person asked PFs to give beyond those that are assigned.
    spare: BTreeMap<Bdf, u16>,
    /// Whether a refusal is to say why. Where only it matters whether there is a plan, that is left out.
    pub tells_why: bool,
    /// How many requests get no VF, once that is known; the one at hand is among them.
    pub unplaced: u16,
    /// PFs whose number of VFs the Spec at hand sets: they change whatever is placed on them.
    named: BTreeSet<Bdf>,
}

/// The future holder of a VF, and its share of the PF's budgets.
struct Holder {
    owner: Owner,
    /// Flexible NVMe queue and interrupt resources.
    nvme: Option<(u16, u16)>,
    /// Guaranteed bandwidth, Mbit/s.
    guaranteed: u32,
    /// MSI-X vectors asked for.
    vectors: u16,
}

impl Holder {
    fn new(owner: Owner, settings: &VfSettings, request: Option<&VfRequest>) -> Self {
        Self {
            owner,
            nvme: settings.queues.zip(settings.interrupts),
            guaranteed: settings.min_tx_rate.map_or(0, BitRate::megabits),
            vectors: request.and_then(|request| request.min_msix_vectors).unwrap_or(0),
        }
    }
}

/// That a VF is to be apart from another one. It holds for both of them.
pub(crate) struct Tie {
    pub other: Owner,
    pub by: FailureDomain,
    /// A wish, not a rule.
    pub prefer: bool,
}

/// A VF that something running would lose while its PF's number of VFs changes.
pub(crate) struct Loser {
    /// The partition, `host`, or who else has the VF in words.
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
        let total = |pf| inventory.physical_function(pf).map_or(0, checks::most_vfs);
        let resolve = |(pf, count): (&Bdf, &VfCount)| match *count {
            VfCount::Exactly(count) => Some((*pf, count)),
            VfCount::Max => Some((*pf, total(*pf))),
            VfCount::Spare(_) => None,
        };
        let remembered = state.adapters.iter().map(|(pf, adapter)| (*pf, adapter.wanted));
        let remembered = remembered.filter(|(pf, _)| !goal.adapters.contains_key(pf));
        let named = goal.adapters.iter().map(|(pf, count)| (*pf, *count));
        let wanted: BTreeMap<Bdf, VfCount> =
            remembered.chain(named).filter_map(|(pf, count)| Some((pf, count?))).into_map();
        let spare = wanted.iter().filter_map(|(pf, count)| match count {
            VfCount::Spare(spare) => Some((*pf, *spare)),
            VfCount::Exactly(_) | VfCount::Max => None,
        });
        let fixes =
            |(_, count): &(&Bdf, &Option<VfCount>)| matches!(count, Some(VfCount::Exactly(_) | VfCount::Max));
        let now = Survey::of(state, goal);
        Self {
            inventory,
            state,
            options,
            macs: Macs::new(inventory, state, goal),
            pfs: inventory.physical_functions.iter().map(|pf| (pf.address, pf)).into_map(),
            obstacles: inventory
                .physical_functions
                .iter()
                .map(|pf| (pf.address, obstacles(inventory, pf, goal)))
                .filter(|(_, obstacles)| !obstacles.is_empty())
                .into_map(),
            holders: BTreeMap::new(),
            held: BTreeMap::new(),
            concerned: goal.concerned().clone(),
            kinds: state
                .partitions
                .values()
                .map(|partition| &partition.spec)
                .chain(goal.partitions.iter().map(|partition| &partition.spec))
                .map(|spec| (spec.name.clone(), spec.kind.name()))
                .filter(|(_, kind)| *kind != KindName::Machine)
                .into_map(),
            leaving: goal.evacuation.as_ref().map(|evacuation| evacuation.pf),
            out: inventory
                .physical_functions
                .iter()
                .filter(|pf| pf.out_of_service.is_some())
                .map(|pf| pf.address)
                .filter(|pf| goal.returns.as_ref().is_none_or(|(returns, _)| returns != pf))
                .chain(goal.evacuation.as_ref().map(|evacuation| evacuation.pf))
                .collect(),
            ties: ties(state, goal, &now),
            now,
            counts: wanted.iter().filter_map(resolve).collect(),
            spare: spare.into_map(),
            tells_why: true,
            unplaced: 1,
            named: goal.adapters.iter().filter(fixes).map(|(pf, _)| *pf).collect(),
        }
    }

    /// Notes that a VF is to be this owner's, with these settings, for this request.
    pub fn hold(&mut self, owner: &Owner, vf: VfId, settings: &VfSettings, request: Option<&VfRequest>) {
        self.holders.insert(vf, Holder::new(owner.clone(), settings, request));
        self.held.insert(owner.clone(), vf);
    }

    /// Why a request can't have the MAC address that it names.
    pub fn mac_conflict(&self, owner: &Owner, request: &VfRequest) -> Option<Reason> {
        self.macs.conflict(&self.now, owner, request)
    }

    /// A MAC address for a VF whose request names none.
    pub fn derive_mac(&mut self, owner: &Owner, pf: &PhysicalFunction) -> MacAddress {
        self.macs.derive(&self.now, owner, pf)
    }

    /// Notes that an owner's VF has this MAC address.
    pub fn take_mac(&mut self, mac: MacAddress, owner: &Owner) {
        self.macs.take(mac, owner);
    }

    /// The PF at an address.
    pub fn pf(&self, address: Bdf) -> Option<&'a PhysicalFunction> {
        self.pfs.get(&address).copied()
    }

    /// Obstacles that keep a PF from giving VFs.
    pub fn obstacles(&self, pf: Bdf) -> &[checks::Obstacle] {
        self.obstacles.get(&pf).map_or(&[], Vec::as_slice)
    }

    /// The VF of an owner that all VFs of its adapter leave.
    pub fn moving(&self, owner: &Owner) -> Option<&'a Assignment> {
        self.assignment(owner).filter(|held| Some(held.vf.pf) == self.leaving)
    }

    /// Whether all VFs leave some adapter.
    pub fn is_evacuated(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether an adapter is out of service once the plan is carried out.
    pub fn is_out(&self, pf: Bdf) -> bool {
        self.out.contains(&pf)
    }

    /// The VF that an owner is to hold.
    pub fn held_by(&self, owner: &Owner) -> Option<VfId> {
        let stays = || self.assignment(owner).filter(|_| !self.concerned.contains(&owner.partition));
        self.held.get(owner).copied().or_else(|| stays().map(|held| held.vf))
    }

    /// The VFs that a VF of this owner is to be apart from.
    pub fn ties(&self, owner: &Owner) -> &[Tie] {
        self.ties.get(owner).map_or(&[], Vec::as_slice)
    }

    /// Whether two PFs have a failure domain in common.
    pub fn share(&self, by: FailureDomain, a: Bdf, b: Bdf) -> bool {
        let Some((a, b)) = self.pf(a).zip(self.pf(b)) else { return a == b };
        a.address == b.address
            || match by {
                FailureDomain::Port => false,
                FailureDomain::Adapter => a.is_same_adapter(b),
                FailureDomain::NumaNode => a.numa_node.is_some() && a.numa_node == b.numa_node,
            }
    }

    /// Bandwidth of this PF that is guaranteed to others than this owner, Mbit/s.
    pub fn guaranteed(&self, pf: Bdf, but: Option<&Owner>) -> u32 {
        let decided = self.decided_on(pf, but).map(|holder| holder.guaranteed);
        decided.chain(self.now.staying_on(pf).map(Held::guaranteed)).fold(0, u32::saturating_add)
    }

    /// MSI-X vectors of this PF that others than this owner have asked for.
    pub fn vectors(&self, pf: Bdf, but: Option<&Owner>) -> u32 {
        let asked = |held: &Held<'a>| {
            let request = self.state.partitions.get(held.partition)?.spec.vf(held.name)?;
            request.min_msix_vectors
        };
        let decided = self.decided_on(pf, but).map(|holder| holder.vectors);
        let all = decided.chain(self.now.staying_on(pf).filter_map(asked));
        all.fold(0, |sum, vectors| sum.saturating_add(vectors.into()))
    }

    /// Decisions on this PF's VFs, for others than this owner.
    fn decided_on(&self, pf: Bdf, but: Option<&Owner>) -> impl Iterator<Item = &Holder> {
        let holders = self.holders.range(all_of(pf)).map(|(_, holder)| holder);
        holders.filter(move |holder| Some(&holder.owner) != but)
    }

    /// The future holder of a VF.
    pub fn holder(&self, vf: VfId) -> Option<Owner> {
        let decided = self.holders.get(&vf).map(|holder| holder.owner.clone());
        decided.or_else(|| self.now.holder(vf).filter(|held| held.stays).map(Held::owner))
    }

    /// Whether somebody is to hold a VF.
    pub fn is_held(&self, vf: VfId) -> bool {
        self.holders.contains_key(&vf) || self.now.holder(vf).is_some_and(|held| held.stays)
    }

    /// The future holders of this PF's VFs, by index.
    pub fn holders_on(&self, pf: Bdf) -> BTreeMap<VfId, Owner> {
        let decided = self.holders.range(all_of(pf)).map(|(vf, holder)| (*vf, holder.owner.clone()));
        self.now.staying_on(pf).map(|held| (held.vf, held.owner())).chain(decided).into_map()
    }

    /// The present assignment of an owner's VF.
    pub fn assignment(&self, owner: &Owner) -> Option<&'a Assignment> {
        self.state.partitions.get(&owner.partition)?.vfs.get(&owner.vf)
    }

    /// The standby of an owner's VF on a bridge.
    pub fn standby(&self, owner: &Owner) -> Option<&'a StandbyNic> {
        self.state.partitions.get(&owner.partition)?.standbys.get(&owner.vf)
    }

    /// Whether a partition runs now.
    pub fn runs(&self, owner: &Owner) -> bool {
        self.state.partitions.get(&owner.partition).is_some_and(|partition| partition.running)
    }

    /// What a partition is, or is to be.
    pub fn kind(&self, partition: &Name) -> KindName {
        self.kinds.get(partition).copied().unwrap_or_default()
    }

    /// The driver that a VF is bound to for a partition; `None`: none is known.
    pub fn driver(&self, partition: &Name, vf: VfId) -> Option<&'static str> {
        drivers::of_vf(self.kind(partition), self.pf(vf.pf)?)
    }

    /// Whether a VF is bound as a partition has it.
    pub fn is_ready(&self, partition: &Name, vf: VfId, present: &VirtualFunction) -> bool {
        let pf = self.pf(vf.pf);
        pf.is_some_and(|pf| drivers::is_ready(self.kind(partition), pf, present))
    }

    /// The VF, when it exists now.
    pub fn existing(&self, vf: VfId) -> Option<&'a VirtualFunction> {
        self.pf(vf.pf)?.virtual_function(vf.index)
    }

    /// The number of VFs that a person asked this PF to give; `None`: as many as are assigned.
    pub fn count_asked(&self, pf: Bdf) -> Option<u16> {
        self.counts.get(&pf).copied()
    }

    /// The number of VFs that a person asked this PF to give beyond those that are assigned.
    pub fn spare(&self, pf: Bdf) -> Option<u16> {
        self.spare.get(&pf).copied()
    }

    /// VFs that this PF may come to give: what was asked for, or as many as there can be.
    pub fn limit(&self, pf: &PhysicalFunction) -> u16 {
        let most = checks::most_vfs(pf);
        self.count_asked(pf.address).unwrap_or(most).min(most)
    }

    /// Whether the Spec at hand sets this PF's number of VFs.
    pub fn is_named(&self, pf: Bdf) -> bool {
        self.named.contains(&pf)
    }

    /// Whether placing a VF with this index means that the PF's number of VFs changes for its sake alone.
    pub fn would_grow(&self, pf: &PhysicalFunction, index: u16) -> bool {
        index >= pf.num_vfs() && !self.is_named(pf.address)
    }

    /// Use of a VF by somebody else: by the host, or by a guest that ioward does not know.
    pub fn foreign_use(&self, pf: &PhysicalFunction, vf: &VirtualFunction) -> Option<String> {
        if let Some(foreign) = vf.foreign_use() {
            return Some(foreign);
        }
        let ours = self.now.holder(VfId { pf: pf.address, index: vf.index }).is_some();
        if ours { None } else { lent_by_others(vf) }
    }

    /// The same of a VF that a namespace does not keep. Whoever has bound it for a guest has it then.
    fn left_to_others(&self, pf: &PhysicalFunction, vf: &VirtualFunction) -> Option<String> {
        let held = self.now.holder(VfId { pf: pf.address, index: vf.index }).filter(|held| !held.stays)?;
        if self.kind(&held.owner().partition).uses_vfio() { None } else { lent_by_others(vf) }
    }

    /// Who loses a VF when this PF's number of VFs goes through zero: running partitions that keep theirs, and the host
    /// where it uses one or lends it to somebody ioward does not know.
    pub fn losers(&self, pf: &PhysicalFunction) -> Vec<Loser> {
        self.each_loser(pf).collect()
    }

    /// Whether there are any.
    pub fn has_losers(&self, pf: &PhysicalFunction) -> bool {
        self.each_loser(pf).next().is_some()
    }

    fn each_loser(&self, pf: &PhysicalFunction) -> impl Iterator<Item = Loser> {
        let loser = |vf: &VirtualFunction| {
            let id = VfId { pf: pf.address, index: vf.index };
            if let Some(holder) = vf.holder.as_ref().filter(|holder| holder.is_somebody()) {
                return Some(Loser { who: holder.to_string(), what: id.to_string(), address: vf.address });
            }
            if let Some(what) = self.foreign_use(pf, vf).or_else(|| self.left_to_others(pf, vf)) {
                return Some(Loser {
                    who: "host".into(),
                    what: format!("{id} ({what})"),
                    address: vf.address,
                });
            }
            let owner = self.holder(id).filter(|owner| self.runs(owner))?;
            self.assignment(&owner).filter(|held| held.attached && held.vf == id)?;
            Some(Loser { who: owner.partition.to_string(), what: owner.vf.to_string(), address: vf.address })
        };
        pf.virtual_functions.iter().filter_map(loser)
    }

    /// Flexible queue and interrupt resources that a VF of this PF could get: all, less those of other VFs, but for
    /// VFs that are given back.
    pub fn nvme_left(&self, pf: &PhysicalFunction, resources: &NvmeResources, index: u16) -> (u16, u16) {
        let id = |index| VfId { pf: pf.address, index };
        let holders = self.holders.range(all_of(pf.address)).filter(|(vf, _)| vf.index != index);
        let stay = self.now.staying_on(pf.address).filter(|held| held.vf.index != index);
        let ours = holders.filter_map(|(_, holder)| holder.nvme).chain(stay.filter_map(Held::nvme));
        let is_ours = |vf| self.holders.get(&vf).is_some_and(|holder| holder.nvme.is_some());
        let secondaries = pf.nvme.iter().flat_map(|nvme| &nvme.secondaries);
        let others = secondaries
            .filter(|vf| {
                vf.index != index && !is_ours(id(vf.index)) && self.now.holder(id(vf.index)).is_none()
            })
            .map(|vf| (vf.queues, vf.interrupts));
        let left = |total: u32, used: u32| u16::try_from(total.saturating_sub(used)).unwrap_or(u16::MAX);
        let (queues, interrupts) = ours.chain(others).fold((0_u32, 0_u32), |(queues, interrupts), (q, i)| {
            (queues.saturating_add(q.into()), interrupts.saturating_add(i.into()))
        });
        (left(resources.queues_total, queues), left(resources.interrupts_total, interrupts))
    }
}

/// Pairs of VFs that are to be apart and of which the goal decides on one at least: as the goal asks for, and as others have.
fn ties(state: &State, goal: &Goal, now: &Survey<'_>) -> BTreeMap<Owner, Vec<Tie>> {
    let mut ties: BTreeMap<Owner, Vec<Tie>> = BTreeMap::new();
    let mut add = |partition: &PartitionSpec, vf: &VfRequest, apart: &Apart| {
        let owner = Owner { partition: partition.name.clone(), vf: vf.name.clone() };
        let other = apart.vf.owner(&partition.name);
        for (one, other) in [(&owner, &other), (&other, &owner)] {
            let tie = Tie { other: other.clone(), by: apart.by, prefer: apart.prefer };
            ties.entry(one.clone()).or_default().push(tie);
        }
    };
    for partition in goal.partitions.iter().map(|partition| &partition.spec) {
        for vf in &partition.vfs {
            vf.aparts().for_each(|apart| add(partition, vf, &apart));
        }
    }
    for partition in now.tied.iter().filter_map(|name| state.partitions.get(*name)) {
        for vf in &partition.spec.vfs {
            let about =
                |apart: &Apart| matches!(&apart.vf, VfRef::Of(other) if goal.concerns(&other.partition));
            vf.aparts().filter(about).for_each(|apart| add(&partition.spec, vf, &apart));
        }
    }
    ties
}

/// Obstacles of a PF, whether it is in service or not as it is to be then.
fn obstacles(inventory: &Inventory, pf: &PhysicalFunction, goal: &Goal) -> Vec<checks::Obstacle> {
    let mut all = checks::adapter(inventory, pf);
    if goal.returns.as_ref().is_some_and(|(returns, _)| *returns == pf.address) {
        all.retain(|obstacle| obstacle.reason.rule != Rule::InService);
    }
    let leaves = goal.evacuation.as_ref().filter(|evacuation| evacuation.pf == pf.address);
    if leaves.is_some() && pf.out_of_service.is_none() {
        let required = "an adapter that stays in service";
        let reason = Reason::new(Rule::InService, required, "it is to be taken out of service");
        all.push(checks::Obstacle { blocks: checks::Blocks::Both, reason: reason.on(pf.address) });
    }
    all
}

/// Whether a VF is bound for a guest, by whoever is not ioward.
fn lent_by_others(vf: &VirtualFunction) -> Option<String> {
    let driver = vf.driver.as_deref().filter(|_| vf.is_lent())?;
    let by_nobody = if vf.holder == Some(ioward_model::Holder::Nobody) { "; nobody has it open" } else { "" };
    Some(format!("it is bound to {driver}, and not by ioward{by_nobody}"))
}

fn all_of(pf: Bdf) -> RangeInclusive<VfId> {
    VfId { pf, index: 0 }..=VfId { pf, index: u16::MAX }
}
