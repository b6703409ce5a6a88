//! Errors of adapters: what AER counts, functions that do not answer, and what helps (PCIe 6.0 §6.2; drivers/pci/pcie/aer.c, err.c).
//!
//! The kernel's own recovery is not modelled step by step: an adapter that it recovers is one that is silent for some time.

use ioward_model::{ErrorCounts, NvmeState, Recovery, VfId};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    device::{Device, Silence, Time},
    kernel::{Host, PfState, Slot},
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

impl SimMachine {
    /// The driver of an NVMe controller resets it, or gives it up: it takes no commands until then. A time begins now.
    ///
    /// # Errors
    /// ENODEV when the PF does not exist or no driver has its NVMe controller.
    pub fn nvme_goes_down(&self, pf: Bdf, state: NvmeState, until: Silence) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let Machine { slots, host, .. } = &mut *machine;
        let pf = &mut slots[at.slot].pfs[at.port];
        pf.nvme.as_ref().ok_or(Errno::NODEV)?;
        pf.nvme_down = Some((state, until.from(host.now)));
        Ok(())
    }
}

impl PfState {
    /// The state of its NVMe controller, if it has one and takes no commands.
    pub(super) fn nvme_down(&self, now: Time) -> Option<NvmeState> {
        let (state, until) = self.nvme_down?;
        (!matches!(until, Silence::For(until) if until <= now)).then_some(state)
    }
}

impl Silence {
    /// With its end in place of a time that begins now.
    pub(super) fn from(self, now: Time) -> Self {
        match self {
            Self::For(time) => Self::For(now.saturating_add(time)),
            other => other,
        }
    }

    /// Whether an attempt to recover its adapter ends it.
    pub(super) fn ends_by(self, how: Recovery) -> bool {
        match self {
            Self::For(_) | Self::UntilAsked => true,
            Self::UntilReset => how != Recovery::Health,
            Self::UntilRebound => how == Recovery::Rebind,
            Self::ForGood => false,
        }
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
        if let Some(silence) = silence {
            self.ports[port].silence = Some(silence.from(now));
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
        if how == Recovery::Health {
            return self.recover_health(port, host.now);
        }
        let is_rebound = how == Recovery::Rebind;
        if is_rebound && self.pfs[port].vfs.iter().any(|vf| vf.held) {
            return Err(Errno::BUSY);
        }
        let helps = self.device.ports[port].silence.is_none_or(|silence| silence.ends_by(how));
        if is_rebound {
            self.pfs[port].driver = None;
        }
        if !helps {
            return Err(Errno::NODEV);
        }
        self.device.ports[port].silence = None;
        self.pfs[port].nvme_down = self.pfs[port].nvme_down.filter(|(_, until)| !until.ends_by(how));
        if is_rebound {
            self.sriov_disable(port, host)?;
            self.pfs[port].driver = self.adapter.driver.then_some(self.device.family.drivers.0);
        }
        self.health_after(port, how, host.now);
        Ok(())
    }
}
