//! The doctor's findings: whether a host can give VFs to partitions at all, and what is missing for it. `fabric` looks, and
//! docs/doctor.md describes the JSON.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// All findings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DoctorReport))]
pub struct Report {
    /// Whether nothing that is needed is missing.
    pub able: bool,
    /// In the order in which to put things right.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Of these findings.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Self {
        Self { able: findings.iter().all(|finding| finding.verdict != Verdict::Missing), findings }
    }
}

/// The result of one check: what was found, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DoctorFinding))]
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
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DoctorCheck))]
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
    /// A partition's machine executes.
    Machine,
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
            Self::Machine => "machine",
            Self::Root => "root",
        })
    }
}

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(as = DoctorVerdict))]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Well,
    /// It works so, and could be better; or it can't be told.
    Warning,
    /// Something is missing without which the host can't do it.
    Missing,
}
