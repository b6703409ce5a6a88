//! One adapter as hardware: its physical functions, their virtual functions, and the effects of register writes
//! (PCIe 6.0 §9.2, §9.3). Independent of any operating system.
//!
//! Where the specification leaves a result undefined, the model takes the harmless one, and a comment says so.

use std::sync::Arc;

use ioward_pci::Bdf;

use super::{
    family::{Family, Kind},
    layout::{self, DEVICE_CONTROL, Identity, SRIOV, sriov},
    nvme::Controller,
    registers::{Registers, SIZE, Template},
};

/// A point in model time, in nanoseconds since the machine was started.
pub(super) type Time = u64;
/// One millisecond of model time.
pub(super) const MS: Time = 1_000_000;

/// How long VFs need from VF Enable until they answer, and a function from an FLR (PCIe 6.0 §9.3.3.3.1, §6.6.2).
const READY: Time = 100 * MS;
/// How long software must wait after clearing VF Enable (PCIe 6.0 §9.3.3.3.1).
const SETTLE: Time = 1_000 * MS;

/// An adapter in its slot.
#[derive(Clone, Debug)]
pub(super) struct Device {
    pub(super) family: Family,
    /// The address of its function 0.
    pub(super) address: Bdf,
    /// The last bus number that the port above it forwards.
    pub(super) last_bus: u8,
    pub(super) serial: u64,
    pub(super) ports: Vec<Port>,
    /// Its NVMe controller, if any.
    pub(super) controller: Option<Controller>,
    vf_template: Arc<Template>,
}

/// The optional features of an adapter in its family.
#[derive(Clone, Copy, Debug)]
pub(super) struct Makeup {
    /// ACS in every function.
    pub(super) acs: bool,
    /// Ports that depend on each other.
    pub(super) dependent: bool,
    /// A Device Serial Number in every function.
    pub(super) tells_serial: bool,
}

/// A physical function.
#[derive(Clone, Debug)]
pub(super) struct Port {
    registers: Registers,
    pub(super) vfs: Vec<VirtualFunction>,
    /// VFs that were enabled before this time answer only after it.
    settled_at: Time,
    /// Neither it nor any VF of it answers.
    pub(super) silence: Option<Silence>,
}

/// How long a function does not answer after an error, or another part of it does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Until this time has passed: a link that is trained anew, a reset by the kernel. Nanoseconds of model time.
    For(Time),
    /// Until its driver is asked to recover it: only what is reported to devlink can be.
    UntilAsked,
    /// Until it is reset.
    UntilReset,
    /// Until its driver is bound anew, which sets up more than a reset does.
    UntilRebound,
    /// For good: the card is broken, or out of its slot.
    ForGood,
}

/// A virtual function.
#[derive(Clone, Debug)]
pub(super) struct VirtualFunction {
    registers: Registers,
    /// The time from which it answers.
    ready_at: Time,
    /// Function-level resets so far.
    pub(super) resets: u32,
    /// Whether it holds state of its last user.
    pub(super) used: bool,
}

/// A function of a device: a port, or a VF of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) port: usize,
    pub(super) vf: Option<usize>,
}

impl Device {
    /// A device after power-on. Dependent ports depend on each other in a circle (PCIe 6.0 §9.3.3.8).
    pub(super) fn new(
        family: Family,
        address: Bdf,
        last_bus: u8,
        serial: u64,
        Makeup { acs, dependent, tells_serial }: Makeup,
    ) -> Self {
        let vf_template = Arc::new(layout::virtual_(&family, acs));
        let ports = (0..family.ports).map(|port| {
            let depends_on = if dependent { (port + 1) % family.ports } else { port };
            let serial = tells_serial.then_some(serial);
            let template = layout::physical(&family, &Identity { port, serial, acs, depends_on });
            Port {
                registers: Registers::new(&Arc::new(template)),
                vfs: Vec::new(),
                settled_at: 0,
                silence: None,
            }
        });
        let ports = ports.collect();
        let controller = match family.kind {
            Kind::Nvme(limits) => Some(Controller::new(limits, family.total_vfs)),
            _ => None,
        };
        let mut device = Self { family, address, last_bus, serial, ports, controller, vf_template };
        device.update_routing();
        device
    }

    /// The address of a port.
    pub(super) fn port_address(&self, port: usize) -> Bdf {
        let number = u16::try_from(port).unwrap_or(u16::MAX);
        Bdf::from_routing_id(self.address.domain(), self.address.routing_id().saturating_add(number))
    }

    /// The address of a VF, whether it exists or not; `None` beyond the last possible bus.
    pub(super) fn vf_address(&self, port: usize, index: u16) -> Option<Bdf> {
        let registers = &self.ports[port].registers;
        let (offset, stride) =
            (registers.u16(SRIOV + sriov::FIRST_VF_OFFSET), registers.u16(SRIOV + sriov::VF_STRIDE));
        self.port_address(port).virtual_function(offset, stride, index)
    }

    /// The function to which an address is routed. The port above forwards only its own range of buses.
    pub(super) fn function_at(&self, address: Bdf) -> Option<Function> {
        let in_range = (self.address.bus()..=self.last_bus).contains(&address.bus());
        if address.domain() != self.address.domain() || !in_range {
            return None;
        }
        let id = address.routing_id();
        (0..self.ports.len()).find_map(|port| {
            let own = self.port_address(port);
            if own == address {
                return Some(Function { port, vf: None });
            }
            let registers = &self.ports[port].registers;
            let first = own.routing_id().checked_add(registers.u16(SRIOV + sriov::FIRST_VF_OFFSET))?;
            let distance = id.checked_sub(first)?;
            let stride = registers.u16(SRIOV + sriov::VF_STRIDE);
            let vf = usize::from(distance.checked_div(stride)?);
            let exists = distance.is_multiple_of(stride) && vf < self.ports[port].vfs.len();
            exists.then_some(Function { port, vf: Some(vf) })
        })
    }

    /// A function's registers as software sees them; `None` while it does not answer.
    pub(super) fn registers(&self, function: Function, now: Time) -> Option<&Registers> {
        let port = &self.ports[function.port];
        if self.is_silent(function.port, now) {
            return None;
        }
        match function.vf {
            None => Some(&port.registers),
            Some(vf) => port.vfs.get(vf).filter(|vf| vf.ready_at <= now).map(|vf| &vf.registers),
        }
    }

    /// Whether a port does not answer after an error.
    pub(super) fn is_silent(&self, port: usize, now: Time) -> bool {
        match self.ports[port].silence {
            None => false,
            Some(Silence::For(until)) => now < until,
            Some(_) => true,
        }
    }

    /// A write by software; lost where nothing answers.
    pub(super) fn write(&mut self, function: Function, offset: usize, bytes: &[u8], now: Time) {
        if offset + bytes.len() > SIZE || self.registers(function, now).is_none() {
            return;
        }
        let high_byte = (DEVICE_CONTROL + 1).checked_sub(offset).and_then(|at| bytes.get(at));
        let starts_reset = high_byte.is_some_and(|byte| byte & 0x80 != 0);
        match function.vf {
            Some(vf) => self.ports[function.port].vfs[vf].registers.write(offset, bytes, |_, mask| mask),
            None => self.write_port(function.port, offset, bytes, now),
        }
        if starts_reset {
            self.reset(function, now);
        }
    }

    fn write_port(&mut self, port: usize, offset: usize, bytes: &[u8], now: Time) {
        let bar_masks = self.bar_masks(port);
        let any_enabled = self.ports.iter().any(|port| is_enabled(&port.registers));
        let registers = &mut self.ports[port].registers;
        let enabled = is_enabled(registers);
        let page_size = registers.u32(SRIOV + sriov::SYSTEM_PAGE_SIZE);
        registers.write(offset, bytes, |at, mask| match at.checked_sub(SRIOV) {
            // Writes while VF Enable is set are undefined, and ignored here.
            Some(sriov::NUM_VFS..sriov::DEPENDENCY_LINK | sriov::SYSTEM_PAGE_SIZE..sriov::VF_BARS)
                if enabled =>
            {
                0
            }
            Some(sriov::CONTROL) if any_enabled => mask & !sriov::ARI_CAPABLE_HIERARCHY.to_le_bytes()[0],
            Some(at @ sriov::VF_BARS..sriov::VF_BARS_END) => bar_masks[at - sriov::VF_BARS],
            _ => mask,
        });
        // A size that is unsupported, or no single size, is undefined, and ignored here.
        let wanted = registers.u32(SRIOV + sriov::SYSTEM_PAGE_SIZE);
        if wanted.count_ones() != 1 || wanted & self.family.page_sizes == 0 {
            registers.set(SRIOV + sriov::SYSTEM_PAGE_SIZE, page_size.to_le_bytes());
        }
        self.align_bars(port);
        match (enabled, is_enabled(&self.ports[port].registers)) {
            (false, true) => {
                self.update_routing();
                self.bring_forth(port, now);
            }
            (true, false) => self.take_away(port, now),
            _ => self.update_routing(),
        }
    }

    /// VF Enable was set: NumVFs VFs appear.
    fn bring_forth(&mut self, port: usize, now: Time) {
        let wanted = self.ports[port].registers.u16(SRIOV + sriov::NUM_VFS);
        // NumVFs above TotalVFs is undefined, and makes no VF here.
        let count = if wanted > self.family.total_vfs { 0 } else { wanted };
        let exist = (0..count).take_while(|index| self.vf_address(port, *index).is_some()).count();
        let Port { vfs, settled_at, .. } = &mut self.ports[port];
        let ready_at = now.max(*settled_at) + READY;
        let template = &self.vf_template;
        let new =
            || VirtualFunction { registers: Registers::new(template), ready_at, resets: 0, used: false };
        vfs.extend(std::iter::repeat_with(new).take(exist));
    }

    /// VF Enable was cleared: the VFs disappear.
    fn take_away(&mut self, port: usize, now: Time) {
        let Port { vfs, settled_at, .. } = &mut self.ports[port];
        vfs.clear();
        *settled_at = now + SETTLE;
        self.update_routing();
        if let Some(controller) = &mut self.controller {
            controller.functions_gone();
        }
    }

    /// Function Level Reset: a VF loses its own state, not what its PF has set; a PF loses VF Enable and with it its
    /// VFs (PCIe 6.0 §9.2.2.2, §9.2.2.3).
    fn reset(&mut self, function: Function, now: Time) {
        let port = &mut self.ports[function.port];
        match function.vf {
            Some(vf) => {
                let vf = &mut port.vfs[vf];
                vf.registers.reset();
                vf.ready_at = now + READY;
                vf.resets += 1;
                vf.used = false;
            }
            None => {
                // ARI Capable Hierarchy Preserved: the bit survives.
                let ari = port.registers.u16(SRIOV + sriov::CONTROL) & sriov::ARI_CAPABLE_HIERARCHY;
                port.registers.reset();
                port.registers.set(SRIOV + sriov::CONTROL, ari.to_le_bytes());
                self.take_away(function.port, now);
            }
        }
    }

    /// First VF Offset and VF Stride follow NumVFs and ARI Capable Hierarchy. They stay while VFs exist.
    fn update_routing(&mut self) {
        let ari = self.ports[0].registers.u16(SRIOV + sriov::CONTROL) & sriov::ARI_CAPABLE_HIERARCHY != 0;
        for port in self.ports.iter_mut().filter(|port| !is_enabled(&port.registers) || port.vfs.is_empty()) {
            let num_vfs = port.registers.u16(SRIOV + sriov::NUM_VFS);
            let (offset, stride) = self.family.routing.of(num_vfs, ari);
            port.registers.set(SRIOV + sriov::FIRST_VF_OFFSET, offset.to_le_bytes());
            port.registers.set(SRIOV + sriov::VF_STRIDE, stride.to_le_bytes());
        }
    }

    /// Bytes of one VF's window: at least a system page (PCIe 6.0 §9.3.3.14).
    fn window(&self, port: usize, size: u64) -> u64 {
        let page = u64::from(self.ports[port].registers.u32(SRIOV + sriov::SYSTEM_PAGE_SIZE)) << 12;
        size.max(page)
    }

    /// The writable bits of the VF BARs: those above the size of a window.
    fn bar_masks(&self, port: usize) -> [u8; 24] {
        let mut masks = [0; 24];
        for bar in self.family.vf_bars {
            let mask = !(self.window(port, bar.size) - 1);
            let at = 4 * usize::from(bar.index);
            masks[at..at + 8].copy_from_slice(&mask.to_le_bytes());
        }
        masks
    }

    /// A larger system page removes address bits that a VF BAR had before.
    fn align_bars(&mut self, port: usize) {
        let masks = self.bar_masks(port);
        let registers = &mut self.ports[port].registers;
        for (at, mask) in (SRIOV + sriov::VF_BARS..).zip(masks) {
            // The lowest four bits of a register are its type.
            let fixed = if (at - SRIOV - sriov::VF_BARS).is_multiple_of(4) { 0x0f } else { 0 };
            registers.set(at, [registers.bytes()[at] & (mask | fixed)]);
        }
    }

    /// The VF and its VF BAR that decode a memory address. Requires VF Memory Space Enable.
    pub(super) fn memory_at(&self, address: u64) -> Option<(Function, u8)> {
        self.ports.iter().enumerate().find_map(|(number, port)| {
            let control = port.registers.u16(SRIOV + sriov::CONTROL);
            if control & sriov::VF_MEMORY_ENABLE == 0 {
                return None;
            }
            self.family.vf_bars.iter().find_map(|bar| {
                let at = SRIOV + sriov::VF_BARS + 4 * usize::from(bar.index);
                let base =
                    u64::from(port.registers.u32(at + 4)) << 32 | u64::from(port.registers.u32(at) & !0xf);
                let distance = address.checked_sub(base).filter(|_| base != 0)?;
                let vf = usize::try_from(distance / self.window(number, bar.size)).ok()?;
                (vf < port.vfs.len()).then_some((Function { port: number, vf: Some(vf) }, bar.index))
            })
        })
    }

    /// Violations of PCIe's invariants, which hold whatever software writes.
    pub(super) fn violations(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut addresses: Vec<_> = (0..self.ports.len()).map(|port| self.port_address(port)).collect();
        for (number, port) in self.ports.iter().enumerate() {
            let at = self.port_address(number);
            let num_vfs = port.registers.u16(SRIOV + sriov::NUM_VFS);
            let exist = port.vfs.len();
            if !is_enabled(&port.registers) && exist > 0 {
                found.push(format!("{at}: {exist} VFs without VF Enable"));
            }
            let expected = if num_vfs > self.family.total_vfs { 0 } else { usize::from(num_vfs) };
            if is_enabled(&port.registers) && exist != expected {
                found.push(format!("{at}: NumVFs is {num_vfs} and {exist} VFs exist"));
            }
            if port.registers.u16(SRIOV + sriov::TOTAL_VFS) != self.family.total_vfs {
                found.push(format!("{at}: TotalVFs has changed"));
            }
            let page = port.registers.u32(SRIOV + sriov::SYSTEM_PAGE_SIZE);
            if page.count_ones() != 1 || page & self.family.page_sizes == 0 {
                found.push(format!("{at}: System Page Size {page:#x} is not supported"));
            }
            let vfs = (0..num_vfs).take(exist);
            addresses.extend(vfs.filter_map(|index| self.vf_address(number, index)));
        }
        addresses.sort_unstable();
        let twice = addresses.windows(2).filter(|pair| pair[0] == pair[1]);
        found.extend(twice.map(|pair| format!("{}: two functions have this routing ID", pair[0])));
        found.extend(self.controller.iter().flat_map(Controller::violations));
        found
    }
}

fn is_enabled(registers: &Registers) -> bool {
    registers.u16(SRIOV + sriov::CONTROL) & sriov::VF_ENABLE != 0
}
