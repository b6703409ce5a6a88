//! Whatever is wrong with one function, it is shown with its readable facts and a Reason, and the other one is
//! shown as if nothing were wrong.

use std::{fs, hint::spin_loop, os::unix::fs::symlink, thread};

use ioward_model::{PhysicalFunction, Rule};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::{
    config_builder::Builder,
    hosts::{igb, igb_and_nvme},
    tree::Tree,
};

const IGB: &str = "0000:01:00.0";
const NVME: &str = "0000:02:00.0";

/// The igb PF after damage; the NVMe PF must be unaffected.
fn broken(tree: &Tree) -> PhysicalFunction {
    let whole = igb_and_nvme().identify();
    let inventory = tree.identify();
    let nvme = NVME.parse().unwrap();
    assert_eq!(inventory.physical_function(nvme), whole.physical_function(nvme), "something else suffered");
    let pf = inventory.physical_function(IGB.parse().unwrap()).unwrap();
    assert!(
        pf.reasons.iter().all(|reason| reason.rule == Rule::Readable && reason.function == Some(pf.address))
    );
    pf.clone()
}

fn found(pf: &PhysicalFunction) -> String {
    pf.reasons.iter().map(|reason| format!("{reason}\n")).collect()
}

#[test]
fn a_list_that_loops_after_the_capability_only_adds_a_reason() {
    let tree = igb_and_nvme();
    tree.patch_config(IGB, 0x162, &0x1001_u16.to_le_bytes());
    let pf = broken(&tree);
    assert_eq!(pf.total_vfs(), 7);
    assert!(found(&pf).contains("loops: the capability at 0x160 points back to 0x100"), "{}", found(&pf));
}

#[test]
fn a_list_that_loops_before_the_capability_leaves_the_attributes() {
    let tree = igb_and_nvme();
    tree.patch_config(IGB, 0x142, &0x1001_u16.to_le_bytes());
    let pf = broken(&tree);
    let sriov = pf.sriov.as_ref().unwrap();
    assert_eq!((sriov.total_vfs, sriov.num_vfs, sriov.first_vf_offset), (7, 2, 128));
    assert_eq!(pf.virtual_functions.len(), 2);
    assert!(found(&pf).contains("loops"), "{}", found(&pf));
}

#[test]
fn a_function_with_a_broken_list_is_shown_without_the_capability() {
    let tree = igb_and_nvme();
    // On to 0x040, where no extended capability can be.
    tree.patch_config(IGB, 0x142, &0x0401_u16.to_le_bytes());
    without_attributes(&tree);
    let pf = broken(&tree);
    assert_eq!((pf.sriov.as_ref(), pf.vfs_available), (None, 0));
    assert!(found(&pf).contains("points into the header"), "{}", found(&pf));
}

/// A host bridge, 1002:7911, was called an unreadable SR-IOV adapter (pciutils, tests/broken-ecaps). A list that
/// ends in a loop has been read as far as it is reachable.
#[test]
fn a_function_whose_list_loops_without_the_capability_is_not_an_adapter() {
    let tree = igb_and_nvme();
    tree.patch_config(IGB, 0x142, &0x1001_u16.to_le_bytes());
    without_attributes(&tree);
    assert_eq!(tree.identify().physical_function(IGB.parse().unwrap()), None);
}

/// The kernel sees no SR-IOV in this function.
fn without_attributes(tree: &Tree) {
    for entry in fs::read_dir(tree.at(&tree.device(IGB))).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("sriov_") || name.starts_with("virtfn") {
            tree.remove(&tree.device(&format!("{IGB}/{name}")));
        }
    }
}

#[test]
fn configuration_space_cut_off_anywhere_still_gives_the_vf_count() {
    let tree = igb_and_nvme();
    let path = tree.at(&tree.device(&format!("{IGB}/config")));
    let whole = fs::read(&path).unwrap();
    // Up to the end of VF BAR5, the last register of the last capability read.
    for length in 0..0x160 + 0x3c {
        fs::write(&path, &whole[..length]).unwrap();
        let inventory = tree.identify();
        let pf = inventory.physical_function(IGB.parse().unwrap()).unwrap();
        assert_eq!((pf.total_vfs(), pf.num_vfs(), pf.virtual_functions.len()), (7, 2, 2), "{length:#x}");
        assert!(!pf.reasons.is_empty(), "{length:#x}");
    }
}

#[test]
fn a_function_that_reads_as_ones_is_shown_from_the_attributes() {
    let tree = igb_and_nvme();
    tree.device_file(&format!("{IGB}/config"), [0xff; 4096]);
    let pf = broken(&tree);
    assert_eq!((pf.vendor_id.to_string(), pf.total_vfs()), ("8086".to_owned(), 7));
    assert!(found(&pf).contains("does not answer"), "{}", found(&pf));
}

#[test]
fn each_attribute_may_be_missing() {
    let names =
        ["vendor", "device", "class", "config", "resource", "sriov_totalvfs", "sriov_drivers_autoprobe"];
    let of_netdev = ["net/eth0/ifindex", "net/eth0/address", "net/eth0/flags", "net/eth0/mtu"];
    for name in names.into_iter().chain(of_netdev) {
        let tree = igb_and_nvme();
        tree.remove(&tree.device(&format!("{IGB}/{name}")));
        let pf = broken(&tree);
        assert!(found(&pf).contains(&format!("{IGB}/{name}")), "{name}: {}", found(&pf));
        assert!(pf.sriov.is_some() && pf.netdevs.len() == 1, "{name}");
        assert_eq!(pf.vendor_id.to_string(), "8086", "configuration space has it too");
    }
}

#[test]
fn each_attribute_may_hold_garbage() {
    let garbage: [&[u8]; 5] =
        [b"", b"\xff\xfe\x00\x01", b"\x1b[2Jevil", b"99999999999999999999", &[b'1'; 70_000]];
    for name in [
        "vendor",
        "class",
        "numa_node",
        "resource",
        "sriov_totalvfs",
        "sriov_drivers_autoprobe",
        "net/eth0/mtu",
    ] {
        for bytes in garbage {
            let tree = igb_and_nvme();
            tree.device_file(&format!("{IGB}/{name}"), bytes);
            let pf = broken(&tree);
            assert!(found(&pf).contains(&format!("{IGB}/{name}")), "{name}: {}", found(&pf));
            assert!(!serde_json::to_string(&pf).unwrap().contains("u001b"), "{name}");
        }
    }
}

/// Opening a FIFO waits for its writer, and reading a folder as a file fails late: both must end at once.
#[test]
fn an_attribute_that_is_not_a_file_is_noted_at_once() {
    let fifo = igb_and_nvme();
    fifo.remove(&fifo.device(&format!("{IGB}/vendor")));
    let path = fifo.at(&fifo.device(&format!("{IGB}/vendor")));
    mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    assert!(found(&broken(&fifo)).contains("no regular file"));

    let folder = igb_and_nvme();
    folder.remove(&folder.device(&format!("{IGB}/vendor")));
    folder.folder(&folder.device(&format!("{IGB}/vendor")));
    assert!(found(&broken(&folder)).contains("no regular file"));
}

#[test]
fn an_oversized_configuration_space_is_not_read() {
    let tree = igb_and_nvme();
    tree.device_file(&format!("{IGB}/config"), vec![0; 1 << 20]);
    assert!(found(&broken(&tree)).contains("more than 4096 bytes"));
}

#[test]
fn a_symlink_cannot_lead_out_of_the_tree() {
    let outside = Tree::new();
    outside.file("secret", "0xdead\n");
    let outside = outside.at("secret");
    for target in [outside.to_str().unwrap().to_owned(), format!("{}{}", "../".repeat(30), outside.display())]
    {
        let tree = igb_and_nvme();
        tree.device_link(&format!("{IGB}/vendor"), &target);
        let pf = broken(&tree);
        assert_eq!(pf.vendor_id.to_string(), "8086", "from configuration space");
        assert!(found(&pf).contains("vendor"), "{}", found(&pf));
    }
}

#[test]
fn a_function_that_links_out_of_the_tree_is_ignored() {
    let (tree, other) = (igb_and_nvme(), igb());
    let link = tree.at("sys/bus/pci/devices/0000:05:00.0");
    symlink(other.at(&other.device(IGB)), link).unwrap();
    tree.link("sys/bus/pci/devices/0000:06:00.0", "../nowhere")
        .file("sys/bus/pci/devices/not-a-function", "");
    assert_eq!(tree.identify(), igb_and_nvme().identify());
}

#[test]
fn invalid_links_are_noted() {
    for (link, target) in
        [("driver", "/"), ("iommu_group", "/etc/passwd"), ("driver", "a/.."), ("driver", "x/\x1b[31m")]
    {
        let tree = igb_and_nvme();
        tree.device_link(&format!("{IGB}/{link}"), target);
        let pf = broken(&tree);
        assert!(found(&pf).contains(&format!("{IGB}/{link}")), "{target}: {}", found(&pf));
    }
}

#[test]
fn vf_links_with_impossible_numbers_are_noted_and_left_out() {
    for name in ["virtfn99999", "virtfn7", "virtfn01", "virtfn-1", "virtfn", "virtfnx"] {
        let tree = igb_and_nvme();
        tree.device_link(&format!("{IGB}/{name}"), "../0000:01:10.4");
        let pf = broken(&tree);
        assert!(found(&pf).contains(&format!("'{name}'")), "{}", found(&pf));
        assert_eq!(pf.virtual_functions.len(), 2, "{name}");
    }
}

#[test]
fn a_vf_link_to_something_else_is_noted_and_left_out() {
    let tree = igb_and_nvme();
    tree.device_link(&format!("{IGB}/virtfn1"), "/etc/passwd");
    let pf = broken(&tree);
    assert!(found(&pf).contains("found 'passwd'"), "{}", found(&pf));
    assert!(found(&pf).contains("2 VFs, which is NumVFs"), "{}", found(&pf));
    assert_eq!(pf.virtual_functions.len(), 1);
}

/// k8snetworkplumbingwg/sriov-cni#349: a VF disappears from every visible namespace; one that is removed during the
/// read looks the same.
#[test]
fn a_vf_that_is_gone_is_shown_with_a_reason_of_its_own() {
    let tree = igb_and_nvme();
    tree.remove("sys/bus/pci/devices/0000:01:10.2");
    let pf = broken(&tree);
    let vf = pf.virtual_function(1).unwrap();
    assert_eq!((vf.address.to_string(), &vf.driver), ("0000:01:10.2".to_owned(), &None));
    assert!(vf.reasons[0].found.contains("vanished"), "{:#?}", vf.reasons);
    assert_eq!(pf.virtual_function(0).unwrap().reasons, []);
}

/// Hot-unplug does not wait for a look to end: the function disappears between any two of its attributes.
#[test]
fn a_function_that_disappears_during_the_read_is_noted_or_left_out() {
    let tree = igb_and_nvme();
    let whole = tree.identify();
    let (igb, nvme) = (IGB.parse().unwrap(), NVME.parse().unwrap());
    let (here, gone) = (tree.at(&tree.device(IGB)), tree.at("unplugged"));
    for moment in 0..300 {
        let inventory = thread::scope(|scope| {
            scope.spawn(|| {
                (0..moment * 20).for_each(|_| spin_loop());
                fs::rename(&here, &gone).unwrap();
            });
            tree.identify()
        });
        fs::rename(&gone, &here).unwrap();
        assert_eq!(
            inventory.physical_function(nvme),
            whole.physical_function(nvme),
            "something else suffered"
        );
        let found = inventory.physical_function(igb);
        let noted = |pf: &PhysicalFunction| pf.reasons.iter().any(|reason| reason.found.contains("vanished"));
        assert!(found.is_none_or(|pf| noted(pf) || Some(pf) == whole.physical_function(igb)), "{found:#?}");
    }
}

#[test]
fn a_vf_link_to_somebody_elses_function_is_noted_on_it() {
    let tree = igb_and_nvme();
    tree.device_link(&format!("{IGB}/virtfn0"), "../0000:00:1f.2");
    let pf = broken(&tree);
    assert!(pf.virtual_functions[0].reasons[0].found.contains("no VF"), "{:#?}", pf.virtual_functions[0]);
}

#[test]
fn numbers_that_contradict_each_other_are_noted() {
    let tree = igb_and_nvme();
    tree.patch_config(IGB, 0x170, &u16::MAX.to_le_bytes());
    let pf = broken(&tree);
    assert!(found(&pf).contains("NumVFs 65535, TotalVFs 8"), "{}", found(&pf));
    tree.patch_config(IGB, 0x16c, &[0; 4]);
    assert!(found(&broken(&tree)).contains("VF BAR 0"), "no VF at all has no BAR size");
}

/// Address space runs out silently, like MSI-X (openshift/sriov-network-operator#1185): a VF BAR without address
/// space can never be enabled.
#[test]
fn a_vf_bar_without_address_space_has_a_remedy() {
    let tree = igb_and_nvme();
    tree.device_file(&format!("{IGB}/resource"), "0x0 0x0 0x0\n".repeat(13));
    let pf = broken(&tree);
    assert!(pf.reasons[0].remedy.contains("Above 4G"), "{}", found(&pf));
    assert_eq!(
        pf.sriov.unwrap().vf_bars.iter().map(|bar| bar.bytes_per_vf).collect::<Vec<_>>(),
        [None, None]
    );
}

#[test]
fn a_broken_function_that_is_not_a_pf_is_ignored() {
    let tree = igb_and_nvme();
    tree.function("0000:09:00.0", &[]).function("0000:09:00.1", &[0xff; 4096]);
    tree.function("0000:09:00.2", &Builder::new(1, 1).u16(6, 0x10).u8(0x34, 0x41).bytes(256));
    assert_eq!(tree.identify(), igb_and_nvme().identify());
}
