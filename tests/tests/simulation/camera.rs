//! [`Camera`]: while on, it takes a picture of the world at every storage sync, which is on both sides of every
//! step, and at every operation of the machine or the hypervisor: before it, and in the middle of it if it has one.
//!
//! A picture is a world whose daemon has just died: the bytes on the disk, the machine, and the hypervisor's
//! guests, each copied. It is exactly what a daemon that is stopped there leaves behind; the filmed one continues.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use ioward_fabric::sim::SimMachine;
use ioward_model::{Name, VfSettings};
use ioward_store::{MemoryFile, StorageBackend};

use crate::{
    hypervisor::{Guest, Guests},
    ledger::Ledger,
};

/// The moment of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Before the sync of a commit: writes since the previous sync are lost.
    BeforeSync,
    /// After the sync, before anybody is told. Each step is recorded before and after it is carried out: this is
    /// the boundary between two steps, or the beginning of one.
    AfterSync,
    /// An operation of the machine is about to begin, in the middle of a step.
    BeforeOperation,
    /// It has been partly done.
    HalfWay,
}

/// A world whose daemon has just died.
pub struct Picture {
    pub moment: Moment,
    pub machine: SimMachine,
    pub guests: BTreeMap<Name, Guest>,
    pub disk: MemoryFile,
    /// How many changes guests had been told of.
    pub told: usize,
}

/// A camera. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Camera(Arc<Filmed>);

#[derive(Debug)]
struct Filmed {
    machine: SimMachine,
    guests: Guests,
    disk: Mutex<Disk>,
    ledger: Ledger,
    pictures: Mutex<Option<Vec<Picture>>>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.moment.fmt(f)
    }
}

impl Camera {
    pub fn new(machine: &SimMachine, guests: &Guests, disk: &Disk, ledger: &Ledger) -> Self {
        let (machine, guests, ledger) = (machine.clone(), guests.clone(), ledger.clone());
        let (disk_of_now, pictures) = Default::default();
        let camera = Self(Arc::new(Filmed { machine, guests, disk: disk_of_now, ledger, pictures }));
        camera.films(disk);
        camera
    }

    /// From now on this is the disk in its pictures.
    pub fn films(&self, disk: &Disk) {
        disk.lock().camera = Arc::downgrade(&self.0);
        *self.0.disk.lock().unwrap_or_else(PoisonError::into_inner) = disk.clone();
    }

    pub fn start(&self) {
        *self.lock() = Some(Vec::new());
    }

    pub fn stop(&self) -> Vec<Picture> {
        self.lock().take().unwrap_or_default()
    }

    pub fn is_on(&self) -> bool {
        self.lock().is_some()
    }

    /// Takes a picture of the world as it is.
    pub fn shoot(&self, moment: Moment) {
        if self.is_on() {
            self.keep(self.picture(moment));
        }
    }

    /// Takes a picture of the world with an operation of its machine half done.
    pub async fn shoot_machine(&self, half: impl AsyncFnOnce(&SimMachine)) {
        if self.is_on() {
            let picture = self.picture(Moment::HalfWay);
            half(&picture.machine).await;
            self.keep(picture);
        }
    }

    /// Takes a picture of the world with an operation of its hypervisor half done.
    pub fn shoot_guests(&self, half: impl FnOnce(&SimMachine, &mut BTreeMap<Name, Guest>)) {
        if self.is_on() {
            let mut picture = self.picture(Moment::HalfWay);
            half(&picture.machine, &mut picture.guests);
            self.keep(picture);
        }
    }

    /// All of it at one moment, though guests act beside whoever takes the picture: nothing is written while the machine is copied.
    fn picture(&self, moment: Moment) -> Picture {
        let filmed = &self.0;
        // What a guest was told before must be on this disk.
        let told = filmed.ledger.told();
        let disk = filmed.disk.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let disk = disk.lock();
        let guests = filmed.guests.lock();
        let file = if moment == Moment::BeforeSync { &disk.synced } else { &disk.live };
        Picture { moment, machine: filmed.machine.copy(), guests: guests.clone(), disk: file.copy(), told }
    }

    fn keep(&self, picture: Picture) {
        if let Some(pictures) = &mut *self.lock() {
            pictures.push(picture);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Vec<Picture>>> {
        self.0.pictures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The single settings of a change, and all but the last: the states in which it can be interrupted.
pub fn halves(change: &VfSettings) -> Vec<VfSettings> {
    let serde_json::Value::Object(all) = serde_json::to_value(change).unwrap() else { return Vec::new() };
    let first =
        |count: usize| all.iter().take(count).map(|(key, value)| (key.clone(), value.clone())).collect();
    let parts = [1, all.len().saturating_sub(1)];
    let parts: std::collections::BTreeSet<_> =
        parts.into_iter().filter(|part| (1..all.len()).contains(part)).collect();
    parts
        .into_iter()
        .map(|part| serde_json::from_value(serde_json::Value::Object(first(part))).unwrap())
        .collect()
}

/// The disk under the state: all writes, and the synced ones. Clones are handles on the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    live: MemoryFile,
    synced: MemoryFile,
    camera: Weak<Filmed>,
    /// The number of writes that still fit.
    room: Option<u32>,
}

impl Inner {
    fn take_room(&mut self) -> io::Result<()> {
        match &mut self.room {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(room) => {
                *room -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Disk {
    /// A disk with a file on it.
    pub fn with(file: &MemoryFile) -> Self {
        let inner = Inner { live: file.copy(), synced: file.copy(), camera: Weak::new(), room: None };
        Self(Arc::new(Mutex::new(inner)))
    }

    /// The disk is full after this many writes; `None` makes room again.
    pub fn full_after(&self, writes: Option<u32>) {
        self.lock().room = writes;
    }

    /// All writes so far.
    pub fn file(&self) -> MemoryFile {
        self.lock().live.copy()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.lock().live.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().live.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.take_room()?;
        inner.live.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        let camera = self.lock().camera.upgrade().map(Camera);
        if let Some(camera) = &camera {
            camera.shoot(Moment::BeforeSync);
        }
        let mut inner = self.lock();
        inner.synced = inner.live.copy();
        drop(inner);
        if let Some(camera) = camera {
            camera.shoot(Moment::AfterSync);
        }
        Ok(())
    }

    fn write(&self, offset: u64, content: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.take_room()?;
        inner.live.write(offset, content)
    }
}
