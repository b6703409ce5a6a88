//! What is written down of a plan before and after each of its steps, so that whoever finds it half done after a crash
//! knows where to look.
//!
//! ```text
//!              begun        done                       ended
//!   plan ──┬── step 1 ───── step 1 ──────────────────┬─ Done
//!          ├── step 2 ───── step 2 ───── undone ─────┼─ Undone
//!          └── step 3 ─ (the daemon ends here: done, half done or not: look) ─ undone
//! ```

use serde::{Deserialize, Serialize};

use crate::{Assignment, Name, Outcome, Plan, VfId, VfSettings};

/// A plan that is carried out, or was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanRecord {
    /// Counts the plans that were begun, however they ended; from 1.
    pub number: u64,
    /// The plan.
    pub plan: Plan,
    /// The boot of the host in which it was begun (`/proc/sys/kernel/random/boot_id`): what a plan does to a host is
    /// gone with the next one.
    pub boot: String,
    /// When it was begun, in milliseconds since 1970 (UTC).
    pub begun_ms: u64,
    /// How it ended; `None` while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// All its steps are done.
    Done,
    /// Everything is as it was before.
    Undone,
    /// Steps that could not be undone are left: those that are noted as begun or done.
    Left,
}

/// How far a step of a plan has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum StepRecord {
    /// It is about to be carried out. After a crash it may be done, half done, or not.
    Begun {
        /// What was found before: what its inverse needs.
        found: Outcome,
        /// [`crate::State::noted_for`] it, before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<Assignment>,
    },
    /// It has been carried out, and the state says so.
    Done {
        /// Counts the steps of this plan as they are done; from 1.
        order: usize,
        /// What carrying it out showed.
        outcome: Outcome,
        /// [`crate::State::noted_for`] it, before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        noted: Option<Assignment>,
    },
    /// It failed, and has changed nothing.
    Failed,
    /// It has been undone, or was found not to be done, and the state says so.
    Undone,
}

/// What a partition has asked for and has not been answered: its VF may be set, half set, or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenOperation {
    /// Who asked.
    pub partition: Name,
    /// The VF.
    pub vf: VfId,
    /// What is to be set.
    pub change: VfSettings,
    /// What those settings were before.
    pub before: VfSettings,
}
