//! What holds of any bytes whatever: the fuzz targets in `fuzz/` and the property tests claim the same.

use std::io::BufReader;

use chatlift::api::answer;
use chatlift::command::Command;
use chatlift::journal::checkpoint::Checkpoint;
use chatlift::roster::{Format, RECORD_MAX_BYTES, RECORD_MAX_LINES, Record, Roster, RosterError};
use chatlift::verdict::{CallEnd, Yield};
use serde_json::Value;

/// The roster never panics, its records lie one behind the other and are bounded, and nothing between them is lost.
pub(crate) fn of_the_roster(bytes: &[u8]) {
    let read = records(bytes, bytes.len().max(1));
    // A reader that hands out few bytes at a time (a byte order mark at least) yields the same.
    assert_eq!(read, records(bytes, if bytes.len() < 4096 { 7 } else { 4093 }));
    let Some((header, records, error)) = read else { return };
    let mut before = header;
    for record in &records {
        assert_eq!(record.row, before.rows + 1);
        lies_behind(record, before, bytes);
        before = record.end;
    }
    let rest = &bytes[usize::try_from(before.offset).unwrap()..];
    if error.is_none() {
        assert!(rest.iter().all(|byte| matches!(byte, b'\n' | b'\r')), "records are lost: {rest:?}");
        let whole = Roster::new(bytes, &Format::default()).unwrap();
        assert_eq!(whole.count_rest().unwrap(), records.len() as u64);
    }
}

type Read = (chatlift::input::Mark, Vec<Same>, Option<String>);

/// What is compared of a record.
#[derive(Debug, PartialEq)]
struct Same {
    row: u64,
    line: u64,
    end: chatlift::input::Mark,
    user_id: Box<[u8]>,
    account: Result<chatlift::account::Account, chatlift::account::Invalid>,
    fields: Vec<Vec<u8>>,
}

impl From<Record> for Same {
    fn from(record: Record) -> Self {
        let Record { row, line, end, user_id, account, fields } = record;
        Self { row, line, end, user_id, account, fields: fields.iter().map(<[u8]>::to_vec).collect() }
    }
}

/// The place behind the header, all records, and the error at their end; `None` if there is no header.
fn records(bytes: &[u8], buffer_bytes: usize) -> Option<Read> {
    let mut roster = Roster::new(BufReader::with_capacity(buffer_bytes, bytes), &Format::default()).ok()?;
    let header = roster.at();
    let (mut records, mut error) = (Vec::new(), None);
    for read in &mut roster {
        assert!(error.is_none(), "nothing follows an error");
        match read {
            Ok(record) => records.push(record.into()),
            Err(found) => {
                assert!(!matches!(found, RosterError::Read(_) | RosterError::Header(_)), "{found}");
                error = Some(found.to_string());
            }
        }
    }
    assert!(roster.next().is_none(), "an end is an end");
    Some((header, records, error))
}

fn lies_behind(record: &Same, before: chatlift::input::Mark, bytes: &[u8]) {
    let at = |offset: u64| usize::try_from(offset).unwrap();
    assert!(before.offset < record.end.offset && at(record.end.offset) <= bytes.len(), "{record:?}");
    let passed = &bytes[at(before.offset)..at(record.end.offset)];
    let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').count() as u64 - 1;
    assert_eq!(record.end.line, before.line + lines(passed), "{record:?}");
    let blank = passed.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    assert!(record.line >= before.line && record.line <= before.line + lines(&passed[..blank]), "{record:?}");
    assert!(passed.len() - blank <= RECORD_MAX_BYTES, "{record:?}");
    assert!(record.end.line - record.line <= RECORD_MAX_LINES, "{record:?}");
    let held: usize = record.fields.iter().map(Vec::len).sum();
    assert!(held <= passed.len(), "{record:?}");
    assert!(record.user_id.is_empty() || record.fields.iter().any(|field| **field == *record.user_id), "{record:?}");
    if let Ok(account) = &record.account {
        assert_eq!(account.user_id.as_str().as_bytes(), &*record.user_id);
    }
}

/// An answer never panics, and is no success and no refusal unless it says so itself.
pub(crate) fn of_an_answer(bytes: &[u8]) {
    // Numbers and texts that aren't looked at need not fit into a value.
    let said: Option<Value> = serde_json::from_slice(bytes).ok();
    for command in Command::ALL {
        match (answer::read(command, bytes), &said) {
            (CallEnd::Done(found), Some(said)) => {
                assert!(said["ActionStatus"] == "OK" && said["ErrorCode"] == 0, "{said}");
                assert!(has_at_most(&found, bytes.len()), "{found:?}");
            }
            (CallEnd::Refused { code, .. }, Some(said)) => {
                assert!(said["ErrorCode"] == code && !(said["ActionStatus"] == "OK" && code == 0), "{said}");
            }
            (CallEnd::Done(_) | CallEnd::Refused { .. }, None) | (CallEnd::Lost { .. }, _) => {}
            (other, _) => panic!("a body is no {other:?}"),
        }
    }
}

fn has_at_most(found: &Yield, bytes: usize) -> bool {
    match found {
        Yield::Nothing => true,
        Yield::FailAccounts(ids) => ids.iter().map(|id| id.len()).sum::<usize>() <= bytes,
        Yield::Profiles(profiles) => profiles.len() <= bytes,
        Yield::Standings(items) => items.len() <= bytes,
        Yield::Deleted(items) => items.len() <= bytes,
        Yield::Presences(items) => items.len() <= bytes,
    }
}

/// Bytes that are taken for a checkpoint say exactly what is read out of them.
pub(crate) fn of_a_checkpoint(bytes: &[u8]) {
    let Ok(read) = Checkpoint::decode(bytes) else { return };
    let written = read.encode();
    assert_eq!(Checkpoint::decode(&written).as_ref(), Ok(&read));
    let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
    assert_eq!(value(bytes), value(&written), "it says more, or something else");
}
