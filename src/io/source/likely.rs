//! Which encoding a text seems to be in.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use encoding_rs::{BIG5, EUC_KR, Encoding, GB18030, GBK, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

/// Encodings that are tried, in this order, where the likeliest can't read the text. Chosen: what exports from the service's users have.
const OTHERS: [&Encoding; 5] = [GB18030, BIG5, SHIFT_JIS, EUC_KR, WINDOWS_1252];

/// Of the lines that tell encodings apart, so many per cent at least can be read in the encoding of a text: a few may be damaged. Chosen.
const READABLE_PER_CENT: usize = 80;

/// The encoding that bytes seem to be in: the one in which most lines can be read; `None` where none reads them.
#[must_use]
pub fn likely_encoding(sample: &[u8]) -> Option<&'static Encoding> {
    if let Some(utf16) = likely_utf16(sample) {
        return Some(utf16);
    }
    if sample.is_ascii() && !sample.contains(&0) {
        return Some(UTF_8);
    }
    let telling = || sample.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.is_ascii());
    let lines = telling().count();
    let readable = |encoding| telling().filter(|line| reads(encoding, line)).collect::<Vec<_>>();
    let is_most = |read: &[&[u8]]| !read.is_empty() && 100 * read.len() >= READABLE_PER_CENT * lines;
    if is_most(&readable(UTF_8)) {
        return Some(UTF_8);
    }
    // An encoding of several bytes for a character can't read everything: one that reads all but some lines, and is guessed by those, it is.
    let by_most = OTHERS.into_iter().filter(|encoding| !encoding.is_single_byte()).find(|encoding| {
        let read = readable(encoding);
        is_most(&read) && guess(&read.concat()) == *encoding
    });
    by_most.or_else(|| std::iter::once(guess(sample)).chain(OTHERS).find(|encoding| reads(encoding, sample)))
}

fn guess(sample: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Deny);
    detector.feed(sample, true);
    let guessed = detector.guess(None, Utf8Detection::Deny);
    // The larger of the two reads all that the smaller reads.
    if guessed == GBK { GB18030 } else { guessed }
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
pub(super) fn likely_utf16(sample: &[u8]) -> Option<&'static Encoding> {
    const LEAST_PER_CENT: usize = 5;
    let zeros = |first: usize| sample.iter().skip(first).step_by(2).filter(|byte| **byte == 0).count();
    let (even, odd) = (zeros(0), zeros(1));
    let (encoding, most, least) = if odd > even { (UTF_16LE, odd, even) } else { (UTF_16BE, even, odd) };
    (100 * most >= LEAST_PER_CENT * sample.len().max(1) && 10 * least <= most).then_some(encoding)
}
