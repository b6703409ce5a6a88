//! Whatever is wrong with a request is told as problem details (RFC 9457).

use ioward_api::ErrorKind;
use serde_json::{Value, json};

use crate::support::{Answer, Daemon, send, spec_with};

/// An answer is problem details of this kind, whose members say the same.
pub(crate) fn is_a_problem(answer: &Answer, status: u16, kind: &str) {
    let problem = answer.json();
    assert_eq!((answer.status, problem["error"]["kind"].as_str()), (status, Some(kind)), "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
    assert_eq!(problem["type"], json!(format!("urn:ioward:problem:{kind}")));
    assert_eq!((&problem["status"], &problem["detail"]), (&json!(status), &problem["error"]["message"]));
    let of_kind = ErrorKind::ALL.into_iter().find(|it| it.word() == kind).unwrap();
    assert_eq!(problem["title"], of_kind.title());
}

/// docs/api.md, "Errors": every answer that is no success says what kind of no it is and why.
#[test]
fn what_makes_no_sense_is_told_so_and_changes_nothing() {
    let daemon = Daemon::start();
    let before = daemon.view();
    let tells = |route: &str, body: &str, status: u16, kind: &str, says: &str| {
        let answer = daemon.send(route, "", body);
        is_a_problem(&answer, status, kind);
        assert!(answer.body.contains(says), "{route} {body}: {answer:?}");
    };
    tells("GET /v1/hots", "", 404, "not-found", "docs/api.md lists those there are");
    tells("DELETE /v1/host", "", 405, "method", "docs/api.md what they do");
    let allowed = daemon.send("DELETE /v1/changes", "", "").header("allow").unwrap().to_owned();
    assert!(["GET", "HEAD", "POST"].iter().all(|method| allowed.contains(method)), "{allowed}");
    tells("GET /v1/changes/%ff", "", 400, "invalid", "UTF-8");
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
        (format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)), "invalid type"),
        (format!(r#"{{"intent": {}1"#, "[".repeat(10_000)), "recursion limit"),
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
    tells("POST /v1/plan", &" ".repeat((16 << 20) + 1), 413, "too-large", "length limit exceeded");
    let answer = send(&daemon.socket, "POST /v1/plan", "content-type: text/plain\r\n", &good);
    is_a_problem(&answer, 415, "unsupported");
    assert!(answer.body.contains("application/json"), "{answer:?}");
    assert_eq!(daemon.view(), before);
}
