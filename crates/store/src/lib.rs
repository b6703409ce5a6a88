//! What the management partition remembers across a restart: the [`State`], and the audit log.
//!
//! ```text
//! <state folder>/
//!   lock          held for as long as a daemon works on this folder
//!   state.json    the state; replaced as a whole, by rename
//!   audit.jsonl   who asked for what, one entry a line
//!   audit.1.jsonl the entries before those
//! ```
#![forbid(unsafe_code)]

mod audit;
mod state_file;

pub use audit::{AuditLog, MAX_AUDIT_BYTES};
pub use state_file::StateFile;

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ioward_model::State;
use rustix::fs::{FlockOperation, flock};

/// Why the state folder could not be used. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file could not be used.
    #[error("cannot {what} {path}", path = .path.display())]
    Io {
        /// What was to be done, as a verb.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon works on it.
    #[error("another ioward works on {path}; stop it first, or give this one a folder of its own with --state-dir", path = .path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// It makes no sense.
    #[error("{path} is damaged ({why}); it is left as it is: move it away to begin with an empty state, or put a copy back", path = .path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
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
        known: u32,
    },
}

/// The state folder of a running daemon. One daemon at a time has it.
#[derive(Debug)]
pub struct Store {
    /// The state.
    pub state: StateFile,
    /// The audit log.
    pub audit: AuditLog,
    _lock: File,
}

impl Store {
    /// Takes the folder, makes it when it is not there, and reads the state in it.
    ///
    /// # Errors
    /// When another daemon has it, or the state in it can't be read.
    pub fn open(folder: &Path) -> Result<(Self, State), StoreError> {
        let io = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        fs::create_dir_all(folder).map_err(io("create", folder))?;
        let lock_path = folder.join("lock");
        let mut options = OpenOptions::new();
        let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(io("create", &lock_path))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| StoreError::Locked { path: folder.to_owned() })?;
        let (state_file, state) = StateFile::open(folder.join("state.json"))?;
        let audit = AuditLog::open(folder)?;
        Ok((Self { state: state_file, audit, _lock: lock }, state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_daemons_do_not_share_a_folder() {
        let folder = std::env::temp_dir().join(format!("ioward-store-{}", std::process::id()));
        let (first, _) = Store::open(&folder).unwrap();
        let second = Store::open(&folder).unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        drop(first);
        Store::open(&folder).unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
