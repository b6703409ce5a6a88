//! The SR-IOV side of a PF: its capability, or the part of it in the kernel's attributes.

use ioward_model::{HexId, Sriov, VfBar};
use ioward_pci::SriovCapability;

use super::probe::Probe;
use crate::describe;

/// Index of the VF BARs among the lines of `resource`: PCI_IOV_RESOURCES of include/linux/pci.h, after six BARs and
/// the ROM.
const FIRST_VF_BAR: usize = 7;
// Flags of the third column: include/linux/ioport.h.
const IORESOURCE_PREFETCH: u64 = 0x2000;
const IORESOURCE_MEM_64: u64 = 0x10_0000;
/// No address was found.
const IORESOURCE_UNSET: u64 = 0x2000_0000;

/// Numbers of the VF BARs without address space.
type WithoutRoom = Vec<u8>;

/// From the capability itself.
pub(super) fn from_capability(probe: &mut Probe<'_>, found: &SriovCapability) -> (Sriov, WithoutRoom) {
    let allowed = probe.expect("sriov_totalvfs", "a number", number::<u16>);
    let (vf_bars, without_room) = vf_bars(probe, found);
    let sriov = describe::sriov(probe.function, found, allowed, vf_bars);
    if sriov.num_vfs > found.total_vfs {
        let found = format!("NumVFs {}, TotalVFs {}", sriov.num_vfs, found.total_vfs);
        probe.note("NumVFs of at most TotalVFs", found);
    }
    (sriov, without_room)
}

/// From the kernel's attributes, for a reader without access to the capability. InitialVFs is assumed to be
/// TotalVFs; page sizes, ARI and the function dependency link remain unknown.
pub(super) fn from_attributes(probe: &mut Probe<'_>) -> Option<(Sriov, WithoutRoom)> {
    let total_vfs = probe.expect("sriov_totalvfs", "a number", number)?;
    let num_vfs = probe.expect("sriov_numvfs", "a number", number).unwrap_or(0);
    let windows = vf_windows(probe).unwrap_or_default();
    let bars: Vec<_> = (0..).zip(windows).filter(|(_, window)| window.flags != 0).collect();
    let without_room: WithoutRoom =
        bars.iter().filter(|(_, window)| !window.is_placed()).map(|(index, _)| *index).collect();
    without_room.iter().for_each(|index| note_no_room(probe, *index));
    let sriov = Sriov {
        total_vfs,
        initial_vfs: total_vfs,
        num_vfs,
        vf_enable: num_vfs > 0,
        first_vf_offset: probe.expect("sriov_offset", "a number", number).unwrap_or(0),
        vf_stride: probe.expect("sriov_stride", "a number", number).unwrap_or(0),
        vf_device_id: probe
            .expect("sriov_vf_device", "a device ID", |id| id.parse().ok())
            .unwrap_or(HexId(0xffff)),
        supported_page_sizes: Vec::new(),
        system_page_size: 0,
        ari: false,
        function_dependency_link: None,
        vf_bars: bars
            .into_iter()
            .map(|(index, window)| VfBar {
                index,
                is_64bit: window.flags & IORESOURCE_MEM_64 != 0,
                prefetchable: window.flags & IORESOURCE_PREFETCH != 0,
                // This would require the hardware's own TotalVFs, and only the driver's is known.
                bytes_per_vf: None,
            })
            .collect(),
    };
    Some((sriov, without_room))
}

fn note_no_room(probe: &mut Probe<'_>, index: u8) {
    let remedy = "turn on 'Above 4G decoding' in the firmware, or boot with pci=realloc";
    probe.note_with_remedy(format!("address space for VF BAR {index}"), "none was assigned", remedy);
}

/// The VF BARs that exist, with their sizes, and those among them without address space.
fn vf_bars(probe: &mut Probe<'_>, found: &SriovCapability) -> (Vec<VfBar>, WithoutRoom) {
    let windows = vf_windows(probe);
    let (mut bars, mut without_room) = (Vec::new(), Vec::new());
    for register in found.vf_bar_registers() {
        let window = windows.as_ref().and_then(|windows| windows.get(usize::from(register.index)));
        let assigned = window.filter(|window| window.is_placed());
        let exists = window.is_some_and(|window| window.flags != 0);
        if !exists && !register.is_64bit && !register.prefetchable && register.address == 0 {
            continue;
        }
        // The kernel reserves TotalVFs times the size of one (sriov_init in drivers/pci/iov.c).
        let total = assigned.and_then(|window| window.end.checked_sub(window.start)?.checked_add(1));
        let size = total.and_then(|total| total.checked_div(u64::from(found.total_vfs)));
        let exact =
            |size: &u64| size.is_power_of_two() && total == size.checked_mul(u64::from(found.total_vfs));
        let bytes_per_vf = size.filter(exact);
        let index = register.index;
        if window.is_some() && assigned.is_none() {
            note_no_room(probe, index);
            without_room.push(index);
        } else if assigned.is_some() && bytes_per_vf.is_none() {
            let required = format!("a range for VF BAR {index} of {} equal powers of two", found.total_vfs);
            probe.note(required, total.map_or("an empty one".to_owned(), |total| format!("{total} bytes")));
        }
        let (is_64bit, prefetchable) = (register.is_64bit, register.prefetchable);
        bars.push(VfBar { index, is_64bit, prefetchable, bytes_per_vf });
    }
    (bars, without_room)
}

/// A line of `resource`.
struct Window {
    start: u64,
    /// Its last byte.
    end: u64,
    flags: u64,
}

impl Window {
    fn is_placed(&self) -> bool {
        self.flags != 0 && self.flags & IORESOURCE_UNSET == 0 && self.start != 0
    }
}

/// The six lines of `resource` for VFs.
fn vf_windows(probe: &mut Probe<'_>) -> Option<Vec<Window>> {
    probe.expect("resource", "13 or more lines of start, end and flags", |text| {
        let windows: Vec<Window> = text.lines().map(window).collect::<Option<_>>()?;
        let of_vfs: Vec<Window> = windows.into_iter().skip(FIRST_VF_BAR).take(6).collect();
        (of_vfs.len() == 6).then_some(of_vfs)
    })
}

fn window(line: &str) -> Option<Window> {
    let mut columns =
        line.split_whitespace().map(|column| u64::from_str_radix(column.strip_prefix("0x")?, 16).ok());
    let (start, end, flags) = (columns.next()??, columns.next()??, columns.next()??);
    columns.next().is_none().then_some(Window { start, end, flags })
}

/// A decimal number.
fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}
