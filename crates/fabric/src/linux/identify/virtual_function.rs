//! The virtual functions of a PF, through its `virtfnN` links.

use ioward_model::{VfSettings, VirtualFunction, is_lending};
use ioward_pci::{Bdf, ConfigSpace, MsixCapability};

use super::{Host, netdev, nvme, probe::Probe};

/// All VFs of a PF, by index. `names` are the entries of the PF's folder, `total_vfs` its bound, if known.
pub(super) fn read_all(
    host: &Host<'_>,
    pf: &mut Probe<'_>,
    names: &[String],
    total_vfs: Option<u16>,
) -> Vec<VirtualFunction> {
    let mut functions = Vec::new();
    for name in names {
        let Some(number) = name.strip_prefix("virtfn") else { continue };
        let index = number.parse().ok().filter(|index: &u16| index.to_string() == number);
        let Some(index) = index.filter(|index| *index < total_vfs.unwrap_or(u16::MAX)) else {
            let below =
                total_vfs.map_or("VF links".to_owned(), |total| format!("VF links numbered below {total}"));
            pf.note(below, format!("'{}'", name.chars().take(40).collect::<String>()));
            continue;
        };
        functions.extend(pf.link_to_function(name).map(|address| read(host, pf.function, index, address)));
    }
    functions.sort_by_key(|vf| vf.index);
    functions
}

fn read(host: &Host<'_>, pf: Bdf, index: u16, address: Bdf) -> VirtualFunction {
    // From here on it uses the VF's address, and never follows the link itself.
    let mut probe = Probe::new(host.root, address);
    let parent = probe.link_to_function("physfn");
    // The folder is not listed for what a VF may have: that takes longer than to ask for each.
    let is_there = parent.is_some() || !probe.list("").is_empty();
    match parent {
        Some(parent) if parent == pf => _ = host.vfs.borrow_mut().insert(address),
        Some(parent) => probe.note(format!("a VF of {pf}"), format!("a VF of {parent}")),
        None if !is_there => {}
        None => probe.note(format!("a VF of {pf}"), "a function that is no VF"),
    }
    let driver = probe.link("driver");
    // What is handed to a program has no interface and no controller on the host. A vGPU it may have, by a driver of its vendor's.
    let is_vfio = driver.as_deref() == Some("vfio-pci");
    let is_lent = driver.as_deref().is_some_and(is_lending);
    let netdevs = if is_lent { Vec::new() } else { probe.list("net") };
    let mut in_use_by_host = netdev::used_by_host(host, &mut probe, &netdevs);
    if !is_lent {
        in_use_by_host.extend(nvme::used_by_host(host, &mut probe));
    }
    let iommu_group = probe.iommu_group();
    VirtualFunction {
        index,
        address,
        driver,
        iommu_group,
        iommu_group_shared_with: iommu_group
            .map(|group| probe.others_in_group(&host.groups, group))
            .unwrap_or_default(),
        msix_vectors: if is_there { msix_vectors(&mut probe) } else { None },
        flr: flr(&mut probe),
        vgpu_type: if is_vfio { None } else { vgpu_type(&mut probe) },
        netdevs,
        in_use_by_host,
        settings: VfSettings::default(),
        owner: None,
        // Only what is lent can halt a machine.
        errors: if is_lent { super::physical::errors(&mut probe) } else { None },
        out_of_service: None,
        holder: None,
        reasons: probe.finish(),
    }
}

/// Whether the kernel can reset it by Function Level Reset (known since Linux 5.15).
fn flr(probe: &mut Probe<'_>) -> Option<bool> {
    let methods = probe.optional("reset_method", "ways to reset", |text| Some(text.to_owned()))?;
    Some(methods.split_whitespace().any(|method| method.ends_with("flr")))
}

fn vgpu_type(probe: &mut Probe<'_>) -> Option<u32> {
    probe.optional("nvidia/current_vgpu_type", "a number", |text| text.parse().ok())
}

fn msix_vectors(probe: &mut Probe<'_>) -> Option<u16> {
    let bytes = probe.config()?;
    let config = ConfigSpace::new(&bytes).inspect_err(|error| probe.note_config(*error)).ok()?;
    // Unprivileged readers see only the header; the PF reports this once for all its VFs.
    if config.is_header_only() {
        return None;
    }
    probe.check_lists(&config);
    probe.readable(MsixCapability::find(&config)).map(|msix| msix.vectors)
}
