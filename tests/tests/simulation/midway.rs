//! Adapters that have faults in the middle of a plan, and in the middle of their own recovery and of the repairs after it: between two
//! steps, and within one. From the moment at which the daemon knows of it, nobody uses a frozen adapter and nobody who has a standby
//! that works is cut off; each adapter serves or is locked out in the end, machines that halted go on, nothing is lost, and a second
//! look repairs what the plan has left.

use std::{collections::BTreeSet, io::Write, time::Duration};

use ioward_model::{Class, HealthReporter, NvmeController, NvmeState, Plan, Service};
use ioward_pci::Bdf;

use crate::{
    actions::{Action, Chooser, OPEN},
    blows::{Blow, Fault},
    errors::{ENDS_WITHIN, go_on, is_out, look, service},
    host::Host,
    random::Random,
    runtime, seeds,
    story::Story,
    world::{Ended, World, Wrong},
};

/// Seeds in an ordinary run.
const SEEDS: u64 = 300;
/// Plans in a story.
const PLANS: usize = 12;
const AT_ONCE: usize = 4;

/// How much happened in a story.
#[derive(Debug, Default)]
struct Counts {
    /// Faults in the middle of a plan.
    in_plans: usize,
    /// Faults in the middle of a recovery.
    in_recoveries: usize,
    /// Plans that failed.
    failed: usize,
    /// Plans of which something was left.
    left: usize,
    locked_out: usize,
}

#[test]
fn faults_in_the_middle() {
    let runtime = runtime();
    let told = seeds::tell_all(SEEDS, AT_ONCE, |seed| runtime.block_on(tell(seed)));
    told.end_well();
    let sum = |count: fn(&Counts) -> usize| told.sum(count);
    let (in_plans, in_recoveries) = (sum(|counts| counts.in_plans), sum(|counts| counts.in_recoveries));
    let (failed, left) = (sum(|counts| counts.failed), sum(|counts| counts.left));
    let locked_out = sum(|counts| counts.locked_out);
    // Past what captures the output of tests that pass.
    let _ = writeln!(
        std::io::stderr(),
        "{} seeds; {in_plans} faults in the middle of plans, of which {failed} failed, {left} with something left; {in_recoveries} in \
         the middle of recoveries; {locked_out} adapters locked out",
        told.seeds
    );
    let many = usize::try_from(told.seeds).unwrap();
    assert!(in_plans >= many && (many < 100 || in_recoveries > many / 5 && failed > many / 2 && left > 10));
}

async fn tell(seed: u64) -> Result<Counts, Wrong> {
    let mut random = Random::new(seed ^ 0x006d_6964);
    let host = Host::of_seed(seed, &mut random);
    let story = Story::new(format!("faults in the middle, seed {seed}"), seeds::named().is_some());
    let mut world = World::new(host, story).await;
    world.set_pace(&mut random);
    let mut counts = Counts::default();
    for _ in 0..PLANS {
        let state = world.state();
        let intent = Chooser { random: &mut random, host: &world.host, state: &state }.intent();
        let Ok(plan) = world.imp().plan(&intent, &OPEN).await else { continue };
        if plan.steps.is_empty() {
            continue;
        }
        // Each step takes some operations.
        let within = u16::try_from(3 * plan.steps.len()).unwrap().min(30);
        let blows = some(&world, &mut random, &plan, within).await?;
        world.story.tell(|| format!("{intent:?}\n  meanwhile {blows:?}"));
        for (n, step) in plan.steps.iter().enumerate() {
            world.story.tell(|| format!("  {}. {step}", n + 1));
        }
        let (ended, struck) = world.apply_with_blows(&plan, blows).await?;
        world.story.tell(|| format!("  {ended:?}"));
        counts.in_plans += struck.len();
        counts.failed += usize::from(matches!(ended, Ended::Undone | Ended::NotUndone));
        counts.left += usize::from(ended == Ended::NotUndone);
        let mut struck = BTreeSet::from_iter(struck.into_iter().map(|blow| blow.pf));
        let again = if !struck.is_empty() && random.percent(80) {
            some(&world, &mut random, &plan, 8).await?
        } else {
            Vec::new()
        };
        let again = recover(&mut world, &struck, again).await?;
        counts.in_recoveries += again.len();
        struck.extend(again.iter().map(|blow| blow.pf));
        recover(&mut world, &struck, Vec::new()).await?;
        let out = put_back(&mut world, &struck).await?;
        counts.locked_out += out;
        world.carry_out(&Action::Reconcile).await?;
        go_on(&world).await?;
        world.carry_out(&Action::Reconcile).await?;
    }
    world.remove_everything().await.map_err(|wrong| format!("at the end: {wrong}"))?;
    world.end().await;
    Ok(counts)
}

/// One or two faults within so many operations, mostly of adapters that a plan is about.
async fn some(world: &World, random: &mut Random, plan: &Plan, within: u16) -> Result<Vec<Blow>, Wrong> {
    let found = look(world).await?;
    let concerned: Vec<_> = plan.steps.iter().filter_map(|step| step.subject().adapter()).collect();
    let mut blows = Vec::new();
    for _ in 0..1 + random.below(2) {
        let among = if concerned.is_empty() || random.percent(20) {
            world.host.machine.physical_functions()
        } else {
            concerned.clone()
        };
        if among.is_empty() {
            continue;
        }
        let (pf, at, is_seen) =
            (random.pick(&among), 1 + u32::from(random.below(within)), random.percent(70));
        let class = world.host.pf(pf).map_or(Class::Other, |pf| pf.class);
        let fault = Fault::any(random, class);
        let is_up = found.physical_function(pf).is_some_and(|pf| pf.netdevs.iter().any(|netdev| netdev.up));
        match fault {
            Fault::Link(_) if !is_up => continue,
            Fault::Link(_) => {
                let back =
                    Blow { at: at + 1 + u32::from(random.below(6)), pf, fault: Fault::Link(true), is_seen };
                blows.push(back);
            }
            _ => {}
        }
        blows.push(Blow { at, pf, fault, is_seen });
    }
    Ok(blows)
}

/// Time passes, and the daemon looks each second, until these adapters serve or are locked out. Faults strike meanwhile, a second counting
/// as an operation; those that have.
async fn recover(world: &mut World, struck: &BTreeSet<Bdf>, blows: Vec<Blow>) -> Result<Vec<Blow>, Wrong> {
    world.arm(blows, None);
    let mut is_over = false;
    for second in 1..=ENDS_WITHIN {
        world.host.machine.advance(Duration::from_secs(1));
        world.hypervisor.notice_losses();
        world.strike().await;
        world.imp().reconcile().await.map_err(|error| format!("reconcile: {error}"))?;
        let found = look(world).await?;
        // What a health reporter has in error is a fault only after a while.
        is_over = second > 2 && struck.iter().all(|pf| !service(&found, *pf).is_waited_for());
        if is_over {
            break;
        }
    }
    let again = world.disarm()?;
    // What strikes at last has its time from then on.
    if is_over || !again.is_empty() {
        return Ok(again);
    }
    let found = look(world).await?;
    let waited_for = struck.iter().map(|pf| format!("{pf} is {}", service(&found, *pf)));
    Err(format!("after {ENDS_WITHIN} s: {}", waited_for.collect::<Vec<_>>().join("; ")))
}

/// Somebody puts adapters back that were taken out, and replaces those that are locked out. How many are.
async fn put_back(world: &mut World, struck: &BTreeSet<Bdf>) -> Result<usize, Wrong> {
    let found = look(world).await?;
    let mut locked_out = 0;
    for pf in struck {
        let is_there = found.physical_function(*pf).is_some();
        let is_dead = |controller: &NvmeController| controller.state == Some(NvmeState::Dead);
        let is_silent = found
            .physical_function(*pf)
            .is_some_and(|pf| pf.conditions.no_answer || pf.nvme.as_ref().is_some_and(is_dead));
        // One that was in error before this daemon watched it serves all the same.
        let is_in_error = found
            .physical_function(*pf)
            .is_some_and(|pf| pf.health.iter().flatten().any(HealthReporter::is_unrecovered));
        if is_out(&found, *pf) || is_silent || is_in_error {
            if is_silent && service(&found, *pf) == Service::Serving && is_known(world, *pf) {
                return Err(format!("{pf} does not answer, and serves"));
            }
            locked_out += 1;
            world.carry_out(&Action::Unplug { pf: *pf }).await?;
        }
        if !is_there || is_silent || is_in_error {
            world.carry_out(&Action::Replug { pf: *pf }).await?;
        }
    }
    Ok(locked_out)
}

/// Of one that nothing is noted of nobody knows whether it ever answered, unless this daemon has seen it.
fn is_known(world: &World, pf: Bdf) -> bool {
    let state = world.state();
    state.adapters.contains_key(&pf) && !state.out_of_service.contains_key(&pf)
}
