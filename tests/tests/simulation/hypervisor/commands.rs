//! What the management partition asks of a [`ModelHypervisor`], as the trait has it.

use std::{collections::BTreeMap, os::unix::net::UnixStream};

use async_trait::async_trait;
use ioward_hypervisor::{
    Accelerator, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle, PartitionStatus,
    StopMode,
};
use ioward_model::{KindName, Name, Owner, PartitionSpec, StandbyNic};
use ioward_pci::Bdf;
use tokio::sync::mpsc;

use super::{Connected, Definition, Guest, Held, ModelHypervisor};

fn guest<'a>(
    guests: &'a mut BTreeMap<Name, Guest>,
    partition: &Name,
) -> Result<&'a mut Guest, HypervisorError> {
    let known = guests.get_mut(partition).filter(|guest| !guest.forgotten);
    known.ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))
}

#[async_trait]
impl Hypervisor for ModelHypervisor {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        Ok(Accelerator::Kvm)
    }

    /// A domain that is a partition, and was there at the last look, is not asked for.
    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        let guests = self.guests.lock();
        let guest = guests.get(&spec.name).filter(|_| spec.kind.name() == KindName::Domain);
        let is_known = guest.is_some_and(|guest| !guest.forgotten);
        let found = match guest.map(|guest| guest.definition) {
            Some(Definition::Gone) => "none",
            Some(Definition::Renamed) if !is_known => "none of that name",
            _ if spec.kind.name() == KindName::Domain && !is_known && self.is_away() => "no libvirt",
            _ => return Ok(Vec::new()),
        };
        let (required, remedy) = ("a domain".to_owned(), "define it".to_owned());
        Ok(vec![Obstacle { required, found: found.to_owned(), remedy }])
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        let answer = self.pass(&spec.name, "define").await?;
        let kind = spec.kind.name();
        let mut guests = self.guests.lock();
        let guest = guests.entry(spec.name.clone()).or_insert_with(|| Guest::new(kind));
        self.is_there(&spec.name, guest)?;
        if guest.forgotten && guest.definition == Definition::Renamed {
            let (what, why) = ("find it".to_owned(), "there is no domain of that name".to_owned());
            return Err(HypervisorError::Domain { partition: spec.name.clone(), what, why });
        }
        guest.forgotten = false;
        answer.give(())
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.pass(partition, "undefine").await?;
        let mut guests = self.guests.lock();
        let mut guest = guests.remove(partition).unwrap_or_default();
        let is_machine = guest.kind == KindName::Machine;
        let is_empty = guest.vfs.is_empty() && guest.standbys.is_empty();
        if guest.running && is_machine || guest.channel || !is_empty {
            self.violation(format!("{partition} is forgotten, and is {guest:?}"));
        }
        if !is_machine {
            guest.forgotten = true;
            guests.insert(partition.clone(), guest);
        }
        self.lock().missing.retain(|owner| owner.partition != *partition);
        Ok(())
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        let answer = self.pass(partition, "start").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, partition)?;
        self.is_there(partition, guest)?;
        if guest.running {
            return Ok(Accelerator::Kvm);
        }
        if guest.kind == KindName::Namespace {
            self.violation(format!("{partition} is started, and is a namespace"));
        }
        if let Err((function, errno)) = self.open_all(guest) {
            let last_words = format!("vfio {function}: {errno}");
            self.turn_off(partition, guest);
            let (partition, status) = (partition.clone(), "exit status 1".to_owned());
            return Err(HypervisorError::EndedAtOnce { partition, status, last_words });
        }
        guest.running = true;
        guest.starts += 1;
        self.has_started(partition, guest);
        answer.give(Accelerator::Kvm)
    }

    async fn stop(&self, partition: &Name, mode: StopMode) -> Result<(), HypervisorError> {
        let answer = self.pass(partition, "stop").await?;
        self.half_way(partition, |_, guest| guest.leaving = mode == StopMode::Graceful);
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, partition)?;
        if guest.kind == KindName::Namespace {
            self.violation(format!("{partition} is stopped, and is a namespace"));
        }
        if guest.running {
            self.turn_off(partition, guest);
            self.has_ended(partition, guest);
        }
        answer.give(())
    }

    async fn reset(&self, partition: &Name) -> Result<(), HypervisorError> {
        let answer = self.pass(partition, "reset").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, partition)?;
        if guest.halted.is_none() {
            self.violation(format!("{partition} is reset, and has not halted"));
        }
        guest.halted = None;
        answer.give(())
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        let answer = self.pass(&owner.partition, "attach_vf").await?;
        self.half_way(&owner.partition, |_, guest| {
            let half = Held { half: guest.running, ..Held::new(function, false) };
            guest.vfs.entry(owner.vf.clone()).or_insert(half);
        });
        let mut guests = self.guests.lock();
        let others = guests.iter().flat_map(|(name, guest)| {
            guest.vfs.iter().map(move |(vf, held)| (Owner { partition: name.clone(), vf: vf.clone() }, held))
        });
        let holder = others.filter(|(other, held)| other != owner && held.function == function);
        // An address that a machine remembers of an adapter that was taken out is nobody's.
        let holder = holder.filter(|(other, held)| held.open || !guests[&other.partition].running);
        if let Some((other, _)) = holder.map(|(other, held)| (other, *held)).next() {
            self.violation(format!("{function} is given to {owner}, and {other} has it"));
        }
        let guest = guest(&mut guests, &owner.partition)?;
        self.is_there(&owner.partition, guest)?;
        if let Some(present) = guest.vfs.get_mut(&owner.vf)
            && !(present.half && present.function == function)
            && !(guest.kind == KindName::Namespace && guest.running && !present.open)
        {
            if present.function == function && (present.open || !guest.running) {
                present.edited_out = false;
                return answer.give(());
            }
            self.violation(format!("{function} is given to {owner}, which has {}", present.function));
            return Ok(());
        }
        // A real one looks at the IOMMU group without opening the VF; the rule is the same.
        if let Err(errno) = self.open(guest.kind, function) {
            let (partition, why) = (owner.partition.clone(), errno.to_string());
            return Err(HypervisorError::NotAttachable { function, partition, why });
        }
        if !guest.running {
            let _ = self.machine.release(function);
        }
        guest.vfs.insert(owner.vf.clone(), Held::new(function, guest.running));
        self.has_again(owner);
        answer.give(())
    }

    async fn detach_vf(&self, owner: &Owner, _force: bool) -> Result<(), HypervisorError> {
        let answer = self.pass(&owner.partition, "detach_vf").await?;
        self.half_way(&owner.partition, |_, guest| {
            if let Some(held) = guest.vfs.get_mut(&owner.vf) {
                held.leaving = held.open;
            }
        });
        self.half_way(&owner.partition, |machine, guest| {
            if let Some(held) = guest.vfs.get_mut(&owner.vf).filter(|held| held.open) {
                let _ = machine.release(held.function);
                (held.open, held.half) = (false, true);
            }
        });
        if let Some(mut held) = guest(&mut self.guests.lock(), &owner.partition)?.vfs.remove(&owner.vf) {
            self.close(&mut held);
        }
        self.has_again(owner);
        answer.give(())
    }

    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        let answer = self.pass(&owner.partition, "attach_standby").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, &owner.partition)?;
        let other = guest.standbys.get(&owner.vf).is_some_and(|held| held != nic);
        if other || guest.kind != KindName::Machine {
            self.violation(format!("{owner} gets the standby {nic}, and is {guest:?}"));
        }
        let is_in = guest.running && guest.vfs.get(&owner.vf).is_some_and(|held| held.open);
        if is_in && !guest.standbys.contains_key(&owner.vf) {
            self.violation(format!("{owner} is there before its standby"));
        }
        guest.standbys.insert(owner.vf.clone(), nic.clone());
        answer.give(())
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        let answer = self.pass(&owner.partition, "detach_standby").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, &owner.partition)?;
        if guest.running && guest.vfs.contains_key(&owner.vf) && guest.standbys.contains_key(&owner.vf) {
            self.violation(format!("{owner} loses its standby, and is {guest:?}"));
        }
        guest.standbys.remove(&owner.vf);
        answer.give(())
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        let answer = self.pass(partition, "create_channel").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, partition)?;
        self.is_there(partition, guest)?;
        guest.channel = true;
        answer.give(())
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        let answer = self.pass(partition, "destroy_channel").await?;
        let mut guests = self.guests.lock();
        let guest = guest(&mut guests, partition)?;
        guest.channel = false;
        self.cut_off(partition);
        if !guest.vfs.is_empty() {
            self.violation(format!("{partition} loses its channel while it has VFs"));
        }
        answer.give(())
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        let guests = self.guests.lock();
        if !guests.get(partition).is_some_and(|guest| guest.running && guest.channel) {
            return Err(HypervisorError::NotRunning(partition.clone()));
        }
        let io_error =
            |source| HypervisorError::Io { what: "connect".into(), path: "channel".into(), source };
        let (imp, guest) = UnixStream::pair().map_err(io_error)?;
        let socket = guest.try_clone().map_err(io_error)?;
        self.lock().channels.insert(partition.clone(), Connected { end: Some(guest), socket });
        self.channels_changed.notify_waiters();
        Ok(ChannelEnd::Stream(imp.into()))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        // Of a domain libvirt says nothing while it is away; whether it runs is seen.
        let away = self.lock().away.clone().unwrap_or_default();
        let of_one = |(name, guest): (&Name, &Guest), known: &Guest| PartitionStatus {
            name: name.clone(),
            kind: guest.kind,
            running: guest.running,
            halted: guest.halted,
            accelerator: guest.running.then_some(Accelerator::Kvm),
            pid: guest.running.then_some(1),
            console: Some("/dev/null".into()),
            // An interface that went with its VF is missing in its namespace, and is given again.
            lacks: known
                .vfs
                .iter()
                .filter(|(_, held)| {
                    guest.kind == KindName::Namespace && guest.running && !held.open && !held.half
                })
                .map(|(vf, _)| vf.clone())
                .collect(),
            standbys: known.standbys.keys().cloned().collect(),
            gone: false,
            vfs: known
                .vfs
                .iter()
                .filter(|(_, held)| !held.taken_out)
                .map(|(vf, held)| (vf.clone(), held.function))
                .collect(),
            channel: known.channel,
        };
        let waits = {
            let mut inner = self.lock();
            inner.looks += 1;
            let look = inner.looks;
            inner.slow_look.take_if(|(number, _)| *number == look)
        };
        let guests = self.guests();
        let answer = guests.iter().map(|one| of_one(one, away.get(one.0).unwrap_or(one.1))).collect();
        if let Some((_, let_go)) = waits {
            let_go.notified().await;
        }
        Ok(answer)
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(16);
        self.lock().events = Some(sender);
        receiver
    }
}
