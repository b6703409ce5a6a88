//! The ring under loom, which runs these tests in the orders that the memory model allows two threads to see:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p ioward-channel --release --lib loom
//! ```
//!
//! A record that is lost, doubled or torn fails an assertion; a wake-up that is lost leaves a thread that waits for
//! ever, which loom reports as a deadlock.

use loom::{
    sync::{
        Arc, Notify,
        atomic::{AtomicU32, Ordering, fence},
    },
    thread,
};

use super::ring::{Reader, Ring, Word, Writer};

impl Word for AtomicU32 {
    fn load(&self, order: Ordering) -> u32 {
        self.load(order)
    }

    fn store(&self, value: u32, order: Ordering) {
        self.store(value, order);
    }

    fn fence() {
        fence(Ordering::SeqCst);
    }
}

/// A ring of a few words, and the doorbells of its two sides.
struct Channel {
    control: [AtomicU32; 4],
    data: Vec<AtomicU32>,
    reader_bell: Notify,
    writer_bell: Notify,
}

impl Channel {
    fn new(words: usize) -> Arc<Self> {
        Arc::new(Self {
            control: std::array::from_fn(|_| AtomicU32::new(0)),
            data: (0..words).map(|_| AtomicU32::new(0)).collect(),
            reader_bell: Notify::new(),
            writer_bell: Notify::new(),
        })
    }

    fn ring(&self) -> Ring<'_, AtomicU32> {
        let [tail, head, reader_waits, writer_waits] = &self.control;
        Ring { tail, head, reader_waits, writer_waits, data: &self.data }
    }

    fn send_all(&self, records: &[Vec<u8>]) {
        let mut writer = Writer::default();
        for record in records {
            while !writer.write(&self.ring(), record, || self.reader_bell.notify()).unwrap() {
                self.writer_bell.wait();
            }
        }
    }

    fn receive(&self, count: usize) -> Vec<Vec<u8>> {
        let mut reader = Reader::default();
        let mut received = Vec::new();
        while received.len() < count {
            match reader.read(&self.ring(), 64, || self.writer_bell.notify()).unwrap() {
                Some(record) => received.push(record),
                None => self.reader_bell.wait(),
            }
        }
        received
    }
}

fn all_arrive_in_order(words: usize, records: &[&[u8]]) {
    let records: Vec<_> = records.iter().map(|record| record.to_vec()).collect();
    let mut model = loom::model::Builder::new();
    // Threads are preempted at any point, but only so often in one run: all possible runs take hours.
    model.preemption_bound = Some(3);
    model.check(move || {
        let channel = Channel::new(words);
        let (sender, sent) = (Arc::clone(&channel), records.clone());
        let sender = thread::spawn(move || sender.send_all(&sent));
        assert_eq!(channel.receive(records.len()), records);
        sender.join().unwrap();
    });
}

#[test]
fn a_reader_that_goes_to_sleep_is_woken() {
    all_arrive_in_order(4, &[b"a"]);
}

#[test]
fn records_come_whole_and_in_order() {
    all_arrive_in_order(8, &[b"12345", b"67"]);
}

/// The ring holds one record at a time, so both sides wait for each other.
#[test]
fn a_writer_that_waits_for_room_is_woken() {
    all_arrive_in_order(2, &[b"a", b"b"]);
}

#[test]
fn records_wrap_around_the_end() {
    all_arrive_in_order(4, &[b"12345", b"678"]);
}
