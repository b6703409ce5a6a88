//! `ioward migrate`: moves a machine that runs to another host. This command carries what the two daemons say to each other, and the
//! state of the machine; whose it is, they decide (docs/migration.md). A command that has ended too early is begun again.
//!
//! ```text
//!   this host's daemon <── HTTP ── ioward migrate ── HTTP ──> the other host's daemon
//!     1. would it have VFs there?
//!     2. its VFs are taken out; it goes on by its standbys
//!     3. its state goes over, and it belongs to the other host from one moment on
//!     4. it gets VFs there; or back here, where it stayed
//! ```

use std::{collections::BTreeMap, fs::File, io::Read, time::Duration};

use ioward_api::{
    BeginMove, FromSource, FromTarget, KindView, Leaving, Offer, PartitionView, PlanRequest, Settled,
};
use ioward_model::{
    Intent, Name, Options, PartitionSpec, Plan, Spec, VfRequest,
    handover::{Move, MoveId, MoveSide, MovedPartition, ToSource, ToTarget},
};
use serde::Serialize;

use crate::{
    change::{self, Asks},
    change_args::How,
    client::Client,
    daemon::Daemon,
    error::{CliError, with_causes},
    signals::Signals,
    terminal,
};

/// Between two questions to both daemons.
const ASK_EACH: Duration = Duration::from_millis(100);
/// So long may one of them not answer while nothing is decided.
const PATIENCE: u32 = 100;

/// What became of a move, as JSON.
#[derive(Serialize)]
struct Ended<'a> {
    id: MoveId,
    partition: &'a Name,
    moved: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    why_kept: Option<String>,
    /// Whether Ctrl-C has cancelled it.
    #[serde(skip)]
    interrupted: bool,
}

/// Moves a partition to the host of the daemon that is there.
///
/// # Errors
/// When it can't be moved, or stays here for another reason; or a daemon can't be reached.
pub async fn migrate(
    source: &Client,
    partition: &Name,
    target: &Daemon,
    options: Options,
    how: How,
) -> Result<(), CliError> {
    let target = Client::of(target.clone());
    if let Some((id, given)) = begun_before(source, partition).await? {
        let vfs = given.wanted.clone();
        let ended = carry(source, &target, partition, id, offer(given), how.json).await?;
        let attached = match ended.moved {
            true => attach(&target, partition, vfs, options, how).await,
            false => Ok(()),
        };
        tell(ended, how.json)?;
        return attached;
    }
    let spec: Spec = source.get("/v1/spec").await?;
    let wanted = spec.partitions.iter().find(|one| one.name == *partition).cloned();
    let wanted = wanted.ok_or_else(|| {
        CliError::Usage(format!(
            "there is no partition {partition}; 'ioward partitions' lists those there are"
        ))
    })?;
    let vfs = unpinned(&wanted);
    would_have_them(&target, &wanted, &vfs, options).await?;
    if how.dry_run {
        let intent = Intent::Depart { partition: partition.clone() };
        return change::change(source, intent, options, Asks::Surely, how).await;
    }
    let intent = Intent::Depart { partition: partition.clone() };
    change::change(source, intent, options, Asks::Surely, how).await?;
    let ended = move_it(source, &target, partition, vfs.clone(), how.json).await;
    let (host, requests) = match &ended {
        Ok(ended) if ended.moved => (&target, vfs),
        _ => (source, wanted.vfs),
    };
    let attached = attach(host, partition, requests, options, how).await;
    // Where it runs comes first: that is so, whatever became of its VFs.
    tell(ended?, how.json)?;
    attached
}

/// Has a machine get its VFs: whoever has asked for the move has asked for that.
async fn attach(
    host: &Client,
    partition: &Name,
    vfs: Vec<VfRequest>,
    options: Options,
    how: How,
) -> Result<(), CliError> {
    if vfs.is_empty() {
        return Ok(());
    }
    let intent = Intent::Attach { partition: partition.clone(), vfs };
    change::change(host, intent, options, Asks::IfItDisturbs, How { yes: true, ..how }).await
}

/// Says what became of it.
fn tell(ended: Ended, json: bool) -> Result<(), CliError> {
    if json {
        // A line, as the events before it.
        terminal::print(&format!("{}\n", serde_json::json!(ended)))?;
    }
    let partition = ended.partition;
    match ended.why_kept {
        Some(why) if !ended.moved => {
            Err(CliError::Stays { partition: partition.clone(), why, interrupted: ended.interrupted })
        }
        _ if json => Ok(()),
        _ => terminal::print(&format!("{partition} runs on the other host\n")),
    }
}

/// A move that is decided, and whose other side may not have heard of that: whoever carried has ended.
async fn begun_before(
    source: &Client,
    partition: &Name,
) -> Result<Option<(MoveId, MovedPartition)>, CliError> {
    let mut moves: BTreeMap<Name, Move> = source.get("/v1/moves").await?;
    Ok(moves.remove(partition).and_then(|moving| match moving.side {
        MoveSide::Leaving { given: Some(given), .. } => Some((moving.id, *given)),
        MoveSide::Leaving { .. } | MoveSide::Coming { .. } => None,
    }))
}

fn offer(partition: MovedPartition) -> Offer {
    Offer { partition, source: "the host that it comes from".to_owned() }
}

/// Moves all of ioward's own machines that run, one after the other.
///
/// # Errors
/// When some stay here: which, and why. The others are moved all the same.
pub async fn all(source: &Client, target: &Daemon, options: Options, how: How) -> Result<(), CliError> {
    let views: Vec<PartitionView> = source.get("/v1/partitions").await?;
    let mut stay = Vec::new();
    for PartitionView { name, kind, .. } in views.into_iter().filter(|view| view.running) {
        match kind {
            KindView::Machine { .. } => match migrate(source, &name, target, options, how).await {
                Err(
                    error @ (CliError::InterruptedBefore
                    | CliError::Interrupted { .. }
                    | CliError::Stays { interrupted: true, .. }),
                ) => return Err(error),
                Err(CliError::Stays { why, .. }) => stay.push(format!("{name}: {why}")),
                Err(error) => stay.push(format!("{name}: {}", with_causes(&error))),
                Ok(()) => {}
            },
            KindView::Domain { .. } => {
                stay.push(format!("{name}: libvirt moves its domains: virsh migrate --live"));
            }
            KindView::Namespace { .. } => {}
        }
    }
    match stay.len() {
        0 => Ok(()),
        _ => Err(CliError::SomeStay(stay)),
    }
}

/// Takes a partition that has come here wholly, and whose source is gone for good.
///
/// # Errors
/// When there is none, or the daemon can't be reached.
pub async fn accept(client: &Client, partition: &Name) -> Result<(), CliError> {
    let Settled { settled } =
        client.post(&format!("/v1/partitions/{partition}/accept"), &serde_json::json!({})).await?;
    if settled {
        return terminal::print(&format!("{partition} runs here\n"));
    }
    Err(CliError::Usage(format!("no partition {partition} has come here and waits for its source's word")))
}

/// Its requests without what is said of this host's adapters.
fn unpinned(partition: &PartitionSpec) -> Vec<VfRequest> {
    let vfs = partition.vfs.iter().cloned();
    vfs.map(|vf| VfRequest { pf: None, index: None, ..vf }).collect()
}

/// Nothing is done here where the other host has no VFs for it.
async fn would_have_them(
    target: &Client,
    wanted: &PartitionSpec,
    vfs: &[VfRequest],
    options: Options,
) -> Result<(), CliError> {
    let mut spec: Spec = target.get("/v1/spec").await?;
    if spec.partitions.iter().any(|one| one.name == wanted.name) {
        let why = format!("the other host has a partition {} already", wanted.name);
        return Err(CliError::Stays { partition: wanted.name.clone(), why, interrupted: false });
    }
    spec.partitions.push(PartitionSpec { vfs: vfs.to_vec(), ..wanted.clone() });
    let request = PlanRequest { intent: Intent::Apply { spec }, options };
    let _plan: Plan = target.post("/v1/plan", &request).await?;
    Ok(())
}

/// Begins a move, and carries it to its end.
async fn move_it<'a>(
    source: &Client,
    target: &Client,
    partition: &'a Name,
    vfs: Vec<VfRequest>,
    quiet: bool,
) -> Result<Ended<'a>, CliError> {
    let id = random_id()?;
    let begin = BeginMove { id, partition: partition.clone(), to: target.daemon().to_string(), vfs };
    let moved: MovedPartition = source.post("/v1/moves", &begin).await?;
    carry(source, target, partition, id, offer(moved), quiet).await
}

/// Carries what the two say until nothing is left to be said.
async fn carry<'a>(
    source: &Client,
    target: &Client,
    partition: &'a Name,
    id: MoveId,
    offer: Offer,
    quiet: bool,
) -> Result<Ended<'a>, CliError> {
    let routes = ["", "/source", "/target", "/state"].map(|end| format!("/v1/moves/{id}{end}"));
    let [cancel, at_source, at_target, state] = &routes;
    let mut signals = Signals::new().map_err(|error| CliError::Usage(error.to_string()))?;
    let mut is_given = false;
    let (mut why_kept, mut interrupted) = (None, false);
    let (mut to_source, mut to_target): (Vec<ToSource>, Vec<ToTarget>) = Default::default();
    let (mut is_carried, mut silent) = (false, 0);
    let say = |what: &str| if quiet { Ok(()) } else { terminal::print(&format!("{what}\n")) };
    loop {
        let said = FromTarget { messages: std::mem::take(&mut to_source) };
        match source.post::<Leaving>(at_source, &said).await {
            Ok(leaving) => {
                silent = 0;
                if leaving.is_given && !is_given {
                    say(&format!("{partition} belongs to the other host"))?;
                }
                is_given |= leaving.is_given;
                why_kept = leaving.why_kept.or(why_kept);
                to_target.extend(leaving.messages);
                if leaving.is_over {
                    return Ok(Ended { id, partition, moved: is_given, why_kept, interrupted });
                }
            }
            Err(error) => still_there(error, &mut silent)?,
        }
        let told = FromSource { messages: std::mem::take(&mut to_target), offer: Some(offer.clone()) };
        match target.post::<FromTarget>(at_target, &told).await {
            Ok(answer) => to_source = answer.messages,
            Err(error) => still_there(error, &mut silent)?,
        }
        // The source sends once it has heard that a machine waits for it there.
        if !is_carried && let Ok(out) = source.get_lines(state).await {
            is_carried = true;
            say(&format!("the state of {partition} goes over"))?;
            tokio::spawn(target.post_stream(state, out));
        }
        tokio::select! {
            () = tokio::time::sleep(ASK_EACH) => {}
            _ = signals.next() => {
                let Settled { settled } = source.delete(cancel).await?;
                interrupted |= settled;
                say(if settled { "cancelled: it stays here" } else { "it is decided, and goes on" })?;
            }
        }
    }
}

/// Whoever is started again is asked again.
fn still_there(error: CliError, silent: &mut u32) -> Result<(), CliError> {
    *silent += 1;
    if *silent > PATIENCE { Err(error) } else { Ok(()) }
}

fn random_id() -> Result<MoveId, CliError> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(|error| CliError::Usage(format!("/dev/urandom: {error}")))?;
    Ok(MoveId::from_random(bytes))
}
