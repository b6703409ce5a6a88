//! Control groups: of each machine, so that stopping the daemon's service does not reach it, and of the management partition, with
//! a bound on its memory. Where there is no cgroup2 hierarchy that can be written, a process stays where it was started.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::Name;

/// A partition's group, below the root of the hierarchy.
#[must_use]
pub fn of_partition(partition: &Name) -> PathBuf {
    Path::new("ioward").join(partition.as_str())
}

/// Moves a process, with all its threads, into a group.
pub fn enter(group: &Path, pid: u32) {
    let Some(path) = path(group) else { return };
    let moved =
        fs::create_dir_all(&path).and_then(|()| fs::write(path.join("cgroup.procs"), pid.to_string()));
    if let Err(error) = moved {
        tracing::info!("process {pid} gets no control group of its own ({}): {error}", path.display());
    }
}

/// Bounds the memory of a group that is directly below the root, in bytes (`memory.max`, Documentation/admin-guide/cgroup-v2.rst);
/// to be called before a process enters it.
///
/// # Errors
/// When there is no hierarchy, or it does not bound memory.
pub fn bound_memory(group: &Path, bytes: u64) -> io::Result<()> {
    let path = path(group).ok_or_else(|| io::Error::other("no cgroup2 hierarchy is mounted"))?;
    let root = path.parent().unwrap_or(&path);
    fs::write(root.join("cgroup.subtree_control"), "+memory")?;
    fs::create_dir_all(&path)?;
    fs::write(path.join("memory.max"), bytes.to_string())
}

/// Removes a group once its processes are gone.
pub fn remove(group: &Path) {
    let Some(path) = path(group) else { return };
    if let Err(error) = fs::remove_dir(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::info!("cannot remove the control group {}: {error}", path.display());
    }
}

fn path(group: &Path) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(unified_mount(&mounts)?.join(group))
}

/// Where the cgroup2 hierarchy is mounted (`proc_pid_mountinfo(5)`: the mount point is the fifth field, the type the
/// first after " - ").
fn unified_mount(mountinfo: &str) -> Option<&Path> {
    let is_unified =
        |line: &&str| line.split_once(" - ").is_some_and(|(_, rest)| rest.starts_with("cgroup2 "));
    mountinfo.lines().find(is_unified)?.split(' ').nth(4).map(Path::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_hierarchy_is_found_where_it_is() {
        let modern = "24 1 0:22 / /proc rw - proc proc rw\n30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        assert_eq!(unified_mount(modern), Some(Path::new("/sys/fs/cgroup")));
        let hybrid = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        assert_eq!(unified_mount(hybrid), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(unified_mount("24 1 0:22 / /proc rw - proc proc rw\ngarbage\n - cgroup2 "), None);
        assert_eq!(unified_mount(""), None);
    }
}
