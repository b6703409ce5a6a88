//! The lab's level 1, recorded twice: a real kernel's SR-IOV, without the lab.

use ioward_fabric::linux::Snapshot;
use ioward_model::{Capability, Class, HostUse, Inventory, Vlan};
use serde_json::Value;

const PRISTINE: &[u8] = include_bytes!("../../../../tests/data/lab-pristine.snapshot.json");
const WITH_VFS: &[u8] = include_bytes!("../../../../tests/data/lab-vfs.snapshot.json");

fn replay(bytes: &[u8]) -> Inventory {
    Snapshot::parse(bytes).unwrap().identify().unwrap()
}

#[test]
fn there_are_three_pfs_with_7_4_and_7_vfs() {
    for bytes in [PRISTINE, WITH_VFS] {
        let host = replay(bytes);
        assert!(host.iommu);
        let pfs: Vec<_> = host
            .physical_functions
            .iter()
            .map(|pf| {
                (pf.address.to_string(), pf.class, pf.driver.clone().unwrap_or_default(), pf.total_vfs())
            })
            .collect();
        let expected = [
            ("0000:01:00.0", Class::Network, "igb", 7),
            ("0000:02:00.0", Class::Nvme, "nvme", 4),
            ("0000:03:00.0", Class::Network, "igb", 7),
        ];
        let expected =
            expected.map(|(address, class, driver, vfs)| (address.to_owned(), class, driver.to_owned(), vfs));
        assert_eq!(pfs, expected);
        assert!(host.physical_functions.iter().all(|pf| pf.reasons.is_empty()));
    }
}

/// The planner takes the features from here.
#[test]
fn each_pf_has_an_id_and_the_features_of_its_driver() {
    let (before, after) = (replay(PRISTINE), replay(WITH_VFS));
    let ids = |host: &Inventory| -> Vec<_> {
        host.physical_functions.iter().map(|pf| pf.id.clone().unwrap().to_string()).collect()
    };
    assert!(ids(&before)[1].starts_with("1b36-0010-nvme-"), "{:?}", ids(&before));
    assert!(ids(&before)[0].starts_with("8086-10c9-"), "{:?}", ids(&before));
    assert_eq!(ids(&after).iter().collect::<std::collections::BTreeSet<_>>().len(), 3, "each its own");
    use Capability::{RateLimit, Spoofchk, Trust, Vlan as Tag};
    let can: Vec<_> = before.physical_functions.iter().map(|pf| pf.capabilities.clone().unwrap()).collect();
    assert_eq!(
        can,
        [[RateLimit, Spoofchk, Tag, Trust].into(), [].into(), [RateLimit, Spoofchk, Tag, Trust].into()]
    );
}

#[test]
fn the_pristine_one_has_no_vfs_and_an_interface_in_use() {
    let host = replay(PRISTINE);
    assert!(host.physical_functions.iter().all(|pf| pf.num_vfs() == 0 && pf.virtual_functions.is_empty()));
    let nic = &host.physical_functions[0];
    assert_eq!(nic.name, "Intel Corporation 82576 Gigabit Network Connection");
    let sriov = nic.sriov.as_ref().unwrap();
    assert_eq!((sriov.first_vf_offset, sriov.vf_stride, sriov.vf_device_id.0), (128, 2, 0x10ca));
    assert_eq!(nic.netdevs[0].mac.unwrap().to_string(), "02:00:00:00:00:01");
    assert_eq!(nic.netdevs[0].permanent_mac, nic.netdevs[0].mac, "told by the driver, and still the same");
    let used = HostUse::Address { netdev: "eth0".to_owned(), address: "10.0.0.64/24".to_owned() };
    assert_eq!(nic.in_use_by_host, [used]);
}

#[test]
fn the_other_one_has_vfs_with_settings() {
    let host = replay(WITH_VFS);
    let [nic, disk, other] = &host.physical_functions[..] else { panic!("{host:#?}") };
    let vfs: Vec<_> =
        nic.virtual_functions.iter().map(|vf| (vf.address.to_string(), vf.driver.as_deref())).collect();
    let none = |address: &str| (address.to_owned(), None);
    let first = ("0000:01:10.0".to_owned(), Some("vfio-pci"));
    assert_eq!(vfs, [first, none("0000:01:10.2"), none("0000:01:10.4"), none("0000:01:10.6")]);
    let settings = &nic.virtual_functions[0].settings;
    assert_eq!((settings.vlan, settings.spoofchk), (Vlan::new(7), Some(true)));
    assert!(settings.mac.unwrap().is_unicast());
    assert_eq!(other.num_vfs(), 0);
    let controller = disk.nvme.as_ref().unwrap();
    assert_eq!(controller.resources.unwrap().queues_assigned, 2);
    let secondary = controller.secondaries[0];
    assert_eq!((secondary.index, secondary.queues, secondary.interrupts, secondary.online), (0, 2, 1, false));
    let used = HostUse::BlockDevice { device: "nvme0n1".to_owned(), used_by: "/run/disk".to_owned() };
    assert_eq!(disk.in_use_by_host, [used]);
}

/// The daemon's output in the lab a moment earlier, except for the generation and masked fields.
#[test]
fn a_replay_is_what_the_live_lab_printed() {
    for (snapshot, printed) in [
        (PRISTINE, include_str!("../../../../tests/data/lab-pristine.host.json")),
        (WITH_VFS, include_str!("../../../../tests/data/lab-vfs.host.json")),
    ] {
        let mut printed: Value = serde_json::from_str(printed).unwrap();
        let mut replayed = serde_json::to_value(replay(snapshot)).unwrap();
        let masked = [blank(&mut printed), blank(&mut replayed)];
        assert_eq!(masked[0], masked[1]);
        assert!(masked[0] >= 6, "only {} fields were masked", masked[0]);
        assert_eq!(replayed, printed);
    }
}

/// Empties the generation and the masked fields; returns the number of masked fields.
fn blank(value: &mut Value) -> usize {
    match value {
        Value::Object(fields) => {
            let is_use = fields.contains_key("use");
            let mut blanked = 0;
            for (name, value) in fields {
                let masked =
                    matches!(name.as_str(), "id" | "mac" | "permanent_mac" | "serial" | "serial_number")
                        || is_use && name == "address";
                if name == "generation" {
                    *value = Value::Null;
                } else if masked && value.is_string() {
                    *value = Value::from("masked");
                    blanked += 1;
                } else {
                    blanked += blank(value);
                }
            }
            blanked
        }
        Value::Array(values) => values.iter_mut().map(blank).sum(),
        _ => 0,
    }
}
