//! Rows as text of at most 80 columns, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{row::Row, spread::Spread};

/// Columns of a line.
const COLUMNS: usize = 80;
/// Columns of a name.
const NAME: usize = 40;

/// A row: its contenders, each with its median and spread, then the ratios, each with its goal and what it says of that. Without
/// `judged`, figures alone.
#[must_use]
pub fn text(row: &Row, judged: bool) -> String {
    let mut text = String::new();
    let rounds = row.contenders.first().map_or(0, |contender| contender.samples.len());
    let times = match rounds {
        0 => String::new(),
        1 => ", once".to_owned(),
        _ => format!(", {rounds} times each"),
    };
    line(&mut text, &format!("{}: {}{times}", row.name, row.what));
    for contender in &row.contenders {
        let Some(spread) = Spread::of(&contender.samples) else { continue };
        let Spread { median, low, high } = spread;
        let spread = format!("{} to {}", figure(low), figure(high));
        line(
            &mut text,
            &format!("  {:<NAME$}{:>9} {:<3}{spread:>20}", cut(&contender.name), figure(median), row.unit),
        );
    }
    for outcome in row.outcomes() {
        let of = &row.contenders[outcome.comparison.of].name;
        let name = match outcome.comparison.to {
            Some(to) => format!("{of} / {}", row.contenders[to].name),
            None => of.clone(),
        };
        let Spread { median, low, high } = outcome.spread;
        let goal = match (outcome.comparison.goal, outcome.verdict) {
            (Some(goal), Some(verdict)) if judged => format!("<= {}: {}", figure(goal), verdict.word()),
            _ => String::new(),
        };
        line(
            &mut text,
            &format!(
                "  {:<37}{:>6} ({}-{}) {goal}",
                cut_to(&name, 36),
                figure(median),
                figure(low),
                figure(high)
            ),
        );
    }
    for grown in row.grown() {
        let Spread { median, low, high } = grown.spread;
        let goal = match (grown.growth.goal, grown.verdict) {
            (Some(goal), Some(verdict)) if judged => format!("<= {}: {}", figure(goal), verdict.word()),
            _ => String::new(),
        };
        let name = format!("{}: exponent of {}", grown.growth.of, grown.growth.with);
        line(&mut text, &format!("  {:<37}{median:>6.2} ({low:.2}-{high:.2}) {goal}", cut_to(&name, 36)));
    }
    row.notes.iter().for_each(|note| line(&mut text, &format!("  {note}")));
    if let Some(why) = &row.failure {
        line(&mut text, &format!("  FAILED: {why}"));
    }
    text
}

/// All rows, and what they were measured on, as one document.
#[must_use]
pub fn document(bench: &str, about: &Value, rows: &[Row]) -> Value {
    json!({"bench": bench, "about": about, "rows": rows.iter().map(Row::json).collect::<Vec<_>>()})
}

/// Three digits that count.
#[must_use]
pub fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.095 || size == 0.0 => 2,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

/// Appends a text in lines of at most [`COLUMNS`] columns; what is broken off is indented.
fn line(text: &mut String, new: &str) {
    for (number, part) in new.lines().enumerate() {
        let mut rest = part.trim_end().to_owned();
        if number > 0 {
            rest = format!("    {}", rest.trim_start());
        }
        while rest.chars().count() > COLUMNS {
            let fits: usize = rest.char_indices().nth(COLUMNS).map_or(rest.len(), |(at, _)| at);
            let indent = rest.len() - rest.trim_start().len();
            let at = rest[..fits].rfind(' ').filter(|at| *at > indent).unwrap_or(fits);
            let _ = writeln!(text, "{}", rest[..at].trim_end());
            rest = format!("    {}", rest[at..].trim_start());
        }
        let _ = writeln!(text, "{rest}");
    }
}

fn cut(name: &str) -> String {
    cut_to(name, NAME - 1)
}

fn cut_to(name: &str, columns: usize) -> String {
    name.chars().take(columns).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Role;

    #[test]
    fn no_line_is_longer_than_80_columns() {
        let long = "a contender with a name that is longer than any column of a table could ever be";
        let mut row = Row::new("row", format!("{long}, which does what {long}s do"), "ms")
            .with(Role::Ours, long)
            .with(Role::Peer, long)
            .ratio(0, 1, 1.25)
            .take_turns(7, |round, place| Ok::<_, String>(1234.5 * (round + 1) as f64 + 100.0 * place as f64))
            .unwrap();
        row.failure = Some(format!("{}\nsecond line", "x".repeat(300)));
        for line in text(&row, true).lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
        assert!(text(&row, true).contains("<= 1.25: met"), "{}", text(&row, true));
        assert!(!text(&row, false).contains("met"), "a short run asserts no time");
    }

    #[test]
    fn figures_have_the_digits_that_count() {
        assert_eq!(
            [1234.5, 12.34, 1.234, 0.123, 0.0123, 0.0].map(figure),
            ["1234", "12.3", "1.23", "0.12", "0.0123", "0.00"]
        );
    }
}
