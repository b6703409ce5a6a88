//! [`ModelHypervisor`]: partitions as plain data. It forbids nothing that the management partition has to see to by
//! itself, but writes down what a real one would have had to forbid. Like QEMU's, its machines outlive the daemon.

mod commands;
mod virsh;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use ioward_fabric::sim::SimMachine;
use ioward_hypervisor::{HypervisorError, HypervisorEvent};
use ioward_model::{Halt, Holder, KindName, Name, Owner, StandbyNic};
use ioward_pci::Bdf;
use rustix::io::Errno;
use tokio::sync::{Notify, mpsc};

use crate::{
    actions::DOMAIN,
    camera::{Camera, Moment},
    gate::{Gate, Libvirt},
    world::Wrong,
};

/// Turns a channel that nobody connects into a failure.
const BOUND: Duration = Duration::from_secs(60);

/// A partition's machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guest {
    pub kind: KindName,
    /// It is no partition any more, and goes on as it is: a domain or a namespace.
    pub forgotten: bool,
    pub running: bool,
    /// Its machine is there, and executes nothing.
    pub halted: Option<Halt>,
    pub channel: bool,
    pub vfs: BTreeMap<Name, Held>,
    pub standbys: BTreeMap<Name, StandbyNic>,
    /// How often it was started.
    pub starts: u32,
    /// Its power button was pressed: it turns itself off when it comes to it.
    pub leaving: bool,
    /// libvirt's definition of it, as others leave it.
    pub definition: Definition,
}

/// What others have done with the definition of a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Definition {
    #[default]
    There,
    /// It is called otherwise by now. Who knows its UUID finds it.
    Renamed,
    /// It was undefined while it ran, and goes when it ends.
    Transient,
    /// libvirt has no such domain.
    Gone,
}

impl Guest {
    /// A partition that has just been defined. A domain that nobody has heard of yet was started by somebody.
    pub fn new(kind: KindName) -> Self {
        Self { kind, running: kind != KindName::Machine, ..Self::default() }
    }
}

/// All machines, by partition. Clones are handles on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Guests(Arc<Mutex<BTreeMap<Name, Guest>>>);

impl Guests {
    pub fn new(guests: &BTreeMap<Name, Guest>) -> Self {
        Self(Arc::new(Mutex::new(guests.clone())))
    }

    pub fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Guest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As QEMU does when VFIO tells it of an uncorrectable error of one of these: machines that have one open halt.
    pub fn halt_holders(&self, functions: &[Bdf]) {
        for guest in self.lock().values_mut() {
            let has_one = guest.vfs.values().any(|held| held.open && functions.contains(&held.function));
            if has_one && guest.kind == KindName::Machine && guest.running {
                guest.halted = Some(Halt::InternalError);
            }
        }
    }

    /// VFs whose adapter has been taken out are open no longer.
    pub fn notice_losses(&self, machine: &SimMachine) {
        let view = machine.snapshot();
        let vfs = view.physical_functions.values().flat_map(|pf| &pf.vfs);
        let vfs: BTreeMap<_, _> = vfs.map(|vf| (vf.address, (vf.held, vf.away))).collect();
        for guest in self.lock().values_mut() {
            let is_by_vfio = guest.kind.uses_vfio();
            for held in guest.vfs.values_mut() {
                held.open &= vfs
                    .get(&held.function)
                    .is_some_and(|(is_held, is_away)| if is_by_vfio { *is_held } else { *is_away });
            }
        }
    }
}

/// A VF that was handed to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub function: Bdf,
    /// Whether the machine has it open. Once its adapter was taken out it has not, whatever comes to sit there.
    pub open: bool,
    /// It is written down for the machine, and has not been plugged into it, or has been unplugged: who was about to do the
    /// other half died.
    pub half: bool,
    /// The guest was asked to let go of it, and does so when it comes to it.
    pub leaving: bool,
    /// Somebody has taken it out of the machine that runs, which starts with it next.
    pub taken_out: bool,
    /// Somebody has taken it out of what the domain starts with next.
    pub edited_out: bool,
}

impl Held {
    fn new(function: Bdf, open: bool) -> Self {
        Self { function, open, half: false, leaving: false, taken_out: false, edited_out: false }
    }
}

#[derive(Debug)]
pub struct ModelHypervisor {
    machine: SimMachine,
    gate: Arc<Gate>,
    guests: Guests,
    inner: Mutex<Inner>,
    /// Who watches what it does.
    camera: OnceLock<Camera>,
    /// A channel was connected, or a machine has lost its own.
    channels_changed: Notify,
}

/// The guest's end of a channel that the daemon has connected.
#[derive(Debug)]
struct Connected {
    /// Until the guest takes it.
    end: Option<UnixStream>,
    /// To be cut off by.
    socket: UnixStream,
}

impl Drop for Connected {
    fn drop(&mut self) {
        // The guest has hung up already, or hears of it.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

#[derive(Debug, Default)]
struct Inner {
    violations: Vec<String>,
    channels: BTreeMap<Name, Connected>,
    events: Option<mpsc::Sender<HypervisorEvent>>,
    /// How often it was asked for its partitions.
    looks: usize,
    /// The look of this number is answered only once somebody lets it.
    slow_look: Option<(usize, Arc<Notify>)>,
    /// While libvirt is away: domains as they were when it went.
    away: Option<BTreeMap<Name, Guest>>,
    /// It is not gone: it takes questions, and does nothing about them until it is restarted.
    hangs: bool,
    /// VFs that others have taken out of domains, and nobody has given back.
    missing: BTreeSet<Owner>,
}

impl ModelHypervisor {
    pub fn new(machine: &SimMachine, gate: Arc<Gate>, guests: Guests) -> Self {
        let (inner, camera, channels_changed) = Default::default();
        Self { machine: machine.clone(), gate, guests, inner, camera, channels_changed }
    }

    pub fn watched_by(&self, camera: Camera) {
        self.camera.set(camera).unwrap();
    }

    /// Those that are partitions.
    pub fn guests(&self) -> BTreeMap<Name, Guest> {
        let mut guests = self.guests.lock().clone();
        guests.retain(|_, guest| !guest.forgotten);
        guests
    }

    /// Whether somebody has this function open, or in a namespace.
    pub fn is_open(&self, function: Bdf) -> bool {
        let guests = self.guests.lock();
        guests
            .values()
            .flat_map(|guest| guest.vfs.values())
            .any(|held| held.open && held.function == function)
    }

    /// All machines.
    pub fn all(&self) -> &Guests {
        &self.guests
    }

    /// [`Guests::halt_holders`].
    pub fn halt_holders(&self, functions: &[Bdf]) {
        self.guests.halt_holders(functions);
    }

    /// Somebody starts a domain, or a namespace is there again. Whether it runs then.
    pub fn started_by_others(&self, partition: &Name) -> bool {
        let mut guests = self.guests.lock();
        let may_start = |guest: &&mut Guest| !guest.running && guest.definition != Definition::Gone;
        let Some(guest) = guests.get_mut(partition).filter(|guest| !guest.forgotten).filter(may_start) else {
            return false;
        };
        if self.open_all(guest).is_err() {
            self.turn_off(partition, guest);
            return false;
        }
        guest.running = true;
        guest.starts += 1;
        self.has_started(partition, guest);
        self.tell(guest.kind, HypervisorEvent::Started { partition: partition.clone() });
        true
    }

    /// Unless it is about a domain, and nobody is there who would tell it.
    fn tell(&self, kind: KindName, event: HypervisorEvent) {
        let inner = self.lock();
        if let Some(events) =
            inner.events.as_ref().filter(|_| kind != KindName::Domain || inner.away.is_none())
        {
            let _ = events.try_send(event);
        }
    }

    /// Whether nobody could do anything to this partition now, or say how it is: libvirt is away, or has no such domain.
    pub fn is_out_of_reach(&self, partition: &Name) -> bool {
        let guests = self.guests.lock();
        let guest = guests.get(partition).filter(|guest| guest.kind == KindName::Domain);
        guest.is_some_and(|guest| guest.definition == Definition::Gone || self.is_away())
    }

    /// Whether libvirt is away.
    pub fn is_away(&self) -> bool {
        self.lock().away.is_some()
    }

    /// VFs that others have taken out of domains, and nobody has given back.
    pub fn missing(&self) -> BTreeSet<Owner> {
        self.lock().missing.clone()
    }

    /// Partitions that are none any more, and have something of ioward's.
    pub fn left_behind(&self) -> Vec<Wrong> {
        let guests = self.guests.lock();
        let left =
            guests.iter().filter(|(_, guest)| guest.forgotten && (guest.channel || !guest.vfs.is_empty()));
        left.map(|(name, guest)| format!("{name} is no partition, and is {guest:?}")).collect()
    }

    /// Whether domains and namespaces run, and how often they were started, partitions or not.
    pub fn runs_of_others(&self) -> BTreeMap<Name, (bool, u32)> {
        let guests = self.guests.lock();
        let others = guests.iter().filter(|(_, guest)| guest.kind != KindName::Machine);
        others.map(|(name, guest)| (name.clone(), (guest.running, guest.starts))).collect()
    }

    /// A guest that starts has all its VFs.
    fn open_all(&self, guest: &mut Guest) -> Result<(), (Bdf, Errno)> {
        let kind = guest.kind;
        for held in guest.vfs.values_mut() {
            self.open(kind, held.function).map_err(|errno| (held.function, errno))?;
            (held.open, held.half, held.taken_out) = (true, false, false);
        }
        Ok(())
    }

    /// Through VFIO, or moved into the namespace.
    fn open(&self, kind: KindName, function: Bdf) -> Result<(), Errno> {
        if kind.uses_vfio() {
            return self.machine.hold(function);
        }
        let holder = Holder::NetworkNamespace { name: None, netdevs: Vec::new(), process: None };
        self.machine.lend(function, holder)
    }

    /// Requests that should never have been made.
    pub fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// The guest's end of its channel, once the daemon has connected it; `None` when its machine has no channel that anybody could
    /// use. Who is not `patient` does not wait for the daemon.
    pub async fn guest_end(&self, partition: &Name, patient: bool) -> Result<Option<UnixStream>, Wrong> {
        let end = async {
            loop {
                let changed = self.channels_changed.notified();
                {
                    let guests = self.guests.lock();
                    let usable = guests.get(partition).is_some_and(|guest| guest.running && guest.channel);
                    let end = self.lock().channels.get_mut(partition).and_then(|channel| channel.end.take());
                    if end.is_some() || !usable || !patient {
                        return end;
                    }
                }
                changed.await;
            }
        };
        let end = tokio::time::timeout(BOUND, end).await;
        end.map_err(|_| {
            let guest = self.guests.lock().get(partition).cloned();
            let connected = self.lock().channels.get(partition).map(|channel| channel.end.is_none());
            format!(
                "nobody connects the channel of {partition}, which is {guest:?}; it was connected, and taken: {connected:?}"
            )
        })
    }

    /// The daemon is dead: its ends of all channels are closed.
    pub fn is_left_alone(&self) {
        self.lock().channels.clear();
        self.channels_changed.notify_waiters();
    }

    /// A guest turns itself off. Whether the daemon is there to hear of it is its own business.
    pub fn ends_by_itself(&self, partition: &Name) {
        let mut guests = self.guests.lock();
        let Some(guest) = guests.get_mut(partition).filter(|guest| guest.running) else { return };
        self.turn_off(partition, guest);
        let why = "the guest turned itself off".to_owned();
        let event = match guest.kind {
            KindName::Namespace => HypervisorEvent::Gone { partition: partition.clone(), why },
            KindName::Machine | KindName::Domain => {
                HypervisorEvent::Ended { partition: partition.clone(), why }
            }
        };
        self.tell(guest.kind, event);
        self.has_ended(partition, guest);
    }

    /// What others have done to a domain while it ran shows now.
    fn has_ended(&self, partition: &Name, guest: &mut Guest) {
        let lost: Vec<_> = guest.vfs.extract_if(.., |_, held| held.edited_out).map(|(vf, _)| vf).collect();
        for vf in lost {
            self.loses(partition, guest.kind, &vf, "virsh edit");
        }
        for (vf, held) in &mut guest.vfs {
            if std::mem::take(&mut held.taken_out) {
                held.half = false;
                self.has_again(&Owner { partition: partition.clone(), vf: vf.clone() });
            }
        }
        if guest.definition == Definition::Transient {
            self.is_gone(partition, guest);
        }
    }

    /// A machine dies, and nobody hears of it.
    pub fn dies_unheard(&self, partition: &Name) {
        if let Some(guest) = self.guests.lock().get_mut(partition) {
            self.turn_off(partition, guest);
        }
    }

    /// Guests do what they were asked to before the daemon died.
    pub fn come_to_it(&self) {
        for (partition, guest) in &mut *self.guests.lock() {
            if guest.leaving {
                self.turn_off(partition, guest);
            }
            for held in guest.vfs.values_mut().filter(|held| held.leaving) {
                self.close(held);
            }
        }
    }

    /// How often it was asked for its partitions.
    pub fn looks(&self) -> usize {
        self.lock().looks
    }

    /// Has the answer to a look, counted from now, wait: what it says is old by then.
    pub fn slow_look(&self, number: usize) -> Arc<Notify> {
        let mut inner = self.lock();
        let answer = Arc::new(Notify::new());
        inner.slow_look = Some((inner.looks + number, Arc::clone(&answer)));
        answer
    }

    /// [`Guests::notice_losses`].
    pub fn notice_losses(&self) {
        self.guests.notice_losses(&self.machine);
    }

    fn turn_off(&self, partition: &Name, guest: &mut Guest) {
        (guest.running, guest.leaving, guest.halted) = (false, false, None);
        self.cut_off(partition);
        for held in guest.vfs.values_mut() {
            self.close(held);
        }
    }

    fn cut_off(&self, partition: &Name) {
        self.lock().channels.remove(partition);
        self.channels_changed.notify_waiters();
    }

    fn close(&self, held: &mut Held) {
        if std::mem::take(&mut held.open) {
            let _ = self.machine.release(held.function);
        }
    }

    async fn pass(&self, partition: &Name, command: &str) -> Result<Answer, HypervisorError> {
        self.gate.dawdle().await;
        self.gate.blows.strike(&self.machine, &self.guests).await;
        if let Some(camera) = self.camera.get() {
            camera.shoot(Moment::BeforeOperation);
        }
        let command = command.to_owned();
        if self.gate.strikes() {
            let why = "it was told to fail".to_owned();
            return Err(HypervisorError::Qmp { partition: partition.clone(), command, why });
        }
        // ioward's own note of a domain takes no libvirt.
        if partition.as_str() != DOMAIN || command == "undefine" {
            return Ok(Answer(None));
        }
        let (partition, what) = (partition.clone(), command);
        if self.is_away() {
            self.gate.finds_no_libvirt();
            return Err(match self.lock().hangs {
                true => hangs(partition, what),
                false => HypervisorError::NoLibvirt("no libvirt daemon listens here".to_owned()),
            });
        }
        match self.gate.asks_libvirt() {
            Libvirt::Answers => Ok(Answer(None)),
            Libvirt::Dies => {
                let why = "libvirt was told to fail, and may have done it".to_owned();
                Ok(Answer(Some(HypervisorError::InDoubt { partition, what, why })))
            }
            Libvirt::Hangs => Err(hangs(partition, what)),
            Libvirt::IsAway => {
                Err(HypervisorError::NoLibvirt("libvirt was told to fail, and is away".to_owned()))
            }
        }
    }

    /// What is done to a domain that is there.
    fn is_there(&self, partition: &Name, guest: &Guest) -> Result<(), HypervisorError> {
        if guest.definition != Definition::Gone {
            return Ok(());
        }
        let (what, why) = ("change it".to_owned(), "libvirt has no such domain any more".to_owned());
        Err(HypervisorError::Domain { partition: partition.clone(), what, why })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn half_way(&self, partition: &Name, half: impl FnOnce(&SimMachine, &mut Guest)) {
        if let Some(camera) = self.camera.get() {
            camera.shoot_guests(|machine, guests| {
                if let Some(guest) = guests.get_mut(partition) {
                    half(machine, guest);
                }
            });
        }
    }

    fn violation(&self, what: String) {
        self.lock().violations.push(format!("hypervisor: {what}"));
    }
}

/// Whoever asks has waited for as long as it does.
fn hangs(partition: Name, what: String) -> HypervisorError {
    HypervisorError::InDoubt { partition, what, why: "libvirt hangs".to_owned() }
}

/// Whether an operation is answered when it is done.
struct Answer(Option<HypervisorError>);

impl Answer {
    fn give<T>(self, value: T) -> Result<T, HypervisorError> {
        self.0.map_or(Ok(value), Err)
    }
}
