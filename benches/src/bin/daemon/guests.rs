//! The guests of partitions that run while the daemon is away: behind a socket, as the ports of virtual machines are.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ioward_channel::{
    AgentMessage, Hello, ImpMessage, VERSION,
    stream::{Decoder, START, encode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    runtime::Runtime,
};

/// Where guests are found, in the daemon's folder.
pub const SOCKET: &str = "guests.sock";
/// Longer than anything here takes.
const NEVER: Duration = Duration::from_secs(300);

/// Guests, until dropped.
pub struct Guests {
    greeted: Arc<AtomicUsize>,
    _runtime: Runtime,
}

impl Guests {
    /// Plays a guest to whoever connects.
    pub fn play(folder: &Path) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let greeted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&greeted);
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(folder.join(SOCKET)).unwrap()
        };
        runtime.spawn(async move {
            while let Ok((channel, _)) = listener.accept().await {
                tokio::spawn(play(channel, Arc::clone(&counter)));
            }
        });
        Self { greeted, _runtime: runtime }
    }

    /// Waits until this many have been told welcome; how long that was after `since`.
    pub fn all_greeted(&self, count: usize, since: Instant) -> Duration {
        while self.greeted.load(Ordering::Acquire) < count {
            assert!(since.elapsed() < NEVER, "guests wait for an answer");
            std::thread::sleep(Duration::from_micros(500));
        }
        since.elapsed()
    }
}

/// Says hello, wants to hear of changes, and stays.
async fn play(mut channel: UnixStream, greeted: Arc<AtomicUsize>) {
    let hello = Hello { min_version: VERSION, max_version: VERSION, agent: "bench".to_owned(), nonce: 1 };
    let mut bytes = START.to_vec();
    for message in [AgentMessage::Hello(hello), AgentMessage::Subscribe { id: 1 }] {
        encode(&message.to_frame(), &mut bytes);
    }
    if channel.write_all(&bytes).await.is_err() {
        return;
    }
    let mut decoder = Decoder::new();
    let mut chunk = [0; 4096];
    while let Ok(length @ 1..) = channel.read(&mut chunk).await {
        let mut input = &chunk[..length];
        while let Some(frame) = decoder.next(&mut input) {
            if let Ok(ImpMessage::Welcome(_)) = ImpMessage::from_frame(&frame.unwrap()) {
                greeted.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}
