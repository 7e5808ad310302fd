//! Oddities: what the service takes, though somebody may not have meant it.
//!
//! They are counted by kind, with the first places of each, in memory that doesn't grow with the file. Nothing is read or written here.

mod frequent;

use std::collections::BTreeMap;

use frequent::FrequentValues;

use super::account::{AccountRef, Field, Suspects};
use super::examples::Examples;
use super::lookalike::takes_no_room;
use super::shared_reason::SharedReason;
use super::tag::{Tag, TagValueRef};

/// Places that are told of each kind. Source: the contract of the input.
pub const PLACES: usize = 3;
/// From so many rows up a value is odd that stands in more than one of five. Source: the contract of the input.
const FREQUENT_FROM_ROWS: u64 = 50;
const FREQUENT_SHARE: u64 = 5;
/// Longest `Location` that no version of the documentation forbids, in bytes. Source: the documentation of profile fields, older versions.
const LOCATION_BYTES: usize = 16;

/// What is odd about a record, or about all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OddityKind {
    /// A UserID with other characters than letters, digits, `_` and `-`: the service's pages don't agree on them.
    UnusualId,
    /// A UserID as spreadsheets write numbers, or keep them from being numbers.
    SpreadsheetId,
    /// A UserID that differs from another one only in case.
    CaseTwin,
    /// A record that is to be created and looks like an account that is missing.
    LookalikeCreate,
    /// Line breaks and other control characters.
    ControlCharacters(Field),
    /// Characters that change the direction of the text around them.
    DirectionOverride(Field),
    /// Nothing but characters that take no room.
    Invisible(Field),
    /// U+FFFD, which programs put where they can't decode something.
    Undecoded(Field),
    /// One value in a large share of all rows.
    Frequent(Field),
    /// A `FaceUrl` that begins neither with http:// nor with https://.
    NoUrl,
    /// A `Location` of more bytes than some versions of the service's documentation allow.
    LongLocation,
    /// A record of a rejects file that had another number of fields than the header when it was rejected.
    FieldCount,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct OddPlace {
    /// Counts records from 1.
    pub row: u64,
    /// The physical line on which it starts.
    pub line: u64,
}

/// One of those that are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OddExample {
    pub place: OddPlace,
    /// What is odd: foreign text. `None` where nobody has kept it.
    pub text: Option<Box<str>>,
}

impl From<OddPlace> for OddExample {
    fn from(place: OddPlace) -> Self {
        Self { place, text: None }
    }
}

/// What was found of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    pub kind: OddityKind,
    pub count: u64,
    pub first: Vec<OddExample>,
    /// The frequent value.
    pub value: Option<Box<str>>,
}

/// Counts the oddities of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OddityCounts {
    kinds: BTreeMap<OddityKind, Examples<OddExample, PLACES>>,
    /// What the invalid records have in common.
    pub invalid: SharedReason,
    /// Valid records.
    rows: u64,
    nicks: FrequentValues,
    /// Those that are no URLs.
    face_urls: FrequentValues,
}

impl OddityCounts {
    /// Takes a look at a valid record.
    pub fn see(&mut self, account: &AccountRef, suspects: Suspects, place: OddPlace) {
        self.rows += 1;
        if !account.has_plain_id() {
            self.see_id(account.user_id, place);
        }
        if suspects.columns {
            self.add(OddityKind::FieldCount, place, account.user_id);
        }
        if let Some(nick) = account.nick {
            self.nicks.see(nick, place);
            if suspects.nick {
                self.see_text(Field::Nick, nick, place);
            }
        }
        if let Some(face_url) = account.face_url {
            if suspects.face_url {
                self.see_text(Field::FaceUrl, face_url, place);
            }
            if !is_url(face_url) {
                self.add(OddityKind::NoUrl, place, face_url);
                self.face_urls.see(face_url, place);
            }
        }
    }

    /// Takes a look at the tags of a valid record.
    #[inline]
    pub fn see_tags<'a>(&mut self, tags: impl Iterator<Item = (&'a Tag, TagValueRef<'a>)>, place: OddPlace) {
        for (tag, value) in tags {
            match (tag, value) {
                (Tag::Location, TagValueRef::Text(text)) if text.len() > LOCATION_BYTES => {
                    self.add(OddityKind::LongLocation, place, text);
                }
                _ => {}
            }
        }
    }

    fn add(&mut self, kind: OddityKind, place: OddPlace, text: &str) {
        self.kinds.entry(kind).or_default().push(|| OddExample { place, text: Some(text.into()) });
    }

    /// Takes what was counted elsewhere of such a kind.
    pub fn set(&mut self, kind: OddityKind, count: u64, first: impl IntoIterator<Item = OddPlace>) {
        if count > 0 {
            self.kinds.insert(kind, Examples { count, first: first.into_iter().take(PLACES).map(OddExample::from).collect() });
        }
    }

    #[cold]
    fn see_id(&mut self, user_id: &str, place: OddPlace) {
        if user_id.contains(char::REPLACEMENT_CHARACTER) {
            self.add(OddityKind::Undecoded(Field::UserId), place, user_id);
        }
        self.add(if is_spreadsheets(user_id) { OddityKind::SpreadsheetId } else { OddityKind::UnusualId }, place, user_id);
    }

    #[cold]
    fn see_text(&mut self, field: Field, text: &str, place: OddPlace) {
        if text.contains(is_control) {
            self.add(OddityKind::ControlCharacters(field), place, text);
        }
        if text.contains(char::REPLACEMENT_CHARACTER) {
            self.add(OddityKind::Undecoded(field), place, text);
        }
        if text.chars().all(takes_no_room) && text.chars().any(|char| !char.is_whitespace()) {
            self.add(OddityKind::Invisible(field), place, text);
        } else if text.contains(is_direction_override) {
            self.add(OddityKind::DirectionOverride(field), place, text);
        }
    }

    /// All that was found, in the order of the fields.
    #[must_use]
    pub fn found(&self) -> Vec<Oddity> {
        let of_kind = |(kind, examples): (&OddityKind, &Examples<OddExample, PLACES>)| Oddity {
            kind: *kind,
            count: examples.count,
            first: examples.first.clone(),
            value: None,
        };
        let mut found: Vec<Oddity> = self.kinds.iter().map(of_kind).collect();
        for (field, values) in [(Field::Nick, &self.nicks), (Field::FaceUrl, &self.face_urls)] {
            found.extend(self.frequent(field, values));
        }
        found.sort_by_key(|oddity| oddity.kind);
        found
    }

    fn frequent(&self, field: Field, values: &FrequentValues) -> Vec<Oddity> {
        if self.rows < FREQUENT_FROM_ROWS {
            return Vec::new();
        }
        let found = values.over(self.rows / FREQUENT_SHARE).into_iter();
        let oddity = |count: &frequent::ValueCount| Oddity {
            kind: OddityKind::Frequent(field),
            count: count.seen,
            first: count.first().iter().copied().map(OddExample::from).collect(),
            value: count.text.clone(),
        };
        found.filter(|count| count.seen * FREQUENT_SHARE > self.rows).map(oddity).collect()
    }

    /// Valid records that were looked at.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }
}

/// What spreadsheets make of a number: a rounded one, one with a fraction, or one that was kept as text.
fn is_spreadsheets(user_id: &str) -> bool {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_number = |text: &str| is_digits(&text.replacen(['.', ','], "", 1)) && text.starts_with(|char: char| char.is_ascii_digit());
    let unsigned = user_id.strip_prefix('-').unwrap_or(user_id);
    let is_rounded = unsigned
        .split_once(['E', 'e'])
        .is_some_and(|(mantissa, exponent)| is_number(mantissa) && is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)));
    let has_fraction = unsigned.strip_suffix(".0").is_some_and(is_digits);
    let is_kept_text = user_id.starts_with('\'') || (user_id.len() > 3 && user_id.starts_with("=\"") && user_id.ends_with('"'));
    is_rounded || has_fraction || is_kept_text
}

/// Control characters, and the line ends of Unicode.
fn is_control(char: char) -> bool {
    char.is_control() || matches!(char, '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates.
fn is_direction_override(char: char) -> bool {
    matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[inline]
fn is_url(text: &str) -> bool {
    // Nearly all of them begin so.
    (text.starts_with("https://") && text.len() > "https://".len()) || is_other_url(text)
}

fn is_other_url(text: &str) -> bool {
    let has_scheme =
        |scheme: &str| text.get(..scheme.len()).is_some_and(|found| found.eq_ignore_ascii_case(scheme) && text.len() > scheme.len());
    has_scheme("https://") || has_scheme("http://")
}

#[cfg(test)]
mod tests {
    use super::OddityKind::{ControlCharacters, DirectionOverride, Frequent, Invisible, NoUrl, SpreadsheetId, Undecoded, UnusualId};
    use super::*;
    use crate::domain::account::UserIds;
    use crate::domain::cells::{CellRules, ReadCells};
    use crate::domain::known_text::KnownText;

    fn look(counts: &mut OddityCounts, row: u64, [user_id, nick, face_url]: [&str; 3]) {
        let rules = CellRules { user_ids: UserIds::Any, ..CellRules::default() };
        let values =
            ReadCells { user_id: user_id.as_bytes(), nick: nick.as_bytes(), face_url: face_url.as_bytes(), known: KnownText::default() };
        let (account, suspects) = rules.account(values.user_id, values).unwrap();
        counts.see(&account, suspects, OddPlace { row, line: row + 1 });
    }

    fn kinds(cells: [&str; 3]) -> Vec<OddityKind> {
        let mut counts = OddityCounts::default();
        look(&mut counts, 1, cells);
        counts.found().into_iter().map(|oddity| oddity.kind).collect()
    }

    #[test]
    fn each_oddity_of_a_user_id_has_its_kind() {
        let check = |user_id: &str, expected: &[OddityKind]| assert_eq!(kinds([user_id, "", ""]), expected, "{user_id:?}");
        check("Alice_1-b", &[]);
        check("550e8400-e29b-41d4-a716-44665544", &[]);
        for usual in ["a.b", "a@b", "a b", "李雷", "1.5", "12.00", "a.0", ".0", "E+5", "=x", "1.2.3E+4", "E1.0"] {
            check(usual, &[UnusualId]);
        }
        for spreadsheets in ["1.23457E+11", "1,23457E+11", "1E+11", "-1.5e20", "=\"00123\"", "'00123", "123.0", "'x"] {
            check(spreadsheets, &[SpreadsheetId]);
        }
        check("al\u{fffd}", &[UnusualId, Undecoded(Field::UserId)]);
    }

    #[test]
    fn each_oddity_of_a_text_has_its_kind() {
        let nick = Field::Nick;
        let check = |text: &str, expected: &[OddityKind]| {
            for padding in ["", "abcdefghij", "好好好"] {
                let is_alone = expected.contains(&Invisible(nick));
                let text = if is_alone { text.to_owned() } else { format!("{padding}{text}{padding}") };
                assert_eq!(kinds(["a", &text, ""]), expected, "{text:?}");
            }
        };
        check("Ada", &[]);
        check("👩‍👩‍👧 “韩梅梅”… עברית العربية café ！", &[]);
        check("a\u{feff}b", &[]);
        check("two\nlines", &[ControlCharacters(nick)]);
        check("\r", &[ControlCharacters(nick)]);
        check("\u{7f}", &[ControlCharacters(nick)]);
        check("\u{85}", &[ControlCharacters(nick)]);
        check("\u{2028}", &[ControlCharacters(nick)]);
        check("a\u{202e}b", &[DirectionOverride(nick)]);
        check("a\u{2067}b", &[DirectionOverride(nick)]);
        check("a\u{fffd}", &[Undecoded(nick)]);
        check("\u{200b}", &[Invisible(nick)]);
        check("\u{feff}", &[Invisible(nick)]);
        check("\u{ad}\u{34f}\u{61c}\u{180e}\u{fe0f}", &[Invisible(nick)]);
        check("\u{34f}", &[Invisible(nick)]);
        check("\u{180e}\u{202e}", &[Invisible(nick)]);
        check("a\n\u{fffd}\u{202e}b", &[ControlCharacters(nick), DirectionOverride(nick), Undecoded(nick)]);
    }

    #[test]
    fn a_face_url_is_a_url_of_the_web() {
        let check = |url: &str, expected: &[OddityKind]| assert_eq!(kinds(["a", "", url]), expected, "{url:?}");
        check("https://img.example.com/a.png", &[]);
        check("HTTP://x", &[]);
        for other in ["img.example.com/a.png", "ftp://x", "https://", "x", "NULL", "//x", "好"] {
            check(other, &[NoUrl]);
        }
        check("https://x/\u{fffd}", &[Undecoded(Field::FaceUrl)]);
    }

    #[test]
    fn a_value_is_frequent_from_fifty_rows_up_in_more_than_a_fifth_of_them() {
        let told = |rows: u64, frequent: u64| {
            let mut counts = OddityCounts::default();
            for row in 1..=rows {
                let nick = if row <= frequent { "NULL".to_owned() } else { row.to_string() };
                look(&mut counts, row, [&format!("u{row}"), &nick, "https://img.example.com/default.png"]);
            }
            counts.found().into_iter().map(|oddity| (oddity.kind, oddity.count, oddity.value)).collect::<Vec<_>>()
        };
        let frequent = |count: u64| vec![(Frequent(Field::Nick), count, Some(Box::from("NULL")))];
        assert_eq!(told(49, 49), []);
        assert_eq!(told(50, 10), []);
        assert_eq!(told(50, 11), frequent(11));
        assert_eq!(told(54, 10), []);
        assert_eq!(told(54, 11), frequent(11));
        assert_eq!(told(10_000, 2_000), []);
        assert_eq!(told(10_000, 2_001), frequent(2_001));
    }

    #[test]
    fn a_location_is_odd_past_sixteen_bytes() {
        let found = |text: &str| {
            let mut counts = OddityCounts::default();
            let signature = (&Tag::SelfSignature, TagValueRef::Text(text));
            counts.see_tags([signature, (&Tag::Location, TagValueRef::Text(text))].into_iter(), OddPlace { row: 1, line: 2 });
            counts.found().into_iter().map(|oddity| oddity.kind).collect::<Vec<_>>()
        };
        assert_eq!(found("上海市浦东"), []);
        assert_eq!(found("Shanghai, Pudong"), []);
        assert_eq!(found("Shanghai, Pu Dong"), [OddityKind::LongLocation]);
        assert_eq!(found("上海市浦东新"), [OddityKind::LongLocation]);
    }

    #[test]
    fn places_are_the_first_ones() {
        let mut counts = OddityCounts::default();
        for row in 1..=9 {
            look(&mut counts, row, ["a", if row % 2 == 0 { "\n" } else { "x" }, ""]);
        }
        let found = counts.found();
        let rows: Vec<u64> = found[0].first.iter().map(|example| example.place.row).collect();
        assert_eq!((found.len(), found[0].count, rows), (1, 4, vec![2, 4, 6]));
    }
}
