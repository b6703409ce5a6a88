//! Whether a function suits a request: one small function a rule, each with its Reason.
//!
//! A new rule is a new function and a line in [`of_adapter`] (what holds for all VFs of a PF) or [`of_function`].

use ioward_model::{BitRate, Owner, PhysicalFunction, Reason, Rule, VfId, VfRequest, VfSettings};
use ioward_pci::Bdf;

use crate::ledger::Ledger;

/// Why no VF of this PF suits the request; empty: some may.
pub(crate) fn of_adapter(ledger: &Ledger<'_>, pf: &PhysicalFunction, request: &VfRequest) -> Vec<Reason> {
    let rules = [
        class(pf, request),
        readable(pf),
        iommu(ledger),
        link_speed(pf, request),
        management_nic(ledger, pf),
    ];
    rules.into_iter().flatten().map(|reason| reason.on(pf.address)).collect()
}

/// Why this VF does not suit the request, its PF aside; empty: it does.
pub(crate) fn of_function(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    owner: &Owner,
    request: &VfRequest,
) -> Vec<Reason> {
    let vf = VfId { pf: pf.address, index };
    let function = ledger.existing(vf).map_or(pf.address, |vf| vf.address);
    let rules = [
        vf_index(ledger, pf, index),
        vf_free(ledger, pf, vf, owner),
        vf_readable(ledger, pf, vf),
        iommu_group(ledger, vf),
        nvme_resources(ledger, pf, index, request),
        growth(ledger, pf, index),
    ];
    rules.into_iter().flatten().map(|reason| at(function, reason)).collect()
}

/// Why a VF cannot stay with its owner with these of its settings changed; empty: it can.
pub(crate) fn of_kept(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    vf: VfId,
    owner: &Owner,
    request: &VfRequest,
    change: &VfSettings,
) -> Vec<Reason> {
    let function = ledger.existing(vf).map_or(pf.address, |vf| vf.address);
    let resources = change.queues.is_some() || change.interrupts.is_some();
    let rules = [
        readable(pf),
        vf_readable(ledger, pf, vf),
        vf_free(ledger, pf, vf, owner),
        (!change.is_empty()).then(|| management_nic(ledger, pf)).flatten(),
        resources.then(|| nvme_resources(ledger, pf, vf.index, request)).flatten(),
        (resources && ledger.runs(owner)).then(|| resources_while_running(owner)),
    ];
    rules.into_iter().flatten().map(|reason| at(function, reason)).collect()
}

/// Settings that the class of the request does not have.
pub(crate) fn settings_supported(request: &VfRequest) -> Vec<Reason> {
    let named = request.settings().describe().into_iter().map(|(name, _)| name);
    let unsupported = named.filter(|name| !request.class.has_setting(name));
    let reason = |name: &str| {
        Reason::new(
            Rule::SettingSupported,
            format!("settings that a VF of class {} has", request.class),
            name,
        )
        .remedy(format!("leave {name} out"))
    };
    unsupported.map(reason).collect()
}

/// On this function, unless the rule itself says on which.
fn at(function: Bdf, reason: Reason) -> Reason {
    Reason { function: reason.function.or(Some(function)), ..reason }
}

/// The SR-IOV capability could be read.
pub(crate) fn readable(pf: &PhysicalFunction) -> Option<Reason> {
    let found =
        pf.reasons.first().map_or_else(|| "it could not be read".to_owned(), |reason| reason.found.clone());
    pf.sriov.is_none().then(|| Reason::new(Rule::Readable, "an SR-IOV capability that can be read", found))
}

fn class(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wrong = pf.class != request.class;
    wrong.then(|| Reason::new(Rule::Class, format!("class {}", request.class), format!("class {}", pf.class)))
}

/// The port's link is as fast as the request wants it; a link that is down has no speed.
pub(crate) fn link_speed(pf: &PhysicalFunction, request: &VfRequest) -> Option<Reason> {
    let wanted = request.min_link_speed?;
    let required = format!("a link of {wanted} or faster");
    match pf.speed_mbps() {
        Some(speed) if speed >= wanted.megabits() => None,
        Some(speed) => {
            Some(Reason::new(Rule::LinkSpeed, required, format!("one of {}", BitRate::from_megabits(speed))))
        }
        None => Some(
            Reason::new(Rule::LinkSpeed, required, "no link: its speed is not known")
                .remedy("bring the link up, or leave min_link_speed out"),
        ),
    }
}

/// What the host itself needs is left alone, unless a person allows it.
pub(crate) fn management_nic(ledger: &Ledger<'_>, pf: &PhysicalFunction) -> Option<Reason> {
    if ledger.options.allow_management_nic || pf.in_use_by_host.is_empty() {
        return None;
    }
    let uses: Vec<_> = pf.in_use_by_host.iter().take(8).map(ToString::to_string).collect();
    let reason = Reason::new(Rule::ManagementNic, "a PF that the host does not use", uses.join(", "));
    Some(reason.on(pf.address).remedy("use another adapter, or allow it with --allow-management-nic"))
}

fn iommu(ledger: &Ledger<'_>) -> Option<Reason> {
    (!ledger.inventory.iommu).then(|| {
        Reason::new(
            Rule::Iommu,
            "an IOMMU that keeps a partition's VFs to that partition's memory",
            "no IOMMU is on",
        )
        .remedy(
            "turn on VT-d or AMD-Vi in the firmware, start the kernel with intel_iommu=on (Intel) and reboot",
        )
    })
}

fn vf_index(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> Option<Reason> {
    if index >= pf.total_vfs() {
        let required = format!("an index below {} (TotalVFs)", pf.total_vfs());
        return Some(Reason::new(Rule::VfIndex, required, format!("index {index}")));
    }
    let asked = ledger.count_asked(pf.address).filter(|asked| index >= *asked)?;
    let reason = Reason::new(
        Rule::VfIndex,
        format!("an index below {asked}, the number of VFs asked for"),
        format!("index {index}"),
    );
    Some(reason.remedy(format!(
        "ask for more: [[adapter]] pf = \"{}\", vfs = {}",
        pf.address,
        index.saturating_add(1)
    )))
}

fn vf_free(ledger: &Ledger<'_>, pf: &PhysicalFunction, vf: VfId, owner: &Owner) -> Option<Reason> {
    let holder = ledger.holder(vf).filter(|holder| *holder != owner).map(|holder| format!("{holder} has it"));
    let foreign = || ledger.existing(vf).and_then(|function| ledger.foreign_use(pf, function));
    Some(Reason::new(Rule::VfFree, "a VF that nobody has", holder.or_else(foreign)?))
}

fn vf_readable(ledger: &Ledger<'_>, pf: &PhysicalFunction, vf: VfId) -> Option<Reason> {
    let missing = vf.index < pf.num_vfs() && ledger.existing(vf).is_none();
    missing.then(|| {
        Reason::new(
            Rule::Readable,
            "a VF that can be read",
            format!("{vf} is enabled, and could not be read"),
        )
    })
}

fn iommu_group(ledger: &Ledger<'_>, vf: VfId) -> Option<Reason> {
    let function = ledger.existing(vf).filter(|function| !function.iommu_group_shared_with.is_empty())?;
    let with: Vec<_> = function.iommu_group_shared_with.iter().take(8).map(ToString::to_string).collect();
    let reason = Reason::new(
        Rule::IommuGroup,
        "an IOMMU group of its own",
        format!("it shares one with {}", with.join(", ")),
    );
    Some(reason.remedy("use a slot behind a port with ACS, or a VF of another adapter"))
}

fn nvme_resources(
    ledger: &Ledger<'_>,
    pf: &PhysicalFunction,
    index: u16,
    request: &VfRequest,
) -> Option<Reason> {
    let resources = pf.nvme.as_ref()?.resources?;
    let (queues_left, interrupts_left) = ledger.nvme_left(pf, &resources, index);
    // A controller without flexible resources has its VFs' queues fixed: nothing to give, nothing to run out of.
    let least = |total: u32, least: u16| if total == 0 { 0 } else { least };
    let needs = [
        (
            "queues",
            request.queues.unwrap_or(least(resources.queues_total, LEAST_QUEUES)),
            queues_left,
            resources.queues_max_per_vf,
        ),
        (
            "interrupts",
            request.interrupts.unwrap_or(least(resources.interrupts_total, LEAST_INTERRUPTS)),
            interrupts_left,
            resources.interrupts_max_per_vf,
        ),
    ];
    let (name, wanted, left, most) =
        needs.into_iter().find(|(_, wanted, left, most)| wanted > left || wanted > most)?;
    let found = format!("{left} left, at most {most} for one VF");
    let reason = Reason::new(Rule::NvmeResources, format!("{wanted} flexible {name}"), found);
    Some(reason.remedy(format!("ask for fewer {name}, here or for other VFs of this controller")))
}

/// A secondary controller has to be offline while its resources change.
fn resources_while_running(owner: &Owner) -> Reason {
    let partition = &owner.partition;
    Reason::new(
        Rule::ChangeWhileRunning,
        format!("{partition} stopped"),
        "it runs, and NVMe queues or interrupts would change",
    )
    .remedy(format!("stop it first: ioward stop {partition}"))
}

/// The fewest queues with which an NVMe controller works: the admin queue and one for I/O.
pub(crate) const LEAST_QUEUES: u16 = 2;
/// The fewest interrupts with which an NVMe controller works.
pub(crate) const LEAST_INTERRUPTS: u16 = 1;

/// More VFs than there are now, on a PF that gives some already, means that all of them go for a while.
fn growth(ledger: &Ledger<'_>, pf: &PhysicalFunction, index: u16) -> Option<Reason> {
    if !ledger.would_grow(pf, index) {
        return None;
    }
    let least = index.saturating_add(1);
    let to = ledger.count_asked(pf.address).unwrap_or(least);
    disruption(ledger, pf, to).map(|reason| {
        reason.remedy(format!(
            "use a VF of another PF, or allow it with --allow-disruption; to avoid it next time, ask for VFs up front: \
             [[adapter]] pf = \"{}\", vfs = {to}",
            pf.address
        ))
    })
}

/// What runs keeps its VFs, unless a person allows otherwise. NumVFs changes through zero only.
pub(crate) fn disruption(ledger: &Ledger<'_>, pf: &PhysicalFunction, to: u16) -> Option<Reason> {
    let from = pf.num_vfs();
    if ledger.options.allow_disruption || from == 0 || from == to {
        return None;
    }
    let losers = ledger.losers(pf);
    let named: Vec<_> = losers
        .iter()
        .take(8)
        .map(|loser| format!("{} loses {} ({})", loser.who, loser.what, loser.address))
        .collect();
    let more = if losers.len() > 8 { format!(" and {} more", losers.len() - 8) } else { String::new() };
    let found = format!("going from {from} to {to} VFs leads through 0: {}{more}", named.join(", "));
    let reason = Reason::new(Rule::Disruption, "that nothing that runs loses a VF", found).on(pf.address);
    (!losers.is_empty()).then(|| reason.remedy("allow it with --allow-disruption"))
}
