//! Goals, and whether they are met: a benchmark ends with status 1 when one is missed.

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
}
