//! The four character classes of the split patterns.
//!
//! `\p{L}`, `\p{N}` and `\s` are disjoint, so two bits per code point are enough.
//! `examples/generate_unicode_table.rs` generates the table from `regex-syntax`, which
//! provides the classes of the `regex` crate and of tiktoken. A unit test compares
//! every code point with that crate.

use crate::unicode_table::{INDEX, LEAVES};

pub const OTHER: u8 = 0;
pub const LETTER: u8 = 1;
pub const NUMBER: u8 = 2;
pub const SPACE: u8 = 3;

/// Class of a code point. Two dependent loads from 14 KB of tables.
#[inline]
pub fn class_of(code_point: u32) -> u8 {
    let leaf = &LEAVES[INDEX[(code_point >> 7) as usize] as usize];
    let low = code_point & 127;
    (leaf[(low >> 2) as usize] >> ((low & 3) * 2)) & 3
}

/// Class and width in bytes of the character that starts at `text[at]`.
///
/// `at` must be a character boundary of valid UTF-8. The scanner guarantees this,
/// because it advances only by whole characters of a `&str`.
#[inline]
pub fn class_at(text: &[u8], at: usize) -> (u8, usize) {
    let first = text[at];
    if first < 0x80 {
        return (ASCII[first as usize], 1);
    }
    wide_class_at(text, at)
}

/// `class_at` for a character of two to four bytes.
#[inline]
pub fn wide_class_at(text: &[u8], at: usize) -> (u8, usize) {
    let tail = |offset: usize| (text[at + offset] & 0x3F) as u32;
    let first = text[at] as u32;
    if first < 0xE0 {
        (class_of((first & 0x1F) << 6 | tail(1)), 2)
    } else if first < 0xF0 {
        (class_of((first & 0x0F) << 12 | tail(1) << 6 | tail(2)), 3)
    } else {
        let code_point = (first & 0x07) << 18 | tail(1) << 12 | tail(2) << 6 | tail(3);
        (class_of(code_point), 4)
    }
}

/// Classes of the ASCII bytes. Bytes >= 0x80 are OTHER here; they must be decoded first.
pub static ASCII: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() {
            table[byte] = LETTER;
        } else if b.is_ascii_digit() {
            table[byte] = NUMBER;
        } else if b == b' ' || (b >= 9 && b <= 13) {
            table[byte] = SPACE;
        }
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// Code point ranges of a class, according to `regex-syntax`.
    fn ranges(class: &str) -> Vec<(u32, u32)> {
        let hir = regex_syntax::parse(class).expect("a plain class parses");
        match hir.into_kind() {
            regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(set)) => set
                .ranges()
                .iter()
                .map(|range| (range.start() as u32, range.end() as u32))
                .collect(),
            kind => panic!("{class} is not a Unicode class: {kind:?}"),
        }
    }

    #[test]
    fn every_code_point_has_the_class_of_the_regex_engine() {
        let mut expected = vec![OTHER; 0x110000];
        for (pattern, class) in [(r"\p{L}", LETTER), (r"\p{N}", NUMBER), (r"\s", SPACE)] {
            for (start, end) in ranges(pattern) {
                for slot in &mut expected[start as usize..=end as usize] {
                    assert_eq!(*slot, OTHER, "classes must be disjoint");
                    *slot = class;
                }
            }
        }
        for (code_point, class) in expected.iter().enumerate() {
            assert_eq!(class_of(code_point as u32), *class, "U+{code_point:04X}");
        }
    }

    #[test]
    fn decoding_agrees_with_the_code_point() {
        let mut buffer = [0; 4];
        for character in (0..0x110000).filter_map(char::from_u32) {
            let text = character.encode_utf8(&mut buffer).as_bytes();
            let expected = (class_of(character as u32), text.len());
            assert_eq!(class_at(text, 0), expected, "{character:?}");
        }
    }
}
