//! The management partition itself: what it knows, and the few things it is asked to do.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_api::{AssignedVf, ChangeId, ChangeView, Compatible, PartitionView};
use ioward_fabric::Fabric;
use ioward_hypervisor::{Hypervisor, HypervisorEvent, UnusableFile};
use ioward_model::{
    AuditEntry, Event, EventKind, Intent, Inventory, Name, Options, Plan, Policy, Reason, RowKey, Rule, Spec,
    State, Step, Whereabouts,
};
use ioward_store::{Contents, Export, Interrupted, Store};
use tokio::{
    sync::{OwnedMutexGuard, mpsc},
    time::timeout,
};

use crate::{
    changes::{Change, Changes},
    channels::Channels,
    compatible,
    error::{ImpError, error_chain},
    events::EventLog,
    executor::Begun,
    look,
    notes::{Must, Notes},
    ownership::Ownership,
    quarantine::Quarantine,
    reconcile::Reconciling,
    stuck::StuckAdapters,
};

/// How long an entry of the audit log waits at most for others to be written with it, when it is about nothing that has
/// changed: a guest that asks without end is not to keep the disk busy.
const FLUSH_EACH: Duration = Duration::from_secs(1);

/// How long a change waits at most for a look at what has drifted, which may repair something meanwhile.
const WAIT_FOR_A_LOOK: Duration = Duration::from_secs(10);

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
    last_look: Mutex<Option<Inventory>>,
    pub(crate) run: Run,
    /// What the daemon before this one was in the middle of.
    interrupted: Mutex<Option<Interrupted>>,
    pub(crate) changes: Changes,
    /// Held for as long as a plan is carried out: one at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
    pub(crate) ownership: Ownership,
    pub(crate) stuck: StuckAdapters,
    pub(crate) reconciling: Reconciling,
}

/// Tells one run of the daemon, and one boot of its host, from another.
#[derive(Clone, Debug)]
pub struct Run {
    /// Another number each time.
    pub epoch: u64,
    /// What the kernel calls this boot (`/proc/sys/kernel/random/boot_id`).
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
            last_look: Mutex::new(None),
            changing: Arc::default(),
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
        let found = self.fabric.identify().await?;
        let state = self.state();
        let whereabouts = Whereabouts::of(&state, &found, self.reconciling.has_booted());
        let quarantined = whereabouts.quarantined(&state, &found);
        self.quarantine.set(quarantined.keys().copied());
        let mut last = self.last_look.lock().unwrap_or_else(PoisonError::into_inner);
        let complete = look::complete(found, &state, &quarantined, last.as_ref());
        if last.as_ref().is_some_and(|last| last.generation != complete.generation) {
            self.events.emit(EventKind::InventoryChanged { generation: complete.generation });
        }
        *last = Some(complete.clone());
        Ok(complete)
    }

    /// Which functions suit each VF that a partition of a Spec asks for, and why the others do not.
    ///
    /// # Errors
    /// When the Spec makes no sense or has no such partition.
    pub async fn compatible(&self, spec: &Spec, partition: &Name) -> Result<Vec<Compatible>, ImpError> {
        spec.validate()?;
        compatible::compatible(&self.look().await?, &self.state(), spec, partition)
    }

    /// What would have to be done for this.
    ///
    /// # Errors
    /// When the wish makes no sense, or rules forbid it.
    pub async fn plan(&self, intent: &Intent, options: &Options) -> Result<Plan, ImpError> {
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
        let inventory = self.look().await?;
        plan_for(&inventory, &self.state(), intent, options)
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
        Ok(self.begin_attached(plan, None).await?.view())
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
        self.begin_attached(plan, Some(listener)).await.map(drop)
    }

    async fn begin_attached(
        self: &Arc<Self>,
        plan: Plan,
        listener: Option<mpsc::UnboundedSender<Event>>,
    ) -> Result<Arc<Change>, ImpError> {
        let guard = self.begin_change().await?;
        let now = self.plan(&plan.intent, &plan.options).await?;
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
        let begun = Begun { plan, number, change: Arc::clone(&change), _guard: guard };
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

    /// Takes the right to change something; the others are told that this one is at it. A look at what has drifted is nothing
    /// that a person should be told of: it is waited for.
    pub(crate) async fn begin_change(&self) -> Result<OwnedMutexGuard<()>, ImpError> {
        let changing = Arc::clone(&self.changing);
        match Arc::clone(&changing).try_lock_owned() {
            Ok(guard) => Ok(guard),
            Err(_) if self.reconciling.is_at_it() => {
                timeout(WAIT_FOR_A_LOOK, changing.lock_owned()).await.map_err(|_| ImpError::Busy)
            }
            Err(_) => Err(ImpError::Busy),
        }
    }

    /// The same, if nothing is being changed.
    pub(crate) fn try_begin_change(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.changing).try_lock_owned().ok()
    }

    /// Waits until nothing is being changed, and lets nothing begin after.
    pub async fn finish_changes(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.changing).lock_owned().await
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
            // What was begun names adapters by where they were: who is there now is known before anything is undone.
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
        self.events.follow().0
    }

    /// The latest audit entries, oldest first.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn audit(&self, limit: usize) -> Result<Vec<AuditEntry>, ImpError> {
        Ok(self.notes.latest_audit(limit)?)
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
