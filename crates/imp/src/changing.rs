//! One change at a time: who has the right to change something, and who waits for it. The holder and what it does are one value
//! under one lock, so that nobody takes a look for a change.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};

use crate::{claims::Claimed, macs::Reserved};

/// How long a change waits at most for a look at what has drifted, which may repair something meanwhile: that is nothing a
/// client should be told of.
const WAIT_FOR_A_LOOK: Duration = Duration::from_secs(10);

/// Why no change can begin now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// Changes something that a client asked for.
    Change,
    /// Holds the host against the state, and may repair it.
    Look,
    /// Has ended, which is just being told: whoever hears of it may begin the next change.
    Ended,
}

/// The right to change something.
#[derive(Debug, Default)]
pub(crate) struct Changing {
    holder: Mutex<Option<Holder>>,
    freed: Notify,
}

/// Keeps other changes from beginning.
#[derive(Debug)]
pub(crate) struct ChangeGuard {
    changing: Arc<Changing>,
    /// MAC addresses that the change is about to use, kept from guests until it has ended.
    pub macs: Option<Reserved>,
    /// VFs whose guests change nothing until it has ended.
    pub claimed: Option<Claimed>,
}

impl ChangeGuard {
    /// The change has ended: guests may change its VFs again, and the next change waits for this to be dropped instead of
    /// being told that another is under way.
    pub(crate) fn end(&mut self) {
        (self.macs, self.claimed) = (None, None);
        *self.changing.holder.lock().unwrap_or_else(PoisonError::into_inner) = Some(Holder::Ended);
    }
}

impl Drop for ChangeGuard {
    fn drop(&mut self) {
        // Before the next change begins, which claims and reserves its own.
        (self.macs, self.claimed) = (None, None);
        *self.changing.holder.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.changing.freed.notify_one();
    }
}

impl Changing {
    /// Takes the right, or tells who has it.
    pub(crate) fn try_begin(self: &Arc<Self>, who: Holder) -> Result<ChangeGuard, Holder> {
        let mut holder = self.holder.lock().unwrap_or_else(PoisonError::into_inner);
        match *holder {
            Some(holder) => Err(holder),
            None => {
                *holder = Some(who);
                Ok(ChangeGuard { changing: Arc::clone(self), macs: None, claimed: None })
            }
        }
    }

    /// Takes the right once it is free: those who wait get it in the order in which they came. Waits for a change no longer than
    /// `wait`, and for a look a little.
    pub(crate) async fn begin(self: &Arc<Self>, who: Holder, wait: Duration) -> Option<ChangeGuard> {
        let begun = Instant::now();
        loop {
            let bound = match self.try_begin(who) {
                Ok(guard) => return Some(guard),
                Err(Holder::Look | Holder::Ended) => wait.max(WAIT_FOR_A_LOOK),
                Err(Holder::Change) => wait,
            };
            let left = bound.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?;
            timeout(left, self.freed.notified()).await.ok()?;
        }
    }

    /// Takes the right, however long that takes.
    pub(crate) async fn begin_at_last(self: &Arc<Self>, who: Holder) -> ChangeGuard {
        loop {
            match self.try_begin(who) {
                Ok(guard) => return guard,
                Err(_) => self.freed.notified().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_change_waits_for_a_look_and_for_another_change_if_it_is_told_to() {
        let changing = Arc::new(Changing::default());
        let look = changing.try_begin(Holder::Look).unwrap();
        let waiting = tokio::spawn({
            let changing = Arc::clone(&changing);
            async move { changing.begin(Holder::Change, Duration::ZERO).await }
        });
        tokio::task::yield_now().await;
        drop(look);
        let change = waiting.await.unwrap().unwrap();
        assert!(changing.begin(Holder::Change, Duration::ZERO).await.is_none(), "told at once");
        let started = Instant::now();
        assert!(changing.begin(Holder::Change, MINUTE).await.is_none());
        assert_eq!(started.elapsed(), MINUTE);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let changing = Arc::clone(&changing);
                tokio::spawn(async move { changing.begin(Holder::Change, MINUTE).await.is_some() })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(change);
        for one in waiting {
            assert!(one.await.unwrap());
        }
    }
}
