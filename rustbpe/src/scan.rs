//! Hand-written scanner for the GPT-4 family of split patterns.
//!
//! At each position it tries these alternatives in order. `split.rs` has the patterns
//! themselves; the semantics are those of OpenAI's published `cl100k_base` pattern.
//!
//! 1. an apostrophe and one of `s d m t ll ve re` in any case (`ſ` folds to `s`);
//! 2. at most one character that is not a newline, letter or number, then letters;
//! 3. one to `max_digits` numbers;
//! 4. at most one space, then "others" (not white space, letter or number), then newlines;
//! 5. only with `run_to_end`: white space up to the end of the text;
//! 6. white space up to its last newline;
//! 7. white space without its last character, or all of it at the end of the text.
//!
//! One pass without backtracking: to find a chunk's end, the scanner reads the chunk and
//! at most one run of white space after it. A text of n bytes costs O(n).

use crate::unicode::{ASCII, LETTER, NUMBER, OTHER, SPACE, class_at, wide_class_at};

/// The differences between the patterns of the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub max_digits: u32,
    pub run_to_end: bool,
}

/// End of the chunk that starts at `start`. Both are character boundaries.
///
/// `text` must be valid UTF-8, and `start < text.len()`.
#[inline(always)]
pub fn chunk_end(text: &[u8], start: usize, rules: Rules) -> usize {
    let first = text[start];
    if let Some(end) = short_word_end(text, start) {
        return end;
    }
    let (class, width) = class_at(text, start);
    let next = start + width;
    match class {
        LETTER => letters_end(text, next),
        NUMBER => numbers_end(text, next, rules.max_digits),
        SPACE => {
            let newline = first == b'\n' || first == b'\r';
            if newline || next == text.len() {
                return space_end(text, start, rules);
            }
            let (following, width) = class_at(text, next);
            match following {
                LETTER => letters_end(text, next + width),
                OTHER if first == b' ' => others_end(text, next + width),
                _ => space_end(text, start, rules),
            }
        }
        _ => {
            if first == b'\''
                && let Some(end) = contraction_end(text, start)
            {
                return end;
            }
            if next == text.len() {
                return next;
            }
            match class_at(text, next) {
                (LETTER, width) => letters_end(text, next + width),
                _ => others_end(text, next),
            }
        }
    }
}

/// Fast path for nine of ten chunks of English text: an optional space, then ASCII
/// letters. At most 15 bytes in all, followed by an ASCII byte.
///
/// It classifies 16 bytes at once, so it has no branch that depends on the word's length.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn short_word_end(text: &[u8], start: usize) -> Option<usize> {
    let block = text[start..].first_chunk::<16>()?;
    // SAFETY: the only precondition is SSE2, which every x86-64 processor has.
    let (letters, wide) = unsafe { letter_and_wide_masks(u128::from_le_bytes(*block)) };
    // Bit 16 is never set (not a letter), so the run always ends.
    let length = 1 + (!(letters >> 1)).trailing_zeros();
    let starts_word = letters & 1 != 0 || (block[0] == b' ' && length > 1);
    (starts_word && length < 16 && wide >> length & 1 == 0).then(|| start + length as usize)
}

/// Two masks with one bit per byte: ASCII letters, and bytes >= 0x80.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn letter_and_wide_masks(bytes: u128) -> (u32, u32) {
    use std::arch::x86_64::*;
    let block = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
    // Compare as signed bytes: shift 'a'..='z' to the bottom of the range, below -128 + 26.
    let folded = _mm_or_si128(block, _mm_set1_epi8(0x20));
    let moved = _mm_add_epi8(folded, _mm_set1_epi8((128 - b'a') as i8));
    let letters = _mm_cmplt_epi8(moved, _mm_set1_epi8(-128 + 26));
    (_mm_movemask_epi8(letters) as u32, _mm_movemask_epi8(block) as u32)
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn short_word_end(_text: &[u8], _start: usize) -> Option<usize> {
    None
}

/// `'(?i:[sdmt]|ll|ve|re)`. U+017F is the only non-ASCII character that folds to one of these.
fn contraction_end(text: &[u8], start: usize) -> Option<usize> {
    let lower = |at: usize| text.get(start + at).map_or(0, |byte| byte | 0x20);
    match (lower(1), lower(2)) {
        (b's' | b'd' | b'm' | b't', _) => Some(start + 2),
        (b'l', b'l') | (b'v', b'e') | (b'r', b'e') => Some(start + 3),
        _ if text[start + 1..].starts_with("ſ".as_bytes()) => Some(start + 3),
        _ => None,
    }
}

/// End of the run of letters that continues at `at`.
///
/// It tests eight ASCII bytes per step. Most English words end within the first step, so
/// there is about one branch per word instead of one per letter.
#[inline(always)]
fn letters_end(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    while let Some(bytes) = text[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*bytes);
        let folded = (word | (0x20 * ONES)) & !HIGH;
        let at_least_a = folded + (0x80 - b'a' as u64) * ONES;
        let past_z = folded + (0x80 - b'z' as u64 - 1) * ONES;
        let stops = (!at_least_a | past_z | word) & HIGH;
        if stops == 0 {
            at += 8;
            continue;
        }
        at += (stops.trailing_zeros() / 8) as usize;
        if text[at] < 0x80 {
            return at;
        }
        match wide_class_at(text, at) {
            (LETTER, width) => at += width,
            _ => return at,
        }
    }
    run_end(text, at, LETTER)
}

#[inline]
fn others_end(text: &[u8], at: usize) -> usize {
    let mut end = run_end(text, at, OTHER);
    while end < text.len() && (text[end] == b'\n' || text[end] == b'\r') {
        end += 1;
    }
    end
}

/// End of the run of characters of one class, one character per step.
#[inline]
fn run_end(text: &[u8], mut at: usize, class: u8) -> usize {
    while at < text.len() {
        let first = text[at];
        if first < 0x80 {
            if ASCII[first as usize] != class {
                break;
            }
            at += 1;
        } else {
            match wide_class_at(text, at) {
                (found, width) if found == class => at += width,
                _ => break,
            }
        }
    }
    at
}

#[inline]
fn numbers_end(text: &[u8], mut at: usize, max_digits: u32) -> usize {
    for _ in 1..max_digits {
        if at == text.len() {
            break;
        }
        match class_at(text, at) {
            (NUMBER, width) => at += width,
            _ => break,
        }
    }
    at
}

/// Alternatives 5 to 7: end of the chunk that starts at `start` in a run of white space.
fn space_end(text: &[u8], start: usize, rules: Rules) -> usize {
    let mut at = start;
    let mut last = start;
    let mut after_newline = None;
    while at < text.len() {
        let (class, width) = class_at(text, at);
        if class != SPACE {
            break;
        }
        last = at;
        at += width;
        if matches!(text[last], b'\n' | b'\r') {
            after_newline = Some(at);
        }
    }
    let ends_text = at == text.len();
    if ends_text && rules.run_to_end {
        return at;
    }
    match after_newline {
        Some(end) => end,
        None if ends_text || last == start => at,
        None => last,
    }
}
