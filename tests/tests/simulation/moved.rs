//! A host that was turned on with other cards in its slots. Every adapter that ioward holds is found at its new
//! address; a card in the place of a missing one is never touched.

use std::collections::BTreeMap;

use ioward_fabric::sim::{Adapter, InSlot, SimMachine};
use ioward_model::{
    AdapterState, Difference, Drift, EventKind, Intent, Row, Rule, Spec, State, VfOp, VfSettings,
};
use ioward_pci::Bdf;
use ioward_store::{Change, StateFile, Store};

use crate::{
    actions::{OPEN, name},
    camera::{Moment, Picture},
    checks,
    crash::asleep,
    gate::Trouble,
    host::{Choice, Host, PfFacts},
    runtime,
    story::Story,
    world::{Ended, Loose, World},
};

/// Two partitions with NICs of one model, pinned by address.
const SPEC: &str = r#"
version = 1
[[adapter]]
pf = "0000:01:00.0"
vfs = 3
[[partition]]
name = "web"
autostart = true
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "net0"
class = "network"
pf = "0000:01:00.0"
mac = "52:54:00:00:00:01"
vlan = 100
guest_may = ["mac"]
[[partition]]
name = "db"
autostart = true
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "net0"
class = "network"
pf = "0000:02:00.0"
mac = "52:54:00:00:00:02"
"#;

/// The outside identity of each PF, by the serial number of its card and its port, and its address.
pub fn by_serial(machine: &SimMachine) -> BTreeMap<(u64, u8), Bdf> {
    let pfs = machine.snapshot().physical_functions;
    pfs.into_iter().map(|(address, pf)| ((pf.serial, address.function()), address)).collect()
}

fn pf(bus: u8) -> Bdf {
    Bdf::new(0, bus, 0, 0).unwrap()
}

async fn world_of(name: &str, adapters: [Adapter; 2], spec: &str) -> World {
    let choice = |adapter| Choice { adapter, ..Choice::gigabit() };
    let host = Host::new(SimMachine::builder(1), &adapters.map(choice));
    let mut world = World::new(host, Story::new(name.to_owned(), false)).await;
    ask(&mut world, Intent::Apply { spec: Spec::parse(spec.as_bytes()).unwrap() }).await;
    assert_eq!(reconcile(&world).await, []);
    world
}

async fn world(name: &str) -> World {
    world_of(name, [Adapter::gigabit(), Adapter::gigabit()], SPEC).await
}

async fn ask(world: &mut World, intent: Intent) {
    let plan = world.imp().plan(&intent, &OPEN).await.unwrap();
    assert_eq!(world.carry_out_plan(&plan, &Trouble::default()).await.unwrap(), Ended::Done);
}

async fn reconcile(world: &World) -> Vec<Drift> {
    world.imp().reconcile().await.unwrap()
}

fn without_guests(Picture { moment, machine, disk, .. }: &Picture) -> Picture {
    Picture { moment: *moment, machine: machine.copy(), guests: BTreeMap::new(), disk: disk.copy(), told: 0 }
}

/// The same host, turned on with these cards in its slots. The outside facts about its adapters move with them.
fn booted(world: &World, slots: impl IntoIterator<Item = InSlot>) -> World {
    let picture = Picture {
        moment: Moment::BeforeOperation,
        machine: world.host.machine.copy(),
        guests: BTreeMap::new(),
        disk: world.disk.file().copy(),
        told: 0,
    };
    booted_from(world, &picture, slots)
}

pub fn booted_from(world: &World, picture: &Picture, slots: impl IntoIterator<Item = InSlot>) -> World {
    let mut booted = asleep(world, &without_guests(picture));
    booted.boot = "second";
    let before = by_serial(&world.host.machine);
    booted.host.machine.boot_with(slots);
    let facts = world.host.pfs.clone();
    let now = booted.host.machine.snapshot().physical_functions;
    let facts_of = |address: &Bdf, serial: u64| {
        let was = before.get(&(serial, address.function()));
        let facts = facts.iter().find(|pf| Some(&pf.address) == was).unwrap_or(&facts[0]);
        PfFacts { address: *address, ..facts.clone() }
    };
    booted.host.pfs = now.iter().map(|(address, view)| facts_of(address, view.serial)).collect();
    booted.host.found = booted.host.machine.snapshot();
    // Domains and their VFs went with the host.
    booted.host.foreign.clear();
    booted
}

/// The request of web's guest.
fn own_mac() -> VfOp {
    let change = VfSettings { mac: Some("52:54:00:00:00:09".parse().unwrap()), ..VfSettings::default() };
    VfOp::Set { vf: name("net0"), change }
}

fn told(world: &World, is: impl Fn(&EventKind) -> bool) -> usize {
    world.imp().events().iter().filter(|event| is(&event.kind)).count()
}

fn is_sound(world: &World) {
    let state = world.state();
    let everybody = state.partitions.keys().cloned().collect();
    let wrong = checks::look(&world.host, &world.hypervisor, &state, &mut Loose::default(), &everybody);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(world.imp().export().unwrap().state, state);
}

fn runs(world: &World, partition: &str) -> bool {
    world.state().partitions[&name(partition)].running
}

fn missing(drifts: &[Drift]) -> Vec<Bdf> {
    let pf = |drift: &Drift| match drift.what {
        Difference::AdapterMissing { pf, .. } => Some(pf),
        _ => None,
    };
    drifts.iter().filter_map(pf).collect()
}

/// The most important case: another card of the same model in the slot of a missing one, with VFs made by another
/// person.
#[test]
fn a_card_in_the_place_of_a_missing_one_is_never_touched() {
    runtime().block_on(async {
        let world = world("a card that was exchanged").await;
        let mut booted = booted(&world, [InSlot::New(Adapter::gigabit()), InSlot::Old(pf(2))]);
        let machine = booted.host.machine.clone();
        machine.write_numvfs(pf(1), 3).unwrap();
        let untouched = machine.snapshot().physical_functions[&pf(1)].clone();
        let is_untouched = || assert_eq!(machine.snapshot().physical_functions[&pf(1)], untouched);

        booted.start_daemon().await.unwrap();
        let left = reconcile(&booted).await;
        assert_eq!(missing(&left), [pf(1)]);
        assert_eq!(left.len(), 1, "{left:?}");
        is_untouched();
        assert!(!runs(&booted, "web") && runs(&booted, "db"), "nobody else waits for it");
        booted.imp().end_restoring(left.clone()).await;
        assert_eq!(reconcile(&booted).await, left, "nor is it touched later");
        is_untouched();

        // No plan touches it either, whatever the request.
        let apply = Intent::Apply { spec: Spec::parse(SPEC.as_bytes()).unwrap() };
        for intent in [apply, Intent::Start { partition: name("web") }] {
            let refused = booted.imp().plan(&intent, &OPEN).await.unwrap_err();
            let refused = ioward_api::ApiError::from(refused);
            assert!(
                refused.reasons.iter().any(|reason| reason.rule == Rule::AdapterIdentity),
                "{intent:?}: {refused}: {:?}",
                refused.reasons
            );
            is_untouched();
        }
        // The users of the missing card can be removed, and then this one is like any other.
        ask(&mut booted, Intent::Remove { partition: name("web") }).await;
        is_untouched();
        assert_eq!(reconcile(&booted).await, []);
        ask(&mut booted, Intent::Apply { spec: Spec::parse(SPEC.as_bytes()).unwrap() }).await;
        assert!(runs(&booted, "web"));
        booted.end().await;
        world.end().await;
    });
}

/// Whether everything is restored, with these cards at their present addresses, and nothing is left to do.
async fn is_restored(booted: &World, web: Bdf, db: Bdf) {
    assert_eq!(reconcile(booted).await, []);
    is_sound(booted);
    assert!(runs(booted, "web") && runs(booted, "db"));
    let state = booted.state();
    for (partition, pf) in [("web", web), ("db", db)] {
        let noted = &state.partitions[&name(partition)];
        let held = noted.vfs.values().next().unwrap();
        assert_eq!((held.vf.pf, noted.spec.vfs[0].pf), (pf, Some(pf)), "{partition}");
        assert!(held.address.is_some_and(|address| address.bus() == pf.bus()), "{partition}: {held:?}");
    }
    let again = booted.imp().plan(&Intent::Apply { spec: state.to_spec() }, &OPEN).await.unwrap();
    assert_eq!(again.steps, [], "the Spec of what is held names them where they are");
}

fn moves(world: &World) -> Vec<(Bdf, Bdf)> {
    let of = |event: ioward_model::Event| match event.kind {
        EventKind::AdapterMoved { from, to, .. } => Some((from, to)),
        _ => None,
    };
    world.imp().events().into_iter().filter_map(of).collect()
}

#[test]
fn cards_that_move_behind_a_new_one_are_found_again() {
    runtime().block_on(async {
        let world = world("a new card").await;
        let slots = [InSlot::New(Adapter::gigabit()), InSlot::Empty, InSlot::Old(pf(1)), InSlot::Old(pf(2))];
        let mut booted = booted(&world, slots);
        let new = booted.host.machine.snapshot().physical_functions[&pf(1)].clone();
        booted.start_daemon().await.unwrap();
        assert_eq!(moves(&booted), [(pf(1), pf(3)), (pf(2), pf(4))], "before anybody is served");
        is_restored(&booted, pf(3), pf(4)).await;
        assert_eq!(moves(&booted).len(), 2, "and told once");
        let spec = booted.state().to_spec();
        assert_eq!((spec.adapters[0].pf, spec.adapters.len()), (pf(3), 1), "the number of VFs goes with it");
        assert_eq!(booted.host.machine.snapshot().physical_functions[&pf(1)], new);

        // The original values are restored on the card they came from.
        booted.remove_everything().await.unwrap();
        booted.end().await;
        world.end().await;
    });
}

#[test]
fn two_cards_that_swap_places_are_told_apart() {
    runtime().block_on(async {
        let kinds: [fn(Adapter) -> Adapter; 2] = [|adapter| adapter, Adapter::without_serial_number];
        for kind in kinds {
            // Without a serial number, the permanent MAC tells them apart.
            let world =
                world_of("two cards", [kind(Adapter::gigabit()), kind(Adapter::gigabit())], SPEC).await;
            let mut booted = booted(&world, [InSlot::Old(pf(2)), InSlot::Old(pf(1))]);
            booted.start_daemon().await.unwrap();
            assert_eq!(moves(&booted), [(pf(1), pf(2)), (pf(2), pf(1))]);
            is_restored(&booted, pf(2), pf(1)).await;
            booted.remove_everything().await.unwrap();
            booted.end().await;
            world.end().await;
        }
    });
}

/// A card is taken out, and another one that is held gets its address: that one is restored, and the missing one is
/// found when it is put back, wherever that is.
#[test]
fn a_missing_card_gives_way_to_the_card_at_its_address() {
    runtime().block_on(async {
        let world = world("a card that was taken out").await;
        let mut without = booted(&world, [InSlot::Old(pf(2)), InSlot::Empty]);
        without.start_daemon().await.unwrap();
        let left = reconcile(&without).await;
        assert_eq!((missing(&left), left.len()), (vec![pf(2)], 1));
        assert_eq!(left[0].breaks, ["web/net0".parse().unwrap()]);
        assert_eq!(moves(&without), [(pf(2), pf(1))]);
        let is = |kind: &EventKind| {
            matches!(kind, EventKind::AdapterSetAside { from, to, .. } if (*from, *to) == (pf(1), pf(2)))
        };
        assert_eq!(told(&without, is), 1);
        assert!(runs(&without, "db") && !runs(&without, "web"));
        without.imp().end_restoring(left).await;

        // Somebody moves it to another slot, without a boot.
        assert_eq!(without.host.machine.replug_elsewhere(pf(1)), Some(pf(3)), "by the address that it had");
        let left = reconcile(&without).await;
        assert_eq!(moves(&without)[1..], [(pf(2), pf(3))]);
        assert!(
            matches!(&left[..], [Drift { what: Difference::VfCount { pf, found: 0, .. }, .. }] if pf.bus() == 3),
            "{left:?}"
        );
        without.end().await;
        world.end().await;
    });
}

#[test]
fn a_card_that_appears_late_at_another_address_is_found_during_the_restore() {
    runtime().block_on(async {
        let world = world("a late card").await;
        let mut booted = booted(&world, [InSlot::Old(pf(1)), InSlot::Old(pf(2))]);
        booted.host.machine.unplug(pf(1));
        booted.start_daemon().await.unwrap();
        assert_eq!(missing(&reconcile(&booted).await), [pf(1)]);
        booted.host.machine.replug_elsewhere(pf(1));
        let mut moved = booted.host.pfs[0].clone();
        moved.address = pf(3);
        booted.host.pfs.push(moved);
        booted.host.found = booted.host.machine.snapshot();
        is_restored(&booted, pf(3), pf(2)).await;
        booted.end().await;
        world.end().await;
    });
}

/// Cards written from one image, including their MACs: only their addresses identify them.
#[test]
fn indistinguishable_cards_are_identified_by_address() {
    runtime().block_on(async {
        let twin = || Adapter::gigabit().serial_number(0x001b_21ff_ff77_7777);
        let world = world_of("twins", [twin(), twin()], SPEC).await;
        assert!(world.state().adapters.values().all(|adapter| adapter.identity.is_none()));
        let mut booted = booted(&world, [InSlot::Old(pf(1)), InSlot::Empty, InSlot::Old(pf(2))]);
        booted.start_daemon().await.unwrap();
        assert_eq!((missing(&reconcile(&booted).await), moves(&booted)), (vec![pf(2)], Vec::new()));
        assert!(runs(&booted, "web") && !runs(&booted, "db"));
        booted.end().await;
        world.end().await;
    });
}

/// The state of an older ioward: the next look records the identities, and guesses none that are ambiguous.
#[test]
fn records_of_an_older_ioward_get_identities() {
    runtime().block_on(async {
        let mut world = world("an older state").await;
        let state = world.state();
        world.kill_daemon().await;
        forget_identities(&world, &state);
        world.start_daemon().await.unwrap();
        assert!(world.state().adapters.values().all(|adapter| adapter.identity.is_none()));
        assert_eq!(reconcile(&world).await, []);
        assert_eq!(world.state(), state, "noted as if it had always been");
        is_sound(&world);
        let mut moved = booted(&world, [InSlot::Old(pf(2)), InSlot::Old(pf(1))]);
        moved.start_daemon().await.unwrap();
        is_restored(&moved, pf(2), pf(1)).await;
        moved.end().await;

        // If the boot comes first, only the address identifies an adapter; but no NIC is taken for a controller.
        world.kill_daemon().await;
        forget_identities(&world, &state);
        let slots = [InSlot::New(Adapter::nvme()), InSlot::Old(pf(2))];
        let mut booted = booted(&world, slots);
        booted.start_daemon().await.unwrap();
        reconcile(&booted).await;
        let noted = booted.state().adapters;
        assert!(noted[&pf(1)].identity.is_none() && noted[&pf(2)].identity.is_some());
        booted.end().await;
        world.end().await;
    });
}

fn forget_identities(world: &World, state: &State) {
    let disk = world.disk.clone();
    let (store, _) = StateFile::open("state".into(), move || Ok(disk.clone())).unwrap();
    let without = |(pf, adapter): (&Bdf, &AdapterState)| {
        Change::Row(Row::Adapter(*pf, Some(AdapterState { identity: None, ..adapter.clone() })))
    };
    store.commit(&state.adapters.iter().map(without).collect::<Vec<_>>()).unwrap();
}

/// The daemon dies at any moment of relocation and restore: the next one continues.
#[test]
fn a_relocation_cut_short_is_continued_by_the_next_daemon() {
    runtime().block_on(async {
        let world = world("crashes on the way").await;
        let mut booted = booted(&world, [InSlot::Old(pf(2)), InSlot::Old(pf(1))]);
        booted.camera.start();
        booted.start_daemon().await.unwrap();
        is_restored(&booted, pf(2), pf(1)).await;
        let pictures = booted.camera.stop();
        assert!(pictures.len() > 10, "{} pictures", pictures.len());
        for picture in pictures {
            let mut woken = asleep(&booted, &picture);
            woken.boot = "second";
            woken.start_daemon().await.unwrap();
            is_restored(&woken, pf(2), pf(1)).await;
            woken.end().await;
        }
        booted.end().await;
        world.end().await;
    });
}

/// The host loses its power in the middle of a plan or a guest's request, and is turned on with another card in the
/// slot that the journal names, while the card meant is elsewhere, or gone.
#[test]
fn a_plan_from_before_the_boot_is_not_rolled_back_on_another_card() {
    runtime().block_on(async {
        let mut world = world("a plan under way").await;
        world.camera.start();
        let more = SPEC.replace("vfs = 3", "vfs = 5").replace("vlan = 100", "vlan = 200");
        ask(&mut world, Intent::Apply { spec: Spec::parse(more.as_bytes()).unwrap() }).await;
        world.imp().operate(&name("web"), own_mac()).await.unwrap();
        ask(&mut world, Intent::Remove { partition: name("web") }).await;
        let pictures = world.camera.stop();
        assert!(pictures.len() > 50, "{} pictures", pictures.len());
        for (n, picture) in pictures.iter().enumerate() {
            let mut slots = vec![InSlot::New(Adapter::gigabit()), InSlot::Old(pf(2))];
            if n % 2 == 0 {
                slots.push(InSlot::Old(pf(1)));
            }
            let mut booted = booted_from(&world, picture, slots);
            let machine = booted.host.machine.clone();
            machine.write_numvfs(pf(1), 5).unwrap();
            let foreign = machine.snapshot().physical_functions[&pf(1)].clone();
            booted.start_daemon().await.unwrap();
            let left = reconcile(&booted).await;
            assert_eq!(machine.snapshot().physical_functions[&pf(1)], foreign, "picture {n}");
            let state = booted.state();
            // At the end it is released: then there is nothing to find.
            let is_held = state.partitions.contains_key(&name("web"));
            let is_missing = if n % 2 == 1 && is_held { vec![pf(1)] } else { Vec::new() };
            assert_eq!(missing(&left), is_missing, "picture {n}: {left:?}");
            assert!(runs(&booted, "db"), "picture {n}");
            if n % 2 == 0 && is_held {
                assert!(runs(&booted, "web") && state.adapters.contains_key(&pf(3)), "picture {n}");
                assert!(!state.adapters.contains_key(&pf(1)));
            }
            let export = booted.imp().export().unwrap();
            assert!(export.state == state && export.plans.iter().all(|plan| plan.record.ended.is_some()));
            booted.end().await;
        }
        world.end().await;
    });
}

/// A card is moved to another slot under a running partition: the partition's records of its VFs stay as they were,
/// as long as it runs.
#[test]
fn records_stay_in_place_under_a_running_partition() {
    runtime().block_on(async {
        let mut world = world("a card that is moved").await;
        let state = world.state();
        world.host.machine.unplug(pf(1));
        assert_eq!(world.host.machine.replug_elsewhere(pf(1)), Some(pf(3)));
        let left = reconcile(&world).await;
        assert_eq!((missing(&left), world.state()), (vec![pf(1)], state));
        assert!(left[0].to_string().contains("it is 0000:03:00.0 now; stop"), "{}", left[0]);
        // Nobody else gets VFs of it meanwhile: it would be recorded twice.
        let other = SPEC.replace("01:00.0", "03:00.0").replace("web", "other").replace(":01\"", ":05\"");
        let refused =
            world.imp().plan(&Intent::Apply { spec: Spec::parse(other.as_bytes()).unwrap() }, &OPEN).await;
        let refused = ioward_api::ApiError::from(refused.unwrap_err());
        assert!(
            refused.reasons.iter().any(|reason| reason.rule == Rule::AdapterIdentity),
            "{:?}",
            refused.reasons
        );

        world.hypervisor.dies_unheard(&name("web"));
        reconcile(&world).await;
        assert_eq!(moves(&world), [(pf(1), pf(3))]);
        assert!(world.state().adapters.contains_key(&pf(3)) && !runs(&world, "web"));
        // Its VFs are made again on request: nothing tells whether anybody wants that now.
        let moved = PfFacts { address: pf(3), ..world.host.pfs[0].clone() };
        world.host.pfs.push(moved);
        let found = &mut world.host.found.physical_functions;
        let as_found = found.remove(&pf(1)).unwrap();
        found.insert(pf(3), as_found);
        let spec = world.state().to_spec();
        ask(&mut world, Intent::Apply { spec }).await;
        ask(&mut world, Intent::Start { partition: name("web") }).await;
        is_restored(&world, pf(3), pf(2)).await;
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// A card is exchanged without a boot, under a running partition: nothing on record reaches the new one.
#[test]
fn a_card_exchanged_while_the_host_runs_is_never_touched() {
    runtime().block_on(async {
        let mut world = world("hot-plug").await;
        let machine = world.host.machine.clone();
        assert!(machine.exchange(pf(1), Adapter::gigabit()));
        machine.write_numvfs(pf(1), 3).unwrap();
        let foreign = machine.snapshot().physical_functions[&pf(1)].clone();
        let left = reconcile(&world).await;
        assert_eq!(missing(&left), [pf(1)]);
        let told = left[0].to_string();
        assert!(told.contains("is not known to be the adapter that is noted there"), "{told}");
        let asked = world.imp().operate(&name("web"), own_mac()).await;
        assert!(asked.is_err(), "{asked:?}");
        world.kill_daemon().await;
        world.start_daemon().await.unwrap();
        assert_eq!(missing(&reconcile(&world).await), [pf(1)]);
        assert_eq!(machine.snapshot().physical_functions[&pf(1)], foreign);
        world.end().await;
    });
}

/// The daemon dies in the middle of a plan, and the card is exchanged before the next one starts: the rollback does
/// not touch the new card.
#[test]
fn a_plan_on_an_exchanged_card_is_not_rolled_back_on_the_new_one() {
    runtime().block_on(async {
        let mut world = world("exchanged in the middle").await;
        world.camera.start();
        ask(&mut world, Intent::Remove { partition: name("web") }).await;
        ask(&mut world, Intent::Apply { spec: Spec::parse(SPEC.as_bytes()).unwrap() }).await;
        world.imp().operate(&name("web"), own_mac()).await.unwrap();
        let pictures = world.camera.stop();
        assert!(pictures.len() > 50, "{} pictures", pictures.len());
        let mut undone = 0;
        for (n, picture) in pictures.iter().enumerate() {
            // Machines end with the daemon here: one that closed a VF by its address would hit the new card.
            let mut woken = asleep(&world, &without_guests(picture));
            let machine = woken.host.machine.clone();
            assert!(machine.exchange(pf(1), Adapter::gigabit()));
            machine.write_numvfs(pf(1), 3).unwrap();
            let foreign = machine.snapshot().physical_functions[&pf(1)].clone();
            woken.start_daemon().await.unwrap();
            let left = reconcile(&woken).await;
            assert_eq!(machine.snapshot().physical_functions[&pf(1)], foreign, "picture {n}");
            let is_held = woken.state().adapters.contains_key(&pf(1));
            assert_eq!(missing(&left), if is_held { vec![pf(1)] } else { Vec::new() }, "picture {n}");
            undone += told(&woken, |kind| matches!(kind, EventKind::PlanInterrupted { .. }));
            woken.end().await;
        }
        assert!(undone > 20, "{undone} plans were under way");
        world.end().await;
    });
}

/// A held adapter whose Spec only asks for a number of VFs, and which never returns, can be released.
#[test]
fn an_adapter_that_is_gone_for_good_can_be_released() {
    runtime().block_on(async {
        const ADAPTER: &str = "version = 1\n[[adapter]]\npf = \"0000:01:00.0\"\nvfs = 3\n";
        let world = world_of("gone for good", [Adapter::gigabit(), Adapter::gigabit()], ADAPTER).await;
        for slots in [vec![InSlot::New(Adapter::gigabit())], vec![InSlot::Empty]] {
            let mut booted = booted(&world, slots);
            let found = booted.host.machine.snapshot();
            booted.start_daemon().await.unwrap();
            assert_eq!(missing(&reconcile(&booted).await), [pf(1)]);
            let none = ADAPTER.replace("vfs = 3", "vfs = 0");
            ask(&mut booted, Intent::Apply { spec: Spec::parse(none.as_bytes()).unwrap() }).await;
            assert_eq!((reconcile(&booted).await, booted.state().adapters.len()), (Vec::new(), 0));
            assert_eq!(booted.host.machine.snapshot(), found);
            booted.end().await;
        }
        world.end().await;
    });
}
