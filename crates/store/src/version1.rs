//! Version 1 of the store: `state.json`, rewritten by every change, and `audit.jsonl`, one entry a line.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
};

use ioward_model::{AuditEntry, State};

use crate::{Change, KEPT_AUDIT_ENTRIES, StoreError};

/// Above the size of any `state.json`: 5,000 partitions needed about 10 MB.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// The state. A folder without it holds nothing of version 1.
pub(crate) const STATE: &str = "state.json";

/// The audit log, older part first.
pub(crate) const AUDIT: [&str; 2] = ["audit.1.jsonl", "audit.jsonl"];

/// Everything in a folder of version 1, as changes to an empty store; empty without a `state.json`.
pub(crate) fn read(folder: &Path) -> Result<Vec<Change>, StoreError> {
    let path = folder.join(STATE);
    let io = |source| StoreError::Io { what: "read", path: path.clone(), source };
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file.map_err(io)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_STATE_BYTES).read_to_end(&mut bytes).map_err(io)?;
    let state = parse(&path, &bytes)?;
    let rows = state.keys().map(|key| Change::Row(state.row(&key)));
    Ok(rows.chain(audit(folder)?.into_iter().map(Change::Audit)).collect())
}

fn parse(path: &Path, bytes: &[u8]) -> Result<State, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { path: path.to_owned(), why };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    match value.get("version").and_then(serde_json::Value::as_u64) {
        None => Err(corrupt("it has no version".into())),
        Some(1) => serde_json::from_value(value).map_err(|e| corrupt(e.to_string())),
        Some(found) => Err(StoreError::Newer { path: path.to_owned(), found, known: 1 }),
    }
}

/// The latest entries. Skips invalid lines, such as the last one before a crash.
fn audit(folder: &Path) -> Result<VecDeque<AuditEntry>, StoreError> {
    let kept = usize::try_from(KEPT_AUDIT_ENTRIES).unwrap_or(usize::MAX);
    let mut entries = VecDeque::new();
    for path in AUDIT.map(|name| folder.join(name)) {
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            file => file.map_err(|source| StoreError::Io { what: "open", path, source })?,
        };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            entries.extend(serde_json::from_str::<AuditEntry>(&line));
            if entries.len() > kept {
                entries.pop_front();
            }
        }
    }
    Ok(entries)
}
