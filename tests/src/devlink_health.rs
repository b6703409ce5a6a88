//! Health reporters on the real kernel: netdevsim's, which fail when they are told to. What we read of them is held against what devlink
//! of iproute2 says. netdevsim is no PCI function, so that no adapter of ours comes of it. docs/faults.md.

use std::error::Error;
use std::path::Path;

use ioward_netlink::devlink::{Devlink, Reporter, is_of_health};
use ioward_tests::{
    daemon::{Daemon, SOON},
    harness::Outcome,
    level1::{NIC0, sh, wait_until},
};
use rustix::{io::Errno, net::RecvFlags};
use serde_json::{Value, json};

const MODULE: &str = "/run/lab/netdevsim.ko";
const NUMBER: u32 = 14;
const DEVICE: &str = "netdevsim/netdevsim14";
const DEBUG: &str = "/sys/kernel/debug/netdevsim/netdevsim14/health";

/// An instance of netdevsim, for as long as this is there.
struct Simulated;

impl Simulated {
    fn start() -> Result<Self, Box<dyn Error>> {
        if !Path::new("/sys/kernel/debug/netdevsim").exists() {
            sh("mount -t debugfs debugfs /sys/kernel/debug || true")?;
        }
        sh(&format!(
            "[ -e /sys/bus/netdevsim ] || {{ modprobe psample && insmod {MODULE}; }}
             echo '{NUMBER} 1' >/sys/bus/netdevsim/new_device"
        ))?;
        Ok(Self)
    }
}

impl Drop for Simulated {
    fn drop(&mut self) {
        let _ = sh(&format!("echo {NUMBER} >/sys/bus/netdevsim/del_device"));
    }
}

/// As `devlink -j health show` writes it.
fn shown(reporter: &Reporter) -> Value {
    let mut shown = json!({
        "reporter": reporter.name,
        "state": if reporter.is_in_error { "error" } else { "healthy" },
        "error": reporter.errors,
        "recover": reporter.recoveries,
    });
    if let Some(auto_recover) = reporter.auto_recover {
        shown["auto_recover"] = auto_recover.into();
    }
    shown
}

/// What we read, which is what devlink says.
fn read(devlink: &Devlink) -> Result<Vec<Reporter>, Box<dyn Error>> {
    let mut told: Value = serde_json::from_str(&sh("devlink -j health show")?)?;
    let told = told["health"][DEVICE].as_array_mut().ok_or("devlink does not show netdevsim")?;
    for reporter in told.iter_mut().filter_map(Value::as_object_mut) {
        let of_ours = ["reporter", "state", "error", "recover", "auto_recover"];
        reporter.retain(|key, _| of_ours.contains(&key.as_str()));
    }
    let read = devlink.reporters()?;
    let of_netdevsim = |one: &Reporter| format!("{}/{}", one.bus, one.device) == DEVICE;
    let read: Vec<_> = read.into_iter().filter(of_netdevsim).collect();
    assert_eq!(read.iter().map(shown).collect::<Vec<_>>(), *told);
    Ok(read)
}

fn dummy(reporters: &[Reporter]) -> Result<&Reporter, Box<dyn Error>> {
    Ok(reporters.iter().find(|reporter| reporter.name == "dummy").ok_or("netdevsim has no reporter dummy")?)
}

pub fn a_health_reporter_is_read_fails_and_is_recovered_as_devlink_says() -> Outcome {
    let _simulated = Simulated::start()?;
    let devlink = Devlink::open()?.ok_or("this kernel has no devlink")?;
    let news = devlink.news()?.ok_or("the number of devlink's group is too large")?;
    let is_told = || {
        let mut message = [0; 4096];
        loop {
            match rustix::net::recv(&news, &mut message[..], RecvFlags::empty()) {
                Ok((_, length)) if is_of_health(&message[..length]) => return true,
                Err(Errno::AGAIN) => return false,
                _ => {}
            }
        }
    };
    let before = read(&devlink)?;
    let (errors, recoveries) = (dummy(&before)?.errors, dummy(&before)?.recoveries);
    assert!(!dummy(&before)?.is_in_error && dummy(&before)?.auto_recover == Some(true));
    let empty = before.iter().find(|reporter| reporter.name == "empty").ok_or("no reporter empty")?;
    assert_eq!(empty.auto_recover, None, "it has no way to recover, and says so");
    is_told();

    sh(&format!("devlink health set {DEVICE} reporter dummy auto_recover false"))?;
    sh(&format!("echo boom >{DEBUG}/break_health"))?;
    wait_until("devlink tells of the error", SOON, is_told)?;
    let broken = read(&devlink)?;
    assert!(dummy(&broken)?.is_in_error && dummy(&broken)?.errors == errors + 1);

    devlink.recover(dummy(&broken)?)?;
    wait_until("devlink tells of the recovery", SOON, is_told)?;
    let recovered = read(&devlink)?;
    assert!(!dummy(&recovered)?.is_in_error);
    assert_eq!((dummy(&recovered)?.errors, dummy(&recovered)?.recoveries), (errors + 1, recoveries + 1));

    // One that its driver can't recover from stays, whoever asks.
    sh(&format!("echo Y >{DEBUG}/fail_recover; echo boom >{DEBUG}/break_health"))?;
    let broken = read(&devlink)?;
    assert!(devlink.recover(dummy(&broken)?).is_err());
    assert!(dummy(&read(&devlink)?)?.is_in_error);
    sh(&format!("echo N >{DEBUG}/fail_recover"))?;
    devlink.recover(dummy(&broken)?)?;

    sh(&format!("devlink health set {DEVICE} reporter dummy auto_recover true"))?;
    sh(&format!("echo boom >{DEBUG}/break_health"))?;
    let by_itself = read(&devlink)?;
    assert!(!dummy(&by_itself)?.is_in_error && dummy(&by_itself)?.errors == errors + 3);

    // The daemon asks the same question, and igb has no reporters.
    let daemon = Daemon::start()?;
    let host: Value = serde_json::from_str(&daemon.done(&["host", "--json"])?)?;
    let pfs = host["physical_functions"].as_array().cloned().unwrap_or_default();
    let nic = pfs.iter().find(|pf| pf["address"] == NIC0).ok_or("the adapter is gone")?;
    assert_eq!(nic["health"], json!([]));
    Ok(())
}
