//! Guests that ask for things while plans are carried out, undone and repaired. A seed chooses what is asked for; who is faster is
//! chosen by the threads, so that a seed that ends badly may have to be told more than once.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::{
    actions::Chooser,
    gate::Trouble,
    host::Host,
    random::Random,
    runtime,
    story::Story,
    world::{World, Wrong},
};

/// Seeds in an ordinary run.
const SEEDS: u64 = 300;
/// Plans in a story.
const PLANS: usize = 8;

/// Two guests were given one MAC, or a guest that of a plan; what a guest had set while its VF was taken from it was lost, or put on
/// whoever had the VF next. After each plan all of that is looked at: whose VFs are set as noted, that nobody's VF holds anything
/// of anybody, that no MAC is there twice, and that memory and disk agree.
#[test]
fn guests_act_while_plans_run() {
    let runtime = runtime();
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let (first, seeds) = match number("IOWARD_SEED") {
        Some(seed) => (seed, seed + 1),
        None => (0, number("IOWARD_SEEDS").unwrap_or(SEEDS)),
    };
    let (next, granted) = (AtomicU64::new(first), AtomicUsize::new(0));
    let tell_some = || {
        let mut bad = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return bad;
            }
            match runtime.block_on(tell(seed)) {
                Ok(count) => _ = granted.fetch_add(count, Ordering::Relaxed),
                Err(wrong) => bad.push((seed, wrong)),
            }
        }
    };
    let bad = std::thread::scope(|scope| {
        let tellers = [scope.spawn(tell_some), scope.spawn(tell_some)];
        tellers.map(|teller| teller.join().unwrap()).concat()
    });
    for (seed, wrong) in &bad {
        println!("seed {seed} ends badly: {wrong}");
    }
    assert!(bad.is_empty(), "{} of {} seeds end badly", bad.len(), seeds - first);
    let granted = granted.into_inner();
    assert!(granted as u64 >= seeds - first, "guests were granted {granted} things only");
}

/// How much guests were granted.
async fn tell(seed: u64) -> Result<usize, Wrong> {
    let mut random = Random::new(seed);
    let host = Host::of_seed(seed, &mut random);
    let mut world = World::new(host, Story::new(format!("guests meanwhile, seed {seed}"), false)).await;
    world.set_pace(&mut random);
    let mut granted = 0;
    for _ in 0..PLANS {
        let state = world.state();
        let intent = Chooser { random: &mut random, host: &world.host, state: &state }.intent();
        let mut trouble = Trouble::default();
        if random.percent(25) {
            trouble.failing.insert(1 + u32::from(random.below(24)));
        }
        granted += world.ask_while_guests_act(&intent, trouble, &mut random).await?;
    }
    world.remove_everything().await.map_err(|wrong| format!("at the end: {wrong}"))?;
    world.end().await;
    Ok(granted)
}
