//! The doctor's findings on SR-IOV adapters: each one that can give VFs, and each one that can't, and why. The checks are
//! those of the planner (`ioward_model::checks`).

use ioward_model::{
    PhysicalFunction, Rule,
    checks::{self, Obstacle},
};

use super::{Check, Facts, Finding, Verdict};

/// A finding for each adapter. One that can't give VFs is a small matter where another one can.
pub(super) fn adapters(facts: &Facts) -> Vec<Finding> {
    let pfs = &facts.inventory.physical_functions;
    if pfs.is_empty() {
        return vec![Finding {
            check: Check::Adapter,
            function: None,
            verdict: Verdict::Missing,
            found: "no PCI function has the SR-IOV capability".to_owned(),
            remedy: "turn SR-IOV on in the firmware of the machine ('SR-IOV Support') and in that of the adapter (its \
                     maker's tool, as mlxconfig or bnxtnvm), then power the machine off and on; or put in an adapter \
                     that has it: 'lspci -vvv' shows 'Single Root I/O Virtualization'"
                .to_owned(),
        }];
    }
    let judged: Vec<_> =
        pfs.iter().map(|pf| (pf, checks::adapter(&facts.inventory, pf).into_iter().next())).collect();
    let one_is_well = judged.iter().any(|(_, obstacle)| obstacle.is_none());
    let finding = |(pf, obstacle): (&PhysicalFunction, Option<Obstacle>)| {
        let Some(obstacle) = obstacle else { return can_give(pf) };
        // Where VFs are there already, those can be given away.
        let some_can = !obstacle.blocks.giving() && pf.num_vfs() > 0;
        let is_known = !(facts.is_copy && pf.conditions.no_numvfs);
        let verdict = if one_is_well || some_can || !is_known { Verdict::Warning } else { Verdict::Missing };
        let (found, remedy) = if is_known {
            words(facts, obstacle)
        } else {
            let found = "not known whether it can give VFs: this tree has no sriov_numvfs of it";
            (found.to_owned(), "run 'ioward doctor' on the host itself".to_owned())
        };
        let found = format!("{}: {found}", pf.name);
        Finding { check: Check::Adapter, function: Some(pf.address), verdict, found, remedy }
    };
    judged.into_iter().map(finding).collect()
}

fn can_give(pf: &PhysicalFunction) -> Finding {
    let most = checks::most_vfs(pf);
    let plural = if most == 1 { "" } else { "s" };
    let driver = pf.driver.as_deref().unwrap_or_default();
    Finding {
        check: Check::Adapter,
        function: Some(pf.address),
        verdict: Verdict::Well,
        found: format!("{} can give {most} VF{plural}, driver {driver}", pf.name),
        remedy: String::new(),
    }
}

/// The finding and its remedy, in the doctor's words.
fn words(facts: &Facts, obstacle: Obstacle) -> (String, String) {
    if obstacle.reason.rule == Rule::Readable {
        let remedy = if facts.root == Some(false) { "run this as root" } else { "'ioward host' says why" };
        return ("its SR-IOV capability cannot be read".to_owned(), remedy.to_owned());
    }
    (obstacle.reason.found, obstacle.reason.remedy)
}
