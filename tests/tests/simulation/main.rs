//! The whole management partition by simulation: planner, executor, state and audit log over a simulated machine and a
//! model hypervisor. A seed makes a story of some twenty things that happen (wishes, faults, guests, adapters that come and go,
//! people who change the host by hand, crashes of the daemon), and after each of them everything is looked at from outside.
//!
//! `IOWARD_SEED=17 cargo test -p ioward-tests --test simulation seeds -- --nocapture` tells the story of seed 17 step by step;
//! `IOWARD_SEEDS=100000` runs so many of them.

// Tests say what must be so by panicking when it is not.
#![allow(clippy::unwrap_used, clippy::panic)]

mod actions;
mod blows;
mod camera;
mod checks;
mod compare;
mod crash;
mod drift;
mod errors;
mod full_disk;
mod gate;
mod guests;
mod host;
mod hypervisor;
mod ledger;
mod meanwhile;
mod midway;
mod moved;
mod random;
mod regressions;
mod seeds;
mod story;
mod stuck;
mod world;

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use actions::Chooser;
use host::Host;
use random::Random;
use seeds::Told;
use story::Story;
use world::{World, Wrong};

/// Seeds in an ordinary run.
const SEEDS: u64 = 1_000;
/// How the last line of a story begins.
const OVERLAPS: &str = "steps beside others: ";
/// Things that happen in a story, before everything is removed.
const ACTIONS: usize = 20;

#[test]
fn seeds() {
    let runtime = runtime();
    if let Some(seed) = seeds::named() {
        let (_, end) = runtime.block_on(tell(seed, true));
        end.unwrap();
        return;
    }
    let ends = [const { AtomicUsize::new(0) }; 4];
    let overlaps = AtomicUsize::new(0);
    let Told { seeds, bad, .. } = seeds::tell_all(SEEDS, 2, |seed| {
        let (lines, end) = runtime.block_on(tell(seed, false));
        let begun_beside = lines.last().and_then(|line| line.strip_prefix(OVERLAPS)?.parse().ok());
        overlaps.fetch_add(begun_beside.unwrap_or(0), Ordering::Relaxed);
        for (how, count) in ["Done", "Undone", "NotUndone", "Refused"].iter().zip(&ends) {
            let so_many = lines.iter().filter(|line| line.trim_start() == *how).count();
            count.fetch_add(so_many, Ordering::Relaxed);
        }
        end
    });
    let [done, undone, not_undone, refused] = ends.map(AtomicUsize::into_inner);
    let overlaps = overlaps.into_inner();
    // Past what captures the output of tests that pass: how many there were is worth a line.
    let _ = writeln!(
        std::io::stderr(),
        "{seeds} seeds; plans: {done} done, {undone} undone, {not_undone} undone in part, {refused} outdated; {overlaps} \
         times a step began or ended beside others"
    );
    for (seed, wrong) in &bad {
        println!("seed {seed} ends badly: {wrong}\nit is told again by: {}", command(*seed));
    }
    assert!(bad.is_empty(), "{} of {seeds} seeds end badly", bad.len());
    // Nothing is shown by stories in which nothing happens.
    let many = usize::try_from(seeds).unwrap() / 10;
    assert!(
        overlaps > many && done > many && undone > many && (seeds < SEEDS || not_undone > 0 && refused > 0)
    );
}

/// The same seed is the same story, to the last word.
#[test]
fn a_story_repeats_from_its_seed() {
    let runtime = runtime();
    for seed in 1_000_000..1_000_020 {
        assert_eq!(runtime.block_on(tell(seed, false)), runtime.block_on(tell(seed, false)));
    }
}

/// The management partition moves its disk writes off its thread, which takes a runtime with more than one.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Lets others run until something is so. The bound only keeps a failure from being a hang: what is waited for takes
/// milliseconds.
async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Result<(), Wrong> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > Duration::from_secs(60) {
            return Err(format!("not so after 60 s: {what}"));
        }
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// One story: its lines, and how it ends.
async fn tell(seed: u64, aloud: bool) -> (Vec<String>, Result<(), Wrong>) {
    let mut random = Random::new(seed);
    let story = Story::new(format!("it is told again by: {}", command(seed)), aloud);
    let host = Host::of_seed(seed, &mut random);
    let mut world = World::new(host, story).await;
    world.set_pace(&mut random);
    let mut end = Ok(());
    for _ in 0..ACTIONS {
        let state = world.state();
        let action = Chooser { random: &mut random, host: &world.host, state: &state }.next();
        end = world.carry_out(&action).await;
        if end.is_err() {
            break;
        }
    }
    if end.is_ok() {
        end = world.remove_everything().await.map_err(|wrong| format!("at the end: {wrong}"));
    }
    let overlaps = world.overlaps;
    world.story.tell(|| format!("{OVERLAPS}{overlaps}"));
    (world.end().await.lines().to_vec(), end)
}

/// The command that tells the story of a seed step by step.
fn command(seed: u64) -> String {
    format!("IOWARD_SEED={seed} cargo test -p ioward-tests --test simulation seeds -- --nocapture")
}
