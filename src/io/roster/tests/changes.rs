//! Files that change while they are read or between two runs.

use super::*;

fn file(text: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text).unwrap();
    file
}

#[test]
fn a_roster_goes_on_at_any_mark_as_if_it_had_never_stopped() {
    let file = file("\u{feff}UserID,Nick\r\na,\"x\r\ny\"\r\n\r\nb,2\n\u{feff}c,3\nd,4".as_bytes());
    let open = || Roster::open(file.path(), &Format::default()).unwrap();
    let whole: Vec<_> = open().map(Result::unwrap).collect();
    assert_eq!(whole.len(), 4);
    for (at, stop) in whole.iter().enumerate() {
        let rest: Vec<_> = open().skip_to(stop.end).unwrap().map(Result::unwrap).collect();
        let seen = |record: &Record| (record.row, record.line, record.end, record.fields.clone(), record.account.clone());
        assert_eq!(rest.iter().map(seen).collect::<Vec<_>>(), whole[at + 1..].iter().map(seen).collect::<Vec<_>>());
        assert_eq!(open().skip_to(stop.end).unwrap().count_rest().unwrap(), rest.len() as u64);
    }
}

#[test]
fn a_change_is_told_from_a_change_behind_the_settled_part() {
    let before = b"UserID\na\nb\nc";
    let marks: Vec<_> = Roster::open(file(before).path(), &Format::default()).unwrap().map(|record| record.unwrap().end).collect();
    let check = |settled: usize, now: &[u8], expected: InputChange| {
        assert_eq!(
            compare(&InputFile::open(file(now).path()).unwrap(), b',', marks[settled - 1]).unwrap(),
            expected,
            "{settled} {:?}",
            String::from_utf8_lossy(now)
        );
    };
    check(3, before, InputChange::Same);
    check(3, b"UserID\na\nb\nc\n\r\n\n", InputChange::Same);
    check(3, b"UserID\na\nb\nc\nd\n", InputChange::ChangedAfter);
    check(3, b"UserID\na\nb\ncd\n", InputChange::ChangedWithin);
    check(3, b"UserID\na\nb\n", InputChange::ChangedWithin);
    check(2, b"UserID\na\nb\nx\n", InputChange::ChangedAfter);
    check(2, b"UserID\na\nB\nc", InputChange::ChangedWithin);
    check(2, b"UserId\na\nb\nc", InputChange::ChangedWithin);
    check(1, b"UserID\na", InputChange::ChangedWithin);
    check(1, b"UserID\n\"a\nb", InputChange::ChangedWithin);
}

#[test]
fn a_first_line_that_names_the_delimiter_is_compared_with_the_rest() {
    let before = b"sep=;\nUserID;Nick\na;\"1\n2\"\nb;\nc;";
    let marks: Vec<_> = Roster::open(file(before).path(), &Format::default()).unwrap().map(|record| record.unwrap().end).collect();
    let check = |now: &[u8], expected: InputChange| {
        let now = file(now);
        assert_eq!(compare(&InputFile::open(now.path()).unwrap(), b';', marks[1]).unwrap(), expected);
    };
    check(before, InputChange::ChangedAfter);
    check(b"sep=;\nUserID;Nick\na;\"1\n2\"\nb;\n", InputChange::Same);
    check(b"sep=;\nUserID;Nick\na;\"1\n3\"\nb;\n", InputChange::ChangedWithin);
}

#[test]
fn a_run_that_settled_nothing_matches_its_header() {
    let at = Roster::open(file(b"UserID\na\n").path(), &Format::default()).unwrap().at();
    assert_eq!(compare(&InputFile::open(file(b"UserID\nb\n").path()).unwrap(), b',', at).unwrap(), InputChange::ChangedAfter);
    assert_eq!(compare(&InputFile::open(file(b"UserId\na\n").path()).unwrap(), b',', at).unwrap(), InputChange::ChangedWithin);
}

/// Reads two records of three, changes the file, reads the rest: the ids of all, and the error at the end.
fn watched(before: &str, change: impl FnOnce(&std::path::Path)) -> (Vec<String>, Option<String>) {
    let named = file(before.as_bytes());
    let opened = InputFile::open(named.path()).unwrap();
    let roster = Roster::of(&opened, &Format::default()).unwrap();
    let stat = opened.fingerprint().unwrap();
    // Some buffers are read ahead: more than that is in the file.
    let mut records = Watched::new(roster, opened, stat);
    let mut ids: Vec<String> = Vec::new();
    let mut take = |next: Option<Result<Record, RosterError>>| match next {
        Some(Ok(record)) => {
            ids.push(String::from_utf8(record.user_id.to_vec()).unwrap());
            Ok(true)
        }
        Some(Err(error)) => Err(error.to_string()),
        None => Ok(false),
    };
    assert_eq!((take(records.next()), take(records.next())), (Ok(true), Ok(true)));
    change(named.path());
    let end = loop {
        match take(records.next()) {
            Ok(true) => {}
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
    };
    assert!(end.is_none() || records.next().is_none());
    (ids, end)
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_only_if_all_that_was_read_stands() {
    use std::fs;
    let write = |text: &'static str| move |path: &std::path::Path| fs::write(path, text).unwrap();
    let modified = Some("it was truncated or rewritten while it was being read".to_owned());
    let ids = |ids: &str| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let before = "UserID\na\nb\nc\n";
    assert_eq!(watched(before, |_| ()), (ids("a b c"), None));
    assert_eq!(
        watched(before, |path| fs::File::options().write(true).open(path).unwrap().set_modified(std::time::SystemTime::now()).unwrap()),
        (ids("a b c"), None)
    );
    assert_eq!(watched(before, write("UserID\na\nb\nc\nd\ne\n")), (ids("a b c d e"), None), "it has grown");
    assert_eq!(watched(before, write("UserID\na\nb\nc\nd")), (ids("a b c d"), None), "it has grown");
    assert_eq!(watched(before, write("UserID\na\nb\nx\n")).1, modified, "rewritten behind what was told");
    assert_eq!(watched(before, write("UserID\na\nB\nc\n")).1, modified, "rewritten within it");
    assert_eq!(watched(before, write("UserID\na\nb\n")).1, modified, "truncated");
    assert_eq!(watched(before, write("")).1, modified, "truncated to nothing");
    let (read, end) =
        watched(before, |path| fs::rename(path, path.with_extension("old")).and_then(|()| fs::write(path, "UserID\nx\n")).unwrap());
    assert_eq!((read, end), (ids("a b c"), None), "another file has its name");
}

#[test]
fn half_a_line_at_the_end_of_a_file_that_is_being_written_is_no_record() {
    use std::fs;
    let modified = Some("it was truncated or rewritten while it was being read".to_owned());
    let ids = |ids: &str| ids.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let append = |text: &'static str| {
        move |path: &std::path::Path| fs::OpenOptions::new().append(true).open(path).unwrap().write_all(text.as_bytes()).unwrap()
    };
    let before = "UserID\na\nb\nhal";
    assert_eq!(watched(before, |_| ()), (ids("a b hal"), None));
    assert_eq!(watched(before, append("f\nc\n")), (ids("a b half c"), None));
    assert_eq!(watched(before, append("f")), (ids("a b half"), None));
    assert_eq!(watched("UserID\na\nb\nc\nlonger_than_this\n", |path| fs::write(path, "UserID\na\nb\nc\nlong").unwrap()).1, modified);
}

#[test]
fn a_long_file_that_has_changed_is_compared_bit_by_bit() {
    let rows = 40_000;
    let text = (0..rows).fold("UserID\n".to_owned(), |text, row| text + &format!("user{row}\n"));
    let named = file(text.as_bytes());
    let opened = InputFile::open(named.path()).unwrap();
    let roster = Roster::of(&opened, &Format::default()).unwrap();
    let mut records = Watched::new(roster, opened.clone(), opened.fingerprint().unwrap());
    named.as_file().set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let (mut read, mut comparing) = (0, 0);
    while let Some(next) = records.next_or_comparing() {
        match next.unwrap() {
            Next::Record(_) => read += 1,
            Next::Comparing => comparing += 1,
        }
    }
    assert_eq!(read, rows);
    assert!((3..10).contains(&comparing), "{comparing}");
}
