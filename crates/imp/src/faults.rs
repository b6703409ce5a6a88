//! Adapters that have faults: what looks find of them goes into their states ([`ioward_model::Watched`]), changes of those are told, and
//! what is due to recover one is done. docs/faults.md.
//!
//! ```text
//!   look ─> Faults::see ─> states ─┬─> the inventory: no plan gives anything of one that does not serve
//!                                  ├─> Quarantine: nothing reaches one that is frozen
//!                                  └─> events
//!   reconciler ─> Faults::attempt (frozen, and not well by itself)
//!              └> Faults::repaired (recovering: it is as it is noted, or not)
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_fabric::Fabric;
use ioward_model::{EventKind, Inventory, Recovery, Service, State, VfId, Watched, WatchedVf};
use ioward_pci::Bdf;

use crate::{clock::Clock, error::error_chain, events::EventLog};

/// How often the host is looked at while an adapter does not serve: nobody tells when it is well.
const LOOK_EACH: Duration = Duration::from_secs(1);

/// The part that knows which adapters serve.
pub(crate) struct Faults {
    /// The host itself: recovery reaches what is frozen.
    fabric: Arc<dyn Fabric>,
    events: Arc<EventLog>,
    clock: Clock,
    watched: Mutex<BTreeMap<Bdf, Watched>>,
    vfs: Mutex<VfFaults>,
}

/// VFs that are watched for errors of their own.
#[derive(Default)]
struct VfFaults {
    watched: BTreeMap<Bdf, WatchedVf>,
    /// To be locked out: which they are, and why.
    failed: BTreeMap<Bdf, (VfId, String)>,
}

impl Faults {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, events: Arc<EventLog>, clock: Clock) -> Self {
        Self { fabric, events, clock, watched: Mutex::default(), vfs: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bdf, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a look, of which none is older than the one before, and notes in it how its adapters serve. Tells what is new. One that
    /// something is noted of has answered before. One that is gone is forgotten: somebody has seen to it, and drift tells of it. One that
    /// is out of service is not watched: whoever writes its firmware does not want it reset.
    pub(crate) fn see(&self, found: &mut Inventory, state: &State) {
        let now = self.clock.now_ms();
        let mut watched = self.lock();
        let is_in_service = |pf: &Bdf| !state.out_of_service.contains_key(pf);
        watched.retain(|pf, _| is_in_service(pf) && found.physical_function(*pf).is_some());
        for pf in found.physical_functions.iter_mut().filter(|pf| is_in_service(&pf.address)) {
            let is_noted = state.adapters.contains_key(&pf.address);
            let one = watched.entry(pf.address).or_insert_with(|| Watched::new(is_noted));
            if one.see(pf, now) {
                self.tell(pf.address, one.service());
            }
            pf.service = one.service().clone();
        }
        drop(watched);
        self.see_vfs(found, state, now);
    }

    fn see_vfs(&self, found: &Inventory, state: &State, now: u64) {
        let mut vfs = self.vfs.lock().unwrap_or_else(PoisonError::into_inner);
        let VfFaults { watched, failed } = &mut *vfs;
        let mut seen = BTreeSet::new();
        for pf in &found.physical_functions {
            let counting = pf.virtual_functions.iter().filter(|vf| vf.errors.is_some());
            for vf in counting.filter(|vf| !state.out_of_service.contains_key(&vf.address)) {
                seen.insert(vf.address);
                if let Some(what) = watched.entry(vf.address).or_default().see(vf.errors, now) {
                    failed.insert(vf.address, (VfId { pf: pf.address, index: vf.index }, what));
                }
            }
        }
        watched.retain(|address, _| seen.contains(address));
        failed.retain(|address, _| seen.contains(address));
    }

    /// VFs that are to be locked out by themselves, and why.
    pub(crate) fn failed_vfs(&self) -> Vec<(Bdf, VfId, String)> {
        let vfs = self.vfs.lock().unwrap_or_else(PoisonError::into_inner);
        vfs.failed.iter().map(|(address, (vf, what))| (*address, *vf, what.clone())).collect()
    }

    /// How often the host is to be looked at for the sake of adapters that do not serve, or may not; `None`: all serve.
    pub(crate) fn look_each(&self) -> Option<Duration> {
        let is_soon = |one: &Watched| one.service().is_waited_for() || one.is_in_doubt();
        self.lock().values().any(is_soon).then_some(LOOK_EACH)
    }

    /// Makes the attempts to recover adapters that are due. What they did shows in the next look.
    pub(crate) async fn attempt(&self) {
        let now = self.clock.now_ms();
        let due: Vec<(Bdf, Recovery)> = {
            let mut watched = self.lock();
            let due = watched.iter_mut().filter_map(|(pf, one)| {
                let before = one.service().clone();
                let attempt = one.attempt(now);
                if *one.service() != before {
                    self.tell(*pf, one.service());
                }
                Some((*pf, attempt?))
            });
            due.collect()
        };
        for (pf, how) in due {
            let error = self.fabric.recover(pf, how).await.err().map(|error| error_chain(&error));
            self.events.emit(EventKind::AdapterAttempted { pf, how, error });
        }
    }

    /// The reconciler has made adapters that are recovering as they are noted, but for those in `left`. Whether one serves again.
    pub(crate) fn repaired(&self, left: &BTreeSet<Bdf>) -> bool {
        let now = self.clock.now_ms();
        let mut serves = false;
        for (pf, one) in self.lock().iter_mut() {
            if one.repaired(!left.contains(pf), now) {
                serves |= one.service().is_serving();
                self.tell(*pf, one.service());
            }
        }
        serves
    }

    /// Whether an adapter serves, as of the latest look. One that is gone has no VF that could do harm.
    pub(crate) fn serves(&self, pf: Bdf) -> bool {
        self.lock().get(&pf).is_none_or(|one| one.service().is_serving())
    }

    /// Adapters that have failed, and why.
    pub(crate) fn failed(&self) -> Vec<(Bdf, String)> {
        let failed = |(pf, one): (&Bdf, &Watched)| match one.service() {
            Service::Failed { what } => Some((*pf, what.clone())),
            _ => None,
        };
        self.lock().iter().filter_map(failed).collect()
    }

    fn tell(&self, pf: Bdf, service: &Service) {
        self.events.emit(EventKind::AdapterService { pf, service: service.clone() });
    }
}
