//! Ways to an inventory.

use std::{
    io::{Write, stdout},
    path::Path,
    process::Command,
    time::Duration,
};

use ioward_benches::goals::Goals;
use ioward_fabric::linux::{HostRoot, identify};
use ioward_model::Inventory;

use crate::{
    http,
    process::{Daemon, Took, this},
    tree,
};

/// What an inventory through the API may take of what lspci takes.
const OF_LSPCI: f64 = 0.1;

/// Prints the inventory that the daemon tells, as the command does.
pub fn ask(folder: &Path) {
    // As the command does.
    let answer = http::ask_with(folder, "GET /v1/host", http::ANEW, "");
    let inventory: Inventory = serde_json::from_slice(&answer.body).unwrap();
    print(&inventory);
}

/// Prints the inventory of the tree, without a daemon.
pub fn look(folder: &Path) {
    print(&identify(&HostRoot::open(&tree::root(folder)).unwrap()).unwrap());
}

fn print(inventory: &Inventory) {
    let mut text = serde_json::to_vec_pretty(inventory).unwrap();
    text.push(b'\n');
    stdout().write_all(&text).unwrap();
}

/// One way, in the middle of all times.
struct Way {
    first: Duration,
    all: Duration,
    cpu: Duration,
}

impl Way {
    fn print(&self, what: &str) {
        let [first, all, cpu] = [self.first, self.all, self.cpu].map(|it| it.as_secs_f64() * 1000.0);
        println!("{what:<46} {first:>15.1} {all:>10.1} {cpu:>10.1}");
    }
}

pub fn compare(folder: &Path, daemon: &Daemon, rounds: usize, goals: &Goals) {
    println!("{:<46} {:>15} {:>10} {:>10}", "", "first byte (ms)", "all (ms)", "CPU (ms)");
    // What a first look has to do is in no figure: the files are in the page cache for all.
    let known = http::ask(folder, "GET /v1/host", "").body;

    let ask = |headers: &str| {
        let before = daemon.cpu();
        let answers: Vec<_> =
            (0..rounds).map(|_| http::ask_with(folder, "GET /v1/host", headers, "")).collect();
        assert!(answers.iter().all(|answer| answer.body == known));
        let cpu = (daemon.cpu() - before) / u32::try_from(rounds).unwrap();
        middle(answers.iter().map(|answer| (answer.first, answer.all, cpu)))
    };
    let api = ask("");
    api.print("GET /v1/host");
    let anew = ask(http::ANEW);
    anew.print("GET /v1/host, looked at anew");

    let lspci = lspci(folder, rounds);
    if let Some(lspci) = &lspci {
        lspci.print("lspci -vv");
    }
    let through = processes(rounds, || this(&["ask", folder.to_str().unwrap()]));
    let before = daemon.cpu();
    let _ = this(&["ask", folder.to_str().unwrap()]).output().unwrap();
    let through = Way { cpu: through.cpu + (daemon.cpu() - before), ..through };
    through.print("host --json through the daemon, with its CPU");
    let direct = processes(rounds, || this(&["look", folder.to_str().unwrap()]));
    direct.print("host --json --root, without a daemon");

    match &lspci {
        Some(lspci) => {
            let of_lspci = |way: &Way| (ratio(way.first, lspci.all), ratio(way.cpu, lspci.cpu));
            let (time, cpu) = of_lspci(&api);
            let met = goals.judge(time < OF_LSPCI && cpu < OF_LSPCI);
            println!(
                "GET /v1/host: its first byte {time:.3} of lspci's time, {cpu:.3} of its CPU time (at most {OF_LSPCI}): {met}"
            );
            let (time, cpu) = of_lspci(&anew);
            println!("looked at anew, {time:.3} and {cpu:.3}");
        }
        None => {
            goals.judge(false);
            println!("lspci is missing (apt install pciutils): nothing to hold it against");
        }
    }
    println!(
        "host --json takes {:.2} times as long through the daemon as without, and {:.2} times the CPU time",
        ratio(through.all, direct.all),
        ratio(through.cpu, direct.cpu)
    );
}

/// `lspci -vv` over the tree; `None` where there is none.
fn lspci(folder: &Path, rounds: usize) -> Option<Way> {
    Command::new("lspci").arg("--version").output().ok()?;
    let path = format!("sysfs.path={}", tree::root(folder).join("sys/bus/pci").display());
    Some(processes(rounds, || {
        let mut command = Command::new("lspci");
        command.args(["-A", "linux-sysfs", "-O", &path, "-vv"]);
        command
    }))
}

/// A command's time. All its runs have the same output.
fn processes(rounds: usize, command: impl Fn() -> Command) -> Way {
    let runs: Vec<Took> = (0..rounds).map(|_| Took::by(&mut command())).collect();
    assert!(runs.iter().all(|run| run.output == runs[0].output));
    let cpu = runs.iter().map(|run| run.cpu).sum::<Duration>() / u32::try_from(rounds).unwrap();
    middle(runs.iter().map(|run| (run.first, run.all, cpu)))
}

fn middle(times: impl Iterator<Item = (Duration, Duration, Duration)>) -> Way {
    let mut times: Vec<_> = times.collect();
    times.sort_by_key(|(_, all, _)| *all);
    let (first, all, cpu) = times[times.len() / 2];
    Way { first, all, cpu }
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}
