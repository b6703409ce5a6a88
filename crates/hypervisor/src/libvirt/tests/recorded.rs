//! What libvirt 11.3.0 and virsh said to each other in the lab, held against what is written and understood here.
//!
//! `tests/data/libvirt-11.3.messages` has a message on each line, in hexadecimal: a call of virsh's and then libvirt's answer, events,
//! signs of life. The domain was made up for it, so that there was nothing to mask.

use std::future::Future;

use proptest::{collection::vec, prelude::*};

use super::super::{
    Affects, Definition, Event, Lifecycle, Refusal, State,
    wire::{Message, Messages},
    xml,
};
use super::*;

const RECORDED: &str = include_str!("../../../tests/data/libvirt-11.3.messages");

/// The messages of one side.
fn said_by(who: &str) -> Vec<Vec<u8>> {
    let lines = RECORDED.lines().filter_map(|line| line.strip_prefix(who)?.strip_prefix(' '));
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    lines.map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

fn word(message: &[u8], index: usize) -> u32 {
    u32::from_be_bytes(message[4 * index..][..4].try_into().unwrap())
}

/// The calls of a procedure that virsh made, and libvirt's answers.
fn exchanges(procedure: Procedure) -> Vec<(Vec<u8>, Vec<u8>)> {
    let is_its =
        |kind: u32| move |message: &Vec<u8>| word(message, 3) == procedure as u32 && word(message, 4) == kind;
    let of = |who: &str, kind| said_by(who).into_iter().filter(is_its(kind)).collect::<Vec<_>>();
    of("virsh", 0).into_iter().zip(of("libvirt", REPLY)).collect()
}

/// What a call gives when the daemon answers as libvirt did the `nth` time; the call is as virsh's was.
async fn replayed<T, F: Future<Output = T>>(
    procedure: Procedure,
    nth: usize,
    call: impl FnOnce(Connection) -> F,
) -> T {
    let (connection, _events, mut daemon) = connected().await;
    let (asked, mut answer) = exchanges(procedure).swap_remove(nth);
    let work = async {
        let call = daemon.expect(procedure).await;
        assert_eq!(call.arguments, asked[28..], "as virsh asks it");
        answer[20..24].copy_from_slice(&call.serial.to_be_bytes());
        daemon.send(&answer).await;
    };
    tokio::join!(call(connection), work).0
}

fn shut_off() -> Domain {
    Domain { id: None, ..web() }
}

#[test]
fn calls_and_signs_of_life_are_the_bytes_that_virsh_sends() {
    let virsh = said_by("virsh");
    for message in &virsh {
        if word(message, 1) == KEEPALIVE {
            let ours = if word(message, 3) == 1 { wire::ping() } else { wire::pong() };
            assert_eq!(*message, ours);
        }
    }
    for procedure in [Procedure::ConnectOpen, Procedure::DomainGetXmlDesc, Procedure::DomainDetachDeviceAlias]
    {
        let (asked, _) = exchanges(procedure).swap_remove(0);
        assert_eq!(wire::call(procedure, word(&asked, 5), &asked[28..]), asked);
    }
    assert!(
        virsh.iter().any(|message| word(message, 1) == KEEPALIVE && word(message, 3) == 1),
        "a ping is among them"
    );
}

#[tokio::test]
async fn a_client_is_welcome() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut daemon = Daemon(theirs);
    let work = async {
        for procedure in
            [Procedure::AuthList, Procedure::ConnectOpen, Procedure::ConnectDomainEventCallbackRegisterAny]
        {
            for (asked, mut answer) in exchanges(procedure) {
                let call = daemon.expect(procedure).await;
                assert_eq!(call.arguments, asked[28..]);
                answer[20..24].copy_from_slice(&call.serial.to_be_bytes());
                daemon.send(&answer).await;
            }
        }
    };
    let (opened, ()) = tokio::join!(Connection::over(ours, BOUNDS), work);
    opened.unwrap();
}

#[tokio::test]
async fn domains_are_listed_and_found() {
    let listed = replayed(Procedure::ConnectListAllDomains, 0, |c| async move { c.domains().await });
    assert_eq!(listed.await.unwrap(), [shut_off()]);
    let found = replayed(Procedure::DomainLookupByName, 1, |c| async move { c.domain_named("web").await });
    assert_eq!(found.await.unwrap(), web());
    let found =
        replayed(Procedure::DomainLookupByUuid, 0, |c| async move { c.domain_with(web().uuid).await });
    assert_eq!(found.await.unwrap(), web());
    let missing =
        replayed(Procedure::DomainLookupByName, 2, |c| async move { c.domain_named("nosuch").await });
    let missing = missing.await.unwrap_err();
    assert_eq!(missing.refusal(), Some(Refusal::NoDomain));
    assert!(missing.to_string().contains("no domain with matching name 'nosuch'"), "{missing}");
    let state = replayed(Procedure::DomainGetState, 0, |c| async move { c.state(&shut_off()).await });
    assert_eq!(state.await.unwrap().0, State::ShutOff);
    let state = replayed(Procedure::DomainGetState, 1, |c| async move { c.state(&web()).await });
    assert_eq!(state.await.unwrap().0, State::Running);
}

#[tokio::test]
async fn a_definition_is_read_and_edited() {
    let text =
        replayed(Procedure::DomainGetXmlDesc, 0, |c| async move { c.xml(&web(), Definition::Current).await });
    let running = xml::read(&text.await.unwrap()).unwrap();
    assert_eq!((running.name.as_str(), running.uuid, running.id), ("web", Some(web().uuid), Some(1)));
    assert_eq!((running.memory, running.vcpus, running.channel), (64 << 20, 1, None));
    assert_eq!(running.serial_controllers.len(), 1);
    assert_eq!(
        running.root_ports.iter().map(|port| (port.index, port.free)).collect::<Vec<_>>(),
        [(1, false), (2, true), (3, true)]
    );
    let text =
        replayed(Procedure::DomainGetXmlDesc, 2, |c| async move { c.xml(&web(), Definition::Current).await });
    let plugged = xml::read(&text.await.unwrap()).unwrap();
    assert_eq!(plugged.channel.unwrap().socket.as_deref(), Some("/run/ioward/web.channel"));

    let text =
        replayed(
            Procedure::DomainGetXmlDesc,
            1,
            |c| async move { c.xml(&web(), Definition::Persistent).await },
        );
    let text = text.await.unwrap();
    let vf = "net0".parse().unwrap();
    let with = xml::insert(&text, &xml::hostdev(&vf, "0000:01:10.0".parse().unwrap())).unwrap();
    assert_eq!(xml::read(&with).unwrap().host_devices[0].vf, Some(vf.clone()));
    assert_eq!(xml::remove(&with, &xml::vf_alias(&vf)).unwrap().unwrap(), text);
}

#[tokio::test]
async fn devices_are_plugged_and_refusals_understood() {
    let channel = "<channel type='unix'><source mode='bind' path='/run/ioward/web.channel'/>\
                   <target type='virtio' name='org.ioward.0'/><alias name='ua-ioward'/></channel>";
    assert_eq!(xml::channel("/run/ioward/web.channel").unwrap(), channel);
    // virsh had it from a file, with its line break.
    let file = format!("{channel}\n");
    let device = file.clone();
    let plugged = |c: Connection| async move { c.attach(&web(), &device, Affects::Live).await };
    replayed(Procedure::DomainAttachDeviceFlags, 0, plugged).await.unwrap();
    let device = file.clone();
    let again = |c: Connection| async move { c.attach(&web(), &device, Affects::Both).await };
    let again = replayed(Procedure::DomainAttachDeviceFlags, 1, again).await.unwrap_err();
    assert!(
        again.to_string().contains("non unique alias detected: ua-ioward (error 67 of its part 20)"),
        "{again}"
    );
    let out = |c: Connection| async move { c.detach_alias(&web(), "ua-ioward", Affects::Live).await };
    replayed(Procedure::DomainDetachDeviceAlias, 0, out).await.unwrap();
    let missing = |c: Connection| async move { c.detach(&web(), &file, Affects::Both).await };
    let missing = replayed(Procedure::DomainDetachDeviceFlags, 0, missing).await.unwrap_err();
    assert_eq!(missing.refusal(), Some(Refusal::DeviceMissing), "{missing}");
    let pressed = |c: Connection| async move { c.press_power_button(&web()).await };
    replayed(Procedure::DomainShutdownFlags, 0, pressed).await.unwrap();
}

#[test]
fn everything_that_befell_the_domain_is_understood() {
    let mut messages = Messages::default();
    let (mut changes, mut devices, mut pings) = (Vec::new(), Vec::new(), 0);
    // In pieces that have nothing to do with messages.
    for piece in said_by("libvirt").concat().chunks(7) {
        messages.push(piece);
        while let Some(message) = messages.next().unwrap() {
            match message {
                Message::Event(Event::Lifecycle { domain, change, .. }) => changes.push((domain.id, change)),
                Message::Event(Event::DeviceAdded { alias, .. }) => devices.push(("added", alias)),
                Message::Event(Event::DeviceRemoved { alias, .. }) => devices.push(("removed", alias)),
                Message::Ping => pings += 1,
                Message::Pong | Message::Answer { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
    use Lifecycle::{Defined, Resumed, ShuttingDown, Started, Stopped};
    assert_eq!(
        changes,
        [
            (None, Defined),
            (Some(1), Resumed),
            (Some(1), Started),
            (Some(1), ShuttingDown),
            (None, Stopped),
            (Some(2), Resumed),
            (Some(2), Started)
        ]
    );
    let devices: Vec<_> = devices.iter().map(|(what, alias)| (*what, alias.as_str())).collect();
    assert_eq!(devices, [("added", "ua-ioward"), ("removed", "ua-ioward"), ("added", "ua-ioward_serial")]);
    assert_eq!(pings, 1);
}

proptest! {
    /// What libvirt said, with bytes of it changed, is read to the same end however it is cut, and never with a panic.
    #[test]
    fn a_stream_with_errors_in_it_means_the_same_in_pieces(
        changes in vec((0_usize..20_000, any::<u8>()), 0..6),
        cut in 0_usize..20_000,
    ) {
        let mut stream = said_by("libvirt").concat();
        for (at, byte) in changes {
            let at = at % stream.len();
            stream[at] = byte;
        }
        let (first, second) = stream.split_at(cut % stream.len());
        prop_assert_eq!(wire::read_stream(&[first, second]), wire::read_stream(&[&stream]));
    }

    /// A real definition, with bytes of it changed: what can be added to is given back as it was.
    #[test]
    fn a_definition_with_errors_in_it_is_refused_or_edited_without_a_trace(
        changes in vec((0_usize..20_000, prop::sample::select(b"<>/='&; ax!-?[]\n".to_vec())), 0..4),
    ) {
        let answer = exchanges(Procedure::DomainGetXmlDesc).swap_remove(1).1;
        let mut text = wire::returned(&answer[28..], wire::text).unwrap().into_bytes();
        let untouched = changes.is_empty();
        for (at, byte) in changes {
            let at = at % text.len();
            text[at] = byte;
        }
        let text = String::from_utf8(text).unwrap();
        prop_assert!(xml::read(&text).is_ok() || !untouched);
        if let Ok(with) = xml::insert(&text, &xml::channel("/run/ioward/web").unwrap()) {
            prop_assert_eq!(xml::remove(&with, xml::CHANNEL_ALIAS).unwrap().unwrap(), text);
        }
    }
}
