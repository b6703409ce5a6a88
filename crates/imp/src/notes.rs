//! What the management partition knows, in memory and on the disk: the [`State`], and what is written down beside it.
//!
//! A change is worked out on the rows that it may touch ([`State::part`]), written, and only then known: whoever looks
//! meanwhile sees what was so before, and waits for no disk.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ioward_model::{AuditEntry, OpenOperation, RowKey, State, VfId};
use ioward_store::{Change, Export, Store, StoreError};

use crate::error::error_chain;

/// Entries of the audit log that wait to be written. Beyond that the disk has been full for long, and the oldest are lost.
const MAX_WAITING: usize = 10_000;

/// How much a change needs the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// What can't be written is not known either, and not done.
    BeWritten,
    /// It is so, whether it can be written or not: what happened by itself, or the way back. It is written with the
    /// next change that can be.
    BeKnown,
}

/// The state, and where it is kept.
pub(crate) struct Notes {
    store: Box<dyn Store>,
    state: Mutex<State>,
    /// Held for as long as something is written; before `state`, where both are.
    writing: Mutex<Writing>,
}

#[derive(Default)]
struct Writing {
    /// What is written with the next change.
    waiting: Vec<Change>,
    operations: BTreeMap<VfId, OpenOperation>,
    /// A change could not be written: what is on the disk is not certain any more.
    in_doubt: bool,
}

impl Notes {
    pub(crate) fn new(store: Box<dyn Store>, state: State, operations: Vec<OpenOperation>) -> Self {
        let operations = operations.into_iter().map(|operation| (operation.vf, operation)).collect();
        let writing = Writing { operations, ..Writing::default() };
        Self { store, state: Mutex::new(state), writing: Mutex::new(writing) }
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> State {
        self.lock_state().clone()
    }

    /// Looks at the state as it is now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.lock_state())
    }

    /// Changes rows of the state, and writes that down together with `more`.
    pub(crate) fn change(
        &self,
        must: Must,
        rows: impl FnOnce(&State) -> Vec<RowKey>,
        more: Vec<Change>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), StoreError> {
        // The write may take a disk's time: other tasks are moved off this thread meanwhile.
        tokio::task::block_in_place(|| {
            let mut writing = self.lock_writing();
            let (keys, before) = self.look(|state| {
                let keys = rows(state);
                let part = state.part(&keys);
                (keys, part)
            });
            let mut after = before.clone();
            change(&mut after);
            let changed = keys.iter().map(|key| after.row(key)).zip(&keys);
            let changed: Vec<_> =
                changed.filter(|(row, key)| *row != before.row(key)).map(|(row, _)| row).collect();
            let rows = changed.iter().cloned().map(Change::Row);
            let written = writing.write(&*self.store, &self.state, rows.chain(more).collect(), must);
            if written.is_ok() || must == Must::BeKnown {
                let mut state = self.lock_state();
                for row in changed {
                    state.put(row);
                }
            }
            written
        })
    }

    /// Operations that are under way.
    pub(crate) fn operations(&self) -> Vec<OpenOperation> {
        self.lock_writing().operations.values().cloned().collect()
    }

    /// Notes that an operation is about to be carried out.
    pub(crate) fn operation_begun(&self, operation: OpenOperation) -> Result<(), StoreError> {
        let begun = vec![Change::OperationBegun(operation)];
        self.change(Must::BeWritten, |_| Vec::new(), begun, |_| {})
    }

    /// Notes that an operation is over, and has changed nothing.
    pub(crate) fn operation_ended(&self, vf: VfId) {
        // Without it, a daemon after this one would look at the VF, and find it set as before.
        let _ = self.change(Must::BeKnown, |_| Vec::new(), vec![Change::OperationEnded(vf)], |_| {});
    }

    /// Notes who asked for what. It is on the disk after the next change, or the next [`Notes::flush`].
    pub(crate) fn audit(&self, entry: AuditEntry) {
        self.lock_writing().wait(Change::Audit(entry));
    }

    /// Writes what waits to be written.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| {
            self.lock_writing().write(&*self.store, &self.state, Vec::new(), Must::BeWritten)
        })
    }

    /// The latest entries of the audit log, oldest first.
    pub(crate) fn latest_audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        tokio::task::block_in_place(|| {
            let writing = self.lock_writing();
            let mut entries = self.store.audit(limit)?;
            entries.extend(writing.waiting.iter().filter_map(|change| match change {
                Change::Audit(entry) => Some(entry.clone()),
                _ => None,
            }));
            entries.drain(..entries.len().saturating_sub(limit));
            Ok(entries)
        })
    }

    /// Everything that is on the disk.
    pub(crate) fn export(&self) -> Result<Export, StoreError> {
        tokio::task::block_in_place(|| {
            let _writing = self.lock_writing();
            self.store.export()
        })
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn write(
        &mut self,
        store: &dyn Store,
        state: &Mutex<State>,
        changes: Vec<Change>,
        must: Must,
    ) -> Result<(), StoreError> {
        if changes.is_empty() && self.waiting.is_empty() && !self.in_doubt {
            return Ok(());
        }
        let mut all = Vec::new();
        if self.in_doubt {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            all.push(Change::Clear);
            all.extend(state.keys().map(|key| Change::Row(state.row(&key))));
            all.extend(self.operations.values().cloned().map(Change::OperationBegun));
        }
        all.extend(self.waiting.iter().cloned());
        all.extend(changes.iter().cloned());
        let written = store.commit(&all);
        self.in_doubt = written.is_err();
        if written.is_ok() {
            self.waiting.clear();
        }
        if written.is_ok() || must == Must::BeKnown {
            for change in &changes {
                self.note_operation(change);
            }
        }
        if let Err(error) = &written
            && must == Must::BeKnown
        {
            tracing::error!("what is known cannot be written down: {}", error_chain(error));
            changes.into_iter().for_each(|change| self.wait(change));
        }
        written
    }

    fn note_operation(&mut self, change: &Change) {
        match change {
            Change::OperationBegun(operation) => _ = self.operations.insert(operation.vf, operation.clone()),
            Change::OperationEnded(vf) => _ = self.operations.remove(vf),
            _ => {}
        }
    }

    fn wait(&mut self, change: Change) {
        // Rows are said anew once writing is possible again.
        if matches!(change, Change::Row(_)) {
            return;
        }
        if self.waiting.len() >= MAX_WAITING
            && let Some(oldest) = self.waiting.iter().position(|change| matches!(change, Change::Audit(_)))
        {
            self.waiting.remove(oldest);
        }
        self.waiting.push(change);
    }
}
