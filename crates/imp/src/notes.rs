//! The [`State`] in memory and on the disk, and the operations and audit entries that are written down beside it.
//!
//! A change is worked out on the rows that it may touch ([`State::part`]), written, and only then known: whoever looks
//! meanwhile sees the state before the change, and waits for no disk.
//!
//! ```text
//!   plan, repair ──────────────────────┐
//!   guest ─────> its turn (async) ─────┼─> writing (blocks this thread, off the workers) ──> disk
//!   API: reads ─> its turn (async) ────┘         │
//!   look, audit: state, waiting, operations <────┘   locks that nobody holds while the disk is busy
//! ```
//!
//! Those of whom there may be many wait for their turn without a thread: a disk that does not answer holds a few threads, and
//! no worker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_model::{AuditDropped, AuditEntry, IntoMap, Name, OpenOperation, Row, RowKey, State, VfId};
use ioward_store::{AuditQueue, Change, Export, Store, StoreError};
use tokio::{
    sync::{Notify, OwnedMutexGuard, watch},
    time::timeout,
};

use crate::error::error_chain;

/// How long a request waits for a disk that is busy with others, before it is refused.
pub(crate) const DISK_TIMEOUT: Duration = Duration::from_secs(10);

/// How much a change needs the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Must {
    /// A change that can't be written is not made.
    BeWritten,
    /// The change is a fact already, whether it can be written or not: something happened by itself, or was rolled back. It is
    /// written with the next change that can be.
    BeKnown,
}

/// The state, and where it is kept.
pub(crate) struct Notes {
    store: Box<dyn Store>,
    /// Whoever may wait for a long time takes it before `writing`.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Held for as long as something is written or read; before the three below.
    writing: Mutex<Writing>,
    state: Mutex<State>,
    operations: Mutex<BTreeMap<VfId, OpenOperation>>,
    waiting: Mutex<Waiting>,
    /// Wakes whoever writes what waits.
    waits: Notify,
    /// How many changes of the state there were.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Writing {
    /// A change could not be written: what is on the disk is not certain any more.
    in_doubt: bool,
}

/// Written with the next change.
#[derive(Default)]
struct Waiting {
    changes: Vec<Change>,
    audit: AuditQueue,
}

/// The right to use the disk next.
pub(crate) struct Turn {
    _held: OwnedMutexGuard<()>,
}

/// The latest entries of the audit log, oldest first, and how many entries of each partition are not kept any more.
pub(crate) type Audit = (Vec<AuditEntry>, BTreeMap<Name, AuditDropped>);

/// The same of a page of the log, whose entries have their numbers.
pub(crate) type AuditPage = (Vec<(u64, AuditEntry)>, BTreeMap<Name, AuditDropped>);

impl Notes {
    pub(crate) fn new(store: Box<dyn Store>, state: State, operations: Vec<OpenOperation>) -> Self {
        let operations = operations.into_iter().map(|operation| (operation.vf, operation)).into_map();
        Self {
            store,
            turn: Arc::default(),
            writing: Mutex::default(),
            state: Mutex::new(state),
            operations: Mutex::new(operations),
            waiting: Mutex::default(),
            waits: Notify::new(),
            changes: watch::Sender::default(),
        }
    }

    /// How many changes of the state there were: who has counted as many has seen the latest.
    pub(crate) fn changes(&self) -> u64 {
        *self.changes.borrow()
    }

    /// Waits until the state is one that somebody waits for.
    pub(crate) async fn wait_for(&self, mut is_so: impl FnMut(&State) -> bool) {
        let mut changes = self.changes.subscribe();
        // Not by the channel's own `wait_for`: it would look while it holds a lock that a change takes.
        while !self.look(&mut is_so) && changes.changed().await.is_ok() {}
    }

    /// The state as it is now.
    pub(crate) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Looks at the state as it is now.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&lock(&self.state))
    }

    /// Waits until the disk is free, without a thread and within a bound.
    pub(crate) async fn turn(&self) -> Result<Turn, StoreError> {
        let turn = timeout(DISK_TIMEOUT, self.turn_at_last()).await;
        turn.map_err(|_| StoreError::Slow { after: DISK_TIMEOUT })
    }

    /// The same for whoever can't give up.
    pub(crate) async fn turn_at_last(&self) -> Turn {
        Turn { _held: Arc::clone(&self.turn).lock_owned().await }
    }

    /// Changes rows of the state, and writes that down together with `more`. An operation that is under way on a VF that
    /// is taken from its partition ends with that.
    pub(crate) fn change(
        &self,
        must: Must,
        rows: impl FnOnce(&State) -> Vec<RowKey>,
        more: Vec<Change>,
        change: impl FnOnce(&mut State),
    ) -> Result<(), StoreError> {
        // The write may take a disk's time: other tasks are moved off this thread meanwhile.
        tokio::task::block_in_place(|| {
            let mut writing = lock(&self.writing);
            let (keys, before) = self.look(|state| {
                let keys = rows(state);
                let part = state.part(&keys);
                (keys, part)
            });
            let mut after = before.clone();
            change(&mut after);
            let (mut changed, mut all) = (Vec::new(), Vec::new());
            for key in &keys {
                let (was, is) = (before.row(key), after.row(key));
                if was != is {
                    all.extend(self.operation_ended_by(&was, &is));
                    changed.push(is);
                }
            }
            all.extend(changed.iter().cloned().map(Change::Row));
            all.extend(more);
            let written = self.write(&mut writing, all, must);
            if written.is_ok() || must == Must::BeKnown {
                let mut state = lock(&self.state);
                for row in changed {
                    state.put(row);
                }
                self.changes.send_modify(|count| *count += 1);
            }
            written
        })
    }

    /// The end of the operation that is under way on the VF of a row, where the row does not speak of that VF any more.
    fn operation_ended_by(&self, was: &Row, is: &Row) -> Option<Change> {
        let Row::Assignment(owner, Some(held)) = was else { return None };
        if matches!(is, Row::Assignment(_, Some(now)) if now.vf == held.vf) {
            return None;
        }
        let open = self.operation(held.vf)?;
        (open.partition == owner.partition).then_some(Change::OperationEnded(held.vf))
    }

    /// Operations that are under way.
    pub(crate) fn operations(&self) -> Vec<OpenOperation> {
        lock(&self.operations).values().cloned().collect()
    }

    /// The operation that is under way on a VF.
    pub(crate) fn operation(&self, vf: VfId) -> Option<OpenOperation> {
        lock(&self.operations).get(&vf).cloned()
    }

    /// Notes that an operation is about to be carried out.
    pub(crate) async fn operation_begun(&self, operation: OpenOperation) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        let begun = vec![Change::OperationBegun(operation)];
        self.change(Must::BeWritten, |_| Vec::new(), begun, |_| {})
    }

    /// Notes that an operation is over, and has changed nothing.
    pub(crate) async fn operation_ended(&self, vf: VfId) {
        let _turn = self.turn_at_last().await;
        // Without it, a daemon after this one would look at the VF, and find it set as before.
        let _ = self.change(Must::BeKnown, |_| Vec::new(), vec![Change::OperationEnded(vf)], |_| {});
    }

    /// Notes who asked for what. It is on the disk after the next change, or the next [`Notes::flush`].
    pub(crate) fn audit(&self, entry: AuditEntry) {
        lock(&self.waiting).audit.push(entry);
        self.waits.notify_one();
    }

    /// Waits until something waits to be written.
    pub(crate) async fn something_waits(&self) {
        self.waits.notified().await;
    }

    /// Writes what waits to be written.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        tokio::task::block_in_place(|| self.write(&mut lock(&self.writing), Vec::new(), Must::BeWritten))
    }

    /// Writes what waits to be written, for whoever has nobody to tell when that fails.
    pub(crate) fn flush_or_say(&self) {
        if let Err(error) = self.flush() {
            tracing::error!("the audit log cannot be written: {}", error_chain(&error));
        }
    }

    /// The latest entries of the audit log.
    pub(crate) fn latest_audit(&self, limit: usize) -> Result<Audit, StoreError> {
        tokio::task::block_in_place(|| {
            let _writing = lock(&self.writing);
            let (mut entries, mut dropped) = (self.store.audit(limit)?, self.store.audit_dropped()?);
            let waiting = lock(&self.waiting);
            entries.extend(waiting.audit.entries());
            entries.drain(..entries.len().saturating_sub(limit));
            for (partition, more) in waiting.audit.dropped() {
                dropped.entry(partition.clone()).or_default().add_all(more);
            }
            Ok((entries, dropped))
        })
    }

    /// The entries of the audit log after the one of a number, with their numbers. What waits to be written has none before it is.
    pub(crate) fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<AuditPage, StoreError> {
        tokio::task::block_in_place(|| {
            let mut writing = lock(&self.writing);
            if let Err(error) = self.write(&mut writing, Vec::new(), Must::BeWritten) {
                tracing::error!("the audit log cannot be written: {}", error_chain(&error));
            }
            Ok((self.store.audit_after(number, limit, partition)?, self.store.audit_dropped()?))
        })
    }

    /// Everything that is on the disk.
    pub(crate) fn export(&self) -> Result<Export, StoreError> {
        tokio::task::block_in_place(|| {
            let _writing = lock(&self.writing);
            self.store.export()
        })
    }

    fn write(&self, writing: &mut Writing, changes: Vec<Change>, must: Must) -> Result<(), StoreError> {
        let waiting = {
            let mut waiting = lock(&self.waiting);
            if changes.is_empty()
                && waiting.changes.is_empty()
                && waiting.audit.is_empty()
                && !writing.in_doubt
            {
                return Ok(());
            }
            Waiting { changes: std::mem::take(&mut waiting.changes), audit: waiting.audit.take() }
        };
        let mut all = Vec::new();
        if writing.in_doubt {
            all.push(Change::Clear);
            self.look(|state| all.extend(state.keys().map(|key| Change::Row(state.row(&key)))));
            all.extend(self.operations().into_iter().map(Change::OperationBegun));
        }
        all.extend(waiting.changes.iter().cloned());
        all.extend(waiting.audit.changes());
        all.extend(changes.iter().cloned());
        let written = self.store.commit(&all);
        writing.in_doubt = written.is_err();
        if written.is_ok() || must == Must::BeKnown {
            changes.iter().for_each(|change| self.note_operation(change));
        }
        if let Err(error) = &written {
            let mut now = lock(&self.waiting);
            now.audit.put_back(waiting.audit);
            now.changes = waiting.changes;
            self.waits.notify_one();
            if must == Must::BeKnown {
                tracing::error!("what is known cannot be written down: {}", error_chain(error));
                for change in changes {
                    match change {
                        // Rows are said anew once writing is possible again.
                        Change::Row(_) => {}
                        Change::Audit(entry) => now.audit.push(entry),
                        change => now.changes.push(change),
                    }
                }
            }
        }
        written
    }

    fn note_operation(&self, change: &Change) {
        let mut operations = lock(&self.operations);
        match change {
            Change::OperationBegun(operation) => _ = operations.insert(operation.vf, operation.clone()),
            Change::OperationEnded(vf) => _ = operations.remove(vf),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
