//! Converts token ids and ranks between Python and Rust.

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyMapping};

use crate::batch::Part;
use crate::vocab::Vocabulary;

/// The bytes of a sequence of ids. ValueError if an id is out of range.
pub fn bytes_of(vocabulary: &Vocabulary, ids: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut add = |id: i64| {
        let token = vocabulary.token(checked(vocabulary, id)?);
        bytes.extend_from_slice(token.unwrap_or_default());
        Ok(())
    };
    // Read integer arrays through their buffer: ten times faster than element by element.
    let whole = each_of_buffer::<u16>(ids, &mut add)?
        || each_of_buffer::<u32>(ids, &mut add)?
        || each_of_buffer::<i64>(ids, &mut add)?
        || each_of_buffer::<i32>(ids, &mut add)?;
    if !whole {
        for id in ids.try_iter()? {
            add(id?.extract()?)?;
        }
    }
    Ok(bytes)
}

/// Returns false, having added nothing, if `ids` is not a one-dimensional array of `T`.
fn each_of_buffer<T: Element + Into<i64>>(
    ids: &Bound<'_, PyAny>,
    add: &mut impl FnMut(i64) -> PyResult<()>,
) -> PyResult<bool> {
    let Ok(buffer) = PyBuffer::<T>::get(ids) else { return Ok(false) };
    if buffer.dimensions() != 1 {
        return Ok(false);
    }
    for id in buffer.to_vec(ids.py())? {
        add(id.into())?;
    }
    Ok(true)
}

/// The id as an index. ValueError, naming the id and its bounds, if it is out of range.
pub fn checked(vocabulary: &Vocabulary, id: i64) -> PyResult<usize> {
    match usize::try_from(id) {
        Ok(id) if id < vocabulary.len() => Ok(id),
        _ => Err(PyValueError::new_err(format!(
            "id {id} is out of range: 0 to {}",
            vocabulary.len() - 1
        ))),
    }
}

/// The tokens in order of rank, from a mapping of tokens to ranks or a sequence in rank order.
pub fn tokens_in_order(ranks: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<u8>>> {
    let Ok(mapping) = ranks.cast::<PyMapping>() else {
        return ranks.try_iter()?.map(|token| token?.extract()).collect();
    };
    let total = mapping.len()?;
    let mut tokens: Vec<Option<Vec<u8>>> = vec![None; total];
    for item in mapping.items()?.try_iter()? {
        let (token, rank): (Vec<u8>, i64) = item?.extract()?;
        let slot = usize::try_from(rank).ok().and_then(|rank| tokens.get_mut(rank));
        match slot {
            Some(slot @ None) => *slot = Some(token),
            Some(Some(_)) => {
                return Err(PyValueError::new_err(format!("rank {rank} is given twice")));
            }
            None => {
                return Err(PyValueError::new_err(format!(
                    "rank {rank} is out of range: {total} ranks must be 0 to {}",
                    total - 1
                )));
            }
        }
    }
    // There are as many distinct ranks in range as slots, so every slot is filled.
    Ok(tokens.into_iter().flatten().collect())
}

/// Joins parts into raw native integers: all ids, and the offset of each text.
pub fn join<'py, T: Copy, const N: usize>(
    py: Python<'py>,
    parts: &[Part<T>],
    to_bytes: fn(T) -> [u8; N],
) -> PyResult<(Bound<'py, PyByteArray>, Bound<'py, PyByteArray>)> {
    let n_ids: usize = parts.iter().map(|part| part.ids.len()).sum();
    let n_texts: usize = parts.iter().map(|part| part.lengths.len()).sum();
    let ids = PyByteArray::new_with(py, n_ids * N, |mut bytes| {
        for part in parts {
            let (mine, rest) = bytes.split_at_mut(part.ids.len() * N);
            for (slot, id) in mine.chunks_exact_mut(N).zip(&part.ids) {
                slot.copy_from_slice(&to_bytes(*id));
            }
            bytes = rest;
        }
        Ok(())
    })?;
    let offsets = PyByteArray::new_with(py, (n_texts + 1) * 8, |bytes| {
        let lengths = parts.iter().flat_map(|part| &part.lengths);
        let mut offset = 0_i64;
        let ends = lengths.map(|length| {
            offset += *length as i64;
            offset
        });
        for (slot, end) in bytes.chunks_exact_mut(8).zip(std::iter::once(0).chain(ends)) {
            slot.copy_from_slice(&end.to_ne_bytes());
        }
        Ok(())
    })?;
    Ok((ids, offsets))
}
