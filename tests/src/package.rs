//! The Debian package: installed, upgraded under a running partition, removed and purged, with this test as the
//! service manager, since level 1 has none. Triggers are left out: the index of manual pages is not ioward's.

use std::{
    env,
    error::Error,
    fs,
    os::{
        fd::OwnedFd,
        unix::net::{UnixDatagram, UnixListener},
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use ioward_tests::{
    daemon::{Answer, VERSION, clean_up, how_the_host_is, partition, vf},
    harness::Outcome,
    level1::sh,
};
use serde_json::Value;

const NOTIFY: &str = "/run/ioward-notify.sock";
const STATE: &str = "/var/lib/ioward";
/// Bound for the daemon to report that it is ready, or to end.
const SOON: Duration = Duration::from_secs(60);

/// ioward.socket and ioward.service by hand: the socket is opened first and stays, the daemon inherits it.
struct Service {
    api: UnixListener,
    /// The daemon's notifications. Read from the socket at once, as a service manager does: it holds only a few.
    told: Receiver<String>,
    daemon: Option<Child>,
}

impl Service {
    fn new() -> Result<Self, Box<dyn Error>> {
        fs::create_dir_all("/run/ioward")?;
        for socket in ["/run/ioward/api.sock", NOTIFY] {
            let _ = fs::remove_file(socket);
        }
        let notify = UnixDatagram::bind(NOTIFY)?;
        let (sender, told) = mpsc::channel();
        thread::spawn(move || {
            let mut text = [0; 200];
            while let Ok(length) = notify.recv(&mut text) {
                if sender.send(String::from_utf8_lossy(&text[..length]).into_owned()).is_err() {
                    return;
                }
            }
        });
        Ok(Self { api: UnixListener::bind("/run/ioward/api.sock")?, told, daemon: None })
    }

    fn start(&mut self) -> Result<(), Box<dyn Error>> {
        let socket = Stdio::from(OwnedFd::from(self.api.try_clone()?));
        // The shell's process becomes the daemon's.
        let passed_on = "LISTEN_PID=$$ LISTEN_FDS=1 exec /usr/bin/ioward serve 3<&0 </dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", passed_on]).stdin(socket).stdout(Stdio::null());
        command.env("NOTIFY_SOCKET", NOTIFY).env("WATCHDOG_USEC", "1000000");
        self.daemon = Some(command.spawn()?);
        self.wait_to_hear("READY=1")?;
        self.wait_to_hear("WATCHDOG=1")
    }

    /// Stops the daemon as a service manager does, and expects a clean exit.
    fn stop(&mut self) -> Outcome {
        let mut daemon = self.daemon.take().ok_or("no daemon")?;
        sh(&format!("kill -TERM {}", daemon.id()))?;
        self.wait_to_hear("STOPPING=1")?;
        let status = daemon.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the daemon: {status}").into()) }
    }

    fn wait_to_hear(&self, what: &str) -> Result<(), Box<dyn Error>> {
        let until = Instant::now() + SOON;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left).map_err(|_| format!("{what} is not told"))?;
            if told.lines().any(|line| line == what) {
                return Ok(());
            }
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let _ = sh("dpkg --no-triggers --purge ioward");
        clean_up();
        let _ = sh(&format!("rm -rf /run/ioward {NOTIFY} {STATE}"));
    }
}

fn ioward(arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let answer: Answer =
        Command::new("/usr/bin/ioward").args(arguments).stdin(Stdio::null()).output()?.into();
    if answer.status == 0 {
        Ok(answer.stdout)
    } else {
        Err(format!("ioward {arguments:?}: {answer:?}").into())
    }
}

/// The process ID of the partition's running machine.
fn machine() -> Result<u64, Box<dyn Error>> {
    let partitions: Value = serde_json::from_str(&ioward(&["partitions", "--json"])?)?;
    assert_eq!(partitions[0]["running"], true, "{partitions}");
    partitions[0]["pid"].as_u64().ok_or_else(|| format!("no pid: {partitions}").into())
}

fn is_qemu(pid: u64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("qemu-system"))
}

pub fn it_is_installed_upgraded_under_a_running_partition_and_removed() -> Outcome {
    let package = env::var("IOWARD_LAB_PACKAGE").map_err(|_| "cargo xtask test says where the package is")?;
    let before = how_the_host_is()?;
    sh(&format!("dpkg --no-triggers --install {package}"))?;
    sh("ls /usr/share/man/man1/ioward-apply.1.gz")?;
    sh("/etc/libvirt/hooks/qemu.d/ioward web started begin - </dev/null")?;
    assert!(Path::new("/lib/systemd/system/ioward.service").exists());
    let mut service = Service::new()?;
    service.start()?;
    fs::write("/run/web.toml", [VERSION, &partition("web"), &vf("net0", "network", "")].concat())?;
    ioward(&["apply", "--yes", "-f", "/run/web.toml"])?;
    let pid = machine()?;

    // The next version, with only its number changed.
    sh(&format!(
        "rm -rf /run/next && dpkg-deb --raw-extract {package} /run/next \
         && sed -i 's/^Version: .*/&+next/' /run/next/DEBIAN/control && dpkg-deb -Znone --build /run/next /run/next.deb \
         && dpkg --no-triggers --install /run/next.deb && rm -rf /run/next /run/next.deb"
    ))?;
    assert!(sh("dpkg-query --show --showformat='${Version}' ioward")?.ends_with("+next"));
    assert_eq!(machine()?, pid, "the daemon before goes on until it is restarted");
    service.stop()?;
    assert!(is_qemu(pid), "it outlives the daemon");
    service.start()?;
    assert_eq!(machine()?, pid, "and has not noticed that there is another");

    service.stop()?;
    sh("dpkg --no-triggers --remove ioward")?;
    assert!(!Path::new("/usr/bin/ioward").exists() && is_qemu(pid), "the partition outlives the package");
    // Its hook is a file that an administrator may have changed, and stays until the package is purged.
    sh("/etc/libvirt/hooks/qemu.d/ioward web prepare begin - </dev/null")?;
    assert!(Path::new(STATE).join("state.redb").exists(), "whose VF it is is not forgotten");

    sh(&format!("dpkg --no-triggers --install {package}"))?;
    service.start()?;
    assert_eq!(machine()?, pid);
    ioward(&["stop", "--yes", "web", "--force"])?;
    ioward(&["remove", "--yes", "web"])?;
    service.stop()?;
    assert_eq!(how_the_host_is()?, before);
    sh("dpkg --no-triggers --purge ioward")?;
    for gone in [
        STATE,
        "/etc/libvirt/hooks/qemu.d/ioward",
        "/etc/default/ioward",
        "/lib/systemd/system/ioward.socket",
        "/usr/bin/ioward-agent",
    ] {
        assert!(!Path::new(gone).exists(), "{gone} is left");
    }
    Ok(())
}
