//! `ioward demo`: the whole main job on the embedded machine, with no hardware, no root and no packages.
//!
//! The machine is simulated ([`ioward_fabric::sim`]) and its client partitions are processes of this program
//! ([`ioward_hypervisor::sim`]); everything between them is what runs on a real host: the daemon, its API, the
//! planner, the executor, the channels, the agent.

mod choice;
mod guests;

use std::{
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ioward_fabric::sim::SimMachine;
use ioward_hypervisor::{
    Hypervisor, StopMode,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{Imp, ServeError, api::PartitionView, serve_on};
use ioward_model::{Intent, Inventory, Options, Spec};
use ioward_pci::Bdf;
use ioward_store::Store;
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    args::{DemoArgs, SIMULATED_PARTITION},
    change,
    client::Client,
    error::{CliError, with_causes},
    present::plan::Detail,
    show, spec_file, terminal,
};

/// How much of the simulated machine's time passes for real, so that a person sees steps go by.
const REALTIME: f64 = 0.05;

/// Runs the demonstration. Nothing is left of it, however it ends.
///
/// # Errors
/// When a stage does not do what it shows, or the person ends it.
pub async fn demo(args: DemoArgs) -> Result<(), CliError> {
    let embedded = Embedded::start(args.seed).await?;
    let ended = tokio::select! {
        ended = stages(&embedded, &args) => ended,
        _ = tokio::signal::ctrl_c() => Err(CliError::DemoEnded),
    };
    embedded.end().await;
    match ended {
        // Whoever asked it to stay up ends it by Ctrl-C: that is how it is meant to end.
        Err(CliError::DemoEnded) if args.serve => Ok(()),
        ended => ended,
    }
}

async fn stages(embedded: &Embedded, args: &DemoArgs) -> Result<(), CliError> {
    let client = &embedded.client;
    stage("Identify: which SR-IOV adapters has this machine?")?;
    show::host(client, None, None, false).await?;

    let spec = match &args.spec {
        Some(file) => spec_file::read(file)?.spec,
        None => {
            stage("Select: which partition gets which virtual functions?")?;
            let inventory: Inventory = client.get("/v1/host").await?;
            let spec = choice::choose(&inventory, &embedded.boot_file, args.yes).await?;
            terminal::print(&present_spec(&spec)?)?;
            spec
        }
    };
    let intent = Intent::Apply { spec };

    stage("Plan: what would that change?")?;
    let show = change::Show::Text(Detail::default());
    change::plan(client, intent.clone(), Options::default(), None, show).await?;
    if !args.yes && !choice::agreed("Apply?").await? {
        return Err(CliError::Declined);
    }
    stage("Apply")?;
    change::apply(client, intent, Options::default(), true, false).await?;
    show::partitions(client, false).await?;

    if args.serve {
        stage("It stays up: use it from another terminal, and end it here with Ctrl-C")?;
        let socket = embedded.socket.display();
        terminal::print(&format!(
            "  ioward --socket {socket} host\n  ioward --socket {socket} partitions\n"
        ))?;
        std::future::pending::<()>().await;
    }

    stage("Each partition configures its own VFs through its channel")?;
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    for partition in &partitions {
        guests::configure(partition).await?;
    }
    stage("Who asked for what?")?;
    show::audit(client, false).await?;

    stage("An adapter is taken away, and put back")?;
    let free = embedded.adapter_without_partitions().await?;
    embedded.machine.unplug(free);
    terminal::print(&format!("{free} is pulled out of its slot\n"))?;
    show::host(client, None, None, false).await?;
    embedded.machine.replug(free);
    terminal::print(&format!("\n{free} is put back\n"))?;
    show::host(client, None, None, false).await?;

    stage("Every partition is removed, and everything is as it was found")?;
    for partition in partitions {
        change::at_once(client, Intent::Remove { partition: partition.name }, Options::default()).await?;
    }
    show::host(client, None, None, false).await?;
    let left = embedded.machine.snapshot();
    let vfs: usize = left.physical_functions.values().map(|pf| pf.vfs.len()).sum();
    terminal::print(&format!("\n{vfs} virtual functions are left, and no partition\n"))
}

fn stage(title: &str) -> Result<(), CliError> {
    terminal::print(&format!("\n== {title}\n"))
}

/// The choice as a file would say it.
fn present_spec(spec: &Spec) -> Result<String, CliError> {
    let text = toml::to_string(spec).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(format!("\nThis is the choice, as a Spec:\n\n{text}"))
}

/// A management partition over the embedded machine, in a folder of its own.
struct Embedded {
    machine: SimMachine,
    hypervisor: Arc<SimHypervisor>,
    client: Client,
    socket: PathBuf,
    boot_file: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
    folder: Folder,
}

impl Embedded {
    async fn start(seed: u64) -> Result<Self, CliError> {
        let failed = |what: &str, error: &dyn std::error::Error| {
            CliError::Demo(format!("cannot {what}: {}", with_causes(error)))
        };
        let folder = Folder::new().map_err(|error| failed("make a folder for the demonstration", &error))?;
        // A partition boots from a file that is there. Here nothing is booted from it.
        let boot_file = folder.path.join("simulated-kernel");
        fs::write(&boot_file, "simulated\n").map_err(|error| failed("write a file", &error))?;
        let machine = SimMachine::standard_builder(seed).realtime(REALTIME).build();
        let program = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
        let viable = machine.clone();
        let config = SimConfig {
            runtime_dir: folder.path.join("run"),
            program,
            arguments: vec![SIMULATED_PARTITION.into()],
            viability: Arc::new(move |vf: Bdf| viability(&viable, vf)),
            bounds: Bounds::default(),
        };
        let hypervisor = SimHypervisor::new(config).map_err(|error| failed("make a hypervisor", &error))?;
        let hypervisor = Arc::new(hypervisor);
        let (store, state) =
            Store::open(&folder.path.join("state")).map_err(|error| failed("make a state", &error))?;
        let imp = Imp::new(Arc::new(machine.fabric()), hypervisor.clone(), store, state, seed);
        let socket = folder.path.join("api.sock");
        let (stop, stopped) = oneshot::channel();
        let at = socket.clone();
        let server = tokio::spawn(async move {
            serve_on(&at, imp, async {
                let _ = stopped.await;
            })
            .await
        });
        let client = Client::new(&socket);
        while !socket.exists() {
            if server.is_finished() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(Self { machine, hypervisor, client, socket, boot_file, stop, server, folder })
    }

    /// The first adapter from which no partition has a VF.
    async fn adapter_without_partitions(&self) -> Result<Bdf, CliError> {
        let inventory: Inventory = self.client.get("/v1/host").await?;
        let free = inventory.physical_functions.iter().rev().find(|pf| pf.vfs_assigned == 0);
        let free = free.ok_or_else(|| CliError::Demo("partitions have VFs of every adapter".to_owned()))?;
        Ok(free.address)
    }

    /// Ends the daemon, then every partition, then the folder.
    async fn end(self) {
        let _ = self.stop.send(());
        let _ = self.server.await;
        for partition in self.hypervisor.partitions().await.unwrap_or_default() {
            let _ = self.hypervisor.stop(&partition.name, StopMode::Force).await;
        }
        drop(self.folder);
    }
}

/// What the hypervisor side checks of a VF before it hands it out: here the machine itself says it.
fn viability(machine: &SimMachine, vf: Bdf) -> Result<Vec<Bdf>, String> {
    machine.hold(vf).map_err(|errno| format!("it cannot be opened: {errno}"))?;
    machine.release(vf).map_err(|errno| format!("it cannot be closed: {errno}"))?;
    Ok(Vec::new())
}

/// A folder that goes with the demonstration.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> std::io::Result<Self> {
        // Sockets have short names only (108 bytes): a deep TMPDIR would not do.
        let base = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
        let base = base.unwrap_or_else(|| Path::new("/tmp").to_owned());
        let path = base.join(format!("ioward-demo-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}
