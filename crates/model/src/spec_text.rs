//! From the text of a Spec to a [`Spec`], with errors that name line, key and remedy; and back.

use std::{fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::{GuestMay, Spec, spec_read, spec_rules};

/// The most mistakes that are told of a text that is no TOML.
const MAX_BROKEN: usize = 8;

/// The largest Spec that is read, in bytes. A host of 1,000 partitions needs about a third of it.
pub const MAX_SPEC_BYTES: usize = 1 << 20;

/// A Spec that can't be used, with everything that was found wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct SpecError {
    /// At least one problem.
    pub problems: Vec<SpecProblem>,
}

/// One thing that is wrong with a Spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecProblem {
    /// Where it stands in the text; `None`: it is about the whole, or there is no text.
    pub place: Option<TextPlace>,
    /// Key, as `partition[0].vf[1].mac`; empty where the text is no TOML.
    pub key: String,
    /// The mistake and the remedy.
    pub message: String,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextPlace {
    /// Line, from 1.
    pub line: usize,
    /// Character of the line, from 1.
    pub column: usize,
    /// Characters, on this line.
    pub length: usize,
}

impl TextPlace {
    fn of(text: &str, span: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start.min(text.len()));
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let end = text.floor_char_boundary(span.end.clamp(start, line_end));
        Self {
            line: before.matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            length: text[start..end].chars().count().max(1),
        }
    }
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.problems.iter().enumerate() {
            let newline = if n > 0 { "\n" } else { "" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

impl fmt::Display for SpecProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(TextPlace { line, column, .. }) = self.place {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

impl SpecError {
    /// One that has no key.
    #[must_use]
    pub fn one(place: Option<TextPlace>, message: impl Into<String>) -> Self {
        Self { problems: vec![SpecProblem { place, key: String::new(), message: message.into() }] }
    }
}

/// What a Spec's text has for a VF whose partition may change nothing of it.
const MAY_NOTHING: &str = "[partition.vf.guest_may]";

impl Spec {
    /// The text of a Spec, as a person would write it. Without the tables of permissions that are empty.
    ///
    /// # Errors
    /// When a value has no form in TOML; those of a Spec have.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        let text = toml::to_string(self)?;
        let vfs = self.partitions.iter().flat_map(|partition| &partition.vfs);
        let may_nothing = vfs.filter(|vf| vf.guest_may == GuestMay::default()).count();
        let lines: Vec<&str> = text.lines().collect();
        let is_empty_table =
            |at: usize| lines[at] == MAY_NOTHING && lines.get(at + 1).is_none_or(|next| next.is_empty());
        let (empty, kept): (Vec<usize>, Vec<usize>) = (0..lines.len()).partition(|at| is_empty_table(*at));
        if empty.len() != may_nothing {
            // A value of several lines looks like one: nothing is taken out of it.
            return Ok(text);
        }
        let mut short = String::new();
        for at in kept {
            let is_before_one = lines[at].is_empty() && empty.binary_search(&(at + 1)).is_ok();
            if !is_before_one {
                short += lines[at];
                short += "\n";
            }
        }
        Ok(short)
    }

    /// Reads a Spec from the bytes of a file and checks all that can be checked without a host.
    ///
    /// # Errors
    /// Every problem that was found; of a text that is no TOML, those that keep it from being TOML.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        if bytes.len() > MAX_SPEC_BYTES {
            let found = bytes.len();
            return Err(SpecError::one(
                None,
                format!("a Spec has at most {MAX_SPEC_BYTES} bytes; this has {found}"),
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            let sound = String::from_utf8_lossy(&bytes[..e.valid_up_to()]);
            let place = TextPlace::of(&sound, &(sound.len()..sound.len()));
            SpecError::one(Some(place), "this is no text (not UTF-8); a Spec is a TOML file")
        })?;
        if text.trim().is_empty() {
            return Err(SpecError::one(None, "the Spec is empty; it begins with: version = 1"));
        }
        let (located, broken) = DeTable::parse_recoverable(text);
        if !broken.is_empty() {
            return Err(no_toml(text, &broken));
        }
        check_version(text, located.get_ref())?;
        let read = spec_read::read(located.clone());
        let mut problems: Vec<SpecProblem> = read
            .mistakes
            .into_iter()
            .map(|spec_read::Mistake { span, message }| SpecProblem {
                place: span.map(|span| TextPlace::of(text, &span)),
                key: String::new(),
                message,
            })
            .collect();
        if let Some(spec) = read.spec.as_ref().filter(|_| read.in_place) {
            let within = |span: &Range<usize>| {
                read.incomplete
                    .iter()
                    .any(|table| table.start <= span.start && span.start < table_end(text, table))
            };
            // Nothing more of a key that should not be there, or is missing.
            let misplaced = |key: &str| read.misplaced.iter().any(|(other, _)| other == key);
            let mut rules = spec_rules::problems(spec);
            rules.retain(|(key, _)| !misplaced(key));
            problems.extend(read.misplaced.iter().cloned().chain(rules).filter_map(|(key, message)| {
                let span = find(located.get_ref(), &key);
                let place = span.as_ref().map(|span| TextPlace::of(text, span));
                // A key that seems to be missing there may have been left out.
                (!span.as_ref().is_some_and(within)).then_some(SpecProblem { place, key, message })
            }));
        }
        problems.sort_by_key(|problem| problem.place.map(|place| (place.line, place.column)));
        match read.spec {
            Some(spec) if problems.is_empty() => Ok(spec),
            _ => Err(SpecError { problems }),
        }
    }

    /// Checks a Spec that did not come as text (through the API), as [`Spec::parse`] does.
    ///
    /// # Errors
    /// Every problem that was found, without lines.
    pub fn validate(&self) -> Result<(), SpecError> {
        let mut problems = spec_rules::problems(self);
        if self.version != 1 {
            problems.insert(0, ("version".into(), unknown_version(&self.version)));
        }
        let problems = problems.into_iter().map(|(key, message)| SpecProblem { place: None, key, message });
        let problems: Vec<_> = problems.collect();
        if problems.is_empty() { Ok(()) } else { Err(SpecError { problems }) }
    }
}

/// Where a Spec's text asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecPlace {
    /// Line, from 1.
    pub line: usize,
    /// Key, as `partition[0].vf[1].mac`.
    pub key: String,
}

impl Spec {
    /// Where the text of a Spec asks for what a [`crate::Reason`] is about: the key of that request, the request where it has no such
    /// key, or the partition. `None` where the text has no such request.
    #[must_use]
    pub fn locate(text: &str, reason: &crate::Reason) -> Option<SpecPlace> {
        let located = DeTable::parse(text).ok()?;
        let table = located.get_ref();
        let name_of = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
            DeValue::Table(table) => table.get("name")?.get_ref().as_str().map(str::to_owned),
            _ => None,
        };
        let numbered = |table: &DeTable<'_>, list: &str, name: &str| match table.get(list)?.get_ref() {
            DeValue::Array(items) => items.iter().position(|item| name_of(item).as_deref() == Some(name)),
            _ => None,
        };
        let (partition, vf) = match reason.request.as_deref() {
            Some(request) => {
                request.split_once('/').map_or((request, None), |(partition, vf)| (partition, Some(vf)))
            }
            None => return locate_adapter(text, table, reason),
        };
        let n = numbered(table, "partition", partition)?;
        let mut key = format!("partition[{n}]");
        if let (Some(vf), Some(DeValue::Array(partitions))) =
            (vf, table.get("partition").map(Spanned::get_ref))
        {
            let m = match partitions.get(n)?.get_ref() {
                DeValue::Table(partition) => numbered(partition, "vf", vf)?,
                _ => return None,
            };
            key.push_str(&format!(".vf[{m}]"));
        }
        key.extend(reason.key.iter().map(|name| format!(".{name}")));
        Some(SpecPlace { line: line_of(text, find(table, &key)?.start), key })
    }
}

/// The adapter of a Spec that a reason is about which is nobody's request.
fn locate_adapter(text: &str, table: &DeTable<'_>, reason: &crate::Reason) -> Option<SpecPlace> {
    let function = reason.function?.to_string();
    let DeValue::Array(adapters) = table.get("adapter")?.get_ref() else { return None };
    let is_it = |adapter: &Spanned<DeValue<'_>>| match adapter.get_ref() {
        DeValue::Table(adapter) => adapter
            .get("pf")
            .and_then(|pf| pf.get_ref().as_str()?.parse::<ioward_pci::Bdf>().ok())
            .is_some_and(|pf| pf.to_string() == function),
        _ => false,
    };
    let n = adapters.iter().position(is_it)?;
    let key = format!("adapter[{n}].{}", reason.key.as_deref().unwrap_or("vfs"));
    Some(SpecPlace { line: line_of(text, find(table, &key)?.start), key })
}

fn unknown_version(found: &dyn fmt::Display) -> String {
    format!("this ioward knows Specs of version 1; found {found}")
}

/// The version comes first: a newer Spec may well have keys and values that make no sense here.
fn check_version(text: &str, table: &DeTable<'_>) -> Result<(), SpecError> {
    let Some(version) = table.get("version") else {
        return Err(SpecError::one(
            Some(TextPlace { line: 1, column: 1, length: 1 }),
            "the version is missing; begin with: version = 1",
        ));
    };
    let number = match version.get_ref() {
        DeValue::Integer(number) => number.as_str(),
        _ => "something that is no number",
    };
    if number == "1" {
        return Ok(());
    }
    let place = Some(TextPlace::of(text, &version.span()));
    let problem = SpecProblem { place, key: "version".into(), message: unknown_version(&number) };
    Err(SpecError { problems: vec![problem] })
}

/// The first mistake of each line: a second one mostly comes of the first.
fn no_toml(text: &str, broken: &[toml::de::Error]) -> SpecError {
    let mut problems: Vec<SpecProblem> = Vec::new();
    for error in broken.iter().take(MAX_BROKEN) {
        let place = error.span().map(|span| TextPlace::of(text, &span));
        let line = |place: Option<TextPlace>| place.map(|place| place.line);
        if !problems.iter().any(|told| line(told.place) == line(place)) {
            problems.push(SpecProblem { place, key: String::new(), message: error.message().to_owned() });
        }
    }
    SpecError { problems }
}

/// Where a table that begins at this header, or on one line, ends.
fn table_end(text: &str, table: &Range<usize>) -> usize {
    let after = text.get(table.end..).unwrap_or_default();
    if text.get(table.clone()).is_some_and(|table| table.starts_with('{')) {
        return table.end;
    }
    after.find("\n[").map_or(text.len(), |next| table.end + next)
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|b| **b == b'\n').count() + 1
}

/// Where a key such as `partition[0].vf[1].mac` stands; where it is missing, its nearest parent.
fn find(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut span = None;
    let mut table = table;
    for part in key.split('.') {
        let (name, index) = match part.split_once('[') {
            Some((name, rest)) => (name, rest.trim_end_matches(']').parse::<usize>().ok()),
            None => (part, None),
        };
        let Some(value) = table.get(name) else { break };
        let value: &Spanned<DeValue<'_>> = match (value.get_ref(), index) {
            (DeValue::Array(items), Some(n)) => items.get(n)?,
            _ => value,
        };
        span = Some(value.span());
        match value.get_ref() {
            DeValue::Table(inner) => table = inner,
            _ => break,
        }
    }
    span
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"version = 1

[[adapter]]
pf  = "0000:01:00.0"
vfs = 4

[[partition]]
name   = "web"
cpus   = 2
memory = "512MiB"
boot   = { kernel = "vmlinuz", initrd = "initrd.img", cmdline = "console=ttyS0" }

[[partition.vf]]
name  = "net0"
class = "network"
min_link_speed = "1Gbit"
mac   = "52:54:00:aa:00:01"
guest_may = ["mac", "stats", "reset"]

[[partition.vf]]
name  = "disk0"
class = "nvme"
pf    = "0000:02:00.0"
index = 0
"#;

    fn complaint(text: &str) -> String {
        Spec::parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn the_example_reads_and_survives_both_forms() {
        let spec = Spec::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(spec.partitions[0].vfs[1].index, Some(0));
        let as_toml = toml::to_string(&spec).unwrap();
        assert_eq!(Spec::parse(as_toml.as_bytes()).unwrap(), spec);
        let as_json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&as_json).unwrap(), spec);
    }

    #[test]
    fn nothing_is_written_of_a_vf_whose_guest_may_change_nothing() {
        let spec = Spec::parse(GOOD.as_bytes()).unwrap();
        let text = spec.to_toml().unwrap();
        assert_eq!(text.matches("guest_may").count(), 1, "that of net0: {text}");
        assert!(!text.contains("\n\n\n"), "{text}");
        assert_eq!(Spec::parse(text.as_bytes()).unwrap(), spec);
    }

    #[test]
    fn a_value_that_looks_like_a_table_is_written_as_it_is() {
        let mut spec = Spec::parse(GOOD.as_bytes()).unwrap();
        let cmdline = Some(format!("quiet\n\n{MAY_NOTHING}\n\n"));
        spec.partitions[0].kind = crate::Boot { cmdline, ..crate::Boot::default() }.into();
        assert_eq!(toml::from_str::<Spec>(&spec.to_toml().unwrap()).unwrap(), spec);
    }

    #[test]
    fn what_is_no_spec_is_told_so() {
        assert!(complaint("").contains("empty"));
        assert!(complaint("  \n").contains("empty"));
        assert!(
            Spec::parse(b"version = 1\n\xff\xfe\0")
                .unwrap_err()
                .to_string()
                .starts_with("line 2, column 1: this is no text")
        );
        assert!(complaint(&"#".repeat(10 << 20)).contains("at most 1048576 bytes"));
        assert!(complaint(&GOOD[..GOOD.find("initrd.img").unwrap()]).starts_with("line 11, column "));
    }

    #[test]
    fn the_version_is_checked_before_anything_else() {
        assert!(complaint("[[partition]]\nname = 3").contains("version = 1"));
        let newer = complaint("version = 2\nflavour = \"strange\"");
        assert_eq!(newer, "line 1, column 11: version: this ioward knows Specs of version 1; found 2");
    }

    #[test]
    fn an_unknown_key_brings_the_near_one() {
        let error = complaint(&GOOD.replace("memory", "memroy"));
        assert_eq!(error, "line 10, column 1: unknown key 'memroy'; did you mean 'memory'?");
        let error = complaint(&GOOD.replace("mac  ", "mca  "));
        assert!(error.ends_with("unknown key 'mca'; did you mean 'mac'?"), "{error}");
        let error = complaint(&GOOD.replace("\"nvme\"", "\"nvmee\""));
        assert_eq!(error, "line 22, column 9: unknown value 'nvmee'; did you mean 'nvme'?");
    }

    #[test]
    fn each_wrong_value_is_found_at_its_line() {
        let wrong = [
            ("memory = \"512MiB\"", "memory = \"lots\"", "line 10, column ", "", "memory size"),
            ("cpus   = 2", "cpus   = 0", "line 9, column ", "partition[0].cpus", "use 1 to 288"),
            ("vfs = 4", "vfs = \"many\"", "line 5, column ", "", "no number of VFs"),
            ("vfs = 4", "vfs = 65536", "line 5, column ", "", "no number of VFs"),
            ("52:54:00:aa:00:01", "52:54:00:aa:00", "line 17, column ", "", "no MAC address"),
            (
                "52:54:00:aa:00:01",
                "01:54:00:aa:00:01",
                "line 17, column ",
                "partition[0].vf[0].mac",
                "multicast",
            ),
            ("mac   = \"52:54:00:aa:00:01\"", "vlan = 4095", "line 17, column ", "", "no VLAN"),
            ("\"disk0\"", "\"net0\"", "line 21, column ", "partition[0].vf[1].name", "already the name"),
            ("pf    = \"0000:02:00.0\"", "", "line 24, column ", "partition[0].vf[1].index", "needs the pf"),
            ("name   = \"web\"", "name   = \"../web\"", "line 8, column ", "", "is no name"),
            (
                "index = 0",
                "vlan = 7",
                "line 24, column ",
                "partition[0].vf[1].vlan",
                "class nvme has no such setting",
            ),
        ];
        for (good, bad, place, key, what) in wrong {
            let error = complaint(&GOOD.replacen(good, bad, 1));
            assert!(error.starts_with(place) && error.contains(what), "{bad}: {error}");
            assert!(error.contains(&format!(": {key}")), "{bad}: {error}");
        }
    }

    #[test]
    fn duplicates_are_all_named_at_once() {
        let second = GOOD[GOOD.find("[[partition]]").unwrap()..].to_owned();
        let error = complaint(&format!("{GOOD}\n{second}"));
        assert!(error.contains("partition[1].name: 'web' is already the name of partition[0]"), "{error}");
        assert!(error.contains("52:54:00:aa:00:01 is already used by partition[0].vf[0].mac"), "{error}");
    }

    /// They were told one at a time, and in Rust's words.
    #[test]
    fn all_that_is_wrong_is_told_at_once_and_in_words_of_a_spec() {
        let text = r#"version = 1
adapter = [{ pf = "0000:01:00.0", vfs = 99999999999999999999 }]

[[partition]]
name   = "web"
cpus   = "two"
memroy = "1GiB"
numa_node = 99999999999999999999
boot   = "vmlinuz"

[[partition.vf]]
name  = "net0"
class = "netwrok"
vlan  = 5000
guest_may = ["vlna"]

[[partition]]
cpus  = 70000
boot  = { disk = "db.qcow2", kernel = 5 }
vf    = { name = "net0" }
"#;
        let error = Spec::parse(text.as_bytes()).unwrap_err();
        let told: Vec<_> = error.problems.iter().map(ToString::to_string).collect();
        let expected = [
            "line 2, column 41: 99999999999999999999 is too large for a number",
            "line 6, column 10: \"two\" is no whole number from 0 to 65535",
            "line 7, column 1: unknown key 'memroy'; did you mean 'memory'?",
            "line 8, column 13: 99999999999999999999 is no whole number from 0 to 4294967295",
            "line 9, column 10: \"vmlinuz\" is no table of keys and values",
            "line 13, column 9: unknown value 'netwrok'; did you mean 'network'?",
            "line 14, column 9: '5000' is no VLAN; use 1 to 4094, or 0 for untagged; 100,proto=802.1ad,prio=3 says more",
            "line 15, column 13: 'vlna' is nothing a guest may do; did you mean 'vlan'?",
            "line 17, column 1: the key 'name' is missing",
            "line 18, column 9: 70000 is no whole number from 0 to 65535",
            "line 19, column 39: 5 is no path in quotes",
            "line 20, column 9: a table is no list in [ ]",
        ];
        assert_eq!(told, expected, "{error}");
    }

    #[test]
    fn rules_are_told_with_mistakes_where_they_do_not_come_of_them() {
        let text = GOOD.replace("cpus   = 2", "cpus   = \"two\"").replace("vfs = 4", "vfs = 4\nspare = 1");
        let error = complaint(&text);
        assert!(
            error.contains("spare goes with as many VFs") && error.contains("\"two\" is no whole"),
            "{error}"
        );
        // The PF that is missing is there, and was wrong.
        let error = complaint(&GOOD.replace("\"0000:02:00.0\"", "\"0000:02\""));
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
