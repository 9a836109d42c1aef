//! Text to token ids.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::block::for_each_chunk;
use crate::bpe::{Merger, Workspace};
use crate::error::Result;
use crate::key::{BytesHash, Key, MAX_SHORT, Seeds};
use crate::split::Splitter;
use crate::table::ShortTable;
use crate::vocab::Vocabulary;

/// Chunks remembered by one thread; 12 MiB of table when full, then it is emptied.
const CACHE_LIMIT: usize = 1 << 18;

/// Chunks scanned ahead of their look-ups: a mispredicted branch of the scanner then
/// no longer waits for the table, whose slots are fetched meanwhile.
const PENDING: usize = 64;

/// Type of an emitted id; the caller picks one that holds the vocabulary.
pub trait Id: Copy + Send + Sync {
    fn from_u32(id: u32) -> Self;
}

impl Id for u16 {
    fn from_u32(id: u32) -> Self {
        id as u16
    }
}

impl Id for u32 {
    fn from_u32(id: u32) -> Self {
        id
    }
}

/// Chunks that took merging, with the ids they came to.
#[derive(Debug)]
struct Cache {
    /// Start in `ids`, and in the low byte how many.
    places: ShortTable<u64>,
    ids: Vec<u32>,
}

/// Short chunks with their hashes.
type Pending = [(Key, u64); PENDING];

/// What one thread needs to encode.
#[derive(Debug)]
pub struct Scratch {
    pending: Box<Pending>,
    cache: Cache,
    space: Workspace,
}

/// Encoder of one vocabulary and pattern; shared by any number of threads.
#[derive(Debug)]
pub struct Encoder {
    pub vocabulary: Vocabulary,
    pub merger: Merger,
    pub splitter: Splitter,
    short: ShortTable<u32>,
    long: HashMap<Box<[u8]>, u32, BytesHash>,
    longest: usize,
    seeds: Seeds,
    idle: Mutex<Vec<Scratch>>,
}

impl Encoder {
    pub fn new(vocabulary: Vocabulary, splitter: Splitter) -> Self {
        let seeds = Seeds::random();
        let mut short = ShortTable::with_capacity(vocabulary.n_mergeable(), seeds);
        let mut long = HashMap::with_hasher(BytesHash(seeds));
        let mut longest = 0;
        for (token, id) in vocabulary.mergeable().zip(0..) {
            longest = longest.max(token.len());
            if token.len() <= MAX_SHORT {
                let key = Key::new(token, 0, token.len());
                *short.entry(key, seeds.hash(key)) = id;
            } else {
                long.insert(token.into(), id);
            }
        }
        let merger =
            Merger::new((0..vocabulary.n_mergeable()).filter_map(|id| vocabulary.token(id)));
        let idle = Mutex::new(Vec::new());
        Encoder { vocabulary, merger, splitter, short, long, longest, seeds, idle }
    }

    /// Lends working memory that keeps its cache between calls.
    pub fn with_scratch<R>(&self, run: impl FnOnce(&mut Scratch) -> R) -> R {
        let lent = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut scratch = lent.unwrap_or_else(|| Scratch {
            pending: Box::new([(Key::default(), 0); PENDING]),
            cache: Cache {
                places: ShortTable::with_capacity(1 << 10, self.seeds),
                ids: Vec::new(),
            },
            space: Workspace::default(),
        });
        let result = run(&mut scratch);
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        result
    }

    /// Appends the ids of `text`; never a special token's.
    ///
    /// O(n) for chunks that are tokens or cached, O(n log n) for the rest.
    ///
    /// # Errors
    /// Those of the splitter (regex engine only).
    pub fn encode<T: Id>(&self, text: &str, scratch: &mut Scratch, out: &mut Vec<T>) -> Result<()> {
        let bytes = text.as_bytes();
        let mut waiting = 0;
        // Two calls of `chunk`, so that the one of the scanner's loop is inlined.
        let result = match &self.splitter {
            Splitter::Scanner(rules) => {
                for_each_chunk(bytes, *rules, |start, end| {
                    self.chunk(&bytes[start..], end - start, &mut waiting, scratch, out);
                });
                Ok(())
            }
            regex @ Splitter::Regex(_) => regex.for_each(text, |start, end| {
                self.chunk(&bytes[start..], end - start, &mut waiting, scratch, out);
            }),
        };
        self.look_up(waiting, scratch, out);
        result
    }

    /// Takes the chunk of `length` bytes that `bytes` begins with.
    #[inline(always)]
    fn chunk<T: Id>(
        &self,
        bytes: &[u8],
        length: usize,
        waiting: &mut usize,
        scratch: &mut Scratch,
        out: &mut Vec<T>,
    ) {
        if length > MAX_SHORT {
            self.look_up(std::mem::take(waiting), scratch, out);
            return self.encode_long(&bytes[..length], scratch, out);
        }
        let key = Key::new(bytes, 0, length);
        let hash = self.seeds.hash(key);
        self.short.prefetch(hash);
        scratch.pending[*waiting % PENDING] = (key, hash);
        *waiting += 1;
        if *waiting == PENDING {
            self.look_up(std::mem::take(waiting), scratch, out);
        }
    }

    /// Emits the ids of the first `waiting` of the pending chunks.
    #[inline(never)]
    fn look_up<T: Id>(&self, waiting: usize, scratch: &mut Scratch, out: &mut Vec<T>) {
        out.reserve(waiting);
        let Scratch { pending, cache, space } = scratch;
        for (key, hash) in &pending[..waiting] {
            match self.short.get(*key, *hash) {
                Some(id) => out.push(T::from_u32(id)),
                None => self.encode_rare(*key, *hash, cache, space, out),
            }
        }
    }

    /// A short chunk that is not a token.
    #[inline(never)]
    fn encode_rare<T: Id>(
        &self,
        key: Key,
        hash: u64,
        cache: &mut Cache,
        space: &mut Workspace,
        out: &mut Vec<T>,
    ) {
        if let Some(place) = cache.places.get(key, hash) {
            let (start, length) = ((place >> 8) as usize, (place & 0xFF) as usize);
            out.extend(cache.ids[start..start + length].iter().map(|id| T::from_u32(*id)));
            return;
        }
        if cache.places.len() >= CACHE_LIMIT {
            cache.places.clear();
            cache.ids.clear();
        }
        let start = cache.ids.len();
        self.merger.merge(&key.bytes()[..key.len()], space, |id| {
            cache.ids.push(id);
            out.push(T::from_u32(id));
        });
        let length = (cache.ids.len() - start) as u64;
        *cache.places.entry(key, hash) = (start as u64) << 8 | length;
    }

    #[inline(never)]
    fn encode_long<T: Id>(&self, chunk: &[u8], scratch: &mut Scratch, out: &mut Vec<T>) {
        if chunk.len() <= self.longest
            && let Some(id) = self.long.get(chunk)
        {
            out.push(T::from_u32(*id));
            return;
        }
        self.merger.merge(chunk, &mut scratch.space, |id| out.push(T::from_u32(id)));
    }
}
