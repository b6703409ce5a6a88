//! A machine's own control group, so that stopping the daemon's service does not reach it. Where there is no cgroup2
//! hierarchy that can be written, a machine stays where it was started, and nothing else is different.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::Name;

/// Moves a process, with all its threads, into the partition's group.
pub(super) fn enter(partition: &Name, pid: u32) {
    let Some(group) = group(partition) else { return };
    let moved =
        fs::create_dir_all(&group).and_then(|()| fs::write(group.join("cgroup.procs"), pid.to_string()));
    if let Err(error) = moved {
        tracing::info!(
            "the machine of {partition} gets no control group of its own ({}): {error}",
            group.display()
        );
    }
}

/// Removes the partition's group once its machine is gone.
pub(super) fn remove(partition: &Name) {
    let Some(group) = group(partition) else { return };
    if let Err(error) = fs::remove_dir(&group)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::info!("cannot remove the control group {}: {error}", group.display());
    }
}

fn group(partition: &Name) -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    Some(unified_mount(&mounts)?.join("ioward").join(partition.as_str()))
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
