//! From the text of a Spec to a [`Spec`] in spite of mistakes: each is told, then left out, so that the next one shows too.

use std::{collections::BTreeSet, ops::Range};

use serde::Deserialize;
use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue, Deserializer},
};

use crate::{Spec, nearest, partition_form::SpecForm};

/// The most mistakes that are told at once.
const MAX_MISTAKES: usize = 32;

/// A mistake, where it stands in the text.
pub(crate) struct Mistake {
    pub span: Option<Range<usize>>,
    pub message: String,
}

/// The result of reading.
pub(crate) struct Read {
    /// The Spec; of one with mistakes, what is left of it.
    pub spec: Option<Spec>,
    /// The mistakes.
    pub mistakes: Vec<Mistake>,
    /// Keys of its partitions that don't go together, as `(partition[0].cpus, message)`.
    pub misplaced: Vec<(String, String)>,
    /// Whether the tables that are left have the places in their lists that they have in the text.
    pub in_place: bool,
    /// Where keys were left out: what is wrong there may come of that.
    pub incomplete: Vec<Range<usize>>,
}

/// Reads what can be read. The text is TOML.
pub(crate) fn read(document: Spanned<DeTable<'_>>) -> Read {
    let mut read = Read {
        spec: None,
        mistakes: Vec::new(),
        misplaced: Vec::new(),
        in_place: true,
        incomplete: Vec::new(),
    };
    let mut left_out: BTreeSet<(usize, String)> = BTreeSet::new();
    let mut document = document;
    for _ in 0..MAX_MISTAKES {
        let error = match SpecForm::deserialize(Deserializer::from(document.clone())) {
            Ok(form) => {
                let (spec, misplaced) = form.read();
                (read.spec, read.misplaced) = (Some(spec), misplaced);
                return read;
            }
            Err(error) => error,
        };
        let span = error.span();
        let missing = missing_key(error.message());
        let is_told = span.as_ref().zip(missing).is_some_and(|(span, key)| {
            // It stands there, and was wrong.
            left_out.contains(&(span.start, key.to_owned()))
        });
        if !is_told {
            read.mistakes.push(Mistake { span: span.clone(), message: in_words(error.message()) });
        }
        let Some(span) = span else { return read };
        match leave_out(document.get_mut(), &span) {
            Some(LeftOut::Key { table, key }) => {
                left_out.extend(table.as_ref().map(|table| (table.start, key)));
                read.incomplete.extend(table);
            }
            Some(LeftOut::Item { is_table }) => {
                read.in_place &= !is_table;
                read.incomplete.push(span);
            }
            None => return read,
        }
    }
    read
}

/// The thing that was left out.
enum LeftOut {
    /// A key of a table; `None`: of the document.
    Key { table: Option<Range<usize>>, key: String },
    /// Something of a list.
    Item { is_table: bool },
}

impl LeftOut {
    /// The same; a key that is of no table yet is of this one.
    fn within(self, at: Range<usize>) -> Self {
        match self {
            Self::Key { table: None, key } => Self::Key { table: Some(at), key },
            other => other,
        }
    }
}

/// Leaves out what stands at `span`: a key, a value, or something of a list.
fn leave_out(table: &mut DeTable<'_>, span: &Range<usize>) -> Option<LeftOut> {
    for (_, value) in table.iter_mut() {
        let at = value.span();
        let found = match value.get_mut() {
            DeValue::Table(inner) => leave_out(inner, span).map(|left_out| left_out.within(at)),
            DeValue::Array(items) => leave_out_of(items, span),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    let is_it = |key: &Spanned<_>, value: &Spanned<_>| key.span() == *span || value.span() == *span;
    let key =
        table.iter().find(|(key, value)| is_it(key, value)).map(|(key, _)| key.get_ref().to_string())?;
    table.remove(key.as_str());
    Some(LeftOut::Key { table: None, key })
}

fn leave_out_of(items: &mut DeArray<'_>, span: &Range<usize>) -> Option<LeftOut> {
    for item in items.iter_mut() {
        let at = item.span();
        let found = match item.get_mut() {
            DeValue::Table(inner) => leave_out(inner, span).map(|left_out| left_out.within(at)),
            DeValue::Array(inner) => leave_out_of(inner, span),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    let n = items.iter().position(|item| item.span() == *span)?;
    let is_table = matches!(items[n].get_ref(), DeValue::Table(_));
    let kept = std::mem::replace(items, DeArray::new()).into_iter().enumerate().filter(|(m, _)| *m != n);
    *items = kept.map(|(_, item)| item).collect();
    Some(LeftOut::Item { is_table })
}

fn missing_key(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.strip_suffix('`')
}

/// Serde's words for a mistake in those of a person who writes a Spec.
pub(crate) fn in_words(message: &str) -> String {
    if let Some(key) = missing_key(message) {
        return format!("the key '{key}' is missing");
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match wrong.and_then(|wrong| wrong.rsplit_once(", expected ")) {
        Some((found, "any value")) => format!("{} is too large for a number", found_in_words(found)),
        Some((found, expected)) => format!("{} is no {}", found_in_words(found), expected_in_words(expected)),
        None => with_suggestion(message),
    }
}

fn found_in_words(found: &str) -> String {
    let value = |kind: &str| found.strip_prefix(kind).map(|rest| rest.trim_matches('`').to_owned());
    match found {
        "map" => return "a table".to_owned(),
        "sequence" => return "a list".to_owned(),
        _ => {}
    }
    let number = found.split(" as ").next().unwrap_or(found);
    value("string ")
        .map(|text| text.chars().take(60).collect())
        .or_else(|| value("boolean "))
        .or_else(|| number.strip_prefix("integer ").map(|rest| rest.trim_matches('`').to_owned()))
        .or_else(|| value("floating point "))
        .unwrap_or_else(|| found.to_owned())
}

fn expected_in_words(expected: &str) -> String {
    match expected {
        "u8" => "whole number from 0 to 255".to_owned(),
        "u16" => "whole number from 0 to 65535".to_owned(),
        "u32" => "whole number from 0 to 4294967295".to_owned(),
        "u64" | "i64" | "i128" | "u128" => "whole number".to_owned(),
        "a string" | "string" | "a borrowed string" => "text in quotes".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "list in [ ]".to_owned(),
        "a map" => "table".to_owned(),
        "path string" => "path in quotes".to_owned(),
        _ if expected.starts_with("struct ") => "table of keys and values".to_owned(),
        _ => expected.trim_start_matches("a ").trim_start_matches("an ").to_owned(),
    }
}

/// Serde says: unknown field `memroy`, expected one of `name`, `cpus`. What helps is the nearest of them.
fn with_suggestion(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    if !(message.starts_with("unknown field") || message.starts_with("unknown variant")) {
        return message.to_owned();
    }
    let Some(unknown) = words.next() else { return message.to_owned() };
    let known: Vec<&str> = words.collect();
    let what = if message.starts_with("unknown field") { "key" } else { "value" };
    match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("unknown {what} '{unknown}'; did you mean '{near}'?"),
        None => format!("unknown {what} '{unknown}'; known here: {}", known.join(", ")),
    }
}
