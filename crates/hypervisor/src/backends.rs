//! Which backend there is for what on this host. The guard is around all of them: a VF has one holder over all kinds.

use std::sync::Arc;

use ioward_model::KindName;

use crate::{
    Guard, HypervisorError, Router,
    libvirt::{LibvirtConfig, LibvirtHypervisor},
    qemu::{QemuConfig, QemuHypervisor},
    sysfs::Sysfs,
};

/// The partitions of this host.
///
/// # Errors
/// When the runtime folder can't be used, or another process is in charge of it.
pub async fn on_this_host(qemu: QemuConfig) -> Result<Guard, HypervisorError> {
    let sysfs = Sysfs::new(&qemu.sysfs);
    let of_domains = LibvirtConfig::beside(&qemu);
    // It takes charge of the runtime folder, for all of them.
    let qemu = QemuHypervisor::open(qemu).await?;
    let libvirt = LibvirtHypervisor::open(of_domains).await?;
    let all =
        Router::default().with(KindName::Machine, Arc::new(qemu)).with(KindName::Domain, Arc::new(libvirt));
    Ok(Guard::new(Arc::new(all), move |function| sysfs.facts(function)))
}
