//! A real libvirt, in level 1 only: it is not installed, its packages are laid over /usr.

use std::time::Duration;

use ioward_tests::harness::Outcome;
use ioward_tests::level1::{sh, wait_until};

/// Far above what anything of libvirt's takes.
pub const LONG: Duration = Duration::from_secs(180);

/// libvirt's daemon. It and its domains end when this is dropped.
pub struct Libvirt;

impl Libvirt {
    pub fn start() -> Result<Self, Box<dyn std::error::Error>> {
        let libvirt = Self;
        // Debian's libvirt runs machines as libvirt-qemu, whom its package makes.
        sh("set -e
            mount -t overlay overlay -o lowerdir=/run/lab/libvirt/usr:/usr /usr
            getent group kvm || groupadd -r kvm
            getent group libvirt || groupadd -r libvirt
            getent group libvirt-qemu || groupadd -r libvirt-qemu
            getent passwd libvirt-qemu || useradd -r -M -g libvirt-qemu -G kvm -d /var/lib/libvirt libvirt-qemu
            mkdir -p /run/libvirt /run/ioward-libvirt /var/log/libvirt/qemu /var/lib/libvirt
            virtlogd -d -p /run/virtlogd.pid")?;
        libvirt.start_daemon()?;
        Ok(libvirt)
    }

    pub fn start_daemon(&self) -> Outcome {
        sh("libvirtd -d -p /run/libvirtd.pid")?;
        wait_until("libvirt answers", LONG, || sh("virsh version").is_ok())
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
        let _ = sh("virsh destroy web; virsh undefine web
            for daemon in libvirtd virtlogd; do
                pid=$(cat /run/$daemon.pid) && kill $pid && while kill -0 $pid 2>/dev/null; do sleep 0.1; done
            done
            umount -l /usr");
    }
}
