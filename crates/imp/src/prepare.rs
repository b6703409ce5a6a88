//! Makes the VFs of a domain ready before libvirt starts its machine, also for a start that ioward was not asked for: libvirt's hook asks
//! (`ioward libvirt-hook`), and libvirt waits for the answer.
//!
//! ```text
//!   which of the functions in the definition are ioward's? ──none──> ready
//!     │
//!   each there, with its settings, on vfio-pci? ──yes──> ready
//!     │ no
//!   a change of them, or the restoring after a boot, is under way ──> it is waited for, within a bound
//!   nobody changes anything ──> they are made so, as after a boot ──> ready, or why not
//! ```
//! libvirt holds the domain meanwhile, and whoever asks it about that waits for the hook: nothing here asks libvirt. What is known of
//! domains comes from records, and what is done is done to adapters and VFs only.

use std::{sync::Arc, time::Duration};

use ioward_api::{PrepareRequest, Prepared};
use ioward_hypervisor::libvirt::Uuid;
use ioward_model::{
    Difference, Drift, Intent, Inventory, Name, Options, Owner, PartitionKind, PartitionStatus, Reason, Rule,
    State, Step, VfId,
};
use ioward_pci::Bdf;
use ioward_planner::Comparison;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    changing::{ChangeGuard, Holder},
    error::ImpError,
    imp::Imp,
    planning::{plan_for, refused},
    workers::off_the_workers,
};

/// The longest that libvirt is kept waiting, whatever the request says.
const MAX_WAIT: Duration = Duration::from_secs(600);
/// Between two looks whether what is under way has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What to do about a definition that has a VF where it was before its adapter moved.
const BEHIND: &str =
    "ioward puts the definition right while the domain is off, see 'ioward drift'; start it again then";

/// The VFs of ioward's that a domain is about to start with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    /// As libvirt has it.
    domain: String,
    partition: Name,
    vfs: Vec<WantedVf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct WantedVf {
    owner: Owner,
    vf: VfId,
    /// Where the definition says that it is.
    function: Bdf,
}

/// How an attempt went.
enum Attempt {
    Ready,
    /// What it waits for may come to its end.
    Later(Vec<Reason>),
    /// Waiting does not help.
    Never(Vec<Reason>),
}

/// What was found at one moment.
struct Found {
    inventory: Inventory,
    state: State,
    machines: Vec<PartitionStatus>,
    /// The host has booted, and is not restored yet.
    booted: bool,
}

impl Imp {
    /// Makes the VFs ready that a domain is about to start with. It may be asked any number of times.
    ///
    /// # Errors
    /// When one is not ready within the bound, or is another partition's.
    pub async fn prepare(
        self: &Arc<Self>,
        uuid: Uuid,
        request: &PrepareRequest,
    ) -> Result<Prepared, ImpError> {
        let until = Instant::now() + Duration::from_secs(request.wait_seconds).min(MAX_WAIT);
        loop {
            let domains = self.hypervisor.domains().await?;
            let Some(wanted) = wanted(&self.state(), &domains, uuid, request).map_err(refused)? else {
                return Ok(Prepared::default());
            };
            let left = match self.attempt(&wanted, until).await? {
                Attempt::Ready => {
                    let vfs = wanted.vfs.into_iter().map(|vf| vf.owner.vf).collect();
                    return Ok(Prepared { partition: Some(wanted.partition), vfs });
                }
                Attempt::Never(reasons) => return Err(refused(reasons)),
                Attempt::Later(reasons) => reasons,
            };
            if Instant::now() + LOOK_AGAIN >= until {
                return Err(refused(left));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn attempt(self: &Arc<Self>, wanted: &Wanted, until: Instant) -> Result<Attempt, ImpError> {
        let is_own_start = self.executor.runner.starting.has(&wanted.partition);
        let is_changed = |vf: &WantedVf| self.operations.claims.has(vf.vf);
        if !is_own_start && wanted.vfs.iter().any(is_changed) {
            return Ok(Attempt::Later(wanted.under_way()));
        }
        let unready = self.found().await?.unready(wanted);
        if unready.reasons.is_empty() {
            return Ok(Attempt::Ready);
        }
        let guard = match self.changing.try_begin(Holder::Look) {
            Ok(guard) => guard,
            // The plan that starts it has seen to its VFs before.
            Err(_) if is_own_start => return Ok(Attempt::Never(unready.reasons)),
            Err(Holder::Look) => return Ok(Attempt::Later(unready.reasons)),
            Err(Holder::Change | Holder::Ended) => return Ok(Attempt::Later(wanted.under_way())),
        };
        // Whoever asks may go away in the middle of it.
        let making = tokio::spawn(Arc::clone(self).make_ready(wanted.clone(), guard));
        match timeout_at(until, making).await {
            Ok(Ok(attempt)) => attempt,
            // It has ended in a panic, which the log has.
            Ok(Err(_)) => Ok(Attempt::Never(unready.reasons)),
            Err(_) => Ok(Attempt::Later(unready.reasons)),
        }
    }

    /// Makes them ready, with the right to change something.
    async fn make_ready(self: Arc<Self>, wanted: Wanted, _guard: ChangeGuard) -> Result<Attempt, ImpError> {
        let found = self.found().await?;
        let before = found.unready(&wanted);
        let intent = found.intent(&before.drifts);
        let Found { inventory, state, .. } = found;
        let plan = off_the_workers(move || plan_for(&inventory, &state, &intent, &Options::default())).await;
        let mut plan = plan?;
        plan.steps.retain(is_of_the_host);
        if plan.steps.is_empty() {
            return Ok(if before.reasons.is_empty() { Attempt::Ready } else { self.not_yet(before.reasons) });
        }
        let failures = self.reconciler.repair(&plan).await;
        let after = self.found().await?.unready(&wanted);
        let is_repaired = |drift: &Drift| after.drifts.iter().all(|left| left.what != drift.what);
        let repaired = before.drifts.into_iter().filter(is_repaired).collect::<Vec<_>>();
        self.reconciler.tell_repaired_at_once(&repaired);
        if after.reasons.is_empty() {
            return Ok(Attempt::Ready);
        }
        let failed = failures.into_iter().map(|(step, error)| wanted.not_ready(format!("{step}: {error}")));
        Ok(self.not_yet(failed.chain(after.reasons).collect()))
    }

    /// After a boot, drivers and adapters may come yet.
    fn not_yet(&self, reasons: Vec<Reason>) -> Attempt {
        if self.looks.has_booted() { Attempt::Later(reasons) } else { Attempt::Never(reasons) }
    }

    async fn found(&self) -> Result<Found, ImpError> {
        let inventory = self.looks.look().await?;
        let machines = self.hypervisor.partitions().await?;
        Ok(Found { inventory, state: self.notes.state(), machines, booted: self.looks.has_booted() })
    }
}

/// Whether a step is about adapters and VFs alone.
fn is_of_the_host(step: &Step) -> bool {
    matches!(
        step,
        Step::SetVfCount { .. }
            | Step::SetAutoprobe { .. }
            | Step::ConfigureVf { .. }
            | Step::BindDriver { .. }
    )
}

/// The VFs that are not as they are to be.
#[derive(Debug, Default, PartialEq)]
struct Unready {
    drifts: Vec<Drift>,
    /// Empty when all of them are.
    reasons: Vec<Reason>,
}

impl Found {
    fn unready(&self, wanted: &Wanted) -> Unready {
        let Self { inventory, state, machines, booted } = self;
        // What is missing is made by whoever needs it, as it is after a boot.
        let comparison = Comparison { inventory, state, machines, booted: true };
        let is_missing = |vf: &WantedVf| self.address(vf.vf).is_none();
        let mut unready = Unready::default();
        for drift in comparison.differences() {
            let broken = wanted.vfs.iter().find(|wanted| match &drift.what {
                Difference::AdapterMissing { pf, .. } => wanted.vf.pf == *pf,
                // Others of the adapter that are missing are no reason to make all of them anew, unless that is about to be done.
                Difference::VfCount { pf, .. } => {
                    let is_restored = *booted && drift.left_because.is_none();
                    wanted.vf.pf == *pf && (is_restored || is_missing(wanted))
                }
                Difference::Driver { vf, .. } | Difference::Settings { vf, .. } => wanted.vf == *vf,
                Difference::PartitionMissing { .. }
                | Difference::ChannelMissing { .. }
                | Difference::NotAttached { .. }
                | Difference::StillAttached { .. }
                | Difference::StandbyMissing { .. } => false,
            });
            let Some(broken) = broken else { continue };
            let reason = broken.not_ready(drift.what.to_string());
            unready.reasons.push(reason.remedy(drift.left_because.clone().unwrap_or_default()));
            unready.drifts.push(drift);
        }
        for vf in &wanted.vfs {
            match self.address(vf.vf) {
                Some(address) if address != vf.function => {
                    unready.reasons.push(vf.not_ready(format!("it is {address} now")).remedy(BEHIND));
                }
                None if unready.reasons.is_empty() => {
                    unready.reasons.push(vf.not_ready(format!("{} is not there", vf.vf)));
                }
                _ => {}
            }
        }
        unready
    }

    /// Where a VF is now, if it is there.
    fn address(&self, vf: VfId) -> Option<Bdf> {
        let pf = self.inventory.physical_function(vf.pf)?;
        pf.virtual_function(vf.index).map(|vf| vf.address)
    }

    fn intent(&self, drifts: &[Drift]) -> Intent {
        let running = self.machines.iter().filter(|machine| machine.running);
        Intent::Reconcile {
            drifts: drifts.iter().filter(|drift| drift.left_because.is_none()).cloned().collect(),
            start: Vec::new(),
            running: running.map(|machine| machine.name.clone()).collect(),
        }
    }
}

impl Wanted {
    fn not_ready(&self, found: String) -> Reason {
        let required = format!("the VFs of domain {} ready for its start", self.domain);
        Reason::new(Rule::VfReady, required, found).for_request(&self.partition)
    }

    fn under_way(&self) -> Vec<Reason> {
        let reason = self.not_ready("another change, which goes on".to_owned());
        vec![reason.remedy("start it again when that has ended: 'ioward changes' shows it")]
    }
}

impl WantedVf {
    fn not_ready(&self, found: String) -> Reason {
        Reason::new(Rule::VfReady, "it ready for the start of its domain", found)
            .on(self.function)
            .for_request(&self.owner)
    }
}

/// The VFs of ioward's among the functions of a domain. `None`: it has none, and is nobody ioward knows or cares for.
///
/// # Errors
/// When one is another partition's, or the domain's partition has the VF no more.
fn wanted(
    state: &State,
    domains: &[(Name, Uuid)],
    uuid: Uuid,
    request: &PrepareRequest,
) -> Result<Option<Wanted>, Vec<Reason>> {
    let partition = partition_of(state, domains, uuid, &request.name);
    let domain = &request.name;
    let (mut vfs, mut reasons) = (Vec::new(), Vec::new());
    for function in &request.functions {
        let address = function.address;
        let held = state.assignments().find(|(_, held)| held.address == Some(address));
        match (held, partition, &function.vf) {
            (Some((owner, held)), Some(partition), _) if owner.partition == *partition => {
                vfs.push(WantedVf { owner, vf: held.vf, function: address });
            }
            (Some((owner, _)), ..) => {
                let required = format!("that domain {domain} has nobody else's VF");
                let remedy = format!(
                    "take it out of the domain (virsh edit {domain}), or from the partition (ioward detach {} {}); if the partition is \
                     this domain, renamed or defined anew, apply its Spec again",
                    owner.partition, owner.vf
                );
                let reason = Reason::new(Rule::VfReady, required, format!("it is {owner}"));
                reasons.push(reason.on(address).remedy(remedy));
            }
            (None, Some(partition), Some(vf)) => {
                let owner = Owner { partition: partition.clone(), vf: vf.clone() };
                let held = state.partitions.get(partition).and_then(|noted| noted.vfs.get(vf));
                let (found, remedy) = match held {
                    Some(held) => {
                        let moved = || "none there: its adapter has moved".to_owned();
                        (
                            held.address.map_or_else(moved, |other| format!("it is {other} now")),
                            BEHIND.to_owned(),
                        )
                    }
                    None => (
                        "no such VF of the partition".to_owned(),
                        format!("take it out of the domain: virsh edit {domain}"),
                    ),
                };
                let required = format!("it at {address}, where the definition of domain {domain} has it");
                let reason = Reason::new(Rule::VfReady, required, found);
                reasons.push(reason.for_request(owner).remedy(remedy));
            }
            (None, ..) => {}
        }
    }
    if !reasons.is_empty() {
        return Err(reasons);
    }
    let wanted = |partition: &Name| Wanted { domain: domain.clone(), partition: partition.clone(), vfs };
    Ok(partition.map(wanted).filter(|wanted| !wanted.vfs.is_empty()))
}

/// The partition that a domain is: by the record of its UUID, and where there is none (they go with a boot of the host), by what its Spec
/// calls it.
fn partition_of<'a>(state: &'a State, domains: &[(Name, Uuid)], uuid: Uuid, name: &str) -> Option<&'a Name> {
    let is_called = |reference: &str| reference == name || reference.parse() == Ok(uuid);
    let is_it = |(partition, kind): (&Name, &PartitionKind)| match domains
        .iter()
        .find(|(recorded, _)| recorded == partition)
    {
        Some((_, recorded)) => *recorded == uuid,
        None => matches!(kind, PartitionKind::Domain(reference) if is_called(reference.as_str())),
    };
    let mut all = state.partitions.iter().map(|(name, noted)| (name, &noted.spec.kind));
    all.find(|partition| is_it(*partition)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use ioward_api::DomainFunction;
    use ioward_model::{Assignment, DomainRef, PartitionSpec, PartitionState};

    use super::*;

    const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
    const OTHER: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa1";

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// Partition `shop` is the domain that its Spec calls `web`, and has net0 at 01:10.0.
    fn state() -> State {
        let reference: DomainRef = "web".parse().unwrap();
        let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
        let held = Assignment { address: "0000:01:10.0".parse().ok(), ..Assignment::new(vf) };
        let shop = PartitionState {
            spec: PartitionSpec::new(name("shop"), reference),
            running: false,
            channel: true,
            channel_in_doubt: false,
            standbys: Default::default(),
            vfs: [(name("net0"), held)].into(),
        };
        let mut state = State::default();
        state.partitions.insert(name("shop"), shop);
        state
    }

    fn asks(domain: &str, function: &str, vf: Option<&str>) -> PrepareRequest {
        let functions = vec![DomainFunction { address: function.parse().unwrap(), vf: vf.map(name) }];
        PrepareRequest { name: domain.to_owned(), functions, wait_seconds: 0 }
    }

    fn wanted_by(
        request: &PrepareRequest,
        recorded: Option<&str>,
        uuid: &str,
    ) -> Result<Vec<String>, String> {
        let domains: Vec<_> =
            recorded.map(|uuid| (name("shop"), uuid.parse().unwrap())).into_iter().collect();
        let wanted = wanted(&state(), &domains, uuid.parse().unwrap(), request);
        let owners = |wanted: Wanted| wanted.vfs.iter().map(|vf| vf.owner.to_string()).collect();
        wanted
            .map(|wanted| wanted.map(owners).unwrap_or_default())
            .map_err(|reasons| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_domain_is_known_by_its_uuid_and_after_a_boot_by_what_its_spec_calls_it() {
        let (net0, ours) = ("0000:01:10.0", Some("net0"));
        let ok = |owner: &str| Ok(vec![owner.to_owned()]);
        assert_eq!(wanted_by(&asks("web", net0, ours), Some(UUID), UUID), ok("shop/net0"));
        assert_eq!(wanted_by(&asks("renamed", net0, ours), Some(UUID), UUID), ok("shop/net0"));
        assert_eq!(wanted_by(&asks("web", net0, ours), None, OTHER), ok("shop/net0"));
        // A VF that the domain had before it was a partition has no alias of ioward's.
        assert_eq!(wanted_by(&asks("web", net0, None), None, UUID), ok("shop/net0"));
    }

    #[test]
    fn another_domain_with_a_partitions_vf_is_refused_and_told_whose_it_is() {
        for (domain, recorded, uuid) in
            [("copy", Some(UUID), OTHER), ("web", Some(UUID), OTHER), ("copy", None, OTHER)]
        {
            let refused = wanted_by(&asks(domain, "0000:01:10.0", Some("net0")), recorded, uuid).unwrap_err();
            assert!(refused.contains("it is shop/net0") && refused.contains("virsh edit"), "{refused}");
        }
    }

    #[test]
    fn what_is_not_iowards_is_not_looked_at() {
        assert_eq!(wanted_by(&asks("other", "0000:05:00.0", None), Some(UUID), OTHER), Ok(Vec::new()));
        assert_eq!(wanted_by(&asks("other", "0000:05:00.0", Some("net0")), None, OTHER), Ok(Vec::new()));
        assert_eq!(wanted_by(&asks("web", "0000:05:00.0", None), Some(UUID), UUID), Ok(Vec::new()));
    }

    #[test]
    fn a_definition_that_is_behind_is_refused() {
        let refused = wanted_by(&asks("web", "0000:01:10.2", Some("net0")), Some(UUID), UUID).unwrap_err();
        assert!(refused.contains("it is 0000:01:10.0 now"), "{refused}");
        let refused = wanted_by(&asks("web", "0000:01:10.2", Some("net1")), Some(UUID), UUID).unwrap_err();
        assert!(refused.contains("no such VF") && refused.contains("virsh edit web"), "{refused}");
    }
}
