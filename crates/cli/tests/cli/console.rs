//! The console, and the question before an apply: what depends on a terminal, tried on a pseudo-terminal.

use std::{
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    process::Stdio,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    support::{BEGIN, Daemon, Folder, GOOD_SPEC, data, ioward, run},
    terminal::Terminal,
};

/// A daemon with one partition, and the guest's side of that partition's console.
fn with_console(guest: impl FnOnce(UnixStream) + Send + 'static) -> (Daemon, Folder) {
    let folder = Folder::new();
    let path = folder.path().join("console.sock");
    let listener = UnixListener::bind(&path).unwrap();
    thread::spawn(move || guest(listener.accept().unwrap().0));
    let mut partitions = data("partitions.json");
    partitions[0]["console"] = Value::from(path.to_str().unwrap());
    (Daemon::with("200 OK", partitions), folder)
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
    let (daemon, _folder) = with_console(echo);
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
        let (daemon, _folder) = with_console(echo);
        let mut terminal = Terminal::new();
        let mut child = terminal.start(ioward(&daemon.socket(), &["console", "web"]));
        terminal.wait_for("login: ");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status));
        assert!(!terminal.is_raw());
    }
    let (daemon, _folder) = with_console(|mut console| {
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

/// QEMU hangs up on a console whose other side is half closed, and the answer to what was piped in would be lost.
#[test]
fn a_pipe_gets_the_answer_to_what_it_sent() {
    let (daemon, _folder) = with_console(|mut console| {
        let mut heard = [0; 7];
        console.read_exact(&mut heard).unwrap();
        // A hang-up may take a moment to come; none ever comes when all is well.
        console.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let half_closed = matches!(console.read(&mut [0]), Ok(0));
        console.write_all(if half_closed { b"hung up" } else { b"# 10:00\n" }).unwrap();
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
    let mut partitions = data("partitions.json");
    partitions[0]["console"] = json!("/nonexistent/console.sock");
    let daemon = Daemon::with("200 OK", partitions);
    let gone = run(&mut ioward(&daemon.socket(), &["console", "web"]));
    assert!(
        gone.status == 1 && gone.stderr.contains("/nonexistent/console.sock: No such file"),
        "{}",
        gone.stderr
    );
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
