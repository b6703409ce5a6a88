//! The management partition's end: the hypervisor side's [`Fabric`] and [`Hypervisor`], as if they were here.

use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, PartitionStatus, StopMode,
    UnusableFile,
};
use ioward_model::{Boot, Inventory, Name, Owner, PartitionSpec, VfId, VfSettings, VfStatistics};
use ioward_pci::Bdf;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use crate::{
    link::{LinkError, MAX_FROM_IMP, Reader, write_frame},
    protocol::{Call, Failure, Life, ToHost, ToImp},
};

/// News that may wait to be fetched.
const MAX_NEWS: usize = 1024;

/// The hypervisor side, as the management partition sees it. Clones are the same one.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

struct Shared {
    /// `None` once everything has been said.
    to_host: Mutex<Option<mpsc::UnboundedSender<ToHost>>>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    last_id: AtomicU64,
    changes: Mutex<Option<mpsc::Receiver<()>>>,
    events: Mutex<Option<mpsc::Receiver<HypervisorEvent>>>,
}

type Answer = (Result<Value, Failure>, Option<OwnedFd>);

/// What the hypervisor side has to say beside its answers.
pub struct Told {
    /// Ends when the management partition is to end: it was told so, or the other side has gone.
    pub stop: oneshot::Receiver<()>,
    /// Ends once everything that was said has been sent.
    pub writer: tokio::task::JoinHandle<()>,
}

/// Begins to speak with the hypervisor side.
#[must_use]
pub fn connect(stream: UnixStream) -> (Remote, Told) {
    let stream = Arc::new(stream);
    let (to_host, from_us) = mpsc::unbounded_channel();
    let (changed, changes) = mpsc::channel(1);
    let (happened, events) = mpsc::channel(MAX_NEWS);
    let (stopped, stop) = oneshot::channel();
    let remote = Remote(Arc::new(Shared {
        to_host: Mutex::new(Some(to_host)),
        waiting: Mutex::default(),
        last_id: AtomicU64::new(0),
        changes: Mutex::new(Some(changes)),
        events: Mutex::new(Some(events)),
    }));
    let writer = tokio::spawn(write(Arc::clone(&stream), from_us));
    let reader = remote.clone();
    tokio::spawn(async move {
        let mut frames = Reader::of_imp(stream);
        let mut stopped = Some(stopped);
        loop {
            match frames.next().await {
                Ok(Some(ToImp::Answer { id, result, with_fd })) => {
                    let fd = if with_fd { frames.fd() } else { None };
                    if let Some(asker) = reader.waiting().remove(&id) {
                        // Who asked may not wait any more.
                        let _ = asker.send((result, fd));
                    }
                }
                // One that waits already says the same.
                Ok(Some(ToImp::Changed)) => drop(changed.try_send(())),
                Ok(Some(ToImp::Happened(event))) => drop(happened.send(event).await),
                Ok(Some(ToImp::Stop)) => drop(stopped.take()),
                Ok(Some(ToImp::Hello(_))) => {}
                Ok(None) => break,
                Err(error) => {
                    tracing::error!("{error}");
                    break;
                }
            }
        }
        // Nobody will be answered any more.
        reader.waiting().clear();
        drop(stopped);
    });
    (remote, Told { stop, writer })
}

async fn write(stream: Arc<UnixStream>, mut from_us: mpsc::UnboundedReceiver<ToHost>) {
    while let Some(message) = from_us.recv().await {
        match write_frame(&stream, &message, None, MAX_FROM_IMP).await {
            Ok(()) => {}
            Err(LinkError::Io(_)) => return,
            // Its asker waits for nothing then; the reader's end, or its bound, ends that.
            Err(error) => tracing::error!("not sent: {error}"),
        }
    }
}

/// Why there is no answer.
enum No {
    Failure(Failure),
    Gone,
    Nonsense(String),
}

impl No {
    fn io(self) -> io::Error {
        match self {
            Self::Nonsense(what) => io::Error::other(what),
            Self::Gone | Self::Failure(_) => io::Error::other("the hypervisor side has gone"),
        }
    }

    fn fabric(self) -> FabricError {
        match self {
            Self::Failure(Failure::Fabric(error)) => error,
            other => FabricError::Refused {
                what: "do it".into(),
                why: "the hypervisor side of ioward did not answer".into(),
                source: other.io(),
            },
        }
    }

    fn hypervisor(self) -> HypervisorError {
        match self {
            Self::Failure(Failure::Hypervisor(error)) => error,
            other => HypervisorError::Io {
                what: "speak with".into(),
                path: "the hypervisor side of ioward".into(),
                source: other.io(),
            },
        }
    }
}

/// A call. Whoever goes away before there is an answer takes it back.
struct Asked<'a> {
    remote: &'a Remote,
    id: u64,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // An answer has taken it out already.
        if self.remote.waiting().remove(&self.id).is_some() {
            let _ = self.remote.send(ToHost::GiveUp { id: self.id });
        }
    }
}

impl Remote {
    /// Tells how it goes.
    pub fn tell(&self, life: Life) {
        // Where nobody listens any more, this process is about to end.
        let _ = self.send(ToHost::Life(life));
    }

    /// Tells why it ends.
    pub fn failed(&self, why: String) {
        let _ = self.send(ToHost::Failed(why));
    }

    /// Says that nothing more will be said.
    pub fn close(&self) {
        self.0.to_host.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn send(&self, message: ToHost) -> Result<(), No> {
        let to_host = self.0.to_host.lock().unwrap_or_else(PoisonError::into_inner);
        to_host.as_ref().ok_or(No::Gone)?.send(message).map_err(|_| No::Gone)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask(&self, call: Call) -> Result<(Value, Option<OwnedFd>), No> {
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(id, sender);
        let asked = Asked { remote: self, id };
        self.send(ToHost::Call { id, call })?;
        let (result, fd) = answer.await.map_err(|_| No::Gone)?;
        drop(asked);
        result.map(|value| (value, fd)).map_err(No::Failure)
    }

    async fn get<T: DeserializeOwned>(&self, call: Call) -> Result<T, No> {
        let (value, _) = self.ask(call).await?;
        serde_json::from_value(value).map_err(|error| No::Nonsense(error.to_string()))
    }

    async fn fabric<T: DeserializeOwned>(&self, call: Call) -> Result<T, FabricError> {
        self.get(call).await.map_err(No::fabric)
    }

    async fn hypervisor<T: DeserializeOwned>(&self, call: Call) -> Result<T, HypervisorError> {
        self.get(call).await.map_err(No::hypervisor)
    }
}

#[async_trait]
impl Fabric for Remote {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        self.fabric(Call::Identify).await
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.fabric(Call::SetAutoprobe { pf, on }).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.fabric(Call::SetVfCount { pf, count }).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.fabric(Call::VfAddress { vf }).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.fabric(Call::Driver { vf }).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.fabric(Call::Bind { vf, driver: driver.map(str::to_owned) }).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.fabric(Call::Reset { vf }).await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        self.fabric(Call::Settings { vf }).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.fabric(Call::Configure { vf, change: change.clone() }).await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.fabric(Call::Statistics { vf }).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.fabric(Call::IsOpen { vf }).await
    }

    /// Once: whoever asks again hears nothing.
    async fn changes(&self) -> mpsc::Receiver<()> {
        let first = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| mpsc::channel(1).1)
    }
}

#[async_trait]
impl Hypervisor for Remote {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        self.hypervisor(Call::Check).await
    }

    async fn check_boot(&self, boot: &Boot) -> Result<Vec<UnusableFile>, HypervisorError> {
        self.hypervisor(Call::CheckBoot { boot: boot.clone() }).await
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        self.hypervisor(Call::Define { spec: Box::new(spec.clone()) }).await
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.hypervisor(Call::Undefine { partition: partition.clone() }).await
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        self.hypervisor(Call::Start { partition: partition.clone() }).await
    }

    async fn stop(&self, partition: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        self.hypervisor(Call::Stop { partition: partition.clone(), mode }).await
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.hypervisor(Call::AttachVf { owner: owner.clone(), function }).await
    }

    async fn detach_vf(&self, owner: &Owner, force: bool) -> Result<(), HypervisorError> {
        self.hypervisor(Call::DetachVf { owner: owner.clone(), force }).await
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.hypervisor(Call::CreateChannel { partition: partition.clone() }).await
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.hypervisor(Call::DestroyChannel { partition: partition.clone() }).await
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        let asked = self.ask(Call::ConnectChannel { partition: partition.clone() }).await;
        let (_, fd) = asked.map_err(No::hypervisor)?;
        let missing = || No::Nonsense("a channel without a descriptor".into()).hypervisor();
        fd.map(ChannelEnd::Stream).ok_or_else(missing)
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        self.hypervisor(Call::Partitions).await
    }

    /// Once: whoever asks again hears nothing.
    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let first = self.0.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        first.unwrap_or_else(|| mpsc::channel(1).1)
    }
}
