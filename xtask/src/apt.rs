//! apt with sources and package lists of the lab's own, in the cache: the machine's configuration is read and never
//! changed, and downloading needs no root.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::backports;
use crate::error::{Error, Result};
use crate::process::{output, run_aside};

/// Where the machine keeps its sources, beside `/etc/apt/sources.list`.
const SYSTEM_PARTS: &str = "/etc/apt/sources.list.d";

/// The machine's apt sources, and the backports of its release once [`Apt::add_backports`] was called.
pub struct Apt {
    folder: PathBuf,
    updated: bool,
}

impl Apt {
    /// Starts from the machine's sources as they are now.
    pub fn new(cache: &Path) -> Result<Self> {
        let apt = Self { folder: cache.join("apt"), updated: false };
        let parts = apt.parts();
        // Made anew, so that a source the machine no longer has is gone here too.
        let _ = fs::remove_dir_all(&parts);
        for folder in [&parts, &apt.folder.join("lists/partial")] {
            fs::create_dir_all(folder).map_err(Error::file("create", folder))?;
        }
        for source in system_parts()? {
            let link = parts.join(source.file_name().unwrap_or_default());
            symlink(&source, &link).map_err(Error::file("create", &link))?;
        }
        Ok(apt)
    }

    /// `program` of the apt family, with the lab's sources.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C");
        for (option, value) in [
            ("Dir::Etc::sourceparts", self.parts().as_path()),
            ("Dir::State::lists", self.folder.join("lists").as_path()),
            // The machine's package cache is of the machine's sources: leave it alone.
            ("Dir::Cache::pkgcache", Path::new("")),
            ("Dir::Cache::srcpkgcache", Path::new("")),
            // apt's unprivileged user can't be expected to reach the cache.
            ("APT::Sandbox::User", Path::new("root")),
        ] {
            command.arg("-o").arg(format!("{option}={}", value.display()));
        }
        command
    }

    /// Fetches the package lists, the first time it is called.
    pub fn update(&mut self) -> Result<()> {
        if !self.updated {
            eprintln!("lab: fetching package lists");
            run_aside(self.command("apt-get").args(["--quiet=2", "update"]))?;
            self.updated = true;
        }
        Ok(())
    }

    /// The answer of `apt-cache policy` about a package.
    pub fn policy(&mut self, package: &str) -> Result<Policy> {
        self.update()?;
        Ok(Policy::parse(&output(self.command("apt-cache").args(["policy", package]))?))
    }

    /// Adds the backports of the release that `package` comes from, and gives their suite's name.
    pub fn add_backports(&mut self, package: &str) -> Result<String> {
        let codename = codename()?;
        let mut sources = system_parts()?;
        sources.push(PathBuf::from("/etc/apt/sources.list"));
        let origins = self.policy(package)?.uris;
        let mut found = false;
        for source in sources.iter().filter(|source| source.exists()) {
            let text = fs::read_to_string(source).map_err(Error::file("read", source))?;
            let deb822 = source.extension().is_some_and(|extension| extension == "sources");
            let derived = if deb822 {
                backports::from_deb822(&text, &codename, &origins)
            } else {
                backports::from_one_line(&text, &codename, &origins)
            };
            if !derived.is_empty() {
                let name = source.file_name().unwrap_or_default().to_string_lossy();
                let path = self.parts().join(format!("ioward-backports-{name}"));
                fs::write(&path, derived).map_err(Error::file("write", &path))?;
                found = true;
            }
        }
        if !found {
            return Err(Error::Other(format!(
                "{package} of this release is too old, and no apt source here gives {codename}, so its backports \
                 can't be told: install a newer {package} by hand"
            )));
        }
        self.updated = false;
        Ok(backports::suite(&codename))
    }

    /// The command that installs packages, from `suite` if given.
    pub fn install_command(&self, packages: &[&str], suite: Option<&str>) -> Command {
        let mut command = self.command("apt-get");
        command.args(["--quiet=2", "--yes", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]);
        if let Some(suite) = suite {
            command.arg(format!("--target-release={suite}"));
        }
        command.arg("install").args(packages);
        command
    }

    /// Downloads packages and unpacks them into a folder. None of their scripts runs, and the machine does not know of them.
    pub fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let archives = into.join("archives");
        fs::create_dir(&archives).map_err(Error::file("create", &archives))?;
        let mut download = self.command("apt-get");
        run_aside(download.args(["--quiet=2", "download"]).args(packages).current_dir(&archives))?;
        for archive in fs::read_dir(&archives).map_err(Error::file("read", &archives))? {
            let archive = archive.map_err(Error::file("read", &archives))?.path();
            run_aside(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(into))?;
        }
        fs::remove_dir_all(&archives).map_err(Error::file("remove", &archives))
    }

    fn parts(&self) -> PathBuf {
        self.folder.join("sources.list.d")
    }
}

/// The answer of `apt-cache policy` about a package.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// The version that would be installed.
    pub candidate: Option<String>,
    /// Where versions of it come from.
    pub uris: Vec<String>,
}

impl Policy {
    fn parse(text: &str) -> Self {
        let mut policy = Self { candidate: None, uris: Vec::new() };
        for line in text.lines().map(str::trim) {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("Candidate:"), Some(version)) if version != "(none)" => {
                    policy.candidate = Some(version.to_owned());
                }
                // "500 URI SUITE/COMPONENT ARCHITECTURE Packages": a place a version comes from
                (Some(priority), Some(uri))
                    if priority.parse::<i32>().is_ok() && line.ends_with(" Packages") =>
                {
                    policy.uris.push(uri.to_owned());
                }
                _ => {}
            }
        }
        policy
    }
}

/// The files in the machine's sources folder that apt reads.
fn system_parts() -> Result<Vec<PathBuf>> {
    let folder = Path::new(SYSTEM_PARTS);
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(Error::file("read", folder))? {
        let path = entry.map_err(Error::file("read", folder))?.path();
        if path.extension().is_some_and(|extension| extension == "list" || extension == "sources") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The release's name: "bookworm". From os-release(5).
fn codename() -> Result<String> {
    let path = Path::new("/etc/os-release");
    let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
    text.lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .map(|name| name.trim_matches('"').to_owned())
        .ok_or_else(|| {
            Error::Other("/etc/os-release names no VERSION_CODENAME: the lab needs Debian or Ubuntu".into())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policy_is_read() {
        let text = "qemu-system-x86:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n  Version table:\n \
                    1:7.2+dfsg-7 500\n        500 http://mirror.example/debian bookworm/main amd64 Packages\n        \
                    100 /var/lib/dpkg/status\n";
        let expected = Policy {
            candidate: Some("1:7.2+dfsg-7".into()),
            uris: vec!["http://mirror.example/debian".into()],
        };
        assert_eq!(Policy::parse(text), expected);
        assert_eq!(Policy::parse("x:\n  Candidate: (none)\n").candidate, None);
    }
}
