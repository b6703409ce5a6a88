//! Failover of network VFs to their standbys: looks are held against the pairs ([`ioward_model::FailoverWatch`]), what has to be
//! switched is noted and told, and partitions hear of it by their channels. docs/failover.md.
//!
//! ```text
//!   look ─> Failovers::see ─┬─> the note of the pair (a row of the state)
//!                           ├─> event
//!                           └─> the partition's agent, which sends by the other one from then on
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_model::{
    Assignment, Back, EventKind, FailedOver, FailoverCause, FailoverPair, FailoverWatch, Inventory, Outcome,
    Owner, Service, State, Step, Switch, VfId,
};
use ioward_pci::Bdf;

use crate::{
    channels::Channels,
    clock::Clock,
    error::error_chain,
    events::{EventLog, now_ms},
    notes::{Must, Notes},
};

/// How often the host is looked at while a primary is to be gone back to: nobody tells when it has worked for long enough.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// The part that has partitions use their standbys.
pub(crate) struct Failovers {
    notes: Arc<Notes>,
    events: Arc<EventLog>,
    channels: Arc<Channels>,
    clock: Clock,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    pairs: BTreeMap<Owner, FailoverWatch>,
    /// How adapters served when their partitions were told.
    services: BTreeMap<Bdf, Service>,
}

impl Failovers {
    pub(crate) fn new(
        notes: Arc<Notes>,
        events: Arc<EventLog>,
        channels: Arc<Channels>,
        clock: Clock,
    ) -> Self {
        Self { notes, events, channels, clock, watched: Mutex::default() }
    }

    /// Takes in a look: switches what has to be switched, and tells partitions whose adapters serve, or do not, from now on.
    /// Whether the state is another than before.
    pub(crate) fn see(&self, inventory: &Inventory, state: &State) -> bool {
        let now = self.clock.now_ms();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs: Vec<_> = state.failover_pairs().collect();
        let owners: BTreeSet<&Owner> = pairs.iter().map(|pair| &pair.owner).collect();
        watched.pairs.retain(|owner, _| owners.contains(owner));
        let mut has_switched = false;
        for pair in &pairs {
            let watch = watched.pairs.entry(pair.owner.clone()).or_default();
            if let Some(switch) = watch.see(inventory, pair, now) {
                self.switch(pair, switch);
                has_switched = true;
            }
        }
        has_switched |= self.forget_pairs_that_are_none(state, &owners);
        self.tell_of_services(&mut watched.services, inventory, state);
        has_switched
    }

    /// The same while a plan is carried out. What that plan is about is its own affair until it has ended: a switch would be noted of
    /// something that it is just giving, taking, or putting back.
    pub(crate) fn see_meanwhile(
        &self,
        inventory: &Inventory,
        state: &State,
        is_claimed: impl Fn(VfId) -> bool,
    ) {
        let now = self.clock.now_ms();
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let is_free = |pair: &FailoverPair<'_>| !pair.vfs().any(&is_claimed);
        for pair in state.failover_pairs().filter(is_free) {
            let watch = watched.pairs.entry(pair.owner.clone()).or_default();
            if let Some(switch) = watch.see(inventory, &pair, now) {
                self.switch(&pair, switch);
            }
        }
        self.tell_of_services(&mut watched.services, inventory, state);
    }

    /// How often the host is to be looked at for the sake of primaries that are to be gone back to.
    pub(crate) fn look_each(&self) -> Option<Duration> {
        let is_awaited = |pair: FailoverPair<'_>| {
            let is_fault = |over: &FailedOver| matches!(over.why, FailoverCause::Fault { .. });
            pair.failover.back == Back::Automatic && pair.primary.failed_over.as_ref().is_some_and(is_fault)
        };
        self.notes.look(|state| state.failover_pairs().any(is_awaited)).then_some(LOOK_EACH)
    }

    /// A VF whose standby is gone, or that is to have none any more, is active.
    fn forget_pairs_that_are_none(&self, state: &State, owners: &BTreeSet<&Owner>) -> bool {
        let is_none =
            |(owner, held): &(Owner, &Assignment)| held.failed_over.is_some() && !owners.contains(owner);
        let none: Vec<_> = state.assignments().filter(is_none).collect();
        for (owner, held) in &none {
            self.note(Step::SwitchOver { owner: owner.clone(), to: None, from: held.failed_over.clone() });
            self.channels.vfs_changed(&owner.partition);
        }
        !none.is_empty()
    }

    fn switch(&self, pair: &FailoverPair<'_>, switch: Switch) {
        let (partition, vf) = (pair.owner.partition.clone(), pair.owner.vf.clone());
        let (to, event) = match switch {
            Switch::Over(what) => {
                let standby = pair.failover.standby.clone();
                let over = pair.failed_over(now_ms(), FailoverCause::Fault { what: what.clone() });
                (Some(over), EventKind::FailedOver { partition, vf, standby, why: what })
            }
            Switch::Back => (None, EventKind::FailedBack { partition, vf }),
        };
        self.note(Step::SwitchOver { owner: pair.owner.clone(), to, from: pair.primary.failed_over.clone() });
        self.events.emit(event);
        self.channels.vfs_changed(&pair.owner.partition);
    }

    fn note(&self, step: Step) {
        let noted = self.notes.change(
            Must::BeKnown,
            |state| state.rows_of(&step),
            Vec::new(),
            |state| state.record(&step, &Outcome::default()),
        );
        if let Err(error) = noted {
            // The partition is not cut off for that; a daemon after this one may switch once more.
            tracing::error!("{step}: this cannot be written down: {}", error_chain(&error));
        }
    }

    fn tell_of_services(&self, told: &mut BTreeMap<Bdf, Service>, inventory: &Inventory, state: &State) {
        let now: BTreeMap<Bdf, Service> =
            inventory.physical_functions.iter().map(|pf| (pf.address, pf.service.clone())).collect();
        let is_news = |pf: &Bdf| {
            let service = |known: &BTreeMap<Bdf, Service>| known.get(pf).cloned().unwrap_or(Service::Serving);
            service(told) != service(&now)
        };
        let concerned = state
            .partitions
            .iter()
            .filter(|(_, partition)| partition.vfs.values().any(|held| is_news(&held.vf.pf)));
        concerned.for_each(|(name, _)| self.channels.vfs_changed(name));
        *told = now;
    }
}
