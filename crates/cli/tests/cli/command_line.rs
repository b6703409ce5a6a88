//! Rules for every command: names that are not there, help, completions, control characters.

use std::{fs, io::BufRead, io::BufReader, os::unix::net::UnixStream, process::Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{
    demo::Place,
    served::Served,
    support::{Daemon, Folder, GOOD_SPEC, data, error, ioward, run},
};

/// The same mistake, a name that is not there, ended with status 1, 2 or 3, by command.
#[test]
fn a_name_that_is_not_there_is_not_found_whatever_the_command() {
    let served = Served::start(
        "version = 1\n[[partition]]\nname = \"web\"\nboot = { kernel = \"kernel\" }\n\
         vf = [{ name = \"net0\", class = \"network\" }]\n",
    );
    let spec = served.folder().file("good.toml", GOOD_SPEC);
    for command in [
        "start nosuch",
        "stop nosuch",
        "remove nosuch",
        "detach nosuch net0",
        "detach web nosuch",
        "attach nosuch net1 --class network",
        "attach web net1 --class network --apart-from nosuch",
        "attach web net1 --class network --pf nosuch0",
        "assign nosuch --class network",
        "assign web --class network --apart-from nosuch",
        "console nosuch",
        "partitions nosuch",
        "vfs 0000:77:00.0",
        "vfs nosuch0",
        &format!("compatible nosuch -f {}", spec.display()),
    ] {
        let run = served.run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!(run.status, 1, "{command}: {}", run.stderr);
        assert!(
            !run.stderr.contains("refused") && !run.stderr.contains("sense"),
            "{command}: {}",
            run.stderr
        );
    }
    // Names that are there are found.
    let interface = "enp1s0";
    assert_eq!(served.run(&["vfs", interface]).stdout, served.run(&["vfs", "01:00.0"]).stdout);
    let attached =
        served.run(&["attach", "web", "net7", "--class", "network", "--pf", "enp3s0", "--dry-run"]);
    assert_eq!(attached.status, 0, "{}", attached.stderr);

    let spec = served.run(&["spec"]);
    let file = served.folder().file("held.toml", spec.stdout);
    let again = served.run(&["plan", "--detailed-exitcode", "-f", file.to_str().unwrap()]);
    assert_eq!((again.status, again.stdout.as_str()), (0, "nothing to do: everything is as it is wanted\n"));
    let detail = served.run(&["partitions", "web"]).stdout;
    assert!(
        detail.starts_with("web\n  state       running") && detail.contains("\n  net0: network VF 0"),
        "{detail}"
    );
}

/// `demo --socket` was taken and ignored, so that nothing found the demonstration there.
#[test]
fn a_demonstration_listens_where_it_is_told_to() {
    let place = Place::new();
    let socket = place.folder.path().join("here.sock");
    let mut command = place.demo(&["--yes", "--serve", "--socket", socket.to_str().unwrap()]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("It stays up")), "it has ended");
    assert!(UnixStream::connect(&socket).is_ok());
    // A second one does not take it away.
    let second = run(&mut place.demo(&["--yes", "--socket", socket.to_str().unwrap()]));
    assert!(second.status == 1 && second.stderr.contains("another daemon answers"), "{}", second.stderr);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

/// 100 VFs that do not fit printed one reason 32 times.
#[test]
fn one_reason_for_many_requests_is_told_once() {
    let reason = |n: usize| {
        json!({"rule": "vf-capacity", "request": format!("web/net{n}"), "function": "0000:01:00.0",
            "required": "100 VFs", "found": "TotalVFs is 7", "remedy": "ask for 7 at most"})
    };
    let other = json!({"rule": "iommu", "required": "an IOMMU", "found": "none"});
    let reasons: Vec<_> = (0..32).map(reason).chain([other]).collect();
    let refused =
        Daemon::with("409 Conflict", error("refused", "refused: rules are not met", json!(reasons)));
    let run = refused.run(&["start", "web"]);
    let expected = "\
ioward: refused: rules are not met
  vf-capacity: web/net0: 0000:01:00.0: required 100 VFs; found TotalVFs is 7; ask for 7 at most; the same for web/net1, web/net2, web/net3 and 28 more
  iommu: required an IOMMU; found none
";
    assert_eq!(run.stderr, expected);
}

#[test]
fn the_environment_changes_no_usage_line() {
    let usage = |command: &mut std::process::Command| {
        let text = run(command).stderr;
        text.lines().find(|line| line.starts_with("Usage: ")).unwrap().to_owned()
    };
    let mut without = ioward("unused".as_ref(), &["start"]);
    without.env_remove("IOWARD_SOCKET");
    assert_eq!(usage(&mut ioward("/tmp/a.sock".as_ref(), &["start"])), usage(&mut without));
}

/// An argument that a script had from somewhere wrote to the terminal.
#[test]
fn escape_bytes_of_an_argument_are_not_echoed() {
    for arguments in [
        &["start", "\u{1b}[2J"][..],
        &["\u{1b}]0;x\u{7}"],
        &["plan", "-f", "\u{1b}[31m"],
        &["vfs", "a\u{1b}c"],
    ] {
        let run = run(&mut ioward("/nonexistent".as_ref(), arguments));
        assert!(run.status == 2 && !run.stderr.contains(['\u{1b}', '\u{7}']), "{:?}", run.stderr);
    }
}

#[test]
fn shells_complete_commands_and_options() {
    for (shell, line) in
        [("bash", "complete -F _ioward"), ("zsh", "#compdef ioward"), ("fish", "complete -c ioward")]
    {
        let script = run(&mut ioward("/nonexistent".as_ref(), &["completions", shell]));
        assert!(script.status == 0 && script.stdout.contains(line), "{shell}: {}", script.stdout);
        assert!(script.stdout.contains("detailed-exitcode"), "{shell}");
        assert!(!script.stdout.contains("simulated-partition"), "{shell}: a command that nobody types");
    }
}

#[test]
fn help_lists_what_there_is() {
    let help = run(&mut ioward("/nonexistent".as_ref(), &["help"])).stdout;
    for command in ["man", "completions", "spec"] {
        assert!(help.lines().any(|line| line.trim_start().starts_with(command)), "{command}: {help}");
    }
    assert!(help.contains("4 there is something to change"), "{help}");
}

#[test]
fn names_with_numbers_are_listed_in_the_order_of_their_numbers() {
    let mut partitions = data("partitions.json");
    let vf = partitions[0]["vfs"][0].clone();
    let named = |name: &str| {
        let mut vf = vf.clone();
        vf["name"] = json!(name);
        vf
    };
    partitions[0]["vfs"] = json!([named("net1"), named("net10"), named("net2")]);
    let shown = Daemon::with("200 OK", partitions).run(&["partitions"]).stdout;
    let names: Vec<_> =
        shown.lines().filter_map(|line| line.trim().split_once(": network")).map(|(name, _)| name).collect();
    assert_eq!(names, ["net1", "net2", "net10"], "{shown}");
}

#[test]
fn signs_are_in_colour_on_a_terminal_unless_somebody_says_no() {
    for (variable, value, coloured) in
        [("TERM", "xterm", true), ("NO_COLOR", "1", false), ("TERM", "dumb", false)]
    {
        let folder = Folder::new();
        let spec = folder.file("web.toml", GOOD_SPEC);
        let daemon = Daemon::with("200 OK", data("plan.json"));
        let mut terminal = crate::terminal::Terminal::new();
        let mut command = ioward(&daemon.socket(), &["plan", "-f", spec.to_str().unwrap()]);
        command.env_remove("NO_COLOR").env("TERM", "xterm").env(variable, value);
        let mut child = terminal.start(command);
        let seen = terminal.wait_for("0 to take");
        assert_eq!(seen.contains("\u{1b}[32m+ "), coloured, "{variable}={value}: {seen:?}");
        assert!(child.wait().unwrap().success());
    }
    let piped = Daemon::with("200 OK", data("plan.json"));
    let folder = Folder::new();
    fs::write(folder.path().join("web.toml"), GOOD_SPEC).unwrap();
    let mut command = ioward(&piped.socket(), &["plan", "-f", "web.toml"]);
    assert!(!run(command.env("TERM", "xterm").current_dir(folder.path())).stdout.contains('\u{1b}'));
}
