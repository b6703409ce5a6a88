//! Recorded hosts: `ioward snapshot` and `--host FILE`. None of it asks a daemon.

use std::path::Path;

use serde_json::Value;

use crate::support::{Folder, GOOD_SPEC, Run, ioward, run};

const NO_SOCKET: &str = "/nonexistent";

fn lab(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data").join(name);
    path.to_str().unwrap().to_owned()
}

fn alone(arguments: &[&str]) -> Run {
    run(&mut ioward(NO_SOCKET.as_ref(), arguments))
}

#[test]
fn a_recorded_host_is_shown_like_any_other() {
    let host = alone(&["host", "--host", &lab("lab-vfs.snapshot.json")]);
    assert_eq!((host.status, host.stderr.as_str()), (0, ""));
    assert!(host.stdout.contains("0000:01:00.0  network  igb "), "{}", host.stdout);
    let json = alone(&["host", "--json", "--host", &lab("lab-vfs.snapshot.json")]);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["generation"], json["physical_functions"].as_array().unwrap().len()), (&1.into(), 3));
}

#[test]
fn a_plan_for_a_recorded_host_says_that_it_is_one() {
    let folder = Folder::new();
    let spec = folder.file("spec.toml", GOOD_SPEC);
    let plan = |arguments: &[&str]| {
        let host = lab("lab-pristine.snapshot.json");
        alone(&[&["plan", "-f", spec.to_str().unwrap(), "--host", &host], arguments].concat())
    };
    let shown = plan(&[]);
    assert_eq!((shown.status, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.starts_with("made from a recording,"), "{}", shown.stdout);
    // eth0 of the recorded host has an address: the VF comes from the other adapter.
    assert!(shown.stdout.contains("VF 0 of 0000:03:00.0"), "{}", shown.stdout);
    let json = plan(&["--json"]);
    assert!(json.stderr.starts_with("made from a recording,"), "{}", json.stderr);
    let json: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&json["generation"], &json["parent"]), (&1.into(), &0.into()));
}

#[test]
fn what_a_recorded_host_cannot_do_is_refused_with_reasons() {
    let folder = Folder::new();
    let spec = folder.file("spec.toml", "version = 1\n[[adapter]]\npf = \"0000:03:00.0\"\nvfs = 8\n");
    let refused =
        alone(&["plan", "-f", spec.to_str().unwrap(), "--host", &lab("lab-pristine.snapshot.json")]);
    assert_eq!((refused.status, refused.stdout.as_str()), (3, ""));
    assert!(refused.stderr.contains("this cannot be done on the host recorded in"), "{}", refused.stderr);
    assert!(refused.stderr.contains("0000:03:00.0: required"), "{}", refused.stderr);
}

#[test]
fn what_suits_on_a_recorded_host_can_be_seen() {
    let folder = Folder::new();
    let spec = folder.file("spec.toml", GOOD_SPEC);
    let compatible = |name: &str| {
        let host = lab("lab-pristine.snapshot.json");
        alone(&["compatible", name, "-f", spec.to_str().unwrap(), "--json", "--host", &host])
    };
    let shown = compatible("web");
    assert_eq!((shown.status, shown.stderr.as_str()), (0, ""));
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown[0]["request"], "web/net0");
    assert_eq!(shown[0]["candidates"][0]["vf"]["pf"], "0000:03:00.0", "the one that is not in use");
    assert_eq!(shown[0]["candidates"][0]["reasons"], serde_json::json!([]));
    let unknown = compatible("wbe");
    assert_eq!(unknown.status, 1);
    assert!(unknown.stderr.contains("the Spec has no partition 'wbe'; it has web"), "{}", unknown.stderr);
}

#[test]
fn what_is_no_snapshot_is_wrong_usage() {
    let folder = Folder::new();
    for (content, says) in [
        (&b"\0\xff"[..], "this is no snapshot, or not all of one"),
        (b"{\"version\": 7}", "a snapshot of version 7; this ioward reads version 1"),
    ] {
        let file = folder.file("host.json", content);
        let refused = alone(&["host", "--host", file.to_str().unwrap()]);
        assert_eq!((refused.status, refused.stdout.as_str()), (2, ""));
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    let missing = alone(&["host", "--host", NO_SOCKET]);
    assert_eq!(missing.stderr, "ioward: cannot read /nonexistent: No such file or directory\n");
    assert_eq!(missing.status, 2);
    assert_eq!(alone(&["host", "--host", "a", "--root", "b"]).status, 2, "one host at a time");
}

#[test]
fn a_copied_tree_is_recorded_and_looked_at_again() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().join("sys/bus/pci/devices")).unwrap();
    let (root, file) = (folder.path().to_str().unwrap(), folder.path().join("host.json"));
    let recorded = alone(&["snapshot", file.to_str().unwrap(), "--root", root]);
    assert_eq!((recorded.status, recorded.stderr.as_str()), (0, ""));
    let printed = alone(&["snapshot", "-", "--root", root]).stdout;
    assert_eq!(std::fs::read_to_string(&file).unwrap(), printed);
    assert!(printed.contains("\"masked\": true"), "{printed}");
    assert!(alone(&["snapshot", "-", "--unmasked", "--root", root]).stdout.contains("\"masked\": false"));
    let seen = alone(&["host", "--json", "--host", file.to_str().unwrap()]).stdout;
    assert_eq!(seen, alone(&["host", "--json", "--root", root]).stdout);

    let nowhere = alone(&["snapshot", "/nonexistent/host.json", "--root", root]);
    assert_eq!(nowhere.stderr, "ioward: cannot write /nonexistent/host.json: No such file or directory\n");
    let no_tree = alone(&["snapshot", "-", "--root", "/nonexistent"]);
    assert_eq!((no_tree.status, no_tree.stdout.as_str()), (1, ""));
    assert!(
        no_tree.stderr.contains("cannot record the host: cannot read /nonexistent"),
        "{}",
        no_tree.stderr
    );
}
