//! Splits text into chunks. Merges never cross a chunk boundary.

use fancy_regex::Regex;

use crate::block::for_each_batch;
use crate::error::{Error, Result};
use crate::scan::Rules;

/// nanochat's split pattern: GPT-4's, but with numbers of one or two digits.
pub const SPLIT_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

/// `cl100k_base` as tiktoken publishes it: numbers of one to three digits.
pub const CL100K_PATTERN: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s";

/// `cl100k_base` without possessive quantifiers, as in older releases and Hugging Face
/// files. It splits white space at the end of a text after a newline.
const CL100K_PLAIN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// nanochat's pattern with numbers of one to three digits.
const NANOCHAT_THREE_DIGITS: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";

const fn rules(max_digits: u32, run_to_end: bool) -> Rules {
    Rules { max_digits, run_to_end }
}

/// Patterns that the hand-written scanner implements exactly.
const SCANNED: [(&str, Rules); 4] = [
    (SPLIT_PATTERN, rules(2, false)),
    (CL100K_PATTERN, rules(3, true)),
    (CL100K_PLAIN, rules(3, false)),
    (NANOCHAT_THREE_DIGITS, rules(3, false)),
];

/// Splits texts by one pattern.
#[derive(Debug)]
pub enum Splitter {
    Scanner(Rules),
    Regex(Box<Regex>),
}

impl Splitter {
    /// Uses the scanner for the patterns it knows and a regex engine for all others.
    ///
    /// # Errors
    /// A pattern that does not compile or that can match the empty string.
    pub fn new(pattern: &str) -> Result<Self> {
        if let Some((_, rules)) = SCANNED.iter().find(|(known, _)| *known == pattern) {
            return Ok(Splitter::Scanner(*rules));
        }
        Self::from_regex(pattern)
    }

    /// Always uses the regex engine. Tests take it as the reference.
    pub fn from_regex(pattern: &str) -> Result<Self> {
        let regex = Regex::new(pattern)
            .map_err(|error| Error::invalid(format!("pattern {pattern:?}: {error}")))?;
        // Only a pattern without look-around parses here. The probe below catches some
        // of the others; the rest fail at their first empty match.
        let may_be_empty =
            regex_syntax::parse(pattern).is_ok_and(|hir| hir.properties().minimum_len() == Some(0));
        if may_be_empty || regex.is_match("").unwrap_or(false) {
            return Err(Error::invalid(format!(
                "pattern {pattern:?} can match the empty string; every match must take \
                 at least 1 character"
            )));
        }
        Ok(Splitter::Regex(Box::new(regex)))
    }

    /// Calls `chunk(start, end)` for each chunk in order. The chunks cover all of `text`.
    ///
    /// Text that a regex leaves unmatched becomes a chunk of its own, so no text is lost.
    ///
    /// # Errors
    /// Regex engine only: an empty match, or the backtracking limit.
    #[inline(always)]
    pub fn for_each(&self, text: &str, mut chunk: impl FnMut(usize, usize)) -> Result<()> {
        match self {
            Splitter::Scanner(rules) => {
                for_each_batch(text.as_bytes(), *rules, |mut start, ends| {
                    for end in ends {
                        chunk(start, *end);
                        start = *end;
                    }
                });
                Ok(())
            }
            Splitter::Regex(regex) => each_match(regex, text, &mut chunk),
        }
    }

    /// A position at or after `from` where `text` may be cut: both sides then split as they
    /// do in the whole text.
    ///
    /// A space between two ASCII letters is such a position: no alternative of the scanned
    /// patterns takes a space after a letter, and none looks further ahead. Returns None if
    /// there is no such position, and always for a pattern of the regex engine.
    pub fn cut(&self, text: &str, from: usize) -> Option<usize> {
        let Splitter::Scanner(_) = self else { return None };
        let tail = text.as_bytes().get(from..)?;
        let cut = tail.windows(3).position(|three| {
            three[1] == b' ' && three[0].is_ascii_alphabetic() && three[2].is_ascii_alphabetic()
        });
        cut.map(|at| from + at + 1)
    }

    /// The chunks as string slices. Errors as for `for_each`.
    pub fn split<'t>(&self, text: &'t str) -> Result<Vec<&'t str>> {
        let mut chunks = Vec::new();
        self.for_each(text, |start, end| chunks.push(&text[start..end]))?;
        Ok(chunks)
    }
}

fn each_match(regex: &Regex, text: &str, chunk: &mut dyn FnMut(usize, usize)) -> Result<()> {
    let mut done = 0;
    for found in regex.find_iter(text) {
        let found = found.map_err(|error| {
            Error::invalid(format!("pattern {:?} after byte {done}: {error}", regex.as_str()))
        })?;
        if found.start() == found.end() {
            return Err(Error::invalid(format!(
                "pattern {:?} matched the empty string at byte {}; every match must take at \
                 least 1 character",
                regex.as_str(),
                found.start()
            )));
        }
        if found.start() > done {
            chunk(done, found.start());
        }
        chunk(found.start(), found.end());
        done = found.end();
    }
    if done < text.len() {
        chunk(done, text.len());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Characters of every class, case fold and width that the patterns distinguish.
    const ALPHABET: [&str; 28] = [
        "a", "S", "l", "L", "v", "e", "r", "ſ", "é", "ß", "中", "𐐀", "1", "٣", "Ⅷ", "𝟘", " ", "\t",
        "\n", "\r", "\u{a0}", "\u{85}", "\u{2028}", "'", "!", "’", "🙂", "\u{301}",
    ];

    #[test]
    fn all_short_strings_over_the_alphabet_split_like_the_regex() {
        for (pattern, _) in SCANNED {
            let scanner = Splitter::new(pattern).expect("known");
            let regex = Splitter::from_regex(pattern).expect("compiles");
            for first in ALPHABET {
                for second in ALPHABET {
                    for third in ALPHABET {
                        let text = [first, second, third].concat();
                        assert_eq!(scanner.split(&text), regex.split(&text), "{text:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn random_strings_split_like_the_regex() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        for (pattern, _) in SCANNED {
            let scanner = Splitter::new(pattern).expect("known");
            let regex = Splitter::from_regex(pattern).expect("compiles");
            assert!(matches!(scanner, Splitter::Scanner(_)));
            for _ in 0..2_000 {
                let length = next() % 40;
                let text: String = (0..length)
                    .map(|_| ALPHABET[(next() % ALPHABET.len() as u64) as usize])
                    .collect();
                assert_eq!(scanner.split(&text), regex.split(&text), "{text:?}");
            }
            // Texts over several windows of `block.rs`: mostly ASCII, runs of any length.
            const WORDS: [&str; 16] = [
                "a", "S", "l", "v", "e", "r", "t", "7", " ", " ", "'", "!", "\u{1c}", "\n", "\t",
                "é",
            ];
            const LINES: [&str; 16] = [
                " ", "\n", "a", "\r", ".", "\n", " ", "'", "7", "\t", "\u{a0}", "é", "’", "\u{b}",
                "\u{85}", "ſ",
            ];
            for round in 0..6_000 {
                let units = if round % 2 == 0 { WORDS } else { LINES };
                let mut text = String::new();
                let (kinds, longest) = (next() % 13 + 4, next() % 20 * (next() % 10) + 1);
                while text.len() < 300 {
                    let unit = units[(next() % kinds) as usize];
                    text.extend(std::iter::repeat_n(unit, (next() % longest + 1) as usize));
                }
                assert_eq!(scanner.split(&text), regex.split(&text), "{text:?}");
            }
        }
    }

    #[test]
    fn texts_split_alike_whether_cut_or_whole() {
        let units = ["a", "s", "S", " ", " ", "  ", "'", "'s", ".", "7", "\n", "\t", "é", "\u{a0}"];
        let mut state = 5_u64;
        for (pattern, _) in SCANNED {
            let splitter = Splitter::new(pattern).expect("known");
            let mut cuts = 0;
            for _ in 0..2_000 {
                let mut text = String::new();
                for _ in 0..40 {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    text.push_str(units[(state >> 33) as usize % units.len()]);
                }
                let whole = splitter.split(&text).unwrap();
                let mut from = 0;
                while let Some(at) = splitter.cut(&text, from) {
                    let (left, right) = text.split_at(at);
                    let mut parts = splitter.split(left).unwrap();
                    parts.extend(splitter.split(right).unwrap());
                    assert_eq!(parts, whole, "{text:?} cut at {at}");
                    (cuts, from) = (cuts + 1, at);
                }
            }
            assert!(cuts > 400);
        }
    }

    #[test]
    fn a_pattern_that_can_match_nothing_is_refused() {
        for pattern in ["a*", "", "(?=a)|b*", "a|"] {
            let error = Splitter::new(pattern).expect_err("refused");
            assert!(error.to_string().contains("empty string"), "{error}");
        }
        let lazy = Splitter::new(r"(?=a)|b").expect("only an input can tell");
        assert!(lazy.split("xab").is_err());
    }

    #[test]
    fn unmatched_text_is_kept() {
        let splitter = Splitter::new(r"\p{L}+").expect("compiles");
        assert_eq!(splitter.split("ab, cd!").unwrap(), ["ab", ", ", "cd", "!"]);
    }
}
