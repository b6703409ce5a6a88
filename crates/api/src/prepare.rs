//! What libvirt's hook asks for before a domain starts.

use ioward_model::Name;
use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/domains/UUID/prepare`; the answer is [`Prepared`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct PrepareRequest {
    /// The domain's name, as libvirt has it.
    pub name: String,
    /// The PCI functions of the host that its definition has.
    pub functions: Vec<DomainFunction>,
    /// The most seconds that the answer may take.
    #[serde(default)]
    pub wait_seconds: u64,
}

/// A PCI function of the host in a domain's definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct DomainFunction {
    /// Its address.
    pub address: Bdf,
    /// The name of the VF, where its alias is one of ioward's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vf: Option<Name>,
}

/// Which VFs of ioward's a domain starts with. All of them are ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prepared {
    /// The partition that the domain is; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Name>,
    /// Their names.
    #[serde(default)]
    pub vfs: Vec<Name>,
}
