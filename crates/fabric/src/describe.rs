//! From what configuration space says to the words of the model: the same for every machine.

use ioward_model::{HexId, Link, Sriov, VfBar};
use ioward_pci::{Bdf, PcieLink, SriovCapability};

/// The SR-IOV capability of the PF at `function`. `allowed` is how many VFs its driver allows, where that is known: igb
/// keeps one of eight for the PF (pci_sriov_set_totalvfs). `vf_bars` come from elsewhere, since a register alone does
/// not tell its size.
pub(crate) fn sriov(
    function: Bdf,
    found: &SriovCapability,
    allowed: Option<u16>,
    vf_bars: Vec<VfBar>,
) -> Sriov {
    let total_vfs = allowed.map_or(found.total_vfs, |allowed| allowed.min(found.total_vfs));
    let [own_number, _] = function.routing_id().to_le_bytes();
    let system_page_sizes = SriovCapability::page_sizes(found.system_page_size);
    Sriov {
        total_vfs,
        initial_vfs: found.initial_vfs.min(total_vfs),
        num_vfs: if found.vf_enable() { found.num_vfs } else { 0 },
        vf_enable: found.vf_enable(),
        first_vf_offset: found.first_vf_offset,
        vf_stride: found.vf_stride,
        vf_device_id: HexId(found.vf_device_id),
        supported_page_sizes: SriovCapability::page_sizes(found.supported_page_sizes),
        system_page_size: if let [size] = system_page_sizes[..] { size } else { 0 },
        ari: found.ari_capable_hierarchy(),
        function_dependency_link: Some(found.function_dependency_link).filter(|link| *link != own_number),
        vf_bars,
    }
}

/// The PCIe link.
pub(crate) fn link(found: PcieLink) -> Link {
    let PcieLink { speed_mts, width, max_speed_mts, max_width } = found;
    Link { speed_mts, width, max_speed_mts, max_width }
}
