//! The machine of a story: adapters chosen by the seed, and their original state.

use std::collections::{BTreeMap, BTreeSet};

use ioward_fabric::sim::{Adapter, MachineView, SimMachine, SimMachineBuilder, VfView};
use ioward_model::{Class, HostUse, MacAddress, VfId, VfSettings};
use ioward_pci::Bdf;

use crate::{actions::OWN_MAC, random::Random};

const VFIO: &str = "vfio-pci";

/// A machine, and the facts known about it independently of the management partition.
#[derive(Clone)]
pub struct Host {
    pub machine: SimMachine,
    /// All PFs in the order of their addresses, present or not.
    pub pfs: Vec<PfFacts>,
    /// Its original state.
    pub found: MachineView,
    /// VFs that a domain has which is no partition.
    pub foreign: Vec<VfId>,
}

/// The constants of a PF.
#[derive(Clone, Debug)]
pub struct PfFacts {
    pub address: Bdf,
    pub class: Class,
    /// Its maximum number of VFs.
    pub total: u16,
    /// Its VFs share an IOMMU group.
    pub shared: bool,
    /// The settings of a VF that has just been made.
    pub fresh: VfSettings,
    /// The driver that the host has for its VFs.
    pub driver: Option<String>,
}

/// One possible adapter of a machine.
#[derive(Clone, Debug)]
pub struct Choice {
    pub adapter: Adapter,
    pub classes: Vec<(Class, u16)>,
    pub shared: bool,
}

impl Choice {
    pub fn gigabit() -> Self {
        Self {
            adapter: Adapter::gigabit().reports_health(),
            classes: vec![(Class::Network, 7)],
            shared: false,
        }
    }

    pub fn nvme() -> Self {
        Self { adapter: Adapter::nvme(), classes: vec![(Class::Nvme, 16)], shared: false }
    }

    pub fn dual_25g() -> Self {
        Self {
            adapter: Adapter::dual_25g().reports_health(),
            classes: vec![(Class::Network, 64); 2],
            shared: false,
        }
    }

    fn hundred_g() -> Self {
        Self {
            adapter: Adapter::hundred_g().reports_health(),
            classes: vec![(Class::Network, 127)],
            shared: false,
        }
    }

    fn gpu() -> Self {
        Self { adapter: Adapter::gpu(), classes: vec![(Class::Display, 16)], shared: false }
    }

    /// Adds random peculiarities.
    fn with_ways(mut self, random: &mut Random) -> Self {
        let adapter = self.adapter;
        self.adapter = match random.below(20) {
            0 | 1 => {
                self.shared = true;
                adapter.without_acs()
            }
            2 => adapter.vector_pool(40),
            3 => adapter.makes_at_most(3),
            4 => adapter.impatient(),
            5 => adapter.down(),
            6 => adapter.without_driver(),
            7 => adapter.in_use_by_host(
                0,
                HostUse::Address { netdev: "enp1s0".into(), address: "192.0.2.7/24".into() },
            ),
            _ => adapter,
        };
        self
    }
}

impl Host {
    /// A machine with one to three adapters. Some have VFs already, made by hand.
    pub fn of_seed(seed: u64, random: &mut Random) -> Self {
        let mut adapters = Vec::new();
        for _ in 0..=random.below(3) {
            let choice = match random.below(16) {
                0..=6 => Choice::gigabit(),
                7..=11 => Choice::nvme(),
                12 | 13 => Choice::dual_25g(),
                14 => Choice::hundred_g(),
                _ => Choice::gpu(),
            };
            adapters.push(choice.with_ways(random));
        }
        let mut builder = SimMachine::builder(seed);
        if random.percent(10) {
            builder = builder.without_ari();
        }
        if random.percent(2) {
            builder = builder.without_iommu();
        }
        let mut host = Self::new(builder, &adapters);
        for pf in &host.pfs {
            if random.percent(15) {
                // An adapter that refuses is fine too.
                let _ = host.machine.write_numvfs(pf.address, 1 + random.below(4));
            }
        }
        host.give_one_to_somebody_else(random);
        host.found = host.machine.snapshot();
        host
    }

    /// A domain that is no partition has a VF that was made by hand, and its guest has chosen a MAC.
    fn give_one_to_somebody_else(&mut self, random: &mut Random) {
        let view = self.machine.snapshot();
        let all = view.physical_functions.iter();
        let all =
            all.filter_map(|(pf, state)| Some((*pf, (0..state.num_vfs).next_back()?, state.vfs.last()?)));
        for (pf, index, vf) in all {
            let machine = &self.machine;
            if let Some(driver) = &vf.driver {
                let _ = machine.write_unbind(vf.address, driver);
            }
            let _ = machine.write_driver_override(vf.address, Some(VFIO));
            let _ = machine.write_bind(vf.address, VFIO);
            if machine.hold(vf.address).is_ok() {
                let [a, b, c, ..] = random.next().to_be_bytes();
                let _ = machine.guest_sets_mac(vf.address, MacAddress::new([OWN_MAC, 1, 0, a, b, c]));
                self.foreign.push(VfId { pf, index });
                continue;
            }
            // Without an IOMMU group of its own nobody can have it: it stays as it was.
            let _ = machine.write_unbind(vf.address, VFIO);
            let _ = machine.write_driver_override(vf.address, None);
            if let Some(driver) = &vf.driver {
                let _ = machine.write_bind(vf.address, driver);
            }
        }
    }

    /// The VFs that somebody else has, as they are now.
    pub fn foreign(&self, view: &MachineView) -> BTreeMap<VfId, VfView> {
        let of = |vf: &VfId| {
            let pf = view.physical_functions.get(&vf.pf)?;
            // Numbers of groups are given anew.
            Some((*vf, VfView { group: None, ..pf.vfs.get(usize::from(vf.index))?.clone() }))
        };
        self.foreign.iter().filter_map(of).collect()
    }

    /// An adapter is taken out, and with it what somebody else had of it.
    pub fn is_taken_out(&mut self, pf: Bdf) {
        let ports: Vec<_> = self.ports(pf).collect();
        self.foreign.retain(|vf| !ports.contains(&vf.pf));
    }

    pub fn new(builder: SimMachineBuilder, adapters: &[Choice]) -> Self {
        let builder =
            adapters.iter().fold(builder, |builder, choice| builder.adapter(choice.adapter.clone()));
        let (machine, twin) = (builder.clone().build(), builder.build());
        let classes =
            adapters.iter().flat_map(|choice| choice.classes.iter().map(|class| (*class, choice.shared)));
        let facts = |(address, ((class, total), shared)): (Bdf, ((Class, u16), bool))| {
            let _ = twin.write_numvfs(address, 1);
            let first = twin.snapshot().physical_functions[&address].vfs.first().cloned();
            let (fresh, driver) = first.map(|vf| (vf.settings, vf.driver)).unwrap_or_default();
            PfFacts { address, class, total, shared, fresh, driver }
        };
        let pfs = machine.physical_functions().into_iter().zip(classes).map(facts).collect();
        let found = machine.snapshot();
        Self { machine, pfs, found, foreign: Vec::new() }
    }

    pub fn pf(&self, address: Bdf) -> Option<&PfFacts> {
        self.pfs.iter().find(|pf| pf.address == address)
    }

    /// One PF of each adapter.
    pub fn adapters(&self) -> Vec<Bdf> {
        let mut buses = BTreeSet::new();
        self.pfs.iter().map(|pf| pf.address).filter(|pf| buses.insert((pf.domain(), pf.bus()))).collect()
    }

    /// The PFs of this PF's adapter.
    pub fn ports(&self, pf: Bdf) -> impl Iterator<Item = Bdf> {
        let same = move |other: &Bdf| (other.domain(), other.bus()) == (pf.domain(), pf.bus());
        self.pfs.iter().map(|pf| pf.address).filter(same).collect::<Vec<_>>().into_iter()
    }

    /// All existing VFs, by address.
    pub fn vf_views(view: &MachineView) -> BTreeMap<Bdf, &ioward_fabric::sim::VfView> {
        view.physical_functions.values().flat_map(|pf| &pf.vfs).map(|vf| (vf.address, vf)).collect()
    }
}
