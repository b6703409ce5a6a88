//! NumVFs changes through zero, so that all VFs of an adapter go for a while.

use crate::world::*;

fn web_runs_on_the_only_nic() -> World {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network mac=\"52:54:00:aa:00:01\""]), SAFE);
    world
}

/// Growing destroyed VFs in use: lxc/incus#2845.
#[test]
fn who_runs_is_not_disturbed_unasked() {
    let world = web_runs_on_the_only_nic();
    let told = world.refuses(&attach("web", "net1 network"), SAFE);
    assert!(told.starts_with("[Disruption] web/net1: 0000:01:00.0: "), "{told}");
    assert!(
        told.contains("web loses net0 (0000:01:10.0)")
            && told.contains("--allow-disruption")
            && told.contains("vfs = 2"),
        "{told}"
    );
    let told = world.refuses(&spec(&[adapter(NIC, "4")]), SAFE);
    assert!(told.starts_with("[Disruption] 0000:01:00.0: "), "{told}");
}

#[test]
fn with_leave_they_all_go_and_come_back_as_they_were() {
    let mut world = web_runs_on_the_only_nic();
    let plan = world.plan(&spec(&[adapter(NIC, "4")]), DISRUPT).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "configure VF 0 of 0000:01:00.0: mac=00:00:00:00:00:00",
            "leave VF 0 of 0000:01:00.0 without a driver",
            "note how 0000:01:00.0 was found: 0 VFs, autoprobe true",
            "set the number of VFs of 0000:01:00.0 from 1 to 0",
            "set the number of VFs of 0000:01:00.0 from 0 to 4",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "attach VF 0 of 0000:01:00.0 to web as net0",
        ]
    );
    assert_eq!(plan.disturbs.len(), 1);
    assert_eq!((plan.disturbs[0].who.as_str(), plan.disturbs[0].function), ("web", at("0000:01:10.0")));
    world.carry_out(&plan);
    assert_eq!(world.does(&spec(&[adapter(NIC, "4")]), SAFE), [""; 0]);
}

#[test]
fn who_is_stopped_is_not_disturbed() {
    let mut world = web_runs_on_the_only_nic();
    world.does(&stop("web"), SAFE);
    let plan = world.plan(&spec(&[adapter(NIC, "4")]), SAFE).unwrap();
    assert!(plan.disturbs.is_empty());
    world.carry_out(&plan);
    assert_eq!(world.does(&start("web"), SAFE), ["start partition web"]);
}

#[test]
fn free_vfs_disturb_nobody_as_they_go() {
    let mut world = host().nic(NIC, 7).giving(2);
    let steps = world.does(&only("web", &["a network", "b network", "c network"]), SAFE);
    assert_eq!(
        steps[..4],
        [
            "note how 0000:01:00.0 was found: 2 VFs, autoprobe true",
            "set the number of VFs of 0000:01:00.0 from 2 to 0",
            "turn driver autoprobe off for 0000:01:00.0",
            "set the number of VFs of 0000:01:00.0 from 0 to 3",
        ],
        "autoprobe changes while there are none, so that undoing this brings their drivers back"
    );
}

#[test]
fn what_the_host_or_somebody_unknown_uses_is_disturbed() {
    for world in [
        host().nic(NIC, 7).giving(2).with_vf_used_by_host(1),
        host().nic(NIC, 7).giving(2).with_vf_lent_by_somebody(1),
    ] {
        let wish = spec(&[adapter(NIC, "4")]);
        let told = world.refuses(&wish, SAFE);
        assert!(
            told.starts_with("[Disruption] 0000:01:00.0: ") && told.contains("host loses VF 1"),
            "{told}"
        );
        let plan = world.plan(&wish, DISRUPT).unwrap();
        assert_eq!((plan.disturbs[0].who.as_str(), plan.disturbs[0].function), ("host", at("0000:01:10.2")));
    }
}

#[test]
fn partitions_that_nothing_is_asked_of_come_back_too() {
    let mut world = web_runs_on_the_only_nic();
    world.does(&only("db", &["net0 network"]), DISRUPT);
    assert_eq!([world.vf_of("web/net0"), world.vf_of("db/net0")], ["0000:01:00.0/0", "0000:01:00.0/1"]);
    let partition = &world.state.partitions[&"web".parse().unwrap()];
    assert!(partition.running && partition.vfs.values().all(|held| held.attached));
}

#[test]
fn the_number_that_was_asked_for_is_remembered() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "2"), partition("web", &["a network"])]), SAFE);
    world.does(&attach("web", "b network"), SAFE);
    let told = world.refuses(&attach("web", "c network"), DISRUPT);
    assert!(told.starts_with("[VfCapacity] web/c: 0000:01:00.0: ") && told.contains("up to 7"), "{told}");
    world.does(
        &spec(&[adapter(NIC, ""), partition("web", &["a network", "b network", "c network"])]),
        DISRUPT,
    );
    assert_eq!(world.pf(at(NIC)).num_vfs(), 3, "as many as are assigned");
}

#[test]
fn it_does_not_shrink_by_itself_and_does_when_told() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["a network", "b network", "c network"]), SAFE);
    world.does(&only("web", &["a network"]), DISRUPT);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 3);
    world.does(&spec(&[adapter(NIC, "1")]), DISRUPT);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 1);
}

#[test]
fn the_management_nic_is_changed_only_with_leave() {
    let mut world = host().nic(NIC, 7).used_by_host();
    let wish = only("web", &[&format!("net0 network pf=\"{NIC}\"")]);
    let told = world.refuses(&wish, DISRUPT);
    assert!(told.starts_with("[ManagementNic] web/net0: "), "{told}");
    world.does(&wish, MANAGEMENT);
    assert_eq!(world.does(&wish, SAFE), [""; 0], "what is there already needs no leave");
}
