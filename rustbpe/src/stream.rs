//! Decodes a stream of bytes into whole characters.

/// Holds back the bytes of an incomplete character until the rest arrives.
///
/// The output of a whole stream equals decoding all its bytes at once with each maximal
/// ill-formed sequence replaced by U+FFFD (best practice of Unicode 3.9), which is also
/// what Python's `errors="replace"` does.
#[derive(Debug, Default)]
pub struct Utf8Stream {
    held: Vec<u8>,
}

impl Utf8Stream {
    /// The characters that `bytes` completes. At most 3 bytes are held back.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.held.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = &self.held[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    match error.error_len() {
                        Some(length) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[length..];
                        }
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
            }
        }
        self.held = rest.to_vec();
        text
    }

    /// U+FFFD if an incomplete character is held back, else the empty string.
    pub fn finish(&mut self) -> String {
        let text = String::from_utf8_lossy(&self.held).into_owned();
        self.held.clear();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_to_decoding_at_once_however_it_is_cut() {
        let cases: [&[u8]; 6] = [
            "aé中🙂z".as_bytes(),
            b"\xf0\x9f\x99",
            b"\xe4\xb8a\xff\xc3",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"",
        ];
        for case in cases {
            for size in 1..5 {
                let mut stream = Utf8Stream::default();
                let mut text: String = case.chunks(size).map(|piece| stream.push(piece)).collect();
                text += &stream.finish();
                assert_eq!(text, String::from_utf8_lossy(case), "{case:x?} by {size}");
            }
        }
    }
}
