//! A partition's channel, from inside its guest: when it exists, its traffic, and the effects on the host.

use std::error::Error;

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, kernel_vf, sh},
};
use serde_json::Value;

/// Whether the only partition has a channel, according to the daemon and to the machine's socket.
fn has_channel(daemon: &Daemon) -> Result<bool, Box<dyn Error>> {
    let partitions: Value = serde_json::from_str(&daemon.done(&["partitions", "--json"])?)?;
    let said = partitions[0]["channel"] == true;
    let socket = sh("ls /run/ioward-test/run/partitions/web/channel.sock").is_ok();
    assert_eq!(said, socket, "{partitions}");
    Ok(said)
}

pub fn the_channel_comes_with_the_first_vf_and_goes_with_the_last() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    daemon.apply(&[VERSION, &adapter(NIC0, "2"), &partition("web")].concat())?;
    let mut web = daemon.guest("web")?;
    assert!(!has_channel(&daemon)?);
    let (status, told) = web.try_run("ioward-agent vf list", SOON)?;
    assert!(status == 1 && told.contains("this machine has no port 'org.ioward.0'"), "{status}: {told}");
    for vf in ["net0", "net1"] {
        daemon.done(&["attach", "web", vf, "--class", "network", "--pf", NIC0])?;
        assert!(has_channel(&daemon)?);
    }
    web.run(
        "n=0; until ioward-agent vf list | grep net1; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
        SOON,
    )?;
    daemon.done(&["detach", "--yes", "web", "net0"])?;
    assert!(has_channel(&daemon)?);
    let list = web.run("ioward-agent vf list", SOON)?;
    assert!(list.contains("net1") && !list.contains("net0"), "{list}");
    daemon.done(&["detach", "--yes", "web", "net1"])?;
    assert!(!has_channel(&daemon)?);
    assert_eq!(web.try_run("ioward-agent vf list", SOON)?.0, 1);
    assert_eq!(how_the_host_is()?, before, "with the last VF the adapter goes back too");
    Ok(())
}

/// Asks the kernel after each operation: a granted one took effect, and a refused one did not.
pub fn a_guest_sets_only_what_guest_may_allows() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let net0 = "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:01\"\nguest_may = { mac = \"52:54:00:*\", vlan = \"100-110\", \
                trust = true, spoofchk = true, max_tx_rate = \"<=500Mbit\", link_state = true }";
    let spec = [
        VERSION,
        &partition("web"),
        &vf("net0", "network", net0),
        &vf("net1", "network", "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:02\""),
        &vf("disk0", "nvme", "guest_may = [\"online\"]"),
    ];
    daemon.apply(&spec.concat())?;
    let mut web = daemon.guest("web")?;

    web.run("ioward-agent vf set net0 vlan=105 trust=on spoofchk=off max_tx_rate=400Mbit", SOON)?;
    let set = kernel_vf("eth0", 0)?;
    assert_eq!(set["vlan_list"][0]["vlan"], 105, "{set}");
    assert_eq!((&set["trust"], &set["spoofchk"]), (&true.into(), &false.into()), "{set}");
    assert_eq!(set["rate"]["max_tx"], 400, "{set}");

    let refused = [
        ("set net0 vlan=200", 3, "vlan 200 is outside what guest_may allows (100-110)"),
        ("set net0 vlan=0", 3, "guest_may"),
        ("set net0 mac=02:00:00:00:00:09", 3, "guest_may"),
        ("set net0 max_tx_rate=600Mbit", 3, "guest_may"),
        ("set net0 min_tx_rate=100Mbit", 3, "min_tx_rate is not in guest_may of this VF"),
        ("reset net0", 3, "reset is not in guest_may of this VF"),
        // All of it or none: the first setting alone would be allowed.
        ("set net0 vlan=106 min_tx_rate=100Mbit", 3, "min_tx_rate is not in guest_may of this VF"),
        // igb has no link state of VFs: guest_may allows the change, which makes no sense for this VF (docs/channel.md), and is
        // rolled back with the setting before it.
        ("set net0 vlan=106 link_state=disable", 2, "igb cannot set link_state of a VF"),
        ("set net0 mac=52:54:00:aa:00:02", 2, "52:54:00:aa:00:02 is already in use on this host"),
        ("set net0 mac=01:00:5e:00:00:01", 2, "multicast"),
        ("set net1 vlan=105", 3, "vlan is not in guest_may of this VF"),
        ("get net2", 1, "this partition holds no VF 'net2'; it holds disk0, net0, net1"),
        ("set disk0 queues=1", 3, "queues is not in guest_may of this VF"),
    ];
    let look = || sh("ip -j link show eth0; nvme list-secondary /dev/nvme0 -o json");
    let before_refusals = look()?;
    for (request, status, says) in refused {
        let (ended, told) = web.try_run(&format!("ioward-agent vf {request}"), SOON)?;
        assert!(ended == status && told.contains(says), "{request}: {ended}: {told}");
        assert_eq!(look()?, before_refusals, "{request}");
    }
    let shown = web.run("ioward-agent vf get net0", SOON)?;
    for line in ["vlan         105", "trust        on", "spoofchk     off", "max_tx_rate  400Mbit"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    let counters: Value = serde_json::from_str(&web.run("ioward-agent --json vf stats net0", SOON)?)?;
    assert!(counters["rx_packets"].is_u64(), "{counters}");

    // Offline and online again: the guest's driver loses its controller, and the host's side is unchanged.
    web.run("ioward-agent vf set disk0 online=off", SOON)?;
    assert_ne!(look()?, before_refusals);
    web.run("ioward-agent vf set disk0 online=on", SOON)?;
    assert_eq!(look()?, before_refusals);

    let audit = daemon.done(&["audit"])?;
    for line in [
        "web: set net0 vlan=105 trust=on spoofchk=off max_tx_rate=400Mbit: granted",
        "web: set net0 vlan=200: refused: ",
        "web: set net0 vlan=106 link_state=disable: refused: 0000:01:00.0: igb cannot set link_state of a VF",
        "web: get net2: refused: ",
    ] {
        assert!(audit.contains(line), "'{line}' is not in {audit}");
    }

    // A person on the console takes precedence; their view ends with the machine.
    drop(web);
    let seen = sh("echo 'poweroff -f' | ioward --socket /run/ioward-test/api.sock console web 2>&1")?;
    assert!(seen.ends_with("the console of web closed: its machine has ended\n"), "{seen}");
    daemon.done(&["remove", "--yes", "web"])?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}
