//! The host's own uses: addresses, routes, stacked interfaces, mounted disks. A PF that carries one of them must
//! not be disturbed; no other open-source tool guards against that.

use ioward_model::{HostUse, PhysicalFunction};

use crate::{
    hosts::{igb, igb_and_nvme},
    tree::Tree,
};

const ROUTE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";

fn pf(tree: &Tree, address: &str) -> PhysicalFunction {
    tree.identify().physical_function(address.parse().unwrap()).unwrap().clone()
}

fn uses(uses: &[HostUse]) -> Vec<String> {
    uses.iter().map(ToString::to_string).collect()
}

/// 10.0.0.1/24 on this interface, with a connected route. Numbers of `route` are in the byte order of this machine.
fn with_ipv4(tree: &Tree, netdev: &str) {
    let number = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
    let (network, mask) = (number([10, 0, 0, 0]), number([255, 255, 255, 0]));
    tree.file(
        "proc/net/route",
        format!("{ROUTE}{netdev}\t{network}\t00000000\t0001\t0\t0\t0\t{mask}\t0\t0\t0\n"),
    );
    tree.file(
        "proc/net/fib_trie",
        "Main:\n  +-- 10.0.0.0/24 2 0 2\n     |-- 10.0.0.1\n        /32 host LOCAL\n",
    );
}

#[test]
fn an_address_of_either_family_is_a_use() {
    let tree = igb();
    with_ipv4(&tree, "eth0");
    let ipv6 = "fd000000000000000000000000000002 02 40 00 82     eth0\n\
                fe80000000000000505400fffe111111 02 40 20 80     eth0\n";
    tree.file("proc/net/if_inet6", ipv6);
    let expected = ["eth0 has address 10.0.0.1/24", "eth0 has address fd00::2/64"];
    assert_eq!(uses(&pf(&tree, "0000:01:00.0").in_use_by_host), expected);
}

#[test]
fn the_default_route_of_either_family_is_a_use() {
    let tree = igb();
    tree.file(
        "proc/net/route",
        format!("{ROUTE}eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"),
    );
    let expected = ["the default route leaves through eth0"];
    assert_eq!(uses(&pf(&tree, "0000:01:00.0").in_use_by_host), expected);
    let zero = "0".repeat(32);
    tree.file("proc/net/route", ROUTE);
    tree.file("proc/net/ipv6_route", format!("{zero} 00 {zero} 00 {zero} 00000400 1 0 00000003 eth0\n"));
    assert_eq!(uses(&pf(&tree, "0000:01:00.0").in_use_by_host), expected);
}

#[test]
fn a_bridge_a_bond_or_a_vlan_on_top_is_a_use() {
    let tree = igb();
    let netdev = "0000:01:00.0/net/eth0";
    tree.device_link(&format!("{netdev}/master"), "../../../../virtual/net/br0");
    tree.device_link(&format!("{netdev}/upper_br0"), "../../../../virtual/net/br0");
    tree.device_link(&format!("{netdev}/upper_eth0.7"), "../../../../virtual/net/eth0.7");
    tree.device_link(&format!("{netdev}/brport/bridge"), "../../../../../virtual/net/br0");
    let expected = ["eth0 belongs to br0", "eth0 belongs to eth0.7"];
    assert_eq!(uses(&pf(&tree, "0000:01:00.0").in_use_by_host), expected);
}

#[test]
fn a_vf_that_the_host_uses_is_not_available() {
    let tree = igb();
    with_ipv4(&tree, "eth2");
    let pf = pf(&tree, "0000:01:00.0");
    assert_eq!(uses(&pf.in_use_by_host), [""; 0]);
    assert_eq!(uses(&pf.virtual_functions[1].in_use_by_host), ["eth2 has address 10.0.0.1/24"]);
    assert_eq!(pf.vfs_available, 6);
}

/// The disk of a shared namespace hangs under the NVMe subsystem, not under the controller that leads to it.
#[test]
fn a_mounted_partition_of_a_shared_namespace_is_a_use() {
    let tree = igb_and_nvme();
    tree.file("proc/self/mountinfo", "29 1 259:1 / / rw shared:1 - ext4 /dev/root rw\n");
    tree.file("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme0n1 partition 1000 0 -2\n");
    tree.folder("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p1/holders/dm-0");
    let expected = ["nvme0n1 is used by swap", "nvme0n1p1 is used by /", "nvme0n1p1 is used by dm-0"];
    assert_eq!(uses(&pf(&tree, "0000:02:00.0").in_use_by_host), expected);
}

#[test]
fn a_multi_device_file_system_is_identified_by_its_source() {
    let tree = igb_and_nvme();
    tree.file("proc/self/mountinfo", "29 1 0:27 /@ /srv rw - btrfs /dev/nvme0n1p1 rw\n");
    assert_eq!(uses(&pf(&tree, "0000:02:00.0").in_use_by_host), ["nvme0n1p1 is used by /srv"]);
}

#[test]
fn a_namespace_that_is_not_shared_is_a_disk_of_its_controller() {
    let tree = igb_and_nvme();
    tree.remove("sys/class/block/nvme0n1");
    tree.remove(&tree.device("0000:02:00.0/nvme/nvme0/nvme0c0n1"));
    tree.device_file("0000:02:00.0/nvme/nvme0/nvme0n1/dev", "259:0\n");
    tree.file("proc/self/mountinfo", "29 1 259:0 / /data rw - ext4 /dev/nvme0n1 rw\n");
    assert_eq!(uses(&pf(&tree, "0000:02:00.0").in_use_by_host), ["nvme0n1 is used by /data"]);
}

/// Without the host's tables, 'not in use' would be a guess.
#[test]
fn without_proc_the_use_is_reported_as_unknown() {
    let tree = igb_and_nvme();
    tree.remove("proc");
    for (address, table) in [("0000:01:00.0", "/proc/net/route"), ("0000:02:00.0", "/proc/self/mountinfo")] {
        let reasons = pf(&tree, address).reasons;
        assert!(reasons.iter().any(|reason| reason.required.contains(table)), "{reasons:#?}");
    }
}
