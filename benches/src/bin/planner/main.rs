//! The planner, measured: how planning grows with the host, how it compares with an integer program that says the same,
//! and what planning again costs when one partition has changed. CPU time of this thread; what counts are ratios within
//! this run, and how figures grow from 1 to 4 to 16 times the size.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod host;
mod ilp;

use std::{process::ExitCode, time::Duration};

use ioward_benches::{
    cpu::timed,
    row::{Role, Row},
    run::Run,
};
use ioward_model::{AdapterSpec, Intent, Inventory, Options, Plan, Spec, State, VfCount, VfRequest};
use ioward_planner::{
    advise,
    placement::{problem_of, search::solve},
    plan, validate,
};

/// Rounds.
const ROUNDS: usize = 15;
/// The same for refusals, which take longer.
const REFUSALS: usize = 5;
/// PFs of the hosts, of 63 VFs each: 630, 2,520 and 10,080 VFs.
const PFS: [u16; 3] = [10, 40, 160];
/// So many PFs more where something is to change afterwards: of the fastest adapters, all VFs would be taken otherwise.
const ROOM: u16 = 6;
/// VFs of each.
const VFS_EACH: u16 = 63;
/// By what power of the number of VFs planning may grow.
const GROWS_BY: f64 = 1.2;
/// What the whole Spec with one change may take of planning from nothing.
const OF_NOTHING: f64 = 0.1;
/// How long a refusal of 10,000 requests may take, in milliseconds.
const REFUSED_WITHIN: f64 = 500.0;
/// How long the integer program may take for one problem.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of the benchmark.
type Part = fn(&mut Run);
const PARTS: [(&str, Part); 4] =
    [("growth", growth), ("ilp", against_ilp), ("again", planning_again), ("refusal", refusing)];

fn main() -> ExitCode {
    let mut run = match Run::asked_for("planner", &PARTS.map(|(name, _)| name)) {
        Ok(run) => run,
        Err(status) => return status,
    };
    for (name, part) in PARTS {
        if run.wants(name) {
            part(&mut run);
        }
    }
    run.end()
}

/// VFs of so many PFs.
fn vfs(pfs: u16) -> u16 {
    pfs * VFS_EACH
}

/// 312, 1,250 and 5,000 partitions of two VFs each: some VFs are left, so that one can be replaced.
fn partitions(pfs: u16) -> usize {
    usize::from(pfs) * 125 / 4
}

/// The sizes of a row whose contenders begin with one for each.
fn by_vfs() -> Vec<(f64, usize)> {
    PFS.iter().enumerate().map(|(place, pfs)| (f64::from(vfs(*pfs)), place)).collect()
}

fn intent(spec: &Spec) -> Intent {
    Intent::Apply { spec: spec.clone() }
}

/// A host, and a Spec for it.
struct Job {
    inventory: Inventory,
    spec: Spec,
}

impl Job {
    fn of(pfs: u16) -> Self {
        Self { inventory: host::inventory(pfs, VFS_EACH), spec: host::spec(partitions(pfs), pfs) }
    }

    /// The same Spec, on a host with room.
    fn with_room(pfs: u16) -> Self {
        Self { inventory: host::inventory(pfs + ROOM, VFS_EACH), ..Self::of(pfs) }
    }
}

/// NUMA nodes, link speeds, redundancy by adapter: two requests for each partition.
fn growth(run: &mut Run) {
    let jobs = PFS.map(Job::of);
    let intents = jobs.each_ref().map(|job| intent(&job.spec));
    let (state, options) = (State::default(), Options::default());
    let mut row = Row::new("growth", "planning from nothing, two VFs for each partition", "ms");
    for (job, pfs) in jobs.iter().zip(PFS) {
        row = row.with(Role::Ours, format!("{} VFs, {} partitions", vfs(pfs), job.spec.partitions.len()));
    }
    let row = row.grows("planning", "VFs", by_vfs(), GROWS_BY);
    run.row(measured(row, ROUNDS, |round, place| {
        let inventory = &jobs[place].inventory;
        let (took, planned) = timed(|| plan(inventory, &state, &intents[place], &options).unwrap());
        if round == 0 {
            assert_eq!(validate(&planned, inventory, &state), [""; 0]);
            assert!(planned.gap.is_none(), "the best was found");
        }
        took
    }));
}

/// Whoever fails here has panicked.
fn measured(row: Row, rounds: usize, mut work: impl FnMut(usize, usize) -> f64) -> Row {
    row.take_turns(rounds, |round, place| Ok::<_, String>(work(round, place))).unwrap()
}

/// The same model, solved to optimality by a simplex-based branch and bound (microlp), once for each size until one takes too long.
fn against_ilp(run: &mut Run) {
    let mut row =
        Row::new("ilp", "placement, and an integer program of the same model, to the optimum", "ms");
    let mut sizes = Vec::new();
    for (partitions, pfs) in [(4, 8), (8, 8), (16, 8), (32, 16), (64, 16), (128, 24), (256, 32), (512, 64)] {
        let problem = problem_of(&host::inventory(pfs, VFS_EACH), &host::spec(partitions, pfs)).unwrap();
        let (requests, ports) = (problem.requests.len(), problem.ports.len());
        let ours: Vec<(f64, _)> = (0..ROUNDS).map(|_| timed(|| solve(&problem).unwrap())).collect();
        let cost = ours[0].1.cost;
        assert_eq!(cost, ours[0].1.bound, "the best was found");
        assert_eq!(problem.assess(&ours[0].1.ports), Ok(cost));
        let (theirs, program) = timed(|| ilp::solve(&problem, PATIENCE));
        let place = row.contenders.len();
        let samples = ours.iter().map(|(took, _)| *took).collect();
        row = row.with_samples(Role::Ours, format!("{requests} requests, {ports} ports"), samples);
        sizes.push((requests as f64, place));
        let Some(placed) = program else {
            row.notes.push(format!(
                "{requests} requests: the program had no end after {} s, and is not tried with more",
                PATIENCE.as_secs()
            ));
            break;
        };
        let of_program =
            problem.assess(&placed).unwrap_or_else(|why| panic!("the program broke a rule: {why}"));
        assert_eq!(of_program, cost, "both are optimal");
        row = row.with_samples(Role::Peer, format!("{requests} requests, the program"), vec![theirs]);
        row = row.ratio(place, place + 1, None);
    }
    // Without the program: as large as the others here.
    let job = Job::of(PFS[2]);
    let problem = problem_of(&job.inventory, &job.spec).unwrap();
    let samples = (0..ROUNDS).map(|_| timed(|| solve(&problem).unwrap()).0).collect();
    let requests = problem.requests.len();
    sizes.push((requests as f64, row.contenders.len()));
    row =
        row.with_samples(Role::Ours, format!("{requests} requests, {} ports", problem.ports.len()), samples);
    run.row(row.grows("placement", "requests", sizes, None));
}

/// A host where all of a Spec has been carried out, and that Spec with one partition changed.
struct Changed {
    job: Job,
    state: State,
    /// The whole Spec.
    whole: Intent,
    /// The partition alone.
    alone: Intent,
}

impl Changed {
    fn of(pfs: u16, options: &Options) -> Self {
        let job = Job::with_room(pfs);
        let planned = plan(&job.inventory, &State::default(), &intent(&job.spec), options).unwrap();
        let (inventory, state) = host::carry_out(&job.inventory, &planned);
        let mut whole = job.spec.clone();
        let middle = whole.partitions.len() / 2;
        whole.partitions[middle].vfs[0].min_link_speed = Some("100Gbit".parse().unwrap());
        let alone = Spec { partitions: vec![whole.partitions[middle].clone()], ..whole.clone() };
        let [whole, alone] = [whole, alone].map(|spec| intent(&spec));
        Self { job: Job { inventory, ..job }, state, whole, alone }
    }

    fn plan(&self, intent: &Intent, options: &Options) -> Plan {
        let planned = plan(&self.job.inventory, &self.state, intent, options).unwrap();
        assert!(!planned.steps.is_empty());
        planned
    }
}

/// One of 5,000 partitions that run gets a faster link.
fn planning_again(run: &mut Run) {
    // The one that changes runs, and its VF is replaced.
    let options = Options { allow_disruption: true, ..Options::default() };
    let hosts = PFS.map(|pfs| Changed::of(pfs, &options));
    let fresh = Job::with_room(PFS[2]);
    let (from_nothing, nothing) = (intent(&fresh.spec), State::default());
    let many = fresh.spec.partitions.len();
    let mut row = Row::new("again", "planning again when one partition has changed", "ms");
    for host in &hosts {
        row = row.with(Role::Ours, format!("the whole Spec of {}", host.job.spec.partitions.len()));
    }
    let sizes = hosts.iter().enumerate().map(|(place, host)| (host.job.spec.partitions.len() as f64, place));
    let sizes = sizes.collect();
    let row = row
        .with(Role::Ours, format!("the one alone, of {many}"))
        .with(Role::Floor, format!("from nothing, {many}"))
        .ratio(2, 4, OF_NOTHING)
        .ratio(3, 4, None)
        .grows("the whole Spec", "partitions", sizes, GROWS_BY);
    run.row(measured(row, ROUNDS, |_, place| match place {
        4 => timed(|| plan(&fresh.inventory, &nothing, &from_nothing, &options).unwrap()).0,
        3 => timed(|| hosts[2].plan(&hosts[2].alone, &options)).0,
        _ => timed(|| hosts[place].plan(&hosts[place].whole, &options)).0,
    }));
}

/// A way to ask for too much.
type TooMuch = fn(&mut Spec, &Inventory);

/// A Spec that is refused, and what would have to give way.
fn refusing(run: &mut Run) {
    let kinds: [(&str, &str, TooMuch); 4] = [
        ("refusal-one", "refusing a Spec of which one request asks for what nothing has", |spec, _| {
            let middle = spec.partitions.len() / 2;
            too_fast(&mut spec.partitions[middle].vfs[0]);
        }),
        ("refusal-all", "refusing a Spec of which all requests ask for what nothing has", |spec, _| {
            spec.partitions.iter_mut().flat_map(|partition| &mut partition.vfs).for_each(too_fast);
        }),
        (
            "refusal-adapter",
            "refusing a Spec with an adapter that is to give 1 VF for 2",
            |spec, inventory| {
                let pf = inventory.physical_functions[0].address;
                spec.adapters.push(AdapterSpec { pf, vfs: Some(VfCount::Exactly(1)), spare: None });
                let middle = spec.partitions.len() / 2;
                for partition in &mut spec.partitions[middle..middle + 2] {
                    partition.vfs[0].pf = Some(pf);
                }
            },
        ),
        (
            "refusal-many",
            "refusing a Spec with 2 % more partitions than there is room for",
            |spec, inventory| {
                let pfs = u16::try_from(inventory.physical_functions.len()).unwrap();
                *spec = host::spec(partitions(pfs) + partitions(pfs) / 50, pfs);
            },
        ),
    ];
    for (name, what, too_much) in kinds {
        refuse(run, name, what, too_much);
    }
}

fn too_fast(vf: &mut VfRequest) {
    vf.min_link_speed = Some("400Gbit".parse().unwrap());
}

fn refuse(run: &mut Run, name: &'static str, what: &str, too_much: TooMuch) {
    let (state, options) = (State::default(), Options::default());
    let mut row = Row::new(name, format!("{what}, with its ways out"), "ms");
    let mut jobs = Vec::new();
    for pfs in PFS {
        let mut job = Job::of(pfs);
        too_much(&mut job.spec, &job.inventory);
        row = row.with(Role::Ours, format!("{} partitions", job.spec.partitions.len()));
        jobs.push((intent(&job.spec), job));
    }
    let row = row.at_most(2, REFUSED_WITHIN).grows("refusing", "VFs", by_vfs(), None);
    let mut told = String::new();
    let mut row = measured(row, REFUSALS, |_, place| {
        let (intent, job) = &jobs[place];
        let (took, (reasons, ways)) =
            timed(|| advise(&job.inventory, &state, intent, &options).map(|_| ()).unwrap_err());
        told = format!("{} reasons and {} ways, the last time", reasons.len(), ways.len());
        took
    });
    row.notes.push(told);
    run.row(row);
}
