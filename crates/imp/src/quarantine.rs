//! The fabric, but for adapters that nobody is to touch. One that is not the one that is noted at its address is not there, to whoever
//! asks for it; one that is frozen after a fault (docs/faults.md) fails with that. Whatever leads to an adapter (a plan, a repair, what a crash has left, a guest) goes through here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use ioward_fabric::{Fabric, FabricError};
use ioward_model::{Inventory, Recovery, Service, VfId, VfSettings, VfStatistics, doctor::Finding};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

/// Adapters that nobody is to touch.
#[derive(Debug, Default)]
pub(crate) struct KeptOff {
    /// They are not the ones that are noted at their addresses.
    pub(crate) others: BTreeSet<Bdf>,
    /// They are frozen.
    pub(crate) frozen: BTreeMap<Bdf, Service>,
}

/// A fabric on which some adapters are kept off.
pub(crate) struct Quarantine {
    fabric: Arc<dyn Fabric>,
    /// As of the latest look.
    kept_off: Mutex<KeptOff>,
    /// How often something was changed, or may have been.
    changes: AtomicU64,
}

impl Quarantine {
    pub(crate) fn new(fabric: Arc<dyn Fabric>) -> Self {
        Self { fabric, kept_off: Mutex::default(), changes: AtomicU64::new(0) }
    }

    /// These are kept off from now on, and no others.
    pub(crate) fn set(&self, kept_off: KeptOff) {
        *self.kept_off.lock().unwrap_or_else(PoisonError::into_inner) = kept_off;
    }

    /// How often the host was changed through here: who has counted as many before a look has seen the latest.
    pub(crate) fn count_of_changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Waits for what changes the host, and counts it, whatever became of it.
    async fn changed<T>(&self, change: impl Future<Output = T>) -> T {
        let counts = Counts(&self.changes);
        let done = change.await;
        drop(counts);
        done
    }

    fn pf(&self, address: Bdf) -> Result<&dyn Fabric, FabricError> {
        let kept_off = self.kept_off.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_off.others.contains(&address) {
            let what = "is not the adapter that ioward has noted there".into();
            return Err(FabricError::NoSuchFunction { address, what });
        }
        match kept_off.frozen.get(&address) {
            Some(service) => Err(FabricError::Frozen { pf: address, service: service.clone() }),
            None => Ok(&*self.fabric),
        }
    }

    fn vf(&self, vf: VfId) -> Result<&dyn Fabric, FabricError> {
        self.pf(vf.pf).map_err(|error| match error {
            FabricError::NoSuchFunction { .. } => FabricError::NoSuchVf { vf, num_vfs: 0 },
            other => other,
        })
    }
}

/// Counts a change when it has ended, or nobody waits for it any more.
struct Counts<'a>(&'a AtomicU64);

impl Drop for Counts<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

#[async_trait]
impl Fabric for Quarantine {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        self.fabric.identify().await
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.changed(self.pf(pf)?.set_autoprobe(pf, on)).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.changed(self.pf(pf)?.set_vf_count(pf, count)).await
    }

    /// Recovery does not go through here.
    async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
        self.changed(self.pf(pf)?.recover(pf, how)).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.vf(vf)?.vf_address(vf).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.vf(vf)?.driver(vf).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.changed(self.vf(vf)?.bind(vf, driver)).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.changed(self.vf(vf)?.reset(vf)).await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        self.vf(vf)?.settings(vf).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.changed(self.vf(vf)?.configure(vf, change)).await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.vf(vf)?.statistics(vf).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.vf(vf)?.is_open(vf).await
    }

    async fn doctor(&self) -> Result<Vec<Finding>, FabricError> {
        self.fabric.doctor().await
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        self.fabric.changes().await
    }
}
