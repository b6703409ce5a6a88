//! Where files that machines boot from are opened and read: on threads of their own, within a bound. A file may be on a server that
//! does not answer any more, and then no signal ends the call.
//!
//! A path that has not answered is not tried again until it has: however often somebody asks for it, it holds one thread. So many
//! paths of one folder, and so many altogether, may be like that; every other folder's are opened as ever.

use crate::lock::lock;
use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

/// So many are opened at once.
const AT_ONCE: usize = 32;
/// So many of one folder are waited for by threads alone.
const STUCK_IN_A_FOLDER: usize = 8;
/// So many altogether.
const STUCK: usize = 128;

/// Opens files.
#[derive(Clone)]
pub(crate) struct Opening {
    at_once: Arc<Semaphore>,
    /// Those that did not answer in time, and since when.
    stuck: Arc<Mutex<BTreeMap<PathBuf, Instant>>>,
    bound: Duration,
}

impl Opening {
    pub(crate) fn new(bound: Duration) -> Self {
        Self { at_once: Arc::new(Semaphore::new(AT_ONCE)), stuck: Arc::default(), bound }
    }

    /// Does `work`, which opens this path, on a thread of its own.
    ///
    /// # Errors
    /// Those of the work; `TimedOut` when it does not end within the bound, or an earlier one on this path has not ended.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        self.check(path)?;
        let permit = timeout(self.bound, Arc::clone(&self.at_once).acquire_owned()).await;
        let permit = permit.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        let permit = permit.map_err(io::Error::other)?;
        let begun = Instant::now();
        let (answer, result) = oneshot::channel();
        let (stuck, its_path) = (Arc::clone(&self.stuck), path.to_owned());
        thread::Builder::new().name("ioward-boot".to_owned()).spawn(move || {
            let done = work();
            // Under the lock, so that it is either answered in time or known to be stuck, and not both.
            let mut stuck = lock(&stuck);
            if answer.send(done).is_err() {
                stuck.remove(&its_path);
            }
        })?;
        // In a task of its own: it is noted as stuck though the caller goes away.
        let (stuck, path, bound) = (Arc::clone(&self.stuck), path.to_owned(), self.bound);
        let watched = tokio::spawn(async move {
            let _permit = permit;
            let mut result = result;
            if let Ok(result) = timeout(bound, &mut result).await {
                return result.map_err(|_| io::Error::other("it could not be opened"));
            }
            let mut stuck = lock(&stuck);
            if let Ok(done) = result.try_recv() {
                return Ok(done);
            }
            result.close();
            stuck.insert(path, begun);
            Err(no_answer(bound))
        });
        watched.await.map_err(io::Error::other)?
    }

    fn check(&self, path: &Path) -> io::Result<()> {
        let stuck = lock(&self.stuck);
        if let Some(since) = stuck.get(path) {
            return Err(no_answer(since.elapsed()));
        }
        let beside = stuck.keys().filter(|other| other.parent() == path.parent()).count();
        if beside >= STUCK_IN_A_FOLDER || stuck.len() >= STUCK {
            let why = format!(
                "{} other files do not answer",
                if beside >= STUCK_IN_A_FOLDER { beside } else { stuck.len() }
            );
            return Err(io::Error::new(io::ErrorKind::TimedOut, why));
        }
        Ok(())
    }
}

fn no_answer(after: Duration) -> io::Error {
    let why = format!("no answer for {} s: does the server or the disk it is on still run?", after.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, why)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// One image on a dead server held a worker for ever, and eight of them all workers. Here there is one worker, and the server is
    /// a channel on which nothing comes.
    #[tokio::test(start_paused = true)]
    async fn files_that_do_not_answer_hold_nobody_else_up() {
        let opening = Opening::new(Duration::from_secs(10));
        let mut servers = Vec::new();
        for n in 0..STUCK_IN_A_FOLDER {
            let (server, never) = mpsc::channel::<()>();
            servers.push(server);
            let path = format!("/srv/nfs/{n}.qcow2");
            let error = opening.run(Path::new(&path), move || never.recv()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        }
        // Asked for again, they hold no more threads and nobody up.
        let started = tokio::time::Instant::now();
        for path in ["/srv/nfs/0.qcow2", "/srv/nfs/new.qcow2"] {
            let error = opening.run(Path::new(path), || panic!("it is not tried")).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        // A paused clock runs ahead whenever the test waits for a thread.
        tokio::time::resume();
        assert_eq!(opening.run(Path::new("/srv/local.qcow2"), || 7).await.unwrap(), 7);
        // The server comes back.
        drop(servers);
        while !lock(&opening.stuck).is_empty() {
            thread::yield_now();
        }
        assert_eq!(opening.run(Path::new("/srv/nfs/0.qcow2"), || 8).await.unwrap(), 8);
    }
}
