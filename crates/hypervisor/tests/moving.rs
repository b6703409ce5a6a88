//! Machines that run move from one hypervisor to another, with a real QEMU on both sides and a guest that counts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    time::{Duration, Instant},
};

use common::{Bench, LONG, OBEDIENT, next_end, status, type_on, wait_for_log};
use ioward_hypervisor::{Guard, Hypervisor, HypervisorError, StopMode};
use ioward_model::{Migration, Name, Owner};
use tokio::{net::UnixStream, task::JoinHandle};

/// A boot sector that answers each byte on the serial port by the next letter. Which one that is, is in a register only.
const COUNTING: &[u8] = &[
    0xfa, // cli
    0xb3, b'a', // mov bl, 'a'
    0xba, 0xfd, 0x03, // next: mov dx, 0x3fd
    0xec, // wait: in al, dx
    0xa8, 0x01, // test al, 1
    0x74, 0xfb, // jz wait
    0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xec, // in al, dx
    0x88, 0xd8, // mov al, bl
    0xee, // out dx, al
    0xfe, 0xc3, // inc bl
    0xeb, 0xed, // jmp next
];

/// Two hosts with a disk in common, and a machine that runs on the first.
struct Pair {
    source: Side,
    target: Side,
    web: Name,
}

struct Side {
    bench: Bench,
    hypervisor: Guard,
}

impl Side {
    async fn new() -> Self {
        let bench = Bench::new();
        let hypervisor = bench.open().await;
        Self { bench, hypervisor }
    }

    /// As a daemon that takes the place of another one.
    async fn open_anew(mut self) -> Self {
        drop(self.hypervisor);
        self.hypervisor = self.bench.open().await;
        self
    }

    async fn migration(&self, web: &Name) -> Migration {
        self.hypervisor.migration(web).await.unwrap()
    }

    async fn until_complete(&self, web: &Name) {
        let deadline = Instant::now() + LONG;
        loop {
            match self.migration(web).await {
                Migration::Complete => return,
                Migration::UnderWay { .. } => {}
                other => unreachable!("{other:?}"),
            }
            assert!(Instant::now() < deadline, "it is never complete");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The guest answers, and by this letter.
    async fn answers(&self, web: &Name, letter: &str) {
        // A guest that has just begun may not listen yet: what it is told is kept by its serial port.
        type_on(&self.bench.file(web, "console.sock"), b'x');
        wait_for_log(&self.bench.file(web, "console.log"), letter).await;
    }
}

impl Pair {
    async fn new() -> Self {
        let (source, target) = (Side::new().await, Side::new().await);
        let disk = source.bench.disk(COUNTING);
        let web = source.bench.define(&source.hypervisor, "web", &disk).await;
        target.bench.define(&target.hypervisor, "web", &disk).await;
        source.hypervisor.start(&web).await.unwrap();
        source.answers(&web, "a").await;
        Self { source, target, web }
    }

    /// Both ends of the way that the state takes.
    async fn begin(&self) -> (OwnedFd, OwnedFd) {
        let layout = self.source.hypervisor.layout(&self.web).await.unwrap();
        let into = self.target.hypervisor.receive(&self.web, &layout).await.unwrap();
        (self.source.hypervisor.send(&self.web).await.unwrap(), into)
    }

    /// Until both stand still with the same state.
    async fn complete(&self) {
        let (out, into) = self.begin().await;
        let carried = carry(out, into);
        self.source.until_complete(&self.web).await;
        carried.await.unwrap();
        self.target.until_complete(&self.web).await;
    }
}

fn stream(fd: OwnedFd) -> UnixStream {
    let stream = StdUnixStream::from(fd);
    stream.set_nonblocking(true).unwrap();
    UnixStream::from_std(stream).unwrap()
}

/// What the two daemons and the network do.
fn carry(out: OwnedFd, into: OwnedFd) -> JoinHandle<()> {
    let (mut out, mut into) = (stream(out), stream(into));
    tokio::spawn(async move {
        let _ = tokio::io::copy(&mut out, &mut into).await;
    })
}

fn not_moved(error: &HypervisorError, because: &str) {
    assert!(matches!(error, HypervisorError::NotMoved { .. }), "{error}");
    assert!(error.to_string().contains(because), "{error}");
}

#[tokio::test]
async fn a_guest_goes_on_where_it_was() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    assert_eq!(source.migration(web).await, Migration::None);
    pair.complete().await;
    source.hypervisor.stop(web, StopMode::Force).await.unwrap();
    target.hypervisor.resume(web).await.unwrap();
    target.hypervisor.resume(web).await.unwrap();
    assert_eq!(target.migration(web).await, Migration::None);
    let accelerator = target.hypervisor.start(web).await.unwrap();
    assert_eq!(status(&target.hypervisor, web).await.accelerator, Some(accelerator), "it runs as ever");
    target.answers(web, "b").await;
    // It may be sent on, or back.
    let layout = target.hypervisor.layout(web).await.unwrap();
    let into = source.hypervisor.receive(web, &layout).await.unwrap();
    let carried = carry(target.hypervisor.send(web).await.unwrap(), into);
    target.until_complete(web).await;
    carried.await.unwrap();
    source.until_complete(web).await;
    target.hypervisor.stop(web, StopMode::Force).await.unwrap();
    source.hypervisor.resume(web).await.unwrap();
    source.answers(web, "c").await;
}

/// The two daemons may settle that it stays when everything is there already.
#[tokio::test]
async fn one_whose_state_is_there_already_can_still_stay_here() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    pair.complete().await;
    target.hypervisor.stop(web, StopMode::Force).await.unwrap();
    source.hypervisor.resume(web).await.unwrap();
    source.answers(web, "b").await;
    assert_eq!(source.migration(web).await, Migration::None);
    pair.complete().await;
}

/// Daemons that died leave two machines that stand still. Those that come after them must be able to tell, and neither machine runs before
/// one is told to.
#[tokio::test]
async fn daemons_that_come_afterwards_find_both_machines_as_they_are() {
    let pair = Pair::new().await;
    pair.complete().await;
    let Pair { source, target, web } = pair;
    let (source, target) = (source.open_anew().await, target.open_anew().await);
    for side in [&source, &target] {
        assert!(status(&side.hypervisor, &web).await.running);
        assert_eq!(side.migration(&web).await, Migration::Complete);
        let error = side.hypervisor.start(&web).await.expect_err("a start is no resume");
        assert!(error.to_string().contains("its state is"), "{error}");
        assert_eq!(side.migration(&web).await, Migration::Complete);
    }
    source.hypervisor.stop(&web, StopMode::Force).await.unwrap();
    target.hypervisor.resume(&web).await.unwrap();
    target.answers(&web, "b").await;
}

#[tokio::test]
async fn a_move_that_is_under_way_is_cancelled_by_having_it_run_here() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    // Nobody reads it, so that it does not come to its end.
    let (_out, into) = pair.begin().await;
    assert!(matches!(source.migration(web).await, Migration::UnderWay { .. }));
    assert!(matches!(target.migration(web).await, Migration::UnderWay { .. }));
    not_moved(&source.hypervisor.send(web).await.unwrap_err(), "already");
    not_moved(&target.hypervisor.resume(web).await.unwrap_err(), "not come wholly");
    let error = target.hypervisor.start(web).await.unwrap_err();
    assert!(error.to_string().contains("inmigrate"), "{error}");
    source.hypervisor.resume(web).await.unwrap();
    assert!(matches!(source.migration(web).await, Migration::Failed { .. }));
    source.answers(web, "b").await;

    drop(into);
    target.hypervisor.stop(web, StopMode::Force).await.unwrap();
    pair.complete().await;
}

/// The network between them goes, or a daemon dies, which has the ends of the way.
#[tokio::test]
async fn a_machine_goes_on_by_itself_when_the_way_is_cut_off() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    let mut events = target.hypervisor.events().await;
    let (out, into) = pair.begin().await;
    drop((out, into));
    let deadline = Instant::now() + LONG;
    while !matches!(source.migration(web).await, Migration::Failed { .. }) {
        assert!(Instant::now() < deadline, "{:?}", source.migration(web).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    source.answers(web, "b").await;
    let (ended, _) = next_end(&mut events).await;
    assert_eq!(&ended, web, "what waits for its state for ever is of no use, and QEMU ends");
    assert!(matches!(target.hypervisor.migration(web).await, Err(HypervisorError::NotRunning(_))));
    pair.complete().await;
}

#[tokio::test]
async fn what_can_not_be_moved_is_refused_and_stays_as_it_is() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    let nobody: Name = "db".parse().unwrap();
    for error in [
        source.hypervisor.send(&nobody).await.unwrap_err(),
        source.hypervisor.layout(&nobody).await.unwrap_err(),
        source.hypervisor.resume(&nobody).await.unwrap_err(),
    ] {
        assert!(matches!(error, HypervisorError::NoSuchPartition(_)), "{error}");
    }
    for error in [
        target.hypervisor.send(web).await.unwrap_err(),
        target.hypervisor.layout(web).await.unwrap_err(),
        target.hypervisor.migration(web).await.unwrap_err(),
        target.hypervisor.resume(web).await.unwrap_err(),
    ] {
        assert!(matches!(error, HypervisorError::NotRunning(_)), "{error}");
    }
    let layout = source.hypervisor.layout(web).await.unwrap();
    let error = source.hypervisor.receive(web, &layout).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Running(_)), "{error}");

    let mut other = layout.clone();
    other.machine = "pc-q35-99.9".parse().unwrap();
    let error = target.hypervisor.receive(web, &other).await.unwrap_err();
    assert!(error.to_string().contains("pc-q35-99.9"), "QEMU knows no such machine: {error}");
    let mut other = layout.clone();
    other.standbys.insert("net0".parse().unwrap(), 1);
    not_moved(&target.hypervisor.receive(web, &other).await.unwrap_err(), "standbys of net0");
    target.bench.add_vf("0000:01:10.0");
    let owner = Owner { partition: web.clone(), vf: "net0".parse().unwrap() };
    target.hypervisor.attach_vf(&owner, "0000:01:10.0".parse().unwrap()).await.unwrap();
    not_moved(&target.hypervisor.receive(web, &layout).await.unwrap_err(), "it holds net0");
    target.hypervisor.detach_vf(&owner, false).await.unwrap();
    assert!(!status(&target.hypervisor, web).await.running);

    // Nothing is plugged into a machine that is on its way.
    let _ways = pair.begin().await;
    source.bench.add_vf("0000:01:10.0");
    for side in [source, target] {
        let plugged = side.hypervisor.attach_vf(&owner, "0000:01:10.0".parse().unwrap()).await;
        not_moved(&plugged.unwrap_err(), "being moved");
        not_moved(&side.hypervisor.create_channel(web).await.unwrap_err(), "being moved");
        assert_eq!(status(&side.hypervisor, web).await.vfs, []);
    }
    source.hypervisor.resume(web).await.unwrap();

    source.bench.define_as(&source.hypervisor, "web", "disk = '/disk.img'").await;
    assert!(source.hypervisor.layout(web).await.is_ok(), "its size is the same");
    let text = "version = 1\n[[partition]]\nname = \"web\"\nmemory = \"128MiB\"\nboot = { disk = '/d' }\n";
    let changed = ioward_model::Spec::parse(text.as_bytes()).unwrap().partitions.remove(0);
    source.hypervisor.define(&changed).await.unwrap();
    not_moved(&source.hypervisor.layout(web).await.unwrap_err(), "64 MiB, and its definition was changed");
    source.answers(web, "b").await;
}

/// The channel and its slot are part of the state.
#[tokio::test]
async fn a_machine_with_a_channel_moves_to_one_that_has_one() {
    let pair = Pair::new().await;
    let Pair { source, target, web } = &pair;
    source.hypervisor.create_channel(web).await.unwrap();
    let layout = source.hypervisor.layout(web).await.unwrap();
    not_moved(&target.hypervisor.receive(web, &layout).await.unwrap_err(), "here it has none");
    target.hypervisor.create_channel(web).await.unwrap();
    pair.complete().await;
    source.hypervisor.stop(web, StopMode::Force).await.unwrap();
    target.hypervisor.resume(web).await.unwrap();
    target.answers(web, "b").await;
    target.hypervisor.connect_channel(web).await.unwrap();
}

/// Its console and its power button are those of the place that it is in.
#[tokio::test]
async fn a_guest_that_has_moved_obeys_its_power_button() {
    let (source, target) = (Side::new().await, Side::new().await);
    let disk = source.bench.disk(OBEDIENT);
    let web = source.bench.define(&source.hypervisor, "web", &disk).await;
    target.bench.define(&target.hypervisor, "web", &disk).await;
    source.hypervisor.start(&web).await.unwrap();
    wait_for_log(&source.bench.file(&web, "console.log"), "u").await;
    let pair = Pair { source, target, web };
    pair.complete().await;
    let Pair { source, target, web } = &pair;
    source.hypervisor.stop(web, StopMode::Force).await.unwrap();
    target.hypervisor.resume(web).await.unwrap();
    target.hypervisor.stop(web, StopMode::Graceful).await.unwrap();
    assert!(!status(&target.hypervisor, web).await.running);
    assert_eq!(
        fs::read_to_string(target.bench.file(web, "console.log")).unwrap(),
        "",
        "it did not boot anew"
    );
}
