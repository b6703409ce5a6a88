//! Builds a machine.

use std::time::Duration;

use ioward_pci::Bdf;

use super::{
    adapter::Adapter,
    device::{Device, Makeup},
    faults::Faults,
    groups::Groups,
    kernel::{Host, Slot},
    machine::SimMachine,
    random::Random,
    state::Machine,
};

/// Distance between the memory of two adapters: 16 ports of 64 GiB.
const WINDOW: u64 = 1 << 40;

/// A machine under construction.
#[derive(Clone, Debug)]
pub struct SimMachineBuilder {
    seed: u64,
    adapters: Vec<Adapter>,
    iommu: bool,
    ari: bool,
    faults_per_million: u32,
    pace: f64,
}

impl SimMachineBuilder {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, adapters: Vec::new(), iommu: true, ari: true, faults_per_million: 0, pace: 0.0 }
    }

    /// With one more adapter, in a slot of its own.
    #[must_use]
    pub fn adapter(mut self, adapter: Adapter) -> Self {
        self.adapters.push(adapter);
        self
    }

    /// Without an IOMMU: no function has a group, and vfio-pci takes none.
    #[must_use]
    pub fn without_iommu(mut self) -> Self {
        self.iommu = false;
        self
    }

    /// With slots that do not forward ARI: VFs are on other buses than their PFs.
    #[must_use]
    pub fn without_ari(mut self) -> Self {
        self.ari = false;
        self
    }

    /// With this rate of failures, per million changes, chosen by the seed.
    #[must_use]
    pub fn faults(mut self, per_million: u32) -> Self {
        self.faults_per_million = per_million;
        self
    }

    /// Makes every operation of the fabric take `scale` times its model time in real time, so that a person sees
    /// progress. Otherwise nothing sleeps.
    #[must_use]
    pub fn realtime(mut self, scale: f64) -> Self {
        self.pace = scale.clamp(0.0, 10.0);
        self
    }

    /// The machine, booted.
    #[must_use]
    pub fn build(self) -> SimMachine {
        let host = Host {
            now: 0,
            random: Random::new(self.seed, 1),
            ari: self.ari,
            groups: self.iommu.then(Groups::default),
            next_ifindex: 1,
            next_nvme: 0,
        };
        let faults = Faults::new(self.seed, self.faults_per_million);
        let mut machine = Machine {
            host,
            faults,
            slots: Vec::new(),
            unplugged: Vec::new(),
            next_bus: (0, 1),
            plugged: 0,
            followers: Vec::new(),
        };
        for adapter in self.adapters {
            machine.plug_in_new(adapter, None);
        }
        SimMachine::new(machine, self.pace)
    }
}

impl Machine {
    /// Puts a new adapter into a slot, as [`Machine::plug_in`] does.
    pub(super) fn plug_in_new(&mut self, adapter: Adapter, at: Option<(Bdf, u8)>) -> Bdf {
        let own = |machine: &mut Self| serial(&mut machine.host.random, machine.plugged);
        let serial = adapter.serial.unwrap_or_else(|| own(self));
        self.plug_in(adapter, serial, at)
    }

    /// Puts an adapter into a slot: the next free one, or the one that begins at this address.
    pub(super) fn plug_in(&mut self, adapter: Adapter, serial: u64, at: Option<(Bdf, u8)>) -> Bdf {
        let (address, last_bus) = at.unwrap_or_else(|| self.next_slot(&adapter));
        let makeup =
            Makeup { acs: adapter.acs, dependent: adapter.dependent, tells_serial: adapter.tells_serial };
        let device = Device::new(adapter.family.clone(), address, last_bus, serial, makeup);
        self.plugged += 1;
        let slot = Slot::found(adapter, device, &mut self.host, self.plugged * WINDOW);
        self.slots.push(slot);
        self.slots.sort_by_key(|slot| slot.device.address);
        address
    }

    /// Bus numbers for an adapter: as many as the farthest of its VFs needs.
    fn next_slot(&mut self, adapter: &Adapter) -> (Bdf, u8) {
        let family = &adapter.family;
        let farthest = |num_vfs: u16| {
            let (offset, stride) = family.routing.of(num_vfs, self.host.ari);
            u32::from(offset) + u32::from(stride) * u32::from(num_vfs - 1) + u32::from(family.ports - 1)
        };
        let farthest = (1..=family.total_vfs).map(farthest).max().unwrap_or(0);
        let needed = u8::try_from(farthest / 256 + 1).unwrap_or(u8::MAX);
        let buses = adapter.buses.unwrap_or(needed);
        let (mut domain, mut bus) = self.next_bus;
        if bus.checked_add(buses).is_none() {
            (domain, bus) = (domain + 1, 1);
        }
        self.next_bus = (domain, bus.saturating_add(buses));
        (Bdf::from_routing_id(domain, u16::from_be_bytes([bus, 0])), bus.saturating_add(buses - 1))
    }
}

/// A Device Serial Number unique in the machine: an EUI-64 with a random part and the slot in its low bytes. The
/// last byte leaves room for the MACs of eight ports.
fn serial(random: &mut Random, slot: u64) -> u64 {
    0x001b_21ff_ff00_0000 | random.below(1 << 8) << 16 | (slot & 0x1f_ff) << 3
}

impl SimMachine {
    /// A machine to put adapters into.
    #[must_use]
    pub fn builder(seed: u64) -> SimMachineBuilder {
        SimMachineBuilder::new(seed)
    }

    /// A machine with one adapter of each family: six PFs with 7, 64, 64, 127, 16 and 16 VFs.
    #[must_use]
    pub fn standard(seed: u64) -> SimMachine {
        Self::standard_builder(seed).build()
    }

    /// The same machine, for changes before it is built.
    #[must_use]
    pub fn standard_builder(seed: u64) -> SimMachineBuilder {
        Self::builder(seed)
            .adapter(Adapter::gigabit().numa_node(0))
            .adapter(Adapter::dual_25g().numa_node(0))
            .adapter(Adapter::hundred_g().numa_node(1))
            .adapter(Adapter::nvme().numa_node(1))
            .adapter(Adapter::gpu().numa_node(1))
    }

    /// Model time since the machine was started.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.lock().host.now)
    }
}
