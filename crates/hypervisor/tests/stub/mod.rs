//! A backend as plain data, for one kind of partition.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    collections::BTreeMap,
    future, io,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode,
};
use ioward_model::{KindName, Name, Owner, PartitionSpec};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

/// How it answers when it is asked for its partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Answers,
    Fails,
    Hangs,
}

#[derive(Default)]
pub struct Stub {
    pub kind: KindName,
    pub mood: Mutex<Mood>,
    partitions: Mutex<BTreeMap<Name, PartitionStatus>>,
    listener: Mutex<Option<mpsc::Sender<HypervisorEvent>>>,
}

impl Stub {
    pub fn new(kind: KindName) -> Arc<Self> {
        Arc::new(Self { kind, ..Self::default() })
    }

    pub fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    pub async fn tell(&self, event: HypervisorEvent) {
        let listener = self.listener.lock().unwrap().clone().unwrap();
        listener.send(event).await.unwrap();
    }

    fn with<T>(
        &self,
        partition: &Name,
        change: impl FnOnce(&mut PartitionStatus) -> T,
    ) -> Result<T, HypervisorError> {
        let mut partitions = self.partitions.lock().unwrap();
        let partition = partitions
            .get_mut(partition)
            .ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))?;
        Ok(change(partition))
    }
}

#[async_trait]
impl Hypervisor for Stub {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        Ok(Accelerator::Kvm)
    }

    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let found = format!("asked of {}", self.kind);
        Ok(vec![Obstacle { required: spec.kind.to_string(), found, remedy: String::new() }])
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let (name, kind) = (spec.name.clone(), self.kind);
        let status = PartitionStatus {
            name: name.clone(),
            kind,
            running: false,
            halted: None,
            accelerator: None,
            pid: None,
            console: None,
            lacks: Vec::new(),
            standbys: Vec::new(),
            gone: false,
            vfs: Vec::new(),
            channel: false,
        };
        self.partitions.lock().unwrap().entry(name).or_insert(status);
        Ok(())
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.partitions.lock().unwrap().remove(partition);
        Ok(())
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        self.with(partition, |status| status.running = true)?;
        Ok(Accelerator::Kvm)
    }

    async fn stop(&self, partition: &Name, _: StopMode) -> Result<(), HypervisorError> {
        self.with(partition, |status| status.running = false)
    }

    /// One that is called `lost` does not arrive.
    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.with(&owner.partition, |status| {
            status.vfs.retain(|(vf, _)| *vf != owner.vf);
            status.vfs.push((owner.vf.clone(), function));
            status.lacks.extend((owner.vf.as_str() == "lost").then(|| owner.vf.clone()));
        })
    }

    async fn detach_vf(&self, owner: &Owner, _: bool) -> Result<(), HypervisorError> {
        self.with(&owner.partition, |status| status.vfs.retain(|(vf, _)| *vf != owner.vf))
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.with(partition, |status| status.channel = true)
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.with(partition, |status| status.channel = false)
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        Err(HypervisorError::NotRunning(partition.clone()))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Answers => Ok(self.partitions.lock().unwrap().values().cloned().collect()),
            Mood::Fails => Err(HypervisorError::Io {
                what: "read".into(),
                path: "/run/records".into(),
                source: io::Error::other("it is broken"),
            }),
            Mood::Hangs => future::pending().await,
        }
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(4);
        *self.listener.lock().unwrap() = Some(sender);
        receiver
    }
}
