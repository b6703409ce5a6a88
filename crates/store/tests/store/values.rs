//! The values of one host.

use std::path::Path;

use ioward_model::{
    AuditEntry, Difference, Drift, Ended, Intent, OpenOperation, Options, Outcome, Plan, PlanRecord, Row,
    State, Step, StepRecord, Verdict, VfId, VfOp, VfSettings,
};
use ioward_store::{Change, Contents, MemoryFile, StateFile, Store, StoreError};
use serde_json::json;

pub fn state() -> State {
    serde_json::from_value(json!({
        "revision": 7,
        "adapters": {
            "0000:01:00.0": {"original": {"num_vfs": 0, "autoprobe": true}, "wanted": 4},
            "0000:02:00.0": {"original": {"num_vfs": 2, "autoprobe": false}, "wanted": null}
        },
        "partitions": {
            "db": {
                "spec": {"name": "db", "boot": {"disk": "/srv/db.qcow2"}, "vf": [{"name": "disk0", "class": "nvme"}]},
                "running": false, "channel": true,
                "vfs": {"disk0": {
                    "vf": {"pf": "0000:02:00.0", "index": 1}, "address": "0000:02:00.2",
                    "settings": {"queues": 4, "online": true}, "original_settings": {"queues": 0, "online": false},
                    "original_driver": null, "attached": true
                }}
            },
            "web": {
                "spec": {"name": "web", "cpus": 2, "boot": {"kernel": "/boot/vmlinuz"}, "vf": [
                    {"name": "net0", "class": "network", "mac": "52:54:00:aa:00:01", "guest_may": ["mac"]}
                ]},
                "running": true, "channel": true,
                "vfs": {"net0": {
                    "vf": {"pf": "0000:01:00.0", "index": 0}, "address": null,
                    "settings": {"mac": "52:54:00:aa:00:01"}, "guest_settings": {"mac": "52:54:00:aa:00:77"},
                    "original_settings": {"mac": "00:00:00:00:00:00"}, "original_driver": "igbvf", "attached": true
                }}
            }
        }
    }))
    .unwrap()
}

/// The same, and the Spec that was last applied.
pub fn state_wanted() -> State {
    let spec = json!({
        "version": 1, "adapter": [{"pf": "0000:01:00.0", "vfs": 4}],
        "partition": [{"name": "db", "boot": {"disk": "/srv/db.qcow2"}, "vf": [{"name": "disk0", "class": "nvme"}]}]
    });
    State { wanted: Some(serde_json::from_value(spec).unwrap()), ..state() }
}

/// The same, with a domain and a namespace.
pub fn state_of_kinds() -> State {
    let mut state = state_wanted();
    for spec in [
        json!({"name": "guest", "libvirt": "one@stack"}),
        json!({"name": "pod", "netns": {"pid_file": "/run/p"}}),
    ] {
        let held = json!({"spec": spec, "running": true, "channel": false, "vfs": {}});
        let name = spec["name"].as_str().unwrap().parse().unwrap();
        state.partitions.insert(name, serde_json::from_value(held).unwrap());
    }
    state
}

/// The same, with adapters that are out of service: one that partitions hold VFs of, and one that nothing else is noted of.
pub fn state_out_of_service() -> State {
    let mut state = state_of_kinds();
    for (pf, out) in [
        (
            "0000:02:00.0",
            json!({"since_ms": 1_700_000_000_000_u64, "why": {"failed": {"what": "3 resets within 60 s"}}}),
        ),
        (
            "0000:03:00.0",
            json!({"since_ms": 1_700_000_000_001_u64, "why": "evacuated",
            "identity": {"vendor_id": "8086", "device_id": "10c9", "function": 0, "macs": ["00:1b:21:aa:00:01"]}}),
        ),
    ] {
        state.out_of_service.insert(pf.parse().unwrap(), serde_json::from_value(out).unwrap());
    }
    state
}

/// The changes that restate a whole state.
pub fn rows(state: &State) -> Vec<Change> {
    state.keys().map(|key| Change::Row(state.row(&key))).collect()
}

pub fn plan_begun(number: u64) -> Change {
    plan_begun_for(number, Intent::Start { partition: "db".parse().unwrap() })
}

/// A plan made by the daemon itself.
pub fn repairs_begun(number: u64) -> Change {
    let what = Difference::PartitionMissing { partition: "db".parse().unwrap() };
    let drifts = vec![Drift { what, breaks: Vec::new(), left_because: None }];
    plan_begun_for(
        number,
        Intent::Reconcile { drifts, start: vec!["db".parse().unwrap()], running: Vec::new() },
    )
}

fn plan_begun_for(number: u64, intent: Intent) -> Change {
    let partition = "web".parse().unwrap();
    let stop = Step::StopPartition { partition, force: false };
    let start = Step::StartPartition { partition: "db".parse().unwrap() };
    let plan = Plan {
        id: 8,
        parent: 7,
        generation: 3,
        intent,
        options: Options::default(),
        steps: vec![stop, start],
        before: Vec::new(),
        disturbs: Vec::new(),
        placements: Vec::new(),
        gap: None,
        instead: Vec::new(),
        left_out: Vec::new(),
    };
    let boot = "1b4e28ba-2fa1-11d2-883f-0016d3cca427".to_owned();
    Change::PlanBegun(Box::new(PlanRecord { number, plan, boot, begun_ms: 1_700_000_000_000, ended: None }))
}

pub fn step_begun(plan: u64, number: usize) -> Change {
    let found = Outcome { driver_before: Some("igbvf".into()), ..Outcome::default() };
    Change::Step { plan, number, record: StepRecord::Begun { found, noted: None } }
}

pub fn step_done(plan: u64, number: usize) -> Change {
    let record = StepRecord::Done { order: number, outcome: Outcome::default(), noted: None };
    Change::Step { plan, number, record }
}

pub fn plan_done(plan: u64) -> Change {
    Change::PlanEnded { plan, ended: Ended::Done }
}

pub fn operation() -> OpenOperation {
    let settings = |mac: &str| VfSettings { mac: mac.parse().ok(), ..VfSettings::default() };
    OpenOperation {
        partition: "web".parse().unwrap(),
        vf: VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 },
        change: settings("52:54:00:aa:00:88"),
        before: settings("52:54:00:aa:00:77"),
    }
}

pub fn audit(time_ms: u64) -> AuditEntry {
    let partition = "web".parse().unwrap();
    AuditEntry { time_ms, partition, uid: None, request: VfOp::List, verdict: Verdict::Refused("no".into()) }
}

/// A new revision, the smallest change there is.
pub fn revision(revision: u64) -> Change {
    Change::Row(Row::Revision(revision))
}

/// A new file with these changes.
pub fn file_with(changes: &[Change]) -> MemoryFile {
    let file = MemoryFile::default();
    StateFile::create(Path::new("state.redb"), file.clone(), changes).unwrap();
    file
}

pub fn open(file: &MemoryFile) -> Result<(StateFile, Contents), StoreError> {
    let file = file.clone();
    StateFile::open("state.redb".into(), move || Ok(file.clone()))
}

/// The contents that a starting daemon finds. Changes nothing.
pub fn found(file: &MemoryFile) -> Result<Contents, StoreError> {
    open(&file.copy()).map(|(_, contents)| contents)
}

pub fn committed(file: &MemoryFile, changes: &[Change]) {
    open(file).unwrap().0.commit(changes).unwrap();
}
