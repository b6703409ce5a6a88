//! Hosts that are not as they are noted: the differences, the plan that repairs them, and plans that would not.

use ioward_model::{
    Difference, Drift, Intent, KindName, Name, PartitionStatus, Plan, Step, VfId, VfSettings,
};
use ioward_planner::{Comparison, lint};

use crate::world::*;

const WISH: &str = "net0 network mac=\"52:54:00:aa:00:01\"";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// A host with a partition that has a VF and starts with the host.
fn noted() -> World {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "4"), partition("web", &[WISH])]), SAFE);
    world
        .state
        .partitions
        .values_mut()
        .for_each(|partition| partition.spec.machine_mut().unwrap().autostart = true);
    world
}

fn differences(world: &World, machines: &[PartitionStatus]) -> Vec<Drift> {
    let World { inventory, state } = world;
    Comparison { inventory, state, machines, booted: true }.differences()
}

fn reconcile(drifts: Vec<Drift>, start: &[&str], running: &[&str]) -> Intent {
    let names = |names: &[&str]| names.iter().map(|text| name(text)).collect();
    Intent::Reconcile { drifts, start: names(start), running: names(running) }
}

#[test]
fn after_a_boot_one_plan_makes_everything_again() {
    let mut world = noted();
    world.reboot();
    let plan = world.plan(&reconcile(differences(&world, &[]), &["web"], &[]), SAFE).unwrap();
    assert_eq!(
        lines(&plan),
        [
            "turn driver autoprobe off for 0000:01:00.0",
            "set the number of VFs of 0000:01:00.0 from 0 to 4",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "create partition web: 1 CPU, 512MiB",
            "create the channel of web",
            "attach VF 0 of 0000:01:00.0 to web as net0",
            "start partition web",
        ]
    );
    assert_eq!(
        (plan.id, plan.parent),
        (world.state.revision, world.state.revision),
        "no plan is stale for it"
    );
}

/// Its partition got a VF attached that was not there: a step that could only fail.
#[test]
fn a_vf_that_is_not_there_is_not_attached() {
    let mut world = noted();
    world.reboot();
    world.inventory.physical_functions.clear();
    let plan = world.plan(&reconcile(differences(&world, &[]), &[], &[]), SAFE).unwrap();
    assert_eq!(lines(&plan), ["create partition web: 1 CPU, 512MiB", "create the channel of web"]);
}

/// Fewer VFs than noted after a boot are made anew through zero: that took the rest of them from a machine that ran already.
#[test]
fn nothing_is_taken_from_a_partition_that_runs() {
    let mut world = noted();
    world.inventory.physical_functions[0].virtual_functions.truncate(2);
    world.inventory.physical_functions[0].sriov.as_mut().unwrap().num_vfs = 2;
    let vf = world.pf(at(NIC)).virtual_functions[0].address;
    let web = PartitionStatus {
        name: name("web"),
        running: true,
        halted: None,
        accelerator: None,
        pid: None,
        console: None,
        kind: KindName::Machine,
        vfs: vec![(name("net0"), vf)],
        lacks: Vec::new(),
        standbys: Vec::new(),
        gone: false,
        channel: true,
    };
    let left = |running| {
        let drifts = differences(&world, &[PartitionStatus { running, ..web.clone() }]);
        assert!(matches!(&drifts[..], [Drift { what: Difference::VfCount { .. }, .. }]), "{drifts:?}");
        drifts[0].left_because.clone()
    };
    assert_eq!(left(true).unwrap(), "web runs with a VF of it, which would go meanwhile; stop it first");
    assert_eq!(left(false), None);

    // The second pair of eyes sees it too.
    let drifts = differences(&world, &[PartitionStatus { running: false, ..web }]);
    let plan = ioward_planner::plan(&world.inventory, &world.state, &reconcile(drifts, &[], &["web"]), &SAFE);
    let problems = lint(&plan.unwrap(), &world.inventory, &world.state).join("\n");
    assert!(problems.contains("web/net0 would lose its VF, and runs"), "{problems}");
}

/// Whatever leads away from what is noted, or touches what is nobody's, is no repair.
#[test]
fn the_validator_refuses_steps_that_repair_nothing() {
    let mut world = noted();
    world.reboot();
    let good = world.plan(&reconcile(differences(&world, &[]), &["web"], &[]), SAFE).unwrap();
    let (pf, web) = (at(NIC), name("web"));
    let (held, nobodys) = (VfId { pf, index: 0 }, VfId { pf, index: 1 });
    let mac = VfSettings { mac: "52:54:00:aa:00:99".parse().ok(), ..VfSettings::default() };
    let vfio = || Some("vfio-pci".to_owned());
    let position = |is: fn(&Step) -> bool| good.steps.iter().position(is).unwrap();
    let bind = position(|step| matches!(step, Step::BindDriver { .. }));
    let cases = [
        (bind, Step::ConfigureVf { vf: held, to: mac }, "it is to be set otherwise"),
        (bind, Step::BindDriver { vf: held, to: None }, "by another driver"),
        (bind, Step::BindDriver { vf: nobodys, to: vfio() }, "in nobody's hands"),
        (0, Step::BindDriver { vf: held, to: vfio() }, "it is not there"),
        (0, Step::SetVfCount { pf, to: 4, from: 0 }, "drivers would take the VFs"),
        (1, Step::SetVfCount { pf, to: 5, from: 0 }, "another number of VFs is noted"),
        (0, Step::ResetVf { vf: held }, "this repairs nothing"),
        (0, Step::StopPartition { partition: web.clone(), force: true }, "this repairs nothing"),
        (0, Step::StartPartition { partition: web }, "has been started already"),
        (0, Step::StartPartition { partition: name("db") }, "nobody wants it to start"),
        (0, Step::CreateChannel { partition: name("db") }, "it is to have none"),
        (bind + 1, Step::AttachVf { owner: "db/net0".parse().unwrap(), vf: held }, "it is another's"),
    ];
    for (at, step, expected) in cases {
        let mut steps = good.steps.clone();
        steps.insert(at, step.clone());
        let plan = Plan { steps, ..good.clone() };
        let problems = lint(&plan, &world.inventory, &world.state).join("\n");
        assert!(problems.contains(expected), "{step}: {problems}");
    }
    let plan = Plan { id: good.id + 1, ..good };
    let problems = lint(&plan, &world.inventory, &world.state).join("\n");
    assert!(problems.contains("would make other plans stale"), "{problems}");
}
