//! A VF and its standby: where they are placed, and who may have which of them active.

use ioward_model::{FailedOver, FailoverCause, Intent, Rule};

use crate::world::*;

const PAIR: [&str; 2] = ["net0 network failover={standby=\"net0-b\"}", "net0-b network"];

fn failover(vf: &str, back: bool) -> Intent {
    Intent::Failover { partition: "web".parse().unwrap(), vf: vf.parse().unwrap(), back }
}

fn with_pair() -> World {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &PAIR), SAFE);
    world
}

fn over(world: &World) -> Option<FailedOver> {
    world.state.partitions[&"web".parse().unwrap()].vfs[&"net0".parse().unwrap()].failed_over.clone()
}

#[test]
fn a_vf_and_its_standby_are_on_two_adapters() {
    let world = with_pair();
    let pf = |vf: &str| world.vf_of(vf)[..12].to_owned();
    assert_ne!(pf("web/net0"), pf("web/net0-b"));
    let alone = host().nic(NIC, 7);
    let reasons = alone.plan(&only("web", &PAIR), SAFE).unwrap_err();
    assert!(reasons.iter().any(|reason| reason.rule == Rule::Redundancy), "{reasons:?}");
}

#[test]
fn a_person_has_the_standby_active_and_the_vf_itself_again() {
    let mut world = with_pair();
    let steps = world.does(&failover("net0", false), SAFE);
    assert_eq!(steps, ["have the standby of web/net0 active: asked for"]);
    assert_eq!(over(&world).unwrap().why, FailoverCause::Asked);
    assert!(world.does(&failover("net0", false), SAFE).is_empty(), "it is so already");
    assert_eq!(world.does(&failover("net0", true), SAFE), ["have web/net0 active again"]);
    assert_eq!(over(&world), None);
}

#[test]
fn nobody_is_cut_off_because_somebody_asks_for_it() {
    let mut world = with_pair();
    let pf = at(&world.vf_of("web/net0-b")[..12]);
    let found = world.inventory.physical_functions.iter_mut().find(|found| found.address == pf).unwrap();
    found.netdevs[0].carrier = Some(false);
    let reasons = world.plan(&failover("net0", false), SAFE).unwrap_err();
    assert_eq!(
        (reasons[0].rule, &*reasons[0].found),
        (Rule::InService, &*format!("the port of {pf} has no link"))
    );
}

#[test]
fn a_no_says_what_to_name_instead() {
    let mut world = with_pair();
    let said = |world: &mut World, vf: &str| {
        let reason = world.plan(&failover(vf, false), SAFE).unwrap_err().remove(0);
        (reason.found, reason.remedy)
    };
    let (found, remedy) = said(&mut world, "net0-b");
    assert_eq!((&*found, &*remedy), ("it is the standby of web/net0", "name web/net0"));
    assert_eq!(said(&mut world, "net7").0, "web has no VF 'net7'");
    let detach = Intent::Detach { partition: "web".parse().unwrap(), vf: "net0-b".parse().unwrap() };
    world.does(&detach, DISRUPT);
    assert_eq!(said(&mut world, "net0").0, "it has none", "what it fell back on is gone");
}

/// A standby on a bridge comes before its VF, and goes after it.
#[test]
fn a_standby_on_a_bridge_is_there_before_its_vf_and_as_long_as_that() {
    let on_a_bridge = ["net0 network mac=\"52:54:00:aa:00:01\" failover={standby=\"bridge:br0\"}"];
    let mut world = host().nic(NIC, 7);
    let steps = world.does(&only("web", &on_a_bridge), SAFE);
    let nth = |steps: &[String], what: &str| steps.iter().position(|step| step.starts_with(what)).unwrap();
    assert!(nth(&steps, "give web/net0 a standby: 52:54:00:aa:00:01 on bridge br0") < nth(&steps, "attach"));
    assert!(world.does(&only("web", &on_a_bridge), SAFE).is_empty());
    assert_eq!(
        world.does(&failover("net0", false), SAFE),
        ["have the standby of web/net0 active: asked for"]
    );
    assert!(over(&world).unwrap().unplugged);
    assert!(world.does(&only("web", &on_a_bridge), SAFE).is_empty(), "it is not put back by a plan");
    world.does(&failover("net0", true), SAFE);

    let refused = world.plan(&only("web", &["net0 network mac=\"52:54:00:aa:00:01\""]), SAFE).unwrap_err();
    assert_eq!(refused[0].rule, Rule::Disruption, "it loses its VF for a while");
    let steps = world.does(&only("web", &["net0 network mac=\"52:54:00:aa:00:01\""]), DISRUPT);
    assert!(nth(&steps, "detach") < nth(&steps, "take the standby"), "{steps:?}");
    assert!(nth(&steps, "take the standby") < nth(&steps, "attach"), "{steps:?}");
    world.does(&only("web", &on_a_bridge), DISRUPT);
    let steps = world.does(&Intent::Remove { partition: "web".parse().unwrap() }, DISRUPT);
    assert!(nth(&steps, "detach") < nth(&steps, "take the standby"), "{steps:?}");
}

/// A VF that has nowhere to go was in the way of an evacuation, though its guest could do without it.
#[test]
fn a_machine_goes_on_by_its_standby_where_no_other_adapter_has_a_vf_for_it() {
    let on_a_bridge = ["net0 network failover={standby=\"bridge:br0\"}"];
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &on_a_bridge), SAFE);
    let web = |world: &World| world.state.partitions[&"web".parse().unwrap()].clone();
    let mac = web(&world).standbys[&"net0".parse().unwrap()].mac;
    let evacuate = Intent::Evacuate { pf: at(NIC), leave_out: false };
    let refused = world.plan(&evacuate, SAFE).unwrap_err();
    assert!(refused[0].found.contains("goes on by its standby"), "{}", refused[0].found);
    let steps = world.does(&evacuate, DISRUPT);
    assert!(!steps.iter().any(|step| step.contains("standby")), "{steps:?}");
    assert!(web(&world).vfs.is_empty() && web(&world).standbys.len() == 1);

    world.does(&Intent::Return { pf: at(NIC) }, SAFE);
    let steps = world.does(&only("web", &on_a_bridge), SAFE);
    assert!(
        steps.iter().any(|step| step.contains(&format!("mac={mac}"))),
        "the guest knows it by that: {steps:?}"
    );
    assert!(!steps.iter().any(|step| step.contains("standby")), "{steps:?}");

    world.does(&evacuate, DISRUPT);
    let steps = world.does(&only("web", &[]), SAFE);
    assert_eq!(steps, [format!("take the standby of web/net0: {mac} on bridge br0")], "nobody asks for it");
}
