//! The suites about errors of hardware, by name, and how many of their tests have passed: what `cargo xtask test` ends with. Counted from
//! what the tests print, as they run.

use std::collections::BTreeMap;
use std::fmt;

/// Suites: what they are called, the source of the program that they are in (as cargo tells it), and how the names of their tests begin.
const HERE: [(&str, &str, &str); 8] = [
    ("faults", "tests/faults/main.rs", "adapters::"),
    ("faults during plans", "tests/faults/main.rs", "meanwhile::"),
    ("halted machines", "tests/faults/main.rs", "halts::"),
    ("failover", "tests/faults/main.rs", "failover::"),
    ("standby", "tests/faults/main.rs", "standby::"),
    ("moving", "tests/moving/main.rs", ""),
    ("conformance of errors", "tests/conformance_on_sim.rs", "a_pf_that_"),
    ("conformance of errors", "tests/conformance_on_sim.rs", "from_a_process_of_its_own::a_pf_that_"),
];
/// The same of those that run in the lab.
const IN_THE_LAB: [(&str, &str); 6] = [
    ("faults", "adapter_faults::"),
    ("devlink health", "devlink_health::"),
    ("failover", "failover::"),
    ("standby", "standby::"),
    ("moving", "moving::"),
    ("conformance of errors", "conformance_on_linux::a_pf_that_"),
];
/// Simulated stories with faults of adapters: their seeds, and the faults in them.
const SEEDS: &str = "simulation seeds with faults";
const FAULTS: &str = "simulated faults";

/// How many tests of each suite have passed.
#[derive(Debug, Default)]
pub struct ErrorSuites {
    here: BTreeMap<&'static str, u64>,
    in_the_lab: BTreeMap<&'static str, u64>,
    /// The source of the program that runs.
    source: String,
}

impl ErrorSuites {
    /// Takes in a line that `cargo test` has printed, to either of its outputs.
    pub fn line(&mut self, line: &str) {
        if let Some(source) = line.split_once("Running ").and_then(|(_, rest)| rest.split(' ').next()) {
            source.clone_into(&mut self.source);
        }
        let passed = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... ok"));
        for (suite, source, begins) in HERE {
            if self.source == source && passed.is_some_and(|name| name.starts_with(begins)) {
                *self.here.entry(suite).or_default() += 1;
            }
        }
        if let Some((seeds, faults)) = seeds(line).filter(|_| self.source == "tests/simulation/main.rs") {
            *self.here.entry(SEEDS).or_default() += seeds;
            *self.here.entry(FAULTS).or_default() += faults;
        }
    }

    /// Takes in a test that has passed in the lab.
    pub fn passed_in_the_lab(&mut self, name: &str) {
        for (suite, _) in IN_THE_LAB.iter().filter(|(_, begins)| name.starts_with(begins)) {
            *self.in_the_lab.entry(suite).or_default() += 1;
        }
    }

    /// Whether any has run.
    pub fn is_empty(&self) -> bool {
        self.here.is_empty() && self.in_the_lab.is_empty()
    }
}

/// Of a line as `300 seeds; 708 faults, …`.
fn seeds(line: &str) -> Option<(u64, u64)> {
    let (seeds, rest) = line.split_once(" seeds; ")?;
    let (faults, _) = rest.split_once(" faults")?;
    Some((seeds.parse().ok()?, faults.parse().ok()?))
}

impl fmt::Display for ErrorSuites {
    /// As `error suites that passed: faults 7, standby 8; in the lab: faults 4`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |suites: &BTreeMap<&'static str, u64>| {
            suites.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        f.write_str("error suites that passed: ")?;
        let (here, lab) = (counted(&self.here), counted(&self.in_the_lab));
        match (here.is_empty(), lab.is_empty()) {
            (_, true) => f.write_str(&here),
            (true, false) => write!(f, "in the lab: {lab}"),
            (false, false) => write!(f, "{here}; in the lab: {lab}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_that_pass_are_counted_by_suite_and_no_others() {
        let mut suites = ErrorSuites::default();
        for line in [
            "     Running tests/faults/main.rs (target/debug/deps/faults-9fdc)",
            "test adapters::errors_by_the_thousand_are_told_once ... ok",
            "test adapters::a_frozen_adapter ... FAILED",
            "test standby::a_guest ... ok",
            "test operations::a_guest ... ok",
            "     Running tests/simulation/main.rs (target/debug/deps/simulation-2962)",
            "300 seeds; 708 faults, 311 of them with attempts to recover",
            "300 seeds; 451 faults in the middle of plans, of which 218 failed",
            "1000 seeds; plans: 4425 done, 227 undone",
            "     Running tests/moving/main.rs (target/debug/deps/moving-2962)",
            "test standby::it_moves ... ok",
        ] {
            suites.line(line);
        }
        suites.passed_in_the_lab("adapter_faults::an_adapter");
        suites.passed_in_the_lab("lab::a_guest");
        assert_eq!(
            suites.to_string(),
            "error suites that passed: faults 1, moving 1, simulated faults 1159, simulation seeds with faults 600, standby 1; in the \
             lab: faults 1"
        );
    }
}
