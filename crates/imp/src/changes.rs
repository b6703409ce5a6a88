//! Changes: plans that were begun, each with a number of its own. A change outlives the connection that asked for it. It is
//! watched from any connection, and cancelled from any.
//!
//! ```text
//!   running ──> done
//!      │ a step fails, or somebody cancels
//!      └──> cancelling ──> rolled-back, or incomplete when something could not be rolled back
//! ```

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use ioward_api::{ChangeId, ChangeStatus, ChangeView};
use ioward_model::{Event, EventKind, Plan};
use tokio::sync::{mpsc, watch};

use crate::{
    error::ImpError,
    events::{EventLog, now_ms},
    executor::Progress,
};

/// So many changes that have ended are kept for those who ask later. A change keeps some three events for each of its steps.
const KEPT: usize = 32;

/// The changes of this run of the daemon.
#[derive(Debug)]
pub(crate) struct Changes {
    epoch: u64,
    /// [`ioward_model::PlanRecord::number`] of the latest plan.
    last: AtomicU64,
    kept: Mutex<BTreeMap<u64, Arc<Change>>>,
    /// By user and key (`Idempotency-Key`).
    keyed: Mutex<BTreeMap<(u32, String), Keyed>>,
}

/// A request that its user has given a key.
#[derive(Debug)]
struct Keyed {
    /// Tells its body from others.
    body: u64,
    begun: Begun,
}

/// The number of the change that came of a request, once it has begun. Whoever sends the request again waits for the one before.
pub(crate) type Begun = Arc<tokio::sync::Mutex<Option<u64>>>;

/// One change.
#[derive(Debug)]
pub(crate) struct Change {
    log: Mutex<Log>,
    /// How many events there are. Whoever waits for one waits for this.
    count: watch::Sender<usize>,
    cancelled: watch::Sender<bool>,
}

#[derive(Debug)]
struct Log {
    view: ChangeView,
    events: Vec<Event>,
    /// Somebody whose going away cancels the change. They hear its end by this being dropped.
    attached: Option<mpsc::UnboundedSender<Event>>,
}

impl Changes {
    /// No changes yet in this run; `last` is the number of the latest plan of the runs before.
    pub(crate) fn new(epoch: u64, last: u64) -> Self {
        Self { epoch, last: AtomicU64::new(last), kept: Mutex::default(), keyed: Mutex::default() }
    }

    /// The number of the next change, which is nobody else's: the caller is the only one who may begin a change.
    pub(crate) fn next_number(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A change that begins now. When there is somebody `attached`, the change is cancelled as soon as they go away.
    pub(crate) fn begin(
        &self,
        number: u64,
        plan: &Plan,
        attached: Option<mpsc::UnboundedSender<Event>>,
    ) -> Arc<Change> {
        let view = ChangeView {
            id: ChangeId { epoch: self.epoch, number },
            revision: plan.id,
            intent: plan.intent.word().to_owned(),
            uid: None,
            status: ChangeStatus::Running,
            steps: plan.steps.len(),
            steps_done: 0,
            begun_ms: now_ms(),
            ended_ms: None,
            error: None,
        };
        let change = Arc::new(Change {
            log: Mutex::new(Log { view, events: Vec::new(), attached }),
            count: watch::Sender::new(0),
            cancelled: watch::Sender::new(false),
        });
        let mut kept = self.lock();
        kept.insert(number, Arc::clone(&change));
        while kept.len() > KEPT {
            // One change runs at a time, and it is the latest: the oldest has ended.
            kept.pop_first();
        }
        change
    }

    /// What became of a user's request with this key; `None`: the key was another request's. Keys are kept as long as their
    /// changes are.
    pub(crate) fn keyed(&self, uid: u32, key: &str, body: u64) -> Option<Begun> {
        let mut keyed = self.keyed.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.lock();
        keyed.retain(|_, keyed| {
            let is_asked = Arc::strong_count(&keyed.begun) > 1;
            let begun = keyed.begun.try_lock().map_or(None, |begun| *begun);
            is_asked || begun.is_some_and(|number| kept.contains_key(&number))
        });
        let entry = keyed.entry((uid, key.to_owned()));
        let keyed = entry.or_insert_with(|| Keyed { body, begun: Begun::default() });
        (keyed.body == body).then(|| Arc::clone(&keyed.begun))
    }

    /// One of this run, by its number.
    pub(crate) fn by_number(&self, number: u64) -> Option<Arc<Change>> {
        self.lock().get(&number).cloned()
    }

    /// All that are kept, oldest first.
    pub(crate) fn list(&self) -> Vec<ChangeView> {
        self.lock().values().map(|change| change.view()).collect()
    }

    /// One of them.
    ///
    /// # Errors
    /// When it is of another run of the daemon, or was never begun, or is forgotten.
    pub(crate) fn get(&self, id: ChangeId) -> Result<Arc<Change>, ImpError> {
        if id.epoch != self.epoch {
            return Err(ImpError::NoSuchChange(format!(
                "change {id} is of another run of the daemon; 'ioward state export' has the journal of it"
            )));
        }
        let gone = || {
            ImpError::NoSuchChange(format!(
                "there is no change {id}: the daemon keeps the latest {KEPT}; 'ioward changes' lists them"
            ))
        };
        self.lock().get(&id.number).cloned().ok_or_else(gone)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Change>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Change {
    /// How it goes.
    pub(crate) fn view(&self) -> ChangeView {
        self.lock().view.clone()
    }

    /// Notes who has asked for it.
    pub(crate) fn asked_by(&self, uid: u32) {
        self.lock().view.uid = Some(uid);
    }

    /// Asks for it to be rolled back. A change that has ended stays as it is.
    pub(crate) fn cancel(&self) -> ChangeView {
        let mut log = self.lock();
        if log.view.status == ChangeStatus::Running {
            log.view.status = ChangeStatus::Cancelling;
            self.cancelled.send_replace(true);
        }
        log.view.clone()
    }

    /// Its event number `n`, from 0, once it has happened; `None` when the change has ended without it.
    pub(crate) async fn event(&self, n: usize) -> Option<Event> {
        let mut count = self.count.subscribe();
        loop {
            {
                let log = self.lock();
                if let Some(event) = log.events.get(n) {
                    return Some(event.clone());
                }
                if log.view.ended_ms.is_some() {
                    return None;
                }
            }
            // The sender is part of `self`: it is there.
            count.changed().await.ok()?;
        }
    }

    fn note(&self, event: Event) {
        let mut log = self.lock();
        let view = &mut log.view;
        match &event.kind {
            EventKind::StepDone { .. } => view.steps_done += 1,
            EventKind::StepUndone { error: None, .. } => {
                view.steps_done = view.steps_done.saturating_sub(1);
            }
            EventKind::StepFailed { .. } => view.status = ChangeStatus::Cancelling,
            EventKind::PlanDone { .. } => {
                view.status = ChangeStatus::Done;
                view.ended_ms = Some(event.time_ms);
            }
            EventKind::PlanFailed { error, undone, .. } => {
                view.status = if *undone { ChangeStatus::RolledBack } else { ChangeStatus::Incomplete };
                view.error = Some(error.clone());
                view.ended_ms = Some(event.time_ms);
            }
            _ => {}
        }
        if let Some(attached) = &log.attached {
            // Whoever has gone away is noticed elsewhere.
            let _ = attached.send(event.clone());
        }
        if log.view.ended_ms.is_some() {
            log.attached = None;
        }
        log.events.push(event);
        let count = log.events.len();
        drop(log);
        self.count.send_replace(count);
    }

    fn is_cancelled(&self) -> bool {
        let is_left = |attached: &mpsc::UnboundedSender<Event>| attached.is_closed();
        *self.cancelled.borrow() || self.lock().attached.as_ref().is_some_and(is_left)
    }

    async fn cancelled(&self) {
        let mut cancelled = self.cancelled.subscribe();
        let by_request = async { _ = cancelled.wait_for(|cancelled| *cancelled).await };
        let attached = self.lock().attached.clone();
        match attached {
            None => by_request.await,
            Some(attached) => tokio::select! {
                () = by_request => {}
                () = attached.closed() => {}
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the events of one plan go: the log of the daemon, and the change that they are part of.
pub(crate) struct Listener<'a> {
    log: &'a EventLog,
    change: Arc<Change>,
}

impl<'a> Listener<'a> {
    pub(crate) fn new(log: &'a EventLog, change: Arc<Change>) -> Self {
        Self { log, change }
    }
}

#[async_trait]
impl Progress for Listener<'_> {
    fn tell(&self, kind: EventKind) {
        self.change.note(self.log.emit(kind));
    }

    fn is_cancelled(&self) -> bool {
        self.change.is_cancelled()
    }

    async fn cancelled(&self) {
        self.change.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use ioward_model::{Intent, Options};

    use super::*;

    fn plan() -> Plan {
        Plan {
            id: 4,
            parent: 3,
            generation: 1,
            intent: Intent::Stop { partition: "web".parse().unwrap() },
            options: Options::default(),
            steps: Vec::new(),
            before: Vec::new(),
            disturbs: Vec::new(),
            placements: Vec::new(),
            gap: None,
            instead: Vec::new(),
            left_out: Vec::new(),
        }
    }

    fn event(number: u64, kind: EventKind) -> Event {
        Event { number, time_ms: 1, kind }
    }

    #[tokio::test]
    async fn a_change_is_watched_from_its_beginning_by_whoever_comes_late() {
        let changes = Changes::new(7, 2);
        let change = changes.begin(changes.next_number(), &plan(), None);
        change.note(event(1, EventKind::PlanStarted { plan: 3, steps: 0 }));
        let late = changes.get("7-3".parse().unwrap()).unwrap();
        assert_eq!(late.event(0).await.map(|event| event.number), Some(1));
        change.note(event(2, EventKind::PlanDone { plan: 3 }));
        assert_eq!(late.event(1).await.map(|event| event.number), Some(2));
        assert_eq!(late.event(2).await, None, "nothing comes after the end");
        assert_eq!(late.view().status, ChangeStatus::Done);
    }

    #[tokio::test]
    async fn a_change_that_has_ended_is_not_cancelled_any_more() {
        let changes = Changes::new(7, 0);
        let change = changes.begin(1, &plan(), None);
        change.note(event(1, EventKind::PlanDone { plan: 1 }));
        assert_eq!(change.cancel().status, ChangeStatus::Done);
        assert!(!change.is_cancelled());
    }

    #[tokio::test]
    async fn cancelling_wakes_whoever_waits_for_it() {
        let changes = Changes::new(7, 0);
        let change = changes.begin(1, &plan(), None);
        let waiting = tokio::spawn({
            let change = Arc::clone(&change);
            async move { change.cancelled().await }
        });
        assert_eq!(change.cancel().status, ChangeStatus::Cancelling);
        waiting.await.unwrap();
        assert!(change.is_cancelled());
    }

    #[tokio::test]
    async fn whoever_is_attached_cancels_by_going_away() {
        let changes = Changes::new(7, 0);
        let (sender, receiver) = mpsc::unbounded_channel();
        let change = changes.begin(1, &plan(), Some(sender));
        assert!(!change.is_cancelled());
        drop(receiver);
        change.cancelled().await;
        assert!(change.is_cancelled());
    }

    /// The stream of `POST /v1/apply` stayed open for ever once the change was kept for those who ask later.
    #[tokio::test]
    async fn whoever_is_attached_hears_the_end() {
        let changes = Changes::new(7, 0);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let change = changes.begin(1, &plan(), Some(sender));
        change.note(event(1, EventKind::PlanDone { plan: 1 }));
        assert!(receiver.recv().await.is_some() && receiver.recv().await.is_none());
        drop(receiver);
        assert!(!change.is_cancelled());
    }

    #[test]
    fn a_change_of_another_run_is_told_from_one_that_never_was() {
        let changes = Changes::new(7, 0);
        let of = |id: &str| changes.get(id.parse().unwrap()).unwrap_err().to_string();
        assert!(of("8-1").contains("another run"), "{}", of("8-1"));
        assert!(of("7-1").contains("there is no change 7-1"), "{}", of("7-1"));
    }

    #[tokio::test]
    async fn a_key_is_kept_with_its_change_and_is_the_users_own() {
        let changes = Changes::new(7, 0);
        let first = changes.keyed(1, "k", 5).unwrap();
        assert!(changes.keyed(1, "k", 6).is_none(), "another body");
        assert!(changes.keyed(2, "k", 6).is_some(), "another user");
        *first.lock().await = Some(changes.next_number());
        changes.begin(1, &plan(), None);
        drop(first);
        assert_eq!(*changes.keyed(1, "k", 5).unwrap().lock().await, Some(1));
        for _ in 0..KEPT {
            changes.begin(changes.next_number(), &plan(), None);
        }
        assert!(changes.keyed(1, "k", 6).is_some(), "its change is forgotten, and the key with it");
        assert_eq!(changes.keyed.lock().unwrap().len(), 1);
    }

    #[test]
    fn the_oldest_changes_are_forgotten() {
        let changes = Changes::new(7, 0);
        for _ in 0..KEPT + 3 {
            changes.begin(changes.next_number(), &plan(), None);
        }
        let kept = changes.list();
        assert_eq!((kept.len(), kept[0].id.number), (KEPT, 4));
    }
}
