//! libvirt for level 1: downloaded and unpacked into the cache, never installed. Installing it would start daemons on the
//! developer's machine, and enable them for good.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::packages;
use crate::process::output;

/// The daemon, its driver for QEMU, virsh.
const PACKAGES: [&str; 3] = ["libvirt-daemon-driver-qemu", "libvirt-daemon", "libvirt-clients"];
/// The first libvirt that is as new as the emulator of the lab; as a Debian version.
const VERSION: &str = "10";

/// The folder that has libvirt's packages and the libraries that this machine lacks for them, unpacked; downloaded first when there
/// is none.
pub fn prepare(cache: &Path, apt: &mut Apt) -> Result<PathBuf> {
    let root = cache.join("libvirt");
    if !root.exists() {
        // Under another name until it is whole.
        let unfinished = cache.join("libvirt.unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        // Level 1 lays it over its own, even when nothing is missing here.
        let usr = unfinished.join("usr");
        fs::create_dir_all(&usr).map_err(Error::file("create", &usr))?;
        let missing = missing(apt)?;
        if !missing.is_empty() {
            eprintln!("lab: downloading {}", missing.join(" "));
            apt.unpack(&missing, &unfinished)?;
        }
        fs::rename(&unfinished, &root).map_err(Error::file("create", &root))?;
    }
    Ok(root)
}

/// What apt would install, as `package=version`, but for newer versions of what is installed: those are not libvirt's to ask for.
fn missing(apt: &mut Apt) -> Result<Vec<String>> {
    let first = PACKAGES[0];
    let candidate = apt.policy(first)?.candidate;
    let candidate = candidate.ok_or_else(|| {
        Error::Other(format!("no apt source here has {first}: the lab needs Debian or Ubuntu"))
    })?;
    let suite = match packages::is_older(&candidate, VERSION)? {
        true => {
            eprintln!("lab: {first} {candidate} is older than the emulator: taking it from backports");
            let suite = apt.add_backports(first)?;
            apt.update()?;
            Some(suite)
        }
        false => None,
    };
    let wanted = PACKAGES
        .map(|package| suite.as_ref().map_or(package.to_owned(), |suite| format!("{package}/{suite}")));
    let mut command = apt.command("apt-get");
    command.args(["--quiet=2", "--yes", "--no-install-recommends", "--print-uris", "install"]).args(wanted);
    Ok(to_unpack(&output(&mut command)?, &packages::all_installed()?))
}

/// Reads what `apt-get install --print-uris` prints: a URI in quotes, the name of a file (`package_version_architecture.deb`), its
/// size and a checksum.
fn to_unpack(uris: &str, installed: &BTreeSet<String>) -> Vec<String> {
    let files = uris.lines().filter_map(|line| line.split(' ').nth(1)?.strip_suffix(".deb"));
    let packages = files.filter_map(|file| {
        let (package, rest) = file.split_once('_')?;
        let (version, _) = rest.rsplit_once('_')?;
        let wanted = package.starts_with("libvirt") || !installed.contains(package);
        wanted.then(|| format!("{package}={}", version.replace("%3a", ":")))
    });
    packages.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_that_are_there_are_not_renewed_for_libvirt() {
        let text = "'http://mirror.example/a.deb' systemd_252.39-1~deb12u2_amd64.deb 3043940 SHA256:0\n\
                    'http://mirror.example/b.deb' libvirt0_11.3.0-2~bpo12+1_amd64.deb 1594044 SHA256:0\n\
                    'http://mirror.example/c.deb' libnl_1%3a3.7-1_amd64.deb 1 \n";
        let installed = ["systemd", "libvirt0"].map(str::to_owned).into();
        assert_eq!(to_unpack(text, &installed), ["libvirt0=11.3.0-2~bpo12+1", "libnl=1:3.7-1"]);
        assert_eq!(to_unpack("", &installed), [""; 0]);
    }
}
