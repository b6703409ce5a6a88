//! Definitions of domains: reading them, and editing them without a trace.

// Test helpers are tests too, which the lints do not know.
#![allow(clippy::unwrap_used)]

use ioward_hypervisor::Accelerator;
use ioward_hypervisor::libvirt::xml::{
    CHANNEL_ALIAS, CONTROLLER_ALIAS, Facts, Foreign, XmlError, channel, hostdev, insert, port_alias, read,
    remove, root_port, serial_controller, vf_alias,
};
use ioward_model::Name;
use proptest::{collection::vec, prelude::*, sample::select};

const SOCKET: &str = "/run/ioward/partitions/web/channel";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn domain(devices: &str) -> String {
    format!(
        "<domain type='kvm'>\n  <name>web</name>\n  <memory unit='KiB'>65536</memory>\n  <devices>{devices}</devices>\n</domain>\n"
    )
}

fn facts(devices: &str) -> Facts {
    read(&domain(devices)).unwrap()
}

#[test]
fn a_definition_says_who_the_domain_is_and_how_large() {
    let text = "<?xml version='1.0'?><!-- made by hand --><domain type='kvm' id='0x7' xmlns:q='urn:x'><name>a &amp; b</name>\
                <uuid>4DEA22B3-1d52-d8f3-2516-782e98ab3fa0</uuid><memory unit='GiB'>2</memory><vcpu placement='static'>4</vcpu>\
                <metadata><name>another</name><devices/></metadata><devices><emulator>/usr/bin/x</emulator></devices></domain>";
    let facts = read(text).unwrap();
    assert_eq!((facts.name.as_str(), facts.id, facts.memory, facts.vcpus), ("a & b", Some(7), 2 << 30, 4));
    assert_eq!(facts.uuid.unwrap().to_string(), "4dea22b3-1d52-d8f3-2516-782e98ab3fa0");
    for (text, missing) in [
        ("<network/>", "<domain>"),
        ("<domain><name>a/b</name></domain>", "<name>"),
        ("<domain><name>a</name><uuid>1</uuid></domain>", "<uuid>"),
        ("<domain><name>a</name></domain>", "<devices>"),
        ("<domain><name>a</name><devices/><devices/></domain>", "<devices>"),
        ("<domain><name>a</name><devices/></domain>", "<memory>"),
        ("<domain><name>a</name><memory unit='furlong'>1</memory><devices/></domain>", "<memory>"),
        ("<domain><name>a</name><memory unit='EiB'>99999999999</memory><devices/></domain>", "<memory>"),
    ] {
        assert_eq!(read(text).unwrap_err(), XmlError::Missing(missing), "{text}");
    }
}

#[test]
fn functions_of_the_host_are_found_whoever_gave_them() {
    let found = facts(
        "<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/><source>\
         <address domain='0x0000' bus='0x01' slot='0x10' function='0x2'/></source><alias name='hostdev0'/>\
         <address type='pci' domain='0x0000' bus='0x05' slot='0x00' function='0x0'/></hostdev>\
         <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/></source></hostdev>\
         <interface type='network'><source network='default'/></interface>\
         <interface type='hostdev' managed='yes'><mac address='52:54:00:bb:00:09'/><source>\
         <address type='pci' domain='0' bus='1' slot='16' function='4'/></source></interface>\
         <hostdev mode='subsystem' type='pci'><source><address bus='0x1ff' slot='0'/></source></hostdev>",
    )
    .host_devices;
    let [by_hand, interface, impossible] = &found[..] else { panic!("{found:?}") };
    assert_eq!((by_hand.function.unwrap().to_string().as_str(), by_hand.managed), ("0000:01:10.2", true));
    assert_eq!((by_hand.alias.as_deref(), &by_hand.vf), (Some("hostdev0"), &None));
    assert_eq!(interface.function.unwrap().to_string(), "0000:01:10.4");
    assert_eq!(interface.mac.as_deref(), Some("52:54:00:bb:00:09"));
    assert_eq!(impossible.function, None);
}

#[test]
fn what_ioward_made_is_known_again() {
    let vf = name("net0");
    let devices =
        [hostdev(&vf, "0000:01:10.3".parse().unwrap()), channel(SOCKET).unwrap(), serial_controller(2)]
            .concat();
    let facts = facts(&devices);
    let device = &facts.host_devices[0];
    assert_eq!(
        (device.vf.as_ref(), device.function.unwrap().to_string().as_str()),
        (Some(&vf), "0000:01:10.3")
    );
    assert_eq!(facts.channel.unwrap().socket.as_deref(), Some(SOCKET));
    assert_eq!((facts.serial_controllers[0].index, facts.serial_controllers[0].is_ours), (2, true));
    assert_eq!(facts.foreign, []);
}

#[test]
fn a_port_is_added_under_the_next_number_and_known_again() {
    let express = "<controller type='pci' index='0' model='pcie-root'/>";
    let ports = "<controller type='pci' index='7' model='pcie-root-port'/><controller type='usb' index='9'/>";
    assert_eq!(facts(&format!("{express}{ports}")).next_port, Some(8));
    assert_eq!(facts(express).next_port, Some(1));
    for without in ["", ports, "<controller type='pci' index='0' model='pci-root'/>"] {
        assert_eq!(facts(without).next_port, None, "it has no PCI Express: {without}");
    }
    let found = facts(&format!("{express}{ports}{}", root_port(8)));
    let of = |index| found.root_ports.iter().find(|port| port.index == index).unwrap();
    assert_eq!((of(8).is_ours, of(8).free, of(7).is_ours), (true, true, false));
    assert_eq!((found.next_port, &found.foreign[..]), (Some(9), &[][..]));
    let bridge = root_port(8).replace("'pcie-root-port'>", "'pcie-to-pci-bridge'>");
    assert_eq!(facts(&bridge).foreign[0].alias, port_alias(8));
}

#[test]
fn a_controller_serves_others_when_a_device_that_is_not_iowards_is_plugged_into_it() {
    let plugged = |device: &str| device.replace("</", "<address type='virtio-serial' controller='0'/></");
    let ours = serial_controller(0) + &channel(SOCKET).unwrap().replace("</channel>", &plugged("</channel>"));
    assert!(!facts(&ours).serial_controllers[0].serves_others);
    let others = ours + &plugged("<console type='pty'></console>");
    assert!(facts(&others).serial_controllers[0].serves_others);
}

#[test]
fn a_domain_runs_under_kvm_or_in_emulation() {
    let of = |kind: &str| read(&domain("").replace("'kvm'", kind)).unwrap().accelerator;
    assert_eq!(
        (of("'kvm'"), of("'qemu'"), of("'xen'")),
        (Some(Accelerator::Kvm), Some(Accelerator::Tcg), None)
    );
}

#[test]
fn a_root_port_is_free_when_nothing_is_behind_it_and_something_may_be() {
    let port = |index, inside| {
        format!(
            "<controller type='pci' index='{index}' model='pcie-root-port'>{inside}\
                 <address type='pci' domain='0x0000' bus='0x00' slot='0x02' function='0x{index}'/></controller>"
        )
    };
    let devices = [
        port(1, "<target chassis='1' port='0x10'/>"),
        port(2, "<target chassis='2' port='0x11' hotplug='off'/>"),
        port(3, ""),
        port(0x1b, ""),
        "<controller type='pci' index='0' model='pcie-root'/>".to_owned(),
        "<controller type='pci' index='4' model='pcie-to-pci-bridge'><address type='pci' bus='0x03'/></controller>".to_owned(),
        // An address of the host's is none of the guest's.
        "<hostdev type='pci'><source><address type='pci' bus='0x01' slot='0' function='0'/></source></hostdev>".to_owned(),
    ];
    let facts = facts(&devices.concat());
    assert_eq!(facts.free_root_ports().collect::<Vec<_>>(), [1, 0x1b]);
    assert_eq!(facts.root_ports.len(), 4);
}

#[test]
fn a_device_of_somebody_else_under_an_alias_of_iowards_is_told_of_and_never_touched() {
    for (device, alias) in [
        ("<disk type='file'><alias name='ua-ioward-net0'/></disk>", "ua-ioward-net0"),
        ("<hostdev type='pci' managed='yes'><alias name='ua-ioward-net0'/></hostdev>", "ua-ioward-net0"),
        ("<hostdev type='pci' managed='no'><alias name='ua-ioward-0'/></hostdev>", "ua-ioward-0"),
        ("<interface type='hostdev'><alias name='ua-ioward-net0'/></interface>", "ua-ioward-net0"),
        (
            "<channel type='unix'><target name='org.qemu.guest_agent.0'/><alias name='ua-ioward'/></channel>",
            CHANNEL_ALIAS,
        ),
        ("<controller type='scsi'><alias name='ua-ioward_serial'/></controller>", CONTROLLER_ALIAS),
    ] {
        let definition = domain(device);
        let [Foreign { alias: found, element }] = &facts(device).foreign[..] else { panic!("{device}") };
        assert_eq!(found, alias);
        assert!(device[1..].starts_with(element));
        let error = remove(&definition, alias).unwrap_err();
        assert!(matches!(error, XmlError::Foreign { .. }), "{error}");
    }
    let taken = domain("<disk type='file'><alias name='ua-ioward'/></disk>");
    assert!(matches!(insert(&taken, &channel(SOCKET).unwrap()), Err(XmlError::Foreign { .. })));
    // Nor one that has no such alias at all.
    let disk = domain("<disk type='file'><alias name='ua-mine'/></disk>");
    assert!(matches!(remove(&disk, "ua-mine"), Err(XmlError::Foreign { .. })));
}

#[test]
fn an_alias_is_given_once() {
    let vf = hostdev(&name("net0"), "0000:01:10.3".parse().unwrap());
    let twice = domain(&vf.repeat(2));
    let duplicate = XmlError::DuplicateAlias("ua-ioward-net0".to_owned());
    assert_eq!(read(&twice).unwrap_err(), duplicate);
    assert_eq!(insert(&twice, &serial_controller(0)).unwrap_err(), duplicate);
    assert_eq!(remove(&twice, "ua-ioward-net0").unwrap_err(), duplicate);
    let there = XmlError::AlreadyThere("ua-ioward-net0".to_owned());
    assert_eq!(insert(&domain(&vf), &vf).unwrap_err(), there);
    assert_eq!(remove(&domain("<emulator>x</emulator>"), "ua-ioward-net0"), Ok(None));
}

#[test]
fn a_path_is_quoted_and_has_to_be_one_of_a_socket() {
    let odd = "/run/a&b/<'\">";
    assert_eq!(facts(&channel(odd).unwrap()).channel.unwrap().socket.as_deref(), Some(odd));
    for bad in ["", "channel", "/run/a\nb", &format!("/{}", "x".repeat(107))] {
        assert!(matches!(channel(bad), Err(XmlError::SocketPath(_))), "{bad:?}");
    }
}

#[test]
fn a_definition_keeps_its_shape_around_what_is_added() {
    let before = domain("\n    <emulator>/usr/bin/qemu</emulator>\n  ");
    let after = insert(&before, "<controller type='virtio-serial' index='0'/>").unwrap();
    let expected = domain(
        "\n    <emulator>/usr/bin/qemu</emulator>\n    <controller type='virtio-serial' index='0'/>\n  ",
    );
    assert_eq!(after, expected);
    let none = "<domain><name>a</name><devices/></domain>";
    assert_eq!(insert(none, &serial_controller(0)), Err(XmlError::Missing("<devices>")));
}

/// A definition with devices, and much that ioward does not know, in any shape.
fn definitions() -> impl Strategy<Value = String> {
    let devices = select(vec![
        "<emulator>/usr/bin/qemu-system-x86_64</emulator>",
        "<disk type='file'><source file='/a&amp;b'/><target dev='vda'/></disk>",
        "<!-- </devices> -->",
        "<![CDATA[</devices>]]>",
        "<controller type='pci' index='1' model='pcie-root-port'/>",
        "<interface type=\"hostdev\" managed = 'yes' ><mac address='52:54:00:bb:00:09'/></interface>",
        "<serial type='pty'><target port='0'/><alias name='serial0'/></serial >",
        "<x:own xmlns:x='urn:x'>ä\u{1f600}</x:own>",
        "text",
        "<?devices </devices>?>",
    ]);
    let space = "[ \t\r\n]{0,4}";
    let devices =
        vec((space, devices), 1..8).prop_map(|all| all.into_iter().map(|(s, d)| s + d).collect::<String>());
    (devices, space, "[ \n]{0,2}", "\u{feff}?").prop_map(|(devices, space, in_tag, mark)| {
        format!(
            "{mark}<?xml version='1.0'?>\n<domain type='kvm'><name>web</name><memory>1</memory><metadata><devices/></metadata>\
             <devices{in_tag}>{devices}{space}</devices{in_tag}><!-- </devices> --></domain>\n"
        )
    })
}

proptest! {
    #[test]
    fn what_was_added_is_taken_out_without_a_trace_in_any_order(
        definition in definitions(),
        order in Just(["net0", "disk0", "channel", "controller"]).prop_shuffle(),
    ) {
        let alias = |device: &str| match device {
            "channel" => CHANNEL_ALIAS.to_owned(),
            "controller" => CONTROLLER_ALIAS.to_owned(),
            vf => vf_alias(&name(vf)),
        };
        let mut text = definition.clone();
        for (device, xml) in [
            ("net0", hostdev(&name("net0"), "0000:01:10.0".parse().unwrap())),
            ("channel", channel(SOCKET).unwrap()),
            ("disk0", hostdev(&name("disk0"), "0001:02:00.1".parse().unwrap())),
            ("controller", serial_controller(1)),
        ] {
            let longer = insert(&text, &xml).unwrap();
            prop_assert_eq!(&remove(&longer, &alias(device)).unwrap().unwrap(), &text);
            prop_assert!(longer.len() > text.len() + xml.len());
            text = longer;
        }
        let facts = read(&text).unwrap();
        prop_assert_eq!(facts.host_devices.iter().filter(|device| device.vf.is_some()).count(), 2);
        for device in order {
            text = remove(&text, &alias(device)).unwrap().unwrap();
        }
        prop_assert_eq!(text, definition);
    }

    #[test]
    fn no_text_is_too_odd(text in "(<|>|/|=|'|\"|&|domain|devices|alias|name|ua-ioward| |[\u{0}-\u{fff}]){0,60}") {
        let _ = (read(&text), insert(&text, &serial_controller(0)), remove(&text, CHANNEL_ALIAS));
    }
}
