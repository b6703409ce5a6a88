//! The process of one partition: started, told things, listened to, and ended.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    future::{self, Future},
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream as StdUnixStream, process::ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use ioward_channel::{
    control::{FromPartition, MAX_LINE_BYTES, ToPartition},
    shared::{self, EndFds},
};
use ioward_model::{Halt, Name};
use rustix::{
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
    process::{Pid, Signal, kill_process, kill_process_group},
};
use tokio::{
    io::Interest,
    net::{UnixListener, UnixStream},
    process::{Child, Command},
    sync::{Notify, watch},
    time::timeout,
};

use super::{Bounds, SimConfig, console, io_error};
use crate::{HypervisorError, lock::lock};

/// How a process ended that was killed by [`Machine::kill`].
pub(super) const KILLED: &str = "killed by signal 9";

/// How much of a log is shown as last words, in bytes.
const LAST_WORDS: usize = 2048;

/// How long the last words of a process that has ended may take to come out of its console.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// A VF that a guest was asked to let go of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unplug {
    Asked,
    Done,
}

/// The state of the channel.
enum Channel {
    None,
    /// The guest has its end; the management partition has not asked for its own yet.
    Unconnected(EndFds),
    Connected,
}

/// A running process.
pub(super) struct Machine {
    partition: Name,
    folder: PathBuf,
    pid: u32,
    bounds: Bounds,
    control: UnixStream,
    /// Held while a message is written.
    telling: tokio::sync::Mutex<()>,
    is_started: watch::Sender<bool>,
    unplugs: watch::Sender<BTreeMap<Name, Unplug>>,
    /// Why its process is stopped.
    halted: Mutex<Option<Halt>>,
    /// How it ended, once it has.
    gone: watch::Sender<Option<String>>,
    kill: Notify,
    halting: Notify,
    /// Whether it is to stand still.
    frozen: watch::Sender<bool>,
    /// How many want it to end.
    end_expected: AtomicU32,
    /// Held while a channel is made, so that both sides agree which one is the newest.
    channel: tokio::sync::Mutex<Channel>,
}

/// Somebody wants the process to end, for as long as this lives.
pub(super) struct EndExpected<'a>(&'a Machine);

impl Drop for EndExpected<'_> {
    fn drop(&mut self) {
        self.0.end_expected.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Machine {
    /// Starts a process. The future has to be driven; it gives how the process ended, and dropping it kills it.
    pub(super) fn spawn(
        partition: &Name,
        folder: &Path,
        config: &SimConfig,
    ) -> Result<(Arc<Self>, impl Future<Output = String> + use<>), HypervisorError> {
        let socket = folder.join("console.sock");
        // Another run may have left one.
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).map_err(io_error("create", &socket))?;
        let open = |file: &str| {
            let path = folder.join(file);
            let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
            opened.and_then(|file| file.set_len(0).map(|()| file)).map_err(io_error("create", &path))
        };
        let (log, console_log) = (open("machine.log")?, open("console.log")?);
        let started = || -> io::Result<_> {
            let (control, childs_control) = StdUnixStream::pair()?;
            let (console, childs_console) = StdUnixStream::pair()?;
            control.set_nonblocking(true)?;
            console.set_nonblocking(true)?;
            let child = Command::new(&config.program)
                .args(&config.arguments)
                .process_group(0)
                .kill_on_drop(true)
                .stdin(Stdio::from(OwnedFd::from(childs_control)))
                .stdout(Stdio::from(OwnedFd::from(childs_console)))
                .stderr(log)
                .spawn()?;
            Ok((child, UnixStream::from_std(control)?, UnixStream::from_std(console)?))
        };
        let (child, control, console) = started().map_err(io_error("start", &config.program))?;
        let machine = Arc::new(Self {
            partition: partition.clone(),
            folder: folder.to_owned(),
            pid: child.id().unwrap_or_default(),
            bounds: config.bounds.clone(),
            control,
            telling: tokio::sync::Mutex::default(),
            is_started: watch::Sender::new(false),
            unplugs: watch::Sender::default(),
            halted: Mutex::default(),
            gone: watch::Sender::new(None),
            kill: Notify::new(),
            halting: Notify::new(),
            frozen: watch::Sender::new(false),
            end_expected: AtomicU32::new(0),
            channel: tokio::sync::Mutex::new(Channel::None),
        });
        let life = live(Arc::clone(&machine), child, console, listener, console_log);
        Ok((machine, life))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn partition(&self) -> &Name {
        &self.partition
    }

    /// Lets the machine run, now that it has been told what it has, and waits until it says that it does.
    pub(super) async fn boot(&self) -> Result<(), HypervisorError> {
        self.tell(&ToPartition::Boot, &[]).await?;
        let mut is_started = self.is_started.subscribe();
        let started = async {
            tokio::select! {
                _ = is_started.wait_for(|started| *started) => {}
                _ = self.gone() => {}
            }
        };
        let in_time = timeout(self.bounds.start, started).await;
        if in_time.is_ok() && !self.is_gone() {
            return Ok(());
        }
        Err(self.unresponsive("start".into(), self.bounds.start))
    }

    /// Tells the process something, with the descriptors that belong to it.
    pub(super) async fn tell(
        &self,
        message: &ToPartition,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), HypervisorError> {
        let line = format!("{message}\n");
        let send = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(fds));
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.control, &[IoSlice::new(line.as_bytes())], &mut ancillary, flags)? {
                sent if sent == line.len() => Ok(()),
                _ => Err(io::Error::other("half a message was taken")),
            }
        };
        let told = timeout(self.bounds.command, async {
            let _telling = self.telling.lock().await;
            self.control.async_io(Interest::WRITABLE, send).await
        });
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io_error("control the process of", &self.folder)(error)),
            Err(_) => Err(self.unresponsive("listen to its control socket".into(), self.bounds.command)),
        }
    }

    /// Makes a channel, if there is none.
    pub(super) async fn make_channel(&self) -> Result<(), HypervisorError> {
        let mut channel = self.channel.lock().await;
        if matches!(*channel, Channel::None) {
            *channel = Channel::Unconnected(self.hand_over_channel().await?);
        }
        Ok(())
    }

    /// The management partition's end of the channel. One that was given out before has been used: then a new channel
    /// takes the place of the one before.
    pub(super) async fn connect_channel(&self) -> Result<EndFds, HypervisorError> {
        let mut channel = self.channel.lock().await;
        match std::mem::replace(&mut *channel, Channel::Connected) {
            Channel::Unconnected(fds) => Ok(fds),
            Channel::None | Channel::Connected => self.hand_over_channel().await,
        }
    }

    async fn hand_over_channel(&self) -> Result<EndFds, HypervisorError> {
        let (imp, guest) = shared::create().map_err(io_error("make a channel for", &self.folder))?;
        let fds = [guest.memory.as_fd(), guest.doorbell_in.as_fd(), guest.doorbell_out.as_fd()];
        self.tell(&ToPartition::Channel, &fds).await?;
        Ok(imp)
    }

    pub(super) async fn destroy_channel(&self) -> Result<(), HypervisorError> {
        let mut channel = self.channel.lock().await;
        self.tell(&ToPartition::NoChannel, &[]).await?;
        *channel = Channel::None;
        Ok(())
    }

    /// Asks the guest to let go of a VF and waits until it has. One that is late is not asked in vain: what it lets go
    /// of afterwards counts when it is asked again.
    pub(super) async fn unplug(&self, vf: &Name) -> Result<(), HypervisorError> {
        let has_let_go = |unplugs: &BTreeMap<_, _>| unplugs.get(vf) == Some(&Unplug::Done);
        let mut unplugs = self.unplugs.subscribe();
        if !has_let_go(&unplugs.borrow_and_update()) {
            self.unplugs.send_modify(|unplugs| {
                unplugs.insert(vf.clone(), Unplug::Asked);
            });
            self.tell(&ToPartition::Detach(vf.clone()), &[]).await?;
        }
        let let_go = async {
            tokio::select! {
                _ = unplugs.wait_for(has_let_go) => {}
                _ = self.gone() => {}
            }
        };
        match timeout(self.bounds.unplug, let_go).await {
            Ok(()) => {
                self.forget_unplug(vf);
                Ok(())
            }
            Err(_) => Err(self.unresponsive(format!("let go of {vf}"), self.bounds.unplug)),
        }
    }

    /// Forgets that a guest was asked to let go of a VF, and whether it has.
    pub(super) fn forget_unplug(&self, vf: &Name) {
        self.unplugs.send_modify(|unplugs| {
            unplugs.remove(vf);
        });
    }

    /// Presses the power button and waits until the process has ended.
    pub(super) async fn power_down(&self) -> Result<(), HypervisorError> {
        if let Err(error) = self.tell(&ToPartition::PowerButton, &[]).await
            && !self.is_gone()
        {
            return Err(error);
        }
        match timeout(self.bounds.power_down, self.gone()).await {
            Ok(_) => Ok(()),
            Err(_) => Err(self.unresponsive("turn itself off".into(), self.bounds.power_down)),
        }
    }

    /// Why its process is stopped, if it is.
    pub(super) fn halted(&self) -> Option<Halt> {
        *lock(&self.halted)
    }

    /// Stops its process, or has it go on. Whether that is another state than before.
    pub(super) fn halt(&self, halt: Option<Halt>) -> bool {
        let is_news = std::mem::replace(&mut *lock(&self.halted), halt) != halt;
        if is_news {
            self.halting.notify_one();
        }
        is_news
    }

    /// Has its process be as [`Self::halt`] has said. Until that was waited for, nobody else has its number.
    fn obey(&self, child: &Child) {
        let signal = if self.halted().is_some() { Signal::STOP } else { Signal::CONT };
        if let Some(group) = child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) {
            // One that has just ended stays so.
            let _ = kill_process_group(group, signal);
        }
    }

    pub(super) fn kill(&self) {
        self.kill.notify_one();
    }

    /// Has it stand still, or go on.
    pub(super) fn freeze(&self, frozen: bool) {
        self.frozen.send_if_modified(|now| std::mem::replace(now, frozen) != frozen);
    }

    /// Waits until the process has ended; how it did.
    pub(super) async fn gone(&self) -> String {
        let mut gone = self.gone.subscribe();
        let why = gone.wait_for(Option::is_some).await.map(|why| why.clone());
        // The sender is part of this, so there is always an answer.
        why.ok().flatten().unwrap_or_default()
    }

    pub(super) fn has_started(&self) -> bool {
        *self.is_started.borrow()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone.borrow().is_some()
    }

    pub(super) fn set_gone(&self, why: &str) {
        self.gone.send_replace(Some(why.to_owned()));
    }

    pub(super) fn expect_end(&self) -> EndExpected<'_> {
        self.end_expected.fetch_add(1, Ordering::AcqRel);
        EndExpected(self)
    }

    pub(super) fn end_is_expected(&self) -> bool {
        self.end_expected.load(Ordering::Acquire) > 0
    }

    /// Listens to what the process says, until it says what makes no sense or was not asked: it is heard no more then.
    async fn listen(&self) -> io::Result<()> {
        let mut lines = Vec::new();
        loop {
            self.control.readable().await?;
            let mut chunk = [0; MAX_LINE_BYTES];
            // Descriptors that come along are closed by the kernel: a plain read takes none.
            match self.control.try_read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(length) => lines.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            }
            while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = lines.drain(..=end).collect();
                let message = str::from_utf8(&line[..end]).ok().and_then(|line| line.parse().ok());
                if !message.is_some_and(|message| self.heard(message)) {
                    return Err(io::Error::other("it says what makes no sense"));
                }
            }
            if lines.len() > MAX_LINE_BYTES {
                return Err(io::Error::other("it says a line without an end"));
            }
        }
    }

    /// Takes note of what the process says; false when it had no reason to say it.
    fn heard(&self, message: FromPartition) -> bool {
        match message {
            FromPartition::Started => !self.is_started.send_replace(true),
            FromPartition::Released(vf) => {
                self.unplugs.send_if_modified(|unplugs| match unplugs.get_mut(&vf) {
                    Some(unplug @ Unplug::Asked) => {
                        *unplug = Unplug::Done;
                        true
                    }
                    _ => false,
                })
            }
        }
    }

    fn unresponsive(&self, what: String, after: Duration) -> HypervisorError {
        HypervisorError::GuestUnresponsive { partition: self.partition.clone(), what, after }
    }
}

/// A process from its start to its end; how it ended.
async fn live(
    machine: Arc<Machine>,
    mut child: Child,
    console: UnixStream,
    listener: UnixListener,
    log: File,
) -> String {
    let mut relay = std::pin::pin!(console::relay(console, listener, log));
    let mut is_relaying = true;
    let listen = async {
        if let Err(error) = machine.listen().await {
            tracing::warn!("partition {} is not listened to any more: {error}", machine.partition);
        }
        future::pending::<()>().await;
    };
    let mut listen = std::pin::pin!(listen);
    let mut frozen = machine.frozen.subscribe();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = machine.kill.notified() => {
                // One that has ended already stays so.
                let _ = child.start_kill();
            }
            () = machine.halting.notified() => machine.obey(&child),
            // The sender is part of the machine, so there is nothing but a change to wait for.
            _ = frozen.changed() => {
                let signal = if *frozen.borrow_and_update() { Signal::STOP } else { Signal::CONT };
                // Nobody has waited for the child, so its number is its own.
                let pid = child.id().and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
                if let Some(Err(error)) = pid.map(|pid| kill_process(pid, signal)) {
                    tracing::warn!("partition {} does not stand still or go on: {error}", machine.partition);
                }
            }
            () = &mut relay, if is_relaying => is_relaying = false,
            () = &mut listen => {}
        }
    };
    if is_relaying {
        // Something that the process left behind may keep its console open.
        let _ = timeout(LAST_OUTPUT, relay).await;
    }
    match status {
        Ok(status) => in_words(status),
        Err(error) => format!("its process can't be waited for: {error}"),
    }
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(0), _) => "the guest turned itself off".into(),
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "it ended".into(),
    }
}

/// The end of what a process wrote to its log, fit to be shown.
pub(super) fn last_words(folder: &Path) -> String {
    let log = fs::read(folder.join("machine.log")).unwrap_or_default();
    let tail = &log[log.len().saturating_sub(LAST_WORDS)..];
    let text: String = String::from_utf8_lossy(tail).trim().replace(char::is_control, " ");
    if text.is_empty() { "it said nothing".into() } else { text }
}
