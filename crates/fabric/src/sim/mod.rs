//! The simulated machine: a model of PCIe SR-IOV and of the Linux kernel's use of it, repeatable from a seed.
//!
//! ```text
//!   SimFabric ── what crate::Fabric promises, as crate::linux does it
//!      │
//!   kernel, binding, nic ── what Linux and the PF drivers do, errno by errno
//!      │  register reads and writes
//!   device, nvme ── what PCIe and NVMe say a device does
//!      │
//!   registers, layout, family ── what there is to read and write
//! ```
//!
//! The lower half knows nothing of the upper one. Nothing here sleeps, asks for the time or draws on the machine it runs
//! on: model time passes as operations are done. docs/simulation.md says what is modelled and what is not.

mod adapter;
mod binding;
mod builder;
mod device;
mod errors;
mod fabric;
mod family;
mod faults;
mod groups;
mod health;
mod identify;
mod kernel;
mod layout;
mod machine;
mod nic;
mod nvme;
mod random;
mod registers;
mod settings;
mod state;
#[cfg(test)]
mod tests;
mod view;

pub use adapter::Adapter;
pub use builder::SimMachineBuilder;
pub use device::Silence;
pub use errors::Severity;
pub use fabric::SimFabric;
pub use faults::Operation;
pub use machine::{InSlot, SimMachine};
pub use rustix::io::Errno;
pub use view::{MachineView, PfView, VfView};
