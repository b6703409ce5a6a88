//! One ring: records from one writer to one reader, in memory that either may scribble over.
//!
//! A record is a word with its length in bytes, then its bytes in whole words. Positions count words from the ring's
//! beginning and wrap at 2^32; a position's place in `data` is its remainder by the number of words there, a power of
//! two.
//!
//! ```text
//!            head ──────────── tail            head: the reader has taken everything before it; only it moves it
//!   ┌─────────┬────────────────┬─────────┐     tail: everything before it has been written; only the writer moves it
//!   │  free   │ records        │  free   │
//!   └─────────┴────────────────┴─────────┘
//! ```
//!
//! Each side keeps its own position to itself and believes the other's only as far as it makes sense. What is read is
//! copied out before it is looked at, and a length is read once. Nothing here blocks, and nothing loops for longer
//! than a record has words.
//!
//! **Nobody sleeps through a wake-up.** Who finds nothing to do says that it waits, then looks once more; who has done
//! something looks afterwards whether the other waits. Between saying and looking there is a sequentially consistent
//! fence on both sides, so at least one of the two sees what the other did.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A word of shared memory. A trait so that loom can take the place of the machine's memory.
pub(crate) trait Word {
    fn load(&self, order: std::sync::atomic::Ordering) -> u32;
    fn store(&self, value: u32, order: std::sync::atomic::Ordering);
    /// A sequentially consistent fence.
    fn fence();
}

impl Word for std::sync::atomic::AtomicU32 {
    fn load(&self, order: std::sync::atomic::Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: std::sync::atomic::Ordering) {
        self.store(value, order);
    }

    fn fence() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }
}

/// The other side did what no honest one does: a position out of range or gone backwards, or an impossible length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// Where a ring is.
pub(crate) struct Ring<'a, W> {
    /// The writer's position.
    pub tail: &'a W,
    /// The reader's position.
    pub head: &'a W,
    /// Not 0: the reader wants to be woken when there is more.
    pub reader_waits: &'a W,
    /// Not 0: the writer wants to be woken when there is more room.
    pub writer_waits: &'a W,
    /// Records; as many words as a power of two.
    pub data: &'a [W],
}

impl<W: Word> Ring<'_, W> {
    fn at(&self, position: u32) -> Option<&W> {
        self.data.get(position as usize % self.data.len())
    }

    /// Wakes the other side if it waits. To be called after something was done that it may wait for.
    fn wake(&self, waits: &W, wake: impl FnOnce()) {
        W::fence();
        if waits.load(Relaxed) != 0 {
            // Taken back before the wake-up: who is woken and waits again says so after this.
            waits.store(0, Relaxed);
            wake();
        }
    }
}

/// The writing side of a ring.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    tail: u32,
    /// The reader's position when it was last looked at.
    head: u32,
}

impl Writer {
    /// Appends a record, if there is room for it; if there is not, the reader is told to wake this side when there is
    /// more. Wakes the reader if it waits.
    pub(crate) fn write<W: Word>(
        &mut self,
        ring: &Ring<'_, W>,
        record: &[u8],
        wake: impl FnOnce(),
    ) -> Result<bool, Corrupt> {
        let needed = 1 + record.len().div_ceil(4);
        if self.room(ring)? < needed {
            ring.writer_waits.store(1, Relaxed);
            W::fence();
            if self.room(ring)? < needed {
                return Ok(false);
            }
            ring.writer_waits.store(0, Relaxed);
        }
        let length = u32::try_from(record.len()).map_err(|_| Corrupt)?;
        self.put(ring, length);
        for bytes in record.chunks(4) {
            let mut word = [0; 4];
            word[..bytes.len()].copy_from_slice(bytes);
            self.put(ring, u32::from_ne_bytes(word));
        }
        ring.tail.store(self.tail, Release);
        ring.wake(ring.reader_waits, wake);
        Ok(true)
    }

    /// Words that are free.
    fn room<W: Word>(&mut self, ring: &Ring<'_, W>) -> Result<usize, Corrupt> {
        let head = ring.head.load(Acquire);
        let used = self.tail.wrapping_sub(head);
        if used > self.tail.wrapping_sub(self.head) {
            return Err(Corrupt);
        }
        self.head = head;
        Ok(ring.data.len() - used as usize)
    }

    fn put<W: Word>(&mut self, ring: &Ring<'_, W>, word: u32) {
        if let Some(place) = ring.at(self.tail) {
            place.store(word, Relaxed);
        }
        self.tail = self.tail.wrapping_add(1);
    }
}

/// The reading side of a ring.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    head: u32,
    /// The writer's position when it was last looked at.
    tail: u32,
}

impl Reader {
    /// Takes the next record, of 1 to `longest` bytes. If there is none, the writer is told to wake this side when there
    /// is one. Wakes the writer if it waits.
    pub(crate) fn read<W: Word>(
        &mut self,
        ring: &Ring<'_, W>,
        longest: usize,
        wake: impl FnOnce(),
    ) -> Result<Option<Vec<u8>>, Corrupt> {
        if self.filled(ring)? == 0 {
            ring.reader_waits.store(1, Relaxed);
            W::fence();
            if self.filled(ring)? == 0 {
                return Ok(None);
            }
            ring.reader_waits.store(0, Relaxed);
        }
        let filled = self.tail.wrapping_sub(self.head) as usize;
        let length = self.take(ring) as usize;
        let words = length.div_ceil(4);
        if length == 0 || length > longest || words + 1 > filled {
            return Err(Corrupt);
        }
        let mut record = Vec::with_capacity(words * 4);
        for _ in 0..words {
            record.extend_from_slice(&self.take(ring).to_ne_bytes());
        }
        record.truncate(length);
        ring.head.store(self.head, Release);
        ring.wake(ring.writer_waits, wake);
        Ok(Some(record))
    }

    /// Words that are there to be read.
    fn filled<W: Word>(&mut self, ring: &Ring<'_, W>) -> Result<usize, Corrupt> {
        let tail = ring.tail.load(Acquire);
        let filled = tail.wrapping_sub(self.head) as usize;
        if filled > ring.data.len() || filled < self.tail.wrapping_sub(self.head) as usize {
            return Err(Corrupt);
        }
        self.tail = tail;
        Ok(filled)
    }

    fn take<W: Word>(&mut self, ring: &Ring<'_, W>) -> u32 {
        let word = ring.at(self.head).map_or(0, |place| place.load(Relaxed));
        self.head = self.head.wrapping_add(1);
        word
    }
}
