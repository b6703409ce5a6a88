//! The binary: its output, and its exit status.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod imp;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Output, Stdio},
};

use imp::{Imp, view};
use ioward_agent::Notice;
use ioward_channel::ImpMessage;
use ioward_model::{OpError, OpErrorKind, OpOutcome, VfOp, VfStatistics, VfView};

fn command(port: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ioward-agent"));
    command.arg("--port").arg(port).args(arguments);
    command
}

/// Runs it; returns standard output, standard error and the exit status.
fn run(port: &Path, arguments: &[&str]) -> (String, String, i32) {
    let Output { status, stdout, stderr } = command(port, arguments).output().unwrap();
    (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap(), status.code().unwrap())
}

#[test]
fn list_prints_a_table_or_json() {
    let answer = |_| Ok(OpOutcome::Vfs(vec![view("net0")]));
    let (out, err, status) = run(Imp::answers(answer).port(), &["vf", "list"]);
    assert_eq!((err.as_str(), status), ("", 0));
    assert_eq!(out.lines().count(), 2);
    assert!(out.starts_with("NAME") && out.contains("52:54:00:aa:00:01"), "{out}");

    let (out, _, status) = run(Imp::answers(answer).port(), &["vf", "list", "--json"]);
    assert_eq!(status, 0);
    assert_eq!(serde_json::from_str::<Vec<VfView>>(&out).unwrap(), [view("net0")]);
}

#[test]
fn set_sends_what_is_written_and_prints_the_vf_afterwards() {
    let imp = Imp::answers(|op| {
        let VfOp::Set { vf, change } = op else { unreachable!() };
        assert_eq!(vf.as_str(), "net0");
        let described = change.describe();
        assert_eq!(
            described,
            [("mac", "52:54:00:aa:00:09".to_owned()), ("max_tx_rate", "500Mbit".to_owned())]
        );
        Ok(OpOutcome::Vf(view("net0")))
    });
    let arguments = ["vf", "set", "net0", "mac=52:54:00:aa:00:09", "max_tx_rate=500Mbit"];
    let (out, err, status) = run(imp.port(), &arguments);
    assert_eq!((err.as_str(), status), ("", 0));
    assert!(out.starts_with("net0: network VF, 0000:01:10.0 on the host\n"), "{out}");
    imp.ended();
}

#[test]
fn get_reset_and_stats_answer_in_json_too() {
    let (out, _, _) =
        run(Imp::answers(|_| Ok(OpOutcome::Vf(view("net0")))).port(), &["--json", "vf", "get", "net0"]);
    assert_eq!(serde_json::from_str::<VfView>(&out).unwrap(), view("net0"));
    let (out, _, _) = run(Imp::answers(|_| Ok(OpOutcome::Done)).port(), &["vf", "reset", "net0", "--json"]);
    assert_eq!(out, "{\"reset\":true,\"vf\":\"net0\"}\n");
    let counters = VfStatistics { rx_packets: 3, ..VfStatistics::default() };
    let imp = Imp::answers(move |_| Ok(OpOutcome::Stats(counters)));
    let (out, _, _) = run(imp.port(), &["vf", "stats", "net0", "--json"]);
    assert_eq!(serde_json::from_str::<VfStatistics>(&out).unwrap(), counters);
}

#[test]
fn the_exit_status_tells_failures_from_refusals() {
    for (kind, expected) in [
        (OpErrorKind::Denied, 3),
        (OpErrorKind::Invalid, 2),
        (OpErrorKind::NoSuchVf, 1),
        (OpErrorKind::Failed, 1),
        (OpErrorKind::Busy, 1),
    ] {
        let message = "net0: vlan is not in guest_may of this VF; ask the host's administrator";
        let imp = Imp::answers(move |_| Err(OpError::new(kind, message)));
        let (out, err, status) = run(imp.port(), &["vf", "set", "net0", "vlan=5"]);
        assert_eq!(
            (out.as_str(), err, status),
            ("", format!("ioward-agent: {message}\n"), expected),
            "{kind:?}"
        );
    }
}

#[test]
fn wrong_usage_is_2_and_sends_no_request() {
    for arguments in [
        &["vf"][..],
        &["vf", "frobnicate"],
        &["vf", "get"],
        &["vf", "get", "../net0"],
        &["vf", "set", "net0"],
        &["vf", "set", "net0", "vlan"],
        &["vf", "set", "net0", "vlan=4095"],
        &["vf", "set", "net0", "mtu=9000"],
        &["vf", "set", "net0", "mac=01:00:5e:00:00:01"],
    ] {
        let (out, err, status) = run(Path::new("/nonexistent"), arguments);
        assert_eq!((out.as_str(), status), ("", 2), "{arguments:?}: {err}");
        assert!(!err.is_empty() && !err.contains("/nonexistent"), "{arguments:?}: {err}");
    }
}

#[test]
fn a_missing_channel_is_1_and_is_named() {
    for port in ["/nonexistent/port", "/proc/self/status"] {
        let (out, err, status) = run(Path::new(port), &["vf", "list"]);
        assert_eq!((out.as_str(), status), ("", 1));
        assert!(err.starts_with("ioward-agent: ") && err.contains(port), "{err}");
    }
}

#[test]
fn watch_prints_a_line_an_event_until_the_channel_ends() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        agent.subscribe(vec![view("net0")]);
        agent.send(&ImpMessage::Notice(Notice::Added(view("net1"))));
        agent.send(&ImpMessage::Notice(Notice::Removed("net0".parse().unwrap())));
    });
    let (out, err, status) = run(imp.port(), &["vf", "watch"]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines[0], "present  net0  network  0000:01:10.0  mac=52:54:00:aa:00:01");
    assert_eq!(lines[1], "added    net1  network  0000:01:10.0  mac=52:54:00:aa:00:01");
    assert_eq!(lines[2], "removed  net0");
    assert_eq!(status, 1, "{err}");
    assert!(err.contains("closed"), "{err}");
    imp.ended();
}

/// Somebody pipes `watch` into a program: each event must come out as it happens, not when a buffer is full.
#[test]
fn watched_events_are_not_held_back() {
    let imp = Imp::runs(|agent| {
        agent.greet();
        agent.subscribe(vec![]);
        agent.agent_leaves();
    });
    let mut child = command(imp.port(), &["vf", "watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "{\"event\":\"present\",\"vfs\":[]}\n");
    child.kill().unwrap();
    child.wait().unwrap();
    imp.ended();
}
