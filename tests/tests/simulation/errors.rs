//! Adapters that report errors and fall silent in the middle of everything else: with wishes, guests that end and daemons that die
//! meanwhile. Whatever happens, a frozen adapter is touched by nobody, each one serves or is locked out in the end, and machines that halt for
//! a fault go on once the adapters of all their VFs serve.

use std::{io::Write, time::Duration};

use ioward_fabric::sim::{MachineView, Severity, Silence};
use ioward_model::{Class, EventKind, Inventory, Name, Service, State};
use ioward_pci::Bdf;

use crate::{
    actions::{Action, Chooser},
    host::Host,
    random::Random,
    runtime, seeds,
    story::Story,
    world::{World, Wrong},
};

/// Seeds in an ordinary run.
const SEEDS: u64 = 300;
/// Faults in a story.
const FAULTS: usize = 4;
/// Things that happen before each, and while the adapter is frozen.
const ACTIONS: usize = 5;
const AT_ONCE: usize = 4;
/// An adapter serves, or is locked out, within this after its last fault. Seconds of the machine's time.
pub const ENDS_WITHIN: u64 = 400;

/// A machine that was reset five times is given so much time before it is left. Seconds of the machine's time.
const GOES_ON_WITHIN: u64 = 70;

#[derive(Debug, Default)]
struct Counts {
    faults: usize,
    attempted: usize,
    failed: usize,
    restarts: usize,
    halted: usize,
    health: usize,
}

#[test]
fn adapters_with_faults() {
    let runtime = runtime();
    let told = seeds::tell_all(SEEDS, AT_ONCE, |seed| runtime.block_on(tell(seed)));
    told.end_well();
    let (faults, attempted) = (told.sum(|counts| counts.faults), told.sum(|counts| counts.attempted));
    let (failed, restarts) = (told.sum(|counts| counts.failed), told.sum(|counts| counts.restarts));
    let halted = told.sum(|counts| counts.halted);
    let health = told.sum(|counts| counts.health);
    // Past what captures the output of tests that pass.
    let _ = writeln!(
        std::io::stderr(),
        "{} seeds; {faults} faults, {health} of them in health reporters, {attempted} with attempts to recover, {failed} adapters locked out, {restarts} daemons \
         died meanwhile; {halted} machines were halted",
        told.seeds
    );
    let many = usize::try_from(told.seeds).unwrap();
    assert!(
        faults >= many
            && (many < 100
                || attempted > many / 4 && failed > 10 && restarts > 10 && halted > 50 && health > 20)
    );
}

async fn tell(seed: u64) -> Result<Counts, Wrong> {
    let mut random = Random::new(seed);
    let host = Host::of_seed(seed, &mut random);
    let mut world =
        World::new(host, Story::new(format!("faults, seed {seed}"), seeds::named().is_some())).await;
    let mut counts = Counts::default();
    for _ in 0..FAULTS {
        happen(&mut world, &mut random, None).await?;
        let pfs = world.host.machine.physical_functions();
        let pf = random.pick(&pfs);
        let is_network = world.host.pf(pf).is_some_and(|pf| pf.class == Class::Network);
        // Of its health reporter, without any other sign.
        let is_health = is_network && random.percent(30);
        let (severity, silence) = (
            random.pick(&[Severity::NonFatal, Severity::Fatal]),
            random.pick(&[
                None,
                Some(Silence::For(3_000_000_000)),
                Some(Silence::UntilReset),
                Some(Silence::UntilRebound),
                Some(Silence::ForGood),
            ]),
        );
        let found = look(&world).await?;
        if service(&found, pf) != Service::Serving || is_out(&found, pf) {
            continue;
        }
        if is_health {
            world.story.tell(|| format!("{pf} has a health reporter in error: {silence:?}"));
            let until = silence.unwrap_or(Silence::UntilAsked);
            // One whose driver is gone has none; of one that does not answer, and may never have, its reporters say nothing.
            let answers = found.physical_function(pf).is_some_and(|pf| !pf.conditions.no_answer);
            if !answers || world.host.machine.report_health(pf, "fw", until).is_err() {
                continue;
            }
            let found = service(&look(&world).await?, pf);
            if !found.is_serving() {
                return Err(format!("its driver may be recovering {pf}, which is {found}"));
            }
            world.host.machine.advance(Duration::from_millis(1_000));
            counts.health += 1;
        } else {
            world.story.tell(|| format!("{pf} has a fault: {severity:?}, {silence:?}"));
            let told = world.host.machine.report_error(pf, severity, silence).unwrap();
            world.hypervisor.halt_holders(&told);
        }
        counts.halted += halted(&world).len();
        counts.faults += 1;
        let found = service(&look(&world).await?, pf);
        if !found.is_frozen() {
            return Err(format!("{pf} has a fault, and is {found}"));
        }
        let was_taken_out = happen(&mut world, &mut random, Some(pf)).await?;
        let has_died = (silence.is_some() || is_health) && random.percent(30);
        if has_died {
            counts.restarts += 1;
            world.carry_out(&Action::Crash { ends: None }).await?;
        }
        world.disturbed(pf);
        let ended = recover(&mut world, pf).await?;
        counts.attempted += usize::from(ended.attempted);
        counts.failed += usize::from(ended.locked_out);
        // Who has just begun to watch an adapter that nothing is noted of knows of no fault: a daemon that has started, or one that was told
        // that it is in service again. It can't be read, and gives nothing.
        // What a health reporter has in error when it is first looked at is no fault, whatever is noted.
        let is_known = !has_died && !was_taken_out || !is_health && world.state().adapters.contains_key(&pf);
        if silence == Some(Silence::ForGood) && is_known && !ended.locked_out {
            return Err(format!("{pf} is silent or in error for good, and serves"));
        }
        if silence == Some(Silence::ForGood) || ended.locked_out {
            // Somebody takes it out: what comes after that is told by the other stories.
            world.carry_out(&Action::Unplug { pf }).await?;
            happen(&mut world, &mut random, None).await?;
            break;
        }
        world.carry_out(&Action::Reconcile).await?;
        go_on(&world).await?;
    }
    world.end().await;
    Ok(counts)
}

fn halted(world: &World) -> Vec<Name> {
    let guests = world.hypervisor.guests();
    guests.into_iter().filter(|(_, guest)| guest.halted.is_some()).map(|(name, _)| name).collect()
}

/// A machine that has halted goes on within some minutes, unless it has a VF of an adapter that is out of service, or was left so because that
/// did not help again and again.
pub async fn go_on(world: &World) -> Result<(), Wrong> {
    let waiting = |found: &Inventory, state: &State| {
        let is_free = |name: &Name| {
            let held = state.partitions.get(name).into_iter().flat_map(|noted| noted.vfs.values());
            held.map(|held| held.vf.pf)
                .all(|pf| !state.out_of_service.contains_key(&pf) && service(found, pf).is_serving())
        };
        let events = world.imp().events();
        let is_left = |name: &Name| {
            events.iter().any(|event| matches!(&event.kind, EventKind::PartitionLeftHalted { partition } if partition == name))
        };
        halted(world).into_iter().filter(|name| is_free(name) && !is_left(name)).collect::<Vec<_>>()
    };
    for _ in 0..GOES_ON_WITHIN {
        if waiting(&look(world).await?, &world.state()).is_empty() {
            return Ok(());
        }
        world.host.machine.advance(Duration::from_secs(1));
        world.imp().reconcile().await.map_err(|error| format!("reconcile: {error}"))?;
    }
    let left = waiting(&look(world).await?, &world.state());
    if left.is_empty() { Ok(()) } else { Err(format!("{left:?} are left halted, and their adapters serve")) }
}

/// Some things happen. If an adapter is frozen, nothing of it changes by them. Whether it was taken out of service meanwhile.
async fn happen(world: &mut World, random: &mut Random, frozen: Option<Bdf>) -> Result<bool, Wrong> {
    let mut was_taken_out = false;
    for _ in 0..ACTIONS {
        let state = world.state();
        let action = Chooser { random, host: &world.host, state: &state }.next();
        // The others are people's, and fate's.
        let Action::Ask { intent, options, .. } = action else { continue };
        if let Some(pf) = frozen {
            world.disturbed(pf);
        }
        let before = world.host.machine.snapshot();
        world.carry_out(&Action::Ask { intent, options, trouble: Default::default() }).await?;
        let after = world.host.machine.snapshot();
        // Time passes with all that is done, and it may be well by now.
        let Some(pf) = frozen else { continue };
        let found = look(world).await?;
        was_taken_out |= is_out(&found, pf);
        if service(&found, pf).is_frozen() {
            untouched(pf, &before, &after)?;
        }
    }
    Ok(was_taken_out)
}

/// A machine that ends closes its VFs, and that resets them.
fn untouched(pf: Bdf, before: &MachineView, after: &MachineView) -> Result<(), Wrong> {
    let of = |view: &MachineView| {
        let pf = &view.physical_functions[&pf];
        let vfs = pf.vfs.iter().map(|vf| (vf.driver.clone(), vf.settings.clone()));
        (pf.num_vfs, pf.autoprobe, vfs.collect::<Vec<_>>())
    };
    if of(before) == of(after) {
        return Ok(());
    }
    Err(format!("{pf} is frozen, and was {:?}, and is {:?}", of(before), of(after)))
}

struct Recovered {
    locked_out: bool,
    attempted: bool,
}

/// Time passes, and the daemon looks now and then, until an adapter serves or is locked out.
async fn recover(world: &mut World, pf: Bdf) -> Result<Recovered, Wrong> {
    let mut found = look(world).await?;
    let attempts = |world: &World| {
        let events = world.imp().events();
        events.iter().filter(|event| matches!(event.kind, EventKind::AdapterAttempted { .. })).count()
    };
    let before = attempts(world);
    for _ in 0..ENDS_WITHIN {
        world.host.machine.advance(Duration::from_secs(1));
        // VFs go with the driver that is bound anew.
        world.hypervisor.notice_losses();
        world.imp().reconcile().await.map_err(|error| format!("reconcile: {error}"))?;
        found = look(world).await?;
        if !service(&found, pf).is_waited_for() {
            break;
        }
    }
    let service = service(&found, pf);
    let locked_out = is_out(&found, pf);
    if !locked_out && !service.is_serving() {
        return Err(format!("{pf} is {service} after {ENDS_WITHIN} s"));
    }
    Ok(Recovered { locked_out, attempted: attempts(world) > before })
}

pub async fn look(world: &World) -> Result<Inventory, Wrong> {
    world.imp().look().await.map_err(|error| format!("look: {error}"))
}

pub fn is_out(inventory: &Inventory, pf: Bdf) -> bool {
    inventory.physical_function(pf).is_some_and(|pf| pf.out_of_service.is_some())
}

pub fn service(inventory: &Inventory, pf: Bdf) -> Service {
    inventory.physical_function(pf).map_or(Service::Serving, |pf| pf.service.clone())
}
