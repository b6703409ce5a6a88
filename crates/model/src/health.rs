//! Health reporters of an adapter's driver, as devlink tells of them (Documentation/networking/devlink/devlink-health.rst).

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// A reporter: a part of an adapter that can fail, as its firmware or a queue, with what its driver has noted of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthReporter {
    /// Its name, which its driver has chosen, as `fw_fatal`.
    pub name: String,
    /// The port of the adapter that it is of, by devlink's number; `None`: it is of the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u32>,
    /// Whether its driver has an error that it has not recovered from.
    pub state: HealthState,
    /// Errors since the driver has the adapter.
    pub errors: u64,
    /// How often it has recovered from one.
    pub recoveries: u64,
    /// Whether the driver recovers by itself; `None`: it has no way to recover from what is reported here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_recover: Option<bool>,
}

/// The state of a reporter (`enum devlink_health_reporter_state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum HealthState {
    /// Nothing was reported that it has not recovered from.
    #[default]
    Healthy,
    /// The latest error is still there.
    Error,
}

impl HealthReporter {
    /// Whether there is an error that the driver could recover from, and has not. A reporter without a way to recover keeps its first error
    /// for as long as the driver has the adapter (devlink_health_report in net/devlink/health.c), whatever becomes of it.
    #[must_use]
    pub fn is_unrecovered(&self) -> bool {
        self.state == HealthState::Error && self.auto_recover.is_some()
    }
}

impl fmt::Display for HealthReporter {
    /// As `fw_fatal`, or `tx of port 3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{} of port {port}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// A reporter has to be in error for so long before that is a fault of its adapter: a driver that recovers by itself has it in that state
/// meanwhile, for some milliseconds mostly, and what it has recovered from is none. Milliseconds.
pub const UNRECOVERED_MS: u64 = 1_000;

/// The reporters of an adapter that is watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedHealth {
    /// Those that were seen, and with how many errors one does not count: it was in error when it was first looked at, and nothing has
    /// changed since.
    seen: BTreeMap<(Option<u32>, String), Option<u64>>,
    /// Since which look there are some in error, in milliseconds, and which, in words.
    in_error: Option<(u64, String)>,
}

impl WatchedHealth {
    /// Takes in what a look has found. Where the kernel does not tell, it is as it was: it waits for a driver that is recovering.
    pub(crate) fn see(&mut self, reporters: Option<&[HealthReporter]>, now_ms: u64) {
        let Some(reporters) = reporters else { return };
        let mut in_error = Vec::new();
        for reporter in reporters {
            let is_in_error = reporter.state == HealthState::Error;
            let excused = self.seen.entry((reporter.port, reporter.name.clone()));
            let excused = excused.or_insert(is_in_error.then_some(reporter.errors));
            *excused = excused.filter(|errors| is_in_error && *errors == reporter.errors);
            if reporter.is_unrecovered() && excused.is_none() {
                in_error.push(reporter);
            }
        }
        // They are all gone while no driver has it, and come back with one.
        if !reporters.is_empty() {
            let is_there =
                |port, name: &str| reporters.iter().any(|one| one.port == port && one.name == name);
            self.seen.retain(|(port, name), _| is_there(*port, name));
        }
        self.in_error = in_error.split_first().map(|(first, others)| {
            let since = self.in_error.as_ref().map_or(now_ms, |(since, _)| *since);
            let others =
                if others.is_empty() { String::new() } else { format!(", and {} more", others.len()) };
            (since, format!("its health reporter {first} is in error{others}"))
        });
    }

    /// Whether any is in error that its driver could recover from.
    pub(crate) fn is_in_error(&self) -> bool {
        self.in_error.is_some()
    }

    /// Which, in words, if that is so for too long.
    pub(crate) fn stays_in_error(&self, now_ms: u64) -> Option<&str> {
        let is_long = |since: u64| now_ms.saturating_sub(since) >= UNRECOVERED_MS;
        self.in_error.as_ref().filter(|(since, _)| is_long(*since)).map(|(_, what)| what.as_str())
    }
}
