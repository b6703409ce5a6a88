//! Debian packages that are downloaded and unpacked into a folder of the cache, and never installed: they would start daemons on the
//! developer's machine.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::packages;
use crate::process::output;

/// Gives `root`, which has packages of one source and what else they need that this machine lacks, unpacked; downloaded first when
/// there is none. `wanted` names them for apt; `source` is what the names of all that belong to them begin with.
pub fn prepare(
    root: &Path,
    source: &str,
    apt: &mut Apt,
    wanted: impl FnOnce(&mut Apt) -> Result<Vec<String>>,
) -> Result<PathBuf> {
    if !root.exists() {
        // Under another name until it is whole.
        let unfinished = root.with_extension("unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        // There even when nothing is missing here.
        let usr = unfinished.join("usr");
        fs::create_dir_all(&usr).map_err(Error::file("create", &usr))?;
        apt.update()?;
        let wanted = wanted(apt)?;
        let missing = missing(apt, source, &wanted)?;
        if !missing.is_empty() {
            eprintln!("lab: downloading {}", missing.join(" "));
            apt.unpack(&missing, &unfinished)?;
        }
        fs::rename(&unfinished, root).map_err(Error::file("create", root))?;
    }
    Ok(root.to_owned())
}

/// What apt would install, as `package=version`, but for newer versions of what is installed: those are not theirs to ask for.
fn missing(apt: &Apt, source: &str, wanted: &[String]) -> Result<Vec<String>> {
    let mut command = apt.command("apt-get");
    command.args(["--quiet=2", "--yes", "--no-install-recommends", "--print-uris", "install"]).args(wanted);
    Ok(to_unpack(source, &output(&mut command)?, &packages::all_installed()?))
}

/// Reads what `apt-get install --print-uris` prints: a URI in quotes, the name of a file (`package_version_architecture.deb`), its
/// size and a checksum.
fn to_unpack(source: &str, uris: &str, installed: &BTreeSet<String>) -> Vec<String> {
    let files = uris.lines().filter_map(|line| line.split(' ').nth(1)?.strip_suffix(".deb"));
    let packages = files.filter_map(|file| {
        let (package, rest) = file.split_once('_')?;
        let (version, _) = rest.rsplit_once('_')?;
        let wanted = package.starts_with(source) || !installed.contains(package);
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
        assert_eq!(to_unpack("libvirt", text, &installed), ["libvirt0=11.3.0-2~bpo12+1", "libnl=1:3.7-1"]);
        assert_eq!(to_unpack("libvirt", "", &installed), [""; 0]);
    }
}
