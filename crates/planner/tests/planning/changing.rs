//! Changes to partitions that are there: what is changed, and nothing else.

use crate::world::*;

#[test]
fn only_the_settings_that_differ_are_set() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network vlan=5 trust=true"]), SAFE);
    let steps = world.does(&only("web", &["net0 network vlan=6 trust=true"]), SAFE);
    assert_eq!(steps, ["redefine partition web: 1 CPU, 512MiB", "configure VF 0 of 0000:01:00.0: vlan=6"]);
}

#[test]
fn a_setting_that_is_asked_for_no_longer_goes_back_to_what_it_was() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network vlan=5"]), SAFE);
    let steps = world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(steps[1..], ["configure VF 0 of 0000:01:00.0: vlan=0"]);
    assert_eq!(world.does(&only("web", &["net0 network"]), SAFE), [""; 0]);
}

#[test]
fn what_the_guest_changed_by_itself_is_left_alone() {
    let mut world = host().nic(NIC, 7);
    let wish = only("web", &["net0 network vlan=5 guest_may=[\"mac\",\"trust\"]"]);
    world.does(&wish, SAFE);
    let vf = world.state.partitions[&"web".parse().unwrap()].vfs[&"net0".parse().unwrap()].vf;
    let trust = |on| ioward_model::VfSettings { trust: Some(on), ..Default::default() };
    world.state.record_guest_change(vf, &trust(true), &trust(false));
    assert_eq!(world.does(&wish, SAFE), [""; 0]);
}

#[test]
fn guest_may_is_a_matter_of_the_definition_alone() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network"]), SAFE);
    let steps = world.does(&only("web", &["net0 network guest_may=[\"mac\"]"]), SAFE);
    assert_eq!(steps, ["redefine partition web: 1 CPU, 512MiB"]);
}

#[test]
fn cpus_change_only_while_it_is_stopped() {
    let mut world = host();
    world.does(&only("web", &[]), SAFE);
    let more = spec(&[partition("web", &[]).replace("boot", "cpus = 2\nboot")]);
    let told = world.refuses(&more, ANYTHING);
    assert!(
        told.starts_with("[ChangeWhileRunning] web: ")
            && told.contains("cpus")
            && told.contains("ioward stop web"),
        "{told}"
    );
    assert_eq!(world.does(&stop("web"), SAFE), ["stop partition web"]);
    assert_eq!(world.does(&more, SAFE), ["redefine partition web: 2 CPUs, 512MiB"], "it stays stopped");
    assert_eq!(world.does(&stop("web"), SAFE), [""; 0]);
    assert_eq!(world.does(&start("web"), SAFE), ["start partition web"]);
    assert_eq!(world.does(&start("web"), SAFE), [""; 0]);
}

#[test]
fn nvme_resources_change_only_while_it_is_stopped() {
    let mut world = host().nvme(SSD, 4);
    world.does(&only("db", &["disk0 nvme"]), SAFE);
    let more = only("db", &["disk0 nvme queues=4"]);
    assert!(world.refuses(&more, SAFE).starts_with("[ChangeWhileRunning] db/disk0: "));
    world.does(&stop("db"), SAFE);
    assert_eq!(world.does(&more, SAFE)[1..], ["configure VF 0 of 0000:03:00.0: queues=4 online=on"]);
}

#[test]
fn a_vf_is_hot_plugged_and_taken_out_again() {
    let mut world = host().nic(NIC, 7);
    world.does(&spec(&[adapter(NIC, "2"), partition("web", &[])]), SAFE);
    assert_eq!(
        world.does(&attach("web", "net0 network mac=\"52:54:00:aa:00:01\""), SAFE),
        [
            "redefine partition web: 1 CPU, 512MiB",
            "assign VF 0 of 0000:01:00.0 to web/net0",
            "configure VF 0 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 0 of 0000:01:00.0 to vfio-pci",
            "create the channel of web",
            "attach VF 0 of 0000:01:00.0 to web as net0",
        ]
    );
    assert_eq!(
        world.does(&attach("web", "net1 network mac=\"52:54:00:aa:00:02\""), SAFE)[4..],
        ["attach VF 1 of 0000:01:00.0 to web as net1"],
        "the channel is there"
    );
    assert_eq!(
        world.does(&detach("web", "net0"), SAFE),
        [
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "reset VF 0 of 0000:01:00.0",
            "configure VF 0 of 0000:01:00.0: mac=00:00:00:00:00:00",
            "leave VF 0 of 0000:01:00.0 without a driver",
            "take VF 0 of 0000:01:00.0 from web/net0",
            "redefine partition web: 1 CPU, 512MiB",
        ],
        "the adapter stays, as net1 needs it"
    );
    let last = world.does(&detach("web", "net1"), SAFE);
    assert_eq!(last[..2], ["detach net1 (VF 1 of 0000:01:00.0) from web", "destroy the channel of web"]);
    assert_eq!(last[last.len() - 2..], ["let go of 0000:01:00.0", "redefine partition web: 1 CPU, 512MiB"]);
}

#[test]
fn a_new_spec_swaps_one_vf_for_another() {
    let mut world = host().nic(NIC, 7).giving(2);
    let pinned = |index| format!("net0 network pf=\"{NIC}\" index={index} mac=\"52:54:00:aa:00:01\"");
    world.does(&only("web", &[&pinned(0)]), SAFE);
    let steps = world.does(&only("web", &[&pinned(1)]), DISRUPT);
    assert_eq!(
        steps,
        [
            "detach net0 (VF 0 of 0000:01:00.0) from web",
            "reset VF 0 of 0000:01:00.0",
            "configure VF 0 of 0000:01:00.0: mac=00:00:00:00:00:00",
            "bind VF 0 of 0000:01:00.0 to igbvf",
            "take VF 0 of 0000:01:00.0 from web/net0",
            "redefine partition web: 1 CPU, 512MiB",
            "assign VF 1 of 0000:01:00.0 to web/net0",
            "configure VF 1 of 0000:01:00.0: mac=52:54:00:aa:00:01",
            "bind VF 1 of 0000:01:00.0 to vfio-pci",
            "attach VF 1 of 0000:01:00.0 to web as net0",
        ]
    );
}

#[test]
fn two_partitions_exchange_their_vfs() {
    let mut world = host().nic(NIC, 2);
    let pinned = |index| format!("net0 network pf=\"{NIC}\" index={index}");
    let both = |a, b| spec(&[partition("a", &[&pinned(a)]), partition("b", &[&pinned(b)])]);
    world.does(&both(0, 1), SAFE);
    world.does(&both(1, 0), DISRUPT);
    assert_eq!([world.vf_of("a/net0"), world.vf_of("b/net0")], ["0000:01:00.0/1", "0000:01:00.0/0"]);
}

/// A plan named the new value of a setting and not what it replaces.
#[test]
fn a_plan_carries_the_settings_that_it_changes() {
    let mut world = host().nic(NIC, 7);
    world.does(&only("web", &["net0 network vlan=100"]), SAFE);
    let plan = world.plan(&only("web", &["net0 network vlan=200"]), SAFE).unwrap();
    let before: Vec<_> =
        plan.before.iter().map(|before| (before.vf.index, before.settings.describe())).collect();
    assert_eq!(before, [(0, vec![("vlan", "100".to_owned())])]);
    let first = host().nic(NIC, 7).plan(&only("web", &["net0 network vlan=100"]), SAFE).unwrap();
    assert!(first.before.is_empty(), "nothing is replaced");
}
