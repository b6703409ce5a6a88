//! What is kept of a partition, as JSON in a file of its own.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{HypervisorError, error::io_error};

/// More than any file that this program writes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads a value that `check` finds nothing wrong with.
pub(crate) fn load<T: DeserializeOwned>(
    path: &Path,
    check: impl FnOnce(&T) -> Result<(), String>,
) -> Result<T, HypervisorError> {
    let mut text = Vec::new();
    let file = File::open(path).map_err(io_error("open", path))?;
    file.take(MAX_BYTES).read_to_end(&mut text).map_err(io_error("read", path))?;
    let parsed = serde_json::from_slice(&text).map_err(|error| error.to_string());
    let checked = parsed.and_then(|value| check(&value).map(|()| value));
    checked.map_err(|why| io_error("understand", path)(io::Error::new(io::ErrorKind::InvalidData, why)))
}

/// Writes a value: afterwards the file holds the old one or this one, never a part.
pub(crate) fn save<T: Serialize>(value: &T, path: &Path) -> Result<(), HypervisorError> {
    let new = path.with_extension("new");
    let text = serde_json::to_vec_pretty(value).map_err(|error| io_error("write", path)(error.into()))?;
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    write().map_err(io_error("write", &new))?;
    fs::rename(&new, path).map_err(io_error("write", path))
}
