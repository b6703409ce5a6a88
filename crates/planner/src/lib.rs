//! Compatibility and placement: (Inventory, State, Intent) -> Plan, as a pure function.
//!
//! ```text
//! Intent ─ goal ──> what is to be            (which partitions, with which VFs; rules on the request itself)
//!            │
//!          placement ──> which VF for whom   (compat: one function a rule; ledger: who holds what by then)
//!            │
//!          adapters ──> how many VFs each PF is to give, and who is disturbed by getting there
//!            │
//!          steps ──> in which order          (such that the inverses, in reverse, lead back from any point)
//! ```
//!
//! An intent to reconcile knows what differs already ([`Comparison`]), and goes another way: `reconcile.rs`. So does one to take over
//! a domain as it is, or to let go of one: `adopt.rs`. `evacuate.rs` makes a goal of an adapter that is taken out of service.
//!
//! No choice is left to be made when a plan is carried out, and the same input gives the same plan. [`lint`] checks a
//! plan without looking at how it was made, by carrying it out on a [`Machine`] of values.
#![forbid(unsafe_code)]

mod adapters;
mod adopt;
mod before;
mod compat;
mod drift;
mod drivers;
mod evacuate;
mod failover;
mod faults;
mod goal;
mod held;
mod ledger;
mod lint;
mod losses;
mod machine;
mod macs;
pub mod placement;
mod reconcile;
mod relaxations;
mod reserved;
mod standbys;
mod steps;
mod suitability;
mod validate;

pub use drift::Comparison;
pub use lint::lint;
pub use machine::Machine;
pub use relaxations::advise;
pub use reserved::check_offer;
pub use suitability::{Candidate, suitability};
pub use validate::validate;

use std::collections::BTreeMap;

use ioward_model::{
    Disturbance, Gap, Intent, Inventory, Options, Placement, Plan, Policy, Reason, State, Step,
};

use placement::Placed;

/// The most reasons that one refusal lists; what is wrong with the rest shows once these are put right.
pub const MAX_REASONS: usize = 32;

/// The steps from what is to what is wanted. No steps: there is nothing to do.
///
/// An adapter whose last VF is given back is restored to what it was before ioward touched it, also when an earlier
/// Spec named a number of VFs for it; only a number in this very Spec keeps it.
///
/// # Errors
/// Why not: at least one Reason and at most [`MAX_REASONS`]. What holds for several requests alike is said once.
pub fn plan(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: &Options,
) -> Result<Plan, Vec<Reason>> {
    plan_or_all_reasons(inventory, state, intent, options).map_err(said_once)
}

/// The same reasons, those that differ in nothing but the request as one; at most [`MAX_REASONS`].
fn said_once(reasons: Vec<Reason>) -> Vec<Reason> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut once: Vec<Reason> = Vec::new();
    for reason in reasons {
        let anybody = Reason { request: None, ..reason.clone() };
        let is_of_one = reason.request.is_some();
        let key = format!("{} {:?} {is_of_one} {anybody}", reason.rule, reason.key);
        match places.get(&key).filter(|_| is_of_one) {
            Some(place) => {
                let more = reason.and_more.saturating_add(1);
                once[*place].and_more = once[*place].and_more.saturating_add(more);
            }
            None => {
                places.insert(key, once.len());
                once.push(reason);
            }
        }
    }
    once.truncate(MAX_REASONS);
    once
}

/// As [`plan`], with every Reason there is.
fn plan_or_all_reasons(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: &Options,
) -> Result<Plan, Vec<Reason>> {
    let WorkedOut { steps, disturbs, placements, gap, left_out } =
        work_out(inventory, state, intent, *options)?;
    let policy = intent.policy();
    let frozen = faults::touched(inventory, state, intent, &steps);
    if !frozen.is_empty() {
        return Err(frozen);
    }
    // What the daemon repairs was so before anything was kept for others.
    if policy == Policy::AllOrNothing {
        let taken = reserved::taken(inventory, state, &steps);
        if !taken.is_empty() {
            return Err(taken);
        }
    }
    Ok(Plan {
        id: state.revision + u64::from(policy == Policy::AllOrNothing),
        parent: state.revision,
        generation: inventory.generation,
        intent: intent.clone(),
        options: *options,
        before: before::settings(inventory, state, &steps),
        steps,
        disturbs,
        left_out,
        placements,
        gap,
        instead: Vec::new(),
    })
}

/// Whether there is a plan for a Spec or for VFs that are attached: as [`plan`], without a word on why not, and without those parts
/// of a plan that can't fail.
fn is_possible(inventory: &Inventory, state: &State, intent: &Intent, options: Options) -> bool {
    let is_frozen = inventory.physical_functions.iter().any(|pf| pf.service.is_frozen());
    if is_frozen || !state.moves.is_empty() || !matches!(intent, Intent::Apply { .. } | Intent::Attach { .. })
    {
        return plan_or_all_reasons(inventory, state, intent, &options).is_ok();
    }
    let Ok(goal) = goal::Goal::of(inventory, state, intent) else { return false };
    let mut ledger = ledger::Ledger::new(inventory, state, options, &goal);
    ledger.tells_why = false;
    decide(&mut ledger, &goal).is_ok()
}

/// The parts of a plan.
struct WorkedOut {
    steps: Vec<Step>,
    disturbs: Vec<Disturbance>,
    placements: Vec<Placement>,
    gap: Option<Gap>,
    left_out: Vec<Reason>,
}

impl WorkedOut {
    /// Steps that nobody is disturbed by, and that place nothing.
    fn of(steps: Vec<Step>, left_out: Vec<Reason>) -> Self {
        let (disturbs, placements) = (Vec::new(), Vec::new());
        Self { steps, disturbs, placements, gap: None, left_out }
    }
}

fn work_out(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: Options,
) -> Result<WorkedOut, Vec<Reason>> {
    if let Some(repairs) = reconcile::Repairs::of(inventory, state, intent) {
        return Ok(WorkedOut::of(repairs.steps(), Vec::new()));
    }
    if let Some(worked_out) = adopt::work_out(inventory, state, intent) {
        let (steps, left_out) = worked_out?;
        return Ok(WorkedOut::of(steps, left_out));
    }
    if let Some(steps) = failover::work_out(inventory, state, intent) {
        return Ok(WorkedOut::of(steps?, Vec::new()));
    }
    if let Some(worked_out) = evacuate::work_out(inventory, state, intent, options) {
        return worked_out;
    }
    reach(inventory, state, &goal::Goal::of(inventory, state, intent)?, options)
}

/// The way from what is to a goal.
fn reach(
    inventory: &Inventory,
    state: &State,
    goal: &goal::Goal,
    options: Options,
) -> Result<WorkedOut, Vec<Reason>> {
    let mut ledger = ledger::Ledger::new(inventory, state, options, goal);
    let Decided { placed, mut disturbs, changes } = decide(&mut ledger, goal)?;
    let Placed { holdings, mut placements, gap } = placed;
    let settled = goal.settled.iter().filter_map(|name| Some((name, state.partitions.get(name)?)));
    placements.extend(settled.flat_map(|(name, partition)| placement::kept_by(name, partition)));
    disturbs.extend(changes.iter().flat_map(|change| adapters::disturbances(&ledger, change)));
    let steps = steps::order(&ledger, goal, holdings, &changes);
    Ok(WorkedOut { steps, disturbs, placements, gap, left_out: Vec::new() })
}

/// All that is decided before the steps are put in order.
struct Decided<'a> {
    placed: Placed<'a>,
    /// Who loses a VF for good.
    disturbs: Vec<Disturbance>,
    changes: Vec<adapters::AdapterChange>,
}

fn decide<'a>(ledger: &mut ledger::Ledger<'a>, goal: &goal::Goal) -> Result<Decided<'a>, Vec<Reason>> {
    let named = adapters::check_named(ledger, goal);
    let placed = placement::place(ledger, goal);
    let placed = match (named, placed) {
        (reasons, Ok(placed)) if reasons.is_empty() => placed,
        (mut reasons, placed) => {
            reasons.extend(placed.err().unwrap_or_default());
            return Err(reasons);
        }
    };
    let disturbs = losses::losses(ledger, goal, &placed.holdings)?;
    let changes = adapters::changes(ledger, goal, &placed.holdings)?;
    Ok(Decided { placed, disturbs, changes })
}
