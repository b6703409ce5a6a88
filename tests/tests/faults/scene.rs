//! [`Scene`]: a simulated machine whose fabric can be held up in the middle of an operation, machines that are plain data, and
//! channels whose guest ends are in the hands of the test.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use ioward_fabric::{
    Fabric, FabricError,
    sim::{Adapter, Severity, Silence, SimFabric, SimMachine},
};
use ioward_hypervisor::{
    Accelerator, Adoptable, ChannelEnd, Hypervisor, HypervisorError, HypervisorEvent, Obstacle,
    PartitionStatus, StopMode,
};
use ioward_imp::{Imp, Run};
use ioward_model::{
    DomainRef, EventKind, Halt, Intent, Inventory, KindName, Name, Options, Owner, PartitionKind,
    PartitionSpec, Spec, StandbyNic, VfId, VfOp, VfSettings, VfStatistics,
};
use ioward_pci::Bdf;
use ioward_store::{Contents, MemoryFile, StateFile, Store};
use ioward_tests::guest_end::GuestEnd;
use tokio::sync::{mpsc, watch};

/// Turns a hang into a failure. Nothing here waits for it to pass.
const BOUND: Duration = Duration::from_secs(60);

/// The name of a domain that is not there.
pub const NO_DOMAIN: &str = "none";

pub const NIC: &str = "0000:01:00.0";

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn vf(index: u16) -> VfId {
    VfId { pf: NIC.parse().unwrap(), index }
}

pub fn set_mac(mac: &str) -> VfOp {
    VfOp::Set { vf: name("net0"), change: VfSettings { mac: mac.parse().ok(), ..VfSettings::default() } }
}

/// One partition with one VF, whose MAC it may set.
pub fn partition(name: &str, index: u16, mac: &str) -> String {
    format!(
        "[[partition]]\nname = \"{name}\"\nboot = {{ disk = \"/dev/null\" }}\n[[partition.vf]]\nname = \"net0\"\n\
         class = \"network\"\npf = \"{NIC}\"\nindex = {index}\nmac = \"{mac}\"\nguest_may = [\"mac\", \"reset\"]\n"
    )
}

/// Which calls of the fabric wait, and how many do.
#[derive(Debug, Default)]
struct Held {
    closed: BTreeSet<&'static str>,
    /// Those who come from now on pass; those who wait go on waiting.
    passing: BTreeSet<&'static str>,
    waiting: BTreeMap<&'static str, usize>,
}

/// A gate that calls of the fabric go through. One that is held up has taken effect already, and does not return.
#[derive(Debug, Default)]
pub struct Gate(watch::Sender<Held>);

impl Gate {
    pub fn close(&self, call: &'static str) {
        self.0.send_modify(|held| _ = held.closed.insert(call));
    }

    pub fn open(&self, call: &'static str) {
        self.0.send_modify(|held| _ = held.closed.remove(call));
    }

    /// Holds up no more calls than those that are.
    pub fn let_pass(&self, call: &'static str) {
        self.0.send_modify(|held| _ = held.passing.insert(call));
    }

    /// Waits until so many calls are held up.
    pub async fn is_reached(&self, call: &'static str, times: usize) {
        let reached = |held: &Held| held.waiting.get(call).copied().unwrap_or(0) >= times;
        let reached = async { self.0.subscribe().wait_for(reached).await.map(drop) };
        tokio::time::timeout(BOUND, reached)
            .await
            .unwrap_or_else(|_| panic!("{call} is not called"))
            .unwrap();
    }

    async fn pass(&self, call: &'static str) {
        {
            let held = self.0.borrow();
            if !held.closed.contains(call) || held.passing.contains(call) {
                return;
            }
        }
        self.0.send_modify(|held| *held.waiting.entry(call).or_default() += 1);
        let _ = self.0.subscribe().wait_for(|held| !held.closed.contains(call)).await;
        self.0.send_modify(|held| *held.waiting.entry(call).or_default() -= 1);
    }
}

struct GatedFabric {
    fabric: SimFabric,
    gate: Arc<Gate>,
}

#[async_trait]
impl Fabric for GatedFabric {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        let found = self.fabric.identify().await;
        self.gate.pass("identify").await;
        found
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.fabric.set_autoprobe(pf, on).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.fabric.set_vf_count(pf, count).await
    }

    async fn recover(&self, pf: Bdf, how: ioward_model::Recovery) -> Result<(), FabricError> {
        self.fabric.recover(pf, how).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.fabric.vf_address(vf).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.fabric.driver(vf).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.fabric.bind(vf, driver).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        let result = self.fabric.reset(vf).await;
        self.gate.pass("reset").await;
        result
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        let settings = self.fabric.settings(vf).await;
        self.gate.pass("settings").await;
        settings
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        let result = self.fabric.configure(vf, change).await;
        self.gate.pass("configure").await;
        if vf.pf.to_string() == NIC {
            self.gate.pass("configure at the NIC").await;
        }
        result
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.fabric.statistics(vf).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.fabric.is_open(vf).await
    }

    async fn changes(&self) -> mpsc::Receiver<()> {
        self.fabric.changes().await
    }
}

#[derive(Default)]
struct Machine {
    kind: KindName,
    running: bool,
    /// Why it executes nothing.
    halted: Option<Halt>,
    gone: bool,
    channel: bool,
    vfs: BTreeMap<Name, Bdf>,
    standbys: BTreeMap<Name, StandbyNic>,
    /// The guest's end of the latest connection, until somebody takes it.
    guest: Option<UnixStream>,
    /// It is a container: agents connect to it, and this is the management partition's end of the one that waits.
    waiting: Option<Option<UnixStream>>,
}

/// Machines as plain data, with channels.
#[derive(Default)]
pub struct Machines {
    gate: Arc<Gate>,
    /// The domain that there is, which is no partition at first.
    pub domain: Mutex<Option<Adoptable>>,
    all: Mutex<BTreeMap<Name, Machine>>,
    connected: tokio::sync::Notify,
    listener: Mutex<Option<mpsc::Sender<HypervisorEvent>>>,
    silent: AtomicBool,
    asked: AtomicUsize,
}

impl Machines {
    /// While it is silent, it gives VFs to partitions without an answer, and no guest lets go of one.
    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// The VFs that a partition has.
    pub fn vfs(&self, partition: &str) -> usize {
        self.with(&name(partition), |machine| machine.vfs.len()).unwrap()
    }

    /// Whether a partition has a VF, and the MAC of its standby on a bridge.
    pub fn pair(&self, partition: &str, vf: &str) -> (bool, Option<String>) {
        let standby = |machine: &Machine| machine.standbys.get(&name(vf)).map(|nic| nic.mac.to_string());
        self.with(&name(partition), |machine| (machine.vfs.contains_key(&name(vf)), standby(machine)))
            .unwrap()
    }

    /// Somebody else starts a partition, or ends it, and nobody is told.
    pub fn turn(&self, partition: &str, running: bool) {
        self.with(&name(partition), |machine| machine.running = running).unwrap();
    }

    /// A machine halts, or goes on, and nobody is told.
    pub fn halt(&self, partition: &str, halted: Option<Halt>) {
        self.with(&name(partition), |machine| machine.halted = halted).unwrap();
    }

    /// Somebody undefines a domain, or defines it anew, and nobody is told.
    pub fn undefine(&self, partition: &str, gone: bool) {
        self.with(&name(partition), |machine| machine.gone = gone).unwrap();
    }

    /// How often it was asked for something that libvirt would be asked for in turn.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// From now on it is agents that connect to its channel.
    pub fn listen(&self, partition: &str) {
        self.with(&name(partition), |machine| machine.waiting = Some(None)).unwrap();
    }

    /// An agent connects. Nobody is told.
    pub fn connect(&self, partition: &str) -> GuestEnd {
        let (imp, guest) = UnixStream::pair().unwrap();
        self.with(&name(partition), |machine| machine.waiting = Some(Some(imp))).unwrap();
        GuestEnd::new(guest).unwrap()
    }

    /// Tells whoever follows, once somebody does.
    pub async fn tell(&self, event: HypervisorEvent) {
        let listens = async {
            loop {
                let listener = self.listener.lock().unwrap().clone();
                match listener {
                    Some(listener) => return listener,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        let listener = tokio::time::timeout(BOUND, listens)
            .await
            .unwrap_or_else(|_| panic!("nobody follows the hypervisor"));
        listener.send(event).await.unwrap();
    }

    fn with<T>(
        &self,
        partition: &Name,
        change: impl FnOnce(&mut Machine) -> T,
    ) -> Result<T, HypervisorError> {
        let mut all = self.all.lock().unwrap();
        let machine = all.get_mut(partition);
        machine.map(change).ok_or_else(|| HypervisorError::NoSuchPartition(partition.clone()))
    }

    /// The guest's end of its channel, once there is one.
    pub async fn guest(&self, partition: &str) -> GuestEnd {
        loop {
            let connected = self.connected.notified();
            if let Some(end) = self.with(&name(partition), |machine| machine.guest.take()).unwrap() {
                return GuestEnd::new(end).unwrap();
            }
            connected.await;
        }
    }
}

#[async_trait]
impl Hypervisor for Machines {
    async fn check(&self) -> Result<Accelerator, HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        Ok(Accelerator::Kvm)
    }

    async fn check_definition(&self, spec: &PartitionSpec) -> Result<Vec<Obstacle>, HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let is_there = !matches!(&spec.kind, PartitionKind::Domain(domain) if domain.as_str() == NO_DOMAIN);
        let obstacle = Obstacle {
            required: format!("a {}", spec.kind),
            found: "none of that name".into(),
            remedy: "virsh list --all shows them".into(),
        };
        Ok(if is_there { Vec::new() } else { vec![obstacle] })
    }

    async fn define(&self, spec: &PartitionSpec) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.gate.pass("define").await;
        self.all.lock().unwrap().entry(spec.name.clone()).or_default().kind = spec.kind.name();
        Ok(())
    }

    async fn undefine(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.all.lock().unwrap().remove(partition);
        Ok(())
    }

    async fn start(&self, partition: &Name) -> Result<Accelerator, HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.with(partition, |machine| (machine.running, machine.halted) = (true, None))?;
        self.gate.pass("start").await;
        Ok(Accelerator::Kvm)
    }

    async fn stop(&self, partition: &Name, _: StopMode) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.with(partition, |machine| machine.running = false)
    }

    async fn reset(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            let (partition, why) = (partition.clone(), "it does not answer".to_owned());
            return Err(HypervisorError::NoReset { partition, why });
        }
        self.with(partition, |machine| machine.halted = None)
    }

    async fn attach_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.with(&owner.partition, |machine| _ = machine.vfs.insert(owner.vf.clone(), function))?;
        if self.silent.load(Ordering::Relaxed) {
            let (what, why) = (format!("give {function} to web"), "no answer".to_owned());
            return Err(HypervisorError::InDoubt { partition: owner.partition.clone(), what, why });
        }
        Ok(())
    }

    async fn detach_vf(&self, owner: &Owner, _: bool) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            let (partition, what) = (owner.partition.clone(), format!("let go of {}", owner.vf));
            return Err(HypervisorError::GuestUnresponsive { partition, what, after: BOUND });
        }
        self.with(&owner.partition, |machine| _ = machine.vfs.remove(&owner.vf))
    }

    async fn attach_standby(&self, owner: &Owner, nic: &StandbyNic) -> Result<(), HypervisorError> {
        let is_in = self.with(&owner.partition, |machine| {
            let is_in = machine.running && machine.vfs.contains_key(&owner.vf);
            if !is_in {
                machine.standbys.insert(owner.vf.clone(), nic.clone());
            }
            is_in
        })?;
        let why = "its VF is in already".to_owned();
        if is_in { Err(HypervisorError::NoStandby { owner: owner.clone(), why }) } else { Ok(()) }
    }

    async fn detach_standby(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.with(&owner.partition, |machine| _ = machine.standbys.remove(&owner.vf))
    }

    async fn adoptable(&self, domain: &DomainRef) -> Result<Adoptable, HypervisorError> {
        let none =
            || HypervisorError::NoSuchDomain { domain: domain.clone(), why: "none of that name".into() };
        self.domain.lock().unwrap().clone().ok_or_else(none)
    }

    async fn adopt_vf(&self, owner: &Owner, function: Bdf) -> Result<(), HypervisorError> {
        self.with(&owner.partition, |machine| _ = machine.vfs.insert(owner.vf.clone(), function))?;
        self.gate.pass("adopt_vf").await;
        Ok(())
    }

    async fn release_vf(&self, owner: &Owner) -> Result<(), HypervisorError> {
        self.with(&owner.partition, |machine| _ = machine.vfs.remove(&owner.vf))?;
        self.gate.pass("release_vf").await;
        Ok(())
    }

    async fn create_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.with(partition, |machine| machine.channel = true)
    }

    async fn destroy_channel(&self, partition: &Name) -> Result<(), HypervisorError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.with(partition, |machine| machine.channel = false)
    }

    async fn connect_channel(&self, partition: &Name) -> Result<ChannelEnd, HypervisorError> {
        self.gate.pass("connect_channel").await;
        let not_running = || HypervisorError::NotRunning(partition.clone());
        let waiting = self.with(partition, |machine| machine.waiting.as_mut().map(Option::take))?;
        if let Some(waiting) = waiting {
            let no_agent = || HypervisorError::NoAgent(partition.clone());
            return waiting.map(|end| ChannelEnd::Stream(end.into())).ok_or_else(no_agent);
        }
        let end = self.with(partition, |machine| {
            let (imp, guest) = UnixStream::pair().unwrap();
            (machine.running && machine.channel).then(|| {
                machine.guest = Some(guest);
                imp
            })
        })?;
        let end = end.ok_or_else(not_running)?;
        self.connected.notify_waiters();
        Ok(ChannelEnd::Stream(end.into()))
    }

    async fn partitions(&self) -> Result<Vec<PartitionStatus>, HypervisorError> {
        let of_one = |(name, machine): (&Name, &Machine)| PartitionStatus {
            name: name.clone(),
            kind: machine.kind,
            running: machine.running,
            halted: machine.halted.filter(|_| machine.running),
            accelerator: None,
            pid: None,
            console: Some("/dev/null".into()),
            lacks: Vec::new(),
            standbys: machine.standbys.keys().cloned().collect(),
            gone: machine.gone,
            vfs: machine.vfs.iter().map(|(name, vf)| (name.clone(), *vf)).collect(),
            channel: machine.channel,
        };
        let all = self.all.lock().unwrap().iter().map(of_one).collect();
        self.gate.pass("partitions").await;
        Ok(all)
    }

    async fn events(&self) -> mpsc::Receiver<HypervisorEvent> {
        let (sender, receiver) = mpsc::channel(16);
        *self.listener.lock().unwrap() = Some(sender);
        receiver
    }
}

pub struct Scene {
    pub machine: SimMachine,
    pub gate: Arc<Gate>,
    pub machines: Arc<Machines>,
    pub file: MemoryFile,
    pub imp: Arc<Imp>,
}

impl Scene {
    /// A machine on which nothing has been done yet.
    pub fn new() -> Self {
        let file = MemoryFile::default();
        StateFile::create("state".as_ref(), file.clone(), &[]).unwrap();
        Self::over(SimMachine::standard(1), Arc::default(), file)
    }

    /// With one adapter, whose driver has health reporters.
    pub fn with_health() -> Self {
        let file = MemoryFile::default();
        StateFile::create("state".as_ref(), file.clone(), &[]).unwrap();
        let machine = SimMachine::builder(1).adapter(Adapter::gigabit().reports_health()).build();
        Self::over(machine, Arc::default(), file)
    }

    fn over(machine: SimMachine, machines: Arc<Machines>, file: MemoryFile) -> Self {
        let (store, contents) = open(&file);
        Self::with_store(machine, machines, file, Box::new(store), contents)
    }

    pub fn with_store(
        machine: SimMachine,
        machines: Arc<Machines>,
        file: MemoryFile,
        store: Box<dyn Store>,
        contents: Contents,
    ) -> Self {
        let gate = Arc::clone(&machines.gate);
        let fabric = Arc::new(GatedFabric { fabric: machine.fabric(), gate: Arc::clone(&gate) });
        let run = Run { epoch: 1, boot: "boot".to_owned(), clock: ioward_tests::clock_of(&machine) };
        let imp = Imp::new(fabric, Arc::clone(&machines) as Arc<dyn Hypervisor>, store, contents, run);
        Self { machine, gate, machines, file, imp }
    }

    /// Another daemon over what this one has left on its disk, if it were killed now.
    pub async fn restarted(&self) -> Self {
        let scene = Self::over(self.machine.clone(), Arc::clone(&self.machines), self.file.copy());
        scene.imp.adopt().await.unwrap();
        scene
    }

    /// The daemon after a boot of the host: VFs are gone, and so is what the hypervisor knew.
    pub async fn booted(&self) -> Self {
        self.machine.write_numvfs(NIC.parse().unwrap(), 0).unwrap();
        self.machines.all.lock().unwrap().clear();
        self.restarted().await
    }

    pub async fn apply(&self, spec: &str) {
        let spec = Spec::parse(format!("version = 1\n{spec}").as_bytes()).unwrap();
        self.ask(Intent::Apply { spec }).await;
    }

    /// Asks for something, which has to succeed.
    pub async fn ask(&self, intent: Intent) {
        let ended = self.try_to(intent).await;
        assert!(matches!(ended, Some(EventKind::PlanDone { .. })), "{ended:?}");
    }

    /// Asks for something: how it ended.
    pub async fn try_to(&self, intent: Intent) -> Option<EventKind> {
        let options = Options { allow_management_nic: true, allow_disruption: true, force: true };
        let plan = self.imp.plan(&intent, &options).await.unwrap();
        let (listener, mut events) = mpsc::unbounded_channel();
        self.imp.apply(plan, listener).await.unwrap();
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event.kind);
        }
        last
    }

    /// Waits until something is so. It may take as long as a busy machine takes, and no longer.
    pub async fn until(&self, what: &str, is_so: impl Fn(&Imp) -> bool) {
        let waiting = async {
            while !is_so(&self.imp) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(BOUND, waiting).await.unwrap_or_else(|_| panic!("not within {BOUND:?}: {what}"));
    }

    /// A PF reports an error. Whichever machine has a VF of that adapter halts for an uncorrectable one, and nobody is told.
    pub fn report_error(&self, pf: &str, severity: Severity, silence: Option<Silence>) {
        let pf = pf.parse().unwrap();
        self.machine.report_error(pf, severity, silence).unwrap();
        if severity != Severity::Correctable {
            self.halt_those_with_vfs_of(pf);
        }
    }

    /// A VF reports an uncorrectable error. All machines that have VFs of its adapter halt.
    pub fn report_vf_error(&self, vf: VfId) {
        self.machine.report_vf_error(vf, Severity::NonFatal).unwrap();
        self.halt_those_with_vfs_of(vf.pf);
    }

    fn halt_those_with_vfs_of(&self, pf: Bdf) {
        let view = self.machine.snapshot();
        let vfs: Vec<_> = view.physical_functions[&pf].vfs.iter().map(|vf| vf.address).collect();
        for machine in self.machines.all.lock().unwrap().values_mut() {
            if machine.running && machine.vfs.values().any(|function| vfs.contains(function)) {
                machine.halted = Some(Halt::InternalError);
            }
        }
    }

    pub fn settings(&self, vf: VfId) -> VfSettings {
        let view = self.machine.snapshot();
        view.physical_functions[&vf.pf].vfs[usize::from(vf.index)].settings.clone()
    }

    pub fn mac(&self, vf: VfId) -> String {
        self.settings(vf).mac.unwrap().to_string()
    }

    pub fn count(&self, is: impl Fn(&EventKind) -> bool) -> usize {
        self.imp.events().iter().filter(|event| is(&event.kind)).count()
    }
}

pub fn open(file: &MemoryFile) -> (StateFile, Contents) {
    let file = file.clone();
    StateFile::open("state".into(), move || Ok(file.clone())).unwrap()
}
