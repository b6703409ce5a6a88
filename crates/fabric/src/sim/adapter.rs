//! An adapter for the simulated machine: its family, and its peculiarities.

use ioward_model::HostUse;

use super::family::{self, Family};

/// An adapter for a machine.
#[derive(Clone, Debug)]
pub struct Adapter {
    pub(super) family: Family,
    pub(super) numa_node: Option<u32>,
    pub(super) acs: bool,
    pub(super) dependent: bool,
    pub(super) driver: bool,
    pub(super) sriov_driver: bool,
    pub(super) up: bool,
    pub(super) vector_pool: u32,
    pub(super) makes_at_most: u16,
    pub(super) waits_for_resets: bool,
    pub(super) buses: Option<u8>,
    /// A serial number given to it.
    pub(super) serial: Option<u64>,
    pub(super) tells_serial: bool,
    /// Whether its driver has other health reporters than its family's.
    pub(super) reports_health: bool,
    /// Uses by the host, by port.
    pub(super) in_use_by_host: Vec<Vec<HostUse>>,
}

impl Adapter {
    fn of(family: Family) -> Self {
        Self {
            numa_node: None,
            acs: true,
            dependent: false,
            driver: true,
            sriov_driver: true,
            up: true,
            vector_pool: family.vf_vector_pool,
            makes_at_most: u16::MAX,
            waits_for_resets: true,
            buses: None,
            serial: None,
            tells_serial: true,
            reports_health: false,
            in_use_by_host: Vec::new(),
            family,
        }
    }

    /// A gigabit NIC with one port and 7 VFs, after the Intel 82576. Its link drops for some seconds when VFs
    /// appear, and it refuses rates without a link.
    #[must_use]
    pub fn gigabit() -> Self {
        Self::of(family::gigabit())
    }

    /// A 25 Gbit/s NIC with two ports of 64 VFs, after the Intel E810.
    #[must_use]
    pub fn dual_25g() -> Self {
        Self::of(family::dual_25g())
    }

    /// A 100 Gbit/s NIC with 127 VFs, after the Broadcom BCM57508: with more than 32 VFs they move to another First
    /// VF Offset, and some of them to the next bus. Makes no VFs while its interface is down, and reports success.
    #[must_use]
    pub fn hundred_g() -> Self {
        Self::of(family::hundred_g())
    }

    /// An NVMe controller with 16 VFs and flexible queue and interrupt resources.
    #[must_use]
    pub fn nvme() -> Self {
        Self::of(family::nvme())
    }

    /// A GPU whose profile determines its number of VFs: 16, 8, 4 or 2.
    #[must_use]
    pub fn gpu() -> Self {
        Self::of(family::gpu())
    }

    /// On this NUMA node. Without it, the firmware names no node.
    #[must_use]
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Without ACS: its functions, VFs included, share one IOMMU group.
    #[must_use]
    pub fn without_acs(mut self) -> Self {
        self.acs = false;
        self
    }

    /// With ports that depend on each other, according to their Function Dependency Links: the owner of a VF of one
    /// must get the VF of the same number of each (PCIe 6.0 §9.3.3.8). A single port depends on no other.
    #[must_use]
    pub fn dependent_ports(mut self) -> Self {
        self.dependent = true;
        self
    }

    /// Without a driver for its PFs.
    #[must_use]
    pub fn without_driver(mut self) -> Self {
        self.driver = false;
        self
    }

    /// With a driver that has a health reporter of devlink's for each of the two kinds of errors, whatever those of its family have: `fw`, from
    /// which it can recover, and `mdd`, from which it can't.
    #[must_use]
    pub fn reports_health(mut self) -> Self {
        self.reports_health = true;
        self
    }

    /// With a driver that makes no VFs.
    #[must_use]
    pub fn without_sriov_driver(mut self) -> Self {
        self.sriov_driver = false;
        self
    }

    /// With its interfaces down.
    #[must_use]
    pub fn down(mut self) -> Self {
        self.up = false;
        self
    }

    /// With this many MSI-X vectors for all VFs; a request beyond them is ENOSPC.
    #[must_use]
    pub fn vector_pool(mut self, vectors: u32) -> Self {
        self.vector_pool = vectors;
        self
    }

    /// With a driver that makes at most this many VFs, whatever the request, and reports success.
    #[must_use]
    pub fn makes_at_most(mut self, vfs: u16) -> Self {
        self.makes_at_most = vfs;
        self
    }

    /// With a PF driver that does not wait for a VF in reset but answers EBUSY at once.
    #[must_use]
    pub fn impatient(mut self) -> Self {
        self.waits_for_resets = false;
        self
    }

    /// With this many bus numbers, its own included; otherwise as many as all its VFs need. Too few is ENOMEM.
    #[must_use]
    pub fn buses(mut self, buses: u8) -> Self {
        self.buses = Some(buses.max(1));
        self
    }

    /// With this Device Serial Number, even if another has it: MACs and serial numbers of controllers follow from
    /// it, as with cards written from one image. Otherwise it gets one of its own.
    #[must_use]
    pub fn serial_number(mut self, serial: u64) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Without the Device Serial Number capability, which is optional (PCIe 6.0 §7.9.3).
    #[must_use]
    pub fn without_serial_number(mut self) -> Self {
        self.tells_serial = false;
        self
    }

    /// With one of its ports in use by the host.
    #[must_use]
    pub fn in_use_by_host(mut self, port: u8, usage: HostUse) -> Self {
        let port = usize::from(port);
        if self.in_use_by_host.len() <= port {
            self.in_use_by_host.resize(port + 1, Vec::new());
        }
        self.in_use_by_host[port].push(usage);
        self
    }
}
