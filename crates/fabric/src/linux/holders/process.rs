//! What a process is, from its command line and its control groups: a machine of libvirt or Proxmox VE, a container, or a
//! program of its own.
//!
//! - libvirt: `machine.slice/machine-qemu\x2d1\x2dweb.scope` (virCgroupNewMachineSystemd, and systemd's escapes), or
//!   `machine/qemu-1-web.libvirt-qemu`; QEMU's `-name guest=web,debug-threads=on`.
//! - Proxmox VE: `qemu.slice/101.scope`, and `-id 101 -name vm101,…`.
//! - Kubernetes: `kubepods.slice/…-pod<uid>.slice/cri-containerd-<id>.scope`, or `kubepods/…/pod<uid>/<id>`.
//! - Docker, Podman, LXC: `docker-<id>.scope`, `docker/<id>`, `libpod-<id>.scope`, `lxc/<name>`, `lxc.payload.<name>`.

use ioward_model::{Label, Process, Runs};

use crate::linux::root::HostRoot;

/// How much of a command line is read. A machine's name is at its beginning.
const MAX_COMMAND_LINE: usize = 16 << 10;
/// How much of a list of control groups is read: a dozen lines with version 1, one with version 2.
const MAX_GROUPS: usize = 16 << 10;
/// TASK_COMM_LEN of the kernel, with room.
const MAX_COMMAND: usize = 64;
/// Digits of a container's ID that are shown, as `docker ps` does.
const SHORT_ID: usize = 12;

/// The process, unless it has ended.
pub(super) fn read(root: &HostRoot, pid: u32) -> Option<Process> {
    let command = root.start_of(&format!("proc/{pid}/comm"), MAX_COMMAND).ok()?;
    let command = Label::from_bytes(&command);
    let line = root.start_of(&format!("proc/{pid}/cmdline"), MAX_COMMAND_LINE).unwrap_or_default();
    let groups = root.start_of(&format!("proc/{pid}/cgroup"), MAX_GROUPS).unwrap_or_default();
    let runs = runs(command.as_str(), &line, &String::from_utf8_lossy(&groups));
    Some(Process { pid, command, runs })
}

fn runs(command: &str, line: &[u8], groups: &str) -> Runs {
    let machine = QemuLine::parse(command, line);
    let name = machine.as_ref().and_then(|machine| machine.name.clone());
    // HIERARCHY:CONTROLLERS:PATH, see cgroups(7).
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let owners: Vec<GroupOf> = paths.filter_map(GroupOf::parse).collect();
    let owner = |wanted: fn(&GroupOf) -> bool| owners.iter().find(|owner| wanted(owner)).cloned();
    if let Some(GroupOf::Pod { uid, container }) = owner(|owner| matches!(owner, GroupOf::Pod { .. })) {
        return Runs::Pod { uid, container, machine: name };
    }
    match (machine, owners.into_iter().next()) {
        (Some(_), Some(GroupOf::Libvirt { name: of_group })) => {
            Runs::LibvirtDomain { name: name.unwrap_or(of_group) }
        }
        (Some(machine), Some(GroupOf::Proxmox { id })) => {
            Runs::ProxmoxVm { id: machine.id.unwrap_or(id), name }
        }
        (_, Some(GroupOf::Container { name })) => Runs::Container { name },
        (Some(_), _) => Runs::Qemu { name },
        (None, _) => Runs::Program,
    }
}

/// What the command line of a QEMU says.
struct QemuLine {
    name: Option<Label>,
    id: Option<Label>,
}

impl QemuLine {
    fn parse(command: &str, line: &[u8]) -> Option<Self> {
        let mut arguments = line.split(|byte| *byte == 0);
        let program = String::from_utf8_lossy(arguments.next()?);
        let program = program.rsplit_once('/').map_or(&*program, |(_, name)| name);
        let is_qemu = |name: &str| name.starts_with("qemu-system-") || matches!(name, "qemu-kvm" | "kvm");
        if !is_qemu(program) && !is_qemu(command) {
            return None;
        }
        let (mut name, mut id) = (None, None);
        while let Some(argument) = arguments.next() {
            match argument {
                b"-name" | b"--name" => name = arguments.next().map(machine_name),
                b"-id" | b"--id" => id = arguments.next().map(Label::from_bytes),
                _ => {}
            }
        }
        Some(Self { name, id })
    }
}

/// `web` of `guest=web,debug-threads=on` and of `web,…`. A doubled comma stands for one.
fn machine_name(value: &[u8]) -> Label {
    let value = String::from_utf8_lossy(value).replace(",,", "\0");
    let mut parts = value.split(',');
    let first = parts.clone().next().unwrap_or_default();
    let name = parts.find_map(|part| part.strip_prefix("guest=")).unwrap_or(first);
    Label::new(&name.replace('\0', ","))
}

/// Whose a control group is.
#[derive(Clone)]
enum GroupOf {
    Libvirt { name: Label },
    Proxmox { id: Label },
    Pod { uid: Label, container: Option<Label> },
    Container { name: Label },
}

impl GroupOf {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        Self::pod(&parts).or_else(|| {
            let pairs = parts.iter().enumerate();
            pairs.rev().find_map(|(n, part)| {
                let above = n.checked_sub(1).and_then(|above| parts.get(above)).copied();
                Self::part(above.unwrap_or_default(), part)
            })
        })
    }

    fn pod(parts: &[&str]) -> Option<Self> {
        let below = parts.iter().position(|part| part.starts_with("kubepods"))?;
        let is_pod = |part: &&str| {
            // systemd's slices have the names of those above in them, and `_` for `-`.
            let own = part
                .strip_suffix(".slice")
                .map_or(*part, |slice| slice.rsplit_once("-pod").map_or(slice, |(_, uid)| uid));
            let uid = if own.len() == part.len() { own.strip_prefix("pod")? } else { own };
            (!uid.is_empty() && !uid.starts_with("kubepods")).then(|| uid.replace('_', "-"))
        };
        let (at, uid) =
            parts.iter().enumerate().skip(below).find_map(|(n, part)| Some((n, is_pod(part)?)))?;
        let container = parts.get(at + 1).and_then(|part| container_id(part));
        Some(Self::Pod { uid: Label::new(&uid), container })
    }

    fn part(above: &str, part: &str) -> Option<Self> {
        let name = unescaped(part);
        if let Some(name) =
            name.strip_suffix(".scope").and_then(|scope| scope.strip_prefix("machine-qemu-")).or_else(|| {
                name.strip_suffix(".libvirt-qemu").map(|name| name.strip_prefix("qemu-").unwrap_or(name))
            })
        {
            let numbered =
                name.split_once('-').filter(|(id, _)| id.bytes().all(|byte| byte.is_ascii_digit()));
            return Some(Self::Libvirt { name: Label::new(numbered.map_or(name, |(_, name)| name)) });
        }
        if above == "qemu.slice" {
            return part.strip_suffix(".scope").map(|id| Self::Proxmox { id: Label::new(id) });
        }
        if matches!(above, "lxc" | "lxc.payload") {
            return Some(Self::Container { name: Label::new(part) });
        }
        if let Some(name) = part.strip_prefix("lxc.payload.") {
            return Some(Self::Container { name: Label::new(name) });
        }
        let is_scope =
            ["docker-", "libpod-", "cri-containerd-", "crio-"].iter().any(|of| part.starts_with(of));
        let is_container =
            is_scope && part.ends_with(".scope") || matches!(above, "docker" | "libpod_parent");
        is_container.then(|| container_id(part)).flatten().map(|name| Self::Container { name })
    }
}

/// The beginning of a container's ID: `<runtime>-<id>.scope` or `<id>`.
fn container_id(part: &str) -> Option<Label> {
    let part = part.strip_suffix(".scope").unwrap_or(part);
    let id = part.rsplit_once('-').map_or(part, |(_, id)| id);
    let is_id = id.len() >= SHORT_ID && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_id.then(|| Label::new(&id[..SHORT_ID]))
}

/// Without systemd's escapes: `\x2d` is `-`.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut out = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                out.extend(&part.as_bytes()[2..]);
            }
            None => out.extend(format!("\\x{part}").bytes()),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f1c9a0b7d4e5f60718293a4b5c6d7e8f9a0b1c2d3e4f5061728394a5b6c7d8e";

    fn words(command: &str, line: &[&str], group: &str) -> String {
        let line: Vec<u8> = line.iter().flat_map(|argument| [argument.as_bytes(), b"\0"].concat()).collect();
        let runs = runs(command, &line, &format!("1:net_cls:/\n0::{group}\n"));
        Process { pid: 812, command: Label::new(command), runs }.to_string()
    }

    #[test]
    fn a_machine_is_named_as_its_manager_names_it() {
        let libvirt = ["/usr/bin/qemu-system-x86_64", "-name", "guest=web,debug-threads=on", "-S"];
        let domain = "libvirt domain web (qemu pid 812)";
        let scope = "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope";
        assert_eq!(words("qemu-system-x86", &libvirt, &format!("{scope}/libvirt/emulator")), domain);
        assert_eq!(words("qemu-system-x86", &libvirt, "/machine/qemu-1-web.libvirt-qemu/vcpu0"), domain);
        assert_eq!(words("qemu-system-x86", &["qemu-system-x86_64"], scope), domain, "by its group alone");
        assert_eq!(
            words("qemu-system-x86", &libvirt, "/user.slice/user-0.slice/session-1.scope"),
            "QEMU machine web (pid 812)"
        );
        assert_eq!(words("qemu-kvm", &[""], "/"), "a QEMU machine (pid 812)", "it is just ending");
        let proxmox = ["/usr/bin/kvm", "-id", "101", "-name", "vm101,debug-threads=on", "-no-shutdown"];
        assert_eq!(words("kvm", &proxmox, "/qemu.slice/101.scope"), "Proxmox VM 101, vm101 (qemu pid 812)");
        let comma = ["qemu-kvm", "-name", "debug-threads=on,guest=a,,b"];
        assert_eq!(words("qemu-kvm", &comma, "/"), "QEMU machine a,b (pid 812)");
    }

    #[test]
    fn a_container_is_named_as_its_runtime_names_it() {
        let uid = "0a1b2c3d-0000-4000-8000-00000000000f";
        let pod = format!("Kubernetes pod {uid}, container 3f1c9a0b7d4e (dpdk-testpmd pid 812)");
        let of = |group: &str| words("dpdk-testpmd", &["dpdk-testpmd", "-a"], group);
        assert_eq!(of(&format!("/kubepods/burstable/pod{uid}/{ID}")), pod);
        assert_eq!(of(&format!("/kubepods/pod{uid}/{ID}")), pod);
        let slice = format!("kubepods-burstable-pod{}.slice", uid.replace('-', "_"));
        assert_eq!(
            of(&format!("/kubepods.slice/kubepods-burstable.slice/{slice}/cri-containerd-{ID}.scope")),
            pod
        );
        assert_eq!(
            of(&format!("/kubepods.slice/kubepods-pod{}.slice/crio-{ID}.scope", uid.replace('-', "_"))),
            pod
        );
        assert_eq!(of("/kubepods.slice"), "dpdk-testpmd (pid 812)");
        let qemu = ["/usr/libexec/qemu-kvm", "-name", "guest=default_vm1"];
        assert_eq!(
            words("qemu-kvm", &qemu, &format!("/kubepods/pod{uid}/{ID}")),
            format!("Kubernetes pod {uid}, container 3f1c9a0b7d4e (QEMU machine default_vm1, pid 812)")
        );
        let container = "container 3f1c9a0b7d4e (dpdk-testpmd pid 812)";
        for group in [
            format!("/system.slice/docker-{ID}.scope"),
            format!("/docker/{ID}"),
            format!("/machine.slice/libpod-{ID}.scope/container"),
        ] {
            assert_eq!(of(&group), container, "{group}");
        }
        for group in ["/lxc/101/ns", "/lxc.payload.101/system.slice"] {
            assert_eq!(of(group), "container 101 (dpdk-testpmd pid 812)", "{group}");
        }
    }

    #[test]
    fn any_other_program_is_its_command() {
        for group in ["/", "/system.slice/vpp.service", "", "/docker/short", "/qemu.slice", "//"] {
            assert_eq!(words("vpp_main", &["/usr/bin/vpp", "-c", "/etc/vpp"], group), "vpp_main (pid 812)");
        }
    }

    #[test]
    fn hostile_names_are_shown_harmlessly() {
        let line = ["qemu-kvm", "-name", "guest=\x1b]0;x\x07\u{202e}web"];
        assert_eq!(
            words("qemu-kvm", &line, "/machine.slice/machine-qemu\\x2d1\\x2dweb.scope"),
            "libvirt domain \u{fffd}]0;x\u{fffd}\u{fffd}web (qemu pid 812)"
        );
        let escaped = "/machine.slice/machine-qemu\\x2d1\\x2d\\x1b\\x5b2J\\xff\\xzz\\x.scope";
        assert_eq!(
            words("kvm", &["kvm"], escaped),
            "libvirt domain \u{fffd}[2J\u{fffd}\\xzz\\x (qemu pid 812)"
        );
        assert_eq!(words("\x1b[31mvpp\n", &[], "/"), "\u{fffd}[31mvpp (pid 812)");
    }
}
