//! `cargo xtask package`: a Debian package of the binaries of this checkout.
//!
//! ```text
//!   usr/bin/ioward, ioward-agent          lib/systemd/system/ioward.service, .socket
//!   usr/share/man/man1/ioward*.1.gz       etc/default/ioward           (packaging/)
//!   completions for bash, zsh and fish    usr/share/cockpit/ioward/    (packaging/cockpit/, and the page of ui/dist)
//!   usr/lib/tmpfiles.d/ioward.conf        etc/libvirt/hooks/qemu.d/ioward
//!   usr/share/doc/ioward/                 usr/share/ioward/grafana/     (packaging/grafana/)
//!   DEBIAN/control, conffiles, postinst, prerm, postrm
//! ```
//!
//! Built twice from one commit by one compiler it is the same, byte by byte: every time in it is that of the commit
//! (`SOURCE_DATE_EPOCH`).

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use crate::dist;
use crate::error::{Error, Result};
use crate::process::{output, run_aside};
use crate::workspace::Workspace;

/// Scripts that dpkg runs.
const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Builds the package and gives where it is.
///
/// With `dev` the binaries are those of the dev profile, which tests have built anyway, stripped, and little is compressed.
pub fn build(dev: bool) -> Result<PathBuf> {
    let workspace = Workspace::find()?;
    let version = env!("CARGO_PKG_VERSION");
    let target = workspace.binaries.parent().unwrap_or(&workspace.binaries).to_owned();
    let (binaries, name) = if dev {
        run_aside(workspace.cargo().args(["build", "--package", "ioward", "--package", "ioward-agent"]))?;
        (workspace.binaries.clone(), format!("ioward_{version}_amd64.dev.deb"))
    } else {
        run_aside(&mut dist::agent(workspace.cargo()))?;
        run_aside(&mut dist::ioward(workspace.cargo()))?;
        dist::size_of(&target.join("dist/ioward"))?;
        (target.join("dist"), format!("ioward_{version}_amd64.deb"))
    };

    let tree = Tree::new(target.join("package"))?;
    for binary in ["ioward", "ioward-agent"] {
        let to = format!("usr/bin/{binary}");
        tree.copy(&binaries.join(binary), &to, 0o755)?;
        if dev {
            // A hundred megabytes of line numbers and symbols: to unpack them takes long in the lab.
            run_aside(Command::new("strip").arg(tree.root.join(to)))?;
        }
    }
    man_pages(&tree, &binaries.join("ioward"))?;
    completions(&tree, &binaries.join("ioward"))?;
    let packaging = workspace.root.join("packaging");
    for unit in ["ioward.service", "ioward.socket"] {
        tree.copy(&packaging.join(unit), &format!("lib/systemd/system/{unit}"), 0o644)?;
    }
    tree.copy(&packaging.join("tmpfiles.conf"), "usr/lib/tmpfiles.d/ioward.conf", 0o644)?;
    tree.copy(&packaging.join("default"), "etc/default/ioward", 0o644)?;
    tree.copy(&packaging.join("libvirt-hook"), "etc/libvirt/hooks/qemu.d/ioward", 0o755)?;
    cockpit(&tree, &workspace.root)?;
    tree.copy(&packaging.join("copyright"), "usr/share/doc/ioward/copyright", 0o644)?;
    for document in ["README.md", "CHANGELOG.md", "SECURITY.md"] {
        tree.copy(&workspace.root.join(document), &format!("usr/share/doc/ioward/{document}"), 0o644)?;
    }
    for schema in ["docs/spec.schema.json", "crates/api/openapi.json"] {
        let name = schema.rsplit('/').next().unwrap_or(schema);
        tree.copy(&workspace.root.join(schema), &format!("usr/share/doc/ioward/{name}"), 0o644)?;
    }
    tree.copy(&packaging.join("grafana/ioward.json"), "usr/share/ioward/grafana/ioward.json", 0o644)?;
    for script in SCRIPTS {
        tree.copy(&packaging.join(script), &format!("DEBIAN/{script}"), 0o755)?;
    }
    tree.write("DEBIAN/conffiles", b"/etc/default/ioward\n/etc/libvirt/hooks/qemu.d/ioward\n")?;
    let glibc = newest_glibc(&[&binaries.join("ioward"), &binaries.join("ioward-agent")])?;
    tree.write("DEBIAN/control", control(version, &glibc, tree.kibibytes()?).as_bytes())?;

    let package = target.join(name);
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.env("SOURCE_DATE_EPOCH", commit_time(&workspace)?).arg("--root-owner-group");
    dpkg.args(if dev { &["-Zgzip", "-z1"][..] } else { &["-Zxz"] });
    run_aside(dpkg.arg("--build").arg(&tree.root).arg(&package))?;
    Ok(package)
}

fn control(version: &str, glibc: &str, kibibytes: u64) -> String {
    format!(
        "Package: ioward\n\
         Version: {version}\n\
         Architecture: amd64\n\
         Maintainer: the authors of ioward <ioward@localhost>\n\
         Section: admin\n\
         Priority: optional\n\
         Installed-Size: {kibibytes}\n\
         Depends: libc6 (>= {glibc}), libgcc-s1, passwd\n\
         Recommends: qemu-system-x86 (>= 1:8.0), pci.ids\n\
         Description: I/O virtualization management partition for Linux/KVM\n \
         Finds SR-IOV adapters, gives their virtual functions to KVM guests, and lets\n \
         each guest configure its own, within what it was allowed.\n"
    )
}

/// A page for ioward and one for each of its commands, as `ioward man` prints them.
fn man_pages(tree: &Tree, ioward: &Path) -> Result<()> {
    let help = output(Command::new(ioward).arg("--help"))?;
    tree.gzip("usr/share/man/man1/ioward.1", &output(Command::new(ioward).arg("man"))?)?;
    for command in commands(&help) {
        let page = output(Command::new(ioward).args(["man", command]))?;
        tree.gzip(&format!("usr/share/man/man1/ioward-{command}.1"), &page)?;
    }
    Ok(())
}

/// What shells complete the command line by, where Debian's shells look for it.
fn completions(tree: &Tree, ioward: &Path) -> Result<()> {
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/ioward"),
        ("zsh", "usr/share/zsh/vendor-completions/_ioward"),
        ("fish", "usr/share/fish/vendor_completions.d/ioward.fish"),
    ] {
        tree.write(path, output(Command::new(ioward).args(["completions", shell]))?.as_bytes())?;
    }
    Ok(())
}

/// The page as one of Cockpit's: what it asks for goes through Cockpit's bridge, for its index.html loads two scripts more.
fn cockpit(tree: &Tree, root: &Path) -> Result<()> {
    let to = |name: &str| format!("usr/share/cockpit/ioward/{name}");
    for name in ["manifest.json", "theme.js", "transport.js"] {
        tree.copy(&root.join("packaging/cockpit").join(name), &to(name), 0o644)?;
    }
    let dist = root.join("ui/dist");
    for file in fs::read_dir(&dist).map_err(Error::file("read", &dist))? {
        let file = file.map_err(Error::file("read", &dist))?;
        let (path, name) = (file.path(), file.file_name().to_string_lossy().into_owned());
        if name == "index.html" {
            let index = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
            tree.write(&to(&name), in_cockpit(&index)?.as_bytes())?;
        } else if path.is_file() {
            tree.copy(&path, &to(&name), 0o644)?;
        }
    }
    Ok(())
}

/// The page's index.html with the scripts that come before its own: a module waits until the document has been read.
fn in_cockpit(index: &str) -> Result<String> {
    const SCRIPTS: &str = "<script src=\"theme.js\"></script>\n<script src=\"../base1/cockpit.js\"></script>\n\
                           <script src=\"transport.js\"></script>\n";
    let at = index.find("<title>").ok_or_else(|| Error::Other("ui/dist/index.html has no <title>".into()))?;
    let (before, after) = index.split_at(at);
    Ok(format!("{before}{SCRIPTS}{after}"))
}

/// The commands that a help text lists: the first words of the lines below "Commands:".
fn commands(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let indented = listed.take_while(|line| line.starts_with("  "));
    let first =
        indented.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    first.filter(|command| *command != "help").collect()
}

/// The version of glibc that binaries need, as `2.34`.
fn newest_glibc(binaries: &[&Path]) -> Result<String> {
    let mut newest = (0, 0);
    for binary in binaries {
        newest = newest.max(glibc_of(&fs::read(binary).map_err(Error::file("read", binary))?));
    }
    Ok(format!("{}.{}", newest.0, newest.1))
}

/// The newest version of glibc that a binary has symbols of: what is looked for stands in its string table.
fn glibc_of(binary: &[u8]) -> (u32, u32) {
    const VERSION: &[u8] = b"GLIBC_2.";
    let versions = binary.windows(VERSION.len()).enumerate().filter(|(_, window)| *window == VERSION);
    versions.fold((0, 0), |newest, (at, _)| {
        let digits = binary[at + VERSION.len()..].iter().take_while(|byte| byte.is_ascii_digit()).take(3);
        newest.max((2, digits.fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))))
    })
}

fn commit_time(workspace: &Workspace) -> Result<String> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(given) => Ok(given),
        Err(_) => {
            let mut git = Command::new("git");
            let time = output(git.args(["log", "-1", "--format=%ct"]).current_dir(&workspace.root))?;
            Ok(time.trim().to_owned())
        }
    }
}

/// The contents of the package, as a folder.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new(root: PathBuf) -> Result<Self> {
        // The contents of an earlier build.
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
        let tree = Self { root };
        // A package must not depend on the mask of who builds it.
        tree.mode(&tree.root, 0o755)?;
        Ok(tree)
    }

    fn copy(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.write(to, &fs::read(from).map_err(Error::file("read", from))?)?;
        self.mode(&self.root.join(to), mode)
    }

    fn write(&self, to: &str, content: &[u8]) -> Result<()> {
        let path = self.root.join(to);
        for folder in Path::new(to).ancestors().skip(1) {
            let folder = self.root.join(folder);
            fs::create_dir_all(&folder).map_err(Error::file("create", &folder))?;
            self.mode(&folder, 0o755)?;
        }
        fs::write(&path, content).map_err(Error::file("write", &path))?;
        self.mode(&path, 0o644)
    }

    /// Without a name and a time in it.
    fn gzip(&self, to: &str, content: &str) -> Result<()> {
        self.write(to, content.as_bytes())?;
        run_aside(Command::new("gzip").args(["-9n"]).arg(self.root.join(to)))
    }

    fn mode(&self, path: &Path, mode: u32) -> Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::file("protect", path))
    }

    fn kibibytes(&self) -> Result<u64> {
        let listed = output(Command::new("du").args(["-sk", "--apparent-size"]).arg(&self.root))?;
        Ok(listed.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cockpit_s_scripts_come_before_the_page_s() {
        let page =
            in_cockpit("<head><title>ioward</title><script type=\"module\" src=\"./index.js\"></script>")
                .unwrap();
        let places =
            ["base1/cockpit.js", "transport.js", "index.js"].map(|script| page.find(script).unwrap());
        assert!(places.is_sorted(), "{page}");
        assert!(in_cockpit("nothing").is_err());
    }

    #[test]
    fn the_glibc_that_is_needed_is_the_newest_that_is_named() {
        assert_eq!(glibc_of(b"\0GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.17\0"), (2, 34));
        assert_eq!(glibc_of(b"GLIBC_"), (0, 0));
    }

    #[test]
    fn each_command_has_a_page_but_help() {
        let help = "Finds.\n\nUsage: ioward\n\nCommands:\n  demo   Show\n  serve  Run the\n         daemon\n  help   Print\n\nOptions:\n  -h\n";
        assert_eq!(commands(help), ["demo", "serve"]);
    }
}
