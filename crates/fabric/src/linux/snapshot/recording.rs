//! What a host answered: files, listings and links by path, and errors.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
};

use serde::{Deserialize, Serialize};

use super::content::Content;

/// Questions and answers. What is in none of these was not there (ENOENT).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(in crate::linux) struct Recording {
    /// The names in a folder, sorted.
    pub(super) folders: BTreeMap<String, Vec<String>>,
    /// The last part of what a link points to.
    pub(super) links: BTreeMap<String, String>,
    /// What a file holds.
    pub(super) files: BTreeMap<String, Content>,
    /// What could not be read.
    pub(super) errors: BTreeMap<String, Failure>,
}

/// Why something could not be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Failure {
    /// The kernel's errno.
    Errno(i32),
    /// What ioward found wrong with it.
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

    /// A file that holds a table of lines.
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

/// The one form of a path: a folder is asked for with a slash at its end, and without.
pub(super) fn key(path: &str) -> String {
    path.trim_end_matches('/').to_owned()
}
