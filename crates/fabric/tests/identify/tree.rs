//! Folders that look like /sys and /proc of some host.

use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use ioward_fabric::linux::{HostRoot, identify};
use ioward_model::Inventory;

const DEVICES: &str = "sys/devices/pci0000:00";

/// A tree in the folder for temporary files, removed at the end.
pub struct Tree {
    path: PathBuf,
}

impl Tree {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ioward-identify-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    pub fn root(&self) -> HostRoot {
        HostRoot::open(&self.path).unwrap()
    }

    pub fn identify(&self) -> Inventory {
        identify(&self.root()).unwrap()
    }

    /// The real path of something in the tree.
    pub fn at(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Writes a file, in place of any earlier one.
    pub fn file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Self {
        self.clear(path);
        fs::write(self.at(path), contents).unwrap();
        self
    }

    /// Makes a symlink, in place of any earlier one.
    pub fn link(&self, path: &str, target: &str) -> &Self {
        self.clear(path);
        symlink(target, self.at(path)).unwrap();
        self
    }

    pub fn folder(&self, path: &str) -> &Self {
        fs::create_dir_all(self.at(path)).unwrap();
        self
    }

    pub fn remove(&self, path: &str) {
        let path = self.at(path);
        if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .unwrap();
    }

    /// Adds a PCI function: its folder, with `config`, and the kernel's link on the bus.
    pub fn function(&self, address: &str, config: &[u8]) -> &Self {
        self.device_file(&format!("{address}/config"), config);
        self.link(
            &format!("sys/bus/pci/devices/{address}"),
            &format!("../../../devices/pci0000:00/{address}"),
        )
    }

    /// The path of something in a function's folder, as `0000:01:00.0/vendor`.
    pub fn device(&self, path: &str) -> String {
        format!("{DEVICES}/{path}")
    }

    pub fn device_file(&self, path: &str, contents: impl AsRef<[u8]>) -> &Self {
        self.file(&self.device(path), contents)
    }

    pub fn device_link(&self, path: &str, target: &str) -> &Self {
        self.link(&self.device(path), target)
    }

    /// Puts a function into an IOMMU group.
    pub fn group(&self, address: &str, group: u32) -> &Self {
        self.link(
            &format!("sys/kernel/iommu_groups/{group}/devices/{address}"),
            &format!("../../../../devices/{address}"),
        );
        self.device_link(&format!("{address}/iommu_group"), &format!("../../../kernel/iommu_groups/{group}"))
    }

    /// Truncates a function's configuration space to `length` bytes.
    pub fn cut_config(&self, address: &str, length: usize) {
        let path = self.device(&format!("{address}/config"));
        let bytes = fs::read(self.at(&path)).unwrap();
        self.file(&path, &bytes[..length]);
    }

    /// Changes bytes of a function's configuration space.
    pub fn patch_config(&self, address: &str, offset: usize, patch: &[u8]) {
        let path = self.device(&format!("{address}/config"));
        let mut bytes = fs::read(self.at(&path)).unwrap();
        bytes[offset..][..patch.len()].copy_from_slice(patch);
        self.file(&path, bytes);
    }

    fn clear(&self, path: &str) {
        let full = self.at(path);
        if full.symlink_metadata().is_ok() {
            self.remove(path);
        }
        fs::create_dir_all(full.parent().unwrap()).unwrap();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // A leftover temporary folder is not a failure.
        let _ = fs::remove_dir_all(&self.path);
    }
}
