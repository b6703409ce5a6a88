//! The linter itself: it has nothing against a good plan, and something against each way to spoil one.

use ioward_model::{Options, Plan, Step};
use ioward_planner::{lint, validate};

use crate::world::*;

/// A plan that does a bit of everything: two partitions, one of them there before and resized.
fn good() -> (World, Plan) {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7).nvme(SSD, 4);
    world.does(&only("web", &["a network"]), SAFE);
    let wish = spec(&[
        partition("web", &["a network", &format!("b network pf=\"{NIC}\" vlan=5")]),
        partition("db", &["net0 network", "disk0 nvme"]),
    ]);
    let plan = world.plan(&wish, DISRUPT).unwrap();
    (world, plan)
}

fn complaints(world: &World, plan: &Plan) -> Vec<String> {
    lint(plan, &world.inventory, &world.state)
}

fn place_of(plan: &Plan, is_it: impl Fn(&Step) -> bool) -> usize {
    plan.steps.iter().position(is_it).unwrap()
}

#[test]
fn a_good_plan_is_left_in_peace() {
    let (world, plan) = good();
    assert_eq!(complaints(&world, &plan), [""; 0]);
    assert!(plan.steps.len() > 20);
}

#[test]
fn no_step_can_be_left_out() {
    let (world, plan) = good();
    for n in 0..plan.steps.len() {
        // Settings that nothing else rests on are the only thing that nobody would miss.
        if matches!(
            plan.steps[n],
            Step::ConfigureVf { .. } | Step::StartPartition { .. } | Step::HoldAdapter { .. }
        ) {
            continue;
        }
        let mut spoilt = plan.clone();
        let left_out = spoilt.steps.remove(n);
        assert_ne!(complaints(&world, &spoilt), [""; 0], "without {left_out}");
    }
}

#[test]
fn no_step_can_be_taken_twice() {
    let (world, plan) = good();
    for n in 0..plan.steps.len() {
        let idempotent = matches!(
            plan.steps[n],
            Step::ConfigureVf { .. } | Step::ResetVf { .. } | Step::BindDriver { .. }
        );
        let mut spoilt = plan.clone();
        spoilt.steps.insert(n, plan.steps[n].clone());
        if !idempotent {
            assert_ne!(complaints(&world, &spoilt), [""; 0], "twice {}", plan.steps[n]);
        }
    }
}

#[test]
fn steps_in_an_unsafe_order_are_found() {
    let (world, plan) = good();
    let swapped = |earlier: usize, later: usize| {
        let mut spoilt = plan.clone();
        let step = spoilt.steps.remove(later);
        spoilt.steps.insert(earlier, step);
        complaints(&world, &spoilt)
    };
    let attach = place_of(
        &plan,
        |step| matches!(step, Step::AttachVf { owner, .. } if owner.to_string() == "db/net0"),
    );
    let bind = place_of(&plan, |step| matches!(step, Step::BindDriver { vf, .. } if vf.pf == at(NIC2)));
    let autoprobe = place_of(&plan, |step| matches!(step, Step::SetAutoprobe { pf, .. } if *pf == at(SSD)));
    let count = place_of(&plan, |step| matches!(step, Step::SetVfCount { pf, .. } if *pf == at(SSD)));
    let start = place_of(&plan, |step| matches!(step, Step::StartPartition { .. }));
    assert!(swapped(bind, attach)[0].contains("is bound to"), "attached before it is bound");
    let appeared = swapped(autoprobe, count).concat();
    assert!(appeared.contains("autoprobe is on while VFs appear"), "{appeared}");
    assert_ne!(swapped(0, start), [""; 0], "started before all is done");
}

#[test]
fn a_plan_for_another_time_is_found() {
    let (world, plan) = good();
    let older = Plan { generation: plan.generation - 1, ..plan.clone() };
    assert!(complaints(&world, &older)[0].contains("another state or inventory"));
    let harmless = Plan { options: Options { allow_disruption: false, ..plan.options }, ..plan.clone() };
    assert!(complaints(&world, &harmless)[0].contains("disturbs what runs"));
    let silent = Plan { disturbs: Vec::new(), ..plan };
    assert!(complaints(&world, &silent).concat().contains("not named as disturbed"));
}

#[test]
fn a_vf_that_is_not_what_was_asked_for_is_found() {
    let (world, plan) = good();
    let with = |spoil: fn(&mut ioward_model::Assignment)| {
        let mut spoilt = plan.clone();
        for step in &mut spoilt.steps {
            if let Step::Assign { owner, to } = step
                && owner.to_string() == "db/net0"
            {
                spoil(to);
            }
        }
        validate(&spoilt, &world.inventory, &world.state).concat()
    };
    assert!(with(|to| to.vf.pf = at(SSD)).contains("not the class"));
    assert!(with(|to| to.vf.index = 7).contains("a VF that there can be"));
    assert!(with(|to| to.vf = ioward_model::VfId { pf: at(NIC), index: 0 }).contains("while web/a has it"));
    let unexplained = Plan { placements: Vec::new(), ..plan };
    assert!(complaints(&world, &unexplained).concat().contains("it is not said why"));
}
