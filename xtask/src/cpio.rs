//! Archives that the kernel unpacks as its first root file system: cpio in the "newc" format, uncompressed.
//!
//! Format: the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Uncompressed, because a software-emulated processor
//! unpacks slowly; made here, because the entries then need no folder tree, no root and no further packages.

use std::collections::BTreeSet;
use std::path::Path;

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a folder and those above it. Names are absolute.
    pub fn directory(&mut self, name: &str) {
        if name == "/" || self.directories.contains(name) {
            return;
        }
        self.parents(name);
        self.entry(name, DIRECTORY, &[]);
        self.directories.insert(name.to_owned());
    }

    /// Adds a file (all are executable) and the folders above it.
    pub fn file(&mut self, name: &str, content: &[u8]) {
        self.parents(name);
        self.entry(name, EXECUTABLE, content);
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inode = 0;
        self.entry("/TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, name: &str) {
        if let Some(parent) = Path::new(name).parent().and_then(Path::to_str) {
            self.directory(parent);
        }
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let name = name.trim_start_matches('/');
        self.inode += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        // inode, mode, uid, gid, links, mtime, size, device major and minor, rdev major and minor, name size, checksum
        self.bytes.extend_from_slice(b"070701");
        for field in
            [self.inode as usize, mode as usize, 0, 0, links, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0]
        {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.file("/a/b/one", b"1");
        archive.file("/a/b/two", b"22");
        let bytes = archive.finish();
        assert_eq!(names(&bytes), ["a", "a/b", "a/b/one", "a/b/two", "TRAILER!!!"]);
    }

    /// Reads an archive back, by the format's own rules.
    fn names(bytes: &[u8]) -> Vec<String> {
        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let field = |n: usize| {
                let text = std::str::from_utf8(&bytes[at + 6 + 8 * n..at + 14 + 8 * n]).unwrap();
                usize::from_str_radix(text, 16).unwrap()
            };
            let (size, name_size) = (field(6), field(11));
            let name = &bytes[at + 110..at + 110 + name_size - 1];
            names.push(String::from_utf8(name.to_vec()).unwrap());
            at = (at + 110 + name_size).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        names
    }
}
