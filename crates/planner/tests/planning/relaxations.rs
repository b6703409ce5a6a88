//! Relaxations: the smallest sets of rules that would have to give way, each of which really helps.

use ioward_model::{Intent, Options, Plan, Relaxation};
use ioward_planner::advise;
use proptest::prelude::*;

use crate::world::*;

fn ways(world: &World, wish: &Intent, options: Options) -> Vec<String> {
    let refused = advise(&world.inventory, &world.state, wish, &options).unwrap_err();
    assert!(!refused.0.is_empty());
    refused.1.iter().map(ToString::to_string).collect()
}

fn planned(world: &World, wish: &Intent, options: Options) -> Plan {
    advise(&world.inventory, &world.state, wish, &options)
        .unwrap_or_else(|(reasons, _)| panic!("{}", told(&reasons)))
}

fn nodes() -> World {
    host().nodes(2).nic(NIC, 2).but(|pf| pf.numa_node = Some(0)).nic(NIC2, 2).but(|pf| pf.numa_node = Some(1))
}

#[test]
fn a_numa_node_may_give_way() {
    let keys = "numa_node = 0\nvf =";
    let text = partition(
        "web",
        &["a network numa=\"require\"", "b network numa=\"require\"", "c network numa=\"require\""],
    );
    let wish = spec(&[text.replacen("vf =", keys, 1)]);
    // Two fit on node 0; any one of the three may go to the other.
    assert!(ways(&nodes(), &wish, SAFE).contains(&"web/c may be on NUMA node 1".into()));
}

#[test]
fn another_partition_may_give_up_a_vf() {
    let mut world = host().nic(NIC, 2);
    world.does(&only("batch", &["a network", "b network"]), SAFE);
    let told = ways(&world, &only("web", &["a network"]), SAFE);
    assert_eq!(told, ["batch gives up one VF of 0000:01:00.0"]);
}

#[test]
fn two_things_may_have_to_give_way_together() {
    let world = host().nic(NIC, 2).used_by_host();
    let told = ways(&world, &only("web", &["a network min_link_speed=\"10Gbit\""]), SAFE);
    assert_eq!(told, ["web/a does without min_link_speed and --allow-management-nic is given"]);
}

#[test]
fn the_least_is_asked_for() {
    let world = host().nic(NIC, 2).nic(NIC2, 2).but(|pf| pf.netdevs[0].speed_mbps = Some(10_000));
    let pinned = format!("a network pf=\"{NIC}\" min_link_speed=\"10Gbit\"");
    let told = ways(&world, &only("web", &[&pinned]), SAFE);
    assert_eq!(told, ["web/a does without min_link_speed", "web/a does without pf"]);
}

#[test]
fn redundancy_may_give_way() {
    let world = host().nic(NIC, 7);
    let told = ways(&world, &only("web", &["a network", "b network apart_from=[{vf=\"a\"}]"]), SAFE);
    assert_eq!(told, ["web/b need not be apart from web/a"]);
}

/// Where a partition's VFs were not alike and one of them suited no adapter, all other partitions were said to get none either, for their
/// VFs were "used otherwise", and no way out was found.
#[test]
fn one_that_nothing_suits_is_refused_alone() {
    let world = host().nic(NIC, 7).nic(NIC2, 7).but(|pf| pf.netdevs[0].speed_mbps = Some(10_000));
    let others = partition("web", &["a network", "b network apart_from=[{vf=\"a\"}]"]);
    let fast =
        partition("db", &["a network min_link_speed=\"400Gbit\"", "b network apart_from=[{vf=\"a\"}]"]);
    let wish = spec(&[others, fast]);
    let (reasons, _) = advise(&world.inventory, &world.state, &wish, &SAFE).unwrap_err();
    for reason in &reasons {
        assert_eq!(reason.request.as_deref(), Some("db/a"), "{reason}");
    }
    assert_eq!(ways(&world, &wish, SAFE), ["db/a does without min_link_speed"]);
}

#[test]
fn what_nothing_helps_has_no_ways() {
    assert_eq!(ways(&host().nic(NIC, 7), &only("web", &["a display"]), SAFE), [""; 0]);
}

/// Growing destroyed VFs in use: lxc/incus#2845. Whoever allows a disturbance hears of what would spare it.
#[test]
fn a_plan_that_disturbs_offers_the_one_that_does_not() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &["a network"]), SAFE);
    let pinned = only("db", &[&format!("a network pf=\"{NIC}\"")]);
    let calm = ["db/a does without pf", "web gives up one VF of 0000:01:00.0"];
    assert_eq!(ways(&world, &pinned, SAFE), [&calm[..], &["--allow-disruption is given"]].concat());
    let plan = planned(&world, &pinned, DISRUPT);
    assert_eq!(plan.disturbs.len(), 1);
    let instead: Vec<_> = plan.instead.iter().map(ToString::to_string).collect();
    assert_eq!(instead, calm);
    // A number of VFs that is not needed need not be made.
    let grown = spec(&[adapter(NIC, "6")]);
    let plan = planned(&world, &grown, DISRUPT);
    assert_eq!(
        (plan.disturbs.len(), &plan.instead[..]),
        (1, &[][..]),
        "nothing else does what was asked for"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) })]

    /// Whatever is offered was tried: with `--allow-disruption` and the like the plan is there.
    #[test]
    fn what_is_offered_helps(total in 1..4_u16, held in 0..4_u16, wanted in 1..4_u16, used in any::<bool>()) {
        let mut world = host().nic(NIC, total);
        let vfs: Vec<_> = (0..held.min(total)).map(|n| format!("v{n} network")).collect();
        world.does(&only("batch", &vfs.iter().map(String::as_str).collect::<Vec<_>>()), SAFE);
        if used {
            world = world.used_by_host();
        }
        let vfs: Vec<_> = (0..wanted).map(|n| format!("v{n} network")).collect();
        let wish = only("web", &vfs.iter().map(String::as_str).collect::<Vec<_>>());
        if let Err((_, ways)) = advise(&world.inventory, &world.state, &wish, &SAFE) {
            for way in ways {
                let allow = |what: &Relaxation| way.gives.contains(what);
                let options = Options {
                    allow_disruption: allow(&Relaxation::AllowDisruption),
                    allow_management_nic: allow(&Relaxation::AllowManagementNic),
                    force: false,
                };
                let mut world = world.clone();
                for given_up in way.gives.iter().filter(|what| matches!(what, Relaxation::GiveUpVf { .. })) {
                    prop_assert!(given_up.to_string().starts_with("batch gives up one VF"));
                    let last = world.state.partitions[&"batch".parse().unwrap()].vfs.keys().last().cloned().unwrap();
                    world.does(&detach("batch", last.as_str()), ANYTHING);
                }
                prop_assert!(world.plan(&wish, options).is_ok(), "{way}");
            }
        }
    }
}
