//! Lists that loop, break off or point astray, and random bytes: every walk ends and nothing panics.

use ioward_pci::{
    AcsCapability, AriCapability, Capability, ConfigError, ConfigSpace, DeviceSerialNumber, MsixCapability,
    PcieLink, SriovCapability,
};
use proptest::prelude::*;

use crate::builder::Builder;

fn with_both_lists() -> Builder {
    let express = [0x42; 0x12];
    Builder::new(0x8086, 0x10c9)
        .capability(0x40, Capability::MSIX, &[9, 0])
        .capability(0x70, Capability::PCI_EXPRESS, &express)
        .extended(0x100, 0x0003, &[1; 8])
        .extended(0x140, 0x0010, &[0; 0x3c])
}

fn errors(bytes: &[u8]) -> Vec<ConfigError> {
    let config = ConfigSpace::new(bytes).unwrap();
    let errors = config.capabilities().filter_map(Result::err);
    errors.chain(config.extended_capabilities().filter_map(Result::err)).collect()
}

#[test]
fn a_loop_is_found_where_it_closes() {
    let bytes = with_both_lists().u8(0x71, 0x40).u16(0x142, 0x1001).bytes(4096);
    let expected =
        [ConfigError::Loop { from: 0x70, offset: 0x40 }, ConfigError::Loop { from: 0x140, offset: 0x100 }];
    assert_eq!(errors(&bytes), expected);
    let config = ConfigSpace::new(&bytes).unwrap();
    assert!(SriovCapability::find(&config).unwrap().is_some(), "what comes before the loop is found");
}

#[test]
fn a_capability_that_points_to_itself_is_a_loop() {
    let bytes = with_both_lists().u8(0x41, 0x40).bytes(256);
    assert_eq!(errors(&bytes), [ConfigError::Loop { from: 0x40, offset: 0x40 }]);
}

/// The specification reserves the two lowest bits of a pointer and has software mask them; the kernel does.
#[test]
fn a_misaligned_pointer_is_reported_and_followed_with_its_low_bits_cleared() {
    let bytes = with_both_lists().u8(0x41, 0x72).u16(0x102, 0x1421).bytes(4096);
    let expected = [
        ConfigError::Misaligned { from: 0x40, pointer: 0x72 },
        ConfigError::Misaligned { from: 0x100, pointer: 0x142 },
    ];
    assert_eq!(errors(&bytes), expected);
    let config = ConfigSpace::new(&bytes).unwrap();
    assert_eq!(config.find(Capability::PCI_EXPRESS), Some(0x70));
    assert!(SriovCapability::find(&config).unwrap().is_some());
}

#[test]
fn a_pointer_into_the_header_ends_the_list() {
    let bytes = with_both_lists().u8(0x41, 0x10).u16(0x102, 0x0801).bytes(4096);
    let expected = [
        ConfigError::IntoHeader { from: 0x40, pointer: 0x10 },
        ConfigError::IntoHeader { from: 0x100, pointer: 0x80 },
    ];
    assert_eq!(errors(&bytes), expected);
}

#[test]
fn a_list_beyond_the_readable_bytes_is_truncated() {
    let bytes = with_both_lists().bytes(64);
    assert_eq!(errors(&bytes), [ConfigError::Truncated { offset: 0x40, size: 2, length: 64 }]);
    let bytes = with_both_lists().bytes(0x142);
    assert_eq!(errors(&bytes), [ConfigError::Truncated { offset: 0x140, size: 4, length: 0x142 }]);
}

#[test]
fn truncation_at_any_length_is_an_error_or_a_shorter_list() {
    let whole = with_both_lists().bytes(4096);
    for length in 0..=whole.len() {
        look_at_everything(&whole[..length]);
        let Ok(config) = ConfigSpace::new(&whole[..length]) else { continue };
        let found = SriovCapability::find(&config);
        match length {
            ..0x144 => assert_eq!(found, Ok(None), "{length:#x}"),
            0x144..0x17c => assert!(matches!(found, Err(ConfigError::Truncated { .. })), "{length:#x}"),
            _ => assert!(found.unwrap().is_some(), "{length:#x}"),
        }
    }
}

#[test]
fn the_longest_lists_there_can_be_are_walked_to_their_end() {
    let mut builder = Builder::new(1, 1);
    for offset in (0x40..=0xfc).step_by(4) {
        builder = builder.capability(offset, 0x09, &[]);
    }
    for offset in (0x100..0x1000).step_by(4) {
        builder = builder.extended(offset, 0x000b, &[]);
    }
    let bytes = builder.bytes(4096);
    let config = ConfigSpace::new(&bytes).unwrap();
    assert_eq!(config.capabilities().filter_map(Result::ok).count(), 48);
    assert_eq!(config.extended_capabilities().filter_map(Result::ok).count(), 960);
    assert!(errors(&bytes).is_empty());
}

#[test]
fn an_extended_part_of_zeros_or_ones_is_an_empty_list() {
    for first in [0, u32::MAX] {
        let bytes = Builder::new(1, 1).u32(0x100, first).bytes(4096);
        assert_eq!(ConfigSpace::new(&bytes).unwrap().extended_capabilities().count(), 0);
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic_and_every_walk_ends(bytes in proptest::collection::vec(any::<u8>(), 0..=4200)) {
        look_at_everything(&bytes);
    }

    /// Random bytes rarely make a list; a good one with a few bytes wrong goes further.
    #[test]
    fn a_damaged_configuration_space_never_panics(
        damage in proptest::collection::vec((0..4096_usize, any::<u8>()), 0..64), length in 64..=4096_usize,
    ) {
        let mut bytes = with_both_lists().bytes(4096);
        for (offset, value) in damage {
            bytes[offset] = value;
        }
        look_at_everything(&bytes[..length]);
    }
}

fn look_at_everything(bytes: &[u8]) {
    let Ok(config) = ConfigSpace::new(bytes) else { return };
    // Every entry may come with one report of a misaligned pointer, and one error ends the walk.
    assert!(config.capabilities().count() <= 2 * 64 + 1);
    assert!(config.extended_capabilities().count() <= 2 * 1024 + 1);
    if let Ok(Some(sriov)) = SriovCapability::find(&config) {
        assert!(sriov.vf_bar_registers().len() <= 6);
        assert!(SriovCapability::page_sizes(sriov.supported_page_sizes).len() <= 32);
    }
    if let Ok(Some(msix)) = MsixCapability::find(&config) {
        assert!((1..=2048).contains(&msix.vectors));
    }
    let _ =
        (PcieLink::find(&config), DeviceSerialNumber::find(&config), config.subsystem(), config.class_code());
    let _ = (AriCapability::find(&config), AcsCapability::find(&config));
}
