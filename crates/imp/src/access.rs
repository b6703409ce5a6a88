//! Who may do what over the API: the role of whoever has connected, by user and groups. Pure.

use ioward_api::Role;
use ioward_privsep::ApiGroups;

/// Whoever has connected, as the kernel noted it at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    pub uid: u32,
    /// Its groups, the effective one among them.
    pub groups: Vec<u32>,
}

/// Whose request it is. The listener puts it beside each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub uid: u32,
    /// None: it may do nothing.
    pub role: Option<Role>,
}

/// Who has which role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    /// The user that the daemon was started by, who is an administrator as root is.
    pub owner: u32,
    pub groups: ApiGroups,
}

impl Access {
    pub(crate) fn caller(&self, peer: &Peer) -> Caller {
        let is_in = |group: Option<u32>| group.is_some_and(|group| peer.groups.contains(&group));
        let role = if self.is_administrator(peer.uid) {
            Some(Role::Administrator)
        } else if is_in(self.groups.operators) {
            Some(Role::Operator)
        } else if is_in(self.groups.viewers) {
            Some(Role::Viewer)
        } else {
            None
        };
        Caller { uid: peer.uid, role }
    }

    pub(crate) fn is_administrator(&self, uid: u32) -> bool {
        uid == 0 || uid == self.owner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_follows_from_the_user_and_the_groups() {
        let groups = ApiGroups { viewers: Some(101), operators: Some(102) };
        let access = Access { owner: 1000, groups };
        let role = |uid, groups: &[u32]| access.caller(&Peer { uid, groups: groups.to_vec() }).role;
        assert_eq!((role(0, &[]), role(1000, &[])), (Some(Role::Administrator), Some(Role::Administrator)));
        assert_eq!(role(1001, &[1001, 101]), Some(Role::Viewer));
        assert_eq!(
            (role(1001, &[102]), role(1001, &[101, 102])),
            (Some(Role::Operator), Some(Role::Operator))
        );
        assert_eq!((role(1001, &[]), role(1001, &[1001, 1000, 0])), (None, None));
        let nobody = Access { groups: ApiGroups::default(), ..access };
        assert_eq!(nobody.caller(&Peer { uid: 1001, groups: vec![0, 101, 102] }).role, None);
    }
}
