//! Whether a host can do SR-IOV for partitions at all, and what is missing for it.
//!
//! ```text
//! HostRoot ─> Facts (what is so) ─> examine (what that means, and what to do) ─> Finding
//! ```

mod adapters;
mod checks;
mod emulator;
mod facts;
mod libvirt;
#[cfg(test)]
mod tests;

pub use checks::examine;
pub use emulator::ask_emulator;
pub use facts::{Emulator, Facts, Processor, Vendor, VfioPci};
pub use ioward_model::doctor::{Check, Finding, Verdict};
pub use libvirt::LibvirtHook;
