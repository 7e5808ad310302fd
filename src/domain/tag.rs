//! The tags of a profile: what `portrait_set` sets besides nickname and avatar, and what a cell may hold for each.
//!
//! Source of names, types and words: the documentation of profile fields.

mod invalid;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::known_text::KnownText;
use super::profile::FIELD_MAX_BYTES;
use invalid::nameable_word;
pub use invalid::{InvalidTagValue, WhyInvalid};

/// How the wire's names of the standard tags begin.
const STANDARD_PREFIX: &str = "Tag_Profile_IM_";
/// How the wire's names of the app's own tags begin.
const CUSTOM_PREFIX: &str = "Tag_Profile_Custom_";
/// How the short names of the app's own tags begin.
const CUSTOM_SHORT_PREFIX: &str = "Custom.";
/// Longest key of an app's own tag that the documentation allows today, in letters.
const CUSTOM_KEY_LETTERS: usize = 8;

/// A field of a profile that `portrait_set` sets.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tag {
    Gender,
    BirthDay,
    Location,
    SelfSignature,
    AllowType,
    Language,
    MsgSettings,
    AdminForbidType,
    Level,
    Role,
    /// A field that the app has created for itself, with its key.
    Custom(Arc<str>),
}

/// What a cell of a tag may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One of these words, or what it stands for on the wire, in any case.
    Word(&'static [(&'static str, &'static str)]),
    /// A day of the calendar.
    Day,
    /// A whole number of 32 bits.
    Number,
    Text,
}

/// A day that every service knows. Chosen.
const SAMPLE_DAY: u32 = 20_000_101;

const GENDERS: &[(&str, &str)] = &[("unknown", "Gender_Type_Unknown"), ("female", "Gender_Type_Female"), ("male", "Gender_Type_Male")];
const ALLOW_TYPES: &[(&str, &str)] =
    &[("need-confirm", "AllowType_Type_NeedConfirm"), ("allow-any", "AllowType_Type_AllowAny"), ("deny-any", "AllowType_Type_DenyAny")];
const FORBID_TYPES: &[(&str, &str)] = &[("none", "AdminForbid_Type_None"), ("send-out", "AdminForbid_Type_SendOut")];

impl Tag {
    /// The tags that every app has.
    pub const STANDARD: [Tag; 10] = [
        Tag::Gender,
        Tag::BirthDay,
        Tag::Location,
        Tag::SelfSignature,
        Tag::AllowType,
        Tag::Language,
        Tag::MsgSettings,
        Tag::AdminForbidType,
        Tag::Level,
        Tag::Role,
    ];

    /// The tag with this short name (`Gender`, `Custom.KEY`) or this name of the wire (`Tag_Profile_IM_Gender`), byte for byte.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let custom = name.strip_prefix(CUSTOM_SHORT_PREFIX).or_else(|| name.strip_prefix(CUSTOM_PREFIX));
        if let Some(key) = custom {
            return (!key.is_empty()).then(|| Tag::Custom(key.into()));
        }
        let short = name.strip_prefix(STANDARD_PREFIX).unwrap_or(name);
        Self::STANDARD.into_iter().find(|tag| tag.short() == short)
    }

    /// The tag with this name of the wire, byte for byte: the only headers that are read without being named.
    #[must_use]
    pub fn of_wire_name(name: &str) -> Option<Self> {
        let is_whole = name.starts_with(STANDARD_PREFIX) || name.starts_with(CUSTOM_PREFIX);
        if is_whole { Self::parse(name) } else { None }
    }

    /// The name on the wire.
    #[must_use]
    pub fn wire_name(&self) -> String {
        match self {
            Tag::Custom(key) => format!("{CUSTOM_PREFIX}{key}"),
            standard => format!("{STANDARD_PREFIX}{}", standard.short()),
        }
    }

    /// Whether its key is one that the documentation allows today: up to eight letters. Older apps have longer ones.
    #[must_use]
    pub fn has_documented_key(&self) -> bool {
        match self {
            Tag::Custom(key) => key.len() <= CUSTOM_KEY_LETTERS && key.bytes().all(|byte| byte.is_ascii_alphabetic()),
            _ => true,
        }
    }

    /// The short name of a standard tag; of an app's own one, its key.
    fn short(&self) -> &str {
        match self {
            Tag::Gender => "Gender",
            Tag::BirthDay => "BirthDay",
            Tag::Location => "Location",
            Tag::SelfSignature => "SelfSignature",
            Tag::AllowType => "AllowType",
            Tag::Language => "Language",
            Tag::MsgSettings => "MsgSettings",
            Tag::AdminForbidType => "AdminForbidType",
            Tag::Level => "Level",
            Tag::Role => "Role",
            Tag::Custom(key) => key,
        }
    }

    const fn kind(&self) -> Kind {
        match self {
            Tag::Gender => Kind::Word(GENDERS),
            Tag::AllowType => Kind::Word(ALLOW_TYPES),
            Tag::AdminForbidType => Kind::Word(FORBID_TYPES),
            Tag::BirthDay => Kind::Day,
            Tag::Language | Tag::MsgSettings | Tag::Level | Tag::Role => Kind::Number,
            Tag::Location | Tag::SelfSignature | Tag::Custom(_) => Kind::Text,
        }
    }

    /// A value that the documentation allows, to see whether the app has the tag. Where there is a word for "not said", it is that.
    #[must_use]
    pub fn sample(&self) -> TagItem {
        let value = match self.kind() {
            Kind::Word(words) => TagValue::Text(words[0].1.into()),
            Kind::Day => TagValue::Number(SAMPLE_DAY),
            Kind::Number => TagValue::Number(0),
            Kind::Text => TagValue::Text("chatlift".into()),
        };
        TagItem { tag: self.clone(), value }
    }

    /// The value that a cell stands for; an empty cell says nothing and has none.
    ///
    /// # Errors
    /// [`InvalidTagValue`] says what a cell of this tag may hold.
    pub fn value<'a>(&self, cell: &'a [u8]) -> Result<Option<TagValueRef<'a>>, InvalidTagValue> {
        let known = KnownText::default();
        Ok(self.check(known, cell)?.value(known, cell))
    }

    /// What the value of a cell follows from, which may be a part of `known` text.
    ///
    /// # Errors
    /// As [`Tag::value`].
    #[inline]
    pub fn check(&self, known: KnownText<'_>, cell: &[u8]) -> Result<CheckedCell, InvalidTagValue> {
        if cell.is_empty() {
            return Ok(CheckedCell::Empty);
        }
        let checked = known.of(cell).map_err(|_| WhyInvalid::NotUtf8).and_then(|text| self.check_text(text));
        checked.map_err(|why| InvalidTagValue { tag: self.clone(), why, word: nameable_word(cell) })
    }

    #[inline]
    fn check_text(&self, text: &str) -> Result<CheckedCell, WhyInvalid> {
        match self.kind() {
            Kind::Word(words) => word(words, text).map(CheckedCell::Word).ok_or(WhyInvalid::NotOneOf(words)),
            Kind::Day => day(text).map(CheckedCell::Number).ok_or(WhyInvalid::NotADay),
            Kind::Number => number(text).map(CheckedCell::Number).ok_or(WhyInvalid::NotANumber),
            Kind::Text if text.len() > FIELD_MAX_BYTES => Err(WhyInvalid::Long { bytes: text.len() }),
            Kind::Text if text.contains('\0') => Err(WhyInvalid::Nul),
            Kind::Text => Ok(CheckedCell::Text),
        }
    }
}

/// What the value of a cell follows from: the cell need not be understood again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedCell {
    Empty,
    Number(u32),
    /// A word of the wire.
    Word(&'static str),
    /// The cell itself.
    Text,
}

impl CheckedCell {
    /// The value, if there is one; `cell` is the one that was checked.
    #[inline]
    #[must_use]
    pub fn value<'a>(self, known: KnownText<'a>, cell: &'a [u8]) -> Option<TagValueRef<'a>> {
        match self {
            CheckedCell::Empty => None,
            CheckedCell::Number(number) => Some(TagValueRef::Number(number)),
            CheckedCell::Word(word) => Some(TagValueRef::Text(word)),
            CheckedCell::Text => known.of(cell).ok().map(TagValueRef::Text),
        }
    }
}

impl fmt::Display for Tag {
    /// The short name, which a flag takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tag::Custom(key) => write!(f, "{CUSTOM_SHORT_PREFIX}{key}"),
            standard => f.write_str(standard.short()),
        }
    }
}

/// What a word stands for.
fn word(words: &'static [(&'static str, &'static str)], text: &str) -> Option<&'static str> {
    words.iter().find(|(short, full)| short.eq_ignore_ascii_case(text) || full.eq_ignore_ascii_case(text)).map(|(_, full)| *full)
}

/// A day written `YYYYMMDD` or `YYYY-MM-DD`, as the number `YYYYMMDD`.
fn day(text: &str) -> Option<u32> {
    let digits = match text.as_bytes() {
        [_, _, _, _, b'-', _, _, b'-', _, _] => Cow::Owned(text.replace('-', "")),
        _ => Cow::Borrowed(text),
    };
    let number = (digits.len() == 8).then(|| number(&digits)).flatten()?;
    let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        2 => 28 + u32::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    (year > 0 && (1..=days).contains(&day)).then_some(number)
}

/// A whole number of 32 bits, in digits alone.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A value of a tag as it is sent; its JSON type follows from the tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TagValueRef<'a> {
    Text(&'a str),
    Number(u32),
}

/// As [`TagValueRef`], owned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TagValue {
    Text(Box<str>),
    Number(u32),
}

impl TagValue {
    #[must_use]
    pub fn as_ref(&self) -> TagValueRef<'_> {
        match self {
            TagValue::Text(text) => TagValueRef::Text(text),
            TagValue::Number(number) => TagValueRef::Number(*number),
        }
    }
}

impl From<TagValueRef<'_>> for TagValue {
    fn from(value: TagValueRef<'_>) -> Self {
        match value {
            TagValueRef::Text(text) => TagValue::Text(text.into()),
            TagValueRef::Number(number) => TagValue::Number(number),
        }
    }
}

/// A tag of an account with its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TagItem {
    pub tag: Tag,
    pub value: TagValue,
}

impl From<(&Tag, TagValueRef<'_>)> for TagItem {
    fn from((tag, value): (&Tag, TagValueRef<'_>)) -> Self {
        Self { tag: tag.clone(), value: value.into() }
    }
}

impl TagItem {
    /// Bytes of its value.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match &self.value {
            TagValue::Text(text) => text.len(),
            TagValue::Number(_) => size_of::<u32>(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    /// A cell of any bytes, or nearly one that a tag takes.
    fn cell() -> impl Strategy<Value = Vec<u8>> {
        let words: Vec<&str> = [GENDERS, ALLOW_TYPES, FORBID_TYPES].concat().into_iter().flat_map(|(short, full)| [short, full]).collect();
        let word = (select(words), any::<bool>()).prop_map(|(word, is_upper)| if is_upper { word.to_uppercase() } else { word.to_owned() });
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..12),
            word.prop_map(String::into_bytes),
            "[+-]?[0-9]{0,12}".prop_map(String::into_bytes),
            "[0-9]{4}-[0-1][0-9]-[0-3][0-9]".prop_map(String::into_bytes),
            "[0-2][0-9]{3}[0-1][0-9][0-3][0-9]".prop_map(String::into_bytes),
            "[0-9é-]{6,10}".prop_map(String::into_bytes),
            "\\PC{0,4}".prop_map(String::into_bytes),
            (495_usize..506, select(vec!["s", "界", "\u{0}"]))
                .prop_map(|(bytes, with)| ("s".repeat(bytes - with.len()) + with).into_bytes()),
        ]
    }

    /// Whether the documentation has this day, told by walking the calendar up to it.
    fn is_day(number: u32) -> bool {
        let (year, month, day) = (number / 10_000, number / 100 % 100, number % 100);
        let is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
        let days = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        year > 0 && month > 0 && days.get(month as usize - 1).is_some_and(|days| (1..=*days).contains(&day))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_cell_that_is_accepted_is_a_legal_value_and_none_panics(cell in cell(), custom in "[A-Za-z]{1,8}") {
            let custom = Tag::Custom(custom.as_str().into());
            for tag in Tag::STANDARD.into_iter().chain([custom]) {
                let value = match tag.value(&cell) {
                    Ok(Some(value)) => value,
                    Ok(None) => {
                        prop_assert!(cell.is_empty());
                        continue;
                    }
                    Err(invalid) => {
                        // What is said of it must not panic either, and a guess must be a value.
                        let _ = (invalid.to_string(), invalid.rule(), invalid.takes(), invalid.needs_trim());
                        let is_value = invalid.likely_meaning().is_none_or(|meaning| tag.value(meaning.as_bytes()).is_ok());
                        prop_assert!(is_value, "{invalid:?}");
                        continue;
                    }
                };
                let is_legal = match (&tag, value) {
                    (Tag::Gender, TagValueRef::Text(text)) => ["Unknown", "Female", "Male"].iter().any(|word| text == format!("Gender_Type_{word}")),
                    (Tag::AllowType, TagValueRef::Text(text)) => {
                        ["NeedConfirm", "AllowAny", "DenyAny"].iter().any(|word| text == format!("AllowType_Type_{word}"))
                    }
                    (Tag::AdminForbidType, TagValueRef::Text(text)) => ["None", "SendOut"].iter().any(|word| text == format!("AdminForbid_Type_{word}")),
                    (Tag::BirthDay, TagValueRef::Number(number)) => is_day(number),
                    (Tag::Language | Tag::MsgSettings | Tag::Level | Tag::Role, TagValueRef::Number(number)) => cell.ends_with(number.to_string().as_bytes()),
                    (Tag::Location | Tag::SelfSignature | Tag::Custom(_), TagValueRef::Text(text)) => text.as_bytes() == cell && (1..=500).contains(&text.len()),
                    (_, _) => false,
                };
                prop_assert!(is_legal, "{tag} {value:?}");
                // A value is a cell of the same tag, and means itself.
                let again = match value {
                    TagValueRef::Text(text) => text.to_owned(),
                    TagValueRef::Number(number) if tag == Tag::BirthDay => format!("{number:08}"),
                    TagValueRef::Number(number) => number.to_string(),
                };
                prop_assert_eq!(tag.value(again.as_bytes()), Ok(Some(value)));
            }
        }
    }

    #[test]
    fn a_tag_has_two_names() {
        for tag in Tag::STANDARD {
            assert_eq!(Tag::parse(&tag.to_string()), Some(tag.clone()));
            assert_eq!(Tag::parse(&tag.wire_name()), Some(tag.clone()));
            assert_eq!((Tag::of_wire_name(&tag.wire_name()), Tag::of_wire_name(&tag.to_string())), (Some(tag), None));
        }
        let vip = Tag::Custom("Vip".into());
        assert_eq!((Tag::parse("Custom.Vip"), Tag::of_wire_name("Tag_Profile_Custom_Vip")), (Some(vip.clone()), Some(vip.clone())));
        assert_eq!((vip.to_string(), vip.wire_name()), ("Custom.Vip".to_owned(), "Tag_Profile_Custom_Vip".to_owned()));
        assert_eq!(Tag::Gender.wire_name(), "Tag_Profile_IM_Gender");
        for unknown in ["gender", "Custom.", "Nick", "Tag_Profile_IM_Nick", "Tag_Profile_Custom_", "Tag_Profile_IM_", "", "Custom"] {
            assert_eq!(Tag::parse(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_key_is_documented_up_to_eight_letters() {
        let check = |key: &str| Tag::Custom(key.into()).has_documented_key();
        assert!(check("Vip") && check("Abcdefgh") && !check("Abcdefghi") && !check("V1") && !check("Vip_") && !check("等级"));
    }

    #[test]
    fn a_cell_holds_what_its_tag_takes() {
        let check = |tag: Tag, cell: &str, expected: Option<TagValueRef>| {
            assert_eq!(tag.value(cell.as_bytes()).ok(), expected.map(Some), "{tag} {cell:?}");
        };
        let (text, number) = (|text| Some(TagValueRef::Text(text)), |number| Some(TagValueRef::Number(number)));
        check(Tag::Gender, "FeMale", text("Gender_Type_Female"));
        check(Tag::Gender, "Gender_Type_Unknown", text("Gender_Type_Unknown"));
        check(Tag::Gender, "gender_type_male", text("Gender_Type_Male"));
        check(Tag::Gender, " male", None);
        check(Tag::Gender, "1", None);
        check(Tag::AllowType, "deny-any", text("AllowType_Type_DenyAny"));
        check(Tag::AllowType, "ALLOWTYPE_TYPE_DENYANY", text("AllowType_Type_DenyAny"));
        check(Tag::AdminForbidType, "adminforbid_type_none", text("AdminForbid_Type_None"));
        check(Tag::AdminForbidType, "Send-Out", text("AdminForbid_Type_SendOut"));
        check(Tag::BirthDay, "20190419", number(20_190_419));
        check(Tag::BirthDay, "2019-04-19", number(20_190_419));
        check(Tag::BirthDay, "2020-02-29", number(20_200_229));
        check(Tag::BirthDay, "1900-02-29", None);
        check(Tag::BirthDay, "2000-02-29", number(20_000_229));
        check(Tag::BirthDay, "2019-04-31", None);
        check(Tag::BirthDay, "2019-13-01", None);
        check(Tag::BirthDay, "0000-00-00", None);
        check(Tag::BirthDay, "2019-4-19", None);
        check(Tag::BirthDay, "+2190419", None);
        check(Tag::BirthDay, "19/04/2019", None);
        check(Tag::Level, "0", number(0));
        check(Tag::Level, "4294967295", number(u32::MAX));
        check(Tag::Level, "4294967296", None);
        check(Tag::Role, "-1", None);
        check(Tag::Role, "+1", None);
        check(Tag::Language, "1.0", None);
        check(Tag::Location, " 上海 ", text(" 上海 "));
        check(Tag::SelfSignature, &"s".repeat(500), text(&"s".repeat(500)));
        check(Tag::SelfSignature, &"s".repeat(501), None);
        check(Tag::Custom("Vip".into()), "a\0", None);
        assert_eq!(Tag::Gender.value(b""), Ok(None));
    }
}
