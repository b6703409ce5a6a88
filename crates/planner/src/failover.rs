//! Having the standby of a VF active in its place, or the VF itself again, because somebody asks for it. docs/failover.md.

use ioward_model::{
    FailoverCause, FailoverPair, Intent, Inventory, Name, Owner, PartitionState, Reason, Rule, State, Step,
    fault_of, nearest,
};

/// The steps of such an intent; `None`: it is another.
pub(crate) fn work_out(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
) -> Option<Result<Vec<Step>, Vec<Reason>>> {
    let Intent::Failover { partition, vf, back } = intent else { return None };
    Some(switch(inventory, state, partition, vf, *back))
}

fn switch(
    inventory: &Inventory,
    state: &State,
    partition: &Name,
    vf: &Name,
    back: bool,
) -> Result<Vec<Step>, Vec<Reason>> {
    let owner = Owner { partition: partition.clone(), vf: vf.clone() };
    let pair = pair(state, &owner)?;
    let from = pair.primary.failed_over.clone();
    if from.is_some() != back {
        return Ok(Vec::new());
    }
    check_works(inventory, &pair, back)?;
    let to = (!back).then(|| pair.failed_over(0, FailoverCause::Asked));
    Ok(vec![Step::SwitchOver { owner, to, from }])
}

/// The pair that a VF is the primary of.
fn pair<'a>(state: &'a State, owner: &Owner) -> Result<FailoverPair<'a>, Vec<Reason>> {
    let pair = state.failover_pair(owner);
    if let Some(pair) = pair.as_ref().filter(|pair| pair.owner == *owner) {
        return Ok(pair.clone());
    }
    let name = owner.to_string();
    let Some(partition) = state.partitions.get(&owner.partition) else {
        let known: Vec<_> = state.partitions.keys().map(Name::as_str).collect();
        let remedy = match nearest(owner.partition.as_str(), known.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => "'ioward partitions' shows which there are".to_owned(),
        };
        let required = format!("a partition '{}'", owner.partition);
        let reason = Reason::new(Rule::PartitionExists, required, "there is none").for_request(name);
        return Err(vec![reason.remedy(remedy)]);
    };
    let (found, remedy) = match pair {
        Some(pair) => (format!("it is the standby of {}", pair.owner), format!("name {}", pair.owner)),
        None => (
            without(partition, &owner.vf),
            "give it one: failover = { standby = \"…\" } in its Spec".to_owned(),
        ),
    };
    Err(vec![Reason::new(Rule::Redundancy, "a VF with a standby", found).for_request(name).remedy(remedy)])
}

fn without(partition: &PartitionState, vf: &Name) -> String {
    match partition.spec.vf(vf).map(|request| &request.failover) {
        Some(Some(failover)) => format!("one of it and its standby {} is not held", failover.standby),
        Some(None) => "it has none".to_owned(),
        None => format!("{} has no VF '{vf}'", partition.spec.name),
    }
}

/// Nobody is cut off because somebody asks for it, as long as the other one works.
fn check_works(inventory: &Inventory, pair: &FailoverPair<'_>, back: bool) -> Result<(), Vec<Reason>> {
    let (primary, standby) = (fault_of(inventory, pair.primary), pair.fault_of_standby(inventory));
    let (to, from) = if back { (primary, standby) } else { (standby, primary) };
    match to {
        Some(fault) if from.is_none() => {
            let name = if back { pair.owner.vf.to_string() } else { pair.failover.standby.to_string() };
            let reason = Reason::new(Rule::InService, format!("that {name} works"), fault);
            let reason = reason.for_request(pair.owner.to_string());
            Err(vec![reason.remedy("see to it first; until then the other one is used")])
        }
        _ => Ok(()),
    }
}
