//! Taking a domain over as it is, and letting go of one as it is. Neither changes the domain, its VFs or how many VFs an adapter
//! gives: what is there is noted, or forgotten.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    AdapterOriginal, AdapterState, Adoptable, AdoptableFunction, Assignment, BitRate, Class, DomainRef,
    Guarantee, Holder, Identity, Intent, IntoMap, Inventory, KindName, LinkState, MacAddress, Name, Owner,
    PartitionKind, PartitionSpec, PhysicalFunction, Process, Reason, Rule, Runs, Setting, State, Step,
    VfCount, VfId, VfRequest, VfSettings, VirtualFunction, Vlan, checks,
};
use ioward_pci::Bdf;

use crate::{MAX_REASONS, compat, drivers::VFIO, goal};

/// What the alias of a VF that ioward gave begins with, and what aliases that users give begin with.
const ALIASES: [&str; 2] = ["ua-ioward-", "ua-"];

/// The steps, and what a domain has that is not taken over.
pub(crate) type Worked = Result<(Vec<Step>, Vec<Reason>), Vec<Reason>>;

/// `None` for an intent of another kind.
pub(crate) fn work_out(inventory: &Inventory, state: &State, intent: &Intent) -> Option<Worked> {
    match intent {
        Intent::Adopt { domain, partition, found } => Some(match (partition, found) {
            (Some(name), Some(found)) => Adoption { inventory, state, domain, name, found }.work_out(),
            _ => {
                let reason = Reason::new(Rule::Domain, "a look at what the domain has", "none");
                Err(vec![reason.for_request(domain).remedy("ask the daemon: ioward adopt")])
            }
        }),
        Intent::Release { partition } => {
            Some(release(inventory, state, partition).map(|steps| (steps, Vec::new())))
        }
        _ => None,
    }
}

/// A domain that is to be a partition of this name.
struct Adoption<'a> {
    inventory: &'a Inventory,
    state: &'a State,
    domain: &'a DomainRef,
    name: &'a Name,
    found: &'a Adoptable,
}

/// A VF that is taken over.
struct Taken<'a> {
    function: &'a AdoptableFunction,
    pf: &'a PhysicalFunction,
    vf: &'a VirtualFunction,
}

/// Why a function is not taken over.
enum No {
    /// It is not ioward's business, and stays with its domain as it is.
    LeftOut(Reason),
    /// Somebody else has it, too, so that the whole is refused.
    Refused(Reason),
}

impl<'a> Adoption<'a> {
    fn work_out(&self) -> Worked {
        self.is_new()?;
        let (mut taken, mut left_out, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for function in &self.found.functions {
            match self.take(function) {
                Ok(one) => taken.push(one),
                Err(no) => match *no {
                    No::LeftOut(reason) => left_out.push(reason.on(function.function)),
                    No::Refused(reason) => {
                        refused.push(reason.on(function.function).for_request(self.name));
                    }
                },
            }
        }
        left_out.truncate(MAX_REASONS);
        if !refused.is_empty() {
            return Err(refused);
        }
        if taken.is_empty() {
            let required = format!("a VF that the domain {} has and that can be taken over", self.domain);
            let none = Reason::new(Rule::Domain, required, "none").for_request(self.name);
            let remedy = "give it VFs by a Spec: libvirt = \"…\", and [[partition.vf]]";
            left_out.insert(0, none.remedy(remedy));
            return Err(left_out);
        }
        let host = checks::host(self.inventory);
        if !host.is_empty() {
            return Err(host);
        }
        let spec = self.spec(&taken);
        goal::check_one(&spec)?;
        Ok((self.steps(&taken, spec), left_out))
    }

    /// Neither the name nor the domain is a partition's.
    fn is_new(&self) -> Result<(), Vec<Reason>> {
        let kind = PartitionKind::Domain(self.domain.clone());
        let mut others = self.state.partitions.iter();
        let other = others.find(|(name, other)| *name == self.name || other.spec.kind == kind);
        let Some((name, other)) = other else { return Ok(()) };
        let (required, found, remedy) = if other.spec.kind == kind {
            (
                "a domain that is no partition yet".to_owned(),
                format!("{kind} is partition {name} already"),
                format!("'ioward attach {name}' gives it more VFs"),
            )
        } else {
            (
                "a name that no partition has".to_owned(),
                format!("{name} is a partition: {}", other.spec.kind),
                "choose another one: --name NAME".to_owned(),
            )
        };
        Err(vec![Reason::new(Rule::Domain, required, found).for_request(self.name).remedy(remedy)])
    }

    /// The VF that a function is, if it is to be taken over.
    fn take(&self, function: &'a AdoptableFunction) -> Result<Taken<'a>, Box<No>> {
        let left_out = |required: &str, found: String, remedy: &str| {
            Box::new(No::LeftOut(Reason::new(Rule::Domain, required, found).remedy(remedy)))
        };
        if function.interface {
            let found = "it is an <interface type='hostdev'>, whose MAC and VLAN libvirt sets".to_owned();
            return Err(left_out(
                "a <hostdev managed='no'>",
                found,
                "make it one (virsh edit) to have it taken over",
            ));
        }
        if function.managed {
            let found = "it is managed='yes': libvirt binds it to its driver, and back".to_owned();
            let remedy = "make it managed='no' (virsh edit) to have it taken over";
            return Err(left_out("a <hostdev managed='no'>", found, remedy));
        }
        let pfs = &self.inventory.physical_functions;
        let mut vfs = pfs.iter().flat_map(|pf| pf.virtual_functions.iter().map(move |vf| (pf, vf)));
        let Some((pf, vf)) = vfs.find(|(_, vf)| vf.address == function.function) else {
            let found = "it is none that is seen on this host".to_owned();
            return Err(left_out("a VF of an SR-IOV adapter", found, ""));
        };
        if let Some(reason) = self.who_else_has(function, pf, vf) {
            return Err(Box::new(No::Refused(reason)));
        }
        if !(if self.found.running { function.live } else { function.next }) {
            let found = "its machine runs without it".to_owned();
            return Err(left_out("a VF that the domain has now", found, "turn the domain off and on first"));
        }
        if vf.driver.as_deref() != Some(VFIO) {
            let found = vf
                .driver
                .as_deref()
                .map_or("it has no driver".to_owned(), |it| format!("it is bound to {it}"));
            return Err(left_out(
                "a VF that is bound to vfio-pci",
                found,
                "bind it first (driverctl, sysfs)",
            ));
        }
        let obstacles = checks::adapter(self.inventory, pf);
        let mut obstacles = obstacles.into_iter();
        if let Some(obstacle) = obstacles.find(|obstacle| obstacle.blocks.giving_to(KindName::Domain)) {
            return Err(Box::new(No::LeftOut(obstacle.reason)));
        }
        if vf.flr == Some(false) {
            let found = "it can't (reset_method)".to_owned();
            return Err(left_out("a VF that can be reset by itself (FLR)", found, ""));
        }
        if let Some(other) = vf.iommu_group_shared_with.first() {
            let reason =
                Reason::new(Rule::IommuGroup, "an IOMMU group of its own", format!("{other} is in it, too"));
            return Err(Box::new(No::LeftOut(reason)));
        }
        Ok(Taken { function, pf, vf })
    }

    /// Who has it beside the domain.
    fn who_else_has(
        &self,
        function: &AdoptableFunction,
        pf: &PhysicalFunction,
        vf: &VirtualFunction,
    ) -> Option<Reason> {
        let found = if let Some(owner) = self.state.owner(VfId { pf: pf.address, index: vf.index }) {
            format!("it is {owner}")
        } else if let Some(other) = &function.also_of {
            format!("the domain {other} has it in its definition, too")
        } else if let Some(used) = vf.in_use_by_host.first() {
            used.to_string()
        } else {
            let has_it = self.found.running && function.live;
            match &vf.holder {
                None => return None,
                Some(Holder::Nobody) if !has_it => return None,
                Some(Holder::Process(process)) if has_it && is_machine_of(self.found, process) => {
                    return None;
                }
                Some(Holder::Nobody) => "libvirt says so, and no process has it open".to_owned(),
                Some(holder) => format!("it is held by {holder}"),
            }
        };
        let required = format!("a VF that the domain {} alone has", self.domain);
        Some(
            Reason::new(Rule::VfFree, required, found)
                .remedy("take it out of one of them first (virsh edit)"),
        )
    }

    fn spec(&self, taken: &[Taken<'_>]) -> PartitionSpec {
        let aliases = self.found.functions.iter().filter_map(|function| function.alias.as_deref());
        // A name that a device which is left out would have: its alias stays where it is.
        let left = aliases.filter_map(|alias| alias.strip_prefix(ALIASES[0])?.parse().ok());
        let own = taken.iter().filter_map(|taken| taken.function.vf.clone());
        let own: BTreeSet<Name> = own.collect();
        let mut names: BTreeSet<Name> = left.filter(|name| !own.contains(name)).collect();
        let mut macs = BTreeSet::new();
        let mut spec = PartitionSpec::new(self.name.clone(), self.domain.clone());
        for Taken { function, pf, vf } in taken {
            let others = |name: &Name| own.contains(name) && function.vf.as_ref() != Some(name);
            let name = vf_name(function, pf.class, |name| names.contains(name) || others(name));
            names.insert(name.clone());
            spec.vfs.push(request(name, pf, vf, &mut macs));
        }
        spec
    }

    fn steps(&self, taken: &[Taken<'_>], spec: PartitionSpec) -> Vec<Step> {
        let pfs: BTreeMap<Bdf, &PhysicalFunction> =
            taken.iter().map(|taken| (taken.pf.address, taken.pf)).into_map();
        let new = pfs.into_iter().filter(|(pf, _)| !self.state.adapters.contains_key(pf));
        let mut steps: Vec<_> = new.map(|(pf, function)| hold(self.inventory, pf, function)).collect();
        let owners = spec.vfs.iter().map(|vf| Owner { partition: spec.name.clone(), vf: vf.name.clone() });
        let given: Vec<_> = owners
            .zip(&spec.vfs)
            .zip(taken)
            .map(|((owner, request), taken)| (owner, noted(request, taken)))
            .collect();
        steps.push(Step::DefinePartition { to: spec.clone(), from: None });
        for (owner, to) in given {
            let vf = to.vf;
            steps.push(Step::Assign { owner: owner.clone(), to });
            steps.push(Step::AdoptVf { owner, vf });
        }
        steps
    }
}

/// Whether a process is the machine of a domain.
pub(crate) fn is_machine_of(found: &Adoptable, process: &Process) -> bool {
    let is_named = || matches!(&process.runs, Runs::LibvirtDomain { name } if name.as_str() == found.name);
    found.pid.map_or_else(is_named, |pid| pid == process.pid)
}

/// Has an adapter give as many VFs from now on as it does: they are what it is left with, too.
fn hold(inventory: &Inventory, pf: Bdf, function: &PhysicalFunction) -> Step {
    let num_vfs = function.num_vfs();
    let original = AdapterOriginal { num_vfs, autoprobe: function.drivers_autoprobe.unwrap_or(true) };
    let wanted = Some(VfCount::Exactly(num_vfs));
    let to = AdapterState { original, wanted, identity: Identity::of(function, inventory) };
    Step::HoldAdapter { pf, to, from: None }
}

/// The name of its alias, where that is one; or else the next of its class.
fn vf_name(function: &AdoptableFunction, class: Class, is_taken: impl Fn(&Name) -> bool) -> Name {
    let alias = function.alias.as_deref().unwrap_or_default();
    let named =
        ALIASES.iter().find_map(|prefix| alias.strip_prefix(prefix)).and_then(|name| name.parse().ok());
    let named = function.vf.clone().or(named).filter(|name| !is_taken(name));
    let numbered = || {
        (0..=u32::MAX)
            .find_map(|n| format!("{}{n}", class.vf_prefix()).parse().ok().filter(|name| !is_taken(name)))
    };
    named.or_else(numbered).unwrap_or_else(|| unreachable!("a domain has fewer VFs than there are numbers"))
}

/// What a Spec says of a VF as it is. What is not set, and what its adapter can't set, is left out.
fn request(
    name: Name,
    pf: &PhysicalFunction,
    vf: &VirtualFunction,
    macs: &mut BTreeSet<MacAddress>,
) -> VfRequest {
    let mut request = VfRequest { pf: Some(pf.address), ..VfRequest::new(name, pf.class) };
    let can = |capability| pf.capabilities.as_ref().is_none_or(|all| all.contains(&capability));
    let is_settable = |setting: Setting| setting.class() == pf.class && setting.capability().is_none_or(can);
    let mut found = VfSettings::default();
    for (setting, value) in vf.settings.values().filter(|(setting, _)| is_settable(*setting)) {
        found.set(setting, value);
    }
    // The ports of a bond may have one MAC; a Spec says it of one VF.
    request.mac = found.mac.filter(|mac| mac.is_unicast() && macs.insert(*mac));
    request.vlan = found.vlan.filter(|vlan| Some(*vlan) != Vlan::new(0));
    request.trust = found.trust;
    request.spoofchk = found.spoofchk;
    let is_set = |rate: &BitRate| rate.megabits() > 0;
    request.min_tx_rate = found.min_tx_rate.filter(is_set).map(Guarantee::Rate);
    request.max_tx_rate = found.max_tx_rate.filter(is_set);
    request.link_state = found.link_state.filter(|state| *state != LinkState::Auto);
    request.queues = found.queues.filter(|queues| *queues >= compat::LEAST_QUEUES);
    request.interrupts = found.interrupts.filter(|interrupts| *interrupts >= compat::LEAST_INTERRUPTS);
    request
}

/// A VF as it is found is how it is to be, and how it is left.
fn noted(request: &VfRequest, Taken { pf, vf, .. }: &Taken<'_>) -> Assignment {
    let settings = VfSettings { online: vf.settings.online, ..request.settings() };
    Assignment {
        address: Some(vf.address),
        original_settings: settings.restored_from(&vf.settings),
        settings,
        original_driver: Some(vf.driver.clone()),
        ..Assignment::new(VfId { pf: pf.address, index: vf.index })
    }
}

/// Forgets a domain and what it has. Its adapters are let go of with as many VFs as they give.
fn release(inventory: &Inventory, state: &State, name: &Name) -> Result<Vec<Step>, Vec<Reason>> {
    let present = goal::existing(state, name)?;
    if present.spec.kind.name() != KindName::Domain {
        let what = match present.spec.kind.name() {
            KindName::Machine => "a machine of ioward's own, which has its VFs from nobody else".to_owned(),
            _ => format!("{}, whose interfaces come from ioward's VFs", present.spec.kind),
        };
        let reason = Reason::new(Rule::PartitionKind, "a domain of libvirt's, which keeps its VFs", what);
        let remedy = format!("'ioward remove {name}' forgets it and takes its VFs back");
        return Err(vec![reason.for_request(name).remedy(remedy)]);
    }
    let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
    let mut steps = Vec::new();
    for (vf, held) in present.vfs.iter().filter(|(_, held)| held.attached) {
        steps.push(Step::ReleaseVf { owner: owner(vf), vf: held.vf });
    }
    if present.channel {
        steps.push(Step::DestroyChannel { partition: name.clone() });
    }
    for (vf, held) in &present.vfs {
        let from = Assignment { attached: false, attached_in_doubt: false, ..held.clone() };
        steps.push(Step::Unassign { owner: owner(vf), from });
    }
    steps.push(Step::UndefinePartition { from: present.spec.clone() });
    let is_others =
        |pf: Bdf| state.assignments().any(|(owner, held)| held.vf.pf == pf && owner.partition != *name);
    let pfs: BTreeSet<Bdf> = present.vfs.values().map(|held| held.vf.pf).collect();
    for pf in pfs.into_iter().filter(|pf| !is_others(*pf)) {
        let Some(held) = state.adapters.get(&pf) else { continue };
        steps.extend(let_go(inventory, pf, held));
    }
    Ok(steps)
}

/// Lets go of an adapter whose VFs stay.
fn let_go(inventory: &Inventory, pf: Bdf, held: &AdapterState) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut from = held.clone();
    if let Some(function) = inventory.physical_function(pf).filter(|function| function.sriov.is_some()) {
        from.original.num_vfs = function.num_vfs();
        if from != *held {
            steps.push(Step::HoldAdapter { pf, to: from.clone(), from: Some(held.clone()) });
        }
        let to = held.original.autoprobe;
        if function.drivers_autoprobe == Some(!to) {
            steps.push(Step::SetAutoprobe { pf, to, from: !to });
        }
    }
    steps.push(Step::ReleaseAdapter { pf, from });
    steps
}
