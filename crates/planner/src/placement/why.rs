//! Why a request gets no VF.

use ioward_model::{PhysicalFunction, Reason, Rule, VfId};

use crate::{
    compat::{self, Need},
    ledger::Ledger,
};

/// Why there is nothing for a request, as things stand: at least one reason.
pub(super) fn not(ledger: &Ledger<'_>, need: &Need<'_>) -> Vec<Reason> {
    let request = need.request;
    let Some(address) = request.pf else { return nowhere(ledger, need) };
    let Some(pf) = ledger.pf(address) else { return vec![no_such_pf(ledger, address)] };
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
        reasons.push(Reason::new(Rule::FunctionExists, required, "this host has none").key("class"));
    }
    reasons
}

/// In one reason, why no VF of a PF that suits is to be had.
fn not_on(ledger: &Ledger<'_>, pf: &PhysicalFunction, need: &Need<'_>) -> Reason {
    let free = |index: &u16| !ledger.is_held(VfId { pf: pf.address, index: *index });
    let mut reasons = (0..ledger.limit(pf)).filter(free).flat_map(|index| of_vf(ledger, pf, index, need));
    reasons.find(|reason| reason.rule != Rule::VfFree).unwrap_or_else(|| exhausted(ledger, pf))
}

fn exhausted(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Reason {
    let limit = ledger.limit(pf);
    let held = ledger.holders_on(pf.address).len();
    let total = pf.total_vfs();
    let found = format!("{held} of {limit} VFs are held by partitions, the rest is used otherwise");
    let found = if held == usize::from(limit) { format!("all {limit} VFs are held") } else { found };
    let reason = Reason::new(Rule::VfCapacity, "a VF that nobody has", found).on(pf.address);
    if limit < total {
        reason.remedy(format!(
            "ask for more, up to {total}: [[adapter]] pf = \"{}\", vfs = \"max\"",
            pf.address
        ))
    } else {
        reason.remedy("use another adapter, or give a VF back")
    }
}

/// Why there is no PF at an address.
pub(crate) fn no_such_pf(ledger: &Ledger<'_>, address: ioward_pci::Bdf) -> Reason {
    let reason = match ledger.inventory.virtual_function(address) {
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
