//! [`Gate`]: injects faults in the middle of a plan, counted in operations of the machine, so that they strike at
//! the same place in every run; and [`WatchedFabric`], which passes it before every operation.

use std::{
    collections::BTreeSet,
    future::poll_fn,
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use async_trait::async_trait;
use ioward_fabric::{
    Fabric, FabricError,
    sim::{Errno, Operation, SimFabric, SimMachine},
};
use ioward_model::{Event, Inventory, VfId, VfSettings, VfStatistics};
use ioward_pci::Bdf;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    blows::Blows,
    camera::{Camera, Moment, halves},
    hypervisor::Guests,
    ledger::Ledger,
    random::Random,
};

/// The faults during one plan. Operations of the fabric and the hypervisor are counted together, from 1.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    /// Operations that fail.
    pub failing: BTreeSet<u32>,
    /// The operation at which the user disconnects.
    pub person_leaves: Option<u32>,
    /// Additional failures, per million changes of the machine.
    pub per_million: u32,
    /// libvirt dies or hangs.
    pub libvirt_dies: Option<Death>,
}

/// libvirt dies when it is asked for something, and has done that; or it hangs.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// At which question, counted from 1.
    pub at: u32,
    /// For so many questions more nobody answers.
    pub is_away_for: u32,
    /// It hangs: all that time somebody takes questions, and answers none. A bit for each of them, the first in the lowest: whether it
    /// is carried out, since libvirt goes on later, or is not, since it is restarted.
    pub hangs: Option<u8>,
}

/// What becomes of a question to libvirt.
pub enum Libvirt {
    Answers,
    /// It is carried out, and not answered.
    Dies,
    /// It is not answered, and not carried out either.
    Hangs,
    IsAway,
}

#[derive(Debug, Default)]
pub struct Gate {
    inner: Mutex<Inner>,
    /// Faults of adapters, which are counted by themselves.
    pub blows: Blows,
}

#[derive(Debug, Default)]
struct Inner {
    trouble: Trouble,
    count: u32,
    struck: u32,
    /// Questions to libvirt.
    questions: u32,
    person: Option<UnboundedReceiver<Event>>,
    /// The durations of operations, in turns of the others.
    pace: Option<Random>,
}

impl Gate {
    /// Starts to count operations. `person` is the user who would disconnect.
    pub fn arm(&self, trouble: Trouble, person: Option<UnboundedReceiver<Event>>) {
        let pace = self.lock().pace.take();
        *self.lock() = Inner { trouble, person, pace, ..Inner::default() };
    }

    /// From now on operations take time, so that concurrent ones overtake one another. They used to end at once.
    pub fn set_pace(&self, random: Random) {
        self.lock().pace = Some(random);
    }

    /// Lets others go first, or not.
    pub async fn dawdle(&self) {
        let turns = self.lock().pace.as_mut().map_or(0, |pace| pace.below(4));
        for _ in 0..turns {
            // Not tokio's: the next turn would depend on the state of its threads.
            let mut has_waited = false;
            poll_fn(|context| {
                if std::mem::replace(&mut has_waited, true) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
    }

    /// Ends all faults; returns how many operations failed for that, or for want of libvirt.
    pub fn disarm(&self) -> u32 {
        let mut inner = self.lock();
        let pace = inner.pace.take();
        std::mem::replace(&mut *inner, Inner { pace, ..Inner::default() }).struck
    }

    /// Counts an operation; returns whether it must fail.
    pub fn strikes(&self) -> bool {
        let mut inner = self.lock();
        inner.count += 1;
        if inner.trouble.person_leaves == Some(inner.count) {
            inner.person = None;
        }
        let strikes = inner.trouble.failing.contains(&inner.count);
        inner.struck += u32::from(strikes);
        strikes
    }

    /// Counts a question to libvirt.
    pub fn asks_libvirt(&self) -> Libvirt {
        let mut inner = self.lock();
        inner.questions += 1;
        let Some(Death { at, is_away_for, hangs }) = inner.trouble.libvirt_dies else {
            return Libvirt::Answers;
        };
        let since = inner.questions.checked_sub(at).filter(|since| *since <= is_away_for);
        let fate = match (since, hangs) {
            (None, _) => return Libvirt::Answers,
            (Some(0), None) => Libvirt::Dies,
            (Some(_), None) => Libvirt::IsAway,
            (Some(since), Some(carried_out)) if carried_out >> (since % 8) & 1 == 1 => Libvirt::Dies,
            (Some(_), Some(_)) => Libvirt::Hangs,
        };
        inner.struck += 1;
        fate
    }

    /// Counts a question that nobody answers, since libvirt was away or hung before the plan began: it has failed like those of the plan's
    /// own faults.
    pub fn finds_no_libvirt(&self) {
        self.lock().struck += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The simulated machine's fabric, behind the gate.
pub struct WatchedFabric {
    machine: SimMachine,
    fabric: SimFabric,
    gate: Arc<Gate>,
    camera: Camera,
    guests: Guests,
    ledger: Ledger,
}

impl WatchedFabric {
    pub fn new(
        machine: &SimMachine,
        gate: Arc<Gate>,
        camera: Camera,
        guests: &Guests,
        ledger: &Ledger,
    ) -> Self {
        let (guests, ledger) = (guests.clone(), ledger.clone());
        Self { machine: machine.clone(), fabric: machine.fabric(), gate, camera, guests, ledger }
    }

    async fn pass(&self, pf: Bdf, operation: Operation) {
        self.gate.blows.arrives(pf, &format!("{operation:?}"));
        self.reach(operation).await;
    }

    async fn reach(&self, operation: Operation) {
        self.gate.dawdle().await;
        self.gate.blows.strike(&self.machine, &self.guests).await;
        // Read-only operations leave nothing to find.
        if operation.is_change() {
            self.camera.shoot(Moment::BeforeOperation);
        }
        if self.gate.strikes() {
            self.machine.fail_next(operation, Errno::IO);
        }
    }
}

#[async_trait]
impl Fabric for WatchedFabric {
    async fn identify(&self) -> Result<Inventory, FabricError> {
        self.gate.blows.look();
        self.fabric.identify().await
    }

    async fn set_autoprobe(&self, pf: Bdf, on: bool) -> Result<(), FabricError> {
        self.pass(pf, Operation::SetAutoprobe).await;
        self.fabric.set_autoprobe(pf, on).await
    }

    async fn set_vf_count(&self, pf: Bdf, count: u16) -> Result<(), FabricError> {
        self.pass(pf, Operation::SetVfCount).await;
        self.fabric.set_vf_count(pf, count).await
    }

    async fn recover(&self, pf: Bdf, how: ioward_model::Recovery) -> Result<(), FabricError> {
        // Whoever recovers it uses what is frozen.
        self.reach(Operation::Recover).await;
        self.fabric.recover(pf, how).await
    }

    async fn vf_address(&self, vf: VfId) -> Result<Bdf, FabricError> {
        self.pass(vf.pf, Operation::VfAddress).await;
        self.fabric.vf_address(vf).await
    }

    async fn driver(&self, vf: VfId) -> Result<Option<String>, FabricError> {
        self.pass(vf.pf, Operation::Driver).await;
        self.fabric.driver(vf).await
    }

    async fn bind(&self, vf: VfId, driver: Option<&str>) -> Result<Option<String>, FabricError> {
        self.pass(vf.pf, Operation::Bind).await;
        self.camera
            .shoot_machine(async |machine| {
                let _ = machine.fabric().bind(vf, None).await;
            })
            .await;
        self.camera
            .shoot_machine(async |machine| {
                let _ = machine.fabric().bind(vf, None).await;
                if let Ok(address) = machine.fabric().vf_address(vf).await {
                    let _ = machine.write_driver_override(address, driver);
                }
            })
            .await;
        self.fabric.bind(vf, driver).await
    }

    async fn reset(&self, vf: VfId) -> Result<(), FabricError> {
        self.pass(vf.pf, Operation::Reset).await;
        self.fabric.reset(vf).await
    }

    async fn settings(&self, vf: VfId) -> Result<VfSettings, FabricError> {
        self.pass(vf.pf, Operation::Settings).await;
        self.fabric.settings(vf).await
    }

    async fn configure(&self, vf: VfId, change: &VfSettings) -> Result<(), FabricError> {
        self.pass(vf.pf, Operation::Configure).await;
        for half in halves(change) {
            self.camera
                .shoot_machine(async |machine| {
                    let _ = machine.fabric().configure(vf, &half).await;
                })
                .await;
        }
        self.ledger.is_about_to_be_set(&self.machine, &self.guests, vf, change);
        let result = self.fabric.configure(vf, change).await;
        self.ledger.is_set(&self.machine, &self.guests);
        result
    }

    async fn statistics(&self, vf: VfId) -> Result<VfStatistics, FabricError> {
        self.pass(vf.pf, Operation::Statistics).await;
        self.fabric.statistics(vf).await
    }

    async fn is_open(&self, vf: VfId) -> Result<bool, FabricError> {
        self.fabric.is_open(vf).await
    }

    async fn changes(&self) -> tokio::sync::mpsc::Receiver<()> {
        self.fabric.changes().await
    }
}
