//! Keeps what partitions ask for apart from what plans do: an operation that a partition began never ends on a VF that is
//! already another's, nor on one that has just been cleaned. One lock for each adapter, so that an adapter that is busy
//! for minutes, or stuck, keeps nobody waiting who has nothing to do with it.
//!
//! Steps of one plan that are under way at the same time share the lock of an adapter ([`Together`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use ioward_pci::Bdf;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of all adapters; they come to be when they are first used.
#[derive(Debug, Default)]
pub(crate) struct Ownership(Mutex<BTreeMap<Bdf, Arc<RwLock<()>>>>);

/// The lock of an adapter, for changes that are made together.
pub(crate) type Kept = Arc<OwnedRwLockWriteGuard<()>>;

/// Changes that are made together: which adapters they have the locks of.
#[derive(Debug, Default)]
pub(crate) struct Together(Mutex<BTreeMap<Bdf, Arc<Place>>>);

/// Where the lock of an adapter is found, while one of them has it.
type Place = tokio::sync::Mutex<Weak<OwnedRwLockWriteGuard<()>>>;

impl Together {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Bdf, Arc<Place>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ownership {
    /// For an operation on VFs of these adapters. In the order of addresses: two operations never wait for each other.
    pub(crate) async fn read(&self, pfs: &BTreeSet<Bdf>) -> Vec<OwnedRwLockReadGuard<()>> {
        let mut guards = Vec::new();
        for pf in pfs {
            guards.push(self.lock(*pf).read_owned().await);
        }
        guards
    }

    /// For a change to the VFs of an adapter, or to whose they are.
    pub(crate) async fn write(&self, pf: Bdf) -> OwnedRwLockWriteGuard<()> {
        self.lock(pf).write_owned().await
    }

    /// The same for one of several changes that are made together: while one of them has the lock, the others have it, too.
    pub(crate) async fn write_together(&self, pf: Bdf, with: &Together) -> Kept {
        let place = Arc::clone(with.lock().entry(pf).or_default());
        // Who comes meanwhile waits for the one that waits for the lock.
        let mut place = place.lock().await;
        if let Some(kept) = place.upgrade() {
            return kept;
        }
        let kept = Arc::new(self.write(pf).await);
        *place = Arc::downgrade(&kept);
        kept
    }

    fn lock(&self, pf: Bdf) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(pf).or_default())
    }
}
