//! The distinct chunks ("words") of a corpus as strings of symbols, which merges shorten.
//!
//! Nearly all words are short; rewriting one costs a cache line. A long word (a page of
//! Chinese without punctuation, a base64 blob) must not be rewritten at each of its merges,
//! so long words are linked lists that change only locally. Together the two kinds keep
//! training linear in the size of the corpus, for any input.

use crate::count::Counts;
use crate::error::{Error, Result};
use crate::linked::{LinkedWords, Sides};
use crate::neighbours::Neighbours;

/// Length of a record before its symbols.
const HEADER: usize = 4;

/// Longest word that is rewritten as a whole.
const MAX_PACKED: usize = 64;

/// Short words are records `[count low, count high, length, room, symbols...]` in one flat
/// array ("packed"), long words are in another ("linked").
///
/// A *place* says where a pair is: below `packed.len()` it is the index of a record; above,
/// less that length, it is the index of a symbol of a linked word. The count of a packed word
/// is next to its symbols, so visiting a word costs one cache line (64 bytes hold 12 symbols).
/// `room` is the number of symbols that the record had when it was written.
#[derive(Debug, Default)]
pub struct Words {
    packed: Vec<u32>,
    linked: LinkedWords,
}

impl Words {
    /// The bytes of every chunk as symbols. Chunks of one byte have no pair and are left out.
    ///
    /// # Errors
    /// More than 2^32 entries, that is 16 GiB of distinct chunks.
    pub fn from_counts(counts: &Counts) -> Result<Self> {
        let (mut packed, mut linked) = (0, 0);
        counts.for_each(|chunk, _| match chunk.len() {
            0..=1 => (),
            length if length <= MAX_PACKED => packed += HEADER + length,
            length => linked += length + 1,
        });
        // `>=`, so that no place equals `u32::MAX`.
        if packed + linked >= u32::MAX as usize {
            return Err(Error::invalid(format!(
                "the distinct chunks need {} entries, the limit is {}",
                packed + linked,
                u32::MAX - 1
            )));
        }
        let mut words =
            Words { packed: Vec::with_capacity(packed), linked: LinkedWords::with_room(linked) };
        counts.for_each(|chunk, count| match chunk.len() {
            0..=1 => (),
            length if length <= MAX_PACKED => words.pack(chunk, count),
            _ => words.linked.push(chunk, count),
        });
        Ok(words)
    }

    fn pack(&mut self, chunk: &[u8], count: u64) {
        let length = chunk.len() as u32;
        self.packed.extend([count as u32, (count >> 32) as u32, length, length]);
        self.packed.extend(chunk.iter().map(|byte| *byte as u32));
    }

    /// Upper bound of the number of merges that are possible in these words.
    pub fn n_symbols(&self) -> usize {
        self.packed.len() + self.linked.len()
    }

    /// Calls `visit(place, count, pair)` for every pair, in ascending order of places.
    pub fn for_each_pair(&self, mut visit: impl FnMut(u32, u64, (u32, u32))) {
        let mut at = 0;
        while let Some(header) = self.packed.get(at..at + HEADER) {
            let (length, room) = (header[2] as usize, header[3] as usize);
            for pair in self.packed[at + HEADER..at + HEADER + length].windows(2) {
                visit(at as u32, count_of(header), (pair[0], pair[1]));
            }
            at += HEADER + room;
        }
        let offset = self.packed.len() as u32;
        self.linked.for_each_pair(|place, count, pair| visit(offset + place, count, pair));
    }

    /// Closes the gaps that merges left, and drops words of one symbol, which have no pair.
    /// Words move, so all places known before become invalid.
    pub fn compact(&mut self) {
        let records = &mut self.packed;
        let (mut read, mut write) = (0, 0);
        while read < records.len() {
            let (length, room) = (records[read + 2] as usize, records[read + 3] as usize);
            if length > 1 {
                records.copy_within(read..read + HEADER + length, write);
                records[write + 3] = length as u32;
                write += HEADER + length;
            }
            read += HEADER + room;
        }
        records.truncate(write);
        self.linked.compact();
    }

    /// Replaces `pair` by `merged` at `place`, if the pair is still there, and notes the
    /// neighbours of each replacement with the word's count. In a packed word all
    /// occurrences are replaced, from left to right.
    ///
    /// `before` gets the left neighbour *after* replacing, so it can be `merged` itself;
    /// `after` gets the right neighbour as it was before replacing.
    #[inline]
    pub fn merge(
        &mut self,
        place: u32,
        pair: (u32, u32),
        merged: u32,
        before: &mut Neighbours,
        after: &mut Neighbours,
    ) {
        let offset = self.packed.len() as u32;
        if place < offset {
            return self.merge_packed(place, pair, merged, before, after);
        }
        let Some(Sides { count, left, right }) = self.linked.merge(place - offset, pair, merged)
        else {
            return;
        };
        if let Some((at, symbol)) = left {
            before.note(symbol, count, offset + at);
        }
        if let Some(symbol) = right {
            after.note(symbol, count, place);
        }
    }

    #[inline]
    fn merge_packed(
        &mut self,
        word: u32,
        (left, right): (u32, u32),
        merged: u32,
        before: &mut Neighbours,
        after: &mut Neighbours,
    ) {
        let (header, rest) = self.packed[word as usize..].split_at_mut(HEADER);
        let count = count_of(header);
        let symbols = &mut rest[..header[2] as usize];
        let (mut read, mut write) = (0, 0);
        while read < symbols.len() {
            let symbol = symbols[read];
            if symbol == left && symbols.get(read + 1) == Some(&right) {
                if write > 0 {
                    before.note(symbols[write - 1], count, word);
                }
                if let Some(next) = symbols.get(read + 2) {
                    after.note(*next, count, word);
                }
                symbols[write] = merged;
                read += 2;
            } else {
                symbols[write] = symbol;
                read += 1;
            }
            write += 1;
        }
        header[2] = write as u32;
    }
}

#[inline(always)]
fn count_of(header: &[u32]) -> u64 {
    header[0] as u64 | (header[1] as u64) << 32
}
