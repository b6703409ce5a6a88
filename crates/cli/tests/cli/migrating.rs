//! `ioward migrate` between two embedded machines, each with a daemon of its own.

use serde_json::Value;

use crate::served::Served;

const WEB: &str = r#"version = 1
[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network", pf = "0000:01:00.0", vlan = 5 }]
"#;

fn state(served: &Served) -> Value {
    let exported: Value = serde_json::from_str(&served.run(&["state", "export"]).stdout).unwrap();
    exported["state"].clone()
}

#[test]
fn a_machine_moves_to_another_host_with_what_is_asked_for_its_vfs_and_back() {
    let (here, there) = (Served::start(WEB), Served::start("version = 1\n"));
    let to = there.socket();
    let to = to.to_str().unwrap();
    let shown = here.run(&["migrate", "web", "--to", to, "--dry-run"]);
    assert!(shown.stdout.contains("net0"), "{}{}", shown.stdout, shown.stderr);
    let unasked = here.run(&["migrate", "web", "--to", to]);
    assert!(unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    assert!(state(&here)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);

    let moved = here.run(&["migrate", "web", "--to", to, "--yes"]);
    assert_eq!(moved.status, 0, "{}{}", moved.stdout, moved.stderr);
    assert!(moved.stdout.contains("web runs on the other host"), "{}", moved.stdout);
    let (left, came) = (state(&here), state(&there));
    assert!(left["partitions"].as_object().unwrap().is_empty() && left.get("moves").is_none(), "{left}");
    let web = &came["partitions"]["web"];
    assert!(web["running"] == true && web["vfs"]["net0"]["attached"] == true, "{came}");
    assert_eq!(web["vfs"]["net0"]["settings"]["vlan"], 5);
    assert!(there.run(&["partitions"]).stdout.contains("running"));

    let back = there.run(&["migrate", "web", "--to", here.socket().to_str().unwrap(), "--yes", "--json"]);
    let said: Value = serde_json::from_str(back.stdout.lines().last().unwrap()).unwrap();
    assert!(said["moved"] == true && said["partition"] == "web", "{said}");
    assert!(here.run(&["partitions"]).stdout.contains("running"));
}

#[test]
fn a_host_that_can_not_take_it_in_is_told_before_anything_is_done() {
    let (here, full) = (Served::start(WEB), Served::start(WEB));
    let to = full.socket();
    let refused = here.run(&["migrate", "web", "--to", to.to_str().unwrap(), "--yes"]);
    assert!(
        refused.status != 0 && refused.stderr.contains("has a partition web already"),
        "{}",
        refused.stderr
    );
    assert!(state(&here)["partitions"]["web"]["vfs"]["net0"]["attached"] == true);
    let nobody = here.run(&["migrate", "web", "--to", "/nowhere.sock", "--yes"]);
    assert!(nobody.stderr.contains("/nowhere.sock"), "{}", nobody.stderr);
    let unknown = here.run(&["migrate", "db", "--to", to.to_str().unwrap(), "--yes"]);
    assert!(unknown.stderr.contains("there is no partition db"), "{}", unknown.stderr);
    let nothing = here.run(&["migrate", "web", "--accept"]);
    assert!(
        nothing.status != 0 && nothing.stderr.contains("waits for its source's word"),
        "{}",
        nothing.stderr
    );
}
