//! The device's registers against PCIe 6.0, chapter 9.

use std::time::Duration;

use ioward_pci::{AriCapability, ConfigSpace, PcieLink, SriovCapability};

use super::*;

// SR-IOV registers by address: the capability begins at 180h in this model.
const CONTROL: u16 = 0x188;
const INITIAL_VFS: u16 = 0x18c;
const TOTAL_VFS: u16 = 0x18e;
const NUM_VFS: u16 = 0x190;
const FIRST_VF_OFFSET: u16 = 0x194;
const VF_STRIDE: u16 = 0x196;
const VF_DEVICE_ID: u16 = 0x19a;
const SYSTEM_PAGE_SIZE: u16 = 0x1a0;
const VF_BAR0: u16 = 0x1a4;
const DEVICE_CONTROL: u16 = 0x48;
const MSIX_CONTROL: u16 = 0x82;

const VF_ENABLE: u16 = 1;
const VF_MSE: u16 = 1 << 3;
const ARI_CAPABLE_HIERARCHY: u16 = 1 << 4;

fn config(machine: &SimMachine, function: Bdf) -> Vec<u8> {
    (0..4096).step_by(4).flat_map(|offset| machine.config_read::<4>(function, offset)).collect()
}

fn read(machine: &SimMachine, function: Bdf, offset: u16) -> u16 {
    u16::from_le_bytes(machine.config_read(function, offset))
}

fn write(machine: &SimMachine, function: Bdf, offset: u16, value: u16) {
    machine.config_write(function, offset, value.to_le_bytes());
    assert_eq!(machine.hardware_violations(), [""; 0]);
}

/// Sets VF Enable and VF MSE with this many VFs, and waits until they answer.
fn enable(machine: &SimMachine, pf: Bdf, vfs: u16) {
    write(machine, pf, NUM_VFS, vfs);
    let control = read(machine, pf, CONTROL);
    write(machine, pf, CONTROL, control | VF_ENABLE | VF_MSE);
    machine.advance(Duration::from_millis(100));
}

fn disable(machine: &SimMachine, pf: Bdf) {
    let control = read(machine, pf, CONTROL);
    write(machine, pf, CONTROL, control & !VF_ENABLE);
}

fn answers(machine: &SimMachine, function: Bdf) -> bool {
    machine.config_read::<4>(function, 0x08) != [0xff; 4]
}

/// The addresses of a PF's VFs, from its own registers.
fn vfs(machine: &SimMachine, pf: Bdf, count: u16) -> Vec<Bdf> {
    let (offset, stride) = (read(machine, pf, FIRST_VF_OFFSET), read(machine, pf, VF_STRIDE));
    (0..count).map(|index| pf.virtual_function(offset, stride, index).unwrap()).collect()
}

/// §9.3: a PF has the SR-IOV capability, a VF has not; both have their own PCIe, MSI-X, AER, ARI and ACS.
#[test]
fn both_kinds_of_functions_have_their_capability_chains() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    enable(&machine, pf, 1);
    let vf = vfs(&machine, pf, 1)[0];
    let lists = |function| {
        let bytes = config(&machine, function);
        let config = ConfigSpace::new(&bytes).unwrap();
        let ids: Vec<_> = config.capabilities().map(|found| u16::from(found.unwrap().id)).collect();
        let extended: Vec<_> = config.extended_capabilities().map(|found| found.unwrap().id).collect();
        (ids, extended)
    };
    assert_eq!(lists(pf), (vec![0x10, 0x11], vec![0x01, 0x0e, 0x0d, 0x03, 0x10]));
    assert_eq!(lists(vf), (vec![0x10, 0x11], vec![0x01, 0x0e, 0x0d]));
    let bytes = config(&machine, pf);
    let link = PcieLink::find(&ConfigSpace::new(&bytes).unwrap()).unwrap().unwrap();
    assert_eq!((link.speed_mts, link.width), (2_500, 4));
}

/// §9.3.4.1: vendor and device ID of a VF read as FFFFh; its class is that of its PF, its BARs are zero.
#[test]
fn the_ids_of_a_vf_read_as_ones() {
    let (machine, _, pf) = machine(Adapter::nvme());
    enable(&machine, pf, 2);
    let vf = vfs(&machine, pf, 2)[1];
    assert_eq!(machine.config_read::<4>(vf, 0), [0xff; 4]);
    assert_eq!(machine.config_read::<4>(vf, 8), machine.config_read::<4>(pf, 8));
    machine.config_write(vf, 0x10, [0xff; 4]);
    assert_eq!(machine.config_read::<4>(vf, 0x10), [0; 4]);
}

/// §9.3.3.5, §9.3.3.6, §9.3.3.9 to §9.3.3.11.
#[test]
fn the_devices_own_registers_are_read_only() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    for register in [INITIAL_VFS, TOTAL_VFS, FIRST_VF_OFFSET, VF_STRIDE, VF_DEVICE_ID] {
        let before = read(&machine, pf, register);
        write(&machine, pf, register, !before);
        assert_eq!(read(&machine, pf, register), before, "register {register:#x}");
    }
    assert_eq!((read(&machine, pf, INITIAL_VFS), read(&machine, pf, TOTAL_VFS)), (8, 8));
}

/// §9.3.3.7: NumVFs may only be written while VF Enable is clear.
#[test]
fn num_vfs_is_locked_while_vfs_are_enabled() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    enable(&machine, pf, 3);
    write(&machine, pf, NUM_VFS, 5);
    assert_eq!(read(&machine, pf, NUM_VFS), 3);
    disable(&machine, pf);
    write(&machine, pf, NUM_VFS, 5);
    assert_eq!(read(&machine, pf, NUM_VFS), 5);
}

/// §9.3.3.7: NumVFs above TotalVFs is undefined. Here it makes no VF and does no harm.
#[test]
fn more_vfs_than_total_vfs_gives_none() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    enable(&machine, pf, 9);
    assert!(vfs(&machine, pf, 9).into_iter().all(|vf| !answers(&machine, vf)));
    disable(&machine, pf);
    machine.advance(Duration::from_secs(1));
    enable(&machine, pf, 8);
    assert!(vfs(&machine, pf, 8).into_iter().all(|vf| answers(&machine, vf)));
}

/// §9.3.3.9 and §9.3.3.10: First VF Offset and VF Stride may change with NumVFs and with ARI Capable Hierarchy.
#[test]
fn vf_addresses_change_with_num_vfs_and_ari() {
    let (machine, _, pf) = machine(Adapter::hundred_g());
    let offset_for = |count| {
        write(&machine, pf, NUM_VFS, count);
        read(&machine, pf, FIRST_VF_OFFSET)
    };
    assert_eq!((offset_for(32), offset_for(33)), (16, 192));
    let control = read(&machine, pf, CONTROL);
    write(&machine, pf, CONTROL, control & !ARI_CAPABLE_HIERARCHY);
    assert_eq!(offset_for(32), 256);
}

/// §9.2.1.2: VFs may be on bus numbers above that of their PF.
#[test]
fn vfs_spill_over_to_the_next_bus() {
    let (machine, _, pf) = machine(Adapter::hundred_g());
    enable(&machine, pf, 127);
    let vfs = vfs(&machine, pf, 127);
    assert_eq!((vfs[0], vfs[63], vfs[64]), (at("0000:01:18.0"), at("0000:01:1f.7"), at("0000:02:00.0")));
    assert!(vfs.iter().all(|vf| answers(&machine, *vf)));
}

/// §9.3.3.3.5: only the lowest-numbered PF has ARI Capable Hierarchy.
#[test]
fn only_the_first_port_has_ari_capable_hierarchy() {
    let (machine, _, first) = machine(Adapter::dual_25g());
    let second = machine.physical_functions()[1];
    assert_ne!(read(&machine, first, CONTROL) & ARI_CAPABLE_HIERARCHY, 0);
    write(&machine, second, CONTROL, ARI_CAPABLE_HIERARCHY);
    assert_eq!(read(&machine, second, CONTROL), 0);
}

/// §9.3.3.3.5: changing ARI Capable Hierarchy while any port's VFs are enabled is undefined, and ignored here.
#[test]
fn ari_capable_hierarchy_is_locked_while_any_port_has_vfs() {
    let (machine, _, first) = machine(Adapter::dual_25g());
    let second = machine.physical_functions()[1];
    enable(&machine, second, 1);
    write(&machine, first, CONTROL, 0);
    assert_ne!(read(&machine, first, CONTROL) & ARI_CAPABLE_HIERARCHY, 0);
    disable(&machine, second);
    write(&machine, first, CONTROL, 0);
    assert_eq!(read(&machine, first, CONTROL), 0);
}

/// §9.3.3.8: the Function Dependency Link of a port that depends on no other is its own number; the links of those that
/// depend on each other go round, from the last back to the first. §7.8.8: ARI chains the functions.
///
/// Both ports named function 0 once: the first was independent, and the second depended on one that did not know of it. The
/// ports of real NICs name themselves.
#[tokio::test]
async fn ports_depend_on_themselves_or_on_each_other_and_are_chained() {
    for (adapter, links, shown) in [
        (Adapter::dual_25g(), [(0, 1), (1, 0)], [None, None]),
        (Adapter::dual_25g().dependent_ports(), [(1, 1), (0, 0)], [Some(1), Some(0)]),
    ] {
        let (machine, _, _) = machine(adapter);
        let read = |pf: &Bdf| {
            let bytes = config(&machine, *pf);
            let config = ConfigSpace::new(&bytes).unwrap();
            assert!(config.is_multifunction());
            let sriov = SriovCapability::find(&config).unwrap().unwrap();
            (sriov.function_dependency_link, AriCapability::find(&config).unwrap().unwrap().next_function())
        };
        assert_eq!(machine.physical_functions().iter().map(read).collect::<Vec<_>>(), links);
        let pfs = identified(&machine).await.physical_functions;
        let found: Vec<_> =
            pfs.iter().map(|pf| pf.sriov.as_ref().unwrap().function_dependency_link).collect();
        assert_eq!(found, shown);
    }
}

/// §9.3.3.13: System Page Size is one supported size, and is written only while VF Enable is clear.
#[test]
fn the_system_page_size_is_a_supported_one() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    write(&machine, pf, SYSTEM_PAGE_SIZE, 1 << 4);
    assert_eq!(read(&machine, pf, SYSTEM_PAGE_SIZE), 1 << 4, "64 KiB");
    for wrong in [0, 1 << 2, 0b11, 1 << 15] {
        write(&machine, pf, SYSTEM_PAGE_SIZE, wrong);
        assert_eq!(read(&machine, pf, SYSTEM_PAGE_SIZE), 1 << 4, "{wrong:#x}");
    }
    enable(&machine, pf, 1);
    write(&machine, pf, SYSTEM_PAGE_SIZE, 1);
    assert_eq!(read(&machine, pf, SYSTEM_PAGE_SIZE), 1 << 4);
}

/// §9.3.3.14: a VF BAR is sized by writing ones, and is never smaller than a system page.
#[test]
fn vf_bars_are_sized_in_system_pages() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    let size = || {
        machine.config_write(pf, VF_BAR0, [0xff; 4]);
        let read = u32::from_le_bytes(machine.config_read(pf, VF_BAR0));
        assert_eq!(read & 0xf, 0b1100, "64 bits, prefetchable");
        (read & !0xf).wrapping_neg()
    };
    assert_eq!(size(), 16 << 10);
    write(&machine, pf, SYSTEM_PAGE_SIZE, 1 << 6);
    assert_eq!(size(), 256 << 10);
}

/// §9.3.3.3.4: VF MSE decides whether VFs decode memory, not the VF's own Command register.
#[test]
fn vfs_decode_memory_only_with_vf_mse() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    machine.config_write(pf, VF_BAR0, 0x8000_000c_u32.to_le_bytes());
    machine.config_write(pf, VF_BAR0 + 4, [0; 4]);
    enable(&machine, pf, 3);
    let vfs = vfs(&machine, pf, 3);
    assert_eq!(machine.memory_at(0x8000_0000), Some((vfs[0], 0)));
    assert_eq!(machine.memory_at(0x8000_bfff), Some((vfs[2], 0)));
    assert_eq!(machine.memory_at(0x8000_c000), None, "VF 3 does not exist");
    machine.config_write(vfs[0], 0x04, 0x0002_u16.to_le_bytes());
    assert_eq!(read(&machine, vfs[0], 0x04), 0, "a VF has no Memory Space Enable");
    write(&machine, pf, CONTROL, VF_ENABLE);
    assert_eq!(machine.memory_at(0x8000_0000), None);
}

/// §9.3.3.3.1: VFs answer 100 ms after VF Enable is set, and no longer once it is cleared; for a second after that,
/// setting it again has no effect.
#[test]
fn vfs_follow_vf_enable_with_the_specified_delays() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    write(&machine, pf, NUM_VFS, 1);
    let vf = vfs(&machine, pf, 1)[0];
    let control = read(&machine, pf, CONTROL);
    write(&machine, pf, CONTROL, control | VF_ENABLE);
    assert!(!answers(&machine, vf));
    machine.advance(Duration::from_millis(100));
    assert!(answers(&machine, vf));

    disable(&machine, pf);
    assert!(!answers(&machine, vf));
    enable(&machine, pf, 1);
    assert!(!answers(&machine, vf), "not within the second");
    machine.advance(Duration::from_secs(1));
    assert!(answers(&machine, vf));
}

/// §9.2.2.2: an FLR of a VF resets its own state; it stays enabled, and its neighbours are unaffected.
#[test]
fn an_flr_of_a_vf_resets_only_that_vf() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    enable(&machine, pf, 2);
    let vfs = vfs(&machine, pf, 2);
    for vf in &vfs {
        write(&machine, *vf, MSIX_CONTROL, 0x8000);
        write(&machine, *vf, 0x04, 0x0004);
    }
    write(&machine, vfs[0], DEVICE_CONTROL, 0x8000);
    assert!(!answers(&machine, vfs[0]));
    machine.advance(Duration::from_millis(100));
    assert_eq!((read(&machine, vfs[0], MSIX_CONTROL), read(&machine, vfs[0], 0x04)), (2, 0));
    assert_eq!((read(&machine, vfs[1], MSIX_CONTROL), read(&machine, vfs[1], 0x04)), (0x8002, 4));
    assert_eq!(read(&machine, vfs[0], DEVICE_CONTROL), 0, "Initiate FLR reads as zero");
}

/// §9.2.2.3: an FLR of a PF clears VF Enable, which removes its VFs.
#[test]
fn an_flr_of_a_pf_removes_its_vfs() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    enable(&machine, pf, 2);
    let vfs = vfs(&machine, pf, 2);
    write(&machine, pf, DEVICE_CONTROL, 0x8000);
    machine.advance(Duration::from_secs(2));
    assert!(vfs.into_iter().all(|vf| !answers(&machine, vf)));
    assert_eq!((read(&machine, pf, CONTROL) & VF_ENABLE, read(&machine, pf, NUM_VFS)), (0, 0));
}

/// §2.3.2: an unroutable read returns all ones, and an unroutable write is lost.
#[test]
fn unroutable_reads_return_ones() {
    let (machine, _, pf) = machine(Adapter::gigabit());
    machine.config_write(at("0000:7f:00.0"), 0x04, [0; 4]);
    assert_eq!(machine.config_read::<4>(at("0000:7f:00.0"), 0), [0xff; 4]);
    assert_eq!(machine.config_read::<4>(pf, 0xffff), [0xff; 4]);
}
