//! [`Disk`]: a disk that records its writes in order, and fails on demand.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

use ioward_store::{Contents, MemoryFile, StateFile, StorageBackend, StoreError};

/// An operation on the disk.
#[derive(Clone, Debug)]
pub enum Deed {
    Write(u64, Vec<u8>),
    SetLength(u64),
    /// Everything before this is certainly on the disk.
    Sync,
}

/// Clones are handles on the same disk.
#[derive(Clone, Debug, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    file: MemoryFile,
    deeds: Vec<Deed>,
    /// The number of writes that still succeed.
    writes_left: Option<usize>,
}

impl Disk {
    pub fn with(file: &MemoryFile) -> Self {
        Self(Arc::new(Mutex::new(Inner { file: file.copy(), ..Inner::default() })))
    }

    /// The file as it is now, including all writes.
    pub fn file(&self) -> MemoryFile {
        self.lock().file.copy()
    }

    /// The operations since the last call.
    pub fn deeds(&self) -> Vec<Deed> {
        std::mem::take(&mut self.lock().deeds)
    }

    /// The disk is full after this many writes and changes of length; `None` makes room again.
    pub fn full_after(&self, writes: Option<usize>) {
        self.lock().writes_left = writes;
    }

    pub fn open(&self) -> Result<(StateFile, Contents), StoreError> {
        let disk = self.clone();
        StateFile::open("state.redb".into(), move || Ok(disk.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    fn take_room(&mut self) -> io::Result<()> {
        match &mut self.writes_left {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Deed {
    pub fn done_to(&self, file: &MemoryFile) {
        match self {
            Self::Write(offset, content) => file.write(*offset, content).unwrap(),
            Self::SetLength(length) => file.set_len(*length).unwrap(),
            Self::Sync => {}
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.lock().file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.lock().file.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut inner = self.lock();
        inner.take_room()?;
        inner.deeds.push(Deed::SetLength(length));
        inner.file.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.lock().deeds.push(Deed::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, content: &[u8]) -> io::Result<()> {
        let mut inner = self.lock();
        inner.take_room()?;
        inner.deeds.push(Deed::Write(offset, content.to_vec()));
        inner.file.write(offset, content)
    }
}
