//! Code points to UTF-8.

/// Code points tested at once: four SSE2 vectors, packed into one.
const BLOCK: usize = 16;

/// Appends the UTF-8 of `points`. A surrogate pair becomes its character and a lone
/// surrogate U+FFFD, as in tiktoken. O(n).
pub fn push_code_points(points: &[u32], out: &mut Vec<u8>) {
    out.reserve(points.len());
    let mut at = 0;
    while at < points.len() {
        if let Some(block) = points[at..].first_chunk::<BLOCK>()
            && block.iter().fold(0, |all, point| all | point) < 0x80
        {
            out.extend_from_slice(&block.map(|point| point as u8));
            at += BLOCK;
            continue;
        }
        let end = points.len().min(at + BLOCK);
        while at < end {
            if points[at] < 0x80 {
                out.push(points[at] as u8);
                at += 1;
                continue;
            }
            let (point, width) = code_point(&points[at..]);
            out.extend_from_slice(point.encode_utf8(&mut [0; 4]).as_bytes());
            at += width;
        }
    }
}

/// The first character of `points`, and how many code points it takes.
fn code_point(points: &[u32]) -> (char, usize) {
    if let [high @ 0xD800..0xDC00, low @ 0xDC00..0xE000, ..] = points {
        let paired = 0x1_0000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        return (char::from_u32(paired).unwrap_or(char::REPLACEMENT_CHARACTER), 2);
    }
    (char::from_u32(points[0]).unwrap_or(char::REPLACEMENT_CHARACTER), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(points: &[u32]) -> String {
        let mut out = b"before".to_vec();
        push_code_points(points, &mut out);
        String::from_utf8(out).expect("UTF-8").split_off("before".len())
    }

    #[test]
    fn every_character_at_every_place_of_a_block() {
        for middle in ['a', '\0', '\x7f', '\u{80}', 'é', '’', '\u{ffff}', '🙂', '\u{10ffff}'] {
            for before in 0..2 * BLOCK {
                let text = format!("{}{middle}{}", "x".repeat(before), "y".repeat(BLOCK + 3));
                let points: Vec<u32> = text.chars().map(u32::from).collect();
                assert_eq!(pushed(&points), text);
            }
        }
    }

    #[test]
    fn surrogates_pair_like_utf16() {
        let units = [0x61, 0xD83D, 0xDE42, 0xD83D, 0x62, 0xDE42, 0xDBFF, 0xDFFF, 0xD800, 0xD800];
        for padding in 0..2 * BLOCK {
            let mut points = vec![0x78; padding];
            points.extend(units);
            let utf16: Vec<u16> = points.iter().map(|point| *point as u16).collect();
            assert_eq!(pushed(&points), String::from_utf16_lossy(&utf16));
        }
    }
}
