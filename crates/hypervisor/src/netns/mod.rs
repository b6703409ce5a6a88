//! Network namespaces as partitions: containers, and what `ip netns` makes. A VF stays on its own driver, and its interface is moved
//! into the namespace.
//!
//! A namespace is never made or ended here: it is there or not, and comes and goes as its owner likes. A partition runs while its
//! namespace is there. When that goes the kernel brings the interfaces home; they stay the partition's, which lacks them when the
//! namespace is there again ([`PartitionStatus::lacks`]) until they are attached once more.
//!
//! ```text
//!   Partition (record) ── operation ──> Mover ──> Kernel: rtnetlink, sysfs
//!        ^  └─ Channel: a socket in a folder that is mounted into the container
//!        └─ look_at_all, every second while there are any ──> events
//! ```
//! All that asks the kernel runs on threads of its own, within a bound. Whether a VF may be given to a partition is for the
//! [`crate::Guard`] around this to say.

mod channel;
mod config;
mod find;
mod folder;
mod kernel;
mod moving;
mod partition;
mod record;
#[cfg(test)]
mod tests;

pub use config::{Bounds, NetnsConfig};

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder},
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
};

use async_trait::async_trait;
use ioward_model::{KindName, LONGEST_INTERFACE, Name, NamespaceRef, Owner, PartitionKind, PartitionSpec};
use ioward_pci::Bdf;
use tokio::{
    sync::{Notify, OwnedMutexGuard, mpsc, oneshot},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, timeout, timeout_at},
};

use self::{
    channel::Teller,
    find::{Absent, NAMED, Place},
    folder::Folder,
    kernel::{Kernel, Linux},
    moving::Mover,
    partition::Partition,
    record::{HeldVf, Record},
};
use crate::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode, file::io_error, lock::lock, opening::Opening,
};

/// Events that may wait to be fetched.
const MAX_EVENTS: usize = 64;

/// Partitions as network namespaces.
pub struct NetnsHypervisor<K: Kernel = Linux> {
    shared: Arc<Shared<K>>,
    watch: AbortHandle,
}

struct Shared<K> {
    kernel: K,
    bounds: Bounds,
    folder: PathBuf,
    opening: Opening,
    partitions: Mutex<BTreeMap<Name, Arc<Partition>>>,
    /// Wakes whoever looks at them.
    defined: Notify,
    teller: Teller,
    /// Files that do not answer, of which the log has been told.
    silent: Mutex<BTreeSet<PathBuf>>,
}

impl<K: Kernel> Drop for NetnsHypervisor<K> {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl NetnsHypervisor {
    /// Takes charge of the partitions that are recorded under the runtime folder. Needs a runtime. That nobody else is in charge
    /// of that folder, the caller has seen to.
    ///
    /// A folder whose record can't be understood is left alone and logged.
    ///
    /// # Errors
    /// When the runtime folder can't be used.
    pub async fn open(config: NetnsConfig) -> Result<Self, HypervisorError> {
        let kernel = Linux::new(&config.sysfs);
        Self::open_on(kernel, config).await
    }
}

impl<K: Kernel> NetnsHypervisor<K> {
    async fn open_on(kernel: K, config: NetnsConfig) -> Result<Self, HypervisorError> {
        let folder = config.runtime_dir.join("namespaces");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("create", &folder))?;
        let opening = Opening::new(config.bounds.interface);
        let shared = Arc::new(Shared {
            kernel,
            bounds: config.bounds,
            folder,
            opening,
            partitions: Mutex::default(),
            defined: Notify::new(),
            teller: Teller::default(),
            silent: Mutex::default(),
        });
        for entry in fs::read_dir(&shared.folder).map_err(io_error("read", &shared.folder))? {
            let entry = entry.map_err(io_error("read", &shared.folder))?;
            if let Some(partition) = shared.load(&entry.path()) {
                lock(&shared.partitions).insert(partition.name.clone(), partition);
            }
        }
        shared.look_at_all().await;
        let watched = Arc::clone(&shared);
        let watch = tokio::spawn(async move {
            loop {
                if lock(&watched.partitions).is_empty() {
                    watched.defined.notified().await;
                }
                sleep(watched.bounds.look).await;
                watched.look_at_all().await;
            }
        });
        Ok(Self { shared, watch: watch.abort_handle() })
    }
}

impl<K: Kernel> Shared<K> {
    /// The partition in a folder.
    fn load(&self, path: &Path) -> Option<Arc<Partition>> {
        let name: Name = path.file_name()?.to_str()?.parse().ok()?;
        let folder = Folder::new(&self.folder, &name);
        let record = match Record::load(&folder.record()) {
            Ok(record) if record.name == name => record,
            Ok(record) => {
                tracing::error!("{} speaks of partition {}; it is left alone", path.display(), record.name);
                return None;
            }
            // What somebody has put into the folder that is mounted is left, when a partition is forgotten.
            Err(_) if !folder.record().exists() => return None,
            Err(error) => {
                let source = std::error::Error::source(&error);
                tracing::error!("partition {name} is left alone: {error}: {source:?}");
                return None;
            }
        };
        let partition = Partition::new(folder, record);
        if let Err(error) = partition.open_channel(&self.teller) {
            let source = std::error::Error::source(&error);
            tracing::error!("partition {name} can't be reached through its channel: {error}: {source:?}");
        }
        Some(partition)
    }

    fn partition(&self, name: &Name) -> Result<Arc<Partition>, HypervisorError> {
        let found = lock(&self.partitions).get(name).cloned();
        found.ok_or_else(|| HypervisorError::NoSuchPartition(name.clone()))
    }

    /// A partition, with no other operation on it until the guard is dropped.
    async fn enter(&self, name: &Name) -> Result<(Arc<Partition>, OwnedMutexGuard<()>), HypervisorError> {
        let until = Instant::now() + self.bounds.operation;
        loop {
            let partition = self.partition(name)?;
            let operation = timeout_at(until, Arc::clone(&partition.operation).lock_owned()).await;
            let operation = operation.map_err(|_| self.unanswered(&partition))?;
            // It may have been undefined, and even defined anew, while this waited.
            if self.partition(name).is_ok_and(|now| Arc::ptr_eq(&now, &partition)) {
                return Ok((partition, operation));
            }
        }
    }

    fn unanswered(&self, partition: &Partition) -> HypervisorError {
        let after = self.bounds.operation.as_secs();
        partition
            .error(format!("is being changed, and the kernel has not answered within {after} s; see dmesg"))
    }

    /// Works on a partition, on a thread of its own. It is finished, and nothing else done with the partition meanwhile, whoever
    /// stops waiting for it.
    async fn operate<T: Send + 'static>(
        self: &Arc<Self>,
        name: &Name,
        work: impl FnOnce(&Self, &Partition) -> Result<T, HypervisorError> + Send + 'static,
    ) -> Result<T, HypervisorError> {
        let (partition, operation) = self.enter(name).await?;
        let (answer, result) = oneshot::channel();
        let (shared, its) = (Arc::clone(self), Arc::clone(&partition));
        let spawned = thread::Builder::new().name("ioward-netns".to_owned()).spawn(move || {
            let done = work(&shared, &its);
            drop(operation);
            // Whoever asked may have gone.
            let _ = answer.send(done);
        });
        spawned.map_err(io_error("start a thread for", partition.folder.path()))?;
        match timeout(self.bounds.operation, result).await {
            Ok(Ok(done)) => done,
            Ok(Err(_)) => Err(partition.error("could not be changed: the thread that did it has ended")),
            Err(_) => Err(self.unanswered(&partition)),
        }
    }

    fn mover(&self) -> Mover<'_, K> {
        Mover::new(&self.kernel, self.bounds.interface)
    }

    /// Looks for a partition's namespace.
    fn look(&self, partition: &Partition) -> Result<Place, Absent> {
        let found = self.kernel.find(&partition.record().namespace);
        partition.set_present(found.as_ref().ok());
        found
    }

    /// Looks for all namespaces, and tells what is new.
    async fn look_at_all(self: &Arc<Self>) {
        let partitions: Vec<_> = lock(&self.partitions).values().cloned().collect();
        let (named, of_files): (Vec<_>, Vec<_>) =
            partitions.into_iter().partition(|p| matches!(p.record().namespace, NamespaceRef::Named(_)));
        // A file may be on a server that does not answer any more: it holds up nobody but its own partition.
        let mut looks = JoinSet::new();
        looks.spawn(Arc::clone(self).look_at(PathBuf::from(NAMED), named));
        for partition in of_files {
            if let NamespaceRef::PidFile(file) = partition.record().namespace {
                looks.spawn(Arc::clone(self).look_at(file, vec![partition]));
            }
        }
        looks.join_all().await;
    }

    async fn look_at(self: Arc<Self>, path: PathBuf, partitions: Vec<Arc<Partition>>) {
        if partitions.is_empty() {
            return;
        }
        let shared = Arc::clone(&self);
        let look = move || partitions.iter().flat_map(|partition| shared.look_once(partition)).collect();
        let news: Vec<_> = match self.opening.run(&path, look).await {
            Ok(news) => {
                lock(&self.silent).remove(&path);
                news
            }
            Err(error) => {
                if lock(&self.silent).insert(path.clone()) {
                    tracing::warn!("cannot look at {}: {error}", path.display());
                }
                return;
            }
        };
        for event in news {
            self.teller.tell(event).await;
        }
    }

    fn look_once(&self, partition: &Partition) -> Vec<HypervisorEvent> {
        // One that is being changed is looked at afterwards.
        let Ok(_operation) = partition.operation.try_lock() else { return Vec::new() };
        let found = self.look(partition);
        if !self.teller.is_heard() {
            return Vec::new();
        }
        let mut news = partition.news(&self.kernel, found.map_err(|absent| absent.to_string()));
        // Told as long as it is so: whoever was told may have had no time for it.
        if partition.with_channel(channel::Channel::is_asked_for) == Some(true) {
            news.push(HypervisorEvent::AgentConnected { partition: partition.name.clone() });
        }
        news
    }

    /// Moves all VFs of a partition in. Tries each of them, whatever becomes of the others.
    fn move_all_in(&self, partition: &Partition) -> Result<(), HypervisorError> {
        let (mover, mut result) = (self.mover(), Ok(()));
        for vf in partition.record().vfs {
            let moved = partition.move_in(&mover, &vf.name);
            result = result.and(moved.map_err(|why| partition.error(format!("{why} ({})", vf.name))));
        }
        result
    }

    fn move_all_home(&self, partition: &Partition) -> Result<(), HypervisorError> {
        let (mover, mut result) = (self.mover(), Ok(()));
        for vf in partition.record().vfs {
            result = result.and(partition.move_home(&mover, &vf));
        }
        result
    }

    /// Why a namespace can't be this partition.
    fn obstacle(&self, name: &Name, namespace: &NamespaceRef) -> Option<String> {
        match self.kernel.find(namespace) {
            Err(Absent::Gone(_)) => None,
            Err(Absent::Refused(why)) => Some(format!("it {why}")),
            Ok(place) => {
                let partitions = lock(&self.partitions);
                let mut others = partitions.values().filter(|other| other.name != *name);
                let other = others.find(|other| other.is_present_as(&place))?;
                Some(format!("it is partition {}", other.name))
            }
        }
    }

    /// Makes a partition what it was not: new, or another namespace.
    fn define_new(&self, name: &Name, namespace: &NamespaceRef) -> Result<Arc<Partition>, HypervisorError> {
        let folder = Folder::new(&self.folder, name);
        folder.create()?;
        let record = Record::new(name.clone(), namespace.clone());
        record.save(&folder.record())?;
        Ok(Partition::new(folder, record))
    }
}

#[async_trait]
impl<K: Kernel> Hypervisor for NetnsHypervisor<K> {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        Err(HypervisorError::NoMachines)
    }

    /// One that is not there may come.
    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let namespace = namespace_of(spec)?;
        let (shared, name) = (Arc::clone(&self.shared), spec.name.clone());
        let path = match &namespace {
            NamespaceRef::Named(_) => PathBuf::from(NAMED),
            NamespaceRef::PidFile(file) => file.clone(),
        };
        let required = format!("network namespace {namespace}");
        let look = move || shared.obstacle(&name, &namespace);
        let found =
            self.shared.opening.run(&path, look).await.unwrap_or_else(|error| Some(error.to_string()));
        let remedy = "name the namespace of a container, which no other partition is".to_owned();
        Ok(found.map(|found| Obstacle { required, found, remedy }).into_iter().collect())
    }

    /// Where it was another namespace before, its VFs are taken from that one.
    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let namespace = namespace_of(spec)?;
        {
            let mut partitions = lock(&self.shared.partitions);
            if !partitions.contains_key(&spec.name) {
                let partition = self.shared.define_new(&spec.name, &namespace)?;
                partitions.insert(spec.name.clone(), partition);
                self.shared.defined.notify_one();
            }
        }
        let redefine = move |shared: &Shared<K>, partition: &Partition| {
            let is_another = partition.record().namespace != namespace;
            if is_another {
                shared.move_all_home(partition)?;
                partition.change(|record| record.namespace = namespace)?;
            }
            // Whether it is there is no matter here.
            let is_there = shared.look(partition).is_ok();
            if is_another && is_there {
                shared.move_all_in(partition)?;
            }
            Ok(())
        };
        self.shared.operate(&spec.name, redefine).await
    }

    /// The namespace stays: it is its owner's. So that nothing of ioward's stays in it, VFs that it still has are taken home.
    async fn undefine(&self, name: &Name) -> Result<(), HypervisorError> {
        let forget = |shared: &Shared<K>, partition: &Partition| {
            shared.move_all_home(partition)?;
            partition.close_channel();
            partition.folder.remove()?;
            lock(&shared.partitions).remove(&partition.name);
            Ok(())
        };
        match self.shared.operate(name, forget).await {
            Err(HypervisorError::NoSuchPartition(_)) => Ok(()),
            result => result,
        }
    }

    /// It is there or not, as its owner likes.
    async fn start(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        Err(not_for_a_namespace(name, "started"))
    }

    async fn stop(&self, name: &Name, _mode: StopMode) -> Result<(), HypervisorError> {
        Err(not_for_a_namespace(name, "stopped"))
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (partition, owner) = (owner.partition.clone(), owner.clone());
        let attach = move |shared: &Shared<K>, partition: &Partition| {
            let refuse =
                |why| HypervisorError::NotAttachable { function, partition: partition.name.clone(), why };
            let length = owner.vf.as_str().len();
            if length > LONGEST_INTERFACE {
                return Err(refuse(format!(
                    "an interface has a name of {LONGEST_INTERFACE} characters at most, and {} has {length}",
                    owner.vf
                )));
            }
            let record = partition.record();
            let is_new = match record.vf(&owner.vf) {
                Some(held) if held.function != function => {
                    return Err(refuse(format!("{owner} is {} already; detach that first", held.function)));
                }
                Some(_) => false,
                None => true,
            };
            if is_new {
                let vf = HeldVf { name: owner.vf.clone(), function, before: None, inside: false };
                partition.change(|record| record.vfs.push(vf))?;
            }
            let moved = match shared.look(partition) {
                // It is moved in when that has come.
                Err(Absent::Gone(_)) => Ok(()),
                Err(Absent::Refused(why)) => Err(why),
                Ok(_) => partition.move_in(&shared.mover(), &owner.vf),
            };
            // Unless it is seen not to be there it stays recorded: nobody else may have it then.
            if moved.is_err() && is_new && shared.mover().is_out(&record.namespace, function) {
                partition.change(|record| record.vfs.retain(|held| held.name != owner.vf))?;
            }
            moved.map_err(|why| partition.error(why))
        };
        self.shared.operate(&partition, attach).await
    }

    /// `force` changes nothing: a VF is taken out of a namespace in any case, if need be by taking it from its driver.
    async fn detach_vf(&self, owner: &Owner, _force: bool) -> Result<(), HypervisorError> {
        let name = owner.vf.clone();
        let detach = move |shared: &Shared<K>, partition: &Partition| {
            let record = partition.record();
            let Some(vf) = record.vf(&name) else { return Ok(()) };
            partition.move_home(&shared.mover(), vf)?;
            partition.change(|record| record.vfs.retain(|held| held.name != name))
        };
        self.shared.operate(&owner.partition, detach).await
    }

    async fn create_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.shared.enter(name).await?;
        partition.change(|record| record.channel = true)?;
        let opened = partition.open_channel(&self.shared.teller);
        if opened.is_err() {
            partition.change(|record| record.channel = false)?;
        }
        opened
    }

    async fn destroy_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.shared.enter(name).await?;
        partition.change(|record| record.channel = false)?;
        partition.close_channel();
        Ok(())
    }

    /// The agent that waits at the socket.
    ///
    /// # Errors
    /// [`HypervisorError::NoAgent`] where none does; [`HypervisorEvent::AgentConnected`] tells when one has come.
    async fn connect_channel(&self, name: &Name) -> Result<ChannelEnd, HypervisorError> {
        let partition = self.shared.partition(name)?;
        if !partition.status().running {
            return Err(HypervisorError::NotRunning(name.clone()));
        }
        let taken = partition.with_channel(channel::Channel::take).transpose();
        let agent = taken.map_err(io_error("accept at", &partition.folder.socket()))?.flatten();
        agent.map(ChannelEnd::Stream).ok_or_else(|| HypervisorError::NoAgent(name.clone()))
    }

    async fn open_console(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        self.shared.partition(name)?;
        let why =
            "it is a network namespace; 'nsenter --net' or 'ip netns exec' starts a shell in it".to_owned();
        Err(HypervisorError::NoConsole { partition: name.clone(), why })
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        Ok(lock(&self.shared.partitions).values().map(|partition| partition.status()).collect())
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        self.shared.teller.set(sender);
        receiver
    }
}

fn not_for_a_namespace(partition: &Name, what: &'static str) -> HypervisorError {
    HypervisorError::NotForKind { partition: partition.clone(), kind: KindName::Namespace, what: what.into() }
}

fn namespace_of(spec: &PartitionSpec) -> Result<NamespaceRef, HypervisorError> {
    match &spec.kind {
        PartitionKind::Namespace(namespace) => Ok(namespace.clone()),
        kind => Err(HypervisorError::NoBackend { partition: spec.name.clone(), kind: kind.to_string() }),
    }
}
