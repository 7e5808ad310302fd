//! Which encoding an input is in: what is told of it, and what is said of one that is not what it is taken for.

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

use super::conversions::without_mark;
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
        EncodingFrom::Asked if asked != UTF_8 => utf8_cell(text.sample(), format(flags).delimiter).map(|cell| {
            let (asked_reads, reads) = (quoted(asked.decode_without_bom_handling(&cell).0.as_bytes()), quoted(&cell));
            let asked = label(asked);
            format!("{name} is valid UTF-8, and {reads} in it is read as {asked_reads}: if that is wrong, leave --encoding {asked} out")
        }),
        EncodingFrom::Mark | EncodingFrom::Asked | EncodingFrom::Usual => None,
    }
}

/// A cell that shows that a text is UTF-8, if its first records are: one that is not ASCII.
fn utf8_cell(sample: &[u8], delimiter: u8) -> Option<Vec<u8>> {
    // The header, and the records by which a file is judged. Source: the contract of the input.
    const LINES: usize = 1 + 1_000;
    let first: usize = sample.split_inclusive(|byte| *byte == b'\n').take(LINES).map(<[u8]>::len).sum();
    let is_utf8 = !has_undecodable(&sample[..first]) && !sample.contains(&0);
    let shown = cells(UTF_8, &sample[..first], delimiter);
    is_utf8.then(|| shown.into_iter().next().map(String::into_bytes)).flatten()
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
    ExitMessage::yours(why, way_out(flags, text, sample))
}

/// What to do about a file that is in another encoding than it is read in.
fn way_out(flags: &InputFlags, text: &TextStream<'_>, sample: &[u8]) -> String {
    let read_as = text.contents();
    let is_marked = read_as.encoding_from == EncodingFrom::Mark;
    let sample = sample.strip_prefix(&UTF8_MARK).unwrap_or(sample);
    let likely = likely_encoding(sample);
    let reads = |likely| {
        let cells: Vec<String> = cells(likely, sample, format(flags).delimiter).iter().map(|cell| quoted(cell.as_bytes())).collect();
        if cells.is_empty() { String::new() } else { format!(" reads {} in it; see whether that is right", cells.join(" and ")) }
    };
    match likely {
        Some(likely) if is_marked && read_as.encoding == UTF_8 && likely != UTF_8 => {
            let likely_reads = format!("--encoding {}{}", label(likely), reads(likely));
            format!("its byte order mark is wrong and beats --encoding, so take it off: {}; {likely_reads}", without_mark(&flags.file))
        }
        _ if is_marked => format!("its byte order mark says {}, and parts of it are damaged: export it again", read_as.encoding.name()),
        Some(likely) if likely == UTF_8 && read_as.encoding == UTF_8 => {
            "most of it is UTF-8, and some of it in another encoding: export it again, all in one".to_owned()
        }
        Some(likely) if likely == UTF_8 => {
            let reads = reads(likely);
            if reads.is_empty() { "leave --encoding out".to_owned() } else { format!("leave --encoding out: UTF-8{reads}") }
        }
        Some(likely) if likely != read_as.encoding => format!("--encoding {}{}", label(likely), reads(likely)),
        Some(_) | None => "say with --encoding NAME which encoding it is in (gb18030, big5, shift_jis, windows-1252 …)".to_owned(),
    }
}

/// What a text in UTF-8 may begin with. Source: Unicode, 23.8.
const UTF8_MARK: [u8; 3] = *b"\xef\xbb\xbf";

/// Whether a text that may be cut at its end holds what is no UTF-8.
fn has_undecodable(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_err_and(|error| error.error_len().is_some())
}

fn counted_records(of: u64) -> String {
    crate::domain::figures::counted(of, "row")
}

/// The name of an encoding as the flag takes it.
pub(super) fn label(encoding: &'static Encoding) -> String {
    encoding.name().to_ascii_lowercase()
}

/// Some of the file's own cells, as they read in an encoding: those that tell encodings apart.
fn cells(encoding: &'static Encoding, sample: &[u8], delimiter: u8) -> Vec<String> {
    let text = encoding.decode_without_bom_handling(sample).0;
    let is_wide = encoding == UTF_16LE || encoding == UTF_16BE;
    let tells =
        |cell: &&str| !cell.is_empty() && !cell.contains('\u{fffd}') && (is_wide || !cell.is_ascii()) && cell.chars().count() <= CELL_CHARS;
    let mut found: Vec<String> = Vec::new();
    let cells = text.lines().flat_map(|line| line.split(char::from(delimiter))).map(|cell| cell.trim_matches(['"', ' ', '\u{feff}']));
    for cell in cells.filter(tells) {
        if !found.iter().any(|known| known == cell) {
            found.push(cell.to_owned());
        }
        if found.len() == CELLS {
            break;
        }
    }
    found
}
