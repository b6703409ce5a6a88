//! The management partition itself: what it knows, and the few things it is asked to do.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_api::{ChangeId, ChangeView, Compatible, PartitionView, Reaped};
use ioward_fabric::Fabric;
use ioward_hypervisor::Hypervisor;
use ioward_model::{
    AuditEntry, Drift, Event, Intent, Inventory, Name, OpError, OpOutcome, Options, Orphan, Plan, Reason,
    Rule, Spec, State, Step, VfOp, doctor::Report,
};
use ioward_store::{Contents, Export, Interrupted, Store, StoreError};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use crate::{
    cached::Cached,
    changes::{Change, Changes},
    changing::{ChangeGuard, Changing, Holder},
    channels::Channels,
    clock::Clock,
    consoles::Consoles,
    error::ImpError,
    events::EventLog,
    executor::{Begun, Executor},
    failovers::Failovers,
    faults::Faults,
    halts::Halts,
    journal::begin_plan,
    look::Looks,
    machines::Machines,
    macs::macs_of,
    metrics::{Counters, Metrics},
    moves::{Moves, moved_meanwhile},
    notes::{Audit, AuditPage, DISK_TIMEOUT, Notes},
    operations::{Asker, Operations},
    orphans::Orphans,
    ownership::Ownership,
    planning::{Planning, refused},
    quarantine::Quarantine,
    reconcile::{Reconciler, Told},
    recovery::Recovery,
    relocation::Relocation,
    runs::Runs,
    step::{OwnStarts, StepRunner},
    stuck::StuckAdapters,
    workers::off_the_workers,
};

/// How long an entry of the audit log waits at most for others to be written with it, when it is about nothing that has
/// changed: a guest that asks without end is not to keep the disk busy.
const FLUSH_EACH: Duration = Duration::from_secs(1);

/// How long the doctor's findings are good for: looking takes the machine emulator's start, and findings change by hand.
const DOCTOR_GOOD_FOR: Duration = Duration::from_secs(10);

/// The I/O virtualization management partition of one host: what [`crate::serve`] runs, for those who bring a machine
/// of their own. It is made of parts, each of which knows only those that it needs.
pub struct Imp {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) notes: Arc<Notes>,
    pub(crate) events: Arc<EventLog>,
    pub(crate) looks: Arc<Looks>,
    ownership: Arc<Ownership>,
    pub(crate) operations: Arc<Operations>,
    pub(crate) channels: Arc<Channels>,
    pub(crate) machines: Arc<Machines>,
    pub(crate) planning: Planning,
    pub(crate) executor: Arc<Executor>,
    pub(crate) reconciler: Reconciler,
    orphans: Orphans,
    pub(crate) moves: Moves,
    pub(crate) changes: Arc<Changes>,
    pub(crate) changing: Arc<Changing>,
    pub(crate) consoles: Consoles,
    pub(crate) metrics: Metrics,
    pub(crate) doctor: Cached<Report>,
    /// Without the adapters that are kept off.
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) run: Run,
    /// The plan that the daemon before this one was in the middle of.
    interrupted: Mutex<Option<Interrupted>>,
}

/// Tells one run of the daemon, and one boot of its host, from another.
#[derive(Clone, Debug)]
pub struct Run {
    /// Another number each time.
    pub epoch: u64,
    /// The kernel's ID of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
    /// By which adapters are recovered.
    pub clock: Clock,
}

impl Imp {
    /// A management partition over this machine, with what was kept in `store`.
    #[must_use]
    pub fn new(
        fabric: Arc<dyn Fabric>,
        hypervisor: Arc<dyn Hypervisor>,
        store: Box<dyn Store>,
        contents: Contents,
        run: Run,
    ) -> Arc<Self> {
        let quarantine = Arc::new(Quarantine::new(Arc::clone(&fabric)));
        let host = fabric;
        // All parts have the host without the adapters that are kept off.
        let fabric: Arc<dyn Fabric> = Arc::clone(&quarantine) as _;
        let notes = Arc::new(Notes::new(store, contents.state, contents.operations));
        let counters = Arc::<Counters>::default();
        let events = Arc::new(EventLog::new(Arc::clone(&counters)));
        let ownership = Arc::new(Ownership::default());
        let changes = Arc::new(Changes::new(run.epoch, contents.last_plan));
        let changing = Arc::new(Changing::default());
        let faults = Arc::new(Faults::new(host, Arc::clone(&events), run.clock.clone()));
        let looks =
            Arc::new(Looks::new(quarantine, Arc::clone(&faults), Arc::clone(&notes), Arc::clone(&events)));
        let stuck = StuckAdapters::new(Arc::clone(&fabric), Arc::clone(&looks), Arc::clone(&events));
        let news = Arc::<Notify>::default();
        let operations = Operations::new(
            Arc::clone(&fabric),
            Arc::clone(&notes),
            Arc::clone(&looks),
            Arc::clone(&ownership),
            Arc::clone(&stuck),
            Arc::clone(&counters),
            Arc::clone(&news),
        );
        let metrics = Metrics::new(
            Arc::clone(&counters),
            Arc::clone(&fabric),
            Arc::clone(&notes),
            Arc::clone(&looks),
            stuck,
        );
        let channels = Channels::new(
            Arc::clone(&hypervisor),
            Arc::clone(&operations),
            Arc::clone(&notes),
            Arc::clone(&events),
            run.epoch,
        );
        let runs = Arc::<Runs>::default();
        let machines = Arc::new(Machines {
            runs: Arc::clone(&runs),
            hypervisor: Arc::clone(&hypervisor),
            notes: Arc::clone(&notes),
            events: Arc::clone(&events),
            channels: Arc::clone(&channels),
            news: Arc::clone(&news),
            noting: tokio::sync::Mutex::default(),
        });
        let runner = StepRunner {
            fabric: Arc::clone(&fabric),
            hypervisor: Arc::clone(&hypervisor),
            notes: Arc::clone(&notes),
            ownership: Arc::clone(&ownership),
            channels: Arc::clone(&channels),
            starting: OwnStarts::default(),
            runs,
            news,
        };
        let executor = Arc::new(Executor {
            runner,
            notes: Arc::clone(&notes),
            events: Arc::clone(&events),
            operations: Arc::clone(&operations),
            counters,
        });
        let reconciler = Reconciler {
            executor: Arc::clone(&executor),
            looks: Arc::clone(&looks),
            machines: Arc::clone(&machines),
            relocation: Relocation {
                notes: Arc::clone(&notes),
                events: Arc::clone(&events),
                looks: Arc::clone(&looks),
            },
            failovers: Failovers::new(
                Arc::clone(&notes),
                Arc::clone(&events),
                Arc::clone(&channels),
                run.clock.clone(),
            ),
            halts: Halts::new(
                Arc::clone(&hypervisor),
                Arc::clone(&faults),
                Arc::clone(&events),
                run.clock.clone(),
            ),
            faults,
            changes: Arc::clone(&changes),
            changing: Arc::clone(&changing),
            run: run.clone(),
            boot: contents.boot,
            told: Mutex::new(Told::default()),
        };
        let orphans = Orphans {
            fabric: Arc::clone(&fabric),
            hypervisor: Arc::clone(&hypervisor),
            looks: Arc::clone(&looks),
            events: Arc::clone(&events),
            ownership: Arc::clone(&ownership),
        };
        Arc::new(Self {
            planning: Planning::new(Arc::clone(&looks), Arc::clone(&notes), Arc::clone(&hypervisor)),
            interrupted: Mutex::new(contents.interrupted),
            consoles: Consoles::new(Arc::clone(&hypervisor)),
            moves: Moves::new(
                Arc::clone(&hypervisor),
                Arc::clone(&notes),
                Arc::clone(&channels),
                Arc::clone(&events),
            ),
            metrics,
            doctor: Cached::new(DOCTOR_GOOD_FOR),
            fabric,
            hypervisor,
            notes,
            events,
            looks,
            ownership,
            operations,
            channels,
            machines,
            executor,
            reconciler,
            orphans,
            changes,
            changing,
            run,
        })
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> State {
        self.notes.state()
    }

    /// How many partitions there are.
    pub(crate) fn count(&self) -> usize {
        self.notes.look(|state| state.partitions.len())
    }

    /// Has entries of the audit log written that wait for it.
    ///
    /// # Errors
    /// When they can't be.
    pub fn flush(&self) -> Result<(), ImpError> {
        Ok(self.notes.flush()?)
    }

    /// Flushes what waits, and tells of events that were left out, for as long as the daemon lives. At rest it sleeps.
    pub(crate) async fn keep_flushing(self: Arc<Self>) {
        let mut tells_within = None;
        loop {
            let something = async {
                tokio::select! {
                    () = self.notes.something_waits() => {}
                    () = self.events.something_left_out() => {}
                }
            };
            match tells_within {
                Some(within) => drop(timeout(within, something).await),
                None => something.await,
            }
            tokio::time::sleep(FLUSH_EACH).await;
            tells_within = self.events.tell_left_out();
            self.flush_or_say();
        }
    }

    pub(crate) fn flush_or_say(&self) {
        self.notes.flush_or_say();
    }

    /// Everything that is kept.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn export(&self) -> Result<Export, ImpError> {
        Ok(self.notes.export()?)
    }

    /// Looks at the host.
    ///
    /// # Errors
    /// When it can't be looked at at all.
    pub async fn look(&self) -> Result<Inventory, ImpError> {
        self.looks.look().await
    }

    /// The host as it was a moment ago at most ([`Looks::recent`]), and how long ago that was.
    pub(crate) async fn look_recent(&self) -> Result<(Arc<Inventory>, Duration), ImpError> {
        self.looks.recent().await
    }

    /// Which functions suit each VF that a partition of a Spec asks for, and why the others do not.
    ///
    /// # Errors
    /// When the Spec makes no sense or has no such partition.
    pub async fn compatible(&self, spec: &Spec, partition: &Name) -> Result<Vec<Compatible>, ImpError> {
        self.planning.compatible(spec, partition).await
    }

    /// Makes a plan for an intent.
    ///
    /// # Errors
    /// When the intent makes no sense, or rules forbid it.
    pub async fn plan(&self, intent: &Intent, options: &Options) -> Result<Plan, ImpError> {
        self.planning.plan(intent, options).await.inspect_err(|error| self.metrics.counters.refusal(error))
    }

    /// Begins to carry out a plan, unless the host or the state has moved on since it was made. It goes on whatever becomes of
    /// whoever asked; [`Imp::cancel`] cancels it.
    ///
    /// # Errors
    /// When it is refused; nothing has been changed then. A failure later is an event of the change.
    pub async fn begin(self: &Arc<Self>, plan: Plan) -> Result<ChangeView, ImpError> {
        Ok(self.begin_within(plan, Duration::ZERO, None).await?.view())
    }

    /// Begins to carry out a plan as [`Imp::begin`] does. Its events come through `listener` too, and it is cancelled when its
    /// receiver is dropped.
    ///
    /// # Errors
    /// As [`Imp::begin`].
    pub async fn apply(
        self: &Arc<Self>,
        plan: Plan,
        listener: mpsc::UnboundedSender<Event>,
    ) -> Result<(), ImpError> {
        self.begin_within(plan, Duration::ZERO, Some(listener)).await.map(drop)
    }

    /// The same, once the changes before it have ended, if they do within `wait`: [`Imp::begin_within`].
    ///
    /// # Errors
    /// As [`Imp::begin`]; [`ImpError::Busy`] when the others are not done by then.
    pub async fn apply_within(
        self: &Arc<Self>,
        plan: Plan,
        wait: Duration,
        listener: mpsc::UnboundedSender<Event>,
    ) -> Result<(), ImpError> {
        self.begin_within(plan, wait, Some(listener)).await.map(drop)
    }

    /// Begins to carry out a plan as [`Imp::begin`] does, once the change that is being carried out and those that wait already
    /// have ended, if they do within `wait`. After such a wait, a plan is still good if it would do the very same now.
    pub(crate) async fn begin_within(
        self: &Arc<Self>,
        plan: Plan,
        wait: Duration,
        listener: Option<mpsc::UnboundedSender<Event>>,
    ) -> Result<Arc<Change>, ImpError> {
        let begun = self.try_to_begin(plan, wait, listener).await;
        begun.inspect_err(|error| self.metrics.counters.refusal(error))
    }

    async fn try_to_begin(
        self: &Arc<Self>,
        mut plan: Plan,
        wait: Duration,
        listener: Option<mpsc::UnboundedSender<Event>>,
    ) -> Result<Arc<Change>, ImpError> {
        let mut guard = self.begin_change(wait).await?;
        // Before the plan is made again: a guest that was faster is in the state by then, one that is slower finds it taken.
        let macs = macs_of(&plan, &self.state());
        let reserved = self.operations.macs.reserve(macs, |_, _| false).map_err(|mac| {
            let required = format!("that nobody else takes {mac} meanwhile");
            let reason = Reason::new(Rule::PlanCurrent, required, "a partition is just setting it");
            refused(vec![reason.remedy("plan again and look at what is new")])
        })?;
        guard.macs = Some(reserved);
        let claimed = self.operations.claims.claim(&plan);
        for pf in claimed.adapters() {
            // A change that a guest has begun is noted before the plan is made again.
            drop(self.ownership.write(pf).await);
        }
        guard.claimed = Some(claimed);
        let now = self.planning.plan_now(&plan.intent, &plan.options, ()).await?;
        if !wait.is_zero() && now.does_the_same_as(&plan) {
            plan.clone_from(&now);
        }
        if now != plan {
            return Err(outdated(&plan, &now));
        }
        let partitions = plan.steps.iter().filter_map(|step| step.meaning().subject.partition);
        if let Some((partition, peer)) = self.notes.look(|state| moved_meanwhile(state, partitions)) {
            return Err(ImpError::Moving { partition, peer });
        }
        if starts_a_machine(&plan, &self.state()) {
            self.hypervisor.check().await?;
        }
        let number = self.changes.next_number();
        // A plan without steps changes nothing, and leaves nothing behind.
        if !plan.steps.is_empty() {
            begin_plan(&self.notes, &self.run.boot, number, &plan)?;
        }
        let change = self.changes.begin(number, &plan, listener);
        let begun = Begun { plan, number, change: Arc::clone(&change), guard };
        tokio::spawn(Arc::clone(&self.executor).carry_out(begun));
        Ok(change)
    }

    /// The changes of this run of the daemon, oldest first.
    #[must_use]
    pub fn changes(&self) -> Vec<ChangeView> {
        self.changes.list()
    }

    /// Cancels a change: it is rolled back. One that has ended stays as it is.
    ///
    /// # Errors
    /// When there is no such change.
    pub fn cancel(&self, id: ChangeId) -> Result<ChangeView, ImpError> {
        Ok(self.changes.get(id)?.cancel())
    }

    /// Takes the right to change something; the others are told that another change is under way, unless they wait for it.
    pub(crate) async fn begin_change(&self, wait: Duration) -> Result<ChangeGuard, ImpError> {
        self.changing.begin(Holder::Change, wait).await.ok_or(ImpError::Busy)
    }

    /// Waits until nothing is being changed, and lets nothing begin as long as the result is there.
    pub async fn finish_changes(&self) -> impl Send + use<> {
        self.changing.begin_at_last(Holder::Change).await
    }

    /// All partitions, as they are.
    ///
    /// # Errors
    /// When the hypervisor can't tell.
    pub async fn partitions(&self) -> Result<Vec<PartitionView>, ImpError> {
        self.machines.views().await
    }

    /// Does what a partition asks, if it may, and notes it in the audit log either way. A change goes on when the caller goes
    /// away.
    ///
    /// # Errors
    /// When it may not, or it could not be done. Nothing has changed then, unless the adapter does not answer: then the change
    /// is put back as soon as it does.
    pub async fn operate(&self, partition: &Name, op: VfOp) -> Result<OpOutcome, OpError> {
        self.operations.operate(Asker::Partition, partition, op).await
    }

    /// Waits until no change of a partition is under way, and lets none begin as long as the result is there.
    pub async fn finish_operations(&self) -> impl Send + use<> {
        self.operations.finish().await
    }

    /// Serves no channel any longer: a partition that asks is not answered by this daemon.
    pub fn stop_channels(&self) {
        self.channels.stop_all();
    }

    /// How the host differs from the state now.
    ///
    /// # Errors
    /// While a plan is carried out, or when the host can't be looked at.
    pub async fn drift(&self) -> Result<Vec<Drift>, ImpError> {
        self.reconciler.drift().await
    }

    /// Holds the host against the state, tells what is new, and repairs what may be repaired. What is left then.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub async fn reconcile(&self) -> Result<Vec<Drift>, ImpError> {
        self.reconciler.reconcile().await
    }

    /// Looks for faults of adapters, and has partitions use their standbys, as the daemon does while a plan is carried out. Nothing is
    /// repaired.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub async fn look_for_faults(&self) -> Result<(), ImpError> {
        self.reconciler.look_for_faults().await
    }

    /// Ends the wait for whatever is not restored by now.
    pub async fn end_restoring(&self, left: Vec<Drift>) {
        self.reconciler.end_restoring(left).await;
    }

    /// Follows what happens on the host for as long as the daemon lives; after a boot of the host, restores it first.
    pub async fn follow_host(self: Arc<Self>) {
        self.reconciler.follow().await;
    }

    /// Follows what the hypervisor tells, for as long as the daemon lives.
    pub async fn follow_hypervisor(self: Arc<Self>) {
        self.machines.follow().await;
    }

    /// VFs that are bound to vfio-pci, belong to no partition, and that nobody has open.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub async fn orphans(&self) -> Result<Vec<Orphan>, ImpError> {
        self.orphans.find().await
    }

    /// Resets all orphans and leaves them without a driver.
    ///
    /// # Errors
    /// When something else is being changed, or the host can't be looked at.
    pub async fn reap_orphans(&self) -> Result<Vec<Reaped>, ImpError> {
        let _guard = self.begin_change(Duration::ZERO).await?;
        self.orphans.reap_all().await
    }

    /// Takes over what a daemon before this one left: what it was in the middle of is undone, machines that run go on, and
    /// their channels are served again.
    ///
    /// # Errors
    /// When the hypervisor can't tell, or the host can't be looked at where that matters.
    pub async fn adopt(self: &Arc<Self>) -> Result<(), ImpError> {
        self.reconciler.look_whether_the_host_has_booted().await?;
        let interrupted = self.interrupted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_to_be_undone = interrupted.is_some() || !self.notes.operations().is_empty();
        if is_to_be_undone || self.looks.has_booted() {
            // A plan that was begun names adapters by their addresses then: who is there now is known before it is rolled back.
            self.look().await?;
        }
        let recovery = Recovery {
            executor: &self.executor,
            looks: &self.looks,
            changes: &self.changes,
            boot: &self.run.boot,
        };
        recovery.recover(interrupted).await;
        self.moves.restore().await;
        self.machines.note_how_they_are("its machine was gone when the daemon started").await?;
        if self.looks.has_booted() {
            // Nor is anybody served before they are noted where they are.
            self.reconciler.relocation.follow(&self.look().await?);
        }
        for (name, partition) in self.state().partitions {
            if partition.channel && partition.running {
                self.channels.serve(&name);
            }
        }
        Ok(())
    }

    /// The latest events of this run, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.events.kept()
    }

    /// The latest audit entries, oldest first. Waits for the disk.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, ImpError> {
        Ok(self.notes.latest_audit(limit)?.0)
    }

    /// The same with the numbers of those that were dropped, for whoever may ask while the disk does not answer.
    pub(crate) async fn read_audit(self: &Arc<Self>, limit: usize) -> Result<Audit, ImpError> {
        self.read_notes(move |notes| notes.latest_audit(limit)).await
    }

    /// The entries after the one of this number, oldest first, of all partitions or of one.
    pub(crate) async fn read_audit_after(
        self: &Arc<Self>,
        number: u64,
        limit: usize,
        partition: Option<Name>,
    ) -> Result<AuditPage, ImpError> {
        self.read_notes(move |notes| notes.audit_after(number, limit, partition.as_ref())).await
    }

    /// [`Imp::export`] for whoever may ask while the disk does not answer.
    pub(crate) async fn read_export(self: &Arc<Self>) -> Result<Export, ImpError> {
        self.read_notes(Notes::export).await
    }

    async fn read_notes<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Notes) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ImpError> {
        let turn = self.notes.turn().await?;
        let notes = Arc::clone(&self.notes);
        let reading = off_the_workers(move || {
            let _turn = turn;
            read(&notes)
        });
        // A plan may be writing, and does not wait for its turn.
        let slow = |_| StoreError::Slow { after: DISK_TIMEOUT };
        Ok(timeout(DISK_TIMEOUT, reading).await.map_err(slow)??)
    }
}

/// Whether a plan starts a machine of ioward's own.
fn starts_a_machine(plan: &Plan, state: &State) -> bool {
    let is_machine = |name: &Name| {
        let defined = plan.steps.iter().find_map(|step| match step {
            Step::DefinePartition { to, .. } if to.name == *name => Some(to),
            _ => None,
        });
        let spec = defined.or_else(|| Some(&state.partitions.get(name)?.spec));
        spec.is_none_or(|spec| spec.machine().is_some())
    };
    let mut steps = plan.steps.iter();
    steps.any(|step| matches!(step, Step::StartPartition { partition } if is_machine(partition)))
}

fn outdated(plan: &Plan, now: &Plan) -> ImpError {
    let made_from = format!("generation {} and revision {}", plan.generation, plan.parent);
    let found = format!("generation {} and revision {}", now.generation, now.parent);
    let found = if made_from == found { "a different plan for the same wish".into() } else { found };
    let required = format!("a plan for what is there now, not {made_from}");
    let reason = Reason::new(Rule::PlanCurrent, required, found)
        .remedy("the host or the state has changed since; plan again and look at what is new");
    refused(vec![reason])
}
