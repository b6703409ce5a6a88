//! The kernel's side: VF counts, addresses, drivers, groups; errors by errno.

use super::*;

/// sriov_numvfs_store: the result of each write, without prior checks.
#[test]
fn every_transition_of_sriov_numvfs_ends_as_in_the_kernel() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    assert_eq!(machine.write_numvfs(pf, 0), Ok(()), "the same number is no change");
    assert_eq!(machine.write_numvfs(pf, 8), Err(Errno::RANGE), "the driver keeps one of eight");
    assert_eq!(machine.write_numvfs(pf, 7), Ok(()));
    assert_eq!(machine.write_numvfs(pf, 7), Ok(()));
    assert_eq!(machine.write_numvfs(pf, 4), Err(Errno::BUSY));
    assert_eq!(machine.write_numvfs(pf, 8), Err(Errno::RANGE), "looked at before EBUSY");
    assert_eq!(machine.write_numvfs(pf, 0), Ok(()));
    assert_eq!(machine.write_numvfs(at("0000:05:00.0"), 1), Err(Errno::NODEV));
    assert_eq!(machine.violations(), [""; 0]);
}

#[test]
fn a_pf_without_a_driver_that_makes_vfs_makes_none() {
    for adapter in [Adapter::gigabit().without_driver(), Adapter::gigabit().without_sriov_driver()] {
        let (machine, _, pf) = machine(adapter);
        assert_eq!(machine.write_numvfs(pf, 1), Err(Errno::NOENT));
        assert_eq!(machine.write_numvfs(pf, 0), Ok(()));
    }
}

/// openshift/sriov-network-operator#131: a change from 63 to 4 VFs gave EBUSY, without a remedy.
#[tokio::test]
async fn the_fabric_gives_a_remedy_where_the_kernel_gives_ebusy() {
    let (_, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 7).await.unwrap();
    assert!(words(fabric.set_vf_count(pf, 4).await).contains("set 0 first"));
    assert_eq!(errno(fabric.set_vf_count(pf, 4).await), Errno::BUSY);
    assert_eq!(errno(fabric.set_vf_count(pf, 9).await), Errno::RANGE);
    fabric.set_vf_count(pf, 7).await.unwrap();
}

/// openshift/sriov-network-operator#1185: MSI-X exhaustion appeared as a generic write error. The ports of one
/// device share their vectors.
#[tokio::test]
async fn msix_vectors_of_both_ports_run_out_together() {
    let (machine, fabric, first) = machine(Adapter::dual_25g().vector_pool(100));
    let second = machine.physical_functions()[1];
    fabric.set_vf_count(first, 15).await.unwrap();
    let refused = fabric.set_vf_count(second, 6).await;
    assert!(words(refused).contains("MSI-X"));
    assert_eq!(errno(fabric.set_vf_count(second, 6).await), Errno::NOSPC);
    fabric.set_vf_count(second, 5).await.unwrap();
    assert_eq!(machine.violations(), [""; 0]);
}

/// sriov_enable: VFs beyond the last bus of the slot.
#[tokio::test]
async fn a_slot_with_one_bus_number_has_no_room_for_vfs_beyond_it() {
    let (machine, fabric, pf) = machine(Adapter::hundred_g().buses(1));
    assert_eq!(errno(fabric.set_vf_count(pf, 127).await), Errno::NOMEM);
    assert_eq!(identified(&machine).await.physical_functions[0].num_vfs(), 0);
    fabric.set_vf_count(pf, 32).await.unwrap();
}

#[tokio::test]
async fn a_driver_that_makes_fewer_vfs_is_reported() {
    let (machine, fabric, pf) = machine(Adapter::nvme().makes_at_most(3));
    assert_eq!(errno(fabric.set_vf_count(pf, 4).await), Errno::NOSPC);
    assert_eq!(machine.snapshot().physical_functions[&pf].num_vfs, 0, "the three are taken away again");
    fabric.set_vf_count(pf, 3).await.unwrap();
}

#[tokio::test]
async fn all_adapters_give_all_their_vfs_at_the_addresses_of_their_pf() {
    for machine in [SimMachine::standard(7), SimMachine::standard_builder(7).without_ari().build()] {
        let fabric = machine.fabric();
        for pf in identified(&machine).await.physical_functions {
            fabric.set_vf_count(pf.address, pf.total_vfs()).await.unwrap();
        }
        let inventory = identified(&machine).await;
        let counts: Vec<_> =
            inventory.physical_functions.iter().map(|pf| pf.virtual_functions.len()).collect();
        assert_eq!(counts, [7, 64, 64, 127, 16, 16]);
        assert_eq!(machine.violations(), [""; 0]);
        for pf in &inventory.physical_functions {
            fabric.set_vf_count(pf.address, 0).await.unwrap();
        }
        assert!(machine.snapshot().physical_functions.values().all(|pf| pf.vfs.is_empty()));
        assert_eq!(machine.violations(), [""; 0]);
    }
}

/// The lab's igb: VF 0 of 01:00.0 is 01:10.0, and VFs have even functions.
#[tokio::test]
async fn vfs_of_the_gigabit_nic_have_the_addresses_of_the_lab() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 3).await.unwrap();
    let found = identified(&machine).await.physical_functions.remove(0);
    let addresses: Vec<_> = found.virtual_functions.iter().map(|vf| vf.address.to_string()).collect();
    assert_eq!(addresses, ["0000:01:10.0", "0000:01:10.2", "0000:01:10.4"]);
    assert_eq!(fabric.vf_address(vf(pf, 2)).await.unwrap(), at("0000:01:10.4"));
    let missing = fabric.vf_address(vf(pf, 3)).await;
    assert!(matches!(missing, Err(FabricError::NoSuchVf { num_vfs: 3, .. })));
    let not_a_pf = fabric.vf_address(vf(at("0000:01:10.0"), 0)).await;
    assert!(matches!(not_a_pf, Err(FabricError::NoSuchFunction { .. })));
}

#[tokio::test]
async fn identify_shows_the_capability_as_in_the_registers() {
    let (machine, ..) = machine(Adapter::gigabit().numa_node(1));
    let found = identified(&machine).await.physical_functions.remove(0);
    let sriov = found.sriov.unwrap();
    assert_eq!((sriov.total_vfs, sriov.initial_vfs, sriov.num_vfs, sriov.vf_enable), (7, 7, 0, false));
    assert_eq!((sriov.first_vf_offset, sriov.vf_stride, sriov.ari), (128, 2, true));
    assert_eq!((sriov.vf_device_id.to_string(), sriov.system_page_size), ("10ca".to_owned(), 4096));
    assert_eq!(sriov.function_dependency_link, None);
    let bars: Vec<_> = sriov.vf_bars.iter().map(|bar| (bar.index, bar.is_64bit, bar.bytes_per_vf)).collect();
    assert_eq!(bars, [(0, true, Some(16 << 10)), (3, true, Some(16 << 10))]);
    assert_eq!((found.numa_node, found.msix_vectors, found.iommu_group), (Some(1), Some(10), Some(0)));
    assert_eq!(found.link.unwrap().width, 4);
    assert!(found.serial_number.unwrap().starts_with("00-1b-21-ff-ff"));
    assert_eq!(found.netdevs[0].speed_mbps, Some(1_000));
    assert_eq!((found.vfs_assigned, found.vfs_available), (0, 7));
}

#[tokio::test]
async fn new_vfs_get_their_driver_only_with_autoprobe() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let first = &identified(&machine).await.physical_functions[0].virtual_functions[0];
    assert_eq!((first.driver.as_deref(), first.netdevs.len()), (Some("igbvf"), 1));
    fabric.set_vf_count(pf, 0).await.unwrap();
    fabric.set_autoprobe(pf, false).await.unwrap();
    fabric.set_vf_count(pf, 1).await.unwrap();
    let first = &identified(&machine).await.physical_functions[0].virtual_functions[0];
    assert_eq!((&first.driver, first.netdevs.len()), (&None, 0));
}

/// pci_device_can_probe: with autoprobe off, even a driver that knows the VF needs an override.
#[tokio::test]
async fn a_vf_goes_from_driver_to_driver_and_back() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let driver_override = || machine.snapshot().physical_functions[&pf].vfs[0].driver_override.clone();
    let one = vf(pf, 0);
    assert_eq!(fabric.bind(one, Some("vfio-pci")).await.unwrap().as_deref(), Some("igbvf"));
    assert_eq!(driver_override().as_deref(), Some("vfio-pci"));
    assert_eq!(fabric.bind(one, Some("vfio-pci")).await.unwrap().as_deref(), Some("vfio-pci"));
    assert_eq!(fabric.bind(one, Some("igbvf")).await.unwrap().as_deref(), Some("vfio-pci"));
    assert_eq!(driver_override(), None, "igbvf knows the VF by its ID");
    assert_eq!(fabric.bind(one, None).await.unwrap().as_deref(), Some("igbvf"));
    fabric.set_autoprobe(pf, false).await.unwrap();
    assert_eq!(fabric.bind(one, Some("igbvf")).await.unwrap(), None);
    assert_eq!(driver_override(), None, "bound once, it stays without the override");
    let raw = machine.snapshot();
    assert_eq!(raw.physical_functions[&pf].vfs[0].driver.as_deref(), Some("igbvf"));
}

/// kubernetes-sigs/dra-driver-nvidia-gpu#1255: a failed VFIO bind left the device half bound.
#[tokio::test]
async fn a_bind_that_fails_leaves_the_vf_bound_as_before() {
    let machine = SimMachine::builder(1).adapter(Adapter::gigabit()).without_iommu().build();
    let (fabric, pf) = (machine.fabric(), machine.physical_functions()[0]);
    fabric.set_vf_count(pf, 1).await.unwrap();
    let before = machine.snapshot();
    assert!(words(fabric.bind(vf(pf, 0), Some("vfio-pci")).await).contains("bound as before"));
    assert_eq!(errno(fabric.bind(vf(pf, 0), Some("vfio-pci")).await), Errno::INVAL);
    assert_eq!(errno(fabric.bind(vf(pf, 0), Some("nouveau")).await), Errno::NOENT);
    assert_eq!(machine.snapshot(), before);
}

/// lxc/incus#3422: group not viable.
#[tokio::test]
async fn without_acs_all_functions_share_a_group_that_vfio_refuses() {
    let (machine, fabric, pf) = machine(Adapter::gigabit().without_acs());
    fabric.set_vf_count(pf, 2).await.unwrap();
    fabric.bind(vf(pf, 0), Some("vfio-pci")).await.unwrap();
    let found = identified(&machine).await.physical_functions.remove(0);
    let first = &found.virtual_functions[0];
    assert_eq!(first.iommu_group, found.iommu_group);
    assert_eq!(first.iommu_group_shared_with, [pf, at("0000:01:10.2")]);
    assert_eq!(machine.hold(first.address), Err(Errno::PERM));
}

/// sriov_disable waits for vfio-pci, and vfio-pci for the process that has the VF open.
#[tokio::test]
async fn removing_a_vf_in_use_does_not_return_until_it_is_closed() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 2).await.unwrap();
    fabric.bind(vf(pf, 1), Some("vfio-pci")).await.unwrap();
    let held = fabric.vf_address(vf(pf, 1)).await.unwrap();
    machine.hold(held).unwrap();
    assert_eq!(machine.hold(held), Err(Errno::BUSY));
    assert!(matches!(fabric.set_vf_count(pf, 0).await, Err(FabricError::Stuck { .. })));
    assert!(matches!(fabric.settings(vf(pf, 0)).await, Err(FabricError::Stuck { .. })));
    machine.release(held).unwrap();
    assert_eq!(machine.snapshot().physical_functions[&pf].num_vfs, 0, "it took effect after all");
    assert_eq!(machine.violations(), [""; 0]);
}

#[tokio::test]
async fn a_reset_erases_the_guests_traces_and_keeps_the_pfs_settings() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    fabric.bind(vf(pf, 0), Some("vfio-pci")).await.unwrap();
    let mac = "52:54:00:aa:00:01".parse().ok();
    fabric.configure(vf(pf, 0), &VfSettings { mac, ..change() }).await.unwrap();
    let address = fabric.vf_address(vf(pf, 0)).await.unwrap();
    let seen = || machine.snapshot().physical_functions[&pf].vfs[0].clone();
    machine.hold(address).unwrap();
    assert!(seen().used);
    fabric.reset(vf(pf, 0)).await.unwrap();
    assert!(!seen().used);
    assert_eq!((seen().resets, seen().settings.mac), (2, mac), "one reset at opening, one now");
}

/// A daemon was killed between two writes of a binding: its leftover `driver_override` kept the VF from its own
/// driver, or named no driver at all.
#[tokio::test]
async fn an_interrupted_binding_is_repaired() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let vf = vf(pf, 0);
    let address = fabric.vf_address(vf).await.unwrap();
    let bound = || {
        let vf = machine.snapshot().physical_functions[&pf].vfs[0].clone();
        (vf.driver, vf.driver_override)
    };
    let own = (Some("igbvf".to_owned()), None);
    assert_eq!((fabric.driver(vf).await.unwrap(), bound()), (own.0.clone(), own.clone()));

    // Unbound, and the override written, but not bound.
    fabric.bind(vf, None).await.unwrap();
    machine.write_driver_override(address, Some("vfio-pci")).unwrap();
    assert_eq!(fabric.driver(vf).await.unwrap(), None);
    fabric.bind(vf, Some("igbvf")).await.unwrap();
    assert_eq!(bound(), own);

    // Bound to its own driver by an override that was not cleared.
    machine.write_driver_override(address, Some("igbvf")).unwrap();
    fabric.bind(vf, Some("igbvf")).await.unwrap();
    assert_eq!(bound(), own);

    fabric.bind(vf, Some("vfio-pci")).await.unwrap();
    machine.write_driver_override(address, None).unwrap();
    fabric.bind(vf, Some("vfio-pci")).await.unwrap();
    assert_eq!(bound(), (Some("vfio-pci".to_owned()), Some("vfio-pci".to_owned())));
}

#[tokio::test]
async fn a_vf_in_the_hands_of_others_shows_as_in_the_kernel() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 3).await.unwrap();
    fabric.bind(vf(pf, 0), Some("vfio-pci")).await.unwrap();
    let seen = async |index: usize| {
        let found = identified(&machine).await.physical_functions.remove(0);
        (found.virtual_functions[index].clone(), found.vfs_available)
    };
    let (idle, available) = seen(0).await;
    assert_eq!((idle.holder, available), (Some(Holder::Nobody), 7));

    let program = Process { pid: 9, command: Label::new("vpp"), runs: Runs::Program };
    let program = Holder::Process(program);
    assert_eq!(
        machine.lend(seen(1).await.0.address, program.clone()),
        Err(Errno::NODEV),
        "it is not on vfio-pci"
    );
    machine.lend(idle.address, program.clone()).unwrap();
    assert_eq!(machine.lend(idle.address, program.clone()), Err(Errno::BUSY));
    assert_eq!((seen(0).await.0.holder, seen(0).await.1), (Some(program), 6));
    machine.release(idle.address).unwrap();
    assert_eq!(seen(0).await.0.holder, Some(Holder::Nobody));

    let elsewhere = Holder::NetworkNamespace { name: None, netdevs: vec![Label::new("eth0")], process: None };
    let moved = seen(1).await.0.address;
    machine.lend(moved, elsewhere.clone()).unwrap();
    let (moved_vf, _) = seen(1).await;
    assert_eq!((moved_vf.holder, moved_vf.netdevs.len()), (Some(elsewhere.clone()), 0));
    assert_eq!(machine.lend(idle.address, elsewhere), Err(Errno::NODEV), "it has no interface");
    machine.write_unbind(moved, "igbvf").unwrap();
    assert_eq!(seen(1).await.0.holder, None, "its interface has gone with the driver");
    assert_eq!(machine.violations(), [""; 0]);
}
