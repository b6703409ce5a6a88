//! Reads every version of the state that has ever been on a disk, from files written at the time.
//!
//! A new form needs a new version, a migration from the one before, and its own files here (docs/state.md).

use std::{collections::BTreeMap, fs, path::Path};

use ioward_model::{AdapterOriginal, AuditEntry, Name, Row, RowKey, Verdict, VfCount};
use ioward_store::{Change, MemoryFile, Store, StoreError, open};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use serde_json::Value;

use crate::{
    folder::files,
    values::{
        self, file_with, operation, plan_begun, plan_done, repairs_begun, rows, state, state_of_kinds,
        state_out_of_service, state_wanted, step_begun, step_done,
    },
};

const VERSION1: [(&str, &str); 3] = [
    ("state.json", include_str!("../data/version1/state.json")),
    ("audit.1.jsonl", include_str!("../data/version1/audit.1.jsonl")),
    ("audit.jsonl", include_str!("../data/version1/audit.jsonl")),
];

fn version1() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in VERSION1 {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn taken_over(folder: &Path) {
    let (store, contents) = open(folder).unwrap();
    assert_eq!((contents.state, contents.last_plan, contents.interrupted), (state(), 0, None));
    let audit: Vec<AuditEntry> = store.audit(100).unwrap();
    assert_eq!(audit.iter().map(|entry| entry.time_ms).collect::<Vec<_>>(), [1, 2, 4]);
    assert!(matches!(&audit[1].verdict, Verdict::Refused(why) if why == "net0: vlan is not in guest_may"));
}

#[test]
fn version_1_is_migrated_and_kept() {
    let folder = version1();
    taken_over(folder.path());
    let kept = ["audit.1.v1.jsonl", "audit.v1.jsonl", "lock", "state.redb", "state.v1.json"];
    let files = files(folder.path());
    assert_eq!(files.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), kept);
    assert_eq!(files[4].1, VERSION1[0].1.as_bytes());
    // The kept files are not read again.
    fs::write(folder.path().join("state.v1.json"), "other").unwrap();
    taken_over(folder.path());
}

/// The daemon died after it renamed the new file, and before it renamed the old ones.
#[test]
fn version_1_is_migrated_once() {
    let folder = version1();
    taken_over(folder.path());
    for name in ["state", "audit"] {
        let extension = if name == "state" { "json" } else { "jsonl" };
        let at = |version: &str| folder.path().join(format!("{name}{version}.{extension}"));
        fs::copy(at(".v1"), at("")).unwrap();
    }
    taken_over(folder.path());
    assert!(folder.path().join("state.v1.json~").exists(), "and nothing is written over");
}

#[test]
fn a_damaged_or_newer_state_json_is_refused_and_no_file_is_made() {
    let newer = VERSION1[0].1.replace("\"version\": 1", "\"version\": 2");
    let cut = &VERSION1[0].1[..VERSION1[0].1.len() / 2];
    for content in [newer.as_str(), cut, "", "\0\0\0\0", "{}", "{\"version\": 1}"] {
        let folder = version1();
        fs::write(folder.path().join("state.json"), content).unwrap();
        let mut before = files(folder.path());
        before.push(("lock".to_owned(), Vec::new()));
        before.sort();
        let error = open(folder.path()).unwrap_err();
        match error {
            StoreError::Newer { found: 2, known: 1, .. } => assert_eq!(content, newer),
            StoreError::Corrupt { .. } => assert_ne!(content, newer),
            error => panic!("{error}"),
        }
        assert_eq!(files(folder.path()), before);
    }
}

/// A file of version 2 or later as rows: table, key, value.
type Rows = BTreeMap<String, BTreeMap<String, Value>>;

const VERSION2: &str = include_str!("../data/version2.json");
const VERSION3: &str = include_str!("../data/version3.json");
const VERSION4: &str = include_str!("../data/version4.json");
const VERSION5: &str = include_str!("../data/version5.json");

/// Everything that can be stored, as this program writes it.
fn written() -> MemoryFile {
    let mut changes = rows(&state_out_of_service());
    changes.extend([plan_begun(1), step_begun(1, 1), step_done(1, 1), plan_done(1)]);
    changes.extend([repairs_begun(2), step_begun(2, 1), Change::OperationBegun(operation())]);
    changes.push(Change::Audit(values::audit(4)));
    file_with(&changes)
}

/// The rows of a table with keys of this type, each key as text. A file of an older ioward may lack the table.
macro_rules! table {
    ($tables:ident, $name:expr, $key:ty, $text:expr) => {{
        let table = $tables.open_table(TableDefinition::<$key, &[u8]>::new($name)).ok();
        let rows = table.iter().flat_map(|table| table.iter().unwrap()).map(|row| {
            let (key, value) = row.unwrap();
            ($text(key.value()), serde_json::from_slice(value.value()).unwrap())
        });
        ($name.to_owned(), rows.collect())
    }};
}

fn rows_of(file: &MemoryFile) -> Rows {
    let database = redb::Builder::new().create_with_backend(file.copy()).unwrap();
    let tables = database.begin_read().unwrap();
    let numbers = tables.open_table(TableDefinition::<&str, u64>::new("numbers")).unwrap();
    let numbers = numbers.iter().unwrap().map(|row| row.unwrap());
    let numbers = numbers.map(|(key, value)| (key.value().to_owned(), value.value().into()));
    Rows::from([
        ("numbers".to_owned(), numbers.collect()),
        table!(tables, "adapters", &str, str::to_owned),
        table!(tables, "partitions", &str, str::to_owned),
        table!(tables, "assignments", (&str, &str), |(partition, vf)| format!("{partition} {vf}")),
        table!(tables, "out-of-service", &str, str::to_owned),
        table!(tables, "wanted", &str, str::to_owned),
        table!(tables, "plans", u64, |number: u64| number.to_string()),
        table!(tables, "plan-ends", u64, |number: u64| number.to_string()),
        table!(tables, "journal", (u64, u64), |(plan, number)| format!("{plan} {number}")),
        table!(tables, "operations", (&str, u16), |(pf, index)| format!("{pf} {index}")),
        table!(tables, "audit", u64, |number: u64| number.to_string()),
        table!(tables, "audit-entries", (&str, u8, u64), |(partition, kind, number)| format!(
            "{partition} {kind} {number}"
        )),
    ])
}

/// A file with these rows, made without the store.
fn file_of(rows: &Rows) -> MemoryFile {
    let file = MemoryFile::default();
    let database = redb::Builder::new().create_with_backend(file.clone()).unwrap();
    let transaction = database.begin_write().unwrap();
    for (name, rows) in rows {
        for (key, value) in rows {
            let json = serde_json::to_vec(value).unwrap();
            let (first, second) = key.split_once(' ').unwrap_or((key, ""));
            match name.as_str() {
                "numbers" => {
                    let mut table = transaction.open_table(TableDefinition::<&str, u64>::new(name)).unwrap();
                    table.insert(&**key, value.as_u64().unwrap()).unwrap();
                }
                "adapters" | "partitions" | "out-of-service" | "wanted" => {
                    let mut table =
                        transaction.open_table(TableDefinition::<&str, &[u8]>::new(name)).unwrap();
                    table.insert(&**key, &*json).unwrap();
                }
                "assignments" => {
                    let table = TableDefinition::<(&str, &str), &[u8]>::new(name);
                    transaction.open_table(table).unwrap().insert((first, second), &*json).unwrap();
                }
                "operations" => {
                    let table = TableDefinition::<(&str, u16), &[u8]>::new(name);
                    let key = (first, second.parse::<u16>().unwrap());
                    transaction.open_table(table).unwrap().insert(key, &*json).unwrap();
                }
                "journal" => {
                    let table = TableDefinition::<(u64, u64), &[u8]>::new(name);
                    let key = (first.parse::<u64>().unwrap(), second.parse::<u64>().unwrap());
                    transaction.open_table(table).unwrap().insert(key, &*json).unwrap();
                }
                "audit-entries" => {
                    let mut parts = key.split(' ');
                    let partition = parts.next().unwrap();
                    let [kind, number] = [(); 2].map(|()| parts.next().unwrap().parse::<u64>().unwrap());
                    let table = TableDefinition::<(&str, u8, u64), &[u8]>::new(name);
                    let key = (partition, u8::try_from(kind).unwrap(), number);
                    transaction.open_table(table).unwrap().insert(key, &*json).unwrap();
                }
                _ => {
                    let mut table = transaction.open_table(TableDefinition::<u64, &[u8]>::new(name)).unwrap();
                    table.insert(key.parse::<u64>().unwrap(), &*json).unwrap();
                }
            }
        }
    }
    transaction.commit().unwrap();
    database.close().unwrap();
    file
}

#[test]
fn versions_2_to_5_are_read_from_their_rows() {
    for (version, state) in [
        (VERSION2, state()),
        (VERSION3, state_wanted()),
        (VERSION4, state_of_kinds()),
        (VERSION5, state_out_of_service()),
    ] {
        let rows: Rows = serde_json::from_str(version).unwrap();
        let (store, contents) = values::open(&file_of(&rows)).unwrap();
        assert_eq!(contents.state, state);
        assert_eq!((contents.last_plan, contents.operations), (2, vec![operation()]));
        assert_eq!(contents.interrupted.unwrap().steps.len(), 1);
        assert_eq!(store.audit(10).unwrap(), [values::audit(4)]);
    }
}

/// The table came into version 3 later: a file may lack it, or what is in it.
#[test]
fn the_spec_that_was_last_applied_may_be_missing() {
    for missing in [
        |rows: &mut Rows| rows.remove("wanted").is_some(),
        |rows: &mut Rows| rows.get_mut("wanted").unwrap().remove("spec").is_some(),
    ] {
        let mut rows: Rows = serde_json::from_str(VERSION3).unwrap();
        assert!(missing(&mut rows));
        assert_eq!(values::open(&file_of(&rows)).unwrap().1.state, state());
    }
}

/// An ioward before version 3 can't read a plan to reconcile, one before version 4 no domain, and one before version 5 would give VFs of an
/// adapter away that is out of service. It reports that the file is newer, not that it is damaged.
#[test]
fn an_older_version_is_version_5_after_the_first_commit() {
    for (version, content) in [(2, VERSION2), (3, VERSION3), (4, VERSION4)] {
        let rows: Rows = serde_json::from_str(content).unwrap();
        let file = file_of(&rows);
        let (store, _) = values::open(&file).unwrap();
        assert_eq!(rows_of(&file)["numbers"]["schema"], version, "nothing is written by looking");
        store.commit(&[Change::Audit(values::audit(5))]).unwrap();
        drop(store);
        assert_eq!(rows_of(&file)["numbers"]["schema"], 5);
    }
}

/// A failure means that the form has changed: it needs a new version (docs/state.md).
#[test]
fn rows_are_written_as_version_5() {
    let written = rows_of(&written());
    if let Some(path) = std::env::var_os("IOWARD_WRITE_VERSION5") {
        fs::write(path, serde_json::to_string_pretty(&written).unwrap() + "\n").unwrap();
    }
    let expected: Rows = serde_json::from_str(VERSION5).unwrap();
    assert_eq!(written, expected);
}

/// An older ioward would start a partition that was given away. It reads the file as soon as nothing is being moved any more.
#[test]
fn a_file_has_version_6_for_as_long_as_a_partition_is_being_moved() {
    let mut state = state();
    let web: Name = "web".parse().unwrap();
    let text = r#"{"id":"30313233343536373839616263646566","peer":"b","side":"leaving","note":"given"}"#;
    let file = file_with(&values::rows(&state));
    let schema = |file: &MemoryFile| rows_of(file)["numbers"]["schema"].clone();
    assert_eq!(schema(&file), 5);
    state.moves.insert(web.clone(), serde_json::from_str(text).unwrap());
    let noted = Change::Row(state.row(&RowKey::Move(web.clone())));
    values::committed(&file, &[noted]);
    assert_eq!(values::open(&file).unwrap().1.state, state);
    assert_eq!(schema(&file), 6);
    values::committed(&file, &[Change::Audit(values::audit(5))]);
    assert_eq!(schema(&file), 6);
    // Everything is said anew after a commit that failed.
    let anew: Vec<_> = std::iter::once(Change::Clear).chain(values::rows(&state)).collect();
    values::committed(&file, &anew);
    assert_eq!(values::open(&file).unwrap().1.state, state);
    values::committed(&file, &[Change::Row(Row::Move(web.clone(), None))]);
    state.moves.clear();
    assert_eq!(values::open(&file).unwrap().1.state, state);
    assert_eq!(schema(&file), 5);
}

/// The log of an older ioward is migrated with the first new entry.
#[test]
fn an_audit_log_in_one_table_is_migrated() {
    let rows: Rows = serde_json::from_str(VERSION3).unwrap();
    let file = file_of(&rows);
    values::committed(&file, &[Change::Audit(values::audit(5))]);
    let now = rows_of(&file);
    assert!(now["audit"].is_empty() && now["audit-entries"].len() == 2, "{now:?}");
    let store = values::open(&file).unwrap().0;
    assert_eq!(store.audit(10).unwrap(), [values::audit(4), values::audit(5)]);
    assert_eq!(store.audit(1).unwrap(), [values::audit(5)]);
}

/// An adapter as read by an ioward from before identities.
#[derive(serde::Deserialize)]
struct AdapterBefore {
    original: AdapterOriginal,
    wanted: Option<VfCount>,
}

/// The identity of an adapter was added to its row later, without a new version: it may be missing. An older ioward
/// ignores it and drops it when it next writes the row; a newer one then adds it again.
#[test]
fn an_identity_is_optional_and_ignored_by_an_older_ioward() {
    let identity = serde_json::json!({
        "vendor_id": "8086", "device_id": "10c9", "function": 1, "serial_number": "00-1b-21-ff-ff-aa-00-01",
        "macs": ["00:1b:21:aa:00:01"], "nvme_serial": "S3"
    });
    let mut rows: Rows = serde_json::from_str(VERSION2).unwrap();
    let row = rows.get_mut("adapters").unwrap().get_mut("0000:01:00.0").unwrap();
    row["identity"] = identity.clone();
    let before: AdapterBefore = serde_json::from_value(row.clone()).unwrap();
    let (_, contents) = values::open(&file_of(&rows)).unwrap();

    let pf = "0000:01:00.0".parse().unwrap();
    let mut expected = state();
    let adapter = expected.adapters.get_mut(&pf).unwrap();
    assert_eq!((before.original, before.wanted), (adapter.original, adapter.wanted));
    adapter.identity = Some(serde_json::from_value(identity).unwrap());
    assert_eq!(contents.state, expected);
    // The row is written the same way.
    let written = rows_of(&file_with(&values::rows(&expected)));
    assert_eq!(written["adapters"], rows["adapters"]);
}

#[test]
fn rows_that_contradict_each_other_are_refused() {
    let sound: Rows = serde_json::from_str(VERSION2).unwrap();
    type Contradict = fn(&mut Rows);
    let contradictions: [(&str, Contradict); 5] = [
        ("there is no such partition", |rows| _ = rows.get_mut("partitions").unwrap().remove("web")),
        ("is web/net0's too", |rows| {
            let assignments = rows.get_mut("assignments").unwrap();
            let held = assignments["web net0"].clone();
            assignments.insert("web net1".into(), held);
        }),
        ("it speaks of web", |rows| {
            let partitions = rows.get_mut("partitions").unwrap();
            let web = partitions["web"].clone();
            partitions.insert("other".into(), web);
        }),
        ("in the table adapters, 0000:01:00.0: missing field", |rows| {
            rows.get_mut("adapters").unwrap().insert("0000:01:00.0".into(), serde_json::json!({}));
        }),
        ("it has no version", |rows| _ = rows.get_mut("numbers").unwrap().remove("schema")),
    ];
    for (why, contradict) in contradictions {
        let mut rows = sound.clone();
        contradict(&mut rows);
        let file = file_of(&rows);
        let content = file.content();
        let error = values::open(&file).unwrap_err();
        assert!(
            matches!(error, StoreError::Corrupt { .. }) && error.to_string().contains(why),
            "{why}: {error}"
        );
        assert!(file.content() == content, "{why}: refused, and changed");
    }
}
