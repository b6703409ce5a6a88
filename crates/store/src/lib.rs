//! The memory of the management partition across crashes and reboots: one transactional file. docs/state.md draws it.
//!
//! ```text
//! <state folder>/
//!   lock          held for as long as a daemon works on this folder
//!   state.redb    state, original settings, plans with their journals, unanswered operations, audit log
//!   state.v1.json, audit.v1.jsonl, audit.1.v1.jsonl    what an ioward before this form had left; not read any more
//! ```
//!
//! [`Store`] is the seam: changes go in as plain data, all of them or none, and are on the disk when the call returns.
#![forbid(unsafe_code)]

mod audit;
mod export;
mod folder;
mod memory;
mod state_file;
mod tables;
mod version1;

pub use audit::{AuditQueue, KEPT_AUDIT_ENTRIES, kept_of_a_partition};
pub use export::{Export, ExportedPlan, ExportedStep};
pub use folder::{Folder, export, open};
pub use memory::MemoryFile;
/// The storage below a [`StateFile`]: a file, or a stand-in for one.
pub use redb::StorageBackend;
pub use state_file::StateFile;
pub use tables::{KEPT_PLANS, SCHEMA};

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use ioward_model::{
    AuditDropped, AuditEntry, Ended, Name, OpenOperation, PlanRecord, Row, State, StepRecord, VfId,
};

/// The durable storage of the management partition.
pub trait Store: Send + Sync {
    /// Makes all of these changes, or none. They are on the disk when this returns.
    ///
    /// # Errors
    /// When they can't be written: a full, read-only or broken disk. A crash may then keep or lose them;
    /// [`Change::Clear`] at the head of the next commit, with everything restated, makes it certain.
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError>;

    /// The latest entries of the audit log, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When they can't be read.
    fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError>;

    /// The entries of the audit log after the one of this number, oldest first, each with its number: at most `limit`, of one
    /// partition where one is named. Entries of an ioward before version 2 of the state have a number once another is written.
    ///
    /// # Errors
    /// When they can't be read.
    fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<Vec<(u64, AuditEntry)>, StoreError>;

    /// Number of dropped entries of the audit log, by partition, where there are any.
    ///
    /// # Errors
    /// When it can't be read.
    fn audit_dropped(&self) -> Result<BTreeMap<Name, AuditDropped>, StoreError>;

    /// Everything in the store, for people to read.
    ///
    /// # Errors
    /// When it can't be read.
    fn export(&self) -> Result<Export, StoreError>;
}

/// A change to the store.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Deletes all rows of the state and all unanswered operations; the changes that follow restate them.
    Clear,
    /// A row of the state has this value now.
    Row(Row),
    /// The host matches the state in this boot ([`Contents::boot`]).
    Boot(u64),
    /// A plan is about to be carried out. The oldest plan makes room for it.
    PlanBegun(Box<PlanRecord>),
    /// The progress of a step.
    Step {
        /// [`PlanRecord::number`].
        plan: u64,
        /// The step's number, from 1.
        number: usize,
        /// Its progress.
        record: StepRecord,
    },
    /// A plan has ended.
    PlanEnded {
        /// [`PlanRecord::number`].
        plan: u64,
        /// Its outcome.
        ended: Ended,
    },
    /// A partition's operation is about to be carried out. A VF has at most one at a time.
    OperationBegun(OpenOperation),
    /// The operation on this VF has been carried out, or has failed.
    OperationEnded(VfId),
    /// An entry for the audit log.
    Audit(AuditEntry),
    /// Further entries of a partition were dropped before they could be written.
    AuditDropped {
        /// The partition.
        partition: Name,
        /// Their number.
        dropped: AuditDropped,
    },
}

/// Everything that a starting daemon needs to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contents {
    /// The state.
    pub state: State,
    /// The boot in which the host was last made to match the state, as a number that identifies a boot; `None`:
    /// unknown.
    pub boot: Option<u64>,
    /// [`PlanRecord::number`] of the latest plan; 0 when there was none.
    pub last_plan: u64,
    /// The plan that was running when the previous daemon ended.
    pub interrupted: Option<Interrupted>,
    /// Operations that were in progress then.
    pub operations: Vec<OpenOperation>,
}

/// A plan that was running when the daemon ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Interrupted {
    /// The plan.
    pub record: PlanRecord,
    /// The progress of its steps, by number; steps not listed had not begun.
    pub steps: BTreeMap<usize, StepRecord>,
}

/// Why the store can't be read or written. A file that can't be read is left unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file could not be used.
    #[error("cannot {what} {path}", path = .path.display())]
    Io {
        /// The operation, as a verb.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The disk does not answer.
    #[error("the disk that holds the state has not answered for {} s; see dmesg", .after.as_secs())]
    Slow {
        /// For how long.
        after: Duration,
    },
    /// Another daemon uses it.
    #[error("another ioward works on {path}; stop it first, or give this one a folder of its own with --state-dir", path = .path.display())]
    Locked {
        /// The folder or file.
        path: PathBuf,
    },
    /// Its content is invalid.
    #[error("{path} is damaged ({why}); it is left as it is: move it away to begin with an empty state, or put a copy back", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The damage.
        why: String,
    },
    /// It is from a newer ioward.
    #[error("{path} is of version {found}; this ioward reads version {known}: use the newer one", path = .path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The newest this one knows.
        known: u64,
    },
}
