//! Which functions suit one request, and why the others do not.

use ioward_model::{AdapterSpec, Inventory, Options, PartitionSpec, Reason, State, VfId, VfRequest, checks};
use serde::{Deserialize, Serialize};

use crate::{
    adapters,
    compat::{self, Need},
    goal::Goal,
    ledger::Ledger,
    placement::{self, preference::Preferences},
};

/// A function that was looked at for a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The VF; it need not exist yet.
    pub vf: VfId,
    /// Why it does not suit; empty: it does.
    pub reasons: Vec<Reason>,
}

/// The VFs that the host's adapters have or could have, for one request, within what it is pinned to: those that suit,
/// best first as placement prefers them, then those that don't, by address. The rules are those of [`crate::plan`] with
/// nothing allowed beyond the safe; what `owner` has now counts as free for it. `named` are the adapters of the Spec that
/// the request is in: they are to give as many VFs as it says.
///
/// Whatever does not suit has reasons, and there is at least one candidate for each adapter, so that a "no" never comes
/// without a "why"; the list is empty only when nothing is pinned and the host has no SR-IOV adapter.
#[must_use]
pub fn suitability(
    inventory: &Inventory,
    state: &State,
    named: &[AdapterSpec],
    partition: &PartitionSpec,
    request: &VfRequest,
) -> Vec<Candidate> {
    let need = Need { partition, request };
    let owner = &need.owner();
    let goal = Goal::question(named, partition);
    let ledger = Ledger::new(inventory, state, Options::default(), &goal);
    let preferences = Preferences::new(&ledger);
    let of_request: Vec<_> = compat::possible(partition.kind.name(), request)
        .into_iter()
        .chain(ledger.mac_conflict(owner, request))
        .collect();
    let mut candidates = Vec::new();
    for pf in
        inventory.physical_functions.iter().filter(|pf| request.pf.is_none_or(|pinned| pinned == pf.address))
    {
        let mut of_adapter = of_request.clone();
        of_adapter.extend(compat::of_adapter(&ledger, pf, &need));
        if ledger.is_named(pf.address) {
            of_adapter.extend(adapters::capacity(pf, goal.adapters.get(&pf.address).copied().flatten()));
            of_adapter.extend(compat::disruption(&ledger, pf, ledger.limit(pf)));
        }
        let indexes =
            request.index.map_or(0..checks::most_vfs(pf).max(1), |index| index..index.saturating_add(1));
        for index in indexes {
            let mut reasons = of_adapter.clone();
            reasons.extend(compat::of_function(&ledger, pf, index, owner));
            reasons.extend(compat::of_company(&ledger, pf, index, &need));
            let preference = reasons.is_empty().then(|| preferences.of_function(&ledger, pf, index, &need));
            let reasons = reasons.into_iter().map(|reason| reason.for_request(owner)).collect();
            candidates.push((preference, Candidate { vf: VfId { pf: pf.address, index }, reasons }));
        }
    }
    if let Some(pf) = request.pf.filter(|_| candidates.is_empty()) {
        let vf = VfId { pf, index: request.index.unwrap_or(0) };
        return vec![Candidate {
            vf,
            reasons: vec![placement::no_such_pf(inventory, pf).for_request(owner)],
        }];
    }
    candidates.sort_by_key(|(preference, candidate)| (preference.is_none(), *preference, candidate.vf));
    candidates.into_iter().map(|(_, candidate)| candidate).collect()
}
