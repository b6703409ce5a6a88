//! The limits of a snapshot.

use super::{
    Snapshot, SnapshotError,
    content::{MAX_CONTENT, short},
};
use crate::linux::root::is_name;

/// Maximum number of names in a folder, and so of functions. A host has hundreds, and thousands with all VFs on.
const MAX_NAMES: usize = 8192;
/// Maximum number of NVMe controllers behind a PF, of its health reporters, and of its Reasons: today's controllers have at most 127 VFs.
const MAX_OF_DRIVER: usize = 1024;
/// Longest path: PATH_MAX of Linux.
const MAX_PATH: usize = 4096;

/// Checks sizes, paths and names.
pub(super) fn check(snapshot: &Snapshot) -> Result<(), SnapshotError> {
    let host = &snapshot.host;
    let paths =
        host.folders.keys().chain(host.links.keys()).chain(host.files.keys()).chain(host.errors.keys());
    for path in paths {
        let proper = path.len() <= MAX_PATH && path.split('/').all(is_name);
        proper.then_some(()).ok_or_else(|| SnapshotError::Name(short(path)))?;
    }
    for (path, names) in &host.folders {
        at_most(MAX_NAMES, names.len(), path, "entries")?;
        let sorted = names.is_sorted_by(|a, b| a < b);
        let strange = names.iter().find(|name| !is_name(name)).or(names.first().filter(|_| !sorted));
        strange.map_or(Ok(()), |name| Err(SnapshotError::Name(short(&format!("{path}/{name}")))))?;
    }
    for (path, name) in &host.links {
        is_name(name)
            .then_some(())
            .ok_or_else(|| SnapshotError::Name(short(&format!("{path} -> {name}"))))?;
    }
    for (path, content) in &host.files {
        at_most(MAX_CONTENT, content.length(), path, "bytes")?;
    }
    at_most(MAX_NAMES, snapshot.holders.len(), "holders", "VFs")?;
    for (pf, details) in &snapshot.drivers {
        let reporters = details.health.as_ref().map_or(0, Vec::len);
        let most = details.secondaries.len().max(details.reasons.len()).max(reporters);
        at_most(MAX_OF_DRIVER, most, &pf.to_string(), "controllers, reporters or reasons")?;
    }
    Ok(())
}

fn at_most(most: usize, found: usize, what: &str, of: &'static str) -> Result<(), SnapshotError> {
    if found <= most {
        return Ok(());
    }
    Err(SnapshotError::TooMany { what: short(what), found, of, most })
}
