//! Recorded hosts: `ioward snapshot`, and the commands that look at a snapshot instead of asking a daemon (`--host`).

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

use ioward_api::{ApiError, Compatible, CompatibleRequest};
use ioward_fabric::linux::{LinuxFabric, MAX_SNAPSHOT_BYTES, Snapshot, named_as_here};
use ioward_model::{Intent, Inventory, Options, State};

use crate::{
    change::Show,
    error::{CliError, with_causes},
    present, terminal,
};

/// `ioward snapshot`: records this host, or a copied tree.
///
/// # Errors
/// When it can't be looked at, or the file can't be written.
pub async fn snapshot(file: &Path, root: Option<&Path>, unmasked: bool) -> Result<(), CliError> {
    let snapshot = match root {
        None => LinuxFabric::new().record().await,
        Some(root) => Snapshot::of_tree(root),
    };
    let snapshot = snapshot.map_err(|error| CliError::Record(with_causes(&error)))?;
    let snapshot = if unmasked { snapshot } else { snapshot.masked() };
    let json = snapshot.to_json().map_err(|error| CliError::Record(with_causes(&error)))?;
    if file == Path::new("-") {
        return io::stdout().write_all(&json).map_err(CliError::Output);
    }
    std::fs::write(file, json)
        .map_err(|source| CliError::SnapshotUnwritten { file: file.display().to_string(), source })
}

/// The host in a snapshot. It was looked at once: that is its first generation.
///
/// # Errors
/// When the file can't be read, or is no snapshot.
pub fn inventory(file: &Path) -> Result<Inventory, CliError> {
    let name = file.display().to_string();
    let bytes =
        if file == Path::new("-") { bounded(io::stdin().lock()) } else { File::open(file).and_then(bounded) };
    let bytes = bytes.map_err(|source| CliError::SnapshotUnread { file: name.clone(), source })?;
    let inventory = Snapshot::parse(&bytes).and_then(Snapshot::identify);
    let inventory =
        inventory.map_err(|error| CliError::Snapshot { file: name, error: with_causes(&error) })?;
    Ok(named_as_here(Inventory { generation: 1, ..inventory }))
}

/// `ioward compatible --host`: on a recorded host, as if no partition held anything there.
///
/// # Errors
/// When there is no such recording, or no such partition in the Spec.
pub fn compatible(file: &Path, request: &CompatibleRequest) -> Result<Vec<Compatible>, CliError> {
    let inventory = inventory(file)?;
    let found = ioward_imp::compatible(&inventory, &State::default(), &request.spec, &request.partition);
    found.map_err(|error| ApiError::from(error).into())
}

/// `ioward plan --host`: what a Spec would change on a recorded host that ioward has changed nothing of. Whether anything would.
///
/// # Errors
/// When there is no such plan.
pub fn plan(file: &Path, intent: Intent, options: Options, show: Show) -> Result<bool, CliError> {
    let inventory = inventory(file)?;
    let plan = ioward_imp::plan_for(&inventory, &State::default(), &intent, &options).map_err(|error| {
        let message = format!("this cannot be done on the host recorded in {}", file.display());
        let error = ApiError::from(error);
        if error.reasons.is_empty() { error } else { ApiError { message, ..error } }
    })?;
    let width = terminal::page_width();
    let made_from = format!(
        "made from a recording, {}, as if no partition held anything there; it can't be applied from here",
        file.display()
    );
    let made_from = present::text::wrap(&made_from, width, "", "");
    match show {
        Show::Json => {
            // stdout is for the plan alone.
            let _ = io::stderr().write_all(present::text::printable(&made_from).as_bytes());
            terminal::print_json(&plan)?;
        }
        Show::Text(detail) => {
            terminal::print(&(made_from + "\n" + &present::plan::plan(&plan, detail, width)))?;
        }
    }
    Ok(!plan.steps.is_empty())
}

/// At most one byte more than a snapshot may have: enough to see that there is more.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_SNAPSHOT_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
