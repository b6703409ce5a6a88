//! Nobody's machine is changed unasked: who is asked, where, and what is done where there is nobody to ask.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::{Value, json};

use crate::{
    support::{BEGIN, Daemon, Folder, GOOD_SPEC, Run, carry_out, data, error, ioward, run, send},
    terminal::Terminal,
};

const DONE: &str = "{\"number\":4,\"time_ms\":0,\"event\":\"plan-done\",\"plan\":3}\n";

fn plan_of(steps: Value) -> Value {
    let mut plan = data("plan.json");
    (plan["steps"], plan["disturbs"]) = (steps, json!([]));
    plan
}

fn harmless() -> Value {
    plan_of(json!([{"step": "start-partition", "partition": "web"}]))
}

fn stopping() -> Value {
    plan_of(json!([{"step": "stop-partition", "partition": "web", "force": false}]))
}

fn was_applied(daemon: &Daemon) -> bool {
    daemon.requests().iter().any(|request| request.route == BEGIN)
}

fn with_stdin(daemon: &Daemon, arguments: &[&str], stdin: &str) -> Run {
    let mut command = ioward(&daemon.socket(), arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Who does not ask may have ended already.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `echo n | ioward apply` applied.
#[test]
fn an_answer_that_is_piped_is_heeded() {
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let apply = ["apply", "-f", spec.to_str().unwrap()];
    for (answer, status) in [("n\n", 1), ("\n", 1), ("y\n", 0), ("yes\n", 0)] {
        let daemon = Daemon::planning(harmless(), DONE);
        let run = with_stdin(&daemon, &apply, answer);
        assert_eq!((run.status, was_applied(&daemon)), (status, status == 0), "{answer:?}: {}", run.stderr);
        assert!(run.stderr.contains("Apply? [y/N]"), "{}", run.stderr);
    }
    let daemon = Daemon::planning(stopping(), DONE);
    let run = with_stdin(&daemon, &["stop", "web"], "n\n");
    assert_eq!((run.status, was_applied(&daemon)), (1, false), "{}", run.stderr);
}

/// `remove`, `stop` and `detach` took VFs from machines that ran, and asked nobody.
#[test]
fn who_runs_is_not_disturbed_where_nobody_can_be_asked() {
    let detaching = |running: bool| {
        let vf = json!({"pf": "0000:01:00.0", "index": 0});
        let plan = plan_of(json!([{"step": "detach-vf", "owner": "web/net0", "vf": vf, "force": false}]));
        let mut partitions = data("partitions.json");
        partitions[0]["running"] = json!(running);
        Daemon::new(move |request, stream| match request.route.as_str() {
            "POST /v1/plan" => send(stream, "200 OK", &plan.to_string()),
            "GET /v1/partitions" => send(stream, "200 OK", &partitions.to_string()),
            _ => carry_out(request, stream, DONE),
        })
    };
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let disturbing = || Daemon::planning(data("plan.json"), DONE);
    for (daemon, arguments, who) in [
        (disturbing(), &["apply", "-f", spec.to_str().unwrap()][..], "db"),
        (disturbing(), &["start", "web"], "db"),
        (disturbing(), &["attach", "web", "net1", "--class", "network"], "db"),
        (Daemon::planning(stopping(), DONE), &["stop", "web"], "web"),
        (Daemon::planning(stopping(), DONE), &["remove", "web"], "web"),
        (detaching(true), &["detach", "web", "net0"], "web"),
    ] {
        let run = daemon.run(arguments);
        assert_eq!((run.status, was_applied(&daemon)), (3, false), "{arguments:?}: {}", run.stderr);
        let told =
            format!("ioward: this takes something from {who} or stops it, and there is nobody to ask: --yes");
        assert!(run.stderr.starts_with(&told), "{}", run.stderr);
        assert!(run.stdout.starts_with("plan: "), "{}", run.stdout);
        let run = daemon.run(&[arguments, &["--yes"]].concat());
        assert_eq!((run.status, was_applied(&daemon)), (0, true), "{arguments:?}: {}", run.stderr);
    }
    let daemon = detaching(false);
    assert_eq!(daemon.run(&["detach", "web", "net0"]).status, 0);
    let daemon = Daemon::planning(harmless(), DONE);
    assert_eq!(daemon.run(&["apply", "-f", spec.to_str().unwrap()]).status, 0, "nobody is disturbed");
}

#[test]
fn every_change_can_be_shown_first() {
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let plan = folder.file("plan.json", stopping().to_string());
    for arguments in [
        &["apply", "-f", spec.to_str().unwrap()][..],
        &["apply", plan.to_str().unwrap()],
        &["start", "web"],
        &["stop", "web"],
        &["remove", "web"],
        &["attach", "web", "net1", "--class", "network"],
        &["detach", "web", "net0"],
    ] {
        let daemon = Daemon::planning(stopping(), DONE);
        let run = daemon.run(&[arguments, &["--dry-run"]].concat());
        assert_eq!((run.status, was_applied(&daemon)), (0, false), "{arguments:?}: {}", run.stderr);
        assert!(run.stdout.contains("  ~ web: is stopped\n"), "{}", run.stdout);
        let json = daemon.run(&[arguments, &["--dry-run", "--json"]].concat()).stdout;
        assert_eq!(
            serde_json::from_str::<Value>(&json).unwrap()["steps"],
            stopping()["steps"],
            "{arguments:?}"
        );
    }
}

#[test]
fn one_change_waits_for_another_as_long_as_it_is_told_to() {
    let busy = error("busy", "another change is being carried out; try again later", json!([]));
    let daemon = |times: usize| {
        let (left, busy) = (AtomicUsize::new(times), busy.clone());
        Daemon::new(move |request, stream| match request.route.as_str() {
            "POST /v1/plan" => send(stream, "200 OK", &harmless().to_string()),
            _ if left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() => {
                send(stream, "423 Locked", &busy.to_string());
            }
            _ => carry_out(request, stream, DONE),
        })
    };
    let waited = daemon(2).run(&["start", "web", "--wait", "600"]);
    let told = "another change is being carried out; waiting up to 600 s for it\n";
    assert_eq!((waited.status, waited.stderr.as_str()), (0, told), "said once");
    let gave_up = daemon(usize::MAX).run(&["start", "web", "--wait", "1"]);
    assert_eq!(gave_up.status, 1);
    assert!(gave_up.stderr.ends_with("try again later\n"), "{}", gave_up.stderr);
    let folder = Folder::new();
    let plan = folder.file("plan.json", harmless().to_string());
    assert_eq!(daemon(1).run(&["apply", "--yes", "--wait", "600", plan.to_str().unwrap()]).status, 0);
}

/// A terminal that is the controlling one of a shell, which is what /dev/tty is.
fn shell(terminal: &Terminal, daemon: &Daemon, script: &str) -> std::process::Child {
    let mut command = Command::new("setsid");
    command.args(["--ctty", "--wait", "sh", "-c", script]).env("IOWARD_SOCKET", daemon.socket());
    command.env("IOWARD", env!("CARGO_BIN_EXE_ioward")).env("NO_COLOR", "1");
    terminal.start(command)
}

/// `ioward apply -f -` at a terminal read the Spec from stdin, found no terminal there, and applied.
#[test]
fn a_spec_from_stdin_leaves_the_terminal_to_ask_on() {
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    for (answer, status) in [("n\n", 1), ("y\n", 0)] {
        let daemon = Daemon::planning(harmless(), DONE);
        let mut terminal = Terminal::new();
        let script = format!("\"$IOWARD\" apply -f - <{}", spec.display());
        let mut child = shell(&terminal, &daemon, &script);
        terminal.wait_for("Apply? [y/N] ");
        assert!(!was_applied(&daemon));
        terminal.type_in(answer.as_bytes());
        assert_eq!((child.wait().unwrap().code(), was_applied(&daemon)), (Some(status), status == 0));
    }
}

#[test]
fn at_a_terminal_a_stop_is_asked_about_and_a_start_is_not() {
    let daemon = Daemon::planning(stopping(), DONE);
    let mut terminal = Terminal::new();
    let mut child = terminal.start(ioward(&daemon.socket(), &["stop", "web"]));
    terminal.wait_for("Apply? [y/N] ");
    terminal.type_in(b"n\n");
    assert_eq!((child.wait().unwrap().code(), was_applied(&daemon)), (Some(1), false));

    let daemon = Daemon::planning(harmless(), DONE);
    let terminal = Terminal::new();
    let mut child = terminal.start(ioward(&daemon.socket(), &["start", "web"]));
    assert_eq!((child.wait().unwrap().code(), was_applied(&daemon)), (Some(0), true));
}

/// On a terminal each step was written over by the next, and nothing said which VF it had become.
#[test]
fn what_was_done_stays_on_a_terminal() {
    let daemon = Daemon::planning(data("plan.json"), DONE);
    let mut terminal = Terminal::new();
    let mut child = terminal.start(ioward(&daemon.socket(), &["start", "web", "--yes"]));
    let seen = terminal.wait_for("done: 5 steps");
    assert!(seen.contains("web/net0 is VF 0 of 0000:01:00.0\r\nweb runs\r\n"), "{seen}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_exit_status_of_a_plan_says_whether_there_is_something_to_change() {
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let plan = ["plan", "-f", spec.to_str().unwrap()];
    for (steps, status) in [(harmless(), 4), (plan_of(json!([])), 0)] {
        let daemon = Daemon::planning(steps, DONE);
        assert_eq!(daemon.run(&plan).status, 0);
        assert_eq!(daemon.run(&[&plan[..], &["--detailed-exitcode"]].concat()).status, status);
    }
    let refused = Daemon::with("409 Conflict", error("refused", "refused", json!([])));
    assert_eq!(refused.run(&[&plan[..], &["--detailed-exitcode"]].concat()).status, 3);
}

/// `-o -` made a file of that name.
#[test]
fn a_plan_goes_to_stdout_where_that_is_named() {
    let (daemon, folder) = (Daemon::planning(harmless(), DONE), Folder::new());
    folder.file("web.toml", GOOD_SPEC);
    let mut command = ioward(&daemon.socket(), &["plan", "-f", "web.toml", "-o", "-"]);
    let planned = run(command.current_dir(folder.path()));
    assert_eq!(serde_json::from_str::<Value>(&planned.stdout).unwrap()["steps"], harmless()["steps"]);
    assert!(!Path::new(&folder.path().join("-")).exists());
}
