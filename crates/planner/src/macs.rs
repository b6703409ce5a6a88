//! Which MAC addresses are taken, and one that is free for a VF whose request names none.

use std::collections::BTreeMap;

use ioward_model::{
    Inventory, MacAddress, Owner, Permission, PhysicalFunction, Reason, Rule, State, VfRequest, Vlan,
};

use crate::goal::Goal;

/// Who uses which MAC address once the plan is carried out, as far as is known.
pub(crate) struct Macs {
    users: BTreeMap<MacAddress, Vec<User>>,
}

struct User {
    name: String,
    /// The VLAN that the port keeps it to; `None`: it may send in any.
    vlan: Option<Vlan>,
}

impl Macs {
    /// What the host's own interfaces use, what other partitions have or ask for, and what the goal asks for by value.
    pub fn new(inventory: &Inventory, state: &State, goal: &Goal) -> Self {
        let mut macs = Self { users: BTreeMap::new() };
        for pf in &inventory.physical_functions {
            for netdev in &pf.netdevs {
                for mac in netdev.mac.into_iter().chain(netdev.permanent_mac) {
                    macs.take_in(mac, None, &format_args!("{} of {}", netdev.name, pf.address));
                }
            }
        }
        for (name, partition) in state.partitions.iter().filter(|(name, _)| !goal.concerns(name)) {
            let asked = partition.spec.vfs.iter().map(|vf| (&vf.name, vf.mac));
            let set = partition.vfs.iter().map(|(vf, assignment)| (vf, assignment.settings.mac));
            for (vf, mac) in asked.chain(set) {
                let vlan = partition.spec.vf(vf).and_then(confined_to);
                if let Some(mac) = mac {
                    macs.take_in(mac, vlan, &Owner { partition: name.clone(), vf: vf.clone() });
                }
            }
        }
        // What guests have set stays with their VFs, unless those are given back.
        let stays = |owner: &Owner| !goal.concerns(&owner.partition) || goal.request(owner).is_some();
        for (owner, assignment) in state.assignments() {
            if let Some(mac) = assignment.guest_settings.mac.filter(|_| stays(&owner)) {
                macs.take(mac, &owner);
            }
        }
        for need in goal.needs() {
            if let Some(mac) = need.request.mac {
                macs.take_in(mac, confined_to(need.request), &need.owner());
            }
        }
        macs
    }

    /// Notes a user that may send in any VLAN.
    pub fn take(&mut self, mac: MacAddress, user: &dyn std::fmt::Display) {
        self.take_in(mac, None, user);
    }

    fn take_in(&mut self, mac: MacAddress, vlan: Option<Vlan>, user: &dyn std::fmt::Display) {
        self.users.entry(mac).or_default().push(User { name: user.to_string(), vlan });
    }

    /// Whether the address that a request names has another user in the same broadcast domain.
    pub fn conflict(&self, owner: &Owner, request: &VfRequest) -> Option<Reason> {
        let mac = request.mac?;
        let vlan = confined_to(request);
        let own = owner.to_string();
        let meets = |user: &&User| user.vlan.is_none() || vlan.is_none() || user.vlan == vlan;
        let user = self.users.get(&mac)?.iter().filter(|user| user.name != own).find(meets)?;
        let found = format!("{} has it", user.name);
        let reason = Reason::new(Rule::MacUnique, format!("{mac} for this VF alone"), found).key("mac");
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

/// The VLAN that a port tags all of a VF's frames with, so that they go nowhere else. One that the guest may change, and
/// a VF without one, which tags its frames as it likes, are kept to none.
fn confined_to(request: &VfRequest) -> Option<Vlan> {
    request.vlan.filter(|vlan| *vlan != Vlan::NONE && !request.guest_may.grants(Permission::Vlan))
}

/// FNV-1a, 64 bits: a hash that is the same on every machine and in every release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
