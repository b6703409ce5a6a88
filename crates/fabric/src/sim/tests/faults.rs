//! Injected faults, and adapters that come and go.

use ioward_model::Vlan;

use super::{
    super::{InSlot, Operation},
    *,
};

#[tokio::test]
async fn the_next_operation_fails_as_told_and_changes_nothing() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    machine.fail_next(Operation::SetVfCount, Errno::IO);
    assert_eq!(errno(fabric.set_vf_count(pf, 2).await), Errno::IO);
    assert_eq!(machine.snapshot().physical_functions[&pf].num_vfs, 0);
    fabric.set_vf_count(pf, 2).await.unwrap();
    machine.fail_next(Operation::Identify, Errno::ACCESS);
    assert_eq!(errno(fabric.identify().await), Errno::ACCESS);
}

#[tokio::test]
async fn faults_follow_the_rate_and_the_seed() {
    let failures = async |seed| {
        let machine = SimMachine::builder(seed).adapter(Adapter::gigabit()).faults(100_000).build();
        let (fabric, pf) = (machine.fabric(), machine.physical_functions()[0]);
        let mut failed = Vec::new();
        for number in 0..1_000 {
            if fabric.set_autoprobe(pf, number % 2 == 0).await.is_err() {
                failed.push(number);
            }
        }
        failed
    };
    let first = failures(1).await;
    assert!((60..140).contains(&first.len()), "{} of 1000", first.len());
    assert_eq!(failures(1).await, first);
    assert_ne!(failures(2).await, first);
}

/// openshift/sriov-network-operator#1182: a numvfs write blocked forever, and the daemon with it. Here it takes the
/// bound in model time, the rest of that adapter fails at once, other adapters work, and it may take effect in the
/// end.
#[tokio::test]
async fn a_write_that_never_returns_is_stuck_at_once_and_alone() {
    let machine = SimMachine::standard(3);
    let (fabric, pfs) = (machine.fabric(), machine.physical_functions());
    machine.stick(pfs[0]).unwrap();
    let stuck = fabric.set_vf_count(pfs[0], 3).await;
    assert!(matches!(&stuck, Err(FabricError::Stuck { after, .. }) if after.as_secs() == 30), "{stuck:?}");
    assert!(matches!(fabric.set_autoprobe(pfs[0], false).await, Err(FabricError::Stuck { .. })));
    fabric.set_vf_count(pfs[1], 3).await.unwrap();
    assert!(machine.snapshot().physical_functions[&pfs[0]].stuck);
    identified(&machine).await;
    machine.unstick(pfs[0]).unwrap();
    assert_eq!(machine.snapshot().physical_functions[&pfs[0]].num_vfs, 3);
    fabric.set_vf_count(pfs[0], 0).await.unwrap();
}

#[tokio::test]
async fn any_change_can_get_stuck() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    machine.stick(pf).unwrap();
    fabric.settings(vf(pf, 0)).await.unwrap();
    let tagged = VfSettings { vlan: Vlan::new(5), ..change() };
    assert!(matches!(fabric.configure(vf(pf, 0), &tagged).await, Err(FabricError::Stuck { .. })));
    machine.unstick(pf).unwrap();
    fabric.configure(vf(pf, 0), &tagged).await.unwrap();
}

#[tokio::test]
async fn a_removed_adapter_takes_everything_with_it() {
    let machine = SimMachine::standard(3);
    let (fabric, pfs) = (machine.fabric(), machine.physical_functions());
    fabric.set_vf_count(pfs[1], 4).await.unwrap();
    let gone = fabric.vf_address(vf(pfs[1], 0)).await.unwrap();
    assert!(machine.unplug(pfs[2]), "by any of its ports");
    assert!(!machine.unplug(pfs[1]));
    assert_eq!(machine.config_read::<4>(gone, 8), [0xff; 4]);
    assert_eq!(identified(&machine).await.physical_functions.len(), 4);
    let missing = fabric.set_vf_count(pfs[1], 0).await;
    assert!(matches!(missing, Err(FabricError::NoSuchFunction { .. })));
    assert_eq!(machine.violations(), [""; 0]);
}

/// An adapter is identified by what survives a move, not by its address alone.
#[tokio::test]
async fn an_adapter_that_returns_keeps_only_its_serial_number() {
    let machine = SimMachine::standard(3);
    let (fabric, pfs) = (machine.fabric(), machine.physical_functions());
    let before = identified(&machine).await.physical_functions.remove(0);
    fabric.set_autoprobe(pfs[0], false).await.unwrap();
    fabric.set_vf_count(pfs[0], 4).await.unwrap();

    machine.unplug(pfs[0]);
    assert_eq!(machine.replug(pfs[0]), Some(pfs[0]));
    let again = identified(&machine).await.physical_functions.remove(0);
    assert_eq!((again.num_vfs(), again.drivers_autoprobe), (0, Some(true)));
    assert_eq!(again.serial_number, before.serial_number);

    machine.unplug(pfs[0]);
    let elsewhere = machine.replug_elsewhere(pfs[0]).unwrap();
    assert_ne!(elsewhere, pfs[0]);
    let moved = identified(&machine).await;
    let moved = moved.physical_function(elsewhere).unwrap();
    assert_eq!(moved.serial_number, before.serial_number);
    assert_eq!(moved.netdevs[0].mac, before.netdevs[0].mac);
    assert_eq!(machine.replug(pfs[0]), None, "it is plugged in already");
    assert_eq!(machine.violations(), [""; 0]);
}

/// A card in a lower slot moves all cards above it, so an address may then belong to another adapter.
#[tokio::test]
async fn a_boot_with_another_card_renumbers_the_buses() {
    let machine = SimMachine::builder(3).adapter(Adapter::gigabit()).adapter(Adapter::dual_25g()).build();
    let (fabric, pfs) = (machine.fabric(), machine.physical_functions());
    let before = identified(&machine).await.physical_functions;
    fabric.set_vf_count(pfs[0], 4).await.unwrap();

    let new = Adapter::gigabit().serial_number(0x001b_21ff_ffaa_0001);
    let slots = [InSlot::New(new), InSlot::Empty, InSlot::Old(pfs[1]), InSlot::Old(pfs[0])];
    let now = machine.boot_with(slots);
    let at = |slot: usize| now[slot].unwrap();
    assert!(now[1].is_none() && at(0) == pfs[0] && at(2).bus() == at(0).bus() + 2, "{now:?}");
    let found = identified(&machine).await;
    let serial = |pf| found.physical_function(pf).unwrap().serial_number.clone();
    assert_eq!(serial(at(0)).as_deref(), Some("00-1b-21-ff-ff-aa-00-01"));
    assert_eq!(
        (serial(at(2)), serial(at(3))),
        (before[1].serial_number.clone(), before[0].serial_number.clone())
    );
    let moved = found.physical_function(at(3)).unwrap();
    assert_eq!((moved.num_vfs(), moved.netdevs[0].permanent_mac), (0, before[0].netdevs[0].permanent_mac));
    assert_eq!(machine.violations(), [""; 0]);

    assert!(machine.exchange(at(0), Adapter::nvme()));
    assert_eq!(machine.snapshot().physical_functions.len(), 4);
    assert_ne!(serial_of(&machine).await[0], serial(at(0)));

    // An adapter that is left out is removed, and can be put back.
    machine.boot_with([InSlot::Old(at(2))]);
    assert_eq!(machine.physical_functions().len(), 2);
    assert_eq!(machine.boot_with([InSlot::Old(at(3))]).len(), 1);
    assert_eq!(serial_of(&machine).await, [before[0].serial_number.clone()]);
}

#[tokio::test]
async fn an_adapter_may_lack_a_serial_number_or_share_it() {
    let machine = SimMachine::builder(3)
        .adapter(Adapter::gigabit().without_serial_number())
        .adapter(Adapter::nvme().serial_number(7))
        .adapter(Adapter::nvme().serial_number(7))
        .build();
    let seven = Some("00-00-00-00-00-00-00-07".to_owned());
    assert_eq!(serial_of(&machine).await, [None, seven.clone(), seven]);
    assert_eq!(machine.violations(), [""; 0]);
}

async fn serial_of(machine: &SimMachine) -> Vec<Option<String>> {
    identified(machine).await.physical_functions.into_iter().map(|pf| pf.serial_number).collect()
}
