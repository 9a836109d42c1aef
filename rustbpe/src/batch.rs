//! Encodes a stream of texts on several threads.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};

use crate::count::TextBatch;
use crate::encode::{Encoder, Scratch};
use crate::error::{Error, Result};
use crate::id::Id;

/// Bytes of text handed to a thread at a time. That is 0.2 ms of work, far more than the
/// hand-over costs, and small enough to stay in the cache between the copy and the look-ups.
pub const GROUP_BYTES: usize = 64 << 10;

/// Ids of consecutive texts, end to end, and the number of ids of each text.
#[derive(Debug)]
pub struct Part<T> {
    pub ids: Vec<T>,
    pub lengths: Vec<usize>,
}

/// A text that is shared between threads instead of copied.
pub type Shared = Arc<dyn AsRef<str> + Send + Sync>;

/// Encodes the texts that `produce` sends, in order, with `first` (a BOS id) before each.
///
/// `produce` runs on the calling thread, so it may hold an interpreter lock; `threads`
/// includes that thread. O(total bytes).
///
/// # Errors
/// The splitter's error for the earliest text that has one, else the producer's own error.
pub fn encode_stream<T: Id, E: From<Error>>(
    encoder: &Encoder,
    first: Option<T>,
    threads: usize,
    produce: impl FnOnce(&mut Sink<'_, '_, T>) -> std::result::Result<(), E>,
) -> std::result::Result<Vec<Part<T>>, E> {
    thread::scope(|scope| {
        let mut sink = Sink {
            encoder,
            first,
            scope,
            others: threads.saturating_sub(1),
            sender: None,
            workers: Vec::new(),
            outcomes: Vec::new(),
            sent: 0,
        };
        let produced = produce(&mut sink);
        let parts = sink.finish()?;
        produced.map(|()| parts)
    })
}

/// Work for one thread: consecutive texts, or a piece of one text.
enum Work {
    Texts(TextBatch),
    /// `text[start..end]`. If `start` is not 0, it continues the piece sent before it.
    Piece {
        text: Shared,
        start: usize,
        end: usize,
    },
}

struct Job {
    at: usize,
    work: Work,
}

/// The result of the jobs `from..to`.
struct Outcome<T> {
    from: usize,
    to: usize,
    continues: bool,
    part: Result<Part<T>>,
}

/// Takes texts from the producer.
pub struct Sink<'scope, 'env, T> {
    encoder: &'env Encoder,
    first: Option<T>,
    scope: &'scope Scope<'scope, 'env>,
    others: usize,
    sender: Option<SyncSender<Job>>,
    workers: Vec<ScopedJoinHandle<'scope, Vec<Outcome<T>>>>,
    outcomes: Vec<Outcome<T>>,
    sent: usize,
}

impl<T: Id> Sink<'_, '_, T> {
    /// Encodes a batch, on this thread or another one, and leaves an empty batch in its place.
    pub fn send(&mut self, batch: &mut TextBatch) {
        if batch.is_empty() {
            return;
        }
        if let Some(Work::Texts(mut emptied)) = self.submit(Work::Texts(std::mem::take(batch))) {
            emptied.clear();
            *batch = emptied;
        }
    }

    /// Encodes one text of any size without copying it. A large text is split over threads.
    pub fn send_text(&mut self, text: &Shared) {
        let whole = (**text).as_ref();
        let mut start = 0;
        loop {
            let cut = (self.others > 0 && whole.len() - start > 2 * GROUP_BYTES)
                .then(|| self.encoder.splitter.cut(whole, start + GROUP_BYTES))
                .flatten();
            let end = cut.unwrap_or(whole.len());
            self.submit(Work::Piece { text: text.clone(), start, end });
            start = end;
            if cut.is_none() {
                return;
            }
        }
    }

    /// Hands the work to another thread and returns None, or does it here and returns it.
    /// It is done here if it is the first, and while the other threads' queue is full.
    fn submit(&mut self, work: Work) -> Option<Work> {
        let mut job = Job { at: self.sent, work };
        self.sent += 1;
        if self.others > 0 && job.at > 0 {
            if self.sender.is_none() {
                self.start();
            }
            match self.sender.as_ref().map(|sender| sender.try_send(job)) {
                Some(Err(TrySendError::Full(back) | TrySendError::Disconnected(back))) => {
                    job = back;
                }
                _ => return None,
            }
        }
        let Sink { encoder, first, outcomes, .. } = self;
        encoder.with_scratch(|scratch| run(encoder, *first, &job, scratch, outcomes));
        Some(job.work)
    }

    fn start(&mut self) {
        let (sender, receiver) = sync_channel(2 * self.others);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..self.others {
            let (encoder, first, receiver) = (self.encoder, self.first, receiver.clone());
            self.workers.push(self.scope.spawn(move || work(encoder, first, &receiver)));
        }
        self.sender = Some(sender);
    }

    fn finish(mut self) -> Result<Vec<Part<T>>> {
        drop(self.sender);
        for worker in self.workers {
            self.outcomes
                .extend(worker.join().expect("a worker returns errors instead of panicking"));
        }
        self.outcomes.sort_unstable_by_key(|outcome| outcome.from);
        let mut joined: Vec<Part<T>> = Vec::with_capacity(self.outcomes.len());
        for outcome in self.outcomes {
            let part = outcome.part?;
            match joined.last_mut() {
                Some(before) if outcome.continues => before.extend_last(&part),
                _ => joined.push(part),
            }
        }
        Ok(joined)
    }
}

fn work<T: Id>(
    encoder: &Encoder,
    first: Option<T>,
    receiver: &Mutex<Receiver<Job>>,
) -> Vec<Outcome<T>> {
    let mut outcomes = Vec::new();
    encoder.with_scratch(|scratch| {
        loop {
            let received = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = received else { break };
            run(encoder, first, &job, scratch, &mut outcomes);
        }
    });
    outcomes
}

/// Does a job. Consecutive jobs of one thread share a part, so fewer parts are joined later.
fn run<T: Id>(
    encoder: &Encoder,
    first: Option<T>,
    job: &Job,
    scratch: &mut Scratch,
    outcomes: &mut Vec<Outcome<T>>,
) {
    if let Some(Outcome { to, part: Ok(part), .. }) = outcomes.last_mut()
        && *to == job.at
    {
        *to += 1;
        match encode_work(encoder, first, &job.work, scratch, part) {
            Ok(()) => return,
            Err(error) => return outcomes.extend([failed(job.at, error)]),
        }
    }
    let mut part = Part { ids: Vec::new(), lengths: Vec::new() };
    let part = encode_work(encoder, first, &job.work, scratch, &mut part).map(|()| part);
    let continues = matches!(job.work, Work::Piece { start: 1.., .. });
    outcomes.push(Outcome { from: job.at, to: job.at + 1, continues, part });
}

fn failed<T>(at: usize, error: Error) -> Outcome<T> {
    Outcome { from: at, to: at + 1, continues: false, part: Err(error) }
}

fn encode_work<T: Id>(
    encoder: &Encoder,
    first: Option<T>,
    work: &Work,
    scratch: &mut Scratch,
    part: &mut Part<T>,
) -> Result<()> {
    let Part { ids, lengths } = part;
    match work {
        Work::Texts(batch) => {
            for text in batch.texts() {
                let start = ids.len();
                ids.extend(first);
                encoder.encode(text, scratch, ids)?;
                lengths.push(ids.len() - start);
            }
        }
        Work::Piece { text, start: from, end } => {
            let start = ids.len();
            if *from == 0 {
                ids.extend(first);
            }
            encoder.encode(&(**text).as_ref().as_bytes()[*from..*end], scratch, ids)?;
            match lengths.last_mut() {
                Some(length) if *from > 0 => *length += ids.len() - start,
                _ => lengths.push(ids.len() - start),
            }
        }
    }
    Ok(())
}

impl<T: Id> Part<T> {
    /// Appends a part whose first text continues the last text of this one.
    fn extend_last(&mut self, rest: &Part<T>) {
        self.ids.extend_from_slice(&rest.ids);
        if let (Some(length), Some((more, others))) =
            (self.lengths.last_mut(), rest.lengths.split_first())
        {
            *length += more;
            self.lengths.extend_from_slice(others);
        }
    }
}
