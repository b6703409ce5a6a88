//! The kernel's PCI core on the simulated machine: its records of an adapter, and how it enables and disables VFs
//! by register accesses (drivers/pci/iov.c, drivers/pci/pci-sysfs.c).

use ioward_model::{ErrorCounts, Holder, HostUse, MacAddress, NvmeState};
use ioward_pci::Bdf;
use rustix::io::Errno;

use super::{
    adapter::Adapter,
    device::{Device, Function, MS, Silence, Time},
    family::{Kind, WhenDown},
    groups::Groups,
    health::Reporter,
    layout::{SRIOV, sriov},
    nic::NicVf,
    random::Random,
};

/// The part common to all adapters of a host.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) now: Time,
    pub(super) random: Random,
    /// Whether the ports forward ARI.
    pub(super) ari: bool,
    /// `None` without an IOMMU.
    pub(super) groups: Option<Groups>,
    pub(super) next_ifindex: u32,
    pub(super) next_nvme: u32,
}

impl Host {
    /// Advances model time.
    pub(super) fn sleep(&mut self, milliseconds: u64) {
        self.now += milliseconds * MS;
    }
}

/// An adapter and the kernel's records of it.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) adapter: Adapter,
    pub(super) device: Device,
    /// By port.
    pub(super) pfs: Vec<PfState>,
}

/// The kernel's records of a PF.
#[derive(Clone, Debug)]
pub(super) struct PfState {
    pub(super) address: Bdf,
    pub(super) driver: Option<&'static str>,
    /// Whether that driver can make VFs (`sriov_configure`).
    pub(super) driver_makes_vfs: bool,
    /// `sriov_totalvfs`: TotalVFs, or the driver's lower limit.
    pub(super) total_vfs: u16,
    /// `sriov_numvfs`.
    pub(super) num_vfs: u16,
    /// `sriov_drivers_autoprobe`.
    pub(super) autoprobe: bool,
    /// Bytes of each VF BAR for one VF, as sized at boot.
    pub(super) windows: [Option<u64>; 6],
    pub(super) group: Option<u32>,
    pub(super) interface: Option<Interface>,
    /// Kernel name of the NVMe controller.
    pub(super) nvme: Option<String>,
    /// That one takes no commands, and is in this state; until when.
    pub(super) nvme_down: Option<(NvmeState, Silence)>,
    pub(super) in_use_by_host: Vec<HostUse>,
    /// `aer_dev_*`.
    pub(super) errors: ErrorCounts,
    /// Health reporters, for as long as it has a driver.
    pub(super) reporters: Vec<Reporter>,
    pub(super) vfs: Vec<VfState>,
    /// The next write to it will not return.
    pub(super) sticks: bool,
    /// A write that does not return.
    pub(super) stuck: Option<Stuck>,
}

/// The kernel's records of a VF.
#[derive(Clone, Debug)]
pub(super) struct VfState {
    pub(super) address: Bdf,
    pub(super) driver: Option<String>,
    pub(super) driver_override: Option<String>,
    pub(super) group: Option<u32>,
    pub(super) interface: Option<String>,
    /// `aer_dev_*`.
    pub(super) errors: ErrorCounts,
    /// Open through VFIO: its removal waits until it is closed.
    pub(super) held: bool,
    /// Somebody who is no partition has it.
    pub(super) holder: Option<Holder>,
    pub(super) nic: NicVf,
}

/// A network interface of a PF.
#[derive(Clone, Debug)]
pub(super) struct Interface {
    pub(super) name: String,
    pub(super) ifindex: u32,
    pub(super) mac: MacAddress,
    pub(super) up: bool,
    pub(super) link_back_at: Time,
}

/// A write to an adapter that does not return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stuck {
    pub(super) since: Time,
    /// The number of VFs to set when it finally returns.
    pub(super) pending: Option<u16>,
}

impl Slot {
    /// Discovers an adapter, as at boot or after hot-plug: sets the first PF's ARI Capable Hierarchy, the system
    /// page size and the VF BARs (sriov_init), and binds the PFs to their driver.
    pub(super) fn found(adapter: Adapter, device: Device, host: &mut Host, first_window: u64) -> Self {
        let mut slot = Self { adapter, device, pfs: Vec::new() };
        let shared = if slot.adapter.acs { None } else { host.groups.as_mut().map(Groups::add) };
        for port in 0..slot.device.ports.len() {
            slot.enable_ari(port, host);
            slot.write(port, SRIOV + sriov::SYSTEM_PAGE_SIZE, 1_u32.to_le_bytes(), host);
            let windows = slot.size_vf_bars(port, host);
            slot.place_vf_bars(port, &windows, first_window, host);
            let state = slot.new_pf(port, windows, shared, host);
            slot.pfs.push(state);
        }
        slot
    }

    fn new_pf(
        &self,
        port: usize,
        windows: [Option<u64>; 6],
        shared: Option<u32>,
        host: &mut Host,
    ) -> PfState {
        let family = &self.device.family;
        let address = self.device.port_address(port);
        let driver = self.adapter.driver.then_some(family.drivers.0);
        let interface = match &family.kind {
            Kind::Nic(_) if driver.is_some() => {
                host.next_ifindex += 1;
                let [.., a, b, c] = self.device.serial.to_be_bytes();
                let last = c.wrapping_add(u8::try_from(port).unwrap_or(0));
                Some(Interface {
                    name: interface_name(address, self.device.ports.len() > 1),
                    ifindex: host.next_ifindex,
                    mac: MacAddress::new([0x52, 0x54, 0x00, a, b, last]),
                    up: self.adapter.up,
                    link_back_at: 0,
                })
            }
            _ => None,
        };
        let nvme = match &family.kind {
            Kind::Nvme(_) if driver.is_some() => {
                let name = format!("nvme{}", host.next_nvme);
                host.next_nvme += 1;
                Some(name)
            }
            _ => None,
        };
        let profile = match family.kind {
            Kind::Gpu(profiles) => profiles.first().map(|(_, vfs)| *vfs),
            _ => None,
        };
        let group = shared.or_else(|| host.groups.as_mut().map(Groups::add));
        if let (Some(groups), Some(group)) = (&mut host.groups, group) {
            groups.join(group, address);
        }
        PfState {
            address,
            driver,
            driver_makes_vfs: self.adapter.sriov_driver,
            total_vfs: if driver.is_some() {
                profile.unwrap_or(family.driver_max_vfs)
            } else {
                family.total_vfs
            },
            num_vfs: 0,
            autoprobe: true,
            windows,
            group,
            interface,
            nvme,
            nvme_down: None,
            errors: ErrorCounts::default(),
            reporters: if driver.is_some() { Reporter::all_of(&self.adapter) } else { Vec::new() },
            in_use_by_host: self.adapter.in_use_by_host.get(port).cloned().unwrap_or_default(),
            vfs: Vec::new(),
            sticks: false,
            stuck: None,
        }
    }

    /// A write to `sriov_numvfs` (sriov_numvfs_store).
    pub(super) fn numvfs_store(&mut self, port: usize, count: u16, host: &mut Host) -> Result<(), Errno> {
        let pf = &mut self.pfs[port];
        if std::mem::take(&mut pf.sticks) {
            pf.stuck = Some(Stuck { since: host.now, pending: Some(count) });
            return Err(Errno::TIMEDOUT);
        }
        if count > pf.total_vfs {
            return Err(Errno::RANGE);
        }
        if count == pf.num_vfs {
            return Ok(());
        }
        if pf.driver.is_none() || !pf.driver_makes_vfs {
            return Err(Errno::NOENT);
        }
        if count > 0 && pf.num_vfs > 0 {
            return Err(Errno::BUSY);
        }
        // Fewer VFs than requested are not an error; the kernel only logs it.
        self.sriov_configure(port, count, host).map(drop)
    }

    /// The PF driver makes or removes VFs; returns the number made.
    fn sriov_configure(&mut self, port: usize, count: u16, host: &mut Host) -> Result<u16, Errno> {
        if count == 0 {
            self.sriov_disable(port, host)?;
            return Ok(0);
        }
        let is_up = self.pfs[port].interface.as_ref().is_none_or(|interface| interface.up);
        let link_drop = match &self.device.family.kind {
            Kind::Nic(nic) if !is_up => match nic.when_down {
                WhenDown::Makes => nic.link_drop_ms,
                WhenDown::MakesNone => return Ok(0),
            },
            Kind::Nic(nic) => nic.link_drop_ms,
            Kind::Nvme(_) | Kind::Gpu(_) => 0,
        };
        let in_use: u32 = self.pfs.iter().map(|pf| u32::from(pf.num_vfs)).sum();
        let vectors = (in_use + u32::from(count)) * u32::from(self.device.family.vectors.1);
        if vectors > self.adapter.vector_pool {
            return Err(Errno::NOSPC);
        }
        let count = count.min(self.adapter.makes_at_most);
        self.sriov_enable(port, count, host)?;
        if let Some(interface) = &mut self.pfs[port].interface {
            interface.link_back_at = host.now + link_drop * MS + host.random.below(link_drop * MS / 4 + 1);
        }
        Ok(count)
    }

    /// sriov_enable.
    fn sriov_enable(&mut self, port: usize, count: u16, host: &mut Host) -> Result<(), Errno> {
        let initial = self.read_u16(port, SRIOV + sriov::INITIAL_VFS);
        if initial != self.read_u16(port, SRIOV + sriov::TOTAL_VFS) {
            return Err(Errno::IO);
        }
        if count > initial {
            return Err(Errno::INVAL);
        }
        self.write(port, SRIOV + sriov::NUM_VFS, count.to_le_bytes(), host);
        // First VF Offset and VF Stride are valid for this NumVFs only.
        let last = self.device.vf_address(port, count - 1);
        if last.is_none_or(|last| last.bus() > self.device.last_bus) {
            self.write(port, SRIOV + sriov::NUM_VFS, 0_u16.to_le_bytes(), host);
            return Err(Errno::NOMEM);
        }
        self.control(port, sriov::VF_ENABLE | sriov::VF_MEMORY_ENABLE, true, host);
        host.sleep(100);
        self.pfs[port].num_vfs = count;
        for index in 0..count {
            host.now += MS / 4 + host.random.below(MS);
            self.add_vf(port, index, host);
        }
        Ok(())
    }

    /// sriov_disable. It waits for a VF that is open through VFIO: here, forever.
    pub(super) fn sriov_disable(&mut self, port: usize, host: &mut Host) -> Result<(), Errno> {
        if self.pfs[port].vfs.iter().any(|vf| vf.held) {
            self.pfs[port].stuck = Some(Stuck { since: host.now, pending: Some(0) });
            return Err(Errno::TIMEDOUT);
        }
        while let Some(vf) = self.pfs[port].vfs.pop() {
            host.now += MS / 8;
            if let Some(groups) = &mut host.groups {
                groups.leave(vf.address);
            }
        }
        self.control(port, sriov::VF_ENABLE | sriov::VF_MEMORY_ENABLE, false, host);
        host.sleep(1_000);
        self.pfs[port].num_vfs = 0;
        self.write(port, SRIOV + sriov::NUM_VFS, 0_u16.to_le_bytes(), host);
        Ok(())
    }

    /// pci_iov_add_virtfn.
    fn add_vf(&mut self, port: usize, index: u16, host: &mut Host) {
        let Some(address) = self.device.vf_address(port, index) else { return };
        let group = match &mut host.groups {
            Some(groups) if self.adapter.acs => {
                let group = groups.add();
                groups.join(group, address);
                Some(group)
            }
            Some(groups) => {
                let group = self.pfs[port].group;
                if let Some(group) = group {
                    groups.join(group, address);
                }
                group
            }
            None => None,
        };
        let nic = NicVf::new(&self.device.family.kind, host);
        let pf = &mut self.pfs[port];
        pf.vfs.push(VfState {
            address,
            driver: None,
            driver_override: None,
            group,
            interface: None,
            errors: ErrorCounts::default(),
            held: false,
            holder: None,
            nic,
        });
        if pf.autoprobe {
            // If the driver refuses it, the VF stays unbound.
            let _ = self.bind_vf(port, usize::from(index), self.device.family.drivers.1, host);
        }
    }

    /// Sets or clears bits of SR-IOV Control.
    fn control(&mut self, port: usize, bits: u16, on: bool, host: &Host) {
        let control = self.read_u16(port, SRIOV + sriov::CONTROL);
        let control = if on { control | bits } else { control & !bits };
        self.write(port, SRIOV + sriov::CONTROL, control.to_le_bytes(), host);
    }

    fn enable_ari(&mut self, port: usize, host: &Host) {
        if port == 0 && host.ari {
            self.control(port, sriov::ARI_CAPABLE_HIERARCHY, true, host);
        }
    }

    /// Sizes the VF BARs by writing ones (pci_read_bases).
    fn size_vf_bars(&mut self, port: usize, host: &Host) -> [Option<u64>; 6] {
        let mut windows = [None; 6];
        for bar in self.device.family.vf_bars {
            let at = SRIOV + sriov::VF_BARS + 4 * usize::from(bar.index);
            self.write(port, at, u64::MAX.to_le_bytes(), host);
            let mask =
                u64::from(self.read_u32(port, at + 4)) << 32 | u64::from(self.read_u32(port, at) & !0xf);
            windows[usize::from(bar.index)] = Some(mask.wrapping_neg());
        }
        windows
    }

    /// Gives every VF BAR room for TotalVFs windows, each aligned to its size.
    fn place_vf_bars(&mut self, port: usize, windows: &[Option<u64>; 6], first: u64, host: &Host) {
        // 64 GiB per port hold the windows of any family.
        let mut next = first + u64::try_from(port).unwrap_or(0) * (1 << 36);
        for (bar, window) in windows.iter().enumerate() {
            let Some(window) = window else { continue };
            let base = next.next_multiple_of(*window);
            self.write(port, SRIOV + sriov::VF_BARS + 4 * bar, base.to_le_bytes(), host);
            next = base + window * u64::from(self.device.family.total_vfs);
        }
    }

    fn write<const N: usize>(&mut self, port: usize, at: usize, bytes: [u8; N], host: &Host) {
        self.device.write(Function { port, vf: None }, at, &bytes, host.now);
    }

    fn read_u16(&self, port: usize, at: usize) -> u16 {
        let registers = self.device.registers(Function { port, vf: None }, 0);
        registers.map_or(u16::MAX, |registers| registers.u16(at))
    }

    fn read_u32(&self, port: usize, at: usize) -> u32 {
        u32::from(self.read_u16(port, at)) | u32::from(self.read_u16(port, at + 2)) << 16
    }
}

/// An interface name from its slot, as systemd makes it.
pub(super) fn interface_name(address: Bdf, multifunction: bool) -> String {
    let function = if multifunction { format!("f{}", address.function()) } else { String::new() };
    format!("enp{}s{}{function}", address.bus(), address.device())
}
