//! Why not: each rule, with what was required and what was found.

use ioward_model::{Intent, Rule};

use crate::world::*;

/// Each refusal as `[Rule] request: function: …`, and a word that it must contain.
#[test]
fn each_no_says_which_rule_for_whom_where_and_why() {
    let two = || host().nic(NIC, 7).nvme(SSD, 4);
    let web = |vf: &str| only("web", &[vf]);
    let on = |pf: &str, rest: &str| format!("net0 network pf=\"{pf}\" {rest}");
    let cases = [
        (two(), web(&on("0000:77:00.0", "")), "[FunctionExists] web/net0: 0000:77:00.0: ", "ioward host"),
        (
            two().nic(NIC2, 2).giving(1),
            web(&on("0000:02:10.0", "")),
            "[IsPhysicalFunction] web/net0: 0000:02:10.0: ",
            "VF 0 of 0000:02:00.0",
        ),
        (two(), web(&on(SSD, "")), "[Class] web/net0: 0000:03:00.0: ", "class nvme"),
        (two(), web(&on(NIC, "index=7")), "[VfIndex] web/net0: 0000:01:00.0: ", "below 7 (TotalVFs)"),
        (
            two(),
            web("net0 network min_link_speed=\"10Gbit\""),
            "[LinkSpeed] web/net0: 0000:01:00.0: ",
            "one of 1Gbit",
        ),
        (
            two(),
            web("net0 display"),
            "[FunctionExists] web/net0: ",
            "class display; found this host has none",
        ),
        (
            two(),
            web("net0 network mac=\"02:00:00:00:00:00\""),
            "[MacUnique] web/net0: ",
            "eth0 of 0000:01:00.0 has it",
        ),
        (two(), spec(&[adapter(NIC, "8")]), "[VfCapacity] 0000:01:00.0: ", "8 asked for"),
        (
            two(),
            spec(&[adapter("0000:77:00.0", "1")]),
            "[FunctionExists] 0000:77:00.0: ",
            "none at this address",
        ),
        (two(), web("disk0 nvme queues=9"), "[NvmeResources] web/disk0: 0000:03:00.0: ", "8 left"),
        (
            host().nic(NIC, 7).used_by_host(),
            web("net0 network"),
            "[ManagementNic] web/net0: 0000:01:00.0: ",
            "eth0 has address 192.0.2.1/24",
        ),
        (
            host().nic(NIC, 7).used_by_host(),
            spec(&[adapter(NIC, "1")]),
            "[ManagementNic] 0000:01:00.0: ",
            "--allow-management-nic",
        ),
        (
            two().but(|pf| pf.sriov = None),
            web("disk0 nvme"),
            "[Readable] web/disk0: 0000:03:00.0: ",
            "could not be read",
        ),
        (
            two().but(|pf| pf.sriov = None),
            spec(&[adapter(SSD, "1")]),
            "[Readable] 0000:03:00.0: ",
            "could not be read",
        ),
    ];
    for (world, wish, begin, word) in cases {
        let told = world.refuses(&wish, SAFE);
        assert!(
            told.starts_with(begin) && told.contains(word) && !told.contains('\n'),
            "wanted {begin}…{word}; was told {told}"
        );
    }
}

#[test]
fn without_an_iommu_nothing_is_given_away() {
    let mut world = host().nic(NIC, 7);
    world.inventory.iommu = false;
    let told = world.refuses(&only("web", &["net0 network"]), ANYTHING);
    assert!(told.starts_with("[Iommu] web/net0: ") && told.contains("intel_iommu=on"), "{told}");
    world.does(&only("web", &[]), SAFE);
}

/// "Group not viable", said QEMU: lxc/incus#3422.
#[test]
fn a_vf_that_shares_its_iommu_group_is_left_alone() {
    let mut world = host()
        .nic(NIC, 2)
        .giving(2)
        .but(|pf| pf.virtual_functions[0].iommu_group_shared_with = vec![at("0000:01:10.2")]);
    let told = world.refuses(&only("web", &[&format!("net0 network pf=\"{NIC}\" index=0")]), SAFE);
    assert!(
        told.starts_with("[IommuGroup] web/net0: 0000:01:10.0: ") && told.contains("0000:01:10.2"),
        "{told}"
    );
    world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:01:00.0/1");
}

#[test]
fn more_requests_than_vfs() {
    let world = host().nic(NIC, 2);
    let told = world.refuses(&only("web", &["a network", "b network", "c network"]), SAFE);
    assert_eq!(
        told,
        "[VfCapacity] web/c: 0000:01:00.0: required a VF that nobody has; found all 2 VFs are held; use another adapter, or give a VF back"
    );
    let told = host()
        .nic(NIC, 7)
        .refuses(&spec(&[adapter(NIC, "1"), partition("web", &["a network", "b network"])]), SAFE);
    assert!(
        told.starts_with("[VfCapacity] web/b: 0000:01:00.0: ") && told.contains("ask for more, up to 7"),
        "{told}"
    );
    let told = host().nic(NIC, 7).refuses(
        &spec(&[adapter(NIC, "1"), partition("web", &[&format!("a network pf=\"{NIC}\" index=3")])]),
        SAFE,
    );
    assert!(told.starts_with("[VfIndex] web/a: 0000:01:00.0: ") && told.contains("vfs = 4"), "{told}");
}

#[test]
fn a_number_of_vfs_below_what_is_in_use() {
    let mut world = host().nic(NIC, 7);
    world.does(
        &spec(&[adapter(NIC, "4"), partition("web", &[&format!("a network pf=\"{NIC}\" index=3")])]),
        SAFE,
    );
    let told = world.refuses(&spec(&[adapter(NIC, "2")]), ANYTHING);
    assert!(told.starts_with("[VfIndex] web/a: 0000:01:00.0: ") && told.contains("web/a has VF 3"), "{told}");
    assert!(world.refuses(&spec(&[adapter(NIC, "0")]), ANYTHING).contains("[VfIndex]"));
}

#[test]
fn two_partitions_do_not_get_one_mac() {
    let mut world = host().nic(NIC, 7);
    let vf = "net0 network mac=\"52:54:00:aa:00:01\"";
    world.does(&only("web", &[vf]), SAFE);
    let told = world.refuses(&only("db", &[vf]), SAFE);
    assert!(told.starts_with("[MacUnique] db/net0: ") && told.contains("web/net0 has it"), "{told}");
}

#[test]
fn a_request_that_comes_without_a_spec_is_checked_as_one() {
    let mut world = host().nic(NIC, 7).nvme(SSD, 4);
    world.does(&only("web", &["net0 network"]), SAFE);
    let mut vf = request("disk0 nvme");
    vf.min_tx_rate = Some("100Mbit".parse().unwrap());
    let told = world.refuses(&Intent::Attach { partition: "web".parse().unwrap(), vfs: vec![vf] }, SAFE);
    assert!(
        told.starts_with("[SettingSupported] web/disk0: ") && told.contains("leave min_tx_rate out"),
        "{told}"
    );
    let mut vf = request("net1 network");
    vf.mac = Some("01:00:5e:00:00:01".parse().unwrap());
    let told = world.refuses(&Intent::Attach { partition: "web".parse().unwrap(), vfs: vec![vf] }, SAFE);
    assert!(told.starts_with("[SpecValid] ") && told.contains("multicast"), "{told}");
}

#[test]
fn what_is_not_there_can_be_neither_started_nor_changed() {
    let mut world = host().nic(NIC, 7);
    for intent in
        [start("web"), stop("web"), remove("web"), attach("web", "net0 network"), detach("web", "net0")]
    {
        assert!(world.refuses(&intent, SAFE).starts_with("[PartitionExists] web: "));
    }
    world.does(&only("web", &["net0 network"]), SAFE);
    assert!(
        world
            .refuses(&detach("web", "net9"), SAFE)
            .starts_with("[VfExists] web: required a VF 'net9' of web; found net0")
    );
    assert!(world.refuses(&attach("web", "net0 network"), SAFE).starts_with("[VfNameFree] web: "));
}

#[test]
fn a_refusal_is_never_endless() {
    let mut world = host();
    for bus in 1..=100 {
        world = world.nic(&format!("0000:{bus:02x}:00.0"), 1).but(|pf| pf.netdevs[0].mac = None);
    }
    let reasons = world.plan(&only("web", &["net0 network min_link_speed=\"10Gbit\""]), SAFE).unwrap_err();
    assert_eq!(reasons.len(), 32);
    assert!(reasons.iter().all(|reason| reason.rule == Rule::LinkSpeed));
}
