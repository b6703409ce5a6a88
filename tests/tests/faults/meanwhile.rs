//! Faults in the middle of a plan that takes long: a guest that does not let go, a machine that does not start.

use std::sync::Arc;

use ioward_fabric::sim::Severity;
use ioward_imp::Imp;
use ioward_model::{EventKind, Intent, Options, Plan, Service, Spec};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::scene::{NIC, Scene, name, partition};

const STANDBY_NIC: &str = "0000:02:00.0";

fn web() -> String {
    format!(
        "[[partition]]\nname = \"web\"\nboot = {{ disk = \"/dev/null\" }}\n\
         [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\npf = \"{NIC}\"\nfailover = {{ standby = \"net0-b\" }}\n\
         [[partition.vf]]\nname = \"net0-b\"\nclass = \"network\"\npf = \"{STANDBY_NIC}\"\n"
    )
}

/// A machine that is about to start, and does not come to it; the daemon follows the host.
async fn with_a_plan_that_waits(spec: &str) -> (Scene, JoinHandle<()>, JoinHandle<Option<EventKind>>) {
    let scene = Scene::new();
    // The adapter keeps its VFs: nobody is disturbed by the next one.
    scene.apply(&[format!("[[adapter]]\npf = \"{NIC}\"\nvfs = 4\n"), web()].concat()).await;
    scene.imp.reconcile().await.unwrap();
    let follows = tokio::spawn(Arc::clone(&scene.imp).follow_host());
    let plan = plan(&scene, spec).await;
    scene.gate.close("define");
    let (listener, mut events) = mpsc::unbounded_channel();
    scene.imp.apply(plan, listener).await.unwrap();
    scene.gate.is_reached("define", 1).await;
    let ends = tokio::spawn(async move {
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event.kind);
        }
        last
    });
    (scene, follows, ends)
}

async fn plan(scene: &Scene, more: &str) -> Plan {
    let text = format!("version = 1\n[[adapter]]\npf = \"{NIC}\"\nvfs = 4\n{}{more}", web());
    let intent = Intent::Apply { spec: Spec::parse(text.as_bytes()).unwrap() };
    scene.imp.plan(&intent, &Options::default()).await.unwrap()
}

/// The host was looked at only once a plan had ended. Until then, which may take as long as a guest likes, an adapter with a fault was
/// used as if nothing were the matter, by that plan and by partitions.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_with_a_fault_is_frozen_though_a_plan_is_under_way() {
    let (scene, follows, ends) = with_a_plan_that_waits(&partition("db", 1, "52:54:00:00:00:0b")).await;
    scene.report_error(NIC, Severity::Fatal, None);
    let is_frozen =
        |kind: &EventKind| matches!(kind, EventKind::AdapterService { service: Service::Frozen { .. }, .. });
    scene.until("it is frozen", |imp| imp.events().iter().any(|event| is_frozen(&event.kind))).await;
    scene.gate.open("define");
    let end = ends.await.unwrap();
    assert!(matches!(end, Some(EventKind::PlanFailed { .. })), "{end:?}");
    assert_eq!(scene.imp.state().partitions.len(), 1, "nothing of it is left: {end:?}");
    follows.abort();
}

/// The same for a link that is lost: its partition stayed cut off until somebody else's plan had ended, though it had a standby.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_goes_on_by_its_standby_though_a_plan_is_under_way() {
    let (scene, follows, ends) = with_a_plan_that_waits(&partition("db", 1, "52:54:00:00:00:0b")).await;
    scene.machine.set_up(NIC.parse().unwrap(), false).unwrap();
    let is_over = |imp: &ioward_imp::Imp| {
        let state = imp.state();
        let over = state.failover_pairs().any(|pair| pair.primary.failed_over.is_some());
        over && pair_is_of(&state, "web")
    };
    scene.until("its standby is active", is_over).await;
    scene.gate.open("define");
    ends.await.unwrap();
    follows.abort();
}

fn pair_is_of(state: &ioward_model::State, partition: &str) -> bool {
    state.failover_pairs().all(|pair| pair.owner.partition == name(partition))
}

/// What comes to a stop is written down with what is about to. An adapter that did not answer for half a minute kept what was done on
/// another one from being written, and the partitions that wait for that, and guests of that adapter, for as long.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_takes_long_keeps_nothing_of_another_from_being_noted() {
    let scene = Scene::new();
    let slow = partition("shop", 1, "52:54:00:00:00:0a");
    let quick = format!(
        "[[partition]]\nname = \"db\"\nboot = {{ disk = \"/dev/null\" }}\n\
         [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\npf = \"{STANDBY_NIC}\"\n"
    );
    let plan = plan(&scene, &[slow, quick].concat()).await;
    scene.gate.close("configure at the NIC");
    let (listener, mut events) = mpsc::unbounded_channel();
    scene.imp.apply(plan, listener).await.unwrap();
    scene.gate.is_reached("configure at the NIC", 1).await;
    let has_its_vf = |imp: &Imp| {
        let db = imp.state().partitions.get(&name("db")).cloned();
        db.is_some_and(|db| db.vfs.values().any(|held| held.attached))
    };
    scene.until("db has its VF", has_its_vf).await;
    assert!(!scene.imp.state().partitions[&name("shop")].vfs.values().any(|held| held.attached));
    scene.gate.open("configure at the NIC");
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(EventKind::PlanDone { .. })), "{last:?}");
}
