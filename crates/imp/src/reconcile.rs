//! Keeps the host as the state says: looks whenever the kernel says that something has changed, and now and then all the
//! same; tells what differs; repairs what may be repaired. After a boot of the host, that is everything.
//!
//! ```text
//!   uevent, link change ─┐
//!   30 s have passed ────┴─> look ─> differences ─┬─> told       (adapters that have moved are followed before)
//!                                                 └─> steps ─> done, each for itself ─> told
//! ```
//!
//! Nothing of this is in the journal: each step brings the host nearer to what is noted already, so a daemon that dies in the
//! middle leaves nothing but work for the next one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use ioward_hypervisor::PartitionStatus;
use ioward_model::{
    Difference, Drift, EventKind, Inventory, Name, Outcome, PartitionState, RowKey, State, Step,
};
use ioward_store::Change;
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::{Instant, sleep, timeout},
};

use crate::{
    drift::{Scene, lost_settings},
    error::{ImpError, error_chain},
    imp::Imp,
    notes::Must,
    order::Order,
    rollback::Left,
};

/// Between two looks that nothing gave cause for: the kernel does not tell everything.
const LOOK_EACH: Duration = Duration::from_secs(30);
/// After the kernel said that something has changed, it mostly says more.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// How long drivers, links and adapters may take to come after a boot of the host.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two attempts meanwhile, when nothing is told.
const TRY_EACH: Duration = Duration::from_secs(1);
/// Between two looks whether a plan has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So many steps are under way at once at most: each may be a machine that starts.
const AT_ONCE: usize = 8;

/// What is known of differences between the host and the state.
pub(crate) struct Settling {
    /// The boot in which the host was last as the state says.
    boot: Option<u64>,
    /// There was a boot since, and what it took is not restored yet.
    booted: AtomicBool,
    told: Mutex<Told>,
    at_it: AtomicBool,
}

/// Keeps changes from beginning.
struct AtIt<'a> {
    settling: &'a Settling,
    _guard: OwnedMutexGuard<()>,
}

impl Drop for AtIt<'_> {
    fn drop(&mut self) {
        self.settling.at_it.store(false, Ordering::Relaxed);
    }
}

#[derive(Default)]
struct Told {
    drifts: Vec<Drift>,
    failures: BTreeSet<String>,
    /// Partitions that did not start with the host: once is enough.
    not_started: BTreeSet<Name>,
}

/// What was found at one moment.
struct Found {
    inventory: Inventory,
    state: State,
    machines: Vec<PartitionStatus>,
    booted: bool,
    drifts: Vec<Drift>,
}

impl Found {
    fn scene(&self) -> Scene<'_> {
        let Self { inventory, state, machines, booted, .. } = self;
        Scene { inventory, state, machines, booted: *booted }
    }

    fn runs(&self, partition: &Name) -> bool {
        self.machines.iter().any(|machine| machine.running && machine.name == *partition)
    }

    fn is_noted_as_running_what_has_ended(&self) -> bool {
        self.state.partitions.iter().any(|(name, noted)| noted.running && !self.runs(name))
    }

    /// Partitions that are to start with the host, and do not run, or are not noted as running.
    fn to_start(&self) -> BTreeSet<Name> {
        let is_to_start = |(name, noted): &(&Name, &PartitionState)| {
            self.booted && noted.spec.autostart && !(noted.running && self.runs(name))
        };
        self.state.partitions.iter().filter(is_to_start).map(|(name, _)| name.clone()).collect()
    }
}

impl Settling {
    pub(crate) fn new(boot: Option<u64>) -> Self {
        Self { boot, booted: AtomicBool::new(false), told: Mutex::default(), at_it: AtomicBool::new(false) }
    }

    /// Whether it is a look that keeps changes from beginning.
    pub(crate) fn is_at_it(&self) -> bool {
        self.at_it.load(Ordering::Relaxed)
    }

    /// Whether the host has booted since it was as the state says, and what that took is not restored yet.
    pub(crate) fn has_booted(&self) -> bool {
        self.booted.load(Ordering::Relaxed)
    }

    fn at_it(&self, guard: OwnedMutexGuard<()>) -> AtIt<'_> {
        self.at_it.store(true, Ordering::Relaxed);
        AtIt { settling: self, _guard: guard }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Imp {
    /// Whether the host has booted since it was as the state says. Where that is not known (a state of an older ioward), it
    /// has if nothing is left of any partition: what the hypervisor knows goes with a boot.
    pub(crate) async fn look_whether_the_host_has_booted(&self) -> Result<(), ImpError> {
        let booted = match self.settling.boot {
            Some(boot) => boot != fingerprint(&self.run.boot),
            None => {
                let is_empty = self.notes.look(|state| state.partitions.is_empty());
                !is_empty && self.hypervisor.partitions().await?.is_empty()
            }
        };
        self.settling.booted.store(booted, Ordering::Relaxed);
        if !booted {
            self.note_boot();
        }
        Ok(())
    }

    fn note_boot(&self) {
        let boot = fingerprint(&self.run.boot);
        if self.settling.boot == Some(boot) {
            return;
        }
        // Without it, a daemon after this one restores what is there already, and finds nothing to do.
        let noted = self.notes.change(Must::BeKnown, |_| Vec::new(), vec![Change::Boot(boot)], |_| {});
        drop(noted);
    }

    /// Follows what happens on the host for as long as the daemon lives; after a boot of the host, restores it first.
    pub async fn follow_host(self: Arc<Self>) {
        let mut changes = self.fabric.changes().await;
        self.restore(&mut changes).await;
        loop {
            self.settle_or_say().await;
            if wait_for_change(&mut changes, LOOK_EACH).await {
                sleep(DEBOUNCE).await;
                while changes.try_recv().is_ok() {}
            }
        }
    }

    async fn settle_or_say(self: &Arc<Self>) -> Vec<Drift> {
        self.settle().await.unwrap_or_else(|error| {
            tracing::error!("cannot hold the host against the state: {}", error_chain(&error));
            Vec::new()
        })
    }

    /// After a boot: VF counts, settings, bindings and partitions are made as they were; those that are to start with the
    /// host are started. What is not there yet is waited for, within a bound, while everything else goes on.
    async fn restore(self: &Arc<Self>, changes: &mut mpsc::Receiver<()>) {
        if !self.settling.has_booted() {
            return;
        }
        self.events.emit(EventKind::HostBooted);
        let until = Instant::now() + RESTORE_TIMEOUT;
        let mut left = self.settle_or_say().await;
        while !left.is_empty() && Instant::now() < until {
            wait_for_change(changes, TRY_EACH).await;
            left = self.settle_or_say().await;
        }
        self.end_restoring(left).await;
    }

    /// What is not restored by now is not waited for any more.
    pub async fn end_restoring(&self, left: Vec<Drift>) {
        let machines = self.hypervisor.partitions().await.unwrap_or_default();
        let runs = |name: &Name| machines.iter().any(|machine| machine.running && machine.name == *name);
        let partitions = self.state().partitions;
        let stopped =
            partitions.into_iter().filter(|(name, partition)| partition.spec.autostart && !runs(name));
        let stopped = stopped.map(|(name, _)| name).collect();
        self.settling.booted.store(false, Ordering::Relaxed);
        self.note_boot();
        self.events.emit(EventKind::HostRestored { left, stopped });
    }

    /// How the host differs from the state now.
    ///
    /// # Errors
    /// While a plan is carried out, or when the host can't be looked at.
    pub async fn drift(&self) -> Result<Vec<Drift>, ImpError> {
        let guard = self.begin_change().await?;
        let _nothing_changes = self.settling.at_it(guard);
        Ok(self.find().await?.drifts)
    }

    /// Holds the host against the state, tells what is new, and repairs what may be repaired. What is left then.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub async fn settle(self: &Arc<Self>) -> Result<Vec<Drift>, ImpError> {
        // What a plan has half done is no drift.
        drop(self.once_nothing_changes().await);
        // Without keeping plans waiting, as long as there is nothing to be done.
        let found = self.find().await?;
        let is_repairable = found.drifts.iter().any(|drift| drift.left_because.is_none());
        if !found.booted
            && !is_repairable
            && !found.is_noted_as_running_what_has_ended()
            && !self.has_news_of_adapters(&found.inventory)
            && found.drifts == self.settling.told().drifts
        {
            return Ok(found.drifts);
        }
        let _nothing_changes = self.once_nothing_changes().await;
        self.note_those_gone("its machine is gone").await?;
        let mut found = self.find().await?;
        if self.follow_adapters(&found.inventory) {
            found = self.find().await?;
        }
        let start = self.tell_new(&found);
        let steps = found.scene().repairs(&found.drifts, &start);
        if steps.is_empty() {
            return Ok(found.drifts);
        }
        let failures = self.carry_out_best_effort(&steps).await;
        let after = self.find().await?.drifts;
        self.tell_repaired(&found.drifts, &after, failures);
        Ok(after)
    }

    /// Waits until nothing is being changed, and lets nothing begin as long as what it returns is there. It does not queue: a plan
    /// that begins the moment the one before has ended is not to be told that another change is under way.
    async fn once_nothing_changes(&self) -> AtIt<'_> {
        loop {
            match self.try_begin_change() {
                Some(guard) => return self.settling.at_it(guard),
                None => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Tells what is new; which partitions are to be started.
    fn tell_new(&self, found: &Found) -> BTreeSet<Name> {
        let mut told = self.settling.told();
        for drift in found.drifts.iter().filter(|drift| !told.drifts.contains(drift)) {
            self.events.emit(EventKind::DriftFound { drift: drift.clone() });
        }
        for drift in told.drifts.iter().filter(|drift| !found.drifts.contains(drift)) {
            self.events.emit(EventKind::DriftGone { drift: drift.clone() });
        }
        told.drifts.clone_from(&found.drifts);
        let broken = found.drifts.iter().filter(|drift| drift.left_because.is_some());
        let broken: BTreeSet<_> =
            broken.flat_map(|drift| drift.breaks.iter().map(|owner| owner.partition.clone())).collect();
        let mut start = found.to_start();
        start.retain(|name| !broken.contains(name) && !told.not_started.contains(name));
        start
    }

    fn tell_repaired(&self, before: &[Drift], after: &[Drift], failures: Vec<(Step, String)>) {
        let mut told = self.settling.told();
        for drift in before.iter().filter(|drift| drift.left_because.is_none() && !after.contains(drift)) {
            self.events.emit(EventKind::DriftRepaired { drift: drift.clone() });
        }
        for drift in after.iter().filter(|drift| !before.contains(drift)) {
            self.events.emit(EventKind::DriftFound { drift: drift.clone() });
        }
        told.drifts = after.to_vec();
        let mut failed = BTreeSet::new();
        for (what, error) in failures {
            if let Step::StartPartition { partition } = &what {
                told.not_started.insert(partition.clone());
            }
            let line = format!("{what}: {error}");
            if !told.failures.contains(&line) {
                self.events.emit(EventKind::RepairFailed { what: Box::new(what), error });
            }
            failed.insert(line);
        }
        told.failures = failed;
    }

    async fn find(&self) -> Result<Found, ImpError> {
        let inventory = self.look().await?;
        let machines = self.hypervisor.partitions().await?;
        let booted = self.settling.has_booted();
        let mut found = Found { inventory, state: self.state(), machines, booted, drifts: Vec::new() };
        found.drifts = found.scene().differences();
        let mut drifts = Vec::new();
        for drift in std::mem::take(&mut found.drifts) {
            if !matches!(drift.what, Difference::Settings { .. }) || self.is_still_so(&drift).await {
                drifts.push(drift);
            }
        }
        found.drifts = drifts;
        Ok(found)
    }

    /// Whether settings differ, while no partition is just changing them.
    async fn is_still_so(&self, drift: &Drift) -> bool {
        let Difference::Settings { vf, noted, .. } = &drift.what else { return true };
        let _kept_out = self.ownership.write(vf.pf).await;
        let Ok(present) = self.fabric.settings(*vf).await else { return false };
        self.notes.look(|state| state.assignment(*vf).map(|held| lost_settings(held, &present)))
            == Some(noted.clone())
    }

    /// Carries out steps, side by side where they have nothing in common. When one fails, what rests on it is left, and the
    /// others go on. Those that failed, with why.
    async fn carry_out_best_effort(self: &Arc<Self>, steps: &[Step]) -> Vec<(Step, String)> {
        let mut order = Order::best_effort(steps);
        let (mut left, mut failures) = (Left::default(), Vec::new());
        let mut under_way = FuturesUnordered::new();
        loop {
            while under_way.len() < AT_ONCE {
                let Some((n, step)) = order.begin().and_then(|n| Some((n, steps.get(n)?))) else { break };
                if left.holds_up(step) {
                    left.add(step);
                    order.done(n);
                } else {
                    under_way.push(async move { (n, step, self.repair(step).await) });
                }
            }
            let Some((n, step, result)) = under_way.next().await else { break };
            if let Err(error) = result {
                self.watch_stuck(step, &error);
                left.add(step);
                failures.push((step.clone(), error_chain(&error)));
            }
            order.done(n);
        }
        failures
    }

    async fn repair(self: &Arc<Self>, step: &Step) -> Result<(), ImpError> {
        let _kept_out = self.keep_out(step).await;
        let mut found = self.found_before(step).await?;
        let mut step = step.clone();
        if let (Step::ConfigureVf { vf, to }, Some(present)) = (&mut step, &found.settings_before) {
            // What its partition has changed meanwhile holds.
            let lost =
                self.notes.look(|state| state.assignment(*vf).map(|held| lost_settings(held, present)));
            *to = lost.unwrap_or_default();
        }
        if let Step::AttachVf { vf, .. } = &step {
            found.address = Some(self.fabric.vf_address(*vf).await?);
        }
        let outcome = self.do_step(&step, found).await.map_err(|failure| failure.error)?;
        self.note_repaired(&step, &outcome);
        self.tell_partitions(&step);
        Ok(())
    }

    /// Notes what the state could not know of a repair: where a VF is now, and that a partition runs.
    fn note_repaired(&self, step: &Step, outcome: &Outcome) {
        let rows = |state: &State| match step {
            Step::StartPartition { partition } => vec![RowKey::Partition(partition.clone())],
            Step::ConfigureVf { vf, .. } | Step::BindDriver { vf, .. } | Step::AttachVf { vf, .. } => {
                state.row_of(*vf)
            }
            _ => Vec::new(),
        };
        let noted = self.notes.change(Must::BeKnown, rows, Vec::new(), |state| match step {
            Step::StartPartition { .. } => state.record(step, outcome),
            Step::ConfigureVf { vf, .. } | Step::BindDriver { vf, .. } | Step::AttachVf { vf, .. } => {
                state.record_address(*vf, outcome.address);
            }
            _ => {}
        });
        // It is so, whether it can be written down or not; the log says it.
        drop(noted);
        if let Step::StartPartition { partition } = step {
            self.events.emit(EventKind::PartitionStarted { partition: partition.clone() });
        }
    }
}

/// Waits for news, or until it has waited long enough. Whether there is news.
async fn wait_for_change(changes: &mut mpsc::Receiver<()>, at_most: Duration) -> bool {
    let news = async {
        match changes.recv().await {
            Some(()) => {}
            None => std::future::pending().await,
        }
    };
    timeout(at_most, news).await.is_ok()
}

/// A number that tells one boot from another (FNV-1a, 64 bits).
fn fingerprint(boot: &str) -> u64 {
    boot.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
