//! Which encoding an input is in: what is told of it, and what is said of one that is not what it is taken for.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::flags::InputFlags;
use super::input::shown;
use super::settings::format;
use crate::domain::figures::count;
use crate::io::roster::{NotUtf8, NotUtf8In};
use crate::io::source::{EncodingFrom, TextStream, likely_encoding};
use crate::shell::exit::ExitMessage;
use crate::shell::terminal::quoted;

/// Cells of the file that a hint shows. Source: the contract of the input.
const CELLS: usize = 2;
/// Longest cell that shows an encoding, in characters. Chosen: names are shorter.
const CELL_CHARS: usize = 40;

/// What is to be told of the encoding: that `--encoding` is not heeded, or that it is though it seems wrong.
pub(super) fn warning(flags: &InputFlags, text: &TextStream<'_>) -> Option<String> {
    let (name, contents) = (shown(&flags.file), text.contents());
    let asked = flags.encoding.filter(|asked| *asked != UTF_8 || contents.encoding != UTF_8)?;
    match contents.encoding_from {
        EncodingFrom::Mark if asked != contents.encoding => {
            let (mark, asked) = (contents.encoding.name(), label(asked));
            Some(format!("{name} begins with the byte order mark of {mark}: it is read so, whatever --encoding {asked} says"))
        }
        EncodingFrom::Asked if is_utf8_beyond_doubt(text.sample()) => {
            let asked = label(asked);
            Some(format!("{name} is valid UTF-8 as far as was looked; --encoding {asked} reads it otherwise: see whether it is needed"))
        }
        EncodingFrom::Mark | EncodingFrom::Asked | EncodingFrom::Usual => None,
    }
}

/// Whether a text has so many characters of UTF-8, and nothing else, that it can't be so by accident.
fn is_utf8_beyond_doubt(sample: &[u8]) -> bool {
    const LEAST: usize = 4;
    let text = sample.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    !has_undecodable(sample) && !text.contains('\0') && text.chars().filter(|char| !char.is_ascii()).count() >= LEAST
}

/// The last word on a file that is in another encoding than it is read in.
pub(super) fn refuse_not_utf8(flags: &InputFlags, found: &NotUtf8, text: &TextStream<'_>) -> ExitMessage {
    let read_as = text.contents().encoding;
    let verb = if read_as == UTF_8 { "not UTF-8".to_owned() } else { format!("not {}", label(read_as)) };
    let name = shown(&flags.file);
    let why = match found.place {
        NotUtf8In::Header => format!("{name}: the header is {verb}"),
        NotUtf8In::Records { count: 1, of } => format!("{name}: 1 of the first {} is {verb}", counted_records(of)),
        NotUtf8In::Records { count: bad, of } => format!("{name}: {} of the first {} are {verb}", count(bad), counted_records(of)),
    };
    // What was recoded tells nothing of what it was. Plain lines at fault may stand behind the first bytes.
    let shows_in_head = read_as != UTF_8 || found.place == NotUtf8In::Header || has_undecodable(text.sample());
    let sample = if shows_in_head { text.sample() } else { &found.bytes };
    let likely = likely_encoding(sample).filter(|likely| *likely != read_as);
    let hint = match likely {
        Some(likely) => {
            let cells = cells(likely, sample, format(flags).delimiter).join(" and ");
            let reads = if cells.is_empty() { String::new() } else { format!(" reads {cells} in it; see whether that is right") };
            format!("--encoding {}{reads}", label(likely))
        }
        None => "say with --encoding NAME which encoding it is in (gb18030, big5, shift_jis, windows-1252 …)".to_owned(),
    };
    ExitMessage::yours(why, hint)
}

/// Whether a text that may be cut at its end holds what is no UTF-8.
fn has_undecodable(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_err_and(|error| error.error_len().is_some())
}

fn counted_records(of: u64) -> String {
    crate::domain::figures::counted(of, "record")
}

/// The name of an encoding as the flag takes it.
pub(super) fn label(encoding: &'static Encoding) -> String {
    encoding.name().to_ascii_lowercase()
}

/// Some of the file's own cells, as they read in an encoding: those that tell encodings apart.
fn cells(encoding: &'static Encoding, sample: &[u8], delimiter: u8) -> Vec<String> {
    let text = encoding.decode_without_bom_handling(sample).0;
    let is_wide = encoding == UTF_16LE || encoding == UTF_16BE;
    let tells = |cell: &&str| !cell.is_empty() && (is_wide || !cell.is_ascii()) && cell.chars().count() <= CELL_CHARS;
    let mut found: Vec<String> = Vec::new();
    let cells = text.lines().flat_map(|line| line.split(char::from(delimiter))).map(|cell| cell.trim_matches(['"', ' ', '\u{feff}']));
    for cell in cells.filter(tells) {
        let cell = quoted(cell.as_bytes());
        if !found.contains(&cell) {
            found.push(cell);
        }
        if found.len() == CELLS {
            break;
        }
    }
    found
}
