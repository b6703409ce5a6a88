//! Every commit is read back, and a small change is a small write.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ioward_model::{AuditDropped, AuditEntry, Ended, Row, State, StepRecord, Verdict, VfOp};
use ioward_store::{Change, KEPT_AUDIT_ENTRIES, KEPT_PLANS, MemoryFile, StateFile, StorageBackend, Store};

use crate::values::{
    audit, committed, file_with, found, open, operation, plan_begun, plan_done, repairs_begun, revision,
    rows, state, step_begun, step_done,
};

#[test]
fn a_new_file_is_empty_and_a_state_is_read_back() {
    let file = file_with(&[]);
    assert_eq!(found(&file).unwrap().state, State::default());
    committed(&file, &rows(&state()));
    assert_eq!(found(&file).unwrap().state, state());
}

#[test]
fn rows_go_one_by_one() {
    let file = file_with(&rows(&state()));
    let mut expected = state();
    let web = "web".parse().unwrap();
    let held = expected.partitions.get_mut(&web).unwrap().vfs.remove(&"net0".parse().unwrap());
    assert!(held.is_some() && expected.adapters.remove(&"0000:01:00.0".parse().unwrap()).is_some());
    let gone = [
        Change::Row(Row::Assignment("web/net0".parse().unwrap(), None)),
        Change::Row(Row::Adapter("0000:01:00.0".parse().unwrap(), None)),
    ];
    committed(&file, &gone);
    assert_eq!(found(&file).unwrap().state, expected);
    committed(&file, &[Change::Row(Row::Partition(web.clone(), None)), revision(8)]);
    expected.partitions.remove(&web);
    expected.revision = 8;
    assert_eq!(found(&file).unwrap().state, expected);
}

#[test]
fn a_plan_is_interrupted_until_it_has_ended() {
    let file = file_with(&rows(&state()));
    committed(&file, &[plan_begun(1)]);
    committed(&file, &[step_begun(1, 1)]);
    committed(&file, &[step_done(1, 1), step_begun(1, 2)]);
    let contents = found(&file).unwrap();
    let interrupted = contents.interrupted.unwrap();
    assert_eq!((contents.last_plan, interrupted.record.number), (1, 1));
    assert_eq!(Change::PlanBegun(Box::new(interrupted.record)), plan_begun(1));
    assert!(matches!(interrupted.steps[&1], StepRecord::Done { order: 1, .. }), "{:?}", interrupted.steps);
    assert!(matches!(interrupted.steps[&2], StepRecord::Begun { .. }), "{:?}", interrupted.steps);
    committed(&file, &[plan_done(1)]);
    let contents = found(&file).unwrap();
    assert!(contents.interrupted.is_none() && contents.last_plan == 1);
}

/// A failed commit may still be in the file: it may hold a plan that was never carried out, and the next plan has
/// the same number.
#[test]
fn a_plan_that_is_begun_again_has_no_steps() {
    let file = file_with(&[plan_begun(1), step_begun(1, 2), plan_done(1)]);
    committed(&file, &[plan_begun(1)]);
    let interrupted = found(&file).unwrap().interrupted.unwrap();
    assert!(interrupted.steps.is_empty());
}

#[test]
fn a_cleared_store_holds_only_what_is_restated() {
    let file = file_with(&rows(&state()));
    committed(&file, &[Change::OperationBegun(operation())]);
    assert_eq!(found(&file).unwrap().operations, [operation()]);
    let mut other = state();
    other.adapters.clear();
    other.partitions.remove(&"db".parse().unwrap());
    let mut anew = vec![Change::Clear];
    anew.extend(rows(&other));
    committed(&file, &anew);
    let contents = found(&file).unwrap();
    assert!(contents.state == other && contents.operations.is_empty(), "{contents:?}");
    committed(&file, &[Change::OperationBegun(operation())]);
    committed(&file, &[Change::OperationEnded(operation().vf)]);
    assert!(found(&file).unwrap().operations.is_empty());
}

#[test]
fn old_plans_are_deleted() {
    let store = open(&file_with(&[])).unwrap().0;
    let kept = u64::try_from(KEPT_PLANS).unwrap();
    for number in 1..=kept + 3 {
        store.commit(&[plan_begun(number), step_done(number, 1), plan_done(number)]).unwrap();
    }
    let numbers = || store.export().unwrap().plans.iter().map(|plan| plan.record.number).collect::<Vec<_>>();
    assert_eq!(numbers(), (4..=kept + 3).collect::<Vec<_>>());
    // A host that needs repair again and again does not push out users' plans.
    for number in kept + 4..=4 * kept {
        store.commit(&[repairs_begun(number), step_done(number, 1), plan_done(number)]).unwrap();
    }
    assert_eq!(numbers(), (4..=kept + 3).chain(3 * kept + 1..=4 * kept).collect::<Vec<_>>());
    let export = store.export().unwrap();
    assert!(export.plans.iter().all(|plan| plan.steps.len() == 1 && plan.record.ended == Some(Ended::Done)));
}

/// 50,000 entries were kept for all partitions together, and each read was one: a guest that requested its VFs
/// endlessly pushed every change out of the log within minutes.
#[test]
fn a_partition_cannot_push_others_out_of_the_audit_log_and_reads_push_out_no_change() {
    let of = |who: &str, verdict: Verdict, request: VfOp, time_ms| {
        Change::Audit(AuditEntry { time_ms, partition: who.parse().unwrap(), uid: None, request, verdict })
    };
    let reset = || VfOp::Reset { vf: "net0".parse().unwrap() };
    let file = file_with(&[
        of("db", Verdict::Granted, VfOp::List, 1),
        of("web", Verdict::Granted, reset(), 2),
        of("web", Verdict::Refused("no".into()), reset(), 3),
    ]);
    let store = open(&file).unwrap().0;
    let reads: Vec<_> =
        (0..KEPT_AUDIT_ENTRIES + 5).map(|n| of("web", Verdict::Granted, VfOp::List, 10 + n)).collect();
    reads.chunks(10_000).for_each(|some| store.commit(some).unwrap());
    let all = store.audit(usize::MAX).unwrap();
    let times: Vec<_> = all.iter().map(|entry| entry.time_ms).collect();
    let latest = KEPT_AUDIT_ENTRIES + 14;
    assert_eq!(times[..3], [1, 2, 3], "nobody else's entry, no change and no refusal gave way");
    assert_eq!((times.len(), times[52]), (53, latest), "reads have a small room of their own");
    assert_eq!(
        store.audit(2).unwrap().iter().map(|entry| entry.time_ms).collect::<Vec<_>>(),
        [latest - 1, latest]
    );
    let dropped = store.audit_dropped().unwrap();
    let web = AuditDropped { reads: KEPT_AUDIT_ENTRIES + 5 - 50, ..AuditDropped::default() };
    assert_eq!(dropped, [("web".parse().unwrap(), web)].into());
    assert_eq!(store.export().unwrap().audit_dropped, dropped);
    drop(store);
    assert_eq!(open(&file).unwrap().0.audit_dropped().unwrap(), dropped, "and it is remembered");
}

/// Were they kept among its own, a guest that changes its VF again and again would push out what users did to it.
#[test]
fn a_partition_cannot_push_out_what_users_have_done_to_it() {
    let reset = |uid, time_ms| {
        let (partition, request) = ("web".parse().unwrap(), VfOp::Reset { vf: "net0".parse().unwrap() });
        Change::Audit(AuditEntry { time_ms, partition, uid, request, verdict: Verdict::Granted })
    };
    let store = open(&file_with(&[reset(Some(1000), 1)])).unwrap().0;
    store.commit(&(2..1_500).map(|time| reset(None, time)).collect::<Vec<_>>()).unwrap();
    let all = store.audit(usize::MAX).unwrap();
    assert_eq!((all.len(), all[0].time_ms, all[0].uid), (1_001, 1, Some(1000)));
    let many: Vec<_> = (0..1_010).map(|time| reset(Some(0), 2_000 + time)).collect();
    store.commit(&many).unwrap();
    let dropped = store.audit_dropped().unwrap()[&"web".parse().unwrap()];
    assert_eq!((dropped.users, dropped.changes), (11, 498));
    assert_eq!(dropped.to_string(), "11 user's operations, 498 changes");
}

/// When all partitions together exceed the limit, the entries of the one with most are dropped.
#[test]
fn the_partition_with_the_longest_audit_log_loses_entries_first() {
    let reset = |who: &str, time_ms| {
        let request = VfOp::Reset { vf: "net0".parse().unwrap() };
        Change::Audit(AuditEntry {
            time_ms,
            partition: who.parse().unwrap(),
            uid: None,
            request,
            verdict: Verdict::Granted,
        })
    };
    let small = reset("small", 0);
    let many = (0..52).flat_map(|p| (0..1_000).map(move |n| reset(&format!("p{p}"), n)));
    let store = open(&file_with(&[small])).unwrap().0;
    store.commit(&many.collect::<Vec<_>>()).unwrap();
    let all = store.audit(usize::MAX).unwrap();
    assert_eq!(all.len() as u64, KEPT_AUDIT_ENTRIES);
    assert_eq!(all[0].partition.as_str(), "small");
    let dropped = store.audit_dropped().unwrap();
    assert_eq!(dropped.values().map(|dropped| dropped.changes).sum::<u64>(), 2_001);
    assert!(dropped.values().all(|dropped| dropped.changes < 50), "each of them by a little: {dropped:?}");
}

#[test]
fn an_export_can_be_read_by_people_and_programs() {
    let mut changes = rows(&state());
    changes.extend([
        plan_begun(1),
        step_begun(1, 1),
        Change::OperationBegun(operation()),
        Change::Audit(audit(1)),
    ]);
    let export = open(&file_with(&changes)).unwrap().0.export().unwrap();
    let text = serde_json::to_string_pretty(&export).unwrap();
    for line in
        [r#""schema": 5,"#, r#""52:54:00:aa:00:77""#, r#""step": "stop-partition","#, r#""is": "begun","#]
    {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert_eq!(serde_json::from_str::<ioward_store::Export>(&text).unwrap(), export);
}

/// A file that counts the bytes written to it.
#[derive(Clone, Debug, Default)]
struct Counting(MemoryFile, Arc<AtomicUsize>);

impl StorageBackend for Counting {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, content: &[u8]) -> std::io::Result<()> {
        self.1.fetch_add(content.len(), Ordering::Relaxed);
        self.0.write(offset, content)
    }
}

/// Version 1 wrote the whole state for every step of a plan: 2 MB for each VF given to 1,000 partitions.
#[test]
fn a_small_change_of_a_large_state_is_a_small_write() {
    let mut large = state();
    let (web, adapter) =
        (large.partitions.values().next_back().unwrap().clone(), "0000:01:00.0".parse().unwrap());
    for number in 0..1_000_u16 {
        let mut partition = web.clone();
        partition.spec.name = format!("web{number}").parse().unwrap();
        for held in partition.vfs.values_mut() {
            held.vf = ioward_model::VfId { pf: adapter, index: number + 10 };
        }
        large.partitions.insert(partition.spec.name.clone(), partition);
    }
    let file = Counting::default();
    StateFile::create("large".as_ref(), file.clone(), &rows(&large)).unwrap();
    let size = file.len().unwrap();
    let opened = file.clone();
    let (store, contents) = StateFile::open("large".into(), move || Ok(opened.clone())).unwrap();
    assert_eq!(contents.state, large);

    let mut most = 0;
    for (n, name) in large.partitions.keys().enumerate().take(50) {
        let mut head = large.row(&ioward_model::RowKey::Partition(name.clone()));
        if let Row::Partition(_, Some(head)) = &mut head {
            head.running = !head.running;
        }
        file.1.store(0, Ordering::Relaxed);
        store.commit(&[Change::Row(head), step_done(1, n)]).unwrap();
        most = most.max(file.1.load(Ordering::Relaxed));
    }
    println!("1,000 partitions: a file of {size} bytes; at most {most} bytes are written for a step");
    assert!(size > 500_000 && most < 64 << 10, "{most} bytes for a step, of {size}");
}
