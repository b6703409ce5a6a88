//! The main job, from a Spec to a guest that configures its own VF, and back to a host as it was found.

use std::time::Duration;

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, attribute, driver, sh, sh_json, virtual_functions, wait_until},
};

/// What the kernel says of a VF of eth0: an eye that is not ioward's.
fn kernel_vf(netdev: &str, index: usize) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
    Ok(sh_json(&format!("ip -j link show {netdev}"))?[0]["vfinfo_list"][index].clone())
}

pub fn two_partitions_get_their_vfs_use_them_and_give_them_back() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let spec = [
        VERSION.to_owned(),
        adapter(NIC0, "3"),
        partition("web"),
        vf(
            "net0",
            "network",
            "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:01\"\nguest_may = [\"mac\", \"reset\"]",
        ),
        partition("db"),
        vf("net0", "network", "pf = \"0000:03:00.0\""),
        vf("disk0", "nvme", ""),
    ]
    .concat();

    // Planning changes nothing.
    let file = daemon.write("web.toml", &spec)?;
    let plan = daemon.done(&["plan", "--steps", "-f", &file])?;
    assert!(plan.contains("+ 0000:01:00.0: 3 VFs made"), "{plan}");
    assert!(plan.contains("set the number of VFs of 0000:01:00.0 from 0 to 3"), "{plan}");
    assert_eq!(how_the_host_is()?, before);

    daemon.apply(&spec)?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "3");
    assert_eq!(
        (attribute(NIC1, "sriov_numvfs")?, attribute(NVME, "sriov_numvfs")?),
        ("1".into(), "1".into())
    );
    assert_eq!(attribute(NIC0, "sriov_drivers_autoprobe")?, "0");
    for assigned in [&virtual_functions(NIC0)?[0], &virtual_functions(NIC1)?[0], &virtual_functions(NVME)?[0]]
    {
        assert_eq!(driver(assigned).as_deref(), Some("vfio-pci"), "{assigned}");
    }
    assert_eq!(driver(&virtual_functions(NIC0)?[1]), None, "nobody asked for VF 1");
    assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:01");
    let given = kernel_vf("eth1", 0)?["address"].as_str().unwrap_or_default().to_owned();
    assert!(given.starts_with("52:54:00:"), "a VF without a MAC in the Spec has one all the same: {given}");

    // The same again is nothing: neither to the host nor to the guests.
    let pids = sh("pgrep -f qemu-system")?;
    assert!(daemon.apply(&spec)?.contains("nothing to do"));
    assert_eq!(sh("pgrep -f qemu-system")?, pids);

    let mut web = daemon.guest("web")?;
    let mut db = daemon.guest("db")?;
    assert!(web.run("cat /sys/class/net/eth0/address", SOON)?.ends_with("52:54:00:aa:00:01"));
    assert_eq!(db.run("cat /sys/class/net/eth0/address", SOON)?, given);
    web.run("ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up", SOON)?;
    db.run("ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up", SOON)?;
    web.run("n=0; until ping -c 1 -W 1 10.0.0.2; do n=$((n+1)); [ $n -lt 30 ] || exit 1; done", SOON)?;
    db.run("dd if=/dev/nvme0n1 of=/dev/null bs=1M count=8", SOON)?;

    // From inside, within what it may.
    let list = web.run("ioward-agent vf list", SOON)?;
    assert!(list.contains("net0") && list.contains("52:54:00:aa:00:01"), "{list}");
    web.run("ioward-agent vf set net0 mac=52:54:00:aa:00:77", SOON)?;
    assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:77");
    let (status, refusal) = web.try_run("ioward-agent vf set net0 vlan=100", SOON)?;
    assert_eq!(status, 3, "{refusal}");
    assert!(refusal.contains("vlan is not in guest_may"), "{refusal}");
    assert!(kernel_vf("eth0", 0)?["vlan_list"][0]["vlan"].as_u64().unwrap_or(0) == 0);
    assert_eq!(
        db.try_run("ioward-agent vf set net0 mac=52:54:00:aa:00:78", SOON)?.0,
        3,
        "db may change nothing"
    );
    assert_eq!(kernel_vf("eth1", 0)?["address"], given.as_str());
    web.run("ioward-agent vf reset net0", SOON)?;
    assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:77", "what the PF set survives a reset");
    web.run("ioward-agent vf stats net0", SOON)?;
    let audit = daemon.done(&["audit"])?;
    assert!(audit.contains("granted") && audit.contains("refused"), "{audit}");

    // What the guest chose within its bounds is not taken back by the same Spec.
    assert!(daemon.apply(&spec)?.contains("nothing to do"));

    // One more VF while it runs, and out again.
    daemon.done(&["attach", "web", "net1", "--class", "network", "--pf", NIC0])?;
    web.run(
        "n=0; until [ -e /sys/class/net/eth1 ]; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
        SOON,
    )?;
    assert!(web.run("ioward-agent vf list", SOON)?.contains("net1"));
    daemon.done(&["detach", "web", "net1"])?;
    assert_ne!(web.try_run("ls -d /sys/class/net/eth1", SOON)?.0, 0, "it is gone from the guest");
    assert_eq!(driver(&virtual_functions(NIC0)?[1]), None, "it is as it was");

    daemon.done(&["remove", "web"])?;
    daemon.done(&["remove", "db"])?;
    wait_until("the machines are gone", Duration::from_secs(10), || sh("pgrep -f qemu-system").is_err())?;
    assert_eq!(how_the_host_is()?, before);
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

pub fn a_stopped_partition_keeps_its_vfs_and_starts_with_them_again() -> Outcome {
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &partition("web"), &vf("net0", "network", "")].concat())?;
    let first = daemon.guest("web")?;
    daemon.done(&["stop", "web"])?;
    first.wait_until_off(SOON)?;
    assert_eq!(driver(&virtual_functions(NIC0)?[0]).as_deref(), Some("vfio-pci"));
    daemon.done(&["start", "web"])?;
    assert!(daemon.guest("web")?.run("ioward-agent vf list", SOON)?.contains("net0"));
    daemon.done(&["remove", "web", "--force"])?;
    assert_eq!(attribute(NIC0, "sriov_numvfs")?, "0");
    Ok(())
}
