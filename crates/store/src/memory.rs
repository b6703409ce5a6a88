//! [`MemoryFile`]: bytes in memory that can be used like a file, and copied instantly.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use redb::StorageBackend;

const PAGE: usize = 4096;

/// A file in memory. Clones are handles on the same file; copies made by [`MemoryFile::copy`] share the pages that
/// neither changes.
#[derive(Clone, Debug, Default)]
pub struct MemoryFile(Arc<Mutex<Bytes>>);

#[derive(Clone, Debug, Default)]
struct Bytes {
    length: usize,
    /// The bytes of the last page beyond the length are zero.
    pages: Vec<Arc<[u8; PAGE]>>,
}

impl MemoryFile {
    /// A file with this content.
    #[must_use]
    pub fn new(content: &[u8]) -> Self {
        let mut bytes = Bytes::default();
        bytes.set_length(content.len());
        bytes.write(0, content);
        Self(Arc::new(Mutex::new(bytes)))
    }

    /// A copy of a whole file.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn copy_of(other: &impl StorageBackend) -> io::Result<Self> {
        let copy = Self::default();
        let length = in_memory(other.len()?)?;
        let mut bytes = copy.lock();
        bytes.set_length(length);
        for (n, page) in bytes.pages.iter_mut().enumerate() {
            let at = n * PAGE;
            let mut content = [0; PAGE];
            other.read(at as u64, &mut content[..PAGE.min(length - at)])?;
            *page = Arc::new(content);
        }
        drop(bytes);
        Ok(copy)
    }

    /// A copy of this file, as it is now.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// Its content.
    #[must_use]
    pub fn content(&self) -> Vec<u8> {
        let bytes = self.lock();
        let mut content: Vec<u8> = bytes.pages.iter().flat_map(|page| page.iter().copied()).collect();
        content.truncate(bytes.length);
        content
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn set_length(&mut self, length: usize) {
        self.pages.resize_with(length.div_ceil(PAGE), || Arc::new([0; PAGE]));
        if length < self.length
            && !length.is_multiple_of(PAGE)
            && let Some(last) = self.pages.last_mut()
        {
            Arc::make_mut(last)[length % PAGE..].fill(0);
        }
        self.length = length;
    }

    /// Writes, and grows where needed, as a file does.
    fn write(&mut self, mut at: usize, mut content: &[u8]) {
        if at + content.len() > self.length {
            self.set_length(at + content.len());
        }
        while !content.is_empty() {
            let (page, offset) = (at / PAGE, at % PAGE);
            let (now, later) = content.split_at(content.len().min(PAGE - offset));
            Arc::make_mut(&mut self.pages[page])[offset..offset + now.len()].copy_from_slice(now);
            (at, content) = (at + now.len(), later);
        }
    }
}

fn in_memory(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl StorageBackend for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.lock().length as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (mut at, bytes) = (in_memory(offset)?, self.lock());
        if at.checked_add(out.len()).is_none_or(|end| end > bytes.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut out = out;
        while !out.is_empty() {
            let (page, offset) = (at / PAGE, at % PAGE);
            let length = out.len().min(PAGE - offset);
            out[..length].copy_from_slice(&bytes.pages[page][offset..offset + length]);
            at += length;
            out = &mut out[length..];
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.lock().set_length(in_memory(length)?);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, content: &[u8]) -> io::Result<()> {
        self.lock().write(in_memory(offset)?, content);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_used_like_a_file() {
        let file = MemoryFile::new(b"head");
        file.write(9_000, b"tail").unwrap();
        assert_eq!(file.len().unwrap(), 9_004);
        let mut read = [1; 6];
        file.read(8_998, &mut read).unwrap();
        assert_eq!(&read, b"\0\0tail");
        assert!(file.read(8_999, &mut read).is_err(), "one byte behind the end");
        file.set_len(9_001).unwrap();
        file.set_len(9_004).unwrap();
        assert_eq!(&file.content()[8_999..], b"\0t\0\0\0", "what was cut off is gone");
        assert_eq!(MemoryFile::copy_of(&file).unwrap().content(), file.content());
    }

    #[test]
    fn a_copy_is_another_file() {
        let file = MemoryFile::new(&[1; 3 * PAGE]);
        let copy = file.copy();
        file.write(PAGE as u64, &[2]).unwrap();
        copy.write(0, &[3]).unwrap();
        assert_eq!((file.content()[0], file.content()[PAGE]), (1, 2));
        assert_eq!((copy.content()[0], copy.content()[PAGE]), (3, 1));
    }
}
