//! Release leaves no trace.

use crate::world::*;

#[test]
fn a_removed_partition_leaves_the_host_as_it_was() {
    let mut world = host().nic(NIC, 7);
    let before = world.inventory.clone();
    world.does(&only("web", &["net0 network mac=\"52:54:00:aa:00:01\""]), SAFE);
    assert_eq!(
        world.does(&remove("web"), SAFE),
        [
            "stop partition web",
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "destroy the channel of web",
            "reset VF 0 of 0000:01:00.0",
            "configure VF 0 of 0000:01:00.0: mac=00:00:00:00:00:00",
            "leave VF 0 of 0000:01:00.0 without a driver",
            "take VF 0 of 0000:01:00.0 from web/net0",
            "remove partition web",
            "set the number of VFs of 0000:01:00.0 from 1 to 0",
            "turn driver autoprobe on for 0000:01:00.0",
            "let go of 0000:01:00.0",
        ]
    );
    assert_eq!(world.inventory, before);
    assert!(world.state.adapters.is_empty() && world.state.partitions.is_empty());
}

#[test]
fn vfs_that_were_there_come_back_with_their_drivers() {
    let mut world = host().nic(NIC, 7).giving(2).nvme(SSD, 4).giving(1);
    let before = world.inventory.clone();
    world.does(&only("web", &["a network", "b network", "c network", "d nvme"]), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 3);
    let steps = world.does(&remove("web"), SAFE);
    assert_eq!(world.inventory, before, "{steps:#?}");
}

/// Found by the laws: as many VFs as before, but all of them without the driver that they had.
#[test]
fn vfs_that_were_made_anew_get_their_drivers_back() {
    let mut world = host().nic(NIC, 7).giving(2);
    let before = world.inventory.clone();
    world.does(&spec(&[adapter(NIC, "3")]), SAFE);
    world.does(&spec(&[adapter(NIC, "2")]), SAFE);
    assert_eq!(world.pf(at(NIC)).virtual_functions[0].driver, None);
    world.does(&spec(&[adapter(NIC, "")]), SAFE);
    assert_eq!(world.inventory, before);
}

#[test]
fn with_force_nobody_is_asked() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    let force = ioward_model::Options { force: true, ..SAFE };
    let steps = world.plan(&remove("web"), force).unwrap().steps;
    assert!(matches!(steps[0], ioward_model::Step::StopPartition { force: true, .. }));
    assert!(matches!(steps[1], ioward_model::Step::DetachVf { force: true, .. }));
}

#[test]
fn an_adapter_that_others_use_stays() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[partition("web", &["net0 network"]), partition("db", &["net0 network"])]), SAFE);
    world.does(&remove("web"), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 2);
    world.does(&remove("db"), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 0);
}

#[test]
fn a_number_in_the_spec_at_hand_keeps_the_adapter() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "3"), partition("web", &["net0 network"])]), SAFE);
    world.clone().does(&only("web", &[]), DISRUPT);
    let mut kept = world.clone();
    kept.does(&spec(&[adapter(NIC, "3"), partition("web", &[])]), DISRUPT);
    assert_eq!(kept.pf(at(NIC)).num_vfs(), 3);
    world.does(&remove("web"), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 0, "an earlier Spec's number goes with the last VF");
}

#[test]
fn no_vfs_asked_for_gives_the_adapter_back() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "3")]), SAFE);
    let steps = world.does(&spec(&[adapter(NIC, "0")]), SAFE);
    assert_eq!(steps.last().unwrap(), "let go of 0000:01:00.0");
    assert_eq!(world.pf(at(NIC)).drivers_autoprobe, Some(true));
    assert_eq!(world.does(&spec(&[adapter(NIC, "0")]), SAFE), [""; 0]);
}

/// Where there were VFs before, none is a wish like any other; leaving the number out gives the adapter back.
#[test]
fn none_is_none_also_where_there_were_some() {
    let mut world = host().nic(NIC, 7).giving(2);
    let before = world.inventory.clone();
    let none = spec(&[adapter(NIC, "0")]);
    world.does(&none, SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 0);
    assert_eq!(world.does(&none, SAFE), [""; 0]);
    world.does(&spec(&[adapter(NIC, "")]), SAFE);
    assert_eq!(world.inventory, before);
}

#[test]
fn vfs_that_the_host_came_to_use_meanwhile_are_not_swept_away() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "2"), partition("web", &["net0 network"])]), SAFE);
    let world = world.with_vf_used_by_host(1);
    let told = world.refuses(&remove("web"), SAFE);
    assert!(told.starts_with("[Disruption] 0000:01:00.0: ") && told.contains("host loses VF 1"), "{told}");
    world.clone().does(&remove("web"), DISRUPT);
}

#[test]
fn an_adapter_that_is_gone_is_forgotten() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    world.inventory.physical_functions.clear();
    assert_eq!(
        world.does(&remove("web"), SAFE),
        [
            "stop partition web",
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "destroy the channel of web",
            "take VF 0 of 0000:01:00.0 from web/net0",
            "remove partition web",
            "let go of 0000:01:00.0",
        ]
    );
}

/// One that is held for its number of VFs alone could not be let go of once it was gone.
#[test]
fn an_adapter_that_is_gone_is_forgotten_when_it_is_to_give_none() {
    let mut world = host().nic(NIC, 7).nvme(SSD, 4);
    world.does(&spec(&[adapter(NIC, "3")]), SAFE);
    world.inventory.physical_functions.retain(|pf| pf.address != at(NIC));
    assert_eq!(world.does(&spec(&[adapter(NIC, "0")]), SAFE), ["let go of 0000:01:00.0"]);
    assert!(
        world.refuses(&spec(&[adapter(NIC, "0")]), SAFE).contains("0000:01:00.0"),
        "there is nothing to forget"
    );
}
