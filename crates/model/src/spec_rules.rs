//! The mistakes in a Spec that are visible without a host: duplicates, contradictions, numbers out of bounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use ioward_pci::Bdf;

use crate::{
    Class, Failover, FailureDomain, Guarantee, LONGEST_INTERFACE, MacAddress, Machine, Name, Owner,
    PartitionKind, PartitionSpec, Permission, Setting, Spec, Standby, VfRequest, Vlan,
};

/// All problems by key, as `(partition[0].vf[1].mac, message)`, except that of the version.
pub(crate) fn problems(spec: &Spec) -> Vec<(String, String)> {
    let mut problems = Problems::default();
    problems.adapters(spec);
    problems.partitions(spec);
    problems.failovers(spec);
    problems.redundancy(spec);
    problems.shares(spec);
    problems.found
}

/// A place in a Spec. It is written out where there is a problem, and a Spec of thousands of partitions has none.
#[derive(Clone, Copy)]
enum At {
    Adapter(usize),
    Partition(usize),
    /// A VF of a partition.
    Vf(usize, usize),
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Adapter(n) => write!(f, "adapter[{n}]"),
            Self::Partition(n) => write!(f, "partition[{n}]"),
            Self::Vf(n, m) => write!(f, "partition[{n}].vf[{m}]"),
        }
    }
}

/// An [`Owner`], of names that are the Spec's: its partition and the VF's.
type Asking<'a> = (&'a Name, &'a Name);

fn asking(owner: &Owner) -> Asking<'_> {
    (&owner.partition, &owner.vf)
}

#[derive(Clone, Copy)]
struct Request<'a> {
    /// How many there were before it.
    number: usize,
    at: At,
    vf: &'a VfRequest,
}

#[derive(Default)]
struct Problems<'a> {
    found: Vec<(String, String)>,
    /// The users of each MAC address, and the VLAN that confines each, if any: a broadcast domain of its own.
    macs: BTreeMap<MacAddress, Vec<(Option<u16>, At)>>,
    /// Every VF request, by its owner.
    requests: BTreeMap<Asking<'a>, Request<'a>>,
}

impl<'a> Problems<'a> {
    fn add(&mut self, at: At, name: &str, message: impl Into<String>) {
        self.found.push((format!("{at}.{name}"), message.into()));
    }

    fn adapters(&mut self, spec: &Spec) {
        let mut adapters = BTreeMap::new();
        for (n, adapter) in spec.adapters.iter().enumerate() {
            let at = At::Adapter(n);
            if let Some(first) = adapters.insert(adapter.pf, at) {
                self.add(at, "pf", format!("{} is already named by {first}.pf", adapter.pf));
            }
            if adapter.vfs.is_some() && adapter.spare.is_some() {
                self.add(at, "spare", "spare goes with as many VFs as are assigned; leave vfs out");
            }
        }
    }

    fn partitions(&mut self, spec: &'a Spec) {
        let mut names = BTreeMap::new();
        let mut foreign = BTreeMap::new();
        for (n, partition) in spec.partitions.iter().enumerate() {
            let at = At::Partition(n);
            if let Some(first) = names.insert(&partition.name, at) {
                self.add(at, "name", format!("'{}' is already the name of {first}", partition.name));
            }
            let word = match &partition.kind {
                PartitionKind::Machine(_) => None,
                PartitionKind::Domain(_) => Some("libvirt"),
                PartitionKind::Namespace(_) => Some("netns"),
            };
            if let Some(word) = word {
                let what = partition.kind.to_string();
                if let Some(first) = foreign.get(&what) {
                    self.add(at, word, format!("{what} is already {first}"));
                } else {
                    foreign.insert(what, at);
                }
            }
            self.partition(n, partition);
        }
    }

    fn partition(&mut self, number: usize, partition: &'a PartitionSpec) {
        let at = At::Partition(number);
        if let Some(machine) = partition.machine() {
            self.machine(at, machine);
        }
        let drivers = partition.guest.iter().flat_map(|guest| &guest.drivers);
        if let Some(driver) = drivers.clone().find(|driver| !is_driver_name(driver)) {
            let driver: String = driver.chars().take(40).collect();
            self.add(at, "guest.drivers", format!("'{driver}' is no driver's name, as igbvf"));
        }
        let mut names = BTreeMap::new();
        for (n, vf) in partition.vfs.iter().enumerate() {
            let at = At::Vf(number, n);
            if let Some(first) = names.insert(&vf.name, at) {
                self.add(at, "name", format!("'{}' is already the name of {first}", vf.name));
            }
            if vf.numa.is_some() && partition.numa_node.is_none() {
                self.add(at, "numa", "the partition is on no NUMA node; give it numa_node = 0");
            }
            self.vf(at, vf);
            if matches!(partition.kind, PartitionKind::Namespace(_)) {
                self.interface(at, vf);
            }
            let number = self.requests.len();
            self.requests.entry((&partition.name, &vf.name)).or_insert(Request { number, at, vf });
        }
    }

    fn machine(&mut self, at: At, machine: &Machine) {
        if !(1..=288).contains(&machine.cpus) {
            self.add(at, "cpus", format!("{} virtual CPUs; use 1 to 288", machine.cpus));
        }
        let boot = &machine.boot;
        if boot.kernel.is_none() && boot.disk.is_none() {
            self.add(at, "boot", "nothing to boot from; give kernel = \"…\" or disk = \"…\"");
        }
        if boot.kernel.is_none() && (boot.initrd.is_some() || boot.cmdline.is_some()) {
            self.add(at, "boot", "initrd and cmdline go with a kernel; give kernel = \"…\"");
        }
    }

    fn vf(&mut self, at: At, vf: &VfRequest) {
        if vf.index.is_some() && vf.pf.is_none() {
            self.add(at, "index", "an index needs the pf it is of; add pf = \"0000:01:00.0\"");
        }
        if let Some(mac) = vf.mac {
            if !mac.is_unicast() {
                self.add(at, "mac", format!("{mac} is no address for one station (multicast or zero)"));
            }
            let vlan = vf.vlan.and_then(Vlan::domain);
            let users = self.macs.entry(mac).or_default();
            let meets = |other: &Option<u16>| other.is_none() || vlan.is_none() || *other == vlan;
            let first = users.iter().find(|(other, _)| meets(other)).map(|(_, first)| *first);
            users.push((vlan, at));
            if let Some(first) = first {
                self.add(at, "mac", format!("{mac} is already used by {first}.mac"));
            }
        }
        if let (Some(Guarantee::Rate(min)), Some(max)) = (vf.min_tx_rate, vf.max_tx_rate)
            && max.megabits() > 0
            && min > max
        {
            self.add(at, "min_tx_rate", format!("{min} is more than max_tx_rate, {max}"));
        }
        let class = vf.class;
        let guaranteed = vf.min_tx_rate.map(|_| "min_tx_rate");
        let settings = vf.settings();
        let named = settings.values().map(|(setting, _)| setting.as_str());
        let named: Vec<_> = named.filter(|name| Some(*name) != guaranteed).chain(guaranteed).collect();
        for name in named.into_iter().filter(|name| !class.has_setting(name)) {
            self.add(at, name, format!("a VF of class {class} has no such setting"));
        }
        self.needs(at, vf);
    }

    /// A VF of a namespace is an interface there, which has the VF's name.
    fn interface(&mut self, at: At, vf: &VfRequest) {
        let length = vf.name.as_str().len();
        if length > LONGEST_INTERFACE {
            self.add(
                at,
                "name",
                format!(
                    "'{}' has {length} characters, and the name of an interface {LONGEST_INTERFACE} at most",
                    vf.name
                ),
            );
        }
    }

    /// Requirements that no adapter of the class ever meets.
    fn needs(&mut self, at: At, vf: &VfRequest) {
        let class = vf.class;
        let network_only = [
            ("min_link_speed", vf.min_link_speed.is_some(), "has a link speed"),
            ("carrier", vf.carrier, "has a carrier"),
            ("needs", !vf.needs.is_empty(), "has such capabilities"),
        ];
        for (name, asked, has) in network_only {
            if asked && class != Class::Network {
                self.add(at, name, format!("only a VF of class network {has}"));
            }
        }
        if vf.min_namespaces.is_some() && class != Class::Nvme {
            self.add(at, "min_namespaces", "only a VF of class nvme has namespaces");
        }
        if let Some(subclass) = vf.subclass.filter(|subclass| !subclass.is_of(class)) {
            let of = subclass.class();
            self.add(at, "subclass", format!("{subclass} is a kind of class {of}, not of {class}"));
        }
    }

    /// A standby that is none, or of several.
    fn failovers(&mut self, spec: &Spec) {
        for (n, partition) in spec.partitions.iter().enumerate() {
            let mut used: BTreeMap<&Name, &Name> = BTreeMap::new();
            for (m, vf) in partition.vfs.iter().enumerate() {
                let Some(failover) = &vf.failover else { continue };
                if vf.class != Class::Network {
                    let wrong = "only a VF of class network can be failed over";
                    self.add(At::Vf(n, m), "failover.standby", wrong);
                    continue;
                }
                let standby = match &failover.standby {
                    Standby::Vf(standby) => standby,
                    Standby::Bridge(_) => {
                        self.bridge(At::Vf(n, m), partition, vf, failover);
                        continue;
                    }
                };
                let found = partition.vf(standby);
                let wrong = if *standby == vf.name {
                    Some("a VF cannot be its own standby".to_owned())
                } else if found.is_none() {
                    Some(format!("{} has no VF '{standby}'", partition.name))
                } else if found.is_some_and(|found| found.class != Class::Network) {
                    Some(format!("{standby} is not of class network"))
                } else if found.is_some_and(|found| found.failover.is_some()) {
                    Some(format!("{standby} has a standby of its own; a standby can't have one"))
                } else {
                    used.insert(standby, &vf.name)
                        .map(|first| format!("{standby} is the standby of {first} already"))
                };
                if let Some(wrong) = wrong {
                    self.add(At::Vf(n, m), "failover.standby", wrong);
                }
            }
        }
    }

    /// A standby on a bridge that can't be.
    fn bridge(&mut self, at: At, partition: &PartitionSpec, vf: &VfRequest, failover: &Failover) {
        let mut wrong = |name: &str, what: &str| self.add(at, name, what);
        if partition.machine().is_none() {
            let what = "only a machine of ioward's own has a standby on a bridge; name a VF";
            wrong("failover.standby", what);
        }
        if failover.by != FailureDomain::Adapter {
            wrong("failover.by", "nobody knows what a bridge hangs on; leave it out");
        }
        if vf.guest_may.grants(Permission::Set(Setting::Mac)) {
            wrong("guest_may", "a guest knows a standby on a bridge by its VF's MAC; leave mac out");
        }
    }

    /// A VF that must be apart from itself, from one that does not exist, or from one that must be apart from it in
    /// turn.
    fn redundancy(&mut self, spec: &Spec) {
        let partitions: BTreeSet<_> = spec.partitions.iter().map(|partition| &partition.name).collect();
        // Of each request by its number, those that it is to be apart from: of one that is not in this Spec, nothing more is said.
        let mut edges = vec![Vec::new(); self.requests.len()];
        let mut found = Vec::new();
        for (&(partition, name), &Request { number, at, vf }) in &self.requests {
            if vf.apart_from.is_empty() && vf.failover.is_none() {
                continue;
            }
            let owner = Owner { partition: partition.clone(), vf: name.clone() };
            let named = vf.apart_from.iter().map(|apart| ("apart_from", apart.clone()));
            // Where there is no such standby, that is said already.
            let standby = vf.failover.as_ref().and_then(Failover::apart).filter(|apart| {
                let standby = apart.vf.owner(partition);
                standby != owner && self.requests.contains_key(&asking(&standby))
            });
            for (key, apart) in named.chain(standby.map(|apart| ("failover", apart))) {
                let other = apart.vf.owner(partition);
                let here = partitions.contains(&other.partition);
                let there = self.requests.get(&asking(&other));
                let wrong = match there {
                    _ if other == owner => Some("a VF cannot be apart from itself".to_owned()),
                    None if here => Some(format!("there is no VF {other}")),
                    Some(Request { vf: with, .. })
                        if !apart.prefer
                            && apart.by == FailureDomain::Port
                            && vf.pf.is_some()
                            && vf.pf == with.pf =>
                    {
                        Some(format!("it is pinned to the same PF as {other}"))
                    }
                    _ => None,
                };
                match wrong {
                    Some(wrong) => found.push((at, key, wrong)),
                    None => edges[number].extend(there.map(|there| there.number)),
                }
            }
        }
        let in_order = self.requests.values().map(|request| request.number);
        if let Some(cycle) = cycle(in_order, &edges) {
            let requests = self.requests.iter().map(|(owner, request)| (request.number, (owner, request.at)));
            let requests: BTreeMap<usize, (&Asking<'_>, At)> = requests.collect();
            let path = cycle.iter().chain(&cycle[..1]).filter_map(|number| requests.get(number));
            let path: Vec<_> = path.map(|((partition, vf), _)| format!("{partition}/{vf}")).collect();
            let message = format!(
                "it comes back to itself: {}; say of each two once that they are apart",
                path.join(" → ")
            );
            found.extend(requests.get(&cycle[0]).map(|(_, at)| (*at, "apart_from", message)));
        }
        for (at, key, wrong) in found {
            self.add(at, key, wrong);
        }
    }

    /// Guarantees beyond a port's bandwidth, for VFs pinned to it.
    fn shares(&mut self, spec: &Spec) {
        let mut shares: BTreeMap<Bdf, u32> = BTreeMap::new();
        for (n, partition) in spec.partitions.iter().enumerate() {
            for (m, vf) in partition.vfs.iter().enumerate() {
                let (Some(pf), Some(Guarantee::Percent(percent))) = (vf.pf, vf.min_tx_rate) else { continue };
                let sum = shares.entry(pf).or_default();
                let before = *sum;
                *sum += u32::from(percent);
                if before <= 100 && *sum > 100 {
                    let at = At::Vf(n, m);
                    self.add(
                        at,
                        "min_tx_rate",
                        format!("{sum}% of {pf} would be guaranteed; a port has 100%"),
                    );
                }
            }
        }
    }
}

fn is_driver_name(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A cycle along the edges, if there is one, looked for from each node in this order; without recursion, since a Spec may be long.
fn cycle(nodes: impl Iterator<Item = usize>, edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut finished = vec![false; edges.len()];
    for start in nodes {
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((at, next)) = path.last_mut() {
            let successor = edges[*at].get(*next).copied();
            *next += 1;
            match successor {
                None => {
                    finished[*at] = true;
                    path.pop();
                }
                Some(successor) if finished[successor] => {}
                Some(successor) => {
                    if let Some(begin) = path.iter().position(|(node, _)| *node == successor) {
                        return Some(path[begin..].iter().map(|(node, _)| *node).collect());
                    }
                    path.push((successor, 0));
                }
            }
        }
    }
    None
}
