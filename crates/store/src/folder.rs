//! The state folder: its lock, and how its file is made.
//!
//! ```text
//!   nothing ─────────────┐  written as state.redb.new,
//!   state.json (version 1)┴─ synced, renamed ──> state.redb     state.json ──> state.v1.json
//! ```
//!
//! The file gets its name only once it is complete: a commit wrote everything found under that name.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use ioward_model::{AuditDropped, AuditEntry, Name};
use redb::backends::FileBackend;
use rustix::fs::{FlockOperation, flock};

use crate::{Change, Contents, Export, StateFile, Store, StoreError, version1};

const LOCK: &str = "lock";
const FILE: &str = "state.redb";

/// The state folder of a running daemon. One daemon at a time has it.
#[derive(Debug)]
pub struct Folder {
    file: StateFile,
    _lock: File,
}

impl Store for Folder {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        self.file.commit(changes)
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.file.audit(limit)
    }

    fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.file.audit_after(number, limit, partition)
    }

    fn audit_dropped(&self) -> Result<BTreeMap<Name, AuditDropped>, StoreError> {
        self.file.audit_dropped()
    }

    fn export(&self) -> Result<Export, StoreError> {
        self.file.export()
    }
}

/// Locks a folder, makes it when it is missing, and opens its file; migrates one of version 1.
///
/// # Errors
/// When another daemon holds the lock, or the file can't be used; the file is unchanged then.
pub fn open(folder: &Path) -> Result<(Folder, Contents), StoreError> {
    let mut options = fs::DirBuilder::new();
    options.recursive(true).mode(0o700).create(folder).map_err(io_error("create", folder))?;
    let path = folder.join(LOCK);
    let mut options = OpenOptions::new();
    let lock = options.create(true).truncate(false).write(true).mode(0o600).open(&path);
    let lock = lock.map_err(io_error("create", &path))?;
    take(&lock, folder)?;
    let path = folder.join(FILE);
    if !path.try_exists().map_err(io_error("look for", &path))? {
        create(folder, &path, &version1::read(folder)?)?;
    }
    let at = path.clone();
    let (file, contents) =
        StateFile::open(path, move || file(&at, OpenOptions::new().read(true).write(true)))?;
    set_aside(folder)?;
    Ok((Folder { file, _lock: lock }, contents))
}

/// Everything in the folder of a stopped daemon. Changes nothing, so it works on a read-only disk too.
///
/// # Errors
/// When a daemon uses the folder, the file is missing, or the file can't be used.
pub fn export(folder: &Path) -> Result<Export, StoreError> {
    // A folder without a lock file has never had a daemon.
    let _lock = match File::open(folder.join(LOCK)) {
        Ok(lock) => {
            take(&lock, folder)?;
            Some(lock)
        }
        Err(_) => None,
    };
    let path = folder.join(FILE);
    let file = file(&path, OpenOptions::new().read(true)).map_err(io_error("open", &path))?;
    StateFile::read(&path, &file)
}

fn take(lock: &File, folder: &Path) -> Result<(), StoreError> {
    flock(lock, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| StoreError::Locked { path: folder.to_owned() })
}

fn file(path: &Path, options: &OpenOptions) -> io::Result<FileBackend> {
    FileBackend::new(options.open(path)?).map_err(io::Error::other)
}

fn create(folder: &Path, path: &Path, changes: &[Change]) -> Result<(), StoreError> {
    let new = path.with_extension("redb.new");
    let mut options = OpenOptions::new();
    options.create(true).truncate(true).read(true).write(true).mode(0o600);
    let file = file(&new, &options).map_err(io_error("create", &new))?;
    StateFile::create(&new, file, changes)?;
    File::open(&new).and_then(|file| file.sync_all()).map_err(io_error("sync", &new))?;
    fs::rename(&new, path).map_err(io_error("make", path))?;
    // The rename is durable only once the folder is synced.
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error("sync", folder))
}

/// Renames the files of version 1, so that nothing reads them again. Never replaces an existing file.
fn set_aside(folder: &Path) -> Result<(), StoreError> {
    for name in version1::AUDIT.iter().chain([&version1::STATE]) {
        let path = folder.join(name);
        if !path.try_exists().map_err(io_error("look for", &path))? {
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let mut aside: PathBuf = path.with_extension(format!("v1.{extension}"));
        while aside.try_exists().map_err(io_error("look for", &aside))? {
            aside.as_mut_os_string().push("~");
        }
        tracing::info!("{} has been taken over into {FILE}; it is {} now", path.display(), aside.display());
        fs::rename(&path, &aside).map_err(io_error("rename", &path))?;
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { what, path: path.to_owned(), source }
}
