//! Open-addressing hash tables that store their keys inline.

use crate::key::{Key, Seeds};

#[derive(Debug, Clone, Copy, Default)]
pub struct Slot<V> {
    pub key: Key,
    pub value: V,
}

/// Starts loading an element, which need not exist, into the nearest cache.
#[inline(always)]
pub fn prefetch<T>(slots: &[T], at: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch changes no memory and cannot fault, whatever the address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(slots.as_ptr().wrapping_add(at).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slots, at);
}

/// Maps chunk keys to values. Linear probing, at most half full. No removal.
#[derive(Debug)]
pub struct ShortTable<V> {
    slots: Vec<Slot<V>>,
    length: usize,
    seeds: Seeds,
}

impl<V: Copy + Default> ShortTable<V> {
    /// A table that takes `capacity` keys before it grows.
    pub fn with_capacity(capacity: usize, seeds: Seeds) -> Self {
        let slots = (capacity.max(8) * 2).next_power_of_two();
        ShortTable { slots: vec![Slot::default(); slots], length: 0, seeds }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    /// Index of the key's slot, or of the empty slot where the key belongs.
    #[inline(always)]
    fn find(&self, key: Key, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].key != key && !self.slots[at].key.is_vacant() {
            at = (at + 1) & mask;
        }
        at
    }

    /// Starts loading the first slot in which a key of this hash could be.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, hash as usize & (self.slots.len() - 1));
    }

    /// The key's value; an absent key is inserted with `V::default()`.
    #[inline(always)]
    pub fn entry(&mut self, key: Key, hash: u64) -> &mut V {
        let mut at = self.find(key, hash);
        if self.slots[at].key.is_vacant() {
            at = self.insert_vacant(key, hash, at);
        }
        &mut self.slots[at].value
    }

    #[cold]
    #[inline(never)]
    fn insert_vacant(&mut self, key: Key, hash: u64, mut at: usize) -> usize {
        if (self.length + 1) * 2 > self.slots.len() {
            self.grow();
            at = self.find(key, hash);
        }
        self.slots[at].key = key;
        self.length += 1;
        at
    }

    fn grow(&mut self) {
        let doubled = vec![Slot::default(); self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, doubled);
        for slot in old.into_iter().filter(|slot| !slot.key.is_vacant()) {
            let at = self.find(slot.key, self.seeds.hash(slot.key));
            self.slots[at] = slot;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Slot<V>> {
        self.slots.iter().filter(|slot| !slot.key.is_vacant())
    }
}

/// The value that `PairTable` returns for an absent pair.
pub const NONE: u32 = u32::MAX;

/// Two token ids in one word, in the same order as the pairs.
#[inline(always)]
pub fn pack(left: u32, right: u32) -> u64 {
    (left as u64) << 32 | right as u64
}

/// Maps pairs of token ids to a `u32`. Linear probing, at most half full.
#[derive(Debug)]
pub struct PairTable {
    slots: Vec<(u64, u32)>,
    length: usize,
}

/// Never equal to a packed pair, because ids are below `u32::MAX`.
const VACANT: u64 = u64::MAX;

impl PairTable {
    pub fn with_capacity(capacity: usize) -> Self {
        let slots = (capacity.max(8) * 2).next_power_of_two();
        PairTable { slots: vec![(VACANT, NONE); slots], length: 0 }
    }

    /// Fibonacci hashing. Ids are dense and small; the top bits of the product mix both ids.
    #[inline(always)]
    fn start(&self, pair: u64) -> usize {
        let mixed = (pair ^ pair >> 29).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    #[inline(always)]
    fn find(&self, pair: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = self.start(pair);
        while self.slots[at].0 != pair && self.slots[at].0 != VACANT {
            at = (at + 1) & mask;
        }
        at
    }

    /// The value of a pair, or `NONE`.
    #[inline(always)]
    pub fn get(&self, left: u32, right: u32) -> u32 {
        let slot = self.slots[self.find(pack(left, right))];
        if slot.0 == VACANT { NONE } else { slot.1 }
    }

    pub fn insert(&mut self, left: u32, right: u32, value: u32) {
        if (self.length + 1) * 2 > self.slots.len() {
            let doubled = vec![(VACANT, NONE); self.slots.len() * 2];
            for slot in std::mem::replace(&mut self.slots, doubled) {
                if slot.0 != VACANT {
                    let at = self.find(slot.0);
                    self.slots[at] = slot;
                }
            }
        }
        let at = self.find(pack(left, right));
        self.length += usize::from(self.slots[at].0 == VACANT);
        self.slots[at] = (pack(left, right), value);
    }

    /// `(left, right, value)` of every pair, in no fixed order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u32, u32)> {
        let taken = self.slots.iter().filter(|slot| slot.0 != VACANT);
        taken.map(|(pair, value)| ((pair >> 32) as u32, *pair as u32, *value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_table_counts_through_growth() {
        let seeds = Seeds::random();
        let mut table = ShortTable::<u64>::with_capacity(1, seeds);
        for round in 1..=3 {
            for number in 0..5_000_u32 {
                let text = format!("k{number}");
                let key = Key::new(text.as_bytes(), 0, text.len());
                let count = table.entry(key, seeds.hash(key));
                *count += 1;
                assert_eq!(*count, round);
            }
        }
        assert_eq!(table.len(), 5_000);
        assert_eq!(table.iter().count(), 5_000);
    }

    #[test]
    fn pair_table_keeps_every_pair() {
        let mut table = PairTable::with_capacity(1);
        for left in 0..100 {
            for right in 0..100 {
                table.insert(left, right, left * 100 + right);
            }
        }
        for left in 0..100 {
            for right in 0..100 {
                assert_eq!(table.get(left, right), left * 100 + right);
            }
        }
        assert_eq!(table.get(100, 0), NONE);
    }
}
