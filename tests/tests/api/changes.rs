//! Changes as resources: begun once however often they are asked for, and only when everything is as it was.

use serde_json::{Value, json};

use crate::{
    problems::is_a_problem,
    support::{Daemon, NIC},
};

fn wish(vfs: u16) -> String {
    json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": NIC, "vfs": vfs}]}}).to_string()
}

fn end_of(daemon: &Daemon, change: &Value) {
    let id = change["id"].as_str().unwrap();
    let (status, events) = daemon.ask(&format!("GET /v1/changes/{id}/events"), "");
    assert!(status == 200 && events.contains("plan-done"), "{events}");
}

#[test]
fn an_intent_is_planned_and_begun_at_once_and_the_change_says_who_asked() {
    let daemon = Daemon::start();
    let answer = daemon.send("POST /v1/changes", "", &wish(2));
    let change = answer.json();
    assert_eq!((answer.status, &change["id"], &change["intent"]), (201, &json!("1-1"), &json!("apply")));
    assert_eq!(answer.header("location"), Some("/v1/changes/1-1"));
    assert_eq!(change["uid"], rustix::process::geteuid().as_raw());
    end_of(&daemon, &change);
    let before = daemon.view();
    for (body, says) in
        [("{}", "missing field `intent`"), (r#"{"plan": {}}"#, "missing field"), ("[]", "invalid type")]
    {
        let answer = daemon.send("POST /v1/changes", "", body);
        is_a_problem(&answer, 400, "invalid");
        assert!(answer.body.contains(says), "{answer:?}");
    }
    assert_eq!(daemon.view(), before);
}

/// A client that has lost its connection does not know whether its request arrived.
#[test]
fn the_same_key_again_is_the_same_change() {
    let daemon = Daemon::start();
    let key = "idempotency-key: 7f3a\r\n";
    let first = daemon.send("POST /v1/changes", key, &wish(2));
    let again = daemon.send("POST /v1/changes", key, &wish(2));
    assert_eq!((first.status, again.status), (201, 200), "{again:?}");
    assert_eq!(first.json()["id"], again.json()["id"]);
    end_of(&daemon, &first.json());
    is_a_problem(&daemon.send("POST /v1/changes", key, &wish(3)), 409, "refused");
    let other = daemon.send("POST /v1/changes", "idempotency-key: 7f3b\r\n", &wish(3));
    assert_eq!(other.status, 201, "{other:?}");
    end_of(&daemon, &other.json());
    for wrong in ["", "a b", &"x".repeat(129)] {
        let answer = daemon.send("POST /v1/changes", &format!("idempotency-key: {wrong}\r\n"), &wish(3));
        is_a_problem(&answer, 400, "invalid");
    }
    // What was refused has begun nothing, and may be asked for again under its key.
    let nothing = json!({"intent": "start", "partition": "web"}).to_string();
    for _ in 0..2 {
        is_a_problem(&daemon.send("POST /v1/changes", "idempotency-key: k\r\n", &nothing), 404, "not-found");
    }
}

#[test]
fn a_change_begins_only_when_everything_is_as_it_was_if_that_is_asked_for() {
    let daemon = Daemon::start();
    let before = daemon.send("GET /v1/spec", "", "").header("etag").unwrap().to_owned();
    let as_it_was = format!("if-match: {before}\r\n");
    let first = daemon.send("POST /v1/changes", &as_it_was, &wish(2));
    assert_eq!(first.status, 201, "{first:?}");
    end_of(&daemon, &first.json());
    is_a_problem(&daemon.send("POST /v1/changes", &as_it_was, &wish(3)), 412, "precondition");
    let now = daemon.send("GET /v1/spec", "", "").header("etag").unwrap().to_owned();
    assert_ne!(now, before);
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let daemon = Daemon::start();
    for route in ["GET /v1/host", "GET /v1/spec"] {
        let first = daemon.send(route, "", "");
        let tag = first.header("etag").unwrap().to_owned();
        let again = daemon.send(route, &format!("if-none-match: \"other\", W/{tag}\r\n"), "");
        assert_eq!(
            (again.status, again.body.as_str(), again.header("etag")),
            (304, "", Some(&*tag)),
            "{route}"
        );
        let change = daemon.send("POST /v1/changes", "", &wish(if route.ends_with("host") { 1 } else { 2 }));
        end_of(&daemon, &change.json());
        let _ = daemon.send("GET /v1/host", "", "");
        let changed = daemon.send(route, &format!("if-none-match: {tag}\r\n"), "");
        assert_eq!(changed.status, 200, "{route}");
        assert_ne!(changed.header("etag"), Some(&*tag));
    }
}
