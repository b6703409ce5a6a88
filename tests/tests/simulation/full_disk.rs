//! A full disk in the middle of a change: a change that can't be recorded is not made, completed steps are rolled
//! back, and once there is room again everything continues, in this daemon or the next.

use std::collections::BTreeSet;

use ioward_fabric::sim::SimMachine;
use ioward_model::{Intent, Spec, VfOp, VfSettings, Vlan};

use crate::{
    actions::{OPEN, name},
    checks,
    gate::Trouble,
    host::{Choice, Host},
    runtime,
    story::Story,
    world::{Ended, Loose, World},
};

const BEFORE: &str = r#"
version = 1
[[partition]]
name = "web"
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "net0"
class = "network"
mac = "52:54:00:00:00:01"
guest_may = { vlan = "100-110", max_tx_rate = "<=500Mbit", mac = "52:54:00:*", queues = "<=4" }
"#;

const AFTER: &str = r#"
[[adapter]]
pf = "0000:01:00.0"
vfs = 5
[[partition]]
name = "db"
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "disk0"
class = "nvme"
"#;

fn spec(text: &str) -> Intent {
    Intent::Apply { spec: Spec::parse(text.as_bytes()).unwrap() }
}

fn is_sound(world: &World) {
    let state = world.state();
    let everybody: BTreeSet<_> = state.partitions.keys().cloned().collect();
    let wrong = checks::look(&world.host, &world.hypervisor, &state, &mut Loose::default(), &everybody);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn apply(world: &mut World, text: &str) -> Ended {
    let plan = world.imp().plan(&spec(text), &OPEN).await.unwrap();
    world.carry_out_plan(&plan, &Trouble::default()).await.unwrap()
}

/// The outcome of an apply with room for this many writes; the daemon is killed before there is room again, or not.
async fn apply_with_room_for(writes: u32, is_killed: bool) -> Ended {
    let host = Host::new(SimMachine::builder(1), &[Choice::gigabit(), Choice::nvme()]);
    let mut world = World::new(host, Story::new(format!("room for {writes} writes"), false)).await;
    assert_eq!(apply(&mut world, BEFORE).await, Ended::Done);
    let (view, state) = (world.host.machine.snapshot(), world.state());
    let both = BEFORE.to_owned() + AFTER;
    let plan = world.imp().plan(&spec(&both), &OPEN).await.unwrap();
    world.disk.full_after(Some(writes));
    let ended = world.carry_out_plan(&plan, &Trouble::default()).await.unwrap();
    if ended != Ended::Done {
        world.everything_undone(&plan, &view, &state).unwrap_or_else(|wrong| panic!("{writes}: {wrong}"));
        // Requests of a partition are refused in the same way, and not carried out.
        let change = VfSettings { vlan: Vlan::new(105), ..VfSettings::default() };
        let op = VfOp::Set { vf: name("net0"), change };
        let refused = world.imp().operate(&name("web"), op).await.unwrap_err();
        assert!(refused.message.ends_with("state: no storage space"), "{refused}");
        world.everything_undone(&plan, &view, &state).unwrap_or_else(|wrong| panic!("{writes}: {wrong}"));
    }
    if is_killed {
        world.kill_daemon().await;
        world.start_daemon().await.unwrap();
    } else {
        world.disk.full_after(None);
    }
    is_sound(&world);
    if ended == Ended::Done {
        assert!(world.imp().plan(&spec(&both), &OPEN).await.unwrap().steps.is_empty());
    } else {
        assert_eq!(checks::essence(&world.state()), checks::essence(&state));
        assert_eq!(apply(&mut world, &both).await, Ended::Done, "{writes}");
    }
    let export = world.imp().export().unwrap();
    assert_eq!(export.state, world.state(), "{writes}: kept, and known");
    assert!(export.plans.iter().all(|plan| plan.record.ended.is_some()) && export.operations.is_empty());
    is_sound(&world);
    world.remove_everything().await.unwrap_or_else(|wrong| panic!("{writes}, at the end: {wrong}"));
    world.end().await;
    ended
}

/// After a failed commit the content of the file is uncertain: the next commit restates everything.
#[test]
fn a_plan_on_a_full_disk_is_rolled_back_and_succeeds_later() {
    let runtime = runtime();
    let mut ends = Vec::new();
    for writes in (0..).step_by(3) {
        let ended = runtime.block_on(apply_with_room_for(writes, false));
        assert_eq!(runtime.block_on(apply_with_room_for(writes, true)), ended);
        ends.push(ended);
        if ended == Ended::Done {
            break;
        }
    }
    let (last, others) = ends.split_last().unwrap();
    assert_eq!(*last, Ended::Done);
    assert_eq!(others[0], Ended::Refused, "not even begun");
    assert!(
        others.len() > 40 && others.iter().filter(|ended| **ended == Ended::Undone).count() > 30,
        "{ends:?}"
    );
}
