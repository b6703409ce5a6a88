//! Guests that act through their channels while plans are carried out, undone and repaired, and across crashes of the daemon. A seed
//! chooses what they do; who is faster is chosen by the threads, so that a seed that ends badly may have to be told more than once.

use std::io::Write;

use ioward_model::Plan;

use crate::{
    actions::{Chooser, OPEN},
    camera::Picture,
    crash,
    gate::Trouble,
    host::Host,
    random::Random,
    runtime, seeds,
    story::Story,
    world::{Ended, World, Wrong},
};

/// Seeds in an ordinary run.
const SEEDS: u64 = 300;
/// Plans in a story.
const PLANS: usize = 8;
/// Stories told at once: some wait until a channel is connected again.
const AT_ONCE: usize = 8;

/// How much happened in a story.
#[derive(Debug, Default)]
struct Counts {
    granted: usize,
    /// Daemons that were killed in the middle of a plan, and between two.
    crashes: usize,
    restarts: usize,
}

/// Two guests were given one MAC, or a guest that of a plan; what a guest had set while its VF was taken from it was lost, or put on
/// whoever had the VF next. After each plan all of that is looked at: whose VFs are set as noted, that nobody's VF holds anything
/// of anybody, that no MAC was there twice at any moment, and that memory, disk and audit log agree.
#[test]
fn guests_act_while_plans_run() {
    let runtime = runtime();
    let told = seeds::tell_all(SEEDS, AT_ONCE, |seed| runtime.block_on(tell(seed)));
    told.end_well();
    let granted = told.sum(|counts| counts.granted);
    let (crashes, restarts) = (told.sum(|counts| counts.crashes), told.sum(|counts| counts.restarts));
    // Past what captures the output of tests that pass.
    let _ = writeln!(
        std::io::stderr(),
        "{} seeds; guests were granted {granted} things; {crashes} crashes in the middle of a plan, {restarts} between two",
        told.seeds
    );
    let many = usize::try_from(told.seeds).unwrap();
    assert!(granted >= many && (many < 100 || crashes > many / 10 && restarts > many / 10));
}

async fn tell(seed: u64) -> Result<Counts, Wrong> {
    let mut random = Random::new(seed);
    let host = Host::of_seed(seed, &mut random);
    let mut world = World::new(host, Story::new(format!("guests meanwhile, seed {seed}"), false)).await;
    world.set_pace(&mut random);
    let mut counts = Counts::default();
    for _ in 0..PLANS {
        let state = world.state();
        let intent = Chooser { random: &mut random, host: &world.host, state: &state }.intent();
        let mut trouble = Trouble::default();
        if random.percent(25) {
            trouble.failing.insert(1 + u32::from(random.below(24)));
        }
        if random.percent(10) {
            trouble.libvirt_dies =
                Some(Chooser { random: &mut random, host: &world.host, state: &state }.death());
        }
        let is_filmed = random.percent(10) && world.loose.is_empty();
        let Ok(plan) = world.imp().plan(&intent, &OPEN).await else { continue };
        if is_filmed {
            world.camera.start();
        }
        let (ended, granted) = world.apply_while_guests_act(&plan, &trouble, &mut random).await?;
        counts.granted += granted;
        let pictures = world.camera.stop();
        if !pictures.is_empty() && ended != Ended::NotUndone {
            counts.crashes += 1;
            let picture = random.below(u16::try_from(pictures.len()).unwrap());
            let picture = &pictures[usize::from(picture)];
            let crashed = crash_beside_guests(&world, picture, &plan, &mut random).await;
            crashed.map_err(|wrong| format!("a crash, {:?}, of {ended:?}: {wrong}", picture.moment))?;
        }
        if random.percent(15) {
            counts.restarts += 1;
            world.kill_daemon().await;
            world.start_daemon().await?;
            counts.granted += world.guests_act(&mut random).await?;
        }
    }
    // Somebody who hung up may have left a request behind: it is not served any more.
    world.kill_daemon().await;
    world.start_daemon().await?;
    world.remove_everything().await.map_err(|wrong| format!("at the end: {wrong}"))?;
    world.end().await;
    Ok(counts)
}

/// The daemon dies in the middle of a plan, beside guests that act. The next one leaves no operation open, has done whatever guests
/// were told, and serves all channels at once.
async fn crash_beside_guests(
    world: &World,
    picture: &Picture,
    plan: &Plan,
    random: &mut Random,
) -> Result<(), Wrong> {
    let mut woken = crash::asleep(world, picture);
    woken.set_pace(random);
    woken.start_daemon().await?;
    woken.hypervisor.come_to_it();
    crash::is_sound(&woken, &woken.state())?;
    // The plan is done or undone: what it is about may be either.
    woken.is_quiet_and_sound(Some((plan, Ended::Done))).await?;
    woken.guests_act(random).await?;
    woken.end().await;
    Ok(())
}
