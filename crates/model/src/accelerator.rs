//! The accelerator of a partition.

use serde::{Deserialize, Serialize};

/// Executes a partition's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// The processor, through KVM.
    Kvm,
    /// QEMU's software emulation, because there is no usable KVM: correct, and slow.
    Tcg,
    /// None: the partition is a process that plays a machine.
    #[serde(rename = "simulated")]
    Sim,
}
