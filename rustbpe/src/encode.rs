//! Text to token ids.

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

/// Ids copied at a time; a rare chunk comes about every sixteenth.
const RUN: usize = 16;

/// What one thread needs to encode.
#[derive(Debug)]
pub struct Scratch {
    probes: Box<[Probe; BATCH]>,
    rares: Box<[Rare; BATCH]>,
    cache: Cache,
    merging: Merging,
}

/// A chunk that is not in its first slot: its place in the batch, and its key and hash
/// for the cache if it is short.
#[derive(Debug, Clone, Copy, Default)]
struct Rare {
    at: usize,
    key: Key,
    hash: u64,
}

#[derive(Debug)]
struct Merging {
    space: Workspace,
    ids: Vec<u32>,
    /// Chunks too long for the cache that took merging; emptied when it is full.
    long: HashMap<Box<[u8]>, Box<[u32]>, BytesHash>,
}

/// Longest chunk in `Merging::long`, and how many: 4 MiB at most.
const LONG_CHUNK: usize = 64;
const LONG_CHUNKS: usize = 1 << 14;

/// Encoder of one vocabulary and pattern; shared by any number of threads.
#[derive(Debug)]
pub struct Encoder {
    pub vocabulary: Vocabulary,
    pub merger: Merger,
    pub splitter: Splitter,
    tokens: TokenTable,
    /// Tokens that do not fit `tokens`.
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

    /// Lends working memory that keeps its cache between calls.
    pub fn with_scratch<R>(&self, run: impl FnOnce(&mut Scratch) -> R) -> R {
        let lent = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = lent.unwrap_or_else(|| Scratch {
            probes: Box::new([Probe::default(); BATCH]),
            rares: Box::new([Rare::default(); BATCH]),
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

    /// Appends the ids of `text`, valid UTF-8; never a special token's.
    ///
    /// O(n) for chunks that are tokens or cached, O(n log n) for the rest.
    ///
    /// # Errors
    /// Those of the splitter, and text that is not UTF-8 (regex engine only).
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

    /// Appends the ids of consecutive chunks, at most `BATCH`, that `ends` and the start
    /// of the first bound.
    ///
    /// In steps over the whole batch, so that what one step loads ahead has come when
    /// the next one needs it, and no step waits for another's mispredicted branches.
    #[inline(always)]
    fn batch<T: Id>(
        &self,
        text: &[u8],
        start: usize,
        ends: &[usize],
        scratch: &mut Scratch,
        out: &mut Vec<T>,
    ) {
        let Scratch { probes, rares, cache, merging } = scratch;
        let mut from = start;
        for (probe, end) in probes.iter_mut().zip(ends) {
            *probe = self.tokens.probe(text, from, end - from);
            from = *end;
        }
        // Longer by a run, so that a whole one can be copied from any place.
        let mut ids = [T::default(); BATCH + RUN];
        let mut n_rares = 0;
        for (at, (id, probe)) in ids.iter_mut().zip(&probes[..ends.len()]).enumerate() {
            let (hit, found) = self.tokens.first(probe);
            *id = T::from_u32(found);
            rares[n_rares % BATCH].at = at;
            n_rares += usize::from(!hit);
        }
        let bounds = |at: usize| (if at == 0 { start } else { ends[at - 1] }, ends[at]);
        for rare in &mut rares[..n_rares] {
            let (from, to) = bounds(rare.at);
            rare.key = Key::new(text, from, (to - from).min(MAX_SHORT));
            rare.hash = self.seeds.hash(rare.key);
            cache.prefetch(rare.hash);
        }
        let mut done = 0;
        for rare in &rares[..n_rares] {
            append(out, &ids, done, rare.at);
            done = rare.at + 1;
            let (from, to) = bounds(rare.at);
            if to - from > MAX_SHORT {
                self.encode_long(&text[from..to], merging, out);
            } else if !cache.append(rare.key, rare.hash, out) {
                self.encode_new(&text[from..to], &probes[rare.at], merging);
                cache.insert(rare.key, rare.hash, &merging.ids);
                out.extend(merging.ids.iter().map(|id| T::from_u32(*id)));
            }
        }
        append(out, &ids, done, ends.len());
    }

    /// Leaves the ids of a chunk of up to 15 bytes in `merging`.
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

/// Appends `ids[from..to]`. Copying whole runs and forgetting the rest takes a few vector
/// moves; a copy of unknown length takes a call.
#[inline(always)]
fn append<T: Id>(out: &mut Vec<T>, ids: &[T; BATCH + RUN], mut from: usize, to: usize) {
    let length = out.len() + to - from;
    while from < to {
        out.extend_from_slice(&ids[from..from + RUN]);
        from += RUN;
    }
    out.truncate(length);
}
