//! Two daemons move a partition between their hosts. What they say is carried by the test, which loses some of it; and the daemons are started
//! again anywhere. Partitions are processes, whose standing still is real.

// Test helpers are tests too, which the lints do not know.
#![allow(clippy::unwrap_used, clippy::panic)]

mod faults;

use std::{
    fs,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use ioward_fabric::sim::SimMachine;
use ioward_hypervisor::{
    Guard, Hypervisor, HypervisorError, StopMode,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_imp::{Clock, Imp, ImpError, Run};
use ioward_model::{
    EventKind, Intent, Migration, Name, Options, Spec, State, VfRequest,
    handover::{MoveId, MovedPartition, ToSource, ToTarget},
};
use tokio::sync::mpsc;

/// Turns a hang into a failure.
const BOUND: Duration = Duration::from_secs(60);

/// A partition: it lets go of each VF that is taken from it.
const PARTITION: &str = "echo started >&0; while read word rest; do [ \"$word\" = detach ] && echo released \"$rest\" >&0; done; \
                         exec sleep 100000";

struct Host {
    folder: tempfile::TempDir,
    machine: SimMachine,
    hypervisor: Arc<Guard>,
    /// `None`: its daemon does not run.
    imp: Option<Arc<Imp>>,
}

impl Host {
    async fn new() -> Self {
        Self::on(SimMachine::standard(1)).await
    }

    async fn on(machine: SimMachine) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = SimConfig {
            runtime_dir: folder.path().join("run"),
            program: "/bin/sh".into(),
            arguments: ["-c", PARTITION].map(Into::into).to_vec(),
            bounds: Bounds::default(),
        };
        let looked_at = machine.clone();
        let partitions = Arc::new(SimHypervisor::new(config).unwrap());
        let hypervisor = Arc::new(Guard::new(partitions, move |function| Ok(looked_at.facts(function))));
        let mut host = Self { folder, machine, hypervisor, imp: None };
        host.start_daemon().await;
        host
    }

    async fn start_daemon(&mut self) {
        self.imp = None;
        // Tasks of the one that ends let go of the state in their own time.
        let deadline = Instant::now() + BOUND;
        let (store, contents) = loop {
            match ioward_store::open(&self.folder.path().join("state")) {
                Err(ioward_store::StoreError::Locked { .. }) if Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                opened => break opened.unwrap(),
            }
        };
        let machine = self.machine.clone();
        let clock = Clock::by(move || u64::try_from(machine.now().as_millis()).unwrap());
        let run = Run { epoch: 1, boot: "boot".into(), clock };
        let fabric = Arc::new(self.machine.fabric());
        let hypervisor = Arc::clone(&self.hypervisor);
        let imp = Imp::new(fabric, hypervisor, Box::new(store), contents, run);
        imp.adopt().await.unwrap();
        self.imp = Some(imp);
    }

    fn imp(&self) -> &Arc<Imp> {
        self.imp.as_ref().unwrap()
    }

    fn state(&self) -> State {
        self.imp().state()
    }

    /// What its events say of the partition's moves.
    fn told(&self) -> Vec<String> {
        let events = self.imp().events().into_iter().map(|event| event.kind);
        let moves = events.filter(|kind| {
            matches!(
                kind,
                EventKind::PartitionLeaves { .. }
                    | EventKind::PartitionLeft { .. }
                    | EventKind::PartitionStays { .. }
                    | EventKind::PartitionCame { .. }
            )
        });
        moves.map(|kind| kind.to_string()).collect()
    }

    fn owns(&self) -> bool {
        self.state().partitions.contains_key(&web())
    }

    async fn ask(&self, intent: Intent) -> Result<(), ImpError> {
        let is_done = self.try_ask(intent).await?;
        assert!(is_done);
        Ok(())
    }

    /// Whether the plan was carried out to its end.
    async fn try_ask(&self, intent: Intent) -> Result<bool, ImpError> {
        let plan = self.imp().plan(&intent, &Options::default()).await?;
        let (sender, mut events) = mpsc::unbounded_channel();
        self.imp().apply(plan, sender).await?;
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event.kind);
        }
        Ok(matches!(last, Some(EventKind::PlanDone { .. })))
    }

    async fn with_web() -> Self {
        let host = Self::new().await;
        host.ask(Intent::Apply { spec: spec("") }).await.unwrap();
        host
    }

    /// Whether its process runs, and does not stand still: once it has settled.
    async fn runs(&self) -> bool {
        let all = self.hypervisor.partitions().await.unwrap();
        let Some(pid) = all.iter().find(|it| it.name == web()).and_then(|it| it.pid) else { return false };
        // One that waits for its state has not booted, which its process does not show.
        if self.hypervisor.migration(&web()).await.unwrap() == Migration::Complete {
            return false;
        }
        // Its process is told to go on by a task of its own.
        let deadline = Instant::now() + BOUND;
        loop {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let Some((_, state)) = stat.rsplit_once(')') else { return false };
            if !state.trim_start().starts_with('T') {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn web() -> Name {
    "web".parse().unwrap()
}

fn spec(more: &str) -> Spec {
    let text =
        format!("version = 1\n[[partition]]\nname = \"web\"\nboot = {{ disk = \"/dev/null\" }}\n{more}");
    Spec::parse(text.as_bytes()).unwrap()
}

fn id(n: u8) -> MoveId {
    MoveId::from_random([n; 16])
}

/// Carries what two daemons say about one move.
struct Carrier {
    id: MoveId,
    moved: MovedPartition,
    to_source: Vec<ToSource>,
    to_target: Vec<ToTarget>,
    out: Option<OwnedFd>,
    into: Option<OwnedFd>,
    /// How often each side has been asked.
    rounds: usize,
}

impl Carrier {
    async fn begin(id: MoveId, source: &Host) -> Self {
        Self::begin_with(id, source, Vec::new()).await
    }

    /// With these VFs kept for it at the other host.
    async fn begin_with(id: MoveId, source: &Host, wanted: Vec<VfRequest>) -> Self {
        let moved = source.imp().begin_move(id, &web(), "the other one", wanted).await.unwrap();
        Self { id, moved, to_source: Vec::new(), to_target: Vec::new(), out: None, into: None, rounds: 0 }
    }

    /// Asks both sides once. Whether the source has nothing more to say.
    async fn round(&mut self, source: &Host, target: &Host) -> bool {
        self.rounds += 1;
        let said = std::mem::take(&mut self.to_source);
        let leaving = source.imp().move_source_hears(self.id, &said).await;
        self.to_target.extend(leaving.messages);
        let said = std::mem::take(&mut self.to_target);
        let offer = Some((&self.moved, "the first one"));
        self.to_source.extend(target.imp().move_target_hears(self.id, &said, offer).await.unwrap());
        if let Some(way) = source.imp().move_way(self.id).await {
            self.out = Some(way);
        }
        if let Some(way) = target.imp().move_way(self.id).await {
            self.into = Some(way);
        }
        if self.out.is_some() && self.into.is_some() {
            let (out, into) = (self.out.take().unwrap(), self.into.take().unwrap());
            // Not waited for: it ends with either side.
            thread::spawn(move || std::io::copy(&mut UnixStream::from(out), &mut UnixStream::from(into)));
        }
        leaving.is_over && source.state().moves.is_empty() && target.state().moves.is_empty()
    }

    async fn until_over(&mut self, source: &Host, target: &Host) {
        let begun = Instant::now();
        while !self.round(source, target).await {
            assert!(begun.elapsed() < BOUND, "{:?}\n{:?}", source.state().moves, target.state().moves);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_moves_to_another_daemon_and_back() {
    let (mut source, mut target) = (Host::with_web().await, Host::new().await);
    for n in 1..=3 {
        let was = source.state().partitions;
        let mut carrier = Carrier::begin(id(n), &source).await;
        carrier.until_over(&source, &target).await;
        assert!(!source.owns() && !source.runs().await, "{:?}", source.state());
        assert_eq!(target.state().partitions, was, "with all that was noted of it");
        assert!(target.runs().await);
        assert!(source.hypervisor.partitions().await.unwrap().is_empty(), "nothing is left of it");
        let left = [
            "partition web is being moved to the other one",
            "partition web has been moved to the other one, and is not this host's any more",
        ];
        assert!(source.told().ends_with(&left.map(str::to_owned)), "{:?}", source.told());
        assert!(target.told().last().unwrap().ends_with(", and runs here"), "{:?}", target.told());
        std::mem::swap(&mut source, &mut target);
    }
}

/// Each time with daemons that are started again after another number of rounds, and with messages that are lost.
#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_are_started_again_in_between_lose_nothing() {
    let (mut moved, mut kept) = (0, 0);
    for n in 0..48_u8 {
        let (mut source, mut target) = (Host::with_web().await, Host::new().await);
        let mut carrier = Carrier::begin(id(n), &source).await;
        let (again, which, loses) = (usize::from(n / 4), n % 2 == 0, n % 4 >= 2);
        let begun = Instant::now();
        while !carrier.round(&source, &target).await {
            assert!(begun.elapsed() < BOUND, "{n}: {:?}\n{:?}", source.state().moves, target.state().moves);
            assert!(!(source.owns() && target.owns()), "{n}: two own it");
            if carrier.rounds == again {
                if which { source.start_daemon().await } else { target.start_daemon().await }
            }
            if loses && carrier.rounds.is_multiple_of(3) {
                (carrier.to_source, carrier.to_target) = (Vec::new(), Vec::new());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(source.owns() != target.owns(), "{n}: it has one owner");
        let (owner, other) = if source.owns() { (&source, &target) } else { (&target, &source) };
        assert!(owner.runs().await, "{n}: it stands still");
        assert!(other.hypervisor.partitions().await.unwrap().is_empty(), "{n}: a machine is left");
        if target.owns() { moved += 1 } else { kept += 1 }
    }
    println!("{moved} moved, {kept} kept");
    assert!(moved > 0 && kept > 0, "{moved} moved, {kept} kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_is_cancelled_before_the_decision_and_nothing_else_is_done_to_it_meanwhile() {
    let (source, target) = (Host::with_web().await, Host::new().await);
    let mut carrier = Carrier::begin(id(1), &source).await;
    let again = source.imp().begin_move(id(2), &web(), "b", Vec::new()).await.unwrap_err();
    assert!(again.to_string().contains("is being moved already"), "{again}");
    let busy = source.ask(Intent::Remove { partition: web() }).await.unwrap_err();
    assert!(matches!(&busy, ImpError::Moving { .. }), "{busy}");
    carrier.round(&source, &target).await;
    // The same name can't come into being there meanwhile.
    let busy = target.ask(Intent::Apply { spec: spec("") }).await.unwrap_err();
    assert!(matches!(&busy, ImpError::Moving { .. }), "{busy}");
    assert!(source.imp().cancel_move(id(1)).await);
    carrier.until_over(&source, &target).await;
    assert!(source.owns() && source.runs().await && !target.owns());
    assert!(!source.imp().cancel_move(id(1)).await, "it is over");
    let stays = "partition web stays here, and is not moved to the other one: somebody has cancelled it";
    assert_eq!(source.told().last().unwrap(), stays);
    assert!(target.told().is_empty(), "{:?}", target.told());
    target.ask(Intent::Apply { spec: spec("") }).await.unwrap();
    // Now there is one of the name.
    let mut carrier = Carrier::begin(id(3), &source).await;
    carrier.until_over(&source, &target).await;
    assert!(source.owns() && source.runs().await && target.owns() && target.runs().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_moved_is_refused_at_once() {
    let source = Host::new().await;
    let refused = |error: ImpError| error.to_string();
    let error = source.imp().begin_move(id(1), &web(), "b", Vec::new()).await.unwrap_err();
    assert!(matches!(error, ImpError::Hypervisor(HypervisorError::NoSuchPartition(_))), "{error}");
    let vf = "[[partition.vf]]\nname = \"net0\"\nclass = \"network\"\n";
    source.ask(Intent::Apply { spec: spec(vf) }).await.unwrap();
    let error = refused(source.imp().begin_move(id(1), &web(), "b", Vec::new()).await.unwrap_err());
    assert!(error.contains("it holds net0") && error.contains("ioward detach web net0"), "{error}");
    assert!(source.state().moves.is_empty());
}

/// What a host still has noted of a move that has come to nothing is in nobody's way when the partition is gone, or comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_kept_a_partition_and_removed_it_takes_it_in_from_another() {
    let (mut here, there) = (Host::with_web().await, Host::with_web().await);
    let _carrier = Carrier::begin(id(1), &here).await;
    // Its target never hears of it.
    assert!(here.imp().cancel_move(id(1)).await);
    assert_eq!(here.state().moves.len(), 1);
    // Its guest is deaf: it is killed.
    here.hypervisor.stop(&web(), StopMode::Force).await.unwrap();
    here.ask(Intent::Remove { partition: web() }).await.unwrap();
    let mut carrier = Carrier::begin(id(2), &there).await;
    carrier.until_over(&there, &here).await;
    assert!(here.owns() && here.runs().await && !there.owns());

    let mut kept = Host::with_web().await;
    let _carrier = Carrier::begin(id(3), &kept).await;
    assert!(kept.imp().cancel_move(id(3)).await);
    kept.hypervisor.stop(&web(), StopMode::Force).await.unwrap();
    kept.ask(Intent::Remove { partition: web() }).await.unwrap();
    kept.start_daemon().await;
    assert!(kept.state().moves.is_empty(), "nothing is left of it");
    here.start_daemon().await;
    assert!(here.owns() && here.runs().await);
}

/// The source's host has burnt down.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_accepts_a_partition_whose_source_is_gone_for_good() {
    let (source, mut target) = (Host::with_web().await, Host::new().await);
    let mut carrier = Carrier::begin(id(1), &source).await;
    let begun = Instant::now();
    // Until all is there, and the source has not heard it.
    while !carrier.to_source.contains(&ToSource::There) {
        assert!(!target.imp().accept_move(&web()).await, "not everything is there yet");
        carrier.round(&source, &target).await;
        assert!(begun.elapsed() < BOUND);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(source);
    target.start_daemon().await;
    assert!(!target.owns() && !target.runs().await, "nobody has given it");
    assert!(target.imp().accept_move(&web()).await);
    assert!(target.owns() && target.runs().await);
    assert!(!target.imp().accept_move(&web()).await);
}
