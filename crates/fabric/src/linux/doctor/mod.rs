//! Whether a host can do SR-IOV for partitions at all, and what is missing for it.
//!
//! ```text
//! HostRoot ─> Facts (what is so) ─> examine (what that means, and what to do) ─> Finding
//! ```

mod adapters;
mod checks;
mod facts;
mod libvirt;
#[cfg(test)]
mod tests;

pub use checks::examine;
pub use facts::{Emulator, Facts, Processor, Vendor, VfioPci};
pub use libvirt::LibvirtHook;

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// The result of one check: what was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The check.
    pub check: Check,
    /// The function it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<Bdf>,
    /// How it is.
    pub verdict: Verdict,
    /// The thing found.
    pub found: String,
    /// How to get what is missing; empty when nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// A check. Stable: programs match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// An IOMMU is on.
    Iommu,
    /// There is an SR-IOV adapter that can give VFs.
    Adapter,
    /// VFs have IOMMU groups of their own.
    IommuGroups,
    /// The vfio-pci driver is there.
    VfioPci,
    /// KVM is there.
    Kvm,
    /// QEMU is there, and new enough.
    Emulator,
    /// As much memory can be locked as partitions have.
    LockedMemory,
    /// Memory comes in large pages.
    HugePages,
    /// Where libvirt is there: it asks ioward before it starts a domain.
    LibvirtHook,
    /// It is root who looks.
    Root,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iommu => "IOMMU",
            Self::Adapter => "SR-IOV adapter",
            Self::IommuGroups => "IOMMU groups",
            Self::VfioPci => "vfio-pci",
            Self::Kvm => "KVM",
            Self::Emulator => "QEMU",
            Self::LockedMemory => "locked memory",
            Self::HugePages => "huge pages",
            Self::LibvirtHook => "libvirt hook",
            Self::Root => "root",
        })
    }
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Well,
    /// It works so, and could be better; or it can't be told.
    Warning,
    /// Something is missing without which the host can't do it.
    Missing,
}
