//! QEMU with KVM, one process for each partition.
//!
//! A machine belongs to nobody: it is a process of its own, and everything about it is in its partition's folder and in
//! `/proc`. [`QemuHypervisor::open`] over the same runtime folder finds the machines that another one started.

mod boot;
mod command;
mod config;
mod disk;
mod folder;
mod machine;
mod moving;
mod numa;
mod partition;
mod probe;
mod process;
mod qmp;
mod record;
mod standby;
mod tap;
mod users;
mod vfio;
mod wire;

pub use config::{Bounds, QemuConfig};
pub use users::Users;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder, File},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ioward_model::{MachineLayout, Migration, Name, Owner, PartitionSpec, StandbyNic};
use ioward_pci::Bdf;
use rustix::{fs::FlockOperation, io::Errno};
use tokio::{
    net::UnixStream,
    sync::{OwnedMutexGuard, mpsc},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::{
    boot::BootFiles,
    command::Given,
    folder::{Folder, io_error},
    machine::Machine,
    partition::{Listener, Partition},
    process::Process,
    record::{Definition, HeldVf, Record, SLOTS},
    tap::Taps,
};
use crate::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode, cgroup, lock::lock, opening::Opening, sysfs::Sysfs,
};

/// Events that may wait to be fetched.
const MAX_EVENTS: usize = 64;

/// How long a new hypervisor waits for the machines it finds to answer. One that does not is asked again when needed.
const ADOPTION: Duration = Duration::from_secs(5);

/// Partitions as QEMU processes. Whether a VF may be given to one is for the [`crate::Guard`] around it to say.
pub struct QemuHypervisor {
    config: QemuConfig,
    folder: PathBuf,
    sysfs: Sysfs,
    opening: Opening,
    taps: Taps,
    partitions: Mutex<BTreeMap<Name, Arc<Partition>>>,
    listener: Listener,
    /// One task for each running machine; they end with this.
    watchers: Mutex<JoinSet<()>>,
    /// Held locked: two over one runtime folder would start machines twice.
    _lock: File,
}

impl QemuHypervisor {
    /// Takes charge of a runtime folder: of the partitions recorded there, and of those of their machines that run.
    ///
    /// A folder whose record can't be understood is left alone and logged.
    ///
    /// # Errors
    /// When the runtime folder can't be used, or another process is in charge of it.
    pub async fn open(config: QemuConfig) -> Result<Self, HypervisorError> {
        let folder = config.runtime_dir.join("partitions");
        fs::create_dir_all(&config.runtime_dir).map_err(io_error("create", &config.runtime_dir))?;
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("create", &folder))?;
        let lock = take_charge(&config.runtime_dir.join("hypervisor.lock")).await?;
        let hypervisor = Self {
            sysfs: Sysfs::new(&config.sysfs),
            opening: Opening::new(config.bounds.command),
            taps: Taps::new(&config),
            config,
            partitions: Mutex::default(),
            listener: Listener::default(),
            watchers: Mutex::default(),
            _lock: lock,
            folder,
        };
        hypervisor.adopt_all().await?;
        Ok(hypervisor)
    }

    async fn adopt_all(&self) -> Result<(), HypervisorError> {
        let mut answering = JoinSet::new();
        for entry in fs::read_dir(&self.folder).map_err(io_error("read", &self.folder))? {
            let entry = entry.map_err(io_error("read", &self.folder))?;
            let Some(partition) = self.load(&entry.path()) else { continue };
            match self.find_machine(&partition).await {
                Ok(Some(machine)) => {
                    self.run(&partition, Arc::clone(&machine));
                    answering.spawn(async move {
                        let _ = timeout(ADOPTION, machine.get_to_know()).await;
                    });
                }
                Ok(None) => partition.clear(&self.taps).await,
                Err(error) => return Err(error),
            }
            lock(&self.partitions).insert(partition.name.clone(), partition);
        }
        answering.join_all().await;
        Ok(())
    }

    /// The partition in a folder.
    fn load(&self, path: &Path) -> Option<Arc<Partition>> {
        let name: Name = path.file_name()?.to_str()?.parse().ok()?;
        let folder = Folder::new(&self.folder, &name);
        let record = match Record::load(&folder.record()) {
            Ok(record) if record.spec.name == name => record,
            Ok(record) => {
                tracing::error!(
                    "{} speaks of partition {}; it is left alone",
                    path.display(),
                    record.spec.name
                );
                return None;
            }
            Err(error) => {
                tracing::error!(
                    "partition {name} is left alone: {error}: {:?}",
                    std::error::Error::source(&error)
                );
                return None;
            }
        };
        Some(Partition::new(folder, record))
    }

    /// Takes charge of a running machine.
    fn run(&self, partition: &Arc<Partition>, machine: Arc<Machine>) {
        partition.set_machine(Arc::clone(&machine));
        let mut watchers = lock(&self.watchers);
        while watchers.try_join_next().is_some() {}
        watchers.spawn(Arc::clone(partition).watch(machine, Arc::clone(&self.listener), self.taps.clone()));
    }

    fn partition(&self, name: &Name) -> Result<Arc<Partition>, HypervisorError> {
        lock(&self.partitions)
            .get(name)
            .cloned()
            .ok_or_else(|| HypervisorError::NoSuchPartition(name.clone()))
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

    /// Gives the machine's user the node of a VF that its partition holds.
    fn give_node(&self, record: &Record, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (Some(user), Some(group)) = (record.user, self.sysfs.group(function)) else { return Ok(()) };
        let node = vfio::node(&self.config.devices, &group);
        users::give_node(&node, user).map_err(|error| HypervisorError::NotAttachable {
            function,
            partition: owner.partition.clone(),
            why: format!("its machine can't be given {}: {error}", node.display()),
        })
    }

    /// The machine of a partition that runs already.
    async fn find_machine(&self, partition: &Partition) -> Result<Option<Arc<Machine>>, HypervisorError> {
        let user = partition.record().user;
        let found = machine::find(&partition.name, &partition.folder, user, &self.config.bounds).await;
        found.map_err(io_error("look for machines in", Path::new("/proc")))
    }

    /// As whom the machine of a new partition is to run. Where a machine of it runs whose record is lost, that is who it is: it is
    /// not to be started a second time beside itself.
    async fn user_for(&self, folder: &Folder) -> Result<Option<u32>, HypervisorError> {
        let Some(users) = &self.config.users else { return Ok(None) };
        let taken = self.users_taken();
        let (machines, known) = (users.machines.clone(), taken.clone());
        let is_unknown = move |uid| machines.contains(&uid) && !known.contains(&uid);
        let before = machine::find_user(folder, &self.config.bounds, is_unknown).await;
        match before.map_err(io_error("look for machines in", Path::new("/proc")))? {
            Some(uid) => Ok(Some(uid)),
            None => {
                // One who has a process is a machine whose record is lost, too: nobody is to be one user with it.
                let running = users::of_processes();
                let free = users.free(|uid| taken.contains(&uid) || running.contains(&uid));
                free.map(Some).map_err(io_error("find a user for", folder.path()))
            }
        }
    }

    fn users_taken(&self) -> BTreeSet<u32> {
        lock(&self.partitions).values().filter_map(|partition| partition.record().user).collect()
    }

    /// Starts QEMU for a stopped partition, with what the record says; to wait for the state of a machine of this layout, if one is given.
    async fn spawn(
        &self,
        partition: &Partition,
        awaited: Option<&MachineLayout>,
    ) -> Result<Arc<Machine>, HypervisorError> {
        let record = partition.record();
        for vf in &record.vfs {
            let owner = Owner { partition: partition.name.clone(), vf: vf.name.clone() };
            self.give_node(&record, &owner, vf.function)?;
        }
        let BootFiles { kernel, initrd, disk } =
            BootFiles::open(&record.spec.machine.boot, self.config.users.as_ref(), &self.opening).await?;
        let taps = self.taps_for(partition, &record).await?;
        let folder = &partition.folder;
        folder.clear();
        let (log, console_log) = folder.open_logs()?;
        let listen = |path: PathBuf| folder.listen(&path).map(OwnedFd::from);
        let given = Given {
            qmp: listen(folder.qmp())?,
            console: listen(folder.console())?,
            channel: record.channel.then(|| listen(folder.channel())).transpose()?,
            console_log: console_log.into(),
            kernel: kernel.map(OwnedFd::from),
            initrd: initrd.map(OwnedFd::from),
            disk: disk.map(|(disk, format)| (disk.into(), format)),
            taps,
        };
        let arguments = command::arguments(&record, &given, folder, accelerators(), awaited);
        let emulator = &self.config.emulator;
        let user = record.user.map(users::of_machine);
        let start = || Process::spawn(emulator, &arguments, log, user, given.into_all());
        let process = numa::on_node(record.spec.numa_node, start)?.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HypervisorError::EmulatorMissing { program: emulator.clone() },
            _ => io_error("start", emulator)(error),
        })?;
        folder.note_pid(process.pid());
        cgroup::enter(&cgroup::of_partition(&partition.name), process.pid());
        Ok(Machine::new(&partition.name, &partition.folder, &self.config.bounds, process))
    }

    /// Waits until a machine that was just started is as it should be; one that is not is ended.
    async fn wait_for<T>(
        &self,
        partition: &Partition,
        machine: &Machine,
        ready: impl Future<Output = Result<T, HypervisorError>>,
    ) -> Result<T, HypervisorError> {
        let _expected = machine.expect_end();
        let error = tokio::select! {
            biased;
            ready = ready => match ready {
                Ok(value) => return Ok(value),
                // Its connection may have ended because it did.
                Err(error) => timeout(Duration::from_secs(1), machine.gone()).await.map_err(|_| error),
            },
            end = machine.gone() => Ok(end),
        };
        match error {
            Ok(end) => Err(HypervisorError::EndedAtOnce {
                partition: partition.name.clone(),
                status: end.status.unwrap_or(end.why),
                last_words: partition.folder.last_words(),
            }),
            Err(error) => {
                machine.force_off().await?;
                Err(error)
            }
        }
    }

    /// Plugs a VF that is in the record into a running machine, and takes it from the record if it did not get in.
    async fn plug(
        &self,
        partition: &Partition,
        machine: &Machine,
        vf: &HeldVf,
    ) -> Result<(), HypervisorError> {
        let Err(error) = self.hand_in(partition, machine, vf).await else { return Ok(()) };
        // Without an answer it stays recorded: that the machine has it is then possible, and nobody else may.
        if machine.is_gone() || matches!(machine.has_vf(vf).await, Ok(false)) {
            self.forget(partition, vf)?;
        }
        Err(error)
    }

    /// The IOMMU group of a VF, if no other VF of its partition is in it.
    fn group_of_its_own(&self, record: &Record, vf: &HeldVf) -> Option<OsString> {
        let group = self.sysfs.group(vf.function)?;
        let is_shared =
            |other: &HeldVf| other != vf && self.sysfs.group(other.function).as_ref() == Some(&group);
        (!record.vfs.iter().any(is_shared)).then_some(group)
    }

    /// The machine's user can't open a VF of its any more. Where it is open already, nothing changes.
    fn take_node_back(&self, record: &Record, vf: &HeldVf) {
        if record.user.is_some()
            && let Some(group) = self.group_of_its_own(record, vf)
        {
            users::take_node_back(&vfio::node(&self.config.devices, &group));
        }
    }

    fn forget(&self, partition: &Partition, vf: &HeldVf) -> Result<(), HypervisorError> {
        self.take_node_back(&partition.record(), vf);
        partition.change(|record| record.vfs.retain(|held| held.name != vf.name))
    }
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        let user = self.config.users.as_ref().map(|users| users::of_machine(users.machines.start));
        probe::accelerator(&self.config.emulator, accelerators(), user, self.config.bounds.command).await
    }

    /// Opens every file to see.
    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let Definition { machine, .. } = spec.clone().try_into()?;
        let bridges = self.taps.missing_bridges(spec);
        let boot = boot::unusable_in_time(&machine.boot, self.config.users.as_ref(), &self.opening).await;
        Ok(boot.into_iter().chain(bridges).collect())
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let definition = Definition::try_from(spec.clone())?;
        loop {
            if let Ok((partition, _operation)) = self.enter(&spec.name).await {
                return partition.change(|record| record.spec = definition.clone());
            }
            let folder = Folder::new(&self.folder, &spec.name);
            let user = self.user_for(&folder).await?;
            let mut partitions = lock(&self.partitions);
            let is_taken = |partition: &Arc<Partition>| user.is_some() && partition.record().user == user;
            // Somebody may have been faster, with this name or as this user.
            if !partitions.contains_key(&spec.name) && !partitions.values().any(is_taken) {
                folder.create()?;
                let record = Record::new(definition, user);
                record.save(&folder.record())?;
                partitions.insert(spec.name.clone(), Partition::new(folder, record));
                return Ok(());
            }
        }
    }

    async fn undefine(&self, name: &Name) -> Result<(), HypervisorError> {
        let Ok((partition, _operation)) = self.enter(name).await else { return Ok(()) };
        if partition.machine().is_some() {
            return Err(HypervisorError::Running(name.clone()));
        }
        let folder = partition.folder.path();
        fs::remove_dir_all(folder).map_err(io_error("remove", folder))?;
        lock(&self.partitions).remove(name);
        Ok(())
    }

    async fn start(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if let Some(machine) = partition.machine() {
            tokio::select! {
                biased;
                // It has just ended: it is started anew.
                () = machine.process().ended() => { machine.gone().await; }
                running = machine.running() => return running,
            }
        }
        // A machine that was started by a daemon that died before it could write anything down is taken over.
        let machine = match self.find_machine(&partition).await? {
            Some(machine) => machine,
            None => self.spawn(&partition, None).await?,
        };
        self.run(&partition, Arc::clone(&machine));
        self.wait_for(&partition, &machine, machine.running()).await
    }

    /// A guest may ignore its power button: then this ends with [`HypervisorError::GuestUnresponsive`] and the machine
    /// keeps running. [`StopMode::Force`] works at any time, also while another operation is waiting for the guest.
    async fn stop(&self, name: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        let Some(machine) = self.partition(name)?.machine() else { return Ok(()) };
        let _expected = machine.expect_end();
        match mode {
            StopMode::Graceful => machine.power_down().await,
            StopMode::Force => machine.force_off().await,
        }
    }

    /// Also while another operation waits for the guest: one that has halted lets go of nothing before it was reset.
    async fn reset(&self, name: &Name) -> Result<(), HypervisorError> {
        let machine = self.partition(name)?.machine();
        machine.ok_or_else(|| HypervisorError::NotRunning(name.clone()))?.reset().await
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let refuse =
            |why| HypervisorError::NotAttachable { function, partition: owner.partition.clone(), why };
        let record = partition.record();
        let held = record.vf(&owner.vf);
        if let Some(other) = held.filter(|held| held.function != function) {
            return Err(refuse(format!("{owner} is {} already; detach that first", other.function)));
        }
        if let Some(machine) = partition.machine() {
            machine.check_stays().await?;
        }
        let vf = match held {
            Some(vf) => vf.clone(),
            None => {
                let full = || refuse(format!("its {SLOTS} slots are all taken; detach another VF first"));
                let slot = record.free_slot().ok_or_else(full)?;
                let vf = HeldVf { name: owner.vf.clone(), function, slot };
                partition.change(|record| record.vfs.push(vf.clone()))?;
                vf
            }
        };
        match partition.machine() {
            Some(machine) => {
                self.give_node(&record, owner, function)?;
                self.plug(&partition, &machine, &vf).await
            }
            None => Ok(()),
        }
    }

    /// QEMU cannot take a VF from a guest that does not let go, so `force` changes nothing here: stop the partition by
    /// force instead, and detach then.
    async fn detach_vf(&self, owner: &Owner, _force: bool) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let record = partition.record();
        let Some(vf) = record.vf(&owner.vf) else { return Ok(()) };
        if let Some(machine) = partition.machine() {
            // First of all, where QEMU may be about to plug it in by itself: see `standby`.
            let is_paired = record.standby(&owner.vf).is_some();
            if is_paired {
                self.take_node_back(&record, vf);
            }
            if let Err(error) = machine.unplug(vf, self.group_of_its_own(&record, vf).as_deref()).await
                && !machine.is_gone()
            {
                if is_paired {
                    self.give_node(&record, owner, vf.function)?;
                }
                return Err(error);
            }
            if is_paired {
                machine.announce_standby(&owner.vf).await;
            }
        }
        self.forget(&partition, vf)
    }

    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        self.attach_standby_now(owner, nic).await
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.detach_standby_now(owner).await
    }

    async fn layout(&self, name: &Name) -> Result<MachineLayout, HypervisorError> {
        self.layout_now(name).await
    }

    async fn receive(&self, name: &Name, layout: &MachineLayout) -> Result<OwnedFd, HypervisorError> {
        self.receive_now(name, layout).await
    }

    async fn send(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        self.send_now(name).await
    }

    async fn migration(&self, name: &Name) -> Result<Migration, HypervisorError> {
        self.migration_now(name).await
    }

    async fn resume(&self, name: &Name) -> Result<(), HypervisorError> {
        self.resume_now(name).await
    }

    async fn create_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if let Some(machine) = partition.machine() {
            machine.check_stays().await?;
        }
        partition.change(|record| record.channel = true)?;
        if let Some(machine) = partition.machine()
            && let Err(error) = machine.add_channel().await
        {
            // Leftovers are taken away where that is possible; the error to report is the first one.
            let _ = machine.remove_channel().await;
            partition.change(|record| record.channel = false)?;
            return Err(error);
        }
        Ok(())
    }

    async fn destroy_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if let Some(machine) = partition.machine()
            && let Err(error) = machine.remove_channel().await
            && !machine.is_gone()
        {
            return Err(error);
        }
        partition.change(|record| record.channel = false)?;
        partition.folder.remove_channel();
        Ok(())
    }

    async fn connect_channel(&self, name: &Name) -> Result<ChannelEnd, HypervisorError> {
        let partition = self.partition(name)?;
        if partition.machine().is_none() {
            return Err(HypervisorError::NotRunning(name.clone()));
        }
        let path = partition.folder.channel();
        let stream = UnixStream::connect(&path).await.and_then(UnixStream::into_std);
        Ok(ChannelEnd::Stream(stream.map_err(io_error("connect to", &path))?.into()))
    }

    async fn open_console(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        let partition = self.partition(name)?;
        if partition.machine().is_none() {
            return Err(HypervisorError::NotRunning(name.clone()));
        }
        let path = partition.folder.console();
        let stream = UnixStream::connect(&path).await.and_then(UnixStream::into_std);
        Ok(stream.map_err(io_error("connect to", &path))?.into())
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        Ok(lock(&self.partitions).values().map(|partition| partition.status()).collect())
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        *lock(&self.listener) = Some(sender);
        receiver
    }
}

/// The accelerators of this host, best first.
fn accelerators() -> &'static [&'static str] {
    command::accelerators(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// Locks a file for as long as it is open. Waits a moment for one that is locked: a child that the holder before was
/// just starting keeps the lock from its fork until its exec.
async fn take_charge(path: &Path) -> Result<File, HypervisorError> {
    let file = File::create(path).map_err(io_error("create", path))?;
    let locked = async {
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => sleep(Duration::from_millis(50)).await,
                result => return result.map_err(io::Error::from),
            }
        }
    };
    let elsewhere =
        || io::Error::new(io::ErrorKind::ResourceBusy, "another ioward is in charge of this runtime folder");
    match timeout(Duration::from_secs(2), locked).await {
        Ok(Ok(())) => Ok(file),
        Ok(Err(source)) => Err(io_error("lock", path)(source)),
        Err(_) => Err(io_error("lock", path)(elsewhere())),
    }
}
