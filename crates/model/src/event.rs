//! Events: what happened.

use std::fmt;

use ioward_pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::{Drift, Halt, Identity, Name, Orphan, Owner, Recovery, Service, Standby, Step, VfId};

/// One event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Counts events since the daemon started, from 1.
    pub number: u64,
    /// Milliseconds since 1970 (UTC).
    pub time_ms: u64,
    /// The kind of event.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// A kind of event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum EventKind {
    /// A plan is being carried out.
    PlanStarted {
        /// Its number: that of the change, which counts the plans that were begun on this host ([`crate::PlanRecord::number`]).
        plan: u64,
        /// Its number of steps.
        steps: usize,
    },
    /// A step begins.
    StepStarted {
        /// The plan's number.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// The step.
        what: Box<Step>,
    },
    /// A step is done.
    StepDone {
        /// The plan's number.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// A note for the user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// A step failed; the plan is rolled back next.
    StepFailed {
        /// The plan's number.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// The cause.
        error: String,
    },
    /// A step has been rolled back.
    StepUndone {
        /// The plan's number.
        plan: u64,
        /// The step's number, from 1.
        #[serde(rename = "step")]
        number: usize,
        /// Why it could not be rolled back, if it could not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A plan is done.
    PlanDone {
        /// The plan's number.
        plan: u64,
    },
    /// A plan failed.
    PlanFailed {
        /// The plan's number.
        plan: u64,
        /// The cause.
        error: String,
        /// Whether everything was rolled back.
        undone: bool,
    },
    /// A plan was running when the previous daemon ended. It is rolled back next, or completed if only requests to
    /// guests are missing.
    PlanInterrupted {
        /// The plan's number.
        plan: u64,
        /// Its number of steps.
        steps: usize,
        /// The number of steps that were done.
        done: usize,
        /// The number of steps that had begun: each may be done, half done, or not done.
        under_way: usize,
    },
    /// The inventory differs from the previous one.
    InventoryChanged {
        /// The new generation.
        generation: u64,
    },
    /// A change to an adapter has not returned from the kernel within its bound. It may still take effect; until it
    /// returns, every request to this adapter fails at once, and other adapters are unaffected.
    AdapterStuck {
        /// The PF.
        pf: Bdf,
        /// The operation that does not return.
        what: String,
    },
    /// A stuck adapter responds again.
    AdapterAnswers {
        /// The PF.
        pf: Bdf,
        /// Its current number of VFs; `None`: it is gone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        num_vfs: Option<u16>,
    },
    /// An adapter serves, or does not, after a fault (docs/faults.md).
    AdapterService {
        /// The PF.
        pf: Bdf,
        /// Its state.
        service: Service,
    },
    /// A VF is locked out by itself: it reported errors too often (docs/faults.md).
    VfLockedOut {
        /// The VF.
        vf: VfId,
        /// Its address.
        address: Bdf,
        /// The partition that holds it and its name there.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<Owner>,
        /// Why.
        what: String,
    },
    /// An attempt was made to recover a frozen adapter.
    AdapterAttempted {
        /// The PF.
        pf: Bdf,
        /// The attempt.
        how: Recovery,
        /// Why it could not be made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// An adapter that ioward holds has another address now; its records have moved there.
    AdapterMoved {
        /// Its old address.
        from: Bdf,
        /// Its new address.
        to: Bdf,
        /// The identity it was found by.
        identity: Identity,
    },
    /// An adapter that ioward holds is missing, and another one that it holds is at its address now. The records of
    /// the missing one move to a free address.
    AdapterSetAside {
        /// Its old address.
        from: Bdf,
        /// The address of its records.
        to: Bdf,
        /// The identity to find it by.
        identity: Identity,
    },
    /// The host has booted since it last matched the state: the state is restored.
    HostBooted,
    /// The restore after a boot has ended.
    HostRestored {
        /// The drift that remains.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<Drift>,
        /// Partitions that should have started with the host and are not running.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        stopped: Vec<Name>,
    },
    /// A partition that starts with the host has been started.
    PartitionStarted {
        /// The partition.
        partition: Name,
    },
    /// The host differs from the state.
    DriftFound {
        /// The difference.
        drift: Drift,
    },
    /// Drift has been repaired.
    DriftRepaired {
        /// The difference.
        drift: Drift,
    },
    /// Drift is gone without a repair by ioward.
    DriftGone {
        /// The difference.
        drift: Drift,
    },
    /// A step of a repair failed. It is retried.
    RepairFailed {
        /// The step.
        what: Box<Step>,
        /// The cause.
        error: String,
    },
    /// An orphan, bound to vfio-pci without an owner, was reset and unbound.
    OrphanReaped {
        /// The VF.
        orphan: Orphan,
    },
    /// A partition ended, and ioward did not stop it.
    PartitionEnded {
        /// The partition.
        partition: Name,
        /// Whatever is known about the cause.
        why: String,
    },
    /// A partition's machine is there, and executes nothing any more.
    PartitionHalted {
        /// The partition.
        partition: Name,
        /// Why.
        halt: Halt,
        /// Adapters that it has VFs of, and that have a fault.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        faulty: Vec<Bdf>,
    },
    /// A partition's machine that had halted was reset, and executes again, or could not be.
    PartitionReset {
        /// The partition.
        partition: Name,
        /// Adapters that it has VFs of, and that had a fault meanwhile.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        faulty: Vec<Bdf>,
        /// How long it had halted, in milliseconds.
        after_ms: u64,
        /// Why it could not be reset.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A partition's machine was reset as often as is done within some time, and has halted again. It is left so.
    PartitionLeftHalted {
        /// The partition.
        partition: Name,
    },
    /// A partition's machine executes again, and ioward has not reset it.
    PartitionGoesOn {
        /// The partition.
        partition: Name,
    },
    /// Somebody else has started a partition.
    PartitionStartedElsewhere {
        /// The partition.
        partition: Name,
    },
    /// A partition's domain or namespace is gone: it can't start again as it is. A namespace may come again.
    PartitionGone {
        /// The partition.
        partition: Name,
        /// What has become of it.
        why: String,
    },
    /// A partition's standby is active in place of its primary.
    FailedOver {
        /// The partition.
        partition: Name,
        /// The primary.
        vf: Name,
        /// The standby.
        standby: Standby,
        /// The primary's fault, in words.
        why: String,
    },
    /// A partition's primary is active again.
    FailedBack {
        /// The partition.
        partition: Name,
        /// The primary.
        vf: Name,
    },
    /// A partition is on its way to another host.
    PartitionLeaves {
        /// The partition.
        partition: Name,
        /// The other host, as whoever asked named it.
        peer: String,
    },
    /// A partition that was on its way to another host is that one's.
    PartitionLeft {
        /// The partition.
        partition: Name,
        /// The other host.
        peer: String,
    },
    /// A partition that was on its way to another host stays.
    PartitionStays {
        /// The partition.
        partition: Name,
        /// The other host.
        peer: String,
        /// Why.
        why: String,
    },
    /// A partition has come from another host.
    PartitionCame {
        /// The partition.
        partition: Name,
        /// The other host.
        peer: String,
    },
    /// Somebody else has taken a VF out of a partition.
    VfTakenOut {
        /// The partition.
        partition: Name,
        /// The VF's name in it.
        vf: Name,
        /// Who, or how, as far as that is known.
        why: String,
    },
    /// A partition's agent said hello on its channel.
    ChannelOpened {
        /// The partition.
        partition: Name,
        /// The agent's name and version.
        agent: String,
    },
    /// A partition's channel carries invalid data.
    ChannelMisused {
        /// The partition.
        partition: Name,
        /// The fault.
        what: String,
    },
    /// A partition's channel caused more events than one partition may.
    ChannelEventsLeftOut {
        /// The partition.
        partition: Name,
        /// The number left out.
        count: u64,
    },
    /// A follower of events was too slow, or requests events that are not kept any more. Only this client gets this
    /// event; its number is that of the last missing event.
    Missed {
        /// The number of missing events.
        count: u64,
    },
    /// The client's cursor is from another run of the daemon: all events kept from this run follow. Only this
    /// client gets this event; its number is 0.
    Restarted {
        /// The epoch of this run.
        epoch: u64,
    },
}

/// `1 step`, `9 steps`.
fn counted(steps: usize) -> String {
    format!("{steps} {}", if steps == 1 { "step" } else { "steps" })
}

fn listed(pfs: &[Bdf]) -> String {
    pfs.iter().map(Bdf::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlanStarted { plan, steps } => write!(f, "plan {plan}: {}", counted(*steps)),
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
                "plan {plan}: was interrupted by the end of the daemon; of {}, {done} were done and \
                 {under_way} under way",
                counted(*steps)
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
            Self::AdapterService { pf, service: Service::Serving } => write!(f, "adapter {pf} serves again"),
            Self::AdapterService { pf, service } => write!(f, "adapter {pf} is {service}"),
            Self::VfLockedOut { vf, address, owner, what } => {
                write!(f, "{vf} at {address}")?;
                if let Some(owner) = owner {
                    write!(f, ", which {owner} is,")?;
                }
                write!(f, " is locked out: {what}; to have it back: ioward return {address}")
            }
            Self::AdapterAttempted { pf, how, error: None } => {
                write!(f, "adapter {pf} is frozen, to recover it: {how}")
            }
            Self::AdapterAttempted { pf, how, error: Some(error) } => {
                write!(f, "adapter {pf} is frozen, and could not be recovered ({how}): {error}")
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
            Self::PartitionHalted { partition, halt, faulty } => {
                write!(f, "partition {partition} has halted: {halt}")?;
                if !faulty.is_empty() {
                    write!(f, ", by an error of {}", listed(faulty))?;
                }
                Ok(())
            }
            Self::PartitionReset { partition, faulty, after_ms, error } => {
                write!(f, "partition {partition} was halted")?;
                if !faulty.is_empty() {
                    write!(f, " by an error of {}", listed(faulty))?;
                }
                match error {
                    None => write!(f, "; it was reset after {} s", (after_ms + 500) / 1_000),
                    Some(error) => write!(f, ", and could not be reset: {error}"),
                }
            }
            Self::PartitionLeftHalted { partition } => write!(
                f,
                "partition {partition} has halted again and again, and is reset no more; once its cause is gone: \
                 ioward stop {partition} --force, then ioward start {partition}"
            ),
            Self::PartitionGoesOn { partition } => write!(f, "partition {partition} executes again"),
            Self::PartitionStartedElsewhere { partition } => {
                write!(f, "partition {partition} was started, and not by ioward")
            }
            Self::PartitionGone { partition, why } => write!(f, "partition {partition} is gone: {why}"),
            Self::FailedOver { partition, vf, standby, why } => {
                write!(f, "{partition}/{vf} has failed over to {standby}: {why}")
            }
            Self::FailedBack { partition, vf } => write!(f, "{partition}/{vf} is active again"),
            Self::PartitionLeaves { partition, peer } => {
                write!(f, "partition {partition} is being moved to {peer}")
            }
            Self::PartitionLeft { partition, peer } => {
                write!(f, "partition {partition} has been moved to {peer}, and is not this host's any more")
            }
            Self::PartitionStays { partition, peer, why } => {
                write!(f, "partition {partition} stays here, and is not moved to {peer}: {why}")
            }
            Self::PartitionCame { partition, peer } => {
                write!(f, "partition {partition} has come from {peer}, and runs here")
            }
            Self::VfTakenOut { partition, vf, why } => {
                write!(f, "{partition}/{vf} was taken out, and not by ioward: {why}")
            }
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

    /// The event and its step both had a "number" in one JSON object, so such an event could not be read back.
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

    #[test]
    fn one_step_is_no_steps() {
        let started = |steps| EventKind::PlanStarted { plan: 3, steps }.to_string();
        assert_eq!([started(1), started(2)], ["plan 3: 1 step", "plan 3: 2 steps"]);
        let interrupted = EventKind::PlanInterrupted { plan: 3, steps: 1, done: 0, under_way: 1 };
        assert!(interrupted.to_string().ends_with("; of 1 step, 0 were done and 1 under way"));
    }
}
