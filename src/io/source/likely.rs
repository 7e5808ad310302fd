//! Which encoding a text seems to be in.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{BIG5, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Encodings that are tried, in this order, where the likeliest can't read the text. Chosen: what exports from the service's users have.
const OTHERS: [&Encoding; 5] = [GB18030, BIG5, SHIFT_JIS, EUC_KR, WINDOWS_1252];

/// The encoding that bytes seem to be in which are no UTF-8; `None` where none reads them.
#[must_use]
pub fn likely_encoding(sample: &[u8]) -> Option<&'static Encoding> {
    if let Some(utf16) = likely_utf16(sample) {
        return Some(utf16);
    }
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    let guessed = detector.guess(None, Utf8Detection::Deny);
    // The larger of the two reads all that the smaller reads.
    let guessed = if guessed == GBK { GB18030 } else { guessed };
    std::iter::once(guessed).chain(OTHERS).find(|encoding| reads(encoding, sample))
}

/// Whether all but a sequence that the sample may have cut at its end can be read.
fn reads(encoding: &'static Encoding, sample: &[u8]) -> bool {
    let mut text = String::with_capacity(encoding.new_decoder().max_utf8_buffer_length(sample.len()).unwrap_or_default());
    let (_, _, had_errors) = encoding.new_decoder_without_bom_handling().decode_to_string(sample, &mut text, false);
    // C1 controls are what undefined bytes of a single-byte encoding become; no text has them.
    !had_errors && !text.contains(|char| matches!(char, '\u{80}'..='\u{9f}'))
}

/// UTF-16 shows by the zeros in every other byte of what is ASCII: ids, delimiters and line ends at least. A text of another encoding may have
/// one by accident.
fn likely_utf16(sample: &[u8]) -> Option<&'static Encoding> {
    const LEAST_PER_CENT: usize = 5;
    let zeros = |first: usize| sample.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let (encoding, most, least) = if odd > even { (UTF_16LE, odd, even) } else { (UTF_16BE, even, odd) };
    (100 * most >= LEAST_PER_CENT * sample.len().max(1) && 10 * least <= most).then_some(encoding)
}
