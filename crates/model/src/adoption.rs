//! What a domain of libvirt's has before it is a partition.

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::Name;

/// A domain, and the PCI functions of the host that it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Adoptable {
    /// Its name.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Whether it runs.
    pub running: bool,
    /// Process ID of its machine, while it runs and where that was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Whether it is there also while it does not run.
    pub persistent: bool,
    /// Its functions, by address.
    pub functions: Vec<AdoptableFunction>,
}

/// A PCI function of the host that a domain has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AdoptableFunction {
    /// Its address on the host.
    pub function: Bdf,
    /// Whether libvirt binds it to its driver and back. Such a one is not ioward's to take over.
    pub managed: bool,
    /// Whether it is an `<interface type='hostdev'>`, whose MAC and VLAN libvirt sets.
    pub interface: bool,
    /// Its alias, in the machine that runs or else in the definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// The name of the VF, of one that ioward gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<Name>,
    /// Whether the machine that runs has it.
    pub live: bool,
    /// Whether it has it at its next start.
    pub next: bool,
    /// Another domain whose definition has it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub also_of: Option<String>,
}
