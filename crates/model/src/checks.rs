//! Whether an adapter can give VFs to partitions: one table of checks over an inventory.
//!
//! `ioward host` and `ioward doctor` show what it finds, `ioward compatible` and the planner refuse by it, and so no two of
//! them can disagree. A new check is a function and a line in [`CHECKS`]. Whatever makes a write to `sriov_numvfs` or the
//! binding of a VF fail, and can be seen before, belongs here.
//!
//! Kernel side: drivers/pci/iov.c (`sriov_numvfs_store`, `sriov_enable`), drivers/iommu/iommu.c (`pci_device_group`).

use ioward_pci::Bdf;

use crate::{Inventory, KindName, OutOfService, PhysicalFunction, Reason, Rule};

/// The operation that an obstacle blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// Making VFs. Those that are there can be given to partitions all the same.
    Making,
    /// Giving VFs to partitions that have them through VFIO: machines and domains. They can be made all the same.
    Giving,
    /// Both.
    Both,
}

impl Blocks {
    /// Whether VFs can't be made.
    #[must_use]
    pub fn making(self) -> bool {
        self != Self::Giving
    }

    /// Whether VFs that are there can't be given to a machine or a domain.
    #[must_use]
    pub fn giving(self) -> bool {
        self.giving_to(KindName::Machine)
    }

    /// Whether VFs that are there can't be given to a partition of this kind.
    #[must_use]
    pub fn giving_to(self, kind: KindName) -> bool {
        match self {
            Self::Making => false,
            Self::Giving => kind.uses_vfio(),
            Self::Both => true,
        }
    }
}

/// Something that keeps a PF from giving VFs to partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// The operation it blocks.
    pub blocks: Blocks,
    /// The requirement, the finding, and the remedy.
    pub reason: Reason,
}

type Check = fn(&Inventory, &PhysicalFunction) -> Option<Reason>;

/// All checks of an adapter. The first that finds something is the one to put right first.
const CHECKS: [(Blocks, Check); 17] = [
    (Blocks::Both, is_serving),
    (Blocks::Both, is_readable),
    (Blocks::Both, is_in_service),
    (Blocks::Both, has_numvfs),
    (Blocks::Both, allows_vfs),
    (Blocks::Both, has_driver),
    (Blocks::Both, has_driver_that_makes_vfs),
    (Blocks::Giving, has_vfs_for_vfio),
    (Blocks::Both, has_room_for_bars),
    (Blocks::Making, has_initial_vfs),
    (Blocks::Making, has_bus_numbers),
    (Blocks::Making, has_its_dependency),
    (Blocks::Making, is_awake),
    (Blocks::Making, has_interface_up),
    (Blocks::Giving, has_iommu_group),
    (Blocks::Giving, has_slot_with_acs),
    (Blocks::Giving, has_port_with_acs),
];

/// Drivers that let a function be and make no VFs of it. vfio-pci does so when it is told to (`enable_sriov`), and those
/// belong to whoever has the PF open.
const WITHOUT_SRIOV: [&str; 4] = ["vfio-pci", "pci-stub", "uio_pci_generic", "igb_uio"];

/// Drivers of Intel's QAT: `adf_sriov_configure` makes all VFs, whatever number it is asked for
/// (drivers/crypto/intel/qat/qat_common/adf_sriov.c).
const ALL_OR_NONE: [&str; 6] = ["c3xxx", "c6xx", "dh895xcc", "4xxx", "420xx", "6xxx"];

/// Drivers that make no VFs while the interface is down: `bnxt_sriov_configure` (drivers/net/ethernet/broadcom/bnxt).
const NEED_INTERFACE_UP: [&str; 1] = ["bnxt_en"];

/// Drivers that wake their device by themselves before they make VFs (drivers/gpu/drm/xe/xe_pci_sriov.c; i915 likewise).
const WAKE_BY_THEMSELVES: [&str; 2] = ["xe", "i915"];

/// All that keeps a PF from giving VFs to partitions, as far as it shows in the PF and in what is around it; the host's own
/// lacks are in [`host`]. Empty: it can.
#[must_use]
pub fn adapter(inventory: &Inventory, pf: &PhysicalFunction) -> Vec<Obstacle> {
    let found = CHECKS.iter().filter_map(|(blocks, check)| Some((*blocks, check(inventory, pf)?)));
    // Of what can't be read there is nothing more to say, nor of what nobody touches.
    let is_closed = is_readable(inventory, pf).is_some() || !pf.service.is_serving();
    let most = if is_closed { 1 } else { CHECKS.len() };
    found
        .take(most)
        .map(|(blocks, reason)| {
            let reason = Reason { function: reason.function.or(Some(pf.address)), ..reason };
            Obstacle { blocks, reason }
        })
        .collect()
}

/// Obstacles that keep every adapter of a host from giving VFs to partitions that have them through VFIO.
#[must_use]
pub fn host(inventory: &Inventory) -> Vec<Reason> {
    let iommu = (!inventory.iommu).then(|| {
        let required = "an IOMMU that keeps a partition's VFs to that partition's memory";
        Reason::new(Rule::Iommu, required, "no IOMMU is on").remedy(
            "turn on VT-d or AMD-Vi in the firmware, start the kernel with intel_iommu=on (Intel) and reboot",
        )
    });
    let vfio = (inventory.vfio_pci == Some(false)).then(|| {
        Reason::new(Rule::VfioPci, "the driver vfio-pci, which hands VFs to partitions", "it is not loaded")
            .remedy("modprobe vfio-pci; 'ioward doctor' says more")
    });
    iommu.into_iter().chain(vfio).collect()
}

/// How many VFs a PF can give at most: TotalVFs, or as many as have a bus number below the port.
#[must_use]
pub fn most_vfs(pf: &PhysicalFunction) -> u16 {
    let Some(sriov) = &pf.sriov else { return 0 };
    let Some(last) = pf.conditions.last_bus.filter(|_| sriov.first_vf_offset > 0) else {
        return sriov.total_vfs;
    };
    let bus = |index| {
        let vf = pf.address.virtual_function(sriov.first_vf_offset, sriov.vf_stride, index);
        vf.map(Bdf::bus)
    };
    let fits = |index: &u16| bus(*index).is_some_and(|bus| bus <= last);
    let fitting = (0..sriov.total_vfs).take_while(fits).count();
    // Those that are there have proved that they fit.
    u16::try_from(fitting).unwrap_or(u16::MAX).max(sriov.num_vfs.min(sriov.total_vfs))
}

/// Whether the PF's driver makes all VFs or none.
#[must_use]
pub fn makes_all_or_none(pf: &PhysicalFunction) -> bool {
    pf.driver.as_deref().is_some_and(|driver| ALL_OR_NONE.contains(&driver))
}

/// Fills in `vfs_available` of all adapters, as if no VF had an owner.
pub fn note_available(inventory: &mut Inventory) {
    let all: Vec<u16> = inventory.physical_functions.iter().map(|pf| available(inventory, pf)).collect();
    for (pf, available) in inventory.physical_functions.iter_mut().zip(all) {
        pf.vfs_available = available;
    }
}

/// VFs of a PF that nothing is in the way of giving to a partition.
fn available(inventory: &Inventory, pf: &PhysicalFunction) -> u16 {
    let obstacles = adapter(inventory, pf);
    if obstacles.iter().any(|obstacle| obstacle.blocks.giving()) {
        return 0;
    }
    let all = if obstacles.is_empty() { most_vfs(pf) } else { pf.num_vfs() };
    let used = pf.virtual_functions.iter().filter(|vf| vf.foreign_use().is_some()).count();
    all.saturating_sub(u16::try_from(used).unwrap_or(u16::MAX))
}

/// Nobody gives VFs of an adapter that has a fault.
fn is_serving(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    pf.service.in_the_way(pf.address)
}

/// The SR-IOV capability could be read, of an adapter that is the one that is noted at its address, and is not lost out of service.
fn is_readable(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let says_more = |reason: &&Reason| matches!(reason.rule, Rule::AdapterIdentity | Rule::InService);
    if let Some(reason) = pf.reasons.iter().find(says_more) {
        return Some(reason.clone());
    }
    let found =
        pf.reasons.first().map_or_else(|| "it could not be read".to_owned(), |reason| reason.found.clone());
    pf.sriov.is_none().then(|| Reason::new(Rule::Readable, "an SR-IOV capability that can be read", found))
}

fn is_in_service(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    pf.out_of_service.as_ref().map(|out| out_of_service(pf.address, out))
}

/// Why none of the VFs of an adapter is given to anybody while it is out of service.
#[must_use]
pub fn out_of_service(pf: Bdf, out: &OutOfService) -> Reason {
    let reason = Reason::new(Rule::InService, "an adapter in service", out.describe()).on(pf);
    reason.remedy(format!("ioward return {pf}"))
}

/// Why a VF that is out of service by itself is given to nobody.
#[must_use]
pub fn vf_out_of_service(address: Bdf, out: &OutOfService) -> Reason {
    let reason = Reason::new(Rule::InService, "a VF in service", out.describe()).on(address);
    reason.remedy(format!("ioward return {address}"))
}

fn has_numvfs(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    pf.conditions.no_numvfs.then(|| {
        let found = "it has the capability, and the kernel shows no sriov_numvfs for it";
        Reason::new(Rule::Capability, "a kernel that makes VFs of it", found).remedy(
            "run a kernel built with CONFIG_PCI_IOV, and see in dmesg why it takes the function for none with SR-IOV",
        )
    })
}

fn allows_vfs(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let none = pf.sriov.as_ref().is_some_and(|sriov| sriov.total_vfs == 0);
    none.then(|| {
        let found = "it has the capability, and allows 0 VFs (sriov_totalvfs)";
        Reason::new(Rule::VfCapacity, "an adapter that allows VFs", found).remedy(
            "turn SR-IOV on in the adapter's own firmware (its maker's tool, as mlxconfig with SRIOV_EN=1 and \
             NUM_OF_VFS, or its page in the machine's firmware), then power the machine off and on",
        )
    })
}

/// `sriov_numvfs_store` answers ENOENT.
fn has_driver(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    pf.driver.is_none().then(|| {
        let found = "no driver is bound to it, and only its driver makes VFs";
        let remedy = format!(
            "load the driver for it: 'modinfo' of it lists [{}:{}]; 'lspci -ks {}' names candidates",
            pf.vendor_id, pf.device_id, pf.address
        );
        Reason::new(Rule::DriverReady, "a PF with a driver that makes VFs", found).remedy(remedy)
    })
}

/// `sriov_numvfs_store` answers ENOENT for a driver without `sriov_configure`.
fn has_driver_that_makes_vfs(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let driver = pf.driver.as_deref().filter(|driver| WITHOUT_SRIOV.contains(driver))?;
    let found = format!("its driver {driver} makes no VFs");
    let remedy = format!("give it back to its own driver: 'lspci -ks {}' names it", pf.address);
    Some(Reason::new(Rule::DriverReady, "a PF with a driver that makes VFs", found).remedy(remedy))
}

/// A VF of an NVIDIA GPU stays with the driver nvidia, which carries a vGPU of the type that was chosen for it. On vfio-pci
/// it is no usable GPU.
fn has_vfs_for_vfio(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let types: Vec<u32> = pf.virtual_functions.iter().filter_map(|vf| vf.vgpu_type).collect();
    if pf.driver.as_deref() != Some("nvidia") && types.is_empty() {
        return None;
    }
    let mut found = "a VF of this GPU is passed on through the driver nvidia, as a vGPU".to_owned();
    let without = types.iter().filter(|vgpu| **vgpu == 0).count();
    if without > 0 {
        found += &format!("; {without} of its {} VFs have no vGPU type", types.len());
    }
    let remedy = "choose a type in nvidia/current_vgpu_type of the VF and give it to a machine that ioward does not run, \
                  or use another adapter";
    Some(Reason::new(Rule::Capability, "VFs that vfio-pci can hand to partitions", found).remedy(remedy))
}

/// `sriov_enable` answers ENOMEM: "not enough MMIO resources for SR-IOV".
fn has_room_for_bars(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let bars: Vec<_> = pf.conditions.bars_without_room.iter().map(ToString::to_string).collect();
    (!bars.is_empty()).then(|| {
        let found = format!("there is no address space for VF BAR {}", bars.join(" and "));
        Reason::new(Rule::AddressSpace, "address space for the VFs", found).remedy(
            "turn on 'Above 4G Decoding' in the firmware (and 'MMIO High Size', where there is one, up), or boot with \
             pci=realloc",
        )
    })
}

/// `sriov_enable` answers EIO.
fn has_initial_vfs(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    pf.conditions.initial_vfs_differ.then(|| {
        let found = "InitialVFs is not TotalVFs, which the kernel takes for a broken device";
        Reason::new(Rule::Capability, "an adapter whose VFs are all there initially", found)
            .remedy("update the adapter's firmware, or reset its SR-IOV settings by its maker's tool")
    })
}

/// `sriov_enable` answers ENOMEM: "bus … out of range".
fn has_bus_numbers(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let last = pf.conditions.last_bus.filter(|_| pf.total_vfs() > 0)?;
    let total = pf.total_vfs();
    let most = most_vfs(pf);
    let too_few = if makes_all_or_none(pf) { most < total } else { most == 0 };
    too_few.then(|| {
        let found = format!(
            "the port above it leads to buses up to {last:02x}, and {most} of its {total} VFs are on those"
        );
        Reason::new(Rule::VfCapacity, "bus numbers for the VFs", found)
            .remedy("turn on ARI and SR-IOV in the firmware, or boot with pci=assign-busses")
    })
}

/// `sriov_enable` answers ENODEV or ENOSYS.
fn has_its_dependency(inventory: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let link = u16::from(pf.sriov.as_ref()?.function_dependency_link?);
    let at = |mask: u16, number: u16| {
        Bdf::from_routing_id(pf.address.domain(), pf.address.routing_id() & mask | number)
    };
    // Within the root complex the kernel takes it for a function of the same device.
    let (needed, of_device) = (at(0xff00, link), at(0xfff8, link & 7));
    let is_there = |needed| needed == pf.address || inventory.physical_function(needed).is_some();
    (!is_there(needed) && !is_there(of_device)).then(|| {
        let found = format!("it depends on {needed} (Function Dependency Link), which is no PF");
        Reason::new(Rule::FunctionExists, "the PF that this one depends on", found)
            .remedy("turn SR-IOV on for all functions of the adapter in its firmware")
    })
}

/// A function that sleeps does not answer, or answers for its PF alone.
fn is_awake(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let state = pf.conditions.power_state.as_ref()?;
    let wakes = pf.driver.as_deref().is_some_and(|driver| WAKE_BY_THEMSELVES.contains(&driver));
    (!wakes).then(|| {
        let found = format!("its power state is {state}");
        let remedy = format!("wake it: echo on >/sys/bus/pci/devices/{}/power/control", pf.address);
        Reason::new(Rule::DriverReady, "a PF that is awake (D0)", found).remedy(remedy)
    })
}

fn has_interface_up(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let driver = pf.driver.as_deref().filter(|driver| NEED_INTERFACE_UP.contains(driver))?;
    let interface = pf.netdevs.first().map_or("its interface", |netdev| &netdev.name);
    (!pf.netdevs.iter().any(|netdev| netdev.up)).then(|| {
        let found = format!("{driver} makes no VFs while {interface} is down");
        let reason = Reason::new(Rule::DriverReady, "a PF whose interface is up", found);
        reason.remedy(format!("ip link set {interface} up"))
    })
}

/// vfio-pci takes no device without a group.
fn has_iommu_group(inventory: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let has_one = pf.iommu_group.or_else(|| pf.virtual_functions.iter().find_map(|vf| vf.iommu_group));
    (inventory.iommu && has_one.is_none()).then(|| {
        let found = "it is in none: no IOMMU translates for its slot, and so for its VFs";
        Reason::new(Rule::IommuGroup, "an IOMMU group of its own for each VF", found).remedy(
            "take what exempts it (as intel_iommu=igfx_off) from the kernel command line, or use another slot",
        )
    })
}

/// VFs of a PF that shares its group with other devices will be in it as well: what lies between them and the root keeps
/// nothing apart.
fn has_slot_with_acs(_: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    if pf.iommu_group_shared_with.is_empty() {
        return None;
    }
    let with: Vec<_> = pf.iommu_group_shared_with.iter().take(8).map(ToString::to_string).collect();
    let found = format!("its slot shares one with {}", with.join(", "));
    let reason = Reason::new(Rule::IommuGroup, "an IOMMU group of its own for each VF", found);
    Some(reason.remedy("use a slot behind a port with ACS"))
}

/// A new VF gets the group of the first port above it that has no ACS. Where the PF is in such a port's group, or a VF on
/// the PF's bus is in the PF's, all VFs of the PF will be in the PF's own.
fn has_port_with_acs(inventory: &Inventory, pf: &PhysicalFunction) -> Option<Reason> {
    let group = pf.iommu_group?;
    let place = |address: Bdf| (address.domain(), address.bus());
    let siblings =
        inventory.physical_functions.iter().filter(|other| place(other.address) == place(pf.address));
    let vf = || {
        let mut vfs = siblings.flat_map(|other| &other.virtual_functions);
        vfs.find(|vf| vf.iommu_group == Some(group)).map(|vf| vf.address)
    };
    let found = match pf.conditions.port_in_group {
        Some(port) => format!("port {port} is in group {group} with its PF, and VFs will be: it has no ACS"),
        None => format!("VF {} is in group {group} with the PF: the port above them has no ACS", vf()?),
    };
    let reason = Reason::new(Rule::IommuGroup, "an IOMMU group of its own for each VF", found);
    Some(reason.remedy("use a slot behind a port with ACS"))
}
