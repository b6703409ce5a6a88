//! `cargo xtask lab`: makes what level 1 is booted from, and boots it.
//!
//! Each run has a folder of its own in the cache, which level 1 sees as /run/lab:
//!
//! ```text
//!   command, env         what to run, and with what
//!   level1.sh, level1.img, disk.img
//!   bin/                 ioward, ioward-agent, lab-guest, bench-lab
//!   guest/               vmlinuz, initrd.img: for the guests' Specs
//!   modules              the kernel's
//!   netdevsim.ko         a module that Debian's kernel lacks
//!   libvirt, peers       packages of libvirt and of what ioward is measured against, unpacked
//!   kept.img             what outlives a reset of level 1, in a run that may have one
//!   console.log, qemu.log
//! ```
//! A run that went well removes its folder; one that did not leaves it for a look, until the next run.

use std::fs::{self, File};
use std::io::{IsTerminal, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::machine::{After, KEPT, Machine};
use crate::process::{run_aside, shell_word};
use crate::workspace::Workspace;
use crate::{dist, images, libvirt, netdevsim, packages, peers, terminal};

/// Size of the NVMe namespace, in bytes.
const DISK_SIZE: u64 = 64 << 20;
/// How the NVMe namespace begins, so that a guest can tell it from any other.
const DISK_TEXT: &str = "ioward lab, NVMe namespace 1\n";
/// Size of the disk that outlives a reset, in bytes.
const KEPT_SIZE: u64 = 64 << 20;

/// Installs the Debian packages that are missing, and gives the apt that knows of them.
pub fn install_packages(workspace: &Workspace) -> Result<Apt> {
    let _lock = workspace.lock_cache()?;
    let mut apt = Apt::new(&workspace.cache)?;
    packages::install_missing(&mut apt)?;
    Ok(apt)
}

/// What packages are installed with.
pub fn apt(workspace: &Workspace) -> Result<Apt> {
    Apt::new(&workspace.cache)
}

/// A script in lab/ that shows something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    pub script: &'static str,
    /// Whether it resets level 1.
    pub reset: After,
    /// Whether its guests have the programs of a benchmark in them.
    pub measures: bool,
}

impl Show {
    const fn of(script: &'static str) -> Self {
        Self { script, reset: After::Off, measures: false }
    }
}

/// The main job.
pub const DEMO: Show = Show::of("lab/demo.sh");
/// What becomes of a domain of libvirt's.
pub const LIBVIRT: Show = Show::of("lab/libvirt.sh");
/// What becomes of a partition with a standby when its adapter fails it.
pub const FAILOVER: Show = Show::of("lab/failover.sh");
/// What becomes of a machine whose VF has a standby on a bridge.
pub const STANDBY: Show = Show::of("lab/standby.sh");
/// A machine that moves to another host.
pub const MIGRATE: Show = Show::of("lab/migrate.sh");
/// That nothing is lost when the daemon is killed, nor when level 1 is reset.
pub const RESTART: Show = Show { reset: After::Boots, ..Show::of("lab/restart.sh") };
/// That ioward can be measured against its peers, without measuring.
pub const BENCH: Show = Show { measures: true, ..Show::of("lab/bench.sh") };

/// Everything that booting level 1 needs.
pub struct Lab {
    workspace: Workspace,
    kernel: Kernel,
    netdevsim: PathBuf,
    libvirt: PathBuf,
    peers: PathBuf,
    /// Where the programs are that are measured.
    programs: PathBuf,
}

/// The programs of the workspace that level 1 has.
const PROGRAMS: [&str; 6] = ["ioward", "ioward-agent", "lab-tests", "lab-guest", "lab-hostile", "bench-lab"];
/// What its guests have when they are measured: an example of the agent, which has its dependencies and no more.
const IN_GUEST: &str = "bench-guest";
/// Their packages.
const PACKAGES: [&str; 4] = ["ioward", "ioward-agent", "ioward-tests", "ioward-benches"];

impl Lab {
    /// Installs, downloads and builds what is missing.
    pub fn prepare() -> Result<Self> {
        let workspace = Workspace::find()?;
        let mut apt = install_packages(&workspace)?;
        let (kernel, netdevsim, libvirt, peers) = {
            let _lock = workspace.lock_cache()?;
            let kernel = Kernel::prepare(&workspace.cache, &mut apt)?;
            let netdevsim = netdevsim::prepare(&workspace.cache, &kernel, &mut apt)?;
            let libvirt = libvirt::prepare(&workspace.cache, &mut apt)?;
            (kernel, netdevsim, libvirt, peers::prepare(&workspace.cache, &mut apt)?)
        };
        // All at once, so that the crates that they have in common are built once.
        let mut build = workspace.cargo();
        build.arg("build");
        PACKAGES.iter().for_each(|package| _ = build.args(["--package", package]));
        PROGRAMS.iter().for_each(|program| _ = build.args(["--bin", program]));
        build.args(["--example", IN_GUEST]);
        run_aside(&mut build)?;
        let programs = workspace.binaries.clone();
        Ok(Self { workspace, kernel, netdevsim, libvirt, peers, programs })
    }

    /// The same, with ioward as its package has it: that is what is measured.
    pub fn packaged(mut self) -> Result<Self> {
        run_aside(dist::agent(self.workspace.cargo()).args(["--example", IN_GUEST]))?;
        run_aside(&mut dist::ioward(self.workspace.cargo()))?;
        self.programs = self.workspace.binaries.parent().unwrap_or(&self.workspace.binaries).join("dist");
        Ok(self)
    }

    /// An error unless `bench-lab` has these rows; it says which there are.
    pub fn check_rows(&self, rows: &[String]) -> Result<()> {
        run_aside(Command::new(self.workspace.binaries.join("bench-lab")).arg("--check").args(rows))
    }

    /// Runs a shell command in level 1 and gives its exit status.
    pub fn run(&self, command: &str, bound: Duration) -> Result<u8> {
        self.carry_out(command, Show::of(""), bound, None, std::io::stdout())
    }

    /// Measures in level 1, with these arguments to `bench-lab`, whose stdout goes elsewhere.
    pub fn measure(
        &self,
        arguments: &[String],
        bound: Duration,
        stdout: impl Write + Send + 'static,
    ) -> Result<u8> {
        let words: Vec<String> = arguments.iter().map(|word| shell_word(word)).collect();
        self.carry_out(&format!("exec bench-lab {}", words.join(" ")), BENCH, bound, None, stdout)
    }

    /// The same, with what it reads from stdin coming from a socket, and what it writes to stdout going elsewhere.
    pub fn run_between(
        &self,
        command: &str,
        bound: Duration,
        stdin: OwnedFd,
        stdout: impl Write + Send + 'static,
    ) -> Result<u8> {
        self.carry_out(command, Show::of(""), bound, Some(stdin), stdout)
    }

    /// Runs a script of lab/ that shows something, in a level 1 of its own.
    pub fn show(&self, show: Show, bound: Duration) -> Result<u8> {
        self.carry_out(&format!("exec bash {}", show.script), show, bound, None, std::io::stdout())
    }

    /// The same, with all that it writes going elsewhere.
    pub fn show_into(&self, show: Show, bound: Duration, output: impl Write + Send + 'static) -> Result<u8> {
        self.carry_out(&format!("exec bash {} 2>&1", show.script), show, bound, None, output)
    }

    fn carry_out(
        &self,
        command: &str,
        show: Show,
        bound: Duration,
        stdin: Option<OwnedFd>,
        stdout: impl Write + Send + 'static,
    ) -> Result<u8> {
        let run = self.new_run(command, None, show, None)?;
        let status = self.boot(&run, show.reset, None, bound, stdin, stdout)?.wait_for_exit()?;
        run.remove();
        Ok(status)
    }

    /// Serves the page on real VFs, until it is ended. A browser here is led to it.
    pub fn page(&self, bound: Duration) -> Result<u8> {
        let port = free_port()?;
        let run = self.new_run("exec bash lab/ui.sh", None, Show::of(""), Some(port))?;
        let machine = self.boot(&run, After::Off, Some(port), bound, None, std::io::stdout())?;
        let status = machine.wait_for_exit()?;
        run.remove();
        Ok(status)
    }

    /// Opens a shell in level 1.
    pub fn shell(&self, bound: Duration) -> Result<u8> {
        let run = self.new_run("exec bash -i", Some(terminal::size()), Show::of(""), None)?;
        let status = self.boot(&run, After::Off, None, bound, None, std::io::stdout())?.wait_for_shell()?;
        run.remove();
        Ok(status)
    }

    fn boot<'a>(
        &self,
        run: &'a RunFolder,
        reset: After,
        page: Option<u16>,
        bound: Duration,
        stdin: Option<OwnedFd>,
        stdout: impl Write + Send + 'static,
    ) -> Result<Machine<'a>> {
        eprintln!("lab: booting level 1");
        let started = Instant::now();
        let machine = Machine::start(&run.path, self.kernel.image(), reset, page, bound, stdin, stdout)?;
        machine.wait_until_up()?;
        eprintln!("lab: level 1 is up, after {} s", started.elapsed().as_secs());
        Ok(machine)
    }

    fn new_run(
        &self,
        command: &str,
        terminal: Option<(u16, u16)>,
        show: Show,
        page: Option<u16>,
    ) -> Result<RunFolder> {
        let run = RunFolder::new(&self.workspace.cache)?;
        let binary = |name: &str| self.workspace.binaries.join(name);
        let agent = self.programs.join("ioward-agent");
        for (link, target) in [
            ("bin/ioward", self.programs.join("ioward")),
            ("bin/ioward-agent", agent.clone()),
            ("bin/lab-guest", binary("lab-guest")),
            ("bin/bench-lab", binary("bench-lab")),
            ("bin/driverctl", self.peers.join("usr/sbin/driverctl")),
            ("modules", self.kernel.modules()),
            ("netdevsim.ko", self.netdevsim.clone()),
            ("libvirt", self.libvirt.clone()),
            ("peers", self.peers.clone()),
        ] {
            let link = run.path.join(link);
            symlink(target, &link).map_err(Error::file("create", &link))?;
        }
        // A copy: client partitions boot from it as nobody in particular, who may not be let into this machine's folders.
        let kernel = self.kernel.image();
        run.write("guest/vmlinuz", &fs::read(kernel).map_err(Error::file("read", kernel))?)?;
        run.write("level1.img", &images::level1(&self.kernel)?)?;
        let (mut in_guest, mut unpacked) = (vec![agent], None);
        if show.measures {
            in_guest.extend([self.programs.join("examples").join(IN_GUEST), peers::agent(&self.peers)?]);
            unpacked = Some(&*self.peers);
        }
        run.write("guest/initrd.img", &images::guest(&self.kernel, &in_guest, unpacked, &run.path)?)?;
        run.write("level1.sh", include_bytes!("../../lab/level1.sh"))?;
        run.write("command", format!("{command}\n").as_bytes())?;
        run.write("env", self.environment(terminal, show.reset, page).as_bytes())?;
        run.write_disk("disk.img", DISK_TEXT.as_bytes(), DISK_SIZE)?;
        if show.reset == After::Boots {
            run.write_disk(KEPT, &[], KEPT_SIZE)?;
        }
        Ok(run)
    }

    /// Shell assignments that level1.sh reads.
    fn environment(&self, terminal: Option<(u16, u16)>, reset: After, page: Option<u16>) -> String {
        let (rows, columns) = terminal.unwrap_or((0, 0));
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let term =
            std::env::var("TERM").ok().filter(|_| terminal.is_some()).unwrap_or_else(|| "dumb".to_owned());
        [
            ("IOWARD_WORKSPACE", self.workspace.root.to_string_lossy().into_owned()),
            ("IOWARD_LAB_GUEST_KERNEL", "/run/lab/guest/vmlinuz".to_owned()),
            ("IOWARD_LAB_GUEST_INITRD", "/run/lab/guest/initrd.img".to_owned()),
            ("IOWARD_LAB_TERMINAL", yes_or_no(terminal.is_some())),
            ("IOWARD_LAB_KEEPS", yes_or_no(reset == After::Boots)),
            ("IOWARD_LAB_PAGE", page.map_or(String::new(), |port| port.to_string())),
            ("IOWARD_LAB_COLOR", yes_or_no(std::io::stdout().is_terminal())),
            ("IOWARD_LAB_ROWS", rows.to_string()),
            ("IOWARD_LAB_COLUMNS", columns.to_string()),
            ("TERM", term),
        ]
        .map(|(name, value)| format!("export {name}={}\n", shell_word(&value)))
        .concat()
    }
}

/// A port of 127.0.0.1 that was free a moment ago: whoever takes it first has QEMU say so.
fn free_port() -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Error::file("listen at", Path::new("127.0.0.1")))
}

/// The folder of one run, named by the process that runs it and a number of its own: `4711.0`.
struct RunFolder {
    path: PathBuf,
}

/// How many runs this process has begun.
static RUNS: AtomicUsize = AtomicUsize::new(0);

impl RunFolder {
    fn new(cache: &Path) -> Result<Self> {
        let runs = cache.join("runs");
        sweep(&runs);
        let number = RUNS.fetch_add(1, Ordering::Relaxed);
        let path = runs.join(format!("{}.{number}", std::process::id()));
        // Left by a process that had our number.
        let _ = fs::remove_dir_all(&path);
        for folder in ["bin", "guest"] {
            let folder = path.join(folder);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        }
        let run = Self { path };
        for folder in [run.path.clone(), run.path.join("guest")] {
            run.open_to_all(&folder, 0o755)?;
        }
        Ok(run)
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path.join(name);
        fs::write(&path, content).map_err(Error::file("write", &path))?;
        self.open_to_all(&path, 0o644)
    }

    /// A disk that begins with `content` and goes on with zeros.
    fn write_disk(&self, name: &str, content: &[u8], size: u64) -> Result<()> {
        self.write(name, content)?;
        let path = self.path.join(name);
        let file = File::options().write(true).open(&path).map_err(Error::file("open", &path))?;
        file.set_len(size).map_err(Error::file("write", &path))
    }

    /// Level 1 has users too, whatever the mask of who builds it is.
    fn open_to_all(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("protect", path))
    }

    fn remove(self) {
        // The next run sweeps away whatever stays.
        let _ = fs::remove_dir_all(self.path);
    }
}

/// Removes the folders of runs whose process is gone.
fn sweep(runs: &Path) {
    let Ok(entries) = fs::read_dir(runs) else { return };
    for entry in entries.filter_map(std::result::Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.split_once('.').map_or(&*name, |(process, _)| process);
        let running = Path::new("/proc").join(process).exists();
        if !running {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
