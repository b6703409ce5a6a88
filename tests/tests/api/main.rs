//! The API of a real daemon over the simulated machine, from the side of a client that is not `ioward`: by hand, byte by byte.

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::unwrap_used, clippy::panic)]

mod changes;
mod events;
mod pages;
mod problems;
mod roles;
mod support;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
};

use ioward_model::{Outcome, State, Step};
use serde_json::{Value, json};
use support::{Daemon, NIC};

/// A VF to attach is checked as one of a Spec is: what it lacks is sense, and not permission.
#[test]
fn a_vf_that_makes_no_sense_is_invalid_and_not_refused() {
    let mut state = State::default();
    let web = serde_json::from_value(json!({"name": "web", "boot": {"kernel": "/bin/sh"}})).unwrap();
    state.record(&Step::DefinePartition { from: None, to: web }, &Outcome::default());
    let daemon = Daemon::start_with(state);
    let attach = json!({"intent": "attach", "partition": "web",
        "vfs": [{"name": "net0", "class": "network", "min_tx_rate": "2Gbit", "max_tx_rate": "1Gbit"}]});
    let (status, error) = daemon.json("POST /v1/plan", &attach);
    assert_eq!((status, &error["error"]["kind"]), (400, &json!("invalid")), "{error}");
    assert_eq!(error["error"]["reasons"][0]["rule"], "spec-valid", "{error}");
}

/// A plan is what the planner makes of a wish, and not what a client says it is.
#[test]
fn steps_that_a_client_has_made_up_are_not_carried_out() {
    let daemon = Daemon::start();
    let before = daemon.view();
    let wish = json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": NIC, "vfs": 2}]}});
    let (status, plan) = daemon.json("POST /v1/plan", &wish);
    assert_eq!(status, 200, "{plan}");
    let changes: [&dyn Fn(&mut Value); 3] = [
        &|plan| {
            plan["steps"].as_array_mut().unwrap().pop();
        },
        &|plan| {
            let more = json!({"step": "bind-driver", "vf": {"pf": NIC, "index": 0}, "to": "vfio-pci"});
            plan["steps"].as_array_mut().unwrap().push(more);
        },
        &|plan| plan["intent"]["spec"]["adapter"][0]["vfs"] = json!(3),
    ];
    for change in changes {
        let mut forged = plan.clone();
        change(&mut forged);
        let (status, error) = daemon.json("POST /v1/apply", &json!({"plan": forged}));
        assert_eq!(
            (status, &error["error"]["reasons"][0]["rule"]),
            (409, &json!("plan-current")),
            "{forged}"
        );
        assert_eq!(daemon.view(), before);
    }
    let (status, events) = daemon.ask("POST /v1/apply", &json!({"plan": plan}).to_string());
    assert!(status == 200 && events.trim_end().ends_with(r#""event":"plan-done","plan":1}"#), "{events}");
}

/// The connection that asked for a change used to be its life: whoever lost it lost the change, and nobody else could see it.
#[test]
fn a_change_outlives_the_connection_that_asked_for_it() {
    let daemon = Daemon::start();
    let wish = json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": NIC, "vfs": 2}]}});
    let (_, plan) = daemon.json("POST /v1/plan", &wish);
    let (status, change) = daemon.json("POST /v1/changes", &json!({"plan": plan}));
    assert_eq!((status, &change["intent"], &change["id"]), (201, &json!("apply"), &json!("1-1")), "{change}");
    let (status, events) = daemon.ask("GET /v1/changes/1-1/events", "");
    let kinds: Vec<Value> = events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((status, &kinds[0]["event"]), (200, &json!("plan-started")), "{events}");
    assert_eq!(kinds[kinds.len() - 1]["event"], "plan-done", "the stream ends with the change: {events}");
    let (status, done) = daemon.json("GET /v1/changes/1-1", &json!(null));
    assert_eq!(
        (status, &done["status"], &done["steps_done"]),
        (200, &json!("done"), &done["steps"]),
        "{done}"
    );
    let (status, cancelled) = daemon.json("DELETE /v1/changes/1-1", &json!(null));
    assert_eq!((status, &cancelled["status"]), (200, &json!("done")), "what is done stays done");
    let (_, all) = daemon.json("GET /v1/changes", &json!(null));
    assert_eq!(all, json!([done]));
    let (status, wanted) = daemon.json("GET /v1/spec?wanted=true", &json!(null));
    assert_eq!((status, &wanted["adapter"][0]["vfs"]), (200, &json!(2)), "the Spec last applied: {wanted}");
}

#[test]
fn a_change_that_is_not_there_is_told_with_what_to_do() {
    let daemon = Daemon::start();
    for (route, status, says) in [
        ("GET /v1/changes/1-9", 404, "'ioward changes' lists them"),
        ("DELETE /v1/changes/2-1", 404, "another run of the daemon"),
        ("GET /v1/changes/x/events", 400, "EPOCH-NUMBER"),
    ] {
        let (answered, error) = daemon.ask(route, "");
        assert!(answered == status && error.contains(says), "{route}: {answered} {error}");
    }
}

/// A client follows the events without reading them, and goes on later from what it saw last.
#[test]
fn a_follower_goes_on_from_a_number_and_is_told_what_it_missed() {
    let daemon = Daemon::start();
    let nothing = json!({"intent": "apply", "spec": {"version": 1}});
    let (_, plan) = daemon.json("POST /v1/plan", &nothing);
    let empty = json!({"plan": plan}).to_string();
    let mut silent = UnixStream::connect(&daemon.socket).unwrap();
    silent.write_all(b"GET /v1/events?follow=true HTTP/1.1\r\nhost: ioward\r\n\r\n").unwrap();
    // More than are kept, and far more than fits into a socket: each plan without steps is two events.
    let applies = 5_200;
    for _ in 0..applies {
        let (status, _) = daemon.ask("POST /v1/apply", &empty);
        assert_eq!(status, 200);
    }
    silent.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let (mut seen, mut missed, mut text) = (0, 0, Vec::new());
    while seen < 2 * applies {
        let mut bytes = [0; 65536];
        let length = silent.read(&mut bytes).unwrap();
        assert!(length > 0, "it is not cut off");
        text.extend_from_slice(&bytes[..length]);
        while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = text.drain(..=end).collect();
            // Sizes of chunks stand between the events.
            let Ok(event @ Value::Object(_)) = serde_json::from_slice::<Value>(&line) else { continue };
            let number = event["number"].as_u64().unwrap();
            let count = if event["event"] == "missed" { event["count"].as_u64().unwrap() } else { 1 };
            missed += count - 1;
            assert_eq!(number, seen + count, "{event}");
            seen = number;
        }
    }
    assert!(missed > 0 || seen == 2 * applies);

    let lines = |query: &str| {
        let (status, text) = daemon.ask(&format!("GET /v1/events?{query}"), "");
        assert_eq!(status, 200, "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let last = 2 * applies;
    let after = lines(&format!("since={}&epoch=1", last - 2));
    assert_eq!(
        after.iter().map(|event| event["number"].as_u64().unwrap()).collect::<Vec<_>>(),
        [last - 1, last]
    );
    assert!(lines("since=now").is_empty());
    let first = &lines("since=1")[0];
    assert_eq!((&first["event"], &first["count"]), (&json!("missed"), &json!(last - 10_000 - 1)));
    let other_run = lines("since=1&epoch=7");
    assert_eq!((&other_run[0]["event"], &other_run[0]["epoch"]), (&json!("restarted"), &json!(1)));
    assert_eq!(other_run.len(), 10_001, "all that are kept follow");
    let (status, error) = daemon.ask("GET /v1/events?since=soon", "");
    assert!(status == 400 && error.contains("since"), "{error}");
}

#[test]
fn half_a_request_and_garbage_hold_nobody_up() {
    let daemon = Daemon::start();
    let waiting: Vec<UnixStream> = (0..100)
        .map(|_| {
            let mut stream = UnixStream::connect(&daemon.socket).unwrap();
            stream
                .write_all(b"POST /v1/plan HTTP/1.1\r\ncontent-length: 10\r\ncontent-type: applica")
                .unwrap();
            stream
        })
        .collect();
    let mut garbage = UnixStream::connect(&daemon.socket).unwrap();
    garbage.write_all(&[0xff; 4096]).unwrap();
    let mut answer = Vec::new();
    let _ = garbage.read_to_end(&mut answer);
    let (status, host) = daemon.json("GET /v1/host", &json!(null));
    assert_eq!((status, host["physical_functions"][0]["address"].as_str()), (200, Some(NIC)));
    drop(waiting);
}
