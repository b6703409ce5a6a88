//! Events: a guest can't fill them, and whoever follows them is told how many it missed.

use ioward_model::EventKind;

use crate::scene::{Scene, partition};

/// Each hello made the management partition forget that misuse had been told: hello, garbage, hello, garbage filled all that is
/// kept of events in a minute.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_cannot_flood_the_events() {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, "52:54:00:00:00:0a")).await;
    // Over one connection, and over many.
    for connection in 0..4 {
        let mut guest = scene.machines.guest("web").await;
        for _ in 0..30 {
            guest.hello().await;
            guest.garbage().await;
        }
        // Once it is answered for the last time, all of it has been read.
        let mut refused = 0;
        while refused < 30 {
            let heard = guest.hear().await.unwrap();
            refused += usize::from(matches!(heard, ioward_channel::ImpMessage::Error(_)));
        }
        drop(guest);
        let told = scene
            .count(|kind| matches!(kind, EventKind::ChannelMisused { .. } | EventKind::ChannelOpened { .. }));
        assert!(told <= 12, "{told} events after connection {connection}");
    }
}
