//! A machine whose operations end when the test says so.
#![allow(clippy::unwrap_used, clippy::unimplemented)]

use std::sync::Mutex;

use async_trait::async_trait;
use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode,
};
use ioward_model::{Inventory, KindName, Name, Owner, PartitionSpec, VfId, VfSettings, VfStatistics};
use ioward_pci::Bdf;
use tokio::sync::{mpsc, watch};

pub const VF_ADDRESS: &str = "0000:01:10.0";

/// The one VF there is.
pub fn vf() -> VfId {
    VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 }
}

/// Holds up whoever passes until it is opened, and counts them.
#[derive(Default)]
pub struct Gate {
    entered: watch::Sender<usize>,
    is_open: watch::Sender<bool>,
}

impl Gate {
    async fn pass(&self) {
        self.entered.send_modify(|entered| *entered += 1);
        self.is_open.subscribe().wait_for(|is_open| *is_open).await.unwrap();
    }

    /// Waits until so many have come.
    pub async fn entered(&self, count: usize) {
        self.entered.subscribe().wait_for(|entered| *entered >= count).await.unwrap();
    }

    /// Lets everybody pass.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }
}

/// One VF on vfio-pci, whose binding to any other driver takes long, as does a look at who has it open, and another number of VFs.
#[derive(Default)]
pub struct SlowFabric {
    pub binds: Gate,
    pub counts: Gate,
    pub looks: Gate,
}

#[async_trait]
impl Fabric for SlowFabric {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        Ok(Inventory::default())
    }

    async fn set_autoprobe(&self, _: Bdf, _: bool) -> Result<(), FabricError> {
        unimplemented!()
    }

    async fn set_vf_count(&self, _: Bdf, _: u16) -> Result<(), FabricError> {
        self.counts.pass().await;
        Ok(())
    }

    async fn recover(&self, _: Bdf, _: ioward_model::Recovery) -> Result<(), FabricError> {
        self.counts.pass().await;
        Ok(())
    }

    async fn vf_address(&self, _: VfId) -> Result<Bdf, FabricError> {
        Ok(VF_ADDRESS.parse().unwrap())
    }

    async fn driver(&self, _: VfId) -> Result<Option<String>, FabricError> {
        Ok(Some("vfio-pci".into()))
    }

    async fn bind(&self, _: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        if driver != Some("vfio-pci") {
            self.binds.pass().await;
        }
        Ok(None)
    }

    async fn reset(&self, _: VfId) -> Result<(), FabricError> {
        unimplemented!()
    }

    async fn settings(&self, _: VfId) -> Result<VfSettings, FabricError> {
        unimplemented!()
    }

    async fn configure(&self, _: VfId, _: &VfSettings) -> Result<(), FabricError> {
        unimplemented!()
    }

    async fn statistics(&self, _: VfId) -> Result<VfStatistics, FabricError> {
        unimplemented!()
    }

    async fn is_open(&self, _: VfId) -> Result<bool, FabricError> {
        self.looks.pass().await;
        Ok(false)
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        mpsc::channel(1).1
    }
}

/// Partition `web`, which takes whatever it is given, after a while.
#[derive(Default)]
pub struct SlowHypervisor {
    pub attaches: Gate,
    vfs: Mutex<Vec<(Name, Bdf)>>,
}

#[async_trait]
impl Hypervisor for SlowHypervisor {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        unimplemented!()
    }

    async fn check_definition(&self, _: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        unimplemented!()
    }

    async fn define(&self, _: &PartitionSpec) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn undefine(&self, _: &Name) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn start(&self, _: &Name) -> Result<Accelerator, HypervisorError> {
        unimplemented!()
    }

    async fn stop(&self, _: &Name, _: StopMode) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.attaches.pass().await;
        self.vfs.lock().unwrap().push((owner.vf.clone(), function));
        Ok(())
    }

    async fn detach_vf(&self, _: &Owner, _: bool) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn create_channel(&self, _: &Name) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn destroy_channel(&self, _: &Name) -> Result<(), HypervisorError> {
        unimplemented!()
    }

    async fn connect_channel(&self, _: &Name) -> Result<ChannelEnd, HypervisorError> {
        unimplemented!()
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        Ok(vec![PartitionStatus {
            name: "web".parse().unwrap(),
            running: false,
            halted: None,
            accelerator: None,
            pid: None,
            console: Some("/nonexistent".into()),
            kind: KindName::Machine,
            vfs: self.vfs.lock().unwrap().clone(),
            lacks: Vec::new(),
            standbys: Vec::new(),
            gone: false,
            channel: false,
        }])
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        mpsc::channel(1).1
    }
}
