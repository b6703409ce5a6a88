//! Plans that make a host as it is noted again: from differences to steps, and a check of such a plan that shares nothing with
//! how it was made.
//!
//! Each step finds out by itself what is so already, and none of them leads away from what is noted: a plan that is cut off
//! leaves nothing but work for the next one.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    Assignment, Difference, Drift, Intent, IntoMap, Inventory, KindName, Name, Owner, PhysicalFunction, Plan,
    StandbyNic, State, Step, VfId,
};
use ioward_pci::Bdf;

use crate::drivers::{self, VFIO};

/// The parts of an [`Intent::Reconcile`], and what they are about.
#[derive(Clone, Copy)]
pub(crate) struct Repairs<'a> {
    inventory: &'a Inventory,
    state: &'a State,
    drifts: &'a [Drift],
    start: &'a [Name],
    running: &'a [Name],
}

impl<'a> Repairs<'a> {
    /// `None` for an intent of another kind.
    pub(crate) fn of(inventory: &'a Inventory, state: &'a State, intent: &'a Intent) -> Option<Self> {
        match intent {
            Intent::Reconcile { drifts, start, running } => {
                Some(Self { inventory, state, drifts, start, running })
            }
            _ => None,
        }
    }

    /// The steps that repair what may be repaired, and start what is to be started.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        let (made, missing) = (self.made(), self.missing());
        for drift in self.repairable() {
            match &drift.what {
                Difference::VfCount { pf, noted, found } => steps.extend(self.make_vfs(*pf, *noted, *found)),
                Difference::Settings { vf, noted, .. } if !made.contains_key(&vf.pf) => {
                    steps.push(Step::ConfigureVf { vf: *vf, to: noted.clone() });
                }
                Difference::Driver { vf, noted, .. } if !made.contains_key(&vf.pf) => {
                    steps.push(Step::BindDriver { vf: *vf, to: Some(noted.clone()) });
                }
                Difference::ChannelMissing { partition } => {
                    steps.push(Step::CreateChannel { partition: partition.clone() });
                }
                // Below, with all others of its adapter or partition; nothing can be done about an adapter.
                Difference::Settings { .. }
                | Difference::Driver { .. }
                | Difference::NotAttached { .. }
                | Difference::StillAttached { .. }
                | Difference::StandbyMissing { .. }
                | Difference::PartitionMissing { .. }
                | Difference::AdapterMissing { .. } => {}
            }
        }
        for (owner, held) in self.attached().filter(|(_, held)| made.contains_key(&held.vf.pf)) {
            let (vf, to) = (held.vf, held.settings_now(self.is_still_in(held)));
            steps.extend((!to.is_empty()).then_some(Step::ConfigureVf { vf, to }));
            let driver = self.pf(vf.pf).and_then(|pf| drivers::of_vf(self.kind(&owner.partition), pf));
            let driver = driver.filter(|_| held.original_driver.is_some());
            steps.extend(driver.map(|driver| Step::BindDriver { vf, to: Some(driver.to_owned()) }));
        }
        for name in &missing {
            let Some(partition) = self.state.partitions.get(*name) else { continue };
            steps.push(Step::DefinePartition { to: partition.spec.clone(), from: None });
            if partition.channel {
                steps.push(Step::CreateChannel { partition: (*name).clone() });
            }
        }
        steps.extend(self.standbys(&missing));
        for (owner, held) in self.attached() {
            let vf = held.vf;
            if held.is_unplugged() {
                if self.is_still_in(held) {
                    steps.push(Step::DetachVf { owner, vf, force: false });
                    let to = held.settings_now(false).missing_from(&held.settings_now(true));
                    let answers = self.pf(vf.pf).is_some_and(|pf| !pf.service.is_frozen());
                    steps.extend((answers && self.exists(vf)).then_some(Step::ConfigureVf { vf, to }));
                }
                continue;
            }
            let elsewhere = self.repairable().find_map(|drift| match drift.what {
                Difference::NotAttached { vf: at, found } if at == vf => Some(found),
                _ => None,
            });
            if let Some(Some(_)) = elsewhere {
                steps.push(Step::DetachVf { owner: owner.clone(), vf, force: false });
            }
            // One that is not there yet is attached once it is.
            let lacks = missing.contains(&owner.partition) && self.exists(vf);
            // After a fault, partitions are as they were: those that have lost it show that once it is there again.
            let is_recovering = self.pf(vf.pf).is_some_and(|pf| !pf.service.is_serving());
            let is_made =
                made.contains_key(&vf.pf) && !is_recovering && !self.takes_nothing(&owner.partition);
            if elsewhere.is_some() || lacks || is_made {
                steps.push(Step::AttachVf { owner, vf });
            }
        }
        steps
            .extend(self.start.iter().map(|partition| Step::StartPartition { partition: partition.clone() }));
        steps
    }

    /// Whether a VF whose standby is active is in its machine.
    fn is_still_in(&self, held: &Assignment) -> bool {
        self.repairable().any(|drift| drift.what == Difference::StillAttached { vf: held.vf })
    }

    /// Standbys that are missing, and those of partitions that are.
    fn standbys(&self, missing: &BTreeSet<&Name>) -> Vec<Step> {
        let is_missing = |owner: &Owner| {
            missing.contains(&owner.partition)
                || self
                    .repairable()
                    .any(|drift| drift.what == Difference::StandbyMissing { owner: owner.clone() })
        };
        let noted = self.state.partitions.iter().flat_map(|(name, noted)| {
            let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
            noted.standbys.iter().map(move |(vf, nic)| (owner(vf), nic.clone()))
        });
        let gone = noted.filter(|(owner, _)| is_missing(owner));
        gone.map(|(owner, nic)| Step::AttachStandby { owner, nic }).collect()
    }

    fn standby(&self, owner: &Owner) -> Option<&'a StandbyNic> {
        self.state.partitions.get(&owner.partition)?.standbys.get(&owner.vf)
    }

    fn make_vfs(&self, pf: Bdf, noted: u16, found: u16) -> Vec<Step> {
        let mut steps = Vec::new();
        if found > 0 {
            steps.push(Step::SetVfCount { pf, to: 0, from: found });
        }
        // VFs must not fall to host drivers as they appear. Without the attribute there is nothing to set.
        if self.pf(pf).and_then(|pf| pf.drivers_autoprobe) == Some(true) {
            steps.push(Step::SetAutoprobe { pf, to: false, from: true });
        }
        steps.push(Step::SetVfCount { pf, to: noted, from: 0 });
        steps
    }

    fn repairable(&self) -> impl Iterator<Item = &'a Drift> {
        self.drifts.iter().filter(|drift| drift.left_because.is_none())
    }

    /// Adapters whose VFs are made, with how many they are then.
    fn made(&self) -> BTreeMap<Bdf, u16> {
        let count = |drift: &Drift| match drift.what {
            Difference::VfCount { pf, noted, .. } => Some((pf, noted)),
            _ => None,
        };
        self.repairable().filter_map(count).into_map()
    }

    /// Partitions that are defined.
    fn missing(&self) -> BTreeSet<&'a Name> {
        let partition = |drift: &'a Drift| match &drift.what {
            Difference::PartitionMissing { partition } => Some(partition),
            _ => None,
        };
        self.repairable().filter_map(partition).collect()
    }

    /// VFs that are in their partitions' hands.
    fn attached(&self) -> impl Iterator<Item = (Owner, &'a Assignment)> {
        self.state.assignments().filter(|(_, held)| held.is_handed_over())
    }

    fn pf(&self, pf: Bdf) -> Option<&'a PhysicalFunction> {
        self.inventory.physical_function(pf).filter(|pf| pf.sriov.is_some())
    }

    fn exists(&self, vf: VfId) -> bool {
        self.pf(vf.pf).is_some_and(|pf| pf.virtual_function(vf.index).is_some())
    }

    fn runs(&self, partition: &Name) -> bool {
        self.running.contains(partition)
    }

    fn kind(&self, partition: &Name) -> KindName {
        self.state.partitions.get(partition).map_or(KindName::Machine, |noted| noted.spec.kind.name())
    }

    /// Whether a partition runs and is given nothing by a repair. A domain that libvirt has started with the host gets what was not there
    /// then, and a namespace takes an interface at any time.
    fn takes_nothing(&self, partition: &Name) -> bool {
        self.runs(partition) && self.kind(partition) == KindName::Machine
    }

    /// Whether a partition runs and loses nothing by a repair.
    fn keeps_vfs(&self, partition: &Name) -> bool {
        self.runs(partition) && self.kind(partition).uses_vfio()
    }
}

/// Everything that is wrong with a plan of this kind: steps that lead away from what is noted, take something from a partition
/// that runs, or touch what is nobody's. Empty for a plan of another kind.
pub(crate) fn check(plan: &Plan, inventory: &Inventory, state: &State) -> Vec<String> {
    let Some(repairs) = Repairs::of(inventory, state, &plan.intent) else { return Vec::new() };
    let mut check =
        Check { repairs, made: BTreeSet::new(), autoprobe: BTreeMap::new(), ready: BTreeSet::new() };
    let mut problems = Vec::new();
    for (n, step) in plan.steps.iter().enumerate() {
        if let Err(problem) = check.step(step) {
            problems.push(format!("step {} ({step}): {problem}", n + 1));
        }
    }
    if plan.id != plan.parent {
        problems.push("it would make other plans stale".to_owned());
    }
    problems
}

struct Check<'a> {
    repairs: Repairs<'a>,
    /// Adapters whose VFs have been made.
    made: BTreeSet<Bdf>,
    /// As it was set.
    autoprobe: BTreeMap<Bdf, bool>,
    /// Partitions that have been started: nothing about them comes later.
    ready: BTreeSet<Name>,
}

impl Check<'_> {
    fn step(&mut self, step: &Step) -> Result<(), String> {
        let Repairs { state, start, .. } = self.repairs;
        let subject = step.subject();
        if subject.partition.is_some_and(|partition| self.ready.contains(partition)) {
            return Err("its partition has been started already".to_owned());
        }
        match step {
            Step::SetVfCount { pf, to, from } => self.count(*pf, *from, *to),
            Step::SetAutoprobe { pf, to, .. } => {
                self.autoprobe.insert(*pf, *to);
                must(!to && self.repairs.made().contains_key(pf), "no VFs of it are made")
            }
            Step::ConfigureVf { vf, to } => {
                let (_, held) = self.held(*vf)?;
                let is_noted = |is_in| to.missing_from(&held.settings_now(is_in)).is_empty();
                must(is_noted(true) || is_noted(false), "it is to be set otherwise")
            }
            Step::BindDriver { vf, to } => {
                let (owner, _) = self.held(*vf)?;
                let is_of_kind = match self.repairs.kind(&owner.partition) {
                    KindName::Machine | KindName::Domain => to.as_deref() == Some(VFIO),
                    KindName::Namespace => to.as_ref().is_some_and(|driver| driver != VFIO),
                };
                must(is_of_kind, "its partition has its VFs by another driver")?;
                // A VF that has just been made is nobody's yet.
                let runs = self.repairs.keeps_vfs(&owner.partition);
                must(self.made.contains(&vf.pf) || !runs, "its partition runs")
            }
            Step::AttachVf { owner, vf } | Step::DetachVf { owner, vf, .. } => {
                let is_given = matches!(step, Step::AttachVf { .. });
                let (noted, held) = if is_given { self.held(*vf)? } else { self.in_hand(*vf)? };
                must(noted == *owner, "it is another's")?;
                must(!is_given || !held.is_unplugged(), "its standby is active")?;
                let is_kept = if is_given {
                    self.repairs.takes_nothing(&owner.partition) && self.repairs.standby(owner).is_none()
                } else {
                    self.repairs.keeps_vfs(&owner.partition) && !held.is_unplugged()
                };
                must(!is_kept, "its partition runs")
            }
            Step::AttachStandby { owner, nic } => {
                must(self.repairs.standby(owner) == Some(nic), "it is to have none")?;
                let mut held = self.repairs.attached().filter(|(held, _)| held == owner);
                let is_in = held.any(|(_, held)| !held.is_unplugged());
                must(!(is_in && self.repairs.runs(&owner.partition)), "its partition runs")
            }
            Step::DefinePartition { to, .. } => {
                let noted = state.partitions.get(&to.name).map(|partition| &partition.spec);
                must(noted == Some(to), "it is noted otherwise")
            }
            Step::CreateChannel { partition } => {
                must(state.partitions.get(partition).is_some_and(|noted| noted.channel), "it is to have none")
            }
            Step::StartPartition { partition } => {
                self.ready.insert(partition.clone());
                let autostart = state.partitions.get(partition).is_some_and(|noted| noted.spec.autostart());
                must(autostart && start.contains(partition), "nobody wants it to start")
            }
            Step::HoldAdapter { .. }
            | Step::ReleaseAdapter { .. }
            | Step::Assign { .. }
            | Step::Unassign { .. }
            | Step::ResetVf { .. }
            | Step::AdoptVf { .. }
            | Step::ReleaseVf { .. }
            | Step::UndefinePartition { .. }
            | Step::DestroyChannel { .. }
            | Step::TakeOutOfService { .. }
            | Step::ReturnToService { .. }
            | Step::SwitchOver { .. }
            | Step::DetachStandby { .. }
            | Step::StopPartition { .. } => Err("this repairs nothing".to_owned()),
        }
    }

    fn count(&mut self, address: Bdf, from: u16, to: u16) -> Result<(), String> {
        let Repairs { state, .. } = self.repairs;
        let pf = self.repairs.pf(address).ok_or("there is no such adapter")?;
        if to == 0 {
            let is_used = pf.virtual_functions.iter().any(|vf| vf.foreign_use().is_some());
            must(!is_used, "somebody else uses VFs that would go")?;
            let loses = self.repairs.attached().find(|(owner, held)| {
                held.vf.pf == address && held.vf.index < from && self.repairs.runs(&owner.partition)
            });
            return loses.map_or(Ok(()), |(owner, _)| Err(format!("{owner} would lose its VF, and runs")));
        }
        self.made.insert(address);
        let autoprobe = self.autoprobe.get(&address).copied().or(pf.drivers_autoprobe);
        must(autoprobe != Some(true), "drivers would take the VFs")?;
        must(from == 0, "it does not go through zero")?;
        must(to == state.fewest_vfs(address, pf.total_vfs()), "another number of VFs is noted")
    }

    /// The assignment of a VF that is there, or has been made.
    fn held(&self, vf: VfId) -> Result<(Owner, &Assignment), String> {
        must(self.made.contains(&vf.pf) || self.repairs.exists(vf), "it is not there")?;
        self.in_hand(vf)
    }

    fn in_hand(&self, vf: VfId) -> Result<(Owner, &Assignment), String> {
        let held = self.repairs.attached().find(|(_, held)| held.vf == vf);
        held.ok_or_else(|| "it is in nobody's hands".to_owned())
    }
}

fn must(holds: bool, problem: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem.to_owned()) }
}
