//! Where QEMU is, where it works, and how long it may take.

use std::{path::PathBuf, time::Duration};

use super::users::Users;

/// Where QEMU is and where it works.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// Where partitions have their folders (in `partitions/`); made when it is not there.
    pub runtime_dir: PathBuf,
    /// QEMU's program; a name without a slash is looked for on the PATH.
    pub emulator: PathBuf,
    /// The kernel's view of devices; `/sys` but in tests.
    pub sysfs: PathBuf,
    /// Device nodes; `/dev` but in tests.
    pub devices: PathBuf,
    /// Whom machines run as; `None`: whoever this is.
    pub users: Option<Users>,
    /// How long things may take.
    pub bounds: Bounds,
}

impl Default for QemuConfig {
    fn default() -> Self {
        Self {
            runtime_dir: "/run/ioward".into(),
            emulator: "qemu-system-x86_64".into(),
            sysfs: "/sys".into(),
            devices: "/dev".into(),
            users: None,
            bounds: Bounds::default(),
        }
    }
}

/// How long QEMU and guests may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// From QEMU's start until its machine executes.
    pub start: Duration,
    /// Until QEMU answers one command. Plugging the first VF in pins the whole memory of the machine.
    pub command: Duration,
    /// Until a guest has let go of a VF.
    pub unplug: Duration,
    /// Until a guest has turned itself off.
    pub power_down: Duration,
    /// Until QEMU has ended after it was told to; then it is killed.
    pub kill: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(120),
            command: Duration::from_secs(60),
            unplug: Duration::from_secs(30),
            power_down: Duration::from_secs(120),
            kill: Duration::from_secs(5),
        }
    }
}
