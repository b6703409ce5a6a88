//! [`Blows`]: adapters that have faults in the middle of a plan or of a repair, counted in operations of the machine and of partitions,
//! so that they strike at the same place in every run; and what must be so from the moment at which the daemon knows of them.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError, Weak},
};

use ioward_fabric::sim::{Severity, Silence, SimMachine};
use ioward_imp::Imp;
use ioward_model::{Class, NvmeState, Plan, Step, VfId, fault_of};
use ioward_pci::Bdf;

use crate::{hypervisor::Guests, random::Random, world::Wrong};

/// What becomes of an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It reports an error, and may not answer afterwards.
    Error(Severity, Option<Silence>),
    /// Its driver resets it: it does not answer for some time, and reports nothing.
    DriverReset,
    /// It is out of its slot, without a word before.
    TakenOut,
    /// The driver of its NVMe controller resets that, or gives it up.
    Controller(NvmeState, Silence),
    /// Its driver notes an error in this health reporter of its own, and has not recovered from it until then.
    Health(&'static str, Silence),
    /// The interface of its port goes down, or up.
    Link(bool),
}

/// A fault at an operation.
#[derive(Clone, Copy, Debug)]
pub struct Blow {
    /// The operation, counted from 1.
    pub at: u32,
    /// Whose PF it is.
    pub pf: Bdf,
    /// What becomes of it.
    pub fault: Fault,
    /// The kernel tells of it, and the daemon looks before the operation goes on.
    pub is_seen: bool,
}

/// The faults that are to come, and those that have.
#[derive(Debug, Default)]
pub struct Blows(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: u32,
    to_come: Vec<Blow>,
    struck: Vec<Blow>,
    daemon: Weak<Imp>,
    /// The plan that is carried out.
    plan: Option<Plan>,
    /// Frozen as of a look, until the next.
    frozen: BTreeSet<Bdf>,
    wrong: Vec<Wrong>,
}

impl Fault {
    /// One of those that an adapter can have while it serves.
    pub fn any(random: &mut Random, class: Class) -> Self {
        let silences = [
            None,
            Some(Silence::For(3_000_000_000)),
            Some(Silence::UntilReset),
            Some(Silence::UntilRebound),
            Some(Silence::ForGood),
        ];
        if class == Class::Nvme && random.percent(40) {
            return random.pick(&[
                Self::Controller(NvmeState::Resetting, Silence::For(3_000_000_000)),
                Self::Controller(NvmeState::Resetting, Silence::UntilReset),
                Self::Controller(NvmeState::Dead, Silence::UntilRebound),
                Self::Controller(NvmeState::Dead, Silence::ForGood),
            ]);
        }
        if class == Class::Network && random.percent(25) {
            let until = [
                Silence::For(100_000_000),
                Silence::For(3_000_000_000),
                Silence::UntilAsked,
                Silence::UntilReset,
                Silence::UntilRebound,
                Silence::ForGood,
            ];
            return Self::Health(random.pick(&["fw", "fw", "fw", "mdd"]), random.pick(&until));
        }
        match random.below(20) {
            0..=4 => Self::Error(Severity::NonFatal, random.pick(&silences)),
            5..=10 => Self::Error(Severity::Fatal, random.pick(&silences)),
            11 => Self::Error(Severity::Correctable, None),
            12..=14 => Self::DriverReset,
            15..=16 => Self::TakenOut,
            _ => Self::Link(false),
        }
    }
}

impl Blows {
    /// Starts to count operations.
    pub fn arm(&self, to_come: Vec<Blow>, plan: Option<Plan>, daemon: Weak<Imp>) {
        *self.lock() = Inner { to_come, plan, daemon, ..Inner::default() };
    }

    /// No more of them. Those that have struck, or what was not as it must be.
    pub fn disarm(&self) -> Result<Vec<Blow>, Wrong> {
        let Inner { struck, wrong, .. } = std::mem::take(&mut *self.lock());
        if wrong.is_empty() { Ok(struck) } else { Err(wrong.join("\n")) }
    }

    /// The host is looked at: what was known of it does not count any more.
    pub fn look(&self) {
        self.lock().frozen.clear();
    }

    /// Somebody is about to use an adapter.
    pub fn arrives(&self, pf: Bdf, operation: &str) {
        let mut inner = self.lock();
        if inner.frozen.contains(&pf) {
            inner.wrong.push(format!("{pf} is frozen, and is used all the same: {operation}"));
        }
    }

    /// Counts an operation, and has adapters struck that are due.
    pub async fn strike(&self, machine: &SimMachine, guests: &Guests) {
        let (due, daemon) = {
            let mut inner = self.lock();
            inner.count += 1;
            let count = inner.count;
            let due: Vec<_> = inner.to_come.extract_if(.., |blow| blow.at <= count).collect();
            (due, inner.daemon.clone())
        };
        for blow in due {
            if !fall(&blow, machine, guests) {
                continue;
            }
            self.lock().struck.push(blow);
            if let Some(daemon) = daemon.upgrade().filter(|_| blow.is_seen) {
                let wrong = self.daemon_looks(&daemon).await.err();
                self.lock().wrong.extend(wrong);
            }
        }
    }

    /// As the daemon does when it is told something while a plan is carried out.
    async fn daemon_looks(&self, daemon: &Imp) -> Result<(), Wrong> {
        daemon.look_for_faults().await.map_err(|error| format!("look for faults: {error}"))?;
        let found = daemon.look().await.map_err(|error| format!("look: {error}"))?;
        let frozen = found.physical_functions.iter().filter(|pf| pf.service.is_frozen());
        self.lock().frozen = frozen.map(|pf| pf.address).collect();
        let (state, plan) = (daemon.state(), self.lock().plan.clone());
        let is_about = |vf: VfId| plan.iter().flat_map(|plan| &plan.steps).any(|step| is_of(step, vf));
        let cut_off = state.failover_pairs().find(|pair| {
            !pair.vfs().any(is_about)
                && pair.primary.failed_over.is_none()
                && fault_of(&found, pair.primary).is_some()
                && pair.fault_of_standby(&found).is_none()
        });
        cut_off.map_or(Ok(()), |pair| Err(format!("{} is cut off, and its standby works", pair.owner)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a plan changes a VF by this step. What it is about is its own affair until it has ended.
fn is_of(step: &Step, vf: VfId) -> bool {
    step.subject().vf == Some(vf) || matches!(step, Step::SetVfCount { pf, .. } if *pf == vf.pf)
}

/// Whether it could be done: one that is not there has no faults.
fn fall(blow: &Blow, machine: &SimMachine, guests: &Guests) -> bool {
    match blow.fault {
        Fault::Error(severity, silence) => match machine.report_error(blow.pf, severity, silence) {
            Ok(told) => guests.halt_holders(&told),
            Err(_) => return false,
        },
        Fault::DriverReset => return machine.fall_silent(blow.pf, Silence::For(2_000_000_000)).is_ok(),
        Fault::Controller(state, until) => return machine.nvme_goes_down(blow.pf, state, until).is_ok(),
        Fault::Health(reporter, until) => return machine.report_health(blow.pf, reporter, until).is_ok(),
        Fault::TakenOut => {
            if !machine.unplug(blow.pf) {
                return false;
            }
            guests.notice_losses(machine);
        }
        Fault::Link(up) => return machine.set_up(blow.pf, up).is_ok(),
    }
    true
}
