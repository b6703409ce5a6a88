//! A host's answers: files, listings and links by path, and errors.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
};

use serde::{Deserialize, Serialize};

use super::content::Content;

/// Questions and answers. Any other path did not exist (ENOENT).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::linux) struct Recording {
    /// The names in a folder, sorted.
    pub(super) folders: BTreeMap<String, Vec<String>>,
    /// The last part of a link's target.
    pub(super) links: BTreeMap<String, String>,
    /// The content of a file.
    pub(super) files: BTreeMap<String, Content>,
    /// Paths that could not be read.
    pub(super) errors: BTreeMap<String, Failure>,
}

/// Why a path could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Failure {
    /// The kernel's errno.
    Errno(i32),
    /// ioward's own finding.
    Words(String),
}

impl Recording {
    pub(in crate::linux) fn note_folder(&mut self, path: &str, answer: &io::Result<Vec<String>>) {
        match answer {
            Ok(names) => _ = self.folders.insert(key(path), names.clone()),
            Err(error) => self.note_error(path, error),
        }
    }

    pub(in crate::linux) fn note_link(&mut self, path: &str, answer: &io::Result<String>) {
        match answer {
            Ok(name) => _ = self.links.insert(key(path), name.clone()),
            Err(error) => self.note_error(path, error),
        }
    }

    pub(in crate::linux) fn note_file(&mut self, path: &str, answer: &io::Result<Vec<u8>>) {
        match answer {
            Ok(bytes) => _ = self.files.insert(key(path), Content::of(bytes)),
            Err(error) => self.note_error(path, error),
        }
    }

    fn note_error(&mut self, path: &str, error: &io::Error) {
        let failure = match error.raw_os_error() {
            _ if error.kind() == ErrorKind::NotFound => return,
            Some(errno) => Failure::Errno(errno),
            None => Failure::Words(error.to_string()),
        };
        self.errors.insert(key(path), failure);
    }

    /// A file with a table of lines.
    pub(super) fn table(&mut self, path: &str) -> Option<&mut Content> {
        self.files.get_mut(path)
    }
}

impl Failure {
    pub(super) fn to_error(&self) -> io::Error {
        match self {
            Self::Errno(errno) => io::Error::from_raw_os_error(*errno),
            Self::Words(words) => io::Error::other(words.clone()),
        }
    }
}

/// The canonical form of a path: folders are requested with and without a trailing slash.
pub(super) fn key(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}
