//! Looks at eight bytes of a cell at a time: cells are too short for the compiler's own vectors to pay.

const EACH_BYTE: u64 = u64::from_ne_bytes([1; 8]);
const HIGH_BITS: u64 = 0x80 * EACH_BYTE;

/// Whether all bytes are printable ASCII or spaces.
#[inline]
pub(super) fn is_printable(raw: &[u8]) -> bool {
    !any_word(raw, |word| {
        let from_space_up = word.wrapping_add((0x80 - 0x20) * EACH_BYTE);
        let is_delete = word.wrapping_add(EACH_BYTE);
        (word | !from_space_up | is_delete) & HIGH_BITS != 0
    })
}

/// Whether an id of printable characters holds anything but letters, digits, `_` and `-`.
#[inline]
pub(super) fn has_unusual(id: &[u8]) -> bool {
    // A capital becomes a small letter, `_` a delete, and neither a digit nor `-` becomes another one.
    const CASE: u64 = 0x20 * EACH_BYTE;
    any_word(id, |word| {
        let folded = word & !HIGH_BITS | CASE;
        let is_letter = is_between(folded, b'a', b'z');
        let is_digit = is_between(folded, b'0', b'9');
        let is_dash = is_between(folded, b'-', b'-');
        let is_underscore = folded + EACH_BYTE;
        (word | !(is_letter | is_digit | is_dash | is_underscore)) & HIGH_BITS != 0
    })
}

/// Whether a text holds capitals of ASCII, or what isn't ASCII.
#[inline]
#[must_use]
pub fn has_capitals(text: &[u8]) -> bool {
    any_word(text, |word| (word | is_between(word & !HIGH_BITS, b'A', b'Z')) & HIGH_BITS != 0)
}

/// The high bit of each byte that is from `first` to `last`; the high bits of `word` are clear, and the others mean nothing.
#[inline]
const fn is_between(word: u64, first: u8, last: u8) -> u64 {
    let from_first_up = word + (0x80 - first as u64) * EACH_BYTE;
    let above_last = word + (0x7f - last as u64) * EACH_BYTE;
    from_first_up & !above_last
}

/// Whether there may be a character in a text that is odd in a name or an address. It tells a control character of ASCII, or the first byte of
/// the others (U+0080 to U+00BF), of U+2000 to U+2FFF (marks of direction, line ends, what takes no room) and of U+F000 to U+FFFF (byte order
/// mark, what replaces undecodable bytes). Of the rest that takes no room, which is odd only where there is nothing else, it tells the first.
pub(super) fn may_be_odd(raw: &[u8]) -> bool {
    matches!(raw.first(), Some(0xcd | 0xd8 | 0xe1))
        || any_word(raw, |word| {
            let high = word & HIGH_BITS;
            let low = word & !HIGH_BITS;
            let above_controls = low + (0x80 - 0x20) * EACH_BYTE;
            let is_delete = low + EACH_BYTE;
            (!above_controls | is_delete) & !high & HIGH_BITS != 0
                || (high != 0 && (has_byte(word, 0xc2) || has_byte(word, 0xe2) || has_byte(word, 0xef)))
        })
}

#[inline]
const fn has_byte(word: u64, byte: u8) -> bool {
    let differs = word ^ (byte as u64 * EACH_BYTE);
    // A carry may take the neighbour of a match for another one, never a word without a match for one with.
    differs.wrapping_sub(EACH_BYTE) & !differs & HIGH_BITS != 0
}

/// Whether it holds for any eight bytes. The last eight overlap with those before; what is shorter is filled up with a letter.
#[inline]
fn any_word(raw: &[u8], holds: impl Fn(u64) -> bool) -> bool {
    let Some(last) = raw.last_chunk() else {
        return holds(raw.iter().fold(u64::from_ne_bytes([b'a'; 8]), |word, byte| word << 8 | u64::from(*byte)));
    };
    raw.as_chunks().0.iter().any(|word| holds(u64::from_ne_bytes(*word))) || holds(u64::from_ne_bytes(*last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_judged_by_each_of_their_bytes() {
        for byte in 0x20..=0x7e_u8 {
            for at in 0..20 {
                let mut id = *b"user-name_0123456789";
                id[at] = byte;
                for id in [&id[..], &id[..=at], &id[at..]] {
                    let is_usual = byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
                    assert_eq!(has_unusual(id), !is_usual, "{}", id.escape_ascii());
                    assert_eq!(has_capitals(id), byte.is_ascii_uppercase(), "{}", id.escape_ascii());
                }
            }
        }
        assert!(has_unusual("a雷".as_bytes()) && has_capitals("a雷".as_bytes()) && has_capitals("abcdefghé".as_bytes()));
        assert!(!has_unusual(b"") && !has_capitals(b""));
    }
}
