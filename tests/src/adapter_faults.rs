//! Adapters that report errors: the kernel is made to believe that one did (aer_inject), and its own recovery runs, with the real
//! driver. docs/faults.md.

use std::error::Error;

use ioward_fabric::sim::Severity;
use ioward_tests::{
    daemon::{BOOT, Daemon, SOON, VERSION, adapter, partition, vf},
    harness::Outcome,
    level1::{NIC0, NIC1, NVME, attribute, driver, inject, kernel_vf, sh, virtual_functions, wait_until},
};
use serde_json::Value;

const MAC: &str = "52:54:00:aa:00:01";
fn total() -> Result<u64, Box<dyn Error>> {
    let counts = attribute(NIC0, "aer_dev_nonfatal")?;
    let total = counts.lines().last().and_then(|line| line.rsplit(' ').next()).ok_or("no total")?;
    Ok(total.parse()?)
}

fn wait_for(daemon: &Daemon, what: &str) -> Outcome {
    let is_told = || daemon.done(&["events"]).is_ok_and(|events| events.contains(what));
    wait_until(&format!("'{what}' is told"), SOON, is_told).map_err(|error| {
        format!("{error}; {}; {}", daemon.log(), sh("dmesg | tail -60").unwrap_or_default()).into()
    })
}

pub fn an_adapter_that_reports_an_error_is_frozen_and_is_as_noted_afterwards() -> Outcome {
    let daemon = Daemon::start()?;
    sh("truncate -s 1M /run/web.img; chmod 0666 /run/web.img")?;
    let web = "\n[[partition]]\nname = \"web\"\nmemory = \"64MiB\"\nboot = { disk = \"/run/web.img\" }\n";
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{MAC}\""));
    let web = [VERSION, &adapter(NIC0, "1"), web, &net0].concat();
    daemon.apply(&web)?;
    daemon.done(&["stop", "web", "--force", "--yes"])?;
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{NIC0}/net"))?.trim().to_owned();

    let before = total()?;
    inject(NIC0, Severity::NonFatal)?;
    wait_for(&daemon, &format!("adapter {NIC0} is frozen: 1 non-fatal error (AER)"))?;
    assert_eq!(total()?, before + 1);
    wait_for(&daemon, &format!("adapter {NIC0} serves again"))?;
    let host: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
    let pf =
        host["physical_functions"].as_array().and_then(|all| all.iter().find(|pf| pf["address"] == NIC0));
    let pf = pf.ok_or("the adapter is gone")?;
    assert_eq!((&pf["errors"]["nonfatal"], &pf["service"]), (&(before + 1).into(), &Value::Null), "{pf}");
    assert_eq!(driver(NIC0).as_deref(), Some("igb"));
    let vfs = virtual_functions(NIC0)?;
    assert_eq!(vfs.len(), 1);
    assert_eq!(driver(&vfs[0]).as_deref(), Some("vfio-pci"));
    assert_eq!(kernel_vf(&netdev, 0)?["address"], MAC);
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    Ok(())
}

/// QEMU stops each machine that has a VF of an adapter with an uncorrectable error, and the guest hung until a person reset it.
pub fn a_guest_that_an_error_has_halted_is_reset_and_answers_again() -> Outcome {
    let daemon = Daemon::start()?;
    let on = |pf: &str, mac: &str| vf("net0", "network", &format!("pf = \"{pf}\"\nmac = \"{mac}\""));
    let spec = [
        VERSION.to_owned(),
        adapter(NIC0, "1"),
        adapter(NIC1, "1"),
        partition("web"),
        on(NIC0, MAC),
        partition("db"),
        on(NIC1, "52:54:00:aa:00:02"),
    ]
    .concat();
    daemon.apply(&spec)?;
    let pid = || sh("pgrep -f guest=.*/web");
    let (before, mut db) = (pid()?, daemon.guest("db")?);
    db.run("ip addr add 10.0.0.2/24 dev eth0; ip link set eth0 up", SOON)?;
    let address = "ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up";
    let ping = "n=0; until ping -c 1 -W 1 10.0.0.1; do n=$((n+1)); [ $n -lt 60 ] || exit 1; done";
    let mut web = daemon.guest("web")?;
    web.run(address, SOON)?;
    db.run(ping, SOON)?;
    drop(web);

    inject(NIC0, Severity::NonFatal)?;
    // It may be seen before the error is.
    wait_for(&daemon, "partition web has halted: internal-error")?;
    wait_for(&daemon, &format!("adapter {NIC0} serves again"))?;
    wait_for(&daemon, &format!("partition web was halted by an error of {NIC0}; it was reset after "))?;
    let events = daemon.done(&["events"])?;
    println!(
        "{}",
        events
            .lines()
            .filter(|line| line.contains("web") || line.contains("adapter"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    assert!(!events.contains("partition db has halted"), "it has a VF of another adapter: {events}");
    assert_eq!(pid()?, before, "it is the same machine");
    let shown = daemon.done(&["partitions"])?;
    assert!(!shown.contains("halted"), "{shown}");

    // Its guest has booted anew, with its VF as it is noted.
    let mut web = daemon.guest("web")?;
    let up: f64 = web.run("cut -d' ' -f1 /proc/uptime", SOON)?.parse()?;
    assert!(up < BOOT.as_secs_f64(), "{up}");
    assert!(web.run("cat /sys/class/net/eth0/address", SOON)?.ends_with(MAC));
    web.run(address, SOON)?;
    db.run(ping, SOON)?;
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    Ok(())
}

/// One VF's errors halt the machines beside it, too. Only the whole adapter could be locked out.
pub fn a_vf_that_reports_errors_again_and_again_is_locked_out_and_halts_nobody_any_more() -> Outcome {
    let daemon = Daemon::start()?;
    sh("truncate -s 1M /run/web.img /run/db.img; chmod 0666 /run/web.img /run/db.img")?;
    let machine = |name: &str, index: u16| {
        let vf = vf("net0", "network", &format!("pf = \"{NIC0}\"\nindex = {index}"));
        format!(
            "\n[[partition]]\nname = \"{name}\"\nmemory = \"64MiB\"\nboot = {{ disk = \"/run/{name}.img\" }}\n{vf}"
        )
    };
    daemon.apply(&[VERSION, &adapter(NIC0, "2"), &machine("web", 0), &machine("db", 1)].concat())?;
    let vfs = virtual_functions(NIC0)?;
    let times = |what: &str| daemon.done(&["events"]).map_or(0, |events| events.matches(what).count());
    for fault in 1..=3 {
        inject(&vfs[0], Severity::NonFatal)?;
        let is_reset = || times("partition db was halted; it was reset after") == fault;
        wait_until(&format!("db is reset after fault {fault}"), SOON, is_reset)
            .map_err(|error| format!("{error}; {}", daemon.done(&["events"]).unwrap_or_default()))?;
        if fault < 3 {
            let is_reset = || times("partition web was halted; it was reset after") == fault;
            wait_until(&format!("web is reset after fault {fault}"), SOON, is_reset)?;
        }
    }
    wait_for(&daemon, &format!("VF 0 of {NIC0} at {}, which web/net0 is, is locked out: 3 faults", vfs[0]))?;
    assert_eq!(times("partition web was halted; it was reset after"), 2);
    let partitions = daemon.done(&["partitions"])?;
    assert_eq!(partitions.matches("halted: internal-error").count(), 1, "{partitions}");
    let host = daemon.done(&["host"])?;
    assert!(
        host.contains(&format!("VF 0 ({}): it is locked out: 3 faults within 10 minutes", vfs[0])),
        "{host}"
    );
    let taken = adapter(NIC0, "2") + &machine("db", 1) + &machine("new", 0);
    sh("cp /run/db.img /run/new.img; chmod 0666 /run/new.img")?;
    daemon.done(&["remove", "web", "--force", "--yes"])?;
    let refused = daemon.try_apply(&format!("{VERSION}{taken}"), &[])?;
    let said = refused.stdout + &refused.stderr;
    assert!(refused.status != 0 && said.contains("locked out"), "{said}");
    daemon.done(&["return", &vfs[0], "--yes"])?;
    daemon.apply(&format!("{VERSION}{taken}"))?;
    println!(
        "{}",
        daemon
            .done(&["events"])?
            .lines()
            .filter(|line| line.contains("halted") || line.contains("locked"))
            .collect::<Vec<_>>()
            .join("\n")
    );
    Ok(())
}

/// A driver that resets its NVMe controller keeps whoever asks that something waiting.
pub fn a_pf_that_has_its_nvme_controller_reset_is_frozen_and_is_as_noted_afterwards() -> Outcome {
    let daemon = Daemon::start()?;
    sh("truncate -s 1M /run/web.img; chmod 0666 /run/web.img")?;
    let web = "\n[[partition]]\nname = \"web\"\nmemory = \"64MiB\"\nboot = { disk = \"/run/web.img\" }\n";
    let disk0 = vf("disk0", "nvme", &format!("pf = \"{NVME}\"\nqueues = 3"));
    daemon.apply(&[VERSION, &adapter(NVME, "1"), web, &disk0].concat())?;
    daemon.done(&["stop", "web", "--force", "--yes"])?;
    let pf = || -> Result<Value, Box<dyn Error>> {
        let host: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
        let all = host["physical_functions"].as_array().cloned().unwrap_or_default();
        Ok(all.into_iter().find(|pf| pf["address"] == NVME).ok_or("the adapter is gone")?)
    };
    assert_eq!(pf()?["nvme"]["state"], "live");

    // One reset takes milliseconds, and may be over before anybody looks.
    let folder = format!("/sys/bus/pci/devices/{NVME}/nvme");
    sh(&format!(
        "touch /run/resets; attribute=$(ls -d {folder}/nvme*)/reset_controller
         (while [ -e /run/resets ]; do echo 1 >$attribute; done) >/dev/null 2>&1 &"
    ))?;
    let frozen = wait_for(&daemon, &format!("adapter {NVME} is frozen: its NVMe controller is "));
    sh("rm /run/resets")?;
    frozen?;
    wait_for(&daemon, &format!("adapter {NVME} serves again"))?;
    let pf = pf()?;
    assert_eq!((&pf["nvme"]["state"], &pf["service"]), (&"live".into(), &Value::Null), "{pf}");
    let vfs = virtual_functions(NVME)?;
    assert_eq!((vfs.len(), driver(&vfs[0]).as_deref()), (1, Some("vfio-pci")));
    assert_eq!(pf["virtual_functions"][0]["settings"]["queues"], 3, "{pf}");
    assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    Ok(())
}
