//! The API of a real daemon over the simulated machine, from the side of a client that is not `ioward`: by hand, byte by byte.

// Helpers of tests are tests too, which the lints do not see.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ioward_fabric::sim::{MachineView, SimMachine};
use ioward_hypervisor::{
    Guard,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{Imp, Run, serve_on};
use ioward_model::{Outcome, State, Step};
use ioward_store::Contents;
use ioward_tests::level1::wait_until;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// A NIC of the standard machine, with 7 VFs to give.
const NIC: &str = "0000:01:00.0";

/// How long anything is waited for that never takes a tenth of this: a failure must not become a hang.
const GIVES_UP_AFTER: Duration = Duration::from_secs(60);

/// A daemon, for as long as it is not dropped.
struct Daemon {
    machine: SimMachine,
    socket: PathBuf,
    /// Runs the daemon.
    _runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        Self::start_with(State::default())
    }

    fn start_with(state: State) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = SimMachine::standard(1);
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            // No partition is started here.
            program: "/nonexistent".into(),
            arguments: Vec::new(),
            bounds: Bounds::default(),
        };
        let runtime = Runtime::new().unwrap();
        let socket = folder.path().join("api.sock");
        let guard = runtime.enter();
        let looked_at = machine.clone();
        let hypervisor = Arc::new(SimHypervisor::new(config).unwrap());
        let hypervisor = Arc::new(Guard::new(hypervisor, move |function| Ok(looked_at.facts(function))));
        let (store, contents) = ioward_store::open(&folder.path().join("state")).unwrap();
        let contents = Contents { state, ..contents };
        let run = Run { epoch: 1, boot: String::new() };
        let imp = Imp::new(Arc::new(machine.fabric()), hypervisor, Box::new(store), contents, run);
        let at = socket.clone();
        runtime.spawn(async move { serve_on(&at, imp, std::future::pending()).await.unwrap() });
        drop(guard);
        wait_until("the daemon listens", GIVES_UP_AFTER, || UnixStream::connect(&socket).is_ok()).unwrap();
        Self { machine, socket, _runtime: runtime, _folder: folder }
    }

    fn view(&self) -> MachineView {
        self.machine.snapshot()
    }

    /// Sends a request; the status and the body of the answer.
    fn ask(&self, route: &str, body: &str) -> (u16, String) {
        ask_as(&self.socket, route, "application/json", body)
    }

    fn json(&self, route: &str, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask(route, &body.to_string());
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{route}: {error}: {body}")))
    }
}

fn ask_as(socket: &Path, route: &str, content_type: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(GIVES_UP_AFTER)).unwrap();
    let head = format!(
        "{route} HTTP/1.1\r\nhost: ioward\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A body that is too long is not read to its end.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) =
        answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{route}: no answer: {answer}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    (status, if chunked { without_chunks(body) } else { body.to_owned() })
}

/// The content of a chunked body (RFC 9112 §7.1).
fn without_chunks(mut body: &str) -> String {
    let mut content = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        content += &rest[..length];
        body = rest[length..].trim_start_matches("\r\n");
    }
    content
}

fn spec_with(change: impl FnOnce(&mut Value)) -> String {
    let mut spec = json!({"version": 1, "adapter": [{"pf": NIC, "vfs": 2}], "partition": [{
        "name": "web", "cpus": 1, "memory": "64MiB", "boot": {"kernel": "/bin/sh"},
        "vf": [{"name": "net0", "class": "network", "mac": "52:54:00:aa:00:01"}]}]});
    change(&mut spec);
    json!({"intent": "apply", "spec": spec}).to_string()
}

/// docs/api.md, "Errors": every answer that is no success says what kind of no it is and why.
#[test]
fn what_makes_no_sense_is_told_so_and_changes_nothing() {
    let daemon = Daemon::start();
    let before = daemon.view();
    let tells = |route: &str, body: &str, status: u16, kind: &str, says: &str| {
        let (answered, error) = daemon.ask(route, body);
        assert_eq!(answered, status, "{route} {body}: {error}");
        let error: Value = serde_json::from_str(&error).unwrap_or_else(|_| panic!("{route} {body}: {error}"));
        assert_eq!(error["error"]["kind"], kind, "{route} {body}: {error}");
        assert!(error.to_string().contains(says), "{route} {body}: {error}");
    };
    tells("GET /v1/hots", "", 404, "not-found", "docs/api.md lists those there are");
    tells("DELETE /v1/host", "", 404, "not-found", "docs/api.md lists those there are");
    tells("GET /v1/events?follow=maybe", "", 400, "invalid", "follow");
    tells("POST /v1/apply", r#"{"plan": {}}"#, 400, "invalid", "missing field");
    tells("POST /v1/compatible", "{}", 400, "invalid", "missing field");
    tells(
        "POST /v1/plan",
        r#"{"intent": "start", "partition": "nobody"}"#,
        404,
        "not-found",
        "partition-exists",
    );

    let good = spec_with(|_| {});
    let vf = |key: &str, value: Value| spec_with(|spec| spec["partition"][0]["vf"][0][key] = value);
    let twice = spec_with(|spec| {
        let partition = spec["partition"][0].clone();
        spec["partition"].as_array_mut().unwrap().push(partition);
    });
    let wrong_plans = [
        (String::new(), "EOF"),
        ("\0\u{1}".to_owned(), "expected value"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        ("[]".to_owned(), "invalid type"),
        (r#"{"intent": "burn"}"#.to_owned(), "unknown variant `burn`"),
        (" ".repeat((16 << 20) + 1), "length limit exceeded"),
        (spec_with(|spec| spec["version"] = json!(2)), "Specs of version 1; found 2"),
        (vf("memroy", json!(1)), "unknown field `memroy`"),
        (vf("vlan", json!(4095)), "'4095' is no VLAN"),
        (vf("mac", json!("52:54:00")), "is no MAC address"),
        (vf("mac", json!("01:00:5e:00:00:01")), "multicast"),
        (vf("name", json!("../net0")), "is no name"),
        (twice, "'web' is already the name of partition[0]"),
    ];
    for (body, says) in wrong_plans {
        tells("POST /v1/plan", &body, 400, "invalid", says);
    }
    let (status, error) = ask_as(&daemon.socket, "POST /v1/plan", "text/plain", &good);
    assert!(status == 400 && error.contains("application/json"), "{status}: {error}");
    assert_eq!(daemon.view(), before);
}

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
