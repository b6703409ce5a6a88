//! Three machines alike, of which each has a VF: a partition of ioward's, the same command line by hand, and a domain of libvirt's. The
//! rows about machines share them, for booting a guest takes longer than what most of them measure.
//!
//! One runs at a time. The others stand still, so that their guests take nothing from the one emulated CPU.

use std::{fs, path::Path, time::Instant};

use ioward_tests::{
    daemon::{BOOT, VERSION, adapter, partition, vf},
    guest::Guest,
    level1::{NIC0, sh, virtual_functions},
};

use crate::{
    Result, by_hand,
    guests::{ByHand, Log},
    host::{Host, timed},
    libvirt,
};

/// The partition, and what its peers are like.
pub const WEB: &str = "web";
/// The domain.
pub const SHOP: &str = "shop";
/// The folder of the machine that is started by hand.
const FOLDER: &str = "/run/by-hand";
/// The domain's console, and its log.
const SHOP_CONSOLE: [&str; 2] = ["/run/shop.serial", "/run/shop.log"];

/// The places of the three in a row's contenders.
pub const OURS: usize = 0;
/// See [`OURS`].
pub const BY_HAND: usize = 1;
/// See [`OURS`].
pub const DOMAIN: usize = 2;

/// The three, and the daemon of one of them. All are gone when dropped.
pub struct Trio {
    /// The daemon.
    pub host: Host,
    /// The machine that is started by hand.
    pub by_hand: ByHand,
    /// The VFs of the adapter: at the even places those that the three begin with, and beside them one for each to be given while it runs.
    pub vfs: Vec<String>,
    runs: [bool; 3],
}

impl Trio {
    /// Has all three defined, and off.
    pub fn define(host: Host) -> Result<Self> {
        host.daemon.apply(&spec())?;
        // Its command line is all that is needed of it.
        let vfs = virtual_functions(NIC0)?;
        let by_hand = ByHand::like(WEB, Path::new(FOLDER))?.with_function(&vfs[0], &vfs[2]);
        host.turn_off(WEB)?;
        for (index, vf) in vfs.iter().enumerate().take(6).skip(2) {
            by_hand::bind(vf)?;
            sh(&format!("ip link set eth0 vf {index} mac 52:54:00:aa:01:{index:02x}"))?;
        }
        libvirt::start()?;
        libvirt::define(SHOP, &vfs[4])?;
        Ok(Self { host, by_hand, vfs, runs: [false; 3] })
    }

    /// Starts one anew, and gives how long that took until its guest's userspace was there, in milliseconds. Afterwards it stands still.
    pub fn start(&mut self, place: usize) -> Result<f64> {
        self.end(place)?;
        let log = match place {
            OURS => self.host.folder(WEB).join("console.log"),
            BY_HAND => self.by_hand.log(),
            _ => SHOP_CONSOLE[1].into(),
        };
        // The log begins with this start.
        if place == OURS {
            fs::write(&log, "")?;
        } else {
            _ = fs::remove_file(&log);
        }
        let log = Log::at(&log);
        let took = match place {
            OURS => {
                let begun = Instant::now();
                self.host.command(&["start", WEB])?;
                log.ready(begun)?
            }
            BY_HAND => {
                let (host, by_hand) = (&self.host, &mut self.by_hand);
                host.while_it_stands_still(|| {
                    let begun = Instant::now();
                    by_hand.start()?;
                    by_hand.ready(begun)
                })?
            }
            _ => self.host.while_it_stands_still(|| {
                let begun = Instant::now();
                timed("virsh", &["-q", "start", SHOP])?;
                log.ready(begun)
            })?,
        };
        self.runs[place] = true;
        self.freeze(place)?;
        Ok(took)
    }

    /// Has those of some run that do not, each standing still.
    pub fn start_all_of(&mut self, places: &[usize]) -> Result<()> {
        for place in places {
            if !self.runs[*place] {
                self.start(*place)?;
            }
        }
        Ok(())
    }

    /// Has one off at once, if it runs.
    pub fn end(&mut self, place: usize) -> Result<()> {
        if !self.runs[place] {
            return Ok(());
        }
        // Who stands still answers nobody who ends it.
        self.thaw(place)?;
        match place {
            OURS => self.host.turn_off(WEB)?,
            BY_HAND => self.by_hand.kill(),
            _ => self.host.while_it_stands_still(|| libvirt::virsh(&["destroy", SHOP]).map(drop))?,
        }
        self.runs[place] = false;
        Ok(())
    }

    /// Has one stand still.
    pub fn freeze(&self, place: usize) -> Result<()> {
        sh(&format!("kill -STOP {}", self.process(place)?)).map(drop)
    }

    /// Has one go on.
    pub fn thaw(&self, place: usize) -> Result<()> {
        sh(&format!("kill -CONT {}", self.process(place)?)).map(drop)
    }

    /// The console of one that runs; it goes on for that long.
    pub fn guest(&self, place: usize) -> Result<Guest> {
        self.thaw(place)?;
        let guest = match place {
            OURS => self.host.daemon.guest(WEB),
            BY_HAND => Guest::connect(&self.by_hand.console(), BOOT)
                .map_err(|error| format!("by hand: {error}: {}", self.by_hand.complaints()).into()),
            _ => Guest::connect(Path::new(SHOP_CONSOLE[0]), BOOT),
        };
        self.freeze(place)?;
        guest
    }

    fn process(&self, place: usize) -> Result<u32> {
        let named = match place {
            OURS => format!("partitions/{WEB}"),
            BY_HAND => return Ok(self.by_hand.process().ok_or("it has ended")?),
            _ => format!("guest={SHOP}"),
        };
        Ok(sh(&format!("pgrep -f 'qemu-system.*{named}'"))?.lines().next().unwrap_or_default().parse()?)
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        self.by_hand.kill();
        libvirt::forget(SHOP);
    }
}

/// What ioward is asked for: the partition, and all VFs of its adapter.
fn spec() -> String {
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nindex = 0\nmac = \"52:54:00:aa:00:01\""));
    [VERSION, &adapter(NIC0, "7"), &partition(WEB), &net0].concat()
}
