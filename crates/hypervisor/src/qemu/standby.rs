//! Standbys of VFs (`failover=on`, QEMU docs/system/virtio-net-failover.rst): when one comes and goes, and what QEMU does with its
//! primary meanwhile.
//!
//! ```text
//!   standby in the machine, VF handed to QEMU ──> hidden ── the guest negotiates STANDBY ──> plugged in
//!                                                   │                                           │ detach: the guest lets go
//!                                                   └──────────── detach: at once ─────────────>└──> handed back
//! ```
//! Hidden, the VF is in no list of QEMU's and QEMU has not opened it; a guest without net_failover leaves it so for good. Once a guest of
//! the running QEMU has negotiated, VFs are plugged in at once, also while it boots anew. QEMU hides the primary again when a machine
//! migrates, which ioward's do without any: see `moving`.
//!
//! QEMU keeps what it was told about its first primary until the standby is gone. Where it finds the primary missing when a guest
//! negotiates, as after a reboot, it plugs *that* function in, though it was detached since or another was handed to it. For the first,
//! the node of a detached VF is root's again, so that QEMU can't open it; the second is refused ([`HeldStandby::primary`]).

use std::os::fd::{AsFd, OwnedFd};

use ioward_model::{Name, Owner, StandbyNic};

use super::{
    QemuHypervisor,
    machine::Machine,
    partition::Partition,
    record::{HeldStandby, HeldVf, Record, SLOTS},
};
use crate::{HypervisorError, lock::lock};

impl QemuHypervisor {
    pub(super) async fn attach_standby_now(
        &self,
        owner: &Owner,
        nic: &StandbyNic,
    ) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let refuse = |why| HypervisorError::NoStandby { owner: owner.clone(), why };
        let record = partition.record();
        let held = record.standby(&owner.vf);
        if let Some(other) = held.filter(|held| held.nic != *nic) {
            return Err(refuse(format!("it is {} already; detach that first", other.nic)));
        }
        let machine = partition.machine();
        if let Some(machine) = &machine {
            machine.check_stays().await?;
            if let Some(held) = held
                && machine.has_standby(held).await?
            {
                return Ok(());
            }
            if record.vf(&owner.vf).is_some() {
                let why = "QEMU pairs only a VF that comes after its standby, and this one is in the machine already";
                return Err(refuse(format!("{why}; detach {owner} first, or stop {}", owner.partition)));
            }
        }
        self.taps.check_bridge(&nic.bridge).map_err(refuse)?;
        let standby = match held {
            Some(held) => held.clone(),
            None => self.note_standby(&partition, &record, owner, nic)?,
        };
        match machine {
            Some(machine) => self.plug_standby(&partition, &machine, owner, &standby).await,
            None => Ok(()),
        }
    }

    /// Puts a new standby into the record.
    fn note_standby(
        &self,
        partition: &Partition,
        record: &Record,
        owner: &Owner,
        nic: &StandbyNic,
    ) -> Result<HeldStandby, HypervisorError> {
        let refuse = |why: String| HypervisorError::NoStandby { owner: owner.clone(), why };
        let full =
            || refuse(format!("the {SLOTS} slots of the machine are all taken; detach another VF first"));
        let slot = record.free_slot().ok_or_else(full)?;
        // Held until the name is in the record, so that nobody else gets it.
        let partitions = lock(&self.partitions);
        let names: Vec<_> = partitions
            .values()
            .flat_map(|partition| partition.record().standbys)
            .map(|standby| standby.tap)
            .collect();
        let is_taken = |name: &str| names.iter().any(|taken| taken.as_str() == name);
        let no_name = || refuse("all names for its tap are taken".into());
        let tap = self.taps.name_for(owner, is_taken).ok_or_else(no_name)?;
        let standby = HeldStandby { name: owner.vf.clone(), nic: nic.clone(), slot, tap, primary: None };
        partition.change(|record| record.standbys.push(standby.clone()))?;
        Ok(standby)
    }

    /// Plugs a standby that is in the record into a running machine, and takes it from the record if it did not get in.
    async fn plug_standby(
        &self,
        partition: &Partition,
        machine: &Machine,
        owner: &Owner,
        standby: &HeldStandby,
    ) -> Result<(), HypervisorError> {
        let plugged = match self.taps.make(owner, standby, partition.record().user).await {
            Ok(tap) => machine.plug_standby(standby, tap.as_fd()).await,
            Err(error) => Err(error),
        };
        let Err(error) = plugged else { return Ok(()) };
        // As for a VF: without an answer it may be there.
        if machine.is_gone() || matches!(machine.has_standby(standby).await, Ok(false)) {
            forget(partition, &standby.name)?;
        }
        Err(error)
    }

    pub(super) async fn detach_standby_now(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let (partition, _operation) = self.enter(&owner.partition).await?;
        let record = partition.record();
        let Some(standby) = record.standby(&owner.vf) else { return Ok(()) };
        if let Some(machine) = partition.machine() {
            if record.vf(&owner.vf).is_some() {
                let why = format!("its VF is in the machine, and would lose it; detach {owner} first");
                return Err(HypervisorError::NoStandby { owner: owner.clone(), why });
            }
            if let Err(error) = machine.unplug_standby(standby).await
                && !machine.is_gone()
            {
                return Err(error);
            }
        }
        self.taps.remove(standby).await;
        forget(&partition, &owner.vf)
    }

    /// The taps for a machine that is about to be started, in the order of its standbys. Its QEMU knows no other primaries than those
    /// that it starts with.
    pub(super) async fn taps_for(
        &self,
        partition: &Partition,
        record: &Record,
    ) -> Result<Vec<OwnedFd>, HypervisorError> {
        let mut taps = Vec::new();
        for standby in &record.standbys {
            let owner = Owner { partition: partition.name.clone(), vf: standby.name.clone() };
            taps.push(self.taps.make(&owner, standby, record.user).await?);
        }
        if !taps.is_empty() {
            partition.change(|record| {
                for standby in &mut record.standbys {
                    let vf = record.vfs.iter().find(|vf| vf.name == standby.name);
                    standby.primary = vf.map(|vf| vf.function);
                }
            })?;
        }
        Ok(taps)
    }

    /// Hands a VF to a running machine. The VF of a standby is told to QEMU as its primary.
    pub(super) async fn hand_in(
        &self,
        partition: &Partition,
        machine: &Machine,
        vf: &HeldVf,
    ) -> Result<(), HypervisorError> {
        let record = partition.record();
        let Some(standby) = record.standby(&vf.name) else { return machine.plug(vf, false).await };
        let Some(other) = standby.primary.filter(|known| *known != vf.function) else {
            partition.change(|record| record.note_primary(&vf.name, Some(vf.function)))?;
            return machine.plug(vf, true).await;
        };
        machine.plug(vf, true).await?;
        if machine.has_vf(vf).await? {
            return Ok(());
        }
        let why = format!(
            "its guest has not negotiated failover, and as soon as it does QEMU would plug in {other}, which it was given \
             before; wait for the guest, or stop {}",
            partition.name
        );
        Err(HypervisorError::NotAttachable { function: vf.function, partition: partition.name.clone(), why })
    }
}

fn forget(partition: &Partition, name: &Name) -> Result<(), HypervisorError> {
    partition.change(|record| record.standbys.retain(|held| held.name != *name))
}
