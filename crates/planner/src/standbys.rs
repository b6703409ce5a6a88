//! Standbys on bridges: which of them change. docs/failover.md.

use std::collections::BTreeMap;

use ioward_model::{IntoMap, Owner, StandbyNic};

use crate::{
    goal::{Goal, Unasked},
    ledger::Ledger,
    placement::Holding,
};

/// Standbys on bridges that are to be others than they are: a VF comes after its own.
pub(crate) struct Standbys(BTreeMap<Owner, Option<StandbyNic>>);

impl Standbys {
    pub(crate) fn of(ledger: &Ledger<'_>, goal: &Goal, holdings: &[Holding<'_>]) -> Self {
        let bridges = goal.needs().filter_map(|need| {
            let bridge = need.request.failover.as_ref()?.standby.bridge()?;
            Some((need.owner(), bridge))
        });
        let bridges: BTreeMap<Owner, _> = bridges.into_map();
        let wanted = |holding: &Holding<'_>| {
            let bridge = (*bridges.get(&holding.owner)?).clone();
            Some((holding.owner.clone(), StandbyNic { bridge, mac: holding.settings.mac? }))
        };
        let wanted: BTreeMap<Owner, StandbyNic> = holdings.iter().filter_map(wanted).into_map();
        let noted = goal.concerned().iter().filter_map(|name| ledger.state.partitions.get_key_value(name));
        let noted: BTreeMap<Owner, &StandbyNic> = noted
            .flat_map(|(name, partition)| partition.standbys.iter().map(move |(vf, nic)| (name, vf, nic)))
            .map(|(name, vf, nic)| (Owner { partition: name.clone(), vf: vf.clone() }, nic))
            .into_map();
        // A machine goes on by the standby of a VF that an evacuation leaves out.
        let is_left = |owner: &Owner| {
            let present = ledger.state.partitions.get(&owner.partition);
            let was_asked_for = present.is_some_and(|present| present.spec.vf(&owner.vf).is_some());
            let is_asked = match goal.standbys {
                Unasked::AsBefore => !was_asked_for,
                Unasked::End => false,
                Unasked::Stay => true,
            };
            ledger.moving(owner).is_some() || is_asked && goal.remove.as_ref() != Some(&owner.partition)
        };
        let gone = noted.keys().filter(|owner| !wanted.contains_key(owner) && !is_left(owner));
        let gone = gone.map(|owner| (owner.clone(), None));
        let news = wanted.iter().filter(|(owner, nic)| noted.get(owner) != Some(nic));
        Self(gone.chain(news.map(|(owner, nic)| (owner.clone(), Some(nic.clone())))).into_map())
    }

    /// Whether that of an owner changes, so that its VF is out of its machine meanwhile.
    pub(crate) fn changes(&self, owner: &Owner) -> bool {
        self.0.contains_key(owner)
    }

    /// The one that an owner gets.
    pub(crate) fn coming(&self, owner: &Owner) -> Option<&StandbyNic> {
        self.0.get(owner)?.as_ref()
    }
}
