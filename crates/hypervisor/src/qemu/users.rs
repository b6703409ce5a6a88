//! Who machines run as: each as a user of its own, who owns nothing but the VFIO nodes of its VFs. A guest that takes its QEMU
//! over is then that user, and what is another machine's, the host's or ioward's is out of its reach.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Range,
    os::unix::fs::{MetadataExt, chown},
    path::{Path, PathBuf},
    thread,
};

use rustix::{
    process::{Gid, Uid},
    thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// The users and the group that machines are run with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Users that nobody else has: each machine gets one of them. None of them needs an entry in passwd(5).
    pub machines: Range<u32>,
    /// The files that a machine boots from are opened with the rights of this group, and of everybody: so whoever names a file has to
    /// have been given it.
    pub boot_group: u32,
    /// That group's name, for a person.
    pub boot_group_name: String,
}

/// A user and a group of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub uid: u32,
    pub gid: u32,
}

impl Users {
    /// As whom files are opened that a machine boots from: as nobody in particular, with the group's rights.
    pub(super) fn opener(&self) -> User {
        User { uid: self.machines.start, gid: self.boot_group }
    }

    /// The lowest of the machines' users that is not taken. The first is for what is no machine.
    pub(super) fn free(&self, is_taken: impl Fn(u32) -> bool) -> io::Result<u32> {
        let full = || io::Error::new(io::ErrorKind::QuotaExceeded, "all users for machines are taken");
        self.machines.clone().skip(1).find(|uid| !is_taken(*uid)).ok_or_else(full)
    }
}

/// A machine's user, in a group of its own, or in the one that may use KVM.
pub(super) fn of_machine(uid: u32) -> User {
    let kvm = fs::metadata("/dev/kvm").ok().and_then(|node| group_for_kvm(node.mode(), node.gid()));
    User { uid, gid: kvm.unwrap_or(uid) }
}

/// The group that it takes to use KVM where not everybody may: `/dev/kvm` is `root:kvm 0660` on Debian. Root's it never is.
fn group_for_kvm(mode: u32, group: u32) -> Option<u32> {
    const GROUP_MAY: u32 = 0o060;
    const ALL_MAY: u32 = 0o006;
    (mode & GROUP_MAY == GROUP_MAY && mode & ALL_MAY != ALL_MAY && group != 0).then_some(group)
}

/// Does something that has this user's rights and no others: on a thread of its own, which has given up everything else.
pub(super) fn with_rights_of<T: Send>(
    user: User,
    work: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    let work = || {
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        set_thread_groups(&[])?;
        set_thread_res_gid(gid, gid, gid)?;
        // The last of root's rights go with its number (capabilities(7)).
        set_thread_res_uid(uid, uid, uid)?;
        work()
    };
    let panicked = |_| Err(io::Error::other("the thread for it ended without an answer"));
    thread::scope(|scope| scope.spawn(work).join().unwrap_or_else(panicked))
}

/// Everybody who has a process now.
pub(super) fn of_processes() -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter_map(|process| Some(process.metadata().ok()?.uid())).collect()
}

/// The node of an IOMMU group is its machine's alone.
pub(super) fn give_node(node: &Path, uid: u32) -> io::Result<()> {
    chown(node, Some(uid), Some(0))
}

/// The node is root's again, as the kernel made it. One that is gone needs nothing.
pub(super) fn take_node_back(node: &PathBuf) {
    if let Err(error) = chown(node, Some(0), Some(0))
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!("{} stays a machine's: {error}", node.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_a_user_of_its_own_and_there_may_be_none_left() {
        let users = Users { machines: 1000..1003, boot_group: 7, boot_group_name: "ioward".into() };
        assert_eq!(users.free(|_| false).unwrap(), 1001);
        assert_eq!(users.free(|uid| uid == 1001).unwrap(), 1002);
        assert!(users.free(|_| true).is_err());
    }

    #[test]
    fn the_group_for_kvm_is_taken_where_it_is_needed_and_is_never_roots() {
        assert_eq!(group_for_kvm(0o20660, 104), Some(104));
        for (mode, group) in [(0o20666, 104), (0o20660, 0), (0o20600, 104), (0o20640, 104)] {
            assert_eq!(group_for_kvm(mode, group), None, "{mode:o} {group}");
        }
    }

    /// Where nobody is root, nobody's rights can be given up for others', and this says so.
    #[test]
    fn what_is_done_for_a_user_is_done_with_that_users_rights_and_root_stays_root() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        fs::write(&secret, "x").unwrap();
        fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let nobody = User { uid: 1_879_048_192, gid: 1_879_048_192 };
        let error = with_rights_of(nobody, || fs::File::open(&secret)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        fs::File::open(&secret).unwrap();
    }
}
