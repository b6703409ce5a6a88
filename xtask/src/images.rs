//! The two root file systems the kernel is booted with: level 1's, which only finds its real root, and the guest's.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio::Archive;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::process::{output, run_aside};

/// Debian's busybox-static.
const BUSYBOX: &str = "/bin/busybox";
/// Modules that level 1 needs to mount its root.
const LEVEL1_MODULES: [&str; 5] = ["virtio_pci", "virtio_console", "9p", "9pnet_virtio", "overlay"];
/// Modules that a guest needs: for its VFs, their standbys and bonds of them, its channel and its power button.
const GUEST_MODULES: [&str; 8] =
    ["virtio_pci", "virtio_console", "virtio_net", "igbvf", "nvme", "bonding", "button", "evdev"];

/// Level 1's boot image.
pub fn level1(kernel: &Kernel) -> Result<Vec<u8>> {
    Ok(base(include_str!("../../lab/level1-init.sh"), kernel, &LEVEL1_MODULES)?.finish())
}

/// The guest's image, with `programs` in its /bin. Libraries that are missing here are looked for in `unpacked`, a root of packages.
/// `scratch` is a folder to work in.
pub fn guest(
    kernel: &Kernel,
    programs: &[PathBuf],
    unpacked: Option<&Path>,
    scratch: &Path,
) -> Result<Vec<u8>> {
    let mut archive = base(include_str!("../../lab/guest-init.sh"), kernel, &GUEST_MODULES)?;
    archive.directory("/root");
    let mut libraries = BTreeSet::new();
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        // Debug information is most of the binary, and all of it would be guest memory.
        let stripped = scratch.join(&*name);
        run_aside(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        archive.file(&format!("/bin/{name}"), &read(&stripped)?);
        let mut ldd = Command::new("ldd");
        if let Some(root) = unpacked {
            let folders = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"].map(|at| root.join(at));
            ldd.env("LD_LIBRARY_PATH", folders.map(|folder| folder.to_string_lossy().into_owned()).join(":"));
        }
        libraries.extend(shared_libraries(&output(ldd.arg(&stripped))?));
    }
    for library in libraries {
        // At the place that it would be installed to.
        let within = unpacked.and_then(|root| library.strip_prefix(root).ok());
        let place = within.map_or_else(|| library.clone(), |within| Path::new("/").join(within));
        archive.file(&place.to_string_lossy(), &read(&library)?);
    }
    Ok(archive.finish())
}

fn base(init: &str, kernel: &Kernel, modules: &[&str]) -> Result<Archive> {
    let mut archive = Archive::default();
    for folder in ["/dev", "/proc", "/sys"] {
        archive.directory(folder);
    }
    archive.file("/init", init.as_bytes());
    archive.file("/bin/busybox", &read(Path::new(BUSYBOX))?);
    for (index, (name, content)) in kernel.load_order(modules)?.iter().enumerate() {
        archive.file(&format!("/lib/modules/{index:02}-{name}"), content);
    }
    Ok(archive)
}

/// The paths in what ldd(1) prints: "NAME => PATH (ADDRESS)" and, for the loader, "PATH (ADDRESS)".
fn shared_libraries(ldd: &str) -> Vec<PathBuf> {
    ldd.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ldd_is_read() {
        let text = "\tlinux-vdso.so.1 (0x1)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x2)\n\t/lib64/ld.so.2 (0x3)\n";
        assert_eq!(
            shared_libraries(text),
            [PathBuf::from("/lib/x/libc.so.6"), PathBuf::from("/lib64/ld.so.2")]
        );
    }
}
