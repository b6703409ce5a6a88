//! `ioward state export`: from a daemon, and from the folder of one that does not run.

use std::fs;

use ioward_store::Store;
use serde_json::{Value, json};

use crate::support::{Daemon, Folder, ioward, run};

#[test]
fn the_daemon_is_asked_and_what_it_keeps_is_printed() {
    let kept = json!({
        "schema": 2, "state": {"revision": 3, "adapters": {}, "partitions": {}}, "plans": [], "operations": [], "audit": []
    });
    let printed = Daemon::with("200 OK", kept.clone()).run(&["state", "export"]);
    assert_eq!(serde_json::from_str::<Value>(&printed.stdout).unwrap(), kept, "{}", printed.stderr);
    assert!(printed.stdout.starts_with("{\n  \"schema\": 2,\n"), "{}", printed.stdout);
}

#[test]
fn without_a_daemon_its_folder_is_read() {
    let folder = Folder::new();
    let (socket, state) = (folder.path().join("api.sock"), folder.path().join("state"));
    let none = run(&mut ioward(&socket, &["state", "export"]));
    assert_eq!(none.status, 1);
    assert!(
        none.stderr.ends_with("start it with: ioward serve; or read its folder with --state-dir\n"),
        "{}",
        none.stderr
    );

    let arguments = ["state", "export", "--state-dir", state.to_str().unwrap()];
    let (store, _) = ioward_store::open(&state).unwrap();
    store.commit(&[ioward_store::Change::Row(ioward_model::Row::Revision(7))]).unwrap();
    let locked = run(&mut ioward(&socket, &arguments));
    let expected = format!("ioward: a daemon works on {}; ask it: leave --state-dir out\n", state.display());
    assert_eq!((locked.status, locked.stderr, locked.stdout), (1, expected, String::new()));
    drop(store);

    let printed: Value = serde_json::from_str(&run(&mut ioward(&socket, &arguments)).stdout).unwrap();
    assert_eq!(printed["state"]["revision"], 7);

    let file = state.join("state.redb");
    let half = fs::read(&file).unwrap()[..40_000].to_vec();
    fs::write(&file, &half).unwrap();
    let damaged = run(&mut ioward(&socket, &arguments));
    assert!(damaged.status == 1 && damaged.stderr.contains("state.redb is damaged ("), "{}", damaged.stderr);
    assert!(fs::read(&file).unwrap() == half);
}
