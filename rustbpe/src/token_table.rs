//! A table of the tokens of up to 12 bytes and their ids, with 16 bytes per slot.
//!
//! 98 % of the chunks of English text are that short. A slot takes a quarter of a cache line
//! and never crosses one. The table of 65,536 tokens takes 2 MiB.

use crate::key::{Seeds, first_bytes};
use crate::table::prefetch;

/// Longest token that fits in a slot.
pub const MAX_TOKEN: usize = 12;

/// Largest id that fits in a slot.
pub const MAX_ID: u32 = (1 << 28) - 1;

/// Number of bits below the id in `Slot::high`: four bytes of the chunk, and its length.
const ID_SHIFT: u32 = 36;

/// A chunk of up to 12 bytes, padded with zeros, its length and (in the table) its id.
#[derive(Debug, Clone, Copy)]
struct Slot {
    low: u64,
    high: u64,
}

/// Equal to no probe: a probe of length 0 (too long a chunk) has only zero bytes.
const VACANT: Slot = Slot { low: 1, high: 0 };

impl Slot {
    #[inline(always)]
    fn matches(self, chunk: Slot) -> bool {
        self.low == chunk.low && (self.high ^ chunk.high) << (64 - ID_SHIFT) == 0
    }

    #[inline(always)]
    fn id(self) -> u32 {
        (self.high >> ID_SHIFT) as u32
    }
}

/// A chunk to look up, and its first slot. A chunk that is too long is never found.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    chunk: Slot,
    at: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Probe { chunk: Slot { low: 0, high: 0 }, at: 0 }
    }
}

/// Linear probing, at most half full. No removal.
#[derive(Debug)]
pub struct TokenTable {
    slots: Vec<Slot>,
    seeds: Seeds,
}

/// The bits of a chunk that a slot keeps, by length. The last entry is for longer chunks.
const MASKS: [(u64, u32); MAX_TOKEN + 2] = {
    let mut masks = [(0, 0); MAX_TOKEN + 2];
    let mut length = 1;
    while length <= MAX_TOKEN {
        let mask = (1_u128 << (8 * length)) - 1;
        masks[length] = (mask as u64, (mask >> 64) as u32);
        length += 1;
    }
    masks
};

impl TokenTable {
    /// A table for `capacity` tokens. It does not grow, so the caller must not add more.
    pub fn with_capacity(capacity: usize, seeds: Seeds) -> Self {
        let slots = (capacity.max(8) * 2).next_power_of_two();
        TokenTable { slots: vec![VACANT; slots], seeds }
    }

    /// Adds a token of 1 to `MAX_TOKEN` bytes. `id` must be at most `MAX_ID`.
    pub fn insert(&mut self, token: &[u8], id: u32) {
        let Probe { chunk, at } = self.probe(token, 0, token.len());
        let mut at = at as usize;
        while self.slots[at].high != 0 {
            at = (at + 1) & (self.slots.len() - 1);
        }
        self.slots[at] = Slot { low: chunk.low, high: chunk.high | u64::from(id) << ID_SHIFT };
    }

    /// Starts to look up `text[start..start + length]` (at least one byte): its first slot is
    /// being loaded when this returns.
    #[inline(always)]
    pub fn probe(&self, text: &[u8], start: usize, length: usize) -> Probe {
        let (low, high) = first_bytes(text, start);
        let short = length <= MAX_TOKEN;
        let (low_mask, high_mask) = MASKS[length.min(MAX_TOKEN + 1)];
        let tag = if short { (length as u64) << 32 } else { 0 };
        let chunk = Slot { low: low & low_mask, high: u64::from(high & high_mask) | tag };
        let at = self.seeds.hash_words(chunk.low, chunk.high) as usize & (self.slots.len() - 1);
        prefetch(&self.slots, at);
        Probe { chunk, at: at as u32 }
    }

    /// Checks only the first slot: whether it holds the chunk, and the id in it. No branch.
    #[inline(always)]
    pub fn first(&self, probe: &Probe) -> (bool, u32) {
        let slot = self.slots[probe.at as usize];
        (slot.matches(probe.chunk), slot.id())
    }

    /// The id of the chunk, in whichever slot it is.
    pub fn get(&self, probe: &Probe) -> Option<u32> {
        let mut at = probe.at as usize;
        loop {
            let slot = self.slots[at];
            if slot.matches(probe.chunk) {
                return Some(slot.id());
            }
            if slot.high == 0 {
                return None;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_found_and_nothing_else() {
        let mut table = TokenTable::with_capacity(10_000, Seeds::random());
        let token = |number: u32| {
            let length = number as usize % MAX_TOKEN + 1;
            let mut bytes = format!("{number:x}").into_bytes();
            bytes.resize(length.max(bytes.len()), 0);
            bytes
        };
        for number in 0..10_000 {
            table.insert(&token(number), MAX_ID - number);
        }
        let found = |bytes: &[u8]| table.get(&table.probe(bytes, 0, bytes.len()));
        for number in 0..10_000 {
            let mut bytes = token(number);
            assert_eq!(found(&bytes), Some(MAX_ID - number), "{bytes:?}");
            let (hit, id) = table.first(&table.probe(&bytes, 0, bytes.len()));
            assert!(!hit || id == MAX_ID - number);
            bytes.resize(MAX_TOKEN + 1, 0);
            assert_eq!(found(&bytes), None);
        }
        assert_eq!(found(b"zz"), None);
        assert_eq!(found(b"0\0\0\0"), None);
    }
}
