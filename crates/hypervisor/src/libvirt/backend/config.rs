//! Where libvirt is, where ioward works, and how long things may take.

use std::{path::PathBuf, time::Duration};

use crate::{
    libvirt::{Bounds as CallBounds, sockets},
    qemu::QemuConfig,
};

/// Where libvirt is, and where ioward works.
#[derive(Clone, Debug)]
pub struct LibvirtConfig {
    /// Where partitions have their records (in `domains/`) and channels (in `channels/`); made when they are not there. Whoever
    /// opens this is in charge of it.
    pub runtime_dir: PathBuf,
    /// Where libvirt's daemon listens.
    pub sockets: Vec<PathBuf>,
    /// Where libvirt writes down which process a domain is.
    pub pid_files: PathBuf,
    /// The kernel's view of devices; `/sys` but in tests.
    pub sysfs: PathBuf,
    /// Processes; `/proc` but in tests.
    pub proc: PathBuf,
    /// Device nodes; `/dev` but in tests.
    pub devices: PathBuf,
    /// How long things may take.
    pub bounds: Bounds,
}

impl LibvirtConfig {
    /// The one to use beside machines of ioward's own on the same host.
    #[must_use]
    pub fn beside(qemu: &QemuConfig) -> Self {
        let QemuConfig { runtime_dir, sysfs, devices, .. } = qemu.clone();
        Self { runtime_dir, sysfs, devices, ..Self::default() }
    }
}

impl Default for LibvirtConfig {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/ioward".into(),
            sockets: sockets(),
            pid_files: "/run/libvirt/qemu".into(),
            sysfs: "/sys".into(),
            proc: "/proc".into(),
            devices: "/dev".into(),
            bounds: Bounds::default(),
        }
    }
}

/// How long libvirt and guests may take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// For libvirt's answers.
    pub calls: CallBounds,
    /// Until there is a connection, where there was one before.
    pub reconnect: Duration,
    /// Until a guest has let go of a VF.
    pub unplug: Duration,
    /// Until a guest has turned itself off.
    pub power_down: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            calls: CallBounds::default(),
            reconnect: Duration::from_secs(5),
            unplug: Duration::from_secs(30),
            power_down: Duration::from_secs(120),
        }
    }
}
