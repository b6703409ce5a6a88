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
    Accelerator, Adoptable, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle,
    PartitionStatus, StopMode, libvirt::Uuid,
};
use ioward_model::{
    DomainRef, Inventory, MachineLayout, Migration, Name, Owner, PartitionSpec, Recovery, StandbyNic, VfId,
    VfSettings, VfStatistics, doctor::Finding,
};
use ioward_pci::Bdf;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, SemaphorePermit, mpsc, oneshot},
};

use crate::{
    link::{Frame, MAX_FROM_IMP, Reader, Received, write_frame},
    news::News,
    protocol::{Call, Failure, Life, MAX_CALLS, ToHost, ToImp, operations},
};

/// The hypervisor side, as the management partition sees it. Clones are the same one.
#[derive(Clone)]
pub struct Remote(Arc<Shared>);

struct Shared {
    /// `None` once everything has been said.
    to_host: Mutex<Option<mpsc::UnboundedSender<ToHost>>>,
    /// Who waits for which answer; `None` once no answer can come any more.
    waiting: Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>,
    /// For calls under way. The hypervisor side takes no more.
    places: Semaphore,
    last_id: AtomicU64,
    changes: Mutex<Option<mpsc::Receiver<()>>>,
    events: Mutex<Option<mpsc::Receiver<HypervisorEvent>>>,
}

/// The result as JSON.
type Answer = (Result<Vec<u8>, Failure>, Option<OwnedFd>);

/// News from the hypervisor side beside its answers.
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
    let (happened, events) = mpsc::channel(1);
    let (stopped, stop) = oneshot::channel();
    let remote = Remote(Arc::new(Shared {
        to_host: Mutex::new(Some(to_host)),
        waiting: Mutex::new(Some(HashMap::new())),
        places: Semaphore::new(MAX_CALLS),
        last_id: AtomicU64::new(0),
        changes: Mutex::new(Some(changes)),
        events: Mutex::new(Some(events)),
    }));
    let writer = tokio::spawn(write(Arc::clone(&stream), from_us));
    let news = Arc::new(News::default());
    let delivered = Arc::clone(&news);
    let delivery = tokio::spawn(async move { delivered.deliver(happened).await });
    let reader = remote.clone();
    tokio::spawn(async move {
        let mut frames = Reader::of_imp(stream);
        let mut stopped = Some(stopped);
        // Nothing in here waits for anybody else: whoever would be waited for may be waiting for an answer.
        loop {
            let Received { message, value } = match frames.next().await {
                Ok(Some(received)) => received,
                Ok(None) => break,
                Err(error) => {
                    tracing::error!("{error}");
                    break;
                }
            };
            match message {
                ToImp::Answer { id, result, with_fd } => {
                    let fd = if with_fd { frames.fd() } else { None };
                    if let Some(asker) = reader.take_asker(id) {
                        // Who asked may not wait any more.
                        let _ = asker.send((result.map(|()| value), fd));
                    }
                }
                // One that waits already says the same.
                ToImp::Changed => drop(changed.try_send(())),
                ToImp::Happened(event) => news.put(event),
                ToImp::Stop => drop(stopped.take()),
                ToImp::Hello(_) => {}
            }
        }
        // Nobody will be answered any more.
        reader.waiting().take();
        delivery.abort();
        drop(stopped);
    });
    (remote, Told { stop, writer })
}

async fn write(stream: Arc<UnixStream>, mut from_us: mpsc::UnboundedReceiver<ToHost>) {
    while let Some(message) = from_us.recv().await {
        match Frame::new(&message, MAX_FROM_IMP) {
            Ok(frame) => {
                if write_frame(&stream, frame).await.is_err() {
                    return;
                }
            }
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
            Self::Nonsense(what) | Self::Failure(Failure::Unsaid(what)) => io::Error::other(what),
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
    /// Given back last: by then the hypervisor side has been told.
    _place: SemaphorePermit<'a>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        // An answer has taken it out already.
        if self.remote.take_asker(self.id).is_some() {
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

    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_asker(&self, id: u64) -> Option<oneshot::Sender<Answer>> {
        self.waiting().as_mut()?.remove(&id)
    }

    async fn ask(&self, call: Call) -> Result<(Vec<u8>, Option<OwnedFd>), No> {
        let place = self.0.places.acquire().await.map_err(|_| No::Gone)?;
        let id = self.0.last_id.fetch_add(1, Ordering::Relaxed);
        let (sender, answer) = oneshot::channel();
        self.waiting().as_mut().ok_or(No::Gone)?.insert(id, sender);
        let asked = Asked { remote: self, id, _place: place };
        self.send(ToHost::Call { id, call })?;
        let (result, fd) = answer.await.map_err(|_| No::Gone)?;
        drop(asked);
        result.map(|value| (value, fd)).map_err(No::Failure)
    }

    async fn ask_for_fd(&self, call: Call) -> Result<OwnedFd, HypervisorError> {
        let (_, fd) = self.ask(call).await.map_err(No::hypervisor)?;
        fd.ok_or_else(|| No::Nonsense("an answer without its descriptor".into()).hypervisor())
    }

    async fn get<T: DeserializeOwned>(&self, call: Call) -> Result<T, No> {
        let (value, _) = self.ask(call).await?;
        serde_json::from_slice(&value).map_err(|error| No::Nonsense(error.to_string()))
    }
}

macro_rules! remote {
    (
        fabric {
            $($f_variant:ident $f_method:ident($($f_arg:ident: $(@ $f_by:tt)? $f_type:ty),*) -> $f_result:ty;)*
        }
        hypervisor {
            $($h_variant:ident $h_method:ident($($h_arg:ident: $(@ $h_by:tt)? $h_type:ty),*) -> $h_result:ty;)*
        }
    ) => {
        #[async_trait]
        impl Fabric for Remote {
            $(async fn $f_method(&self, $($f_arg: $($f_by)? $f_type),*) -> Result<$f_result, FabricError> {
                self.get(Call::$f_variant { $($f_arg: $f_arg.to_owned()),* }).await.map_err(No::fabric)
            })*

            async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
                let driver = driver.map(str::to_owned);
                self.get(Call::Bind { vf, driver }).await.map_err(No::fabric)
            }

            async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
                self.get(Call::SetVfCount { pf, count }).await.map_err(No::fabric)
            }

            async fn recover(&self, pf: Bdf, how: Recovery) -> Result<(), FabricError> {
                self.get(Call::Recover { pf, how }).await.map_err(No::fabric)
            }

            /// Once: whoever asks again hears nothing.
            async fn changes(&self) -> mpsc::Receiver<()> {
                let first = self.0.changes.lock().unwrap_or_else(PoisonError::into_inner).take();
                first.unwrap_or_else(|| mpsc::channel(1).1)
            }
        }

        #[async_trait]
        impl Hypervisor for Remote {
            $(async fn $h_method(&self, $($h_arg: $($h_by)? $h_type),*) -> Result<$h_result, HypervisorError> {
                self.get(Call::$h_variant { $($h_arg: $h_arg.to_owned()),* }).await.map_err(No::hypervisor)
            })*

            async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
                let call = Call::ConnectChannel { partition: partition.clone() };
                Ok(ChannelEnd::Stream(self.ask_for_fd(call).await?))
            }

            async fn open_console(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
                self.ask_for_fd(Call::OpenConsole { partition: partition.clone() }).await
            }

            async fn receive(&self, partition: &Name, layout: &MachineLayout) -> Result<OwnedFd, HypervisorError> {
                self.ask_for_fd(Call::Receive { partition: partition.clone(), layout: layout.clone() }).await
            }

            async fn send(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
                self.ask_for_fd(Call::Send { partition: partition.clone() }).await
            }

            /// Once: whoever asks again hears nothing.
            async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
                let first = self.0.events.lock().unwrap_or_else(PoisonError::into_inner).take();
                first.unwrap_or_else(|| mpsc::channel(1).1)
            }
        }
    };
}

operations!(remote);
