use std::io::{Cursor, ErrorKind};

use encoding_rs::{BIG5, EUC_JP, EUC_KR, GB18030, ISO_2022_JP, SHIFT_JIS, UTF_16BE, UTF_16LE, WINDOWS_1252, WINDOWS_1253};
use proptest::prelude::*;

use super::*;

const ENCODINGS: [&Encoding; 10] = [GB18030, BIG5, EUC_KR, EUC_JP, SHIFT_JIS, ISO_2022_JP, WINDOWS_1252, WINDOWS_1253, UTF_16LE, UTF_16BE];

/// Reads a few bytes at a time, and asks to be asked again now and then.
struct Trickle<R>(R, usize);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 = self.1 * 7 % 31;
        if self.1 == 3 {
            return Err(ErrorKind::Interrupted.into());
        }
        let most = buffer.len().min(self.1.max(1));
        self.0.read(&mut buffer[..most])
    }
}

fn text_of(raw: &[u8], asked: Option<&'static Encoding>) -> Vec<u8> {
    let mut text = Vec::new();
    TextStream::open(Cursor::new(raw), asked).unwrap().read_to_end(&mut text).unwrap();
    text
}

/// What can be read of it.
fn readable(text: &[u8]) -> String {
    text.utf8_chunks().map(|chunk| chunk.valid()).collect::<String>().replace('\u{fffd}', "")
}

proptest! {
    #[test]
    fn what_can_be_decoded_is_and_nothing_else_means_anything(raw in prop::collection::vec(any::<u8>(), 0..200), which in 0..ENCODINGS.len()) {
        // In front of it no mark of an encoding, nor of another format, can stand.
        let encoding = ENCODINGS[which];
        let first: &[u8] = if encoding == UTF_16LE { b"x\0" } else if encoding == UTF_16BE { b"\0x" } else { b"x," };
        let raw = [first, &raw].concat();
        let (decoded, had_errors) = encoding.decode_without_bom_handling(&raw);
        let text = text_of(&raw, Some(encoding));
        prop_assert_eq!(std::str::from_utf8(&text).is_err(), had_errors, "{:x?}", text);
        prop_assert_eq!(readable(&text), decoded.replace('\u{fffd}', ""));
    }

    #[test]
    fn the_text_is_the_same_however_the_bytes_come(raw in prop::collection::vec(any::<u8>(), 0..400), which in 0..ENCODINGS.len()) {
        let raw = [b"x,", &raw[..]].concat();
        let mut text = Vec::new();
        let mut stream = TextStream::open(Trickle(Cursor::new(&raw), 5), Some(ENCODINGS[which])).unwrap();
        let mut few = [0; 3];
        loop {
            match stream.read(&mut few).unwrap() {
                0 => break,
                bytes => text.extend_from_slice(&few[..bytes]),
            }
        }
        prop_assert_eq!(text, text_of(&raw, Some(ENCODINGS[which])));
    }
}

#[test]
fn undecodable_bytes_stay_what_they_were_unless_they_would_mean_something() {
    let check = |encoding: &'static Encoding, raw: &[u8], expected: &[u8]| {
        assert_eq!(text_of(&[b"x", raw].concat(), Some(encoding))[1..], *expected, "{raw:x?}");
    };
    check(GB18030, b"a\xffb", b"a\xffb");
    check(GB18030, b"\x81", b"\x81");
    check(WINDOWS_1253, b"\xd2\xaa", b"\xd2\xff");
    check(WINDOWS_1253, b"\xaa\xd2", b"\xaa\xd2");
    check(WINDOWS_1253, b"\xd2\xaa\xaa", b"\xd2\xff\xff");
}

#[test]
fn an_encoding_is_guessed_by_what_the_text_holds() {
    let check = |encoding: &'static Encoding, text: &str| {
        let raw = encoding.encode(text).0;
        assert_eq!(likely_encoding(&raw).map(Encoding::name), Some(encoding.name()), "{text}");
    };
    check(GB18030, "UserID,Nick\nu1,张伟\nu2,王芳\nu3,李娜和她的朋友\n");
    check(BIG5, "UserID,Nick\nu1,陳志明的帳號\nu2,黃淑芬\n");
    check(SHIFT_JIS, "UserID,Nick\nu1,山田さんのアカウント\n");
    check(EUC_KR, "UserID,Nick\nu1,안녕하세요 김민수\n");
    check(WINDOWS_1252, "UserID,Nick\nu1,Jürgen\nu2,Zoë Müller\n");
    check(encoding_rs::UTF_8, "UserID,Nick\nu1,a\n");
}

#[test]
fn an_encoding_is_guessed_by_most_lines_and_not_by_a_damaged_one() {
    let check = |encoding: &'static Encoding, name: &str, rows: usize| {
        let rows = (0..rows).fold("UserID,Nick\n".to_owned(), |text, row| format!("{text}u{row},{name}{row}\n"));
        let raw = [&encoding.encode(&rows).0[..], b"v,\xff\xff\n"].concat();
        assert_eq!(likely_encoding(&raw).map(Encoding::name), Some(encoding.name()), "{name}");
        let raw = [b"v,\xff\xff\n", &encoding.encode(&rows).0[..]].concat();
        assert_eq!(likely_encoding(&raw).map(Encoding::name), Some(encoding.name()), "{name}");
    };
    for rows in [20, 200, 1_500] {
        check(GB18030, "张伟和王芳", rows);
        check(BIG5, "陳志明與黃淑芬的帳號", rows);
        check(SHIFT_JIS, "ヤマダの山田です", rows);
        check(EUC_KR, "안녕하세요", rows);
        check(WINDOWS_1252, "Jürgen Müßiggang, née Zoë", rows);
        check(encoding_rs::UTF_8, "张伟", rows);
    }
}

#[test]
fn contents_are_told_by_their_first_bytes() {
    let text = |head: &[u8]| matches!(look_at(head), Found::Text);
    for head in [&b"UserID"[..], b"PAR1,Nick\n", b"PAR1\n", b"{UserID}\n", b"[UserID],Nick\n", b"{", b"", b"PK,Nick\n", b"\x1f"] {
        assert!(text(head), "{head:?}");
    }
    let foreign = |head: &[u8]| if let Found::Foreign(foreign) = look_at(head) { Some(foreign) } else { None };
    assert_eq!(foreign(b"{\"a\": 1}"), Some(Foreign::Json));
    assert_eq!(foreign(b"[\n  {\"a\": 1}]"), Some(Foreign::Json));
    assert_eq!(foreign(b"\xef\xbb\xbf[]"), Some(Foreign::Json));
    assert!(matches!(look_at(b"\x50\x2a\x4d\x18\x04\0\0\0abcd"), Found::Compressed(Compression::Zstd)));
}

#[test]
fn an_error_comes_after_what_came_before_it() {
    let packed = zstd::encode_all(&vec![b'x'; 300_000][..], 1).unwrap();
    let mut stream = TextStream::open(Cursor::new([&packed[..], b"junk"].concat()), None).unwrap();
    let mut text = Vec::new();
    let error = stream.read_to_end(&mut text).unwrap_err();
    assert_eq!((text.len(), SourceError::of(&error)), (300_000, Some(&SourceError::Damaged(Compression::Zstd))));
}
