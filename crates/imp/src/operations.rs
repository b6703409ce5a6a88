//! VF configuration operations: what a partition asks for its own VFs, held against what it may, and carried out
//! through the PF.

use std::collections::BTreeSet;

use ioward_fabric::FabricError;
use ioward_model::{
    AuditEntry, MacAddress, Name, OpError, OpErrorKind, OpOutcome, OpenOperation, PartitionState, State,
    Verdict, VfId, VfOp, VfSettings, VfView,
};
use ioward_store::{Change, StoreError};
use tokio::sync::OwnedRwLockReadGuard;

use crate::{error::error_chain, events::now_ms, imp::Imp, notes::Must};

/// An operation that has been carried out and is not noted yet.
struct Operated {
    outcome: OpOutcome,
    /// What was set.
    set: Option<OpenOperation>,
    /// Held until it is noted.
    _owners: Vec<OwnedRwLockReadGuard<()>>,
}

impl Imp {
    /// Does what a partition asks, if it may, and notes it in the audit log either way.
    ///
    /// `partition` is known from the channel that the request came through. Nothing in the request can name another.
    ///
    /// # Errors
    /// When it may not, or it could not be done. Nothing has changed then.
    pub async fn operate(&self, partition: &Name, op: VfOp) -> Result<OpOutcome, OpError> {
        let operated = self.operate_unnoted(partition, &op).await;
        let verdict = match &operated {
            Ok(_) => Verdict::Granted,
            Err(error) if matches!(error.kind, OpErrorKind::Failed | OpErrorKind::Busy) => {
                Verdict::Failed(error.message.clone())
            }
            Err(error) => Verdict::Refused(error.message.clone()),
        };
        let is_reset = matches!(op, VfOp::Reset { .. });
        let entry = AuditEntry { time_ms: now_ms(), partition: partition.clone(), request: op, verdict };
        let operated = operated.inspect_err(|_| self.notes.audit(entry.clone()))?;
        if let Some(set) = &operated.set {
            self.note_set(set, entry).await?;
        } else {
            self.notes.audit(entry);
            if is_reset {
                // It has been done by now; what can still be done is to say so loudly.
                self.flush_or_say();
            }
        }
        Ok(operated.outcome)
    }

    /// Looks at what a partition has, for the management partition itself.
    pub(crate) async fn vfs_of(&self, partition: &Name) -> Result<OpOutcome, OpError> {
        Ok(self.operate_unnoted(partition, &VfOp::List).await?.outcome)
    }

    async fn operate_unnoted(&self, partition: &Name, op: &VfOp) -> Result<Operated, OpError> {
        let (holder, owners) = self.holder(partition).await?;
        let looked = |outcome| Operated { outcome, set: None, _owners: Vec::new() };
        let Some(name) = op.vf() else {
            let mut views = Vec::new();
            for name in attached(&holder) {
                views.push(self.view(&holder, name).await?);
            }
            return Ok(looked(OpOutcome::Vfs(views)));
        };
        let Some(vf) = holder.vfs.get(name).filter(|a| a.attached).map(|assignment| assignment.vf) else {
            let held: Vec<_> = attached(&holder).map(Name::as_str).collect();
            let message = format!("this partition holds no VF '{name}'; it holds {}", held.join(", "));
            return Err(OpError::new(OpErrorKind::NoSuchVf, message));
        };
        if let Some(request) = holder.spec.vf(name) {
            request.guest_may.check(op).map_err(|denied| {
                let message = format!("{name}: {}; ask the host's administrator", denied.join("; "));
                OpError::new(OpErrorKind::Denied, message)
            })?;
        }
        Ok(match op {
            VfOp::List | VfOp::Get { .. } => looked(OpOutcome::Vf(self.view(&holder, name).await?)),
            VfOp::Set { change, .. } => {
                let set = self.set(partition, vf, change).await?;
                match self.view(&holder, name).await {
                    Ok(view) => Operated { outcome: OpOutcome::Vf(view), set: Some(set), _owners: owners },
                    Err(error) => {
                        self.put_back(&set).await;
                        return Err(error);
                    }
                }
            }
            VfOp::Reset { .. } => {
                self.fabric.reset(vf).await.map_err(failed)?;
                looked(OpOutcome::Done)
            }
            VfOp::Stats { .. } => looked(OpOutcome::Stats(self.fabric.statistics(vf).await.map_err(failed)?)),
        })
    }

    /// What a partition holds, with plans kept from changing that until the guards are dropped.
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
            // What it held may have changed while this waited.
            let now = look()?;
            if adapters(&now).is_subset(&adapters(&holder)) {
                return Ok((now, guards));
            }
            holder = now;
        }
    }

    /// Sets a VF, with what that changes written down before.
    async fn set(&self, partition: &Name, vf: VfId, change: &VfSettings) -> Result<OpenOperation, OpError> {
        let invalid = |message: String| OpError::new(OpErrorKind::Invalid, message);
        if let Some(mac) = change.mac {
            if !mac.is_unicast() {
                return Err(invalid(format!("{mac} is no address for one station (multicast or zero)")));
            }
            if self.notes.look(|state| macs_of_others(state, vf)).contains(&mac) {
                return Err(invalid(format!("{mac} is already in use on this host; choose another")));
            }
        }
        if change.is_empty() {
            return Err(invalid("nothing to set".to_owned()));
        }
        let before = change.restored_from(&self.fabric.settings(vf).await.map_err(failed)?);
        let set = OpenOperation { partition: partition.clone(), vf, change: change.clone(), before };
        self.notes.operation_begun(set.clone()).map_err(|error| unkept(&error))?;
        if let Err(error) = self.fabric.configure(vf, change).await {
            self.notes.operation_ended(vf);
            return Err(failed(error));
        }
        Ok(set)
    }

    /// Notes what was set, together with who asked for it. What can't be noted is not done either.
    async fn note_set(&self, set: &OpenOperation, entry: AuditEntry) -> Result<(), OpError> {
        let noted = vec![Change::OperationEnded(set.vf), Change::Audit(entry)];
        let noted = self.notes.change(
            Must::BeWritten,
            |state| state.row_of(set.vf),
            noted,
            |state| {
                state.record_guest_change(set.vf, &set.change, &set.before);
            },
        );
        if let Err(error) = noted {
            self.put_back(set).await;
            return Err(unkept(&error));
        }
        Ok(())
    }

    /// Sets a VF as it was before an operation that is not to be.
    pub(crate) async fn put_back(&self, set: &OpenOperation) {
        let vf = set.vf;
        let put_back = async {
            let missing = set.before.missing_from(&self.fabric.settings(vf).await?);
            if missing.is_empty() { Ok(()) } else { self.fabric.configure(vf, &missing).await }
        };
        if let Err(error) = put_back.await {
            let partition = &set.partition;
            tracing::error!(
                "{vf} may be set as {partition} asked, and not as noted: {}",
                error_chain(&error)
            );
        }
        self.notes.operation_ended(vf);
    }

    async fn view(&self, holder: &PartitionState, name: &Name) -> Result<VfView, OpError> {
        let gone = || OpError::new(OpErrorKind::NoSuchVf, format!("this partition holds no VF '{name}'"));
        let (assignment, request) = holder.vfs.get(name).zip(holder.spec.vf(name)).ok_or_else(gone)?;
        Ok(VfView {
            name: name.clone(),
            class: request.class,
            host_address: self.fabric.vf_address(assignment.vf).await.map_err(failed)?,
            settings: match self.fabric.settings(assignment.vf).await {
                // Of a class that ioward has no driver for, there is nothing to tell.
                Err(FabricError::Unsupported { .. }) => VfSettings::default(),
                settings => settings.map_err(failed)?,
            },
            may: request.guest_may.words(),
        })
    }
}

/// The VFs that a partition has in its hands, and not just noted as its own.
fn attached(holder: &PartitionState) -> impl Iterator<Item = &Name> {
    holder.vfs.iter().filter(|(_, assignment)| assignment.attached).map(|(name, _)| name)
}

/// MAC addresses that other VFs have been given.
fn macs_of_others(state: &State, vf: VfId) -> Vec<MacAddress> {
    let others = state.assignments().filter(|(_, assignment)| assignment.vf != vf);
    others.filter_map(|(_, assignment)| assignment.effective_settings().mac).collect()
}

fn failed(error: FabricError) -> OpError {
    OpError::new(OpErrorKind::Failed, error_chain(&error))
}

fn unkept(error: &StoreError) -> OpError {
    OpError::new(OpErrorKind::Failed, error_chain(error))
}
