//! From an intent over a plan to its steps, and every way in which that can end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::Stdio,
    sync::{
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    BEGIN, CANCEL, CHANGE, Daemon, Folder, GOOD_SPEC, WATCH, carry_out, data, error, ioward, run, send,
    send_head,
};

const DONE: &str = r#"{"number":1,"time_ms":0,"event":"plan-started","plan":3,"steps":5}
{"number":2,"time_ms":0,"event":"step-started","plan":3,"step":1,"what":{"step":"start-partition","partition":"web"}}
{"number":4,"time_ms":0,"event":"plan-done","plan":3}
"#;

/// A plan that fails.
const FAILED: &str = r#"{"number":1,"time_ms":0,"event":"plan-failed","plan":3,"error":"QEMU ended at once","undone":true}
"#;

fn two_steps() -> Value {
    let mut plan = data("plan.json");
    plan["steps"] = json!([{"step": "create-channel", "partition": "web"}, {"step": "start-partition", "partition": "web"}]);
    plan["disturbs"] = json!([]);
    plan
}

fn nothing() -> Value {
    let mut plan = data("plan.json");
    plan["steps"] = json!([]);
    plan
}

#[test]
fn a_plan_is_shown_and_nothing_is_done() {
    let (daemon, folder) = (Daemon::planning(data("plan.json"), DONE), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    let shown = daemon.run(&["plan", "-f", spec.to_str().unwrap(), "--allow-disruption"]);
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    assert!(
        shown.stdout.contains(
            "  ~ web: starts\n      + net0: VF 0 of 0000:01:00.0\n\ndisturbs\n  db, on 0000:01:10.2: "
        ),
        "{}",
        shown.stdout
    );
    let json: Value =
        serde_json::from_str(&daemon.run(&["plan", "-f", spec.to_str().unwrap(), "--json"]).stdout).unwrap();
    assert_eq!(json["steps"][0], data("plan.json")["steps"][0]);

    let requests = daemon.requests();
    assert!(requests.iter().all(|request| request.route == "POST /v1/plan"));
    let asked = &requests[0].body;
    assert_eq!((&asked["intent"], &asked["spec"]["partition"][0]["name"]), (&json!("apply"), &json!("web")));
    assert_eq!(
        asked["options"],
        json!({"allow_management_nic": false, "allow_disruption": true, "force": false})
    );
}

#[test]
fn boot_files_are_taken_from_the_folder_of_the_spec() {
    let (daemon, folder) = (Daemon::planning(nothing(), DONE), Folder::new());
    folder.file("web.toml", GOOD_SPEC);
    let named =
        ioward(&daemon.socket(), &["plan", "-f", "web.toml"]).current_dir(folder.path()).status().unwrap();
    let mut piped = ioward(&daemon.socket(), &["plan", "-f", "-"]);
    let mut child =
        piped.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(GOOD_SPEC.as_bytes()).unwrap();
    assert!(named.success() && child.wait().unwrap().success());
    for request in daemon.requests() {
        let boot = &request.body["spec"]["partition"][0]["boot"];
        assert_eq!(boot["kernel"], folder.path().join("vmlinuz").to_str().unwrap());
        assert_eq!(boot["initrd"], "/boot/initrd.img", "absolute ones stay");
    }
}

#[test]
fn apply_shows_the_plan_sends_it_back_and_shows_each_step() {
    const EVENTS: &str = r#"{"number":1,"time_ms":0,"event":"plan-started","plan":3,"steps":2}
{"number":2,"time_ms":0,"event":"step-started","plan":3,"step":1,"what":{"step":"create-channel","partition":"web"}}
{"number":3,"time_ms":0,"event":"step-done","plan":3,"step":1}
{"number":4,"time_ms":0,"event":"step-started","plan":3,"step":2,"what":{"step":"start-partition","partition":"web"}}
{"number":5,"time_ms":0,"event":"step-done","plan":3,"step":2,"note":"no KVM: runs in software emulation"}
{"number":6,"time_ms":0,"event":"plan-done","plan":3}
"#;
    let (daemon, folder) = (Daemon::planning(two_steps(), EVENTS), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    let applied = daemon.run(&["apply", "-f", spec.to_str().unwrap()]);
    assert_eq!(applied.status, 0, "{}", applied.stderr);
    let (plan, progress) = applied.stdout.split_at(applied.stdout.find("[1/2]").unwrap());
    assert!(plan.starts_with("plan: 2 steps\n"), "{plan}");
    let expected = "\
[1/2] create the channel of web … done
[2/2] start partition web … done; no KVM: runs in software emulation
done: 2 steps
";
    assert_eq!(progress, expected);
    let planned: ioward_model::Plan = serde_json::from_value(two_steps()).unwrap();
    let sent: ioward_model::Plan = serde_json::from_value(daemon.requests()[1].body["plan"].clone()).unwrap();
    assert_eq!(sent, planned);

    let json = daemon.run(&["apply", "--json", "-f", spec.to_str().unwrap()]);
    assert_eq!((json.status, json.stdout.as_str()), (0, EVENTS));
    assert!(json.stderr.starts_with("plan: 2 steps\n"), "{}", json.stderr);
}

/// Steps are named as they are done; whom they disturb is nowhere else.
#[test]
fn whom_a_plan_disturbs_is_shown_also_to_those_who_are_not_asked() {
    const DISTURBS: &str = "disturbs\n  db, on 0000:01:10.2: loses its VF while the number of VFs changes\n\
        without disturbing anyone: if web/net0 does without pf\n";
    let folder = Folder::new();
    let spec = folder.file("web.toml", GOOD_SPEC);
    let file = spec.to_str().unwrap();
    for arguments in [&["apply", "--yes", "-f", file][..], &["start", "web", "--yes"]] {
        let run = Daemon::planning(data("plan.json"), DONE).run(arguments);
        assert!(run.status == 0 && run.stdout.starts_with(DISTURBS), "{}{}", run.stdout, run.stderr);
    }
    let json = Daemon::planning(data("plan.json"), DONE).run(&["apply", "--yes", "--json", "-f", file]);
    assert_eq!((json.stdout.as_str(), json.stderr.as_str()), (DONE, DISTURBS));
}

#[test]
fn nothing_to_do_is_said_and_not_sent() {
    let (daemon, folder) = (Daemon::planning(nothing(), DONE), Folder::new());
    let spec = folder.file("web.toml", GOOD_SPEC);
    for arguments in [&["apply", "-f", spec.to_str().unwrap()][..], &["start", "web"]] {
        let run = daemon.run(arguments);
        assert_eq!((run.status, run.stdout.as_str()), (0, "nothing to do: everything is as it is wanted\n"));
    }
    assert!(daemon.requests().iter().all(|request| request.route == "POST /v1/plan"));
}

#[test]
fn every_command_is_an_intent() {
    let commands = [
        ("start web", json!({"intent": "start", "partition": "web"}), false),
        ("stop web", json!({"intent": "stop", "partition": "web"}), false),
        ("stop web --force", json!({"intent": "stop", "partition": "web"}), true),
        ("remove web --force", json!({"intent": "remove", "partition": "web"}), true),
        ("detach web net0", json!({"intent": "detach", "partition": "web", "vf": "net0"}), false),
        (
            "attach web net1 --class network --pf 01:00.0 --index 2 --vlan 7 --trust off --guest-may mac,reset",
            json!({"intent": "attach", "partition": "web", "vfs": [{"name": "net1", "class": "network",
                "pf": "0000:01:00.0", "index": 2, "vlan": 7, "trust": false, "guest_may": {"mac": true, "reset": true}}]}),
            false,
        ),
    ];
    for (command, mut expected, force) in commands {
        let daemon = Daemon::planning(two_steps(), DONE);
        let run = daemon.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(run.status, 0, "{command}: {}", run.stderr);
        assert!(run.stdout.ends_with("done: 2 steps\n"), "{command}: {}", run.stdout);
        expected["options"] =
            json!({"allow_management_nic": false, "allow_disruption": false, "force": force});
        let requests = daemon.requests();
        assert_eq!(requests[0].body, expected, "{command}");
        assert_eq!(requests[1].route, BEGIN, "{command}");
    }
}

/// A guest turned itself off between the two requests of `ioward remove`, and the person was told to plan again.
#[test]
fn a_plan_that_nobody_has_seen_is_made_anew_when_it_was_overtaken() {
    let reason =
        json!({"rule": "plan-current", "required": "a plan for what is there now", "found": "revision 3"});
    let stale = error("refused", "refused: a rule is not met", json!([reason]));
    let count = |daemon: &Daemon| daemon.requests().iter().filter(|request| request.route == BEGIN).count();
    for (refusals, status) in [(1, 0), (2, 0), (usize::MAX, 3)] {
        let left = AtomicUsize::new(refusals);
        let stale = stale.clone();
        let daemon = Daemon::new(move |request, stream| match request.route.as_str() {
            "POST /v1/plan" => send(stream, "200 OK", &two_steps().to_string()),
            _ if left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() => {
                send(stream, "409 Conflict", &stale.to_string());
            }
            _ => carry_out(request, stream, DONE),
        });
        let run = daemon.run(&["remove", "web"]);
        assert_eq!((run.status, count(&daemon)), (status, refusals.min(2) + 1), "{}", run.stderr);
    }
}

#[test]
fn a_failed_plan_says_whether_everything_is_as_before() {
    let undone = Daemon::planning(two_steps(), FAILED).run(&["start", "web"]);
    let expected = "ioward: plan 3 failed: QEMU ended at once; everything is as it was before\n";
    assert_eq!((undone.status, undone.stderr.as_str()), (1, expected));
    let left: &'static str = FAILED.replace("true", "false").leak();
    let left = Daemon::planning(two_steps(), left).run(&["start", "web"]);
    assert!(left.status == 1 && left.stderr.contains("not all of it could be undone"), "{}", left.stderr);
}

/// "plan 12" was the state's revision before a plan began, and another plan's number in its events.
#[test]
fn a_plan_has_a_number_once_it_is_begun_and_that_is_its_changes() {
    let mut plan = two_steps();
    plan["id"] = json!(12);
    let daemon = Daemon::planning(plan, FAILED);
    let run = daemon.run(&["start", "web"]);
    assert!(run.stderr.contains("plan 3 failed"), "change 7-3: {}", run.stderr);
    let shown = daemon.run(&["start", "web", "--dry-run"]).stdout;
    assert!(shown.starts_with("plan: 2 steps\n"), "{shown}");
    assert!(![run.stdout, run.stderr, shown].concat().contains("12"));
}

#[test]
fn a_stream_that_ends_too_early_is_no_success() {
    for cut in [0, DONE.find('\n').unwrap() + 1, DONE.rfind("{\"number\":4").unwrap()] {
        let run = Daemon::planning(two_steps(), &DONE[..cut]).run(&["start", "web"]);
        assert_eq!(run.status, 1, "{cut}");
        assert!(
            run.stderr.starts_with("ioward: the daemon broke off before the plan was done"),
            "{}",
            run.stderr
        );
    }
    let half_a_line = Daemon::planning(two_steps(), &DONE[..DONE.len() - 5]).run(&["start", "web"]);
    assert!(
        half_a_line.status == 1 && half_a_line.stderr.contains("makes no sense"),
        "{}",
        half_a_line.stderr
    );
}

/// Half of a plan is the worst of all: `ioward apply | head -1` must not leave it.
#[test]
fn a_reader_that_goes_away_does_not_stop_the_work() {
    let (told, tell) = mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let daemon = Daemon::new(move |request, stream| match request.route.as_str() {
        "POST /v1/plan" => send(stream, "200 OK", &two_steps().to_string()),
        WATCH => {
            tell.lock().unwrap().recv().unwrap();
            send(stream, "200 OK", DONE);
        }
        _ => carry_out(request, stream, DONE),
    });
    let mut child = ioward(&daemon.socket(), &["start", "web"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    told.send(()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// A daemon that begins a change, tells of its first step, and of its rollback once it is cancelled. With `ends`, the rollback
/// comes to its end.
fn cancellable(ends: bool) -> Daemon {
    let (cancel, cancelled) = mpsc::channel();
    let (cancel, cancelled) = (std::sync::Mutex::new(cancel), std::sync::Mutex::new(cancelled));
    Daemon::new(move |request, stream| match request.route.as_str() {
        "POST /v1/plan" => send(stream, "200 OK", &two_steps().to_string()),
        WATCH => {
            send_head(stream, "200 OK");
            let started = DONE.lines().nth(1).unwrap();
            stream.write_all(format!("{started}\n").as_bytes()).unwrap();
            cancelled.lock().unwrap().recv().unwrap();
            if ends {
                stream.write_all(FAILED.lines().last().unwrap().as_bytes()).unwrap();
            } else {
                // Until the client leaves.
                let _ = stream.read(&mut [0]);
            }
        }
        CANCEL => {
            send(stream, "200 OK", CHANGE);
            cancel.lock().unwrap().send(()).unwrap();
        }
        _ => carry_out(request, stream, DONE),
    })
}

/// Starts a change and interrupts it once its first step shows.
fn interrupted(daemon: &Daemon) -> std::process::Child {
    let mut command = ioward(&daemon.socket(), &["start", "web"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut seen = Vec::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_until(b'w', &mut seen).unwrap();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    child
}

/// Ctrl-C closed the connection, and nobody was told what became of the change.
#[test]
fn ctrl_c_cancels_the_change_and_shows_how_it_ends() {
    let daemon = cancellable(true);
    let output = interrupted(&daemon).wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted: rolling back; Ctrl-C again leaves"), "{stderr}");
    assert!(stderr.ends_with("ioward: interrupted; everything is as it was before\n"), "{stderr}");
    assert!(daemon.requests().iter().any(|request| request.route == CANCEL));
}

#[test]
fn a_second_ctrl_c_leaves_the_rollback_to_the_daemon() {
    let daemon = cancellable(false);
    let mut child = interrupted(&daemon);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Ctrl-C again") {
        assert!(stderr.read_line(&mut line).unwrap() > 0, "{line}");
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    stderr.read_to_string(&mut line).unwrap();
    assert!(line.contains("left change 7-3 while the daemon rolls it back"), "{line}");
}

#[test]
fn two_changes_at_once_are_not_both_done() {
    let daemon = Daemon::new(|request, stream| match request.route.as_str() {
        "POST /v1/plan" => send(stream, "200 OK", &two_steps().to_string()),
        _ => {
            let body = crate::support::error(
                "busy",
                "another change is being carried out; try again later",
                json!([]),
            );
            send(stream, "423 Locked", &body.to_string());
        }
    });
    let busy = run(&mut ioward(&daemon.socket(), &["start", "web"]));
    let expected = "ioward: another change is being carried out; try again later\n";
    assert_eq!((busy.status, busy.stderr.as_str(), busy.stdout.as_str()), (1, expected, ""));
}
