//! Level 1 as a machine: its QEMU, the ports that lead into it, and its end.
//!
//! ```text
//!   xtask ──lab.control──> "up", "exit N"      ┐
//!         ──lab.out, lab.err──> its output     ├ level1.sh, PID 1 of level 1
//!         ──lab.in──> what it reads, if any    │
//!         ──hvc0──> the terminal of lab shell  ┘
//! ```
//! Every port is one end of a socket pair, so that the death of QEMU is end of file on all of them. Nothing in level 1
//! is worth keeping: when the command has ended, QEMU is killed.
//!
//! A level 1 that resets itself is off, but for a run that is about just that ([`After::Boots`]): its ports stay, it says
//! "up" once more, and has a disk that it finds again. A reset that its command has not announced (a panic, say) is told as
//! "lost".

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::{FdFlags, fcntl_setfd};

use crate::error::{Error, Result};
use crate::terminal::RawTerminal;

/// Less than 2.7 GiB on purpose: see the README's traps.
const MEMORY: &str = "2600M";
/// How much of a log is shown when the machine fails.
const TAIL_LINES: usize = 40;
/// Level 1 says every 5 s that it is alive. When it has not for so long, it is not. Time in which its QEMU was ready to run and
/// the machine ran something else does not count: beside a build, booting alone has taken three minutes.
const SILENCE: Duration = Duration::from_secs(180);
/// How often the silence is measured.
const LOOK: Duration = Duration::from_secs(5);

/// Level 1, running. Turned off when dropped.
pub struct Machine<'a> {
    qemu: Child,
    run_folder: &'a Path,
    events: Receiver<Event>,
    readers: Vec<JoinHandle<()>>,
    terminal: UnixStream,
    started: Instant,
    bound: Duration,
}

/// Whether level 1 may boot again after a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// It is off.
    Off,
    /// It boots again, and what it kept on [`KEPT`] is there.
    Boots,
}

/// The disk that outlives a reset of level 1, in the folder of the run.
pub const KEPT: &str = "kept.img";

/// Messages on level 1's control port.
enum Event {
    Up,
    Alive,
    Exit(u8),
    Lost,
    Gone,
}

impl<'a> Machine<'a> {
    /// Starts level 1 from what is in `run_folder` (see lab.rs) and `kernel`, to be off after `bound` at the latest. What
    /// its command writes to stdout goes to `stdout`; what it reads from stdin comes from `stdin`, and is nothing without one.
    /// A `page` is a port of 127.0.0.1 here which leads to the same port of 10.0.2.15 there.
    pub fn start(
        run_folder: &'a Path,
        kernel: &Path,
        reset: After,
        page: Option<u16>,
        bound: Duration,
        stdin: Option<OwnedFd>,
        stdout: impl Write + Send + 'static,
    ) -> Result<Self> {
        let (control, control_port) = port()?;
        let (out, out_port) = port()?;
        let (err, err_port) = port()?;
        let (terminal, terminal_port) = port()?;

        // So that QEMU is killed if this process dies, however it dies (Ctrl-C, kill -9).
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64"]);
        hardware(&mut command, run_folder, kernel);
        match reset {
            After::Off => _ = command.arg("-no-reboot"),
            After::Boots => {
                let disk = option_value(&run_folder.join(KEPT));
                command.arg("-drive").arg(format!("if=virtio,format=raw,file={disk}"));
            }
        }
        if let Some(port) = page {
            let leads = format!("user,id=page,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:{port}");
            command.args(["-netdev", &leads, "-device", "virtio-net-pci,netdev=page,romfile="]);
        }
        command.args(["-device", "virtio-serial-pci,id=ports"]);
        if let Some(fd) = &stdin {
            let inherited = fcntl_setfd(fd, FdFlags::empty()).map_err(io::Error::from);
            inherited.map_err(Error::file("open", Path::new("the port of stdin")))?;
        }
        let ports = [("lab.control", &control_port), ("lab.out", &out_port), ("lab.err", &err_port)];
        for (name, fd) in ports.into_iter().chain(stdin.iter().map(|fd| ("lab.in", fd))) {
            command.arg("-chardev").arg(format!("socket,id={name},fd={}", fd.as_raw_fd()));
            command.arg("-device").arg(format!("virtserialport,bus=ports.0,chardev={name},name={name}"));
        }
        command.arg("-chardev").arg(format!("socket,id=terminal,fd={}", terminal_port.as_raw_fd()));
        command.args(["-device", "virtconsole,bus=ports.0,chardev=terminal"]);

        let log_path = run_folder.join("qemu.log");
        let log = File::create(&log_path).map_err(Error::file("create", &log_path))?;
        let log_too = log.try_clone().map_err(Error::file("open", &log_path))?;
        let qemu = command
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(log_too)
            .spawn()
            .map_err(|source| Error::Start { program: "setpriv".into(), source })?;
        drop((control_port, out_port, err_port, terminal_port, stdin));

        let (sender, events) = mpsc::channel();
        let readers = vec![
            thread::spawn(move || read_control(control, &sender)),
            thread::spawn(move || copy(out, stdout)),
            thread::spawn(move || copy(err, io::stderr())),
        ];
        Ok(Self { qemu, run_folder, events, readers, terminal, started: Instant::now(), bound })
    }

    /// Waits until level 1 has booted and starts the command.
    pub fn wait_until_up(&self) -> Result<()> {
        loop {
            match self.next_event()? {
                Event::Up => return Ok(()),
                Event::Alive => {}
                Event::Exit(_) | Event::Lost | Event::Gone => return Err(self.died()),
            }
        }
    }

    /// Waits for the command and gives its exit status; all of its output has been written by then, however it ended.
    pub fn wait_for_exit(mut self) -> Result<u8> {
        let status = loop {
            match self.next_event() {
                Ok(Event::Up) => eprintln!("lab: level 1 is up again"),
                Ok(Event::Alive) => {}
                Ok(Event::Exit(status)) => break Ok(status),
                Ok(Event::Lost | Event::Gone) => break Err(self.died()),
                Err(error) => break Err(error),
            }
        };
        self.turn_off();
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status
    }

    /// Joins this process's terminal to level 1's, until the shell there ends.
    pub fn wait_for_shell(self) -> Result<u8> {
        let to_terminal =
            self.terminal.try_clone().map_err(Error::file("open", Path::new("the terminal port")))?;
        let from_terminal =
            self.terminal.try_clone().map_err(Error::file("open", Path::new("the terminal port")))?;
        let raw = RawTerminal::enter();
        // Not joined: it sits in a read of our stdin that only a key press would end.
        thread::spawn(move || copy(io::stdin(), to_terminal));
        let output = thread::spawn(move || copy(from_terminal, io::stdout()));
        let status = self.wait_for_exit();
        let _ = output.join();
        drop(raw);
        status
    }

    fn next_event(&self) -> Result<Event> {
        let (last_sign, before) = (Instant::now(), self.cpu());
        loop {
            let left = self.bound.saturating_sub(self.started.elapsed());
            match self.events.recv_timeout(left.min(LOOK)) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Disconnected) => return Ok(Event::Gone),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let (silent, now) = (last_sign.elapsed(), self.cpu());
            let (had, waited) =
                (now.had.saturating_sub(before.had), now.waited.saturating_sub(before.waited));
            let doing = format!(
                "{} s without a sign of life, in which its QEMU had a CPU for {} s and waited for one for {} s{}",
                silent.as_secs(),
                had.as_secs(),
                waited.as_secs(),
                self.last_words()
            );
            if left <= LOOK {
                return Err(Error::Other(format!(
                    "level 1 was turned off: it had not ended after {} s (--timeout changes the bound); {doing}",
                    self.bound.as_secs()
                )));
            }
            if silent.saturating_sub(waited) > SILENCE {
                return Err(Error::Died(format!(": {doing}")));
            }
        }
    }

    fn cpu(&self) -> Cpu {
        Cpu::of(self.qemu.id())
    }

    fn died(&self) -> Error {
        Error::Died(self.last_words())
    }

    fn last_words(&self) -> String {
        ["qemu.log", "console.log"].map(|name| tail(&self.run_folder.join(name))).concat()
    }

    fn turn_off(&mut self) {
        // Fails only if it is gone already.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.turn_off();
    }
}

/// The CPU time of a process: of that of its threads which had most, for QEMU the one that emulates the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Cpu {
    had: Duration,
    /// It was ready to run, and others ran.
    waited: Duration,
}

impl Cpu {
    fn of(process: u32) -> Self {
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let text =
            |thread: fs::DirEntry| fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
        threads.map(|thread| Self::parse(&text(thread))).max().unwrap_or_default()
    }

    /// From /proc/PID/task/TID/schedstat: nanoseconds on a CPU, nanoseconds on a run queue, time slices.
    fn parse(schedstat: &str) -> Self {
        let mut words =
            schedstat.split(' ').map(|word| word.parse().map_or(Duration::ZERO, Duration::from_nanos));
        let mut next = || words.next().unwrap_or_default();
        Self { had: next(), waited: next() }
    }
}

/// The devices of level 1. Always software emulation, so that the lab is the same everywhere.
fn hardware(command: &mut Command, run_folder: &Path, kernel: &Path) {
    let file = |name: &str| option_value(&run_folder.join(name));
    // One CPU: with more, QEMU 10.0 does not keep them apart under nested KVM (lab/README.md).
    command.args(["-accel", "tcg"]);
    command.args(["-machine", "q35,kernel-irqchip=split", "-cpu", "EPYC,+svm", "-smp", "1", "-m", MEMORY]);
    // Nor may the kernel place them there, when a test takes an adapter out and puts it back.
    command.args(["-global", "q35-pcihost.pci-hole64-size=0"]);
    command.args(["-nodefaults", "-display", "none"]);
    command.args(["-device", "intel-iommu,intremap=on,caching-mode=off"]);
    command.arg("-chardev").arg(format!("file,id=console,path={}", file("console.log")));
    command.args(["-serial", "chardev:console"]);
    command.arg("-kernel").arg(kernel).arg("-initrd").arg(run_folder.join("level1.img"));
    command.args([
        "-append",
        "console=ttyS0 intel_iommu=on iommu=pt loglevel=5 net.ifnames=0 mitigations=off no_timer_check panic=-1",
    ]);
    for (id, path) in [("root", "/".to_owned()), ("lab", option_value(run_folder))] {
        let options = "security_model=none,readonly=on,multidevs=remap";
        command.arg("-fsdev").arg(format!("local,id={id},path={path},{options}"));
        command.arg("-device").arg(format!("virtio-9p-pci,fsdev={id},mount_tag={id}"));
    }
    // The three PFs: 01:00.0 and 03:00.0 on one network, 02:00.0 with one namespace.
    for slot in 1..=3 {
        command.arg("-device").arg(format!("pcie-root-port,id=slot{slot},chassis={slot},slot={slot}"));
    }
    command.args(["-netdev", "hubport,id=net1,hubid=0", "-netdev", "hubport,id=net3,hubid=0"]);
    command.args(["-device", "igb,bus=slot1,netdev=net1,mac=52:54:00:11:11:11"]);
    command.args(["-device", "igb,bus=slot3,netdev=net3,mac=52:54:00:22:22:22"]);
    // The flexible resources are what the VFs can be given: four queues and two interrupts each. Two queues (admin, I/O)
    // and one interrupt stay the PF's own.
    command.args(["-device", "nvme-subsys,id=subsystem,nqn=lab"]);
    command.args([
        "-device",
        "nvme,id=nvme,serial=lab0,subsys=subsystem,bus=slot2,sriov_max_vfs=4,sriov_vq_flexible=16,\
         sriov_vi_flexible=8,max_ioqpairs=20,msix_qsize=12",
    ]);
    command.arg("-drive").arg(format!("if=none,id=disk,format=raw,file={}", file("disk.img")));
    command.args(["-device", "nvme-ns,drive=disk,bus=nvme,nsid=1,shared=on"]);
}

/// A path inside a QEMU option, where a comma is written twice.
fn option_value(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// Our end of a port, and the end that QEMU inherits.
fn port() -> Result<(UnixStream, OwnedFd)> {
    let pair = || {
        let (ours, theirs) = UnixStream::pair()?;
        let theirs = OwnedFd::from(theirs);
        fcntl_setfd(&theirs, FdFlags::empty())?;
        Ok((ours, theirs))
    };
    pair().map_err(|error: io::Error| Error::Other(format!("can't make a socket pair: {error}")))
}

fn read_control(control: UnixStream, events: &mpsc::Sender<Event>) {
    for line in BufReader::new(control).lines().map_while(io::Result::ok) {
        let event = match line.split_once(' ') {
            None if line == "up" => Event::Up,
            None if line == "alive" => Event::Alive,
            None if line == "lost" => Event::Lost,
            Some(("exit", status)) => Event::Exit(status.parse().unwrap_or(u8::MAX)),
            _ => continue,
        };
        if events.send(event).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Gone);
}

/// Copies until the end, each piece at once. Goes on reading when nobody takes it any more (`lab run … | head -1`),
/// so that the command in level 1 is not held up.
fn copy(mut from: impl Read, mut to: impl Write) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
    {
        let _ = to.write_all(&buffer[..count]).and_then(|()| to.flush());
    }
}

/// The end of a log, with a headline; empty when the log is.
fn tail(path: &Path) -> String {
    let Ok(bytes) = fs::read(path) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.is_empty() {
        return String::new();
    }
    let last = lines.get(lines.len().saturating_sub(TAIL_LINES)..).unwrap_or_default().join("\n");
    format!("\n--- end of {}\n{last}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that is not there ends QEMU at once, and a QEMU that is not there never begins: both are a level 1 that has died, which
    /// is said, with what QEMU had to say, and nobody waits for it.
    #[test]
    fn a_level_1_that_dies_is_an_error_that_says_so() {
        let folder = std::env::temp_dir().join(format!("ioward-xtask-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let machine = Machine::start(
            &folder,
            Path::new("/no/such/kernel"),
            After::Off,
            None,
            Duration::from_secs(600),
            None,
            io::sink(),
        );
        let machine = machine.unwrap();
        let told = [machine.wait_until_up().unwrap_err(), machine.wait_for_exit().unwrap_err()];
        fs::remove_dir_all(&folder).unwrap();
        for told in told {
            assert!(told.to_string().contains("level 1 ended before its command did"), "{told}");
        }
    }

    #[test]
    fn time_on_a_cpu_and_time_spent_waiting_for_one_are_read() {
        let expected = Cpu { had: Duration::from_secs(2), waited: Duration::from_secs(3) };
        assert_eq!(Cpu::parse("2000000000 3000000000 17\n"), expected);
        assert_eq!(Cpu::parse(""), Cpu::default());
    }
}
