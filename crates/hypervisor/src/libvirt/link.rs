//! A connection to libvirt that comes again after it was lost: daemons are upgraded, killed and restarted, and domains live on.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    connection::{Bounds, Connection, Events},
    error::LibvirtError,
    wire::Event,
};

/// Between two attempts to connect, at first. It doubles with each that fails.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// And at last. A connection that has held for so long was a good one.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// A connection for as long as it holds, and then the next one.
#[derive(Debug)]
pub struct Link {
    sockets: Vec<PathBuf>,
    bounds: Bounds,
    current: Option<(Connection, Events, Instant)>,
    next_attempt: Instant,
    pause: Duration,
    hurry: Arc<Notify>,
}

/// Something that befell a [`Link`] or a domain.
#[derive(Debug)]
pub enum News {
    /// There is a connection, for the first time or again. Events before it are lost: look at everything anew.
    Connected(Connection),
    /// Something befell a domain, or events were missed.
    Event(Event),
    /// The connection is over, and why. Calls over it fail. Another one is on its way.
    Lost(Arc<str>),
    /// It could not be made. It is tried again.
    NotConnected(LibvirtError),
}

impl Link {
    /// Over the first of `sockets` that somebody listens at, each time. Nothing happens before [`Link::next`].
    #[must_use]
    pub fn new(sockets: Vec<PathBuf>, bounds: Bounds) -> Self {
        let hurry = Arc::default();
        Self { sockets, bounds, current: None, next_attempt: Instant::now(), pause: FIRST_PAUSE, hurry }
    }

    /// `notify_waiters` of it ends the pause between two attempts to connect: somebody waits for a connection.
    #[must_use]
    pub fn hurry(&self) -> Arc<Notify> {
        Arc::clone(&self.hurry)
    }

    /// What comes next; waits for it. May be dropped at any time, but an attempt to connect then begins anew.
    pub async fn next(&mut self) -> News {
        if let Some((connection, events, since)) = &mut self.current {
            if let Some(event) = events.next().await {
                return News::Event(event);
            }
            if since.elapsed() >= LAST_PAUSE {
                self.pause = FIRST_PAUSE;
            }
            let why = connection.lost().unwrap_or_else(|| "it was closed".into());
            self.current = None;
            self.wait_longer();
            return News::Lost(why);
        }
        tokio::select! {
            () = sleep_until(self.next_attempt) => {}
            () = self.hurry.notified() => {}
        }
        match Connection::open(&self.sockets, self.bounds).await {
            Ok((connection, events)) => {
                self.current = Some((connection.clone(), events, Instant::now()));
                News::Connected(connection)
            }
            Err(error) => {
                self.wait_longer();
                News::NotConnected(error)
            }
        }
    }

    fn wait_longer(&mut self) {
        self.next_attempt = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LAST_PAUSE);
    }
}
