//! `cargo xtask bench`: benchmarks, built for speed and run one at a time; and what building itself takes.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;

use crate::dist;
use crate::error::{Error, Result};
use crate::process::{run as run_program, run_aside};
use crate::workspace::Workspace;

/// The unit of CPU times in /proc, whatever the kernel uses inside (USER_HZ).
const TICKS_PER_SECOND: u64 = 100;

/// The subjects of benchmarks.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Bench {
    /// The planner: how it grows with the host, against an ILP solver, and planning again after a small change.
    Planner,
    /// Identify: 4,096 functions, against the least that a program could do about them and against lspci.
    Identify,
    /// The daemon: how soon one is ready that takes the place of another with 1,000 partitions, and what one with 100 holds.
    Daemon,
    /// The API: an inventory of 4,096 VFs, against lspci and a look without a daemon; and 1,000 subscribers to events.
    Api,
    /// The build: CPU time from nothing to the end of the demonstration, CPU time after a change in cli, sizes.
    Build,
}

/// Runs one benchmark of the crate in benches/.
pub fn run(what: Bench) -> Result<()> {
    let workspace = Workspace::find()?;
    let binary = match what {
        Bench::Build => return build(&workspace),
        Bench::Planner => "planner",
        Bench::Identify => "identify",
        Bench::Daemon => "daemon",
        Bench::Api => "api",
    };
    run_program(workspace.cargo().args([
        "run",
        "--profile",
        "bench",
        "--quiet",
        "--package",
        "ioward-benches",
        "--bin",
        binary,
    ]))
}

/// Measures the build in a target folder of its own. CPU time (user and system, of all processes) says more than the time on
/// the wall: it hardly depends on how many cores there are and who else uses them.
fn build(workspace: &Workspace) -> Result<()> {
    let target = workspace.root.join("target/bench-build");
    let _ = fs::remove_dir_all(&target);
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments).env("CARGO_TARGET_DIR", &target);
        cargo
    };
    run_aside(&mut cargo(&["fetch", "--quiet"]))?;
    let mut demo = cargo(&["run", "--release", "--quiet", "--", "demo", "--yes"]);
    println!("from nothing to the end of `cargo run --release -- demo --yes`: {}", Took::by(&mut demo)?);

    let changed = workspace.root.join("crates/cli/src/main.rs");
    let file = File::options().append(true).open(&changed).map_err(Error::file("open", &changed))?;
    file.set_modified(SystemTime::now()).map_err(Error::file("touch", &changed))?;
    let mut again = cargo(&["build", "--release", "--quiet"]);
    println!("`cargo build --release` after a change in cli: {}", Took::by(&mut again)?);

    let mut packaged = dist::ioward(cargo(&["--quiet"]));
    println!("ioward as the package has it: {}", Took::by(&mut packaged)?);
    let small = dist::size_of(&target.join("dist/ioward"))?;
    println!("its size, stripped: {}; the limit is {}", megabytes(small), megabytes(dist::LIMIT));
    let release = target.join("release/ioward");
    let large = fs::metadata(&release).map_err(Error::file("read", &release))?.len();
    println!("ioward of the profile release, stripped: {}", megabytes(large));
    let _ = fs::remove_dir_all(&target);
    Ok(())
}

/// How long a command has taken, with all it started.
struct Took {
    cpu: Duration,
    wall: Duration,
}

impl Took {
    fn by(command: &mut Command) -> Result<Self> {
        let (cpu, started) = (cpu_of_children()?, Instant::now());
        run_program(command.stdout(Stdio::null()))?;
        Ok(Self { cpu: cpu_of_children()?.saturating_sub(cpu), wall: started.elapsed() })
    }
}

impl std::fmt::Display for Took {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s of CPU time, {} s on the wall", self.cpu.as_secs(), self.wall.as_secs())
    }
}

/// The CPU time of the children that have been waited for, and of theirs.
fn cpu_of_children() -> Result<Duration> {
    let path = Path::new("/proc/self/stat");
    let stat = fs::read_to_string(path).map_err(Error::file("read", path))?;
    let ticks = ticks_of_children(&stat)
        .ok_or_else(|| Error::Other(format!("{} is not as proc(5) has it: {stat}", path.display())))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Fields 16 and 17 of /proc/PID/stat, which begins with a number and a name in parentheses.
fn ticks_of_children(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(") ")?;
    let mut fields = after_name.split(' ').skip(13).map(|field| field.parse::<u64>().ok());
    Some(fields.next()?? + fields.next()??)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_time_of_children_is_found_whatever_the_name_is() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194304 500 600 0 0 1 2 30 40 20 0 1 0 100 0 0";
        assert_eq!(ticks_of_children(stat), Some(70));
        assert_eq!(ticks_of_children("17 (a) S 1 17"), None);
    }
}
