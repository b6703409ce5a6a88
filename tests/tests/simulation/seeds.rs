//! Many seeds, each of which tells a story of its own, or the one that `IOWARD_SEED` names.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use crate::world::Wrong;

/// What became of all seeds.
pub struct Told<T> {
    /// How many there were.
    pub seeds: u64,
    /// What came of those that ended well.
    pub ends: Vec<T>,
    /// Those that did not, in order.
    pub bad: Vec<(u64, Wrong)>,
}

impl<T> Told<T> {
    /// Fails, and names those that did not end well, unless all did.
    pub fn end_well(&self) {
        for (seed, wrong) in &self.bad {
            println!("seed {seed} ends badly: {wrong}");
        }
        assert!(self.bad.is_empty(), "{} of {} seeds end badly", self.bad.len(), self.seeds);
    }

    /// The sum of something that was counted in each.
    pub fn sum(&self, count: impl Fn(&T) -> usize) -> usize {
        self.ends.iter().map(count).sum()
    }
}

/// The seed that somebody wants to hear alone.
pub fn named() -> Option<u64> {
    number("IOWARD_SEED")
}

/// Tells the story of each of `usual` seeds, or of as many as `IOWARD_SEEDS` says; so many `at_once`.
pub fn tell_all<T: Send>(
    usual: u64,
    at_once: usize,
    tell: impl Fn(u64) -> Result<T, Wrong> + Sync,
) -> Told<T> {
    let (first, end) = match named() {
        Some(seed) => (seed, seed + 1),
        None => (0, number("IOWARD_SEEDS").unwrap_or(usual)),
    };
    let next = AtomicU64::new(first);
    let told = Mutex::new(Told { seeds: end - first, ends: Vec::new(), bad: Vec::new() });
    let tell_some = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return;
            }
            let end = tell(seed);
            let mut told = told.lock().unwrap();
            match end {
                Ok(end) => told.ends.push(end),
                Err(wrong) => told.bad.push((seed, wrong)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(tell_some);
        }
    });
    let mut told = told.into_inner().unwrap();
    told.bad.sort();
    told
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}
