//! The output of commands that change nothing.

use std::{
    os::unix::{net::UnixStream, process::ExitStatusExt},
    process::Stdio,
};

use serde_json::{Value, json};

use crate::support::{Daemon, Folder, data, error, ioward, run, send};

#[test]
fn json_is_what_the_api_gives() {
    let daemon = Daemon::new(|request, stream| {
        let value =
            data(if request.route == "GET /v1/partitions" { "partitions.json" } else { "inventory.json" });
        send(stream, "200 OK", &value.to_string());
    });
    let host: Value = serde_json::from_str(&daemon.run(&["host", "--json"]).stdout).unwrap();
    assert_eq!(host["generation"], 5);
    assert_eq!(
        host["physical_functions"][0]["sriov"],
        data("inventory.json")["physical_functions"][0]["sriov"]
    );
    assert_eq!(host["physical_functions"][0]["virtual_functions"][0]["owner"], "web/net0");
    let partitions: Value = serde_json::from_str(&daemon.run(&["partitions", "--json"]).stdout).unwrap();
    assert_eq!(partitions, data("partitions.json"));
    let vfs: Value = serde_json::from_str(&daemon.run(&["vfs", "--json", "01:00.0"]).stdout).unwrap();
    assert_eq!(vfs.as_array().unwrap().len(), 2);
    assert_eq!((&vfs[1]["pf"], &vfs[1]["address"]), (&json!("0000:01:00.0"), &json!("0000:01:10.2")));
    assert_eq!((&vfs[0]["whose"], &vfs[1]["whose"]), (&json!("partition web"), &json!("nobody")));
}

#[test]
fn people_get_tables() {
    let inventory = Daemon::with("200 OK", data("inventory.json"));
    let host = inventory.run(&["host"]).stdout;
    assert!(host.starts_with("ADDRESS ") && host.lines().all(|line| line.chars().count() <= 80), "{host}");
    assert!(inventory.run(&["vfs"]).stdout.contains("web/net0"));
    assert_eq!(
        inventory.run(&["vfs", "02:00.0"]).stdout,
        "no VFs; a Spec creates them, see 'ioward apply'\n"
    );
    let unknown = inventory.run(&["vfs", "09:00.0"]);
    let expected = "ioward: 0000:09:00.0 is no physical function of this host; 'ioward host' lists them\n";
    assert_eq!((unknown.status, unknown.stderr.as_str()), (1, expected));
    let partitions = Daemon::with("200 OK", data("partitions.json")).run(&["partitions"]).stdout;
    assert!(partitions.contains("running, no KVM"), "{partitions}");
}

#[test]
fn who_has_a_vf_that_is_no_partitions_is_told() {
    let mut inventory = data("inventory.json");
    let vf = &mut inventory["physical_functions"][0]["virtual_functions"][1];
    vf["driver"] = json!("vfio-pci");
    vf["holder"] = json!({"kind": "process", "pid": 812, "command": "qemu-system-x86",
        "runs": {"is": "libvirt-domain", "name": "web\u{1b}[2J\u{202e}"}});
    let daemon = Daemon::with("200 OK", inventory);
    let shown = daemon.run(&["vfs"]).stdout;
    let held = "held by libvirt domain web\u{fffd}[2J\u{fffd} (qemu pid 812)";
    assert!(shown.contains(&format!("\n  {held}\n")), "{shown:?}");
    assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    assert!(daemon.run(&["host"]).stdout.contains(held));
    let vfs: Value = serde_json::from_str(&daemon.run(&["vfs", "--json"]).stdout).unwrap();
    assert_eq!(vfs[1]["whose"], "libvirt domain web\u{fffd}[2J\u{fffd} (qemu pid 812)");
    assert_eq!(vfs[1]["holder"]["pid"], 812);
}

#[test]
fn what_a_guest_says_of_itself_cannot_move_the_cursor() {
    let mut partitions = data("partitions.json");
    partitions[0]["agent"] = json!("\u{1b}[2Jagent\u{9b}A");
    let shown = Daemon::with("200 OK", partitions).run(&["partitions"]).stdout;
    assert!(shown.contains("\u{fffd}[2Jagent\u{fffd}A"), "{shown:?}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let daemon = Daemon::with("200 OK", data("inventory.json"));
    let mut child =
        ioward(&daemon.socket(), &["host"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Closed before it has had the time to write anything, or after: both must do.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.signal(), None);
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
}

#[test]
fn a_full_disk_is_an_error() {
    let daemon = Daemon::with("200 OK", data("inventory.json"));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = ioward(&daemon.socket(), &["host"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stderr, b"ioward: cannot write to stdout: No space left on device\n");
}

const EVENTS: &str = r#"{"number":1,"time_ms":0,"event":"plan-done","plan":3}
{"number":2,"time_ms":1,"event":"inventory-changed","generation":6}
"#;

#[test]
fn events_are_a_line_each() {
    let daemon = Daemon::new(|_, stream| send(stream, "200 OK", EVENTS));
    let expected = "\
1970-01-01T00:00:00.000Z  plan 3: done
1970-01-01T00:00:00.001Z  the host changed: inventory generation 6
";
    assert_eq!(daemon.run(&["events"]).stdout, expected);
    assert_eq!(daemon.run(&["events", "--json"]).stdout, EVENTS);
    assert_eq!(
        daemon.run(&["events", "--json", "--since", "1"]).stdout,
        EVENTS.split_inclusive('\n').nth(1).unwrap()
    );
    assert_eq!(
        daemon.run(&["events", "--json", "--kind", "plan"]).stdout,
        EVENTS.split_inclusive('\n').next().unwrap()
    );
    assert_eq!(daemon.run(&["events", "--json", "--partition", "web"]).stdout, "");
    let routes: Vec<_> = daemon.requests().into_iter().map(|request| request.route).collect();
    let (all, since) = ("GET /v1/events?follow=false", "GET /v1/events?follow=false&since=1");
    assert_eq!(routes, [all, all, since, all, all]);
}

/// Whoever followed was first told of all that had ever happened.
#[test]
fn following_begins_now_unless_a_beginning_is_named() {
    const NEW: &str = "{\"number\":3,\"time_ms\":2,\"event\":\"plan-done\",\"plan\":4}\n";
    let daemon = Daemon::new(|request, stream| match request.route.as_str() {
        "GET /v1/events?follow=true&since=now" => send(stream, IN_RUN_5, NEW),
        "GET /v1/events?follow=true" | "GET /v1/events?follow=true&since=0" => {
            send(stream, IN_RUN_5, &format!("{EVENTS}{NEW}"));
        }
        "GET /v1/events?follow=true&since=3&epoch=5" => enough(stream),
        other => panic!("{other}"),
    });
    let followed = |more: &[&str]| daemon.run(&[&["events", "--json", "--follow"], more].concat()).stdout;
    assert_eq!(followed(&[]), format!("{NEW}{ENOUGH}"));
    assert_eq!(followed(&["--since", "0"]), format!("{EVENTS}{NEW}{ENOUGH}"));
    // Plans of a partition may have begun before.
    assert_eq!(followed(&["--partition", "web"]), ENOUGH);
}

/// The head of an answer of a daemon that knows two events.
const IN_RUN_5: &str = "200 OK\r\nioward-epoch: 5\r\nioward-last-event: 2";

/// What whoever follows is told at last.
const ENOUGH: &str = "{\"error\":{\"kind\":\"not-found\",\"message\":\"enough\"}}\n";

fn enough(stream: &mut UnixStream) {
    send(stream, "404 Not Found", &error("not-found", "enough", json!([])).to_string());
}

/// The stream ended, and with it the command; whoever began it anew had missed something.
#[test]
fn whoever_follows_goes_on_where_the_connection_was_lost() {
    let event = |number: u64, rest: &str| format!("{{\"number\":{number},\"time_ms\":0,\"event\":{rest}}}\n");
    let booted = move |number| event(number, "\"host-booted\"");
    let missed = move || event(9, "\"missed\",\"count\":4");
    let restarted = move || event(0, "\"restarted\",\"epoch\":6");
    let daemon = Daemon::new(move |request, stream| match request.route.as_str() {
        "GET /v1/events?follow=true&since=now" => send(stream, IN_RUN_5, &[booted(3), booted(4)].concat()),
        // One that it has seen already, and some that are not kept any more.
        "GET /v1/events?follow=true&since=4&epoch=5" => {
            send(stream, IN_RUN_5, &[booted(4), booted(5), missed(), booted(10)].concat());
        }
        "GET /v1/events?follow=true&since=10&epoch=5" => {
            send(stream, IN_RUN_5, &[restarted(), booted(1), booted(2)].concat());
        }
        "GET /v1/events?follow=true&since=2&epoch=6" => enough(stream),
        other => panic!("{other}"),
    });
    let run = daemon.run(&["events", "--json", "--follow", "--kind", "host-booted"]);
    let seen = [
        [booted(3), booted(4), booted(5)].concat(),
        [missed(), booted(10), restarted(), booted(1), booted(2), ENOUGH.to_owned()].concat(),
    ];
    assert_eq!((run.status, run.stdout), (1, seen.concat()));
    let lost = "the connection to the daemon is lost; going on as soon as it is back\n";
    assert_eq!(run.stderr, format!("{}ioward: enough\n", lost.repeat(3)));
}

#[test]
fn audit_entries_are_a_line_each() {
    const ENTRY: &str = r#"{"time_ms":0,"partition":"web","request":{"op":"reset","vf":"net0"},"verdict":{"verdict":"granted"}}"#;
    let daemon = Daemon::new(|_, stream| send(stream, "200 OK", ENTRY));
    assert_eq!(daemon.run(&["audit"]).stdout, "1970-01-01T00:00:00.000Z  web: reset net0: granted\n");
    assert_eq!(daemon.run(&["audit", "--json"]).stdout, format!("{ENTRY}\n"));
}

#[test]
fn a_copied_tree_needs_no_daemon() {
    let folder = Folder::new();
    let root = folder.path().to_str().unwrap();
    let none = "/nonexistent".as_ref();
    let empty = run(&mut ioward(none, &["host", "--root", root]));
    assert_eq!(empty.status, 1);
    assert!(empty.stderr.contains("a copied tree has at least sys/bus/pci/devices"), "{}", empty.stderr);
    std::fs::create_dir_all(folder.path().join("sys/bus/pci/devices")).unwrap();
    let host = run(&mut ioward(none, &["host", "--json", "--root", root]));
    assert_eq!(host.status, 0, "{}", host.stderr);
    let host: Value = serde_json::from_str(&host.stdout).unwrap();
    assert_eq!((&host["generation"], &host["physical_functions"]), (&json!(1), &json!([])));

    let missing = run(&mut ioward(none, &["host", "--root", "/nonexistent"]));
    let expected = "ioward: cannot read /nonexistent: No such file or directory; --root takes a folder that holds sys/ and proc/ of a host\n";
    assert_eq!((missing.status, missing.stderr.as_str()), (2, expected));
}

#[test]
fn manual_pages_come_from_the_command_line_itself() {
    let none = "/nonexistent".as_ref();
    let page = run(&mut ioward(none, &["man", "apply"]));
    assert!(page.status == 0 && page.stdout.contains(".TH ioward-apply 1"), "{}", page.stdout);
    assert!(page.stdout.contains("allow\\-disruption"), "{}", page.stdout);
    assert_eq!(run(&mut ioward(none, &["man", "aply"])).status, 2);
    // The page of `state` names ioward-state-export(1).
    let page = run(&mut ioward(none, &["man", "state", "export"]));
    assert!(page.status == 0 && page.stdout.contains(".TH ioward-state-export 1"), "{}", page.stdout);

    // Every command has one, which says of which version it is, as that of ioward itself does.
    let ioward_1 = run(&mut ioward(none, &["man"])).stdout;
    let commands: Vec<_> = ioward_1.lines().filter_map(|line| line.strip_suffix("(1)")).collect();
    assert!(commands.contains(&"ioward\\-apply") && commands.contains(&"ioward\\-serve"), "{ioward_1}");
    let names = commands.iter().map(|command| &command["ioward\\-".len()..]);
    for page in names.map(|name| run(&mut ioward(none, &["man", name])).stdout).chain([ioward_1.clone()]) {
        let title = page.lines().find(|line| line.starts_with(".TH ")).unwrap();
        assert!(title.contains(concat!("\"ioward ", env!("CARGO_PKG_VERSION"), "\"")), "{title}");
    }
}

/// What a guest says of itself is its own: in no form does it reach the terminal as anything but text.
#[test]
fn a_guest_cannot_write_to_the_terminal_by_what_it_is_called() {
    let hostile = "x\u{1b}]52;c;aGk=\u{7}\u{9b}31m\u{7f}\u{202e}<script>";
    let mut partitions = data("partitions.json");
    partitions[0]["agent"] = json!(hostile);
    let daemon = Daemon::with("200 OK", partitions.clone());
    for arguments in [&["partitions"][..], &["partitions", "--json"]] {
        let shown = daemon.run(arguments).stdout;
        let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(shown.contains("<scri") && !shown.contains(acts), "{arguments:?}: {shown:?}");
    }
    let json: Value = serde_json::from_str(&daemon.run(&["partitions", "--json"]).stdout).unwrap();
    assert_eq!(json, partitions, "and JSON means the same");
}
