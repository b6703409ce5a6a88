//! VFs for partitions that are on their way here: they are held by nobody yet, and no plan leaves too few of them.

use ioward_model::{
    Intent, Inventory, Options, Reason, Rule, State, Step, VfRequest,
    handover::{MoveSide, MovedPartition},
};

use crate::{Machine, plan};

/// Whether there are VFs for a partition that is offered by another host, beside what is held and what is kept for others that are on
/// their way.
///
/// # Errors
/// Why not, as for a plan.
pub fn check_offer(
    inventory: &Inventory,
    state: &State,
    offered: &MovedPartition,
) -> Result<(), Vec<Reason>> {
    let mut machine = Machine::new(inventory, &without_moves(state));
    // Those before it have theirs, or never will.
    for moved in coming(state) {
        let _ = take(&mut machine, moved);
    }
    take(&mut machine, offered)
}

/// What steps would take away from partitions that are on their way here.
pub(crate) fn taken(inventory: &Inventory, state: &State, steps: &[Step]) -> Vec<Reason> {
    if coming(state).next().is_none() || steps.is_empty() {
        return Vec::new();
    }
    let mut before = Machine::new(inventory, &without_moves(state));
    let mut after = before.clone();
    // A step that the machine refuses is refused by the host, and by `lint`.
    if steps.iter().any(|step| after.carry_out(step).is_err()) {
        return Vec::new();
    }
    let mut reasons = Vec::new();
    for moved in coming(state) {
        // What can't be had any more is not this plan's fault.
        if take(&mut before, moved).is_ok() && take(&mut after, moved).is_err() {
            reasons.push(too_few(moved));
        }
    }
    reasons
}

/// Partitions that are on their way here. One that has come has what it holds, as any other.
fn coming(state: &State) -> impl Iterator<Item = &MovedPartition> {
    state.moves.values().filter(|moving| !moving.is_settled()).filter_map(|moving| match &moving.side {
        MoveSide::Coming { partition, .. } => Some(&**partition),
        MoveSide::Leaving { .. } => None,
    })
}

fn without_moves(state: &State) -> State {
    let mut state = state.clone();
    state.moves.clear();
    state
}

/// Gives a partition what it is to have.
fn take(machine: &mut Machine, moved: &MovedPartition) -> Result<(), Vec<Reason>> {
    let intent = Intent::Attach { partition: moved.spec.name.clone(), vfs: moved.wanted.clone() };
    let mut state = machine.state().clone();
    state.partitions.insert(moved.spec.name.clone(), moved.clone().into_state(true));
    let planned = plan(machine.inventory(), &state, &intent, &Options::default())?;
    let mut taken = Machine::new(machine.inventory(), &state);
    if planned.steps.iter().all(|step| taken.carry_out(step).is_ok()) {
        *machine = taken;
    }
    Ok(())
}

fn too_few(moved: &MovedPartition) -> Reason {
    let name = &moved.spec.name;
    let wanted: Vec<_> = moved.wanted.iter().map(|VfRequest { name, .. }| name.to_string()).collect();
    let required = format!("VFs for {name}, which is being moved here ({})", wanted.join(", "));
    Reason::new(Rule::VfFree, required, "too few would be left")
        .remedy("wait until it is here, or have it stay where it is: Ctrl-C of 'ioward migrate' there")
}
