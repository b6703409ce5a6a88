//! One physical function.

use ioward_model::{Class, Conditions, ErrorCounts, HexId, Link, PhysicalFunction, Service, Subclass};
use ioward_pci::{
    Bdf, ConfigError, ConfigSpace, DeviceSerialNumber, MsixCapability, PcieLink, SriovCapability,
};

use super::{Host, IOMMU_GROUPS, netdev, nvme, port, probe::Probe, sriov, virtual_function};
use crate::{describe, linux::adapters};

/// Power states in which a function can't enable VFs (drivers/pci/pci.c `pci_power_names`).
const ASLEEP: [&str; 4] = ["D1", "D2", "D3hot", "D3cold"];

/// Stands for an unreadable ID: no vendor or device has it.
const NO_ID: HexId = HexId(0xffff);

/// The function at an address, if it is or may be a physical function.
pub(super) fn read(host: &Host<'_>, address: Bdf) -> Option<PhysicalFunction> {
    if host.vfs.borrow().contains(&address) {
        return None;
    }
    let mut probe = Probe::new(host.root, address);
    if probe.is_vf() {
        return None;
    }
    let names = probe.list("");
    let has = |name: &str| names.iter().any(|entry| entry == name);
    if names.is_empty() || has("physfn") {
        return None;
    }
    // Read before anything that wakes the function.
    let power_state = probe.optional("power_state", "a power state", |text| Some(text.to_owned()));
    let bytes = probe.config();
    let config = bytes.as_deref().map(ConfigSpace::new);
    let no_answer = matches!(config, Some(Err(ConfigError::NoAnswer)));
    let known_to_kernel = names.iter().any(|name| name.starts_with("sriov_") || name.starts_with("virtfn"));
    if !known_to_kernel && !matches!(&config, Some(Ok(config)) if may_have_sriov(config)) {
        return None;
    }

    let config = config.and_then(|config| config.inspect_err(|error| probe.note_config(*error)).ok());
    let capabilities = config.map(|config| capabilities(&mut probe, config)).unwrap_or_default();
    let (sriov, bars_without_room) = match capabilities.sriov {
        Some(found) => Some(sriov::from_capability(&mut probe, &found)),
        None if known_to_kernel => sriov::from_attributes(&mut probe),
        None => None,
    }
    .unzip();
    let total_vfs = sriov.as_ref().map(|sriov| sriov.total_vfs);
    let virtual_functions = virtual_function::read_all(host, &mut probe, &names, total_vfs);
    let num_vfs = sriov.as_ref().map(|sriov| sriov.num_vfs);
    if let Some(num_vfs) = num_vfs.filter(|num_vfs| usize::from(*num_vfs) != virtual_functions.len()) {
        probe.note(format!("{num_vfs} VFs, which is NumVFs"), virtual_functions.len());
    }

    let Identity { vendor_id, device_id, class, subclass } = identity(&mut probe, config);
    let netdev_names = if has("net") { probe.list("net") } else { Vec::new() };
    let mut in_use_by_host = netdev::used_by_host(host, &mut probe, &netdev_names);
    in_use_by_host.extend(nvme::used_by_host(host, &mut probe));
    let iommu_group = probe.iommu_group();
    // The device's own functions may share a group for lack of ACS between them, which does not affect its VFs
    // (drivers/iommu/iommu.c `pci_device_group`). A partial copy of a tree has no groups, which proves nothing
    // about the host.
    let listed = iommu_group.filter(|group| host.root.exists(&format!("{IOMMU_GROUPS}/{group}/devices")));
    let mut strangers = listed.map(|group| probe.others_in_group(&host.groups, group)).unwrap_or_default();
    strangers.retain(|other| {
        !address.is_same_device(*other) && virtual_functions.iter().all(|vf| vf.address != *other)
    });
    let mut pf = PhysicalFunction {
        address,
        id: None,
        vendor_id,
        device_id,
        name: host.name(vendor_id, device_id),
        class,
        subclass,
        driver: probe.link("driver"),
        capabilities: None,
        numa_node: probe
            .optional("numa_node", "a number", |text| text.parse::<i64>().ok())
            .and_then(|node| node.try_into().ok()),
        iommu_group,
        iommu_group_shared_with: strangers,
        serial_number: capabilities.serial_number.map(|serial| serial.to_string()),
        link: capabilities.link.map(describe::link).or_else(|| link_from_attributes(&mut probe)),
        msix_vectors: capabilities.msix.map(|msix| msix.vectors),
        vfs_assigned: 0,
        vfs_available: 0,
        out_of_service: None,
        conditions: Conditions {
            no_numvfs: !has("sriov_numvfs"),
            bars_without_room: bars_without_room.unwrap_or_default(),
            port_in_group: None,
            last_bus: None,
            power_state: power_state.filter(|state| ASLEEP.contains(&state.as_str())),
            no_answer,
            initial_vfs_differ: capabilities
                .sriov
                .is_some_and(|found| !found.vf_migration_capable() && found.initial_vfs != found.total_vfs),
        },
        sriov,
        drivers_autoprobe: probe.expect("sriov_drivers_autoprobe", "0 or 1", |text| match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }),
        // Every PF has the attribute, with 0 if the driver distributes nothing (drivers/pci/iov.c). On the running
        // kernel, live.rs reads it with a bound.
        vf_msix_total: (!host.root.is_live())
            .then(|| probe.optional("sriov_vf_total_msix", "a number", |text| text.parse().ok()))
            .flatten()
            .filter(|total| *total > 0),
        netdevs: netdev::read(&mut probe, &netdev_names),
        rdma_devices: if has("infiniband") { probe.list("infiniband") } else { Vec::new() },
        nvme: nvme::read(&mut probe),
        in_use_by_host,
        errors: if has("aer_dev_fatal") { errors(&mut probe) } else { None },
        health: None,
        service: Service::Serving,
        virtual_functions,
        reasons: probe.finish(),
    };
    pf.capabilities = adapters::capabilities(&pf);
    Some(pf)
}

/// Adds what the ports above a PF tell of it. Once all VFs are known: they are not looked at to find the ports.
pub(super) fn add_ports(host: &Host<'_>, pf: &mut PhysicalFunction) {
    let (root, bridges) = (host.root, host.bridges());
    pf.conditions.port_in_group =
        pf.iommu_group.and_then(|group| port::in_group(root, bridges, pf.address, group));
    pf.conditions.last_bus = port::last_bus(bridges, pf.address);
    if let Some(errors) = &mut pf.errors {
        errors.fatal = errors.fatal.max(port::fatal_errors(root, bridges, pf.address).unwrap_or(0));
    }
}

/// The totals of the errors that a function has reported (drivers/pci/pcie/aer.c `aer_dev_fatal` and its like): a line for each kind of
/// error and, last, their sum. A fatal error the kernel mostly counts at the root port alone: it does not read the function's registers,
/// which may be out of reach (`aer_get_device_error_info`). Its recovery resets everything below that port.
pub(super) fn errors(probe: &mut Probe<'_>) -> Option<ErrorCounts> {
    let mut total = |file: &str, line: &str| {
        probe.optional(file, "counts of errors", |text| {
            let of_line = |(name, count): (&str, &str)| (name == line).then(|| count.trim().parse().ok());
            text.lines().filter_map(|line| line.split_once(' ')).find_map(of_line)?
        })
    };
    Some(ErrorCounts {
        correctable: total("aer_dev_correctable", "TOTAL_ERR_COR")?,
        nonfatal: total("aer_dev_nonfatal", "TOTAL_ERR_NONFATAL")?,
        fatal: total("aer_dev_fatal", "TOTAL_ERR_FATAL")?,
    })
}

struct Identity {
    vendor_id: HexId,
    device_id: HexId,
    class: Class,
    subclass: Option<Subclass>,
}

/// The function's IDs and class: from the kernel, which knows about broken devices, or else from the header.
fn identity(probe: &mut Probe<'_>, config: Option<ConfigSpace<'_>>) -> Identity {
    let hex = |text: &str| u32::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    let id = |text: &str| hex(text).and_then(|id| u16::try_from(id).ok()).map(HexId);
    let vendor_id = probe.expect("vendor", "a PCI ID", id);
    let device_id = probe.expect("device", "a PCI ID", id);
    let code = probe.expect("class", "a class code", hex).or(config.map(|config| config.class_code()));
    Identity {
        vendor_id: vendor_id.or(config.map(|config| HexId(config.vendor_id()))).unwrap_or(NO_ID),
        device_id: device_id.or(config.map(|config| HexId(config.device_id()))).unwrap_or(NO_ID),
        class: code.map_or(Class::Other, Class::from_code),
        subclass: code.and_then(Subclass::from_code),
    }
}

/// Whether a function may be a PF although the kernel does not call it one: it has the capability, as in a partial
/// copy of a tree, or its extended list breaks off too early to tell.
fn may_have_sriov(config: &ConfigSpace<'_>) -> bool {
    // A list that ends in a loop has been read as far as it is reachable.
    let broken =
        |error: &ConfigError| !matches!(error, ConfigError::Misaligned { .. } | ConfigError::Loop { .. });
    !matches!(SriovCapability::find(config), Ok(None))
        || (config.header_type() == 0
            && config.extended_capabilities().filter_map(Result::err).any(|error| broken(&error)))
}

/// The facts from configuration space, as far as it is readable.
#[derive(Default)]
struct Found {
    sriov: Option<SriovCapability>,
    link: Option<PcieLink>,
    msix: Option<MsixCapability>,
    serial_number: Option<DeviceSerialNumber>,
}

fn capabilities(probe: &mut Probe<'_>, config: ConfigSpace<'_>) -> Found {
    if !config.has_extended() {
        let required = format!("configuration space with its extended part in /{}", probe.path("config"));
        let found = format!(
            "its first {} bytes; page sizes, ARI, VF BAR sizes and the serial number are not known",
            config.length()
        );
        let remedy = if config.is_header_only() { "root may read all of it" } else { "" };
        probe.note_with_remedy(required, found, remedy);
    }
    if config.is_header_only() {
        return Found::default();
    }
    probe.check_lists(&config);
    Found {
        sriov: probe.readable(SriovCapability::find(&config)),
        link: probe.readable(PcieLink::find(&config)),
        msix: probe.readable(MsixCapability::find(&config)),
        serial_number: probe.readable(DeviceSerialNumber::find(&config)),
    }
}

/// The kernel's text for the link, as `8.0 GT/s PCIe`, or `8 GT/s` of Linux 4.13 to 5.6; "Unknown" without a link.
fn link_from_attributes(probe: &mut Probe<'_>) -> Option<Link> {
    let mut text = |name| probe.optional(name, "a link speed or width", |text| Some(text.to_owned()));
    Some(Link {
        speed_mts: speed_mts(&text("current_link_speed")?)?,
        width: text("current_link_width")?.parse().ok()?,
        max_speed_mts: speed_mts(&text("max_link_speed")?)?,
        max_width: text("max_link_width")?.parse().ok()?,
    })
}

fn speed_mts(text: &str) -> Option<u32> {
    let number = text.split_once(" GT/s")?.0;
    let (whole, tenths) = number.split_once('.').unwrap_or((number, "0"));
    let (whole, tenths): (u32, u32) = (whole.parse().ok()?, tenths.parse().ok()?);
    (whole < 1000 && tenths < 10).then_some(whole * 1000 + tenths * 100)
}
