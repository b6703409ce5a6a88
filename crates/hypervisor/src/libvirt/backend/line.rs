//! The line to libvirt: a connection that is made when somebody needs the first, and kept from then on; and the one who follows
//! what comes over it.
//!
//! ```text
//!   nobody asked ──> connecting <──> connected ──> events: each has the partition that it is about looked at anew
//!                        ^               │
//!                        └─── lost <─────┘         connected again: all of them
//! ```
//! No event is believed for more than that something has changed: what has, the look tells. So nothing is lost with those that
//! came while nobody was connected.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
    time::timeout,
};

use super::partition::Partitions;
use crate::libvirt::{Connection, Event, LibvirtError, Link, News, Uuid};

/// How it stands.
#[derive(Clone, Debug)]
enum Reach {
    /// Nobody has needed it, or the first attempt is under way.
    Nobody,
    Connected(Connection),
    /// It was connected, and is not now.
    Lost(LibvirtError),
    /// It has never been connected.
    Never(LibvirtError),
}

/// The line.
pub(super) struct Line {
    reach: watch::Receiver<Reach>,
    wanted: Arc<Notify>,
    hurry: Arc<Notify>,
    patience: Duration,
    follower: AbortHandle,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Line {
    /// Begins to follow once [`Line::connection`] is called. Nothing that is done over it waits longer than `patience` for a
    /// connection.
    pub(super) fn new(link: Link, partitions: Partitions, patience: Duration) -> Self {
        let (sender, reach) = watch::channel(Reach::Nobody);
        let (wanted, hurry) = (Arc::<Notify>::default(), link.hurry());
        let follower = tokio::spawn(follow(link, Arc::clone(&wanted), sender, partitions));
        Self { reach, wanted, hurry, patience, follower: follower.abort_handle() }
    }

    /// The connection. Where libvirt's daemon is being restarted, waits a moment for the next one.
    pub(super) async fn connection(&self) -> Result<Connection, LibvirtError> {
        self.wanted.notify_one();
        let mut reach = self.reach.clone();
        let mut now = reach.borrow_and_update().clone();
        let connected = async {
            // Once, and not each time that it fails.
            self.hurry.notify_waiters();
            loop {
                if let Reach::Connected(connection) = now
                    && connection.lost().is_none()
                {
                    return Ok(connection);
                }
                if reach.changed().await.is_err() {
                    return Err(LibvirtError::Lost("nobody follows it any more".into()));
                }
                now = reach.borrow_and_update().clone();
                // On a host without libvirt there is nobody to wait for.
                if let Reach::Never(error) = now {
                    return Err(error);
                }
            }
        };
        match timeout(self.patience, connected).await {
            Ok(result) => result,
            Err(_) => Err(match &*self.reach.borrow() {
                Reach::Lost(error) | Reach::Never(error) => error.clone(),
                Reach::Connected(_) | Reach::Nobody => {
                    LibvirtError::NoAnswer { call: "a connection", after: self.patience }
                }
            }),
        }
    }

    /// Asks something that changes nothing. A connection may be over without anybody having noticed: then it is asked once more,
    /// over the next one.
    pub(super) async fn ask<T, E: From<LibvirtError>, F: Future<Output = Result<T, E>>>(
        &self,
        question: impl Fn(Connection) -> F,
    ) -> Result<T, E> {
        let connection = self.connection().await?;
        match question(connection.clone()).await {
            Err(_) if connection.lost().is_some() => question(self.connection().await?).await,
            answer => answer,
        }
    }

    /// Whether it is connected now.
    pub(super) fn is_connected(&self) -> bool {
        matches!(&*self.reach.borrow(), Reach::Connected(connection) if connection.lost().is_none())
    }
}

async fn follow(mut link: Link, wanted: Arc<Notify>, reach: watch::Sender<Reach>, partitions: Partitions) {
    wanted.notified().await;
    let mut was_connected = false;
    loop {
        match link.next().await {
            News::Connected(connection) => {
                was_connected = true;
                reach.send_replace(Reach::Connected(connection));
                partitions.all().iter().for_each(|partition| partition.is_stale());
            }
            News::Event(event) => match subject(&event) {
                Some(uuid) => partitions.with(uuid).iter().for_each(|partition| partition.is_stale()),
                None => partitions.all().iter().for_each(|partition| partition.is_stale()),
            },
            News::Lost(why) => {
                tracing::warn!("the connection to libvirt ended: {why}");
                reach.send_replace(Reach::Lost(LibvirtError::Lost(why)));
            }
            News::NotConnected(error) if was_connected => {
                tracing::debug!("{error}");
                reach.send_replace(Reach::Lost(error));
            }
            News::NotConnected(error) => {
                tracing::debug!("{error}");
                reach.send_replace(Reach::Never(error));
            }
        }
    }
}

/// The domain that an event is about; `None` when it may be about any.
fn subject(event: &Event) -> Option<Uuid> {
    match event {
        Event::Lifecycle { domain, .. }
        | Event::Rebooted(domain)
        | Event::DeviceAdded { domain, .. }
        | Event::DeviceRemoved { domain, .. }
        | Event::DeviceRemovalFailed { domain, .. } => Some(domain.uuid),
        Event::Missed(_) => None,
    }
}
