//! Where work that the kernel may never answer is done: on a thread of its own, with a bound.
//!
//! A write to sysfs can hang for ever, and no signal ends it. So work on an adapter waits its turn in that adapter's
//! lane, runs on a thread of its own, and is given up when its bound has passed: the lane is then stuck, and what comes
//! next on this adapter fails at once until the thread returns after all. Other adapters have other lanes. A thread that is done waits
//! a while for more ([`super::threads`]).

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use ioward_pci::Bdf;
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

use super::threads::Threads;
use crate::FabricError;

/// Work in one lane is done one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Looking at the whole host.
    Host,
    /// Looking at the processes of the host: one in a system call that does not end keeps nothing else waiting.
    Processes,
    /// Asking devlink, which waits for drivers that are recovering or changing their number of VFs: what else is read does not wait
    /// behind it.
    Devlink,
    /// Reading from an adapter: need not wait for a change that takes long.
    Read(Bdf),
    /// Reading what the kernel does not tell while somebody changes the number of VFs, whoever that is and however long it
    /// takes: it waits for the device's lock. What else is read does not wait behind it.
    Locked(Bdf),
    /// Changing an adapter or its VFs.
    Change(Bdf),
}

/// The lanes of a host that are in use.
#[derive(Default)]
pub(super) struct Lanes {
    lanes: Arc<Mutex<HashMap<Key, Arc<Lane>>>>,
    threads: Threads,
}

/// A lane as one of its users has it. It goes with the last of them: as long as a thread is stuck in it, it stays.
#[derive(Clone)]
struct Used {
    lanes: Arc<Mutex<HashMap<Key, Arc<Lane>>>>,
    key: Key,
    lane: Arc<Lane>,
}

impl std::ops::Deref for Used {
    type Target = Lane;

    fn deref(&self) -> &Lane {
        &self.lane
    }
}

impl Drop for Used {
    fn drop(&mut self) {
        /// The map's own, and this one.
        const LAST: usize = 2;
        // Nobody else gets it while the map is locked, and whoever has it already is counted.
        let mut lanes = lock(&self.lanes);
        if Arc::strong_count(&self.lane) == LAST {
            lanes.remove(&self.key);
        }
    }
}

#[derive(Default)]
struct Lane {
    turn: Arc<tokio::sync::Mutex<()>>,
    stuck: watch::Sender<Option<Stuck>>,
}

#[derive(Clone)]
struct Stuck {
    what: String,
    since: Instant,
}

impl From<&Stuck> for FabricError {
    fn from(stuck: &Stuck) -> Self {
        Self::Stuck { what: stuck.what.clone(), after: stuck.since.elapsed() }
    }
}

/// Tells a piece of work whether anybody still waits for it.
#[derive(Clone, Default)]
pub(super) struct Work {
    given_up: Arc<Mutex<bool>>,
}

impl Work {
    /// Fails once nobody waits for the work any more: it is then to stop before its next change.
    pub(super) fn check(&self) -> io::Result<()> {
        match *lock(&self.given_up) {
            true => Err(io::Error::new(io::ErrorKind::TimedOut, "given up")),
            false => Ok(()),
        }
    }
}

impl Lanes {
    /// Does `work` when it is its turn, on a thread that does nothing else meanwhile.
    ///
    /// The work is finished even when the caller does not wait for it: it never stops half way, except at its bound.
    ///
    /// # Errors
    /// [`FabricError::Stuck`] when it, or what came before it on this adapter, does not return within `bound`.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        key: Key,
        what: impl Into<String>,
        bound: Duration,
        work: impl FnOnce(&Work) -> Result<T, FabricError> + Send + 'static,
    ) -> Result<T, FabricError> {
        let what = what.into();
        if let Key::Read(pf) = key {
            // An adapter that hangs in a change would take the reader with it.
            if let Some(stuck) = &*self.lane(Key::Change(pf)).stuck.borrow() {
                return Err(stuck.into());
            }
        }
        let lane = self.lane(key);
        let mut stuck = lane.stuck.subscribe();
        let turn = tokio::select! {
            biased;
            Ok(stuck) = stuck.wait_for(Option::is_some) => {
                return Err(stuck.as_ref().map_or_else(|| broken(what, "lost its lane"), FabricError::from));
            }
            turn = Arc::clone(&lane.turn).lock_owned() => turn,
        };

        let since = Instant::now();
        let (answer, mut result) = oneshot::channel();
        let job = Work::default();
        let (its_job, its_lane) = (job.clone(), lane.clone());
        let thread = self.threads.run(move || {
            let outcome = work(&its_job);
            let given_up = lock(&its_job.given_up);
            let _ = answer.send(outcome);
            if *given_up {
                its_lane.stuck.send_replace(None);
            }
            drop(turn);
        });
        if let Err(source) = thread {
            return Err(FabricError::Refused {
                what,
                why: "no thread could be started for it".to_owned(),
                source,
            });
        }
        // In a task of its own, so that the bound holds even when the caller goes away.
        let name = what.clone();
        let watched = tokio::spawn(async move {
            match timeout(bound, &mut result).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(broken(name, "ended without an answer")),
                Err(_) => {
                    let mut given_up = lock(&job.given_up);
                    if let Ok(outcome) = result.try_recv() {
                        return outcome;
                    }
                    *given_up = true;
                    let stuck = Stuck { what: name, since };
                    let error = FabricError::from(&stuck);
                    lane.stuck.send_replace(Some(stuck));
                    Err(error)
                }
            }
        });
        watched.await.unwrap_or_else(|_| Err(broken(what, "was cut off: the daemon is stopping")))
    }

    fn lane(&self, key: Key) -> Used {
        let lane = Arc::clone(lock(&self.lanes).entry(key).or_default());
        Used { lanes: Arc::clone(&self.lanes), key, lane }
    }

    /// Whether nobody uses any.
    #[cfg(test)]
    pub(super) fn are_empty(&self) -> bool {
        lock(&self.lanes).is_empty()
    }

    /// Waits until there is no lane any more. A thread that has answered is a moment from its end.
    #[cfg(test)]
    async fn emptied(&self) {
        let begun = Instant::now();
        while !self.are_empty() {
            assert!(begun.elapsed().as_secs() < 60, "{} lanes are left", lock(&self.lanes).len());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until nothing is stuck in a lane.
    #[cfg(test)]
    pub(super) async fn freed(&self, key: Key) {
        self.lane(key).stuck.subscribe().wait_for(Option::is_none).await.unwrap();
    }
}

fn broken(what: String, how: &str) -> FabricError {
    let why = format!("the thread that did it {how}");
    FabricError::Refused { what, why, source: io::Error::other("no result") }
}

/// The guarded values are whole after every statement, so a poisoned mutex is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn pf(text: &str) -> Bdf {
        text.parse().unwrap()
    }

    /// openshift/sriov-network-operator#1182: a write to sriov_numvfs blocked forever, and the daemon of a cluster
    /// hung with it.
    #[tokio::test]
    async fn a_stuck_adapter_fails_fast_and_alone_until_it_returns() {
        let lanes = Lanes::default();
        let (one, other) = (pf("0000:01:00.0"), pf("0000:02:00.0"));
        let (release, blocked) = mpsc::channel::<()>();
        let hang = move |work: &Work| {
            let _ = blocked.recv();
            assert!(work.check().is_err(), "it learns that it was given up");
            Ok(())
        };
        let stuck = lanes.run(Key::Change(one), "set 4 VFs", Duration::ZERO, hang).await.unwrap_err();
        assert!(stuck.to_string().starts_with("set 4 VFs has not returned"), "{stuck}");

        for key in [Key::Change(one), Key::Read(one)] {
            let next = lanes.run(key, "something else", LONG, |_| Ok(())).await.unwrap_err();
            assert!(next.to_string().starts_with("set 4 VFs has not returned"), "says what is stuck: {next}");
        }
        lanes.run(Key::Change(other), "set 4 VFs", LONG, |_| Ok(())).await.unwrap();

        release.send(()).unwrap();
        lanes.freed(Key::Change(one)).await;
        lanes.run(Key::Change(one), "set 4 VFs", LONG, |_| Ok(())).await.unwrap();
    }

    #[tokio::test]
    async fn who_waits_for_a_turn_behind_stuck_work_does_not_wait_for_ever() {
        let lanes = Lanes::default();
        let one = Key::Change(pf("0000:01:00.0"));
        let (release, blocked) = mpsc::channel::<()>();
        let hang = move |_: &Work| {
            let _ = blocked.recv();
            Ok(())
        };
        let (first, second) = tokio::join!(
            lanes.run(one, "first", Duration::from_millis(1), hang),
            lanes.run(one, "second", LONG, |_| Ok(())),
        );
        assert!(matches!(first, Err(FabricError::Stuck { .. })));
        assert!(second.unwrap_err().to_string().starts_with("first has not returned"));
        drop(release);
    }

    #[tokio::test]
    async fn work_goes_on_when_its_caller_goes_away() {
        let lanes = Lanes::default();
        let one = Key::Change(pf("0000:01:00.0"));
        let (go, wait) = mpsc::channel::<()>();
        let (done, finished) = oneshot::channel();
        let work = move |_: &Work| {
            let _ = wait.recv();
            let _ = done.send(());
            Ok(())
        };
        {
            let mut call = Box::pin(lanes.run(one, "long work", LONG, work));
            let once = std::future::poll_fn(|context| std::task::Poll::Ready(call.as_mut().poll(context)));
            assert!(once.await.is_pending());
        }
        go.send(()).unwrap();
        finished.await.unwrap();
        lanes.run(one, "the next", LONG, |_| Ok(())).await.unwrap();
    }

    /// A management partition that was taken over made up addresses, each of which had a lane for ever.
    #[tokio::test]
    async fn a_lane_goes_with_the_last_who_uses_it() {
        let lanes = Lanes::default();
        for device in 0..32 {
            let one = pf(&format!("0000:01:{device:02x}.0"));
            for key in [Key::Read(one), Key::Change(one), Key::Locked(one)] {
                lanes.run(key, "something", LONG, |_| Ok(())).await.unwrap();
            }
        }
        lanes.emptied().await;

        // But not before: who comes meanwhile waits its turn, and who is stuck is so for all that come.
        let one = Key::Change(pf("0000:01:00.0"));
        let (release, blocked) = mpsc::channel::<()>();
        let hang = move |_: &Work| {
            let _ = blocked.recv();
            Ok(())
        };
        lanes.run(one, "first", Duration::ZERO, hang).await.unwrap_err();
        for _ in 0..3 {
            let next = lanes.run(one, "second", LONG, |_| Ok(())).await.unwrap_err();
            assert!(next.to_string().starts_with("first has not returned"), "{next}");
        }
        release.send(()).unwrap();
        lanes.emptied().await;
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_an_error_and_frees_the_lane() {
        let lanes = Lanes::default();
        let one = Key::Change(pf("0000:01:00.0"));
        let error =
            lanes.run(one, "a bug", LONG, |_| -> Result<(), _> { panic!("on purpose") }).await.unwrap_err();
        assert!(error.to_string().contains("ended without an answer"), "{error}");
        lanes.run(one, "the next", LONG, |_| Ok(())).await.unwrap();
    }
}
