//! An immutable snapshot of a host's SR-IOV adapters.
//!
//! The JSON form is the output of `ioward host --json` and is described in docs/inventory.md.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use ioward_pci::Bdf;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    AdapterId, Capability, Conditions, ErrorCounts, HealthReporter, Holder, Identity, MacAddress, Name,
    OutOfService, Owner, Reason, Service, Setting, VfSettings,
};

/// A snapshot of the host, as found at one moment. Never edited: a later look makes a new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Inventory {
    /// Counts up whenever a look finds something different from the look before.
    pub generation: u64,
    /// Whether an IOMMU is on (the host has IOMMU groups).
    pub iommu: bool,
    /// Whether the driver vfio-pci, through which partitions get their VFs, is loaded; `None`: it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vfio_pci: Option<bool>,
    /// The host's NUMA nodes, by number; empty where the kernel tells of none.
    #[serde(default)]
    pub numa_nodes: Vec<NumaNode>,
    /// Every function with an SR-IOV capability, by address; also those that could not be read in full.
    pub physical_functions: Vec<PhysicalFunction>,
}

/// A NUMA node of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NumaNode {
    /// Its number.
    pub id: u32,
    /// How far the memory of each node is from here, by number: 10 is local, 20 takes twice as long (ACPI SLIT).
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, u32>))]
    pub distances: BTreeMap<u32, u32>,
}

/// A PCI function that can give virtual functions, with the VFs it gives now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PhysicalFunction {
    /// Where it sits.
    pub address: Bdf,
    /// Who it is, wherever it sits; `None` where that can't be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<AdapterId>,
    /// PCI vendor ID; ffff when it could not be read.
    pub vendor_id: HexId,
    /// PCI device ID; ffff when it could not be read.
    pub device_id: HexId,
    /// Vendor and device in words, from the host's pci.ids where it has one.
    pub name: String,
    /// Its purpose.
    pub class: Class,
    /// The kind within the class; `None` for one that has no word here.
    #[serde(default)]
    pub subclass: Option<Subclass>,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// The settings and features that its driver can do for VFs; `None` where nobody can tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<BTreeSet<Capability>>,
    /// NUMA node; `None` where the firmware names none.
    pub numa_node: Option<u32>,
    /// IOMMU group; `None` where no IOMMU is on.
    pub iommu_group: Option<u32>,
    /// Functions of other devices in that group, bridges left out: something between them and the root has no ACS, and
    /// VFs of this PF will be in the group as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iommu_group_shared_with: Vec<Bdf>,
    /// PCIe Device Serial Number, as `00-1b-21-ff-ff-12-34-56`: it survives a move to another slot.
    pub serial_number: Option<String>,
    /// The PCIe link, now and at best.
    pub link: Option<Link>,
    /// Interrupt vectors in the PF's MSI-X table.
    pub msix_vectors: Option<u16>,
    /// The SR-IOV capability; `None` when it could not be read (see `reasons`).
    pub sriov: Option<Sriov>,
    /// Whether the kernel gives new VFs to their drivers by itself (`sriov_drivers_autoprobe`).
    pub drivers_autoprobe: Option<bool>,
    /// MSI-X vectors that the PF can share out among its VFs (`sriov_vf_total_msix`); `None` where each VF has a number
    /// of its own that can't be changed.
    #[serde(default)]
    pub vf_msix_total: Option<u32>,
    /// Network interfaces of the function.
    #[serde(default)]
    pub netdevs: Vec<Netdev>,
    /// RDMA devices of the function, as `mlx5_0`.
    #[serde(default)]
    pub rdma_devices: Vec<String>,
    /// NVMe controller of the function.
    #[serde(default)]
    pub nvme: Option<NvmeController>,
    /// The uses that the host itself has for it; empty when it may be disturbed.
    pub in_use_by_host: Vec<HostUse>,
    /// Errors that it has reported; `None` without AER.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorCounts>,
    /// The health reporters of its driver (devlink); `None`: this kernel has no devlink, or does not tell of them just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Vec<HealthReporter>>,
    /// Whether it may be used, as the management partition has found; serving where nobody watches.
    #[serde(default, skip_serializing_if = "Service::is_serving")]
    pub service: Service,
    /// VFs that partitions hold.
    pub vfs_assigned: u16,
    /// VFs that could still be assigned: TotalVFs less those held by partitions or used by the host.
    pub vfs_available: u16,
    /// It is out of service: none of its VFs is given to anybody. The fabric does not know; the daemon does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_service: Option<OutOfService>,
    /// The VFs there are now, by index.
    pub virtual_functions: Vec<VirtualFunction>,
    /// Conditions in the way of VFs.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// Everything that could not be read or makes no sense, and what follows.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// A virtual function that exists now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VirtualFunction {
    /// Its number under its PF, from 0 (sysfs `virtfnN`; PCIe numbers them from 1).
    pub index: u16,
    /// Where it sits.
    pub address: Bdf,
    /// The driver it is bound to.
    pub driver: Option<String>,
    /// IOMMU group; `None` where no IOMMU is on.
    pub iommu_group: Option<u32>,
    /// Other functions in that IOMMU group, bridges left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub iommu_group_shared_with: Vec<Bdf>,
    /// MSI-X vectors of the VF.
    #[serde(default)]
    pub msix_vectors: Option<u16>,
    /// Whether it does a Function Level Reset, where the kernel tells (`reset_method`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flr: Option<bool>,
    /// Its vGPU type, where NVIDIA's driver has it (`nvidia/current_vgpu_type`); 0: none is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vgpu_type: Option<u32>,
    /// Errors that it has reported by AER since the kernel found it, where it counts them and is lent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<ErrorCounts>,
    /// It is out of service by itself: it misbehaved too often.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub out_of_service: Option<OutOfService>,
    /// Network interfaces the host's own VF driver made of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub netdevs: Vec<String>,
    /// The uses that the host itself has for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub in_use_by_host: Vec<HostUse>,
    /// Settings as the PF reports them, where it does.
    #[serde(default, skip_serializing_if = "VfSettings::is_empty")]
    pub settings: VfSettings,
    /// The partition that holds it and its name there.
    pub owner: Option<Owner>,
    /// Who else has it: a program, or another network namespace. `None`: it has an owner, a driver of the host has it, or it is
    /// not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// Everything that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

/// The SR-IOV extended capability (PCIe 6.0 §9.3.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sriov {
    /// VFs there can be at most: TotalVFs, or what the PF's driver allows when that is less (igb: 7 of 8).
    pub total_vfs: u16,
    /// VFs that are there initially, up to `total_vfs`; fewer only with VF migration.
    pub initial_vfs: u16,
    /// VFs enabled now.
    pub num_vfs: u16,
    /// VF Enable.
    pub vf_enable: bool,
    /// Routing ID of the first VF less that of the PF. May change with NumVFs and ARI.
    pub first_vf_offset: u16,
    /// Routing ID distance between VFs. May change with NumVFs and ARI.
    pub vf_stride: u16,
    /// Device ID of the VFs.
    pub vf_device_id: HexId,
    /// Page sizes the VFs can align their BARs to, in bytes.
    pub supported_page_sizes: Vec<u64>,
    /// The page size set, in bytes; 0 when it is not known.
    pub system_page_size: u64,
    /// ARI Capable Hierarchy: VFs may use function numbers above 7.
    pub ari: bool,
    /// The function this one depends on (Function Dependency Link), when it is another.
    pub function_dependency_link: Option<u8>,
    /// Memory that each VF decodes.
    pub vf_bars: Vec<VfBar>,
}

/// One memory window of every VF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VfBar {
    /// BAR number, 0 to 5.
    pub index: u8,
    /// 64-bit address.
    pub is_64bit: bool,
    /// Prefetchable.
    pub prefetchable: bool,
    /// Bytes per VF; `None` where it can't be known without writing to the register.
    pub bytes_per_vf: Option<u64>,
}

/// A PCIe link (link capabilities and status, PCIe 6.0 §7.5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// Speed now, in MT/s (2500, 5000, 8000, 16000, …).
    pub speed_mts: u32,
    /// Lanes now.
    pub width: u8,
    /// Best speed, in MT/s.
    pub max_speed_mts: u32,
    /// Most lanes.
    pub max_width: u8,
}

/// A network interface of a PF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Netdev {
    /// Its name now; it may be renamed at any time.
    pub name: String,
    /// Kernel interface index.
    pub ifindex: u32,
    /// Address now.
    pub mac: Option<MacAddress>,
    /// Permanent address, where the kernel tells it: identity that survives renames.
    pub permanent_mac: Option<MacAddress>,
    /// Speed in Mbit/s; `None` while there is no link.
    pub speed_mbps: Option<u32>,
    /// Whether there is a link; `None` while the interface is down.
    pub carrier: Option<bool>,
    /// Administratively up.
    pub up: bool,
    /// Greatest frame payload, bytes.
    pub mtu: Option<u32>,
}

/// An NVMe controller with its virtualization resources (NVMe 2.0 §8.26, Identify CNS 14h and 15h).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NvmeController {
    /// Kernel name, as `nvme0`.
    pub name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Its state; `None`: the kernel tells none that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<NvmeState>,
    /// Namespaces that are attached to it, as `nvme0n1`.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Resources that the primary controller can hand out; `None` without access to the controller.
    pub resources: Option<NvmeResources>,
    /// Secondary controllers, by VF; empty without access to the controller.
    #[serde(default)]
    pub secondaries: Vec<NvmeSecondary>,
}

/// The state of an NVMe controller, as its driver has it (sysfs `state`: `nvme_sysfs_show_state` in drivers/nvme/host/sysfs.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NvmeState {
    /// It has just been found.
    New,
    /// It takes commands.
    Live,
    /// It is being reset.
    Resetting,
    /// It was reset, and is set up again.
    Connecting,
    /// Its driver lets go of it.
    Deleting,
    /// Its driver has given it up.
    Dead,
}

impl NvmeState {
    /// The kernel's word for it; `None` for a word that is not known.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "new" => Self::New,
            "live" => Self::Live,
            "resetting" => Self::Resetting,
            "connecting" => Self::Connecting,
            "deleting" | "deleting (no IO)" => Self::Deleting,
            "dead" => Self::Dead,
            _ => return None,
        })
    }

    /// Whether it is on its way to take commands again, by its driver's own doing.
    #[must_use]
    pub fn is_coming(self) -> bool {
        matches!(self, Self::New | Self::Resetting | Self::Connecting)
    }
}

impl fmt::Display for NvmeState {
    /// As in `is resetting`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::Live => "live",
            Self::Resetting => "resetting",
            Self::Connecting => "connecting",
            Self::Deleting => "deleting",
            Self::Dead => "dead",
        })
    }
}

/// Flexible resources of a primary controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NvmeResources {
    /// Flexible queue resources in all (VQFRT).
    pub queues_total: u32,
    /// Of those, assigned to secondary controllers (VQRFA).
    pub queues_assigned: u32,
    /// The most that one secondary controller may hold (VQFRSM).
    pub queues_max_per_vf: u16,
    /// Flexible interrupt resources in all (VIFRT).
    pub interrupts_total: u32,
    /// Of those, assigned to secondary controllers (VIRFA).
    pub interrupts_assigned: u32,
    /// The most that one secondary controller may hold (VIFRSM).
    pub interrupts_max_per_vf: u16,
}

/// A secondary controller: what the NVMe side knows of one VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NvmeSecondary {
    /// Secondary controller identifier (SCID).
    pub controller_id: u16,
    /// VF index, from 0.
    pub index: u16,
    /// Whether it is online.
    pub online: bool,
    /// Flexible queue resources assigned (NVQ).
    pub queues: u16,
    /// Flexible interrupt resources assigned (NVI).
    pub interrupts: u16,
}

/// A use that the host itself has for a function. Changing its VF count could cut the host off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "use", rename_all = "kebab-case")]
pub enum HostUse {
    /// An interface has an IP address.
    Address {
        /// Interface.
        netdev: String,
        /// Address with prefix length.
        address: String,
    },
    /// The default route leaves through it.
    DefaultRoute {
        /// Interface.
        netdev: String,
    },
    /// An interface belongs to a bridge, a bond or another interface stacked on it.
    Stacked {
        /// Interface.
        netdev: String,
        /// The upper interface.
        upper: String,
    },
    /// A namespace of an NVMe controller is mounted or otherwise held.
    BlockDevice {
        /// Block device, as `nvme0n1`.
        device: String,
        /// Mount point or holder.
        used_by: String,
    },
}

impl fmt::Display for HostUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { netdev, address } => write!(f, "{netdev} has address {address}"),
            Self::DefaultRoute { netdev } => write!(f, "the default route leaves through {netdev}"),
            Self::Stacked { netdev, upper } => write!(f, "{netdev} belongs to {upper}"),
            Self::BlockDevice { device, used_by } => write!(f, "{device} is used by {used_by}"),
        }
    }
}

/// The purpose of an adapter, from its PCI class code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Network controller (02h).
    Network,
    /// NVMe controller (01h 08h 02h).
    Nvme,
    /// Display controller (03h).
    Display,
    /// Processing accelerator (12h) or encryption controller (10h).
    Accelerator,
    /// Anything else.
    Other,
}

impl Class {
    /// What the names of its VFs begin with where nobody chooses one, as in the examples of docs/spec.md.
    #[must_use]
    pub fn vf_prefix(self) -> &'static str {
        match self {
            Self::Network => "net",
            Self::Nvme => "disk",
            Self::Display => "gpu",
            Self::Accelerator => "accel",
            Self::Other => "vf",
        }
    }

    /// From the 24-bit class code: base class, sub-class, programming interface.
    #[must_use]
    pub fn from_code(code: u32) -> Self {
        match (code >> 16, code & 0xffff) {
            (0x02, _) => Self::Network,
            (0x01, 0x0802) => Self::Nvme,
            (0x03, _) => Self::Display,
            (0x10 | 0x12, _) => Self::Accelerator,
            _ => Self::Other,
        }
    }

    /// The word used in Specs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Nvme => "nvme",
            Self::Display => "display",
            Self::Accelerator => "accelerator",
            Self::Other => "other",
        }
    }

    /// Whether an adapter is of this class. A co-processor, as all of Intel's QAT are, is an accelerator as well, though PCI
    /// has a base class of its own for it.
    #[must_use]
    pub fn takes(self, pf: &PhysicalFunction) -> bool {
        self == pf.class || self == Self::Accelerator && pf.subclass == Some(Subclass::Coprocessor)
    }

    /// Whether a VF of this class has the setting of this name (a field of [`VfSettings`]).
    #[must_use]
    pub fn has_setting(self, name: &str) -> bool {
        name.parse::<Setting>().is_ok_and(|setting| setting.class() == self)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The kind of adapter within its class, from the PCI sub-class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Subclass {
    /// Ethernet controller (02h 00h).
    Ethernet,
    /// InfiniBand controller (02h 07h).
    Infiniband,
    /// Host fabric controller (02h 08h).
    Fabric,
    /// VGA compatible controller (03h 00h).
    Vga,
    /// 3D controller (03h 02h).
    #[serde(rename = "3d")]
    ThreeD,
    /// Network and computing encryption (10h 00h).
    Encryption,
    /// Processing accelerator (12h 00h).
    Processing,
    /// Co-processor (0Bh 40h): of class other, and taken for an accelerator too.
    Coprocessor,
}

impl Subclass {
    const ALL: [(Self, Class, u32, &'static str); 8] = [
        (Self::Ethernet, Class::Network, 0x0200, "ethernet"),
        (Self::Infiniband, Class::Network, 0x0207, "infiniband"),
        (Self::Fabric, Class::Network, 0x0208, "fabric"),
        (Self::Vga, Class::Display, 0x0300, "vga"),
        (Self::ThreeD, Class::Display, 0x0302, "3d"),
        (Self::Encryption, Class::Accelerator, 0x1000, "encryption"),
        (Self::Processing, Class::Accelerator, 0x1200, "processing"),
        (Self::Coprocessor, Class::Other, 0x0b40, "coprocessor"),
    ];

    /// From the 24-bit class code: base class, sub-class, programming interface.
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.iter().find(|known| known.2 == code >> 8).map(|known| known.0)
    }

    /// The class it is a kind of.
    #[must_use]
    pub fn class(self) -> Class {
        Self::ALL.iter().find(|known| known.0 == self).map_or(Class::Other, |known| known.1)
    }

    /// Whether a request of this class may ask for it.
    #[must_use]
    pub fn is_of(self, class: Class) -> bool {
        self.class() == class || (self, class) == (Self::Coprocessor, Class::Accelerator)
    }

    /// The word used in Specs and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|known| known.0 == self).map_or("", |known| known.3)
    }
}

impl fmt::Display for Subclass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A 16-bit PCI ID, written as four hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HexId(pub u16);

impl fmt::Display for HexId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0)
    }
}

impl FromStr for HexId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u16::from_str_radix(text, 16).map(Self)
    }
}

impl Serialize for HexId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Inventory {
    /// Gives each PF its [`AdapterId`], from what has been read of all of them.
    pub fn name_adapters(&mut self) {
        let named = self.physical_functions.iter().map(|pf| Some(Identity::of(pf, self)?.id()));
        let ids: Vec<_> = named.collect();
        for (pf, id) in self.physical_functions.iter_mut().zip(ids) {
            pf.id = id;
        }
    }

    /// The PF at an address.
    #[must_use]
    pub fn physical_function(&self, address: Bdf) -> Option<&PhysicalFunction> {
        // By address, as identify gives them; looked through where they are not.
        let pfs = &self.physical_functions;
        let at = pfs.binary_search_by_key(&address, |pf| pf.address).ok();
        at.map(|at| &pfs[at]).or_else(|| pfs.iter().find(|pf| pf.address == address))
    }

    /// The VF at an address, with its PF.
    #[must_use]
    pub fn virtual_function(&self, address: Bdf) -> Option<(&PhysicalFunction, &VirtualFunction)> {
        self.physical_functions
            .iter()
            .find_map(|pf| Some((pf, pf.virtual_functions.iter().find(|vf| vf.address == address)?)))
    }
}

impl PhysicalFunction {
    /// The VF with this index, when it exists now.
    #[must_use]
    pub fn virtual_function(&self, index: u16) -> Option<&VirtualFunction> {
        // Where all are there, its index is its place.
        let in_place = self.virtual_functions.get(usize::from(index)).filter(|vf| vf.index == index);
        in_place.or_else(|| self.virtual_functions.iter().find(|vf| vf.index == index))
    }

    /// TotalVFs; 0 when the capability could not be read.
    #[must_use]
    pub fn total_vfs(&self) -> u16 {
        self.sriov.as_ref().map_or(0, |sriov| sriov.total_vfs)
    }

    /// NumVFs; 0 when the capability could not be read.
    #[must_use]
    pub fn num_vfs(&self) -> u16 {
        self.sriov.as_ref().map_or(0, |sriov| sriov.num_vfs)
    }

    /// Whether the two are functions of one adapter: of one device, or with the same Device Serial Number.
    #[must_use]
    pub fn is_same_adapter(&self, other: &Self) -> bool {
        self.address.is_same_device(other.address)
            || self.serial_number.is_some() && self.serial_number == other.serial_number
    }

    /// The bandwidth of its PCIe link now in one direction, in Mbit/s, line coding taken off (8b/10b up to 5 GT/s, 128b/130b
    /// above; PCIe 6.0 §4.2).
    #[must_use]
    pub fn pcie_mbps(&self) -> Option<u32> {
        let link = self.link.as_ref()?;
        let (numerator, denominator) = if link.speed_mts <= 5000 { (8, 10) } else { (128, 130) };
        let bits = u64::from(link.speed_mts) * u64::from(link.width) * numerator / denominator;
        u32::try_from(bits).ok()
    }

    /// Whether one of its interfaces has a link.
    #[must_use]
    pub fn has_carrier(&self) -> bool {
        self.netdevs.iter().any(|netdev| netdev.carrier == Some(true))
    }

    /// The fastest link among its interfaces, in Mbit/s.
    #[must_use]
    pub fn speed_mbps(&self) -> Option<u32> {
        self.netdevs.iter().filter_map(|netdev| netdev.speed_mbps).max()
    }
}

/// Whether a driver hands its functions to programs: vfio-pci and its variants, uio_pci_generic, igb_uio.
#[must_use]
pub fn is_lending(driver: &str) -> bool {
    driver.contains("vfio") || driver.contains("uio")
}

impl VirtualFunction {
    /// Whether its driver hands it to a program: vfio-pci and its variants, uio_pci_generic, igb_uio.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.driver.as_deref().is_some_and(is_lending)
    }

    /// What somebody who is no partition does with it: the host, a program, or who is in another network namespace.
    #[must_use]
    pub fn foreign_use(&self) -> Option<String> {
        let by_host = self.in_use_by_host.first().map(ToString::to_string);
        by_host.or_else(|| {
            let holder = self.holder.as_ref().filter(|holder| holder.is_somebody())?;
            Some(format!("held by {holder}"))
        })
    }

    /// Whether `partition` holds it under any name.
    #[must_use]
    pub fn is_held_by(&self, partition: &Name) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.partition == *partition)
    }
}
