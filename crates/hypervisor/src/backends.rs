//! Which backend there is for what on this host. The guard is around all of them: a VF has one holder over all kinds.

use std::sync::Arc;

use ioward_model::KindName;

use crate::{
    Guard, HypervisorError, Router,
    netns::{NetnsConfig, NetnsHypervisor},
    qemu::{QemuConfig, QemuHypervisor},
    sysfs::Sysfs,
};

/// The partitions of this host.
///
/// # Errors
/// When the runtime folder can't be used, or another process is in charge of it.
pub async fn on_this_host(qemu: QemuConfig) -> Result<Guard, HypervisorError> {
    let sysfs = Sysfs::new(&qemu.sysfs);
    let netns = NetnsConfig {
        runtime_dir: qemu.runtime_dir.clone(),
        sysfs: qemu.sysfs.clone(),
        ..NetnsConfig::default()
    };
    // The first one sees to it that nobody else is in charge of the runtime folder.
    let qemu = QemuHypervisor::open(qemu).await?;
    let netns = NetnsHypervisor::open(netns).await?;
    // A backend for another kind is one more line.
    let all =
        Router::default().with(KindName::Machine, Arc::new(qemu)).with(KindName::Namespace, Arc::new(netns));
    Ok(Guard::new(Arc::new(all), move |function| sysfs.facts(function)))
}
