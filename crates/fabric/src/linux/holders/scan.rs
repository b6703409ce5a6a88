//! One pass over the processes of a host: which has a device node open, and which network namespaces there are.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ffi::CStr,
    io::ErrorKind,
    ops::ControlFlow,
};

use ioward_pci::Bdf;

use super::Wanted;
use crate::linux::root::HostRoot;

/// The most that is looked at, however many processes there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Processes; the kernel's own limit is 4,194,304 (`PID_MAX_LIMIT`), and hosts have some ten thousand.
    pub(super) processes: usize,
    /// Open files of one process. A new one gets the lowest free number, so device nodes are among the first.
    pub(super) files_each: usize,
    /// Open files of all processes.
    pub(super) files: usize,
    /// Network namespaces.
    pub(super) namespaces: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { processes: 1 << 17, files_each: 1 << 14, files: 1 << 22, namespaces: 1 << 12 }
    }
}

/// What processes have.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// The device nodes that are open, with the first process that has each.
    pub(super) open: BTreeMap<String, u32>,
    /// Network namespaces by inode, with the first process in each.
    pub(super) namespaces: BTreeMap<u64, u32>,
    /// The number of processes seen.
    pub(super) processes: usize,
    /// Why not all was seen.
    pub(super) gap: Option<String>,
}

/// Looks at processes in the order of their numbers, until all is found.
pub(super) fn scan(root: &HostRoot, wanted: &Wanted, bounds: Bounds) -> Scan {
    let mut scan = Scan::default();
    let mut processes = Vec::new();
    let listed = root.each_name("proc", |name| {
        let Some(pid) = number(name) else { return ControlFlow::Continue(()) };
        if processes.len() == bounds.processes {
            scan.gap = Some(format!("there are more than {} processes", bounds.processes));
            return ControlFlow::Break(());
        }
        processes.push(pid);
        ControlFlow::Continue(())
    });
    if let Err(error) = listed.as_ref() {
        let is_known = error.kind() != ErrorKind::NotFound;
        scan.gap = is_known.then(|| format!("the processes of this host can't be listed: {error}"));
        return scan;
    }
    processes.sort_unstable();
    scan.processes = processes.len();
    let mut files = bounds.files;
    // Of a VF that is found, the other nodes can't be open.
    let mut missing: BTreeSet<Bdf> = wanted.nodes.values().flatten().copied().collect();
    for pid in processes {
        if missing.is_empty() && wanted.without_interface.is_empty() {
            break;
        }
        if !missing.is_empty() {
            for node in scan.files(root, wanted, pid, bounds.files_each, &mut files) {
                wanted.nodes.get(&node).into_iter().flatten().for_each(|vf| _ = missing.remove(vf));
                scan.open.entry(node).or_insert(pid);
            }
        }
        if !wanted.without_interface.is_empty() {
            scan.namespace(root, pid, bounds.namespaces);
        }
    }
    scan
}

/// The number of a process, from the name of its folder.
fn number(name: &CStr) -> Option<u32> {
    let name = name.to_str().ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))?;
    name.parse().ok()
}

impl Scan {
    /// The device nodes that a process has open.
    fn files(
        &mut self,
        root: &HostRoot,
        wanted: &Wanted,
        pid: u32,
        most: usize,
        left: &mut usize,
    ) -> Vec<String> {
        let (mut seen, mut open) = (0, Vec::new());
        let read = root.each_link(&format!("proc/{pid}/fd"), |target| {
            if seen == most || *left == 0 {
                self.gap = Some(if *left == 0 {
                    "processes have too many files open to look at all of them".to_owned()
                } else {
                    format!("process {pid} has more than {most} files open")
                });
                return ControlFlow::Break(());
            }
            (seen, *left) = (seen + 1, *left - 1);
            let node = std::str::from_utf8(target).ok();
            open.extend(node.filter(|node| wanted.nodes.contains_key(*node)).map(str::to_owned));
            ControlFlow::Continue(())
        });
        // One that has ended, or is just ending, has nothing open.
        if read.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            self.gap = Some("only root may see what all processes have open".to_owned());
        }
        open
    }

    fn namespace(&mut self, root: &HostRoot, pid: u32, most: usize) {
        let Ok(target) = root.link_target(&format!("proc/{pid}/ns/net")) else { return };
        let inode = std::str::from_utf8(&target)
            .ok()
            .and_then(|target| target.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok());
        let Some(inode) = inode else { return };
        let known = self.namespaces.len();
        if let Entry::Vacant(entry) = self.namespaces.entry(inode)
            && known < most
        {
            entry.insert(pid);
        }
    }
}
