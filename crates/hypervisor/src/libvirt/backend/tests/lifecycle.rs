//! Which domain a partition is; starting and stopping it.

use super::*;
use crate::{Accelerator, HypervisorError, StopMode};

const OTHER: &str = "11111111-2222-3333-4444-555555555555";

async fn refusal(hypervisor: &LibvirtHypervisor, partition: &str, domain: &str) -> String {
    let error = hypervisor.define(&spec(partition, domain)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::Domain { .. }), "{error}");
    error.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_domain_is_one_partition_by_its_name_or_its_uuid() {
    let host = Host::new();
    host.world().add("db", OTHER, 2);
    let hypervisor = with_web(&host).await;
    hypervisor.define(&spec("web", "web")).await.unwrap();
    for reference in ["web", UUID] {
        let error = refusal(&hypervisor, "mole", reference).await;
        assert!(error.contains("it is partition web already"), "{error}");
    }
    let error = refusal(&hypervisor, "web", "db").await;
    assert!(error.contains("ioward remove web"), "{error}");
    let error = refusal(&hypervisor, "mole", "nosuch").await;
    assert!(error.contains("Domain not found") && error.contains("virsh list --all"), "{error}");
    hypervisor.define(&spec("db", OTHER)).await.unwrap();
    let all = hypervisor.partitions().await.unwrap();
    assert_eq!(all.iter().map(|partition| partition.name.as_str()).collect::<Vec<_>>(), ["db", "web"]);
    // By its UUID it is the same.
    hypervisor.define(&spec("web", UUID)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_stands_in_the_way_of_a_partition_is_said_before_it_is_made() {
    let mut host = Host::new();
    let hypervisor = with_web(&host).await;
    for (partition, domain, found, remedy) in [
        ("mole", "web", "it is partition web", "one partition"),
        ("mole", "nosuch", "none", "virsh list --all"),
    ] {
        let obstacles = hypervisor.check_definition(&spec(partition, domain)).await.unwrap();
        let [obstacle] = &obstacles[..] else { panic!("{obstacles:?}") };
        assert!(obstacle.required.contains(domain) && obstacle.remedy.contains(remedy), "{obstacle:?}");
        assert_eq!(obstacle.found, found);
    }
    host.kill_daemon().await;
    // A partition that is there does not take libvirt to be planned with.
    assert_eq!(hypervisor.check_definition(&spec("web", "web")).await.unwrap(), []);
    let obstacles = hypervisor.check_definition(&spec("db", "db")).await.unwrap();
    assert!(obstacles[0].found.contains("no libvirt daemon listens here"), "{obstacles:?}");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_renamed_stays_its_partition() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    hypervisor.attach_vf(&owner("net0"), "0000:01:10.0".parse().unwrap()).await.unwrap();
    host.world().rename("web", "www");
    host.world().add("web", OTHER, 2);
    hypervisor.define(&spec("web", "web")).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await).len(), 1);
    hypervisor.start(&name("web")).await.unwrap();
    let ids = ["www", "web"].map(|domain| host.world().dom(domain).id);
    assert_eq!(ids, [Some(1), None]);
    // Another daemon knows it, too.
    drop(hypervisor);
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let now = status(&hypervisor).await;
    assert!(now.running && now.vfs.len() == 1, "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_was_defined_anew_can_be_taken_again() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    host.world().undefine("web");
    let error = refusal(&hypervisor, "web", "web").await;
    assert!(error.contains("Domain not found"), "{error}");
    host.world().add("web", OTHER, 2);
    hypervisor.define(&spec("web", "web")).await.unwrap();
    hypervisor.start(&name("web")).await.unwrap();
    assert!(host.world().web().id.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_partition_of_another_kind_is_not_taken() {
    let host = Host::new();
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let boot = ioward_model::Boot { disk: Some("/disk".into()), ..ioward_model::Boot::default() };
    let error = hypervisor.define(&PartitionSpec::new(name("own"), boot)).await.unwrap_err();
    assert!(matches!(error, HypervisorError::NoBackend { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn it_is_started_and_shut_down_and_neither_is_news() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    let mut events = hypervisor.events().await;
    assert_eq!(hypervisor.start(&name("web")).await.unwrap(), Accelerator::Kvm);
    assert_eq!(hypervisor.start(&name("web")).await.unwrap(), Accelerator::Kvm);
    assert_eq!(status(&hypervisor).await.accelerator, Some(Accelerator::Kvm));
    hypervisor.stop(&name("web"), StopMode::Graceful).await.unwrap();
    hypervisor.stop(&name("web"), StopMode::Graceful).await.unwrap();
    assert_eq!(host.calls(), ["start", "press"]);
    assert!(!status(&hypervisor).await.running);
    hypervisor.start(&name("web")).await.unwrap();
    hypervisor.stop(&name("web"), StopMode::Force).await.unwrap();
    hypervisor.stop(&name("web"), StopMode::Force).await.unwrap();
    assert_eq!(host.calls(), ["start", "turn off"]);
    tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    assert!(events.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_start_is_told_in_libvirts_words() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    let why = "internal error: QEMU unexpectedly closed the monitor: no such file";
    host.world().web().no_start = Some(why);
    let error = hypervisor.start(&name("web")).await.unwrap_err().to_string();
    assert!(error.contains("cannot start domain web (partition web)") && error.contains(why), "{error}");
    assert!(!status(&hypervisor).await.running);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_ignores_its_power_button_runs_on_and_force_works_meanwhile() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    hypervisor.start(&name("web")).await.unwrap();
    host.world().web().stubborn = true;
    let error = hypervisor.stop(&name("web"), StopMode::Graceful).await.unwrap_err();
    assert!(matches!(error, HypervisorError::GuestUnresponsive { .. }), "{error}");
    assert!(status(&hypervisor).await.running);
    let web = name("web");
    let (slow, forced) =
        tokio::join!(hypervisor.stop(&web, StopMode::Graceful), hypervisor.stop(&web, StopMode::Force));
    forced.unwrap();
    slow.unwrap();
    assert!(!status(&hypervisor).await.running);
}

#[tokio::test(start_paused = true)]
async fn without_libvirt_it_is_said_at_once_and_nothing_is_asked_before_it_is_needed() {
    let mut host = Host::new();
    host.kill_daemon().await;
    let begun = tokio::time::Instant::now();
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    assert_eq!(hypervisor.partitions().await.unwrap(), []);
    let error = hypervisor.check().await.unwrap_err().to_string();
    assert!(error.contains("no libvirt daemon listens here"), "{error}");
    let error = refusal(&hypervisor, "web", "web").await;
    assert!(error.contains("install libvirt"), "{error}");
    assert!(begun.elapsed().as_secs() < 2, "{:?}", begun.elapsed());
    // It is installed.
    host.start_daemon();
    hypervisor.define(&spec("web", "web")).await.unwrap();
}
