//! The region in this process's memory: a memfd of sealed size, mapped as words that both sides may write at any
//! time. The only unsafe code of this crate.
#![allow(unsafe_code, reason = "memory that another process writes can only be had through mmap")]

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU32,
};

use rustix::{
    fs::{MemfdFlags, SealFlags},
    mm::{MapFlags, ProtFlags},
};

/// Seals that fix the file's size for ever. If it shrank, an access to the missing part would kill the process
/// (SIGBUS).
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// A region's memory: zeros, of fixed size.
pub(super) fn create_memory(bytes: usize) -> io::Result<OwnedFd> {
    let memory = rustix::fs::memfd_create("ioward-channel", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memory, bytes as u64)?;
    rustix::fs::fcntl_add_seals(&memory, SEALS)?;
    Ok(memory)
}

/// A mapped region.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU32>,
    bytes: usize,
}

// SAFETY: it is memory of the whole process, and is reached through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps a region's memory, after it checks the size and the seals.
    pub(super) fn new(memory: BorrowedFd<'_>, bytes: usize) -> io::Result<Self> {
        let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidData, what.to_owned()));
        // Checks the seals first: without them the size can change right after it was checked. Only a memfd has
        // seals.
        if !rustix::fs::fcntl_get_seals(memory.as_fd())?.contains(SEALS) {
            return wrong("the shared memory is not sealed");
        }
        if u64::try_from(rustix::fs::fstat(memory)?.st_size).ok() != Some(bytes as u64) {
            return wrong("the shared memory has the wrong size");
        }
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: the kernel chooses the address, so this replaces no other mapping.
        let start = unsafe { rustix::mm::mmap(ptr::null_mut(), bytes, flags, MapFlags::SHARED, memory, 0) }?;
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, bytes }),
            None => wrong("the shared memory was mapped nowhere"),
        }
    }

    /// All its words.
    pub(super) fn words(&self) -> &[AtomicU32] {
        // SAFETY: `start` is page-aligned, and `bytes` from there are mapped, readable and writable for as long as `self`
        // lives; the seals keep them there. Any bits are an `AtomicU32`, this process touches them in no other way, and
        // another process that writes at the same time is a race between atomic accesses as far as this one can tell.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.bytes / size_of::<AtomicU32>()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new` with this length, and every reference to it borrowed `self`.
        if let Err(error) = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.bytes) } {
            debug_assert!(false, "munmap: {error}");
        }
    }
}
