//! Where the backend for network namespaces works, and how long things may take.

use std::{path::PathBuf, time::Duration};

/// Where it works.
#[derive(Clone, Debug)]
pub struct NetnsConfig {
    /// Where partitions have their folders (in `namespaces/`); made when it is not there.
    pub runtime_dir: PathBuf,
    /// The kernel's view of devices; `/sys` but in tests.
    pub sysfs: PathBuf,
    /// How long things may take.
    pub bounds: Bounds,
}

impl Default for NetnsConfig {
    fn default() -> Self {
        Self { runtime_dir: "/run/ioward".into(), sysfs: "/sys".into(), bounds: Bounds::default() }
    }
}

/// How long the kernel may take, and how often it is asked.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Until a driver has made an interface of a VF, or the kernel has brought one back from a namespace that goes.
    pub interface: Duration,
    /// One operation altogether. It goes on in the kernel all the same, and nothing else is done with its partition until then.
    pub operation: Duration,
    /// Between two looks at all namespaces.
    pub look: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            interface: Duration::from_secs(10),
            operation: Duration::from_secs(60),
            look: Duration::from_secs(1),
        }
    }
}
