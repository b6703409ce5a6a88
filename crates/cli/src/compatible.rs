//! `ioward compatible`: which functions suit a partition of a Spec, and why the others do not.

use std::path::Path;

use ioward_api::{Compatible, CompatibleRequest};
use ioward_model::{Name, Spec};

use crate::{client::Client, error::CliError, present, recorded, terminal};

/// Asks the daemon, or looks at a recorded host, and shows what is found. A request that nothing suits is a refusal,
/// once all is shown.
///
/// # Errors
/// When the daemon does not answer or there is no such recording, the Spec has no such partition, or nothing suits one of its requests.
pub async fn compatible(
    client: &Client,
    recorded: Option<&Path>,
    partition: Name,
    spec: Spec,
    json: bool,
) -> Result<(), CliError> {
    let request = CompatibleRequest { spec, partition };
    let requests: Vec<Compatible> = match recorded {
        None => client.post("/v1/compatible", &request).await?,
        Some(host) => recorded::compatible(host, &request)?,
    };
    if json {
        terminal::print_json(&requests)?;
    } else if requests.is_empty() {
        terminal::print(&format!("{} asks for no VF\n", request.partition))?;
    } else {
        terminal::print(&present::compatible::compatible(&requests, terminal::page_width()))?;
    }
    let unmet: Vec<_> = requests.iter().filter(|request| !request.is_possible()).collect();
    if unmet.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = unmet.iter().map(|request| request.request.to_string()).collect();
    Err(CliError::NothingSuits(names.join(", ")))
}
