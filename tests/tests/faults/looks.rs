//! Looks at the host beside one another, and changes beside looks.

use std::{sync::Arc, time::Duration};

use ioward_model::{Intent, Spec};

use crate::scene::{NIC, Scene, name, partition};

/// The look that began first ended last, and what it had found, which was old by then, was what was known from then on: the generation
/// went up for a host that had not changed, and adapters were quarantined, or not, as they had been before.
#[tokio::test(flavor = "multi_thread")]
async fn an_older_look_says_nothing_new() {
    let scene = Scene::new();
    scene.imp.look().await.unwrap();
    scene.gate.close("identify");
    let imp = Arc::clone(&scene.imp);
    let old = tokio::spawn(async move { imp.look().await.unwrap() });
    scene.gate.is_reached("identify", 1).await;
    scene.machine.write_numvfs(NIC.parse().unwrap(), 2).unwrap();
    scene.machine.advance(Duration::from_secs(10));
    scene.gate.let_pass("identify");
    let new = scene.imp.look().await.unwrap();
    scene.gate.open("identify");
    let old = old.await.unwrap();
    assert_eq!(old, new, "who looked before is told what is known now");
    assert_eq!(scene.imp.look().await.unwrap().generation, new.generation);
}

/// Two changes at once: the second was told 423, whatever it would have waited. It waits if it is told to, and its plan is good if it
/// does the same after the first.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_waits_is_made_after_the_other() {
    let scene = Scene::new();
    let grown = format!("[[adapter]]\npf = \"{NIC}\"\nvfs = 4\n");
    scene.apply(&grown).await;
    let plan_for = async |index, mac: &str| {
        let text = partition(&format!("p{index}"), index, mac);
        let spec = Spec::parse(format!("version = 1\n{grown}{text}").as_bytes()).unwrap();
        scene.imp.plan(&Intent::Apply { spec }, &Default::default()).await.unwrap()
    };
    let (first, second) = (plan_for(0, "52:54:00:00:00:0a").await, plan_for(1, "52:54:00:00:00:0b").await);
    scene.gate.close("define");
    let (listener, mut events) = tokio::sync::mpsc::unbounded_channel();
    scene.imp.apply(first, listener).await.unwrap();
    scene.gate.is_reached("define", 1).await;
    let (listener, mut of_second) = tokio::sync::mpsc::unbounded_channel();
    let busy = scene.imp.apply(second.clone(), listener.clone()).await.unwrap_err();
    assert!(busy.to_string().contains("another change"), "{busy}");
    let imp = Arc::clone(&scene.imp);
    let waiting =
        tokio::spawn(async move { imp.apply_within(second, Duration::from_secs(600), listener).await });
    scene.gate.open("define");
    while events.recv().await.is_some() {}
    waiting.await.unwrap().unwrap();
    let mut last = None;
    while let Some(event) = of_second.recv().await {
        last = Some(event.kind);
    }
    assert!(matches!(last, Some(ioward_model::EventKind::PlanDone { .. })), "{last:?}");
    assert!(scene.imp.state().partitions.contains_key(&name("p1")));
}

/// Whoever looked for drift kept others from changing anything, and was taken for a change in the moment before it had said so.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_never_told_that_a_look_is_a_change() {
    let scene = Scene::new();
    scene.gate.close("identify");
    let imp = Arc::clone(&scene.imp);
    let drift = tokio::spawn(async move { imp.drift().await });
    scene.gate.is_reached("identify", 1).await;
    scene.gate.let_pass("identify");
    let nothing = Intent::Apply { spec: Spec::parse(b"version = 1").unwrap() };
    let plan = scene.imp.plan(&nothing, &Default::default()).await.unwrap();
    let (listener, _events) = tokio::sync::mpsc::unbounded_channel();
    let imp = Arc::clone(&scene.imp);
    let change = tokio::spawn(async move { imp.apply(plan, listener).await });
    scene.gate.open("identify");
    drift.await.unwrap().unwrap();
    change.await.unwrap().unwrap();
}
