//! Runs the lab tests in sequence, in the manner of libtest: they share one level 1, as long as it lives.
//!
//! libtest itself runs tests in parallel, swallows the output of a test that hangs, and prints no counts on its
//! last line.

use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// The outcome of a test: any error fails it, and so does a panic (`assert!`).
pub type Outcome = Result<(), Box<dyn Error>>;

/// A test.
pub struct Test {
    /// `subject::what_must_hold`.
    pub name: String,
    /// The test itself.
    pub run: Box<dyn Fn() -> Outcome>,
}

/// Lists tests by their paths: `tests![host::three_adapters, …]`.
#[macro_export]
macro_rules! tests {
    ($($path:path),* $(,)?) => {
        vec![$($crate::harness::Test { name: stringify!($path).to_owned(), run: Box::new($path) }),*]
    };
}

/// Runs the tests whose name contains the first argument (all, without one); the last line counts passed and failed
/// tests. After an earlier level 1 died (xtask/src/lab_tests.rs), `IOWARD_LAB_GOES_ON` names the test it died in,
/// and the counts until then. When further tests follow outside of level 1 (`IOWARD_LAB_MORE`), xtask prints the
/// last line.
pub fn main(tests: &[Test]) -> ExitCode {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let (first, counts) = goes_on(&std::env::var("IOWARD_LAB_GOES_ON").unwrap_or_default());
    let wanted = tests.iter().filter(|test| test.name.contains(&filter));
    let counts =
        run(wanted.skip_while(|test| first.as_ref().is_some_and(|first| test.name != *first)), counts);
    if std::env::var_os("IOWARD_LAB_MORE").is_none() {
        println!("{} passed, {} failed", counts.passed, counts.failed);
    }
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// `NAME PASSED FAILED`; starts from the beginning for anything else.
fn goes_on(text: &str) -> (Option<String>, Counts) {
    let words: Vec<_> = text.split(' ').collect();
    let [name, passed, failed] = words[..] else { return (None, Counts::default()) };
    match (passed.parse(), failed.parse()) {
        (Ok(passed), Ok(failed)) => (Some(name.to_owned()), Counts { passed, failed }),
        _ => (None, Counts::default()),
    }
}

fn run<'a>(tests: impl Iterator<Item = &'a Test>, mut counts: Counts) -> Counts {
    for test in tests {
        // Printed before it runs, so that a hanging test is known by name.
        println!("test {} ...", test.name);
        let started = Instant::now();
        let failure = match catch_unwind(AssertUnwindSafe(&test.run)) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            // The panic's message is on stderr already.
            Err(_) => Some("panicked".to_owned()),
        };
        let seconds = started.elapsed().as_secs_f32();
        if let Some(why) = failure {
            counts.failed += 1;
            println!("test {} ... FAILED ({seconds:.1} s): {why}", test.name);
        } else {
            counts.passed += 1;
            println!("test {} ... ok ({seconds:.1} s)", test.name);
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_and_panics_fail_and_the_rest_still_runs() {
        let tests = [
            Test { name: "error".into(), run: Box::new(|| Err("broken".into())) },
            Test { name: "panic".into(), run: Box::new(|| panic!("told on purpose")) },
            Test { name: "fine".into(), run: Box::new(|| Ok(())) },
        ];
        assert_eq!(run(tests.iter(), Counts::default()), Counts { passed: 1, failed: 2 });
        assert_eq!(run(tests.iter(), Counts { passed: 5, failed: 1 }), Counts { passed: 6, failed: 3 });
    }

    #[test]
    fn a_run_continues_after_the_test_given() {
        let expected = (Some("a::two".to_owned()), Counts { passed: 12, failed: 1 });
        assert_eq!(goes_on("a::two 12 1"), expected);
        assert_eq!(goes_on(""), (None, Counts::default()));
        assert_eq!(goes_on("a::two twelve 1"), (None, Counts::default()));
    }
}
