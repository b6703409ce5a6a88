//! The partition's end of a channel through shared memory, where the partition is a process.

use std::{io, path::PathBuf, time::Duration};

use ioward_channel::{
    Frame,
    shared::{EndFds, Endpoint, SharedError, Side},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::{AgentError, deadline::Deadline};

/// How often to check whether the other side has left: its last ring of the doorbell goes with the doorbell.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A region in use. Every call returns by its deadline.
pub(crate) struct Region {
    endpoint: Endpoint,
}

impl Region {
    pub(crate) fn open(fds: EndFds) -> Result<Self, AgentError> {
        let opened = Endpoint::from_fds(Side::Guest, fds);
        let endpoint = opened.map_err(|error| AgentError::Open {
            path: path(),
            source: io::Error::other(with_cause(&error)),
        })?;
        Ok(Self { endpoint })
    }

    /// Sends a frame.
    pub(crate) fn send(&mut self, frame: &Frame, deadline: Deadline) -> Result<(), AgentError> {
        while !self.endpoint.try_send(frame).map_err(failed)? {
            self.wait(Some(deadline))?;
        }
        Ok(())
    }

    /// The next frame; skips anything else. Without a deadline it waits indefinitely.
    pub(crate) fn receive(&mut self, deadline: Option<Deadline>) -> Result<Frame, AgentError> {
        loop {
            // Checked before each look, so that a peer which never stops sending can't hold the caller here.
            check(deadline)?;
            match self.endpoint.try_receive().map_err(failed)? {
                Some(Ok(frame)) => return Ok(frame),
                Some(Err(_)) => {}
                None => self.wait(deadline)?,
            }
        }
    }

    fn wait(&self, deadline: Option<Deadline>) -> Result<(), AgentError> {
        check(deadline)?;
        let left = deadline.map_or(LOOK_AGAIN, |deadline| deadline.left().unwrap_or_default());
        let bound = Timespec::try_from(left.min(LOOK_AGAIN)).unwrap_or_default();
        match poll(&mut [PollFd::new(&self.endpoint, PollFlags::IN)], Some(&bound)) {
            Ok(_) | Err(Errno::INTR) => self.endpoint.clear().map_err(failed),
            Err(errno) => Err(AgentError::Io { path: path(), source: errno.into() }),
        }
    }
}

fn check(deadline: Option<Deadline>) -> Result<(), AgentError> {
    match deadline {
        Some(deadline) if deadline.left().is_none() => {
            Err(AgentError::NoAnswer { path: path(), waited: deadline.bound })
        }
        _ => Ok(()),
    }
}

/// A stand-in for a port's path, in errors.
fn path() -> PathBuf {
    "(shared memory)".into()
}

fn failed(error: SharedError) -> AgentError {
    match error {
        SharedError::Closed => AgentError::Closed { path: path() },
        error => AgentError::Io { path: path(), source: io::Error::other(with_cause(&error)) },
    }
}

fn with_cause(error: &SharedError) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
