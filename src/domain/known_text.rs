//! Bytes that were found to be text once, so that no part of them is looked at again.

use std::str::Utf8Error;

/// Text of which parts are asked for as bytes. Looking at all of a record at once costs a fraction of looking at each of its short cells.
#[derive(Debug, Clone, Copy, Default)]
pub struct KnownText<'a>(&'a str);

impl<'a> KnownText<'a> {
    /// Bytes that may be text; of what is not valid UTF-8 nothing is known.
    #[inline]
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(std::str::from_utf8(bytes).unwrap_or_default())
    }

    /// The same bytes as text: at hardly any cost if they are a part of this one.
    ///
    /// # Errors
    /// [`Utf8Error`] if they are not valid UTF-8.
    #[inline]
    pub fn of(self, bytes: &'a [u8]) -> Result<&'a str, Utf8Error> {
        let start = bytes.as_ptr().addr().wrapping_sub(self.0.as_ptr().addr());
        let part = start.checked_add(bytes.len()).and_then(|end| self.0.get(start..end));
        part.map_or_else(|| std::str::from_utf8(bytes), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_text_that_they_would_be_alone() {
        let bytes = "ab,韩梅梅,\u{feff},c".as_bytes();
        let broken = [bytes, b"\xff,d"].concat();
        for whole in [bytes, &broken[..], &bytes[4..], b""] {
            for start in 0..=whole.len() {
                for end in start..=whole.len() {
                    let part = &whole[start..end];
                    assert_eq!(KnownText::new(whole).of(part), std::str::from_utf8(part));
                    assert_eq!(KnownText::new(bytes).of(part), std::str::from_utf8(part));
                    assert_eq!(KnownText::default().of(part), std::str::from_utf8(part));
                }
            }
        }
    }
}
