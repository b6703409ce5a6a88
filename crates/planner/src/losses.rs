//! Who loses a VF for good while running: a VF that a new Spec does not ask for any more, or that another one takes the
//! place of. Who loses one for a while, as an adapter's number of VFs changes, is in [`crate::adapters`].

use std::collections::BTreeMap;

use ioward_model::{Assignment, Disturbance, IntoMap, Name, Owner, Reason, Rule};
use ioward_pci::Bdf;

use crate::{
    goal::{Goal, Unasked},
    ledger::Ledger,
    placement::Holding,
    standbys::Standbys,
};

/// A VF that a running partition loses.
struct Loss {
    owner: Owner,
    address: Bdf,
    why: String,
    /// Whether this very loss is what was asked for, as by `ioward detach`: it needs no leave besides.
    is_asked_for: bool,
}

/// Names whoever loses a VF while running.
///
/// # Errors
/// When that is not allowed, and not what was asked for.
pub(crate) fn losses(
    ledger: &Ledger<'_>,
    goal: &Goal,
    holdings: &[Holding<'_>],
) -> Result<Vec<Disturbance>, Vec<Reason>> {
    let losses: Vec<Loss> = stopping(ledger, goal).chain(taken(ledger, goal, holdings)).collect();
    let forbidden = losses.iter().filter(|loss| !loss.is_asked_for && !ledger.options.allow_disruption);
    let reasons: Vec<_> = forbidden.map(|loss| refusal(loss, goal)).collect();
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let disturbance = |loss: Loss| Disturbance {
        who: loss.owner.partition.to_string(),
        function: loss.address,
        what: format!("loses {} {}", loss.owner.vf, loss.why),
    };
    Ok(losses.into_iter().map(disturbance).collect())
}

fn refusal(loss: &Loss, goal: &Goal) -> Reason {
    let remedy = match goal.evacuation {
        Some(_) => "allow it with --allow-disruption",
        None => {
            "leave it as it is in the Spec ('ioward partitions' shows what it has), or allow it with --allow-disruption"
        }
    };
    let found = format!("{} loses {} {}", loss.owner.partition, loss.owner.vf, loss.why);
    Reason::new(Rule::Disruption, "that nothing that runs loses a VF", found)
        .on(loss.address)
        .for_request(&loss.owner)
        .remedy(remedy)
}

/// The VFs of a partition that stops.
fn stopping<'a>(ledger: &'a Ledger<'_>, goal: &'a Goal) -> impl Iterator<Item = Loss> + 'a {
    goal.stop.iter().flat_map(|partition| in_use(ledger, partition)).map(|(owner, _, address)| Loss {
        owner,
        address,
        why: "as it stops".to_owned(),
        is_asked_for: true,
    })
}

/// VFs that partitions do not hold any more, those of one that stops aside.
fn taken(ledger: &Ledger<'_>, goal: &Goal, holdings: &[Holding<'_>]) -> Vec<Loss> {
    let stay = goal.concerned().iter().filter(|name| !goal.stop.contains(*name));
    let standbys = Standbys::of(ledger, goal, holdings);
    let then: BTreeMap<&Owner, &Holding<'_>> =
        holdings.iter().map(|holding| (&holding.owner, holding)).into_map();
    let loss = |(owner, held, address): (Owner, &Assignment, Bdf)| {
        let is_removed = goal.remove.as_ref() == Some(&owner.partition);
        let is_asked_for =
            is_removed || goal.detach.as_ref() == Some(&owner) || goal.standbys == Unasked::Stay;
        let why = match then.get(&owner) {
            Some(holding) if holding.vf == held.vf && standbys.changes(&owner) => {
                "for a while: it comes after its standby, which changes".to_owned()
            }
            Some(holding) if holding.vf == held.vf => return None,
            Some(holding) => format!("for {}, which takes its place", holding.vf),
            None if is_removed => "as it is removed".to_owned(),
            None if goal.standbys == Unasked::Stay => "before it is moved".to_owned(),
            None if is_asked_for => "as it is detached".to_owned(),
            None if ledger.moving(&owner).is_some() && ledger.standby(&owner).is_some() => {
                "for good, and goes on by its standby: no other adapter has one for it".to_owned()
            }
            None if ledger.moving(&owner).is_some() => "for good: no other adapter has one for it".to_owned(),
            None => "for good: it is not asked for any more".to_owned(),
        };
        Some(Loss { owner, address, why, is_asked_for })
    };
    stay.flat_map(|name| in_use(ledger, name)).filter_map(loss).collect()
}

/// The VFs that a running partition has in use, with their addresses. One that was lost already is nobody's to lose.
fn in_use<'a>(
    ledger: &'a Ledger<'_>,
    name: &'a Name,
) -> impl Iterator<Item = (Owner, &'a Assignment, Bdf)> + 'a {
    let partition = ledger.state.partitions.get(name).filter(|partition| partition.running);
    let attached =
        partition.into_iter().flat_map(|partition| &partition.vfs).filter(|(_, held)| held.attached);
    attached.filter_map(move |(vf, held)| {
        let present = ledger.existing(held.vf).filter(|present| ledger.is_ready(name, held.vf, present))?;
        Some((Owner { partition: name.clone(), vf: vf.clone() }, held, present.address))
    })
}
