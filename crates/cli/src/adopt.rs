//! `ioward adopt`: a domain that has VFs already becomes a partition as it is, and its Spec is written.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::{AdapterSpec, DomainRef, Intent, Name, Options, Plan, Spec, Step, VfCount};

use crate::{
    change::{self, Asks},
    change_args::How,
    client::Client,
    error::CliError,
    plan_file, terminal,
};

/// Shows what is taken over, asks, has it done, and gives the Spec of what there is then.
///
/// # Errors
/// When the daemon does not answer or refuses, the person does not want it, a step fails, or the Spec can't be written.
pub async fn adopt(
    client: &Client,
    domain: DomainRef,
    partition: Option<Name>,
    output: Option<PathBuf>,
    how: How,
) -> Result<(), CliError> {
    let intent = Intent::Adopt { domain, partition, found: None };
    let plan = change::carried(client, intent, Options::default(), Asks::Surely, how).await?;
    if how.dry_run {
        return Ok(());
    }
    let text = spec_of(&plan).to_toml().map_err(|error| CliError::Usage(error.to_string()))?;
    if let Some(file) = output.as_deref().filter(|file| !plan_file::is_stdout(file)) {
        write(file, &text)?;
    }
    // With --json, stdout is for events alone.
    if how.json { Ok(()) } else { terminal::print(&format!("\n{text}")) }
}

fn write(file: &Path, text: &str) -> Result<(), CliError> {
    fs::write(file, text)
        .map_err(|source: io::Error| CliError::SpecUnwritten { file: file.display().to_string(), source })
}

/// What the plan has made: applying it changes nothing.
fn spec_of(plan: &Plan) -> Spec {
    let mut spec = Spec { version: 1, ..Spec::default() };
    for step in &plan.steps {
        match step {
            Step::DefinePartition { to, .. } => spec.partitions.push(to.clone()),
            Step::HoldAdapter { pf, to, .. } => {
                let vfs = to.wanted.filter(|count| matches!(count, VfCount::Exactly(_)));
                spec.adapters.push(AdapterSpec { pf: *pf, vfs, spare: None });
            }
            _ => {}
        }
    }
    spec
}
