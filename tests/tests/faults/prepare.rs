//! A domain that somebody else starts: libvirt's hook asks for its VFs, and libvirt is silent until it is answered.

use std::sync::Arc;

use ioward_api::{ApiError, DomainFunction, ErrorKind, PrepareRequest, Prepared};
use ioward_imp::ImpError;
use ioward_model::{EventKind, Intent, Rule};

use crate::scene::{NIC, Scene, name, partition, vf};

const MAC: &str = "52:54:00:00:00:0a";
const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";

/// The partition `web`, which is the domain of that name.
fn domain() -> String {
    partition("web", 0, MAC).replace("boot = { disk = \"/dev/null\" }", "libvirt = \"web\"")
}

/// What the hook asks for a domain of this name that has the VF of `web`.
fn request(scene: &Scene, domain: &str, wait_seconds: u64) -> PrepareRequest {
    let address = scene.imp.state().partitions[&name("web")].vfs[&name("net0")].address.unwrap();
    let functions = vec![DomainFunction { address, vf: Some(name("net0")) }];
    PrepareRequest { name: domain.to_owned(), functions, wait_seconds }
}

async fn prepare(scene: &Scene, request: &PrepareRequest) -> Result<Prepared, ImpError> {
    scene.imp.prepare(UUID.parse().unwrap(), request).await
}

async fn refusal(scene: &Scene, request: &PrepareRequest) -> String {
    let refused = ApiError::from(prepare(scene, request).await.unwrap_err());
    assert_eq!(refused.kind, ErrorKind::Refused, "{refused:?}");
    assert!(refused.reasons.iter().all(|reason| reason.rule == Rule::VfReady), "{refused:?}");
    refused.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn ready() -> Prepared {
    Prepared { partition: Some(name("web")), vfs: vec![name("net0")] }
}

fn is_ready(scene: &Scene) -> bool {
    let view = scene.machine.snapshot();
    let vfs = &view.physical_functions[&vf(0).pf].vfs;
    vfs.first().is_some_and(|vf| {
        vf.driver.as_deref() == Some("vfio-pci") && vf.settings.mac.is_some_and(|mac| mac.to_string() == MAC)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn vfs_that_are_gone_are_made_again_before_a_start_and_libvirt_is_not_asked() {
    let scene = Scene::new();
    scene.apply(&domain()).await;
    let (request, asked) = (request(&scene, "web", 60), scene.machines.asked());
    assert_eq!(prepare(&scene, &request).await.unwrap(), ready());
    scene.machine.write_numvfs(NIC.parse().unwrap(), 0).unwrap();
    for _ in 0..2 {
        assert_eq!(prepare(&scene, &request).await.unwrap(), ready());
        assert!(is_ready(&scene));
    }
    assert_eq!(scene.machines.asked(), asked);
    assert_eq!(scene.count(|kind| matches!(kind, EventKind::DriftRepaired { .. })), 1);
    assert_eq!(scene.imp.reconcile().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_and_a_mac_that_somebody_took_are_given_again_before_a_start() {
    let scene = Scene::new();
    scene.apply(&domain()).await;
    let request = request(&scene, "web", 60);
    let address = request.functions[0].address;
    scene.machine.write_unbind(address, "vfio-pci").unwrap();
    assert_eq!(prepare(&scene, &request).await.unwrap(), ready());
    assert!(is_ready(&scene));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vf_that_cannot_be_made_ready_is_told_with_the_reason() {
    let scene = Scene::new();
    scene.apply(&domain()).await;
    let request = request(&scene, "web", 60);
    assert!(scene.machine.unplug(NIC.parse().unwrap()));
    let refused = refusal(&scene, &request).await;
    assert!(refused.contains("0000:01:00.0 is not there; put it back"), "{refused}");
}

/// The hook is called in the middle of a plan that takes the VF: it waits, within its bound, and then says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_vf_is_waited_for_within_a_bound() {
    let scene = Arc::new(Scene::new());
    scene.apply(&domain()).await;
    let (soon, at_last) = (request(&scene, "web", 1), request(&scene, "web", 60));
    scene.gate.close("reset");
    let changing = Arc::clone(&scene);
    let change = tokio::spawn(async move {
        changing.try_to(Intent::Detach { partition: name("web"), vf: name("net0") }).await
    });
    scene.gate.is_reached("reset", 1).await;
    let refused = refusal(&scene, &soon).await;
    assert!(refused.contains("another change") && refused.contains("'ioward changes'"), "{refused}");
    let waiting = Arc::clone(&scene);
    let waits = tokio::spawn(async move { refusal(&waiting, &at_last).await });
    scene.gate.open("reset");
    let refused = waits.await.unwrap();
    assert!(
        refused.contains("no such VF of the partition") && refused.contains("virsh edit web"),
        "{refused}"
    );
    assert!(matches!(change.await.unwrap(), Some(EventKind::PlanDone { .. })));
}

/// A start that ioward asks for itself is a change too, which waits for libvirt, which waits for the hook.
#[tokio::test(flavor = "multi_thread")]
async fn iowards_own_start_is_not_waited_for() {
    let scene = Arc::new(Scene::new());
    scene.apply(&domain()).await;
    let request = request(&scene, "web", 60);
    scene.gate.close("start");
    let starting = Arc::clone(&scene);
    let start = tokio::spawn(async move { starting.try_to(Intent::Start { partition: name("web") }).await });
    scene.gate.is_reached("start", 1).await;
    assert_eq!(prepare(&scene, &request).await.unwrap(), ready());
    scene.gate.open("start");
    assert!(matches!(start.await.unwrap(), Some(EventKind::PlanDone { .. })));
}

/// libvirt has begun first and answers nobody until its hook has ended. What the daemon wants of it meanwhile holds up no VF.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_boot_vfs_are_ready_although_libvirt_answers_nothing() {
    let scene = Scene::new();
    scene.apply(&domain()).await;
    let request = request(&scene, "web", 60);
    let scene = scene.booted().await;
    scene.gate.close("define");
    let restoring = tokio::spawn(Arc::clone(&scene.imp).follow_host());
    scene.gate.is_reached("define", 1).await;
    assert_eq!(prepare(&scene, &request).await.unwrap(), ready());
    assert!(is_ready(&scene));
    scene.gate.open("define");
    let restored = |kind: &EventKind| matches!(kind, EventKind::HostRestored { .. });
    scene.until("the rest is restored", |_| scene.count(restored) == 1).await;
    assert_eq!(scene.imp.drift().await.unwrap(), []);
    restoring.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_answered_at_once() {
    let scene = Scene::new();
    scene.apply(&domain()).await;
    let mut other = request(&scene, "other", 60);
    let refused = refusal(&scene, &other).await;
    assert!(refused.contains("it is web/net0"), "{refused}");
    other.functions[0].address = "0000:05:00.0".parse().unwrap();
    scene.gate.close("identify");
    assert_eq!(prepare(&scene, &other).await.unwrap(), Prepared::default());
}
