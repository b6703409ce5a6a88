//! The machine's whole state, and how an operation runs on it: latency, faults, and stuck adapters.

use std::{io, time::Duration};
use tokio::sync::mpsc;

use ioward_model::VfId;
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapter::Adapter,
    binding::VFIO,
    device::Time,
    faults::{Faults, Operation},
    kernel::{Host, Slot, Stuck},
};
use crate::{FabricError, vf_count};

/// How long a caller waits for an operation that does not return, in model time.
const BOUND: Duration = Duration::from_secs(30);

/// The whole machine.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    pub(super) host: Host,
    pub(super) faults: Faults,
    /// By address.
    pub(super) slots: Vec<Slot>,
    pub(super) unplugged: Vec<Unplugged>,
    /// Domain and bus of the next slot.
    pub(super) next_bus: (u32, u8),
    /// Adapters plugged in so far.
    pub(super) plugged: u64,
    /// Whoever wants to hear of what the kernel tells: links that come and go, errors, adapters that are taken out.
    pub(super) followers: Vec<mpsc::Sender<()>>,
}

/// An adapter that was removed.
#[derive(Clone, Debug)]
pub(super) struct Unplugged {
    pub(super) adapter: Adapter,
    pub(super) serial: u64,
    pub(super) address: Bdf,
    pub(super) last_bus: u8,
}

/// An existing PF: its slot and its port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pf {
    pub(super) slot: usize,
    pub(super) port: usize,
}

impl Machine {
    /// The PF at an address.
    pub(super) fn pf(&self, address: Bdf) -> Result<Pf, FabricError> {
        let at = |slot: &Slot| slot.pfs.iter().position(|pf| pf.address == address);
        let found = self.slots.iter().enumerate().find_map(|(slot, s)| at(s).map(|port| Pf { slot, port }));
        found.ok_or_else(|| {
            let is_vf = self.slots.iter().any(|slot| slot.device.function_at(address).is_some());
            let what = if is_vf { "has no SR-IOV capability" } else { "is not there" };
            FabricError::NoSuchFunction { address, what: what.into() }
        })
    }

    /// The PF of an existing VF, and the VF's number as an index.
    pub(super) fn vf(&self, vf: VfId) -> Result<(Pf, usize), FabricError> {
        let pf = self.pf(vf.pf)?;
        let state = &self.slots[pf.slot].pfs[pf.port];
        let index = usize::from(vf.index);
        match state.vfs.get(index) {
            Some(_) => Ok((pf, index)),
            None => Err(FabricError::NoSuchVf { vf, num_vfs: state.num_vfs }),
        }
    }

    /// Whether a driver of this name is loaded.
    pub(super) fn has_driver(&self, driver: &str) -> bool {
        let of_slot = |slot: &Slot| {
            let (pf, vf) = slot.device.family.drivers;
            pf == driver || vf == driver
        };
        driver == VFIO || self.slots.iter().any(of_slot)
    }

    /// Runs an operation: it takes its time, fails if it is due to fail, and times out if it does not return.
    pub(super) fn operate<T>(
        &mut self,
        operation: Operation,
        pf: Option<Bdf>,
        what: String,
        work: impl FnOnce(&mut Self) -> Result<T, FabricError>,
    ) -> Result<T, FabricError> {
        self.host.now += self.faults.latency(operation);
        let at = pf.and_then(|address| self.pf(address).ok());
        let stuck = |machine: &mut Self, since: Time, what: String| {
            let after = Duration::from_nanos(machine.host.now - since);
            FabricError::Stuck { what, after }
        };
        if let Some(at) = at
            && let Some(Stuck { since, .. }) = self.slots[at.slot].pfs[at.port].stuck
        {
            return Err(stuck(self, since, what));
        }
        if let Some(errno) = self.faults.strike(operation) {
            let source = io::Error::from(errno);
            return Err(match (operation, pf) {
                (Operation::Identify, _) | (_, None) => {
                    FabricError::Read { path: "/sys/bus/pci/devices".into(), source }
                }
                _ => FabricError::Refused { what, why: vf_count::why(&source), source },
            });
        }
        let since = self.host.now;
        let is_silent = |at: Pf| self.slots[at.slot].device.is_silent(at.port, since);
        if operation.reaches_the_function() && at.is_some_and(is_silent) {
            let source = io::Error::from(Errno::IO);
            let why = "the device does not answer; see dmesg".to_owned();
            return Err(FabricError::Refused { what, why, source });
        }
        let is_down = |at: Pf| self.slots[at.slot].pfs[at.port].nvme_down(since);
        if operation.asks_the_driver()
            && let Some(state) = at.and_then(is_down)
        {
            let why = format!("its NVMe controller is {state}");
            return Err(FabricError::Refused { what, why, source: Errno::AGAIN.into() });
        }
        let result = match at {
            // A write of the number of VFs gets stuck where it is written.
            Some(at) if operation.is_change() && operation != Operation::SetVfCount && self.sticks(at) => {
                self.slots[at.slot].pfs[at.port].stuck = Some(Stuck { since, pending: None });
                Err(FabricError::Stuck { what: what.clone(), after: BOUND })
            }
            _ => work(self),
        };
        // It does not return, whatever its result.
        if let Some(at) = at
            && let Some(pf) = self.slots.get(at.slot).and_then(|slot| slot.pfs.get(at.port))
            && pf.stuck.is_some()
        {
            self.host.now += u64::try_from(BOUND.as_nanos()).unwrap_or(u64::MAX);
            return Err(stuck(self, since, what));
        }
        result
    }

    /// The kernel says that something has changed. One who has not heard of the last change yet hears of this one with it.
    pub(super) fn tell_followers(&mut self) {
        self.followers.retain(|follower| !follower.is_closed());
        for follower in &self.followers {
            let _ = follower.try_send(());
        }
    }

    fn sticks(&mut self, at: Pf) -> bool {
        std::mem::take(&mut self.slots[at.slot].pfs[at.port].sticks)
    }

    /// A stuck write returns after all.
    pub(super) fn return_from_stuck(&mut self, at: Pf) -> Result<(), Errno> {
        let slot = &mut self.slots[at.slot];
        match slot.pfs[at.port].stuck.take() {
            Some(Stuck { pending: Some(count), .. }) => slot.numvfs_store(at.port, count, &mut self.host),
            _ => Ok(()),
        }
    }
}
