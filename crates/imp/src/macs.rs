//! MAC addresses that are about to be used: whoever takes one looks whether it is free and reserves it under one lock, and keeps it
//! until it is noted, or not used after all. A plan reserves those that it sets, and those that it would set again if it failed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ioward_model::{MacAddress, Plan, State, Step, VfId};

/// All reservations.
#[derive(Clone, Debug, Default)]
pub(crate) struct Macs(Arc<Mutex<Reservations>>);

#[derive(Debug, Default)]
struct Reservations {
    count: u64,
    all: BTreeMap<u64, Vec<(MacAddress, VfId)>>,
}

/// Some addresses, reserved until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    macs: Macs,
    number: u64,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.macs.0.lock().unwrap_or_else(PoisonError::into_inner).all.remove(&self.number);
    }
}

impl Macs {
    /// Reserves addresses, each for a VF, unless one of them is another VF's: it is reserved for that, or `is_taken` says so.
    pub(crate) fn reserve(
        &self,
        wanted: Vec<(MacAddress, VfId)>,
        is_taken: impl Fn(MacAddress, VfId) -> bool,
    ) -> Result<Reserved, MacAddress> {
        let mut reservations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (mac, vf) in &wanted {
            let mut reserved = reservations.all.values().flatten();
            if reserved.any(|(other, holder)| other == mac && holder != vf) || is_taken(*mac, *vf) {
                return Err(*mac);
            }
        }
        reservations.count += 1;
        let number = reservations.count;
        reservations.all.insert(number, wanted);
        Ok(Reserved { macs: self.clone(), number })
    }
}

/// The addresses that a plan sets, and those that the VFs it is about have now.
pub(crate) fn macs_of(plan: &Plan, state: &State) -> Vec<(MacAddress, VfId)> {
    let mut macs = Vec::new();
    for step in &plan.steps {
        if let Step::ConfigureVf { vf, to } = step {
            macs.extend(to.mac.map(|mac| (mac, *vf)));
        }
        if let Some(vf) = step.subject().vf {
            let present = state.assignment(vf).and_then(|held| held.effective_settings().mac);
            macs.extend(present.map(|mac| (mac, vf)));
        }
    }
    // No guest is given one that is not for a station: those that VFs go back to may be all zeros.
    macs.retain(|(mac, _)| mac.is_unicast());
    macs.sort_unstable();
    macs.dedup();
    macs
}
