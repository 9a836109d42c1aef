//! Encodes a file repeatedly, as a process to profile.
//!
//! `cargo run --release --example encode_file TEXT RANKS.tiktoken-as-hex PASSES`,
//! where the ranks file has one token per line, in rank order, as hexadecimal bytes.

use std::time::Instant;

use rustbpe::encode::Encoder;
use rustbpe::split::{SPLIT_PATTERN, Splitter};
use rustbpe::vocab::Vocabulary;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, text, ranks, passes] = &arguments[..] else {
        return Err("usage: encode_file TEXT RANKS PASSES".into());
    };
    let text = std::fs::read_to_string(text)?;
    let hex = |line: &str| -> Result<Vec<u8>, std::num::ParseIntError> {
        (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16)).collect()
    };
    let tokens: Vec<Vec<u8>> =
        std::fs::read_to_string(ranks)?.lines().map(hex).collect::<Result<_, _>>()?;
    let encoder = Encoder::new(Vocabulary::new(&tokens, &[])?, Splitter::new(SPLIT_PATTERN)?);
    for _ in 0..passes.parse()? {
        let started = Instant::now();
        let mut ids: Vec<u16> = Vec::with_capacity(text.len());
        encoder.with_scratch(|scratch| {
            text.split('\0')
                .try_for_each(|document| encoder.encode(document.as_bytes(), scratch, &mut ids))
        })?;
        let rate = text.len() as f64 / 1e6 / started.elapsed().as_secs_f64();
        println!("{} ids, {rate:.1} MB/s", ids.len());
    }
    Ok(())
}
