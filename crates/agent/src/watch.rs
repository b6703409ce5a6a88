//! Watching the VFs of a partition, across restarts of the management partition.

use std::time::Duration;

use ioward_channel::{ImpMessage, Notice};
use ioward_model::VfView;

use crate::{Agent, AgentError, link::Incoming};

/// How long a watcher waits before it looks at other things.
const A_WHILE: Duration = Duration::from_millis(200);

/// An event for a watcher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// All VFs: at the beginning, and again whenever notices may have been lost.
    Present(Vec<VfView>),
    /// A VF came, went or changed since then.
    Notice(Notice),
}

/// The changes to a partition's VFs. Made by [`Agent::watch`].
pub struct Watch<'a> {
    agent: &'a mut Agent,
    /// The session of the subscription.
    session: Option<u64>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(agent: &'a mut Agent) -> Self {
        Self { agent, session: None }
    }

    /// Waits for the next event without a bound, even while the management partition is down.
    ///
    /// # Errors
    /// When the channel is closed or removed, or a restarted management partition does not answer.
    pub fn wait(&mut self) -> Result<WatchEvent, AgentError> {
        loop {
            if let Some(event) = self.next(None)? {
                return Ok(event);
            }
        }
    }

    /// The same, but returns `None` after a fraction of a second without an event, so that the caller can look at
    /// other things.
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn wait_a_while(&mut self) -> Result<Option<WatchEvent>, AgentError> {
        self.next(Some(A_WHILE))
    }

    fn next(&mut self, bound: Option<Duration>) -> Result<Option<WatchEvent>, AgentError> {
        loop {
            if self.session != Some(self.agent.session) {
                // Subscribes before it lists: a change in between is reported twice rather than missed.
                self.agent.subscribe()?;
                self.session = Some(self.agent.session);
                return Ok(Some(WatchEvent::Present(self.agent.list()?)));
            }
            if let Some(notice) = self.agent.notices.pop_front() {
                return Ok(Some(WatchEvent::Notice(notice)));
            }
            let incoming = match self.agent.receive(bound) {
                Err(AgentError::NoAnswer { .. } | AgentError::NotConnected { .. }) if bound.is_some() => {
                    return Ok(None);
                }
                incoming => incoming?,
            };
            match incoming {
                Incoming::Message(ImpMessage::Notice(notice)) => return Ok(Some(WatchEvent::Notice(notice))),
                Incoming::Message(ImpMessage::Reset { .. }) => self.agent.greet_again()?,
                Incoming::Message(_) | Incoming::Unreadable { .. } => {}
            }
        }
    }
}
