//! The journal of a plan, written before each of its steps that changes the host and after each, so that recovery after a crash knows where to
//! look.
//!
//! ```text
//!              begun        done                       ended
//!   plan ──┬── step 1 ───── step 1 ──────────────────┬─ Done
//!          ├── step 2 ───── step 2 ───── undone ─────┼─ Undone
//!          └── step 3 ─ (the daemon ends here: done, half done or not done) ─ undone
//! ```

use serde::{Deserialize, Serialize};

use crate::{Assignment, Name, Outcome, Plan, VfId, VfSettings};

/// A plan that was begun, running or ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanRecord {
    /// Counts the plans begun, whatever their outcome; from 1.
    pub number: u64,
    /// The plan.
    pub plan: Plan,
    /// The boot of the host in which it was begun (`/proc/sys/kernel/random/boot_id`): a plan's effects on the host
    /// end with that boot.
    pub boot: String,
    /// When it was begun, in milliseconds since 1970 (UTC).
    pub begun_ms: u64,
    /// Its outcome; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// The outcome of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All its steps are done.
    Done,
    /// Everything has been rolled back.
    Undone,
    /// Some steps could not be rolled back: those still recorded as begun or done.
    Left,
}

/// The progress of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum StepRecord {
    /// It is about to be carried out. After a crash it may be done, half done, or not done.
    Begun {
        /// The values found before it, for its inverse.
        found: Outcome,
        /// Its [`crate::State::noted_for`] before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<Assignment>,
    },
    /// It has been carried out, and the state includes it.
    Done {
        /// Counts the completed steps of this plan; from 1.
        order: usize,
        /// Its outcome.
        outcome: Outcome,
        /// Its [`crate::State::noted_for`] before it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<Assignment>,
    },
    /// It failed without any effect.
    Failed,
    /// It has been rolled back, or was found not done, and the state agrees.
    Undone,
}

/// A partition's request without an answer yet: its VF may be set, half set, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OpenOperation {
    /// The partition.
    pub partition: Name,
    /// The VF.
    pub vf: VfId,
    /// The settings to make.
    pub change: VfSettings,
    /// Their values before.
    pub before: VfSettings,
}
