//! Adapters are taken out of service, and returned.

use ioward_model::{Holder, Intent, Label, OutOfService, Process, Rule, Runs, Step, VfId, Why};
use ioward_planner::{plan, validate};

use crate::world::*;

const VF_OF_NIC: &str = "net0 network pf=\"0000:01:00.0\" mac=\"52:54:00:aa:00:01\" vlan=100";

fn leaving_out(pf: &str) -> Intent {
    Intent::Evacuate { pf: at(pf), leave_out: true }
}

/// Two NICs; web runs with two VFs, of which one is pinned to the first NIC.
fn two_nics() -> World {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &[VF_OF_NIC, "net1 network pf=\"0000:02:00.0\""]), SAFE);
    world
}

/// A mark as of a certain time, whether or not anything of the adapter is held.
fn mark(world: &mut World, pf: &str, why: Why) {
    let out = OutOfService { since_ms: 1_795_749_300_000, why, vf: None, identity: None };
    world.state.out_of_service.insert(at(pf), out.clone());
    let pfs = &mut world.inventory.physical_functions;
    pfs.iter_mut().find(|found| found.address == at(pf)).unwrap().out_of_service = Some(out);
}

#[test]
fn its_vfs_go_to_another_adapter_with_what_is_set_of_them() {
    let mut world = two_nics();
    let before = world.state.clone();
    let steps = world.does(&evacuate(NIC), DISRUPT);
    assert_eq!(steps[0], "take 0000:01:00.0 out of service");
    assert_eq!(
        (world.vf_of("web/net0"), world.vf_of("web/net1")),
        (format!("{NIC2}/1"), format!("{NIC2}/0"))
    );
    let web = &world.state.partitions[&"web".parse().unwrap()];
    let held = &web.vfs[&"net0".parse().unwrap()];
    let was = &before.partitions[&"web".parse().unwrap()].vfs[&"net0".parse().unwrap()];
    assert_eq!(held.settings, was.settings);
    assert!(web.running && held.attached && held.settings.vlan.is_some());
    // It is free: no VFs, as it was found, and nothing is held of it.
    let nic = world.pf(at(NIC));
    assert_eq!((nic.num_vfs(), nic.drivers_autoprobe), (0, Some(true)));
    assert!(!world.state.adapters.contains_key(&at(NIC)));
    assert_eq!(world.state.out_of_service[&at(NIC)].why, Why::Evacuated);
}

/// A guest knows its network by the MAC: one that ioward chose goes along too.
#[test]
fn a_mac_that_was_chosen_for_it_goes_along() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC}/0"));
    let mac = |world: &World| {
        let web = &world.state.partitions[&"web".parse().unwrap()];
        web.vfs[&"net0".parse().unwrap()].settings.mac.unwrap()
    };
    let before = mac(&world);
    world.does(&evacuate(NIC), DISRUPT);
    assert_eq!((world.vf_of("web/net0"), mac(&world)), (format!("{NIC2}/0"), before));
}

#[test]
fn who_runs_is_named_and_not_disturbed_without_leave() {
    let world = two_nics();
    let refused = world.refuses(&evacuate(NIC), SAFE);
    assert!(
        refused
            .starts_with("[Disruption] web/net0: 0000:02:00.0: required that nothing that runs loses a VF"),
        "{refused}"
    );
    assert_eq!(refused.lines().count(), 1, "{refused}");
    // It has a place, so that it is not left out for want of leave.
    assert_eq!(world.refuses(&leaving_out(NIC), SAFE), refused);
    let plan = world.plan(&evacuate(NIC), DISRUPT).unwrap();
    let disturbed: Vec<_> = plan.disturbs.iter().map(|it| (it.who.as_str(), it.what.as_str())).collect();
    assert_eq!(
        disturbed,
        [
            ("web", "loses net0 for VF 1 of 0000:02:00.0, which takes its place"),
            ("web", "loses net1 while the number of VFs of 0000:02:00.0 goes from 1 through 0 to 2"),
        ]
    );
}

#[test]
fn one_that_is_stopped_disturbs_nobody() {
    let mut world = two_nics();
    world.does(&stop("web"), SAFE);
    let plan = world.plan(&evacuate(NIC), SAFE).unwrap();
    assert!(plan.disturbs.is_empty());
    world.does(&evacuate(NIC), SAFE);
    // It starts where it is now: it asks for the other adapter no more.
    world.does(&start("web"), SAFE);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC2}/1"));
}

#[test]
fn a_vf_that_suits_nowhere_else_is_named_with_the_reason() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7).but(|pf| pf.netdevs[0].speed_mbps = Some(100));
    world.does(&only("web", &["net0 network", "net1 network min_link_speed=\"1Gbit\""]), SAFE);
    assert_eq!((world.vf_of("web/net0"), world.vf_of("web/net1")), (format!("{NIC2}/0"), format!("{NIC}/0")));
    world.does(&evacuate(NIC2), DISRUPT);
    world.does(&bring_back(NIC2), SAFE);
    assert_eq!(
        world.refuses(&evacuate(NIC), DISRUPT),
        "[LinkSpeed] web/net1: 0000:02:00.0: required a link of 1Gbit or faster; found one of 100Mbit; --leave-out takes it \
         from its partition"
    );
    let plan = world.plan(&leaving_out(NIC), DISRUPT).unwrap();
    let disturbed: Vec<_> = plan.disturbs.iter().map(|it| it.what.as_str()).collect();
    assert_eq!(
        disturbed,
        [
            "loses net0 for VF 0 of 0000:02:00.0, which takes its place",
            "loses net1 for good: no other adapter has one for it"
        ]
    );
    world.carry_out(&plan);
    let web = &world.state.partitions[&"web".parse().unwrap()];
    let left: Vec<_> = web.spec.vfs.iter().map(|vf| vf.name.as_str()).collect();
    assert_eq!((left, web.vfs.len()), (vec!["net0"], 1));
    assert_eq!(world.pf(at(NIC)).num_vfs(), 0);
}

/// Leaving out is for what has no place, and takes no leave that was not given.
#[test]
fn leaving_out_still_needs_leave_to_disturb() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    let refused = world.refuses(&leaving_out(NIC), SAFE);
    assert!(
        refused.contains("[Disruption] web/net0") && refused.contains("loses net0 for good"),
        "{refused}"
    );
    let steps = world.does(&leaving_out(NIC), DISRUPT);
    assert!(steps.contains(&"destroy the channel of web".to_owned()), "{steps:?}");
    assert!(world.state.adapters.is_empty() && world.state.partitions.len() == 1);
}

#[test]
fn both_adapters_go_one_after_the_other() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7).nic(SSD, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    world.does(&evacuate(NIC), DISRUPT);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC2}/0"));
    world.does(&evacuate(NIC2), DISRUPT);
    assert_eq!(world.vf_of("web/net0"), format!("{SSD}/0"));
    let refused = world.refuses(&evacuate(SSD), DISRUPT);
    assert_eq!(refused.matches("[InService] web/net0").count(), 2, "{refused}");
    world.does(&bring_back(NIC), SAFE);
    world.does(&evacuate(SSD), DISRUPT);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC}/0"));
}

#[test]
fn nothing_is_given_from_it_until_it_returns() {
    let mut world = host().nic(NIC, 7);
    assert_eq!(world.does(&evacuate(NIC), SAFE), ["take 0000:01:00.0 out of service"]);
    assert!(world.does(&evacuate(NIC), SAFE).is_empty(), "it is out already");
    mark(&mut world, NIC, Why::Evacuated);
    let why = "required an adapter in service; found it was taken out of service, 2026-11-27T03:15:00Z; ioward return \
               0000:01:00.0";
    let web = only("web", &["net0 network"]);
    assert_eq!(world.refuses(&web, ANYTHING), format!("[InService] web/net0: 0000:01:00.0: {why}"));
    // Nor are VFs of it made.
    let numbered = spec(&[adapter(NIC, "4")]);
    assert_eq!(world.refuses(&numbered, ANYTHING), format!("[InService] 0000:01:00.0: {why}"));
    assert!(world.does(&spec(&[adapter(NIC, "0")]), SAFE).is_empty());

    assert_eq!(world.does(&bring_back(NIC), SAFE), ["return 0000:01:00.0 to service"]);
    assert!(world.does(&bring_back(NIC), SAFE).is_empty(), "it is back already");
    world.does(&web, SAFE);
}

/// The Spec that was last applied, applied again, does what a return does not.
#[test]
fn a_spec_applied_again_moves_a_pinned_vf_back() {
    let mut world = two_nics();
    let web = only("web", &[VF_OF_NIC, "net1 network pf=\"0000:02:00.0\""]);
    world.does(&evacuate(NIC), DISRUPT);
    let refused = world.refuses(&web, DISRUPT);
    assert!(refused.contains("[InService] web/net0: 0000:01:00.0"), "{refused}");
    world.does(&bring_back(NIC), SAFE);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC2}/1"), "nothing moves by itself");
    world.does(&web, DISRUPT);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC}/0"));
}

/// VFs that it was found with go too, and come back as it returns.
#[test]
fn vfs_that_it_was_found_with_come_back() {
    let mut world = host().nic(NIC, 7).giving(2).nic(NIC2, 7);
    world.does(&only("web", &["net0 network pf=\"0000:01:00.0\""]), SAFE);
    world.does(&evacuate(NIC), DISRUPT);
    assert_eq!((world.pf(at(NIC)).num_vfs(), world.pf(at(NIC)).drivers_autoprobe), (0, Some(true)));
    assert!(world.does(&evacuate(NIC), SAFE).is_empty(), "once is enough");
    world.does(&bring_back(NIC), SAFE);
    assert_eq!((world.pf(at(NIC)).num_vfs(), world.pf(at(NIC)).drivers_autoprobe), (2, Some(true)));
    assert!(!world.state.adapters.contains_key(&at(NIC)));
}

/// Who else has a VF of it loses that, and nobody takes it from them without leave.
#[test]
fn vfs_of_others_are_named() {
    let (pid, command) = (812, Label::new("qemu-system-x86"));
    let holder =
        Holder::Process(Process { pid, command, runs: Runs::LibvirtDomain { name: Label::new("shop") } });
    let world = host().nic(NIC, 7).giving(2).with_vf_held(1, "vfio-pci", holder);
    let refused = world.refuses(&evacuate(NIC), SAFE);
    assert!(refused.contains("[Disruption]") && refused.contains("libvirt domain shop"), "{refused}");
}

/// One that failed too often is out of service with VFs that partitions hold: these stay theirs, and can be given back and moved.
#[test]
fn vfs_of_one_that_is_locked_out_stay_until_they_are_moved() {
    let mut world = two_nics();
    mark(&mut world, NIC, Why::Failed { what: "3 resets within 60 s".to_owned() });
    world.does(&stop("web"), SAFE);
    world.does(&start("web"), SAFE);
    assert_eq!(world.vf_of("web/net0"), format!("{NIC}/0"));
    let mut emptied = world.clone();
    emptied.does(&detach("web", "net0"), SAFE);
    assert_eq!(emptied.pf(at(NIC)).num_vfs(), 0);
    let steps = world.does(&evacuate(NIC), DISRUPT);
    assert!(!steps.contains(&"take 0000:01:00.0 out of service".to_owned()), "{steps:?}");
    assert_eq!(world.vf_of("web/net0"), format!("{NIC2}/1"));
    let why = &world.state.out_of_service[&at(NIC)].why;
    assert!(matches!(why, Why::Failed { .. }), "why it is out is not forgotten: {why:?}");
}

#[test]
fn one_that_is_not_there_can_be_emptied_and_an_unknown_one_is_refused() {
    let mut world = two_nics();
    let unknown = "0000:07:00.0";
    for intent in [evacuate(unknown), bring_back(unknown)] {
        let refused = world.refuses(&intent, SAFE);
        assert!(refused.starts_with("[FunctionExists] 0000:07:00.0"), "{refused}");
    }
    world.inventory.physical_functions.retain(|pf| pf.address != at(NIC));
    let plan = plan(&world.inventory, &world.state, &evacuate(NIC), &DISRUPT).unwrap();
    assert_eq!(validate(&plan, &world.inventory, &world.state), Vec::<String>::new());
    assert!(plan.steps.iter().any(|step| matches!(step, Step::Assign { to, .. } if to.vf.pf == at(NIC2))));
    assert!(plan.steps.iter().any(|step| matches!(step, Step::ReleaseAdapter { pf, .. } if *pf == at(NIC))));
}

/// Whoever makes a plan: none that gives a VF of such an adapter leaves the management partition.
#[test]
fn the_validator_knows_it_by_itself() {
    let mut world = host().nic(NIC, 7);
    let mut plan = world.plan(&only("web", &["net0 network"]), SAFE).unwrap();
    mark(&mut world, NIC, Why::Evacuated);
    assert_eq!(
        validate(&plan, &world.inventory, &world.state),
        [
            "VFs of 0000:01:00.0 are made, which is out of service",
            "web/net0 gets VF 0 of 0000:01:00.0, which is out of service"
        ]
    );
    world.state.out_of_service.clear();
    let to = OutOfService { since_ms: 0, why: Why::Evacuated, vf: None, identity: None };
    plan.steps.insert(0, Step::TakeOutOfService { pf: at(NIC), to });
    assert_eq!(validate(&plan, &world.inventory, &world.state).len(), 2);
    assert!(plan.placements.iter().all(|placed| placed.vf == VfId { pf: at(NIC), index: 0 }));
    let reasons = world.plan(&evacuate("0000:07:00.0"), SAFE).unwrap_err();
    assert_eq!(reasons[0].rule, Rule::FunctionExists);
}
