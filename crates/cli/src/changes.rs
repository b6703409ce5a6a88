//! `ioward changes` and `ioward cancel`: the plans that were begun, watched and cancelled from any connection.

use ioward_api::{ChangeId, ChangeView};
use ioward_model::Event;

use crate::{client::Client, error::CliError, present, terminal};

/// All changes of this run of the daemon.
///
/// # Errors
/// When the daemon does not answer.
pub async fn list(client: &Client, json: bool) -> Result<(), CliError> {
    let changes: Vec<ChangeView> = client.get("/v1/changes").await?;
    if json {
        return terminal::print_json(&changes);
    }
    terminal::print(&present::changes::changes(&changes, terminal::page_width()))
}

/// One change.
///
/// # Errors
/// When the daemon does not answer or has no such change.
pub async fn one(client: &Client, id: ChangeId, json: bool) -> Result<(), CliError> {
    show(&client.get(&route(id)).await?, json)
}

/// The events of a change, up to its end.
///
/// # Errors
/// As [`one`].
pub async fn follow(client: &Client, id: ChangeId, json: bool) -> Result<(), CliError> {
    let mut lines = client.get_lines(&format!("{}/events", route(id))).await?;
    while let Some((text, event)) = lines.next::<Event>().await? {
        if json {
            terminal::print_raw(&(text + "\n"))?;
        } else {
            terminal::print(&present::events::event(&event))?;
        }
    }
    Ok(())
}

/// Cancels a change; its rollback is not waited for.
///
/// # Errors
/// As [`one`].
pub async fn cancel(client: &Client, id: ChangeId, json: bool) -> Result<(), CliError> {
    show(&client.delete(&route(id)).await?, json)
}

fn show(change: &ChangeView, json: bool) -> Result<(), CliError> {
    if json {
        return terminal::print_json(change);
    }
    terminal::print(&present::changes::changes(std::slice::from_ref(change), terminal::page_width()))
}

fn route(id: ChangeId) -> String {
    format!("/v1/changes/{id}")
}
