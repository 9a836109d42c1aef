//! Tallies the symbols next to the replacements of one merge.

/// A tracked pair: its count, and the run of places where it was when it was found.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub count: u64,
    pub start: usize,
    pub places: u32,
}

/// Marks a symbol that has no list.
const CLOSED: usize = usize::MAX;

#[derive(Debug, Clone, Copy)]
struct Tally {
    count: u64,
    places: u32,
}

/// For one side of a merge: how often each symbol is the neighbour there, weighted by word
/// counts, and where. The arrays are indexed by symbol, so noting a neighbour needs no hash;
/// clearing visits only the symbols that were noted.
#[derive(Debug)]
pub struct Neighbours {
    tallies: Vec<Tally>,
    cursors: Vec<usize>,
    touched: Vec<u32>,
    notes: Vec<(u32, u32)>,
}

impl Neighbours {
    /// For symbols below `symbols`.
    pub fn new(symbols: usize) -> Self {
        Neighbours {
            tallies: vec![Tally { count: 0, places: 0 }; symbols],
            cursors: vec![CLOSED; symbols],
            touched: Vec::new(),
            notes: Vec::new(),
        }
    }

    #[inline(always)]
    pub fn note(&mut self, symbol: u32, count: u64, place: u32) {
        let tally = &mut self.tallies[symbol as usize];
        if tally.places == 0 {
            self.touched.push(symbol);
        }
        tally.count += count;
        tally.places += 1;
        self.notes.push((symbol, place));
    }

    /// Number of replacements next to `symbol`, weighted by word counts.
    pub fn count(&self, symbol: u32) -> u64 {
        self.tallies[symbol as usize].count
    }

    /// Corrects the tally: `count` of the replacements are no longer next to `symbol`.
    pub fn discount(&mut self, symbol: u32, count: u64) {
        self.tallies[symbol as usize].count -= count;
    }

    /// Calls `visit(symbol, count)` for every symbol that was noted.
    pub fn for_each(&self, mut visit: impl FnMut(u32, u64)) {
        for &symbol in &self.touched {
            visit(symbol, self.tallies[symbol as usize].count);
        }
    }

    /// Empties the tally. If `open(count)` holds for a symbol, its places are appended to
    /// `lists` as one run, which `add(symbol, entry)` receives.
    pub fn flush(
        &mut self,
        lists: &mut Vec<u32>,
        open: impl Fn(u64) -> bool,
        mut add: impl FnMut(u32, Entry),
    ) {
        let mut start = lists.len();
        for &symbol in &self.touched {
            let Tally { count, places } = self.tallies[symbol as usize];
            if open(count) {
                add(symbol, Entry { count, start, places });
                self.cursors[symbol as usize] = start;
                start += places as usize;
            }
        }
        lists.resize(start, 0);
        for &(symbol, place) in &self.notes {
            let cursor = &mut self.cursors[symbol as usize];
            if *cursor != CLOSED {
                lists[*cursor] = place;
                *cursor += 1;
            }
        }
        for &symbol in &self.touched {
            self.tallies[symbol as usize] = Tally { count: 0, places: 0 };
            self.cursors[symbol as usize] = CLOSED;
        }
        self.touched.clear();
        self.notes.clear();
    }
}
