//! A machine whose VF has a standby on a bridge: the VF goes out of the machine when the standby is to carry something, and its MAC with
//! it; guests that do not let go, daemons that die.

use std::time::Duration;

use ioward_fabric::{
    Fabric,
    sim::{Severity, Silence},
};
use ioward_imp::ImpError;
use ioward_model::{EventKind, Halt, Intent, Options, Rule, Spec, VfOp, VfSettings, fault_of};
use ioward_pci::Bdf;

use crate::scene::{NIC, Scene, name, vf};

const MAC: &str = "52:54:00:aa:00:01";
const PARKED: &str = "06:54:00:aa:00:01";
const NONE: &str = "00:00:00:00:00:00";

fn pf() -> Bdf {
    NIC.parse().unwrap()
}

fn web(bridge: &str) -> String {
    format!(
        "[[partition]]\nname = \"web\"\nboot = {{ disk = \"/dev/null\" }}\n\
         [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\npf = \"{NIC}\"\nindex = 0\nmac = \"{MAC}\"\n\
         guest_may = [\"failover\", \"vlan\"]\nfailover = {{ standby = \"bridge:{bridge}\" }}\n"
    )
}

async fn with_web() -> Scene {
    let scene = Scene::new();
    scene.apply(&web("br0")).await;
    scene.ask(Intent::Start { partition: name("web") }).await;
    scene.imp.reconcile().await.unwrap();
    scene
}

async fn pass(scene: &Scene, seconds: u64) {
    for _ in 0..seconds {
        scene.machine.advance(Duration::from_secs(1));
        scene.imp.reconcile().await.unwrap();
    }
}

async fn link(scene: &Scene, up: bool) {
    scene.machine.set_up(pf(), up).unwrap();
    scene.imp.reconcile().await.unwrap();
}

/// Whether the machine has the VF, and the VF's MAC.
fn seen(scene: &Scene) -> (bool, String) {
    let (is_in, standby) = scene.machines.pair("web", "net0");
    assert_eq!(standby.as_deref(), Some(MAC), "it is there all the time");
    (is_in, scene.mac(vf(0)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vf_without_a_link_goes_out_of_its_machine_with_its_mac_and_comes_back_with_it() {
    let scene = with_web().await;
    assert_eq!(seen(&scene), (true, MAC.to_owned()));
    link(&scene, false).await;
    assert_eq!(seen(&scene), (false, PARKED.to_owned()));
    assert!(scene.imp.drift().await.unwrap().is_empty());
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::FailedOver { .. })), 1);

    // A daemon that died before it had done that, or somebody's own hands.
    let none = VfSettings { mac: NONE.parse().ok(), ..VfSettings::default() };
    scene.machine.fabric().configure(vf(0), &none).await.unwrap();
    scene.imp.reconcile().await.unwrap();
    assert_eq!(seen(&scene), (false, PARKED.to_owned()));

    // What is asked for is what there is: nothing is to be done.
    let spec = Spec::parse(format!("version = 1\n{}", web("br0")).as_bytes()).unwrap();
    let plan = scene.imp.plan(&Intent::Apply { spec }, &Options::default()).await.unwrap();
    assert!(plan.steps.is_empty(), "{:?}", plan.steps);

    link(&scene, true).await;
    pass(&scene, 9).await;
    assert_eq!(seen(&scene), (false, PARKED.to_owned()), "the link may be lost again");
    pass(&scene, 2).await;
    assert_eq!(seen(&scene), (true, MAC.to_owned()));
    assert!(scene.imp.drift().await.unwrap().is_empty());
    let is_drift =
        |kind: &EventKind| matches!(kind, EventKind::DriftFound { .. } | EventKind::DriftRepaired { .. });
    assert_eq!(scene.count(is_drift), 0, "the switches are told, and not what they make");
}

/// The MAC of a VF that is trusted is its guest's own affair, and so was the one that ioward had given it while it was out of its machine: it
/// never had its own again, and net_failover in the guest did not know it for the primary. A seed of midway.rs in simulation told it.
#[tokio::test(flavor = "multi_thread")]
async fn a_vf_that_is_trusted_comes_back_with_its_own_mac_too_whether_its_machine_runs_or_not() {
    for runs in [true, false] {
        let scene = Scene::new();
        scene.apply(&web("br0").replace("index = 0", "index = 0\ntrust = true")).await;
        scene.ask(Intent::Start { partition: name("web") }).await;
        scene.imp.reconcile().await.unwrap();
        link(&scene, false).await;
        assert_eq!(seen(&scene), (false, PARKED.to_owned()));
        if !runs {
            scene.ask(Intent::Stop { partition: name("web") }).await;
        }
        link(&scene, true).await;
        pass(&scene, 11).await;
        assert_eq!(seen(&scene), (true, MAC.to_owned()), "runs: {runs}");
        assert!(scene.imp.drift().await.unwrap().is_empty());
    }
}

/// A driver that is told of another MAC while its VF goes does not let go of it (igbvf): the VF has none until it is out.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_does_not_let_go_is_asked_again_and_told_of_once() {
    let scene = with_web().await;
    scene.machines.be_silent(true);
    link(&scene, false).await;
    pass(&scene, 20).await;
    assert_eq!(seen(&scene), (true, NONE.to_owned()), "what is for it goes to the bridge all the same");
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::RepairFailed { .. })), 1);
    scene.machines.be_silent(false);
    pass(&scene, 1).await;
    assert_eq!(seen(&scene), (false, PARKED.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_guests_switch_and_a_daemon_that_comes_after_goes_on() {
    let scene = with_web().await;
    let switch = |back| Intent::Failover { partition: name("web"), vf: name("net0"), back };
    scene.ask(switch(false)).await;
    // It dies before it has done anything about it.
    let scene = scene.restarted().await;
    scene.imp.reconcile().await.unwrap();
    assert_eq!(seen(&scene), (false, PARKED.to_owned()));
    let set = VfOp::Failover { vf: name("net0"), back: true };
    scene.imp.operate(&name("web"), set).await.unwrap();
    scene.imp.reconcile().await.unwrap();
    assert_eq!(seen(&scene), (true, MAC.to_owned()));
    link(&scene, false).await;
    let Err(ImpError::Refused { reasons, .. }) = scene.imp.plan(&switch(true), &Options::default()).await
    else {
        panic!("its link is gone")
    };
    assert_eq!(reasons[0].rule, Rule::InService);
}

/// An adapter that is lost for good took the machine along, though that has a standby: it stayed as QEMU had stopped it.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_its_adapter_has_halted_goes_on_by_its_standby() {
    let scene = with_web().await;
    scene.machine.fall_silent(pf(), Silence::ForGood).unwrap();
    scene.machines.halt("web", Some(Halt::InternalError));
    pass(&scene, 5).await;
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::FailedOver { .. })), 1);
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::PartitionReset { .. })), 1);
    assert_eq!(scene.imp.partitions().await.unwrap()[0].halted, None);
    assert!(!scene.machines.pair("web", "net0").0, "the VF is out");
}

/// What the hypervisor knows goes with a boot. A standby comes before its VF.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_boot_the_standby_is_back_and_a_vf_that_was_out_stays_out() {
    for is_over in [false, true] {
        let scene = with_web().await;
        if is_over {
            scene.machine.set_up(pf(), false).unwrap();
            scene.imp.reconcile().await.unwrap();
        }
        let scene = scene.booted().await;
        scene.imp.reconcile().await.unwrap();
        scene.imp.reconcile().await.unwrap();
        let (is_in, mac) = seen(&scene);
        assert_eq!((is_in, &*mac), (!is_over, if is_over { PARKED } else { MAC }));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_bridge_takes_the_vf_out_for_a_while_which_has_to_be_allowed() {
    let scene = with_web().await;
    let spec = Spec::parse(format!("version = 1\n{}", web("br1")).as_bytes()).unwrap();
    let intent = Intent::Apply { spec };
    let Err(ImpError::Refused { reasons, .. }) = scene.imp.plan(&intent, &Options::default()).await else {
        panic!("its partition runs")
    };
    assert_eq!(reasons[0].rule, Rule::Disruption);
    assert!(reasons[0].found.contains("after its standby"), "{}", reasons[0].found);
    scene.ask(intent).await;
    let standbys = &scene.imp.state().partitions[&name("web")].standbys;
    assert_eq!(standbys[&name("net0")].bridge.as_str(), "br1");
    assert_eq!(seen(&scene), (true, MAC.to_owned()));
    // Without one it goes.
    scene.apply(&web("br1").replace("failover = { standby = \"bridge:br1\" }", "")).await;
    assert_eq!(scene.machines.pair("web", "net0"), (true, None));
    scene.ask(Intent::Stop { partition: name("web") }).await;
    scene.apply(&web("br0")).await;
    scene.ask(Intent::Remove { partition: name("web") }).await;
    assert!(scene.imp.state().partitions.is_empty());
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

/// Links that flap, errors, guests that let go or not, people, guests, daemons that die: once nobody hinders it, the VF is in if it is to
/// be, with its MAC, and out with another if not.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_happens_the_vf_is_in_its_machine_or_gives_its_mac_up() {
    let mut out = 0;
    for seed in 1..=150 {
        let mut random = Random(seed);
        let mut scene = with_web().await;
        let mut story = Vec::new();
        for _ in 0..25 {
            let what = random.below(10);
            story.push(what);
            match what {
                0 | 1 => scene.machine.set_up(pf(), false).unwrap(),
                2 | 3 => scene.machine.set_up(pf(), true).unwrap(),
                4 => drop(scene.machine.report_error(pf(), Severity::NonFatal, None)),
                5 => scene.machines.be_silent(random.below(2) == 0),
                6 => {
                    let set = VfOp::Failover { vf: name("net0"), back: random.below(2) == 0 };
                    drop(scene.imp.operate(&name("web"), set).await);
                }
                7 => scene = scene.restarted().await,
                8 => {
                    let intent = Intent::Failover {
                        partition: name("web"),
                        vf: name("net0"),
                        back: random.below(2) == 0,
                    };
                    if scene.imp.plan(&intent, &Options::default()).await.is_ok() {
                        scene.ask(intent).await;
                    }
                }
                _ => pass(&scene, random.below(15)).await,
            }
            scene.imp.reconcile().await.unwrap();
        }
        scene.machines.be_silent(false);
        for _ in 0..70 {
            scene.machine.advance(Duration::from_secs(10));
            scene.imp.reconcile().await.unwrap();
        }
        let inventory = scene.imp.look().await.unwrap();
        let held = scene.imp.state().partitions[&name("web")].vfs[&name("net0")].clone();
        let fault = fault_of(&inventory, &held);
        assert!(fault.is_none() || held.is_unplugged(), "seed {seed}: {fault:?} {story:?}");
        let wanted = if held.is_unplugged() { (false, PARKED) } else { (true, MAC) };
        let (is_in, mac) = seen(&scene);
        assert_eq!((is_in, &*mac), wanted, "seed {seed}: {held:?} {story:?}");
        out += usize::from(!is_in);
    }
    assert!(out > 20 && out < 130, "{out}");
}
