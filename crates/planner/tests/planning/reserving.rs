//! VFs for partitions that are moved here by another host, and hold none yet.

use std::collections::BTreeMap;

use ioward_model::{
    Accelerator, Intent, MachineLayout, Name, Rule,
    handover::{MoveId, MovedPartition, SourceNote, TargetNote},
};
use ioward_planner::check_offer;

use crate::world::*;

fn offered(name: &str, vfs: &[&str]) -> MovedPartition {
    let spec = partition_of(name, vfs);
    let layout = MachineLayout {
        machine: "pc-q35-10.0".parse().unwrap(),
        accelerator: Accelerator::Kvm,
        channel: false,
        standbys: BTreeMap::new(),
    };
    let wanted = spec.vfs.clone();
    let mut moved = MovedPartition { spec, layout, standbys: BTreeMap::new(), wanted };
    moved.spec.vfs.clear();
    moved
}

fn id(n: u8) -> MoveId {
    MoveId::from_random([n; 16])
}

/// A host with 3 VFs made, to which `web` is moved with two of them.
fn with_web_on_its_way() -> World {
    let mut world = host().nic(NIC, 3).giving(3);
    let web = offered("web", &["net0 network", "net1 network"]);
    assert_eq!(check_offer(&world.inventory, &world.state, &web), Ok(()));
    world.state.note_coming(id(1), "b", &web, Some(TargetNote::Reserved));
    world
}

#[test]
fn vfs_are_kept_for_a_partition_until_it_has_come() {
    let mut world = with_web_on_its_way();
    let two = only("db", &["net0 network", "net1 network"]);
    let reasons = world.plan(&two, SAFE).unwrap_err();
    let said = told(&reasons);
    assert_eq!(reasons[0].rule, Rule::VfFree);
    assert!(said.contains("web, which is being moved here (net0, net1)"), "{said}");
    world.does(&only("db", &["net0 network"]), SAFE);

    // It has come: from here on it has what it holds, as any other.
    let web = offered("web", &["net0 network", "net1 network"]);
    world.state.note_coming(id(1), "b", &web, Some(TargetNote::Owned));
    let vfs = web.wanted.clone();
    let attach = Intent::Attach { partition: "web".parse().unwrap(), vfs };
    assert!(!world.does(&attach, SAFE).is_empty());
}

/// One VF for `db` would be there to have, and the next two only by taking that one away for a while.
#[test]
fn vfs_that_could_only_be_made_by_disturbing_others_are_not_kept() {
    let mut world = host().nic(NIC, 3);
    let web = offered("web", &["net0 network", "net1 network"]);
    world.state.note_coming(id(1), "b", &web, Some(TargetNote::Reserved));
    let said = world.refuses(&only("db", &["net0 network"]), SAFE);
    assert!(said.contains("web, which is being moved here"), "{said}");
    let made = spec(&[adapter(NIC, "3"), partition("db", &["net0 network"])]);
    world.does(&made, SAFE);
}

#[test]
fn another_that_is_offered_gets_what_is_left() {
    let world = with_web_on_its_way();
    let check = |moved: &MovedPartition| check_offer(&world.inventory, &world.state, moved);
    assert_eq!(check(&offered("db", &["net0 network"])), Ok(()));
    let reasons = check(&offered("db", &["net0 network", "net1 network"])).unwrap_err();
    assert!(told(&reasons).contains("db/net"), "{}", told(&reasons));
}

#[test]
fn a_move_away_keeps_nothing() {
    let mut world = with_web_on_its_way();
    let web: Name = "web".parse().unwrap();
    let leaving = offered("web", &["net0 network", "net1 network"]);
    world.state.moves.remove(&web);
    world.state.note_leaving(id(2), "b", &leaving, Some(SourceNote::Given));
    world.does(&only("db", &["net0 network", "net1 network", "net2 network"]), SAFE);
}

/// What was kept for it is gone by itself: whoever asks for what is left is not refused for that.
#[test]
fn a_plan_is_not_refused_for_what_can_not_be_had_anyway() {
    let mut world = host().nic(NIC, 1);
    let web = offered("web", &["net0 network", "net1 network"]);
    world.state.note_coming(id(1), "b", &web, Some(TargetNote::Reserved));
    world.does(&only("db", &["net0 network"]), SAFE);
}
