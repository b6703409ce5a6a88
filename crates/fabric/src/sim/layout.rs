//! The registers of physical and virtual functions and their offsets: the capability chains of the model.

use super::{family::Family, registers::Template};

/// Command register, and its Bus Master Enable.
pub(super) const COMMAND: usize = 0x04;
/// The PCI Express capability.
pub(super) const PCIE: usize = 0x40;
/// Device Control, whose highest bit is Initiate Function Level Reset.
pub(super) const DEVICE_CONTROL: usize = PCIE + 0x08;
/// The MSI-X capability.
const MSIX: usize = 0x80;
/// Advanced Error Reporting: the first extended capability.
const AER: usize = 0x100;
const ARI: usize = 0x150;
const ACS: usize = 0x160;
const SERIAL_NUMBER: usize = 0x170;
/// The SR-IOV extended capability.
pub(super) const SRIOV: usize = 0x180;

/// Registers of the SR-IOV capability, from its beginning (PCIe 6.0 §9.3.3).
pub(super) mod sriov {
    pub(in crate::sim) const CONTROL: usize = 0x08;
    pub(in crate::sim) const INITIAL_VFS: usize = 0x0c;
    pub(in crate::sim) const TOTAL_VFS: usize = 0x0e;
    pub(in crate::sim) const NUM_VFS: usize = 0x10;
    pub(in crate::sim) const DEPENDENCY_LINK: usize = 0x12;
    pub(in crate::sim) const FIRST_VF_OFFSET: usize = 0x14;
    pub(in crate::sim) const VF_STRIDE: usize = 0x16;
    pub(in crate::sim) const VF_DEVICE_ID: usize = 0x1a;
    pub(in crate::sim) const SUPPORTED_PAGE_SIZES: usize = 0x1c;
    pub(in crate::sim) const SYSTEM_PAGE_SIZE: usize = 0x20;
    pub(in crate::sim) const VF_BARS: usize = 0x24;
    pub(in crate::sim) const VF_BARS_END: usize = 0x3c;

    /// Bits of the control register.
    pub(in crate::sim) const VF_ENABLE: u16 = 1;
    pub(in crate::sim) const VF_MEMORY_ENABLE: u16 = 1 << 3;
    pub(in crate::sim) const ARI_CAPABLE_HIERARCHY: u16 = 1 << 4;
}

/// The differences between the physical functions of a family.
pub(super) struct Identity {
    /// Its function number in the device.
    pub(super) port: u8,
    /// Device Serial Number, if any.
    pub(super) serial: Option<u64>,
    /// Whether it has ACS.
    pub(super) acs: bool,
    /// Function Dependency Link: the next function in the circle of dependent ones; itself if independent.
    pub(super) depends_on: u8,
}

/// The registers of a physical function.
pub(super) fn physical(family: &Family, identity: &Identity) -> Template {
    let mut template = Template::new();
    header(&mut template, family);
    template.value(0x00, family.vendor.to_le_bytes());
    template.value(0x02, family.device.to_le_bytes());
    // Memory space, bus mastering, parity and SERR, interrupt disable.
    template.writable(COMMAND, 0x0546_u16.to_le_bytes());
    template.value(0x0e, [if family.ports > 1 { 0x80 } else { 0 }]);
    // BAR 0: 128 KiB, 64 bits wide.
    template.value(0x10, 0x4_u32.to_le_bytes());
    template.writable(0x10, 0xffff_ffff_fffe_0000_u64.to_le_bytes());
    template.writable(0x3c, [0xff]);
    template.value(0x3d, [identity.port + 1]);

    pci_express(&mut template, family, true);
    // All but the reserved top bit: Initiate FLR always reads as zero.
    template.writable(DEVICE_CONTROL, 0x7fff_u16.to_le_bytes());
    msix(&mut template, family.vectors.0);
    let next = if identity.port + 1 < family.ports { identity.port + 1 } else { 0 };
    extended(&mut template, next, identity.acs);
    if let Some(serial) = identity.serial {
        template.extended(SERIAL_NUMBER, 0x0003, 1);
        template.value(SERIAL_NUMBER + 4, serial.to_le_bytes());
    }
    single_root(&mut template, family, identity);
    template
}

/// The registers of a virtual function (PCIe 6.0 §9.3.4): IDs read as ones, BARs and Memory Space Enable do not exist,
/// and most control bits are those of the PF.
pub(super) fn virtual_(family: &Family, acs: bool) -> Template {
    let mut template = Template::new();
    header(&mut template, family);
    template.value(0x00, [0xff; 4]);
    template.writable(COMMAND, 0x0004_u16.to_le_bytes());
    pci_express(&mut template, family, false);
    msix(&mut template, family.vectors.1);
    extended(&mut template, 0, acs);
    template
}

fn header(template: &mut Template, family: &Family) {
    let [interface, sub_class, base_class, _] = family.class.to_le_bytes();
    template.value(0x08, [1, interface, sub_class, base_class]);
    template.value(0x2c, family.vendor.to_le_bytes());
    template.value(0x2e, 0x0001_u16.to_le_bytes());
}

fn pci_express(template: &mut Template, family: &Family, physical: bool) {
    template.capability(0x40, 0x10);
    // An endpoint; version 2 of the structure.
    template.value(PCIE + 0x02, 0x0002_u16.to_le_bytes());
    // Function Level Reset Capability, Role-Based Error Reporting, payloads of 256 bytes.
    template.value(PCIE + 0x04, 0x1000_8001_u32.to_le_bytes());
    template.cleared_by_one(PCIE + 0x0a, 0x000f_u16.to_le_bytes());
    let (speed, width) = family.link;
    let link = u16::from(speed) | u16::from(width) << 4;
    template.value(PCIE + 0x0c, u32::from(link).to_le_bytes());
    // Only the PF has Link Status (PCIe 6.0 §9.3.5.8).
    if physical {
        template.value(PCIE + 0x12, link.to_le_bytes());
        template.writable(PCIE + 0x10, 0x01c3_u16.to_le_bytes());
    }
    // Link Capabilities 2: all speeds up to the best.
    template.value(PCIE + 0x2c, ((1_u32 << (speed + 1)) - 2).to_le_bytes());
}

fn msix(template: &mut Template, vectors: u16) {
    template.capability(0x80, 0x11);
    template.value(MSIX + 2, (vectors - 1).to_le_bytes());
    template.writable(MSIX + 2, 0xc000_u16.to_le_bytes());
    // The table and its pending bits are in BAR 0.
    template.value(MSIX + 4, 0x2000_u32.to_le_bytes());
    template.value(MSIX + 8, 0x3000_u32.to_le_bytes());
}

/// Advanced Error Reporting, ARI and ACS.
fn extended(template: &mut Template, next_function: u8, acs: bool) {
    template.extended(AER, 0x0001, 2);
    template.cleared_by_one(AER + 0x04, 0x07ff_f030_u32.to_le_bytes());
    template.writable(AER + 0x08, 0x07ff_f030_u32.to_le_bytes());
    template.value(AER + 0x0c, 0x0046_2030_u32.to_le_bytes());
    template.writable(AER + 0x0c, 0x07ff_f030_u32.to_le_bytes());
    template.cleared_by_one(AER + 0x10, 0x0000_f1c1_u32.to_le_bytes());
    template.value(AER + 0x14, 0x0000_2000_u32.to_le_bytes());
    template.writable(AER + 0x14, 0x0000_f1c1_u32.to_le_bytes());
    template.extended(ARI, 0x000e, 1);
    template.value(ARI + 4, [0, next_function]);
    if acs {
        // Request and completion redirect, direct translated: required of a multi-function endpoint.
        template.extended(ACS, 0x000d, 1);
        template.value(ACS + 4, 0x004c_u16.to_le_bytes());
        template.writable(ACS + 6, 0x004c_u16.to_le_bytes());
    }
}

fn single_root(template: &mut Template, family: &Family, identity: &Identity) {
    let port = identity.port;
    template.extended(SRIOV, 0x0010, 1);
    // Only the lowest-numbered PF has ARI Capable Hierarchy (PCIe 6.0 §9.3.3.3.5), and the bit that says that it
    // survives a reset.
    let ari = if port == 0 { sriov::ARI_CAPABLE_HIERARCHY } else { 0 };
    template.value(SRIOV + 0x04, [if port == 0 { 0b10 } else { 0 }]);
    template
        .writable(SRIOV + sriov::CONTROL, (sriov::VF_ENABLE | sriov::VF_MEMORY_ENABLE | ari).to_le_bytes());
    template.value(SRIOV + sriov::INITIAL_VFS, family.total_vfs.to_le_bytes());
    template.value(SRIOV + sriov::TOTAL_VFS, family.total_vfs.to_le_bytes());
    template.writable(SRIOV + sriov::NUM_VFS, [0xff; 2]);
    template.value(SRIOV + sriov::DEPENDENCY_LINK, [identity.depends_on]);
    template.value(SRIOV + sriov::VF_DEVICE_ID, family.vf_device.to_le_bytes());
    template.value(SRIOV + sriov::SUPPORTED_PAGE_SIZES, family.page_sizes.to_le_bytes());
    template.value(SRIOV + sriov::SYSTEM_PAGE_SIZE, 1_u32.to_le_bytes());
    template.writable(SRIOV + sriov::SYSTEM_PAGE_SIZE, [0xff; 4]);
    for bar in family.vf_bars {
        let flags = 0b0100 | if bar.prefetchable { 0b1000 } else { 0 };
        template.value(SRIOV + sriov::VF_BARS + 4 * usize::from(bar.index), [flags]);
    }
}
