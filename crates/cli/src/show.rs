//! The commands that show: host and its risks, vfs, partitions, drift, orphans, audit, state.

use std::path::Path;

use ioward_api::{AuditLine, PartitionView, Reaped};
use ioward_fabric::linux::{self, HostRoot};
use ioward_model::{Drift, Inventory, Name, Orphan, Spec, VirtualFunction, risk};
use ioward_pci::Bdf;
use ioward_store::{Export, StoreError};
use serde::Serialize;

use crate::{
    client::{Client, ClientError, Lines},
    error::{CliError, with_causes},
    pf_ref::PfRef,
    present, recorded, terminal,
};

/// `ioward host`: from the daemon, from a copied tree, or from a snapshot.
///
/// # Errors
/// When it can't be looked at.
pub async fn host(
    client: &Client,
    root: Option<&Path>,
    snapshot: Option<&Path>,
    json: bool,
) -> Result<(), CliError> {
    let inventory = match (root, snapshot) {
        (None, None) => client.get("/v1/host").await?,
        (Some(root), _) => identify(root)?,
        (None, Some(snapshot)) => recorded::inventory(snapshot)?,
    };
    if json {
        return terminal::print_json(&inventory);
    }
    terminal::print(&present::inventory::host(&inventory, terminal::page_width()))
}

/// `ioward host --risks`.
///
/// # Errors
/// When the daemon does not answer.
pub async fn risks(client: &Client, json: bool) -> Result<(), CliError> {
    let inventory: Inventory = client.get("/v1/host").await?;
    let risks = risk::risks(&inventory, &risk::holdings(&inventory));
    if json {
        return terminal::print_json(&risks);
    }
    terminal::print(&present::risks::risks(&risks, terminal::page_width()))
}

/// Looks at a copied tree, in this very process. It is looked at once: that is its first generation.
fn identify(root: &Path) -> Result<Inventory, CliError> {
    let tree = HostRoot::open(root).map_err(|error| CliError::NoRoot(with_causes(&error)))?;
    let inventory = linux::identify(&tree).map_err(|error| CliError::Identify(with_causes(&error)))?;
    Ok(linux::named_as_here(Inventory { generation: 1, ..inventory }))
}

/// A virtual function in `ioward vfs --json`: as in the inventory, with the PF it is of and whose it is in words.
#[derive(Serialize)]
struct VfOfPf<'a> {
    pf: Bdf,
    whose: String,
    #[serde(flatten)]
    vf: &'a VirtualFunction,
}

/// `ioward vfs`: of one PF, or of all.
///
/// # Errors
/// When the daemon does not answer, or there is no such PF.
pub async fn vfs(client: &Client, pf: Option<&PfRef>, json: bool) -> Result<(), CliError> {
    let inventory: Inventory = client.get("/v1/host").await?;
    let pf = pf.map(|named| named.find(&inventory)).transpose()?.map(|pf| pf.address);
    let pfs = inventory.physical_functions.iter().filter(|found| pf.is_none_or(|pf| pf == found.address));
    let functions = pfs.flat_map(|pf| pf.virtual_functions.iter().map(move |vf| (pf, vf)));
    if json {
        let whose = |pf, vf| present::inventory::whose(pf, vf).to_string();
        let functions: Vec<_> =
            functions.map(|(pf, vf)| VfOfPf { pf: pf.address, whose: whose(pf, vf), vf }).collect();
        return terminal::print_json(&functions);
    }
    terminal::print(&present::inventory::vfs(functions, terminal::page_width()))
}

/// `ioward partitions`.
///
/// # Errors
/// When the daemon does not answer.
pub async fn partitions(client: &Client, json: bool) -> Result<(), CliError> {
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    if json {
        return terminal::print_json(&partitions);
    }
    terminal::print(&present::partitions::partitions(&partitions, terminal::page_width()))
}

/// `ioward partitions NAME`: all of one.
///
/// # Errors
/// When the daemon does not answer, or there is no such partition.
pub async fn partition(client: &Client, name: &Name, json: bool) -> Result<(), CliError> {
    let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
    let found = partitions.iter().find(|partition| partition.name == *name);
    let found = found.ok_or_else(|| CliError::no_such_partition(name))?;
    if json {
        return terminal::print_json(found);
    }
    let spec: Spec = client.get("/v1/spec").await?;
    let spec = spec.partitions.iter().find(|partition| partition.name == *name);
    terminal::print(&present::partitions::partition(found, spec, terminal::page_width()))
}

/// `ioward spec`: the Spec of what is held.
///
/// # Errors
/// When the daemon does not answer.
pub async fn spec(client: &Client, json: bool) -> Result<(), CliError> {
    let spec: Spec = client.get("/v1/spec").await?;
    if json {
        return terminal::print_json(&spec);
    }
    let text = spec.to_toml().map_err(|error| CliError::Usage(error.to_string()))?;
    terminal::print(&text)
}

/// `ioward drift`: how the host differs from what the daemon holds.
///
/// # Errors
/// When the daemon does not answer, or is just changing something.
pub async fn drift(client: &Client, json: bool) -> Result<(), CliError> {
    let drifts: Vec<Drift> = client.get("/v1/drift").await?;
    if json {
        return terminal::print_json(&drifts);
    }
    terminal::print(&present::drift::drift(&drifts))
}

/// `ioward orphans`: what there is, or with `reap` what became of them.
///
/// # Errors
/// When the daemon does not answer; when one of them could not be reaped.
pub async fn orphans(client: &Client, reap: bool, json: bool) -> Result<(), CliError> {
    if !reap {
        let orphans: Vec<Orphan> = client.get("/v1/orphans").await?;
        if json {
            return terminal::print_json(&orphans);
        }
        return terminal::print(&present::drift::orphans(&orphans));
    }
    let reaped: Vec<Reaped> = client.post("/v1/orphans/reap", &()).await?;
    if json {
        terminal::print_json(&reaped)?;
    } else {
        terminal::print(&present::drift::reaped(&reaped))?;
    }
    match reaped.iter().filter(|reaped| reaped.error.is_some()).count() {
        0 => Ok(()),
        left => Err(CliError::Unreaped { left, of: reaped.len() }),
    }
}

/// `ioward audit`: who asked for what.
///
/// # Errors
/// When the daemon does not answer.
pub async fn audit(client: &Client, json: bool) -> Result<(), CliError> {
    let lines = client.get_lines("/v1/audit").await?;
    each::<AuditLine>(lines, json, present::events::audit).await
}

/// `ioward state export`: from the daemon, or from the folder of one that does not run.
///
/// # Errors
/// When the daemon does not answer; when it works on the folder, or what is in that can't be used.
pub async fn state(client: &Client, folder: Option<&Path>) -> Result<(), CliError> {
    let export: Export = match folder {
        None => client.get("/v1/state").await.map_err(|error| match error {
            CliError::Client(error @ ClientError::Unreachable { .. }) => {
                CliError::State(format!("{error}; or read its folder with --state-dir"))
            }
            error => error,
        })?,
        Some(folder) => ioward_store::export(folder).map_err(|error| {
            CliError::State(match error {
                StoreError::Locked { path } => {
                    format!("a daemon works on {}; ask it: leave --state-dir out", path.display())
                }
                error => with_causes(&error),
            })
        })?,
    };
    terminal::print_json(&export)
}

async fn each<T: serde::de::DeserializeOwned>(
    mut lines: Lines,
    json: bool,
    present: fn(&T) -> String,
) -> Result<(), CliError> {
    while let Some((text, value)) = lines.next::<T>().await? {
        if json { terminal::print_json_text(&(text + "\n"))? } else { terminal::print(&present(&value))? }
    }
    Ok(())
}
