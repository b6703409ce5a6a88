//! The main job: from a Spec to a guest that configures its own VF, and back to the original host.

use std::time::Duration;

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, attribute, driver, kernel_vf, sh, virtual_functions, wait_until},
};

pub fn two_partitions_get_use_and_return_their_vfs() -> Outcome {
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

    // The same again changes nothing for the host or the guests.
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
    // xtask wrote this to the namespace from outside.
    assert_eq!(db.run("head -n 1 /dev/nvme0n1", SOON)?, "ioward lab, NVMe namespace 1");

    // From inside, within its permissions.
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

    // The same Spec does not reset what the guest chose within its permissions.
    assert!(daemon.apply(&spec)?.contains("nothing to do"));

    // Adds a VF while it runs, and removes it.
    daemon.done(&["attach", "web", "net1", "--class", "network", "--pf", NIC0])?;
    web.run(
        "n=0; until [ -e /sys/class/net/eth1 ]; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
        SOON,
    )?;
    assert!(web.run("ioward-agent vf list", SOON)?.contains("net1"));
    daemon.done(&["detach", "--yes", "web", "net1"])?;
    assert_ne!(web.try_run("ls -d /sys/class/net/eth1", SOON)?.0, 0, "it is gone from the guest");
    assert_eq!(driver(&virtual_functions(NIC0)?[1]), None, "it is as it was");

    daemon.done(&["remove", "--yes", "web"])?;
    daemon.done(&["remove", "--yes", "db"])?;
    wait_until("the machines are gone", Duration::from_secs(10), || sh("pgrep -f qemu-system").is_err())?;
    assert_eq!(how_the_host_is()?, before);
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

/// An administrator had made VFs before ioward came, with settings and drivers of their own.
pub fn vfs_made_by_hand_are_restored_as_they_were() -> Outcome {
    sh("modprobe igbvf")?;
    let tested = with_vfs_of_an_administrator();
    // Other tests expect a level 1 without it.
    sh("modprobe -r igbvf")?;
    tested
}

fn with_vfs_of_an_administrator() -> Outcome {
    let daemon = Daemon::start()?;
    sh("echo 2 >/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs
        ip link set eth0 vf 0 mac 52:54:00:bb:00:01 vlan 7 trust on
        ip link set eth0 vf 1 mac 52:54:00:bb:00:02 spoofchk off
        echo 0 >/sys/bus/pci/devices/0000:02:00.0/sriov_drivers_autoprobe
        echo 1 >/sys/bus/pci/devices/0000:02:00.0/sriov_numvfs
        nvme virt-mgmt /dev/nvme0 -c 1 -r 0 -a 8 -n 3")?;
    let look = || -> Result<_, Box<dyn std::error::Error>> {
        Ok((how_the_host_is()?, kernel_vf("eth0", 0)?, kernel_vf("eth0", 1)?))
    };
    let first = virtual_functions(NIC0)?[0].clone();
    wait_until("igbvf has its VFs", Duration::from_secs(30), || driver(&first).as_deref() == Some("igbvf"))?;
    let before = look()?;
    assert!(before.0.contains("igbvf"), "{}", before.0);

    let spec = |more: &str| {
        let net0 = format!(
            "pf = \"{NIC0}\"\nindex = 0\nmac = \"52:54:00:aa:00:01\"\nvlan = 100\ntrust = false\n{more}"
        );
        let disk0 = format!("pf = \"{NVME}\"\nindex = 0\nqueues = 2");
        [VERSION, &partition("web"), &vf("disk0", "nvme", &disk0), &vf("net0", "network", &net0)].concat()
    };
    // igb takes no rate above that of the link, and needs a link to know: this fails midway, when the NVMe VF has
    // been taken already.
    let has_link = || sh("grep -q 1 /sys/class/net/eth0/carrier").is_ok();
    wait_until("eth0 has a link", Duration::from_secs(60), has_link)?;
    let failed = daemon.try_apply(&spec("max_tx_rate = \"20Gbit\""), &[])?;
    assert!(failed.status == 1 && failed.stderr.contains("everything is as it was before"), "{failed:?}");
    assert_eq!(look()?, before, "undone");

    daemon.apply(&spec(""))?;
    let (_, net0, net1) = look()?;
    assert_eq!((&net0["address"], &net0["vlan_list"][0]["vlan"]), (&"52:54:00:aa:00:01".into(), &100.into()));
    assert_eq!((driver(&first).as_deref(), &net0["trust"]), (Some("vfio-pci"), &false.into()));
    assert_eq!(net1, before.2, "nobody asked for VF 1");
    daemon.done(&["remove", "--yes", "web", "--force"])?;
    assert_eq!(look()?, before, "given back");
    Ok(())
}

pub fn a_partition_keeps_its_vfs_while_stopped_and_until_its_guest_releases_them() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &partition("web"), &vf("net0", "network", "")].concat())?;
    let first = daemon.guest("web")?;
    daemon.done(&["stop", "--yes", "web"])?;
    first.wait_until_off(SOON)?;
    assert_eq!(driver(&virtual_functions(NIC0)?[0]).as_deref(), Some("vfio-pci"));
    daemon.done(&["start", "web"])?;
    let mut web = daemon.guest("web")?;
    assert!(web.run("ioward-agent vf list", SOON)?.contains("net0"));

    // A kernel that has panicked answers no hot-unplug any more, and its machine runs on: the VF is not torn away.
    let _ =
        web.try_run("echo 0 >/proc/sys/kernel/panic; echo c >/proc/sysrq-trigger", Duration::from_secs(2));
    let refused = daemon.ioward(&["detach", "--yes", "web", "net0"])?;
    assert_eq!(refused.status, 1, "{refused:?}");
    let told = "the guest of web did not let go of net0 within 30 s; try again, or turn it off: ioward stop web --force; \
                everything is as it was before";
    assert!(refused.stderr.contains(told), "{refused:?}");
    assert_eq!(driver(&virtual_functions(NIC0)?[0]).as_deref(), Some("vfio-pci"));
    assert!(daemon.done(&["vfs"])?.contains("web/net0"), "it still has its VF");

    // It ignores its power button, too. Ctrl-C ends the wait before its bound of 2 minutes.
    let stop = daemon.begin(&["stop", "--yes", "web"])?;
    // The first one was before the panic.
    daemon.events_until("a second stop", |events| events.matches("stop partition web").count() == 2)?;
    sh(&format!("kill -INT {}", stop.id()))?;
    assert_eq!(stop.wait_with_output()?.status.code(), Some(130));
    let given_up = |events: &str| events.contains("failed, everything is as before: cancelled");
    let events = daemon.events_until("the stop is given up", given_up)?;
    assert!(!events.contains("did not turn itself off"), "{events}");
    daemon.done(&["stop", "--yes", "web", "--force"])?;
    daemon.done(&["detach", "--yes", "web", "net0"])?;
    daemon.done(&["remove", "--yes", "web"])?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}
