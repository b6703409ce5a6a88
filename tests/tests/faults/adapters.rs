//! Adapters that report errors, fall silent, come back, or do not.

use std::time::Duration;

use ioward_fabric::sim::{Severity, Silence};
use ioward_imp::Imp;
use ioward_model::{EventKind, Intent, NvmeState, OpErrorKind, Options, Recovery, Rule, Service, Spec};
use ioward_pci::Bdf;

use crate::scene::{NIC, Scene, name, partition, set_mac, vf};

const MAC: &str = "52:54:00:00:00:0a";
const OTHER: &str = "52:54:00:00:00:0b";

fn nic() -> Bdf {
    NIC.parse().unwrap()
}

fn service(scene: &Scene) -> Option<Service> {
    let events = scene.imp.events();
    events.into_iter().rev().find_map(|event| match event.kind {
        EventKind::AdapterService { service, .. } => Some(service),
        _ => None,
    })
}

fn is(scene: &Scene, wanted: fn(&Service) -> bool) -> bool {
    service(scene).as_ref().is_some_and(wanted)
}

fn serves(service: &Service) -> bool {
    service.is_serving()
}

fn has_failed(service: &Service) -> bool {
    matches!(service, Service::Failed { .. })
}

async fn with_web() -> Scene {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, MAC)).await;
    scene
}

/// What the daemon does each second while an adapter does not serve.
async fn pass(scene: &Scene, seconds: u64) {
    for _ in 0..seconds {
        scene.machine.advance(Duration::from_secs(1));
        scene.imp.reconcile().await.unwrap();
    }
}

async fn plan(imp: &Imp, spec: &str) -> Result<(), Vec<Rule>> {
    let spec = Spec::parse(format!("version = 1\n{spec}").as_bytes()).unwrap();
    plan_for(imp, Intent::Apply { spec }).await
}

async fn remove(scene: &Scene) -> Result<(), Vec<Rule>> {
    plan_for(&scene.imp, Intent::Remove { partition: name("web") }).await
}

async fn plan_for(imp: &Imp, intent: Intent) -> Result<(), Vec<Rule>> {
    let options = Options { allow_disruption: true, force: true, ..Options::default() };
    match imp.plan(&intent, &options).await {
        Ok(_) => Ok(()),
        Err(ioward_imp::ImpError::Refused { reasons, .. }) => {
            Err(reasons.into_iter().map(|reason| reason.rule).collect())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_adapter_is_touched_by_nobody_until_it_serves_again() {
    let scene = with_web().await;
    scene.imp.look().await.unwrap();
    scene.report_error(NIC, Severity::Fatal, None);
    scene.imp.look().await.unwrap();
    assert_eq!(service(&scene), Some(Service::Frozen { what: "1 fatal error (AER)".into() }));

    let refused = scene.imp.operate(&name("web"), set_mac(OTHER)).await.unwrap_err();
    assert_eq!((refused.kind, refused.reasons[0].rule), (OpErrorKind::Busy, Rule::InService), "{refused}");
    let more = [partition("web", 0, MAC), partition("db", 1, OTHER)].concat();
    assert!(plan(&scene.imp, &more).await.unwrap_err().contains(&Rule::InService));
    assert_eq!(remove(&scene).await, Err(vec![Rule::InService]), "it would be reset, and set");
    assert_eq!(scene.mac(vf(0)), MAC);

    pass(&scene, 40).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    scene.imp.operate(&name("web"), set_mac(OTHER)).await.unwrap();
    assert_eq!(scene.mac(vf(0)), OTHER);
    assert_eq!(plan(&scene.imp, &partition("web", 0, MAC)).await, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_whose_driver_has_to_be_bound_anew_has_its_vfs_again_as_they_are_noted() {
    let scene = with_web().await;
    scene.imp.look().await.unwrap();
    scene.report_error(NIC, Severity::Fatal, Some(Silence::UntilRebound));
    pass(&scene, 40).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    let attempted = |kind: &EventKind| matches!(kind, EventKind::AdapterAttempted { .. });
    assert_eq!(scene.count(attempted), 2, "a reset did not help");
    assert_eq!(scene.mac(vf(0)), MAC);
    let drift = scene.imp.drift().await.unwrap();
    assert!(drift.is_empty(), "{drift:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_nothing_helps_is_locked_out_and_is_left_alone() {
    let scene = with_web().await;
    scene.imp.look().await.unwrap();
    scene.machine.fall_silent(nic(), Silence::ForGood).unwrap();
    // Each attempt is given twice the time of the one before.
    pass(&scene, 300).await;
    assert!(is(&scene, has_failed), "{:?}", service(&scene));
    let attempted = |kind: &EventKind| matches!(kind, EventKind::AdapterAttempted { .. });
    let attempts = scene.count(attempted);
    pass(&scene, 600).await;
    assert_eq!(scene.count(attempted), attempts, "nothing is recovered for ever");
    assert!(plan(&scene.imp, &partition("db", 1, OTHER)).await.unwrap_err().contains(&Rule::InService));
    assert_eq!(scene.imp.state().partitions[&name("web")].vfs.len(), 1, "its VF stays its own");
    assert_eq!(remove(&scene).await, Ok(()), "what is lost can be given up");

    // The next daemon knows it, and a person has it back.
    let scene = scene.restarted().await;
    assert!(plan(&scene.imp, &partition("db", 1, OTHER)).await.unwrap_err().contains(&Rule::InService));
    scene.machine.unplug(nic());
    scene.machine.replug(nic()).unwrap();
    scene.imp.reconcile().await.unwrap();
    assert!(plan(&scene.imp, &partition("db", 1, OTHER)).await.unwrap_err().contains(&Rule::InService));
    scene.ask(Intent::Return { pf: nic() }).await;
    assert!(scene.imp.state().out_of_service.is_empty());
    pass(&scene, 3).await;
    let host = scene.imp.look().await.unwrap();
    assert!(host.physical_function(nic()).unwrap().service.is_serving());
}

/// It is there for new firmware, or a screwdriver: it was reset, and its driver bound anew, as soon as it did not answer.
#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_that_is_out_of_service_is_recovered_by_nobody() {
    let scene = Scene::new();
    scene.imp.look().await.unwrap();
    scene.ask(Intent::Evacuate { pf: nic(), leave_out: false }).await;
    scene.report_error(NIC, Severity::Fatal, Some(Silence::UntilReset));
    pass(&scene, 100).await;
    let told = |kind: &EventKind| {
        matches!(kind, EventKind::AdapterAttempted { .. } | EventKind::AdapterService { .. })
    };
    assert_eq!(scene.count(told), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_by_the_thousand_are_told_once() {
    let scene = with_web().await;
    scene.imp.look().await.unwrap();
    for _ in 0..1_000 {
        scene.report_error(NIC, Severity::NonFatal, None);
        scene.report_error(NIC, Severity::Correctable, None);
    }
    pass(&scene, 40).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    let told = |kind: &EventKind| matches!(kind, EventKind::AdapterService { .. });
    assert_eq!(scene.count(told), 3, "frozen, recovering, serving");
}

/// A driver that resets its NVMe controller keeps whoever asks that something waiting: whoever did was stuck with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_nvme_controller_that_is_reset_is_left_alone_and_one_that_is_dead_is_bound_anew() {
    let scene = Scene::new();
    let nvme = scene.imp.look().await.unwrap();
    let nvme =
        nvme.physical_functions.iter().find(|pf| pf.class == ioward_model::Class::Nvme).unwrap().address;
    let db = format!(
        "[[partition]]\nname = \"db\"\nboot = {{ disk = \"/dev/null\" }}\n[[partition.vf]]\nname = \"disk0\"\nclass = \"nvme\"\n\
         pf = \"{nvme}\"\nqueues = 3\n"
    );
    scene.apply(&db).await;
    scene.imp.look().await.unwrap();
    let held = scene.imp.state().assignments().next().unwrap().1.clone();
    let attempts = || scene.count(|kind| matches!(kind, EventKind::AdapterAttempted { .. }));

    scene.machine.nvme_goes_down(nvme, NvmeState::Resetting, Silence::For(60_000_000_000)).unwrap();
    pass(&scene, 50).await;
    let resetting = Service::Frozen { what: "its NVMe controller is resetting".into() };
    assert_eq!((service(&scene), attempts()), (Some(resetting), 0), "its driver has it in hand");
    let more = [db.clone(), db.replace("\"db\"", "\"other\"")].concat();
    assert!(plan(&scene.imp, &more).await.unwrap_err().contains(&Rule::InService));
    pass(&scene, 20).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));

    scene.machine.nvme_goes_down(nvme, NvmeState::Dead, Silence::UntilRebound).unwrap();
    pass(&scene, 40).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    assert_eq!(attempts(), 2, "a reset does not help where the driver has given up");
    let view = scene.machine.snapshot();
    let settings = &view.physical_functions[&nvme].vfs[usize::from(held.vf.index)].settings;
    assert!(held.settings.missing_from(settings).is_empty(), "as it is noted: {settings:?}");
    assert!(scene.imp.drift().await.unwrap().is_empty());

    scene.machine.nvme_goes_down(nvme, NvmeState::Dead, Silence::ForGood).unwrap();
    pass(&scene, 200).await;
    assert!(is(&scene, has_failed), "{:?}", service(&scene));
    assert_eq!(scene.imp.state().out_of_service.len(), 1);
}

/// What was tried to recover the adapter, and whether it helped.
fn attempts(scene: &Scene) -> Vec<(Recovery, bool)> {
    let events = scene.imp.events();
    let attempts = events.into_iter().filter_map(|event| match event.kind {
        EventKind::AdapterAttempted { how, error, .. } => Some((how, error.is_none())),
        _ => None,
    });
    attempts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_is_asked_to_recover_what_its_health_reporter_has_in_error_before_its_adapter_is_reset() {
    let scene = Scene::with_health();
    scene.apply(&partition("web", 0, MAC)).await;
    scene.imp.look().await.unwrap();
    scene.machine.report_health(nic(), "fw", Silence::UntilAsked).unwrap();
    pass(&scene, 3).await;
    let frozen = Service::Frozen { what: "its health reporter fw is in error".into() };
    assert_eq!((service(&scene), attempts(&scene)), (Some(frozen), vec![]));
    let refused = scene.imp.operate(&name("web"), set_mac(OTHER)).await.unwrap_err();
    assert_eq!((refused.kind, refused.reasons[0].rule), (OpErrorKind::Busy, Rule::InService), "{refused}");
    pass(&scene, 20).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    assert_eq!(attempts(&scene), [(Recovery::Health, true)]);
    let host = scene.imp.look().await.unwrap();
    let fw = &host.physical_function(nic()).unwrap().health.as_ref().unwrap()[0];
    assert_eq!((fw.name.as_str(), fw.errors, fw.recoveries, fw.is_unrecovered()), ("fw", 1, 1, false));
    assert_eq!(scene.mac(vf(0)), MAC);

    scene.machine.report_health(nic(), "fw", Silence::UntilRebound).unwrap();
    pass(&scene, 60).await;
    assert!(is(&scene, serves), "{:?}", service(&scene));
    let tried = [(Recovery::Health, false), (Recovery::Reset, true), (Recovery::Rebind, true)];
    assert_eq!(attempts(&scene)[1..], tried);
    assert!(scene.imp.drift().await.unwrap().is_empty(), "its VFs are there again, as they are noted");
}

/// Some drivers set a queue up anew every now and then, and a guest that misbehaves is enough for a report of others.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_driver_recovers_from_and_what_nothing_can_recover_freezes_no_adapter() {
    let scene = Scene::with_health();
    scene.apply(&partition("web", 0, MAC)).await;
    scene.imp.look().await.unwrap();
    for _ in 0..20 {
        scene.machine.report_health(nic(), "fw", Silence::For(50_000_000)).unwrap();
        scene.machine.report_health(nic(), "mdd", Silence::ForGood).unwrap();
        pass(&scene, 3).await;
    }
    assert_eq!(service(&scene), None);
    let host = scene.imp.look().await.unwrap();
    let health = host.physical_function(nic()).unwrap().health.clone().unwrap();
    let counts: Vec<_> = health.iter().map(|one| (one.errors, one.recoveries)).collect();
    assert_eq!(counts, [(20, 20), (20, 0)], "they are counted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_health_reporter_that_nothing_helps_has_its_adapter_locked_out() {
    let scene = Scene::with_health();
    scene.apply(&partition("web", 0, MAC)).await;
    scene.imp.look().await.unwrap();
    scene.machine.report_health(nic(), "fw", Silence::ForGood).unwrap();
    pass(&scene, 300).await;
    assert!(is(&scene, has_failed), "{:?}", service(&scene));
    assert_eq!((attempts(&scene).len(), scene.imp.state().out_of_service.len()), (4, 1));
    // A person has it back, and knows what it shows.
    scene.ask(Intent::Return { pf: nic() }).await;
    pass(&scene, 60).await;
    let host = scene.imp.look().await.unwrap();
    assert!(host.physical_function(nic()).unwrap().service.is_serving());
    assert_eq!(attempts(&scene).len(), 4);
}
