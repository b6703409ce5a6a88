//! Guests, as far as rows need to know how far they are: that userspace is there, and that an interface has come or gone.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ioward_tests::{daemon::SOON, guest::Guest, level1::sh};
use serde_json::{Value, json};

use crate::{Result, host::milliseconds};

/// What the guest's /init prints when its shell is there.
const READY: &str = "ioward-guest ready";
/// How often a log is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How long a guest may take to boot.
const BOOT: Duration = Duration::from_secs(300);

/// A console's log, which begins with the machine's start.
pub struct Log(PathBuf);

impl Log {
    /// One that may not be there yet.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Waits until the guest says that its userspace is there, and gives how long that took since `begun`, in milliseconds.
    pub fn ready(&self, begun: Instant) -> Result<f64> {
        self.ready_unless(begun, || None)
    }

    /// The same, unless there is a reason not to wait any more.
    fn ready_unless(&self, begun: Instant, mut ended: impl FnMut() -> Option<String>) -> Result<f64> {
        loop {
            if self.text().is_ok_and(|text| text.contains(READY)) {
                return Ok(milliseconds(begun.elapsed()));
            }
            if let Some(why) = ended() {
                return Err(why.into());
            }
            if begun.elapsed() > BOOT {
                let text = self.text().unwrap_or_default();
                let last = text.lines().rev().take(5).collect::<Vec<_>>().join(" | ");
                return Err(
                    format!("no userspace after {} s; {}: {last}", BOOT.as_secs(), self.0.display()).into()
                );
            }
            thread::sleep(LOOK);
        }
    }

    fn text(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.0)?).into_owned())
    }
}

/// Does something that has an interface come to a guest or go from it, and gives how long that took until both were done, in milliseconds.
pub fn until_link(
    guest: &mut Guest,
    link: &str,
    comes: bool,
    work: impl FnOnce() -> Result<()>,
) -> Result<f64> {
    let not = if comes { "!" } else { "" };
    let waits = format!("echo waiting; while [ {not} -e /sys/class/net/{link} ]; do sleep 0.01; done");
    thread::scope(|scope| {
        let (begins, begun) = std::sync::mpsc::channel();
        let seen = scope.spawn(move || {
            let _ = begins.send(());
            guest.run(&waits, SOON).map(|_| Instant::now()).map_err(|error| error.to_string())
        });
        // What it was told to do has to be under way in the guest.
        let _ = begun.recv();
        thread::sleep(Duration::from_millis(500));
        let started = Instant::now();
        let done = work();
        let ended = Instant::now();
        let seen = seen.join().map_err(|_| "a thread panicked")?;
        done?;
        Ok(milliseconds(seen?.max(ended).duration_since(started)))
    })
}

/// A machine with the command line that ioward starts one with, started by hand. Killed when dropped.
pub struct ByHand {
    arguments: Vec<String>,
    folder: PathBuf,
    process: Option<Child>,
}

impl ByHand {
    /// Takes the command line of a machine of ioward's that runs, with files in `folder` in place of those that it inherited.
    pub fn like(partition: &str, folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder)?;
        let found = sh(&format!(
            "pgrep -f 'qemu-system.*partitions/{partition}( |$)' || pgrep -f 'qemu-system.*{partition}'"
        ))?;
        let process: u32 = found.lines().next().unwrap_or_default().parse()?;
        let line = fs::read(format!("/proc/{process}/cmdline"))?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        let mut words: Vec<String> = words.collect();
        words.pop();
        Ok(Self { arguments: without_descriptors(&words, folder), folder: folder.to_owned(), process: None })
    }

    /// The same with another function in place of one.
    pub fn with_function(mut self, before: &str, after: &str) -> Self {
        for word in &mut self.arguments {
            *word = word.replace(&format!("host={before}"), &format!("host={after}"));
        }
        self
    }

    /// Where its console is logged.
    pub fn log(&self) -> PathBuf {
        self.folder.join("console.log")
    }

    /// Where its console is.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console.sock")
    }

    /// The last of its slots, which is free.
    pub fn last_slot(&self) -> Result<String> {
        let mut slots = self.arguments.iter().filter_map(|word| word.strip_prefix("pcie-root-port,id="));
        let last = slots.next_back().and_then(|slot| slot.split(',').next());
        Ok(last.ok_or("a machine without slots")?.to_owned())
    }

    /// Starts it.
    pub fn start(&mut self) -> Result<()> {
        let (program, arguments) = self.arguments.split_first().ok_or("no command line")?;
        let log = File::create(self.folder.join("qemu.log"))?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn()?);
        Ok(())
    }

    /// Waits as [`Log::ready`] does, unless the machine ends.
    pub fn ready(&mut self, begun: Instant) -> Result<f64> {
        let log = Log::at(&self.log());
        let ended = || {
            let status = self.process.as_mut()?.try_wait().ok()??;
            let said = fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default();
            Some(format!("QEMU ended with {status}: {said}"))
        };
        log.ready_unless(begun, ended)
    }

    /// Its process.
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Whatever QEMU has complained about.
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default()
    }

    /// Ends it.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Connects to its monitor.
    pub fn monitor(&self) -> Result<Monitor> {
        let stream = UnixStream::connect(self.folder.join("qmp.sock"))?;
        stream.set_read_timeout(Some(SOON))?;
        let mut monitor = Monitor { lines: BufReader::new(stream.try_clone()?), stream };
        monitor.ask("qmp_capabilities", &json!({}))?;
        Ok(monitor)
    }
}

impl Drop for ByHand {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A QMP session.
pub struct Monitor {
    lines: BufReader<UnixStream>,
    stream: UnixStream,
}

impl Monitor {
    /// Asks for something, and waits until it is answered.
    pub fn ask(&mut self, command: &str, arguments: &Value) -> Result<()> {
        writeln!(self.stream, "{}", json!({"execute": command, "arguments": arguments}))?;
        loop {
            let line = self.line()?;
            if line.get("error").is_some() {
                return Err(format!("{command}: {line}").into());
            }
            if line.get("return").is_some() {
                return Ok(());
            }
        }
    }

    /// Waits for an event about a device.
    pub fn event(&mut self, name: &str, device: &str) -> Result<()> {
        loop {
            let line = self.line()?;
            if line["event"] == name && line["data"]["device"] == device {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Err("QMP is closed".into());
        }
        Ok(serde_json::from_str(&line)?)
    }
}

/// A command line with paths in place of the descriptors that ioward's machines inherit.
fn without_descriptors(words: &[String], folder: &Path) -> Vec<String> {
    let folder = folder.display();
    let mut arguments: Vec<String> = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let before = arguments.last().map_or("", String::as_str);
        let word = match before {
            "-kernel" => "/run/lab/guest/vmlinuz".to_owned(),
            "-initrd" => "/run/lab/guest/initrd.img".to_owned(),
            "-name" => "guest=by-hand".to_owned(),
            _ if word == "-add-fd" => {
                words.next();
                continue;
            }
            _ => word.clone(),
        };
        let id = word.strip_prefix("socket,id=").and_then(|rest| rest.split(',').next());
        let options = word.split(',').map(|option| match option {
            _ if option.starts_with("fd=") => {
                format!("path={folder}/{}.sock", id.unwrap_or("socket"))
            }
            _ if option.starts_with("logfile=") => format!("logfile={folder}/console.log"),
            _ => option.to_owned(),
        });
        let word = if id.is_some() { options.collect::<Vec<_>>().join(",") } else { word };
        arguments.push(word);
    }
    arguments
}
