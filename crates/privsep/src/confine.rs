//! How the management partition gives up what it does not need, for ever, before it reads the first byte of anybody's.
//!
//! ```text
//!   namespaces   mounts (its state folder and nothing else), network (empty), IPC, host name
//!   user         ioward, no groups, no capability in any set, no_new_privs
//!   system calls a list (syscalls.rs): no new programs, processes, sockets, mounts or traces
//!   memory       bounded by its control group, which the hypervisor side puts it into
//! ```

use std::{
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, StatVfsMountFlags, openat, statvfs},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_remount,
        unmount,
    },
    process::{Gid, Pid, Signal, Uid, getppid, pivot_root, set_parent_process_death_signal},
    thread::{
        CapabilitySet, UnshareFlags, remove_capability_from_bounding_set, set_no_new_privs,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid, unshare_unsafe,
    },
};
use serde::{Deserialize, Serialize};

use crate::syscalls;

/// Where the new root is put together: a folder that every host has, and no state folder is below.
const SCAFFOLD: &str = "/dev";

/// The process as it is to be afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its user, not root.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The one folder it keeps, under the name that it has now.
    pub folder: PathBuf,
    /// The process that it is not to outlive.
    pub parent: u32,
}

/// Why a process is not confined. It must not go on.
#[derive(Debug, thiserror::Error)]
#[error("the management partition cannot {what}")]
pub struct ConfineError {
    what: &'static str,
    source: io::Error,
}

fn cannot<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> ConfineError {
    move |source| ConfineError { what, source: source.into() }
}

/// Confines this process; to be called while it has one thread.
///
/// # Errors
/// When any part of it can't be had: half confined is not confined.
pub fn confine(to: &Confinement) -> Result<(), ConfineError> {
    if to.uid == 0 || to.gid == 0 {
        return Err(cannot("be confined as root")(Errno::INVAL));
    }
    let flags = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    #[expect(unsafe_code, reason = "rustix has one function for all namespaces, of which one needs care")]
    // SAFETY: the care is for UnshareFlags::FILES, which is not among these flags.
    unsafe { unshare_unsafe(flags) }.map_err(cannot("have namespaces of its own (unshare)"))?;
    keep_nothing_but(&to.folder)?;
    let capabilities = "give its capabilities up";
    drop_bounding_set().map_err(cannot(capabilities))?;
    let (uid, gid) = (Uid::from_raw(to.uid), Gid::from_raw(to.gid));
    let user = "become another user";
    set_thread_groups(&[]).map_err(cannot(user))?;
    set_thread_res_gid(gid, gid, gid).map_err(cannot(user))?;
    // With root's number go all capabilities that are in force (capabilities(7)).
    set_thread_res_uid(uid, uid, uid).map_err(cannot(user))?;
    // Anew, since a change of the user takes it back.
    let dies_with = "die with the hypervisor side";
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(cannot(dies_with))?;
    if getppid().map(Pid::as_raw_nonzero).is_none_or(|pid| pid.get().unsigned_abs() != to.parent) {
        return Err(cannot(dies_with)(Errno::SRCH));
    }
    set_no_new_privs(true).map_err(cannot("give up gaining privileges"))?;
    syscalls::restrict().map_err(cannot("restrict its system calls"))
}

/// Makes a file system with one folder in it the root, and forgets the one before.
fn keep_nothing_but(folder: &Path) -> Result<(), ConfineError> {
    let root = "have a root of its own";
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(cannot(root))?;
    let kept = openat(CWD, folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(cannot("open its state folder"))?;
    let harmless = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("tmpfs", SCAFFOLD, "tmpfs", harmless, Some(c"mode=0755,size=1m")).map_err(cannot(root))?;
    let inside = Path::new(SCAFFOLD).join(folder.strip_prefix("/").unwrap_or(folder));
    // Another user is to pass through them, whatever mask a service manager has set (UMask=0077).
    let mask = rustix::process::umask(Mode::WGRP | Mode::WOTH);
    let made = fs::create_dir_all(&inside);
    rustix::process::umask(mask);
    made.map_err(cannot(root))?;
    // By number: its name may lead elsewhere by now.
    mount_bind(format!("/proc/self/fd/{}", kept.as_raw_fd()), &inside).map_err(cannot(root))?;
    // A read-only mount stays read-only.
    let is_read_only = statvfs(&inside).map_err(cannot(root))?.f_flag.contains(StatVfsMountFlags::RDONLY);
    let as_it_was = if is_read_only { MountFlags::RDONLY } else { MountFlags::empty() };
    mount_remount(&inside, MountFlags::BIND | harmless | as_it_was, c"").map_err(cannot(root))?;
    rustix::process::chdir(SCAFFOLD).map_err(cannot(root))?;
    // The old root is put on top of the new one, and taken away (pivot_root(2)).
    pivot_root(".", ".").map_err(cannot(root))?;
    unmount(".", UnmountFlags::DETACH).map_err(cannot(root))?;
    rustix::process::chdir("/").map_err(cannot(root))?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY | harmless, c"").map_err(cannot(root))
}

/// Takes every capability out of the bounding set, up to the last one that the kernel knows.
fn drop_bounding_set() -> Result<(), Errno> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(Errno::INVAL) if bit > 0 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
