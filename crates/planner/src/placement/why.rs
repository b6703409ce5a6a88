//! Why a request gets no VF.

use ioward_model::{Inventory, PhysicalFunction, Reason, Rule, VfId, checks};

use crate::{
    compat::{self, Need},
    ledger::Ledger,
};

/// Why there is nothing for a request, as things stand: at least one reason.
pub(super) fn not(ledger: &Ledger<'_>, need: &Need<'_>) -> Vec<Reason> {
    let request = need.request;
    let Some(address) = request.pf else { return nowhere(ledger, need) };
    let Some(pf) = ledger.pf(address) else { return vec![no_such_pf(ledger.inventory, address)] };
    let reasons = compat::of_adapter(ledger, pf, need);
    match request.index {
        Some(index) => [reasons, of_vf(ledger, pf, index, need)].concat(),
        None if reasons.is_empty() => vec![not_on(ledger, pf, need)],
        None => reasons,
    }
}

/// Why a request can't have one VF, its PF's abilities aside.
pub(super) fn of_vf(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16, need: &Need<'_>) -> Vec<Reason> {
    let mut reasons = compat::of_function(ledger, pf, index, &need.owner());
    reasons.extend(compat::of_company(ledger, pf, index, need));
    reasons
}

fn nowhere(ledger: &Ledger<'_>, need: &Need<'_>) -> Vec<Reason> {
    let on = |pf| {
        let first = compat::of_adapter(ledger, pf, need).into_iter().next();
        first.unwrap_or_else(|| not_on(ledger, pf, need))
    };
    let mut reasons: Vec<_> = ledger.inventory.physical_functions.iter().map(on).collect();
    // An adapter of another class is no news where there are some of the right one.
    reasons.retain(|reason| reason.rule != Rule::Class);
    if reasons.is_empty() {
        let required = format!("an SR-IOV adapter of class {}", need.request.class);
        let others = ledger.inventory.physical_functions.iter().take(4);
        let others: Vec<_> =
            others.map(|pf| format!("{} is one of class {}", pf.address, pf.class)).collect();
        let found = [vec!["this host has none".to_owned()], others].concat().join("; ");
        reasons.push(Reason::new(Rule::FunctionExists, required, found).key("class"));
    }
    reasons
}

/// In one reason, why no VF of a PF that suits is to be had.
fn not_on(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> Reason {
    let free = |index: &u16| !ledger.is_held(VfId { pf: pf.address, index: *index });
    let mut reasons = (0..ledger.limit(pf)).filter(free).flat_map(|index| of_vf(ledger, pf, index, need));
    let none_at_all = || compat::making(ledger, pf).into_iter().next().filter(|_| ledger.limit(pf) == 0);
    let reason = reasons.find(|reason| reason.rule != Rule::VfFree).or_else(none_at_all);
    reason.unwrap_or_else(|| exhausted(ledger, pf))
}

fn exhausted(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Reason {
    let limit = ledger.limit(pf);
    let held = ledger.holders_on(pf.address).len();
    let (most, unplaced) = (checks::most_vfs(pf), ledger.unplaced);
    let found = format!("{held} of {limit} VFs are held by partitions, the rest is used otherwise");
    let found = if held == usize::from(limit) { format!("all {limit} VFs are held") } else { found };
    let reason = Reason::new(Rule::VfCapacity, "a VF that nobody has", found).on(pf.address);
    let enough = limit.saturating_add(unplaced);
    let flag = if ledger.has_losers(pf) { ", with --allow-disruption" } else { "" };
    let more = format!("ask for more, up to {most}: [[adapter]] pf = \"{}\", vfs", pf.address);
    reason.remedy(if limit < most && checks::makes_all_or_none(pf) {
        format!("{more} = \"max\"{flag}")
    } else if enough <= most {
        format!("{more} = {enough}{flag}")
    } else if limit < most {
        let too_many = enough - most;
        format!("{more} = {most}{flag}, and leave {too_many} of them out or use another adapter")
    } else if unplaced > 1 {
        format!("leave {unplaced} of them out, use another adapter, or give VFs back")
    } else {
        "use another adapter, or give a VF back".to_owned()
    })
}

/// Why there is no PF at an address.
pub(crate) fn no_such_pf(inventory: &Inventory, address: ioward_pci::Bdf) -> Reason {
    let reason = match inventory.virtual_function(address) {
        Some((pf, vf)) => {
            let found = format!("VF {} of {}", vf.index, pf.address);
            Reason::new(Rule::IsPhysicalFunction, "an SR-IOV physical function", found)
                .remedy(format!("name its PF: pf = \"{}\", index = {}", pf.address, vf.index))
        }
        None => {
            Reason::new(Rule::FunctionExists, "an SR-IOV physical function", "there is none at this address")
                .remedy("`ioward host` shows those there are")
        }
    };
    reason.on(address)
}
