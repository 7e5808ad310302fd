//! `chatlift check`: the report for people, and its exit code.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use super::flags::InputFlags;
use super::input::{CUT_WORDS, Stream, blank_words, roster_error};
use super::preflight::{Admission, ColumnsNeeded};
use super::quota::ForecastQuota;
use super::remedies;
use super::settings::format;
use super::stdout::print;
use super::{columns, oddities};
use crate::domain::account::InvalidAccount;
use crate::domain::examples::Examples;
use crate::domain::figures::{count, counted};
use crate::flow::check::{
    CheckReport, Checked, EXAMPLES, ImportForecast, InvalidRecord, Position, ProfileCells, ProfileForecast, Rates, Repeat, Repeats, check,
};
use crate::io::roster::{Format, Look};
use crate::shell::exit::{Exit, ExitMessage};
use crate::shell::terminal::{causes, printable, quoted};

/// How often a file that grows is read. Chosen: what still grows then is reported as far as it was read.
const READINGS_MAX: u32 = 10;

/// Reads the file, prints the report.
pub(super) fn run(
    input: &InputFlags,
    rates: Rates,
    shared: Result<Option<ForecastQuota>, ExitMessage>,
    admission: Admission,
) -> ExitMessage {
    shared.and_then(|shared| checked(input, rates, shared, admission)).unwrap_or_else(|word| word)
}

fn checked(input: &InputFlags, rates: Rates, shared: Option<ForecastQuota>, admission: Admission) -> Result<ExitMessage, ExitMessage> {
    let rates = shared.as_ref().map_or(rates, |shared| shared.bounds(rates));
    let (path, format) = (&input.file, format(input));
    let mut stream = Stream::open(input)?;
    let Checked { mut report, end, .. } = read(&mut stream, (path, &format), rates, admission)?;
    if stream.can_be_read_again()
        && report.last_unnamed_row().is_some()
        && let Ok(again) = stream.roster(&format)
    {
        report.name_repeats(again);
    }
    print(&PrintedReport { report: &report, columns: admission.columns })?;
    shared.map(|shared| print(&format_args!("{}\n", shared.words))).transpose()?;
    if stream.is_cut() {
        print(&format_args!("\n{CUT_WORDS}\n"))?;
    }
    Ok(end.map_or_else(
        |error| roster_error(path, &error),
        |()| {
            let refusal = admission.refusal(&report.first, &report.oddities);
            refusal.map_or_else(|| last_word(&report), |refusal| refusal.after_check(input))
        },
    ))
}

/// Reads the file; from its start again if it has grown meanwhile.
fn read(stream: &mut Stream, (path, format): (&Path, &Format), rates: Rates, admission: Admission) -> Result<Checked, ExitMessage> {
    let mut readings = 0;
    loop {
        let roster = stream.roster(format).map_err(|error| roster_error(path, &error))?;
        let dialect = roster.dialect();
        if readings == 0 {
            columns::report(roster.header())?;
            admission.ensure_columns(roster.header())?;
        }
        let checked = check(roster, rates).map_err(|error| {
            ExitMessage::new(Exit::Fatal, causes(&error), "free some space there (24 bytes per row), or set TMPDIR to another folder")
        })?;
        readings += 1;
        if checked.end.is_err() {
            return Ok(checked);
        }
        let look = stream.look_again(dialect, checked.at).map_err(|error| roster_error(path, &error))?;
        if look != Look::Grown || readings == READINGS_MAX {
            return Ok(checked);
        }
    }
}

fn last_word(report: &CheckReport) -> ExitMessage {
    match report.refused.count() {
        0 => ExitMessage::new(Exit::Done, format!("{} can be sent", counted(report.records, "row")), "the file can be imported as it is"),
        refused => ExitMessage::new(
            Exit::SomeRowsRejected,
            format!("{} of {} would be refused", count(refused), counted(report.records, "row")),
            helps(report)
                + "correct them, or import the file as it is: they become `invalid`, and the rejects file holds them ready to be fixed",
        ),
    }
}

/// What helps against a reason that all invalid records share, and against swallowed lines.
fn helps(report: &CheckReport) -> String {
    remedies::before_hint(&report.oddities.invalid)
}

/// The report on a file for a run that needs these columns.
struct PrintedReport<'a> {
    report: &'a CheckReport,
    columns: ColumnsNeeded,
}

/// Ends with a line end, as all its parts do.
impl fmt::Display for PrintedReport<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { report, columns } = self;
        write_findings(f, report)?;
        match columns {
            ColumnsNeeded::OfIds => {
                write_forecast(f, report.forecast)?;
                report.profile.as_ref().map_or(Ok(()), |profile| write_profile(f, profile, report.forecast))
            }
            ColumnsNeeded::OfTagsToo => write_profiles_alone(f, report),
        }
    }
}

fn write_findings(f: &mut fmt::Formatter<'_>, report: &CheckReport) -> fmt::Result {
    let figures = [report.records, report.valid, report.refused.count()].map(count);
    let width = figures[0].len();
    for (label, figure) in ["rows", "  can be sent", "  would be refused"].into_iter().zip(figures) {
        writeln!(f, "{label:<20}{figure:>width$}")?;
    }
    if let Some(words) = blank_words(report.blank) {
        writeln!(f, "{words}")?;
    }
    for (rule, sample) in report.refused.by_count() {
        write_refused(f, rule, sample)?;
    }
    oddities::write(f, &report.oddities)?;
    write_repeats(f, &report.repeats)
}

fn write_refused(f: &mut fmt::Formatter<'_>, rule: &str, sample: &Examples<InvalidRecord, EXAMPLES>) -> fmt::Result {
    writeln!(f, "\nrefused: {rule}: {}", counted(sample.count, "row"))?;
    sample
        .first
        .iter()
        .try_for_each(|refusal| writeln!(f, "  {}: {}{}", place(&refusal.position), refusal.why, cell_words(&refusal.why)))?;
    write_rest(f, sample.count, sample.first.len())
}

fn write_repeats(f: &mut fmt::Formatter<'_>, repeats: &Repeats) -> fmt::Result {
    if repeats.superseded == 0 {
        return writeln!(f, "\nduplicates: none");
    }
    let (user_ids, superseded) = (counted(repeats.user_ids, "UserID"), counted(repeats.superseded, "row"));
    writeln!(f, "\nduplicates: {superseded} superseded by a later one of the same UserID (the last row wins), {user_ids} in all")?;
    repeats.first.iter().try_for_each(|repeat| writeln!(f, "  {}", pair(repeat)))?;
    write_rest(f, repeats.superseded, repeats.first.len())
}

fn write_forecast(f: &mut fmt::Formatter<'_>, forecast: ImportForecast) -> fmt::Result {
    let (calls, rate) = (counted(forecast.calls, "request"), count(forecast.rate_per_s.get().into()));
    let batches = forecast.batches;
    let (batch_calls, batch_rate) = (counted(batches.calls, "request"), count(batches.rate_per_s.get().into()));
    write!(f, "\nforecast: {calls}, {} at {rate} a second; ", humantime::format_duration(forecast.time()))?;
    writeln!(f, "in batches: {batch_calls}, {} at {batch_rate} a second", humantime::format_duration(batches.time()))
}

/// The cells of tags, and what they take beside the rest.
fn write_profile(f: &mut fmt::Formatter<'_>, profile: &ProfileCells, forecast: ImportForecast) -> fmt::Result {
    let ProfileForecast { calls, rate_per_s } = forecast.profiles;
    writeln!(f, "\n{}", cell_counts(profile))?;
    let (time, in_all) = (forecast.profiles.time(), |other: Duration| humantime::format_duration(other.max(forecast.profiles.time())));
    let (calls, rate) = (counted(calls, "request"), count(rate_per_s.get().into()));
    write!(f, "  {calls} of portrait_set, {} at {rate} a second, beside the others; ", humantime::format_duration(time))?;
    writeln!(f, "in all {}, in batches {}", in_all(forecast.time()), in_all(forecast.batches.time()))?;
    writeln!(f, "  {}", columns::PUSHED)
}

/// What a run takes that sends tags alone.
fn write_profiles_alone(f: &mut fmt::Formatter<'_>, report: &CheckReport) -> fmt::Result {
    let forecast = report.forecast.profiles;
    let (calls, rate) = (counted(forecast.calls, "request"), count(forecast.rate_per_s.get().into()));
    writeln!(f, "\nforecast: {calls} of portrait_set, {} at {rate} a second", humantime::format_duration(forecast.time()))?;
    let Some(profile) = &report.profile else { return Ok(()) };
    writeln!(f, "\n{}", cell_counts(profile))?;
    writeln!(f, "  the other rows take no request; a user whom the service does not know takes an import and one more portrait_set")?;
    writeln!(f, "  {}", columns::PUSHED)
}

/// How many rows have cells of tags.
fn cell_counts(profile: &ProfileCells) -> String {
    let of_tags: Vec<String> =
        profile.of_tags.iter().map(|(tag, cells)| format!("{} in {}", printable(&tag.to_string()), count(*cells))).collect();
    let has = if profile.records == 1 { "has" } else { "have" };
    format!("profile: {} {has} cells of tags: {}", counted(profile.records, "row"), of_tags.join(", "))
}

/// How many of a sample are not shown.
pub(super) fn write_rest(f: &mut fmt::Formatter<'_>, total: u64, shown: usize) -> fmt::Result {
    match total.saturating_sub(shown as u64) {
        0 => Ok(()),
        rest => writeln!(f, "  … and {} more", count(rest)),
    }
}

/// The cell, where that is a word that somebody may know another one for.
fn cell_words(why: &InvalidAccount) -> String {
    let word = if let InvalidAccount::Tag(invalid) = why { invalid.word.as_deref() } else { None };
    word.map_or_else(String::new, |word| format!(": {}", quoted(word.as_bytes())))
}

fn place(position: &Position) -> String {
    format!("row {}, line {}, UserID {}", position.row, position.line, quoted(&position.user_id))
}

fn pair(repeat: &Repeat) -> String {
    let rows = format!("row {} supersedes row {}", repeat.later_row, repeat.earlier_row);
    repeat.user_id.as_deref().map_or_else(|| rows.clone(), |user_id| format!("{rows}, UserID {}", quoted(user_id)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::num::NonZeroU32;

    use super::*;
    use crate::io::roster::Roster;

    const RATES: Rates =
        Rates { single: NonZeroU32::new(200).unwrap(), batch: NonZeroU32::new(100).unwrap(), profile: NonZeroU32::new(200).unwrap() };

    fn report(text: &str) -> CheckReport {
        let roster = || Roster::new(Cursor::new(text.to_owned()), &Format::default()).unwrap();
        let mut report = check(roster(), RATES).unwrap().report;
        report.name_repeats(roster());
        report
    }

    fn told(text: &str) -> String {
        PrintedReport { report: &report(text), columns: ColumnsNeeded::OfIds }.to_string()
    }

    #[test]
    fn the_report_says_what_would_be_refused_and_why_then_duplicates_then_the_forecast() {
        let mut text = "UserID,Nick\nada,\nada,A\nx@y,\n,empty\n ab,\na\u{1b}[2Jc,\ne\t,\na\u{a0},\nshort\n".to_owned();
        text.extend((0..2_000).map(|number| format!("user_{number},\n")));
        insta::assert_snapshot!(told(&text), @r#"
        rows                2,009
          can be sent       2,003
          would be refused      6

        refused: UserID starts or ends with white space: 3 rows
          row 5, line 6, UserID " ab": UserID starts or ends with white space (U+0020)
          row 7, line 8, UserID "e\t": UserID starts or ends with white space (U+0009)
          row 8, line 9, UserID "a ": UserID starts or ends with white space (U+00A0)

        refused: UserID is empty: 1 row
          row 4, line 5, UserID "": UserID is empty

        refused: UserID holds a control character: 1 row
          row 6, line 7, UserID "a\u{1b}[2Jc": UserID holds the control character U+001B

        refused: the number of fields is not the header's: 1 row
          row 9, line 10, UserID "short": the row has 1 field, the header has 2

        odd: UserID with other characters than A-Z a-z 0-9 _ -: 1 row
          they are sent as they are; not every page of the service's documentation allows them
          row 3, line 4: "x@y"

        duplicates: 1 row superseded by a later one of the same UserID (the last row wins), 1 UserID in all
          row 2 supersedes row 1, UserID "ada"

        forecast: 2,003 requests, 11s at 200 a second; in batches: 21 requests, 1s at 100 a second
        "#);
    }

    #[test]
    fn a_report_without_findings_is_short() {
        insta::assert_snapshot!(told("UserID\na\nb\n"), @r"
        rows                2
          can be sent       2
          would be refused  0

        duplicates: none

        forecast: 2 requests, 1s at 200 a second; in batches: 1 request, 1s at 100 a second
        ");
    }

    #[test]
    fn blank_lines_are_told_where_there_are_any() {
        let two = told("UserID,Nick\na,\n,\n\nb,\n");
        assert!(two.contains("\n2 blank lines skipped\n"), "{two}");
        assert!(told("UserID,Nick\na,\n,\n").contains("\n1 blank line skipped\n"));
    }

    #[test]
    fn the_last_word_follows_from_the_refusals() {
        let check = |text: &str, exit: Exit, why: &str| {
            let word = last_word(&report(text));
            assert_eq!((word.exit, word.why.as_str()), (exit, why), "{text:?}");
        };
        check("UserID\na\na\n", Exit::Done, "2 rows can be sent");
        check("UserID\na\n ab\n", Exit::SomeRowsRejected, "1 of 2 rows would be refused");
    }
}
