//! Drift: the differences between a host and the state. [`crate::plan`] makes steps of those that may be repaired
//! (`reconcile.rs`).
//!
//! Whatever ioward does not own appears nowhere here: adapters it does not hold, VFs that are nobody's, settings it has not made.

use std::collections::BTreeSet;

use ioward_model::{
    Assignment, Class, Difference, Drift, Identity, Inventory, KindName, Name, Owner, PartitionStatus,
    PhysicalFunction, Place, Reason, Rule, State, VfId, VirtualFunction, Whereabouts,
};
use ioward_pci::Bdf;

use crate::drivers;

/// A host, and the state that it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// The PCI side of the host.
    pub inventory: &'a Inventory,
    /// The state as noted.
    pub state: &'a State,
    /// All that the hypervisor knows.
    pub machines: &'a [PartitionStatus],
    /// The host has booted since it was last as the state says: whatever is missing has gone by that.
    pub booted: bool,
}

impl Comparison<'_> {
    /// All differences: adapters first, then VFs, then partitions.
    #[must_use]
    pub fn differences(&self) -> Vec<Drift> {
        let pfs: BTreeSet<Bdf> = self
            .state
            .adapters
            .keys()
            .copied()
            .chain(self.state.assignments().map(|(_, a)| a.vf.pf))
            .collect();
        let mut all: Vec<_> =
            pfs.into_iter().filter(|pf| !self.is_frozen(*pf)).filter_map(|pf| self.adapter(pf)).collect();
        for (owner, assignment) in self.attached() {
            all.extend(self.vf(&owner, assignment));
        }
        for (name, noted) in &self.state.partitions {
            let what = match self.machine(name) {
                None => Difference::PartitionMissing { partition: name.clone() },
                Some(machine) if noted.channel && !machine.channel => {
                    Difference::ChannelMissing { partition: name.clone() }
                }
                Some(_) => continue,
            };
            all.push(Drift { what, breaks: Vec::new(), left_because: None });
        }
        all.extend(self.standbys());
        for (owner, assignment) in self.attached() {
            all.extend(self.attachment(&owner, assignment));
        }
        all
    }

    /// VFs that are in their partitions' hands. Of others a plan has left the way there or back unfinished: the next plan
    /// sees to them.
    fn attached(&self) -> impl Iterator<Item = (Owner, &Assignment)> {
        self.state.assignments().filter(|(_, assignment)| assignment.is_handed_over())
    }

    /// An adapter that can be touched.
    fn pf(&self, pf: Bdf) -> Option<&PhysicalFunction> {
        self.inventory.physical_function(pf).filter(|pf| pf.sriov.is_some() && !pf.service.is_frozen())
    }

    /// What a frozen adapter shows is its fault, and no drift.
    fn is_frozen(&self, pf: Bdf) -> bool {
        self.inventory.physical_function(pf).is_some_and(|pf| pf.service.is_frozen())
    }

    fn existing(&self, vf: VfId) -> Option<&VirtualFunction> {
        self.pf(vf.pf)?.virtual_function(vf.index)
    }

    fn machine(&self, partition: &Name) -> Option<&PartitionStatus> {
        self.machines.iter().find(|machine| machine.name == *partition)
    }

    /// What a partition is.
    fn kind(&self, partition: &Name) -> KindName {
        self.state.partitions.get(partition).map_or(KindName::Machine, |noted| noted.spec.kind.name())
    }

    /// Whether a partition has some function for this VF of its.
    fn has(&self, owner: &Owner) -> bool {
        let machine = self.machine(&owner.partition);
        machine.is_some_and(|machine| {
            machine.vfs.iter().any(|(vf, _)| *vf == owner.vf) && !machine.lacks.contains(&owner.vf)
        })
    }

    fn runs(&self, partition: &Name) -> bool {
        self.machine(partition).is_some_and(|machine| machine.running)
    }

    fn adapter(&self, address: Bdf) -> Option<Drift> {
        let lost = || {
            let lost = self.attached().filter(|(_, a)| a.vf.pf == address && self.existing(a.vf).is_none());
            lost.map(|(owner, _)| owner).collect()
        };
        let Some(pf) = self.pf(address) else {
            return Some(self.missing(address, lost()));
        };
        // While a VF's guest does not let go of it, the kernel keeps NumVFs as it was, and the VF is lost all the same.
        let there = u16::try_from(pf.virtual_functions.len()).unwrap_or(u16::MAX);
        let (noted, found) = (self.state.fewest_vfs(address, pf.total_vfs()), pf.num_vfs().min(there));
        if found >= noted {
            return None;
        }
        let what = Difference::VfCount { pf: address, noted, found };
        // Its VFs go with its fault as they do with a boot.
        let is_recovering = !pf.service.is_serving();
        let left_because = if !self.booted && !is_recovering {
            Some("somebody has changed it; 'ioward apply' makes them again".to_owned())
        } else {
            self.in_the_way(pf)
        };
        Some(Drift { what, breaks: lost(), left_because })
    }

    /// Why the VFs that a PF has can't go and come again.
    fn in_the_way(&self, pf: &PhysicalFunction) -> Option<String> {
        if let Some((vf, foreign)) = pf.virtual_functions.iter().find_map(|vf| Some((vf, vf.foreign_use()?)))
        {
            return Some(format!("{} of it would go meanwhile: {foreign}", vf.address));
        }
        let is_in_hand = |(owner, held): &(Owner, &Assignment)| {
            held.vf.pf == pf.address && self.existing(held.vf).is_some() && self.runs(&owner.partition)
        };
        let (owner, _) = self.attached().find(is_in_hand)?;
        Some(format!("{} runs with a VF of it, which would go meanwhile; stop it first", owner.partition))
    }

    fn missing(&self, address: Bdf, breaks: Vec<Owner>) -> Drift {
        let whereabouts = Whereabouts::of(self.state, self.inventory, self.booted);
        let another = self.inventory.physical_function(address).filter(|pf| {
            let is_another = |reason: &Reason| reason.rule == Rule::AdapterIdentity;
            pf.reasons.iter().any(is_another)
        });
        let why = match whereabouts.place(address) {
            Some(Place::At(to)) if self.runs_with_vfs_of(address) => {
                format!("it is {to} now; stop the partitions that use it, and what is noted of it goes there")
            }
            Some(Place::At(to)) => {
                format!(
                    "it is {to} now, where an adapter is noted that can't be told from others; remove what uses that"
                )
            }
            Some(Place::InDoubt) => {
                "what is there has nothing yet to be known by; its driver is waited for".to_owned()
            }
            _ => "put it back, or remove what uses it".to_owned(),
        };
        let found = another.and_then(Identity::told_by);
        let what = Difference::AdapterMissing { pf: address, found };
        Drift { what, breaks, left_because: Some(why) }
    }

    fn runs_with_vfs_of(&self, pf: Bdf) -> bool {
        self.state.assignments().any(|(owner, held)| held.vf.pf == pf && self.runs(&owner.partition))
    }

    fn vf(&self, owner: &Owner, assignment: &Assignment) -> Vec<Drift> {
        let vf = assignment.vf;
        let Some(present) = self.existing(vf) else { return Vec::new() };
        let runs = self.runs(&owner.partition);
        let mut all = Vec::new();
        let class = self.pf(vf.pf).map_or(Class::Other, |pf| pf.class);
        let noted = assignment.lost_settings(&present.settings, self.has(owner));
        if !noted.is_empty() {
            let found = noted.restored_from(&present.settings);
            let what = Difference::Settings { vf, noted, found };
            let why = "its controller would go offline under a guest that runs";
            let left_because = (runs && class == Class::Nvme).then(|| why.to_owned());
            all.push(Drift { what, breaks: vec![owner.clone()], left_because });
        }
        let kind = self.kind(&owner.partition);
        let noted = self.pf(vf.pf).and_then(|pf| drivers::of_vf(kind, pf));
        if let Some(noted) = noted.filter(|noted| present.driver.as_deref() != Some(noted))
            && assignment.original_driver.is_some()
        {
            let what = Difference::Driver { vf, noted: noted.to_owned(), found: present.driver.clone() };
            // A namespace goes on without an interface, and gets it back; what it has is not bound anew.
            let is_kept = if kind == KindName::Namespace { self.has(owner) } else { runs };
            let left_because = if is_kept {
                Some("its partition runs without it; detach it and attach it again".to_owned())
            } else {
                present.foreign_use().map(|used| format!("somebody else uses it: {used}"))
            };
            all.push(Drift { what, breaks: vec![owner.clone()], left_because });
        }
        all
    }

    /// Standbys that are gone. One comes before its VF.
    fn standbys(&self) -> impl Iterator<Item = Drift> {
        let noted = self.state.partitions.iter().flat_map(|(name, noted)| {
            let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
            noted.standbys.keys().map(move |vf| (owner(vf), noted))
        });
        noted.filter_map(|(owner, noted)| {
            let machine = self.machine(&owner.partition)?;
            if machine.standbys.contains(&owner.vf) {
                return None;
            }
            let is_in = noted.vfs.get(&owner.vf).is_some_and(|held| held.attached && !held.is_unplugged());
            let left_because = (machine.running && is_in).then(|| {
                "its partition runs without it, and a VF comes after its standby; stop it".to_owned()
            });
            let what = Difference::StandbyMissing { owner: owner.clone() };
            Some(Drift { what, breaks: Vec::new(), left_because })
        })
    }

    fn attachment(&self, owner: &Owner, assignment: &Assignment) -> Option<Drift> {
        let machine = self.machine(&owner.partition)?;
        if assignment.is_unplugged() {
            // A look at its adapter is of no use: the guest has to be rid of it, whatever that does.
            machine.vfs.iter().find(|(vf, _)| *vf == owner.vf)?;
            let what = Difference::StillAttached { vf: assignment.vf };
            return Some(Drift { what, breaks: vec![owner.clone()], left_because: None });
        }
        let present = self.existing(assignment.vf)?;
        let found = machine.vfs.iter().find(|(vf, _)| *vf == owner.vf).map(|(_, function)| *function);
        let lacks = machine.lacks.contains(&owner.vf);
        if found == Some(present.address) && !lacks {
            return None;
        }
        let found = found.filter(|found| *found != present.address);
        let what = Difference::NotAttached { vf: assignment.vf, found };
        // A VF with a standby goes and comes under its guest.
        let goes_and_comes = machine.standbys.contains(&owner.vf) && found.is_none();
        let why = match (self.kind(&owner.partition), machine.running) {
            (KindName::Machine, true) if goes_and_comes => None,
            (KindName::Namespace, true) | (KindName::Machine | KindName::Domain, false) => None,
            (KindName::Namespace, false) => Some("its namespace is not there"),
            // Nobody has taken it out: libvirt ended in the middle.
            (KindName::Domain, true) if lacks => None,
            // Nobody has taken it out: it was not there yet when libvirt started its domain.
            (KindName::Domain, true) if self.booted && found.is_none() => None,
            (_, true) => Some("its partition runs without it; detach it and attach it again"),
        };
        let left_because = why.map(str::to_owned);
        Some(Drift { what, breaks: vec![owner.clone()], left_because })
    }
}
