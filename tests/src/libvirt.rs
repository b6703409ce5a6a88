//! ioward's client of libvirt, and a real one.

use std::future::Future;
use std::os::unix::net::UnixStream;

use ioward_hypervisor::libvirt::{
    Affects, Bounds, Connection, Definition, Domain, Event, Lifecycle, Link, News, Refusal, State, sockets,
    xml,
};
use ioward_tests::harness::Outcome;
use ioward_tests::level1::sh;

use crate::libvirtd::{LONG, Libvirt};

const UUID: &str = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0";
const SOCKET: &str = "/run/ioward-libvirt/web.channel";

/// A domain that finds nothing to boot from: none of this needs a guest. What ioward does not know is in it too.
const WEB: &str = "<domain type='kvm'>
  <name>web</name><uuid>4dea22b3-1d52-d8f3-2516-782e98ab3fa0</uuid>
  <metadata><m:team xmlns:m='https://example.org/team'>ops &amp; co</m:team></metadata>
  <memory unit='MiB'>64</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features><cpu mode='host-passthrough' check='none' migratable='off'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/><memballoon model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
  </devices>
</domain>";

/// The next thing that befell the link.
async fn next(link: &mut Link) -> Result<News, Box<dyn std::error::Error>> {
    tokio::time::timeout(LONG, link.next()).await.map_err(|_| "nothing happened".into())
}

/// Waits until it is connected.
async fn connected(link: &mut Link) -> Result<Connection, Box<dyn std::error::Error>> {
    loop {
        match next(link).await? {
            News::Connected(connection) => return Ok(connection),
            News::NotConnected(error) => println!("{error}"),
            other => return Err(format!("{other:?}, and it should be connected first").into()),
        }
    }
}

/// Waits for an event and gives those that came before it, too.
async fn until(link: &mut Link, is_it: impl Fn(&Event) -> bool) -> Outcome {
    let mut seen = Vec::new();
    loop {
        match next(link).await.map_err(|error| format!("{error} after {seen:?}"))? {
            News::Event(event) if is_it(&event) => return Ok(()),
            News::Event(event) => seen.push(event),
            other => return Err(format!("{other:?} after {seen:?}").into()),
        }
    }
}

async fn until_changed(link: &mut Link, to: Lifecycle) -> Outcome {
    until(link, |event| {
        matches!(event, Event::Lifecycle { domain, change, .. } if *change == to && domain.uuid.to_string() == UUID)
    })
    .await
}

fn block_on(future: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

pub fn a_domain_is_read_changed_and_followed_and_the_daemon_may_be_killed() -> Outcome {
    let libvirt = Libvirt::start()?;
    std::fs::write("/run/web.xml", WEB)?;
    block_on(async {
        let mut link = Link::new(sockets(), Bounds::default());
        let connection = connected(&mut link).await?;
        assert!(connection.version().await?.0 >= 10);
        let nobody = connection.domain_named("web").await.expect_err("there is none yet");
        assert_eq!(nobody.refusal(), Some(Refusal::NoDomain), "{nobody}");

        sh("virsh define /run/web.xml")?;
        until_changed(&mut link, Lifecycle::Defined).await?;
        let domains = connection.domains().await?;
        let [web] = &domains[..] else { return Err(format!("{domains:?}").into()) };
        assert_eq!((web.name.as_str(), web.uuid.to_string().as_str(), web.id), ("web", UUID, None));
        assert_eq!(&connection.domain_with(web.uuid).await?, web);
        assert_eq!(connection.state(web).await?.0, State::ShutOff);
        let defined = connection.xml(web, Definition::Persistent).await?;
        assert_eq!(defined.trim_end(), sh("virsh dumpxml --inactive web")?.trim_end());

        sh("virsh start web")?;
        until_changed(&mut link, Lifecycle::Started).await?;
        let web = connection.domain_named("web").await?;
        assert!(web.id.is_some());
        let running = connection.xml(&web, Definition::Current).await?;
        assert_eq!(running.trim_end(), sh("virsh dumpxml web")?.trim_end());
        plug_the_channel(&connection, &mut link, &web).await?;

        sh("virsh destroy web")?;
        until_changed(&mut link, Lifecycle::Stopped).await?;
        sh("virsh start web")?;
        until_changed(&mut link, Lifecycle::Started).await?;
        UnixStream::connect(SOCKET).map_err(|error| format!("the channel after a start: {error}"))?;

        libvirt.kill_daemon()?;
        let lost = next(&mut link).await?;
        assert!(matches!(&lost, News::Lost(_)), "{lost:?}");
        let lost = connection.domains().await.expect_err("it is lost");
        assert!(lost.to_string().contains("the connection to libvirt ended"), "{lost}");
        let refused = next(&mut link).await?;
        assert!(matches!(&refused, News::NotConnected(_)), "{refused:?}");
        libvirt.start_daemon()?;
        let connection = connected(&mut link).await?;
        let web = connection.domain_named("web").await?;
        assert_eq!(connection.state(&web).await?.0, State::Running, "it lives on");

        connection.detach_alias(&web, xml::CHANNEL_ALIAS, Affects::Both).await?;
        let out = |event: &Event| matches!(event, Event::DeviceRemoved { alias, .. } if alias == xml::CHANNEL_ALIAS);
        until(&mut link, out).await?;
        connection.turn_off(&web).await?;
        until_changed(&mut link, Lifecycle::Stopped).await?;
        let again = connection.turn_off(&web).await.expect_err("it is off");
        assert_eq!(again.refusal(), Some(Refusal::OperationInvalid), "{again}");
        edit_the_definition(&connection, &web).await
    })
}

/// Into the machine that runs, which has no controller for it yet.
async fn plug_the_channel(connection: &Connection, link: &mut Link, web: &Domain) -> Outcome {
    let channel = xml::channel(SOCKET)?;
    let refused = connection.attach(web, &channel, Affects::Live).await.expect_err("it has no controller");
    assert_eq!(refused.refusal(), Some(Refusal::NoSerialController), "{refused}");
    let ports = xml::read(&connection.xml(web, Definition::Current).await?)?;
    assert_eq!(ports.free_root_ports().count(), 3, "{ports:?}");

    connection.attach(web, &xml::serial_controller(0), Affects::Both).await?;
    connection.attach(web, &channel, Affects::Both).await?;
    until(link, |event| matches!(event, Event::DeviceAdded { alias, .. } if alias == xml::CHANNEL_ALIAS))
        .await?;
    for which in [Definition::Current, Definition::Persistent] {
        let facts = xml::read(&connection.xml(web, which).await?)?;
        let socket = facts.channel.as_ref().and_then(|channel| channel.socket.as_deref());
        assert_eq!(socket, Some(SOCKET), "{which:?}");
        assert_eq!(
            (facts.serial_controllers[0].index, facts.serial_controllers[0].is_ours),
            (0, true),
            "{facts:?}"
        );
        assert_eq!((facts.free_root_ports().count(), &facts.foreign[..]), (2, &[][..]), "{facts:?}");
    }
    UnixStream::connect(SOCKET)?;
    Ok(())
}

/// Of a domain that does not run, by its text.
async fn edit_the_definition(connection: &Connection, web: &Domain) -> Outcome {
    let before = connection.xml(web, Definition::Persistent).await?;
    let vf = "net0".parse()?;
    let with = xml::insert(&before, &xml::hostdev(&vf, "0000:01:10.0".parse()?))?;
    let with = xml::insert(&with, &xml::channel(SOCKET)?)?;
    connection.define(&with).await?;
    let defined = connection.xml(web, Definition::Persistent).await?;
    let facts = xml::read(&defined)?;
    assert_eq!(
        (facts.host_devices[0].vf.as_ref(), facts.host_devices[0].managed),
        (Some(&vf), false),
        "{facts:?}"
    );
    assert!(facts.channel.is_some(), "{facts:?}");

    let without = xml::remove(&defined, &xml::vf_alias(&vf))?.ok_or("it was there")?;
    let without = xml::remove(&without, xml::CHANNEL_ALIAS)?.ok_or("it was there")?;
    assert_eq!(without, before, "what libvirt has made of it is taken out without a trace");
    connection.define(&without).await?;
    assert_eq!(connection.xml(web, Definition::Persistent).await?, before);
    Ok(())
}
