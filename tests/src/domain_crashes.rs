//! The daemon and libvirt's are killed at random moments of changes of a domain: what is left is held against virsh and sysfs.
//! As in [`crate::crashes`], a seed determines the moments.

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

use crate::{
    crashes::{Chance, Counts, begin, group, interrupted, open_groups, partitions, same},
    domains::define,
    libvirtd::Libvirt,
};

/// The variable with the number of kills of each of the two daemons. xtask passes it on into level 1.
const KILLS: &str = "IOWARD_KILLS";
/// One round of each: a daemon of libvirt's takes long to come back in emulation. `IOWARD_KILLS=20 cargo xtask test --only lab
/// kills_of_the_daemon` takes some 20 minutes.
const FEW: usize = 4;

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

    /// The VFs of web after it.
    fn leaves(self) -> &'static [&'static str] {
        match self {
            Self::Apply | Self::Detach => &["net0"],
            Self::Attach => &["net0", "net1"],
            Self::Remove => &[],
        }
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
    let spec = daemon.write("web.toml", [VERSION, three, web, &net0].concat())?;

    // The duration of each change from its first step, without a kill.
    let mut takes = BTreeMap::new();
    for change in ROUND {
        change.prepare()?;
        let mut command = begin(&daemon, &change.command(&spec))?;
        let started = Instant::now();
        assert!(command.wait()?.success(), "{change:?}: {}", daemon.log());
        takes.insert(change, started.elapsed());
        sound(&daemon)?;
    }

    let (mut counts, mut done) = (Counts::default(), 0);
    for kill in 0..2 * kills {
        let change = ROUND[kill % ROUND.len()];
        change.prepare()?;
        let mut command = begin(&daemon, &change.command(&spec))?;
        let all = u64::try_from(takes[&change].as_micros())?;
        thread::sleep(Duration::from_micros(chance.below(all.max(1))));
        if (kill / ROUND.len()).is_multiple_of(2) {
            daemon.crash()?;
            command.kill()?;
            command.wait()?;
            interrupted(&daemon, &mut counts)
                .map_err(|error| format!("kill {kill}: {error}: {}", daemon.log()))?;
            daemon.restart()?;
            counts.may_be_left += usize::from(change.needs_a_guest_to_be_undone());
        } else {
            libvirt.kill_daemon()?;
            let by_itself = command.wait()?;
            libvirt.start_daemon()?;
            println!("kill {kill}: libvirtd, in {change:?}, which ended with {by_itself}");
            counts.may_be_left += usize::from(!by_itself.success());
        }
        let at = |error: Box<dyn Error>| format!("kill {kill}, in {change:?}: {error}; {}", daemon.log());
        let there = sound(&daemon).map_err(at)?;
        if there == change.leaves().iter().map(|&name| name.to_owned()).collect() {
            done += 1;
        } else {
            // So that the next one finds what it changes.
            daemon.done(&change.command(&spec))?;
            let there = sound(&daemon).map_err(at)?;
            same("VFs of web", there, change.leaves().iter().map(|&name| name.to_owned()).collect())?;
        }
    }
    println!(
        "{kills} kills of each: {} of ioward's in the middle of a plan, with {} steps done and {} under way; {done} times done \
         afterwards, and the others once it was asked for again; nothing lost, nothing owned twice",
        counts.in_the_middle, counts.steps_done, counts.steps_under_way,
    );
    assert!(counts.in_the_middle > kills / 4 || kills <= FEW, "the kills hit nothing: {counts:?}");
    assert_eq!(sh("virsh dumpxml --inactive web")?, definition);
    daemon.apply(&format!("{VERSION}[[adapter]]\npf = \"{NIC0}\"\n"))?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
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
    let said = partitions(daemon)?;
    let vfs = said.get("web").map(|web| web.vfs.clone()).unwrap_or_default();
    same("what differs", daemon.done(&["drift", "--json"])?.trim(), "[]")?;
    let mut bound = BTreeSet::new();
    for function in virtual_functions(NIC0)? {
        if let Some(driver) = driver(&function) {
            same(&function, &*driver, "vfio-pci")?;
            bound.insert(function);
        }
    }
    same("VFs bound to vfio-pci, and those with an owner", &bound, &vfs.values().cloned().collect())?;
    let (names, functions): (BTreeSet<String>, Vec<String>) = vfs.into_iter().unzip();
    let xml = sh("virsh dumpxml --inactive web")?;
    let aliases = xml.split("<alias name='ua-ioward-").skip(1).filter_map(|rest| rest.split('\'').next());
    let aliases: BTreeSet<_> = aliases.map(str::to_owned).collect();
    same("VFs that the domain starts with next, and those in ioward", &aliases, &names)?;
    // Not by its definition: libvirt's daemon may end after QEMU has obeyed, and before that is written down.
    if sh("virsh domstate web")?.trim() == "running" {
        let pid = sh("cat /run/libvirt/qemu/web.pid")?.trim().parse()?;
        let groups: Result<BTreeSet<_>, _> = functions.iter().map(|vf| group(vf)).collect();
        same("IOMMU groups that its machine has open, and those of its VFs", open_groups(pid)?, groups?)?;
    }
    Ok(names)
}
