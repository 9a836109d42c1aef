//! A cache from chunks to their ids. One slot takes half a cache line.

use crate::id::Id;
use crate::key::{Key, Seeds};
use crate::table::prefetch;

/// Chunks that one thread caches: 16 MiB of slots. A full cache is emptied.
const LIMIT: usize = 1 << 18;

/// Ids that fit in a slot; longer lists go to `spilled`.
const INLINE: usize = 3;

#[derive(Debug, Clone, Copy, Default)]
#[repr(align(32))]
struct Slot {
    key: Key,
    /// The ids, or in the first element the index in `spilled` where they begin.
    ids: [u32; INLINE],
    length: u32,
}

/// Maps chunks of up to 15 bytes to ids. Linear probing, at most half full.
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

    /// Starts loading the first slot in which a key of this hash could be.
    #[inline(always)]
    pub fn prefetch(&self, hash: u64) {
        prefetch(&self.slots, hash as usize & (self.slots.len() - 1));
    }

    /// Appends the ids of a chunk. Returns false, appending nothing, if the chunk is unknown.
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
        // Append the whole slot, then cut the surplus: no branch on the length.
        let end = out.len() + length;
        out.extend_from_slice(&slot.ids.map(T::from_u32));
        out.truncate(end);
        true
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

    /// Stores the ids (at least one) of a chunk that is not in the cache yet.
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
