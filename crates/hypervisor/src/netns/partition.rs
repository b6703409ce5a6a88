//! A partition as this backend holds it: its record, its channel, and whether its namespace is there.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ioward_model::{KindName, Name, Owner};

use super::{
    channel::{Channel, Teller},
    find::{Identity, Place},
    folder::Folder,
    kernel::Kernel,
    moving::Mover,
    record::{HeldVf, Record},
};
use crate::{HypervisorError, HypervisorEvent, PartitionStatus};

pub(super) struct Partition {
    pub(super) name: Name,
    pub(super) folder: Folder,
    /// Held for the whole of an operation on this partition, but for looking at it.
    pub(super) operation: Arc<tokio::sync::Mutex<()>>,
    now: Mutex<Now>,
}

struct Now {
    record: Record,
    /// The namespace, when it was last looked for.
    present: Option<Identity>,
    channel: Option<Channel>,
}

impl Partition {
    pub(super) fn new(folder: Folder, record: Record) -> Arc<Self> {
        let name = record.name.clone();
        let now = Now { record, present: None, channel: None };
        Arc::new(Self { name, folder, operation: Arc::default(), now: Mutex::new(now) })
    }

    pub(super) fn record(&self) -> Record {
        self.lock().record.clone()
    }

    /// Changes the record, on disk first.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), HypervisorError> {
        let mut now = self.lock();
        let mut record = now.record.clone();
        change(&mut record);
        if record != now.record {
            record.save(&self.folder.record())?;
            now.record = record;
        }
        Ok(())
    }

    pub(super) fn status(&self) -> PartitionStatus {
        let now = self.lock();
        let present = now.present;
        let lacks = now.record.vfs.iter().filter(|vf| present.is_some() && !vf.inside);
        PartitionStatus {
            name: self.name.clone(),
            kind: KindName::Namespace,
            running: present.is_some(),
            halted: None,
            accelerator: None,
            pid: present.and_then(Identity::pid),
            console: None,
            vfs: now.record.vfs.iter().map(|vf| (vf.name.clone(), vf.function)).collect(),
            lacks: lacks.map(|vf| vf.name.clone()).collect(),
            standbys: Vec::new(),
            gone: false,
            channel: now.record.channel,
        }
    }

    pub(super) fn set_present(&self, place: Option<&Place>) {
        self.lock().present = place.map(|place| place.identity);
    }

    /// Whether that was its namespace, when it was last looked for.
    pub(super) fn is_present_as(&self, place: &Place) -> bool {
        self.lock().present.is_some_and(|present| present.is_of(place.identity))
    }

    /// An error about its namespace.
    pub(super) fn error(&self, why: impl Into<String>) -> HypervisorError {
        let namespace = self.lock().record.namespace.to_string();
        HypervisorError::Namespace { partition: self.name.clone(), namespace, why: why.into() }
    }

    /// Has it listen for agents, if it is to have a channel.
    pub(super) fn open_channel(&self, teller: &Teller) -> Result<(), HypervisorError> {
        let mut now = self.lock();
        if now.record.channel && now.channel.is_none() {
            now.channel = Some(Channel::open(&self.folder, &self.name, teller.clone())?);
        }
        Ok(())
    }

    pub(super) fn close_channel(&self) {
        self.lock().channel = None;
        self.folder.remove_socket();
    }

    /// What its channel has; `None` without one.
    pub(super) fn with_channel<T>(&self, look: impl FnOnce(&Channel) -> T) -> Option<T> {
        self.lock().channel.as_ref().map(look)
    }

    /// Moves a VF that it holds into the namespace.
    pub(super) fn move_in<K: Kernel>(&self, mover: &Mover<'_, K>, name: &Name) -> Result<(), String> {
        let record = self.record();
        let vf = record.vf(name).ok_or_else(|| format!("has no VF {name}"))?;
        let change = |change: &dyn Fn(&mut HeldVf)| {
            let changed =
                self.change(|record| record.vfs.iter_mut().filter(|vf| vf.name == *name).for_each(change));
            changed.map_err(|error| format!("gets no VF: {error}"))
        };
        mover.into(&record.namespace, vf, |before| {
            // The name from before the first time: the kernel brings interfaces home under others.
            let before = String::from_utf8(before.to_vec()).ok();
            change(&|vf| vf.before = vf.before.take().or_else(|| before.clone()))
        })?;
        change(&|vf| vf.inside = true)
    }

    /// Takes a VF home.
    pub(super) fn move_home<K: Kernel>(
        &self,
        mover: &Mover<'_, K>,
        vf: &HeldVf,
    ) -> Result<(), HypervisorError> {
        let namespace = self.record().namespace;
        mover.home(&namespace, vf).map_err(|why| self.error(why))?;
        self.change(|record| {
            record.vfs.iter_mut().filter(|held| held.name == vf.name).for_each(|vf| vf.inside = false);
        })
    }

    /// Holds what was told of it against what is now; gives the news, which count as told.
    pub(super) fn news<K: Kernel>(&self, kernel: &K, found: Result<Place, String>) -> Vec<HypervisorEvent> {
        let record = self.record();
        let present = found.as_ref().ok().map(|place| place.identity);
        let (mut news, mut out) = (Vec::new(), Vec::new());
        if record.told != present {
            if record.told.is_some() {
                let why = match &found {
                    Err(why) => format!("its network namespace {why}"),
                    Ok(_) => "its network namespace was made anew".to_owned(),
                };
                news.push(HypervisorEvent::Gone { partition: self.name.clone(), why });
                out.extend(record.vfs.iter().map(|vf| vf.name.clone()));
            }
            if present.is_some() {
                news.push(HypervisorEvent::Started { partition: self.name.clone() });
            }
        } else if present.is_some() {
            for vf in record.vfs.iter().filter(|vf| vf.inside) {
                let why = match kernel.driver(vf.function) {
                    Ok(Some(_)) if kernel.is_home(vf.function) => {
                        "its interface was moved out of the network namespace"
                    }
                    Ok(None) => "its driver was taken from it, and its interface ended with that",
                    Ok(Some(_)) | Err(_) => continue,
                };
                let owner = Owner { partition: self.name.clone(), vf: vf.name.clone() };
                news.push(HypervisorEvent::Detached { owner, why: why.to_owned() });
                out.push(vf.name.clone());
            }
        }
        let noted = self.change(|record| {
            record.told = present;
            record.vfs.iter_mut().filter(|vf| out.contains(&vf.name)).for_each(|vf| vf.inside = false);
        });
        if let Err(error) = noted {
            // Told again after the next look.
            tracing::warn!("{error}");
        }
        news
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        // Its holders leave a whole value behind even when they panic.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
