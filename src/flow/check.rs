//! The check: reads a whole roster offline and says what would become of it.
//!
//! Counts what would be refused and why, the UserIDs that repeat, and forecasts the import. Calls nothing and, but for the unnamed
//! temporary file of the sort, writes nothing; memory stays flat however long the roster is.

mod first_records;
mod profile_cells;
mod repeats;
mod same_ids;

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroU32;
use std::time::Duration;

use thiserror::Error;

use crate::domain::account::{AccountRef, InvalidAccount};
use crate::domain::command::Command;
use crate::domain::examples::ExampleGroups;
use crate::domain::oddity::{OddPlace, OddityCounts, OddityKind};
use crate::domain::position::InputPosition;
use crate::io::roster::{RecordRef, Roster, RosterError};
pub use first_records::{FIRST_RECORDS, FirstRecords, TooManyInvalid};
pub use profile_cells::ProfileCells;
pub use repeats::{Repeat, Repeats};
pub use same_ids::{Capitals, CaseTwins, IdEntry, IdSorter};

/// Examples that a report names of each kind. Chosen: enough to see the pattern, few enough to read.
pub const EXAMPLES: usize = 3;

/// What would become of a roster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    pub records: u64,
    pub valid: u64,
    /// Lines that are no records.
    pub blank: u64,
    pub first: FirstRecords,
    /// Records that would never be sent, by the rule that they break.
    pub refused: ExampleGroups<InvalidRecord, EXAMPLES>,
    /// What would be sent though it is odd.
    pub oddities: OddityCounts,
    pub repeats: Repeats,
    /// Which records have cells of tags; none of a file without such columns.
    pub profile: Option<ProfileCells>,
    pub forecast: ImportForecast,
}

/// Where a record stands, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub row: u64,
    pub line: u64,
    /// The UserID cell, byte for byte: foreign text.
    pub user_id: Box<[u8]>,
}

/// A record that would never be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRecord {
    pub position: Position,
    pub why: InvalidAccount,
}

/// Calls a second that a forecast is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    /// One account a call.
    pub single: NonZeroU32,
    pub batch: NonZeroU32,
    /// Of `portrait_set`.
    pub profile: NonZeroU32,
}

/// What an import of the valid records takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportForecast {
    pub calls: u64,
    pub rate_per_s: NonZeroU32,
    pub batches: Batches,
    pub profiles: ProfileForecast,
}

/// What the same import takes in batches, if each is full. UserIDs that repeat close together, and records that batches refuse, add some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batches {
    pub calls: u64,
    pub rate_per_s: NonZeroU32,
}

/// What the profile columns of the same import take, one call for each record with such a cell, beside its other calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProfileForecast {
    pub calls: u64,
    pub rate_per_s: NonZeroU32,
}

impl ImportForecast {
    /// One call for each valid record, or one for each hundred of them; and one for each `with_tags`.
    #[must_use]
    pub const fn new(valid: u64, with_tags: u64, Rates { single: rate_per_s, batch, profile }: Rates) -> Self {
        let per_call = Command::MultiaccountImport.spec().accounts_per_call as u64;
        let batches = Batches { calls: valid.div_ceil(per_call), rate_per_s: batch };
        Self { calls: valid, rate_per_s, batches, profiles: ProfileForecast { calls: with_tags, rate_per_s: profile } }
    }

    /// At the full rate, without retries; in whole seconds, rounded up.
    #[must_use]
    pub fn time(self) -> Duration {
        whole_seconds(self.calls, self.rate_per_s)
    }
}

impl Batches {
    /// As [`ImportForecast::time`].
    #[must_use]
    pub fn time(self) -> Duration {
        whole_seconds(self.calls, self.rate_per_s)
    }
}

impl ProfileForecast {
    /// As [`ImportForecast::time`].
    #[must_use]
    pub fn time(self) -> Duration {
        whole_seconds(self.calls, self.rate_per_s)
    }
}

fn whole_seconds(calls: u64, rate_per_s: NonZeroU32) -> Duration {
    Duration::from_secs(calls.div_ceil(u64::from(rate_per_s.get())))
}

/// A report, and how the roster came to its end.
#[derive(Debug)]
pub struct Checked {
    /// Covers what was read.
    pub report: CheckReport,
    /// Why nothing was read past that, unless it was the end.
    pub end: Result<(), RosterError>,
    /// The place behind the last record that was read.
    pub at: InputPosition,
}

/// Why a check could not go on.
#[derive(Debug, Error)]
#[error("cannot sort the UserIDs in a temporary file in {}", std::env::temp_dir().display())]
pub struct SortError(#[source] io::Error);

/// Reads the whole `roster` and reports.
///
/// # Errors
/// [`SortError`] where the folder for temporary files is full or not writable. A bad roster is no such error, see [`Checked`].
pub fn check(mut roster: Roster<impl Read>, rates: Rates) -> Result<Checked, SortError> {
    check_with(&mut roster, rates, tempfile::tempfile).map_err(SortError)
}

fn check_with(roster: &mut Roster<impl Read>, rates: Rates, open_spill: fn() -> io::Result<File>) -> io::Result<Checked> {
    let mut report = CheckReport::new(rates, ProfileCells::of(roster.header()));
    let mut ids = IdSorter::new(Box::new(open_spill));
    let mut end = Ok(());
    while let Some(view) = roster.next_view() {
        match view {
            Ok(view) => {
                let place = OddPlace { row: view.row, line: view.line };
                if let Some(account) = report.count(view) {
                    ids.push(account.user_id, place)?;
                }
            }
            Err(error) => end = Err(error),
        }
    }
    report.blank = roster.blank_lines().count();
    let (repeats, twins) = Repeats::of(ids)?;
    report.repeats = repeats;
    report.oddities.set(OddityKind::CaseTwin, twins.count, twins.first);
    report.forecast = ImportForecast::new(report.valid, report.profile.as_ref().map_or(0, |profile| profile.records), rates);
    Ok(Checked { report, end, at: roster.at() })
}

impl CheckReport {
    fn new(rates: Rates, profile: Option<ProfileCells>) -> Self {
        Self {
            records: 0,
            valid: 0,
            blank: 0,
            first: FirstRecords::default(),
            refused: ExampleGroups::default(),
            oddities: OddityCounts::default(),
            repeats: Repeats::default(),
            profile,
            forecast: ImportForecast::new(0, 0, rates),
        }
    }

    /// Counts a record: its account, if it is valid.
    fn count<'a>(&mut self, record: RecordRef<'a>) -> Option<AccountRef<'a>> {
        let (tags, RecordRef { row, line, user_id, account, suspects, .. }) = (record.tags(), record);
        self.records += 1;
        self.first.count(account.as_ref().err());
        self.oddities.invalid.see(account.as_ref().err());
        let position = || Position { row, line, user_id: user_id.into() };
        match account {
            Ok(account) => {
                self.valid += 1;
                let place = OddPlace { row, line };
                self.oddities.see(&account, suspects, place);
                if let Some(profile) = &mut self.profile {
                    self.oddities.see_tags(tags.inspect(|(tag, _)| profile.count(tag)), place);
                    profile.end_record();
                }
                Some(account)
            }
            Err(why) => {
                self.refused.push(rule(&why), || InvalidRecord { position: position(), why });
                None
            }
        }
    }

    /// The last row that has to be read again to name the examples of repeats.
    #[must_use]
    pub fn last_unnamed_row(&self) -> Option<u64> {
        self.repeats.first.last().map(|repeat| repeat.later_row)
    }

    /// Names the examples of repeats, whose UserIDs the sort doesn't keep, from a second look at the same roster.
    pub fn name_repeats(&mut self, mut roster: Roster<impl Read>) {
        let Some(last) = self.last_unnamed_row() else { return };
        while let Some(Ok(view)) = roster.next_view() {
            for repeat in self.repeats.first.iter_mut().filter(|repeat| repeat.later_row == view.row) {
                repeat.user_id = Some(view.user_id.into());
            }
            if view.row >= last {
                break;
            }
        }
    }
}

/// The rule that a record breaks, without the record's own figures.
fn rule(why: &InvalidAccount) -> Cow<'static, str> {
    Cow::Borrowed(match why {
        InvalidAccount::Tag(invalid) => return Cow::Owned(invalid.rule()),
        InvalidAccount::EmptyUserId => "UserID is empty",
        InvalidAccount::LongUserId { .. } => "UserID is too long",
        InvalidAccount::SpaceAtEnd { .. } => "UserID starts or ends with white space",
        InvalidAccount::UserIdCharacter { .. } => "UserID holds a character that is not allowed",
        InvalidAccount::ReservedPrefix { .. } => "UserID starts with a reserved prefix",
        InvalidAccount::LongField { .. } => "a field is too long",
        InvalidAccount::NotUtf8 { .. } => "a field is not valid UTF-8",
        InvalidAccount::ByteOrderMark => "UserID holds a byte order mark",
        InvalidAccount::ControlCharacter { .. } => "UserID holds a control character",
        InvalidAccount::Nul { .. } => "a field holds a NUL character",
        InvalidAccount::FieldCount { .. } => "the number of fields is not the header's",
        InvalidAccount::HeaderAgain => "the row is the header again",
        InvalidAccount::TextAfterQuote { .. } => "text follows a closing quote",
        InvalidAccount::SwallowedLines { .. } => "a quote swallowed lines",
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::domain::account::Field;
    use crate::io::roster::{Format, Roster};

    const RATES: Rates =
        Rates { single: NonZeroU32::new(200).unwrap(), batch: NonZeroU32::new(100).unwrap(), profile: NonZeroU32::new(200).unwrap() };

    fn roster(text: &str) -> Roster<Cursor<String>> {
        Roster::new(Cursor::new(text.to_owned()), &Format::default()).unwrap()
    }

    fn checked(text: &str) -> Checked {
        check(roster(text), RATES).unwrap()
    }

    #[test]
    fn records_are_counted_by_what_would_become_of_them() {
        let check = |text: &str, [records, valid, odd, superseded]: [u64; 4]| {
            let report = checked(text).report;
            assert_eq!(
                [report.records, report.valid, report.oddities.found().iter().map(|oddity| oddity.count).sum(), report.repeats.superseded],
                [records, valid, odd, superseded],
                "{text:?}"
            );
            assert_eq!(report.refused.count(), records - valid);
            assert_eq!(report.forecast.calls, valid);
        };
        check("UserID\n", [0, 0, 0, 0]);
        check("UserID\na\nb\n\nc", [3, 3, 0, 0]);
        check("UserID\na.b\n ab\na@b\na b\n", [4, 3, 3, 0]);
        check("UserID\na\nA\na\nb\na\n", [5, 5, 1, 2]);
    }

    #[test]
    fn invalid_records_supersede_nothing() {
        let report = checked("UserID,Nick\n ab,\n ab,\nc,\nc,\u{1},\n").report;
        assert_eq!((report.records, report.valid, report.repeats.superseded), (4, 1, 0));
    }

    #[test]
    fn refusals_are_grouped_by_rule_whatever_their_figures() {
        let report = checked("UserID,Nick\n ab,\nc\t,\n\"\",n\ne ,\n gh,\n").report;
        let groups: Vec<_> = report.refused.by_count().into_iter().map(|(rule, sample)| (rule, sample.count)).collect();
        assert_eq!(groups, [("UserID starts or ends with white space", 4), ("UserID is empty", 1)]);
        let rows: Vec<_> = report.refused.by_count()[0].1.first.iter().map(|refusal| refusal.position.row).collect();
        assert_eq!(rows, [1, 2, 4]);
    }

    #[test]
    fn a_bad_file_is_reported_as_far_as_it_can_be_read() {
        let checked = checked("UserID\na\na\n\"b\n");
        assert!(matches!(checked.end, Err(RosterError::OpenQuote { .. })));
        assert_eq!((checked.report.records, checked.report.repeats.superseded), (2, 1));
    }

    #[test]
    fn examples_of_repeats_are_named_by_a_second_look() {
        let text = "UserID\na\nb\na\nb\na\na\n";
        let mut report = checked(text).report;
        report.name_repeats(roster(text));
        let named: Vec<_> =
            report.repeats.first.iter().map(|repeat| (repeat.earlier_row, repeat.later_row, repeat.user_id.as_deref())).collect();
        assert_eq!(named, [(1, 3, Some(&b"a"[..])), (2, 4, Some(b"b")), (3, 5, Some(b"a"))]);
    }

    #[test]
    fn the_fixtures_hold_what_their_readme_says() {
        let check = |name: &str, format: &Format, [records, rules, refused, superseded]: [u64; 4]| {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
            let Checked { report, end, .. } = super::check(Roster::open(&path, format).unwrap(), RATES).unwrap();
            let rules_found = report.refused.by_count().len() as u64;
            assert!(end.is_ok(), "{name}");
            assert_eq!(
                [report.records, rules_found, report.refused.count(), report.repeats.superseded],
                [records, rules, refused, superseded],
                "{name}"
            );
        };
        let usual = Format::default();
        check("accounts.csv", &usual, [200, 0, 0, 0]);
        check("nicknames.csv", &usual, [26, 0, 0, 0]);
        check("quoted.csv", &usual, [5, 0, 0, 0]);
        check("crlf-bom.csv", &usual, [4, 0, 0, 0]);
        check("bad-rows.csv", &usual, [19, 12, 14, 1]);
        let map = [(Field::UserId, "account"), (Field::Nick, "display name"), (Field::FaceUrl, "avatar")];
        let map = map.map(|(field, column)| (field, column.to_owned())).to_vec();
        check("semicolon.csv", &Format { delimiter: b';', map, ..usual.clone() }, [4, 0, 0, 0]);
    }

    #[test]
    fn the_forecast_rounds_up() {
        let check = |valid: u64, seconds: u64| assert_eq!(ImportForecast::new(valid, 0, RATES).time(), Duration::from_secs(seconds));
        check(0, 0);
        check(1, 1);
        check(200, 1);
        check(201, 2);
        check(100_000_000, 500_000);
    }
}
