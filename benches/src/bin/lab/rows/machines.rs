//! Machines: started with a VF, and given another while they run.

use std::{fs, path::Path, time::Instant};

use ioward_benches::row::{Role, Row};
use ioward_tests::{
    daemon::{BOOT, VERSION, adapter, partition, vf},
    guest::Guest,
    level1::{NIC0, sh, virtual_functions},
};
use serde_json::json;

use super::Rounds;
use crate::{
    Result, by_hand,
    guests::{ByHand, Log, until_link},
    host::{Host, timed},
    libvirt,
};

/// The partition, and what its peers are like.
const WEB: &str = "web";
/// The domain.
const SHOP: &str = "shop";
/// The folder of the machine that is started by hand.
const FOLDER: &str = "/run/by-hand";

fn spec() -> String {
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nindex = 0\nmac = \"52:54:00:aa:00:01\""));
    [VERSION, &adapter(NIC0, "7"), &partition(WEB), &net0].concat()
}

/// Has ioward start its partition, and gives that with the same machine by hand.
fn started() -> Result<(Host, ByHand, Vec<String>)> {
    let host = Host::start()?;
    host.daemon.apply(&spec())?;
    let log = Log::at(&host.folder(WEB).join("console.log"));
    log.ready(Instant::now())?;
    let by_hand = ByHand::like(WEB, Path::new(FOLDER))?;
    Ok((host, by_hand, virtual_functions(NIC0)?))
}

/// From the request to userspace. All three have the same VF, one after the other.
pub fn start(rounds: Rounds) -> Result<Vec<Row>> {
    let (host, mut by_hand, vfs) = started()?;
    host.turn_off(WEB)?;
    libvirt::start()?;
    libvirt::define(SHOP, &vfs[0])?;
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
    let row = row.take_turns(rounds.long, |_, place| -> Result<f64> {
        match place {
            0 => {
                let log = Log::at(&host.folder(WEB).join("console.log"));
                fs::write(host.folder(WEB).join("console.log"), "")?;
                let begun = Instant::now();
                host.command(&["start", WEB])?;
                let took = log.ready(begun)?;
                host.turn_off(WEB)?;
                Ok(took)
            }
            1 => host.while_it_stands_still(|| {
                let _ = fs::remove_file(by_hand.log());
                let log = Log::at(&by_hand.log());
                let begun = Instant::now();
                by_hand.start()?;
                let took = log.ready(begun).map_err(|error| format!("{error}: {}", by_hand.complaints()));
                by_hand.kill();
                Ok(took?)
            }),
            _ => host.while_it_stands_still(|| {
                let log = Path::new("/run/shop.log");
                let _ = fs::remove_file(log);
                let log = Log::at(log);
                let begun = Instant::now();
                timed("virsh", &["-q", "start", SHOP])?;
                let took = log.ready(begun)?;
                libvirt::virsh(&["destroy", SHOP])?;
                Ok(took)
            }),
        }
    });
    libvirt::forget(SHOP);
    Ok(vec![row?])
}

/// A VF into a machine that runs, and out of it: until its guest has the interface, and until the guest has it no more and the request has
/// returned. Each has a machine and VFs of its own; those that are not at work stand still.
pub fn plug(rounds: Rounds) -> Result<Vec<Row>> {
    let (host, by_hand, vfs) = started()?;
    let mut by_hand = by_hand.with_function(&vfs[0], &vfs[2]);
    for vf in &vfs[2..6] {
        by_hand::bind(vf)?;
    }
    for (index, mac) in [(2, 2), (3, 3), (4, 4), (5, 5)] {
        sh(&format!("ip link set eth0 vf {index} mac 52:54:00:aa:01:0{mac}"))?;
    }
    libvirt::start()?;
    libvirt::define(SHOP, &vfs[4])?;
    let done = plug_in_turns(rounds, &host, &mut by_hand, &vfs);
    by_hand.kill();
    libvirt::forget(SHOP);
    done
}

fn plug_in_turns(rounds: Rounds, host: &Host, by_hand: &mut ByHand, vfs: &[String]) -> Result<Vec<Row>> {
    by_hand.start()?;
    libvirt::virsh(&["start", SHOP])?;
    let mut guests = [
        host.daemon.guest(WEB)?,
        Guest::connect(&by_hand.console(), BOOT)
            .map_err(|error| format!("by hand: {error}: {}", by_hand.complaints()))?,
        Guest::connect(Path::new("/run/shop.serial"), BOOT)?,
    ];
    let second = "/run/shop-second.xml";
    fs::write(second, libvirt::hostdev(&vfs[5]))?;
    let machine = |name: &str| -> Result<u32> {
        Ok(sh(&format!("pgrep -f 'qemu-system.*{name}'"))?.lines().next().unwrap_or_default().parse()?)
    };
    let machines = [
        machine(&format!("partitions/{WEB}"))?,
        by_hand.process().ok_or("it has ended")?,
        machine(&format!("guest={SHOP}"))?,
    ];
    let mut monitor = by_hand.monitor()?;
    let slot = by_hand.last_slot()?;
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
    for machine in machines {
        sh(&format!("kill -STOP {machine}"))?;
    }
    let into = into.take_turns(rounds.long, |_, place| -> Result<f64> {
        let stands_still = machines[place];
        let guest = &mut guests[place];
        sh(&format!("kill -CONT {stands_still}"))?;
        let mut both = || -> Result<[f64; 2]> {
            Ok(match place {
                0 => {
                    let attach = ["attach", WEB, "net1", "--class", "network", "--pf", NIC0, "--index", "1"];
                    [
                        until_link(guest, "eth1", true, || host.command(&attach).map(drop))?,
                        until_link(guest, "eth1", false, || {
                            host.command(&["detach", "--yes", WEB, "net1"]).map(drop)
                        })?,
                    ]
                }
                1 => {
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
        let took = if place == 0 { both() } else { host.while_it_stands_still(both) };
        sh(&format!("kill -STOP {stands_still}"))?;
        let [plugged, unplugged] = took?;
        out.contenders[place].samples.push(unplugged);
        Ok(plugged)
    });
    for machine in machines {
        sh(&format!("kill -CONT {machine}"))?;
    }
    Ok(vec![into?, out])
}
