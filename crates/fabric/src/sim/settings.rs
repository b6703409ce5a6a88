//! The settings of a VF on the simulated machine, made by its NIC's PF driver or its NVMe controller. The same code
//! as on Linux decides which requests are sent, and in which order.

use std::{io, time::Duration};

use ioward_model::{VfId, VfSettings, VfStatistics};
use rustix::io::Errno;

use super::{
    device::Time,
    family::{Kind, Nic},
    kernel::{Interface, Slot},
    nic::Port,
    state::Machine,
};
use crate::{
    FabricError,
    linux::{
        netlink::VfAttribute,
        nic,
        nvme::{self, Action},
    },
};

impl Machine {
    /// A VF's settings.
    pub(super) fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        let (pf, index) = self.vf(vf)?;
        let slot = &self.slots[pf.slot];
        slot.settings(pf.port, index).ok_or_else(|| slot.cannot(vf, NO_SETTINGS))
    }

    /// Changes settings of a VF; if one fails, rolls back those already made.
    pub(super) fn configure(&mut self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let (pf, index) = self.vf(vf)?;
        let slot = &self.slots[pf.slot];
        match slot.device.family.kind {
            Kind::Nic(_) if slot.pfs[pf.port].interface.is_some() => self.configure_nic(vf, change),
            Kind::Nvme(_) if slot.pfs[pf.port].nvme.is_some() => self.configure_nvme(vf, index, change),
            _ => Err(slot.cannot(vf, NO_SETTINGS)),
        }
    }

    /// A VF's traffic counters.
    pub(super) fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        let (pf, index) = self.vf(vf)?;
        let slot = &self.slots[pf.slot];
        let state = &slot.pfs[pf.port];
        match &slot.device.family.kind {
            Kind::Nic(nic) if state.interface.is_some() => {
                Ok(state.vfs[index].nic.statistics(nic, self.host.now))
            }
            _ => Err(slot.cannot(vf, "count the traffic of a VF")),
        }
    }

    fn configure_nic(&mut self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let (pf, index) = self.vf(vf)?;
        let before = self.slots[pf.slot].pfs[pf.port].vfs[index].nic.info(vf.index);
        let changes = nic::changes(&before, change)
            .map_err(|setting| self.slots[pf.slot].cannot(vf, &format!("set {setting} of a VF")))?;
        let mut done = Vec::new();
        for (to, back) in changes {
            if let Err(errno) = self.set_vf(vf, to) {
                for undo in done.into_iter().rev() {
                    // As on Linux: the caller needs to know why the change failed.
                    let _ = self.set_vf(vf, undo);
                }
                return Err(self.refused(vf, to, errno));
            }
            done.push(back);
        }
        Ok(())
    }

    /// One change; waits for a VF in reset, as on Linux.
    fn set_vf(&mut self, vf: VfId, setting: VfAttribute) -> Result<(), Errno> {
        let nanoseconds = |time: Duration| Time::try_from(time.as_nanos()).unwrap_or(Time::MAX / 2);
        let until = self.host.now + nanoseconds(nic::READY_WITHIN);
        loop {
            match self.ask(vf, setting) {
                Err(Errno::BUSY) if self.host.now < until => {
                    self.host.now += nanoseconds(nic::ASK_AGAIN_AFTER);
                }
                outcome => return outcome,
            }
        }
    }

    /// One RTM_SETLINK.
    fn ask(&mut self, vf: VfId, setting: VfAttribute) -> Result<(), Errno> {
        let (pf, index) = self.vf(vf).map_err(|_| Errno::NODEV)?;
        let slot = &mut self.slots[pf.slot];
        let Kind::Nic(nic) = &slot.device.family.kind else { return Err(Errno::OPNOTSUPP) };
        let state = &mut slot.pfs[pf.port];
        let has_link = state.interface.as_ref().is_some_and(|interface| interface.has_link(self.host.now));
        let others = state.vfs.iter().enumerate().filter(|(other, _)| *other != index);
        let promised = others.map(|(_, other)| other.nic.promised()).sum();
        let port = Port { nic, has_link, waits: slot.adapter.waits_for_resets, promised };
        state.vfs[index].nic.set(setting, port, &mut self.host)
    }

    fn refused(&self, vf: VfId, setting: VfAttribute, errno: Errno) -> FabricError {
        let Ok((pf, _)) = self.vf(vf) else { return FabricError::NoSuchVf { vf, num_vfs: 0 } };
        let slot = &self.slots[pf.slot];
        if errno == Errno::OPNOTSUPP {
            return slot.cannot(vf, &format!("set {} of a VF", nic::name(setting)));
        }
        let interface = slot.pfs[pf.port].interface.as_ref();
        let has_link = interface.is_some_and(|interface| interface.has_link(self.host.now));
        let source = io::Error::from(errno);
        let why = nic::why(&source, setting, has_link);
        FabricError::Refused { what: format!("set {} of {vf}", nic::describe(setting)), why, source }
    }

    fn configure_nvme(&mut self, vf: VfId, index: usize, change: &VfSettings) -> Result<(), FabricError> {
        let (pf, _) = self.vf(vf)?;
        let slot = &mut self.slots[pf.slot];
        if let Some((setting, _)) = nvme::foreign(change).describe().first() {
            return Err(slot.cannot(vf, &format!("set {setting} of a VF")));
        }
        let Some(before) = slot.secondary(index) else { return Err(slot.cannot(vf, "virtualize")) };
        let done = slot.manage(vf, &nvme::steps(&before, change));
        if done.is_err()
            && let Some(now) = slot.secondary(index)
        {
            let _ = slot.manage(vf, &nvme::steps(&now, &nvme::settings(&before)));
        }
        done
    }
}

/// The operation refused by an adapter that is neither a NIC nor an NVMe controller, or has no driver.
const NO_SETTINGS: &str =
    "set or read its VFs: it has neither a network interface here nor an NVMe controller";

impl Slot {
    /// A VF's settings; `None` where there are none.
    pub(super) fn settings(&self, port: usize, index: usize) -> Option<VfSettings> {
        let pf = &self.pfs[port];
        let number = u16::try_from(index).ok()?;
        if pf.interface.is_some() {
            return Some(nic::settings(&pf.vfs[index].nic.info(number)));
        }
        pf.nvme.as_ref()?;
        Some(nvme::settings(&self.secondary(index)?))
    }

    /// Sends commands for the secondary controller of a VF.
    fn manage(&mut self, vf: VfId, actions: &[Action]) -> Result<(), FabricError> {
        let enabled = self.device.ports.first().map_or(0, |port| port.vfs.len());
        let secondary = self.secondary(usize::from(vf.index));
        let Some((controller, secondary)) = self.device.controller.as_mut().zip(secondary) else {
            return Ok(());
        };
        for action in actions {
            controller.manage(secondary.controller_id, *action, enabled).map_err(|status| {
                let source = io::Error::other(format!("NVMe status {status:03x}h"));
                FabricError::Refused { what: action.describe(vf), why: nvme::why(status), source }
            })?;
        }
        Ok(())
    }

    fn secondary(&self, index: usize) -> Option<ioward_model::NvmeSecondary> {
        self.device.controller.as_ref()?.secondaries().get(index).copied()
    }

    fn cannot(&self, vf: VfId, what: &str) -> FabricError {
        let pf = self.pfs.iter().find(|pf| pf.address == vf.pf);
        let driver = pf.and_then(|pf| pf.driver).unwrap_or("without a driver it");
        FabricError::Unsupported { function: vf.pf, driver: driver.to_owned(), what: what.to_owned() }
    }

    /// The NIC side of its family.
    pub(super) fn nic(&self) -> Option<&Nic> {
        match &self.device.family.kind {
            Kind::Nic(nic) => Some(nic),
            Kind::Nvme(_) | Kind::Gpu(_) => None,
        }
    }
}

impl Interface {
    /// Whether there is a link.
    pub(super) fn has_link(&self, now: Time) -> bool {
        self.up && self.link_back_at <= now
    }
}
