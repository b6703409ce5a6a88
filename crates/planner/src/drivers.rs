//! Drivers: when the host's drivers of PFs do what they can, and the drivers of VFs, in guests as on the host. Tables, each row with
//! its source.
//!
//! The capabilities of a PF's driver are in the inventory.

use ioward_model::{Class, GuestOs, HexId, KindName, PhysicalFunction, VirtualFunction};

/// When a PF's driver does what it can. One that is not here does it always.
pub(crate) struct PfDriver {
    name: &'static str,
    /// It refuses a VF's rate while the port has no link.
    pub rate_needs_link: bool,
}

/// `drivers/net/ethernet` of Linux 6.12.
const PF_DRIVERS: [PfDriver; 2] = [
    // intel/igb/igb_main.c: igb_ndo_set_vf_bw wants a link.
    PfDriver { name: "igb", rate_needs_link: true },
    // intel/ixgbe/ixgbe_sriov.c: ixgbe_ndo_set_vf_bw wants a link.
    PfDriver { name: "ixgbe", rate_needs_link: true },
];

impl PfDriver {
    /// The driver of this name, when something is known of it.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        PF_DRIVERS.iter().find(|driver| driver.name == name)
    }
}

/// The driver through which machines and domains get their VFs.
pub(crate) const VFIO: &str = "vfio-pci";

/// The driver that a VF of this PF is bound to for a partition of this kind: for a namespace Linux's own for it. `None`: none is known.
pub(crate) fn of_vf(kind: KindName, pf: &PhysicalFunction) -> Option<&'static str> {
    if kind.uses_vfio() {
        return Some(VFIO);
    }
    let device = pf.sriov.as_ref()?.vf_device_id;
    VfDrivers::of(pf.class, pf.vendor_id, device)?.in_os(GuestOs::Linux)
}

/// Whether a VF is bound as a partition of this kind has it.
pub(crate) fn is_ready(kind: KindName, pf: &PhysicalFunction, vf: &VirtualFunction) -> bool {
    let bound = vf.driver.as_deref();
    bound.is_some() && bound == of_vf(kind, pf)
}

/// Drivers of a VF by operating system.
pub(crate) struct VfDrivers {
    vendor: u16,
    devices: &'static [u16],
    /// By operating system: Linux, FreeBSD, Windows. Empty: none is known.
    names: [&'static str; 3],
}

/// `MODULE_DEVICE_TABLE` of the VF drivers in Linux 6.12; `sys/dev` of FreeBSD 14 (igb, ixgbe/ixv, iavf, mlx5, bnxt); the
/// vendors' Windows drivers.
const VF_DRIVERS: [VfDrivers; 10] = [
    // 82576 and I350.
    VfDrivers { vendor: 0x8086, devices: &[0x10ca, 0x152d, 0x1520, 0x152f], names: ["igbvf", "igb", ""] },
    // 82599, X540, X550.
    VfDrivers {
        vendor: 0x8086,
        devices: &[0x10ed, 0x152e, 0x1515, 0x1530, 0x1565, 0x1564, 0x15a8, 0x15a9, 0x15c5, 0x15b4],
        names: ["ixgbevf", "ixv", "vxn"],
    },
    // XL710, X722, E810.
    VfDrivers { vendor: 0x8086, devices: &[0x154c, 0x1571, 0x37cd, 0x1889], names: ["iavf", "iavf", "iavf"] },
    // ConnectX-2 and -3.
    VfDrivers { vendor: 0x15b3, devices: &[0x1002, 0x1004], names: ["mlx4_core", "mlx4_core", "mlx4_bus"] },
    // Connect-IB, ConnectX-4 and later, BlueField.
    VfDrivers {
        vendor: 0x15b3,
        devices: &[0x1012, 0x1014, 0x1016, 0x1018, 0x101a, 0x101c, 0x101e, 0xa2d3],
        names: ["mlx5_core", "mlx5_core", "mlx5"],
    },
    // NetXtreme-C and -E.
    VfDrivers {
        vendor: 0x14e4,
        devices: &[
            0x1606, 0x1607, 0x1608, 0x1609, 0x16bd, 0x16c1, 0x16c2, 0x16c3, 0x16c4, 0x16c5, 0x16cb, 0x16d3,
            0x16dc, 0x16e1, 0x16e5, 0x16e6, 0x1806, 0x1807, 0x1808, 0x1809, 0xd800,
        ],
        names: ["bnxt_en", "bnxt", "bnxtnd"],
    },
    // FastLinQ.
    VfDrivers { vendor: 0x1077, devices: &[0x1664, 0x8090], names: ["qede", "", "qevbd"] },
    // Hi1822 and HNS3.
    VfDrivers { vendor: 0x19e5, devices: &[0x375e, 0x379e], names: ["hinic", "", ""] },
    VfDrivers { vendor: 0x19e5, devices: &[0xa22e, 0xa22f], names: ["hclgevf", "", ""] },
    // Data Center GPU Flex.
    VfDrivers { vendor: 0x8086, devices: &[0x56c0, 0x56c1], names: ["xe", "", "igfxn"] },
];

/// Every NVMe controller is driven by its class (`PCI_CLASS_STORAGE_EXPRESS`).
const NVME: VfDrivers = VfDrivers { vendor: 0, devices: &[], names: ["nvme", "nvme", "stornvme"] };

impl VfDrivers {
    /// The drivers of a VF by its PF's vendor and its own device ID; `None` when none are known.
    pub(crate) fn of(class: Class, vendor: HexId, device: HexId) -> Option<&'static Self> {
        if class == Class::Nvme {
            return Some(&NVME);
        }
        VF_DRIVERS.iter().find(|drivers| drivers.vendor == vendor.0 && drivers.devices.contains(&device.0))
    }

    /// The driver in an operating system, where it has one.
    pub(crate) fn in_os(&self, os: GuestOs) -> Option<&'static str> {
        let name = match os {
            GuestOs::Linux => self.names[0],
            GuestOs::Freebsd => self.names[1],
            GuestOs::Windows => self.names[2],
        };
        Some(name).filter(|name| !name.is_empty())
    }

    /// All names it has anywhere.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + use<> {
        let mut names: Vec<_> = self.names.into_iter().filter(|name| !name.is_empty()).collect();
        names.dedup();
        names.into_iter()
    }
}
