//! From a Spec to steps, on a host that ioward has not touched.

use crate::world::*;

#[test]
fn a_partition_with_a_network_vf_is_built_from_nothing() {
    let mut world = host().nic(NIC, 7);
    let steps = world.does(&only("web", &["net0 network mac=\"52:54:00:aa:00:01\" vlan=5"]), SAFE);
    assert_eq!(
        steps,
        [
            "note how 0000:01:00.0 was found: 0 VFs, autoprobe true",
            "turn driver autoprobe off for 0000:01:00.0",
            "set the number of VFs of 0000:01:00.0 from 0 to 1",
            "create partition web: 1 CPU, 512MiB",
            "assign VF 0 of 0000:01:00.0 to web/net0",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01 vlan=5",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "create the channel of web",
            "attach VF 0 of 0000:01:00.0 to web as net0",
            "start partition web",
        ]
    );
}

#[test]
fn a_plan_names_what_it_was_made_from() {
    let mut world = host().nic(NIC, 7);
    world.state.revision = 41;
    let plan = world.plan(&only("web", &[]), SAFE).unwrap();
    assert_eq!((plan.parent, plan.id, plan.generation), (41, 42, 7));
    assert_eq!(
        lines(&plan),
        ["create partition web: 1 CPU, 512MiB", "start partition web"],
        "no VFs, no channel"
    );
}

#[test]
fn applying_again_does_nothing() {
    let mut world = host().nic(NIC, 7).nvme(SSD, 4);
    let wish = spec(&[
        adapter(NIC, "4"),
        partition("web", &["net0 network", "net1 network"]),
        partition("db", &["disk0 nvme"]),
    ]);
    world.does(&wish, SAFE);
    let again = world.plan(&wish, SAFE).unwrap();
    assert_eq!(lines(&again), [""; 0]);
    assert_eq!(again.id, 2, "a plan without steps is a plan");
}

#[test]
fn an_nvme_vf_gets_an_even_share_and_goes_online() {
    let mut world = host().nvme(SSD, 4);
    let steps = world.does(&only("db", &["disk0 nvme"]), SAFE);
    assert!(
        steps.contains(&"configure VF 0 of 0000:03:00.0: queues=2 interrupts=1 online=on".into()),
        "{steps:?}"
    );
    let mut world = host().nvme(SSD, 4);
    let steps = world.does(&spec(&[adapter(SSD, "2"), partition("db", &["disk0 nvme"])]), SAFE);
    assert!(
        steps.contains(&"configure VF 0 of 0000:03:00.0: queues=4 interrupts=2 online=on".into()),
        "{steps:?}"
    );
    let mut world = host().nvme(SSD, 4).but(|pf| pf.nvme.as_mut().unwrap().resources = None);
    let steps = world.does(&only("db", &["disk0 nvme queues=5"]), SAFE);
    assert!(
        steps.contains(&"configure VF 0 of 0000:03:00.0: queues=5 interrupts=1 online=on".into()),
        "{steps:?}"
    );
}

#[test]
fn other_classes_are_bound_and_nothing_else() {
    let mut world = host().adapter(SSD, 2, ioward_model::Class::Accelerator, Vec::new(), None);
    let steps = world.does(&only("ai", &["acc0 accelerator"]), SAFE);
    assert!(!steps.iter().any(|step| step.starts_with("configure")), "{steps:?}");
    assert!(steps.contains(&"bind VF 0 of 0000:03:00.0 to vfio-pci".into()));
}

/// A new MAC at each boot broke DHCP and licences: harvester/harvester#6954.
#[test]
fn a_mac_that_nobody_chose_is_the_same_for_the_same_names() {
    let mac = |name| {
        let mut world = host().nic(NIC, 7);
        world.does(&only(name, &["net0 network"]), SAFE);
        world.state.partitions[&name.parse().unwrap()].vfs[&"net0".parse().unwrap()].settings.mac.unwrap()
    };
    assert_eq!(mac("web"), mac("web"));
    assert_ne!(mac("web"), mac("db"));
    assert!(mac("web").to_string().starts_with("52:54:00:"));
}

#[test]
fn a_made_mac_gives_way_to_whoever_has_it_already() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    let made =
        world.state.partitions[&"web".parse().unwrap()].vfs[&"net0".parse().unwrap()].settings.mac.unwrap();
    let mut world = host().nic(NIC, 7).but(|pf| pf.netdevs[0].permanent_mac = Some(made));
    let steps = world.does(&only("web", &["net0 network"]), SAFE);
    assert!(!steps.iter().any(|step| step.contains(&made.to_string())), "{steps:?}");
}

#[test]
fn a_spec_that_names_only_adapters_makes_vfs_for_later() {
    let mut world = host().nic(NIC, 7);
    let steps = world.does(&spec(&[adapter(NIC, "\"max\"")]), SAFE);
    assert_eq!(
        steps,
        [
            "note how 0000:01:00.0 was found: 0 VFs, autoprobe true",
            "turn driver autoprobe off for 0000:01:00.0",
            "set the number of VFs of 0000:01:00.0 from 0 to 7",
        ]
    );
    assert_eq!(
        lines(&world.plan(&spec(&[adapter(NIC, "7")]), SAFE).unwrap()).len(),
        1,
        "only the note changes"
    );
}

#[test]
fn what_a_spec_does_not_name_is_left_alone() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&spec(&[adapter(NIC, "3"), partition("web", &["net0 network"])]), SAFE);
    world.write_numvfs(at(NIC2), 2);
    let steps = world.does(&only("db", &[]), SAFE);
    assert_eq!(steps, ["create partition db: 1 CPU, 512MiB", "start partition db"]);
}

#[test]
fn who_an_adapter_is_is_noted_when_it_is_first_changed() {
    let serial = |serial: &str| Some(format!("00-1b-21-ff-ff-00-00-{serial}"));
    let mut world = host()
        .nic(NIC, 7)
        .but(|pf| pf.serial_number = serial("01"))
        .nic("0000:05:00.0", 7)
        .but(|pf| pf.serial_number = serial("02"));
    world.does(&spec(&[adapter(NIC, "3")]), SAFE);
    let noted = |world: &World| world.state.adapters[&at(NIC)].identity.clone().unwrap().serial_number;
    assert_eq!(noted(&world), serial("01"));
    // Later requests are no reason to take it for another adapter.
    world.inventory.physical_functions[0].serial_number = serial("09");
    world.does(&spec(&[adapter(NIC, "4")]), SAFE);
    assert_eq!(noted(&world), serial("01"));
}
