//! Two privileges, on the real kernel: the users of the daemon's processes and of the machines, the permissions of
//! each, and the reach of a compromised management partition.

use std::{error::Error, fs, os::unix::fs::MetadataExt, process::Command};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, partition, vf},
    harness::Outcome,
    level1::{NIC0, sh, wait_until},
};
use serde_json::Value;

const MAC: &str = "52:54:00:aa:00:01";

fn two_partitions(daemon: &Daemon) -> Outcome {
    let nic = |mac: &str| vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{mac}\""));
    let evil = [&partition("evil"), &nic("52:54:00:aa:00:02")[..]].concat();
    daemon.apply(
        &[VERSION, "[[adapter]]\npf = \"0000:01:00.0\"\nvfs = 3\n", &partition("web"), &nic(MAC), &evil]
            .concat(),
    )?;
    Ok(())
}

struct Running {
    pid: u64,
    user: u32,
    vf: String,
    node: String,
}

fn running(daemon: &Daemon, name: &str) -> Result<Running, Box<dyn Error>> {
    let partitions: Value = serde_json::from_str(&daemon.done(&["partitions", "--json"])?)?;
    let of_name = |partition: &&Value| partition["name"] == name;
    let found = partitions.as_array().into_iter().flatten().find(of_name).ok_or("no such partition")?;
    let pid = found["pid"].as_u64().ok_or_else(|| format!("it does not run: {found}"))?;
    let vf = found["vfs"][0]["address"].as_str().ok_or("no VF")?.to_owned();
    let group = sh(&format!("basename $(readlink /sys/bus/pci/devices/{vf}/iommu_group)"))?;
    let user = fs::metadata(format!("/proc/{pid}"))?.uid();
    Ok(Running { pid, user, vf, node: format!("/dev/vfio/{}", group.trim()) })
}

fn status_of(pid: &str, key: &str) -> Result<String, Box<dyn Error>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(&format!("{key}:")));
    Ok(line.ok_or_else(|| format!("no {key}"))?.trim().to_owned())
}

/// Whether a user may do something, outside of any sandbox.
fn may(user: u32, command: &str) -> bool {
    sh(&format!("setpriv --reuid {user} --regid {user} --clear-groups sh -c '{command}'")).is_ok()
}

pub fn the_management_partition_has_almost_no_permissions() -> Outcome {
    let daemon = Daemon::start()?;
    let imp = daemon.imp()?;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status_of(&imp, set)?, 16)?, 0, "{set}");
    }
    assert_ne!(fs::metadata(format!("/proc/{imp}"))?.uid(), 0);
    assert_eq!(
        (status_of(&imp, "NoNewPrivs")?, status_of(&imp, "Seccomp")?, status_of(&imp, "Groups")?),
        ("1".into(), "2".into(), String::new())
    );
    for namespace in ["mnt", "net", "ipc", "uts"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{namespace}"));
        assert_ne!(of(&imp)?, of("self")?, "{namespace}");
    }
    let interfaces = sh(&format!("nsenter --target {imp} --net ip -brief link"))?;
    assert_eq!(interfaces.lines().count(), 1, "the loopback interface, which is down: {interfaces}");
    let files = sh(&format!("cd /proc/{imp}/root && find . -type f -o -type s -o -type c -o -type b"))?;
    let state = format!(".{}/", daemon.state_dir().display());
    assert!(
        files.lines().count() > 0 && files.lines().all(|file| file.starts_with(&state)),
        "it sees {files}"
    );
    assert_eq!(sh("cat /sys/fs/cgroup/ioward-imp/memory.max")?.trim(), (1_u64 << 30).to_string());
    assert!(sh("cat /sys/fs/cgroup/ioward-imp/cgroup.procs")?.lines().any(|pid| pid == imp));
    Ok(())
}

/// If either process dies, the other ends too: half a daemon serves nobody, and locks the state.
pub fn neither_side_of_the_daemon_outlives_the_other() -> Outcome {
    let mut daemon = Daemon::start()?;
    let imp = daemon.imp()?;
    daemon.crash()?;
    wait_until("the management partition is gone", SOON, || {
        !fs::exists(format!("/proc/{imp}")).unwrap_or(true)
    })?;
    daemon.restart()?;
    sh(&format!("kill -9 {}", daemon.imp()?))?;
    let status = daemon.wait()?;
    assert_eq!(status.code(), Some(1), "its service manager is to start it anew");
    assert!(daemon.log().contains("the management partition's process ended"), "{}", daemon.log());
    daemon.restart()
}

pub fn each_machine_is_a_user_of_its_own_with_its_own_device_nodes_only() -> Outcome {
    let daemon = Daemon::start()?;
    two_partitions(&daemon)?;
    let (web, evil) = (running(&daemon, "web")?, running(&daemon, "evil")?);
    for machine in [&web, &evil] {
        let pid = machine.pid.to_string();
        assert_eq!(u64::from_str_radix(&status_of(&pid, "CapEff")?, 16)?, 0);
        assert_eq!(u64::from_str_radix(&status_of(&pid, "CapPrm")?, 16)?, 0);
        assert_eq!(
            (status_of(&pid, "NoNewPrivs")?, status_of(&pid, "Seccomp")?),
            ("1".into(), "2".into()),
            "-sandbox on"
        );
        let node = fs::metadata(&machine.node)?;
        assert_eq!((node.uid(), node.mode() & 0o777), (machine.user, 0o600), "{}", machine.node);
        assert!(may(machine.user, &format!("test -r {} -a -w {}", machine.node, machine.node)));
    }
    assert!(web.user != evil.user && web.user != 0 && evil.user != 0);
    // A guest that controls its QEMU, and has escaped the sandbox, is this user.
    let folder = "/run/ioward-test/run/partitions/web";
    for of_web in [
        format!("kill -0 {}", web.pid),
        format!("exec 3</proc/{}/mem", web.pid),
        format!("ls {folder}"),
        format!("cat {folder}/console.log"),
        "ls /run/ioward-test/state".to_owned(),
    ] {
        sh(&of_web)?;
        assert!(!may(evil.user, &of_web), "{of_web}");
    }
    for write in [&web.node, "/dev/mem", &format!("/sys/bus/pci/devices/{NIC0}/sriov_numvfs")] {
        assert!(
            !may(evil.user, &format!("test -w {write}")) && may(0, &format!("test -w {write}")),
            "{write}"
        );
    }
    assert!(sh(&format!("ls -l /proc/{}/fd", evil.pid))?.lines().all(|file| !file.contains("/web/")));
    // Once released, the node is root's again as long as it exists.
    daemon.done(&["remove", "--yes", "evil", "--force"])?;
    assert!(fs::metadata(&evil.node).is_ok_and(|node| node.uid() == 0) || !fs::exists(&evil.node)?);
    Ok(())
}

/// The process that parses data from guests and users is the one that may be compromised: here a build takes its
/// place that sends anything.
pub fn a_compromised_management_partition_reaches_nothing_of_others() -> Outcome {
    let mut daemon = Daemon::start()?;
    two_partitions(&daemon)?;
    let web = running(&daemon, "web")?;
    let mut guest = daemon.guest("web")?;
    let address = guest.run("cat /sys/class/net/eth0/address", SOON)?;
    daemon.crash()?;

    let program = std::env::current_exe()?.with_file_name("lab-hostile");
    let output = Command::new(program)
        .args(["/run/ioward-test/hostile.sock", "/run/ioward-test/run", "/run/ioward-test/state"])
        .args([&web.pid.to_string(), &web.vf])
        .env("HOSTILE_PID", web.pid.to_string())
        .env("HOSTILE_VF", &web.vf)
        .output()?;
    let tried = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(tried.contains("all tried"), "{tried}\n{said}");
    let attempts: Vec<_> = tried.lines().filter(|line| line.contains(": ")).collect();
    assert!(attempts.len() > 30, "{tried}");
    for attempt in &attempts {
        assert!(!attempt.contains("GRANTED"), "{attempt}\n{tried}\n{said}");
    }
    println!("{} attempts, none granted", attempts.len());
    for (what, why) in [
        ("the VF of another partition", "it belongs to web/net0"),
        ("a PF", "it is no virtual function"),
        ("the VF of another for the host", "it belongs to web/net0"),
        ("a machine whose disk is /dev/mem", "Permission denied"),
        ("read another's memory", "Operation not permitted"),
        ("the hypervisor side", "is not understood"),
    ] {
        let found = attempts.iter().find(|line| line.starts_with(&format!("{what}: ")));
        // The error in words, or its number.
        let number = "errno: Some(13)";
        assert!(
            found.is_some_and(|line| line.contains(why)
                || (why == "Permission denied"
                    && (line.contains("PermissionDenied") || line.contains(number)))),
            "{what} is to be refused because {why}: {found:?}"
        );
    }

    daemon.restart()?;
    let now = running(&daemon, "web")?;
    assert_eq!((now.pid, &now.vf), (web.pid, &web.vf), "it has noticed nothing");
    let still = guest.run("cat /sys/class/net/eth0/address", SOON)?;
    assert!(still.contains(address.trim()), "{address} before, {still} now");
    Ok(())
}
