//! The daemon of the benchmark: the real one, on the host that the tree is of.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use async_trait::async_trait;
use ioward_fabric::{
    Fabric, FabricError,
    linux::{HostRoot, identify},
    sim::{SimFabric, SimMachine},
};
use ioward_hypervisor::sim::{Bounds, SimConfig, SimHypervisor};
use ioward_imp::{ApiGroups, Imp, Run, serve_on};
use ioward_model::{Inventory, VfId, VfSettings, VfStatistics};
use ioward_pci::Bdf;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{http::SOCKET, tree};

/// Serves until it is killed.
pub fn serve(folder: &Path) {
    Runtime::new().unwrap().block_on(async {
        let fabric = OfTree { root: tree::root(folder), other: SimMachine::builder(1).build().fabric() };
        let config = SimConfig {
            runtime_dir: folder.join("run"),
            // No partition is started here.
            program: "/nonexistent".into(),
            arguments: Vec::new(),
            bounds: Bounds::default(),
        };
        let hypervisor = Arc::new(SimHypervisor::new(config).unwrap());
        let (store, contents) = ioward_store::open(&folder.join("state")).unwrap();
        let run = Run { epoch: 1, boot: String::new(), clock: ioward_imp::Clock::default() };
        let imp = Imp::new(Arc::new(fabric), hypervisor, Box::new(store), contents, run);
        serve_on(&folder.join(SOCKET), imp, ApiGroups::of_this_host(), std::future::pending()).await.unwrap();
    });
}

/// Looks at the tree. Nothing is changed here.
struct OfTree {
    root: PathBuf,
    /// Has no function, and says so to all else.
    other: SimFabric,
}

#[async_trait]
impl Fabric for OfTree {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        let root = self.root.clone();
        tokio::task::spawn_blocking(move || identify(&HostRoot::open(&root)?)).await.unwrap()
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.other.set_autoprobe(pf, on).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.other.set_vf_count(pf, count).await
    }

    async fn recover(&self, pf: Bdf, how: ioward_model::Recovery) -> Result<(), FabricError> {
        self.other.recover(pf, how).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.other.vf_address(vf).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.other.driver(vf).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.other.bind(vf, driver).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.other.reset(vf).await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        self.other.settings(vf).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.other.configure(vf, change).await
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.other.statistics(vf).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.other.is_open(vf).await
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        self.other.changes().await
    }
}
