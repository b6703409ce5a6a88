//! A real libvirt, in level 1 only: it is not installed, its packages are laid over /usr.

use std::time::Duration;

use ioward_tests::harness::Outcome;
use ioward_tests::level1::sh;

/// Far above what anything of libvirt's takes.
pub const LONG: Duration = Duration::from_secs(180);

/// libvirt's daemon. It and its domains end when this is dropped.
pub struct Libvirt;

impl Libvirt {
    pub fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let libvirt = Self;
        sh("set -e; . lab/libvirtd.sh; libvirt_up")?;
        Ok(libvirt)
    }

    pub fn start_daemon(&self) -> Outcome {
        sh("set -e; . lab/libvirtd.sh; libvirtd_up").map(drop)
    }

    pub fn kill_daemon(&self) -> Outcome {
        sh("pid=$(cat /run/libvirtd.pid) && kill -9 $pid && rm /run/libvirtd.pid
            while kill -0 $pid 2>/dev/null; do sleep 0.1; done")
        .map(drop)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        // Whatever of it there is. The files of numbers have no line ends.
        let _ = sh(
            "for domain in $(virsh list --all --name); do virsh destroy $domain; virsh undefine $domain; done
            for daemon in libvirtd virtlogd; do
                pid=$(cat /run/$daemon.pid) && kill $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done
            done
            umount -l /usr",
        );
    }
}
