//! [`SimMachine`]: a handle on the machine, for code that plays its firmware, its hot-plug slots, its guests or its
//! fate.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ioward_model::{Holder, HostUse, MacAddress};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapter::Adapter,
    binding::VFIO,
    device::Time,
    fabric::SimFabric,
    family::Kind,
    faults::Operation,
    groups::Groups,
    kernel::{Host, Slot},
    registers::SIZE,
    state::{Machine, Unplugged},
};

/// A simulated machine. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct SimMachine {
    machine: Arc<Mutex<Machine>>,
    pace: f64,
}

/// The machine's PCI bus.
impl SimMachine {
    /// Reads `N` (1, 2 or 4) bytes of configuration space. All ones where nothing answers.
    #[must_use]
    pub fn config_read<const N: usize>(&self, function: Bdf, offset: u16) -> [u8; N] {
        let machine = self.lock();
        let now = machine.host.now;
        let answer = machine.slots.iter().find_map(|slot| {
            let registers = slot.device.registers(slot.device.function_at(function)?, now)?;
            registers.bytes().get(usize::from(offset)..)?.first_chunk().copied()
        });
        answer.unwrap_or([0xff; N])
    }

    /// Writes 1, 2 or 4 bytes of configuration space; lost where nothing answers. Goes to the device behind the
    /// kernel's back.
    pub fn config_write<const N: usize>(&self, function: Bdf, offset: u16, bytes: [u8; N]) {
        let mut machine = self.lock();
        let now = machine.host.now;
        let offset = usize::from(offset).min(SIZE);
        for slot in &mut machine.slots {
            if let Some(function) = slot.device.function_at(function) {
                slot.device.write(function, offset, &bytes, now);
            }
        }
    }

    /// The VF and the VF BAR that decode a memory address.
    #[must_use]
    pub fn memory_at(&self, address: u64) -> Option<(Bdf, u8)> {
        self.lock().slots.iter().find_map(|slot| {
            let (function, bar) = slot.device.memory_at(address)?;
            let vf = u16::try_from(function.vf?).ok()?;
            Some((slot.device.vf_address(function.port, vf)?, bar))
        })
    }
}

/// The machine as seen from its shell.
impl SimMachine {
    /// The fabric for the management partition.
    #[must_use]
    pub fn fabric(&self) -> SimFabric {
        SimFabric::new(self.clone())
    }

    /// The addresses of its PFs.
    #[must_use]
    pub fn physical_functions(&self) -> Vec<Bdf> {
        self.lock().slots.iter().flat_map(|slot| slot.pfs.iter().map(|pf| pf.address)).collect()
    }

    /// Writes `sriov_numvfs`, without prior checks.
    ///
    /// # Errors
    /// The kernel's error; ENODEV when the PF does not exist.
    pub fn write_numvfs(&self, pf: Bdf, count: u16) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let Machine { slots, host, .. } = &mut *machine;
        slots[at.slot].numvfs_store(at.port, count, host)
    }

    /// Writes a VF's `driver_override` and leaves its driver unchanged; `None` clears it.
    ///
    /// # Errors
    /// ENODEV when the VF does not exist.
    pub fn write_driver_override(&self, vf: Bdf, driver: Option<&str>) -> Result<(), Errno> {
        self.with_vf(vf, |slot, (port, index), _| {
            slot.set_override(port, index, driver);
            Ok(())
        })
    }

    /// Writes a VF's address to a driver's `bind`, without prior checks.
    ///
    /// # Errors
    /// The kernel's error; ENOENT when the driver does not exist, ENODEV when the VF does not.
    pub fn write_bind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        if !self.lock().has_driver(driver) {
            return Err(Errno::NOENT);
        }
        self.with_vf(vf, |slot, (port, index), host| slot.bind_vf(port, index, driver, host))
    }

    /// Writes a VF's address to a driver's `unbind`.
    ///
    /// # Errors
    /// ENOENT when the driver does not exist, ENODEV when the VF does not exist or another driver has it. ETIMEDOUT
    /// stands for a write that does not return, because the VF is open.
    pub fn write_unbind(&self, vf: Bdf, driver: &str) -> Result<(), Errno> {
        if !self.lock().has_driver(driver) {
            return Err(Errno::NOENT);
        }
        self.with_vf(vf, |slot, (port, index), host| {
            if slot.pfs[port].vfs[index].driver.as_deref() != Some(driver) {
                return Err(Errno::NODEV);
            }
            slot.unbind_vf(port, index, host.now)
        })
    }

    /// Brings the interface of a PF up, or down.
    ///
    /// # Errors
    /// ENODEV when the PF does not exist or has no interface.
    pub fn set_up(&self, pf: Bdf, up: bool) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let interface = machine.slots[at.slot].pfs[at.port].interface.as_mut().ok_or(Errno::NODEV)?;
        interface.up = up;
        machine.tell_followers();
        Ok(())
    }

    /// Sets the profile of a GPU, which determines its number of VFs.
    ///
    /// # Errors
    /// EBUSY while it has VFs, EINVAL for a profile it does not have, ENODEV when the GPU does not exist.
    pub fn set_profile(&self, pf: Bdf, profile: &str) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        let slot = &mut machine.slots[at.slot];
        let Kind::Gpu(profiles) = slot.device.family.kind else { return Err(Errno::NODEV) };
        let (_, vfs) = profiles.iter().find(|(name, _)| *name == profile).ok_or(Errno::INVAL)?;
        let pf = &mut slot.pfs[at.port];
        if pf.num_vfs > 0 {
            return Err(Errno::BUSY);
        }
        pf.total_vfs = *vfs;
        Ok(())
    }

    /// Sets the host's uses of a PF.
    ///
    /// # Errors
    /// ENODEV when the PF does not exist.
    pub fn set_in_use_by_host(&self, pf: Bdf, uses: Vec<HostUse>) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        machine.slots[at.slot].pfs[at.port].in_use_by_host = uses;
        Ok(())
    }

    /// Gives a VF to somebody who is no partition, behind ioward's back: a program opens it through VFIO, or its interface
    /// moves into another network namespace. [`SimMachine::release`] takes it back.
    ///
    /// # Errors
    /// ENODEV when the VF does not exist, or no driver has it that the holder could have it from; EBUSY when it is open
    /// already.
    pub fn lend(&self, vf: Bdf, holder: Holder) -> Result<(), Errno> {
        let opens = matches!(holder, Holder::Process(_));
        if opens {
            self.hold(vf)?;
        }
        self.with_vf(vf, |slot, (port, index), _| {
            let state = &mut slot.pfs[port].vfs[index];
            if !opens && state.interface.take().is_none() {
                return Err(Errno::NODEV);
            }
            state.holder = Some(holder);
            Ok(())
        })
    }
}

/// The machine as seen by a hypervisor and its guests.
impl SimMachine {
    /// Opens a VF through VFIO, which resets it, for a running partition. Until [`SimMachine::release`] the kernel
    /// can't take it back: a write that unbinds it, or removes its PF's VFs, does not return.
    ///
    /// # Errors
    /// ENODEV when the VF does not exist or is not bound to vfio-pci; EBUSY when it is open already; EPERM when its
    /// IOMMU group holds a function with another driver.
    pub fn hold(&self, vf: Bdf) -> Result<(), Errno> {
        self.with_vf(vf, |slot, (port, index), host| {
            let state = &slot.pfs[port].vfs[index];
            if state.driver.as_deref() != Some(VFIO) {
                return Err(Errno::NODEV);
            }
            if state.held {
                return Err(Errno::BUSY);
            }
            if !slot.is_viable(state.group, host.groups.as_ref()) {
                return Err(Errno::PERM);
            }
            slot.reset_vf(port, index, host);
            slot.pfs[port].vfs[index].held = true;
            slot.device.ports[port].vfs[index].used = true;
            Ok(())
        })
    }

    /// Closes a VF, which resets it. A write that waited for this returns. The interface of one that was in another network namespace
    /// comes back.
    ///
    /// # Errors
    /// ENODEV when the VF does not exist.
    pub fn release(&self, vf: Bdf) -> Result<(), Errno> {
        self.with_vf(vf, |slot, (port, index), host| {
            if matches!(slot.pfs[port].vfs[index].holder, Some(Holder::NetworkNamespace { .. })) {
                slot.give_interface_back(port, index);
                return Ok(());
            }
            slot.pfs[port].vfs[index].held = false;
            slot.pfs[port].vfs[index].holder = None;
            slot.reset_vf(port, index, host);
            if slot.pfs[port].vfs.iter().any(|vf| vf.held) {
                return Ok(());
            }
            match slot.pfs[port].stuck.take().and_then(|stuck| stuck.pending) {
                Some(count) => slot.numvfs_store(port, count, host),
                None => Ok(()),
            }
        })
    }

    /// The driver of a VF requests another MAC, as `ip link set address` in a guest does.
    ///
    /// # Errors
    /// EPERM when the PF has set one and does not trust the VF; EADDRNOTAVAIL for an invalid MAC; ENODEV when the
    /// VF does not exist or is not a NIC's.
    pub fn guest_sets_mac(&self, vf: Bdf, mac: MacAddress) -> Result<(), Errno> {
        self.with_vf(vf, |slot, (port, index), _| {
            if !matches!(slot.device.family.kind, Kind::Nic(_)) {
                return Err(Errno::NODEV);
            }
            slot.pfs[port].vfs[index].nic.set_own_mac(mac)
        })
    }

    fn with_vf<T>(
        &self,
        vf: Bdf,
        work: impl FnOnce(&mut Slot, (usize, usize), &mut Host) -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        let mut machine = self.lock();
        let Machine { slots, host, .. } = &mut *machine;
        let found = slots.iter_mut().find_map(|slot| {
            let at = slot.vf_at(vf)?;
            Some((slot, at))
        });
        let (slot, at) = found.ok_or(Errno::NODEV)?;
        work(slot, at, host)
    }
}

/// The machine in the hands of fate.
impl SimMachine {
    /// A copy of this machine in its present state, with the same random future.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { machine: Arc::new(Mutex::new(self.lock().clone())), pace: self.pace }
    }

    /// Advances model time.
    pub fn advance(&self, time: Duration) {
        self.lock().host.now += Time::try_from(time.as_nanos()).unwrap_or(Time::MAX / 2);
    }

    /// Makes the next operation of this kind fail with this errno. Calls add up.
    pub fn fail_next(&self, operation: Operation, errno: Errno) {
        self.lock().faults.fail_next(operation, errno);
    }

    /// Sets the failures per million changes.
    pub fn set_fault_rate(&self, per_million: u32) {
        self.lock().faults.set_rate(per_million);
    }

    /// Makes the next change to a PF or its VFs hang: it, and everything after it on that PF, is reported as stuck
    /// until [`SimMachine::unstick`].
    ///
    /// # Errors
    /// ENODEV when the PF does not exist.
    pub fn stick(&self, pf: Bdf) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        machine.slots[at.slot].pfs[at.port].sticks = true;
        Ok(())
    }

    /// Lets a stuck write on a PF return: a number of VFs that it wrote takes effect only now.
    ///
    /// # Errors
    /// The kernel's error; ENODEV when the PF does not exist.
    pub fn unstick(&self, pf: Bdf) -> Result<(), Errno> {
        let mut machine = self.lock();
        let at = machine.pf(pf).map_err(|_| Errno::NODEV)?;
        machine.slots[at.slot].pfs[at.port].sticks = false;
        machine.return_from_stuck(at)
    }

    /// Removes an adapter without warning, with all its ports and VFs. `pf` is any of its PFs; false when it was
    /// not there.
    pub fn unplug(&self, pf: Bdf) -> bool {
        let mut machine = self.lock();
        let Ok(at) = machine.pf(pf) else { return false };
        machine.take_out(at.slot);
        machine.tell_followers();
        true
    }

    /// Replaces an adapter by one that was never in the machine; `pf` is any PF of the old one. False when there
    /// was none.
    pub fn exchange(&self, pf: Bdf, new: Adapter) -> bool {
        let mut machine = self.lock();
        let Ok(at) = machine.pf(pf) else { return false };
        machine.take_out(at.slot);
        let Some(Unplugged { address, last_bus, .. }) = machine.unplugged.last() else { return false };
        let slot = Some((*address, *last_bus));
        machine.plug_in_new(new, slot);
        true
    }

    /// Turns the machine off and on, with these adapters in its slots, lowest slot first. The firmware assigns new
    /// bus numbers, from 1, so a card in a lower slot moves all cards above it. Settings and VFs are lost; serial
    /// numbers and MACs are kept. Adapters not named are removed. Returns the address of function 0 of each: `None`
    /// for an empty slot or an unknown adapter.
    pub fn boot_with(&self, slots: impl IntoIterator<Item = InSlot>) -> Vec<Option<Bdf>> {
        let mut machine = self.lock();
        while !machine.slots.is_empty() {
            machine.take_out(0);
        }
        machine.next_bus = (0, 1);
        machine.host.next_nvme = 0;
        // Earlier adapters are found by their old addresses, not the new ones.
        let found: Vec<_> = slots
            .into_iter()
            .map(|slot| match slot {
                InSlot::Old(pf) => machine.take_unplugged(pf).map(InSlotFound::Old),
                InSlot::New(adapter) => Some(InSlotFound::New(adapter)),
                InSlot::Empty => Some(InSlotFound::Empty),
            })
            .collect();
        let put_in = |slot| match slot {
            Some(InSlotFound::Old(Unplugged { adapter, serial, .. })) => {
                Some(machine.plug_in(adapter, serial, None))
            }
            Some(InSlotFound::New(adapter)) => Some(machine.plug_in_new(adapter, None)),
            Some(InSlotFound::Empty) => {
                machine.next_bus.1 = machine.next_bus.1.saturating_add(1);
                None
            }
            None => None,
        };
        found.into_iter().map(put_in).collect()
    }

    /// Puts a removed adapter back into its slot; `pf` is any of its PFs. Returns the address of its function 0:
    /// `None` when no such adapter was removed.
    pub fn replug(&self, pf: Bdf) -> Option<Bdf> {
        let mut machine = self.lock();
        let Unplugged { adapter, serial, address, last_bus } = machine.take_unplugged(pf)?;
        Some(machine.plug_in(adapter, serial, Some((address, last_bus))))
    }

    /// Puts a removed adapter into another slot. Its address changes; its serial number and its MACs do not.
    pub fn replug_elsewhere(&self, pf: Bdf) -> Option<Bdf> {
        let mut machine = self.lock();
        let Unplugged { adapter, serial, .. } = machine.take_unplugged(pf)?;
        Some(machine.plug_in(adapter, serial, None))
    }
}

/// The content of a slot when the machine is turned on.
#[derive(Clone, Debug)]
pub enum InSlot {
    /// An adapter in the machine, or removed from it: by the old address of any of its PFs.
    Old(Bdf),
    /// A new adapter.
    New(Adapter),
    /// Nothing. The port above the slot has a bus number all the same.
    Empty,
}

enum InSlotFound {
    Old(Unplugged),
    New(Adapter),
    Empty,
}

impl Machine {
    fn take_out(&mut self, slot: usize) {
        let slot = self.slots.remove(slot);
        for state in &slot.pfs {
            let functions = std::iter::once(state.address).chain(state.vfs.iter().map(|vf| vf.address));
            if let Some(groups) = &mut self.host.groups {
                functions.for_each(|function| groups.leave(function));
            }
        }
        let Slot { adapter, device, .. } = slot;
        let (address, last_bus, serial) = (device.address, device.last_bus, device.serial);
        self.unplugged.push(Unplugged { adapter, serial, address, last_bus });
    }

    /// The adapter most recently removed from a slot.
    fn take_unplugged(&mut self, pf: Bdf) -> Option<Unplugged> {
        let same_slot =
            |one: &Unplugged| one.address.domain() == pf.domain() && one.address.bus() == pf.bus();
        let at = self.unplugged.iter().rposition(same_slot)?;
        Some(self.unplugged.remove(at))
    }
}

impl Slot {
    /// Whether every function of an IOMMU group is unbound or bound to vfio-pci.
    fn is_viable(&self, group: Option<u32>, groups: Option<&Groups>) -> bool {
        let members = group.zip(groups).map(|(group, groups)| groups.members(group)).unwrap_or_default();
        members.iter().all(|member| {
            let pf = self.pfs.iter().find(|pf| pf.address == *member);
            let vf = self.pfs.iter().flat_map(|pf| &pf.vfs).find(|vf| vf.address == *member);
            pf.is_none_or(|pf| pf.driver.is_none())
                && vf.is_none_or(|vf| vf.driver.as_deref().is_none_or(|driver| driver == VFIO))
        })
    }
}

impl SimMachine {
    pub(super) fn new(machine: Machine, pace: f64) -> Self {
        Self { machine: Arc::new(Mutex::new(machine)), pace }
    }

    /// The real time that an operation of this model time takes, for a person who watches.
    pub(super) fn pause(&self, time: Duration) -> Duration {
        time.mul_f64(self.pace)
    }

    /// The machine. It is consistent after every operation, so it survives a panic elsewhere.
    pub(super) fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
