//! What others do with a domain, and what becomes of a daemon.

use super::{daemon::MODULAR, *};
use crate::libvirt::xml;

const VF: &str = "0000:01:10.0";

/// A backend with a domain that runs with a VF.
async fn running(host: &Host) -> (LibvirtHypervisor, mpsc::Receiver<HypervisorEvent>) {
    let hypervisor = with_web(host).await;
    hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    hypervisor.start(&name("web")).await.unwrap();
    let events = hypervisor.events().await;
    (hypervisor, events)
}

fn ended(event: &HypervisorEvent, word: &str) -> bool {
    matches!(event, HypervisorEvent::Ended { partition, why } if partition.as_str() == "web" && why.contains(word))
}

fn is_started(event: &HypervisorEvent) -> bool {
    matches!(event, HypervisorEvent::Started { partition } if partition.as_str() == "web")
}

#[tokio::test(start_paused = true)]
async fn what_others_do_is_told_with_libvirts_reason() {
    let host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    for (reason, word) in [(1, "turned itself off"), (2, "virsh destroy"), (3, "crashed"), (5, "virsh save")]
    {
        host.world().stop("web", reason);
        let event = next(&mut events).await;
        assert!(ended(&event, word), "{event:?}");
        let now = status(&hypervisor).await;
        assert_eq!((now.running, vfs(&now).len()), (false, 1));
        host.world().start("web");
        let event = next(&mut events).await;
        assert!(is_started(&event), "{event:?}");
        assert!(status(&hypervisor).await.running);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vf_that_somebody_takes_out_is_told() {
    let host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.world().unplugged("web", "ua-ioward-net0");
    let event = next(&mut events).await;
    let HypervisorEvent::Detached { owner: it, why } = &event else { panic!("{event:?}") };
    assert!(*it == owner("net0") && why.contains("virsh detach-device"), "{event:?}");
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_undefined_is_gone_and_its_vfs_are_taken_from_it() {
    let host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.world().undefine("web");
    host.world().stop("web", 2);
    let event = next(&mut events).await;
    assert!(ended(&event, ""), "{event:?}");
    let event = next(&mut events).await;
    assert!(matches!(event, HypervisorEvent::Gone { .. }), "{event:?}");
    let now = status(&hypervisor).await;
    assert_eq!((now.running, vfs(&now).len()), (false, 1), "nobody else may have it yet: {now:?}");
    // The next daemon is told, too.
    drop(hypervisor);
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let mut events = hypervisor.events().await;
    let event = next(&mut events).await;
    assert!(matches!(event, HypervisorEvent::Gone { .. }), "{event:?}");
    let error = hypervisor.start(&name("web")).await.unwrap_err().to_string();
    assert!(error.contains("virsh define"), "{error}");
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
    hypervisor.undefine(&name("web")).await.unwrap();
    assert_eq!(hypervisor.partitions().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn one_that_runs_on_when_it_is_undefined_is_not_gone_yet() {
    let host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.world().undefine("web");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(events.try_recv().is_err());
    let now = status(&hypervisor).await;
    assert!(now.running && now.vfs.len() == 1, "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn what_happened_while_the_daemon_was_away_is_told_when_it_is_back() {
    let mut host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.kill_daemon().await;
    host.world().stop("web", 3);
    host.start_daemon();
    let event = next(&mut events).await;
    assert!(ended(&event, "crashed"), "{event:?}");

    host.kill_daemon().await;
    host.world().start("web");
    host.world().unplugged("web", "ua-ioward-net0");
    host.start_daemon();
    let event = next(&mut events).await;
    assert!(is_started(&event), "{event:?}");
    let event = next(&mut events).await;
    assert!(matches!(event, HypervisorEvent::Detached { .. }), "{event:?}");

    // It ends and starts again unseen, and the daemon counts from 1 again.
    host.kill_daemon().await;
    host.world().stop("web", 1);
    host.world().start("web");
    host.start_daemon();
    let event = next(&mut events).await;
    assert!(ended(&event, "while nobody here looked"), "{event:?}");
    let event = next(&mut events).await;
    assert!(is_started(&event), "{event:?}");
    // What happened while nobody listened is told to whoever does.
    drop(events);
    host.kill_daemon().await;
    host.world().undefine("web");
    host.world().stop("web", 1);
    host.start_daemon();
    drop(hypervisor);
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let mut events = hypervisor.events().await;
    let event = next(&mut events).await;
    assert!(ended(&event, ""), "{event:?}");
    let event = next(&mut events).await;
    assert!(matches!(event, HypervisorEvent::Gone { .. }), "{event:?}");
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(events.try_recv().is_err(), "it is told once");
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_not_taken_for_stopped_because_libvirt_is_away() {
    let mut host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.kill_daemon().await;
    tokio::time::sleep(std::time::Duration::from_secs(100)).await;
    let now = status(&hypervisor).await;
    assert!(now.running && now.vfs.len() == 1 && now.pid.is_some(), "{now:?}");
    drop(hypervisor);
    // Nor by another daemon.
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let now = status(&hypervisor).await;
    assert!(now.running && now.vfs.len() == 1, "{now:?}");
    assert!(events.try_recv().is_err());
    // But when its QEMU is gone it is.
    host.world().kill_process("web");
    let now = status(&hypervisor).await;
    assert_eq!((now.running, vfs(&now).len(), now.pid), (false, 1, None), "{now:?}");
    // And one that was started before libvirt went away is running.
    host.world().start("web");
    let now = status(&hypervisor).await;
    assert!(now.running && now.vfs.len() == 1 && now.pid.is_some(), "{now:?}");
    let error = hypervisor.connect_channel(&name("web")).await.unwrap_err().to_string();
    assert!(error.contains("web.sock"), "it is tried: {error}");
}

#[tokio::test(start_paused = true)]
async fn a_domain_goes_on_under_a_daemon_of_the_other_kind() {
    let mut host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    host.kill_daemon().await;
    host.world().stop("web", 3);
    host.start_daemon_at(MODULAR);
    let event = next(&mut events).await;
    assert!(ended(&event, "crashed"), "{event:?}");
    hypervisor.start(&name("web")).await.unwrap();
    let net1 = ioward_model::Owner { vf: name("net1"), ..owner("net0") };
    hypervisor.attach_vf(&net1, "0000:01:10.2".parse().unwrap()).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await).len(), 2);
    // And back.
    host.kill_daemon().await;
    host.start_daemon();
    hypervisor.detach_vf(&net1, false).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await).len(), 1);
    assert!(events.try_recv().is_err(), "none of that was news");
}

#[tokio::test(start_paused = true)]
async fn a_vf_that_somebody_edits_out_is_told_when_the_machine_is_off() {
    let host = Host::new();
    let (hypervisor, mut events) = running(&host).await;
    let without = xml::remove(host.world().web().persistent.as_ref().unwrap(), "ua-ioward-net0").unwrap();
    host.world().web().persistent = without;
    assert_eq!(vfs(&status(&hypervisor).await).len(), 1, "the machine that runs has it");
    host.world().stop("web", 1);
    let event = next(&mut events).await;
    assert!(ended(&event, "turned itself off"), "{event:?}");
    let event = next(&mut events).await;
    let HypervisorEvent::Detached { why, .. } = &event else { panic!("{event:?}") };
    assert!(why.contains("its definition has it no more") && why.contains("virsh edit"), "{why}");
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

/// A machine with a VF can't be saved, but one that was saved can be given a VF: it starts as it was saved.
#[tokio::test(start_paused = true)]
async fn a_domain_that_was_saved_before_it_had_its_vf_starts_without_it_and_that_is_told() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    let mut events = hypervisor.events().await;
    let saved = host.world().web().persistent.clone();
    host.world().web().saved = saved;
    hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    hypervisor.start(&name("web")).await.unwrap();
    let event = next(&mut events).await;
    let HypervisorEvent::Detached { owner: it, why } = &event else { panic!("{event:?}") };
    assert!(*it == owner("net0") && why.contains("the machine has it no more"), "{event:?}");
    assert_eq!(vfs(&status(&hypervisor).await), []);
    // It is given to it again.
    hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await).len(), 1);
}
