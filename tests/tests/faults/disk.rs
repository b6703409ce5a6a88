//! A disk that does not answer holds up those who need it, and nobody else.

use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use ioward_fabric::sim::SimMachine;
use ioward_model::VfOp;
use ioward_store::{MemoryFile, StateFile};
use ioward_tests::told_store::ToldStore;

use crate::scene::{Scene, name, open, partition, set_mac};

/// Commits wait while this is closed.
#[derive(Default)]
struct Held {
    is_closed: Mutex<bool>,
    opened: Condvar,
    waiting: AtomicUsize,
}

impl Held {
    fn close(&self, closed: bool) {
        *self.is_closed.lock().unwrap() = closed;
        self.opened.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.is_closed.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *closed {
            closed = self.opened.wait(closed).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Each guest that asked for a change while the disk hung took a thread with it, and each look a worker: the lock that the commit
/// held was the lock that an entry of the audit log needed.
#[test]
fn a_disk_that_hangs_holds_up_changes_and_no_looks() {
    // One worker, and few threads beside it: what blocks them is noticed.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(3)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let file = MemoryFile::default();
        StateFile::create("state".as_ref(), file.clone(), &[]).unwrap();
        let (store, contents) = open(&file);
        let held = Arc::new(Held::default());
        let its_own = Arc::clone(&held);
        let store = Box::new(ToldStore { store: Box::new(store), before_commit: move || its_own.pass() });
        let scene = Scene::with_store(SimMachine::standard(1), Arc::default(), file, store, contents);
        let spec: String =
            (0..6).map(|n| partition(&format!("p{n}"), n, &format!("52:54:00:00:00:a{n}"))).collect();
        scene.apply(&spec).await;
        held.close(true);
        let changes: Vec<_> = (0..6)
            .map(|n| {
                let imp = Arc::clone(&scene.imp);
                let op = set_mac(&format!("52:54:00:00:00:b{n}"));
                tokio::spawn(async move { imp.operate(&name(&format!("p{n}")), op).await })
            })
            .collect();
        scene.until("the disk hangs", |_| held.waiting.load(Ordering::SeqCst) > 0).await;
        for n in 0..6 {
            let imp = Arc::clone(&scene.imp);
            let look = tokio::spawn(async move { imp.operate(&name(&format!("p{n}")), VfOp::List).await });
            let looked = tokio::time::timeout(std::time::Duration::from_secs(60), look).await;
            looked.expect("a look waits for no disk").unwrap().unwrap();
        }
        scene.imp.look().await.unwrap();
        assert_eq!(held.waiting.load(Ordering::SeqCst), 1, "one waits with a thread, the others without");
        held.close(false);
        let mut done = 0;
        for change in changes {
            done += usize::from(change.await.unwrap().is_ok());
        }
        assert!(done > 0);
    });
}
