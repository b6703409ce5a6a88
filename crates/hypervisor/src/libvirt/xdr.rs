//! XDR, the encoding of what libvirt's messages carry (RFC 4506): the types that they need, and a bound for each.

/// The longest string in a message: `REMOTE_STRING_MAX` in libvirt 11.3, `src/remote/remote_protocol.x`.
pub(super) const MAX_STRING: usize = 4 << 20;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XdrError {
    /// It ends within a value.
    #[error("it ends too soon")]
    TooShort,
    /// There are bytes after the last value.
    #[error("there is more in it than there should be")]
    TooLong,
    /// A string or a list longer than libvirt itself allows.
    #[error("a string or a list in it is too long")]
    OutOfBounds,
    /// A text that is not UTF-8.
    #[error("a text in it is not UTF-8")]
    NotUtf8,
    /// A flag that is neither 0 nor 1.
    #[error("a yes or no in it is neither")]
    NotBool,
}

/// Writes values one after another.
#[derive(Debug, Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn i32(mut self, value: i32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    /// Bytes of a fixed number, which is a multiple of four.
    pub(super) fn fixed(mut self, bytes: &[u8]) -> Self {
        debug_assert_eq!(bytes.len() % 4, 0);
        self.0.extend(bytes);
        self
    }

    /// A string that its caller has seen to be no longer than [`MAX_STRING`].
    pub(super) fn string(mut self, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        self = self.u32(length);
        self.0.extend(text.as_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub(super) fn done(self) -> Vec<u8> {
        self.0
    }
}

/// Reads values one after another.
#[derive(Debug)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn fixed<const N: usize>(&mut self) -> Result<[u8; N], XdrError> {
        let (value, rest) = self.0.split_first_chunk().ok_or(XdrError::TooShort)?;
        self.0 = rest;
        Ok(*value)
    }

    pub(super) fn u32(&mut self) -> Result<u32, XdrError> {
        self.fixed().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, XdrError> {
        self.fixed().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, XdrError> {
        self.fixed().map(u64::from_be_bytes)
    }

    /// The number of entries in a list of at most `max`.
    pub(super) fn count(&mut self, max: u32) -> Result<u32, XdrError> {
        self.u32().and_then(|count| if count <= max { Ok(count) } else { Err(XdrError::OutOfBounds) })
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], XdrError> {
        let length = usize::try_from(self.u32()?).map_err(|_| XdrError::OutOfBounds)?;
        if length > MAX_STRING {
            return Err(XdrError::OutOfBounds);
        }
        let (value, rest) = self.0.split_at_checked(length.next_multiple_of(4)).ok_or(XdrError::TooShort)?;
        self.0 = rest;
        Ok(value.get(..length).unwrap_or_default())
    }

    pub(super) fn string(&mut self) -> Result<String, XdrError> {
        let text = str::from_utf8(self.bytes()?).map_err(|_| XdrError::NotUtf8)?;
        Ok(text.to_owned())
    }

    /// A value that may be left out.
    pub(super) fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, XdrError>,
    ) -> Result<Option<T>, XdrError> {
        match self.u32()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(XdrError::NotBool),
        }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), XdrError> {
        if self.0.is_empty() { Ok(()) } else { Err(XdrError::TooLong) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = Writer::default().u32(7).i32(-1).string("web").string("").fixed(&[1, 2, 3, 4]).done();
        assert_eq!(bytes.len(), 4 + 4 + 8 + 4 + 4);
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.u32(), reader.i32()), (Ok(7), Ok(-1)));
        assert_eq!((reader.string(), reader.string()), (Ok("web".into()), Ok(String::new())));
        assert_eq!(reader.fixed(), Ok([1, 2, 3, 4]));
        reader.end().unwrap();
    }

    #[test]
    fn a_length_that_is_only_claimed_takes_no_memory() {
        let claimed = [0, 0x40, 0, 0, b'x', 0, 0, 0];
        assert_eq!(Reader::new(&claimed).bytes(), Err(XdrError::TooShort));
        assert_eq!(Reader::new(&[0, 0x40, 0, 1]).bytes(), Err(XdrError::OutOfBounds));
        assert_eq!(Reader::new(&[0xff; 8]).bytes(), Err(XdrError::OutOfBounds));
        assert_eq!(Reader::new(&[0xff; 8]).count(16_384), Err(XdrError::OutOfBounds));
    }

    #[test]
    fn what_is_cut_off_left_over_or_no_text_is_an_error() {
        assert_eq!(Reader::new(&[0, 0, 0]).u32(), Err(XdrError::TooShort));
        assert_eq!(Reader::new(&[0, 0, 0, 1, b'x']).string(), Err(XdrError::TooShort), "no padding");
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0xff, 0, 0, 0]).string(), Err(XdrError::NotUtf8));
        assert_eq!(Reader::new(&[0, 0, 0, 2]).optional(Reader::u32), Err(XdrError::NotBool));
        assert_eq!(Reader::new(&[0]).end(), Err(XdrError::TooLong));
    }
}
