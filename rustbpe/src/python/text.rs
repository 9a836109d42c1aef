//! UTF-8 of Python strings.

use std::ops::Deref;

use pyo3::exceptions::PyUnicodeEncodeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString};

/// UTF-8 of a `str` that stays valid without the interpreter lock.
pub enum Text {
    Own(PyBackedStr),
    Encoded(PyBackedBytes),
}

impl Text {
    /// ASCII strings are used where they lie. Others are encoded into a temporary:
    /// asking the string itself would leave a copy attached to the caller's object,
    /// which for a list of documents doubles the memory of the caller.
    ///
    /// Surrogates, which UTF-8 has no bytes for, are paired where they pair and
    /// otherwise become U+FFFD, as in tiktoken.
    pub fn new(text: &Bound<'_, PyString>) -> PyResult<Text> {
        let py = text.py();
        if text.call_method0(intern!(py, "isascii"))?.extract()? {
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
            // Written by CPython's own encoder; the check costs 10 GB/s and no proof.
            Text::Encoded(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
        }
    }
}

fn without_surrogates<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = text.py();
    let units = text.call_method1(intern!(py, "encode"), ("utf-16", "surrogatepass"))?;
    let units = units.cast_into::<PyBytes>()?;
    let clean = units.call_method1(intern!(py, "decode"), ("utf-16", "replace"))?;
    Ok(clean.cast_into::<PyString>()?)
}
