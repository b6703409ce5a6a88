//! Adapters that have faults on either side while a partition moves: before its VFs are taken out, while its state is on the way, and before it
//! has VFs at its new host; with messages that are lost. Whatever happens: it is never owned twice and
//! never lost, the move ends, others keep what they hold, and whoever has a standby that works is not cut off.

use std::time::{Duration, Instant};

use ioward_fabric::sim::{Adapter, Severity, Silence, SimMachine};
use ioward_hypervisor::Hypervisor;
use ioward_imp::ImpError;
use ioward_model::{Class, Intent, Name, Options, VfRequest, fault_of};
use ioward_pci::Bdf;

use super::{BOUND, Carrier, Host, id, web};

/// Stories in an ordinary run; `IOWARD_SEEDS` says another number, `IOWARD_SEED` which one alone.
const SEEDS: u64 = 40;
/// An adapter serves again, or is locked out, within this. Seconds of the machine's time.
const ENDS_WITHIN: u64 = 400;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.below(among.len() as u64)).unwrap()]
    }
}

#[derive(Debug, Default)]
struct Counts {
    faults: usize,
    moved: usize,
    kept: usize,
    /// Moves that could not be begun, since the adapter of the partition's VFs was out for good.
    not_begun: usize,
    /// Partitions whose host had no adapter left for them, or none without disturbing others.
    without_vfs: usize,
    /// VFs of others that went over to their standbys.
    failed_over: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn adapters_with_faults_on_either_side_of_a_move() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("IOWARD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("IOWARD_SEEDS").unwrap_or(SEEDS),
    };
    let (mut counts, told) = (Counts::default(), seeds.end - seeds.start);
    for seed in seeds {
        Story::tell(seed, &mut counts).await;
    }
    println!("{told} seeds; {} faults on either side of a move: {counts:?}", counts.faults);
    assert!(told < 40 || counts.faults > 80 && counts.moved > 5 && counts.failed_over > 5, "{counts:?}");
}

/// Three network adapters: for a pair of VFs, two are enough.
fn machine(seed: u64) -> SimMachine {
    let nic = || Adapter::gigabit().reports_health();
    SimMachine::builder(seed).adapter(nic()).adapter(nic()).adapter(nic()).build()
}

/// `web`, which moves, has a VF; another partition has a pair, and stays.
fn spec(with_web: bool, of_other: &str) -> ioward_model::Spec {
    let web = "[[partition]]\nname = \"web\"\nboot = { disk = \"/dev/null\" }\n\
               [[partition.vf]]\nname = \"net0\"\nclass = \"network\"\n";
    let other = format!(
        "[[partition]]\nname = \"{of_other}\"\nboot = {{ disk = \"/dev/null\" }}\n\
         [[partition.vf]]\nname = \"a\"\nclass = \"network\"\nfailover = {{ standby = \"b\" }}\n\
         [[partition.vf]]\nname = \"b\"\nclass = \"network\"\n"
    );
    let text = format!("version = 1\n{}{other}", if with_web { web } else { "" });
    ioward_model::Spec::parse(text.as_bytes()).unwrap()
}

struct Story {
    seed: u64,
    random: Random,
    /// The first one has the partition in the beginning.
    hosts: [Host; 2],
    /// No adapter has a fault for now.
    is_calm: bool,
    /// Adapters that were taken out, and of which host.
    out: Vec<(usize, Bdf)>,
}

impl Story {
    async fn tell(seed: u64, counts: &mut Counts) {
        let hosts = [Host::on(machine(seed)).await, Host::on(machine(seed + 1)).await];
        hosts[0].ask(Intent::Apply { spec: spec(true, "db") }).await.unwrap();
        hosts[1].ask(Intent::Apply { spec: spec(false, "mail") }).await.unwrap();
        let mut story = Self { seed, random: Random(seed), hosts, is_calm: false, out: Vec::new() };
        let wanted = story.hosts[0].state().partitions[&web()].spec.vfs.clone();
        story.pass(counts).await;
        if !story.departs(counts).await {
            counts.not_begun += 1;
            story.ends(counts).await;
            return;
        }
        let owner = story.moves(&wanted, counts).await;
        let ended = if owner == 1 { &mut counts.moved } else { &mut counts.kept };
        *ended += 1;
        story.gets_vfs(owner, wanted, counts).await;
        story.ends(counts).await;
    }

    /// A second passes on both hosts, and an adapter may have a fault.
    async fn pass(&mut self, counts: &mut Counts) {
        for at in 0..2 {
            if !self.is_calm && self.random.percent(40) {
                counts.faults += usize::from(self.strike(at));
            }
            let host = &self.hosts[at];
            host.machine.advance(Duration::from_secs(1));
            host.imp().reconcile().await.unwrap();
            self.is_sound(at).await;
        }
    }

    /// Whether an adapter has a fault now.
    fn strike(&mut self, at: usize) -> bool {
        let machine = &self.hosts[at].machine;
        if let Some(index) = self.out.iter().position(|(of, _)| *of == at)
            && self.random.percent(50)
        {
            let (_, pf) = self.out.remove(index);
            machine.replug(pf).unwrap();
            return false;
        }
        let pfs = machine.physical_functions();
        if pfs.is_empty() {
            return false;
        }
        let pf = self.random.pick(&pfs);
        let silence = self.random.pick(&[
            Silence::For(1_500_000_000),
            Silence::For(3_000_000_000),
            Silence::UntilReset,
            Silence::UntilRebound,
            Silence::ForGood,
        ]);
        match self.random.below(10) {
            0..=2 => machine.report_error(pf, Severity::NonFatal, None).is_ok(),
            3..=5 => machine.report_error(pf, Severity::Fatal, Some(silence)).is_ok(),
            6 => machine.fall_silent(pf, silence).is_ok(),
            7 | 8 => machine.report_health(pf, "fw", silence).is_ok(),
            _ => {
                self.out.push((at, pf));
                machine.unplug(pf)
            }
        }
    }

    /// What must be so whatever happens, after a look.
    async fn is_sound(&self, at: usize) {
        let (seed, host) = (self.seed, &self.hosts[at]);
        let found = host.imp().look().await.unwrap();
        let state = host.state();
        for pair in state.failover_pairs() {
            let works = pair.fault_of_standby(&found).is_none();
            let is_cut_off =
                pair.primary.failed_over.is_none() && fault_of(&found, pair.primary).is_some() && works;
            assert!(!is_cut_off, "{seed}: {} is cut off, and its standby works", pair.owner);
        }
        let other: Name = if at == 0 { "db" } else { "mail" }.parse().unwrap();
        assert_eq!(state.partitions[&other].vfs.len(), 2, "{seed}: {other} has lost a VF");
        let owners = self.hosts.iter().filter(|host| host.imp.is_some() && host.owns()).count();
        assert!(owners <= 1, "{seed}: two own it");
    }

    /// Makes a plan and carries it out, again and again while an adapter is waited for. Whether it could be.
    async fn asks(&mut self, at: usize, intent: Intent, counts: &mut Counts) -> bool {
        for second in 0..ENDS_WITHIN {
            // Or no adapter would ever serve for long.
            self.is_calm = second > 10;
            match self.hosts[at].try_ask(intent.clone()).await {
                Ok(true) => return true,
                // It has failed, and is undone as far as that goes.
                Ok(false) | Err(ImpError::Refused { .. } | ImpError::Busy) => {}
                Err(error) => panic!("{}: {error}", self.seed),
            }
            self.pass(counts).await;
        }
        false
    }

    async fn departs(&mut self, counts: &mut Counts) -> bool {
        let asked = self.asks(0, Intent::Depart { partition: web() }, counts).await;
        assert!(self.hosts[0].owns(), "{}: it has not moved yet", self.seed);
        asked
    }

    /// Carries the move to its end; whose the partition is then.
    async fn moves(&mut self, wanted: &[VfRequest], counts: &mut Counts) -> usize {
        self.is_calm = false;
        let number = u8::try_from(self.seed % 250).unwrap();
        let mut carrier = Carrier::begin_with(id(number), &self.hosts[0], wanted.to_vec()).await;
        let begun = Instant::now();
        while !carrier.round(&self.hosts[0], &self.hosts[1]).await {
            let [source, target] = &self.hosts;
            let seed = self.seed;
            assert!(
                begun.elapsed() < BOUND,
                "{seed}: {:?}\n{:?}",
                source.state().moves,
                target.state().moves
            );
            assert!(!(source.owns() && target.owns()), "{seed}: two own it");
            if carrier.rounds.is_multiple_of(2) {
                self.pass(counts).await;
            }
            if self.random.percent(15) {
                (carrier.to_source, carrier.to_target) = (Vec::new(), Vec::new());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let owns = self.hosts.each_ref().map(Host::owns);
        assert!(owns[0] != owns[1], "{}: it has one owner", self.seed);
        let owner = usize::from(owns[1]);
        assert!(self.hosts[owner].runs().await, "{}: it stands still", self.seed);
        let machines = self.hosts[1 - owner].hypervisor.partitions().await.unwrap();
        assert!(machines.iter().all(|machine| machine.name != web()), "{}: a machine is left", self.seed);
        owner
    }

    /// It gets VFs where it is now, once an adapter serves there, if one ever does.
    async fn gets_vfs(&mut self, owner: usize, vfs: Vec<VfRequest>, counts: &mut Counts) {
        let intent = Intent::Attach { partition: web(), vfs };
        if self.asks(owner, intent.clone(), counts).await {
            assert_eq!(self.hosts[owner].state().partitions[&web()].vfs.len(), 1, "{}", self.seed);
            return;
        }
        counts.without_vfs += 1;
        let found = self.hosts[owner].imp().look().await.unwrap();
        let nics = found.physical_functions.iter().filter(|pf| pf.class == Class::Network);
        let usable = nics.filter(|pf| pf.service.is_serving() && pf.out_of_service.is_none());
        let usable: Vec<_> = usable.filter(|pf| pf.vfs_available > 0).map(|pf| pf.address).collect();
        // What is left may have to be taken from others for a while, which nobody has allowed.
        let options = Options { allow_disruption: true, ..Options::default() };
        let is_possible = self.hosts[owner].imp().plan(&intent, &options).await.is_ok();
        assert!(usable.is_empty() || is_possible, "{}: {usable:?} serve, and it has no VF", self.seed);
    }

    /// Nothing happens any more: each adapter serves or is locked out, and nobody has been forgotten.
    async fn ends(&mut self, counts: &mut Counts) {
        for at in 0..2 {
            for _ in 0..ENDS_WITHIN {
                let host = &self.hosts[at];
                host.machine.advance(Duration::from_secs(1));
                host.imp().reconcile().await.unwrap();
                let found = host.imp().look().await.unwrap();
                if !found.physical_functions.iter().any(|pf| pf.service.is_waited_for()) {
                    break;
                }
            }
            self.is_sound(at).await;
            let found = self.hosts[at].imp().look().await.unwrap();
            let waiting = found.physical_functions.iter().find(|pf| pf.service.is_waited_for());
            assert_eq!(waiting.map(|pf| (pf.address, pf.service.to_string())), None, "{}", self.seed);
            let state = self.hosts[at].state();
            assert!(state.moves.is_empty(), "{}: {:?}", self.seed, state.moves);
            counts.failed_over +=
                state.failover_pairs().filter(|pair| pair.primary.failed_over.is_some()).count();
        }
        let owners = self.hosts.iter().filter(|host| host.owns()).count();
        assert_eq!(owners, 1, "{}: it has one owner", self.seed);
    }
}
