//! Reads the objects of an answer key by key, as tolerantly as JSON allows.
//!
//! A value is parsed only when the caller asks for it. So an unreadable value does not affect the others, and an unused value may be
//! anything.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The body as text. Bytes that are not UTF-8 become replacement characters; they can only be part of a text in another encoding.
pub(super) fn text(body: &[u8]) -> Cow<'_, str> {
    lossy(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

/// The same as [`String::from_utf8_lossy`], but fast for valid text.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// The same as [`text`], for encodings (GBK, Big5, Shift JIS) in which the second byte of a character may look like a backslash. Returns
/// `None` if the body has no such character.
pub(super) fn text_of_pairs(body: &[u8]) -> Option<String> {
    let is_pair = |at: usize| !body[at].is_ascii() && body.get(at + 1) == Some(&b'\\');
    if std::str::from_utf8(body).is_ok() || !(0..body.len()).any(is_pair) {
        return None;
    }
    let mut bytes = body.to_vec();
    for at in (0..body.len()).filter(|at| is_pair(*at)) {
        bytes[at + 1] = b'?';
    }
    Some(text(&bytes).into_owned())
}

/// The value of a key in an object; null counts as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValue<T> {
    Absent,
    Here(T),
    /// The value has another type, or the key occurs twice with different values.
    Unreadable,
}

impl<T> FieldValue<T> {
    pub(super) fn ok(self) -> Option<T> {
        match self {
            FieldValue::Here(value) => Some(value),
            FieldValue::Absent | FieldValue::Unreadable => None,
        }
    }

    fn and_then<U>(self, read: impl FnOnce(T) -> Option<U>) -> FieldValue<U> {
        match self {
            FieldValue::Absent => FieldValue::Absent,
            FieldValue::Here(value) => read(value).map_or(FieldValue::Unreadable, FieldValue::Here),
            FieldValue::Unreadable => FieldValue::Unreadable,
        }
    }
}

/// An object: its keys with their values, not parsed yet.
#[derive(Debug)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, [u8]>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Returns `None` if the text is not a JSON object.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = deserializer.deserialize_map(Keys).ok()?;
        deserializer.end().is_ok().then_some(fields)
    }

    fn raw(&self, key: &str) -> FieldValue<&'a str> {
        let mut values = self.0.iter().filter(|(found, _)| **found == *key.as_bytes()).map(|(_, value)| value.get());
        match (values.next(), values.next_back()) {
            (None, _) | (Some("null"), None) => FieldValue::Absent,
            (Some(one), None) => FieldValue::Here(one),
            (Some(one), Some(last)) if one == last && values.all(|value| value == one) => FieldValue::Here(one),
            (Some(_), Some(_)) => FieldValue::Unreadable,
        }
    }

    /// A string.
    pub(super) fn word(&self, key: &str) -> FieldValue<Cow<'a, str>> {
        self.raw(key).and_then(string)
    }

    /// A string, or any other value as its JSON text.
    pub(super) fn words(&self, key: &str) -> Option<String> {
        self.raw(key).ok().map(|raw| string(raw).map_or_else(|| raw.to_owned(), Cow::into_owned))
    }

    /// A whole number, perhaps in quotes. A number that is too large becomes the largest code.
    pub(super) fn code(&self, key: &str) -> FieldValue<i64> {
        self.raw(key).and_then(|raw| match string(raw) {
            Some(quoted) => whole_number(quoted.trim()),
            None => whole_number(raw),
        })
    }

    /// A UserID.
    pub(super) fn id(&self, key: &str) -> FieldValue<Box<str>> {
        self.raw(key).and_then(id)
    }

    /// The items of a list without nulls. An empty object counts as an empty list, because some programs write it so.
    pub(super) fn list(&self, key: &str) -> FieldValue<Vec<&'a str>> {
        self.raw(key)
            .and_then(|raw| {
                if raw.starts_with('{') {
                    return Fields::of(raw)?.0.is_empty().then(Vec::new);
                }
                serde_json::from_str::<Vec<&RawValue>>(raw).ok().map(|items| items.into_iter().map(RawValue::get).collect())
            })
            .and_then(|items| Some(items.into_iter().filter(|item| *item != "null").collect()))
    }

    /// The items of a list that are objects.
    pub(super) fn objects(&self, key: &str) -> Vec<Fields<'a>> {
        if let FieldValue::Here(raw) = self.raw(key)
            && let Some(objects) = all_objects(raw)
        {
            return objects;
        }
        self.list(key).ok().into_iter().flatten().filter_map(Fields::of).collect()
    }
}

/// The items of a list if all of them are objects, which is the usual case; read in one pass.
fn all_objects(raw: &str) -> Option<Vec<Fields<'_>>> {
    raw.starts_with('[').then(|| serde_json::Deserializer::from_str(raw).deserialize_seq(Objects).ok())?
}

/// A UserID. A number is taken as it is written. A text that was not UTF-8 is no UserID.
pub(super) fn id(raw: &str) -> Option<Box<str>> {
    let is_number = raw.starts_with(|first: char| first == '-' || first.is_ascii_digit());
    let name = if is_number { Cow::Borrowed(raw) } else { string(raw)? };
    (!name.contains(char::REPLACEMENT_CHARACTER)).then(|| name.into())
}

/// A JSON string. Half of a surrogate pair is legal there and becomes a replacement character.
fn string(raw: &str) -> Option<Cow<'_, str>> {
    // Checked first, because creating a parser's error takes longer than reading a value.
    if !raw.starts_with('"') {
        return None;
    }
    Some(match serde_json::Deserializer::from_str(raw).deserialize_bytes(Bytes).ok()? {
        Cow::Borrowed(bytes) => lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    })
}

/// A number without a fractional part, in any notation.
#[expect(clippy::cast_possible_truncation, reason = "what is too large is the largest")]
fn whole_number(literal: &str) -> Option<i64> {
    if let Ok(number) = literal.parse() {
        return Some(number);
    }
    let is_number = literal.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let number: f64 = literal.parse().ok().filter(|_| is_number)?;
    // A number that underflows a float is not zero.
    let mantissa = literal.split(['e', 'E']).next().unwrap_or_default();
    let is_true_nought = number != 0.0 || !mantissa.contains(|digit| ('1'..='9').contains(&digit));
    (is_true_nought && (number.is_infinite() || number.fract() == 0.0)).then_some(number as i64)
}

/// Reads a string or a key as bytes, which accepts any JSON string.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(bytes.to_vec()))
    }
}

impl<'de> DeserializeSeed<'de> for Bytes {
    type Value = Cow<'de, [u8]>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

struct Objects;

impl<'de> Visitor<'de> for Objects {
    type Value = Vec<Fields<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut objects = Vec::new();
        while let Some(object) = items.next_element_seed(Keys)? {
            objects.push(object);
        }
        Ok(objects)
    }
}

impl<'de> DeserializeSeed<'de> for Keys {
    type Value = Fields<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(key) = map.next_key_seed(Bytes)? {
            fields.push((key, map.next_value()?));
        }
        Ok(Fields(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_a_whole_number_in_any_notation() {
        let check = |value: &str, expected: FieldValue<i64>| {
            let text = format!(r#"{{"ErrorCode":{value}}}"#);
            assert_eq!(Fields::of(&text).unwrap().code("ErrorCode"), expected, "{value}");
        };
        for nought in ["0", "-0", "0.0", "0e5", "-0.000E-7", r#""0""#, r#"" 0 ""#, r#""0.0""#, r#""00""#, r#""\u0030""#] {
            check(nought, FieldValue::Here(0));
        }
        for code in ["70169", "70169.0", "7.0169e4", r#""70169""#, r#""+70169""#] {
            check(code, FieldValue::Here(70169));
        }
        check("-1", FieldValue::Here(-1));
        check("4294967296", FieldValue::Here(1 << 32));
        check("18446744073709551615", FieldValue::Here(i64::MAX));
        check("1e400", FieldValue::Here(i64::MAX));
        check("-1e400", FieldValue::Here(i64::MIN));
        check("null", FieldValue::Absent);
        for none in ["1.5", "1e-400", "0.1", "true", "[]", "{}", r#""""#, r#""x""#, r#""inf""#, r#""NaN""#, r#""0x0""#, r#""0 0""#] {
            check(none, FieldValue::Unreadable);
        }
    }

    #[test]
    fn a_repeated_key_counts_only_if_both_values_agree() {
        let found = |text: &str| Fields::of(text).unwrap().code("a");
        assert_eq!(found(r#"{"a":1,"b":2,"a":1}"#), FieldValue::Here(1));
        assert_eq!(found(r#"{"a":1,"a":2}"#), FieldValue::Unreadable);
        assert_eq!(found(r#"{"a":1,"a":2,"a":1}"#), FieldValue::Unreadable);
        assert_eq!(found(r#"{"a":null,"a":1}"#), FieldValue::Unreadable);
        assert_eq!(found(r#"{"\u0061":1}"#), FieldValue::Here(1));
        assert_eq!(found(r#"{"b":1}"#), FieldValue::Absent);
    }

    #[test]
    fn any_json_string_is_read() {
        let check = |value: &str, expected: Option<&str>| assert_eq!(string(value).as_deref(), expected, "{value}");
        check(r#""""#, Some(""));
        check(r#""a\"b\\\n\u4e2d""#, Some("a\"b\\\n中"));
        check(r#""\ud83d\ude00""#, Some("😀"));
        check(r#""half \ud83d""#, Some("half \u{fffd}\u{fffd}\u{fffd}"));
        check(r#""\ude00 half""#, Some("\u{fffd}\u{fffd}\u{fffd} half"));
        for none in ["1", "null", "[97]", "{}"] {
            check(none, None);
        }
    }

    #[test]
    fn a_list_has_its_items_without_nulls() {
        let list = |value: &str| match Fields::of(&format!(r#"{{"l":{value}}}"#)).unwrap().list("l") {
            FieldValue::Here(items) => Some(items.len()),
            FieldValue::Absent => Some(0),
            FieldValue::Unreadable => None,
        };
        for (value, expected) in
            [("[]", Some(0)), ("{}", Some(0)), ("null", Some(0)), ("[null,1, [2] ,{}]", Some(3)), (r#"{"a":1}"#, None), ("1", None)]
        {
            assert_eq!(list(value), expected, "{value}");
        }
        let ids = [("\"a\"", Some("a")), ("7", Some("7")), ("-1e2", Some("-1e2")), ("null", None), ("[]", None), ("\"\u{fffd}\"", None)];
        for (raw, expected) in ids {
            assert_eq!(id(raw).as_deref(), expected, "{raw}");
        }
    }
}
