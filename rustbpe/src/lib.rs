//! Exact byte-level BPE for language models: training and encoding.

pub mod batch;
mod block;
pub mod bpe;
mod cache;
pub mod count;
pub mod encode;
pub mod error;
pub mod id;
mod key;
mod linked;
pub mod merge;
mod neighbours;
#[cfg(feature = "python")]
mod python;
pub mod scan;
pub mod split;
pub mod stream;
mod table;
mod token_table;
mod unicode;
mod unicode_table;
pub mod utf8;
pub mod vocab;
pub mod words;
