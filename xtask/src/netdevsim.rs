//! netdevsim for level 1: the kernel's own network adapter for tests, with a health reporter of devlink's that fails when it is told to.
//! Debian's kernel does not have it, so it is built here from the sources of the same version, beside that kernel, and kept in the
//! cache as one file: about 140 MB are downloaded for it and removed again, and it compiles in some 20 s.
//!
//! drivers/net/netdevsim; Documentation/kbuild/modules.rst.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::apt::Apt;
use crate::error::{Error, Result};
use crate::kernel::Kernel;
use crate::packages;
use crate::process::{output, run_aside};

/// Where the module's sources are in the kernel's.
const SOURCES: &str = "drivers/net/netdevsim";
/// Where Debian's packages have sources and headers.
const USR_SRC: &str = "/usr/src";

/// The module for this kernel, built first when there is none.
pub fn prepare(cache: &Path, kernel: &Kernel, apt: &mut Apt) -> Result<PathBuf> {
    let version = kernel.version()?;
    let folder = cache.join("netdevsim");
    let module = folder.join(format!("{}_{version}.ko", kernel.release()));
    if !module.exists() {
        let unfinished = cache.join("netdevsim.unfinished");
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(&unfinished).map_err(Error::file("create", &unfinished))?;
        let built = build(&unfinished, kernel.release(), &version, apt).map_err(|error| {
            Error::Other(format!(
                "netdevsim can't be built for the lab's kernel, {} {version}: {error}\n\
                 Where apt has no sources of that version any more, remove {}: a newer kernel is downloaded then",
                kernel.release(),
                cache.join("kernel").display()
            ))
        })?;
        // Those of other kernels go.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
        fs::rename(&built, &module).map_err(Error::file("create", &module))?;
        fs::remove_dir_all(&unfinished).map_err(Error::file("remove", &unfinished))?;
    }
    Ok(module)
}

fn build(root: &Path, release: &str, version: &str, apt: &mut Apt) -> Result<PathBuf> {
    apt.update()?;
    let headers = format!("linux-headers-{release}");
    let depends = output(apt.command("apt-cache").args(["depends", &headers]))?;
    let mut wanted = with_what_it_is_built(&depends);
    let source = format!("linux-source-{}", series(version)?);
    wanted.extend([headers.clone(), format!("{source}={version}")]);
    eprintln!("lab: downloading {}, to build netdevsim", wanted.join(" "));
    apt.unpack(&wanted, root)?;

    let src = root.join("usr/src");
    let headers = src.join(headers);
    // They name each other by absolute paths.
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile).map_err(Error::file("read", &makefile))?;
    let text = text.replace(USR_SRC, &src.to_string_lossy());
    fs::write(&makefile, text).map_err(Error::file("write", &makefile))?;

    let archive = src.join(format!("{source}.tar.xz"));
    let mut tar = Command::new("tar");
    tar.arg("--extract").arg("--file").arg(&archive).arg("--directory").arg(root);
    run_aside(tar.args(["--wildcards", &format!("*/{SOURCES}/*")]))?;
    let module = root.join(&source).join(SOURCES);

    let config = headers.join("include/config/auto.conf");
    let config = fs::read_to_string(&config).map_err(Error::file("read", &config))?;
    packages::install(apt, &["make", &compiler(&config)?])?;
    let mut make = Command::new("make");
    make.arg("--silent").arg("--directory").arg(&headers).arg(format!("M={}", module.display()));
    // The headers lack the kernel that type information would be taken from.
    run_aside(make.args(["CONFIG_NETDEVSIM=m", "CONFIG_DEBUG_INFO_BTF_MODULES=", "modules"]))?;
    let built = module.join("netdevsim.ko");
    run_aside(Command::new("strip").arg("--strip-debug").arg(&built))?;
    Ok(built)
}

/// The other packages that headers depend on, but for the compiler's: those are not unpacked, but installed where they are missing.
fn with_what_it_is_built(depends: &str) -> Vec<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: ")).map(str::trim);
    let is_of_the_kernel =
        |name: &&str| name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-");
    names.filter(is_of_the_kernel).map(str::to_owned).collect()
}

/// The series of a Debian version: `6.1` of `6.1.192-2`.
fn series(version: &str) -> Result<String> {
    let mut parts = version.split('.');
    match (parts.next(), parts.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}")),
        _ => Err(Error::Other(format!("the kernel's version is '{version}', which has no series"))),
    }
}

/// The package of the compiler that the kernel was built with, as `gcc-12`.
fn compiler(config: &str) -> Result<String> {
    // In quotes in some series.
    let told = config.lines().find_map(|line| line.strip_prefix("CONFIG_CC_VERSION_TEXT="));
    let program = told.and_then(|told| told.trim_start_matches('"').split_whitespace().next());
    let package = program.and_then(|program| Some(&program[program.rfind("gcc-")?..]));
    package.map(str::to_owned).ok_or_else(|| {
        Error::Other("the kernel's headers do not tell which gcc it was built with".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_is_built_with_follows_from_the_kernels_headers() {
        let depends = "linux-headers-6.1.0-56-amd64\n  Depends: linux-headers-6.1.0-56-common\n  \
                       Depends: linux-kbuild-6.1\n  Depends: linux-compiler-gcc-12-x86\n";
        assert_eq!(with_what_it_is_built(depends), ["linux-headers-6.1.0-56-common", "linux-kbuild-6.1"]);
        assert_eq!(series("6.1.192-2").unwrap(), "6.1");
        assert_eq!(series("6.12.95-1~bpo12+1").unwrap(), "6.12");
        assert!(series("6").is_err());
        let config = |text: &str| compiler(&format!("CONFIG_X=y\nCONFIG_CC_VERSION_TEXT={text}\n"));
        assert_eq!(config("gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0").unwrap(), "gcc-12");
        assert_eq!(config("\"x86_64-linux-gnu-gcc-14 (Debian 14.2.0-19) 14.2.0\"").unwrap(), "gcc-14");
        assert!(config("clang 19").is_err());
    }
}
