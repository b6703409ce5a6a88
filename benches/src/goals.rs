//! Goals, and whether they are met: a benchmark ends with status 1 when one is missed.

use std::{cell::Cell, process::ExitCode};

use crate::spread::Spread;

/// What a figure that may be at most `bound` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All of the spread is within the bound.
    Met,
    /// All of it is beyond.
    Missed,
    /// The bound is within the spread: the machine was too busy, or the rounds too few, to tell.
    Undecided,
}

impl Verdict {
    /// Holds a spread against a bound.
    #[must_use]
    pub fn at_most(spread: Spread, bound: f64) -> Self {
        if spread.high <= bound {
            Self::Met
        } else if spread.low > bound {
            Self::Missed
        } else {
            Self::Undecided
        }
    }

    /// As it is printed.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Undecided => "undecided",
        }
    }
}

/// The goals of a run whose figures are single ones: the fastest of many, or CPU time.
#[derive(Default)]
pub struct Goals {
    missed: Cell<usize>,
}

impl Goals {
    /// Notes whether a goal is met, and gives the word for it.
    pub fn judge(&self, met: bool) -> &'static str {
        if met {
            return Verdict::Met.word();
        }
        self.missed.set(self.missed.get() + 1);
        Verdict::Missed.word()
    }

    /// What the benchmark ends with, and a last line that says why that is 1.
    #[must_use]
    pub fn status(&self) -> ExitCode {
        match self.missed.get() {
            0 => ExitCode::SUCCESS,
            1 => {
                eprintln!("a goal is missed");
                ExitCode::FAILURE
            }
            missed => {
                eprintln!("{missed} goals are missed");
                ExitCode::FAILURE
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_within_the_spread_is_undecided_and_never_won() {
        let spread = Spread { median: 0.9, low: 0.8, high: 1.1 };
        assert_eq!(Verdict::at_most(spread, 1.0), Verdict::Undecided);
        assert_eq!(Verdict::at_most(spread, 1.1), Verdict::Met);
        assert_eq!(Verdict::at_most(spread, 0.7), Verdict::Missed);
    }

    #[test]
    fn one_goal_that_is_missed_is_enough() {
        let goals = Goals::default();
        assert_eq!(goals.judge(true), "met");
        assert_eq!(format!("{:?}", goals.status()), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(goals.judge(false), "MISSED");
        assert_eq!(goals.judge(true), "met");
        assert_eq!(format!("{:?}", goals.status()), format!("{:?}", ExitCode::FAILURE));
    }
}
