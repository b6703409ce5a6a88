//! A partition with a VF and its standby: faults of the primary's adapter, people and guests switch between the two, and the
//! partition's agent is told.

use std::time::Duration;

use ioward_channel::{ImpMessage, Notice};
use ioward_fabric::sim::Severity;
use ioward_imp::ImpError;
use ioward_model::{
    EventKind, FailoverCause, Intent, OpErrorKind, OpOutcome, Options, PairRole, PairView, Rule, VfOp,
    VfView, fault_of,
};
use ioward_pci::Bdf;
use ioward_tests::guest_end::GuestEnd;

use crate::scene::{NIC, Scene, name};

const STANDBY_NIC: &str = "0000:02:00.0";

fn pf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn web(back: &str) -> String {
    format!(
        "[[partition]]\nname = \"web\"\nboot = {{ disk = \"/dev/null\" }}\n\
         [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\npf = \"{NIC}\"\nguest_may = [\"failover\"]\n\
         failover = {{ standby = \"net0-b\"{back} }}\n\
         [[partition.vf]]\nname = \"net0-b\"\nclass = \"network\"\npf = \"{STANDBY_NIC}\"\n"
    )
}

async fn with_web(back: &str) -> Scene {
    let scene = Scene::new();
    scene.apply(&web(back)).await;
    scene.imp.reconcile().await.unwrap();
    scene
}

/// What the daemon does each second while somebody is to go back.
async fn pass(scene: &Scene, seconds: u64) {
    for _ in 0..seconds {
        scene.machine.advance(Duration::from_secs(1));
        scene.imp.reconcile().await.unwrap();
    }
}

async fn lose_link(scene: &Scene, nic: &str) {
    scene.machine.set_up(pf(nic), false).unwrap();
    scene.imp.reconcile().await.unwrap();
}

async fn have_link(scene: &Scene, nic: &str) {
    scene.machine.set_up(pf(nic), true).unwrap();
    scene.imp.reconcile().await.unwrap();
}

fn active(scene: &Scene) -> String {
    let state = scene.imp.state();
    let pair = state.failover_pairs().next().unwrap();
    let is_over = pair.primary.failed_over.is_some();
    if is_over { pair.failover.standby.to_string() } else { pair.owner.vf.to_string() }
}

fn switches(scene: &Scene) -> usize {
    scene.count(|kind| matches!(kind, EventKind::FailedOver { .. } | EventKind::FailedBack { .. }))
}

fn switch(back: bool) -> Intent {
    Intent::Failover { partition: name("web"), vf: name("net0"), back }
}

async fn refusal(scene: &Scene, back: bool) -> Rule {
    match scene.imp.plan(&switch(back), &Options::default()).await {
        Err(ImpError::Refused { reasons, .. }) => reasons[0].rule,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_lost_fails_over_at_once_and_back_when_it_has_been_there_for_a_while() {
    let scene = with_web("").await;
    assert_eq!(active(&scene), "net0");
    lose_link(&scene, NIC).await;
    assert_eq!(active(&scene), "net0-b");
    let told = scene.imp.events().into_iter().find_map(|event| match event.kind {
        EventKind::FailedOver { why, .. } => Some(why),
        _ => None,
    });
    assert_eq!(told.as_deref(), Some("the port of 0000:01:00.0 has no link"));
    assert!(scene.imp.drift().await.unwrap().is_empty());

    have_link(&scene, NIC).await;
    pass(&scene, 9).await;
    assert_eq!(active(&scene), "net0-b", "it may be lost again");
    pass(&scene, 2).await;
    assert_eq!((&*active(&scene), switches(&scene)), ("net0", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_flaps_takes_nobody_along() {
    let scene = with_web("").await;
    for _ in 0..40 {
        lose_link(&scene, NIC).await;
        have_link(&scene, NIC).await;
        pass(&scene, 5).await;
    }
    assert_eq!((&*active(&scene), switches(&scene)), ("net0-b", 1), "told once");
    // Each time it is gone back to, the next time takes longer.
    for after in [10, 20, 40] {
        pass(&scene, after + 1).await;
        assert_eq!(active(&scene), "net0");
        lose_link(&scene, NIC).await;
        have_link(&scene, NIC).await;
    }
    pass(&scene, 60).await;
    assert_eq!(active(&scene), "net0-b");
    pass(&scene, 30).await;
    assert_eq!(active(&scene), "net0");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_standby_that_works_is_never_cut_off() {
    let scene = with_web(", back = \"manual\"").await;
    lose_link(&scene, NIC).await;
    have_link(&scene, NIC).await;
    pass(&scene, 1_000).await;
    assert_eq!(active(&scene), "net0-b", "nobody has asked");
    lose_link(&scene, STANDBY_NIC).await;
    assert_eq!(active(&scene), "net0");
    // With neither, there is nothing to switch to.
    lose_link(&scene, NIC).await;
    let before = switches(&scene);
    pass(&scene, 100).await;
    assert_eq!(switches(&scene), before);
    have_link(&scene, STANDBY_NIC).await;
    pass(&scene, 3).await;
    assert_eq!(active(&scene), "net0-b");
}

#[tokio::test(flavor = "multi_thread")]
async fn people_switch_and_it_stays_so_for_a_daemon_after_this_one() {
    let scene = with_web("").await;
    scene.ask(switch(false)).await;
    assert_eq!(active(&scene), "net0-b");
    pass(&scene, 1_000).await;
    let scene = scene.restarted().await;
    pass(&scene, 10).await;
    let over = scene.imp.state().partitions[&name("web")].vfs[&name("net0")].failed_over.clone().unwrap();
    assert_eq!(over.why, FailoverCause::Asked);
    assert!(over.since_ms > 0);
    let again = scene.imp.plan(&switch(false), &Options::default()).await.unwrap();
    assert!(again.steps.is_empty(), "it is so already");
    scene.ask(switch(true)).await;
    assert_eq!(active(&scene), "net0");

    lose_link(&scene, STANDBY_NIC).await;
    assert_eq!(refusal(&scene, false).await, Rule::InService);
    let unknown = Intent::Failover { partition: name("web"), vf: name("net0-b"), back: false };
    let Err(ImpError::Refused { reasons, .. }) = scene.imp.plan(&unknown, &Options::default()).await else {
        panic!()
    };
    assert_eq!(reasons[0].remedy, "name web/net0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_switches_within_what_it_may() {
    let scene = with_web("").await;
    let operate =
        async |vf: &str, back| scene.imp.operate(&name("web"), VfOp::Failover { vf: name(vf), back }).await;
    let OpOutcome::Vf(view) = operate("net0", false).await.unwrap() else { panic!() };
    let pair = PairView { role: PairRole::Primary, partner: name("net0-b"), active: false };
    assert_eq!(view.failover, Some(pair));
    assert_eq!(active(&scene), "net0-b");
    operate("net0", true).await.unwrap();
    assert_eq!(active(&scene), "net0");
    assert_eq!(operate("net0-b", false).await.unwrap_err().kind, OpErrorKind::Denied);
    lose_link(&scene, STANDBY_NIC).await;
    assert_eq!(operate("net0", false).await.unwrap_err().kind, OpErrorKind::Busy);
    assert_eq!(active(&scene), "net0");
}

/// The next notices, until there is one of each VF.
async fn told(guest: &mut GuestEnd) -> Vec<VfView> {
    let mut views: Vec<VfView> = Vec::new();
    while views.len() < 2 {
        match guest.hear().await {
            Some(ImpMessage::Notice(Notice::Changed(view))) => {
                views.retain(|known| known.name != view.name);
                views.push(view);
            }
            other => panic!("{other:?}"),
        }
    }
    views.sort_by(|a, b| a.name.cmp(&b.name));
    views
}

/// All VFs of a partition with one on a frozen adapter were told to be gone: its agent would have taken its interfaces down.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_told_of_a_fault_why_and_when_it_is_over() {
    let scene = with_web("").await;
    let mut guest = scene.machines.guest("web").await;
    guest.hello().await;
    guest.subscribe().await;
    scene.report_error(NIC, Severity::NonFatal, None);
    scene.imp.reconcile().await.unwrap();
    let [net0, standby] = &told(&mut guest).await[..] else { panic!() };
    assert_eq!(net0.fault.as_deref(), Some("adapter 0000:01:00.0 is frozen: 1 non-fatal error (AER)"));
    assert!(!net0.failover.as_ref().unwrap().active);
    assert_eq!((standby.fault.as_deref(), standby.failover.as_ref().unwrap().active), (None, true));

    pass(&scene, 60).await;
    let mut last = told(&mut guest).await;
    while !last[0].failover.as_ref().unwrap().active {
        last = told(&mut guest).await;
    }
    assert_eq!(last[0].fault, None);
    assert!(!last[1].failover.as_ref().unwrap().active);
}

/// Numbers that follow from a seed (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound
    }
}

/// Something happens to a port, an adapter, the daemon, or somebody asks for something.
async fn happen(scene: Scene, random: &mut Random, story: &mut Vec<String>) -> Scene {
    let nic = [NIC, STANDBY_NIC][usize::try_from(random.below(2)).unwrap()];
    let what = random.below(12);
    story.push(format!("{what} {nic}"));
    match what {
        0..=2 => scene.machine.set_up(pf(nic), false).unwrap(),
        3..=5 => scene.machine.set_up(pf(nic), true).unwrap(),
        6 => scene.report_error(nic, Severity::NonFatal, None),
        7 => scene.machine.advance(Duration::from_secs(1 + random.below(40))),
        8 | 9 => {
            // Whoever asks for one that does not work is refused.
            let back = random.below(2) == 0;
            if what == 8 {
                drop(scene.imp.operate(&name("web"), VfOp::Failover { vf: name("net0"), back }).await);
            } else if scene.imp.plan(&switch(back), &Options::default()).await.is_ok() {
                scene.ask(switch(back)).await;
            }
        }
        10 => {
            let scene = scene.restarted().await;
            scene.imp.reconcile().await.unwrap();
            return scene;
        }
        _ => {
            for _ in 0..random.below(15) {
                scene.machine.advance(Duration::from_secs(1));
                scene.imp.reconcile().await.unwrap();
            }
        }
    }
    scene.imp.reconcile().await.unwrap();
    scene
}

/// Two hundred stories of links that flap, adapters with errors, both at once, guests and people who ask, and daemons that die: after
/// each look whoever has one that works has it active.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_one_that_works_is_active() {
    let (mut over, mut both) = (0, 0);
    for seed in 1..=200 {
        let mut random = Random(seed);
        let mut story = Vec::new();
        let mut scene = with_web(["", ", back = \"manual\""][usize::try_from(seed % 2).unwrap()]).await;
        for _ in 0..30 {
            scene = happen(scene, &mut random, &mut story).await;
            let (inventory, state) = (scene.imp.look().await.unwrap(), scene.imp.state());
            let pair = state.failover_pairs().next().unwrap();
            let faults = [fault_of(&inventory, pair.primary), pair.fault_of_standby(&inventory)];
            let active = pair.primary.failed_over.is_some();
            match &faults {
                [Some(fault), None] => {
                    assert!(active, "seed {seed}: {fault}, and its standby is not active: {story:?}");
                }
                [None, Some(fault)] => {
                    assert!(!active, "seed {seed}: {fault} of the standby, which is active: {story:?}");
                }
                [None, None] => {}
                [Some(_), Some(_)] => both += 1,
            }
            over += usize::from(active);
        }
    }
    assert!(over > 500 && both > 200, "{over} times on the standby, {both} times without either");
}
