//! Commands that make a CSV of an input that is none, or not one that can be read as it is. They overwrite nothing.

use std::fs::File;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;

use super::command_line::{file_word, shell_word};
use super::input::is_stream;
use crate::io::files::folder_of;
use crate::io::source::{Compression, Foreign, SourceError, peek};

/// Names that are tried for a file that is to be made. Chosen: nobody converts one file so often and keeps all of it.
const NAMES_MAX: u32 = 1_000;
/// What is said of an input that has no name: a command needs one.
const SAVE_FIRST: &str = "save it to a file and give that one: what is said then has the command that converts it";

/// What makes a CSV of a file that is none, or where a whole one is to be had.
pub(super) fn source_hint(path: &Path, error: &SourceError) -> String {
    match error {
        SourceError::CompressedTwice => "unpack it once, then give it again".to_owned(),
        SourceError::CutOff(_) | SourceError::Damaged(_) | SourceError::Trailing(_) => {
            "get the whole file: copy or export it again; nothing of it was sent by this command".to_owned()
        }
        SourceError::Foreign(_) | SourceError::Window if is_stream(path) => SAVE_FIRST.to_owned(),
        SourceError::Foreign(foreign) => format!("make a CSV of it: {}", convert(*foreign, path)),
        SourceError::Window => format!("unpack it first: zstd -d --long=31 -c {} > {}", file_word(path), file_word(&csv_of(path))),
    }
}

/// What makes line feeds of carriage returns.
pub(super) fn line_feeds_hint(path: &Path) -> String {
    if is_stream(path) {
        return SAVE_FIRST.to_owned();
    }
    let lines = file_word(&free(&plain_name(path), "lines.csv"));
    let tr = r"tr '\r' '\n'";
    let command = text_of(path).map_or_else(|| format!("{tr} < {}", file_word(path)), |text| format!("{text} | {tr}"));
    format!("{command} > {lines}, then take {lines}")
}

/// What makes a file without its byte order mark, and which file that is.
pub(super) fn without_mark(path: &Path) -> String {
    if is_stream(path) {
        return "its first three bytes".to_owned();
    }
    let unmarked = file_word(&free(&plain_name(path), "unmarked.csv"));
    let command = text_of(path).map_or_else(|| format!("tail -c +4 {}", file_word(path)), |text| format!("{text} | tail -c +4"));
    format!("{command} > {unmarked}, then take {unmarked}")
}

/// A command that writes the text of a file as UTF-8, if that is not what stands in it.
fn text_of(path: &Path) -> Option<String> {
    let (compression, utf16) = File::open(path).and_then(peek).ok()?;
    let packed = unpacking(compression).map(|tool| format!("{tool} {}", file_word(path)));
    let recoding = |(encoding, is_marked): (&'static Encoding, bool)| {
        // With the mark the tool sees for itself, and drops it.
        let from = if is_marked { "UTF-16" } else { encoding.name() };
        format!("iconv -f {from} -t UTF-8")
    };
    match (packed, utf16.map(recoding)) {
        (Some(packed), Some(recode)) => Some(format!("{packed} | {recode}")),
        (None, Some(recode)) => Some(format!("{recode} {}", file_word(path))),
        (packed, None) => packed,
    }
}

fn unpacking(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some("gzip -dc"),
        Compression::Zstd => Some("zstd -dc"),
    }
}

/// A command that makes a CSV of a file that is none.
fn convert(foreign: Foreign, path: &Path) -> String {
    let (file, csv) = (file_word(path), file_word(&csv_of(path)));
    match foreign {
        Foreign::Json => {
            let command =
                text_of(path).map_or_else(|| format!("jq -rs '{JSON_ROWS}' {file}"), |text| format!("{text} | jq -rs '{JSON_ROWS}'"));
            return format!("{command} > {csv}");
        }
        Foreign::Bzip2 => return format!("bzip2 -dc {file} > {csv}"),
        Foreign::Xz => return format!("xz -dc {file} > {csv}"),
        Foreign::Lz4 => return format!("lz4 -dc {file} > {csv}"),
        Foreign::SevenZip => return format!("7z x -so {file} > {csv}"),
        Foreign::Workbook | Foreign::OldWorkbook | Foreign::Zip | Foreign::Parquet | Foreign::Sqlite => {}
    }
    // The tools for these read only files that are unpacked.
    let Some(tool) = File::open(path).and_then(peek).ok().and_then(|(compression, _)| unpacking(compression)) else {
        return convert_file(foreign, path, path);
    };
    let unpacked = free(&plain_name(path), "unpacked");
    format!("{tool} {file} > {} && {}", file_word(&unpacked), convert_file(foreign, &unpacked, path))
}

/// As [`convert`], for tools that need a file; `path` is what the CSV is named after.
fn convert_file(foreign: Foreign, file: &Path, path: &Path) -> String {
    let csv = file_word(&csv_of(path));
    let word = file_word(file);
    match foreign {
        Foreign::Workbook | Foreign::OldWorkbook => convert_workbook(file),
        Foreign::Zip => format!("unzip -p {word} > {csv}"),
        Foreign::Parquet => format!("duckdb -csv -c \"SELECT * FROM read_parquet('/dev/stdin')\" < {word} > {csv}"),
        Foreign::Sqlite => format!("sqlite3 -header -csv {word} \"SELECT * FROM \\\"$(sqlite3 {word} \"{SQLITE_TABLE}\")\\\"\" > {csv}"),
        Foreign::Json | Foreign::Bzip2 | Foreign::Xz | Foreign::Lz4 | Foreign::SevenZip => String::new(),
    }
}

/// The tool names the file itself, by the name of the workbook: where that is taken, in a folder of its own.
fn convert_workbook(file: &Path) -> String {
    let convert = "libreoffice --headless --convert-to 'csv:Text - txt - csv (StarCalc):44,34,76' --outdir";
    let word = file_word(file);
    if exists(&file.with_extension("csv")) {
        let folder = file_word(&free(file, "converted"));
        return format!("mkdir {folder} && {convert} {folder} {word}");
    }
    format!("{convert} {} {word}", shell_word(folder_of(file)))
}

/// The accounts of any objects that have a UserID, however deep they are, and whatever the case of their keys.
const JSON_ROWS: &str = "def f($n): to_entries | map(select((.key | ascii_downcase | gsub(\"[ _-]\"; \"\")) == $n)) | .[0].value; \
     [\"UserID\",\"Nick\",\"FaceUrl\"], (.. | objects | select(f(\"userid\") != null) | [f(\"userid\"), f(\"nick\"), f(\"faceurl\")]) | @csv";

/// The name of a table with a UserID column; where none has one, of the first.
const SQLITE_TABLE: &str = "SELECT m.name FROM sqlite_master m, pragma_table_info(m.name) c \
     WHERE m.type IN ('table', 'view') AND m.name NOT LIKE 'sqlite_%' \
     ORDER BY replace(replace(replace(lower(trim(c.name)), '_', ''), '-', ''), ' ', '') = 'userid' DESC, m.rowid LIMIT 1";

/// The CSV that is made of a file, under a name that is free.
fn csv_of(path: &Path) -> PathBuf {
    let csv = plain_name(path).with_extension("csv");
    if exists(&csv) { free(&csv, "converted.csv") } else { csv }
}

/// A name that is free, with this ending instead of the file's.
fn free(path: &Path, ending: &str) -> PathBuf {
    let numbered = (2..NAMES_MAX).map(|number| path.with_extension(format!("{number}.{ending}")));
    let mut names = std::iter::once(path.with_extension(ending)).chain(numbered);
    names.find(|name| !exists(name)).unwrap_or_else(|| path.with_extension(format!("{}.{ending}", std::process::id())))
}

fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// A name without the ending of a compression.
fn plain_name(path: &Path) -> PathBuf {
    let is_packed = path.extension().is_some_and(|ending| ["gz", "zst", "bz2", "xz", "lz4"].iter().any(|packed| ending == *packed));
    if is_packed { path.with_extension("") } else { path.to_owned() }
}
