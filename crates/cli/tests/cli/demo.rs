//! `ioward demo`: the whole job on the simulated machine, by the real binary and its partitions' real processes.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{Folder, run},
    terminal::Terminal,
};

/// Where a demonstration is held.
pub struct Place {
    /// For its files.
    pub folder: Folder,
    /// For the program: root's build folder may be closed to others.
    program: Folder,
}

impl Place {
    pub fn new() -> Self {
        let place = Self { folder: Folder::new(), program: Folder::new() };
        let built = env!("CARGO_BIN_EXE_ioward");
        let linked = place.program.path().join("ioward");
        fs::hard_link(built, &linked).or_else(|_| fs::copy(built, &linked).map(drop)).unwrap();
        place
    }

    /// The demonstration, without root even where the test has it.
    pub fn demo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program.path().join("ioward"));
        command.arg("demo").args(arguments).env("XDG_RUNTIME_DIR", self.folder.path()).stdin(Stdio::null());
        if rustix::process::geteuid().is_root() {
            chown(self.folder.path(), Some(65534), Some(65534)).unwrap();
            command.uid(65534).gid(65534);
        }
        command
    }

    /// Files of the demonstration, and processes that have its environment.
    pub fn left_over(&self) -> Vec<String> {
        let files = fs::read_dir(self.folder.path()).unwrap().map(|file| file.unwrap().path());
        let mut left: Vec<_> = files.collect();
        let place = self.folder.path().to_str().unwrap().as_bytes();
        for process in fs::read_dir("/proc").unwrap().flatten() {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            if environment.windows(place.len()).any(|part| part == place) {
                left.push(process.path());
            }
        }
        left.iter().map(|path| path.display().to_string()).collect()
    }
}

#[test]
fn it_shows_every_stage_without_root_and_leaves_nothing() {
    let place = Place::new();
    let shown = run(&mut place.demo(&["--yes"]));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    let stages =
        ["Identify", "Select", "Plan", "Apply", "Each partition", "Who asked", "taken away", "removed"];
    let mut rest = shown.stdout.as_str();
    for stage in stages {
        let (_, after) = rest.split_once(stage).unwrap_or_else(|| panic!("no {stage} in {rest}"));
        rest = after;
    }
    // Granted and refused operations, as the guests saw them and as the audit log has them.
    assert!(shown.stdout.contains("vlan         105"), "{}", shown.stdout);
    assert!(shown.stdout.contains("vlan 200 is outside what guest_may allows (100-110)"));
    assert!(shown.stdout.contains("web: set net0 mac=52:54:00:aa:00:77: granted"));
    assert!(shown.stdout.contains("db: set net0 mac=52:54:00:aa:00:77: refused"));
    assert!(shown.stdout.ends_with("0 virtual functions are left, and no partition\n"));
    assert_eq!(place.left_over(), Vec::<String>::new());
}

#[test]
fn the_same_seed_shows_the_same_machine() {
    let place = Place::new();
    let host = |seed: &str| {
        let shown = run(&mut place.demo(&["--yes", "--seed", seed])).stdout;
        let (host, _) = shown.split_once("== Select").unwrap();
        host.to_owned()
    };
    assert_eq!(host("7"), host("7"));
    assert_ne!(host("7"), host("8"));
}

#[test]
fn a_choice_is_made_by_keyboard() {
    let place = Place::new();
    let mut terminal = Terminal::new();
    let mut child = terminal.start(place.demo(&[]));
    terminal.wait_for("Which adapter gives web");
    terminal.wait_for("Number [1] ");
    terminal.type_in(b"9\n");
    terminal.wait_for("is no number from 1 to");
    terminal.wait_for("Number [1] ");
    terminal.type_in(b"2\n");
    terminal.wait_for("Number [");
    terminal.type_in(b"\n");
    terminal.wait_for("is to give, 2 to 64 [4] ");
    terminal.type_in(b"6\n");
    terminal.wait_for("May web set the MAC");
    terminal.type_in(b"n\n");
    let plan = terminal.wait_for("Apply? [Y/n] ");
    assert!(plan.contains("+ 0000:02:00.0: 6 VFs made"), "{plan}");
    terminal.type_in(b"y\n");
    terminal.wait_for("0 virtual functions are left");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.left_over(), Vec::<String>::new());
}

#[test]
fn ctrl_c_leaves_nothing_wherever_it_comes() {
    for (arguments, moment, status) in [
        (&[][..], "Number [", 130),
        (&["--yes"][..], "[3/", 130),
        (&["--yes", "--serve"][..], "It stays up", 0),
    ] {
        let place = Place::new();
        let mut terminal = Terminal::new();
        let mut child = terminal.start(place.demo(arguments));
        terminal.wait_for(moment);
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(status), "at {moment}");
        assert_eq!(place.left_over(), Vec::<String>::new(), "at {moment}");
    }
}
