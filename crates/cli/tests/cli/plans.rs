//! Reading plans and refusals, by people and by programs.

use serde_json::{Value, json};

use crate::support::{Daemon, Folder, GOOD_SPEC, data, error, ioward, run, send};

/// A refusal of `GOOD_SPEC`: of a key that it has, of a request, of an adapter that it does not name.
fn refusal() -> Value {
    let mut refusal = error(
        "refused",
        "refused: rules are not met",
        json!([
            {"rule": "mac-unique", "request": "web/net0", "key": "mac", "required": "one user", "found": "two"},
            {"rule": "vf-free", "request": "web/net0", "required": "a free VF", "found": "none"},
            {"rule": "iommu", "function": "0000:02:00.0", "required": "an IOMMU", "found": "none"},
        ]),
    );
    refusal["error"]["ways"] =
        json!([{"gives": [{"relaxation": "give-up-vf", "partition": "db", "pf": "0000:02:00.0"}]}]);
    refusal
}

const TOLD: &str = "\
ioward: refused: rules are not met
  web.toml: line 12: partition[0].vf[0].mac: mac-unique: web/net0: required one user; found two
  web.toml: line 9: partition[0].vf[0]: vf-free: web/net0: required a free VF; found none
  iommu: 0000:02:00.0: required an IOMMU; found none
  possible if db gives up one VF of 0000:02:00.0
";

#[test]
fn a_plan_says_what_decided_and_lists_its_steps_when_asked() {
    let (daemon, folder) = (Daemon::with("200 OK", data("plan.json")), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    let plan = |more: &[&str]| daemon.run(&[&["plan", "-f", spec.to_str().unwrap()], more].concat());
    let short = plan(&[]).stdout;
    assert!(
        short.contains("\n  + VF 0 of 0000:01:00.0: to web/net0, mac=52:54:00:aa:00:01, vlan=100\n"),
        "{short}"
    );
    assert!(!short.contains("\nwhy\n") && !short.contains("\nsteps\n"), "{short}");
    let explained = plan(&["--explain"]).stdout;
    assert!(
        explained.contains("\nwhy\n  web/net0: VF 0 of 0000:01:00.0 over 0000:02:00.0: it has the lower"),
        "{explained}"
    );
    let steps = plan(&["--steps"]).stdout;
    assert!(steps.contains("\nsteps\n   1. set the number of VFs of 0000:01:00.0 from 0 to 2\n"), "{steps}");
    let value: Value = serde_json::from_str(&plan(&["--json"]).stdout).unwrap();
    assert_eq!(
        (&value["placements"], &value["instead"]),
        (&data("plan.json")["placements"], &data("plan.json")["instead"])
    );
    assert_eq!(plan(&["--json", "--explain"]).status, 2, "it is all there");
}

#[test]
fn a_refusal_names_file_line_and_key_and_then_the_ways() {
    let (daemon, folder) = (Daemon::with("409 Conflict", refusal()), Folder::new());
    folder.file("web.toml", GOOD_SPEC);
    for command in [
        &["plan", "-f", "web.toml"][..],
        &["apply", "-f", "web.toml"],
        &["compatible", "web", "-f", "web.toml"],
    ] {
        let refused = run(ioward(&daemon.socket(), command).current_dir(folder.path()));
        assert_eq!(
            (refused.status, refused.stdout.as_str(), refused.stderr.as_str()),
            (3, "", TOLD),
            "{command:?}"
        );
    }
}

#[test]
fn a_program_reads_a_refusal_as_data_on_stdout() {
    let (daemon, folder) = (Daemon::with("409 Conflict", refusal()), Folder::new());
    folder.file("web.toml", GOOD_SPEC);
    let mut expected = refusal();
    expected["error"]["reasons"][0]["at"] =
        json!({"file": "web.toml", "line": 12, "key": "partition[0].vf[0].mac"});
    expected["error"]["reasons"][1]["at"] =
        json!({"file": "web.toml", "line": 9, "key": "partition[0].vf[0]"});
    for command in [&["plan", "--json", "-f", "web.toml"][..], &["apply", "--json", "-f", "web.toml"]] {
        let refused = run(ioward(&daemon.socket(), command).current_dir(folder.path()));
        assert_eq!((refused.status, refused.stderr.as_str()), (3, TOLD));
        assert_eq!(refused.stdout.lines().count(), 1, "a line, as events are");
        assert_eq!(serde_json::from_str::<Value>(&refused.stdout).unwrap(), expected);
    }
    let refused = daemon.run(&["assign", "web", "--class", "network", "--json"]);
    let body: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!((refused.status, body), (3, refusal()), "there is no file to name");

    folder.file("web.toml", GOOD_SPEC.replace("vlan  = 100", "vlan  = 4095"));
    let invalid =
        run(ioward(&daemon.socket(), &["plan", "--json", "-f", "web.toml"]).current_dir(folder.path()));
    let body: Value = serde_json::from_str(&invalid.stdout).unwrap();
    assert_eq!((invalid.status, &body["error"]["kind"]), (2, &json!("invalid")));
    assert!(
        body["error"]["message"].as_str().unwrap().starts_with("web.toml: line 13, column 9: "),
        "{body}"
    );
}

#[test]
fn a_stale_plan_has_no_place_in_a_spec() {
    let reason =
        json!({"rule": "plan-current", "required": "a plan for what is there now", "found": "revision 3"});
    let body = error("refused", "refused: a rule is not met", json!([reason]));
    let daemon = Daemon::new(move |request, stream| match request.route.as_str() {
        "POST /v1/plan" => send(stream, "200 OK", &data("plan.json").to_string()),
        _ => send(stream, "409 Conflict", &body.to_string()),
    });
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let refused = daemon.run(&["apply", "--yes", "-f", spec.to_str().unwrap()]);
    assert!(
        refused
            .stderr
            .ends_with("\n  plan-current: required a plan for what is there now; found revision 3\n"),
        "{}",
        refused.stderr
    );
}
