//! VFs that were lost behind ioward's back.

use crate::world::*;

/// Status said "as desired", so VFs were never created after a reboot: kubevirt/kubevirtci#513.
#[test]
fn after_a_reboot_the_same_spec_makes_the_vfs_again() {
    let mut world = host().nic(NIC, 7);
    let wish = spec(&[adapter(NIC, "4"), partition("web", &["net0 network mac=\"52:54:00:aa:00:01\""])]);
    world.does(&wish, SAFE);
    world.reboot();
    assert_eq!(
        world.does(&wish, SAFE),
        [
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "turn driver autoprobe off for 0000:01:00.0",
            "set the number of VFs of 0000:01:00.0 from 0 to 4",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "attach VF 0 of 0000:01:00.0 to web as net0",
        ]
    );
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
}

#[test]
fn starting_a_partition_makes_its_vfs_again() {
    let mut world = host().nic(NIC, 7).nvme(SSD, 4);
    world.does(
        &spec(&[partition("web", &["net0 network"]), partition("db", &["net0 network", "disk0 nvme"])]),
        SAFE,
    );
    world.reboot();
    world.does(&start("web"), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 2, "db's VF comes with it");
    assert_eq!(world.pf(at(SSD)).num_vfs(), 0, "nobody asked for that one yet");
    let steps = world.does(&start("db"), SAFE);
    assert_eq!(steps.last().unwrap(), "start partition db");
}

#[test]
fn a_vf_that_fell_to_a_host_driver_is_bound_again() {
    let mut world = host().nic(NIC, 7);
    let wish = only("web", &["net0 network mac=\"52:54:00:aa:00:01\""]);
    world.does(&wish, SAFE);
    world.reboot();
    world.write_numvfs(at(NIC), 1);
    assert_eq!(
        world.does(&wish, SAFE),
        [
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "attach VF 0 of 0000:01:00.0 to web as net0",
        ]
    );
}

#[test]
fn a_vf_that_the_host_took_is_not_taken_back_by_surprise() {
    let mut world = host().nic(NIC, 7);
    let wish = only("web", &["net0 network"]);
    world.does(&wish, SAFE);
    world.reboot();
    world.write_numvfs(at(NIC), 1);
    let mut world = world.with_vf_used_by_host(0);
    assert!(world.refuses(&wish, ANYTHING).starts_with("[VfFree] web/net0: 0000:01:10.0: "));
    let steps = world.does(&remove("web"), DISRUPT);
    assert!(!steps.iter().any(|step| step.starts_with("reset")), "{steps:?}");
}

/// A policy deleted while the node was down left stale VFs, "Succeeded": sriov-network-operator#1124.
#[test]
fn removing_after_a_reboot_leaves_nothing() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    world.reboot();
    let steps = world.does(&remove("web"), SAFE);
    assert_eq!(steps.last().unwrap(), "let go of 0000:01:00.0");
    assert!(world.state.adapters.is_empty());
}

#[test]
fn a_request_moves_when_its_adapter_is_gone() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    let wish = only("web", &["net0 network"]);
    world.does(&wish, SAFE);
    world.inventory.physical_functions.remove(0);
    world.does(&wish, SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:02:00.0/0");
}
