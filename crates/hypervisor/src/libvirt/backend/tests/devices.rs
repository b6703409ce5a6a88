//! VFs and channels, in and out.

use std::os::unix::net::UnixListener;

use super::{
    daemon::{definition, open_group, own_pid},
    *,
};
use crate::{ChannelEnd, HypervisorError, libvirt::xml};

const VF: &str = "0000:01:10.0";

fn held(function: &str) -> Vec<(String, String)> {
    vec![("net0".to_owned(), function.to_owned())]
}

async fn attach(hypervisor: &LibvirtHypervisor) -> Result<(), HypervisorError> {
    hypervisor.attach_vf(&owner("net0"), VF.parse().unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_running_domain_gets_a_vf_and_a_channel_and_is_as_before_when_they_are_taken() {
    let host = Host::new();
    host.world().start("web");
    let (live, next) = host.definitions();
    let hypervisor = with_web(&host).await;
    assert_eq!(host.calls(), [""; 0], "nothing of it is changed by its being a partition");

    hypervisor.create_channel(&name("web")).await.unwrap();
    attach(&hypervisor).await.unwrap();
    let controller =
        ["+ua-ioward_serial next", "+ua-ioward next", "+ua-ioward_serial live", "+ua-ioward live"];
    assert_eq!(host.calls(), [&controller[..], &["+ua-ioward-net0 next", "+ua-ioward-net0 live"]].concat());
    let now = status(&hypervisor).await;
    assert!(now.running && now.channel, "{now:?}");
    assert_eq!((vfs(&now), now.pid), (held(VF), Some(own_pid())));

    hypervisor.create_channel(&name("web")).await.unwrap();
    attach(&hypervisor).await.unwrap();
    assert_eq!(host.calls(), [""; 0], "it has them already");

    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    assert_eq!(host.world().web().persistent, next);
    // A machine that runs keeps the controller: libvirt can't take one out.
    let left = host.world().web().live.clone().unwrap();
    assert_eq!(xml::remove(&left, xml::CONTROLLER_ALIAS).unwrap(), live);
    let now = status(&hypervisor).await;
    assert_eq!((vfs(&now), now.channel), (vec![], false));

    host.calls();
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    assert_eq!(host.calls(), [""; 0], "they are gone already");
    hypervisor.undefine(&name("web")).await.unwrap();
    assert_eq!(host.world().web().persistent, next);
    assert!(!host.folder.path().join("run/domains/web").exists());
}

#[tokio::test(start_paused = true)]
async fn what_is_half_there_is_made_whole_and_half_gone_is_taken_whole() {
    let host = Host::new();
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    // Somebody takes it out of the machine alone.
    host.world().unplugged("web", "ua-ioward-net0");
    host.calls();
    attach(&hypervisor).await.unwrap();
    assert_eq!(host.calls(), ["+ua-ioward-net0 live"]);
    host.world().unplugged("web", "ua-ioward-net0");
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(host.calls(), ["-ua-ioward-net0 next"]);
    assert!(!host.world().web().persistent.as_ref().unwrap().contains("ua-ioward"));
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_a_free_slot_is_left_as_it_was_and_one_that_is_off_gets_a_slot() {
    let host = Host::new();
    host.world().web().persistent = Some(definition("web", UUID, 1));
    host.world().start("web");
    let (live, next) = host.definitions();
    let hypervisor = with_web(&host).await;
    for error in
        [attach(&hypervisor).await.unwrap_err(), hypervisor.create_channel(&name("web")).await.unwrap_err()]
    {
        let error = error.to_string();
        assert!(error.contains("No more available PCI slots") && error.contains("pcie-root-port"), "{error}");
    }
    assert_eq!(host.definitions(), (live, next.clone()));
    // Whatever the language of the daemon.
    host.world().no_slot = "interner Fehler: Keine freien PCI-Slots mehr";
    let error = attach(&hypervisor).await.unwrap_err().to_string();
    assert!(error.contains("Keine freien") && error.contains("pcie-root-port"), "{error}");
    let now = status(&hypervisor).await;
    assert_eq!((vfs(&now), now.channel), (vec![], false));

    host.world().stop("web", 1);
    host.calls();
    attach(&hypervisor).await.unwrap();
    hypervisor.create_channel(&name("web")).await.unwrap();
    let made = ["+ua-ioward_port2 next", "+ua-ioward-net0 next"];
    let channel = ["+ua-ioward_port3 next", "+ua-ioward_serial next", "+ua-ioward next"];
    assert_eq!(host.calls(), [&made[..], &channel].concat());
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    assert_eq!(host.world().web().persistent, next);
}

#[tokio::test(start_paused = true)]
async fn a_transient_domain_gets_what_it_is_given_as_long_as_it_runs() {
    let host = Host::new();
    host.world().start("web");
    host.world().undefine("web");
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    hypervisor.create_channel(&name("web")).await.unwrap();
    assert!(host.calls().iter().all(|call| call.ends_with("live")));
    assert_eq!(vfs(&status(&hypervisor).await), held(VF));
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    assert!(!host.world().web().live.as_ref().unwrap().contains("org.ioward"));
}

#[tokio::test(start_paused = true)]
async fn what_others_gave_the_domain_is_never_touched() {
    let host = Host::new();
    let with = |device: &str| xml::insert(&definition("web", UUID, 4), device).unwrap();
    let foreign = "<hostdev type='pci' managed='yes'><source><address bus='1' slot='0x10'/></source>\
                   <alias name='ua-ioward-net0'/></hostdev>";
    let by_hand = foreign.replace("ua-ioward-net0", "hostdev0");
    for (device, said) in
        [(foreign, "aliases that begin with ua-ioward are ioward's"), (&by_hand, "as hostdev0; take it out")]
    {
        host.world().web().persistent = Some(with(device));
        let hypervisor = with_web(&host).await;
        let error = attach(&hypervisor).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
        if device == foreign {
            // As it was not given, it is not taken either.
            hypervisor.detach_vf(&owner("net0"), true).await.unwrap();
        }
        assert_eq!(host.calls(), [""; 0]);
        assert_eq!(host.world().web().persistent, Some(with(device)));
        assert_eq!(vfs(&status(&hypervisor).await), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_vf_is_not_given_as_another_one_that_is_there() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    let other = "0000:01:10.2".parse().unwrap();
    let error = hypervisor.attach_vf(&owner("net0"), other).await.unwrap_err().to_string();
    assert!(error.contains("0000:01:10.0 already"), "{error}");
    assert_eq!(vfs(&status(&hypervisor).await), held(VF));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_does_not_let_go_keeps_its_vf_in_both_definitions_whatever_libvirt_says() {
    let host = Host::new();
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    let next = host.world().web().persistent.clone();
    host.world().web().stubborn = true;
    host.calls();
    let begun = tokio::time::Instant::now();
    let error = hypervisor.detach_vf(&owner("net0"), false).await.unwrap_err();
    assert!(matches!(error, HypervisorError::GuestUnresponsive { .. }), "{error}");
    assert!(error.to_string().contains("let go of net0 (it is paused: virsh resume)"), "{error}");
    assert!((30..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    let calls = host.calls();
    assert!(calls.len() > 3 && calls.iter().all(|call| call == "-ua-ioward-net0 live"), "{calls:?}");
    assert_eq!(host.world().web().persistent, next);
    assert_eq!(vfs(&status(&hypervisor).await), held(VF));

    // It does what it was asked for later, when nobody waits for it any more.
    let mut events = hypervisor.events().await;
    host.world().obey("web");
    let event = next_event(&mut events).await;
    assert!(
        matches!(&event, HypervisorEvent::Detached { owner: it, .. } if *it == owner("net0")),
        "{event:?}"
    );
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

async fn next_event(events: &mut mpsc::Receiver<HypervisorEvent>) -> HypervisorEvent {
    super::next(events).await
}

#[tokio::test(start_paused = true)]
async fn a_vf_is_out_when_its_guest_lets_go_and_qemu_has_closed_it() {
    let host = Host::new();
    host.world().start("web");
    let config = host.config();
    host.puts_into_group(VF, "11");
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    open_group(&config.proc, "11", &config.devices);
    host.world().web().stubborn = true;
    let closing = async {
        tokio::time::sleep(std::time::Duration::from_secs(8)).await;
        host.world().obey("web");
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        std::fs::remove_file(config.proc.join(format!("{}/fd/11", own_pid()))).unwrap();
    };
    let begun = tokio::time::Instant::now();
    let net0 = owner("net0");
    let (detached, ()) = tokio::join!(hypervisor.detach_vf(&net0, false), closing);
    detached.unwrap();
    assert!(begun.elapsed().as_secs() >= 11, "{:?}", begun.elapsed());
    assert_eq!(vfs(&status(&hypervisor).await), []);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_in_the_middle_leaves_nothing_that_doing_it_again_or_undoing_it_does_not_mend() {
    for undo in [false, true] {
        for dies_with in ["+ua-ioward-net0 next", "+ua-ioward-net0 live"] {
            let mut host = Host::new();
            host.world().start("web");
            let before = host.world().web().persistent.clone();
            let hypervisor = with_web(&host).await;
            host.world().dies_with = Some(dies_with);
            let error = attach(&hypervisor).await.unwrap_err();
            assert!(matches!(error, HypervisorError::InDoubt { .. }), "{error}");
            assert_eq!(vfs(&status(&hypervisor).await), held(VF), "nobody else may have it");
            host.kill_daemon().await;
            host.start_daemon();
            let is_in = dies_with.ends_with("live");
            let lacks = loop {
                let lacks = status(&hypervisor).await.lacks;
                // Nothing is known before it is connected again.
                if is_in || !lacks.is_empty() {
                    break lacks;
                }
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            };
            assert_eq!(lacks.is_empty(), is_in, "{lacks:?}: it takes it at once");
            if undo {
                hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
                assert_eq!(host.world().web().persistent, before);
                assert_eq!(vfs(&status(&hypervisor).await), []);
            } else {
                attach(&hypervisor).await.unwrap();
                let world = host.world();
                let dom = &world.domains[0];
                for definition in [&dom.live, &dom.persistent] {
                    assert!(definition.as_ref().unwrap().contains("ua-ioward-net0"));
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_vf_is_not_taken_for_gone_because_nobody_can_say_so() {
    for dies_with in ["-ua-ioward-net0 live", "-ua-ioward-net0 next"] {
        let mut host = Host::new();
        host.world().start("web");
        let hypervisor = with_web(&host).await;
        attach(&hypervisor).await.unwrap();
        host.world().dies_with = Some(dies_with);
        let error = hypervisor.detach_vf(&owner("net0"), false).await.unwrap_err();
        assert!(matches!(error, HypervisorError::InDoubt { .. }), "{error}");
        assert_eq!(vfs(&status(&hypervisor).await), held(VF));
        host.kill_daemon().await;
        host.start_daemon();
        hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
        assert_eq!(vfs(&status(&hypervisor).await), []);
        assert_eq!(host.definitions().1, Some(definition("web", UUID, 4)));
    }
}

/// libvirt's daemon was killed when it had just answered that a VF was out of a domain that was off. The VF passed for taken out, and was
/// the domain's for ever all the same: nobody looked again, and its driver could not be changed.
#[tokio::test(start_paused = true)]
async fn a_vf_that_is_out_counts_as_out_only_when_somebody_has_seen_it() {
    let mut host = Host::new();
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    host.world().dies_after = Some("-ua-ioward-net0 next");
    let error = hypervisor.detach_vf(&owner("net0"), false).await.unwrap_err();
    assert!(matches!(error, HypervisorError::InDoubt { .. }), "{error}");
    assert_eq!(vfs(&status(&hypervisor).await), held(VF));
    host.kill_daemon().await;
    host.start_daemon();
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
    assert_eq!(host.definitions().1, Some(definition("web", UUID, 4)));
}

/// libvirt's daemon died when QEMU had obeyed and before that was written down. The next one knew nothing of the VF, and whoever asked
/// for it again was told "Duplicate device ID" until the domain was turned off.
#[tokio::test(start_paused = true)]
async fn a_vf_that_qemu_has_and_libvirt_does_not_know_of_is_given() {
    let mut host = Host::new();
    host.world().start("web");
    let config = host.config();
    host.puts_into_group(VF, "11");
    let hypervisor = with_web(&host).await;
    let live = host.definitions().0;
    host.world().dies_with = Some("+ua-ioward-net0 live");
    attach(&hypervisor).await.unwrap_err();
    open_group(&config.proc, "11", &config.devices);
    host.kill_daemon().await;
    let web = |world: &mut daemon::World| {
        world.web().live.clone_from(&live);
        world.web().unknown.insert("ua-ioward-net0".to_owned());
    };
    web(&mut host.world());
    host.start_daemon();
    attach(&hypervisor).await.unwrap();
    let status = status(&hypervisor).await;
    assert_eq!((vfs(&status), status.lacks), (held(VF), Vec::new()));
    assert!(host.definitions().1.unwrap().contains("ua-ioward-net0"), "and it has it at its next start");

    // libvirt takes its place on the bus for free: what comes after it can't be given, and that is said.
    host.world().web().unknown.insert("ua-ioward-net1".to_owned());
    let refused = hypervisor.attach_vf(&owner("net1"), "0000:01:10.2".parse().unwrap()).await.unwrap_err();
    assert!(
        refused.to_string().contains("has net0 too, which libvirt's daemon did not write down"),
        "{refused}"
    );

    // One that it has not, whatever the reason, is not given.
    std::fs::remove_file(config.proc.join(format!("{}/fd/11", own_pid()))).unwrap();
    attach(&hypervisor).await.unwrap_err();
}

#[tokio::test(start_paused = true)]
async fn a_vf_that_libvirt_does_not_answer_about_stays_the_domains() {
    let host = Host::new();
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    host.world().hangs_at = Some("+ua-ioward-net0 live");
    let begun = tokio::time::Instant::now();
    let error = attach(&hypervisor).await.unwrap_err();
    assert!(matches!(error, HypervisorError::InDoubt { .. }), "{error}");
    let error = error.to_string();
    assert!(error.contains("did not answer to attach a device within 300 s"), "{error}");
    assert!(begun.elapsed().as_secs() < 310, "{:?}", begun.elapsed());
    assert_eq!(vfs(&status(&hypervisor).await), held(VF), "it may get it yet");
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
    assert_eq!(host.definitions().1, Some(definition("web", UUID, 4)));
}

#[tokio::test(start_paused = true)]
async fn this_daemon_may_end_in_the_middle_and_the_next_one_says_that_the_vf_is_there() {
    let host = Host::new();
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    // It is in the persistent definition only.
    host.world().dies_with = Some("+ua-ioward-net0 next");
    attach(&hypervisor).await.unwrap_err();
    drop(hypervisor);
    let mut host = host;
    host.kill_daemon().await;
    host.start_daemon();
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), held(VF), "so that it is taken out again");
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(host.world().web().persistent, Some(definition("web", UUID, 4)));
}

#[tokio::test(start_paused = true)]
async fn a_channel_at_another_domains_socket_is_replaced() {
    let host = Host::new();
    let copied = xml::insert(&definition("web", UUID, 4), &xml::serial_controller(0)).unwrap();
    let copied = xml::insert(&copied, &xml::channel("/run/ioward/channels/other.sock").unwrap()).unwrap();
    host.world().web().persistent = Some(copied);
    host.world().start("web");
    let hypervisor = with_web(&host).await;
    assert!(!status(&hypervisor).await.channel);
    hypervisor.create_channel(&name("web")).await.unwrap();
    assert!(status(&hypervisor).await.channel);
    let world = host.world();
    for definition in [&world.domains[0].live, &world.domains[0].persistent] {
        let facts = xml::read(definition.as_ref().unwrap()).unwrap();
        let socket = facts.channel.unwrap().socket.unwrap();
        assert!(socket.ends_with("run/channels/web.sock"), "{socket}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_others_use_by_now_stays() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    hypervisor.create_channel(&name("web")).await.unwrap();
    let agent = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/>\
                 <address type='virtio-serial' controller='0' bus='0' port='2'/></channel>";
    let with = host.world().web().persistent.clone().unwrap();
    host.world().web().persistent = Some(xml::insert(&with, agent).unwrap());
    hypervisor.destroy_channel(&name("web")).await.unwrap();
    let left = host.world().web().persistent.clone().unwrap();
    assert!(
        left.contains(xml::CONTROLLER_ALIAS) && left.contains("guest_agent") && !left.contains("org.ioward")
    );
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_used_only_where_the_domains_own_qemu_answers() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    hypervisor.create_channel(&name("web")).await.unwrap();
    let error = hypervisor.connect_channel(&name("web")).await.unwrap_err();
    assert!(matches!(error, HypervisorError::NotRunning(_)), "{error}");
    hypervisor.start(&name("web")).await.unwrap();
    let error = hypervisor.connect_channel(&name("web")).await.unwrap_err().to_string();
    assert!(error.contains("web.sock"), "{error}");
    // This process plays QEMU.
    let socket = host.config().runtime_dir.join("channels/web.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let end = hypervisor.connect_channel(&name("web")).await.unwrap();
    assert!(matches!(end, ChannelEnd::Stream(_)), "{end:?}");
    // Another domain's machine listens there.
    std::fs::write(host.config().pid_files.join("web.pid"), "1").unwrap();
    std::fs::create_dir(host.config().proc.join("1")).unwrap();
    std::fs::write(host.config().proc.join("1/cmdline"), format!("qemu\0-uuid\0{UUID}\0")).unwrap();
    let stat = "1 (qemu) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 5 1 2 3\n";
    std::fs::write(host.config().proc.join("1/stat"), stat).unwrap();
    host.world().unplugged("web", "ua-ioward_serial");
    let error = loop {
        match hypervisor.connect_channel(&name("web")).await {
            Ok(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            Err(error) => break error.to_string(),
        }
    };
    assert!(error.contains("which is not its QEMU"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_a_domain_has_already_can_be_listed_before_it_is_a_partition() {
    let host = Host::new();
    let by_hand = "<hostdev type='pci' managed='no'><source><address bus='1' slot='0x10' function='4'/></source></hostdev>";
    let interface = "<interface type='hostdev' managed='yes'><source><address bus='1' slot='0x10' function='2'/></source></interface>";
    let with = xml::insert(&definition("web", UUID, 4), by_hand).unwrap();
    host.world().web().persistent = Some(with.clone());
    host.world().start("web");
    host.world().web().persistent = Some(xml::insert(&with, interface).unwrap());
    let hypervisor = LibvirtHypervisor::open(host.config()).await.unwrap();
    let found = hypervisor.adoptable(&"web".parse().unwrap()).await.unwrap();
    assert_eq!(
        (found.name.as_str(), found.uuid.as_str(), found.running, found.persistent),
        ("web", UUID, true, true)
    );
    let [interface, by_hand] = &found.functions[..] else { panic!("{found:?}") };
    assert_eq!(
        (by_hand.function.to_string().as_str(), by_hand.live, by_hand.next),
        ("0000:01:10.4", true, true)
    );
    assert!(!by_hand.managed && !by_hand.interface);
    assert!(interface.managed && interface.interface && !interface.live && interface.next);
    assert_eq!(hypervisor.partitions().await.unwrap(), []);
}

/// A definition comes from whoever may define domains.
#[tokio::test(start_paused = true)]
async fn a_hostile_definition_is_an_error_and_the_domain_is_left_alone() {
    let laughs: String =
        (1..20).map(|n| format!("<!ENTITY l{n} '{}'>", format!("&l{};", n - 1).repeat(10))).collect();
    let of = |name: &str| format!("<domain><name>{name}</name><memory>1</memory><devices/></domain>");
    for (text, said) in [
        (format!("<domain>{}</domain>", "x".repeat(10 << 20)), "too long"),
        (
            format!("<!DOCTYPE domain [<!ENTITY l0 'ha'>{laughs}]>{}", of("&l19;")),
            "not XML as libvirt writes it",
        ),
        (
            format!("<!DOCTYPE domain [<!ENTITY f SYSTEM 'file:///etc/hostname'>]>{}", of("&f;")),
            "not XML as libvirt writes it",
        ),
        (format!("<domain>{}{}</domain>", "<a>".repeat(90_000), "</a>".repeat(90_000)), "no usable <name>"),
        (of("web")[..40].to_owned(), "not XML as libvirt writes it"),
        (String::new(), "not XML as libvirt writes it"),
        (of("../../etc/passwd"), "no usable <name>"),
    ] {
        let host = Host::new();
        let hypervisor = with_web(&host).await;
        attach(&hypervisor).await.unwrap();
        host.calls();
        host.world().web().persistent = Some(text.clone());
        for error in [
            hypervisor.attach_vf(&owner("net1"), "0000:01:10.2".parse().unwrap()).await.unwrap_err(),
            hypervisor.detach_vf(&owner("net0"), false).await.unwrap_err(),
            hypervisor.create_channel(&name("web")).await.unwrap_err(),
            hypervisor.destroy_channel(&name("web")).await.unwrap_err(),
        ] {
            let error = error.to_string();
            assert!(error.contains(said) && error.len() < 1000, "{said}: {error}");
        }
        assert_eq!(host.calls(), [""; 0]);
        assert!(host.world().web().persistent.as_ref() == Some(&text));
        assert_eq!(vfs(&status(&hypervisor).await), held(VF), "it is as it was last seen");
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_under_an_alias_of_iowards_is_never_touched() {
    for (alias, is_channel) in [("ua-ioward-net0", false), ("ua-ioward", true)] {
        let host = Host::new();
        let disk = format!("<disk type='file'><target dev='vdx'/><alias name='{alias}'/></disk>");
        let with = xml::insert(&definition("web", UUID, 4), &disk).unwrap();
        host.world().web().persistent = Some(with.clone());
        for runs in [false, true] {
            if runs {
                host.world().start("web");
            }
            let hypervisor = with_web(&host).await;
            let put = match is_channel {
                true => hypervisor.create_channel(&name("web")).await,
                false => attach(&hypervisor).await,
            };
            let error = put.unwrap_err().to_string();
            assert!(
                error.contains("<disk>") && error.contains(alias) && error.contains("left alone"),
                "{error}"
            );
            // What was never given is not taken either, whether that is said or not.
            let _ = hypervisor.detach_vf(&owner("net0"), true).await;
            let _ = hypervisor.destroy_channel(&name("web")).await;
            assert_eq!(host.calls(), [""; 0]);
            assert_eq!(host.world().web().persistent, Some(with.clone()));
            hypervisor.undefine(&name("web")).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_is_renamed_or_undefined_in_the_middle_is_told_of_and_nothing_is_lost() {
    let host = Host::new();
    let hypervisor = with_web(&host).await;
    attach(&hypervisor).await.unwrap();
    host.world().rename("web", "www");
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    attach(&hypervisor).await.unwrap();
    assert!(host.world().dom("www").persistent.as_ref().unwrap().contains("ua-ioward-net0"));
    host.world().undefine("www");
    let error = hypervisor.attach_vf(&owner("net1"), "0000:01:10.2".parse().unwrap()).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("no such domain any more") && error.contains("virsh define"), "{error}");
    assert_eq!(
        vfs(&status(&hypervisor).await),
        held(VF),
        "nobody else may have it before it is taken from it"
    );
    hypervisor.detach_vf(&owner("net0"), false).await.unwrap();
    assert_eq!(vfs(&status(&hypervisor).await), []);
}
