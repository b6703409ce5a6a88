//! Domains of libvirt's as partitions.
//!
//! A domain is libvirt's, and its owner's: its CPUs, memory and disks are not looked at, and whoever starts, stops, edits or
//! undefines it goes on doing so. ioward gives it VFs and a channel, both into the machine that runs and into what it starts with
//! next, and takes them out again; nothing else of it is ever changed.
//!
//! ```text
//!   mod.rs         the operations              devices.rs   VFs and the channel, in and out
//!   partition.rs   one partition, its watcher  line.rs      the connection, and who follows it
//!   record.rs      what is on the disk         look.rs      a look at a domain
//!   known.rs       what is known, what is news process.rs   its QEMU, as the host shows it
//!   adopt.rs       what it has had already     config.rs    where things are, and bounds
//! ```
//! While libvirt's daemon does not run, a partition is what it was at the last look, and runs as long as its QEMU does: domains
//! outlive the daemon.

mod adopt;
mod config;
mod devices;
mod known;
mod line;
mod look;
mod partition;
mod process;
mod record;

#[cfg(test)]
mod tests;

pub use config::{Bounds, LibvirtConfig};

use std::{os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use ioward_model::{DomainRef, KindName, Name, Owner, PartitionKind, PartitionSpec};
use ioward_pci::Bdf;
use tokio::{
    net::UnixStream,
    sync::{OwnedMutexGuard, mpsc},
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};

use self::{
    devices::Work,
    known::{Expected, Known, Run},
    line::Line,
    look::Seen,
    partition::{Folders, Listener, Partition, Partitions},
    process::Processes,
    record::Record,
};
use super::{Connection, Domain, LibvirtError, Link, Refusal, Uuid};
use crate::{
    Accelerator, Adoptable, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle,
    PartitionStatus, StopMode, file::io_error, lock::lock, sysfs::Sysfs,
};

/// Events that may wait to be fetched.
const MAX_EVENTS: usize = 64;
/// Between two presses of a power button that has not done anything.
const PRESS_AGAIN: Duration = Duration::from_secs(6);

/// Domains of libvirt's as partitions. Whether a VF may be given to one is for the [`crate::Guard`] around it to say.
pub struct LibvirtHypervisor {
    shared: Arc<Shared>,
    partitions: Partitions,
    /// Whose a domain is, is decided for one at a time.
    defining: tokio::sync::Mutex<()>,
}

/// What all parts use.
struct Shared {
    line: Line,
    folders: Folders,
    processes: Processes,
    sysfs: Sysfs,
    devices: PathBuf,
    bounds: Bounds,
    listener: Listener,
}

impl Drop for LibvirtHypervisor {
    fn drop(&mut self) {
        self.partitions.clear();
    }
}

impl LibvirtHypervisor {
    /// Takes charge of the partitions recorded in a runtime folder. libvirt is asked for nothing before there is one.
    ///
    /// # Errors
    /// When the runtime folder can't be used.
    pub async fn open(config: LibvirtConfig) -> Result<Self, HypervisorError> {
        let folders = Folders::new(&config.runtime_dir);
        folders.create()?;
        let partitions = Partitions::default();
        let link = Link::new(config.sockets, config.bounds.calls);
        let shared = Arc::new(Shared {
            line: Line::new(link, partitions.clone(), config.bounds.reconnect),
            folders,
            processes: Processes { proc: config.proc, pid_files: config.pid_files },
            sysfs: Sysfs::new(&config.sysfs),
            devices: config.devices,
            bounds: config.bounds,
            listener: Listener::default(),
        });
        partitions.load(&shared)?;
        let hypervisor = Self { shared, partitions, defining: tokio::sync::Mutex::default() };
        hypervisor.look_at_all().await;
        Ok(hypervisor)
    }

    /// So that what is said first is true, where libvirt answers in time.
    async fn look_at_all(&self) {
        let mut looks = JoinSet::new();
        for partition in self.partitions.all() {
            let shared = Arc::clone(&self.shared);
            looks.spawn(async move {
                if let Ok(Err(trouble)) = timeout(shared.bounds.reconnect, partition.look(&shared)).await {
                    tracing::warn!("partition {} is as it was last seen: {trouble}", partition.name);
                }
            });
        }
        looks.join_all().await;
    }

    fn partition(&self, name: &Name) -> Result<Arc<Partition>, HypervisorError> {
        self.partitions.get(name).ok_or_else(|| HypervisorError::NoSuchPartition(name.clone()))
    }

    /// A partition, with no other operation on it until the guard is dropped.
    async fn enter(&self, name: &Name) -> Result<(Arc<Partition>, OwnedMutexGuard<()>), HypervisorError> {
        loop {
            let partition = self.partition(name)?;
            let operation = Arc::clone(&partition.operation).lock_owned().await;
            // It may have been undefined, and even defined anew, while this waited.
            if self.partition(name).is_ok_and(|now| Arc::ptr_eq(&now, &partition)) {
                return Ok((partition, operation));
            }
        }
    }

    /// The domain that a Spec names.
    async fn resolve(&self, reference: &DomainRef) -> Result<Domain, LibvirtError> {
        self.shared.line.ask(|connection| find(connection, reference)).await
    }

    /// The partition that a domain is, but for this one.
    fn taken(&self, partition: &Name, domain: Uuid) -> Option<Name> {
        let other = self.partitions.with(domain).filter(|other| other.name != *partition);
        other.map(|other| other.name.clone())
    }

    /// What is known of a domain now. While libvirt is not there nobody tells of an end or a start, and the host is looked at.
    async fn known(&self, partition: &Partition) -> Known {
        let Record { uuid, mut known, .. } = partition.record();
        let process = known.run.as_ref().and_then(|run| run.process);
        let runs_on = process.is_some_and(|process| self.shared.processes.runs(process));
        if self.shared.line.is_connected() || runs_on {
            return known;
        }
        match self.shared.processes.of(&known.name, uuid).await {
            // Another run, which has begun with what was there for it.
            Some(process) => {
                known.run = Some(Run { id: 0, process: Some(process), accelerator: None });
                known.live = known.persistent.clone();
            }
            // One whose process was never found can't be missed.
            None if process.is_some() => known.run = None,
            None => {}
        }
        known
    }

    async fn status(&self, partition: &Partition) -> PartitionStatus {
        let record = partition.record().with(self.known(partition).await);
        let (known, socket) = (&record.known, partition.socket.to_string_lossy());
        let run = known.run.as_ref();
        PartitionStatus {
            name: partition.name.clone(),
            kind: KindName::Domain,
            running: run.is_some(),
            halted: None,
            accelerator: run.and_then(|run| run.accelerator),
            pid: run.and_then(|run| run.process).map(|process| process.pid),
            console: None,
            channel: known.devices().channel.as_deref() == Some(&*socket),
            vfs: record.vfs(),
            lacks: self.lacks(&record).await,
            standbys: Vec::new(),
            gone: !known.there,
        }
    }

    /// The VFs that it was to get, or to lose, when libvirt was heard of no more, and that it does not have.
    async fn lacks(&self, record: &Record) -> Vec<Name> {
        let has = &record.known.devices().vfs;
        let mut lacks = Vec::new();
        for (vf, function) in &record.in_doubt {
            let others = has.iter().map(|(_, function)| *function);
            if self.shared.line.is_connected()
                && has.iter().all(|(name, _)| name != vf)
                && !self.shared.is_open(&record.known, *function, others).await
            {
                lacks.push(vf.clone());
            }
        }
        lacks
    }

    async fn force_off(&self, partition: &Partition) -> Result<(), HypervisorError> {
        let what = "turn off";
        let seen = partition.look(&self.shared).await.map_err(|error| partition.failed(what, error))?;
        let Some(domain) = running(&seen) else { return Ok(()) };
        let turned_off = seen.connection.turn_off(domain).await;
        match partition.look(&self.shared).await {
            Ok(now) if running(&now).is_none() => Ok(()),
            Ok(_) => {
                Err(partition.failed(what, turned_off.err().map_or("it runs on".into(), |e| e.to_string())))
            }
            // libvirt answers when it is off, and no sooner.
            Err(_) => turned_off.map_err(|error| partition.not_done(what, &error)),
        }
    }

    /// Presses the power button until the guest has turned itself off.
    async fn power_down(&self, partition: &Partition) -> Result<(), HypervisorError> {
        let what = "shut down";
        let deadline = Instant::now() + self.shared.bounds.power_down;
        loop {
            match partition.look(&self.shared).await {
                Ok(seen) => {
                    let Some(domain) = running(&seen) else { return Ok(()) };
                    let pressed = seen.connection.press_power_button(domain).await;
                    if let Err(error) = pressed
                        && Instant::now() >= deadline
                    {
                        return Err(partition.failed(what, error));
                    }
                }
                Err(trouble) if !trouble.is_passing() || Instant::now() >= deadline => {
                    return Err(partition.failed(what, trouble));
                }
                Err(_) => {}
            }
            let again = deadline.min(Instant::now() + PRESS_AGAIN);
            let off = partition.wait_until(|record| record.known.run.is_none());
            if timeout_at(again, off).await.is_err() && Instant::now() >= deadline {
                return Err(HypervisorError::GuestUnresponsive {
                    partition: partition.name.clone(),
                    what: "turn itself off".to_owned(),
                    after: self.shared.bounds.power_down,
                });
            }
        }
    }
}

/// The domain, if it runs.
fn running(seen: &Seen) -> Option<&Domain> {
    seen.domain.as_ref().filter(|_| seen.live.is_some())
}

/// The domain that a Spec names: as virsh does it, for a domain may have another one's UUID for a name.
async fn find(connection: Connection, reference: &DomainRef) -> Result<Domain, LibvirtError> {
    if let Ok(uuid) = reference.as_str().parse() {
        match connection.domain_with(uuid).await {
            Err(error) if error.refusal() == Some(Refusal::NoDomain) => {}
            found => return found,
        }
    }
    connection.domain_named(reference.as_str()).await
}

/// The domain that a partition of this kind is to be.
fn domain_of(spec: &PartitionSpec) -> Result<&DomainRef, HypervisorError> {
    match &spec.kind {
        PartitionKind::Domain(reference) => Ok(reference),
        kind => Err(HypervisorError::NoBackend { partition: spec.name.clone(), kind: kind.to_string() }),
    }
}

/// A domain that can't be a partition.
fn refused(partition: &Name, reference: &DomainRef, why: impl ToString) -> HypervisorError {
    let what = format!("take the domain {reference}");
    HypervisorError::Domain { partition: partition.clone(), what, why: why.to_string() }
}

/// What a running domain executes on.
fn accelerator(run: &Run) -> Accelerator {
    run.accelerator.unwrap_or(Accelerator::Kvm)
}

#[async_trait]
impl Hypervisor for LibvirtHypervisor {
    /// Domains have engines of their own: the best of this host is told.
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        self.shared.line.connection().await.map_err(|error| HypervisorError::NoLibvirt(error.to_string()))?;
        let has_kvm = self.shared.devices.join("kvm").exists();
        Ok(if has_kvm { Accelerator::Kvm } else { Accelerator::Tcg })
    }

    /// libvirt is asked only for what is not a partition yet.
    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let reference = domain_of(spec)?;
        let record = self.partitions.get(&spec.name).map(|partition| partition.record());
        if record.is_some_and(|record| record.reference == *reference && record.known.there) {
            return Ok(Vec::new());
        }
        let required = format!("a domain {reference} that no other partition is");
        let obstacle = |found: String, remedy: &str| Obstacle { required, found, remedy: remedy.to_owned() };
        Ok(match self.resolve(reference).await {
            Err(error) if error.refusal() == Some(Refusal::NoDomain) => {
                let remedy =
                    "'virsh list --all' lists the domains; define it (virsh define), or name another";
                vec![obstacle("none".to_owned(), remedy)]
            }
            // The error says what to do.
            Err(error) => vec![obstacle(error.to_string(), "")],
            Ok(domain) => match self.taken(&spec.name, domain.uuid) {
                Some(other) => {
                    vec![obstacle(format!("it is partition {other}"), "a domain is one partition")]
                }
                None => Vec::new(),
            },
        })
    }

    /// Notes which domain a partition is: by its UUID, so that it may be renamed. Nothing of the domain is changed.
    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let name = &spec.name;
        let reference = domain_of(spec)?;
        let _defining = self.defining.lock().await;
        let entered = self.enter(name).await.ok();
        // One that was renamed is found no more by what the Spec calls it, or somebody else is.
        if let Some((partition, _operation)) = &entered
            && partition.record().reference == *reference
        {
            let seen = partition.look(&self.shared).await;
            let seen = seen.map_err(|trouble| refused(name, reference, trouble))?;
            if seen.domain.is_some() {
                return Ok(());
            }
        }
        let domain = self.resolve(reference).await.map_err(|error| refused(name, reference, error))?;
        if let Some(other) = self.taken(name, domain.uuid) {
            let why = format!("it is partition {other} already, and a domain is one partition");
            return Err(refused(name, reference, why));
        }
        let known = Known::new(domain.name.clone());
        match &entered {
            Some((partition, _operation)) => {
                let before = partition.record();
                if before.uuid != domain.uuid && before.known.there {
                    let why = format!(
                        "the partition is the domain {} ({}); remove it first: ioward remove {name}",
                        before.known.name, before.uuid
                    );
                    return Err(refused(name, reference, why));
                }
                partition.change(|record| {
                    let is_same = before.uuid == domain.uuid;
                    let known = if is_same { before.known } else { known };
                    let new = Record::new(name.clone(), reference.clone(), domain.uuid, known);
                    *record =
                        if is_same { new.with_its_devices(before.adopted, before.released) } else { new };
                })?;
            }
            None => {
                let record = Record::new(name.clone(), reference.clone(), domain.uuid, known);
                self.partitions.create(record, &self.shared)?;
            }
        }
        // It may run already: that is no news.
        let partition = self.partition(name)?;
        let _running = partition.expect(Expected::Start);
        let seen = partition.look(&self.shared).await;
        seen.map(|_| ()).map_err(|trouble| refused(name, reference, trouble))
    }

    /// Forgets which domain a partition is, running or not. The domain stays as it is.
    async fn undefine(&self, name: &Name) -> Result<(), HypervisorError> {
        let Ok((partition, _operation)) = self.enter(name).await else { return Ok(()) };
        partition.remove_files()?;
        self.partitions.remove(name);
        Ok(())
    }

    async fn start(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        let what = "start";
        // A domain with a channel does not start where its socket can't be made.
        self.shared.folders.create()?;
        let _expected = partition.expect(Expected::Start);
        let seen = partition.look(&self.shared).await.map_err(|error| partition.failed(what, error))?;
        if let Some(run) = &seen.known.run {
            return Ok(accelerator(run));
        }
        let gone = "libvirt has no such domain any more; define it again (virsh define)";
        let domain = seen.domain.as_ref().ok_or_else(|| partition.failed(what, gone))?;
        let started = seen.connection.start(domain).await;
        let now = partition.look(&self.shared).await;
        match (now.ok().and_then(|now| now.known.run), started) {
            (Some(run), _) => Ok(accelerator(&run)),
            (None, Err(error)) => Err(partition.not_done(what, &error)),
            (None, Ok(_)) => {
                let log =
                    format!("its machine ended at once; see /var/log/libvirt/qemu/{}.log", seen.known.name);
                Err(partition.failed(what, log))
            }
        }
    }

    /// A guest may ignore its power button: then this ends with [`HypervisorError::GuestUnresponsive`] and the machine
    /// keeps running. [`StopMode::Force`] works at any time, also while another operation is waiting for the guest.
    async fn stop(&self, name: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        let partition = self.partition(name)?;
        let _expected = partition.expect(Expected::End);
        match mode {
            StopMode::Graceful => self.power_down(&partition).await,
            StopMode::Force => self.force_off(&partition).await,
        }
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        Work { shared: &self.shared, partition: &partition }.attach_vf(owner, function).await
    }

    /// libvirt cannot take a VF from a guest that does not let go, so `force` changes nothing here: stop the partition by
    /// force instead, and detach then.
    async fn detach_vf(&self, owner: &Owner, _force: bool) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        Work { shared: &self.shared, partition: &partition }.detach_vf(owner).await
    }

    async fn adoptable(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        self.functions_of(domain).await
    }

    async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        Work { shared: &self.shared, partition: &partition }.adopt_vf(owner, function).await
    }

    /// libvirt is asked for nothing.
    async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        Work { shared: &self.shared, partition: &partition }.release_vf(owner).await
    }

    async fn create_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        Work { shared: &self.shared, partition: &partition }.create_channel().await
    }

    async fn destroy_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        Work { shared: &self.shared, partition: &partition }.destroy_channel().await
    }

    /// The folder keeps everybody from the socket but libvirt. A definition that was copied may have it make another domain's
    /// machine listen there, so whoever answers has to be this domain's QEMU.
    async fn connect_channel(&self, name: &Name) -> Result<ChannelEnd, HypervisorError> {
        let partition = self.partition(name)?;
        let Known { run: Some(run), name: domain, .. } = self.known(&partition).await else {
            return Err(HypervisorError::NotRunning(name.clone()));
        };
        let path = &partition.socket;
        let connected = timeout(self.shared.bounds.reconnect, UnixStream::connect(path)).await;
        let stream = connected.map_err(Into::into).and_then(|connected| connected);
        let stream = stream.map_err(io_error("connect to", path))?;
        let answers = stream.peer_cred().map_err(io_error("look at", path))?.pid();
        let expected = match run.process {
            Some(process) => Some(process),
            None => self.shared.processes.of(&domain, partition.record().uuid).await,
        };
        let expected = expected.and_then(|process| i32::try_from(process.pid).ok());
        if expected.is_none() || answers != expected {
            let who = answers.map_or("nobody".to_owned(), |pid| format!("process {pid}"));
            let why =
                format!("{who} answers there, which is not its QEMU; does another domain have that path?");
            return Err(partition.failed("use the channel of", why));
        }
        let stream = stream.into_std().map_err(io_error("use", path))?;
        Ok(ChannelEnd::Stream(stream.into()))
    }

    async fn open_console(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        self.partition(name)?;
        let why = "its console is libvirt's: 'virsh -c qemu:///system console DOMAIN'".to_owned();
        Err(HypervisorError::NoConsole { partition: name.clone(), why })
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let mut all = Vec::new();
        for partition in self.partitions.all() {
            all.push(self.status(&partition).await);
        }
        Ok(all)
    }

    async fn domains(&self) -> Result<Vec<(Name, Uuid)>, HypervisorError> {
        let all = self.partitions.all();
        Ok(all.iter().map(|partition| (partition.name.clone(), partition.record().uuid)).collect())
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        *lock(&self.shared.listener) = Some(sender);
        self.partitions.all().iter().for_each(|partition| partition.tell_anew());
        receiver
    }
}
