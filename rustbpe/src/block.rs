//! Chunk boundaries of 64 ASCII bytes at once.
//!
//! Inside a window that starts at a boundary, whether an ASCII byte begins a chunk
//! depends on its own class and its neighbours', so the boundaries are a few
//! operations on bit masks, one bit a byte, and cost no branch (the way simdjson
//! finds its structural characters; Langdale and Lemire, 2019). What needs more
//! context than that - a tab, a character beyond ASCII - ends the window, and the
//! scanner of `scan.rs` takes over until behind it.

use crate::scan::{Rules, chunk_end};

const WINDOW: usize = 64;

/// Classes of the bytes of a window. A byte in none of them is an "other".
#[derive(Default)]
struct Classes {
    letters: u64,
    digits: u64,
    spaces: u64,
    /// `\n` and `\r`.
    newlines: u64,
    /// Other white space, and bytes beyond ASCII.
    hard: u64,
}

/// Most ends of one step: a window's, and what the scanner may add.
const STEP: usize = 2 * WINDOW;

/// Ends of chunks found before they are handed on, at most. Long runs of one kind of
/// work predict better than a bit of each in turn.
pub const BATCH: usize = 2 * STEP;

/// Calls `batch(start, ends)` for each batch of chunks of `text`, valid UTF-8, in order:
/// the start of the first and the end of each.
#[inline(always)]
pub fn for_each_batch(text: &[u8], rules: Rules, mut batch: impl FnMut(usize, &[usize])) {
    let mut ends = [0; BATCH];
    let mut start = 0;
    while start < text.len() {
        let (first, mut n) = (start, 0);
        while start < text.len()
            && let Some(free) = ends[n..].first_chunk_mut::<STEP>()
        {
            n += chunk_ends(text, start, rules, free);
            start = ends[n - 1];
        }
        batch(first, &ends[..n]);
    }
}

/// Writes the ends of the chunks from `start` on, at least one, and returns how many.
#[inline(always)]
fn chunk_ends(text: &[u8], start: usize, rules: Rules, ends: &mut [usize; STEP]) -> usize {
    let (mut starts, clear) = match text[start..].first_chunk::<WINDOW>() {
        Some(window) => starts_of(window, rules),
        None => {
            // A tab is hard: the window ends where the text does.
            let mut window = [b'\t'; WINDOW];
            window[..text.len() - start].copy_from_slice(&text[start..]);
            starts_of(&window, rules)
        }
    };
    let mut n = 0;
    while starts != 0 {
        ends[n % STEP] = start + starts.trailing_zeros() as usize;
        starts &= starts - 1;
        n += 1;
    }
    if clear == WINDOW && n > 0 {
        return n;
    }
    // The chunk that reaches the hard byte, and those behind it until an ASCII
    // letter may follow again.
    let hard = start + clear;
    let wide = |at: usize| text.get(at).is_some_and(|byte| *byte >= 0x80);
    let mut at = if n == 0 { start } else { ends[(n - 1) % STEP] };
    while n < STEP && at < text.len() && (at <= hard || wide(at) || wide(at + 1)) {
        at = chunk_end(text, at, rules);
        ends[n] = at;
        n += 1;
    }
    n
}

/// Bytes after the first that begin chunks, as far as that is certain, and the
/// place of the first hard byte.
#[inline(always)]
fn starts_of(window: &[u8; WINDOW], rules: Rules) -> (u64, usize) {
    let Classes { letters, digits, spaces, newlines, hard } = classify(window);
    let others = !(letters | digits | spaces | newlines | hard);
    let clear = hard.trailing_zeros();
    let certain = !u64::MAX.checked_shl(clear).unwrap_or(0) & !1;

    // Newlines right behind an other belong to its chunk: the sum carries a one
    // through each such run and clears it. The others are white space.
    let free = newlines & newlines.wrapping_add(newlines & others << 1);
    let visible = letters | digits | others;
    // Besides, the last space of a run goes with a letter or an other behind it.
    let white_starts = white_starts(spaces, free, visible) | spaces & visible >> 1;
    let other_starts = others & !((spaces | others) << 1);
    // An other that begins a chunk takes the letters behind it along.
    let after = digits | newlines | (others & !other_starts);
    let mut letter_starts = letters & after << 1;
    let mut digit_starts = digits & !(digits << 1);
    let long = (1..=rules.max_digits).fold(digits, |run, shift| run & digits << shift);
    if long != 0 {
        let mut found = digit_starts;
        while found != 0 {
            found = found << rules.max_digits & long;
            digit_starts |= found;
        }
    }
    let mut taking = other_starts & letters >> 1 & certain >> 1;
    while taking != 0 {
        let at = taking.trailing_zeros() as usize;
        taking &= taking - 1;
        if window[at] == b'\'' {
            letter_starts |= (1 << at << contraction(window, at)) & letters;
        }
    }
    ((white_starts | other_starts | letter_starts | digit_starts) & certain, clear as usize)
}

/// Bytes that begin a chunk of white space whatever the chunk before: the first of a
/// run, and the first space behind its last newline.
#[inline(always)]
fn white_starts(spaces: u64, newlines: u64, visible: u64) -> u64 {
    let white = spaces | newlines;
    let first = white & !(white << 1);
    let indents = spaces & newlines << 1;
    // The sum carries each of these to the byte behind its run of spaces. Unless that
    // is visible, a newline stands there, or may behind the window.
    let (sum, open) = spaces.overflowing_add(indents);
    if open || sum & !(spaces | visible) != 0 {
        return first | closed_indents(indents, spaces, visible);
    }
    first | indents
}

/// The indents that a visible byte ends.
#[cold]
fn closed_indents(mut indents: u64, spaces: u64, visible: u64) -> u64 {
    let mut closed = 0;
    while indents != 0 {
        let at = indents.trailing_zeros();
        indents &= indents - 1;
        let run = (!(spaces >> at)).trailing_zeros();
        if visible.checked_shr(at + run).unwrap_or(0) & 1 != 0 {
            closed |= 1 << at;
        }
    }
    closed
}

/// Bytes of the contraction whose apostrophe is at `at`; 0 if it is none. What
/// would begin behind the window is of no interest here.
fn contraction(window: &[u8; WINDOW], at: usize) -> u32 {
    let lower = |at: usize| window.get(at).map_or(0, |byte| byte | 0x20);
    match (lower(at + 1), lower(at + 2)) {
        (b's' | b'd' | b'm' | b't', _) => 2,
        (b'l', b'l') | (b'v', b'e') | (b'r', b'e') => 3,
        _ => 0,
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn classify(window: &[u8; WINDOW]) -> Classes {
    let mut classes = Classes::default();
    for (at, bytes) in window.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: the only precondition is SSE2, which every x86-64 processor has.
        let [letters, digits, spaces, newlines, hard] =
            unsafe { masks(u128::from_le_bytes(*bytes)) };
        classes.letters |= u64::from(letters) << (16 * at);
        classes.digits |= u64::from(digits) << (16 * at);
        classes.spaces |= u64::from(spaces) << (16 * at);
        classes.newlines |= u64::from(newlines) << (16 * at);
        classes.hard |= u64::from(hard) << (16 * at);
    }
    classes
}

/// One bit a byte: letters, digits, spaces, newlines, hard.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn masks(bytes: u128) -> [u32; 5] {
    use std::arch::x86_64::*;
    let block = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
    // As signed bytes: a range moved to the bottom is below -128 + its length.
    let among = |bytes, first: u8, length: i8| {
        let moved = _mm_add_epi8(bytes, _mm_set1_epi8(0x80_u8.wrapping_sub(first) as i8));
        _mm_cmplt_epi8(moved, _mm_set1_epi8(-128 + length))
    };
    let equal = |byte: u8| _mm_cmpeq_epi8(block, _mm_set1_epi8(byte as i8));
    let letters = among(_mm_or_si128(block, _mm_set1_epi8(0x20)), b'a', 26);
    let digits = among(block, b'0', 10);
    let spaces = equal(b' ');
    let newlines = _mm_or_si128(equal(b'\n'), equal(b'\r'));
    // Tab to carriage return without the newlines; bytes beyond ASCII have their top bit.
    let hard = _mm_or_si128(_mm_andnot_si128(newlines, among(block, b'\t', 5)), block);
    [letters, digits, spaces, newlines, hard].map(|mask| _mm_movemask_epi8(mask) as u32)
}

#[cfg(not(target_arch = "x86_64"))]
fn classify(window: &[u8; WINDOW]) -> Classes {
    use crate::unicode::{ASCII, LETTER, NUMBER, SPACE};
    let mut classes = Classes::default();
    for (at, byte) in window.iter().enumerate() {
        match ASCII[*byte as usize] {
            _ if *byte == b' ' => classes.spaces |= 1 << at,
            _ if matches!(byte, b'\n' | b'\r') => classes.newlines |= 1 << at,
            _ if *byte >= 0x80 => classes.hard |= 1 << at,
            LETTER => classes.letters |= 1 << at,
            NUMBER => classes.digits |= 1 << at,
            SPACE => classes.hard |= 1 << at,
            _ => {}
        }
    }
    classes
}
