//! PCI addresses, configuration space and capabilities. Pure: bytes in, values out; no I/O.
#![forbid(unsafe_code)]

mod bdf;
mod capability;
mod config;
mod sriov;
mod structures;

pub use bdf::{Bdf, BdfError};
pub use capability::{Capabilities, Capability, ExtendedCapabilities, ExtendedCapability};
pub use config::{ConfigError, ConfigSpace};
pub use sriov::{SriovCapability, VfBarRegister};
pub use structures::{AcsCapability, AriCapability, DeviceSerialNumber, MsixCapability, PcieLink};
