//! A script read off the fuzzer's bytes, and genuine messages edited by it.

/// Takes values off the front of the fuzzer's bytes; behind the end everything is zero.
#[derive(Debug, Clone)]
pub(crate) struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        *first
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.u8().is_multiple_of(2)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.u8(), self.u8()])
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from(self.u16()) | (u32::from(self.u16()) << 16)
    }

    pub(crate) fn u64(&mut self) -> u64 {
        u64::from(self.u32()) | (u64::from(self.u32()) << 32)
    }

    /// Takes `length` bytes, or what is left.
    pub(crate) fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (head, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.rest = rest;
        head
    }

    pub(crate) const fn rest(&mut self) -> &'a [u8] {
        let rest = self.rest;
        self.rest = &[];
        rest
    }

    /// Takes a number below `count`, which is at least 1.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        let number = if count <= 256 { usize::from(self.u8()) } else { usize::from(self.u16()) };
        number % count.max(1)
    }

    /// Takes one of the values.
    pub(crate) fn pick<'b, T>(&mut self, values: &'b [T]) -> &'b T {
        &values[self.below(values.len())]
    }
}

/// Changes a genuine message as the script says: bytes, length, order, pieces of `other`. A script of no steps changes
/// nothing.
pub(crate) fn edited(genuine: &[u8], other: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = genuine.to_vec();
    for _ in 0..input.below(8) {
        edit(&mut bytes, other, input);
    }
    bytes
}

fn edit(bytes: &mut Vec<u8>, other: &[u8], input: &mut Input<'_>) {
    let step = input.u8() % 8;
    let at = input.below(bytes.len() + 1).min(bytes.len());
    match step {
        0 | 1 => {
            let value = input.u8();
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= value;
            }
        }
        2 => bytes.truncate(at),
        3 => bytes.extend_from_slice(input.bytes(at % 64)),
        4 => {
            let new = input.bytes(8);
            let end = bytes.len().min(at + new.len());
            bytes[at..end].copy_from_slice(&new[..end - at]);
        }
        5 => {
            let end = bytes.len().min(at + usize::from(input.u8()));
            bytes.drain(at..end);
        }
        6 => {
            let end = other.len().min(bytes.len());
            let from = at.min(end);
            bytes[from..end].copy_from_slice(&other[from..end]);
        }
        _ => {
            let end = other.len().min(bytes.len()).min(at);
            bytes[..end].copy_from_slice(&other[..end]);
        }
    }
}

/// Lengths to which a message of `length` bytes is cut: all of them for a short one, some of a long one.
pub(crate) fn cuts(length: usize) -> Vec<usize> {
    if length <= 48 {
        return (0..length).collect();
    }
    let mut cuts: Vec<usize> = (0..8).chain((1..8).map(|eighth| length * eighth / 8)).collect();
    cuts.extend([length - 16, length - 2, length - 1]);
    cuts
}

/// Asserts that no beginning of the bytes is a message: `parses` tells whether one is.
pub(crate) fn assert_cuts_fail(what: &str, bytes: &[u8], parses: impl Fn(&[u8]) -> bool) {
    for cut in cuts(bytes.len()) {
        assert!(!parses(&bytes[..cut]), "{what} of {} bytes is read from its first {cut}", bytes.len());
    }
}
