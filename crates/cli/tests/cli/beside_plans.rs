//! What the API tells and does beside plans, on the embedded machine: one adapter, one VF, one partition and its console, the
//! doctor, the metrics.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{served::Served, support::ioward, terminal::Terminal};

const NIC: &str = "0000:01:00.0";

/// A failure must not become a hang.
const GIVES_UP_AFTER: Duration = Duration::from_secs(60);

fn served() -> Served {
    Served::start(
        r#"version = 1
[[partition]]
name = "web"
boot = { kernel = "kernel" }
vf = [{ name = "net0", class = "network", pf = "0000:01:00.0", index = 1, vlan = 5 }]
"#,
    )
}

/// Sends a request.
fn send(served: &Served, route: &str, body: &[u8]) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(served.socket()).unwrap();
    stream.set_read_timeout(Some(GIVES_UP_AFTER)).unwrap();
    let head = "HTTP/1.1\r\nhost: ioward\r\nconnection: close\r\ncontent-type: application/json";
    let head = format!("{route} {head}\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    BufReader::new(stream)
}

/// The status of an answer, and its head; what is left to read is the body.
fn head(answer: &mut impl BufRead) -> (u16, String) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert_ne!(answer.read_line(&mut head).unwrap(), 0, "{head}");
    }
    (head.split(' ').nth(1).unwrap().parse().unwrap(), head.to_lowercase())
}

fn status(served: &Served, route: &str, body: &[u8]) -> u16 {
    head(&mut send(served, route, body)).0
}

/// The next chunk of a body (RFC 9112 §7.1); empty at its end.
fn chunk(answer: &mut impl BufRead) -> Vec<u8> {
    let mut length = String::new();
    answer.read_line(&mut length).unwrap();
    let length = usize::from_str_radix(length.trim(), 16).unwrap_or_else(|error| panic!("{error}: {length}"));
    let mut chunk = vec![0; length + 2];
    answer.read_exact(&mut chunk).unwrap();
    chunk.truncate(length);
    chunk
}

/// Reads chunks until this has come.
fn read_to(answer: &mut impl BufRead, end: &str) -> String {
    let mut read = String::new();
    while !read.contains(end) {
        let chunk = chunk(answer);
        assert!(!chunk.is_empty(), "the end, after: {read}");
        read += &String::from_utf8_lossy(&chunk);
    }
    read
}

#[test]
fn one_adapter_one_vf_and_one_partition_are_told_of() {
    let served = served();
    let get = |route: &str| served.ask(&format!("GET /v1/{route}"), &Value::Null);
    assert_eq!(get(&format!("adapters/{NIC}"))["address"], NIC);
    let vf = get(&format!("adapters/{NIC}/vfs/1"));
    assert_eq!((&vf["pf"], &vf["index"], &vf["owner"]), (&json!(NIC), &json!(1), &json!("web/net0")));
    assert_eq!((&vf["settings"]["vlan"], &vf["made"]["vlan"]), (&json!(5), &json!(5)), "{vf}");
    assert_eq!(get(&format!("adapters/{NIC}/vfs/0"))["made"], Value::Null, "nobody holds it");
    assert!(get(&format!("adapters/{NIC}/vfs/1/statistics"))["rx_bytes"].is_u64());
    assert_eq!(get("partitions/web")["vfs"][0]["index"], 1);
    for (route, expected) in [
        ("adapters/0000:7f:00.0", 404),
        ("adapters/eth0", 400),
        ("adapters/0000:01:00.0/vfs/99", 404),
        ("adapters/0000:01:00.0/vfs/99/statistics", 404),
        ("adapters/0000:01:00.0/vfs/-1", 400),
        ("partitions/db", 404),
        ("partitions/DB!", 400),
        ("partitions/db/console", 404),
    ] {
        assert_eq!(status(&served, &format!("GET /v1/{route}"), b""), expected, "{route}");
    }
}

#[test]
fn the_doctor_is_asked_through_the_daemon() {
    let report = served().ask("GET /v1/doctor", &Value::Null);
    assert_eq!(report["able"], true, "{report}");
    let adapter = json!({"check": "adapter", "function": NIC, "verdict": "well"});
    let findings = report["findings"].as_array().unwrap();
    let is_it = |found: &&Value| adapter.as_object().unwrap().iter().all(|(key, value)| found[key] == *value);
    assert!(findings.iter().any(|found| is_it(&found)), "{report}");
}

#[test]
fn prometheus_is_told_of_vfs_their_traffic_and_what_was_done() {
    let served = served();
    let mut answer = send(&served, "GET /metrics", b"");
    let (status, head) = head(&mut answer);
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let mut page = String::new();
    answer.read_to_string(&mut page).unwrap();
    for line in [
        r#"ioward_vfs{pf="0000:01:00.0",state="running"} 1"#,
        r#"ioward_vfs{pf="0000:01:00.0",state="free"} 1"#,
        r#"ioward_adapter_total_vfs{pf="0000:01:00.0"} 7"#,
        r#"ioward_adapter_stuck{pf="0000:01:00.0"} 0"#,
        r#"ioward_partitions{state="running"} 1"#,
        r#"ioward_drift{kind="vf-count"} 0"#,
        r#"ioward_plans_total{outcome="done"} 1"#,
        r#"ioward_step_duration_seconds_count{step="set-vf-count",outcome="done"} 1"#,
    ] {
        assert!(page.lines().any(|told| told == line), "{line} is not in\n{page}");
    }
    let of_web = r#"ioward_vf_receive_bytes_total{partition="web",vf="net0",pf="0000:01:00.0",index="1"} "#;
    assert!(page.contains(of_web), "{page}");
}

/// Two who watch see the same, byte for byte, and both may type.
#[test]
fn a_console_is_watched_by_several_and_typed_on() {
    let served = served();
    let mut watchers = [(); 2].map(|()| send(&served, "GET /v1/partitions/web/console", b""));
    for watcher in &mut watchers {
        let (status, head) = head(watcher);
        assert!(status == 200 && head.contains("content-type: application/octet-stream"), "{head}");
    }
    assert_eq!(status(&served, "POST /v1/partitions/web/console", b"vf list\n"), 204);
    for watcher in &mut watchers {
        let shown = read_to(watcher, "net0");
        assert!(shown.contains("vf list"), "{shown}");
    }
    assert_eq!(status(&served, "POST /v1/partitions/web/console", &[b'#'; (64 << 10) + 1]), 413);
    let stopped = served.run(&["stop", "web", "--yes"]);
    assert_eq!(stopped.status, 0, "{}", stopped.stderr);
    // The end of its machine is the end of its console.
    while !chunk(&mut watchers[0]).is_empty() {}
    assert_eq!(status(&served, "GET /v1/partitions/web/console", b""), 404, "it does not run");
}

/// The one plug of a machine's console is the daemon's: a page that watched used to shut the command out, and the other way round.
#[test]
fn the_command_and_others_are_at_a_console_together() {
    let served = served();
    let mut page = send(&served, "GET /v1/partitions/web/console", b"");
    assert_eq!(head(&mut page).0, 200);
    let mut terminal = Terminal::new();
    let mut child = terminal.start(ioward(&served.socket(), &["console", "web"]));
    terminal.wait_for("Ctrl-] leaves");
    terminal.type_in(b"vf list\r");
    terminal.wait_for("net0");
    read_to(&mut page, "net0");
    assert_eq!(status(&served, "POST /v1/partitions/web/console", b"help\r"), 204);
    terminal.wait_for("help");
    terminal.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
