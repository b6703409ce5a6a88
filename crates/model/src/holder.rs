//! Who has a VF that is not ioward's, and how that is said in words.
//!
//! Names of processes, machines, interfaces and namespaces are chosen by whoever runs them. A [`Label`] takes out of them
//! what could forge a line on a terminal.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Maximum length of a name that is kept, in characters.
const MAX_LABEL: usize = 128;

/// A name that somebody else has chosen: at most 128 characters, none of which controls a terminal, changes the direction of
/// writing or is invisible.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Label(String);

impl Label {
    /// The name; what can't be shown becomes U+FFFD.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut characters = name.trim().chars();
        let mut label: String = characters.by_ref().take(MAX_LABEL).map(shown).collect();
        if characters.next().is_some() {
            label.pop();
            label.push('…');
        }
        Self(label)
    }

    /// The name from bytes that need not be text.
    #[must_use]
    pub fn from_bytes(name: &[u8]) -> Self {
        Self::new(&String::from_utf8_lossy(name))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whatever `escape_debug` would not print as it is can't be seen: controls, bidirectional and other format characters,
/// private and unassigned ones, combining marks.
fn shown(c: char) -> char {
    let is_plain = matches!(c, '\'' | '"' | '\\') || c.escape_debug().count() == 1;
    if is_plain { c } else { char::REPLACEMENT_CHARACTER }
}

impl From<String> for Label {
    fn from(name: String) -> Self {
        Self::new(&name)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who has a VF, as far as processes and network namespaces tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Holder {
    /// It is bound to a driver that hands it to a program, and no process has it open.
    Nobody,
    /// A process has it open.
    Process(Process),
    /// Its network interface is in another network namespace than ioward's.
    NetworkNamespace {
        /// The namespace's name, as `ip netns` has it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Label>,
        /// The interfaces there.
        netdevs: Vec<Label>,
        /// A process in the namespace; `None` where none is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        process: Option<Process>,
    },
}

/// A process of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Process {
    /// Its process ID.
    pub pid: u32,
    /// The name of its program (`/proc/PID/comm`, at most 15 bytes).
    pub command: Label,
    /// The thing that it is, or that it belongs to.
    pub runs: Runs,
}

/// The thing that a process is, or belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Runs {
    /// QEMU, started by libvirt.
    LibvirtDomain {
        /// The domain.
        name: Label,
    },
    /// QEMU, started by Proxmox VE.
    ProxmoxVm {
        /// The machine's number.
        id: Label,
        /// Its name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Label>,
    },
    /// QEMU, started by somebody else.
    Qemu {
        /// Its `-name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<Label>,
    },
    /// A process of a Kubernetes pod.
    Pod {
        /// The pod's UID.
        uid: Label,
        /// The beginning of the container's ID.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        container: Option<Label>,
        /// QEMU's `-name`, where it is QEMU, as under KubeVirt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        machine: Option<Label>,
    },
    /// A process of another container: Docker, Podman, LXC.
    Container {
        /// Its name, or the beginning of its ID.
        name: Label,
    },
    /// Any other program.
    Program,
}

impl Holder {
    /// Whether somebody has the VF.
    #[must_use]
    pub fn is_somebody(&self) -> bool {
        *self != Self::Nobody
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => write!(f, "nobody"),
            Self::Process(process) => write!(f, "{process}"),
            Self::NetworkNamespace { name, netdevs, process } => {
                match name {
                    Some(name) => write!(f, "network namespace {name}")?,
                    None => write!(f, "another network namespace")?,
                }
                let netdevs: Vec<_> = netdevs.iter().map(|netdev| format!("as {netdev}")).collect();
                let process = process.iter().map(|process| format!("where {process} is"));
                let details: Vec<_> = netdevs.into_iter().chain(process).collect();
                if details.is_empty() { Ok(()) } else { write!(f, ", {}", details.join(", ")) }
            }
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pid, command, runs } = self;
        match runs {
            Runs::LibvirtDomain { name } => write!(f, "libvirt domain {name} (qemu pid {pid})"),
            Runs::ProxmoxVm { id, name: Some(name) } => {
                write!(f, "Proxmox VM {id}, {name} (qemu pid {pid})")
            }
            Runs::ProxmoxVm { id, name: None } => write!(f, "Proxmox VM {id} (qemu pid {pid})"),
            Runs::Qemu { name: Some(name) } => write!(f, "QEMU machine {name} (pid {pid})"),
            Runs::Qemu { name: None } => write!(f, "a QEMU machine (pid {pid})"),
            Runs::Pod { uid, container, machine } => {
                write!(f, "Kubernetes pod {uid}")?;
                if let Some(container) = container {
                    write!(f, ", container {container}")?;
                }
                match machine {
                    Some(machine) => write!(f, " (QEMU machine {machine}, pid {pid})"),
                    None => write!(f, " ({command} pid {pid})"),
                }
            }
            Runs::Container { name } => write!(f, "container {name} ({command} pid {pid})"),
            Runs::Program => write!(f, "{command} (pid {pid})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(command: &str, runs: Runs) -> Process {
        Process { pid: 812, command: Label::new(command), runs }
    }

    #[test]
    fn a_label_cannot_forge_what_a_terminal_shows() {
        let cases = [
            ("web\x1b[2J", "web\u{fffd}[2J"),
            ("a\nb\r\tc", "a\u{fffd}b\u{fffd}\u{fffd}c"),
            ("\u{202e}gpj\u{2066}", "\u{fffd}gpj\u{fffd}"),
            ("\u{9b}31m", "\u{fffd}31m"),
            ("zero\u{200b}width", "zero\u{fffd}width"),
            (" datenbank-größe \"1\" ", "datenbank-größe \"1\""),
        ];
        for (name, shown) in cases {
            assert_eq!(Label::new(name).as_str(), shown);
            let json = serde_json::to_string(name).unwrap();
            assert_eq!(serde_json::from_str::<Label>(&json).unwrap().as_str(), shown, "from elsewhere too");
        }
        assert_eq!(Label::from_bytes(b"a\xffb").as_str(), "a\u{fffd}b");
        let long = Label::new(&"x".repeat(10_000));
        assert_eq!((long.as_str().chars().count(), long.as_str().ends_with('…')), (MAX_LABEL, true));
        assert_eq!(Label::new(long.as_str()), long);
    }

    #[test]
    fn each_holder_has_words_and_json_that_is_read_back() {
        let name = Label::new("web");
        let runs = [
            (Runs::LibvirtDomain { name: name.clone() }, "libvirt domain web (qemu pid 812)"),
            (Runs::ProxmoxVm { id: Label::new("101"), name: None }, "Proxmox VM 101 (qemu pid 812)"),
            (
                Runs::ProxmoxVm { id: Label::new("101"), name: Some(name.clone()) },
                "Proxmox VM 101, web (qemu pid 812)",
            ),
            (Runs::Qemu { name: Some(name.clone()) }, "QEMU machine web (pid 812)"),
            (Runs::Qemu { name: None }, "a QEMU machine (pid 812)"),
            (
                Runs::Pod { uid: Label::new("1-2"), container: Some(Label::new("abc")), machine: None },
                "Kubernetes pod 1-2, container abc (vpp pid 812)",
            ),
            (
                Runs::Pod { uid: Label::new("1-2"), container: None, machine: Some(name.clone()) },
                "Kubernetes pod 1-2 (QEMU machine web, pid 812)",
            ),
            (Runs::Container { name: name.clone() }, "container web (vpp pid 812)"),
            (Runs::Program, "vpp (pid 812)"),
        ];
        let holders = runs.map(|(runs, words)| (Holder::Process(process("vpp", runs)), words));
        let netdevs = vec![Label::new("eth1")];
        let more = [
            (Holder::Nobody, "nobody"),
            (
                Holder::NetworkNamespace { name: Some(name), netdevs: netdevs.clone(), process: None },
                "network namespace web, as eth1",
            ),
            (
                Holder::NetworkNamespace {
                    name: None,
                    netdevs,
                    process: Some(process("pause", Runs::Program)),
                },
                "another network namespace, as eth1, where pause (pid 812) is",
            ),
        ];
        for (holder, words) in holders.into_iter().chain(more) {
            assert_eq!(holder.to_string(), words);
            let json = serde_json::to_string(&holder).unwrap();
            assert_eq!(serde_json::from_str::<Holder>(&json).unwrap(), holder, "{json}");
        }
    }
}
