//! Bytes that look random and can be made again from a number.

/// A stream of bytes that depends on its seed only.
#[derive(Debug)]
pub(crate) struct Pattern(u64);

impl Pattern {
    /// Starts the stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        // The generator must not start at zero; the constant spreads neighbouring seeds.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    /// Writes the next bytes. The length of a call must be a multiple of eight except in the last.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            // xorshift64 (Marsaglia 2003): quick, and any changed, lost or doubled byte shows.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            chunk.copy_from_slice(&self.0.to_le_bytes()[..chunk.len()]);
        }
    }
}

/// CRC-32 of IEEE 802.3, as in zip.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        let index = usize::from(crc.to_le_bytes()[0] ^ byte);
        TABLE[index] ^ (crc >> 8)
    })
}

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    let mut value: u32 = 0;
    while index < 256 {
        let mut crc = value;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
        value += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_check_string() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn pattern_does_not_depend_on_the_cuts() {
        let mut whole = [0; 64];
        Pattern::new(7).fill(&mut whole);
        let mut parts = [0; 64];
        let mut pattern = Pattern::new(7);
        pattern.fill(&mut parts[..24]);
        pattern.fill(&mut parts[24..]);
        assert_eq!(whole, parts);
    }
}
