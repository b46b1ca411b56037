//! The list of options of an IPv4 header (RFC 791, 3.1) or a TCP header (RFC 9293, 3.1), which are coded alike.

use std::ops::Range;

/// Yields every option that has a length, in order; stops at the end of the list or at the first malformed one.
#[derive(Clone, Debug)]
pub(crate) struct Options<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// One option that has a length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeaderOption {
    pub(crate) kind: u8,
    /// Where it lies in the list, its kind and length included.
    pub(crate) range: Range<usize>,
}

/// An option claims less than two bytes or more than the list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MalformedOption;

impl<'a> Options<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<HeaderOption, MalformedOption>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.bytes.get(self.at) == Some(&NO_OPERATION) {
            self.at += 1;
        }
        let start = self.at;
        let kind = *self.bytes.get(start)?;
        // Whatever comes of this one, a list that ended or is malformed goes on nowhere.
        self.at = self.bytes.len();
        if kind == END_OF_LIST {
            return None;
        }
        let length = self.bytes.get(start + 1).copied().map_or(0, usize::from);
        let range = start..start + length;
        if length < 2 || range.end > self.bytes.len() {
            return Some(Err(MalformedOption));
        }
        self.at = range.end;
        Some(Ok(HeaderOption { kind, range }))
    }
}

const END_OF_LIST: u8 = 0;
const NO_OPERATION: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Vec<Result<HeaderOption, MalformedOption>> {
        Options::new(bytes).collect()
    }

    #[test]
    fn list_ends_at_its_mark_and_filling_is_skipped() {
        let wanted = [Ok(HeaderOption { kind: 2, range: 1..5 }), Ok(HeaderOption { kind: 4, range: 7..9 })];
        assert_eq!(read(&[1, 2, 4, 5, 6, 1, 1, 4, 2, 0, 2, 9]), wanted);
        assert_eq!(read(&[2, 4, 5, 6])[..], [Ok(HeaderOption { kind: 2, range: 0..4 })]);
        assert!(read(&[]).is_empty() && read(&[0]).is_empty() && read(&[1, 1]).is_empty());
    }

    #[test]
    fn impossible_lengths_end_the_list() {
        for bytes in [&[2][..], &[2, 0], &[2, 1, 0, 0], &[2, 4, 1], &[1, 2, 255, 0]] {
            assert_eq!(read(bytes), [Err(MalformedOption)], "{bytes:02x?}");
        }
        assert_eq!(read(&[8, 2, 9, 4])[1..], [Err(MalformedOption)]);
    }
}
