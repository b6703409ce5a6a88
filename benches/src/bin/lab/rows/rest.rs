//! What the daemon takes while nothing happens, and that independent work overlaps.

use std::{collections::BTreeMap, fs, path::PathBuf, thread, time::Duration};

use ioward_benches::{
    growth::LINEAR,
    row::{Role, Row},
};
use ioward_tests::{
    daemon::VERSION,
    level1::{NIC0, NIC1, NVME},
};
use serde_json::json;

use super::{Rounds, Shared};
use crate::{
    Result,
    host::{Host, milliseconds},
    libvirt, namespaces,
};

/// What a daemon may hold with no partition, in MB.
const MEMORY: f64 = 10.0;
/// What it may hold with [`MANY`], in MB.
const MEMORY_OF_MANY: f64 = 14.0;
/// How many those are.
const MANY: usize = 100;
/// How often its processes may wake up in a second.
const WAKEUPS: f64 = 1.0;
/// Until who has just started is at rest, at most.
const SETTLED: u64 = 5;

/// Memory and wakeups of both of ioward's processes, against libvirt's daemon; and memory with partitions.
pub fn at_rest(_: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    libvirt::start()?;
    let host = Host::start()?;
    let ours = host.processes()?.to_vec();
    let theirs = vec![libvirt::process()?];
    settle(rounds);
    let memory =
        Row::new("memory", "proportional set size at rest, no partition, both of ioward's processes", "MB")
            .with(Role::Ours, "ioward")
            .with(Role::Peer, "libvirtd")
            .at_most(0, MEMORY)
            .ratio(0, 1, None);
    let pair = [ours, theirs];
    let memory = memory.take_turns(1, |_, place| memory_of(&pair[place]))?;
    let mut wakeups =
        Row::new("wakeups", format!("at rest for {} s, both of ioward's processes", rounds.rest), "/s")
            .with(Role::Ours, "ioward")
            .with(Role::Peer, "libvirtd")
            .at_most(0, WAKEUPS)
            .take_turns(1, |_, place| -> Result<f64> {
                let before = switches(&pair[place])?;
                thread::sleep(Duration::from_secs(rounds.rest));
                Ok(switches_since(&before, &pair[place])? as f64 / rounds.rest as f64)
            })?;
    wakeups.notes.push("context switches of all of its threads".into());
    let with_partitions = memory_of_many(&host, rounds, memory.contenders[0].samples[0])?;
    Ok(vec![memory, wakeups, with_partitions])
}

fn settle(rounds: Rounds) {
    thread::sleep(Duration::from_secs(SETTLED.min(rounds.rest)));
}

/// With partitions that are network namespaces, for machines would not leave room for themselves. What each takes is what there is more than
/// without, and that is what may grow.
fn memory_of_many(host: &Host, rounds: Rounds, none: f64) -> Result<Row> {
    let counts = rounds.at_rest;
    let mut row = Row::new(
        "memory-partitions",
        "proportional set size at rest with partitions that are network namespaces, both of ioward's processes",
        "MB",
    );
    for count in counts {
        namespaces::make(*count)?;
        host.daemon.apply(&[VERSION, &namespaces::spec(*count)].concat())?;
        settle(rounds);
        let all = memory_of(&host.processes()?)?;
        row = row.with_samples(Role::Ours, format!("ioward, {count}"), vec![all]);
    }
    for (place, count) in counts.iter().enumerate() {
        let more = row.contenders[place].samples[0] - none;
        row = row.with_samples(Role::Ours, format!("more than with none, {count}"), vec![more]);
        row.notes.push(format!("{:.1} kB for each of {count}", more * 1000.0 / *count as f64));
    }
    if counts.contains(&MANY) {
        row = row.at_most(counts.len() - 1, MEMORY_OF_MANY);
    }
    // A few fit into what was there anyway: then there is no growth to tell.
    let more: Vec<(f64, usize)> =
        (counts.len()..).zip(counts).map(|(place, count)| (*count as f64, place)).collect();
    if more.iter().all(|(_, place)| row.contenders[*place].samples[0] > 0.0) {
        row = row.grows("what there is more", "partitions", more, LINEAR);
    }
    namespaces::remove();
    Ok(row)
}

/// In MB, of a million bytes.
fn memory_of(processes: &[u32]) -> Result<f64> {
    let mut sum = 0.0;
    for process in processes {
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        sum += kib * 1024.0 / 1e6;
    }
    Ok(sum)
}

/// By thread. One that ends in between takes its count along, and one that begins brings its own.
fn switches(processes: &[u32]) -> Result<BTreeMap<PathBuf, u64>> {
    let mut all = BTreeMap::new();
    for process in processes {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let task = task?.path();
            // It may have ended since it was listed.
            let Ok(status) = fs::read_to_string(task.join("status")) else { continue };
            let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
            let count = counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum();
            all.insert(task, count);
        }
    }
    Ok(all)
}

fn switches_since(before: &BTreeMap<PathBuf, u64>, processes: &[u32]) -> Result<u64> {
    let since = |(task, now): (&PathBuf, &u64)| now.saturating_sub(before.get(task).copied().unwrap_or(0));
    Ok(switches(processes)?.iter().map(since).sum())
}

/// VFs of all three adapters in one change, against a change for each.
pub fn overlap(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let host = shared.host()?;
    let adapters = [(NIC0, 7), (NVME, 4), (NIC1, 7)];
    // The first so many have their VFs.
    let with = |some: usize| -> Vec<_> {
        let each = adapters.iter().enumerate();
        each.map(|(n, (pf, vfs))| json!({"pf": pf, "vfs": if n < some { *vfs } else { 0 }})).collect()
    };
    let change = |some: usize| {
        let intent = json!({"intent": "apply", "spec": {"version": 1, "adapter": with(some)}});
        host.change(&intent)
    };
    change(0)?;
    let mut told = String::new();
    let mut row = Row::new("overlap", "VFs of three adapters made", "ms")
        .with(Role::Ours, "in one change")
        .with(Role::Floor, "one adapter after the other")
        .ratio(0, 1, None)
        .take_turns(rounds.short, |_, place| -> Result<f64> {
            let took = if place == 0 {
                let all = change(adapters.len())?;
                told = all.told();
                milliseconds(all.took)
            } else {
                let mut sum = 0.0;
                for some in 1..=adapters.len() {
                    sum += milliseconds(change(some)?.took);
                }
                sum
            };
            change(0)?;
            Ok(took)
        })?;
    row.notes.push(told);
    row.notes.push("on one emulated CPU: what overlaps is waiting".into());
    shared.keep_host(host);
    Ok(vec![row])
}
