//! Encodes text to token ids.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::block::{BATCH, for_each_batch};
use crate::bpe::{Merger, Workspace};
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::id::Id;
use crate::key::{BytesHash, Key, MAX_SHORT, Seeds};
use crate::split::Splitter;
use crate::token_table::{MAX_ID, MAX_TOKEN, Probe, TokenTable};
use crate::vocab::Vocabulary;

/// Ids copied per step; about every sixteenth chunk misses its first slot.
const RUN: usize = 16;

/// Working memory of one encoding thread.
#[derive(Debug)]
pub struct Scratch {
    probes: Box<[Probe; BATCH]>,
    misses: Box<[Miss; BATCH]>,
    cache: Cache,
    merging: Merging,
}

/// A chunk that its first slot in the token table does not hold: its index in the batch and,
/// if it is short, its key and hash for the cache.
#[derive(Debug, Clone, Copy, Default)]
struct Miss {
    at: usize,
    key: Key,
    hash: u64,
}

#[derive(Debug)]
struct Merging {
    space: Workspace,
    ids: Vec<u32>,
    /// Merged ids of chunks too long for the cache; emptied when it is full.
    long: HashMap<Box<[u8]>, Box<[u32]>, BytesHash>,
}

/// Longest chunk in `Merging::long`, and how many it holds: 4 MiB at most.
const LONG_CHUNK: usize = 64;
const LONG_CHUNKS: usize = 1 << 14;

/// The encoder of one vocabulary and pattern. Any number of threads can share it.
#[derive(Debug)]
pub struct Encoder {
    pub vocabulary: Vocabulary,
    pub merger: Merger,
    pub splitter: Splitter,
    tokens: TokenTable,
    /// Tokens that do not fit in `tokens`.
    longer: HashMap<Box<[u8]>, u32, BytesHash>,
    longest: usize,
    seeds: Seeds,
    idle: Mutex<Vec<Scratch>>,
}

impl Encoder {
    pub fn new(vocabulary: Vocabulary, splitter: Splitter) -> Self {
        let seeds = Seeds::random();
        let fitting = |token: &[u8], id| token.len() <= MAX_TOKEN && id <= MAX_ID;
        let n_fitting = vocabulary.mergeable().filter(|token| token.len() <= MAX_TOKEN).count();
        let mut tokens = TokenTable::with_capacity(n_fitting, seeds);
        let mut longer = HashMap::with_hasher(BytesHash(seeds));
        let mut longest = 0;
        for (token, id) in vocabulary.mergeable().zip(0..) {
            longest = longest.max(token.len());
            if fitting(token, id) {
                tokens.insert(token, id);
            } else {
                longer.insert(token.into(), id);
            }
        }
        let merger =
            Merger::new((0..vocabulary.n_mergeable()).filter_map(|id| vocabulary.token(id)));
        let idle = Mutex::new(Vec::new());
        Encoder { vocabulary, merger, splitter, tokens, longer, longest, seeds, idle }
    }

    /// Runs `run` with working memory whose cache survives between calls.
    pub fn with_scratch<R>(&self, run: impl FnOnce(&mut Scratch) -> R) -> R {
        let lent = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = lent.unwrap_or_else(|| Scratch {
            probes: Box::new([Probe::default(); BATCH]),
            misses: Box::new([Miss::default(); BATCH]),
            cache: Cache::new(self.seeds),
            merging: Merging {
                space: Workspace::default(),
                ids: Vec::new(),
                long: HashMap::with_hasher(BytesHash(self.seeds)),
            },
        });
        let result = run(&mut scratch);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }

    /// Appends the ids of `text`, which must be valid UTF-8. Never emits a special token.
    ///
    /// O(n) for chunks that are tokens or cached, O(n log n) for the others.
    ///
    /// # Errors
    /// The splitter's errors; with the regex engine also text that is not UTF-8.
    pub fn encode<T: Id>(
        &self,
        text: &[u8],
        scratch: &mut Scratch,
        out: &mut Vec<T>,
    ) -> Result<()> {
        match &self.splitter {
            Splitter::Scanner(rules) => {
                for_each_batch(text, *rules, |start, ends| {
                    self.batch(text, start, ends, scratch, out);
                });
                Ok(())
            }
            regex @ Splitter::Regex(_) => {
                let valid = std::str::from_utf8(text)
                    .map_err(|error| Error::invalid(format!("a text is not UTF-8: {error}")))?;
                regex.for_each(valid, |start, end| {
                    self.batch(text, start, &[end], scratch, out);
                })
            }
        }
    }

    /// Appends the ids of at most `BATCH` consecutive chunks. The first begins at `start`;
    /// `ends` has the end of each.
    ///
    /// Each step runs over the whole batch. So whatever one step prefetches has arrived when
    /// the next step needs it, and no step stalls on another's mispredicted branches.
    #[inline(always)]
    fn batch<T: Id>(
        &self,
        text: &[u8],
        start: usize,
        ends: &[usize],
        scratch: &mut Scratch,
        out: &mut Vec<T>,
    ) {
        let Scratch { probes, misses, cache, merging } = scratch;
        let mut from = start;
        for (probe, end) in probes.iter_mut().zip(ends) {
            *probe = self.tokens.probe(text, from, end - from);
            from = *end;
        }
        // One run longer, so that a whole run can be copied from any index.
        let mut ids = [T::default(); BATCH + RUN];
        let mut n_misses = 0;
        for (at, (id, probe)) in ids.iter_mut().zip(&probes[..ends.len()]).enumerate() {
            let (hit, found) = self.tokens.first(probe);
            *id = T::from_u32(found);
            misses[n_misses % BATCH].at = at;
            n_misses += usize::from(!hit);
        }
        let bounds = |at: usize| (if at == 0 { start } else { ends[at - 1] }, ends[at]);
        for miss in &mut misses[..n_misses] {
            let (from, to) = bounds(miss.at);
            miss.key = Key::new(text, from, (to - from).min(MAX_SHORT));
            miss.hash = self.seeds.hash(miss.key);
            cache.prefetch(miss.hash);
        }
        let mut done = 0;
        for miss in &misses[..n_misses] {
            append(out, &ids, done, miss.at);
            done = miss.at + 1;
            let (from, to) = bounds(miss.at);
            if to - from > MAX_SHORT {
                self.encode_long(&text[from..to], merging, out);
            } else if !cache.append(miss.key, miss.hash, out) {
                self.encode_new(&text[from..to], &probes[miss.at], merging);
                cache.insert(miss.key, miss.hash, &merging.ids);
                out.extend(merging.ids.iter().map(|id| T::from_u32(*id)));
            }
        }
        append(out, &ids, done, ends.len());
    }

    /// Writes the ids of a chunk of up to 15 bytes to `merging.ids`.
    #[inline(never)]
    fn encode_new(&self, chunk: &[u8], probe: &Probe, merging: &mut Merging) {
        let Merging { space, ids, .. } = merging;
        ids.clear();
        let known = match chunk.len() {
            ..=MAX_TOKEN => self.tokens.get(probe),
            _ => None,
        };
        match known.or_else(|| self.longer.get(chunk).copied()) {
            Some(id) => ids.push(id),
            None => self.merger.merge(chunk, space, |id| ids.push(id)),
        }
    }

    #[inline(never)]
    fn encode_long<T: Id>(&self, chunk: &[u8], merging: &mut Merging, out: &mut Vec<T>) {
        if chunk.len() <= self.longest
            && let Some(id) = self.longer.get(chunk)
        {
            return out.push(T::from_u32(*id));
        }
        let Merging { space, ids, long } = merging;
        if chunk.len() > LONG_CHUNK {
            return self.merger.merge(chunk, space, |id| out.push(T::from_u32(id)));
        }
        if let Some(ids) = long.get(chunk) {
            return out.extend(ids.iter().map(|id| T::from_u32(*id)));
        }
        ids.clear();
        self.merger.merge(chunk, space, |id| ids.push(id));
        if long.len() >= LONG_CHUNKS {
            long.clear();
        }
        long.insert(chunk.into(), ids[..].into());
        out.extend(ids.iter().map(|id| T::from_u32(*id)));
    }
}

/// Appends `ids[from..to]`. It copies whole runs and cuts the surplus: that takes a few vector
/// moves, while a copy of unknown length takes a function call.
#[inline(always)]
fn append<T: Id>(out: &mut Vec<T>, ids: &[T; BATCH + RUN], mut from: usize, to: usize) {
    let length = out.len() + to - from;
    while from < to {
        out.extend_from_slice(&ids[from..from + RUN]);
        from += RUN;
    }
    out.truncate(length);
}
