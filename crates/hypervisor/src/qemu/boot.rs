//! Files that a machine boots from: opened here, with the rights that files for machines are opened with, and handed to QEMU open.
//! QEMU needs no right to any path then, and a Spec cannot have a machine read or write what nobody gave it.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::Path};

use ioward_model::Boot;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::{
    disk::DiskFormat,
    folder::io_error,
    users::{Users, with_rights_of},
};
use crate::{HypervisorError, Obstacle, boot_files, opening::Opening};

/// Open files of a [`Boot`].
#[derive(Debug, Default)]
pub(super) struct BootFiles {
    pub kernel: Option<File>,
    pub initrd: Option<File>,
    pub disk: Option<(File, DiskFormat)>,
}

impl BootFiles {
    pub(super) async fn open(
        boot: &Boot,
        users: Option<&Users>,
        opening: &Opening,
    ) -> Result<Self, HypervisorError> {
        let mut files = Self::default();
        for (path, file) in [(&boot.kernel, &mut files.kernel), (&boot.initrd, &mut files.initrd)] {
            let Some(path) = path else { continue };
            *file = Some(on_a_thread(path, users, opening, to_read).await?);
        }
        if let Some(path) = &boot.disk {
            files.disk = Some(on_a_thread(path, users, opening, to_write).await?);
        }
        Ok(files)
    }
}

async fn on_a_thread<T: Send + 'static>(
    path: &Path,
    users: Option<&Users>,
    opening: &Opening,
    open: fn(&Path, Option<&Users>) -> Result<T, HypervisorError>,
) -> Result<T, HypervisorError> {
    let (its_path, users) = (path.to_owned(), users.cloned());
    let opened = opening.run(path, move || open(&its_path, users.as_ref())).await;
    opened.map_err(io_error("open", path))?
}

fn to_write(path: &Path, users: Option<&Users>) -> Result<(File, DiskFormat), HypervisorError> {
    let file = open(path, true, users).map_err(io_error("open disk", path))?;
    let format = DiskFormat::of(&file, path)?;
    Ok((file, format))
}

/// Which files of a [`Boot`] cannot be used, and why: one that does not answer can't either.
pub(super) async fn unusable_in_time(boot: &Boot, users: Option<&Users>, opening: &Opening) -> Vec<Obstacle> {
    let users = users.cloned();
    boot_files::unusable_in_time(boot, opening, move |boot| unusable(boot, users.as_ref())).await
}

fn unusable(boot: &Boot, users: Option<&Users>) -> Vec<Obstacle> {
    let give = |path: &Path, is_disk, error: &io::Error| {
        let group = &users.filter(|_| error.kind() == io::ErrorKind::PermissionDenied)?.boot_group_name;
        let (path, rights) = (path.display(), if is_disk { "rw" } else { "r" });
        Some(format!(
            "give it to machines: chgrp {group} {path} && chmod g+{rights} {path}, and let others pass (chmod o+x) \
             through the folders above it"
        ))
    };
    boot_files::unusable(boot, |path, is_disk| open(path, is_disk, users).map(drop), give)
}

fn open(path: &Path, is_disk: bool, users: Option<&Users>) -> io::Result<File> {
    let open = || boot_files::open(path, is_disk);
    match users {
        Some(users) => with_rights_of(users.opener(), open),
        None => open(),
    }
}

/// A file that QEMU opens once more by the number that it inherits: that takes the right to it anew (proc_pid_fd(5)), so what
/// not everybody may read goes as a copy.
fn to_read(path: &Path, users: Option<&Users>) -> Result<File, HypervisorError> {
    const OTHERS_READ: u32 = 0o004;
    let mut file = open(path, false, users).map_err(io_error("open", path))?;
    let of_file = file.metadata().map_err(io_error("look at", path))?;
    if !of_file.is_file() {
        let error = io::Error::new(io::ErrorKind::InvalidInput, "it is no file");
        return Err(io_error("boot from", path)(error));
    }
    if users.is_none() || of_file.mode() & OTHERS_READ != 0 {
        return Ok(file);
    }
    let mut copy = || {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut copy = File::from(memfd_create("boot", flags)?);
        io::copy(&mut file, &mut copy)?;
        fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
        Ok(copy)
    };
    copy().map_err(io_error("copy", path))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    /// Users of a range that nobody has; so these tests are run by root (`cargo xtask test`).
    fn users() -> Users {
        Users {
            machines: 1_879_048_192..1_879_048_200,
            boot_group: 1_879_048_192,
            boot_group_name: "ioward".into(),
        }
    }

    fn opened(boot: &Boot, users: Option<&Users>) -> Result<BootFiles, HypervisorError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let opening = Opening::new(std::time::Duration::from_secs(60));
        runtime.block_on(BootFiles::open(boot, users, &opening))
    }

    fn folder_for_all() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn file(folder: &Path, name: &str, mode: u32) -> std::path::PathBuf {
        let path = folder.join(name);
        fs::write(&path, "what is in it").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Whoever can have a machine defined could else read and write every file of the host, through a guest.
    #[test]
    fn a_file_that_nobody_gave_to_machines_is_refused_with_what_gives_it() {
        let folder = folder_for_all();
        let boot = Boot {
            kernel: Some(file(folder.path(), "kernel", 0o644)),
            initrd: Some(file(folder.path(), "initrd", 0o600)),
            disk: Some(file(folder.path(), "disk", 0o644)),
            cmdline: None,
        };
        let refused = unusable(&boot, Some(&users()));
        let required: Vec<_> = refused.iter().map(|file| file.required.as_str()).collect();
        let named = [&boot.initrd, &boot.disk].map(|path| path.as_ref().unwrap().display().to_string());
        assert_eq!(
            required,
            named.map(|path| format!("a file to boot from at {path}")),
            "a disk is written, too"
        );
        assert!(refused[1].remedy.contains("chgrp ioward /") && refused[1].remedy.contains("chmod g+rw"));
        assert!(opened(&boot, Some(&users())).is_err());
        assert_eq!(unusable(&boot, None), [], "where machines are who the daemon is, its rights count");

        for path in [boot.initrd.as_ref().unwrap(), boot.disk.as_ref().unwrap()] {
            std::os::unix::fs::chown(path, None, Some(users().boot_group)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o660)).unwrap();
        }
        assert_eq!(unusable(&boot, Some(&users())), []);
        let opened = opened(&boot, Some(&users())).unwrap();
        // QEMU, who is in no group, opens it by its number.
        let by_number =
            format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(opened.initrd.as_ref().unwrap()));
        let machine =
            super::super::users::User { uid: users().machines.start + 1, gid: users().machines.start + 1 };
        assert_eq!(with_rights_of(machine, || fs::read_to_string(&by_number)).unwrap(), "what is in it");
    }

    #[test]
    fn what_is_no_file_is_no_file_to_boot_from_and_holds_nobody_up() {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        let folder = folder_for_all();
        let fifo = folder.path().join("fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        let of = |kernel: &Path| Boot { kernel: Some(kernel.to_owned()), ..Boot::default() };
        assert!(opened(&of(&fifo), None).is_err());
        assert_eq!(unusable(&of(folder.path()), None)[0].found, "a folder");
        assert_eq!(unusable(&of(Path::new("kernel")), None)[0].found, "a relative path");
        assert!(unusable(&of(&folder.path().join("none")), None)[0].found.contains("No such file"));
    }
}
