//! Which backend there is for what on this host. The guard is around all of them: a VF has one holder over all kinds.

use std::sync::Arc;

use ioward_model::KindName;

use crate::{
    Guard, HypervisorError, Router,
    libvirt::{LibvirtConfig, LibvirtHypervisor},
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
    let of_domains = LibvirtConfig::beside(&qemu);
    let of_namespaces = NetnsConfig {
        runtime_dir: qemu.runtime_dir.clone(),
        sysfs: qemu.sysfs.clone(),
        ..NetnsConfig::default()
    };
    // It takes charge of the runtime folder, for all of them.
    let machines = QemuHypervisor::open(qemu).await?;
    let domains = LibvirtHypervisor::open(of_domains).await?;
    let namespaces = NetnsHypervisor::open(of_namespaces).await?;
    let all = Router::default()
        .with(KindName::Machine, Arc::new(machines))
        .with(KindName::Domain, Arc::new(domains))
        .with(KindName::Namespace, Arc::new(namespaces));
    Ok(Guard::new(Arc::new(all), move |function| sysfs.facts(function)))
}
