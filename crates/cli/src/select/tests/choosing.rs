//! Counts, partitions, VFs, and the functions for those.

use ioward_model::{Spec, VfCount};
use ratatui::style::{Color, Modifier};

use super::*;
use crate::select::screen::{Focus, Mode};

#[test]
fn adapters_and_partitions_at_80_by_24() {
    let mut screen = screen();
    looks_like(&screen, "lists");
    press(&mut screen, "<Down><Tab><Down><Down><Down>");
    assert_eq!((screen.focus, screen.row), (Focus::Partitions, 3));
    looks_like(&screen, "partitions");
    screen.resize((120, 30));
    assert!(
        seen(&screen).contains(" 82576 Gigabit"),
        "the names are in the list where there is room:\n{}",
        seen(&screen)
    );
}

#[test]
fn an_empty_host_says_what_to_do_first() {
    let mut screen = empty_screen();
    looks_like(&screen, "empty");
    press(&mut screen, "<Tab>v");
    assert!(seen(&screen).contains("there is no partition yet: n makes one"));
    screen.known.inventory.physical_functions.clear();
    press(&mut screen, "<Tab><Down><Enter>");
    assert!(matches!(screen.mode, Mode::Lists));
    assert!(seen(&screen).contains("no SR-IOV adapters"));
}

#[test]
fn a_number_of_vfs_is_exact_or_all_or_some_to_spare() {
    let mut screen = screen();
    let pf = screen.current_adapter().unwrap().address;
    for (typed, count) in [
        ("4", Some(VfCount::Exactly(4))),
        ("max", Some(VfCount::Max)),
        ("+2", Some(VfCount::Spare(2))),
        ("0", Some(VfCount::Exactly(0))),
        ("", None),
    ] {
        press(&mut screen, &format!("<Enter><Back><Back><Back>{typed}<Enter>"));
        assert!(matches!(screen.mode, Mode::Lists), "{typed}");
        assert_eq!(screen.choice.count(pf), count);
        assert_eq!(screen.choice.spec().adapters.len(), usize::from(count.is_some()), "{typed}");
    }
    assert!(!screen.choice.is_unsettled(), "it is as it was");
    for (typed, said) in
        [("8", "can give 7 VFs at most"), ("many", "use 0 to 7, max, or +2"), ("-1", "use 0 to 7")]
    {
        press(&mut screen, &format!("<Enter>{typed}<Enter>"));
        assert!(screen.note.contains(said), "{typed}: {}", screen.note);
        press(&mut screen, "<Esc>");
        assert_eq!(screen.choice.count(pf), None);
    }
    press(&mut screen, "<Enter>12");
    looks_like(&screen, "count");
}

/// Leaving the number out of the Spec would leave it as it is: a Spec speaks for what it names.
#[test]
fn a_number_that_is_held_is_taken_back_by_naming_the_adapter() {
    let held = "version = 1\nadapter = [{ pf = \"0000:01:00.0\", vfs = 4 }]";
    let mut screen = Screen::new(known(held), None, None, "/".into(), (80, 24));
    press(&mut screen, "<Enter><Back><Enter>");
    let [adapter] = &screen.choice.spec().adapters[..] else { panic!() };
    assert_eq!((adapter.vfs, adapter.spare), (None, None));
    assert!(seen(&screen).contains("~assigned"));
}

#[test]
fn a_partition_and_its_vfs_are_filled_in() {
    let mut screen = empty_screen();
    press(&mut screen, "ncache<Down><Down><Back>4<Down><Down>1<Down>cache.qcow2<Enter>");
    press(&mut screen, "v<Down><Down>10G<Down>7<Down><Down><Down>mac vlan=100-110,200<Enter>");
    press(&mut screen, "v<Tab><Right><Enter>");
    let expected = r#"version = 1

[[partition]]
name = "cache"
cpus = 4
numa_node = 1
boot = { disk = "/home/me/cache.qcow2" }
vf = [
    { name = "net0", class = "network", min_link_speed = "10Gbit", vlan = 7, guest_may = { mac = true, vlan = "100-110,200" } },
    { name = "disk0", class = "nvme" },
]
"#;
    assert_eq!(*screen.choice.spec(), Spec::parse(expected.as_bytes()).unwrap());
    looks_like(&screen, "filled-in");
}

#[test]
fn what_is_wrong_in_a_form_is_said_at_its_field() {
    for (keys, said) in [
        ("n<Enter>", "Name: '' is no name"),
        ("n1st<Enter>", "Name: '1st' is no name"),
        ("nweb<Enter>", "there is a partition web already"),
        ("ncache<Enter>", "boot: nothing to boot from"),
        ("ncache<Tab><Tab>x<Enter>", "CPUs: '1x' is no number for it; use 1 to 288"),
        ("ncache<Tab><Tab>000<Tab><Tab><Tab>d<Enter>", "cpus: 1000 virtual CPUs; use 1 to 288"),
        ("ncache<Tab><Tab><Tab>x<Enter>", "Memory: '512MiBx' is no memory size"),
        ("ncache<Tab><Tab><Tab><Tab>x<Enter>", "NUMA node: 'x' is no number for it"),
        ("ncache<Tab>d<Tab>a/b<Enter>", "Domain: 'a/b' is no name of a domain"),
        ("ncache<Tab>n<Tab>a/b<Enter>", "Namespace: 'a/b' is no name of a domain or a namespace"),
        ("ncache<Tab>d<Tab><Tab>x<Enter>", "NUMA node: 'x' is no number for it"),
        ("<Tab>v<Tab><Tab>10<Enter>", "Link speed: '10' is no bit rate; write 500Mbit or 10Gbit"),
        ("<Tab>v<Tab><Tab><Tab>4095<Enter>", "VLAN: '4095' is no VLAN"),
        ("<Tab>v<Tab><Tab><Tab><Tab>01:00:5e:00:00:01<Enter>", "no address for one station"),
        ("<Tab>v<Tab><Tab><Tab><Tab><Tab>net9<Enter>", "there is no VF db/net9"),
        ("<Tab>v<Tab><Tab><Tab><Tab><Tab>disk0:rack<Enter>", "Apart from: ':rack' is unknown"),
        ("<Tab>v<Tab><Tab><Tab><Tab><Tab><Tab>vlna<Enter>", "Guest may: 'vlna' is nothing a guest may do"),
    ] {
        let mut screen = screen();
        press(&mut screen, keys);
        let (Mode::Partition(form) | Mode::Vf(form, _)) = &screen.mode else {
            panic!("{keys}: it was taken")
        };
        assert!(form.problem.contains(said), "{keys}: {}", form.problem);
        assert!(!screen.choice.is_unsettled(), "{keys}");
        press(&mut screen, "<Esc>");
        assert!(matches!(screen.mode, Mode::Lists));
    }
    let mut screen = screen();
    press(&mut screen, "ncache<Tab><Tab><Tab><Back><Back><Back><Enter>");
    looks_like(&screen, "form");
}

#[test]
fn a_domain_is_changed_in_what_is_not_libvirt_s_and_stays_one() {
    let held = HELD.replace("cpus = 2\nboot = { kernel = \"/boot/vmlinuz\" }", "libvirt = \"shop\"");
    let mut screen = Screen::new(known(&held), None, None, "/home/me".into(), (80, 24));
    press(&mut screen, "<Tab><Down><Down>");
    assert!(seen(&screen).contains("web: domain shop"), "{}", seen(&screen));
    press(&mut screen, "e");
    let form = seen(&screen);
    assert!(form.contains("Partition web: domain shop") && !form.contains("Memory"), "{form}");
    press(&mut screen, "1<Enter>");
    let web = &screen.choice.spec().partitions[1];
    assert_eq!((web.kind.to_string().as_str(), web.numa_node, web.vfs.len()), ("domain shop", Some(1), 1));
}

#[test]
fn a_new_partition_is_a_machine_a_domain_or_a_namespace() {
    for (keys, what) in [
        ("nshop<Tab>d<Enter>", "domain shop"),
        ("nshop<Tab><Right><Tab>web-1<Enter>", "domain web-1"),
        ("nshop<Tab>n<Enter>", "namespace shop"),
        ("nshop<Tab><Left><Tab>blue<Tab>1<Enter>", "namespace blue"),
        ("nshop<Tab>n<Tab>/run/web.pid<Enter>", "namespace that of the process in /run/web.pid"),
    ] {
        let mut screen = screen();
        press(&mut screen, keys);
        assert!(matches!(screen.mode, Mode::Lists), "{keys}: {}", seen(&screen));
        let shop = screen.choice.partition(&"shop".parse().unwrap()).unwrap();
        assert_eq!(shop.kind.to_string(), what, "{keys}");
        assert_eq!(shop.numa_node, keys.contains("<Tab>1").then_some(1));
        press(&mut screen, "v<Enter>");
        assert!(matches!(screen.mode, Mode::Lists), "{keys}: it takes a VF");
    }
    let mut screen = screen();
    press(&mut screen, "nshop<Tab>d<Tab>web");
    looks_like(&screen, "form-of-a-domain");
    press(&mut screen, "<Up>n<Tab>");
    looks_like(&screen, "form-of-a-namespace");
}

#[test]
fn what_was_filled_in_comes_back_with_its_kind() {
    let mut screen = screen();
    press(&mut screen, "nshop<Tab><Tab><Back>7<Up>d<Tab>web<Up>n<Up>s<Down>md");
    let Mode::Partition(form) = &screen.mode else { panic!() };
    assert_eq!([form.text("Name"), form.text("Domain")], ["shops", "web"]);
    press(&mut screen, "m");
    let Mode::Partition(form) = &screen.mode else { panic!() };
    assert_eq!([form.text("CPUs"), form.text("Memory"), form.text("Domain")], ["7", "512MiB", ""]);
}

#[test]
fn a_vf_is_changed_and_what_the_form_does_not_speak_of_stays() {
    let mut screen = screen();
    screen.choice.pin(&"web/net0".parse().unwrap(), Some("0000:01:00.0".parse().unwrap()), Some(0));
    press(&mut screen, "<Tab><End>e<Down><Back><Back><Back><Back><Back>25G<Enter>");
    let expected = r#"{"name": "net0", "class": "network", "min_link_speed": "25Gbit", "pf": "0000:01:00.0", "index": 0,
        "guest_may": {"mac": true, "vlan": "100-110"}}"#;
    assert_eq!(screen.choice.spec().partitions[1].vfs, [data(expected)]);
    press(&mut screen, "<Up><Enter><Back>3<Enter>");
    assert_eq!(
        screen.choice.spec().partitions[1].machine().unwrap().cpus,
        3,
        "a name is not asked for twice"
    );
    assert_eq!(screen.choice.spec().partitions[1].vfs.len(), 1);
    assert!(seen(&screen).contains(">~ web") && seen(&screen).contains(" ~   net0"), "{}", seen(&screen));
}

#[test]
fn what_is_held_is_given_back_and_what_is_new_goes() {
    let mut screen = screen();
    press(&mut screen, "<Tab><End>d");
    assert_eq!(screen.choice.spec().partitions[1].vfs, []);
    assert!(seen(&screen).contains(">-   net0") && seen(&screen).contains("given back"), "{}", seen(&screen));
    for key in ["e", "<Enter>"] {
        assert!(press(&mut screen, key).is_empty());
        assert_eq!(screen.note, "it is to be given back: d keeps it after all");
    }
    press(&mut screen, "d");
    assert!(!screen.choice.is_unsettled());
    press(&mut screen, "<Up>d");
    assert_eq!(screen.note, "a Spec leaves alone what it does not name: use 'ioward remove web'");
    press(&mut screen, "ncache<Tab><Tab><Tab><Tab><Tab>d<Enter>v<Enter>dd");
    assert!(!screen.choice.is_unsettled() && screen.current_row().is_some());
}

#[test]
fn functions_that_suit_are_told_from_those_that_do_not() {
    let mut screen = with_functions();
    looks_like(&screen, "functions");
    press(&mut screen, "<Down><Right><Down>");
    looks_like(&screen, "function-why-not");
    press(&mut screen, "<Left><End>");
    looks_like(&screen, "adapter-why-not");
    let row = |buffer: &Buffer, what: &str| {
        let text = |line| (0..80).map(|column| buffer[(column, line)].symbol()).collect::<String>();
        let line = (0..24).find(|line| text(*line).contains(what)).unwrap();
        buffer[(10, line)].style()
    };
    press(&mut screen, "<Up>");
    let coloured = buffer(&screen, COLOURS);
    assert_eq!(row(&coloured, "0000:02:00.0").fg, Some(Color::DarkGray));
    assert_eq!(row(&coloured, "0000:01:00.0").fg, Some(Color::Reset));
    let plain = buffer(&screen, NO_COLOURS);
    assert!(row(&plain, "0000:02:00.0").add_modifier.contains(Modifier::DIM));
    assert!(plain.content().iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

#[test]
fn what_suits_is_asked_without_what_is_pinned_now() {
    let mut screen = screen();
    screen.choice.pin(&"web/net0".parse().unwrap(), Some("0000:03:00.0".parse().unwrap()), Some(2));
    let Effect::Compatible(request, owner) = press_for(&mut screen, "<Tab><End><Enter>") else { panic!() };
    assert_eq!((owner.to_string().as_str(), request.partition.as_str()), ("web/net0", "web"));
    assert_eq!(request.spec.partitions[1].vfs[0].pf, None);
    let mut all: Vec<ioward_api::Compatible> = data(include_str!("../../../tests/data/compatible.json"));
    screen.answer(Answer::Compatible(owner, Ok(all.remove(0))));
    let Mode::Functions(functions) = &screen.mode else { panic!() };
    assert_eq!(functions.current().pins().1, Some(2), "the cursor is on what is pinned");
}

#[test]
fn only_a_function_that_suits_is_taken() {
    let pinned = |screen: &Screen| {
        let vf = &screen.choice.spec().partitions[1].vfs[0];
        (vf.pf.map(|pf| pf.to_string()), vf.index)
    };
    let mut screen = with_functions();
    press(&mut screen, "<End><Enter>");
    assert!(matches!(screen.mode, Mode::WhyNot(..)), "all that speaks against it is shown");
    assert!(
        seen(&screen).contains("link-speed: web/net0: 0000:02:00.0: required a link of 10Gbit or faster")
    );
    press(&mut screen, "<Esc>");
    assert!(matches!(screen.mode, Mode::Functions(..)));
    assert_eq!(pinned(&screen), (None, None));

    press(&mut screen, "<Up><Enter>");
    assert_eq!(pinned(&screen), (Some("0000:03:00.0".to_owned()), None), "any VF of an adapter");
    let mut screen = with_functions();
    press(&mut screen, "<Down><Right><Down><Down><Enter>");
    assert_eq!(pinned(&screen), (Some("0000:01:00.0".to_owned()), Some(1)), "a VF");
    let Effect::Compatible(_, owner) = press_for(&mut screen, "<Enter>") else { panic!() };
    let mut all: Vec<ioward_api::Compatible> = data(include_str!("../../../tests/data/compatible.json"));
    screen.answer(Answer::Compatible(owner, Ok(all.remove(0))));
    press(&mut screen, "g<Enter>");
    assert_eq!(pinned(&screen), (None, None), "whichever suits");
}

#[test]
fn an_answer_that_nobody_waits_for_any_more_changes_nothing() {
    let mut screen = screen();
    let Effect::Compatible(_, owner) = press_for(&mut screen, "<Tab><End><Enter>") else { panic!() };
    press(&mut screen, "x<Esc>");
    let nothing = ioward_api::Compatible { request: owner.clone(), candidates: Vec::new() };
    screen.answer(Answer::Compatible(owner, Ok(nothing)));
    assert!(matches!(screen.mode, Mode::Lists));
}
