//! What is counted while it happens. Everything here has a bounded number of values, whatever guests and users do.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_model::{EventKind, Reason, Rule, Step, Verdict, VfOp};

use super::{
    families::{FAILOVERS, OPERATIONS, PLANS, REFUSALS, RESETS, STEPS},
    text::Page,
};
use crate::{error::ImpError, operations::Asker};

/// Upper bounds of the buckets for steps, in seconds: some are done at once, some wait for a guest.
const BOUNDS: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

/// Counted since the daemon started.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<Counted>);

#[derive(Debug, Default)]
struct Counted {
    /// By operation, outcome and asker.
    operations: BTreeMap<[&'static str; 3], u64>,
    plans: BTreeMap<&'static str, u64>,
    /// By which one is active then.
    failovers: BTreeMap<&'static str, u64>,
    /// By outcome.
    resets: BTreeMap<&'static str, u64>,
    /// By step and outcome.
    steps: BTreeMap<[&'static str; 2], Durations>,
    refusals: BTreeMap<Rule, u64>,
}

#[derive(Debug, Default)]
struct Durations {
    /// How many were in each bucket.
    buckets: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Counters {
    /// Counts an operation on a VF.
    pub(crate) fn operation(&self, asker: Asker, op: &VfOp, verdict: &Verdict) {
        let outcome = match verdict {
            Verdict::Granted => "granted",
            Verdict::Refused(_) => "refused",
            Verdict::Failed(_) => "failed",
        };
        let asker = match asker {
            Asker::Partition => "partition",
            Asker::User { .. } => "user",
        };
        *self.lock().operations.entry([op.name(), outcome, asker]).or_default() += 1;
    }

    /// Counts the end of a plan, a failover or a reset, if that is what has happened.
    pub(crate) fn event(&self, kind: &EventKind) {
        let mut counted = self.lock();
        let Counted { plans, failovers, resets, .. } = &mut *counted;
        let (counts, label) = match kind {
            EventKind::PlanDone { .. } => (plans, "done"),
            EventKind::PlanFailed { undone: true, .. } => (plans, "rolled-back"),
            EventKind::PlanFailed { undone: false, .. } => (plans, "incomplete"),
            EventKind::FailedOver { .. } => (failovers, "standby"),
            EventKind::FailedBack { .. } => (failovers, "primary"),
            EventKind::PartitionReset { error: None, .. } => (resets, "done"),
            EventKind::PartitionReset { error: Some(_), .. } => (resets, "failed"),
            _ => return,
        };
        *counts.entry(label).or_default() += 1;
    }

    /// Counts a step that took so long.
    pub(crate) fn step(&self, step: &Step, is_done: bool, took: Duration) {
        let mut counted = self.lock();
        let outcome = if is_done { "done" } else { "failed" };
        let durations = counted.steps.entry([step.name(), outcome]).or_default();
        let took = took.as_secs_f64();
        if let Some(n) = BOUNDS.iter().position(|bound| took <= *bound) {
            durations.buckets[n] += 1;
        }
        durations.count += 1;
        durations.sum += took;
    }

    /// Counts why something is refused, if that is why it failed.
    pub(crate) fn refusal(&self, error: &ImpError) {
        let ImpError::Refused { reasons, .. } = error else { return };
        let mut counted = self.lock();
        for Reason { rule, .. } in reasons {
            *counted.refusals.entry(*rule).or_default() += 1;
        }
    }

    pub(super) fn print(&self, page: &mut Page) {
        let counted = self.lock();
        for (labels, count) in &counted.operations {
            page.count(&OPERATIONS, labels, *count);
        }
        for outcome in ["done", "rolled-back", "incomplete"] {
            page.count(&PLANS, &[outcome], counted.plans.get(outcome).copied().unwrap_or(0));
        }
        let of = |counts: &BTreeMap<&str, u64>, label| counts.get(label).copied().unwrap_or(0);
        for to in ["standby", "primary"] {
            page.count(&FAILOVERS, &[to], of(&counted.failovers, to));
        }
        for outcome in ["done", "failed"] {
            page.count(&RESETS, &[outcome], of(&counted.resets, outcome));
        }
        for (labels, Durations { buckets, count, sum }) in &counted.steps {
            let mut at_most = 0;
            let buckets = BOUNDS.iter().zip(buckets).map(|(bound, count)| {
                at_most += count;
                (*bound, at_most)
            });
            page.histogram(&STEPS, labels, buckets, *count, *sum);
        }
        for (rule, count) in &counted.refusals {
            page.count(&REFUSALS, &[&rule.to_string()], *count);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
