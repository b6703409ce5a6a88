//! Configuration spaces, valid and invalid.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod builder;
mod hostile;

use builder::Builder;
use ioward_pci::{
    AcsCapability, AriCapability, Capability, ConfigError, ConfigSpace, DeviceSerialNumber, MsixCapability,
    PcieLink, SriovCapability, VfBarRegister,
};

#[test]
fn the_header_of_an_endpoint_is_read() {
    let bytes = Builder::new(0x8086, 0x10c9)
        .u8(0x0b, 0x02)
        .u8(0x0e, 0x80)
        .u16(0x2c, 0x1af4)
        .u16(0x2e, 0x1100)
        .bytes(64);
    let config = ConfigSpace::new(&bytes).unwrap();
    assert_eq!((config.vendor_id(), config.device_id()), (0x8086, 0x10c9));
    assert_eq!(config.class_code(), 0x02_0000);
    assert_eq!((config.header_type(), config.is_multifunction()), (0, true));
    assert_eq!(config.subsystem(), Some((0x1af4, 0x1100)));
    assert!(config.is_header_only() && !config.has_extended());
}

#[test]
fn a_bridge_has_no_subsystem_in_its_header() {
    let bytes = Builder::new(0x8086, 0x3420).u8(0x0e, 1).u16(0x2c, 0x1234).bytes(256);
    assert_eq!(ConfigSpace::new(&bytes).unwrap().subsystem(), None);
}

#[test]
fn a_configuration_space_has_64_to_4096_bytes() {
    for length in [0, 1, 63, 4097] {
        assert_eq!(ConfigSpace::new(&vec![0; length]).unwrap_err(), ConfigError::Length { length });
    }
    for length in [64, 256, 4096] {
        assert_eq!(ConfigSpace::new(&vec![0; length]).unwrap().length(), length);
    }
}

/// The IDs of a VF read as ffff; a check of the vendor ID alone took every VF for one that was unplugged.
#[test]
fn a_vf_answers_although_its_vendor_id_is_ffff() {
    let vf = Builder::new(0xffff, 0xffff).capability(0x70, Capability::MSIX, &[2, 0]).bytes(4096);
    assert_eq!(MsixCapability::find(&ConfigSpace::new(&vf).unwrap()).unwrap().unwrap().vectors, 3);
    assert_eq!(ConfigSpace::new(&[0xff; 4096]).unwrap_err(), ConfigError::NoAnswer);
}

/// The values that lspci shows for an Intel 82576 with 3 of 8 VFs.
#[test]
fn the_sriov_capability_is_read_in_full() {
    let sriov = Builder::sriov_body(&[
        (0x04, 0x0000_0002),
        (0x08, 0x0000_0019),
        (0x0c, 0x0008_0008),
        (0x10, 0x0001_0003),
        (0x14, 0x0002_0080),
        (0x18, 0x10ca_0000),
        (0x1c, 0x0000_0553),
        (0x20, 0x0000_0001),
        (0x24, 0xfe80_000c),
        (0x28, 0x0000_0001),
        (0x30, 0xfe82_000c),
    ]);
    let bytes = Builder::new(0x8086, 0x10c9)
        .extended(0x100, 0x0001, &[0; 4])
        .extended(0x160, 0x0010, &sriov)
        .bytes(4096);
    let config = ConfigSpace::new(&bytes).unwrap();
    let found = SriovCapability::find(&config).unwrap().unwrap();
    assert_eq!((found.total_vfs, found.initial_vfs, found.num_vfs), (8, 8, 3));
    assert_eq!((found.first_vf_offset, found.vf_stride, found.vf_device_id), (128, 2, 0x10ca));
    assert_eq!(found.function_dependency_link, 1);
    assert!(found.vf_enable() && found.vf_memory_enable() && found.ari_capable_hierarchy());
    let sizes = [4 << 10, 8 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
    assert_eq!(SriovCapability::page_sizes(found.supported_page_sizes), sizes);
    assert_eq!(SriovCapability::page_sizes(found.system_page_size), [4096]);
    assert_eq!(SriovCapability::page_sizes(1 << 31), [1 << 43]);
    let bar = |index, is_64bit, address| VfBarRegister { index, is_64bit, prefetchable: is_64bit, address };
    let expected =
        [bar(0, true, 0x1_fe80_0000), bar(2, false, 0), bar(3, true, 0xfe82_0000), bar(5, false, 0)];
    assert_eq!(found.vf_bar_registers(), expected);
}

/// A 64-bit BAR in the last register has no upper half; nothing may be read beyond the sixth.
#[test]
fn the_last_vf_bar_has_no_register_after_it() {
    let sriov = Builder::sriov_body(&[(0x38, 0x0000_0004)]);
    let bytes = Builder::new(1, 1).extended(0x100, 0x0010, &sriov).bytes(4096);
    let found = SriovCapability::find(&ConfigSpace::new(&bytes).unwrap()).unwrap().unwrap();
    let last = VfBarRegister { index: 5, is_64bit: true, prefetchable: false, address: 0 };
    assert_eq!(found.vf_bar_registers().last(), Some(&last));
}

#[test]
fn the_small_capabilities_are_read() {
    let mut express = [0; 0x12];
    express[0x0a..0x0c].copy_from_slice(&0x0105_u16.to_le_bytes()); // Link Capabilities: 16 lanes of 32 GT/s
    express[0x10..0x12].copy_from_slice(&0x0083_u16.to_le_bytes()); // Link Status: 8 lanes of 8 GT/s
    let bytes = Builder::new(0x8086, 0x10c9)
        .capability(0x40, Capability::PCI_EXPRESS, &express)
        .capability(0x70, Capability::MSIX, &[9, 0x80])
        .extended(0x100, 0x0003, &0x001b_21ff_ff12_3456_u64.to_le_bytes())
        .extended(0x110, 0x000e, &[0, 4, 0, 0])
        .extended(0x120, 0x000d, &[0x1f, 0, 0x1d, 0])
        .bytes(4096);
    let config = ConfigSpace::new(&bytes).unwrap();
    let link = PcieLink { speed_mts: 8000, width: 8, max_speed_mts: 32000, max_width: 16 };
    assert_eq!(PcieLink::find(&config).unwrap(), Some(link));
    let msix = MsixCapability { vectors: 10, enabled: true };
    assert_eq!(MsixCapability::find(&config).unwrap(), Some(msix));
    let serial = DeviceSerialNumber::find(&config).unwrap().unwrap();
    assert_eq!(serial.to_string(), "00-1b-21-ff-ff-12-34-56");
    assert_eq!(AriCapability::find(&config).unwrap().unwrap().next_function(), 4);
    let acs = AcsCapability { capabilities: 0x1f, control: 0x1d };
    assert_eq!(AcsCapability::find(&config).unwrap(), Some(acs));
}

#[test]
fn a_function_inside_the_root_complex_has_no_link() {
    let bytes = Builder::new(1, 1).capability(0x40, Capability::PCI_EXPRESS, &[0; 0x12]).bytes(256);
    assert_eq!(PcieLink::find(&ConfigSpace::new(&bytes).unwrap()), Ok(None));
}

#[test]
fn a_missing_capability_is_not_found() {
    for length in [64, 256, 4096] {
        let bytes = Builder::new(1, 1).bytes(length);
        let config = ConfigSpace::new(&bytes).unwrap();
        assert_eq!(SriovCapability::find(&config), Ok(None));
        assert_eq!(MsixCapability::find(&config), Ok(None));
        assert_eq!(PcieLink::find(&config), Ok(None));
    }
}
