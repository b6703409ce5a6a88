//! VFs in the hands of others: ioward names them, and leaves what they have alone.

use std::{
    error::Error,
    process::{Child, Command, Stdio},
};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, partition, vf},
    harness::Outcome,
    level1::{NIC0, attribute, driver, set_attribute, sh, virtual_functions, wait_until},
};
use serde_json::Value;

/// What `ioward vfs --json` says of a VF.
fn told(daemon: &Daemon, vf: &str) -> Result<Value, Box<dyn Error>> {
    let vfs: Vec<Value> = serde_json::from_str(&daemon.done(&["vfs", "--json"])?)?;
    vfs.into_iter().find(|found| found["address"] == vf).ok_or_else(|| format!("no {vf}").into())
}

/// Checks that a partition pinned to VF 0 of the first NIC is refused, and its number of VFs stays, because of `holder`.
fn nothing_is_planned_for(daemon: &Daemon, holder: &str) -> Outcome {
    let pinned = vf("net0", "network", &format!("pf = \"{NIC0}\"\nindex = 0"));
    let spec = [VERSION, &partition("web"), &pinned].concat();
    let answer = daemon.try_apply(&spec, &[])?;
    assert_eq!(answer.status, 3, "{answer:?}");
    let why =
        format!("vf-free: web/net0: {}: required a VF that nobody has; found held by {holder}", first()?);
    assert!(answer.stderr.contains(&why), "{answer:?}");
    let grown = daemon.try_apply(&[VERSION, &adapter(NIC0, "4")].concat(), &[])?;
    assert_eq!(grown.status, 3, "{grown:?}");
    assert!(grown.stderr.contains("disruption") && grown.stderr.contains(holder), "{grown:?}");
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "2");
    let host = daemon.done(&["host"])?;
    assert!(host.contains(&format!("is held by {holder}")), "{host}");
    Ok(())
}

fn first() -> Result<String, Box<dyn Error>> {
    Ok(virtual_functions(NIC0)?.first().ok_or("no VF")?.clone())
}

/// A QEMU with a VF, started without ioward. Killed when dropped.
struct Machine(Child);

impl Machine {
    fn start(name: &str, vf: &str) -> Result<Self, Box<dyn Error>> {
        let line = ["-machine", "q35,accel=kvm:tcg", "-m", "64M", "-nodefaults", "-display", "none", "-S"];
        let qemu = Command::new("qemu-system-x86_64")
            .args(["-name", &format!("guest={name},debug-threads=on")])
            .args(line)
            .args(["-device", &format!("vfio-pci,host={vf}")])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(qemu))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn a_machine_that_is_not_iowards_is_named_and_keeps_its_vf() -> Outcome {
    let daemon = Daemon::start()?;
    set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
    set_attribute(NIC0, "sriov_numvfs", "2")?;
    let vf = first()?;
    set_attribute(&vf, "driver_override", "vfio-pci")?;
    sh(&format!("modprobe vfio-pci; echo {vf} >/sys/bus/pci/drivers_probe"))?;
    wait_until("it is bound", SOON, || driver(&vf).as_deref() == Some("vfio-pci"))?;
    assert_eq!(told(&daemon, &vf)?["whose"], "nobody");

    let machine = Machine::start("foreign", &vf)?;
    let holder = format!("QEMU machine foreign (pid {})", machine.0.id());
    wait_until("the machine has its VF", SOON, || told(&daemon, &vf).is_ok_and(|vf| vf["whose"] == holder))?;
    let shown = daemon.done(&["vfs"])?;
    assert!(shown.contains(&format!("\n  held by {holder}\n")), "{shown}");
    nothing_is_planned_for(&daemon, &holder)?;

    // Nothing has been done to it, and what it leaves is nobody's.
    assert_eq!(driver(&vf).as_deref(), Some("vfio-pci"));
    drop(machine);
    wait_until("it is nobody's", SOON, || told(&daemon, &vf).is_ok_and(|vf| vf["whose"] == "nobody"))?;
    daemon.done(&["orphans", "--reap"])?;
    Ok(())
}

pub fn a_vf_whose_interface_is_in_a_network_namespace_is_told_and_stays_there() -> Outcome {
    sh("modprobe igbvf")?;
    let tested = with_its_driver();
    sh("modprobe -r igbvf")?;
    tested
}

fn with_its_driver() -> Outcome {
    let daemon = Daemon::start()?;
    set_attribute(NIC0, "sriov_numvfs", "2")?;
    let vf = first()?;
    let netdev = || sh(&format!("ls /sys/bus/pci/devices/{vf}/net")).map(|name| name.trim().to_owned());
    wait_until("its driver has made an interface", SOON, || netdev().is_ok_and(|name| !name.is_empty()))?;
    sh("udevadm settle 2>/dev/null || true")?;
    let name = netdev()?;
    assert_eq!(told(&daemon, &vf)?["whose"], format!("the host (igbvf, {name})"));

    sh(&format!("ip netns add blue && ip link set {name} netns blue"))?;
    let tested = in_a_namespace(&daemon, &vf, &name);
    sh(&format!("ip -n blue link set {name} netns 1; ip netns del blue"))?;
    tested?;
    wait_until("it is back", SOON, || {
        told(&daemon, &vf).is_ok_and(|vf| vf["whose"] == format!("the host (igbvf, {name})"))
    })
}

fn in_a_namespace(daemon: &Daemon, vf: &str, name: &str) -> Outcome {
    let holder = format!("network namespace blue, as {name}");
    assert_eq!(told(daemon, vf)?["whose"], holder);
    nothing_is_planned_for(daemon, &holder)?;
    assert_eq!(sh("ip -n blue -br link")?.matches(name).count(), 1, "it stays where it is");
    assert_eq!(driver(vf).as_deref(), Some("igbvf"));
    // A process in it is named too.
    let mut sleeper = Command::new("ip").args(["netns", "exec", "blue", "sleep", "600"]).spawn()?;
    let said = wait_until("the process is told", SOON, || {
        let whose = told(daemon, vf).map(|vf| vf["whose"].to_string()).unwrap_or_default();
        whose.contains(&format!("{holder}, where sleep (pid "))
    });
    sleeper.kill()?;
    sleeper.wait()?;
    said
}
