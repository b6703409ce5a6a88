//! The management partition itself: what it knows, and the few things it is asked to do.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ioward_api::{AssignedVf, ChangeId, ChangeView, Compatible, PartitionView};
use ioward_fabric::Fabric;
use ioward_hypervisor::{Hypervisor, HypervisorEvent, UnusableFile};
use ioward_model::{
    AuditEntry, Event, EventKind, Intent, Inventory, MacAddress, Name, Options, Plan, Policy, Reason, RowKey,
    Rule, Spec, State, Step, Whereabouts,
};
use ioward_store::{Contents, Export, Interrupted, Store, StoreError};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout,
};

use crate::{
    changes::{Change, Changes},
    changing::{ChangeGuard, Changing, Holder},
    channels::Channels,
    compatible,
    error::{ImpError, error_chain},
    events::EventLog,
    executor::Begun,
    look,
    macs::macs_of,
    notes::{Audit, DISK_TIMEOUT, Must, Notes},
    operations::Operations,
    ownership::Ownership,
    quarantine::Quarantine,
    reconcile::Reconciling,
    stuck::StuckAdapters,
};

/// How long an entry of the audit log waits at most for others to be written with it, when it is about nothing that has
/// changed: a guest that asks without end is not to keep the disk busy.
const FLUSH_EACH: Duration = Duration::from_secs(1);

/// So many plans are made at once, beside the one that is about to be carried out: each may take a processor for seconds.
const PLANS_AT_ONCE: usize = 2;

/// The I/O virtualization management partition of one host: what [`crate::serve`] runs, for those who bring a machine
/// of their own.
pub struct Imp {
    /// The PCI side of the host, but for adapters that are to be kept off.
    pub(crate) fabric: Arc<dyn Fabric>,
    pub(crate) quarantine: Arc<Quarantine>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) notes: Notes,
    pub(crate) events: EventLog,
    pub(crate) channels: Channels,
    last_look: Mutex<LastLook>,
    /// How many looks have begun.
    looks: AtomicU64,
    planning: Arc<Semaphore>,
    pub(crate) run: Run,
    /// The plan that the daemon before this one was in the middle of.
    interrupted: Mutex<Option<Interrupted>>,
    pub(crate) changes: Changes,
    changing: Arc<Changing>,
    pub(crate) operating: Operations,
    pub(crate) ownership: Ownership,
    pub(crate) stuck: StuckAdapters,
    pub(crate) reconciling: Reconciling,
}

/// The latest look at the host.
#[derive(Default)]
struct LastLook {
    /// Looks are numbered as they begin.
    number: u64,
    inventory: Option<Inventory>,
}

/// Tells one run of the daemon, and one boot of its host, from another.
#[derive(Clone, Debug)]
pub struct Run {
    /// Another number each time.
    pub epoch: u64,
    /// The kernel's ID of this boot (`/proc/sys/kernel/random/boot_id`).
    pub boot: String,
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
        let quarantine = Arc::new(Quarantine::new(fabric));
        Arc::new(Self {
            fabric: Arc::clone(&quarantine) as Arc<dyn Fabric>,
            quarantine,
            hypervisor,
            notes: Notes::new(store, contents.state, contents.operations),
            events: EventLog::new(),
            channels: Channels::new(run.epoch),
            changes: Changes::new(run.epoch, contents.last_plan),
            run,
            interrupted: Mutex::new(contents.interrupted),
            last_look: Mutex::default(),
            looks: AtomicU64::new(0),
            planning: Arc::new(Semaphore::new(PLANS_AT_ONCE)),
            changing: Arc::default(),
            operating: Operations::default(),
            ownership: Ownership::default(),
            stuck: StuckAdapters::default(),
            reconciling: Reconciling::new(contents.boot),
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

    /// Flushes again and again, for as long as the daemon lives.
    pub(crate) async fn keep_flushing(self: Arc<Self>) {
        loop {
            tokio::time::sleep(FLUSH_EACH).await;
            self.events.tell_left_out();
            self.flush_or_say();
        }
    }

    pub(crate) fn flush_or_say(&self) {
        if let Err(error) = self.flush() {
            tracing::error!("the audit log cannot be written: {}", error_chain(&error));
        }
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
        let number = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let found = self.fabric.identify().await?;
        let mut last = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        // A look that began later has seen more: what this one found is no news.
        if let Some(newer) = last.inventory.as_ref().filter(|_| last.number > number) {
            return Ok(newer.clone());
        }
        let state = self.state();
        let whereabouts = Whereabouts::of(&state, &found, self.reconciling.has_booted());
        let quarantined = whereabouts.quarantined(&state, &found);
        self.quarantine.set(quarantined.keys().copied());
        let complete = look::complete(found, &state, &quarantined, last.inventory.as_ref());
        if last.inventory.as_ref().is_some_and(|last| last.generation != complete.generation) {
            self.events.emit(EventKind::InventoryChanged { generation: complete.generation });
        }
        *last = LastLook { number, inventory: Some(complete.clone()) };
        Ok(complete)
    }

    /// Whether an interface of the host had this MAC when the host was last looked at.
    pub(crate) fn is_mac_of_the_host(&self, mac: MacAddress) -> bool {
        let last = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        let pfs = last.inventory.iter().flat_map(|inventory| &inventory.physical_functions);
        let mut macs = pfs.flat_map(|pf| &pf.netdevs).flat_map(|netdev| [netdev.mac, netdev.permanent_mac]);
        macs.any(|of_host| of_host == Some(mac))
    }

    /// Which functions suit each VF that a partition of a Spec asks for, and why the others do not.
    ///
    /// # Errors
    /// When the Spec makes no sense or has no such partition.
    pub async fn compatible(&self, spec: &Spec, partition: &Name) -> Result<Vec<Compatible>, ImpError> {
        spec.validate()?;
        let (inventory, state) = (self.look().await?, self.state());
        let (spec, partition) = (spec.clone(), partition.clone());
        let turn = self.turn_to_plan().await;
        off_the_workers(move || {
            let _turn = turn;
            compatible::compatible(&inventory, &state, &spec, &partition)
        })
        .await
    }

    /// Makes a plan for an intent.
    ///
    /// # Errors
    /// When the intent makes no sense, or rules forbid it.
    pub async fn plan(&self, intent: &Intent, options: &Options) -> Result<Plan, ImpError> {
        let turn = self.turn_to_plan().await;
        self.plan_now(intent, options, turn).await
    }

    async fn turn_to_plan(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.planning).acquire_owned().await.ok()
    }

    /// Makes a plan; keeps `turn` until it is made, which may be after the caller has gone away.
    async fn plan_now(
        &self,
        intent: &Intent,
        options: &Options,
        turn: impl Send + 'static,
    ) -> Result<Plan, ImpError> {
        if let Intent::Apply { spec } = intent {
            spec.validate()?;
        }
        if intent.policy() == Policy::BestEffort {
            let message =
                "only the daemon itself asks for a host to be reconciled; 'ioward drift' shows what differs";
            return Err(ImpError::Invalid(message.to_owned()));
        }
        // A partition that can't boot is better refused before its VFs are made than undone after.
        let unusable = self.unusable_files(intent).await?;
        if !unusable.is_empty() {
            return Err(refused(unusable));
        }
        let (inventory, state) = (self.look().await?, self.state());
        let (intent, options) = (intent.clone(), *options);
        off_the_workers(move || {
            let _turn = turn;
            plan_for(&inventory, &state, &intent, &options)
        })
        .await
    }

    async fn unusable_files(&self, intent: &Intent) -> Result<Vec<Reason>, ImpError> {
        let Intent::Apply { spec } = intent else { return Ok(Vec::new()) };
        let mut reasons = Vec::new();
        for partition in &spec.partitions {
            let unusable = self.hypervisor.check_boot(&partition.boot).await?;
            reasons.extend(unusable.iter().map(|file| unusable_file(&partition.name, file)));
        }
        Ok(reasons)
    }

    /// Begins to carry out a plan, unless the host or the state has moved on since it was made. It goes on whatever becomes of
    /// whoever asked: [`Imp::change`] follows it, and cancels it.
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
        mut plan: Plan,
        wait: Duration,
        listener: Option<mpsc::UnboundedSender<Event>>,
    ) -> Result<Arc<Change>, ImpError> {
        let mut guard = self.begin_change(wait).await?;
        // Before the plan is made again: a guest that was faster is in the state by then, one that is slower finds it taken.
        let macs = macs_of(&plan, &self.state());
        let reserved = self.operating.macs.reserve(macs, |_, _| false).map_err(|mac| {
            let required = format!("that nobody else takes {mac} meanwhile");
            let reason = Reason::new(Rule::PlanCurrent, required, "a partition is just setting it");
            refused(vec![reason.remedy("plan again and look at what is new")])
        })?;
        guard.macs = Some(reserved);
        let claimed = self.operating.claims.claim(&plan);
        for pf in claimed.adapters() {
            // A change that a guest has begun is noted before the plan is made again.
            drop(self.ownership.write(pf).await);
        }
        guard.claimed = Some(claimed);
        let now = self.plan_now(&plan.intent, &plan.options, ()).await?;
        if !wait.is_zero() && now.does_the_same_as(&plan) {
            plan.clone_from(&now);
        }
        if now != plan {
            return Err(outdated(&plan, &now));
        }
        if plan.steps.iter().any(|step| matches!(step, Step::StartPartition { .. })) {
            self.hypervisor.check().await?;
        }
        let number = self.changes.next_number();
        // A plan without steps changes nothing, and leaves nothing behind.
        if !plan.steps.is_empty() {
            self.begin_plan(number, &plan)?;
        }
        let change = self.changes.begin(number, &plan, listener);
        let begun = Begun { plan, number, change: Arc::clone(&change), guard };
        tokio::spawn(Arc::clone(self).carry_out(begun));
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

    /// Lets no change begin for a look at the host, for which changes wait.
    pub(crate) async fn begin_look(&self) -> Result<ChangeGuard, ImpError> {
        self.changing.begin(Holder::Look, Duration::ZERO).await.ok_or(ImpError::Busy)
    }

    /// The same, if nothing is being changed.
    pub(crate) fn try_begin_look(&self) -> Option<ChangeGuard> {
        self.changing.try_begin(Holder::Look).ok()
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
        let machines = self.hypervisor.partitions().await?;
        let state = self.state();
        let views = state.partitions.values().map(|partition| {
            let machine = machines.iter().find(|machine| machine.name == partition.spec.name);
            let vfs = partition.vfs.iter().map(|(name, assignment)| {
                let request = partition.spec.vf(name);
                AssignedVf {
                    name: name.clone(),
                    class: request.map_or(ioward_model::Class::Other, |request| request.class),
                    vf: assignment.vf,
                    address: assignment.address,
                    settings: assignment.effective_settings(),
                    guest_may: request.map(|request| request.guest_may.words()).unwrap_or_default(),
                }
            });
            PartitionView {
                name: partition.spec.name.clone(),
                running: machine.is_some_and(|machine| machine.running),
                accelerator: machine.and_then(|machine| machine.accelerator),
                pid: machine.and_then(|machine| machine.pid),
                cpus: partition.spec.cpus,
                memory: partition.spec.memory,
                channel: partition.channel,
                agent: self.channels.agent(&partition.spec.name),
                console: machine.map(|machine| machine.console.clone()).unwrap_or_default(),
                vfs: vfs.collect(),
            }
        });
        Ok(views.collect())
    }

    /// Takes over what a daemon before this one left: what it was in the middle of is undone, machines that run go on, and
    /// their channels are served again.
    ///
    /// # Errors
    /// When the hypervisor can't tell, or the host can't be looked at where that matters.
    pub async fn adopt(self: &Arc<Self>) -> Result<(), ImpError> {
        self.look_whether_the_host_has_booted().await?;
        let interrupted = self.interrupted.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_to_be_undone = interrupted.is_some() || !self.notes.operations().is_empty();
        if is_to_be_undone || self.reconciling.has_booted() {
            // A plan that was begun names adapters by their addresses then: who is there now is known before it is rolled back.
            self.look().await?;
        }
        self.recover(interrupted).await;
        self.note_those_gone("its machine was gone when the daemon started").await?;
        if self.reconciling.has_booted() {
            // Nor is anybody served before they are noted where they are.
            self.follow_adapters(&self.look().await?);
        }
        for (name, partition) in self.state().partitions {
            if partition.channel && partition.running {
                self.serve_channel(&name);
            }
        }
        Ok(())
    }

    async fn runs(&self, partition: &Name) -> bool {
        let machines = self.hypervisor.partitions().await.unwrap_or_default();
        machines.iter().any(|machine| machine.name == *partition && machine.running)
    }

    pub(crate) async fn note_those_gone(&self, why: &str) -> Result<(), ImpError> {
        // Before the look: what is started after it has not gone.
        let noted = self.state().partitions;
        let machines = self.hypervisor.partitions().await?;
        let running: BTreeSet<_> =
            machines.iter().filter(|machine| machine.running).map(|machine| &machine.name).collect();
        let gone = noted.iter().filter(|(name, partition)| partition.running && !running.contains(name));
        self.note_ended(gone.map(|(name, _)| name), why);
        Ok(())
    }

    /// Follows what the hypervisor tells, for as long as the daemon lives.
    pub async fn follow_hypervisor(self: Arc<Self>) {
        let mut events = self.hypervisor.events().await;
        // Nobody tells of a machine that ended after it was adopted and before somebody listened.
        if let Err(error) = self.note_those_gone("its machine was gone when the daemon started").await {
            tracing::error!("cannot look for machines that have ended: {}", error_chain(&error));
        }
        while let Some(HypervisorEvent::Ended { partition, why }) = events.recv().await {
            // The news may be older than the latest start, and a start may come while it is looked.
            let is_running =
                |state: &State| state.partitions.get(&partition).is_some_and(|noted| noted.running);
            let was_running = self.notes.look(is_running);
            if self.runs(&partition).await {
                continue;
            }
            if was_running {
                self.note_ended([&partition], &why);
            } else {
                self.events.emit(EventKind::PartitionEnded { partition, why });
            }
        }
    }

    /// Notes all of them at once: a disk takes as long for one as for those of a whole host.
    fn note_ended<'a>(&self, partitions: impl IntoIterator<Item = &'a Name>, why: &str) {
        let partitions: Vec<_> = partitions.into_iter().collect();
        partitions.iter().for_each(|partition| self.channels.stop(partition));
        let rows = |_: &State| partitions.iter().map(|name| RowKey::Partition((*name).clone())).collect();
        let mut news = Vec::new();
        // That it can't be written down makes it no less so; the log says it.
        let _ = self.notes.change(Must::BeKnown, rows, Vec::new(), |state| {
            for name in &partitions {
                let noted = state.partitions.get_mut(*name);
                if noted.is_some_and(|partition| std::mem::take(&mut partition.running)) {
                    news.push((*name).clone());
                }
            }
        });
        for partition in news {
            self.events.emit(EventKind::PartitionEnded { partition, why: why.to_owned() });
        }
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

    /// [`Imp::export`] for whoever may ask while the disk does not answer.
    pub(crate) async fn read_export(self: &Arc<Self>) -> Result<Export, ImpError> {
        self.read_notes(Notes::export).await
    }

    async fn read_notes<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Notes) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, ImpError> {
        let turn = self.notes.turn().await?;
        let imp = Arc::clone(self);
        let reading = off_the_workers(move || {
            let _turn = turn;
            read(&imp.notes)
        });
        // A plan may be writing, and does not wait for its turn.
        let slow = |_| StoreError::Slow { after: DISK_TIMEOUT };
        Ok(timeout(DISK_TIMEOUT, reading).await.map_err(slow)??)
    }
}

/// Does something that takes a processor or a disk for a while, on a thread that nothing else waits for.
pub(crate) async fn off_the_workers<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime goes away, and with it whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// A plan for this host, seen by a second pair of eyes. Pure: for a recorded host too.
///
/// # Errors
/// When it is refused, with what would have to give way; [`ImpError::Unsound`] never, unless the planner is broken.
pub fn plan_for(
    inventory: &Inventory,
    state: &State,
    intent: &Intent,
    options: &Options,
) -> Result<Plan, ImpError> {
    let plan = ioward_planner::advise(inventory, state, intent, options)
        .map_err(|(reasons, ways)| ImpError::Refused { reasons, ways })?;
    let problems = ioward_planner::validate(&plan, inventory, state);
    if problems.is_empty() { Ok(plan) } else { Err(ImpError::Unsound(problems.join("; "))) }
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

fn refused(reasons: Vec<Reason>) -> ImpError {
    ImpError::Refused { reasons, ways: Vec::new() }
}

/// A file that a partition can't boot from.
fn unusable_file(partition: &Name, file: &UnusableFile) -> Reason {
    let required = format!("a file to boot from at {}", file.path.display());
    Reason::new(Rule::BootFile, required, file.found.clone())
        .for_request(partition)
        .key("boot")
        .remedy(file.remedy.clone())
}
