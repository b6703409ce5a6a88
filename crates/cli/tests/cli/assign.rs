//! `ioward assign`: VFs by flags alone, several in one plan.

use serde_json::{Value, json};

use crate::support::{Daemon, Run, carry_out, data, send};

const DONE: &str = "{\"number\":4,\"time_ms\":0,\"event\":\"plan-done\",\"plan\":3}\n";

/// A daemon that holds `web` with the VFs `net0` and `net2`.
fn daemon() -> Daemon {
    let vf = |name: &str| json!({"name": name, "class": "network", "guest_may": []});
    let web = json!({"name": "web", "cpus": 1, "memory": "512MiB", "boot": {"disk": "/web"}, "vf": [vf("net0"), vf("net2")]});
    let spec = json!({"version": 1, "partition": [web]});
    let mut plan = data("plan.json");
    plan["disturbs"] = json!([]);
    Daemon::new(move |request, stream| match request.route.as_str() {
        "GET /v1/spec" => send(stream, "200 OK", &spec.to_string()),
        "POST /v1/plan" => send(stream, "200 OK", &plan.to_string()),
        _ => carry_out(request, stream, DONE),
    })
}

fn assign(arguments: &str) -> (Run, Vec<Value>) {
    let daemon = daemon();
    let arguments: Vec<_> = ["assign"].into_iter().chain(arguments.split(' ')).collect();
    let run = daemon.run(&arguments);
    let planned = daemon.requests().into_iter().filter(|request| request.route == "POST /v1/plan");
    (run, planned.map(|request| request.body).collect())
}

#[test]
fn several_vfs_are_one_plan_and_take_the_next_free_names() {
    let (run, planned) =
        assign("web --class network --min-link-speed 10G --count 2 --pf 01:00.0 --needs rdma");
    assert_eq!(run.status, 0, "{}", run.stderr);
    assert!(run.stdout.starts_with("plan: ") && run.stdout.ends_with("done: 5 steps\n"), "{}", run.stdout);
    let [plan] = &planned[..] else { panic!("{planned:?}") };
    assert_eq!((&plan["intent"], &plan["partition"]), (&json!("attach"), &json!("web")));
    let vf = |name: &str| {
        json!({"name": name, "class": "network", "min_link_speed": "10Gbit", "needs": ["rdma"],
            "pf": "0000:01:00.0", "guest_may": {}})
    };
    assert_eq!(plan["vfs"], json!([vf("net1"), vf("net3")]));
}

#[test]
fn names_follow_the_class_or_what_is_asked_for() {
    for (arguments, names) in [
        ("web --yes --class nvme", json!(["disk0"])),
        ("web --yes --class display", json!(["gpu0"])),
        ("web --yes --class accelerator", json!(["accel0"])),
        ("web --yes --class other", json!(["vf0"])),
        ("web --yes --class network --name uplink --count 2", json!(["uplink0", "uplink1"])),
        // The planner says that there is no such partition.
        ("nobody --yes --class network", json!(["net0"])),
    ] {
        let (run, planned) = assign(arguments);
        assert_eq!(run.status, 0, "{}", run.stderr);
        let vfs = planned[0]["vfs"].as_array().unwrap().iter().map(|vf| vf["name"].clone());
        assert_eq!(vfs.collect::<Value>(), names, "{arguments}");
    }
}

#[test]
fn what_is_allowed_and_events_as_data_go_as_with_apply() {
    let (run, planned) = assign("web --class network --allow-disruption --json");
    assert_eq!((run.status, run.stdout.as_str()), (0, DONE));
    assert!(run.stderr.starts_with("plan: "), "{}", run.stderr);
    assert_eq!(planned[0]["options"]["allow_disruption"], json!(true));
}

#[test]
fn what_makes_no_sense_never_becomes_a_plan() {
    for (arguments, message) in [
        ("web --class network --count 0", "0 is not in 1..=256"),
        ("web --class network --count 257", "257 is not in 1..=256"),
        ("web --class network --count two", "invalid value 'two'"),
        ("web --count 2", "--class"),
        ("web --class network --name 9", "'9' is no name"),
        ("web --class network --mac 52:54:00:aa:00:01 --count 2", "--mac is of one VF only; leave it out"),
        ("web --class network --pf 01:00.0 --index 0 --count 2", "--index is of one VF only"),
    ] {
        let (run, planned) = assign(arguments);
        assert_eq!((run.status, planned.len()), (2, 0), "{arguments}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{arguments}: {}", run.stderr);
    }
    let (run, planned) = assign(&format!("web --class network --name {}", "x".repeat(40)));
    assert_eq!((run.status, planned.len()), (2, 0), "{}", run.stderr);
}
