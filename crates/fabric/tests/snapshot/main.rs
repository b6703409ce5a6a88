//! Recorded hosts: a replay shows the recorded host, without whatever identifies it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod hostile;
mod lab;

#[path = "../identify/hosts.rs"]
mod hosts;
#[path = "../identify/tree.rs"]
mod tree;

#[path = "../../../pci/tests/config_space/builder.rs"]
mod config_builder;

use std::{fs, os::unix::fs::symlink};

use hosts::{igb, igb_and_nvme};
use ioward_fabric::linux::Snapshot;
use ioward_model::{Class, HostUse, Inventory};
use tree::Tree;

/// Through a file, as read on another machine.
fn replayed(snapshot: &Snapshot) -> Inventory {
    Snapshot::parse(&snapshot.to_json().unwrap()).unwrap().identify().unwrap()
}

fn recorded(tree: &Tree) -> Snapshot {
    Snapshot::of_tree(&tree.at("")).unwrap()
}

/// A host used in every way that identify knows.
fn busy() -> Tree {
    let tree = igb_and_nvme();
    tree.file(
        "proc/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
         eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\n\
         eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
         other\t0064A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n",
    );
    tree.file("proc/net/fib_trie", "|-- 192.0.2.7\n  /32 host LOCAL\n|-- 127.0.0.1\n  /32 host LOCAL\n");
    tree.file(
        "proc/net/if_inet6",
        "20010db8000000000000000000000007 02 40 00 80 eth0\nfe80000000000000505400fffe111111 02 40 20 80 eth0\n",
    );
    tree.file(
        "proc/self/mountinfo",
        "1 2 0:1 / /secret rw - tmpfs none rw\n3 1 259:1 / /mnt rw - ext4 /dev/nvme0n1p1 rw\n",
    );
    tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/secret partition 1 0 -2\n");
    tree.file(
        "usr/share/misc/pci.ids",
        "1111  Secret\n8086  Intel Corporation\n\t10c9  82576 Gigabit Network Connection\n\t10ca  82576 Virtual Function\nC 02  x\n",
    );
    symlink("../../br0", tree.at(&tree.device("0000:01:00.0/net/eth0/upper_br0"))).unwrap();
    tree
}

#[test]
fn a_replayed_host_is_the_recorded_one() {
    for tree in [igb(), igb_and_nvme(), busy()] {
        let seen = tree.identify();
        assert!(!seen.physical_functions.is_empty());
        assert_eq!(replayed(&recorded(&tree)), seen);
    }
}

#[test]
fn recorded_errors_are_replayed_in_the_same_words() {
    let tree = busy();
    tree.patch_config("0000:01:00.0", 0x162, &0x1001_u16.to_le_bytes());
    tree.device_file("0000:01:00.0/vendor", [0xff, 0xfe]);
    tree.device_file("0000:01:00.0/numa_node", "many\n");
    tree.remove(&tree.device("0000:01:10.0/config"));
    tree.folder(&tree.device("0000:01:10.0/config"));
    tree.remove("proc/net/fib_trie");
    tree.device_link("0000:01:10.2/physfn", "loop").device_link("0000:01:10.2/loop", "loop");
    let seen = tree.identify();
    assert!(seen.physical_functions[0].reasons.len() > 3, "{seen:#?}");
    assert_eq!(replayed(&recorded(&tree)), seen);
}

#[test]
fn a_masked_host_shows_the_same_relations() {
    let tree = busy();
    let (seen, masked) = (tree.identify(), replayed(&recorded(&tree).masked()));
    let [nic, disk] = &masked.physical_functions[..] else { panic!("{masked:#?}") };
    assert_eq!(nic.netdevs[0].mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(nic.serial_number.as_deref(), Some("00-00-00-00-00-00-00-01"));
    assert_eq!(disk.nvme.as_ref().unwrap().serial.as_deref(), Some("serial-1"));
    let address = |text: &str| HostUse::Address { netdev: "eth0".to_owned(), address: text.to_owned() };
    assert!(nic.in_use_by_host.contains(&address("10.0.0.4/24")), "{:#?}", nic.in_use_by_host);
    assert!(nic.in_use_by_host.contains(&address("fd00::/64")), "{:#?}", nic.in_use_by_host);
    assert_eq!(nic.in_use_by_host.len(), seen.physical_functions[0].in_use_by_host.len());
    assert_eq!(disk.in_use_by_host, seen.physical_functions[1].in_use_by_host);
    assert_eq!((nic.class, &nic.sriov), (Class::Network, &seen.physical_functions[0].sriov));
}

#[test]
fn a_masked_file_has_nothing_that_identifies_the_host() {
    let tree = busy();
    let whole = String::from_utf8(recorded(&tree).to_json().unwrap()).unwrap();
    let masked = String::from_utf8(recorded(&tree).masked().to_json().unwrap()).unwrap();
    // MAC, serial numbers as in configuration space and as the drive reports, addresses as text and as in /proc.
    for secret in ["52:54:00:11:11:11", "56 34 12", "lab0", "192.0.2.7", "000200C0", "20010db8"] {
        assert!(whole.contains(secret), "{secret} is not even in the whole one");
        assert!(!masked.contains(secret), "{secret} is in {masked}");
    }
    // Both leave out what identify does not need.
    for secret in [
        "010200C0\\t0003",
        "0064A8C0",
        "/secret",
        "Secret",
        "505400fffe111111",
        "127.0.0.1",
        "Virtual Function",
    ] {
        assert!(!whole.contains(secret), "{secret}");
    }
}

/// systemd names an adapter without a slot by its MAC address: the name would reveal the address.
#[test]
fn an_interface_named_after_its_address_is_found_under_its_new_name() {
    let tree = igb();
    let net = tree.at(&tree.device("0000:01:00.0/net"));
    fs::rename(net.join("eth0"), net.join("enx525400111111")).unwrap();
    let snapshot = recorded(&tree).masked();
    assert!(!String::from_utf8(snapshot.to_json().unwrap()).unwrap().contains("5254"));
    let netdev = &replayed(&snapshot).physical_functions[0].netdevs[0];
    assert_eq!((&*netdev.name, netdev.ifindex), ("enx020000000001", 2));
    assert_eq!(netdev.mac.unwrap().to_string(), "02:00:00:00:00:01");
}

/// A drive whose serial number is not text, and an adapter whose configuration space ends within its own.
#[test]
fn broken_values_are_masked_too() {
    let tree = igb_and_nvme();
    tree.device_file("0000:02:00.0/nvme/nvme0/serial", b"S3CR\xffT99");
    tree.cut_config("0000:01:00.0", 0x140 + 8);
    let masked = String::from_utf8(recorded(&tree).masked().to_json().unwrap()).unwrap();
    assert!(!masked.contains("53 33 43 52") && !masked.contains("56 34 12 ff"), "{masked}");
    let whole = String::from_utf8(recorded(&tree).to_json().unwrap()).unwrap();
    assert!(whole.contains("53 33 43 52") && whole.contains("56 34 12 ff"), "{whole}");
}

#[test]
fn masking_twice_changes_nothing() {
    let once = recorded(&busy()).masked();
    assert!(once.is_masked());
    assert_eq!(once.clone().masked(), once);
}

/// A VF in the hands of a libvirt domain, whose name is a customer's.
fn held() -> Tree {
    let tree = igb();
    tree.file("proc/812/comm", "qemu-system-x86\n");
    tree.file("proc/812/cmdline", "qemu-system-x86_64\0-name\0guest=acme-billing\0");
    tree.file("proc/812/cgroup", "0::/machine.slice/machine-qemu\\x2d1\\x2dacme.scope\n");
    tree.link("proc/812/fd/7", "/dev/vfio/10").link("proc/812/fd/8", "/srv/acme/billing.db");
    tree
}

fn holder(inventory: &Inventory) -> String {
    inventory.physical_functions[0].virtual_functions[0].holder.as_ref().unwrap().to_string()
}

#[test]
fn who_has_a_vf_is_recorded_and_no_more_of_processes() {
    let tree = held();
    let snapshot = recorded(&tree);
    assert_eq!(replayed(&snapshot), tree.identify());
    assert_eq!(holder(&replayed(&snapshot)), "libvirt domain acme-billing (qemu pid 812)");
    let json = String::from_utf8(snapshot.to_json().unwrap()).unwrap();
    assert!(!json.contains("proc/812") && !json.contains("billing.db"), "{json}");
}

#[test]
fn names_of_machines_and_programs_are_masked() {
    let masked = recorded(&held()).masked();
    assert_eq!(holder(&replayed(&masked)), "libvirt domain machine-1 (qemu pid 812)");
    let json = String::from_utf8(masked.to_json().unwrap()).unwrap();
    assert!(!json.contains("acme") && !json.contains("qemu-system"), "{json}");
}

#[test]
fn a_holder_from_elsewhere_cannot_forge_lines() {
    let json = String::from_utf8(recorded(&held()).to_json().unwrap()).unwrap();
    let json = json.replace("acme-billing", &format!("\\u001b[2J\\u202e{}", "x".repeat(1000)));
    let seen = holder(&Snapshot::parse(json.as_bytes()).unwrap().identify().unwrap());
    assert!(seen.starts_with("libvirt domain \u{fffd}[2J\u{fffd}xxx") && seen.len() < 200, "{seen:?}");
    let unknown = json.replace("\"kind\": \"process\"", "\"kind\": \"spirit\"");
    assert_ne!(unknown, json);
    assert!(Snapshot::parse(unknown.as_bytes()).is_err());
}
