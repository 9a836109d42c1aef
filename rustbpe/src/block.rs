//! Finds chunk boundaries in windows of 64 ASCII bytes.
//!
//! In a window that starts at a boundary, an ASCII byte begins a chunk or not depending only
//! on its own class and its neighbours' classes. So boundaries follow from a few operations
//! on bit masks with one bit per byte, without a branch (as simdjson finds structural
//! characters; Langdale and Lemire, 2019). A "hard" byte needs more context: a tab, for
//! example, or a character beyond ASCII. It ends the window, and the scanner of `scan.rs`
//! takes over until it is past that byte.

use crate::scan::{Rules, chunk_end};

const WINDOW: usize = 64;

/// Masks of a window's byte classes. A byte in none of them is an "other".
#[derive(Default)]
struct Classes {
    letters: u64,
    digits: u64,
    spaces: u64,
    /// `\n` and `\r`.
    newlines: u64,
    /// White space other than space and newlines, and bytes beyond ASCII.
    hard: u64,
}

/// Maximum number of chunk ends per step: those of a window, plus what the scanner may add.
const STEP: usize = 2 * WINDOW;

/// Maximum number of chunk ends collected before they are handed on. Long runs of one kind
/// of work predict better than alternating short ones.
pub const BATCH: usize = 2 * STEP;

/// Calls `batch(start, ends)` for each batch of chunks of `text`, in order. `text` must be
/// valid UTF-8. `start` is where the first chunk starts, `ends` has the end of each chunk.
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

/// Writes the ends of at least one chunk from `start` on, and returns how many it wrote.
#[inline(always)]
fn chunk_ends(text: &[u8], start: usize, rules: Rules, ends: &mut [usize; STEP]) -> usize {
    let (mut starts, clear) = match text[start..].first_chunk::<WINDOW>() {
        Some(window) => starts_of(window, rules),
        None => {
            // A tab is hard, so the window ends where the text does.
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
    // Scan the chunk that reaches the hard byte, and those after it until the window method
    // can resume: at a chunk whose first two bytes are ASCII.
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

/// The bytes, except the first, that certainly begin chunks, and the index of the first
/// hard byte.
#[inline(always)]
fn starts_of(window: &[u8; WINDOW], rules: Rules) -> (u64, usize) {
    let Classes { letters, digits, spaces, newlines, hard } = classify(window);
    let others = !(letters | digits | spaces | newlines | hard);
    let clear = hard.trailing_zeros();
    let certain = !u64::MAX.checked_shl(clear).unwrap_or(0) & !1;

    // Newlines directly after an "other" belong to its chunk: the addition carries a one
    // through each such run and clears it. The remaining newlines are white space.
    let free = newlines & newlines.wrapping_add(newlines & others << 1);
    let visible = letters | digits | others;
    // Also, the last space of a run joins a letter or an "other" that follows it.
    let white_starts = white_starts(spaces, free, visible) | spaces & visible >> 1;
    let other_starts = others & !((spaces | others) << 1);
    // An "other" that begins a chunk takes the letters after it along.
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

/// White-space bytes that begin a chunk whatever chunk precedes them: the first byte of a
/// run, and the first space after the run's last newline.
#[inline(always)]
fn white_starts(spaces: u64, newlines: u64, visible: u64) -> u64 {
    let white = spaces | newlines;
    let first = white & !(white << 1);
    let indents = spaces & newlines << 1;
    // The addition carries each indent's bit to the byte after its run of spaces. If that byte
    // is not visible, it is a newline, or the run may go on in the next window.
    let (sum, open) = spaces.overflowing_add(indents);
    if open || sum & !(spaces | visible) != 0 {
        return first | closed_indents(indents, spaces, visible);
    }
    first | indents
}

/// The indents that end at a visible byte.
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

/// Length in bytes of the contraction whose apostrophe is at `at`, or 0 if there is none.
/// Bytes after the window do not matter here.
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

/// One bit per byte: letters, digits, spaces, newlines, hard bytes.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn masks(bytes: u128) -> [u32; 5] {
    use std::arch::x86_64::*;
    let block = _mm_set_epi64x((bytes >> 64) as i64, bytes as i64);
    // Compare as signed bytes: shift a range to the bottom, where it is below -128 + its length.
    let among = |bytes, first: u8, length: i8| {
        let moved = _mm_add_epi8(bytes, _mm_set1_epi8(0x80_u8.wrapping_sub(first) as i8));
        _mm_cmplt_epi8(moved, _mm_set1_epi8(-128 + length))
    };
    let equal = |byte: u8| _mm_cmpeq_epi8(block, _mm_set1_epi8(byte as i8));
    let letters = among(_mm_or_si128(block, _mm_set1_epi8(0x20)), b'a', 26);
    let digits = among(block, b'0', 10);
    let spaces = equal(b' ');
    let newlines = _mm_or_si128(equal(b'\n'), equal(b'\r'));
    // Tab to carriage return, without newlines. Bytes beyond ASCII have their top bit set.
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
