//! [`ToldStore`]: a store that tells a test before it writes.

use std::collections::BTreeMap;

use ioward_model::{AuditDropped, AuditEntry, Name};
use ioward_store::{Change, Export, Store, StoreError};

/// A store that calls something before each commit, which may wait.
pub struct ToldStore<F> {
    /// The store itself.
    pub store: Box<dyn Store>,
    /// Called before each commit.
    pub before_commit: F,
}

impl<F: Fn() + Send + Sync> Store for ToldStore<F> {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        (self.before_commit)();
        self.store.commit(changes)
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.audit(limit)
    }

    fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.store.audit_after(number, limit, partition)
    }

    fn audit_dropped(&self) -> Result<BTreeMap<Name, AuditDropped>, StoreError> {
        self.store.audit_dropped()
    }

    fn export(&self) -> Result<Export, StoreError> {
        self.store.export()
    }
}
