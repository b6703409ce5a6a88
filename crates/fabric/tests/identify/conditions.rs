//! Obstacles to VFs that are visible beforehand: each condition is a fact in the inventory.

use ioward_model::{Conditions, PhysicalFunction};

use crate::{config_builder::Builder, hosts::igb, tree::Tree};

const PF: &str = "0000:01:00.0";
const PORT: &str = "0000:00:1c.0";

fn pf(tree: &Tree) -> PhysicalFunction {
    tree.identify().physical_function(PF.parse().unwrap()).unwrap().clone()
}

/// A root port above the adapter, with these buses below it, in this IOMMU group.
fn with_port(tree: &Tree, secondary: u8, subordinate: u8, group: u32) {
    let mut config = Builder::new(0x8086, 0x1901).bytes(256);
    config[0x19..=0x1a].copy_from_slice(&[secondary, subordinate]);
    tree.function(PORT, &config).group(PORT, group);
    tree.device_file(&format!("{PORT}/class"), "0x060400\n");
}

fn resource(start: u64, end: u64, flags: u64) -> String {
    let none = format!("{0:#018x} {0:#018x} {0:#018x}\n", 0);
    [none.repeat(7), format!("{start:#018x} {end:#018x} {flags:#018x}\n"), none.repeat(5)].concat()
}

#[test]
fn a_sound_adapter_has_no_conditions() {
    assert_eq!(pf(&igb()).conditions, Conditions::default());
}

/// Lines of zeros were noted, and those marked as unset by the kernel (IORESOURCE_UNSET) were taken for address
/// space.
#[test]
fn vf_bars_without_an_address_have_neither_space_nor_size() {
    for unplaced in [resource(0, 0, 0), resource(0, 0x1_ffff, 0x2014_220c), resource(0, 0x1_ffff, 0x14_220c)]
    {
        let tree = igb();
        tree.device_file(&format!("{PF}/resource"), unplaced);
        let pf = pf(&tree);
        let bars = &pf.conditions.bars_without_room;
        assert!(bars.contains(&0), "{:?}", pf.conditions);
        assert_eq!(pf.sriov.as_ref().unwrap().vf_bars[0].bytes_per_vf, None);
        assert!(pf.reasons.iter().any(|reason| reason.required == "address space for VF BAR 0"));
        assert_eq!(pf.vfs_available, 0);
    }
}

#[test]
fn unprivileged_readers_see_which_vf_bars_have_no_space() {
    let tree = igb();
    tree.cut_config(PF, 64);
    tree.device_file(&format!("{PF}/resource"), resource(0, 0x1_ffff, 0x2014_220c));
    assert_eq!(pf(&tree).conditions.bars_without_room, [0]);
}

/// The group of a future VF is that of the first port without ACS (`pci_device_group`); it is the PF's own if the
/// PF is in the port's group.
#[test]
fn a_port_in_the_group_of_the_adapter_is_named() {
    let tree = igb();
    with_port(&tree, 1, 1, 7);
    assert_eq!(pf(&tree).conditions.port_in_group, Some(PORT.parse().unwrap()));
    let tree = igb();
    with_port(&tree, 1, 1, 3);
    assert_eq!(pf(&tree).conditions.port_in_group, None, "a group of its own: the port has ACS");
    let tree = igb();
    with_port(&tree, 2, 5, 7);
    assert_eq!(pf(&tree).conditions.port_in_group, None, "it is not above the adapter");
}

#[test]
fn the_last_bus_below_the_port_is_known() {
    let tree = igb();
    with_port(&tree, 1, 2, 3);
    assert_eq!(pf(&tree).conditions.last_bus, Some(2));
    tree.device_file(&format!("{PORT}/subordinate_bus_number"), "4\n");
    tree.device_file(&format!("{PORT}/secondary_bus_number"), "1\n");
    assert_eq!(pf(&tree).conditions.last_bus, Some(4), "the kernel's word counts");
}

#[test]
fn a_sleeping_adapter_is_reported() {
    let tree = igb();
    let with = |state: &str| {
        tree.device_file(&format!("{PF}/power_state"), format!("{state}\n"));
        pf(&tree).conditions.power_state
    };
    assert_eq!(with("D3hot").as_deref(), Some("D3hot"));
    assert_eq!((with("D0"), with("unknown")), (None, None));
}

#[test]
fn a_kernel_without_sriov_shows_no_numvfs() {
    let tree = igb();
    tree.remove(&tree.device(&format!("{PF}/sriov_numvfs")));
    assert!(pf(&tree).conditions.no_numvfs);
}

#[test]
fn initial_vfs_that_differ_from_total_vfs_are_reported() {
    let tree = igb();
    let offset = (0x100..0x1000).step_by(4).find(|at| {
        let config = std::fs::read(tree.at(&tree.device(&format!("{PF}/config")))).unwrap();
        config[*at..at + 2] == [0x10, 0x00]
    });
    tree.patch_config(PF, offset.unwrap() + 0x0c, &3_u16.to_le_bytes());
    assert!(pf(&tree).conditions.initial_vfs_differ);
}

#[test]
fn vfs_show_whether_they_can_be_reset_and_their_vgpu_type() {
    let tree = igb();
    tree.device_file("0000:01:10.0/reset_method", "flr bus\n")
        .device_file("0000:01:10.2/reset_method", "bus\n");
    tree.device_file("0000:01:10.2/nvidia/current_vgpu_type", "0\n");
    let vfs = pf(&tree).virtual_functions;
    assert_eq!([vfs[0].flr, vfs[1].flr], [Some(true), Some(false)]);
    assert_eq!([vfs[0].vgpu_type, vfs[1].vgpu_type], [None, Some(0)]);
}

#[test]
fn vfio_pci_is_loaded_or_missing_or_unknown() {
    let tree = igb();
    assert_eq!(tree.identify().vfio_pci, None);
    tree.folder("sys/bus/pci/drivers/igb");
    assert_eq!(tree.identify().vfio_pci, Some(false));
    tree.folder("sys/bus/pci/drivers/vfio-pci");
    assert_eq!(tree.identify().vfio_pci, Some(true));
}

/// Kernels 4.13 to 5.6 write "8 GT/s"; the link of an X722 was null.
#[test]
fn link_speeds_are_read_as_every_kernel_writes_them() {
    for (written, mts) in [("8 GT/s", 8000), ("2.5 GT/s", 2500), ("16.0 GT/s PCIe", 16_000)] {
        let tree = igb();
        tree.cut_config(PF, 64);
        for name in ["current_link_speed", "max_link_speed"] {
            tree.device_file(&format!("{PF}/{name}"), format!("{written}\n"));
        }
        assert_eq!(pf(&tree).link.map(|link| link.speed_mts), Some(mts), "{written}");
    }
}
