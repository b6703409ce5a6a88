//! A host made of values, on which a plan can be carried out without a host: it keeps the rules that the kernel and the
//! hypervisor keep, and refuses what they would refuse.
//!
//! It shares no code with the rest of the planner: it is the second opinion.

use std::collections::BTreeMap;

use ioward_model::{
    Assignment, BitRate, Class, Inventory, KindName, LinkState, MacAddress, Name, Outcome, PartitionKind,
    PhysicalFunction, StandbyNic, State, Step, VfId, VfSettings, VirtualFunction, Vlan,
};
use ioward_pci::Bdf;

/// A host, what ioward remembers of it, and what its hypervisor has been told.
#[derive(Clone, Debug)]
pub struct Machine {
    inventory: Inventory,
    state: State,
    guests: BTreeMap<Name, Guest>,
    /// Whether a domain or a namespace runs: it goes on as it is when it is forgotten.
    others: BTreeMap<Name, bool>,
}

/// A partition as the hypervisor knows it.
#[derive(Clone, Debug, Default)]
struct Guest {
    running: bool,
    channel: bool,
    /// Whether it has the channel that is noted is not known.
    may_lack_channel: bool,
    vfs: BTreeMap<Name, VfId>,
    standbys: BTreeMap<Name, StandbyNic>,
}

/// A step that the host would refuse, and why.
type Refusal = String;

impl Machine {
    /// A host that is as the inventory and the state say.
    #[must_use]
    pub fn new(inventory: &Inventory, state: &State) -> Self {
        let guest = |(name, partition): (&Name, &ioward_model::PartitionState)| {
            let attached = partition.vfs.iter().filter(|(_, held)| held.attached && !held.is_unplugged());
            let vfs = attached.map(|(vf, held)| (vf.clone(), held.vf)).collect();
            let may_lack_channel = partition.channel_in_doubt;
            (
                name.clone(),
                Guest {
                    running: partition.running,
                    channel: partition.channel,
                    may_lack_channel,
                    vfs,
                    standbys: partition.standbys.clone(),
                },
            )
        };
        let guests = state.partitions.iter().map(guest).collect();
        let others = state.partitions.iter().filter(|(_, noted)| noted.spec.machine().is_none());
        let others = others.map(|(name, noted)| (name.clone(), noted.running)).collect();
        Self { inventory: inventory.clone(), state: state.clone(), guests, others }
    }

    /// The host as it is now.
    #[must_use]
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The state as it is now.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Carries out one step and notes it.
    ///
    /// # Errors
    /// When a kernel, a hypervisor or the state would not have it; nothing has changed then.
    pub fn carry_out(&mut self, step: &Step) -> Result<Outcome, Refusal> {
        let outcome = match step {
            Step::HoldAdapter { pf, from, .. } => {
                check(self.state.adapters.get(pf) == from.as_ref(), || format!("{pf} was noted otherwise"))?;
                Outcome::default()
            }
            Step::ReleaseAdapter { pf, from } => self.release_adapter(*pf, from)?,
            Step::TakeOutOfService { pf, .. } => {
                let is_out = self.state.out_of_service.contains_key(pf);
                check(!is_out, || format!("{pf} is out of service already"))?;
                Outcome::default()
            }
            Step::ReturnToService { pf, .. } => {
                let is_out = self.state.out_of_service.contains_key(pf);
                check(is_out, || format!("{pf} is in service"))?;
                Outcome::default()
            }
            Step::SwitchOver { owner, from, .. } => {
                let primary =
                    self.state.partitions.get(&owner.partition).and_then(|known| known.vfs.get(&owner.vf));
                check(primary.is_some_and(|primary| primary.failed_over == *from), || {
                    format!("{owner} was noted otherwise")
                })?;
                Outcome::default()
            }
            Step::SetAutoprobe { pf, to, from } => {
                let pf = self.pf_mut(*pf)?;
                check(pf.drivers_autoprobe == Some(*from), || {
                    format!("autoprobe of {} is not {from}", pf.address)
                })?;
                pf.drivers_autoprobe = Some(*to);
                Outcome::default()
            }
            Step::SetVfCount { pf, to, from } => self.set_vf_count(*pf, *from, *to)?,
            Step::Assign { owner, to } => {
                let partition = self.state.partitions.get(&owner.partition);
                let partition =
                    partition.ok_or_else(|| format!("there is no partition {}", owner.partition))?;
                check(!partition.vfs.contains_key(&owner.vf), || format!("{owner} has a VF already"))?;
                check(!to.attached, || format!("{} would be noted as attached before it is", to.vf))?;
                let holder = self.state.owner(to.vf);
                check(holder.is_none(), || format!("{} is assigned already", to.vf))?;
                Outcome::default()
            }
            Step::Unassign { owner, from } => {
                check(self.state.owner(from.vf).as_ref() == Some(owner), || {
                    format!("{} is not {owner}'s", from.vf)
                })?;
                check(!self.is_attached(from.vf), || format!("{} is still attached", from.vf))?;
                Outcome::default()
            }
            Step::ConfigureVf { vf, to } => self.configure(*vf, to)?,
            Step::BindDriver { vf, to } => {
                check(!self.is_attached(*vf), || format!("{vf} is attached"))?;
                let function = self.vf_mut(*vf)?;
                let driver_before = std::mem::replace(&mut function.driver, to.clone());
                Outcome { address: Some(function.address), driver_before, ..Outcome::default() }
            }
            Step::ResetVf { vf } => {
                check(!self.is_attached(*vf), || format!("{vf} is attached"))?;
                self.vf_mut(*vf)?;
                Outcome::default()
            }
            _ => self.tell_hypervisor(step)?,
        };
        self.state.record(step, &outcome);
        Ok(outcome)
    }

    /// Notes that a step has been undone, as the executor does.
    pub(crate) fn note_undone(&mut self, step: &Step, noted: &Assignment) {
        self.state.record_undone(step, noted);
    }

    fn tell_hypervisor(&mut self, step: &Step) -> Result<Outcome, Refusal> {
        match step {
            Step::DefinePartition { to, from } => {
                let present = self.state.partitions.get(&to.name).map(|partition| &partition.spec);
                check(present == from.as_ref(), || format!("{} was defined otherwise", to.name))?;
                let runs = self.guests.get(&to.name).is_some_and(|guest| guest.running);
                let same = from.as_ref().is_some_and(|from| match (&from.kind, &to.kind) {
                    (PartitionKind::Machine(from), PartitionKind::Machine(to)) => {
                        (from.cpus, from.memory, &from.boot) == (to.cpus, to.memory, &to.boot)
                    }
                    // By another name.
                    (PartitionKind::Domain(_), PartitionKind::Domain(_)) => true,
                    (from, to) => from == to,
                });
                check(same || !runs, || format!("{} runs", to.name))?;
                // Of others' that was no partition before: a namespace is there, and a domain is off.
                let known = self.others.get(&to.name).copied();
                let running = match to.kind.name() {
                    KindName::Machine => false,
                    KindName::Domain => known.unwrap_or(false),
                    KindName::Namespace => known.unwrap_or(true),
                };
                let new = || Guest { running, ..Guest::default() };
                let guest = self.guests.entry(to.name.clone()).or_insert_with(new);
                return Ok(Outcome { runs: guest.running, ..Outcome::default() });
            }
            Step::UndefinePartition { from } => {
                let is_ours = from.machine().is_some();
                let guest = self.guest(&from.name)?;
                check((!guest.running || !is_ours) && !guest.channel && guest.vfs.is_empty(), || {
                    format!("{} is not empty", from.name)
                })?;
                let holds =
                    self.state.partitions.get(&from.name).is_some_and(|partition| !partition.vfs.is_empty());
                check(!holds, || format!("{} still holds VFs", from.name))?;
                self.guests.remove(&from.name);
            }
            Step::CreateChannel { partition } => {
                let guest = self.guest(partition)?;
                check(!guest.channel || guest.may_lack_channel, || format!("{partition} has a channel"))?;
                (guest.channel, guest.may_lack_channel) = (true, false);
            }
            Step::DestroyChannel { partition } => {
                let may_lack_it = self.kind(partition) == Some(KindName::Domain);
                let guest = self.guest(partition)?;
                check(guest.channel && (guest.vfs.is_empty() || may_lack_it), || {
                    format!("{partition} has no channel, or still VFs")
                })?;
                guest.channel = false;
            }
            Step::AttachVf { owner, vf } => {
                check(self.state.owner(*vf).as_ref() == Some(owner), || format!("{vf} is not {owner}'s"))?;
                let may_lack_it = self.state.is_in_doubt(step);
                check(may_lack_it || !self.is_attached(*vf), || format!("{vf} is attached already"))?;
                // It is put in when its standby is active no more.
                let is_away = self.state.assignment(*vf).is_some_and(Assignment::is_unplugged);
                let driver = self.vf_mut(*vf)?.driver.clone();
                check(has_vf_by(&self.state, &owner.partition, driver.as_deref()), || {
                    format!("{vf} is bound to {driver:?}")
                })?;
                // One that was taken over as it was has none; what it is given anew, `lint` sees to.
                let may_lack_it = self.kind(&owner.partition) == Some(KindName::Domain);
                let guest = self.guest(&owner.partition)?;
                check(guest.channel || may_lack_it, || format!("{} has no channel", owner.partition))?;
                if !is_away {
                    guest.vfs.insert(owner.vf.clone(), *vf);
                }
            }
            Step::DetachVf { owner, vf, .. } => {
                // One whose standby is active may be out already.
                let is_away = self.state.assignment(*vf).is_some_and(Assignment::is_unplugged);
                let guest = self.guest(&owner.partition)?;
                check(guest.vfs.remove(&owner.vf) == Some(*vf) || is_away, || {
                    format!("{vf} is not attached as {owner}")
                })?;
            }
            Step::AdoptVf { owner, vf } => {
                check(self.state.owner(*vf).as_ref() == Some(owner), || format!("{vf} is not {owner}'s"))?;
                check(!self.is_attached(*vf), || format!("{vf} is attached already"))?;
                let is_domain = self.kind(&owner.partition) == Some(KindName::Domain);
                check(is_domain, || format!("{} is no domain", owner.partition))?;
                let driver = self.vf_mut(*vf)?.driver.clone();
                check(driver.as_deref() == Some("vfio-pci"), || format!("{vf} is bound to {driver:?}"))?;
                self.guest(&owner.partition)?.vfs.insert(owner.vf.clone(), *vf);
            }
            Step::ReleaseVf { owner, vf } => {
                let is_domain = self.kind(&owner.partition) == Some(KindName::Domain);
                check(is_domain, || format!("{} is no domain", owner.partition))?;
                let guest = self.guest(&owner.partition)?;
                check(guest.vfs.remove(&owner.vf) == Some(*vf), || {
                    format!("{vf} is not attached as {owner}")
                })?;
            }
            Step::AttachStandby { owner, nic } => {
                let is_machine = self.kind(&owner.partition) == Some(KindName::Machine);
                check(is_machine, || format!("{} is no machine of ioward's", owner.partition))?;
                let guest = self.guest(&owner.partition)?;
                check(!guest.standbys.contains_key(&owner.vf), || format!("{owner} has a standby"))?;
                check(!guest.vfs.contains_key(&owner.vf), || format!("{owner} is there before its standby"))?;
                guest.standbys.insert(owner.vf.clone(), nic.clone());
            }
            Step::DetachStandby { owner, nic } => {
                let guest = self.guest(&owner.partition)?;
                check(!guest.vfs.contains_key(&owner.vf), || format!("{owner} would lose its standby"))?;
                check(guest.standbys.remove(&owner.vf).as_ref() == Some(nic), || {
                    format!("{owner} has no such standby")
                })?;
            }
            Step::StartPartition { partition } => {
                let held = self
                    .state
                    .partitions
                    .get(partition)
                    .map(|partition| partition.vfs.values().filter(|held| !held.is_unplugged()).count());
                check(!self.is_namespace(partition), || format!("{partition} is a namespace"))?;
                let guest = self.guest(partition)?;
                check(!guest.running, || format!("{partition} runs"))?;
                check(Some(guest.vfs.len()) == held, || {
                    format!("{partition} starts without some of its VFs")
                })?;
                guest.running = true;
                self.others.insert(partition.clone(), true);
                for vf in self.guest(partition)?.vfs.clone().into_values() {
                    let driver = self.vf_mut(vf)?.driver.clone();
                    check(driver.as_deref() == Some("vfio-pci"), || format!("{vf} is bound to {driver:?}"))?;
                }
            }
            Step::StopPartition { partition, .. } => {
                check(!self.is_namespace(partition), || format!("{partition} is a namespace"))?;
                let guest = self.guest(partition)?;
                check(guest.running, || format!("{partition} does not run"))?;
                guest.running = false;
                self.others.insert(partition.clone(), false);
            }
            other => return Err(format!("not a step for the hypervisor: {other}")),
        }
        Ok(Outcome::default())
    }

    fn release_adapter(&mut self, pf: Bdf, from: &ioward_model::AdapterState) -> Result<Outcome, Refusal> {
        check(self.state.adapters.get(&pf) == Some(from), || format!("{pf} was noted otherwise"))?;
        let assigned = self.state.assignments().any(|(_, held)| held.vf.pf == pf);
        check(!assigned, || format!("VFs of {pf} are assigned"))?;
        if let Ok(pf) = self.pf_mut(pf) {
            let is_back = pf.sriov.is_none()
                || pf.num_vfs() == from.original.num_vfs
                    && pf.drivers_autoprobe.is_none_or(|autoprobe| autoprobe == from.original.autoprobe);
            check(is_back, || format!("{} is not as it was found", pf.address))?;
        }
        Ok(Outcome::default())
    }

    /// PCIe 6.0 §9.3.3.7: NumVFs may change only while VF Enable is clear, so the kernel goes through zero.
    fn set_vf_count(&mut self, pf: Bdf, from: u16, to: u16) -> Result<Outcome, Refusal> {
        let attached =
            self.guests.values().flat_map(|guest| guest.vfs.values()).find(|vf| vf.pf == pf).copied();
        let function = self.pf_mut(pf)?;
        check(function.num_vfs() == from, || format!("{pf} has {} VFs, not {from}", function.num_vfs()))?;
        check((from == 0) != (to == 0), || {
            format!("NumVFs of {pf} from {from} to {to} does not go through zero")
        })?;
        // A VF that is lost already can still be noted as attached.
        let lost = attached.filter(|vf| vf.index < from);
        check(lost.is_none(), || format!("{from} VFs of {pf} go while one is attached"))?;
        check(to <= function.total_vfs(), || format!("{pf} has no {to} VFs"))?;
        if to > 0 {
            would_make(function, to)?;
        }
        function.virtual_functions = (0..to).map(|index| new_vf(function, index)).collect();
        if let Some(sriov) = &mut function.sriov {
            sriov.num_vfs = to;
            sriov.vf_enable = to > 0;
        }
        Ok(Outcome::default())
    }

    fn configure(&mut self, vf: VfId, to: &VfSettings) -> Result<Outcome, Refusal> {
        check(!to.is_empty(), || format!("there is nothing to configure of {vf}"))?;
        let class = self.pf_mut(vf.pf)?.class;
        let strange = to.describe().into_iter().find(|(name, _)| !class.has_setting(name));
        check(strange.is_none(), || format!("{vf} has no such setting: {strange:?}"))?;
        let function = self.vf_mut(vf)?;
        let settings_before = function.settings.clone();
        function.settings = to.or(&settings_before);
        let (address, settings) = (function.address, function.settings.clone());
        // The controller keeps its VFs' resources, whether the VFs are there or not.
        let secondaries = self.pf_mut(vf.pf)?.nvme.iter_mut().flat_map(|nvme| &mut nvme.secondaries);
        for secondary in secondaries.filter(|secondary| secondary.index == vf.index) {
            secondary.queues = settings.queues.unwrap_or(secondary.queues);
            secondary.interrupts = settings.interrupts.unwrap_or(secondary.interrupts);
            secondary.online = settings.online.unwrap_or(secondary.online);
        }
        Ok(Outcome { address: Some(address), settings_before: Some(settings_before), ..Outcome::default() })
    }

    fn kind(&self, partition: &Name) -> Option<KindName> {
        self.state.partitions.get(partition).map(|noted| noted.spec.kind.name())
    }

    fn is_namespace(&self, partition: &Name) -> bool {
        self.kind(partition) == Some(KindName::Namespace)
    }

    fn is_attached(&self, vf: VfId) -> bool {
        self.guests.values().any(|guest| guest.vfs.values().any(|attached| *attached == vf))
    }

    fn guest(&mut self, partition: &Name) -> Result<&mut Guest, Refusal> {
        self.guests.get_mut(partition).ok_or_else(|| format!("there is no partition {partition}"))
    }

    fn pf_mut(&mut self, address: Bdf) -> Result<&mut PhysicalFunction, Refusal> {
        let mut all = self.inventory.physical_functions.iter_mut();
        all.find(|pf| pf.address == address).ok_or_else(|| format!("there is no PF {address}"))
    }

    fn vf_mut(&mut self, vf: VfId) -> Result<&mut VirtualFunction, Refusal> {
        let mut all = self.pf_mut(vf.pf)?.virtual_functions.iter_mut();
        all.find(|function| function.index == vf.index).ok_or_else(|| format!("{vf} does not exist"))
    }
}

/// Whether a partition can have a VF that is bound to this driver.
pub(crate) fn has_vf_by(state: &State, partition: &Name, driver: Option<&str>) -> bool {
    let kind = state.partitions.get(partition).map(|noted| noted.spec.kind.name());
    match kind.unwrap_or_default() {
        KindName::Machine | KindName::Domain => driver == Some("vfio-pci"),
        KindName::Namespace => {
            driver.is_some_and(|driver| !driver.contains("vfio") && !driver.contains("uio"))
        }
    }
}

fn check(holds: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(refusal()) }
}

/// The kernel's conditions for having a PF's driver make VFs (drivers/pci/iov.c).
fn would_make(pf: &PhysicalFunction, to: u16) -> Result<(), Refusal> {
    let address = pf.address;
    let driver = pf.driver.as_deref().unwrap_or_default();
    check(!["", "vfio-pci", "pci-stub"].contains(&driver), || {
        format!("{address} has no driver that makes VFs: '{driver}'")
    })?;
    check(pf.conditions.bars_without_room.is_empty(), || format!("not enough MMIO for VFs of {address}"))?;
    check(!pf.conditions.no_numvfs, || format!("{address} has no sriov_numvfs"))?;
    let last = pf.sriov.as_ref().and_then(|sriov| {
        address.virtual_function(sriov.first_vf_offset, sriov.vf_stride, to - 1).map(Bdf::bus)
    });
    check(pf.conditions.last_bus.is_none_or(|most| last.is_some_and(|last| last <= most)), || {
        format!("{to} VFs of {address} have no bus numbers")
    })?;
    let is_qat = ["c3xxx", "c6xx", "dh895xcc", "4xxx", "420xx", "6xxx"].contains(&driver);
    check(!is_qat || to == pf.total_vfs(), || format!("{driver} makes all VFs of {address}, and not {to}"))
}

/// A VF as it first appears: with the driver that autoprobe gives it, and nothing set.
fn new_vf(pf: &PhysicalFunction, index: u16) -> VirtualFunction {
    let (offset, stride) = pf.sriov.as_ref().map_or((1, 1), |sriov| (sriov.first_vf_offset, sriov.vf_stride));
    let secondary =
        pf.nvme.iter().flat_map(|nvme| &nvme.secondaries).find(|secondary| secondary.index == index);
    let (driver, settings) = match pf.class {
        Class::Network => {
            let settings = VfSettings {
                mac: Some(MacAddress::ZERO),
                vlan: Some(Vlan::NONE),
                trust: Some(false),
                spoofchk: Some(true),
                min_tx_rate: Some(BitRate::from_megabits(0)),
                max_tx_rate: Some(BitRate::from_megabits(0)),
                link_state: Some(LinkState::Auto),
                ..VfSettings::default()
            };
            (Some("igbvf"), settings)
        }
        Class::Nvme => {
            let settings = VfSettings {
                queues: Some(secondary.map_or(0, |secondary| secondary.queues)),
                interrupts: Some(secondary.map_or(0, |secondary| secondary.interrupts)),
                online: Some(false),
                ..VfSettings::default()
            };
            (Some("nvme"), settings)
        }
        Class::Display | Class::Accelerator | Class::Other => (None, VfSettings::default()),
    };
    VirtualFunction {
        index,
        address: pf.address.virtual_function(offset, stride, index).unwrap_or(pf.address),
        driver: driver.filter(|_| pf.drivers_autoprobe.unwrap_or(true)).map(str::to_owned),
        iommu_group: None,
        iommu_group_shared_with: Vec::new(),
        msix_vectors: None,
        flr: None,
        vgpu_type: None,
        netdevs: Vec::new(),
        in_use_by_host: Vec::new(),
        settings,
        owner: None,
        errors: None,
        out_of_service: None,
        holder: None,
        reasons: Vec::new(),
    }
}
