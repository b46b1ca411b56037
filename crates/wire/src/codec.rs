//! Reading and writing of fixed little-endian layouts.

/// Why bytes from outside are not the message they claim to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ends before the message does.
    #[error("message is cut short")]
    Truncated,
    /// Bytes follow the end of the message.
    #[error("message has trailing bytes")]
    Trailing,
    /// A length or count is above its limit in [`crate::limits`].
    #[error("{0} is too long")]
    TooLong(&'static str),
    /// A field holds a value that no version of the protocol gives it.
    #[error("{0} has an invalid value")]
    Invalid(&'static str),
    /// The message is of a protocol version that this program does not speak.
    #[error("protocol version {0} is not supported")]
    Version(u8),
}

/// Reads fields off the front of a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Returns how many bytes are left.
    #[must_use]
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Takes the next `n` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    /// Takes the next `N` bytes as an array.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    /// Takes everything that is left.
    pub const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Takes one byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when none is left.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// Takes a 16-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer than two bytes are left.
    pub fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// Takes a 32-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer than four bytes are left.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Takes a 64-bit integer.
    ///
    /// # Errors
    /// [`WireError::Truncated`] when fewer than eight bytes are left.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Takes a byte string with a one-byte length of at most `max`.
    ///
    /// # Errors
    /// [`WireError::TooLong`] naming `what`, or [`WireError::Truncated`].
    pub fn bytes8(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = usize::from(self.u8()?);
        if len > max {
            return Err(WireError::TooLong(what));
        }
        self.bytes(len)
    }

    /// Takes a byte string with a two-byte length of at most `max`.
    ///
    /// # Errors
    /// [`WireError::TooLong`] naming `what`, or [`WireError::Truncated`].
    pub fn bytes16(&mut self, max: usize, what: &'static str) -> Result<&'a [u8], WireError> {
        let len = usize::from(self.u16()?);
        if len > max {
            return Err(WireError::TooLong(what));
        }
        self.bytes(len)
    }

    /// Takes UTF-8 text with a one-byte length of at most `max` bytes.
    ///
    /// # Errors
    /// [`WireError::Invalid`] naming `what` when it is not UTF-8, otherwise as [`Reader::bytes8`].
    pub fn text8(&mut self, max: usize, what: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes8(max, what)?).map_err(|_| WireError::Invalid(what))
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`WireError::Trailing`] when bytes are left.
    pub const fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }
}

/// Appends fields to a byte vector.
///
/// Lengths are those of values that a type or a limit already bounds; a longer one is a bug of the caller and panics.
pub trait Put {
    /// Appends bytes as they are.
    fn put(&mut self, bytes: &[u8]);

    /// Appends one byte.
    fn put_u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    /// Appends a 16-bit integer.
    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    /// Appends a 32-bit integer.
    fn put_u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    /// Appends a 64-bit integer.
    fn put_u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// Appends a byte string with a one-byte length.
    fn put_bytes8(&mut self, bytes: &[u8]) {
        self.put_u8(u8::try_from(bytes.len()).expect("callers bound the length to 255"));
        self.put(bytes);
    }

    /// Appends a byte string with a two-byte length.
    fn put_bytes16(&mut self, bytes: &[u8]) {
        self.put_u16(u16::try_from(bytes.len()).expect("callers bound the length to 65,535"));
        self.put(bytes);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_back_in_order() {
        let mut out = Vec::new();
        out.put_u8(1);
        out.put_u16(0x0203);
        out.put_u32(0x0405_0607);
        out.put_u64(8);
        out.put_bytes8(b"name");
        out.put_bytes16(b"text");
        assert_eq!(out[..7], [1, 3, 2, 7, 6, 5, 4]);

        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.u16(), Ok(0x0203));
        assert_eq!(reader.u32(), Ok(0x0405_0607));
        assert_eq!(reader.u64(), Ok(8));
        assert_eq!(reader.text8(4, "name"), Ok("name"));
        assert_eq!(reader.bytes16(4, "text"), Ok(b"text".as_slice()));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn limits_and_ends_are_enforced() {
        assert_eq!(Reader::new(&[5, 1]).bytes8(4, "x"), Err(WireError::TooLong("x")));
        assert_eq!(Reader::new(&[2, 1]).bytes8(4, "x"), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[1]).u16(), Err(WireError::Truncated));
        assert_eq!(Reader::new(&[1]).finish(), Err(WireError::Trailing));
        assert_eq!(Reader::new(&[1, 0xff]).text8(4, "x"), Err(WireError::Invalid("x")));
    }
}
