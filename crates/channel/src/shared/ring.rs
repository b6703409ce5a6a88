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
//! Each side keeps its own position to itself and accepts the other's only if it is plausible. Data is copied out
//! before it is checked, and a length is read once. Nothing here blocks, and no loop runs longer than a record has
//! words.
//!
//! **No side sleeps through a wake-up.** A side with nothing to do sets its waiting flag, then looks once more; a
//! side that has done something then checks the other's flag. A sequentially consistent fence between the two
//! steps, on both sides, ensures that at least one of the two sees what the other did.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A word of shared memory. A trait, so that loom can replace the machine's memory.
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

/// The other side wrote what no honest one would: a position out of range or moved backwards, or an impossible
/// length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corrupt;

/// The parts of a ring.
pub(crate) struct Ring<'a, W> {
    /// The writer's position.
    pub tail: &'a W,
    /// The reader's position.
    pub head: &'a W,
    /// Not 0: the reader wants to be woken when there is more.
    pub reader_waits: &'a W,
    /// Not 0: the writer wants to be woken when there is more room.
    pub writer_waits: &'a W,
    /// Records; the number of words is a power of two.
    pub data: &'a [W],
}

impl<W: Word> Ring<'_, W> {
    fn at(&self, position: u32) -> Option<&W> {
        self.data.get(position as usize % self.data.len())
    }

    /// Wakes the other side if it waits. Call it after a step that the other side may wait for.
    fn wake(&self, waits: &W, wake: impl FnOnce()) {
        W::fence();
        if waits.load(Relaxed) != 0 {
            // Cleared before the wake-up: a woken side that waits again sets it after this.
            waits.store(0, Relaxed);
            wake();
        }
    }
}

/// The writing side of a ring.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    tail: u32,
    /// The reader's position at the last look.
    head: u32,
}

impl Writer {
    /// Appends a record, if there is room; if not, the reader is asked to wake this side when there is more. Wakes
    /// the reader if it waits.
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

    /// Number of free words.
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
    /// The writer's position at the last look.
    tail: u32,
}

impl Reader {
    /// Takes the next record, of 1 to `longest` bytes. If there is none, the writer is asked to wake this side when
    /// there is one. Wakes the writer if it waits.
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

    /// Number of words ready to be read.
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
