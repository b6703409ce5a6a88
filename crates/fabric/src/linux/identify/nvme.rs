//! The NVMe controller of a function, and the host's uses of its namespaces.

use ioward_model::{HostUse, NvmeController, NvmeState};

use super::{Host, MAX_USES, probe::Probe};

/// Maximum number of namespaces listed for a controller.
const MAX_NAMESPACES: usize = 1024;

/// The controller, if the kernel's nvme driver runs the function.
pub(super) fn read(probe: &mut Probe<'_>) -> Option<NvmeController> {
    let name = controller(probe)?;
    let text = |text: &str| Some(text.to_owned());
    let entries = probe.list(&format!("nvme/{name}"));
    let mut namespaces: Vec<String> = entries.iter().filter_map(|entry| disk_of(entry)).collect();
    namespaces.sort_unstable();
    namespaces.dedup();
    namespaces.truncate(MAX_NAMESPACES);
    Some(NvmeController {
        namespaces,
        serial: probe
            .expect(&format!("nvme/{name}/serial"), "a serial number", text)
            .filter(|text| !text.is_empty()),
        model: probe.expect(&format!("nvme/{name}/model"), "a model", text).filter(|text| !text.is_empty()),
        state: probe
            .optional(&format!("nvme/{name}/state"), "a state", |text| Some(NvmeState::of_word(text)))
            .flatten(),
        name,
        resources: None,
        secondaries: Vec::new(),
    })
}

/// The host's uses of the controller's namespaces.
pub(super) fn used_by_host(host: &Host<'_>, probe: &mut Probe<'_>) -> Vec<HostUse> {
    let Some(controller) = controller(probe) else { return Vec::new() };
    let entries = probe.list(&format!("nvme/{controller}"));
    let mut uses = Vec::new();
    for (entry, disk) in entries.iter().filter_map(|entry| Some((entry, disk_of(entry)?))) {
        if uses.len() >= MAX_USES {
            break;
        }
        // The disk of a shared namespace belongs to the subsystem rather than the controller.
        let folder = format!("sys/class/block/{disk}");
        let own_folder = probe.path(&format!("nvme/{controller}/{entry}"));
        let folder = if probe.root.exists(&folder) { folder } else { own_folder };
        uses.extend(host.block.of_disk(probe, &disk, &folder));
    }
    host.block.problems.iter().for_each(|(required, found)| probe.note(required, found));
    uses
}

fn controller(probe: &mut Probe<'_>) -> Option<String> {
    let names = probe.list("nvme");
    names.into_iter().find(|name| name.strip_prefix("nvme").is_some_and(is_number))
}

/// The disk of an entry in a controller's folder: `nvme0n1` is a disk itself, and `nvme0c1n1` is the path through
/// controller 1 to the shared namespace with the disk `nvme0n1` (nvme_mpath_set_disk_name in drivers/nvme/host).
fn disk_of(entry: &str) -> Option<String> {
    let (subsystem, namespace) = entry.strip_prefix("nvme")?.split_once('n')?;
    let subsystem = match subsystem.split_once('c') {
        Some((subsystem, controller)) if is_number(controller) => subsystem,
        Some(_) => return None,
        None => subsystem,
    };
    (is_number(subsystem) && is_number(namespace)).then(|| format!("nvme{subsystem}n{namespace}"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_device_leads_to_the_disk_of_its_namespace() {
        assert_eq!(disk_of("nvme0n1").as_deref(), Some("nvme0n1"));
        assert_eq!(disk_of("nvme3c10n2").as_deref(), Some("nvme3n2"));
        for other in ["nvme0", "ng0n1", "numa_node", "nvme0n", "nvmecn1", "nvme0n1p1", "hwmon0", "nvme0cxn1"]
        {
            assert_eq!(disk_of(other), None, "{other}");
        }
    }
}
