//! The console, and the question before an apply: what depends on a terminal, tried on a pseudo-terminal.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::Stdio,
    sync::Mutex,
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    support::{BEGIN, Daemon, Folder, GOOD_SPEC, Request, data, error, ioward, run, send, send_head},
    terminal::Terminal,
};

const CONSOLE: &str = "GET /v1/partitions/web/console";
const TYPE: &str = "POST /v1/partitions/web/console";

/// Answers with the partitions; or with `console` what is asked of the console of one.
fn with_partitions(console: impl Fn(&Request, &mut UnixStream) + Send + Sync + 'static) -> Daemon {
    Daemon::new(move |request, stream| match request.route.as_str() {
        CONSOLE | TYPE => console(request, stream),
        _ => send(stream, "200 OK", &data("partitions.json").to_string()),
    })
}

/// A daemon with one partition, and the guest's side of that partition's console.
fn with_console(guest: impl FnOnce(UnixStream) + Send + 'static) -> Daemon {
    let (guests, ours) = UnixStream::pair().unwrap();
    thread::spawn(move || guest(guests));
    with_partitions(move |request, stream| {
        let mut console = ours.try_clone().unwrap();
        if request.route == CONSOLE {
            send_head(stream, "200 OK");
            // Whoever watches may leave.
            let _ = io::copy(&mut console, stream);
        } else {
            console.write_all(&request.bytes).unwrap();
            send_head(stream, "204 No Content");
        }
    })
}

/// Greets, then sends back what it hears, until the other side hangs up.
fn echo(mut console: UnixStream) {
    console.write_all(b"login: ").unwrap();
    let mut heard = [0; 100];
    while let Ok(count @ 1..) = console.read(&mut heard) {
        console.write_all(&heard[..count]).unwrap();
    }
}

#[test]
fn a_console_is_raw_while_it_lasts_and_ctrl_bracket_leaves() {
    let daemon = with_console(echo);
    let mut terminal = Terminal::new();
    assert!(!terminal.is_raw());
    let mut child = terminal.start(ioward(&daemon.socket(), &["console", "web"]));
    let greeting = terminal.wait_for("login: ");
    assert!(greeting.contains("connected to the console of web; Ctrl-] leaves"), "{greeting}");
    assert!(terminal.is_raw());
    // Ctrl-C is for the guest.
    terminal.type_in(b"root\r\x03");
    terminal.wait_for("root\r\x03");
    terminal.type_in(b"\x1d");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!terminal.is_raw(), "the terminal is as it was");
}

#[test]
fn the_terminal_is_put_right_whatever_ends_the_console() {
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let daemon = with_console(echo);
        let mut terminal = Terminal::new();
        let mut child = terminal.start(ioward(&daemon.socket(), &["console", "web"]));
        terminal.wait_for("login: ");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert!(!terminal.is_raw());
    }
    let daemon = with_console(|mut console| {
        console.write_all(b"login: ").unwrap();
        // The machine ends once it has heard a key.
        console.read_exact(&mut [0]).unwrap();
    });
    let mut terminal = Terminal::new();
    let mut child = terminal.start(ioward(&daemon.socket(), &["console", "web"]));
    terminal.wait_for("login: ");
    terminal.type_in(b"x");
    terminal.wait_for("the console of web closed: its machine has ended");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!terminal.is_raw());
}

/// docs/api.md, "Consoles": whoever sits at a console sees what its guest prints, byte by byte.
#[test]
fn a_console_s_bytes_are_passed_as_they_are() {
    let printed = b"\x1b]0;title\x07<b>\xff\xfe\xc3\x28\x00\x9b31m\r\n";
    let daemon = with_console(|mut console| console.write_all(printed).unwrap());
    let mut command = ioward(&daemon.socket(), &["console", "web"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), printed.as_slice()));
}

/// The end of what is piped in is not the end of the console: the answer would be lost.
#[test]
fn a_pipe_gets_the_answer_to_what_it_sent() {
    let daemon = with_console(|mut console| {
        console.read_exact(&mut [0; 7]).unwrap();
        console.write_all(b"# 10:00\n").unwrap();
    });
    let mut command = ioward(&daemon.socket(), &["console", "web"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"uptime\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), b"# 10:00\n".as_slice()));
}

#[test]
fn a_console_that_is_not_there_says_why() {
    let daemon = Daemon::with("200 OK", data("partitions.json"));
    let stopped = run(&mut ioward(&daemon.socket(), &["console", "db"]));
    assert_eq!(
        (stopped.status, stopped.stderr.as_str()),
        (1, "ioward: db is stopped; start it with: ioward start db\n")
    );
    let unknown = run(&mut ioward(&daemon.socket(), &["console", "nobody"]));
    assert!(
        unknown.status == 1 && unknown.stderr.contains("there is no partition nobody"),
        "{}",
        unknown.stderr
    );
    let message = "cannot use the console of web: No such file or directory";
    let daemon = with_partitions(move |_, stream| {
        send(stream, "500 Internal Server Error", &error("failed", message, json!([])).to_string());
    });
    let gone = run(&mut ioward(&daemon.socket(), &["console", "web"]));
    assert!(gone.status == 1 && gone.stderr.contains(message), "{}", gone.stderr);
}

/// The machine runs on while the daemon is started anew.
#[test]
fn a_console_outlives_the_daemon() {
    let is_away = Mutex::new(true);
    let daemon = with_partitions(move |_, stream| {
        if std::mem::take(&mut *is_away.lock().unwrap()) {
            // A part of what was promised.
            write!(stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\none\n\r\n").unwrap();
        } else {
            send(stream, "200 OK", "two\n");
        }
    });
    let shown = run(&mut ioward(&daemon.socket(), &["console", "web"]));
    assert_eq!((shown.status, shown.stdout.as_str()), (0, "one\ntwo\n"), "{}", shown.stderr);
    assert!(shown.stderr.contains("the connection to the daemon is lost"), "{}", shown.stderr);
}

/// What is typed or pasted at once is one request.
#[test]
fn a_paste_is_typed_at_once() {
    let daemon = with_console(|mut console| {
        console.read_exact(&mut [0; 1000]).unwrap();
        console.write_all(b"got it").unwrap();
    });
    let mut command = ioward(&daemon.socket(), &["console", "web"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // Left open: only its content is what is waited for.
    let mut input = child.stdin.take().unwrap();
    input.write_all(&[b'#'; 1000]).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(daemon.requests().iter().filter(|request| request.route == TYPE).count(), 1);
}

#[test]
fn of_what_has_no_console_it_is_said_what_to_use_instead() {
    for (kind, value, says) in [
        ("libvirt", json!("one's"), r"virsh -c qemu:///system console 'one'\''s'"),
        ("netns", json!("blue"), "has no console; for a shell in it use: ip netns exec blue sh"),
        ("netns", json!({"pid_file": "/run/c.pid"}), "nsenter --net --target \"$(cat /run/c.pid)\" sh"),
    ] {
        let mut partitions = data("partitions.json");
        let web = partitions[0].as_object_mut().unwrap();
        (web["console"], web["pid"], web["accelerator"]) = (Value::Null, Value::Null, Value::Null);
        web.remove("cpus");
        web.remove("memory");
        web.insert(kind.to_owned(), value);
        let daemon = Daemon::with("200 OK", partitions);
        let refused = run(&mut ioward(&daemon.socket(), &["console", "web"]));
        assert!(refused.status == 1 && refused.stderr.contains(says), "{}", refused.stderr);
    }
}

#[test]
fn apply_asks_on_a_terminal_and_takes_only_a_yes_for_one() {
    const EVENTS: &str = "{\"number\":1,\"time_ms\":0,\"event\":\"plan-done\",\"plan\":3}\n";
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    for (answer, status, done) in
        [("y\n", 0, true), ("Yes\n", 0, true), ("n\n", 1, false), ("\n", 1, false), ("\x04", 1, false)]
    {
        let daemon = Daemon::planning(data("plan.json"), EVENTS);
        let mut terminal = Terminal::new();
        let mut child = terminal.start(ioward(&daemon.socket(), &["apply", "-f", spec.to_str().unwrap()]));
        let shown = terminal.wait_for("Apply? [y/N] ");
        assert!(shown.contains("~ web: starts"), "{shown}");
        terminal.type_in(answer.as_bytes());
        assert_eq!(child.wait().unwrap().code(), Some(status), "{answer:?}");
        let was_begun = daemon.requests().iter().any(|request| request.route == BEGIN);
        assert_eq!(was_begun, done, "{answer:?}");
    }
}
