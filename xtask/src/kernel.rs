//! The kernel that both levels run: Debian's, downloaded and unpacked into the cache, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::process::{output, run_aside};

/// The package that depends on the newest kernel of the release.
const META_PACKAGE: &str = "linux-image-amd64";

/// An unpacked kernel package.
pub struct Kernel {
    root: PathBuf,
    release: String,
}

impl Kernel {
    /// The kernel in the cache, downloaded first when there is none.
    pub fn prepare(cache: &Path, apt: &mut Apt) -> Result<Self> {
        let root = cache.join("kernel");
        if !root.exists() {
            // Under another name until it is whole, so that an interrupted download leaves no half kernel.
            let unfinished = cache.join("kernel.unfinished");
            let _ = fs::remove_dir_all(&unfinished);
            fs::create_dir_all(&unfinished).map_err(Error::file("create", &unfinished))?;
            download(&unfinished, apt)?;
            fs::rename(&unfinished, &root).map_err(Error::file("create", &root))?;
        }
        let release = release_in(&root)?;
        Ok(Self { root, release })
    }

    /// The kernel itself, as QEMU's `-kernel` takes it.
    pub fn image(&self) -> PathBuf {
        self.root.join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// Its modules: what `/lib/modules/<release>` is to be.
    pub fn modules(&self) -> PathBuf {
        self.root.join("lib/modules").join(&self.release)
    }

    /// The contents of modules and all they depend on, in the order to load them, as `(name, bytes)`. Modules that are
    /// built into the kernel are left out.
    pub fn load_order(&self, modules: &[&str]) -> Result<Vec<(String, Vec<u8>)>> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for module in modules {
            let text = output(
                Command::new("modprobe")
                    .arg("--dirname")
                    .arg(&self.root)
                    .arg("--set-version")
                    .arg(&self.release)
                    .args(["--show-depends", "--ignore-install", module]),
            )?;
            for path in text.lines().filter_map(|line| line.strip_prefix("insmod ")) {
                let path = PathBuf::from(path.trim());
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        paths.iter().map(|path| read_module(path)).collect()
    }
}

/// Reads a module, unpacked if Debian packed it (plain until Debian 12, xz since).
fn read_module(path: &Path) -> Result<(String, Vec<u8>)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.strip_suffix(".xz") {
        None => Ok((name, fs::read(path).map_err(Error::file("read", path))?)),
        Some(plain) => {
            let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
            let unpacked = unpacked.map_err(|source| Error::Start { program: "xz".into(), source })?;
            if !unpacked.status.success() {
                return Err(Error::Other(format!(
                    "{} is no xz file; remove the lab's cache",
                    path.display()
                )));
            }
            Ok((plain.to_owned(), unpacked.stdout))
        }
    }
}

fn download(into: &Path, apt: &mut Apt) -> Result<()> {
    apt.update()?;
    let depends = output(apt.command("apt-cache").args(["depends", META_PACKAGE]))?;
    let package = image_package(&depends).ok_or_else(|| {
        Error::Other(format!(
            "{META_PACKAGE} depends on no kernel image here: the lab needs Debian's kernel for amd64"
        ))
    })?;
    eprintln!("lab: downloading {package}");
    run_aside(apt.command("apt-get").args(["--quiet=2", "download", &package]).current_dir(into))?;
    let archive = only_entry(into)?;
    run_aside(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(into))?;
    fs::remove_file(&archive).map_err(Error::file("remove", &archive))?;
    // Since /usr was merged the modules are in usr/lib; modprobe and depmod look in lib.
    let lib = into.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(Error::file("create", &lib))?;
    }
    let release = release_in(into)?;
    run_aside(Command::new("depmod").arg("--basedir").arg(into).arg(&release))
}

/// The kernel package in what `apt-cache depends` prints.
fn image_package(depends: &str) -> Option<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.map(str::trim).find(|name| name.starts_with("linux-image-")).map(str::to_owned)
}

fn release_in(root: &Path) -> Result<String> {
    let path = only_entry(&root.join("lib/modules"))?;
    Ok(path.file_name().unwrap_or_default().to_string_lossy().into_owned())
}

fn only_entry(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder).map_err(Error::file("read", folder))?;
    match (entries.next(), entries.next()) {
        (Some(Ok(entry)), None) => Ok(entry.path()),
        _ => Err(Error::Other(format!(
            "{} does not hold exactly one entry; remove the lab's cache",
            folder.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_package_is_found_among_dependencies() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Suggests: x\n";
        assert_eq!(image_package(text).as_deref(), Some("linux-image-6.1.0-56-amd64"));
        assert_eq!(image_package("linux-image-amd64\n"), None);
    }
}
