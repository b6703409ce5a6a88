//! Watching the VFs of a partition, across restarts of the management partition.

use std::time::Duration;

use ioward_channel::{ImpMessage, Notice};
use ioward_model::VfView;

use crate::{Agent, AgentError, link::Incoming};

/// How long a watcher waits that has other things to look at.
const A_WHILE: Duration = Duration::from_millis(200);

/// What a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// All VFs there are: at the beginning, and again whenever notices may have been lost.
    Present(Vec<VfView>),
    /// A VF came, went or changed since.
    Notice(Notice),
}

/// The VFs of a partition as they come, go and change. Made by [`Agent::watch`].
pub struct Watch<'a> {
    agent: &'a mut Agent,
    /// The session that the subscription was made in.
    session: Option<u64>,
}

impl<'a> Watch<'a> {
    pub(crate) fn new(agent: &'a mut Agent) -> Self {
        Self { agent, session: None }
    }

    /// Waits for what comes next, without a bound: also while the management partition is away.
    ///
    /// # Errors
    /// When the channel is closed or taken away, or a management partition that is back does not answer.
    pub fn wait(&mut self) -> Result<WatchEvent, AgentError> {
        loop {
            if let Some(event) = self.next(None)? {
                return Ok(event);
            }
        }
    }

    /// The same, but returns `None` when nothing has come within a fraction of a second, so that who watches can look
    /// at other things.
    ///
    /// # Errors
    /// As [`Watch::wait`].
    pub fn wait_a_while(&mut self) -> Result<Option<WatchEvent>, AgentError> {
        self.next(Some(A_WHILE))
    }

    fn next(&mut self, bound: Option<Duration>) -> Result<Option<WatchEvent>, AgentError> {
        loop {
            if self.session != Some(self.agent.session) {
                // Subscribed first and listed then: what changes in between is told twice rather than not at all.
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
