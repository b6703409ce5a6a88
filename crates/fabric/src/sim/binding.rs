//! The kernel's driver core on the simulated machine: `bind`, `unbind`, `driver_override` and `reset` of a VF
//! (drivers/base/bus.c, drivers/pci/pci-driver.c, drivers/pci/pci.c).

use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    device::{Function, Time},
    family::Kind,
    kernel::{Host, Slot, Stuck, interface_name},
    layout::DEVICE_CONTROL,
    nvme::Controller,
};

/// A driver that knows no IDs and accepts any function through an override.
pub(super) const VFIO: &str = "vfio-pci";

impl Slot {
    /// A write to a driver's `bind`, or the kernel's probe of a new VF.
    pub(super) fn bind_vf(
        &mut self,
        port: usize,
        index: usize,
        driver: &str,
        host: &mut Host,
    ) -> Result<(), Errno> {
        let family = &self.device.family;
        let pf = &self.pfs[port];
        let vf = &pf.vfs[index];
        let matches = match &vf.driver_override {
            Some(name) => name == driver,
            None => driver == family.drivers.1,
        };
        if !matches {
            return Err(Errno::NODEV);
        }
        if vf.driver.is_some() {
            return Err(Errno::BUSY);
        }
        // pci_device_can_probe: without autoprobe only the driver of an override is probed.
        if !pf.autoprobe && vf.driver_override.is_none() {
            return Err(Errno::NODEV);
        }
        // An offline secondary controller never becomes ready (since Linux 6.2; 6.1 binds it first and unbinds it
        // later).
        let secondaries = self.device.controller.as_ref().map(Controller::secondaries);
        let offline = secondaries.and_then(|all| all.get(index)).is_some_and(|secondary| !secondary.online);
        if driver == VFIO && vf.group.is_none() {
            return Err(Errno::INVAL);
        }
        if driver != VFIO && offline {
            return Err(Errno::NODEV);
        }
        let is_nic = matches!(family.kind, Kind::Nic(_)) && driver == family.drivers.1;
        let name = is_nic.then(|| self.vf_interface(port, index));
        let now = host.now;
        let vf = &mut self.pfs[port].vfs[index];
        vf.driver = Some(driver.to_owned());
        vf.interface = name;
        vf.nic.runs(true, now);
        Ok(())
    }

    fn vf_interface(&self, port: usize, index: usize) -> String {
        let has_ports = self.device.ports.len() > 1;
        format!("{}v{index}", interface_name(self.pfs[port].address, has_ports))
    }

    /// The interface of a VF moves back into the host's namespace.
    pub(super) fn give_interface_back(&mut self, port: usize, index: usize) {
        let name = self.vf_interface(port, index);
        let vf = &mut self.pfs[port].vfs[index];
        (vf.interface, vf.holder) = (Some(name), None);
    }

    /// A write to a driver's `unbind`. vfio-pci keeps the function while it is open: the write never returns here.
    pub(super) fn unbind_vf(&mut self, port: usize, index: usize, now: Time) -> Result<(), Errno> {
        let pf = &mut self.pfs[port];
        let vf = &mut pf.vfs[index];
        if vf.held {
            pf.stuck = Some(Stuck { since: now, pending: None });
            return Err(Errno::TIMEDOUT);
        }
        vf.driver = None;
        vf.interface = None;
        vf.holder = None;
        vf.nic.runs(false, now);
        Ok(())
    }

    /// A write to `driver_override`; `None` clears it.
    pub(super) fn set_override(&mut self, port: usize, index: usize, driver: Option<&str>) {
        self.pfs[port].vfs[index].driver_override = driver.map(str::to_owned);
    }

    /// A write to `reset`: FLR, with configuration space saved before and restored after it (pcie_flr).
    pub(super) fn reset_vf(&mut self, port: usize, index: usize, host: &mut Host) {
        let function = Function { port, vf: Some(index) };
        let saved = self.device.registers(function, host.now).map(|registers| registers.bytes().to_vec());
        let initiate = [0, 0x80];
        self.device.write(function, DEVICE_CONTROL, &initiate, host.now);
        host.sleep(100);
        // The writable bits are restored; the bit that starts a reset never reads as set.
        if let Some(saved) = saved {
            self.device.write(function, 0, &saved, host.now);
        }
        let now = host.now;
        let kind = &self.device.family.kind;
        self.pfs[port].vfs[index].nic.was_reset(kind, now);
    }

    /// A VF of this adapter, by its address: its port and its index.
    pub(super) fn vf_at(&self, address: Bdf) -> Option<(usize, usize)> {
        self.pfs
            .iter()
            .enumerate()
            .find_map(|(port, pf)| Some((port, pf.vfs.iter().position(|vf| vf.address == address)?)))
    }
}
