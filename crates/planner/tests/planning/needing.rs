//! Needs of a request beyond a VF of its class, and the refusal when a host does not meet them.

use ioward_model::{Criterion, FailureDomain, HexId, Link, Subclass};

use crate::world::*;

/// Two NICs on two NUMA nodes, the nearer one of node 1 being the second.
fn two_nodes() -> World {
    host().nodes(2).nic(NIC, 7).but(|pf| pf.numa_node = Some(0)).nic(NIC2, 7).but(|pf| pf.numa_node = Some(1))
}

/// A partition with more keys than a name and its VFs.
fn partition_with(name: &str, keys: &str, vfs: &[&str]) -> String {
    partition(name, vfs).replacen("vf =", &format!("{keys}\nvf ="), 1)
}

fn decided(world: &World, wish: &ioward_model::Intent) -> Vec<(String, Criterion)> {
    let plan = world.plan(wish, SAFE).unwrap();
    plan.placements.iter().map(|placed| (placed.vf.pf.to_string(), placed.decided_by)).collect()
}

#[test]
fn a_vf_comes_from_the_partitions_numa_node_where_it_can() {
    let wish = |vfs: &[&str]| spec(&[partition_with("web", "numa_node = 1", vfs)]);
    let world = two_nodes();
    let placed = decided(&world, &wish(&["net0 network"]));
    assert_eq!(placed, [(NIC2.to_owned(), Criterion::NumaNode)]);
    // Eight of them: seven fit on the node, and the last is better far away than not at all.
    let many: Vec<String> = (0..8).map(|n| format!("net{n} network")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let placed = decided(&world, &wish(&many));
    assert_eq!(placed.iter().filter(|(pf, _)| pf == NIC2).count(), 7);
    assert_eq!(placed[7], (NIC.to_owned(), Criterion::Together));
    // Unless it says so.
    let strict: Vec<String> = many.iter().map(|vf| format!("{vf} numa=\"require\"")).collect();
    let strict: Vec<&str> = strict.iter().map(String::as_str).collect();
    let told = world.refuses(&wish(&strict), SAFE);
    assert!(
        told.contains(
            "[NumaNode] web/net7: 0000:01:00.0: required an adapter on NUMA node 1; found one on node 0"
        ),
        "{told}"
    );
    assert!(told.contains("[VfCapacity] web/net7: 0000:02:00.0: "), "{told}");
}

#[test]
fn a_node_that_is_not_there_is_refused() {
    let wish = spec(&[partition_with("web", "numa_node = 2", &["net0 network"])]);
    let told = two_nodes().refuses(&wish, SAFE);
    assert!(told.contains("[NumaNode] web: required NUMA node 2; found this host has 0, 1"), "{told}");
    assert!(host().nic(NIC, 7).refuses(&wish, SAFE).contains("the kernel of this host tells of none"));
}

#[test]
fn a_port_that_is_faster_than_needed_is_left_for_who_needs_it() {
    let fast = |world: World| world.but(|pf| pf.netdevs[0].speed_mbps = Some(25_000));
    let world = fast(host().nic(NIC, 7)).nic(NIC2, 7);
    let placed = decided(&world, &only("web", &["a network", "b network min_link_speed=\"10Gbit\""]));
    assert_eq!(placed, [(NIC2.to_owned(), Criterion::FreeCapacity), (NIC.to_owned(), Criterion::OnlyOne),]);
}

#[test]
fn two_vfs_that_are_apart_do_not_fail_together() {
    let apart = |by: &str| {
        let second = format!("b network apart_from=[{{vf=\"a\",by=\"{by}\"}}]");
        only("web", &["a network", &second])
    };
    // Two ports of one adapter, and another adapter.
    let world = || host().nic(NIC, 7).nic("0000:01:00.1", 7).nic(NIC2, 7);
    let on = |by: &str| {
        let mut world = world();
        world.does(&apart(by), SAFE);
        (world.vf_of("web/a"), world.vf_of("web/b"))
    };
    assert_eq!(on("port"), ("0000:01:00.0/0".into(), "0000:01:00.1/0".into()));
    assert_eq!(on("adapter"), ("0000:01:00.0/0".into(), "0000:02:00.0/0".into()));
    // Whoever comes later keeps away from who is there.
    let mut world = world();
    world.does(&only("web", &["a network"]), SAFE);
    world.does(&only("db", &["net0 network apart_from=[{vf=\"web/a\",by=\"adapter\"}]"]), SAFE);
    assert_eq!(world.vf_of("db/net0"), "0000:02:00.0/0");
}

#[test]
fn a_vf_that_cannot_be_apart_is_refused_and_a_wish_is_not() {
    let world = host().nic(NIC, 7);
    let told = world.refuses(&only("web", &["a network", "b network apart_from=[{vf=\"a\"}]"]), SAFE);
    let why = "[Redundancy] web/b: 0000:01:00.0: required another adapter than that of web/a; \
        found web/a has VF 0 of 0000:01:00.0, on the same adapter";
    assert!(told.contains(why), "{told}");
    world.clone().does(&only("web", &["a network", "b network apart_from=[{vf=\"a\",prefer=true}]"]), SAFE);
}

/// A misspelt partition was accepted, and the VFs failed together.
#[test]
fn a_vf_cannot_be_apart_from_one_that_is_nowhere() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("db", &["net0 network"]), SAFE);
    let apart_from = |other: &str| only("web", &[&format!("net0 network apart_from=[{{vf=\"{other}\"}}]")]);
    let told = world.refuses(&apart_from("bd/net0"), SAFE);
    let why = "[Redundancy] web/net0: required a VF bd/net0 to be apart from; \
        found there is no partition 'bd'; did you mean db/net0?";
    assert_eq!(told, why);
    let told = world.refuses(&apart_from("db/disk7"), SAFE);
    assert!(told.contains("db has no VF 'disk7'; one that comes later says it itself"), "{told}");
    // What a Spec names need not be held, and what is held need not be in the Spec.
    let second = partition("cache", &["net0 network"]);
    let both = spec(&[partition("web", &["net0 network apart_from=[{vf=\"cache/net0\"}]"]), second]);
    world.clone().does(&both, DISRUPT);
    world.does(&apart_from("db/net0"), SAFE);
    let told = world.refuses(&attach("web", "net1 network apart_from=[{vf=\"bd/net0\"}]"), SAFE);
    assert!(told.starts_with("[VfExists] web/net1: ") && told.ends_with("did you mean db/net0?"), "{told}");
    // It goes; who was to be apart from it is not told so at each change.
    world.does(&remove("db"), SAFE);
    let second = "net1 network";
    world.does(&only("web", &["net0 network apart_from=[{vf=\"db/net0\"}]", second]), SAFE);
}

/// A partition asks for something else than it has: the VF that is to be apart moves.
#[test]
fn who_asks_to_be_apart_later_moves() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7);
    world.does(&only("web", &["a network", "b network"]), SAFE);
    assert_eq!(world.vf_of("web/b"), "0000:01:00.0/1");
    let wish = only("web", &["a network", "b network apart_from=[{vf=\"a\"}]"]);
    world.does(&wish, DISRUPT);
    assert_eq!([world.vf_of("web/a"), world.vf_of("web/b")], ["0000:01:00.0/0", "0000:02:00.0/0"]);
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
}

#[test]
fn no_more_than_all_of_a_port_is_guaranteed() {
    // A driver that can guarantee a rate, on a port of 1 Gbit/s.
    let ice = |world: World| world.but(|pf| pf.driver = Some("ice".into()));
    let mut world = ice(host().nic(NIC, 7));
    world.does(&only("web", &["a network min_tx_rate=\"60%\""]), SAFE);
    let settings = &world.state.partitions[&"web".parse().unwrap()].vfs[&"a".parse().unwrap()].settings;
    assert_eq!(settings.min_tx_rate.unwrap().to_string(), "600Mbit");
    let wish = only("db", &["a network min_tx_rate=\"500Mbit\""]);
    let told = world.refuses(&wish, DISRUPT);
    assert!(
        told.contains("[Bandwidth] db/a: ") && told.contains("600Mbit of its 1Gbit are guaranteed to others"),
        "{told}"
    );
    // On two ports there is room for three times 60 hundredths only twice.
    let both = ice(ice(host().nic(NIC, 7)).nic(NIC2, 7));
    let sixty = |names: &[&str]| {
        let vfs: Vec<String> =
            names.iter().map(|name| format!("{name} network min_tx_rate=\"60%\"")).collect();
        only("web", &vfs.iter().map(String::as_str).collect::<Vec<_>>())
    };
    both.clone().does(&sixty(&["a", "b"]), SAFE);
    assert!(both.refuses(&sixty(&["a", "b", "c"]), SAFE).contains("[Bandwidth] web/c: "));
}

/// First come first served would fill both ports with halves that leave no room for the large one.
#[test]
fn guarantees_are_packed_so_that_all_fit() {
    let ice = |world: World| world.but(|pf| pf.driver = Some("ice".into()));
    let mut world = ice(ice(host().nic(NIC, 7)).nic(NIC2, 7));
    let vfs = [
        "a network min_tx_rate=\"40%\"",
        "b network min_tx_rate=\"60%\"",
        "c network min_tx_rate=\"40%\"",
        "d network min_tx_rate=\"60%\"",
    ];
    world.does(&only("web", &vfs), SAFE);
    let on = |pf: &str| {
        ["a", "b", "c", "d"].iter().filter(|vf| world.vf_of(&format!("web/{vf}")).starts_with(pf)).count()
    };
    assert_eq!((on(NIC), on(NIC2)), (2, 2));
}

#[test]
fn what_the_driver_cannot_do_is_said_before_it_is_tried() {
    let igb = host().nic(NIC, 7).but(|pf| {
        pf.driver = Some("igb".into());
        use ioward_model::Capability;
        let can = [Capability::RateLimit, Capability::Spoofchk, Capability::Trust, Capability::Vlan];
        pf.capabilities = Some(can.into());
    });
    let refused = |vf: &str| igb.refuses(&only("web", &[vf]), SAFE);
    let told = refused("a network min_tx_rate=\"100Mbit\"");
    assert!(
        told.contains(
            "[Capability] web/a: 0000:01:00.0: required guaranteed-rate; found its driver igb cannot do that"
        ),
        "{told}"
    );
    assert!(refused("a network link_state=\"enable\"").contains("required link-state"));
    assert!(refused("a network vlan={id=5,protocol=\"802.1ad\"}").contains("required vlan-802.1ad"));
    assert!(refused("a network needs=[\"rdma\"]").contains("required rdma; found its PF has no RDMA device"));
    let without_link = igb.clone().but(|pf| {
        pf.netdevs[0].carrier = Some(false);
        pf.netdevs[0].speed_mbps = None;
    });
    let told = without_link.refuses(&only("web", &["a network max_tx_rate=\"100Mbit\""]), SAFE);
    assert!(told.contains("[DriverReady]") && told.contains("ip link set eth0 up"), "{told}");
    // bnxt_en answers 0 to sriov_numvfs while its interface is down: systemd/systemd#40739.
    let bnxt = host().nic(NIC, 7).but(|pf| {
        pf.driver = Some("bnxt_en".into());
        pf.netdevs[0].up = false;
    });
    assert!(
        bnxt.refuses(&only("web", &["a network"]), SAFE).contains("bnxt_en makes no VFs while eth0 is down")
    );
}

#[test]
fn a_guest_gets_what_it_can_drive() {
    let world = host().nic(NIC, 7);
    let wish = |guest: &str| spec(&[partition_with("web", guest, &["a network"])]);
    world.clone().does(&wish("guest = { os = \"linux\" }"), SAFE);
    world.clone().does(&wish("guest = { drivers = [\"igbvf\"] }"), SAFE);
    let told = world.refuses(&wish("guest = { os = \"windows\" }"), SAFE);
    assert!(told.contains("[GuestDriver] web/a: 0000:01:00.0: required a VF that windows has a driver for; found windows has none for 8086:10ca"), "{told}");
    let told = world.refuses(&wish("guest = { drivers = [\"iavf\"] }"), SAFE);
    assert!(told.contains("required a guest with igbvf or igb for a VF 8086:10ca; found iavf"), "{told}");
    let unknown = host().nic(NIC, 7).but(|pf| pf.sriov.as_mut().unwrap().vf_device_id = HexId(0xffff));
    assert!(
        unknown.refuses(&wish("guest = { os = \"linux\" }"), SAFE).contains("none is known for 8086:ffff")
    );
}

#[test]
fn links_and_kinds_are_looked_at_closely() {
    let world = host().nic(NIC, 7).but(|pf| {
        pf.subclass = Some(Subclass::Ethernet);
        pf.netdevs[0].carrier = Some(false);
        pf.link = Some(Link { speed_mts: 5000, width: 1, max_speed_mts: 5000, max_width: 4 });
    });
    let refused = |vf: &str| world.refuses(&only("web", &[vf]), SAFE);
    assert!(
        refused("a network subclass=\"infiniband\"")
            .contains("[Subclass] web/a: 0000:01:00.0: required infiniband; found ethernet")
    );
    assert!(refused("a network carrier=true").contains("[Carrier] web/a"));
    let told = refused("a network min_pcie_bandwidth=\"10Gbit\"");
    assert!(
        told.contains("required a PCIe link of 10Gbit or more; found one of 4Gbit")
            && told.contains("wider slot"),
        "{told}"
    );
    assert!(refused("a network min_msix_vectors=3").contains("[MsixVectors]"));
    let known = host().nic(NIC, 7).giving(1).but(|pf| pf.virtual_functions[0].msix_vectors = Some(3));
    known.clone().does(&only("web", &["a network min_msix_vectors=3"]), SAFE);
    assert!(
        known
            .refuses(&only("web", &["a network min_msix_vectors=4"]), SAFE)
            .contains("required a VF with 4 MSI-X vectors; found 3")
    );
    let nvme = host().nvme(SSD, 4);
    nvme.clone().does(&only("db", &["a nvme min_namespaces=1"]), SAFE);
    assert!(nvme.refuses(&only("db", &["a nvme min_namespaces=2"]), SAFE).contains("[Namespaces]"));
}

#[test]
fn what_a_pf_can_share_out_of_interrupts_is_shared_out_once() {
    let mlx = host().nic(NIC, 7).but(|pf| pf.vf_msix_total = Some(10));
    mlx.clone().does(&only("web", &["a network min_msix_vectors=6", "b network min_msix_vectors=4"]), SAFE);
    let told =
        mlx.refuses(&only("web", &["a network min_msix_vectors=6", "b network min_msix_vectors=5"]), SAFE);
    assert!(
        told.contains("[MsixVectors]") && told.contains("4 of the 10 that the PF can share out are left"),
        "{told}"
    );
}

/// Without ACS above the slot, VFs that do not exist yet would land in a group with other devices: lxc/incus#3422.
#[test]
fn a_slot_that_shares_its_iommu_group_gives_no_vfs() {
    let world = host().nic(NIC, 7).but(|pf| pf.iommu_group_shared_with = vec![at("0000:00:1f.2")]);
    let told = world.refuses(&only("web", &["a network"]), SAFE);
    assert!(told.contains("[IommuGroup] web/a: 0000:01:00.0: required an IOMMU group of its own for each VF; found its slot shares one with 0000:00:1f.2"), "{told}");
}

/// A frame does not leave its VLAN: the same address in two of them is two stations.
#[test]
fn a_mac_is_one_stations_in_each_vlan() {
    let mut world = host().nic(NIC, 7);
    let mac = "mac=\"52:54:00:aa:00:01\"";
    world.does(&spec(&[adapter(NIC, "4"), partition("web", &[&format!("a network {mac} vlan=5")])]), SAFE);
    world.does(&only("db", &[&format!("a network {mac} vlan=6")]), SAFE);
    assert!(
        world.refuses(&only("x", &[&format!("a network {mac} vlan=5")]), SAFE).contains("[MacUnique] x/a")
    );
}

#[test]
fn some_to_spare_are_made_with_the_first_and_disturb_nobody_later() {
    let mut world = host().nic(NIC, 7);
    let spare = format!("[[adapter]]\npf = \"{NIC}\"\nspare = 2\n");
    let wish = spec(&[spare.clone(), partition("web", &["a network"])]);
    let steps = world.does(&wish, SAFE);
    assert!(steps.contains(&"set the number of VFs of 0000:01:00.0 from 0 to 3".into()), "{steps:?}");
    world.does(&only("db", &["a network", "b network"]), SAFE);
    assert_eq!(world.pf(at(NIC)).num_vfs(), 3, "they were there already");
    // To have two to spare again would cost web its VF for a while: a wish is not worth that.
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
    let beyond = only("x", &["a network"]);
    assert!(world.refuses(&beyond, SAFE).contains("[Disruption]"));
    let steps = world.does(&beyond, DISRUPT);
    assert!(steps.contains(&"set the number of VFs of 0000:01:00.0 from 0 to 6".into()), "{steps:?}");
}

#[test]
fn a_plan_says_what_decided() {
    let mut world = host().nic(NIC, 7).nic(NIC2, 7).giving(2);
    let pinned = format!("b network pf=\"{NIC}\"");
    let wish = only("web", &["a network", &pinned]);
    let placed = decided(&world, &wish);
    assert_eq!(placed, [(NIC2.to_owned(), Criterion::VfCount), (NIC.to_owned(), Criterion::Pinned)]);
    world.does(&wish, SAFE);
    assert!(decided(&world, &wish).iter().all(|(_, decided_by)| *decided_by == Criterion::Kept));
}

#[test]
fn a_failure_domain_has_a_word() {
    assert_eq!(FailureDomain::NumaNode.as_str(), "numa-node");
}
