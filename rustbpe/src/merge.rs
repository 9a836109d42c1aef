//! Learns the merges: always the most frequent pair, the smaller pair if several tie.
//!
//! The greedy rule is that of Sennrich et al. 2016 (arXiv:1508.07909). It stays exact because
//! each merge updates the counts of exactly the pairs around its replacements. The data
//! structures rely on two facts about BPE:
//!
//! * All occurrences of a pair appear in the one merge that creates its newer symbol; after
//!   that its count only falls. So a heap entry never understates a count, and the top entry
//!   is the best pair if it is up to date.
//! * Hence a pair that is rarer than the last merge is not needed yet. A *round* tracks only
//!   pairs with at least `threshold` occurrences. When the best pair falls below that, the
//!   next round recounts the remaining words with a lower threshold. On 160 MB of English
//!   nine of ten pairs are never indexed.
//!
//! Time: O(total symbols + visits + merges log pairs). A visit rewrites one word of at most
//! 64 symbols, or one place in a longer word.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::error::{Error, Result};
use crate::neighbours::{Entry, Neighbours};
use crate::table::{NONE, PairTable, pack};
use crate::words::Words;

/// The two ids that a merge joins. Merge `k` creates id `256 + k`.
pub type Merge = (u32, u32);

/// Each round goes down to `1 / ROUND_SPAN` of its highest count.
const ROUND_SPAN: u64 = 16;

/// Learns up to `wanted` merges; fewer if no pair is left.
///
/// Calls `observe(done)` before every merge; it returns false to stop.
///
/// # Errors
/// `Error::Stopped` if `observe` returned false.
pub fn learn(
    words: Words,
    wanted: usize,
    mut observe: impl FnMut(usize) -> bool,
) -> Result<Vec<Merge>> {
    // Each merge removes at least one symbol, so there cannot be more merges than symbols.
    let wanted = wanted.min(words.n_symbols());
    let mut learner = Learner::new(words, wanted);
    while learner.merges.len() < wanted && learner.next_round() {
        while learner.merges.len() < wanted {
            if !observe(learner.merges.len()) {
                return Err(Error::Stopped);
            }
            if !learner.merge_best() {
                break;
            }
        }
    }
    Ok(learner.merges)
}

struct Learner {
    words: Words,
    merges: Vec<Merge>,
    threshold: u64,
    /// From a pair to the index of its entry, for the pairs of this round.
    index: PairTable,
    entries: Vec<Entry>,
    /// The places of each entry, one run per entry.
    lists: Vec<u32>,
    heap: BinaryHeap<(u64, Reverse<u64>, u32)>,
    before: Neighbours,
    after: Neighbours,
}

impl Learner {
    fn new(words: Words, wanted: usize) -> Self {
        Learner {
            words,
            merges: Vec::with_capacity(wanted),
            threshold: u64::MAX,
            index: PairTable::with_capacity(0),
            entries: Vec::new(),
            lists: Vec::new(),
            heap: BinaryHeap::new(),
            before: Neighbours::new(256 + wanted),
            after: Neighbours::new(256 + wanted),
        }
    }

    /// Indexes the pairs in the words as they are now. Returns false if there are none.
    fn next_round(&mut self) -> bool {
        if self.threshold == 1 {
            return false;
        }
        self.words.compact();
        let tallies = tally_pairs(&self.words);
        let best = tallies.entries.iter().map(|entry| entry.count).max().unwrap_or(0);
        self.threshold = (best / ROUND_SPAN).max(1);
        self.index_pairs(tallies);
        best > 0
    }

    fn index_pairs(&mut self, tallies: Tallies) {
        let Tallies { index, mut entries, pairs } = tallies;
        self.heap.clear();
        let mut end = 0;
        for (at, entry) in entries.iter_mut().enumerate() {
            if entry.count < self.threshold {
                entry.places = 0;
                entry.start = usize::MAX;
                continue;
            }
            entry.start = end;
            end += entry.places as usize;
            entry.places = 0;
            self.heap.push((entry.count, Reverse(pairs[at]), at as u32));
        }
        self.lists.clear();
        self.lists.resize(end, 0);
        let lists = &mut self.lists;
        self.words.for_each_pair(|place, _, (left, right)| {
            let entry = &mut entries[index.get(left, right) as usize];
            if entry.start != usize::MAX {
                lists[entry.start + entry.places as usize] = place;
                entry.places += 1;
            }
        });
        self.index = index;
        self.entries = entries;
    }

    /// Applies the best merge. Returns false if this round has no pair left.
    fn merge_best(&mut self) -> bool {
        while let Some((count, Reverse(pair), at)) = self.heap.pop() {
            let entry = self.entries[at as usize];
            if entry.count == count {
                self.apply(((pair >> 32) as u32, pair as u32), entry);
                return true;
            }
            if entry.count >= self.threshold {
                self.heap.push((entry.count, Reverse(pair), at));
            }
        }
        false
    }

    fn apply(&mut self, pair: Merge, entry: Entry) {
        let (left, right) = pair;
        let merged = 256 + self.merges.len() as u32;
        self.merges.push(pair);
        // Remove the pair from the index: its own decrements (as in `aaa`) must not find it.
        self.index.insert(left, right, NONE);
        for at in entry.start..entry.start + entry.places as usize {
            let place = self.lists[at];
            self.words.merge(place, pair, merged, &mut self.before, &mut self.after);
        }
        self.subtract_replaced(left, right, merged);
        self.add_created(left, merged);
    }

    /// Subtracts the replaced occurrences from the counts of the pairs that contained them.
    fn subtract_replaced(&mut self, left: u32, right: u32, merged: u32) {
        let (index, entries) = (&self.index, &mut self.entries);
        let mut take = |left, right, count| {
            let at = index.get(left, right);
            if at != NONE {
                entries[at as usize].count -= count;
            }
        };
        self.before.for_each(|symbol, count| {
            // If the left neighbour is `merged`, the lost pair is (right, left), and the `after`
            // note of that neighbour's own replacement already covers it.
            if symbol != merged {
                take(symbol, left, count);
            }
        });
        self.after.for_each(|symbol, count| take(right, symbol, count));
    }

    /// Adds the pairs that `merged` forms with its neighbours.
    fn add_created(&mut self, left: u32, merged: u32) {
        // Two adjacent replacements: the first noted the second's `left` as its right
        // neighbour. That is `merged` now, and `before` already counts the pair.
        let doubled = self.before.count(merged);
        if doubled > 0 {
            self.after.discount(left, doubled);
        }
        let Learner { index, entries, heap, lists, threshold, before, after, .. } = self;
        let mut add = |left, right, entry: Entry| {
            let at = entries.len() as u32;
            index.insert(left, right, at);
            heap.push((entry.count, Reverse(pack(left, right)), at));
            entries.push(entry);
        };
        let open = |count| count >= *threshold;
        before.flush(lists, open, |symbol, entry| add(symbol, merged, entry));
        after.flush(lists, open, |symbol, entry| add(merged, symbol, entry));
    }
}

/// Every pair in the words, with its count and its number of places.
struct Tallies {
    index: PairTable,
    entries: Vec<Entry>,
    pairs: Vec<u64>,
}

fn tally_pairs(words: &Words) -> Tallies {
    let mut index = PairTable::with_capacity(1 << 12);
    let mut entries: Vec<Entry> = Vec::new();
    let mut pairs = Vec::new();
    words.for_each_pair(|_, count, (left, right)| {
        let mut at = index.get(left, right);
        if at == NONE {
            at = entries.len() as u32;
            index.insert(left, right, at);
            entries.push(Entry { count: 0, start: 0, places: 0 });
            pairs.push(pack(left, right));
        }
        let entry = &mut entries[at as usize];
        entry.count += count;
        entry.places += 1;
    });
    Tallies { index, entries, pairs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Counts;
    use crate::key::Seeds;
    use std::collections::HashMap;

    fn counts(chunks: &[(Vec<u8>, u64)]) -> Counts {
        let mut counts = Counts::new(Seeds::random());
        for (chunk, count) in chunks {
            counts.add(chunk, *count);
        }
        counts
    }

    /// Reference implementation: recounts all pairs before every merge.
    fn learn_slowly(chunks: &[(Vec<u8>, u64)], wanted: usize) -> Vec<Merge> {
        let mut words: Vec<(Vec<u32>, u64)> = chunks
            .iter()
            .map(|(chunk, count)| (chunk.iter().map(|byte| *byte as u32).collect(), *count))
            .collect();
        let mut merges = Vec::new();
        while merges.len() < wanted {
            let mut pairs: HashMap<Merge, u64> = HashMap::new();
            for (symbols, count) in &words {
                for pair in symbols.windows(2) {
                    *pairs.entry((pair[0], pair[1])).or_default() += count;
                }
            }
            let best = pairs.into_iter().max_by_key(|(pair, count)| (*count, Reverse(*pair)));
            let Some((best, _)) = best else { break };
            let merged = 256 + merges.len() as u32;
            merges.push(best);
            for (symbols, _) in &mut words {
                let mut at = 0;
                while at + 1 < symbols.len() {
                    if (symbols[at], symbols[at + 1]) == best {
                        symbols.splice(at..at + 2, [merged]);
                    }
                    at += 1;
                }
            }
        }
        merges
    }

    #[test]
    fn equal_to_a_recount_before_every_merge() {
        let mut state = 1_u64;
        let mut next = |bound: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % bound
        };
        for letters in [1, 2, 3, 8] {
            for _ in 0..60 {
                let mut chunks: HashMap<Vec<u8>, u64> = HashMap::new();
                for _ in 0..next(30) + 1 {
                    // One chunk in eight is long enough to be linked.
                    let length = if next(8) == 0 { next(150) + 1 } else { next(14) + 1 };
                    let chunk = (0..length).map(|_| b'a' + next(letters) as u8).collect();
                    *chunks.entry(chunk).or_default() += next(40) + 1;
                }
                let chunks: Vec<_> = chunks.into_iter().collect();
                let words = Words::from_counts(&counts(&chunks)).unwrap();
                let learned = learn(words, 200, |_| true).unwrap();
                assert_eq!(learned, learn_slowly(&chunks, 200), "{chunks:?}");
            }
        }
    }

    #[test]
    fn counts_beyond_32_bits_do_not_wrap() {
        let chunks = [(b"ab".to_vec(), 3), (b"cd".to_vec(), 1 << 33), (b"ef".to_vec(), 1 << 32)];
        let words = Words::from_counts(&counts(&chunks)).unwrap();
        let pair = |text: &[u8]| (text[0] as u32, text[1] as u32);
        let learned = learn(words, 3, |_| true).unwrap();
        assert_eq!(learned, [pair(b"cd"), pair(b"ef"), pair(b"ab")]);
    }

    #[test]
    fn the_observer_can_stop() {
        let words = Words::from_counts(&counts(&[(b"abcdef".to_vec(), 1)])).unwrap();
        assert_eq!(learn(words, 5, |done| done < 2), Err(Error::Stopped));
    }
}
