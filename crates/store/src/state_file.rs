//! The state as one JSON file, replaced as a whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ioward_model::State;

use crate::StoreError;

/// The version of the form that this code writes.
const VERSION: u32 = 1;

/// No state of a real host comes near it: 5,000 partitions need about 10 MB.
const MAX_STATE_BYTES: u64 = 256 << 20;

/// Where the state is kept.
#[derive(Debug)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// Reads the state; an empty one where there is no file yet.
    ///
    /// # Errors
    /// When the file can't be read, makes no sense or is from a newer ioward. It is not touched then.
    pub fn open(path: PathBuf) -> Result<(Self, State), StoreError> {
        let state = match File::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => State::default(),
            Err(source) => return Err(StoreError::Io { what: "open", path, source }),
            Ok(file) => {
                let mut bytes = Vec::new();
                let read = file.take(MAX_STATE_BYTES).read_to_end(&mut bytes);
                read.map_err(|source| StoreError::Io { what: "read", path: path.clone(), source })?;
                parse(&path, &bytes)?
            }
        };
        Ok((Self { path }, state))
    }

    /// Replaces the state. When this returns, the new one is on the disk; when it fails, the old one still is.
    ///
    /// # Errors
    /// When the folder can't be written: a full or read-only disk.
    pub fn commit(&self, state: &State) -> Result<(), StoreError> {
        let fail = |what| {
            let path = self.path.clone();
            move |source| StoreError::Io { what, path, source }
        };
        let bytes = serde_json::to_vec_pretty(state).map_err(io::Error::from).map_err(fail("write"))?;
        let new = self.path.with_extension("json.new");
        let mut options = OpenOptions::new();
        let mut file =
            options.create(true).truncate(true).write(true).mode(0o600).open(&new).map_err(fail("write"))?;
        file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(fail("write"))?;
        fs::rename(&new, &self.path).map_err(fail("replace"))?;
        // The rename itself is durable only once the folder is.
        let folder = self.path.parent().unwrap_or(Path::new("."));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(fail("sync the folder of"))
    }
}

fn parse(path: &Path, bytes: &[u8]) -> Result<State, StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { path: path.to_owned(), why };
    let value: serde_json::Value = serde_json::from_slice(bytes).map_err(|e| corrupt(e.to_string()))?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    let found = version.ok_or_else(|| corrupt("it has no version".into()))?;
    if found > u64::from(VERSION) {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    serde_json::from_value(value).map_err(|e| corrupt(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ioward-state-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder.join("state.json")
    }

    #[test]
    fn what_was_committed_is_read_back() {
        let path = scratch("back");
        let (file, mut state) = StateFile::open(path.clone()).unwrap();
        assert_eq!(state, State::default());
        state.revision = 7;
        file.commit(&state).unwrap();
        assert_eq!(StateFile::open(path.clone()).unwrap().1, state);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_cut_anywhere_is_refused_and_left_alone() {
        let path = scratch("cut");
        let (file, state) = StateFile::open(path.clone()).unwrap();
        file.commit(&state).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = StateFile::open(path.clone()).unwrap_err();
            assert!(matches!(error, StoreError::Corrupt { .. }), "{length}: {error}");
            assert_eq!(fs::read(&path).unwrap(), &whole[..length]);
        }
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_file_from_the_future_is_refused() {
        let path = scratch("future");
        fs::write(&path, r#"{"version": 2, "flavour": "strange"}"#).unwrap();
        let error = StateFile::open(path.clone()).unwrap_err();
        assert!(error.to_string().contains("version 2; this ioward reads version 1"), "{error}");
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
