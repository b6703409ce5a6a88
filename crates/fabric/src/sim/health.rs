//! Health reporters of drivers, as devlink has them (net/devlink/health.c): errors that stay until the driver has recovered from them, by
//! itself, when it is asked to, or with a reset.

use ioward_model::{HealthReporter, HealthState, Recovery};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapter::Adapter,
    device::{Silence, Time},
    kernel::{PfState, Slot},
    machine::SimMachine,
    state::Machine,
};

/// Of a driver that reports more than its family's: one from whose errors it can recover, and one for VFs that misbehave.
const OTHERS: &[(&str, bool)] = &[("fw", true), ("mdd", false)];

/// A reporter.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    name: &'static str,
    can_recover: bool,
    errors: u64,
    recoveries: u64,
    /// It is in error, and until when.
    in_error: Option<Silence>,
}

impl Reporter {
    /// Those that the driver of an adapter has for each of its PFs.
    pub(super) fn all_of(adapter: &Adapter) -> Vec<Self> {
        let reporters = if adapter.reports_health { OTHERS } else { adapter.family.reporters() };
        let new = |(name, can_recover): &(&'static str, bool)| Self {
            name,
            can_recover: *can_recover,
            errors: 0,
            recoveries: 0,
            in_error: None,
        };
        reporters.iter().map(new).collect()
    }

    /// The driver has recovered by itself, if it was to do so by now.
    fn settle(&mut self, now: Time) {
        if matches!(self.in_error, Some(Silence::For(until)) if until <= now) {
            self.in_error = None;
            self.recoveries += 1;
        }
    }

    /// Something is tried against its error; whether it is healthy then.
    fn recover(&mut self, how: Recovery, now: Time) -> bool {
        self.settle(now);
        let is_over = self.in_error.is_some_and(|until| until.ends_by(how));
        if is_over {
            self.in_error = None;
            self.recoveries += 1;
        }
        self.in_error.is_none()
    }

    /// As the kernel tells of it.
    fn told(&self, now: Time) -> HealthReporter {
        let mut settled = self.clone();
        settled.settle(now);
        HealthReporter {
            name: self.name.to_owned(),
            port: None,
            state: if settled.in_error.is_some() { HealthState::Error } else { HealthState::Healthy },
            errors: settled.errors,
            recoveries: settled.recoveries,
            auto_recover: self.can_recover.then_some(true),
        }
    }
}

impl SimMachine {
    /// The driver of a PF notes an error in its health reporter of this name, and does not recover from it until then; a time begins now.
    /// One from which it can't recover stays for as long as it has the PF.
    ///
    /// # Errors
    /// ENODEV when the PF does not exist, ENOENT when its driver has no such reporter.
    pub fn report_health(&self, pf: Bdf, name: &str, until: Silence) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let Machine { slots, host, .. } = &mut *machine;
        let pf = &mut slots[at.slot].pfs[at.port];
        pf.driver.ok_or(Errno::NOENT)?;
        let reporter = pf.reporters.iter_mut().find(|reporter| reporter.name == name).ok_or(Errno::NOENT)?;
        reporter.settle(host.now);
        reporter.errors += 1;
        let until = if reporter.can_recover { until } else { Silence::UntilRebound };
        reporter.in_error = Some(until.from(host.now));
        machine.tell_followers();
        Ok(())
    }
}

impl PfState {
    /// As the kernel tells of its reporters.
    pub(super) fn health(&self, now: Time) -> Vec<HealthReporter> {
        self.reporters.iter().map(|reporter| reporter.told(now)).collect()
    }
}

impl Slot {
    /// devlink asks the driver to recover from what is in error. A driver that can't reach its function can't.
    pub(super) fn recover_health(&mut self, port: usize, now: Time) -> Result<(), Errno> {
        let is_silent = self.device.is_silent(port, now);
        let reporters = self.pfs[port].reporters.iter_mut().filter(|reporter| reporter.can_recover);
        let mut left = 0;
        for reporter in reporters {
            reporter.settle(now);
            let is_healthy = reporter.in_error.is_none();
            left += usize::from(!is_healthy && (is_silent || !reporter.recover(Recovery::Health, now)));
        }
        if left == 0 { Ok(()) } else { Err(Errno::IO) }
    }

    /// A PF was reset, or its driver is bound anew to it: it begins with reporters that have seen nothing, and notes again what is still
    /// wrong.
    pub(super) fn health_after(&mut self, port: usize, how: Recovery, now: Time) {
        let reporters = &mut self.pfs[port].reporters;
        if how != Recovery::Rebind {
            reporters.iter_mut().for_each(|reporter| _ = reporter.recover(how, now));
            return;
        }
        let anew = Reporter::all_of(&self.adapter);
        let before = std::mem::replace(reporters, anew);
        for (reporter, mut old) in reporters.iter_mut().zip(before) {
            if !old.recover(how, now) {
                (reporter.errors, reporter.in_error) = (1, old.in_error);
            }
        }
    }
}
