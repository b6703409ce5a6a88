//! Keeps the host as the state says: looks whenever the kernel says that something has changed, and now and then all the
//! same; tells each difference; has those repaired that may be. After a boot of the host, that is everything.
//!
//! ```text
//!   uevent, link change ────┐
//!   told by the hypervisor ─┤
//!   30 s have passed ───────┴─> look ─> differences ─┬─> told       (adapters that have moved are followed before)
//!                                                    └─> intent ─> plan ─> executor, by best effort ─> told
//! ```
//!
//! While a plan is carried out, whoever it is of, nothing is repaired, and faults are looked for all the same: an adapter that has one
//! is frozen at once, and partitions with a standby go on by it.
//!
//! A plan like this one is never rolled back: each step brings the host nearer to what is noted already, so a daemon that dies
//! in the middle leaves nothing but work for the next one.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_model::{
    Difference, Drift, EventKind, Identity, Intent, Inventory, MacAddress, Name, Options, OutOfService,
    PartitionState, PartitionStatus, Plan, RowKey, State, Step, VfSettings, Why,
};
use ioward_planner::Comparison;
use ioward_store::Change;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    changes::Changes,
    changing::{ChangeGuard, Changing, Holder},
    error::{ImpError, error_chain},
    events::{EventLog, now_ms},
    executor::{Executed, Execution, Executor, Progress},
    failovers::Failovers,
    faults::Faults,
    halts::Halts,
    imp::Run,
    journal::Journal,
    look::Looks,
    machines::{Machines, Misnoted, misnoted},
    notes::Must,
    planning::plan_for,
    relocation::Relocation,
    workers::off_the_workers,
};

/// Between two looks that nothing gave cause for: the kernel does not tell everything.
const LOOK_EACH: Duration = Duration::from_secs(30);
/// After the kernel said that something has changed, it mostly says more.
const DEBOUNCE: Duration = Duration::from_millis(300);
/// How long drivers, links and adapters may take to come after a boot of the host.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(120);
/// Between two attempts meanwhile, when nothing is told.
const TRY_EACH: Duration = Duration::from_secs(1);
/// Between two looks for faults while a plan is carried out, whatever is told: most of that is what the plan does itself.
const LOOK_MEANWHILE_EACH: Duration = Duration::from_secs(1);
/// Between two looks whether a plan has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// The part that reconciles the host with the state.
pub(crate) struct Reconciler {
    pub(crate) executor: Arc<Executor>,
    pub(crate) looks: Arc<Looks>,
    pub(crate) machines: Arc<Machines>,
    pub(crate) relocation: Relocation,
    pub(crate) faults: Arc<Faults>,
    pub(crate) halts: Halts,
    pub(crate) failovers: Failovers,
    pub(crate) changes: Arc<Changes>,
    pub(crate) changing: Arc<Changing>,
    pub(crate) run: Run,
    /// The boot in which the host was last as the state says.
    pub(crate) boot: Option<u64>,
    pub(crate) told: Mutex<Told>,
}

/// The differences that were told, so that each is told once.
#[derive(Default)]
pub(crate) struct Told {
    drifts: Vec<Drift>,
    failures: BTreeSet<String>,
    /// Partitions that did not start with the host: once is enough.
    not_started: BTreeSet<Name>,
}

/// Tells at once which partitions have been started; all else is told once there was another look.
struct Starts<'a> {
    events: &'a EventLog,
    plan: &'a Plan,
}

impl Progress for Starts<'_> {
    fn tell(&self, kind: EventKind) {
        let EventKind::StepDone { number, .. } = kind else { return };
        let step = number.checked_sub(1).and_then(|n| self.plan.steps.get(n));
        if let Some(Step::StartPartition { partition }) = step {
            self.events.emit(EventKind::PartitionStarted { partition: partition.clone() });
        }
    }
}

/// What has come of reconciling.
struct Reconciled {
    /// The differences that are left.
    left: Vec<Drift>,
    /// Something was told meanwhile, which may not have been seen.
    has_news: bool,
}

/// All that was found at one moment.
struct Found {
    inventory: Inventory,
    state: State,
    machines: Vec<PartitionStatus>,
    booted: bool,
    drifts: Vec<Drift>,
}

impl Found {
    /// Whether a difference is one that a switch between a VF and its standby on a bridge has just made, and that is about to be repaired:
    /// the switch is what is told.
    fn comes_of_a_switch(&self, drift: &Drift) -> bool {
        let (vf, found) = match &drift.what {
            Difference::StillAttached { vf } | Difference::NotAttached { vf, .. } => (*vf, None),
            Difference::Settings { vf, noted, found }
                if VfSettings { mac: None, ..noted.clone() }.is_empty() =>
            {
                (*vf, found.mac)
            }
            _ => return false,
        };
        let (Some(owner), Some(held)) = (self.state.owner(vf), self.state.assignment(vf)) else {
            return false;
        };
        let partition = self.state.partitions.get(&owner.partition);
        let has_standby = partition.is_some_and(|noted| noted.standbys.contains_key(&owner.vf));
        let comes_back =
            || found.is_none_or(|found| held.settings.mac.map(MacAddress::parked) == Some(found));
        drift.left_because.is_none() && has_standby && (held.is_unplugged() || comes_back())
    }

    fn comparison(&self) -> Comparison<'_> {
        let Self { inventory, state, machines, booted, .. } = self;
        Comparison { inventory, state, machines, booted: *booted }
    }

    fn runs(&self, partition: &Name) -> bool {
        self.machines.iter().any(|machine| machine.running && machine.name == *partition)
    }

    fn is_noted_as_it_is(&self) -> bool {
        misnoted(&self.state, &self.machines) == Misnoted::default()
    }

    /// Wants everything repaired that may be, and these partitions started.
    fn intent(&self, start: BTreeSet<Name>) -> Intent {
        let repairable = self.drifts.iter().filter(|drift| drift.left_because.is_none());
        let running = self.machines.iter().filter(|machine| machine.running);
        Intent::Reconcile {
            drifts: repairable.cloned().collect(),
            start: start.into_iter().collect(),
            running: running.map(|machine| machine.name.clone()).collect(),
        }
    }

    /// Partitions that are to start with the host, and do not run, or are not noted as running.
    fn to_start(&self) -> BTreeSet<Name> {
        let is_to_start = |(name, noted): &(&Name, &PartitionState)| {
            self.booted && noted.spec.autostart() && !(noted.running && self.runs(name))
        };
        self.state.partitions.iter().filter(is_to_start).map(|(name, _)| name.clone()).collect()
    }
}

impl Reconciler {
    /// Whether the host has booted since it was as the state says. Where that is not known (a state of an older ioward), it
    /// has if nothing is left of any partition: what the hypervisor knows goes with a boot.
    pub(crate) async fn look_whether_the_host_has_booted(&self) -> Result<(), ImpError> {
        let booted = match self.boot {
            Some(boot) => boot != fingerprint(&self.run.boot),
            None => {
                let is_empty = self.executor.notes.look(|state| state.partitions.is_empty());
                !is_empty && self.executor.runner.hypervisor.partitions().await?.is_empty()
            }
        };
        self.looks.set_booted(booted);
        if !booted {
            self.note_boot();
        }
        Ok(())
    }

    fn note_boot(&self) {
        let boot = fingerprint(&self.run.boot);
        if self.boot == Some(boot) {
            return;
        }
        // Without it, a daemon after this one restores what is there already, and finds nothing to do.
        let noted =
            self.executor.notes.change(Must::BeKnown, |_| Vec::new(), vec![Change::Boot(boot)], |_| {});
        drop(noted);
    }

    /// Follows what happens on the host for as long as the daemon lives; after a boot of the host, restores it first.
    pub(crate) async fn follow(&self) {
        let mut changes = self.executor.runner.fabric.changes().await;
        self.restore(&mut changes).await;
        loop {
            if self.reconcile_and_look(&mut changes).await.has_news {
                self.hear_the_rest(&mut changes, DEBOUNCE).await;
                continue;
            }
            let each = [self.faults.look_each(), self.failovers.look_each(), self.halts.look_each()];
            let each = each.into_iter().flatten().min().unwrap_or(LOOK_EACH);
            if self.wait_for_news(&mut changes, each).await {
                self.hear_the_rest(&mut changes, DEBOUNCE).await;
            }
        }
    }

    /// What is told comes in bursts: hears all of it within some time.
    async fn hear_the_rest(&self, changes: &mut mpsc::Receiver<()>, within: Duration) {
        sleep(within).await;
        while changes.try_recv().is_ok() {}
        self.looks.hear();
    }

    /// Reconciles, and looks for faults for as long as that takes: it waits for plans to end, and what it repairs may wait for a guest.
    async fn reconcile_and_look(&self, changes: &mut mpsc::Receiver<()>) -> Reconciled {
        let mut has_news = false;
        let look = async {
            loop {
                if self.wait_for_news(changes, LOOK_MEANWHILE_EACH).await {
                    has_news = true;
                    self.hear_the_rest(changes, LOOK_MEANWHILE_EACH).await;
                }
                if let Err(error) = self.look_for_faults().await {
                    tracing::error!("cannot look for faults: {}", error_chain(&error));
                }
            }
        };
        let left = tokio::select! {
            biased;
            left = self.reconcile_or_say() => left,
            never = look => never,
        };
        Reconciled { left, has_news }
    }

    /// Looks for faults, and has partitions use their standbys, without repairing anything: for as long as a plan is carried out.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub(crate) async fn look_for_faults(&self) -> Result<(), ImpError> {
        let inventory = self.looks.look().await?;
        if !self.looks.has_booted() {
            let is_claimed = |vf| self.executor.operations.claims.has(vf);
            self.failovers.see_meanwhile(&inventory, &self.executor.notes.state(), is_claimed);
        }
        Ok(())
    }

    async fn reconcile_or_say(&self) -> Vec<Drift> {
        self.reconcile().await.unwrap_or_else(|error| {
            tracing::error!("cannot hold the host against the state: {}", error_chain(&error));
            Vec::new()
        })
    }

    /// After a boot: VF counts, settings, bindings and partitions are made as they were; those that are to start with the
    /// host are started. What is not there yet is waited for, within a bound, while everything else goes on.
    async fn restore(&self, changes: &mut mpsc::Receiver<()>) {
        if !self.looks.has_booted() {
            return;
        }
        self.executor.events.emit(EventKind::HostBooted);
        let until = Instant::now() + RESTORE_TIMEOUT;
        let mut done = self.reconcile_and_look(changes).await;
        while !done.left.is_empty() && Instant::now() < until {
            if !done.has_news {
                self.wait_for_news(changes, TRY_EACH).await;
            }
            done = self.reconcile_and_look(changes).await;
        }
        self.end_restoring(done.left).await;
    }

    /// Ends the wait for whatever is not restored by now.
    pub(crate) async fn end_restoring(&self, left: Vec<Drift>) {
        let machines = self.executor.runner.hypervisor.partitions().await.unwrap_or_default();
        let runs = |name: &Name| machines.iter().any(|machine| machine.running && machine.name == *name);
        let partitions = self.executor.notes.state().partitions;
        let stopped =
            partitions.into_iter().filter(|(name, partition)| partition.spec.autostart() && !runs(name));
        let stopped = stopped.map(|(name, _)| name).collect();
        self.looks.set_booted(false);
        self.note_boot();
        self.executor.events.emit(EventKind::HostRestored { left, stopped });
    }

    /// How the host differs from the state now.
    ///
    /// # Errors
    /// While a plan is carried out, or when the host can't be looked at.
    pub(crate) async fn drift(&self) -> Result<Vec<Drift>, ImpError> {
        let _nothing_changes =
            self.changing.begin(Holder::Look, Duration::ZERO).await.ok_or(ImpError::Busy)?;
        Ok(self.find().await?.drifts)
    }

    /// How the host differed from the state when that was last told.
    pub(crate) fn known_drift(&self) -> Vec<Drift> {
        self.told().drifts.clone()
    }

    /// Holds the host against the state, tells what is new, and repairs what may be repaired. What is left then.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub(crate) async fn reconcile(&self) -> Result<Vec<Drift>, ImpError> {
        // A plan that is half done is no drift.
        drop(self.once_nothing_changes().await);
        self.faults.attempt().await;
        let mut left = self.find_and_repair().await?;
        // Adapters that are recovering are as they are noted, but for those with something left that could be repaired.
        let repairable = left.iter().filter(|drift| drift.left_because.is_none());
        if self.faults.repaired(&repairable.filter_map(|drift| drift.what.adapter()).collect()) {
            // Somebody may have no other that works.
            let found = self.find().await?;
            if self.failovers.see(&found.inventory, &found.state) {
                // A VF is to go out of its machine, or to come back, and nobody looks again for some time.
                left = self.find_and_repair().await?;
            }
        }
        // Last of all: what a guest boots anew with is as it is noted.
        self.halts.reset_due(&self.executor.notes.state()).await;
        Ok(left)
    }

    async fn find_and_repair(&self) -> Result<Vec<Drift>, ImpError> {
        // Without keeping plans waiting, as long as there is nothing to be done.
        let mut found = self.find().await?;
        self.halts.see(&found.inventory, &found.state, &found.machines);
        if self.note_failed(&found.inventory) {
            found = self.find().await?;
        }
        // Before what is repaired, which may take long.
        // As it is noted now: somebody may have looked meanwhile.
        if !found.booted && self.failovers.see(&found.inventory, &self.executor.notes.state()) {
            found = self.find().await?;
        }
        let is_repairable = found.drifts.iter().any(|drift| drift.left_because.is_none());
        if !found.booted
            && !is_repairable
            && found.is_noted_as_it_is()
            && !self.relocation.has_news(&found.inventory)
            && found.drifts == self.told().drifts
        {
            return Ok(found.drifts);
        }
        let _nothing_changes = self.once_nothing_changes().await;
        self.machines.catch_up("its machine is gone").await?;
        let mut found = self.find().await?;
        if self.relocation.follow(&found.inventory) {
            found = self.find().await?;
        }
        let start = self.tell_new(&found);
        let intent = found.intent(start);
        let (inventory, state) = (found.inventory.clone(), found.state.clone());
        let plan =
            off_the_workers(move || plan_for(&inventory, &state, &intent, &Options::default())).await?;
        if plan.steps.is_empty() {
            return Ok(found.drifts);
        }
        let failures = self.repair(&plan).await;
        let after = self.find().await?.drifts;
        self.tell_repaired(&found, &after, failures);
        Ok(after)
    }

    /// Notes adapters and VFs that have failed as out of service: a daemon after this one gives nothing of them either. Whether there are any.
    fn note_failed(&self, inventory: &Inventory) -> bool {
        let identity = |pf| inventory.physical_function(pf).and_then(|pf| Identity::of(pf, inventory));
        let pfs = self.faults.failed().into_iter().map(|(pf, what)| (pf, None, what, identity(pf)));
        let vfs = self.faults.failed_vfs().into_iter().map(|(at, vf, what)| (at, Some(vf), what, None));
        let failed: Vec<_> = pfs.chain(vfs).collect();
        if failed.is_empty() {
            return false;
        }
        let rows = |_: &State| failed.iter().map(|(address, ..)| RowKey::OutOfService(*address)).collect();
        let noted = self.executor.notes.change(Must::BeWritten, rows, Vec::new(), |state| {
            for (address, vf, what, identity) in &failed {
                let why = Why::Failed { what: what.clone() };
                let out = OutOfService { since_ms: now_ms(), why, vf: *vf, identity: identity.clone() };
                state.out_of_service.insert(*address, out);
            }
        });
        if let Err(error) = &noted {
            tracing::error!("functions have failed, which cannot be written down: {}", error_chain(error));
            return false;
        }
        for (address, vf, what, _) in failed {
            let Some(vf) = vf else { continue };
            let owner = self.executor.notes.look(|state| state.owner(vf));
            if let Some(owner) = &owner {
                self.machines.channels.vfs_changed(&owner.partition);
            }
            self.executor.events.emit(EventKind::VfLockedOut { vf, address, owner, what });
        }
        true
    }

    /// Carries out a plan of repairs, as far as that is possible. The steps that failed, with why.
    pub(crate) async fn repair(&self, plan: &Plan) -> Vec<(Step, String)> {
        let number = self.changes.next_number();
        let progress = Starts { events: &self.executor.events, plan };
        let journal = Journal::begin_repairs(&self.executor.notes, &self.run.boot, number, plan);
        let execution = Execution { plan, number, journal, progress: &progress };
        let Executed { failures, done } = self.executor.execute(&execution).await;
        if done.len() < plan.steps.len() {
            execution.journal.left_repairs();
        }
        failures.into_iter().filter_map(|(step, error)| Some((step?.clone(), error))).collect()
    }

    /// Waits until nothing is being changed, and lets nothing begin as long as what it returns is there. It does not queue: a plan
    /// that begins the moment the one before has ended is not to be told that another change is under way.
    async fn once_nothing_changes(&self) -> ChangeGuard {
        loop {
            match self.changing.try_begin(Holder::Look) {
                Ok(guard) => return guard,
                Err(_) => sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Tells what is new; which partitions are to be started.
    fn tell_new(&self, found: &Found) -> BTreeSet<Name> {
        let mut told = self.told();
        let is_news = |drift: &&Drift| !told.drifts.contains(drift) && !found.comes_of_a_switch(drift);
        for drift in found.drifts.iter().filter(is_news) {
            self.executor.events.emit(EventKind::DriftFound { drift: drift.clone() });
        }
        let is_gone = |drift: &&Drift| !found.drifts.contains(drift) && !found.comes_of_a_switch(drift);
        for drift in told.drifts.iter().filter(is_gone) {
            self.executor.events.emit(EventKind::DriftGone { drift: drift.clone() });
        }
        told.drifts.clone_from(&found.drifts);
        let broken = found.drifts.iter().filter(|drift| drift.left_because.is_some());
        let broken: BTreeSet<_> =
            broken.flat_map(|drift| drift.breaks.iter().map(|owner| owner.partition.clone())).collect();
        let mut start = found.to_start();
        start.retain(|name| !broken.contains(name) && !told.not_started.contains(name));
        start
    }

    /// Tells that these were repaired, outside of a look that has told of them.
    pub(crate) fn tell_repaired_at_once(&self, repaired: &[Drift]) {
        let mut told = self.told();
        told.drifts.retain(|drift| repaired.iter().all(|repaired| repaired.what != drift.what));
        for drift in repaired {
            self.executor.events.emit(EventKind::DriftRepaired { drift: drift.clone() });
        }
    }

    fn tell_repaired(&self, found: &Found, after: &[Drift], failures: Vec<(Step, String)>) {
        let mut told = self.told();
        let before = &found.drifts;
        let is_repaired = |drift: &&Drift| {
            drift.left_because.is_none() && !after.contains(drift) && !found.comes_of_a_switch(drift)
        };
        for drift in before.iter().filter(is_repaired) {
            self.executor.events.emit(EventKind::DriftRepaired { drift: drift.clone() });
        }
        let is_new = |drift: &&Drift| !before.contains(drift) && !found.comes_of_a_switch(drift);
        for drift in after.iter().filter(is_new) {
            self.executor.events.emit(EventKind::DriftFound { drift: drift.clone() });
        }
        told.drifts = after.to_vec();
        let mut failed = BTreeSet::new();
        for (what, error) in failures {
            if let Step::StartPartition { partition } = &what {
                told.not_started.insert(partition.clone());
            }
            let line = format!("{what}: {error}");
            if !told.failures.contains(&line) {
                self.executor.events.emit(EventKind::RepairFailed { what: Box::new(what), error });
            }
            failed.insert(line);
        }
        told.failures = failed;
    }

    async fn find(&self) -> Result<Found, ImpError> {
        let inventory = self.looks.look().await?;
        let machines = self.executor.runner.hypervisor.partitions().await?;
        let booted = self.looks.has_booted();
        let mut found =
            Found { inventory, state: self.executor.notes.state(), machines, booted, drifts: Vec::new() };
        found.drifts = found.comparison().differences();
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
        let _kept_out = self.executor.runner.ownership.write(vf.pf).await;
        let Ok(present) = self.executor.runner.fabric.settings(*vf).await else { return false };
        let lost = |state: &State| state.assignment(*vf).map(|held| held.lost_since(noted, &present));
        self.executor.notes.look(lost).as_ref() == Some(noted)
    }

    /// Waits for news of the host or of partitions, or until it has waited long enough. Whether there is news.
    async fn wait_for_news(&self, changes: &mut mpsc::Receiver<()>, at_most: Duration) -> bool {
        let of_the_host = async {
            match changes.recv().await {
                Some(()) => {}
                None => std::future::pending().await,
            }
        };
        let news = async {
            tokio::select! {
                () = of_the_host => {}
                () = self.machines.news.notified() => {}
            }
        };
        let is_news = timeout(at_most, news).await.is_ok();
        if is_news {
            self.looks.hear();
        }
        is_news
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A number that tells one boot from another (FNV-1a, 64 bits).
fn fingerprint(boot: &str) -> u64 {
    boot.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
