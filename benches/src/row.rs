//! One row of a table of measurements: what was done, by whom, how long it took each, and what the ratios say.

use serde_json::{Value, json};

use crate::{goals::Verdict, growth::exponent, spread::Spread};

/// Who a contender is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// ioward.
    Ours,
    /// The least that could be done: the kernel or QEMU, used by hand.
    Floor,
    /// Another program for the same.
    Peer,
}

impl Role {
    const fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Floor => "floor",
            Self::Peer => "peer",
        }
    }
}

/// One of those that do the work of a row.
#[derive(Clone, Debug)]
pub struct Contender {
    /// What it is called.
    pub name: String,
    /// Who it is.
    pub role: Role,
    /// One figure for each round, in the row's unit.
    pub samples: Vec<f64>,
}

/// A contender against another, or a figure against a bound of its own.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Which contender, by its place in the row.
    pub of: usize,
    /// Against which; `None`: the figure itself, in the row's unit, is held against the goal.
    pub to: Option<usize>,
    /// What it is to be at most; `None`: nothing was asked for.
    pub goal: Option<f64>,
}

/// A comparison, with what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// What was compared.
    pub comparison: Comparison,
    /// The ratios within each round, or the figures.
    pub spread: Spread,
    /// What that says of the goal; `None` where there is none.
    pub verdict: Option<Verdict>,
}

/// Contenders that do the same in several sizes.
#[derive(Clone, Debug)]
pub struct Growth {
    /// What grows: the name that they share.
    pub of: String,
    /// What the size is counted in: "VFs".
    pub with: &'static str,
    /// Each size, with the contender that does it, by its place in the row.
    pub sizes: Vec<(f64, usize)>,
    /// What the exponent is to be at most; `None`: nothing was asked for.
    pub goal: Option<f64>,
}

/// How it grows.
#[derive(Clone, Debug)]
pub struct Grown<'a> {
    /// What was compared.
    pub growth: &'a Growth,
    /// The exponents of each round; see [`exponent`].
    pub spread: Spread,
    /// What that says of the goal; `None` where there is none.
    pub verdict: Option<Verdict>,
}

/// A row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name: one word, by which it can be asked for.
    pub name: &'static str,
    /// What is done.
    pub what: String,
    /// The unit of the figures: "ms", "MB".
    pub unit: &'static str,
    /// Those that do it.
    pub contenders: Vec<Contender>,
    /// What is compared.
    pub comparisons: Vec<Comparison>,
    /// What grows.
    pub growths: Vec<Growth>,
    /// What else was seen, a line each.
    pub notes: Vec<String>,
    /// Why there is no figure, or not all of them.
    pub failure: Option<String>,
}

impl Row {
    /// A row without contenders.
    #[must_use]
    pub fn new(name: &'static str, what: impl Into<String>, unit: &'static str) -> Self {
        Self {
            name,
            what: what.into(),
            unit,
            contenders: Vec::new(),
            comparisons: Vec::new(),
            growths: Vec::new(),
            notes: Vec::new(),
            failure: None,
        }
    }

    /// A row that could not be run.
    #[must_use]
    pub fn failed(name: &'static str, what: impl Into<String>, why: String) -> Self {
        Self { failure: Some(why), ..Self::new(name, what, "") }
    }

    /// Adds a contender.
    #[must_use]
    pub fn with(mut self, role: Role, name: impl Into<String>) -> Self {
        self.contenders.push(Contender { name: name.into(), role, samples: Vec::new() });
        self
    }

    /// Adds a comparison of two contenders, by their places, whose ratio is to be at most `goal`.
    #[must_use]
    pub fn ratio(mut self, of: usize, to: usize, goal: impl Into<Option<f64>>) -> Self {
        self.comparisons.push(Comparison { of, to: Some(to), goal: goal.into() });
        self
    }

    /// Adds a contender whose figures are known.
    #[must_use]
    pub fn with_samples(mut self, role: Role, name: impl Into<String>, samples: Vec<f64>) -> Self {
        self.contenders.push(Contender { name: name.into(), role, samples });
        self
    }

    /// Adds that some contenders, by their places, do the same in these sizes, and how the exponent of its growth is to be at most.
    #[must_use]
    pub fn grows(
        mut self,
        of: impl Into<String>,
        with: &'static str,
        sizes: Vec<(f64, usize)>,
        goal: impl Into<Option<f64>>,
    ) -> Self {
        self.growths.push(Growth { of: of.into(), with, sizes, goal: goal.into() });
        self
    }

    /// Adds that a contender's figure is to be at most `goal`, in the row's unit.
    #[must_use]
    pub fn at_most(mut self, of: usize, goal: f64) -> Self {
        self.comparisons.push(Comparison { of, to: None, goal: Some(goal) });
        self
    }

    /// Has all contenders do their work in turns, each round beginning with another one. `work` is given the round and the contender's place, and
    /// gives its figure.
    ///
    /// # Errors
    /// The first error of `work`, with the contender's name.
    pub fn take_turns<E: std::fmt::Display>(
        mut self,
        rounds: usize,
        mut work: impl FnMut(usize, usize) -> Result<f64, E>,
    ) -> Result<Self, String> {
        let count = self.contenders.len();
        for round in 0..rounds {
            for turn in 0..count {
                let place = (round + turn) % count;
                let figure = work(round, place)
                    .map_err(|error| format!("{}: {error}", self.contenders[place].name))?;
                self.contenders[place].samples.push(figure);
            }
        }
        Ok(self)
    }

    /// What came of the comparisons. One without figures is left out.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        let outcome = |comparison: &Comparison| {
            let of = &self.contenders.get(comparison.of)?.samples;
            let samples: Vec<f64> = match comparison.to {
                Some(to) => {
                    let to = &self.contenders.get(to)?.samples;
                    of.iter().zip(to).map(|(of, to)| of / to).collect()
                }
                None => of.clone(),
            };
            let spread = Spread::of(&samples)?;
            let verdict = comparison.goal.map(|goal| Verdict::at_most(spread, goal));
            Some(Outcome { comparison: *comparison, spread, verdict })
        };
        self.comparisons.iter().filter_map(outcome).collect()
    }

    /// How what grows does. What lacks figures is left out.
    #[must_use]
    pub fn grown(&self) -> Vec<Grown<'_>> {
        let grown = |growth: &'_ Growth| {
            let samples = |place: usize| self.contenders.get(place).map(|contender| &contender.samples);
            let rounds = growth.sizes.iter().map(|(_, place)| samples(*place).map_or(0, Vec::len)).min()?;
            let of_round = |round: usize| {
                let points: Option<Vec<(f64, f64)>> =
                    growth.sizes.iter().map(|(size, place)| Some((*size, samples(*place)?[round]))).collect();
                exponent(&points?)
            };
            let exponents: Option<Vec<f64>> = (0..rounds).map(of_round).collect();
            let spread = Spread::of(&exponents?)?;
            Some((spread, growth.goal.map(|goal| Verdict::at_most(spread, goal))))
        };
        self.growths
            .iter()
            .filter_map(|growth| grown(growth).map(|(spread, verdict)| Grown { growth, spread, verdict }))
            .collect()
    }

    /// Whether it could be run whole: each contender has figures, and each comparison and growth an outcome.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let counts = self.contenders.iter().all(|contender| !contender.samples.is_empty());
        let all = self.outcomes().len() == self.comparisons.len() && self.grown().len() == self.growths.len();
        self.failure.is_none() && counts && all
    }

    /// How many goals are missed.
    #[must_use]
    pub fn missed(&self) -> usize {
        let compared = self.outcomes().into_iter().map(|outcome| outcome.verdict);
        let grown = self.grown().into_iter().map(|grown| grown.verdict);
        compared.chain(grown).filter(|verdict| *verdict == Some(Verdict::Missed)).count()
    }

    /// As JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let spread =
            |spread: Spread| json!({"median": spread.median, "low": spread.low, "high": spread.high});
        let contenders: Vec<Value> = self
            .contenders
            .iter()
            .map(|contender| {
                json!({
                    "name": contender.name,
                    "role": contender.role.word(),
                    "spread": Spread::of(&contender.samples).map(spread),
                    "samples": contender.samples,
                })
            })
            .collect();
        let name = |place: usize| self.contenders.get(place).map(|contender| contender.name.clone());
        let comparisons: Vec<Value> = self
            .outcomes()
            .iter()
            .map(|outcome| {
                json!({
                    "of": name(outcome.comparison.of),
                    "to": outcome.comparison.to.and_then(name),
                    "spread": spread(outcome.spread),
                    "goal": outcome.comparison.goal,
                    "verdict": outcome.verdict.map(Verdict::word),
                })
            })
            .collect();
        let growths: Vec<Value> = self
            .grown()
            .iter()
            .map(|grown| {
                let sizes = grown.growth.sizes.iter();
                json!({
                    "of": grown.growth.of,
                    "with": grown.growth.with,
                    "sizes": sizes.clone().map(|(size, _)| *size).collect::<Vec<f64>>(),
                    "contenders": sizes.map(|(_, place)| name(*place)).collect::<Vec<_>>(),
                    "exponent": spread(grown.spread),
                    "goal": grown.growth.goal,
                    "verdict": grown.verdict.map(Verdict::word),
                })
            })
            .collect();
        json!({
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "contenders": contenders,
            "comparisons": comparisons,
            "growths": growths,
            "notes": self.notes,
            "failure": self.failure,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        let row = Row::new("bind", "bind VFs", "ms").with(Role::Ours, "ioward").with(Role::Floor, "by hand");
        row.ratio(0, 1, 1.1)
    }

    #[test]
    fn contenders_take_turns_and_each_begins_once() {
        let mut turns = Vec::new();
        let row = row().take_turns(2, |round, place| {
            turns.push((round, place));
            Ok::<_, String>(if place == 0 { 3.0 } else { 2.0 })
        });
        let row = row.unwrap();
        assert_eq!(turns, [(0, 0), (0, 1), (1, 1), (1, 0)]);
        let outcomes = row.outcomes();
        assert_eq!((outcomes[0].spread.median, outcomes[0].verdict), (1.5, Some(Verdict::Missed)));
        assert!(row.is_whole() && row.missed() == 1);
        assert_eq!(row.json()["comparisons"][0]["verdict"], "MISSED");
    }

    /// Each round has an exponent of its own, so that a busy moment is seen as a spread.
    #[test]
    fn what_grows_is_told_with_its_exponent() {
        let row = Row::new("bind", "bind VFs", "ms")
            .with_samples(Role::Ours, "1 VF", vec![1.0, 2.0])
            .with_samples(Role::Ours, "4 VFs", vec![4.0, 4.0])
            .grows("ioward", "VFs", vec![(1.0, 0), (4.0, 1)], 0.4);
        let grown = row.grown();
        assert_eq!((grown[0].spread.low, grown[0].spread.high), (0.5, 1.0));
        assert!(row.is_whole() && row.missed() == 1);
        assert_eq!(row.json()["growths"][0]["verdict"], "MISSED");
        let nothing = Row::new("bind", "bind VFs", "ms").grows("ioward", "VFs", Vec::new(), None);
        assert!(!nothing.is_whole(), "no figures are no growth");
    }

    #[test]
    fn a_peer_that_fails_fails_the_row() {
        let why = row().take_turns(1, |_, place| if place == 0 { Ok(1.0) } else { Err("not found") });
        assert_eq!(why.unwrap_err(), "by hand: not found");
        assert!(!row().is_whole(), "no figures are no measurement");
    }
}
