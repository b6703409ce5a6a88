//! Events: the latest of them, and a way to follow them. A follower is a number, that of the event that it has seen last: one that
//! does not keep up costs nothing, and is told how many it has missed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ioward_model::{Event, EventKind, Name};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::metrics::Counters;

/// How many events are kept for those who ask later. An apply of 200 VFs makes about 2,000.
const KEPT: usize = 10_000;

/// How many events a follower is given at once.
const AT_ONCE: usize = 64;

/// How many events the channel of a partition may give cause for at once, over all its connections.
const CHANNEL_EVENTS: u32 = 10;
/// How often it may give cause for one more, on the long run.
const CHANNEL_EVENT_EACH: Duration = Duration::from_secs(60);

/// The latest events of this daemon.
#[derive(Debug)]
pub(crate) struct EventLog {
    counters: Arc<Counters>,
    kept: Mutex<Kept>,
    /// The number of the latest event.
    news: watch::Sender<u64>,
    channels: Mutex<BTreeMap<Name, ChannelEvents>>,
    /// Wakes whoever tells that some were left out.
    left_out: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    count: u64,
}

/// Events that the channel of a partition may still give cause for.
#[derive(Debug)]
struct ChannelEvents {
    left: u32,
    /// When one more was allowed last.
    at: Instant,
    left_out: u64,
    /// When it was told last how many were left out.
    told: Option<Instant>,
}

impl ChannelEvents {
    fn new(now: Instant) -> Self {
        Self { left: CHANNEL_EVENTS, at: now, left_out: 0, told: None }
    }

    fn allows_one(&mut self, now: Instant) -> bool {
        while self.left < CHANNEL_EVENTS && now.duration_since(self.at) >= CHANNEL_EVENT_EACH {
            self.left += 1;
            self.at += CHANNEL_EVENT_EACH;
        }
        if self.left == CHANNEL_EVENTS {
            self.at = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        self.left_out += u64::from(!is_allowed);
        is_allowed
    }

    fn is_to_be_told(&self, now: Instant) -> bool {
        let is_told = |told| now.duration_since(told) < CHANNEL_EVENT_EACH;
        self.left_out > 0 && !self.told.is_some_and(is_told)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.left_out == 0 && now.duration_since(self.at) >= CHANNEL_EVENT_EACH * CHANNEL_EVENTS
    }
}

impl EventLog {
    pub(crate) fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            kept: Mutex::default(),
            news: watch::Sender::default(),
            channels: Mutex::default(),
            left_out: Notify::new(),
        }
    }

    /// Notes that something happened, and returns it as it is noted.
    pub(crate) fn emit(&self, kind: EventKind) -> Event {
        tracing::info!("{kind}");
        self.counters.event(&kind);
        let mut kept = self.lock();
        kept.count += 1;
        let event = Event { number: kept.count, time_ms: now_ms(), kind };
        kept.events.push_back(event.clone());
        if kept.events.len() > KEPT {
            kept.events.pop_front();
        }
        self.news.send_replace(kept.count);
        event
    }

    /// Notes something that the channel of a partition gave cause for, unless that has given cause for too much of late. Then it
    /// is counted.
    pub(crate) fn emit_of_channel(&self, partition: &Name, kind: EventKind) {
        let now = Instant::now();
        let is_allowed = {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            let events = channels.entry(partition.clone()).or_insert_with(|| ChannelEvents::new(now));
            events.allows_one(now)
        };
        if is_allowed {
            self.emit(kind);
        } else {
            self.left_out.notify_one();
        }
    }

    /// Waits until there are some to be told of.
    pub(crate) async fn something_left_out(&self) {
        self.left_out.notified().await;
    }

    /// Tells how many events of channels were left out: of each partition now and then. Gives how long those may wait that were left
    /// out since.
    pub(crate) fn tell_left_out(&self) -> Option<Duration> {
        let now = Instant::now();
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, events) in &mut *channels {
            if events.is_to_be_told(now) {
                let (partition, count) = (partition.clone(), std::mem::take(&mut events.left_out));
                events.told = Some(now);
                self.emit(EventKind::ChannelEventsLeftOut { partition, count });
            }
        }
        channels.retain(|_, events| !events.is_forgettable(now));
        channels.values().any(|events| events.left_out > 0).then_some(CHANNEL_EVENT_EACH)
    }

    /// All that are kept, oldest first.
    pub(crate) fn kept(&self) -> Vec<Event> {
        self.lock().events.iter().cloned().collect()
    }

    /// The number of the latest event; 0: there was none.
    pub(crate) fn latest(&self) -> u64 {
        self.lock().count
    }

    /// The events after this number, some at once; where some of them are not kept any more, how many those are comes first.
    pub(crate) fn after(&self, number: u64) -> Vec<Event> {
        let kept = self.lock();
        let first = kept.events.front().map_or(kept.count + 1, |event| event.number);
        let missed = first.saturating_sub(number.saturating_add(1));
        let missed = (missed > 0).then(|| Event {
            number: first - 1,
            time_ms: now_ms(),
            kind: EventKind::Missed { count: missed },
        });
        let known = usize::try_from((number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        missed.into_iter().chain(kept.events.iter().skip(known).take(AT_ONCE).cloned()).collect()
    }

    /// Changes with each event.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Milliseconds since 1970 (UTC); 0 on a machine whose clock is before that.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(events: &[Event]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_follower_goes_on_where_it_was_and_is_told_what_it_has_missed() {
        let log = EventLog::new(Arc::default());
        assert!(log.after(0).is_empty());
        (0..3).for_each(|_| _ = log.emit(EventKind::HostBooted));
        assert_eq!(numbers(&log.after(0)), [1, 2, 3]);
        assert_eq!(numbers(&log.after(2)), [3]);
        assert!(log.after(3).is_empty() && log.after(u64::MAX - 1).is_empty());
        (0..KEPT).for_each(|_| _ = log.emit(EventKind::HostBooted));
        let events = log.after(1);
        assert_eq!((events[0].number, &events[0].kind), (3, &EventKind::Missed { count: 2 }));
        assert_eq!(numbers(&events[1..3]), [4, 5]);
        assert_eq!(events.len(), AT_ONCE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_channel_gives_cause_for_so_many_events_and_the_rest_are_counted() {
        let log = EventLog::new(Arc::default());
        let web: Name = "web".parse().unwrap();
        let misuse = || EventKind::ChannelMisused { partition: web.clone(), what: "noise".into() };
        (0..1_000).for_each(|_| log.emit_of_channel(&web, misuse()));
        assert_eq!(log.latest(), u64::from(CHANNEL_EVENTS));
        log.tell_left_out();
        log.tell_left_out();
        let told = EventKind::ChannelEventsLeftOut { partition: web.clone(), count: 990 };
        assert_eq!((log.latest(), &log.kept()[10].kind), (11, &told));
        tokio::time::advance(CHANNEL_EVENT_EACH).await;
        (0..5).for_each(|_| log.emit_of_channel(&web, misuse()));
        assert_eq!(log.latest(), 12, "one more in a minute");
        log.tell_left_out();
        let told = EventKind::ChannelEventsLeftOut { partition: web.clone(), count: 4 };
        assert_eq!(log.kept()[12].kind, told);
        tokio::time::advance(CHANNEL_EVENT_EACH * CHANNEL_EVENTS).await;
        log.tell_left_out();
        assert!(log.channels.lock().unwrap().is_empty(), "who has been quiet is forgotten");
    }
}
