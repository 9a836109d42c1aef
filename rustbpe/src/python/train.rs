//! Trains from Python iterators and from Arrow string columns.

use std::time::{Duration, Instant};

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use super::text::Copier;
use super::thread_count;
use crate::count::{Counts, Feed, TextBatch, count_stream};
use crate::error::Error;
use crate::merge::learn;
use crate::split::Splitter;
use crate::vocab::tokens_of;
use crate::words::Words;

/// Longest time for which a signal goes unnoticed while no Python code runs.
const SIGNAL_PERIOD: Duration = Duration::from_millis(50);

/// The tokens learnt from an iterable of strings, in order of ids.
#[pyfunction]
pub fn train_texts<'py>(
    py: Python<'py>,
    texts: Bound<'py, PyAny>,
    vocab_size: i64,
    pattern: &str,
    num_threads: i64,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    if texts.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("texts is a str; expected an iterable of str"));
    }
    let texts = texts.try_iter()?.unbind();
    train(py, vocab_size, pattern, num_threads, progress, |py, feed| {
        let (mut batch, mut copier) = (TextBatch::default(), Copier::default());
        for (at, text) in texts.bind(py).clone().enumerate() {
            let text = text?;
            let text = text.cast::<PyString>().map_err(|_| {
                let kind = text.get_type();
                PyTypeError::new_err(format!("texts[{at}] is a {kind}; expected a str"))
            })?;
            batch.push_with(|bytes| copier.append(text, bytes))?;
            if batch.is_full() && !send(py, feed, std::mem::take(&mut batch))? {
                return Ok(());
            }
        }
        send(py, feed, batch).map(drop)
    })
}

/// The tokens learnt from Arrow string columns, in order of ids.
///
/// Each item of `columns` is `(offsets, data, first, rows)`: the int32 offsets and the UTF-8
/// of a string array, and the slice of it to use. Documents are cut after `doc_cap`
/// characters. The document that reaches `max_chars` in total is the last.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "one call of the package's own")]
pub fn train_columns<'py>(
    py: Python<'py>,
    columns: Bound<'py, PyAny>,
    vocab_size: i64,
    max_chars: Option<i64>,
    doc_cap: Option<i64>,
    pattern: &str,
    num_threads: i64,
    progress: Option<Py<PyAny>>,
) -> PyResult<Bound<'py, PyList>> {
    let mut chars_left = positive("max_chars", max_chars)?;
    let doc_cap = positive("doc_cap", doc_cap)?;
    let columns = columns.try_iter()?.unbind();
    train(py, vocab_size, pattern, num_threads, progress, |py, feed| {
        let mut batch = TextBatch::default();
        for column in columns.bind(py).clone() {
            let (offsets, data, first, rows) = column?.extract()?;
            for document in Rows::new(py, &offsets, &data, first, rows)?.iter() {
                let (bytes, chars) = crop(document, doc_cap);
                batch.push(bytes);
                chars_left = chars_left.saturating_sub(chars);
                if batch.is_full() && !send(py, feed, std::mem::take(&mut batch))? {
                    return Ok(());
                }
                if chars_left == 0 {
                    return send(py, feed, batch).map(drop);
                }
            }
        }
        send(py, feed, batch).map(drop)
    })
}

fn positive(name: &str, value: Option<i64>) -> PyResult<usize> {
    match value {
        None => Ok(usize::MAX),
        Some(value) if value >= 1 => Ok(value as usize),
        Some(value) => Err(PyValueError::new_err(format!("{name} {value} is below 1"))),
    }
}

/// A slice of a string column, copied out of Arrow's memory.
struct Rows {
    data: Vec<u8>,
    bounds: Vec<usize>,
}

impl Rows {
    /// # Errors
    /// Offsets that decrease or point outside the data.
    fn new(
        py: Python<'_>,
        offsets: &PyBuffer<u8>,
        data: &PyBuffer<u8>,
        first: usize,
        rows: usize,
    ) -> PyResult<Self> {
        let (offsets, data) = (offsets.to_vec(py)?, data.to_vec(py)?);
        let bounds = offsets.get(4 * first..4 * (first + rows + 1)).unwrap_or_default();
        let bounds: Vec<usize> = bounds
            .chunks_exact(4)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]) as usize)
            .collect();
        if bounds.last().is_none_or(|end| *end > data.len()) || !bounds.is_sorted() {
            return Err(PyValueError::new_err(
                "the offsets of an Arrow string column decrease or point outside its data",
            ));
        }
        Ok(Rows { data, bounds })
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.bounds.windows(2).map(|pair| &self.data[pair[0]..pair[1]])
    }
}

/// The first `cap` characters of a document, and their number.
fn crop(document: &[u8], cap: usize) -> (&[u8], usize) {
    let starts = |byte: &u8| (*byte as i8) >= -0x40;
    let chars = document.iter().filter(|byte| starts(byte)).count();
    if chars <= cap {
        return (document, chars);
    }
    let starting = document.iter().enumerate().filter(|(_, byte)| starts(byte));
    let end = starting.map(|(at, _)| at).nth(cap).unwrap_or(document.len());
    (&document[..end], cap)
}

fn send(py: Python<'_>, feed: &Feed<'_>, batch: TextBatch) -> PyResult<bool> {
    py.check_signals()?;
    Ok(batch.is_empty() || py.detach(|| feed.send(batch)))
}

fn train<'py>(
    py: Python<'py>,
    vocab_size: i64,
    pattern: &str,
    num_threads: i64,
    progress: Option<Py<PyAny>>,
    produce: impl FnOnce(Python<'_>, &Feed<'_>) -> PyResult<()> + Send,
) -> PyResult<Bound<'py, PyList>> {
    let threads = thread_count(num_threads)?;
    let wanted = merges_for(vocab_size)?;
    let splitter = Splitter::new(pattern)?;
    let mut observer = Observer::new(progress, wanted);
    let tokens = py.detach(|| {
        let counts =
            count_stream(&splitter, threads, |feed| Python::attach(|py| produce(py, feed)))?;
        let merges = learn_from(counts, wanted, &mut observer)?;
        if merges.len() < wanted {
            return Err(PyValueError::new_err(format!(
                "vocab_size {vocab_size} is more than this text can fill: {} tokens \
                 (256 bytes and {} merges)",
                256 + merges.len(),
                merges.len()
            )));
        }
        observer.finish()?;
        Ok(tokens_of(&merges))
    })?;
    PyList::new(py, tokens.iter().map(|token| PyBytes::new(py, token)))
}

fn merges_for(vocab_size: i64) -> PyResult<usize> {
    match vocab_size {
        256..=0x7FFF_FFFF => Ok(vocab_size as usize - 256),
        ..256 => Err(PyValueError::new_err(format!(
            "vocab_size {vocab_size} is below 256, the number of single bytes"
        ))),
        _ => Err(PyValueError::new_err(format!(
            "vocab_size {vocab_size} is above the limit of {}",
            i32::MAX
        ))),
    }
}

fn learn_from(counts: Counts, wanted: usize, observer: &mut Observer) -> PyResult<Vec<(u32, u32)>> {
    if counts.is_empty() {
        return Err(PyValueError::new_err("the corpus is empty: at least 1 character is needed"));
    }
    let words = Words::from_counts(&counts)?;
    drop(counts);
    match learn(words, wanted, |done| observer.observe(done)) {
        Err(Error::Stopped) => Err(observer.take_error()),
        other => Ok(other?),
    }
}

/// Handles signals and the progress callback while no Python code runs.
struct Observer {
    progress: Option<Py<PyAny>>,
    total: usize,
    step: usize,
    checked: Instant,
    error: Option<PyErr>,
}

impl Observer {
    fn new(progress: Option<Py<PyAny>>, total: usize) -> Self {
        let step = (total / 100).max(1);
        Observer { progress, total, step, checked: Instant::now(), error: None }
    }

    fn observe(&mut self, done: usize) -> bool {
        let report = self.progress.is_some() && done.is_multiple_of(self.step);
        if report || self.checked.elapsed() >= SIGNAL_PERIOD {
            self.checked = Instant::now();
            let called = Python::attach(|py| {
                py.check_signals()?;
                if report { self.report(py, done) } else { Ok(()) }
            });
            self.error = called.err();
        }
        self.error.is_none()
    }

    fn report(&self, py: Python<'_>, done: usize) -> PyResult<()> {
        match &self.progress {
            Some(progress) => progress.call1(py, (done, self.total)).map(drop),
            None => Ok(()),
        }
    }

    fn finish(&self) -> PyResult<()> {
        Python::attach(|py| self.report(py, self.total))
    }

    fn take_error(&mut self) -> PyErr {
        self.error.take().unwrap_or_else(|| Error::Stopped.into())
    }
}
