//! Facts about a PF that decide whether it can give VFs.

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// Conditions that are in the way of VFs, as the kernel shows them; [`crate::checks`] says what they mean. Empty: none is
/// known, as in recordings of before they were looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Conditions {
    /// The kernel shows no `sriov_numvfs` for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_numvfs: bool,
    /// VF BARs that the kernel gave no address space, by number.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bars_without_room: Vec<u8>,
    /// A bridge above it that is in its IOMMU group: that port has no ACS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_in_group: Option<Bdf>,
    /// The last bus number that the port above it leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_bus: Option<u8>,
    /// Its power state where that is not D0, as `D3hot`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_state: Option<String>,
    /// InitialVFs is not TotalVFs, and the function does not do VF migration.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub initial_vfs_differ: bool,
    /// Nothing answers at its address: its configuration space reads as ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_answer: bool,
}

impl Conditions {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
