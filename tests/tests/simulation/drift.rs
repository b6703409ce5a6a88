//! A host that has changed: booted, changed by somebody with a shell, or with machines that died. The drift is
//! reported, and repaired where that is safe; whatever is not ioward's stays unchanged.

use std::collections::{BTreeMap, BTreeSet};

use ioward_fabric::{
    Fabric,
    sim::{SimMachine, VfView},
};
use ioward_model::{
    Difference, Drift, Ended, EventKind, Holder, Intent, Inventory, Label, MacAddress, Process, Runs, Spec,
    VfId, VfOp, VfSettings, Vlan,
};
use ioward_pci::Bdf;

use crate::{
    actions::{OPEN, name},
    camera::{Moment, Picture},
    checks,
    crash::asleep,
    gate::Trouble,
    host::{Choice, Host},
    runtime,
    story::Story,
    world::{self, Loose, World},
};

const WEB: &str = r#"
version = 1
[[adapter]]
pf = "0000:01:00.0"
vfs = 3
[[partition]]
name = "web"
autostart = true
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "net0"
class = "network"
pf = "0000:01:00.0"
mac = "52:54:00:00:00:01"
vlan = 100
guest_may = ["mac"]
[[partition]]
name = "db"
boot = { disk = "/dev/null" }
[[partition.vf]]
name = "disk0"
class = "nvme"
"#;

const MAC: &str = "52:54:00:00:00:01";

async fn world(name: &str) -> World {
    let host = Host::new(SimMachine::builder(1), &[Choice::gigabit(), Choice::nvme()]);
    let mut world = World::new(host, Story::new(name.to_owned(), false)).await;
    ask(&mut world, Intent::Apply { spec: Spec::parse(WEB.as_bytes()).unwrap() }).await;
    assert_eq!(reconcile(&world).await, [], "nothing differs after an apply");
    world
}

async fn ask(world: &mut World, intent: Intent) {
    let plan = world.imp().plan(&intent, &OPEN).await.unwrap();
    assert_eq!(world.carry_out_plan(&plan, &Trouble::default()).await.unwrap(), world::Ended::Done);
}

async fn reconcile(world: &World) -> Vec<Drift> {
    world.imp().reconcile().await.unwrap()
}

fn nic() -> Bdf {
    "0000:01:00.0".parse().unwrap()
}

fn vf(world: &World, id: VfId) -> VfView {
    world.host.machine.snapshot().physical_functions[&id.pf].vfs[usize::from(id.index)].clone()
}

fn net0(world: &World) -> VfId {
    world.state().partitions[&name("web")].vfs[&name("net0")].vf
}

fn told(world: &World, is: impl Fn(&EventKind) -> bool) -> usize {
    world.imp().events().iter().filter(|event| is(&event.kind)).count()
}

fn wrong(world: &World) -> Vec<String> {
    let state = world.state();
    let everybody: BTreeSet<_> = state.partitions.keys().cloned().collect();
    checks::look(&world.host, &world.hypervisor, &state, &mut Loose::default(), &everybody)
}

fn is_sound(world: &World) {
    let wrong = wrong(world);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same host after a power cycle: all changes to its adapters are lost, and so are all machines.
fn booted(world: &World) -> World {
    let (machine, disk) = (world.host.machine.copy(), world.disk.file().copy());
    let picture =
        Picture { moment: Moment::BeforeOperation, machine, guests: BTreeMap::new(), disk, told: 0 };
    let mut booted = asleep(world, &picture);
    booted.boot = "second";
    for pf in booted.host.adapters() {
        booted.host.machine.unplug(pf);
        booted.host.machine.replug(pf);
    }
    booted
}

#[test]
fn everything_is_restored_after_a_boot() {
    runtime().block_on(async {
        let world = world("a boot").await;
        let mut booted = booted(&world);
        booted.start_daemon().await.unwrap();
        assert!(
            booted.state().partitions.values().all(|partition| !partition.running),
            "they went with the host"
        );
        assert_eq!(reconcile(&booted).await, []);
        is_sound(&booted);
        let running: Vec<_> =
            booted.state().partitions.into_iter().filter(|(_, p)| p.running).map(|(name, _)| name).collect();
        assert_eq!(running, [name("web")], "the one with autostart");
        assert_eq!(told(&booted, |kind| matches!(kind, EventKind::PartitionStarted { .. })), 1);
        booted.imp().end_restoring(Vec::new()).await;

        // The next daemon has nothing to restore: a partition that is stopped by then stays stopped.
        ask(&mut booted, Intent::Stop { partition: name("web") }).await;
        booted.kill_daemon().await;
        booted.start_daemon().await.unwrap();
        assert_eq!(reconcile(&booted).await, []);
        assert!(!booted.state().partitions[&name("web")].running);
        booted.remove_everything().await.unwrap();
        booted.end().await;
        world.end().await;
    });
}

/// An adapter that appears late delays only the partitions with VFs of it.
#[test]
fn a_late_adapter_delays_only_its_own_partitions() {
    runtime().block_on(async {
        let world = world("a late adapter").await;
        let mut booted = booted(&world);
        booted.host.machine.unplug(nic());
        booted.start_daemon().await.unwrap();
        let left = reconcile(&booted).await;
        assert!(
            matches!(&left[..], [Drift { what: Difference::AdapterMissing { pf, .. }, breaks, .. }]
                if *pf == nic() && breaks.iter().map(ToString::to_string).eq(["web/net0"])),
            "{left:?}"
        );
        let disk0 = booted.state().partitions[&name("db")].vfs[&name("disk0")].vf;
        assert_eq!(vf(&booted, disk0).driver.as_deref(), Some("vfio-pci"), "db has its VF");
        assert!(!booted.state().partitions[&name("web")].running);

        booted.host.machine.replug(nic());
        assert_eq!(reconcile(&booted).await, []);
        assert!(booted.state().partitions[&name("web")].running);
        is_sound(&booted);
        booted.end().await;
        world.end().await;
    });
}

/// The daemon is killed at any moment of the restore: the next one continues.
#[test]
fn a_restore_cut_short_is_continued_by_the_next_daemon() {
    runtime().block_on(async {
        let world = world("two crashes").await;
        let mut booted = booted(&world);
        booted.start_daemon().await.unwrap();
        booted.camera.start();
        assert_eq!(reconcile(&booted).await, []);
        let pictures = booted.camera.stop();
        assert!(pictures.len() > 10, "{} pictures", pictures.len());
        for picture in pictures {
            let mut woken = asleep(&booted, &picture);
            woken.boot = "second";
            woken.start_daemon().await.unwrap();
            assert_eq!(reconcile(&woken).await, []);
            is_sound(&woken);
            assert!(woken.state().partitions[&name("web")].running);
            let export = woken.imp().export().unwrap();
            assert!(export.plans.iter().all(|plan| plan.record.ended.is_some()), "{:?}", picture.moment);
            woken.end().await;
        }
        booted.end().await;
        world.end().await;
    });
}

#[test]
fn a_setting_changed_by_hand_is_reported_and_repaired_even_under_a_running_guest() {
    runtime().block_on(async {
        let mut world = world("a MAC by hand").await;
        let net0 = net0(&world);
        let by_hand = VfSettings { mac: Some("52:54:00:00:00:99".parse().unwrap()), ..VfSettings::default() };
        world.host.machine.fabric().configure(net0, &by_hand).await.unwrap();
        assert_eq!(reconcile(&world).await, []);
        assert_eq!(vf(&world, net0).settings.mac, Some(MAC.parse().unwrap()));
        let is = |kind: &EventKind, repaired: bool| match kind {
            EventKind::DriftFound { drift } if !repaired => drift.to_string().contains("mac="),
            EventKind::DriftRepaired { drift } if repaired => drift.to_string().contains("mac="),
            _ => false,
        };
        assert_eq!((told(&world, |kind| is(kind, false)), told(&world, |kind| is(kind, true))), (1, 1));
        is_sound(&world);

        // A setting made by the guest within its permissions is not drift.
        let own: MacAddress = "52:54:00:00:00:07".parse().unwrap();
        let change = VfSettings { mac: Some(own), ..VfSettings::default() };
        world.imp().operate(&name("web"), VfOp::Set { vf: name("net0"), change }).await.unwrap();
        assert_eq!(reconcile(&world).await, []);
        assert_eq!(vf(&world, net0).settings.mac, Some(own));
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// A repair is a plan like any other, also in the journal; but users' plans made before it stay valid.
#[test]
fn a_repair_is_in_the_journal_and_leaves_other_plans_valid() {
    runtime().block_on(async {
        let mut world = world("a plan before a repair").await;
        let stop = world.imp().plan(&Intent::Stop { partition: name("db") }, &OPEN).await.unwrap();
        let (net0, before) = (net0(&world), world.state());
        let by_hand = VfSettings { vlan: Vlan::new(7), ..VfSettings::default() };
        world.host.machine.fabric().configure(net0, &by_hand).await.unwrap();
        assert_eq!(reconcile(&world).await, []);
        assert_eq!(world.state(), before, "nothing is noted that was not");

        let last = world.imp().export().unwrap().plans.pop().unwrap();
        assert_eq!((last.record.plan.intent.word(), last.record.ended), ("reconcile", Some(Ended::Done)));
        assert_eq!(world.carry_out_plan(&stop, &Trouble::default()).await.unwrap(), world::Ended::Done);
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// A guest's setting was recorded as the plan's own after a repair carried it out like a step of a plan.
#[test]
fn a_repaired_setting_keeps_its_owner() {
    runtime().block_on(async {
        let mut world = world("a MAC of the guest").await;
        let net0 = net0(&world);
        let mac = |last: &str| VfSettings {
            mac: format!("52:54:00:00:00:{last}").parse().ok(),
            ..VfSettings::default()
        };
        let op = VfOp::Set { vf: name("net0"), change: mac("07") };
        world.imp().operate(&name("web"), op).await.unwrap();
        let before = world.state();
        world.host.machine.fabric().configure(net0, &mac("99")).await.unwrap();
        assert_eq!(reconcile(&world).await, []);
        assert_eq!(vf(&world, net0).settings.mac, mac("07").mac);
        assert_eq!(world.state(), before);
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// A repair needs no new record: it is made on a full disk too, and the daemon continues.
#[test]
fn repairs_are_made_on_a_full_disk_too() {
    runtime().block_on(async {
        for room in 0..12 {
            let mut world = world("a repair without room").await;
            let net0 = net0(&world);
            ask(&mut world, Intent::Stop { partition: name("web") }).await;
            let fabric = world.host.machine.fabric();
            fabric.bind(net0, None).await.unwrap();
            let by_hand = VfSettings { vlan: Vlan::new(7), ..VfSettings::default() };
            fabric.configure(net0, &by_hand).await.unwrap();
            world.disk.full_after(Some(room));
            assert_eq!(reconcile(&world).await, [], "room for {room} writes");
            is_sound(&world);
            world.disk.full_after(None);
            ask(&mut world, Intent::Start { partition: name("web") }).await;
            let export = world.imp().export().unwrap();
            assert_eq!(export.state, world.state());
            assert!(export.plans.iter().all(|plan| plan.record.ended.is_some()), "room for {room} writes");
            world.remove_everything().await.unwrap();
            world.end().await;
        }
    });
}

#[test]
fn only_the_daemon_can_request_a_reconcile() {
    runtime().block_on(async {
        let world = world("a made-up drift").await;
        let what = Difference::Driver { vf: net0(&world), noted: "vfio-pci".into(), found: None };
        let drifts = vec![Drift { what, breaks: Vec::new(), left_because: None }];
        let intent = Intent::Reconcile { drifts, start: Vec::new(), running: Vec::new() };
        let refused = world.imp().plan(&intent, &OPEN).await.unwrap_err();
        assert!(refused.to_string().contains("only the daemon"), "{refused}");
        world.end().await;
    });
}

#[test]
fn a_foreign_driver_on_an_idle_vf_is_reported_and_unbound() {
    runtime().block_on(async {
        let mut world = world("a foreign driver").await;
        let net0 = net0(&world);
        ask(&mut world, Intent::Stop { partition: name("web") }).await;
        let fabric = world.host.machine.fabric();
        fabric.bind(net0, None).await.unwrap();
        assert_eq!(reconcile(&world).await, []);
        is_sound(&world);
        assert_eq!(told(&world, |kind| matches!(kind, EventKind::DriftRepaired { .. })), 1);
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// `echo 0 > sriov_numvfs` under assigned VFs takes them away; other tools report nothing.
#[test]
fn a_vf_count_written_by_hand_is_reported_with_the_broken_vfs_and_not_repaired() {
    runtime().block_on(async {
        let mut world = world("a number by hand").await;
        ask(&mut world, Intent::Stop { partition: name("web") }).await;
        world.host.machine.write_numvfs(nic(), 0).unwrap();
        let left = reconcile(&world).await;
        assert!(
            matches!(&left[..], [Drift { what: Difference::VfCount { noted: 3, found: 0, .. }, breaks, left_because: Some(_) }]
                if breaks.iter().map(ToString::to_string).eq(["web/net0"])),
            "{left:?}"
        );
        assert_eq!(reconcile(&world).await, left);
        assert_eq!(told(&world, |kind| matches!(kind, EventKind::DriftFound { .. })), 1, "told once");
        assert_eq!(world.host.machine.snapshot().physical_functions[&nic()].num_vfs, 0, "not touched");

        // The same person makes the VFs again: they are prepared again.
        world.host.machine.write_numvfs(nic(), 3).unwrap();
        assert_eq!(reconcile(&world).await, []);
        is_sound(&world);
        world.end().await;
    });
}

#[test]
fn a_machine_that_died_unnoticed_is_recorded_as_stopped() {
    runtime().block_on(async {
        let mut world = world("a dead machine").await;
        world.hypervisor.dies_unheard(&name("web"));
        assert_eq!(reconcile(&world).await, []);
        assert!(!world.state().partitions[&name("web")].running);
        assert_eq!(told(&world, |kind| matches!(kind, EventKind::PartitionEnded { .. })), 1);
        is_sound(&world);
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

#[test]
fn orphans_are_listed_and_reaped_only_on_request() {
    runtime().block_on(async {
        let world = world("an orphan").await;
        let (fabric, net0) = (world.host.machine.fabric(), net0(&world));
        let others: Vec<_> = (0..3).map(|index| VfId { pf: nic(), index }).filter(|vf| *vf != net0).collect();
        for other in &others {
            fabric.bind(*other, Some("vfio-pci")).await.unwrap();
        }
        // Another machine has one of them open.
        let runs = Runs::LibvirtDomain { name: Label::new("theirs") };
        let process = Process { pid: 812, command: Label::new("qemu-system-x86"), runs };
        world.host.machine.lend(vf(&world, others[0]).address, Holder::Process(process)).unwrap();
        assert_eq!(reconcile(&world).await, []);
        let shown = |seen: &Inventory, index: u16| {
            let vf = &seen.physical_function(nic()).unwrap().virtual_functions[usize::from(index)];
            vf.holder.as_ref().map(ToString::to_string)
        };
        let seen = world.imp().look().await.unwrap();
        assert_eq!(shown(&seen, others[0].index).unwrap(), "libvirt domain theirs (qemu pid 812)");
        assert_eq!(shown(&seen, others[1].index).unwrap(), "nobody");
        assert_eq!(shown(&seen, net0.index), None, "it has an owner");
        assert_eq!(
            seen.physical_function(nic()).unwrap().vfs_available,
            5,
            "of seven, web and they have one each"
        );
        let orphans = world.imp().orphans().await.unwrap();
        assert_eq!(orphans.iter().map(|orphan| orphan.vf).collect::<Vec<_>>(), [others[1]]);
        assert_eq!(vf(&world, others[1]).driver.as_deref(), Some("vfio-pci"), "nothing happens unasked");

        let reaped = world.imp().reap_orphans().await.unwrap();
        assert!(reaped.iter().all(|reaped| reaped.error.is_none()) && reaped.len() == 1, "{reaped:?}");
        assert_eq!(vf(&world, others[1]).driver, None);
        assert_eq!(vf(&world, others[0]).driver.as_deref(), Some("vfio-pci"), "it is in use");
        assert_eq!(vf(&world, net0).driver.as_deref(), Some("vfio-pci"));
        assert_eq!(world.imp().orphans().await.unwrap(), []);
        world.end().await;
    });
}
