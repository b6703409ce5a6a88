//! Machines that halt for an error of an adapter, as QEMU stops them: seen, told once, and reset once their adapters
//! serve.

use std::time::Duration;

use ioward_fabric::sim::{Severity, Silence};
use ioward_imp::ImpError;
use ioward_model::{EventKind, Halt, Intent, OpOutcome, Options, Rule, Spec, VfOp, doctor::Check};

use crate::scene::{NIC, Scene, name, partition, vf};

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
    assert!(scene.imp.metrics().await.contains("ioward_machine_resets_total{outcome=\"done\"} 1"));
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

async fn halted_one(scene: &Scene, partition: &str) -> Option<Halt> {
    let all = scene.imp.partitions().await.unwrap();
    all.into_iter().find(|one| one.name == name(partition)).unwrap().halted
}

/// Why no plan gives this VF to a partition `new`.
async fn refused(scene: &Scene, index: u16) -> Vec<Rule> {
    let spec = format!("version = 1\n{}", partition("new", index, "52:54:00:00:00:0c"));
    let intent = Intent::Apply { spec: Spec::parse(spec.as_bytes()).unwrap() };
    match scene.imp.plan(&intent, &Options { allow_disruption: true, ..Options::default() }).await {
        Ok(_) => Vec::new(),
        Err(ImpError::Refused { reasons, .. }) => reasons.into_iter().map(|reason| reason.rule).collect(),
        Err(error) => panic!("{error}"),
    }
}

/// Each error of one VF halts the machines of all VFs beside it. Nothing but the whole adapter could be locked out.
#[tokio::test(flavor = "multi_thread")]
async fn a_vf_that_reports_errors_again_and_again_is_locked_out_by_itself() {
    let scene = Scene::new();
    let adapter = format!("[[adapter]]\npf = \"{NIC}\"\nvfs = 4\n");
    let both = [partition("web", 0, MAC), partition("db", 1, "52:54:00:00:00:0b")].concat();
    scene.apply(&[adapter, both].concat()).await;
    look(&scene).await;
    for n in 1..=3 {
        assert_eq!(refused(&scene, 2).await, [], "fault {n}");
        scene.report_vf_error(vf(0));
        look(&scene).await;
        assert_eq!(halted_one(&scene, "db").await, Some(Halt::InternalError));
        pass(&scene, 20).await;
    }
    assert_eq!(halted_one(&scene, "db").await, None, "its VF does well");
    assert_eq!(halted_one(&scene, "web").await, Some(Halt::InternalError), "it would be the next error");
    pass(&scene, 100).await;
    assert_eq!(halted_one(&scene, "web").await, Some(Halt::InternalError));
    let told = |kind: &EventKind| matches!(kind, EventKind::VfLockedOut { .. });
    assert_eq!(scene.count(told), 1);
    let told = scene.imp.events().into_iter().find(|event| told(&event.kind)).unwrap().kind.to_string();
    assert_eq!(
        told,
        "VF 0 of 0000:01:00.0 at 0000:01:10.0, which web/net0 is, is locked out: 3 faults within 10 minutes, the last one: 1 non-fatal \
         error (AER); to have it back: ioward return 0000:01:10.0"
    );

    // Its partition is told, once it listens, and so is everybody.
    let OpOutcome::Vfs(vfs) = scene.imp.operate(&name("web"), VfOp::List).await.unwrap() else { panic!() };
    assert!(
        vfs[0].fault.as_ref().is_some_and(|fault| fault.contains("it is locked out: 3 faults")),
        "{vfs:?}"
    );
    let host = scene.imp.look().await.unwrap();
    let pf = host.physical_function(NIC.parse().unwrap()).unwrap();
    assert!(
        pf.service.is_serving()
            && pf.out_of_service.is_none()
            && pf.virtual_functions[0].out_of_service.is_some()
    );
    assert!(
        scene.imp.metrics().await.contains("ioward_vf_out_of_service{pf=\"0000:01:00.0\",index=\"0\"} 1")
    );
    let findings = scene.imp.doctor().await.unwrap().findings;
    let address = Some(pf.virtual_functions[0].address);
    assert!(findings.iter().any(|finding| finding.function == address), "{findings:?}");

    // It is offered to nobody, the others are.
    scene.ask(Intent::Remove { partition: name("web") }).await;
    assert!(refused(&scene, 0).await.contains(&Rule::InService));
    assert_eq!(refused(&scene, 2).await, []);
    let scene = scene.restarted().await;
    look(&scene).await;
    assert!(scene.imp.drift().await.unwrap().is_empty());
    assert!(refused(&scene, 0).await.contains(&Rule::InService));
    scene.ask(Intent::Return { pf: "0000:01:10.0".parse().unwrap() }).await;
    assert_eq!(refused(&scene, 0).await, []);
}
