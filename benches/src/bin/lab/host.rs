//! ioward in level 1, as its users have it: its daemon, its command, its API.

use std::{path::PathBuf, process::Command, time::Duration, time::Instant};

use ioward_tests::{daemon::Daemon, level1::sh};
use serde_json::{Value, json};

use crate::{
    Result,
    api::{Api, Change},
};

/// How long a program of somebody else's may take.
const PATIENCE: u64 = 120;

/// A daemon of a row's own. Its end leaves the host as it was after the boot.
pub struct Host {
    /// The daemon and the command.
    pub daemon: Daemon,
    /// The API.
    pub api: Api,
}

impl Host {
    /// Starts a daemon.
    pub fn start() -> Result<Self> {
        let daemon = Daemon::start()?;
        let api = Api(daemon.socket());
        Ok(Self { daemon, api })
    }

    /// Both of its processes.
    pub fn processes(&self) -> Result<[u32; 2]> {
        // Machines are children, too, and come after the management partition.
        let children = self.daemon.imp()?;
        Ok([self.daemon.process(), children.lines().next().unwrap_or_default().parse()?])
    }

    /// Carries an intent out, and gives how long that took.
    pub fn change(&self, intent: &Value) -> Result<Change> {
        self.api.change(intent)
    }

    /// The same by the command, in milliseconds.
    pub fn command(&self, arguments: &[&str]) -> Result<f64> {
        let begun = Instant::now();
        self.daemon.done(arguments)?;
        Ok(milliseconds(begun.elapsed()))
    }

    /// Has a partition off at once.
    pub fn turn_off(&self, partition: &str) -> Result<()> {
        let options = json!({"force": true});
        self.change(&json!({"intent": "stop", "partition": partition, "options": options})).map(drop)
    }

    /// Does something while ioward's processes stand still: they hear of each function that gets a driver, and would look at the
    /// host while others are measured, with whom they share one CPU.
    pub fn while_it_stands_still<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let [root, imp] = self.processes()?;
        sh(&format!("kill -STOP {root} {imp}"))?;
        let done = work();
        sh(&format!("kill -CONT {root} {imp}"))?;
        done
    }

    /// The folder of a partition that runs.
    pub fn folder(&self, partition: &str) -> PathBuf {
        self.daemon.runtime_dir().join("partitions").join(partition)
    }
}

/// Runs somebody else's program, within a bound, and gives how long it took in milliseconds.
pub fn timed(program: &str, arguments: &[&str]) -> Result<f64> {
    let begun = Instant::now();
    let mut command = Command::new("timeout");
    let output = command.arg(PATIENCE.to_string()).arg(program).args(arguments).output()?;
    let took = milliseconds(begun.elapsed());
    if output.status.success() {
        return Ok(took);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    Err(match output.status.code() {
        Some(124) => format!("{program} {arguments:?} was not done after {PATIENCE} s: {said}").into(),
        Some(127) => format!("{program} is missing").into(),
        status => format!("{program} {arguments:?} ended with {status:?}: {said}").into(),
    })
}

/// A time as rows have it.
pub fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
