//! Token ids and the bytes they stand for.

use std::collections::{HashMap, HashSet};

use crate::error::{Error, Result};

/// Mergeable tokens `0..n_mergeable`, then the special tokens in order.
#[derive(Debug)]
pub struct Vocabulary {
    bytes: Vec<u8>,
    /// End of each token in `bytes`.
    ends: Vec<usize>,
    n_mergeable: usize,
}

impl Vocabulary {
    /// # Errors
    /// An empty token or name, one that occurs twice, a missing single byte, too
    /// many tokens for 31-bit ids.
    pub fn new(tokens: &[Vec<u8>], specials: &[String]) -> Result<Self> {
        let total = tokens.len() + specials.len();
        if total > i32::MAX as usize {
            return Err(Error::invalid(format!("{total} tokens, the limit is {}", i32::MAX)));
        }
        let mut seen: HashMap<&[u8], usize> = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if token.is_empty() {
                return Err(Error::invalid(format!("token {id} is empty; 1 byte is the least")));
            }
            if let Some(other) = seen.insert(token, id) {
                return Err(Error::invalid(format!("tokens {other} and {id} are the same bytes")));
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

    /// Number of tokens, special ones included.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn n_mergeable(&self) -> usize {
        self.n_mergeable
    }

    /// Bytes of a token (a special token's name), if the id is in range.
    #[inline]
    pub fn token(&self, id: usize) -> Option<&[u8]> {
        let end = *self.ends.get(id)?;
        let start = if id == 0 { 0 } else { self.ends[id - 1] };
        Some(&self.bytes[start..end])
    }

    /// Tokens that encoding may emit, in id order.
    pub fn mergeable(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.n_mergeable).filter_map(|id| self.token(id))
    }
}

/// Tokens of a trained vocabulary: the 256 bytes, then one a merge.
pub fn tokens_of(merges: &[(u32, u32)]) -> Vec<Vec<u8>> {
    let mut tokens: Vec<Vec<u8>> = (0..=255_u8).map(|byte| vec![byte]).collect();
    for (left, right) in merges {
        tokens.push([&tokens[*left as usize][..], &tokens[*right as usize]].concat());
    }
    tokens
}
