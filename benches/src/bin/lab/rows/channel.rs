//! Operations of a guest on its own VF, against qemu-guest-agent in the same guest, over a port of the same controller.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use ioward_benches::row::{Role, Row};
use ioward_tests::{
    daemon::{BOOT, SOON},
    guest::Guest,
    level1::NIC0,
};

use super::{Rounds, Shared};
use crate::{
    Result,
    trio::{BY_HAND, DOMAIN, OURS, SHOP},
};

/// In hundredths.
const TAIL: usize = 99;

/// A get and a set, each round's median and 99th percentile. By a domain that ioward adopts: its port for the peer is there from its start, and
/// ioward's is plugged in.
pub fn operations(shared: &Shared, rounds: Rounds) -> Result<Vec<Row>> {
    let mut trio = shared.trio()?;
    trio.end(BY_HAND)?;
    trio.end(OURS)?;
    trio.start_all_of(&[DOMAIN])?;
    trio.thaw(DOMAIN)?;
    let host = &trio.host;
    host.daemon.done(&["adopt", SHOP, "--yes"])?;
    let mut guest = Guest::connect(Path::new("/run/shop.serial"), BOOT)?;
    host.daemon.done(&[
        "attach",
        SHOP,
        "net1",
        "--class",
        "network",
        "--pf",
        NIC0,
        "--index",
        "1",
        "--mac",
        "52:54:00:aa:77:00",
        "--guest-may",
        "mac",
    ])?;
    guest.run(
        "n=0; until ioward-agent vf list | grep net1; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
        SOON,
    )?;
    // Named by itself: what libvirt knows by name, it would talk to.
    guest.run(
        "for p in /sys/class/virtio-ports/*; do [ \"$(cat $p/name)\" = org.qemu.guest_agent.bench ] && port=/dev/${p##*/}; done
         mkdir -p /var/run; qemu-ga -m virtio-serial -p $port -d -f /run/qga.pid -t /run && ls $port",
        SOON,
    )?;
    let mut peer = Peer::connect(Path::new("/run/shop.agent"))?;
    for _ in 0..3 {
        peer.ping()?;
    }
    let count = rounds.operations;
    let row = |name, what, percentile| {
        Row::new(name, format!("{what}, {count} operations a round, the {percentile}"), "us")
            .with(Role::Ours, "VfOp get")
            .with(Role::Ours, "VfOp set")
            .with(Role::Peer, "guest-ping")
    };
    let third = 1.0 / 3.0;
    let mut tails = row(
        "channel-p99",
        "get and set of a MAC by the guest over virtio-serial, and qemu-guest-agent's ping in the same guest",
        "99th percentile",
    )
    .ratio(0, 2, third)
    .ratio(1, 2, None);
    let medians = row(
        "channel",
        "get and set of a MAC by the guest over virtio-serial, and qemu-guest-agent's ping in the same guest",
        "median",
    )
    .ratio(0, 2, third)
    .ratio(1, 2, None);
    let medians = medians.take_turns(rounds.short.min(7), |_, place| -> Result<f64> {
        let mut took = match place {
            2 => (0..count).map(|_| peer.ping()).collect::<Result<Vec<f64>>>()?,
            _ => {
                let what = if place == 0 { "get" } else { "set" };
                let printed = guest.run(&format!("bench-guest {what} net1 {count}"), SOON)?;
                printed
                    .lines()
                    .map(|line| line.trim().parse())
                    .collect::<std::result::Result<Vec<f64>, _>>()?
            }
        };
        if took.len() != count {
            return Err(format!("{} operations in place of {count}", took.len()).into());
        }
        took.sort_by(f64::total_cmp);
        tails.contenders[place].samples.push(took[(took.len() * TAIL / 100).min(took.len() - 1)]);
        Ok(took[took.len() / 2])
    })?;
    Ok(vec![medians, tails])
}

/// A guest's agent, at the host's end of its port.
struct Peer {
    lines: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Peer {
    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { lines: BufReader::new(stream.try_clone()?), stream })
    }

    /// In microseconds.
    fn ping(&mut self) -> Result<f64> {
        let begun = Instant::now();
        self.stream.write_all(b"{\"execute\":\"guest-ping\"}\n")?;
        let mut answer = String::new();
        self.lines.read_line(&mut answer)?;
        let took = begun.elapsed().as_secs_f64() * 1e6;
        if answer.contains("\"return\"") { Ok(took) } else { Err(format!("guest-ping: {answer:?}").into()) }
    }
}
