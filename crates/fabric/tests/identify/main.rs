//! Identify, on trees that look like a host's /sys and /proc, intact and damaged.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod broken;
mod conditions;
mod holders;
mod hosts;
mod in_use;
mod tree;

#[path = "../../../pci/tests/config_space/builder.rs"]
mod config_builder;

use hosts::{igb, igb_and_nvme};
use ioward_fabric::{FabricError, linux::HostRoot};
use ioward_model::{Class, HexId, Link, Netdev, NvmeController, NvmeState, Sriov, VfBar};
use tree::Tree;

#[test]
fn an_igb_pf_is_identified_in_full() {
    let inventory = igb().identify();
    assert!(inventory.iommu);
    let [pf] = &inventory.physical_functions[..] else { panic!("{inventory:#?}") };
    assert_eq!(pf.reasons, []);
    assert_eq!(pf.address.to_string(), "0000:01:00.0");
    assert_eq!((pf.vendor_id, pf.device_id, pf.class), (HexId(0x8086), HexId(0x10c9), Class::Network));
    assert_eq!(pf.name, "Intel Corporation 82576 Gigabit Network Connection");
    assert_eq!(pf.driver.as_deref(), Some("igb"));
    assert_eq!((pf.numa_node, pf.iommu_group), (None, Some(7)));
    assert_eq!(pf.serial_number.as_deref(), Some("00-1b-21-ff-ff-12-34-56"));
    assert_eq!(pf.link, Some(Link { speed_mts: 2500, width: 1, max_speed_mts: 5000, max_width: 4 }));
    assert_eq!((pf.msix_vectors, pf.drivers_autoprobe), (Some(10), Some(false)));
    let bar = |index| VfBar { index, is_64bit: true, prefetchable: true, bytes_per_vf: Some(16 << 10) };
    let sriov = Sriov {
        total_vfs: 7,
        initial_vfs: 7,
        num_vfs: 2,
        vf_enable: true,
        first_vf_offset: 128,
        vf_stride: 2,
        vf_device_id: HexId(0x10ca),
        supported_page_sizes: vec![4 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20],
        system_page_size: 4096,
        ari: true,
        function_dependency_link: None,
        vf_bars: vec![bar(0), bar(3)],
    };
    assert_eq!(pf.sriov, Some(sriov), "the driver allows 7 of the hardware's 8");
    let netdev = Netdev {
        name: "eth0".to_owned(),
        ifindex: 2,
        mac: Some("52:54:00:11:11:11".parse().unwrap()),
        permanent_mac: None,
        speed_mbps: Some(1000),
        carrier: Some(true),
        up: true,
        mtu: Some(1500),
    };
    assert_eq!(pf.netdevs, [netdev]);
    assert_eq!((pf.vfs_assigned, pf.vfs_available), (0, 7));
    assert_eq!(pf.in_use_by_host, []);
}

#[test]
fn its_vfs_are_identified_by_index() {
    let inventory = igb().identify();
    let [first, second] = &inventory.physical_functions[0].virtual_functions[..] else {
        panic!("{inventory:#?}")
    };
    assert_eq!((first.index, &*first.address.to_string()), (0, "0000:01:10.0"));
    assert_eq!((second.index, &*second.address.to_string()), (1, "0000:01:10.2"));
    assert_eq!((first.driver.as_deref(), second.driver.as_deref()), (Some("vfio-pci"), Some("igbvf")));
    assert_eq!((first.iommu_group, second.iommu_group), (Some(10), Some(11)));
    let shared = second.iommu_group_shared_with.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(shared, ["0000:00:1f.2"], "the root port in the group is a bridge and does not count");
    assert_eq!((first.msix_vectors, second.msix_vectors), (Some(3), Some(3)));
    assert_eq!((&first.netdevs[..], &second.netdevs[..]), (&[][..], &["eth2".to_owned()][..]));
    assert_eq!((&first.reasons, &second.reasons), (&vec![], &vec![]));
}

#[test]
fn an_nvme_pf_has_its_controller() {
    let inventory = igb_and_nvme().identify();
    let pf = inventory.physical_function("0000:02:00.0".parse().unwrap()).unwrap();
    assert_eq!(pf.reasons, []);
    assert_eq!((pf.class, pf.total_vfs(), pf.num_vfs(), pf.vfs_available), (Class::Nvme, 4, 0, 4));
    assert_eq!(pf.name, "1b36:0010", "it is not in this host's pci.ids");
    let controller = NvmeController {
        name: "nvme0".to_owned(),
        serial: Some("lab0".to_owned()),
        model: Some("QEMU NVMe Ctrl".to_owned()),
        state: None,
        namespaces: vec!["nvme0n1".to_owned()],
        resources: None,
        secondaries: Vec::new(),
    };
    assert_eq!(pf.nvme, Some(controller));
    let bar = VfBar { index: 0, is_64bit: true, prefetchable: false, bytes_per_vf: Some(16 << 10) };
    assert_eq!(pf.sriov.as_ref().unwrap().vf_bars, [bar]);
}

#[test]
fn the_state_of_an_nvme_controller_is_one_that_is_known_or_none() {
    let tree = igb_and_nvme();
    let controller = tree.device("0000:02:00.0/nvme/nvme0");
    let mut states = Vec::new();
    for word in ["live\n", "deleting (no IO)\n", "dead\n", "on fire\n"] {
        tree.file(&format!("{controller}/state"), word);
        let inventory = tree.identify();
        let pf = inventory.physical_function("0000:02:00.0".parse().unwrap()).unwrap();
        assert_eq!(pf.reasons, [], "{word}");
        states.push(pf.nvme.as_ref().unwrap().state);
    }
    assert_eq!(states, [Some(NvmeState::Live), Some(NvmeState::Deleting), Some(NvmeState::Dead), None]);
}

#[test]
fn only_pfs_are_listed_and_by_address() {
    let inventory = igb_and_nvme().identify();
    let addresses: Vec<String> =
        inventory.physical_functions.iter().map(|pf| pf.address.to_string()).collect();
    assert_eq!(addresses, ["0000:01:00.0", "0000:02:00.0"]);
}

/// An interface that is down answers EINVAL for `carrier` and `speed`, which is not a problem.
#[test]
fn an_interface_that_is_down_has_no_speed_and_no_carrier() {
    let tree = igb();
    let netdev = "0000:01:00.0/net/eth0";
    tree.device_file(&format!("{netdev}/flags"), "0x1002\n").device_file(&format!("{netdev}/speed"), "-1\n");
    tree.remove(&tree.device(&format!("{netdev}/carrier")));
    let inventory = tree.identify();
    let pf = &inventory.physical_functions[0];
    let netdev = &pf.netdevs[0];
    assert_eq!((netdev.up, netdev.carrier, netdev.speed_mbps), (false, None, None));
    assert_eq!(pf.reasons, []);
}

#[test]
fn an_unprivileged_reader_gets_the_attributes_and_a_reason() {
    let tree = igb();
    for function in ["0000:01:00.0", "0000:01:10.0", "0000:01:10.2"] {
        tree.cut_config(function, 64);
    }
    let inventory = tree.identify();
    let pf = &inventory.physical_functions[0];
    let sriov = pf.sriov.as_ref().unwrap();
    assert_eq!((sriov.total_vfs, sriov.num_vfs, sriov.vf_enable), (7, 2, true));
    assert_eq!((sriov.first_vf_offset, sriov.vf_stride, sriov.vf_device_id), (128, 2, HexId(0x10ca)));
    assert_eq!(
        sriov.vf_bars.iter().map(|bar| (bar.index, bar.bytes_per_vf)).collect::<Vec<_>>(),
        [(0, None), (3, None)]
    );
    let link = Link { speed_mts: 2500, width: 1, max_speed_mts: 5000, max_width: 4 };
    assert_eq!((pf.msix_vectors, &pf.serial_number, pf.link.clone()), (None, &None, Some(link)));
    let [reason] = &pf.reasons[..] else { panic!("{:#?}", pf.reasons) };
    assert!(reason.found.contains("first 64 bytes"), "{reason}");
    assert_eq!(reason.remedy, "root may read all of it");
    assert!(pf.virtual_functions.iter().all(|vf| vf.reasons.is_empty()), "said once, for the PF");
}

/// tar and cpio believe sysfs that a file has 4096 bytes, and pad it with zeros.
#[test]
fn zeros_after_an_attribute_are_ignored() {
    let tree = igb();
    let baseline = tree.identify();
    let mut padded = b"0x8086\n".to_vec();
    padded.resize(4096, 0);
    tree.device_file("0000:01:00.0/vendor", padded);
    assert_eq!(tree.identify(), baseline);
}

#[test]
fn a_host_without_an_iommu_has_no_groups() {
    let tree = igb();
    tree.remove("sys/kernel/iommu_groups");
    tree.remove(&tree.device("0000:01:00.0/iommu_group"));
    let inventory = tree.identify();
    assert!(!inventory.iommu);
    assert_eq!(inventory.physical_functions[0].iommu_group, None);
}

#[test]
fn a_tree_without_a_host_is_an_error_that_names_the_missing_folder() {
    let tree = Tree::new();
    let error = ioward_fabric::linux::identify(&tree.root()).unwrap_err();
    assert!(error.to_string().ends_with("sys/bus/pci/devices"), "{error}");
    let missing = HostRoot::open("/no/such/folder".as_ref()).unwrap_err();
    assert!(matches!(missing, FabricError::Read { .. }));
}

#[test]
fn the_documented_example_is_an_inventory() {
    let page = include_str!("../../../../docs/inventory.md");
    let (_, example) = page.split_once("## Example").unwrap();
    let inventory: ioward_model::Inventory = serde_json::from_str(example).unwrap();
    assert_eq!(
        inventory.physical_functions[0].virtual_functions[0].owner.as_ref().unwrap().to_string(),
        "web/net0"
    );
}
