//! Machines that halt for an error of an adapter, as QEMU stops them: seen, and told once.

use ioward_fabric::sim::Severity;
use ioward_model::{EventKind, Halt, doctor::Check};

use crate::scene::{NIC, Scene, partition};

const MAC: &str = "52:54:00:00:00:0a";

async fn with_web() -> Scene {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, MAC)).await;
    scene.imp.reconcile().await.unwrap();
    scene
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
