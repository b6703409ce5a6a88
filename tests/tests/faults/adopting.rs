//! A domain that has a VF is taken over and let go of, and the daemon ends in the middle of either.

use ioward_fabric::Fabric as _;
use ioward_hypervisor::{Adoptable, AdoptableFunction, Hypervisor as _, HypervisorError};
use ioward_model::{EventKind, Holder, Intent, Inventory, Label, Options, Process, Runs, State};

use crate::scene::{NIC, Scene, name, vf};

const QEMU: u32 = 812;

/// Somebody has made four VFs, and a domain runs with the second.
async fn scene() -> Scene {
    let scene = Scene::new();
    let fabric = scene.machine.fabric();
    fabric.set_autoprobe(NIC.parse().unwrap(), false).await.unwrap();
    fabric.set_vf_count(NIC.parse().unwrap(), 4).await.unwrap();
    fabric.bind(vf(1), Some("vfio-pci")).await.unwrap();
    let function = fabric.vf_address(vf(1)).await.unwrap();
    let runs = Runs::LibvirtDomain { name: Label::new("web") };
    let process = Process { pid: QEMU, command: Label::new("qemu-system-x86"), runs };
    scene.machine.lend(function, Holder::Process(process)).unwrap();
    *scene.machines.domain.lock().unwrap() = Some(Adoptable {
        name: "web".into(),
        uuid: "4dea22b3-1d52-d8f3-2516-782e98ab3fa0".into(),
        running: true,
        pid: Some(QEMU),
        persistent: true,
        functions: vec![AdoptableFunction {
            function,
            managed: false,
            interface: false,
            alias: None,
            vf: None,
            live: true,
            next: true,
            also_of: None,
        }],
    });
    scene
}

fn adopt() -> Intent {
    Intent::Adopt { domain: "web".parse().unwrap(), partition: None, found: None }
}

fn release() -> Intent {
    Intent::Release { partition: name("web") }
}

/// What is on the host, whoever has it.
async fn host(scene: &Scene) -> Inventory {
    scene.machine.fabric().identify().await.unwrap()
}

async fn held(scene: &Scene) -> Vec<String> {
    let all = scene.machines.partitions().await.unwrap();
    all.iter().flat_map(|partition| &partition.vfs).map(|(vf, _)| vf.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_is_taken_over_under_its_own_name_and_released_and_nothing_is_touched() {
    let scene = scene().await;
    let before = host(&scene).await;
    scene.ask(adopt()).await;
    assert_eq!(held(&scene).await, ["net0"]);
    let state = scene.imp.state();
    assert!(state.partitions[&name("web")].vfs[&name("net0")].attached);
    let spec = state.to_spec();
    let plan = scene.imp.plan(&Intent::Apply { spec }, &Options::default()).await.unwrap();
    assert_eq!(plan.steps, []);
    assert_eq!(scene.imp.drift().await.unwrap(), []);
    assert_eq!(host(&scene).await, before);
    scene.ask(release()).await;
    assert_eq!(held(&scene).await, [""; 0]);
    assert_eq!(host(&scene).await, before);
    assert_eq!(State { revision: 0, ..scene.imp.state() }, State::default());
}

/// What the domain has is looked at again when the plan is carried out.
#[tokio::test(flavor = "multi_thread")]
async fn a_domain_that_has_changed_since_it_was_shown_is_not_taken_over() {
    let scene = scene().await;
    let plan = scene.imp.plan(&adopt(), &Options::default()).await.unwrap();
    scene.machines.domain.lock().unwrap().as_mut().unwrap().running = false;
    let (listener, _events) = tokio::sync::mpsc::unbounded_channel();
    let error = scene.imp.apply(plan, listener).await.unwrap_err();
    assert!(format!("{error:?}").contains("held by libvirt domain web"), "{error:?}");
    *scene.machines.domain.lock().unwrap() = None;
    let error = scene.imp.plan(&adopt(), &Options::default()).await.unwrap_err();
    assert!(format!("{error:?}").contains("virsh list --all"), "{error:?}");
    let none = scene.machines.adoptable(&"web".parse().unwrap()).await;
    assert!(matches!(none, Err(HypervisorError::NoSuchDomain { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_while_it_takes_a_domain_over_leaves_it_as_it_is() {
    let scene = scene().await;
    let before = host(&scene).await;
    scene.gate.close("adopt_vf");
    let imp = std::sync::Arc::clone(&scene.imp);
    let plan = imp.plan(&adopt(), &Options::default()).await.unwrap();
    imp.begin(plan).await.unwrap();
    scene.gate.is_reached("adopt_vf", 1).await;
    let next = scene.restarted().await;
    assert_eq!(next.imp.state().partitions.len(), 0);
    assert_eq!((held(&next).await, next.imp.state().adapters.len()), (vec![], 0));
    assert_eq!(next.count(|kind| matches!(kind, EventKind::PlanFailed { undone: true, .. })), 1);
    assert_eq!(host(&next).await, before);
    scene.gate.open("adopt_vf");
    next.ask(adopt()).await;
    assert_eq!(held(&next).await, ["net0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_ends_while_it_lets_go_of_a_domain_looks_after_it_as_before() {
    let scene = scene().await;
    scene.ask(adopt()).await;
    let (before, state) = (host(&scene).await, scene.imp.state());
    scene.gate.close("release_vf");
    let plan = scene.imp.plan(&release(), &Options::default()).await.unwrap();
    scene.imp.begin(plan).await.unwrap();
    scene.gate.is_reached("release_vf", 1).await;
    let next = scene.restarted().await;
    assert_eq!((next.imp.state().partitions, held(&next).await), (state.partitions, vec!["net0".to_owned()]));
    assert_eq!(host(&next).await, before);
    scene.gate.open("release_vf");
    next.ask(release()).await;
    assert_eq!(host(&next).await, before);
}
