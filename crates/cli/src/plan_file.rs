//! Plans as files: one that was looked at is the one that is carried out, or none is.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};

use ioward_model::Plan;

use crate::{
    error::{CliError, plain},
    terminal,
};

/// The largest plan that is read, in bytes: what the daemon takes.
const MAX_PLAN_BYTES: usize = 16 << 20;

/// Whether a plan that is written to this file goes to stdout.
#[must_use]
pub fn is_stdout(file: &Path) -> bool {
    file == Path::new("-")
}

/// Writes a plan to a file, or with `-` to stdout, as JSON.
///
/// # Errors
/// When it can't be written.
pub fn write(file: &Path, plan: &Plan) -> Result<(), CliError> {
    if is_stdout(file) {
        return terminal::print_json(plan);
    }
    let written = serde_json::to_string_pretty(plan)
        .map_err(io::Error::from)
        .and_then(|json| fs::write(file, json + "\n"));
    written.map_err(|source| CliError::PlanUnwritten { file: file.display().to_string(), source })
}

/// Reads a plan from a file, or with `-` from stdin.
///
/// # Errors
/// When it can't be read, or is no plan: says what is wrong with it.
pub fn read(file: &Path) -> Result<Plan, CliError> {
    let (name, bytes) = if file == Path::new("-") {
        ("stdin".to_owned(), bounded(io::stdin().lock()))
    } else {
        (file.display().to_string(), File::open(file).and_then(bounded))
    };
    let no_plan = |why: String| CliError::NoPlan { file: name.clone(), why };
    let bytes = bytes.map_err(|error| no_plan(plain(&error)))?;
    if bytes.len() > MAX_PLAN_BYTES {
        return Err(no_plan(format!("a plan has at most {MAX_PLAN_BYTES} bytes; this has more")));
    }
    serde_json::from_slice(&bytes).map_err(|error| no_plan(error.to_string()))
}

/// At most one byte more than a plan may have: enough to see that there is more.
fn bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(MAX_PLAN_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
