//! A partition that is a domain, as the hypervisor holds it: its record, and the one task that has it looked at when something has
//! changed, and tells the news.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use ioward_model::{Name, Owner};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::AbortHandle,
    time::sleep,
};

use super::{
    Shared,
    known::{Expected, News},
    look::{Seen, Trouble, look},
    record::Record,
};
use crate::{
    HypervisorError, HypervisorEvent,
    file::{self, io_error},
    libvirt::{LibvirtError, Uuid},
    lock::lock,
};

/// Between two looks at a domain that can't be seen although libvirt is there.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// News of one partition that may wait until somebody listens. The oldest go first.
const MAX_NEWS: usize = 64;

/// Where events go; nowhere while nobody has asked for them.
pub(super) type Listener = Arc<Mutex<Option<mpsc::Sender<HypervisorEvent>>>>;

/// A partition that is a domain.
pub(super) struct Partition {
    pub(super) name: Name,
    folder: PathBuf,
    /// Where its channel is.
    pub(super) socket: PathBuf,
    /// Held for the whole of an operation on this partition, except for stopping it and looking at it.
    pub(super) operation: Arc<tokio::sync::Mutex<()>>,
    record: watch::Sender<Record>,
    /// One look at a time, so that an older one is not taken for the newer.
    looking: tokio::sync::Mutex<()>,
    expected: Mutex<Vec<Expected>>,
    /// In order, until somebody has been told.
    news: Mutex<VecDeque<News>>,
    /// Something has changed, or is to be told.
    stale: Notify,
    to_tell: Notify,
}

/// Held while something is expected: then it is news to nobody.
pub(super) struct Expecting<'a>(&'a Partition, Expected);

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        let mut expected = lock(&self.0.expected);
        if let Some(one) = expected.iter().position(|it| *it == self.1) {
            expected.swap_remove(one);
        }
    }
}

impl Partition {
    fn new(folders: &Folders, record: Record) -> Arc<Self> {
        let name = record.partition.clone();
        Arc::new(Self {
            folder: folders.record(&name),
            socket: folders.socket(&name),
            name,
            operation: Arc::default(),
            record: watch::Sender::new(record),
            looking: tokio::sync::Mutex::default(),
            expected: Mutex::default(),
            news: Mutex::default(),
            stale: Notify::new(),
            to_tell: Notify::new(),
        })
    }

    pub(super) fn record(&self) -> Record {
        self.record.borrow().clone()
    }

    /// Waits until the record is like that.
    pub(super) async fn wait_until(&self, is_it: impl FnMut(&Record) -> bool) {
        // The sender is in `self`, so that there is nothing but a change to wait for.
        let _ = self.record.subscribe().wait_for(is_it).await;
    }

    /// Changes the record, and writes it down. What can't be written down is known all the same, until this daemon ends.
    pub(super) fn change(&self, change: impl FnOnce(&mut Record)) -> Result<(), HypervisorError> {
        let mut saved = Ok(());
        self.record.send_if_modified(|record| {
            let before = record.clone();
            change(record);
            let changed = *record != before;
            if changed {
                saved = record.save(&self.folder.join(RECORD));
            }
            changed
        });
        saved
    }

    /// Changes the record while nobody looks: a look that has begun before would note what it found by the record that was.
    pub(super) async fn change_between_looks(
        &self,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), HypervisorError> {
        let _looking = self.looking.lock().await;
        self.change(change)
    }

    /// Looks at the domain and notes what it is like. What of that is news, and nobody expected, is told.
    pub(super) async fn look(&self, shared: &Shared) -> Result<Seen, Trouble> {
        let _looking = self.looking.lock().await;
        let record = self.record();
        let seen = shared.line.ask(|connection| look(connection, &shared.processes, &record)).await?;
        let before = record.known;
        let news = seen.known.news_since(&before, &lock(&self.expected));
        if let Err(error) = self.change(|record| record.known = seen.known.clone()) {
            tracing::error!("{error}: {:?}", std::error::Error::source(&error));
        }
        self.tell(news);
        Ok(seen)
    }

    /// Tells news, after those before it, as soon as somebody listens.
    fn tell(&self, news: impl IntoIterator<Item = News>) {
        let mut waiting = lock(&self.news);
        waiting.extend(news);
        let too_many = waiting.len().saturating_sub(MAX_NEWS);
        waiting.drain(..too_many);
        self.to_tell.notify_one();
    }

    /// Tells a new listener what it has to know: what nobody was told yet, and that the domain is gone, if it is.
    pub(super) fn tell_anew(&self) {
        let is_told = lock(&self.news).iter().any(|news| matches!(news, News::Gone { .. }));
        let is_gone = !self.record.borrow().known.there && !is_told;
        self.tell(is_gone.then(News::gone));
    }

    /// Has it looked at soon.
    pub(super) fn is_stale(&self) {
        self.stale.notify_one();
    }

    /// While what is returned is kept, this is not told.
    pub(super) fn expect(&self, what: Expected) -> Expecting<'_> {
        lock(&self.expected).push(what.clone());
        Expecting(self, what)
    }

    /// Something that could not be done to its domain.
    pub(super) fn failed(&self, what: &str, why: impl std::fmt::Display) -> HypervisorError {
        let what = format!("{what} domain {}", self.record.borrow().known.name);
        HypervisorError::Domain { partition: self.name.clone(), what, why: why.to_string() }
    }

    /// The same where libvirt was asked, and has not answered: it may be done all the same.
    pub(super) fn in_doubt(&self, what: &str, why: impl std::fmt::Display) -> HypervisorError {
        let what = format!("{what} domain {}", self.record.borrow().known.name);
        HypervisorError::InDoubt { partition: self.name.clone(), what, why: why.to_string() }
    }

    /// Something that libvirt was asked to do to its domain, and has not done, or not answered.
    pub(super) fn not_done(&self, what: &str, error: &LibvirtError) -> HypervisorError {
        if error.is_unanswered() { self.in_doubt(what, error) } else { self.failed(what, error) }
    }

    /// Looks when it is told to, and tells the news.
    async fn watch(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            tokio::select! {
                () = self.stale.notified() => self.look_at_last(&shared).await,
                () = self.to_tell.notified() => {}
            }
            while let Some((listener, news)) = self.next_news(&shared) {
                // Whoever listened may be gone by now.
                let _ = listener.send(event(&self.name, news)).await;
            }
        }
    }

    fn next_news(&self, shared: &Shared) -> Option<(mpsc::Sender<HypervisorEvent>, News)> {
        let listener = lock(&shared.listener).clone()?;
        Some((listener, lock(&self.news).pop_front()?))
    }

    /// Looks until it has seen it, or there is nobody to show it: then it is looked at when there is.
    async fn look_at_last(&self, shared: &Shared) {
        while let Err(trouble) = self.look(shared).await {
            if !shared.line.is_connected() {
                return;
            }
            tracing::warn!("partition {}: {trouble}", self.name);
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Removes all that is its own on the disk.
    pub(super) fn remove_files(&self) -> Result<(), HypervisorError> {
        self.remove_socket();
        fs::remove_dir_all(&self.folder).map_err(io_error("remove", &self.folder))
    }

    /// Removes the socket of its channel, which QEMU leaves behind.
    pub(super) fn remove_socket(&self) {
        file::remove(&self.socket);
    }
}

fn event(partition: &Name, news: News) -> HypervisorEvent {
    let partition = partition.clone();
    tracing::info!("partition {partition}: {news:?}");
    match news {
        News::Ended { why } => HypervisorEvent::Ended { partition, why },
        News::Started => HypervisorEvent::Started { partition },
        News::Gone { why } => HypervisorEvent::Gone { partition, why },
        News::Detached { vf, why } => HypervisorEvent::Detached { owner: Owner { partition, vf }, why },
    }
}

/// The name of a record in its partition's folder.
const RECORD: &str = "domain.json";

/// Where things are, under the runtime folder.
///
/// ```text
/// RUNTIME/domains/NAME/domain.json   0700   the record
/// RUNTIME/channels/NAME.sock         0700   the management partition's end of the channel: made by libvirt, for QEMU
/// ```
/// Channels have one folder for all, which is there before this daemon is (packaging/tmpfiles.conf): libvirt starts domains when
/// the host has booted, and one whose socket can't be made does not start.
#[derive(Clone, Debug)]
pub(super) struct Folders {
    records: PathBuf,
    channels: PathBuf,
}

impl Folders {
    pub(super) fn new(runtime_dir: &Path) -> Self {
        Self { records: runtime_dir.join("domains"), channels: runtime_dir.join("channels") }
    }

    fn record(&self, partition: &Name) -> PathBuf {
        self.records.join(partition.as_str())
    }

    fn socket(&self, partition: &Name) -> PathBuf {
        self.channels.join(format!("{partition}.sock"))
    }

    /// Makes them, for nobody but this user: whoever can make a socket there can be taken for a guest.
    pub(super) fn create(&self) -> Result<(), HypervisorError> {
        for folder in [&self.records, &self.channels] {
            create(folder)?;
        }
        Ok(())
    }

    /// The partitions that are recorded. A record that can't be understood is left alone and logged.
    fn load_all(&self) -> Result<Vec<Arc<Partition>>, HypervisorError> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.records).map_err(io_error("read", &self.records))? {
            let path = entry.map_err(io_error("read", &self.records))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()?.parse::<Name>().ok()) else {
                continue;
            };
            match Record::load(&path.join(RECORD)) {
                Ok(record) if record.partition == name => all.push(Partition::new(self, record)),
                Ok(record) => {
                    tracing::error!("{} speaks of {}; it is left alone", path.display(), record.partition);
                }
                Err(error) => {
                    let source = std::error::Error::source(&error);
                    tracing::error!("partition {name} is left alone: {error}: {source:?}");
                }
            }
        }
        Ok(all)
    }
}

fn create(folder: &Path) -> Result<(), HypervisorError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io_error("create", folder))
}

/// All partitions that are domains.
#[derive(Clone, Default)]
pub(super) struct Partitions(Arc<Mutex<BTreeMap<Name, Watched>>>);

struct Watched {
    partition: Arc<Partition>,
    watcher: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

impl Partitions {
    /// Those that are recorded.
    pub(super) fn load(&self, shared: &Arc<Shared>) -> Result<(), HypervisorError> {
        for partition in shared.folders.load_all()? {
            self.add(partition, shared);
        }
        Ok(())
    }

    /// Makes one, on disk first.
    pub(super) fn create(&self, record: Record, shared: &Arc<Shared>) -> Result<(), HypervisorError> {
        let partition = Partition::new(&shared.folders, record.clone());
        create(&partition.folder)?;
        record.save(&partition.folder.join(RECORD))?;
        self.add(partition, shared);
        Ok(())
    }

    fn add(&self, partition: Arc<Partition>, shared: &Arc<Shared>) {
        let watcher = tokio::spawn(Arc::clone(&partition).watch(Arc::clone(shared))).abort_handle();
        lock(&self.0).insert(partition.name.clone(), Watched { partition, watcher });
    }

    pub(super) fn remove(&self, name: &Name) {
        lock(&self.0).remove(name);
    }

    /// Lets go of all of them: they stay recorded.
    pub(super) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(super) fn get(&self, name: &Name) -> Option<Arc<Partition>> {
        lock(&self.0).get(name).map(|watched| Arc::clone(&watched.partition))
    }

    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        lock(&self.0).values().map(|watched| Arc::clone(&watched.partition)).collect()
    }

    /// Those that are this domain: one, if any.
    pub(super) fn with(&self, uuid: Uuid) -> Option<Arc<Partition>> {
        self.all().into_iter().find(|partition| partition.record.borrow().uuid == uuid)
    }
}
