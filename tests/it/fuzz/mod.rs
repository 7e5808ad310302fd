//! Arbitrary bytes and spoiled valid ones into what reads foreign bytes. `fuzz/` makes the same claims under a fuzzer.

mod claims;
mod said;

use chatlift::domain::outcome::OutcomeCounts;
use chatlift::domain::position::{ColumnLayout, FileStat, InputPosition, SourceFile};
use chatlift::domain::target::Target;
use chatlift::io::journal::checkpoint::{Checkpoint, Extent, RunKind, RunStatus};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::ValueTree;

/// Cases of each property. Chosen: a second or two each; `PROPTEST_CASES` has no say here, `CHATLIFT_FUZZ_CASES` does.
const CASES: u32 = 4_000;

fn config() -> ProptestConfig {
    let cases = std::env::var("CHATLIFT_FUZZ_CASES").map_or(CASES, |count| count.parse().expect("it is a number"));
    // A failure is printed with the bytes that led to it; no file is left.
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// One thing done to valid bytes.
#[derive(Debug, Clone)]
enum Spoil {
    Flip(Index, u8),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

/// `tokens` are what its reader treats in a special way.
fn spoils(tokens: &'static [&'static [u8]]) -> impl Strategy<Value = Vec<Spoil>> {
    let index = any::<Index>;
    let one = prop_oneof![
        (index(), 0..8_u8).prop_map(|(at, bit)| Spoil::Flip(at, bit)),
        (index(), index()).prop_map(|(from, len)| Spoil::Remove(from, len)),
        (index(), select(tokens)).prop_map(|(at, token)| Spoil::Insert(at, token.to_vec())),
        (index(), vec(any::<u8>(), 1..4)).prop_map(|(at, bytes)| Spoil::Insert(at, bytes)),
        (index(), index()).prop_map(|(from, len)| Spoil::Repeat(from, len)),
    ];
    vec(one, 0..4)
}

fn spoil(mut bytes: Vec<u8>, spoils: Vec<Spoil>) -> Vec<u8> {
    for spoil in spoils {
        let at = |index: Index, bytes: &[u8]| index.index(bytes.len() + 1);
        match spoil {
            Spoil::Flip(index, bit) if !bytes.is_empty() => {
                let at = index.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Spoil::Flip(..) => {}
            Spoil::Remove(from, len) => {
                let from = at(from, &bytes);
                let to = from + at(len, &bytes[from..]).min(8);
                bytes.drain(from..to.min(bytes.len()));
            }
            Spoil::Insert(index, more) => {
                let at = at(index, &bytes);
                bytes.splice(at..at, more);
            }
            Spoil::Repeat(from, len) => {
                let from = at(from, &bytes);
                let to = from + at(len, &bytes[from..]);
                let part = bytes[from..to].to_vec();
                bytes.splice(from..from, part);
            }
        }
    }
    bytes
}

const CSV: &[&[u8]] = &[
    b"\"",
    b"\"\"",
    b"\",\"",
    b"\n\"",
    b",",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
    b";",
    b"\n\n",
    b"UserID,Nick\n",
    b"sep=;\n",
];
const JSON: &[&[u8]] = &[
    b"\"",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"null",
    b"0",
    b"-",
    b"1e999",
    b"\\ud800",
    b" ",
    b"\"ErrorCode\":1,",
    b"\"more\":1,",
    b"\xef\xbb\xbf",
    b"\\",
];

fn csv_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        12 => select(CSV).prop_map(<[u8]>::to_vec),
        12 => "[a-z]{0,6}".prop_map(String::into_bytes),
        6 => vec(any::<u8>(), 0..4),
        // Towards the bounds of a record: its lines, and seldom its bytes.
        3 => (select(&[b'a', b'\n', b'"', b','][..]), 62..66_usize).prop_map(|(byte, count)| vec![byte; count]),
        1 => select(&[65_530_usize, 65_536]).prop_map(|count| vec![b'a'; count]),
    ];
    let header = select(&["UserID,Nick\n", "FaceUrl,UserID,Nick\n"][..]);
    (header, vec(piece, 0..24)).prop_map(|(header, pieces)| [header.as_bytes(), &pieces.concat()].concat())
}

/// Any that may be given, but for the letters of the header.
fn delimiters() -> impl Strategy<Value = u8> {
    (0..128_u8).prop_filter("it can separate fields", |byte| !b"\"\r\nUserIDNickFaceUrl".contains(byte))
}

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let whole: &[&str] = &[
        r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#,
        r#"{"ActionStatus":"FAIL","ErrorCode":70169,"ErrorInfo":"again","RequestId":"r"}"#,
        r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","FailAccounts":["a","b"]}"#,
        r#"{"ActionStatus":"OK","ErrorCode":0,"UserProfileItem":[{"To_Account":"a","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick","Value":"n"}]}]}"#,
        r#"{"ActionStatus":"OK","ErrorCode":"0","ErrorInfo":null,"ResultItem":[{"UserID":"a","ResultCode":0,"AccountStatus":"Imported"},null]}"#,
        r#"{"ActionStatus":"OK","ErrorCode":0.0,"QueryResult":[{"To_Account":"a","RunStatus":"Online"}],"ErrorList":[{"To_Account":"b","ErrorCode":70107}]}"#,
        "<html>please log in</html>",
    ];
    select(whole).prop_map(|text| text.as_bytes().to_vec())
}

fn checkpoints() -> impl Strategy<Value = Checkpoint> {
    let state = prop_oneof![
        Just(RunStatus::Unfinished),
        Just(RunStatus::Finished),
        any::<String>().prop_map(|stamp| RunStatus::SettingAside { stamp }),
    ];
    let target = (any::<String>(), any::<u64>(), any::<String>()).prop_map(|(endpoint, sdkappid, api)| Target { endpoint, sdkappid, api });
    let input = any::<(u64, i64, i64, u64)>();
    let input = input.prop_map(|(len, modified_ns, changed_ns, inode)| FileStat { len, modified_ns, changed_ns, inode });
    let settled = any::<(u64, u64, u64, u64)>().prop_map(|(rows, offset, line, digest)| InputPosition { rows, offset, line, digest });
    let flags = btree_map(any::<String>(), any::<String>(), 0..3);
    let reading = (any::<(u8, [Option<u32>; 3])>(), flags);
    let reading = reading.prop_map(|((delimiter, columns), flags)| ColumnLayout { delimiter, columns, flags });
    let extent = || any::<(u64, u64)>().prop_map(|(len, tail)| Extent { len, tail });
    let counts = any::<[u64; 6]>().prop_map(|[imported, created, updated, failed, invalid, superseded]| OutcomeCounts {
        imported,
        created,
        updated,
        failed,
        invalid,
        superseded,
    });
    let work =
        prop_oneof![Just(RunKind::Import), any::<(u64, u64, u64)>().prop_map(|(state, run, token)| RunKind::Sync { state, run, token })];
    ((state, work), target, reading, any::<u64>(), input, settled, extent(), extent(), counts).prop_map(
        |((state, work), target, reading, names, input, settled, results, rejects, counts)| Checkpoint {
            state,
            work,
            target,
            reading,
            names,
            input,
            source: (names % 2 == 1).then_some(SourceFile { stat: input, digest: names }),
            settled,
            results,
            rejects,
            counts,
        },
    )
}

/// Names of columns that are read, that are near to those, and others.
const NAMES: &[&str] = &[
    "UserID",
    "user id",
    "USER_ID",
    "Nick",
    "nick-name",
    "FaceUrl",
    "head_url",
    "Tag_Profile_IM_Gender",
    "Tag_Profile_IM_Nick",
    "tag_profile_im_gender",
    "Tag_Profile_Custom_a=b",
    "sex",
    "x",
    "\"a,b\"",
    "",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_bytes_are_read_as_a_file(bytes in vec(any::<u8>(), 0..512), spoils in spoils(CSV)) {
        claims::of_the_roster(&spoil(bytes, spoils));
    }

    #[test]
    fn what_looks_like_a_file_is_read_as_one(bytes in csv_bytes(), spoils in spoils(CSV)) {
        claims::of_the_roster(&spoil(bytes, spoils));
    }

    #[test]
    fn a_header_is_read_from_the_columns_of_its_names(
        names in vec(select(NAMES), 0..6),
        separator in select(&[",", ";", "\n", "\\"][..]),
        spoils in spoils(CSV),
    ) {
        claims::of_a_header(&spoil(names.join(separator).into_bytes(), spoils));
    }

    #[test]
    fn any_bytes_are_recoded_however_they_come(which in any::<u8>(), bytes in vec(any::<u8>(), 0..300)) {
        claims::of_the_recoder(&[&[which], &bytes[..]].concat());
    }

    #[test]
    fn a_spoiled_file_is_recoded_however_it_comes(which in any::<u8>(), bytes in csv_bytes(), spoils in spoils(CSV)) {
        claims::of_the_recoder(&[vec![which], spoil(bytes, spoils)].concat());
    }

    #[test]
    fn escaped_records_lie_one_behind_the_other(bytes in csv_bytes(), at in vec(any::<Index>(), 0..6), spoils in spoils(CSV)) {
        let mut bytes = spoil(bytes, spoils);
        for at in at {
            bytes.insert(at.index(bytes.len() + 1), b'\\');
        }
        claims::of_escapes(&bytes);
    }

    #[test]
    fn views_records_and_the_csv_crate_agree(bytes in csv_bytes(), spoils in spoils(CSV), delimiter in delimiters()) {
        claims::of_views(&spoil(bytes, spoils), delimiter);
    }

    #[test]
    fn any_bytes_are_read_as_an_answer(bytes in vec(any::<u8>(), 0..256)) {
        claims::of_an_answer(&bytes);
    }

    #[test]
    fn an_answer_means_the_same_however_it_is_written(said in said::answers()) {
        said.is_read_as_it_was_meant();
    }

    #[test]
    fn what_looks_like_an_answer_is_read_as_one(bytes in answers(), spoils in spoils(JSON)) {
        claims::of_an_answer(&spoil(bytes, spoils));
    }

    #[test]
    fn a_checkpoint_is_read_as_it_was_written(written in checkpoints()) {
        prop_assert_eq!(Checkpoint::decode(&written.encode()), Ok(written));
    }

    #[test]
    fn a_spoiled_checkpoint_is_refused_or_means_the_same(written in checkpoints(), spoils in spoils(JSON)) {
        let bytes = spoil(written.encode(), spoils);
        claims::of_a_checkpoint(&bytes);
        if let Ok(read) = Checkpoint::decode(&bytes) {
            prop_assert_eq!(read, written);
        }
    }
}

#[test]
fn a_checkpoint_with_something_more_is_none() {
    let mut chance = proptest::test_runner::TestRunner::deterministic();
    let written = checkpoints().new_tree(&mut chance).unwrap().current().encode();
    let more = String::from_utf8(written).unwrap().replacen('{', r#"{"more":1,"#, 1);
    assert!(Checkpoint::decode(more.as_bytes()).is_err(), "{more}");
}
