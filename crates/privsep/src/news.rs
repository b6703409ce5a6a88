//! Events on their way to whoever consumes them. Whoever puts one in never waits: for each partition and each of its VFs the
//! newest that nobody has fetched yet is kept, so that there are no more than these.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use ioward_hypervisor::HypervisorEvent;
use tokio::sync::{Notify, mpsc};

#[derive(Default)]
pub(crate) struct News {
    waiting: Mutex<VecDeque<HypervisorEvent>>,
    arrived: Notify,
}

impl News {
    /// Takes the place of one that still waits and is old news by it.
    pub(crate) fn put(&self, event: HypervisorEvent) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        // At the end of those that wait: what is told last was so last.
        waiting.retain(|older| !event.replaces(older));
        waiting.push_back(event);
        self.arrived.notify_one();
    }

    /// Hands them over one by one, until nobody takes them any more.
    pub(crate) async fn deliver(&self, to: mpsc::Sender<HypervisorEvent>) {
        loop {
            let Ok(place) = to.reserve().await else { return };
            let arrived = self.arrived.notified();
            let first = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match first {
                Some(event) => place.send(event),
                None => arrived.await,
            }
        }
    }
}
