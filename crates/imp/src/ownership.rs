//! Keeps what partitions ask for apart from what plans do: an operation that a partition began never ends on a VF that is
//! already another's, nor on one that has just been cleaned. One lock for each adapter, so that an adapter that is busy
//! for minutes, or stuck, keeps nobody waiting who has nothing to do with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use ioward_pci::Bdf;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// The locks of all adapters; they come to be when they are first used.
#[derive(Debug, Default)]
pub(crate) struct Ownership(Mutex<BTreeMap<Bdf, Arc<RwLock<()>>>>);

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

    fn lock(&self, pf: Bdf) -> Arc<RwLock<()>> {
        Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(pf).or_default())
    }
}
