//! The counters of VFs, adapter by adapter: one that does not answer is left alone until it does, and holds up no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use ioward_fabric::Fabric;
use ioward_model::{VfId, VfStatistics};
use ioward_pci::Bdf;
use tokio::time::timeout;

/// The part that reads them.
pub(super) struct Traffic {
    fabric: Arc<dyn Fabric>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    /// As last read.
    counters: BTreeMap<VfId, VfStatistics>,
    /// Adapters that are being read.
    reading: BTreeSet<Bdf>,
}

impl Traffic {
    pub(super) fn new(fabric: Arc<dyn Fabric>) -> Arc<Self> {
        Arc::new(Self { fabric, now: Mutex::default() })
    }

    /// The counters of these VFs, but for those that could not be read within `patience`.
    pub(super) async fn read(
        self: &Arc<Self>,
        vfs: impl Iterator<Item = VfId>,
        patience: Duration,
    ) -> BTreeMap<VfId, VfStatistics> {
        let mut of_pf = BTreeMap::<Bdf, Vec<VfId>>::new();
        vfs.for_each(|vf| of_pf.entry(vf.pf).or_default().push(vf));
        let pfs: BTreeSet<_> = of_pf.keys().copied().collect();
        let mut readers = Vec::new();
        for (pf, vfs) in of_pf {
            if self.lock().reading.insert(pf) {
                readers.push(tokio::spawn(Arc::clone(self).read_adapter(pf, vfs)));
            }
        }
        // Those that take longer go on, and are in the next answer.
        let _ = timeout(patience, join_all(readers)).await;
        let mut now = self.lock();
        now.counters.retain(|vf, _| pfs.contains(&vf.pf));
        let answered = now.counters.iter().filter(|(vf, _)| !now.reading.contains(&vf.pf));
        answered.map(|(vf, counters)| (*vf, *counters)).collect()
    }

    async fn read_adapter(self: Arc<Self>, pf: Bdf, vfs: Vec<VfId>) {
        let mut found = Vec::new();
        for vf in vfs {
            // One that has no counters, or is gone, is not told of.
            if let Ok(counters) = self.fabric.statistics(vf).await {
                found.push((vf, counters));
            }
        }
        let mut now = self.lock();
        now.counters.retain(|vf, _| vf.pf != pf);
        now.counters.extend(found);
        now.reading.remove(&pf);
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
