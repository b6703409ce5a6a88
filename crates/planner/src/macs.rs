//! MAC addresses that are taken, and one that is free for a VF whose request names none.

use std::collections::{BTreeMap, BTreeSet};

use ioward_model::{
    Inventory, MacAddress, Name, Owner, Permission, PhysicalFunction, Reason, Rule, Setting, State,
    VfRequest, Vlan,
};

use crate::{goal::Goal, held::Survey};

/// The users of MAC addresses once the plan is carried out, as far as they are known.
///
/// A host has thousands of users and a plan is often about one: who they are is looked up only for an address that is
/// used at all.
pub(crate) struct Macs<'a> {
    inventory: &'a Inventory,
    state: &'a State,
    /// Addresses of the host, and those that guests of the concerned have set by themselves.
    others: BTreeSet<MacAddress>,
    /// Addresses of the partitions that the plan is about.
    own: BTreeMap<MacAddress, Vec<User>>,
    concerned: BTreeSet<Name>,
    /// VFs of the concerned that stay.
    staying: BTreeSet<Owner>,
}

struct User {
    who: Who,
    /// The VLAN that the port keeps it to; `None`: it may send in any.
    vlan: Option<u16>,
}

#[derive(Clone, PartialEq)]
enum Who {
    /// An interface of the host.
    Host(String),
    Partition(Owner),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Host(interface) => f.write_str(interface),
            Self::Partition(owner) => owner.fmt(f),
        }
    }
}

impl<'a> Macs<'a> {
    /// Addresses of the host's own interfaces, of other partitions, and those that the goal names.
    pub fn new(inventory: &'a Inventory, state: &'a State, goal: &Goal) -> Self {
        let mut macs = Self {
            inventory,
            state,
            others: BTreeSet::new(),
            own: BTreeMap::new(),
            concerned: goal.concerned().clone(),
            staying: goal.needs().map(|need| need.owner()).collect(),
        };
        for mac in macs.beside_the_held() {
            macs.others.insert(mac);
        }
        for need in goal.needs() {
            if let Some(mac) = need.request.mac {
                macs.add(mac, confined_to(need.request), need.owner());
            }
        }
        macs
    }

    /// Addresses in use, but for those of VFs about which nothing is decided.
    fn beside_the_held(&self) -> Vec<MacAddress> {
        let netdevs = self.inventory.physical_functions.iter().flat_map(|pf| &pf.netdevs);
        let host = netdevs.flat_map(|netdev| netdev.mac.into_iter().chain(netdev.permanent_mac));
        let noted = |owner: &Owner| self.state.partitions.get(&owner.partition)?.vfs.get(&owner.vf);
        let guests = self.staying.iter().filter_map(|owner| noted(owner)?.guest_settings.mac);
        host.chain(guests).collect()
    }

    /// Tells of each user that the plan is not about: its address, the VLAN it is kept to, and who it is.
    fn each_other(&self, mut tell: impl FnMut(MacAddress, Option<u16>, &dyn Fn() -> Who)) {
        for pf in &self.inventory.physical_functions {
            for netdev in &pf.netdevs {
                for mac in netdev.mac.into_iter().chain(netdev.permanent_mac) {
                    tell(mac, None, &|| Who::Host(format!("{} of {}", netdev.name, pf.address)));
                }
            }
        }
        for (name, partition) in &self.state.partitions {
            let owner = |vf: &Name| Owner { partition: name.clone(), vf: vf.clone() };
            let is_concerned = self.concerned.contains(name);
            for (vf, held) in &partition.vfs {
                // A MAC set by the guest stays with its VF, unless that is given back.
                if let Some(mac) = held.guest_settings.mac
                    && (!is_concerned || self.staying.contains(&owner(vf)))
                {
                    tell(mac, None, &|| Who::Partition(owner(vf)));
                }
            }
            if is_concerned {
                continue;
            }
            for request in &partition.spec.vfs {
                let set = partition.vfs.get(&request.name).and_then(|held| held.settings.mac);
                let asked = request.mac.filter(|asked| set != Some(*asked));
                for mac in set.into_iter().chain(asked) {
                    tell(mac, confined_to(request), &|| Who::Partition(owner(&request.name)));
                }
            }
        }
    }

    /// Notes a user that may send in any VLAN.
    pub fn take(&mut self, mac: MacAddress, user: &Owner) {
        self.add(mac, None, user.clone());
    }

    fn add(&mut self, mac: MacAddress, vlan: Option<u16>, owner: Owner) {
        self.own.entry(mac).or_default().push(User { who: Who::Partition(owner), vlan });
    }

    fn is_others(&self, mac: MacAddress, now: &Survey<'_>) -> bool {
        self.others.contains(&mac) || now.has_mac(mac)
    }

    /// Whether the address that a request names has another user in the same broadcast domain.
    pub fn conflict(&self, now: &Survey<'_>, owner: &Owner, request: &VfRequest) -> Option<Reason> {
        let mac = request.mac?;
        let vlan = confined_to(request);
        let who = Who::Partition(owner.clone());
        let meets = |other: Option<u16>| other.is_none() || vlan.is_none() || other == vlan;
        let own = self.own.get(&mac).into_iter().flatten();
        let mut found =
            own.filter(|user| user.who != who && meets(user.vlan)).map(|user| user.who.clone()).next();
        if found.is_none() && self.is_others(mac, now) {
            self.each_other(|other, vlan, other_is| {
                if other == mac && meets(vlan) && found.is_none() {
                    found = Some(other_is()).filter(|other| *other != who);
                }
            });
        }
        let reason =
            Reason::new(Rule::MacUnique, format!("{mac} for this VF alone"), format!("{} has it", found?));
        Some(reason.key("mac").remedy("choose another address, or leave mac out to have one made"))
    }

    /// An address for a VF whose request names none: the same whenever the names and the adapter are the same and
    /// nobody else has it. Locally administered, below 52:54:00 as virtual machines commonly have it.
    pub fn derive(&mut self, now: &Survey<'_>, owner: &Owner, pf: &PhysicalFunction) -> MacAddress {
        let adapter = pf.serial_number.clone().unwrap_or_else(|| pf.address.to_string());
        let mut attempt = 0_u32;
        loop {
            let hash = fnv1a(format!("{owner} {adapter} {attempt}").as_bytes());
            let [.., a, b, c] = (hash ^ hash >> 24 ^ hash >> 48).to_be_bytes();
            let mac = MacAddress::new([0x52, 0x54, 0x00, a, b, c]);
            // With 2^24 of them there is always a free one: a host has far fewer VFs.
            if !self.own.contains_key(&mac) && !self.is_others(mac, now) {
                self.take(mac, owner);
                return mac;
            }
            attempt += 1;
        }
    }
}

/// The VLAN that a port tags all of a VF's frames with, so that they go nowhere else. One that the guest may change, and
/// a VF without one, which tags its frames as it likes, are kept to none.
fn confined_to(request: &VfRequest) -> Option<u16> {
    let vlan = request.vlan.filter(|_| !request.guest_may.grants(Permission::Set(Setting::Vlan)));
    vlan.and_then(Vlan::domain)
}

/// FNV-1a, 64 bits: a hash that is the same on every machine and in every release.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
