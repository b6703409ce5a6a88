//! Two hosts: one with an igb PF, and one with an NVMe PF besides. Values as in the lab.

use crate::{config_builder::Builder, tree::Tree};

/// An igb PF with 2 of 7 VFs, the first for a guest and the second with its driver, and some other functions.
pub fn igb() -> Tree {
    let tree = Tree::new();
    tree.file(
        "proc/net/route",
        "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n",
    );
    tree.file("proc/net/fib_trie", "").file("proc/net/if_inet6", "").file("proc/net/ipv6_route", "");
    tree.file("proc/self/mountinfo", "").file("proc/swaps", "Filename Type Size Used Priority\n");
    tree.file(
        "usr/share/misc/pci.ids",
        "8086  Intel Corporation\n\t10c9  82576 Gigabit Network Connection\n\t10ca  82576 Virtual Function\n",
    );

    let pf = "0000:01:00.0";
    tree.function(pf, &igb_config());
    attributes(
        &tree,
        pf,
        &[("vendor", "0x8086"), ("device", "0x10c9"), ("class", "0x020000"), ("numa_node", "-1")],
    );
    attributes(
        &tree,
        pf,
        &[("sriov_totalvfs", "7"), ("sriov_numvfs", "2"), ("sriov_drivers_autoprobe", "0")],
    );
    attributes(&tree, pf, &[("sriov_offset", "128"), ("sriov_stride", "2"), ("sriov_vf_device", "10ca")]);
    attributes(&tree, pf, &[("current_link_speed", "2.5 GT/s PCIe"), ("max_link_speed", "5.0 GT/s PCIe")]);
    attributes(&tree, pf, &[("current_link_width", "1"), ("max_link_width", "4")]);
    attributes(
        &tree,
        pf,
        &[("resource", &resource(&[(0, 0x1_ffff, 0x0014_220c), (3, 0x1_ffff, 0x0014_220c)]))],
    );
    tree.device_link(&format!("{pf}/driver"), "../../../bus/pci/drivers/igb").group(pf, 7);
    netdev(&tree, pf, "eth0", 2, "52:54:00:11:11:11");

    for (index, address, driver) in [(0, "0000:01:10.0", "vfio-pci"), (1, "0000:01:10.2", "igbvf")] {
        let config = Builder::new(0xffff, 0xffff).capability(0x70, 0x11, &[2, 0]).bytes(4096);
        tree.function(address, &config).group(address, 10 + index);
        tree.device_link(&format!("{pf}/virtfn{index}"), &format!("../{address}"));
        tree.device_link(&format!("{address}/physfn"), &format!("../{pf}"));
        tree.device_link(&format!("{address}/driver"), &format!("../../../bus/pci/drivers/{driver}"));
        attributes(&tree, address, &[("class", "0x020000")]);
    }
    netdev(&tree, "0000:01:10.2", "eth2", 4, "52:54:00:33:33:33");

    // A disk controller and the root port above, both in the second VF's group.
    for (address, class) in [("0000:00:1f.2", "0x010601"), ("0000:00:03.0", "0x060400")] {
        tree.function(address, &Builder::new(0x8086, 0x2922).bytes(256)).group(address, 11);
        attributes(&tree, address, &[("class", class)]);
    }
    tree
}

/// The same, and an NVMe PF with up to 4 VFs and a shared namespace.
pub fn igb_and_nvme() -> Tree {
    let tree = igb();
    let pf = "0000:02:00.0";
    let registers =
        [(0x0c, 0x0004_0004), (0x14, 0x0001_0001), (0x18, 0x0010_0000), (0x1c, 0x553), (0x20, 1), (0x24, 4)];
    let config = Builder::new(0x1b36, 0x0010)
        .capability(0x40, 0x11, &[4, 0])
        .extended(0x100, 0x000e, &[0; 4])
        .extended(0x120, 0x0010, &Builder::sriov_body(&registers))
        .bytes(4096);
    tree.function(pf, &config);
    attributes(
        &tree,
        pf,
        &[("vendor", "0x1b36"), ("device", "0x0010"), ("class", "0x010802"), ("numa_node", "0")],
    );
    attributes(
        &tree,
        pf,
        &[("sriov_totalvfs", "4"), ("sriov_numvfs", "0"), ("sriov_drivers_autoprobe", "1")],
    );
    attributes(&tree, pf, &[("resource", &resource(&[(0, 0xffff, 0x0014_0204)]))]);
    tree.device_link(&format!("{pf}/driver"), "../../../bus/pci/drivers/nvme").group(pf, 8);

    let controller = format!("{pf}/nvme/nvme0");
    attributes(&tree, &controller, &[("serial", "lab0                "), ("model", "QEMU NVMe Ctrl     ")]);
    tree.folder(&tree.device(&format!("{controller}/nvme0c0n1")))
        .folder(&tree.device(&format!("{controller}/hwmon0")));
    let disk = "sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1";
    tree.file(&format!("{disk}/dev"), "259:0\n").folder(&format!("{disk}/holders"));
    tree.file(&format!("{disk}/nvme0n1p1/dev"), "259:1\n").folder(&format!("{disk}/nvme0n1p1/holders"));
    tree.link("sys/class/block/nvme0n1", "../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1");
    tree
}

fn igb_config() -> Vec<u8> {
    let mut express = [0; 0x12];
    express[0x0a..0x0c].copy_from_slice(&0x0042_u16.to_le_bytes());
    express[0x10..0x12].copy_from_slice(&0x0011_u16.to_le_bytes());
    let sriov = Builder::sriov_body(&[
        (0x04, 0x0000_0002),
        (0x08, 0x0000_0019),
        (0x0c, 0x0008_0008),
        (0x10, 0x0000_0002),
        (0x14, 0x0002_0080),
        (0x18, 0x10ca_0000),
        (0x1c, 0x0000_0553),
        (0x20, 0x0000_0001),
        (0x24, 0xfe80_000c),
        (0x30, 0xfe82_000c),
    ]);
    Builder::new(0x8086, 0x10c9)
        .u8(0x0b, 0x02)
        .u16(0x2c, 0x8086)
        .u32(0x10, 0xfe00_0000)
        .capability(0x70, 0x11, &[9, 0x80])
        .capability(0xa0, 0x10, &express)
        .extended(0x100, 0x0001, &[0; 4])
        .extended(0x140, 0x0003, &0x001b_21ff_ff12_3456_u64.to_le_bytes())
        .extended(0x160, 0x0010, &sriov)
        .bytes(4096)
}

/// The text of `resource` with these VF BARs and their addresses: number, last byte from 0, flags.
pub fn resource(vf_bars: &[(usize, u64, u64)]) -> String {
    let mut lines = vec![(0, 0, 0); 13];
    for (index, end, flags) in vf_bars {
        let start = 0xfe00_0000 + ((*index as u64) << 20);
        lines[7 + index] = (start, start + end, *flags);
    }
    lines.iter().map(|(start, end, flags)| format!("{start:#018x} {end:#018x} {flags:#018x}\n")).collect()
}

pub fn netdev(tree: &Tree, function: &str, name: &str, ifindex: u32, mac: &str) {
    let folder = format!("{function}/net/{name}");
    attributes(tree, &folder, &[("ifindex", &ifindex.to_string()), ("address", mac), ("flags", "0x1003")]);
    attributes(tree, &folder, &[("mtu", "1500"), ("carrier", "1"), ("speed", "1000")]);
}

fn attributes(tree: &Tree, folder: &str, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        tree.device_file(&format!("{folder}/{name}"), format!("{value}\n"));
    }
}
