//! Adapters that are taken out of service (`ioward evacuate`), and return to it (`ioward return`).

use ioward_model::{Intent, Options};

use crate::{
    change::{self, Asks},
    change_args::How,
    client::Client,
    error::CliError,
    pf_ref::{self, PfRef},
    terminal,
};

/// What a return does not do. It goes to whoever reads the plan or the progress, and not to programs.
const NOTHING_MOVES: &str =
    "nothing moves back by itself; a Spec that pins VFs to it, applied again, moves these\n";

/// Takes an adapter out of service, or empties the host.
///
/// # Errors
/// As [`change::change`]; or nothing has that name.
pub async fn evacuate(
    client: &Client,
    pf: Option<&PfRef>,
    leave_out: bool,
    options: Options,
    how: How,
) -> Result<(), CliError> {
    let intent = match pf {
        Some(pf) => Intent::Evacuate { pf: pf_ref::address_of(client, pf).await?, leave_out },
        None => Intent::EvacuateHost,
    };
    change::change(client, intent, options, Asks::IfItDisturbs, how).await
}

/// Has an adapter in service again.
///
/// # Errors
/// As [`change::change`]; or nothing has that name.
pub async fn bring_back(client: &Client, pf: &PfRef, options: Options, how: How) -> Result<(), CliError> {
    let pf = pf_ref::address_of(client, pf).await?;
    let plan = change::carried(client, Intent::Return { pf }, options, Asks::IfItDisturbs, how).await?;
    if how.json || how.dry_run || plan.steps.is_empty() {
        return Ok(());
    }
    terminal::print(NOTHING_MOVES)
}
