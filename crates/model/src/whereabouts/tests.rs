//! Adapters that return at other addresses, swap places, are missing, or can't be told apart.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{AdapterOriginal, AdapterState, Assignment, HexId, OutOfService, Owner, VfId, Why};

fn at(slot: u8) -> Bdf {
    Bdf::new(0, slot + 1, 0, 0).unwrap()
}

/// A NIC with this serial number and this MAC, if any.
fn nic(address: Bdf, serial: Option<u8>, mac: Option<u8>) -> PhysicalFunction {
    let mac = mac.map(|mac| format!("52:54:00:00:00:{mac:02x}"));
    let netdev = json!({"name": "eth0", "ifindex": 1, "mac": mac, "permanent_mac": mac, "up": true});
    serde_json::from_value(json!({
        "address": address, "vendor_id": "8086", "device_id": "10c9", "name": "a NIC", "class": "network",
        "serial_number": serial.map(|serial| format!("00-1b-21-ff-ff-00-00-{serial:02x}")),
        "netdevs": mac.iter().map(|_| netdev.clone()).collect::<Vec<_>>(), "in_use_by_host": [], "vfs_assigned": 0,
        "vfs_available": 7, "virtual_functions": [],
        "sriov": {"total_vfs": 7, "initial_vfs": 7, "num_vfs": 0, "vf_enable": false, "first_vf_offset": 128,
            "vf_stride": 2, "vf_device_id": "10ca", "supported_page_sizes": [4096], "system_page_size": 4096,
            "ari": true, "function_dependency_link": null, "vf_bars": []},
    }))
    .unwrap()
}

fn host(pfs: impl IntoIterator<Item = PhysicalFunction>) -> Inventory {
    Inventory { physical_functions: pfs.into_iter().collect(), ..Inventory::default() }
}

/// A state that records these adapters as they are on this host, each with one VF for a partition of its own.
fn state(inventory: &Inventory, held: impl IntoIterator<Item = Bdf>) -> State {
    let mut state = State::default();
    for pf in held {
        let identity = Identity::of(inventory.physical_function(pf).unwrap(), inventory);
        let original = AdapterOriginal { num_vfs: 0, autoprobe: true };
        state.adapters.insert(pf, AdapterState { original, wanted: None, identity });
        let name = format!("p{}", pf.bus());
        let partition = json!({"spec": {"name": name, "boot": {"disk": "/disk"}, "vf": [
            {"name": "net0", "class": "network", "pf": pf}
        ]}, "running": false, "channel": true, "vfs": {}});
        let mut partition: crate::PartitionState = serde_json::from_value(partition).unwrap();
        let held = Assignment { address: Some(at(200)), ..Assignment::new(VfId { pf, index: 1 }) };
        partition.vfs.insert("net0".parse().unwrap(), held);
        state.partitions.insert(name.parse().unwrap(), partition);
    }
    state
}

/// An adapter's address is its location, and its ID is its identity.
#[test]
fn an_adapter_keeps_its_id_at_every_address() {
    let ids = |pfs: Vec<PhysicalFunction>| -> Vec<Option<String>> {
        let mut host = host(pfs);
        host.name_adapters();
        host.physical_functions.iter().map(|pf| pf.id.as_ref().map(ToString::to_string)).collect()
    };
    let serial = || Some("8086-10c9-dsn-001b21ffff000001-0".to_owned());
    assert_eq!(ids(vec![nic(at(0), Some(1), Some(7))]), [serial()]);
    assert_eq!(ids(vec![nic(at(5), Some(1), None)]), [serial()], "elsewhere, and without its driver");
    let mac = Some("8086-10c9-mac-525400000007-0".to_owned());
    assert_eq!(ids(vec![nic(at(0), None, Some(7)), nic(at(1), None, None)]), [mac, None]);
    let twins = vec![nic(at(0), Some(1), None), nic(at(1), Some(1), None)];
    assert_eq!(ids(twins), [None, None], "a mark that both have tells nothing");
    let mut disk = nic(at(0), None, None);
    let controller = json!({"name": "nvme0", "serial": "S4/N 7 \u{e9}", "model": null, "resources": null});
    disk.nvme = Some(serde_json::from_value(controller).unwrap());
    assert_eq!(ids(vec![disk]), [Some("8086-10c9-nvme-S4_N_7__-0".to_owned())]);
    let read = |text: &str| serde_json::from_value::<crate::AdapterId>(json!(text)).is_ok();
    assert!(read("8086-10c9-mac-525400000007-0") && !read("") && !read("a b") && !read(&"a".repeat(65)));
}

fn places(state: &State, inventory: &Inventory) -> Vec<Place> {
    Whereabouts::of(state, inventory, true).places.into_values().collect()
}

/// The state after its records have followed the moves.
fn followed(state: &State, inventory: &Inventory) -> State {
    let moves = Whereabouts::of(state, inventory, true).moves();
    let mut now = state.clone();
    now.move_adapters(&moves);
    // Only the announced rows change.
    let rows = state.rows_of_moves(&moves);
    let mut part = state.part(&rows);
    part.move_adapters(&moves);
    let mut copy = state.clone();
    for row in &rows {
        copy.put(part.row(row));
    }
    assert_eq!(copy, now);
    now
}

#[test]
fn a_replacement_is_told_from_the_missing_adapter() {
    let before = host([nic(at(0), Some(1), Some(1))]);
    let state = state(&before, [at(0)]);
    let others = [
        nic(at(0), Some(2), Some(2)),
        nic(at(0), Some(2), None),
        // Cards of one maker with the same serial number.
        nic(at(0), Some(1), Some(2)),
        PhysicalFunction { device_id: HexId(0x1521), ..nic(at(0), Some(1), Some(1)) },
    ];
    for other in others {
        let now = host([other]);
        let found = Whereabouts::of(&state, &now, false);
        assert_eq!((found.place(at(0)), found.moves()), (Some(Place::Nowhere), Vec::new()));
        let quarantined = found.quarantined(&state, &now);
        assert!(quarantined[&at(0)].to_string().contains("00-1b-21-ff-ff-00-00-01"), "{quarantined:?}");
        assert_eq!(found.identities(&state, &now), BTreeMap::new(), "and what is noted stays");
    }
}

#[test]
fn an_adapter_found_elsewhere_keeps_its_records() {
    let before = host([nic(at(0), Some(1), Some(1)), nic(at(1), Some(2), Some(2))]);
    let state = state(&before, [at(0)]);
    let now =
        host([nic(at(0), Some(9), Some(9)), nic(at(1), Some(2), Some(2)), nic(at(5), Some(1), Some(1))]);
    assert_eq!(places(&state, &now), [Place::At(at(5))]);
    let quarantined = Whereabouts::of(&state, &now, true).quarantined(&state, &now);
    assert_eq!(quarantined.into_keys().collect::<Vec<_>>(), [at(0), at(5)], "until it is followed");
    let followed = followed(&state, &now);
    assert_eq!(followed.adapters.get(&at(5)), state.adapters.get(&at(0)));
    let (owner, held) = followed.assignments().next().unwrap();
    assert_eq!(
        (owner, held.vf, held.address),
        ("p1/net0".parse::<Owner>().unwrap(), VfId { pf: at(5), index: 1 }, None)
    );
    assert_eq!(
        followed.partitions[&"p1".parse().unwrap()].spec.vfs[0].pf,
        Some(at(5)),
        "the Spec that pins it"
    );
    assert_eq!(places(&followed, &now), [Place::Here]);
    assert_eq!(Whereabouts::of(&followed, &now, true).quarantined(&followed, &now), BTreeMap::new());
}

#[test]
fn an_adapter_without_a_serial_number_is_identified_by_its_mac_once_it_has_a_driver() {
    let before = host([nic(at(0), None, Some(1))]);
    let state = state(&before, [at(0)]);
    assert_eq!(places(&state, &host([nic(at(3), None, Some(1))])), [Place::At(at(3))]);
    let without_driver = host([nic(at(0), None, None)]);
    assert_eq!(places(&state, &without_driver), [Place::InDoubt], "after a boot it is waited for");
    let found = Whereabouts::of(&state, &without_driver, false);
    assert_eq!(found.place(at(0)), Some(Place::Here), "what was there a moment ago is still there");
    // A serial number that all of a maker's cards may share is not enough to follow one.
    let state = super::tests::state(&host([nic(at(0), Some(1), Some(1))]), [at(0)]);
    assert_eq!(places(&state, &host([nic(at(3), Some(1), None)])), [Place::Nowhere]);
    assert_eq!(places(&state, &host([nic(at(0), Some(1), None)])), [Place::Here]);
}

#[test]
fn shared_and_empty_marks_are_ignored() {
    let twins = host([nic(at(0), Some(1), Some(1)), nic(at(1), Some(1), Some(1))]);
    let unset = host(
        [nic(at(0), Some(1), None)]
            .map(|pf| PhysicalFunction { serial_number: Some("00-00-00-00-00-00-00-00".to_owned()), ..pf }),
    );
    for before in [&twins, &unset] {
        let state = state(before, [at(0)]);
        assert_eq!(state.adapters[&at(0)].identity, None);
        // Only the address counts, whatever is there.
        assert_eq!(places(&state, &host([nic(at(0), Some(7), Some(7))])), [Place::Here]);
        assert_eq!(places(&state, &host([nic(at(4), Some(1), Some(1))])), [Place::Nowhere]);
    }
    // When two adapters share one mark, the other mark decides.
    let before = host([nic(at(0), Some(1), Some(1)), nic(at(1), Some(1), Some(2))]);
    let state = state(&before, [at(0), at(1)]);
    assert_eq!(state.adapters[&at(0)].identity.as_ref().unwrap().serial_number, None);
    let swapped = host([nic(at(0), Some(1), Some(2)), nic(at(1), Some(1), Some(1))]);
    assert_eq!(places(&state, &swapped), [Place::At(at(1)), Place::At(at(0))]);
}

#[test]
fn an_adapter_found_twice_is_not_followed() {
    let state = state(&host([nic(at(0), Some(1), None)]), [at(0)]);
    let now = host([nic(at(1), Some(1), None), nic(at(2), Some(1), None)]);
    assert_eq!(places(&state, &now), [Place::Nowhere]);
    // One of them is still at the recorded address: it is taken for the adapter, and the serial number no longer
    // counts.
    let now = host([nic(at(0), Some(1), None), nic(at(2), Some(1), None)]);
    assert_eq!(places(&state, &now), [Place::Here]);
    let noted = Whereabouts::of(&state, &now, false).identities(&state, &now);
    assert_eq!(noted, BTreeMap::from([(at(0), None)]));
}

#[test]
fn a_missing_adapter_gives_way_only_if_it_has_a_distinct_identity() {
    let before = host([nic(at(0), Some(1), None), nic(at(1), Some(2), None)]);
    let noted = state(&before, [at(0), at(1)]);
    let now = host([nic(at(0), Some(2), None)]);
    let found = Whereabouts::of(&noted, &now, true);
    let moves =
        [Move { from: at(0), to: at(1), is_there: false }, Move { from: at(1), to: at(0), is_there: true }];
    assert_eq!(found.moves(), moves);
    assert_eq!(places(&followed(&noted, &now), &now), [Place::Here, Place::Nowhere]);

    let mut noted = noted;
    noted.adapters.get_mut(&at(0)).unwrap().identity = None;
    assert_eq!(places(&noted, &now), [Place::Nowhere, Place::At(at(0))], "what is there is somebody else");
    let found = Whereabouts::of(&noted, &now, true);
    assert_eq!(found.moves(), []);
    assert_eq!(found.quarantined(&noted, &now).into_keys().collect::<Vec<_>>(), [at(0)]);
}

#[test]
fn a_record_of_an_older_version_gets_an_identity_if_it_fits_the_adapter() {
    let here = host([nic(at(0), Some(1), Some(1))]);
    let mut old = state(&here, [at(0)]);
    let identity = std::mem::take(&mut old.adapters.get_mut(&at(0)).unwrap().identity);
    let found = Whereabouts::of(&old, &here, false);
    assert_eq!(found.identities(&old, &here), BTreeMap::from([(at(0), identity)]));
    let mut gives_less = here.clone();
    gives_less.physical_functions[0].sriov.as_mut().unwrap().total_vfs = 1;
    let mut other_class = here.clone();
    other_class.physical_functions[0].class = crate::Class::Nvme;
    for other in [gives_less, other_class] {
        let found = Whereabouts::of(&old, &other, false);
        assert_eq!(found.identities(&old, &other), BTreeMap::new());
    }
}

#[test]
fn the_ports_of_one_adapter_are_told_apart() {
    let port = |bus: u8, port: u8| nic(Bdf::new(0, bus, 0, port).unwrap(), Some(1), None);
    let before = host([port(1, 0), port(1, 1)]);
    let state = state(&before, before.physical_functions.iter().map(|pf| pf.address));
    let now = host([port(7, 0), port(7, 1)]);
    let found = Whereabouts::of(&state, &now, true);
    let [one, two] = [0, 1].map(|port| Place::At(Bdf::new(0, 7, 0, port).unwrap()));
    assert_eq!(found.places.into_values().collect::<Vec<_>>(), [one, two]);
}

/// One that was taken out of service for its slot, and of which nothing else is noted.
#[test]
fn an_adapter_out_of_service_stays_so_at_another_address() {
    let before = host([nic(at(0), Some(1), Some(1)), nic(at(1), Some(2), Some(2))]);
    let identity = Identity::of(&before.physical_functions[0], &before);
    let out = OutOfService { since_ms: 5, why: Why::Evacuated, vf: None, identity };
    let noted = State { out_of_service: [(at(0), out.clone())].into(), ..State::default() };

    let moved = host([nic(at(1), Some(2), Some(2)), nic(at(3), Some(1), Some(1))]);
    assert_eq!(followed(&noted, &moved).out_of_service, [(at(3), out)].into());
    let is_among =
        |rows: Vec<RowKey>| [at(0), at(3)].map(|pf| rows.contains(&RowKey::OutOfService(pf))) == [true, true];
    let moves = Whereabouts::of(&noted, &moved, true).moves();
    assert!(is_among(noted.rows_of_moves(&moves)));

    let another = host([nic(at(0), Some(7), Some(7))]);
    let quarantined = Whereabouts::of(&noted, &another, true).quarantined(&noted, &another);
    assert!(quarantined[&at(0)].remedy.contains("ioward return"), "{}", quarantined[&at(0)]);
}

proptest! {
    /// Any cards in any slots before and after, some of them held: every card present is found, none is taken for
    /// another, and no record is lost.
    #[test]
    fn every_card_present_is_found_and_none_is_confused(
        before in Just((0..8_u8).collect::<Vec<_>>()).prop_shuffle(),
        after in Just((0..8_u8).collect::<Vec<_>>()).prop_shuffle(),
        held in 1..5_usize,
        there in 0..8_usize,
    ) {
        // The card in each slot: the cards before in the first four, the cards after in the first few.
        let cards = |slots: &[u8]| host((0..).zip(slots).map(|(slot, card)| nic(at(slot), Some(*card), Some(*card))));
        let (old, new) = (cards(&before[..4]), cards(&after[..there]));
        let noted = state(&old, (0..4).take(held).map(at));
        let now = followed(&noted, &new);
        prop_assert_eq!(now.adapters.len(), noted.adapters.len());
        let card_of = |state: &State, pf: Bdf| state.adapters[&pf].identity.clone().unwrap();
        for (pf, adapter) in &now.adapters {
            let identity = adapter.identity.clone().unwrap();
            let present = new.physical_functions.iter().find(|one| Identity::of(one, &new).unwrap() == identity);
            match (present, new.physical_function(*pf)) {
                (Some(present), _) => prop_assert_eq!(present.address, *pf),
                (None, Some(_)) => {
                    let found = Whereabouts::of(&now, &new, true);
                    prop_assert_eq!(found.place(*pf), Some(Place::Nowhere));
                    prop_assert!(found.quarantined(&now, &new).contains_key(pf));
                }
                (None, None) => {}
            }
        }
        for ((owner, was), (same, is)) in noted.assignments().zip(now.assignments()) {
            prop_assert_eq!((owner, was.vf.index), (same, is.vf.index));
            prop_assert_eq!(card_of(&noted, was.vf.pf), card_of(&now, is.vf.pf));
        }
        prop_assert_eq!(Whereabouts::of(&now, &new, true).moves(), Vec::new());
        prop_assert!(Whereabouts::of(&noted, &old, true).moves().is_empty());
    }
}
