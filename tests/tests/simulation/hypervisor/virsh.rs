//! What people do with the domain, what becomes of libvirt meanwhile, and what is told of that.

use std::collections::BTreeMap;

use ioward_hypervisor::HypervisorEvent;
use ioward_model::{KindName, Name, Owner};

use super::{Definition, Guest, ModelHypervisor};
use crate::actions::{DOMAIN, Deed, name};

impl ModelHypervisor {
    /// Others do something with a domain, or with libvirt. Whether there was something to do.
    pub fn others_do(&self, deed: &Deed) -> bool {
        let domain = name(DOMAIN);
        let mut guests = self.guests.lock();
        match deed {
            Deed::LibvirtGoes | Deed::LibvirtHangs => {
                self.lock().hangs = matches!(deed, Deed::LibvirtHangs);
                let domains = guests.iter().filter(|(_, guest)| guest.kind == KindName::Domain);
                let as_it_goes = domains.map(|(name, guest)| (name.clone(), guest.clone())).collect();
                self.lock().away.get_or_insert(as_it_goes);
                return true;
            }
            Deed::LibvirtComes => {
                let Some(before) = self.lock().away.take() else { return false };
                self.lock().hangs = false;
                for (name, before) in before {
                    self.tell_what_is_new(&name, &before, guests.get(&name));
                }
                return true;
            }
            _ => {}
        }
        let Some(guest) = guests.get_mut(&domain) else { return false };
        match deed {
            Deed::Undefine if guest.running => guest.definition = Definition::Transient,
            Deed::Undefine if guest.definition != Definition::Gone => self.is_gone(&domain, guest),
            // From what somebody has kept of it.
            Deed::Define if matches!(guest.definition, Definition::Gone | Definition::Transient) => {
                guest.definition = Definition::There;
            }
            // libvirt renames none that runs.
            Deed::Rename if !guest.running => {
                guest.definition = match guest.definition {
                    Definition::There => Definition::Renamed,
                    Definition::Renamed => Definition::There,
                    other => other,
                };
            }
            Deed::TakeOut(vf) if guest.running => {
                let Some(held) = guest.vfs.get_mut(vf).filter(|held| held.open) else { return false };
                self.close(held);
                (held.half, held.taken_out) = (true, true);
                self.loses(&domain, guest.kind, vf, "virsh detach-device");
            }
            Deed::EditOut(vf) if guest.running => {
                let Some(held) = guest.vfs.get_mut(vf) else { return false };
                held.edited_out = true;
            }
            Deed::EditOut(vf) => {
                if guest.definition == Definition::Gone || guest.vfs.remove(vf).is_none() {
                    return false;
                }
                self.loses(&domain, guest.kind, vf, "virsh edit");
            }
            _ => return false,
        }
        true
    }

    /// A libvirt that died or hung in the middle of a plan is there again, and tells how domains are: it may have done what it never answered.
    pub fn is_back(&self, before: &BTreeMap<Name, Guest>) {
        let (guests, unknown) = (self.guests.lock(), Guest::default());
        for (name, now) in guests.iter().filter(|(_, guest)| guest.kind == KindName::Domain) {
            self.tell_what_is_new(name, before.get(name).unwrap_or(&unknown), Some(now));
        }
    }

    pub(super) fn is_gone(&self, partition: &Name, guest: &mut Guest) {
        guest.definition = Definition::Gone;
        if !guest.forgotten {
            let (partition, why) = (partition.clone(), "it was undefined".to_owned());
            self.tell(guest.kind, HypervisorEvent::Gone { partition, why });
        }
    }

    pub(super) fn loses(&self, partition: &Name, kind: KindName, vf: &Name, why: &str) {
        let owner = Owner { partition: partition.clone(), vf: vf.clone() };
        self.lock().missing.insert(owner.clone());
        self.tell(kind, HypervisorEvent::Detached { owner, why: why.to_owned() });
    }

    /// What it lacked and is still in its definition it has again.
    pub(super) fn has_started(&self, partition: &Name, guest: &Guest) {
        let has = |owner: &Owner| owner.partition == *partition && guest.vfs.contains_key(&owner.vf);
        self.lock().missing.retain(|owner| !has(owner));
    }

    pub(super) fn has_again(&self, owner: &Owner) {
        let mut inner = self.lock();
        inner.missing.remove(owner);
    }

    /// What happened while libvirt was away is told when it is back.
    pub(super) fn tell_what_is_new(&self, partition: &Name, before: &Guest, now: Option<&Guest>) {
        let Some(now) = now.filter(|guest| !guest.forgotten) else { return };
        let is_same = before.starts == now.starts && before.running == now.running;
        let partition = partition.clone();
        if before.running && !is_same {
            let why = "it was turned off while nobody looked".to_owned();
            self.tell(now.kind, HypervisorEvent::Ended { partition: partition.clone(), why });
        }
        if now.running && !is_same {
            self.tell(now.kind, HypervisorEvent::Started { partition: partition.clone() });
        }
        for vf in before.vfs.keys().filter(|vf| now.vfs.get(*vf).is_none_or(|held| held.taken_out)) {
            let owner = Owner { partition: partition.clone(), vf: vf.clone() };
            self.tell(now.kind, HypervisorEvent::Detached { owner, why: "virsh edit".to_owned() });
        }
        if now.definition == Definition::Gone && before.definition != Definition::Gone {
            let why = "it was undefined".to_owned();
            self.tell(now.kind, HypervisorEvent::Gone { partition, why });
        }
    }
}
