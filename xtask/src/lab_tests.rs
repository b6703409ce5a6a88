//! The lab tests, in two level 1s at the same time, unless they are few: a level 1 has one CPU. Whichever has ended a test is given
//! the next ([`Queue`]), so that both end at about the same time. What lab/ has to show (`SHOWS`) are tests, too, each in a level 1 of
//! its own: one resets it, one is long.
//!
//! ```text
//!   Queue ──name──> Watch ──lab.in──> lab-tests --from-stdin, in level 1
//!                     ^──lab.out── "test NAME ... ok (1.0 s)"
//! ```
//!
//! Emulating a CPU with SVM and a PCI bus that changes, QEMU fails once in a while: an assertion of its own, a kernel in level 1
//! that finds its stack gone, a CPU that is woken no more. That says nothing about the test it happened to. So a new level 1
//! goes on with that test, and the output says so. A second death in the same test is the test's. So it is with a test that failed
//! because a guest did not answer any more: the same faults lose or double a guest's interrupts (lab/README.md, Traps).

use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::lab::{BENCH, FAILOVER, LIBVIRT, Lab, MIGRATE, RESTART, STANDBY, Show};
use crate::package;
use crate::process::{output, shell_word};
use crate::workspace::Workspace;
use crate::{LAB_TESTS_BOUND, RUN_BOUND};

/// A level 1 and those in its place may die so often.
const MAX_DEATHS: usize = 3;
/// Lines of a failed test that are shown once more at the end.
const LAST_LINES: usize = 60;
/// So few tests share one level 1: booting another would take longer.
const FEW: usize = 6;
/// Parts of an error that say that a guest heard neither of its console nor of its power button: of the tests' own
/// (tests/src/guest.rs), and of the daemon's. A command that does not end in a guest is not among them: it may wait for ioward.
const SILENT_GUEST: [&str; 3] =
    ["no shell on the console after", "still on after", "did not turn itself off within"];
/// Tests that are scripts of lab/.
const SHOWS: [(&str, Show); 6] = [
    ("restart::a_killed_daemon_and_a_reset_host_lose_nothing", RESTART),
    ("libvirt::a_domain_is_adopted_given_more_and_released_without_a_trace", LIBVIRT),
    ("failover::a_guest_goes_on_by_its_standby_when_its_adapter_fails_it", FAILOVER),
    ("standby::a_guest_goes_on_by_a_bridge_while_its_vf_is_away", STANDBY),
    ("migrate::a_guest_moves_to_another_daemon_and_back", MIGRATE),
    ("bench::each_row_against_the_peers_can_be_measured", BENCH),
];

/// Runs the tests whose name contains the filter, if there is one. Gives the status to exit with, and those that have passed.
pub fn run(filter: Option<&str>) -> Result<(u8, Vec<String>)> {
    let tests = Tests::prepare()?;
    let is_wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let queue = Queue::of(SHOWS.into_iter().filter(|(name, _)| is_wanted(name)), tests.names(filter)?);
    let level1s = if queue.len() <= FEW { 1 } else { 2 };
    let run_some = || {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let mut deaths = Deaths::default();
        while let Some((name, show)) = queue.next_show() {
            tests.show(name, show, &progress, &mut deaths, level1s == 1)?;
        }
        tests.run_in_level1(&queue, &progress, &mut deaths, level1s == 1)?;
        let progress = std::mem::take(&mut *look(&progress));
        Ok((progress.passed, progress.failed))
    };
    let counts = thread::scope(|scope| {
        let running: Vec<_> = (0..level1s).map(|_| scope.spawn(run_some)).collect();
        let ended = running.into_iter().map(|some| {
            some.join().unwrap_or_else(|_| Err(Error::Other("a thread of the lab tests panicked".into())))
        });
        // All of them are waited for, so that what one has run is told in full when the other can't go on.
        ended.collect::<Vec<Result<(Vec<String>, Vec<Failure>)>>>()
    });
    let (mut passed, mut failed) = (Vec::new(), Vec::new());
    for count in counts {
        let of_one = count?;
        passed.extend(of_one.0);
        failed.extend(of_one.1);
    }
    // At the end of a long log, where everybody looks.
    failed.iter().for_each(|failure| print!("\nfailed:\n{failure}"));
    println!("{} passed, {} failed", passed.len(), failed.len());
    Ok((u8::from(!failed.is_empty()), passed))
}

/// What a test that failed has printed: its last lines before it failed, why it did, and the last lines of what goes with that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Failure {
    before: VecDeque<String>,
    why: String,
    after: VecDeque<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.before.iter().chain([&self.why]).chain(&self.after);
        lines.map(|line| line.trim_end()).try_for_each(|line| writeln!(f, "{line}"))
    }
}

/// Keeps the last lines alone.
fn keep(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == LAST_LINES {
        lines.pop_front();
    }
    lines.push_back(line.to_owned());
}

/// What is to be run yet, in order: the tests of a level 1 of their own first, and of the others those first that take long. Whoever is
/// free takes the next.
#[derive(Clone)]
struct Queue {
    shows: Arc<Mutex<VecDeque<(&'static str, Show)>>>,
    tests: Arc<Mutex<VecDeque<String>>>,
}

impl Queue {
    fn of(shows: impl Iterator<Item = (&'static str, Show)>, tests: Vec<String>) -> Self {
        let shows = Arc::new(Mutex::new(shows.collect()));
        Self { shows, tests: Arc::new(Mutex::new(tests.into())) }
    }

    fn len(&self) -> usize {
        look(&self.shows).len() + look(&self.tests).len()
    }

    fn next_show(&self) -> Option<(&'static str, Show)> {
        look(&self.shows).pop_front()
    }

    fn next_test(&self) -> Option<String> {
        look(&self.tests).pop_front()
    }
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

    /// Runs tests in a level 1 until none is left, and in a new one whenever it dies.
    fn run_in_level1(
        &self,
        queue: &Queue,
        progress: &Arc<Mutex<Progress>>,
        deaths: &mut Deaths,
        live: bool,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            // Not in a `while let`, which would hold the lock for as long as the tests run.
            let first = look(progress).begin_with(queue);
            let Some(first) = first else { return Ok(()) };
            let (ours, theirs) =
                UnixStream::pair().map_err(Error::file("open", Path::new("the port of stdin")))?;
            let mut watch = Watch::new(progress, live);
            watch.feed = Some(Feed { queue: queue.clone(), input: ours });
            watch.hand_out(Some(&first));
            let bound = LAB_TESTS_BOUND.saturating_sub(started.elapsed());
            match self.lab.run_between(&self.command(), bound, theirs.into(), watch) {
                Err(Error::Died(why)) => deaths.add(look(progress).current.clone(), why)?,
                // Whether it is 0 or 1 is known from its lines.
                Ok(0 | 1) if look(progress).has_run_all() => {}
                Ok(status) => {
                    let left = look(progress).current.clone().unwrap_or_default();
                    return Err(Error::Other(format!(
                        "lab-tests ended with status {status} and without having run {left}"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn command(&self) -> String {
        let package = format!("IOWARD_LAB_PACKAGE={}", self.package.display());
        let passed_on = |name: &str| std::env::var(name).ok().map(|value| format!("{name}={value}"));
        let (seed, kills) = (passed_on("IOWARD_SEED"), passed_on("IOWARD_KILLS"));
        let program = self.program.to_string_lossy();
        let words = [Some("exec"), Some("env"), Some(&*package), seed.as_deref(), kills.as_deref()];
        let words = words.into_iter().flatten().chain([&*program, "--from-stdin"]);
        // One stream, so that the message of a panic is found beside its test.
        words.map(shell_word).chain(["2>&1".to_owned()]).collect::<Vec<_>>().join(" ")
    }

    /// Runs a script of lab/ as a test.
    fn show(
        &self,
        name: &str,
        show: Show,
        progress: &Arc<Mutex<Progress>>,
        deaths: &mut Deaths,
        live: bool,
    ) -> Result<()> {
        loop {
            let mut watch = Watch::new(progress, live);
            look(progress).current = Some(name.to_owned());
            watch.line(&format!("test {name} ..."));
            let started = Instant::now();
            let status = match self.lab.show_into(show, RUN_BOUND, Watch::new(progress, live)) {
                Err(Error::Died(why)) => {
                    deaths.add(Some(name.to_owned()), why)?;
                    continue;
                }
                ended => ended?,
            };
            let seconds = started.elapsed().as_secs_f32();
            watch.line(&match status {
                0 => format!("test {name} ... ok ({seconds:.1} s)"),
                _ => {
                    format!("test {name} ... FAILED ({seconds:.1} s): {} ended with {status}", show.script)
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

fn look<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the tests of one level 1 have come, as their lines tell (tests/src/harness.rs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// The one that was handed out last, and has not ended.
    current: Option<String>,
    /// It is to be run once more, in a new level 1.
    in_a_new_one: bool,
    passed: Vec<String>,
    failed: Vec<Failure>,
    /// What comes until the next test begins goes with why the last one has failed.
    has_just_failed: bool,
    /// Those that failed because a guest did not answer, and are run once more.
    again: BTreeSet<String>,
    /// What the running test has printed, when it is shown once the test has ended.
    held: String,
    /// The last lines of the running test.
    printed: VecDeque<String>,
}

/// What a line says of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Other,
    Ended,
    /// It has ended, and is to be run in a new level 1.
    Again,
}

impl Progress {
    /// The test that a new level 1 begins with.
    fn begin_with(&mut self, queue: &Queue) -> Option<String> {
        self.in_a_new_one = false;
        self.current = self.current.take().or_else(|| queue.next_test());
        self.current.clone()
    }

    fn line(&mut self, line: &str) -> Said {
        let of_a_test = line.strip_prefix("test ").and_then(|line| line.split_once(" ..."));
        let Some((name, rest)) = of_a_test.filter(|(_, rest)| !rest.is_empty()) else {
            // The next test begins.
            self.has_just_failed &= of_a_test.is_none();
            match self.failed.last_mut().filter(|_| self.has_just_failed) {
                Some(failure) => keep(&mut failure.after, line),
                None => keep(&mut self.printed, line),
            }
            return Said::Other;
        };
        if self.current.as_deref() != Some(name) {
            return Said::Other;
        }
        let before = std::mem::take(&mut self.printed);
        if rest.starts_with(" ok (") {
            self.passed.push(name.to_owned());
        } else if SILENT_GUEST.iter().any(|said| rest.contains(said)) && self.again.insert(name.to_owned()) {
            self.in_a_new_one = true;
            return Said::Again;
        } else {
            self.has_just_failed = true;
            self.failed.push(Failure { before, why: line.to_owned(), after: VecDeque::new() });
        }
        self.current = None;
        Said::Ended
    }

    /// Whether all have been run that one level 1 was given, but for what is to be run in another.
    fn has_run_all(&self) -> bool {
        self.current.is_none() || self.in_a_new_one
    }
}

/// Whoever has stopped reading (`| head`) ends no test. This file's own tests show nothing: it would look like tests that fail.
fn show(text: &str) {
    if cfg!(test) {
        return;
    }
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

/// The stream with the lines of the tests. Shows each line at once (`live`), or all lines of a test when it has ended: the tests
/// of two level 1s run at the same time. Hands out the next test when one has ended.
struct Watch {
    progress: Arc<Mutex<Progress>>,
    live: bool,
    /// `None` beside a script.
    feed: Option<Feed>,
    /// The part of a line that has arrived.
    part: Vec<u8>,
}

/// Where the next test comes from, and who is told.
struct Feed {
    queue: Queue,
    input: UnixStream,
}

impl Watch {
    fn new(progress: &Arc<Mutex<Progress>>, live: bool) -> Self {
        Self { progress: Arc::clone(progress), live, feed: None, part: Vec::new() }
    }

    fn line(&mut self, line: &str) {
        let progress = Arc::clone(&self.progress);
        let mut progress = look(&progress);
        let said = progress.line(line);
        progress.held.push_str(line);
        progress.held.push('\n');
        match (said, &self.feed) {
            (Said::Again, _) => {
                let name = progress.current.clone().unwrap_or_default();
                progress.held.push_str(&format!(
                    "lab: a guest fell silent in test {name}; it is run once more in a new level 1\n"
                ));
                self.hand_out(None);
            }
            (Said::Ended, Some(feed)) => {
                progress.current = feed.queue.next_test();
                self.hand_out(progress.current.as_deref());
            }
            (Said::Ended, None) | (Said::Other, _) => {}
        }
        if self.live || said != Said::Other || progress.current.is_none() {
            show(&std::mem::take(&mut progress.held));
        }
    }

    /// Tells `lab-tests` what to run next; nothing more is an empty line. One that can't hear is dead, which is found out by that.
    fn hand_out(&mut self, name: Option<&str>) {
        if let Some(feed) = &mut self.feed {
            let _ = writeln!(feed.input, "{}", name.unwrap_or_default());
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
    use std::io::{BufRead, BufReader};

    use super::*;

    fn queue(tests: &[&str]) -> Queue {
        Queue::of(SHOWS.into_iter(), tests.iter().map(|name| (*name).to_owned()).collect())
    }

    /// A stream of lines, and what `lab-tests` reads.
    fn watch(queue: &Queue) -> (Watch, Arc<Mutex<Progress>>, BufReader<UnixStream>) {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut watch = Watch::new(&progress, false);
        watch.feed = Some(Feed { queue: queue.clone(), input: ours });
        let first = look(&progress).begin_with(queue);
        watch.hand_out(first.as_deref());
        (watch, progress, BufReader::new(theirs))
    }

    fn next(input: &mut BufReader<UnixStream>) -> String {
        let mut line = String::new();
        input.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    #[test]
    fn whoever_has_ended_a_test_is_given_the_next() {
        let queue = queue(&["a::one", "a::two", "b::three", "b::four"]);
        let (mut one, of_one, mut to_one) = watch(&queue);
        let (mut other, of_other, mut to_other) = watch(&queue);
        assert_eq!((next(&mut to_one), next(&mut to_other)), ("a::one".into(), "a::two".into()));
        for line in ["test a::two ...", "test a::one ... ok (said by a test)", "test a::two ... ok (1.0 s)"] {
            other.line(line);
        }
        assert_eq!(next(&mut to_other), "b::three");
        other.line("test b::three ... FAILED (2.0 s): it is not so ...");
        assert_eq!(next(&mut to_other), "b::four");
        other.line("test b::four ... ok (1.0 s)");
        one.line("test a::one ... ok (9.0 s)");
        assert_eq!((next(&mut to_one), next(&mut to_other)), (String::new(), String::new()), "nothing more");
        let (of_one, of_other) = (look(&of_one), look(&of_other));
        assert!(of_one.has_run_all() && of_other.has_run_all());
        assert_eq!((of_other.passed.len(), of_other.failed.len(), of_one.passed.len()), (2, 1, 1));
    }

    #[test]
    fn a_level1_in_place_of_one_that_died_begins_with_the_same_test() {
        let queue = queue(&["a::one", "a::two"]);
        let (mut watch, progress, _input) = watch(&queue);
        watch.line("test a::one ...");
        drop(watch);
        assert!(!look(&progress).has_run_all());
        assert_eq!(look(&progress).begin_with(&queue).as_deref(), Some("a::one"));
        assert_eq!(queue.next_test().as_deref(), Some("a::two"), "and the other is left");
    }

    #[test]
    fn a_test_in_which_a_guest_fell_silent_is_run_once_more() {
        let queue = queue(&["a::one", "a::two"]);
        let (mut watch, progress, mut input) = watch(&queue);
        let fails = "test a::one ... FAILED (130.0 s): the guest of web did not turn itself off within 120 s";
        watch.line(fails);
        assert_eq!(
            (next(&mut input), next(&mut input)),
            ("a::one".into(), String::new()),
            "no more in this one"
        );
        assert!(look(&progress).has_run_all());
        assert_eq!(look(&progress).begin_with(&queue).as_deref(), Some("a::one"));
        assert!(!look(&progress).has_run_all());
        watch.line(fails);
        assert_eq!(next(&mut input), "a::two", "but not a third time");
        let progress = look(&progress);
        assert_eq!((progress.failed.len(), progress.passed.len()), (1, 0));
    }

    /// A test failed on a machine whose log was kept in parts: nobody could see why.
    #[test]
    fn why_a_test_failed_is_kept_with_what_was_printed_around_it() {
        let queue = queue(&["a::one", "a::two"]);
        let (mut watch, progress, _input) = watch(&queue);
        let lines = [
            "test a::one ...",
            "seed 7",
            "test a::one ... FAILED (1.0 s): it is not so",
            "a log",
            "test a::two ...",
        ];
        lines.into_iter().for_each(|line| watch.line(line));
        watch.line("test a::two ... ok (1.0 s)");
        assert_eq!(
            look(&progress).failed[0].to_string(),
            "test a::one ...\nseed 7\ntest a::one ... FAILED (1.0 s): it is not so\na log\n"
        );
    }

    #[test]
    fn a_second_death_in_the_same_test_is_too_many() {
        let mut deaths = Deaths::default();
        deaths.add(Some("a::one".into()), String::new()).unwrap();
        deaths.add(Some("a::two".into()), String::new()).unwrap();
        assert!(deaths.add(Some("a::two".into()), String::new()).is_err());
    }

    #[test]
    fn a_line_may_come_in_pieces() {
        let (mut watch, progress, _input) = watch(&queue(&["a::one"]));
        for piece in ["te", "st a::one ..", ". ok (1.0 s)\ntest a::one"] {
            watch.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(look(&progress).passed.len(), 1);
    }
}
