//! Crash injection: random applies are filmed ([`crate::camera`]). Each picture is a world whose daemon has just
//! died: a new daemon is started in it, finishes the plan or rolls it back before it serves, and then everything is
//! checked. Some of these daemons are filmed in turn, and die during the rollback; and some hosts lose their power,
//! so that only the disk remains.
//!
//! `IOWARD_CRASH_APPLIES=5000 cargo test -p ioward-tests --test simulation crash -- --nocapture` sets their number.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use ioward_fabric::sim::{Adapter, InSlot, MachineView};
use ioward_model::{Intent, Name, Plan, Spec, State, Step};

use crate::{
    actions::{Action, Chooser, OPEN},
    camera::{Moment, Picture},
    checks,
    gate::Trouble,
    host::Host,
    hypervisor::{Guest, Guests},
    moved::{booted_from, by_serial},
    random::Random,
    runtime,
    story::Story,
    world::{Ended, Loose, World, Wrong},
};

/// Number of applies in an ordinary run.
const APPLIES: u64 = 200;

/// A plan that was carried out and filmed, and the worlds before and after it.
struct Film {
    plan: Plan,
    before: Scene,
    after: Scene,
    ended: Ended,
    pictures: Vec<Picture>,
}

struct Scene {
    view: MachineView,
    state: State,
    guests: BTreeMap<Name, Guest>,
}

impl Scene {
    fn of(world: &World) -> Self {
        let (view, state) = (world.host.machine.snapshot(), world.state());
        Self { view, state, guests: world.hypervisor.guests() }
    }
}

/// Counts of the films and their outcomes.
#[derive(Debug, Default)]
struct Counts {
    applies: u64,
    failed_applies: u64,
    steps: usize,
    pictures: BTreeMap<Moment, usize>,
    crashed_twice: usize,
    reboots: usize,
    moved: usize,
    operations: usize,
    undone: usize,
    finished: usize,
    applied_again: usize,
    running_before: usize,
    running_after: usize,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.applies += other.applies;
        self.failed_applies += other.failed_applies;
        self.steps += other.steps;
        for (moment, count) in &other.pictures {
            *self.pictures.entry(*moment).or_default() += count;
        }
        self.crashed_twice += other.crashed_twice;
        self.reboots += other.reboots;
        self.moved += other.moved;
        self.operations += other.operations;
        self.undone += other.undone;
        self.finished += other.finished;
        self.applied_again += other.applied_again;
        self.running_before += other.running_before;
        self.running_after += other.running_after;
    }
}

#[test]
fn crash_at_every_sync_and_step_of_random_applies() {
    let started = Instant::now();
    let number = std::env::var("IOWARD_CRASH_APPLIES").ok().map(|text| text.parse::<u64>().unwrap());
    let (applies, next, filmed) = (number.unwrap_or(APPLIES), AtomicU64::new(0), AtomicU64::new(0));
    let runtime = runtime();
    let work = || {
        let mut counts = Counts::default();
        while filmed.load(Ordering::Relaxed) < applies {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if let Err(wrong) = runtime.block_on(story(seed, &filmed, &mut counts)) {
                return Err(format!("seed {seed}: {wrong}"));
            }
        }
        Ok(counts)
    };
    let ends = std::thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap())
    });
    let mut counts = Counts::default();
    for end in ends {
        counts.add(&end.unwrap());
    }
    println!(
        "crash injection: {} random applies of {} steps, {} of which fail on the way, and {} operations of partitions; {} \
         crashes: {:?}; {} of them while a crash was undone; {} reboots, {} of them with other cards in the slots",
        counts.applies,
        counts.steps,
        counts.failed_applies,
        counts.operations,
        counts.pictures.values().sum::<usize>(),
        counts.pictures,
        counts.crashed_twice,
        counts.reboots,
        counts.moved
    );
    println!(
        "after each a restart: {} times everything was as before, {} times the plan was done; {} of {} machines that ran \
         still ran; asked for again {} times; nothing lost, nothing owned twice; {:.1} s",
        counts.undone,
        counts.finished,
        counts.running_after,
        counts.running_before,
        counts.applied_again,
        started.elapsed().as_secs_f32()
    );
    assert!(counts.applies >= applies && counts.pictures.len() == 4 && counts.failed_applies > 10);
    assert!(counts.undone > 1_000 && counts.finished > 100 && counts.running_before > 1_000);
    assert!(
        counts.crashed_twice > 1_000 && counts.reboots > 100 && counts.moved > 50 && counts.operations > 50
    );
}

/// A host with a history of its own, and a few plans on it that are filmed.
async fn story(seed: u64, filmed: &AtomicU64, counts: &mut Counts) -> Result<(), Wrong> {
    let mut random = Random::new(seed ^ 0x000c_4a54);
    let host = Host::of_seed(seed, &mut random);
    let mut world = World::new(host, Story::new(format!("crash, seed {seed}"), false)).await;
    world.set_pace(&mut random);
    for round in 0..6 {
        let state = world.state();
        let intent = Chooser { random: &mut random, host: &world.host, state: &state }.intent();
        let Ok(plan) = world.imp().plan(&intent, &OPEN).await else { continue };
        if plan.steps.is_empty() {
            continue;
        }
        // The first plans make the history.
        let is_filmed = round > 1;
        let mut trouble = Trouble::default();
        if is_filmed && random.percent(30) {
            trouble.failing.insert(1 + u32::from(random.below(20)));
        }
        let film = film(&mut world, plan, &trouble, is_filmed).await?;
        if film.ended == Ended::NotUndone {
            break;
        }
        if is_filmed && !film.pictures.is_empty() {
            filmed.fetch_add(1, Ordering::Relaxed);
            counts.applies += 1;
            counts.steps += film.plan.steps.len();
            counts.failed_applies += u64::from(film.ended != Ended::Done);
            for (n, picture) in film.pictures.iter().enumerate() {
                let wrong = crash(&world, &film, picture, n, counts).await;
                wrong.map_err(|wrong| {
                    let steps: Vec<_> = film.plan.steps.iter().map(ToString::to_string).collect();
                    let steps = steps.join("\n  ");
                    format!("picture {n}, {:?}, of {:?}: {wrong}\n  {steps}", picture.moment, film.ended)
                })?;
            }
            for _ in 0..5 {
                let state = world.state();
                let operation = Chooser { random: &mut random, host: &world.host, state: &state }.operate();
                crash_in_operation(&mut world, &operation, counts).await?;
            }
        }
    }
    world.end().await;
    Ok(())
}

/// All tries with one picture.
async fn crash(
    world: &World,
    film: &Film,
    picture: &Picture,
    n: usize,
    counts: &mut Counts,
) -> Result<(), Wrong> {
    // One daemon in two applies, with most of a plan to roll back.
    let is_filmed = n == 2 * film.pictures.len() / 3 && counts.applies.is_multiple_of(2);
    let (mut woken, pictures) = wake(world, picture, is_filmed, counts).await?;
    let is_done = look(&woken, film, counts)?;
    if n.is_multiple_of(8) && film.ended == Ended::Done && !is_done {
        counts.applied_again += 1;
        apply_again(&mut woken, &film.plan.intent).await?;
    }
    woken.end().await;
    for second in pictures {
        counts.crashed_twice += 1;
        let (woken, _) = wake(world, &second, false, counts).await?;
        look(&woken, film, counts)
            .map_err(|wrong| format!("in the middle of undoing, {:?}: {wrong}", second.moment))?;
        woken.end().await;
    }
    if n % 16 == 8 {
        counts.reboots += 1;
        let has_moved = n % 32 == 8;
        counts.moved += usize::from(has_moved);
        let rebooted = reboot(world, film, picture, has_moved).await;
        rebooted.map_err(|wrong| format!("after a reboot, moved: {has_moved}: {wrong}"))?;
    }
    Ok(())
}

async fn film(world: &mut World, plan: Plan, trouble: &Trouble, is_filmed: bool) -> Result<Film, Wrong> {
    let before = Scene::of(world);
    if is_filmed {
        world.camera.start();
    }
    let ended = world.carry_out_plan(&plan, trouble).await?;
    let pictures = world.camera.stop();
    Ok(Film { plan, before, after: Scene::of(world), ended, pictures })
}

/// A world like that in a picture, without a running daemon.
pub fn asleep(world: &World, picture: &Picture) -> World {
    let host = Host { machine: picture.machine.copy(), ..world.host.clone() };
    let story = Story::new("after a crash".to_owned(), false);
    let ledger = world.ledger.copy(picture.told);
    World::asleep(host, story, Guests::new(&picture.guests), &picture.disk, ledger)
}

/// Starts a daemon in a picture, and films it on request.
async fn wake(
    world: &World,
    picture: &Picture,
    is_filmed: bool,
    counts: &mut Counts,
) -> Result<(World, Vec<Picture>), Wrong> {
    *counts.pictures.entry(picture.moment).or_default() += 1;
    let mut woken = asleep(world, picture);
    if is_filmed {
        woken.camera.start();
    }
    woken.start_daemon().await?;
    let pictures = woken.camera.stop();
    woken.hypervisor.come_to_it();
    Ok((woken, pictures))
}

pub fn is_sound(world: &World, state: &State) -> Result<(), Wrong> {
    let everybody: BTreeSet<_> = state.partitions.keys().cloned().collect();
    let wrong = checks::look(&world.host, &world.hypervisor, state, &mut Loose::default(), &everybody);
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let export = world.imp().export().map_err(|error| error.to_string())?;
    if export.state != *state {
        return Err(format!("known is {state:?}, and kept is {:?}", export.state));
    }
    if export.plans.iter().any(|plan| plan.record.ended.is_none()) || !export.operations.is_empty() {
        return Err("something is still under way in the journal".to_owned());
    }
    Ok(())
}

/// Checks how a daemon has handled a picture. Returns whether the plan is done.
fn look(woken: &World, film: &Film, counts: &mut Counts) -> Result<bool, Wrong> {
    let now = Scene::of(woken);
    is_sound(woken, &now.state)?;
    let is_done = now.state.revision != film.before.state.revision;
    let expected = if is_done { &film.after } else { &film.before };
    if is_done {
        counts.finished += 1;
        if film.ended != Ended::Done {
            // When only a stop is missing, a retry may succeed where the first attempt failed.
            let is_stop = |step: &Step| matches!(step, Step::StopPartition { .. });
            let only_stops = film.plan.steps.iter().all(is_stop);
            return if only_stops { Ok(true) } else { Err("the plan is done, and it had failed".to_owned()) };
        }
        let differs = checks::differences(&expected.view, &now.view);
        if !differs.is_empty() {
            return Err(format!("said to be done, but {}", differs.join("; ")));
        }
        if checks::essence(&now.state) != checks::essence(&expected.state) {
            return Err(format!("said to be done, but the state is {:?}", now.state));
        }
    } else {
        counts.undone += 1;
        woken.everything_undone(&film.plan, &film.before.view, &film.before.state)?;
    }
    for (name, guest) in expected.guests.iter().filter(|(_, guest)| guest.running) {
        counts.running_before += 1;
        let is_stopped =
            |step: &Step| matches!(step, Step::StopPartition { partition, .. } if partition == name);
        let was_stopped = film.plan.steps.iter().any(is_stopped);
        match now.guests.get(name) {
            Some(now) if now.running && (was_stopped || now.starts == guest.starts) => {
                counts.running_after += 1;
            }
            now => return Err(format!("{name} ran and was not stopped: {guest:?} is {now:?}")),
        }
    }
    Ok(is_done)
}

/// The host itself has lost its power: only the disk remains. When it is turned on, its adapters may be in other
/// slots, with a new one where the first of them was.
async fn reboot(world: &World, film: &Film, picture: &Picture, has_moved: bool) -> Result<(), Wrong> {
    let adapters = world.host.adapters().into_iter().map(InSlot::Old);
    let slots: Vec<_> = if has_moved {
        std::iter::once(InSlot::New(Adapter::gigabit())).chain(adapters.rev()).collect()
    } else {
        adapters.collect()
    };
    let mut woken = booted_from(world, picture, slots);
    let fresh = woken.host.machine.snapshot();
    let by_card = |world: &World, state: &State| cards(world, &stopped(state));
    woken.start_daemon().await?;
    let differs = checks::differences(&fresh, &woken.host.machine.snapshot());
    // Recovery may define a partition again as it was, but gives nothing to it and starts nothing.
    let nothing = |(name, guest): (&Name, &Guest)| {
        let noted = film.before.state.partitions.get(name);
        noted.is_some_and(|noted| *guest == Guest::new(noted.spec.kind.name()))
    };
    let guests = woken.hypervisor.guests();
    if !differs.is_empty() || !guests.iter().all(nothing) {
        return Err(format!("the host was changed: {}; {guests:?}", differs.join("; ")));
    }
    // Running partitions ended with the host.
    let state = by_card(&woken, &woken.state());
    if state != by_card(world, &film.before.state) && state != by_card(world, &film.after.state) {
        return Err(format!("the state is {state:?}"));
    }
    let export = woken.imp().export().map_err(|error| error.to_string())?;
    if export.plans.iter().any(|plan| plan.record.ended.is_none()) {
        return Err("something is still under way in the journal".to_owned());
    }
    // Then the host is made to match the state.
    let left = woken.imp().reconcile().await.map_err(|error| error.to_string())?;
    if !left.is_empty() {
        return Err(format!("not restored: {left:?}"));
    }
    let state = woken.state();
    let everybody: BTreeSet<_> = state.partitions.keys().cloned().collect();
    // The boot removed others' changes to adapters.
    let foreign = woken.host.pfs.iter().map(|pf| pf.address).collect();
    let mut loose = Loose { foreign, ..Loose::default() };
    let wrong = checks::look(&woken.host, &woken.hypervisor, &state, &mut loose, &everybody);
    if !wrong.is_empty() {
        return Err(format!("restored: {}", wrong.join("\n")));
    }
    let new = woken.host.adapters()[0];
    if has_moved && woken.host.machine.snapshot().physical_functions[&new] != fresh.physical_functions[&new] {
        return Err(format!("{new} is new here, and was changed"));
    }
    woken.end().await;
    Ok(())
}

fn stopped(state: &State) -> State {
    let mut state = checks::essence(state);
    state.partitions.values_mut().for_each(|partition| partition.running = false);
    state
}

/// A state with its adapters named by identity instead of by address. The Spec last applied stays as it was written.
fn cards(world: &World, state: &State) -> (serde_json::Value, Option<Box<Spec>>) {
    let mut state = state.clone();
    let wanted = state.wanted.take();
    let mut text = serde_json::to_string(&state).unwrap();
    for ((serial, port), address) in by_serial(&world.host.machine) {
        text = text.replace(&address.to_string(), &format!("port {port} of {serial:x}"));
    }
    (serde_json::from_str(&text).unwrap(), wanted)
}

/// A partition requests an operation, and the daemon dies: the operation is done or not, and if it is, the audit
/// log has it.
async fn crash_in_operation(world: &mut World, operation: &Action, counts: &mut Counts) -> Result<(), Wrong> {
    let Action::Operate { partition, op } = operation else { return Ok(()) };
    world.imp().flush().map_err(|error| error.to_string())?;
    let (before, entries) = (Scene::of(world), audit_of(world)?.len());
    world.camera.start();
    let answer = world.request(partition, op).await?;
    let (pictures, after) = (world.camera.stop(), Scene::of(world));
    let Some(answer) = answer.filter(|_| !pictures.is_empty()) else { return Ok(()) };
    counts.operations += 1;
    for picture in pictures {
        let (woken, _) = wake(world, &picture, false, counts).await?;
        let now = Scene::of(&woken);
        is_sound(&woken, &now.state)
            .map_err(|wrong| format!("{operation:?}, {:?}: {wrong}", picture.moment))?;
        let is = |scene: &Scene| {
            checks::essence(&now.state) == checks::essence(&scene.state)
                && checks::differences(&scene.view, &now.view).is_empty()
        };
        let is_noted = audit_of(&woken)?.len() > entries;
        let has_changed = answer.is_ok() && before.state != after.state;
        if !(is(&before) && (!is_noted || !has_changed) || is(&after) && is_noted) {
            return Err(format!("{operation:?}, {answer:?}, {:?}: {:?}", picture.moment, now.state));
        }
        woken.end().await;
    }
    Ok(())
}

fn audit_of(world: &World) -> Result<Vec<ioward_model::AuditEntry>, Wrong> {
    world.imp().audit(usize::MAX).map_err(|error| error.to_string())
}

/// A retry succeeds as if nothing had happened.
async fn apply_again(world: &mut World, intent: &Intent) -> Result<(), Wrong> {
    let plan = world.imp().plan(intent, &OPEN).await;
    let plan = plan.map_err(|no| format!("asked for again: {}", ioward_api::ApiError::from(no)))?;
    let ended = world.carry_out_plan(&plan, &Trouble::default()).await?;
    if ended != Ended::Done {
        return Err(format!("asked for again, it is {ended:?}"));
    }
    is_sound(world, &world.state()).map_err(|wrong| format!("asked for again: {wrong}"))
}
