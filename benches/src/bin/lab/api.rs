//! ioward's API, asked by hand: HTTP/1.0, so that an answer is whole when the connection ends.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use crate::Result;

/// How long an answer may be silent.
const SILENCE: Duration = Duration::from_secs(180);

/// The socket of a daemon.
pub struct Api(pub PathBuf);

/// A change that is done.
pub struct Change {
    /// From the request to the end of its last event.
    pub took: Duration,
    /// From the request to its first event: a look at the host, and planning.
    pub before: Duration,
    /// What was told of it.
    pub events: Vec<Value>,
}

impl Api {
    /// Asks, and gives the body of the answer.
    pub fn ask(&self, route: &str, body: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(SILENCE))?;
        let length = body.len();
        write!(
            stream,
            "{route} HTTP/1.0\r\nhost: ioward\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no HTTP")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        if !status.starts_with('2') {
            return Err(format!("{route}: {status}: {body}").into());
        }
        Ok(body.to_owned())
    }

    /// Plans for an intent, carries it out, and waits for its end.
    pub fn change(&self, intent: &Value) -> Result<Change> {
        let (begun, at) = (Instant::now(), SystemTime::now());
        let begins: Value = serde_json::from_str(&self.ask("POST /v1/changes", &intent.to_string())?)?;
        let id = begins["id"].as_str().ok_or("a change without an ID")?;
        let told = self.ask(&format!("GET /v1/changes/{id}/events"), "")?;
        let took = begun.elapsed();
        let events =
            told.lines().map(serde_json::from_str).collect::<std::result::Result<Vec<Value>, _>>()?;
        match events.last() {
            Some(last) if last["event"] == "plan-done" => {
                let first = events.first().and_then(|event| event["time_ms"].as_u64()).unwrap_or_default();
                let at = at.duration_since(UNIX_EPOCH)?;
                Ok(Change { took, before: Duration::from_millis(first).saturating_sub(at), events })
            }
            last => Err(format!("{intent} ended with {last:?}").into()),
        }
    }
}

impl Change {
    /// Where its time went: "40 ms before the first step; 7 bind-driver 205 ms". Steps that ran side by side count each for itself.
    pub fn told(&self) -> String {
        let mut kinds: Vec<(String, usize, f64)> = Vec::new();
        for (name, took) in self.steps() {
            match kinds.iter_mut().find(|(kind, ..)| *kind == name) {
                Some((_, count, sum)) => (*count, *sum) = (*count + 1, *sum + took),
                None => kinds.push((name, 1, took)),
            }
        }
        let each: Vec<String> =
            kinds.iter().map(|(kind, count, sum)| format!("{count} {kind} {sum:.0} ms")).collect();
        format!(
            "the last by the API: {} ms before the first step; {}",
            self.before.as_millis(),
            each.join(", ")
        )
    }

    /// How long its steps took, each for itself, in milliseconds, by the name of the step.
    pub fn steps(&self) -> Vec<(String, f64)> {
        let time = |event: &Value| event["time_ms"].as_f64().unwrap_or_default();
        let ends = self.events.iter().filter(|event| event["event"] == "step-done");
        let steps = ends.filter_map(|end| {
            let is_its = |event: &&Value| event["event"] == "step-started" && event["step"] == end["step"];
            let start = self.events.iter().find(is_its)?;
            let name = start["what"]["step"].as_str()?.to_owned();
            Some((name, time(end) - time(start)))
        });
        steps.collect()
    }
}
