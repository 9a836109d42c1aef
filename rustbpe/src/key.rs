//! Chunks of up to 15 bytes as 16-byte keys, and the hash functions of all chunks.
//!
//! 99 % of the chunks of English text fit a key. Hot tables store keys inline, so a
//! look-up takes one load, one multiplication and one comparison, and follows no pointer.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Longest chunk that fits a key; the sixteenth byte holds the length.
pub const MAX_SHORT: usize = 15;

/// The chunk's bytes in little-endian order, padded with zeros, and its length in the top
/// byte. The length is at least 1, so the all-zero key can mean "empty slot".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Key {
    pub low: u64,
    pub high: u64,
}

const MASKS: [(u64, u64); 16] = {
    let mut masks = [(0, 0); 16];
    let mut length = 1;
    while length < 16 {
        let bits = 8 * length as u32;
        masks[length] =
            if length < 8 { ((1 << bits) - 1, 0) } else { (u64::MAX, (1 << (bits - 64)) - 1) };
        length += 1;
    }
    masks
};

impl Key {
    /// Key of `text[start..start + length]`, with `1 <= length <= MAX_SHORT`.
    ///
    /// Reads 16 bytes at once if the text has that many. Callers pad their buffers, so only
    /// the end of a caller's own string needs the copy.
    #[inline(always)]
    pub fn new(text: &[u8], start: usize, length: usize) -> Key {
        let bytes: [u8; 16] = match text[start..].first_chunk::<16>() {
            Some(chunk) => *chunk,
            None => {
                let mut padded = [0; 16];
                padded[..length].copy_from_slice(&text[start..start + length]);
                padded
            }
        };
        let value = u128::from_le_bytes(bytes);
        let (low_mask, high_mask) = MASKS[length & 15];
        Key {
            low: value as u64 & low_mask,
            high: ((value >> 64) as u64 & high_mask) | (length as u64) << 56,
        }
    }

    pub fn len(self) -> usize {
        (self.high >> 56) as usize
    }

    pub fn is_vacant(self) -> bool {
        self.high == 0
    }

    /// The chunk's bytes; only the first `len()` of the array count.
    pub fn bytes(self) -> [u8; 16] {
        let value = (self.high as u128) << 64 | self.low as u128;
        value.to_le_bytes()
    }
}

/// The 12 bytes from `start` on, as little-endian words; zeros after the end of the text.
#[inline(always)]
pub fn first_bytes(text: &[u8], start: usize) -> (u64, u32) {
    match text[start..].first_chunk::<12>() {
        Some(bytes) => halves(*bytes),
        None => {
            let mut padded = [0; 12];
            padded[..text.len() - start].copy_from_slice(&text[start..]);
            halves(padded)
        }
    }
}

#[inline(always)]
fn halves(bytes: [u8; 12]) -> (u64, u32) {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    (u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes(rest))
}

/// Random seeds of a family of tables. Input crafted to collide under one process's seeds
/// does not collide under another's. Results never depend on the seeds.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    low: u64,
    high: u64,
}

impl Seeds {
    /// Fresh seeds from the random state of the standard library.
    pub fn random() -> Self {
        let state = RandomState::new();
        Seeds { low: state.hash_one(1) | 1, high: state.hash_one(2) }
    }

    /// Folded 64x64->128-bit multiplication, as in wyhash and foldhash.
    #[inline(always)]
    pub fn hash(self, key: Key) -> u64 {
        self.hash_words(key.low, key.high)
    }

    #[inline(always)]
    pub fn hash_words(self, low: u64, high: u64) -> u64 {
        fold(low ^ self.low, high ^ self.high)
    }

    pub fn hash_bytes(self, bytes: &[u8]) -> u64 {
        let mut state = self.low ^ bytes.len() as u64;
        for block in bytes.chunks(8) {
            let mut padded = [0; 8];
            padded[..block.len()].copy_from_slice(block);
            state = fold(state ^ u64::from_le_bytes(padded), self.high ^ 0x9E37_79B9_7F4A_7C15);
        }
        state
    }
}

#[inline(always)]
fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

/// `Seeds` as a hasher of byte slices for the standard map.
#[derive(Debug, Clone, Copy)]
pub struct BytesHash(pub Seeds);

pub struct BytesHasher {
    seeds: Seeds,
    state: u64,
}

impl BuildHasher for BytesHash {
    type Hasher = BytesHasher;

    fn build_hasher(&self) -> BytesHasher {
        BytesHasher { seeds: self.0, state: 0 }
    }
}

impl Hasher for BytesHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.state ^= self.seeds.hash_bytes(bytes);
    }

    // `hash_bytes` already includes the length.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_chunk_and_nothing_around_it() {
        let text: Vec<u8> = (0..64).map(|at| (at * 7) as u8).collect();
        for length in 1..=MAX_SHORT {
            for start in 0..text.len() - length {
                let key = Key::new(&text, start, length);
                assert_eq!(key.len(), length);
                assert_eq!(&key.bytes()[..length], &text[start..start + length]);
                assert_eq!(key, Key::new(&text[start..start + length], 0, length));
            }
        }
    }

    #[test]
    fn trailing_zero_bytes_are_told_apart_by_the_length() {
        assert_ne!(Key::new(b"a", 0, 1), Key::new(b"a\0", 0, 2));
    }
}
