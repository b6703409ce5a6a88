//! The Linux kernel: sysfs, rtnetlink, NVMe admin commands.

pub(crate) mod adapters;
mod details;
pub mod doctor;
mod driver;
mod health;
mod holders;
mod identify;
mod kernel_log;
mod lanes;
mod live;
pub(crate) mod netlink;
pub(crate) mod nic;
pub(crate) mod nvme;
mod nvme_admin;
mod recovery;
mod root;
mod snapshot;
mod sysfs;
mod threads;
mod vf_count;
mod vfio;
mod watch;

pub use identify::{identify, pci_ids::named_as_here};
pub use live::LinuxFabric;
pub use root::HostRoot;
pub use snapshot::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotError};
