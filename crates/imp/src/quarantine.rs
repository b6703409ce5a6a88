//! The fabric, but for adapters that are not the ones that are noted at their addresses: to whoever asks for one of them, it is
//! not there. Whatever leads to an adapter (a plan, a repair, what a crash has left, a guest) goes through here.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use ioward_fabric::{Fabric, FabricError};
use ioward_model::{Inventory, VfId, VfSettings, VfStatistics, doctor::Finding};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

/// A fabric on which some adapters are kept off.
pub(crate) struct Quarantine {
    fabric: Arc<dyn Fabric>,
    /// As of the latest look.
    pfs: Mutex<BTreeSet<Bdf>>,
    /// How often something was changed, or may have been.
    changes: AtomicU64,
}

impl Quarantine {
    pub(crate) fn new(fabric: Arc<dyn Fabric>) -> Self {
        Self { fabric, pfs: Mutex::default(), changes: AtomicU64::new(0) }
    }

    /// These are kept off from now on, and no others.
    pub(crate) fn set(&self, pfs: impl Iterator<Item = Bdf>) {
        *self.pfs.lock().unwrap_or_else(PoisonError::into_inner) = pfs.collect();
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

    fn has(&self, pf: Bdf) -> bool {
        self.pfs.lock().unwrap_or_else(PoisonError::into_inner).contains(&pf)
    }

    fn pf(&self, address: Bdf) -> Result<&dyn Fabric, FabricError> {
        if self.has(address) {
            let what = "is not the adapter that ioward has noted there".into();
            return Err(FabricError::NoSuchFunction { address, what });
        }
        Ok(&*self.fabric)
    }

    fn vf(&self, vf: VfId) -> Result<&dyn Fabric, FabricError> {
        if self.has(vf.pf) { Err(FabricError::NoSuchVf { vf, num_vfs: 0 }) } else { Ok(&*self.fabric) }
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
