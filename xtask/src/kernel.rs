//! The kernel that both levels run: Debian's, downloaded and unpacked into the cache, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::process::{output, run_aside};

/// The package that depends on the newest kernel of the release.
const META_PACKAGE: &str = "linux-image-amd64";

/// Unpacked kernel packages.
pub struct Kernel {
    root: PathBuf,
    release: String,
    /// As its package has it.
    packed: PathBuf,
    image: PathBuf,
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
        let packed = image_in(&root, &release)?;
        let image = unpacked(&root, packed.clone())?;
        Ok(Self { root, release, packed, image })
    }

    /// The kernel itself, as QEMU's `-kernel` takes it: unpacked where that is possible.
    pub fn image(&self) -> &Path {
        &self.image
    }

    /// What `uname -r` says in it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The version of its Debian package.
    pub fn version(&self) -> Result<String> {
        let bytes = fs::read(&self.packed).map_err(Error::file("read", &self.packed))?;
        banner(&bytes).and_then(version_in).map(str::to_owned).ok_or_else(|| {
            Error::Other(format!("{} does not say which Debian version it is", self.packed.display()))
        })
    }

    /// Its modules, for `/lib/modules/<release>`.
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
                // After the path come the options that this machine's modprobe.d has for the module.
                let path = PathBuf::from(path.split_whitespace().next().unwrap_or_default());
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
        Some(plain) => Ok((plain.to_owned(), unxz(path)?)),
    }
}

/// The contents of an xz file, whole. What comes after the end of its stream is left out.
fn unxz(path: &Path) -> Result<Vec<u8>> {
    let xz = Command::new("xz").args(["--decompress", "--stdout", "--single-stream"]).arg(path).output();
    let xz = xz.map_err(|source| Error::Start { program: "xz".into(), source })?;
    if !xz.status.success() {
        let why = String::from_utf8_lossy(&xz.stderr);
        return Err(Error::Other(format!("{}; remove the lab's cache", why.trim())));
    }
    Ok(xz.stdout)
}

fn download(into: &Path, apt: &mut Apt) -> Result<()> {
    apt.update()?;
    let depends = output(apt.command("apt-cache").args(["depends", META_PACKAGE]))?;
    let mut packages = kernel_packages(&depends);
    if !packages.iter().any(|package| package.starts_with("linux-image-")) {
        return Err(Error::Other(format!(
            "{META_PACKAGE} depends on no kernel image here: the lab needs Debian's kernel for amd64"
        )));
    }
    // Since Linux 7 the image's package depends on others for the modules.
    let mut looked_at = 0;
    while let Some(package) = packages.get(looked_at) {
        let depends = output(apt.command("apt-cache").args(["depends", package]))?;
        let more: Vec<_> =
            kernel_packages(&depends).into_iter().filter(|name| !packages.contains(name)).collect();
        packages.extend(more);
        looked_at += 1;
    }
    eprintln!("lab: downloading {}", packages.join(" "));
    apt.unpack(&packages, into)?;
    // Since /usr was merged the modules are in usr/lib; modprobe and depmod look in lib.
    let lib = into.join("lib");
    if !lib.exists() {
        std::os::unix::fs::symlink("usr/lib", &lib).map_err(Error::file("create", &lib))?;
    }
    let release = release_in(into)?;
    run_aside(Command::new("depmod").arg("--basedir").arg(into).arg(&release))
}

/// The packages of one kernel in what `apt-cache depends` prints: those named by its release.
fn kernel_packages(depends: &str) -> Vec<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::trim);
    let of_a_release =
        |name: &&str| name.starts_with("linux-") && name.contains(|c: char| c.is_ascii_digit());
    names.filter(of_a_release).map(str::to_owned).collect()
}

/// The kernel in an unpacked package: under boot until Linux 7, beside its modules since.
fn image_in(root: &Path, release: &str) -> Result<PathBuf> {
    let beside_modules = format!("lib/modules/{release}/vmlinuz");
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/{beside_modules}"), beside_modules];
    let found = places.iter().map(|place| root.join(place)).find(|path| path.exists());
    found.ok_or_else(|| {
        Error::Other(format!("{} has none of {}; remove the lab's cache", root.display(), places.join(", ")))
    })
}

/// The kernel that is packed into this image, beside it in the cache, unpacked the first time; the image itself if it can't be.
///
/// QEMU starts an unpacked kernel through its PVH note (its `-kernel` takes an ELF file), and the emulated CPU doesn't have to unpack
/// it: that is half of a guest's boot.
fn unpacked(root: &Path, image: PathBuf) -> Result<PathBuf> {
    let path = root.join("vmlinux");
    if path.exists() {
        return Ok(path);
    }
    let bytes = fs::read(&image).map_err(Error::file("read", &image))?;
    let Some(packed) = payload(&bytes).filter(|packed| packed.starts_with(XZ)) else {
        return Ok(image);
    };
    // The image has the kernel's length after the end of the stream.
    let part = root.join("vmlinux.xz");
    fs::write(&part, packed).map_err(Error::file("write", &part))?;
    let plain = unxz(&part);
    fs::remove_file(&part).map_err(Error::file("remove", &part))?;
    let plain = plain?;
    if !plain.starts_with(ELF) {
        return Ok(image);
    }
    // Under another name until it is whole.
    let unfinished = root.join("vmlinux.unfinished");
    fs::write(&unfinished, plain).map_err(Error::file("write", &unfinished))?;
    fs::rename(&unfinished, &path).map_err(Error::file("create", &path))?;
    Ok(path)
}

const XZ: &[u8] = b"\xfd7zXZ\0";
const ELF: &[u8] = b"\x7fELF";

/// The packed kernel in a bzImage (Linux, Documentation/arch/x86/boot.rst: setup_sects, payload_offset, payload_length).
fn payload(image: &[u8]) -> Option<&[u8]> {
    let long = |at: usize| {
        let bytes = image.get(at..at.checked_add(4)?)?;
        usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()
    };
    image.get(0x202..0x206).filter(|magic| *magic == b"HdrS")?;
    let setup_sectors = match image.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(*sectors),
    };
    let start = (setup_sectors + 1) * 512 + long(0x248)?;
    image.get(start..start.checked_add(long(0x24c)?)?)
}

/// What the kernel in a bzImage calls itself (Documentation/arch/x86/boot.rst: kernel_version).
fn banner(image: &[u8]) -> Option<&str> {
    image.get(0x202..0x206).filter(|magic| *magic == b"HdrS")?;
    let at = 0x200 + usize::from(u16::from_le_bytes(image.get(0x20e..0x210)?.try_into().ok()?));
    let text = image.get(at..)?;
    std::str::from_utf8(&text[..text.iter().position(|byte| *byte == 0)?]).ok()
}

/// The Debian version in that: `6.1.192-2` of `6.1.0-56-amd64 (…) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)`.
fn version_in(banner: &str) -> Option<&str> {
    banner.split_once(" Debian ")?.1.split_whitespace().next()
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
    fn the_packages_of_a_kernel_are_found_among_dependencies() {
        let text = "linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Suggests: x-1\n";
        assert_eq!(kernel_packages(text), ["linux-image-6.1.0-56-amd64"]);
        assert_eq!(kernel_packages("linux-image-amd64\n"), [""; 0]);
        let text = "linux-image-7.3.4-amd64\n  Depends: kmod\n  Depends: linux-base\n  \
            Depends: linux-base-7.3.4-amd64\n  Depends: linux-modules-7.3.4-amd64\n |Depends: initramfs-tools\n";
        assert_eq!(kernel_packages(text), ["linux-base-7.3.4-amd64", "linux-modules-7.3.4-amd64"]);
    }

    #[test]
    fn a_packed_kernel_is_found_in_its_image() {
        let mut image = vec![0; 0x800];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&0x10_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&4_u32.to_le_bytes());
        image[0x410..0x414].copy_from_slice(b"here");
        assert_eq!(payload(&image).unwrap(), b"here");
        image[0x24c..0x250].copy_from_slice(&0x400_u32.to_le_bytes());
        assert_eq!(payload(&image), None, "it would be longer than its image");
        assert_eq!(payload(b"\x7fELF"), None);
    }

    #[test]
    fn a_kernel_tells_its_debian_version() {
        let text = b"6.1.0-56-amd64 (x@example) #1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-11-16)\0";
        let mut image = vec![0; 0x800];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x20e..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
        image[0x300..0x300 + text.len()].copy_from_slice(text);
        assert_eq!(banner(&image).and_then(version_in), Some("6.1.192-2"));
        assert_eq!(banner(&image[..0x310]), None, "cut off");
        assert_eq!(version_in("6.18.1 (x@example) #1 SMP"), None);
    }

    /// Debian's 7.3 has its kernel beside the modules, and the lab looked in boot alone.
    #[test]
    fn a_kernel_is_found_under_boot_and_beside_its_modules() {
        for place in ["boot/vmlinuz-7.3.4-amd64", "lib/modules/7.3.4-amd64/vmlinuz"] {
            let root = std::env::temp_dir().join(format!("xtask-kernel-{}", std::process::id()));
            let path = root.join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::create_dir_all(root.join("lib/modules/7.3.4-amd64")).unwrap();
            fs::write(&path, "").unwrap();
            let release = release_in(&root).unwrap();
            let found = image_in(&root, &release);
            fs::remove_dir_all(&root).unwrap();
            assert_eq!(found.unwrap(), path);
            assert!(image_in(&root, &release).is_err());
        }
    }
}
