//! The files: read within bounds, and only where not every user of the host could have had a hand in them.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::TlsError;

/// The most that is read of a file, in bytes: all CAs there are have some 200 kB.
const MAX_FILE: u64 = 1 << 20;
/// In a file's mode: every user may read it; may write it.
const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// The files of one side of a connection, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Its certificate, and those between it and its CA.
    pub certificate: PathBuf,
    /// Its key. Only its owner and group may read it.
    pub key: PathBuf,
    /// The CAs whose certificates are taken of the other side.
    pub ca: PathBuf,
}

/// How files look from outside: whoever writes one, or puts another in its place, changes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp([Option<[i64; 5]>; 3]);

impl Files {
    /// How they look now.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        let stamp = |of: &Metadata| {
            let [device, inode, size] = [of.dev(), of.ino(), of.size()].map(u64::cast_signed);
            [device, inode, size, of.ctime(), of.ctime_nsec()]
        };
        let files = [&self.certificate, &self.key, &self.ca];
        Stamp(files.map(|file| file.metadata().ok().as_ref().map(stamp)))
    }
}

/// Reads a file that everybody may read and not everybody may write.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    read_unless(file, &[(OTHERS_WRITE, "change")])
}

/// Reads a key.
pub(crate) fn read_private(file: &Path) -> Result<Vec<u8>, TlsError> {
    read_unless(file, &[(OTHERS_READ, "read"), (OTHERS_WRITE, "change")])
}

fn read_unless(file: &Path, refused: &[(u32, &'static str)]) -> Result<Vec<u8>, TlsError> {
    let unread = |source| TlsError::Unread { file: file.to_owned(), source };
    // A pipe is not waited for.
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(O_NONBLOCK).open(file).map_err(unread)?;
    let metadata = opened.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(unread(io::Error::other("it is no regular file")));
    }
    for (bit, what) in refused {
        if metadata.mode() & bit != 0 {
            return Err(TlsError::Open { file: file.to_owned(), what });
        }
    }
    bounded(&opened).map_err(unread)
}

/// `O_NONBLOCK` of Linux (asm-generic/fcntl.h), the same on x86-64 and AArch64.
const O_NONBLOCK: i32 = 0o4000;

fn bounded(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(bytes)
}
