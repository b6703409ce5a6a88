//! Adapters that do not return from the kernel: told, kept apart by the fabric, and looked at again until they answer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use ioward_fabric::{Fabric, FabricError};
use ioward_model::{EventKind, PhysicalFunction, VfId};
use ioward_pci::Bdf;

use crate::{error::error_chain, events::EventLog, look::Looks};

/// Between two looks at an adapter that is stuck. It costs nothing: the fabric knows by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Adapters that are stuck.
pub(crate) struct StuckAdapters {
    fabric: Arc<dyn Fabric>,
    looks: Arc<Looks>,
    events: Arc<EventLog>,
    pfs: Mutex<BTreeSet<Bdf>>,
}

impl StuckAdapters {
    pub(crate) fn new(fabric: Arc<dyn Fabric>, looks: Arc<Looks>, events: Arc<EventLog>) -> Arc<Self> {
        Arc::new(Self { fabric, looks, events, pfs: Mutex::default() })
    }

    /// Tells that an adapter is stuck, and tells again when it answers. What is to be done first then is done by `answered`.
    pub(crate) fn watch(
        self: &Arc<Self>,
        pf: Bdf,
        error: &FabricError,
        answered: impl Future<Output = ()> + Send + 'static,
    ) {
        if self.lock().insert(pf) {
            self.events.emit(EventKind::AdapterStuck { pf, what: error_chain(error) });
            tokio::spawn(look_until_it_answers(Arc::downgrade(self), pf, answered));
        }
    }

    /// Whether an adapter is stuck.
    pub(crate) fn has(&self, pf: Bdf) -> bool {
        self.lock().contains(&pf)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Bdf>> {
        self.pfs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_until_it_answers(stuck: Weak<StuckAdapters>, pf: Bdf, answered: impl Future<Output = ()>) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Some(stuck) = stuck.upgrade() else { return };
        if matches!(stuck.fabric.vf_address(VfId { pf, index: 0 }).await, Err(FabricError::Stuck { .. })) {
            continue;
        }
        stuck.lock().remove(&pf);
        answered.await;
        let inventory = stuck.looks.look().await;
        let num_vfs = inventory.ok().and_then(|now| now.physical_function(pf).map(PhysicalFunction::num_vfs));
        stuck.events.emit(EventKind::AdapterAnswers { pf, num_vfs });
        return;
    }
}
