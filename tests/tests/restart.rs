//! A daemon that replaces another. Each machine that had ended meanwhile used to cost it a sync of the disk: on a
//! host with 1,000 ended partitions, over two seconds before it served anybody.

// Test helpers are tests too, which the lints do not know.
#![allow(clippy::unwrap_used)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ioward_fabric::sim::SimMachine;
use ioward_hypervisor::sim::{Bounds, SimConfig, SimHypervisor};
use ioward_imp::{Clock, Imp, Run};
use ioward_model::{Boot, EventKind, Machine, MemorySize, Name, PartitionSpec, PartitionState, State};
use ioward_store::Contents;
use ioward_tests::told_store::ToldStore;

fn partition(name: &Name, running: bool) -> PartitionState {
    let boot = Boot { kernel: Some("/kernel".into()), ..Boot::default() };
    let memory = MemorySize::from_mebibytes(64).unwrap();
    let spec = PartitionSpec::new(name.clone(), Machine { memory, ..Machine::new(boot) });
    PartitionState {
        spec,
        running,
        channel: true,
        channel_in_doubt: false,
        vfs: Default::default(),
        standbys: Default::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_ended_machines_are_recorded_in_one_commit() {
    let folder = tempfile::tempdir().unwrap();
    let config = SimConfig {
        runtime_dir: folder.path().join("run"),
        // No partition starts here.
        program: "/nonexistent".into(),
        arguments: Vec::new(),
        bounds: Bounds::default(),
    };
    let hypervisor = Arc::new(SimHypervisor::new(config).unwrap());
    let names: Vec<Name> = (0..20).map(|n| format!("p{n}").parse().unwrap()).collect();
    let stopped = &names[7];
    let partitions = names.iter().map(|name| (name.clone(), partition(name, name != stopped)));
    let state = State { partitions: partitions.collect(), ..State::default() };
    let (store, contents) = ioward_store::open(&folder.path().join("state")).unwrap();
    let commits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&commits);
    let before_commit = move || _ = counted.fetch_add(1, Ordering::Relaxed);
    let store = ToldStore { store: Box::new(store), before_commit };
    let fabric = Arc::new(SimMachine::standard(1).fabric());
    let run = Run { epoch: 1, boot: String::new(), clock: Clock::default() };
    let imp = Imp::new(fabric, hypervisor, Box::new(store), Contents { state, ..contents }, run);

    imp.adopt().await.unwrap();

    assert_eq!(commits.load(Ordering::Relaxed), 1);
    assert!(imp.state().partitions.values().all(|partition| !partition.running));
    let kept = imp.export().unwrap().state.partitions;
    assert_eq!(kept.len(), 19, "what has changed is on the disk");
    assert!(kept.values().all(|partition| !partition.running));
    let mut told: Vec<Name> = imp
        .events()
        .into_iter()
        .filter_map(|event| match event.kind {
            EventKind::PartitionEnded { partition, .. } => Some(partition),
            _ => None,
        })
        .collect();
    told.sort();
    let mut gone: Vec<Name> = names.iter().filter(|name| *name != stopped).cloned().collect();
    gone.sort();
    assert_eq!(told, gone, "the one that had been stopped has not ended");
}
