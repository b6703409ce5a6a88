//! The planner, measured: how planning grows with the host, how it compares with an integer program that says the same,
//! and what planning again costs when one partition has changed. Every figure is a ratio within this run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a benchmark that cannot be set up has nothing to measure"
)]

mod host;
mod ilp;

use std::{process::ExitCode, time::Duration};

use ioward_benches::goals::Goals;
use ioward_model::{Intent, Options, PartitionSpec, Spec, State};
use ioward_planner::{
    advise,
    placement::{problem::Problem, problem_of, search::solve},
    plan, validate,
};
use rustix::time::{ClockId, clock_gettime};

/// How often each thing is done; the fastest counts, for it was disturbed least.
const ROUNDS: usize = 15;
/// The same for refusals, which take longer.
const REFUSALS: usize = 3;
/// By what power of the number of VFs planning may grow.
const GROWS_BY: f64 = 1.2;
/// What the whole Spec with one change may take of planning from nothing, in percent.
const OF_NOTHING: f64 = 10.0;
/// How long a refusal of 10,000 requests may take.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);
/// How long the integer program may take for one problem.
const PATIENCE: Duration = Duration::from_secs(60);

/// A part of the benchmark.
type Part = fn(&Goals);

fn main() -> ExitCode {
    let goals = Goals::default();
    let parts: [(&str, Part); 4] =
        [("growth", growth), ("ilp", against_ilp), ("again", planning_again), ("refusal", refusing)];
    let chosen: Vec<String> = std::env::args().skip(1).collect();
    for (name, part) in parts {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            part(&goals);
        }
    }
    goals.status()
}

/// The CPU time that this thread has used: unlike the time on the wall, it hardly depends on who else uses the machine.
fn cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap()
}

fn fastest<T>(work: impl FnMut() -> T) -> (Duration, T) {
    fastest_of(ROUNDS, work)
}

fn fastest_of<T>(rounds: usize, mut work: impl FnMut() -> T) -> (Duration, T) {
    let mut best = None;
    for _ in 0..rounds {
        let begin = cpu();
        let result = work();
        let took = cpu() - begin;
        if best.as_ref().is_none_or(|(least, _)| took < *least) {
            best = Some((took, result));
        }
    }
    best.unwrap()
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// From 1,000 VFs on 16 PFs to 10,000 on 160, half as many partitions as VFs with two requests each.
fn growth(goals: &Goals) {
    println!("Planning from nothing: NUMA nodes, link speeds, redundancy by adapter");
    println!("{:>10} {:>6} {:>11} {:>10} {:>10}", "free VFs", "PFs", "partitions", "steps", "time (ms)");
    let mut times = Vec::new();
    for thousands in [1_u16, 2, 5, 10] {
        let pfs = 16 * thousands;
        let inventory = host::inventory(pfs, 63);
        let spec = host::spec(500 * usize::from(thousands), pfs);
        let intent = Intent::Apply { spec };
        let state = State::default();
        let options = Options::default();
        let (took, planned) = fastest(|| plan(&inventory, &state, &intent, &options).unwrap());
        assert_eq!(validate(&planned, &inventory, &state), [""; 0]);
        assert!(planned.gap.is_none(), "the best was found");
        let (vfs, partitions) = (pfs * 63, 500 * u32::from(thousands));
        println!(
            "{vfs:>10} {pfs:>6} {partitions:>11} {:>10} {:>10.1}",
            planned.steps.len(),
            milliseconds(took)
        );
        times.push((f64::from(vfs), took.as_secs_f64()));
    }
    let ((first, least), (last, most)) = (times[0], times[times.len() - 1]);
    let exponent = (most / least).ln() / (last / first).ln();
    let met = goals.judge(exponent <= GROWS_BY);
    println!("time grows with the number of VFs to the power of {exponent:.2} (at most {GROWS_BY}): {met}\n");
}

/// The same model, solved to optimality by a simplex-based branch and bound.
fn against_ilp(_: &Goals) {
    println!("Placement against an integer program of the same model (microlp), both to optimality");
    println!(
        "{:>9} {:>6} {:>15} {:>15} {:>10} {:>10}",
        "requests", "ports", "placement (ms)", "program (ms)", "ratio", "objective"
    );
    for (partitions, pfs) in [(4, 8), (8, 8), (16, 8), (32, 16), (64, 16), (128, 24), (256, 32), (512, 64)] {
        let inventory = host::inventory(pfs, 63);
        let problem = problem_of(&inventory, &host::spec(partitions, pfs)).unwrap();
        let (took, solution) = fastest(|| solve(&problem).unwrap());
        assert_eq!(solution.cost, solution.bound, "the best was found");
        assert_eq!(problem.assess(&solution.ports), Ok(solution.cost));
        let begin = cpu();
        let program = ilp::solve(&problem, PATIENCE);
        let theirs = cpu() - begin;
        let size =
            format!("{:>9} {:>6} {:>15.3}", problem.requests.len(), problem.ports.len(), milliseconds(took));
        match program {
            Some(ports) => {
                let cost =
                    problem.assess(&ports).unwrap_or_else(|why| panic!("the program broke a rule: {why}"));
                let same = if cost == solution.cost { "the same" } else { "DIFFERENT" };
                let ratio = theirs.as_secs_f64() / took.as_secs_f64();
                println!("{size} {:>15.1} {ratio:>9.0}x {same:>10}", milliseconds(theirs));
                assert_eq!(cost, solution.cost);
            }
            None => {
                println!("{size} {:>15} {:>10} {:>10}", format!("> {}", PATIENCE.as_millis()), "", "no end");
                break;
            }
        }
    }
    whole(&problem_of(&host::inventory(160, 63), &host::spec(5_000, 160)).unwrap());
}

fn whole(problem: &Problem) {
    let (took, solution) = fastest(|| solve(problem).unwrap());
    assert_eq!(solution.cost, solution.bound, "the best was found");
    let (requests, ports) = (problem.requests.len(), problem.ports.len());
    println!("{requests:>9} {ports:>6} {:>15.3} {:>15}\n", milliseconds(took), "not tried");
}

/// One of 5,000 partitions that run gets a faster link.
fn planning_again(goals: &Goals) {
    println!("Planning again when one of 5,000 partitions has changed");
    let (inventory, spec) = (host::inventory(160, 63), host::spec(5_000, 160));
    let nothing = State::default();
    // The one that changes runs, and its VF is replaced.
    let options = Options { allow_disruption: true, ..Options::default() };
    let wish = |partitions: Vec<PartitionSpec>| Intent::Apply { spec: Spec { partitions, ..spec.clone() } };
    let everything = wish(spec.partitions.clone());
    let (from_nothing, planned) = fastest(|| plan(&inventory, &nothing, &everything, &options).unwrap());
    let (inventory, state) = host::carry_out(&inventory, &planned);
    let mut changed = spec.partitions.clone();
    changed[2_500].vfs[0].min_link_speed = Some("100Gbit".parse().unwrap());
    let share = |name: &str, intent: &Intent| {
        let (took, planned) = fastest(|| plan(&inventory, &state, intent, &options).unwrap());
        assert!(!planned.steps.is_empty());
        let share = 100.0 * took.as_secs_f64() / from_nothing.as_secs_f64();
        println!("{name:<52} {:>8.2} ms {share:>7.1} %", milliseconds(took));
        share
    };
    println!("{:<52} {:>8.2} ms {:>7.1} %", "from nothing", milliseconds(from_nothing), 100.0);
    share("a Spec of the one that changed", &wish(vec![changed[2_500].clone()]));
    let whole = share("the whole Spec of 5,000, one of them changed", &wish(changed));
    println!("at most {OF_NOTHING} % of planning from nothing: {}\n", goals.judge(whole <= OF_NOTHING));
}

/// A Spec of 5,000 partitions that is refused, and what would have to give way.
fn refusing(goals: &Goals) {
    println!("Refusing 10,000 requests on 10,080 VFs, with the ways out");
    let (inventory, spec) = (host::inventory(160, 63), host::spec(5_000, 160));
    let (state, options) = (State::default(), Options::default());
    let refusal = |name: &str, change: &dyn Fn(&mut Spec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        let intent = Intent::Apply { spec };
        let (took, (reasons, ways)) =
            fastest_of(REFUSALS, || advise(&inventory, &state, &intent, &options).map(|_| ()).unwrap_err());
        println!(
            "{name:<40} {:>8.1} ms {:>5} reasons {:>3} ways: {}",
            milliseconds(took),
            reasons.len(),
            ways.len(),
            goals.judge(took < REFUSED_WITHIN)
        );
    };
    let too_fast = |vf: &mut ioward_model::VfRequest| vf.min_link_speed = Some("400Gbit".parse().unwrap());
    refusal("one of them asks for what nothing has", &|spec| too_fast(&mut spec.partitions[2_500].vfs[0]));
    refusal("all of them do", &|spec| {
        spec.partitions.iter_mut().flat_map(|partition| &mut partition.vfs).for_each(too_fast);
    });
    refusal("an adapter of 160 is to give 1 VF for 2", &|spec| {
        let pf = inventory.physical_functions[0].address;
        let one = ioward_model::VfCount::Exactly(1);
        spec.adapters.push(ioward_model::AdapterSpec { pf, vfs: Some(one), spare: None });
        let vf = &mut spec.partitions[2_500].vfs[0];
        vf.pf = Some(pf);
        spec.partitions[2_501].vfs[0].pf = Some(pf);
    });
    refusal("100 partitions too many", &|spec| *spec = host::spec(5_100, 160));
}
