//! What the doctor says of SR-IOV adapters: each one that can give VFs, and each one that can't, and why.

use ioward_model::PhysicalFunction;

use super::{Check, Facts, Finding, Verdict};

/// Drivers that let a function be and do not make VFs of it (vfio-pci does when it is told to: `enable_sriov`).
const WITHOUT_SRIOV: [&str; 4] = ["vfio-pci", "pci-stub", "uio_pci_generic", "igb_uio"];

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
    let judged: Vec<_> = pfs.iter().map(|pf| (pf, problem(facts, pf))).collect();
    let one_is_well = judged.iter().any(|(_, problem)| problem.is_none());
    let finding = |(pf, problem): (&PhysicalFunction, Option<(String, String)>)| {
        let (verdict, (found, remedy)) = match problem {
            None => (Verdict::Well, (can_give(pf), String::new())),
            Some(problem) if one_is_well => (Verdict::Warning, problem),
            Some(problem) => (Verdict::Missing, problem),
        };
        Finding { check: Check::Adapter, function: Some(pf.address), verdict, found, remedy }
    };
    judged.into_iter().map(finding).collect()
}

fn can_give(pf: &PhysicalFunction) -> String {
    let total = pf.total_vfs();
    let plural = if total == 1 { "" } else { "s" };
    let driver = pf.driver.as_deref().unwrap_or_default();
    format!("{} can give {total} VF{plural}, driver {driver}", pf.name)
}

/// Why a PF can't give VFs to partitions, and what to do about it.
fn problem(facts: &Facts, pf: &PhysicalFunction) -> Option<(String, String)> {
    let name = &pf.name;
    let no = |found: &str, remedy: String| Some((format!("{name}: {found}"), remedy));
    let Some(sriov) = &pf.sriov else {
        let remedy = if facts.root == Some(false) { "run this as root" } else { "'ioward host' says why" };
        return no("its SR-IOV capability cannot be read", remedy.to_owned());
    };
    if sriov.total_vfs == 0 {
        let remedy = "turn SR-IOV on in the adapter's own firmware (its maker's tool, as mlxconfig with SRIOV_EN=1 and \
                      NUM_OF_VFS, or its page in the machine's firmware), then power the machine off and on";
        return no("it has the capability, and allows 0 VFs (sriov_totalvfs)", remedy.to_owned());
    }
    let Some(driver) = &pf.driver else {
        let remedy = format!(
            "load the driver for it: 'modinfo' of it lists [{}:{}]; 'lspci -ks {}' names candidates",
            pf.vendor_id, pf.device_id, pf.address
        );
        return no("no driver is bound to it, and only its driver makes VFs", remedy);
    };
    if WITHOUT_SRIOV.contains(&driver.as_str()) {
        let remedy = format!("give it back to its own driver: 'lspci -ks {}' names it", pf.address);
        return no(&format!("its driver {driver} makes no VFs"), remedy);
    }
    let bars: Vec<_> = facts
        .bars_without_room
        .iter()
        .filter(|(at, _)| *at == pf.address)
        .map(|(_, bar)| bar.to_string())
        .collect();
    if !bars.is_empty() {
        let remedy = "turn on 'Above 4G Decoding' in the firmware (and 'MMIO High Size', where there is one, up), or boot \
                      with pci=realloc";
        return no(
            &format!("there is no address space for VF BAR {}", bars.join(" and ")),
            remedy.to_owned(),
        );
    }
    None
}
