//! The lab tests: half of them in one level 1 and half in another at the same time, unless they are few, and one in a level 1
//! of its own, which it resets. A level 1 has one CPU.
//!
//! Emulating a CPU with SVM and a PCI bus that changes, QEMU fails once in a while: an assertion of its own, a kernel in level 1
//! that finds its stack gone, a CPU that is woken no more. That says nothing about the test it happened to. So a new level 1
//! goes on with that test, and the output says so. A second death in the same test is the test's. So it is with a test that failed
//! because a guest did not answer any more: the same faults lose or double a guest's interrupts (lab/README.md, Traps).

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::package;
use crate::process::{output, shell_word};
use crate::workspace::Workspace;
use crate::{LAB_TESTS_BOUND, RUN_BOUND};

/// Level 1 may die so often in one half of the tests.
const MAX_DEATHS: usize = 3;
/// So few tests share one level 1: booting another would take longer.
const FEW: usize = 6;
/// Parts of an error that say that a guest heard neither of its console nor of its power button: of the tests' own
/// (tests/src/guest.rs), and of the daemon's. A command that does not end in a guest is not among them: it may wait for ioward.
const SILENT_GUEST: [&str; 3] =
    ["no shell on the console after", "still on after", "did not turn itself off within"];
/// The test that is `lab/restart.sh`.
const RESTART: &str = "restart::a_killed_daemon_and_a_reset_host_lose_nothing";

/// Runs the tests whose name contains the filter, if there is one. Gives the status to exit with.
pub fn run(filter: Option<&str>) -> Result<u8> {
    let tests = Tests::prepare()?;
    let names = tests.names(filter)?;
    let restarts = AtomicBool::new(filter.is_none_or(|filter| RESTART.contains(filter)));
    let parts = parts(names);
    let live = parts.len() == 1;
    let run_part = |names: &Vec<String>| {
        let progress = Arc::new(Mutex::new(Progress::new(names)));
        let mut deaths = Deaths::default();
        tests.run_in_level1(&progress, &mut deaths, live)?;
        if restarts.swap(false, Ordering::Relaxed) {
            tests.run_restart(&progress, &mut deaths, live)?;
        }
        let progress = look(&progress);
        Ok((progress.passed, progress.failed))
    };
    let counts = thread::scope(|scope| {
        let running: Vec<_> = parts.iter().map(|names| scope.spawn(|| run_part(names))).collect();
        let ended = running.into_iter().map(|part| {
            part.join().unwrap_or_else(|_| Err(Error::Other("a thread of the lab tests panicked".into())))
        });
        // All of them are waited for, so that one half is told in full when the other can't go on.
        ended.collect::<Vec<Result<(usize, usize)>>>()
    });
    let (mut passed, mut failed) = (0, 0);
    for count in counts {
        let of_part = count?;
        passed += of_part.0;
        failed += of_part.1;
    }
    println!("{passed} passed, {failed} failed");
    Ok(u8::from(failed > 0))
}

/// The names for each level 1. Neighbours are about the same subject and take about as long, so they are dealt out in turn.
fn parts(names: Vec<String>) -> Vec<Vec<String>> {
    if names.len() <= FEW {
        return vec![names];
    }
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for (place, name) in names.into_iter().enumerate() {
        if place % 2 == 0 { first.push(name) } else { second.push(name) }
    }
    vec![first, second]
}

/// What a test run has in common.
struct Tests {
    lab: Lab,
    /// `lab-tests`, which `Lab::prepare` built.
    program: PathBuf,
    package: PathBuf,
}

impl Tests {
    fn prepare() -> Result<Self> {
        let lab = Lab::prepare()?;
        let program = Workspace::find()?.binaries.join("lab-tests");
        Ok(Self { lab, program, package: package::build(true)? })
    }

    fn names(&self, filter: Option<&str>) -> Result<Vec<String>> {
        let listed = output(Command::new(&self.program).arg("--list").args(filter))?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// Runs the tests that are left, in a new level 1 whenever one dies.
    fn run_in_level1(&self, progress: &Arc<Mutex<Progress>>, deaths: &mut Deaths, live: bool) -> Result<()> {
        let started = Instant::now();
        loop {
            let left = look(progress).left.clone();
            if left.is_empty() {
                return Ok(());
            }
            let watch = Watch::new(progress, live);
            let bound = LAB_TESTS_BOUND.saturating_sub(started.elapsed());
            match self.lab.run_into(&self.command(&left), bound, watch) {
                Err(Error::Died(why)) => deaths.add(look(progress).running.clone(), why)?,
                // Whether it is 0 or 1 is known from its lines.
                Ok(0 | 1) if look(progress).has_run_all() => {}
                Ok(status) => {
                    let left = look(progress).left.join(", ");
                    return Err(Error::Other(format!(
                        "lab-tests ended with status {status} and without having run {left}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn command(&self, names: &[String]) -> String {
        let package = format!("IOWARD_LAB_PACKAGE={}", self.package.display());
        let passed_on = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
        let (seed, kills) = (passed_on("IOWARD_SEED"), passed_on("IOWARD_KILLS"));
        let program = self.program.to_string_lossy();
        let words = [
            Some("exec"),
            Some("env"),
            Some(&*package),
            seed.as_deref(),
            kills.as_deref(),
            Some(&*program),
            Some("--exact"),
        ];
        let words = words.into_iter().flatten().chain(names.iter().map(String::as_str));
        // One stream, so that the message of a panic is found beside its test.
        words.map(shell_word).chain(["2>&1".to_owned()]).collect::<Vec<_>>().join(" ")
    }

    /// Runs `lab/restart.sh` as one more test.
    fn run_restart(&self, progress: &Arc<Mutex<Progress>>, deaths: &mut Deaths, live: bool) -> Result<()> {
        loop {
            let mut watch = Watch::new(progress, live);
            watch.line(&format!("test {RESTART} ..."));
            let started = Instant::now();
            let status = match self.lab.restart_into(RUN_BOUND, Watch::new(progress, live)) {
                Err(Error::Died(why)) => {
                    deaths.add(Some(RESTART.to_owned()), why)?;
                    continue;
                }
                ended => ended?,
            };
            let seconds = started.elapsed().as_secs_f32();
            watch.line(&match status {
                0 => format!("test {RESTART} ... ok ({seconds:.1} s)"),
                _ => {
                    format!("test {RESTART} ... FAILED ({seconds:.1} s): lab/restart.sh ended with {status}")
                }
            });
            return Ok(());
        }
    }
}

/// In which tests level 1 has died; `None` is before the first.
#[derive(Default)]
struct Deaths(Vec<Option<String>>);

impl Deaths {
    /// Says that a new level 1 goes on, unless there were too many.
    fn add(&mut self, during: Option<String>, why: String) -> Result<()> {
        if self.0.contains(&during) || self.0.len() == MAX_DEATHS {
            return Err(Error::Died(why));
        }
        let place =
            during.as_ref().map_or("before the first test".to_owned(), |name| format!("in test {name}"));
        eprintln!("lab: level 1 died {place}; a new one goes on from there{why}");
        self.0.push(during);
        Ok(())
    }
}

fn look(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the tests of one level 1 have come, as their lines tell (tests/src/harness.rs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Those that have not ended.
    left: Vec<String>,
    running: Option<String>,
    passed: usize,
    failed: usize,
    /// Those that failed because a guest did not answer, and are run once more.
    again: BTreeSet<String>,
    /// What the running test has printed, when it is shown once the test has ended.
    held: String,
}

impl Progress {
    fn new(names: &[String]) -> Self {
        Self { left: names.to_vec(), ..Self::default() }
    }

    /// Takes a line. Gives one more to show, if there is something to say.
    fn line(&mut self, line: &str) -> Option<String> {
        let (name, rest) = line.strip_prefix("test ")?.split_once(" ...")?;
        if rest.is_empty() {
            self.running = Some(name.to_owned());
            return None;
        }
        self.running = None;
        if rest.starts_with(" ok (") {
            self.passed += 1;
        } else if SILENT_GUEST.iter().any(|said| rest.contains(said)) && self.again.insert(name.to_owned()) {
            return Some(format!(
                "lab: a guest fell silent in test {name}; it is run once more in a new level 1"
            ));
        } else {
            self.failed += 1;
        }
        self.left.retain(|left| left != name);
        None
    }

    /// Whether all have been run that one level 1 was asked to run: those that are left are to be run in another.
    fn has_run_all(&self) -> bool {
        self.left.iter().all(|left| self.again.contains(left))
    }
}

/// Whoever has stopped reading (`| head`) ends no test.
fn show(text: &str) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The stream with the lines of the tests. Shows each line at once (`live`), or all lines of a test when it has ended: the tests
/// of two level 1s run at the same time.
struct Watch {
    progress: Arc<Mutex<Progress>>,
    live: bool,
    /// The part of a line that has arrived.
    part: Vec<u8>,
}

impl Watch {
    fn new(progress: &Arc<Mutex<Progress>>, live: bool) -> Self {
        Self { progress: Arc::clone(progress), live, part: Vec::new() }
    }

    fn line(&mut self, line: &str) {
        let mut progress = look(&self.progress);
        let more = progress.line(line);
        for line in [line].into_iter().chain(more.as_deref()) {
            progress.held.push_str(line);
            progress.held.push('\n');
        }
        if self.live || progress.running.is_none() {
            show(&std::mem::take(&mut progress.held));
        }
    }
}

impl Write for Watch {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                let line = std::mem::take(&mut self.part);
                self.line(&String::from_utf8_lossy(&line));
            } else {
                self.part.push(*byte);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

impl Drop for Watch {
    /// What a level 1 that died had printed is shown too.
    fn drop(&mut self) {
        let mut held = std::mem::take(&mut look(&self.progress).held);
        held.push_str(&String::from_utf8_lossy(&self.part));
        show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_lines_of_the_tests_say_which_are_left() {
        let mut progress = Progress::new(&names(&["a::one", "a::two", "b::three"]));
        for line in [
            "test a::one ...",
            "something of its own",
            "test a::one ... ok (1.0 s)",
            "test a::two ...",
            "test a::two ... FAILED (2.0 s): it is not so ...",
            "test b::three ...",
            "",
        ] {
            progress.line(line);
        }
        assert_eq!(progress.left, ["b::three"]);
        assert_eq!(progress.running.as_deref(), Some("b::three"));
        progress.line("test b::three ... ok (3.0 s)");
        assert_eq!(progress, Progress { passed: 2, failed: 1, ..Progress::default() });
    }

    #[test]
    fn a_test_in_which_a_guest_fell_silent_is_run_once_more() {
        let mut progress = Progress::new(&names(&["a::one", "a::two"]));
        let fails = [
            "test a::one ...",
            "test a::one ... FAILED (130.0 s): the guest of web did not turn itself off within 120 s",
        ];
        let more: Vec<_> = fails.iter().filter_map(|line| progress.line(line)).collect();
        assert_eq!(more, ["lab: a guest fell silent in test a::one; it is run once more in a new level 1"]);
        assert!(!progress.has_run_all(), "the other has not been run");
        progress.line("test a::two ...");
        progress.line("test a::two ... FAILED (1.0 s): the guest has another MAC");
        assert!(progress.has_run_all());
        assert_eq!((progress.failed, &*progress.left), (1, &*names(&["a::one"])));
        for line in fails {
            progress.line(line);
        }
        assert_eq!((progress.failed, progress.left.len()), (2, 0), "but not a third time");
    }

    #[test]
    fn each_test_is_in_one_level1() {
        let many: Vec<_> = (0..=FEW).map(|number| format!("a::{number}")).collect();
        let mut dealt = parts(many.clone()).concat();
        dealt.sort();
        assert_eq!(dealt, many);
        assert_eq!(parts(names(&["a::one"])), [["a::one"]]);
    }

    #[test]
    fn a_second_death_in_the_same_test_is_too_many() {
        let mut deaths = Deaths::default();
        deaths.add(Some("a::one".into()), String::new()).unwrap();
        deaths.add(Some(RESTART.into()), String::new()).unwrap();
        assert!(deaths.add(Some(RESTART.into()), String::new()).is_err());
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let mut watch = Watch::new(&progress, false);
        for piece in ["te", "st a::one ..", ".\ntest a::one"] {
            watch.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(look(&progress).running.as_deref(), Some("a::one"));
    }
}
