//! Examines level 1 without ioward: shell commands, sysfs, QMP.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ioward_fabric::sim::Severity;
use serde_json::Value;

/// The PFs of level 1: two network adapters on one network, one NVMe controller between them.
pub const NIC0: &str = "0000:01:00.0";
/// See [`NIC0`].
pub const NVME: &str = "0000:02:00.0";
/// See [`NIC0`].
pub const NIC1: &str = "0000:03:00.0";

/// Runs a shell command and returns its stdout.
///
/// # Errors
/// When it fails; shows its stderr.
pub fn sh(command: &str) -> Result<String, Box<dyn Error>> {
    let output = Command::new("bash").args(["-c", command]).stdin(Stdio::null()).output()?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{command}` ended with {}: {stdout}{stderr}", output.status).into())
}

/// Runs a shell command that prints JSON (`ip -j link`).
///
/// # Errors
/// When it fails or prints something else.
pub fn sh_json(command: &str) -> Result<Value, Box<dyn Error>> {
    let text = sh(command)?;
    serde_json::from_str(&text)
        .map_err(|error| format!("`{command}` printed no JSON ({error}): {text}").into())
}

/// The kernel's view of a VF of an interface: the entry of `vfinfo_list` in `ip -j link`.
///
/// # Errors
/// When there is no such interface.
pub fn kernel_vf(netdev: &str, index: usize) -> Result<Value, Box<dyn Error>> {
    Ok(sh_json(&format!("ip -j link show {netdev}"))?[0]["vfinfo_list"][index].clone())
}

/// Reads an attribute of a PCI function from sysfs, without the trailing newline.
///
/// # Errors
/// When it can't be read.
pub fn attribute(function: &str, name: &str) -> Result<String, Box<dyn Error>> {
    let path = function_folder(function).join(name);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(text.trim_end().to_owned())
}

/// Writes an attribute of a PCI function.
///
/// # Errors
/// When the kernel refuses it.
pub fn set_attribute(function: &str, name: &str, value: &str) -> Result<(), Box<dyn Error>> {
    let path = function_folder(function).join(name);
    fs::write(&path, value).map_err(|error| format!("writing {value} to {}: {error}", path.display()).into())
}

/// The name of a function's driver, if it has one.
#[must_use]
pub fn driver(function: &str) -> Option<String> {
    let target = fs::read_link(function_folder(function).join("driver")).ok()?;
    Some(target.file_name()?.to_string_lossy().into_owned())
}

/// The addresses of a PF's VFs, in the order of their index.
///
/// # Errors
/// When sysfs can't be read.
pub fn virtual_functions(pf: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let count: usize = attribute(pf, "sriov_numvfs")?.parse()?;
    let mut addresses = Vec::new();
    for index in 0..count {
        let target = fs::read_link(function_folder(pf).join(format!("virtfn{index}")))?;
        addresses.push(target.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    Ok(addresses)
}

/// Completion Timeout, a bit of the Uncorrectable Error Status register (PCIe 6.0 §7.8.4.2). It is not fatal: no link is reset.
const COMPLETION_TIMEOUT: u32 = 1 << 14;
/// Bad TLP, a bit of the Correctable Error Status register (§7.8.4.5).
const BAD_TLP: u32 = 1 << 6;
/// Data Link Protocol Error, which is fatal.
const DATA_LINK_PROTOCOL: u32 = 1 << 4;

/// Has the kernel handle an error of a function of domain 0 (drivers/pci/pcie/aer_inject.c, `struct aer_error_inj`).
///
/// # Errors
/// When the kernel does not take it.
pub fn inject(function: &str, severity: Severity) -> Result<(), Box<dyn Error>> {
    sh("modprobe aer_inject")?;
    let (uncorrectable, correctable) = match severity {
        Severity::Correctable => (0, BAD_TLP),
        Severity::NonFatal => (COMPLETION_TIMEOUT, 0),
        Severity::Fatal => (DATA_LINK_PROTOCOL, 0),
    };
    let (rest, number) = function.rsplit_once('.').ok_or("no function number")?;
    let mut parts = rest.rsplit(':').map(|part| u8::from_str_radix(part, 16));
    let (device, bus) = (parts.next().ok_or("no device")??, parts.next().ok_or("no bus")??);
    let mut error = vec![bus, device, number.parse()?, 0];
    for word in [uncorrectable, correctable, 0, 0, 0, 0, 0] {
        error.extend(word.to_ne_bytes());
    }
    Ok(fs::write("/dev/aer_inject", error)?)
}

/// Waits until a condition holds.
///
/// # Errors
/// When it does not hold within `bound`; names it.
pub fn wait_until(
    what: &str,
    bound: Duration,
    mut is_so: impl FnMut() -> bool,
) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    while !is_so() {
        if started.elapsed() > bound {
            return Err(format!("not so after {} s: {what}", bound.as_secs()).into());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn function_folder(function: &str) -> PathBuf {
    Path::new("/sys/bus/pci/devices").join(function)
}
