//! The native parts of `Tokenizer` and `StreamDecoder`.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyIterator, PyList, PyString};

use super::ids;
use super::text::{Copier, LONG, Text};
use super::thread_count;
use crate::batch::{GROUP_BYTES, Part, Shared, Sink, encode_stream};
use crate::count::TextBatch;
use crate::encode::Encoder;
use crate::id::Id;
use crate::split::{SPLIT_PATTERN, Splitter};
use crate::stream::Utf8Stream;
use crate::vocab::Vocabulary;

/// Bytes of text up to which the interpreter lock is kept while encoding: about 20 µs of work.
const SHORT_TEXT: usize = 2048;

#[pyclass(subclass, frozen, name = "Tokenizer", module = "rustbpe._rustbpe")]
pub struct PyTokenizer {
    encoder: Arc<Encoder>,
    pattern: String,
    specials: Vec<String>,
    /// One Python integer per id. All lists of ids share them, which saves an allocation and
    /// 28 bytes per token.
    integers: OnceLock<Vec<Py<PyInt>>>,
}

#[pymethods]
impl PyTokenizer {
    #[new]
    #[pyo3(signature = (mergeable_ranks, *, pattern = SPLIT_PATTERN, special_tokens = Vec::new()))]
    fn new(
        py: Python<'_>,
        mergeable_ranks: &Bound<'_, PyAny>,
        pattern: &str,
        special_tokens: Vec<String>,
    ) -> PyResult<Self> {
        let tokens = ids::tokens_in_order(mergeable_ranks)?;
        let splitter = Splitter::new(pattern)?;
        let vocabulary = Vocabulary::new(&tokens, &special_tokens)?;
        let encoder = py.detach(|| Arc::new(Encoder::new(vocabulary, splitter)));
        Ok(PyTokenizer {
            encoder,
            pattern: pattern.to_owned(),
            specials: special_tokens,
            integers: OnceLock::new(),
        })
    }

    /// Number of ids, including special tokens.
    #[getter]
    fn vocab_size(&self) -> usize {
        self.encoder.vocabulary.len()
    }

    /// Number of ids that `encode` can return.
    #[getter]
    fn n_mergeable(&self) -> usize {
        self.encoder.vocabulary.n_mergeable()
    }

    /// The split pattern.
    #[getter]
    fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The special tokens and their ids, which follow the mergeable ones.
    #[getter]
    fn special_tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let names = PyDict::new(py);
        for (at, name) in self.specials.iter().enumerate() {
            names.set_item(name, self.n_mergeable() + at)?;
        }
        Ok(names)
    }

    /// The ids of a text. The name of a special token in it is ordinary text.
    ///
    /// O(n); O(n log n) inside a chunk that is longer than the longest token.
    fn encode<'py>(
        &self,
        py: Python<'py>,
        text: &Bound<'py, PyString>,
    ) -> PyResult<Bound<'py, PyList>> {
        let text = Text::new(text)?;
        let run = || {
            let mut ids = Vec::with_capacity(text.len() / 4 + 1);
            self.encoder.with_scratch(|scratch| {
                self.encoder.encode::<u32>(text.as_bytes(), scratch, &mut ids)
            })?;
            Ok::<_, PyErr>(ids)
        };
        let ids = if text.len() <= SHORT_TEXT { run() } else { py.detach(run) }?;
        self.list(py, &ids)
    }

    /// The ids of each text, encoded on `num_threads` threads (0: one per processor).
    #[pyo3(signature = (texts, *, num_threads = 0))]
    fn encode_batch<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        num_threads: i64,
    ) -> PyResult<Bound<'py, PyList>> {
        let parts = self.encode_parts::<u32>(py, texts, None, num_threads)?;
        let lists = PyList::empty(py);
        for part in parts {
            let mut start = 0;
            for length in part.lengths {
                lists.append(self.list(py, &part.ids[start..start + length])?)?;
                start += length;
            }
        }
        Ok(lists)
    }

    /// The ids of all texts, end to end, and the offset of each text, as raw native integers.
    /// Ids take 2 bytes if `vocab_size` <= 65536, else 4. Offsets take 8.
    fn _encode_flat<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        bos: Option<i64>,
        num_threads: i64,
    ) -> PyResult<(Bound<'py, PyByteArray>, Bound<'py, PyByteArray>)> {
        let bos = bos
            .map(|id| ids::checked(&self.encoder.vocabulary, id))
            .transpose()?
            .map(|id| id as u32);
        if self.vocab_size() <= 1 << 16 {
            let parts = self.encode_parts(py, texts, bos.map(u16::from_u32), num_threads)?;
            ids::join(py, &parts, u16::to_ne_bytes)
        } else {
            let parts = self.encode_parts(py, texts, bos, num_threads)?;
            ids::join(py, &parts, u32::to_ne_bytes)
        }
    }

    /// The bytes of a sequence of ids. A special token stands for the bytes of its name.
    ///
    /// Raises ValueError for an id out of range. O(total bytes).
    fn decode_bytes<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &ids::bytes_of(&self.encoder.vocabulary, ids)?))
    }

    /// The text of a sequence of ids.
    ///
    /// Raises ValueError for an id out of range, and UnicodeDecodeError if the bytes are not
    /// UTF-8, unless `errors` names another error handler of `bytes.decode`.
    #[pyo3(signature = (ids, errors = "strict"))]
    fn decode<'py>(
        &self,
        py: Python<'py>,
        ids: &Bound<'py, PyAny>,
        errors: &str,
    ) -> PyResult<Bound<'py, PyString>> {
        let bytes = ids::bytes_of(&self.encoder.vocabulary, ids)?;
        if let Ok(text) = std::str::from_utf8(&bytes) {
            return Ok(PyString::new(py, text));
        }
        let bytes = PyBytes::new(py, &bytes);
        let text = bytes.call_method1(intern!(py, "decode"), ("utf-8", errors))?;
        Ok(text.cast_into()?)
    }

    /// The bytes of one id; for a special token, those of its name.
    fn token_bytes<'py>(&self, py: Python<'py>, id: i64) -> PyResult<Bound<'py, PyBytes>> {
        let id = ids::checked(&self.encoder.vocabulary, id)?;
        Ok(PyBytes::new(py, self.encoder.vocabulary.token(id).unwrap_or_default()))
    }

    /// The mergeable tokens and their ids, in order of ids.
    fn mergeable_ranks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ranks = PyDict::new(py);
        for (id, token) in self.encoder.vocabulary.mergeable().enumerate() {
            ranks.set_item(PyBytes::new(py, token), id)?;
        }
        Ok(ranks)
    }

    /// The mergeable tokens in order of ids.
    fn _tokens<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let tokens: Vec<_> = self.encoder.vocabulary.mergeable().collect();
        PyList::new(py, tokens.into_iter().map(|token| PyBytes::new(py, token)))
    }

    /// `(left id, right id, id)` of every token that merging can produce, in order of ids.
    fn _merge_rules(&self) -> Vec<(u32, u32, u32)> {
        self.encoder.merger.rules()
    }

    /// A decoder for ids that arrive one at a time.
    fn stream_decoder(&self) -> StreamDecoder {
        StreamDecoder { encoder: self.encoder.clone(), stream: Mutex::default() }
    }

    fn __repr__(&self) -> String {
        let specials = self.specials.len();
        format!("Tokenizer(n_mergeable={}, special_tokens={specials})", self.n_mergeable())
    }
}

impl PyTokenizer {
    fn list<'py>(&self, py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyList>> {
        let integers = self
            .integers
            .get_or_init(|| (0..self.vocab_size()).map(|id| PyInt::new(py, id).unbind()).collect());
        PyList::new(py, ids.iter().map(|id| integers[*id as usize].bind(py)))
    }

    fn encode_parts<T: Id>(
        &self,
        py: Python<'_>,
        texts: &Bound<'_, PyAny>,
        first: Option<T>,
        num_threads: i64,
    ) -> PyResult<Vec<Part<T>>> {
        let threads = thread_count(num_threads)?;
        if texts.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("texts is a str; expected a sequence of str"));
        }
        let texts = texts.try_iter()?.unbind();
        py.detach(|| {
            encode_stream(&self.encoder, first, threads, |sink| {
                Python::attach(|py| send_texts(py, texts.bind(py), sink))
            })
        })
    }
}

fn send_texts<T: Id>(
    py: Python<'_>,
    texts: &Bound<'_, PyIterator>,
    sink: &mut Sink<'_, '_, T>,
) -> PyResult<()> {
    let (mut batch, mut copier) = (TextBatch::default(), Copier::default());
    for (at, text) in texts.clone().enumerate() {
        let text = text?;
        let text = text.cast::<PyString>().map_err(|_| {
            let kind = text.get_type();
            PyTypeError::new_err(format!("texts[{at}] is a {kind}; expected a str"))
        })?;
        if text.len()? > LONG {
            let text: Shared = Arc::new(Text::new(text)?);
            py.detach(|| {
                sink.send(&mut batch);
                sink.send_text(&text);
            });
            py.check_signals()?;
            continue;
        }
        batch.push_with(|bytes| copier.append(text, bytes))?;
        if batch.size() >= GROUP_BYTES {
            py.detach(|| sink.send(&mut batch));
            py.check_signals()?;
        }
    }
    py.detach(|| sink.send(&mut batch));
    Ok(())
}

/// Turns ids that arrive one at a time into text; holds back incomplete characters.
///
/// The joined results of `push` and `finish` equal `decode(ids, "replace")`.
#[pyclass(frozen, module = "rustbpe._rustbpe")]
pub struct StreamDecoder {
    encoder: Arc<Encoder>,
    stream: Mutex<Utf8Stream>,
}

#[pymethods]
impl StreamDecoder {
    /// The characters that this id completes, possibly none.
    ///
    /// Raises ValueError for an id out of range; the decoder stays usable.
    fn push(&self, id: i64) -> PyResult<String> {
        let vocabulary = &self.encoder.vocabulary;
        let bytes = vocabulary.token(ids::checked(vocabulary, id)?).unwrap_or_default();
        Ok(self.stream.lock().unwrap_or_else(PoisonError::into_inner).push(bytes))
    }

    /// U+FFFD if a character is incomplete, else the empty string. Resets the decoder.
    fn finish(&self) -> String {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner).finish()
    }
}
