//! `ioward ui` and `ioward demo --serve`, as a browser sees them, and as those who are none of its business do.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    demo::Place,
    served::Served,
    support::{Daemon, Folder, allow_many_connections, ioward, run, send_head},
};

/// A page's server, until dropped.
struct Ui {
    child: Option<Child>,
    port: u16,
    token: String,
}

/// An answer, whole.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn parse(answer: &str) -> Self {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: body.to_owned() }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The words of a problem, whose form is checked.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        assert_eq!(problem["detail"], problem["error"]["message"], "{problem}");
        problem["detail"].as_str().unwrap().to_owned()
    }
}

impl Ui {
    /// In front of a daemon's socket.
    fn start(socket: &Path) -> Self {
        let mut child = ioward(socket, &["ui"]).stdout(Stdio::piped()).spawn().unwrap();
        let link = BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap();
        let mut page = Self::at(&link);
        page.child = Some(child);
        page
    }

    /// One that has printed this link.
    fn at(link: &str) -> Self {
        let rest = link.strip_prefix("http://127.0.0.1:").unwrap_or_else(|| panic!("no link: {link}"));
        let (port, token) = rest.split_once("/#token=").unwrap();
        Self { child: None, port: port.parse().unwrap(), token: token.to_owned() }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// Sends a request as it is given, with the name of the page.
    fn send(&self, request: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = self.connect();
        let host = if headers.contains("host:") {
            String::new()
        } else {
            format!("host: 127.0.0.1:{}\r\n", self.port)
        };
        let length = if headers.contains("content-length:") || headers.contains("transfer-encoding:") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!("{request} HTTP/1.1\r\n{host}{length}{headers}connection: close\r\n\r\n");
        // Whoever refuses a body does not read it.
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        stream
    }

    fn ask(&self, request: &str, headers: &str, body: &str) -> Answer {
        receive(self.send(request, headers, body))
    }

    /// What the page's script says of itself.
    fn own(&self) -> String {
        format!("origin: http://127.0.0.1:{}\r\nsec-fetch-site: same-origin\r\n", self.port)
    }

    fn begin(&self, token: &str) -> Answer {
        self.ask("POST /session", &self.own(), &json!({"token": token}).to_string())
    }

    /// The headers of a browser that has opened the link.
    fn opened(&self) -> String {
        let begun = self.begin(&self.token);
        assert_eq!(begun.status, 204, "{}", begun.body);
        let cookie = begun.header("set-cookie").unwrap().split(';').next().unwrap();
        format!("cookie: {cookie}\r\ncontent-type: application/json\r\n{}", self.own())
    }
}

impl Drop for Ui {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn receive(mut stream: TcpStream) -> Answer {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    // What has come before a connection was reset counts.
    while let Ok(length @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..length]);
    }
    Answer::parse(&String::from_utf8(answer).unwrap())
}

#[test]
fn the_page_of_the_demonstration_is_for_whoever_has_the_link_once() {
    let served = Served::start("version = 1\n");
    let page = Ui::at(served.link());
    let index = page.ask("GET /", "", "");
    assert!(index.status == 200 && index.body.contains("<title>"), "{}", index.head);
    for (name, part) in [
        ("content-security-policy", "script-src 'self';"),
        ("content-security-policy", "frame-ancestors 'none'"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-cache"),
    ] {
        assert!(index.header(name).is_some_and(|value| value.contains(part)), "{name}: {}", index.head);
    }

    assert!(page.ask("GET /v1/host", &page.own(), "").problem().contains("open the link"));
    for (token, status, words) in
        [("", 401, "there is no token"), ("0123", 401, "is wrong"), (&"0".repeat(64), 401, "is wrong")]
    {
        let no = page.begin(token);
        assert_eq!(no.status, status, "{token}");
        assert!(no.problem().contains(words) && no.header("set-cookie").is_none(), "{}", no.body);
    }
    let nonsense = page.ask("POST /session", &page.own(), "token");
    assert!(nonsense.status == 401 && nonsense.problem().contains("no token"));

    let browser = page.opened();
    let again = page.begin(&page.token);
    assert!(again.status == 403 && again.problem().contains("was used before"), "{}", again.body);

    let host = page.ask("GET /v1/host", &browser, "");
    assert_eq!((host.status, host.json()), (200, served.ask("GET /v1/host", &Value::Null)));
    assert!(host.header("content-security-policy").is_some(), "{}", host.head);
    let plan = json!({"intent": "apply", "spec": {"version": 1}}).to_string();
    let planned = page.ask("POST /v1/plan", &browser, &plan);
    assert_eq!((planned.status, &planned.json()["steps"]), (200, &json!([])), "{}", planned.body);
    // What the daemon says no to is passed on as it says it.
    assert_eq!(page.ask("GET /v1/nosuch", &browser, "").status, 404);
    assert_eq!(page.ask("GET /nosuch.js", "", "").status, 404);
    let post = page.ask("POST /", &page.own(), "");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn another_page_is_answered_nothing_even_with_the_cookie() {
    let daemon = Daemon::with("200 OK", json!([]));
    let page = Ui::start(&daemon.socket());
    let cookie = page.opened();
    let (cookie, _) = cookie.split_once("\r\n").unwrap();
    let refused = |request: &str, headers: String, words: &str| {
        let no = page.ask(request, &format!("{cookie}\r\n{headers}\r\n"), "{}");
        assert_eq!(no.status, 403, "{request} {headers}: {}", no.head);
        assert!(no.problem().contains(words), "{headers}: {}", no.body);
    };
    let port = page.port;
    for path in ["/", "/v1/host", "/session"] {
        refused(&format!("GET {path}"), format!("host: evil.example:{port}"), "is not the name of the page");
    }
    refused("GET /v1/host", "origin: http://evil.example".to_owned(), "another page");
    refused("POST /v1/plan", format!("origin: http://127.0.0.1:{}", port ^ 1), "another page");
    refused("POST /v1/plan", "sec-fetch-site: cross-site".to_owned(), "another page");
    // A form of a page at another port of this host: browsers take that for the same site, and send the cookie.
    refused("POST /v1/plan", "sec-fetch-site: same-site".to_owned(), "another page");
    refused("POST /v1/plan", "accept: */*".to_owned(), "which page it comes from");
    refused("DELETE /v1/changes/7-3", "accept: */*".to_owned(), "which page it comes from");
    assert_eq!(daemon.requests(), [], "the daemon has heard of none");
    let named = format!("{cookie}\r\nhost: localhost:{port}\r\norigin: http://localhost:{port}\r\n");
    assert_eq!(page.ask("POST /v1/plan", &named, "{}").status, 200);
}

#[test]
fn a_body_of_100_mb_is_refused_before_it_has_come() {
    let served = Served::start("version = 1\n");
    let page = Ui::at(served.link());
    let browser = page.opened();
    let told = page.ask("POST /v1/plan", &format!("{browser}content-length: 104857600\r\n"), "{");
    assert!(told.status == 413 && told.problem().contains("16 MiB"), "{}", told.head);
    // Without a length, it is counted.
    let chunk = format!("100000\r\n{}\r\n", " ".repeat(1 << 20));
    let body = format!("{}0\r\n\r\n", chunk.repeat(20));
    let counted = page.ask("POST /v1/plan", &format!("{browser}transfer-encoding: chunked\r\n"), &body);
    assert!(counted.status == 413, "{}", counted.head);
    assert_eq!(page.ask("GET /v1/partitions", &browser, "").body, "[]", "and nobody else is held up");
}

#[test]
fn a_browser_that_vanishes_is_gone_for_the_daemon_too() {
    let (gone, wait) = mpsc::channel();
    let daemon = Daemon::new(move |request, stream| {
        assert_eq!(request.route, "GET /v1/events?follow=true");
        send_head(stream, "200 OK");
        stream.write_all(b"one\n").unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "nothing more comes");
        gone.send(()).unwrap();
    });
    let page = Ui::start(&daemon.socket());
    let browser = page.opened();
    let stream = page.send("GET /v1/events?follow=true", &browser, "");
    let mut lines = BufReader::new(&stream).lines();
    // It has come although the answer has no end yet.
    lines.find(|line| line.as_ref().unwrap() == "one").unwrap().unwrap();
    assert!(wait.try_recv().is_err());
    drop(stream);
    wait.recv().unwrap();
}

#[test]
fn a_daemon_that_is_away_is_said_to_be_and_found_again() {
    let place = Place::new();
    let socket = place.folder.path().join("away.sock");
    let page = Ui::start(&socket);
    let browser = page.opened();
    let away = page.ask("GET /v1/host", &browser, "");
    assert_eq!(away.status, 502, "{}", away.head);
    let words = away.problem();
    assert!(
        words.contains(socket.to_str().unwrap()) && words.contains("start it with: ioward serve"),
        "{words}"
    );
    for _ in 0..2 {
        let mut demo = place.demo(&["--yes", "--serve", "--socket", socket.to_str().unwrap()]);
        let mut demo = demo.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("It stays up")), "it has ended");
        assert_eq!(page.ask("GET /v1/host", &browser, "").status, 200);
        kill_process(Pid::from_child(&demo), Signal::INT).unwrap();
        assert_eq!(demo.wait().unwrap().code(), Some(0));
        assert_eq!(page.ask("GET /v1/host", &browser, "").status, 502);
    }
}

/// Each has sent half a head. Those beyond the bound are told so, the others are let go of in time, and then it is as before.
#[test]
fn a_thousand_connections_that_say_nothing_are_let_go_of() {
    allow_many_connections();
    let daemon = Daemon::with("200 OK", json!([]));
    let page = Ui::start(&daemon.socket());
    let browser = page.opened();
    let idle: Vec<_> = (0..1000)
        .map(|_| {
            let mut stream = page.connect();
            // One beyond the bound may be closed already.
            let _ = stream.write_all(b"GET /v1/host HTTP/1.1\r\nhost: ");
            stream
        })
        .collect();
    let (mut refused, mut closed) = (0, 0);
    for mut stream in idle {
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        if answer.starts_with(b"HTTP/1.1 503") { refused += 1 } else { closed += 1 }
    }
    assert!(refused > 0 && closed >= 200, "{refused} refused, {closed} closed");
    assert_eq!(page.ask("GET /v1/partitions", &browser, "").status, 200);
}

#[test]
fn a_port_that_is_taken_is_said_to_be() {
    let folder = Folder::new();
    let socket = folder.path().join("api.sock");
    let first = Ui::start(&socket);
    let second = run(&mut ioward(&socket, &["ui", "--port", &first.port.to_string()]));
    let expected = format!(
        "ioward: cannot listen at 127.0.0.1:{}: Address already in use; another: --port, --listen\n",
        first.port
    );
    assert_eq!((second.status, second.stderr), (1, expected));
    let demo = run(&mut Place::new().demo(&["--yes", "--serve", "--port", &first.port.to_string()]));
    assert!(demo.status == 1 && demo.stdout.is_empty(), "{}", demo.stdout);
}

#[test]
fn it_ends_by_a_signal_whoever_is_connected() {
    let daemon = Daemon::new(|_, stream| {
        send_head(stream, "200 OK");
        let _ = stream.read(&mut [0]);
    });
    let mut page = Ui::start(&daemon.socket());
    let browser = page.opened();
    let stream = page.send("GET /v1/events?follow=true", &browser, "");
    assert!(BufReader::new(&stream).lines().next().unwrap().unwrap().contains("200 OK"));
    let mut child = page.child.take().unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Loopback is open to every user of the machine. Only root can be two users; the others find out in `peer.rs` whose a connection is.
#[test]
fn another_user_is_not_answered() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let daemon = Daemon::with("200 OK", json!([]));
    let page = Ui::start(&daemon.socket());
    let port = page.port;
    let script = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{port} && printf 'GET / HTTP/1.1\\r\\nhost: 127.0.0.1:{port}\\r\\n\\r\\n' >&3 && cat <&3"
    );
    let other = run(Command::new("bash").args(["-c", &script]).uid(65534).gid(65534));
    assert_eq!(other.stdout, "", "{}", other.stderr);
    assert!(page.ask("GET /", "", "").body.contains("<title>"), "who may is answered");
}
