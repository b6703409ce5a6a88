//! A Spec and its partitions as they are written, in which a partition may have keys that don't go together. What is read from
//! there is told with all that is wrong, so that a [`PartitionSpec`] is one thing only.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    AdapterSpec, Boot, DomainRef, Guest, Machine, MemorySize, Name, NamespaceRef, PartitionKind,
    PartitionSpec, Spec, VfRequest,
};

/// A partition, key by key (docs/spec.md).
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct PartitionForm {
    /// Its name.
    name: Name,
    /// The domain of libvirt's that it is. Exactly one of `boot`, `libvirt` and `netns` is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    libvirt: Option<DomainRef>,
    /// The network namespace that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    netns: Option<NamespaceRef>,
    /// Virtual CPUs, 1 to 288, of a machine; 1 where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cpus: Option<u16>,
    /// Memory of a machine; 512MiB where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<MemorySize>,
    /// The host's NUMA node of its memory and CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    numa_node: Option<u32>,
    /// Whether a machine is started when the host has booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    autostart: Option<bool>,
    /// What runs in it, as far as VFs go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    guest: Option<Guest>,
    /// What a machine of ioward's own starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Boot>,
    /// The VFs that it asks for.
    #[serde(default, rename = "vf", skip_serializing_if = "Vec::is_empty")]
    vfs: Vec<VfRequest>,
}

/// A mistake at a key: `("cpus", "…; leave cpus out")`.
type Mistake = (&'static str, String);

impl PartitionForm {
    /// The partition, and what is wrong with it. Of one with mistakes it is what it most likely is meant to be, so that mistakes
    /// elsewhere show too.
    fn read(self) -> (PartitionSpec, Vec<Mistake>) {
        let Self { name, libvirt, netns, cpus, memory, numa_node, autostart, guest, boot, vfs } = self;
        let mut mistakes = Vec::new();
        let given = [("boot", boot.is_some()), ("libvirt", libvirt.is_some()), ("netns", netns.is_some())];
        let mut given = given.into_iter().filter(|(_, is_given)| *is_given).map(|(key, _)| key);
        let first = given.next();
        if let Some(first) = first {
            mistakes.extend(given.map(|key| {
                (
                    key,
                    format!("a partition is one thing only, and this has {first}; leave one of the two out"),
                )
            }));
        }
        let is_alone = mistakes.is_empty();
        let kind = match (boot, libvirt, netns) {
            (Some(boot), _, _) => {
                let default = Machine::new(boot);
                PartitionKind::Machine(Machine {
                    cpus: cpus.unwrap_or(default.cpus),
                    memory: memory.unwrap_or(default.memory),
                    autostart: autostart.unwrap_or_default(),
                    ..default
                })
            }
            (None, Some(domain), _) => PartitionKind::Domain(domain),
            (None, None, Some(namespace)) => PartitionKind::Namespace(namespace),
            (None, None, None) => {
                mistakes.push((
                    "boot",
                    "nothing says what this is; give boot = { … } (a machine of ioward's own), libvirt = \"…\" (a domain) \
                     or netns = \"…\" (a network namespace)"
                        .into(),
                ));
                Boot::default().into()
            }
        };
        let (resources, start) = match kind {
            PartitionKind::Domain(_) => {
                ("CPUs and memory of a domain are libvirt's", "libvirt starts a domain (virsh autostart)")
            }
            _ => ("a namespace has no CPUs and memory of its own", "a namespace is not started"),
        };
        if is_alone && !matches!(kind, PartitionKind::Machine(_)) {
            let misplaced = [
                ("cpus", cpus.is_some(), resources),
                ("memory", memory.is_some(), resources),
                ("autostart", autostart.is_some(), start),
            ];
            let misplaced = misplaced.into_iter().filter(|(_, is_given, _)| *is_given);
            mistakes.extend(misplaced.map(|(key, _, why)| (key, format!("{why}; leave {key} out"))));
        }
        (PartitionSpec { name, kind, numa_node, guest, vfs }, mistakes)
    }
}

/// A partition whose keys don't go together.
#[derive(Debug)]
pub(crate) struct FormError {
    partition: Name,
    mistakes: Vec<Mistake>,
}

impl fmt::Display for FormError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}", self.partition)?;
        self.mistakes.iter().try_for_each(|(key, message)| write!(f, ": {key}: {message}"))
    }
}

impl TryFrom<PartitionForm> for PartitionSpec {
    type Error = FormError;

    fn try_from(form: PartitionForm) -> Result<Self, FormError> {
        let (partition, mistakes) = form.read();
        if mistakes.is_empty() {
            Ok(partition)
        } else {
            Err(FormError { partition: partition.name, mistakes })
        }
    }
}

impl From<PartitionSpec> for PartitionForm {
    fn from(partition: PartitionSpec) -> Self {
        let PartitionSpec { name, kind, numa_node, guest, vfs } = partition;
        let (libvirt, netns, machine) = match kind {
            PartitionKind::Machine(machine) => (None, None, Some(machine)),
            PartitionKind::Domain(domain) => (Some(domain), None, None),
            PartitionKind::Namespace(namespace) => (None, Some(namespace), None),
        };
        Self {
            name,
            libvirt,
            netns,
            cpus: machine.as_ref().map(|machine| machine.cpus),
            memory: machine.as_ref().map(|machine| machine.memory),
            numa_node,
            autostart: machine.as_ref().and_then(|machine| machine.autostart.then_some(true)),
            guest,
            boot: machine.map(|machine| machine.boot),
            vfs,
        }
    }
}

/// A Spec before its partitions are known to be one thing each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SpecForm {
    version: u32,
    #[serde(default)]
    adapter: Vec<AdapterSpec>,
    #[serde(default)]
    partition: Vec<PartitionForm>,
}

impl SpecForm {
    /// The Spec, and what is wrong with its partitions, by key, as `(partition[0].cpus, message)`.
    pub fn read(self) -> (Spec, Vec<(String, String)>) {
        let Self { version, adapter, partition } = self;
        let mut problems = Vec::new();
        let partitions = partition.into_iter().enumerate().map(|(n, form)| {
            let (partition, mistakes) = form.read();
            problems.extend(
                mistakes.into_iter().map(|(key, message)| (format!("partition[{n}].{key}"), message)),
            );
            partition
        });
        let partitions = partitions.collect();
        (Spec { version, adapters: adapter, partitions }, problems)
    }
}

#[cfg(test)]
mod tests {
    use crate::{PartitionKind, PartitionSpec, Spec};

    fn read(keys: &str) -> Result<Spec, String> {
        let text = format!("version = 1\n\n[[partition]]\nname = \"web\"\n{keys}\n");
        Spec::parse(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_partition_is_a_machine_a_domain_or_a_namespace_in_both_forms() {
        for (keys, kind) in [
            ("boot = { disk = \"/d\" }", "1 CPU, 512MiB"),
            ("boot = { disk = \"/d\" }\ncpus = 2\nmemory = \"1GiB\"\nautostart = true", "2 CPUs, 1GiB"),
            ("libvirt = \"one@stack\"\nnuma_node = 1\nguest = { os = \"linux\" }", "domain one@stack"),
            ("netns = \"blue\"", "namespace blue"),
            ("netns = { pid_file = \"/run/c.pid\" }", "namespace that of the process in /run/c.pid"),
        ] {
            let spec = read(&format!("{keys}\nvf = [{{ name = \"net0\", class = \"network\" }}]")).unwrap();
            assert_eq!(spec.partitions[0].kind.to_string(), kind);
            let as_toml = toml::to_string(&spec).unwrap();
            assert_eq!(Spec::parse(as_toml.as_bytes()).unwrap(), spec, "{as_toml}");
            let as_json = serde_json::to_string(&spec).unwrap();
            assert_eq!(serde_json::from_str::<Spec>(&as_json).unwrap(), spec, "{as_json}");
        }
    }

    /// As an ioward wrote it that knew machines only.
    #[test]
    fn a_machine_that_was_stored_before_there_were_kinds_is_read_and_written_as_it_was() {
        for text in [
            r#"{"name":"web","cpus":2,"memory":"512MiB","autostart":true,"boot":{"kernel":"/k"}}"#,
            r#"{"name":"web","cpus":1,"memory":"512MiB","boot":{}}"#,
        ] {
            let spec: PartitionSpec = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&spec).unwrap(), text);
        }
    }

    #[test]
    fn keys_that_do_not_go_together_are_all_told_where_they_stand() {
        let domain = "libvirt = \"web\"\ncpus = 2\nmemory = \"1GiB\"\nautostart = false";
        let expected = "\
line 6, column 8: partition[0].cpus: CPUs and memory of a domain are libvirt's; leave cpus out
line 7, column 10: partition[0].memory: CPUs and memory of a domain are libvirt's; leave memory out
line 8, column 13: partition[0].autostart: libvirt starts a domain (virsh autostart); leave autostart out";
        assert_eq!(read(domain).unwrap_err(), expected);
        let namespace = "netns = \"web\"\nautostart = true\ncpus = 0";
        let expected = "\
line 6, column 13: partition[0].autostart: a namespace is not started; leave autostart out
line 7, column 8: partition[0].cpus: a namespace has no CPUs and memory of its own; leave cpus out";
        assert_eq!(read(namespace).unwrap_err(), expected);
        let two =
            "libvirt = \"web\"\ncpus = 0\nboot = {}\nvf = [{ name = \"n\", class = \"nvme\", vlan = 1 }]";
        let expected = "\
line 5, column 11: partition[0].libvirt: a partition is one thing only, and this has boot; leave one of the two out
line 6, column 8: partition[0].cpus: 0 virtual CPUs; use 1 to 288
line 7, column 8: partition[0].boot: nothing to boot from; give kernel = \"…\" or disk = \"…\"
line 8, column 44: partition[0].vf[0].vlan: a VF of class nvme has no such setting";
        assert_eq!(read(two).unwrap_err(), expected);
        let json = r#"{"name": "web", "libvirt": "web", "cpus": 1, "memory": "1GiB"}"#;
        let error = serde_json::from_str::<PartitionSpec>(json).unwrap_err().to_string();
        assert!(
            error.contains("partition web: cpus: CPUs and memory of a domain") && error.contains(": memory:")
        );
    }

    #[test]
    fn a_vf_of_a_namespace_is_an_interface_of_its_name() {
        let wrong = "netns = \"web\"\nvf = [{ name = \"net0123456789abc\", class = \"network\" }, \
                     { name = \"net0123456789ab\", class = \"network\" }]";
        let expected = "\
line 6, column 16: partition[0].vf[0].name: 'net0123456789abc' has 16 characters, and the name of an interface 15 at most";
        assert_eq!(read(wrong).unwrap_err(), expected);
    }

    #[test]
    fn a_partition_that_is_nothing_is_told_the_three_ways_and_a_wrong_one_is_not() {
        let nothing = read("cpus = 2").unwrap_err();
        assert_eq!(
            nothing,
            "line 3, column 1: partition[0].boot: nothing says what this is; give boot = { … } (a machine of ioward's own), \
             libvirt = \"…\" (a domain) or netns = \"…\" (a network namespace)"
        );
        let wrong = read("libvirt = \"../web\"").unwrap_err();
        assert!(wrong.starts_with("line 5, column 11: '../web' is no name of a domain"), "{wrong}");
        assert_eq!(wrong.lines().count(), 1, "{wrong}");
        let wrong = read("netns = { pid_fiel = \"/x\" }").unwrap_err();
        assert!(wrong.contains("a namespace's name, or { pid_file = \"…\" }"), "{wrong}");
    }

    #[test]
    fn a_domain_or_a_namespace_is_one_partition() {
        let twice = |kind: &str| format!("{kind}\n\n[[partition]]\nname = \"other\"\n{kind}");
        let error = read(&twice("libvirt = \"web\"")).unwrap_err();
        assert_eq!(error, "line 9, column 11: partition[1].libvirt: domain web is already partition[0]");
        let error = read(&twice("netns = \"web\"")).unwrap_err();
        assert_eq!(error, "line 9, column 9: partition[1].netns: namespace web is already partition[0]");
        let both = read("libvirt = \"web\"\n\n[[partition]]\nname = \"other\"\nnetns = \"web\"").unwrap();
        assert!(matches!(both.partitions[1].kind, PartitionKind::Namespace(_)), "these are two things");
    }
}
