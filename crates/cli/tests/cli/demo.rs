//! `ioward demo`: the whole job on the simulated machine, by the real binary and its partitions' real processes.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::chown,
        process::{CommandExt, ExitStatusExt},
    },
    process::{Child, Command, Stdio},
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

const NOTHING_LEFT: &str = "what is left: 0 virtual functions, 0 partitions; everything is as it was found\n";

#[test]
fn it_shows_every_stage_without_root_and_leaves_nothing() {
    let place = Place::new();
    let shown = run(&mut place.demo(&["--yes"]));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    let stages = [
        "Identify",
        "Select",
        "Plan",
        "Apply",
        "Each partition",
        "Who asked",
        "taken away",
        "removed",
        "What",
    ];
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
    // An adapter that is put back is seen by another look at the host.
    assert!(shown.stdout.contains("the host changed: inventory generation 4"), "{}", shown.stdout);
    assert!(shown.stdout.ends_with(NOTHING_LEFT), "{}", shown.stdout);
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
    terminal.wait_for("0 virtual functions, 0 partitions");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.left_over(), Vec::<String>::new());
}

/// A Spec was refused because the image it boots from was not on the machine where nothing is booted from it.
#[test]
fn a_spec_of_ones_own_is_applied_without_what_it_boots_from() {
    let place = Place::new();
    let spec = place.program.file(
        "spec.toml",
        "version = 1\n[[partition]]\nname = \"mine\"\nboot = { disk = \"/nonexistent.qcow2\" }\n\
         [[partition.vf]]\nname = \"gpu0\"\nclass = \"display\"\n",
    );
    let shown = run(&mut place.demo(&["--yes", "--spec", spec.to_str().unwrap()]));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    assert!(shown.stdout.contains("mine# vf list") && shown.stdout.contains("gpu0"), "{}", shown.stdout);
    assert!(shown.stdout.ends_with(NOTHING_LEFT), "{}", shown.stdout);

    let wrong = place.program.file("wrong.toml", "version = 1\n[[partition]]\nname = 5\n");
    assert_eq!(run(&mut place.demo(&["--yes", "--spec", wrong.to_str().unwrap()])).status, 2);
    assert_eq!(place.left_over(), Vec::<String>::new());
}

#[test]
fn a_domain_and_a_namespace_are_partitions_of_it_too() {
    let place = Place::new();
    let spec = place.program.file(
        "spec.toml",
        "version = 1\n[[partition]]\nname = \"guest\"\nlibvirt = \"shop\"\n\
         vf = [{ name = \"net0\", class = \"network\", guest_may = [\"mac\"] }]\n\
         [[partition]]\nname = \"pod\"\nnetns = \"blue\"\nvf = [{ name = \"net0\", class = \"network\" }]\n",
    );
    let shown = run(&mut place.demo(&["--yes", "--spec", spec.to_str().unwrap()]));
    assert_eq!(shown.status, 0, "{}", shown.stderr);
    for line in [
        "+ guest: domain shop, gets a channel\n",
        "+ pod: namespace blue, gets a channel\n",
        "guest  domain shop     running",
        "pod    namespace blue  running",
        "guest# vf list",
        "pod# vf list",
    ] {
        assert!(shown.stdout.contains(line), "{line}: {}", shown.stdout);
    }
    assert!(shown.stdout.ends_with(NOTHING_LEFT), "{}", shown.stdout);
    assert_eq!(place.left_over(), Vec::<String>::new());
}

/// The second port of an adapter was taken for an adapter of its own: it was pulled out with the first port's VF in use.
#[test]
fn an_adapter_is_taken_away_only_when_no_port_of_it_is_in_use() {
    let place = Place::new();
    let taken_away = |pfs: &[&str]| {
        let mut spec =
            "version = 1\n[[partition]]\nname = \"all\"\nboot = { disk = \"/nonexistent\" }\n".to_owned();
        for (number, pf) in pfs.iter().enumerate() {
            let class = match *pf {
                "0000:05:00.0" => "nvme",
                "0000:06:00.0" => "display",
                _ => "network",
            };
            spec += &format!("[[partition.vf]]\nname = \"vf{number}\"\nclass = \"{class}\"\npf = \"{pf}\"\n");
        }
        let spec = place.program.file("spec.toml", spec);
        let shown = run(&mut place.demo(&["--yes", "--spec", spec.to_str().unwrap()]));
        assert_eq!(shown.status, 0, "{}", shown.stderr);
        assert!(shown.stdout.ends_with(NOTHING_LEFT), "{}", shown.stdout);
        let (_, stage) = shown.stdout.split_once("and put back\n").unwrap();
        stage.lines().next().unwrap().to_owned()
    };
    let in_use = ["0000:02:00.0", "0000:03:00.0", "0000:05:00.0", "0000:06:00.0"];
    assert_eq!(taken_away(&in_use), "0000:01:00.0 is pulled out of its slot");
    let all = [&in_use[..], &["0000:01:00.0"]].concat();
    assert_eq!(taken_away(&all), "partitions hold VFs of every adapter: none can be spared");
}

/// It said `ioward --socket …`, which no shell finds where the program was built by `cargo run`.
#[test]
fn the_line_it_prints_to_use_it_from_another_terminal_works() {
    let place = Place::new();
    let mut child = place.demo(&["--yes", "--serve"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let commands: Vec<_> = lines.skip_while(|line| !line.contains("It stays up")).skip(1).take(2).collect();
    let shown = commands.iter().map(|line| run(Command::new("sh").args(["-c", line]).env_remove("PATH")));
    let [host, partitions] = &shown.collect::<Vec<_>>()[..] else { panic!("{commands:?}") };
    assert!(host.status == 0 && host.stdout.contains("BCM57508"), "{commands:?}: {}", host.stderr);
    assert!(partitions.status == 0 && partitions.stdout.contains("disk0"), "{}", partitions.stderr);
    end_by(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.left_over(), Vec::<String>::new());
}

fn end_by(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn a_signal_leaves_nothing_wherever_it_comes() {
    for (arguments, moment, signal, status) in [
        (&[][..], "Number [", Signal::INT, 130),
        (&[], "Apply? [Y/n]", Signal::INT, 130),
        (&["--yes"], "[3/", Signal::INT, 130),
        (&["--yes"], "[26/", Signal::INT, 130),
        (&["--yes"], "db# vf list", Signal::INT, 130),
        (&["--yes", "--serve"], "[3/", Signal::INT, 130),
        (&["--yes", "--serve"], "It stays up", Signal::INT, 0),
        (&["--yes", "--serve"], "It stays up", Signal::TERM, 0),
        (&["--yes"], "web# vf list", Signal::TERM, 143),
        (&[], "Number [", Signal::HUP, 129),
    ] {
        let place = Place::new();
        let mut terminal = Terminal::new();
        let mut child = terminal.start(place.demo(arguments));
        if moment.starts_with("Apply?") {
            // Nobody reads so fast as this is typed: what is asked finds its answer there.
            terminal.type_in(b"\n\n\n\n");
        }
        terminal.wait_for(moment);
        end_by(&child, signal);
        assert_eq!(child.wait().unwrap().code(), Some(status), "{signal:?} at {moment}");
        assert_eq!(place.left_over(), Vec::<String>::new(), "{signal:?} at {moment}");
    }
}

/// The rest of the output fits into the terminal's buffer: it may be over before the person sees it begin.
#[test]
fn a_signal_that_comes_late_leaves_nothing_either() {
    for moment in ["is pulled out", "stop partition", "What happened?"] {
        let place = Place::new();
        let mut terminal = Terminal::new();
        let mut child = terminal.start(place.demo(&["--yes"]));
        terminal.wait_for(moment);
        end_by(&child, Signal::INT);
        let status = child.wait().unwrap().code();
        assert!(matches!(status, Some(130 | 0)), "{status:?} at {moment}");
        assert_eq!(place.left_over(), Vec::<String>::new(), "at {moment}");
    }
}

/// Ctrl-C while the machine was put together ended the process there and then, and its folder stayed.
#[test]
fn a_signal_that_comes_early_leaves_nothing_either() {
    let place = Place::new();
    let nothing_there = || fs::read_dir(place.folder.path()).unwrap().next().is_none();
    let mut child = place.demo(&["--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while nothing_there() && child.try_wait().unwrap().is_none() {}
    end_by(&child, Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(place.left_over(), Vec::<String>::new());

    // Before it is anywhere near that, the signal may end it as it ends anybody. Ctrl-C does not end what a shell has put into the
    // background, as it may have these tests.
    let mut child = place.demo(&["--yes"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    end_by(&child, Signal::TERM);
    let status = child.wait().unwrap();
    assert!(status.signal() == Some(15) || status.code() == Some(143), "{status}");
    assert_eq!(place.left_over(), Vec::<String>::new());
}

#[test]
fn a_reader_that_has_seen_enough_leaves_nothing() {
    let place = Place::new();
    let mut child = place.demo(&["--yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let first = BufReader::new(child.stdout.take().unwrap()).lines().nth(1).unwrap().unwrap();
    assert!(first.starts_with("== Identify"), "{first}");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.left_over(), Vec::<String>::new());
}

/// Whoever became another user by su has the runtime folder of the one before in the environment.
#[test]
fn a_runtime_folder_of_somebody_elses_is_no_hindrance() {
    let place = Place::new();
    let shown = run(place.demo(&["--yes"]).env("XDG_RUNTIME_DIR", "/proc"));
    assert_eq!((shown.status, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("kernel = \"/tmp/ioward-demo-"), "{}", shown.stdout);
}

/// The same seed was said to give the same run; steps that go side by side end as they like, and processes and times are the
/// host's. All else repeats.
#[test]
fn the_same_seed_gives_the_same_machine_on_which_the_same_happens() {
    let told = |seed: &str| {
        let place = Place::new();
        let run = run(&mut place.demo(&["--yes", "--seed", seed]));
        assert_eq!(run.status, 0, "{}", run.stderr);
        let mut words: Vec<String> = Vec::new();
        for line in run.stdout.lines() {
            // Of a step that was begun and of one that ended, what it is.
            let line = line.split(" … ").next().unwrap_or_default();
            let is_of_this_host = |word: &str| {
                word.contains("ioward-demo-")
                    || word.starts_with("20") && word.ends_with('Z')
                    || word.parse::<u32>().is_ok()
            };
            words.push(
                line.split_whitespace().filter(|word| !is_of_this_host(word)).collect::<Vec<_>>().join(" "),
            );
        }
        words.sort();
        words.dedup();
        words
    };
    let first = told("5");
    assert_eq!(first, told("5"));
    assert_ne!(first, told("6"));
}
