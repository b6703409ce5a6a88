//! VF configuration operations: what a partition asks for its own VFs, held against what it may, and carried out
//! through the PF. A user of the API may ask in its place: the role allows it then, and all else is the same.
//!
//! A change, once begun, is finished by a task of its own, whoever goes away meanwhile: the guest, its channel, the caller. That task
//! keeps plans off the VF until the change is noted.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ioward_fabric::{Fabric, FabricError};
use ioward_model::{
    Assignment, AuditEntry, FailoverCause, MacAddress, Name, OpError, OpErrorKind, OpOutcome, OpenOperation,
    Outcome, PartitionState, State, Step, Verdict, VfId, VfOp, VfRequest, VfSettings, VfView, fault_of,
};
use ioward_pci::Bdf;
use ioward_store::{Change, StoreError};
use tokio::{
    sync::{Notify, OwnedMutexGuard, OwnedRwLockReadGuard},
    time::timeout,
};

use crate::{
    claims::Claims,
    error::{error_chain, lack},
    events::now_ms,
    look::Looks,
    macs::{Macs, Reserved},
    metrics::Counters,
    notes::{Must, Notes},
    ownership::Ownership,
    stuck::StuckAdapters,
};

/// How long a daemon that stops waits for changes of partitions. Those that last longer are put back by the next one.
const FINISH_TIMEOUT: Duration = Duration::from_secs(10);

/// Who asks for an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// The partition, which may what `guest_may` says.
    Partition,
    /// A user of the host, whose role allows it.
    User {
        /// The user's.
        uid: u32,
        /// The VF that is meant: what the partition holds under the name may be another by now.
        vf: VfId,
    },
}

/// The part that carries out operations, and knows which are under way.
pub(crate) struct Operations {
    fabric: Arc<dyn Fabric>,
    notes: Arc<Notes>,
    looks: Arc<Looks>,
    ownership: Arc<Ownership>,
    stuck: Arc<StuckAdapters>,
    counters: Arc<Counters>,
    /// A look at the host is worth while.
    news: Arc<Notify>,
    /// One change of a partition at a time: who waits for its turn is the caller and not a task, so that a partition that
    /// connects anew again and again leaves no more than one task.
    turns: Mutex<BTreeMap<Name, Arc<tokio::sync::Mutex<()>>>>,
    /// Read by every change; written by a daemon that stops, and lets none begin any more.
    open: Arc<tokio::sync::RwLock<()>>,
    pub macs: Macs,
    pub claims: Claims,
}

/// An operation that has been carried out and is not noted yet.
struct Operated {
    outcome: OpOutcome,
    /// The change that was made, if it was one of settings.
    set: Option<OpenOperation>,
    /// Held until it is noted.
    _owners: Vec<OwnedRwLockReadGuard<()>>,
    _mac: Option<Reserved>,
}

impl Operated {
    fn looked(outcome: OpOutcome) -> Self {
        Self { outcome, set: None, _owners: Vec::new(), _mac: None }
    }
}

impl Operations {
    pub(crate) fn new(
        fabric: Arc<dyn Fabric>,
        notes: Arc<Notes>,
        looks: Arc<Looks>,
        ownership: Arc<Ownership>,
        stuck: Arc<StuckAdapters>,
        counters: Arc<Counters>,
        news: Arc<Notify>,
    ) -> Arc<Self> {
        let (turns, open) = (Mutex::default(), Arc::default());
        let (macs, claims) = (Macs::default(), Claims::default());
        Arc::new(Self { fabric, notes, looks, ownership, stuck, counters, news, turns, open, macs, claims })
    }

    /// Does what is asked for VFs of a partition, if it may be, and notes it in the audit log either way. A change goes on when
    /// the caller goes away.
    ///
    /// Where the partition asks, `partition` is known from the channel that the request came through. Nothing in the request can
    /// name another.
    ///
    /// # Errors
    /// When it may not, or it could not be done. Nothing has changed then, unless the adapter does not answer: then the change
    /// is put back as soon as it does.
    pub(crate) async fn operate(
        self: &Arc<Self>,
        asker: Asker,
        partition: &Name,
        op: VfOp,
    ) -> Result<OpOutcome, OpError> {
        if !matches!(op, VfOp::Set { .. } | VfOp::Reset { .. } | VfOp::Failover { .. }) {
            return self.operate_and_note(asker, partition, op).await;
        }
        let turn = self.turn(partition).await;
        let open = Arc::clone(&self.open).read_owned().await;
        let (operations, partition) = (Arc::clone(self), partition.clone());
        let task = tokio::spawn(async move {
            let _held = (turn, open);
            operations.operate_and_note(asker, &partition, op).await
        });
        let cut_off = |_| OpError::new(OpErrorKind::Failed, "the management partition is going away");
        task.await.unwrap_or_else(|error| Err(cut_off(error)))
    }

    /// Waits until no change of a partition is under way, and lets none begin as long as the result is there.
    pub(crate) async fn finish(&self) -> impl Send + use<> {
        let closed = timeout(FINISH_TIMEOUT, Arc::clone(&self.open).write_owned()).await;
        if closed.is_err() {
            tracing::error!("a change of a partition does not end; the next daemon puts it back");
        }
        closed.ok()
    }

    async fn operate_and_note(
        self: &Arc<Self>,
        asker: Asker,
        partition: &Name,
        op: VfOp,
    ) -> Result<OpOutcome, OpError> {
        let operated = self.operate_unnoted(asker, partition, &op).await;
        let verdict = match &operated {
            Ok(_) => Verdict::Granted,
            Err(error) if matches!(error.kind, OpErrorKind::Failed | OpErrorKind::Busy) => {
                Verdict::Failed(error.message.clone())
            }
            Err(error) => Verdict::Refused(error.message.clone()),
        };
        self.counters.operation(asker, &op, &verdict);
        let is_reset = matches!(op, VfOp::Reset { .. });
        let uid = match asker {
            Asker::Partition => None,
            Asker::User { uid, .. } => Some(uid),
        };
        let entry = AuditEntry { time_ms: now_ms(), partition: partition.clone(), uid, request: op, verdict };
        let operated = operated.inspect_err(|_| self.notes.audit(entry.clone()))?;
        if let Some(set) = &operated.set {
            self.note_set(set, entry).await?;
        } else {
            self.notes.audit(entry);
            if is_reset {
                // The VF is reset by now; what can still be done is to say loudly that nobody will know.
                match self.notes.turn().await {
                    Ok(_turn) => self.notes.flush_or_say(),
                    Err(error) => tracing::error!("the audit log cannot be written: {}", error_chain(&error)),
                }
            }
        }
        Ok(operated.outcome)
    }

    /// Looks at what a partition has, for the management partition itself.
    pub(crate) async fn vfs_of(self: &Arc<Self>, partition: &Name) -> Result<OpOutcome, OpError> {
        Ok(self.operate_unnoted(Asker::Partition, partition, &VfOp::List).await?.outcome)
    }

    async fn operate_unnoted(
        self: &Arc<Self>,
        asker: Asker,
        partition: &Name,
        op: &VfOp,
    ) -> Result<Operated, OpError> {
        let (holder, owners) = self.holder(partition).await?;
        let Some(name) = op.vf() else {
            let mut views = Vec::new();
            for name in attached(&holder) {
                views.push(self.listed(&holder, name).await?);
            }
            return Ok(Operated::looked(OpOutcome::Vfs(views)));
        };
        let Some(vf) = holder.vfs.get(name).filter(|a| a.is_handed_over()).map(|assignment| assignment.vf)
        else {
            let held: Vec<_> = attached(&holder).map(Name::as_str).collect();
            let message = format!("this partition holds no VF '{name}'; it holds {}", held.join(", "));
            return Err(OpError::new(OpErrorKind::NoSuchVf, message));
        };
        if let Asker::User { vf: meant, .. } = asker
            && meant != vf
        {
            let message = format!("{meant} is not {partition}/{name}, which is {vf}; look at the VF again");
            return Err(OpError::new(OpErrorKind::NoSuchVf, message));
        }
        if let (Asker::Partition, Some(request)) = (asker, holder.spec.vf(name)) {
            request.guest_may.check(op).map_err(|denied| {
                let message = format!("{name}: {}; ask the host's administrator", denied.join("; "));
                OpError::new(OpErrorKind::Denied, message)
            })?;
        }
        Ok(match op {
            VfOp::List | VfOp::Get { .. } => Operated::looked(OpOutcome::Vf(self.view(&holder, name).await?)),
            VfOp::Set { change, .. } => {
                let (set, _mac) = self.set(partition, vf, change).await?;
                match self.view(&holder, name).await {
                    Ok(view) => {
                        Operated { outcome: OpOutcome::Vf(view), set: Some(set), _owners: owners, _mac }
                    }
                    Err(error) => {
                        self.put_back(&set).await;
                        return Err(error);
                    }
                }
            }
            VfOp::Reset { .. } if !holder.spec.kind.name().uses_vfio() => {
                let message = "the host's driver has this VF, and would not see that it is reset; take its interface \
                               down and up instead";
                return Err(OpError::new(OpErrorKind::Invalid, message));
            }
            VfOp::Failover { back, .. } => {
                self.switch_over(asker, &holder, name, *back).await?;
                let (now, _) = self.holder(partition).await?;
                Operated::looked(OpOutcome::Vf(self.listed(&now, name).await?))
            }
            VfOp::Reset { .. } => {
                self.fabric.reset(vf).await.map_err(failed)?;
                Operated { outcome: OpOutcome::Done, set: None, _owners: owners, _mac: None }
            }
            VfOp::Stats { .. } => {
                Operated::looked(OpOutcome::Stats(self.fabric.statistics(vf).await.map_err(failed)?))
            }
        })
    }

    /// A partition with its VFs, which no plan changes until the guards are dropped.
    async fn holder(
        &self,
        partition: &Name,
    ) -> Result<(PartitionState, Vec<OwnedRwLockReadGuard<()>>), OpError> {
        let look = || {
            let holder = self.notes.look(|state| state.partitions.get(partition).cloned());
            holder.ok_or_else(|| OpError::new(OpErrorKind::NoSuchVf, "this partition holds no VFs"))
        };
        let adapters =
            |holder: &PartitionState| holder.vfs.values().map(|held| held.vf.pf).collect::<BTreeSet<_>>();
        let mut holder = look()?;
        loop {
            let guards = self.ownership.read(&adapters(&holder)).await;
            // Its VFs may have changed while this waited.
            let now = look()?;
            if adapters(&now).is_subset(&adapters(&holder)) {
                return Ok((now, guards));
            }
            holder = now;
        }
    }

    /// Sets a VF, with what that changes written down before. A MAC is reserved until the change is noted.
    async fn set(
        self: &Arc<Self>,
        partition: &Name,
        vf: VfId,
        change: &VfSettings,
    ) -> Result<(OpenOperation, Option<Reserved>), OpError> {
        let invalid = |message: String| OpError::new(OpErrorKind::Invalid, message);
        if change.is_empty() {
            return Err(invalid("nothing to set".to_owned()));
        }
        if self.claims.has(vf) {
            let message = "the host's administrator is changing this VF; ask again when that is done";
            return Err(OpError::new(OpErrorKind::Busy, message));
        }
        if let Some(open) = self.notes.operation(vf) {
            // The adapter did not answer to it.
            self.put_back(&open).await;
            if self.notes.operation(vf).is_some() {
                let message = "an earlier change of this VF has not ended: its adapter does not answer";
                return Err(OpError::new(OpErrorKind::Busy, message));
            }
        }
        let mac = change.mac.map(|mac| self.reserve_mac(mac, vf)).transpose()?;
        let before = change.restored_from(&self.fabric.settings(vf).await.map_err(failed)?);
        let set = OpenOperation { partition: partition.clone(), vf, change: change.clone(), before };
        self.notes.operation_begun(set.clone()).await.map_err(|error| unkept(&error))?;
        match self.fabric.configure(vf, change).await {
            Ok(()) => Ok((set, mac)),
            Err(error) if is_in_doubt(&error) => {
                self.leave_in_doubt(&set, &error).await;
                Err(failed(error))
            }
            Err(error) => {
                self.notes.operation_ended(vf).await;
                Err(failed(error))
            }
        }
    }

    /// Looks whether a MAC is free for a VF, and reserves it if it is.
    fn reserve_mac(&self, mac: MacAddress, vf: VfId) -> Result<Reserved, OpError> {
        let invalid = |message: String| OpError::new(OpErrorKind::Invalid, message);
        if !mac.is_unicast() {
            return Err(invalid(format!("{mac} is no address for one station (multicast or zero)")));
        }
        let is_taken = |mac, vf| {
            self.looks.is_mac_of_the_host(mac)
                || self.notes.look(|state| macs_of_others(state, vf)).contains(&mac)
                || self.notes.operations().iter().any(|open| {
                    open.vf != vf && (open.change.mac == Some(mac) || open.before.mac == Some(mac))
                })
        };
        let reserved = self.macs.reserve(vec![(mac, vf)], is_taken);
        reserved.map_err(|mac| invalid(format!("{mac} is already in use on this host; choose another")))
    }

    /// Notes a change together with who asked for it. A change that can't be noted is taken back.
    async fn note_set(self: &Arc<Self>, set: &OpenOperation, entry: AuditEntry) -> Result<(), OpError> {
        let noted = vec![Change::OperationEnded(set.vf), Change::Audit(entry)];
        let turn = self.notes.turn_at_last().await;
        let noted = self.notes.change(
            Must::BeWritten,
            |state| state.row_of(set.vf),
            noted,
            |state| {
                state.record_guest_change(set.vf, &set.change, &set.before);
            },
        );
        drop(turn);
        if let Err(error) = noted {
            self.put_back(set).await;
            return Err(unkept(&error));
        }
        Ok(())
    }

    /// Sets a VF as it was before an operation that is not to be, if it is still the partition's that asked. While the adapter
    /// does not answer, the operation stays open.
    async fn put_back(self: &Arc<Self>, set: &OpenOperation) {
        let (vf, partition) = (set.vf, &set.partition);
        let owner = self.notes.look(|state| state.owner(vf));
        if owner.is_none_or(|owner| owner.partition != *partition) {
            tracing::warn!("{vf} is not {partition}'s any more: what it asked for is not put back");
            self.notes.operation_ended(vf).await;
            return;
        }
        let put_back = async {
            let missing = set.before.missing_from(&self.fabric.settings(vf).await?);
            if missing.is_empty() { Ok(()) } else { self.fabric.configure(vf, &missing).await }
        };
        match put_back.await {
            Ok(()) => self.notes.operation_ended(vf).await,
            Err(error) if is_in_doubt(&error) => self.leave_in_doubt(set, &error).await,
            Err(error) => {
                tracing::error!(
                    "{vf} may be set as {partition} asked, and not as noted: {}",
                    error_chain(&error)
                );
                self.note_original(set, vec![Change::OperationEnded(vf)]).await;
            }
        }
    }

    /// A change that may still take effect stays open: it is put back when the adapter answers.
    async fn leave_in_doubt(self: &Arc<Self>, set: &OpenOperation, error: &FabricError) {
        self.note_original(set, Vec::new()).await;
        self.watch_stuck(set.vf.pf, error);
    }

    /// Notes the settings that the VF is to be given back with, whatever becomes of the operation.
    async fn note_original(&self, set: &OpenOperation, more: Vec<Change>) {
        let _turn = self.notes.turn_at_last().await;
        let rows = |state: &State| state.row_of(set.vf);
        // The log says it when it can't be written.
        let _ = self.notes.change(Must::BeKnown, rows, more, |state| {
            state.record_original(set.vf, &set.before);
        });
    }

    /// Puts back what partitions asked of an adapter that did not answer, and does now.
    async fn put_back_operations_of(self: &Arc<Self>, pf: Bdf) {
        for open in self.notes.operations().into_iter().filter(|open| open.vf.pf == pf) {
            let _turn = self.turn(&open.partition).await;
            let _owners = self.ownership.read(&BTreeSet::from([pf])).await;
            // It may have been put back, or have ended with its assignment, while this waited.
            if self.notes.operation(open.vf).as_ref() == Some(&open) {
                self.put_back(&open).await;
            }
        }
    }

    /// Puts back what was set, or half set, for partitions that have had no answer. They ask again.
    pub(crate) async fn put_all_back(self: &Arc<Self>) {
        for operation in self.notes.operations() {
            self.put_back(&operation).await;
        }
    }

    /// Tells that an adapter is stuck, and tells again when it answers. What partitions asked of it is put back then.
    pub(crate) fn watch_stuck(self: &Arc<Self>, pf: Bdf, error: &FabricError) {
        let operations = Arc::downgrade(self);
        self.stuck.watch(pf, error, async move {
            if let Some(operations) = operations.upgrade() {
                operations.put_back_operations_of(pf).await;
            }
        });
    }

    async fn turn(&self, partition: &Name) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            Arc::clone(turns.entry(partition.clone()).or_default())
        };
        turn.lock_owned().await
    }

    /// Notes which of a pair is active, for whoever asks. A partition is not cut off by it: the other one has to work.
    async fn switch_over(
        &self,
        asker: Asker,
        holder: &PartitionState,
        name: &Name,
        back: bool,
    ) -> Result<(), OpError> {
        let invalid = |message: String| OpError::new(OpErrorKind::Invalid, message);
        let pair = holder.failover_pair(name).filter(|pair| pair.owner.vf == *name);
        let pair = pair.ok_or_else(|| invalid(format!("{name} has no standby")))?;
        let from = pair.primary.failed_over.clone();
        if from.is_some() != back {
            return Ok(());
        }
        let look = self.looks.recent().await;
        let (inventory, _) = look.map_err(|error| OpError::new(OpErrorKind::Failed, error_chain(&error)))?;
        let (fault, there) = if back {
            (fault_of(&inventory, pair.primary), name.to_string())
        } else {
            (pair.fault_of_standby(&inventory), pair.failover.standby.to_string())
        };
        if let Some(fault) = fault {
            return Err(OpError::new(OpErrorKind::Busy, format!("{there} does not work: {fault}")));
        }
        let why = match asker {
            Asker::Partition => FailoverCause::Guest,
            Asker::User { .. } => FailoverCause::Asked,
        };
        let to = (!back).then(|| pair.failed_over(now_ms(), why));
        let step = Step::SwitchOver { owner: pair.owner, to, from };
        let _turn = self.notes.turn().await.map_err(|error| unkept(&error))?;
        let noted = self.notes.change(
            Must::BeWritten,
            |state| state.rows_of(&step),
            Vec::new(),
            |state| state.record(&step, &Outcome::default()),
        );
        // What is noted may differ from the host now.
        self.news.notify_one();
        noted.map_err(|error| unkept(&error))
    }

    /// A VF in a list: as it is noted, with why, while its adapter has a fault. A partition is not to take that for its loss.
    async fn listed(&self, holder: &PartitionState, name: &Name) -> Result<VfView, OpError> {
        let (assignment, request) = noted(holder, name)?;
        let locked_out = self.notes.look(|state| {
            let out = state.vf_out_of_service(assignment.vf);
            out.map(|(address, out)| format!("VF {address}: {}", out.describe()))
        });
        match self.look_at(holder, assignment, request).await {
            Ok(view) if locked_out.is_some() => Ok(VfView { fault: locked_out, ..view }),
            Ok(view) if assignment.is_unplugged() => {
                let fault = Some("it is out of this partition while its standby is active".to_owned());
                Ok(VfView { fault, ..view })
            }
            Err(FabricError::Frozen { pf, service }) => {
                let address = assignment.address.unwrap_or(pf);
                let fault = Some(format!("adapter {pf} is {service}"));
                let settings = assignment.effective_settings();
                Ok(VfView { fault, ..shown(holder, request, address, settings) })
            }
            view => view.map_err(failed),
        }
    }

    async fn view(&self, holder: &PartitionState, name: &Name) -> Result<VfView, OpError> {
        let (assignment, request) = noted(holder, name)?;
        self.look_at(holder, assignment, request).await.map_err(failed)
    }

    async fn look_at(
        &self,
        holder: &PartitionState,
        assignment: &Assignment,
        request: &VfRequest,
    ) -> Result<VfView, FabricError> {
        // Noted whenever a step sets, binds or hands over the VF, and forgotten when its adapter moves: one request to the other side is
        // enough for a look.
        let address = match assignment.address {
            Some(address) => address,
            None => self.fabric.vf_address(assignment.vf).await?,
        };
        let settings = match self.fabric.settings(assignment.vf).await {
            // Of a class that ioward has no driver for, there is nothing to tell.
            Err(FabricError::Unsupported { .. }) => VfSettings::default(),
            settings => settings?,
        };
        Ok(shown(holder, request, address, settings))
    }
}

fn noted<'a>(holder: &'a PartitionState, name: &Name) -> Result<(&'a Assignment, &'a VfRequest), OpError> {
    let gone = || OpError::new(OpErrorKind::NoSuchVf, format!("this partition holds no VF '{name}'"));
    holder.vfs.get(name).zip(holder.spec.vf(name)).ok_or_else(gone)
}

/// A VF as its partition is shown it.
fn shown(holder: &PartitionState, request: &VfRequest, host_address: Bdf, settings: VfSettings) -> VfView {
    VfView {
        name: request.name.clone(),
        class: request.class,
        host_address,
        settings,
        may: request.guest_may.words(),
        failover: holder.pair_view(&request.name),
        fault: None,
    }
}

/// The VFs that a partition has in its hands, and not just noted as its own.
fn attached(holder: &PartitionState) -> impl Iterator<Item = &Name> {
    holder.vfs.iter().filter(|(_, assignment)| assignment.is_handed_over()).map(|(name, _)| name)
}

/// MAC addresses that other VFs have been given.
fn macs_of_others(state: &State, vf: VfId) -> Vec<MacAddress> {
    let others = state.assignments().filter(|(_, assignment)| assignment.vf != vf);
    others.filter_map(|(_, assignment)| assignment.effective_settings().mac).collect()
}

/// Whether a change that failed may take effect all the same.
fn is_in_doubt(error: &FabricError) -> bool {
    matches!(error, FabricError::Stuck { .. })
}

/// What an adapter lacks is no failure, and to try again is of no use: the request is none for this VF, with a reason.
fn failed(error: FabricError) -> OpError {
    let reasons: Vec<_> = lack(&error).into_iter().collect();
    let kind = match &error {
        FabricError::Frozen { .. } => OpErrorKind::Busy,
        _ if reasons.is_empty() => OpErrorKind::Failed,
        _ => OpErrorKind::Invalid,
    };
    OpError { reasons, ..OpError::new(kind, error_chain(&error)) }
}

fn unkept(error: &StoreError) -> OpError {
    OpError::new(OpErrorKind::Failed, error_chain(error))
}
