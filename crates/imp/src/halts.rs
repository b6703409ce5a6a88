//! Machines that are there and execute nothing: told once, and reset once the adapters of their VFs serve again
//! ([`ioward_model::HaltWatch`] says when). docs/faults.md.
//!
//! ```text
//!   look ─> Halts::see ─> event
//!   reconciler, last of all ─> Halts::reset_due ─> the hypervisor resets those that are due ─> event
//! ```

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_hypervisor::Hypervisor;
use ioward_model::{EventKind, HaltNews, HaltWatch, Inventory, Name, PartitionState, PartitionStatus, State};
use ioward_pci::Bdf;

use crate::{clock::Clock, error::error_chain, events::EventLog, faults::Faults};

/// How often the host is looked at while a machine is to be reset: it may be due, and nobody tells that.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// The part that has machines go on.
pub(crate) struct Halts {
    hypervisor: Arc<dyn Hypervisor>,
    faults: Arc<Faults>,
    events: Arc<EventLog>,
    clock: Clock,
    watched: Mutex<BTreeMap<Name, HaltWatch>>,
}

impl Halts {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        faults: Arc<Faults>,
        events: Arc<EventLog>,
        clock: Clock,
    ) -> Self {
        Self { hypervisor, faults, events, clock, watched: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, HaltWatch>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a look, and tells what is new. One that has ended is forgotten: that is told otherwise.
    pub(crate) fn see(&self, inventory: &Inventory, state: &State, machines: &[PartitionStatus]) {
        let now = self.clock.now_ms();
        let mut watched = self.lock();
        let is_there = |name: &Name| machines.iter().any(|machine| machine.running && machine.name == *name);
        watched.retain(|name, _| state.partitions.contains_key(name) && is_there(name));
        for machine in machines.iter().filter(|machine| machine.running) {
            let Some(noted) = state.partitions.get(&machine.name) else { continue };
            if machine.halted.is_none() && !watched.contains_key(&machine.name) {
                continue;
            }
            let faulty = faulty(inventory, noted);
            let news = watched.entry(machine.name.clone()).or_default().see(machine.halted, &faulty, now);
            let partition = machine.name.clone();
            let event = match (news, machine.halted) {
                (Some(HaltNews::Halted), Some(halt)) => {
                    EventKind::PartitionHalted { partition, halt, faulty }
                }
                (Some(HaltNews::GoesOn), _) => EventKind::PartitionGoesOn { partition },
                _ => continue,
            };
            self.events.emit(event);
        }
    }

    /// Resets the machines that are due.
    pub(crate) async fn reset_due(&self, state: &State) {
        let now = self.clock.now_ms();
        let mut due = Vec::new();
        for (name, watch) in self.lock().iter_mut() {
            let is_well = state.partitions.get(name).is_some_and(|noted| self.is_well(state, noted));
            match watch.due(is_well, now) {
                Some(HaltNews::Reset) => due.push(name.clone()),
                Some(HaltNews::Left) => {
                    self.events.emit(EventKind::PartitionLeftHalted { partition: name.clone() });
                }
                _ => {}
            }
        }
        for partition in due {
            let error = self.hypervisor.reset(&partition).await.err().map(|error| error_chain(&error));
            let mut watched = self.lock();
            let Some(watch) = watched.get_mut(&partition) else { continue };
            let (after_ms, faulty) = watch.was_reset(error.is_none(), self.clock.now_ms());
            self.events.emit(EventKind::PartitionReset { partition, faulty, after_ms, error });
        }
    }

    /// Whether all VFs of a partition, and their adapters, serve. One that is out of service does not: it may be the cause of the next
    /// error. One that is to be out of its machine, as its standby is active, does not matter: a machine that is reset lets go of what it
    /// was asked for (pcie_cap_slot_reset() in QEMU's hw/pci/pcie.c).
    fn is_well(&self, state: &State, partition: &PartitionState) -> bool {
        let serves = |pf: Bdf| self.faults.serves(pf) && !state.out_of_service.contains_key(&pf);
        let is_locked_out = |vf| state.vf_out_of_service(vf).is_some();
        let mut has = partition.vfs.values().filter(|held| !held.is_unplugged());
        has.all(|held| serves(held.vf.pf) && !is_locked_out(held.vf))
    }

    /// How often the host is to be looked at for the sake of machines that are to be reset.
    pub(crate) fn look_each(&self) -> Option<Duration> {
        self.lock().values().any(HaltWatch::is_waiting).then_some(LOOK_EACH)
    }
}

/// The adapters of a partition's VFs that have a fault.
fn faulty(inventory: &Inventory, partition: &PartitionState) -> Vec<Bdf> {
    let mut pfs: Vec<_> = partition.vfs.values().map(|held| held.vf.pf).collect();
    pfs.sort_unstable();
    pfs.dedup();
    let serves = |pf: &Bdf| inventory.physical_function(*pf).is_none_or(|found| found.service.is_serving());
    pfs.retain(|pf| !serves(pf));
    pfs
}
