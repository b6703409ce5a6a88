//! Simulated machines that are there and execute nothing: seen, and reset. QEMU's are in qemu.rs, and that VFIO stops one for an error of its
//! adapter is seen in the lab (tests/src/adapter_faults.rs).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{fs, sync::Arc, time::Duration};

use ioward_hypervisor::{
    Guard, Hypervisor, HypervisorError, HypervisorEvent, PartitionStatus, StopMode,
    sim::{Bounds, SimConfig, SimHypervisor},
};
use ioward_model::{FunctionFacts, Halt, Name, Owner, Spec};
use ioward_pci::Bdf;
use tokio::{sync::mpsc, time::timeout};

/// Far above what anything here takes; whoever waits this long has found a bug.
const LONG: Duration = Duration::from_secs(60);

async fn status(hypervisor: &Guard, partition: &Name) -> PartitionStatus {
    hypervisor.partitions().await.unwrap().into_iter().find(|status| status.name == *partition).unwrap()
}

async fn next(events: &mut mpsc::Receiver<HypervisorEvent>) -> HypervisorEvent {
    timeout(LONG, events.recv()).await.expect("nothing is told").unwrap()
}

/// Waits until a process is in this state (proc(5), `stat`).
async fn is_in_state(status: &PartitionStatus, state: char) {
    let stat = format!("/proc/{}/stat", status.pid.unwrap());
    let is_so = || {
        fs::read_to_string(&stat)
            .unwrap()
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim().starts_with(state))
    };
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("{stat} never says {state}"));
}

fn facts(function: Bdf) -> FunctionFacts {
    let physical = Some("0000:01:00.0".parse().unwrap());
    let group = Some(vec![function.to_string()]);
    FunctionFacts { physical, is_bridge: false, driver: Some("vfio-pci".into()), group }
}

/// As QEMU stops a machine for an error of its VF's adapter.
#[tokio::test]
async fn a_simulated_machine_that_an_error_has_halted_goes_on_once_it_is_reset() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { start: LONG, command: LONG, unplug: LONG, power_down: LONG };
    let script = "echo started >&0; while read line; do :; done";
    let simulated = SimHypervisor::new(SimConfig {
        runtime_dir: folder.path().to_owned(),
        program: "/bin/sh".into(),
        arguments: ["-c", script].map(Into::into).to_vec(),
        bounds,
    });
    let simulated = Arc::new(simulated.unwrap());
    let hypervisor = Guard::new(Arc::clone(&simulated) as _, |function| Ok(Some(facts(function))));
    let spec = "version = 1\n[[partition]]\nname = \"web\"\nboot = { disk = '/none' }\n";
    let spec = Spec::parse(spec.as_bytes()).unwrap().partitions.remove(0);
    hypervisor.define(&spec).await.unwrap();
    let (owner, function): (Owner, Bdf) = ("web/net0".parse().unwrap(), "0000:01:10.0".parse().unwrap());
    hypervisor.attach_vf(&owner, function).await.unwrap();
    hypervisor.start(&spec.name).await.unwrap();
    let mut events = hypervisor.events().await;

    simulated.halt_holders(&["0000:01:10.2".parse().unwrap()]).await;
    assert_eq!(status(&hypervisor, &spec.name).await.halted, None, "it has another");
    simulated.halt_holders(&[function]).await;
    simulated.halt_holders(&[function]).await;
    let halted = status(&hypervisor, &spec.name).await;
    assert_eq!(halted.halted, Some(Halt::InternalError));
    is_in_state(&halted, 'T').await;
    hypervisor.reset(&spec.name).await.unwrap();
    hypervisor.reset(&spec.name).await.unwrap();
    let again = status(&hypervisor, &spec.name).await;
    assert_eq!(again, PartitionStatus { halted: None, ..halted });
    is_in_state(&again, 'S').await;
    for _ in 0..2 {
        assert_eq!(next(&mut events).await, HypervisorEvent::Halted { partition: spec.name.clone() });
    }
    assert!(events.try_recv().is_err(), "each is told once");

    simulated.halt_holders(&[function]).await;
    hypervisor.stop(&spec.name, StopMode::Force).await.unwrap();
    let stopped = status(&hypervisor, &spec.name).await;
    assert!(!stopped.running && stopped.halted.is_none());
    assert!(matches!(hypervisor.reset(&spec.name).await, Err(HypervisorError::NotRunning(_))));
}
