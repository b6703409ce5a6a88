//! Identify on the simulated machine: reads and parses configuration space as on a real one, and takes the rest
//! from the kernel's state.

use ioward_model::{
    Class, Conditions, HexId, Holder, Inventory, Netdev, NumaNode, NvmeController, NvmeState,
    PhysicalFunction, Reason, Rule, Service, Sriov, Subclass, VfBar, VirtualFunction, checks,
};
use ioward_pci::{ConfigError, ConfigSpace, DeviceSerialNumber, MsixCapability, PcieLink, SriovCapability};

use super::{
    binding::VFIO,
    device::{Function, Time},
    groups::Groups,
    kernel::{PfState, Slot},
    state::Machine,
};
use crate::{describe, linux::adapters};

impl Machine {
    /// Looks at the whole host.
    pub(super) fn identify(&self) -> Inventory {
        let ports = self.slots.iter().flat_map(|slot| (0..slot.pfs.len()).map(move |port| (slot, port)));
        let mut inventory = Inventory {
            generation: 0,
            iommu: self.host.groups.is_some(),
            vfio_pci: Some(true),
            numa_nodes: self.numa_nodes(),
            physical_functions: ports.map(|(slot, port)| self.physical(slot, port)).collect(),
        };
        inventory.name_adapters();
        checks::note_available(&mut inventory);
        inventory
    }

    /// The nodes of its adapters, and every one below: farther ones take twice as long.
    fn numa_nodes(&self) -> Vec<NumaNode> {
        let last = self.slots.iter().filter_map(|slot| slot.adapter.numa_node).max();
        let ids = 0..last.map_or(0, |last| last + 1);
        let distance = |from, to| (to, if from == to { 10 } else { 20 });
        let node = |id| NumaNode { id, distances: ids.clone().map(|to| distance(id, to)).collect() };
        ids.clone().map(node).collect()
    }

    fn physical(&self, slot: &Slot, port: usize) -> PhysicalFunction {
        let pf = &slot.pfs[port];
        let family = &slot.device.family;
        let mut reasons = Vec::new();
        let bytes = self.bytes(slot, Function { port, vf: None });
        let found = Found::read(bytes, slot, pf);
        let no_answer = matches!(found, Err(ConfigError::NoAnswer));
        let found = found.unwrap_or_else(|error| {
            reasons.push(unreadable(&error).on(pf.address));
            Found::default()
        });
        let virtual_functions: Vec<_> =
            (0..pf.vfs.len()).map(|index| self.virtual_(slot, port, index)).collect();
        let mut described = PhysicalFunction {
            address: pf.address,
            id: None,
            vendor_id: HexId(family.vendor),
            device_id: HexId(family.device),
            name: family.name.to_owned(),
            class: Class::from_code(family.class),
            subclass: Subclass::from_code(family.class),
            driver: pf.driver.map(str::to_owned),
            capabilities: None,
            numa_node: slot.adapter.numa_node,
            iommu_group: pf.group,
            // Each adapter is below a root port of its own, which has ACS.
            iommu_group_shared_with: Vec::new(),
            serial_number: found.serial_number.map(|serial| serial.to_string()),
            link: found.link.map(describe::link),
            msix_vectors: found.msix.map(|msix| msix.vectors),
            conditions: Conditions { no_answer, ..Conditions::default() },
            vfs_assigned: 0,
            vfs_available: 0,
            out_of_service: None,
            sriov: found.sriov,
            drivers_autoprobe: Some(pf.autoprobe),
            vf_msix_total: None,
            netdevs: self.netdev(slot, pf).into_iter().collect(),
            rdma_devices: Vec::new(),
            nvme: nvme(slot, pf, self.host.now),
            in_use_by_host: pf.in_use_by_host.clone(),
            errors: Some(pf.errors),
            health: Some(if pf.driver.is_some() { pf.health(self.host.now) } else { Vec::new() }),
            service: Service::Serving,
            virtual_functions,
            reasons,
        };
        described.capabilities = adapters::capabilities(&described);
        described
    }

    fn virtual_(&self, slot: &Slot, port: usize, index: usize) -> VirtualFunction {
        let vf = &slot.pfs[port].vfs[index];
        let mut reasons = Vec::new();
        let bytes = self.bytes(slot, Function { port, vf: Some(index) });
        let msix = ConfigSpace::new(bytes).and_then(|config| MsixCapability::find(&config));
        let msix = msix.unwrap_or_else(|error| {
            reasons.push(unreadable(&error).on(vf.address));
            None
        });
        let is_down = slot.pfs[port].nvme_down(self.host.now).is_some();
        let settings = slot.settings(port, index).filter(|_| !is_down);
        let members =
            vf.group.zip(self.host.groups.as_ref()).map(|(group, groups)| Groups::members(groups, group));
        let others = members.unwrap_or_default().iter().filter(|member| **member != vf.address);
        VirtualFunction {
            index: u16::try_from(index).unwrap_or(u16::MAX),
            address: vf.address,
            driver: vf.driver.clone(),
            iommu_group: vf.group,
            iommu_group_shared_with: others.copied().collect(),
            msix_vectors: msix.map(|msix| msix.vectors),
            flr: Some(true),
            vgpu_type: None,
            netdevs: vf.interface.iter().cloned().collect(),
            in_use_by_host: Vec::new(),
            settings: settings.unwrap_or_default(),
            owner: None,
            // Only what is lent can halt a machine, as on Linux.
            errors: (vf.driver.as_deref() == Some(VFIO)).then_some(vf.errors),
            out_of_service: None,
            holder: vf.holder.clone().or_else(|| {
                let is_idle = vf.driver.as_deref() == Some(VFIO) && !vf.held;
                is_idle.then_some(Holder::Nobody)
            }),
            reasons,
        }
    }

    /// A function's whole configuration space; all ones where it does not answer.
    fn bytes<'m>(&self, slot: &'m Slot, function: Function) -> &'m [u8] {
        const NO_ANSWER: &[u8] = &[0xff; super::registers::SIZE];
        slot.device.registers(function, self.host.now).map_or(NO_ANSWER, |registers| registers.bytes())
    }

    fn netdev(&self, slot: &Slot, pf: &PfState) -> Option<Netdev> {
        let interface = pf.interface.as_ref()?;
        let has_link = interface.has_link(self.host.now);
        Some(Netdev {
            name: interface.name.clone(),
            ifindex: interface.ifindex,
            mac: Some(interface.mac),
            permanent_mac: Some(interface.mac),
            speed_mbps: slot.nic().map(|nic| nic.speed_mbps).filter(|_| has_link),
            carrier: interface.up.then_some(has_link),
            up: interface.up,
            mtu: Some(1500),
        })
    }
}

/// The findings in configuration space.
#[derive(Default)]
struct Found {
    sriov: Option<Sriov>,
    link: Option<PcieLink>,
    msix: Option<MsixCapability>,
    serial_number: Option<DeviceSerialNumber>,
}

impl Found {
    fn read(bytes: &[u8], slot: &Slot, pf: &PfState) -> Result<Self, ConfigError> {
        let config = ConfigSpace::new(bytes)?;
        let sriov = SriovCapability::find(&config)?;
        let windows = slot.device.family.vf_bars.iter();
        let bars = windows.map(|bar| VfBar {
            index: bar.index,
            is_64bit: true,
            prefetchable: bar.prefetchable,
            bytes_per_vf: pf.windows[usize::from(bar.index)],
        });
        Ok(Self {
            sriov: sriov.map(|found| describe::sriov(pf.address, &found, Some(pf.total_vfs), bars.collect())),
            link: PcieLink::find(&config)?,
            msix: MsixCapability::find(&config)?,
            serial_number: DeviceSerialNumber::find(&config)?,
        })
    }
}

fn nvme(slot: &Slot, pf: &PfState, now: Time) -> Option<NvmeController> {
    let controller = slot.device.controller.as_ref()?;
    let down = pf.nvme_down(now);
    Some(NvmeController {
        name: pf.nvme.clone()?,
        namespaces: pf.nvme.iter().map(|name| format!("{name}n1")).collect(),
        serial: Some(format!("{:x}", slot.device.serial)),
        model: Some("Simulated NVMe controller".to_owned()),
        state: Some(down.unwrap_or(NvmeState::Live)),
        // One that takes no commands is not asked.
        resources: down.is_none().then(|| controller.resources()),
        secondaries: if down.is_none() { controller.secondaries().to_vec() } else { Vec::new() },
    })
}

fn unreadable(error: &ConfigError) -> Reason {
    Reason::new(Rule::Readable, "a proper configuration space", error.to_string())
}
