//! A Spec that is wrong by itself never gets as far as the daemon.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use crate::support::{Daemon, Folder, GOOD_SPEC, data, ioward, run};

#[test]
fn each_wrong_spec_is_told_what_is_wrong_and_nothing_is_asked_of_the_daemon() {
    let twice = format!("{GOOD_SPEC}{}", &GOOD_SPEC[GOOD_SPEC.find("[[partition]]").unwrap()..]);
    let second_vf = format!("{GOOD_SPEC}\n[[partition.vf]]\nname = \"net0\"\nclass = \"network\"\n");
    let with = |good: &str, bad: &str| {
        assert!(GOOD_SPEC.contains(good));
        GOOD_SPEC.replacen(good, bad, 1).into_bytes()
    };
    let wrong: Vec<(&str, Vec<u8>, &str)> = vec![
        ("empty", Vec::new(), "web.toml: the Spec is empty; it begins with: version = 1\n"),
        (
            "binary",
            b"version = 1\n\x7fELF\xff\xfe\0".to_vec(),
            "web.toml: line 2, column 5: this is no text (not UTF-8)",
        ),
        (
            "half a file",
            GOOD_SPEC.as_bytes()[..GOOD_SPEC.find("/boot").unwrap()].to_vec(),
            "web.toml: line 7, column ",
        ),
        ("10 MB", b"#".repeat(10_000_000), "web.toml: a Spec has at most 1048576 bytes; this has more\n"),
        (
            "another version",
            with("version = 1", "version = 2"),
            "line 1, column 11: version: this ioward knows Specs of version 1",
        ),
        (
            "unknown key",
            with("memory", "memroy"),
            "web.toml: line 6, column 1: unknown key 'memroy'; did you mean 'memory'?\n",
        ),
        (
            "two partitions",
            twice.clone().into_bytes(),
            "partition[1].name: 'web' is already the name of partition[0]",
        ),
        (
            "two users of a MAC",
            twice.into_bytes(),
            "52:54:00:aa:00:01 is already used by partition[0].vf[0].mac",
        ),
        (
            "two VFs",
            second_vf.into_bytes(),
            "partition[0].vf[1].name: 'net0' is already the name of partition[0].vf[0]",
        ),
        (
            "half a MAC",
            with("52:54:00:aa:00:01", "52:54:00"),
            "line 12, column 9: '52:54:00' is no MAC address; write six bytes",
        ),
        (
            "multicast",
            with("52:54:00:aa:00:01", "01:00:5e:00:00:01"),
            "line 12, column 9: partition[0].vf[0].mac: 01:00:5e:00:00:01",
        ),
        ("VLAN 4095", with("100", "4095"), "web.toml: line 13, column 9: '4095' is no VLAN; use 1 to 4094"),
        (
            "lots",
            with("512MiB", "lots"),
            "web.toml: line 6, column 10: 'lots' is no memory size; write 512MiB or 2GiB",
        ),
    ];
    let daemon = Daemon::with("200 OK", data("plan.json"));
    let folder = Folder::new();
    for (what, spec, message) in wrong {
        folder.file("web.toml", spec);
        for command in ["plan", "apply"] {
            let run = run(ioward(&daemon.socket(), &[command, "-f", "web.toml"]).current_dir(folder.path()));
            assert_eq!(run.status, 2, "{what}: {}", run.stderr);
            assert!(
                run.stderr.starts_with("ioward: web.toml: ") && run.stderr.contains(message),
                "{what}: {}",
                run.stderr
            );
            assert_eq!(run.stdout, "", "{what}");
        }
    }
    assert_eq!(daemon.requests(), []);
}

#[test]
fn every_problem_is_a_line() {
    let daemon = Daemon::with("200 OK", data("plan.json"));
    let folder = Folder::new();
    let spec = GOOD_SPEC.replace("cpus   = 2", "cpus = 0").replace("52:54:00:aa:00:01", "01:00:5e:00:00:01");
    folder.file("web.toml", spec);
    let run = run(ioward(&daemon.socket(), &["plan", "-f", "web.toml"]).current_dir(folder.path()));
    assert_eq!(
        run.stderr.lines().filter(|line| line.starts_with("ioward: web.toml: line ")).count(),
        2,
        "{}",
        run.stderr
    );
}

#[test]
fn a_spec_without_end_is_not_read_to_its_end() {
    let daemon = Daemon::with("200 OK", data("plan.json"));
    let from_stdin =
        |command: &mut Command| run(command.stdin(Stdio::from(File::open("/dev/zero").unwrap())));
    let run = from_stdin(&mut ioward(&daemon.socket(), &["plan", "-f", "-"]));
    assert_eq!(
        (run.status, run.stderr.as_str()),
        (2, "ioward: stdin: a Spec has at most 1048576 bytes; this has more\n")
    );
}

#[test]
fn a_spec_that_cannot_be_read_is_wrong_usage() {
    let folder = Folder::new();
    let run_in = |file| run(ioward("none".as_ref(), &["plan", "-f", file]).current_dir(folder.path()));
    let missing = run_in("web.toml");
    assert_eq!(
        (missing.status, missing.stderr.as_str()),
        (2, "ioward: cannot read web.toml: No such file or directory\n")
    );
    let directory = run_in(".");
    assert_eq!((directory.status, directory.stderr.as_str()), (2, "ioward: cannot read .: Is a directory\n"));
}

/// They were told one at a time, in Rust's words, and the line was to be counted by hand.
#[test]
fn all_that_is_wrong_is_told_at_once_with_the_line_and_a_mark() {
    let (daemon, folder) = (Daemon::with("200 OK", data("plan.json")), Folder::new());
    folder
        .file("web.toml", GOOD_SPEC.replace("cpus   = 2", "cpus   = \"two\"").replace("vlan  =", "vlna  ="));
    let run = run(ioward(&daemon.socket(), &["plan", "-f", "web.toml"]).current_dir(folder.path()));
    let expected = "\
ioward: web.toml: line 5, column 10: \"two\" is no whole number from 0 to 65535
  5 | cpus   = \"two\"
    |          ^^^^^
ioward: web.toml: line 13, column 1: unknown key 'vlna'; did you mean 'vlan'?
  13 | vlna  = 100
     | ^^^^
";
    assert_eq!((run.status, run.stderr.as_str()), (2, expected));
}
