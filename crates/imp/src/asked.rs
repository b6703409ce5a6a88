//! What users ask beside plans: operations on one VF, its counters, the doctor, the metrics.

use ioward_model::{
    Halt, Name, OpError, OpErrorKind, OpOutcome, Reason, VfId, VfOp, VfStatistics, checks,
    doctor::{Check, Finding, Report, Verdict},
};

use crate::{error::ImpError, imp::Imp, operations::Asker};

impl Imp {
    /// Does what a user of the host asks for a VF that a partition holds, and notes it in the audit log with the user's `uid`. That
    /// the user may is known from the role. What is set this way is noted as if the partition had set it, and goes with the VF.
    ///
    /// # Errors
    /// As [`Imp::operate`]; also when no partition holds the VF, or not under the name that `op` has.
    pub async fn operate_for_user(&self, uid: u32, vf: VfId, op: VfOp) -> Result<OpOutcome, OpError> {
        let Some(owner) = self.notes.look(|state| state.owner(vf)) else {
            let message = format!("no partition holds {vf}; only VFs of partitions are set through ioward");
            return Err(OpError::new(OpErrorKind::NoSuchVf, message));
        };
        if op.vf() != Some(&owner.vf) {
            let message =
                format!("{vf} is {owner}: the operation has to name it as \"vf\": \"{}\"", owner.vf);
            return Err(OpError::new(OpErrorKind::Invalid, message));
        }
        let is_set = matches!(op, VfOp::Set { .. });
        let outcome = self.operations.operate(Asker::User { uid, vf }, &owner.partition, op).await?;
        if is_set {
            self.channels.vfs_changed(&owner.partition);
        }
        Ok(outcome)
    }

    /// A VF's traffic counters, whoever has it.
    ///
    /// # Errors
    /// When there is no such VF, or its PF does not count.
    pub async fn statistics(&self, vf: VfId) -> Result<VfStatistics, ImpError> {
        Ok(self.fabric.statistics(vf).await?)
    }

    /// Whether the host can give VFs to partitions at all, and what is missing for it.
    ///
    /// # Errors
    /// When the host can't be looked at.
    pub async fn doctor(&self) -> Result<Report, ImpError> {
        let look = async { Ok::<_, ImpError>(Report::new(self.fabric.doctor().await?)) };
        let mut report = self.doctor.get(look).await?;
        let out = self.notes.look(|state| state.out_of_service.clone());
        // The side that looks does not know which adapters are out of service.
        for finding in report.findings.iter_mut().filter(|finding| finding.verdict == Verdict::Well) {
            let of_adapter = finding.function.filter(|_| finding.check == Check::Adapter);
            if let Some((pf, out)) = of_adapter.and_then(|pf| Some((pf, out.get(&pf)?))) {
                let Reason { found, remedy, .. } = checks::out_of_service(pf, out);
                (finding.verdict, finding.found, finding.remedy) = (Verdict::Warning, found, remedy);
            }
        }
        let locked_out = out.iter().filter(|(_, out)| out.vf.is_some());
        report.findings.extend(locked_out.map(|(address, out)| {
            let Reason { found, remedy, .. } = checks::vf_out_of_service(*address, out);
            let (check, verdict) = (Check::Adapter, Verdict::Warning);
            Finding { check, function: Some(*address), verdict, found, remedy }
        }));
        report.findings.extend(self.halted().await?);
        Ok(report)
    }

    /// Machines that execute nothing. Who looks at the host does not know of them.
    async fn halted(&self) -> Result<Vec<Finding>, ImpError> {
        let partitions = self.machines.views().await?;
        let halted = partitions.into_iter().filter_map(|partition| Some((partition.name, partition.halted?)));
        let finding = |(name, halt): (Name, Halt)| Finding {
            check: Check::Machine,
            function: None,
            verdict: Verdict::Warning,
            found: format!("the machine of {name} has halted: {halt}"),
            remedy: halt.remedy(&name),
        };
        Ok(halted.map(finding).collect())
    }

    /// The page for Prometheus.
    pub async fn metrics(&self) -> String {
        self.metrics.page(|| self.reconciler.known_drift()).await
    }
}
