//! The systemd units as the package installs them, under a real service manager: level 1 has none, so one is
//! started in a process namespace of its own, with ioward's units only. It writes to level 1's overlay.
//!
//! Before this test, the unit had never run: RestrictSUIDSGID made systemd block openat2(2), so no adapter was
//! found; and with UMask=0077 the management partition could not reach its own state folder.

use std::{
    error::Error,
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ioward_tests::{
    daemon::{BOOT, SOON, VERSION, clean_up, how_the_host_is, partition, vf},
    guest::Guest,
    harness::Outcome,
    level1::{NIC1, sh, wait_until},
};
use serde_json::Value;

/// A target that wants nothing: no getty, no udev, no journal. For the same reason, the units started by hand have
/// no default dependencies, and log to a file instead of the journal; everything else in them is as installed.
const TARGET: &str = "[Unit]\nDescription=Nothing\nDefaultDependencies=no\n";
const LOG: &str = "/run/ioward-unit.log";

struct Manager(Child);

impl Manager {
    fn start() -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all("/run/systemd/system")?;
        fs::write("/run/systemd/system/lab.target", TARGET)?;
        for (unit, more) in [
            ("ioward.service", format!("[Service]\nStandardOutput=file:{LOG}\nStandardError=file:{LOG}\n")),
            ("ioward.socket", String::new()),
        ] {
            let folder = format!("/run/systemd/system/{unit}.d");
            fs::create_dir_all(&folder)?;
            fs::write(format!("{folder}/lab.conf"), format!("[Unit]\nDefaultDependencies=no\n{more}"))?;
        }
        let child = Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["env", "-i", "container=lab", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"])
            .args(["/lib/systemd/systemd", "--system", "--unit=lab.target", "--log-target=console"])
            .stdin(Stdio::null())
            .stdout(fs::File::create("/run/systemd.log")?)
            .stderr(Stdio::null())
            .spawn()?;
        let manager = Self(child);
        wait_until("systemd answers", Duration::from_secs(60), || {
            manager.systemctl("is-active lab.target").is_ok()
        })
        .map_err(|error| {
            format!("{error}: {}", fs::read_to_string("/run/systemd.log").unwrap_or_default())
        })?;
        // As it does itself where it is in no container.
        manager.inside("mount --make-rshared /")?;
        Ok(manager)
    }

    /// Runs a command inside the service manager's namespace.
    fn inside(&self, command: &str) -> Result<String, Box<dyn Error>> {
        let init = sh(&format!("pgrep --parent {}", self.0.id()))?;
        sh(&format!("nsenter --target {} --mount --pid -- {command}", init.trim()))
    }

    fn systemctl(&self, command: &str) -> Result<String, Box<dyn Error>> {
        let log = || {
            format!(
                "{}\n{}",
                fs::read_to_string("/run/systemd.log").unwrap_or_default(),
                fs::read_to_string(LOG).unwrap_or_default()
            )
        };
        self.inside(&format!("systemctl {command}")).map_err(|error| format!("{error}; {}", log()).into())
    }

    fn property(&self, name: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.systemctl(&format!("show --value --property={name} ioward.service"))?.trim().to_owned())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        clean_up();
        let _ = sh("dpkg --no-triggers --purge ioward; rm -rf /run/ioward /run/systemd /var/lib/ioward");
    }
}

fn ioward(arguments: &str) -> Result<String, Box<dyn Error>> {
    sh(&format!("/usr/bin/ioward {arguments}"))
}

pub fn they_start_restart_and_stop_the_daemon_under_a_running_partition() -> Outcome {
    let package =
        std::env::var("IOWARD_LAB_PACKAGE").map_err(|_| "cargo xtask test says where the package is")?;
    let before = how_the_host_is()?;
    sh(&format!("dpkg --no-triggers --install {package}"))?;
    let manager = Manager::start()?;
    // Type=notify: it returns once the daemon has reported that it is ready, confined as it is.
    manager.systemctl("start ioward.socket ioward.service")?;
    assert_eq!(manager.property("ActiveState")?, "active");
    assert_eq!(manager.property("StatusText")?, "Serving 0 partitions");
    let security = manager.inside("systemd-analyze security --no-pager ioward.service | tail -1")?;
    println!("{}", security.trim());

    // The service has mounts of its own, into which the host's namespaces have to come.
    sh("modprobe igbvf")?;
    manager.inside("ip netns add blue")?;
    let spec = [
        VERSION,
        &partition("web"),
        &vf("net0", "network", "mac = \"52:54:00:aa:00:01\"\nguest_may = [\"mac\"]"),
        "\n[[partition]]\nname = \"blue\"\nnetns = \"blue\"\n",
        &vf("net0", "network", &format!("pf = \"{NIC1}\"")),
    ]
    .concat();
    fs::write("/run/web.toml", spec)?;
    ioward("apply --yes -f /run/web.toml")?;
    let is_in = || manager.inside("ip -n blue link show net0").is_ok();
    assert!(is_in(), "{}; {}", ioward("events")?, manager.inside("ls -l /run/netns")?);
    manager.inside("sh -c 'ip netns del blue && ip netns add blue'")?;
    wait_until("it is in the new one", SOON, is_in)?;
    ioward("remove --yes blue")?;
    sh("modprobe -r igbvf")?;
    let mut web = Guest::connect("/run/ioward/partitions/web/console.sock".as_ref(), BOOT)?;
    web.run("ioward-agent vf set net0 mac=52:54:00:aa:00:77", SOON)?;
    let machine = || -> Result<Value, Box<dyn Error>> {
        let partitions: Value = serde_json::from_str(&ioward("partitions --json")?)?;
        assert_eq!(partitions[0]["running"], true, "{partitions}");
        Ok(partitions[0]["pid"].clone())
    };
    let pid = machine()?;

    manager.systemctl("restart ioward.service")?;
    assert_eq!(machine()?, pid, "a restart of the service is none of the machine's");
    // A daemon that dies is restarted; clients meanwhile wait at the socket, which is the service manager's.
    manager.inside(&format!("kill -9 {}", manager.property("MainPID")?))?;
    assert_eq!(machine()?, pid);
    wait_until("it is counted", SOON, || manager.property("NRestarts").is_ok_and(|count| count == "1"))?;
    web.run("ioward-agent vf set net0 mac=52:54:00:aa:00:78", SOON)?;
    assert!(sh("ip link show eth0; ip link show eth1")?.contains("52:54:00:aa:00:78"));

    manager.systemctl("stop ioward.service ioward.socket")?;
    web.run("true", SOON)?;
    manager.systemctl("start ioward.socket ioward.service")?;
    assert_eq!(machine()?, pid, "it outlives the service");
    ioward("remove --yes web --force")?;
    manager.systemctl("stop ioward.service ioward.socket")?;
    assert_eq!(how_the_host_is()?, before);
    Ok(())
}
