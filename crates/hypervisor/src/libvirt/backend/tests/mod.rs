//! The backend against a daemon in this process. A real one is in the lab.

mod adopting;
mod daemon;
mod devices;
mod following;
mod lifecycle;

use ioward_model::{Name, Owner, PartitionSpec};
use tokio::sync::mpsc;

use self::daemon::{Host, UUID};
use super::LibvirtHypervisor;
use crate::{Hypervisor, HypervisorEvent, PartitionStatus};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn owner(vf: &str) -> Owner {
    Owner { partition: name("web"), vf: name(vf) }
}

fn spec(partition: &str, domain: &str) -> PartitionSpec {
    let domain: ioward_model::DomainRef = domain.parse().unwrap();
    PartitionSpec::new(name(partition), domain)
}

/// A backend with `web` as a partition of that name.
async fn with_web(host: &Host) -> LibvirtHypervisor {
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    hypervisor.define(&spec("web", "web")).await.unwrap();
    hypervisor
}

async fn status(hypervisor: &LibvirtHypervisor) -> PartitionStatus {
    let mut all = hypervisor.partitions().await.unwrap();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn vfs(status: &PartitionStatus) -> Vec<(String, String)> {
    status.vfs.iter().map(|(vf, function)| (vf.to_string(), function.to_string())).collect()
}

async fn next(events: &mut mpsc::Receiver<HypervisorEvent>) -> HypervisorEvent {
    events.recv().await.expect("the backend is there")
}
