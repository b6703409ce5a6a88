//! The files of a host: below a root, which is the running system's `/` or a tree copied from another host, or in a
//! recording. The answers of a tree can be recorded.
//!
//! A copied tree is hostile until checked. The kernel resolves every path as if the root were `/`
//! (`RESOLVE_IN_ROOT`, openat2(2)), so that neither an absolute symlink nor `..` leaves it; only regular files are read;
//! every read and every listing is bounded; and names that are not printable text are not there.

use std::{
    cell::RefCell,
    ffi::CStr,
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    ops::ControlFlow,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        CWD, Dir, FileType, Mode, OFlags, RawDir, ResolveFlags, fstat, openat, openat2, readlinkat,
        readlinkat_raw,
    },
    io::Errno,
};

use super::snapshot::{Recording, Replay};
use crate::FabricError;

/// Maximum size of an attribute, in bytes. The kernel's own limit is a page.
const MAX_ATTRIBUTE: usize = 64 << 10;
/// How much of a file is read at first: a function's configuration space has 4096 bytes, and an attribute fewer.
const FIRST_READ: usize = 4097;
/// How much of a listing is read at a time, in bytes: most folders are small.
const SOME_ENTRIES: usize = 8192;
/// Maximum number of entries in a folder.
const MAX_ENTRIES: usize = 1 << 16;
/// Maximum length of a name: NAME_MAX of Linux.
const MAX_NAME: usize = 255;
/// How much of a target is read where whole targets are compared with known names. Longer than each of these.
const MAX_TARGET: usize = 64;

/// The root folder above `sys`, `proc` and `usr`.
#[derive(Debug)]
pub struct HostRoot {
    source: Source,
    path: PathBuf,
    is_live: bool,
    /// The recording of answers, if any.
    tape: Option<RefCell<Recording>>,
}

#[derive(Debug)]
enum Source {
    Folder(OwnedFd),
    Recording(Replay),
}

impl HostRoot {
    /// The running system.
    ///
    /// # Errors
    /// [`FabricError::Read`] when `/` cannot be opened.
    pub fn live() -> Result<Self, FabricError> {
        Ok(Self { is_live: true, ..Self::open(Path::new("/"))? })
    }

    /// A folder with the `sys` and `proc` of some host.
    ///
    /// # Errors
    /// [`FabricError::Read`] when it cannot be opened or is not a folder.
    pub fn open(path: &Path) -> Result<Self, FabricError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, path, flags, Mode::empty());
        let folder =
            folder.map_err(|error| FabricError::Read { path: path.to_owned(), source: error.into() })?;
        Ok(Self { source: Source::Folder(folder), path: path.to_owned(), is_live: false, tape: None })
    }

    /// A recorded host.
    pub(super) fn replay(recording: Replay) -> Self {
        Self { source: Source::Recording(recording), path: PathBuf::new(), is_live: false, tape: None }
    }

    /// Whether it is the running system, which may not answer, rather than a copy of one.
    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// The same, with every answer recorded from now on.
    pub(super) fn recorded(self) -> Self {
        Self { tape: Some(RefCell::default()), ..self }
    }

    /// The recording.
    pub(super) fn into_recording(self) -> Recording {
        self.tape.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Whether a recording has used up its budget of answers.
    pub(super) fn is_exhausted(&self) -> bool {
        matches!(&self.source, Source::Recording(replay) if replay.is_exhausted())
    }

    /// The path of a file including the root, for people to read.
    pub(crate) fn show(&self, path: &str) -> PathBuf {
        self.path.join(path)
    }

    /// Whether a path exists.
    pub(crate) fn exists(&self, path: &str) -> bool {
        match &self.source {
            Source::Folder(folder) => open_at(folder, path, OFlags::PATH).is_ok(),
            Source::Recording(replay) => replay.exists(path),
        }
    }

    /// A folder that many questions are about.
    pub(crate) fn folder_at(&self, path: &str) -> Folder<'_> {
        let open = match &self.source {
            Source::Folder(root) => open_at(root, path, OFlags::PATH | OFlags::DIRECTORY).ok(),
            Source::Recording(_) => None,
        };
        if self.tape.is_some() {
            // Whether a folder is there is told by what is recorded of it.
            _ = self.list(path);
        }
        Folder { root: self, path: path.to_owned(), open }
    }

    /// Whether a path is a regular file that somebody may execute. Not recorded.
    pub(super) fn is_program(&self, path: &str) -> io::Result<bool> {
        let status = fstat(open_at(self.folder()?, path, OFlags::PATH)?)?;
        Ok(FileType::from_raw_mode(status.st_mode).is_file() && status.st_mode & 0o111 != 0)
    }

    /// A whole file of at most `limit` bytes.
    pub(crate) fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let answer = match &self.source {
            Source::Folder(folder) => open_file(folder, path).and_then(|file| file.read(limit)),
            Source::Recording(replay) => replay.read(path, limit),
        };
        self.note(|tape| tape.note_file(path, &answer));
        answer
    }

    /// An attribute's text, without surrounding white space, and without the zeros that tar and cpio append because
    /// a sysfs file claims to have 4096 bytes.
    pub(crate) fn text(&self, path: &str) -> io::Result<String> {
        text(self.read(path, MAX_ATTRIBUTE)?)
    }

    /// The names in a folder, sorted.
    pub(crate) fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let answer = match &self.source {
            Source::Folder(folder) => {
                open_at(folder, path, OFlags::RDONLY | OFlags::DIRECTORY).and_then(list)
            }
            Source::Recording(replay) => replay.list(path),
        };
        self.note(|tape| tape.note_folder(path, &answer));
        answer
    }

    /// The last part of a symlink's target, which in sysfs is the name of a driver, a group or a function. Does not
    /// follow the link.
    pub(crate) fn link_name(&self, path: &str) -> io::Result<String> {
        let answer = match &self.source {
            Source::Folder(folder) => {
                let (parent, link) = path.rsplit_once('/').unwrap_or((".", path));
                let parent = open_at(folder, parent, OFlags::PATH | OFlags::DIRECTORY);
                parent.and_then(|parent| link_name(&parent, link))
            }
            Source::Recording(replay) => replay.link_name(path),
        };
        self.note(|tape| tape.note_link(path, &answer));
        answer
    }

    /// Shows each name in a folder, in the kernel's order, until `each` has seen enough. Not recorded: what processes do is
    /// too much for a recording.
    pub(super) fn each_name(
        &self,
        path: &str,
        mut each: impl FnMut(&CStr) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.each_entry(path, |_, name| each(name))
    }

    /// Shows the target of each link in a folder, until `each` has seen enough. Only the first 64 bytes; a link that
    /// goes meanwhile is left out. Not recorded.
    pub(super) fn each_link(
        &self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> io::Result<()> {
        self.each_entry(path, |folder, name| {
            let mut target = [0; MAX_TARGET];
            readlinkat_raw(folder, name, &mut target)
                .map_or(ControlFlow::Continue(()), |length| each(&target[..length]))
        })
    }

    /// The first 64 bytes of a link's target. Not recorded.
    pub(super) fn link_target(&self, path: &str) -> io::Result<Vec<u8>> {
        let (parent, link) = path.rsplit_once('/').unwrap_or((".", path));
        let parent = open_at(self.folder()?, parent, OFlags::PATH | OFlags::DIRECTORY)?;
        let mut target = [0; MAX_TARGET];
        let length = readlinkat_raw(parent, link, &mut target)?;
        Ok(target[..length].to_vec())
    }

    /// The first bytes of a file, at most `most`. Not recorded.
    pub(super) fn start_of(&self, path: &str, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::from(open_file(self.folder()?, path)?.file).take(most as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn each_entry(
        &self,
        path: &str,
        mut each: impl FnMut(&OwnedFd, &CStr) -> ControlFlow<()>,
    ) -> io::Result<()> {
        let folder = open_at(self.folder()?, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in Dir::read_from(&folder)? {
            if each(&folder, entry?.file_name()).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// A recording has no processes.
    fn folder(&self) -> io::Result<&OwnedFd> {
        match &self.source {
            Source::Folder(folder) => Ok(folder),
            Source::Recording(_) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn note(&self, note: impl FnOnce(&mut Recording)) {
        if let Some(tape) = &self.tape {
            note(&mut tape.borrow_mut());
        }
    }
}

/// A folder of a host that many questions are about: none of them looks the folder up again. The answers are those that the root gives
/// for whole paths, and recorded as such.
pub(crate) struct Folder<'a> {
    root: &'a HostRoot,
    path: String,
    /// `None` in a recording, and where it is not there: then the root is asked.
    open: Option<OwnedFd>,
}

impl Folder<'_> {
    /// The path of something in it.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Whether it is there now.
    pub(crate) fn exists(&self) -> bool {
        self.root.exists(&self.path)
    }

    /// As [`HostRoot::read`].
    pub(crate) fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        match self.open(name, flags) {
            Some(file) => {
                let answer = file.and_then(Regular::new).and_then(|file| file.read(limit));
                self.root.note(|tape| tape.note_file(&self.path(name), &answer));
                answer
            }
            None => self.root.read(&self.path(name), limit),
        }
    }

    /// As [`HostRoot::text`].
    pub(crate) fn text(&self, name: &str) -> io::Result<String> {
        text(self.read(name, MAX_ATTRIBUTE)?)
    }

    /// As [`HostRoot::list`].
    pub(crate) fn list(&self, name: &str) -> io::Result<Vec<String>> {
        let open = || self.open(name, OFlags::RDONLY | OFlags::DIRECTORY);
        match (!name.is_empty()).then(open).flatten() {
            Some(folder) => {
                let answer = folder.and_then(list);
                self.root.note(|tape| tape.note_folder(&self.path(name), &answer));
                answer
            }
            None => self.root.list(&self.path(name)),
        }
    }

    /// As [`HostRoot::link_name`].
    pub(crate) fn link_name(&self, name: &str) -> io::Result<String> {
        match self.open.as_ref().filter(|_| !name.contains('/')) {
            Some(folder) => {
                let answer = link_name(folder, name);
                self.root.note(|tape| tape.note_link(&self.path(name), &answer));
                answer
            }
            None => self.root.link_name(&self.path(name)),
        }
    }

    /// Opens what is below this folder, or finds that it is not there. `None` where only the root can tell: symlinks lead from there.
    fn open(&self, name: &str, flags: OFlags) -> Option<io::Result<OwnedFd>> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(self.open.as_ref()?, name, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(found) => Some(Ok(found)),
            Err(Errno::NOENT) => Some(Err(Errno::NOENT.into())),
            Err(_) => None,
        }
    }
}

fn open_file(root: &OwnedFd, path: &str) -> io::Result<Regular> {
    // Non-blocking: a FIFO in a copied tree must not block.
    Regular::new(open_at(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?)
}

/// An open file that is a regular one.
struct Regular {
    file: OwnedFd,
    /// What it says to have. In sysfs an attribute has less than that, and in /proc a file has more: none.
    size: usize,
}

impl Regular {
    fn new(file: OwnedFd) -> io::Result<Self> {
        let status = fstat(&file)?;
        if !FileType::from_raw_mode(status.st_mode).is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        Ok(Self { file, size: usize::try_from(status.st_size).unwrap_or(0) })
    }

    /// All of it. One that has just what it says takes one read, any other one more, to know that nothing follows.
    fn read(&self, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            let room = before.max(FIRST_READ).min(limit + 1 - before);
            bytes.resize(before + room, 0);
            let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.file, &mut bytes[before..]))?;
            bytes.truncate(before + read);
            if bytes.len() > limit {
                let message = format!("it has more than {limit} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
            }
            if read == 0 || bytes.len() == self.size {
                return Ok(bytes);
            }
        }
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches('\0').trim().to_owned());
    let text = text.filter(|text| text.chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
    text.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it holds bytes that are no text"))
}

fn list(folder: OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut buffer = [MaybeUninit::uninit(); SOME_ENTRIES];
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        names.extend(entry.file_name().to_str().ok().filter(|name| is_name(name)).map(str::to_owned));
        if names.len() > MAX_ENTRIES {
            let message = format!("it has more than {MAX_ENTRIES} entries");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn link_name(folder: &OwnedFd, link: &str) -> io::Result<String> {
    let target = readlinkat(folder, link, Vec::new())?;
    let name = target.to_str().ok().map(|target| target.rsplit_once('/').map_or(target, |(_, name)| name));
    let name = name.filter(|name| is_name(name)).map(str::to_owned);
    name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it points to what has no proper name"))
}

fn open_at(root: &OwnedFd, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // EAGAIN: a rename elsewhere while the kernel followed a `..`, so it can't rule out an escape.
    let final_answer = |result: &Result<_, Errno>| !matches!(result, Err(Errno::AGAIN));
    let open = || openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    let mut tries = std::iter::repeat_with(open).take(100);
    let opened = tries.find(final_answer).unwrap_or(Err(Errno::AGAIN));
    opened.map_err(io::Error::from)
}

/// Whether a name is valid: printable, without `/`, not `.` or `..`.
pub(super) fn is_name(name: &str) -> bool {
    let printable = !name.contains(|c: char| c.is_control() || c == '/');
    printable && (1..=MAX_NAME).contains(&name.len()) && name != "." && name != ".."
}
