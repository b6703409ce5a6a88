//! Machines that are there and execute nothing: told once. docs/faults.md.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ioward_model::{EventKind, Halt, Inventory, Name, PartitionState, PartitionStatus, State};
use ioward_pci::Bdf;

use crate::events::EventLog;

/// The part that knows which machines have halted.
pub(crate) struct Halts {
    events: Arc<EventLog>,
    halted: Mutex<BTreeMap<Name, Halt>>,
}

impl Halts {
    pub(crate) fn new(events: Arc<EventLog>) -> Self {
        Self { events, halted: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Halt>> {
        self.halted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a look, and tells what is new. One that has ended is forgotten: that is told otherwise.
    pub(crate) fn see(&self, inventory: &Inventory, state: &State, machines: &[PartitionStatus]) {
        let mut halted = self.lock();
        let is_there = |name: &Name| machines.iter().any(|machine| machine.running && machine.name == *name);
        halted.retain(|name, _| state.partitions.contains_key(name) && is_there(name));
        for machine in machines.iter().filter(|machine| machine.running) {
            let Some(noted) = state.partitions.get(&machine.name) else { continue };
            let before = match machine.halted {
                Some(halt) => halted.insert(machine.name.clone(), halt),
                None => halted.remove(&machine.name),
            };
            let partition = machine.name.clone();
            let event = match machine.halted {
                Some(halt) => {
                    EventKind::PartitionHalted { partition, halt, faulty: faulty(inventory, noted) }
                }
                None => EventKind::PartitionGoesOn { partition },
            };
            if before != machine.halted {
                self.events.emit(event);
            }
        }
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
