//! A partition that goes on by its standby when a port loses its link, and goes back when a person says so.

use std::time::Duration;

use ioward_api::PartitionView;
use ioward_fabric::sim::SimMachine;
use ioward_model::{Boot, Class, Intent, Inventory, Options, Owner, PhysicalFunction, Spec, VirtualFunction};
use ioward_pci::Bdf;

use super::{Embedded, guests, stage};
use crate::{
    change::{self, Asks},
    change_args::How,
    error::CliError,
    terminal,
};

const PARTITION: &str = "shop";
/// How long the daemon may take to see that a link is gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Shows it on the first two network adapters that are apart; on a machine without, nothing.
pub async fn show(embedded: &Embedded) -> Result<(), CliError> {
    let client = &embedded.client;
    let inventory: Inventory = client.get("/v1/host").await?;
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    let is_taken = partitions.iter().any(|partition| partition.name.as_str() == PARTITION);
    let Some((primary, standby)) = two_apart(&inventory).filter(|_| !is_taken) else { return Ok(()) };
    stage("A port loses its link: its partition goes on by the standby")?;
    let owner: Owner =
        format!("{PARTITION}/net0").parse().map_err(|_| CliError::Demo("no such name".to_owned()))?;
    let apply = Intent::Apply { spec: spec(embedded, primary, standby)? };
    change::change(client, apply, Options::default(), Asks::Always, How::unasked()).await?;

    terminal::print(&format!("the cable of {primary} is pulled\n"))?;
    set_link(&embedded.machine, primary, false)?;
    wait_until_over(embedded, &owner).await?;
    guests::type_in(client, PARTITION, "vf get net0").await?;
    guests::type_in(client, PARTITION, "vf get net0-b").await?;
    set_link(&embedded.machine, primary, true)?;
    terminal::print(&format!(
        "the cable of {primary} is back: in ten seconds that counts, or when a person says so\n"
    ))?;
    let Owner { partition, vf } = owner;
    let back = Intent::Failover { partition: partition.clone(), vf, back: true };
    change::change(client, back, Options::default(), Asks::Always, How::unasked()).await?;
    let remove = Intent::Remove { partition };
    change::change(client, remove, Options::default(), Asks::Always, How::unasked()).await
}

fn two_apart(inventory: &Inventory) -> Option<(Bdf, Bdf)> {
    // Nobody is to be disturbed for it: where there are VFs, one is free.
    let is_free = |vf: &VirtualFunction| vf.owner.is_none() && vf.holder.is_none() && vf.driver.is_none();
    let has_one =
        |pf: &PhysicalFunction| pf.virtual_functions.is_empty() || pf.virtual_functions.iter().any(is_free);
    let suits = |pf: &&PhysicalFunction| pf.class == Class::Network && pf.vfs_available > 0 && has_one(pf);
    let mut all = inventory.physical_functions.iter().filter(suits);
    let first = all.next()?;
    let second = all.find(|pf| !pf.is_same_adapter(first))?;
    Some((first.address, second.address))
}

fn spec(embedded: &Embedded, primary: Bdf, standby: Bdf) -> Result<Spec, CliError> {
    let boot = Boot { kernel: Some(embedded.boot_file.clone()), ..Boot::default() };
    let boot = toml::to_string(&boot).map_err(|error| CliError::Demo(error.to_string()))?;
    let text = format!(
        r#"version = 1

[[partition]]
name = "{PARTITION}"
boot = {{ {boot} }}

[[partition.vf]]
name  = "net0"
class = "network"
pf    = "{primary}"
failover = {{ standby = "net0-b" }}

[[partition.vf]]
name  = "net0-b"
class = "network"
pf    = "{standby}"
"#,
        boot = boot.trim()
    );
    terminal::print(&format!("{}\n", text.trim_start_matches("version = 1\n\n")))?;
    Spec::parse(text.as_bytes()).map_err(|error| CliError::Demo(error.to_string()))
}

fn set_link(machine: &SimMachine, pf: Bdf, there: bool) -> Result<(), CliError> {
    let gone = |_| CliError::Demo(format!("{pf} is not there"));
    machine.set_up(pf, there).map_err(gone)
}

async fn wait_until_over(embedded: &Embedded, owner: &Owner) -> Result<(), CliError> {
    let looking = async {
        loop {
            let partitions: Vec<PartitionView> = embedded.client.get("/v1/partitions").await?;
            if let Some(over) = failed_over(&partitions, owner) {
                return terminal::print(&format!("{owner} has failed over: {over}\n"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let late = |_| CliError::Demo(format!("{owner} did not fail over"));
    tokio::time::timeout(PATIENCE, looking).await.map_err(late)?
}

fn failed_over(partitions: &[PartitionView], owner: &Owner) -> Option<String> {
    let partition = partitions.iter().find(|known| known.name == owner.partition)?;
    let vf = partition.vfs.iter().find(|vf| vf.name == owner.vf)?;
    Some(vf.failed_over.as_ref()?.describe())
}
