//! `ioward evacuate` and `ioward return` on the embedded machine, under a partition that runs.

use serde_json::{Value, json};

use crate::served::Served;

const NIC: &str = "0000:01:00.0";

/// A partition that runs, pinned to the first adapter.
fn served() -> Served {
    Served::start(
        r#"version = 1
[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network", pf = "0000:01:00.0", vlan = 5 }]
"#,
    )
}

fn pf(served: &Served) -> Value {
    let host = served.ask("GET /v1/host", &Value::Null);
    host["physical_functions"].as_array().unwrap().iter().find(|pf| pf["address"] == NIC).unwrap().clone()
}

fn held(served: &Served) -> Value {
    let exported: Value = serde_json::from_str(&served.run(&["state", "export"]).stdout).unwrap();
    exported["state"]["partitions"]["web"]["vfs"]["net0"].clone()
}

#[test]
fn an_adapter_is_emptied_under_a_partition_that_runs_and_returns() {
    let served = served();
    assert_eq!(held(&served)["vf"]["pf"], NIC);

    let refused = served.run(&["evacuate", NIC, "--yes"]);
    assert_eq!(refused.status, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("web loses net0 for VF"), "{}", refused.stderr);
    assert_eq!(pf(&served)["out_of_service"], Value::Null);

    let shown = served.run(&["evacuate", NIC, "--allow-disruption", "--dry-run"]);
    assert!(shown.stdout.contains("0000:01:00.0: out of service"), "{}", shown.stdout);

    let done = served.run(&["evacuate", NIC, "--allow-disruption", "--yes"]);
    assert_eq!(done.status, 0, "{}", done.stderr);
    let found = pf(&served);
    assert_eq!(found["out_of_service"]["why"], "evacuated");
    assert!(found["out_of_service"]["since_ms"].as_u64().unwrap() > 1_700_000_000_000, "{found}");
    assert_eq!((&found["sriov"]["num_vfs"], &found["vfs_available"]), (&json!(0), &json!(0)));
    let web = held(&served);
    assert!(web["vf"]["pf"] != NIC && web["attached"] == true && web["settings"]["vlan"] == 5, "{web}");
    let host = served.run(&["host"]).stdout;
    assert!(host.contains("gives no VFs to partitions: it was taken out of service"), "{host}");
    assert!(served.run(&["partitions"]).stdout.contains("running"));
    let findings = served.ask("GET /v1/doctor", &Value::Null)["findings"].clone();
    let finding = findings.as_array().unwrap().iter().find(|finding| finding["function"] == NIC).unwrap();
    assert_eq!(finding["verdict"], "warning", "{finding}");
    assert_eq!(finding["remedy"], "ioward return 0000:01:00.0");
    // Nobody gets a VF of it.
    let attached = served.run(&["attach", "web", "net1", "--class", "network", "--pf", NIC]);
    assert_eq!(attached.status, 3);
    assert!(
        attached.stderr.contains("in-service") && attached.stderr.contains("ioward return"),
        "{}",
        attached.stderr
    );

    let returned = served.run(&["return", NIC]);
    assert_eq!((returned.status, returned.stderr.as_str()), (0, ""));
    assert!(returned.stdout.contains("nothing moves back by itself"), "{}", returned.stdout);
    let found = pf(&served);
    assert!(found["out_of_service"] == Value::Null && found["vfs_available"].as_u64() > Some(0), "{found}");
    assert_ne!(held(&served)["vf"]["pf"], NIC);
    let again = served.run(&["return", NIC]).stdout;
    assert!(again.contains("nothing to do"), "{again}");
}

#[test]
fn a_host_is_emptied_and_what_was_stopped_keeps_its_vfs() {
    let served = served();
    let shown = served.run(&["evacuate", "--host", "--dry-run"]);
    assert!(shown.stdout.contains("~ web: is stopped"), "{}", shown.stdout);
    let unasked = served.run(&["evacuate", "--host"]);
    assert!(unasked.status != 0 && unasked.stderr.contains("--yes"), "{}", unasked.stderr);
    let done = served.run(&["evacuate", "--host", "--yes"]);
    assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    assert!(served.run(&["partitions"]).stdout.contains("stopped"));
    assert_eq!((&held(&served)["vf"]["pf"], &held(&served)["attached"]), (&json!(NIC), &json!(true)));
    assert!(served.run(&["evacuate", "--host"]).stdout.contains("nothing to do"));
    assert_eq!(served.run(&["start", "web"]).status, 0);
    let neither = served.run(&["evacuate"]);
    assert!(neither.stderr.contains("--host"), "{}", neither.stderr);
    assert_ne!(served.run(&["evacuate", NIC, "--host"]).status, 0);
}
