//! How a partition, or a VF request of one, is asked for otherwise than before: every key that differs, old and new.
//!
//! It compares the values as they are written, so that a new key of a Spec needs no line here.

use std::{collections::BTreeSet, fmt::Display};

use ioward_model::{PartitionSpec, VfRequest};
use serde::Serialize;
use serde_json::{Map, Value};

use super::diff::{Change, Sign};

/// From one value to another.
#[must_use]
pub fn arrow(what: &str, before: impl Display, after: impl Display) -> String {
    format!("{what} {before} → {after}")
}

/// The keys of a partition that differ, but for its VFs.
#[must_use]
pub fn partition(before: &PartitionSpec, after: &PartitionSpec) -> Vec<String> {
    let keys = |spec| {
        let mut keys = keys_of(spec);
        keys.remove("vf");
        if let Some(Value::Object(boot)) = keys.remove("boot") {
            keys.extend(boot);
        }
        keys
    };
    differing(&keys(before), &keys(after)).into_iter().map(|difference| difference.text).collect()
}

/// The keys of a VF request that differ; of what its guest may, every word.
#[must_use]
pub fn request(before: &VfRequest, after: &VfRequest) -> Vec<Change> {
    let (mut before, mut after) = (keys_of(before), keys_of(after));
    let [may_before, may_after] = [&mut before, &mut after].map(|keys| match keys.remove("guest_may") {
        Some(Value::Object(words)) => words,
        _ => Map::new(),
    });
    let mut changes = differing(&before, &after);
    for word in words(&may_before, &may_after) {
        let bound = |may: &Map<String, Value>| match may.get(word) {
            Some(Value::String(bound)) => Some(bound.clone()),
            Some(_) => Some("any".to_owned()),
            None => None,
        };
        let narrowed = |bound: String| if bound == "any" { String::new() } else { format!(" {bound}") };
        let (sign, text) = match (bound(&may_before), bound(&may_after)) {
            (before, after) if before == after => continue,
            (None, after) => (Sign::New, format!("{word}{}", after.map(narrowed).unwrap_or_default())),
            (before, None) => (Sign::Gone, format!("{word}{}", before.map(narrowed).unwrap_or_default())),
            (Some(before), Some(after)) => (Sign::Changed, arrow(word, before, after)),
        };
        changes.push(Change { sign, text: format!("guest may change {text}"), within: Vec::new() });
    }
    changes
}

fn keys_of(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(keys)) => keys,
        _ => Map::new(),
    }
}

fn words<'a>(before: &'a Map<String, Value>, after: &'a Map<String, Value>) -> BTreeSet<&'a str> {
    before.keys().chain(after.keys()).map(String::as_str).collect()
}

fn differing(before: &Map<String, Value>, after: &Map<String, Value>) -> Vec<Change> {
    let differs = |key: &&str| before.get(*key) != after.get(*key);
    let line = |key: &str| {
        let (before, after) = (before.get(key), after.get(key));
        let text = arrow(name(key), said(key, before, after), said(key, after, before));
        Change { sign: Sign::of(before.is_some(), after.is_some()), text, within: Vec::new() }
    };
    words(before, after).into_iter().filter(differs).map(line).collect()
}

fn name(key: &str) -> &str {
    match key {
        "cpus" => "CPUs",
        "numa_node" => "NUMA node",
        "cmdline" => "command line",
        "libvirt" => "domain",
        "netns" => "namespace",
        key => key,
    }
}

/// A value, or what it means that there is none.
fn said(key: &str, value: Option<&Value>, other: Option<&Value>) -> String {
    match (value, other) {
        (Some(value), _) => text(value),
        (None, Some(Value::Bool(_))) => "off".to_owned(),
        (None, _) if key == "numa_node" => "any".to_owned(),
        (None, _) => "none".to_owned(),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Bool(on) => if *on { "on" } else { "off" }.to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("+"),
        Value::Object(keys) => {
            keys.iter().map(|(key, value)| format!("{key}={}", text(value))).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}
