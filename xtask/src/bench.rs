//! `cargo xtask bench`: benchmarks, built for speed and run one at a time; and what building itself takes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::ValueEnum;

use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::process::{run as run_program, run_aside};
use crate::workspace::Workspace;
use crate::{chart, dist};

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
    /// The channel through shared memory, against two processes that wake each other and two CPUs that pass a cache line.
    Channel,
    /// ioward on real SR-IOV in level 1, against libvirt, driverctl, qemu-guest-agent, and the kernel by hand.
    Lab,
    /// Draws the ratios that have a goal from what a benchmark has written as JSON (`--json FILE`; that of `lab` unless told otherwise).
    Chart,
    /// The build: CPU time from nothing to the end of the demonstration, CPU time after a change in cli, sizes.
    Build,
}

/// Where rows are written unless told otherwise, in the checkout: a file for each benchmark.
const JSON_FOLDER: &str = "target/bench";
/// What comes before the rows as JSON, in the last line that `bench-lab` prints.
const JSON: &str = "JSON ";
/// How long `lab` may take.
const LAB_BOUND: Duration = Duration::from_secs(90 * 60);

/// Runs one benchmark. Gives the status to exit with.
pub fn run(what: Bench, quick: bool, json: Option<PathBuf>, rows: &[String]) -> Result<u8> {
    check(what, quick, json.is_some(), rows)?;
    let workspace = Workspace::find()?;
    let of = |name: &str| workspace.root.join(JSON_FOLDER).join(format!("{name}.json"));
    let binary = match what {
        Bench::Build => return build(&workspace).map(|()| 0),
        Bench::Lab => return lab(quick, &json.unwrap_or_else(|| of("lab")), rows),
        Bench::Chart => return chart(&workspace, &json.unwrap_or_else(|| of("lab"))),
        Bench::Planner => "planner",
        Bench::Identify => "identify",
        Bench::Daemon => "daemon",
        Bench::Api => "api",
        Bench::Channel => "channel",
    };
    let json = json.unwrap_or_else(|| of(binary));
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--profile", "bench", "--quiet", "--package", "ioward-benches", "--bin", binary]);
    cargo.args(["--", "--json"]).arg(json).args(rows);
    // It has said why.
    let status = cargo.status().map_err(|source| Error::Start { program: "cargo".into(), source })?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Refuses what a subject does not have.
fn check(what: Bench, quick: bool, json: bool, rows: &[String]) -> Result<()> {
    let refusal = match what {
        Bench::Build if json => "`bench build` has no rows to write",
        Bench::Build | Bench::Chart if !rows.is_empty() => "`bench build` and `bench chart` have no rows",
        _ if quick && what != Bench::Lab => "--quick is for `bench lab`",
        _ => return Ok(()),
    };
    Err(Error::Other(refusal.into()))
}

/// Draws what a benchmark has written, beside the documents.
fn chart(workspace: &Workspace, json: &Path) -> Result<u8> {
    let rows = fs::read_to_string(json).map_err(Error::file("read", json))?;
    let drawn = chart::draw(&rows)?;
    let path = workspace.root.join("docs").join(chart::file_of(&rows)?);
    fs::write(&path, drawn).map_err(Error::file("write", &path))?;
    println!("{}", path.display());
    Ok(0)
}

/// Measures in level 1, and keeps the rows.
fn lab(quick: bool, json: &Path, rows: &[String]) -> Result<u8> {
    let lab = Lab::prepare()?;
    // Before level 1 is booted, and before anything is built for it that takes long.
    lab.check_rows(rows)?;
    let lab = if quick { lab } else { lab.packaged()? };
    let arguments: Vec<String> =
        quick.then(|| "--quick".to_owned()).into_iter().chain(rows.iter().cloned()).collect();
    let found = Arc::new(Mutex::new(None));
    let status = lab.measure(&arguments, LAB_BOUND, Lines { rows: Arc::clone(&found), part: Vec::new() })?;
    let rows = found.lock().unwrap_or_else(PoisonError::into_inner).take();
    let rows = rows_of(status, rows)?;
    if let Some(folder) = json.parent() {
        fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
    }
    fs::write(json, rows).map_err(Error::file("write", json))?;
    eprintln!("the rows are in {}", json.display());
    Ok(status)
}

/// The rows that `bench-lab` has printed: it has always some, unless it has died.
fn rows_of(status: u8, rows: Option<String>) -> Result<String> {
    rows.ok_or_else(|| Error::Other(format!("bench-lab ended with status {status} and without its rows")))
}

/// What `bench-lab` prints, passed on but for the rows as JSON, which are kept.
struct Lines {
    rows: Arc<Mutex<Option<String>>>,
    part: Vec<u8>,
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        while let Some(end) = self.part.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.part.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            match line.strip_prefix(JSON) {
                Some(rows) => {
                    *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows.to_owned());
                }
                None => print!("{line}"),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
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

    /// The rows come in one long line, in pieces.
    #[test]
    fn rows_are_taken_out_of_what_is_printed() {
        let rows = Arc::new(Mutex::new(None));
        let mut lines = Lines { rows: Arc::clone(&rows), part: Vec::new() };
        for piece in ["JS", "ON {\"rows\"", ": []}\n", ""] {
            lines.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(rows.lock().unwrap().as_deref(), Some("{\"rows\": []}\n"));
    }

    /// A command that died with level 1 still running has an exit status, and it may even be 0.
    #[test]
    fn a_run_without_rows_is_an_error() {
        assert!(rows_of(0, None).is_err_and(|error| error.to_string().contains("without its rows")));
        assert_eq!(rows_of(1, Some("{}".to_owned())).unwrap(), "{}");
    }

    #[test]
    fn what_a_subject_does_not_have_is_refused() {
        let row = ["growth".to_owned()];
        assert!(check(Bench::Build, false, true, &[]).is_err());
        assert!(check(Bench::Chart, false, true, &row).is_err());
        assert!(check(Bench::Planner, true, false, &[]).is_err());
        for what in [Bench::Lab, Bench::Planner] {
            check(what, what == Bench::Lab, true, &row).unwrap();
        }
        check(Bench::Chart, false, true, &[]).unwrap();
    }

    #[test]
    fn the_cpu_time_of_children_is_found_whatever_the_name_is() {
        let stat = "17 (a) b (c) S 1 17 17 0 -1 4194304 500 600 0 0 1 2 30 40 20 0 1 0 100 0 0";
        assert_eq!(ticks_of_children(stat), Some(70));
        assert_eq!(ticks_of_children("17 (a) S 1 17"), None);
    }
}
