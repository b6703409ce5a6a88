//! Looking at the host: what the fabric finds, with what the state knows added, and a generation that counts changes.
//!
//! A plan, a repair and whatever else changes something looks anew. Who only shows the host may see it as it was a moment ago: however
//! many ask, and however often, the host is looked at once in that time.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use ioward_fabric::Fabric as _;
use ioward_model::{
    EventKind, Holder, Inventory, MacAddress, OutOfService, Reason, State, VfId, VfSettings, Whereabouts,
    checks,
};
use ioward_pci::Bdf;
use tokio::time::{Duration, Instant};

use crate::{
    error::ImpError,
    events::EventLog,
    faults::Faults,
    notes::Notes,
    quarantine::{KeptOff, Quarantine},
};

/// How long a look is good for those who only show it. The kernel does not tell everything: who has opened a VF is only found by
/// looking.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// The part that looks at the host.
pub(crate) struct Looks {
    fabric: Arc<Quarantine>,
    faults: Arc<Faults>,
    notes: Arc<Notes>,
    events: Arc<EventLog>,
    last: Mutex<LastLook>,
    /// How many looks have begun.
    count: AtomicU64,
    /// How often something was heard of the host.
    heard: AtomicU64,
    /// Held by the one who looks for all that ask at the same time.
    looking: tokio::sync::Mutex<()>,
    /// [`Looks::has_booted`].
    booted: AtomicBool,
}

/// What was known to have changed before a look began: by ioward in the host and in the state, and as heard of the host.
type Version = [u64; 3];

/// The latest look at the host.
#[derive(Default)]
struct LastLook {
    /// Looks are numbered as they begin.
    number: u64,
    inventory: Option<Arc<Inventory>>,
    begun: Option<(Instant, Version)>,
}

impl Looks {
    pub(crate) fn new(
        fabric: Arc<Quarantine>,
        faults: Arc<Faults>,
        notes: Arc<Notes>,
        events: Arc<EventLog>,
    ) -> Self {
        Self {
            fabric,
            faults,
            notes,
            events,
            last: Mutex::default(),
            count: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            looking: tokio::sync::Mutex::default(),
            booted: AtomicBool::new(false),
        }
    }

    /// Something has become of the host: what was seen before does not count any more.
    pub(crate) fn hear(&self) {
        self.heard.fetch_add(1, Ordering::Release);
    }

    fn version(&self) -> Version {
        [self.fabric.count_of_changes(), self.notes.changes(), self.heard.load(Ordering::Acquire)]
    }

    /// The host as it is, or as it was up to two seconds ago where nothing has changed since as far as ioward knows; and how long ago that
    /// was.
    ///
    /// # Errors
    /// When it can't be looked at at all.
    pub(crate) async fn recent(&self) -> Result<(Arc<Inventory>, Duration), ImpError> {
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        let _looking = self.looking.lock().await;
        if let Some(kept) = self.kept() {
            return Ok(kept);
        }
        Ok((self.look_and_keep().await?, Duration::ZERO))
    }

    fn kept(&self) -> Option<(Arc<Inventory>, Duration)> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, version) = last.begun?;
        let age = begun.elapsed();
        let is_good = age < KEPT_FOR && version == self.version();
        is_good.then(|| last.inventory.clone())?.map(|inventory| (inventory, age))
    }

    /// Whether the host has booted since it was as the state says, and what that took is not restored yet.
    pub(crate) fn has_booted(&self) -> bool {
        self.booted.load(Ordering::Relaxed)
    }

    pub(crate) fn set_booted(&self, booted: bool) {
        self.booted.store(booted, Ordering::Relaxed);
    }

    /// Looks at the host.
    ///
    /// # Errors
    /// When it can't be looked at at all.
    pub(crate) async fn look(&self) -> Result<Inventory, ImpError> {
        Ok(Inventory::clone(&*self.look_and_keep().await?))
    }

    async fn look_and_keep(&self) -> Result<Arc<Inventory>, ImpError> {
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let begun = (Instant::now(), self.version());
        let mut found = self.fabric.identify().await?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        // A look that began later has seen more: what this one found is no news.
        if let Some(newer) = last.inventory.as_ref().filter(|_| last.number > number) {
            return Ok(Arc::clone(newer));
        }
        let state = self.notes.state();
        let whereabouts = Whereabouts::of(&state, &found, self.has_booted());
        let quarantined = whereabouts.quarantined(&state, &found);
        self.faults.see(&mut found, &state);
        let frozen = found.physical_functions.iter().filter(|pf| pf.service.is_frozen());
        self.fabric.set(KeptOff {
            others: quarantined.keys().copied().collect(),
            frozen: frozen.map(|pf| (pf.address, pf.service.clone())).collect(),
        });
        let complete = Arc::new(complete(found, &state, &quarantined, last.inventory.as_deref()));
        if last.inventory.as_ref().is_some_and(|last| last.generation != complete.generation) {
            self.events.emit(EventKind::InventoryChanged { generation: complete.generation });
        }
        *last = LastLook { number, inventory: Some(Arc::clone(&complete)), begun: Some(begun) };
        Ok(complete)
    }

    /// The host as it was when it was last looked at.
    pub(crate) fn latest(&self) -> Option<Arc<Inventory>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).inventory.clone()
    }

    /// The generation of the latest look, if there was one.
    pub(crate) fn generation(&self) -> Option<u64> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.inventory.as_ref().map(|inventory| inventory.generation)
    }

    /// Whether an interface of the host had this MAC when the host was last looked at.
    pub(crate) fn is_mac_of_the_host(&self, mac: MacAddress) -> bool {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let pfs = last.inventory.iter().flat_map(|inventory| &inventory.physical_functions);
        let mut macs = pfs.flat_map(|pf| &pf.netdevs).flat_map(|netdev| [netdev.mac, netdev.permanent_mac]);
        macs.any(|of_host| of_host == Some(mac))
    }
}

/// Adds owners to what was found, counts what is assigned and available, and gives the result a generation: that of
/// `last` where nothing that matters to a plan has changed since, the next one otherwise. Of an adapter that is to be kept off,
/// nothing is left but who it is, and the reason: it is as one that can't be read.
fn complete(
    mut found: Inventory,
    state: &State,
    quarantined: &BTreeMap<Bdf, Reason>,
    last: Option<&Inventory>,
) -> Inventory {
    for pf in &mut found.physical_functions {
        let address = pf.address;
        // Who it is stands in the inventory anyway.
        let out = |noted: &OutOfService| OutOfService { identity: None, ..noted.clone() };
        pf.out_of_service = state.out_of_service.get(&address).map(out);
        for vf in &mut pf.virtual_functions {
            let id = VfId { pf: address, index: vf.index };
            vf.owner = state.owner(id);
            vf.out_of_service = state.vf_out_of_service(id).map(|(_, noted)| out(noted));
            // The process that has it open, or the namespace that it is in, is the partition's own.
            let partition = vf.owner.as_ref().and_then(|owner| state.partitions.get(&owner.partition));
            let uses_vfio = partition.is_none_or(|partition| partition.spec.kind.name().uses_vfio());
            let is_own = match vf.holder {
                Some(Holder::Process(_)) => uses_vfio,
                Some(Holder::NetworkNamespace { .. }) => !uses_vfio,
                Some(Holder::Nobody) => true,
                None => false,
            };
            vf.holder = vf.holder.take().filter(|_| vf.owner.is_none() || !is_own);
        }
    }
    checks::note_available(&mut found);
    for pf in &mut found.physical_functions {
        let address = pf.address;
        let assigned = state.assignments().filter(|(_, assignment)| assignment.vf.pf == address).count();
        pf.vfs_assigned = u16::try_from(assigned).unwrap_or(u16::MAX);
        pf.vfs_available = pf.vfs_available.saturating_sub(pf.vfs_assigned);
        // What is out of service and does not answer is as one that is gone: what is noted of it can be given up.
        let lost = pf.out_of_service.as_ref().filter(|_| pf.conditions.no_answer);
        let lost = lost.map(|out| checks::out_of_service(address, out));
        if let Some(reason) = quarantined.get(&address).or(lost.as_ref()) {
            (pf.vfs_assigned, pf.vfs_available) = (0, 0);
            pf.sriov = None;
            pf.virtual_functions.clear();
            pf.reasons.insert(0, reason.clone());
        }
    }
    found.generation = match last {
        None => 1,
        Some(last) if fixed_part(last) == fixed_part(&found) => last.generation,
        Some(last) => last.generation + 1,
    };
    found
}

/// An inventory without what comes and goes by itself: links, and settings that guests may change. A plan made before
/// a cable was plugged is not stale for that; whether it is still the right plan is found by planning again.
fn fixed_part(inventory: &Inventory) -> Inventory {
    let mut fixed = inventory.clone();
    fixed.generation = 0;
    for pf in &mut fixed.physical_functions {
        pf.link = None;
        pf.nvme = None;
        pf.errors = None;
        pf.health = None;
        for netdev in &mut pf.netdevs {
            netdev.speed_mbps = None;
            netdev.carrier = None;
            netdev.up = false;
            netdev.mtu = None;
        }
        for vf in &mut pf.virtual_functions {
            vf.settings = VfSettings::default();
            vf.errors = None;
        }
    }
    fixed
}
