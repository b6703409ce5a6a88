//! Both ends of the link between the two sides of the daemon, with a machine behind it whose operations end when the test says so.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::{sync::Arc, time::Duration};

use common::{SlowFabric, SlowHypervisor, VF_ADDRESS, vf};
use ioward_fabric::{Fabric, FabricError};
use ioward_hypervisor::{Guard, Hypervisor, HypervisorError, HypervisorEvent};
use ioward_model::{FunctionFacts, Inventory};
use ioward_privsep::{
    Call, Decoder, Frame, LinkError, MAX_FROM_HOST, MAX_FROM_IMP, Remote, Server, ToHost, ToImp, Told,
    connect, write_frame,
};
use tokio::{io::AsyncReadExt, net::UnixStream, sync::mpsc, task::JoinHandle, time::timeout};

/// Far above what anything here takes; whoever waits this long has found a bug.
const LONG: Duration = Duration::from_secs(60);

/// A management partition's end of a link to a hypervisor side over these.
fn linked(fabric: Arc<SlowFabric>, hypervisor: Arc<SlowHypervisor>) -> (Remote, Told) {
    connect(served(fabric, hypervisor).0)
}

/// The other end of a link to a hypervisor side over these, and how that ends.
fn served(
    fabric: Arc<SlowFabric>,
    hypervisor: Arc<SlowHypervisor>,
) -> (UnixStream, JoinHandle<Result<(), LinkError>>) {
    let (host, imp) = UnixStream::pair().unwrap();
    let (words, stop) = (mpsc::unbounded_channel().0, mpsc::channel(1).1);
    (imp, tokio::spawn(Server::new(fabric, Arc::new(guarded(hypervisor))).serve(host, words, stop)))
}

/// On a host with one VF on vfio-pci, alone in its IOMMU group.
fn guarded(hypervisor: Arc<SlowHypervisor>) -> Guard {
    let facts = FunctionFacts {
        physical: Some(vf().pf),
        is_bridge: false,
        driver: Some("vfio-pci".into()),
        group: Some(vec![VF_ADDRESS.into()]),
    };
    Guard::new(hypervisor, move |function| Ok((function.to_string() == VF_ADDRESS).then(|| facts.clone())))
}

/// The reader waited for room among the events while their consumer waited for an answer, which the reader had to read.
#[tokio::test]
async fn an_answer_arrives_however_many_events_wait_for_their_consumer() {
    let (host, imp) = UnixStream::pair().unwrap();
    let (remote, _told) = connect(imp);
    let mut events = remote.events().await;
    let answered = tokio::spawn(async move { remote.partitions().await });
    for number in 0..5000 {
        let event = HypervisorEvent::Ended {
            partition: format!("p{number}").parse().unwrap(),
            why: "the guest turned itself off".into(),
        };
        let frame = Frame::new(&ToImp::Happened(event), MAX_FROM_HOST).unwrap();
        timeout(LONG, write_frame(&host, frame)).await.unwrap().unwrap();
    }
    let answer = ToImp::Answer { id: 0, result: Ok(()), with_fd: false };
    let frame = Frame::with_value(&answer, &Vec::<()>::new(), MAX_FROM_HOST).unwrap();
    timeout(LONG, write_frame(&host, frame)).await.unwrap().unwrap();
    assert_eq!(timeout(LONG, answered).await.expect("no answer").unwrap().unwrap(), []);
    for number in 0..5000 {
        let event = timeout(LONG, events.recv()).await.unwrap().unwrap();
        assert_eq!(event.partition().as_str(), format!("p{number}"), "in order, and none is lost");
    }
}

/// The hypervisor side read nothing while as many calls as it takes were under way: neither was a call given up then.
#[tokio::test]
async fn a_call_is_given_up_also_while_as_many_as_are_allowed_are_under_way() {
    let fabric = Arc::new(SlowFabric::default());
    let (remote, _told) = linked(Arc::clone(&fabric), Arc::default());
    let calls: Vec<_> = (0..513)
        .map(|_| {
            let remote = remote.clone();
            tokio::spawn(async move { remote.is_open(vf()).await })
        })
        .collect();
    timeout(LONG, fabric.looks.entered(512)).await.unwrap();
    calls[0].abort();
    timeout(LONG, fabric.looks.entered(513)).await.expect("the last one is still waiting");
}

/// A bind was held against what partitions have, and then done: whoever was given the VF in between had it on a driver of the
/// host's.
#[tokio::test]
async fn a_vf_is_not_given_to_a_partition_while_it_is_bound_to_a_driver_of_the_hosts() {
    let fabric = Arc::new(SlowFabric::default());
    let hypervisor = Arc::new(SlowHypervisor::default());
    hypervisor.attaches.open();
    let (remote, _told) = linked(Arc::clone(&fabric), hypervisor);
    let binding = tokio::spawn({
        let remote = remote.clone();
        async move { remote.bind(vf(), Some("igbvf")).await }
    });
    timeout(LONG, fabric.binds.entered(1)).await.unwrap();
    let owner = "web/net0".parse().unwrap();
    let attached = timeout(LONG, remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap())).await;
    let refused = attached.expect("it is let in").unwrap_err();
    assert!(matches!(refused, HypervisorError::NotAttachable { .. }), "{refused}");
    fabric.binds.open();
    timeout(LONG, binding).await.unwrap().unwrap().unwrap();
    assert!(remote.partitions().await.unwrap().iter().all(|partition| partition.vfs.is_empty()));
}

/// The same, the other way round.
#[tokio::test]
async fn a_vf_is_not_bound_to_a_driver_of_the_hosts_while_it_is_given_to_a_partition() {
    let hypervisor = Arc::new(SlowHypervisor::default());
    let (remote, _told) = linked(Arc::default(), Arc::clone(&hypervisor));
    let owner = "web/net0".parse().unwrap();
    let attaching = tokio::spawn({
        let remote = remote.clone();
        async move { remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap()).await }
    });
    timeout(LONG, hypervisor.attaches.entered(1)).await.unwrap();
    for driver in [Some("igbvf"), None] {
        let refused = remote.bind(vf(), driver).await.unwrap_err();
        assert!(matches!(refused, FabricError::Refused { .. }), "{refused}");
    }
    remote.bind(vf(), Some("vfio-pci")).await.unwrap();
    hypervisor.attaches.open();
    timeout(LONG, attaching).await.unwrap().unwrap().unwrap();
    remote.bind(vf(), None).await.unwrap_err();
}

/// A VF was handed out, or bound to a driver of the host's, while its PF got other VFs: what had been looked at was another function
/// by then.
#[tokio::test]
async fn a_vf_is_neither_given_nor_bound_while_its_pf_gets_another_number_of_vfs() {
    let fabric = Arc::new(SlowFabric::default());
    let hypervisor = Arc::new(SlowHypervisor::default());
    fabric.binds.open();
    hypervisor.attaches.open();
    let (remote, _told) = linked(Arc::clone(&fabric), hypervisor);
    let counting = tokio::spawn({
        let remote = remote.clone();
        async move { remote.set_vf_count(vf().pf, 4).await }
    });
    timeout(LONG, fabric.counts.entered(1)).await.unwrap();
    let owner = "web/net0".parse().unwrap();
    let refused = remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, HypervisorError::NotAttachable { .. }), "{refused}");
    let refused = remote.bind(vf(), Some("igbvf")).await.unwrap_err();
    assert!(matches!(refused, FabricError::Refused { .. }), "{refused}");
    fabric.counts.open();
    timeout(LONG, counting).await.unwrap().unwrap().unwrap();
    remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap()).await.unwrap();
}

/// The same, the other way round.
#[tokio::test]
async fn a_pf_keeps_its_vfs_while_one_of_them_is_given_or_bound() {
    let fabric = Arc::new(SlowFabric::default());
    let hypervisor = Arc::new(SlowHypervisor::default());
    fabric.counts.open();
    let (remote, _told) = linked(Arc::clone(&fabric), Arc::clone(&hypervisor));
    let binding = tokio::spawn({
        let remote = remote.clone();
        async move { remote.bind(vf(), None).await }
    });
    timeout(LONG, fabric.binds.entered(1)).await.unwrap();
    let refused = remote.set_vf_count(vf().pf, 0).await.unwrap_err();
    assert!(refused.to_string().contains("0000:01:10.0 is being bound"), "{refused}");
    fabric.binds.open();
    timeout(LONG, binding).await.unwrap().unwrap().unwrap();
    let attaching = tokio::spawn({
        let remote = remote.clone();
        async move { remote.attach_vf(&"web/net0".parse().unwrap(), VF_ADDRESS.parse().unwrap()).await }
    });
    timeout(LONG, hypervisor.attaches.entered(1)).await.unwrap();
    let refused = remote.set_vf_count(vf().pf, 0).await.unwrap_err();
    assert!(refused.to_string().contains("is being given to web/net0"), "{refused}");
    hypervisor.attaches.open();
    timeout(LONG, attaching).await.unwrap().unwrap().unwrap();
    remote.set_vf_count(vf().pf, 0).await.unwrap();
}

/// A call that was given up is under way in the kernel all the same: nobody is given the VF before that has ended.
#[tokio::test]
async fn a_bind_that_is_given_up_keeps_the_vf_from_partitions_until_it_has_ended() {
    let fabric = Arc::new(SlowFabric::default());
    let hypervisor = Arc::new(SlowHypervisor::default());
    hypervisor.attaches.open();
    let (remote, _told) = linked(Arc::clone(&fabric), hypervisor);
    let binding = tokio::spawn({
        let remote = remote.clone();
        async move { remote.bind(vf(), Some("igbvf")).await }
    });
    timeout(LONG, fabric.binds.entered(1)).await.unwrap();
    binding.abort();
    let owner = "web/net0".parse().unwrap();
    // Answered after the call before it has been given up: frames are read in their order.
    remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap()).await.unwrap_err();
    fabric.binds.open();
    let attached = async { while remote.attach_vf(&owner, VF_ADDRESS.parse().unwrap()).await.is_err() {} };
    timeout(LONG, attached).await.unwrap();
}

/// More calls than are allowed are nonsense, and so are two of one number: neither is kept waiting, nor any frame behind it.
#[tokio::test]
async fn whoever_asks_for_more_at_once_than_is_allowed_is_heard_no_more() {
    for number in [|number| number, |_| 0] {
        let (imp, served) = served(Arc::default(), Arc::default());
        for id in (0..513).map(number) {
            let call = ToHost::Call { id, call: Call::IsOpen { vf: vf() } };
            if write_frame(&imp, Frame::new(&call, MAX_FROM_IMP).unwrap()).await.is_err() {
                break;
            }
        }
        let served = timeout(LONG, served).await.expect("it waits for calls that never end").unwrap();
        assert!(matches!(served, Err(LinkError::Nonsense(_))), "{served:?}");
    }
}

/// Results went through a `serde_json::Value` at both ends: each was built, sorted and written twice.
#[tokio::test]
async fn a_result_is_in_its_frame_as_it_was_serialized() {
    let (mut imp, _served) = served(Arc::default(), Arc::default());
    let call = ToHost::Call { id: 7, call: Call::Identify {} };
    write_frame(&imp, Frame::new(&call, MAX_FROM_IMP).unwrap()).await.unwrap();
    let mut frames = Decoder::of_imp();
    let answer = loop {
        let mut bytes = [0; 4096];
        let read = timeout(LONG, imp.read(&mut bytes)).await.unwrap().unwrap();
        frames.push(&bytes[..read]);
        if let Some(answer) = frames.next_frame::<ToImp>().unwrap() {
            break answer;
        }
    };
    assert!(matches!(answer.message, ToImp::Answer { id: 7, result: Ok(()), with_fd: false }));
    assert_eq!(answer.value, serde_json::to_vec(&Inventory::default()).unwrap());
}
