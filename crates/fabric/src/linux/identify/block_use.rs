//! The host's disks in use by mounts, swap or stacked devices: /proc and the `holders` folders of sysfs.

use ioward_model::HostUse;

use super::{MAX_USES, probe::Probe};
use crate::linux::root::HostRoot;

/// A host with thousands of containers has mount tables of megabytes.
const MAX_TABLE: usize = 64 << 20;

/// The content of the host's block tables.
pub(super) struct BlockUse {
    mounts: Vec<Mount>,
    /// Names of block devices, as `nvme0n1p2`.
    swaps: Vec<String>,
    /// Unreadable tables: the requirement and the finding.
    pub(super) problems: Vec<(String, String)>,
}

/// A mount of the host.
pub(in crate::linux) struct Mount {
    /// `major:minor`; btrfs and other multi-device file systems have a number of no device.
    pub(in crate::linux) number: String,
    /// Name of the block device, if the source is one.
    pub(in crate::linux) source: String,
    point: String,
}

impl BlockUse {
    pub(super) fn read(root: &HostRoot) -> Self {
        let mut problems = Vec::new();
        let mut table = |path: &str, holds: &str| {
            root.read(path, MAX_TABLE).map_or_else(
                |error| {
                    let required = format!("{holds} in /{path}");
                    problems
                        .push((required, format!("{error}; whether the host uses the disk is not known")));
                    String::new()
                },
                |bytes| String::from_utf8_lossy(&bytes).into_owned(),
            )
        };
        let mounts =
            table("proc/self/mountinfo", "the mounts of the host").lines().filter_map(Mount::parse).collect();
        let swaps = table("proc/swaps", "the swap areas of the host").lines().filter_map(swap).collect();
        Self { mounts, swaps, problems }
    }

    /// The host's uses of a disk and its partitions. `folder` is the disk's in sysfs.
    pub(super) fn of_disk(&self, probe: &mut Probe<'_>, disk: &str, folder: &str) -> Vec<HostUse> {
        let entries = probe.root.list(folder).unwrap_or_else(|error| {
            probe.note(format!("the disk {disk} in /{folder}"), error);
            Vec::new()
        });
        let partitions = entries.iter().filter(|entry| {
            let number = entry.strip_prefix(disk).and_then(|rest| rest.strip_prefix('p'));
            number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        let mut uses = self.of_device(probe, disk, folder);
        for partition in partitions {
            if uses.len() >= MAX_USES {
                break;
            }
            uses.extend(self.of_device(probe, partition, &format!("{folder}/{partition}")));
        }
        uses
    }

    fn of_device(&self, probe: &mut Probe<'_>, device: &str, folder: &str) -> Vec<HostUse> {
        let number = probe.root.text(&format!("{folder}/dev")).ok();
        let mounted = |mount: &&Mount| Some(&mount.number) == number.as_ref() || mount.source == device;
        let mounts = self.mounts.iter().filter(mounted).map(|mount| mount.point.clone());
        let swaps = self.swaps.iter().filter(|swap| *swap == device).map(|_| "swap".to_owned());
        let holders = probe.root.list(&format!("{folder}/holders")).unwrap_or_default();
        let used_by = mounts.chain(swaps).chain(holders);
        used_by
            .take(MAX_USES)
            .map(|used_by| HostUse::BlockDevice { device: device.to_owned(), used_by })
            .collect()
    }
}

impl Mount {
    /// A line of `mountinfo` (proc_pid_mountinfo(5)): ID, parent, number, root, mount point, options, optional fields,
    /// `-`, type, source, options.
    pub(in crate::linux) fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let (number, point) = (mount.next()?.to_owned(), printable(mount.nth(1)?));
        let source = device_name(file_system.split(' ').nth(1)?);
        Some(Self { number, source, point })
    }
}

/// A line of `swaps`: file name, type, …. A swap file counts through its mount.
pub(in crate::linux) fn swap(line: &str) -> Option<String> {
    let mut columns = line.split_whitespace();
    let (name, kind) = (columns.next()?, columns.next()?);
    (kind == "partition").then(|| device_name(name))
}

/// `nvme0n1p2` from `/dev/nvme0n1p2`; empty for anything but a device.
fn device_name(path: &str) -> String {
    path.strip_prefix("/dev/").unwrap_or("").to_owned()
}

/// A readable mount point: the kernel writes space, tab, newline and backslash as octal, like `\040`.
fn printable(point: &str) -> String {
    point.replace("\\040", " ").chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_has_number_source_and_point() {
        let line = "36 35 259:1 / /mnt/my\\040disk rw,noatime master:1 shared:2 - ext4 /dev/nvme0n1p1 rw";
        let found = Mount::parse(line).unwrap();
        assert_eq!((&*found.number, &*found.source, &*found.point), ("259:1", "nvme0n1p1", "/mnt/my disk"));
        assert!(Mount::parse("36 35 259:1 / /mnt rw").is_none());
        assert!(Mount::parse("").is_none());
    }

    #[test]
    fn a_swap_partition_counts_and_a_swap_file_does_not() {
        assert_eq!(swap("/dev/nvme0n1p3    partition\t1000 0 -2").as_deref(), Some("nvme0n1p3"));
        assert_eq!(swap("/swapfile    file\t1000 0 -2"), None);
        assert_eq!(swap("Filename\tType\tSize\tUsed\tPriority"), None);
    }
}
