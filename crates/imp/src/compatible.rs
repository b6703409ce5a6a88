//! Which functions suit the VFs that a partition of a Spec asks for. Pure: for this host or a recorded one.

use ioward_api::{Candidate, Compatible};
use ioward_model::{Inventory, Name, Owner, Spec, State, VfId};

use crate::error::ImpError;

/// One answer for each VF that the partition asks for. The Spec is a valid one.
///
/// # Errors
/// When the Spec has no such partition.
pub fn compatible(
    inventory: &Inventory,
    state: &State,
    spec: &Spec,
    partition: &Name,
) -> Result<Vec<Compatible>, ImpError> {
    let wanted = spec.partitions.iter().find(|wanted| wanted.name == *partition);
    let wanted = wanted.ok_or_else(|| no_such_partition(spec, partition))?;
    let address = |vf: VfId| Some(inventory.physical_function(vf.pf)?.virtual_function(vf.index)?.address);
    let compatible = wanted.vfs.iter().map(|request| {
        let owner = Owner { partition: partition.clone(), vf: request.name.clone() };
        let found = ioward_planner::suitability(inventory, state, &spec.adapters, wanted, request);
        let candidates = found.into_iter().map(|found| Candidate {
            vf: found.vf,
            address: address(found.vf),
            reasons: found.reasons,
        });
        Compatible { candidates: candidates.collect(), request: owner }
    });
    Ok(compatible.collect())
}

fn no_such_partition(spec: &Spec, partition: &Name) -> ImpError {
    let names: Vec<_> = spec.partitions.iter().take(16).map(|partition| partition.name.as_str()).collect();
    let more = if spec.partitions.len() > names.len() { ", …" } else { "" };
    let those = if names.is_empty() { "no partitions".to_owned() } else { names.join(", ") };
    ImpError::NoSuchPartition(format!("the Spec has no partition '{partition}'; it has {those}{more}"))
}
