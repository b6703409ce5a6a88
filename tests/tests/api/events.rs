//! Events for a browser: server-sent events that are resumed where the connection was lost, and topics.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
};

use serde_json::{Value, json};

use crate::{
    problems::is_a_problem,
    support::{Daemon, GIVES_UP_AFTER, NIC},
};

/// Carries out a plan that makes this many VFs, to its end.
fn change(daemon: &Daemon, vfs: u16) {
    let wish = json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": NIC, "vfs": vfs}]}});
    let (_, plan) = daemon.json("POST /v1/plan", &wish);
    let (status, events) = daemon.ask("POST /v1/apply", &json!({"plan": plan}).to_string());
    assert!(status == 200 && events.contains("plan-done"), "{events}");
}

/// The lines of a stream of events, as they come.
fn follow(daemon: &Daemon, query: &str, headers: &str) -> impl Iterator<Item = String> + use<> {
    let mut stream = UnixStream::connect(&daemon.socket).unwrap();
    stream.set_read_timeout(Some(GIVES_UP_AFTER)).unwrap();
    let accept = "accept: text/event-stream\r\n";
    write!(stream, "GET /v1/events{query} HTTP/1.1\r\nhost: ioward\r\n{accept}{headers}\r\n").unwrap();
    BufReader::new(stream).lines().map(|line| line.unwrap())
}

/// The next event's ID, kind and value.
fn next(lines: &mut impl Iterator<Item = String>) -> (String, String, Value) {
    let mut field = |name: &str| loop {
        let line = lines.next().unwrap();
        if let Some(value) = line.strip_prefix(name) {
            return value.to_owned();
        }
    };
    (field("id: "), field("event: "), serde_json::from_str(&field("data: ")).unwrap())
}

#[test]
fn a_browser_goes_on_where_it_was_and_is_told_of_a_restart() {
    let daemon = Daemon::start();
    let mut live = follow(&daemon, "?since=now&topics=changes", "");
    // The head has been answered: it follows from here on.
    assert!(live.by_ref().any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    change(&daemon, 2);
    let (first, kind, event) = next(&mut live);
    assert_eq!((kind.as_str(), &event["event"]), ("plan-started", &json!("plan-started")));
    assert_eq!(first, format!("1-{}", event["number"]));
    let (second, ..) = next(&mut live);

    let mut again = follow(&daemon, "?since=now&topics=changes", &format!("last-event-id: {first}\r\n"));
    assert_eq!(next(&mut again).0, second, "the one after the last that it saw, whatever the query says");
    let mut by_query = follow(&daemon, &format!("?last_event_id={first}&topics=changes"), "");
    assert_eq!(next(&mut by_query).0, second);

    let mut other_run = follow(&daemon, "", "last-event-id: 9-5\r\n");
    let (id, kind, event) = next(&mut other_run);
    assert_eq!((id.as_str(), kind.as_str(), &event["epoch"]), ("1-0", "restarted", &json!(1)));
    assert_eq!(next(&mut other_run).0, "1-1", "all that are kept follow");
    is_a_problem(&daemon.send("GET /v1/events", "last-event-id: 9\r\n", ""), 400, "invalid");
}

#[test]
fn a_follower_of_some_topics_is_told_of_those() {
    let daemon = Daemon::start();
    change(&daemon, 2);
    assert_eq!(daemon.ask("GET /v1/host", "").0, 200, "a look finds what is new");
    let (_, changes) = daemon.ask("GET /v1/events?topics=changes", "");
    let (_, inventory) = daemon.ask("GET /v1/events?topics=inventory", "");
    let (_, all) = daemon.ask("GET /v1/events?topics=channels,inventory,changes", "");
    assert!(changes.contains("plan-done") && !changes.contains("inventory-changed"), "{changes}");
    assert!(inventory.contains("inventory-changed") && !inventory.contains("plan-done"), "{inventory}");
    assert_eq!(all.lines().count(), changes.lines().count() + inventory.lines().count());
    is_a_problem(&daemon.send("GET /v1/events?topics=weather", "", ""), 400, "invalid");
}
