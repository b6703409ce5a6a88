//! Events: what happened.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Drift, Identity, Name, Orphan, Step};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts events since the daemon started, from 1.
    pub number: u64,
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A plan is being carried out.
    PlanStarted {
        /// The plan.
        plan: u64,
        /// Its number of steps.
        steps: usize,
    },
    /// A step begins.
    StepStarted {
        /// The plan.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// The step.
        what: Box<Step>,
    },
    /// A step is done.
    StepDone {
        /// The plan.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// What a person should know.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A step failed; what was done is undone next.
    StepFailed {
        /// The plan.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// Why.
        error: String,
    },
    /// A step has been undone.
    StepUndone {
        /// The plan.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// Why it could not be, where it could not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A plan is done.
    PlanDone {
        /// The plan.
        plan: u64,
    },
    /// A plan failed.
    PlanFailed {
        /// The plan.
        plan: u64,
        /// Why.
        error: String,
        /// Whether everything is as it was before.
        undone: bool,
    },
    /// A plan was under way when the daemon before this one ended. It is undone next, or finished where nothing is missing
    /// but what guests were asked for.
    PlanInterrupted {
        /// The plan.
        plan: u64,
        /// Its number of steps.
        steps: usize,
        /// How many of them were done.
        done: usize,
        /// How many had begun: they may be done, half done, or not.
        under_way: usize,
    },
    /// A look at the host found something different from the look before.
    InventoryChanged {
        /// The new generation.
        generation: u64,
    },
    /// A change of an adapter has not returned from the kernel within its bound. It may still take effect; until it returns,
    /// whatever is asked of this adapter fails at once, and of no other.
    AdapterStuck {
        /// The PF.
        pf: Bdf,
        /// What does not return.
        what: String,
    },
    /// An adapter that was stuck answers again.
    AdapterAnswers {
        /// The PF.
        pf: Bdf,
        /// The VFs that it has now; `None`: it is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_vfs: Option<u16>,
    },
    /// An adapter that ioward holds has another address now: what is noted of it is noted there.
    AdapterMoved {
        /// Where it was.
        from: Bdf,
        /// Where it is.
        to: Bdf,
        /// By what it was found.
        identity: Identity,
    },
    /// An adapter that ioward holds is missing, and another one that it holds is at its address now. What is noted of the one that
    /// is missing is kept under an address that is free.
    AdapterSetAside {
        /// Where it was.
        from: Bdf,
        /// Where it is noted.
        to: Bdf,
        /// By what it will be found.
        identity: Identity,
    },
    /// The host has booted since ioward last had it as it is to be: it is made so again.
    HostBooted,
    /// What could be restored after a boot of the host is.
    HostRestored {
        /// What is not as it is to be.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<Drift>,
        /// Partitions that were to start with the host and do not run.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stopped: Vec<Name>,
    },
    /// A partition that is to start with the host has been started.
    PartitionStarted {
        /// The partition.
        partition: Name,
    },
    /// The host differs from the state.
    DriftFound {
        /// How.
        drift: Drift,
    },
    /// A difference has been repaired.
    DriftRepaired {
        /// What it was.
        drift: Drift,
    },
    /// A difference is gone, and ioward has done nothing about it.
    DriftGone {
        /// What it was.
        drift: Drift,
    },
    /// A step that was to repair a difference failed. It is tried again.
    RepairFailed {
        /// The step.
        what: Box<Step>,
        /// Why.
        error: String,
    },
    /// A VF that was bound to vfio-pci for nobody was reset and has no driver now.
    OrphanReaped {
        /// The VF.
        orphan: Orphan,
    },
    /// A partition's machine ended without being asked to.
    PartitionEnded {
        /// The partition.
        partition: Name,
        /// What is known about it.
        why: String,
    },
    /// A partition's agent said hello on its channel.
    ChannelOpened {
        /// The partition.
        partition: Name,
        /// What the agent says it is.
        agent: String,
    },
    /// A partition's channel carries what makes no sense.
    ChannelMisused {
        /// The partition.
        partition: Name,
        /// What.
        what: String,
    },
    /// A partition's channel gave cause for more events than one partition may.
    ChannelEventsLeftOut {
        /// The partition.
        partition: Name,
        /// How many were left out.
        count: u64,
    },
    /// Whoever follows events has not kept up, or asks for some that are not kept any more. This one is told to that client
    /// only; its number is that of the last event that is missing.
    Missed {
        /// How many are missing.
        count: u64,
    },
    /// The events that a client has seen are those of another run of the daemon: all that are kept of this one follow. This one is
    /// told to that client only, and has the number 0.
    Restarted {
        /// The epoch of this run.
        epoch: u64,
    },
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlanStarted { plan, steps } => write!(f, "plan {plan}: {steps} steps"),
            Self::StepStarted { plan, number, what } => write!(f, "plan {plan}: {number}. {what}"),
            Self::StepDone { plan, number, note: None } => write!(f, "plan {plan}: {number}. done"),
            Self::StepDone { plan, number, note: Some(note) } => {
                write!(f, "plan {plan}: {number}. done; {note}")
            }
            Self::StepFailed { plan, number, error } => write!(f, "plan {plan}: {number}. failed: {error}"),
            Self::StepUndone { plan, number, error: None } => write!(f, "plan {plan}: {number}. undone"),
            Self::StepUndone { plan, number, error: Some(error) } => {
                write!(f, "plan {plan}: {number}. could not be undone: {error}")
            }
            Self::PlanDone { plan } => write!(f, "plan {plan}: done"),
            Self::PlanFailed { plan, error, undone: true } => {
                write!(f, "plan {plan}: failed, everything is as before: {error}")
            }
            Self::PlanFailed { plan, error, undone: false } => {
                write!(f, "plan {plan}: failed and not undone: {error}")
            }
            Self::PlanInterrupted { plan, steps, done, under_way } => write!(
                f,
                "plan {plan}: was interrupted by the end of the daemon; of {steps} steps, {done} were done and \
                 {under_way} under way"
            ),
            Self::InventoryChanged { generation } => {
                write!(f, "the host changed: inventory generation {generation}")
            }
            Self::AdapterStuck { pf, what } => write!(f, "adapter {pf} is stuck: {what}"),
            Self::AdapterAnswers { pf, num_vfs: Some(vfs) } => {
                write!(f, "adapter {pf} answers again, and has {vfs} VFs; 'ioward host' shows it")
            }
            Self::AdapterAnswers { pf, num_vfs: None } => {
                write!(f, "adapter {pf} was stuck, and is gone")
            }
            Self::AdapterMoved { from, to, identity } => {
                write!(f, "adapter {from} is {to} now: {identity}")
            }
            Self::AdapterSetAside { from, to, identity } => write!(
                f,
                "adapter {from} is missing, and another one is there; it is noted as {to} until it comes back: {identity}"
            ),
            Self::HostBooted => f.write_str("the host has booted; it is made as it is to be"),
            Self::HostRestored { left, stopped } => {
                write!(f, "the host is as it is to be after its boot")?;
                for drift in left {
                    write!(f, "; but {drift}")?;
                }
                for partition in stopped {
                    write!(f, "; {partition} could not be started")?;
                }
                Ok(())
            }
            Self::PartitionStarted { partition } => write!(f, "partition {partition} started with the host"),
            Self::DriftFound { drift } => write!(f, "drift: {drift}"),
            Self::DriftRepaired { drift } => write!(f, "drift repaired: {drift}"),
            Self::DriftGone { drift } => write!(f, "drift is gone: {drift}"),
            Self::RepairFailed { what, error } => write!(f, "a repair failed: {what}: {error}"),
            Self::OrphanReaped { orphan: Orphan { vf, address } } => {
                write!(f, "{vf} at {address} belonged to nobody; it has no driver now")
            }
            Self::PartitionEnded { partition, why } => write!(f, "partition {partition} ended: {why}"),
            Self::ChannelOpened { partition, agent } => {
                write!(f, "channel of {partition}: {agent} said hello")
            }
            Self::ChannelMisused { partition, what } => write!(f, "channel of {partition} misused: {what}"),
            Self::ChannelEventsLeftOut { partition, count } => {
                write!(f, "channel of {partition}: {count} more events of it were left out")
            }
            Self::Missed { count } => write!(f, "{count} events were missed"),
            Self::Restarted { .. } => f.write_str("the daemon has been started anew since"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An event and the step it is about both had a "number", side by side in one JSON object: no such event could be
    /// read back.
    #[test]
    fn an_event_about_a_step_reads_back() {
        let what = Step::StartPartition { partition: "web".parse().unwrap() };
        let event = Event {
            number: 7,
            time_ms: 1,
            kind: EventKind::StepStarted { plan: 3, number: 2, what: Box::new(what) },
        };
        let json = serde_json::to_string(&event).unwrap();
        assert!(
            json.starts_with(r#"{"number":7,"time_ms":1,"event":"step-started","plan":3,"step":2,"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event);
    }
}
