//! What the daemon takes while nothing happens, how it starts again, and that independent work overlaps.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use ioward_benches::row::{Role, Row};
use ioward_tests::{
    daemon::{SOON, VERSION, adapter, partition},
    level1::{NIC0, NIC1, NVME, sh},
};
use serde_json::json;

use super::Rounds;
use crate::{
    Result,
    host::{Host, milliseconds},
    libvirt,
};

/// What a daemon may hold with no partition, in MB.
const MEMORY: f64 = 10.0;
/// How often its processes may wake up in a second.
const WAKEUPS: f64 = 1.0;
/// Until who has just started is at rest, at most.
const SETTLED: u64 = 5;

/// Memory and wakeups of both of ioward's processes, against libvirt's daemon.
pub fn at_rest(rounds: Rounds) -> Result<Vec<Row>> {
    libvirt::start()?;
    let host = Host::start()?;
    let ours = host.processes()?.to_vec();
    let theirs = vec![libvirt::process()?];
    thread::sleep(Duration::from_secs(SETTLED.min(rounds.rest)));
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
                Ok((switches(&pair[place])? - before) as f64 / rounds.rest as f64)
            })?;
    wakeups.notes.push("context switches of all of its threads".into());
    Ok(vec![memory, wakeups])
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

fn switches(processes: &[u32]) -> Result<u64> {
    let mut sum = 0;
    for process in processes {
        for task in fs::read_dir(format!("/proc/{process}/task"))? {
            let status = fs::read_to_string(task?.path().join("status"))?;
            let counts = status.lines().filter(|line| line.contains("ctxt_switches:"));
            sum += counts.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
        }
    }
    Ok(sum)
}

/// VFs of all three adapters in one change, against the sum of its steps.
pub fn overlap(rounds: Rounds) -> Result<Vec<Row>> {
    let host = Host::start()?;
    let adapters = [(NIC0, 7), (NVME, 4), (NIC1, 7)];
    let none: String = adapters.iter().map(|(pf, _)| adapter(pf, "0")).collect();
    let nothing = [VERSION, &none].concat();
    host.daemon.apply(&nothing)?;
    let entries: Vec<_> = adapters.iter().map(|(pf, vfs)| json!({"pf": pf, "vfs": vfs})).collect();
    let intent = json!({"intent": "apply", "spec": {"version": 1, "adapter": entries}});
    let mut row = Row::new("overlap", "VFs of three adapters made in one change", "ms")
        .with(Role::Ours, "on the wall")
        .with(Role::Floor, "its steps summed")
        .ratio(0, 1, None);
    let mut told = String::new();
    for _ in 0..rounds.short {
        let change = host.change(&intent)?;
        host.daemon.apply(&nothing)?;
        told = change.told();
        row.contenders[0].samples.push(milliseconds(change.took));
        row.contenders[1].samples.push(change.steps().iter().map(|(_, took)| took).sum());
    }
    row.notes.push(told);
    row.notes.push("on one emulated CPU: what overlaps is waiting".into());
    Ok(vec![row])
}

/// Killed and started again, with a partition that runs; libvirt's daemon with a domain that does.
pub fn restart(rounds: Rounds) -> Result<Vec<Row>> {
    let mut host = Host::start()?;
    host.daemon.apply(&[VERSION, &partition("web")].concat())?;
    libvirt::start()?;
    fs::write(
        "/run/idle.xml",
        "<domain type='kvm'><name>idle</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
        <os><type arch='x86_64' machine='q35'>hvm</type></os><features><acpi/></features>
        <cpu mode='host-passthrough' check='none' migratable='off'/><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>
        <controller type='usb' model='none'/><memballoon model='none'/></devices></domain>",
    )?;
    libvirt::virsh(&["define", "/run/idle.xml"])?;
    let done = restart_in_turns(rounds, &mut host);
    libvirt::forget("idle");
    done
}

fn restart_in_turns(rounds: Rounds, host: &mut Host) -> Result<Vec<Row>> {
    libvirt::virsh(&["start", "idle"])?;
    let row = Row::new("restart", "killed and started, until it tells of the one machine that runs", "ms")
        .with(Role::Ours, "ioward")
        .with(Role::Peer, "libvirtd")
        .ratio(0, 1, None);
    let row = row.take_turns(rounds.short.min(7), |_, place| -> Result<f64> {
        if place == 0 {
            host.daemon.crash()?;
            let begun = Instant::now();
            host.daemon.restart_unseen()?;
            return until(begun, || {
                host.api.ask("GET /v1/partitions", "").is_ok_and(|body| body.contains("\"web\""))
            });
        }
        sh("pid=$(cat /run/libvirtd.pid) && kill -9 $pid && rm /run/libvirtd.pid
            while kill -0 $pid 2>/dev/null; do sleep 0.1; done")?;
        let begun = Instant::now();
        sh("libvirtd -d -p /run/libvirtd.pid")?;
        until(begun, || sh("virsh list --name").is_ok_and(|names| names.contains("idle")))
    })?;
    Ok(vec![row])
}

fn until(begun: Instant, mut is_so: impl FnMut() -> bool) -> Result<f64> {
    while !is_so() {
        if begun.elapsed() > SOON {
            return Err(format!("not so after {} s", SOON.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(milliseconds(begun.elapsed()))
}
