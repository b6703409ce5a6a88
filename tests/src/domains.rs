//! A domain of a real libvirt as a partition: what it is given while it runs, what virsh does beside that, and nothing left of it.

use std::{fs, path::Path, thread, time::Duration};

use ioward_hypervisor::{
    ChannelEnd, Hypervisor, HypervisorEvent, PartitionStatus,
    libvirt::{LibvirtConfig, LibvirtHypervisor},
};
use ioward_model::{DomainRef, Name, Owner, PartitionSpec};
use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, clean_up, how_the_host_is, vf as a_vf},
    guest::Guest,
    harness::Outcome,
    level1::{NIC0, kernel_vf, set_attribute, sh, virtual_functions, wait_until},
};
use tokio::{runtime::Runtime, sync::mpsc, time::timeout};

use crate::libvirtd::{LONG, Libvirt};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long a guest's console may be silent.
const SILENCE: Duration = Duration::from_secs(180);
const RUNTIME: &str = "/run/ioward-test/run";

/// A domain that virsh alone makes, with three root ports and no controller for channels. It finds nothing to boot from.
const WITHOUT_A_GUEST: &str = "<domain type='kvm'>
  <name>web</name>
  <metadata><m:team xmlns:m='https://example.org/team'>ops &amp; co</m:team></metadata>
  <memory unit='MiB'>192</memory><vcpu>1</vcpu>
  <os><type arch='x86_64' machine='q35'>hvm</type></os>
  <features><acpi/></features><cpu mode='host-passthrough' check='none' migratable='off'/>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <controller type='usb' model='none'/><memballoon model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/><controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>
    <serial type='unix'><source mode='bind' path='/run/web.serial'/><log file='/run/web.log' append='off'/><target port='0'/></serial>
  </devices>
</domain>";

/// What the lab's guest boots from, after the type of the machine.
const BOOT: &str = "</type><kernel>/run/lab/guest/vmlinuz</kernel><initrd>/run/lab/guest/initrd.img</initrd>
    <cmdline>console=ttyS0 loglevel=6 net.ifnames=0 nopv no_timer_check ioward.hostname=web</cmdline>";

/// Makes a domain that finds nothing to boot from.
pub fn define() -> Outcome {
    fs::write("/run/web.xml", WITHOUT_A_GUEST)?;
    sh("virsh define /run/web.xml").map(drop)
}

/// Makes the domain and starts it.
fn start(definition: &str) -> Outcome {
    fs::write("/run/web.xml", definition)?;
    sh("virsh define /run/web.xml && virsh start web").map(drop)
}

/// The console of the guest.
fn console() -> Result<Guest> {
    Guest::connect(Path::new("/run/web.serial"), SILENCE)
}

fn definitions() -> Result<(String, String)> {
    Ok((sh("virsh dumpxml web")?, sh("virsh dumpxml --inactive web")?))
}

fn name() -> Result<Name> {
    Ok("web".parse()?)
}

fn net0() -> Result<Owner> {
    Ok(Owner { partition: name()?, vf: "net0".parse()? })
}

/// The backend, with `web` as a partition.
struct Backend {
    runtime: Runtime,
    hypervisor: LibvirtHypervisor,
    events: mpsc::Receiver<HypervisorEvent>,
}

impl Backend {
    fn open() -> Result<Self> {
        // Events are followed while a test waits for its guest.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let config = LibvirtConfig { runtime_dir: RUNTIME.into(), ..LibvirtConfig::default() };
        let (hypervisor, events) = runtime.block_on(async {
            let hypervisor = LibvirtHypervisor::open(config).await?;
            let events = hypervisor.events().await;
            Result::Ok((hypervisor, events))
        })?;
        Ok(Self { runtime, hypervisor, events })
    }

    fn status(&self) -> Result<PartitionStatus> {
        let mut all = self.runtime.block_on(self.hypervisor.partitions())?;
        let status = all.pop().ok_or("it is no partition")?;
        if all.is_empty() { Ok(status) } else { Err(format!("{all:?}").into()) }
    }

    fn has_vf(&self) -> Result<bool> {
        Ok(!self.status()?.vfs.is_empty())
    }

    fn next_event(&mut self) -> Result<HypervisorEvent> {
        let event = self.runtime.block_on(async { timeout(LONG, self.events.recv()).await })?;
        event.ok_or_else(|| "nothing is told any more".into())
    }

    /// Whether the channel's socket is answered by the domain's own QEMU.
    fn is_heard(&self) -> Result<bool> {
        let end = self.runtime.block_on(self.hypervisor.connect_channel(&name()?))?;
        Ok(matches!(end, ChannelEnd::Stream(_)))
    }
}

/// Makes a VF that is bound to vfio-pci, and gives its address.
fn ready_vf() -> Result<String> {
    set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
    set_attribute(NIC0, "sriov_numvfs", "1")?;
    sh("ip link set eth0 vf 0 mac 52:54:00:aa:00:01")?;
    let vf = virtual_functions(NIC0)?.remove(0);
    set_attribute(&vf, "driver_override", "vfio-pci")?;
    fs::write("/sys/bus/pci/drivers_probe", &vf)?;
    Ok(vf)
}

pub fn a_domain_that_runs_gets_a_vf_and_a_channel_and_gives_them_back_without_a_trace() -> Outcome {
    clean_up();
    let _ = fs::remove_dir_all(RUNTIME);
    let libvirt = Libvirt::start()?;
    start(WITHOUT_A_GUEST)?;
    let (live, next) = definitions()?;
    let vf = ready_vf()?;
    let mut backend = Backend::open()?;
    let domain: DomainRef = "web".parse()?;
    backend.runtime.block_on(backend.hypervisor.define(&PartitionSpec::new(name()?, domain)))?;
    assert_eq!(definitions()?, (live.clone(), next.clone()), "being a partition changes nothing of it");
    let given = async {
        backend.hypervisor.create_channel(&name()?).await?;
        backend.hypervisor.attach_vf(&net0()?, vf.parse()?).await?;
        Outcome::Ok(())
    };
    backend.runtime.block_on(given)?;
    let status = backend.status()?;
    assert!(status.running && status.channel && status.vfs.len() == 1, "{status:?}");
    assert!(backend.is_heard()?);

    others_do_with_it_what_they_like(&mut backend, &libvirt)?;
    assert!(backend.is_heard()?, "at the same socket after each start");

    sh("virsh destroy web")?;
    let taken = async {
        backend.hypervisor.detach_vf(&net0()?, false).await?;
        backend.hypervisor.destroy_channel(&name()?).await?;
        backend.hypervisor.undefine(&name()?).await?;
        Outcome::Ok(())
    };
    backend.runtime.block_on(taken)?;
    assert_eq!(sh("virsh dumpxml --inactive web")?, next);
    assert_eq!(sh(&format!("ls {RUNTIME}/domains {RUNTIME}/channels | grep web || true"))?, "");
    sh("virsh start web")?;
    let without_id = |xml: &str| xml.lines().skip(1).collect::<Vec<_>>().join("\n");
    assert_eq!(without_id(&definitions()?.0), without_id(&live));
    drop((backend, libvirt));
    clean_up();
    Ok(())
}

fn others_do_with_it_what_they_like(backend: &mut Backend, libvirt: &Libvirt) -> Outcome {
    sh("virsh destroy web")?;
    let event = backend.next_event()?;
    assert!(
        matches!(&event, HypervisorEvent::Ended { why, .. } if why.contains("virsh destroy")),
        "{event:?}"
    );
    let status = backend.status()?;
    assert!(!status.running && status.vfs.len() == 1 && status.channel, "{status:?}");

    // While libvirt's daemon is away, it is what it was.
    libvirt.kill_daemon()?;
    assert!(backend.has_vf()?);
    libvirt.start_daemon()?;
    sh("virsh start web")?;
    let event = backend.next_event()?;
    assert!(matches!(event, HypervisorEvent::Started { .. }), "{event:?}");
    libvirt.kill_daemon()?;
    let status = backend.status()?;
    assert!(status.running && status.vfs.len() == 1 && status.pid.is_some(), "{status:?}");
    libvirt.start_daemon()?;

    // One that ends while nobody tells of it.
    libvirt.kill_daemon()?;
    sh("kill -9 $(cat /run/libvirt/qemu/web.pid)")?;
    wait_until("it is known to be off", LONG, || backend.status().is_ok_and(|status| !status.running))?;
    libvirt.start_daemon()?;
    let event = backend.next_event()?;
    assert!(matches!(event, HypervisorEvent::Ended { .. }), "{event:?}");
    sh("virsh start web")?;
    let event = backend.next_event()?;
    assert!(matches!(event, HypervisorEvent::Started { .. }), "{event:?}");
    Ok(())
}

/// By the command, as a person does it.
pub fn a_spec_gives_vfs_to_a_domain_that_runs_and_virsh_goes_on_beside_it() -> Outcome {
    clean_up();
    let before = how_the_host_is()?;
    let libvirt = Libvirt::start()?;
    start(&WITHOUT_A_GUEST.replacen("</type>", BOOT, 1))?;
    let (live, next) = definitions()?;
    let mut daemon = Daemon::start()?;
    let net0 = "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:01\"\nguest_may = [\"mac\"]";
    let shop = |domain: &str, vfs: &str| {
        [VERSION, "\n[[partition]]\nname = \"shop\"\nlibvirt = \"", domain, "\"\n", vfs].concat()
    };
    let refused = daemon.try_apply(&shop("nosuch", ""), &[])?;
    assert!(refused.status == 3 && refused.stderr.contains("virsh list --all"), "{refused:?}");
    let spec = shop("web", &a_vf("net0", "network", net0));
    let mut guest = console()?;
    daemon.apply(&spec)?;
    assert!(daemon.apply(&spec)?.contains("nothing to do"));
    the_guest_configures_its_vf(&mut guest)?;
    let shown = daemon.done(&["partitions"])?;
    assert!(shown.contains("domain web") && shown.contains("shop"), "{shown}");
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    a_guest_is_asked_and_not_believed(&daemon)?;
    daemon.apply(&spec)?;

    // What virsh does, also while this daemon is not there.
    sh("virsh destroy web")?;
    daemon.events_until("its end is told", |events| events.contains("virsh destroy"))?;
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    daemon.crash()?;
    sh("virsh start web")?;
    libvirt.kill_daemon()?;
    daemon.restart()?;
    let shown = daemon.done(&["partitions"])?;
    assert!(shown.contains("running"), "{shown}");
    libvirt.start_daemon()?;
    let mut guest = console()?;
    the_guest_configures_its_vf(&mut guest)?;

    // The domain runs on without what it was given.
    daemon.done(&["remove", "--yes", "shop"])?;
    let (live_now, next_now) = definitions()?;
    assert_eq!(next_now, next);
    assert!(!live_now.contains("org.ioward.0") && !live_now.contains("<hostdev"), "{live_now} was {live}");
    assert!(!guest.run("ip link", SOON)?.contains("52:54:00:aa"));
    assert_eq!(how_the_host_is()?, before);

    // One that is undefined gives its VFs back.
    sh("virsh destroy web")?;
    daemon.apply(&spec)?;
    sh("virsh undefine web")?;
    let is_back = || how_the_host_is().is_ok_and(|now| now == before);
    wait_until("the host has its VF back", SOON, is_back)?;
    assert_eq!(daemon.done(&["partitions", "--json"])?.trim(), "[]");
    Ok(())
}

/// libvirt says "detached" while a guest that is paused still has the VF.
fn a_guest_is_asked_and_not_believed(daemon: &Daemon) -> Outcome {
    sh("virsh suspend web")?;
    let mut detaching = daemon.begin(&["detach", "--yes", "shop", "net0"])?;
    // Far longer than an answer takes. A guest that is paused can do nothing, however slow all else is.
    thread::sleep(Duration::from_secs(10));
    assert_eq!(detaching.try_wait()?, None);
    assert!(sh("virsh dumpxml web")?.contains("ua-ioward-net0"));
    sh("virsh resume web")?;
    let detached = detaching.wait_with_output()?;
    assert!(detached.status.success(), "{detached:?}");
    let (live, next) = definitions()?;
    assert!(!live.contains("ua-ioward-net0") && !next.contains("ua-ioward-net0"));
    // Nobody has it open any more.
    assert_eq!(sh("ls -l /proc/*/fd 2>/dev/null | grep '/dev/vfio/[0-9]' || true")?, "");
    Ok(())
}

fn the_guest_configures_its_vf(guest: &mut Guest) -> Outcome {
    guest.run(
        "n=0; until ioward-agent vf list | grep net0; do sleep 1; n=$((n+1)); [ $n -lt 60 ] || exit 1; done",
        SOON,
    )?;
    guest.run("ioward-agent vf set net0 mac=52:54:00:aa:00:77", SOON)?;
    assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:77");
    let (status, refusal) = guest.try_run("ioward-agent vf set net0 vlan=100", SOON)?;
    assert!(status == 3 && refusal.contains("vlan is not in guest_may"), "{status}: {refusal}");
    Ok(())
}

/// What a person writes for a VF, and a controller for channels of the domain's own.
fn with_a_vf(vf: &str) -> String {
    let [bus, slot, function] = [&vf[5..7], &vf[8..10], &vf[11..]];
    let devices = format!(
        "<devices><controller type='virtio-serial' index='0'/>
    <hostdev mode='subsystem' type='pci' managed='no'>
      <source><address domain='0x0000' bus='0x{bus}' slot='0x{slot}' function='0x{function}'/></source>
    </hostdev>"
    );
    WITHOUT_A_GUEST.replacen("</type>", BOOT, 1).replacen("<devices>", &devices, 1)
}

/// By the command, as a person does it whose domain runs with a VF, made and bound by hand.
pub fn a_domain_that_has_a_vf_is_taken_over_as_it_is_and_released_as_it_was() -> Outcome {
    clean_up();
    let libvirt = Libvirt::start()?;
    set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
    set_attribute(NIC0, "sriov_numvfs", "3")?;
    sh("ip link set eth0 vf 0 mac 52:54:00:aa:00:01 vlan 100")?;
    let vf = virtual_functions(NIC0)?.remove(0);
    set_attribute(&vf, "driver_override", "vfio-pci")?;
    fs::write("/sys/bus/pci/drivers_probe", &vf)?;
    start(&with_a_vf(&vf))?;
    let (definitions_before, host_before) = (definitions()?, how_the_host_is()?);
    let vf_before = kernel_vf("eth0", 0)?;
    let mut guest = console()?;

    let mut daemon = Daemon::start()?;
    let refused = daemon.ioward(&["adopt", "web", "--name", "shop"])?;
    assert!(refused.status == 3 && refused.stderr.contains("--yes"), "{refused:?}");
    let file = "/run/ioward-test/shop.toml";
    let shown = daemon.done(&["adopt", "web", "--name", "shop", "--output", file, "--yes"])?;
    let spec = fs::read_to_string(file)?;
    assert!(
        shown.contains(&spec) && spec.contains("52:54:00:aa:00:01") && spec.contains("vlan = 100"),
        "{shown}"
    );
    assert_eq!(definitions()?, definitions_before);
    assert_eq!(how_the_host_is()?, host_before);
    assert!(daemon.done(&["plan", "-f", file])?.contains("nothing to do"));
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    daemon.crash_and_restart()?;
    assert!(daemon.done(&["vfs"])?.contains("shop/net0"));

    // One more, while it runs.
    let net1 = "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:02\"";
    daemon.apply(&(spec.clone() + &a_vf("net1", "network", net1)))?;
    // The agent knew of it before the guest's kernel had found the function, which takes it some five seconds.
    let found = "for n in $(seq 60); do ip link | grep 52:54:00:aa:00:02 && break; sleep 1; done | grep aa:00:02 \
        || { ip link; dmesg | tail -n 40; false; }";
    guest.run(found, SOON)?;
    guest.run("ip link | grep 52:54:00:aa:00:01 && ioward-agent vf list | grep net1", SOON)?;
    let fewer = daemon.try_apply(&spec, &["--allow-disruption"])?;
    assert_eq!(fewer.status, 0, "{fewer:?}");
    assert_eq!(kernel_vf("eth0", 0)?, vf_before, "nobody has touched the one it had");

    daemon.done(&["release", "--yes", "shop"])?;
    assert_eq!(definitions()?, definitions_before);
    assert_eq!(how_the_host_is()?, host_before);
    assert_eq!(kernel_vf("eth0", 0)?, vf_before);
    let vfs = daemon.done(&["vfs"])?;
    assert!(vfs.contains("libvirt domain web") && !vfs.contains("shop"), "{vfs}");
    guest.run("ip link | grep 52:54:00:aa:00:01", SOON)?;
    drop((daemon, libvirt));
    clean_up();
    Ok(())
}

/// libvirt's hook, as the package installs it, but for this daemon and within a bound that a test can wait for.
fn install_the_hook() -> Outcome {
    let script = fs::read_to_string("packaging/libvirt-hook")?;
    let script =
        script.replace("ioward libvirt-hook", "ioward --socket /run/ioward-test/api.sock libvirt-hook $IN");
    fs::create_dir_all("/etc/libvirt/hooks/qemu.d")?;
    fs::write(
        "/etc/libvirt/hooks/qemu.d/ioward",
        script.replacen('\n', "\nIN=$(cat /run/hook.within)\n", 1),
    )?;
    sh("chmod +x /etc/libvirt/hooks/qemu.d/ioward && echo --within 600 >/run/hook.within").map(drop)
}

/// A start that ioward is not asked for. libvirt holds the domain meanwhile, and shows what its hook says.
pub fn a_domain_started_by_hand_has_its_vfs_or_says_why_it_does_not_start() -> Outcome {
    clean_up();
    let before = how_the_host_is()?;
    install_the_hook()?;
    let libvirt = Libvirt::start()?;
    start(WITHOUT_A_GUEST)?;
    let mut daemon = Daemon::start()?;
    let net0 = "pf = \"0000:01:00.0\"\nmac = \"52:54:00:aa:00:01\"";
    let shop =
        [VERSION, "\n[[partition]]\nname = \"shop\"\nlibvirt = \"web\"\n", &a_vf("net0", "network", net0)];
    daemon.apply(&shop.concat())?;
    let is_ready = || -> Outcome {
        assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:01");
        Ok(())
    };
    is_ready()?;

    // Somebody takes all VFs of the adapter.
    sh("virsh destroy web")?;
    set_attribute(NIC0, "sriov_numvfs", "0")?;
    sh("virsh start web")?;
    is_ready()?;
    assert!(sh("virsh dumpxml web")?.contains("ua-ioward-net0"));
    // By ioward itself: the hook asks for what is being started.
    sh("virsh destroy web")?;
    daemon.done(&["start", "--yes", "shop"])?;
    sh("virsh destroy web")?;

    // Nobody is there to ask.
    daemon.crash()?;
    fs::write("/run/hook.within", "--within 3")?;
    let refused = sh("virsh start web 2>&1 && echo it started || true")?;
    println!("{refused}");
    for words in ["ioward is not running: systemctl start ioward", "virsh edit web"] {
        assert!(refused.contains(words), "{words}: {refused}");
    }
    let plain = WITHOUT_A_GUEST.replace("<name>web", "<name>plain").replace("/run/web.", "/run/plain.");
    fs::write("/run/plain.xml", plain)?;
    sh("virsh define /run/plain.xml && virsh start plain && virsh destroy plain && virsh undefine plain")?;

    fs::write("/run/hook.within", "--within 600")?;
    daemon.restart()?;
    sh("virsh start web")?;
    is_ready()?;
    // A guest that is not there does not let go.
    sh("virsh destroy web")?;
    daemon.done(&["remove", "--yes", "shop"])?;
    drop((daemon, libvirt));
    sh("rm -r /etc/libvirt/hooks")?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}
