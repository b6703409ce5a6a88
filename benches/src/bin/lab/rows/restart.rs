//! The daemon killed and started again, with partitions that ran on.

use std::{
    thread,
    time::{Duration, Instant},
};

use ioward_benches::{
    growth::LINEAR,
    row::{Role, Row},
};
use ioward_tests::{
    daemon::{SOON, VERSION},
    level1::sh,
};
use serde_json::Value;

use super::{Rounds, Shared};
use crate::{
    Result,
    host::{Host, milliseconds},
    namespaces,
    trio::{BY_HAND, DOMAIN, OURS, SHOP, Trio, WEB},
};

/// With a machine that runs; libvirt's daemon with a domain that does. Then with more partitions, which are network namespaces.
pub fn restart(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let mut trio = shared.trio()?;
    trio.end(BY_HAND)?;
    trio.start_all_of(&[OURS, DOMAIN])?;
    trio.thaw(OURS)?;
    trio.thaw(DOMAIN)?;
    let with_machines = in_turns(&mut trio, rounds)?;
    trio.freeze(DOMAIN)?;
    trio.end(OURS)?;
    let with_namespaces = of_many(&mut trio.host, rounds)?;
    shared.keep(trio);
    Ok(vec![with_machines, with_namespaces])
}

fn in_turns(trio: &mut Trio, rounds: Rounds) -> Result<Row> {
    let row = Row::new("restart", "killed and started, until it tells of the one machine that runs", "ms")
        .with(Role::Ours, "ioward")
        .with(Role::Peer, "libvirtd")
        .ratio(0, 1, None);
    Ok(row.take_turns(rounds.short.min(7), |_, place| -> Result<f64> {
        if place == 0 {
            return anew(&mut trio.host, &|names| names.contains(&WEB));
        }
        sh("pid=$(cat /run/libvirtd.pid) && kill -9 $pid && rm /run/libvirtd.pid
            while kill -0 $pid 2>/dev/null; do sleep 0.1; done")?;
        let begun = Instant::now();
        sh("libvirtd -d -p /run/libvirtd.pid")?;
        until(begun, || sh("virsh list --name").is_ok_and(|names| names.contains(SHOP)))
    })?)
}

/// One size after the other, for partitions come and go slowly.
fn of_many(host: &mut Host, rounds: Rounds) -> Result<Row> {
    let mut row = Row::new(
        "restart-partitions",
        "killed and started, until it tells of all partitions, which are network namespaces",
        "ms",
    );
    for count in rounds.adopted {
        namespaces::make(*count)?;
        host.daemon.apply(&[VERSION, &namespaces::spec(*count)].concat())?;
        let is_one = |name: &&&str| name.starts_with(namespaces::NAME);
        let once = |_| anew(host, &|names: &[&str]| names.iter().filter(is_one).count() == *count);
        let samples = (0..rounds.short.min(7)).map(once).collect::<Result<Vec<f64>>>()?;
        row = row.with_samples(Role::Ours, format!("ioward, {count}"), samples);
    }
    namespaces::remove();
    let sizes = rounds.adopted.iter().enumerate().map(|(place, count)| (*count as f64, place)).collect();
    Ok(row.grows("ioward", "partitions", sizes, LINEAR))
}

/// Kills the daemon and starts another, and gives how long it took until its partitions are as they are to be, in milliseconds.
fn anew(host: &mut Host, are_there: &dyn Fn(&[&str]) -> bool) -> Result<f64> {
    host.daemon.crash()?;
    let begun = Instant::now();
    host.daemon.restart_unseen()?;
    until(begun, || {
        let told = host.api.ask("GET /v1/partitions", "").ok();
        let told: Option<Value> = told.and_then(|body| serde_json::from_str(&body).ok());
        let list = told.as_ref().and_then(Value::as_array);
        list.is_some_and(|list| {
            are_there(&list.iter().filter_map(|partition| partition["name"].as_str()).collect::<Vec<_>>())
        })
    })
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
