//! An input from its name to the text that is read: what it is by its content, and whether its first records can be read at all.

use std::io::{self, Cursor, Read};

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use super::encoding::{refuse_not_utf8, warning};
use super::flags::InputFlags;
use super::input::{is_stdin, is_stream, open_file, roster_error};
use super::settings::format;
use crate::domain::position::FileStat;
use crate::io::roster::{InputFile, NotUtf8, NotUtf8In, RosterError, first_look};
use crate::io::source::{Contents, EncodingFrom, Meter, Metered, TextStream};
use crate::shell::exit::ExitMessage;

/// An input that is open, with its header and its first 1,000 records judged.
pub(super) struct OpenedInput {
    /// None of standard input.
    file: Option<(InputFile, FileStat)>,
    /// Whether it is called by a name of a stream.
    is_stream: bool,
    /// What is to be told of its encoding.
    warning: Option<String>,
    meter: Meter,
    /// Where the last record ends that was judged.
    judged: Option<u64>,
    /// The first part of the text, which was judged, and the rest.
    head: Vec<u8>,
    rest: TextStream<'static>,
}

impl OpenedInput {
    /// Opens what the flags name. Of a pipe this waits for whoever writes it, as standard input does; a signal ends that.
    ///
    /// # Errors
    /// What is wrong with it as a whole: exit code 2.
    pub(super) fn open(flags: &InputFlags) -> Result<Self, ExitMessage> {
        let path = &flags.file;
        let file = if is_stdin(path) { None } else { Some(open_file(path, path)?) };
        let raw: Box<dyn Read> = match &file {
            Some((file, _)) => Box::new(file.reader()),
            None => Box::new(io::stdin()),
        };
        let failed = |error: io::Error| roster_error(path, &error.into());
        let meter = Meter::default();
        let mut rest = TextStream::open(Metered::new(raw, &meter), flags.encoding).map_err(failed)?;
        let mut head = Vec::new();
        let look = first_look(Tee { text: &mut rest, head: &mut head }, &format(flags)).map_err(|error| roster_error(path, &error))?;
        let misnamed = || is_misnamed(&rest).then(|| NotUtf8 { place: NotUtf8In::Header, bytes: Vec::new() });
        if let Some(found) = look.not_utf8.or_else(misnamed) {
            return Err(refuse_not_utf8(flags, &found, &rest));
        }
        let warning = warning(flags, &rest);
        Ok(Self { file, is_stream: is_stream(path), warning, meter, judged: look.end, head, rest })
    }

    /// Whether its bytes can be read as they stand in the file, as often as one likes.
    pub(super) fn stands_as_it_is(&self) -> bool {
        self.regular().is_some() && self.contents().is_plain()
    }

    /// The file, if it can be read twice.
    pub(super) fn regular(&self) -> Option<(&InputFile, FileStat)> {
        self.file.as_ref().filter(|(file, _)| !self.is_stream && file.is_regular()).map(|(file, stat)| (file, *stat))
    }

    pub(super) fn contents(&self) -> Contents {
        self.rest.contents()
    }

    /// What is to be told of its encoding, if anything is.
    pub(super) fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// How long the text is at least, where that is known before it is read.
    pub(super) fn least_bytes(&self) -> Option<u64> {
        let of_file = self.regular().map(|(_, stat)| {
            // UTF-16 takes two bytes for what UTF-8 may have in one; compression and other encodings only save.
            let is_wide = self.contents().encoding.name().starts_with("UTF-16");
            if is_wide { stat.len / 2 } else { stat.len }
        });
        of_file.max(self.rest.least_bytes())
    }

    /// The text of the first records; of a short input all of it.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// As [`Self::head`], up to the end of a record, or all of it where it can't be cut into records.
    pub(super) fn judged(&self) -> &[u8] {
        let end = self.judged.and_then(|end| usize::try_from(end).ok());
        end.map_or(&self.head, |end| &self.head[..end.min(self.head.len())])
    }

    pub(super) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The text from its start, once.
    pub(super) fn into_text(self) -> impl Read + use<> {
        Cursor::new(self.head).chain(self.rest)
    }

    /// What would be read again of a file, recoded as it was.
    pub(super) fn reopen(file: &InputFile, asked: Option<&'static Encoding>, meter: &Meter) -> Result<TextStream<'static>, RosterError> {
        Ok(TextStream::open(Metered::new(file.reader(), meter), asked)?)
    }
}

/// Whether a text is said to be UTF-16 and can't be, though every two bytes may make a character: delimiters and line ends have a zero.
fn is_misnamed(text: &TextStream) -> bool {
    let contents = text.contents();
    let is_utf16 = contents.encoding == UTF_16LE || contents.encoding == UTF_16BE;
    is_utf16 && contents.encoding_from == EncodingFrom::Asked && !text.sample().is_empty() && !text.sample().contains(&0)
}

/// Keeps what is read of a text.
struct Tee<'a> {
    text: &'a mut TextStream<'static>,
    head: &'a mut Vec<u8>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.text.read(buffer)?;
        self.head.extend_from_slice(&buffer[..bytes]);
        Ok(bytes)
    }
}
