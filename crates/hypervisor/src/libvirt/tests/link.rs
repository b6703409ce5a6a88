//! Connections one after another.

use std::path::{Path, PathBuf};

use tokio::{net::UnixListener, time::Instant};

use super::super::{Event, Link, News};
use super::*;

async fn accept(listener: &UnixListener) -> Daemon {
    let (stream, _) = listener.accept().await.unwrap();
    let mut daemon = Daemon(stream);
    daemon.welcome().await;
    daemon
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    ["virtqemud-sock", "libvirt-sock"].map(|name| folder.join(name)).into()
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_was_killed_and_comes_again_is_found_and_asked_for_events_anew() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = sockets(folder.path());
    let mut link = Link::new(sockets.clone(), BOUNDS);
    let nobody = link.next().await;
    assert!(
        matches!(&nobody, News::NotConnected(LibvirtError::NoDaemon(tried)) if tried.len() == 2),
        "{nobody:?}"
    );

    for _ in 0..3 {
        let listener = UnixListener::bind(&sockets[1]).unwrap();
        let (news, mut daemon) = tokio::join!(link.next(), accept(&listener));
        assert!(matches!(news, News::Connected(_)), "{news:?}");
        daemon.send(&lifecycle(2)).await;
        let news = link.next().await;
        assert!(matches!(news, News::Event(Event::Lifecycle { .. })), "{news:?}");
        // Its socket stays.
        drop((daemon, listener));
        let news = link.next().await;
        assert!(matches!(&news, News::Lost(why) if why.contains("closed by libvirt")), "{news:?}");
        let news = link.next().await;
        assert!(matches!(news, News::NotConnected(LibvirtError::NoDaemon(_))), "{news:?}");
        std::fs::remove_file(&sockets[1]).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn attempts_become_rarer_up_to_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(sockets(folder.path()), BOUNDS);
    link.next().await;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let before = Instant::now();
        link.next().await;
        pauses.push(before.elapsed().as_millis());
    }
    assert!(
        pauses.is_sorted() && pauses[0] <= 101 && pauses[9] >= 10_000 && pauses[9] < 10_100,
        "{pauses:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn somebody_who_waits_ends_a_pause_and_only_that() {
    let folder = tempfile::tempdir().unwrap();
    let mut link = Link::new(sockets(folder.path()), BOUNDS);
    for _ in 0..10 {
        link.next().await;
    }
    let hurry = link.hurry();
    hurry.notify_waiters();
    let before = Instant::now();
    link.next().await;
    assert!(before.elapsed().as_secs() >= 10, "nobody was in a pause then");
    let (_, before) = tokio::join!(link.next(), async {
        let before = Instant::now();
        tokio::task::yield_now().await;
        hurry.notify_waiters();
        before
    });
    assert!(before.elapsed().as_secs() < 1, "{:?}", before.elapsed());
}

#[tokio::test]
async fn the_daemon_for_qemu_alone_comes_first_unless_nobody_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let sockets = sockets(folder.path());
    let modular = UnixListener::bind(&sockets[0]).unwrap();
    let monolithic = UnixListener::bind(&sockets[1]).unwrap();
    let mut link = Link::new(sockets.clone(), BOUNDS);
    let (news, daemon) = tokio::join!(link.next(), accept(&modular));
    assert!(matches!(news, News::Connected(_)), "{news:?}");
    // A killed daemon leaves its socket behind.
    drop((daemon, modular));
    assert!(matches!(link.next().await, News::Lost(_)));
    let (news, daemon) = tokio::join!(link.next(), accept(&monolithic));
    assert!(matches!(news, News::Connected(_)), "{news:?}");
    // And back: it is asked anew each time who is there.
    std::fs::remove_file(&sockets[0]).unwrap();
    let modular = UnixListener::bind(&sockets[0]).unwrap();
    drop((daemon, monolithic));
    assert!(matches!(link.next().await, News::Lost(_)));
    let (news, _daemon) = tokio::join!(link.next(), accept(&modular));
    assert!(matches!(news, News::Connected(_)), "{news:?}");
}
