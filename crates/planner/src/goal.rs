//! From an intent to the wanted end: [`Goal`]. Rules on the request itself, which need no look at the host.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    AdapterSpec, Assignment, Guarantee, Intent, IntoMap, Inventory, KindName, Name, OutOfService, Owner,
    PartitionKind, PartitionSpec, PartitionState, PhysicalFunction, Reason, Rule, Spec, State, VfCount,
    VfRequest, nearest,
};
use ioward_pci::Bdf;

use crate::{
    compat::{self, Need},
    drivers,
    evacuate::Evacuation,
    steps,
};

/// The end that a plan is to reach. Whatever it does not name stays as it is.
#[derive(Default)]
pub(crate) struct Goal {
    /// Partitions that are to be so, in the order of the Spec.
    pub partitions: Vec<PartitionGoal>,
    /// Running partitions that are to be stopped.
    pub stop: BTreeSet<Name>,
    /// A partition that is to go.
    pub remove: Option<Name>,
    /// A VF that was asked to be taken from its partition.
    pub detach: Option<Owner>,
    /// An adapter that is taken out of service, which all VFs leave.
    pub evacuation: Option<Evacuation>,
    /// An adapter that is in service again, with the note of it before.
    pub returns: Option<(Bdf, OutOfService)>,
    /// Adapters that the Spec names, with the number of VFs it gives them.
    pub adapters: BTreeMap<Bdf, Option<VfCount>>,
    /// Partitions that the Spec names and that are as it wants them.
    pub settled: Vec<Name>,
    /// What becomes of standbys whose VFs are not asked for.
    pub standbys: Unasked,
    /// Partitions whose VFs are decided anew.
    concerned: BTreeSet<Name>,
}

/// What becomes of standbys on bridges whose VFs are not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unasked {
    /// Those stay whose VFs were not asked for before: an evacuation has left them out.
    #[default]
    AsBefore,
    /// They go.
    End,
    /// They stay: the machine is to be moved.
    Stay,
}

/// A partition as it is to be.
pub(crate) struct PartitionGoal {
    /// Its Spec.
    pub spec: PartitionSpec,
    /// Whether the plan starts it.
    pub start: bool,
}

impl Goal {
    /// The goal of an intent.
    ///
    /// # Errors
    /// When it makes no sense by itself, or not in this state.
    pub fn of(inventory: &Inventory, state: &State, intent: &Intent) -> Result<Self, Vec<Reason>> {
        let one = |spec, start| Self::of_partitions(vec![PartitionGoal { spec, start }]);
        match intent {
            Intent::Apply { spec } => apply(inventory, state, spec),
            Intent::Remove { partition } => {
                let present = existing(state, partition)?;
                // What others run is only forgotten.
                let is_stopped = present.running && present.spec.machine().is_some();
                let stop = is_stopped.then(|| partition.clone()).into_iter().collect();
                let concerned = BTreeSet::from([partition.clone()]);
                Ok(Self { stop, remove: Some(partition.clone()), concerned, ..Self::default() })
            }
            Intent::Start { partition } => {
                let present = startable(state, partition)?;
                Ok(if present.running { Self::default() } else { one(present.spec.clone(), true) })
            }
            Intent::Stop { partition } => {
                let running = startable(state, partition)?.running;
                Ok(Self { stop: running.then(|| partition.clone()).into_iter().collect(), ..Self::default() })
            }
            Intent::EvacuateHost => {
                let runs = |partition: &&PartitionState| {
                    partition.running && partition.spec.kind.name() != KindName::Namespace
                };
                let stop =
                    state.partitions.values().filter(runs).map(|partition| partition.spec.name.clone());
                Ok(Self { stop: stop.collect(), ..Self::default() })
            }
            Intent::Attach { partition, vfs } => {
                let mut spec = existing(state, partition)?.spec.clone();
                if let Some(vf) = vfs.iter().find(|vf| spec.vf(&vf.name).is_some()) {
                    let required = format!("a name that no VF of {partition} has");
                    let reason =
                        Reason::new(Rule::VfNameFree, required, format!("'{}' is one of its VFs", vf.name));
                    return Err(vec![
                        reason.for_request(partition).remedy("choose another name, or detach that VF first"),
                    ]);
                }
                spec.vfs.extend(vfs.iter().cloned());
                // Named by whoever asks, and not by a Spec: it is not there.
                for vf in vfs {
                    let others = vf.aparts().map(|apart| apart.vf.owner(partition));
                    let mut others = others.filter(|other| other.partition == *partition);
                    if let Some(other) = others.find(|other| spec.vf(&other.vf).is_none()) {
                        let owner = Owner { partition: partition.clone(), vf: vf.name.clone() };
                        let reason = no_such_vf(&spec, &other.vf).for_request(owner).key("apart_from");
                        return Err(vec![reason]);
                    }
                }
                check_one(&spec)?;
                let wanted = Wanted::of(state, std::slice::from_ref(&spec));
                let nobody = apart_from_nobody(&wanted, &spec);
                if !nobody.is_empty() {
                    return Err(nobody
                        .into_iter()
                        .map(|reason| Reason { rule: Rule::VfExists, ..reason })
                        .collect());
                }
                Ok(one(spec, false))
            }
            Intent::Detach { partition, vf } => {
                let mut spec = existing(state, partition)?.spec.clone();
                if spec.vf(vf).is_none() {
                    return Err(vec![no_such_vf(&spec, vf).for_request(partition)]);
                }
                spec.leave_out(vf);
                let detach = Owner { partition: partition.clone(), vf: vf.clone() };
                Ok(Self { detach: Some(detach), ..one(spec, false) })
            }
            Intent::Depart { partition } => {
                let mut spec = existing(state, partition)?.spec.clone();
                spec.vfs.clear();
                Ok(Self { standbys: Unasked::Stay, ..one(spec, false) })
            }
            // These go other ways.
            Intent::Reconcile { .. }
            | Intent::Adopt { .. }
            | Intent::Release { .. }
            | Intent::Evacuate { .. }
            | Intent::Return { .. }
            | Intent::Failover { .. } => Ok(Self::default()),
        }
    }

    /// A question about one partition, which decides nothing: all that is held stays.
    pub fn question(adapters: &[AdapterSpec], partition: &PartitionSpec) -> Self {
        Self {
            partitions: vec![PartitionGoal { spec: partition.clone(), start: false }],
            adapters: adapters.iter().map(|adapter| (adapter.pf, adapter.count())).into_map(),
            ..Self::default()
        }
    }

    /// All of these partitions are decided anew.
    pub fn of_partitions(partitions: Vec<PartitionGoal>) -> Self {
        let concerned = partitions.iter().map(|partition| partition.spec.name.clone()).collect();
        Self { partitions, concerned, ..Self::default() }
    }

    /// Every VF that is asked for.
    pub fn needs(&self) -> impl Iterator<Item = Need<'_>> {
        let specs = self.partitions.iter().map(|partition| &partition.spec);
        specs.flat_map(|partition| partition.vfs.iter().map(move |request| Need { partition, request }))
    }

    /// Partitions whose VFs are decided anew.
    pub fn concerned(&self) -> &BTreeSet<Name> {
        &self.concerned
    }

    /// Whether this partition's VFs are decided anew.
    pub fn concerns(&self, partition: &Name) -> bool {
        self.concerned.contains(partition)
    }
}

fn apply(inventory: &Inventory, state: &State, spec: &Spec) -> Result<Goal, Vec<Reason>> {
    check(spec)?;
    let pfs = inventory.physical_functions.iter().map(|pf| (pf.address, pf)).into_map();
    let wanted = Wanted::of(state, &spec.partitions);
    let mut settled = Vec::new();
    let mut reasons = Vec::new();
    let mut partitions = Vec::new();
    for partition in &spec.partitions {
        let present = state.partitions.get(&partition.name);
        if present.is_some_and(|present| is_settled(&pfs, present, partition)) {
            settled.push(partition.name.clone());
            continue;
        }
        reasons.extend(present.and_then(|present| changed_while_running(present, partition)));
        reasons.extend(present.and_then(|present| changed_kind(present, partition)));
        reasons.extend(taken_by_another(&wanted, partition));
        reasons.extend(apart_from_nobody(&wanted, partition));
        // A domain is as it is, and a namespace is there.
        let start = present.is_none() && partition.machine().is_some();
        partitions.push(PartitionGoal { spec: partition.clone(), start });
    }
    let mut goal = Goal { settled, standbys: Unasked::End, ..Goal::of_partitions(partitions) };
    goal.adapters = spec.adapters.iter().map(|adapter| (adapter.pf, adapter.count())).into_map();
    if reasons.is_empty() { Ok(goal) } else { Err(reasons) }
}

/// Whether a partition is as it is wanted, down to its VFs: nothing has to be decided about it, nor done.
fn is_settled(
    pfs: &BTreeMap<Bdf, &PhysicalFunction>,
    present: &PartitionState,
    wanted: &PartitionSpec,
) -> bool {
    let follows_link = |vf: &VfRequest| matches!(vf.min_tx_rate, Some(Guarantee::Percent(_)));
    let is_sound = |held: &Assignment| {
        let Some(pf) = pfs.get(&held.vf.pf) else { return false };
        let function = pf.virtual_function(held.vf.index);
        let kind = wanted.kind.name();
        let is_sound = |vf| drivers::is_ready(kind, pf, vf) && !steps::is_bare(held, vf);
        held.is_handed_over() && !held.attached_in_doubt && function.is_some_and(is_sound)
    };
    present.spec == *wanted
        && present.vfs.len() == wanted.vfs.len()
        && present.standbys.keys().all(|vf| wanted.vf(vf).is_some())
        && has_its_channel(present)
        && !present.channel_in_doubt
        && !wanted.vfs.iter().any(follows_link)
        && present.vfs.values().all(is_sound)
}

/// Whether a partition has a channel as it should: with its first VF, but for a domain that has what it had before it was one.
fn has_its_channel(present: &PartitionState) -> bool {
    let may_lack_it = present.spec.kind.name() == KindName::Domain;
    present.channel != present.vfs.is_empty() || may_lack_it && !present.channel
}

fn no_such_vf(partition: &PartitionSpec, vf: &Name) -> Reason {
    let names: Vec<_> = partition.vfs.iter().map(|vf| vf.name.as_str()).collect();
    let found = if names.is_empty() { "it has none".to_owned() } else { names.join(", ") };
    Reason::new(Rule::VfExists, format!("a VF '{vf}' of {}", partition.name), found)
}

/// The partitions of a Spec, beside those that are held.
struct Wanted<'a> {
    state: &'a State,
    all: &'a [PartitionSpec],
    by_name: BTreeMap<&'a Name, &'a PartitionSpec>,
    /// Domains and namespaces that are held and that the Spec does not name.
    others: Vec<(&'a Name, &'a PartitionKind)>,
}

impl<'a> Wanted<'a> {
    fn of(state: &'a State, all: &'a [PartitionSpec]) -> Self {
        // Of two with one name, which a Spec has not, the first.
        let by_name = all.iter().rev().map(|partition| (&partition.name, partition)).into_map();
        let held = state.partitions.iter().map(|(name, partition)| (name, &partition.spec.kind));
        let is_other = |(name, kind): &(&Name, &PartitionKind)| {
            !matches!(kind, PartitionKind::Machine(_)) && !by_name.contains_key(name)
        };
        let others = held.filter(is_other).collect();
        Self { state, all, by_name, others }
    }
}

/// VFs of a partition that are to be apart from one that is neither in the Spec nor held. What a partition has asked for already
/// stays: the other may have gone since.
fn apart_from_nobody(wanted: &Wanted<'_>, partition: &PartitionSpec) -> Vec<Reason> {
    let state = wanted.state;
    let held = || state.partitions.values().map(|partition| &partition.spec);
    let before = state.partitions.get(&partition.name).map(|present| &present.spec);
    // One that this Spec names is as the Spec says, whatever is held of it.
    let of = |name: &Name| {
        let in_spec = wanted.by_name.get(name).copied();
        in_spec.or_else(|| Some(&state.partitions.get(name)?.spec))
    };
    let mut reasons = Vec::new();
    for vf in &partition.vfs {
        let asked_before = before.and_then(|before| before.vf(&vf.name)).map_or(&[][..], |vf| &vf.apart_from);
        for apart in vf.apart_from.iter().filter(|apart| !asked_before.contains(apart)) {
            let other = apart.vf.owner(&partition.name);
            let found = match of(&other.partition) {
                Some(there) if there.vf(&other.vf).is_some() => continue,
                Some(_) => format!("{} has no VF '{}'", other.partition, other.vf),
                None => format!("there is no partition '{}'", other.partition),
            };
            let all = wanted.all.iter().chain(held());
            let all = all.flat_map(|partition| {
                partition.vfs.iter().map(|vf| format!("{}/{}", partition.name, vf.name))
            });
            let all: BTreeSet<String> = all.collect();
            let remedy = match nearest(&other.to_string(), all.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => "one that comes later says it itself: it holds for both".to_owned(),
            };
            let owner = Owner { partition: partition.name.clone(), vf: vf.name.clone() };
            let reason = Reason::new(Rule::Redundancy, format!("a VF {other} to be apart from"), found);
            reasons.push(reason.for_request(owner).key("apart_from").remedy(remedy));
        }
    }
    reasons
}

pub(crate) fn existing<'a>(state: &'a State, partition: &Name) -> Result<&'a PartitionState, Vec<Reason>> {
    state.partitions.get(partition).ok_or_else(|| {
        let names: Vec<_> = state.partitions.keys().take(8).map(Name::as_str).collect();
        let found = if names.is_empty() {
            "there are no partitions".to_owned()
        } else {
            format!("there are: {}", names.join(", "))
        };
        vec![
            Reason::new(Rule::PartitionExists, format!("a partition '{partition}'"), found)
                .for_request(partition),
        ]
    })
}

/// A partition that can be started and stopped.
fn startable<'a>(state: &'a State, partition: &Name) -> Result<&'a PartitionState, Vec<Reason>> {
    let present = existing(state, partition)?;
    if present.spec.kind.name() != KindName::Namespace {
        return Ok(present);
    }
    let reason = Reason::new(
        Rule::PartitionPhase,
        "a partition that is started and stopped",
        format!("{partition} is a {}: a namespace is not started", present.spec.kind),
    );
    Err(vec![reason.for_request(partition).remedy("start or stop what made the namespace")])
}

/// A partition stays what it is. A domain may be named otherwise, by its UUID or after it was renamed: libvirt knows whether it is
/// the same.
fn changed_kind(present: &PartitionState, wanted: &PartitionSpec) -> Option<Reason> {
    let (before, after) = (&present.spec.kind, &wanted.kind);
    let is_same = match (before, after) {
        (PartitionKind::Namespace(before), PartitionKind::Namespace(after)) => before == after,
        _ => before.name() == after.name(),
    };
    (!is_same).then(|| {
        let what = |kind: &PartitionKind| match kind {
            PartitionKind::Machine(_) => "a machine of ioward's own".to_owned(),
            other => other.to_string(),
        };
        Reason::new(Rule::PartitionKind, format!("{}, which is {}", wanted.name, what(before)), what(after))
            .for_request(&wanted.name)
            .remedy(format!("remove it first (ioward remove {}), or choose another name", wanted.name))
    })
}

/// A domain or a namespace is one partition. Those of one Spec are looked at with the Spec.
fn taken_by_another(all: &Wanted<'_>, wanted: &PartitionSpec) -> Option<Reason> {
    let (rule, key) = match &wanted.kind {
        PartitionKind::Machine(_) => return None,
        PartitionKind::Domain(_) => (Rule::Domain, "libvirt"),
        PartitionKind::Namespace(_) => (Rule::Namespace, "netns"),
    };
    let (other, _) = all.others.iter().find(|(_, kind)| **kind == wanted.kind)?;
    let required = format!("a {} that no other partition is", wanted.kind.name());
    let reason = Reason::new(rule, required, format!("{} is partition {other}", wanted.kind));
    Some(reason.for_request(&wanted.name).key(key).remedy(format!("ioward remove {other} gives it free")))
}

/// The Spec's own checks, of one partition.
pub(crate) fn check_one(partition: &PartitionSpec) -> Result<(), Vec<Reason>> {
    check(&Spec { version: 1, adapters: Vec::new(), partitions: vec![partition.clone()] })
}

/// The Spec's own checks, for requests that did not come through a Spec's text.
fn check(spec: &Spec) -> Result<(), Vec<Reason>> {
    let mut unsupported = Vec::new();
    for partition in &spec.partitions {
        for vf in &partition.vfs {
            let owner = Owner { partition: partition.name.clone(), vf: vf.name.clone() };
            let impossible = compat::possible(partition.kind.name(), vf).into_iter();
            unsupported.extend(impossible.map(|reason| reason.for_request(&owner)));
        }
    }
    if !unsupported.is_empty() {
        return Err(unsupported);
    }
    spec.validate().map_err(|error| {
        let reason = |problem: &ioward_model::SpecProblem| {
            Reason::new(Rule::SpecValid, "a Spec that makes sense", problem.to_string())
        };
        error.problems.iter().map(reason).collect()
    })
}

/// CPUs, memory, where they are, and what it starts from are fixed while a partition runs; its VFs are not.
fn changed_while_running(present: &PartitionState, wanted: &PartitionSpec) -> Option<Reason> {
    let (Some(machine), Some(wanted_machine)) = (present.spec.machine(), wanted.machine()) else {
        return None;
    };
    let changes = [
        ("cpus", machine.cpus != wanted_machine.cpus),
        ("memory", machine.memory != wanted_machine.memory),
        ("numa_node", present.spec.numa_node != wanted.numa_node),
        ("boot", machine.boot != wanted_machine.boot),
    ];
    let changed: Vec<_> = changes.iter().filter(|(_, changed)| *changed).map(|(name, _)| *name).collect();
    (present.running && !changed.is_empty()).then(|| {
        Reason::new(
            Rule::ChangeWhileRunning,
            format!("{} stopped", wanted.name),
            format!("it runs, and {} would change", changed.join(", ")),
        )
        .for_request(&wanted.name)
        .remedy(format!("stop it first: ioward stop {}", wanted.name))
    })
}
