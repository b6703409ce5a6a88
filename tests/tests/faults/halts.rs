//! Machines that halt for an error of an adapter, as QEMU stops them: seen, told once, and reset once their adapters
//! serve.

use std::time::Duration;

use ioward_fabric::sim::{Severity, Silence};
use ioward_model::{EventKind, Halt, Intent, doctor::Check};

use crate::scene::{NIC, Scene, name, partition};

const MAC: &str = "52:54:00:00:00:0a";

async fn with_web() -> Scene {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, MAC)).await;
    scene.imp.reconcile().await.unwrap();
    scene
}

/// What the daemon does each second while an adapter does not serve, or a machine is to be reset.
async fn pass(scene: &Scene, seconds: u64) {
    for _ in 0..seconds {
        scene.machine.advance(Duration::from_secs(1));
        look(scene).await;
    }
}

fn resets(scene: &Scene) -> Vec<String> {
    let events = scene.imp.events().into_iter();
    let is_reset = |kind: &EventKind| matches!(kind, EventKind::PartitionReset { .. });
    events.filter(|event| is_reset(&event.kind)).map(|event| event.kind.to_string()).collect()
}

async fn look(scene: &Scene) {
    scene.imp.reconcile().await.unwrap();
}

fn halts(scene: &Scene) -> Vec<String> {
    let events = scene.imp.events().into_iter();
    events
        .filter(|event| matches!(event.kind, EventKind::PartitionHalted { .. }))
        .map(|event| event.kind.to_string())
        .collect()
}

async fn halted(scene: &Scene) -> Option<Halt> {
    scene.imp.partitions().await.unwrap()[0].halted
}

/// QEMU stops every machine that has a VF of an adapter with an uncorrectable error. It was said to run, and its guest hung until a
/// person wondered.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_an_error_of_its_adapter_has_halted_is_told_once_with_the_adapter() {
    let scene = with_web().await;
    assert_eq!(halted(&scene).await, None);
    scene.report_error(NIC, Severity::NonFatal, None);
    look(&scene).await;
    look(&scene).await;
    assert_eq!(halts(&scene), ["partition web has halted: internal-error, by an error of 0000:01:00.0"]);
    assert_eq!(halted(&scene).await, Some(Halt::InternalError));
    let findings = scene.imp.doctor().await.unwrap().findings;
    let of_machine: Vec<_> = findings.iter().filter(|finding| finding.check == Check::Machine).collect();
    assert!(of_machine.len() == 1 && of_machine[0].found.contains("web has halted"), "{of_machine:?}");

    // Whoever it was that has had it go on.
    scene.machines.halt("web", None);
    look(&scene).await;
    look(&scene).await;
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::PartitionGoesOn { .. })), 1);
    assert_eq!(halted(&scene).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_somebody_has_paused_is_told_with_no_adapter() {
    let scene = with_web().await;
    scene.machines.halt("web", Some(Halt::Paused));
    look(&scene).await;
    assert_eq!(halts(&scene), ["partition web has halted: paused"]);
    // One that has ended has halted no more.
    scene.machines.turn("web", false);
    look(&scene).await;
    assert_eq!(halted(&scene).await, None);
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::PartitionGoesOn { .. })), 0);
}

/// A person had to find it, and reset it by hand.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_reset_once_its_adapter_serves_again() {
    let scene = with_web().await;
    scene.report_error(NIC, Severity::Fatal, Some(Silence::UntilRebound));
    // It has been reset once by then, which did not help.
    pass(&scene, 10).await;
    assert_eq!((halted(&scene).await, resets(&scene)), (Some(Halt::InternalError), Vec::new()));
    pass(&scene, 30).await;
    assert_eq!(halted(&scene).await, None);
    let [reset] = resets(&scene).try_into().unwrap();
    assert!(
        reset.starts_with("partition web was halted by an error of 0000:01:00.0; it was reset after "),
        "{reset}"
    );
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::PartitionGoesOn { .. })), 0, "that is told");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_its_vf_was_taken_from_waits_for_no_adapter() {
    let scene = with_web().await;
    scene.report_error(NIC, Severity::Fatal, Some(Silence::ForGood));
    pass(&scene, 300).await;
    assert_eq!(
        halted(&scene).await,
        Some(Halt::InternalError),
        "its adapter has failed, and it has a VF of that"
    );
    assert!(resets(&scene).is_empty());
    // It does not answer, and what is lost can be given up.
    scene.ask(Intent::Detach { partition: name("web"), vf: name("net0") }).await;
    pass(&scene, 3).await;
    assert_eq!((halted(&scene).await, resets(&scene).len()), (None, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_can_not_be_reset_is_tried_within_a_bound_and_told() {
    let scene = with_web().await;
    scene.machines.be_silent(true);
    scene.report_error(NIC, Severity::NonFatal, None);
    pass(&scene, 300).await;
    let tried = resets(&scene);
    assert!(tried.len() == 5 && tried[0].contains("could not be reset: "), "{tried:?}");
    let left = |kind: &EventKind| matches!(kind, EventKind::PartitionLeftHalted { .. });
    assert_eq!(scene.count(left), 1, "told once");
    // A person stops it and starts it.
    scene.machines.be_silent(false);
    scene.ask(Intent::Stop { partition: name("web") }).await;
    scene.ask(Intent::Start { partition: name("web") }).await;
    pass(&scene, 3).await;
    assert_eq!((halted(&scene).await, scene.count(left)), (None, 1));
}

/// The daemon that was there when it halted is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_starts_beside_a_halted_machine_resets_it() {
    let scene = with_web().await;
    scene.report_error(NIC, Severity::NonFatal, None);
    let scene = scene.restarted().await;
    pass(&scene, 3).await;
    let [reset] = resets(&scene).try_into().unwrap();
    assert!(reset.starts_with("partition web was halted; it was reset after "), "{reset}");
}
