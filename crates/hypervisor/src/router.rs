//! [`Router`]: several backends as one hypervisor, each for one kind of partition.
//!
//! A definition goes to the backend of its kind; everything else to the one that knows the partition. Which one that is, each backend has
//! on its disk and nobody else: the router asks them, and keeps only what they have said.
//!
//! A backend that can't do its work (no libvirt on this host) refuses what it is asked, and the others go on. One that does not say in
//! time which partitions it has, or fails to, is taken at its last word, as long as nothing was changed through it since. Without
//! such a word nobody knows who holds which VF, and [`Hypervisor::partitions`] says so instead of leaving partitions out: a VF would
//! be taken for a free one.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ioward_model::{DomainRef, KindName, MachineLayout, Migration, Name, Owner, PartitionSpec, StandbyNic};
use ioward_pci::Bdf;
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use crate::{
    Accelerator, Adoptable, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle,
    PartitionStatus, StopMode, libvirt::Uuid, lock::lock,
};

/// How long a backend may take to say which partitions it has.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for one that has just been silent for that long: the others are not to wait for it each time.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);
/// Events that may wait to be fetched.
const MAX_EVENTS: usize = 64;

/// Several backends as one.
#[derive(Default)]
pub struct Router {
    backends: Vec<Arc<Backend>>,
    /// Who has which partition, as far as they have said.
    homes: Mutex<BTreeMap<Name, KindName>>,
    /// Those who pass events on.
    forwarding: Mutex<JoinSet<()>>,
}

struct Backend {
    kind: KindName,
    hypervisor: Arc<dyn Hypervisor>,
    known: Mutex<Known>,
    /// It did not answer when it was last asked.
    is_silent: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Its last word, if nothing was changed through it since.
    last: Option<Vec<PartitionStatus>>,
    /// How many changes have begun or ended.
    changes: u64,
}

/// A change that is under way: what its backend has said before is old, and so is what it says meanwhile.
struct Changing(Arc<Backend>);

impl Changing {
    fn begin(backend: Arc<Backend>) -> Self {
        backend.note_change();
        Self(backend)
    }

    fn hypervisor(&self) -> &dyn Hypervisor {
        &*self.0.hypervisor
    }
}

impl Drop for Changing {
    fn drop(&mut self) {
        self.0.note_change();
    }
}

impl Backend {
    fn note_change(&self) {
        let mut known = lock(&self.known);
        known.last = None;
        known.changes += 1;
    }

    /// Its partitions.
    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let changes = lock(&self.known).changes;
        let patience = if self.is_silent.load(Ordering::Relaxed) { SHORT_PATIENCE } else { PATIENCE };
        let answer = timeout(patience, self.hypervisor.partitions()).await;
        let is_silent = !matches!(answer, Ok(Ok(_)));
        let error = match answer {
            Ok(Ok(partitions)) => {
                self.is_silent.store(false, Ordering::Relaxed);
                let mut known = lock(&self.known);
                if known.changes == changes {
                    known.last = Some(partitions.clone());
                }
                return Ok(partitions);
            }
            Ok(Err(error)) => error,
            Err(_) => HypervisorError::Silent { kind: self.kind, after: patience },
        };
        if !self.is_silent.swap(is_silent, Ordering::Relaxed) {
            tracing::warn!("how partitions of kind {} are is not known: {error}", self.kind);
        }
        lock(&self.known).last.clone().ok_or(error)
    }
}

impl Router {
    /// With a backend for one more kind.
    #[must_use]
    pub fn with(mut self, kind: KindName, hypervisor: Arc<dyn Hypervisor>) -> Self {
        let (known, is_silent) = Default::default();
        self.backends.push(Arc::new(Backend { kind, hypervisor, known, is_silent }));
        self
    }

    fn backend(&self, kind: KindName) -> Option<&Arc<Backend>> {
        self.backends.iter().find(|backend| backend.kind == kind)
    }

    /// The backend for partitions of this definition.
    fn of(&self, spec: &PartitionSpec) -> Result<&Arc<Backend>, HypervisorError> {
        self.backend(spec.kind.name()).ok_or_else(|| HypervisorError::NoBackend {
            partition: spec.name.clone(),
            kind: spec.kind.to_string(),
        })
    }

    /// What each backend says.
    async fn all(&self) -> Vec<(&Arc<Backend>, Result<Vec<PartitionStatus>, HypervisorError>)> {
        let asked: Vec<_> = self.backends.iter().map(|backend| (backend, ask(backend))).collect();
        let mut all = Vec::new();
        for (backend, answer) in asked {
            let cut_off = |_| HypervisorError::Silent { kind: backend.kind, after: Duration::ZERO };
            all.push((backend, answer.await.map_err(cut_off).and_then(|answer| answer)));
        }
        all
    }

    /// The backend that has a partition; `None` when all of them say that they do not.
    async fn find(&self, partition: &Name) -> Result<Option<&Arc<Backend>>, HypervisorError> {
        let known = lock(&self.homes).get(partition).copied();
        if let Some(backend) = known.and_then(|kind| self.backend(kind)) {
            return Ok(Some(backend));
        }
        let mut untold = None;
        let mut found = None;
        for (backend, answer) in self.all().await {
            match answer {
                Ok(partitions) => {
                    if partitions.iter().any(|known| known.name == *partition) {
                        found = found.or(Some(backend));
                    }
                }
                Err(error) => untold = Some(error),
            }
        }
        match (found, untold) {
            (Some(backend), _) => {
                lock(&self.homes).insert(partition.clone(), backend.kind);
                Ok(Some(backend))
            }
            // It may be there: to take it for gone would be to forget it.
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// The backend that has a partition, about to be asked to change it.
    async fn change(&self, partition: &Name) -> Result<Changing, HypervisorError> {
        Ok(Changing::begin(Arc::clone(self.home(partition).await?)))
    }

    /// The backend that has a partition.
    async fn home(&self, partition: &Name) -> Result<&Arc<Backend>, HypervisorError> {
        self.find(partition).await?.ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))
    }
}

/// In a task of its own, so that no backend waits for another.
fn ask(backend: &Arc<Backend>) -> JoinHandle<Result<Vec<PartitionStatus>, HypervisorError>> {
    let backend = Arc::clone(backend);
    tokio::spawn(async move { backend.partitions().await })
}

#[async_trait]
impl Hypervisor for Router {
    /// Of machines: others bring what runs them.
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        let machines = self.backend(KindName::Machine).ok_or(HypervisorError::NoMachines)?;
        machines.hypervisor.check().await
    }

    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        match self.of(spec) {
            Ok(backend) => backend.hypervisor.check_definition(spec).await,
            Err(error) => Ok(vec![Obstacle {
                required: format!("something that looks after a {}", spec.kind.name()),
                found: error.to_string(),
                remedy: String::new(),
            }]),
        }
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let backend = self.of(spec)?;
        if let Some(present) = self.find(&spec.name).await?.filter(|present| present.kind != backend.kind) {
            return Err(HypervisorError::OtherKind { partition: spec.name.clone(), kind: present.kind });
        }
        let changing = Changing::begin(Arc::clone(backend));
        changing.hypervisor().define(spec).await?;
        lock(&self.homes).insert(spec.name.clone(), backend.kind);
        Ok(())
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        let Some(backend) = self.find(partition).await? else { return Ok(()) };
        let changing = Changing::begin(Arc::clone(backend));
        changing.hypervisor().undefine(partition).await?;
        lock(&self.homes).remove(partition);
        Ok(())
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        self.change(partition).await?.hypervisor().start(partition).await
    }

    async fn stop(&self, partition: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        self.change(partition).await?.hypervisor().stop(partition, mode).await
    }

    async fn reset(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.change(partition).await?.hypervisor().reset(partition).await
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().attach_vf(owner, function).await
    }

    async fn detach_vf(&self, owner: &Owner, force: bool) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().detach_vf(owner, force).await
    }

    async fn adoptable(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        match self.backend(KindName::Domain) {
            Some(backend) => backend.hypervisor.adoptable(domain).await,
            None => {
                let why = "nothing on this host has domains".to_owned();
                Err(HypervisorError::NoSuchDomain { domain: domain.clone(), why })
            }
        }
    }

    async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().adopt_vf(owner, function).await
    }

    async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().release_vf(owner).await
    }

    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().attach_standby(owner, nic).await
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.change(&owner.partition).await?.hypervisor().detach_standby(owner).await
    }

    async fn layout(&self, partition: &Name) -> Result<MachineLayout, HypervisorError> {
        self.home(partition).await?.hypervisor.layout(partition).await
    }

    async fn receive(&self, partition: &Name, layout: &MachineLayout) -> Result<OwnedFd, HypervisorError> {
        self.change(partition).await?.hypervisor().receive(partition, layout).await
    }

    async fn send(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        self.change(partition).await?.hypervisor().send(partition).await
    }

    async fn migration(&self, partition: &Name) -> Result<Migration, HypervisorError> {
        self.home(partition).await?.hypervisor.migration(partition).await
    }

    async fn resume(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.change(partition).await?.hypervisor().resume(partition).await
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.change(partition).await?.hypervisor().create_channel(partition).await
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.change(partition).await?.hypervisor().destroy_channel(partition).await
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        self.home(partition).await?.hypervisor.connect_channel(partition).await
    }

    async fn open_console(&self, partition: &Name) -> Result<OwnedFd, HypervisorError> {
        self.home(partition).await?.hypervisor.open_console(partition).await
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let mut all = Vec::new();
        for (_, answer) in self.all().await {
            all.extend(answer?);
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn domains(&self) -> Result<Vec<(Name, Uuid)>, HypervisorError> {
        match self.backend(KindName::Domain) {
            Some(backend) => backend.hypervisor.domains().await,
            None => Ok(Vec::new()),
        }
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        let mut forwarding = JoinSet::new();
        for backend in &self.backends {
            let mut events = backend.hypervisor.events().await;
            let sender = sender.clone();
            forwarding.spawn(async move {
                while let Some(event) = events.recv().await {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
            });
        }
        *lock(&self.forwarding) = forwarding;
        receiver
    }
}
