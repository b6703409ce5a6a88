//! What may be handed to a partition at all. The hypervisor side looks for itself and trusts no plan (DESIGN §4.1).
//!
//! The kernel lets a process have a function through VFIO only together with the whole IOMMU group, and devices in one
//! group may reach each other past the IOMMU. So a group is handed out whole: to one partition, or not at all.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::{Path, PathBuf},
};

use ioward_model::Owner;
use ioward_pci::Bdf;

/// Class code of PCI bridges, base class and subclass (PCI Code and ID Assignment §1.7). The kernel keeps them bound
/// to their own drivers within a group.
const PCI_BRIDGE: &str = "0x0604";

/// The kernel's view of PCI devices. Everything read here is a link or a number that the PCI core itself keeps: no
/// driver is asked, so nothing blocks.
#[derive(Debug)]
pub(super) struct Sysfs {
    devices: PathBuf,
}

impl Sysfs {
    /// The tree that is usually at `/sys`.
    pub(super) fn new(root: &Path) -> Self {
        Self { devices: root.join("bus/pci/devices") }
    }

    /// Whether a function can be handed to `owner`, given who holds what already; if not, why.
    pub(super) fn check(
        &self,
        function: Bdf,
        owner: &Owner,
        holder: impl Fn(Bdf) -> Option<Owner>,
    ) -> Result<(), String> {
        let device = self.devices.join(function.to_string());
        if !device.is_dir() {
            return Err("there is no such function".into());
        }
        if !self.is_virtual(&device) {
            return Err("it is no virtual function, and only those are handed out".into());
        }
        match link_name(&device.join("driver")) {
            Ok(Some(driver)) if driver == "vfio-pci" => {}
            Ok(Some(driver)) => return Err(format!("it is bound to {}, not to vfio-pci", driver.display())),
            Ok(None) => return Err("it is bound to no driver, and has to be to vfio-pci".into()),
            Err(error) => return Err(format!("its driver can't be read: {error}")),
        }
        let members =
            fs::read_dir(device.join("iommu_group/devices")).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    "it has no IOMMU group; turn the IOMMU on (intel_iommu=on, or in the firmware)".into()
                }
                _ => format!("its IOMMU group can't be read: {error}"),
            })?;
        for member in members {
            let name = member.map_err(|error| format!("its IOMMU group can't be read: {error}"))?.file_name();
            self.check_member(&name, owner, &holder)
                .map_err(|why| format!("{} in its IOMMU group {why}", name.display()))?;
        }
        Ok(())
    }

    /// The number of a function's IOMMU group; `None` when it has none, or is gone.
    pub(super) fn group(&self, function: Bdf) -> Option<OsString> {
        link_name(&self.devices.join(function.to_string()).join("iommu_group")).ok().flatten()
    }

    /// Whether one device of a group may be with `owner`'s VF there.
    fn check_member(
        &self,
        name: &OsString,
        owner: &Owner,
        holder: impl Fn(Bdf) -> Option<Owner>,
    ) -> Result<(), String> {
        let device = self.devices.join(name);
        let class = fs::read_to_string(device.join("class"))
            .map_err(|error| format!("can't be looked at: {error}"))?;
        if class.starts_with(PCI_BRIDGE) {
            return Ok(());
        }
        if !self.is_virtual(&device) {
            return Err("is no virtual function".into());
        }
        match link_name(&device.join("driver")) {
            Ok(Some(driver)) if driver != "vfio-pci" => {
                return Err(format!("is bound to {}", driver.display()));
            }
            Ok(_) => {}
            Err(error) => return Err(format!("has a driver that can't be read: {error}")),
        }
        let function: Bdf = name.to_str().and_then(|text| text.parse().ok()).ok_or("is no PCI function")?;
        match holder(function) {
            Some(other) if other.partition != owner.partition => Err(format!("belongs to {other}")),
            _ => Ok(()),
        }
    }

    fn is_virtual(&self, device: &Path) -> bool {
        fs::symlink_metadata(device.join("physfn")).is_ok()
    }
}

/// The node through which a machine has the functions of an IOMMU group (Documentation/driver-api/vfio.rst).
pub(super) fn node(devices: &Path, group: &OsStr) -> PathBuf {
    devices.join("vfio").join(group)
}

/// The last part of what a link points to; `None` when there is no link.
fn link_name(link: &Path) -> io::Result<Option<OsString>> {
    match fs::read_link(link) {
        Ok(target) => Ok(target.file_name().map(ToOwned::to_owned)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const VF: &str = "0000:01:10.0";
    const SIBLING: &str = "0000:01:10.2";
    const PORT: &str = "0000:00:01.0";

    /// A PF, a root port and two VFs; each VF is alone in its group, but for what `add` puts there.
    struct Host(tempfile::TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            host.device("0000:01:00.0", "0x020000", Some("igb"), false);
            host.device(PORT, "0x060400", Some("pcieport"), false);
            for vf in [VF, SIBLING] {
                host.device(vf, "0x020000", Some("vfio-pci"), true);
                host.add_to_group_of(vf, vf);
            }
            host
        }

        fn path(&self, device: &str) -> PathBuf {
            self.0.path().join("bus/pci/devices").join(device)
        }

        fn device(&self, address: &str, class: &str, driver: Option<&str>, is_virtual: bool) {
            fs::create_dir_all(self.path(address)).unwrap();
            fs::write(self.path(address).join("class"), format!("{class}\n")).unwrap();
            if is_virtual {
                symlink("../0000:01:00.0", self.path(address).join("physfn")).unwrap();
            }
            if let Some(driver) = driver {
                self.bind(address, driver);
            }
        }

        fn bind(&self, address: &str, driver: &str) {
            let link = self.path(address).join("driver");
            let _ = fs::remove_file(&link);
            symlink(format!("../../../../bus/pci/drivers/{driver}"), link).unwrap();
        }

        fn add_to_group_of(&self, vf: &str, member: &str) {
            let members = self.path(vf).join("iommu_group/devices");
            fs::create_dir_all(&members).unwrap();
            symlink(format!("../../../{member}"), members.join(member)).unwrap();
        }

        fn check(&self, function: &str, held: &[(&str, &str)]) -> Result<(), String> {
            let owner = "web/net0".parse().unwrap();
            let holder = |function: Bdf| {
                held.iter()
                    .find(|(held, _)| *held == function.to_string())
                    .map(|(_, owner)| owner.parse().unwrap())
            };
            Sysfs::new(self.0.path()).check(function.parse().unwrap(), &owner, holder)
        }

        #[track_caller]
        fn refuses(&self, function: &str, held: &[(&str, &str)], because: &str) {
            let why = self.check(function, held).unwrap_err();
            assert!(why.contains(because), "{why}");
        }
    }

    #[test]
    fn a_vf_on_vfio_pci_alone_in_its_group_is_handed_out() {
        assert_eq!(Host::new().check(VF, &[]), Ok(()));
        assert_eq!(Host::new().check(VF, &[(VF, "web/net0")]), Ok(()), "and stays so for who has it");
    }

    #[test]
    fn a_physical_function_never_is() {
        let host = Host::new();
        host.bind("0000:01:00.0", "vfio-pci");
        host.add_to_group_of("0000:01:00.0", "0000:01:00.0");
        host.refuses("0000:01:00.0", &[], "no virtual function");
        host.refuses("0000:07:00.0", &[], "no such function");
    }

    #[test]
    fn the_driver_has_to_be_vfio_pci() {
        let host = Host::new();
        host.bind(VF, "igbvf");
        host.refuses(VF, &[], "bound to igbvf");
        fs::remove_file(host.path(VF).join("driver")).unwrap();
        host.refuses(VF, &[], "no driver");
    }

    #[test]
    fn without_an_iommu_nothing_is_handed_out() {
        let host = Host::new();
        fs::remove_dir_all(host.path(VF).join("iommu_group")).unwrap();
        host.refuses(VF, &[], "turn the IOMMU on");
    }

    #[test]
    fn one_group_is_never_shared_by_two_partitions() {
        let host = Host::new();
        host.add_to_group_of(VF, SIBLING);
        assert_eq!(host.check(VF, &[(SIBLING, "web/net1")]), Ok(()), "the same partition may have both");
        host.refuses(VF, &[(SIBLING, "db/net0")], "belongs to db/net0");
        host.bind(SIBLING, "igbvf");
        host.refuses(VF, &[], "0000:01:10.2 in its IOMMU group is bound to igbvf");
    }

    #[test]
    fn a_bridge_may_be_in_the_group_and_a_physical_function_may_not() {
        let host = Host::new();
        host.add_to_group_of(VF, PORT);
        assert_eq!(host.check(VF, &[]), Ok(()));
        host.bind("0000:01:00.0", "vfio-pci");
        host.add_to_group_of(VF, "0000:01:00.0");
        host.refuses(VF, &[], "0000:01:00.0 in its IOMMU group is no virtual function");
    }
}
