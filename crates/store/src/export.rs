//! [`Export`]: the whole content of the store, for people to read and programs to search.

use std::collections::BTreeMap;

use ioward_model::{AuditDropped, AuditEntry, Name, OpenOperation, PlanRecord, State, StepRecord};
use serde::{Deserialize, Serialize};

/// The output of `ioward state export`, as JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Export {
    /// The version of the file.
    pub schema: u64,
    /// Which partition holds which VF, and the original settings.
    pub state: State,
    /// The latest plans, oldest first.
    pub plans: Vec<ExportedPlan>,
    /// Operations of partitions that are in progress.
    pub operations: Vec<OpenOperation>,
    /// Who asked for what, oldest first.
    pub audit: Vec<AuditEntry>,
    /// Number of dropped entries of each partition; absent when none were dropped.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub audit_dropped: BTreeMap<Name, AuditDropped>,
}

/// A plan with its journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportedPlan {
    /// The plan, and how it ended.
    #[serde(flatten)]
    pub record: PlanRecord,
    /// Its steps that have begun.
    pub steps: Vec<ExportedStep>,
}

/// The progress of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExportedStep {
    /// Its number in the plan, from 1.
    pub number: usize,
    /// Its progress.
    #[serde(flatten)]
    pub record: StepRecord,
}
