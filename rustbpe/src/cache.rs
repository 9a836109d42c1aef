//! Chunks met before with the ids they came to: one slot of half a cache line each.

use crate::id::Id;
use crate::key::{Key, Seeds};
use crate::table::prefetch;

/// Chunks remembered by one thread; 16 MiB of slots when full, then it is emptied.
const LIMIT: usize = 1 << 18;

/// Ids that a slot holds; more of them are spilled.
const INLINE: usize = 3;

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
struct Slot {
    key: Key,
    /// The ids, or where in `spilled` they begin.
    ids: [u32; INLINE],
    length: u32,
}

/// Chunks of up to 15 bytes to ids, linear probing, at most half full.
#[derive(Debug)]
pub struct Cache {
    slots: Vec<Slot>,
    spilled: Vec<u32>,
    length: usize,
    seeds: Seeds,
}

impl Cache {
    pub fn new(seeds: Seeds) -> Self {
        Cache { slots: vec![Slot::default(); 1 << 11], spilled: Vec::new(), length: 0, seeds }
    }

    /// Starts loading the slot where a key of this hash begins.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, hash as usize & (self.slots.len() - 1));
    }

    /// Appends the ids of a chunk; false, and nothing appended, when it is new.
    #[inline(always)]
    pub fn append<T: Id>(&self, key: Key, hash: u64, out: &mut Vec<T>) -> bool {
        let slot = &self.slots[self.find(key, hash)];
        let length = slot.length as usize;
        if slot.key != key {
            return false;
        }
        if length > INLINE {
            let start = slot.ids[0] as usize;
            out.extend(self.spilled[start..start + length].iter().map(|id| T::from_u32(*id)));
            return true;
        }
        // All of them, then those that were too many: no branch on the length.
        let end = out.len() + length;
        out.extend_from_slice(&slot.ids.map(T::from_u32));
        out.truncate(end);
        true
    }

    /// Index of the key's slot, or of the vacant slot where it belongs.
    #[inline(always)]
    fn find(&self, key: Key, hash: u64) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while self.slots[at].key != key && !self.slots[at].key.is_vacant() {
            at = (at + 1) & mask;
        }
        at
    }

    /// Remembers the ids, one or more, of a new chunk.
    pub fn insert(&mut self, key: Key, hash: u64, ids: &[u32]) {
        if self.length >= LIMIT {
            self.slots.fill(Slot::default());
            self.spilled.clear();
            self.length = 0;
        }
        if (self.length + 1) * 2 > self.slots.len() {
            self.grow();
        }
        let at = self.find(key, hash);
        let mut slot = Slot { key, ids: [0; INLINE], length: ids.len() as u32 };
        match slot.ids.get_mut(..ids.len()) {
            Some(room) => room.copy_from_slice(ids),
            None => {
                slot.ids[0] = self.spilled.len() as u32;
                self.spilled.extend_from_slice(ids);
            }
        }
        self.slots[at] = slot;
        self.length += 1;
    }

    fn grow(&mut self) {
        let doubled = vec![Slot::default(); self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, doubled);
        for slot in old.into_iter().filter(|slot| !slot.key.is_vacant()) {
            let at = self.find(slot.key, self.seeds.hash(slot.key));
            self.slots[at] = slot;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::MAX_SHORT;

    #[test]
    fn ids_of_every_number_come_back_through_growth_and_emptying() {
        let seeds = Seeds::random();
        let mut cache = Cache::new(seeds);
        let chunk = |number: usize| {
            let text = format!("c{number}");
            let key = Key::new(text.as_bytes(), 0, text.len());
            (key, seeds.hash(key), vec![number as u32; number % MAX_SHORT + 1])
        };
        let check = |cache: &Cache, number: usize, known: bool| {
            let (key, hash, ids) = chunk(number);
            let mut out = vec![7_u32];
            assert_eq!(cache.append(key, hash, &mut out), known);
            assert_eq!(out[1..], ids[..if known { ids.len() } else { 0 }]);
        };
        for number in 0..LIMIT + 2 {
            let (key, hash, ids) = chunk(number);
            cache.insert(key, hash, &ids);
            check(&cache, number, true);
        }
        assert_eq!(cache.length, 2);
        check(&cache, 1, false);
        for number in LIMIT..LIMIT + 2 {
            check(&cache, number, true);
        }
    }
}
