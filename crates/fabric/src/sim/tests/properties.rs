//! The invariants of the machine, whatever is done to it, for many seeds.

use std::time::Duration;

use ioward_model::{BitRate, LinkState, MacAddress, Vlan, VlanProtocol};
use proptest::prelude::*;

use super::{super::Operation, *};

/// An action on the machine.
#[derive(Clone, Debug)]
enum Deed {
    VfCount(usize, u16),
    Autoprobe(usize, bool),
    Bind(usize, u16, usize),
    Reset(usize, u16),
    Configure(usize, u16, VfSettings),
    Hold(usize, u16),
    Release(usize, u16),
    Fail(Operation),
    Stick(usize),
    Unstick(usize),
    Unplug(usize),
    Replug(usize, bool),
    Advance(u64),
}

fn tagged((id, priority): (u16, u8)) -> Vlan {
    Vlan::new(id).and_then(|vlan| vlan.tagged(VlanProtocol::Dot1Q, priority)).unwrap()
}

fn settings() -> impl Strategy<Value = VfSettings> {
    let rate = || prop::option::weighted(0.2, (0..30_000_u32).prop_map(BitRate::from_megabits));
    let nic = (
        prop::option::weighted(0.3, any::<[u8; 6]>().prop_map(MacAddress::new)),
        prop::option::weighted(0.3, (0..4095_u16, 0..8_u8).prop_map(tagged)),
        prop::option::weighted(0.2, any::<bool>()),
        rate(),
        rate(),
        prop::option::weighted(0.2, Just(LinkState::Enable)),
    );
    let nic = nic.prop_map(|(mac, vlan, trust, min_tx_rate, max_tx_rate, link_state)| VfSettings {
        mac,
        vlan,
        trust,
        min_tx_rate,
        max_tx_rate,
        link_state,
        ..change()
    });
    let nvme = (prop::option::of(0..10_u16), prop::option::of(0..10_u16), prop::option::of(any::<bool>()));
    let nvme =
        nvme.prop_map(|(queues, interrupts, online)| VfSettings { queues, interrupts, online, ..change() });
    prop_oneof![nic, nvme]
}

fn deed() -> impl Strategy<Value = Deed> {
    let (pf, vf) = (|| 0..6_usize, || 0..8_u16);
    let operation = prop::sample::select(vec![Operation::SetVfCount, Operation::Bind, Operation::Configure]);
    prop_oneof![
        6 => (pf(), prop_oneof![Just(0), 1..8_u16, 0..130_u16]).prop_map(|(pf, count)| Deed::VfCount(pf, count)),
        1 => (pf(), any::<bool>()).prop_map(|(pf, on)| Deed::Autoprobe(pf, on)),
        4 => (pf(), vf(), 0..4_usize).prop_map(|(pf, vf, driver)| Deed::Bind(pf, vf, driver)),
        1 => (pf(), vf()).prop_map(|(pf, vf)| Deed::Reset(pf, vf)),
        4 => (pf(), vf(), settings()).prop_map(|(pf, vf, settings)| Deed::Configure(pf, vf, settings)),
        2 => (pf(), vf()).prop_map(|(pf, vf)| Deed::Hold(pf, vf)),
        2 => (pf(), vf()).prop_map(|(pf, vf)| Deed::Release(pf, vf)),
        1 => operation.prop_map(Deed::Fail),
        1 => pf().prop_map(Deed::Stick),
        2 => pf().prop_map(Deed::Unstick),
        1 => pf().prop_map(Deed::Unplug),
        2 => (pf(), any::<bool>()).prop_map(|(pf, elsewhere)| Deed::Replug(pf, elsewhere)),
        1 => (0..3_000_u64).prop_map(Deed::Advance),
    ]
}

/// Carries it out, and returns its outcome in words.
async fn act(machine: &SimMachine, pfs: &mut [Bdf], deed: Deed) -> String {
    const DRIVERS: [Option<&str>; 4] = [None, Some("vfio-pci"), Some("igbvf"), Some("iavf")];
    let fabric = machine.fabric();
    let address = async |pf: Bdf, index| fabric.vf_address(vf(pf, index)).await.map_err(|_| Errno::NODEV);
    match deed {
        Deed::VfCount(pf, count) => format!("{:?}", fabric.set_vf_count(pfs[pf], count).await),
        Deed::Autoprobe(pf, on) => format!("{:?}", fabric.set_autoprobe(pfs[pf], on).await),
        Deed::Bind(pf, index, driver) => {
            format!("{:?}", fabric.bind(vf(pfs[pf], index), DRIVERS[driver]).await)
        }
        Deed::Reset(pf, index) => format!("{:?}", fabric.reset(vf(pfs[pf], index)).await),
        Deed::Configure(pf, index, change) => {
            let before = fabric.settings(vf(pfs[pf], index)).await.ok();
            let result = fabric.configure(vf(pfs[pf], index), &change).await;
            if let (Some(before), Ok(after)) = (before, fabric.settings(vf(pfs[pf], index)).await) {
                let expected = if result.is_ok() { change.or(&before) } else { before };
                assert_eq!(after, expected, "all of a change or nothing");
            }
            format!("{result:?}")
        }
        Deed::Hold(pf, index) => {
            format!("{:?}", address(pfs[pf], index).await.and_then(|at| machine.hold(at)))
        }
        Deed::Release(pf, index) => {
            format!("{:?}", address(pfs[pf], index).await.and_then(|at| machine.release(at)))
        }
        Deed::Fail(operation) => {
            machine.fail_next(operation, Errno::IO);
            String::new()
        }
        Deed::Stick(pf) => format!("{:?}", machine.stick(pfs[pf])),
        Deed::Unstick(pf) => format!("{:?}", machine.unstick(pfs[pf])),
        Deed::Unplug(pf) => machine.unplug(pfs[pf]).to_string(),
        Deed::Replug(pf, elsewhere) => {
            let old = pfs[pf];
            let now = if elsewhere { machine.replug_elsewhere(old) } else { machine.replug(old) };
            if let Some(now) = now {
                for known in pfs.iter_mut().filter(|known| known.bus() == old.bus()) {
                    *known = Bdf::new(now.domain(), now.bus(), now.device(), known.function()).unwrap();
                }
            }
            format!("{now:?}")
        }
        Deed::Advance(milliseconds) => {
            machine.advance(Duration::from_millis(milliseconds));
            String::new()
        }
    }
}

/// The outcomes of some actions, with their times.
async fn story(seed: u64, deeds: Vec<Deed>) -> Vec<String> {
    let machine = SimMachine::standard_builder(seed).faults(20_000).build();
    let mut pfs = machine.physical_functions();
    let mut told = Vec::new();
    for deed in deeds {
        let what = act(&machine, &mut pfs, deed).await;
        assert_eq!(machine.violations(), [""; 0]);
        let inventory = identified(&machine).await;
        told.push(format!("{:?} {what} {}", machine.now(), inventory.physical_functions.len()));
    }
    told.push(format!("{:?}", machine.snapshot()));
    told
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is requested through its kernel, kernel and hardware agree, and identify finds what exists.
    #[test]
    fn no_request_breaks_the_machine_and_a_seed_repeats_its_story(
        seed in any::<u64>(),
        deeds in prop::collection::vec(deed(), 1..40),
    ) {
        let first = runtime().block_on(story(seed, deeds.clone()));
        let again = runtime().block_on(story(seed, deeds));
        prop_assert_eq!(first, again);
    }

    /// Random writes to any register of PFs and VFs: NumVFs stays locked while VF Enable is set, and no two
    /// functions have the same routing ID.
    #[test]
    fn no_write_to_a_register_breaks_the_hardware(
        ari in any::<bool>(),
        writes in prop::collection::vec((0..8_usize, 0..160_u16, any::<u32>(), any::<bool>(), 0..1_200_u64), 1..150),
    ) {
        let machine = SimMachine::standard_builder(1);
        let machine = if ari { machine } else { machine.without_ari() }.build();
        let pfs = machine.physical_functions();
        for (target, register, value, small, milliseconds) in writes {
            // Mostly the SR-IOV capability; its first VF takes the rest.
            let pf = pfs[target % pfs.len()];
            let offset = if register < 120 { 0x180 + register % 0x40 } else { (register - 120) * 16 };
            let read = |offset| u16::from_le_bytes(machine.config_read::<2>(pf, offset));
            let (enabled, num_vfs) = (read(0x188) & 1 != 0, read(0x190));
            let value = if small { value & 0x1f } else { value };
            let function = match target {
                0..6 => pf,
                _ => pf.virtual_function(read(0x194), read(0x196), 0).unwrap(),
            };
            machine.config_write(function, offset, value.to_le_bytes());
            machine.config_write(function, offset & !1, value.to_le_bytes()[..2].try_into().map(|two: [u8; 2]| two).unwrap());
            let still_enabled = read(0x188) & 1 != 0;
            if enabled && still_enabled {
                prop_assert_eq!(read(0x190), num_vfs, "NumVFs is locked");
            }
            prop_assert_eq!(machine.hardware_violations(), [""; 0]);
            machine.advance(Duration::from_millis(milliseconds));
        }
    }
}
