//! VF configuration operations: what a partition asks for its own VFs, held against what it may, and carried out
//! through the PF.

use ioward_fabric::FabricError;
use ioward_model::{
    AuditEntry, MacAddress, Name, OpError, OpErrorKind, OpOutcome, PartitionState, State, Verdict, VfId,
    VfOp, VfSettings, VfView,
};

use crate::{error::in_full, events::now_ms, imp::Imp, notes::Must};

impl Imp {
    /// Does what a partition asks, if it may, and notes it in the audit log either way.
    ///
    /// `partition` is known from the channel that the request came through. Nothing in the request can name another.
    ///
    /// # Errors
    /// When it may not, or it could not be done. Nothing has changed then.
    pub async fn operate(&self, partition: &Name, op: VfOp) -> Result<OpOutcome, OpError> {
        let result = self.operate_unaudited(partition, &op).await;
        let verdict = match &result {
            Ok(_) => Verdict::Granted,
            Err(error) if matches!(error.kind, OpErrorKind::Failed | OpErrorKind::Busy) => {
                Verdict::Failed(error.message.clone())
            }
            Err(error) => Verdict::Refused(error.message.clone()),
        };
        let entry = AuditEntry { time_ms: now_ms(), partition: partition.clone(), request: op, verdict };
        let changes = matches!(entry.request, VfOp::Set { .. } | VfOp::Reset { .. })
            && entry.verdict == Verdict::Granted;
        self.notes.audit(entry);
        if changes && let Err(error) = self.flush() {
            // The operation has been done by now; what can still be done is to say so loudly.
            tracing::error!("the audit log cannot be written: {}", in_full(&error));
        }
        result
    }

    /// The same for the management partition itself, when it wants to know what a partition would see.
    pub(crate) async fn operate_unaudited(&self, partition: &Name, op: &VfOp) -> Result<OpOutcome, OpError> {
        let _owners = self.ownership.read().await;
        let state = self.state();
        let Some(holder) = state.partitions.get(partition) else {
            return Err(OpError::new(OpErrorKind::NoSuchVf, "this partition holds no VFs"));
        };
        let Some(name) = op.vf() else {
            let mut views = Vec::new();
            for name in attached(holder) {
                views.push(self.view(holder, name).await?);
            }
            return Ok(OpOutcome::Vfs(views));
        };
        let Some(vf) = holder.vfs.get(name).filter(|a| a.attached).map(|assignment| assignment.vf) else {
            let held: Vec<_> = attached(holder).map(Name::as_str).collect();
            let message = format!("this partition holds no VF '{name}'; it holds {}", held.join(", "));
            return Err(OpError::new(OpErrorKind::NoSuchVf, message));
        };
        if let Some(request) = holder.spec.vf(name) {
            request.guest_may.check(op).map_err(|denied| {
                let message = format!("{name}: {}; ask the host's administrator", denied.join("; "));
                OpError::new(OpErrorKind::Denied, message)
            })?;
        }
        match op {
            VfOp::List | VfOp::Get { .. } => Ok(OpOutcome::Vf(self.view(holder, name).await?)),
            VfOp::Set { change, .. } => {
                self.set(vf, change, &macs_of_others(&state, vf)).await?;
                Ok(OpOutcome::Vf(self.view(holder, name).await?))
            }
            VfOp::Reset { .. } => self.fabric.reset(vf).await.map(|()| OpOutcome::Done).map_err(failed),
            VfOp::Stats { .. } => self.fabric.statistics(vf).await.map(OpOutcome::Stats).map_err(failed),
        }
    }

    async fn set(&self, vf: VfId, change: &VfSettings, taken: &[MacAddress]) -> Result<(), OpError> {
        let invalid = |message: String| OpError::new(OpErrorKind::Invalid, message);
        if let Some(mac) = change.mac {
            if !mac.is_unicast() {
                return Err(invalid(format!("{mac} is no address for one station (multicast or zero)")));
            }
            if taken.contains(&mac) {
                return Err(invalid(format!("{mac} is already in use on this host; choose another")));
            }
        }
        if change.is_empty() {
            return Err(invalid("nothing to set".to_owned()));
        }
        let before = self.fabric.settings(vf).await.map_err(failed)?;
        self.fabric.configure(vf, change).await.map_err(failed)?;
        let noted = self.notes.change(
            Must::BeWritten,
            |state| state.row_of(vf),
            Vec::new(),
            |state| {
                state.record_guest_change(vf, change, &before);
            },
        );
        noted.map_err(|error| OpError::new(OpErrorKind::Failed, in_full(&error)))
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
    OpError::new(OpErrorKind::Failed, in_full(&error))
}
