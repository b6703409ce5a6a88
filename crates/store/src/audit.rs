//! Who asked for what: an append-only log of the operations of client partitions.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ioward_model::AuditEntry;

use crate::StoreError;

/// The log is begun anew when it passes this size, in bytes; one older part is kept. A guest can fill no disk.
pub const MAX_AUDIT_BYTES: u64 = 16 << 20;

/// The audit log of a state folder.
#[derive(Debug)]
pub struct AuditLog {
    folder: PathBuf,
    open: Mutex<(File, u64)>,
}

impl AuditLog {
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = current(folder);
        let file =
            append_to(&path).map_err(|source| StoreError::Io { what: "open", path: path.clone(), source })?;
        let length = file.metadata().map_err(|source| StoreError::Io { what: "read", path, source })?.len();
        Ok(Self { folder: folder.to_owned(), open: Mutex::new((file, length)) })
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn append(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let fail = |source| StoreError::Io { what: "write", path: current(&self.folder), source };
        let mut line = serde_json::to_vec(entry).map_err(io::Error::from).map_err(fail)?;
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, length) = &mut *open;
        if *length > MAX_AUDIT_BYTES {
            fs::rename(current(&self.folder), older(&self.folder)).map_err(fail)?;
            *file = append_to(&current(&self.folder)).map_err(fail)?;
            *length = 0;
        }
        file.write_all(&line).map_err(fail)?;
        *length += line.len() as u64;
        Ok(())
    }

    /// The latest entries, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When the log can't be read. A line that makes no sense (the last one of a crash) is passed over.
    pub fn latest(&self, limit: usize) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries = std::collections::VecDeque::new();
        for path in [older(&self.folder), current(&self.folder)] {
            let file = match File::open(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                file => file.map_err(|source| StoreError::Io { what: "open", path, source })?,
            };
            for line in BufReader::new(file).lines().map_while(Result::ok) {
                if let Ok(entry) = serde_json::from_str(&line) {
                    entries.push_back(entry);
                    if entries.len() > limit {
                        entries.pop_front();
                    }
                }
            }
        }
        Ok(entries.into())
    }
}

fn current(folder: &Path) -> PathBuf {
    folder.join("audit.jsonl")
}

fn older(folder: &Path) -> PathBuf {
    folder.join("audit.1.jsonl")
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use ioward_model::{Verdict, VfOp};

    use super::*;

    #[test]
    fn entries_come_back_in_order_and_a_torn_line_costs_only_itself() {
        let folder = std::env::temp_dir().join(format!("ioward-audit-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let log = AuditLog::open(&folder).unwrap();
        let entry = |time_ms| AuditEntry {
            time_ms,
            partition: "web".parse().unwrap(),
            request: VfOp::List,
            verdict: Verdict::Refused("no".into()),
        };
        log.append(&entry(1)).unwrap();
        append_to(&current(&folder)).unwrap().write_all(b"{\"time_ms\":2,\"parti\n").unwrap();
        log.append(&entry(3)).unwrap();
        assert_eq!(log.latest(10).unwrap(), [entry(1), entry(3)]);
        assert_eq!(log.latest(1).unwrap(), [entry(3)]);
        fs::remove_dir_all(folder).unwrap();
    }
}
