//! The UTF-8 of Python strings.

use std::ops::Deref;

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString};

use crate::utf8::push_code_points;

/// The UTF-8 of a `str`, usable without the interpreter lock.
pub enum Text {
    Own(PyBackedStr),
    Encoded(PyBackedBytes),
}

impl Text {
    /// ASCII strings are used in place. Others are encoded into a temporary object: if the
    /// string encoded itself, it would keep that copy, and a list of documents would take
    /// twice the caller's memory.
    ///
    /// UTF-8 cannot express surrogates. A surrogate pair becomes its character and a lone
    /// surrogate U+FFFD, as in tiktoken.
    pub fn new(text: &Bound<'_, PyString>) -> PyResult<Text> {
        let py = text.py();
        if is_ascii(text)? {
            return Ok(Text::Own(text.clone().try_into()?));
        }
        let bytes = match text.encode_utf8() {
            Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(py) => {
                without_surrogates(text)?.encode_utf8()?
            }
            other => other?,
        };
        Ok(Text::Encoded(bytes.into()))
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Text::Own(text) => text,
            // CPython's own encoder wrote these bytes; checking them (10 GB/s) avoids `unsafe`.
            Text::Encoded(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        }
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

/// Longer strings (in characters) are not copied code point by code point.
pub const LONG: usize = 1 << 16;

/// Copies the UTF-8 of strings. For text beyond ASCII it goes through code points, which takes
/// half the time of CPython's own encoder and creates no object per string.
#[derive(Default)]
pub struct Copier {
    points: Vec<u32>,
}

impl Copier {
    /// Appends the UTF-8 of `text`. Surrogates are treated as in `Text::new`.
    pub fn append(&mut self, text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
        let length = text.len()?;
        if length > LONG || is_ascii(text)? {
            out.extend_from_slice(Text::new(text)?.as_bytes());
            return Ok(());
        }
        if self.points.len() < length {
            self.points.resize(length, 0);
        }
        let room = self.points.len() as ffi::Py_ssize_t;
        // SAFETY: the interpreter lock is held (`text` is bound) and `text` is a str. The call
        // writes at most `room` elements, all of which are ours, or raises.
        let written =
            unsafe { ffi::PyUnicode_AsUCS4(text.as_ptr(), self.points.as_mut_ptr(), room, 0) };
        if written.is_null() {
            return Err(PyErr::fetch(text.py()));
        }
        push_code_points(&self.points[..length], out);
        Ok(())
    }
}

fn is_ascii(text: &Bound<'_, PyString>) -> PyResult<bool> {
    text.call_method0(intern!(text.py(), "isascii"))?.extract()
}

fn without_surrogates<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = text.py();
    let units = text.call_method1(intern!(py, "encode"), ("utf-16", "surrogatepass"))?;
    let units = units.cast_into::<PyBytes>()?;
    let clean = units.call_method1(intern!(py, "decode"), ("utf-16", "replace"))?;
    Ok(clean.cast_into::<PyString>()?)
}
