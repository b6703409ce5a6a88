//! The daemon as a service: what it tells its service manager (`sd_notify(3)`), and the API socket that it is given by it
//! (`sd_listen_fds(3)`). Without a service manager nothing here does anything.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{FromRawFd, OwnedFd, RawFd},
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram, UnixListener},
        },
    },
    time::Duration,
};

use rustix::io::{FdFlags, fcntl_setfd};

/// Where the first descriptor is that is passed on (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// How long the service manager may take to have room for what it is told.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Who supervises the daemon, if anybody does.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    at: Option<SocketAddr>,
    /// How often it wants to hear that the daemon is alive, at least.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The one that started this process.
    pub(crate) fn from_environment() -> Self {
        Self::from_variables(|name| std::env::var_os(name), std::process::id())
    }

    fn from_variables(get: impl Fn(&str) -> Option<OsString>, pid: u32) -> Self {
        let number = |name| get(name).and_then(|text| text.to_str()?.parse::<u64>().ok());
        let is_meant = number("WATCHDOG_PID").is_none_or(|meant| meant == u64::from(pid));
        let watchdog = number("WATCHDOG_USEC").filter(|micros| is_meant && *micros > 0);
        Self {
            at: get("NOTIFY_SOCKET").and_then(|path| address(&path)),
            watchdog: watchdog.map(Duration::from_micros),
        }
    }

    /// How long to wait between two signs of life: half of what is allowed.
    pub(crate) fn watchdog_each(&self) -> Option<Duration> {
        self.at.as_ref()?;
        self.watchdog.map(|within| within / 2)
    }

    /// Tells it something: assignments, one a line. One that does not listen is waited for a while, since a queue that is
    /// full when a host boots must not cost it the news that the daemon is ready.
    pub(crate) fn tell(&self, state: &str) {
        let Some(at) = &self.at else { return };
        let told = UnixDatagram::unbound().and_then(|socket| {
            socket.set_write_timeout(Some(RESTORE_TIMEOUT))?;
            socket.send_to_addr(state.as_bytes(), at)
        });
        if let Err(error) = told {
            tracing::warn!("the service manager cannot be told {state:?}: {error}");
        }
    }
}

/// A path, or after an @ the name of an abstract socket (unix(7)); others (`vsock:`) are not for a service of this host.
fn address(path: &OsStr) -> Option<SocketAddr> {
    match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name).ok(),
        [b'/', ..] => SocketAddr::from_pathname(path).ok(),
        _ => None,
    }
}

/// The API socket that was opened before this process was started, if one was.
///
/// # Errors
/// When something else than one listening Unix socket was passed on.
pub(crate) fn given_socket() -> io::Result<Option<UnixListener>> {
    let Some(count) = given(|name| std::env::var_os(name), std::process::id()) else { return Ok(None) };
    if count != 1 {
        return Err(io::Error::other(format!("{count} sockets were passed on, and there is one API socket")));
    }
    #[expect(unsafe_code, reason = "a descriptor that is inherited has no owner but this number")]
    // SAFETY: the service manager says in LISTEN_PID that this process is meant, and by that it passes on descriptor 3,
    // which nothing else in it owns. This is called once, before the daemon does anything else.
    let socket = unsafe { OwnedFd::from_raw_fd(FIRST) };
    listener(socket).map(Some)
}

/// How many descriptors were passed on to this process.
fn given(get: impl Fn(&str) -> Option<OsString>, pid: u32) -> Option<usize> {
    let number = |name| get(name).and_then(|text| text.to_str()?.parse::<usize>().ok());
    let is_meant = number("LISTEN_PID").is_some_and(|meant| u32::try_from(meant) == Ok(pid));
    number("LISTEN_FDS").filter(|count| is_meant && *count > 0)
}

fn listener(socket: OwnedFd) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    // No machine that the daemon starts is to have it.
    fcntl_setfd(&socket, FdFlags::CLOEXEC)?;
    let listens = sockopt::socket_domain(&socket)? == AddressFamily::UNIX
        && sockopt::socket_type(&socket)? == SocketType::STREAM
        && sockopt::socket_acceptconn(&socket)?;
    if !listens {
        return Err(io::Error::other("what was passed on is no Unix stream socket that listens"));
    }
    let listener = UnixListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn variables<'a>(all: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        move |wanted| all.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).into())
    }

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 200];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn who_is_asked_to_tells_a_socket_with_a_path_and_one_without() {
        let folder = std::env::temp_dir().join(format!("ioward-notify-{}", std::process::id()));
        let path = folder.to_string_lossy().into_owned();
        let _ = std::fs::remove_file(&path);
        let name = format!("ioward-test-{}", std::process::id());
        let with_path = UnixDatagram::bind(&path).unwrap();
        let abstract_ = SocketAddr::from_abstract_name(&name).unwrap();
        let without = UnixDatagram::bind_addr(&abstract_).unwrap();
        for (socket, at) in [(&with_path, path.clone()), (&without, format!("@{name}"))] {
            let supervisor = Supervisor::from_variables(variables(&[("NOTIFY_SOCKET", &at)]), 1);
            supervisor.tell("READY=1\nSTATUS=serving");
            assert_eq!(heard(socket), "READY=1\nSTATUS=serving");
            assert_eq!(supervisor.watchdog_each(), None);
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_sign_of_life_is_given_twice_as_often_as_is_asked_for_and_by_the_process_that_is_meant() {
        let each = |pid| {
            let set = [("NOTIFY_SOCKET", "@nobody"), ("WATCHDOG_USEC", "30000000"), ("WATCHDOG_PID", pid)];
            Supervisor::from_variables(variables(&set), 7).watchdog_each()
        };
        assert_eq!((each("7"), each("8")), (Some(Duration::from_secs(15)), None));
        let broken = [("NOTIFY_SOCKET", "@nobody"), ("WATCHDOG_USEC", "soon")];
        assert_eq!(Supervisor::from_variables(variables(&broken), 7).watchdog_each(), None);
    }

    #[test]
    fn nobody_is_told_where_nobody_asked() {
        for at in ["", "vsock:2:1", "relative"] {
            let supervisor = Supervisor::from_variables(variables(&[("NOTIFY_SOCKET", at)]), 1);
            assert!(supervisor.at.is_none(), "{at}");
            supervisor.tell("READY=1");
        }
        // A service manager that has gone holds nobody up.
        Supervisor::from_variables(variables(&[("NOTIFY_SOCKET", "/nonexistent/notify")]), 1).tell("READY=1");
    }

    #[test]
    fn only_what_was_passed_on_to_this_process_is_taken() {
        let of = |pid, count| given(variables(&[("LISTEN_PID", pid), ("LISTEN_FDS", count)]), 7);
        assert_eq!((of("7", "1"), of("7", "2")), (Some(1), Some(2)));
        assert_eq!((of("8", "1"), of("7", "0"), of("7", "-1"), of("", "")), (None, None, None, None));
    }

    #[test]
    fn only_a_unix_socket_that_listens_is_taken() {
        let (one, _other) = UnixStream::pair().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for wrong in [OwnedFd::from(one), file.into(), internet.into()] {
            assert!(listener(wrong).is_err());
        }
        let name = format!("ioward-listen-{}", std::process::id());
        let at = SocketAddr::from_abstract_name(&name).unwrap();
        let taken = listener(UnixListener::bind_addr(&at).unwrap().into()).unwrap();
        let _person = UnixStream::connect_addr(&at).unwrap();
        taken.accept().unwrap();
        let flags = rustix::io::fcntl_getfd(&taken).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC), "no machine inherits it");
    }
}
