//! A write that does not return from the kernel: the adapter is told, kept apart and looked at again, and everybody else goes
//! on.

use ioward_fabric::sim::SimMachine;
use ioward_model::{EventKind, Intent, Options, Spec, VfOp, VfSettings, Vlan};
use ioward_pci::Bdf;

use crate::{
    actions::{Action, OPEN, name},
    gate::Trouble,
    host::{Choice, Host},
    runtime,
    story::Story,
    wait_until,
    world::World,
};

fn partition(name: &str, pf: Bdf) -> String {
    format!(
        "[[partition]]\nname = \"{name}\"\nboot = {{ disk = \"/dev/null\" }}\n[[partition.vf]]\nname = \"net0\"\n\
         class = \"network\"\npf = \"{pf}\"\nguest_may = [\"mac\", \"vlan\", \"trust\", \"spoofchk\", \"min_tx_rate\", \
         \"max_tx_rate\", \"link_state\", \"queues\", \"interrupts\", \"online\", \"reset\", \"stats\"]\n"
    )
}

fn apply(spec: &str) -> Action {
    let spec = Spec::parse(format!("version = 1\n{spec}").as_bytes()).unwrap();
    Action::Ask { intent: Intent::Apply { spec }, options: OPEN, trouble: Trouble::default() }
}

fn adapter(pf: Bdf, vfs: u16) -> String {
    format!("[[adapter]]\npf = \"{pf}\"\nvfs = {vfs}\n")
}

async fn answers_again(world: &World, pf: Bdf) -> u16 {
    let mut answer = None;
    let looked = wait_until("the adapter answers again", || {
        answer = world.imp().events().into_iter().rev().find_map(|event| match event.kind {
            EventKind::AdapterAnswers { pf: answering, num_vfs } if answering == pf => num_vfs,
            _ => None,
        });
        answer.is_some()
    });
    looked.await.unwrap();
    answer.unwrap()
}

/// openshift/sriov-network-operator#1182: a write to sriov_numvfs blocked forever, and the daemon of a cluster hung
/// with it.
#[test]
fn a_stuck_adapter_is_told_and_blocks_no_other() {
    runtime().block_on(async {
        let adapters = [Choice::gigabit(), Choice::gigabit(), Choice::gigabit()];
        let host = Host::new(SimMachine::builder(1), &adapters);
        let [a, b, c] = host.adapters()[..] else { panic!() };
        let mut world = World::new(host, Story::new("a stuck adapter".to_owned(), false)).await;
        world.carry_out(&apply(&(adapter(a, 1) + &partition("db", b)))).await.unwrap();

        // One plan for an adapter that gets stuck as its VFs go, and one that does not: all of it or nothing.
        world.host.machine.stick(a).unwrap();
        world.loose.pfs.insert(a);
        let grown = adapter(a, 2) + &partition("web", a);
        world.carry_out(&apply(&(grown.clone() + &partition("mail", c)))).await.unwrap();
        let lines = world.story.lines();
        assert_eq!(lines.last().map(String::as_str), Some("  NotUndone"), "{lines:?}");
        let state = world.state();
        assert_eq!(state.partitions.keys().map(ioward_model::Name::as_str).collect::<Vec<_>>(), ["db"]);
        assert_eq!(
            state.adapters.keys().copied().collect::<Vec<_>>(),
            [a, b],
            "it may get its VFs yet; c is let go"
        );
        let events = world.imp().events();
        let stuck =
            events.iter().filter(|event| matches!(event.kind, EventKind::AdapterStuck { pf, .. } if pf == a));
        assert_eq!(stuck.count(), 1, "{events:?}");
        let left = |event: &&ioward_model::Event| {
            matches!(&event.kind, EventKind::StepUndone { error: Some(_), .. })
        };
        assert!(events.iter().any(|event| left(&event)), "what could not be undone is told: {events:?}");

        // Meanwhile everybody else is served.
        let change = VfSettings { vlan: Vlan::new(7), ..VfSettings::default() };
        let op = VfOp::Set { vf: name("net0"), change };
        world.imp().operate(&name("db"), op).await.unwrap();
        world.carry_out(&apply(&partition("mail", c))).await.unwrap();
        assert_eq!(world.story.lines().last().map(String::as_str), Some("  Done"));
        // And what is asked of the stuck one fails at once.
        world.loose.pfs.insert(a);
        world.carry_out(&apply(&grown)).await.unwrap();
        assert_eq!(world.story.lines().last().map(String::as_str), Some("  NotUndone"));

        // The write returns after all, and takes effect.
        world.host.machine.unstick(a).unwrap();
        assert_eq!(answers_again(&world, a).await, 0);
        world.carry_out(&apply(&grown)).await.unwrap();
        assert_eq!(world.story.lines().last().map(String::as_str), Some("  Done"));
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// The same when the daemon is stopped and started meanwhile: it does not wait for the adapter, and serves the others.
#[test]
fn a_daemon_starts_beside_a_stuck_adapter() {
    runtime().block_on(async {
        let host = Host::new(SimMachine::builder(1), &[Choice::gigabit(), Choice::gigabit()]);
        let [a, b] = host.adapters()[..] else { panic!() };
        let mut world = World::new(host, Story::new("a restart".to_owned(), false)).await;
        world.carry_out(&apply(&(adapter(a, 1) + &partition("db", b)))).await.unwrap();
        let grown = adapter(a, 2) + &partition("web", a);
        let spec = Spec::parse(format!("version = 1\n{grown}").as_bytes()).unwrap();
        let plan = world.imp().plan(&Intent::Apply { spec }, &Options::default()).await.unwrap();

        // It dies while the write is under way.
        world.camera.start();
        world.host.machine.stick(a).unwrap();
        world.carry_out_plan(&plan, &Trouble::default()).await.unwrap();
        let pictures = world.camera.stop();
        let stuck =
            pictures.into_iter().find(|picture| picture.machine.snapshot().physical_functions[&a].stuck);
        let mut woken = crate::crash::asleep(&world, &stuck.unwrap());
        woken.start_daemon().await.unwrap();
        let state = woken.state();
        assert_eq!(state.partitions.keys().map(ioward_model::Name::as_str).collect::<Vec<_>>(), ["db"]);
        assert!(state.adapters.contains_key(&a));
        woken.imp().operate(&name("db"), VfOp::Get { vf: name("net0") }).await.unwrap();

        woken.host.machine.unstick(a).unwrap();
        woken.carry_out(&apply(&grown)).await.unwrap();
        assert_eq!(woken.story.lines().last().map(String::as_str), Some("  Done"));
        woken.remove_everything().await.unwrap();
        woken.end().await;
        world.end().await;
    });
}
