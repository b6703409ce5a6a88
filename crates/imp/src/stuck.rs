//! Adapters that do not return from the kernel: told, kept apart by the fabric, and looked at again until they answer.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use ioward_fabric::FabricError;
use ioward_model::{EventKind, PhysicalFunction, Step, VfId};
use ioward_pci::Bdf;

use crate::{
    error::{ImpError, error_chain},
    imp::Imp,
};

/// Between two looks at an adapter that is stuck. It costs nothing: the fabric knows by itself.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Adapters that are stuck.
#[derive(Debug, Default)]
pub(crate) struct StuckAdapters(Mutex<BTreeSet<Bdf>>);

impl StuckAdapters {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<Bdf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Imp {
    /// Tells that the adapter of a step is stuck, if that is why it failed, and tells again when it answers.
    pub(crate) fn watch_stuck(self: &Arc<Self>, step: &Step, error: &ImpError) {
        let ImpError::Fabric(error @ FabricError::Stuck { .. }) = error else { return };
        let Some(pf) = step.subject().adapter() else { return };
        self.watch_stuck_adapter(pf, error);
    }

    /// The same, whatever was asked of the adapter.
    pub(crate) fn watch_stuck_adapter(self: &Arc<Self>, pf: Bdf, error: &FabricError) {
        if self.stuck.lock().insert(pf) {
            self.events.emit(EventKind::AdapterStuck { pf, what: error_chain(error) });
            tokio::spawn(look_until_it_answers(Arc::downgrade(self), pf));
        }
    }
}

async fn look_until_it_answers(imp: Weak<Imp>, pf: Bdf) {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        let Some(imp) = imp.upgrade() else { return };
        if matches!(imp.fabric.vf_address(VfId { pf, index: 0 }).await, Err(FabricError::Stuck { .. })) {
            continue;
        }
        imp.stuck.lock().remove(&pf);
        imp.put_back_operations_of(pf).await;
        let inventory = imp.look().await;
        let num_vfs = inventory.ok().and_then(|now| now.physical_function(pf).map(PhysicalFunction::num_vfs));
        imp.events.emit(EventKind::AdapterAnswers { pf, num_vfs });
        return;
    }
}
