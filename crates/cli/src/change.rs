//! The commands that change something. All go one way: an intent becomes a plan, the person agrees, the plan is carried out.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::Path,
    time::{Duration, Instant},
};

use ioward_api::{ChangeId, ChangeRequest, ChangeView, PartitionView, PlanRequest};
use ioward_model::{Event, EventKind, Intent, Inventory, Options, Plan, Step, risk};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    ask,
    change_args::How,
    client::{Client, ClientError, Lines},
    error::CliError,
    pf_ref::PfRef,
    plan_file,
    present::{
        self,
        plan::Detail,
        progress::{Progress, Style},
        text,
    },
    terminal,
};

/// How often a plan is made anew when the host or the state moves on before it is carried out.
const TRIES: u32 = 3;
/// Between two tries while another change is carried out.
const AGAIN: Duration = Duration::from_millis(300);

/// How a plan is shown.
#[derive(Clone, Copy, Debug)]
pub enum Show {
    /// As text, with so much of it.
    Text(Detail),
    /// As JSON.
    Json,
}

/// Which plans a person is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// All: what a Spec changes is not to be seen from the command line.
    Always,
    /// Those that take something from somebody who runs: what else the command does, it says.
    IfItDisturbs,
    /// All, and where nobody can be asked none is carried out without `--yes`.
    Surely,
}

/// `ioward plan`: shows what would change, and writes it to a file for [`apply_plan`] where one is named. Whether anything would.
///
/// # Errors
/// When the daemon does not answer or refuses, or the file can't be written.
pub async fn plan(
    client: &Client,
    intent: Intent,
    options: Options,
    file: Option<&Path>,
    show: Show,
    what_if: Option<&PfRef>,
) -> Result<bool, CliError> {
    let fails = match what_if {
        None => None,
        Some(named) => {
            let inventory: Inventory = client.get("/v1/host").await?;
            let pf = named.find(&inventory)?.address;
            Some((inventory, pf))
        }
    };
    let plan = ask_for_plan(client, intent, options).await?;
    if let Some(file) = file {
        plan_file::write(file, &plan)?;
        if plan_file::is_stdout(file) {
            return Ok(!plan.steps.is_empty());
        }
    }
    match show {
        Show::Json => terminal::print_json(&plan)?,
        Show::Text(detail) => {
            terminal::print_signs(&present::plan::plan(&plan, detail, terminal::page_width()))?;
        }
    }
    if let Some((inventory, pf)) = fails {
        let held = risk::holdings_after(risk::holdings(&inventory), &plan);
        let risks = risk::risks_of(&inventory, &held, pf);
        terminal::print(&format!("\n{}", present::risks::each(&risks, terminal::page_width())))?;
    }
    Ok(!plan.steps.is_empty())
}

/// Plans, shows, asks and carries out. A plan that was overtaken, as by a guest that turns itself off, is made anew; whoever has
/// agreed to one is asked again only when the new one does something else.
///
/// # Errors
/// When the daemon does not answer or refuses, the person does not want it, or a step fails.
pub async fn change(
    client: &Client,
    intent: Intent,
    options: Options,
    asks: Asks,
    how: How,
) -> Result<(), CliError> {
    carried(client, intent, options, asks, how).await.map(drop)
}

/// The same; the plan that was carried out, or that there was to show.
///
/// # Errors
/// As [`change`].
pub async fn carried(
    client: &Client,
    intent: Intent,
    options: Options,
    asks: Asks,
    how: How,
) -> Result<Plan, CliError> {
    let (mut tries, mut waiting) = (TRIES, Waiting::new(how));
    let mut agreed_to: Option<Plan> = None;
    loop {
        let plan = match ask_for_plan(client, intent.clone(), options).await {
            Err(error) if error.is_busy() && waiting.go_on().await? => continue,
            plan => plan?,
        };
        if how.dry_run {
            show_only(&plan, how)?;
            return Ok(plan);
        }
        if plan.steps.is_empty() {
            show(&plan, how.json)?;
            return Ok(plan);
        }
        let is_agreed = agreed_to
            .as_ref()
            .is_some_and(|seen| (&seen.steps, &seen.disturbs) == (&plan.steps, &plan.disturbs));
        if !is_agreed {
            agree(client, &plan, asks, how).await?;
        }
        match carry_out(client, plan.clone(), how.json).await {
            Err(error) if error.is_busy() && waiting.go_on().await? => {}
            Err(error) if error.is_of_an_old_plan() && tries > 1 => tries -= 1,
            ended => return ended.map(|()| plan),
        }
        agreed_to = Some(plan);
    }
}

/// `ioward apply PLAN`: shows the plan, asks, carries it out. The daemon refuses it when anything has changed since it
/// was made; that goes for a plan without steps too.
///
/// # Errors
/// When the daemon does not answer or refuses, the person does not want it, or a step fails.
pub async fn apply_plan(client: &Client, plan: Plan, how: How) -> Result<(), CliError> {
    if how.dry_run {
        return show_only(&plan, how);
    }
    agree(client, &plan, Asks::Always, how).await?;
    let mut waiting = Waiting::new(how);
    loop {
        match carry_out(client, plan.clone(), how.json).await {
            Err(error) if error.is_busy() && waiting.go_on().await? => {}
            ended => return ended,
        }
    }
}

/// Has a person agree to a plan. Where nobody can be asked, one that disturbs somebody needs `--yes`.
async fn agree(client: &Client, plan: &Plan, asks: Asks, how: How) -> Result<(), CliError> {
    if how.yes {
        // Whoever says yes beforehand has seen it, or does not want to; the steps are named as they are done. Whom it
        // disturbs stands nowhere else.
        return aside(&present::plan::disturbed(plan, terminal::page_width()), how.json);
    }
    let disturbed = disturbed(client, plan).await?;
    if asks == Asks::IfItDisturbs && disturbed.is_empty() {
        return Ok(());
    }
    show(plan, how.json)?;
    match ask::agreed("Apply?", how.stdin_is_read).await? {
        Some(true) => Ok(()),
        Some(false) => Err(CliError::Declined),
        None if asks == Asks::Surely => Err(CliError::Unanswered),
        None if disturbed.is_empty() => Ok(()),
        None => Err(CliError::Unasked(disturbed.into_iter().collect::<Vec<_>>().join(", "))),
    }
}

/// Who runs and loses something, or is stopped.
async fn disturbed(client: &Client, plan: &Plan) -> Result<BTreeSet<String>, CliError> {
    let mut who: BTreeSet<String> = plan.disturbs.iter().map(|disturbance| disturbance.who.clone()).collect();
    let mut losers = BTreeSet::new();
    for step in &plan.steps {
        match step {
            Step::StopPartition { partition, .. } => _ = who.insert(partition.to_string()),
            Step::DetachVf { owner, .. } => _ = losers.insert(owner.partition.clone()),
            _ => {}
        }
    }
    losers.retain(|partition| !who.contains(partition.as_str()));
    if !losers.is_empty() {
        let partitions: Vec<PartitionView> = client.get("/v1/partitions").await?;
        let running = partitions.iter().filter(|partition| partition.running);
        who.extend(
            running
                .map(|running| &running.name)
                .filter(|name| losers.contains(name))
                .map(ToString::to_string),
        );
    }
    Ok(who)
}

/// Waiting for a change that another client has begun.
struct Waiting {
    seconds: u64,
    until: Option<Instant>,
    is_told: bool,
}

impl Waiting {
    fn new(how: How) -> Self {
        let seconds = how.wait.unwrap_or_default();
        let until = Instant::now().checked_add(Duration::from_secs(seconds)).filter(|_| seconds > 0);
        Self { seconds, until, is_told: false }
    }

    /// Whether to try again; says once that it waits.
    async fn go_on(&mut self) -> Result<bool, CliError> {
        let Some(left) = self.until.and_then(|until| until.checked_duration_since(Instant::now())) else {
            return Ok(false);
        };
        if !self.is_told {
            self.is_told = true;
            let line =
                format!("another change is being carried out; waiting up to {} s for it\n", self.seconds);
            let _ = io::stderr().write_all(line.as_bytes());
        }
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
        tokio::select! {
            () = tokio::time::sleep(AGAIN.min(left)) => Ok(true),
            _ = interrupt.recv() => Err(CliError::InterruptedBefore),
        }
    }
}

/// Shows a plan before it is carried out.
fn show(plan: &Plan, json: bool) -> Result<(), CliError> {
    aside(&present::plan::plan(plan, Detail::default(), terminal::page_width()), json)
}

/// `--dry-run`: the plan is all that there is to say.
fn show_only(plan: &Plan, how: How) -> Result<(), CliError> {
    if how.json { terminal::print_json(plan) } else { show(plan, false) }
}

/// Shows what is no event; with `json`, stdout is for events alone.
fn aside(shown: &str, json: bool) -> Result<(), CliError> {
    if json {
        let _ = io::stderr().write_all(text::printable(shown).as_bytes());
        return Ok(());
    }
    terminal::print_signs(shown)
}

async fn ask_for_plan(client: &Client, intent: Intent, options: Options) -> Result<Plan, CliError> {
    client.post("/v1/plan", &PlanRequest { intent, options }).await
}

/// Has a plan carried out and shows how it goes. The change outlives this command: Ctrl-C asks the daemon to cancel it, and its
/// rollback is shown; a second Ctrl-C leaves it to the daemon.
async fn carry_out(client: &Client, plan: Plan, json: bool) -> Result<(), CliError> {
    // Taken before the request, so that there is no moment at which Ctrl-C would end this without a word.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(CliError::Start)?;
    let style = terminal::width(io::stdout()).map_or(Style::Lines, Style::InPlace);
    let mut progress = Progress::new(style, plan.steps.len());
    // Where each step has a line of its own, these say it.
    let results = if style == Style::Lines { String::new() } else { present::plan::results(&plan) };
    let mut show = |event: &Event, line: &str| {
        let shown = match &event.kind {
            _ if json => format!("{line}\n"),
            done @ EventKind::PlanDone { .. } => {
                progress.broken_off() + &text::printable(&results) + &progress.event(done)
            }
            other => progress.event(other),
        };
        // A reader who has gone away (`| head`) is no reason to stop half-way.
        let _ = terminal::print_raw(&shown);
    };
    let change: ChangeView = client.post("/v1/changes", &ChangeRequest { plan, wait_seconds: 0 }).await?;
    let ended = watch(client, change.id, &mut interrupt, &mut show).await;
    if ended.is_err() {
        let _ = terminal::print_raw(&progress.broken_off());
    }
    ended
}

/// Follows a change to its end. Ctrl-C cancels it.
async fn watch(
    client: &Client,
    change: ChangeId,
    interrupt: &mut Signal,
    show: &mut impl FnMut(&Event, &str),
) -> Result<(), CliError> {
    let followed = async {
        let lines = client.get_lines(&format!("/v1/changes/{change}/events")).await?;
        follow(lines, show).await
    };
    let mut followed = std::pin::pin!(followed);
    tokio::select! {
        ended = &mut followed => return ended,
        _ = interrupt.recv() => {}
    }
    let _ = io::stderr().write_all(b"\ninterrupted: rolling back; Ctrl-C again leaves that to the daemon\n");
    let _: ChangeView = client.delete(&format!("/v1/changes/{change}")).await?;
    tokio::select! {
        ended = followed => match ended {
            Err(CliError::PlanFailed { undone, .. }) => Err(CliError::Interrupted { undone }),
            // It was done before it could be cancelled.
            ended => ended,
        },
        _ = interrupt.recv() => Err(CliError::Left(change)),
    }
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
