//! QEMU's command line for a partition. Pure: the record in, arguments out.
//!
//! Files and sockets are given to QEMU open, by number, so there are hardly paths in it. QEMU splits option values at commas and
//! takes a doubled comma for one: the one path there is goes through [`escaped`].

use std::{
    ffi::{OsStr, OsString},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use ioward_model::{Accelerator, Machine, MachineLayout, Name};

use super::{
    disk::DiskFormat,
    folder::Folder,
    record::{Definition, HeldStandby, HeldVf, Record, SLOTS},
};

/// The virtio-serial port by which a guest knows its channel.
const CHANNEL_PORT: &str = "org.ioward.0";
/// QEMU's names for the channel's two halves.
pub(super) const CHANNEL_CHARDEV: &str = "chan0";
pub(super) const CHANNEL_DEVICE: &str = "chanport0";

/// Options that take from QEMU the rights to change its own identity, to start programs and to use obsolete system calls; what
/// libvirt uses too. VFIO works under it.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// Files and sockets that QEMU is given open, so that it needs no right to any path of ours or of a person.
#[derive(Debug)]
pub(super) struct Given {
    /// Sockets that listen.
    pub qmp: OwnedFd,
    pub console: OwnedFd,
    pub channel: Option<OwnedFd>,
    /// Where the console's output goes.
    pub console_log: OwnedFd,
    /// The kernel it boots from.
    pub kernel: Option<OwnedFd>,
    pub initrd: Option<OwnedFd>,
    pub disk: Option<(OwnedFd, DiskFormat)>,
    /// The host's ends of its standbys, in their order.
    pub taps: Vec<OwnedFd>,
}

impl Given {
    pub(super) fn into_all(self) -> Vec<OwnedFd> {
        let Self { qmp, console, channel, console_log, kernel, initrd, disk, taps } = self;
        let some = [channel, kernel, initrd, disk.map(|(disk, _)| disk)];
        [qmp, console, console_log].into_iter().chain(some.into_iter().flatten()).chain(taps).collect()
    }
}

/// QEMU's sets of descriptors, by what is in them.
const CONSOLE_LOG_SET: u8 = 1;
const DISK_SET: u8 = 2;

/// QEMU's name for a VF.
pub(super) fn vf_id(vf: &HeldVf) -> String {
    format!("vf-{}", vf.name)
}

/// QEMU's names for a standby, by the name of its VF: of its device, and of what is behind that on the host.
pub(super) fn standby_id(name: &Name) -> String {
    format!("standby-{name}")
}

/// See [`standby_id`].
pub(super) fn tap_id(name: &Name) -> String {
    format!("tap-{name}")
}

/// QEMU's name for the slot that a VF is in.
pub(super) fn slot_id(slot: u8) -> String {
    format!("slot{slot}")
}

/// The value of the option that names a machine: by its partition's folder, which nobody else has, so that it is the mark by
/// which a machine is known to be this partition's.
pub(super) fn mark(folder: &Folder) -> OsString {
    joined("guest=", escaped(folder.path()))
}

/// The properties of a VF as a device. One that has a standby is that one's primary, and QEMU keeps it out of the machine until its guest
/// has negotiated `VIRTIO_NET_F_STANDBY`.
pub(super) fn vf_device(vf: &HeldVf, has_standby: bool) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("driver", "vfio-pci".into()),
        ("host", vf.function.to_string()),
        ("id", vf_id(vf)),
        ("bus", slot_id(vf.slot)),
    ];
    properties.extend(has_standby.then(|| ("failover_pair_id", standby_id(&vf.name))));
    properties
}

/// The properties of a standby as a device. It has no ROM: a machine does not boot from it.
pub(super) fn standby_device(standby: &HeldStandby) -> Vec<(&'static str, String)> {
    vec![
        ("driver", "virtio-net-pci".into()),
        ("netdev", tap_id(&standby.name)),
        ("id", standby_id(&standby.name)),
        ("mac", standby.nic.mac.to_string()),
        ("failover", "on".into()),
        ("romfile", String::new()),
        ("bus", slot_id(standby.slot)),
    ]
}

/// The properties of the channel's port as a device.
pub(super) fn channel_device() -> Vec<(&'static str, String)> {
    vec![
        ("driver", "virtserialport".into()),
        ("bus", "vser0.0".into()),
        ("chardev", CHANNEL_CHARDEV.into()),
        ("name", CHANNEL_PORT.into()),
        ("id", CHANNEL_DEVICE.into()),
    ]
}

/// Accelerators, best first: QEMU takes the first that works, and `query-kvm` tells which that was.
///
/// KVM is tried only on a processor with virtualization of its own. There are patched kernels whose KVM does without
/// (pvm), and it takes a machine, but does not execute it.
pub(super) fn accelerators(cpuinfo: &str) -> &'static [&'static str] {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    if flags.split_whitespace().any(|flag| flag == "vmx" || flag == "svm") {
        &["kvm", "tcg"]
    } else {
        &["tcg"]
    }
}

/// The whole command line but for the program.
///
/// `-cpu max` is `-cpu host` under KVM, and all that TCG can do without it, so that one command line serves both.
///
/// A machine that is to take over the state of one of the layout `awaited` is of that one's type, executes on the same, and stands still.
pub(super) fn arguments(
    record: &Record,
    given: &Given,
    folder: &Folder,
    accelerators: &[&str],
    awaited: Option<&MachineLayout>,
) -> Vec<OsString> {
    let Definition { numa_node, machine: Machine { cpus, memory, boot, .. }, .. } = &record.spec;
    let mut line = Line::default();
    line.add("-name", mark(folder));
    line.flag("-nodefaults").flag("-no-user-config").add("-display", "none");
    let machine = awaited.map_or("q35", |layout| layout.machine.as_str());
    let memory_of = if numa_node.is_some() { ",memory-backend=memory" } else { "" };
    line.add("-machine", format!("{machine}{memory_of}"));
    line.add("-cpu", "max");
    match awaited.map(|layout| layout.accelerator) {
        Some(Accelerator::Kvm) => _ = line.add("-accel", "kvm"),
        Some(Accelerator::Tcg | Accelerator::Sim) => _ = line.add("-accel", "tcg"),
        None => accelerators.iter().for_each(|accelerator| _ = line.add("-accel", *accelerator)),
    }
    if awaited.is_some() {
        line.flag("-S").add("-incoming", "defer");
    }
    line.add("-smp", format!("cpus={cpus}")).add("-m", format!("size={}M", memory.mebibytes()));
    if let Some(node) = numa_node {
        let size = memory.mebibytes();
        line.add(
            "-object",
            format!("memory-backend-ram,id=memory,size={size}M,host-nodes={node},policy=bind"),
        );
    }
    line.add("-overcommit", "mem-lock=off").add("-sandbox", SANDBOX);
    line.add("-chardev", listening_socket("qmp", &given.qmp)).add("-mon", "chardev=qmp,mode=control");

    let log = line.set(CONSOLE_LOG_SET, &given.console_log);
    let console = listening_socket("console", &given.console);
    line.add("-chardev", format!("{console},logappend=on,logfile={log}")).add("-serial", "chardev:console");

    if let Some(kernel) = &given.kernel {
        line.add("-kernel", by_number(kernel));
        if let Some(initrd) = &given.initrd {
            line.add("-initrd", by_number(initrd));
        }
        if let Some(cmdline) = &boot.cmdline {
            line.add("-append", cmdline);
        }
    }
    if let Some((disk, format)) = &given.disk {
        let file = line.set(DISK_SET, disk);
        let (driver, protocol) = (format.driver(), format.protocol());
        line.add(
            "-blockdev",
            format!("driver={driver},node-name=disk0,file.driver={protocol},file.filename={file}"),
        );
        // A kernel that is started directly has the first place already.
        let boot = if given.kernel.is_none() { ",bootindex=0" } else { "" };
        line.add("-device", format!("virtio-blk-pci,drive=disk0,id=blk0{boot}"));
    }

    line.add("-device", "virtio-serial-pci,id=vser0");
    for slot in 1..=SLOTS {
        line.add("-device", format!("pcie-root-port,id={},chassis={slot},slot={slot}", slot_id(slot)));
    }
    if let Some(channel) = &given.channel {
        line.add("-chardev", listening_socket(CHANNEL_CHARDEV, channel));
        line.add("-device", option(&channel_device()));
    }
    // Before VFs: QEMU pairs only what comes after its standby.
    for (standby, tap) in record.standbys.iter().zip(&given.taps) {
        let (id, number) = (tap_id(&standby.name), tap.as_raw_fd());
        line.add("-netdev", format!("tap,id={id},fd={number},vhost=off"));
        line.add("-device", option(&standby_device(standby)));
    }
    for vf in &record.vfs {
        line.add("-device", option(&vf_device(vf, record.standby(&vf.name).is_some())));
    }
    line.0
}

#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn flag(&mut self, flag: &str) -> &mut Self {
        self.0.push(flag.into());
        self
    }

    fn add(&mut self, flag: &str, value: impl Into<OsString>) -> &mut Self {
        self.flag(flag).0.push(value.into());
        self
    }

    /// Puts a descriptor into a set of its own, and gives the name by which QEMU opens what is in it.
    fn set(&mut self, set: u8, fd: &OwnedFd) -> String {
        self.add("-add-fd", format!("fd={},set={set}", fd.as_raw_fd()));
        format!("/dev/fdset/{set}")
    }
}

/// The name by which QEMU opens an inherited file where it takes no set of descriptors.
fn by_number(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Device properties as `-device` takes them. The values are names and addresses, which hold no comma.
fn option(properties: &[(&str, String)]) -> String {
    let pairs: Vec<_> = properties.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

fn listening_socket(id: &str, socket: &OwnedFd) -> String {
    format!("socket,id={id},fd={},server=on,wait=off", socket.as_raw_fd())
}

fn joined(before: &str, after: OsString) -> OsString {
    let mut text = OsString::from(before);
    text.push(after);
    text
}

/// A path within an option value: every comma doubled.
fn escaped(path: &Path) -> OsString {
    let mut bytes = Vec::with_capacity(path.as_os_str().len());
    for &byte in OsStr::as_bytes(path.as_os_str()) {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::{super::record::tests, *};

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn given(record: &Record, disk: Option<DiskFormat>) -> Given {
        let boot = &record.spec.machine.boot;
        Given {
            qmp: null(),
            console: null(),
            channel: record.channel.then(null),
            console_log: null(),
            kernel: boot.kernel.as_ref().map(|_| null()),
            initrd: boot.initrd.as_ref().map(|_| null()),
            disk: disk.map(|format| (null(), format)),
            taps: record.standbys.iter().map(|_| null()).collect(),
        }
    }

    fn arguments_of(record: &Record, given: &Given) -> Vec<String> {
        let folder = Folder::new(Path::new("/run/io,ward/partitions"), &record.spec.name);
        arguments(record, given, &folder, &["kvm", "tcg"], None)
            .into_iter()
            .map(|argument| argument.into_string().unwrap())
            .collect()
    }

    fn values<'a>(arguments: &'a [String], flag: &str) -> Vec<&'a str> {
        arguments.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1].as_str()).collect()
    }

    #[test]
    fn kvm_is_tried_first_on_a_processor_that_can_virtualize() {
        let cpuinfo = |flags| {
            format!("processor\t: 0\nmodel name\t: svm vmx\nflags\t\t: fpu {flags} lm\n\nprocessor\t: 1\n")
        };
        assert_eq!(accelerators(&cpuinfo("vmx")), ["kvm", "tcg"]);
        assert_eq!(accelerators(&cpuinfo("svm")), ["kvm", "tcg"]);
        assert_eq!(accelerators(&cpuinfo("svme vmx_no hypervisor")), ["tcg"]);
        assert_eq!(accelerators(""), ["tcg"]);
    }

    #[test]
    fn a_kernel_is_started_directly() {
        let record = tests::record(
            "cpus = 3\nmemory = \"300MiB\"\n\
             boot = { kernel = \"/boot/vm,linuz\", initrd = \"/boot/init,rd\", cmdline = \"a=b,c d\" }",
        );
        let given = given(&record, None);
        let arguments = arguments_of(&record, &given);
        assert_eq!(values(&arguments, "-accel"), ["kvm", "tcg"]);
        assert_eq!(values(&arguments, "-smp"), ["cpus=3"]);
        assert_eq!(values(&arguments, "-m"), ["size=300M"]);
        assert_eq!(values(&arguments, "-kernel"), [by_number(given.kernel.as_ref().unwrap())]);
        assert_eq!(values(&arguments, "-initrd"), [by_number(given.initrd.as_ref().unwrap())]);
        assert_eq!(values(&arguments, "-append"), ["a=b,c d"]);
        assert!(!arguments.iter().any(|a| a == "-blockdev" || a.contains("vfio-pci") || a.contains("chan")));
        assert!(!arguments.iter().any(|a| a == "-no-reboot"), "a guest that reboots does not end");
    }

    #[test]
    fn a_machine_that_waits_for_a_state_is_like_the_one_that_it_is_from() {
        let record = tests::record("numa_node = 0\nboot = { kernel = \"/k\" }");
        let folder = Folder::new(Path::new("/run/ioward/partitions"), &record.spec.name);
        let layout = MachineLayout {
            machine: "pc-q35-9.2".parse().unwrap(),
            accelerator: Accelerator::Tcg,
            channel: false,
            standbys: std::collections::BTreeMap::new(),
        };
        let given = given(&record, None);
        let line = |awaited| {
            let line = arguments(&record, &given, &folder, &["kvm", "tcg"], awaited);
            line.into_iter().map(|argument| argument.into_string().unwrap()).collect::<Vec<_>>()
        };
        let waiting = line(Some(&layout));
        assert_eq!(values(&waiting, "-machine"), ["pc-q35-9.2,memory-backend=memory"]);
        assert_eq!(values(&waiting, "-accel"), ["tcg"], "nothing that ran on one goes on, on another");
        assert_eq!(values(&waiting, "-incoming"), ["defer"]);
        assert!(
            waiting.contains(&"-S".to_owned()),
            "it runs when it is told to, and not when the state has come"
        );
        assert!(!line(None).iter().any(|argument| argument == "-S" || argument == "-incoming"));
    }

    #[test]
    fn memory_is_bound_to_the_numa_node_that_was_asked_for() {
        let record = tests::record("memory = \"300MiB\"\nnuma_node = 1\nboot = { kernel = \"/k\" }");
        let arguments = arguments_of(&record, &given(&record, None));
        assert_eq!(values(&arguments, "-machine"), ["q35,memory-backend=memory"]);
        let backend = "memory-backend-ram,id=memory,size=300M,host-nodes=1,policy=bind";
        assert_eq!(values(&arguments, "-object"), [backend]);
    }

    #[test]
    fn a_path_cannot_add_options() {
        let record = tests::record("boot = { disk = \"/disks/a,driver=nbd.img\" }");
        let given = given(&record, Some(DiskFormat::RawFile));
        let arguments = arguments_of(&record, &given);
        assert_eq!(
            values(&arguments, "-blockdev"),
            ["driver=raw,node-name=disk0,file.driver=file,file.filename=/dev/fdset/2"]
        );
        let number = given.disk.as_ref().unwrap().0.as_raw_fd();
        assert!(values(&arguments, "-add-fd").contains(&&*format!("fd={number},set=2")));
        assert!(values(&arguments, "-device").contains(&"virtio-blk-pci,drive=disk0,id=blk0,bootindex=0"));
        assert_eq!(values(&arguments, "-name"), ["guest=/run/io,,ward/partitions/web"]);
        assert!(!arguments.iter().any(|argument| argument.contains("nbd")), "{arguments:?}");
    }

    #[test]
    fn a_disk_beside_a_kernel_is_not_booted_from() {
        let record = tests::record("boot = { kernel = \"/k\", disk = \"/d.qcow2\" }");
        let arguments = arguments_of(&record, &given(&record, Some(DiskFormat::Qcow2)));
        assert!(values(&arguments, "-blockdev")[0].starts_with("driver=qcow2,"));
        assert!(values(&arguments, "-device").contains(&"virtio-blk-pci,drive=disk0,id=blk0"));
    }

    #[test]
    fn a_standby_comes_before_its_vf_and_only_that_one_is_its_primary() {
        let mut record = tests::record("boot = { kernel = \"/k\" }");
        record.vfs = vec![tests::held("net0", "0000:01:10.0", 1), tests::held("net1", "0000:01:10.2", 2)];
        record.standbys = vec![tests::standby("net1", 3)];
        let given = given(&record, None);
        let arguments = arguments_of(&record, &given);
        let number = given.taps[0].as_raw_fd();
        assert_eq!(values(&arguments, "-netdev"), [format!("tap,id=tap-net1,fd={number},vhost=off")]);
        let standby = "driver=virtio-net-pci,netdev=tap-net1,id=standby-net1,mac=52:54:00:aa:00:01,failover=on,romfile=,bus=slot3";
        let devices = values(&arguments, "-device");
        assert_eq!(
            devices[devices.len() - 3..],
            [
                standby,
                "driver=vfio-pci,host=0000:01:10.0,id=vf-net0,bus=slot1",
                "driver=vfio-pci,host=0000:01:10.2,id=vf-net1,bus=slot2,failover_pair_id=standby-net1",
            ]
        );
        let flag = |wanted: &str| arguments.iter().position(|argument| argument == wanted);
        let device = arguments.iter().position(|argument| argument == standby);
        assert!(flag("-netdev") < device);
        assert!(given.into_all().iter().any(|fd| fd.as_raw_fd() == number), "QEMU inherits it");
    }

    #[test]
    fn every_slot_is_there_and_vfs_and_channel_where_they_were_recorded() {
        let mut record = tests::record("boot = { kernel = \"/k\" }");
        record.vfs.push(tests::held("net0", "0000:01:10.2", 5));
        record.channel = true;
        let given = given(&record, None);
        let arguments = arguments_of(&record, &given);
        let devices = values(&arguments, "-device");
        assert_eq!(
            devices.iter().filter(|device| device.starts_with("pcie-root-port")).count(),
            usize::from(SLOTS)
        );
        assert!(devices.contains(&"pcie-root-port,id=slot5,chassis=5,slot=5"));
        assert!(devices.contains(&"driver=vfio-pci,host=0000:01:10.2,id=vf-net0,bus=slot5"));
        assert!(
            devices
                .contains(&"driver=virtserialport,bus=vser0.0,chardev=chan0,name=org.ioward.0,id=chanport0")
        );
        let sockets = values(&arguments, "-chardev");
        for (id, socket) in [("qmp", &given.qmp), (CHANNEL_CHARDEV, given.channel.as_ref().unwrap())] {
            assert!(sockets.contains(&&*listening_socket(id, socket)), "{sockets:?}");
        }
    }
}
