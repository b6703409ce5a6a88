//! The commands that change something. All go one way: an intent becomes a plan, the plan is carried out.

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::Path,
};

use ioward_api::{ApplyRequest, PlanRequest};
use ioward_model::{Event, EventKind, Intent, Options, Plan};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    client::{Client, ClientError, Lines},
    error::CliError,
    plan_file,
    present::{
        self,
        plan::Detail,
        progress::{Progress, Style},
        text,
    },
    terminal,
};

/// How a plan is shown.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// As text, with so much of it.
    Text(Detail),
    /// As JSON.
    Json,
}

/// `ioward plan`: shows what would change, and writes it to a file for [`apply_plan`] where one is named.
///
/// # Errors
/// When the daemon does not answer or refuses, or the file can't be written.
pub async fn plan(
    client: &Client,
    intent: Intent,
    options: Options,
    file: Option<&Path>,
    show: Show,
) -> Result<(), CliError> {
    let plan = ask_for_plan(client, intent, options).await?;
    if let Some(file) = file {
        plan_file::write(file, &plan)?;
    }
    match show {
        Show::Json => terminal::print_json(&plan),
        Show::Text(detail) => terminal::print(&present::plan::plan(&plan, detail, terminal::page_width())),
    }
}

/// `ioward apply`: shows the plan, asks, carries it out.
///
/// # Errors
/// When the daemon does not answer or refuses, the person does not want it, or a step fails.
pub async fn apply(
    client: &Client,
    intent: Intent,
    options: Options,
    yes: bool,
    json: bool,
) -> Result<(), CliError> {
    let plan = ask_for_plan(client, intent, options).await?;
    if plan.steps.is_empty() {
        return show(&plan, json);
    }
    apply_plan(client, plan, yes, json).await
}

/// `ioward apply PLAN`: shows the plan, asks, carries it out. The daemon refuses it when anything has changed since it
/// was made; that goes for a plan without steps too.
///
/// # Errors
/// When the daemon does not answer or refuses, the person does not want it, or a step fails.
pub async fn apply_plan(client: &Client, plan: Plan, yes: bool, json: bool) -> Result<(), CliError> {
    if yes {
        // Whoever says yes beforehand has seen it, or does not want to; the steps are named as they are done. Whom it
        // disturbs stands nowhere else.
        aside(&present::plan::disturbed(&plan, terminal::page_width()), json)?;
    } else {
        show(&plan, json)?;
        if io::stdin().is_terminal() && !confirmed() {
            return Err(CliError::Declined);
        }
    }
    carry_out(client, plan, json).await
}

/// Shows a plan before it is carried out.
fn show(plan: &Plan, json: bool) -> Result<(), CliError> {
    aside(&present::plan::plan(plan, Detail::default(), terminal::page_width()), json)
}

/// Shows what is no event; with `json`, stdout is for events alone.
fn aside(shown: &str, json: bool) -> Result<(), CliError> {
    if json {
        let _ = io::stderr().write_all(text::printable(shown).as_bytes());
        return Ok(());
    }
    terminal::print(shown)
}

/// Plans and carries out at once: what the intent says is all there is to see.
///
/// # Errors
/// When the daemon does not answer or refuses, or a step fails.
pub async fn at_once(client: &Client, intent: Intent, options: Options) -> Result<(), CliError> {
    let mut tries = 3;
    loop {
        let plan = ask_for_plan(client, intent.clone(), options).await?;
        if plan.steps.is_empty() {
            return show(&plan, false);
        }
        match apply_plan(client, plan, true, false).await {
            // Nobody has looked at that plan: one that was overtaken, as by a guest that turns itself off, is made anew.
            Err(error) if error.is_of_an_old_plan() && tries > 1 => tries -= 1,
            ended => return ended,
        }
    }
}

async fn ask_for_plan(client: &Client, intent: Intent, options: Options) -> Result<Plan, CliError> {
    client.post("/v1/plan", &PlanRequest { intent, options }).await
}

/// Anything but a clear yes is a no; so is the end of input.
fn confirmed() -> bool {
    let _ = io::stderr().write_all(b"\nApply? [y/N] ");
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

/// Has a plan carried out and shows how it goes. Ctrl-C closes the connection, which has the daemon undo it; the
/// undoing is not waited for.
async fn carry_out(client: &Client, plan: Plan, json: bool) -> Result<(), CliError> {
    // Taken before the request, so that there is no moment at which Ctrl-C would end this without a word.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
    let style = terminal::width(io::stdout()).map_or(Style::Lines, Style::InPlace);
    let mut progress = Progress::new(style, plan.steps.len());
    let mut show = |event: &Event, line: &str| {
        let shown = if json { format!("{line}\n") } else { progress.event(&event.kind) };
        // A reader who has gone away (`| head`) is no reason to stop half-way.
        let _ = terminal::print_raw(&shown);
    };
    let carried_out = async {
        let lines = client.post_lines("/v1/apply", &ApplyRequest { plan }).await?;
        follow(lines, &mut show).await
    };
    let ended = tokio::select! {
        ended = carried_out => ended,
        _ = interrupt.recv() => Err(CliError::Interrupted),
    };
    if ended.is_err() {
        let _ = terminal::print_raw(&progress.broken_off());
    }
    ended
}

/// Reads events until the plan is done or has failed.
async fn follow(mut lines: Lines, show: &mut impl FnMut(&Event, &str)) -> Result<(), CliError> {
    loop {
        let (line, event) = match lines.next::<Event>().await {
            Ok(Some(next)) => next,
            Ok(None) | Err(ClientError::BrokenOff { .. }) => return Err(ClientError::Unfinished.into()),
            Err(error) => return Err(error.into()),
        };
        show(&event, &line);
        match event.kind {
            EventKind::PlanDone { .. } => return Ok(()),
            EventKind::PlanFailed { plan, error, undone } => {
                return Err(CliError::PlanFailed { plan, error, undone });
            }
            _ => {}
        }
    }
}
