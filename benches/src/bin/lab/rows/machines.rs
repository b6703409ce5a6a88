//! Machines: started with a VF, and given another while they run.

use std::fs;

use ioward_benches::row::{Role, Row};
use ioward_tests::level1::NIC0;
use serde_json::json;

use super::{Rounds, Shared};
use crate::{
    Result,
    guests::until_link,
    libvirt,
    trio::{BY_HAND, DOMAIN, OURS, SHOP, Trio, WEB},
};

/// From the request to userspace.
pub fn start(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let mut trio = shared.trio()?;
    let row = Row::new(
        "start",
        "a machine with a VF, until its guest's userspace; by hand: same command line",
        "ms",
    )
    .with(Role::Ours, "ioward start")
    .with(Role::Floor, "QEMU by hand")
    .with(Role::Peer, "virsh start")
    .ratio(0, 1, 1.05)
    .ratio(0, 2, 0.9);
    let row = row.take_turns(rounds.long, |_, place| trio.start(place))?;
    shared.keep(trio);
    Ok(vec![row])
}

/// A VF into a machine that runs, and out of it: until its guest has the interface, and until the guest has it no more and the request has
/// returned.
pub fn plug(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let mut trio = shared.trio()?;
    trio.start_all_of(&[OURS, BY_HAND, DOMAIN])?;
    let rows = plug_in_turns(&trio, rounds)?;
    shared.keep(trio);
    Ok(rows)
}

fn plug_in_turns(trio: &Trio, rounds: Rounds) -> Result<Vec<Row>> {
    let mut guests = [trio.guest(OURS)?, trio.guest(BY_HAND)?, trio.guest(DOMAIN)?];
    let (host, vfs) = (&trio.host, &trio.vfs);
    let second = "/run/shop-second.xml";
    fs::write(second, libvirt::hostdev(&vfs[5]))?;
    trio.thaw(BY_HAND)?;
    let mut monitor = trio.by_hand.monitor()?;
    trio.freeze(BY_HAND)?;
    let slot = trio.by_hand.last_slot()?;
    let row = |name, what| {
        Row::new(name, what, "ms")
            .with(Role::Ours, "ioward")
            .with(Role::Floor, "QMP by hand")
            .with(Role::Peer, "virsh")
            .ratio(0, 1, 1.1)
            .ratio(0, 2, 0.8)
    };
    let mut out = row("unplug", "a VF out of a running guest; ioward also gives it back");
    let into = row("plug", "a VF into a running guest, until that has its netdev");
    let into = into.take_turns(rounds.long, |_, place| -> Result<f64> {
        let guest = &mut guests[place];
        trio.thaw(place)?;
        let mut both = || -> Result<[f64; 2]> {
            Ok(match place {
                OURS => {
                    let attach = ["attach", WEB, "net1", "--class", "network", "--pf", NIC0, "--index", "1"];
                    [
                        until_link(guest, "eth1", true, || host.command(&attach).map(drop))?,
                        until_link(guest, "eth1", false, || {
                            host.command(&["detach", "--yes", WEB, "net1"]).map(drop)
                        })?,
                    ]
                }
                BY_HAND => {
                    let device = json!({"driver": "vfio-pci", "host": vfs[3], "id": "second", "bus": slot});
                    [
                        until_link(guest, "eth1", true, || monitor.ask("device_add", &device))?,
                        until_link(guest, "eth1", false, || {
                            monitor.ask("device_del", &json!({"id": "second"}))?;
                            monitor.event("DEVICE_DELETED", "second")
                        })?,
                    ]
                }
                _ => [
                    until_link(guest, "eth1", true, || {
                        libvirt::virsh(&["attach-device", SHOP, second, "--live"]).map(drop)
                    })?,
                    until_link(guest, "eth1", false, || {
                        libvirt::virsh(&["detach-device", SHOP, second, "--live"]).map(drop)
                    })?,
                ],
            })
        };
        let took = if place == OURS { both() } else { host.while_it_stands_still(both) };
        trio.freeze(place)?;
        let [plugged, unplugged] = took?;
        out.contenders[place].samples.push(unplugged);
        Ok(plugged)
    });
    Ok(vec![into?, out])
}
