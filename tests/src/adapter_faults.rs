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
/// Completion Timeout, a bit of the Uncorrectable Error Status register (PCIe 6.0 §7.8.4.2). It is not fatal: no link is reset.
const COMPLETION_TIMEOUT: u32 = 1 << 14;

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
    inject(NIC0, COMPLETION_TIMEOUT)?;
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
