//! Interfaces that have been moved into another network namespace: a thread of its own enters each namespace and asks the
//! kernel for the interfaces there.
//!
//! Sysfs shows only the interfaces of the namespace that it was mounted in, so that a VF whose interface is elsewhere looks as
//! if it had none.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs::{self, File, OpenOptions},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
    thread,
};

use ioward_model::Label;
use ioward_pci::Bdf;
use rustix::{
    fs::{OFlags, fstatfs},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::linux::netlink::Netlink;

/// Where `ip netns` and container runtimes keep namespaces by name (ip-netns(8)).
const NAMED: &str = "/run/netns";
/// The most names that are looked at.
const MAX_NAMED: usize = 1 << 12;
/// The most interfaces of one VF that are told.
const MAX_NETDEVS: usize = 8;
/// The file system of namespaces: include/uapi/linux/magic.h.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Where a VF's interfaces are.
#[derive(Debug)]
pub(super) struct There {
    pub(super) name: Option<Label>,
    pub(super) netdevs: Vec<Label>,
    pub(super) pid: Option<u32>,
}

/// A namespace other than this process's.
struct Namespace {
    name: Option<Label>,
    pid: Option<u32>,
}

/// Looks for the interfaces of these functions in all namespaces that have a name or a process. `processes` has one of each
/// namespace, by inode. What can't be entered is left out.
pub(super) fn find(wanted: &BTreeSet<Bdf>, processes: &BTreeMap<u64, u32>) -> BTreeMap<Bdf, There> {
    // Only of a thread can the namespace be changed, and one that has changed it is of no further use.
    thread::scope(|scope| {
        let looking = thread::Builder::new()
            .name("ioward-netns".to_owned())
            .spawn_scoped(scope, || find_from_here(wanted, processes));
        looking.ok().and_then(|thread| thread.join().ok()).unwrap_or_default()
    })
}

fn find_from_here(wanted: &BTreeSet<Bdf>, processes: &BTreeMap<u64, u32>) -> BTreeMap<Bdf, There> {
    let mut found: BTreeMap<Bdf, There> = BTreeMap::new();
    let Ok(own) = fs::metadata("/proc/thread-self/ns/net").map(|metadata| metadata.ino()) else {
        return found;
    };
    let mut seen = BTreeSet::from([own]);
    let of_pid = |pid: u32| Path::new("/proc").join(pid.to_string()).join("ns/net");
    let unnamed = processes.values().map(|pid| (of_pid(*pid), None));
    for (path, name) in named().into_iter().map(|(path, name)| (path, Some(name))).chain(unnamed) {
        if found.len() == wanted.len() {
            break;
        }
        let Some((file, inode)) = open(&path) else { continue };
        if !seen.insert(inode) {
            continue;
        }
        let namespace = Namespace { name, pid: processes.get(&inode).copied() };
        for (function, netdev) in interfaces(&file).unwrap_or_default() {
            if wanted.contains(&function) {
                namespace.add(function, &netdev, &mut found);
            }
        }
    }
    found
}

impl Namespace {
    fn add(&self, function: Bdf, netdev: &[u8], found: &mut BTreeMap<Bdf, There>) {
        let there = match found.entry(function) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                entry.insert(There { name: self.name.clone(), netdevs: Vec::new(), pid: self.pid })
            }
        };
        if there.netdevs.len() < MAX_NETDEVS {
            there.netdevs.push(Label::from_bytes(netdev));
        }
    }
}

/// The namespaces with names.
fn named() -> Vec<(std::path::PathBuf, Label)> {
    let entries = fs::read_dir(NAMED).into_iter().flatten().flatten().take(MAX_NAMED);
    let mut named: Vec<_> = entries
        .map(|entry| (entry.path(), Label::from_bytes(entry.file_name().as_encoded_bytes())))
        .collect();
    named.sort();
    named
}

/// A namespace's file, and its inode; `None` for anything else, as the file of a name whose namespace has gone.
fn open(path: &Path) -> Option<(File, u64)> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let is_namespace = fstatfs(&file).is_ok_and(|system| u64::try_from(system.f_type) == Ok(NSFS_MAGIC));
    let inode = file.metadata().ok()?.ino();
    is_namespace.then_some((file, inode))
}

/// The interfaces of functions in a namespace, which this thread enters and does not leave.
fn interfaces(namespace: &File) -> std::io::Result<Vec<(Bdf, Vec<u8>)>> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
    Netlink::open()?.links_of_functions()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_namespace_is_opened_as_one() {
        assert!(open(Path::new("/proc/self/ns/net")).is_some());
        for other in ["/proc/self/comm", "/dev/null", "/proc/self/ns", "/nonexistent"] {
            assert!(open(Path::new(other)).is_none(), "{other}");
        }
    }

    /// Without the right to enter any, and with processes that have gone, nothing is found, and the caller's namespace is
    /// the one that it was.
    #[test]
    fn the_callers_namespace_is_never_left() {
        let own = || fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let before = own();
        let wanted = BTreeSet::from(["0000:01:10.0".parse().unwrap()]);
        let processes = BTreeMap::from([(before, std::process::id()), (1, u32::MAX)]);
        assert!(find(&wanted, &processes).is_empty());
        assert_eq!(own(), before);
    }
}
