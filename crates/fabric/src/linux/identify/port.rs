//! The ports above adapters: the bridges, and the buses that they lead to. The ports determine the bus numbers of
//! VFs, and the VFs' IOMMU group if a port has no ACS.

use ioward_pci::Bdf;

use super::{DEVICES, IOMMU_GROUPS, address};
use crate::linux::root::HostRoot;

/// Offsets of the secondary and the subordinate bus number in a bridge's header (PCI-to-PCI Bridge 1.2 §3.2.5).
const SECONDARY: usize = 0x19;
const SUBORDINATE: usize = 0x1a;

/// A bridge between two buses.
pub(super) struct Bridge {
    address: Bdf,
    /// The bus right below it.
    secondary: u8,
    /// The last bus below it.
    subordinate: u8,
}

impl Bridge {
    fn is_above(&self, function: Bdf) -> bool {
        let buses = self.secondary..=self.subordinate;
        self.address.domain() == function.domain() && buses.contains(&function.bus())
    }
}

/// The bridges among these functions.
pub(super) fn bridges<'a>(root: &HostRoot, functions: impl Iterator<Item = &'a Bdf>) -> Vec<Bridge> {
    let is_bridge = |function: &&Bdf| is_bridge(root, **function);
    functions.filter(is_bridge).filter_map(|function| bridge(root, *function)).collect()
}

/// Whether a function is a PCI-to-PCI bridge, as every port is.
pub(super) fn is_bridge(root: &HostRoot, function: Bdf) -> bool {
    root.text(&format!("{DEVICES}/{function}/class")).is_ok_and(|class| class.starts_with("0x0604"))
}

/// A bridge with unreadable numbers is assumed to lead nowhere.
fn bridge(root: &HostRoot, function: Bdf) -> Option<Bridge> {
    let config = root.read(&format!("{DEVICES}/{function}/config"), 4096).ok();
    let number = |attribute: &str, offset: usize| {
        let text = root.text(&format!("{DEVICES}/{function}/{attribute}")).ok();
        let shown = text.and_then(|text| text.parse().ok());
        shown.or_else(|| config.as_ref()?.get(offset).copied())
    };
    let secondary = number("secondary_bus_number", SECONDARY)?;
    let subordinate = number("subordinate_bus_number", SUBORDINATE)?;
    Some(Bridge { address: function, secondary, subordinate }).filter(|bridge| bridge.secondary > 0)
}

/// The last bus number that the port right above a function leads to; `None` on a root bus.
pub(super) fn last_bus(bridges: &[Bridge], function: Bdf) -> Option<u8> {
    let port = bridges
        .iter()
        .find(|bridge| bridge.secondary == function.bus() && bridge.address.domain() == function.domain());
    port.map(|port| port.subordinate).filter(|last| *last >= function.bus())
}

/// Fatal errors that the root port above a function has been told of; `None` where there is none, or it does not count.
pub(super) fn fatal_errors(root: &HostRoot, bridges: &[Bridge], function: Bdf) -> Option<u64> {
    let above = || bridges.iter().filter(|bridge| bridge.is_above(function));
    let is_on_top = |port: &&Bridge| !above().any(|other| other.is_above(port.address));
    let port = above().find(is_on_top)?.address;
    root.text(&format!("{DEVICES}/{port}/aer_rootport_total_err_fatal")).ok()?.trim().parse().ok()
}

/// The bridge above a function in the same IOMMU group.
pub(super) fn in_group(root: &HostRoot, bridges: &[Bridge], function: Bdf, group: u32) -> Option<Bdf> {
    let members = root.list(&format!("{IOMMU_GROUPS}/{group}/devices")).unwrap_or_default();
    let mut above = bridges.iter().filter(|bridge| bridge.is_above(function));
    let above = above.find(|bridge| members.iter().any(|name| address(name) == Some(bridge.address)));
    above.map(|bridge| bridge.address)
}
