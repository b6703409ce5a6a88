//! Which backend there is for what on this host. The guard is around all of them: a VF has one holder over all kinds.

use std::sync::Arc;

use ioward_model::KindName;

use crate::{
    Guard, HypervisorError, Router,
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
    // A backend for another kind is one more line.
    let all = Router::default().with(KindName::Machine, Arc::new(qemu));
    Ok(Guard::new(Arc::new(all), move |function| sysfs.facts(function)))
}
