//! Who the management partition is: the account `ioward`, or where nobody made one, a user without a name. And the groups whose
//! members may use its API.

use std::{
    fs::{self, DirBuilder},
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, MetadataExt, lchown},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The first of the users that belong to nobody (systemd, docs/UIDS-GIDS.md: 1879048192 to 2147352575 are unused).
const FIRST: u32 = 1_879_048_192;
/// The account that the package makes.
const NAME: &str = "ioward";

/// Users for machines, each of which has one of its own.
pub const MACHINES: Range<u32> = FIRST + 1..FIRST + 65_536;

/// A user and its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// The group for a person to read: a name, or the number where it has none.
    pub group: String,
}

impl Account {
    /// The management partition's, as `/etc/passwd` has it.
    #[must_use]
    pub fn of_imp() -> Self {
        Self::in_passwd(&fs::read_to_string("/etc/passwd").unwrap_or_default())
    }

    /// passwd(5). Root is no account for this, whatever it is called.
    fn in_passwd(passwd: &str) -> Self {
        let found = passwd.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            let [NAME, _, uid, gid, ..] = fields[..] else { return None };
            Some((uid.parse().ok()?, gid.parse().ok()?))
        });
        match found {
            Some((uid, gid)) if uid != 0 && gid != 0 => Self { uid, gid, group: NAME.to_owned() },
            _ => Self { uid: FIRST, gid: FIRST, group: FIRST.to_string() },
        }
    }
}

/// The groups whose members may use the API. It is root that reads them: the management partition sees no /etc.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiGroups {
    /// [`ioward_api::VIEW_GROUP`]'s number.
    pub viewers: Option<u32>,
    /// [`ioward_api::ADMIN_GROUP`]'s.
    pub operators: Option<u32>,
}

impl ApiGroups {
    /// As `/etc/group` has them.
    #[must_use]
    pub fn of_this_host() -> Self {
        Self::in_group(&fs::read_to_string("/etc/group").unwrap_or_default())
    }

    /// group(5). Root's own group is none of them, whatever it is called.
    fn in_group(groups: &str) -> Self {
        let number = |name: &str| {
            let found = groups.lines().find_map(|line| {
                let fields: Vec<_> = line.split(':').collect();
                let [of, _, gid, ..] = fields[..] else { return None };
                if of == name { gid.parse().ok() } else { None }
            });
            found.filter(|gid| *gid != 0)
        };
        Self { viewers: number(ioward_api::VIEW_GROUP), operators: number(ioward_api::ADMIN_GROUP) }
    }
}

/// Makes the state folder the account's: made where there is none, taken over from root and from the user without a name. Gives
/// where it is, without links on the way.
///
/// # Errors
/// When it is somebody else's, or can't be made.
pub fn hand_over(folder: &Path, account: &Account) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let folder = folder.canonicalize()?;
    let owner = fs::symlink_metadata(&folder)?.uid();
    if owner == account.uid {
        return Ok(folder);
    }
    if ![0, FIRST].contains(&owner) {
        let why = format!("it belongs to user {owner}, and would have to be user {}'s", account.uid);
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        let of_file = entry.metadata()?;
        // A second name would be outside: another's file is not given away for it.
        if of_file.is_file() && of_file.nlink() == 1 {
            lchown(entry.path(), Some(account.uid), Some(account.gid))?;
        }
    }
    // Last: what a run before this one did not get to is then still root's.
    lchown(&folder, Some(account.uid), Some(account.gid))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_from_passwd_and_is_never_root() {
        let of = |passwd| Account::in_passwd(passwd);
        let made = of("root:x:0:0::/root:/bin/sh\nioward:x:998:997:I/O:/nonexistent:/usr/sbin/nologin\n");
        assert_eq!(made, Account { uid: 998, gid: 997, group: "ioward".into() });
        for none in ["", "ioward2:x:5:5::/:", "ioward:x:0:0::/:", "ioward:x:many:5::/:", "ioward:x"] {
            assert_eq!(of(none).uid, FIRST, "{none}");
        }
        assert!(!MACHINES.contains(&FIRST), "no machine is the management partition");
    }

    #[test]
    fn the_groups_of_the_api_are_read_by_name_and_are_never_roots() {
        let of = ApiGroups::in_group;
        let made = of("root:x:0:\nioward-view:x:990:ann,bob\nioward-viewers:x:5:\nioward-admin:x:991:\n");
        assert_eq!(made, ApiGroups { viewers: Some(990), operators: Some(991) });
        for none in ["", "ioward-view:x:0:", "ioward-view:x:many:", "ioward-view", " ioward-view:x:5:"] {
            assert_eq!(of(none), ApiGroups::default(), "{none}");
        }
    }

    /// Root's state, of an ioward before this one, is the account's afterwards; run by root (`cargo xtask test`).
    #[test]
    fn a_state_folder_is_handed_over_with_what_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("state");
        let account = Account { uid: FIRST + 5, gid: FIRST + 5, group: String::new() };
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("state.redb"), "x").unwrap();
        let outside = parent.path().join("shadow");
        fs::write(&outside, "x").unwrap();
        fs::hard_link(&outside, folder.join("linked")).unwrap();
        std::os::unix::fs::symlink(&outside, folder.join("symlink")).unwrap();
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert_eq!(hand_over(&link, &account).unwrap(), folder.canonicalize().unwrap());
        hand_over(&folder, &account).unwrap();
        let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
        assert_eq!((owner(&folder), owner(&folder.join("state.redb"))), (FIRST + 5, FIRST + 5));
        assert_eq!(owner(&outside), 0, "what is outside stays as it was");
        let other = Account { uid: FIRST + 6, ..account };
        assert!(hand_over(&folder, &other).unwrap_err().to_string().contains("belongs to user"));
    }
}
