//! Where the adapters are that ioward has noted: at their addresses, at others, or nowhere. Pure.
//!
//! ```text
//!   noted     0000:01:00.0 is A     0000:02:00.0 is B      0000:03:00.0 is C
//!   found     0000:01:00.0 is X     0000:02:00.0 is A      0000:03:00.0 is B
//!             A is at 02, B at 03, and C is nowhere: what is to be noted is
//!             0000:02:00.0 is A     0000:03:00.0 is B      0000:01:00.0 is C, which is missing
//!             and X is nobody's, and not touched as long as C is noted where it is
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ioward_pci::Bdf;

use crate::{Identity, Inventory, PhysicalFunction, Reason, RowKey, Rule, State, identity::Likeness};

/// What a person can do about an adapter that is in the place of another.
const ANOTHER: &str =
    "put that one back, or remove the partitions that use it; this one is not touched before";

/// Where an adapter is that is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where it is noted.
    Here,
    /// At another address.
    At(Bdf),
    /// Nowhere: at its address is nothing, or another adapter.
    Nowhere,
    /// Perhaps where it is noted: what is there has no mark to go by yet. Without its driver it has no MAC.
    InDoubt,
}

/// Where the adapters are that are noted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    places: BTreeMap<Bdf, Place>,
    /// Those that can be told from others.
    identified: BTreeSet<Bdf>,
}

/// That an adapter is to be noted under another address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Where it was noted.
    pub from: Bdf,
    /// Where it is to be noted.
    pub to: Bdf,
    /// Whether it is there. One that is missing gives way to the adapter that is at its address now.
    pub is_there: bool,
}

impl Whereabouts {
    /// Looks for all that `state` has noted. An adapter that has no mark to go by at the moment is taken for the one that is
    /// noted at its address, unless the `host_booted` since that was known to be so.
    #[must_use]
    pub fn of(state: &State, inventory: &Inventory, host_booted: bool) -> Self {
        let noted: BTreeMap<Bdf, Option<&Identity>> = state
            .noted_pfs()
            .into_iter()
            .map(|pf| (pf, state.adapters.get(&pf).and_then(|adapter| adapter.identity.as_ref())))
            .collect();
        let found = &inventory.physical_functions;
        let at = |address: Bdf| found.iter().find(|pf| pf.address == address);
        let likeness = |address: Bdf| Some(noted.get(&address)?.as_ref()?.compare(at(address)?));

        let mut places: BTreeMap<Bdf, Place> = BTreeMap::new();
        places.extend(
            noted.keys().filter(|pf| likeness(**pf) == Some(Likeness::Same)).map(|pf| (*pf, Place::Here)),
        );
        let mut moved = BTreeMap::<Bdf, Vec<Bdf>>::new();
        for (pf, identity) in noted.iter().filter(|(pf, _)| !places.contains_key(*pf)) {
            let Some(identity) = identity else { continue };
            let is_it = |one: &&PhysicalFunction| {
                identity.compare(one) == Likeness::Same && identity.can_be_told_by(one)
            };
            let mut them = found.iter().filter(|one| !places.contains_key(&one.address)).filter(is_it);
            if let (Some(one), None) = (them.next(), them.next()) {
                moved.entry(one.address).or_default().push(*pf);
            }
        }
        // One that two are taken for is neither.
        let moved: BTreeMap<Bdf, Bdf> = moved
            .into_iter()
            .filter_map(|(to, from)| match from[..] {
                [from] => Some((from, to)),
                _ => None,
            })
            .collect();
        let taken: BTreeSet<Bdf> = moved.values().copied().collect();
        for pf in noted.keys().filter(|pf| !places.contains_key(*pf)).copied().collect::<Vec<_>>() {
            let by_address = match likeness(pf) {
                _ if at(pf).is_none() || taken.contains(&pf) => Place::Nowhere,
                None => Place::Here,
                Some(Likeness::Unknown) if host_booted => Place::InDoubt,
                Some(Likeness::Unknown) => Place::Here,
                Some(Likeness::Same | Likeness::Other) => Place::Nowhere,
            };
            let place = moved.get(&pf).map_or(by_address, |to| Place::At(*to));
            places.insert(pf, place);
        }
        let identified = noted.iter().filter(|(_, identity)| identity.is_some()).map(|(pf, _)| *pf).collect();
        Self { places, identified }
    }

    /// Where an adapter is that is noted at this address; `None`: none is.
    #[must_use]
    pub fn place(&self, noted: Bdf) -> Option<Place> {
        self.places.get(&noted).copied()
    }

    /// How what is noted is to be changed so that it is where it is found. An adapter that is missing gives way, to the address
    /// that becomes free; one that can't be told from others can't, since it would be taken for whatever is there.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        let moved = self.places.iter().filter_map(|(from, place)| match place {
            Place::At(to) => Some((*to, *from)),
            Place::Here | Place::Nowhere | Place::InDoubt => None,
        });
        let leaves = |pf: &Bdf| matches!(self.places.get(pf), Some(Place::At(_)));
        let stays_in_the_way =
            |to: &Bdf| self.places.contains_key(to) && !leaves(to) && !self.identified.contains(to);
        let came_from: BTreeMap<Bdf, Bdf> = moved.filter(|(to, _)| !stays_in_the_way(to)).collect();
        let goes: BTreeSet<Bdf> = came_from.values().copied().collect();
        let mut moves: Vec<_> =
            came_from.iter().map(|(to, from)| Move { from: *from, to: *to, is_there: true }).collect();
        for missing in self.places.keys().filter(|pf| !goes.contains(*pf) && came_from.contains_key(*pf)) {
            let mut free = *missing;
            while let Some(from) = came_from.get(&free) {
                free = *from;
            }
            moves.push(Move { from: *missing, to: free, is_there: false });
        }
        moves.sort_unstable_by_key(|one| one.from);
        moves
    }

    /// The addresses at which adapters are that are not to be touched, with why: another one than the one that is noted there,
    /// or one that is noted elsewhere still.
    #[must_use]
    pub fn quarantined(&self, state: &State, inventory: &Inventory) -> BTreeMap<Bdf, Reason> {
        let mut all = BTreeMap::new();
        for (noted, place) in self.places.iter().filter(|(_, place)| **place != Place::Here) {
            if let Some(pf) = inventory.physical_function(*noted) {
                let identity = state.adapters.get(noted).and_then(|adapter| adapter.identity.as_ref());
                let required = identity.map_or_else(|| "the adapter".to_owned(), ToString::to_string);
                let found =
                    Identity::told_by(pf).map_or_else(|| "one without IDs".into(), |it| it.to_string());
                let (found, remedy) = match place {
                    Place::InDoubt => {
                        (format!("{found}, of which no more is known yet"), "its driver is waited for")
                    }
                    _ => (found, ANOTHER),
                };
                let required = format!("{required}, which is noted here");
                let reason = Reason::new(Rule::AdapterIdentity, required, found).on(*noted);
                all.insert(*noted, reason.remedy(remedy));
            }
            if let Place::At(to) = place {
                let found = format!("the one that is noted as {noted}");
                let reason =
                    Reason::new(Rule::AdapterIdentity, "an adapter that is noted nowhere else", found);
                let remedy = "it is followed here once no partition runs that has VFs of it";
                all.entry(*to).or_insert(reason.on(*to).remedy(remedy));
            }
        }
        all
    }

    /// What is to be noted of adapters that are where they are noted, with the identity: those that a version before has noted
    /// without one, marks that have come since, and marks that tell nothing any more.
    #[must_use]
    pub fn identities(&self, state: &State, inventory: &Inventory) -> BTreeMap<Bdf, Option<Identity>> {
        let here = self.places.iter().filter(|(_, place)| **place == Place::Here);
        let differs = here.filter_map(|(address, _)| {
            let (pf, noted) = (inventory.physical_function(*address)?, state.adapters.get(address)?);
            let now = match &noted.identity {
                Some(identity) if identity.compare(pf) == Likeness::Same => {
                    identity.brought_up_to_date(pf, inventory)
                }
                None if state.may_be(*address, pf) => Identity::of(pf, inventory),
                unknown => unknown.clone(),
            };
            (now != noted.identity).then_some((*address, now))
        });
        differs.collect()
    }
}

impl State {
    /// The PFs that something is noted of.
    #[must_use]
    pub fn noted_pfs(&self) -> BTreeSet<Bdf> {
        let held = self.partitions.values().flat_map(|partition| partition.vfs.values());
        self.adapters.keys().copied().chain(held.map(|held| held.vf.pf)).collect()
    }

    /// Whether an adapter can be the one that is noted at an address without an identity: it is of the class of all VFs that
    /// partitions have of it, and gives as many.
    fn may_be(&self, noted: Bdf, pf: &PhysicalFunction) -> bool {
        pf.sriov.is_some()
            && self.assignments().filter(|(_, held)| held.vf.pf == noted).all(|(owner, held)| {
                let spec = self.partitions.get(&owner.partition).map(|partition| &partition.spec);
                let request = spec.and_then(|spec| spec.vf(&owner.vf));
                held.vf.index < pf.total_vfs() && request.is_none_or(|request| request.class.takes(pf))
            })
    }

    /// Notes adapters under other addresses: what was found of them, VFs of partitions, and Specs that pin VFs to them. Where
    /// their VFs are is not known then.
    pub fn move_adapters(&mut self, moves: &[Move]) {
        let to: BTreeMap<Bdf, Bdf> = moves.iter().map(|one| (one.from, one.to)).collect();
        let now = |pf: Bdf| to.get(&pf).copied().unwrap_or(pf);
        let adapters = std::mem::take(&mut self.adapters);
        self.adapters = adapters.into_iter().map(|(pf, adapter)| (now(pf), adapter)).collect();
        for partition in self.partitions.values_mut() {
            for request in &mut partition.spec.vfs {
                request.pf = request.pf.map(now);
            }
            for held in partition.vfs.values_mut().filter(|held| to.contains_key(&held.vf.pf)) {
                held.vf.pf = now(held.vf.pf);
                held.address = None;
            }
        }
    }

    /// The rows that [`State::move_adapters`] may change.
    #[must_use]
    pub fn rows_of_moves(&self, moves: &[Move]) -> Vec<RowKey> {
        let moves_from = |pf: Bdf| moves.iter().any(|one| one.from == pf);
        let addresses: BTreeSet<Bdf> = moves.iter().flat_map(|one| [one.from, one.to]).collect();
        let mut rows: Vec<_> = addresses.into_iter().map(RowKey::Adapter).collect();
        let pinned = self
            .partitions
            .values()
            .filter(|partition| partition.spec.vfs.iter().any(|request| request.pf.is_some_and(moves_from)));
        rows.extend(pinned.map(|partition| RowKey::Partition(partition.spec.name.clone())));
        let held = self.assignments().filter(|(_, held)| moves_from(held.vf.pf));
        rows.extend(held.map(|(owner, _)| RowKey::Assignment(owner)));
        rows
    }
}

#[cfg(test)]
mod tests;
