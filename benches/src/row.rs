//! One row of a table of measurements: what was done, by whom, how long it took each, and what the ratios say.

use serde_json::{Value, json};

use crate::{goals::Verdict, spread::Spread};

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

    /// Whether it could be run whole: each contender has figures, and each comparison an outcome.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        let counts = self.contenders.iter().all(|contender| !contender.samples.is_empty());
        self.failure.is_none() && counts && self.outcomes().len() == self.comparisons.len()
    }

    /// How many goals are missed.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.outcomes().iter().filter(|outcome| outcome.verdict == Some(Verdict::Missed)).count()
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
        json!({
            "name": self.name,
            "what": self.what,
            "unit": self.unit,
            "contenders": contenders,
            "comparisons": comparisons,
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

    #[test]
    fn a_peer_that_fails_fails_the_row() {
        let why = row().take_turns(1, |_, place| if place == 0 { Ok(1.0) } else { Err("not found") });
        assert_eq!(why.unwrap_err(), "by hand: not found");
        assert!(!row().is_whole(), "no figures are no measurement");
    }
}
