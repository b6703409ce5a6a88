//! The settings that PF drivers allow, and their quirks.

use ioward_model::{BitRate, Capability, LinkState, MacAddress, Vlan};

use super::*;

fn mac(text: &str) -> Option<MacAddress> {
    text.parse().ok()
}

fn rate(megabits: u32) -> Option<BitRate> {
    Some(BitRate::from_megabits(megabits))
}

/// bnxt: a request for VFs while the interface is down makes none, and the kernel reports success
/// (systemd/systemd#40739).
#[tokio::test]
async fn an_interface_that_is_down_gives_no_vfs_if_its_driver_needs_it_up() {
    let (machine, fabric, pf) = machine(Adapter::hundred_g().down());
    assert_eq!(machine.write_numvfs(pf, 4), Ok(()));
    assert_eq!(machine.snapshot().physical_functions[&pf].num_vfs, 0);
    assert_eq!(errno(fabric.set_vf_count(pf, 4).await), Errno::NOSPC, "the fabric looks again");
    machine.set_up(pf, true).unwrap();
    fabric.set_vf_count(pf, 4).await.unwrap();
}

/// igb: the link drops when VFs appear, and rates are refused without a link. The fabric waits for the link.
#[tokio::test]
async fn the_link_drops_when_vfs_come_and_rates_wait_for_it() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    machine.write_numvfs(pf, 2).unwrap();
    let limit = VfSettings { max_tx_rate: rate(500), ..change() };
    let carrier = |inventory: Inventory| inventory.physical_functions[0].netdevs[0].carrier;
    assert_eq!(carrier(identified(&machine).await), Some(false));
    assert_eq!(errno(fabric.configure(vf(pf, 0), &limit).await), Errno::INVAL);
    machine.write_numvfs(pf, 0).unwrap();
    machine.advance(std::time::Duration::from_secs(10));

    fabric.set_vf_count(pf, 2).await.unwrap();
    assert_eq!(carrier(identified(&machine).await), Some(true));
    fabric.configure(vf(pf, 0), &limit).await.unwrap();
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap().max_tx_rate, rate(500));
}

#[tokio::test]
async fn igb_has_no_link_state_and_no_guaranteed_rate() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let forced = VfSettings { link_state: Some(LinkState::Disable), ..change() };
    assert!(matches!(fabric.configure(vf(pf, 0), &forced).await, Err(FabricError::Unsupported { .. })));
    for (min, max) in [(100, 500), (0, 1_001)] {
        let wrong = VfSettings { min_tx_rate: rate(min), max_tx_rate: rate(max), ..change() };
        assert_eq!(errno(fabric.configure(vf(pf, 0), &wrong).await), Errno::INVAL);
    }
    assert_eq!(machine.violations(), [""; 0]);
}

/// An 802.1ad VLAN set by another person was restored as an 802.1Q one.
#[tokio::test]
async fn a_service_vlan_is_restored_unchanged() {
    let vlan = |text: &str| VfSettings { vlan: text.parse().ok(), ..change() };
    let (_, fabric, pf) = machine(Adapter::dual_25g());
    fabric.set_vf_count(pf, 1).await.unwrap();
    fabric.configure(vf(pf, 0), &vlan("100,proto=802.1ad,prio=3")).await.unwrap();
    let found = fabric.settings(vf(pf, 0)).await.unwrap();
    assert_eq!(found.vlan, "100,proto=802.1ad,prio=3".parse().ok());
    let ours = vlan("100");
    fabric.configure(vf(pf, 0), &ours).await.unwrap();
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap().vlan, Vlan::new(100));
    fabric.configure(vf(pf, 0), &ours.restored_from(&found)).await.unwrap();
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap(), found);
}

/// igb_ndo_set_vf_vlan: EPROTONOSUPPORT.
#[tokio::test]
async fn igb_tags_with_802_1q_only() {
    let (_, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let vlan = |text: &str| VfSettings { vlan: text.parse().ok(), ..change() };
    let refused = fabric.configure(vf(pf, 0), &vlan("100,proto=802.1ad")).await;
    assert!(refused.as_ref().unwrap_err().to_string().contains("use 802.1Q"), "{refused:?}");
    assert_eq!(errno(refused), Errno::PROTONOSUPPORT);
    fabric.configure(vf(pf, 0), &vlan("100,prio=3")).await.unwrap();
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap().vlan, "100,prio=3".parse().ok());
}

/// All of a change or nothing: settings made before one of them failed are rolled back.
#[tokio::test]
async fn a_change_that_fails_midway_is_rolled_back() {
    let (_, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let before = fabric.settings(vf(pf, 0)).await.unwrap();
    let half = VfSettings { trust: Some(true), vlan: Vlan::new(7), max_tx_rate: rate(9_999), ..change() };
    assert_eq!(errno(fabric.configure(vf(pf, 0), &half).await), Errno::INVAL);
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap(), before);
}

/// An admin-set MAC is sticky (libvirt d6ef331f): the VF can change it only when trusted, or once the PF has
/// cleared it.
#[tokio::test]
async fn a_mac_set_by_the_pf_is_sticky() {
    let (machine, fabric, pf) = machine(Adapter::gigabit());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let address = fabric.vf_address(vf(pf, 0)).await.unwrap();
    let own = "52:54:00:00:00:77".parse().unwrap();
    machine.guest_sets_mac(address, own).unwrap();
    let set = VfSettings { mac: mac("52:54:00:aa:00:01"), ..change() };
    fabric.configure(vf(pf, 0), &set).await.unwrap();
    assert_eq!(machine.guest_sets_mac(address, own), Err(Errno::PERM));
    fabric.configure(vf(pf, 0), &VfSettings { trust: Some(true), ..change() }).await.unwrap();
    machine.guest_sets_mac(address, own).unwrap();
    fabric
        .configure(vf(pf, 0), &VfSettings { trust: Some(false), mac: Some(MacAddress::ZERO), ..change() })
        .await
        .unwrap();
    machine.guest_sets_mac(address, own).unwrap();
    let multicast = VfSettings { mac: mac("01:00:5e:00:00:01"), ..change() };
    assert_eq!(errno(fabric.configure(vf(pf, 0), &multicast).await), Errno::INVAL);
}

/// ice answers EBUSY to admin writes while a VF resets (Linux c54d209c); newer versions wait for it first.
#[tokio::test]
async fn a_vf_in_reset_is_waited_for() {
    let vlan = |id| VfSettings { vlan: Vlan::new(id), ..change() };
    let (_, patient, pf) = machine(Adapter::dual_25g());
    patient.set_vf_count(pf, 1).await.unwrap();
    patient.reset(vf(pf, 0)).await.unwrap();
    patient.configure(vf(pf, 0), &vlan(5)).await.unwrap();

    // This driver answers EBUSY; a MAC resets the VF, and so do the VLAN after it and the rollback of the MAC when
    // the VLAN fails: these used to be left half done.
    let (_, impatient, pf) = machine(Adapter::dual_25g().impatient());
    impatient.set_vf_count(pf, 1).await.unwrap();
    impatient.reset(vf(pf, 0)).await.unwrap();
    let both = VfSettings { mac: "52:54:00:00:00:01".parse().ok(), ..vlan(5) };
    impatient.configure(vf(pf, 0), &both).await.unwrap();
    let refused = VfSettings { mac: "52:54:00:00:00:02".parse().ok(), min_tx_rate: rate(30_000), ..vlan(6) };
    assert_eq!(errno(impatient.configure(vf(pf, 0), &refused).await), Errno::INVAL);
    let settings = impatient.settings(vf(pf, 0)).await.unwrap();
    assert_eq!((settings.mac, settings.vlan), (both.mac, both.vlan), "all of it is taken back");
}

#[tokio::test]
async fn guaranteed_rates_are_not_promised_twice() {
    let (_, fabric, pf) = machine(Adapter::dual_25g());
    fabric.set_vf_count(pf, 2).await.unwrap();
    let guaranteed = |megabits| VfSettings { min_tx_rate: rate(megabits), ..change() };
    fabric.configure(vf(pf, 0), &guaranteed(20_000)).await.unwrap();
    assert_eq!(errno(fabric.configure(vf(pf, 1), &guaranteed(6_000)).await), Errno::INVAL);
    fabric.configure(vf(pf, 1), &guaranteed(5_000)).await.unwrap();
}

#[tokio::test]
async fn counters_grow_while_a_driver_runs_the_vf() {
    let (machine, fabric, pf) = machine(Adapter::dual_25g());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let packets = async || fabric.statistics(vf(pf, 0)).await.unwrap().rx_packets;
    machine.advance(std::time::Duration::from_secs(1));
    let first = packets().await;
    assert!(first > 0);
    fabric.bind(vf(pf, 0), None).await.unwrap();
    let stopped = packets().await;
    machine.advance(std::time::Duration::from_secs(1));
    assert_eq!(packets().await, stopped);
}

/// A secondary controller gets resources while offline, goes online with two queues and an interrupt, and only then
/// can a driver run it.
#[tokio::test]
async fn an_nvme_vf_needs_queues_and_interrupts_before_its_driver_takes_it() {
    let (machine, fabric, pf) = machine(Adapter::nvme());
    fabric.set_vf_count(pf, 2).await.unwrap();
    assert_eq!(machine.snapshot().physical_functions[&pf].vfs[0].driver, None, "autoprobe was in vain");
    let online = VfSettings { online: Some(true), ..change() };
    assert!(words(fabric.configure(vf(pf, 0), &online).await).contains("at least 2 queues and 1 interrupt"));
    let ready = VfSettings { queues: Some(2), interrupts: Some(1), online: Some(true), ..change() };
    fabric.configure(vf(pf, 0), &ready).await.unwrap();
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap(), ready);
    fabric.bind(vf(pf, 0), Some("nvme")).await.unwrap();
    assert_eq!(errno(fabric.bind(vf(pf, 1), Some("nvme")).await), Errno::NODEV);

    let found = identified(&machine).await.physical_functions.remove(0).nvme.unwrap();
    let resources = found.resources.unwrap();
    assert_eq!((resources.queues_assigned, resources.queues_total), (2, 64));
    assert_eq!(found.secondaries.len(), 16);
}

#[tokio::test]
async fn nvme_resources_are_bounded_for_each_vf_and_in_all() {
    let (machine, fabric, pf) = machine(Adapter::nvme());
    fabric.set_vf_count(pf, 16).await.unwrap();
    let queues = |queues| VfSettings { queues: Some(queues), ..change() };
    assert!(words(fabric.configure(vf(pf, 0), &queues(9)).await).contains("more than one VF may have"));
    for index in 0..8 {
        fabric.configure(vf(pf, index), &queues(8)).await.unwrap();
    }
    assert!(fabric.configure(vf(pf, 8), &queues(1)).await.is_err(), "all 64 are assigned");
    let too_many = VfSettings { queues: Some(2), interrupts: Some(40), ..change() };
    assert!(fabric.configure(vf(pf, 0), &too_many).await.is_err());
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap().queues, Some(8), "put back");
    assert_eq!(machine.violations(), [""; 0]);
}

/// A VF that disappears takes its controller offline, which costs the controller its resources. The model let it
/// keep them; QEMU's controller does not.
#[tokio::test]
async fn nvme_controllers_go_offline_with_their_vfs() {
    let (_, fabric, pf) = machine(Adapter::nvme());
    fabric.set_vf_count(pf, 1).await.unwrap();
    let ready = VfSettings { queues: Some(2), interrupts: Some(1), online: Some(true), ..change() };
    fabric.configure(vf(pf, 0), &ready).await.unwrap();
    fabric.set_vf_count(pf, 0).await.unwrap();
    fabric.set_vf_count(pf, 1).await.unwrap();
    let fresh = VfSettings { queues: Some(0), interrupts: Some(0), online: Some(false), ..change() };
    assert_eq!(fabric.settings(vf(pf, 0)).await.unwrap(), fresh);
}

#[tokio::test]
async fn a_gpu_has_one_profile_at_a_time() {
    let (machine, fabric, pf) = machine(Adapter::gpu());
    let total = |inventory: Inventory| inventory.physical_functions[0].total_vfs();
    assert_eq!(total(identified(&machine).await), 16);
    machine.set_profile(pf, "quarter").unwrap();
    assert_eq!(total(identified(&machine).await), 4);
    assert_eq!(errno(fabric.set_vf_count(pf, 5).await), Errno::RANGE);
    fabric.set_vf_count(pf, 4).await.unwrap();
    assert_eq!(machine.set_profile(pf, "half"), Err(Errno::BUSY));
    assert_eq!(machine.set_profile(pf, "whole"), Err(Errno::INVAL));
    assert!(matches!(fabric.settings(vf(pf, 0)).await, Err(FabricError::Unsupported { .. })));
}

/// The planner relies on the inventory: a setting listed as possible is accepted, and any other is refused.
#[tokio::test]
async fn a_nic_accepts_exactly_the_settings_in_the_inventory() {
    for adapter in [Adapter::gigabit(), Adapter::dual_25g(), Adapter::hundred_g()] {
        let (machine, fabric, pf) = machine(adapter);
        fabric.set_vf_count(pf, 1).await.unwrap();
        let inventory = identified(&machine).await;
        let can = inventory.physical_function(pf).unwrap().capabilities.clone().unwrap();
        for (capability, setting) in [
            (Capability::Trust, VfSettings { trust: Some(true), ..change() }),
            (Capability::Spoofchk, VfSettings { spoofchk: Some(false), ..change() }),
            (Capability::Vlan, VfSettings { vlan: Vlan::new(5), ..change() }),
            (Capability::Vlan8021ad, VfSettings { vlan: "6,proto=802.1ad".parse().ok(), ..change() }),
            (Capability::RateLimit, VfSettings { max_tx_rate: rate(500), ..change() }),
            (Capability::GuaranteedRate, VfSettings { min_tx_rate: rate(100), ..change() }),
            (Capability::LinkState, VfSettings { link_state: Some(LinkState::Enable), ..change() }),
        ] {
            let outcome = fabric.configure(vf(pf, 0), &setting).await;
            assert_eq!(outcome.is_ok(), can.contains(&capability), "{pf} {capability:?}: {outcome:?}");
        }
        assert!(!can.contains(&Capability::Rdma), "it has no RDMA device");
    }
    let (machine, _, pf) = machine(Adapter::nvme());
    assert_eq!(identified(&machine).await.physical_function(pf).unwrap().capabilities, Some([].into()));
}
