//! The doctor's checks: from facts to findings and remedies. Pure: one small function a check.

use super::{
    Check, Emulator, Facts, Finding, Vendor, Verdict, VfioPci, adapters::adapters, libvirt::libvirt_hook,
};

/// The oldest QEMU whose machines ioward knows to work.
const OLDEST_QEMU: u32 = 8;
/// Kernel arguments that turn an IOMMU off.
const IOMMU_OFF: [&str; 3] = ["intel_iommu=off", "amd_iommu=off", "iommu=off"];

/// All findings, in the order in which to put things right.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![iommu(facts)];
    findings.extend(adapters(facts));
    let others = [
        iommu_groups(facts),
        Some(vfio_pci(facts)),
        Some(kvm(facts)),
        emulator(facts),
        locked_memory(facts),
        transparent_huge_pages(facts),
        huge_pages_set_aside(facts),
        libvirt_hook(facts.libvirt_hook),
        root(facts),
    ];
    findings.extend(others.into_iter().flatten());
    findings
}

pub(super) fn well(check: Check, found: impl Into<String>) -> Finding {
    Finding { check, function: None, verdict: Verdict::Well, found: found.into(), remedy: String::new() }
}

fn missing(check: Check, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Missing, remedy: remedy.into(), ..well(check, found) }
}

pub(super) fn warning(check: Check, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, ..missing(check, found, remedy) }
}

/// A copied tree does not tell.
fn unknown(check: Check, lacks: &str) -> Finding {
    let found = format!("not known: this tree has {lacks}");
    warning(check, found, "run 'ioward doctor' on the host itself")
}

fn iommu(facts: &Facts) -> Finding {
    if facts.inventory.iommu {
        return well(Check::Iommu, "it is on");
    }
    let processor = facts.processor.unwrap_or_default();
    let mut arguments = facts.kernel_arguments.split_whitespace();
    if let Some(off) = arguments.clone().find(|argument| IOMMU_OFF.contains(argument)) {
        let found = format!("the kernel was told to leave it off: {off}");
        return missing(
            Check::Iommu,
            found,
            format!("take {off} from the kernel command line and boot again"),
        );
    }
    if !facts.iommu_is_known {
        return unknown(Check::Iommu, "no /sys/kernel");
    }
    let asked_for = arguments.any(|argument| argument.starts_with("intel_iommu=on"));
    let remedy = match processor.vendor {
        _ if processor.is_virtual && !facts.iommu_in_firmware => {
            "this machine is a virtual one: have its host give it an IOMMU (QEMU: -device intel-iommu,intremap=on)"
        }
        Vendor::Intel if facts.iommu_in_firmware && !asked_for => {
            "the firmware has VT-d on: boot with intel_iommu=on iommu=pt on the kernel command line"
        }
        Vendor::Intel => {
            "turn on VT-d ('Intel VT for Directed I/O') in the firmware, and boot with intel_iommu=on iommu=pt on the \
             kernel command line"
        }
        Vendor::Amd => {
            "turn on AMD-Vi ('IOMMU', often under AMD CBS, NBIO) and 'SVM Mode' in the firmware; the kernel needs no \
             argument"
        }
        Vendor::Other => "turn on the IOMMU (SMMU, VT-d, AMD-Vi) in the firmware",
    };
    missing(Check::Iommu, "none is on: VFs can be made, and not given to partitions", remedy)
}

/// Known only of VFs that there are.
fn iommu_groups(facts: &Facts) -> Option<Finding> {
    let vfs: Vec<_> = facts
        .inventory
        .physical_functions
        .iter()
        .flat_map(|pf| &pf.virtual_functions)
        .filter(|vf| vf.iommu_group.is_some())
        .collect();
    let sharing: Vec<_> = vfs.iter().filter(|vf| !vf.iommu_group_shared_with.is_empty()).collect();
    let Some(first) = sharing.first() else {
        return (!vfs.is_empty()).then(|| well(Check::IommuGroups, "each VF has one of its own"));
    };
    let found = format!(
        "{} of {} VFs share theirs with other functions, {} the first: there is no ACS between them",
        sharing.len(),
        vfs.len(),
        first.address
    );
    let remedy = "put the adapter into a slot behind a root port or switch that has ACS, or turn it on in the firmware \
                  ('ACS Control', 'PCIe ACS Support')";
    let verdict = if sharing.len() == vfs.len() { missing } else { warning };
    Some(verdict(Check::IommuGroups, found, remedy))
}

fn vfio_pci(facts: &Facts) -> Finding {
    match facts.vfio_pci {
        VfioPci::Loaded => well(Check::VfioPci, "the driver is there"),
        VfioPci::Loadable => missing(
            Check::VfioPci,
            "the driver is not loaded",
            "modprobe vfio-pci; to have it at each start: echo vfio-pci >/etc/modules-load.d/vfio-pci.conf",
        ),
        VfioPci::Missing => missing(
            Check::VfioPci,
            "the running kernel has no such driver",
            "install all modules of this kernel (Ubuntu: linux-modules-extra), or a kernel built with CONFIG_VFIO_PCI; \
             after an update of the kernel, boot again",
        ),
        VfioPci::Unknown => warning(
            Check::VfioPci,
            "the driver is not loaded, and the list of the kernel's modules cannot be read",
            "modprobe vfio-pci",
        ),
    }
}

fn kvm(facts: &Facts) -> Finding {
    let (Some(processor), Some(kvm)) = (facts.processor, facts.kvm) else {
        return unknown(Check::Kvm, if facts.kvm.is_none() { "no /dev" } else { "no /proc/cpuinfo" });
    };
    let found = match (processor.virtualization, kvm) {
        (true, true) => return well(Check::Kvm, "/dev/kvm is there"),
        (true, false) => "there is no /dev/kvm: partitions would run in software emulation, slowly",
        (false, _) => {
            "the processor shows neither svm nor vmx: partitions would run in software emulation, slowly"
        }
    };
    let remedy = match (processor.virtualization, processor.vendor) {
        (true, Vendor::Amd) => "modprobe kvm_amd",
        (true, Vendor::Intel) => "modprobe kvm_intel",
        (true, Vendor::Other) => "load the kernel's KVM module",
        (false, _) if processor.is_virtual => {
            "this machine is a virtual one: have its host pass the processor's virtualization on (QEMU: -cpu host)"
        }
        (false, Vendor::Amd) => "turn on 'SVM Mode' in the firmware",
        (false, Vendor::Intel) => "turn on 'Intel Virtualization Technology' (VT-x) in the firmware",
        (false, Vendor::Other) => "turn on virtualization in the firmware",
    };
    missing(Check::Kvm, found, remedy)
}

fn emulator(facts: &Facts) -> Option<Finding> {
    let install = "install it: apt install qemu-system-x86, or dnf install qemu-kvm";
    let finding = match &facts.emulator {
        Emulator::NotAsked => return None,
        Emulator::Missing => missing(Check::Emulator, "there is no qemu-system-x86_64 on the PATH", install),
        Emulator::Broken(why) => missing(Check::Emulator, format!("it does not run: {why}"), install),
        Emulator::Says(text) => match qemu_version(text) {
            Some((major, version)) if major < OLDEST_QEMU => missing(
                Check::Emulator,
                format!("version {version} is too old"),
                format!("get version {OLDEST_QEMU} or newer, from a newer release of the distribution"),
            ),
            Some((_, version)) => well(Check::Emulator, format!("version {version}")),
            None => {
                let said: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
                warning(
                    Check::Emulator,
                    format!("its version is not known: it says '{said}'"),
                    format!("it has to be {OLDEST_QEMU} or newer"),
                )
            }
        },
    };
    Some(finding)
}

/// The version in `QEMU emulator version 10.0.2 (Debian …)`, and its first number.
fn qemu_version(text: &str) -> Option<(u32, &str)> {
    let version = text.split_once("version ")?.1.split([' ', '\n', ',']).next()?;
    Some((version.split('.').next()?.parse().ok()?, version))
}

/// QEMU locks all memory of a machine that has a VF (VFIO pins it for DMA), and is not root; it inherits the daemon's limit.
fn locked_memory(facts: &Facts) -> Option<Finding> {
    let is_root = facts.root?;
    Some(match facts.lock_limit {
        None => well(Check::LockedMemory, "without limit"),
        Some(_) if is_root => well(Check::LockedMemory, "the daemon, as root, lifts the limit for machines"),
        Some(limit) => warning(
            Check::LockedMemory,
            format!(
                "this user may lock {} KiB; a partition with a VF has all of its memory locked",
                limit >> 10
            ),
            "run the daemon as root, or with LimitMEMLOCK=infinity in its systemd unit",
        ),
    })
}

fn transparent_huge_pages(facts: &Facts) -> Option<Finding> {
    let mode = facts.transparent_huge_pages.as_deref()?;
    Some(match mode {
        "never" => warning(
            Check::HugePages,
            "transparent ones are off: locking a large partition's memory takes long, and so do its DMA mappings",
            "echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
        ),
        mode => well(Check::HugePages, format!("transparent ones are on ({mode})")),
    })
}

fn huge_pages_set_aside(facts: &Facts) -> Option<Finding> {
    let mebibytes = facts.huge_pages_free_kib >> 10;
    (mebibytes > 0).then(|| {
        warning(
            Check::HugePages,
            format!("{mebibytes} MiB are set aside for them, where partitions of ioward do not get at them"),
            "unless something else needs them, sysctl vm.nr_hugepages=0 gives them back",
        )
    })
}

fn root(facts: &Facts) -> Option<Finding> {
    Some(match facts.root? {
        true => well(Check::Root, "it is root who looks"),
        false => warning(
            Check::Root,
            "it is not root who looks: not everything can be seen, and 'ioward serve' needs root",
            "sudo ioward doctor",
        ),
    })
}
