//! What helps against records that can't be sent.

use super::input::map_flag;
use crate::domain::account::{Field, InvalidAccount};
use crate::domain::shared_reason::SharedReason;

/// Warns of what helps where invalid records have a reason in common, and of quotes that swallowed lines in any case.
pub(super) fn warn(shared: &SharedReason) {
    if let Some(why) = shared.found() {
        tracing::warn!("all invalid rows have one reason in common ({why}): {}", remedy(why));
    }
    if let Some(why) = shared.swallowed() {
        tracing::warn!("{why}: {}", remedy(why));
    }
}

/// What helps, in front of a hint.
pub(super) fn before_hint(shared: &SharedReason) -> String {
    shared.found().into_iter().chain(shared.swallowed()).map(|why| remedy(why) + "; ").collect()
}

/// What helps where this is why records are invalid.
pub(super) fn remedy(why: &InvalidAccount) -> String {
    let other_column = "see whether it is the right column: --map UserID=COLUMN names another".to_owned();
    match why {
        InvalidAccount::LongUserId { is_uuid: true, .. } => "--compact-uuid sends UUIDs without their hyphens".to_owned(),
        InvalidAccount::EmptyUserId | InvalidAccount::LongUserId { .. } | InvalidAccount::ReservedPrefix { .. } => other_column,
        InvalidAccount::SpaceAtEnd { .. } => "--trim takes white space off the ends".to_owned(),
        InvalidAccount::UserIdCharacter { .. } => "--user-ids any sends such ids, and the service decides".to_owned(),
        InvalidAccount::LongField { field, .. } => match field {
            Field::UserId => other_column,
            Field::Nick | Field::FaceUrl => format!("shorten them, or {} reads none", map_flag(*field, "")),
        },
        InvalidAccount::NotUtf8 { .. } => "--encoding NAME reads a file in another encoding".to_owned(),
        InvalidAccount::ByteOrderMark | InvalidAccount::ControlCharacter { .. } | InvalidAccount::Nul { .. } => {
            "take these characters out of the export".to_owned()
        }
        InvalidAccount::Tag(invalid) => format!("--value {}:FROM=TO says what a word of the file stands for", invalid.tag),
        InvalidAccount::FieldCount { .. } => {
            "see whether a delimiter stands in a field without quotes, or --delimiter names another".to_owned()
        }
        InvalidAccount::HeaderAgain => "nothing is lost: no account stands in them".to_owned(),
        InvalidAccount::TextAfterQuote { .. } => {
            "double the quotes within fields, or --escape '\\' where backslashes escape them".to_owned()
        }
        InvalidAccount::SwallowedLines { .. } => "close the quotes, or --multiline takes such fields as they are".to_owned(),
    }
}
