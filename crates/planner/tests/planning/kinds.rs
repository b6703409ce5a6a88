//! Domains and namespaces: what is theirs stays theirs, and a namespace has its VFs by a driver of the host's.

use ioward_model::{Difference, Intent, KindName, Name, PartitionStatus, Reason, Step};
use ioward_planner::Comparison;

use crate::world::*;

const NET: &str = "net0 network mac=\"52:54:00:aa:00:01\"";

fn domain(name: &str, vfs: &[&str]) -> String {
    of_kind("libvirt", &partition(name, vfs))
}

fn namespace(name: &str, vfs: &[&str]) -> String {
    of_kind("netns", &partition(name, vfs))
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Somebody starts or stops a domain.
fn turn(world: &mut World, partition: &str, running: bool) {
    world.state.partitions.get_mut(&name(partition)).unwrap().running = running;
}

#[test]
fn a_domain_becomes_a_partition_as_it_is() {
    let mut world = host().nic(NIC, 7);
    let steps = world.does(&spec(&[domain("web", &[NET])]), SAFE);
    assert_eq!(
        steps[3..],
        [
            "create partition web: domain web",
            "assign VF 0 of 0000:01:00.0 to web/net0",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "create the channel of web",
            "attach VF 0 of 0000:01:00.0 to web as net0",
        ],
        "it is not started"
    );
    assert_eq!(world.does(&start("web"), SAFE), ["start partition web"]);
    assert_eq!(world.does(&stop("web"), SAFE), ["stop partition web"], "libvirt is asked to");
}

#[test]
fn a_namespace_has_its_vf_by_the_driver_that_is_the_vf_s_own() {
    let mut world = host().nic(NIC, 7);
    // Nothing of this needs an IOMMU.
    (world.inventory.iommu, world.inventory.vfio_pci) = (false, Some(false));
    let wish = spec(&[namespace("pod", &[NET])]);
    let steps = world.does(&wish, SAFE);
    assert_eq!(
        steps[3..],
        [
            "create partition pod: namespace pod",
            "assign VF 0 of 0000:01:00.0 to pod/net0",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to igbvf",
            "create the channel of pod",
            "attach VF 0 of 0000:01:00.0 to pod as net0",
        ]
    );
    assert!(world.state.partitions[&name("pod")].running, "one that exists runs");
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
    let machine = world.refuses(&only("web", &["net0 network"]), SAFE);
    assert!(machine.contains("IOMMU"), "{machine}");
}

/// A driver that has its device already has read the MAC that it had.
#[test]
fn a_vf_that_is_on_its_own_driver_is_set_while_it_has_none() {
    let mut world = host().nic(NIC, 7).giving(2);
    let before = world.inventory.clone();
    let steps = world.does(&spec(&[namespace("pod", &[NET])]), SAFE);
    let position = |line: &str| steps.iter().position(|step| step.starts_with(line)).unwrap();
    let [off, set, on] = ["leave VF 0", "configure VF 0", "bind VF 0 of 0000:01:00.0 to igbvf"].map(position);
    assert!(off < set && set < on, "{steps:#?}");
    let steps = world.does(&remove("pod"), SAFE);
    let expected = [
        "detach net0 (VF 0 of 0000:01:00.0) from pod",
        "destroy the channel of pod",
        "leave VF 0 of 0000:01:00.0 without a driver",
        "reset VF 0 of 0000:01:00.0",
        "configure VF 0 of 0000:01:00.0: mac=00:00:00:00:00:00",
        "bind VF 0 of 0000:01:00.0 to igbvf",
        "take VF 0 of 0000:01:00.0 from pod/net0",
        "remove partition pod",
    ];
    assert_eq!(steps[..8], expected, "it is not stopped, and its VF is reset without its driver");
    assert_eq!(world.inventory, before);
}

#[test]
fn a_domain_that_is_removed_goes_on() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[domain("web", &[NET])]), SAFE);
    turn(&mut world, "web", true);
    let plan = world.plan(&remove("web"), SAFE).unwrap();
    assert!(!plan.steps.iter().any(|step| matches!(step, Step::StopPartition { .. })));
    assert_eq!(
        (plan.disturbs[0].who.as_str(), plan.disturbs[0].what.as_str()),
        ("web", "loses net0 as it is removed")
    );
}

#[test]
fn a_namespace_is_neither_started_nor_stopped() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[namespace("pod", &[])]), SAFE);
    for intent in [start("pod"), stop("pod")] {
        let told = world.refuses(&intent, ANYTHING);
        assert_eq!(
            told,
            "[PartitionPhase] pod: required a partition that is started and stopped; found pod is a namespace pod: a \
             namespace is not started; start or stop what made the namespace"
        );
    }
}

#[test]
fn a_namespace_has_network_interfaces_only() {
    let mut world = host().nic(NIC, 7).nvme(SSD, 4);
    let told = world.refuses(&spec(&[namespace("pod", &["disk0 nvme"])]), SAFE);
    assert!(told.starts_with("[Class] pod/disk0: required a VF of class network"), "{told}");
    world.does(&spec(&[namespace("pod", &[])]), SAFE);
    let told = world.refuses(&attach("pod", "disk0 nvme"), SAFE);
    assert!(told.starts_with("[Class] pod/disk0: "), "{told}");
    world =
        host().nic(NIC, 7).but(|pf| pf.sriov.as_mut().unwrap().vf_device_id = ioward_model::HexId(0xffff));
    let told = world.refuses(&spec(&[namespace("pod", &[NET])]), SAFE);
    assert!(told.contains("none is known for 8086:ffff"), "{told}");
    world.does(&only("web", &[NET]), SAFE);
}

/// The first reason that names this key.
fn reason_at(world: &World, intent: &Intent, key: &str) -> Reason {
    let reasons = world.plan(intent, ANYTHING).unwrap_err();
    reasons.into_iter().find(|reason| reason.key.as_deref() == Some(key)).unwrap()
}

#[test]
fn a_domain_or_a_namespace_is_one_partition() {
    let mut world = host();
    world.does(&spec(&[domain("web", &[]), namespace("pod", &[])]), SAFE);
    for (kind, other) in [("libvirt", "web"), ("netns", "pod")] {
        let twice = of_kind(kind, &partition(other, &[])).replacen(&format!("\"{other}\""), "\"second\"", 1);
        let reason = reason_at(&world, &spec(std::slice::from_ref(&twice)), kind);
        assert!(reason.found.ends_with(&format!("is partition {other}")), "{reason}");
        // A Spec with both says so by itself.
        let both = format!("version = 1\n{twice}{}", of_kind(kind, &partition(other, &[])));
        assert!(ioward_model::Spec::parse(both.as_bytes()).is_err());
    }
}

#[test]
fn a_partition_stays_of_its_kind() {
    let mut world = host();
    world.does(&spec(&[domain("web", &[])]), SAFE);
    turn(&mut world, "web", true);
    for other in [partition("web", &[]), namespace("web", &[])] {
        let told = world.refuses(&spec(&[other]), ANYTHING);
        assert!(told.starts_with("[PartitionKind] web: required web, which is domain web; found "), "{told}");
    }
    let renamed = domain("web", &[]).replace("libvirt = \"web\"", "libvirt = \"shop\"");
    assert_eq!(world.does(&spec(&[renamed]), SAFE), ["redefine partition web: domain shop"]);
    world.does(&spec(&[namespace("pod", &[])]), SAFE);
    let other = namespace("pod", &[]).replace("netns = \"pod\"", "netns = \"other\"");
    assert!(world.refuses(&spec(&[other]), ANYTHING).contains("required pod, which is namespace pod"));
}

fn status(kind: KindName, partition: &str, running: bool, vfs: &[&str]) -> PartitionStatus {
    PartitionStatus {
        name: name(partition),
        kind,
        running,
        halted: None,
        accelerator: None,
        pid: None,
        console: None,
        vfs: vfs.iter().map(|address| (name("net0"), at(address))).collect(),
        lacks: Vec::new(),
        standbys: Vec::new(),
        gone: false,
        channel: true,
    }
}

/// How the host differs with the partition like this, and what is planned for that.
fn repaired(world: &World, status: PartitionStatus) -> (Vec<(Difference, Option<String>)>, Vec<String>) {
    let running = if status.running { vec![status.name.clone()] } else { Vec::new() };
    let machines = [status];
    let comparison =
        Comparison { inventory: &world.inventory, state: &world.state, machines: &machines, booted: false };
    let drifts = comparison.differences();
    let told = drifts.iter().map(|drift| (drift.what.clone(), drift.left_because.clone())).collect();
    let drifts = drifts.into_iter().filter(|drift| drift.left_because.is_none()).collect();
    let plan = world.plan(&Intent::Reconcile { drifts, start: Vec::new(), running }, SAFE).unwrap();
    (told, lines(&plan))
}

/// A container that was started anew: its interface fell back to the host.
#[test]
fn a_namespace_that_is_there_again_gets_its_interface_back_and_a_domain_is_left() {
    for (kind, spec_of) in
        [(KindName::Namespace, namespace as fn(&str, &[&str]) -> String), (KindName::Domain, domain)]
    {
        let mut world = host().nic(NIC, 7);
        world.does(&spec(&[spec_of("p", &[NET])]), SAFE);
        let vf = world.pf(at(NIC)).virtual_functions[0].address.to_string();
        let (told, _) = repaired(&world, status(kind, "p", true, &[&vf]));
        assert_eq!(told, []);
        let (told, steps) = repaired(&world, status(kind, "p", true, &[]));
        let [(Difference::NotAttached { .. }, left)] = told.as_slice() else { unreachable!("{told:?}") };
        let is_namespace = kind == KindName::Namespace;
        assert_eq!(left.is_none(), is_namespace, "{left:?}");
        assert_eq!(steps.is_empty(), !is_namespace, "{steps:?}");
        // It is noted for the namespace all the same: nobody else gets it meanwhile.
        let lacking = PartitionStatus { lacks: vec![name("net0")], ..status(kind, "p", true, &[&vf]) };
        // Of a domain it means that nobody has taken it out: libvirt ended in the middle of giving it.
        let (told, steps) = repaired(&world, lacking);
        assert!(matches!(told.as_slice(), [(Difference::NotAttached { .. }, None)]), "{told:?}");
        assert_eq!(steps, ["attach VF 0 of 0000:01:00.0 to p as net0"]);
        let (told, _) = repaired(&world, status(kind, "p", false, &[]));
        assert_eq!(told[0].1.as_deref(), is_namespace.then_some("its namespace is not there"));
    }
}

#[test]
fn the_driver_that_a_namespace_s_vf_has_lost_is_its_own() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[namespace("pod", &[NET])]), SAFE);
    let bound = |world: &mut World, driver: Option<&str>| {
        let pf = &mut world.inventory.physical_functions[0];
        pf.virtual_functions[0].driver = driver.map(str::to_owned);
    };
    bound(&mut world, None);
    let (told, steps) = repaired(&world, status(KindName::Namespace, "pod", true, &[]));
    let Difference::Driver { noted, .. } = &told[0].0 else { unreachable!("{told:?}") };
    assert_eq!(noted, "igbvf");
    let expected = ["bind VF 0 of 0000:01:00.0 to igbvf", "attach VF 0 of 0000:01:00.0 to pod as net0"];
    assert_eq!(steps, expected);
    let vf = world.pf(at(NIC)).virtual_functions[0].address.to_string();
    let (told, _) = repaired(&world, status(KindName::Namespace, "pod", true, &[&vf]));
    assert!(told[0].1.is_some(), "what it has is not bound anew");
    let lacking =
        PartitionStatus { lacks: vec![name("net0")], ..status(KindName::Namespace, "pod", true, &[&vf]) };
    assert_eq!(repaired(&world, lacking).1, expected, "what it lacks is");
}
