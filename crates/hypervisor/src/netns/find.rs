//! Which network namespace a partition is, as it is now: that of a name in /run/netns, or that of the process whose number is in a
//! file. Both are files that others make, and whoever can make one of them can have VFs moved: nothing is believed of them.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    path::Path,
};

use ioward_model::NamespaceRef;
use ioward_netlink::Namespace;
use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};

/// Where `ip netns` keeps namespaces by name (ip-netns(8)).
pub(super) const NAMED: &str = "/run/netns";
/// More than a process's number and a newline.
const MAX_PID_FILE: usize = 32;
/// More than a line of /proc/PID/stat has.
const MAX_STAT: usize = 4096;

/// A namespace that is there.
#[derive(Debug)]
pub struct Place {
    pub(super) namespace: Namespace,
    pub(super) identity: Identity,
}

/// Tells a namespace from all others that there are or have been since the host booted: the kernel gives the number of one that has
/// gone to the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    id: (u64, u64),
    since: Since,
}

/// When it came to be what the partition's definition names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Since {
    /// When it got its name: seconds and nanoseconds.
    Named(i64, i64),
    /// When its process started, in ticks since the host booted.
    Process(u32, u64),
}

/// Why there is no namespace that a VF can be moved into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It is not there, and may come.
    Gone(String),
    /// There is something that it must not be, or that can't be looked at.
    Refused(String),
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Gone(why) | Self::Refused(why)) = self;
        f.write_str(why)
    }
}

impl Place {
    /// A namespace that has a name of its own.
    pub(super) fn named(namespace: Namespace) -> Self {
        let (seconds, nanoseconds) = namespace.made();
        let identity = Identity { id: namespace.id(), since: Since::Named(seconds, nanoseconds) };
        Self { namespace, identity }
    }
}

impl Identity {
    /// Whether they are the same namespace, however they were found.
    pub(super) fn is_of(self, other: Self) -> bool {
        self.id == other.id
    }

    /// The process that a pid file named.
    pub(super) fn pid(self) -> Option<u32> {
        match self.since {
            Since::Named(..) => None,
            Since::Process(pid, _) => Some(pid),
        }
    }

    /// One of its own for each number.
    #[cfg(test)]
    pub(super) fn numbered(number: u64) -> Self {
        Self { id: (0, number), since: Since::Named(0, 0) }
    }
}

/// The namespace, unless it is the host's own.
pub(super) fn find(namespace: &NamespaceRef) -> Result<Place, Absent> {
    let place = match namespace {
        NamespaceRef::Named(name) => named(name)?,
        NamespaceRef::PidFile(file) => of_pid_file(file)?,
    };
    check_foreign(&place)?;
    Ok(place)
}

fn named(name: &str) -> Result<Place, Absent> {
    let path = Path::new(NAMED).join(name);
    match Namespace::open(&path) {
        Ok(Some(namespace)) => Ok(Place::named(namespace)),
        // `ip netns add` makes the file first, and `ip netns del` leaves it for a moment.
        Ok(None) => Err(Absent::Gone(format!("is not there: {} is no namespace", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Absent::Gone(format!("is not there; ip netns add {name} makes it")))
        }
        Err(error) => Err(Absent::Refused(format!("can't be opened: {}: {error}", path.display()))),
    }
}

fn of_pid_file(file: &Path) -> Result<Place, Absent> {
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Absent::Gone(format!("is not there: there is no {}", file.display())),
        _ => Absent::Refused(format!("can't be found: {}: {error}", file.display())),
    };
    if !file.is_absolute() {
        return Err(Absent::Refused(format!("can't be found: {} is no absolute path", file.display())));
    }
    let pid = read_pid(file).map_err(unreadable)?;
    let gone = |_| Absent::Gone(format!("is not there: process {pid} of {} has ended", file.display()));
    let path = Path::new("/proc").join(pid.to_string()).join("ns/net");
    // The process is the same before and after: otherwise the namespace may be that of another one, with its number.
    let started = started(pid).map_err(gone)?;
    let namespace = Namespace::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => {
            Absent::Refused(format!("can't be opened: {}: {error}", path.display()))
        }
        _ => gone(error),
    })?;
    let ended = || gone(io::ErrorKind::NotFound.into());
    let namespace = namespace.ok_or_else(ended)?;
    if self::started(pid).map_err(gone)? != started {
        return Err(ended());
    }
    let identity = Identity { id: namespace.id(), since: Since::Process(pid, started) };
    Ok(Place { namespace, identity })
}

/// The process's number in a file that only root can have written: any other user could name a container of somebody else.
fn read_pid(path: &Path) -> io::Result<u32> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
    // Looked at before it is opened: to open a device can do something.
    let place = File::from(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    let metadata = place.metadata()?;
    if !metadata.is_file() {
        return Err(invalid("it is no file"));
    }
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own || metadata.mode() & 0o022 != 0 {
        return Err(invalid("others than root can write it; give it to root alone (chown root, chmod go-w)"));
    }
    let file = File::open(format!("/proc/self/fd/{}", place.as_raw_fd()))?;
    parse_pid(&read_start(&file, MAX_PID_FILE)?).ok_or_else(|| invalid("it holds no number of a process"))
}

fn read_start(file: &File, bound: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    file.take(u64::try_from(bound).unwrap_or(u64::MAX)).read_to_end(&mut text)?;
    Ok(text)
}

fn parse_pid(text: &[u8]) -> Option<u32> {
    // The longest number is shorter than what is read.
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() < MAX_PID_FILE)?.trim_ascii();
    let pid = text.parse().ok()?;
    (text.bytes().all(|byte| byte.is_ascii_digit()) && (1..=i32::MAX.unsigned_abs()).contains(&pid))
        .then_some(pid)
}

/// When a process started, in ticks since the boot.
fn started(pid: u32) -> io::Result<u64> {
    let text = read_start(&File::open(Path::new("/proc").join(pid.to_string()).join("stat"))?, MAX_STAT)?;
    parse_started(&text).ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the process is not told"))
}

/// Field 22 of proc_pid_stat(5). The name, field 2, is in parentheses and may hold any character.
fn parse_started(stat: &[u8]) -> Option<u64> {
    let end_of_name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end_of_name + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(22 - 3)?.parse().ok()
}

/// VFs that are "moved" into the host's own namespace would be the host's, and what is the host's would pass for the partition's.
fn check_foreign(place: &Place) -> Result<(), Absent> {
    for own in ["/proc/thread-self/ns/net", "/proc/1/ns/net"] {
        let own = fs::metadata(own)
            .map_err(|error| Absent::Refused(format!("can't be told from the host's own: {own}: {error}")))?;
        if (own.dev(), own.ino()) == place.identity.id {
            return Err(Absent::Refused("is the host's own".into()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    /// A file with this text and mode, and what comes of it.
    fn of_file(text: &str, mode: u32) -> Result<Place, Absent> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.pid");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        find(&NamespaceRef::PidFile(path))
    }

    #[test]
    fn a_pid_file_is_a_number_and_nothing_else() {
        assert_eq!(parse_pid(b"4711\n"), Some(4711));
        assert_eq!(parse_pid(b" 1 "), Some(1));
        for bad in
            [&b""[..], b"0", b"-1", b"+1", b"1 2", b"4294967296", b"2147483648", b"1/../2", b"\xff", b"web"]
        {
            assert_eq!(parse_pid(bad), None, "{bad:?}");
        }
        assert_eq!(parse_pid(&[b'0'; MAX_PID_FILE]), None, "it may go on");
        let Err(Absent::Refused(why)) = of_file("web\n", 0o644) else { panic!() };
        assert!(why.contains("web.pid: it holds no number of a process"), "{why}");
    }

    #[test]
    fn a_pid_file_that_others_can_write_is_refused() {
        for mode in [0o666, 0o664, 0o646] {
            let Err(Absent::Refused(why)) = of_file("1\n", mode) else { panic!("{mode:o}") };
            assert!(why.contains("others than root can write it"), "{why}");
        }
    }

    #[test]
    fn a_pid_file_is_not_looked_for_in_the_daemons_folder() {
        let found = find(&NamespaceRef::PidFile("web.pid".into()));
        assert!(matches!(found, Err(Absent::Refused(_))), "{found:?}");
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, 0o600.into()).unwrap();
        for path in [pipe, "/dev/zero".into(), folder.path().to_owned()] {
            let Err(Absent::Refused(why)) = find(&NamespaceRef::PidFile(path.clone())) else { panic!() };
            assert!(why.contains("it is no file"), "{}: {why}", path.display());
        }
    }

    #[test]
    fn a_process_in_the_hosts_own_namespace_is_refused() {
        let found = of_file(&std::process::id().to_string(), 0o644);
        let Err(Absent::Refused(why)) = found else { panic!("{found:?}") };
        assert_eq!(why, "is the host's own");
    }

    #[test]
    fn a_process_that_has_ended_and_a_name_that_is_not_there_may_come() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let found = of_file(&ended.id().to_string(), 0o644);
        let Err(Absent::Gone(why)) = found else { panic!("{found:?}") };
        assert!(why.contains("has ended"), "{why}");
        let found = find(&NamespaceRef::Named("ioward-no-such-namespace".into()));
        assert!(matches!(found, Err(Absent::Gone(_))), "{found:?}");
    }

    #[test]
    fn a_process_is_told_by_its_start_whatever_its_name() {
        let stat = b"7 (a) b ((c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 9 9\n";
        assert_eq!(parse_started(stat), Some(123_456));
        assert_eq!(parse_started(b"7 (web) S 1"), None);
        assert_eq!(parse_started(b""), None);
        assert_eq!(started(std::process::id()).unwrap(), started(std::process::id()).unwrap());
    }
}
