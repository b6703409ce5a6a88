//! Which VF a request gets.

use ioward_model::{AdapterSpec, Holder, Label, Process, Rule, Runs, VfCount, VfId};
use ioward_planner::{Candidate, suitability};

use crate::world::*;

#[test]
fn the_lowest_adapter_and_index_come_first() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &["net0 network", "net1 network"]), SAFE);
    assert_eq!([world.vf_of("web/net0"), world.vf_of("web/net1")], ["0000:01:00.0/0", "0000:01:00.0/1"]);
}

#[test]
fn a_vf_that_is_there_comes_before_one_that_has_to_be_made() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7).giving(2);
    let steps = world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:02:00.0/0");
    assert!(!steps.iter().any(|step| step.starts_with("set the number")), "{steps:?}");
}

#[test]
fn a_vf_that_the_spec_makes_counts_as_there() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&spec(&[adapter(NIC2, "2"), partition("web", &["net0 network"])]), SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:02:00.0/0");
}

#[test]
fn an_adapter_that_the_host_uses_comes_last_even_when_allowed() {
    let mut world = host().nic(NIC, 7).used_by_host().nic(NIC2, 1);
    let wish = only("web", &["net0 network"]);
    world.clone().does(&wish, SAFE);
    world.does(&only("web", &["net0 network", "net1 network"]), MANAGEMENT);
    assert_eq!([world.vf_of("web/net0"), world.vf_of("web/net1")], ["0000:02:00.0/0", "0000:01:00.0/0"]);
}

#[test]
fn pinned_requests_choose_before_the_others() {
    let mut world = host().nic(NIC, 7);
    let pinned = format!("net1 network pf=\"{NIC}\" index=0");
    world.does(&only("web", &["net0 network", &pinned]), SAFE);
    assert_eq!([world.vf_of("web/net0"), world.vf_of("web/net1")], ["0000:01:00.0/1", "0000:01:00.0/0"]);
}

#[test]
fn the_request_with_the_greater_need_chooses_first() {
    let mut world = host().nic(NIC, 1).but(|pf| pf.netdevs[0].speed_mbps = Some(10_000)).nic(NIC2, 1);
    world.does(&only("web", &["slow network", "fast network min_link_speed=\"10Gbit\""]), SAFE);
    assert_eq!([world.vf_of("web/fast"), world.vf_of("web/slow")], ["0000:01:00.0/0", "0000:02:00.0/0"]);
}

#[test]
fn a_vf_of_somebody_else_is_never_taken() {
    let mut world = host().nic(NIC, 7).giving(3).with_vf_used_by_host(0).with_vf_lent_by_somebody(1);
    world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:01:00.0/2", "bound to the host's driver, and unused");
    let pinned = |index| only("db", &[&format!("net0 network pf=\"{NIC}\" index={index}")]);
    assert!(world.refuses(&pinned(0), ANYTHING).contains("[VfFree] db/net0: 0000:01:10.0: "));
    assert!(world.refuses(&pinned(1), ANYTHING).contains("bound to vfio-pci, and not by ioward"));
    assert!(world.refuses(&pinned(2), ANYTHING).contains("web/net0 has it"));
}

fn domain() -> Holder {
    let runs = Runs::LibvirtDomain { name: Label::new("web") };
    Holder::Process(Process { pid: 812, command: Label::new("qemu-system-x86"), runs })
}

fn elsewhere() -> Holder {
    let (name, netdevs) = (Some(Label::new("blue")), vec![Label::new("eth1")]);
    Holder::NetworkNamespace { name, netdevs, process: None }
}

/// A VF whose interface had been moved into a container looked free: its driver is the host's, and sysfs shows no interface.
#[test]
fn who_has_a_vf_is_named_and_keeps_it() {
    let world = host()
        .nic(NIC, 7)
        .giving(5)
        .with_vf_held(0, "vfio-pci", domain())
        .with_vf_held(1, "igbvf", elsewhere())
        .with_vf_held(2, "vfio-pci", Holder::Nobody)
        .but(|pf| pf.virtual_functions[3].driver = Some("igb_uio".into()));
    let pinned = |index| only("db", &[&format!("net0 network pf=\"{NIC}\" index={index}")]);
    let begin =
        |function: &str| format!("[VfFree] db/net0: {function}: required a VF that nobody has; found ");
    let told = [0, 1, 2, 3].map(|index| world.refuses(&pinned(index), ANYTHING));
    let expected = [
        begin("0000:01:10.0") + "held by libvirt domain web (qemu pid 812)",
        begin("0000:01:10.2") + "held by network namespace blue, as eth1",
        begin("0000:01:10.4")
            + "it is bound to vfio-pci, and not by ioward; nobody has it open; ioward orphans --reap takes it back",
        begin("0000:01:10.6") + "it is bound to igb_uio, and not by ioward",
    ];
    assert_eq!(told, expected);
    let mut world = world;
    world.does(&only("db", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("db/net0"), "0000:01:00.0/4", "what is nobody's is still there to have");
}

#[test]
fn the_number_of_vfs_of_an_adapter_that_somebody_uses_stays() {
    for (driver, holder, who) in [
        ("vfio-pci", domain(), "libvirt domain web (qemu pid 812) loses VF 0 of 0000:01:00.0 (0000:01:10.0)"),
        ("igbvf", elsewhere(), "network namespace blue, as eth1 loses VF 0 of 0000:01:00.0 (0000:01:10.0)"),
    ] {
        let world = host().nic(NIC, 7).giving(1).with_vf_held(0, driver, holder);
        for wish in [spec(&[adapter(NIC, "4")]), spec(&[adapter(NIC, "0")]), only("db", &["net0 network"])] {
            let told = world.refuses(&wish, SAFE);
            assert!(told.contains("[Disruption]") && told.contains(who), "{told}");
        }
        let plan = world.plan(&spec(&[adapter(NIC, "4")]), DISRUPT).unwrap();
        assert_eq!(plan.disturbs.len(), 1, "and it is named where a person allows it");
    }
}

/// Growing destroyed VFs in use: lxc/incus#2845.
#[test]
fn an_adapter_that_would_have_to_disturb_someone_is_passed_over() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    world.does(&only("db", &["net0 network"]), SAFE);
    assert_eq!([world.vf_of("web/net0"), world.vf_of("db/net0")], ["0000:01:00.0/0", "0000:02:00.0/0"]);
}

#[test]
fn what_fits_stays_though_something_better_has_come() {
    let mut world = host().nic(NIC, 1).nic(NIC2, 7);
    world.does(&only("web", &["net0 network", "net1 network"]), SAFE);
    assert_eq!(world.vf_of("web/net1"), "0000:02:00.0/0");
    let steps = world.does(&only("web", &["net1 network"]), DISRUPT);
    assert_eq!(world.vf_of("web/net1"), "0000:02:00.0/0");
    assert!(steps.contains(&"take VF 0 of 0000:01:00.0 from web/net0".into()), "{steps:?}");
}

#[test]
fn a_link_that_goes_down_takes_no_vf_away() {
    let mut world = host().nic(NIC, 7);
    let wish = only("web", &["net0 network min_link_speed=\"1Gbit\""]);
    world.does(&wish, SAFE);
    world.inventory.physical_functions[0].netdevs[0].speed_mbps = None;
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
    let more = only("web", &["net0 network min_link_speed=\"10Gbit\""]);
    assert!(world.refuses(&more, SAFE).contains("its speed is not known"));
}

/// Candidates for a VF of a partition `web` that is not there yet.
fn suits(world: &World, named: &[AdapterSpec], vf: &str) -> Vec<Candidate> {
    let partition = partition_of("web", &[vf]);
    suitability(&world.inventory, &world.state, named, &partition, &partition.vfs[0])
}

#[test]
fn suitability_lists_what_suits_best_first_and_why_not_the_rest() {
    let world = host().nic(NIC, 2).used_by_host().nic(NIC2, 2).giving(1).nvme(SSD, 1);
    let found = suits(&world, &[], "net0 network");
    let vfs: Vec<_> = found.iter().map(|candidate| candidate.vf).collect();
    let vf = |pf, index| VfId { pf: at(pf), index };
    assert_eq!(vfs, [vf(NIC2, 0), vf(NIC2, 1), vf(NIC, 0), vf(NIC, 1), vf(SSD, 0)]);
    let rules: Vec<Vec<Rule>> =
        found.iter().map(|candidate| candidate.reasons.iter().map(|reason| reason.rule).collect()).collect();
    assert_eq!(
        rules,
        [vec![], vec![], vec![Rule::ManagementNic], vec![Rule::ManagementNic], vec![Rule::Class]]
    );
}

#[test]
fn suitability_of_a_pinned_request_is_about_the_pin() {
    let world = host().nic(NIC, 2);
    let ask = |vf: &str| suits(&world, &[], vf);
    let found = ask(&format!("net0 network pf=\"{NIC}\" index=9"));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].reasons[0].rule, Rule::VfIndex);
    assert_eq!(ask("net0 network pf=\"0000:77:00.0\"")[0].reasons[0].rule, Rule::FunctionExists);
}

/// `ioward compatible` and `ioward plan` agree on a Spec: looking at the request alone would promise too much.
#[test]
fn suitability_goes_by_the_numbers_of_vfs_that_the_spec_asks_for() {
    let world = host().nic(NIC, 3);
    let ask = |count| {
        let named = [AdapterSpec { pf: at(NIC), vfs: Some(VfCount::Exactly(count)), spare: None }];
        let found = suits(&world, &named, "net0 network");
        found
            .into_iter()
            .map(|candidate| candidate.reasons.first().map(|reason| reason.rule))
            .collect::<Vec<_>>()
    };
    assert_eq!(ask(2), [None, None, Some(Rule::VfIndex)]);
    assert_eq!(ask(4), [Some(Rule::VfCapacity); 3]);
}
