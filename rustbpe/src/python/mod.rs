//! The native module `rustbpe._rustbpe`. The Python package adds whatever needs no speed.

mod ids;
mod text;
mod tokenizer;
mod train;

use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::error::Error;
use crate::split::{CL100K_PATTERN, SPLIT_PATTERN, Splitter};

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        match error {
            Error::Invalid(message) => PyValueError::new_err(message),
            Error::Stopped => PyRuntimeError::new_err("stopped"),
        }
    }
}

/// The chunks of `text`, in order. Joined they equal the text.
///
/// O(n) for the two patterns of this module. Raises ValueError for a pattern that does not
/// compile or can match the empty string.
#[pyfunction]
#[pyo3(signature = (text, pattern = SPLIT_PATTERN))]
fn split(text: &str, pattern: &str) -> PyResult<Vec<String>> {
    let chunks = Splitter::new(pattern)?;
    Ok(chunks.split(text)?.into_iter().map(str::to_owned).collect())
}

/// The number of threads to use; 0 requests one per processor.
fn thread_count(requested: i64) -> PyResult<usize> {
    match requested {
        0 => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        1..=1024 => Ok(requested as usize),
        _ => Err(PyValueError::new_err(format!(
            "num_threads {requested} is out of range: 0 (one for each processor) to 1024"
        ))),
    }
}

#[pymodule]
fn _rustbpe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("SPLIT_PATTERN", SPLIT_PATTERN)?;
    module.add("CL100K_PATTERN", CL100K_PATTERN)?;
    module.add_function(wrap_pyfunction!(split, module)?)?;
    module.add_function(wrap_pyfunction!(train::train_texts, module)?)?;
    module.add_function(wrap_pyfunction!(train::train_columns, module)?)?;
    module.add_class::<tokenizer::PyTokenizer>()?;
    module.add_class::<tokenizer::StreamDecoder>()
}
