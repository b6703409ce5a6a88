//! Domains and namespaces are others' to start, end and remove: the management partition notes what they do, tells it, and serves
//! whoever runs.

use ioward_hypervisor::HypervisorEvent;
use ioward_imp::{Imp, Undefined};
use ioward_model::{EventKind, Intent, OpErrorKind, Options, Rule, Spec, VfOp};

use crate::scene::{NO_DOMAIN, Scene, name, partition, set_mac, vf};

const MAC: &str = "52:54:00:00:00:0a";

/// The same partition as a domain.
fn domain(name: &str) -> String {
    partition(name, 0, MAC).replace("boot = { disk = \"/dev/null\" }", &format!("libvirt = \"{name}\""))
}

fn runs(imp: &Imp) -> bool {
    imp.state().partitions[&name("web")].running
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_somebody_ends_and_starts_is_noted_so_and_served() {
    let scene = Scene::new();
    scene.apply(&domain("web")).await;
    let web = name("web");
    tokio::spawn(std::sync::Arc::clone(&scene.imp).follow_hypervisor());
    scene.machines.turn("web", false);
    scene.machines.tell(HypervisorEvent::Ended { partition: web.clone(), why: "virsh destroy".into() }).await;
    scene.until("it is noted as ended", |imp| !runs(imp)).await;

    scene.machines.turn("web", true);
    scene.machines.tell(HypervisorEvent::Started { partition: web.clone() }).await;
    scene.until("it is noted as running", runs).await;
    scene.machines.guest("web").await.hello().await;
    let told = |kind: &EventKind| matches!(kind, EventKind::PartitionStartedElsewhere { .. });
    scene.until("it is told", |_| scene.count(told) == 1).await;

    // Old news: it runs, whatever was said of it before.
    scene.machines.tell(HypervisorEvent::Gone { partition: web.clone(), why: "undefined".into() }).await;
    let why = "virsh detach-device".to_owned();
    scene.machines.tell(HypervisorEvent::Detached { owner: "web/net0".parse().unwrap(), why }).await;
    scene
        .until("the loss is told", |_| scene.count(|kind| matches!(kind, EventKind::VfTakenOut { .. })) == 1)
        .await;
    let gone = |kind: &EventKind| matches!(kind, EventKind::PartitionGone { .. });
    assert!(runs(&scene.imp) && scene.count(gone) == 0);

    scene.machines.turn("web", false);
    scene.machines.tell(HypervisorEvent::Gone { partition: web, why: "undefined".into() }).await;
    scene.until("it is told", |_| scene.count(gone) == 1).await;
    assert!(!runs(&scene.imp), "and noted as ended");
    assert_eq!(scene.imp.state().partitions[&name("web")].vfs.len(), 1, "its VF stays its own");
}

/// A look in the middle of the event noted the end first, as "its machine is gone", and the reason was told by nobody.
#[tokio::test(flavor = "multi_thread")]
async fn why_a_domain_has_ended_is_told_though_somebody_looks_meanwhile() {
    let scene = Scene::new();
    scene.apply(&domain("web")).await;
    tokio::spawn(std::sync::Arc::clone(&scene.imp).follow_hypervisor());
    scene.machines.turn("web", true);
    scene.machines.tell(HypervisorEvent::Started { partition: name("web") }).await;
    let lost = HypervisorEvent::Detached { owner: "web/net0".parse().unwrap(), why: "virsh edit".into() };
    scene.machines.tell(lost).await;
    let followed = |kind: &EventKind| matches!(kind, EventKind::VfTakenOut { .. });
    scene.until("all of that is noted", |_| scene.count(followed) == 1).await;
    assert!(runs(&scene.imp));
    scene.machines.turn("web", false);
    scene.gate.close("partitions");
    let why = "virsh destroy".to_owned();
    scene.machines.tell(HypervisorEvent::Ended { partition: name("web"), why: why.clone() }).await;
    scene.gate.is_reached("partitions", 1).await;
    scene.gate.let_pass("partitions");
    let imp = std::sync::Arc::clone(&scene.imp);
    let mut look = tokio::spawn(async move { imp.reconcile().await });
    // It may wait for the event to be noted, and then does not end before.
    let _ = tokio::time::timeout(std::time::Duration::from_millis(300), &mut look).await;
    scene.gate.open("partitions");
    let told = |kind: &EventKind| matches!(kind, EventKind::PartitionEnded { why: it, .. } if *it == why);
    scene.until("the reason is told", |_| scene.count(told) == 1).await;
    assert!(!runs(&scene.imp));
}

/// libvirt's daemon was killed in the middle: the domain had the VF, and could not be asked to let go of it. Nobody took it out later,
/// since it was not noted that it might have it, and so it could not be unbound for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_vf_that_a_domain_may_have_got_is_taken_out_of_it_first() {
    let scene = Scene::new();
    scene.machines.be_silent(true);
    let spec = Spec::parse(format!("version = 1\n{}", domain("web")).as_bytes()).unwrap();
    let ended = scene.try_to(Intent::Apply { spec }).await;
    assert!(matches!(ended, Some(EventKind::PlanFailed { undone: false, .. })), "{ended:?}");
    assert_eq!(scene.machines.vfs("web"), 1);
    let noted = scene.imp.state().partitions[&name("web")].clone();
    assert!(noted.vfs.values().all(|vf| vf.attached) && noted.vfs.len() == 1, "{noted:?}");

    drop(scene.imp.finish_changes().await);
    scene.machines.be_silent(false);
    scene.machines.turn("web", true);
    scene.ask(Intent::Detach { partition: name("web"), vf: name("net0") }).await;
    assert_eq!(scene.machines.vfs("web"), 0);
}

/// What it held was of no use to anybody, until a person found out.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_undefined_gives_its_vfs_back() {
    let scene = Scene::new();
    scene.apply(&domain("web")).await;
    let mut undefined = Undefined::default();
    let held = |imp: &Imp| imp.state().partitions.len();

    // As long as it runs it has them.
    scene.machines.turn("web", true);
    scene.machines.undefine("web", true);
    for _ in 0..3 {
        scene.imp.give_back_undefined(&mut undefined).await.unwrap();
    }
    assert_eq!(held(&scene.imp), 1);

    // It is defined anew between two looks: somebody has edited it.
    scene.machines.turn("web", false);
    scene.imp.give_back_undefined(&mut undefined).await.unwrap();
    scene.machines.undefine("web", false);
    scene.imp.give_back_undefined(&mut undefined).await.unwrap();
    scene.machines.undefine("web", true);
    scene.imp.give_back_undefined(&mut undefined).await.unwrap();
    assert_eq!(held(&scene.imp), 1);

    scene.imp.give_back_undefined(&mut undefined).await.unwrap();
    scene.until("it is removed", |imp| held(imp) == 0).await;
    let done = |kind: &EventKind| matches!(kind, EventKind::PlanDone { .. });
    scene.until("as by a plan", |_| scene.count(done) >= 1).await;
    assert!(scene.imp.state().adapters.is_empty(), "and its adapter is let go of");
}

/// Nobody tells what happened while no daemon was there.
#[tokio::test(flavor = "multi_thread")]
async fn what_became_of_domains_meanwhile_is_found_by_a_look() {
    let scene = Scene::new();
    scene.apply(&domain("web")).await;
    scene.machines.turn("web", false);
    let scene = scene.restarted().await;
    assert!(!runs(&scene.imp));
    scene.machines.turn("web", true);
    scene.imp.reconcile().await.unwrap();
    assert!(runs(&scene.imp));
    scene.machines.turn("web", false);
    let scene = scene.restarted().await;
    scene.machines.turn("web", true);
    let scene = scene.restarted().await;
    assert!(runs(&scene.imp));
    scene.machines.guest("web").await.hello().await;
}

/// The host's driver does not see that its device is reset, and has no use for it until it is bound anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_vf_that_a_driver_of_the_hosts_has_is_not_reset_under_it() {
    let scene = Scene::new();
    scene.apply(&domain("web").replace("libvirt", "netns")).await;
    let resets = || scene.machine.snapshot().physical_functions[&vf(0).pf].vfs[0].resets;
    let before = resets();
    let refused = scene.imp.operate(&name("web"), VfOp::Reset { vf: name("net0") }).await.unwrap_err();
    assert_eq!(refused.kind, OpErrorKind::Invalid, "{refused}");
    assert_eq!(resets(), before);
    scene.imp.operate(&name("web"), set_mac("52:54:00:00:00:0b")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_is_not_there_is_refused_before_anything_is_done() {
    let scene = Scene::new();
    let spec = Spec::parse(format!("version = 1\n{}", domain(NO_DOMAIN)).as_bytes()).unwrap();
    let refused = scene.imp.plan(&Intent::Apply { spec }, &Options::default()).await.unwrap_err();
    let refused = ioward_api::ApiError::from(refused);
    let [reason] = refused.reasons.as_slice() else { unreachable!("{refused:?}") };
    assert_eq!((reason.rule, reason.key.as_deref()), (Rule::Domain, Some("libvirt")));
    assert_eq!(
        reason.to_string(),
        "none: required a domain none; found none of that name; virsh list --all shows them"
    );
}
