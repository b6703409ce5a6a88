//! What a partition is: a machine of ioward's own, or something that others run and ioward gives VFs to.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Boot, MemorySize};

/// The longest name of a domain or a namespace, in bytes: what fits into a file's name (NAME_MAX).
const LONGEST: usize = 255;

/// The longest name of a network interface, in bytes (IFNAMSIZ of Linux, without the zero at its end): a VF of a namespace has the name
/// of its interface there.
pub const LONGEST_INTERFACE: usize = 15;

/// What a partition is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// A machine of ioward's own: QEMU with KVM.
    Machine(Machine),
    /// A domain of libvirt's. Its CPUs, memory and disks are libvirt's.
    Domain(DomainRef),
    /// A network namespace of the host: a container's, or one that `ip netns` made.
    Namespace(NamespaceRef),
}

/// Which of the kinds a partition is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KindName {
    /// [`PartitionKind::Machine`].
    #[default]
    Machine,
    /// [`PartitionKind::Domain`].
    Domain,
    /// [`PartitionKind::Namespace`].
    Namespace,
}

impl KindName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Machine, Self::Domain, Self::Namespace];

    /// Its name as in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Domain => "domain",
            Self::Namespace => "namespace",
        }
    }

    /// Whether its partitions have VFs through VFIO; the others have them as interfaces of a driver of the host's.
    #[must_use]
    pub const fn uses_vfio(self) -> bool {
        matches!(self, Self::Machine | Self::Domain)
    }
}

impl fmt::Display for KindName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl PartitionKind {
    /// Which of the kinds it is.
    #[must_use]
    pub const fn name(&self) -> KindName {
        match self {
            Self::Machine(_) => KindName::Machine,
            Self::Domain(_) => KindName::Domain,
            Self::Namespace(_) => KindName::Namespace,
        }
    }
}

/// What a machine of ioward's own is made of, beside its VFs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Virtual CPUs, 1 to 288 (the most that QEMU's q35 machine takes).
    pub cpus: u16,
    /// Memory.
    pub memory: MemorySize,
    /// Whether it is started when the host has booted.
    pub autostart: bool,
    /// The files it starts from.
    pub boot: Boot,
}

impl Machine {
    /// What a Spec makes of the key `boot` alone.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        let memory =
            MemorySize::from_mebibytes(512).unwrap_or_else(|| unreachable!("512 MiB is within bounds"));
        Self { cpus: 1, memory, autostart: false, boot }
    }
}

/// In a person's words: `2 CPUs, 512MiB`, `domain web`, `namespace web`.
impl fmt::Display for PartitionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(Machine { cpus, memory, .. }) => {
                let plural = if *cpus == 1 { "" } else { "s" };
                write!(f, "{cpus} CPU{plural}, {memory}")
            }
            Self::Domain(domain) => write!(f, "domain {domain}"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
        }
    }
}

impl From<Boot> for PartitionKind {
    fn from(boot: Boot) -> Self {
        Self::Machine(Machine::new(boot))
    }
}

impl From<Machine> for PartitionKind {
    fn from(machine: Machine) -> Self {
        Self::Machine(machine)
    }
}

impl From<DomainRef> for PartitionKind {
    fn from(domain: DomainRef) -> Self {
        Self::Domain(domain)
    }
}

impl From<NamespaceRef> for PartitionKind {
    fn from(namespace: NamespaceRef) -> Self {
        Self::Namespace(namespace)
    }
}

/// A domain of libvirt's, on `qemu:///system`: by its name or its UUID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainRef(String);

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NamespaceRef {
    /// The one that `ip netns` knows by this name: a file of /run/netns.
    Named(String),
    /// That of the process whose number is in this file.
    PidFile(PathBuf),
}

/// A text that is the name of neither a domain nor a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no name of a domain or a namespace; use 1 to 255 bytes without '/' and control characters")]
pub struct ForeignNameError(String);

/// libvirt and `ip netns` both make files of these names.
fn check(text: &str) -> Result<(), ForeignNameError> {
    let hostile = text.chars().any(|c| c == '/' || c.is_control());
    if text.is_empty() || text.len() > LONGEST || hostile || text == "." || text == ".." {
        let shown = text.chars().take(60).flat_map(char::escape_debug).collect();
        return Err(ForeignNameError(shown));
    }
    Ok(())
}

impl DomainRef {
    /// The name or the UUID, as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DomainRef {
    type Err = ForeignNameError;

    fn from_str(text: &str) -> Result<Self, ForeignNameError> {
        check(text)?;
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DomainRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for DomainRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DomainRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for NamespaceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.pad(name),
            Self::PidFile(file) => write!(f, "that of the process in {}", file.display()),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PidFileForm {
    pid_file: PathBuf,
}

impl Serialize for NamespaceRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Named(name) => serializer.serialize_str(name),
            Self::PidFile(pid_file) => PidFileForm { pid_file: pid_file.clone() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NamespaceRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a namespace's name, or { pid_file = \"…\" }")]
        enum Form {
            Name(String),
            PidFile(PidFileForm),
        }
        match Form::deserialize(deserializer)? {
            Form::Name(name) => {
                check(&name).map_err(de::Error::custom)?;
                Ok(Self::Named(name))
            }
            Form::PidFile(PidFileForm { pid_file }) => Ok(Self::PidFile(pid_file)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_leave_its_folder_is_refused() {
        for bad in ["", "..", ".", "a/b", "a\nb", "a\0", &"x".repeat(256)] {
            assert!(bad.parse::<DomainRef>().is_err(), "{bad:?}");
            assert!(serde_json::from_value::<NamespaceRef>(bad.into()).is_err(), "{bad:?}");
        }
        for good in ["web", "one@openstack", "instance-0000001f", "mit Leerzeichen", "Büro"] {
            assert_eq!(good.parse::<DomainRef>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_namespace_is_a_name_or_a_file() {
        for (text, namespace) in [
            (r#""web""#, NamespaceRef::Named("web".into())),
            (r#"{"pid_file":"/run/web.pid"}"#, NamespaceRef::PidFile("/run/web.pid".into())),
        ] {
            assert_eq!(serde_json::from_str::<NamespaceRef>(text).unwrap(), namespace);
            assert_eq!(serde_json::to_string(&namespace).unwrap(), text);
        }
        assert!(serde_json::from_str::<NamespaceRef>(r#"{"pidfile":"/x"}"#).is_err());
    }
}
