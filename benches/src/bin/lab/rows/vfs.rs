//! VFs: made, bound to vfio-pci, and set.

use std::time::Instant;

use ioward_benches::row::{Role, Row};
use ioward_tests::{
    daemon::{VERSION, adapter, partition, vf},
    level1::{NIC0, NVME, attribute, kernel_vf, virtual_functions},
};
use serde_json::json;

use super::Rounds;
use crate::{
    Result,
    by_hand::{self, Settings},
    host::{Host, milliseconds, timed},
    libvirt,
};

/// All VFs of an igb.
const ALL: usize = 7;

/// The number of VFs, from none.
pub fn make(rounds: Rounds) -> Result<Vec<Row>> {
    let host = Host::start()?;
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
    Ok(rows)
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
    let spec = |count: u16| [VERSION, &adapter(pf, &count.to_string())].concat();
    let intent = json!({"intent": "apply", "spec": {"version": 1, "adapter": [{"pf": pf, "vfs": count}]}});
    // Held from here on, without VFs. ioward turns autoprobe off for VFs that it gives to machines; so does the floor.
    host.daemon.apply(&spec(0))?;
    let file = host.daemon.write("make.toml", spec(count))?;
    let mut told = String::new();
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let took = match place {
            0 => {
                let change = host.change(&intent)?;
                told = change.told();
                milliseconds(change.took)
            }
            1 => host.command(&["apply", "--yes", "-f", &file])?,
            _ => host.while_it_stands_still(|| {
                by_hand::set_autoprobe(pf, false)?;
                let begun = Instant::now();
                by_hand::set_count(pf, count)?;
                if place == 3 {
                    by_hand::wait_for_link(pf)?;
                }
                let took = milliseconds(begun.elapsed());
                check_count(pf, count)?;
                by_hand::set_count(pf, 0)?;
                by_hand::wait_for_link(pf)?;
                Ok(took)
            })?,
        };
        if place < 2 {
            check_count(pf, count)?;
            host.daemon.apply(&spec(0))?;
        }
        check_count(pf, 0)?;
        Ok(took)
    })?;
    row.notes.push(told);
    Ok(row)
}

fn check_count(pf: &str, count: u16) -> Result<()> {
    let has = attribute(pf, "sriov_numvfs")?;
    if has == count.to_string() { Ok(()) } else { Err(format!("{pf} has {has} VFs, not {count}").into()) }
}

/// A partition that is stopped, with so many VFs of one adapter, which has all of its VFs.
fn holder(vfs: usize, settings: Option<Settings>) -> String {
    let vfs = (0..vfs).map(|index| {
        let set = settings.map_or(String::new(), |settings| {
            let Settings { vlan, trust, .. } = settings;
            format!("\nmac = \"{}\"\nvlan = {vlan}\ntrust = {trust}", settings.mac_of(index))
        });
        vf(&format!("net{index}"), "network", &format!("pf = \"{NIC0}\"\nindex = {index}{set}"))
    });
    [VERSION, &adapter(NIC0, "7"), &partition("holder"), &vfs.collect::<String>()].concat()
}

fn stopped_holder(vfs: usize, settings: Option<Settings>) -> Result<Host> {
    let host = Host::start()?;
    host.daemon.apply(&holder(0, None))?;
    host.turn_off("holder")?;
    if vfs > 0 {
        host.daemon.apply(&holder(vfs, settings))?;
    }
    Ok(host)
}

/// A driver for machines.
pub fn bind(rounds: Rounds) -> Result<Vec<Row>> {
    let host = stopped_holder(0, None)?;
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
    let requests: Vec<_> = (0..ALL)
        .map(|index| json!({"name": format!("net{index}"), "class": "network", "pf": NIC0, "index": index}))
        .collect();
    let intent = json!({"intent": "attach", "partition": "holder", "vfs": requests});
    let file = host.daemon.write("bind.toml", holder(ALL, None))?;
    let detach = |what: &str| {
        let words: Vec<String> =
            vfs.iter().map(|vf| format!("nodedev-{what} {}", libvirt::device(vf))).collect();
        words.join("; ")
    };
    let (detaches, reattaches) = (detach("detach"), detach("reattach"));
    let mut told = String::new();
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        let by_others = |bind: &dyn Fn() -> Result<f64>, unbind: &dyn Fn() -> Result<()>| {
            host.while_it_stands_still(|| {
                let took = bind()?;
                by_hand::check_bound(NIC0, true)?;
                unbind()?;
                Ok(took)
            })
        };
        let unbind = || vfs.iter().try_for_each(|vf| by_hand::unbind(vf));
        let took = match place {
            0 => {
                let change = host.change(&intent)?;
                told = change.told();
                milliseconds(change.took)
            }
            1 => host.command(&["apply", "--yes", "-f", &file])?,
            2 => by_others(
                &|| {
                    let begun = Instant::now();
                    vfs.iter().try_for_each(|vf| by_hand::bind(vf))?;
                    Ok(milliseconds(begun.elapsed()))
                },
                &unbind,
            )?,
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
            by_hand::check_bound(NIC0, true)?;
            host.daemon.apply(&holder(0, None))?;
        }
        by_hand::check_bound(NIC0, false)?;
        Ok(took)
    })?;
    row.notes.push(told);
    Ok(vec![row])
}

/// MAC, VLAN and trust.
pub fn set(rounds: Rounds) -> Result<Vec<Row>> {
    let both = [Settings { mac: 1, vlan: 101, trust: true }, Settings { mac: 2, vlan: 102, trust: false }];
    let host = stopped_holder(ALL, Some(both[0]))?;
    let row = Row::new("set-7", "MAC, VLAN and trust of 7 VFs changed; one rtnetlink message a VF", "ms")
        .with(Role::Ours, "ioward API")
        .with(Role::Ours, "ioward apply")
        .with(Role::Floor, "ip -batch")
        .ratio(0, 2, 1.2)
        .ratio(1, 2, None);
    let files =
        [0, 1].map(|which| host.daemon.write(&format!("set{which}.toml"), holder(ALL, Some(both[which]))));
    let [first, second] = files;
    let (first, second) = (first?, second?);
    let intent = intent_of(&host, &second)?;
    let mut told = String::new();
    let mut row = row.take_turns(rounds.short, |_, place| -> Result<f64> {
        if place == 2 {
            return host.while_it_stands_still(|| {
                let begun = Instant::now();
                by_hand::configure("eth0", ALL, both[1])?;
                let took = milliseconds(begun.elapsed());
                check_set(both[1])?;
                by_hand::configure("eth0", ALL, both[0])?;
                check_set(both[0])?;
                Ok(took)
            });
        }
        let took = if place == 0 {
            let change = host.change(&intent)?;
            told = change.told();
            milliseconds(change.took)
        } else {
            host.command(&["apply", "--yes", "-f", &second])?
        };
        check_set(both[1])?;
        host.daemon.done(&["apply", "--yes", "-f", &first])?;
        check_set(both[0])?;
        Ok(took)
    })?;
    row.notes.push(told);
    Ok(vec![row])
}

/// What a Spec's file asks for, as the API takes it.
fn intent_of(host: &Host, file: &str) -> Result<serde_json::Value> {
    let plan: serde_json::Value = serde_json::from_str(&host.daemon.done(&["plan", "--json", "-f", file])?)?;
    Ok(plan["intent"].clone())
}

fn check_set(settings: Settings) -> Result<()> {
    for index in 0..ALL {
        let seen = kernel_vf("eth0", index)?;
        let is_so = seen["address"] == settings.mac_of(index)
            && seen["vlan_list"][0]["vlan"] == settings.vlan
            && seen["trust"] == settings.trust;
        if !is_so {
            return Err(format!("VF {index} is not set: {seen}").into());
        }
    }
    Ok(())
}
