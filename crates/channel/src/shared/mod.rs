//! Frames through shared memory, for partitions that are processes: a region with two rings, and a doorbell each way.
//!
//! docs/channel.md draws the region by byte and says what a hostile peer can and can't do. Each side uses a region
//! with one [`Endpoint`], once; its successor gets a new region. So an endpoint never has to read its own state
//! back from memory that the other side can write.
//!
//! Nothing here waits. [`Endpoint::try_receive`] and [`Endpoint::try_send`] say when there is nothing to do, and
//! the doorbell rings when there may be again:
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

/// Size of a region.
pub const REGION_BYTES: usize = GUEST_DATA + RING_BYTES;

/// The word at byte 0: "IW" and the version of the region's layout.
const LAYOUT: u32 = 0x4957_0001;

/// Bytes of records in a ring: a frame of the greatest length and one more fit.
const RING_BYTES: usize = 128 * 1024;

// Offsets in bytes. Each side's words are in cache lines of their own.
const LAYOUT_AT: usize = 0;
const IMP_CLOSED: usize = 64;
const GUEST_CLOSED: usize = 128;
const IMP_CONTROL: usize = 1024;
const GUEST_CONTROL: usize = 2048;
const IMP_DATA: usize = 4096;
const GUEST_DATA: usize = IMP_DATA + RING_BYTES;

/// One end of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The management partition.
    Imp,
    /// The client partition.
    Guest,
}

/// The descriptors of one side, as they are passed between processes.
#[derive(Debug)]
pub struct EndFds {
    /// The region: a sealed memfd of [`REGION_BYTES`].
    pub memory: OwnedFd,
    /// Readable after the other side has rung: an epoll instance that watches the eventfd which the other side writes.
    pub doorbell_in: OwnedFd,
    /// Rings the other side: an eventfd.
    pub doorbell_out: OwnedFd,
}

/// Why a region does not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The descriptors are not a channel's region.
    #[error("what was handed over as the channel's shared memory is none")]
    NoRegion(#[source] io::Error),
    /// The layout of another version.
    #[error("the shared memory has layout {found:#010x}; this side knows {LAYOUT:#010x}")]
    Layout {
        /// The word found in place of the layout's version.
        found: u32,
    },
    /// The other side wrote what no honest one would. The region is of no more use.
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

/// Makes a region: the management partition's end, and the client partition's.
///
/// Each side hears the other through an epoll instance of its own, edge-triggered, and nobody ever reads an
/// eventfd. The reason: a file's status flags are shared by all its holders, so either holder of an eventfd could
/// make the other's reads and writes block. This way, only its writer holds an eventfd.
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

/// The hearing and the ringing end of a doorbell.
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
    /// Opens one end of a region, which this side has not used before.
    ///
    /// # Errors
    /// When the descriptors are not a region, or one of another version.
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

    /// Sends a frame; false when it does not fit now: the doorbell rings when there is more room.
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

    /// The next frame, or why the other side's record is not a frame; `None` when there is nothing now: the
    /// doorbell rings when there is.
    ///
    /// # Errors
    /// When the other side has left and everything it sent has been read, or when it has corrupted the region.
    pub fn try_receive(&mut self) -> Result<Option<Result<Frame, FrameError>>, SharedError> {
        // Checked first: frames sent before the close are still there then.
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

    /// Clears the doorbell. Call it before the next try, not after it.
    ///
    /// # Errors
    /// When it is not a doorbell.
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
    /// The doorbell: readable once it has rung.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.doorbell_in.as_fd()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        word(self.mapping.words(), self.side.closed_at()).store(1, Release);
        // If the ring fails, the other side notices at its next look.
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
        // Full: with that many rings, the other side can't have missed it.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(errno) => Err(SharedError::Doorbell(errno.into())),
    }
}
