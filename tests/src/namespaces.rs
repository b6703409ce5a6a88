//! Network namespaces as partitions: interfaces that are moved into them and brought home, and agents that connect from inside.

use std::{
    error::Error,
    process::{Child, Command, Stdio},
};

use ioward_tests::{
    daemon::{Answer, Daemon, SOON, VERSION, adapter, how_the_host_is, vf},
    harness::Outcome,
    level1::{NIC0, driver, kernel_vf, sh, sh_json, virtual_functions, wait_until},
};

const MAC: &str = "52:54:00:aa:00:01";

/// A Spec with one namespace that has a VF of the first NIC.
fn spec(netns: &str) -> String {
    let net0 = format!("pf = \"{NIC0}\"\nindex = 0\nmac = \"{MAC}\"\nguest_may = [\"mac\", \"reset\"]");
    [
        VERSION,
        &adapter(NIC0, "2"),
        &format!("\n[[partition]]\nname = \"web\"\nnetns = {netns}\n"),
        &vf("net0", "network", &net0),
    ]
    .concat()
}

/// The interfaces of a namespace, but for its loopback: names and MACs.
fn interfaces(namespace: &str) -> Result<Vec<(String, String)>, Box<dyn Error>> {
    let links = sh_json(&format!("ip -n {namespace} -j link"))?;
    let text = |link: &serde_json::Value, key: &str| link[key].as_str().unwrap_or_default().to_owned();
    let links = links.as_array().cloned().unwrap_or_default();
    let links = links.iter().filter(|link| link["ifname"] != "lo");
    Ok(links.map(|link| (text(link, "ifname"), text(link, "address"))).collect())
}

fn net0(mac: &str) -> Vec<(String, String)> {
    vec![("net0".to_owned(), mac.to_owned())]
}

/// An agent of partition web, outside of its container.
fn agent(daemon: &Daemon, words: &str) -> Result<Answer, Box<dyn Error>> {
    let socket = daemon.runtime_dir().join("namespaces/web/channel/channel.sock");
    let mut command = Command::new("ioward-agent");
    command.arg("--socket").arg(socket).args(words.split(' '));
    Ok(command.stdin(Stdio::null()).output()?.into())
}

/// With the VFs' own driver, which other tests expect to be absent, and without what a test leaves.
fn with_igbvf(test: fn() -> Outcome) -> Outcome {
    sh("modprobe igbvf")?;
    let tested = test();
    let left = sh("ip -all netns delete; rm -f /run/web.pid; modprobe -r igbvf");
    tested.and(left.map(drop))
}

pub fn a_namespace_gets_its_vf_configures_it_and_loses_it_with_its_end_only() -> Outcome {
    with_igbvf(in_a_namespace)
}

fn in_a_namespace() -> Outcome {
    let before = how_the_host_is()?;
    let mut daemon = Daemon::start()?;
    sh("ip netns add web; ip addr add 10.0.0.1/24 dev eth1")?;
    daemon.apply(&spec("\"web\""))?;
    let function = virtual_functions(NIC0)?[0].clone();
    assert_eq!(driver(&function).as_deref(), Some("igbvf"));
    assert_eq!(interfaces("web")?, net0(MAC));
    sh("ip -n web addr add 10.0.0.2/24 dev net0; ip -n web link set net0 up")?;
    let reaches = || sh("ip netns exec web busybox ping -c 1 -W 1 10.0.0.1").is_ok();
    wait_until("the other NIC answers", SOON, reaches)?;
    assert!(daemon.apply(&spec("\"web\""))?.contains("nothing to do"));
    let vfs = daemon.done(&["vfs"])?;
    assert!(vfs.contains("web/net0") && !vfs.contains("held by"), "{vfs}");

    // From inside, within its permissions, one agent after the other.
    let list = agent(&daemon, "vf list")?;
    assert!(list.status == 0 && list.stdout.contains(MAC), "{list:?}");
    let set = agent(&daemon, "vf set net0 mac=52:54:00:aa:00:77")?;
    assert_eq!(set.status, 0, "{set:?}");
    assert_eq!(kernel_vf("eth0", 0)?["address"], "52:54:00:aa:00:77");
    let refused = agent(&daemon, "vf set net0 vlan=100")?;
    assert!(refused.status == 3 && refused.stderr.contains("vlan is not in guest_may"), "{refused:?}");

    // A name that is taken there: the VF that was to have it stays with the host.
    sh("ip -n web link add net1 type dummy")?;
    let taken = daemon.ioward(&["attach", "web", "net1", "--class", "network", "--pf", NIC0])?;
    assert!(taken.status == 1 && taken.stderr.contains("has an interface net1 already"), "{taken:?}");
    assert_eq!(interfaces("web")?.len(), 2);
    sh("ip -n web link del net1")?;

    // The kernel brings it back, and it is the partition's all the same.
    sh("ip netns del web")?;
    daemon.events_until("it is told", |events| {
        events.contains("partition web is gone: its network namespace")
    })?;
    wait_until("it is back", SOON, || sh(&format!("ls /sys/bus/pci/devices/{function}/net/net0")).is_ok())?;
    let vfs = daemon.done(&["vfs"])?;
    assert!(vfs.contains("web/net0"), "{vfs}");
    sh("ip netns add web")?;
    let is_in = || interfaces("web").is_ok_and(|there| there == net0("52:54:00:aa:00:77"));
    wait_until("it is moved in again", SOON, is_in)?;
    // In less time than there is between two looks.
    sh("ip netns del web; ip netns add web")?;
    wait_until("it is in the new one", SOON, is_in)?;

    // Its interface ends with its driver, and both are put right.
    sh(&format!("echo {function} >/sys/bus/pci/devices/{function}/driver/unbind"))?;
    wait_until("it is in it once more", SOON, is_in)?;

    daemon.crash_and_restart()?;
    assert!(is_in());
    let list = agent(&daemon, "vf list")?;
    assert!(list.status == 0 && list.stdout.contains("52:54:00:aa:00:77"), "{list:?}");

    daemon.done(&["remove", "--yes", "web"])?;
    assert_eq!(interfaces("web")?, [], "it stays, empty: it is not ioward's");
    assert_eq!(how_the_host_is()?, before);
    assert!(!daemon.runtime_dir().join("namespaces/web").exists());
    Ok(())
}

/// A process in a network namespace of its own, as a container's first one: it has the folder of its channel, read-only, at /run/ioward.
/// Killed when dropped.
struct Container(Child);

impl Container {
    fn start(daemon: &Daemon) -> Result<Self, Box<dyn Error>> {
        let channel = daemon.runtime_dir().join("namespaces/web/channel");
        let inside = format!(
            "mount --bind -o ro {} /run/ioward && mount -o remount,bind,ro /run/ioward && exec sleep 3600",
            channel.display()
        );
        sh("mkdir -p /run/ioward")?;
        let mut unshare = Command::new("unshare");
        let process = unshare.args(["--net", "--mount", "sh", "-c", &inside]).stdin(Stdio::null()).spawn()?;
        let container = Self(process);
        // unshare becomes the shell, and that becomes sleep.
        let is_up = || container.sh("mountpoint -q /run/ioward && ! touch /run/ioward/x 2>/dev/null").is_ok();
        wait_until("the container is up", SOON, is_up)?;
        sh(&format!("echo {} >/run/web.new && mv /run/web.new /run/web.pid", container.0.id()))?;
        Ok(container)
    }

    fn sh(&self, command: &str) -> Result<String, Box<dyn Error>> {
        sh(&format!("nsenter --target {} --net --mount -- sh -c '{command}'", self.0.id()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn a_container_known_by_a_pid_file_is_served_and_keeps_no_vf_that_it_hides() -> Outcome {
    with_igbvf(in_a_container)
}

fn in_a_container() -> Outcome {
    let before = how_the_host_is()?;
    let daemon = Daemon::start()?;
    let spec = spec("{ pid_file = \"/run/web.pid\" }");
    // The host's own namespace, and a file that anybody could have written.
    for (file, why) in [
        ("echo 1 >/run/web.pid", "is the host's own"),
        ("echo 2 >/run/web.pid; chmod 666 /run/web.pid", "others than root can write it"),
    ] {
        sh(file)?;
        let refused = daemon.try_apply(&spec, &[])?;
        assert!(refused.status != 0 && refused.stderr.contains(why), "{refused:?}");
        assert_eq!(how_the_host_is()?, before);
        sh("rm /run/web.pid")?;
    }

    // Its folder has to be there before the container is.
    daemon.apply(&spec)?;
    let container = Container::start(&daemon)?;
    let is_in = |container: &Container| container.sh("ip -o link show net0").is_ok();
    wait_until("the VF is in it", SOON, || is_in(&container))?;
    let set = container.sh("ioward-agent vf set net0 mac=52:54:00:aa:00:77")?;
    assert!(set.contains("52:54:00:aa:00:77"), "{set}");
    drop(container);
    daemon.events_until("it is told", |events| events.contains("has ended"))?;

    // The next one has it again, and hides it in a namespace that has no name and no process.
    let container = Container::start(&daemon)?;
    wait_until("the VF is in it", SOON, || is_in(&container))?;
    container.sh("mount -t tmpfs none /mnt && touch /mnt/hidden && unshare --net=/mnt/hidden true && \
         ip link set net0 netns /mnt/hidden && ! ip link show net0 2>/dev/null")?;
    daemon.done(&["remove", "--yes", "web"])?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}
