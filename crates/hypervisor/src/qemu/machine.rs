//! One running machine: its process, its QMP connection, and what is done to it while it runs.

use std::{
    ffi::OsStr,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use ioward_model::{Halt, Migration, Name};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Mutex, watch},
    time::{Instant, sleep, timeout},
};

use super::{
    Bounds, command,
    folder::Folder,
    process::Process,
    qmp::{Heard, Qmp, QmpError},
    record::{HeldStandby, HeldVf},
    wire::Refusal,
};
use crate::{Accelerator, HypervisorError, lock::lock, text::printable};

/// Between two looks at something that QEMU or a guest is to bring about.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// Between two requests to a guest that has not obeyed: one that is still booting, or is busy with the plugging before
/// (autotest/tp-libvirt#3999), does not hear the first. QEMU takes the next one after 5 s at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(6);

/// A machine whose process was alive when this was made.
pub(super) struct Machine {
    partition: Name,
    folder: Folder,
    bounds: Bounds,
    process: Process,
    qmp: Mutex<Option<Qmp>>,
    heard: Arc<Heard>,
    halted: std::sync::Mutex<Option<Halt>>,
    accelerator: OnceLock<Accelerator>,
    /// How many callers have asked for its end and are waiting for it.
    expecting: AtomicUsize,
    end: watch::Sender<Option<End>>,
}

/// How a machine ended.
#[derive(Clone, Debug)]
pub(super) struct End {
    /// How it ended, for a person.
    pub why: String,
    /// Its exit status, where this process started it.
    pub status: Option<String>,
}

/// Held by who asked for a machine's end: while it is held, that end is news to nobody.
pub(super) struct ExpectedEnd<'a>(&'a Machine);

impl Drop for ExpectedEnd<'_> {
    fn drop(&mut self) {
        self.0.expecting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Machine {
    pub(super) fn new(partition: &Name, folder: &Folder, bounds: &Bounds, process: Process) -> Arc<Self> {
        Arc::new(Self {
            partition: partition.clone(),
            folder: folder.clone(),
            bounds: bounds.clone(),
            process,
            qmp: Mutex::new(None),
            heard: Arc::default(),
            halted: std::sync::Mutex::default(),
            accelerator: OnceLock::new(),
            expecting: AtomicUsize::new(0),
            end: watch::Sender::new(None),
        })
    }

    pub(super) fn partition(&self) -> &Name {
        &self.partition
    }

    pub(super) fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    /// Its accelerator, once it has said so.
    pub(super) fn accelerator(&self) -> Option<Accelerator> {
        self.accelerator.get().copied()
    }

    /// Whether its process is gone and what it left has been cleared away.
    pub(super) fn is_gone(&self) -> bool {
        self.end.borrow().is_some()
    }

    /// Waits until its process is gone and what it left has been cleared away.
    pub(super) async fn gone(&self) -> End {
        let mut end = self.end.subscribe();
        loop {
            if let Some(end) = end.borrow_and_update().clone() {
                return end;
            }
            // The sender is in `self`, so there is nothing but a change to wait for.
            let _ = end.changed().await;
        }
    }

    /// Says that it is gone, to everybody in [`Self::gone`].
    pub(super) fn set_gone(&self, end: End) {
        self.end.send_replace(Some(end));
    }

    pub(super) fn expect_end(&self) -> ExpectedEnd<'_> {
        self.expecting.fetch_add(1, Ordering::SeqCst);
        ExpectedEnd(self)
    }

    pub(super) fn end_is_expected(&self) -> bool {
        self.expecting.load(Ordering::SeqCst) > 0
    }

    /// How it ended. To be called once, after its process has ended.
    pub(super) async fn last_words(&self) -> End {
        let status = self.process.exit();
        let drained = async {
            if let Some(qmp) = self.qmp.lock().await.as_mut() {
                qmp.drained().await;
            }
        };
        // The socket closed with the process; what was in it is read at once.
        let _ = timeout(Duration::from_secs(1), drained).await;
        let unknown = || format!("its process is gone; {} may say why", self.folder.log().display());
        let why = self.heard.farewell.get().cloned().or_else(|| status.clone()).unwrap_or_else(unknown);
        End { why, status }
    }

    /// Why it executes nothing, if it did not when it was last looked at.
    pub(super) fn halted(&self) -> Option<Halt> {
        *lock(&self.halted)
    }

    /// Waits until it has something to say that is worth a look.
    pub(super) async fn stirred(&self) {
        self.heard.stirred.notified().await;
    }

    /// Whether it is heard. Somebody who is speaking with it is taken for a yes.
    pub(super) fn is_connected(&self) -> bool {
        self.qmp.try_lock().map_or(true, |qmp| qmp.as_ref().is_some_and(Qmp::is_usable))
    }

    /// Looks whether it executes. Whether that is another answer than before.
    pub(super) async fn look(&self) -> bool {
        let Ok(status) = self.ask("query-status", Value::Null).await else { return false };
        let now = halt(&status);
        std::mem::replace(&mut *lock(&self.halted), now) != now
    }

    /// Learns of one that was started by somebody else how it is.
    pub(super) async fn get_to_know(&self) -> Result<(), HypervisorError> {
        self.look().await;
        self.learn_accelerator().await.map(drop)
    }

    /// Waits until it executes, and says on what. One that is known to have executed, and has halted since, is not waited for: that is told
    /// otherwise. One that was moved away, or waits for its state, does not execute.
    pub(super) async fn running(&self) -> Result<Accelerator, HypervisorError> {
        self.executes(&["running"]).await
    }

    /// Waits until it is in one of these run states of QEMU's, and says on what it executes.
    pub(super) async fn executes(&self, states: &[&str]) -> Result<Accelerator, HypervisorError> {
        let deadline = Instant::now() + self.bounds.start;
        loop {
            let answer = self.ask("query-status", Value::Null).await;
            let state =
                answer.as_ref().ok().and_then(|status| status["status"].as_str()).unwrap_or("unknown");
            // For its daemon to say what becomes of it: time does not. Whoever else has paused it has it go on.
            let is_being_moved = match state {
                "inmigrate" | "postmigrate" => true,
                "paused" => !matches!(self.migration().await, Ok(Migration::None)),
                _ => false,
            };
            let has_halted = || answer.as_ref().is_ok_and(|status| halt(status).is_some());
            if states.contains(&state) || !is_being_moved && has_halted() && self.accelerator().is_some() {
                break;
            }
            match answer {
                Ok(_) | Err(QmpError::Connect(_) | QmpError::NoAnswer(_))
                    if Instant::now() < deadline && !is_being_moved =>
                {
                    sleep(POLL).await;
                }
                Ok(status) => {
                    let state = printable(status["status"].as_str().unwrap_or("unknown"), 40);
                    return Err(
                        self.refused("query-status", format!("it does not run; its state is {state}"))
                    );
                }
                Err(error) => return Err(self.refused("query-status", error)),
            }
        }
        self.learn_accelerator().await
    }

    async fn learn_accelerator(&self) -> Result<Accelerator, HypervisorError> {
        let kvm = self.command("query-kvm", Value::Null).await?;
        let accelerator = if kvm["enabled"] == true { Accelerator::Kvm } else { Accelerator::Tcg };
        Ok(*self.accelerator.get_or_init(|| accelerator))
    }

    /// Plugs a VF in; one that is in already stays.
    ///
    /// One that has a standby is the primary of that. QEMU says yes to it at once, and as long as the guest has not negotiated
    /// `VIRTIO_NET_F_STANDBY` it is not in the machine and in no list of QEMU's: it is plugged in by QEMU itself, when the guest does. A
    /// guest that has no driver for that never gets it. What QEMU finds wrong with it only then is not told to us: it is in QEMU's log.
    pub(super) async fn plug(&self, vf: &HeldVf, has_standby: bool) -> Result<(), HypervisorError> {
        self.add_device(&command::vf_id(vf), &command::vf_device(vf, has_standby)).await
    }

    /// Plugs a standby in, with the host's end of it; one that is in already stays.
    pub(super) async fn plug_standby(
        &self,
        standby: &HeldStandby,
        tap: BorrowedFd<'_>,
    ) -> Result<(), HypervisorError> {
        let end = command::tap_id(&standby.name);
        // One without its device was left by a daemon that was cut off in between: mostly there is none, and QEMU says so.
        let _ = self.ask("netdev_del", json!({"id": end})).await;
        let handed = self.connected(async |qmp, bound| qmp.hand_over(tap, &end, bound).await);
        handed.await.map_err(|error| self.refused("getfd", error))?;
        let host_end = json!({"type": "tap", "id": end, "fd": end, "vhost": false});
        if let Err(error) = self.command("netdev_add", host_end).await {
            let _ = self.ask("closefd", json!({"fdname": end})).await;
            return Err(error);
        }
        let device = command::standby_device(standby);
        let added = self.add_device(&command::standby_id(&standby.name), &device).await;
        if added.is_err() {
            let _ = self.ask("netdev_del", json!({"id": end})).await;
        }
        added
    }

    /// Takes a standby out: asks the guest as for a VF. The host's end goes with it.
    pub(super) async fn unplug_standby(&self, standby: &HeldStandby) -> Result<(), HypervisorError> {
        let shown = format!("the standby of {}", standby.name);
        self.remove_device(&command::standby_id(&standby.name), &shown).await?;
        match self.ask("netdev_del", json!({"id": command::tap_id(&standby.name)})).await {
            // It was gone.
            Ok(_) | Err(QmpError::Refused(_)) => Ok(()),
            Err(error) => Err(self.refused("netdev_del", error)),
        }
    }

    /// Whether a standby is in it.
    pub(super) async fn has_standby(&self, standby: &HeldStandby) -> Result<bool, HypervisorError> {
        self.has_device(&command::standby_id(&standby.name)).await
    }

    /// Has QEMU say on a standby's bridge where its MAC is now: until the guest sends something by itself, the bridge knows no better than
    /// that it is where the VF was.
    pub(super) async fn announce_standby(&self, name: &Name) {
        let device = command::standby_id(name);
        // As QEMU does after a migration (qapi/net.json).
        let how = json!({"initial": 50, "max": 550, "rounds": 5, "step": 100, "interfaces": [device], "id": device});
        if let Err(error) = self.command("announce-self", how).await {
            tracing::warn!("the standby {name} is not announced: {error}");
        }
    }

    /// Takes a VF out: asks the guest, again and again, until it has let go, and waits until QEMU has closed `group`,
    /// the VF's IOMMU group, where no other VF of the machine is in it.
    ///
    /// QEMU closes a device some time after it is gone from every list and DEVICE_DELETED has been sent. Until then the
    /// VF cannot be plugged in again, here or elsewhere.
    ///
    /// A primary that QEMU keeps out of the machine is no device: QEMU knows none of its name, and there is nothing to wait for.
    pub(super) async fn unplug(&self, vf: &HeldVf, group: Option<&OsStr>) -> Result<(), HypervisorError> {
        self.remove_device(&command::vf_id(vf), vf.name.as_str()).await?;
        let Some(group) = group.map(|group| Path::new("/dev/vfio").join(group)) else { return Ok(()) };
        let deadline = Instant::now() + self.bounds.unplug;
        // A process whose files can't be listed any more has ended.
        while matches!(self.process.has_open(&group), Ok(true)) {
            if Instant::now() >= deadline {
                return Err(self.unresponsive(&format!("close {}", group.display()), self.bounds.unplug));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// Whether a VF is in it. A primary that waits for the guest to negotiate is not.
    pub(super) async fn has_vf(&self, vf: &HeldVf) -> Result<bool, HypervisorError> {
        self.has_device(&command::vf_id(vf)).await
    }

    /// Adds the channel; one that is there already stays.
    pub(super) async fn add_channel(&self) -> Result<(), HypervisorError> {
        if !self.has_chardev(command::CHANNEL_CHARDEV).await? {
            // QEMU has no right to the folder: it is given the socket.
            let socket = self.folder.listen(&self.folder.channel())?;
            let handed = self.connected(async |qmp, bound| {
                qmp.hand_over(socket.as_fd(), command::CHANNEL_CHARDEV, bound).await
            });
            handed.await.map_err(|error| self.refused("getfd", error))?;
            let address = json!({"type": "fd", "data": {"str": command::CHANNEL_CHARDEV}});
            let backend = json!({"type": "socket", "data": {"addr": address, "server": true, "wait": false}});
            self.command("chardev-add", json!({"id": command::CHANNEL_CHARDEV, "backend": backend})).await?;
        }
        self.add_device(command::CHANNEL_DEVICE, &command::channel_device()).await
    }

    /// Takes the channel away. The guest has no say in it: QEMU removes a port at once, and only lets go of the socket
    /// a moment later.
    pub(super) async fn remove_channel(&self) -> Result<(), HypervisorError> {
        self.remove_device(command::CHANNEL_DEVICE, "its channel").await?;
        let deadline = Instant::now() + self.bounds.unplug;
        while self.has_chardev(command::CHANNEL_CHARDEV).await? {
            match self.ask("chardev-remove", json!({"id": command::CHANNEL_CHARDEV})).await {
                Err(QmpError::Refused(_)) if Instant::now() < deadline => sleep(POLL).await,
                Err(error) => return Err(self.refused("chardev-remove", error)),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// Presses the power button until the guest has turned itself off.
    pub(super) async fn power_down(&self) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + self.bounds.power_down;
        loop {
            if let Err(error) = self.command("system_powerdown", Value::Null).await {
                // It may have turned itself off between two requests.
                return timeout(self.bounds.kill, self.gone()).await.map(|_| ()).map_err(|_| error);
            }
            let wait = ASK_AGAIN.min(deadline.saturating_duration_since(Instant::now()));
            if timeout(wait, self.gone()).await.is_ok() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.unresponsive("turn itself off", self.bounds.power_down));
            }
        }
    }

    /// Ends it: QEMU is told to, so that it can flush its disks, and killed when it does not.
    pub(super) async fn force_off(&self) -> Result<(), HypervisorError> {
        let quit = async {
            // Whether it says yes, says nothing or is gone before it can say anything makes no difference here.
            let _ = self.ask("quit", Value::Null).await;
            self.gone().await
        };
        if timeout(self.bounds.kill, quit).await.is_ok() {
            return Ok(());
        }
        self.process.kill();
        match timeout(self.bounds.unplug, self.gone()).await {
            Ok(_) => Ok(()),
            Err(_) => {
                Err(self.unresponsive("end when its process was killed (see dmesg)", self.bounds.unplug))
            }
        }
    }

    /// Resets it, if it has halted, and has it go on.
    ///
    /// QEMU resets a machine some time after it has said yes, and leaves one that had halted for an error in the state `prelaunch`
    /// (`main_loop_should_exit` in system/runstate.c). Until then it refuses to have it go on.
    pub(super) async fn reset(&self) -> Result<(), HypervisorError> {
        self.look().await;
        if self.halted().is_none() {
            return Ok(());
        }
        self.command("system_reset", Value::Null).await?;
        let deadline = Instant::now() + self.bounds.command;
        loop {
            match self.ask("cont", Value::Null).await {
                Err(QmpError::Refused(_)) if Instant::now() < deadline => sleep(POLL).await,
                Err(error) => return Err(self.refused("cont", error)),
                Ok(_) => break,
            }
        }
        self.look().await;
        match self.halted() {
            None => Ok(()),
            Some(halt) => Err(self.refused("cont", format!("it has halted again: {halt}"))),
        }
    }

    async fn add_device(&self, id: &str, properties: &[(&str, String)]) -> Result<(), HypervisorError> {
        if self.has_device(id).await? {
            return Ok(());
        }
        // Since QEMU 9.2 a switch is none but as a boolean (qobject_input_visitor_new() in system/qdev-monitor.c).
        let value = |value: &str| if value == "on" { Value::Bool(true) } else { value.into() };
        let arguments: Map<_, _> =
            properties.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect();
        self.command("device_add", arguments.into()).await.map(|_| ())
    }

    /// Looks for the device to be gone instead of waiting for DEVICE_DELETED: that holds across a lost connection and
    /// for a device that went before anybody listened, and QEMU sends the event as it takes the device from this list.
    async fn remove_device(&self, id: &str, shown: &str) -> Result<(), HypervisorError> {
        let deadline = Instant::now() + self.bounds.unplug;
        let mut ask_again = Instant::now();
        loop {
            if Instant::now() >= ask_again {
                match self.ask("device_del", json!({"id": id})).await {
                    Err(QmpError::Refused(Refusal { class, .. })) if class == "DeviceNotFound" => {
                        return Ok(());
                    }
                    // "Already in the process of unplug", or a guest that is busy with the slot.
                    Err(QmpError::Refused(refusal)) => {
                        tracing::debug!("{}: device_del {id}: {}", self.partition, refusal.description);
                    }
                    Err(error) => return Err(self.refused("device_del", error)),
                    Ok(_) => {}
                }
                ask_again = Instant::now() + ASK_AGAIN;
            }
            if !self.has_device(id).await? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(self.unresponsive(&format!("let go of {shown}"), self.bounds.unplug));
            }
            sleep(POLL).await;
        }
    }

    async fn has_device(&self, id: &str) -> Result<bool, HypervisorError> {
        self.list_has("qom-list", json!({"path": "/machine/peripheral"}), "name", id).await
    }

    async fn has_chardev(&self, id: &str) -> Result<bool, HypervisorError> {
        self.list_has("query-chardev", Value::Null, "label", id).await
    }

    /// Whether a command that answers with a list of objects has one in it whose `key` is `value`.
    async fn list_has(
        &self,
        name: &str,
        arguments: Value,
        key: &str,
        value: &str,
    ) -> Result<bool, HypervisorError> {
        match self.command(name, arguments).await? {
            Value::Array(list) => Ok(list.iter().any(|item| item[key] == value)),
            _ => Err(self.refused(name, "its answer is no list")),
        }
    }

    pub(super) async fn command(&self, name: &str, arguments: Value) -> Result<Value, HypervisorError> {
        self.ask(name, arguments).await.map_err(|error| self.refused(name, error))
    }

    /// Carries out one QMP command; connects first when that is needed.
    async fn ask(&self, name: &str, arguments: Value) -> Result<Value, QmpError> {
        self.connected(async |qmp, bound| qmp.execute(name, &arguments, bound).await).await
    }

    pub(super) async fn connected<T>(
        &self,
        work: impl AsyncFnOnce(&mut Qmp, Duration) -> Result<T, QmpError>,
    ) -> Result<T, QmpError> {
        let mut connection = self.qmp.lock().await;
        let usable = connection.take().filter(Qmp::is_usable);
        let qmp = match usable {
            Some(qmp) => connection.insert(qmp),
            None => {
                let qmp =
                    Qmp::connect(&self.folder.qmp(), Arc::clone(&self.heard), self.bounds.command).await?;
                connection.insert(qmp)
            }
        };
        work(qmp, self.bounds.command).await
    }

    pub(super) fn refused(&self, command: &str, why: impl std::fmt::Display) -> HypervisorError {
        HypervisorError::Qmp {
            partition: self.partition.clone(),
            command: command.to_owned(),
            why: why.to_string(),
        }
    }

    fn unresponsive(&self, what: &str, after: Duration) -> HypervisorError {
        HypervisorError::GuestUnresponsive { partition: self.partition.clone(), what: what.to_owned(), after }
    }
}

/// Why a machine executes nothing, by the answer to `query-status`.
fn halt(status: &Value) -> Option<Halt> {
    Halt::of_word(status["status"].as_str()?)
}

/// The machine of a partition that is running already, if there is one.
pub(super) async fn find(
    partition: &Name,
    folder: &Folder,
    user: Option<u32>,
    bounds: &Bounds,
) -> std::io::Result<Option<Arc<Machine>>> {
    let user = user.unwrap_or_else(|| rustix::process::geteuid().as_raw());
    let found = find_process(folder, bounds, move |it| it == user).await?;
    Ok(found.map(|process| Machine::new(partition, folder, bounds, process)))
}

/// As whom a machine runs whose partition's record is lost: as one of these users, if there is one.
pub(super) async fn find_user(
    folder: &Folder,
    bounds: &Bounds,
    is_user: impl Fn(u32) -> bool + Send + 'static,
) -> std::io::Result<Option<u32>> {
    find_process(folder, bounds, is_user).await?.map(|process| process.user()).transpose()
}

async fn find_process(
    folder: &Folder,
    bounds: &Bounds,
    is_user: impl Fn(u32) -> bool + Send + 'static,
) -> std::io::Result<Option<Process>> {
    let mark = command::mark(folder);
    // A process that is stuck in the kernel can keep a reader of its command line waiting.
    let find = tokio::task::spawn_blocking(move || Process::find(OsStr::new(&mark), is_user));
    timeout(bounds.command, find).await.map_err(std::io::Error::from)?.map_err(std::io::Error::other)?
}
