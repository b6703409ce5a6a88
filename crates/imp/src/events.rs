//! What happened: the latest events, and a way to follow them.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use ioward_model::{Event, EventKind};
use tokio::sync::broadcast;

/// How many events are kept for those who ask later. An apply of 200 VFs makes about 2,000.
const KEPT: usize = 10_000;

/// How far a follower may lag before it loses events.
const LAG: usize = 4_096;

/// The latest events of this daemon.
#[derive(Debug)]
pub(crate) struct EventLog {
    kept: Mutex<Kept>,
    followers: broadcast::Sender<Event>,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    count: u64,
}

impl EventLog {
    pub(crate) fn new() -> Self {
        Self { kept: Mutex::default(), followers: broadcast::channel(LAG).0 }
    }

    /// Notes that something happened, and returns it as it is noted.
    pub(crate) fn emit(&self, kind: EventKind) -> Event {
        tracing::info!("{kind}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count += 1;
        let event = Event { number: kept.count, time_ms: now_ms(), kind };
        kept.events.push_back(event.clone());
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        // Sent under the lock, so that a follower who begins now misses nothing and sees nothing twice.
        let _ = self.followers.send(event.clone());
        event
    }

    /// What has happened, and what happens from now on.
    pub(crate) fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.events.iter().cloned().collect(), self.followers.subscribe())
    }
}

/// Milliseconds since 1970 (UTC); 0 on a machine whose clock is before that.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
