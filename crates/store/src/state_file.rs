//! [`StateFile`]: the store in one file.
//!
//! It checks a file before it touches it: it copies the file into memory, opens the copy, repairs it where a crash
//! has interrupted a commit, checks it page by page, and reads it. Only when all of that succeeds does it open the
//! file itself, so a file that can't be used is never changed.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ioward_model::{AuditDropped, AuditEntry, Name};
use redb::{Builder, Database, DatabaseError, StorageBackend};

use crate::{
    Change, Contents, Export, Store, StoreError,
    memory::MemoryFile,
    tables::{self, Written, Wrong},
};

/// Memory for pages of the file, in bytes. Everything is read once, at the start.
const CACHE: usize = 1 << 20;

/// Real hosts stay far below: 5,000 partitions need about 20 MB.
const MAX_FILE_BYTES: u64 = 1 << 30;

type Open<T> = Box<dyn Fn() -> Result<T, StoreError> + Send + Sync>;
type IsMade = Box<dyn Fn(u64) -> Result<bool, StoreError> + Send + Sync>;

/// A store in a file, or in a stand-in for one.
pub struct StateFile {
    path: PathBuf,
    open: Open<(Database, Contents)>,
    /// Opens a copy, which needs no room on the disk.
    copy: Open<Database>,
    /// Whether the file's latest commit is this one, and is on the disk.
    is_made: IsMade,
    /// `None` after a failed write: the file is checked again before its next use.
    database: Mutex<Option<Database>>,
}

impl fmt::Debug for StateFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateFile {
    /// Opens an existing file. `open` opens the storage to use as the file, again after each error. Errors call it
    /// `path`.
    ///
    /// # Errors
    /// When it can't be read, is invalid or is from a newer ioward. The file is unchanged then.
    pub fn open<B: StorageBackend>(
        path: PathBuf,
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<(Self, Contents), StoreError> {
        let at = path.clone();
        let open_file = Arc::new(move || {
            open().map_err(|source| StoreError::Io { what: "open", path: at.clone(), source })
        });
        let (open_copied, at) = (Arc::clone(&open_file), path.clone());
        let open_a_copy: Open<Database> = Box::new(move || copy(&at, &open_copied()?));
        let (open_made, at) = (Arc::clone(&open_file), path.clone());
        let is_made: IsMade = Box::new(move |commit| {
            let file = open_made()?;
            let last = tables::last_commit(&copy(&at, &file)?).map_err(|wrong| of_content(&at, wrong))?;
            file.sync_data().map_err(|source| StoreError::Io { what: "write", path: at.clone(), source })?;
            Ok(last == commit)
        });
        let at = path.clone();
        let open: Open<(Database, Contents)> = Box::new(move || {
            let file = open_file()?;
            let contents = look(&at, &file)?;
            let database = builder().create_with_backend(file).map_err(|error| of_open(&at, error))?;
            Ok((database, contents))
        });
        let (database, contents) = open()?;
        Ok((Self { path, open, copy: open_a_copy, is_made, database: Mutex::new(Some(database)) }, contents))
    }

    /// Initializes an empty file with these changes.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn create(path: &Path, file: impl StorageBackend, changes: &[Change]) -> Result<(), StoreError> {
        let database = builder().create_with_backend(file).map_err(|error| of_open(path, error))?;
        let changes = encode(path, changes)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            tables::begin(&transaction)?;
            tables::write(&transaction, &changes)?;
            Ok(transaction.commit()?)
        };
        write().map_err(|error| of_write(path, error))?;
        database.close().map_err(|error| of_write(path, error.into()))
    }

    /// Everything in a file, whatever state a crash has left it in. Leaves the file unchanged.
    ///
    /// # Errors
    /// As [`StateFile::open`].
    pub fn read(path: &Path, file: &impl StorageBackend) -> Result<Export, StoreError> {
        tables::export(&copy(path, file)?).map_err(|wrong| of_content(path, wrong))
    }

    fn read_with<T>(&self, read: impl FnOnce(&Database) -> Result<T, Wrong>) -> Result<T, StoreError> {
        let open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match &*open {
            Some(database) => read(database),
            None => read(&(self.copy)()?),
        };
        result.map_err(|wrong| of_content(&self.path, wrong))
    }
}

impl Store for StateFile {
    fn commit(&self, changes: &[Change]) -> Result<(), StoreError> {
        let changes = encode(&self.path, changes)?;
        let mut open = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let database = match open.take() {
            Some(database) => database,
            None => (self.open)()?.0,
        };
        let mut commit = None;
        let mut write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            commit = Some(tables::write(&transaction, &changes)?);
            Ok(transaction.commit()?)
        };
        let Err(error) = write() else {
            *open = Some(database);
            return Ok(());
        };
        drop(database);
        // redb cleans up after a commit. If that fails, it reports a failure although the commit is done.
        if commit.is_some_and(|commit| (self.is_made)(commit).is_ok_and(|is_made| is_made)) {
            return Ok(());
        }
        Err(of_write(&self.path, error))
    }

    fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        self.read_with(|database| tables::audit(database, limit))
    }

    fn audit_after(
        &self,
        number: u64,
        limit: usize,
        partition: Option<&Name>,
    ) -> Result<Vec<(u64, AuditEntry)>, StoreError> {
        self.read_with(|database| tables::audit_after(database, number, limit, partition))
    }

    fn audit_dropped(&self) -> Result<BTreeMap<Name, AuditDropped>, StoreError> {
        self.read_with(tables::audit_dropped)
    }

    fn export(&self) -> Result<Export, StoreError> {
        self.read_with(tables::export)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Checks and reads a copy.
fn look(path: &Path, file: &impl StorageBackend) -> Result<Contents, StoreError> {
    tables::contents(&copy(path, file)?).map_err(|wrong| of_content(path, wrong))
}

/// A copy in memory, opened and checked.
fn copy(path: &Path, file: &impl StorageBackend) -> Result<Database, StoreError> {
    let corrupt = |why: &str| StoreError::Corrupt { path: path.to_owned(), why: why.to_owned() };
    let read = |source| StoreError::Io { what: "read", path: path.to_owned(), source };
    match file.len().map_err(read)? {
        // A new file gets its name only once there is something in it.
        0 => return Err(corrupt("it is empty")),
        1..=MAX_FILE_BYTES => {}
        _ => return Err(corrupt("it is larger than any state")),
    }
    let copy = MemoryFile::copy_of(file).map_err(read)?;
    let opened = builder().set_check_integrity_on_open(true).create_with_backend(copy);
    opened.map_err(|error| match error {
        // The copy itself can't fail: this error means that a page points beyond the end.
        DatabaseError::Storage(redb::StorageError::Io(error)) => corrupt(&error.to_string()),
        error => of_open(path, error),
    })
}

fn encode(path: &Path, changes: &[Change]) -> Result<Vec<Written>, StoreError> {
    let encoded: serde_json::Result<Vec<_>> = changes.iter().map(Written::of).collect();
    encoded.map_err(|error| StoreError::Io { what: "write", path: path.to_owned(), source: error.into() })
}

fn of_open(path: &Path, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: path.to_owned() },
        error => of(path, "open", error.into()),
    }
}

fn of_write(path: &Path, error: redb::Error) -> StoreError {
    of(path, "write", error)
}

fn of_content(path: &Path, wrong: Wrong) -> StoreError {
    let path = path.to_owned();
    match wrong {
        Wrong::Storage(error) => of(&path, "read", error),
        Wrong::Content(why) => StoreError::Corrupt { path, why },
        Wrong::Version(found) if found > tables::WITH_MOVES => {
            StoreError::Newer { path, found, known: tables::WITH_MOVES }
        }
        Wrong::Version(found) => {
            StoreError::Corrupt { path, why: format!("it says that it is of version {found}") }
        }
    }
}

fn of(path: &Path, what: &'static str, error: redb::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        redb::Error::Io(source) => StoreError::Io { what, path, source },
        redb::Error::Corrupted(why) => StoreError::Corrupt { path, why },
        other if what == "write" => StoreError::Io { what, path, source: io::Error::other(other) },
        other => StoreError::Corrupt { path, why: other.to_string() },
    }
}
