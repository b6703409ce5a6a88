//! Who is at the other end of a Unix socket, as the kernel says (unix(7): SO_PEERCRED, SO_PEERGROUPS). Both are those of the moment when
//! it connected. Nothing but the socket is asked: the confined process sees neither /proc nor /etc.

use std::{io, os::fd::AsRawFd};

use tokio::net::UnixStream;

use crate::access::Peer;

/// Groups that are asked for at first. Most users have fewer.
const GROUPS: usize = 64;

impl Peer {
    /// Whoever has connected here.
    ///
    /// # Errors
    /// When the kernel can't say (before Linux 4.13 it knows no groups).
    pub(crate) fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let mut groups = groups_of(stream)?;
        groups.push(credentials.gid());
        Ok(Self { uid: credentials.uid(), groups })
    }
}

fn groups_of(stream: &UnixStream) -> io::Result<Vec<u32>> {
    let mut groups = vec![0; GROUPS];
    loop {
        let room = size_of_val(groups.as_slice());
        let mut length = libc::socklen_t::try_from(room).map_err(io::Error::other)?;
        #[expect(unsafe_code, reason = "neither the standard library nor rustix has this option")]
        // SAFETY: `groups` has room for `length` bytes, the kernel writes no more than that, and any bytes are numbers. `length` is
        // a number of its own, which the kernel sets to what it wrote or, with ERANGE, to what it would have.
        let done = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        let failed = (done != 0).then(io::Error::last_os_error);
        let count = usize::try_from(length).map_err(io::Error::other)? / size_of::<u32>();
        match failed {
            None => {
                groups.truncate(count);
                return Ok(groups);
            }
            // They were noted when it connected, so that this happens once.
            Some(error) if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() => {
                groups.resize(count, 0);
            }
            Some(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_other_end_is_this_process_with_its_user_and_groups() {
        let (one, _other) = UnixStream::pair().unwrap();
        let peer = Peer::of(&one).unwrap();
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
        for group in rustix::process::getgroups().unwrap() {
            assert!(peer.groups.contains(&group.as_raw()), "{group:?}: {peer:?}");
        }
    }
}
