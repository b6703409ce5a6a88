//! The format of a disk image, decided by its name and never by what is in it.
//!
//! A guest writes its disk. If a raw image were recognized by its first bytes, a guest could write a qcow2 header there
//! that names any file of the host as its backing file, and read that file after its next start. So `.qcow2` is qcow2,
//! everything else is raw, and an image whose first bytes say otherwise is refused.

use std::{
    fs::File,
    io::{self, Read, Seek},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::folder::io_error;
use crate::HypervisorError;

/// QEMU, `docs/interop/qcow2.txt`: the first four bytes.
const QCOW2_MAGIC: [u8; 4] = *b"QFI\xfb";

/// How QEMU is to read a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DiskFormat {
    /// The bytes of a file.
    RawFile,
    /// The bytes of a block device.
    RawDevice,
    /// A qcow2 image in a file.
    Qcow2,
}

impl DiskFormat {
    /// QEMU's driver for the format.
    pub(super) fn driver(self) -> &'static str {
        match self {
            Self::RawFile | Self::RawDevice => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// QEMU's driver for what holds it.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Self::RawFile | Self::Qcow2 => "file",
            Self::RawDevice => "host_device",
        }
    }

    /// Looks at a disk that is open; `path` is what it is called.
    pub(super) fn of(mut file: &File, path: &Path) -> Result<Self, HypervisorError> {
        let kind = file.metadata().map_err(io_error("use disk", path))?.file_type();
        if kind.is_block_device() {
            return Ok(Self::RawDevice);
        }
        if !kind.is_file() {
            return Err(unusable(path, "it is neither a file nor a block device"));
        }
        let mut first = Vec::new();
        file.by_ref().take(4).read_to_end(&mut first).map_err(io_error("read disk", path))?;
        file.rewind().map_err(io_error("read disk", path))?;
        let named_qcow2 = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("qcow2"));
        match (named_qcow2, first == QCOW2_MAGIC) {
            (true, true) => Ok(Self::Qcow2),
            (false, false) => Ok(Self::RawFile),
            (true, false) => Err(unusable(path, "its name ends in .qcow2, but it is no qcow2 image")),
            (false, true) => Err(unusable(
                path,
                "it is a qcow2 image; rename it to end in .qcow2 if a guest has not made it one",
            )),
        }
    }
}

fn unusable(path: &Path, why: &'static str) -> HypervisorError {
    io_error("use disk", path)(io::Error::new(io::ErrorKind::InvalidData, why))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A guest that writes a qcow2 header with a backing file into its raw disk must not be given that file.
    #[test]
    fn a_guest_cannot_change_what_its_disk_is() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            DiskFormat::of(&File::open(&path).unwrap(), &path)
        };
        assert_eq!(of("a.img", b"").unwrap(), DiskFormat::RawFile);
        assert_eq!(of("b.img", &[0; 512]).unwrap(), DiskFormat::RawFile);
        assert_eq!(of("c.QCOW2", b"QFI\xfb\0\0\0\x03").unwrap(), DiskFormat::Qcow2);
        assert!(of("d.img", b"QFI\xfb\0\0\0\x03").is_err());
        assert!(of("e.qcow2", &[0; 512]).is_err());
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = DiskFormat::of(&File::open(folder.path()).unwrap(), folder.path()).unwrap_err();
        assert!(error.to_string().contains(&*folder.path().to_string_lossy()), "{error}");
    }
}
