//! The bytes of an input as they are meant: told by content, unpacked, and recoded to UTF-8.
//!
//! Knows no records. It reads one stream from its start to its end; whoever needs to read twice keeps what comes out of it.

mod content;
mod likely;
mod meter;
mod recoder;
mod unpack;

use std::io::{self, BufRead, BufReader, Read};

use encoding_rs::{Encoding, UTF_8};
use thiserror::Error;

pub use content::{Compression, Foreign};
use content::{Found, byte_order_mark, look_at};
pub use likely::likely_encoding;
use likely::likely_utf16;
pub use meter::{Meter, Metered};
use recoder::Recoder;
use unpack::{Unpacked, unpacked_bytes};

/// Bytes that are read at once, and by which a content is told. Chosen: far more than any mark of a format needs, and enough text to guess
/// an encoding by.
const HEAD_BYTES: usize = 256 * 1024;

/// What is wrong with an input as a whole. It comes as the inner error of an [`io::Error`] when it shows while reading.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SourceError {
    #[error("it is {0}")]
    Foreign(Foreign),
    #[error("it is compressed twice")]
    CompressedTwice,
    #[error("the {0} data are cut off")]
    CutOff(Compression),
    #[error("the {0} data are damaged")]
    Damaged(Compression),
    #[error("something that is no {0} follows the {0} data")]
    Trailing(Compression),
    #[error("its zstd window is over 128 MiB")]
    Window,
}

impl SourceError {
    /// The one that an error of reading carries, if it carries one.
    #[must_use]
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<SourceError> for io::Error {
    fn from(error: SourceError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Who says which encoding a text is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodingFrom {
    /// Nobody: it is taken for UTF-8.
    Usual,
    Asked,
    /// A byte order mark, whatever is asked for.
    Mark,
}

/// What an input turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    pub compression: Compression,
    pub encoding: &'static Encoding,
    pub encoding_from: EncodingFrom,
}

impl Contents {
    /// Whether its bytes are the text as they stand, but for a byte order mark.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.compression == Compression::None && self.encoding == UTF_8
    }
}

/// The encoding that a label of the WHATWG's Encoding Standard names, but for those that decode nothing.
#[must_use]
pub fn encoding_of_label(label: &str) -> Option<&'static Encoding> {
    Encoding::for_label_no_replacement(label.as_bytes())
}

/// How a file is packed, and in which UTF-16 its text is, if it is, and whether by its mark: by its first bytes, whatever its text is.
///
/// # Errors
/// The system's, and [`SourceError`] as their inner error.
pub fn peek(raw: impl Read) -> io::Result<(Compression, Option<(&'static Encoding, bool)>)> {
    let mut raw = BufReader::with_capacity(HEAD_BYTES, Whole::new(raw));
    let compression = match look_at(raw.fill_buf()?) {
        Found::Compressed(compression) => compression,
        Found::Text | Found::Foreign(_) => Compression::None,
    };
    let mut text = BufReader::with_capacity(HEAD_BYTES, Whole::new(Unpacked::new(raw, compression)?));
    let sample = text.fill_buf()?;
    let by_mark = byte_order_mark(sample).map(|(encoding, _)| (encoding, true));
    let found = by_mark.or_else(|| likely_utf16(sample).map(|encoding| (encoding, false)));
    Ok((compression, found.filter(|(encoding, _)| *encoding != UTF_8)))
}

/// An input as UTF-8, less a byte order mark. Undecodable bytes come out as bytes that are no UTF-8.
pub struct TextStream<'a> {
    contents: Contents,
    /// The first bytes of the text as it came, before it was recoded.
    sample: Vec<u8>,
    /// Bytes that the text has at least, where the compression says so.
    least_bytes: Option<u64>,
    text: Box<dyn Read + 'a>,
}

impl std::fmt::Debug for TextStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextStream").field("contents", &self.contents).finish_non_exhaustive()
    }
}

impl<'a> TextStream<'a> {
    /// Tells by its first bytes what `raw` is; `asked` is the encoding that it is said to be in.
    ///
    /// # Errors
    /// The system's, and [`SourceError`] as their inner error.
    pub fn open(raw: impl Read + 'a, asked: Option<&'static Encoding>) -> io::Result<Self> {
        let mut raw = BufReader::with_capacity(HEAD_BYTES, Whole::new(raw));
        let compression = match look_at(raw.fill_buf()?) {
            Found::Compressed(compression) => compression,
            Found::Text => Compression::None,
            Found::Foreign(foreign) => return Err(SourceError::Foreign(foreign).into()),
        };
        if compression == Compression::None {
            let sample = raw.fill_buf()?.to_vec();
            return Ok(Self::of_text(raw, sample, compression, asked));
        }
        let least_bytes = unpacked_bytes(raw.fill_buf()?, compression);
        let mut unpacked = BufReader::with_capacity(HEAD_BYTES, Whole::new(Unpacked::new(raw, compression)?));
        let sample = unpacked.fill_buf()?.to_vec();
        match look_at(&sample) {
            Found::Compressed(_) => Err(SourceError::CompressedTwice.into()),
            Found::Foreign(foreign) => Err(SourceError::Foreign(foreign).into()),
            Found::Text => Ok(Self { least_bytes, ..Self::of_text(unpacked, sample, compression, asked) }),
        }
    }

    fn of_text(mut bytes: BufReader<impl Read + 'a>, sample: Vec<u8>, compression: Compression, asked: Option<&'static Encoding>) -> Self {
        let mark = byte_order_mark(&sample);
        bytes.consume(mark.map_or(0, |(_, bytes)| bytes));
        let (encoding, encoding_from) = match (mark, asked) {
            (Some((encoding, _)), _) => (encoding, EncodingFrom::Mark),
            (None, Some(asked)) => (asked, EncodingFrom::Asked),
            (None, None) => (UTF_8, EncodingFrom::Usual),
        };
        let text: Box<dyn Read + 'a> = if encoding == UTF_8 { Box::new(bytes) } else { Box::new(Recoder::new(bytes, encoding)) };
        Self { contents: Contents { compression, encoding, encoding_from }, sample, least_bytes: None, text }
    }

    #[must_use]
    pub fn contents(&self) -> Contents {
        self.contents
    }

    /// Bytes that the text has at least, where the compression says so before it is read.
    #[must_use]
    pub fn least_bytes(&self) -> Option<u64> {
        let is_as_long = self.contents.encoding == UTF_8;
        self.least_bytes.filter(|_| is_as_long)
    }

    /// The first bytes of the text as it came, unpacked and not recoded.
    #[must_use]
    pub fn sample(&self) -> &[u8] {
        &self.sample
    }
}

impl Read for TextStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.text.read(buffer)
    }
}

/// Lines that are enough to tell a text by: the header, and the records by which a file is judged. Source: the contract of the input.
const HEAD_LINES: usize = 1 + 1_000;
/// Bytes that are enough of what is compressed. Chosen: any header of a frame is shorter.
const HEAD_COMPRESSED: usize = 64;

/// Whether a head with so many lines says enough, so that nobody waits for more, which may be long in coming.
fn is_enough(head: &[u8], lines: usize) -> bool {
    let may_be_enough = lines >= HEAD_LINES || head.len() >= HEAD_COMPRESSED;
    may_be_enough
        && match look_at(head) {
            Found::Compressed(_) => head.len() >= HEAD_COMPRESSED,
            Found::Text => lines >= HEAD_LINES,
            Found::Foreign(_) => false,
        }
}

/// Reads at first as much as the buffer takes, or as is enough, so that a content is told by more than a pipe happens to hold; then as it comes.
/// What came before an error is handed out before the error.
struct Whole<R> {
    input: R,
    has_begun: bool,
    /// Not told yet, for bytes came before it.
    failed: Option<io::Error>,
}

impl<R> Whole<R> {
    const fn new(input: R) -> Self {
        Self { input, has_begun: false, failed: None }
    }
}

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let is_head = !self.has_begun;
        self.has_begun = true;
        let (mut len, mut lines) = (0, 0);
        while len < buffer.len() && self.failed.is_none() && (is_head || len == 0) {
            match self.input.read(&mut buffer[len..]) {
                Ok(0) => break,
                Ok(bytes) => {
                    lines += memchr::memchr_iter(b'\n', &buffer[len..len + bytes]).count();
                    len += bytes;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failed = Some(error),
            }
            if is_head && is_enough(&buffer[..len], lines) {
                break;
            }
        }
        if len > 0 { Ok(len) } else { self.failed.take().map_or(Ok(0), Err) }
    }
}

#[cfg(test)]
mod tests;
