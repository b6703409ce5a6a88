//! Laws that hold of every step: one that is added is listed here, and then all of them are tried on it.

use super::*;
use crate::{
    AdapterOriginal, Boot, FailoverCause, Inventory, KindName, Machine, PartitionStatus, RowKey, State, Why,
};

fn pf() -> Bdf {
    "0000:01:00.0".parse().unwrap()
}

fn vf() -> VfId {
    VfId { pf: pf(), index: 1 }
}

fn owner() -> Owner {
    "web/net0".parse().unwrap()
}

fn spec(cpus: u16) -> PartitionSpec {
    PartitionSpec::new(owner().partition, Machine { cpus, ..Machine::new(Boot::default()) })
}

/// One of every kind, and of those with a choice in them one of each.
fn all() -> Vec<Step> {
    let original = AdapterOriginal { num_vfs: 0, autoprobe: true };
    let adapter = AdapterState { original, wanted: None, identity: None };
    let out = OutOfService { since_ms: 5, why: Why::Evacuated, vf: None, identity: None };
    let mac = VfSettings { mac: "52:54:00:00:00:01".parse().ok(), ..VfSettings::default() };
    let held = Assignment { settings: mac.clone(), ..Assignment::new(vf()) };
    let over = FailedOver { since_ms: 5, why: FailoverCause::Asked, unplugged: false };
    let partition = owner().partition;
    vec![
        Step::HoldAdapter { pf: pf(), to: adapter.clone(), from: None },
        Step::HoldAdapter { pf: pf(), to: adapter.clone(), from: Some(adapter.clone()) },
        Step::ReleaseAdapter { pf: pf(), from: adapter },
        Step::TakeOutOfService { pf: pf(), to: out.clone() },
        Step::ReturnToService { pf: pf(), from: out },
        Step::SetAutoprobe { pf: pf(), to: false, from: true },
        Step::SetVfCount { pf: pf(), to: 4, from: 0 },
        Step::Assign { owner: owner(), to: Assignment::new(vf()) },
        Step::Unassign { owner: owner(), from: held },
        Step::ConfigureVf { vf: vf(), to: mac },
        Step::BindDriver { vf: vf(), to: Some("vfio-pci".into()) },
        Step::BindDriver { vf: vf(), to: None },
        Step::ResetVf { vf: vf() },
        Step::DefinePartition { to: spec(1), from: None },
        Step::DefinePartition { to: spec(2), from: Some(spec(1)) },
        Step::UndefinePartition { from: spec(1) },
        Step::CreateChannel { partition: partition.clone() },
        Step::DestroyChannel { partition: partition.clone() },
        Step::AttachVf { owner: owner(), vf: vf() },
        Step::DetachVf { owner: owner(), vf: vf(), force: false },
        Step::AdoptVf { owner: owner(), vf: vf() },
        Step::ReleaseVf { owner: owner(), vf: vf() },
        Step::SwitchOver { owner: owner(), to: Some(over.clone()), from: None },
        Step::SwitchOver { owner: owner(), to: None, from: Some(over) },
        Step::StartPartition { partition: partition.clone() },
        Step::StopPartition { partition: partition.clone(), force: false },
        Step::StopPartition { partition, force: true },
    ]
}

/// The result of a look before the steps above.
fn found() -> Outcome {
    let settings = VfSettings { mac: "52:54:00:00:00:02".parse().ok(), ..VfSettings::default() };
    let (settings_before, driver_before) = (Some(settings), Some("igbvf".to_owned()));
    Outcome { settings_before, driver_before, ..Outcome::default() }
}

/// A step and its inverse are about the same thing, change the same thing there and back, and are noted in the same rows.
#[test]
fn an_inverse_leads_back() {
    let mut state = State::default();
    state.record(&Step::DefinePartition { to: spec(1), from: None }, &Outcome::default());
    state.record(&Step::Assign { owner: owner(), to: Assignment::new(vf()) }, &Outcome::default());
    for step in all() {
        let Some(inverse) = step.inverse(&found()) else {
            assert_eq!(step, Step::ResetVf { vf: vf() }, "all others can be rolled back");
            continue;
        };
        assert_eq!(step.subject(), inverse.subject(), "{step}");
        assert_eq!(state.rows_of(&step), state.rows_of(&inverse), "{step}");
        match (step.change(&found()), inverse.change(&Outcome::default())) {
            (Some(there), Some(back)) => {
                assert_eq!((there.aspect, there.from), (back.aspect, back.to), "{step}");
            }
            (there, back) => assert_eq!(there, back, "{step}"),
        }
    }
}

/// Whoever waits for a guest while its operations are kept out waits for ever.
#[test]
fn a_guest_that_is_asked_for_something_is_not_kept_waiting() {
    for step in all() {
        let Meaning { asks_guest, keeps_out, subject, may_be_given_up, .. } = step.meaning();
        assert!(!asks_guest || keeps_out != KeepsOut::Throughout, "{step}");
        assert!(asks_guest || !may_be_given_up, "{step}: it is given up only while it waits for a guest");
        assert!(subject.adapter().is_some() || keeps_out == KeepsOut::Never, "{step}");
    }
}

/// A part of the state that holds these rows is enough to note a step on.
#[test]
fn a_step_is_noted_in_the_rows_of_its_subject_and_nowhere_else() {
    let mut before = State::default();
    before.record(&Step::DefinePartition { to: spec(1), from: None }, &Outcome::default());
    before.record(&Step::Assign { owner: owner(), to: Assignment::new(vf()) }, &Outcome::default());
    for step in all() {
        let mut after = before.clone();
        after.record(&step, &found());
        let all: Vec<RowKey> = before.keys().chain(after.keys()).collect();
        let changed: Vec<_> = all.iter().filter(|key| before.row(key) != after.row(key)).collect();
        let rows = before.rows_of(&step);
        let is_of = |key: &RowKey| match key {
            // They go with their partition.
            RowKey::Assignment(held) => rows.contains(&RowKey::Partition(held.partition.clone())),
            _ => false,
        };
        assert!(changed.iter().all(|key| rows.contains(key) || is_of(key)), "{step}: {changed:?}");
    }
}

#[test]
fn a_look_tells_whether_a_step_is_done() {
    let channel = Step::CreateChannel { partition: owner().partition };
    let Change { aspect, from, to } = channel.change(&Outcome::default()).unwrap();
    let mut partition = PartitionStatus {
        name: owner().partition,
        running: false,
        halted: None,
        accelerator: None,
        pid: None,
        console: None,
        kind: KindName::Machine,
        vfs: Vec::new(),
        lacks: Vec::new(),
        standbys: Vec::new(),
        gone: false,
        channel: false,
    };
    let inventory = Inventory::default();
    for is_done in [false, true] {
        partition.channel = is_done;
        let host = Observation { inventory: &inventory, partitions: std::slice::from_ref(&partition) };
        assert_eq!((host.shows(&aspect, &to), host.shows(&aspect, &from)), (is_done, !is_done));
    }
}
