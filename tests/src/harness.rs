//! Runs the lab tests in sequence, in the manner of libtest: they share one level 1, as long as it lives.
//!
//! libtest itself runs tests in parallel, swallows the output of a test that hangs, and prints no counts on its
//! last line.

use std::error::Error;
use std::io::BufRead;
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

/// Runs the tests whose name contains one of the arguments (all, without any), or with `--exact` those whose name is one of
/// them. With `--list`, prints their names; with `--from-stdin`, runs the one that a line of stdin names, and then the next, until
/// a line is empty. The last line counts passed and failed tests.
pub fn main(tests: &[Test]) -> ExitCode {
    let (options, names): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|word| word.starts_with("--"));
    let exact = options.iter().any(|option| option == "--exact");
    let wanted = tests.iter().filter(|test| {
        names.is_empty()
            || names.iter().any(|name| if exact { test.name == *name } else { test.name.contains(name) })
    });
    if options.iter().any(|option| option == "--list") {
        wanted.for_each(|test| println!("{}", test.name));
        return ExitCode::SUCCESS;
    }
    let counts = if options.iter().any(|option| option == "--from-stdin") {
        run_those_of(std::io::stdin().lock(), tests)
    } else {
        run(wanted)
    };
    println!("{} passed, {} failed", counts.passed, counts.failed);
    if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
}

/// A name that is none fails, as a test would.
fn run_those_of(names: impl BufRead, tests: &[Test]) -> Counts {
    let mut counts = Counts::default();
    for name in names.lines().map_while(Result::ok).take_while(|name| !name.is_empty()) {
        let unknown = Test { name: name.clone(), run: Box::new(|| Err("there is no such test".into())) };
        let of_one = run(std::iter::once(tests.iter().find(|test| test.name == name).unwrap_or(&unknown)));
        counts.passed += of_one.passed;
        counts.failed += of_one.failed;
    }
    counts
}

fn run<'a>(tests: impl Iterator<Item = &'a Test>) -> Counts {
    let mut counts = Counts::default();
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
        assert_eq!(run(tests.iter()), Counts { passed: 1, failed: 2 });
        assert_eq!(
            run_those_of(&b"fine\nfine\nno such\n\nerror\n"[..], &tests),
            Counts { passed: 2, failed: 1 }
        );
    }
}
