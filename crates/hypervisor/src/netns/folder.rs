//! A partition's folder under the runtime folder.
//!
//! ```text
//! RUNTIME/namespaces/NAME/        0700
//!     partition.json              the record: namespace, VFs, channel
//!     channel/                    0755, root's: for the user to mount into the container, read-only
//!         channel.sock            0666: whoever reaches it is the partition
//! ```
//! The folders above keep everybody else from the socket. The one that is mounted outlives the socket, which a new daemon makes
//! anew. Whoever is root in the container may do with it what the mount allows, so nothing in it is followed or trusted.

use std::{
    fs::{self, DirBuilder, Permissions},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use ioward_model::Name;
use rustix::{
    fd::OwnedFd,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::{
    HypervisorError,
    file::{io_error, remove},
};

/// Connections that may wait to be accepted. One is served at a time.
const BACKLOG: i32 = 8;

#[derive(Clone, Debug)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(namespaces: &Path, partition: &Name) -> Self {
        Self { path: namespaces.join(partition.as_str()) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn record(&self) -> PathBuf {
        self.path.join("partition.json")
    }

    /// What is mounted into the container.
    pub(super) fn shared(&self) -> PathBuf {
        self.path.join("channel")
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.shared().join("channel.sock")
    }

    /// Makes the folder, with the one that is mounted.
    pub(super) fn create(&self) -> Result<(), HypervisorError> {
        let make = |path: &Path, mode| {
            let made = DirBuilder::new().recursive(true).mode(mode).create(path);
            // The umask has taken something from it.
            made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
                .map_err(io_error("create", path))
        };
        make(&self.path, 0o700)?;
        make(&self.shared(), 0o755)
    }

    /// A socket that listens where the container finds it.
    pub(super) fn listen(&self) -> Result<OwnedFd, HypervisorError> {
        // Made where nobody else comes, and put in its place whole: a container could put something else there in between.
        let (aside, place) = (self.path.join("channel.new"), self.socket());
        remove(&aside);
        let open = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            bind(&socket, &SocketAddrUnix::new(&aside)?)?;
            listen(&socket, BACKLOG)?;
            Ok::<_, rustix::io::Errno>(socket)
        };
        let socket = open().map_err(|error| io_error("listen at", &aside)(error.into()))?;
        let placed = fs::set_permissions(&aside, Permissions::from_mode(0o666))
            .and_then(|()| fs::rename(&aside, &place));
        placed.map_err(io_error("create", &place))?;
        Ok(socket)
    }

    /// Removes the socket.
    pub(super) fn remove_socket(&self) {
        remove(&self.socket());
    }

    /// Removes all that was made here. What a container has put into its folder, however much and deep, is left there.
    pub(super) fn remove(&self) -> Result<(), HypervisorError> {
        self.remove_socket();
        fs::remove_file(self.record()).map_err(io_error("remove", &self.record()))?;
        for folder in [&self.shared(), &self.path] {
            if let Err(error) = fs::remove_dir(folder) {
                tracing::warn!("{} stays: {error}", folder.display());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::{fs::symlink, net::UnixStream};

    use super::*;

    #[test]
    fn only_the_folder_that_is_mounted_is_open_to_others() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = Folder::new(runtime.path(), &"web".parse().unwrap());
        folder.create().unwrap();
        let _socket = folder.listen().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(folder.path()), 0o700);
        assert_eq!(mode(&folder.shared()), 0o755);
        assert_eq!(mode(&folder.socket()), 0o666);
        UnixStream::connect(folder.socket()).unwrap();
    }

    /// Whoever is root in the container may have put a link in the socket's place: what it points to is left alone.
    #[test]
    fn a_link_in_the_sockets_place_is_not_followed() {
        let runtime = tempfile::tempdir().unwrap();
        let folder = Folder::new(runtime.path(), &"web".parse().unwrap());
        folder.create().unwrap();
        let other = runtime.path().join("other");
        fs::write(&other, "theirs").unwrap();
        fs::set_permissions(&other, Permissions::from_mode(0o600)).unwrap();
        symlink(&other, folder.socket()).unwrap();
        let _socket = folder.listen().unwrap();
        assert_eq!(fs::metadata(&other).unwrap().permissions().mode() & 0o777, 0o600);
        UnixStream::connect(folder.socket()).unwrap();

        folder.remove_socket();
        symlink(&other, folder.socket()).unwrap();
        folder.remove_socket();
        assert_eq!(fs::read_to_string(&other).unwrap(), "theirs");
        assert!(folder.socket().symlink_metadata().is_err());
    }
}
