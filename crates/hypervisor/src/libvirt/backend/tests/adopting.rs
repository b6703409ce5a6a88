//! VFs that a domain has had before it was a partition: known by their functions, under whichever alias.

use super::{
    daemon::{Dom, definition},
    *,
};
use crate::{HypervisorError, libvirt::xml};

const VF: &str = "0000:01:10.4";
/// As a person writes it. libvirt gives it an alias while its machine runs, and none in the definition.
const BY_HAND: &str = "<hostdev mode='subsystem' type='pci' managed='no'><source><address bus='1' slot='0x10' function='4'/></source>\
     <address type='pci' bus='0x02'/></hostdev>";

fn held() -> Vec<(String, String)> {
    vec![("net0".to_owned(), VF.to_owned())]
}

fn with(device: &str) -> String {
    xml::insert(&definition("web", UUID, 5), device).unwrap()
}

/// A host whose `web` has the VF, running or off.
fn host(running: bool) -> Host {
    let host = Host::new();
    host.world().web().persistent = Some(with(BY_HAND));
    if running {
        host.world().start("web");
        let mut world = host.world();
        let web = &mut world.web().live;
        let alias = "</source><alias name='hostdev0'/>";
        *web = web.as_ref().map(|live| live.replace("</source>", alias));
    }
    host
}

async fn adopted(host: &Host) -> LibvirtHypervisor {
    let hypervisor = with_web(host).await;
    hypervisor.adopt_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    hypervisor
}

#[tokio::test(start_paused = true)]
async fn a_domain_s_vf_is_its_partition_s_without_a_call_that_changes_something() {
    for running in [false, true] {
        let host = host(running);
        let before = host.definitions();
        let hypervisor = adopted(&host).await;
        assert_eq!(vfs(&status(&hypervisor).await), held());
        hypervisor.adopt_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
        hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
        assert_eq!(vfs(&status(&hypervisor).await), held(), "it has it already");

        hypervisor.release_vf(&owner("net0")).await.unwrap();
        hypervisor.release_vf(&owner("net0")).await.unwrap();
        assert_eq!(vfs(&status(&hypervisor).await), []);
        hypervisor.undefine(&name("web")).await.unwrap();
        assert_eq!(hypervisor.partitions().await.unwrap(), []);
        assert_eq!(host.calls(), [""; 0]);
        assert_eq!(host.definitions(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn it_is_there_after_virsh_has_started_the_domain_anew_and_after_the_next_daemon_has_come() {
    let host = host(true);
    let hypervisor = adopted(&host).await;
    let mut events = hypervisor.events().await;
    host.world().stop("web", 2);
    assert!(matches!(next(&mut events).await, HypervisorEvent::Ended { .. }));
    assert_eq!(vfs(&status(&hypervisor).await), held());
    host.world().start("web");
    let started = next(&mut events).await;
    assert!(matches!(started, HypervisorEvent::Started { .. }), "nothing is told to be gone: {started:?}");
    assert_eq!(vfs(&status(&hypervisor).await), held());
    drop((hypervisor, events));
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), held());
}

/// `ioward remove` and `ioward detach` take it out of both definitions, each by what it is there.
#[tokio::test(start_paused = true)]
async fn it_can_be_taken_out_and_given_again() {
    for running in [false, true] {
        let host = host(running);
        let hypervisor = adopted(&host).await;
        hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
        let mut taken = vec![format!("-{VF} next")];
        if running {
            taken.insert(0, format!("-{VF} live"));
        }
        assert_eq!(host.calls(), taken);
        assert_eq!(host.definitions().1, Some(definition("web", UUID, 5)));
        assert_eq!(vfs(&status(&hypervisor).await), []);
        hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
        assert!(host.definitions().1.unwrap().contains("ua-ioward-net0"), "as one that ioward gives");
        hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
        assert_eq!(host.definitions().1, Some(definition("web", UUID, 5)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_let_go_keeps_it() {
    let host = host(true);
    let hypervisor = adopted(&host).await;
    host.world().web().stubborn = true;
    let before = host.definitions();
    let error = hypervisor.detach_vf(&owner("net0"), false).await.unwrap_err();
    assert!(matches!(error, HypervisorError::GuestUnresponsive { .. }), "{error}");
    assert_eq!(host.definitions(), before);
    assert_eq!(vfs(&status(&hypervisor).await), held());
}

#[tokio::test(start_paused = true)]
async fn somebody_who_takes_it_out_is_told_of() {
    let host = host(true);
    let hypervisor = adopted(&host).await;
    let mut events = hypervisor.events().await;
    host.world().web().persistent = Some(definition("web", UUID, 5));
    host.world().stop("web", 2);
    let mut told = vec![next(&mut events).await, next(&mut events).await];
    assert!(matches!(told.pop(), Some(HypervisorEvent::Detached { owner: it, .. }) if it == owner("net0")));
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

/// One that ioward gave has an alias of ioward's, and keeps it when its partition is forgotten.
#[tokio::test(start_paused = true)]
async fn one_that_ioward_gave_can_be_released_and_taken_over_again() {
    let host = Host::new();
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    let (before, _) = (host.definitions(), host.calls());
    hypervisor.release_vf(&owner("net0")).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), [], "also at the next look");
    hypervisor.define(&spec("web", "web")).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
    // As it is rolled back.
    hypervisor.adopt_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), held());
    assert_eq!((host.definitions(), host.calls()), (before, vec![]));
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(host.calls(), ["-ua-ioward-net0 live", "-ua-ioward-net0 next"]);
}

/// A host that has booted has kept no record: the VF is noted with the state only, and given again.
#[tokio::test(start_paused = true)]
async fn a_vf_that_the_domain_has_when_it_is_given_is_recognised() {
    for running in [false, true] {
        let host = host(running);
        let hypervisor = with_web(&host).await;
        hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap();
        assert_eq!(host.calls(), [""; 0]);
        assert_eq!(vfs(&status(&hypervisor).await), held());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_libvirts_or_not_there_is_not_taken_over() {
    let managed = BY_HAND.replace("managed='no'", "managed='yes'");
    let interface = "<interface type='hostdev'><source><address type='pci' bus='1' slot='0x10' function='4'/></source></interface>";
    for (device, why) in [
        (managed.as_str(), "it is libvirt's"),
        (interface, "it is libvirt's"),
        (&BY_HAND.replace("function='4'", "function='6'"), "does not have it"),
    ] {
        let host = Host::new();
        host.world().web().persistent = Some(with(device));
        let hypervisor = with_web(&host).await;
        let error = hypervisor.adopt_vf(&owner("net0"), VF.parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(vfs(&status(&hypervisor).await), []);
    }
}

/// A daemon of libvirt's that is away hinders nobody from forgetting.
#[tokio::test(start_paused = true)]
async fn a_vf_is_released_also_while_nobody_answers() {
    let mut host = host(true);
    let hypervisor = adopted(&host).await;
    host.kill_daemon().await;
    hypervisor.release_vf(&owner("net0")).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

#[tokio::test(start_paused = true)]
async fn a_function_that_another_domain_has_too_is_told_with_that_domain() {
    let host = host(true);
    host.world().add("mail", "6dea22b3-1d52-d8f3-2516-782e98ab3fa0", 4);
    let set = |dom: &mut Dom, definition: String| dom.persistent = Some(definition);
    let mail = definition("mail", "6dea22b3-1d52-d8f3-2516-782e98ab3fa0", 4);
    set(host.world().dom("mail"), xml::insert(&mail, BY_HAND).unwrap());
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let found = hypervisor.adoptable(&"web".parse().unwrap()).await.unwrap();
    assert_eq!(found.functions[0].also_of.as_deref(), Some("mail"));
    assert_eq!(
        (found.pid, found.functions[0].alias.as_deref()),
        (Some(super::daemon::own_pid()), Some("hostdev0"))
    );
    let error = hypervisor.adoptable(&"nosuch".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, HypervisorError::NoSuchDomain { .. }), "{error}");
}
