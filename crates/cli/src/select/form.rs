//! Forms: what a partition is to be, and what a VF is to be.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    str::FromStr,
};

use ioward_model::{
    Boot, Class, DomainRef, GuestMay, KindName, Machine, MemorySize, Name, NamespaceRef, PartitionKind,
    PartitionSpec, VfRequest,
};
use serde_json::{Map, Value};

use super::{input::Input, key::Key};
use crate::vf_args::{apart, guest_may_words};

/// Fields to fill in.
#[derive(Clone, Debug)]
pub struct Form {
    /// Its title.
    pub title: String,
    /// The fields.
    pub fields: Vec<Field>,
    /// Which field the cursor is in.
    pub at: usize,
    /// The problem with the values, if any.
    pub problem: String,
    /// Fields that another kind of partition has, as they were filled in.
    put_aside: Vec<Field>,
}

/// A field.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub label: &'static str,
    /// A hint at the values it takes.
    pub hint: &'static str,
    /// Its value.
    pub input: Input,
    /// The words that it takes, where it takes no others.
    pub words: &'static [&'static str],
    /// Whether it can't be changed.
    pub locked: bool,
}

impl Field {
    fn key(&mut self, key: Key) {
        if self.words.is_empty() {
            return self.input.key(key);
        }
        let count = self.words.len();
        let now = self.words.iter().position(|word| *word == self.input.text()).unwrap_or(0);
        let next = match key {
            Key::Right | Key::Char(' ') => Some((now + 1) % count),
            Key::Left => Some((now + count - 1) % count),
            Key::Char(c) => self.words.iter().position(|word| word.starts_with(c)),
            _ => None,
        };
        if let Some(word) = next.and_then(|next| self.words.get(next)) {
            self.input = Input::new(word);
        }
    }
}

/// The outcome of a key in a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// It goes on.
    Going,
    /// The person wants no such thing after all.
    Given,
    /// The person is done.
    Done,
}

const NAME: &str = "Name";
const KIND: &str = "Kind";
const DOMAIN: &str = "Domain";
const NAMESPACE: &str = "Namespace";
const CPUS: &str = "CPUs";
const MEMORY: &str = "Memory";
const NODE: &str = "NUMA node";
const DISK: &str = "Disk";
const KERNEL: &str = "Kernel";
const INITRD: &str = "Initrd";
const CMDLINE: &str = "Cmdline";
const CLASS: &str = "Class";
const SPEED: &str = "Link speed";
const VLAN: &str = "VLAN";
const MAC: &str = "MAC";
const APART: &str = "Apart from";
const GUEST_MAY: &str = "Guest may";

const NAME_HINT: &str = "a letter, then letters, digits, - and _";
const NODE_HINT: &str = "a number, or nothing: any";

const CLASSES: &[&str] = &["network", "nvme", "display", "accelerator", "other"];
const KINDS: &[&str] = &[KindName::Machine.as_str(), KindName::Domain.as_str(), KindName::Namespace.as_str()];

/// A field's name, its hint and its value.
type Filling = (&'static str, &'static str, String);

impl Form {
    fn new(title: String, fields: &[Filling]) -> Self {
        let fields = fields.iter().map(|(label, hint, text)| Field {
            label,
            hint,
            input: Input::new(text),
            words: match *label {
                CLASS => CLASSES,
                KIND => KINDS,
                _ => &[],
            },
            locked: false,
        });
        Self { title, fields: fields.collect(), at: 0, problem: String::new(), put_aside: Vec::new() }
    }

    /// Takes a key.
    pub fn key(&mut self, key: Key) -> Filled {
        let last = self.fields.len().saturating_sub(1);
        match key {
            Key::Esc => return Filled::Given,
            Key::Enter => return Filled::Done,
            Key::Tab | Key::Down => self.at = if self.at == last { self.first() } else { self.at + 1 },
            Key::BackTab | Key::Up => self.at = if self.at == self.first() { last } else { self.at - 1 },
            key => {
                if let Some(field) = self.fields.get_mut(self.at).filter(|field| !field.locked) {
                    field.key(key);
                    if field.label == KIND {
                        self.follow_the_kind();
                    }
                }
            }
        }
        Filled::Going
    }

    /// Shows the fields of the kind that was chosen. What was filled in of another is kept until that is chosen again.
    fn follow_the_kind(&mut self) {
        let Some(kind) = self.kind() else { return };
        let mut filled = std::mem::take(&mut self.fields);
        filled.append(&mut self.put_aside);
        let mut fields = Self::new_partition(kind).fields;
        for field in &mut fields {
            if let Some(at) = filled.iter().position(|filled| filled.label == field.label) {
                *field = filled.swap_remove(at);
            }
        }
        (self.fields, self.put_aside) = (fields, filled);
    }

    /// The kind of a new partition that stands in the form now.
    fn kind(&self) -> Option<KindName> {
        let text = self.text(KIND);
        KindName::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Whether it is for something that is not there yet.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.fields.iter().all(|field| !field.locked)
    }

    /// The first field that can be changed.
    fn first(&self) -> usize {
        self.fields.iter().position(|field| !field.locked).unwrap_or(0)
    }

    /// The same, with its first field as it stays.
    fn locked(mut self) -> Self {
        for field in self.fields.iter_mut().take(1) {
            field.locked = true;
        }
        self.at = self.first();
        self
    }

    /// The text of a field.
    #[must_use]
    pub fn text(&self, label: &str) -> String {
        let field = self.fields.iter().find(|field| field.label == label);
        field.map(|field| field.input.text()).unwrap_or_default()
    }

    /// Puts a text into a field.
    pub fn set(&mut self, label: &str, text: &str) {
        for field in self.fields.iter_mut().filter(|field| field.label == label) {
            field.input = Input::new(text);
        }
    }

    /// Notes what is wrong with a field, and goes there.
    fn wrong(&mut self, label: &str, why: &dyn Display) {
        self.at = self.fields.iter().position(|field| field.label == label).unwrap_or(self.at);
        self.problem = format!("{label}: {why}");
    }

    /// The value of a field; `None`: it is wrong, and said so.
    fn value<T: FromStr<Err: Display>>(&mut self, label: &str) -> Option<T> {
        let text = self.text(label);
        text.parse().inspect_err(|why| self.wrong(label, why)).ok()
    }

    /// The number in a field.
    fn number<T: FromStr>(&mut self, label: &str) -> Option<T> {
        let (text, hint) = (self.text(label), self.hint(label));
        let number = text.parse().ok();
        if number.is_none() {
            self.wrong(label, &format!("'{text}' is no number for it; use {hint}"));
        }
        number
    }

    fn hint(&self, label: &str) -> &'static str {
        self.fields.iter().find(|field| field.label == label).map_or("", |field| field.hint)
    }

    /// The value of a field that may be empty.
    fn optional<T: FromStr<Err: Display>>(&mut self, label: &str) -> Option<Option<T>> {
        if self.text(label).is_empty() { Some(None) } else { self.value(label).map(Some) }
    }

    fn words<T>(&mut self, label: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<Vec<T>> {
        let text = self.text(label);
        let words: Result<_, String> = text.split_whitespace().map(parse).collect();
        words.inspect_err(|why| self.wrong(label, why)).ok()
    }

    /// The form for a partition: a new one, or one that is there.
    #[must_use]
    pub fn partition(present: Option<&PartitionSpec>) -> Self {
        let said = |value: Option<String>| value.unwrap_or_default();
        let name = (NAME, NAME_HINT, said(present.map(|p| p.name.to_string())));
        let node = (NODE, NODE_HINT, said(present.and_then(|p| p.numa_node).map(|n| n.to_string())));
        // The rest of a domain or a namespace is not ioward's.
        if let Some(present) = present.filter(|present| present.machine().is_none()) {
            let title = format!("Partition {}: {}", present.name, present.kind);
            return Self::new(title, &[name, node]).locked();
        }
        let Some(machine) = present.and_then(PartitionSpec::machine) else {
            return Self::new_partition(KindName::Machine);
        };
        let mut fields = vec![name];
        fields.extend(machine_fields(machine.clone(), node));
        let title = present.map(|present| format!("Partition {}", present.name)).unwrap_or_default();
        Self::new(title, &fields).locked()
    }

    /// The form for a new partition of this kind, with nothing filled in.
    fn new_partition(kind: KindName) -> Self {
        let mut fields = vec![
            (NAME, NAME_HINT, String::new()),
            (KIND, "left and right: machine, domain (of libvirt), namespace (network)", kind.to_string()),
        ];
        let node = (NODE, NODE_HINT, String::new());
        match kind {
            KindName::Machine => fields.extend(machine_fields(Machine::new(Boot::default()), node)),
            KindName::Domain => fields.extend([
                (DOMAIN, "its name in libvirt, or its UUID; nothing: the partition's name", String::new()),
                node,
            ]),
            KindName::Namespace => fields.extend([
                (
                    NAMESPACE,
                    "its name, or a pid file (/run/web.pid); nothing: the partition's",
                    String::new(),
                ),
                node,
            ]),
        }
        Self::new("A new partition".to_owned(), &fields)
    }

    /// The partition that was filled in; relative paths are taken from `folder`. `None`: something is wrong, and said so.
    pub fn take_partition(
        &mut self,
        present: Option<&PartitionSpec>,
        folder: &Path,
    ) -> Option<PartitionSpec> {
        let name: Name = self.value(NAME)?;
        let path = |text: String| (!text.is_empty()).then(|| folder.join(text));
        let cmdline = Some(self.text(CMDLINE)).filter(|text| !text.is_empty());
        let numa_node = if self.text(NODE).is_empty() { None } else { Some(self.number(NODE)?) };
        let kind = match (present.map(|present| &present.kind), self.kind()) {
            (Some(kind @ (PartitionKind::Domain(_) | PartitionKind::Namespace(_))), _) => kind.clone(),
            (None, Some(KindName::Domain)) => PartitionKind::Domain(self.foreign(DOMAIN, &name)?),
            (None, Some(KindName::Namespace)) => match self.text(NAMESPACE) {
                text if text.starts_with('/') => PartitionKind::Namespace(NamespaceRef::PidFile(text.into())),
                // One is named like the other.
                _ => {
                    let domain: DomainRef = self.foreign(NAMESPACE, &name)?;
                    PartitionKind::Namespace(NamespaceRef::Named(domain.to_string()))
                }
            },
            (Some(PartitionKind::Machine(_)), _) | (None, Some(KindName::Machine) | None) => {
                PartitionKind::Machine(Machine {
                    cpus: self.number(CPUS)?,
                    memory: self.value::<MemorySize>(MEMORY)?,
                    autostart: present.is_some_and(PartitionSpec::autostart),
                    boot: Boot {
                        kernel: path(self.text(KERNEL)),
                        initrd: path(self.text(INITRD)),
                        cmdline,
                        disk: path(self.text(DISK)),
                    },
                })
            }
        };
        let guest = present.and_then(|present| present.guest.clone());
        Some(PartitionSpec { name, kind, numa_node, guest, vfs: Vec::new() })
    }

    /// The name of something of others; nothing stands for the partition's own. `None`: it is wrong, and said so.
    fn foreign(&mut self, label: &str, partition: &Name) -> Option<DomainRef> {
        let text = self.text(label);
        let named: Result<DomainRef, _> =
            if text.is_empty() { partition.to_string().parse() } else { text.parse() };
        named.inspect_err(|why| self.wrong(label, why)).ok()
    }

    /// The form for a VF of a partition: a new one with a name to begin with, or one that is there.
    #[must_use]
    pub fn vf(partition: &Name, present: Result<&VfRequest, String>) -> Self {
        let vf = present.as_ref().ok();
        let said = |value: Option<String>| value.unwrap_or_default();
        let class = vf.map_or(Class::Network, |vf| vf.class);
        let aparts = vf.map(|vf| vf.apart_from.iter().map(apart_words).collect::<Vec<_>>().join(" "));
        let fields = [
            (
                NAME,
                NAME_HINT,
                match &present {
                    Ok(vf) => vf.name.to_string(),
                    Err(name) => name.clone(),
                },
            ),
            (CLASS, "left and right: network, nvme, display, accelerator, other", class.to_string()),
            (
                SPEED,
                "the slowest link that will do: 10G, or nothing",
                said(vf.and_then(|vf| text(vf.min_link_speed))),
            ),
            (VLAN, "1 to 4094, 0 for none, or nothing", said(vf.and_then(|vf| text(vf.vlan)))),
            (MAC, "nothing: derived from the names", said(vf.and_then(|vf| text(vf.mac)))),
            (APART, "VFs to share no adapter with: net0 db/net0:port", said(aparts)),
            (
                GUEST_MAY,
                "what the guest may change: mac vlan=100-110",
                said(vf.map(|vf| may_words(&vf.guest_may))),
            ),
        ];
        match present {
            Ok(vf) => Self::new(format!("VF {} of {partition}", vf.name), &fields).locked(),
            Err(_) => Self::new(format!("A VF for {partition}"), &fields),
        }
    }

    /// The class that stands in the form now.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        serde_json::from_value(Value::String(self.text(CLASS))).ok()
    }

    /// The VF request that was filled in; what the form does not speak of is as in `present`. `None`: something is wrong,
    /// and said so.
    pub fn take_vf(&mut self, present: Option<&VfRequest>) -> Option<VfRequest> {
        let name: Name = self.value(NAME)?;
        let class = self.class()?;
        let base = present.cloned().unwrap_or_else(|| VfRequest::new(name.clone(), class));
        let may: Map<String, Value> = self.words(GUEST_MAY, guest_may_words)?.into_iter().flatten().collect();
        let guest_may: Result<GuestMay, _> = serde_json::from_value(Value::Object(may));
        let guest_may = guest_may.inspect_err(|why| self.wrong(GUEST_MAY, why)).ok()?;
        Some(VfRequest {
            name,
            class,
            min_link_speed: self.optional(SPEED)?,
            vlan: self.optional(VLAN)?,
            mac: self.optional(MAC)?,
            apart_from: self.words(APART, apart)?,
            guest_may,
            ..base
        })
    }

    /// The name of the field for a VF's name.
    pub const NAME: &str = NAME;
}

/// What a machine of ioward's own is made of.
fn machine_fields(machine: Machine, node: Filling) -> [Filling; 7] {
    let path = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
    let Machine { cpus, memory, boot, .. } = machine;
    [
        (CPUS, "1 to 288", cpus.to_string()),
        (MEMORY, "512MiB, 2GiB", memory.to_string()),
        node,
        (DISK, "an image to boot from, or to have beside a kernel", path(boot.disk.as_ref())),
        (KERNEL, "a Linux kernel to start directly, or nothing", path(boot.kernel.as_ref())),
        (INITRD, "its initial RAM disk", path(boot.initrd.as_ref())),
        (CMDLINE, "its command line", boot.cmdline.unwrap_or_default()),
    ]
}

fn text<T: ToString>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// As [`apart`] reads it.
fn apart_words(apart: &ioward_model::Apart) -> String {
    let prefer = if apart.prefer { ":prefer" } else { "" };
    format!("{}:{}{prefer}", apart.vf, apart.by.as_str())
}

/// As [`guest_may_words`] reads it, word by word.
fn may_words(may: &GuestMay) -> String {
    let Ok(Value::Object(words)) = serde_json::to_value(may) else { return String::new() };
    let words = words.into_iter().map(|(name, bound)| match bound {
        Value::String(bound) => format!("{name}={bound}"),
        _ => name,
    });
    words.collect::<Vec<_>>().join(" ")
}
