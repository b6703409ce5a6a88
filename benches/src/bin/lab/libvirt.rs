//! libvirt as a peer: its daemon, and domains like ioward's partitions.

use std::fs;

use ioward_tests::level1::sh;

use crate::{Result, host::timed};

/// What libvirt calls a function as a device of the host's.
pub fn device(function: &str) -> String {
    format!("pci_{}", function.replace([':', '.'], "_"))
}

/// Has its programs and those of the other peers in PATH, if level 1 has them.
pub fn lay_files() -> Result<()> {
    sh("set -e; . lab/libvirtd.sh; libvirt_files").map(drop)
}

/// Has its daemon run.
pub fn start() -> Result<()> {
    sh("set -e; . lab/libvirtd.sh; libvirt_up").map(drop)
}

/// Has it run, and know all functions that are there now as devices of the host's: without udev it hears of none that come later.
pub fn start_anew() -> Result<()> {
    sh("set -e; . lab/libvirtd.sh
        if virsh version >/dev/null 2>&1; then
            pid=$(cat /run/libvirtd.pid); kill $pid
            while kill -0 $pid 2>/dev/null; do sleep 0.1; done
            rm -f /run/libvirtd.pid
            libvirtd_up
        else
            libvirt_up
        fi")
    .map(drop)
}

/// Asks virsh one thing, and gives how long that took in milliseconds.
pub fn virsh(arguments: &[&str]) -> Result<f64> {
    timed("virsh", &[&["-q"], arguments].concat())
}

/// The process of its daemon.
pub fn process() -> Result<u32> {
    Ok(sh("cat /run/libvirtd.pid")?.trim().parse()?)
}

/// A VF in a domain.
pub fn hostdev(function: &str) -> String {
    let digits = |range| function.get(range).unwrap_or_default();
    format!(
        "<hostdev mode='subsystem' type='pci' managed='no'><source><address domain='0x{}' bus='0x{}' slot='0x{}' \
         function='0x{}'/></source></hostdev>",
        digits(0..4),
        digits(5..7),
        digits(8..10),
        digits(11..12)
    )
}

/// Defines a domain with the memory and CPUs of a partition of the lab, which starts its guest. Its console is a socket, /run/NAME.serial, and
/// logged in /run/NAME.log; what its guest's agent answers at is /run/NAME.agent.
pub fn define(name: &str, vf: &str) -> Result<()> {
    let ports = "<controller type='pci' model='pcie-root-port'/>".repeat(4);
    let (kernel, initrd) = ("/run/lab/guest/vmlinuz", "/run/lab/guest/initrd.img");
    let vf = hostdev(vf);
    let xml = format!(
        "<domain type='kvm'><name>{name}</name>
        <memory unit='MiB'>192</memory><vcpu>1</vcpu><os><type arch='x86_64' machine='q35'>hvm</type>
        <kernel>{kernel}</kernel><initrd>{initrd}</initrd>
        <cmdline>console=ttyS0 loglevel=6 net.ifnames=0 nopv no_timer_check ioward.hostname={name}</cmdline></os>
        <features><acpi/></features><cpu mode='host-passthrough' check='none' migratable='off'/>
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <controller type='usb' model='none'/><memballoon model='none'/><controller type='pci' model='pcie-root'/>{ports}
        <controller type='virtio-serial' index='0'/>
        <serial type='unix'><source mode='bind' path='/run/{name}.serial'/><log file='/run/{name}.log' append='off'/>
        <target port='0'/></serial>
        <channel type='unix'><source mode='bind' path='/run/{name}.agent'/>
        <target type='virtio' name='org.qemu.guest_agent.bench'/></channel>
        {vf}</devices></domain>"
    );
    let file = format!("/run/{name}.xml");
    fs::write(&file, xml)?;
    virsh(&["define", &file]).map(drop)
}

/// Takes a domain away, however it is.
pub fn forget(name: &str) {
    let _ = sh(&format!("virsh destroy {name}; virsh undefine {name}"));
}
