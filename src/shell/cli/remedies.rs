//! What helps against records that can't be sent.

use super::command_line::flag_words;
use super::input::{map_flag, profile_flag};
use crate::domain::account::{Field, InvalidAccount};
use crate::domain::cells::CellEnds;
use crate::domain::shared_reason::SharedReason;
use crate::domain::tag::{InvalidTagValue, Tag};
use crate::shell::terminal::quoted;

/// Warns of what helps where invalid rows have a reason in common, and of quotes that swallowed lines and of unknown words in any case.
pub(super) fn warn(shared: &SharedReason) {
    if let Some((why, help)) = of_all(shared) {
        tracing::warn!("all invalid rows have one reason in common ({why}): {help}");
    }
    if let Some(why) = shared.swallowed() {
        tracing::warn!("{why}: {}", remedy(why));
    }
    if let Some(help) = of_some(shared) {
        tracing::warn!("some rows are invalid for words in columns of tags: {help}");
    }
}

/// What helps, in front of a hint.
pub(super) fn before_hint(shared: &SharedReason) -> String {
    let swallowed = shared.swallowed().map(remedy);
    helps(shared).into_iter().chain(swallowed).map(|help| help + "; ").collect()
}

/// What helps, less what is told of quotes that swallowed lines.
pub(super) fn helps(shared: &SharedReason) -> Vec<String> {
    of_all(shared).map(|(_, help)| help).into_iter().chain(of_some(shared)).collect()
}

/// The reason of all, with what helps.
fn of_all(shared: &SharedReason) -> Option<(&InvalidAccount, String)> {
    let why = shared.found()?;
    let of_words = if matches!(why, InvalidAccount::Tag(_)) { words_remedy(shared.tag_words()) } else { None };
    Some((why, of_words.unwrap_or_else(|| remedy(why))))
}

/// What helps against unknown words, where they are not the reason of all.
fn of_some(shared: &SharedReason) -> Option<String> {
    if matches!(shared.found(), Some(InvalidAccount::Tag(_))) { None } else { words_remedy(shared.tag_words()) }
}

/// What helps against words of the file that are no values of their tags.
fn words_remedy(words: &[InvalidTagValue]) -> Option<String> {
    let (spaced, others): (Vec<&InvalidTagValue>, Vec<_>) = words.iter().partition(|word| word.needs_trim());
    let trim = (!spaced.is_empty()).then(|| "--trim takes white space off the ends".to_owned());
    let ends = if trim.is_some() { CellEnds::Trimmed } else { CellEnds::Kept };
    let (meant, unclear): (Vec<_>, Vec<_>) = others.into_iter().partition(|word| word.likely_meaning().is_some());
    let mut flags: Vec<String> = meant.into_iter().filter_map(|word| value_flag(word, ends)).collect();
    let mut rules: Vec<(&Tag, String)> = unclear.into_iter().filter_map(|word| Some((&word.tag, cell_rule(word, ends)?))).collect();
    flags.dedup();
    // What a tag takes is said once, by the first of its words.
    rules.sort_by_key(|(tag, _)| *tag);
    rules.dedup_by(|(later, _), (earlier, _)| later == earlier);
    let rules = rules.into_iter().map(|(_, rule)| rule);
    let helps: Vec<String> = trim.into_iter().chain(meanings(&flags)).chain(rules).collect();
    (!helps.is_empty()).then(|| helps.join("; "))
}

/// What the flags do that say what words mean.
fn meanings(flags: &[String]) -> Option<String> {
    let (what, it) = match flags {
        [] => return None,
        [_] => ("says what the word means", "it means"),
        _ => ("say what the words mean", "they mean"),
    };
    let flags = flags.join(" ");
    Some(format!("{flags} {what}; correct that if {it} something else (nothing behind the = reads a cell as empty)"))
}

/// The flag that says what a word most likely stands for.
fn value_flag(invalid: &InvalidTagValue, ends: CellEnds) -> Option<String> {
    Some(meaning_flag(invalid, (invalid.word.as_deref()?, invalid.likely_meaning()?), ends))
}

fn meaning_flag(invalid: &InvalidTagValue, (word, meaning): (&str, &str), ends: CellEnds) -> String {
    let word = match ends {
        CellEnds::Kept => word,
        CellEnds::Trimmed => word.trim(),
    };
    flag_words("value", format!("{}:{word}={meaning}", invalid.tag))
}

/// What to do about cells that nobody can guess the meaning of.
fn cell_rule(invalid: &InvalidTagValue, ends: CellEnds) -> Option<String> {
    let (tag, takes, none) = (&invalid.tag, invalid.takes()?, profile_flag(&invalid.tag, ""));
    Some(match invalid.unknown_word() {
        Some(word) => {
            let flag = meaning_flag(invalid, (word, "WORD"), ends);
            format!("{tag} takes {takes}: {flag} with one of these says what {} means, or {none} reads none", quoted(word.as_bytes()))
        }
        None => format!("{tag} takes {takes}: correct the other cells in the export, or {none} reads none"),
    })
}

/// What helps where this is why records are invalid.
fn remedy(why: &InvalidAccount) -> String {
    let other_column = "see whether it is the right column: --map UserID=COLUMN names another".to_owned();
    match why {
        InvalidAccount::LongUserId { is_uuid: true, .. } => "--compact-uuid sends UUIDs without their hyphens".to_owned(),
        InvalidAccount::EmptyUserId | InvalidAccount::LongUserId { .. } | InvalidAccount::ReservedPrefix { .. } => other_column,
        InvalidAccount::SpaceAtEnd { .. } => "--trim takes white space off the ends".to_owned(),
        InvalidAccount::UserIdCharacter { .. } => "--user-ids any sends such UserIDs, and the service decides".to_owned(),
        InvalidAccount::LongField { field, .. } => match field {
            Field::UserId => other_column,
            Field::Nick | Field::FaceUrl => format!("shorten them, or {} reads none", map_flag(*field, "")),
        },
        InvalidAccount::NotUtf8 { .. } => "--encoding NAME reads a file in another encoding".to_owned(),
        InvalidAccount::ByteOrderMark | InvalidAccount::ControlCharacter { .. } | InvalidAccount::Nul { .. } => {
            "take these characters out of the export".to_owned()
        }
        InvalidAccount::Tag(invalid) => {
            let none = profile_flag(&invalid.tag, "");
            words_remedy(std::slice::from_ref(invalid)).unwrap_or_else(|| format!("correct them in the export, or {none} reads none"))
        }
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
