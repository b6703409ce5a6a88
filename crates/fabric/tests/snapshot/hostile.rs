//! Snapshots from a hostile reporter, or damaged in transit: a clear error or a function with a Reason, never a
//! panic, and never more time or memory than a real one of that size.

use ioward_fabric::linux::{MAX_SNAPSHOT_BYTES, Snapshot, SnapshotError};
use serde_json::{Map, Value, json};

use crate::{hosts::igb_and_nvme, recorded};

const DEVICES: &str = "sys/bus/pci/devices";
const PF: &str = "sys/bus/pci/devices/0000:01:00.0";

fn whole() -> Value {
    serde_json::from_slice(&recorded(&igb_and_nvme()).to_json().unwrap()).unwrap()
}

fn look(snapshot: &Value) -> Result<ioward_model::Inventory, SnapshotError> {
    Snapshot::parse(&serde_json::to_vec(snapshot).unwrap()).and_then(Snapshot::identify)
}

fn refusal(snapshot: &Value) -> String {
    Snapshot::parse(&serde_json::to_vec(snapshot).unwrap()).unwrap_err().to_string()
}

#[test]
fn a_snapshot_cut_off_anywhere_is_refused() {
    let json = recorded(&igb_and_nvme()).to_json().unwrap();
    let json = json.trim_ascii_end();
    for length in 0..json.len() {
        assert!(matches!(Snapshot::parse(&json[..length]), Err(SnapshotError::Form(_))), "{length}");
    }
    assert!(Snapshot::parse(json).is_ok());
}

#[test]
fn garbage_is_refused_as_such() {
    for garbage in [&b""[..], b"\0\xff\x7fELF", b"version = 1", b"{}", b"[]", b"null", b"{\"version\":1}"] {
        let error = Snapshot::parse(garbage).unwrap_err().to_string();
        assert!(error.starts_with("this is no snapshot, or not all of one: "), "{error}");
    }
    let deep = "[".repeat(100_000);
    assert!(Snapshot::parse(deep.as_bytes()).is_err());
    let long = vec![b' '; MAX_SNAPSHOT_BYTES + 1];
    assert!(matches!(Snapshot::parse(&long), Err(SnapshotError::TooLong)));
}

#[test]
fn another_version_is_reported_before_anything_else() {
    let error = refusal(&json!({"version": 2, "whatever": "it holds"}));
    assert_eq!(error, "a snapshot of version 2; this ioward reads version 1");
}

#[test]
fn an_unknown_part_is_refused() {
    let mut snapshot = whole();
    snapshot["host"]["sockets"] = json!({});
    assert!(refusal(&snapshot).contains("unknown field `sockets`"), "{}", refusal(&snapshot));
}

#[test]
fn an_invalid_path_is_refused() {
    for path in ["../etc/passwd", "/etc/passwd", "sys/../../etc", "sys//bus", "sys/./bus", "", "sys\u{1b}[2J"]
    {
        for part in ["folders", "links", "files", "errors"] {
            let mut snapshot = whole();
            let value = match part {
                "folders" => json!(["a"]),
                "errors" => json!(5),
                _ => json!("a"),
            };
            snapshot["host"][part][path] = value;
            let error = refusal(&snapshot);
            assert!(error.contains("is no path or name that 'ioward snapshot' writes"), "{path}: {error}");
            assert!(!error.contains('\u{1b}'), "{error:?}");
        }
    }
    for name in ["..", ".", "a/b", "", "a\0b"] {
        let mut snapshot = whole();
        snapshot["host"]["links"][format!("{PF}/driver")] = json!(name);
        assert!(refusal(&snapshot).contains("is no path or name"), "{name}");
        let mut snapshot = whole();
        snapshot["host"]["folders"][DEVICES] = json!([name]);
        assert!(refusal(&snapshot).contains("is no path or name"), "{name}");
    }
}

/// Links are names here, and never followed: a VF that is its own PF, a PF that is its own VF.
#[test]
fn links_in_a_circle_leave_a_reason() {
    let mut snapshot = whole();
    let links = &mut snapshot["host"]["links"];
    links[format!("{PF}/virtfn0")] = json!("0000:01:00.0");
    links["sys/bus/pci/devices/0000:01:10.2/physfn"] = json!("0000:01:10.2");
    let host = look(&snapshot).unwrap();
    let pf = &host.physical_functions[0];
    assert_eq!(pf.virtual_functions.len(), 2);
    assert!(pf.virtual_functions.iter().all(|vf| !vf.reasons.is_empty()), "{pf:#?}");
    assert_eq!(host.physical_functions[1].reasons, []);
}

#[test]
fn invalid_capability_lists_leave_a_reason() {
    let rows = |row: &str, bytes: &str| {
        let mut snapshot = whole();
        snapshot["host"]["files"][format!("{PF}/config")]["rows"][row] = json!(bytes);
        let host = look(&snapshot).unwrap();
        assert_eq!(host.physical_functions.len(), 2);
        host.physical_functions[0].reasons.iter().map(ToString::to_string).collect::<String>()
    };
    assert!(rows("160", "10 00 01 10").contains("loops"));
    assert!(rows("160", "10 00 f1 ff").contains("the capability pointer 0xfff, found at 0x160"));
    assert!(rows("030", "00 00 00 00 10 00 00 00").contains("points into the header"));
    let mut snapshot = whole();
    snapshot["host"]["files"][format!("{PF}/config")] = json!({"length": 64, "rows": {}});
    let reasons = look(&snapshot).unwrap().physical_functions[0].reasons.clone();
    assert!(reasons[0].found.contains("first 64 bytes"), "{reasons:?}");
}

#[test]
fn a_hundred_thousand_functions_are_refused() {
    let names: Vec<_> = (0..100_000_u32).map(|n| format!("{:04x}:{:02x}:00.0", n >> 8, n & 0xff)).collect();
    let error = refusal(&json!({"version": 1, "masked": true, "host": {"folders": {DEVICES: names}}}));
    assert_eq!(error, "sys/bus/pci/devices has 100000 entries; at most 8192 can be looked at");
}

/// Each function is small, but is in one group with all the others: 8192 times 8192 of them.
#[test]
fn excessive_mutual_references_are_refused_quickly() {
    let vf = "0000:ff:00.0";
    let mut folders = Map::new();
    let others: Vec<_> = (0..8191_u32).map(|n| format!("{:04x}:{:02x}:00.0", n >> 8, n & 0xff)).collect();
    let links: Vec<_> = (0..8190).map(|n| format!("virtfn{n}")).collect();
    let mut names: Vec<_> = links.iter().cloned().chain(["sriov_totalvfs".to_owned()]).collect();
    names.sort_unstable();
    folders.insert(DEVICES.to_owned(), json!(["0000:01:00.0"]));
    folders.insert(PF.to_owned(), json!(names));
    folders.insert("sys/kernel/iommu_groups/1/devices".to_owned(), json!(others));
    let mut targets: Map<_, _> = links.iter().map(|link| (format!("{PF}/{link}"), json!(vf))).collect();
    targets.insert(format!("{DEVICES}/{vf}/iommu_group"), json!("1"));
    let files = json!({format!("{PF}/sriov_totalvfs"): "65535", format!("{PF}/sriov_numvfs"): "8190"});
    let host = json!({"folders": folders, "links": targets, "files": files});
    let refused = look(&json!({"version": 1, "masked": true, "host": host}));
    assert!(matches!(refused, Err(SnapshotError::TooMuch)), "{refused:?}");
}

/// Thirty bytes of JSON that stand for a file of 128 KiB, half a million times over: they are expanded one by one,
/// and only on request.
#[test]
fn compact_rows_are_not_expanded_in_memory() {
    let mut files = Map::new();
    for n in 0..200_000 {
        files.insert(n.to_string(), json!({"length": 128 << 10, "rows": {}}));
    }
    let host = json!({"folders": {DEVICES: []}, "files": files});
    assert_eq!(look(&json!({"version": 1, "masked": true, "host": host})).unwrap().physical_functions, []);
    let too_long = json!({"files": {"a": {"length": (128 << 10) + 1, "rows": {}}}});
    assert!(
        refusal(&json!({"version": 1, "masked": true, "host": too_long})).contains("it has at most 131072")
    );
}

/// A PF with thousands of interfaces, each of them unreadable.
#[test]
fn the_reasons_of_one_function_are_bounded() {
    let mut snapshot = whole();
    let names: Vec<_> = (1000..9000).map(|n| format!("eth{n}")).collect();
    snapshot["host"]["folders"][format!("{PF}/net")] = json!(names);
    let host = look(&snapshot).unwrap();
    assert_eq!(host.physical_functions[0].netdevs.len(), 8000);
    assert_eq!(host.physical_functions[0].reasons.len(), 64);
}

#[test]
fn the_facts_of_a_driver_are_bounded() {
    let mut snapshot = whole();
    let controller = json!({"controller_id": 1, "index": 0, "online": true, "queues": 1, "interrupts": 1});
    snapshot["drivers"]["0000:02:00.0"] = json!({"secondaries": vec![controller; 2000]});
    assert!(
        refusal(&snapshot).contains("0000:02:00.0 has 2000 controllers, reporters or reasons; at most 1024")
    );
}
