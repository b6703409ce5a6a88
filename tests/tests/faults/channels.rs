//! A channel that is served goes on, whatever else asks for it to be served.

use std::sync::Arc;

use ioward_hypervisor::HypervisorEvent;
use ioward_model::EventKind;

use crate::scene::{Scene, name, partition};

/// The step that made the channel had it served, and so had the one that started the machine. The second began anew: a guest that
/// had been quick to connect was cut off after its first words.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_is_quick_is_not_cut_off() {
    let scene = Arc::new(Scene::new());
    scene.gate.close("connect_channel");
    scene.gate.close("start");
    let applied = tokio::spawn({
        let scene = Arc::clone(&scene);
        async move { scene.apply(&partition("web", 0, "52:54:00:00:00:0a")).await }
    });
    // The channel is there, and the machine runs; the step that starts it has not ended.
    scene.gate.is_reached("connect_channel", 1).await;
    scene.gate.is_reached("start", 1).await;
    scene.gate.open("connect_channel");
    let mut guest = scene.machines.guest("web").await;
    guest.hello().await;
    assert!(guest.hear().await.is_some());
    scene.gate.open("start");
    applied.await.unwrap();
    // A reset, and two welcomes.
    guest.hello().await;
    for _ in 0..2 {
        assert!(guest.hear().await.is_some(), "cut off");
    }
}

/// A container's agent connects when it likes, and the hypervisor says so. Between two of them nobody asks for one again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_connects_is_served_when_the_hypervisor_tells_of_it() {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, "52:54:00:00:00:0a")).await;
    let web = name("web");
    tokio::spawn(Arc::clone(&scene.imp).follow_hypervisor());
    // What was there is cut off, and there is nobody to connect to.
    drop(scene.machines.guest("web").await);
    scene.machines.listen("web");
    for times in 1..=2 {
        let mut agent = scene.machines.connect("web");
        scene.machines.tell(HypervisorEvent::AgentConnected { partition: web.clone() }).await;
        agent.hello().await;
        for _ in 0..2 {
            assert!(agent.hear().await.is_some(), "a reset, and a welcome");
        }
        let opened = |kind: &EventKind| matches!(kind, EventKind::ChannelOpened { .. });
        scene.until("it is told", |_| scene.count(opened) == times).await;
    }
}
