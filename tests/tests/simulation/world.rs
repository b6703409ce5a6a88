//! [`World`]: a machine, a hypervisor and a management partition, and the actions on them.

mod others;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use ioward_api::ChangeStatus;
use ioward_hypervisor::Hypervisor as _;
use ioward_imp::{Imp, Run};
use ioward_model::{
    Aspect, AspectValue, Assignment, Change, EventKind, Intent, Name, Observation, OpErrorKind, OpOutcome,
    Options, Outcome, Owner, Plan, State, Step, VfCount, VfId, VfOp, VfSettings,
};
use ioward_pci::Bdf;
use ioward_store::{MemoryFile, StateFile};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    actions::{Action, Deed, OPEN, PARTITIONS, may, name},
    blows::{Blow, Fault},
    camera::{Camera, Disk},
    checks,
    gate::{Gate, Trouble, WatchedFabric},
    guests::{Acting, Answer, Guest, planned},
    host::Host,
    hypervisor::{Guests, ModelHypervisor},
    ledger::Ledger,
    random::Random,
    story::Story,
    wait_until,
};

/// A violated rule, in words.
pub type Wrong = String;

pub struct World {
    pub host: Host,
    pub hypervisor: Arc<ModelHypervisor>,
    pub story: Story,
    gate: Arc<Gate>,
    fabric: Arc<WatchedFabric>,
    pub camera: Camera,
    /// The kernel's name for this boot of the host.
    pub boot: &'static str,
    pub disk: Disk,
    pub ledger: Ledger,
    /// Those who have connected their channels.
    at_channels: BTreeMap<Name, Guest>,
    daemon: Option<Daemon>,
    kept: Option<Plan>,
    operations: usize,
    /// Operations that were made to fail during the last plan's rollback.
    struck_on_the_way_back: u32,
    /// The steps of the last plan in the order of completion, by number.
    pub done_in_order: Vec<usize>,
    /// Steps that began while others were running.
    pub overlaps: usize,
    pub loose: Loose,
    /// VFs that others had taken out of domains before the last plan.
    pub was_missing: BTreeSet<Owner>,
}

/// Whatever another person or a failed rollback has disturbed. The management partition may be wrong about these
/// until it is asked to reconcile them.
#[derive(Debug, Default)]
pub struct Loose {
    pub pfs: BTreeSet<Bdf>,
    pub partitions: BTreeSet<Name>,
    /// PFs ever changed by another person: their original state is unknown.
    pub foreign: BTreeSet<Bdf>,
    /// Partitions that have ended or started while nobody was there to tell it.
    pub untold: BTreeSet<Name>,
    /// Who had which VF at the look before; `None`: there was none.
    pub held: Option<BTreeMap<VfId, Owner>>,
}

struct Daemon {
    imp: Arc<Imp>,
    follows: JoinHandle<()>,
}

/// The outcome of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Refused,
    Done,
    Undone,
    NotUndone,
}

impl World {
    pub async fn new(host: Host, story: Story) -> Self {
        let file = MemoryFile::default();
        StateFile::create(Path::new("state"), file.clone(), &[]).unwrap();
        let mut world = Self::asleep(host, story, Guests::default(), &file, Ledger::default());
        world.start_daemon().await.unwrap();
        world
    }

    /// A world without a running daemon.
    pub fn asleep(host: Host, story: Story, guests: Guests, file: &MemoryFile, ledger: Ledger) -> Self {
        let (gate, disk) = (Arc::new(Gate::default()), Disk::with(file));
        let camera = Camera::new(&host.machine, &guests, &disk, &ledger);
        let fabric = WatchedFabric::new(&host.machine, Arc::clone(&gate), camera.clone(), &guests, &ledger);
        let fabric = Arc::new(fabric);
        let hypervisor = Arc::new(ModelHypervisor::new(&host.machine, Arc::clone(&gate), guests));
        hypervisor.watched_by(camera.clone());
        Self {
            host,
            hypervisor,
            story,
            gate,
            fabric,
            camera,
            boot: "first",
            disk,
            ledger,
            at_channels: BTreeMap::new(),
            daemon: None,
            kept: None,
            operations: 0,
            struck_on_the_way_back: 0,
            done_in_order: Vec::new(),
            overlaps: 0,
            loose: Loose::default(),
            was_missing: BTreeSet::new(),
        }
    }

    /// From now on operations take time, as this says.
    pub fn set_pace(&self, random: &mut Random) {
        self.gate.set_pace(Random::new(random.next()));
    }

    pub fn imp(&self) -> &Arc<Imp> {
        &self.daemon.as_ref().unwrap().imp
    }

    pub fn state(&self) -> State {
        self.imp().state()
    }

    pub async fn start_daemon(&mut self) -> Result<(), Wrong> {
        let disk = self.disk.clone();
        let opened = StateFile::open("state".into(), move || Ok(disk.clone()));
        let (store, contents) = opened.map_err(|error| format!("the store: {error}"))?;
        let run =
            Run { epoch: 1, boot: self.boot.to_owned(), clock: ioward_tests::clock_of(&self.host.machine) };
        let (fabric, hypervisor) = (Arc::clone(&self.fabric), Arc::clone(&self.hypervisor));
        let imp = Imp::new(fabric, hypervisor, Box::new(store), contents, run);
        imp.adopt().await.map_err(|error| format!("adopt: {error}"))?;
        let looks = self.hypervisor.looks();
        let follows = tokio::spawn(Arc::clone(&imp).follow_hypervisor());
        // It looks once after it starts to listen; it is told of later changes.
        wait_until("the daemon follows the hypervisor", || self.hypervisor.looks() != looks).await?;
        self.daemon = Some(Daemon { imp, follows });
        Ok(())
    }

    /// The end, whatever the outcome: the story.
    pub async fn end(mut self) -> Story {
        self.kill_daemon().await;
        self.story
    }

    /// Kills the daemon between two plans.
    pub async fn kill_daemon(&mut self) {
        let Some(Daemon { imp, follows }) = self.daemon.take() else { return };
        let _none_begins = imp.finish_operations().await;
        imp.stop_channels();
        self.hypervisor.is_left_alone();
        // After a second without activity, requests of partitions that changed nothing are on the disk too, if
        // there is room.
        let _ = imp.flush();
        // Leaves out what only a daemon that is stopped does to its file.
        self.disk = Disk::with(&self.disk.file());
        self.camera.films(&self.disk);
        follows.abort();
        let _ = follows.await;
        // The other holders are tasks about to find their channel closed.
        wait_until("nothing holds the killed daemon", || Arc::strong_count(&imp) == 1).await.unwrap();
    }

    /// Carries out the next action, and checks everything.
    pub async fn carry_out(&mut self, action: &Action) -> Result<(), Wrong> {
        self.story.tell(|| format!("{action:?}"));
        let strictly = match action {
            Action::Ask { intent, options, trouble } => self.ask(intent, *options, trouble.clone()).await?,
            Action::KeepPlan { intent, options } => {
                self.kept = self.imp().plan(intent, options).await.ok();
                BTreeSet::new()
            }
            Action::ApplyKept => match self.kept.take() {
                Some(plan) => self.apply(plan, Trouble::default()).await?,
                None => BTreeSet::new(),
            },
            Action::Operate { partition, op } => {
                self.operate(partition, op).await?;
                BTreeSet::new()
            }
            other => {
                self.others_do(other).await?;
                BTreeSet::new()
            }
        };
        let state = self.state();
        let kept = self.imp().export().map_err(|error| format!("export: {error}"))?.state;
        if kept != state {
            return Err(format!("known is {state:?}, and kept is {kept:?}"));
        }
        let wrong = checks::look(&self.host, &self.hypervisor, &state, &mut self.loose, &strictly);
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Asks for a plan and applies it. Returns the partitions that are certainly sound afterwards.
    async fn ask(
        &mut self,
        intent: &Intent,
        options: Options,
        trouble: Trouble,
    ) -> Result<BTreeSet<Name>, Wrong> {
        let (view, state) = (self.host.machine.snapshot(), self.state());
        match self.imp().plan(intent, &options).await {
            Ok(plan) => self.apply(plan, trouble).await,
            Err(refused) => {
                let reasons = ioward_api::ApiError::from(refused);
                self.story.tell(|| format!("  no: {reasons} {:?}", reasons.reasons));
                if reasons.reasons.is_empty() && reasons.kind != ioward_api::ErrorKind::Invalid {
                    return Err("a no without a reason".into());
                }
                self.nothing_changed("a refused plan", &view, &state)?;
                Ok(BTreeSet::new())
            }
        }
    }

    async fn apply(&mut self, plan: Plan, trouble: Trouble) -> Result<BTreeSet<Name>, Wrong> {
        let inventory = self.imp().look().await.map_err(|error| format!("look: {error}"))?;
        let (view, state) = (self.host.machine.snapshot(), self.state());
        let is_sound = self.loose.pfs.is_empty() && self.loose.partitions.is_empty();
        for (n, step) in plan.steps.iter().enumerate() {
            self.story.tell(|| format!("  {}. {step}", n + 1));
        }
        let no_chance = trouble.per_million == 0;
        let ended = self.carry_out_plan(&plan, &trouble).await?;
        self.story.tell(|| format!("  {ended:?}"));
        if ended != Ended::Refused {
            let found = ioward_planner::lint(&plan, &inventory, &state);
            if !found.is_empty() {
                return Err(format!("lint: {}", found.join("; ")));
            }
            self.order_holds(&plan, &inventory, &state, is_sound)?;
        }
        match ended {
            Ended::Refused => {
                self.nothing_changed("a plan that is refused", &view, &state)?;
                Ok(BTreeSet::new())
            }
            Ended::Undone => {
                self.everything_undone(&plan, &view, &state)?;
                Ok(BTreeSet::new())
            }
            Ended::NotUndone => {
                if no_chance && is_sound && self.struck_on_the_way_back == 0 {
                    return Err("nothing went wrong on the way back, and it is not undone".into());
                }
                self.loosen(&plan);
                Ok(BTreeSet::new())
            }
            Ended::Done => {
                let concerned = concerned(&plan.intent);
                self.follows_a_switch(&plan).await?;
                self.again(&plan).await?;
                Ok(concerned)
            }
        }
    }

    /// That a standby is active is noted, and what follows of it is the daemon's affair: it looks once a plan has ended.
    async fn follows_a_switch(&self, plan: &Plan) -> Result<(), Wrong> {
        let is_away = |held: &Assignment| held.is_unplugged();
        let has_one_away = self.state().assignments().any(|(_, held)| is_away(held));
        if !matches!(plan.intent, Intent::Failover { .. }) && !has_one_away {
            return Ok(());
        }
        self.imp().reconcile().await.map(drop).map_err(|error| format!("after a switch: {error}"))
    }

    /// Applies a plan, while all guests that have a channel act. Returns how it ended, and how much guests were granted.
    pub async fn apply_while_guests_act(
        &mut self,
        plan: &Plan,
        trouble: &Trouble,
        random: &mut Random,
    ) -> Result<(Ended, usize), Wrong> {
        let guests = self.guests_begin(Some(plan), random);
        let ended = self.follow(plan, trouble).await?;
        let granted = self.guests_end(guests).await?;
        if ended == Ended::NotUndone {
            self.loosen(plan);
        }
        self.follows_a_switch(plan).await?;
        self.is_quiet_and_sound(Some((plan, ended))).await.map_err(|wrong| format!("{ended:?}: {wrong}"))?;
        Ok((ended, granted))
    }

    /// Applies a plan in the middle of which adapters have faults. How it ended, and the faults that there were.
    pub async fn apply_with_blows(
        &mut self,
        plan: &Plan,
        blows: Vec<Blow>,
    ) -> Result<(Ended, Vec<Blow>), Wrong> {
        // VFs that partitions have by the state, and that a fault has taken away before: what is taken from them can't be given back.
        let before = self.host.machine.snapshot();
        let is_lost = |vf: VfId| {
            let of_pf = before.physical_functions.get(&vf.pf).map_or(0, |pf| pf.vfs.len());
            usize::from(vf.index) >= of_pf
        };
        let state = self.state();
        let lost: Vec<_> = state.assignments().map(|(_, held)| held.vf).filter(|vf| is_lost(*vf)).collect();
        let is_about_lost =
            plan.steps.iter().any(|step| step.subject().vf.is_some_and(|vf| lost.contains(&vf)));
        let had_one_away = self.state().assignments().any(|(_, held)| held.is_unplugged());
        self.arm(blows, Some(plan));
        let ended = self.follow(plan, &Trouble::default()).await?;
        let struck = self.disarm()?;
        if struck.is_empty() && !is_about_lost && ended == Ended::NotUndone {
            return Err("nothing has struck, and the plan is not undone".to_owned());
        }
        if ended == Ended::NotUndone {
            self.loosen(plan);
        }
        if had_one_away {
            // It may have been switched back by a look in the middle of the plan, after which the reconciler puts it into its machine.
            self.imp().reconcile().await.map_err(|error| format!("after a switch: {error}"))?;
        }
        self.follows_a_switch(plan).await?;
        self.is_quiet_and_sound(None).await.map_err(|wrong| format!("{ended:?}: {wrong}"))?;
        Ok((ended, struck))
    }

    /// From now on these faults are to come, in the middle of a plan or without one.
    pub fn arm(&self, blows: Vec<Blow>, plan: Option<&Plan>) {
        self.gate.blows.arm(blows, plan.cloned(), Arc::downgrade(self.imp()));
    }

    /// Time has passed, which is as good as an operation.
    pub async fn strike(&self) {
        self.gate.blows.strike(&self.host.machine, self.hypervisor.all()).await;
    }

    /// No more faults. Those that there were, whose adapters may be in whatever state.
    pub fn disarm(&mut self) -> Result<Vec<Blow>, Wrong> {
        let struck = self.gate.blows.disarm()?;
        for Blow { pf, fault, .. } in &struck {
            match fault {
                Fault::TakenOut => self.host.is_taken_out(*pf),
                // It comes back, at the latest now.
                Fault::Link(_) => _ = self.host.machine.set_up(*pf, true),
                Fault::Error(..) | Fault::DriverReset | Fault::Controller(..) | Fault::Health(..) => {}
            }
            self.disturbed(*pf);
        }
        self.hypervisor.notice_losses();
        Ok(struck)
    }

    /// All guests that have a channel act.
    pub async fn guests_act(&mut self, random: &mut Random) -> Result<usize, Wrong> {
        let guests = self.guests_begin(None, random);
        let granted = self.guests_end(guests).await?;
        self.is_quiet_and_sound(None).await?;
        Ok(granted)
    }

    /// They act beside this plan, if there is one.
    fn guests_begin(
        &mut self,
        plan: Option<&Plan>,
        random: &mut Random,
    ) -> Vec<JoinHandle<Result<(Guest, usize), Wrong>>> {
        let begin = |partition: &str| {
            let guest = self.guest(&name(partition));
            let planned = plan.and_then(|plan| planned(plan, &guest.partition));
            let (imp, host) = (Arc::clone(self.imp()), self.host.clone());
            let (ledger, random) = (self.ledger.clone(), Random::new(random.next()));
            tokio::spawn(guest.act(Acting { imp, host, ledger, random, planned }))
        };
        PARTITIONS.map(begin).into()
    }

    async fn guests_end(
        &mut self,
        guests: Vec<JoinHandle<Result<(Guest, usize), Wrong>>>,
    ) -> Result<usize, Wrong> {
        let mut granted = 0;
        for guest in guests {
            let (guest, count) = guest.await.map_err(|error| format!("a guest: {error}"))??;
            self.at_channels.insert(guest.partition.clone(), guest);
            granted += count;
        }
        Ok(granted)
    }

    /// Looks at everything while no guest changes anything.
    pub async fn is_quiet_and_sound(&mut self, plan: Option<(&Plan, Ended)>) -> Result<(), Wrong> {
        let imp = Arc::clone(self.imp());
        let _quiet = imp.finish_operations().await;
        let state = imp.state();
        let kept = imp.export().map_err(|error| format!("export: {error}"))?;
        if kept.state != state || !kept.operations.is_empty() {
            return Err(format!("known is {state:?}, and kept is {kept:?}"));
        }
        let audit = imp.audit(usize::MAX).map_err(|error| format!("audit: {error}"))?;
        let nobody = BTreeSet::new();
        let mut wrong = checks::look(&self.host, &self.hypervisor, &state, &mut self.loose, &nobody);
        wrong.extend(self.ledger.holds(&audit, (&state, &self.host.machine.snapshot()), plan));
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// Whoever is at the other end of a partition's channel.
    fn guest(&mut self, partition: &Name) -> Guest {
        let guest = self.at_channels.remove(partition);
        guest.unwrap_or_else(|| Guest::new(partition.clone(), Arc::clone(&self.hypervisor)))
    }

    /// A partition requests an operation through its channel; `None` when its machine has none.
    pub async fn request(&mut self, partition: &Name, op: &VfOp) -> Result<Option<Answer>, Wrong> {
        let mut guest = self.guest(partition);
        let answer = guest.ask(op).await;
        self.at_channels.insert(partition.clone(), guest);
        answer
    }

    /// Asks for the same again: nothing is left to do.
    async fn again(&mut self, plan: &Plan) -> Result<(), Wrong> {
        if !matches!(plan.intent, Intent::Apply { .. }) {
            return Ok(());
        }
        match self.imp().plan(&plan.intent, &plan.options).await {
            Ok(again) if again.steps.is_empty() => Ok(()),
            Ok(again) => {
                let steps: Vec<_> = again.steps.iter().map(ToString::to_string).collect();
                Err(format!("asked for once more, there is still to do: {}", steps.join("; ")))
            }
            Err(no) => {
                let no = ioward_api::ApiError::from(no);
                Err(format!("asked for once more, it is refused: {no}: {:?}", no.reasons))
            }
        }
    }

    pub async fn carry_out_plan(&mut self, plan: &Plan, trouble: &Trouble) -> Result<Ended, Wrong> {
        let ended = self.follow(plan, trouble).await?;
        if ended == Ended::Done {
            self.shows_what_was_done(plan).await?;
        }
        Ok(ended)
    }

    async fn follow(&mut self, plan: &Plan, trouble: &Trouble) -> Result<Ended, Wrong> {
        if self.takes_from_others(plan)? {
            // It says so, and nobody lets it.
            return Ok(Ended::Refused);
        }
        self.was_missing = self.hypervisor.missing();
        let others = self.hypervisor.runs_of_others();
        let ended = self.follow_to_its_end(plan, trouble).await?;
        self.others_run_as_before(plan, &others)?;
        Ok(ended)
    }

    /// Whether VFs go with a plan that somebody has who is no partition. It has to say so.
    fn takes_from_others(&self, plan: &Plan) -> Result<bool, Wrong> {
        let view = self.host.machine.snapshot();
        let is_resized = |vf: &VfId| {
            plan.steps.iter().any(|step| matches!(step, Step::SetVfCount { pf, .. } if *pf == vf.pf))
        };
        let Some((vf, is)) = self.host.foreign(&view).into_iter().find(|(vf, _)| is_resized(vf)) else {
            return Ok(false);
        };
        let is_said = plan.disturbs.iter().any(|disturbed| disturbed.function == is.address);
        if is_said && plan.options.allow_disruption {
            Ok(true)
        } else {
            Err(format!(
                "{vf} is somebody else's, goes with the plan, and that is not said: {:?}",
                plan.disturbs
            ))
        }
    }

    /// Domains and namespaces are started and ended by who asks for it, and by nobody else.
    fn others_run_as_before(&self, plan: &Plan, before: &BTreeMap<Name, (bool, u32)>) -> Result<(), Wrong> {
        let now = self.hypervisor.runs_of_others();
        let is_asked = |name: &Name| {
            plan.steps.iter().any(|step| {
                matches!(step, Step::StartPartition { partition } | Step::StopPartition { partition, .. } if partition == name)
            })
        };
        let changed = before.iter().find(|(name, was)| now.get(*name) != Some(was) && !is_asked(name));
        changed.map_or(Ok(()), |(name, was)| {
            Err(format!(
                "{name} was {was:?} (runs, starts) and is {:?}, and nobody asked for it",
                now.get(name)
            ))
        })
    }

    async fn follow_to_its_end(&mut self, plan: &Plan, trouble: &Trouble) -> Result<Ended, Wrong> {
        let imp = Arc::clone(self.imp());
        let (sender, events) = mpsc::unbounded_channel();
        let (person, mut events) = match trouble.person_leaves {
            Some(_) => (Some(events), None),
            None => (None, Some(events)),
        };
        let guests_before = self.hypervisor.guests();
        self.gate.arm(trouble.clone(), person);
        self.host.machine.set_fault_rate(trouble.per_million);
        let begun = imp.apply(plan.clone(), sender).await;
        let (mut last, mut struck_on_the_way_forth) = (None, 0);
        let mut under_way = BTreeSet::new();
        self.done_in_order.clear();
        while let Some(event) = match &mut events {
            Some(events) => events.recv().await,
            None => None,
        } {
            if matches!(event.kind, EventKind::StepFailed { .. } | EventKind::StepUndone { .. }) {
                self.story.tell(|| format!("  {}", event.kind));
            }
            match &event.kind {
                EventKind::StepStarted { number, .. } => _ = under_way.insert(*number),
                EventKind::StepDone { number, .. } => {
                    under_way.remove(number);
                    self.done_in_order.push(*number);
                }
                EventKind::StepFailed { number, .. } => _ = under_way.remove(number),
                _ => {}
            }
            self.overlaps += usize::from(under_way.len() > 1);
            if let EventKind::StepFailed { error, .. } = &event.kind {
                struck_on_the_way_forth += u32::from(was_made_to_fail(error));
            }
            last = Some(event.kind);
        }
        drop(imp.finish_changes().await);
        let struck = self.gate.disarm();
        self.struck_on_the_way_back = struck.saturating_sub(struck_on_the_way_forth);
        self.host.machine.set_fault_rate(0);
        if trouble.libvirt_dies.is_some() && !self.hypervisor.is_away() {
            self.hypervisor.is_back(&guests_before);
            self.hears_how_the_domain_is().await?;
        }
        if let Err(no) = begun {
            self.story.tell(|| format!("  not begun: {}", ioward_api::ApiError::from(no)));
            return Ok(Ended::Refused);
        }
        let status = imp.changes().last().map(|change| change.status);
        match last {
            Some(EventKind::PlanDone { .. }) => Ok(Ended::Done),
            Some(EventKind::PlanFailed { undone: true, .. }) => Ok(Ended::Undone),
            Some(EventKind::PlanFailed { undone: false, .. }) => Ok(Ended::NotUndone),
            // Nobody was there to see the outcome: whoever comes later asks for it.
            None if trouble.person_leaves.is_some() => match status {
                Some(ChangeStatus::Done) => Ok(Ended::Done),
                Some(ChangeStatus::RolledBack) => Ok(Ended::Undone),
                Some(ChangeStatus::Incomplete) => Ok(Ended::NotUndone),
                other => Err(format!("the plan has ended, and its change is {other:?}")),
            },
            other => Err(format!("the plan ended with {other:?}")),
        }
    }

    /// A look at the host shows every change that the steps of a completed plan made, as the last of them made it.
    async fn shows_what_was_done(&self, plan: &Plan) -> Result<(), Wrong> {
        let inventory = self.imp().look().await.map_err(|error| error.to_string())?;
        let partitions = self.hypervisor.partitions().await.map_err(|error| error.to_string())?;
        let host = Observation { inventory: &inventory, partitions: &partitions };
        let mut done: BTreeMap<Aspect, AspectValue> = BTreeMap::new();
        for step in &plan.steps {
            let Some(Change { aspect, to, .. }) = step.change(&Outcome::default()) else { continue };
            if let Aspect::VfCount(pf) = aspect {
                // VFs take their drivers and settings with them.
                done.retain(
                    |aspect, _| !matches!(aspect, Aspect::Driver(vf) | Aspect::Settings(vf) if vf.pf == pf),
                );
            }
            let to = match done.remove(&aspect) {
                Some(earlier) => to.or(earlier),
                None => to,
            };
            done.insert(aspect, to);
        }
        let missing = done.iter().find(|(aspect, to)| !host.shows(aspect, to));
        missing.map_or(Ok(()), |missing| {
            Err(format!("the plan is done, and the host does not show {missing:?}"))
        })
    }

    async fn operate(&mut self, partition: &Name, op: &VfOp) -> Result<(), Wrong> {
        let (view, state) = (self.host.machine.snapshot(), self.state());
        let Some(result) = self.request(partition, op).await? else {
            self.story.tell(|| "  it has no channel".to_owned());
            return Ok(());
        };
        self.story.tell(|| format!("  {result:?}"));
        self.operations += 1;
        let audit = self.imp().audit(usize::MAX).map_err(|error| format!("audit: {error}"))?;
        if audit.len() != self.operations {
            return Err(format!("{} operations, and {} in the audit log", self.operations, audit.len()));
        }
        let held = state.partitions.get(partition);
        let named = op.vf().zip(held).and_then(|(vf, held)| Some((held.vfs.get(vf)?, held.spec.vf(vf)?)));
        let (outcome, (assignment, request)) = match (result, named) {
            (Ok(OpOutcome::Vfs(_)), _) if *op == VfOp::List => {
                return self.nothing_changed("a list", &view, &state);
            }
            (Ok(outcome), Some(named)) => (outcome, named),
            (Ok(outcome), None) => return Err(format!("{outcome:?} for a VF that it does not hold")),
            (Err(no), _) => {
                self.nothing_changed("an operation that was not done", &view, &state)?;
                let denied_wrongly = no.kind == OpErrorKind::Denied
                    && named.is_none_or(|(_, request)| may(&request.guest_may, op));
                return if denied_wrongly { Err(format!("denied, and it may: {no}")) } else { Ok(()) };
            }
        };
        if !may(&request.guest_may, op) {
            return Err(format!("granted, and it may not: {outcome:?}"));
        }
        match op {
            VfOp::Set { change, .. } => self.only_this_changed(assignment.vf, change, &view),
            VfOp::Reset { .. } => self.only_this_changed(assignment.vf, &VfSettings::default(), &view),
            _ => self.nothing_changed("a look", &view, &state),
        }
    }

    /// Whatever a plan touched and could not roll back is no longer known.
    fn loosen(&mut self, plan: &Plan) {
        let state = self.state();
        for step in &plan.steps {
            let touched = step.subject();
            self.loose.partitions.extend(touched.partition.cloned());
            if let Some(pf) = touched.adapter() {
                self.loose.pfs.insert(pf);
                let holders = state.assignments().filter(|(_, held)| held.vf.pf == pf);
                self.loose.partitions.extend(holders.map(|(owner, _)| owner.partition));
            }
        }
    }

    /// Every guest that has a channel is answered.
    async fn all_are_served(&mut self) -> Result<(), Wrong> {
        let partitions = self.state().partitions;
        for (name, _) in partitions.iter().filter(|(_, noted)| noted.running && noted.channel) {
            let answer = self.request(name, &VfOp::List).await?;
            self.operations += usize::from(answer.is_some());
        }
        Ok(())
    }

    /// The end of every story: restores all adapters, removes all partitions, releases all adapters.
    pub async fn remove_everything(&mut self) -> Result<(), Wrong> {
        self.carry_out(&Action::Virsh(Deed::LibvirtComes)).await?;
        self.all_are_served().await?;
        self.story.tell(|| "at the end everything is removed".to_owned());
        for pf in self.host.adapters() {
            self.carry_out(&Action::Replug { pf }).await?;
        }
        let partitions: Vec<_> = self.state().partitions.into_keys().collect();
        for partition in partitions {
            self.must(&Intent::Remove { partition }).await?;
        }
        for pf in self.state().out_of_service.into_keys().collect::<Vec<_>>() {
            self.must(&Intent::Return { pf }).await?;
        }
        let adapters = self.host.pfs.iter().map(|pf| ioward_model::AdapterSpec {
            pf: pf.address,
            vfs: None::<VfCount>,
            spare: None,
        });
        let spec = ioward_model::Spec { version: 1, adapters: adapters.collect(), partitions: Vec::new() };
        self.must(&Intent::Apply { spec }).await?;
        let state = self.state();
        if !state.partitions.is_empty() || !state.adapters.is_empty() {
            return Err(format!("everything was removed, and the state is {state:?}"));
        }
        if !self.hypervisor.guests().is_empty() {
            return Err(format!("everything was removed, but {:?}", self.hypervisor.guests()));
        }
        let (mut found, mut now) = (self.host.found.clone(), self.host.machine.snapshot());
        for view in [&mut found, &mut now] {
            view.physical_functions.retain(|pf, _| !self.loose.foreign.contains(pf));
            view.physical_functions.values_mut().flat_map(|pf| &mut pf.vfs).for_each(|vf| vf.group = None);
        }
        let differs = checks::differences(&found, &now);
        if differs.is_empty() { Ok(()) } else { Err(format!("not as it was found: {}", differs.join("; "))) }
    }

    /// An intent that must succeed, now that nothing fails any more.
    async fn must(&mut self, intent: &Intent) -> Result<(), Wrong> {
        let before = self.state();
        let action = Action::Ask { intent: intent.clone(), options: OPEN, trouble: Trouble::default() };
        self.carry_out(&action).await?;
        let done = match intent {
            Intent::Remove { partition } => !self.state().partitions.contains_key(partition),
            Intent::Return { pf } => !self.state().out_of_service.contains_key(pf),
            _ => self.state().adapters.is_empty(),
        };
        if done { Ok(()) } else { Err(format!("{intent:?} is not done; the state was {before:?}")) }
    }
}

impl Loose {
    pub fn is_empty(&self) -> bool {
        self.pfs.is_empty() && self.partitions.is_empty()
    }
}

/// Whether a step failed because an operation of its was made to, or libvirt was away or hung.
fn was_made_to_fail(error: &str) -> bool {
    let made = ["os error 5", "told to fail", "libvirt hangs", "no libvirt daemon listens here"];
    made.iter().any(|why| error.contains(why))
}

/// Partitions whose VFs a plan decides again: they are certainly sound once it is done.
fn concerned(intent: &Intent) -> BTreeSet<Name> {
    match intent {
        Intent::Apply { spec } => spec.partitions.iter().map(|partition| partition.name.clone()).collect(),
        Intent::Attach { partition, .. } | Intent::Detach { partition, .. } => {
            BTreeSet::from([partition.clone()])
        }
        Intent::Start { .. }
        | Intent::Stop { .. }
        | Intent::Remove { .. }
        | Intent::Adopt { .. }
        | Intent::Release { .. }
        | Intent::Evacuate { .. }
        | Intent::EvacuateHost
        | Intent::Depart { .. }
        | Intent::Return { .. }
        | Intent::Failover { .. }
        | Intent::Reconcile { .. } => BTreeSet::new(),
    }
}
