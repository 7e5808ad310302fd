//! Reports which columns of a file are read, before anything else.

use std::fmt;

use super::input::reading_flag;
use super::stdout::print;
use crate::domain::account::Field;
use crate::domain::figures::{count, counted};
use crate::domain::position::ReadAs;
use crate::io::gate::Rate;
use crate::io::roster::Header;
use crate::shell::exit::ExitMessage;
use crate::shell::terminal::{printable, quoted};

/// One line that says from which columns the header's fields are read.
struct ColumnsRead<'a>(&'a Header);

impl fmt::Display for ColumnsRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (field, column) in self.0.sources() {
            let from = column.map_or_else(|| "nothing".to_owned(), quoted);
            let before = if field == Field::UserId { "" } else { ", " };
            write!(f, "{before}{field} from {from}")?;
        }
        for (tag, column) in self.0.tag_sources() {
            write!(f, ", {} from {}", printable(&tag.to_string()), quoted(column))?;
        }
        write!(f, "; {} ignored", counted(self.0.ignored() as u64, "column"))
    }
}

/// A warning for each ignored column whose name is similar to a field's.
fn near_misses(header: &Header) -> impl Iterator<Item = String> {
    header.near_misses().map(|(meant, name)| {
        let column = String::from_utf8_lossy(name);
        let read_from = read_from(header, meant);
        let as_it_is = reading_flag(meant, &String::from_utf8_lossy(read_from.unwrap_or_default()));
        let which = if read_from.is_some() { "that one" } else { "none" };
        let (name, other) = (quoted(name), reading_flag(meant, &column));
        format!("the column {name} is ignored; {other} reads {meant} from it, {as_it_is} says that {which} is meant")
    })
}

/// The name of the column that something is read from, if it is.
fn read_from<'a>(header: &'a Header, meant: &ReadAs) -> Option<&'a [u8]> {
    match meant {
        ReadAs::Field(field) => header.sources().find(|(source, _)| source == field).and_then(|(_, column)| column),
        ReadAs::Tag(tag) => header.tag_sources().find(|(source, _)| *source == tag).map(|(_, column)| column),
    }
}

/// A warning for each of the app's own tags whose key the documentation doesn't allow.
fn undocumented_keys(header: &Header) -> impl Iterator<Item = String> {
    header.tag_sources().filter(|(tag, _)| !tag.has_documented_key()).map(|(tag, _)| {
        let tag = printable(&tag.to_string());
        format!(
            "the key of {tag} is not one of up to 8 letters, as the documentation has them today; the service decides whether it takes it"
        )
    })
}

fn warnings(header: &Header) -> impl Iterator<Item = String> {
    near_misses(header).chain(undocumented_keys(header))
}

/// What a changed profile sets off. Source: the documentation of `portrait_set`.
pub(super) const PUSHED: &str =
    "the service pushes each changed profile to clients, and calls the webhook \"After a Profile Is Updated\" for it, if the app has one";

/// What the columns of tags take, if there are any: a call for each row that sends one, at this rate.
pub(super) fn cost_of_tags(header: &Header, rate: Rate) -> Option<String> {
    let tags: Vec<String> = header.tag_sources().map(|(tag, _)| printable(&tag.to_string())).collect();
    let (last, first) = tags.split_last()?;
    let tags = if first.is_empty() { last.clone() } else { format!("{} or {last}", first.join(", ")) };
    let rate = match rate {
        Rate::PerSecond(rate) => format!("at most {} a second", count(rate.get().into())),
        Rate::Unlimited => "without a limit".to_owned(),
    };
    Some(format!("each row whose {tags} is sent takes a portrait_set of its own, {rate}; {PUSHED}"))
}

/// # Errors
/// No column of a tag is read, though the run sends nothing else. A file without a header has no rows either.
pub(super) fn need_tags(header: &Header) -> Result<(), ExitMessage> {
    if header.tags().next().is_some() || header.names.is_empty() {
        return Ok(());
    }
    let near = header.near_misses().filter(|(meant, _)| matches!(meant, ReadAs::Tag(_)));
    let flags: Vec<String> = near.map(|(meant, name)| reading_flag(meant, &String::from_utf8_lossy(name))).collect();
    let near = if flags.is_empty() { String::new() } else { format!("; maybe {}", flags.join(" ")) };
    let hint = format!("name the columns with --profile TAG=COLUMN{near}; without --profile-only the accounts are imported");
    Err(ExitMessage::yours("--profile-only sends profile columns alone, and no profile column is read", hint))
}

/// Logs it when a run starts.
pub(super) fn announce(header: &Header) {
    tracing::info!("{}", ColumnsRead(header));
    warnings(header).for_each(|word| tracing::warn!("{word}"));
}

/// Prints it above a report.
///
/// # Errors
/// The same as [`print`].
pub(super) fn report(header: &Header) -> Result<(), ExitMessage> {
    let warnings = warnings(header).fold(String::new(), |text, word| text + "warning: " + &word + "\n");
    print(&format_args!("{}\n{warnings}\n", ColumnsRead(header)))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::io::roster::{Format, Roster};

    fn told(header: &str, map: &[(Field, &str)]) -> (String, Vec<String>) {
        let map = map.iter().map(|(field, column)| (*field, (*column).to_owned())).collect();
        let roster = Roster::new(Cursor::new(format!("{header}\n")), &Format { map, ..Format::default() }).unwrap();
        (ColumnsRead(roster.header()).to_string(), near_misses(roster.header()).collect())
    }

    #[test]
    fn columns_are_reported_in_one_line() {
        let check = |header: &str, map: &[(Field, &str)], expected: &str| assert_eq!(told(header, map), (expected.to_owned(), Vec::new()));
        check(
            "a,uid,nick name,b,c",
            &[(Field::UserId, "uid"), (Field::Nick, "Nick_Name")],
            "UserID from \"uid\", Nick from \"nick name\", FaceUrl from nothing; 3 columns ignored",
        );
        check("userid,x", &[], "UserID from \"userid\", Nick from nothing, FaceUrl from nothing; 1 column ignored");
        check("UserID,Nick,FaceUrl", &[], "UserID from \"UserID\", Nick from \"Nick\", FaceUrl from \"FaceUrl\"; 0 columns ignored");
    }

    #[test]
    fn a_column_with_a_similar_name_is_reported_though_the_field_is_read_from_another() {
        let said = told("UserID,Nick,NickName", &[]).1;
        assert_eq!(
            said,
            ["the column \"NickName\" is ignored; --map Nick=NickName reads Nick from it, --map Nick=Nick says that that one is meant"]
        );
        assert_eq!(told("UserID,Nick,NickName", &[(Field::Nick, "Nick")]).1, [""; 0]);
    }

    #[test]
    fn a_column_with_a_similar_name_is_reported_with_the_flag_that_reads_it() {
        let said = told("UserID,Nick Name,头像", &[]).1;
        assert_eq!(
            said,
            [
                "the column \"Nick Name\" is ignored; --map 'Nick=Nick Name' reads Nick from it, --map Nick= says that none is meant",
                "the column \"头像\" is ignored; --map FaceUrl=头像 reads FaceUrl from it, --map FaceUrl= says that none is meant",
            ]
        );
    }
}
