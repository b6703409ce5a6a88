//! Answers from a recording.

use std::{
    cell::Cell,
    io::{self, ErrorKind},
};

use super::{
    content::Content,
    recording::{Failure, Recording, key},
};

/// Limit on all answers together, so that a few hostile megabytes with mutual references can't keep identify busy
/// for hours. In bytes; a question counts beside its answer, because it may leave a Reason.
pub(super) const BUDGET: usize = 128 << 20;
const QUESTION: usize = 256;
/// The cost of a name beside its bytes.
const NAME: usize = 64;

/// A recording, and the used part of its budget.
#[derive(Debug)]
pub(in crate::linux) struct Replay {
    recording: Recording,
    answered: Cell<usize>,
}

impl Replay {
    pub(super) fn new(recording: Recording) -> Self {
        Self { recording, answered: Cell::new(0) }
    }

    pub(in crate::linux) fn is_exhausted(&self) -> bool {
        self.answered.get() > BUDGET
    }

    pub(in crate::linux) fn exists(&self, path: &str) -> bool {
        let (path, recording) = (&*key(path), &self.recording);
        recording.folders.contains_key(path)
            || recording.files.contains_key(path)
            || recording.links.contains_key(path)
            || recording.errors.contains_key(path)
    }

    pub(in crate::linux) fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let content = self.answer(path, self.recording.files.get(&key(path)), Content::length)?;
        if content.length() > limit {
            return Err(io::Error::new(ErrorKind::FileTooLarge, format!("it has more than {limit} bytes")));
        }
        Ok(content.bytes())
    }

    pub(in crate::linux) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let names = self.recording.folders.get(&key(path));
        let cost = |names: &Vec<String>| names.iter().map(|name| name.len() + NAME).sum();
        self.answer(path, names, cost).cloned()
    }

    pub(in crate::linux) fn link_name(&self, path: &str) -> io::Result<String> {
        self.answer(path, self.recording.links.get(&key(path)), String::len).cloned()
    }

    /// The recorded result or error, unless the budget is used up.
    fn answer<'a, T>(
        &self,
        path: &str,
        found: Option<&'a T>,
        cost: impl Fn(&T) -> usize,
    ) -> io::Result<&'a T> {
        self.answered.set(self.answered.get().saturating_add(QUESTION + found.map_or(0, cost)));
        if self.is_exhausted() {
            // The error that the caller makes least of; the whole snapshot is refused in the end.
            return Err(ErrorKind::NotFound.into());
        }
        let failure = || self.recording.errors.get(&key(path)).map(Failure::to_error);
        // Like the kernel's own error, including its errno.
        let not_there = || io::Error::from_raw_os_error(rustix::io::Errno::NOENT.raw_os_error());
        found.ok_or_else(|| failure().unwrap_or_else(not_there))
    }
}
