//! Configuration space: every parser, over bytes that some device may hold.
#![no_main]

use ioward_pci::{
    AcsCapability, AriCapability, ConfigSpace, DeviceSerialNumber, MsixCapability, PcieLink, SriovCapability,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = ConfigSpace::new(bytes) else { return };
    // Each list has at most one entry, and one remark, for each dword.
    assert!(config.capabilities().count() <= 2 * 64);
    assert!(config.extended_capabilities().count() <= 2 * 1024);
    let _ = (config.class_code(), config.subsystem(), config.header_type());
    let _ = (PcieLink::find(&config), MsixCapability::find(&config), DeviceSerialNumber::find(&config));
    let _ = (AriCapability::find(&config), AcsCapability::find(&config));
    if let Ok(Some(sriov)) = SriovCapability::find(&config) {
        assert!(sriov.vf_bar_registers().into_iter().count() <= 6);
    }
});
