//! Finds the adapters that ioward has recorded: at their addresses, at others, or nowhere. Pure.
//!
//! ```text
//!   recorded  0000:01:00.0 is A     0000:02:00.0 is B      0000:03:00.0 is C
//!   found     0000:01:00.0 is X     0000:02:00.0 is A      0000:03:00.0 is B
//!             A is at 02, B at 03, and C is nowhere: the new records are
//!             0000:02:00.0 is A     0000:03:00.0 is B      0000:01:00.0 is C, which is missing
//!             X has no owner, and is not touched while C is recorded at its address
//! ```

use std::collections::{BTreeMap, BTreeSet};

use ioward_pci::Bdf;

use crate::{
    Identity, IntoMap, Inventory, PhysicalFunction, Reason, RowKey, Rule, State, identity::Likeness,
};

/// The remedy for an adapter in the place of another.
const ANOTHER: &str =
    "put that one back, or remove the partitions that use it; this one is not touched before";

/// The same where nothing is noted of that one but that it is out of service.
const NOBODYS: &str = "put that one back, or say that it is in service: 'ioward return' of this address; this one is not touched before";

/// The location of a recorded adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// At its recorded address.
    Here,
    /// At another address.
    At(Bdf),
    /// Nowhere: its address is empty, or holds another adapter.
    Nowhere,
    /// Perhaps at its recorded address: the adapter there has no mark yet. Without its driver it has no MAC.
    InDoubt,
}

/// The locations of the recorded adapters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Whereabouts {
    places: BTreeMap<Bdf, Place>,
    /// Adapters with a distinct identity.
    identified: BTreeSet<Bdf>,
}

/// A change of the address under which an adapter is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its old address.
    pub from: Bdf,
    /// Its new address.
    pub to: Bdf,
    /// Whether it was found. A missing adapter gives way to the adapter that is at its address now.
    pub is_there: bool,
}

impl Whereabouts {
    /// Looks for all adapters recorded in `state`. An adapter without a mark at the moment is taken for the one
    /// recorded at its address, unless the `host_booted` since the last confirmation.
    #[must_use]
    pub fn of(state: &State, inventory: &Inventory, host_booted: bool) -> Self {
        let noted: BTreeMap<Bdf, Option<&Identity>> =
            state.noted_pfs().into_iter().map(|pf| (pf, state.identity(pf))).into_map();
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
        // An adapter that matches two records is neither.
        let moved: BTreeMap<Bdf, Bdf> = moved
            .into_iter()
            .filter_map(|(to, from)| match from[..] {
                [from] => Some((from, to)),
                _ => None,
            })
            .into_map();
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

    /// The location of the adapter recorded at this address; `None`: no adapter is.
    #[must_use]
    pub fn place(&self, noted: Bdf) -> Option<Place> {
        self.places.get(&noted).copied()
    }

    /// The moves that bring the records to where the adapters are. A missing adapter gives way, to the address that
    /// becomes free; one without a distinct identity can't, since it would be taken for whatever is there.
    #[must_use]
    pub fn moves(&self) -> Vec<Move> {
        let moved = self.places.iter().filter_map(|(from, place)| match place {
            Place::At(to) => Some((*to, *from)),
            Place::Here | Place::Nowhere | Place::InDoubt => None,
        });
        let leaves = |pf: &Bdf| matches!(self.places.get(pf), Some(Place::At(_)));
        let stays_in_the_way =
            |to: &Bdf| self.places.contains_key(to) && !leaves(to) && !self.identified.contains(to);
        let came_from: BTreeMap<Bdf, Bdf> = moved.filter(|(to, _)| !stays_in_the_way(to)).into_map();
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

    /// The addresses of adapters that must not be touched, with the reason: another adapter than the recorded one,
    /// or one still recorded elsewhere.
    #[must_use]
    pub fn quarantined(&self, state: &State, inventory: &Inventory) -> BTreeMap<Bdf, Reason> {
        let mut all = BTreeMap::new();
        for (noted, place) in self.places.iter().filter(|(_, place)| **place != Place::Here) {
            if let Some(pf) = inventory.physical_function(*noted) {
                let identity = state.identity(*noted);
                let required = identity.map_or_else(|| "the adapter".to_owned(), ToString::to_string);
                let found =
                    Identity::told_by(pf).map_or_else(|| "one without IDs".into(), |it| it.to_string());
                let (found, remedy) = match place {
                    Place::InDoubt => {
                        (format!("{found}, of which no more is known yet"), "its driver is waited for")
                    }
                    _ if !state.uses(*noted) => (found, NOBODYS),
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

    /// The identities to record for adapters at their recorded addresses: missing ones from an older version, marks
    /// that have appeared since, and marks that have become ambiguous.
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
    /// The PFs with records.
    #[must_use]
    pub fn noted_pfs(&self) -> BTreeSet<Bdf> {
        let held = self.partitions.values().flat_map(|partition| partition.vfs.values());
        let out = self.out_of_service.iter().filter(|(_, out)| out.vf.is_none()).map(|(pf, _)| *pf);
        self.adapters.keys().copied().chain(held.map(|held| held.vf.pf)).chain(out).collect()
    }

    /// Who the adapter is that is recorded at this address, where that is known.
    #[must_use]
    pub fn identity(&self, pf: Bdf) -> Option<&Identity> {
        let held = self.adapters.get(&pf).and_then(|adapter| adapter.identity.as_ref());
        held.or_else(|| self.out_of_service.get(&pf)?.identity.as_ref())
    }

    /// Whether an adapter is held, or VFs of it are.
    fn uses(&self, pf: Bdf) -> bool {
        self.adapters.contains_key(&pf) || self.assignments().any(|(_, held)| held.vf.pf == pf)
    }

    /// Whether an adapter can be the one recorded at an address without an identity: it has the class of all VFs
    /// that partitions hold there, and enough VFs.
    fn may_be(&self, noted: Bdf, pf: &PhysicalFunction) -> bool {
        pf.sriov.is_some()
            && self.assignments().filter(|(_, held)| held.vf.pf == noted).all(|(owner, held)| {
                let spec = self.partitions.get(&owner.partition).map(|partition| &partition.spec);
                let request = spec.and_then(|spec| spec.vf(&owner.vf));
                held.vf.index < pf.total_vfs() && request.is_none_or(|request| request.class.takes(pf))
            })
    }

    /// Moves the records of adapters to other addresses: original values, that they are out of service, VFs of partitions, and
    /// Specs that pin VFs to them. The addresses of the VFs become unknown.
    pub fn move_adapters(&mut self, moves: &[Move]) {
        let to: BTreeMap<Bdf, Bdf> = moves.iter().map(|one| (one.from, one.to)).into_map();
        let now = |pf: Bdf| to.get(&pf).copied().unwrap_or(pf);
        let adapters = std::mem::take(&mut self.adapters);
        self.adapters = adapters.into_iter().map(|(pf, adapter)| (now(pf), adapter)).into_map();
        let mut out = std::mem::take(&mut self.out_of_service);
        // Where its VFs are then is not known. One that misbehaves there is locked out anew.
        out.retain(|_, out| out.vf.is_none_or(|vf| !to.contains_key(&vf.pf)));
        self.out_of_service = out.into_iter().map(|(pf, out)| (now(pf), out)).into_map();
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
        let of_adapter = |pf| [RowKey::Adapter(pf), RowKey::OutOfService(pf)];
        let mut rows: Vec<_> = addresses.into_iter().flat_map(of_adapter).collect();
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
