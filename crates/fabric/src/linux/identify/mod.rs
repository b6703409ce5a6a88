//! Identify: every SR-IOV physical function of a host, read from its /sys and /proc.
//!
//! ```text
//! HostRoot ─> Probe, one a function ─> physical ─┬─> sriov, virtual_function
//!                                                ├─> netdev ─> network_use (proc: addresses, routes)
//!                                                └─> nvme ───> block_use (proc: mounts, swaps)
//! ```
//!
//! Unreadable facts become Reasons on their function; the rest is read all the same.

pub(super) mod block_use;
mod netdev;
pub(super) mod network_use;
mod numa;
mod nvme;
pub(super) mod pci_ids;
mod physical;
mod port;
mod probe;
mod sriov;
mod virtual_function;

use std::{
    cell::{OnceCell, RefCell},
    collections::BTreeSet,
};

use ioward_model::{HexId, Inventory, checks};
use ioward_pci::Bdf;

use self::{
    block_use::BlockUse,
    network_use::NetworkUse,
    pci_ids::{Names, PciIds},
    port::Bridge,
};
use super::{
    holders,
    root::{Folder, HostRoot},
};
use crate::FabricError;

const DEVICES: &str = "sys/bus/pci/devices";
const DRIVERS: &str = "sys/bus/pci/drivers";
const IOMMU_GROUPS: &str = "sys/kernel/iommu_groups";

/// Maximum number of uses by the host recorded for one interface or controller. One would suffice to leave it
/// alone.
const MAX_USES: usize = 32;

/// Looks at a whole host, and who has its VFs. `generation` is 0, and VFs have neither owners nor settings: the caller adds those, and
/// an NVMe controller's data that requires admin commands.
///
/// # Errors
/// [`FabricError::Read`] when the PCI functions of the host cannot be listed. Nothing else is an error: a function that
/// cannot be read in full is in the result, with Reasons.
pub fn identify(root: &HostRoot) -> Result<Inventory, FabricError> {
    let mut inventory = functions(root, &Names::default())?;
    let wanted = holders::Wanted::of(root, &inventory);
    holders::look(root, &wanted).add_to(&mut inventory);
    checks::note_available(&mut inventory);
    Ok(inventory)
}

/// The same without a look at who has its VFs, which is at all processes.
pub(super) fn functions(root: &HostRoot, names: &Names) -> Result<Inventory, FabricError> {
    let listed =
        root.list(DEVICES).map_err(|source| FabricError::Read { path: root.show(DEVICES), source })?;
    let mut addresses: Vec<Bdf> = listed.iter().filter_map(|name| address(name)).collect();
    addresses.sort_unstable();
    let (network, block) = (NetworkUse::read(root), BlockUse::read(root));
    let (pci_ids, bridges) = (OnceCell::new(), OnceCell::new());
    let (groups, vfs) = (root.folder_at(IOMMU_GROUPS), RefCell::default());
    let host = Host { root, network, block, names, pci_ids, addresses: &addresses, bridges, groups, vfs };
    let mut inventory = Inventory {
        generation: 0,
        iommu: root.list(IOMMU_GROUPS).is_ok_and(|groups| !groups.is_empty()),
        vfio_pci: vfio_pci(root),
        numa_nodes: numa::read(root),
        physical_functions: addresses.iter().filter_map(|address| physical::read(&host, *address)).collect(),
    };
    for pf in &mut inventory.physical_functions {
        physical::add_ports(&host, pf);
    }
    inventory.name_adapters();
    checks::note_available(&mut inventory);
    Ok(inventory)
}

/// Whether the driver that passes VFs to partitions is loaded.
fn vfio_pci(root: &HostRoot) -> Option<bool> {
    let loaded = root.list(&format!("{DRIVERS}/vfio-pci")).is_ok();
    // A partial copy of a tree, and an older recording, have no drivers at all.
    (loaded || root.list(DRIVERS).is_ok()).then_some(loaded)
}

/// The part common to all functions of a host.
struct Host<'a> {
    root: &'a HostRoot,
    network: NetworkUse,
    block: BlockUse,
    names: &'a Names,
    pci_ids: OnceCell<PciIds>,
    /// All functions, by address.
    addresses: &'a [Bdf],
    bridges: OnceCell<Vec<Bridge>>,
    /// The IOMMU groups.
    groups: Folder<'a>,
    /// VFs that were seen with their PFs.
    vfs: RefCell<BTreeSet<Bdf>>,
}

impl Host<'_> {
    /// Vendor and device in words. pci.ids is read where one is not known yet.
    fn name(&self, vendor: HexId, device: HexId) -> String {
        let pci_ids = || self.pci_ids.get_or_init(|| PciIds::read(self.root));
        self.names.of(vendor, device, || pci_ids().name(vendor, device))
    }

    /// Only read where an adapter is below them.
    fn bridges(&self) -> &[Bridge] {
        self.bridges.get_or_init(|| {
            let vfs = self.vfs.borrow();
            port::bridges(self.root, self.addresses.iter().filter(|function| !vfs.contains(function)))
        })
    }
}

/// The address in a sysfs name; only in the kernel's own form, which makes it the folder's name.
fn address(name: &str) -> Option<Bdf> {
    name.parse().ok().filter(|address: &Bdf| address.to_string() == name)
}
