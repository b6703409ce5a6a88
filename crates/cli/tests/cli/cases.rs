//! Hosts on which ioward once said something wrong, as trees in tests/data/cases: each test tells what was said, and holds
//! `host`, `doctor`, `compatible` and `plan` to what is right.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::support::{Folder, Run, ioward, run};

/// A tree, unpacked, and a recording of it.
struct Case {
    folder: Folder,
    tree: String,
    recording: String,
}

impl Case {
    fn new(name: &str) -> Self {
        let folder = Folder::new();
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/cases");
        let mut unpack = Command::new("tar");
        unpack.arg("xzf").arg(data.join(format!("{name}.tar.gz"))).arg("-C").arg(folder.path());
        assert!(unpack.status().unwrap().success(), "{name} cannot be unpacked");
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let case = Self { tree: path(name), recording: path("host.json"), folder };
        let recorded = alone(&["snapshot", &case.recording, "--unmasked", "--root", &case.tree]);
        assert_eq!((recorded.status, recorded.stderr.as_str()), (0, ""));
        case
    }

    /// A Spec with one partition `web`, which has one VF.
    fn spec(&self, guest: &str, vf: &str) -> String {
        let text = format!(
            "version = 1\n[[partition]]\nname = \"web\"\nboot = {{ kernel = \"vmlinuz\" }}\n{guest}\n[[partition.vf]]\n{vf}\n"
        );
        self.folder.file("spec.toml", text).to_str().unwrap().to_owned()
    }

    fn plan(&self, guest: &str, vf: &str) -> Run {
        let spec = self.spec(guest, vf);
        alone(&["plan", "-f", &spec, "--host", &self.recording])
    }

    /// The plan for a network VF, wherever it comes from.
    fn plan_network(&self) -> Run {
        self.plan("", "name = \"net0\"\nclass = \"network\"")
    }

    fn plan_class(&self, class: &str) -> Run {
        self.plan("", &format!("name = \"vf0\"\nclass = \"{class}\""))
    }

    /// The VFs that suit a request of this class, and the rules that keep the others out.
    fn compatible(&self, class: &str) -> (usize, Vec<String>) {
        let spec = self.spec("", &format!("name = \"vf0\"\nclass = \"{class}\""));
        let shown = alone(&["compatible", "web", "-f", &spec, "--json", "--host", &self.recording]);
        let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
        let candidates = shown[0]["candidates"].as_array().unwrap().clone();
        let reasons = |candidate: &Value| candidate["reasons"].as_array().unwrap().clone();
        let suit = candidates.iter().filter(|candidate| reasons(candidate).is_empty()).count();
        let rules = candidates.iter().flat_map(reasons);
        let mut rules: Vec<_> = rules.map(|reason| reason["rule"].as_str().unwrap().to_owned()).collect();
        rules.sort_unstable();
        rules.dedup();
        (suit, rules)
    }

    fn doctor(&self) -> Run {
        alone(&["doctor", "--root", &self.tree])
    }

    fn host(&self) -> Run {
        alone(&["host", "--root", &self.tree])
    }

    fn inventory(&self) -> Value {
        let json = alone(&["host", "--json", "--root", &self.tree]);
        serde_json::from_str(&json.stdout).unwrap()
    }
}

fn alone(arguments: &[&str]) -> Run {
    run(&mut ioward("/nonexistent".as_ref(), arguments))
}

/// The text without the line breaks that the width of the page made.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[track_caller]
fn refused(run: &Run, words: &[&str]) {
    let told = flat(&run.stderr);
    assert_eq!((run.status, run.stdout.as_str()), (3, ""), "{told}");
    for word in words {
        assert!(told.contains(word), "'{word}' is not in: {told}");
    }
}

/// A plan of ten steps was made for a PF without a driver; the kernel answers ENOENT.
#[test]
fn an_adapter_without_a_driver_that_makes_vfs_gives_none() {
    let without = Case::new("pf-no-driver");
    refused(&without.plan_network(), &["no driver is bound to it", "modinfo"]);
    assert_eq!(without.compatible("network"), (0, vec!["driver-ready".to_owned()]));
    assert!(flat(&without.doctor().stdout).contains("✗ SR-IOV adapter 0000:01:00.0"));
    assert!(flat(&without.host().stdout).contains("gives no VFs to partitions: no driver is bound to it"));
    assert_eq!(without.inventory()["physical_functions"][0]["vfs_available"], 0);

    let on_vfio = Case::new("igpu-pf-vfio");
    refused(&on_vfio.plan_class("display"), &["its driver vfio-pci makes no VFs"]);
    assert_eq!(on_vfio.compatible("display").0, 0);
}

/// The first of two adapters, whose VF BARs have no address, was taken over the second for its lower address.
#[test]
fn an_adapter_without_address_space_for_vfs_is_never_chosen() {
    let two = Case::new("two-pfs-first-no-mmio");
    let plan = two.plan_network();
    assert_eq!((plan.status, plan.stderr.as_str()), (0, ""));
    assert!(plan.stdout.contains("VF 0 of 0000:02:00.0"), "{}", plan.stdout);
    let (suit, rules) = two.compatible("network");
    assert_eq!((suit, rules), (64, vec!["address-space".to_owned()]));

    // Lines that are marked as unset (IORESOURCE_UNSET) were taken for address space: 16 MiB and 512 MiB for each VF.
    let one = Case::new("igpu-no-mmio");
    let inventory = one.inventory();
    let pf = &inventory["physical_functions"][0];
    for bar in pf["sriov"]["vf_bars"].as_array().unwrap() {
        assert_eq!(bar["bytes_per_vf"], Value::Null, "{bar}");
    }
    let noted: Vec<_> =
        pf["reasons"].as_array().unwrap().iter().map(|reason| reason["required"].as_str().unwrap()).collect();
    assert_eq!(noted, ["address space for VF BAR 0", "address space for VF BAR 2"]);
    refused(&one.plan_class("display"), &["there is no address space for VF BAR 0 and 2"]);
}

/// VFs were promised that would have come into the group of their PF, as on a board whose root port has no ACS.
#[test]
fn vfs_that_will_be_in_the_group_of_their_adapter_are_not_promised() {
    for name in ["one-iommu-group", "one-iommu-group-with-port"] {
        let case = Case::new(name);
        refused(&case.plan_network(), &["an IOMMU group of its own", "use a slot behind a port with ACS"]);
        let (suit, rules) = case.compatible("network");
        assert_eq!(suit, 0, "{name}: {rules:?}");
        assert!(rules.contains(&"iommu-group".to_owned()), "{name}: {rules:?}");
        let doctor = case.doctor();
        assert_eq!(doctor.status, 1, "{name}: {}", doctor.stdout);
        assert!(doctor.stdout.contains("✗ SR-IOV adapter 0000:01:00.0"), "{name}: {}", doctor.stdout);
    }
    // Without VFs and without the port in the tree it can't be told.
    let untold = Case::new("one-iommu-group-no-vfs");
    assert_eq!((untold.plan_network().status, untold.doctor().status), (0, 0));
}

/// The doctor said that KVM and an IOMMU are missing, of a tree that has nothing from which that could be told.
#[test]
fn the_doctor_does_not_know_what_a_copied_tree_does_not_tell() {
    for name in ["pciutils-cap-phy32", "pciutils-broken-ecaps"] {
        let said = Case::new(name).doctor();
        assert!(said.stdout.contains("! IOMMU: not known"), "{}", said.stdout);
        assert!(said.stdout.contains("! KVM: not known"), "{}", said.stdout);
    }
    let said = Case::new("pciutils-cap-phy32").doctor();
    assert_eq!((said.status, said.stdout.contains('✗')), (0, false), "{}", said.stdout);
    assert!(said.stdout.contains("! SR-IOV adapter 0000:2e:00.0"), "{}", said.stdout);
}

/// "8 GT/s", without a decimal, was not read: the link was null, and its bandwidth not known.
#[test]
fn the_link_speed_of_old_kernels_is_read() {
    let case = Case::new("old-kernel-link");
    let link = &case.inventory()["physical_functions"][0]["link"];
    assert_eq!((&link["speed_mts"], &link["width"]), (&8000.into(), &8.into()));
    let plan = case.plan("", "name = \"net0\"\nclass = \"network\"\nmin_pcie_bandwidth = \"32Gbit\"");
    assert_eq!((plan.status, plan.stderr.as_str()), (0, ""));
}

/// A host bridge was listed as an SR-IOV adapter that can't be read.
#[test]
fn a_function_whose_capabilities_loop_is_no_adapter() {
    for name in ["broken-host-bridge", "pciutils-broken-ecaps"] {
        let case = Case::new(name);
        assert_eq!(case.inventory()["physical_functions"], Value::Array(Vec::new()), "{name}");
        assert!(case.doctor().stdout.contains("no PCI function has the SR-IOV capability"), "{name}");
    }
}

/// "Name the guest's drivers" was told to somebody who had named them.
#[test]
fn drivers_of_the_guest_that_a_person_names_are_believed() {
    let case = Case::new("igpu-well");
    let gpu = "name = \"gpu0\"\nclass = \"display\"";
    let unnamed = case.plan("guest = { os = \"linux\" }", gpu);
    refused(&unnamed, &["name the guest's drivers in guest.drivers"]);
    let named = case.plan("guest = { drivers = [\"xe\", \"i915\"] }", gpu);
    assert_eq!((named.status, named.stderr.as_str()), (0, ""));
}

/// One VF of sixteen was planned, and the driver makes all or none; and nobody looks for QAT under "other".
#[test]
fn qat_gives_all_its_vfs_and_is_found_as_an_accelerator() {
    let case = Case::new("qat");
    for class in ["accelerator", "other"] {
        let plan = case.plan_class(class);
        assert_eq!((plan.status, plan.stderr.as_str()), (0, ""), "{class}");
        assert!(plan.stdout.contains("16"), "{class}: {}", plan.stdout);
        assert_eq!(case.compatible(class).0, 16, "{class}");
    }
    let some = case.folder.file("some.toml", "version = 1\n[[adapter]]\npf = \"0000:3d:00.0\"\nvfs = 4\n");
    let plan = alone(&["plan", "-f", some.to_str().unwrap(), "--host", &case.recording]);
    refused(&plan, &["all 16 VFs or none", "c6xx", "ask for \"max\""]);
    refused(&case.plan_class("network"), &["this host has none", "0000:3d:00.0 is one of class other"]);
}

/// A VF that needs a vGPU type and NVIDIA's driver was to be bound to vfio-pci.
#[test]
fn vfs_of_nvidia_stay_with_their_driver() {
    let case = Case::new("nvidia-vgpu");
    refused(&case.plan_class("display"), &["passed on through the driver nvidia"]);
    assert_eq!(case.compatible("display"), (0, vec!["capability".to_owned()]));
    let said = flat(&case.doctor().stdout);
    assert!(said.contains("32 of its 32 VFs have no vGPU type"), "{said}");
    assert!(!said.contains("can give 32 VFs"), "{said}");
}
