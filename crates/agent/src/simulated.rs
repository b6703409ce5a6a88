//! A client partition that is a process: a simulated hypervisor starts it in place of a machine.
//!
//! ```text
//!   hypervisor ── fd 0 ──> control: channels, VFs, the power button         (ioward_channel::control)
//!   a person  ── fd 1 ──> console: `vf list`, `vf set net0 vlan=5`, `poweroff`
//!                 fd 2     log
//! ```
//!
//! When the hypervisor ends, the control socket closes, and the process ends too.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::ExitCode,
    str,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use ioward_channel::{
    control::{FromPartition, MAX_LINE_BYTES, ToPartition},
    shared::EndFds,
};
use ioward_model::Name;
use ioward_pci::Bdf;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg},
};

use crate::{
    Agent, AgentError, Options,
    command::{Failure, parse},
};

/// The longest line that can be typed.
const MAX_TYPED: usize = 1024;

/// How long a command waits for the channel.
const CHANNEL: Duration = Duration::from_secs(10);

/// Plays a machine on the descriptors above, until it is powered off or the hypervisor ends.
#[must_use]
pub fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The log may be closed, too.
            let _ =
                writeln!(io::stderr(), "a partition can't go on (a simulated hypervisor starts it): {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let console = Console { socket: UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?) };
    let machine = Arc::new(Machine::default());
    let (shared, screen) = (Arc::clone(&machine), console.try_clone()?);
    thread::spawn(move || {
        let status = match obey(&control, &shared, screen) {
            Ok(()) => 0,
            Err(error) => {
                let _ = writeln!(io::stderr(), "the hypervisor can't be understood: {error}");
                1
            }
        };
        std::process::exit(status);
    });
    machine.wait_for_boot();
    offer(console, &machine)
}

/// The state shared by both threads.
#[derive(Default)]
struct Machine {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Default)]
struct Now {
    name: String,
    has_booted: bool,
    channel: Channel,
    vfs: BTreeMap<Name, Bdf>,
}

#[derive(Default)]
enum Channel {
    #[default]
    None,
    /// No agent has used it yet.
    New(EndFds),
    /// An agent uses it.
    Taken,
}

impl Machine {
    fn lock(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the channel; returns the previous one.
    fn set_channel(&self, channel: Channel) -> Channel {
        let before = std::mem::replace(&mut self.lock().channel, channel);
        self.changed.notify_all();
        before
    }

    fn wait_for_boot(&self) {
        drop(self.changed.wait_while(self.lock(), |now| !now.has_booted));
    }

    /// Keeps `agent` connected to the newest channel, or to none.
    fn connect(&self, agent: &mut Option<Agent>) -> Result<(), AgentError> {
        let mut now = self.lock();
        if agent.is_none() {
            // The other side closed the previous channel, and makes a new one.
            let closed = |now: &mut Now| matches!(now.channel, Channel::Taken);
            let waited = self.changed.wait_timeout_while(now, CHANNEL, closed);
            now = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        match std::mem::replace(&mut now.channel, Channel::Taken) {
            Channel::Taken => {}
            Channel::None => {
                now.channel = Channel::None;
                *agent = None;
            }
            Channel::New(fds) => {
                drop(now);
                *agent = None;
                *agent = Some(Agent::from_shared(fds, Options::default())?);
            }
        }
        Ok(())
    }
}

/// Follows the hypervisor's messages until it ends or sends the last one.
fn obey(control: &UnixStream, machine: &Machine, mut screen: Console) -> io::Result<()> {
    let mut received = VecDeque::new();
    let mut lines = Vec::new();
    loop {
        let mut chunk = [0; MAX_LINE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let length = match recvmsg(
            control,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        ) {
            Ok(message) if message.bytes == 0 => return Ok(()),
            Ok(message) => message.bytes,
            Err(rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                received.extend(fds);
            }
        }
        lines.extend_from_slice(&chunk[..length]);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            // Ignores the messages of a later version.
            let Some(message) = str::from_utf8(&line[..end]).ok().and_then(|line| line.parse().ok()) else {
                continue;
            };
            if !carry_out(message, &mut received, control, machine, &mut screen)? {
                return Ok(());
            }
        }
        if lines.len() > MAX_LINE_BYTES {
            return Err(io::Error::other("a line without an end"));
        }
    }
}

/// Carries out one message; false after the last one.
fn carry_out(
    message: ToPartition,
    received: &mut VecDeque<OwnedFd>,
    control: &UnixStream,
    machine: &Machine,
    screen: &mut Console,
) -> io::Result<bool> {
    match message {
        ToPartition::Name(name) => machine.lock().name = name.to_string(),
        ToPartition::Channel => {
            let mut next = || received.pop_front().ok_or(io::Error::other("a channel without descriptors"));
            let fds = EndFds { memory: next()?, doorbell_in: next()?, doorbell_out: next()? };
            if let Channel::None = machine.set_channel(Channel::New(fds)) {
                writeln!(screen, "machine: the channel is there")?;
            }
        }
        ToPartition::NoChannel => {
            machine.set_channel(Channel::None);
            writeln!(screen, "machine: the channel is gone")?;
        }
        ToPartition::Attach { vf, function } => {
            machine.lock().vfs.insert(vf.clone(), function);
            writeln!(screen, "machine: {vf} has been plugged in ({function} on the host)")?;
        }
        ToPartition::Detach(vf) => {
            machine.lock().vfs.remove(&vf);
            writeln!(screen, "machine: {vf} has been unplugged")?;
            say(control, &FromPartition::Released(vf))?;
        }
        ToPartition::Boot => {
            machine.lock().has_booted = true;
            machine.changed.notify_all();
            say(control, &FromPartition::Started)?;
        }
        ToPartition::PowerButton => {
            writeln!(screen, "machine: the power button was pressed")?;
            return Ok(false);
        }
    }
    Ok(true)
}

fn say(mut control: &UnixStream, message: &FromPartition) -> io::Result<()> {
    control.write_all(format!("{message}\n").as_bytes())
}

/// Runs commands from the console until the machine is powered off.
fn offer(mut console: Console, machine: &Machine) -> io::Result<()> {
    let mut agent = None;
    let mut status = 0;
    writeln!(console, "A simulated partition. 'help' lists the commands.")?;
    loop {
        let failed = if status == 0 { String::new() } else { format!("[{status}] ") };
        let name = machine.lock().name.clone();
        write!(console, "{failed}{name}# ")?;
        let Some(line) = console.read_line()? else { return Ok(()) };
        let words: Vec<_> = line.split_whitespace().collect();
        status = match words[..] {
            [] => 0,
            ["poweroff"] => return Ok(()),
            ["help"] => {
                console.write_all(
                    b"vf list | get NAME | set NAME KEY=VALUE... | reset NAME | stats NAME | watch   [--json]\n\
                      lspci      the VFs that are plugged in\n\
                      poweroff   ends this partition\n",
                )?;
                0
            }
            ["lspci"] => {
                for (vf, function) in &machine.lock().vfs {
                    writeln!(console, "{function}  {vf}")?;
                }
                0
            }
            ["vf", ..] => ask(&words, machine, &mut agent, &mut console)?,
            [other, ..] => {
                writeln!(console, "there is no command {other:?}; 'help' lists them")?;
                2
            }
        };
    }
}

/// Runs a `vf` command and returns its exit status.
fn ask(
    words: &[&str],
    machine: &Machine,
    agent: &mut Option<Agent>,
    console: &mut Console,
) -> io::Result<u8> {
    let keyboard = console.try_clone()?;
    let done = parse(words).and_then(|checked| {
        machine.connect(agent)?;
        let Some(connected) = agent.as_mut() else { return Ok(false) };
        checked.run(connected, console, &mut || keyboard.has_input()).map(|()| true)
    });
    match done {
        Ok(true) => Ok(0),
        Ok(false) => {
            writeln!(console, "this partition has no channel: it holds no VF")?;
            Ok(1)
        }
        Err(Failure::Output(error)) => Err(error),
        Err(failure) => {
            if let Failure::Agent(
                AgentError::Closed { .. } | AgentError::Io { .. } | AgentError::Gone { .. },
            ) = failure
            {
                *agent = None;
            }
            writeln!(console, "{}", failure.message())?;
            Ok(failure.exit_status())
        }
    }
}

/// A serial console: echoes input, and puts a carriage return before each newline.
struct Console {
    socket: UnixStream,
}

impl Console {
    fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { socket: self.socket.try_clone()? })
    }

    /// A line of input; `None` once the keyboard is closed.
    fn read_line(&mut self) -> io::Result<Option<String>> {
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            if self.socket.read(&mut byte)? == 0 {
                return Ok(None);
            }
            match byte[0] {
                b'\r' | b'\n' => {
                    self.write_all(b"\n")?;
                    return Ok(Some(String::from_utf8_lossy(&line).into_owned()));
                }
                // Backspace and delete.
                0x08 | 0x7f if line.pop().is_some() => self.write_all(b"\x08 \x08")?,
                // Ctrl-C discards the line.
                0x03 => {
                    self.write_all(b"^C\n")?;
                    return Ok(Some(String::new()));
                }
                byte if (b' '..0x7f).contains(&byte) && line.len() < MAX_TYPED => {
                    line.push(byte);
                    self.write_all(&[byte])?;
                }
                _ => {}
            }
        }
    }

    fn has_input(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&at_once)).is_ok_and(|count| count > 0)
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if *byte == b'\n' {
                written.push(b'\r');
            }
            written.push(*byte);
        }
        self.socket.write_all(&written)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
