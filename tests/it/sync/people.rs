//! Random nights of people whose ids come in every guise that exports give them: nobody who is in the file is ever kicked or deleted, and
//! whoever is truly gone for long enough is.
//!
//! `CHATLIFT_PEOPLE_CASES` sets how many sequences of nights; a failure is shrunk and printed.

use std::collections::BTreeMap;

use chatlift::domain::command::Command as Api;
use chatlift::sandbox::{CustomFields, SandboxSettings};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;

use super::night::{SyncFixture, settings};
use crate::support::{Run, side_by_side};

/// Sequences unless another number is asked for. Chosen: some ten seconds.
const CASES: u32 = 16;
/// Parts of the sequences that run side by side.
const PARTS: u32 = 4;
/// Few enough that no share of them is judged, and no two look alike.
const PEOPLE: [&str; 5] = ["user1", "Ann-Lee", "00042", "777", "550e8400e29b41d4a716446655440000"];
/// Runs in a row after which an id is due, and the hours between two that count.
const MISSING_RUNS: u32 = 2;
const APART_HOURS: i64 = 10;

/// How a person stands in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guise {
    AsItIs,
    UpperCase,
    LowerCase,
    SpaceBehind,
    NoBreakSpaceBefore,
    ZeroWidthBehind,
    ByteOrderMark,
    Apostrophe,
    Formula,
    LeadingZeros,
    LostZeros,
    Fraction,
    Hyphens,
    /// The record is refused for its Nick.
    LongNick,
    /// The record is refused for a tag, if there is one.
    BadTag,
    TooFewFields,
    TooManyFields,
    TextBehindTheId,
    TextBehindTheNick,
    Swallowed,
    Exponent,
    Gone,
}

const GUISES: [Guise; 21] = [
    Guise::AsItIs,
    Guise::UpperCase,
    Guise::LowerCase,
    Guise::SpaceBehind,
    Guise::NoBreakSpaceBefore,
    Guise::ZeroWidthBehind,
    Guise::ByteOrderMark,
    Guise::Apostrophe,
    Guise::Formula,
    Guise::LeadingZeros,
    Guise::LostZeros,
    Guise::Fraction,
    Guise::Hyphens,
    Guise::LongNick,
    Guise::BadTag,
    Guise::TooFewFields,
    Guise::TooManyFields,
    Guise::TextBehindTheId,
    Guise::TextBehindTheNick,
    Guise::Swallowed,
    Guise::Exponent,
];

impl Guise {
    /// The cell of the UserID.
    fn cell(self, id: &str) -> String {
        let of_number = |cell: String| if id.bytes().all(|byte| byte.is_ascii_digit()) { cell } else { id.to_owned() };
        match self {
            Guise::UpperCase => id.to_uppercase(),
            Guise::LowerCase => id.to_lowercase(),
            Guise::SpaceBehind => format!("{id} "),
            Guise::NoBreakSpaceBefore => format!("\u{a0}{id}"),
            Guise::ZeroWidthBehind => format!("{id}\u{200b}"),
            Guise::ByteOrderMark => format!("\u{feff}{id}"),
            Guise::Apostrophe => format!("'{id}"),
            Guise::Formula => format!("=\"{id}\""),
            Guise::LeadingZeros => of_number(format!("00{id}")),
            Guise::LostZeros => of_number(id.trim_start_matches('0').to_owned()),
            Guise::Fraction => of_number(format!("{id}.0")),
            Guise::Hyphens if id.len() == 32 => [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-"),
            Guise::Exponent => "1.23457E+11".to_owned(),
            _ => id.to_owned(),
        }
    }

    /// What the file says of `id`: a record, or two lines that a quote makes one. No two nights have the same. Cells of tags come last.
    fn record(self, id: &str, night: i64, tags: &str) -> String {
        match self {
            Guise::Gone => String::new(),
            Guise::LongNick => format!("{id},{},{night}{tags}\n", "n".repeat(501)),
            Guise::BadTag if !tags.is_empty() => format!("{id},n,{night},many{}\n", tags[1..].find(',').map_or("", |end| &tags[end + 1..])),
            Guise::TooFewFields => format!("{id},n\n"),
            Guise::TooManyFields => format!("{id},n,{night}{tags},more\n"),
            Guise::TextBehindTheId => format!("\"{id}\"x,n,{night}{tags}\n"),
            Guise::TextBehindTheNick => format!("{id},\"n\"x,{night}{tags}\n"),
            Guise::Swallowed => format!("other,\"n,{night}{tags}\n{id},n\",{night}{tags}\n"),
            _ => format!("\"{}\",n,{night}{tags}\n", self.cell(id).replace('"', "\"\"")),
        }
    }

    /// Whether nobody can say for certain who is in a file with such a record.
    fn is_malformed(self) -> bool {
        use Guise::{Exponent, Swallowed, TextBehindTheId, TextBehindTheNick, TooFewFields, TooManyFields};
        matches!(self, TooFewFields | TooManyFields | TextBehindTheId | TextBehindTheNick | Swallowed | Exponent)
    }

    /// Whether a record has this very id, valid or not.
    fn has_the_id(self, id: &str) -> bool {
        match self {
            Guise::Gone | Guise::TextBehindTheId | Guise::Swallowed | Guise::Exponent => false,
            _ => self.cell(id) == id,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Kick,
    Delete,
}

#[derive(Debug, Clone)]
struct Night {
    /// Since the night before.
    hours: i64,
    guises: [Guise; PEOPLE.len()],
    /// It settles one row and does not finish.
    is_limited: bool,
    /// Columns of tags that the file has.
    columns: usize,
}

/// The columns of tags; a night has the first ones.
const COLUMNS: [&str; 2] = ["Tag_Profile_IM_Level", "Tag_Profile_Custom_Vip"];

impl Night {
    /// The cells of a person's tags; nobody has another one in the next night, but some have none.
    fn tags(&self, person: usize) -> [String; 2] {
        let level = if person == 2 { String::new() } else { (self.hours % 5).to_string() };
        [level, format!("vip {person}")]
    }
}

fn guise() -> impl Strategy<Value = Guise> {
    prop_oneof![3 => Just(Guise::AsItIs), 5 => Just(Guise::Gone), 3 => select(&GUISES[..])]
}

fn night() -> impl Strategy<Value = Night> {
    let guises = [guise(), guise(), guise(), guise(), guise()];
    let limited = prop_oneof![5 => Just(false), 1 => Just(true)];
    let hours = select(&[1, 9, 10, 11, 24][..]);
    (hours, guises, limited, 0..=COLUMNS.len()).prop_map(|(hours, guises, is_limited, columns)| Night {
        hours,
        guises,
        is_limited,
        columns,
    })
}

/// What is known of a person by what the files have said alone.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    missing_runs: u32,
    raised_at: i64,
    is_kicked: bool,
}

impl Known {
    fn night(&mut self, id: &str, night: &Night, guise: Guise, now: i64) {
        if guise.has_the_id(id) {
            *self = Self::default();
        } else if !night.is_limited && (self.missing_runs == 0 || now - self.raised_at >= APART_HOURS) {
            self.missing_runs += 1;
            self.raised_at = now;
        }
    }

    fn is_due(&self) -> bool {
        self.missing_runs >= MISSING_RUNS && !self.is_kicked
    }
}

struct PeopleFixture {
    fixture: SyncFixture,
    mode: Mode,
    known: [Known; PEOPLE.len()],
    /// Whose each id is that a file has had.
    persons: BTreeMap<String, usize>,
    now: i64,
    seen: usize,
}

impl PeopleFixture {
    fn new(mode: Mode) -> Self {
        let fixture = SyncFixture::new(SandboxSettings { custom_fields: CustomFields::Any, ..settings(&[]) });
        fixture.night(&[&["anchor", "other"], &PEOPLE[..]].concat(), &[]).exits(0);
        let persons = PEOPLE.iter().enumerate().map(|(person, id)| ((*id).to_owned(), person)).collect();
        Self { fixture, mode, known: <[Known; PEOPLE.len()]>::default(), persons, now: 0, seen: 0 }
    }

    fn night(&mut self, night: &Night) {
        self.now += night.hours;
        self.fixture.passes(night.hours * 60);
        let held = self.fixture.held();
        let file = self.file(night);
        self.fixture.bench.write("users.csv", file);
        let flags = match self.mode {
            Mode::Kick => ["--missing", "kick", "--max-delete", "100"],
            Mode::Delete => ["--missing", "delete", "--max-delete", "100"],
        };
        let limit: &[&str] = if night.is_limited { &["--limit", "1"] } else { &[] };
        let run = self.fixture.again(&[&flags[..], &["--missing-runs", "2", "--missing-apart", "10h"], limit].concat());
        assert!(matches!(run.code, Some(0 | 3)), "{}", run.stderr);
        let acted = self.acted_on();
        for person in acted.iter().map(|id| self.persons[id]) {
            assert_eq!(night.guises[person], Guise::Gone, "{} is in the file: {acted:?} {}", PEOPLE[person], run.stderr);
        }
        let is_malformed = night.guises.iter().any(|guise| guise.is_malformed());
        for (person, id) in PEOPLE.iter().enumerate() {
            let known = &mut self.known[person];
            known.night(id, night, night.guises[person], self.now);
            let must = night.guises[person] == Guise::Gone
                && held.iter().any(|held| held == id)
                && known.is_due()
                && !night.is_limited
                && !is_malformed;
            let is_acted_on = acted.iter().any(|acted| acted == id);
            assert!(!must || is_acted_on, "{id} is gone for {known:?} and still there: {}", run.stderr);
            assert!(!is_acted_on || known.is_due(), "{id} is gone for {known:?} only: {}", run.stderr);
            known.is_kicked |= is_acted_on;
        }
        self.tags_are_set(night, &run);
    }

    /// Whoever has a valid record of his own has its tags, unless the night was cut short.
    fn tags_are_set(&self, night: &Night, run: &Run) {
        let is_plain = |person: &usize| night.guises[*person] == Guise::AsItIs && !night.is_limited;
        for (person, id) in PEOPLE.iter().enumerate().filter(|(person, _)| is_plain(person)) {
            let held = self.fixture.sandbox.account(id).unwrap().tags;
            for (column, cell) in COLUMNS.iter().zip(night.tags(person)).take(night.columns).filter(|(_, cell)| !cell.is_empty()) {
                let value = held.get(*column).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                assert_eq!(value, Some(cell), "{id}: {column}, {}", run.stderr);
            }
        }
    }

    fn file(&mut self, night: &Night) -> String {
        let tags = |cells: &[String]| cells.iter().take(night.columns).fold(String::new(), |tags, cell| tags + "," + cell);
        let names = tags(&COLUMNS.map(str::to_owned));
        let none = ",".repeat(night.columns);
        let mut text = format!("UserID,Nick,night{names}\nanchor,n,{0}{none}\nother,n,{0}{none}\n", self.now);
        for (person, (id, guise)) in PEOPLE.iter().zip(night.guises).enumerate() {
            text += &guise.record(id, self.now, &tags(&night.tags(person)));
            if guise != Guise::Exponent {
                self.persons.insert(guise.cell(id), person);
            }
        }
        text
    }

    /// Who was kicked or deleted since the last time; whatever a record with an exponent made is nobody's.
    fn acted_on(&mut self) -> Vec<String> {
        let touches = self.fixture.sandbox.call_log();
        let new = &touches[self.seen..];
        let acted = new.iter().filter(|touch| matches!(touch.command, Api::Kick | Api::AccountDelete));
        let acted = acted.map(|touch| touch.user_id.clone()).filter(|id| id != "1.23457E+11").collect();
        self.seen = touches.len();
        acted
    }
}

fn config() -> ProptestConfig {
    let cases = std::env::var("CHATLIFT_PEOPLE_CASES").map_or(CASES, |text| text.parse().expect("a number"));
    ProptestConfig { cases: cases.div_ceil(PARTS), failure_persistence: None, max_shrink_iters: 100, ..ProptestConfig::default() }
}

/// The cases are divided: most of the time of each is spent with waiting.
#[test]
fn nobody_who_is_there_is_touched_and_whoever_is_gone_is() {
    let nights = (select(&[Mode::Kick, Mode::Delete][..]), proptest::collection::vec(night(), 2..7));
    side_by_side(0..PARTS, |_| {
        let lives_through = |(mode, nights): (Mode, Vec<Night>)| {
            let mut people = PeopleFixture::new(mode);
            for night in &nights {
                people.night(night);
            }
            Ok(())
        };
        TestRunner::new(config()).run(&nights, lives_through).unwrap_or_else(|failure| panic!("{failure}"));
    });
}
