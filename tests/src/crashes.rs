//! A daemon that is killed at random moments of changes: the result of the next daemon's recovery, checked in
//! sysfs, in the processes of the machines, with `ip`, and over QMP.
//!
//! A seed determines the moments, as parts of the duration of a change: `IOWARD_SEED=17 cargo xtask test --only lab
//! fifty_kills` uses the same ones again. What the daemon is doing at that moment still depends on the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Debug,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, driver, sh, sh_json, virtual_functions},
};
use serde_json::Value;

const KILLS: usize = 50;
/// The variable with the seed. xtask passes it on into level 1.
const SEED: &str = "IOWARD_SEED";
const MAC: &str = "52:54:00:aa:00:01";

/// A partition that stays in its firmware, and so starts at once.
const EXTRA: &str = r#"
[[partition]]
name   = "extra"
memory = "64MiB"
boot   = { disk = "/run/empty.img" }
"#;

/// Changes, and those that reverse them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Apply,
    Remove,
    Attach,
    Detach,
}

impl Change {
    /// The next change of one of the two pairs: the one that `there` lacks.
    fn next(pair: usize, there: &Partitions) -> Self {
        match pair {
            0 if there.contains_key("extra") => Self::Remove,
            0 => Self::Apply,
            _ if there["web"].vfs.contains_key("net1") => Self::Detach,
            _ => Self::Attach,
        }
    }

    fn command(self, spec: &str) -> Vec<&str> {
        match self {
            Self::Apply => vec!["apply", "--yes", "-f", spec],
            Self::Remove => vec!["remove", "--yes", "extra", "--force"],
            Self::Attach => vec!["attach", "web", "net1", "--class", "network", "--pf", NIC0],
            Self::Detach => vec!["detach", "--yes", "web", "net1"],
        }
    }
}

/// The daemon's view: partitions by name.
pub(crate) type Partitions = BTreeMap<String, Said>;

#[derive(Debug)]
pub(crate) struct Said {
    pid: Option<u64>,
    /// Addresses, by name.
    pub(crate) vfs: BTreeMap<String, String>,
}

pub(crate) fn partitions(daemon: &Daemon) -> Result<Partitions, Box<dyn Error>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let said: Value = serde_json::from_str(&daemon.done(&["partitions", "--json"])?)?;
    let of_one = |partition: &Value| {
        let vfs = partition["vfs"].as_array().into_iter().flatten();
        let vfs = vfs.map(|vf| (text(&vf["name"]), text(&vf["address"]))).collect();
        (text(&partition["name"]), Said { pid: partition["pid"].as_u64(), vfs })
    };
    Ok(said.as_array().into_iter().flatten().map(of_one).collect())
}

/// Random numbers that a seed repeats.
pub(crate) struct Chance(u64);

impl Chance {
    /// The seed given, or else one from the clock. Printed first, so that every failure shows it.
    pub(crate) fn from_seed(test: &str) -> Result<Self, Box<dyn Error>> {
        let seed = match std::env::var(SEED) {
            Ok(given) => given.parse().map_err(|_| format!("{SEED}={given:?} is no number"))?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        };
        println!("seed {seed}; again: {SEED}={seed} cargo xtask test --only lab {test}");
        Ok(Self(seed))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// By change.
    kills: BTreeMap<Change, usize>,
    pub(crate) in_the_middle: usize,
    pub(crate) steps_under_way: usize,
    pub(crate) steps_done: usize,
    done: usize,
    as_before: usize,
    /// Plans that failed while somebody was away who was needed to undo them.
    pub(crate) may_be_left: usize,
}

pub fn fifty_kills_during_changes_lose_nothing() -> Outcome {
    let mut chance = Chance::from_seed("fifty_kills")?;
    let before = how_the_host_is()?;
    sh("truncate -s 1M /run/empty.img; chmod 0666 /run/empty.img")?;
    let mut daemon = Daemon::start()?;
    let web = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{MAC}\""));
    let two = "[[adapter]]\npf = \"0000:01:00.0\"\nvfs = 3\n";
    daemon.apply(&[VERSION, two, &partition("web"), &web].concat())?;
    let mut guest = daemon.guest("web")?;
    guest.run("true", SOON)?;
    let pid = partitions(&daemon)?["web"].pid;
    // NVMe: a NIC's link takes seconds to come back each time its number of VFs changes.
    let spec = daemon.write("extra.toml", [VERSION, EXTRA, &vf("disk0", "nvme", "")].concat())?;

    // The duration of each change from its first step, without a kill.
    let mut takes = BTreeMap::new();
    for pair in [0, 1, 0, 1] {
        let change = Change::next(pair, &partitions(&daemon)?);
        let mut command = begin(&daemon, &change.command(&spec))?;
        let started = Instant::now();
        assert!(command.wait()?.success(), "{change:?}: {}", daemon.log());
        takes.insert(change, started.elapsed());
    }
    let mut there = sound(&daemon, pid)?;

    let mut counts = Counts::default();
    for kill in 0..KILLS {
        let pair = usize::from(kill % 2 == 1);
        let change = Change::next(pair, &there);
        *counts.kills.entry(change).or_default() += 1;
        let mut command = begin(&daemon, &change.command(&spec))?;
        let all = u64::try_from(takes[&change].as_micros())?;
        thread::sleep(Duration::from_micros(chance.below(all.max(1))));
        daemon.crash()?;
        command.kill()?;
        command.wait()?;
        interrupted(&daemon, &mut counts)?;
        daemon.restart()?;
        there = sound(&daemon, pid)
            .map_err(|error| format!("kill {kill}, of {change:?}: {error}; {}", daemon.log()))?;
        if Change::next(pair, &there) == change {
            counts.as_before += 1;
            // Otherwise the same changes would be killed again and again.
            if kill % 4 < 2 {
                daemon.done(&change.command(&spec))?;
                there = sound(&daemon, pid)?;
            }
        } else {
            counts.done += 1;
        }
    }
    println!(
        "{KILLS} kills ({:?}): {} in the middle of a plan, with {} steps done and {} under way; afterwards {} \
         times as before and {} times done; the machine that ran ran on; nothing lost, nothing owned twice",
        counts.kills,
        counts.in_the_middle,
        counts.steps_done,
        counts.steps_under_way,
        counts.as_before,
        counts.done
    );
    assert!(counts.in_the_middle > KILLS / 4, "the kills hit nothing: {counts:?}");

    // Everything still works, in the guest too, and is restored.
    guest.run("cat /sys/class/net/eth0/address", SOON)?;
    for pair in [0, 1] {
        while matches!(Change::next(pair, &partitions(&daemon)?), Change::Remove | Change::Detach) {
            daemon.done(&Change::next(pair, &partitions(&daemon)?).command(&spec))?;
        }
    }
    daemon.crash()?;
    assert_eq!(asked_over_qmp("web", "query-status")?["status"], "running");
    daemon.restart()?;
    daemon.done(&["remove", "--yes", "web", "--force"])?;
    daemon.apply(&format!("{VERSION}[[adapter]]\npf = \"{NIC0}\"\n"))?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}

/// Begins a change and waits until its first step is running.
pub(crate) fn begin(daemon: &Daemon, arguments: &[&str]) -> Result<Child, Box<dyn Error>> {
    let mut command = daemon.begin(arguments)?;
    let mut first = [0];
    match command.stdout.as_mut().ok_or("no output")?.read_exact(&mut first) {
        Ok(()) => Ok(command),
        Err(_) => Err(format!("{arguments:?}: {:?}; {}", command.wait_with_output()?, daemon.log()).into()),
    }
}

/// Counts the steps of the plan that the killed daemon left open in the journal. No daemon runs now.
pub(crate) fn interrupted(daemon: &Daemon, counts: &mut Counts) -> Outcome {
    let folder = daemon.state_dir();
    let export = Command::new("ioward").args(["state", "export", "--state-dir"]).arg(folder).output()?;
    let export: Value = serde_json::from_slice(&export.stdout)?;
    let mut plans: Vec<_> = export["plans"].as_array().ok_or("no plans")?.iter().collect();
    if let Some(plan) = plans.pop_if(|plan| plan.get("ended").is_none()) {
        let count = |word: &str| {
            let steps = plan["steps"].as_array().into_iter().flatten();
            steps.filter(|step| step["is"] == word).count()
        };
        counts.in_the_middle += 1;
        counts.steps_done += count("done");
        counts.steps_under_way += count("begun");
    }
    // Earlier daemons, dead by now, have recovered the plans before it.
    let is_repair = |plan: &Value| plan["plan"]["intent"]["intent"] == "reconcile";
    // Repairs are not rolled back: those that were cut off are left, and the next look plans the rest.
    let ended = |plan: &&&Value| {
        plan["ended"] == "done" || plan["ended"] == "undone" || (is_repair(plan) && plan["ended"] == "left")
    };
    let others: Vec<_> = plans.iter().filter(|plan| !ended(plan)).collect();
    let left = others.iter().filter(|plan| plan["ended"] == "left").count();
    same("plans without an end, and none", others.len() - left, 0)?;
    if left <= counts.may_be_left { Ok(()) } else { Err(format!("{left} plans could not be undone").into()) }
}

/// Checks the invariants that hold after every restart.
fn sound(daemon: &Daemon, web: Option<u64>) -> Result<Partitions, Box<dyn Error>> {
    let said = partitions(daemon)?;
    let owned: Vec<_> = said.values().flat_map(|partition| partition.vfs.values().cloned()).collect();
    let once: BTreeSet<_> = owned.iter().cloned().collect();
    same("VFs with an owner, and owners", once.len(), owned.len())?;
    let mut bound = BTreeSet::new();
    for pf in [NIC0, NVME, NIC1] {
        for vf in virtual_functions(pf)? {
            if let Some(driver) = driver(&vf) {
                same(&vf, &*driver, "vfio-pci")?;
                bound.insert(vf);
            }
        }
    }
    same("VFs bound to vfio-pci, and those with an owner", &bound, &once)?;

    let mut machines = BTreeSet::new();
    for (name, partition) in &said {
        let pid = partition.pid.ok_or_else(|| format!("{name} does not run"))?;
        let groups: Result<BTreeSet<_>, _> = partition.vfs.values().map(|vf| group(vf)).collect();
        same(
            &format!("IOMMU groups that {name} has open, and those of its VFs"),
            open_groups(pid)?,
            groups?,
        )?;
        machines.insert(pid);
    }
    same("machines that run, and partitions", running_machines()?, machines)?;
    same("the process of web", said["web"].pid, web)?;
    same(
        "the MAC of net0",
        sh_json("ip -j link show eth0")?[0]["vfinfo_list"][0]["address"].as_str(),
        Some(MAC),
    )?;

    Ok(said)
}

pub(crate) fn same<A: Debug + PartialEq<B>, B: Debug>(what: &str, is: A, should_be: B) -> Outcome {
    if is == should_be { Ok(()) } else { Err(format!("{what}: {is:?}, {should_be:?}").into()) }
}

/// The processes of machines. A zombie has no command line any more.
fn running_machines() -> Result<BTreeSet<u64>, Box<dyn Error>> {
    let mut machines = BTreeSet::new();
    for process in fs::read_dir("/proc")?.flatten() {
        let command_line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let program = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
        if String::from_utf8_lossy(program).contains("qemu-system") {
            machines.extend(process.file_name().to_string_lossy().parse::<u64>());
        }
    }
    Ok(machines)
}

/// The IOMMU group of a VF.
pub(crate) fn group(vf: &str) -> Result<String, Box<dyn Error>> {
    let link = fs::read_link(Path::new("/sys/bus/pci/devices").join(vf).join("iommu_group"))?;
    Ok(link.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

/// The IOMMU groups that a process has open.
pub(crate) fn open_groups(pid: u64) -> Result<BTreeSet<String>, Box<dyn Error>> {
    let mut groups = BTreeSet::new();
    for file in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let target = fs::read_link(file?.path()).unwrap_or_default();
        let name = target.strip_prefix("/dev/vfio").ok().and_then(Path::to_str).unwrap_or_default();
        if name.parse::<u32>().is_ok() {
            groups.insert(name.to_owned());
        }
    }
    Ok(groups)
}

/// A machine's answer to a QMP command. It serves one connection at a time: no daemon runs now.
fn asked_over_qmp(partition: &str, command: &str) -> Result<Value, Box<dyn Error>> {
    let socket = format!("/run/ioward-test/run/partitions/{partition}/qmp.sock");
    let mut monitor = UnixStream::connect(socket)?;
    monitor.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answers = BufReader::new(monitor.try_clone()?).lines();
    let mut answer = Value::Null;
    for command in ["qmp_capabilities", command] {
        writeln!(monitor, r#"{{"execute":"{command}"}}"#)?;
        // The greeting and events come in between.
        answer = loop {
            let line: Value = serde_json::from_str(&answers.next().ok_or("QMP closed")??)?;
            if let Some(answer) = line.get("return") {
                break answer.clone();
            }
        };
    }
    Ok(answer)
}
