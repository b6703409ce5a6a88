//! Shared by the tests with a real QEMU: a runtime folder of their own, and guests of a few bytes.
#![allow(dead_code, reason = "each test program uses its part")]

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use ioward_hypervisor::{
    Guard, Hypervisor, HypervisorError, HypervisorEvent, PartitionStatus, on_this_host,
    qemu::{Bounds, QemuConfig},
};
use ioward_model::{Name, Spec};
use rustix::process::{Pid, Signal};
use tokio::sync::mpsc;

/// Far above what anything here takes; whoever waits this long has found a bug.
pub const LONG: Duration = Duration::from_secs(60);

/// A boot sector that says `u` on the serial port and waits for the power button, then turns the machine off: PM1 enable
/// and status at 0x602 and 0x600, PM1 control at 0x604, where SeaBIOS puts them (ACPI 6.5 §4.8.3).
pub const OBEDIENT: &[u8] = &[
    0xfa, // cli
    0xba, 0x02, 0x06, // mov dx, 0x602
    0xb8, 0x00, 0x01, // mov ax, PWRBTN_EN
    0xef, // out dx, ax
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'u', // mov al, 'u'
    0xee, // out dx, al
    0xba, 0x00, 0x06, // mov dx, 0x600
    0xed, // wait: in ax, dx
    0xf6, 0xc4, 0x01, // test ah, PWRBTN_STS >> 8
    0x74, 0xfa, // jz wait
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, // mov ax, SLP_EN
    0xef, // out dx, ax
    0xf4, // hlt
];

/// A boot sector that waits for a byte on the serial port and then turns the machine off by itself.
pub const MOODY: &[u8] = &[
    0xfa, // cli
    0xba, 0xfd, 0x03, // mov dx, 0x3fd
    0xec, // wait: in al, dx
    0xa8, 0x01, // test al, 1
    0x74, 0xfb, // jz wait
    0xba, 0x04, 0x06, // mov dx, 0x604
    0xb8, 0x00, 0x20, // mov ax, SLP_EN
    0xef, // out dx, ax
    0xf4, // hlt
];

/// A boot sector that does nothing, for ever.
pub const DEAF: &[u8] = &[0xfa, 0xf4, 0xeb, 0xfd]; // cli; hlt; jmp back

/// A runtime folder. Its machines end with it, whatever became of the test.
pub struct Bench {
    folder: tempfile::TempDir,
    pub bounds: Bounds,
}

impl Bench {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), bounds: Bounds::default() }
    }

    pub fn config(&self) -> QemuConfig {
        let sysfs = self.folder.path().join("sys");
        QemuConfig {
            runtime_dir: self.runtime(),
            sysfs,
            bounds: self.bounds.clone(),
            ..QemuConfig::default()
        }
    }

    fn runtime(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    pub async fn open(&self) -> Guard {
        on_this_host(self.config()).await.unwrap()
    }

    pub fn file(&self, partition: &Name, file: &str) -> PathBuf {
        self.runtime().join("partitions").join(partition.as_str()).join(file)
    }

    /// A disk that starts with a boot sector. Its name is one that a careless command line breaks at.
    pub fn disk(&self, code: &[u8]) -> PathBuf {
        let path = self.folder.path().join(format!("disk,{}=on.img", code.len()));
        let mut disk = vec![0; 1 << 20];
        disk[..code.len()].copy_from_slice(code);
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        fs::write(&path, disk).unwrap();
        path
    }

    /// Gives a disk to machines, as a person does.
    pub fn give(&self, disk: &Path, group: u32) {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        std::os::unix::fs::chown(disk, None, Some(group)).unwrap();
        fs::set_permissions(disk, fs::Permissions::from_mode(0o660)).unwrap();
    }

    /// Defines a partition that boots from `disk`.
    pub async fn define(&self, hypervisor: &Guard, name: &str, disk: &Path) -> Name {
        self.define_as(hypervisor, name, &format!("disk = '{}'", disk.display())).await
    }

    pub async fn define_as(&self, hypervisor: &Guard, name: &str, boot: &str) -> Name {
        let text = format!(
            "version = 1\n[[partition]]\nname = \"{name}\"\nmemory = \"64MiB\"\nboot = {{ {boot} }}\n"
        );
        hypervisor.define(&Spec::parse(text.as_bytes()).unwrap().partitions[0]).await.unwrap();
        name.parse().unwrap()
    }

    /// A VF `function`, alone in its IOMMU group and on vfio-pci, in a tree that no kernel knows.
    pub fn add_vf(&self, function: &str) {
        use std::os::unix::fs::symlink;
        let device = self.folder.path().join("sys/bus/pci/devices").join(function);
        fs::create_dir_all(device.join("iommu_group/devices").join(function)).unwrap();
        fs::write(device.join("class"), "0x020000\n").unwrap();
        symlink("../0000:fe:00.0", device.join("physfn")).unwrap();
        symlink("../drivers/vfio-pci", device.join("driver")).unwrap();
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let Ok(partitions) = fs::read_dir(self.runtime().join("partitions")) else { return };
        for partition in partitions.flatten() {
            let pid =
                fs::read_to_string(partition.path().join("pid")).ok().and_then(|pid| pid.trim().parse().ok());
            if let Some(pid) = pid.and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
    }
}

pub async fn status(hypervisor: &Guard, partition: &Name) -> PartitionStatus {
    hypervisor.partitions().await.unwrap().into_iter().find(|status| status.name == *partition).unwrap()
}

/// Whom a partition's machine runs as.
pub fn user(status: &PartitionStatus) -> u32 {
    fs::metadata(format!("/proc/{}", status.pid.unwrap())).unwrap().uid()
}

pub fn signal(status: &PartitionStatus, signal: Signal) {
    let pid = Pid::from_raw(status.pid.unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// The next partition that ends unasked, and why.
pub async fn next_end(events: &mut mpsc::Receiver<HypervisorEvent>) -> (Name, String) {
    let event = tokio::time::timeout(LONG, events.recv()).await.expect("no partition ended").unwrap();
    let HypervisorEvent::Ended { partition, why } = event else { unreachable!("{event:?}") };
    (partition, why)
}

/// Waits until a log holds `text`.
pub async fn wait_for_log(log: &Path, text: &str) {
    let deadline = Instant::now() + LONG;
    while !fs::read_to_string(log).unwrap_or_default().contains(text) {
        assert!(Instant::now() < deadline, "{} never said {text:?}", log.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Types one byte on a guest's console.
pub fn type_on(console: &Path, byte: u8) {
    UnixStream::connect(console).unwrap().write_all(&[byte]).unwrap();
}

/// Whether the other end of a stream is closed.
pub fn is_closed(mut stream: UnixStream) -> bool {
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    matches!(stream.read(&mut [0; 16]), Ok(0))
}

/// An error with its cause.
pub fn chain(error: &HypervisorError) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}")
}
