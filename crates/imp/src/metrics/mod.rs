//! What Prometheus is told (`GET /metrics`). A scrape costs a bounded amount of work and time, whoever scrapes how often, and
//! whatever an adapter does: a page is good for some seconds, and what does not answer in time is left out of it.

mod counters;
pub(crate) mod families;
mod text;
mod traffic;

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use ioward_fabric::Fabric;
use ioward_model::{
    Drift, Holder, Inventory, PhysicalFunction, Service, State, VfId, VfStatistics, VirtualFunction,
};
use tokio::time::timeout;

pub(crate) use self::counters::Counters;
use self::{
    families::{
        BUILD, DRIFT, ERRORS, GENERATION, HEALTH_ERRORS, OUT_OF_SERVICE, PARTITIONS, REVISION, RX_BYTES,
        RX_DROPPED, RX_PACKETS, SERVICE, STUCK, TOTAL_VFS, TX_BYTES, TX_DROPPED, TX_PACKETS,
        VF_OUT_OF_SERVICE, VFS,
    },
    text::Page,
    traffic::Traffic,
};
use crate::{cached::Cached, look::Looks, notes::Notes, stuck::StuckAdapters};

/// How long a page is good for. Prometheus asks every 15 s or so.
const GOOD_FOR: Duration = Duration::from_secs(5);
/// How long the host may take to be looked at, and the adapters to tell their counters.
const PATIENCE: Duration = Duration::from_secs(2);

/// The part that makes the page.
pub(crate) struct Metrics {
    pub(crate) counters: Arc<Counters>,
    notes: Arc<Notes>,
    looks: Arc<Looks>,
    stuck: Arc<StuckAdapters>,
    traffic: Arc<Traffic>,
    /// Held by a look that may outlive who asked for it.
    looking: Arc<tokio::sync::Mutex<()>>,
    page: Cached<String>,
}

impl Metrics {
    pub(crate) fn new(
        counters: Arc<Counters>,
        fabric: Arc<dyn Fabric>,
        notes: Arc<Notes>,
        looks: Arc<Looks>,
        stuck: Arc<StuckAdapters>,
    ) -> Self {
        let (traffic, looking) = (Traffic::new(fabric), Arc::default());
        Self { counters, notes, looks, stuck, traffic, looking, page: Cached::new(GOOD_FOR) }
    }

    /// The page. `drifts`: how the host differed from the state when it was last held against it.
    pub(crate) async fn page(&self, drifts: impl FnOnce() -> Vec<Drift>) -> String {
        let work = async { Ok::<_, Infallible>(self.make(&drifts()).await) };
        match self.page.get(work).await {
            Ok(page) => page,
            Err(never) => match never {},
        }
    }

    async fn make(&self, drifts: &[Drift]) -> String {
        let mut page = Page::default();
        page.count(&BUILD, &[env!("CARGO_PKG_VERSION")], 1);
        let inventory = self.inventory().await;
        let state = self.notes.state();
        page.count(&REVISION, &[], state.revision);
        if let Some(inventory) = &inventory {
            page.count(&GENERATION, &[], inventory.generation);
            for pf in &inventory.physical_functions {
                self.print_adapter(&mut page, pf, &state);
            }
        }
        let running = state.partitions.values().filter(|partition| partition.running).count();
        for (word, count) in [("running", running), ("stopped", state.partitions.len() - running)] {
            page.count(&PARTITIONS, &[word], count as u64);
        }
        print_drift(&mut page, drifts);
        let held = state.assignments().map(|(_, held)| held.vf);
        print_traffic(&mut page, &state, &self.traffic.read(held, PATIENCE).await);
        self.counters.print(&mut page);
        page.finish()
    }

    /// The host as it is, or, when it does not answer in time, as it was.
    async fn inventory(&self) -> Option<Arc<Inventory>> {
        if let Ok(begun) = Arc::clone(&self.looking).try_lock_owned() {
            let looks = Arc::clone(&self.looks);
            let look = tokio::spawn(async move {
                let found = looks.recent().await;
                drop(begun);
                found
            });
            if let Ok(Ok(Ok((found, _)))) = timeout(PATIENCE, look).await {
                return Some(found);
            }
        }
        self.looks.latest()
    }

    fn print_adapter(&self, page: &mut Page, pf: &PhysicalFunction, state: &State) {
        let address = pf.address.to_string();
        if let Some(sriov) = &pf.sriov {
            page.add(&TOTAL_VFS, &[&address], sriov.total_vfs);
        }
        page.add(&STUCK, &[&address], u8::from(self.stuck.has(pf.address)));
        for word in Service::WORDS {
            page.add(&SERVICE, &[&address, word], u8::from(pf.service.word() == word));
        }
        if let Some(errors) = pf.errors {
            let severities = [
                ("correctable", errors.correctable),
                ("non-fatal", errors.nonfatal),
                ("fatal", errors.fatal),
            ];
            for (severity, count) in severities {
                page.count(&ERRORS, &[&address, severity], count);
            }
        }
        for reporter in pf.health.iter().flatten() {
            let port = reporter.port.map_or(String::new(), |port| port.to_string());
            page.count(&HEALTH_ERRORS, &[&address, &reporter.name, &port], reporter.errors);
        }
        page.add(&OUT_OF_SERVICE, &[&address], u8::from(pf.out_of_service.is_some()));
        for vf in pf.virtual_functions.iter().filter(|vf| vf.out_of_service.is_some()) {
            page.add(&VF_OUT_OF_SERVICE, &[&address, &vf.index.to_string()], 1_u8);
        }
        let mut of_state = BTreeMap::from(STATES.map(|word| (word, 0)));
        for vf in &pf.virtual_functions {
            *of_state.entry(state_of(vf, state)).or_default() += 1;
        }
        for (word, count) in of_state {
            page.count(&VFS, &[&address, word], count);
        }
    }
}

/// The states of VFs.
const STATES: [&str; 5] = ["free", "assigned", "running", "host", "foreign"];

fn state_of(vf: &VirtualFunction, state: &State) -> &'static str {
    let partition = vf.owner.as_ref().and_then(|owner| state.partitions.get(&owner.partition));
    match (&vf.owner, &vf.holder) {
        (Some(_), _) if partition.is_some_and(|partition| partition.running) => "running",
        (Some(_), _) => "assigned",
        (None, Some(Holder::Process(_) | Holder::NetworkNamespace { .. })) => "foreign",
        (None, _) if !vf.in_use_by_host.is_empty() => "host",
        (None, _) => "free",
    }
}

fn print_drift(page: &mut Page, drifts: &[Drift]) {
    use ioward_model::Difference as D;
    let kinds = [
        "adapter-missing",
        "vf-count",
        "driver",
        "settings",
        "partition-missing",
        "channel-missing",
        "not-attached",
        "still-attached",
        "standby-missing",
    ];
    let mut of_kind = kinds.map(|kind| (kind, 0));
    for drift in drifts {
        let kind = match drift.what {
            D::AdapterMissing { .. } => 0,
            D::VfCount { .. } => 1,
            D::Driver { .. } => 2,
            D::Settings { .. } => 3,
            D::PartitionMissing { .. } => 4,
            D::ChannelMissing { .. } => 5,
            D::NotAttached { .. } => 6,
            D::StillAttached { .. } => 7,
            D::StandbyMissing { .. } => 8,
        };
        of_kind[kind].1 += 1;
    }
    for (kind, count) in of_kind {
        page.count(&DRIFT, &[kind], count);
    }
}

fn print_traffic(page: &mut Page, state: &State, counters: &BTreeMap<VfId, VfStatistics>) {
    for (owner, held) in state.assignments() {
        let Some(counted) = counters.get(&held.vf) else { continue };
        let (pf, index) = (held.vf.pf.to_string(), held.vf.index.to_string());
        let labels = [owner.partition.as_str(), owner.vf.as_str(), &pf, &index];
        for (family, value) in [
            (&RX_BYTES, counted.rx_bytes),
            (&TX_BYTES, counted.tx_bytes),
            (&RX_PACKETS, counted.rx_packets),
            (&TX_PACKETS, counted.tx_packets),
            (&RX_DROPPED, counted.rx_dropped),
            (&TX_DROPPED, counted.tx_dropped),
        ] {
            page.count(family, &labels, value);
        }
    }
}

#[cfg(test)]
mod tests;
