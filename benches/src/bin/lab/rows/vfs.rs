//! VFs: made, bound to vfio-pci, and set.

use std::time::Instant;

use ioward_benches::{
    growth::LINEAR,
    row::{Contender, Role, Row},
};
use ioward_tests::{
    daemon::{VERSION, adapter, partition, vf},
    level1::{NIC0, NIC1, NVME, attribute, kernel_vf, virtual_functions},
};
use serde_json::{Value, json};

use super::{Rounds, Shared};
use crate::{
    Result,
    by_hand::{self, Settings},
    host::{Host, milliseconds, timed},
    libvirt,
};

/// All VFs of an igb.
const ALL: usize = 7;
/// The igbs, and their interfaces.
const IGBS: [(&str, &str); 2] = [(NIC0, "eth0"), (NIC1, "eth1")];
/// What VFs are set to, in turns.
const BOTH: [Settings; 2] =
    [Settings { mac: 1, vlan: 101, trust: true }, Settings { mac: 2, vlan: 102, trust: false }];

/// The number of VFs, from none.
pub fn make(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let host = shared.host()?;
    let mut rows = Vec::new();
    for (name, pf, what, count) in [
        ("make-1-igb", NIC0, "1 VF of an igb made from none; ioward waits for its link", 1_u16),
        ("make-7-igb", NIC0, "7 VFs of an igb made from none; ioward waits for its link", 7),
        ("make-4-nvme", NVME, "4 VFs of an NVMe controller made from none", 4),
    ] {
        if count > 1 || rounds.sizes {
            rows.push(make_so_many(&host, rounds, Row::new(name, what, "ms"), pf, count)?);
        }
    }
    if rounds.sizes {
        rows.push(growth_of_making(&rows));
    }
    shared.keep_host(host);
    Ok(rows)
}

/// By the rows of the igb: the link takes a second whatever their number is, so that nothing is asked for.
fn growth_of_making(rows: &[Row]) -> Row {
    let mut row = Row::new("make-growth", "the rows of the igb, by the number of VFs", "ms");
    let mut grows = [Vec::new(), Vec::new()];
    for (size, of) in [1.0, 7.0].into_iter().zip(rows) {
        for (grows, place) in grows.iter_mut().zip([0, 2]) {
            let Contender { name, role, samples } = of.contenders[place].clone();
            grows.push((size, row.contenders.len()));
            row = row.with_samples(role, format!("{name}, {size}"), samples);
        }
    }
    let [ours, by_hand] = grows;
    row.grows("ioward API", "VFs", ours, None).grows("one write", "VFs", by_hand, None)
}

fn make_so_many(host: &Host, rounds: Rounds, row: Row, pf: &str, count: u16) -> Result<Row> {
    let row = row
        .with(Role::Ours, "ioward API")
        .with(Role::Ours, "ioward apply")
        .with(Role::Floor, "one write")
        .with(Role::Floor, "and a link")
        .ratio(0, 2, 1.05)
        .ratio(0, 3, None)
        .ratio(1, 2, None);
    let wish = |count: u16| json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": pf, "vfs": count}]}});
    let (intent, none) = (wish(count), wish(0));
    // Held from here on, without VFs. ioward turns autoprobe off for VFs that it gives to machines; so does the floor.
    host.change(&none)?;
    let file = host.daemon.write("make.toml", [VERSION, &adapter(pf, &count.to_string())].concat())?;
    let mut told = String::new();
    // The last two are of one write: whichever has its turn first has it made.
    let mut written: Option<[f64; 2]> = None;
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let took = match (place, written.take()) {
            (0, before) => {
                written = before;
                let change = host.change(&intent)?;
                told = change.told();
                milliseconds(change.took)
            }
            (1, before) => {
                written = before;
                host.command(&["apply", "--yes", "-f", &file])?
            }
            (_, Some(both)) => return Ok(both[place - 2]),
            (_, None) => {
                let both = host.while_it_stands_still(|| write_count(pf, count))?;
                written = Some(both);
                both[place - 2]
            }
        };
        if place < 2 {
            check_count(pf, count)?;
            host.change(&none)?;
        }
        check_count(pf, 0)?;
        Ok(took)
    })?;
    row.notes.push(told);
    Ok(row)
}

/// Makes VFs by hand and takes them away again. Gives how long the write took, and the link after it.
fn write_count(pf: &str, count: u16) -> Result<[f64; 2]> {
    by_hand::set_autoprobe(pf, false)?;
    let begun = Instant::now();
    by_hand::set_count(pf, count)?;
    let write = milliseconds(begun.elapsed());
    by_hand::wait_for_link(pf)?;
    let link = milliseconds(begun.elapsed());
    check_count(pf, count)?;
    by_hand::set_count(pf, 0)?;
    by_hand::wait_for_link(pf)?;
    Ok([write, link])
}

fn check_count(pf: &str, count: u16) -> Result<()> {
    let has = attribute(pf, "sriov_numvfs")?;
    if has == count.to_string() { Ok(()) } else { Err(format!("{pf} has {has} VFs, not {count}").into()) }
}

/// The adapter and the index of the VF that is the so-many-th.
fn place(number: usize) -> (&'static str, usize) {
    (IGBS[number / ALL].0, number % ALL)
}

/// The partition that has the VFs of an igb: one for each, for a machine has slots for 8.
const HOLDERS: [&str; 2] = ["holder", "holder1"];

/// Partitions that are stopped, with so many VFs in all, each with settings of its own or none. Adapters have all of their VFs.
fn holder(igbs: usize, vfs: usize, settings: impl Fn(usize) -> Option<Settings>) -> String {
    let of_igb = |igb: usize| {
        let numbers = (igb * ALL..(igb + 1) * ALL).filter(|number| *number < vfs);
        let vfs = numbers.map(|number| {
            let (pf, index) = place(number);
            let set = settings(number).map_or(String::new(), |settings| {
                let Settings { vlan, trust, .. } = settings;
                format!("\nmac = \"{}\"\nvlan = {vlan}\ntrust = {trust}", settings.mac_of(number))
            });
            vf(&format!("net{number}"), "network", &format!("pf = \"{pf}\"\nindex = {index}{set}"))
        });
        [partition(HOLDERS[igb]), vfs.collect()].concat()
    };
    let adapters: String = IGBS.iter().take(igbs).map(|(pf, _)| adapter(pf, "7")).collect();
    let partitions: String = (0..igbs).map(of_igb).collect();
    [VERSION, &adapters, &partitions].concat()
}

/// Of how many igbs so many VFs are.
fn igbs_of(vfs: &[usize]) -> usize {
    vfs.iter().max().map_or(0, |most| most.div_ceil(ALL))
}

/// Has the holders of so many igbs, off and without VFs.
fn have_holders(host: &Host, igbs: usize) -> Result<()> {
    let known: Value = serde_json::from_str(&host.api.ask("GET /v1/partitions", "")?)?;
    let known: Vec<&str> =
        known.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect();
    host.daemon.apply(&holder(igbs, 0, |_| None))?;
    let mut new = HOLDERS.iter().take(igbs).filter(|name| !known.contains(name));
    new.try_for_each(|name| host.turn_off(name))
}

/// A driver for machines.
pub fn bind(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let host = shared.host()?;
    have_holders(&host, 1)?;
    let row = Row::new(
        "bind-7",
        "7 VFs bound to vfio-pci (one virsh nodedev-detach for all, a driverctl for each); ioward also journals, sets a \
         MAC and notes whose they are",
        "ms",
    )
    .with(Role::Ours, "ioward API")
    .with(Role::Ours, "ioward apply")
    .with(Role::Floor, "sysfs by hand")
    .with(Role::Peer, "driverctl")
    .with(Role::Peer, "virsh")
    .ratio(0, 2, 1.1)
    .ratio(1, 3, None)
    .ratio(1, 4, 0.1);
    let vfs = virtual_functions(NIC0)?;
    libvirt::start_anew()?;
    let intent = wish(&host, &holder(1, ALL, |_| None))?;
    let file = host.daemon.write("bind.toml", holder(1, ALL, |_| None))?;
    let none = wish(&host, &holder(1, 0, |_| None))?;
    let detach = |what: &str| {
        let words: Vec<String> =
            vfs.iter().map(|vf| format!("nodedev-{what} {}", libvirt::device(vf))).collect();
        words.join("; ")
    };
    let (detaches, reattaches) = (detach("detach"), detach("reattach"));
    let mut told = String::new();
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let by_others = |bind: &dyn Fn() -> Result<f64>, unbind: &dyn Fn() -> Result<()>| {
            bound_by_others(&host, &vfs, bind, unbind)
        };
        let unbind = || vfs.iter().try_for_each(|vf| by_hand::unbind(vf));
        let took = match place {
            0 => {
                let change = host.change(&intent)?;
                told = change.told();
                milliseconds(change.took)
            }
            1 => host.command(&["apply", "--yes", "-f", &file])?,
            2 => by_others(&|| bind_by_hand(&vfs), &unbind)?,
            3 => by_others(
                &|| {
                    let each = vfs
                        .iter()
                        .map(|vf| timed("driverctl", &["--nosave", "set-override", vf, by_hand::VFIO]));
                    each.sum()
                },
                &unbind,
            )?,
            _ => by_others(&|| libvirt::virsh(&[&detaches]), &|| libvirt::virsh(&[&reattaches]).map(drop))?,
        };
        if place < 2 {
            by_hand::check_bound(&vfs, true)?;
            host.change(&none)?;
        }
        by_hand::check_bound(&vfs, false)?;
        Ok(took)
    })?;
    row.notes.push(told);
    let growth = growth_of_binding(&host, rounds)?;
    shared.keep_host(host);
    Ok(vec![row, growth])
}

fn bind_by_hand(vfs: &[String]) -> Result<f64> {
    let begun = Instant::now();
    vfs.iter().try_for_each(|vf| by_hand::bind(vf))?;
    Ok(milliseconds(begun.elapsed()))
}

/// Has VFs bound and unbound again by others, and gives how long the first took.
fn bound_by_others(
    host: &Host,
    vfs: &[String],
    bind: &dyn Fn() -> Result<f64>,
    unbind: &dyn Fn() -> Result<()>,
) -> Result<f64> {
    host.while_it_stands_still(|| {
        let took = bind()?;
        by_hand::check_bound(vfs, true)?;
        unbind()?;
        Ok(took)
    })
}

/// A row of ioward and its floor, each in all sizes: first ioward's, from the least to the greatest, and then the floor's.
fn of_sizes(name: &'static str, what: &str, by_hand: &str, sizes: &[usize]) -> Row {
    let mut row = Row::new(name, what, "ms");
    for (role, of) in [(Role::Ours, "ioward API"), (Role::Floor, by_hand)] {
        for size in sizes {
            row = row.with(role, format!("{of}, {size}"));
        }
    }
    let places = |from: usize| (from..).zip(sizes).map(|(place, size)| (*size as f64, place)).collect();
    row.grows("ioward API", "VFs", places(0), LINEAR).grows(by_hand, "VFs", places(sizes.len()), None)
}

/// The same in several sizes, of both igbs if need be.
fn growth_of_binding(host: &Host, rounds: Rounds) -> Result<Row> {
    let sizes = rounds.vfs;
    let igbs = igbs_of(sizes);
    have_holders(host, igbs)?;
    let none = wish(host, &holder(igbs, 0, |_| None))?;
    let intents = sizes.iter().map(|size| wish(host, &holder(igbs, *size, |_| None)));
    let intents = intents.collect::<Result<Vec<_>>>()?;
    let mut vfs = Vec::new();
    for (pf, _) in IGBS.iter().take(igbs) {
        vfs.extend(virtual_functions(pf)?);
    }
    let row = of_sizes("bind-growth", "VFs bound to vfio-pci, by their number", "sysfs by hand", sizes);
    let row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let vfs = &vfs[..sizes[place % sizes.len()]];
        if place >= sizes.len() {
            let unbind = || vfs.iter().try_for_each(|vf| by_hand::unbind(vf));
            return bound_by_others(host, vfs, &|| bind_by_hand(vfs), &unbind);
        }
        let took = milliseconds(host.change(&intents[place])?.took);
        by_hand::check_bound(vfs, true)?;
        host.change(&none)?;
        by_hand::check_bound(vfs, false)?;
        Ok(took)
    })?;
    Ok(row)
}

/// MAC, VLAN and trust.
pub fn set(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let host = shared.host()?;
    have_holders(&host, 1)?;
    let all = |settings: Settings| holder(1, ALL, move |_| Some(settings));
    host.daemon.apply(&all(BOTH[0]))?;
    let row = Row::new("set-7", "MAC, VLAN and trust of 7 VFs changed; one rtnetlink message a VF", "ms")
        .with(Role::Ours, "ioward API")
        .with(Role::Ours, "ioward apply")
        .with(Role::Floor, "ip -batch")
        .ratio(0, 2, 1.2)
        .ratio(1, 2, None);
    let file = host.daemon.write("set.toml", all(BOTH[1]))?;
    let (before, intent) = (wish(&host, &all(BOTH[0]))?, wish(&host, &all(BOTH[1]))?);
    let mut told = String::new();
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        if place == 2 {
            return set_by_hand(&host, ALL);
        }
        let took = if place == 0 {
            let change = host.change(&intent)?;
            told = change.told();
            milliseconds(change.took)
        } else {
            host.command(&["apply", "--yes", "-f", &file])?
        };
        check_set(ALL, BOTH[1])?;
        host.change(&before)?;
        check_set(ALL, BOTH[0])?;
        Ok(took)
    })?;
    row.notes.push(told);
    let growth = growth_of_setting(&host, rounds)?;
    host.daemon.apply(&holder(igbs_of(rounds.vfs), 0, |_| None))?;
    shared.keep_host(host);
    Ok(vec![row, growth])
}

/// The first VFs, by their interfaces and indexes.
fn of_interfaces(vfs: usize) -> impl Iterator<Item = (&'static str, usize)> {
    (0..vfs).map(|number| (IGBS[number / ALL].1, number % ALL))
}

/// Sets so many by hand and back, and gives how long the first took.
fn set_by_hand(host: &Host, vfs: usize) -> Result<f64> {
    host.while_it_stands_still(|| {
        let begun = Instant::now();
        by_hand::configure(of_interfaces(vfs), BOTH[1])?;
        let took = milliseconds(begun.elapsed());
        check_set(vfs, BOTH[1])?;
        by_hand::configure(of_interfaces(vfs), BOTH[0])?;
        check_set(vfs, BOTH[0])?;
        Ok(took)
    })
}

/// The same in several sizes: of as many VFs as there are, so many are changed.
fn growth_of_setting(host: &Host, rounds: Rounds) -> Result<Row> {
    let sizes = rounds.vfs;
    let most = sizes.iter().copied().max().unwrap_or_default();
    let changed = |vfs: usize| {
        holder(igbs_of(sizes), most, move |number| Some(if number < vfs { BOTH[1] } else { BOTH[0] }))
    };
    have_holders(host, igbs_of(sizes))?;
    let before = wish(host, &changed(0))?;
    host.change(&before)?;
    let intents = sizes.iter().map(|size| wish(host, &changed(*size))).collect::<Result<Vec<_>>>()?;
    let what = "MAC, VLAN and trust of VFs changed, by their number";
    let row = of_sizes("set-growth", what, "ip -batch", sizes);
    let row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let vfs = sizes[place % sizes.len()];
        if place >= sizes.len() {
            return set_by_hand(host, vfs);
        }
        let took = milliseconds(host.change(&intents[place])?.took);
        check_set(vfs, BOTH[1])?;
        host.change(&before)?;
        check_set(vfs, BOTH[0])?;
        Ok(took)
    })?;
    Ok(row)
}

/// What a Spec asks for, as the API takes it.
fn wish(host: &Host, spec: &str) -> Result<Value> {
    let file = host.daemon.write("wish.toml", spec)?;
    let plan: Value = serde_json::from_str(&host.daemon.done(&["plan", "--json", "-f", &file])?)?;
    Ok(plan["intent"].clone())
}

fn check_set(vfs: usize, settings: Settings) -> Result<()> {
    for (number, (netdev, index)) in of_interfaces(vfs).enumerate() {
        let seen = kernel_vf(netdev, index)?;
        let is_so = seen["address"] == settings.mac_of(number)
            && seen["vlan_list"][0]["vlan"] == settings.vlan
            && seen["trust"] == settings.trust;
        if !is_so {
            return Err(format!("VF {index} of {netdev} is not set: {seen}").into());
        }
    }
    Ok(())
}
