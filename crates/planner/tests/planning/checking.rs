//! The table of checks (`ioward_model::checks`), and that host, doctor, suitability (`ioward compatible`) and planner never
//! disagree, whatever is wrong with a host.

use ioward_fabric::linux::doctor::{Check, Facts, Verdict, examine};
use ioward_model::{Class, PhysicalFunction, Subclass, checks};
use proptest::{prelude::*, sample::select};

use crate::world::*;

/// Something that can be wrong with an adapter.
type Fault = fn(&mut PhysicalFunction);

/// Everything that keeps an adapter from giving VFs to partitions, by a word of what is said of it.
const FAULTS: [(&str, Fault); 16] = [
    ("could not be read", |pf| pf.sriov = None),
    ("shows no sriov_numvfs", |pf| pf.conditions.no_numvfs = true),
    ("allows 0 VFs", |pf| {
        let sriov = pf.sriov.as_mut().unwrap();
        (sriov.total_vfs, sriov.num_vfs) = (0, 0);
        pf.virtual_functions.clear();
    }),
    ("no driver is bound", |pf| pf.driver = None),
    ("vfio-pci makes no VFs", |pf| pf.driver = Some("vfio-pci".into())),
    ("pci-stub makes no VFs", |pf| pf.driver = Some("pci-stub".into())),
    ("passed on through the driver nvidia", |pf| pf.driver = Some("nvidia".into())),
    ("no address space for VF BAR 0 and 3", |pf| pf.conditions.bars_without_room = vec![0, 3]),
    ("InitialVFs is not TotalVFs", |pf| pf.conditions.initial_vfs_differ = true),
    ("leads to buses up to 01", |pf| {
        pf.conditions.last_bus = Some(pf.address.bus());
        pf.sriov.as_mut().unwrap().first_vf_offset = 256;
    }),
    ("which is no PF", |pf| pf.sriov.as_mut().unwrap().function_dependency_link = Some(5)),
    ("power state is D3hot", |pf| pf.conditions.power_state = Some("D3hot".into())),
    ("while eth0 is down", |pf| {
        pf.driver = Some("bnxt_en".into());
        pf.netdevs.iter_mut().for_each(|netdev| netdev.up = false);
    }),
    ("it is in none", |pf| pf.iommu_group = None),
    ("its slot shares one with 0000:00:1f.2", |pf| pf.iommu_group_shared_with = vec![at("0000:00:1f.2")]),
    ("port 0000:00:01.0 is in group 1", |pf| pf.conditions.port_in_group = Some(at("0000:00:01.0"))),
];

fn with(fault: Fault) -> World {
    host().nic(NIC, 7).but(fault)
}

#[test]
fn each_fault_is_found_and_refused_with_what_to_do() {
    for (word, fault) in FAULTS {
        let world = with(fault);
        let told = world.refuses(&only("web", &["net0 network"]), ANYTHING);
        assert!(told.contains(word), "wanted {word}; was told {told}");
        let obstacles = checks::adapter(&world.inventory, world.pf(at(NIC)));
        let first = &obstacles[0].reason;
        assert_eq!(first.function, Some(at(NIC)), "{word}");
        assert!(first.found.contains(word), "wanted {word}; was told {}", first.found);
        assert!(!first.remedy.is_empty() || word == "could not be read", "{word}");
    }
}

/// A number of VFs for nobody is as impossible where VFs can't be made.
#[test]
fn a_number_of_vfs_that_cannot_be_made_is_refused() {
    for (word, fault) in FAULTS {
        let world = with(fault);
        let obstacles = checks::adapter(&world.inventory, world.pf(at(NIC)));
        let making = obstacles.iter().any(|obstacle| obstacle.blocks.making());
        let planned = world.plan(&spec(&[adapter(NIC, "\"max\"")]), ANYTHING);
        let makes = planned.is_ok_and(|plan| lines(&plan).iter().any(|line| line.contains("set the number")));
        assert_eq!(makes, !making, "{word}");
    }
}

#[test]
fn an_adapter_that_can_is_taken_instead_of_the_one_with_the_lower_address() {
    for (word, fault) in FAULTS {
        let mut world = with(fault).nic(NIC2, 7);
        world.does(&only("web", &["net0 network"]), SAFE);
        assert_eq!(world.vf_of("web/net0"), "0000:02:00.0/0", "{word}");
    }
}

/// VFs that are there can be given away although no more can be made.
#[test]
fn what_keeps_vfs_from_being_made_is_no_matter_where_they_are_there() {
    let mut world = host().nic(NIC, 7).giving(2).but(|pf| pf.conditions.power_state = Some("D3hot".into()));
    world.does(&only("web", &["a network", "b network"]), SAFE);
    let told = world.refuses(&attach("web", "c network"), DISRUPT);
    assert!(told.contains("power state is D3hot"), "{told}");
}

#[test]
fn without_vfio_pci_nothing_is_given_away() {
    let mut world = host().nic(NIC, 7);
    world.inventory.vfio_pci = Some(false);
    let told = world.refuses(&only("web", &["net0 network"]), ANYTHING);
    assert!(told.starts_with("[VfioPci] web/net0: ") && told.contains("modprobe vfio-pci"), "{told}");
}

#[test]
fn a_vf_that_cannot_be_reset_is_left_alone() {
    let mut world = host().nic(NIC, 7).giving(2).but(|pf| pf.virtual_functions[0].flr = Some(false));
    let told = world.refuses(&only("web", &[&format!("net0 network pf=\"{NIC}\" index=0")]), SAFE);
    assert!(told.starts_with("[Capability] web/net0: 0000:01:10.0: ") && told.contains("FLR"), "{told}");
    world.does(&only("web", &["net0 network"]), SAFE);
    assert_eq!(world.vf_of("web/net0"), "0000:01:00.0/1");
}

/// The bus numbers below the port suffice for some of the VFs: offset 254, two of them on the adapter's own bus.
#[test]
fn no_more_vfs_are_promised_than_have_bus_numbers() {
    let few = |last| {
        host().nic(NIC, 7).but(|pf| {
            pf.conditions.last_bus = Some(last);
            let sriov = pf.sriov.as_mut().unwrap();
            (sriov.first_vf_offset, sriov.vf_stride) = (254, 1);
        })
    };
    assert_eq!([few(1), few(2)].map(|world| checks::most_vfs(world.pf(at(NIC)))), [2, 7]);
    let told = few(1).refuses(&only("web", &["a network", "b network", "c network"]), SAFE);
    assert!(told.contains("all 2 VFs are held"), "{told}");
    let told = few(1).refuses(&spec(&[adapter(NIC, "3")]), SAFE);
    assert!(told.contains("at most 2 VFs") && told.contains("bus numbers"), "{told}");
    few(1).does(&spec(&[adapter(NIC, "\"max\"")]), SAFE);
    few(2).does(&spec(&[adapter(NIC, "7")]), SAFE);
}

/// Drivers of QAT make all VFs, whatever they are asked for.
#[test]
fn a_driver_that_makes_all_or_none_is_asked_for_all() {
    let qat = || {
        host().adapter(SSD, 16, Class::Other, Vec::new(), None).but(|pf| {
            pf.driver = Some("c6xx".into());
            pf.subclass = Some(Subclass::Coprocessor);
        })
    };
    for class in ["accelerator", "other"] {
        let steps = qat().does(&only("web", &[&format!("acc0 {class}")]), SAFE);
        assert!(steps.contains(&"set the number of VFs of 0000:03:00.0 from 0 to 16".into()), "{steps:?}");
    }
    let told = qat().refuses(&spec(&[adapter(SSD, "4")]), SAFE);
    assert!(told.starts_with("[VfCapacity] 0000:03:00.0: ") && told.contains("all 16 VFs or none"), "{told}");
    for all in ["16", "\"max\""] {
        qat().does(&spec(&[adapter(SSD, all), partition("web", &["acc0 accelerator"])]), SAFE);
    }
    qat().does(&only("web", &["acc0 accelerator subclass=\"coprocessor\""]), SAFE);
}

/// TotalVFs, VFs that are there, and what is wrong.
fn any_adapter() -> impl Strategy<Value = (u16, u16, Vec<usize>)> {
    let faults = prop::collection::vec(0..FAULTS.len(), 0..=2);
    (1..=5_u16, 0..=3_u16, prop_oneof![Just(Vec::new()), faults])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Whoever gets a VF gets it of an adapter that the table has nothing against, and where the table refuses all adapters
    /// nobody gets one. What is said to be available is what can be had.
    #[test]
    fn host_doctor_compatible_and_planner_agree(
        adapters in prop::array::uniform3(any_adapter()),
        vfio in select(vec![None, Some(true), Some(false)]),
        iommu in prop::bool::weighted(0.9),
        pinned in prop::option::weighted(0.3, 0..3_usize),
    ) {
        const PFS: [&str; 3] = [NIC, NIC2, SSD];
        let mut world = host();
        for (address, (total, giving, faults)) in PFS.iter().zip(&adapters) {
            world = world.nic(address, *total).giving((*giving).min(*total));
            for fault in faults {
                // Of a function that could not be read nothing else is known.
                world = world.but(|pf| if pf.sriov.is_some() { FAULTS[*fault].1(pf) });
            }
        }
        (world.inventory.vfio_pci, world.inventory.iommu) = (vfio, iommu);
        checks::note_available(&mut world.inventory);
        let vf = pinned.map_or("n network".to_owned(), |pf| format!("n network pf=\"{}\"", PFS[pf]));
        let host_is_able = checks::host(&world.inventory).is_empty();
        let can = |pf: &PhysicalFunction| {
            let obstacles = checks::adapter(&world.inventory, pf);
            let making = obstacles.iter().any(|obstacle| obstacle.blocks.making());
            let giving = obstacles.iter().any(|obstacle| obstacle.blocks.giving());
            host_is_able && !giving && (!making || pf.num_vfs() > 0)
        };
        let asked: Vec<_> =
            world.inventory.physical_functions.iter().filter(|pf| {
                pinned.is_none_or(|n| pf.address == at(PFS[n]))
            }).collect();
        let wanted = asked.iter().any(|pf| can(pf));
        for pf in &world.inventory.physical_functions {
            prop_assert_eq!(pf.vfs_available > 0 && host_is_able, can(pf), "{}: {:?}", pf.address, checks::adapter(&world.inventory, pf));
        }
        // The doctor's findings on an adapter, apart from those on the host.
        let facts = Facts { inventory: world.inventory.clone(), ..Facts::default() };
        for finding in examine(&facts).iter().filter(|finding| finding.check == Check::Adapter) {
            let pf = world.pf(finding.function.unwrap());
            let obstacles = checks::adapter(&world.inventory, pf);
            let gives = pf.vfs_available > 0;
            prop_assert!(finding.verdict != Verdict::Missing || !gives, "✗ of {}", pf.address);
            prop_assert_eq!(finding.verdict == Verdict::Well, obstacles.is_empty(), "{}", finding.found);
        }
        let new = partition_of("web", &[&vf]);
        let candidates = ioward_planner::suitability(&world.inventory, &world.state, &[], &new, &new.vfs[0]);
        for candidate in candidates.iter().filter(|candidate| candidate.reasons.is_empty()) {
            prop_assert!(can(world.pf(candidate.vf.pf)), "{} suits", candidate.vf);
        }
        let suits = candidates.iter().any(|candidate| candidate.reasons.is_empty());
        prop_assert_eq!(suits, wanted);
        match world.plan(&only("web", &[&vf]), SAFE) {
            Ok(plan) => {
                prop_assert!(wanted);
                world.carry_out(&plan);
                let held = world.state.assignments().next().unwrap().1.vf;
                prop_assert!(checks::adapter(&world.inventory, world.pf(held.pf)).iter().all(|it| !it.blocks.giving()));
            }
            Err(reasons) => prop_assert!(!wanted, "{}", told(&reasons)),
        }
    }
}
