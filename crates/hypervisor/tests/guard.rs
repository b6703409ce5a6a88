//! The rules of the guard, over each kind of partition. No machine is started here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::missing_panics_doc, missing_docs)]

mod stub;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{Arc, Mutex},
};

use ioward_hypervisor::{
    Guard, Hypervisor, HypervisorError, Router, on_this_host,
    qemu::QemuConfig,
    sim::{self, SimConfig, SimHypervisor},
};
use ioward_model::{
    Accelerator, Boot, FunctionFacts, KindName, MachineLayout, Name, Owner, PartitionSpec, Spec, StandbyNic,
};
use ioward_pci::Bdf;
use stub::Stub;

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";
const SIBLING: &str = "0000:01:10.2";
const PORT: &str = "0000:00:01.0";

type Functions = BTreeMap<Bdf, FunctionFacts>;

/// A PF, a root port and two VFs on vfio-pci, each alone in its group; partitions web and db.
struct Host {
    guard: Guard,
    functions: Arc<Mutex<Functions>>,
    folder: tempfile::TempDir,
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn owner(text: &str) -> Owner {
    text.parse().unwrap()
}

fn functions() -> Functions {
    let function = |address: &str, driver: &str| {
        let group = Some(vec![address.to_owned()]);
        let (physical, is_bridge) = ((driver == "vfio-pci").then(|| bdf(PF)), driver == "pcieport");
        let driver = Some(driver.to_owned());
        (bdf(address), FunctionFacts { physical, is_bridge, driver, group })
    };
    [function(PF, "igb"), function(PORT, "pcieport"), function(VF, "vfio-pci"), function(SIBLING, "vfio-pci")]
        .into()
}

/// The tree in which a kernel says this. The host has a bridge br0, and eth0 is none.
fn write_sysfs(sys: &Path, functions: &Functions) {
    let _ = fs::remove_dir_all(sys);
    fs::create_dir_all(sys.join("class/net/br0/bridge")).unwrap();
    fs::create_dir_all(sys.join("class/net/eth0")).unwrap();
    for (address, facts) in functions {
        let device = sys.join("bus/pci/devices").join(address.to_string());
        fs::create_dir_all(&device).unwrap();
        fs::write(device.join("class"), if facts.is_bridge { "0x060400\n" } else { "0x020000\n" }).unwrap();
        if let Some(pf) = facts.physical {
            symlink(format!("../{pf}"), device.join("physfn")).unwrap();
        }
        if let Some(driver) = &facts.driver {
            symlink(format!("../../../../bus/pci/drivers/{driver}"), device.join("driver")).unwrap();
        }
        for member in facts.group.iter().flatten() {
            fs::create_dir_all(device.join("iommu_group/devices").join(member)).unwrap();
        }
    }
}

impl Host {
    async fn of_qemu() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_sysfs(&folder.path().join("sys"), &functions());
        let config = QemuConfig {
            runtime_dir: folder.path().join("run"),
            emulator: "/nonexistent".into(),
            sysfs: folder.path().join("sys"),
            ..QemuConfig::default()
        };
        let guard = on_this_host(config).await.unwrap();
        Self { guard, functions: Arc::new(Mutex::new(functions())), folder }.with_partitions().await
    }

    async fn of_sim() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let functions = Arc::new(Mutex::new(functions()));
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            program: "/nonexistent".into(),
            arguments: Vec::new(),
            bounds: sim::Bounds::default(),
        };
        let known = Arc::clone(&functions);
        let look = move |function| Ok(known.lock().unwrap().get(&function).cloned());
        let partitions = SimHypervisor::new(config).unwrap();
        partitions.add_bridge("br0".parse().unwrap());
        let guard = Guard::new(Arc::new(partitions), look);
        Self { guard, functions, folder }.with_partitions().await
    }

    async fn with_partitions(self) -> Self {
        for name in ["web", "db"] {
            let text =
                format!("version = 1\n[[partition]]\nname = \"{name}\"\nboot = {{ disk = '/none' }}\n");
            self.guard.define(&Spec::parse(text.as_bytes()).unwrap().partitions[0]).await.unwrap();
        }
        self
    }

    fn set(&self, function: &str, change: impl FnOnce(&mut FunctionFacts)) {
        let mut functions = self.functions.lock().unwrap();
        change(functions.get_mut(&bdf(function)).unwrap());
        write_sysfs(&self.folder.path().join("sys"), &functions);
    }

    fn bind(&self, function: &str, driver: Option<&str>) {
        self.set(function, |facts| facts.driver = driver.map(str::to_owned));
    }

    fn add_to_group_of(&self, function: &str, member: &str) {
        self.set(function, |facts| facts.group.as_mut().unwrap().push(member.to_owned()));
    }

    async fn attach(&self, to: &str, function: &str) {
        self.guard.attach_vf(&owner(to), bdf(function)).await.unwrap();
    }

    async fn refuses(&self, to: &str, function: &str, because: &str) {
        let error = self.guard.attach_vf(&owner(to), bdf(function)).await.unwrap_err();
        assert!(
            matches!(&error, HypervisorError::NotAttachable { why, .. } if why.contains(because)),
            "{error}"
        );
    }

    async fn may_be_rebound(&self, function: &str, driver: Option<&str>) -> Result<(), String> {
        self.guard.rebind(bdf(PF), bdf(function), driver).await.map(drop)
    }
}

async fn a_vf_on_vfio_pci_alone_in_its_group_is_handed_out(host: Host) {
    host.attach("web/net0", VF).await;
    host.attach("web/net0", VF).await;
    let web = host.guard.partitions().await.unwrap().into_iter().find(|status| status.name.as_str() == "web");
    assert_eq!(web.unwrap().vfs, [("net0".parse().unwrap(), bdf(VF))]);
}

async fn a_physical_function_never_is(host: Host) {
    host.bind(PF, Some("vfio-pci"));
    host.refuses("web/net0", PF, "no virtual function").await;
    host.refuses("web/net0", "0000:07:00.0", "no such function").await;
}

async fn the_driver_has_to_be_vfio_pci(host: Host) {
    host.bind(VF, Some("igbvf"));
    host.refuses("web/net0", VF, "bound to igbvf").await;
    host.bind(VF, None);
    host.refuses("web/net0", VF, "no driver").await;
}

async fn without_an_iommu_nothing_is_handed_out(host: Host) {
    host.set(VF, |facts| facts.group = None);
    host.refuses("web/net0", VF, "turn the IOMMU on").await;
}

async fn a_vf_has_one_holder(host: Host) {
    host.attach("web/net0", VF).await;
    host.refuses("db/net0", VF, "belongs to web/net0").await;
    host.refuses("web/net1", VF, "belongs to web/net0").await;
    host.refuses("web/net0", SIBLING, "detach that first").await;
    host.guard.detach_vf(&owner("web/net0"), false).await.unwrap();
    host.attach("db/net0", VF).await;
    host.guard.undefine(&"db".parse().unwrap()).await.unwrap();
    host.attach("web/net1", VF).await;
}

fn standby(bridge: &str, mac: &str) -> StandbyNic {
    StandbyNic { bridge: bridge.parse().unwrap(), mac: mac.parse().unwrap() }
}

const MAC: &str = "52:54:00:aa:00:01";

/// The names of the VFs that a partition has standbys for.
async fn standbys(guard: &Guard, partition: &str) -> Vec<Name> {
    let all = guard.partitions().await.unwrap();
    all.into_iter().find(|status| status.name.as_str() == partition).unwrap().standbys
}

async fn a_standby_is_for_a_known_machine_on_a_bridge_and_with_a_mac_of_a_station(host: Host) {
    let refused = async |to: &str, nic: StandbyNic, why: &str| {
        let error = host.guard.attach_standby(&owner(to), &nic).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    };
    refused("nobody/net0", standby("br0", MAC), "there is no partition nobody").await;
    refused("web/net0", standby("br7", MAC), "its bridge br7 is needed, and the host has no").await;
    refused("web/net0", standby("eth0", MAC), "its bridge eth0 is needed").await;
    refused("web/net0", standby("br0", "33:33:00:00:00:01"), "no station can have").await;
    refused("web/net0", standby("br0", "00:00:00:00:00:00"), "no station can have").await;
    assert_eq!(standbys(&host.guard, "web").await, []);

    host.guard.attach_standby(&owner("web/net0"), &standby("br0", MAC)).await.unwrap();
    host.guard.attach_standby(&owner("web/net0"), &standby("br0", MAC)).await.unwrap();
    refused("web/net0", standby("br0", "52:54:00:aa:00:02"), "detach that first").await;
    assert_eq!(standbys(&host.guard, "web").await, ["net0".parse().unwrap()]);
    assert_eq!(standbys(&host.guard, "db").await, []);
    // While the machine is off it makes no difference which of them comes first or goes first.
    host.attach("web/net0", VF).await;
    for _ in 0..2 {
        host.guard.detach_standby(&owner("web/net0")).await.unwrap();
    }
    assert_eq!(standbys(&host.guard, "web").await, []);
}

async fn only_a_known_machine_without_vfs_is_moved(host: Host) {
    let layout = MachineLayout {
        machine: "pc-q35-10.0".parse().unwrap(),
        accelerator: Accelerator::Tcg,
        channel: false,
        standbys: BTreeMap::new(),
    };
    let (nobody, web): (Name, Name) = ("nobody".parse().unwrap(), "web".parse().unwrap());
    assert!(matches!(host.guard.send(&nobody).await, Err(HypervisorError::NoSuchPartition(_))));
    assert!(matches!(host.guard.receive(&nobody, &layout).await, Err(HypervisorError::NoSuchPartition(_))));
    host.attach("web/net0", "0000:01:10.0").await;
    for error in
        [host.guard.send(&web).await.unwrap_err(), host.guard.receive(&web, &layout).await.unwrap_err()]
    {
        assert!(matches!(&error, HypervisorError::NotMoved { .. }), "{error}");
        assert!(error.to_string().contains("it holds net0"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_machine_is_not_moved() {
    let stub = Stub::new(KindName::Domain);
    stub.define(&PartitionSpec::new("web".parse().unwrap(), Boot::default())).await.unwrap();
    let guard = Guard::new(stub, |_| Ok(None));
    let error = guard.send(&"web".parse().unwrap()).await.unwrap_err();
    assert!(error.to_string().contains("virsh migrate --live"), "{error}");
}

#[tokio::test]
async fn what_is_no_machine_gets_no_standby() {
    for kind in [KindName::Domain, KindName::Namespace] {
        let guard = Guard::new(Stub::new(kind), |_| Ok(None));
        let text = "version = 1\n[[partition]]\nname = \"web\"\nboot = { disk = '/none' }\n";
        let spec: PartitionSpec = Spec::parse(text.as_bytes()).unwrap().partitions.remove(0);
        guard.define(&spec).await.unwrap();
        let error =
            guard.attach_standby(&owner("web/net0"), &standby("br0", MAC)).await.unwrap_err().to_string();
        assert!(error.contains(&format!("it is a {kind}")), "{error}");
    }
    // A backend that has none says so by itself.
    let error = Stub::new(KindName::Machine).attach_standby(&owner("web/net0"), &standby("br0", MAC)).await;
    assert!(matches!(error, Err(HypervisorError::NoStandby { .. })));
}

async fn one_group_is_never_shared_by_two_partitions(host: Host) {
    host.add_to_group_of(VF, SIBLING);
    host.add_to_group_of(SIBLING, VF);
    host.attach("db/net0", SIBLING).await;
    host.refuses("web/net0", VF, "0000:01:10.2 in its IOMMU group belongs to db/net0").await;
    host.attach("db/net1", VF).await;
    host.guard.detach_vf(&owner("db/net0"), false).await.unwrap();
    host.guard.detach_vf(&owner("db/net1"), false).await.unwrap();
    host.bind(SIBLING, Some("igbvf"));
    host.refuses("web/net0", VF, "0000:01:10.2 in its IOMMU group is bound to igbvf").await;
    host.bind(SIBLING, None);
    host.attach("web/net0", VF).await;
}

async fn a_bridge_may_be_in_the_group_and_nothing_else_that_is_no_vf(host: Host) {
    host.add_to_group_of(VF, PORT);
    host.attach("web/net0", VF).await;
    host.bind(PF, Some("vfio-pci"));
    host.add_to_group_of(SIBLING, PF);
    host.refuses("web/net1", SIBLING, "0000:01:00.0 in its IOMMU group is no virtual function").await;
    host.set(SIBLING, |facts| facts.group = Some(vec![SIBLING.into(), "serial8250".into()]));
    host.refuses("web/net1", SIBLING, "serial8250 in its IOMMU group is no PCI function").await;
}

async fn a_vf_is_looked_at_again_before_a_partition_starts_with_it(host: Host) {
    host.attach("web/net0", VF).await;
    host.bind(VF, Some("igbvf"));
    let error = host.guard.start(&"web".parse().unwrap()).await.unwrap_err();
    assert!(matches!(&error, HypervisorError::NotAttachable { why, .. } if why.contains("igbvf")), "{error}");
    host.bind(VF, Some("vfio-pci"));
    let error = host.guard.start(&"web".parse().unwrap()).await.unwrap_err();
    assert!(!matches!(error, HypervisorError::NotAttachable { .. }), "only its program is missing: {error}");
}

async fn a_vf_that_is_held_keeps_its_driver_and_so_do_those_beside_it(host: Host) {
    host.add_to_group_of(VF, SIBLING);
    host.add_to_group_of(SIBLING, VF);
    host.attach("web/net0", VF).await;
    for driver in [Some("igbvf"), None] {
        let refused = host.may_be_rebound(VF, driver).await.unwrap_err();
        assert!(refused.contains("belongs to web/net0"), "{refused}");
    }
    let refused = host.may_be_rebound(SIBLING, Some("igbvf")).await.unwrap_err();
    assert!(refused.contains("0000:01:10.0 in its IOMMU group belongs to web/net0"), "{refused}");
    host.may_be_rebound(SIBLING, None).await.unwrap();
    host.may_be_rebound(VF, Some("vfio-pci")).await.unwrap();
    host.guard.detach_vf(&owner("web/net0"), false).await.unwrap();
    host.may_be_rebound(VF, Some("igbvf")).await.unwrap();
}

async fn a_vf_whose_driver_is_being_changed_is_handed_to_nobody_nor_is_one_beside_it(host: Host) {
    host.add_to_group_of(SIBLING, VF);
    let claim = host.guard.rebind(bdf(PF), bdf(VF), Some("igbvf")).await.unwrap();
    host.refuses("web/net0", VF, "its driver is being changed").await;
    host.refuses("web/net0", SIBLING, "0000:01:10.0 in its IOMMU group is being bound").await;
    host.may_be_rebound(VF, None).await.unwrap_err();
    drop(claim);
    host.attach("web/net0", VF).await;
}

async fn vfs_that_are_being_made_anew_are_handed_to_nobody_and_keep_their_drivers(host: Host) {
    let claim = host.guard.recount(bdf(PF)).await.unwrap();
    host.refuses("web/net0", VF, "the number of VFs of 0000:01:00.0 is being changed").await;
    host.may_be_rebound(VF, Some("igbvf")).await.unwrap_err();
    assert!(host.guard.recount(bdf(PF)).await.is_err() && host.guard.recount(bdf(PORT)).await.is_ok());
    drop(claim);
    let claim = host.guard.rebind(bdf(PF), bdf(VF), Some("igbvf")).await.unwrap();
    let refused = host.guard.recount(bdf(PF)).await.map(drop).unwrap_err();
    assert!(refused.contains("0000:01:10.0 is being bound"), "{refused}");
    drop(claim);
    host.attach("web/net0", VF).await;
    assert!(host.guard.recount(bdf(PF)).await.is_ok(), "it is given, and not being given any more");
}

async fn a_definition_that_breaks_the_rules_of_a_spec_is_refused(host: Host) {
    let text = "version = 1\n[[partition]]\nname = \"mole\"\nboot = { disk = '/none' }\n";
    let mut spec = Spec::parse(text.as_bytes()).unwrap().partitions.remove(0);
    spec.machine_mut().unwrap().cpus = 0;
    host.guard.define(&spec).await.unwrap_err();
    assert_eq!(host.guard.partitions().await.unwrap().len(), 2);
}

async fn a_vf_beside_one_that_is_being_bound_to_vfio_pci_is_handed_out(host: Host) {
    host.add_to_group_of(VF, SIBLING);
    host.bind(SIBLING, None);
    let claim = host.guard.rebind(bdf(PF), bdf(SIBLING), Some("vfio-pci")).await.unwrap();
    assert!(claim.is_some());
    host.attach("web/net0", VF).await;
}

/// Over all kinds: web and db are machines, guest is a domain, pod and box are namespaces.
mod over_kinds {
    use super::*;

    /// The same host, with the VF on its own driver and beside another in its group.
    async fn host() -> Host {
        let folder = tempfile::tempdir().unwrap();
        let functions = Arc::new(Mutex::new(functions()));
        let known = Arc::clone(&functions);
        let all =
            KindName::ALL.into_iter().fold(Router::default(), |all, kind| all.with(kind, Stub::new(kind)));
        let guard =
            Guard::new(Arc::new(all), move |function| Ok(known.lock().unwrap().get(&function).cloned()));
        let host = Host { guard, functions, folder }.with_partitions().await;
        for (name, kind) in [("guest", "libvirt"), ("pod", "netns"), ("box", "netns")] {
            let text = format!("version = 1\n[[partition]]\nname = \"{name}\"\n{kind} = '{name}'\n");
            host.guard.define(&Spec::parse(text.as_bytes()).unwrap().partitions[0]).await.unwrap();
        }
        host.add_to_group_of(VF, SIBLING);
        host.add_to_group_of(SIBLING, VF);
        host
    }

    fn as_interface(host: &Host, function: &str) {
        host.set(function, |facts| facts.driver = Some("igbvf".into()));
    }

    #[tokio::test]
    async fn a_namespace_has_a_vf_by_a_driver_of_the_host_s_whatever_is_in_its_group() {
        let host = host().await;
        host.refuses("pod/net0", VF, "no driver of the host's").await;
        host.bind(VF, None);
        host.refuses("pod/net0", VF, "no driver of the host's").await;
        host.refuses("pod/net0", PF, "no virtual function").await;
        as_interface(&host, VF);
        host.set(VF, |facts| facts.group = Some(vec![VF.into(), PF.into(), "serial8250".into()]));
        host.attach("pod/net0", VF).await;
        as_interface(&host, SIBLING);
        host.set(SIBLING, |facts| facts.group = None);
        host.attach("pod/net1", SIBLING).await;
    }

    #[tokio::test]
    async fn a_domain_is_as_a_machine_and_a_group_is_either_s_alone() {
        let host = host().await;
        host.attach("guest/net0", VF).await;
        host.refuses("web/net0", SIBLING, "0000:01:10.0 in its IOMMU group belongs to guest/net0").await;
        host.attach("guest/net1", SIBLING).await;
        host.guard.detach_vf(&owner("guest/net1"), false).await.unwrap();
        as_interface(&host, SIBLING);
        host.refuses("guest/net1", SIBLING, "bound to igbvf, not to vfio-pci").await;
    }

    #[tokio::test]
    async fn no_two_partitions_hold_one_vf_whatever_they_are() {
        for first in ["web/net0", "guest/net0", "pod/net0"] {
            let host = host().await;
            if first.starts_with("pod") {
                as_interface(&host, VF);
            }
            host.attach(first, VF).await;
            for second in ["db/net0", "guest/net9", "box/net0", "pod/net9"] {
                host.refuses(second, VF, &format!("belongs to {first}")).await;
            }
            // Unless it is to vfio-pci for who has it through that.
            for driver in [Some("igbvf"), Some("ixgbevf"), None, Some("vfio-pci")] {
                let may = host.may_be_rebound(VF, driver).await;
                let is_so = driver == Some("vfio-pci") && !first.starts_with("pod");
                assert_eq!(may.is_ok(), is_so, "{first} {driver:?} {may:?}");
            }
        }
    }

    #[tokio::test]
    async fn beside_a_vf_of_a_namespace_another_is_bound_to_any_driver() {
        let host = host().await;
        as_interface(&host, VF);
        host.attach("pod/net0", VF).await;
        for driver in [Some("igbvf"), Some("vfio-pci"), None] {
            host.may_be_rebound(SIBLING, driver).await.unwrap();
        }
        host.refuses("web/net0", SIBLING, "0000:01:10.0 in its IOMMU group is bound to igbvf").await;
    }

    /// Its driver was taken from it by hand, and the interface ended with that: it is bound again, and to nothing else.
    #[tokio::test]
    async fn a_vf_that_its_namespace_lacks_gets_a_driver_of_the_host_s_again() {
        let host = host().await;
        as_interface(&host, VF);
        host.attach("pod/lost", VF).await;
        host.bind(VF, None);
        host.may_be_rebound(VF, Some("igbvf")).await.unwrap();
        for driver in [Some("vfio-pci"), None] {
            let refused = host.may_be_rebound(VF, driver).await.unwrap_err();
            assert!(refused.contains("belongs to pod/lost"), "{refused}");
        }
        host.refuses("web/net0", VF, "belongs to pod/lost").await;
    }

    #[tokio::test]
    async fn a_vf_whose_driver_is_being_changed_is_not_moved_into_a_namespace() {
        let host = host().await;
        as_interface(&host, VF);
        for driver in [Some("igbvf"), Some("vfio-pci"), None] {
            let claim = host.guard.rebind(bdf(PF), bdf(VF), driver).await.unwrap();
            host.refuses("pod/net0", VF, "its driver is being changed").await;
            drop(claim);
        }
        let claim = host.guard.recount(bdf(PF)).await.unwrap();
        host.refuses("pod/net0", VF, "the number of VFs").await;
        drop(claim);
        host.attach("pod/net0", VF).await;
    }
}

/// One test for each body and each of the backends.
macro_rules! suite {
    ($($name:ident)*) => {
        mod of_qemu {
            use super::Host;

            $(#[tokio::test]
            async fn $name() {
                super::$name(Host::of_qemu().await).await;
            })*
        }

        mod of_sim {
            use super::Host;

            $(#[tokio::test]
            async fn $name() {
                super::$name(Host::of_sim().await).await;
            })*
        }
    };
}

suite! {
    a_vf_on_vfio_pci_alone_in_its_group_is_handed_out
    a_physical_function_never_is
    the_driver_has_to_be_vfio_pci
    without_an_iommu_nothing_is_handed_out
    a_vf_has_one_holder
    a_standby_is_for_a_known_machine_on_a_bridge_and_with_a_mac_of_a_station
    only_a_known_machine_without_vfs_is_moved
    one_group_is_never_shared_by_two_partitions
    a_bridge_may_be_in_the_group_and_nothing_else_that_is_no_vf
    a_vf_is_looked_at_again_before_a_partition_starts_with_it
    a_vf_that_is_held_keeps_its_driver_and_so_do_those_beside_it
    a_vf_whose_driver_is_being_changed_is_handed_to_nobody_nor_is_one_beside_it
    a_vf_beside_one_that_is_being_bound_to_vfio_pci_is_handed_out
    vfs_that_are_being_made_anew_are_handed_to_nobody_and_keep_their_drivers
    a_definition_that_breaks_the_rules_of_a_spec_is_refused
}
