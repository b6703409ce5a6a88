//! [`Action`], plain data, and how the seed chooses the next one.

use ioward_model::{
    AdapterSpec, Apart, Back, BitRate, Boot, Class, DomainRef, Failover, FailureDomain, Guarantee, Guest,
    GuestMay, GuestOs, Intent, LinkState, MacAddress, Machine, Name, NamespaceRef, Options, Owner,
    PartitionSpec, Spec, Standby, State, VfCount, VfId, VfOp, VfRef, VfRequest, VfSettings, Vlan,
};
use ioward_pci::Bdf;

use crate::{
    gate::{Death, Trouble},
    host::{Host, PfFacts},
    random::Random,
};

/// One action.
#[derive(Clone, Debug)]
pub enum Action {
    /// A user asks for something and applies the plan at once.
    Ask { intent: Intent, options: Options, trouble: Trouble },
    /// A user makes a plan, and keeps it.
    KeepPlan { intent: Intent, options: Options },
    /// Applies the plan that was kept.
    ApplyKept,
    /// A partition requests an operation.
    Operate { partition: Name, op: VfOp },
    /// The driver in a guest sets its own MAC, bypassing the management partition.
    GuestSetsMac { vf: Bdf, mac: MacAddress },
    /// A guest turns itself off, or somebody ends a domain or a namespace; one of these that is off is started again.
    GuestEnds { partition: Name },
    /// An adapter is taken out; `pf` is any of its PFs.
    Unplug { pf: Bdf },
    /// The adapter is put back.
    Replug { pf: Bdf },
    /// Somebody writes `sriov_numvfs`.
    HandCount { pf: Bdf, count: u16 },
    /// Somebody binds or unbinds a VF that is not in use.
    HandBind { vf: VfId, driver: Option<String> },
    /// Somebody does something with a domain, or with libvirt.
    Virsh(Deed),
    /// The daemon compares the host with its state, and repairs what it may.
    Reconcile,
    /// The daemon is killed, a guest may end meanwhile, and the daemon is started again.
    Crash { ends: Option<Name> },
}

/// What people do with the domain, and what becomes of libvirt.
#[derive(Clone, Debug)]
pub enum Deed {
    Undefine,
    /// It is defined as it was.
    Define,
    Rename,
    /// A VF is taken out of the machine that runs.
    TakeOut(Name),
    /// A VF is taken out of what the domain starts with next.
    EditOut(Name),
    /// The daemon of libvirt's is killed, or stopped.
    LibvirtGoes,
    /// It answers nobody any more, and does nothing, until it is restarted.
    LibvirtHangs,
    LibvirtComes,
}

pub const OPEN: Options = Options { allow_management_nic: true, allow_disruption: true, force: true };

/// MACs chosen by drivers in guests begin with this byte, and no others do.
pub const OWN_MAC: u8 = 0x02;

pub const PARTITIONS: [&str; 4] = ["p0", "p1", DOMAIN, NAMESPACE];
/// The one that is a domain of libvirt's.
pub const DOMAIN: &str = "p2";
/// The one that is a network namespace.
pub const NAMESPACE: &str = "p3";
const VFS: [&str; 3] = ["a", "b", "c"];

/// Values of `guest_may` in these Specs. [`may`] restates what each allows, independently of the model.
pub const GUEST_MAY: [&str; 4] = [
    "{}",
    r#"["mac","vlan","trust","spoofchk","min_tx_rate","max_tx_rate","link_state","queues","interrupts","online","reset","failover","stats"]"#,
    r#"["mac","reset"]"#,
    r#"{"vlan":"100-110","max_tx_rate":"<=500Mbit","mac":"52:54:00:*","queues":"<=4"}"#,
];

/// Whether a value of [`GUEST_MAY`] allows the operation.
pub fn may(guest_may: &GuestMay, op: &VfOp) -> bool {
    let form = GUEST_MAY.iter().position(|form| parse(form) == *guest_may).unwrap();
    match (form, op) {
        (1, _) | (_, VfOp::List | VfOp::Get { .. } | VfOp::Stats { .. }) => true,
        (0, _) | (3.., VfOp::Reset { .. }) | (_, VfOp::Failover { .. }) => false,
        (2, VfOp::Reset { .. }) => true,
        (2, VfOp::Set { change, .. }) => VfSettings { mac: None, ..change.clone() }.is_empty(),
        (_, VfOp::Set { change, .. }) => {
            let rest =
                VfSettings { mac: None, vlan: None, max_tx_rate: None, queues: None, ..change.clone() };
            rest.is_empty()
                && change.mac.is_none_or(|mac| mac.bytes().starts_with(&[0x52, 0x54, 0]))
                && change.vlan.is_none_or(|vlan| (100..=110).contains(&vlan.id()))
                && change.max_tx_rate.is_none_or(|rate| (1..=500).contains(&rate.megabits()))
                && change.queues.is_none_or(|queues| queues <= 4)
        }
    }
}

fn parse(form: &str) -> GuestMay {
    serde_json::from_str(form).unwrap()
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Chooses the next action.
pub struct Chooser<'a> {
    pub random: &'a mut Random,
    pub host: &'a Host,
    pub state: &'a State,
}

impl Chooser<'_> {
    pub fn next(&mut self) -> Action {
        match self.random.below(100) {
            0..=37 => self.ask(),
            38..=41 => Action::KeepPlan { intent: self.intent(), options: self.options() },
            42..=45 => Action::ApplyKept,
            46..=66 => self.operate(),
            67..=69 => self.guest_sets_mac(),
            70..=71 => Action::GuestEnds { partition: self.partition() },
            72..=74 => Action::Virsh(self.deed()),
            75..=76 => Action::Unplug { pf: self.pf() },
            77..=83 => Action::Replug { pf: self.pf() },
            84..=87 => Action::HandCount { pf: self.pf(), count: self.random.pick(&[0, 0, 1, 2, 5]) },
            88..=91 => self.hand_bind(),
            92..=94 => Action::Reconcile,
            _ => {
                let ends = self.random.percent(30).then(|| self.partition());
                Action::Crash { ends }
            }
        }
    }

    fn ask(&mut self) -> Action {
        let (intent, options, death) = (self.intent(), self.options(), self.death());
        let random = &mut self.random;
        let mut trouble = Trouble::default();
        match random.below(100) {
            0..=19 => {
                trouble.failing.insert(1 + u32::from(random.below(24)));
            }
            20..=24 => {
                let first = 1 + random.below(16);
                trouble.failing.extend([first, first + 1 + random.below(8)].map(u32::from));
            }
            25..=29 => trouble.person_leaves = Some(1 + u32::from(random.below(20))),
            30..=34 => trouble.per_million = 60_000,
            35..=44 => trouble.libvirt_dies = Some(death),
            _ => {}
        }
        Action::Ask { intent, options, trouble }
    }

    pub fn death(&mut self) -> Death {
        let (at, is_away_for) = (1 + u32::from(self.random.below(6)), self.random.below(4).into());
        let hangs = self.random.percent(50).then(|| self.random.below(256).to_le_bytes()[0]);
        Death { at, is_away_for, hangs }
    }

    fn deed(&mut self) -> Deed {
        match self.random.below(16) {
            0 | 1 => Deed::Undefine,
            2..=4 => Deed::Define,
            5 => Deed::Rename,
            6..=8 => Deed::TakeOut(self.vf_name()),
            9 | 10 => Deed::EditOut(self.vf_name()),
            11 => Deed::LibvirtGoes,
            12 => Deed::LibvirtHangs,
            _ => Deed::LibvirtComes,
        }
    }

    fn options(&mut self) -> Options {
        Options {
            allow_management_nic: self.random.percent(30),
            allow_disruption: self.random.percent(40),
            force: self.random.percent(40),
        }
    }

    pub fn intent(&mut self) -> Intent {
        match self.random.below(13) {
            12 => Intent::Failover {
                partition: self.partition(),
                vf: self.vf_name(),
                back: self.random.percent(50),
            },
            10 => Intent::Evacuate { pf: self.pf(), leave_out: self.random.percent(50) },
            11 => Intent::Return { pf: self.pf() },
            0 => Intent::Remove { partition: self.partition() },
            1 => Intent::Start { partition: self.partition() },
            2 => Intent::Stop { partition: self.partition() },
            3 => {
                let vf = self.vf_name();
                let vf = self.request(vf);
                Intent::Attach { partition: self.partition(), vfs: vec![vf] }
            }
            4 => Intent::Detach { partition: self.partition(), vf: self.vf_name() },
            _ => Intent::Apply { spec: self.spec() },
        }
    }

    fn spec(&mut self) -> Spec {
        let mut spec = Spec { version: 1, ..Spec::default() };
        for pf in self.host.pfs.clone() {
            if self.random.percent(25) {
                let spare = self.random.maybe(20, |random| random.below(3));
                let vfs = if spare.is_some() { None } else { self.count(&pf) };
                spec.adapters.push(AdapterSpec { pf: pf.address, vfs, spare });
            }
        }
        for partition in PARTITIONS {
            if self.random.percent(35) {
                let partition = self.partition_spec(name(partition));
                spec.partitions.push(partition);
            }
        }
        spec
    }

    fn count(&mut self, pf: &PfFacts) -> Option<VfCount> {
        match self.random.below(10) {
            0 => None,
            1 => Some(VfCount::Exactly(0)),
            2 if pf.total <= 16 => Some(VfCount::Max),
            3 => Some(VfCount::Exactly(pf.total + 1)),
            _ => Some(VfCount::Exactly(1 + self.random.below(7))),
        }
    }

    fn partition_spec(&mut self, partition: Name) -> PartitionSpec {
        // The most common request is the present Spec with one change.
        if let Some(present) = self.state.partitions.get(&partition).filter(|_| self.random.percent(50)) {
            let mut spec = present.spec.clone();
            let is_machine = spec.machine().is_some();
            let named = VFS.iter().map(|vf| name(vf)).find(|vf| spec.vf(vf).is_none());
            match named.filter(|_| self.random.percent(60)) {
                Some(vf) => {
                    let request = self.request_of(is_machine, vf);
                    spec.vfs.push(request);
                }
                None if !spec.vfs.is_empty() => {
                    let at = usize::from(self.random.below(u16::try_from(spec.vfs.len()).unwrap()));
                    spec.vfs[at] = self.request_of(is_machine, spec.vfs[at].name.clone());
                }
                None => {}
            }
            return spec;
        }
        let mut vfs = Vec::new();
        for vf in VFS {
            if self.random.percent(45) {
                let is_machine = ![DOMAIN, NAMESPACE].contains(&partition.as_str());
                vfs.push(self.request_of(is_machine, name(vf)));
            }
        }
        let boot = Boot { disk: Some("/dev/null".into()), ..Boot::default() };
        let machine = Machine { cpus: if self.random.percent(10) { 2 } else { 1 }, ..Machine::new(boot) };
        let kind = match partition.as_str() {
            DOMAIN => DOMAIN.parse::<DomainRef>().unwrap().into(),
            NAMESPACE => NamespaceRef::Named(NAMESPACE.to_owned()).into(),
            _ => machine.into(),
        };
        if partition.as_str() == NAMESPACE {
            // What it can't have is refused, and shows nothing.
            vfs.retain(|vf| vf.class == Class::Network);
        }
        PartitionSpec {
            name: partition,
            kind,
            numa_node: self.random.maybe(20, |random| random.below(2).into()),
            guest: self.random.maybe(10, |_| Guest { os: Some(GuestOs::Linux), ..Guest::default() }),
            vfs,
        }
    }

    /// One of a machine may have a standby on a bridge. The guest of such a one may not set its MAC.
    fn request_of(&mut self, is_machine: bool, vf: Name) -> VfRequest {
        let request = self.request(vf);
        if !is_machine || request.class != Class::Network || !self.random.percent(30) {
            return request;
        }
        let standby = Standby::Bridge(self.random.pick(&["br0", "br1"]).parse().unwrap());
        let failover = Failover { standby, by: FailureDomain::Adapter, back: Back::Automatic };
        VfRequest { failover: Some(failover), guest_may: parse(GUEST_MAY[0]), ..request }
    }

    fn request(&mut self, vf: Name) -> VfRequest {
        let pf = self.random.pick(&self.host.pfs);
        let pinned = self.random.percent(40);
        let index = (pinned && self.random.percent(40)).then(|| self.random.below(pf.total.min(7) + 2));
        let random = &mut self.random;
        let class = if random.percent(4) { Class::Accelerator } else { pf.class };
        let mut request = VfRequest {
            pf: pinned.then_some(pf.address),
            index,
            guest_may: parse(random.pick(&GUEST_MAY)),
            ..VfRequest::new(vf, class)
        };
        if class == Class::Network {
            request.min_link_speed =
                random.maybe(10, |random| BitRate::from_megabits(random.pick(&[1_000, 25_000])));
        }
        if random.percent(15) {
            let other = VfRef::Own(name(random.pick(&VFS)));
            let by = random.pick(&[FailureDomain::Port, FailureDomain::Adapter, FailureDomain::NumaNode]);
            // One direction only: two requests that must be apart from each other are not a valid Spec.
            let others = [Apart { vf: other, by, prefer: random.percent(50) }];
            request.apart_from =
                others.into_iter().filter(|apart| apart.vf < VfRef::Own(request.name.clone())).collect();
        }
        let settings = self.settings(class, 20);
        VfRequest {
            mac: settings.mac.filter(|mac| mac.is_unicast()),
            vlan: settings.vlan,
            trust: settings.trust,
            spoofchk: settings.spoofchk,
            min_tx_rate: settings.min_tx_rate.map(Guarantee::Rate),
            max_tx_rate: settings.max_tx_rate,
            link_state: settings.link_state,
            queues: settings.queues,
            interrupts: settings.interrupts,
            ..request
        }
    }

    /// Some settings, each with this chance.
    fn settings(&mut self, class: Class, chance: u16) -> VfSettings {
        let random = &mut self.random;
        match class {
            Class::Network => VfSettings {
                mac: random.maybe(2 * chance, |random| {
                    MacAddress::new([0x52, 0x54, 0, 0, 0, 1 + random.next().to_be_bytes()[7] % 4])
                }),
                vlan: random.maybe(chance, |random| Vlan::new(95 + random.below(10)).unwrap()),
                trust: random.maybe(chance, |random| random.percent(50)),
                spoofchk: random.maybe(chance, |random| random.percent(50)),
                min_tx_rate: random.maybe(chance / 5, |_| BitRate::from_megabits(50)),
                max_tx_rate: random
                    .maybe(chance, |random| BitRate::from_megabits(random.pick(&[0, 100, 400, 600]))),
                link_state: random.maybe(chance / 5, |_| LinkState::Enable),
                ..VfSettings::default()
            },
            Class::Nvme => VfSettings {
                queues: random.maybe(chance, |random| 2 + random.below(7)),
                interrupts: random.maybe(chance, |random| 1 + random.below(8)),
                ..VfSettings::default()
            },
            _ => VfSettings::default(),
        }
    }

    pub fn operate(&mut self) -> Action {
        let held: Vec<_> = self.state.assignments().map(|(owner, _)| owner).collect();
        // Mostly for a VF that exists.
        let (partition, vf) = if held.is_empty() || self.random.percent(20) {
            (self.partition(), self.vf_name())
        } else {
            let Owner { partition, vf } = self.random.pick(&held);
            (partition, vf)
        };
        let op = self.op_on(&partition, vf);
        Action::Operate { partition, op }
    }

    /// An operation that this partition might request, mostly for a VF of its own.
    pub fn op_of(&mut self, partition: &Name) -> VfOp {
        let held =
            self.state.partitions.get(partition).map(|held| held.vfs.keys().cloned().collect::<Vec<_>>());
        let vf = match held.filter(|held| !held.is_empty() && !self.random.percent(10)) {
            Some(held) => self.random.pick(&held),
            None => self.vf_name(),
        };
        self.op_on(partition, vf)
    }

    fn op_on(&mut self, partition: &Name, vf: Name) -> VfOp {
        let class = self.state.partitions.get(partition).and_then(|held| Some(held.spec.vf(&vf)?.class));
        match self.random.below(10) {
            0 => VfOp::List,
            1 => VfOp::Get { vf },
            2 | 3 => VfOp::Reset { vf },
            4 => VfOp::Stats { vf },
            _ => {
                let mut change = self.settings(class.unwrap_or(Class::Network), 30);
                if class == Some(Class::Nvme) {
                    change.online = self.random.maybe(30, |random| random.percent(50));
                }
                // There is no message that changes nothing.
                if change.is_empty() { VfOp::Get { vf } } else { VfOp::Set { vf, change } }
            }
        }
    }

    fn guest_sets_mac(&mut self) -> Action {
        let view = self.host.machine.snapshot();
        let held: Vec<_> =
            Host::vf_views(&view).into_iter().filter(|(_, vf)| vf.held).map(|(at, _)| at).collect();
        let foreign = self.host.foreign(&view);
        let held: Vec<_> =
            held.into_iter().filter(|at| foreign.values().all(|vf| vf.address != *at)).collect();
        let [a, b, c, ..] = self.random.next().to_be_bytes();
        let mac = MacAddress::new([OWN_MAC, 0, 0, a, b, c]);
        if held.is_empty() {
            self.operate()
        } else {
            Action::GuestSetsMac { vf: self.random.pick(&held), mac }
        }
    }

    /// Picks an existing VF, unless there is none at all.
    fn hand_bind(&mut self) -> Action {
        let view = self.host.machine.snapshot();
        let all: Vec<_> = view
            .physical_functions
            .iter()
            .flat_map(|(pf, state)| (0..state.num_vfs).map(|index| VfId { pf: *pf, index }))
            .collect();
        if all.is_empty() {
            return self.ask();
        }
        let driver = self.random.percent(50).then(|| "vfio-pci".to_owned());
        Action::HandBind { vf: self.random.pick(&all), driver }
    }

    fn partition(&mut self) -> Name {
        let present: Vec<_> = self.state.partitions.keys().cloned().collect();
        if present.is_empty() || self.random.percent(5) {
            return name(self.random.pick(&PARTITIONS));
        }
        self.random.pick(&present)
    }

    fn vf_name(&mut self) -> Name {
        name(self.random.pick(&VFS))
    }

    fn pf(&mut self) -> Bdf {
        self.random.pick(&self.host.pfs).address
    }
}
