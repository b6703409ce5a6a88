//! An operation of a guest is finished by the task that began it, on a VF that is still the guest's own.

use std::sync::Arc;

use ioward_model::{Intent, OpErrorKind, OpOutcome, Rule, Spec, Verdict, VfOp, VfSettings};

use crate::scene::{NIC, Scene, name, partition, set_mac, vf};

const A: &str = "52:54:00:00:00:0a";
const B: &str = "52:54:00:00:00:0b";
const OWN: &str = "52:54:00:00:00:77";

/// A guest asked for another MAC and ended itself meanwhile: its channel's task was aborted when the MAC was set already. The
/// operation stayed open for ever, and after the next restart, whenever that was, the MAC of before was put on the VF, which had
/// become another partition's.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_finished_though_its_channel_is_stopped() {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, A)).await;
    scene.gate.close("configure");
    let mut guest = scene.machines.guest("web").await;
    guest.hello().await;
    guest.ask(set_mac(OWN)).await;
    scene.gate.is_reached("configure", 1).await;
    // The guest ends: nobody waits for an answer any more.
    drop(guest);
    let stop = tokio::spawn({
        let imp = Arc::clone(&scene.imp);
        async move {
            let options = ioward_model::Options { force: true, ..Default::default() };
            let plan = imp.plan(&Intent::Stop { partition: name("web") }, &options).await.unwrap();
            let (listener, mut events) = tokio::sync::mpsc::unbounded_channel();
            imp.apply(plan, listener).await.unwrap();
            while events.recv().await.is_some() {}
        }
    });
    stop.await.unwrap();
    scene.gate.open("configure");
    scene.until("the operation is over", |imp| imp.export().unwrap().operations.is_empty()).await;
    let state = scene.imp.state();
    let held = state.assignment(vf(0)).unwrap();
    assert_eq!(held.guest_settings.mac.unwrap().to_string(), OWN, "what was set is noted");
    let audit = scene.imp.audit(10).unwrap();
    assert!(audit.iter().any(|entry| entry.request.name() == "set"), "and who asked for it");

    scene.ask(Intent::Remove { partition: name("web") }).await;
    scene.apply(&partition("db", 0, B)).await;
    let after = scene.restarted().await;
    assert_eq!(after.mac(vf(0)), B, "nobody touches a VF that is another's");
}

/// The same for a caller that goes away: whatever drops the future of an operation, the operation goes on.
#[tokio::test(flavor = "multi_thread")]
async fn an_operation_is_finished_though_nobody_waits_for_it() {
    for op in [set_mac(OWN), VfOp::Reset { vf: name("net0") }] {
        let scene = Scene::new();
        scene.apply(&partition("web", 0, A)).await;
        let call = if matches!(op, VfOp::Reset { .. }) { "reset" } else { "configure" };
        scene.gate.close(call);
        let imp = Arc::clone(&scene.imp);
        let asked = tokio::spawn(async move { imp.operate(&name("web"), op).await });
        scene.gate.is_reached(call, 1).await;
        asked.abort();
        let _ = asked.await;
        scene.gate.open(call);
        scene.until("the operation is over", |imp| imp.export().unwrap().operations.is_empty()).await;
        // A change of the VF waits for the operation, and comes after it.
        scene.ask(Intent::Remove { partition: name("web") }).await;
        let audit = scene.imp.audit(10).unwrap();
        assert!(audit.iter().any(|entry| entry.request.vf().is_some()), "{call} is in the audit log");
        assert!(scene.imp.export().unwrap().operations.is_empty());
    }
}

/// An operation that is open although its VF is another's by now, as an older ioward has left it, is closed and not put back.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_operation_is_not_put_back_on_somebody_elses_vf() {
    let scene = Scene::new();
    scene.apply(&partition("db", 0, B)).await;
    let settings = |mac: &str| ioward_model::VfSettings { mac: mac.parse().ok(), ..Default::default() };
    let open = ioward_model::OpenOperation {
        partition: name("web"),
        vf: vf(0),
        change: settings(OWN),
        before: settings(A),
    };
    let (store, _) = crate::scene::open(&scene.file.copy());
    drop(store);
    let file = scene.file.copy();
    let (store, _) = crate::scene::open(&file);
    ioward_store::Store::commit(&store, &[ioward_store::Change::OperationBegun(open)]).unwrap();
    drop(store);
    let after = Scene { file, ..scene }.restarted().await;
    assert_eq!(after.mac(vf(0)), B);
    assert!(after.imp.export().unwrap().operations.is_empty(), "and it is over");
}

/// Two guests asked for the same MAC at once: each was told that nobody had it.
#[tokio::test(flavor = "multi_thread")]
async fn two_guests_never_get_the_same_mac() {
    let scene = Scene::new();
    scene.apply(&(partition("web", 0, A) + &partition("db", 1, B))).await;
    scene.gate.close("configure");
    let [first, second] = ["web", "db"].map(|who| {
        let imp = Arc::clone(&scene.imp);
        tokio::spawn(async move { imp.operate(&name(who), set_mac(OWN)).await })
    });
    scene.gate.is_reached("configure", 1).await;
    // The other one is refused at once, or held up where it has set it too.
    let second_is_set = scene.gate.is_reached("configure", 2);
    tokio::select! {
        () = second_is_set => {}
        () = scene.until("one has an answer", |_| first.is_finished() || second.is_finished()) => {}
    }
    scene.gate.open("configure");
    let (first, second) = (first.await.unwrap(), second.await.unwrap());
    assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
    assert_ne!(scene.mac(vf(0)), scene.mac(vf(1)));
}

/// A guest took the MAC that a plan which was under way was about to give to somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_does_not_get_the_mac_of_a_plan_under_way() {
    let scene = Scene::new();
    let grown = format!("[[adapter]]\npf = \"{NIC}\"\nvfs = 3\n");
    scene.apply(&(grown.clone() + &partition("web", 0, A))).await;
    // The plan is held up where it has not noted the MAC of db, and holds no adapter.
    scene.gate.close("define");
    let imp = Arc::clone(&scene.imp);
    let both = format!("version = 1\n{grown}{}{}", partition("web", 0, A), partition("db", 1, OWN));
    let plan = tokio::spawn(async move {
        let intent = Intent::Apply { spec: Spec::parse(both.as_bytes()).unwrap() };
        let plan = imp.plan(&intent, &Default::default()).await.unwrap();
        let (listener, mut events) = tokio::sync::mpsc::unbounded_channel();
        imp.apply(plan, listener).await.unwrap();
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event.kind);
        }
        last
    });
    scene.gate.is_reached("define", 1).await;
    let imp = Arc::clone(&scene.imp);
    let guest = tokio::spawn(async move { imp.operate(&name("web"), set_mac(OWN)).await });
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    scene.gate.open("define");
    let (plan, guest) = (plan.await.unwrap(), guest.await.unwrap());
    let web_is_set = guest.is_ok();
    assert!(!web_is_set, "{guest:?} {plan:?}");
    assert_ne!(scene.mac(vf(0)), scene.mac(vf(1)), "{plan:?}");
}

fn set_vlan(vlan: u16) -> VfOp {
    let change = VfSettings { vlan: ioward_model::Vlan::new(vlan), ..VfSettings::default() };
    VfOp::Set { vf: name("net0"), change }
}

/// The role of a user allows what `guest_may` does not. What is set is the partition's from then on: it is no drift, and a plan
/// leaves it as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_sets_what_the_guest_may_not_and_the_log_says_who() {
    let scene = Scene::new();
    // Found with a VF, so that there is one to look at in the end.
    scene.machine.write_numvfs(NIC.parse().unwrap(), 1).unwrap();
    scene.apply(&partition("web", 0, A)).await;
    let denied = scene.imp.operate(&name("web"), set_vlan(7)).await.unwrap_err();
    assert_eq!(denied.kind, OpErrorKind::Denied);
    let outcome = scene.imp.operate_for_user(1000, vf(0), set_vlan(7)).await.unwrap();
    let OpOutcome::Vf(view) = outcome else { panic!("{outcome:?}") };
    assert_eq!(view.settings.vlan, ioward_model::Vlan::new(7));
    let state = scene.imp.state();
    assert_eq!(state.assignment(vf(0)).unwrap().guest_settings.vlan, ioward_model::Vlan::new(7));
    assert!(scene.imp.drift().await.unwrap().is_empty());

    let audit = scene.imp.audit(10).unwrap();
    let told: Vec<_> = audit.iter().map(|entry| (entry.uid, &entry.verdict)).collect();
    assert!(matches!(told[..], [(None, Verdict::Refused(_)), (Some(1000), Verdict::Granted)]), "{told:?}");
    assert!(scene.imp.export().unwrap().operations.is_empty());

    scene.ask(Intent::Remove { partition: name("web") }).await;
    assert_eq!(scene.settings(vf(0)).vlan, ioward_model::Vlan::new(0), "it is given back as it was found");
}

/// A user is bound by all but `guest_may`: a MAC of others, a VF that nobody holds, a name that is another VF's.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_no_taken_mac_and_no_vf_that_no_partition_holds() {
    let scene = Scene::new();
    scene.apply(&(partition("web", 0, A) + &partition("db", 1, B))).await;
    let ask = async |vf_asked, op| scene.imp.operate_for_user(1000, vf_asked, op).await.unwrap_err();
    let taken = ask(vf(0), set_mac(B)).await;
    assert_eq!((taken.kind, scene.mac(vf(0)).as_str()), (OpErrorKind::Invalid, A), "{taken}");
    let free = ask(vf(5), set_mac(OWN)).await;
    assert_eq!(free.kind, OpErrorKind::NoSuchVf, "{free}");
    let other = ask(vf(0), VfOp::Get { vf: name("net1") }).await;
    assert_eq!(other.kind, OpErrorKind::Invalid, "{other}");
    assert_eq!(
        scene.imp.audit(10).unwrap().len(),
        1,
        "what no partition is asked for is none of its operations"
    );
}

/// What an adapter lacks was told as a failure, which the API answers with 500; but nothing has failed, and to try again is of no use.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_adapter_lacks_is_refused_with_a_reason() {
    let scene = Scene::new();
    scene.apply(&partition("web", 0, A)).await;
    let queues = VfSettings { queues: Some(2), ..VfSettings::default() };
    let op = VfOp::Set { vf: name("net0"), change: queues };
    let refused = scene.imp.operate_for_user(1000, vf(0), op).await.unwrap_err();
    assert_eq!(refused.kind, OpErrorKind::Invalid, "{refused:?}");
    let [reason] = &refused.reasons[..] else { panic!("{refused:?}") };
    assert_eq!((reason.rule, reason.function), (Rule::SettingSupported, Some(vf(0).pf)));
    assert!(reason.found.contains("queues"), "{reason:?}");
    let audit = scene.imp.audit(10).unwrap();
    let last = audit.last().unwrap();
    assert!(matches!(last.verdict, Verdict::Refused(_)) && last.uid == Some(1000), "{last:?}");
    assert_eq!(scene.mac(vf(0)), A, "nothing has changed");
}
