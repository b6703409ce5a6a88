//! Machines that run on while the daemon is away, as QEMU's do and those of `hypervisor/sim` do not.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode,
};
use ioward_model::{KindName, Name, Owner, PartitionSpec, State};
use ioward_pci::Bdf;
use tokio::{net::UnixStream, sync::mpsc};

/// Machines that do what they are told at once.
pub struct Stayed {
    /// Where every guest is.
    guests: PathBuf,
    machines: Mutex<BTreeMap<Name, PartitionStatus>>,
    /// Nothing happens to them; whoever listens goes on waiting.
    listener: Mutex<Option<mpsc::Sender<HypervisorEvent>>>,
}

impl Stayed {
    /// The machines of a state. With `run` false none of them runs.
    pub fn of(state: &State, run: bool, guests: PathBuf) -> Self {
        let machines = state.partitions.iter().map(|(name, partition)| {
            let vfs = partition.vfs.iter().filter_map(|(vf, held)| Some((vf.clone(), held.address?)));
            let status = PartitionStatus {
                running: run && partition.running,
                vfs: vfs.collect(),
                channel: partition.channel,
                ..new(name)
            };
            (name.clone(), status)
        });
        Self { guests, machines: Mutex::new(machines.collect()), listener: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, PartitionStatus>> {
        self.machines.lock().unwrap()
    }

    fn change(&self, name: &Name, change: impl FnOnce(&mut PartitionStatus)) {
        if let Some(machine) = self.lock().get_mut(name) {
            change(machine);
        }
    }
}

fn new(name: &Name) -> PartitionStatus {
    PartitionStatus {
        name: name.clone(),
        running: false,
        halted: None,
        accelerator: Some(Accelerator::Sim),
        pid: None,
        console: None,
        lacks: Vec::new(),
        standbys: Vec::new(),
        gone: false,
        kind: KindName::Machine,
        vfs: Vec::new(),
        channel: false,
    }
}

#[async_trait]
impl Hypervisor for Stayed {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        Ok(Accelerator::Sim)
    }

    async fn check_definition(&self, _: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        Ok(Vec::new())
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        self.lock().entry(spec.name.clone()).or_insert_with(|| new(&spec.name));
        Ok(())
    }

    async fn undefine(&self, name: &Name) -> Result<(), HypervisorError> {
        self.lock().remove(name);
        Ok(())
    }

    async fn start(&self, name: &Name) -> Result<Accelerator, HypervisorError> {
        self.change(name, |machine| machine.running = true);
        Ok(Accelerator::Sim)
    }

    async fn stop(&self, name: &Name, _mode: StopMode) -> Result<(), HypervisorError> {
        self.change(name, |machine| machine.running = false);
        Ok(())
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.change(&owner.partition, |machine| machine.vfs.push((owner.vf.clone(), function)));
        Ok(())
    }

    async fn detach_vf(&self, owner: &Owner, _force: bool) -> Result<(), HypervisorError> {
        self.change(&owner.partition, |machine| machine.vfs.retain(|(vf, _)| *vf != owner.vf));
        Ok(())
    }

    async fn create_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        self.change(name, |machine| machine.channel = true);
        Ok(())
    }

    async fn destroy_channel(&self, name: &Name) -> Result<(), HypervisorError> {
        self.change(name, |machine| machine.channel = false);
        Ok(())
    }

    async fn connect_channel(&self, name: &Name) -> Result<ChannelEnd, HypervisorError> {
        if !self.lock().get(name).is_some_and(|machine| machine.running && machine.channel) {
            return Err(HypervisorError::NotRunning(name.clone()));
        }
        let connected = async { UnixStream::connect(&self.guests).await?.into_std() };
        let end = connected.await.map_err(|source: io::Error| HypervisorError::Io {
            what: "connect to".into(),
            path: self.guests.clone(),
            source,
        })?;
        Ok(ChannelEnd::Stream(end.into()))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        Ok(self.lock().values().cloned().collect())
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(1);
        *self.listener.lock().unwrap() = Some(sender);
        receiver
    }
}
