//! Which events `ioward events` shows: since when, of which partitions, of which kind.

use std::{
    collections::BTreeSet,
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use ioward_model::{Event, EventKind, Name};
use serde_json::Value;

use crate::present::events;

/// Where the events that are shown begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// After this number.
    Number(u64),
    /// At this time, in milliseconds since 1970 (UTC).
    Time(u64),
}

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(number) = text.parse() {
            return Ok(Self::Number(number));
        }
        if let Some(age) = age(text) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
            return Ok(Self::Time(u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(age)));
        }
        let wrong =
            || "write an event's number, a time as 2026-11-27T03:15:00Z (UTC), or an age as 90s, 10m, 2h, 3d";
        events::parse_time(text).map(Self::Time).ok_or_else(|| wrong().to_owned())
    }
}

/// Milliseconds of `90s`, `10m`, `2h`, `3d`.
fn age(text: &str) -> Option<u64> {
    let seconds = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(seconds * 1000)
}

/// A kind of event, or how several begin.
///
/// # Errors
/// When there is none.
pub fn kind(text: &str) -> Result<String, String> {
    let kinds = kinds();
    if kinds.iter().any(|kind| is_of(kind, text)) {
        return Ok(text.to_owned());
    }
    Err(format!("there are: {}", kinds.join(", ")))
}

fn is_of(kind: &str, asked: &str) -> bool {
    kind.strip_prefix(asked).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// All kinds: serde names them when it is asked for one that is not.
fn kinds() -> Vec<String> {
    let no_kind = serde_json::from_str::<EventKind>(r#"{"event":"?"}"#).err();
    let message = no_kind.map(|error| error.to_string()).unwrap_or_default();
    message.split('`').skip(1).step_by(2).skip(1).map(str::to_owned).collect()
}

/// Which events are shown.
#[derive(Debug)]
pub struct EventsFilter {
    since: Option<Since>,
    partitions: Vec<Name>,
    kinds: Vec<String>,
    /// Steps that have begun and are of these partitions: what comes of them names the step only.
    steps: BTreeSet<(u64, u64)>,
    /// Plans with such steps.
    plans: BTreeSet<u64>,
}

impl EventsFilter {
    /// Those since then, of these partitions and of these kinds; none of either: of all.
    #[must_use]
    pub fn new(since: Option<Since>, partitions: Vec<Name>, kinds: Vec<String>) -> Self {
        Self { since, partitions, kinds, steps: BTreeSet::new(), plans: BTreeSet::new() }
    }

    /// Where to begin, if somebody has said so.
    #[must_use]
    pub fn since(&self) -> Option<Since> {
        self.since
    }

    /// Whether it has to see events from before it begins too.
    #[must_use]
    pub fn needs_all(&self) -> bool {
        !self.partitions.is_empty()
    }

    /// Only those after this one.
    pub fn begin_after(&mut self, number: u64) {
        self.since = Some(Since::Number(number));
    }

    /// Whether this is one of them. Every event is to be shown to it, in order.
    pub fn passes(&mut self, event: &Event) -> bool {
        match event.kind {
            // Numbers begin anew; and whoever asks for some events is to know that some may be missing.
            EventKind::Restarted { .. } => {
                self.since = self.since.filter(|since| matches!(since, Since::Time(_)));
                return true;
            }
            EventKind::Missed { .. } => return true,
            _ => {}
        }
        let Ok(value) = serde_json::to_value(&event.kind) else { return true };
        let is_since = match self.since {
            None => true,
            Some(Since::Number(number)) => event.number > number,
            Some(Since::Time(time)) => event.time_ms >= time,
        };
        let kind = value["event"].as_str().unwrap_or_default();
        let is_kind = self.kinds.is_empty() || self.kinds.iter().any(|asked| is_of(kind, asked));
        let is_partition = self.partitions.is_empty() || self.is_of_partitions(&value);
        is_since && is_kind && is_partition
    }

    fn is_of_partitions(&mut self, value: &Value) -> bool {
        let plan = value["plan"].as_u64();
        let step = plan.zip(value["step"].as_u64());
        if self.names_partition(value) {
            self.plans.extend(plan);
            self.steps.extend(step);
            return true;
        }
        match (plan, step) {
            (_, Some(step)) => self.steps.contains(&step),
            (Some(plan), None) => self.plans.contains(&plan),
            (None, None) => false,
        }
    }

    /// Whether a partition, or a VF of one as `web/net0`, stands anywhere in it.
    fn names_partition(&self, value: &Value) -> bool {
        let is_one = |text: &str| {
            let partition = text.split_once('/').map_or(text, |(partition, _)| partition);
            self.partitions.iter().any(|name| name.as_str() == partition)
        };
        match value {
            Value::Object(keys) => keys.iter().any(|(key, value)| match (key.as_str(), value) {
                ("partition" | "owner" | "who" | "request", Value::String(text)) => is_one(text),
                // Of a partition that is made or changed.
                ("to" | "from", Value::Object(keys))
                    if ["boot", "libvirt", "netns"].iter().any(|kind| keys.contains_key(*kind)) =>
                {
                    keys.get("name").and_then(Value::as_str).is_some_and(is_one)
                }
                (_, value) => self.names_partition(value),
            }),
            Value::Array(values) => values.iter().any(|value| match value {
                Value::String(text) => text.contains('/') && is_one(text),
                value => self.names_partition(value),
            }),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_a_number_a_time_or_an_age() {
        assert_eq!("7".parse(), Ok(Since::Number(7)));
        assert_eq!("1970-01-02".parse(), Ok(Since::Time(86_400_000)));
        assert_eq!("1970-01-01T00:00:01.500Z".parse(), Ok(Since::Time(1500)));
        assert!(matches!("10m".parse(), Ok(Since::Time(_))));
        for wrong in ["", "yesterday", "1970-13-01", "1970-01-01T25:00", "-1", "m", "99999999999999999999d"] {
            assert!(wrong.parse::<Since>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_kind_is_a_word_or_how_it_begins() {
        for known in ["plan", "plan-done", "partition-ended", "step"] {
            assert!(kind(known).is_ok(), "{known}");
        }
        assert!(kind("pla").unwrap_err().contains("plan-started, step-started"));
    }

    #[test]
    fn what_comes_of_a_step_is_of_its_partition_too() {
        let events = r#"{"number":1,"time_ms":0,"event":"plan-started","plan":3,"steps":2}
{"number":2,"time_ms":0,"event":"step-started","plan":3,"step":1,"what":{"step":"start-partition","partition":"db"}}
{"number":3,"time_ms":0,"event":"step-done","plan":3,"step":1}
{"number":4,"time_ms":0,"event":"step-started","plan":3,"step":2,"what":{"step":"start-partition","partition":"web"}}
{"number":5,"time_ms":0,"event":"step-done","plan":3,"step":2}
{"number":6,"time_ms":0,"event":"plan-done","plan":3}
{"number":7,"time_ms":0,"event":"inventory-changed","generation":4}"#;
        let shown = |mut filter: EventsFilter| -> Vec<u64> {
            let events = events.lines().map(|line| serde_json::from_str::<Event>(line).unwrap());
            events.filter(|event| filter.passes(event)).map(|event| event.number).collect()
        };
        let web = || vec!["web".parse().unwrap()];
        assert_eq!(shown(EventsFilter::new(None, web(), Vec::new())), [4, 5, 6]);
        assert_eq!(shown(EventsFilter::new(None, web(), vec!["step-done".into()])), [5]);
        assert_eq!(shown(EventsFilter::new(Some(Since::Number(5)), Vec::new(), Vec::new())), [6, 7]);
        assert_eq!(shown(EventsFilter::new(None, Vec::new(), vec!["plan".into()])), [1, 6]);
    }
}
