//! People with a shell, and machines that die: changes made to the host behind ioward's back are reported, repaired
//! where that is safe, and left alone where they are not ioward's.

use std::{
    error::Error,
    process::{Child, Command},
    time::Duration,
};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, attribute, driver, kernel_vf, set_attribute, sh, virtual_functions, wait_until},
};
use serde_json::Value;

const MAC: &str = "52:54:00:aa:00:01";

/// A partition that stays in its firmware, and so starts at once.
fn without_a_guest(name: &str) -> String {
    format!(
        "\n[[partition]]\nname = \"{name}\"\nmemory = \"64MiB\"\nboot = {{ disk = \"/run/{name}.img\" }}\n"
    )
}

/// web's VF.
fn net0() -> String {
    vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{MAC}\""))
}

/// A partition with a VF but no guest.
fn daemon_with_a_partition() -> Result<Daemon, Box<dyn Error>> {
    sh("for name in web db; do truncate -s 1M /run/$name.img; chmod 0666 /run/$name.img; done")?;
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &without_a_guest("web"), &net0()].concat())?;
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(daemon)
}

fn drift(daemon: &Daemon) -> Result<Value, Box<dyn Error>> {
    Ok(serde_json::from_str(&daemon.done(&["drift", "--json"])?)?)
}

/// Waits for an event. Nobody requests a look: the kernel has to report the change, or the periodic look finds it.
fn wait_for_event(daemon: &Daemon, what: &str) -> Outcome {
    let is_told = || daemon.done(&["events"]).is_ok_and(|events| events.contains(what));
    wait_until(&format!("an event says '{what}'"), SOON, is_told)
        .map_err(|error| format!("{error}; {}", daemon.log()).into())
}

pub fn a_mac_changed_by_hand_is_repaired_and_reported() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{NIC0}/net"))?.trim().to_owned();
    sh(&format!("ip link set {netdev} vf 0 mac 52:54:00:aa:00:99"))?;
    wait_for_event(&daemon, &format!("drift repaired: VF 0 of {NIC0} has mac=52:54:00:aa:00:99"))?;
    assert_eq!(kernel_vf(&netdev, 0)?["address"], MAC);
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(())
}

/// `echo 0 > sriov_numvfs`, which returns only when no guest has a VF of it any more.
fn begin_to_take_all_vfs(pf: &str) -> Result<Child, Box<dyn Error>> {
    let command = format!("echo 0 >/sys/bus/pci/devices/{pf}/sriov_numvfs");
    Ok(Command::new("bash").args(["-c", &command]).spawn()?)
}

/// Checks the event and `ioward drift`.
fn web_is_told_to_have_lost_its_vf(daemon: &Daemon) -> Outcome {
    wait_for_event(daemon, &format!("drift: {NIC0} has 0 VFs and is to have 1; broken: web/net0"))?;
    let found = drift(daemon)?;
    let lost = found.as_array().and_then(|all| all.iter().find(|drift| drift["drift"] == "vf-count"));
    assert_eq!(lost.map(|drift| &drift["breaks"]), Some(&serde_json::json!(["web/net0"])), "{found}");
    let shown = daemon.done(&["drift"])?;
    assert!(shown.contains("breaks web/net0") && shown.contains("left as it is"), "{shown}");
    Ok(())
}

/// The kernel asks QEMU for the VF, QEMU asks the guest, and the guest releases it.
pub fn vfs_taken_from_a_running_guest_are_reported_with_its_loss() -> Outcome {
    let daemon = Daemon::start()?;
    let other = vf("net0", "network", &format!("pf = \"{NIC1}\""));
    let spec = [VERSION, &partition("web"), &net0(), &partition("db"), &other].concat();
    daemon.apply(&spec)?;
    let (mut web, mut db) = (daemon.guest("web")?, daemon.guest("db")?);
    for guest in [&mut web, &mut db] {
        guest.run("ip link show eth0", SOON)?;
    }
    let machines = sh("pgrep -f qemu-system")?;

    let mut writer = begin_to_take_all_vfs(NIC0)?;
    // However far that is, the other partition is served.
    db.run("ioward-agent vf list | grep net0", SOON)?;
    web_is_told_to_have_lost_its_vf(&daemon)?;
    assert!(writer.wait()?.success());
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0", "a person wanted it so");

    // web runs on without it, and db is unaffected.
    assert_eq!(sh("pgrep -f qemu-system")?, machines);
    web.run("[ ! -e /sys/class/net/eth0 ]", SOON)?;
    db.run("ip link show eth0", SOON)?;
    assert_eq!(virtual_functions(NIC1)?.first().and_then(|vf| driver(vf)).as_deref(), Some("vfio-pci"));

    // As its message says, 'ioward apply' makes them again.
    daemon.apply(&spec)?;
    let back = "n=0; until ip link show eth0; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done";
    assert!(web.run(back, SOON)?.contains(MAC));
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    assert_eq!(sh("pgrep -f qemu-system")?, machines);
    Ok(())
}

/// Firmware never releases a VF. The write waits, and so does every reader of what it has locked.
pub fn vfs_that_a_guest_never_releases_block_only_their_adapter() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    let other = vf("net0", "network", &format!("pf = \"{NIC1}\""));
    daemon.apply(&[VERSION, &without_a_guest("db"), &other].concat())?;
    let mut writer = begin_to_take_all_vfs(NIC0)?;
    web_is_told_to_have_lost_its_vf(&daemon)?;
    assert!(writer.try_wait()?.is_none(), "it waits for web");

    // Not the number of VFs: the kernel changes that of one adapter at a time, in the whole host.
    daemon.done(&["stop", "--yes", "db", "--force"])?;
    daemon.done(&["start", "db"])?;
    assert!(daemon.done(&["vfs"])?.contains("db/net0"));
    assert!(writer.try_wait()?.is_none(), "it still does");

    daemon.done(&["stop", "--yes", "web", "--force"])?;
    assert!(writer.wait()?.success());
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    web_is_told_to_have_lost_its_vf(&daemon)?;
    daemon.apply(&[VERSION, &without_a_guest("web"), &net0()].concat())?;
    daemon.done(&["start", "web"])?;
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(())
}

/// The same under a partition that is stopped.
pub fn a_vf_count_written_by_hand_is_reported_with_the_broken_vfs() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    daemon.done(&["stop", "--yes", "web", "--force"])?;
    let count = attribute(NIC0, "sriov_numvfs")?;
    set_attribute(NIC0, "sriov_numvfs", "0")?;
    web_is_told_to_have_lost_its_vf(&daemon)?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0", "a person wanted it so");

    // The same person makes the VFs again: they are prepared again.
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

pub fn a_killed_machine_is_reported_and_its_partition_is_stopped() -> Outcome {
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

pub fn an_orphan_is_listed_and_reaped_on_request() -> Outcome {
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
    // An open orphan is left alone.
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

/// Gives the port above a PF other bus numbers, and has the kernel find both again, as if firmware had found a card
/// in a lower slot. Writes the port's registers through the kernel, which must still know the port: I/O ports are
/// out of the question, since the kernel uses them meanwhile.
fn renumber(pf: &str, bus: u8) -> Result<String, Box<dyn Error>> {
    let port =
        sh(&format!("basename $(dirname $(readlink -f /sys/bus/pci/devices/{pf}))"))?.trim().to_owned();
    let numbers = format!("SUBORDINATE_BUS={bus:02x} SECONDARY_BUS={bus:02x}");
    let renumbered = sh(&format!(
        "cd /sys/bus/pci/devices && echo 1 >{pf}/remove && setpci -s {port} {numbers} && echo 1 >{port}/remove"
    ));
    // Restores the host whatever the outcome.
    sh("echo 1 >/sys/bus/pci/rescan")?;
    renumbered?;
    let now = format!("0000:{bus:02x}:00.0");
    wait_until(&format!("{now} is there"), SOON, || driver(&now).as_deref() == Some("igb"))?;
    sh(&format!("ip link set $(ls /sys/bus/pci/devices/{now}/net) up"))?;
    Ok(now)
}

pub fn an_adapter_that_gets_other_bus_numbers_is_found_again() -> Outcome {
    let daemon = daemon_with_a_partition()?;
    daemon.done(&["stop", "--yes", "web", "--force"])?;
    let moved = renumber(NIC0, 0x20)?;
    let found = is_found_at(&daemon, NIC0, &moved);
    // Restores the address for the next tests, whatever the outcome.
    let _ = daemon.ioward(&["stop", "--yes", "web", "--force"]);
    let back = renumber(&moved, 0x01);
    found?;
    assert_eq!(back?, NIC0);
    wait_for_event(&daemon, &format!("adapter {moved} is {NIC0} now"))?;
    daemon.done(&["remove", "--yes", "web"])?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    assert_eq!(drift(&daemon)?, serde_json::json!([]));
    Ok(())
}

fn is_found_at(daemon: &Daemon, from: &str, to: &str) -> Outcome {
    wait_for_event(daemon, &format!("adapter {from} is {to} now: function 0 of a 8086:10c9"))?;
    let state: Value = serde_json::from_str(&daemon.done(&["state", "export"])?)?;
    let web = &state["state"]["partitions"]["web"];
    let noted = [&web["vfs"]["net0"]["vf"]["pf"], &web["spec"]["vf"][0]["pf"]];
    // Its VFs were lost in the move; they are made again at the new address.
    daemon.done(&["start", "web"])?;
    let bound = virtual_functions(to)?.first().and_then(|vf| driver(vf));
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{to}/net"))?.trim().to_owned();
    let mac = kernel_vf(&netdev, 0)?["address"].clone();
    let left = drift(daemon)?;
    let is_well = noted.iter().all(|pf| *pf == to) && bound.as_deref() == Some("vfio-pci") && mac == MAC;
    if is_well && left == serde_json::json!([]) {
        return Ok(());
    }
    // Not a panic: the adapter has to go back to its address.
    Err(format!("noted at {noted:?}, bound to {bound:?}, MAC {mac}, drift {left}").into())
}
