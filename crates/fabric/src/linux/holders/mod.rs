//! Who has the VFs that no driver of the host shows: programs that have one open through VFIO or UIO, and network
//! namespaces that its interface has been moved into.
//!
//! ```text
//! Inventory ─> Wanted (device nodes, functions without an interface) ─ scan: one pass over /proc ─┬─> process ─> Holder
//!                                                                                               └─> namespaces ──┘
//! ```
//!
//! Where no VF is in doubt, /proc is not looked at. Processes come and go meanwhile, and choose their own names: every
//! count and every length is bounded, and names become [`ioward_model::Label`]s.

mod namespaces;
mod process;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{Class, Holder, Inventory, Process, Reason, Rule, VirtualFunction};
use ioward_pci::Bdf;

use self::scan::{Bounds, Scan};
use super::root::HostRoot;

/// The VFs in doubt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wanted {
    /// VFs by the device node that opens them. Without ACS, a group's node opens several.
    nodes: BTreeMap<String, Vec<Bdf>>,
    /// VFs of network adapters that a driver has without an interface here.
    without_interface: BTreeSet<Bdf>,
}

impl Wanted {
    pub(super) fn of(root: &HostRoot, inventory: &Inventory) -> Self {
        let mut wanted = Self::default();
        for pf in &inventory.physical_functions {
            for vf in &pf.virtual_functions {
                if vf.is_lent() {
                    for node in nodes(root, vf) {
                        wanted.nodes.entry(node).or_default().push(vf.address);
                    }
                } else if pf.class == Class::Network && vf.driver.is_some() && vf.netdevs.is_empty() {
                    wanted.without_interface.insert(vf.address);
                }
            }
        }
        wanted
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.without_interface.is_empty()
    }
}

/// The nodes through which a program opens a VF: its group's, its own (Linux 6.6), that of a group without an IOMMU, and
/// those of UIO.
fn nodes(root: &HostRoot, vf: &VirtualFunction) -> Vec<String> {
    let folder = format!("sys/bus/pci/devices/{}", vf.address);
    let driver = vf.driver.as_deref().unwrap_or_default();
    let names = |of: &str, name: &str| {
        if driver.contains(of) {
            root.list(&format!("{folder}/{name}")).unwrap_or_default()
        } else {
            Vec::new()
        }
    };
    let group = vf.iommu_group.iter();
    let groups = group.flat_map(|group| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")]);
    let own = names("vfio", "vfio-dev").into_iter().map(|name| format!("/dev/vfio/devices/{name}"));
    groups.chain(own).chain(names("uio", "uio").into_iter().map(|name| format!("/dev/{name}"))).collect()
}

/// What was found out about the VFs in doubt.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found {
    holders: BTreeMap<Bdf, Holder>,
    /// The VFs of which nothing was found out.
    left: BTreeSet<Bdf>,
    /// Why not all processes were seen.
    gap: Option<String>,
}

impl Found {
    /// Nothing, because of an error.
    pub(super) fn none(wanted: &Wanted, why: String) -> Self {
        let left = wanted.nodes.values().flatten().copied().collect();
        Self { left, gap: Some(why), ..Self::default() }
    }

    /// With known holders.
    pub(super) fn known(holders: BTreeMap<Bdf, Holder>) -> Self {
        Self { holders, ..Self::default() }
    }

    /// Adds the holders to the inventory, and why one is not known.
    pub(super) fn add_to(mut self, inventory: &mut Inventory) {
        for vf in inventory.physical_functions.iter_mut().flat_map(|pf| &mut pf.virtual_functions) {
            vf.holder = self.holders.remove(&vf.address);
            if let Some(gap) = self.gap.as_ref().filter(|_| self.left.contains(&vf.address)) {
                let reason = Reason::new(Rule::Readable, "a look at who has it open", gap);
                vf.reasons.push(reason.on(vf.address));
            }
        }
    }
}

/// Finds out who has the VFs in doubt. What can't be found out is left out.
pub(super) fn look(root: &HostRoot, wanted: &Wanted) -> Found {
    look_within(root, wanted, Bounds::default())
}

fn look_within(root: &HostRoot, wanted: &Wanted, bounds: Bounds) -> Found {
    if wanted.is_empty() {
        return Found::default();
    }
    let Scan { open, namespaces, processes, gap } = scan::scan(root, wanted, bounds);
    // A copied tree without processes says nothing.
    if processes == 0 {
        return gap.map_or_else(Found::default, |gap| Found::none(wanted, gap));
    }
    let mut found = Found { gap, ..Found::default() };
    let mut known: BTreeMap<u32, Option<Process>> = BTreeMap::new();
    let mut process = |pid| known.entry(pid).or_insert_with(|| process::read(root, pid)).clone();
    for (node, pid) in &open {
        let Some(process) = process(*pid) else { continue };
        for vf in wanted.nodes.get(node).into_iter().flatten() {
            found.holders.insert(*vf, Holder::Process(process.clone()));
        }
    }
    for (node, vfs) in &wanted.nodes {
        for vf in vfs.iter().filter(|vf| !found.holders.contains_key(vf)) {
            // Who had it open has ended just now: the next look tells.
            if found.gap.is_some() || open.contains_key(node) {
                found.left.insert(*vf);
            }
        }
    }
    for vf in wanted.nodes.values().flatten().filter(|vf| !found.left.contains(vf)) {
        found.holders.entry(*vf).or_insert(Holder::Nobody);
    }
    if root.is_live() && !wanted.without_interface.is_empty() {
        for (vf, there) in namespaces::find(&wanted.without_interface, &namespaces) {
            let process = there.pid.and_then(&mut process);
            found
                .holders
                .insert(vf, Holder::NetworkNamespace { name: there.name, netdevs: there.netdevs, process });
        }
    }
    found
}

#[cfg(test)]
mod tests;
