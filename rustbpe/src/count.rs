//! Counts the distinct chunks in a stream of texts, on several threads.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::error::{Error, Result};
use crate::key::{BytesHash, Key, MAX_SHORT, Seeds};
use crate::split::Splitter;
use crate::table::ShortTable;

/// Bytes of text per batch: large enough to hide the cost of handing it to a worker (a few
/// microseconds), small enough to stay in the L2 cache.
const BATCH_BYTES: usize = 256 << 10;

/// How many chunks are scanned before they are counted; the table's slots load meanwhile.
const PENDING: usize = 64;

/// Documents in one buffer, end to end. Padding lets `Key::new` read past the last one.
#[derive(Debug, Default)]
pub struct TextBatch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl TextBatch {
    /// Adds a copy of the document.
    pub fn push(&mut self, document: &[u8]) {
        self.bytes.extend_from_slice(document);
        self.ends.push(self.bytes.len());
    }

    /// Adds the document that `write` appends to the buffer. On an error adds nothing.
    pub fn push_with<E>(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let start = self.bytes.len();
        if let Err(error) = write(&mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        self.ends.push(self.bytes.len());
        Ok(())
    }

    /// The documents in order.
    pub fn texts(&self) -> impl Iterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let text = &self.bytes[start..*end];
            start = *end;
            text
        })
    }

    /// Removes all documents but keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Total bytes of all documents.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the batch should be handed to a worker now.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

/// The distinct chunks and how often each occurs.
#[derive(Debug)]
pub struct Counts {
    short: ShortTable<u64>,
    long: HashMap<Box<[u8]>, u64, BytesHash>,
    seeds: Seeds,
    /// Chunks that were scanned but not counted yet. Empty between batches.
    pending: Vec<(Key, u64)>,
}

impl Counts {
    pub fn new(seeds: Seeds) -> Self {
        Counts {
            short: ShortTable::with_capacity(1 << 14, seeds),
            long: HashMap::with_hasher(BytesHash(seeds)),
            seeds,
            pending: Vec::with_capacity(PENDING),
        }
    }

    /// Number of distinct chunks.
    pub fn len(&self) -> usize {
        self.short.len() + self.long.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds every chunk of one text. `padded` starts with the text and may be longer.
    fn add_text(&mut self, splitter: &Splitter, text: &str, padded: &[u8]) -> Result<()> {
        splitter.for_each(text, |start, end| {
            if end - start > MAX_SHORT {
                return self.add_long(&padded[start..end], 1);
            }
            let key = Key::new(padded, start, end - start);
            let hash = self.seeds.hash(key);
            self.short.prefetch(hash);
            self.pending.push((key, hash));
            if self.pending.len() == PENDING {
                self.add_pending();
            }
        })
    }

    #[inline(never)]
    fn add_pending(&mut self) {
        for (key, hash) in self.pending.drain(..) {
            *self.short.entry(key, hash) += 1;
        }
    }

    fn add_long(&mut self, chunk: &[u8], count: u64) {
        match self.long.get_mut(chunk) {
            Some(known) => *known += count,
            None => {
                self.long.insert(chunk.into(), count);
            }
        }
    }

    /// Adds `count` occurrences of `chunk`.
    pub fn add(&mut self, chunk: &[u8], count: u64) {
        if chunk.len() > MAX_SHORT {
            self.add_long(chunk, count);
        } else if !chunk.is_empty() {
            let key = Key::new(chunk, 0, chunk.len());
            *self.short.entry(key, self.seeds.hash(key)) += count;
        }
    }

    fn add_batch(&mut self, splitter: &Splitter, mut batch: TextBatch) -> Result<()> {
        let length = batch.bytes.len();
        batch.bytes.resize(length + 16, 0);
        let mut start = 0;
        for end in batch.ends {
            let text = std::str::from_utf8(&batch.bytes[start..end])
                .map_err(|error| Error::invalid(format!("a document is not UTF-8: {error}")))?;
            self.add_text(splitter, text, &batch.bytes[start..])?;
            start = end;
        }
        self.add_pending();
        Ok(())
    }

    fn absorb(&mut self, other: Counts) {
        for slot in other.short.iter() {
            *self.short.entry(slot.key, self.seeds.hash(slot.key)) += slot.value;
        }
        for (chunk, count) in other.long {
            match self.long.get_mut(&chunk) {
                Some(known) => *known += count,
                None => {
                    self.long.insert(chunk, count);
                }
            }
        }
    }

    /// Calls `visit(chunk, count)` for every distinct chunk, in no fixed order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], u64)) {
        for slot in self.short.iter() {
            visit(&slot.key.bytes()[..slot.key.len()], slot.value);
        }
        for (chunk, count) in &self.long {
            visit(chunk, *count);
        }
    }
}

/// Takes batches from the producer of a stream.
pub struct Feed<'f> {
    sender: SyncSender<TextBatch>,
    failed: &'f AtomicBool,
}

impl Feed<'_> {
    /// Hands a batch to the workers; waits while they are behind. Returns false once a
    /// worker has failed: the producer should stop.
    pub fn send(&self, batch: TextBatch) -> bool {
        self.sender.send(batch).is_ok() && !self.failed.load(Ordering::Relaxed)
    }
}

/// Counts the chunks of what `produce` sends, on `threads` workers besides this thread.
///
/// `produce` runs on the calling thread, so it may hold an interpreter lock; the workers
/// never need one. Addition commutes, so the result depends neither on the number of
/// threads nor on how the stream is cut into batches.
///
/// # Errors
/// A worker's error (text that is not UTF-8, or the splitter's), else the producer's own.
pub fn count_stream<E: From<Error>>(
    splitter: &Splitter,
    threads: usize,
    produce: impl FnOnce(&Feed) -> std::result::Result<(), E>,
) -> std::result::Result<Counts, E> {
    let seeds = Seeds::random();
    let failed = AtomicBool::new(false);
    let (sender, receiver) = sync_channel(2 * threads);
    let receiver = Mutex::new(receiver);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| work(splitter, seeds, &receiver, &failed)))
            .collect();
        let feed = Feed { sender, failed: &failed };
        let produced = produce(&feed);
        drop(feed);
        let mut total: Option<Counts> = None;
        let mut worker_error = None;
        for worker in workers {
            match worker.join().expect("a worker returns errors instead of panicking") {
                Err(error) => worker_error = Some(error),
                Ok(counts) => match &mut total {
                    Some(total) => total.absorb(counts),
                    None => total = Some(counts),
                },
            }
        }
        if let Some(error) = worker_error {
            return Err(error.into());
        }
        produced.map(|()| total.unwrap_or_else(|| Counts::new(seeds)))
    })
}

fn work(
    splitter: &Splitter,
    seeds: Seeds,
    receiver: &Mutex<Receiver<TextBatch>>,
    failed: &AtomicBool,
) -> Result<Counts> {
    let mut counts = Counts::new(seeds);
    let mut result = Ok(());
    loop {
        // A failed worker keeps receiving; otherwise the producer could wait forever for
        // room in the queue.
        let received = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(batch) = received else { break };
        if result.is_ok() {
            result = counts.add_batch(splitter, batch);
            if result.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
        }
    }
    result.map(|()| counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split::SPLIT_PATTERN;
    use std::collections::BTreeMap;

    fn counted(threads: usize, documents: &[&str]) -> BTreeMap<Vec<u8>, u64> {
        let splitter = Splitter::new(SPLIT_PATTERN).unwrap();
        let counts = count_stream::<Error>(&splitter, threads, |feed| {
            for document in documents {
                let mut batch = TextBatch::default();
                batch.push(document.as_bytes());
                assert!(feed.send(batch));
            }
            Ok(())
        });
        let mut sorted = BTreeMap::new();
        counts.unwrap().for_each(|chunk, count| {
            sorted.insert(chunk.to_vec(), count);
        });
        sorted
    }

    #[test]
    fn counts_do_not_depend_on_threads() {
        let long = "x".repeat(40);
        let documents = ["the cat", " the the cat\n", &long, "", &long, "\0\0 \0"];
        let one = counted(1, &documents);
        assert_eq!(one[&b" the"[..]], 2);
        assert_eq!(one[long.as_bytes()], 2);
        for threads in 2..5 {
            assert_eq!(counted(threads, &documents), one);
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_an_error() {
        let splitter = Splitter::new(SPLIT_PATTERN).unwrap();
        let counts = count_stream::<Error>(&splitter, 2, |feed| {
            let mut batch = TextBatch::default();
            batch.push(b"\xff");
            feed.send(batch);
            Ok(())
        });
        assert!(counts.unwrap_err().to_string().contains("UTF-8"));
    }
}
