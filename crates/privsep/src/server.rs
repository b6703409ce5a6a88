//! The hypervisor side's end: does what the management partition asks for, where that may be asked for.
//!
//! Most of what may not be had is refused below, by the side that does the work: [`ioward_hypervisor`] lets a VF have one holder,
//! hands out no PF and no VF whose IOMMU group has anything foreign in it, and boots from files that were given to machines. Here
//! is what only a peer that is not believed could ask for.

use std::{collections::HashMap, sync::Arc};

use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{ChannelEnd, Hypervisor, HypervisorError};
use ioward_model::{Name, Owner, PartitionSpec, Spec, VfId};
use serde::Serialize;
use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
};

use crate::{
    link::{LinkError, MAX_FROM_HOST, Reader, write_frame},
    protocol::{Call, Failure, Life, ToHost, ToImp},
};

/// Calls that are under way at once; the next is read when one of them has ended.
const MAX_CALLS: usize = 512;
/// Answers that may wait for the management partition to read them.
const MAX_ANSWERS: usize = 16;
/// The longest text of the management partition that a person is shown, in characters.
const MAX_TEXT: usize = 2000;
/// The one driver that a VF may be bound to while a partition holds it.
const VFIO: &str = "vfio-pci";

/// What the management partition says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// For the service manager.
    Life(Life),
    /// Why it ends. Printable, and not too long.
    Failed(String),
}

/// Serves one management partition.
pub struct Server {
    fabric: Arc<dyn Fabric>,
    hypervisor: Arc<dyn Hypervisor>,
}

type Answer = (Result<Value, Failure>, Option<std::os::fd::OwnedFd>);

impl Server {
    /// Over this machine.
    #[must_use]
    pub fn new(fabric: Arc<dyn Fabric>, hypervisor: Arc<dyn Hypervisor>) -> Arc<Self> {
        Arc::new(Self { fabric, hypervisor })
    }

    /// Serves until the other side closes. `stop` has it told to end; what it says of itself goes to `words`. What is under way
    /// then is finished.
    ///
    /// # Errors
    /// When the other side sends what makes no sense: nothing of it is done any more.
    pub async fn serve(
        self: Arc<Self>,
        stream: UnixStream,
        words: mpsc::UnboundedSender<Word>,
        mut stop: mpsc::Receiver<()>,
    ) -> Result<(), LinkError> {
        let stream = Arc::new(stream);
        let (answers, to_imp) = mpsc::channel(MAX_ANSWERS);
        let mut changes = self.fabric.changes().await;
        let mut events = self.hypervisor.events().await;
        let news = answers.clone();
        let newsman = tokio::spawn(async move {
            loop {
                let message = tokio::select! {
                    Some(()) = changes.recv() => ToImp::Changed,
                    Some(event) = events.recv() => ToImp::Happened(event),
                    Some(()) = stop.recv() => ToImp::Stop,
                    else => break,
                };
                if news.send((message, None)).await.is_err() {
                    break;
                }
            }
        });
        let writer = tokio::spawn(write(Arc::clone(&stream), to_imp));
        let mut calls = JoinSet::new();
        let served = self.read(Reader::of_host(stream), &answers, &words, &mut calls).await;
        newsman.abort();
        while calls.join_next().await.is_some() {}
        drop(answers);
        writer.abort();
        served
    }

    async fn read(
        self: Arc<Self>,
        mut frames: Reader,
        answers: &mpsc::Sender<(ToImp, Option<std::os::fd::OwnedFd>)>,
        words: &mpsc::UnboundedSender<Word>,
        calls: &mut JoinSet<()>,
    ) -> Result<(), LinkError> {
        let places = Arc::new(Semaphore::new(MAX_CALLS));
        let mut under_way: HashMap<u64, AbortHandle> = HashMap::new();
        while let Some(message) = frames.next().await? {
            let word = match message {
                ToHost::Call { id, call } => {
                    while calls.try_join_next().is_some() {}
                    under_way.retain(|_, call| !call.is_finished());
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { break };
                    let (server, answers) = (Arc::clone(&self), answers.clone());
                    let call = calls.spawn(async move {
                        let (result, fd) = server.answer(call).await;
                        let answer = ToImp::Answer { id, result, with_fd: fd.is_some() };
                        // Whoever asked may have gone.
                        let _ = answers.send((answer, fd)).await;
                        drop(place);
                    });
                    under_way.insert(id, call);
                    continue;
                }
                ToHost::GiveUp { id } => {
                    if let Some(call) = under_way.remove(&id) {
                        call.abort();
                    }
                    continue;
                }
                ToHost::Life(life) => Word::Life(life),
                ToHost::Failed(why) => Word::Failed(printable(&why)),
            };
            let _ = words.send(word);
        }
        Ok(())
    }

    async fn answer(&self, call: Call) -> Answer {
        if let Call::ConnectChannel { partition } = call {
            return match self.hypervisor.connect_channel(&partition).await {
                Ok(ChannelEnd::Stream(stream)) => (Ok(Value::Null), Some(stream)),
                Ok(ChannelEnd::Shared(_)) => {
                    let source =
                        std::io::Error::other("a channel in shared memory does not leave its process");
                    let (what, path) = ("hand over".into(), "the channel".into());
                    (Err(Failure::Hypervisor(HypervisorError::Io { what, path, source })), None)
                }
                Err(error) => (Err(Failure::Hypervisor(error)), None),
            };
        }
        (self.result(call).await, None)
    }

    async fn result(&self, call: Call) -> Result<Value, Failure> {
        let (fabric, hypervisor) = (&self.fabric, &self.hypervisor);
        match call {
            Call::Identify => of_fabric(fabric.identify().await),
            Call::SetAutoprobe { pf, on } => of_fabric(fabric.set_autoprobe(pf, on).await),
            Call::SetVfCount { pf, count } => of_fabric(fabric.set_vf_count(pf, count).await),
            Call::VfAddress { vf } => of_fabric(fabric.vf_address(vf).await),
            Call::Driver { vf } => of_fabric(fabric.driver(vf).await),
            Call::Bind { vf, driver } => {
                self.may_be_bound(vf, driver.as_deref()).await?;
                of_fabric(fabric.bind(vf, driver.as_deref()).await)
            }
            Call::Reset { vf } => of_fabric(fabric.reset(vf).await),
            Call::Settings { vf } => of_fabric(fabric.settings(vf).await),
            Call::Configure { vf, change } => of_fabric(fabric.configure(vf, &change).await),
            Call::Statistics { vf } => of_fabric(fabric.statistics(vf).await),
            Call::IsOpen { vf } => of_fabric(fabric.is_open(vf).await),
            Call::Check => of_hypervisor(hypervisor.check().await),
            Call::CheckBoot { boot } => of_hypervisor(hypervisor.check_boot(&boot).await),
            Call::Define { spec } => {
                makes_sense(&spec)?;
                of_hypervisor(hypervisor.define(&spec).await)
            }
            Call::Undefine { partition } => of_hypervisor(hypervisor.undefine(&partition).await),
            Call::Start { partition } => of_hypervisor(hypervisor.start(&partition).await),
            Call::Stop { partition, mode } => of_hypervisor(hypervisor.stop(&partition, mode).await),
            Call::AttachVf { owner, function } => of_hypervisor(hypervisor.attach_vf(&owner, function).await),
            Call::DetachVf { owner, force } => of_hypervisor(hypervisor.detach_vf(&owner, force).await),
            Call::CreateChannel { partition } => of_hypervisor(hypervisor.create_channel(&partition).await),
            Call::DestroyChannel { partition } => of_hypervisor(hypervisor.destroy_channel(&partition).await),
            Call::ConnectChannel { partition } => {
                of_hypervisor(hypervisor.connect_channel(&partition).await.map(drop))
            }
            Call::Partitions => of_hypervisor(hypervisor.partitions().await),
        }
    }

    /// The driver of a VF that a partition holds stays vfio-pci: a driver of the host's would have what is the partition's.
    async fn may_be_bound(&self, vf: VfId, driver: Option<&str>) -> Result<(), Failure> {
        if driver == Some(VFIO) {
            return Ok(());
        }
        let address = self.fabric.vf_address(vf).await.map_err(Failure::Fabric)?;
        let partitions = self.hypervisor.partitions().await.map_err(Failure::Hypervisor)?;
        let holder = partitions.iter().find_map(|partition| {
            let held = partition.vfs.iter().find(|(_, function)| *function == address)?;
            Some(Owner { partition: partition.name.clone(), vf: held.0.clone() })
        });
        let Some(holder) = holder else { return Ok(()) };
        Err(Failure::Fabric(FabricError::Refused {
            what: format!("bind {vf} ({address}) to {}", driver.unwrap_or("no driver")),
            why: format!("it belongs to {holder}"),
            source: rustix::io::Errno::BUSY.into(),
        }))
    }
}

/// A definition is held against the rules of a Spec once more.
fn makes_sense(spec: &PartitionSpec) -> Result<(), Failure> {
    let alone = PartitionSpec { vfs: Vec::new(), ..spec.clone() };
    let whole = Spec { version: 1, adapters: Vec::new(), partitions: vec![alone] };
    whole.validate().map_err(|error| no_definition(&spec.name, &error.to_string()))
}

fn no_definition(partition: &Name, why: &str) -> Failure {
    Failure::Hypervisor(HypervisorError::Io {
        what: "define".into(),
        path: partition.as_str().into(),
        source: std::io::Error::other(why),
    })
}

fn of_fabric<T: Serialize>(result: Result<T, FabricError>) -> Result<Value, Failure> {
    let unsaid = |error: serde_json::Error| FabricError::Refused {
        what: "tell".into(),
        why: "what is to be told cannot be written down".into(),
        source: error.into(),
    };
    let result = result.and_then(|value| serde_json::to_value(value).map_err(unsaid));
    result.map_err(Failure::Fabric)
}

fn of_hypervisor<T: Serialize>(result: Result<T, HypervisorError>) -> Result<Value, Failure> {
    let unsaid = |error: serde_json::Error| HypervisorError::Io {
        what: "write down".into(),
        path: "the answer".into(),
        source: error.into(),
    };
    let result = result.and_then(|value| serde_json::to_value(value).map_err(unsaid));
    result.map_err(Failure::Hypervisor)
}

/// Text of a peer that is not believed, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().take(MAX_TEXT).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

async fn write(stream: Arc<UnixStream>, mut answers: mpsc::Receiver<(ToImp, Option<std::os::fd::OwnedFd>)>) {
    while let Some((message, fd)) = answers.recv().await {
        if let Err(error) = write_frame(&stream, &message, fd, MAX_FROM_HOST).await {
            // Its reader sees that too, where the other side has gone.
            tracing::debug!("not sent: {error}");
        }
    }
}
