//! A region between two ends that do not trust each other.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, missing_docs, reason = "helpers of tests")]

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    thread,
};

use ioward_channel::{
    Frame, FrameError, MAX_PAYLOAD_BYTES,
    shared::{self, EndFds, Endpoint, REGION_BYTES, SharedError, Side},
};
use proptest::{collection::vec, prelude::*};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{MemfdFlags, OFlags, SealFlags},
};

// As drawn in docs/channel.md.
const TO_IMP_TAIL: u64 = 1024;
const TO_GUEST_TAIL: u64 = 2048;
const TO_GUEST_HEAD: u64 = 2048 + 64;
const TO_IMP_DATA: u64 = 4096;
const RING_BYTES: u64 = 128 * 1024;

fn pair() -> (Endpoint, Endpoint) {
    let (imp, guest) = shared::create().unwrap();
    (Endpoint::from_fds(Side::Imp, imp).unwrap(), Endpoint::from_fds(Side::Guest, guest).unwrap())
}

/// The management partition's end, and the descriptors that a hostile guest works with.
fn with_hostile_guest() -> (Endpoint, EndFds, File) {
    let (imp, guest) = shared::create().unwrap();
    let scribble = File::from(guest.memory.try_clone().unwrap());
    (Endpoint::from_fds(Side::Imp, imp).unwrap(), guest, scribble)
}

fn put(memory: &File, at: u64, word: u32) {
    memory.write_all_at(&word.to_ne_bytes(), at).unwrap();
}

fn get(memory: &File, at: u64) -> u32 {
    let mut word = [0; 4];
    memory.read_exact_at(&mut word, at).unwrap();
    u32::from_ne_bytes(word)
}

fn frame(number: u32, length: usize) -> Frame {
    let byte = u8::try_from(number % 251).unwrap();
    Frame::new(1, 0, number, vec![byte; length]).unwrap()
}

fn is_rung(end: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&end, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

fn wait(end: &Endpoint) {
    poll(&mut [PollFd::new(end, PollFlags::IN)], None).unwrap();
    end.clear().unwrap();
}

fn send(end: &mut Endpoint, frame: &Frame) {
    while !end.try_send(frame).unwrap() {
        wait(end);
    }
}

fn receive(end: &mut Endpoint) -> Frame {
    loop {
        match end.try_receive().unwrap() {
            Some(frame) => return frame.unwrap(),
            None => wait(end),
        }
    }
}

#[test]
fn frames_go_both_ways() {
    let (mut imp, mut guest) = pair();
    assert!(imp.try_receive().unwrap().is_none());
    assert!(guest.try_send(&frame(1, 0)).unwrap());
    assert!(guest.try_send(&frame(2, MAX_PAYLOAD_BYTES)).unwrap());
    assert!(imp.try_send(&frame(3, 7)).unwrap());
    assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(1, 0))));
    assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(2, MAX_PAYLOAD_BYTES))));
    assert_eq!(imp.try_receive().unwrap(), None);
    assert_eq!(guest.try_receive().unwrap(), Some(Ok(frame(3, 7))));
}

#[test]
fn the_doorbell_rings_only_when_the_other_side_waits() {
    let (mut imp, mut guest) = pair();
    assert!(guest.try_send(&frame(1, 0)).unwrap());
    assert!(!is_rung(&imp), "it has never looked");
    assert!(imp.try_receive().unwrap().is_some());
    assert!(imp.try_receive().unwrap().is_none());
    assert!(guest.try_send(&frame(2, 0)).unwrap());
    assert!(is_rung(&imp), "it looked and found nothing");
    imp.clear().unwrap();
    assert!(!is_rung(&imp));
    assert!(guest.try_send(&frame(3, 0)).unwrap());
    assert!(!is_rung(&imp), "it has been woken and has not said that it sleeps again");
}

#[test]
fn a_full_ring_refuses_frames_until_something_is_read() {
    let (mut imp, mut guest) = pair();
    let mut sent = 0;
    while guest.try_send(&frame(sent, 5000)).unwrap() {
        sent += 1;
    }
    assert!(sent >= 20, "{sent}");
    assert!(!is_rung(&guest));
    for number in 0..sent {
        assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(number, 5000))));
        if number == 0 {
            assert!(is_rung(&guest), "there is room");
        }
    }
    assert!(imp.try_receive().unwrap().is_none());
    assert!(guest.try_send(&frame(sent, 5000)).unwrap());
    assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(sent, 5000))));
}

/// Goes many times around both rings, with each side asleep whenever it can be.
#[test]
fn two_threads_lose_nothing() {
    const COUNT: u32 = 20_000;
    let length = |number: u32| (number as usize * 37) % 3000;
    let (mut imp, mut guest) = pair();
    let echo = thread::spawn(move || {
        for _ in 0..COUNT {
            let frame = receive(&mut imp);
            send(&mut imp, &frame);
        }
        imp
    });
    let (mut asked, mut answered) = (0, 0);
    while answered < COUNT {
        if asked < COUNT && asked - answered < 30 && guest.try_send(&frame(asked, length(asked))).unwrap() {
            asked += 1;
            continue;
        }
        assert_eq!(receive(&mut guest), frame(answered, length(answered)));
        answered += 1;
    }
    drop(echo.join().unwrap());
}

#[test]
fn frames_sent_before_an_end_closed_are_still_read() {
    let (mut imp, mut guest) = pair();
    assert!(imp.try_receive().unwrap().is_none());
    assert!(guest.try_send(&frame(1, 9)).unwrap());
    drop(guest);
    assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(1, 9))));
    assert!(matches!(imp.try_receive(), Err(SharedError::Closed)));
    assert!(matches!(imp.try_send(&frame(2, 9)), Err(SharedError::Closed)));
}

/// A partition that dies in the middle of a frame has published none of it.
#[test]
fn half_a_frame_is_never_read() {
    let (mut imp, _guest, memory) = with_hostile_guest();
    put(&memory, TO_IMP_DATA, 100);
    memory.write_all_at(&[b'I'; 50], TO_IMP_DATA + 4).unwrap();
    assert!(imp.try_receive().unwrap().is_none());
}

#[test]
fn an_invalid_record_costs_no_other() {
    let (mut imp, _guest, memory) = with_hostile_guest();
    put(&memory, TO_IMP_DATA, 3);
    let good = frame(1, 0).to_bytes();
    put(&memory, TO_IMP_DATA + 8, u32::try_from(good.len()).unwrap());
    memory.write_all_at(&good, TO_IMP_DATA + 12).unwrap();
    put(&memory, TO_IMP_TAIL, 2 + 1 + 4);
    assert_eq!(imp.try_receive().unwrap(), Some(Err(FrameError::CutShort)));
    assert_eq!(imp.try_receive().unwrap(), Some(Ok(frame(1, 0))));
    assert_eq!(imp.try_receive().unwrap(), None);
}

#[test]
fn an_impossible_length_is_corruption() {
    for (length, published) in
        [(0, 8), (65537, 30_000), (29, 8), (u32::MAX, 32768), (u32::MAX - 2, 1), (1, 1)]
    {
        let (mut imp, _guest, memory) = with_hostile_guest();
        put(&memory, TO_IMP_DATA, length);
        put(&memory, TO_IMP_TAIL, published);
        assert!(matches!(imp.try_receive(), Err(SharedError::Corrupt)), "{length} in {published} words");
    }
}

#[test]
fn a_position_out_of_range_or_backwards_is_corruption() {
    for tail in [32769, u32::MAX, 1 << 31] {
        let (mut imp, _guest, memory) = with_hostile_guest();
        put(&memory, TO_IMP_TAIL, tail);
        assert!(matches!(imp.try_receive(), Err(SharedError::Corrupt)), "{tail}");
    }
    let (mut imp, guest, memory) = with_hostile_guest();
    let mut guest = Endpoint::from_fds(Side::Guest, guest).unwrap();
    assert!(guest.try_send(&frame(1, 0)).unwrap() && guest.try_send(&frame(2, 0)).unwrap());
    assert!(imp.try_receive().unwrap().is_some());
    put(&memory, TO_IMP_TAIL, 5);
    assert!(matches!(imp.try_receive(), Err(SharedError::Corrupt)), "what was published is taken back");

    for head in [1, 6, u32::MAX, 1 << 31] {
        let (mut imp, _guest, memory) = with_hostile_guest();
        assert!(imp.try_send(&frame(1, 0)).unwrap());
        assert_eq!(get(&memory, TO_GUEST_TAIL), 5);
        put(&memory, TO_GUEST_HEAD, head);
        let sent = imp.try_send(&frame(2, 0));
        if head == 1 {
            assert!(sent.unwrap(), "half a record taken is that reader's own loss");
        } else {
            assert!(matches!(sent, Err(SharedError::Corrupt)), "{head}");
        }
    }
}

/// If a side read its own position back, the other could move it.
#[test]
fn a_side_never_reads_its_own_position_back() {
    let (mut imp, mut guest, memory) = {
        let (imp, guest, memory) = with_hostile_guest();
        (imp, Endpoint::from_fds(Side::Guest, guest).unwrap(), memory)
    };
    assert!(imp.try_send(&frame(1, 100)).unwrap());
    put(&memory, TO_GUEST_TAIL, 3);
    assert!(imp.try_send(&frame(2, 100)).unwrap());
    assert_eq!(guest.try_receive().unwrap(), Some(Ok(frame(1, 100))));
    assert_eq!(guest.try_receive().unwrap(), Some(Ok(frame(2, 100))));
}

/// A file that shrinks under a mapping kills the process that accesses it; a page sealed against writing blocks its
/// writer.
#[test]
fn the_memory_cannot_be_changed_in_size_or_sealed() {
    let (_imp, guest, memory) = with_hostile_guest();
    assert!(memory.set_len(0).is_err());
    assert!(memory.set_len(1 << 30).is_err());
    assert!(rustix::fs::fcntl_add_seals(&guest.memory, SealFlags::WRITE).is_err());
}

#[test]
fn memory_that_could_change_in_size_is_not_mapped() {
    let unsealed = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&unsealed, REGION_BYTES as u64).unwrap();
    let short = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&short, REGION_BYTES as u64 - 4096).unwrap();
    rustix::fs::fcntl_add_seals(&short, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    let file = tempfile_of_region_size();
    let no_layout = rustix::fs::memfd_create("x", MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::fs::ftruncate(&no_layout, REGION_BYTES as u64).unwrap();
    rustix::fs::fcntl_add_seals(&no_layout, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).unwrap();
    let open = |memory: OwnedFd| {
        let (_, guest) = shared::create().unwrap();
        Endpoint::from_fds(Side::Guest, EndFds { memory, ..guest }).map(|_| ()).unwrap_err()
    };
    for memory in [unsealed, short, file] {
        assert!(matches!(open(memory), SharedError::NoRegion(_)));
    }
    assert!(matches!(open(no_layout), SharedError::Layout { found: 0 }));
}

fn tempfile_of_region_size() -> OwnedFd {
    let path = std::env::temp_dir().join(format!("ioward-region-{}", std::process::id()));
    let file = File::options().create(true).truncate(true).read(true).write(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.set_len(REGION_BYTES as u64).unwrap();
    file.into()
}

/// A file's status flags are shared by all its holders. A guest that held the eventfd which the management
/// partition writes could fill it, make it blocking, and so hang the next side that rings.
#[test]
fn a_guest_cannot_make_ringing_block() {
    let (mut imp, guest, memory) = with_hostile_guest();
    let make_blocking = |fd: BorrowedFd<'_>| {
        let flags = rustix::fs::fcntl_getfl(fd).unwrap();
        rustix::fs::fcntl_setfl(fd, flags - OFlags::NONBLOCK).unwrap();
    };
    for fd in [&guest.doorbell_in, &guest.doorbell_out, &guest.memory] {
        make_blocking(fd.as_fd());
    }
    let full = (u64::MAX - 1).to_ne_bytes();
    assert!(rustix::io::write(&guest.doorbell_in, &full).is_err(), "it can be heard, and not be rung");
    rustix::io::write(&guest.doorbell_out, &full).unwrap();
    put(&memory, TO_GUEST_TAIL + 128, 1);
    assert!(imp.try_send(&frame(1, 0)).unwrap());
    assert!(is_rung(&imp) && is_rung(&guest.doorbell_in));
    imp.clear().unwrap();
    imp.clear().unwrap();
    assert!(!is_rung(&imp));
    assert!(imp.try_receive().unwrap().is_none());
}

#[test]
fn a_punched_hole_does_no_harm() {
    let (mut imp, _guest, memory) = with_hostile_guest();
    assert!(imp.try_send(&frame(1, 50)).unwrap());
    let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&memory, flags, 0, REGION_BYTES as u64).unwrap();
    // A hole reads as zeros: nothing has arrived, and the other side's position is back at its old value, which was
    // zero.
    assert!(imp.try_receive().unwrap().is_none());
    assert!(imp.try_send(&frame(2, 50)).unwrap());
}

/// Values and offsets that a hostile guest writes, mostly at the most sensitive places.
fn scribble() -> impl Strategy<Value = (u64, u32)> {
    let control = (0..4096_u64 / 4).prop_map(|word| word * 4);
    let positions = prop::sample::select(vec![64, 128, 1024, 1088, 1152, 1216, 2048, 2112, 2176, 2240]);
    let data = (0..(2 * RING_BYTES) / 4).prop_map(|word| TO_IMP_DATA + word * 4);
    let first = (0..64_u64).prop_map(|word| TO_IMP_DATA + word * 4);
    let value = prop_oneof![0..64_u32, 0..70_000_u32, any::<u32>(), Just(u32::MAX)];
    (prop_oneof![control, positions.clone(), positions, data, first], value)
}

proptest! {
    /// Any write gives an error or a frame, never a panic, and never more than a ring can hold.
    #[test]
    fn any_scribbling_is_survived(scribbles in vec((scribble(), 0..4_u8), 1..60)) {
        let (mut imp, _guest, memory) = with_hostile_guest();
        for ((at, value), what) in scribbles {
            put(&memory, at, value);
            let result = match what {
                0 => imp.try_send(&frame(value, 40)).map(|_| ()),
                1 => imp.try_send(&frame(value, MAX_PAYLOAD_BYTES)).map(|_| ()),
                _ => imp.try_receive().map(|_| ()),
            };
            match result {
                Ok(()) | Err(SharedError::Corrupt | SharedError::Closed) => {}
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }

    /// Writes to a ring's records while they are read change the bytes, and nothing else.
    #[test]
    fn the_bytes_checked_are_the_bytes_read(garbage in vec(any::<u8>(), 1..4000), tail in 0..1200_u32) {
        let (mut imp, _guest, memory) = with_hostile_guest();
        memory.write_all_at(&garbage, TO_IMP_DATA).unwrap();
        put(&memory, TO_IMP_TAIL, tail);
        let mut found = 0;
        while let Ok(Some(_)) = imp.try_receive() {
            found += 1;
        }
        prop_assert!(found <= tail / 2);
    }
}

/// A guest that writes all over the region while it is being read.
#[test]
fn a_scribbler_beside_a_reader_does_no_harm() {
    let (mut imp, _guest, memory) = with_hostile_guest();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let scribbler = thread::spawn(move || -> io::Result<()> {
        let mut number = 1_u32;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = (number >> 8) % 2000 * 4;
            put(
                &memory,
                if number & 1 == 0 { TO_IMP_TAIL } else { TO_IMP_DATA + u64::from(word) },
                number >> 20,
            );
        }
        Ok(())
    });
    for number in 0..20_000 {
        // The scribbler decides whether it is a frame, an invalid one or corruption; it must be one of them.
        let _ = imp.try_receive();
        let _ = imp.try_send(&frame(number, 100));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    scribbler.join().unwrap().unwrap();
}
