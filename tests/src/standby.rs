//! Standbys of VFs on the real kernel and the real QEMU: a guest goes on while its VF is away, and what becomes of a VF whose guest has no
//! driver for failover. Looked at with `ip`, /proc and the guest's own eyes.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    process::{Child, Command, Stdio},
};

use ioward_hypervisor::{
    Guard, Hypervisor, PartitionStatus, StopMode, on_this_host,
    qemu::{QemuConfig, Users},
};
use ioward_model::{Owner, Spec, StandbyNic};
use ioward_tests::{
    daemon::{SOON, VERSION, clean_up, partition},
    guest::Guest,
    harness::Outcome,
    level1::{NIC0, set_attribute, sh, sh_json, virtual_functions, wait_until},
};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::Runtime;

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const RUNTIME: &str = "/run/ioward-test/run";
pub const MAC: &str = "52:54:00:aa:00:01";
/// The first of the machines' users, who is nobody's.
pub const NOBODY: u32 = 1_879_048_192;
/// A guest of four bytes, which does nothing for ever: `cli; hlt; jmp`.
const DEAF: &str = "printf '\\372\\364\\353\\375' >/run/deaf.img && truncate -s 510 /run/deaf.img && \
                    printf '\\125\\252' >>/run/deaf.img && truncate -s 1M /run/deaf.img && chmod 0666 /run/deaf.img";

fn owner(text: &str) -> Result<Owner> {
    Ok(text.parse()?)
}

/// Over a runtime folder, with a hundred users for its machines.
pub async fn hypervisor(
    runtime_dir: &str,
    nobody: u32,
) -> std::result::Result<Guard, ioward_hypervisor::HypervisorError> {
    let users =
        Users { machines: nobody..nobody + 100, boot_group: nobody, boot_group_name: "ioward".into() };
    on_this_host(QemuConfig { runtime_dir: runtime_dir.into(), users: Some(users), ..QemuConfig::default() })
        .await
}

/// Level 1 with two VFs of the first NIC on vfio-pci, whose PF is outside, in a namespace, and a bridge with the second NIC as a port. QEMU's igb
/// hands to a promiscuous PF that has VFs what this sends, too: a bridge on it would learn that the guest is out there.
pub struct Scene {
    pub runtime: Runtime,
    pub hypervisor: Option<Guard>,
    pub vfs: Vec<String>,
}

impl Scene {
    pub fn new() -> Result<Self> {
        clean_up();
        let _ = fs::remove_dir_all(RUNTIME);
        // As the daemon does for its machines.
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
        sh("modprobe -a bridge tun")?;
        set_attribute(NIC0, "sriov_drivers_autoprobe", "0")?;
        set_attribute(NIC0, "sriov_numvfs", "2")?;
        let vfs = virtual_functions(NIC0)?;
        for vf in &vfs {
            set_attribute(vf, "driver_override", "vfio-pci")?;
            fs::write("/sys/bus/pci/drivers_probe", vf)?;
        }
        sh("ip link add br0 type bridge && ip link set br0 up && ip link set eth1 master br0 && \
            ip netns add out && ip link set eth0 netns out && ip -n out addr add 10.0.0.3/24 dev eth0 && \
            ip -n out link set eth0 up")?;
        let carries =
            || sh("ip link show eth1 | grep LOWER_UP && ip -n out link show eth0 | grep LOWER_UP").is_ok();
        wait_until("the links are up", SOON, carries)?;
        let mut scene = Self {
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            hypervisor: None,
            vfs,
        };
        scene.open()?;
        Ok(scene)
    }

    /// As a daemon that takes the place of another one.
    fn open(&mut self) -> Outcome {
        drop(self.hypervisor.take());
        self.hypervisor = Some(self.runtime.block_on(hypervisor(RUNTIME, NOBODY))?);
        Ok(())
    }

    pub fn define(&self, text: &str) -> Outcome {
        let spec = Spec::parse(format!("{VERSION}{text}").as_bytes())?;
        self.run(async |hypervisor| hypervisor.define(&spec.partitions[0]).await)
    }

    fn run<T>(
        &self,
        act: impl AsyncFnOnce(&Guard) -> std::result::Result<T, ioward_hypervisor::HypervisorError>,
    ) -> Result<T> {
        let hypervisor = self.hypervisor.as_ref().ok_or("it is closed")?;
        Ok(self.runtime.block_on(act(hypervisor))?)
    }

    pub fn attach_standby(&self, to: &str, bridge: &str, mac: &str) -> Outcome {
        let (owner, nic) = (owner(to)?, StandbyNic { bridge: bridge.parse()?, mac: mac.parse()? });
        self.run(async |hypervisor| hypervisor.attach_standby(&owner, &nic).await)
    }

    fn detach_standby(&self, from: &str) -> Outcome {
        let owner = owner(from)?;
        self.run(async |hypervisor| hypervisor.detach_standby(&owner).await)
    }

    pub fn attach(&self, to: &str, vf: usize) -> Outcome {
        let (owner, function) = (owner(to)?, self.vfs[vf].parse()?);
        self.run(async |hypervisor| hypervisor.attach_vf(&owner, function).await)
    }

    pub fn detach(&self, from: &str) -> Outcome {
        let owner = owner(from)?;
        self.run(async |hypervisor| hypervisor.detach_vf(&owner, false).await)
    }

    pub fn start(&self) -> Outcome {
        let name = "web".parse()?;
        self.run(async |hypervisor| hypervisor.start(&name).await).map(drop)
    }

    fn stop(&self) -> Outcome {
        let name = "web".parse()?;
        self.run(async |hypervisor| hypervisor.stop(&name, StopMode::Force).await)
    }

    pub fn status(&self) -> Result<PartitionStatus> {
        let all = self.run(async |hypervisor| hypervisor.partitions().await)?;
        all.into_iter().next().ok_or_else(|| "there is no partition".into())
    }

    /// The node of a VF's IOMMU group.
    fn node(&self, vf: usize) -> Result<String> {
        let group = fs::read_link(format!("/sys/bus/pci/devices/{}/iommu_group", self.vfs[vf]))?;
        Ok(format!("/dev/vfio/{}", group.file_name().unwrap_or_default().to_string_lossy()))
    }

    /// Whether the machine has a VF: its QEMU has the node open.
    fn has(&self, vf: usize) -> Result<bool> {
        let pid = self.status()?.pid.ok_or("it does not run")?;
        Ok(sh(&format!("ls -l /proc/{pid}/fd"))?.contains(&format!("-> {}\n", self.node(vf)?)))
    }

    /// Whom the machine runs as.
    fn user(&self) -> Result<u32> {
        let pid = self.status()?.pid.ok_or("it does not run")?;
        Ok(fs::metadata(format!("/proc/{pid}"))?.uid())
    }

    /// Who may open a VF's node.
    fn user_of(&self, vf: usize) -> Result<u32> {
        Ok(fs::metadata(self.node(vf)?)?.uid())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.hypervisor = None;
        // The NIC in the namespace comes back when that ends.
        let _ = sh("pkill -9 busybox; ip -all netns delete; ip link del br0; rm -f /run/deaf.img");
        let _ = wait_until("the NIC is back", SOON, || sh("ip link show eth0").is_ok());
        clean_up();
        let _ = fs::remove_dir_all(RUNTIME);
    }
}

/// The ports of the bridge, but for the NIC: names and aliases.
fn taps() -> Result<Vec<(String, String)>> {
    let links = sh_json("ip -j link show master br0")?;
    let text = |link: &serde_json::Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
    let links = links.as_array().cloned().unwrap_or_default();
    let links = links.iter().filter(|link| link["ifname"] != "eth1");
    Ok(links.map(|link| (text(link, "ifname"), text(link, "ifalias"))).collect())
}

/// Pings from outside, five a second.
pub struct Pings(Child);

impl Pings {
    pub fn start() -> Result<Self> {
        let command = "exec ip netns exec out busybox ping -i 0.2 10.0.0.2";
        let log = fs::File::create("/run/ping.log")?;
        Ok(Self(Command::new("bash").args(["-c", command]).stdin(Stdio::null()).stdout(log).spawn()?))
    }

    /// What it says at its end: how many were sent, and how many have come back.
    pub fn end(mut self) -> Result<String> {
        sh(&format!("kill -INT {}", self.0.id()))?;
        self.0.wait()?;
        sh("grep transmitted /run/ping.log")
    }
}

/// The drivers of what is under the guest's failover interface, once there are so many.
pub fn lower(guest: &mut Guest, count: usize) -> Result<Vec<String>> {
    guest.run(
        &format!(
            "until [ $(ls -d /sys/class/net/*/lower_* 2>/dev/null | wc -l) = {count} ]; do sleep 1; done"
        ),
        SOON,
    )?;
    let drivers = guest.run(
        "for l in /sys/class/net/*/lower_*; do basename $(readlink -f $l/device/driver); done | sort",
        SOON,
    )?;
    Ok(drivers.lines().map(str::to_owned).collect())
}

/// The guest reaches what is outside; how many packets its VF has sent meanwhile, if it has one.
pub fn reaches(guest: &mut Guest) -> Result<u64> {
    let sent = "cat $(grep -l DRIVER=igbvf /sys/class/net/*/device/uevent | sed s:device/uevent:statistics/tx_packets:) </dev/null";
    let count = |guest: &mut Guest| -> Result<u64> { Ok(guest.run(sent, SOON)?.parse().unwrap_or(0)) };
    let before = count(guest)?;
    let pinged =
        guest.try_run("(for n in $(seq 20); do ping -c 3 -W 1 10.0.0.3 && exit 0; done; exit 1)", SOON)?;
    if pinged.0 != 0 {
        let seen =
            guest.run("ip addr; ip route; cat /proc/net/dev /proc/net/arp; dmesg | tail -n 15", SOON)?;
        let host = sh(
            "ip -d -s link; bridge fdb show br br0; bridge link; ip -n out -s link; cat /run/ping.log; true",
        )?;
        return Err(format!("the guest reaches nobody:\n{seen}\n--- the host:\n{host}").into());
    }
    Ok(count(guest)?.saturating_sub(before))
}

/// That a VF can be taken from a guest that goes on, is what makes it possible to move a guest to another adapter at all.
pub fn a_guest_goes_on_through_its_standby_while_its_vf_is_away() -> Outcome {
    let mut scene = Scene::new()?;
    scene.define(&partition("web"))?;
    for (bridge, found) in [("br7", "no interface of that name"), ("eth1", "no bridge")] {
        let refused = scene.attach_standby("web/net0", bridge, MAC).expect_err("it is no bridge").to_string();
        assert!(
            refused.contains(&format!("bridge {bridge} is needed")) && refused.contains(found),
            "{refused}"
        );
    }
    scene.attach_standby("web/net0", "br0", MAC)?;
    scene.attach_standby("web/net0", "br0", MAC)?;
    sh(&format!("ip -n out link set eth0 vf 0 mac {MAC}"))?;
    scene.attach("web/net0", 0)?;
    assert_eq!(taps()?, [], "there is no machine yet");
    scene.start()?;
    let [(tap, alias)] = taps()?.try_into().map_err(|taps| format!("{taps:?}"))?;
    assert!(tap.starts_with("iow") && alias == "ioward web/net0", "{tap} {alias}");
    let status = scene.status()?;
    assert_eq!(status.standbys, ["net0".parse()?]);
    assert!(scene.user()? > NOBODY, "QEMU is nobody in particular");

    let mut guest = Guest::connect(&status.console.ok_or("it has one")?, SOON)?;
    assert_eq!(lower(&mut guest, 2)?, ["igbvf", "virtio_net"]);
    let master = "$(ls -d /sys/class/net/*/lower_* | head -1 | cut -d/ -f5)";
    guest.run(&format!("ip addr add 10.0.0.2/24 dev {master} && ip link set {master} up"), SOON)?;
    assert!(reaches(&mut guest)? > 0, "it goes through the VF");
    let refused = scene.detach_standby("web/net0").expect_err("its VF needs it").to_string();
    assert!(refused.contains("detach web/net0 first"), "{refused}");

    let pings = Pings::start()?;
    // A daemon that has just started knows what there is.
    scene.open()?;
    assert_eq!(scene.status()?.standbys, ["net0".parse()?]);
    // Until the PF lets go of the MAC, what is for the guest never gets to the bridge. Another one than none would keep the guest from
    // letting go: its driver takes that over, and is not known for the primary any more.
    sh("ip -n out link set eth0 vf 0 mac 00:00:00:00:00:00")?;
    scene.detach("web/net0")?;
    // A guest's driver that goes registers its MAC once more, and igb forgets only the note of it, not the filter.
    sh("ip -n out link set eth0 vf 0 mac 06:54:00:aa:00:01")?;
    assert!(!scene.has(0)? && scene.user_of(0)? == 0);
    assert_eq!(lower(&mut guest, 1)?, ["virtio_net"]);
    assert_eq!(reaches(&mut guest)?, 0, "it goes through the standby");

    sh(&format!("ip -n out link set eth0 vf 0 mac {MAC}"))?;
    scene.attach("web/net0", 0)?;
    assert_eq!(lower(&mut guest, 2)?, ["igbvf", "virtio_net"]);
    assert!(reaches(&mut guest)? > 0, "it goes through the VF again");
    println!("while its VF went and came back: {}", pings.end()?.trim());

    // Another one, while it runs. No VF of its own follows.
    let count = "ls -d /sys/bus/virtio/drivers/virtio_net/virtio* | wc -l";
    assert_eq!(guest.run(count, SOON)?, "1");
    scene.attach_standby("web/net1", "br0", "52:54:00:aa:00:02")?;
    guest.run(&format!("until [ $({count}) = 2 ]; do sleep 1; done"), SOON)?;
    assert_eq!(taps()?.len(), 2);
    scene.detach_standby("web/net1")?;
    scene.detach_standby("web/net1")?;
    assert_eq!(guest.run(count, SOON)?, "1");
    assert_eq!(taps()?, [(tap.clone(), alias.clone())]);

    scene.stop()?;
    assert_eq!(taps()?, [], "its tap goes with its machine");
    // Left of a machine that has made it persistent.
    sh(&format!("ip tuntap add {tap} mode tap"))?;
    scene.start()?;
    assert_eq!(taps()?, [(tap, alias)]);
    scene.stop()?;
    scene.detach("web/net0")?;
    scene.detach_standby("web/net0")?;
    assert_eq!(scene.status()?.standbys, []);
    Ok(())
}

/// A guest with no driver for failover never gets its VF. Whoever waits for it to let go of that waits for ever, and QEMU, which was
/// told of the VF, must not plug it in when it is somebody else's.
pub fn a_vf_that_is_hidden_from_its_guest_is_taken_back_at_once() -> Outcome {
    let scene = Scene::new()?;
    sh(DEAF)?;
    scene.define(
        "\n[[partition]]\nname = \"web\"\nmemory = \"64MiB\"\nboot = { disk = \"/run/deaf.img\" }\n",
    )?;
    scene.attach_standby("web/net0", "br0", MAC)?;
    scene.start()?;
    scene.attach("web/net0", 0)?;
    scene.attach("web/net0", 0)?;
    let machine = scene.user_of(0)?;
    assert!(!scene.has(0)?, "it waits for a guest that does not negotiate");
    assert!(
        machine > NOBODY && machine == scene.user()?,
        "the machine's user may open it as soon as the guest does"
    );
    assert_eq!(scene.status()?.vfs.len(), 1, "it is the partition's all the same");
    scene.detach("web/net0")?;
    assert!(!scene.has(0)? && scene.user_of(0)? == 0);
    assert_eq!(scene.status()?.vfs, []);

    // QEMU has the first one in mind.
    let refused = scene.attach("web/net0", 1).expect_err("QEMU would plug in the other").to_string();
    assert!(refused.contains("has not negotiated") && refused.contains(&scene.vfs[0]), "{refused}");
    assert!(scene.user_of(1)? == 0 && scene.status()?.vfs.is_empty());
    scene.attach("web/net0", 0)?;
    scene.detach("web/net0")?;

    // One that came before its standby is in, and is no primary.
    scene.attach("web/net1", 1)?;
    assert!(scene.has(1)?, "without a standby nobody waits for the guest");
    let refused =
        scene.attach_standby("web/net1", "br0", "52:54:00:aa:00:02").expect_err("it is in").to_string();
    assert!(refused.contains("comes after its standby"), "{refused}");
    assert_eq!(scene.status()?.standbys, ["net0".parse()?]);
    scene.stop()?;
    scene.attach_standby("web/net1", "br0", "52:54:00:aa:00:02")?;
    // From its start on it is a primary, and hidden.
    scene.start()?;
    assert!(!scene.has(1)? && taps()?.len() == 2);
    scene.detach("web/net1")?;
    scene.stop()
}
