//! The doctor, word for word: a host where all is well, and what it says of each thing that is not.

use ioward_model::{
    Class, Conditions, HexId, Inventory, PhysicalFunction, Sriov, Subclass, VfBar, VirtualFunction,
};

use super::{
    Check, Emulator, Facts, Processor, Vendor, Verdict, VfioPci, examine,
    facts::{huge_pages_free_kib, is_root, lock_limit, processor},
};

const NIC: &str = "0000:01:00.0";

fn nic() -> PhysicalFunction {
    PhysicalFunction {
        address: NIC.parse().unwrap(),
        vendor_id: HexId(0x8086),
        device_id: HexId(0x10c9),
        name: "Intel 82576".to_owned(),
        class: Class::Network,
        subclass: Some(Subclass::Ethernet),
        driver: Some("igb".to_owned()),
        numa_node: None,
        iommu_group: Some(5),
        iommu_group_shared_with: Vec::new(),
        serial_number: None,
        link: None,
        msix_vectors: None,
        sriov: Some(Sriov {
            total_vfs: 7,
            initial_vfs: 7,
            num_vfs: 0,
            vf_enable: false,
            first_vf_offset: 128,
            vf_stride: 2,
            vf_device_id: HexId(0x10ca),
            supported_page_sizes: vec![4096],
            system_page_size: 4096,
            ari: false,
            function_dependency_link: None,
            vf_bars: vec![VfBar {
                index: 0,
                is_64bit: true,
                prefetchable: true,
                bytes_per_vf: Some(16 << 10),
            }],
        }),
        drivers_autoprobe: Some(true),
        vf_msix_total: None,
        netdevs: Vec::new(),
        rdma_devices: Vec::new(),
        id: None,
        capabilities: None,
        nvme: None,
        in_use_by_host: Vec::new(),
        errors: None,
        health: None,
        service: ioward_model::Service::Serving,
        conditions: Conditions::default(),
        vfs_assigned: 0,
        vfs_available: 7,
        out_of_service: None,
        virtual_functions: Vec::new(),
        reasons: Vec::new(),
    }
}

fn vf(index: u16, shared_with: &[&str]) -> VirtualFunction {
    VirtualFunction {
        index,
        address: format!("0000:01:10.{index}").parse().unwrap(),
        driver: None,
        iommu_group: Some(7),
        iommu_group_shared_with: shared_with.iter().map(|at| at.parse().unwrap()).collect(),
        msix_vectors: None,
        flr: None,
        vgpu_type: None,
        netdevs: Vec::new(),
        in_use_by_host: Vec::new(),
        settings: ioward_model::VfSettings::default(),
        owner: None,
        errors: None,
        out_of_service: None,
        holder: None,
        reasons: Vec::new(),
    }
}

/// A host on which nothing is missing.
fn good() -> Facts {
    Facts {
        inventory: Inventory { iommu: true, physical_functions: vec![nic()], ..Inventory::default() },
        kernel_arguments: "quiet".to_owned(),
        iommu_in_firmware: true,
        iommu_is_known: true,
        processor: Some(Processor { vendor: Vendor::Intel, virtualization: true, is_virtual: false }),
        vfio_pci: VfioPci::Loaded,
        kvm: Some(true),
        emulator: Emulator::Says("QEMU emulator version 10.0.2 (Debian 1:10.0.2)\nCopyright".to_owned()),
        lock_limit: Some(8 << 20),
        transparent_huge_pages: Some("madvise".to_owned()),
        root: Some(true),
        ..Facts::default()
    }
}

/// All findings of a check that are not well, as `Verdict: found; remedy`.
fn amiss(check: Check, facts: &Facts) -> Vec<String> {
    let findings = examine(facts).into_iter();
    let amiss = findings.filter(|finding| finding.check == check && finding.verdict != Verdict::Well);
    amiss.map(|finding| format!("{:?}: {}; {}", finding.verdict, finding.found, finding.remedy)).collect()
}

/// The good host, with something about its adapter changed.
fn adapter(change: impl FnOnce(&mut PhysicalFunction)) -> Facts {
    let mut facts = good();
    change(&mut facts.inventory.physical_functions[0]);
    facts
}

fn without_iommu(vendor: Vendor, kernel_arguments: &str, iommu_in_firmware: bool) -> Facts {
    let mut facts = good();
    facts.inventory.iommu = false;
    facts.processor = facts.processor.map(|processor| Processor { vendor, ..processor });
    Facts { kernel_arguments: kernel_arguments.to_owned(), iommu_in_firmware, ..facts }
}

#[test]
fn where_all_is_well_everything_is_said_to_be() {
    let findings: Vec<_> =
        examine(&good()).into_iter().map(|f| (f.verdict, format!("{}: {}", f.check, f.found))).collect();
    let expected = [
        "IOMMU: it is on",
        "SR-IOV adapter: Intel 82576 can give 7 VFs, driver igb",
        "vfio-pci: the driver is there",
        "KVM: /dev/kvm is there",
        "QEMU: version 10.0.2",
        "locked memory: the daemon, as root, lifts the limit for machines",
        "huge pages: transparent ones are on (madvise)",
        "root: it is root who looks",
    ];
    assert_eq!(findings, expected.map(|text| (Verdict::Well, text.to_owned())));
}

#[test]
fn an_iommu_that_is_off_is_turned_on_in_the_firmware_or_on_the_command_line() {
    let said = |vendor, arguments, firmware| amiss(Check::Iommu, &without_iommu(vendor, arguments, firmware));
    let none = "Missing: none is on: VFs can be made, and not given to partitions; ";
    assert_eq!(
        said(Vendor::Intel, "quiet", false),
        [format!(
            "{none}turn on VT-d ('Intel VT for Directed I/O') in the firmware, and boot with intel_iommu=on iommu=pt on the \
             kernel command line"
        )]
    );
    assert_eq!(
        said(Vendor::Intel, "quiet", true),
        [format!(
            "{none}the firmware has VT-d on: boot with intel_iommu=on iommu=pt on the kernel command line"
        )]
    );
    assert!(
        said(Vendor::Intel, "intel_iommu=on", true)[0].contains("turn on VT-d"),
        "it was told to, in vain"
    );
    assert_eq!(
        said(Vendor::Amd, "quiet", false),
        [format!(
            "{none}turn on AMD-Vi ('IOMMU', often under AMD CBS, NBIO) and 'SVM Mode' in the firmware; the kernel needs no \
             argument"
        )]
    );
    assert_eq!(
        said(Vendor::Amd, "quiet amd_iommu=off", true),
        [
            "Missing: the kernel was told to leave it off: amd_iommu=off; take amd_iommu=off from the kernel command line \
          and boot again"
        ]
    );
    let mut virtual_one = without_iommu(Vendor::Intel, "quiet", false);
    virtual_one.processor =
        virtual_one.processor.map(|processor| Processor { is_virtual: true, ..processor });
    assert!(amiss(Check::Iommu, &virtual_one)[0].contains("have its host give it an IOMMU"));
}

#[test]
fn an_adapter_that_can_give_no_vfs_says_why() {
    let said = |facts: &Facts| amiss(Check::Adapter, facts).join("\n");
    let driverless = adapter(|pf| pf.driver = None);
    assert_eq!(
        said(&driverless),
        "Missing: Intel 82576: no driver is bound to it, and only its driver makes VFs; load the driver for it: 'modinfo' \
         of it lists [8086:10c9]; 'lspci -ks 0000:01:00.0' names candidates"
    );
    let lent = adapter(|pf| pf.driver = Some("vfio-pci".to_owned()));
    assert_eq!(
        said(&lent),
        "Missing: Intel 82576: its driver vfio-pci makes no VFs; give it back to its own driver: 'lspci -ks 0000:01:00.0' \
         names it"
    );
    let off = adapter(|pf| pf.sriov.as_mut().unwrap().total_vfs = 0);
    assert!(said(&off).starts_with(
        "Missing: Intel 82576: it has the capability, and allows 0 VFs (sriov_totalvfs); turn SR-IOV on"
    ));
    let crowded = adapter(|pf| pf.conditions.bars_without_room = vec![0, 3]);
    assert_eq!(
        said(&crowded),
        "Missing: Intel 82576: there is no address space for VF BAR 0 and 3; turn on 'Above 4G Decoding' in the firmware \
         (and 'MMIO High Size', where there is one, up), or boot with pci=realloc"
    );
    let unread = Facts { root: Some(false), ..adapter(|pf| pf.sriov = None) };
    assert_eq!(said(&unread), "Missing: Intel 82576: its SR-IOV capability cannot be read; run this as root");
    let mut none = good();
    none.inventory.physical_functions.clear();
    assert!(said(&none).starts_with("Missing: no PCI function has the SR-IOV capability; turn SR-IOV on in"));
}

#[test]
fn an_adapter_that_can_do_without_is_no_reason_to_say_that_the_host_cannot() {
    let mut facts = adapter(|pf| pf.driver = None);
    facts.inventory.physical_functions.push(nic());
    assert!(amiss(Check::Adapter, &facts)[0].starts_with("Warning: "));
}

#[test]
fn vfs_that_share_an_iommu_group_need_acs() {
    let with = |vfs: Vec<VirtualFunction>| adapter(|pf| pf.virtual_functions = vfs);
    assert_eq!(amiss(Check::IommuGroups, &with(vec![vf(0, &[]), vf(1, &[])])), [""; 0]);
    let remedy = "put the adapter into a slot behind a root port or switch that has ACS, or turn it on in the firmware \
                  ('ACS Control', 'PCIe ACS Support')";
    assert_eq!(
        amiss(Check::IommuGroups, &with(vec![vf(0, &[]), vf(1, &[NIC])])),
        [format!(
            "Warning: 1 of 2 VFs share theirs with other functions, 0000:01:10.1 the first: there is no ACS between them; \
             {remedy}"
        )]
    );
    assert!(
        amiss(Check::IommuGroups, &with(vec![vf(0, &[NIC])]))[0].starts_with("Missing: 1 of 1 VFs share")
    );
}

#[test]
fn vfio_pci_is_loaded_or_can_be_or_is_not_there() {
    let said = |vfio_pci| amiss(Check::VfioPci, &Facts { vfio_pci, ..good() }).join("");
    assert_eq!(
        said(VfioPci::Loadable),
        "Missing: the driver is not loaded; modprobe vfio-pci; to have it at each start: echo vfio-pci \
         >/etc/modules-load.d/vfio-pci.conf"
    );
    assert!(said(VfioPci::Missing).starts_with("Missing: the running kernel has no such driver; install"));
    assert!(said(VfioPci::Unknown).starts_with("Warning: "));
}

#[test]
fn kvm_needs_the_processor_and_its_module() {
    let said = |vendor, virtualization, is_virtual| {
        let processor = Some(Processor { vendor, virtualization, is_virtual });
        amiss(Check::Kvm, &Facts { processor, kvm: Some(false), ..good() }).join("")
    };
    let slowly = "partitions would run in software emulation, slowly";
    assert_eq!(
        said(Vendor::Amd, true, false),
        format!("Missing: there is no /dev/kvm: {slowly}; modprobe kvm_amd")
    );
    assert_eq!(
        said(Vendor::Amd, false, false),
        format!(
            "Missing: the processor shows neither svm nor vmx: {slowly}; turn on 'SVM Mode' in the firmware"
        )
    );
    assert!(said(Vendor::Intel, false, false).contains("'Intel Virtualization Technology' (VT-x)"));
    assert!(
        said(Vendor::Intel, false, true).contains("have its host pass the processor's virtualization on")
    );
}

#[test]
fn qemu_is_there_and_new_enough() {
    let said = |emulator| amiss(Check::Emulator, &Facts { emulator, ..good() }).join("");
    let says = |text: &str| said(Emulator::Says(text.to_owned()));
    assert_eq!(
        said(Emulator::Missing),
        "Missing: there is no qemu-system-x86_64 on the PATH; install it: apt install qemu-system-x86, or dnf install \
         qemu-kvm"
    );
    assert_eq!(
        says("QEMU emulator version 7.2.9 (Debian 1:7.2+dfsg-7)\n"),
        "Missing: version 7.2.9 is too old; get version 8 or newer, from a newer release of the distribution"
    );
    assert_eq!(says("QEMU emulator version 8.0.0\n"), "");
    assert_eq!(
        says("Segmentation fault"),
        "Warning: its version is not known: it says 'Segmentation fault'; it has to be 8 or newer"
    );
    assert!(
        said(Emulator::Broken("no such library".into())).starts_with("Missing: it does not run: no such")
    );
    assert_eq!(said(Emulator::NotAsked), "");
}

#[test]
fn who_is_not_root_may_lock_little_and_see_little() {
    let person = Facts { root: Some(false), ..good() };
    assert_eq!(
        amiss(Check::LockedMemory, &person),
        [
            "Warning: this user may lock 8192 KiB; a partition with a VF has all of its memory locked; run the daemon as \
          root, or with LimitMEMLOCK=infinity in its systemd unit"
        ]
    );
    assert_eq!(amiss(Check::LockedMemory, &Facts { lock_limit: None, ..person.clone() }), [""; 0]);
    assert!(amiss(Check::Root, &person)[0].ends_with("; sudo ioward doctor"));
    // A copied tree was copied by somebody else.
    let copied = examine(&Facts { root: None, ..good() });
    assert!(copied.iter().all(|finding| !matches!(finding.check, Check::Root | Check::LockedMemory)));
}

#[test]
fn huge_pages_are_to_be_had_and_not_to_lie_idle() {
    let off = Facts { transparent_huge_pages: Some("never".to_owned()), ..good() };
    assert!(
        amiss(Check::HugePages, &off)[0]
            .ends_with("echo madvise >/sys/kernel/mm/transparent_hugepage/enabled")
    );
    let idle = Facts { huge_pages_free_kib: 4 << 20, ..good() };
    assert!(amiss(Check::HugePages, &idle)[0].starts_with("Warning: 4096 MiB are set aside for them"));
}

#[test]
fn what_proc_and_sysfs_say_is_understood() {
    let amd = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: svm\nflags\t\t: fpu svm hypervisor\n";
    assert_eq!(processor(amd), Processor { vendor: Vendor::Amd, virtualization: true, is_virtual: true });
    assert_eq!(processor("flags : vmx_not_quite\n"), Processor::default());
    assert_eq!(
        lock_limit("Max locked memory         8388608              8388608              bytes\n"),
        Some(8 << 20)
    );
    assert_eq!(
        lock_limit("Max locked memory         unlimited            unlimited            bytes\n"),
        None
    );
    assert_eq!(
        huge_pages_free_kib("HugePages_Total: 9\nHugePages_Free:    2\nHugepagesize:    2048 kB\n"),
        4096
    );
    assert_eq!(is_root("Name:\tioward\nUid:\t1000\t0\t1000\t1000\n"), Some(true), "the effective one counts");
    assert_eq!(is_root(""), None);
}
