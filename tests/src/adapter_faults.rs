//! Adapters that report errors: the kernel is made to believe that one did (aer_inject), and its own recovery runs, with the real
//! driver. docs/faults.md.

use std::{error::Error, fs};

use ioward_tests::{
    daemon::{Daemon, SOON, VERSION, adapter, vf},
    harness::Outcome,
    level1::{NIC0, attribute, driver, kernel_vf, sh, virtual_functions, wait_until},
};
use serde_json::Value;

const MAC: &str = "52:54:00:aa:00:01";
/// Completion Timeout and Data Link Protocol Error, bits of the Uncorrectable Error Status register (PCIe 6.0 §7.8.4.2).
const COMPLETION_TIMEOUT: u32 = 1 << 14;
const DATA_LINK_PROTOCOL: u32 = 1 << 4;

/// Has the kernel handle an uncorrectable error of a function of domain 0 (drivers/pci/pcie/aer_inject.c, `struct aer_error_inj`).
fn inject(function: &str, uncorrectable: u32) -> Outcome {
    sh("modprobe aer_inject")?;
    let (rest, number) = function.rsplit_once('.').ok_or("no function number")?;
    let mut parts = rest.rsplit(':').map(|part| u8::from_str_radix(part, 16));
    let (device, bus) = (parts.next().ok_or("no device")??, parts.next().ok_or("no bus")??);
    let mut error = vec![bus, device, number.parse()?, 0];
    for word in [uncorrectable, 0, 0, 0, 0, 0, 0] {
        error.extend(word.to_ne_bytes());
    }
    Ok(fs::write("/dev/aer_inject", error)?)
}

/// Linux 6.1 counts a fatal error at the root port alone.
fn total(kind: &str) -> Result<u64, Box<dyn Error>> {
    let counts = match kind {
        "fatal" => attribute(&format!("{NIC0}/.."), "aer_rootport_total_err_fatal")?,
        _ => attribute(NIC0, &format!("aer_dev_{kind}"))?,
    };
    let total = counts.lines().last().and_then(|line| line.rsplit(' ').next()).ok_or("no total")?;
    Ok(total.parse()?)
}

/// How often the daemon has said so.
fn told(daemon: &Daemon, what: &str) -> usize {
    daemon.done(&["events"]).map_or(0, |events| events.matches(what).count())
}

fn wait_for(daemon: &Daemon, what: &str, times: usize) -> Outcome {
    wait_until(&format!("'{what}' is told {times} times"), SOON, || told(daemon, what) >= times).map_err(
        |error| format!("{error}; {}; {}", daemon.log(), sh("dmesg | tail -60").unwrap_or_default()).into(),
    )
}

pub fn an_adapter_that_reports_errors_is_frozen_and_is_as_noted_afterwards() -> Outcome {
    let daemon = Daemon::start()?;
    sh("truncate -s 1M /run/web.img; chmod 0666 /run/web.img")?;
    let web = "\n[[partition]]\nname = \"web\"\nmemory = \"64MiB\"\nboot = { disk = \"/run/web.img\" }\n";
    let net0 = vf("net0", "network", &format!("pf = \"{NIC0}\"\nmac = \"{MAC}\""));
    let web = [VERSION, &adapter(NIC0, "1"), web, &net0].concat();
    daemon.apply(&web)?;
    daemon.done(&["stop", "web", "--force", "--yes"])?;
    let netdev = sh(&format!("ls /sys/bus/pci/devices/{NIC0}/net"))?.trim().to_owned();

    for (round, (error, kind, said)) in
        [(COMPLETION_TIMEOUT, "nonfatal", "non-fatal"), (DATA_LINK_PROTOCOL, "fatal", "fatal")]
            .into_iter()
            .enumerate()
    {
        let before = total(kind)?;
        inject(NIC0, error)?;
        wait_for(&daemon, &format!("adapter {NIC0} is frozen: 1 {said} error (AER)"), 1)?;
        assert_eq!(total(kind)?, before + 1);
        // Whoever asks for one of its VFs meanwhile is refused by the same rule, wherever the adapter has got to.
        wait_for(&daemon, &format!("adapter {NIC0} serves again"), round + 1)?;
        let host: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
        let pf =
            host["physical_functions"].as_array().and_then(|all| all.iter().find(|pf| pf["address"] == NIC0));
        let pf = pf.ok_or("the adapter is gone")?;
        assert_eq!((&pf["errors"][kind], &pf["service"]), (&(before + 1).into(), &Value::Null), "{pf}");
        assert_eq!(driver(NIC0).as_deref(), Some("igb"));
        let vfs = virtual_functions(NIC0)?;
        assert_eq!(vfs.len(), 1);
        assert_eq!(driver(&vfs[0]).as_deref(), Some("vfio-pci"));
        assert_eq!(kernel_vf(&netdev, 0)?["address"], MAC);
        assert_eq!(daemon.done(&["drift", "--json"])?.trim(), "[]");
    }
    Ok(())
}
