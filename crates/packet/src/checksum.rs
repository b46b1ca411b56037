//! The internet checksum (RFC 1071), computed whole or repaired after a change of one word (RFC 1624).

/// Sums the 16-bit words of `bytes`, of which there are at most 65535; an odd last byte counts as followed by zero.
///
/// Sums of parts add up to the sum of the whole where every part but the last has an even length.
pub(crate) fn sum(bytes: &[u8]) -> u32 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    words.map(u32::from).sum()
}

/// The checksum of what was summed up with the checksum's field as zero.
pub(crate) fn finish(sum: u32) -> u16 {
    !fold(sum)
}

/// Whether the sum over everything, the checksum included, is the one of undamaged bytes.
pub(crate) fn is_right(sum: u32) -> bool {
    fold(sum) == u16::MAX
}

/// The checksum after one word that it covers changed from `old` to `new` (RFC 1624, equation 3).
pub(crate) fn replace(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(u32::from(!checksum) + u32::from(!old) + u32::from(new))
}

pub(crate) fn fold(sum: u32) -> u16 {
    let [a, b, c, d] = sum.to_be_bytes();
    let (folded, carry) = u16::from_be_bytes([a, b]).overflowing_add(u16::from_be_bytes([c, d]));
    folded + u16::from(carry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn example_of_rfc_1071_is_met() {
        assert_eq!(fold(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7])), 0xddf2);
        assert_eq!(sum(&[0x12, 0x34, 0x56]), 0x1234 + 0x5600);
    }

    #[test]
    fn example_of_rfc_1624_is_met() {
        assert_eq!(replace(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn repaired_checksum_is_the_one_computed_anew(words in proptest::collection::vec(any::<u16>(), 2..40), new: u16) {
            let bytes = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
            let mut words = words;
            // Something that is not zero lies in every pseudo header and IPv4 header.
            words[0] |= 0x4000;
            let before = finish(sum(&bytes(&words)));
            let old = std::mem::replace(&mut words[1], new);
            prop_assert_eq!(replace(before, old, new), finish(sum(&bytes(&words))));
        }
    }
}
