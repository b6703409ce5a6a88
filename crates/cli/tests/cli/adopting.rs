//! `ioward adopt` and `ioward release`: what is shown and asked, and the Spec that comes of it.

use serde_json::{Value, json};

use crate::support::{BEGIN, Daemon, Folder, data};

const DONE: &str = "{\"number\":4,\"time_ms\":0,\"event\":\"plan-done\",\"plan\":3}\n";

const SPEC: &str = r#"version = 1

[[adapter]]
pf = "0000:01:00.0"
vfs = 4

[[partition]]
name = "shop"
libvirt = "web"

[[partition.vf]]
name = "net0"
class = "network"
pf = "0000:01:00.0"
mac = "52:54:00:aa:00:01"
"#;

fn assignment() -> Value {
    json!({"vf": {"pf": "0000:01:00.0", "index": 1}, "address": null, "settings": {}, "original_settings": {}, "attached": false})
}

fn partition() -> Value {
    json!({"name": "shop", "libvirt": "web", "vf": [{"name": "net0", "class": "network", "pf": "0000:01:00.0",
        "mac": "52:54:00:aa:00:01"}]})
}

fn plan_of(intent: Value, steps: Value) -> Value {
    let mut plan = data("plan.json");
    (plan["intent"], plan["steps"], plan["disturbs"]) = (intent, steps, json!([]));
    plan
}

fn adopting() -> Value {
    let original = json!({"num_vfs": 4, "autoprobe": false});
    let vf = json!({"pf": "0000:01:00.0", "index": 1});
    let mut plan = plan_of(
        json!({"intent": "adopt", "domain": "web", "partition": "shop"}),
        json!([
            {"step": "hold-adapter", "pf": "0000:01:00.0", "to": {"original": original, "wanted": 4}, "from": null},
            {"step": "define-partition", "to": partition(), "from": null},
            {"step": "assign", "owner": "shop/net0", "to": assignment()},
            {"step": "adopt-vf", "owner": "shop/net0", "vf": vf},
        ]),
    );
    plan["left_out"] = json!([{"rule": "domain", "function": "0000:01:10.4", "required": "a <hostdev managed='no'>",
        "found": "it is managed='yes'"}]);
    plan
}

fn releasing() -> Value {
    plan_of(
        json!({"intent": "release", "partition": "shop"}),
        json!([
            {"step": "release-vf", "owner": "shop/net0", "vf": {"pf": "0000:01:00.0", "index": 1}},
            {"step": "destroy-channel", "partition": "shop"},
            {"step": "unassign", "owner": "shop/net0", "from": assignment()},
            {"step": "undefine-partition", "from": partition()},
            {"step": "release-adapter", "pf": "0000:01:00.0", "from": {"original": {"num_vfs": 4, "autoprobe": false}, "wanted": 4}},
        ]),
    )
}

#[test]
fn a_domain_is_shown_as_it_is_taken_over_and_its_spec_is_written() {
    let (daemon, folder) = (Daemon::planning(adopting(), DONE), Folder::new());
    let file = folder.path().join("web.toml");
    let run = daemon.run(&["adopt", "web", "--name", "shop", "-o", file.to_str().unwrap(), "--yes"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.ends_with(&format!("\n{SPEC}")), "{}", run.stdout);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), SPEC);
    let asked = &daemon.requests()[0].body;
    assert_eq!(
        (&asked["intent"], &asked["domain"], &asked["partition"]),
        (&json!("adopt"), &json!("web"), &json!("shop"))
    );

    let shown = daemon.run(&["adopt", "web", "--dry-run"]).stdout;
    let expected = "
functions
  ~ 0000:01:00.0: asked for 4
  + VF 1 of 0000:01:00.0: to shop/net0, stays as it is

partitions
  + shop: domain web
      + net0: VF 1 of 0000:01:00.0, stays as it is

left out, and left alone
  0000:01:10.4: required a <hostdev managed='no'>; found it is managed='yes'

disturbs nobody
";
    assert!(shown.contains(expected), "{shown}");
    let json = daemon.run(&["adopt", "web", "--yes", "--json"]);
    assert_eq!((json.status, json.stdout.as_str()), (0, DONE), "stdout is for events alone");
}

#[test]
fn what_becomes_of_a_domain_that_is_forgotten_is_said() {
    let daemon = Daemon::planning(releasing(), DONE);
    let shown = daemon.run(&["release", "shop", "--dry-run"]).stdout;
    let expected = "
functions
  ~ 0000:01:00.0: forgotten, with its VFs as they are
  - VF 1 of 0000:01:00.0: from shop/net0, stays as it is

partitions
  - shop: loses its channel, is forgotten, and domain web stays as it is
      - net0: VF 1 of 0000:01:00.0, stays as it is
";
    assert!(shown.contains(expected), "{shown}");
    let run = daemon.run(&["release", "shop", "--yes"]);
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert_eq!(daemon.requests()[1].body["intent"], "release");
}

/// Neither disturbs anybody, and both are asked about.
#[test]
fn without_anybody_to_ask_it_takes_a_yes() {
    for (plan, command) in [(adopting(), "adopt"), (releasing(), "release")] {
        let daemon = Daemon::planning(plan, DONE);
        let run = daemon.run(&[command, "web"]);
        assert!(run.status == 3 && run.stderr.contains("--yes"), "{}: {}", run.status, run.stderr);
        assert!(!daemon.requests().iter().any(|request| request.route == BEGIN));
    }
}
