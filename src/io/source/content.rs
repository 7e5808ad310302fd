//! What a file is, by its first bytes.

use std::fmt;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};

/// How a text is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "plain",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// Files that hold tables and are no CSV, or are packed as nothing here unpacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// xlsx, which is a ZIP archive.
    Workbook,
    /// xls.
    OldWorkbook,
    /// Any other ZIP archive.
    Zip,
    Parquet,
    Sqlite,
    Json,
    Bzip2,
    Xz,
    Lz4,
    SevenZip,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Foreign::Workbook => "an Excel workbook (xlsx), not a CSV",
            Foreign::OldWorkbook => "an Excel workbook (xls), not a CSV",
            Foreign::Zip => "a ZIP archive, not a CSV",
            Foreign::Parquet => "a Parquet file, not a CSV",
            Foreign::Sqlite => "an SQLite database, not a CSV",
            Foreign::Json => "JSON, not a CSV",
            Foreign::Bzip2 => "packed with bzip2, which is not unpacked here",
            Foreign::Xz => "packed with xz, which is not unpacked here",
            Foreign::Lz4 => "packed with lz4, which is not unpacked here",
            Foreign::SevenZip => "a 7z archive, which is not unpacked here",
        })
    }
}

/// What the first bytes of a file say.
pub(super) enum Found {
    Text,
    Compressed(Compression),
    Foreign(Foreign),
}

/// Looks at the first bytes of a file. Sources of the marks: RFC 1952, RFC 8878, and the formats' own pages.
pub(super) fn look_at(head: &[u8]) -> Found {
    // A skippable frame of zstd may come first.
    let is_skippable = head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == *b"\x2a\x4d\x18";
    match head {
        [0x1f, 0x8b, ..] => Found::Compressed(Compression::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Found::Compressed(Compression::Zstd),
        _ if is_skippable => Found::Compressed(Compression::Zstd),
        [b'P', b'K', 3, 4, ..] => Found::Foreign(if is_workbook(head) { Foreign::Workbook } else { Foreign::Zip }),
        [0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1, ..] => Found::Foreign(Foreign::OldWorkbook),
        [b'P', b'A', b'R', b'1', rest @ ..] if !rest.first().is_some_and(|byte| is_of_a_header(*byte)) => Found::Foreign(Foreign::Parquet),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Found::Foreign(Foreign::Bzip2),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Found::Foreign(Foreign::Xz),
        [4, 0x22, 0x4d, 0x18, ..] => Found::Foreign(Foreign::Lz4),
        [b'7', b'z', 0xbc, 0xaf, 0x27, 0x1c, ..] => Found::Foreign(Foreign::SevenZip),
        _ if head.starts_with(b"SQLite format 3\0") => Found::Foreign(Foreign::Sqlite),
        _ if is_json(head) => Found::Foreign(Foreign::Json),
        _ => Found::Text,
    }
}

/// Whether a byte may go on a column's name: Parquet's mark is followed by binary data.
fn is_of_a_header(byte: u8) -> bool {
    byte == b',' || byte == b';' || byte == b'\t' || byte == b'|' || byte == b'\r' || byte == b'\n' || byte.is_ascii_alphanumeric()
}

/// The names of an archive's members stand in it as they are.
fn is_workbook(head: &[u8]) -> bool {
    [&b"[Content_Types].xml"[..], b"xl/", b"_rels/.rels", b"docProps/"].iter().any(|name| memchr::memmem::find(head, name).is_some())
}

/// Whether it begins as JSON does: an object or an array, in which something of JSON follows.
fn is_json(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.strip_prefix(b"\xff\xfe").or(head.strip_prefix(b"\xfe\xff")).unwrap_or(head);
    // In UTF-16 each of them has a zero beside it.
    let mut tokens = head.iter().filter(|byte| **byte != 0 && !byte.is_ascii_whitespace());
    match (tokens.next(), tokens.next()) {
        (Some(b'{'), Some(next)) => matches!(next, b'"' | b'}'),
        (Some(b'['), Some(next)) => matches!(next, b'{' | b'[' | b'"' | b']'),
        _ => false,
    }
}

/// The encoding that a byte order mark names, and the length of the mark.
pub(super) fn byte_order_mark(head: &[u8]) -> Option<(&'static Encoding, usize)> {
    match head {
        [0xef, 0xbb, 0xbf, ..] => Some((UTF_8, 3)),
        [0xff, 0xfe, ..] => Some((UTF_16LE, 2)),
        [0xfe, 0xff, ..] => Some((UTF_16BE, 2)),
        _ => None,
    }
}
