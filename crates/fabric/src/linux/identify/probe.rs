//! Reads one function: every readable fact is a value, every unreadable one a Reason.

use std::{fmt, io};

use ioward_model::{Reason, Rule};
use ioward_pci::{Bdf, ConfigError, ConfigSpace};

use super::{DEVICES, address, port};
use crate::linux::root::{Folder, HostRoot};

/// Maximum number of errors reported for one function's capability lists.
const MAX_LIST_ERRORS: usize = 8;

/// Maximum number of Reasons for one function; the rest show once these are fixed.
const MAX_REASONS: usize = 64;

/// One function while it is read, with the problems found so far.
pub(super) struct Probe<'a> {
    pub(super) root: &'a HostRoot,
    pub(super) function: Bdf,
    /// Its folder in sysfs.
    folder: Folder<'a>,
    reasons: Vec<Reason>,
}

impl<'a> Probe<'a> {
    pub(super) fn new(root: &'a HostRoot, function: Bdf) -> Self {
        let folder = root.folder_at(&format!("{DEVICES}/{function}"));
        Self { root, function, folder, reasons: Vec::new() }
    }

    /// Ends with the problems found. If the function is gone by now, that is the first Reason.
    pub(super) fn finish(mut self) -> Vec<Reason> {
        // A VF that is still there still says so, which is less to ask.
        if self.folder.link_name("physfn").is_err() && !self.folder.exists() {
            let gone = Reason::new(
                Rule::Readable,
                "a function that stays",
                "it is not there, or vanished while read",
            );
            self.reasons.insert(0, gone.on(self.function).remedy("look again"));
        }
        self.reasons
    }

    /// Adds a problem.
    pub(super) fn note(&mut self, required: impl Into<String>, found: impl fmt::Display) {
        self.note_with_remedy(required, found, "");
    }

    /// Adds a problem, with a remedy for the user.
    pub(super) fn note_with_remedy(
        &mut self,
        required: impl Into<String>,
        found: impl fmt::Display,
        remedy: &str,
    ) {
        let reason =
            Reason::new(Rule::Readable, required, found.to_string()).on(self.function).remedy(remedy);
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }

    /// A path below the function's folder.
    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path(name)
    }

    /// An attribute's text.
    pub(super) fn text(&self, name: &str) -> io::Result<String> {
        self.folder.text(name)
    }

    /// An attribute that every such function has: a missing one is a problem. `what` describes its value: "a
    /// number".
    pub(super) fn expect<T>(
        &mut self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let read = self.text(name);
        self.value(name, what, read, parse)
    }

    /// An attribute that only some of these functions have.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match self.text(name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            read => self.value(name, what, read, parse),
        }
    }

    fn value<T>(
        &mut self,
        name: &str,
        what: &str,
        read: io::Result<String>,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        match read {
            Ok(text) => {
                let value = parse(&text);
                if value.is_none() {
                    let start: String = text.chars().take(40).collect();
                    self.note(self.holds(name, what), format!("'{}'", start.escape_debug()));
                }
                value
            }
            Err(error) => {
                self.note_error(name, what, &error);
                None
            }
        }
    }

    /// The name in a symlink's target; `None` without a link.
    pub(super) fn link(&mut self, name: &str) -> Option<String> {
        match self.folder.link_name(name) {
            Ok(target) => Some(target),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.note_error(name, "a link", &error);
                None
            }
        }
    }

    /// The names in a folder of the function; empty without the folder.
    pub(super) fn list(&mut self, name: &str) -> Vec<String> {
        match self.folder.list(name) {
            Ok(names) => names,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    self.note_error(name, "a folder", &error);
                }
                Vec::new()
            }
        }
    }

    /// The IOMMU group.
    pub(super) fn iommu_group(&mut self) -> Option<u32> {
        let name = self.link("iommu_group")?;
        let group = name.parse().ok();
        if group.is_none() {
            self.note(self.holds("iommu_group", "a link to a numbered group"), format!("'{name}'"));
        }
        group
    }

    /// The other functions of an IOMMU group, except bridges: these are not assigned, and do no DMA of their own.
    pub(super) fn others_in_group(&mut self, groups: &Folder<'_>, group: u32) -> Vec<Bdf> {
        let devices = format!("{group}/devices");
        let names = groups.list(&devices).unwrap_or_else(|error| {
            let devices = groups.path(&devices);
            self.note(format!("the functions of IOMMU group {group} in /{devices}"), error);
            Vec::new()
        });
        let is_bridge = |function: &Bdf| port::is_bridge(self.root, *function);
        let others = names.iter().filter_map(|name| address(name)).filter(|other| *other != self.function);
        others.filter(|function| !is_bridge(function)).collect()
    }

    /// Whether the kernel calls it a VF.
    pub(super) fn is_vf(&self) -> bool {
        self.folder.link_name("physfn").is_ok()
    }

    /// The function that a symlink points to; any other target is a problem.
    pub(super) fn link_to_function(&mut self, name: &str) -> Option<Bdf> {
        let target = self.link(name)?;
        let function = address(&target);
        if function.is_none() {
            self.note(self.holds(name, "a link to a PCI function"), format!("'{target}'"));
        }
        function
    }

    /// The readable bytes of configuration space, at most 4096.
    pub(super) fn config(&mut self) -> Option<Vec<u8>> {
        let read = self.folder.read("config", 4096);
        read.inspect_err(|error| self.note_error("config", "configuration space", error)).ok()
    }

    /// Adds the problems of the capability lists.
    pub(super) fn check_lists(&mut self, config: &ConfigSpace<'_>) {
        let errors = config.capabilities().filter_map(Result::err);
        let errors = errors.chain(config.extended_capabilities().filter_map(Result::err));
        for error in errors.take(MAX_LIST_ERRORS) {
            self.note_config(error);
        }
    }

    /// Adds a problem of the configuration space.
    pub(super) fn note_config(&mut self, error: ConfigError) {
        self.note(self.holds("config", "a proper configuration space"), error);
    }

    /// The value, or `None` and a problem.
    pub(super) fn readable<T>(&mut self, found: Result<Option<T>, ConfigError>) -> Option<T> {
        found.unwrap_or_else(|error| {
            self.note_config(error);
            None
        })
    }

    fn note_error(&mut self, name: &str, what: &str, error: &io::Error) {
        let remedy = if error.kind() == io::ErrorKind::PermissionDenied { "root may read it" } else { "" };
        self.note_with_remedy(self.holds(name, what), error, remedy);
    }

    fn holds(&self, name: &str, what: &str) -> String {
        format!("{what} in /{}", self.path(name))
    }
}
