//! Merges one chunk: always the pair of lowest rank, the leftmost if several have it.
//!
//! The rule is tiktoken's: two neighbours may merge if their joined bytes are a token, whose
//! id is the rank of that merge. In a chunk, the parts between two boundaries that remain
//! evolve as they would alone. So a token is only ever made from one particular pair of parts:
//! the last step of merging the token's own bytes. One table entry per token is therefore
//! enough, whatever the order of the ranks (compare the uniqueness argument in the `bpe` crate
//! of GitHub's rust-gems).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::key::{BytesHash, Seeds};
use crate::table::{NONE, PairTable};

type Ids<'t> = HashMap<&'t [u8], u32, BytesHash>;

/// Longer chunks use a heap: O(n log n) instead of O(n²).
const SCAN_LIMIT: usize = 96;

/// The merge rules of a vocabulary.
#[derive(Debug)]
pub struct Merger {
    byte_ids: [u32; 256],
    pairs: PairTable,
}

/// Memory that `Merger::merge` reuses between calls.
#[derive(Debug, Default)]
pub struct Workspace {
    ids: Vec<u32>,
    ranks: Vec<u32>,
    previous: Vec<u32>,
    next: Vec<u32>,
    heap: BinaryHeap<Reverse<u64>>,
}

impl Merger {
    /// The rules of a vocabulary in rank order, which must contain every single byte.
    pub fn new<'t>(tokens: impl Iterator<Item = &'t [u8]> + Clone) -> Self {
        let mut ids = Ids::with_hasher(BytesHash(Seeds::random()));
        ids.extend(tokens.clone().zip(0..));
        let mut pairs = PairTable::with_capacity(ids.len());
        for (token, id) in tokens.clone().zip(0..) {
            if let Some((left, right)) = last_step(token, &ids) {
                pairs.insert(left, right, id);
            }
        }
        let mut byte_ids = [0; 256];
        for byte in 0..=255_u8 {
            byte_ids[byte as usize] = ids.get(&[byte][..]).copied().unwrap_or(NONE);
        }
        Merger { byte_ids, pairs }
    }

    /// `(left id, right id, id)` for each token of two or more bytes, sorted by id. Tokens
    /// that no sequence of merges produces are left out.
    pub fn rules(&self) -> Vec<(u32, u32, u32)> {
        let mut rules: Vec<_> = self.pairs.iter().collect();
        rules.sort_unstable_by_key(|(_, _, id)| *id);
        rules
    }

    /// Calls `emit` with each id of `chunk` (at least one byte), in order.
    pub fn merge(&self, chunk: &[u8], space: &mut Workspace, mut emit: impl FnMut(u32)) {
        if chunk.len() <= SCAN_LIMIT {
            self.merge_by_scan(chunk, space);
            space.ids.iter().for_each(|id| emit(*id));
        } else {
            self.merge_by_heap(chunk, space);
            let mut at = 0;
            while at < chunk.len() {
                emit(space.ids[at]);
                at = space.next[at] as usize;
            }
        }
    }

    fn start(&self, chunk: &[u8], space: &mut Workspace) {
        let ids = chunk.iter().map(|byte| self.byte_ids[*byte as usize]);
        space.ids.clear();
        space.ids.extend(ids);
        space.ranks.clear();
        space.ranks.extend(space.ids.windows(2).map(|pair| self.pairs.get(pair[0], pair[1])));
    }

    fn merge_by_scan(&self, chunk: &[u8], space: &mut Workspace) {
        self.start(chunk, space);
        let Workspace { ids, ranks, .. } = space;
        loop {
            let mut best = NONE;
            let mut at = 0;
            for (place, rank) in ranks.iter().enumerate() {
                if *rank < best {
                    (best, at) = (*rank, place);
                }
            }
            if best == NONE {
                return;
            }
            ids[at] = best;
            ids.remove(at + 1);
            ranks.remove(at);
            if at > 0 {
                ranks[at - 1] = self.pairs.get(ids[at - 1], best);
            }
            if at < ranks.len() {
                ranks[at] = self.pairs.get(best, ids[at + 1]);
            }
        }
    }

    /// A linked list through `previous` and `next`. The heap holds `(rank, place)`; an entry
    /// is valid only while `ranks[place]` equals its rank.
    fn merge_by_heap(&self, chunk: &[u8], space: &mut Workspace) {
        self.start(chunk, space);
        let Workspace { ids, ranks, previous, next, heap } = space;
        let length = chunk.len();
        ranks.push(NONE);
        next.clear();
        next.extend(1..=length as u32);
        previous.clear();
        previous.extend((0..length as u32).map(|at| at.wrapping_sub(1)));
        let mut queue = std::mem::take(heap).into_vec();
        let places = ranks.iter().enumerate().filter(|(_, rank)| **rank != NONE);
        queue.extend(places.map(|(at, rank)| Reverse((*rank as u64) << 32 | at as u64)));
        *heap = BinaryHeap::from(queue);
        while let Some(Reverse(entry)) = heap.pop() {
            let (rank, at) = ((entry >> 32) as u32, entry as u32 as usize);
            if ranks[at] != rank {
                continue;
            }
            let gone = next[at] as usize;
            let follows = next[gone] as usize;
            ids[at] = rank;
            ranks[gone] = NONE;
            next[at] = follows as u32;
            ranks[at] = NONE;
            if follows < length {
                previous[follows] = at as u32;
                ranks[at] = self.pairs.get(rank, ids[follows]);
                if ranks[at] != NONE {
                    heap.push(Reverse((ranks[at] as u64) << 32 | at as u64));
                }
            }
            if at > 0 {
                let before = previous[at] as usize;
                ranks[before] = self.pairs.get(ids[before], rank);
                if ranks[before] != NONE {
                    heap.push(Reverse((ranks[before] as u64) << 32 | before as u64));
                }
            }
        }
    }
}

/// Merges the bytes of `token` by looking up joined bytes, and returns the pair whose merge
/// completes the token. None if merging stops before that.
fn last_step(token: &[u8], ids: &Ids) -> Option<(u32, u32)> {
    let mut starts: Vec<usize> = (0..=token.len()).collect();
    let rank = |starts: &[usize], at: usize| match (starts.get(at), starts.get(at + 2)) {
        (Some(start), Some(end)) => ids.get(&token[*start..*end]).copied().unwrap_or(NONE),
        _ => NONE,
    };
    let mut ranks: Vec<u32> = (0..token.len()).map(|at| rank(&starts, at)).collect();
    while starts.len() > 3 {
        let (at, best) = ranks.iter().enumerate().min_by_key(|(_, rank)| **rank)?;
        if *best == NONE {
            return None;
        }
        starts.remove(at + 1);
        ranks.remove(at + 1);
        ranks[at] = rank(&starts, at);
        if at > 0 {
            ranks[at - 1] = rank(&starts, at - 1);
        }
    }
    let [start, middle, end] = starts[..] else {
        return None;
    };
    Some((*ids.get(&token[start..middle])?, *ids.get(&token[middle..end])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(state: &mut u64, bound: u64) -> u64 {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*state >> 33) % bound
    }

    /// Random tokens in random rank order: many are unreachable, many out of order.
    fn random_tokens(state: &mut u64) -> Vec<Vec<u8>> {
        let mut tokens: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
        for _ in 0..next(state, 60) {
            let length = next(state, 5) + 2;
            let token: Vec<u8> = (0..length).map(|_| b'a' + next(state, 3) as u8).collect();
            if !tokens.contains(&token) {
                tokens.push(token);
            }
        }
        tokens
    }

    /// Reference implementation: the rule applied to byte strings.
    fn merge_slowly(chunk: &[u8], tokens: &[Vec<u8>]) -> Vec<u32> {
        let rank = |bytes: &[u8]| tokens.iter().position(|token| token == bytes);
        let mut parts: Vec<Vec<u8>> = chunk.iter().map(|byte| vec![*byte]).collect();
        loop {
            let joined = parts.windows(2).enumerate();
            let best = joined.filter_map(|(at, pair)| Some((rank(&pair.concat())?, at))).min();
            let Some((_, at)) = best else { break };
            let right = parts.remove(at + 1);
            parts[at].extend(right);
        }
        parts.iter().map(|part| rank(part).unwrap() as u32).collect()
    }

    #[test]
    fn scan_and_heap_follow_the_rule_for_any_vocabulary() {
        let mut state = 7;
        for _ in 0..400 {
            let tokens = random_tokens(&mut state);
            let merger = Merger::new(tokens.iter().map(Vec::as_slice));
            let mut space = Workspace::default();
            for _ in 0..10 {
                let length = next(&mut state, 30) + 1;
                let chunk: Vec<u8> =
                    (0..length).map(|_| b'a' + next(&mut state, 3) as u8).collect();
                let expected = merge_slowly(&chunk, &tokens);
                merger.merge_by_scan(&chunk, &mut space);
                assert_eq!(space.ids, expected);
                merger.merge_by_heap(&chunk, &mut space);
                let (mut at, mut ids) = (0, Vec::new());
                while at < chunk.len() {
                    ids.push(space.ids[at]);
                    at = space.next[at] as usize;
                }
                assert_eq!(ids, expected);
            }
        }
    }
}
