//! Errors of adapters: what AER counts, functions that do not answer, and what helps (PCIe 6.0 §6.2; drivers/pci/pcie/aer.c, err.c).
//!
//! The kernel's own recovery is not modelled step by step: an adapter that it recovers is one that is silent for some time.

use ioward_model::{ErrorCounts, Recovery, VfId};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    device::{Device, Silence, Time},
    kernel::{Host, Slot},
    machine::SimMachine,
    state::Machine,
};

/// The severity of an error that a PF reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The hardware has corrected it.
    Correctable,
    /// The link is still reliable.
    NonFatal,
    /// It is not.
    Fatal,
}

impl SimMachine {
    /// A PF reports an error, and does not answer afterwards, if it is to be so. A silence for some time begins now. Gives the VFs whose
    /// holders VFIO tells of it: all that are open below the port, whichever function the error is of (pci_walk_bridge in
    /// drivers/pci/pcie/err.c).
    ///
    /// # Errors
    /// ENODEV when the PF does not exist.
    pub fn report_error(
        &self,
        pf: Bdf,
        severity: Severity,
        silence: Option<Silence>,
    ) -> Result<Vec<Bdf>, Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let Machine { slots, host, .. } = &mut *machine;
        count(&mut slots[at.slot].pfs[at.port].errors, severity);
        slots[at.slot].device.fall_silent(at.port, silence, host.now);
        let told = slots[at.slot].told_of(severity);
        machine.hears_of(severity);
        Ok(told)
    }

    /// A VF reports an error. Gives the VFs whose holders VFIO tells of it, as [`SimMachine::report_error`].
    ///
    /// # Errors
    /// ENODEV when the VF does not exist.
    pub fn report_vf_error(&self, vf: VfId, severity: Severity) -> Result<Vec<Bdf>, Errno> {
        let mut machine = self.lock();
        let (at, index) = machine.vf(vf).map_err(|_| Errno::NODEV)?;
        let slot = &mut machine.slots[at.slot];
        count(&mut slot.pfs[at.port].vfs[index].errors, severity);
        let told = slot.told_of(severity);
        machine.hears_of(severity);
        Ok(told)
    }

    /// A PF does not answer any more, and reports nothing: its card was pulled, or has lost its power.
    ///
    /// # Errors
    /// ENODEV when the PF does not exist.
    pub fn fall_silent(&self, pf: Bdf, silence: Silence) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let Machine { slots, host, .. } = &mut *machine;
        slots[at.slot].device.fall_silent(at.port, Some(silence), host.now);
        Ok(())
    }
}

fn count(errors: &mut ErrorCounts, severity: Severity) {
    match severity {
        Severity::Correctable => errors.correctable += 1,
        Severity::NonFatal => errors.nonfatal += 1,
        Severity::Fatal => errors.fatal += 1,
    }
}

impl Machine {
    /// The kernel tells of errors that it recovers from (pci_uevent_ers in drivers/pci/pci-driver.c), and of no others.
    fn hears_of(&mut self, severity: Severity) {
        if severity != Severity::Correctable {
            self.tell_followers();
        }
    }
}

impl Device {
    fn fall_silent(&mut self, port: usize, silence: Option<Silence>, now: Time) {
        let until = |silence| match silence {
            Silence::For(time) => Silence::For(now.saturating_add(time)),
            other => other,
        };
        if let Some(silence) = silence {
            self.ports[port].silence = Some(until(silence));
        }
    }
}

impl Slot {
    /// The VFs whose holders VFIO tells of an error of any function here.
    fn told_of(&self, severity: Severity) -> Vec<Bdf> {
        let open = self.pfs.iter().flat_map(|pf| &pf.vfs).filter(|vf| vf.held);
        open.filter(|_| severity != Severity::Correctable).map(|vf| vf.address).collect()
    }

    /// A reset saves and restores the configuration of a PF, its VFs included (pci_reset_function). A driver takes its VFs away when
    /// it goes.
    pub(super) fn recover(&mut self, port: usize, how: Recovery, host: &mut Host) -> Result<(), Errno> {
        let is_rebound = how == Recovery::Rebind;
        if is_rebound && self.pfs[port].vfs.iter().any(|vf| vf.held) {
            return Err(Errno::BUSY);
        }
        let helps = match self.device.ports[port].silence {
            None | Some(Silence::For(_) | Silence::UntilReset) => true,
            Some(Silence::UntilRebound) => is_rebound,
            Some(Silence::ForGood) => false,
        };
        if is_rebound {
            self.pfs[port].driver = None;
        }
        if !helps {
            return Err(Errno::NODEV);
        }
        self.device.ports[port].silence = None;
        if is_rebound {
            self.sriov_disable(port, host)?;
            self.pfs[port].driver = self.adapter.driver.then_some(self.device.family.drivers.0);
        }
        Ok(())
    }
}
