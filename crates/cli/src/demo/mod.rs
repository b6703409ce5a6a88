//! `ioward demo`: the whole main job on the embedded machine, with no hardware, no root and no packages.
//!
//! The machine is simulated ([`ioward_fabric::sim`]) and its client partitions are processes of this program
//! ([`ioward_hypervisor::sim`]); everything between them is what runs on a real host: the daemon, its API, the
//! planner, the executor, the channels, the agent.

mod choice;
mod failover;
mod guests;
mod place;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Arc, time::Duration};

use ioward_api::PartitionView;
use ioward_fabric::{Fabric as _, FabricError, sim::SimMachine};
use ioward_hypervisor::{
    Guard, Hypervisor, StopMode,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{ApiGroups, Clock, Imp, Run, ServeError, serve_on};
use ioward_model::{
    Boot, Class, Event, EventKind, Holder, Intent, Inventory, Label, Options, PhysicalFunction, Process,
    Runs, Spec, VfId,
};
use ioward_pci::Bdf;
use tempfile::TempDir;
use tokio::{net::UnixStream, sync::oneshot, task::JoinHandle};

use crate::{
    args::{DemoArgs, SIMULATED_PARTITION},
    change::{self, Asks},
    change_args::How,
    client::Client,
    error::{CliError, with_causes},
    present::{self, plan::Detail},
    show,
    signals::{INTERRUPT, Signals},
    spec_file, terminal,
    ui::{self, Server},
};

/// How much of the simulated machine's time passes for real, so that a person sees steps go by.
const REALTIME: f64 = 0.05;

/// Runs the demonstration, behind this socket or one in a folder of its own. Nothing is left of it, however it ends.
///
/// # Errors
/// When a stage does not do what it shows, or the person ends it.
pub async fn demo(args: DemoArgs, socket: Option<PathBuf>) -> Result<(), CliError> {
    // Before there is anything that a signal could leave behind.
    let mut signals = Signals::new().map_err(CliError::Start)?;
    let page = if args.serve { Some(Server::local(ui::loopback(args.port)).await?) } else { None };
    let embedded = Embedded::start(&args, socket).await?;
    let ended = tokio::select! {
        // Whoever carries out a plan listens to Ctrl-C too, and ends the line on which progress is shown.
        biased;
        ended = stages(&embedded, &args, page.as_ref()) => ended,
        signal = signals.next() => {
            // The last output may have no end of line.
            let _ = terminal::print("\n");
            Err(CliError::DemoEnded { signal })
        }
    };
    let ended = match (ended, page) {
        (Err(CliError::Interrupted { .. } | CliError::Left(_)), _) => {
            Err(CliError::DemoEnded { signal: INTERRUPT })
        }
        // Whoever asked it to stay up ends it by a signal: that is how it is meant to end.
        (Ok(()), Some(page)) => {
            tokio::select! {
                () = page.serve(&embedded.socket) => {}
                _ = signals.next() => {}
            }
            Ok(())
        }
        (ended, _) => ended,
    };
    embedded.end().await.and(ended)
}

async fn stages(embedded: &Embedded, args: &DemoArgs, page: Option<&Server>) -> Result<(), CliError> {
    let client = &embedded.client;
    let found = embedded.machine.snapshot();
    stage("Identify: which SR-IOV adapters has this machine?")?;
    show::host(client, None, None, false).await?;

    let intent = Intent::Apply { spec: select(embedded, args).await? };
    stage("Plan: what would that change?")?;
    let show = change::Show::Text(Detail::default());
    change::plan(client, intent.clone(), Options::default(), None, show, None).await?;
    if !args.yes && !choice::agreed("Apply?").await? {
        return Err(CliError::Declined);
    }
    stage("Apply")?;
    change::change(client, intent, Options::default(), Asks::Always, How::unasked()).await?;
    show::partitions(client, false).await?;

    if let Some(page) = page {
        stage("It stays up: use it from another terminal or in a browser, and end it here with Ctrl-C")?;
        let command = format!("{} --socket {}", place::this_program(), place::word(&embedded.socket));
        return terminal::print(&format!("  {command} host\n  {command} partitions\n{}", page.told()));
    }

    stage("Each partition configures its own VFs through its channel")?;
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    for partition in &partitions {
        guests::configure(partition).await?;
    }
    stage("Who asked for what?")?;
    show::audit(client, false).await?;

    failover::show(embedded).await?;

    stage("An adapter is taken away, and put back")?;
    take_away_and_put_back(embedded).await?;

    stage("Every partition is removed, and everything is as it was found")?;
    for partition in partitions {
        let intent = Intent::Remove { partition: partition.name };
        change::change(client, intent, Options::default(), Asks::Always, How::unasked()).await?;
    }
    show::host(client, None, None, false).await?;
    stage("What happened?")?;
    what_happened(client).await?;

    let left: Vec<PartitionView> = client.get("/v1/partitions").await?;
    let now = embedded.machine.snapshot();
    let as_found = now == found && left.is_empty();
    // A Spec of the person's own may ask for VFs that no partition takes with it.
    if !as_found && args.spec.is_none() {
        return Err(CliError::Demo("not everything is as it was found".to_owned()));
    }
    let vfs = now.physical_functions.values().map(|pf| pf.vfs.len()).sum();
    let vfs = present::text::counted(vfs, "virtual function");
    let partitions = present::text::counted(left.len(), "partition");
    let all = if as_found { "; everything is as it was found" } else { "" };
    terminal::print(&format!("\nwhat is left: {vfs}, {partitions}{all}\n"))
}

/// The Spec of a file, or one that is chosen.
async fn select(embedded: &Embedded, args: &DemoArgs) -> Result<Spec, CliError> {
    let spec = if let Some(file) = &args.spec {
        let mut spec = spec_file::read(file)?.spec;
        // The boot files need not be here: nothing is booted.
        for partition in &mut spec.partitions {
            if let Some(machine) = partition.machine_mut() {
                machine.boot = Boot { kernel: Some(embedded.boot_file.clone()), ..Boot::default() };
            }
        }
        spec
    } else {
        stage("Select: which partition gets which virtual functions?")?;
        let inventory: Inventory = embedded.client.get("/v1/host").await?;
        choice::choose(&inventory, &embedded.boot_file, args.yes).await?
    };
    terminal::print(&present_spec(&spec)?)?;
    Ok(spec)
}

async fn take_away_and_put_back(embedded: &Embedded) -> Result<(), CliError> {
    let client = &embedded.client;
    let Some(adapter) = embedded.adapter_without_partitions().await? else {
        return terminal::print("partitions hold VFs of every adapter: none can be spared\n");
    };
    let present = |pf: Bdf| embedded.machine.physical_functions().contains(&pf);
    embedded.machine.unplug(adapter);
    terminal::print(&format!("{adapter} is pulled out of its slot\n"))?;
    show::host(client, None, None, false).await?;
    embedded.machine.replug(adapter);
    if !present(adapter) {
        return Err(CliError::Demo(format!("{adapter} did not come back")));
    }
    terminal::print(&format!("\n{adapter} is put back\n"))?;
    show::host(client, None, None, false).await
}

/// All events but those of single steps, which were shown when they happened.
async fn what_happened(client: &Client) -> Result<(), CliError> {
    let mut lines = client.get_lines("/v1/events?follow=false").await?;
    while let Some((_, event)) = lines.next::<Event>().await? {
        match event.kind {
            EventKind::StepStarted { .. }
            | EventKind::StepDone { .. }
            | EventKind::StepFailed { .. }
            | EventKind::StepUndone { .. } => {}
            _ => terminal::print(&present::events::event(&event))?,
        }
    }
    Ok(())
}

fn stage(title: &str) -> Result<(), CliError> {
    terminal::print(&format!("\n== {title}\n"))
}

/// The choice as a file would say it.
fn present_spec(spec: &Spec) -> Result<String, CliError> {
    let text = spec.to_toml().map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(format!("\nThis is the choice, as a Spec:\n\n{text}"))
}

/// The first of two VFs of the last network adapter goes to a machine that is not ioward's, before there is a daemon.
async fn lend(machine: &SimMachine) -> Result<(), FabricError> {
    let fabric = machine.fabric();
    let inventory = fabric.identify().await?;
    let mut networks = inventory.physical_functions.iter().filter(|pf| pf.class == Class::Network);
    let Some(pf) = networks.next_back() else { return Ok(()) };
    let vf = VfId { pf: pf.address, index: 0 };
    fabric.set_vf_count(vf.pf, 2).await?;
    fabric.bind(vf, Some("vfio-pci")).await?;
    let runs = Runs::LibvirtDomain { name: Label::new("theirs") };
    let process = Process { pid: 812, command: Label::new("qemu-system-x86"), runs };
    let address = fabric.vf_address(vf).await?;
    machine.lend(address, Holder::Process(process)).map_err(|errno| FabricError::Refused {
        what: format!("open {vf}"),
        why: "the simulated kernel refuses it".to_owned(),
        source: errno.into(),
    })
}

/// A management partition over the embedded machine, in a folder of its own.
struct Embedded {
    machine: SimMachine,
    hypervisor: Arc<Guard>,
    client: Client,
    socket: PathBuf,
    boot_file: PathBuf,
    stop: oneshot::Sender<()>,
    server: JoinHandle<Result<(), ServeError>>,
    folder: TempDir,
}

impl Embedded {
    async fn start(args: &DemoArgs, socket: Option<PathBuf>) -> Result<Self, CliError> {
        let failed = |what: &str, error: &dyn std::error::Error| {
            CliError::Demo(format!("cannot {what}: {}", with_causes(error)))
        };
        let folder =
            place::folder().map_err(|error| failed("make a folder for the demonstration", &error))?;
        // A partition boots from a file that is there. Here nothing is booted from it.
        let boot_file = folder.path().join("simulated-kernel");
        fs::write(&boot_file, "simulated\n").map_err(|error| failed("write a file", &error))?;
        let machine = SimMachine::standard_builder(args.seed).realtime(REALTIME).build();
        if args.foreign {
            lend(&machine).await.map_err(|error| failed("lend a VF", &error))?;
        }
        let program = std::env::current_exe().map_err(|error| failed("find this program", &error))?;
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            program,
            arguments: vec![SIMULATED_PARTITION.into()],
            bounds: Bounds::default(),
        };
        let hypervisor = SimHypervisor::new(config).map_err(|error| failed("make a hypervisor", &error))?;
        let looked_at = machine.clone();
        let look = move |function| Ok(looked_at.facts(function));
        let hypervisor = Arc::new(Guard::new(Arc::new(hypervisor), look));
        let (store, contents) = ioward_store::open(&folder.path().join("state"))
            .map_err(|error| failed("make a state", &error))?;
        let fabric = Arc::new(machine.fabric());
        let run = Run { epoch: args.seed, boot: String::new(), clock: Clock::default() };
        let imp = Imp::new(fabric, hypervisor.clone(), Box::new(store), contents, run);
        let socket = socket.unwrap_or_else(|| folder.path().join("api.sock"));
        if UnixStream::connect(&socket).await.is_ok() {
            return Err(CliError::Demo(format!("another daemon answers at {}", socket.display())));
        }
        let (stop, stopped) = oneshot::channel();
        let mut groups = ApiGroups::of_this_host();
        groups.viewers = args.viewers.or(groups.viewers);
        let at = socket.clone();
        let server = tokio::spawn(async move {
            serve_on(&at, imp, groups, async {
                let _ = stopped.await;
            })
            .await
        });
        let client = Client::new(&socket);
        // It is there a moment before anybody listens. One that ended without is found by who asks it first.
        while UnixStream::connect(&socket).await.is_err() && !server.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if server.is_finished() {
            return Err(match server.await {
                Ok(Err(error)) => CliError::Demo(with_causes(&error)),
                _ => CliError::Demo("its daemon has ended".to_owned()),
            });
        }
        Ok(Self { machine, hypervisor, client, socket, boot_file, stop, server, folder })
    }

    /// The last adapter of which no port gives a partition a VF.
    async fn adapter_without_partitions(&self) -> Result<Option<Bdf>, CliError> {
        let inventory: Inventory = self.client.get("/v1/host").await?;
        let pfs = &inventory.physical_functions;
        // Here each adapter has a bus of its own.
        let bus = |pf: &PhysicalFunction| (pf.address.domain(), pf.address.bus());
        let in_use: BTreeSet<_> = pfs.iter().filter(|pf| pf.vfs_assigned > 0).map(bus).collect();
        Ok(pfs.iter().rev().find(|pf| !in_use.contains(&bus(pf))).map(|pf| pf.address))
    }

    /// Ends the daemon, then every partition, then the folder.
    async fn end(self) -> Result<(), CliError> {
        let _ = self.stop.send(());
        let _ = self.server.await;
        for partition in self.hypervisor.partitions().await.unwrap_or_default() {
            let _ = self.hypervisor.stop(&partition.name, StopMode::Force).await;
            // A namespace is not stopped, and ends with this.
            let _ = self.hypervisor.undefine(&partition.name).await;
        }
        let path = self.folder.path().display().to_string();
        place::remove(self.folder)
            .await
            .map_err(|error| CliError::Demo(format!("cannot remove {path}: {}", with_causes(&error))))
    }
}
