//! The fields of a profile as the service documents them: their types, and the values that they may have.

use serde_json::Value;

use super::reply::RequestRefusal;
use super::settings::CustomFields;
use crate::io::api::wire;

/// The app has no field of this name. Source: Tencent's documentation of the profile service's error codes.
const NO_SUCH_TAG: i64 = 40009;
/// The value is none of the field's standard values. Source: the same.
const NO_STANDARD_VALUE: i64 = 40605;
/// The value has another type than its field. Source: the same.
const WRONG_TYPE: i64 = 40610;
/// The value is too long. Source: the same.
const TOO_LONG: i64 = 40601;
/// Longest text, in bytes of UTF-8. Source: Tencent's documentation of the profile fields.
const TEXT_MAX_BYTES: usize = 500;
/// How the names of the app's own fields begin.
const CUSTOM_PREFIX: &str = "Tag_Profile_Custom_";

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueKind {
    Text,
    /// A number of 32 bits.
    Number,
    OneOf(&'static [&'static str]),
}

/// The fields that every app has, besides nickname and avatar.
const STANDARD: [(&str, ValueKind); 10] = [
    ("Tag_Profile_IM_Gender", ValueKind::OneOf(&["Gender_Type_Unknown", "Gender_Type_Female", "Gender_Type_Male"])),
    ("Tag_Profile_IM_BirthDay", ValueKind::Number),
    ("Tag_Profile_IM_Location", ValueKind::Text),
    ("Tag_Profile_IM_SelfSignature", ValueKind::Text),
    ("Tag_Profile_IM_AllowType", ValueKind::OneOf(&["AllowType_Type_NeedConfirm", "AllowType_Type_AllowAny", "AllowType_Type_DenyAny"])),
    ("Tag_Profile_IM_Language", ValueKind::Number),
    ("Tag_Profile_IM_MsgSettings", ValueKind::Number),
    ("Tag_Profile_IM_AdminForbidType", ValueKind::OneOf(&["AdminForbid_Type_None", "AdminForbid_Type_SendOut"])),
    ("Tag_Profile_IM_Level", ValueKind::Number),
    ("Tag_Profile_IM_Role", ValueKind::Number),
];

/// What a request sets of a profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct NewProfile<'a> {
    pub(super) nick: Option<&'a str>,
    pub(super) face_url: Option<&'a str>,
    /// The other fields, by their names.
    pub(super) tags: Vec<(&'a str, &'a Value)>,
}

impl<'a> NewProfile<'a> {
    /// Reads the fields of a request.
    ///
    /// # Errors
    /// [`RequestRefusal`] for a field that the app doesn't have, and for a value that the field may not have.
    pub(super) fn read(items: &'a [wire::ProfileItem<Value>], custom: &CustomFields) -> Result<Self, RequestRefusal> {
        let mut profile = NewProfile::default();
        for wire::ProfileItem { tag, value } in items {
            match tag.as_str() {
                wire::TAG_NICK => profile.nick = Some(text(tag, value)?),
                wire::TAG_IMAGE => profile.face_url = Some(text(tag, value)?),
                tag => {
                    let known = kind(tag).filter(|_| is_created(tag, custom));
                    check(tag, known.ok_or_else(|| refused(NO_SUCH_TAG, tag, "is no field of the app"))?, value)?;
                    profile.tags.push((tag, value));
                }
            }
        }
        Ok(profile)
    }
}

/// The type of the field of this name, if there can be one.
fn kind(tag: &str) -> Option<ValueKind> {
    let standard = STANDARD.iter().find(|(name, _)| *name == tag).map(|(_, kind)| *kind);
    standard.or_else(|| tag.strip_prefix(CUSTOM_PREFIX).filter(|key| !key.is_empty()).map(|_| ValueKind::Text))
}

fn is_created(tag: &str, custom: &CustomFields) -> bool {
    match (tag.strip_prefix(CUSTOM_PREFIX), custom) {
        (None, _) | (_, CustomFields::Any) => true,
        (Some(key), CustomFields::These(keys)) => keys.iter().any(|created| created == key),
    }
}

fn check(tag: &str, kind: ValueKind, value: &Value) -> Result<(), RequestRefusal> {
    match kind {
        ValueKind::Text => text(tag, value).map(|_| ()),
        ValueKind::Number if value.as_u64().is_some_and(|number| u32::try_from(number).is_ok()) => Ok(()),
        ValueKind::Number => Err(refused(WRONG_TYPE, tag, "takes a number of 32 bits")),
        ValueKind::OneOf(words) if words.contains(&text(tag, value)?) => Ok(()),
        ValueKind::OneOf(_) => Err(refused(NO_STANDARD_VALUE, tag, "has no such value")),
    }
}

fn text<'a>(tag: &str, value: &'a Value) -> Result<&'a str, RequestRefusal> {
    let text = value.as_str().ok_or_else(|| refused(WRONG_TYPE, tag, "takes a string"))?;
    if text.len() > TEXT_MAX_BYTES { Err(refused(TOO_LONG, tag, "has more than 500 bytes")) } else { Ok(text) }
}

fn refused(code: i64, tag: &str, why: &str) -> RequestRefusal {
    RequestRefusal::content(code, format!("{tag} {why}"))
}

/// The value of a field as a cell of the accounts file has it; `None` if there is no field of this name.
pub(super) fn from_cell(tag: &str, cell: &str) -> Option<Result<Value, String>> {
    let value = match kind(tag)? {
        ValueKind::Text | ValueKind::OneOf(_) => Value::from(cell),
        ValueKind::Number => match cell.parse::<u32>() {
            Ok(number) => Value::from(number),
            Err(_) => return Some(Err(format!("{tag} takes a number of 32 bits"))),
        },
    };
    Some(check(tag, kind(tag)?, &value).map(|()| value).map_err(|refusal| refusal.info.into_owned()))
}

/// … and the other way round.
pub(super) fn to_cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Whether the accounts file may have a column of this name.
pub(super) fn is_column(tag: &str) -> bool {
    kind(tag).is_some()
}
