//! The daemon of the benchmark: the real one but for the machine below it.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Instant,
};

use ioward_fabric::{
    Fabric,
    sim::{Adapter, SimMachine},
};
use ioward_hypervisor::{
    Hypervisor,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{ApiGroups, Imp, Run, serve_on};
use ioward_model::{
    Boot, Class, EventKind, Intent, Machine, MemorySize, Options, PartitionSpec, Spec, State, VfRequest,
};
use ioward_store::Contents;
use tokio::{runtime::Runtime, sync::mpsc};

use crate::{guests::SOCKET, stayed::Stayed};

/// VFs that one adapter of the machine gives.
const VFS_EACH: usize = 127;

/// The fate of the machines while there was no daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machines {
    /// They run on; the new daemon serves their channels.
    Run,
    /// They had been stopped before.
    Stopped,
    /// They ran, and are gone: the host went down.
    Gone,
    /// There were none: this daemon starts them, as processes.
    Started,
}

impl Machines {
    /// As an argument.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Stopped => "stopped",
            Self::Gone => "gone",
            Self::Started => "started",
        }
    }

    /// What has become of them.
    pub fn told(self) -> &'static str {
        match self {
            Self::Run => "run on",
            Self::Stopped => "were off",
            Self::Gone => "are gone",
            Self::Started => "it starts",
        }
    }
}

impl FromStr for Machines {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Self::Run, Self::Stopped, Self::Gone, Self::Started];
        all.into_iter().find(|machines| machines.word() == word).ok_or_else(|| word.to_owned())
    }
}

/// Applies a Spec and leaves the state, with everything running.
pub fn prepare(folder: &Path, partitions: usize) {
    let (store, contents) = ioward_store::open(&folder.join("state")).unwrap();
    let machines = Arc::new(Stayed::of(&State::default(), true, folder.join(SOCKET)));
    let imp = imp(Arc::new(machine(partitions).fabric()), machines, Box::new(store), contents);
    Runtime::new().unwrap().block_on(apply(&imp, &Intent::Apply { spec: spec(folder, partitions) }));
}

/// Serves until it is killed. Says first how many microseconds the simulated machine took.
pub fn serve(folder: &Path, machines: Machines, partitions: usize) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, mut contents) = ioward_store::open(&folder.join("state")).unwrap();
        let begun = Instant::now();
        let machine = machine(partitions);
        restore(&machine, &contents.state).await;
        println!("{}", begun.elapsed().as_micros());
        io::stdout().flush().unwrap();
        if machines == Machines::Stopped {
            contents.state.partitions.values_mut().for_each(|partition| partition.running = false);
        }
        let started = machines == Machines::Started;
        let hypervisor: Arc<dyn Hypervisor> = if started {
            Arc::new(processes(folder))
        } else {
            Arc::new(Stayed::of(&contents.state, machines == Machines::Run, folder.join(SOCKET)))
        };
        let imp = imp(Arc::new(machine.fabric()), hypervisor, Box::new(store), contents);
        if started {
            apply(&imp, &Intent::Apply { spec: spec(folder, partitions) }).await;
        }
        serve_on(&folder.join("api.sock"), imp, ApiGroups::of_this_host(), std::future::pending())
            .await
            .unwrap();
    });
}

/// A management partition.
pub fn imp(
    fabric: Arc<dyn Fabric>,
    hypervisor: Arc<dyn Hypervisor>,
    store: Box<dyn ioward_store::Store>,
    contents: Contents,
) -> Arc<Imp> {
    let run = Run { epoch: 1, boot: String::new(), clock: ioward_imp::Clock::default() };
    Imp::new(fabric, hypervisor, store, contents, run)
}

/// A host with so many VFs.
pub fn machine(vfs: usize) -> SimMachine {
    let adapters = vfs.div_ceil(VFS_EACH).max(1);
    (0..adapters).fold(SimMachine::builder(1), |builder, _| builder.adapter(Adapter::hundred_g())).build()
}

/// Makes the machine what a real one still is when its daemon comes back.
async fn restore(machine: &SimMachine, state: &State) {
    let fabric = machine.fabric();
    let mut counts = BTreeMap::new();
    for (_, held) in state.assignments() {
        let count = counts.entry(held.vf.pf).or_insert(0);
        *count = (held.vf.index + 1).max(*count);
    }
    for (pf, count) in counts {
        fabric.set_autoprobe(pf, false).await.unwrap();
        fabric.set_vf_count(pf, count).await.unwrap();
    }
    for (_, held) in state.assignments() {
        fabric.configure(held.vf, &held.effective_settings()).await.unwrap();
        fabric.bind(held.vf, Some("vfio-pci")).await.unwrap();
    }
}

fn processes(folder: &Path) -> SimHypervisor {
    let config = SimConfig {
        runtime_dir: folder.join("run"),
        program: std::env::current_exe().unwrap(),
        arguments: vec!["partition".into()],
        bounds: Bounds::default(),
    };
    SimHypervisor::new(config).unwrap()
}

/// A machine of a partition.
pub fn machine_spec(folder: &Path) -> Machine {
    let kernel = folder.join("kernel");
    fs::write(&kernel, "simulated\n").unwrap();
    let boot = Boot { kernel: Some(kernel), ..Boot::default() };
    Machine { memory: MemorySize::from_mebibytes(64).unwrap(), ..Machine::new(boot) }
}

/// Partitions with one VF each.
fn spec(folder: &Path, partitions: usize) -> Spec {
    let machine = machine_spec(folder);
    let partition = |n: usize| PartitionSpec {
        vfs: vec![VfRequest::new("net0".parse().unwrap(), Class::Network)],
        ..PartitionSpec::new(format!("p{n:04}").parse().unwrap(), machine.clone())
    };
    Spec { version: 1, adapters: Vec::new(), partitions: (0..partitions).map(partition).collect() }
}

/// Plans for an intent and carries it out.
pub async fn apply(imp: &Arc<Imp>, intent: &Intent) {
    let plan = imp.plan(intent, &Options::default()).await.unwrap();
    if plan.steps.is_empty() {
        return;
    }
    let (listener, mut events) = mpsc::unbounded_channel();
    imp.apply(plan, listener).await.unwrap();
    while let Some(event) = events.recv().await {
        if let EventKind::PlanFailed { error, .. } = event.kind {
            panic!("{intent:?} was not carried out: {error}");
        }
    }
}
