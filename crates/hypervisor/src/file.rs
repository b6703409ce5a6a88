//! Records on disk, and errors about files.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::HypervisorError;

/// More than any record that this program writes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a record, and holds it against what it must be.
pub(crate) fn load<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, HypervisorError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(io_error("open", path))?;
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(io_error("read", path))?;
    let record = serde_json::from_slice(&text).map_err(|error| error.to_string());
    let checked = record.and_then(|record| check(&record).map(|()| record));
    checked.map_err(|why| io_error("understand", path)(io::Error::new(io::ErrorKind::InvalidData, why)))
}

/// Writes a record: afterwards the file holds the old one or this one, never a part.
pub(crate) fn save<T: Serialize>(path: &Path, record: &T) -> Result<(), HypervisorError> {
    let new = path.with_extension("new");
    let text = serde_json::to_vec_pretty(record).map_err(|error| io_error("write", path)(error.into()))?;
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &new))?;
    fs::rename(&new, path).map_err(io_error("write", path))
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("cannot remove {}: {error}", path.display());
    }
}

/// Makes a [`HypervisorError::Io`] of an [`io::Error`].
pub(crate) fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> HypervisorError {
    move |source| HypervisorError::Io { what: what.into(), path: path.to_owned(), source }
}
