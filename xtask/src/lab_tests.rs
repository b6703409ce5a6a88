//! The lab tests: all of them in one level 1, unless the emulator crashes under it, and one in a level 1 of its own, which it
//! resets.
//!
//! Emulating a CPU with SVM and a PCI bus that changes, QEMU fails once in a while: an assertion of its own, a kernel in level 1
//! that finds its stack gone, a CPU that is woken no more. That says nothing about the test it happened to. So a new level 1
//! goes on with that test, and the output says so. A second death in the same test is the test's.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::package;
use crate::process::shell_word;
use crate::workspace::Workspace;
use crate::{LAB_TESTS_BOUND, RUN_BOUND};

/// Level 1 may die so often in one run of the tests.
const MAX_DEATHS: usize = 3;
/// The test that is `lab/restart.sh`.
const RESTART: &str = "restart::a_killed_daemon_and_a_reset_host_lose_nothing";

/// Runs the tests whose name contains the filter, if there is one. Gives the status to exit with.
pub fn run(filter: Option<&str>) -> Result<u8> {
    let lab = Lab::prepare()?;
    let mut deaths = Deaths::default();
    let mut progress = Progress::default();
    // Nothing in level 1 has a name like that: no need to boot one to find out.
    let status = match filter {
        Some(filter) if filter.starts_with("restart::") => 0,
        _ => run_in_level1(&lab, filter, &mut deaths, &mut progress)?,
    };
    if filter.is_none_or(|filter| RESTART.contains(filter)) {
        run_restart(&lab, &mut deaths, &mut progress)?;
    }
    println!("{} passed, {} failed", progress.passed, progress.failed);
    Ok(if progress.failed == 0 { status } else { 1 })
}

/// Runs the binary `lab-tests`, which `Lab::prepare` built. Gives its status.
fn run_in_level1(
    lab: &Lab,
    filter: Option<&str>,
    deaths: &mut Deaths,
    progress: &mut Progress,
) -> Result<u8> {
    let program = Workspace::find()?.binaries.join("lab-tests");
    let package = format!("IOWARD_LAB_PACKAGE={}", package::build(true)?.display());
    let seed = std::env::var("IOWARD_SEED").ok().map(|seed| format!("IOWARD_SEED={seed}"));
    let words = [
        Some("env"),
        Some(&*package),
        seed.as_deref(),
        Some("IOWARD_LAB_MORE=yes"),
        Some(&*program.to_string_lossy()),
        filter,
    ];
    let command = words.into_iter().flatten().map(shell_word).collect::<Vec<_>>().join(" ");
    let started = Instant::now();
    let shared = Arc::new(Mutex::new(Progress::default()));
    let ended = loop {
        let goes_on = look(&shared).goes_on();
        let command = format!("export IOWARD_LAB_GOES_ON={}; exec {command}", shell_word(&goes_on));
        let watch = Watch { stream: io::stdout(), progress: Arc::clone(&shared), line: Vec::new() };
        let left = LAB_TESTS_BOUND.saturating_sub(started.elapsed());
        match lab.run_into(&command, left, watch) {
            Err(Error::Died(why)) => deaths.add(look(&shared).running.clone(), why)?,
            ended => break ended,
        }
    };
    *progress = look(&shared).clone();
    ended
}

/// Runs `lab/restart.sh` as one more test.
fn run_restart(lab: &Lab, deaths: &mut Deaths, progress: &mut Progress) -> Result<()> {
    loop {
        println!("test {RESTART} ...");
        let started = Instant::now();
        let status = match lab.restart(RUN_BOUND) {
            Err(Error::Died(why)) => {
                deaths.add(Some(RESTART.to_owned()), why)?;
                continue;
            }
            ended => ended?,
        };
        let seconds = started.elapsed().as_secs_f32();
        let line = match status {
            0 => format!("test {RESTART} ... ok ({seconds:.1} s)"),
            _ => format!("test {RESTART} ... FAILED ({seconds:.1} s): lab/restart.sh ended with {status}"),
        };
        println!("{line}");
        progress.line(&line);
        return Ok(());
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
        let what =
            during.as_ref().map_or("before the first test".to_owned(), |name| format!("in test {name}"));
        eprintln!("lab: level 1 died {what}; a new one goes on from there{why}");
        self.0.push(during);
        Ok(())
    }
}

fn look(progress: &Mutex<Progress>) -> std::sync::MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far the tests have come, as their lines tell (tests/src/harness.rs).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Progress {
    running: Option<String>,
    passed: usize,
    failed: usize,
}

impl Progress {
    fn line(&mut self, line: &str) {
        let Some((name, rest)) = line.strip_prefix("test ").and_then(|line| line.split_once(" ...")) else {
            return;
        };
        if rest.is_empty() {
            self.running = Some(name.to_owned());
            return;
        }
        self.running = None;
        if rest.starts_with(" ok (") {
            self.passed += 1;
        } else {
            self.failed += 1;
        }
    }

    /// The argument for `lab-tests`: the test to go on with, and the counts so far.
    fn goes_on(&self) -> String {
        let Self { running, passed, failed } = self;
        running.as_ref().map(|name| format!("{name} {passed} {failed}")).unwrap_or_default()
    }
}

/// A stream, seen through.
struct Watch<W> {
    stream: W,
    progress: Arc<Mutex<Progress>>,
    /// The part of a line that has arrived.
    line: Vec<u8>,
}

impl<W: Write> Write for Watch<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            if *byte == b'\n' {
                look(&self.progress).line(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else {
                self.line.push(*byte);
            }
        }
        self.stream.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_tests_say_how_far_they_have_come() {
        let mut progress = Progress::default();
        assert_eq!(progress.goes_on(), "");
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
        assert_eq!(progress.goes_on(), "b::three 1 1");
        progress.line("test b::three ... ok (3.0 s)");
        assert_eq!(progress, Progress { running: None, passed: 2, failed: 1 });
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
        let mut watch = Watch { stream: io::sink(), progress: Arc::clone(&progress), line: Vec::new() };
        for piece in ["te", "st a::one ..", ".\ntest a::one"] {
            watch.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(look(&progress).running.as_deref(), Some("a::one"));
    }
}
