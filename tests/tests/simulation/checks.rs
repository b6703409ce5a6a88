//! The invariants after every action, checked on the machine itself.

use std::collections::{BTreeMap, BTreeSet};

use ioward_fabric::sim::{MachineView, VfView};
use ioward_model::{Assignment, KindName, MacAddress, Name, Owner, State, VfId, VfSettings};
use ioward_pci::Bdf;

use crate::{
    actions::OWN_MAC,
    host::Host,
    hypervisor::{Guest, ModelHypervisor},
    world::{Loose, Wrong},
};

const VFIO: &str = "vfio-pci";

/// The facts, from everyone who knows a part of them.
struct Scene<'a> {
    host: &'a Host,
    view: MachineView,
    guests: BTreeMap<Name, Guest>,
    state: &'a State,
    /// VFs that others have taken out of domains.
    missing: BTreeSet<Owner>,
    /// Partitions that have ended or started while nobody was there to tell it.
    untold: BTreeSet<Name>,
    /// VFs that somebody has who is no partition.
    foreign: BTreeMap<VfId, VfView>,
}

/// Every violation. Partitions in `strictly` have just been reconciled: nothing about them is excused any more.
pub fn look(
    host: &Host,
    hypervisor: &ModelHypervisor,
    state: &State,
    loose: &mut Loose,
    strictly: &BTreeSet<Name>,
) -> Vec<Wrong> {
    let view = host.machine.snapshot();
    let (missing, foreign) = (hypervisor.missing(), host.foreign(&view));
    let (guests, untold) = (hypervisor.guests(), loose.untold.clone());
    let scene = Scene { host, view, guests, state, missing, untold, foreign };
    let mut wrong = host.machine.violations();
    wrong.extend(hypervisor.violations());
    wrong.extend(hypervisor.left_behind());
    wrong.extend(scene.foreign_and_changed());
    wrong.extend(scene.owned_twice());
    wrong.extend(scene.attached_twice());
    wrong.extend(scene.lost());
    wrong.extend(scene.shared_groups());
    wrong.extend(scene.given_out_of_service(loose));
    let mut unsound_pfs = BTreeSet::new();
    for (name, partition) in &state.partitions {
        let excused = loose.partitions.contains(name) && !strictly.contains(name);
        let mut of_partition = scene.unlike_its_machine(name);
        for (vf, held) in &partition.vfs {
            let owner = Owner { partition: name.clone(), vf: vf.clone() };
            let problems = scene.unsound(&owner, held);
            if !problems.is_empty() {
                unsound_pfs.insert(held.vf.pf);
                if strictly.contains(name) || !loose.pfs.contains(&held.vf.pf) {
                    of_partition.extend(problems);
                }
            }
        }
        if of_partition.is_empty() {
            loose.partitions.remove(name);
        } else if !excused {
            wrong.extend(of_partition);
        }
    }
    let unknown: Vec<_> = scene.guests.keys().filter(|name| !state.partitions.contains_key(name)).collect();
    wrong.extend(
        unknown
            .iter()
            .filter(|name| !loose.partitions.contains(**name))
            .map(|name| format!("nobody knows of {name}")),
    );
    loose.partitions.retain(|name| state.partitions.contains_key(name) || scene.guests.contains_key(name));
    wrong.extend(scene.unclean(loose));
    wrong.extend(scene.let_go_and_changed(loose));
    loose.pfs.retain(|pf| unsound_pfs.contains(pf) || !scene.view.physical_functions.contains_key(pf));
    wrong
}

impl Scene<'_> {
    fn vf(&self, vf: VfId) -> Option<&VfView> {
        self.view.physical_functions.get(&vf.pf)?.vfs.get(usize::from(vf.index))
    }

    fn vfs(&self) -> impl Iterator<Item = (VfId, &VfView)> {
        self.view.physical_functions.iter().flat_map(|(pf, function)| {
            (0..).zip(&function.vfs).map(|(index, vf)| (VfId { pf: *pf, index }, vf))
        })
    }

    fn owned_twice(&self) -> Vec<Wrong> {
        let mut owners = BTreeMap::new();
        let mut wrong = Vec::new();
        for (owner, held) in self.state.assignments() {
            if let Some(other) = owners.insert(held.vf, owner.clone()) {
                wrong.push(format!("{} is {other}'s and {owner}'s", held.vf));
            }
        }
        wrong
    }

    fn attached_twice(&self) -> Vec<Wrong> {
        let mut holders = BTreeMap::new();
        let mut wrong = Vec::new();
        for (name, guest) in &self.guests {
            for held in guest.vfs.values().filter(|held| held.open) {
                if let Some(other) = holders.insert(held.function, name) {
                    wrong.push(format!("{} is open in {other} and in {name}", held.function));
                }
            }
        }
        wrong
    }

    /// An open VF is assigned to the partition that has it open, and recorded as attached.
    fn lost(&self) -> Vec<Wrong> {
        let holder = |function: Bdf| {
            let holds = |guest: &Guest| guest.vfs.values().any(|held| held.open && held.function == function);
            self.guests.iter().find(|(_, guest)| holds(guest)).map(|(name, _)| name)
        };
        let mut wrong = Vec::new();
        let used = self.vfs().filter(|(id, vf)| (vf.held || vf.away) && !self.foreign.contains_key(id));
        for (id, vf) in used {
            let owner = self.state.assignments().find(|(_, held)| held.vf == id && held.attached);
            let owner = owner.map(|(owner, _)| owner.partition);
            if owner.as_ref() != holder(vf.address) {
                wrong.push(format!("{id} is open in {:?}, and owned by {owner:?}", holder(vf.address)));
            }
        }
        wrong
    }

    /// Of an adapter that is out of service nobody has a VF who had it not before.
    fn given_out_of_service(&self, loose: &mut Loose) -> Vec<Wrong> {
        let now: BTreeMap<VfId, Owner> =
            self.state.assignments().map(|(owner, held)| (held.vf, owner)).collect();
        let out = now.iter().filter(|(vf, _)| self.state.out_of_service.contains_key(&vf.pf));
        let given = out
            .filter(|(vf, owner)| loose.held.as_ref().is_some_and(|before| before.get(*vf) != Some(*owner)));
        let wrong = given.map(|(vf, owner)| format!("{vf} was given to {owner} while it is out of service"));
        let wrong = wrong.collect();
        loose.held = Some(now);
        wrong
    }

    /// No VF that is attached through VFIO shares its IOMMU group.
    fn shared_groups(&self) -> Vec<Wrong> {
        // One of which nobody knows whether its partition has it is looked for in that.
        let has = |owner: &Owner| {
            self.guests.get(&owner.partition).is_some_and(|guest| guest.vfs.contains_key(&owner.vf))
        };
        let attached = self.state.assignments();
        let attached =
            attached.filter(|(owner, held)| if held.attached_in_doubt { has(owner) } else { held.attached });
        let attached = attached.filter(|(owner, _)| self.kind(owner).uses_vfio());
        let shared = attached.filter(|(_, held)| self.host.pf(held.vf.pf).is_some_and(|pf| pf.shared));
        shared.map(|(owner, held)| format!("{} of {owner} shares its IOMMU group", held.vf)).collect()
    }

    /// What a partition is by its Spec.
    fn kind(&self, owner: &Owner) -> KindName {
        self.state.partitions[&owner.partition].spec.kind.name()
    }

    /// A VF of somebody who is no partition is as it was, to the last reset.
    fn foreign_and_changed(&self) -> Vec<Wrong> {
        let found = self.host.foreign(&self.host.found);
        let changed = found.iter().filter(|(id, was)| self.foreign.get(id) != Some(was));
        changed
            .map(|(id, was)| {
                format!("{id} is somebody else's; it was {was:?} and is {:?}", self.foreign.get(id))
            })
            .collect()
    }

    fn unlike_its_machine(&self, name: &Name) -> Vec<Wrong> {
        let noted = &self.state.partitions[name];
        let Some(guest) = self.guests.get(name) else { return vec![format!("{name} has no machine")] };
        let mut wrong = Vec::new();
        let is_untold = self.untold.contains(name);
        if !is_untold && noted.running != guest.running || noted.channel != guest.channel {
            let (running, channel) = (noted.running, noted.channel);
            wrong.push(format!("{name} is noted as running: {running}, channel: {channel}; it is {guest:?}"));
        }
        if noted.channel == noted.vfs.is_empty() {
            wrong.push(format!("{name} has {} VFs, and channel: {}", noted.vfs.len(), noted.channel));
        }
        let is_missing =
            |vf: &Name| self.missing.contains(&Owner { partition: name.clone(), vf: vf.clone() });
        let attached: BTreeSet<_> = noted
            .vfs
            .iter()
            .filter(|(vf, held)| held.attached && !held.is_unplugged() && !is_missing(vf))
            .map(|(vf, _)| vf)
            .collect();
        if attached != guest.vfs.keys().filter(|vf| !is_missing(vf)).collect() {
            wrong.push(format!("{name} is noted to have {attached:?}; it is {guest:?}"));
        }
        if noted.standbys != guest.standbys {
            wrong.push(format!("{name} is noted with the standbys {:?}; it is {guest:?}", noted.standbys));
        }
        wrong
    }

    /// An assigned VF exists, is bound and configured, and is attached to its partition.
    fn unsound(&self, owner: &Owner, held: &Assignment) -> Vec<Wrong> {
        let vf = held.vf;
        let Some(present) = self.vf(vf) else { return vec![format!("{owner}: {vf} is not there")] };
        let mut wrong = Vec::new();
        let by_vfio = self.kind(owner).uses_vfio();
        let driver = match by_vfio {
            true => Some(VFIO),
            false => self.host.pf(vf.pf).and_then(|pf| pf.driver.as_deref()),
        };
        if driver.is_none() || present.driver.as_deref() != driver {
            wrong.push(format!("{owner}: {vf} is bound to {:?}, and not to {driver:?}", present.driver));
        }
        if !held.is_handed_over() {
            wrong.push(format!("{owner}: {vf} is not attached"));
        }
        let guest = self.guests.get(&owner.partition);
        let in_hand = guest.and_then(|guest| guest.vfs.get(&owner.vf));
        // One whose standby is active is to be in nobody's hand.
        let is_missing = self.missing.contains(owner) || held.is_unplugged() && in_hand.is_none();
        if !is_missing && in_hand.map(|held| held.function) != Some(present.address) {
            wrong.push(format!("{owner}: {vf} is at {}, and the machine has {in_hand:?}", present.address));
        }
        let is_used = guest.is_some_and(|guest| guest.running) && !is_missing;
        if in_hand.is_some_and(|held| held.open) != is_used
            || (is_used && by_vfio, is_used && !by_vfio) != (present.held, present.away)
        {
            let (held, away) = (present.held, present.away);
            wrong.push(format!("{owner}: {vf} is open: {held}, away: {away}, and the machine is {guest:?}"));
        }
        let mut wanted = held.settings_now(in_hand.is_some());
        if present.settings.mac.is_some_and(|mac| mac.bytes()[0] == OWN_MAC) && !held.is_unplugged() {
            // The guest's driver set it, while the VF was trusted.
            wanted.mac = None;
        }
        let missing = wanted.missing_from(&present.settings);
        if !missing.is_empty() {
            wrong.push(format!(
                "{owner}: {vf} should have {:?} and has {:?}",
                missing.describe(),
                present.settings.describe()
            ));
        }
        if !self.state.adapters.contains_key(&vf.pf) {
            wrong.push(format!("{owner}: how {} was found is not noted", vf.pf));
        }
        // A port that tags all frames of a VF confines them to its VLAN, where the same address is another
        // station's.
        let kept = |settings: &VfSettings| settings.vlan.filter(|vlan| vlan.id() != 0);
        let twin = self.vfs().find(|(other, function)| {
            let (here, there) = (kept(&present.settings), kept(&function.settings));
            *other != vf
                && present.settings.mac.is_some_and(MacAddress::is_unicast)
                && self.state.owner(*other).is_some()
                && function.settings.mac == present.settings.mac
                && (here.is_none() || there.is_none() || here == there)
        });
        if let Some((other, _)) = twin {
            wrong.push(format!("{owner}: {vf} and {other} have the MAC {:?}", present.settings.mac));
        }
        wrong
    }

    /// A VF without an owner keeps nothing of its last owner.
    fn unclean(&self, loose: &Loose) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        for (id, vf) in self.vfs() {
            let Some(pf) = self.host.pf(id.pf) else { continue };
            if self.state.owner(id).is_some() || self.foreign.contains_key(&id) {
                continue;
            }
            if vf.held || vf.away || vf.used {
                let (held, away, used) = (vf.held, vf.away, vf.used);
                wrong.push(format!(
                    "{id} is nobody's; open: {held}, away: {away}, holds a guest's state: {used}"
                ));
            }
            if loose.foreign.contains(&id.pf) {
                continue;
            }
            let dirty = vf.settings.missing_from(&pf.fresh);
            if !dirty.is_empty() {
                wrong.push(format!("{id} is nobody's, and has {:?}", dirty.describe()));
            }
            if vf.driver.as_deref() == Some(VFIO) || vf.driver_override.is_some() {
                wrong.push(format!(
                    "{id} is nobody's; bound to {:?}, override {:?}",
                    vf.driver, vf.driver_override
                ));
            }
        }
        wrong
    }

    /// An adapter without a record is as it was found.
    fn let_go_and_changed(&self, loose: &Loose) -> Vec<Wrong> {
        let let_go = self.view.physical_functions.iter();
        let let_go =
            let_go.filter(|(pf, _)| !self.state.adapters.contains_key(pf) && !loose.foreign.contains(pf));
        let mut wrong = Vec::new();
        for (pf, now) in let_go {
            let found = &self.host.found.physical_functions[pf];
            if (now.num_vfs, now.autoprobe) != (found.num_vfs, found.autoprobe) {
                wrong.push(format!("{pf} is not held; {} VFs, autoprobe {}", now.num_vfs, now.autoprobe));
            }
            let drivers = |pf: &ioward_fabric::sim::PfView| {
                pf.vfs.iter().map(|vf| vf.driver.clone()).collect::<Vec<_>>()
            };
            if drivers(now) != drivers(found) {
                wrong.push(format!(
                    "{pf} is not held; drivers {:?}, were {:?}",
                    drivers(now),
                    drivers(found)
                ));
            }
        }
        wrong
    }
}

/// The differences between two views, except for resets and what a guest leaves.
pub fn differences(before: &MachineView, now: &MachineView) -> Vec<Wrong> {
    let mut differs = Vec::new();
    let pfs = before.physical_functions.keys().chain(now.physical_functions.keys()).collect::<BTreeSet<_>>();
    for pf in pfs {
        let (Some(one), Some(other)) = (before.physical_functions.get(pf), now.physical_functions.get(pf))
        else {
            differs.push(format!("{pf} is gone, or new"));
            continue;
        };
        if (one.num_vfs, one.autoprobe, one.stuck) != (other.num_vfs, other.autoprobe, other.stuck) {
            let tell = |pf: &ioward_fabric::sim::PfView| {
                format!("{} VFs, autoprobe {}, stuck {}", pf.num_vfs, pf.autoprobe, pf.stuck)
            };
            differs.push(format!("{pf} had {} and has {}", tell(one), tell(other)));
        }
        for (was, is) in one.vfs.iter().zip(&other.vfs) {
            let plain = |vf: &VfView| VfView { resets: 0, used: false, ..vf.clone() };
            if plain(was) != plain(is) {
                differs.push(format!("{was:?} is {is:?}"));
            }
        }
    }
    differs
}

/// What a plan was to make certain may be so once it is undone: nobody takes from a partition what it may have had before. `before` without
/// the doubts that are not there `now`.
pub fn without_settled_doubts(before: &State, now: &State) -> State {
    let mut before = before.clone();
    for (name, partition) in &mut before.partitions {
        let Some(now) = now.partitions.get(name) else { continue };
        partition.channel_in_doubt &= now.channel_in_doubt;
        for (vf, held) in &mut partition.vfs {
            held.attached_in_doubt &= now.vfs.get(vf).is_some_and(|now| now.attached_in_doubt);
        }
    }
    before
}

/// The part of the state that a rollback must restore: learned addresses may remain.
pub fn essence(state: &State) -> State {
    let mut state = state.clone();
    for held in state.partitions.values_mut().flat_map(|partition| partition.vfs.values_mut()) {
        held.address = None;
    }
    state
}
