//! Whoever loses something while running is named, and nobody does unasked.

use ioward_model::{Intent, Plan};

use crate::world::*;

fn web_runs_with_two() -> World {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network", "net1 network"]), SAFE);
    world
}

fn disturbed(plan: &Plan) -> Vec<String> {
    plan.disturbs.iter().map(|loss| format!("{} on {} {}", loss.who, loss.function, loss.what)).collect()
}

/// An `apply` after an `assign`: the Spec does not have the VF that was assigned, and the plan that took it away from the
/// running machine said "disturbs nobody".
#[test]
fn a_spec_without_a_vf_that_was_assigned_takes_it_only_with_leave() {
    let mut world = host().nic(NIC, 7);
    let spec = spec(&[adapter(NIC, "2"), partition("web", &["net0 network"])]);
    world.does(&spec, SAFE);
    world.does(&attach("web", "net1 network"), SAFE);
    let told = world.refuses(&spec, SAFE);
    assert!(told.starts_with("[Disruption] web/net1: 0000:01:10.2: "), "{told}");
    assert!(told.contains("web loses net1 for good") && told.contains("--allow-disruption"), "{told}");
    let plan = world.plan(&spec, DISRUPT).unwrap();
    assert_eq!(disturbed(&plan), ["web on 0000:01:10.2 loses net1 for good: it is not asked for any more"]);
    world.carry_out(&plan);
    assert_eq!(world.does(&spec, SAFE), [""; 0]);
}

#[test]
fn a_spec_without_the_only_vf_takes_it_only_with_leave() {
    let mut world = web_runs_with_two();
    assert_eq!(world.refuses(&only("web", &[]), SAFE).matches("[Disruption] ").count(), 2);
    world.does(&stop("web"), SAFE);
    let plan = world.plan(&only("web", &[]), SAFE).unwrap();
    assert_eq!(disturbed(&plan), [""; 0], "who is stopped loses nothing while running");
}

#[test]
fn another_vf_in_the_place_of_one_that_is_in_use_needs_leave() {
    let mut world = host().nic(NIC, 7).giving(2);
    let pinned = |index| only("web", &[&format!("net0 network pf=\"{NIC}\" index={index}")]);
    world.does(&pinned(0), SAFE);
    assert!(world.refuses(&pinned(1), SAFE).starts_with("[Disruption] web/net0: 0000:01:10.0: "));
    let plan = world.plan(&pinned(1), DISRUPT).unwrap();
    assert_eq!(
        disturbed(&plan),
        ["web on 0000:01:10.0 loses net0 for VF 1 of 0000:01:00.0, which takes its place"]
    );
}

/// These say by themselves who loses what.
#[test]
fn to_detach_to_stop_and_to_remove_need_no_leave_and_say_who_loses_what() {
    let world = web_runs_with_two();
    let said = |intent: Intent| disturbed(&world.plan(&intent, SAFE).unwrap());
    assert_eq!(said(detach("web", "net0")), ["web on 0000:01:10.0 loses net0 as it is detached"]);
    let both = ["web on 0000:01:10.0 loses net0 as it stops", "web on 0000:01:10.2 loses net1 as it stops"];
    assert_eq!(said(stop("web")), both);
    assert_eq!(said(remove("web")), both);
}

#[test]
fn a_vf_that_was_lost_before_is_not_lost_again() {
    let mut world = web_runs_with_two();
    world.write_numvfs(at(NIC), 0);
    assert_eq!(disturbed(&world.plan(&detach("web", "net0"), SAFE).unwrap()), [""; 0]);
}

/// The linter is of the same mind without the planner's help.
#[test]
fn the_linter_finds_a_loss_that_is_not_named_or_not_allowed() {
    let world = web_runs_with_two();
    let plan = world.plan(&only("web", &["net0 network"]), DISRUPT).unwrap();
    let complaints = |plan: &Plan| ioward_planner::lint(plan, &world.inventory, &world.state).join("\n");
    let silent = Plan { disturbs: Vec::new(), ..plan.clone() };
    assert!(complaints(&silent).contains("0000:01:10.2 is lost and not named"), "{}", complaints(&silent));
    assert!(complaints(&Plan { options: SAFE, ..plan }).contains("that is not allowed"));
    let silent = Plan { disturbs: Vec::new(), ..world.plan(&stop("web"), SAFE).unwrap() };
    assert!(complaints(&silent).contains("is not named as disturbed"), "{}", complaints(&silent));
}
