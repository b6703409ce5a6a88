//! Which backend has a partition. There is one kind of partition today, so that there is one backend: a second kind gets a
//! backend beside QEMU here, and what goes to which by a partition's definition. The guard is around all of them: a VF has one
//! holder over all kinds.

use std::sync::Arc;

use crate::{
    Guard, HypervisorError,
    qemu::{QemuConfig, QemuHypervisor},
    sysfs::Sysfs,
};

/// The partitions of this host.
///
/// # Errors
/// When the runtime folder can't be used, or another process is in charge of it.
pub async fn on_this_host(qemu: QemuConfig) -> Result<Guard, HypervisorError> {
    let sysfs = Sysfs::new(&qemu.sysfs);
    let qemu = QemuHypervisor::open(qemu).await?;
    Ok(Guard::new(Arc::new(qemu), move |function| sysfs.facts(function)))
}
