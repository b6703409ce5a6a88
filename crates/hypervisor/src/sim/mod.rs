//! Partitions that are processes: for demonstrations and tests, with no hardware, no root and no emulator.
//!
//! A partition's process is started with a control socket as its fd 0, its console as its fd 1, and a log as its fd 2
//! ([`ioward_channel::control`]). Its channel is shared memory, handed over through the control socket, at the start as
//! later. It is trusted with nothing: what it says is bounded, and what it does not do has a deadline.
//!
//! Unlike machines, simulated partitions end with the one who started them, and are not remembered.

mod console;
mod machine;
mod moving;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, DirBuilder},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use ioward_channel::control::ToPartition;
use ioward_model::{
    Boot, Halt, InterfaceName, KindName, Machine as MachineSpec, MachineLayout, Migration, Name, Owner,
    PartitionSpec, StandbyNic,
};
use ioward_pci::Bdf;
use tokio::{
    net::UnixStream,
    sync::{OwnedMutexGuard, mpsc},
    task::JoinSet,
};

use self::{machine::Machine, moving::Moving};
use crate::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode, boot_files, file::io_error, lock::lock, opening::Opening,
};

/// Events that may wait to be fetched.
const MAX_EVENTS: usize = 64;

/// Where simulated partitions work, and the program that plays them.
#[derive(Clone)]
pub struct SimConfig {
    /// Where partitions have their folders (in `partitions/`); made when it is not there.
    pub runtime_dir: PathBuf,
    /// The program that plays a partition, as `ioward_agent::simulated::main` does.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// How long things may take.
    pub bounds: Bounds,
}

/// How long a partition's process may take.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// From its start until it says that it runs.
    pub start: Duration,
    /// Until it takes what it is told.
    pub command: Duration,
    /// Until it has let go of a VF.
    pub unplug: Duration,
    /// Until it has turned itself off.
    pub power_down: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(30),
            command: Duration::from_secs(5),
            unplug: Duration::from_secs(10),
            power_down: Duration::from_secs(10),
        }
    }
}

/// Partitions as processes of this program's user. Whether a VF may be given to one is for the [`crate::Guard`] around it to say.
pub struct SimHypervisor {
    config: SimConfig,
    folder: PathBuf,
    partitions: Mutex<BTreeMap<Name, Arc<Partition>>>,
    /// The bridges of the simulated host.
    bridges: Mutex<BTreeSet<InterfaceName>>,
    listener: Listener,
    opening: Opening,
    /// One task for each running partition; ending it kills the process.
    watchers: Mutex<JoinSet<()>>,
}

type Listener = Arc<Mutex<Option<mpsc::Sender<HypervisorEvent>>>>;

struct Partition {
    name: Name,
    kind: KindName,
    folder: PathBuf,
    /// Held for the whole of an operation on this partition, except for stopping it and looking at it.
    operation: Arc<tokio::sync::Mutex<()>>,
    now: Mutex<Now>,
}

#[derive(Default)]
struct Now {
    channel: bool,
    vfs: BTreeMap<Name, Bdf>,
    standbys: BTreeMap<Name, StandbyNic>,
    machine: Option<Arc<Machine>>,
    /// Its last move, as long as its machine runs that was moved.
    moving: Option<Moving>,
}

impl Partition {
    fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.now).machine.clone()
    }

    /// A namespace is there, or it is not.
    fn check_is_started(&self, what: &'static str) -> Result<(), HypervisorError> {
        if self.kind != KindName::Namespace {
            return Ok(());
        }
        let (partition, kind) = (self.name.clone(), self.kind);
        Err(HypervisorError::NotForKind { partition, kind, what: what.into() })
    }

    fn console(&self) -> PathBuf {
        self.folder.join("console.sock")
    }
}

impl SimHypervisor {
    /// A hypervisor without partitions.
    ///
    /// # Errors
    /// When the runtime folder can't be made.
    pub fn new(config: SimConfig) -> Result<Self, HypervisorError> {
        let folder = config.runtime_dir.join("partitions");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_error("create", &folder))?;
        Ok(Self {
            opening: Opening::new(config.bounds.command),
            config,
            folder,
            partitions: Mutex::default(),
            bridges: Mutex::default(),
            listener: Listener::default(),
            watchers: Mutex::default(),
        })
    }

    /// Gives the simulated host a bridge. It has none by itself.
    pub fn add_bridge(&self, name: InterfaceName) {
        lock(&self.bridges).insert(name);
    }

    /// As QEMU does when VFIO tells it of an uncorrectable error of one of these functions: machines that have one halt. Their processes
    /// are stopped, and go on where they were once they are reset: there is nothing that could boot anew.
    pub async fn halt_holders(&self, functions: &[Bdf]) {
        let partitions: Vec<_> = lock(&self.partitions).values().cloned().collect();
        for partition in partitions {
            let machine = {
                let now = lock(&partition.now);
                let has_one = now.vfs.values().any(|function| functions.contains(function));
                now.machine.clone().filter(|_| has_one && partition.kind == KindName::Machine)
            };
            if machine.is_some_and(|machine| machine.halt(Some(Halt::InternalError))) {
                self.tell(HypervisorEvent::Halted { partition: partition.name.clone() }).await;
            }
        }
    }

    async fn tell(&self, event: HypervisorEvent) {
        let sender = lock(&self.listener).clone();
        if let Some(sender) = sender {
            // Whoever listened may be gone by now.
            let _ = sender.send(event).await;
        }
    }

    /// The standby of a VF, if it has one.
    #[must_use]
    pub fn standby(&self, owner: &Owner) -> Option<StandbyNic> {
        let partition = self.partition(&owner.partition).ok()?;
        lock(&partition.now).standbys.get(&owner.vf).cloned()
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

    /// Starts a stopped partition's process.
    fn spawn(&self, partition: &Arc<Partition>) -> Result<Arc<Machine>, HypervisorError> {
        let (machine, life) = Machine::spawn(&partition.name, &partition.folder, &self.config)?;
        lock(&partition.now).machine = Some(Arc::clone(&machine));
        let (watched, listener) = (Arc::clone(partition), Arc::clone(&self.listener));
        let ends = Arc::clone(&machine);
        let mut watchers = lock(&self.watchers);
        while watchers.try_join_next().is_some() {}
        watchers.spawn(async move {
            let why = life.await;
            {
                let mut now = lock(&watched.now);
                now.machine = None;
                now.moving = None;
            }
            // Nothing is there to remove when the folder has gone already.
            let _ = fs::remove_file(watched.console());
            // A partition that ends before it runs is reported by its start.
            let is_news = ends.has_started() && !ends.end_is_expected();
            ends.set_gone(&why);
            if !is_news {
                return;
            }
            let sender = lock(&listener).clone();
            if let Some(sender) = sender {
                // Whoever listened may be gone by now.
                let _ = sender.send(HypervisorEvent::Ended { partition: watched.name.clone(), why }).await;
            }
        });
        Ok(machine)
    }

    /// Tells a process that was just started what its machine has, and waits until it runs.
    async fn boot(
        &self,
        machine: &Machine,
        channel: bool,
        vfs: &BTreeMap<Name, Bdf>,
    ) -> Result<(), HypervisorError> {
        machine.tell(&ToPartition::Name(machine.partition().clone()), &[]).await?;
        if channel {
            machine.make_channel().await?;
        }
        for (vf, function) in vfs {
            machine.tell(&ToPartition::Attach { vf: vf.clone(), function: *function }, &[]).await?;
        }
        machine.boot().await
    }

    /// Starts a partition that does not run.
    async fn run(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if partition.machine().is_some() {
            return partition.check_stays().map(|()| Accelerator::Sim);
        }
        let (channel, vfs) = {
            let now = lock(&partition.now);
            (now.channel, now.vfs.clone())
        };
        let machine = self.spawn(&partition)?;
        if let Err(error) = self.boot(&machine, channel, &vfs).await {
            machine.kill();
            let ended_by_itself = machine.gone().await;
            return Err(match ended_by_itself.as_str() {
                machine::KILLED => error,
                status => HypervisorError::EndedAtOnce {
                    partition: name.clone(),
                    status: status.to_owned(),
                    last_words: machine::last_words(&partition.folder),
                },
            });
        }
        Ok(Accelerator::Sim)
    }
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        let program = &self.config.program;
        fs::metadata(program).map_err(io_error("find", program))?;
        Ok(Accelerator::Sim)
    }

    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let Some(MachineSpec { boot, .. }) = spec.machine() else { return Ok(Vec::new()) };
        // No partition writes to its disk here.
        let open = |path: &Path, _| boot_files::open(path, false).map(drop);
        let unusable = move |boot: &Boot| boot_files::unusable(boot, open, |_, _, _| None);
        Ok(boot_files::unusable_in_time(boot, &self.opening, unusable).await)
    }

    /// A domain and a namespace run from then on: they are there before they are partitions.
    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let kind = spec.kind.name();
        {
            let mut partitions = lock(&self.partitions);
            if let Some(present) = partitions.get(&spec.name) {
                let (partition, present) = (spec.name.clone(), present.kind);
                let other = HypervisorError::OtherKind { partition, kind: present };
                return if present == kind { Ok(()) } else { Err(other) };
            }
            let folder = self.folder.join(spec.name.as_str());
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .map_err(io_error("create", &folder))?;
            let name = spec.name.clone();
            let (operation, now) = Default::default();
            partitions.insert(name.clone(), Arc::new(Partition { name, kind, folder, operation, now }));
        }
        if kind != KindName::Machine {
            self.run(&spec.name).await?;
        }
        Ok(())
    }

    async fn undefine(&self, name: &Name) -> Result<(), HypervisorError> {
        let Ok((partition, _operation)) = self.enter(name).await else { return Ok(()) };
        if let Some(machine) = partition.machine() {
            if partition.kind == KindName::Machine {
                return Err(HypervisorError::Running(name.clone()));
            }
            // Nobody else would end it here.
            let _expected = machine.expect_end();
            machine.kill();
            machine.gone().await;
        }
        fs::remove_dir_all(&partition.folder).map_err(io_error("remove", &partition.folder))?;
        lock(&self.partitions).remove(name);
        Ok(())
    }

    async fn start(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        self.partition(name)?.check_is_started("started")?;
        self.run(name).await
    }

    async fn stop(&self, name: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        let partition = self.partition(name)?;
        partition.check_is_started("stopped")?;
        let Some(machine) = partition.machine() else { return Ok(()) };
        let _expected = machine.expect_end();
        match mode {
            StopMode::Graceful => machine.power_down().await,
            StopMode::Force => {
                machine.kill();
                machine.gone().await;
                Ok(())
            }
        }
    }

    async fn reset(&self, name: &Name) -> Result<(), HypervisorError> {
        let partition = self.partition(name)?;
        partition.check_is_started("reset")?;
        let machine = partition.machine().ok_or_else(|| HypervisorError::NotRunning(name.clone()))?;
        if machine.halt(None) {
            self.tell(HypervisorEvent::Halted { partition: name.clone() }).await;
        }
        Ok(())
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let held = lock(&partition.now).vfs.get(&owner.vf).copied();
        if let Some(other) = held.filter(|held| *held != function) {
            return Err(HypervisorError::NotAttachable {
                function,
                partition: owner.partition.clone(),
                why: format!("{owner} is {other} already; detach that first"),
            });
        }
        if held.is_some() {
            return Ok(());
        }
        partition.check_stays()?;
        // First, so that it is held also where nobody waits for the partition's process any more.
        lock(&partition.now).vfs.insert(owner.vf.clone(), function);
        if let Some(machine) = partition.machine() {
            machine.forget_unplug(&owner.vf);
            let attach = ToPartition::Attach { vf: owner.vf.clone(), function };
            let forget = |_: &HypervisorError| _ = lock(&partition.now).vfs.remove(&owner.vf);
            machine.tell(&attach, &[]).await.inspect_err(forget)?;
        }
        Ok(())
    }

    /// With `force` a VF is taken at the bound from a guest that does not let go: nothing real is behind it.
    async fn detach_vf(&self, owner: &Owner, force: bool) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        if !lock(&partition.now).vfs.contains_key(&owner.vf) {
            return Ok(());
        }
        if let Some(machine) = partition.machine()
            && let Err(error) = machine.unplug(&owner.vf).await
            && !machine.is_gone()
            && !force
        {
            return Err(error);
        }
        lock(&partition.now).vfs.remove(&owner.vf);
        Ok(())
    }

    /// Standbys are recorded, by the rules that QEMU has; a partition's process is not told of them.
    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let refuse = |why| Err(HypervisorError::NoStandby { owner: owner.clone(), why });
        if partition.kind != KindName::Machine {
            return refuse(format!("only machines have standbys, and it is a {}", partition.kind));
        }
        partition.check_stays()?;
        let mut now = lock(&partition.now);
        match now.standbys.get(&owner.vf) {
            Some(held) if held == nic => return Ok(()),
            Some(other) => return refuse(format!("it is {other} already; detach that first")),
            None => {}
        }
        if now.machine.is_some() && now.vfs.contains_key(&owner.vf) {
            return refuse(format!("its VF is in the machine already; detach {owner} first"));
        }
        if !lock(&self.bridges).contains(&nic.bridge) {
            return refuse(format!("its bridge {} is needed, and the host has no such bridge", nic.bridge));
        }
        now.standbys.insert(owner.vf.clone(), nic.clone());
        Ok(())
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let mut now = lock(&partition.now);
        if now.standbys.contains_key(&owner.vf) && now.machine.is_some() && now.vfs.contains_key(&owner.vf) {
            let why = format!("its VF is in the machine, and would lose it; detach {owner} first");
            return Err(HypervisorError::NoStandby { owner: owner.clone(), why });
        }
        now.standbys.remove(&owner.vf);
        Ok(())
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
        if lock(&partition.now).channel {
            return Ok(());
        }
        partition.check_stays()?;
        if let Some(machine) = partition.machine() {
            machine.make_channel().await?;
        }
        lock(&partition.now).channel = true;
        Ok(())
    }

    async fn destroy_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(name).await?;
        if !lock(&partition.now).channel {
            return Ok(());
        }
        if let Some(machine) = partition.machine()
            && let Err(error) = machine.destroy_channel().await
            && !machine.is_gone()
        {
            return Err(error);
        }
        lock(&partition.now).channel = false;
        Ok(())
    }

    async fn connect_channel(&self, name: &Name) -> Result<ChannelEnd, HypervisorError> {
        let partition = self.partition(name)?;
        let machine = partition.machine().ok_or_else(|| HypervisorError::NotRunning(name.clone()))?;
        if !lock(&partition.now).channel {
            let none = io::Error::new(io::ErrorKind::NotFound, "it has none");
            return Err(io_error("connect to the channel of", &partition.folder)(none));
        }
        Ok(ChannelEnd::Shared(machine.connect_channel().await?))
    }

    async fn open_console(&self, name: &Name) -> Result<OwnedFd, HypervisorError> {
        let partition = self.partition(name)?;
        if partition.machine().is_none() {
            return Err(HypervisorError::NotRunning(name.clone()));
        }
        let path = partition.console();
        let stream = UnixStream::connect(&path).await.and_then(UnixStream::into_std);
        Ok(stream.map_err(io_error("connect to", &path))?.into())
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let partitions = lock(&self.partitions);
        let statuses = partitions.values().map(|partition| {
            let now = lock(&partition.now);
            PartitionStatus {
                name: partition.name.clone(),
                kind: partition.kind,
                running: now.machine.is_some(),
                halted: now.machine.as_ref().and_then(|machine| machine.halted()),
                accelerator: now.machine.as_ref().map(|_| Accelerator::Sim),
                pid: now.machine.as_ref().map(|machine| machine.pid()),
                console: Some(partition.console()),
                vfs: now.vfs.iter().map(|(name, function)| (name.clone(), *function)).collect(),
                lacks: Vec::new(),
                standbys: now.standbys.keys().cloned().collect(),
                gone: false,
                channel: now.channel,
            }
        });
        Ok(statuses.collect())
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(MAX_EVENTS);
        *lock(&self.listener) = Some(sender);
        receiver
    }
}
