//! Interfaces that have been moved into another network namespace: each namespace is asked for the interfaces there.
//!
//! Sysfs shows only the interfaces of the namespace that it was mounted in, so that a VF whose interface is elsewhere looks as
//! if it had none.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
};

use ioward_model::Label;
use ioward_netlink::{Namespace, Socket};
use ioward_pci::Bdf;

/// Where `ip netns` and container runtimes keep namespaces by name (ip-netns(8)).
const NAMED: &str = "/run/netns";
/// The most names that are looked at.
const MAX_NAMED: usize = 1 << 12;
/// The most interfaces of one VF that are told.
const MAX_NETDEVS: usize = 8;

/// Where a VF's interfaces are.
#[derive(Debug)]
pub(super) struct There {
    pub(super) name: Option<Label>,
    pub(super) netdevs: Vec<Label>,
    pub(super) pid: Option<u32>,
}

/// Whose a namespace is that is not this process's.
struct Whose {
    name: Option<Label>,
    pid: Option<u32>,
}

/// Looks for the interfaces of these functions in all namespaces that have a name or a process. `processes` has one of each
/// namespace, by inode. What can't be entered is left out.
pub(super) fn find(wanted: &BTreeSet<Bdf>, processes: &BTreeMap<u64, u32>) -> BTreeMap<Bdf, There> {
    let mut found: BTreeMap<Bdf, There> = BTreeMap::new();
    let Ok(own) = Namespace::own() else { return found };
    let mut seen = BTreeSet::from([own.id().1]);
    let of_pid = |pid: u32| Path::new("/proc").join(pid.to_string()).join("ns/net");
    let unnamed = processes.values().map(|pid| (of_pid(*pid), None));
    for (path, name) in named().into_iter().map(|(path, name)| (path, Some(name))).chain(unnamed) {
        if found.len() == wanted.len() {
            break;
        }
        let Ok(Some(namespace)) = Namespace::open(&path) else { continue };
        let inode = namespace.id().1;
        if !seen.insert(inode) {
            continue;
        }
        let whose = Whose { name, pid: processes.get(&inode).copied() };
        let links = Socket::open_in(&namespace).and_then(|socket| socket.links()).unwrap_or_default();
        for link in links {
            if let Some(function) = link.function.filter(|function| wanted.contains(function)) {
                whose.add(function, &link.name, &mut found);
            }
        }
    }
    found
}

impl Whose {
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
fn named() -> Vec<(PathBuf, Label)> {
    let entries = fs::read_dir(NAMED).into_iter().flatten().flatten().take(MAX_NAMED);
    let mut named: Vec<_> = entries
        .map(|entry| (entry.path(), Label::from_bytes(entry.file_name().as_encoded_bytes())))
        .collect();
    named.sort();
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without the right to enter any, and with processes that have gone, nothing is found, and the caller's namespace is
    /// the one that it was.
    #[test]
    fn the_callers_namespace_is_never_left() {
        let own = || Namespace::own().unwrap().id().1;
        let before = own();
        let wanted = BTreeSet::from(["0000:01:10.0".parse().unwrap()]);
        let processes = BTreeMap::from([(before, std::process::id()), (1, u32::MAX)]);
        assert!(find(&wanted, &processes).is_empty());
        assert_eq!(own(), before);
    }
}
