//! The daemon and libvirt's are killed at random moments of changes of a domain: what is left is held against virsh and sysfs.
//! As in [`crate::crashes`], a seed determines the moments.
//!
//! A plan that fails while there is no libvirt can't be undone as a whole: what is left of it is noted, and the same change, asked
//! for again, does the rest (docs/state.md). Until then nobody has anything that is not noted; after it, all is as it is to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    thread,
    time::{Duration, Instant},
};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, clean_up, how_the_host_is, vf},
    harness::Outcome,
    level1::{NIC0, driver, sh, virtual_functions, wait_until},
};
use serde_json::Value;

use crate::{
    crashes::{Chance, Counts, begin, group, interrupted, open_groups, partitions, same},
    domains::define,
    libvirtd::Libvirt,
};

/// The variable with the number of kills of each of the two daemons. xtask passes it on into level 1.
const KILLS: &str = "IOWARD_KILLS";
/// Apply and attach are hit by both kills with that. A daemon of libvirt's takes long to come back in emulation: `IOWARD_KILLS=20
/// cargo xtask test --only lab kills_of_the_daemon` takes some 20 minutes.
const FEW: usize = 3;

/// What is done to a domain in one round. It runs in the first half; for the second it is turned off, since nobody is in it who
/// could let go of a VF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Apply,
    Attach,
    Detach,
    Remove,
}

const ROUND: [Change; 4] = [Change::Apply, Change::Attach, Change::Detach, Change::Remove];

impl Change {
    fn command(self, spec: &str) -> Vec<&str> {
        match self {
            Self::Apply => vec!["apply", "--yes", "-f", spec],
            Self::Attach => vec!["attach", "web", "net1", "--class", "network", "--pf", NIC0],
            Self::Detach => vec!["detach", "--yes", "web", "net1"],
            Self::Remove => vec!["remove", "--yes", "web"],
        }
    }

    /// Asks for it once more, whether it was half done or not at all. A VF that is noted as given already can't be attached:
    /// a Spec says that it is wanted.
    fn again<'a>(self, spec: &'a str, both: &'a str) -> Vec<&'a str> {
        match self {
            Self::Attach => vec!["apply", "--yes", "-f", both],
            Self::Apply | Self::Detach | Self::Remove => self.command(spec),
        }
    }

    /// The VFs of web after it.
    fn leaves(self) -> BTreeSet<String> {
        let names: &[&str] = match self {
            Self::Apply | Self::Detach => &["net0"],
            Self::Attach => &["net0", "net1"],
            Self::Remove => &[],
        };
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// What a domain that runs has got it keeps, with nobody in it who lets go.
    fn needs_a_guest_to_be_undone(self) -> bool {
        matches!(self, Self::Apply | Self::Attach)
    }

    fn prepare(self) -> Outcome {
        match self {
            Self::Apply => sh("virsh start web").map(drop),
            Self::Attach | Self::Remove => Ok(()),
            Self::Detach => sh("virsh destroy web").map(drop),
        }
    }
}

pub fn kills_of_the_daemon_and_of_libvirts_lose_nothing() -> Outcome {
    let kills = match std::env::var(KILLS) {
        Ok(given) => given.parse().map_err(|_| format!("{KILLS}={given:?} is no number"))?,
        Err(_) => FEW,
    };
    clean_up();
    let mut chance = Chance::from_seed("kills_of_the_daemon")?;
    let before = how_the_host_is()?;
    let libvirt = Libvirt::start()?;
    define()?;
    let definition = sh("virsh dumpxml --inactive web")?;
    let mut daemon = Daemon::start()?;
    // Its number of VFs stays: a NIC's link takes seconds to come back when that changes.
    let three = "[[adapter]]\npf = \"0000:01:00.0\"\nvfs = 3\n";
    let web = "\n[[partition]]\nname = \"web\"\nlibvirt = \"web\"\n";
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"52:54:00:aa:00:01\""));
    let net1 = vf("net1", "network", &format!("pf = \"{NIC0}\""));
    let spec = daemon.write("web.toml", [VERSION, three, web, &net0].concat())?;
    let both = daemon.write("both.toml", [VERSION, three, web, &net0, &net1].concat())?;

    // The duration of each change from its first step, without a kill.
    let mut takes = BTreeMap::new();
    for change in ROUND {
        change.prepare()?;
        let mut command = begin(&daemon, &change.command(&spec))?;
        let started = Instant::now();
        assert!(command.wait()?.success(), "{change:?}: {}", daemon.log());
        takes.insert(change, started.elapsed());
        same("VFs of web", sound(&daemon)?, change.leaves())?;
    }

    let (mut counts, mut done, mut left) = (Counts::default(), 0, 0);
    for kill in 0..2 * kills {
        let (round, place) = (kill / ROUND.len(), kill % ROUND.len());
        let change = ROUND[place];
        change.prepare()?;
        let mut command = begin(&daemon, &change.command(&spec))?;
        let all = u64::try_from(takes[&change].as_micros())?;
        thread::sleep(Duration::from_micros(chance.below(all.max(1))));
        let at = |error: Box<dyn Error>, log| format!("kill {kill}, in {change:?}: {error}; {log}");
        let mut is_done = false;
        // Each change is hit by the one in one round, and by the other in the next.
        if (round + place).is_multiple_of(2) {
            daemon.crash()?;
            command.kill()?;
            command.wait()?;
            interrupted(&daemon, &mut counts).map_err(|error| at(error, daemon.log()))?;
            daemon.restart()?;
            println!("kill {kill}: the daemon, in {change:?}");
            counts.may_be_left += usize::from(change.needs_a_guest_to_be_undone());
        } else {
            libvirt.kill_daemon()?;
            is_done = command.wait()?.success();
            libvirt.start_daemon()?;
            let is_left = !is_done && last_plan_is_left(&daemon)?;
            let ended = if is_done {
                "was done"
            } else if is_left {
                "failed and is left"
            } else {
                "is undone"
            };
            println!("kill {kill}: libvirtd, in {change:?}, which {ended}");
            if is_left {
                counts.may_be_left += 1;
                left += 1;
                within_what_is_noted(&daemon).map_err(|error| at(error, daemon.log()))?;
                daemon.done(&change.again(&spec, &both))?;
                is_done = true;
            }
            turn_off_and_on_what_libvirt_has_forgotten()?;
        }
        let there = sound(&daemon).map_err(|error| at(error, daemon.log()))?;
        if there == change.leaves() {
            done += 1;
        } else {
            assert!(!is_done, "kill {kill}: {change:?} was done, and web has {there:?}: {}", daemon.log());
            // So that the next one finds what it changes.
            daemon.done(&change.again(&spec, &both))?;
            same("VFs of web", sound(&daemon).map_err(|error| at(error, daemon.log()))?, change.leaves())?;
        }
    }
    println!(
        "{kills} kills of each: {} of ioward's in the middle of a plan, with {} steps done and {} under way; {left} of libvirt's left \
         a plan that was finished by asking again; {done} times done afterwards, and the others once it was asked for again; \
         nothing lost, nothing owned twice",
        counts.in_the_middle, counts.steps_done, counts.steps_under_way,
    );
    assert!(counts.in_the_middle > kills / 4 || kills <= FEW, "the kills hit nothing: {counts:?}");
    if !(2 * kills).is_multiple_of(ROUND.len()) {
        // The last round was not ended.
        Change::Detach.prepare()?;
        daemon.done(&Change::Remove.command(&spec))?;
        sound(&daemon)?;
    }
    assert_eq!(sh("virsh dumpxml --inactive web")?, definition);
    daemon.apply(&format!("{VERSION}[[adapter]]\npf = \"{NIC0}\"\n"))?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

/// A daemon of libvirt's that dies after QEMU has obeyed has not written that down, and the next one takes the place of that VF on the bus
/// for free: nothing can be plugged in there until the domain was off. That is libvirt's own, and a person does it.
fn turn_off_and_on_what_libvirt_has_forgotten() -> Outcome {
    let Some(machine) = machine()? else { return Ok(()) };
    let live = sh("virsh dumpxml web")?;
    let known = live.matches("<alias name='ua-ioward-net").count();
    if open_groups(machine)?.len() > known {
        println!("libvirt has forgotten a VF of the machine's; it is turned off and on");
        sh("virsh destroy web")?;
        sh("virsh start web")?;
    }
    Ok(())
}

/// The process of the domain's machine, if it runs.
fn machine() -> Result<Option<u64>, Box<dyn Error>> {
    if sh("virsh domstate web")?.trim() != "running" {
        return Ok(None);
    }
    Ok(Some(sh("cat /run/libvirt/qemu/web.pid")?.trim().parse()?))
}

/// Whether the last change that somebody asked for has failed and could not be undone as a whole.
fn last_plan_is_left(daemon: &Daemon) -> Result<bool, Box<dyn Error>> {
    let export: Value = serde_json::from_str(&daemon.done(&["state", "export"])?)?;
    let mut plans = export["plans"].as_array().ok_or("no plans")?.iter();
    let last = plans.rfind(|plan| plan["plan"]["intent"]["intent"] != "reconcile").ok_or("no plan")?;
    Ok(last["ended"] == "left")
}

/// Waits until all that is said of the domain is so: by ioward, by libvirt, and in sysfs. The VFs that it has then.
fn sound(daemon: &Daemon) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut is = Err("nothing was looked at".into());
    let waited = wait_until("all say the same", SOON, || {
        is = look(daemon);
        is.is_ok()
    });
    is.map_err(|error: Box<dyn Error>| format!("{error}; {waited:?}").into())
}

fn look(daemon: &Daemon) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let Seen { vfs, bound, aliases, groups, has_channel } = Seen::now(daemon)?;
    same("what differs", daemon.done(&["drift", "--json"])?.trim(), "[]")?;
    same("VFs bound to vfio-pci, and those with an owner", &bound, &vfs.values().cloned().collect())?;
    let (names, functions): (BTreeSet<String>, Vec<String>) = vfs.into_iter().unzip();
    same("VFs that the domain starts with next, and those in ioward", &aliases, &names)?;
    same("whether it starts with a channel next, and whether it has VFs", has_channel, !names.is_empty())?;
    if let Some(open) = groups {
        let groups: Result<BTreeSet<_>, _> = functions.iter().map(|vf| group(vf)).collect();
        same("IOMMU groups that its machine has open, and those of its VFs", open, groups?)?;
    }
    Ok(names)
}

/// What holds of a plan that is left, too: nothing is bound for machines, in the domain or in its machine but what ioward has noted.
fn within_what_is_noted(daemon: &Daemon) -> Outcome {
    let Seen { vfs, bound, aliases, groups, .. } = Seen::now(daemon)?;
    let (names, functions): (BTreeSet<String>, BTreeSet<String>) = vfs.into_iter().unzip();
    same("VFs bound to vfio-pci that nobody has", bound.difference(&functions).count(), 0)?;
    same(
        "VFs that the domain starts with next and ioward does not know",
        aliases.difference(&names).count(),
        0,
    )?;
    let noted: Result<BTreeSet<_>, _> = functions.iter().map(|vf| group(vf)).collect();
    let open = groups.unwrap_or_default();
    same(
        "IOMMU groups that its machine has open, of VFs that it has not",
        open.difference(&noted?).count(),
        0,
    )
}

/// What is said of the domain, and what is so.
struct Seen {
    /// Addresses by name, in ioward.
    vfs: BTreeMap<String, String>,
    bound: BTreeSet<String>,
    /// Of VFs that the domain starts with next.
    aliases: BTreeSet<String>,
    has_channel: bool,
    /// IOMMU groups that its machine has open, if it runs.
    groups: Option<BTreeSet<String>>,
}

impl Seen {
    fn now(daemon: &Daemon) -> Result<Self, Box<dyn Error>> {
        let said = partitions(daemon)?;
        let vfs = said.get("web").map(|web| web.vfs.clone()).unwrap_or_default();
        let mut bound = BTreeSet::new();
        for function in virtual_functions(NIC0)? {
            if let Some(driver) = driver(&function) {
                same(&function, &*driver, "vfio-pci")?;
                bound.insert(function);
            }
        }
        let xml = sh("virsh dumpxml --inactive web")?;
        let aliases = xml.split("<alias name='ua-ioward-").skip(1).filter_map(|rest| rest.split('\'').next());
        let aliases: BTreeSet<_> = aliases.map(str::to_owned).collect();
        let has_channel = xml.contains("name='org.ioward.0'");
        // Not by its definition: libvirt's daemon may end after QEMU has obeyed, and before that is written down.
        let groups = machine()?.map(open_groups).transpose()?;
        Ok(Self { vfs, bound, aliases, has_channel, groups })
    }
}
