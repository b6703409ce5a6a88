//! A partition's folder under the runtime folder: which file is what, and the two logs kept within bounds.
//!
//! ```text
//! RUNTIME/partitions/NAME/        0700
//!     partition.json              the record: definition, VFs, channel
//!     qmp.sock                    QEMU's control socket
//!     console.sock  console.log   the serial console, and what it printed since the last start
//!     channel.sock                the management partition's end of the channel
//!     qemu.log                    what QEMU itself printed since the last start
//!     pid                         QEMU's process ID, for people and scripts
//! ```
//! All of it is made here and handed to QEMU open: QEMU, which may be its guest's, has no right to the folder.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use ioward_model::Name;

pub(super) use crate::file::io_error;
use crate::{HypervisorError, file::remove};

/// Where a log is cut. A guest decides how much it prints, and the runtime folder is usually memory.
const MAX_LOG: u64 = 4 << 20;

/// The longest path of a Unix socket (`unix(7)`: 108 bytes with the final NUL).
const MAX_SOCKET_PATH: usize = 107;

#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(partitions: &Path, partition: &Name) -> Self {
        Self { path: partitions.join(partition.as_str()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn record(&self) -> PathBuf {
        self.path.join("partition.json")
    }

    pub(super) fn qmp(&self) -> PathBuf {
        self.path.join("qmp.sock")
    }

    pub(super) fn console(&self) -> PathBuf {
        self.path.join("console.sock")
    }

    pub(super) fn console_log(&self) -> PathBuf {
        self.path.join("console.log")
    }

    pub(super) fn channel(&self) -> PathBuf {
        self.path.join("channel.sock")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("qemu.log")
    }

    pub(super) fn pid(&self) -> PathBuf {
        self.path.join("pid")
    }

    /// Makes the folder.
    pub(super) fn create(&self) -> Result<(), HypervisorError> {
        if self.console().as_os_str().len() > MAX_SOCKET_PATH {
            let source = io::Error::new(
                io::ErrorKind::InvalidFilename,
                "too long for a Unix socket; use a shorter runtime folder",
            );
            return Err(HypervisorError::Io { what: "use".into(), path: self.console(), source });
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(io_error("create", &self.path))
    }

    /// Removes what a machine that is gone has left, except for its logs.
    pub(super) fn clear(&self) {
        for path in [self.qmp(), self.console(), self.channel(), self.pid()] {
            remove(&path);
        }
    }

    /// A socket that listens, for QEMU to answer at. The folder keeps everybody else from it.
    pub(super) fn listen(&self, path: &Path) -> Result<UnixListener, HypervisorError> {
        remove(path);
        UnixListener::bind(path).map_err(io_error("listen at", path))
    }

    /// Notes QEMU's process ID.
    pub(super) fn note_pid(&self, pid: u32) {
        // For people only: nothing here reads it.
        if let Err(error) = fs::write(self.pid(), format!("{pid}\n")) {
            tracing::warn!("cannot write {}: {error}", self.pid().display());
        }
    }

    /// Removes the channel's socket, which QEMU leaves behind.
    pub(super) fn remove_channel(&self) {
        remove(&self.channel());
    }

    /// Fresh logs for QEMU and for the console, opened to append so that cutting them works.
    pub(super) fn open_logs(&self) -> Result<(File, File), HypervisorError> {
        let open = |path: &Path| {
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            opened.and_then(|file| file.set_len(0).map(|()| file)).map_err(io_error("create", path))
        };
        Ok((open(&self.log())?, open(&self.console_log())?))
    }

    /// The end of QEMU's log, fit to be shown.
    pub(super) fn last_words(&self) -> String {
        const TAIL: u64 = 2048;
        let read = || {
            let mut file = File::open(self.log())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
            let mut bytes = Vec::new();
            file.take(TAIL).read_to_end(&mut bytes)?;
            io::Result::Ok(crate::text::last_words(&bytes, bytes.len()))
        };
        match read() {
            Ok(words) if words.is_empty() => "it said nothing".into(),
            Ok(words) => words,
            Err(error) => format!("cannot read {}: {error}", self.log().display()),
        }
    }

    /// Moves what a log holds beyond its bound to `LOG.1`, in place of what was there.
    pub(super) fn cut_logs(&self) {
        for log in [self.log(), self.console_log()] {
            let cut = || -> io::Result<()> {
                if fs::metadata(&log)?.len() > MAX_LOG {
                    fs::copy(&log, log.with_extension("log.1"))?;
                    OpenOptions::new().write(true).open(&log)?.set_len(0)?;
                }
                Ok(())
            };
            if let Err(error) = cut() {
                tracing::warn!("cannot cut {}: {error}", log.display());
            }
        }
    }
}
