//! Network namespaces, held by their files.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use rustix::fs::{OFlags, fstatfs};

/// The file system of namespaces: include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// A namespace's file, open: the namespace lives at least as long as this. Of what type it is, the kernel looks when it is used.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    /// The file system's number and the inode's: no two namespaces have the same at one time.
    id: (u64, u64),
    made: (i64, i64),
}

impl Namespace {
    /// Opens the file of a namespace: `/run/netns/NAME`, `/proc/PID/ns/net`. `None` for any other file, as that of a name whose
    /// namespace has gone.
    ///
    /// # Errors
    /// When the file is not there, or may not be opened.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        // A file of this name may be a pipe or a terminal.
        let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if u64::try_from(fstatfs(&file)?.f_type) != Ok(NSFS_MAGIC) {
            return Ok(None);
        }
        let metadata = file.metadata()?;
        let id = (metadata.dev(), metadata.ino());
        Ok(Some(Self { file, id, made: (metadata.ctime(), metadata.ctime_nsec()) }))
    }

    /// That of this thread.
    ///
    /// # Errors
    /// When /proc is not there.
    pub fn own() -> io::Result<Self> {
        let own = Self::open(Path::new("/proc/thread-self/ns/net"))?;
        own.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "this thread has no network namespace"))
    }

    /// Tells it from all others that there are now. The kernel gives the number of one that has gone to the next one that is
    /// made.
    #[must_use]
    pub fn id(&self) -> (u64, u64) {
        self.id
    }

    /// When its file was made: seconds and nanoseconds. As long as it has a name, that does not change, so that this tells one of a
    /// name from another that had the name before it.
    #[must_use]
    pub fn made(&self) -> (i64, i64) {
        self.made
    }

    /// Its file.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_is_opened_as_one() {
        assert!(Namespace::open(Path::new("/proc/self/ns/net")).unwrap().is_some());
        for other in ["/proc/self/comm", "/dev/null", "/proc/self/ns"] {
            assert!(Namespace::open(Path::new(other)).unwrap().is_none(), "{other}");
        }
        let missing = Namespace::open(Path::new("/nonexistent")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_namespace_is_itself_however_it_is_opened() {
        let of_process = Namespace::open(Path::new("/proc/self/ns/net")).unwrap().unwrap();
        assert_eq!(Namespace::own().unwrap().id(), of_process.id());
    }
}
