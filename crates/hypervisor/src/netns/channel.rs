//! The channel of a namespace: a socket that listens, and the one agent that waits there to be served.
//!
//! While one waits, or none has been taken, no other is accepted: so many that connect are kept by the kernel, and the rest are
//! refused. Which partition it is, is known from the socket alone.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixListener as StdListener},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_model::Name;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Notify, mpsc},
    task::AbortHandle,
    time::sleep,
};

use super::folder::Folder;
use crate::{HypervisorError, HypervisorEvent, file::io_error};

/// Before the next attempt to accept, where there is no descriptor left.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Where events go; nowhere while nobody has asked for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Teller(Arc<Mutex<Option<mpsc::Sender<HypervisorEvent>>>>);

impl Teller {
    /// Events go there from now on.
    pub(super) fn set(&self, listener: mpsc::Sender<HypervisorEvent>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
    }

    fn listener(&self) -> Option<mpsc::Sender<HypervisorEvent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.listener().is_some_and(|listener| !listener.is_closed())
    }

    /// Waits until there is room for it.
    pub(super) async fn tell(&self, event: HypervisorEvent) {
        if let Some(listener) = self.listener() {
            // Whoever listened may be gone by now.
            let _ = listener.send(event).await;
        }
    }
}

/// A socket that listens until this is dropped.
#[derive(Debug)]
pub(super) struct Channel {
    waiting: Arc<Waiting>,
    task: AbortHandle,
}

#[derive(Debug, Default)]
struct Waiting {
    agent: Mutex<Option<UnixStream>>,
    taken: Notify,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Channel {
    /// Listens. Needs a runtime.
    pub(super) fn open(folder: &Folder, partition: &Name, teller: Teller) -> Result<Self, HypervisorError> {
        let listener = UnixListener::from_std(StdListener::from(folder.listen()?))
            .map_err(io_error("listen at", &folder.socket()))?;
        let waiting = Arc::new(Waiting::default());
        let task = tokio::spawn(accept(listener, partition.clone(), Arc::clone(&waiting), teller));
        Ok(Self { waiting, task: task.abort_handle() })
    }

    /// The agent that waits.
    pub(super) fn take(&self) -> io::Result<Option<OwnedFd>> {
        let agent = self.waiting.agent.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.waiting.taken.notify_one();
        agent.map(|agent| agent.into_std().map(OwnedFd::from)).transpose()
    }

    /// Whether an agent waits.
    pub(super) fn is_asked_for(&self) -> bool {
        self.waiting.agent.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

async fn accept(listener: UnixListener, partition: Name, waiting: Arc<Waiting>, teller: Teller) {
    loop {
        match listener.accept().await {
            Ok((agent, _)) => {
                *waiting.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(agent);
                teller.tell(HypervisorEvent::AgentConnected { partition: partition.clone() }).await;
                while waiting.agent.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
                    waiting.taken.notified().await;
                }
            }
            Err(error) => {
                tracing::warn!("the channel of {partition} can't be accepted: {error}");
                sleep(TRY_AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixStream as StdStream,
    };

    use super::*;

    fn taken(channel: &Channel) -> StdStream {
        let stream = StdStream::from(channel.take().unwrap().unwrap());
        stream.set_nonblocking(false).unwrap();
        stream
    }

    #[tokio::test]
    async fn agents_are_served_one_after_the_other_and_in_order() {
        let runtime = tempfile::tempdir().unwrap();
        let web: Name = "web".parse().unwrap();
        let folder = Folder::new(runtime.path(), &web);
        folder.create().unwrap();
        let teller = Teller::default();
        let (sender, mut events) = mpsc::channel(4);
        teller.set(sender);
        let channel = Channel::open(&folder, &web, teller).unwrap();
        assert!(channel.take().unwrap().is_none() && !channel.is_asked_for());

        let mut first = StdStream::connect(folder.socket()).unwrap();
        let mut second = StdStream::connect(folder.socket()).unwrap();
        let connected = HypervisorEvent::AgentConnected { partition: web };
        assert_eq!(events.recv().await, Some(connected.clone()));
        assert!(channel.is_asked_for());
        first.write_all(b"1").unwrap();
        second.write_all(b"2").unwrap();
        for (mut agent, says) in [(first, b'1'), (second, b'2')] {
            let mut stream = taken(&channel);
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [says]);
            stream.write_all(b"!").unwrap();
            agent.read_exact(&mut byte).unwrap();
            if says == b'1' {
                assert_eq!(events.recv().await, Some(connected.clone()));
            }
        }
        assert!(!channel.is_asked_for());

        drop(channel);
        tokio::task::yield_now().await;
        assert!(StdStream::connect(folder.socket()).is_err(), "nobody listens any more");
    }
}
