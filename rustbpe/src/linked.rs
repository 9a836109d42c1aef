//! Long words as linked lists, whose symbols never move.
//!
//! A merged symbol stays in the slot of its first byte. The second and the last slot that it
//! covers hold its width, so both neighbours are found without a search:
//!
//! ```text
//! a  b  c  d        merge(b c), merge(bc d):   a  bcd  [3]  [3]
//! ```

/// Marks slots that hold a width instead of a symbol. Symbols are below 2^31.
const WIDTH: u32 = 1 << 31;

/// Separates words.
const WALL: u32 = u32::MAX;

#[derive(Debug, Default)]
pub struct LinkedWords {
    /// The words, each followed by a wall.
    slots: Vec<u32>,
    /// The first slot and the count of each word.
    words: Vec<(u32, u64)>,
}

/// The neighbours of a replacement and the count of its word.
#[derive(Debug, PartialEq, Eq)]
pub struct Sides {
    pub count: u64,
    pub left: Option<(u32, u32)>,
    pub right: Option<u32>,
}

impl LinkedWords {
    pub fn with_room(slots: usize) -> Self {
        LinkedWords { slots: Vec::with_capacity(slots), words: Vec::new() }
    }

    pub fn len(&self) -> usize {
        self.slots.len()
    }

    pub fn push(&mut self, chunk: &[u8], count: u64) {
        self.words.push((self.slots.len() as u32, count));
        self.slots.extend(chunk.iter().map(|byte| *byte as u32));
        self.slots.push(WALL);
    }

    /// Calls `visit(place, count, pair)` for every pair, in ascending order of places.
    pub fn for_each_pair(&self, mut visit: impl FnMut(u32, u64, (u32, u32))) {
        for &(start, count) in &self.words {
            let mut place = start;
            while let Some((next, symbol)) = self.next(place) {
                visit(place, count, (self.slots[place as usize], symbol));
                place = next;
            }
        }
    }

    /// Drops words of one symbol and closes the gaps between symbols.
    pub fn compact(&mut self) {
        let mut write = 0;
        let words = std::mem::take(&mut self.words);
        for (start, count) in words {
            if self.next(start).is_none() {
                continue;
            }
            self.words.push((write as u32, count));
            let mut place = Some((start, self.slots[start as usize]));
            while let Some((at, symbol)) = place {
                // Read the next symbol first: this write can overwrite the slot just read.
                place = self.next(at);
                self.slots[write] = symbol;
                write += 1;
            }
            self.slots[write] = WALL;
            write += 1;
        }
        self.slots.truncate(write);
    }

    /// Replaces `pair` by `merged` at `place`. Returns None if the pair is not there.
    pub fn merge(&mut self, place: u32, pair: (u32, u32), merged: u32) -> Option<Sides> {
        if self.slots[place as usize] != pair.0 {
            return None;
        }
        let (next, symbol) = self.next(place)?;
        if symbol != pair.1 {
            return None;
        }
        let right = self.next(next);
        let end = next + self.width(next);
        let width = WIDTH | (end - place);
        self.slots[place as usize] = merged;
        // Older lists may still name this slot, so it must not look like a symbol any more.
        self.slots[next as usize] = width;
        self.slots[place as usize + 1] = width;
        self.slots[end as usize - 1] = width;
        let word = self.words.partition_point(|(start, _)| *start <= place) - 1;
        let (start, count) = self.words[word];
        let left = (place > start).then(|| self.previous(place));
        Some(Sides { count, left, right: right.map(|(_, symbol)| symbol) })
    }

    fn width(&self, place: u32) -> u32 {
        match self.slots[place as usize + 1] {
            WALL => 1,
            slot if slot & WIDTH != 0 => slot & !WIDTH,
            _ => 1,
        }
    }

    fn next(&self, place: u32) -> Option<(u32, u32)> {
        let next = place + self.width(place);
        let symbol = self.slots[next as usize];
        (symbol != WALL).then_some((next, symbol))
    }

    /// The symbol before `place`, which must not be the first of its word.
    fn previous(&self, place: u32) -> (u32, u32) {
        let slot = self.slots[place as usize - 1];
        let start = if slot & WIDTH != 0 { place - (slot & !WIDTH) } else { place - 1 };
        (start, self.slots[start as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_find_both_neighbours() {
        let mut words = LinkedWords::default();
        words.push(b"xy", 1);
        words.push(b"abcde", 7);
        let id = |byte: u8| byte as u32;
        let sides = |left, right| Some(Sides { count: 7, left, right });
        let a = words.words[1].0;
        assert_eq!(words.merge(a, (id(b'a'), id(b'c')), 256), None);
        let merged = words.merge(a + 1, (id(b'b'), id(b'c')), 256);
        assert_eq!(merged, sides(Some((a, id(b'a'))), Some(id(b'd'))));
        let merged = words.merge(a + 1, (256, id(b'd')), 257);
        assert_eq!(merged, sides(Some((a, id(b'a'))), Some(id(b'e'))));
        assert_eq!(words.merge(a, (id(b'a'), 257), 258), sides(None, Some(id(b'e'))));
        assert_eq!(words.merge(0, (id(b'x'), id(b'y')), 259).unwrap().count, 1);
        words.compact();
        let mut pairs = Vec::new();
        words.for_each_pair(|place, count, pair| pairs.push((place, count, pair)));
        assert_eq!(pairs, [(0, 7, (258, id(b'e')))]);
        assert_eq!(words.merge(0, (258, id(b'e')), 260), sides(None, None));
    }
}
