//! The Debian packages the lab needs, and how they get onto the machine.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::process::{line, output, run_aside};

/// The emulator. Only these may have to come from backports.
const EMULATOR: [&str; 3] = ["qemu-system-x86", "seabios", "ipxe-qemu"];
/// The first QEMU with igb, the SR-IOV network adapter; as a Debian version, with its epoch.
const EMULATOR_VERSION: &str = "1:8.0";
/// Tools that make the lab, and tools that its tests and those of this machine use.
const TOOLS: [&str; 12] = [
    "busybox-static",
    "kmod",
    "xz-utils",
    "pciutils",
    "iproute2",
    "nvme-cli",
    "procps",
    "util-linux",
    "e2fsprogs",
    "systemd",
    "curl",
    "openssl",
];

/// Installs what is missing, saying so first. libvirt is not among it: see libvirt.rs.
pub fn install_missing(apt: &mut Apt) -> Result<()> {
    let installed = installed_versions()?;
    let tools: Vec<&str> = TOOLS.into_iter().filter(|package| !installed.contains_key(*package)).collect();
    let emulator: Vec<&str> =
        EMULATOR.into_iter().filter(|package| !installed.contains_key(*package)).collect();
    let too_old = match installed.get(EMULATOR[0]) {
        Some(version) => is_older(version, EMULATOR_VERSION)?,
        None => false,
    };
    if tools.is_empty() && emulator.is_empty() && !too_old {
        return Ok(());
    }
    // Newer ones of all three, when the emulator is renewed: they belong together.
    let emulator = if too_old { EMULATOR.to_vec() } else { emulator };
    let missing: Vec<&str> = tools.iter().chain(&emulator).copied().collect();
    eprintln!("lab: Debian packages missing or too old here: {}", missing.join(" "));

    apt.update()?;
    let mut commands = Vec::new();
    if !tools.is_empty() {
        commands.push((tools, None));
    }
    if !emulator.is_empty() {
        let candidate = apt.policy(EMULATOR[0])?.candidate;
        let suite = match candidate {
            Some(version) if is_older(&version, EMULATOR_VERSION)? => {
                eprintln!("lab: {} {version} has no SR-IOV: taking it from backports", EMULATOR[0]);
                let suite = apt.add_backports(EMULATOR[0])?;
                apt.update()?;
                Some(suite)
            }
            _ => None,
        };
        commands.push((emulator, suite));
    }
    let commands: Vec<Command> =
        commands.iter().map(|(packages, suite)| apt.install_command(packages, suite.as_deref())).collect();
    run_as_root(commands)
}

/// Installs those packages of the machine's own release that are missing, saying so first.
pub fn install(apt: &mut Apt, packages: &[&str]) -> Result<()> {
    let installed = all_installed()?;
    let missing: Vec<&str> = packages.iter().copied().filter(|name| !installed.contains(*name)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    apt.update()?;
    run_as_root(vec![apt.install_command(&missing, None)])
}

/// Runs commands that install packages, or says what to run when this is not root.
fn run_as_root(commands: Vec<Command>) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        let lines: Vec<String> = commands.iter().map(|command| format!("  sudo {}", line(command))).collect();
        return Err(Error::Other(format!(
            "installing Debian packages needs root; run this, then try again:\n{}",
            lines.join("\n")
        )));
    }
    for mut command in commands {
        eprintln!("lab: installing: {}", line(&command));
        run_aside(&mut command)?;
    }
    Ok(())
}

/// The version of each package above that is installed.
fn installed_versions() -> Result<BTreeMap<String, String>> {
    // Not `process::output`: dpkg-query fails when it does not know one of the packages, and still tells of the others.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${Package} ${db:Status-Status} ${Version}\n"])
        .args(TOOLS)
        .args(EMULATOR)
        .output()
        .map_err(|error| {
            Error::Other(format!("the lab needs Debian or Ubuntu: can't start dpkg-query: {error}"))
        })?;
    Ok(parse_versions(&String::from_utf8_lossy(&output.stdout)))
}

/// The names of all packages that are installed.
pub fn all_installed() -> Result<BTreeSet<String>> {
    let mut command = Command::new("dpkg-query");
    command.args(["--show", "--showformat=${Package} ${db:Status-Status} ${Version}\n"]);
    Ok(parse_versions(&output(&mut command)?).into_keys().collect())
}

fn parse_versions(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| match line.split(' ').collect::<Vec<_>>()[..] {
            [package, "installed", version] => Some((package.to_owned(), version.to_owned())),
            _ => None,
        })
        .collect()
}

/// Whether a Debian version comes before another.
pub fn is_older(version: &str, than: &str) -> Result<bool> {
    let mut command = Command::new("dpkg");
    command.args(["--compare-versions", version, "lt", than]);
    let status = command.status().map_err(|source| Error::Start { program: "dpkg".into(), source })?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_packages_are_not_installed() {
        let text = "kmod installed 30-1\nsocat config-files 1.7\nseabios not-installed \n";
        let versions = parse_versions(text);
        assert_eq!(versions.get("kmod").map(String::as_str), Some("30-1"));
        assert_eq!(versions.len(), 1);
    }
}
