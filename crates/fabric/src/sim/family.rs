//! Adapter families: their hardware, and the behaviour of their PF drivers. A new family is one function here.
//!
//! Each is modelled on real adapters, so that their problems occur here too: IDs, numbers and addresses of VFs, and
//! the abilities and restrictions of the driver. None is exact to the last register.

/// A family of adapters.
#[derive(Clone, Debug)]
pub(super) struct Family {
    /// Vendor and device names.
    pub(super) name: &'static str,
    pub(super) vendor: u16,
    pub(super) device: u16,
    pub(super) vf_device: u16,
    /// Base class, sub-class, programming interface.
    pub(super) class: u32,
    /// Physical functions, from function 0 on.
    pub(super) ports: u8,
    /// TotalVFs of each function.
    pub(super) total_vfs: u16,
    /// The driver's limit, if lower (`pci_sriov_set_totalvfs`).
    pub(super) driver_max_vfs: u16,
    pub(super) routing: Routing,
    pub(super) vf_bars: &'static [VfBar],
    /// Supported Page Sizes.
    pub(super) page_sizes: u32,
    /// Link speed code (1 is 2.5 GT/s) and lanes.
    pub(super) link: (u8, u8),
    /// Vectors in the MSI-X table of the PF and of each VF.
    pub(super) vectors: (u16, u16),
    /// Vectors of the whole device for its VFs.
    pub(super) vf_vector_pool: u32,
    /// Names of the PF driver and the VF driver.
    pub(super) drivers: (&'static str, &'static str),
    pub(super) kind: Kind,
}

impl Family {
    /// The health reporters of the PF driver (devlink), and whether it can recover from what is reported there.
    pub(super) fn reporters(&self) -> &'static [(&'static str, bool)] {
        match self.drivers.0 {
            // Malicious VFs, for which there is nothing to recover.
            "ice" => &[("mdd", false)],
            "bnxt_en" => &[("fw", true), ("hw", true)],
            _ => &[],
        }
    }
}

/// The routing IDs of VFs: First VF Offset and VF Stride.
#[derive(Clone, Copy, Debug)]
pub(super) struct Routing {
    pub(super) stride: u16,
    /// Up to this many VFs are at `near`.
    pub(super) few: u16,
    pub(super) near: u16,
    /// The offset for more VFs.
    pub(super) far: u16,
    /// The offset without ARI: function numbers above 7 do not exist then, so VFs are on other buses.
    pub(super) without_ari: u16,
}

impl Routing {
    /// First VF Offset and VF Stride. Both may depend on NumVFs and ARI Capable Hierarchy (PCIe 6.0 §9.3.3.9, §9.3.3.10).
    pub(super) fn of(self, num_vfs: u16, ari: bool) -> (u16, u16) {
        let offset = match ari {
            false => self.without_ari,
            true if num_vfs <= self.few => self.near,
            true => self.far,
        };
        (offset, self.stride)
    }
}

/// A VF BAR; all are 64 bits wide.
#[derive(Clone, Copy, Debug)]
pub(super) struct VfBar {
    /// Number of its lower half, 0 to 4.
    pub(super) index: u8,
    /// Bytes that a VF needs. The window is larger if the system page size is.
    pub(super) size: u64,
    pub(super) prefetchable: bool,
}

/// The kind of a family's functions, and the abilities of their driver.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Nic(Nic),
    Nvme(NvmeLimits),
    /// Profiles: name and VFs. All VFs are of one profile at a time.
    Gpu(&'static [(&'static str, u16)]),
}

/// A network adapter and the behaviour of its driver.
#[derive(Clone, Debug)]
pub(super) struct Nic {
    pub(super) speed_mbps: u32,
    /// The effect of a request for VFs while the interface is down.
    pub(super) when_down: WhenDown,
    /// How long the port has no link after VFs appear, in milliseconds.
    pub(super) link_drop_ms: u64,
    /// How long the VF's driver needs after a reset to set it up again, in milliseconds.
    pub(super) reset_ms: u64,
    /// How long the PF driver waits for that before it answers EBUSY, in milliseconds.
    pub(super) waits_ms: u64,
    /// A new MAC, VLAN or trust resets the VF.
    pub(super) resets_for_change: bool,
    /// It tags a VF's frames with 802.1ad, too.
    pub(super) has_service_vlan: bool,
    pub(super) has_link_state: bool,
    pub(super) has_min_rate: bool,
    /// Rates are refused without a link.
    pub(super) rate_needs_link: bool,
    pub(super) spoofchk_default: bool,
    /// Whether it counts the traffic of VFs; the kernel shows zeros otherwise.
    pub(super) counts: bool,
}

/// The effect of a request for VFs while the driver's interface is down.
#[derive(Clone, Copy, Debug)]
pub(super) enum WhenDown {
    /// It makes them.
    Makes,
    /// It makes none, and reports success: bnxt_en (systemd/systemd#40739).
    MakesNone,
}

/// Flexible resources of an NVMe controller.
#[derive(Clone, Copy, Debug)]
pub(super) struct NvmeLimits {
    pub(super) queues: u32,
    pub(super) queues_per_vf: u16,
    pub(super) interrupts: u32,
    pub(super) interrupts_per_vf: u16,
}

/// 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB and 4 MiB: required of every SR-IOV device (PCIe 6.0 §9.3.3.12).
const PAGE_SIZES: u32 = 0x553;

/// A one-port gigabit NIC with 7 VFs, after the Intel 82576: its hardware has 8, of which the driver keeps one.
pub(super) fn gigabit() -> Family {
    Family {
        name: "Intel Corporation 82576 Gigabit Network Connection",
        vendor: 0x8086,
        device: 0x10c9,
        vf_device: 0x10ca,
        class: 0x02_0000,
        ports: 1,
        total_vfs: 8,
        driver_max_vfs: 7,
        routing: Routing { stride: 2, few: 8, near: 128, far: 128, without_ari: 384 },
        vf_bars: &[
            VfBar { index: 0, size: 16 << 10, prefetchable: true },
            VfBar { index: 3, size: 16 << 10, prefetchable: true },
        ],
        page_sizes: PAGE_SIZES,
        link: (1, 4),
        vectors: (10, 3),
        vf_vector_pool: 24,
        drivers: ("igb", "igbvf"),
        kind: Kind::Nic(Nic {
            speed_mbps: 1_000,
            when_down: WhenDown::Makes,
            link_drop_ms: 2_500,
            reset_ms: 50,
            waits_ms: 1_000,
            resets_for_change: false,
            has_service_vlan: false,
            has_link_state: false,
            has_min_rate: false,
            rate_needs_link: true,
            spoofchk_default: true,
            counts: false,
        }),
    }
}

/// A two-port 25 Gbit/s NIC with 64 VFs a port, after the Intel E810: its ports share MSI-X vectors, and its driver
/// resets a VF for many changes and answers EBUSY meanwhile (Linux c54d209c).
pub(super) fn dual_25g() -> Family {
    Family {
        name: "Intel Corporation Ethernet Controller E810-XXV for SFP",
        vendor: 0x8086,
        device: 0x159b,
        vf_device: 0x1889,
        class: 0x02_0000,
        ports: 2,
        total_vfs: 64,
        driver_max_vfs: 64,
        routing: Routing { stride: 2, few: 64, near: 16, far: 16, without_ari: 256 },
        vf_bars: &[
            VfBar { index: 0, size: 128 << 10, prefetchable: true },
            VfBar { index: 3, size: 16 << 10, prefetchable: true },
        ],
        page_sizes: PAGE_SIZES,
        link: (4, 8),
        vectors: (512, 5),
        vf_vector_pool: 640,
        drivers: ("ice", "iavf"),
        kind: Kind::Nic(Nic {
            speed_mbps: 25_000,
            when_down: WhenDown::Makes,
            link_drop_ms: 0,
            reset_ms: 150,
            waits_ms: 800,
            resets_for_change: true,
            has_service_vlan: true,
            has_link_state: true,
            has_min_rate: true,
            rate_needs_link: false,
            spoofchk_default: true,
            counts: true,
        }),
    }
}

/// A 100 Gbit/s NIC with 127 VFs, after the Broadcom BCM57508: its interface must be up when VFs are requested,
/// more than 32 VFs move to another offset, and the last of 127 are on the next bus.
pub(super) fn hundred_g() -> Family {
    Family {
        name: "Broadcom Inc. BCM57508 NetXtreme-E 100Gb Ethernet",
        vendor: 0x14e4,
        device: 0x1750,
        vf_device: 0x1806,
        class: 0x02_0000,
        ports: 1,
        total_vfs: 127,
        driver_max_vfs: 127,
        routing: Routing { stride: 1, few: 32, near: 16, far: 192, without_ari: 256 },
        vf_bars: &[
            VfBar { index: 0, size: 16 << 10, prefetchable: true },
            VfBar { index: 2, size: 1 << 20, prefetchable: true },
        ],
        page_sizes: PAGE_SIZES,
        link: (4, 16),
        vectors: (256, 9),
        vf_vector_pool: 1_143,
        drivers: ("bnxt_en", "bnxt_en"),
        kind: Kind::Nic(Nic {
            speed_mbps: 100_000,
            when_down: WhenDown::MakesNone,
            link_drop_ms: 0,
            reset_ms: 100,
            waits_ms: 1_000,
            resets_for_change: false,
            has_service_vlan: true,
            has_link_state: true,
            has_min_rate: true,
            rate_needs_link: true,
            spoofchk_default: false,
            counts: true,
        }),
    }
}

/// An NVMe controller with 16 VFs, with flexible queues and interrupts for each.
pub(super) fn nvme() -> Family {
    Family {
        name: "Red Hat, Inc. QEMU NVM Express Controller",
        vendor: 0x1b36,
        device: 0x0010,
        vf_device: 0x0010,
        class: 0x01_0802,
        ports: 1,
        total_vfs: 16,
        driver_max_vfs: 16,
        routing: Routing { stride: 1, few: 16, near: 1, far: 1, without_ari: 256 },
        vf_bars: &[VfBar { index: 0, size: 16 << 10, prefetchable: false }],
        page_sizes: PAGE_SIZES,
        link: (4, 4),
        vectors: (65, 9),
        vf_vector_pool: 144,
        drivers: ("nvme", "nvme"),
        kind: Kind::Nvme(NvmeLimits { queues: 64, queues_per_vf: 8, interrupts: 48, interrupts_per_vf: 8 }),
    }
}

/// A GPU with three profiles, which determine the number of VFs.
pub(super) fn gpu() -> Family {
    Family {
        name: "Intel Corporation Data Center GPU Flex 170",
        vendor: 0x8086,
        device: 0x56c0,
        vf_device: 0x56c0,
        class: 0x03_8000,
        ports: 1,
        total_vfs: 16,
        driver_max_vfs: 16,
        routing: Routing { stride: 1, few: 16, near: 1, far: 1, without_ari: 256 },
        vf_bars: &[
            VfBar { index: 0, size: 16 << 20, prefetchable: false },
            VfBar { index: 2, size: 512 << 20, prefetchable: true },
        ],
        page_sizes: PAGE_SIZES,
        link: (4, 16),
        vectors: (32, 2),
        vf_vector_pool: 32,
        drivers: ("xe", "xe"),
        kind: Kind::Gpu(&[("sixteenth", 16), ("eighth", 8), ("quarter", 4), ("half", 2)]),
    }
}
