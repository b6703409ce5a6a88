//! The management partition's end of the channels: one task for each, so that no partition waits for another.
//!
//! Everything that comes in is hostile. A frame costs the sender a token and so do bytes; when there are none left, the channel is
//! not read for a while, which holds the guest back and nobody else. An answer that the guest does not take holds
//! up its own channel only.

use std::{
    collections::HashMap,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_channel::{
    AgentMessage, ChannelError, ErrorCode, Frame, Hello, ImpMessage, Notice, OLDEST_VERSION, VERSION, Welcome,
};
use ioward_hypervisor::{Hypervisor, HypervisorError};
use ioward_model::{EventKind, Name, OpOutcome, State, VfOp, VfView};
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::{
    error::error_chain,
    events::EventLog,
    notes::Notes,
    operations::{Asker, Operations},
    transport::Transport,
};

/// Frames that a partition may send in a second, on the long run.
const FRAMES_PER_SECOND: f64 = 200.0;
/// Frames that it may send at once after a pause.
const BURST: f64 = 100.0;
/// What a connection costs, in tokens: an agent that does nothing but connect is held back, too.
const CONNECTION: f64 = 5.0;
/// How long to wait before connecting again to a channel that was closed.
const RECONNECT: Duration = Duration::from_millis(500);

/// The part that serves channels.
pub(crate) struct Channels {
    hypervisor: Arc<dyn Hypervisor>,
    operations: Arc<Operations>,
    notes: Arc<Notes>,
    events: Arc<EventLog>,
    /// Tells this run of the daemon from others.
    epoch: u64,
    served: Mutex<HashMap<Name, Served>>,
}

#[derive(Debug)]
struct Served {
    task: AbortHandle,
    shared: Arc<Shared>,
}

/// What comes after a connection.
enum Next {
    /// Another one, if there is something to connect to.
    Soon,
    /// The hypervisor tells when there is something to connect to.
    WhenTold,
    /// None, until the machine is started or gets a channel.
    Never,
}

/// Shared between the task of a channel and the rest of the daemon.
#[derive(Debug, Default)]
struct Shared {
    vfs_changed: Notify,
    /// It was to be served while it was served already: its task looks once more before it ends.
    again: Notify,
    agent: Mutex<Option<String>>,
}

impl Shared {
    fn set_agent(&self, agent: Option<String>) {
        *self.agent.lock().unwrap_or_else(PoisonError::into_inner) = agent;
    }
}

impl Channels {
    pub(crate) fn new(
        hypervisor: Arc<dyn Hypervisor>,
        operations: Arc<Operations>,
        notes: Arc<Notes>,
        events: Arc<EventLog>,
        epoch: u64,
    ) -> Arc<Self> {
        Arc::new(Self { hypervisor, operations, notes, events, epoch, served: Mutex::default() })
    }

    /// The name that a partition's agent gives itself, once it has said hello.
    pub(crate) fn agent(&self, partition: &Name) -> Option<String> {
        let served = self.lock();
        served.get(partition)?.shared.agent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells a partition's agent, if it wants to know, that its VFs are different now.
    pub(crate) fn vfs_changed(&self, partition: &Name) {
        if let Some(served) = self.lock().get(partition) {
            served.shared.vfs_changed.notify_one();
        }
    }

    /// Serves a partition's channel no longer. A change that came through it is finished all the same ([`Operations::operate`]).
    pub(crate) fn stop(&self, partition: &Name) {
        if let Some(served) = self.lock().remove(partition) {
            served.task.abort();
        }
    }

    /// Serves no channel any longer: a partition that asks is not answered by this daemon.
    pub(crate) fn stop_all(&self) {
        self.lock().drain().for_each(|(_, served)| served.task.abort());
    }

    /// Serves a partition's channel from now on, if it has one and its machine runs, until it is stopped. One that is served already
    /// goes on: a step that makes the channel and the one that starts the machine both ask, and a guest that was quick is not
    /// cut off.
    pub(crate) fn serve(self: &Arc<Self>, partition: &Name) {
        let mut served = self.lock();
        if let Some(served) = served.get(partition) {
            served.shared.again.notify_one();
            return;
        }
        let shared = Arc::new(Shared::default());
        let task = tokio::spawn(Arc::clone(self).keep_serving(partition.clone(), Arc::clone(&shared)));
        served.insert(partition.clone(), Served { task: task.abort_handle(), shared });
    }

    async fn keep_serving(self: Arc<Self>, partition: Name, shared: Arc<Shared>) {
        // Over all connections: a guest that breaks its channel gets a new one, and no new allowance.
        let mut allowance = Allowance::new(Instant::now());
        loop {
            match self.serve_once(&partition, &shared, &mut allowance).await {
                Next::Never if self.is_done(&partition, &shared) => return,
                Next::WhenTold => shared.again.notified().await,
                Next::Soon | Next::Never => tokio::select! {
                    () = sleep(RECONNECT) => {}
                    () = shared.again.notified() => {}
                },
            }
        }
    }

    /// Serves one connection.
    async fn serve_once(&self, partition: &Name, shared: &Shared, allowance: &mut Allowance) -> Next {
        let has_channel = |state: &State| state.partitions.get(partition).is_some_and(|state| state.channel);
        let has_channel = self.notes.look(has_channel);
        if !has_channel {
            return Next::Never;
        }
        match self.hypervisor.connect_channel(partition).await {
            Ok(end) => {
                let ended = async {
                    let transport = Transport::open(end).await?;
                    Session::new(self, partition, shared, transport, allowance).run().await
                };
                if let Err(error) = ended.await {
                    tracing::debug!("channel of {partition}: {error}");
                    if error.kind() == io::ErrorKind::InvalidData {
                        let what = error.to_string();
                        let misused = EventKind::ChannelMisused { partition: partition.clone(), what };
                        self.events.emit_of_channel(partition, misused);
                    }
                }
                shared.set_agent(None);
                Next::Soon
            }
            Err(HypervisorError::NotRunning(_) | HypervisorError::NoSuchPartition(_)) => Next::Never,
            Err(HypervisorError::NoAgent(_)) => Next::WhenTold,
            Err(error) => {
                tracing::warn!("channel of {partition}: {}", error_chain(&error));
                Next::Soon
            }
        }
    }

    /// Whether a task may end, since nobody asked for its channel to be served since it looked. It is served no longer then.
    fn is_done(&self, partition: &Name, shared: &Arc<Shared>) -> bool {
        let mut all = self.lock();
        // Another task's, if this one was stopped meanwhile.
        if !all.get(partition).is_some_and(|served| Arc::ptr_eq(&served.shared, shared)) {
            return true;
        }
        // Whoever asks does so under the same lock.
        let is_asked = pin!(shared.again.notified()).enable();
        if !is_asked {
            all.remove(partition);
        }
        !is_asked
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Served>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection to a channel.
struct Session<'a> {
    channels: &'a Channels,
    partition: &'a Name,
    shared: &'a Shared,
    transport: Transport,
    allowance: &'a mut Allowance,
    /// Whether the agent has said hello.
    welcomed: bool,
    /// The VFs as the agent last heard of them; `None` when it has not subscribed.
    told: Option<Vec<VfView>>,
}

impl<'a> Session<'a> {
    fn new(
        channels: &'a Channels,
        partition: &'a Name,
        shared: &'a Shared,
        transport: Transport,
        allowance: &'a mut Allowance,
    ) -> Self {
        Self { channels, partition, shared, transport, allowance, welcomed: false, told: None }
    }

    /// Goes on until the other end closes.
    async fn run(mut self) -> io::Result<()> {
        self.pay(CONNECTION).await;
        self.send(ImpMessage::Reset { epoch: self.channels.epoch }).await?;
        loop {
            let arrival = tokio::select! {
                arrival = self.transport.receive() => arrival?,
                () = self.shared.vfs_changed.notified() => {
                    self.tell_of_changes().await?;
                    continue;
                }
            };
            let Some(arrival) = arrival else { return Ok(()) };
            self.pay(arrival.cost).await;
            match arrival.frame {
                None => {}
                Some(Ok(frame)) => self.handle(&frame).await?,
                Some(Err(error)) => self.misused(0, ErrorCode::BadFrame, &error.to_string()).await?,
            }
        }
    }

    async fn pay(&mut self, tokens: f64) {
        let wait = self.allowance.take(Instant::now(), tokens);
        if !wait.is_zero() {
            sleep(wait).await;
        }
    }

    async fn handle(&mut self, frame: &Frame) -> io::Result<()> {
        match AgentMessage::from_frame(frame) {
            Err(error) => self.misused(frame.request(), ErrorCode::BadMessage, &error.to_string()).await,
            Ok(AgentMessage::Hello(hello)) => self.welcome(&hello).await,
            Ok(AgentMessage::Request { id, .. } | AgentMessage::Subscribe { id }) if !self.welcomed => {
                self.refuse(id, ErrorCode::HelloNeeded, "say hello first", None).await
            }
            Ok(AgentMessage::Request { id, op }) => {
                let concerns_another = matches!(op, VfOp::Failover { .. });
                let result = self.channels.operations.operate(Asker::Partition, self.partition, op).await;
                self.send(ImpMessage::Response { id, more: false, result }).await?;
                // The other one of the pair is different now, too.
                if concerns_another { self.tell_of_changes().await } else { Ok(()) }
            }
            Ok(AgentMessage::Subscribe { id }) => {
                self.told = Some(self.vfs().await);
                self.send(ImpMessage::Response { id, more: false, result: Ok(OpOutcome::Done) }).await
            }
        }
    }

    async fn welcome(&mut self, hello: &Hello) -> io::Result<()> {
        self.told = None;
        let Some(version) = hello.version() else {
            self.welcomed = false;
            let message = format!(
                "this management partition speaks versions {OLDEST_VERSION} to {VERSION}, the agent {} to {}",
                hello.min_version, hello.max_version
            );
            return self.refuse(0, ErrorCode::UnsupportedVersion, &message, Some(hello.nonce)).await;
        };
        if !self.welcomed {
            let kind =
                EventKind::ChannelOpened { partition: self.partition.clone(), agent: hello.agent.clone() };
            self.channels.events.emit_of_channel(self.partition, kind);
        }
        self.welcomed = true;
        self.shared.set_agent(Some(hello.agent.clone()));
        let epoch = self.channels.epoch;
        let partition = self.partition.clone();
        self.send(ImpMessage::Welcome(Welcome { version, epoch, nonce: hello.nonce, partition })).await
    }

    async fn misused(&mut self, id: u32, code: ErrorCode, what: &str) -> io::Result<()> {
        let kind = EventKind::ChannelMisused { partition: self.partition.clone(), what: what.to_owned() };
        self.channels.events.emit_of_channel(self.partition, kind);
        self.refuse(id, code, what, None).await
    }

    async fn refuse(
        &mut self,
        id: u32,
        code: ErrorCode,
        message: &str,
        nonce: Option<u64>,
    ) -> io::Result<()> {
        let message = message.to_owned();
        let (min_version, max_version) = (OLDEST_VERSION, VERSION);
        self.send(ImpMessage::Error(ChannelError { id, code, message, min_version, max_version, nonce }))
            .await
    }

    /// The VFs that the partition holds now; none when they can't be read, which a later change mends.
    async fn vfs(&self) -> Vec<VfView> {
        match self.channels.operations.vfs_of(self.partition).await {
            Ok(OpOutcome::Vfs(vfs)) => vfs,
            _ => Vec::new(),
        }
    }

    async fn tell_of_changes(&mut self) -> io::Result<()> {
        let Some(told) = self.told.take() else { return Ok(()) };
        let now = self.vfs().await;
        for gone in told.iter().filter(|old| now.iter().all(|new| new.name != old.name)) {
            self.send(ImpMessage::Notice(Notice::Removed(gone.name.clone()))).await?;
        }
        for vf in &now {
            match told.iter().find(|old| old.name == vf.name) {
                None => self.send(ImpMessage::Notice(Notice::Added(vf.clone()))).await?,
                Some(old) if old != vf => self.send(ImpMessage::Notice(Notice::Changed(vf.clone()))).await?,
                Some(_) => {}
            }
        }
        self.told = Some(now);
        Ok(())
    }

    async fn send(&mut self, message: ImpMessage) -> io::Result<()> {
        self.transport.send(&message.to_frames()).await
    }
}

/// How much a partition may still send: tokens that come back with time, up to a bound.
#[derive(Debug)]
struct Allowance {
    tokens: f64,
    at: Instant,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// Takes tokens; returns how long to wait until they would have been there.
    fn take(&mut self, now: Instant, tokens: f64) -> Duration {
        let back = now.duration_since(self.at).as_secs_f64() * FRAMES_PER_SECOND;
        self.tokens = (self.tokens + back).min(BURST) - tokens;
        self.at = now;
        Duration::from_secs_f64((-self.tokens).max(0.0) / FRAMES_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_free_and_what_follows_waits() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        for _ in 0..100 {
            assert!(allowance.take(start, 1.0).is_zero());
        }
        assert_eq!(allowance.take(start, 1.0), Duration::from_millis(5));
        assert_eq!(allowance.take(start, 1.0), Duration::from_millis(10));
        let rested = start + Duration::from_secs(60);
        assert!(allowance.take(rested, 100.0).is_zero(), "it fills up with time");
        assert!(!allowance.take(rested, 1.0).is_zero(), "but not beyond its bound");
    }
}
