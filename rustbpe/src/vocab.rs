//! The vocabulary: the bytes that each token id stands for.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};

/// The mergeable tokens have the ids `0..n_mergeable`; the special tokens follow in order.
#[derive(Debug)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// Where each token ends in `bytes`.
    ends: Vec<usize>,
    n_mergeable: usize,
}

impl Vocabulary {
    /// # Errors
    /// A token or name that is empty or occurs twice, a single byte without a token, or too
    /// many tokens for 31-bit ids.
    pub fn new(tokens: &[Vec<u8>], specials: &[String]) -> Result<Self> {
        let total = tokens.len() + specials.len();
        if total > i32::MAX as usize {
            return Err(Error::invalid(format!("{total} tokens, the limit is {}", i32::MAX)));
        }
        let mut seen: HashMap<&[u8], usize> = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(Error::invalid(format!(
                    "token {id} is empty; every token needs at least 1 byte"
                )));
            }
            if let Some(other) = seen.insert(token, id) {
                return Err(Error::invalid(format!("tokens {other} and {id} have the same bytes")));
            }
        }
        if let Some(byte) = (0..=255_u8).find(|byte| !seen.contains_key(&[*byte][..])) {
            return Err(Error::invalid(format!(
                "no token for the single byte {byte:#04x}; all 256 are needed"
            )));
        }
        let mut names = HashSet::new();
        for name in specials {
            if name.is_empty() {
                return Err(Error::invalid("a special token's name is empty"));
            }
            if !names.insert(name) {
                return Err(Error::invalid(format!("special token {name:?} is named twice")));
            }
        }
        let mut vocabulary = Vocabulary {
            bytes: Vec::new(),
            ends: Vec::with_capacity(total),
            n_mergeable: tokens.len(),
        };
        let names = specials.iter().map(|name| name.as_bytes());
        for token in tokens.iter().map(Vec::as_slice).chain(names) {
            vocabulary.bytes.extend_from_slice(token);
            vocabulary.ends.push(vocabulary.bytes.len());
        }
        Ok(vocabulary)
    }

    /// Number of tokens, including special tokens.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn n_mergeable(&self) -> usize {
        self.n_mergeable
    }

    /// Bytes of a token (for a special token, of its name). None if the id is out of range.
    #[inline]
    pub fn token(&self, id: usize) -> Option<&[u8]> {
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(&self.bytes[start..end])
    }

    /// The tokens that encoding can emit, in order of their ids.
    pub fn mergeable(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.n_mergeable).filter_map(|id| self.token(id))
    }
}

/// The tokens of a trained vocabulary: the 256 single bytes, then one per merge.
pub fn tokens_of(merges: &[(u32, u32)]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
    for (left, right) in merges {
        tokens.push([&tokens[*left as usize][..], &tokens[*right as usize]].concat());
    }
    tokens
}
