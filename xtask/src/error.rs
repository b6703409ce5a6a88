//! Errors of a developer's command; each says what to do next.

use std::path::{Path, PathBuf};

/// Shorthand for everything in this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder.
    #[error("can't {action} {}: {source}", path.display())]
    File {
        /// The verb: "read", "write", "create".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// A program that could not be started.
    #[error("can't start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// The kernel's error.
        source: std::io::Error,
    },
    /// A program that ended badly.
    #[error("`{command}` failed ({status}){said}")]
    Program {
        /// The program with its arguments.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its stderr, unless that was shown already: empty, or begins with a colon and a line break.
        said: String,
    },
    /// Level 1 ended before its command did.
    #[error(
        "level 1 ended before its command did; where that is a crash of the emulator, running it again helps{0}"
    )]
    Died(String),
    /// Anything else: a whole sentence.
    #[error("{0}")]
    Other(String),
}

impl Error {
    /// For `map_err`: what was tried on which file.
    pub fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::File { action, path: path.to_owned(), source }
    }
}
