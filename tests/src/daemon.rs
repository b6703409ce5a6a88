//! A test's own management partition, used through the `ioward` command.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use crate::{
    guest::Guest,
    level1::{NIC0, NIC1, NVME, sh, wait_until},
};

/// How long a guest of a software-emulated host may stay silent before its shell answers.
pub const BOOT: Duration = Duration::from_secs(300);
/// Bound for a command in a guest.
pub const SOON: Duration = Duration::from_secs(120);

/// A running `ioward serve` with folders of its own. Drop removes everything and resets the adapters to their state
/// after the boot of level 1: the next test finds a clean host.
pub struct Daemon {
    folder: PathBuf,
    serve: Child,
    extra: Vec<String>,
}

/// Output and exit status of a command.
#[derive(Debug)]
pub struct Answer {
    /// The exit status.
    pub status: i32,
    /// Its stdout.
    pub stdout: String,
    /// Its stderr.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            status: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Daemon {
    /// Starts a daemon with an empty state.
    ///
    /// # Errors
    /// When it does not listen in time; shows its log.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        Self::start_with(&[])
    }

    /// The same, with more arguments to `ioward serve`.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn start_with(extra: &[&str]) -> Result<Self, Box<dyn Error>> {
        let folder = PathBuf::from("/run/ioward-test");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder)?;
        let extra: Vec<String> = extra.iter().map(|&word| word.to_owned()).collect();
        let serve = serve(&folder, &extra)?;
        let daemon = Self { folder, serve, extra };
        daemon.wait_until_up()?;
        Ok(daemon)
    }

    /// Kills the daemon, as a crash would, and starts another one in its place.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn crash_and_restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.crash()?;
        self.restart()
    }

    /// Kills the daemon, as a crash would.
    ///
    /// # Errors
    /// When it can't be killed.
    pub fn crash(&mut self) -> Result<(), Box<dyn Error>> {
        self.serve.kill()?;
        self.serve.wait()?;
        Ok(())
    }

    /// Waits for the daemon to end on its own.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub fn wait(&mut self) -> Result<ExitStatus, Box<dyn Error>> {
        Ok(self.serve.wait()?)
    }

    /// The process ID of the side that needs root.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.serve.id()
    }

    /// The process ID of its management partition.
    ///
    /// # Errors
    /// When there is none.
    pub fn imp(&self) -> Result<String, Box<dyn Error>> {
        Ok(sh(&format!("pgrep --parent {}", self.serve.id()))?.trim().to_owned())
    }

    /// Starts another daemon in place of a killed one.
    ///
    /// # Errors
    /// As [`Daemon::start`].
    pub fn restart(&mut self) -> Result<(), Box<dyn Error>> {
        self.serve = serve(&self.folder, &self.extra)?;
        self.wait_until_up()
    }

    /// The same, without waiting until it answers.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn restart_unseen(&mut self) -> Result<(), Box<dyn Error>> {
        self.serve = serve(&self.folder, &self.extra)?;
        Ok(())
    }

    /// The daemon's state folder.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// Its runtime folder.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn wait_until_up(&self) -> Result<(), Box<dyn Error>> {
        let up = || self.ioward(&["events"]).is_ok_and(|answer| answer.status == 0);
        wait_until("the daemon answers", Duration::from_secs(30), up)
            .map_err(|error| format!("{error}; its log: {}", self.log()).into())
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Writes a file of this test.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<String, Box<dyn Error>> {
        let path = self.folder.join(name);
        fs::write(&path, content)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs `ioward` against this daemon.
    ///
    /// # Errors
    /// When `ioward` can't be run.
    pub fn ioward(&self, arguments: &[&str]) -> Result<Answer, Box<dyn Error>> {
        let mut command = Command::new("ioward");
        command.arg("--socket").arg(self.socket()).args(arguments).stdin(Stdio::null());
        Ok(command.output()?.into())
    }

    /// Starts `ioward` against this daemon without waiting for it.
    ///
    /// # Errors
    /// When `ioward` can't be run.
    pub fn begin(&self, arguments: &[&str]) -> Result<Child, Box<dyn Error>> {
        let mut command = Command::new("ioward");
        command.arg("--socket").arg(self.socket()).args(arguments);
        Ok(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs `ioward` and expects success; returns its output.
    ///
    /// # Errors
    /// When it fails; shows its output.
    pub fn done(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let answer = self.ioward(arguments)?;
        if answer.status == 0 {
            return Ok(answer.stdout);
        }
        Err(format!("ioward {arguments:?}: {answer:?}; the daemon's log: {}", self.log()).into())
    }

    /// Waits until `is_so` holds for the text of the daemon's events, and returns it.
    ///
    /// # Errors
    /// When it does not hold in time: names the condition.
    pub fn events_until(
        &self,
        what: &str,
        mut is_so: impl FnMut(&str) -> bool,
    ) -> Result<String, Box<dyn Error>> {
        let mut events = String::new();
        let told = || {
            events = self.done(&["events"]).unwrap_or_else(|error| error.to_string());
            is_so(&events)
        };
        match wait_until(what, SOON, told) {
            Ok(()) => Ok(events),
            Err(error) => Err(format!("{error}; the events: {events}").into()),
        }
    }

    /// Applies a Spec and expects success; returns the output.
    ///
    /// # Errors
    /// When it fails; shows its output.
    pub fn apply(&self, spec: &str) -> Result<String, Box<dyn Error>> {
        let file = self.write("spec.toml", spec)?;
        self.done(&["apply", "--yes", "-f", &file])
    }

    /// Applies a Spec and returns the outcome.
    ///
    /// # Errors
    /// When `ioward` can't be run.
    pub fn try_apply(&self, spec: &str, more: &[&str]) -> Result<Answer, Box<dyn Error>> {
        let file = self.write("spec.toml", spec)?;
        self.ioward(&[&["apply", "--yes", "-f", &file], more].concat())
    }

    /// A partition's console, once its shell answers.
    ///
    /// # Errors
    /// When the shell does not answer in time.
    pub fn guest(&self, partition: &str) -> Result<Guest, Box<dyn Error>> {
        Guest::connect(&self.folder.join("run/partitions").join(partition).join("console.sock"), BOOT)
    }

    /// The socket of its API.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("api.sock")
    }
}

fn serve(folder: &Path, extra: &[String]) -> Result<Child, Box<dyn Error>> {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
    let mut command = Command::new("ioward");
    command.arg("--socket").arg(folder.join("api.sock")).arg("serve");
    command.arg("--runtime-dir").arg(folder.join("run")).arg("--state-dir").arg(folder.join("state"));
    Ok(command.args(extra).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?)
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.serve.kill();
        // Killed before the daemon is waited for: the kernel may be waiting for a machine that does not release a
        // VF.
        let _ = sh("pkill -9 -f qemu-system");
        let _ = self.serve.wait();
        clean_up();
    }
}

/// Ends every machine, and resets the adapters to their state after the boot of level 1.
pub fn clean_up() {
    // One command each: a shell that continues afterwards has these words on its own command line, and kills
    // itself.
    let _ = sh("pkill -9 -f qemu-system");
    let gone = || sh("pgrep -f qemu-system").is_err();
    let _ = wait_until("no machine is left", Duration::from_secs(30), gone);
    // The settings of VFs go with them.
    for pf in [NIC0, NIC1, NVME] {
        let folder = format!("/sys/bus/pci/devices/{pf}");
        let _ = sh(&format!("echo 0 >{folder}/sriov_numvfs; echo 1 >{folder}/sriov_drivers_autoprobe"));
    }
    // As long as it is there, what it has hooked into knows no bus that comes: an adapter that got other bus numbers after a test with
    // injected errors was not found.
    let _ = sh("modprobe -r aer_inject");
    let _ = sh("ip addr flush dev eth0; ip addr flush dev eth1; ip link set eth0 up; ip link set eth1 up");
}

/// A Spec's beginning.
pub const VERSION: &str = "version = 1\n";

/// The text of a `[[partition]]` that starts the lab's guest, without VFs.
#[must_use]
pub fn partition(name: &str) -> String {
    format!(
        r#"
[[partition]]
name   = "{name}"
cpus   = 1
memory = "192MiB"
boot   = {{ kernel = "/run/lab/guest/vmlinuz", initrd = "/run/lab/guest/initrd.img", cmdline = "console=ttyS0 loglevel=6 net.ifnames=0 nopv no_timer_check ioward.hostname={name}" }}
"#
    )
}

/// The text of a `[[partition.vf]]`.
#[must_use]
pub fn vf(name: &str, class: &str, more: &str) -> String {
    format!("\n[[partition.vf]]\nname = \"{name}\"\nclass = \"{class}\"\n{more}\n")
}

/// The text of an `[[adapter]]`.
#[must_use]
pub fn adapter(pf: &str, vfs: &str) -> String {
    format!("\n[[adapter]]\npf = \"{pf}\"\nvfs = {vfs}\n")
}

/// The facts that must be unchanged after a test: VF counts, autoprobe, drivers, overrides.
///
/// # Errors
/// When sysfs can't be read.
pub fn how_the_host_is() -> Result<String, Box<dyn Error>> {
    sh("for pf in /sys/bus/pci/devices/*; do [ -e $pf/sriov_numvfs ] || continue; \
        echo $(basename $pf) $(cat $pf/sriov_numvfs $pf/sriov_drivers_autoprobe) $(readlink $pf/driver); \
        for vf in $pf/virtfn*; do [ -e $vf ] && echo $(basename $vf) $(readlink $vf/driver) $(cat $vf/driver_override); done; \
        done; nvme list-secondary /dev/nvme0 -o json | tr -d ' \\n'; true")
}
