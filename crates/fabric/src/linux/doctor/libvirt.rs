//! Whether libvirt, where it is there, asks ioward before it starts a domain (docs/libvirt.md).

use std::io;

use super::{
    Check, Finding,
    checks::{warning, well},
};
use crate::linux::HostRoot;

/// What only a host with libvirt's daemon for QEMU has: its programs, its systemd units, or its sockets.
const SIGNS: [&str; 8] = [
    "usr/sbin/libvirtd",
    "usr/sbin/virtqemud",
    "usr/lib/systemd/system/libvirtd.service",
    "usr/lib/systemd/system/virtqemud.service",
    "etc/systemd/system/libvirtd.service",
    "etc/systemd/system/virtqemud.service",
    "run/libvirt/libvirt-sock",
    "run/libvirt/virtqemud-sock",
];
/// ioward's hook.
const HOOK: &str = "etc/libvirt/hooks/qemu.d/ioward";
/// The one hook of libvirt before 6.5, which may be ioward's, or run it.
const ONLY_HOOK: &str = "etc/libvirt/hooks/qemu";
/// As much of that one is read, in bytes.
const MAX_HOOK: usize = 64 << 10;

/// Whether libvirt asks ioward before it starts a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LibvirtHook {
    /// There is no libvirt here, or it can't be told.
    #[default]
    NotNeeded,
    /// It does.
    Installed,
    /// The hook is there, and nobody may execute it.
    NotExecutable,
    /// There is no hook.
    Missing,
}

impl LibvirtHook {
    /// How it is on a host.
    pub(super) fn of(root: &HostRoot) -> Self {
        if !SIGNS.iter().any(|path| root.exists(path)) {
            return Self::NotNeeded;
        }
        match root.is_program(HOOK) {
            Ok(true) => Self::Installed,
            _ if runs_ioward(root) => Self::Installed,
            Ok(false) => Self::NotExecutable,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Missing,
            // /etc/libvirt is root's on some distributions: the finding about root says that not everything is seen.
            Err(_) => Self::NotNeeded,
        }
    }
}

/// Whether the hook of an older libvirt runs ioward's.
fn runs_ioward(root: &HostRoot) -> bool {
    let runs = |script: Vec<u8>| String::from_utf8_lossy(&script).contains("ioward libvirt-hook");
    root.is_program(ONLY_HOOK).unwrap_or(false) && root.read(ONLY_HOOK, MAX_HOOK).is_ok_and(runs)
}

/// Without it a domain that others start has no VFs yet.
pub(super) fn libvirt_hook(hook: LibvirtHook) -> Option<Finding> {
    let restart = "then restart libvirt's daemon, which looks for hooks only when it starts: systemctl restart libvirtd \
                   (or virtqemud); machines run on";
    let (found, remedy) = match hook {
        LibvirtHook::NotNeeded => return None,
        LibvirtHook::Installed => {
            return Some(well(Check::LibvirtHook, "libvirt asks ioward before it starts a domain"));
        }
        LibvirtHook::NotExecutable => (
            format!(
                "/{HOOK} is no executable file, so libvirt does not run it: a domain may start without its VFs"
            ),
            format!("chmod 755 /{HOOK}, {restart}"),
        ),
        LibvirtHook::Missing => (
            format!("there is no /{HOOK}: a domain that others than ioward start may start without its VFs"),
            format!("install ioward's package, or packaging/libvirt-hook there, with mode 755; {restart}"),
        ),
    };
    Some(warning(Check::LibvirtHook, found, remedy))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

    use super::*;
    use crate::linux::doctor::Verdict;

    /// The files of a host, removed at the end of the test.
    struct Host(PathBuf);

    impl Host {
        fn new(test: &str) -> Self {
            Self(std::env::temp_dir().join(format!("ioward-doctor-{}-{test}", std::process::id())))
        }

        fn with(self, path: &str, mode: u32, text: &str) -> Self {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            self
        }

        /// The finding, if there is one: its verdict, and the two sentences.
        fn finding(&self) -> Option<(Verdict, String, String)> {
            let hook = LibvirtHook::of(&HostRoot::open(&self.0).unwrap());
            libvirt_hook(hook).map(|finding| (finding.verdict, finding.found, finding.remedy))
        }
    }

    impl Drop for Host {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_host_without_libvirt_needs_no_hook() {
        let host = Host::new("without").with("usr/bin/virsh", 0o755, "");
        assert_eq!(host.finding(), None, "virsh may be there for other hosts");
    }

    #[test]
    fn each_sign_of_libvirt_asks_for_the_hook() {
        for (number, sign) in SIGNS.iter().enumerate() {
            let host = Host::new(&format!("sign-{number}")).with(sign, 0o644, "");
            let (verdict, found, remedy) = host.finding().unwrap();
            assert_eq!(verdict, Verdict::Warning);
            assert!(found.starts_with("there is no /etc/libvirt/hooks/qemu.d/ioward"), "{sign}: {found}");
            assert!(
                remedy.contains("packaging/libvirt-hook") && remedy.contains("systemctl restart libvirtd")
            );
        }
    }

    #[test]
    fn libvirt_passes_over_a_hook_that_nobody_may_execute() {
        let host = Host::new("mode").with("usr/sbin/libvirtd", 0o755, "").with(HOOK, 0o644, "#!/bin/sh");
        let (verdict, _, remedy) = host.finding().unwrap();
        assert_eq!(verdict, Verdict::Warning);
        assert!(remedy.starts_with("chmod 755 /etc/libvirt/hooks/qemu.d/ioward, "), "{remedy}");
        let host = host.with(HOOK, 0o755, "#!/bin/sh");
        assert_eq!(host.finding().unwrap().0, Verdict::Well);
    }

    #[test]
    fn a_folder_is_no_hook() {
        let host = Host::new("folder").with("usr/sbin/libvirtd", 0o755, "");
        let host = host.with("etc/libvirt/hooks/qemu.d/ioward/file", 0o755, "");
        assert_eq!(host.finding().unwrap().0, Verdict::Warning);
    }

    #[test]
    fn the_one_hook_of_an_older_libvirt_may_be_it() {
        let host = Host::new("older").with("usr/sbin/libvirtd", 0o755, "");
        let host = host.with(ONLY_HOOK, 0o755, "#!/bin/sh\nmake-coffee\n");
        assert_eq!(host.finding().unwrap().0, Verdict::Warning, "somebody else's");
        let host = host.with(ONLY_HOOK, 0o755, "#!/bin/sh\nexec ioward libvirt-hook -- \"$@\"\n");
        assert_eq!(host.finding().unwrap().0, Verdict::Well);
    }
}
