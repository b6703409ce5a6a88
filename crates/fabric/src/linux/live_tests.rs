//! The sysfs side of [`LinuxFabric`] on a folder of files that accepts writes and has no effects.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

const PF: &str = "0000:01:00.0";
const VF: &str = "0000:01:10.0";

/// A separate folder for each test, removed at its end.
struct Host(PathBuf);

impl Host {
    /// A PF with two VFs, of which the first is bound to igbvf, and the drivers igbvf and vfio-pci.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("ioward-fabric-{}-{number}", std::process::id()));
        let host = Self(root);
        for (attribute, text) in [
            (format!("devices/{PF}/sriov_totalvfs"), "7"),
            (format!("devices/{PF}/sriov_numvfs"), "2"),
            (format!("devices/{PF}/sriov_drivers_autoprobe"), "1"),
            (format!("devices/{VF}/config"), ""),
            (format!("devices/{VF}/reset"), ""),
            (format!("devices/{VF}/driver_override"), "(null)"),
            ("devices/0000:01:10.2/config".to_owned(), ""),
            ("drivers/igbvf/bind".to_owned(), ""),
            ("drivers/igbvf/unbind".to_owned(), ""),
            ("drivers/vfio-pci/bind".to_owned(), ""),
        ] {
            host.write(&attribute, text);
        }
        host.link(&format!("devices/{PF}/virtfn0"), &format!("../{VF}"));
        host.link(&format!("devices/{PF}/virtfn1"), "../0000:01:10.2");
        host.link(&format!("devices/{VF}/physfn"), &format!("../{PF}"));
        host.link(&format!("devices/{VF}/driver"), "../../drivers/igbvf");
        host
    }

    fn path(&self, attribute: &str) -> PathBuf {
        self.0.join("sys/bus/pci").join(attribute)
    }

    fn write(&self, attribute: &str, text: &str) {
        let path = self.path(attribute);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, from: &str, to: &str) {
        symlink(to, self.path(from)).unwrap();
    }

    fn text(&self, attribute: &str) -> String {
        fs::read_to_string(self.path(attribute)).unwrap()
    }

    fn fabric(&self) -> LinuxFabric {
        LinuxFabric { root: self.0.clone(), ..LinuxFabric::new() }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn vf(index: u16) -> VfId {
    VfId { pf: at(PF), index }
}

#[tokio::test]
async fn a_vf_is_where_its_link_points() {
    let host = Host::new();
    assert_eq!(host.fabric().vf_address(vf(0)).await.unwrap(), at(VF));
    let missing = host.fabric().vf_address(vf(5)).await.unwrap_err().to_string();
    assert_eq!(missing, format!("VF 5 of {PF} does not exist; {PF} has 2 VFs now"));
}

#[tokio::test]
async fn a_missing_function_and_one_that_is_not_a_pf_are_reported() {
    let host = Host::new();
    let gone = host.fabric().set_vf_count(at("0000:09:00.0"), 1).await.unwrap_err().to_string();
    assert!(gone.contains("0000:09:00.0 is not there"), "{gone}");
    let no_pf = host.fabric().set_autoprobe(at(VF), true).await.unwrap_err().to_string();
    assert!(no_pf.contains("has no SR-IOV capability"), "{no_pf}");
}

/// A request for a function that does not exist fails without a thread, let alone a lane.
#[tokio::test]
async fn a_function_that_does_not_exist_gets_no_lane() {
    let host = Host::new();
    let fabric = host.fabric();
    let made_up = at("0000:09:00.0");
    let gone = VfId { pf: made_up, index: 0 };
    for refused in [
        fabric.set_autoprobe(made_up, true).await,
        fabric.set_vf_count(made_up, 1).await,
        fabric.reset(gone).await,
        fabric.is_open(gone).await.map(drop),
    ] {
        let refused = refused.unwrap_err();
        assert!(matches!(refused, FabricError::NoSuchFunction { .. }), "{refused}");
        assert!(fabric.lanes.are_empty());
    }
}

#[tokio::test]
async fn autoprobe_is_written_only_when_it_differs() {
    let host = Host::new();
    let attribute = format!("devices/{PF}/sriov_drivers_autoprobe");
    host.fabric().set_autoprobe(at(PF), false).await.unwrap();
    assert_eq!(host.text(&attribute), "0");
    fs::remove_file(host.path(&attribute)).unwrap();
    fs::create_dir(host.path(&attribute)).unwrap();
    assert!(host.fabric().set_autoprobe(at(PF), true).await.is_err(), "an unreadable attribute is an error");
}

/// 63 to 4 VFs is EBUSY (openshift/sriov-network-operator#131), and a direct change to N would take VFs from their
/// users.
#[tokio::test]
async fn the_number_of_vfs_changes_through_zero_only() {
    let host = Host::new();
    let refused = host.fabric().set_vf_count(at(PF), 3).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        format!(
            "the kernel refused to set 3 VFs on {PF}, which has 2: the number changes through 0 only: set 0 first"
        )
    );
    host.fabric().set_vf_count(at(PF), 2).await.expect("what is so already is no change");
    assert_eq!(host.text(&format!("devices/{PF}/sriov_numvfs")), "2");
}

#[tokio::test]
async fn more_than_totalvfs_is_refused_before_anything_is_written() {
    let host = Host::new();
    host.write(&format!("devices/{PF}/sriov_numvfs"), "0");
    let refused = host.fabric().set_vf_count(at(PF), 8).await.unwrap_err().to_string();
    assert!(refused.ends_with("it gives 7 VFs at most"), "{refused}");
    assert_eq!(host.text(&format!("devices/{PF}/sriov_numvfs")), "0");
}

/// openshift/sriov-network-operator#1182: a write to sriov_numvfs blocked forever and the daemon with it. A FIFO
/// without a reader blocks the same way.
#[tokio::test]
async fn a_write_that_blocks_is_reported_as_stuck() {
    let host = Host::new();
    let attribute = host.path(&format!("devices/{VF}/reset"));
    fs::remove_file(&attribute).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &attribute, rustix::fs::Mode::RWXU).unwrap();

    let mut fabric = host.fabric();
    fabric.bounds.other = Duration::from_millis(20);
    let stuck = fabric.reset(vf(0)).await.unwrap_err();
    assert!(matches!(stuck, FabricError::Stuck { .. }), "{stuck}");
    fabric.bounds.other = Duration::from_secs(600);
    assert!(
        matches!(fabric.set_autoprobe(at(PF), false).await, Err(FabricError::Stuck { .. })),
        "fails fast"
    );

    drop(fs::File::open(&attribute).unwrap());
    fabric.lanes.freed(Key::Change(at(PF))).await;
    fabric.set_autoprobe(at(PF), false).await.unwrap();
}

/// nmstate 614c66dc: a bound that scaled with the number of VFs by an integer division was 0 s for 17 to 63 VFs.
#[test]
fn the_bound_grows_with_every_vf() {
    let bounds = Bounds::default();
    for count in 1..=u16::MAX - 1 {
        assert!(bounds.for_vf_count(count + 1, u16::MAX) > bounds.for_vf_count(count, u16::MAX));
    }
    assert!(
        bounds.for_vf_count(125, 128) > Duration::from_secs(65 * 2),
        "twice what one adapter was seen to need"
    );
    assert_eq!(bounds.for_vf_count(0, 7), bounds.for_vf_count(7, 7), "taking them away takes as long");
}

#[tokio::test]
async fn a_function_of_another_pf_is_never_touched() {
    let host = Host::new();
    // VF 1 has no physfn link, like a PF that a damaged tree lists as a VF.
    for refused in [
        host.fabric().bind(vf(1), Some("vfio-pci")).await.map(drop),
        host.fabric().reset(vf(1)).await,
        host.fabric().settings(vf(1)).await.map(drop),
    ] {
        assert!(refused.unwrap_err().to_string().contains("is not a virtual function of that PF"));
    }
}

#[tokio::test]
async fn a_vf_that_is_bound_already_is_left_alone() {
    let host = Host::new();
    assert_eq!(host.fabric().bind(vf(0), Some("igbvf")).await.unwrap().as_deref(), Some("igbvf"));
    assert_eq!(host.text("drivers/igbvf/unbind"), "");
}

#[tokio::test]
async fn a_driver_that_is_not_loaded_is_named_with_the_remedy() {
    let host = Host::new();
    for name in ["mlx5-vfio-pci", "../../devices", ""] {
        let refused = host.fabric().bind(vf(0), Some(name)).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("try 'modprobe {name}'")), "{refused}");
    }
    assert_eq!(host.text("drivers/igbvf/unbind"), "", "nothing was tried");
}

/// kubernetes-sigs/dra-driver-nvidia-gpu#1255: a failed VFIO bind left the device with an override and no driver.
#[tokio::test]
async fn a_vf_refused_by_the_driver_is_bound_as_before() {
    let host = Host::new();
    // Writes have no effect here, so vfio-pci never takes the VF and the link stays with igbvf.
    fs::create_dir(host.path(&format!("devices/{VF}/iommu_group"))).unwrap();
    let refused = host.fabric().bind(vf(0), Some("vfio-pci")).await.unwrap_err().to_string();
    assert!(
        refused.contains("the driver let go of it again") && refused.ends_with("it is bound as before"),
        "{refused}"
    );
    assert_eq!(host.text("drivers/igbvf/bind"), VF);
}

#[tokio::test]
async fn without_an_iommu_vfio_names_the_option_to_turn_on() {
    let host = Host::new();
    let refused = host.fabric().bind(vf(0), Some("vfio-pci")).await.unwrap_err().to_string();
    assert!(refused.contains("intel_iommu=on"), "{refused}");
}

#[tokio::test]
async fn only_an_flr_is_used_as_a_reset() {
    let host = Host::new();
    host.fabric().reset(vf(0)).await.unwrap();
    assert_eq!(host.text(&format!("devices/{VF}/reset")), "1");
    host.write(&format!("devices/{VF}/reset_method"), "bus\n");
    assert!(matches!(host.fabric().reset(vf(0)).await, Err(FabricError::Unsupported { .. })));
}

#[tokio::test]
async fn a_pf_without_a_driver_has_no_settings() {
    let host = Host::new();
    let error = host.fabric().settings(vf(0)).await.unwrap_err().to_string();
    assert!(error.contains("neither a network interface here nor an NVMe controller"), "{error}");
}

/// `echo 0 > sriov_numvfs` by hand waits for the guest that has the VF, and readers of this attribute wait with it.
#[tokio::test]
async fn an_attribute_that_blocks_delays_nothing_else() {
    let host = Host::new();
    let attribute = host.path(&format!("devices/{PF}/sriov_vf_total_msix"));
    // A FIFO without a writer: a reader waits.
    mknodat(CWD, &attribute, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let bounds = Bounds { locked: Duration::ZERO, ..Bounds::default() };
    let fabric = LinuxFabric { bounds, ..host.fabric() };
    let first = fabric.details(at(PF)).await;
    let told = first.reasons.iter().map(ToString::to_string).collect::<String>();
    assert!(told.contains("reading sriov_vf_total_msix of 0000:01:00.0 has not returned"), "{told}");
    assert_eq!(fabric.vf_address(vf(0)).await.unwrap(), at(VF));
    fabric.set_autoprobe(at(PF), false).await.unwrap();
    assert_eq!(fabric.details(at(PF)).await, first, "what is stuck changes nothing, however long it is");

    fs::write(&attribute, "10\n").unwrap();
    fabric.lanes.freed(Key::Locked(at(PF))).await;
    fs::remove_file(&attribute).unwrap();
    fs::write(&attribute, "10\n").unwrap();
    assert_eq!(host.fabric().details(at(PF)).await.vf_msix_total, Some(10));
}

#[test]
fn an_attribute_is_written_in_place() {
    let host = Host::new();
    let work = Work::default();
    let sysfs = Sysfs { root: host.0.clone(), work: &work };
    let nowhere: &Path = &host.path(&format!("devices/{PF}/no_such_attribute"));
    assert!(sysfs.write(nowhere, "1").is_err(), "an attribute that is not there is not made");
    assert!(!nowhere.exists());
}
