//! Frames through shared memory, for partitions that are processes: a region with two rings, and a doorbell each way.
//!
//! docs/channel.md draws the region by byte and says what a hostile peer can do and what it can't. A region is used by
//! one [`Endpoint`] at either side, once: who comes later gets a new region, so that nothing of what an endpoint
//! knows has to be read back from memory that the other side can write.
//!
//! Nothing here waits. Where there is nothing to do, [`Endpoint::try_receive`] and [`Endpoint::try_send`] say so, and the
//! doorbell rings when there may be:
//!
//! ```text
//!   loop { try_receive ── None ──> wait until the doorbell is readable ──> clear }
//! ```

mod mapping;
mod ring;
#[cfg(all(test, loom))]
mod ring_loom;

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::atomic::{
        AtomicU32,
        Ordering::{Acquire, Release},
    },
};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use self::{
    mapping::Mapping,
    ring::{Corrupt, Reader, Ring, Writer},
};
use crate::{Frame, FrameError, MAX_FRAME_BYTES};

/// The size of a region.
pub const REGION_BYTES: usize = GUEST_DATA + RING_BYTES;

/// What stands at byte 0: "IW" and the version of the region's layout.
const LAYOUT: u32 = 0x4957_0001;

/// Bytes of records in a ring: a frame of the greatest length and one more fit.
const RING_BYTES: usize = 128 * 1024;

// Where things are, in bytes. What one side writes and what the other writes are in cache lines of their own.
const LAYOUT_AT: usize = 0;
const IMP_CLOSED: usize = 64;
const GUEST_CLOSED: usize = 128;
const IMP_CONTROL: usize = 1024;
const GUEST_CONTROL: usize = 2048;
const IMP_DATA: usize = 4096;
const GUEST_DATA: usize = IMP_DATA + RING_BYTES;

/// Which end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The management partition.
    Imp,
    /// The client partition.
    Guest,
}

/// What one side needs to take part, as it is handed over between processes.
#[derive(Debug)]
pub struct EndFds {
    /// The region: a sealed memfd of [`REGION_BYTES`].
    pub memory: OwnedFd,
    /// Readable after the other side has rung: an epoll instance that watches the eventfd which the other side writes.
    pub doorbell_in: OwnedFd,
    /// What this side rings with: an eventfd.
    pub doorbell_out: OwnedFd,
}

/// Why nothing can go through a region.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// What was handed over is no region of a channel.
    #[error("what was handed over as the channel's shared memory is none")]
    NoRegion(#[source] io::Error),
    /// The layout of another version.
    #[error("the shared memory has layout {found:#010x}; this side knows {LAYOUT:#010x}")]
    Layout {
        /// What stands where the layout's version should.
        found: u32,
    },
    /// The other side wrote what no honest one writes. The region is of no more use.
    #[error("the other side has corrupted the shared memory")]
    Corrupt,
    /// The other side has left.
    #[error("the other side has closed the channel")]
    Closed,
    /// A doorbell does not work.
    #[error("the channel's doorbell does not work")]
    Doorbell(#[source] io::Error),
}

impl From<Corrupt> for SharedError {
    fn from(Corrupt: Corrupt) -> Self {
        Self::Corrupt
    }
}

/// Makes a region: what the management partition needs, and what the client partition needs.
///
/// Each side hears the other through an epoll instance of its own, edge-triggered, and nobody ever reads an eventfd.
/// That is so because a file's status is shared by all who hold it: a side could make the other's reads and writes of
/// one eventfd block. As it is, nobody but the one who writes an eventfd holds it.
///
/// # Errors
/// When the kernel has no more descriptors or memory for it.
pub fn create() -> io::Result<(EndFds, EndFds)> {
    let memory = mapping::create_memory(REGION_BYTES)?;
    word(Mapping::new(memory.as_fd(), REGION_BYTES)?.words(), LAYOUT_AT).store(LAYOUT, Release);
    let (imp_hears, guest_rings) = doorbell()?;
    let (guest_hears, imp_rings) = doorbell()?;
    let imp = EndFds { memory: memory.try_clone()?, doorbell_in: imp_hears, doorbell_out: imp_rings };
    Ok((imp, EndFds { memory, doorbell_in: guest_hears, doorbell_out: guest_rings }))
}

/// What to hear a doorbell with, and what to ring it with.
fn doorbell() -> io::Result<(OwnedFd, OwnedFd)> {
    let rings = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let hears = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&hears, &rings, epoll::EventData::new_u64(0), edges)?;
    Ok((hears, rings))
}

/// One side of a channel through shared memory. Dropping it tells the other side.
#[derive(Debug)]
pub struct Endpoint {
    side: Side,
    mapping: Mapping,
    doorbell_in: OwnedFd,
    doorbell_out: OwnedFd,
    writer: Writer,
    reader: Reader,
}

impl Endpoint {
    /// The end of a region that nobody has used at this side yet.
    ///
    /// # Errors
    /// When what was handed over is no region, or one of another version.
    pub fn from_fds(side: Side, fds: EndFds) -> Result<Self, SharedError> {
        let EndFds { memory, doorbell_in, doorbell_out } = fds;
        let mapping = Mapping::new(memory.as_fd(), REGION_BYTES).map_err(SharedError::NoRegion)?;
        match word(mapping.words(), LAYOUT_AT).load(Acquire) {
            LAYOUT => {}
            found => return Err(SharedError::Layout { found }),
        }
        Ok(Self {
            side,
            mapping,
            doorbell_in,
            doorbell_out,
            writer: Writer::default(),
            reader: Reader::default(),
        })
    }

    /// Sends a frame; false when there is no room for it now, and the doorbell will ring when there is more.
    ///
    /// # Errors
    /// When the other side has left or has corrupted the region.
    pub fn try_send(&mut self, frame: &Frame) -> Result<bool, SharedError> {
        if self.other_closed() {
            return Err(SharedError::Closed);
        }
        let words = self.mapping.words();
        let mut rung = Ok(());
        let sent = self.writer.write(&ring(words, self.side.other()), &frame.to_bytes(), || {
            rung = ring_doorbell(&self.doorbell_out);
        })?;
        rung.map(|()| sent)
    }

    /// The next frame, or why what the other side sent as one is none; `None` when there is nothing now, and the
    /// doorbell will ring when there is.
    ///
    /// # Errors
    /// When the other side has left and all that it sent has been read, or when it has corrupted the region.
    pub fn try_receive(&mut self) -> Result<Option<Result<Frame, FrameError>>, SharedError> {
        // Looked at first: what was sent before it closed is still there then.
        let is_closed = self.other_closed();
        let words = self.mapping.words();
        let mut rung = Ok(());
        let record = self.reader.read(&ring(words, self.side), MAX_FRAME_BYTES, || {
            rung = ring_doorbell(&self.doorbell_out);
        })?;
        rung?;
        match record {
            Some(bytes) => Ok(Some(Frame::parse(&bytes))),
            None if is_closed => Err(SharedError::Closed),
            None => Ok(None),
        }
    }

    /// Takes note that the doorbell has rung. To be called before the next try, not after it.
    ///
    /// # Errors
    /// When it is no doorbell.
    pub fn clear(&self) -> Result<(), SharedError> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.doorbell_in, &mut events, Some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(SharedError::Doorbell(errno.into())),
        }
    }

    fn other_closed(&self) -> bool {
        word(self.mapping.words(), self.side.other().closed_at()).load(Acquire) != 0
    }
}

impl AsFd for Endpoint {
    /// The doorbell: readable when it has rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell_in.as_fd()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        word(self.mapping.words(), self.side.closed_at()).store(1, Release);
        // Who does not hear it sees it when it looks next.
        let _ = ring_doorbell(&self.doorbell_out);
    }
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Imp => Self::Guest,
            Self::Guest => Self::Imp,
        }
    }

    fn closed_at(self) -> usize {
        match self {
            Self::Imp => IMP_CLOSED,
            Self::Guest => GUEST_CLOSED,
        }
    }
}

/// The ring that `reader` reads.
fn ring(words: &[AtomicU32], reader: Side) -> Ring<'_, AtomicU32> {
    let (control, data) = match reader {
        Side::Imp => (IMP_CONTROL, IMP_DATA),
        Side::Guest => (GUEST_CONTROL, GUEST_DATA),
    };
    Ring {
        tail: word(words, control),
        head: word(words, control + 64),
        reader_waits: word(words, control + 128),
        writer_waits: word(words, control + 192),
        data: &words[data / 4..(data + RING_BYTES) / 4],
    }
}

/// The word at a byte of the region. Only the constants of this file come here.
fn word(words: &[AtomicU32], byte: usize) -> &AtomicU32 {
    &words[byte / 4]
}

fn ring_doorbell(doorbell: &OwnedFd) -> Result<(), SharedError> {
    match rustix::io::write(doorbell, &1_u64.to_ne_bytes()) {
        // Full: it has rung so often that nobody can have missed it.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(errno) => Err(SharedError::Doorbell(errno.into())),
    }
}
