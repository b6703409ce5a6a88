//! Which MAC addresses are taken, and one that is free for a VF whose request names none.

use std::collections::BTreeMap;

use ioward_model::{Inventory, MacAddress, Owner, PhysicalFunction, Reason, Rule, State, VfRequest};

use crate::goal::Goal;

/// Who uses which MAC address once the plan is carried out, as far as is known.
pub(crate) struct Macs {
    users: BTreeMap<MacAddress, String>,
}

impl Macs {
    /// What the host's own interfaces use, what other partitions have or ask for, and what the goal asks for by value.
    pub fn new(inventory: &Inventory, state: &State, goal: &Goal) -> Self {
        let mut macs = Self { users: BTreeMap::new() };
        for pf in &inventory.physical_functions {
            for netdev in &pf.netdevs {
                for mac in netdev.mac.into_iter().chain(netdev.permanent_mac) {
                    macs.take(mac, &format_args!("{} of {}", netdev.name, pf.address));
                }
            }
        }
        for (name, partition) in state.partitions.iter().filter(|(name, _)| !goal.concerns(name)) {
            let asked = partition.spec.vfs.iter().map(|vf| (&vf.name, vf.mac));
            let set = partition.vfs.iter().map(|(vf, assignment)| (vf, assignment.settings.mac));
            for (vf, mac) in asked.chain(set) {
                if let Some(mac) = mac {
                    macs.take(mac, &Owner { partition: name.clone(), vf: vf.clone() });
                }
            }
        }
        // What guests have set stays with their VFs, unless those are given back.
        let stays = |owner: &Owner| {
            let wanted = goal.partitions.iter().find(|partition| partition.spec.name == owner.partition);
            wanted
                .map_or(!goal.concerns(&owner.partition), |partition| partition.spec.vf(&owner.vf).is_some())
        };
        for (owner, assignment) in state.assignments().filter(|(owner, _)| stays(owner)) {
            if let Some(mac) = assignment.guest_settings.mac {
                macs.take(mac, &owner);
            }
        }
        for partition in &goal.partitions {
            for vf in &partition.spec.vfs {
                if let Some(mac) = vf.mac {
                    macs.take(mac, &partition.owner(&vf.name));
                }
            }
        }
        macs
    }

    /// Notes a user. The first one stays.
    pub fn take(&mut self, mac: MacAddress, user: &dyn std::fmt::Display) {
        self.users.entry(mac).or_insert_with(|| user.to_string());
    }

    /// Whether the address that a request names has another user.
    pub fn conflict(&self, owner: &Owner, request: &VfRequest) -> Option<Reason> {
        let mac = request.mac?;
        let user = self.users.get(&mac).filter(|user| **user != owner.to_string())?;
        let reason =
            Reason::new(Rule::MacUnique, format!("{mac} for this VF alone"), format!("{user} has it"));
        Some(reason.remedy("choose another address, or leave mac out to have one made"))
    }

    /// An address for a VF whose request names none: the same whenever the names and the adapter are the same and
    /// nobody else has it. Locally administered, below 52:54:00 as virtual machines commonly have it.
    pub fn derive(&mut self, owner: &Owner, pf: &PhysicalFunction) -> MacAddress {
        let adapter = pf.serial_number.clone().unwrap_or_else(|| pf.address.to_string());
        let mut attempt = 0_u32;
        loop {
            let hash = fnv1a(format!("{owner} {adapter} {attempt}").as_bytes());
            let [.., a, b, c] = (hash ^ hash >> 24 ^ hash >> 48).to_be_bytes();
            let mac = MacAddress::new([0x52, 0x54, 0x00, a, b, c]);
            // With 2^24 of them there is always a free one: a host has far fewer VFs.
            if !self.users.contains_key(&mac) {
                self.take(mac, owner);
                return mac;
            }
            attempt += 1;
        }
    }
}

/// FNV-1a, 64 bits: a hash that is the same on every machine and in every release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
