//! Threads for work that may never end. Each does one thing at a time. One that is done waits a while for more: to begin a thread takes
//! longer than most of what it is begun for. A thread that does not return keeps nobody waiting: the next work gets another.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel},
    },
    thread::{self, ThreadId},
    time::Duration,
};

/// How long a thread waits for more work.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// So many wait at most.
const KEPT: usize = 4;

type Work = Box<dyn FnOnce() + Send>;

/// The threads that wait for work. Those that work are not known here.
#[derive(Clone, Default)]
pub(super) struct Threads(Arc<Mutex<Waiting>>);

type Waiting = Vec<(ThreadId, Sender<Work>)>;

impl Threads {
    /// Does `work` on a thread that does nothing else until it is done.
    ///
    /// # Errors
    /// When no thread can be started.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut work: Work = Box::new(work);
        // The one that came last: the others end when there is nothing for them to do.
        let waiting = self.lock().pop();
        if let Some((_, thread)) = waiting {
            match thread.send(work) {
                Ok(()) => return Ok(()),
                Err(back) => work = back.0,
            }
        }
        let threads = self.clone();
        thread::Builder::new().name("ioward-fabric".to_owned()).spawn(move || threads.live(work)).map(drop)
    }

    /// A thread's life. Work that panics ends it.
    fn live(&self, first: Work) {
        let mut next = Some(first);
        while let Some(work) = next {
            work();
            next = self.wait();
        }
    }

    /// Waits for more work among the others, unless enough of them wait.
    fn wait(&self) -> Option<Work> {
        let me = thread::current().id();
        let (sender, mine) = channel();
        {
            let mut waiting = self.lock();
            if waiting.len() >= KEPT {
                return None;
            }
            waiting.push((me, sender));
        }
        mine.recv_timeout(KEPT_FOR).ok().or_else(|| {
            let mut waiting = self.lock();
            let before = waiting.len();
            waiting.retain(|(thread, _)| *thread != me);
            let is_taken = waiting.len() == before;
            drop(waiting);
            // Whoever has taken it from among the others is about to give it something.
            if is_taken { mine.recv().ok() } else { None }
        })
    }

    /// The guarded value is whole after every statement, so a poisoned mutex is as good as any.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Barrier, time::Instant};

    use super::*;

    fn done_on(threads: &Threads) -> ThreadId {
        let (sender, receiver) = channel();
        threads.run(move || sender.send(thread::current().id()).unwrap()).unwrap();
        receiver.recv().unwrap()
    }

    /// Waits until so many threads wait for work.
    fn until_there_wait(threads: &Threads, count: usize) {
        let begun = Instant::now();
        while threads.lock().len() != count {
            assert!(begun.elapsed().as_secs() < 60, "{} threads wait", threads.lock().len());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// strace of one `ioward apply` of seven VFs counted 105 threads.
    #[test]
    fn a_thread_that_is_done_does_the_next_work_too() {
        let threads = Threads::default();
        let first = done_on(&threads);
        for _ in 0..20 {
            until_there_wait(&threads, 1);
            assert_eq!(done_on(&threads), first);
        }
    }

    #[test]
    fn work_that_does_not_return_keeps_none_waiting_and_few_threads_are_kept() {
        let threads = Threads::default();
        let all = Arc::new(Barrier::new(KEPT + 3));
        for _ in 0..KEPT + 2 {
            let all = Arc::clone(&all);
            threads
                .run(move || {
                    all.wait();
                })
                .unwrap();
        }
        // Each has a thread of its own, or nobody would get here.
        all.wait();
        until_there_wait(&threads, KEPT);
        let kept: BTreeSet<_> = threads.lock().iter().map(|(thread, _)| format!("{thread:?}")).collect();
        assert_eq!(kept.len(), KEPT);
    }

    #[test]
    fn work_that_panics_takes_its_thread_along_and_no_other() {
        let threads = Threads::default();
        let first = done_on(&threads);
        until_there_wait(&threads, 1);
        threads.run(|| panic!("on purpose")).unwrap();
        assert_ne!(done_on(&threads), first);
        until_there_wait(&threads, 1);
    }
}
