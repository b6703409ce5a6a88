//! Facts about a host, as far as SR-IOV for partitions goes: read once, judged elsewhere.

use ioward_model::Inventory;

use super::LibvirtHook;
use crate::{
    FabricError,
    linux::{HostRoot, identify},
};

/// Longest table of /proc or of /lib/modules that is read, in bytes.
const MAX_TABLE: usize = 16 << 20;

/// Facts about a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its SR-IOV adapters.
    pub inventory: Inventory,
    /// Whether it is a tree that was copied from another host: what is not in it may be there all the same.
    pub is_copy: bool,
    /// Whether it tells if an IOMMU is on.
    pub iommu_is_known: bool,
    /// The kernel's command line.
    pub kernel_arguments: String,
    /// Whether the firmware describes an IOMMU (ACPI table DMAR of Intel, IVRS of AMD).
    pub iommu_in_firmware: bool,
    /// The processor; `None`: it is not known.
    pub processor: Option<Processor>,
    /// The driver through which partitions get VFs.
    pub vfio_pci: VfioPci,
    /// Whether there is a /dev/kvm; `None`: it is not known.
    pub kvm: Option<bool>,
    /// The machine emulator.
    pub emulator: Emulator,
    /// The memory that this process may lock, in bytes; `None`: without limit, or not known.
    pub lock_limit: Option<u64>,
    /// The mode of transparent huge pages, as `madvise`.
    pub transparent_huge_pages: Option<String>,
    /// Memory that is set aside for huge pages and not used, in KiB.
    pub huge_pages_free_kib: u64,
    /// Whether libvirt asks ioward before it starts a domain.
    pub libvirt_hook: LibvirtHook,
    /// Whether it is root who looks; `None` on a copied tree.
    pub root: Option<bool>,
}

/// A processor, as /proc/cpuinfo describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Who makes it.
    pub vendor: Vendor,
    /// Whether it shows the flag svm (AMD) or vmx (Intel).
    pub virtualization: bool,
    /// Whether it is itself a virtual one.
    pub is_virtual: bool,
}

/// Who makes a processor; firmware calls things by different names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vendor {
    /// Intel.
    Intel,
    /// AMD, and Hygon, which is built like it.
    Amd,
    /// Anybody else.
    #[default]
    Other,
}

/// Whether the vfio-pci driver is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VfioPci {
    /// The kernel has it in it, or has loaded it.
    Loaded,
    /// It is among the kernel's modules.
    Loadable,
    /// The kernel has no such module.
    Missing,
    /// The kernel's list of modules can't be read.
    #[default]
    Unknown,
}

/// QEMU, as far as it is known. Asking it is the caller's business: a copied tree has none to ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Emulator {
    /// It was not asked.
    #[default]
    NotAsked,
    /// There is no such program.
    Missing,
    /// It can't be run: why.
    Broken(String),
    /// Its answer to `--version`.
    Says(String),
}

impl Facts {
    /// Reads them.
    ///
    /// # Errors
    /// [`FabricError::Read`] when the PCI functions of the host cannot be listed; everything else that cannot be read
    /// is taken to be missing.
    pub fn read(root: &HostRoot, emulator: Emulator) -> Result<Self, FabricError> {
        let inventory = identify(root)?;
        let table = |path| root.read(path, MAX_TABLE).map(|text| String::from_utf8_lossy(&text).into_owned());
        let (limits, status) = (table("proc/self/limits").ok(), table("proc/self/status").ok());
        let thp = root.text("sys/kernel/mm/transparent_hugepage/enabled").ok();
        Ok(Self {
            is_copy: !root.is_live(),
            iommu_is_known: root.is_live() || inventory.iommu || root.exists("sys/kernel"),
            inventory,
            kernel_arguments: root.text("proc/cmdline").unwrap_or_default(),
            iommu_in_firmware: ["DMAR", "IVRS"]
                .iter()
                .any(|name| root.exists(&format!("sys/firmware/acpi/tables/{name}"))),
            processor: table("proc/cpuinfo").ok().map(|text| processor(&text)),
            vfio_pci: vfio_pci(root),
            kvm: (root.is_live() || root.exists("dev")).then(|| root.exists("dev/kvm")),
            emulator,
            lock_limit: limits.and_then(|text| lock_limit(&text)),
            transparent_huge_pages: thp.and_then(|text| chosen(&text)),
            huge_pages_free_kib: table("proc/meminfo").map_or(0, |text| huge_pages_free_kib(&text)),
            libvirt_hook: LibvirtHook::of(root),
            root: status.and_then(|text| is_root(&text)),
        })
    }
}

/// From /proc/cpuinfo: the first processor stands for all.
pub(super) fn processor(cpuinfo: &str) -> Processor {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.split(':').next().is_some_and(|name| name.trim() == key));
        line.and_then(|line| line.split_once(':')).map_or("", |(_, value)| value.trim())
    };
    let has = |flag: &str| value("flags").split_whitespace().any(|found| found == flag);
    Processor {
        vendor: match value("vendor_id") {
            "GenuineIntel" => Vendor::Intel,
            "AuthenticAMD" | "HygonGenuine" => Vendor::Amd,
            _ => Vendor::Other,
        },
        virtualization: has("svm") || has("vmx"),
        is_virtual: has("hypervisor"),
    }
}

fn vfio_pci(root: &HostRoot) -> VfioPci {
    if root.exists("sys/bus/pci/drivers/vfio-pci") {
        return VfioPci::Loaded;
    }
    let list = |name: &str| {
        let release = root.text("proc/sys/kernel/osrelease").ok().filter(|release| !release.contains('/'))?;
        root.read(&format!("lib/modules/{release}/{name}"), MAX_TABLE).ok()
    };
    let names = |list: &[u8]| {
        let text = String::from_utf8_lossy(list);
        let modules = text.lines().filter_map(|line| line.split(':').next()?.rsplit('/').next());
        modules.into_iter().any(|module| module.starts_with("vfio-pci.ko"))
    };
    match (list("modules.dep"), list("modules.builtin")) {
        (_, Some(builtin)) if names(&builtin) => VfioPci::Loaded,
        (Some(modules), _) if names(&modules) => VfioPci::Loadable,
        (None, None) => VfioPci::Unknown,
        _ => VfioPci::Missing,
    }
}

/// The soft limit, in bytes, from /proc/PID/limits (proc(5)); `None`: none.
pub(super) fn lock_limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The word in brackets.
fn chosen(modes: &str) -> Option<String> {
    Some(modes.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// From /proc/meminfo.
pub(super) fn huge_pages_free_kib(meminfo: &str) -> u64 {
    let value = |key: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
    };
    value("HugePages_Free").saturating_mul(value("Hugepagesize"))
}

/// Whether the effective user of /proc/PID/status is root: the second number after `Uid:`.
pub(super) fn is_root(status: &str) -> Option<bool> {
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().nth(1).map(|uid| uid == "0")
}
