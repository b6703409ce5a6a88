//! The partition's end of the channel: a virtio-serial port, or a Unix socket where the partition is a container or a process.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Write},
    os::fd::OwnedFd,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags},
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};

use crate::{AgentError, deadline::Deadline};

/// The name of the virtio-serial port that carries the channel.
pub const PORT_NAME: &str = "org.ioward.0";

/// Where a container has the socket of its channel, if the folder that it is in was mounted at /run/ioward.
const SOCKET: &str = "run/ioward/channel.sock";

/// How often to poll a condition that no file descriptor reports.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// This partition's channel: a container's socket, or a machine's virtio-serial port, by its name where udev makes links and by sysfs
/// elsewhere. A container may see ports of the machine that it is in, and they are not its own.
///
/// # Errors
/// When there is none.
pub fn find_port() -> Result<PathBuf, AgentError> {
    find_port_under(Path::new("/"))
}

fn find_port_under(root: &Path) -> Result<PathBuf, AgentError> {
    let socket = root.join(SOCKET);
    if socket.exists() {
        return Ok(socket);
    }
    let named = root.join("dev/virtio-ports").join(PORT_NAME);
    if named.exists() {
        return Ok(named);
    }
    let ports = fs::read_dir(root.join("sys/class/virtio-ports")).map_err(|_| AgentError::NoPort)?;
    let is_ours = |port: &fs::DirEntry| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == PORT_NAME)
    };
    let ours = ports.flatten().find(is_ours).ok_or(AgentError::NoPort)?;
    Ok(root.join("dev").join(ours.file_name()))
}

/// An open port. Every call returns by its deadline.
pub(crate) struct Port {
    file: File,
    path: PathBuf,
    /// A socket that was closed stays closed; the host side of a virtio-serial port comes back.
    is_socket: bool,
    /// The host's end was disconnected at the last look.
    host_away: bool,
}

impl Port {
    /// Opens a port; waits while another process holds it, or nobody is there to accept.
    pub(crate) fn open(path: &Path, deadline: Deadline) -> Result<Self, AgentError> {
        let path = path.to_owned();
        let failed = |source: io::Error| AgentError::Open { path: path.clone(), source };
        let kind = fs::metadata(&path).map_err(failed)?.file_type();
        if kind.is_socket() {
            let file = File::from(connect(&path, deadline)?);
            return Ok(Self { file, path, is_socket: true, host_away: false });
        }
        if !kind.is_char_device() {
            return Err(failed(io::Error::other("neither a character device nor a Unix socket")));
        }
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        loop {
            match rustix::fs::open(&path, flags, Mode::empty()) {
                Ok(fd) => return Ok(Self { file: File::from(fd), path, is_socket: false, host_away: false }),
                Err(Errno::BUSY) => match deadline.left() {
                    Some(left) => thread::sleep(left.min(LOOK_AGAIN)),
                    None => return Err(AgentError::InUse { path, waited: deadline.bound }),
                },
                Err(errno) => return Err(failed(errno.into())),
            }
        }
    }

    /// Reads at least one byte. Without a deadline it waits indefinitely.
    pub(crate) fn read(
        &mut self,
        buffer: &mut [u8],
        deadline: Option<Deadline>,
    ) -> Result<usize, AgentError> {
        loop {
            // Checked before each look, so that a peer which never stops sending can't hold the caller here.
            self.check(deadline)?;
            match self.file.read(buffer) {
                Ok(0) if self.is_socket => return Err(AgentError::Closed { path: self.path.clone() }),
                Ok(0) => self.wait_for_host(deadline),
                Ok(count) => {
                    self.host_away = false;
                    return Ok(count);
                }
                Err(error) => self.wait_after(error, PollFlags::IN, deadline)?,
            }
        }
    }

    /// Writes all bytes.
    pub(crate) fn write(&mut self, mut bytes: &[u8], deadline: Deadline) -> Result<(), AgentError> {
        while !bytes.is_empty() {
            self.check(Some(deadline))?;
            match self.file.write(bytes) {
                Ok(0) => self.wait_for_host(Some(deadline)),
                Ok(count) => {
                    self.host_away = false;
                    bytes = bytes.get(count..).unwrap_or_default();
                }
                Err(error) => self.wait_after(error, PollFlags::OUT, Some(deadline))?,
            }
        }
        Ok(())
    }

    /// Waits after a read or write that did nothing, until a retry is worthwhile.
    fn wait_after(
        &mut self,
        error: io::Error,
        want: PollFlags,
        deadline: Option<Deadline>,
    ) -> Result<(), AgentError> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock => self.wait(want, deadline),
            // virtio_console answers ENODEV once the port has been unplugged.
            _ if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                Err(AgentError::Gone { path: self.path.clone() })
            }
            ErrorKind::BrokenPipe | ErrorKind::ConnectionReset if self.is_socket => {
                Err(AgentError::Closed { path: self.path.clone() })
            }
            ErrorKind::BrokenPipe => {
                self.wait_for_host(deadline);
                Ok(())
            }
            _ => Err(AgentError::Io { path: self.path.clone(), source: error }),
        }
    }

    fn wait(&mut self, want: PollFlags, deadline: Option<Deadline>) -> Result<(), AgentError> {
        let left = deadline.map(|deadline| deadline.left().unwrap_or_default());
        let bound = left.map(|left| Timespec::try_from(left).unwrap_or_default());
        let mut polled = [PollFd::new(&self.file, want)];
        match poll(&mut polled, bound.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(AgentError::Io { path: self.path.clone(), source: errno.into() }),
        }
        // With the host's end disconnected, poll returns a hang-up at once, again and again.
        let [polled] = polled;
        if polled.revents() == PollFlags::HUP && !self.is_socket {
            self.wait_for_host(deadline);
        } else {
            self.host_away = false;
        }
        Ok(())
    }

    /// Waits a little while the management partition is disconnected: no file descriptor reports its return.
    fn wait_for_host(&mut self, deadline: Option<Deadline>) {
        self.host_away = true;
        let left = deadline.map_or(LOOK_AGAIN, |deadline| deadline.left().unwrap_or_default());
        thread::sleep(left.min(LOOK_AGAIN));
    }

    fn check(&self, deadline: Option<Deadline>) -> Result<(), AgentError> {
        let (path, waited) = match deadline {
            Some(deadline) if deadline.left().is_none() => (self.path.clone(), deadline.bound),
            _ => return Ok(()),
        };
        Err(if self.host_away {
            AgentError::NotConnected { path, waited }
        } else {
            AgentError::NoAnswer { path, waited }
        })
    }
}

/// Connects to a socket. A blocking connect would wait for ever where too many wait already.
fn connect(path: &Path, deadline: Deadline) -> Result<OwnedFd, AgentError> {
    let failed = |errno: Errno| AgentError::Open { path: path.to_owned(), source: errno.into() };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let address = SocketAddrUnix::new(path).map_err(failed)?;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(failed)?;
        let errno = match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            // A daemon that is started anew takes the place of the socket that nobody listens at.
            Err(errno @ (Errno::AGAIN | Errno::CONNREFUSED | Errno::NOENT)) => errno,
            Err(errno) => return Err(failed(errno)),
        };
        let (path, waited) = (path.to_owned(), deadline.bound);
        match (deadline.left(), errno) {
            (Some(left), _) => thread::sleep(left.min(LOOK_AGAIN)),
            (None, Errno::AGAIN) => return Err(AgentError::InUse { path, waited }),
            (None, _) => return Err(AgentError::NotConnected { path, waited }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// A busybox guest has no udev, so /dev/virtio-ports does not exist.
    #[test]
    fn a_port_is_found_with_and_without_udev() {
        let root = std::env::temp_dir().join(format!("ioward-agent-port-{}", std::process::id()));
        assert!(matches!(find_port_under(&root), Err(AgentError::NoPort)));
        for (port, name) in [("vport0p1", "org.qemu.guest_agent.0"), ("vport1p2", "org.ioward.0")] {
            let folder = root.join("sys/class/virtio-ports").join(port);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("name"), format!("{name}\n")).unwrap();
        }
        assert_eq!(find_port_under(&root).unwrap(), root.join("dev/vport1p2"));
        let named = root.join("dev/virtio-ports/org.ioward.0");
        fs::create_dir_all(named.parent().unwrap()).unwrap();
        fs::write(&named, "").unwrap();
        assert_eq!(find_port_under(&root).unwrap(), named);
        let socket = root.join(SOCKET);
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        fs::write(&socket, "").unwrap();
        assert_eq!(find_port_under(&root).unwrap(), socket, "a container sees the ports of its host");
        fs::remove_dir_all(&root).unwrap();
    }

    /// A pipe whose other end is closed, and a socket opened as a device, act like virtio_console while the host's
    /// end is disconnected: a read gives nothing, poll only a hang-up, a write is refused.
    #[test]
    fn a_disconnected_host_and_a_silent_one_give_different_errors() {
        let port = |file| Port { file, path: "port".into(), is_socket: false, host_away: false };
        let soon = || Deadline::after(Duration::from_millis(50));
        let silent = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let error = port(File::from(silent.0)).read(&mut [0], Some(soon())).unwrap_err();
        assert!(matches!(error, AgentError::NoAnswer { .. }), "{error}");

        let (away, _) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
        let error = port(File::from(away)).read(&mut [0], Some(soon())).unwrap_err();
        assert!(matches!(error, AgentError::NotConnected { .. }), "{error}");

        let (away, _) = UnixStream::pair().unwrap();
        let error = port(File::from(OwnedFd::from(away))).write(&[0], soon()).unwrap_err();
        assert!(matches!(error, AgentError::NotConnected { .. }), "{error}");
    }

    /// An agent in a container: nobody listens while the daemon is started anew, and others may wait before it.
    #[test]
    fn a_socket_that_nobody_accepts_at_is_waited_for_within_the_bound() {
        let path = std::env::temp_dir().join(format!("ioward-agent-socket-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let soon = || Deadline::after(Duration::from_millis(50));
        let _first = Port::open(&path, soon()).unwrap();
        let error = Port::open(&path, soon()).err().unwrap();
        assert!(matches!(error, AgentError::InUse { .. }), "{error}");
        drop(listener);
        let error = Port::open(&path, soon()).err().unwrap();
        assert!(matches!(error, AgentError::NotConnected { .. }), "{error}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_is_refused_as_a_port() {
        let error =
            Port::open(Path::new("/proc/self/status"), Deadline::after(Duration::ZERO)).err().unwrap();
        assert!(matches!(error, AgentError::Open { .. }), "{error}");
    }
}
