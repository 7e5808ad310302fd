//! The input file as the shell sees it: how it is opened, and what to do about one that is not what it claims.

use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use encoding_rs::Encoding;

use super::access::{Remedies, cannot_use, why_denied};
use super::command_line::{delimiter_word, shell_word};
use super::conversions::{line_feeds_hint, source_hint};
use super::flags::InputFlags;
use super::opened::OpenedInput;
use super::settings::format;
use crate::domain::account::Field;
use crate::domain::figures::counted;
use crate::domain::position::{Dialect, FileStat, InputPosition, ReadAs};
use crate::domain::tag::Tag;
use crate::io::roster::{
    BlankLines, Format, Header, HeaderError, InputFile, Look, NoHeader, Original, Record, Roster, RosterError, Watch, Watched,
};
use crate::io::source::{Meter, SourceError};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::{causes, print_stderr, quoted};

/// Whether the file is standard input.
pub(super) fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// Whether the file can't be read twice: standard input under one of its names, a pipe, a device.
pub(super) fn is_stream(path: &Path) -> bool {
    let is_the_systems = path == Path::new("/dev/stdin") || ["/dev/fd", "/proc"].iter().any(|folder| path.starts_with(folder));
    is_stdin(path) || is_the_systems || std::fs::metadata(path).is_ok_and(|stat| !stat.is_file() && !stat.is_dir())
}

/// Opens a file, with its stat fields before anything is read of it; `name` is what it is called to people.
pub(super) fn open_file(path: &Path, name: &Path) -> Result<(InputFile, FileStat), ExitMessage> {
    let open = || {
        let file = InputFile::open(path)?;
        wait_for_the_last_line(&file)?;
        file.fingerprint().map(|stat| (file, stat))
    };
    open().map_err(|error: io::Error| roster_error(name, &error.into()))
}

/// How long a file whose last line has no end must not have grown before that line is taken for whole. Source: the contract of the input.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is waited for. Chosen: what grows by parts of lines for longer than that is read as it stands, and watched.
const WAITS_MAX: u32 = 10;

/// Waits for whoever may be about to write the rest of the last line.
fn wait_for_the_last_line(file: &InputFile) -> io::Result<()> {
    for _ in 0..WAITS_MAX {
        let stat = file.fingerprint()?;
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_nanos(stat.modified_ns.unsigned_abs()));
        // A time to come is another clock's: it says nothing.
        let left = age.map_or(Duration::ZERO, |age| QUIET.saturating_sub(age));
        if left.is_zero() || stat.len == 0 || !file.is_regular() || file.ends_with_newline()? {
            return Ok(());
        }
        std::thread::park_timeout(left);
    }
    Ok(())
}

/// What is said of a file whose last line has no end.
pub(super) const CUT_WORDS: &str = "the file has no line end at its end: it may have been cut off";

/// Whether the last line of a file has no end.
pub(super) fn is_cut(file: &InputFile) -> bool {
    file.is_regular() && matches!((file.fingerprint(), file.ends_with_newline()), (Ok(stat), Ok(false)) if stat.len > 0)
}

/// How a file is read that the flags ask for, with the delimiter that it says itself.
///
/// # Errors
/// What is wrong with its header (exit code 2).
pub(super) fn as_it_is_read(file: &InputFile, flags: &InputFlags) -> Result<Format, ExitMessage> {
    let asked = format(flags);
    let roster = Roster::of(file, &asked).map_err(|error| roster_error(&flags.file, &error))?;
    Ok(Format { delimiter: roster.reading().delimiter, ..asked })
}

/// How a file of no bytes is read where it may have no records.
pub(super) fn without_records(flags: &InputFlags) -> Format {
    Format { no_header: NoHeader::NoRecords, ..format(flags) }
}

/// The records of any input.
pub(super) type Records = Box<dyn Iterator<Item = Result<Record, RosterError>>>;

/// An input that is read as it comes, and of which nothing is kept: a file as it stands, or the text of anything else.
pub(super) struct Stream {
    /// The file, if it can be read twice, with its stat fields before anything was read of it.
    file: Option<(InputFile, FileStat)>,
    asked: Option<&'static Encoding>,
    /// Not of a file that stands as it is: the text from its start, until it is read.
    text: Option<Box<dyn Read>>,
    meter: Option<Meter>,
}

impl Stream {
    pub(super) fn open(flags: &InputFlags) -> Result<Self, ExitMessage> {
        let opened = OpenedInput::open(flags)?;
        opened.warning().into_iter().for_each(|words| print_stderr(&format_args!("warning: {words}")));
        let file = opened.regular().map(|(file, stat)| (file.clone(), stat));
        if opened.stands_as_it_is() {
            return Ok(Self { file, asked: None, text: None, meter: None });
        }
        let meter = Some(opened.meter().clone());
        Ok(Self { file, asked: flags.encoding, text: Some(Box::new(opened.into_text())), meter })
    }

    /// The roster at the input's start. Only a file has one twice.
    pub(super) fn roster(&mut self, format: &Format) -> Result<Roster<Box<dyn Read>>, RosterError> {
        let text: Box<dyn Read> = match (self.text.take(), &mut self.file, &self.meter) {
            (Some(text), ..) => text,
            (None, Some((file, _)), None) => Box::new(file.reader()),
            (None, Some((file, stat)), Some(_)) => {
                *stat = file.fingerprint()?;
                Box::new(OpenedInput::reopen(file, self.asked, self.meter.insert(Meter::default()))?)
            }
            (None, None, _) => Box::new(io::empty()),
        };
        Roster::new(text, format)
    }

    /// Whether its last line has no end, as far as its file tells.
    pub(super) fn is_cut(&self) -> bool {
        self.meter.is_none() && self.file.as_ref().is_some_and(|(file, _)| is_cut(file))
    }

    pub(super) fn can_be_read_again(&self) -> bool {
        self.file.is_some()
    }

    /// The header, the blank lines and all records, as long as a file stays what it is.
    pub(super) fn records(&mut self, format: &Format) -> Result<(Header, BlankLines, Records), RosterError> {
        match &self.file {
            Some((file, stat)) if self.meter.is_none() => {
                let roster = Roster::of(file, format)?;
                Ok((roster.header().clone(), roster.blank_lines(), Box::new(Watched::new(roster, file.clone(), *stat))))
            }
            Some(_) | None => {
                let roster = self.roster(format)?;
                Ok((roster.header().clone(), roster.blank_lines(), Box::new(roster)))
            }
        }
    }

    /// Whether a file that was read up to `at` has grown since, or nothing has changed.
    pub(super) fn look_again(&mut self, dialect: Dialect, at: InputPosition) -> Result<Look, RosterError> {
        match (&mut self.file, &self.meter) {
            (Some((file, stat)), None) => {
                let now = file.fingerprint()?;
                let look = Watch::new(file.clone(), dialect, *stat).look_through((at.offset, at.digest));
                *stat = now;
                look
            }
            (Some(_), Some(_)) => match self.ensure_unchanged() {
                Err(RosterError::Grown) => Ok(Look::Grown),
                looked => looked.map(|()| Look::Same),
            },
            (None, _) => Ok(Look::Same),
        }
    }

    /// Refuses a file that was unpacked or recoded and has not stayed what it was meanwhile.
    pub(super) fn ensure_unchanged(&self) -> Result<(), RosterError> {
        match (&self.file, &self.meter) {
            (Some((file, stat)), Some(meter)) => Original::of_read(file, *stat, meter.read())?.ensure_unchanged(),
            (Some(_) | None, _) => Ok(()),
        }
    }
}

/// What a roster's error means: mostly that the file needs fixing, and how.
pub(super) fn roster_error(path: &Path, error: &RosterError) -> ExitMessage {
    let why = format!("{}: {}", shown(path), causes(error));
    match error {
        RosterError::Header(header) => ExitMessage::yours(why, header_hint(path, header)),
        RosterError::OpenQuote { opened, up_to: _ } => ExitMessage::yours(
            why,
            format!("close the quote that opens at line {}, column {}, or double it if it is part of the text", opened.line, opened.column),
        ),
        RosterError::EscapedQuote { .. } => ExitMessage::yours(why, format!("read it with --escape {}", shell_word("\\"))),
        RosterError::LongRecord { line } => {
            ExitMessage::yours(why, format!("look at line {line}: a line end is missing there, or the file is no CSV"))
        }
        RosterError::Modified | RosterError::Grown => {
            ExitMessage::yours(why, "let whoever writes it finish, then give the same command again")
        }
        RosterError::Read(error) => match SourceError::of(error) {
            Some(found) => ExitMessage::yours(format!("{}: {found}", shown(path)), source_hint(path, found)),
            None if error.kind() == io::ErrorKind::NotFound && is_rejects(path) => {
                let why = format!("{why}; a run without rejected rows leaves no such file");
                ExitMessage::yours(why, "if the run of the original file says that all rows are imported, nothing is left to do")
            }
            None => unreadable(format!("{why}{}", why_denied(path, error)), error),
        },
    }
}

/// Whether the name is one that rejects have.
fn is_rejects(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains(".rejects."))
}

/// Adds to the last word of a finished run that another file has come under the input's name meanwhile, or that there is none any more.
pub(super) fn with_new_file(word: ExitMessage, path: &Path, input: &InputFile) -> ExitMessage {
    if is_stream(path) || input.is_at(path) {
        return word;
    }
    if matches!(path.try_exists(), Ok(false)) {
        tracing::warn!("{}: the file was removed while it was read; the run has read it to its end", path.display());
        let hint = if word.exit == Exit::Done {
            Some("nothing is left to do; the input has been removed meanwhile".to_owned())
        } else {
            word.hint
        };
        return ExitMessage { hint, ..word };
    }
    tracing::warn!("{}: a new file has come under this name while the old one was read; the run is the old one's", path.display());
    let news = format!("a new file has come under the name {}: the same command begins on it", path.display());
    // What a command would do with the file of that name is no longer true; what is said of the rejects is.
    let hint = if word.exit == Exit::Done { None } else { word.hint };
    ExitMessage { exit: word.exit, why: word.why, hint: Some(hint.map_or_else(|| news.clone(), |hint| format!("{hint}; {news}"))) }
}

/// A file that is not there, or not for us, is the caller's to fix; anything else is the disk's.
pub(super) fn unreadable(why: String, error: &io::Error) -> ExitMessage {
    let remedies = Remedies { place: "check the path and its permissions", disk: "check the disk, then give the same command again" };
    cannot_use(why, error, remedies)
}

/// What is said of blank lines, if there were any.
pub(super) fn blank_words(blank: u64) -> Option<String> {
    (blank > 0).then(|| format!("{} skipped", counted(blank, "blank line")))
}

/// Tells at the end of a run how many blank lines it has passed, if any.
pub(super) fn tell_blank(blank: u64) {
    if let Some(words) = blank_words(blank) {
        tracing::info!("{words}");
    }
}

/// A path in a message.
pub(super) fn shown(path: &Path) -> String {
    if is_stdin(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn header_hint(path: &Path, error: &HeaderError) -> String {
    match error {
        HeaderError::Missing => "the first line must name the columns, UserID among them".to_owned(),
        HeaderError::Utf16 => "if it is UTF-16 without a byte order mark: --encoding utf-16le, or utf-16be".to_owned(),
        HeaderError::CarriageReturns => line_feeds_hint(path),
        HeaderError::Ambiguous { field, first, second } if first == second => {
            let column = quoted(first.as_bytes());
            format!("rename one of the columns {column}, so that it is clear which one is meant{}", or_left_out(*field))
        }
        HeaderError::Ambiguous { field, first, .. } => {
            format!("say which one is meant: {}{}", map_flag(*field, first), or_left_out(*field))
        }
        HeaderError::NoColumn { delimiter: Some(delimiter), .. } => {
            format!("the columns are separated otherwise: --delimiter {}", delimiter_word(*delimiter))
        }
        HeaderError::NoColumn { field, delimiter: None, .. } => format!("say which column it is: --map {field}=COLUMN"),
        HeaderError::EscapeIsDelimiter => "give two different characters with --escape and --delimiter".to_owned(),
        HeaderError::MappedTwice { field } => format!("give --map {field}=COLUMN once"),
        HeaderError::NoColumnOfTag { tag, .. } => format!("say which column it is: --profile {tag}=COLUMN; --profile {tag}= reads none"),
        HeaderError::TagAskedTwice { tag } => format!("give --profile {tag}=COLUMN once"),
        HeaderError::TwoColumns { tag, .. } => {
            format!("rename one of the columns, so that it is clear which one is meant; {} reads none", profile_flag(tag, ""))
        }
        HeaderError::ColumnTwice { tag, .. } => {
            format!("say for one of them which other column is meant, or {} reads none", profile_flag(tag, ""))
        }
        HeaderError::TooManyTags { .. } => "leave some of them out: --profile TAG= reads none".to_owned(),
        HeaderError::WordTwice { word } => format!("give --value {} once", shell_word(format!("{}:{}=TO", word.tag, word.from))),
        HeaderError::NoColumnOfWord { tag } => format!("say which column it is: --profile {tag}=COLUMN, or leave --value {tag}:… out"),
    }
}

/// The flag that reads something from a column.
pub(super) fn reading_flag(meant: &ReadAs, column: &str) -> String {
    match meant {
        ReadAs::Field(field) => map_flag(*field, column),
        ReadAs::Tag(tag) => profile_flag(tag, column),
    }
}

/// The flag that takes a tag from a column.
pub(super) fn profile_flag(tag: &Tag, column: &str) -> String {
    format!("--profile {}", shell_word(format!("{tag}={column}")))
}

/// The flag that takes a field from a column.
pub(super) fn map_flag(field: Field, column: &str) -> String {
    format!("--map {}", shell_word(format!("{field}={column}")))
}

/// What else can be done about a field that need not be read.
fn or_left_out(field: Field) -> String {
    match field {
        Field::UserId => String::new(),
        Field::Nick | Field::FaceUrl => format!("; --map {field}= reads none"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use super::*;

    fn last_word(text: &[u8], format: &Format) -> ExitMessage {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        let mut roster = match Roster::open(file.path(), format) {
            Ok(roster) => roster,
            Err(error) => return without_folder(roster_error(file.path(), &error), file.path()),
        };
        let error = roster.find_map(Result::err).unwrap();
        without_folder(roster_error(file.path(), &error), file.path())
    }

    fn without_folder(word: ExitMessage, path: &Path) -> ExitMessage {
        let plain = |text: String| text.replace(&path.display().to_string(), "users.csv");
        ExitMessage { why: plain(word.why), hint: word.hint.map(plain), ..word }
    }

    #[test]
    fn a_bad_file_is_explained_with_a_way_out() {
        let check = |text: &[u8], expected: &str| {
            let word = last_word(text, &Format::default());
            assert_eq!(word.exit, Exit::UserError);
            assert_eq!(word.to_string(), expected);
        };
        check(
            b"",
            "error: users.csv: the file is empty: there is no header\nhint: the first line must name the columns, UserID among them",
        );
        check(b"id,Nick\n", "error: users.csv: the header has no column \"UserID\"\nhint: say which column it is: --map UserID=COLUMN");
        check(b"id\n", "error: users.csv: the header has no column \"UserID\"\nhint: say which column it is: --map UserID=COLUMN");
        check(
            b"\n\xef\xbb\xbfUserID;Nick\r\n",
            "error: users.csv: the header has no column \"UserID\"\nhint: the columns are separated otherwise: --delimiter ';'",
        );
        check(
            b"UserID\tNick\n",
            "error: users.csv: the header has no column \"UserID\"\nhint: the columns are separated otherwise: --delimiter tab",
        );
        check(
            b"UserID,Nick,Nick\n",
            "error: users.csv: the header has the column \"Nick\" twice\n\
             hint: rename one of the columns \"Nick\", so that it is clear which one is meant; --map Nick= reads none",
        );
        check(
            b"UserID,user id\n",
            "error: users.csv: the header has two columns for UserID: \"UserID\" and \"user id\"\n\
             hint: say which one is meant: --map UserID=UserID",
        );
        check(
            b"\xff\xfeU\0",
            "error: users.csv: the file is UTF-16 or binary\nhint: if it is UTF-16 without a byte order mark: --encoding utf-16le, or utf-16be",
        );
        check(
            b"UserID\ra\rb\r",
            "error: users.csv: the lines end in carriage returns alone\nhint: tr '\\r' '\\n' < users.csv > users.csv.lines.csv, then take users.csv.lines.csv",
        );
        check(
            b"UserID\na\n\"b\n",
            "error: users.csv: the quote at line 3, column 1 is not closed before the end of the file\n\
             hint: close the quote that opens at line 3, column 1, or double it if it is part of the text",
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_the_callers_and_a_failing_disk_is_not() {
        let check = |kind: ErrorKind, expected: Exit| {
            assert_eq!(roster_error(Path::new("users.csv"), &RosterError::Read(kind.into())).exit, expected, "{kind}");
        };
        check(ErrorKind::NotFound, Exit::UserError);
        check(ErrorKind::PermissionDenied, Exit::UserError);
        check(ErrorKind::IsADirectory, Exit::UserError);
        check(ErrorKind::StaleNetworkFileHandle, Exit::Fatal);
    }
}
