//! People with a shell, and machines that die: what somebody changes on the host behind ioward's back is told, repaired where
//! that is safe, and left alone where it is not ioward's.

use std::{error::Error, time::Duration};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, vf},
    harness::Outcome,
    level1::{NIC0, attribute, driver, kernel_vf, set_attribute, sh, virtual_functions, wait_until},
};
use serde_json::Value;

const MAC: &str = "52:54:00:aa:00:01";

/// A partition that never gets further than its firmware, and so starts at once, with a VF.
fn daemon_with_a_partition() -> Result<Daemon, Box<dyn Error>> {
    sh("truncate -s 1M /run/empty.img; chmod 0666 /run/empty.img")?;
    let daemon = Daemon::start()?;
    let web = "[[partition]]\nname = \"web\"\nmemory = \"64MiB\"\nboot = { disk = \"/run/empty.img\" }\n";
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{MAC}\""));
    daemon.apply(&[VERSION, web, &net0].concat())?;
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(daemon)
}

fn drift(daemon: &Daemon) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_str(&daemon.done(&["drift", "--json"])?)?)
}

/// Waits for an event. Nobody asks for a look: the kernel has to tell of it, or the look that comes now and then.
fn wait_for_event(daemon: &Daemon, what: &str) -> Outcome {
    let is_told = || daemon.done(&["events"]).is_ok_and(|events| events.contains(what));
    wait_until(&format!("an event says '{what}'"), SOON, is_told)
        .map_err(|error| format!("{error}; {}", daemon.log()).into())
}

pub fn a_mac_changed_by_hand_is_repaired_and_told() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{NIC0}/net"))?.trim().to_owned();
    sh(&format!("ip link set {netdev} vf 0 mac 52:54:00:aa:00:99"))?;
    wait_for_event(&daemon, &format!("drift repaired: VF 0 of {NIC0} has mac=52:54:00:aa:00:99"))?;
    assert_eq!(kernel_vf(&netdev, 0)?["address"], MAC);
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(())
}

/// `echo 0 > sriov_numvfs` under a partition that is stopped: under one that runs, the kernel waits for its guest.
pub fn a_number_of_vfs_written_by_hand_is_told_with_what_it_broke() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    daemon.done(&["stop", "web", "--force"])?;
    let count = attribute(NIC0, "sriov_numvfs")?;
    set_attribute(NIC0, "sriov_numvfs", "0")?;
    wait_for_event(&daemon, &format!("drift: {NIC0} has 0 VFs and is to have 1; broken: web/net0"))?;
    let found = drift(&daemon)?;
    assert_eq!(
        (&found[0]["drift"], &found[0]["breaks"][0]),
        (&"vf-count".into(), &"web/net0".into()),
        "{found}"
    );
    let shown = daemon.done(&["drift"])?;
    assert!(shown.contains("breaks web/net0") && shown.contains("left as it is"), "{shown}");
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0", "a person wanted it so");

    // Who took them away gives them back: they are made ready again.
    set_attribute(NIC0, "sriov_numvfs", &count)?;
    wait_for_event(&daemon, "drift repaired: VF 0")?;
    let is_bound = || {
        virtual_functions(NIC0)
            .is_ok_and(|vfs| vfs.first().and_then(|vf| driver(vf)).as_deref() == Some("vfio-pci"))
    };
    wait_until("the VF is bound again", SOON, is_bound)?;
    daemon.done(&["start", "web"])?;
    Ok(())
}

pub fn a_machine_that_is_killed_is_told_and_its_partition_is_stopped() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    let web = || -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str::<Value>(&daemon.done(&["partitions", "--json"])?)?[0].clone())
    };
    sh(&format!("kill -9 {}", web()?["pid"]))?;
    wait_for_event(&daemon, "partition web ended")?;
    assert_eq!(web()?["running"], false);
    let state: Value = serde_json::from_str(&daemon.done(&["state", "export"])?)?;
    assert_eq!(state["state"]["partitions"]["web"]["running"], false);
    assert_eq!(drift(&daemon)?, serde_json::json!([]), "its VF is ready for its next start");
    daemon.done(&["start", "web"])?;
    Ok(())
}

pub fn an_orphan_is_listed_and_reaped_when_asked_for() -> Outcome {
    let daemon = Daemon::start()?;
    set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
    set_attribute(NIC0, "sriov_numvfs", "2")?;
    let left = virtual_functions(NIC0)?[1].clone();
    set_attribute(&left, "driver_override", "vfio-pci")?;
    sh(&format!("modprobe vfio-pci; echo {left} >/sys/bus/pci/drivers_probe"))?;
    wait_until("it is bound", Duration::from_secs(10), || driver(&left).as_deref() == Some("vfio-pci"))?;
    assert_eq!(drift(&daemon)?, serde_json::json!([]), "what ioward does not own is no drift");
    let orphans = || -> Result<Value, Box<dyn Error>> {
        Ok(serde_json::from_str(&daemon.done(&["orphans", "--json"])?)?)
    };
    // While somebody has it open, it is nobody's business.
    let group =
        sh(&format!("basename $(readlink /sys/bus/pci/devices/{left}/iommu_group)"))?.trim().to_owned();
    let open = std::fs::OpenOptions::new().read(true).write(true).open(format!("/dev/vfio/{group}"))?;
    assert_eq!(orphans()?, serde_json::json!([]));
    drop(open);
    assert_eq!(orphans()?, serde_json::json!([{"pf": NIC0, "index": 1, "address": left}]));
    assert_eq!(driver(&left).as_deref(), Some("vfio-pci"), "nothing happens unasked");
    let reaped = daemon.done(&["orphans", "--reap"])?;
    assert!(reaped.contains("reset, and without a driver"), "{reaped}");
    assert_eq!(driver(&left), None);
    assert_eq!(orphans()?, serde_json::json!([]));
    Ok(())
}

/// Takes the port above a PF out of the kernel, gives it other bus numbers, and has the kernel find it again: what firmware does
/// when a card is added in a lower slot.
fn renumber(pf: &str, bus: u8) -> Result<String, Box<dyn Error>> {
    let port =
        sh(&format!("basename $(dirname $(readlink -f /sys/bus/pci/devices/{pf}))"))?.trim().to_owned();
    sh(&format!("echo 1 >/sys/bus/pci/devices/{port}/remove"))?;
    // The kernel knows nothing of the port now: its registers are written past it.
    let slot = port.trim_start_matches("0000:");
    let numbers = format!("SUBORDINATE_BUS={bus:02x} SECONDARY_BUS={bus:02x}");
    sh(&format!("setpci -A intel-conf1 -H1 -s {slot} {numbers} && echo 1 >/sys/bus/pci/rescan"))?;
    let now = format!("0000:{bus:02x}:00.0");
    wait_until(&format!("{now} is there"), SOON, || driver(&now).as_deref() == Some("igb"))?;
    sh(&format!("ip link set $(ls /sys/bus/pci/devices/{now}/net) up"))?;
    Ok(now)
}

pub fn an_adapter_that_gets_other_bus_numbers_is_found_again() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    daemon.done(&["stop", "web", "--force"])?;
    let moved = renumber(NIC0, 0x20)?;
    let found = is_found_at(&daemon, NIC0, &moved);
    // Whatever came of it, those who come after find it where it was.
    let _ = daemon.ioward(&["stop", "web", "--force"]);
    let back = renumber(&moved, 0x01);
    found?;
    assert_eq!(back?, NIC0);
    wait_for_event(&daemon, &format!("adapter {moved} is {NIC0} now"))?;
    daemon.done(&["remove", "web"])?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(())
}

fn is_found_at(daemon: &Daemon, from: &str, to: &str) -> Outcome {
    wait_for_event(daemon, &format!("adapter {from} is {to} now: function 0 of a 8086:10c9"))?;
    let state: Value = serde_json::from_str(&daemon.done(&["state", "export"])?)?;
    let web = &state["state"]["partitions"]["web"];
    let noted = [&web["vfs"]["net0"]["vf"]["pf"], &web["spec"]["vf"][0]["pf"]];
    // Its VFs went with the move; they are made again where it is now.
    daemon.done(&["start", "web"])?;
    let bound = virtual_functions(to)?.first().and_then(|vf| driver(vf));
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{to}/net"))?.trim().to_owned();
    let mac = kernel_vf(&netdev, 0)?["address"].clone();
    let left = drift(daemon)?;
    let is_well = noted.iter().all(|pf| *pf == to) && bound.as_deref() == Some("vfio-pci") && mac == MAC;
    if is_well && left == serde_json::json!([]) {
        return Ok(());
    }
    // No panic: the adapter has to go back where it was.
    Err(format!("noted at {noted:?}, bound to {bound:?}, MAC {mac}, drift {left}").into())
}
