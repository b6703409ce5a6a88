//! A host's sysfs as files, made from a simulated machine.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use ioward_fabric::{
    Fabric,
    sim::{Adapter, SimMachine},
};
use ioward_model::{HexId, PhysicalFunction};
use ioward_pci::Bdf;

/// VFs that one adapter of the machine gives.
const VFS_EACH: usize = 127;
/// Bytes of a function's configuration space.
const CONFIG: u16 = 4096;
/// What the kernel says of a VF BAR's window: memory, prefetchable, 64 bits (include/linux/ioport.h).
const WINDOW: u64 = 0x14_220c;

/// The host's root, in the folder of the benchmark.
pub fn root(folder: &Path) -> PathBuf {
    folder.join("host")
}

/// Makes a host with so many VFs; gives the number of functions.
pub fn make(folder: &Path, vfs: usize) -> usize {
    let adapters = vfs.div_ceil(VFS_EACH);
    let machine =
        (0..adapters).fold(SimMachine::builder(1), |builder, _| builder.adapter(Adapter::hundred_g()));
    let machine = machine.build();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inventory = runtime.block_on(async {
        let fabric = machine.fabric();
        for (at, pf) in machine.physical_functions().into_iter().enumerate() {
            let count = (vfs - at * VFS_EACH).min(VFS_EACH);
            fabric.set_vf_count(pf, u16::try_from(count).unwrap()).await.unwrap();
        }
        fabric.identify().await.unwrap()
    });
    let tree = Tree { root: root(folder) };
    fs::create_dir_all(tree.devices()).unwrap();
    let mut group = 0;
    for (slot, pf) in (1..).zip(&inventory.physical_functions) {
        add_pf(&tree, &machine, slot, pf);
        tree.group(pf.address, &mut group);
        // They differ in nothing but their address.
        let config = pf.virtual_functions.first().map(|vf| config(&machine, vf.address));
        for vf in &pf.virtual_functions {
            tree.function(vf.address, config.as_deref().unwrap());
            let id = pf.sriov.as_ref().unwrap().vf_device_id;
            tree.identity(vf.address, pf.vendor_id, id, &"0x0 0x0 0x0\n".repeat(7));
            tree.file(vf.address, "reset_method", "flr\n");
            tree.link(vf.address, "physfn", &format!("../{}", pf.address));
            tree.link(pf.address, &format!("virtfn{}", vf.index), &format!("../{}", vf.address));
            tree.driver(vf.address, "vfio-pci");
            tree.group(vf.address, &mut group);
        }
    }
    let ids = "usr/share/misc/pci.ids";
    if let Ok(text) = fs::read(Path::new("/").join(ids)) {
        write(&root(folder).join(ids), &text);
    }
    inventory.physical_functions.iter().map(|pf| 1 + pf.virtual_functions.len()).sum()
}

fn add_pf(tree: &Tree, machine: &SimMachine, slot: u64, pf: &PhysicalFunction) {
    let sriov = pf.sriov.as_ref().unwrap();
    tree.function(pf.address, &config(machine, pf.address));
    let mut windows = vec!["0x0 0x0 0x0\n".to_owned(); 13];
    for bar in &sriov.vf_bars {
        let start = (slot << 40) + (u64::from(bar.index) << 36);
        let end = start + bar.bytes_per_vf.unwrap() * u64::from(sriov.total_vfs) - 1;
        windows[7 + usize::from(bar.index)] = format!("{start:#x} {end:#x} {WINDOW:#x}\n");
    }
    tree.identity(pf.address, pf.vendor_id, pf.device_id, &windows.concat());
    for (name, value) in [
        ("power_state", "D0".to_owned()),
        ("sriov_totalvfs", sriov.total_vfs.to_string()),
        ("sriov_numvfs", sriov.num_vfs.to_string()),
        ("sriov_drivers_autoprobe", "1".to_owned()),
        ("sriov_vf_total_msix", "0".to_owned()),
    ] {
        tree.file(pf.address, name, &format!("{value}\n"));
    }
    tree.driver(pf.address, pf.driver.as_deref().unwrap());
}

fn config(machine: &SimMachine, function: Bdf) -> Vec<u8> {
    (0..CONFIG).step_by(4).flat_map(|offset| machine.config_read::<4>(function, offset)).collect()
}

struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The functions on the bus.
    fn devices(&self) -> PathBuf {
        self.root.join("sys/bus/pci/devices")
    }

    fn folder(&self, function: Bdf) -> PathBuf {
        self.root.join("sys/devices/pci0000:00").join(function.to_string())
    }

    fn file(&self, function: Bdf, name: &str, content: &str) {
        write(&self.folder(function).join(name), content.as_bytes());
    }

    fn link(&self, function: Bdf, name: &str, target: &str) {
        symlink(target, self.folder(function).join(name)).unwrap();
    }

    fn function(&self, function: Bdf, config: &[u8]) {
        write(&self.folder(function).join("config"), config);
        let target = format!("../../../devices/pci0000:00/{function}");
        symlink(target, self.devices().join(function.to_string())).unwrap();
    }

    fn identity(&self, function: Bdf, vendor: HexId, device: HexId, resource: &str) {
        for (name, value) in [
            ("vendor", format!("{:#06x}", vendor.0)),
            ("device", format!("{:#06x}", device.0)),
            ("subsystem_vendor", format!("{:#06x}", vendor.0)),
            ("subsystem_device", "0x0001".to_owned()),
            ("revision", "0x01".to_owned()),
            ("class", "0x020000".to_owned()),
            ("irq", "0".to_owned()),
            ("numa_node", "0".to_owned()),
        ] {
            self.file(function, name, &format!("{value}\n"));
        }
        self.file(function, "resource", resource);
    }

    fn driver(&self, function: Bdf, driver: &str) {
        fs::create_dir_all(self.root.join("sys/bus/pci/drivers").join(driver)).unwrap();
        self.link(function, "driver", &format!("../../../bus/pci/drivers/{driver}"));
    }

    /// In a group of its own, the next one.
    fn group(&self, function: Bdf, group: &mut usize) {
        let devices = self.root.join(format!("sys/kernel/iommu_groups/{group}/devices"));
        fs::create_dir_all(&devices).unwrap();
        symlink(format!("../../../../devices/pci0000:00/{function}"), devices.join(function.to_string()))
            .unwrap();
        self.link(function, "iommu_group", &format!("../../../kernel/iommu_groups/{group}"));
        *group += 1;
    }
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}
