//! A partition as the hypervisor holds it: its record, its machine while it runs, and the one task that sees the end of
//! that machine.
//!
//! ```text
//!              start                          process gone
//!   stopped ──────────> running (Machine) ────────────────────> stopped
//!      │                   │  stop asks for it; the guest, a        ^
//!      │                   │  signal or a crash bring it too        │
//!      └─ define, attach,  └─ attach, detach, channel               │
//!         detach: record      record and QMP                 Partition::watch
//! ```

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use ioward_model::{KindName, Name};
use tokio::{sync::mpsc, time::sleep};

use super::{folder::Folder, machine::Machine, record::Record, tap::Taps};
use crate::{HypervisorError, HypervisorEvent, PartitionStatus, cgroup, lock::lock};

/// Between two looks at the size of a running machine's logs.
const LOOK_AT_LOGS: Duration = Duration::from_secs(5);

/// Where events go; nowhere while nobody has asked for them.
pub(super) type Listener = Arc<Mutex<Option<mpsc::Sender<HypervisorEvent>>>>;

pub(super) struct Partition {
    pub(super) name: Name,
    pub(super) folder: Folder,
    /// Held for the whole of an operation on this partition, except for stopping it and looking at it.
    pub(super) operation: Arc<tokio::sync::Mutex<()>>,
    now: Mutex<Now>,
}

struct Now {
    record: Record,
    machine: Option<Arc<Machine>>,
}

impl Partition {
    pub(super) fn new(folder: Folder, record: Record) -> Arc<Self> {
        let name = record.spec.name.clone();
        Arc::new(Self {
            name,
            folder,
            operation: Arc::default(),
            now: Mutex::new(Now { record, machine: None }),
        })
    }

    pub(super) fn record(&self) -> Record {
        lock(&self.now).record.clone()
    }

    /// Changes the record, on disk first.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), HypervisorError> {
        let mut now = lock(&self.now);
        let mut record = now.record.clone();
        change(&mut record);
        record.save(&self.folder.record())?;
        now.record = record;
        Ok(())
    }

    pub(super) fn machine(&self) -> Option<Arc<Machine>> {
        lock(&self.now).machine.clone()
    }

    pub(super) fn set_machine(&self, machine: Arc<Machine>) {
        lock(&self.now).machine = Some(machine);
    }

    pub(super) fn status(&self) -> PartitionStatus {
        let now = lock(&self.now);
        let machine = now.machine.as_ref();
        PartitionStatus {
            name: self.name.clone(),
            running: machine.is_some(),
            halted: machine.and_then(|machine| machine.halted()),
            accelerator: machine.and_then(|machine| machine.accelerator()),
            pid: machine.map(|machine| machine.process().pid()),
            console: Some(self.folder.console()),
            kind: KindName::Machine,
            vfs: now.record.vfs.iter().map(|vf| (vf.name.clone(), vf.function)).collect(),
            lacks: Vec::new(),
            standbys: now.record.standbys.iter().map(|standby| standby.name.clone()).collect(),
            gone: false,
            channel: now.record.channel,
        }
    }

    /// Removes what a machine that is gone has left.
    pub(super) async fn clear(&self, taps: &Taps) {
        self.folder.clear();
        for standby in &self.record().standbys {
            taps.remove(standby).await;
        }
    }

    /// Waits for the machine's end, clears up after it and tells about it if nobody had asked for it. Meanwhile, tells when it halts
    /// or goes on.
    pub(super) async fn watch(self: Arc<Self>, machine: Arc<Machine>, listener: Listener, taps: Taps) {
        loop {
            let is_due = tokio::select! {
                () = machine.process().ended() => break,
                () = machine.stirred() => true,
                () = sleep(LOOK_AT_LOGS) => {
                    self.folder.cut_logs();
                    // What it says meanwhile is heard.
                    !machine.is_connected()
                }
            };
            if !is_due {
                continue;
            }
            let is_news = tokio::select! {
                biased;
                () = machine.process().ended() => break,
                is_news = machine.look() => is_news,
            };
            if is_news {
                tell(&listener, HypervisorEvent::Halted { partition: self.name.clone() }).await;
            }
        }
        let end = machine.last_words().await;
        let expected = machine.end_is_expected();
        self.clear(&taps).await;
        cgroup::remove(&cgroup::of_partition(&self.name));
        lock(&self.now).machine = None;
        machine.set_gone(end.clone());
        if expected {
            return;
        }
        tracing::info!("partition {} ended: {}", self.name, end.why);
        tell(&listener, HypervisorEvent::Ended { partition: self.name.clone(), why: end.why }).await;
    }
}

async fn tell(listener: &Listener, event: HypervisorEvent) {
    let sender = lock(listener).clone();
    if let Some(sender) = sender {
        // Whoever listened may be gone by now.
        let _ = sender.send(event).await;
    }
}
