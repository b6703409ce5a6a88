//! Laws that hold for every host and every wish. Each plan is also linted (see `World::plan`): every step is one that
//! the host would carry out where it stands, and undoing leads back from every point.

use ioward_model::{Intent, KindName, Options};
use proptest::{
    prelude::*,
    sample::{select, subsequence},
};

use crate::world::*;

const CASES: u32 = 200;

const PFS: [&str; 3] = [NIC, NIC2, SSD];

/// An adapter as found: how many VFs it could give and gives, and what is odd about it.
#[derive(Clone, Debug)]
struct Found {
    total: u16,
    giving: u16,
    autoprobe: bool,
    used_by_host: bool,
    vf_taken: Option<(usize, bool)>,
    speed: Option<u32>,
}

fn found() -> impl Strategy<Value = Found> {
    let odd =
        (any::<bool>(), prop::bool::weighted(0.15), prop::option::weighted(0.2, (0..3_usize, any::<bool>())));
    let speed = prop::option::weighted(0.9, select(vec![1000, 10_000]));
    (1..=5_u16, 0..=5_u16, odd, speed).prop_map(
        |(total, giving, (autoprobe, used_by_host, vf_taken), speed)| Found {
            total,
            giving: giving.min(total) * u16::from(giving < 4),
            autoprobe,
            used_by_host,
            vf_taken,
            speed,
        },
    )
}

/// A host with two NICs and an NVMe controller. With `strangers`, some of it is used by the host and by others.
fn any_host(strangers: bool) -> impl Strategy<Value = World> {
    prop::array::uniform3(found()).prop_map(move |adapters| {
        let mut world = host();
        for (address, found) in PFS.iter().zip(adapters) {
            world = if *address == SSD {
                world.nvme(address, found.total)
            } else {
                world.nic(address, found.total)
            };
            world = world.but(|pf| {
                pf.drivers_autoprobe = Some(found.autoprobe);
                pf.netdevs.iter_mut().for_each(|netdev| netdev.speed_mbps = found.speed);
            });
            world = world.giving(found.giving);
            if strangers && found.used_by_host {
                world = world.used_by_host();
            }
            if let Some((index, lent)) =
                found.vf_taken.filter(|(index, _)| strangers && *index < usize::from(found.giving))
            {
                world = if lent {
                    world.with_vf_lent_by_somebody(index)
                } else {
                    world.with_vf_used_by_host(index)
                };
            }
        }
        world
    })
}

fn any_vf(name: &'static str) -> impl Strategy<Value = String> {
    let network = (
        select(vec![
            "",
            "",
            "vlan=5",
            "vlan=6",
            "trust=true",
            "mac=\"52:54:00:aa:00:01\"",
            "guest_may=[\"mac\"]",
        ]),
        select(vec!["", "", "", "min_link_speed=\"10Gbit\""]),
        select(vec![
            String::new(),
            String::new(),
            format!("pf=\"{NIC}\""),
            format!("pf=\"{NIC2}\" index=1"),
            format!("pf=\"{NIC}\" index=3"),
        ]),
    );
    let network =
        network.prop_map(move |(setting, speed, pin)| format!("{name} network {setting} {speed} {pin}"));
    let nvme = select(vec!["", "", "queues=3", "index=0"]).prop_map(move |rest| match rest {
        "index=0" => format!("{name} nvme pf=\"{SSD}\" index=0"),
        rest => format!("{name} nvme {rest}"),
    });
    prop_oneof![3 => network, 1 => nvme]
}

fn any_partition(name: &'static str) -> impl Strategy<Value = String> {
    let kind = select(vec!["boot", "boot", "libvirt", "netns"]);
    (any_machine(name), kind).prop_map(|(partition, kind)| match kind {
        "boot" => partition,
        // A namespace has network interfaces only: more is refused, and shows nothing.
        "netns" => of_kind(kind, &without_nvme(&partition)),
        _ => of_kind(kind, &partition),
    })
}

fn any_kind() -> impl Strategy<Value = &'static str> {
    select(vec!["boot", "libvirt", "netns"])
}

fn without_nvme(partition: &str) -> String {
    let (head, vfs) = partition.split_once("vf = [").unwrap();
    let vfs = vfs.trim_end().trim_end_matches(']').split_inclusive('}');
    let kept: Vec<_> = vfs
        .map(|vf| vf.trim_start_matches(", "))
        .filter(|vf| !vf.is_empty() && !vf.contains("nvme"))
        .collect();
    format!("{head}vf = [{}]\n", kept.join(", "))
}

fn any_machine(name: &'static str) -> impl Strategy<Value = String> {
    let vfs = (any_vf("a"), any_vf("b"), any_vf("c")).prop_map(|(a, b, c)| vec![a, b, c]);
    let vfs = vfs.prop_flat_map(|vfs| subsequence(vfs, 0..=3));
    vfs.prop_map(move |mut vfs| {
        // A Spec with the same MAC twice is no Spec.
        let mut seen = false;
        vfs.retain(|vf| !(vf.contains("mac=\"") && std::mem::replace(&mut seen, true)));
        partition(name, &vfs.iter().map(String::as_str).collect::<Vec<_>>())
    })
}

fn any_spec() -> impl Strategy<Value = Intent> {
    let adapter = |pf| select(vec!["", "0", "1", "2", "4", "\"max\""]).prop_map(move |vfs| adapter(pf, vfs));
    let adapters = (adapter(NIC), adapter(NIC2), adapter(SSD)).prop_map(|(a, b, c)| vec![a, b, c]);
    let adapters = adapters.prop_flat_map(|adapters| subsequence(adapters, 0..=2));
    let partitions = (any_partition("x"), any_partition("y")).prop_map(|(x, y)| vec![x, y]);
    let partitions = partitions.prop_flat_map(|partitions| subsequence(partitions, 0..=2));
    (adapters, partitions).prop_filter_map("a MAC for two", |(mut parts, partitions)| {
        parts.extend(partitions);
        (parts.concat().matches("aa:00:01").count() < 2).then(|| spec(&parts))
    })
}

fn any_intent() -> impl Strategy<Value = Intent> {
    let name = || select(vec!["x", "y"]);
    let vf = || select(vec!["a", "b", "c"]);
    prop_oneof![
        5 => any_spec(),
        1 => name().prop_map(start),
        1 => name().prop_map(stop),
        1 => name().prop_map(remove),
        2 => (name(), any_vf("b")).prop_map(|(name, vf)| attach(name, &vf)),
        2 => (name(), vf()).prop_map(|(name, vf)| detach(name, vf)),
        1 => (select(PFS.to_vec()), any::<bool>()).prop_map(|(pf, leave_out)| Intent::Evacuate { pf: at(pf), leave_out }),
        1 => select(PFS.to_vec()).prop_map(bring_back),
    ]
}

fn any_options() -> impl Strategy<Value = Options> {
    select(vec![SAFE, DISRUPT, MANAGEMENT, ANYTHING])
}

fn any_life() -> impl Strategy<Value = Vec<(Intent, Options)>> {
    prop::collection::vec((any_intent(), any_options()), 1..6)
}

/// Carries out what is planned and skips what is refused.
fn live(world: &mut World, life: &[(Intent, Options)]) {
    for (intent, options) in life {
        if let Ok(plan) = world.plan(intent, *options) {
            world.carry_out(&plan);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(CASES) })]

    #[test]
    fn every_plan_is_safe_and_can_be_undone(mut world in any_host(true), life in any_life()) {
        live(&mut world, &life);
    }

    #[test]
    fn what_is_applied_needs_no_second_time(mut world in any_host(true), life in any_life(), wish in any_spec()) {
        live(&mut world, &life);
        if let Ok(plan) = world.plan(&wish, ANYTHING) {
            world.carry_out(&plan);
            let again = world.plan(&wish, SAFE).map(|plan| lines(&plan));
            prop_assert_eq!(again.map_err(|reasons| told(&reasons)), Ok(Vec::new()));
        }
    }

    #[test]
    fn when_all_is_given_back_the_host_is_as_it_was(mut world in any_host(false), life in any_life()) {
        let before = world.inventory.clone();
        live(&mut world, &life);
        for name in world.state.partitions.keys().cloned().collect::<Vec<_>>() {
            world.does(&remove(name.as_str()), ANYTHING);
        }
        for pf in PFS {
            world.does(&bring_back(pf), ANYTHING);
            world.does(&as_needed(at(pf)), ANYTHING);
        }
        prop_assert!(world.state.adapters.is_empty());
        for (pf, before) in world.inventory.physical_functions.iter().zip(&before.physical_functions) {
            prop_assert_eq!(pf, before);
        }
    }

    #[test]
    fn after_a_reboot_the_same_spec_brings_everything_back(mut world in any_host(false), wish in any_spec()) {
        if let Ok(plan) = world.plan(&wish, ANYTHING) {
            world.carry_out(&plan);
            world.reboot();
            world.does(&wish, ANYTHING);
            let again = world.plan(&wish, SAFE).map(|plan| lines(&plan));
            prop_assert_eq!(again.map_err(|reasons| told(&reasons)), Ok(Vec::new()));
            for (name, noted) in world.state.partitions.clone() {
                if noted.spec.kind.name() != KindName::Namespace {
                    world.does(&start(name.as_str()), SAFE);
                }
            }
        }
    }

    /// A life that goes on after a reboot makes no nonsense either.
    #[test]
    fn a_reboot_in_between_breaks_nothing(mut world in any_host(true), early in any_life(), late in any_life()) {
        live(&mut world, &early);
        world.reboot();
        live(&mut world, &late);
    }

    /// Placement finds nothing exactly where suitability finds nothing.
    #[test]
    fn plan_and_suitability_agree(mut world in any_host(true), life in any_life(), vf in any_vf("n"), kind in any_kind()) {
        live(&mut world, &life);
        let wish = match kind {
            "boot" => only("new", &[&vf]),
            kind => spec(&[of_kind(kind, &partition("new", &[&vf]))]),
        };
        let Intent::Apply { spec } = &wish else { unreachable!() };
        let new = spec.partitions[0].clone();
        let candidates = ioward_planner::suitability(&world.inventory, &world.state, &[], &new, &new.vfs[0]);
        let best = candidates.first().filter(|candidate| candidate.reasons.is_empty());
        match world.plan(&wish, SAFE) {
            Ok(plan) => {
                world.carry_out(&plan);
                let best = best.map(|candidate| format!("{}/{}", candidate.vf.pf, candidate.vf.index));
                prop_assert_eq!(best, Some(world.vf_of("new/n")));
            }
            Err(reasons) => prop_assert!(best.is_none(), "{}", told(&reasons)),
        }
    }
}
