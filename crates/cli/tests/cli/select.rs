//! `ioward select` on a pseudo-terminal, by its keys.

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Child, Command},
    sync::{Arc, Condvar, Mutex},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::{
    documents::documents,
    served::Served,
    support::{Daemon, Folder, GOOD_SPEC, data, ioward, send, send_head},
    terminal::Terminal,
};

/// The command on a terminal of 80 columns and 24 lines, and what that shows.
struct Session {
    terminal: Terminal,
    screen: vt100::Parser,
    child: Child,
}

impl Session {
    fn start(mut command: Command, no_color: &str) -> Self {
        let terminal = Terminal::new();
        terminal.resize(80, 24);
        command.env("TERM", "xterm-256color").env("NO_COLOR", no_color);
        let child = terminal.start(command);
        Self { terminal, screen: vt100::Parser::new(24, 80, 0), child }
    }

    /// Types, then waits until this is to be seen.
    fn type_for(&mut self, keys: &str, seen: &str) {
        self.terminal.type_in(keys.as_bytes());
        self.wait_for(seen);
    }

    fn wait_for(&mut self, seen: &str) {
        self.terminal.wait_for_screen(&mut self.screen, seen);
    }

    fn shown(&self) -> String {
        self.screen.screen().contents()
    }

    /// The exit status, once the terminal has been seen to be as it was.
    fn end(mut self) -> (i32, String) {
        let status = self.child.wait().unwrap().code().expect("ended by itself");
        assert!(!self.terminal.is_raw());
        // All that was written before this has come once this has.
        self.terminal.echo(END);
        self.wait_for(END);
        let screen = self.screen.screen();
        assert!(!screen.alternate_screen() && !screen.hide_cursor(), "the person's own screen is back");
        (status, screen.contents())
    }
}

const END: &str = "(the end)";

fn select(socket: &Path, folder: &Folder, arguments: &[&str]) -> Session {
    let mut command = ioward(socket, &[&["select"], arguments].concat());
    command.current_dir(folder.path());
    Session::start(command, "")
}

#[test]
fn from_nothing_to_an_applied_plan_by_keyboard() {
    let served = Served::start("version = 1\n");
    let mut session = select(&served.socket(), served.folder(), &[]);
    session.wait_for("> 0000:01:00.0 network enp1s0     1G       0   7   0     0    7 assigned");
    // The second adapter is to give four VFs.
    session.type_for("j\r4\r", "~4");
    // A partition, with a VF of a fast adapter and with one that is pinned.
    session.type_for("n", "A new partition");
    session.type_for("web\t\t\t\t\t\tkernel\r", ">+ web");
    session.type_for("v\t\t10G\r", ">+   net0");
    session.type_for("v\t\x1b[C\r", ">+   disk0");
    session.type_for("\r", "SUITS FUNCTION");
    session.type_for("G", "required class nvme; found class");
    assert!(session.shown().contains("no    + "), "{}", session.shown());
    session.type_for("gj\r", "any VF of 0000:05:00.0");
    // It is looked at, saved, and applied.
    session.type_for("p", "disturbs nobody");
    assert!(session.shown().contains("  + 0000:02:00.0: 4 VFs made"), "{}", session.shown());
    session.type_for("s", "Save as: ioward.toml");
    session.type_for("\r", "saved in ioward.toml");
    session.type_for("p", "disturbs nobody");
    session.type_for("a", "all of it is done");
    session.type_for("\r", "runs");
    session.type_for("q", "plan 1 is applied");
    let (status, shown) = session.end();
    assert_eq!(status, 0);
    assert!(shown.contains("the choice is saved in ioward.toml"), "{shown}");

    let partitions: Value = serde_json::from_str(&served.run(&["partitions", "--json"]).stdout).unwrap();
    assert_eq!((&partitions[0]["name"], &partitions[0]["running"]), (&json!("web"), &json!(true)));
    let vfs: Vec<_> = partitions[0]["vfs"].as_array().unwrap().iter().map(|vf| &vf["name"]).collect();
    assert_eq!(vfs, ["disk0", "net0"]);
    // The saved Spec is the one that was applied.
    let saved = served.folder().path().join("ioward.toml");
    assert!(fs::read_to_string(&saved).unwrap().starts_with("version = 1\n"));
    let again = served.run(&["plan", "-f", saved.to_str().unwrap()]);
    assert_eq!(again.stdout, "nothing to do: everything is as it is wanted\n", "{}", again.stderr);
}

/// docs/select.md shows a whole session: its screens are those of one.
#[test]
fn the_screens_of_the_document_are_those_of_its_session() {
    let all = documents();
    let document = all.iter().find(|document| document.name == "docs/select.md").unwrap();
    let mut screens = document.parts().0.into_iter();
    let mut is_next = |session: &mut Session| {
        let screen = screens.next().expect("the document shows one more").text();
        session.wait_for(screen.trim_end());
    };
    let served = Served::start("version = 1\n");
    served.folder().file("empty.toml", "version = 1\n");
    let mut session = select(&served.socket(), served.folder(), &["-f", "empty.toml"]);
    session.wait_for("? keys");
    session.type_for("j\r8\r", "~8");
    session.type_for("n", "A new partition");
    session.type_for("web\t\t\x7f2\t\t0\t\tkernel\r", ">+ web");
    session.type_for("v\t\t10G\t\t\t\tmac\r", ">+   net0");
    session.type_for("v\t\t10G\t\t\tnet0\r", ">+   net1");
    session.type_for("v\t\x1b[C\r", ">+   disk0");
    is_next(&mut session);

    session.type_for("n", "A new partition");
    session.type_for("shop\td\tweb", "> Domain     web");
    is_next(&mut session);
    session.type_for("\x1b", ">+   disk0");

    session.type_for("kk\r", "SUITS FUNCTION");
    session.type_for("jjjj", "found one of");
    is_next(&mut session);
    session.type_for("\x1b", ">+   net0");

    session.type_for("p", "disturbs nobody");
    is_next(&mut session);
    session.type_for("a", "all of it is done");
    session.type_for("\r", "runs");
    is_next(&mut session);
    session.type_for("q", "plan 1 is applied");
    assert_eq!(session.end().0, 0);
    assert!(screens.next().is_none(), "the document shows no more");
}

/// A daemon whose plan goes on until its client leaves, and is then undone.
fn endless() -> Daemon {
    let left: Arc<(Mutex<bool>, Condvar)> = Arc::default();
    Daemon::new(move |request, stream| match request.route.as_str() {
        "GET /v1/host" => send(stream, "200 OK", &data("inventory.json").to_string()),
        "GET /v1/partitions" => send(stream, "200 OK", &data("partitions.json").to_string()),
        "GET /v1/spec" => send(stream, "200 OK", "{\"version\": 1}"),
        "POST /v1/plan" => send(stream, "200 OK", &data("plan.json").to_string()),
        // An attempt at the same plan before this one has failed.
        "GET /v1/events?since=now" => send(stream, "200 OK\r\nioward-last-event: 7", ""),
        "POST /v1/apply" => {
            send(stream, "200 OK", UNDER_WAY);
            let hung_up = matches!(stream.read(&mut [0]), Ok(0) | Err(_));
            *left.0.lock().unwrap() = hung_up;
            left.1.notify_all();
        }
        "GET /v1/events?follow=true&since=9" => {
            let _left = left.1.wait_while(left.0.lock().unwrap(), |left| !*left).unwrap();
            send_head(stream, "200 OK");
            let _ = std::io::Write::write_all(stream, [BEFORE, UNDER_WAY, UNDONE].concat().as_bytes());
        }
        other => panic!("{other}"),
    })
}

const BEFORE: &str = "{\"number\":7,\"time_ms\":0,\"event\":\"plan-failed\",\"plan\":3,\"error\":\"earlier\",\"undone\":true}\n";
const UNDER_WAY: &str = r#"{"number":8,"time_ms":0,"event":"plan-started","plan":3,"steps":5}
{"number":9,"time_ms":0,"event":"step-started","plan":3,"step":1,"what":{"step":"create-channel","partition":"web"}}
"#;
const UNDONE: &str = r#"{"number":10,"time_ms":0,"event":"step-undone","plan":3,"step":1}
{"number":11,"time_ms":0,"event":"plan-failed","plan":3,"error":"nobody waits for it","undone":true}
"#;

#[test]
fn ctrl_c_has_a_plan_undone_and_waits_for_it() {
    let (daemon, folder) = (endless(), Folder::new());
    let mut session = select(&daemon.socket(), &folder, &[]);
    session.wait_for("? keys");
    session.type_for("p", "plan: 5 steps");
    session.type_for("a", "create the channel of web …");
    session.type_for("\x03", "nobody waits for it; everything is as it was before");
    assert!(session.shown().contains("[1/5] create the channel of web … undone"), "{}", session.shown());
    assert!(!session.shown().contains("earlier"), "{}", session.shown());
    session.type_for("\r", "? keys");
    session.type_for("q", "");
    assert_eq!(session.end().0, 0);
}

#[test]
fn the_terminal_is_put_right_whatever_ends_it() {
    let (daemon, folder) = (endless(), Folder::new());
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let mut session = select(&daemon.socket(), &folder, &[]);
        session.wait_for("? keys");
        assert!(session.terminal.is_raw());
        kill_process(Pid::from_child(&session.child), signal).unwrap();
        let (ended, shown) = session.end();
        assert_eq!(ended, status);
        assert!(shown.contains("nothing that was chosen is lost"), "{shown}");
    }
    let mut session = select(&daemon.socket(), &folder, &[]);
    session.wait_for("? keys");
    session.type_for("\x03", "");
    assert_eq!(session.end().0, 130);
    // While a plan is carried out, the daemon is told by the connection.
    let mut session = select(&daemon.socket(), &folder, &[]);
    session.wait_for("? keys");
    session.type_for("p", "plan: 5 steps");
    session.type_for("a", "create the channel of web …");
    kill_process(Pid::from_child(&session.child), Signal::TERM).unwrap();
    let (status, shown) = session.end();
    assert!(status == 143 && shown.replace('\n', "").contains("the daemon puts everything back"), "{shown}");
}

/// What was chosen was lost.
#[test]
fn what_a_signal_ends_is_kept_in_a_file() {
    let (daemon, folder) = (endless(), Folder::new());
    for (signal, status) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut session = select(&daemon.socket(), &folder, &[]);
        session.wait_for("? keys");
        session.type_for("\r2\r", "neither applied nor saved");
        let file = format!("ioward-select-{}.toml", session.child.id());
        kill_process(Pid::from_child(&session.child), signal).unwrap();
        let (ended, shown) = session.end();
        assert_eq!(ended, status);
        assert!(shown.replace('\n', "").contains(&file), "{shown}");
        let kept = fs::read_to_string(folder.path().join(&file)).unwrap();
        assert!(kept.contains("vfs = 2"), "{kept}");
    }
}

/// The terminal is gone, and with it everybody who could be told.
#[test]
fn a_hang_up_of_the_terminal_itself_keeps_the_choice_too() {
    let (daemon, folder) = (endless(), Folder::new());
    let mut session = select(&daemon.socket(), &folder, &[]);
    session.wait_for("? keys");
    session.type_for("\r2\r", "neither applied nor saved");
    let Session { terminal, mut child, .. } = session;
    drop(terminal);
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let status = child.wait().unwrap();
    let file = format!("ioward-select-{}.toml", child.id());
    // Whichever shows first: the signal, or that nothing can be read any more.
    assert!(matches!(status.code(), Some(129 | 1)), "{status}");
    assert!(folder.path().join(&file).exists());
}

#[test]
fn a_spec_is_begun_from_and_colours_are_left_out_when_not_wanted() {
    let (daemon, folder) = (endless(), Folder::new());
    folder.file("web.toml", GOOD_SPEC);
    for (no_color, coloured) in [("", true), ("1", false)] {
        let mut command = ioward(&daemon.socket(), &["select", "-f", "web.toml"]);
        command.current_dir(folder.path());
        let mut session = Session::start(command, no_color);
        session.wait_for("? keys");
        let shown = session.shown();
        assert!(shown.starts_with("ioward select: web.toml"), "{shown}");
        assert!(shown.contains(" + web                2 CPUs, 512MiB, boots vmlinuz"), "{shown}");
        let cells = (0..24).flat_map(|line| (0..80).map(move |column| (line, column)));
        let mut cells = cells.filter_map(|(line, column)| session.screen.screen().cell(line, column));
        assert_eq!(cells.any(|cell| cell.fgcolor() != vt100::Color::Default), coloured);
        session.type_for("q", "");
        assert_eq!(session.end().0, 0);
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let daemon = endless();
    let refused = daemon.run(&["select"]);
    assert_eq!((refused.status, refused.stdout.as_str()), (2, ""));
    assert!(
        refused.stderr.contains("select needs a terminal") && refused.stderr.contains("ioward assign NAME"),
        "{}",
        refused.stderr
    );
    assert_eq!(daemon.requests(), []);
}

#[test]
fn what_is_wrong_before_there_is_a_screen_is_said_without_one() {
    let folder = Folder::new();
    folder.file("wrong.toml", "version = 2");
    for (arguments, status, said) in [
        (&["-f", "wrong.toml"][..], 2, "this ioward knows Specs of version 1"),
        (&["-f", "nowhere.toml"], 2, "cannot read nowhere.toml"),
        (&["-f", "-"], 2, "leaves no keyboard"),
        (&[], 1, "cannot reach the daemon"),
    ] {
        let (ended, shown) = select("/nonexistent/api.sock".as_ref(), &folder, arguments).end();
        assert_eq!(ended, status, "{arguments:?}: {shown}");
        let words: Vec<_> = shown.split_whitespace().collect();
        assert!(words.join(" ").contains(said), "{arguments:?}: {shown}");
    }
}
