//! Stories that ended badly once, told by hand so that they stay the same whatever seeds choose; and one plan that is made
//! to fail at every single operation.

use ioward_fabric::sim::{Adapter, SimMachine};
use ioward_model::{Intent, MacAddress, Options, Spec, VfId, VfOp, VfSettings, Vlan};

use crate::{
    actions::{Action, DOMAIN, Deed, OPEN, OWN_MAC, name},
    gate::{Death, Trouble},
    host::{Choice, Host},
    runtime,
    story::Story,
    wait_until,
    world::World,
};

/// Tells a story on a machine with these adapters; everything is looked at after each action, and removed at the end.
fn tell(title: &str, adapters: &[Choice], actions: &[Action]) -> Vec<String> {
    tell_on(title, Host::new(SimMachine::builder(1), adapters), actions)
}

fn tell_on(title: &str, host: Host, actions: &[Action]) -> Vec<String> {
    runtime().block_on(async {
        let mut world = World::new(host, Story::new(title.to_owned(), false)).await;
        for action in actions {
            world.carry_out(action).await.unwrap_or_else(|wrong| panic!("{title}: {wrong}"));
        }
        world.remove_everything().await.unwrap_or_else(|wrong| panic!("{title}, at the end: {wrong}"));
        world.end().await.lines().to_vec()
    })
}

fn apply(spec: &str) -> Action {
    apply_with(spec, Trouble::default())
}

fn apply_with(spec: &str, trouble: Trouble) -> Action {
    let spec = Spec::parse(format!("version = 1\n{spec}").as_bytes()).unwrap();
    Action::Ask { intent: Intent::Apply { spec }, options: OPEN, trouble }
}

fn failing(operations: &[u32]) -> Trouble {
    Trouble { failing: operations.iter().copied().collect(), ..Trouble::default() }
}

fn partition(name: &str, vfs: &str) -> String {
    format!("[[partition]]\nname = \"{name}\"\nboot = {{ disk = \"/dev/null\" }}\n{vfs}")
}

fn nic(name: &str, rest: &str) -> String {
    format!("[[partition.vf]]\nname = \"{name}\"\nclass = \"network\"\n{rest}\n")
}

/// The last form of `GUEST_MAY`, in TOML.
const NARROW: &str =
    r#"guest_may = { vlan = "100-110", max_tx_rate = "<=500Mbit", mac = "52:54:00:*", queues = "<=4" }"#;

const GROWN: &str = "[[adapter]]\npf = \"0000:01:00.0\"\nvfs = 5\n";

fn before() -> String {
    partition(
        "web",
        &nic(
            "net0",
            &format!("mac = \"52:54:00:00:00:01\"\nvlan = 100\nmax_tx_rate = \"100Mbit\"\n{NARROW}"),
        ),
    )
}

fn after() -> String {
    let disk = "[[partition.vf]]\nname = \"disk0\"\nclass = \"nvme\"\nqueues = 4\n";
    let db = nic("net0", "trust = true") + disk;
    format!("{GROWN}{}{}", partition("web", &nic("net1", "spoofchk = false")), partition("db", &db))
}

fn guest_sets_vlan() -> Action {
    let change = VfSettings { vlan: Vlan::new(101), ..VfSettings::default() };
    Action::Operate { partition: name("web"), op: VfOp::Set { vf: name("net0"), change } }
}

/// The address of a VF was read after the VF had been set; when that failed, the step had failed and left its settings
/// behind. A plan that takes a VF away, resizes an adapter and starts a partition is made to fail at each of its
/// operations in turn, and everything has to be as it was.
#[test]
fn wherever_one_operation_fails_everything_is_undone() {
    let mut ends = Vec::new();
    for operation in 1..80 {
        let title = format!("operation {operation} fails");
        let actions = [apply(&before()), guest_sets_vlan(), apply_with(&after(), failing(&[operation]))];
        let lines = tell(&title, &[Choice::gigabit(), Choice::nvme()], &actions);
        ends.push(lines.iter().any(|line| line == "  Undone"));
    }
    let failed = ends.iter().filter(|undone| **undone).count();
    assert!(failed > 30 && ends[..failed].iter().all(|undone| *undone), "{ends:?}");
}

/// The same for a person who goes away.
#[test]
fn whenever_the_person_leaves_everything_is_undone() {
    for operation in 1..60 {
        let trouble = Trouble { person_leaves: Some(operation), ..Trouble::default() };
        let actions = [apply(&before()), guest_sets_vlan(), apply_with(&after(), trouble)];
        tell(&format!("gone at operation {operation}"), &[Choice::gigabit(), Choice::nvme()], &actions);
    }
}

/// A partition's channel was served no longer once it was about to be destroyed. When that failed, and the last VF stayed with the
/// partition, its guest was not answered until the daemon was started again.
#[test]
fn a_channel_that_could_not_be_destroyed_is_served() {
    let mut ends = Vec::new();
    for operation in 1..40 {
        let detach = Intent::Detach { partition: name("web"), vf: name("net0") };
        let trouble = failing(&[operation]);
        let actions = [apply(&before()), Action::Ask { intent: detach, options: OPEN, trouble }];
        let lines = tell(&format!("operation {operation} fails"), &[Choice::gigabit()], &actions);
        ends.push(lines.iter().any(|line| line == "  Undone"));
    }
    let failed = ends.iter().filter(|undone| **undone).count();
    assert!(failed > 3 && failed < ends.len(), "{ends:?}");
}

/// When something could not be undone, what rested on it was undone all the same: an adapter was forgotten that still had
/// the VFs ioward made, a VF was given back with its partition's MAC. Now that stays noted, and removing the partitions
/// puts it right.
#[test]
fn what_could_not_be_undone_is_put_right_later() {
    for first in (1..48).step_by(3) {
        for second in (first + 1..first + 32).step_by(3) {
            let title = format!("operations {first} and {second} fail");
            let actions =
                [apply(&before()), guest_sets_vlan(), apply_with(&after(), failing(&[first, second]))];
            tell(&title, &[Choice::gigabit(), Choice::nvme()], &actions);
        }
    }
}

/// A VF that had a driver of its own before ioward was unbound on the way to something that failed, and could not be bound
/// again on the way back. It passed for one that somebody else had made anew, and was given back without its driver.
#[test]
fn a_vf_left_without_a_driver_gets_its_own_back_later() {
    for first in 1..20 {
        for second in first + 1..first + 12 {
            let mut host = Host::new(SimMachine::builder(1), &[Choice::gigabit()]);
            host.machine.write_numvfs(host.pfs[0].address, 3).unwrap();
            host.machine.advance(std::time::Duration::from_secs(10));
            host.found = host.machine.snapshot();
            let title = format!("operations {first} and {second} fail, with VFs that were there before");
            let grown = apply_with(&format!("{GROWN}{}", before()), failing(&[first, second]));
            tell_on(&title, host, &[apply(&before()), grown]);
        }
    }
}

/// As with ice (Linux c54d209c): a driver that does not wait for a VF in reset took the MAC, which resets the VF,
/// and answered EBUSY to the VLAN after it, and to the rollback of the MAC.
#[test]
fn a_driver_that_says_busy_is_asked_again() {
    let mut choice = Choice::dual_25g();
    choice.adapter = choice.adapter.impatient();
    let lines = tell("an impatient driver", &[choice], &[apply(&before())]);
    assert!(lines.iter().any(|line| line == "  Done"), "{lines:?}");
}

/// A driver made 3 VFs of the 5 asked for; they were taken away again, and the VF there had been could not be given its rate
/// back: igb takes none while its link renegotiates, and nobody waited for that.
#[test]
fn too_few_vfs_are_undone_with_the_link_back() {
    let mut choice = Choice::gigabit();
    choice.adapter = Adapter::gigabit().makes_at_most(3);
    let lines = tell("3 VFs of 5", &[choice], &[apply(&before()), apply(&format!("{GROWN}{}", before()))]);
    assert!(lines.iter().any(|line| line == "  Undone"), "{lines:?}");
}

/// A trusted guest had set its own MAC. After a plan that was undone this passed for the MAC that ioward had chosen, and
/// what a guest had set within its `guest_may` for what the plan had set: the next plan would have put it back.
#[test]
fn undoing_a_plan_forgets_nobodys_settings() {
    let mut choice = Choice::gigabit();
    choice.adapter = Adapter::gigabit().makes_at_most(3);
    let spec = partition("web", &nic("net0", &format!("trust = true\n{NARROW}")));
    let vf = "0000:01:10.0".parse().unwrap();
    let mac = MacAddress::new([OWN_MAC, 0, 0, 0, 0, 1]);
    let actions =
        [apply(&spec), guest_sets_vlan(), Action::GuestSetsMac { vf, mac }, apply(&format!("{GROWN}{spec}"))];
    let lines = tell("a guest's own MAC", &[choice], &actions);
    assert!(
        lines.iter().any(|line| line == "  Ok(())") && lines.iter().any(|line| line == "  Undone"),
        "{lines:?}"
    );
}

/// k8snetworkplumbingwg/sriov-network-device-plugin#685, duplicate MACs: a guest had taken an address for itself,
/// as it may, and a Spec gave the same one to another.
#[test]
fn a_mac_that_a_guest_has_set_is_taken() {
    let change = VfSettings { mac: "52:54:00:00:00:03".parse().ok(), ..VfSettings::default() };
    let guest = Action::Operate { partition: name("web"), op: VfOp::Set { vf: name("net0"), change } };
    let other = partition("db", &nic("net0", "mac = \"52:54:00:00:00:03\""));
    let lines = tell(
        "a MAC twice",
        &[Choice::gigabit()],
        &[apply(&format!("{GROWN}{}", before())), guest, apply(&other)],
    );
    assert!(lines.iter().any(|line| line.contains("web/net0 has it")), "{lines:?}");
}

/// Somebody had taken VFs away by hand. Removing one partition was planned together with making the VFs of another again,
/// and failed with that.
#[test]
fn removing_a_partition_waits_for_nobody_elses_vf() {
    let pf = "0000:01:00.0".parse().unwrap();
    let pinned = nic("net0", "pf = \"0000:01:00.0\"\nindex = 3");
    let spec = partition("web", &nic("net0", "pf = \"0000:01:00.0\"\nindex = 0")) + &partition("db", &pinned);
    let stop = |partition| Action::Ask {
        intent: Intent::Stop { partition: name(partition) },
        options: Options::default(),
        trouble: Trouble::default(),
    };
    let remove = Action::Ask {
        intent: Intent::Remove { partition: name("web") },
        options: OPEN,
        trouble: Trouble::default(),
    };
    let told = [apply(&spec), stop("web"), stop("db"), Action::HandCount { pf, count: 1 }, remove];
    let lines = tell("removing", &[Choice::gigabit()], &told);
    let removing = lines.iter().position(|line| line.contains("Remove")).unwrap();
    let end = lines.iter().position(|line| line.starts_with("at the end")).unwrap();
    let resized = lines[removing..end].iter().any(|line| line.contains("set the number of VFs"));
    assert!(!resized, "{:?}", &lines[removing..end]);
}

/// Somebody had made VFs anew by hand and bound one to vfio-pci: it passed for the partition's own, as it was bound, and
/// went back to the partition with nothing set on it.
#[test]
fn a_vf_that_somebody_bound_is_set_again() {
    let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
    let stop = Action::Ask {
        intent: Intent::Stop { partition: name("web") },
        options: Options::default(),
        trouble: Trouble::default(),
    };
    let bind = Action::HandBind { vf, driver: Some("vfio-pci".to_owned()) };
    let by_hand = [Action::HandCount { pf: vf.pf, count: 1 }, bind];
    let more = before() + &nic("net1", "pf = \"0000:02:00.0\"");
    let mut told = vec![apply(&before()), stop];
    told.extend(by_hand);
    told.push(apply(&more));
    tell("bound by hand", &[Choice::gigabit(), Choice::gigabit()], &told);
}

/// Seed 9190: the same of an NVMe VF, whose controller keeps its queues when the VF goes. It passed for what a guest may have
/// done, and the partition was left with a controller that is offline.
#[test]
fn an_nvme_vf_that_somebody_bound_goes_online_again() {
    let vf = VfId { pf: "0000:01:00.0".parse().unwrap(), index: 0 };
    let stop = Action::Ask {
        intent: Intent::Stop { partition: name("db") },
        options: Options::default(),
        trouble: Trouble::default(),
    };
    let disk = |name: &str| format!("[[partition.vf]]\nname = \"{name}\"\nclass = \"nvme\"\n");
    let two = partition("db", &(disk("disk0") + &disk("disk1")));
    let one = partition("db", &disk("disk0"));
    let bind = Action::HandBind { vf, driver: Some("vfio-pci".to_owned()) };
    let told = [apply(&two), stop, Action::HandCount { pf: vf.pf, count: 2 }, bind, apply(&one)];
    let lines = tell("an NVMe VF bound by hand", &[Choice::nvme()], &told);
    let again = lines.iter().filter(|line| line.contains("configure VF 0 of 0000:01:00.0: queues=4")).count();
    assert_eq!(again, 2, "{lines:?}");
}

/// A guest that ended after the new daemon had looked at its machines and before it listened was noted as running for ever.
#[test]
fn a_guest_that_ends_beside_a_restart_is_noticed() {
    let partition = name("web");
    let crash = Action::Crash { ends: Some(partition.clone()) };
    tell("a restart", &[Choice::gigabit()], &[apply(&before()), crash, Action::GuestEnds { partition }]);
}

/// Seed 18183, now and then: a new daemon had looked for machines that ended, was held up before it noted what it had seen,
/// and then noted of a partition that had just been started that it was not running.
#[test]
fn a_partition_that_is_started_while_it_is_looked_for_runs() {
    runtime().block_on(async {
        let host = Host::new(SimMachine::builder(1), &[Choice::gigabit()]);
        let story = Story::new("started during a look".to_owned(), false);
        let mut world = World::new(host, story).await;
        let other = partition("db", &nic("net0", ""));
        world.carry_out(&apply(&(before() + &other))).await.unwrap();
        let (web, db) = (name("web"), name("db"));
        let ask = |intent| Action::Ask { intent, options: Options::default(), trouble: Trouble::default() };
        world.carry_out(&ask(Intent::Stop { partition: web.clone() })).await.unwrap();
        // The first look of a daemon is for who was there before; the second one, once it listens, takes its time.
        let answer = world.hypervisor.slow_look(2);
        world.carry_out(&Action::Crash { ends: None }).await.unwrap();
        world.carry_out(&ask(Intent::Start { partition: web.clone() })).await.unwrap();
        answer.notify_one();
        // News after that is noted after it, too.
        world.carry_out(&Action::GuestEnds { partition: db }).await.unwrap();
        assert!(world.state().partitions[&web].running);
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// A domain, or whatever else runs by itself, that was seen to have ended was noted so, and its channel served no longer, although a plan had
/// started it again before that was noted.
#[test]
fn a_partition_that_is_started_while_news_of_its_end_is_noted_runs_and_is_served() {
    runtime().block_on(async {
        let host = Host::new(SimMachine::builder(1), &[Choice::gigabit()]);
        let mut world = World::new(host, Story::new("started during news".to_owned(), false)).await;
        let other = partition("db", &nic("net0", ""));
        world.carry_out(&apply(&(before() + &other))).await.unwrap();
        let (web, db) = (name("web"), name("db"));
        let ask = |intent| Action::Ask { intent, options: Options::default(), trouble: Trouble::default() };
        let looks = world.hypervisor.looks();
        let answer = world.hypervisor.slow_look(1);
        world.hypervisor.ends_by_itself(&web);
        wait_until("it is looked whether it runs", || world.hypervisor.looks() != looks).await.unwrap();
        world.carry_out(&ask(Intent::Stop { partition: web.clone() })).await.unwrap();
        world.carry_out(&ask(Intent::Start { partition: web.clone() })).await.unwrap();
        answer.notify_one();
        // News after that is noted after it, too.
        world.carry_out(&Action::GuestEnds { partition: db }).await.unwrap();
        assert!(world.state().partitions[&web].running);
        assert!(world.request(&web, &VfOp::List).await.unwrap().is_some());
        world.remove_everything().await.unwrap();
        world.end().await;
    });
}

/// libvirt dies at each question of a plan that gives a VF and a channel to a domain that runs, and of one that takes them. It has done what
/// it was asked for by then. That was taken for not done: the plan passed for undone, the domain kept the VF, and no plan could ever take
/// it, since nobody had noted that it was there. One that hangs may have done it, or do it later, or never.
#[test]
fn what_libvirt_has_done_and_not_answered_is_undone_or_noted() {
    let domain =
        |vfs: &str| partition(DOMAIN, vfs).replace("boot = { disk = \"/dev/null\" }", "libvirt = \"p2\"");
    let (one, two) = (domain(&nic("a", "")), domain(&(nic("a", "") + &nic("b", "trust = true"))));
    let (mut undone, mut left) = (0, 0);
    let deaths = [0, 1, 30].map(|is_away_for| Death { at: 0, is_away_for, hangs: None });
    // It hangs: nothing of what it is asked for is carried out, or the first, or all but the first.
    let hangs = [0, 1, 0xfe].map(|carried_out| Death { at: 0, is_away_for: 2, hangs: Some(carried_out) });
    for death in deaths.into_iter().chain(hangs) {
        for at in 1..8 {
            let death = Death { at, ..death };
            let trouble = Trouble { libvirt_dies: Some(death), ..Trouble::default() };
            let remove = Intent::Remove { partition: name(DOMAIN) };
            let removed = Action::Ask { intent: remove, options: OPEN, trouble: trouble.clone() };
            for told in [
                vec![apply_with(&one, trouble.clone())],
                // A channel that was in doubt was taken for made: the next plan made none, and all its VFs went into a domain without one.
                vec![apply_with(&one, trouble.clone()), apply(&two)],
                vec![apply(&one), apply_with(&two, trouble.clone())],
                vec![apply(&two), removed],
            ] {
                let lines = tell(&format!("{death:?}"), &[Choice::gigabit()], &told);
                undone += lines.iter().filter(|line| *line == "  Undone").count();
                left += lines.iter().filter(|line| *line == "  NotUndone").count();
            }
        }
    }
    assert!(undone > 10 && left > 10, "{undone} undone, {left} left");
}

/// A libvirt that has hung since before the plan lets nobody know whether the domain has its VF, nor take it back. What is left then is
/// left by that, and is left whether the person who asked stays to hear it or not: who had gone was taken for one whose plan was done.
#[test]
fn a_libvirt_that_hangs_already_leaves_what_nobody_can_undo() {
    let domain =
        |vfs: &str| partition(DOMAIN, vfs).replace("boot = { disk = \"/dev/null\" }", "libvirt = \"p2\"");
    let (one, two) = (domain(&nic("a", "")), domain(&(nic("a", "") + &nic("b", ""))));
    let mut left = 0;
    for person_leaves in [None, Some(6), Some(12)] {
        let trouble = Trouble { person_leaves, ..Trouble::default() };
        let told = [apply(&one), Action::Virsh(Deed::LibvirtHangs), apply_with(&two, trouble)];
        let lines = tell(&format!("the person leaves at {person_leaves:?}"), &[Choice::gigabit()], &told);
        left += lines.iter().filter(|line| *line == "  NotUndone").count();
    }
    assert!(left > 0);
}
