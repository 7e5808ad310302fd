//! Reads the service's JSON answers into the values that the flows work with.
//!
//! This module is pure. It tolerates everything that JSON allows and the documentation leaves open, and never concludes more than the
//! answer says. If an item of a list cannot be read, its UserID counts as refused, or the item is ignored if it names no UserID; the other
//! items are not affected.

use super::fields::{self, FieldValue, Fields};
use crate::domain::answer::{AccountStatus, Answer, Item, ItemRefusal, Presence, Profile};
use crate::domain::command::{AnswerForm, Command};
use crate::domain::profile::ProfileField;
use crate::domain::tag::Tag;
use crate::domain::verdict::CallOutcome;

/// Bytes of an unreadable answer that a message shows. Source: the contract of the input.
const SHOWN_BYTES: usize = 80;

/// Reads the body of an answer to `command` with HTTP status 200.
#[must_use]
pub fn read(command: Command, body: &[u8]) -> CallOutcome {
    read_text(command, &fields::text(body))
        .or_else(|| fields::text_of_pairs(body).and_then(|text| read_text(command, &text)))
        .unwrap_or_else(|| CallOutcome::Lost { why: unreadable(body) })
}

/// Returns `None` if the text lacks something that every answer must have.
fn read_text(command: Command, text: &str) -> Option<CallOutcome> {
    let answer = Fields::of(text)?;
    let (status, code) = (answer.word("ActionStatus").ok()?, answer.code("ErrorCode").ok()?);
    tracing::trace!(code, request_id = answer.words("RequestId"), "answered");
    // HTTP 200 alone is no success: the status must be OK **and** the code 0.
    if status != "OK" || code != 0 {
        return Some(CallOutcome::Refused { code, info: answer.words("ErrorInfo").unwrap_or_default() });
    }
    Some(CallOutcome::Done(match command.spec().answer {
        AnswerForm::Nothing => Answer::Nothing,
        AnswerForm::FailAccounts => Answer::FailAccounts(fail_accounts(&answer)?),
        AnswerForm::Profiles => Answer::Profiles(each(&answer, "UserProfileItem", profile)),
        AnswerForm::Statuses => Answer::Statuses(each(&answer, "ResultItem", account_status)),
        AnswerForm::Results { user_key } => Answer::Results(each(&answer, "ResultItem", |item| result(item, user_key))),
        AnswerForm::Presences => {
            let mut presences = each(&answer, "QueryResult", presence);
            presences.extend(each(&answer, "ErrorList", untold_presence));
            Answer::Presences(presences)
        }
    }))
}

/// The message for an answer that cannot be read.
fn unreadable(body: &[u8]) -> String {
    if body.is_empty() {
        return "an empty answer".to_owned();
    }
    let shown = &body[..body.len().min(SHOWN_BYTES)];
    let more = if shown.len() < body.len() { " …" } else { "" };
    format!("an answer that is not the documented JSON: \"{}\"{more}", shown.escape_ascii())
}

/// The UserIDs that a batch lists as failed. If the list or a UserID in it cannot be read, any record may be meant, so the result is `None`
/// and nothing is known about the batch.
fn fail_accounts(answer: &Fields<'_>) -> Option<Vec<Box<str>>> {
    match answer.list("FailAccounts") {
        FieldValue::Absent => Some(Vec::new()),
        FieldValue::Here(ids) => ids.into_iter().map(fields::id).collect(),
        FieldValue::Unreadable => None,
    }
}

/// The items of a list that name their UserID.
fn each<T>(answer: &Fields<'_>, list: &str, read: impl Fn(&Fields<'_>) -> Option<T>) -> Vec<T> {
    answer.objects(list).iter().filter_map(read).collect()
}

fn profile(found: &Fields<'_>) -> Option<Profile> {
    // A profile without a code counts as one with code 0.
    let refused = match found.code("ResultCode") {
        FieldValue::Absent => None,
        code => refusal(code, "ResultCode", found),
    };
    let mut profile = Profile { user_id: found.id("To_Account").ok()?, refused, ..Profile::default() };
    for item in found.objects("ProfileItem") {
        let Some(name) = item.word("Tag").ok() else { continue };
        if let Some(field) = ProfileField::ALL.into_iter().find(|field| name == field.spec().tag) {
            profile.fields[field] = item.word("Value").ok().map(Into::into);
        } else if let Some(tag) = Tag::of_wire_name(&name) {
            profile.tags.extend(item.words("Value").map(|value| (tag, value.into())));
        }
    }
    Some(profile)
}

fn account_status(found: &Fields<'_>) -> Option<Item<AccountStatus>> {
    let said = match (refusal(found.code("ResultCode"), "ResultCode", found), found.word("AccountStatus").ok().as_deref()) {
        (Some(refusal), _) => Err(refusal),
        (None, Some("Imported")) => Ok(AccountStatus::Imported),
        (None, Some("NotImported")) => Ok(AccountStatus::NotImported),
        (None, _) => Err(undocumented("AccountStatus", found)),
    };
    Some(Item { user_id: found.id("UserID").ok()?, said })
}

fn result(found: &Fields<'_>, user_key: &str) -> Option<Item<()>> {
    let said = refusal(found.code("ResultCode"), "ResultCode", found).map_or(Ok(()), Err);
    Some(Item { user_id: found.id(user_key).ok()?, said })
}

/// Older pages of the documentation have `State` instead of `Status`. If both are present, they must agree.
fn presence(found: &Fields<'_>) -> Option<Item<Presence>> {
    let (status, state) = (found.word("Status"), found.word("State"));
    let (key, word) = match (status, state) {
        (FieldValue::Here(status), FieldValue::Here(state)) if status != state => ("State", FieldValue::Unreadable),
        (FieldValue::Absent, state) => ("State", state),
        (status, _) => ("Status", status),
    };
    let said = match word.ok().as_deref() {
        Some("Online") => Ok(Presence::Online),
        Some("PushOnline") => Ok(Presence::PushOnline),
        Some("Offline") => Ok(Presence::Offline),
        Some(_) | None => Err(undocumented(key, found)),
    };
    Some(Item { user_id: found.id("To_Account").ok()?, said })
}

fn untold_presence(found: &Fields<'_>) -> Option<Item<Presence>> {
    // An item in the error list is an error, whatever its code.
    let refusal = match found.code("ErrorCode") {
        FieldValue::Here(code) => ItemRefusal { code, info: "".into() },
        FieldValue::Absent | FieldValue::Unreadable => undocumented("ErrorCode", found),
    };
    Some(Item { user_id: found.id("To_Account").ok()?, said: Err(refusal) })
}

/// The refusal of an item. An item without a code is refused too.
fn refusal(code: FieldValue<i64>, key: &str, found: &Fields<'_>) -> Option<ItemRefusal> {
    match code {
        FieldValue::Here(0) => None,
        FieldValue::Here(code) => Some(ItemRefusal { code, info: found.words("ResultInfo").unwrap_or_default().into() }),
        FieldValue::Absent | FieldValue::Unreadable => Some(undocumented(key, found)),
    }
}

/// A value that is not documented counts as a refusal.
fn undocumented(key: &str, found: &Fields<'_>) -> ItemRefusal {
    let info = found.words(key).map_or_else(|| format!("{key} is absent"), |found| format!("{key} is {found:?}"));
    ItemRefusal { code: 0, info: info.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_json_is_accepted() {
        let check = |body: &str, expected: Option<(bool, i64)>| {
            let read = match read(Command::AccountImport, body.as_bytes()) {
                CallOutcome::Done(Answer::Nothing) => Some((true, 0)),
                CallOutcome::Refused { code, .. } => Some((false, code)),
                CallOutcome::Lost { .. } => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(read, expected, "{body}");
        };
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","RequestId":"r","More":[1]}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":70169,"ErrorInfo":"x"}"#, Some((false, 70169)));
        check(r#"{"ActionStatus":"FAIL","ErrorCode":0,"ErrorInfo":"x"}"#, Some((false, 0)));
        for none in [
            "<html>please log in</html>",
            "",
            "null",
            "[]",
            r#"[{"ActionStatus":"OK","ErrorCode":0}]"#,
            r#"{"ActionStatus":"OK"}"#,
            r#"{"ActionStatus":"OK","ErrorCode":null}"#,
            r#"{"ActionStatus":"OK","ErrorCode":false}"#,
            r#"{"ActionStatus":"OK","ErrorCode":"none"}"#,
            r#"{"ActionStatus":"OK","ErrorCode":0.5}"#,
            r#"{"ErrorCode":0}"#,
            r#"{"ActionStatus":null,"ErrorCode":0}"#,
            r#"{"ActionStatus":1,"ErrorCode":0}"#,
            r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorCode":70169}"#,
            r#"{"ActionStatus":"OK","ErrorCode":0} more"#,
        ] {
            check(none, None);
        }
    }

    /// Everything that JSON allows beside the required fields.
    #[test]
    fn optional_fields_may_have_any_value() {
        let check = |body: &[u8], code: i64| {
            let read = match read(Command::AccountImport, body) {
                CallOutcome::Done(Answer::Nothing) => 0,
                CallOutcome::Refused { code, .. } => code,
                other => panic!("{}: {other:?}", body.escape_ascii()),
            };
            assert_eq!(read, code, "{}", body.escape_ascii());
        };
        for (status, code) in [("OK", 0), ("FAIL", 70169)] {
            let needed = format!(r#""ActionStatus":"{status}","ErrorCode":{code}"#);
            for more in [
                "",
                r#","ErrorInfo":null"#,
                r#","ErrorInfo":[]"#,
                r#","ErrorInfo":{"a":1}"#,
                r#","ErrorInfo":7"#,
                r#","ErrorInfo":"half a pair \ud83d""#,
                r#","ErrorInfo":"one","ErrorInfo":"two""#,
                r#","RequestId":17"#,
                r#","RequestId":null"#,
                r#","FailAccounts":5,"ResultItem":"x","UserProfileItem":true,"QueryResult":{"a":1},"ErrorList":0.1"#,
                r#","":0,"":1,"\ud800":2,"a":1e999,"a":-0,"a":[[[{"b":null}]]]"#,
                r#","errorcode":5,"ActionStatus ":"no""#,
            ] {
                check(format!("{{{needed}{more}}}").as_bytes(), code);
                let more = more.trim_start_matches(',');
                let comma = if more.is_empty() { "" } else { "," };
                check(format!(" \r\n\t{{ {more}{comma} {needed} }}\n\n").as_bytes(), code);
                check(format!("\u{feff}{{{needed}{comma}{more}}}").as_bytes(), code);
            }
            let quoted = format!(r#"{{"ErrorCode":"{code}","ActionStatus":"{status}"}}"#);
            check(quoted.as_bytes(), code);
            check(format!(r#"{{"ErrorCode":{code}.0,"ActionStatus":"{status}"}}"#).as_bytes(), code);
        }
    }

    #[test]
    fn text_in_another_encoding_is_accepted() {
        let words: [(&str, &[u8]); 6] = [
            ("GBK", b"\xb2\xce\xca\xfd\xb4\xed\xce\xf3"),
            ("GBK that ends in a backslash's byte", b"\xd5\x5c"),
            ("Big5 with such characters", b"\xa5\x5c\xb3\x5c\xbb\x5c\xa5\x5c"),
            ("Shift JIS", b"\x95\x5c\x8e\xa6"),
            ("Latin-1 with an escape behind it", b"d\xe9j\xe0\\n vu\xe9"),
            ("the start of a longer character", b"\xe4\xb8"),
        ];
        for (what, words) in words {
            let body = [br#"{"ErrorInfo":""#, words, br#"","ActionStatus":"FAIL","ErrorCode":70169}"#].concat();
            let CallOutcome::Refused { code: 70169, info } = read(Command::AccountImport, &body) else { panic!("{what}") };
            assert!(info.contains(char::REPLACEMENT_CHARACTER), "{what}: {info}");
            let last = [br#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""#, words, br#""}"#].concat();
            assert_eq!(read(Command::AccountImport, &last), CallOutcome::Done(Answer::Nothing), "{what}");
        }
    }

    #[test]
    fn an_unreadable_answer_is_shown_by_its_first_bytes() {
        let why = |body: &[u8]| match read(Command::AccountImport, body) {
            CallOutcome::Lost { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(b""), "an empty answer");
        assert_eq!(why(b"<html>\x1b[2J\"\xff"), r#"an answer that is not the documented JSON: "<html>\x1b[2J\"\xff""#);
        assert_eq!(why(&[b'y'; 80]), format!(r#"an answer that is not the documented JSON: "{}""#, "y".repeat(80)));
        assert_eq!(why(&[b'y'; 81]), format!(r#"an answer that is not the documented JSON: "{}" …"#, "y".repeat(80)));
    }

    #[test]
    fn refused_accounts_of_a_batch_and_profiles_are_read() {
        let ids = |body: &str| match read(Command::MultiaccountImport, body.as_bytes()) {
            CallOutcome::Done(Answer::FailAccounts(ids)) => ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","FailAccounts":["a","b"]}"#), ["a", "b"]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":null}"#), [""; 0]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0}"#), [""; 0]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":{}}"#), [""; 0]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":[null,"a",10086,"\u4e2d"]}"#), ["a", "10086", "中"]);
        // The entry that cannot be read may name any record.
        for unreadable in
            ["5", "\"a\"", "{\"a\":1}", "[[\"a\"]]", "[{\"UserID\":\"a\"}]", "[true]", "[\"\\ud83d\"]", "[\"a\"],\"FailAccounts\":[]"]
        {
            let body = format!(r#"{{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":{unreadable}}}"#);
            assert!(matches!(read(Command::MultiaccountImport, body.as_bytes()), CallOutcome::Lost { .. }), "{body}");
        }
        let body = r#"{"ActionStatus":"OK","ErrorCode":0,"UserProfileItem":[
            {"To_Account":"a","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick","Value":"n"},{"Tag":"Tag_Profile_IM_Level","Value":3}],"ResultCode":0},
            {"To_Account":"@TLS#NOT_FOUND","ResultCode":40003}]}"#;
        let tags = vec![(Tag::Level, "3".into())];
        let found = |user_id: &str, nick: Option<&str>| Profile {
            user_id: user_id.into(),
            fields: [nick.map(Into::into), None].into(),
            ..Profile::default()
        };
        let unknown = Profile { refused: Some(ItemRefusal { code: 40003, info: "".into() }), ..found("@TLS#NOT_FOUND", None) };
        let expected = CallOutcome::Done(Answer::Profiles(vec![Profile { tags, ..found("a", Some("n")) }, unknown]));
        assert_eq!(read(Command::PortraitGet, body.as_bytes()), expected);
    }

    #[test]
    fn the_result_of_each_id_is_read() {
        let ok = r#""ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"""#;
        let done = |command: Command, more: &str| match read(command, format!("{{{ok}{more}}}").as_bytes()) {
            CallOutcome::Done(found) => found,
            other => panic!("{other:?}"),
        };
        let refused = |code: i64, info: &str| ItemRefusal { code, info: info.into() };
        let (check, delete, online) = (Command::AccountCheck, Command::AccountDelete, Command::QueryOnlineStatus);
        let items = r#","ResultItem":[{"UserID":"a","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"},
            {"UserID":"b","ResultCode":0,"AccountStatus":"NotImported"},{"UserID":"c","ResultCode":70402,"ResultInfo":"x"},
            {"UserID":"d","ResultCode":0,"AccountStatus":"Lent"},{"UserID":"e","ResultCode":0,"ResultInfo":null}]"#;
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let expected = vec![
            item("a", Ok(AccountStatus::Imported)),
            item("b", Ok(AccountStatus::NotImported)),
            item("c", Err(refused(70402, "x"))),
            item("d", Err(refused(0, "AccountStatus is \"Lent\""))),
            item("e", Err(refused(0, "AccountStatus is absent"))),
        ];
        assert_eq!(done(check, items), Answer::Statuses(expected));
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let gone = r#","ResultItem":[{"UserID":"a","ResultCode":0,"ResultInfo":""},{"UserID":"b","ResultCode":70107,"ResultInfo":"y"}]"#;
        assert_eq!(done(delete, gone), Answer::Results(vec![item("a", Ok(())), item("b", Err(refused(70107, "y")))]));
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let there = r#","QueryResult":[{"To_Account":"a","Status":"Online","Detail":[]},{"To_Account":"b","Status":"PushOnline"},
            {"To_Account":"c","Status":"Offline"}],"ErrorList":[{"To_Account":"d","ErrorCode":70107}]"#;
        let expected = vec![
            item("a", Ok(Presence::Online)),
            item("b", Ok(Presence::PushOnline)),
            item("c", Ok(Presence::Offline)),
            item("d", Err(refused(70107, ""))),
        ];
        assert_eq!(done(online, there), Answer::Presences(expected));
        for none in ["", r#","ResultItem":null,"QueryResult":null,"ErrorList":null"#] {
            assert_eq!(done(check, none), Answer::Statuses(Vec::new()));
            assert_eq!(done(delete, none), Answer::Results(Vec::new()));
            assert_eq!(done(online, none), Answer::Presences(Vec::new()));
        }
        assert_eq!(done(Command::Kick, ""), Answer::Nothing);
    }

    fn one_is_bad<T: PartialEq + std::fmt::Debug + Copy>(items: &[Item<T>], word: &str, good: T) {
        let said: Vec<_> =
            items.iter().map(|item| (&*item.user_id, item.said.as_ref().map_err(|refusal| (refusal.code, &*refusal.info)))).collect();
        assert_eq!(said, [("bad", Err((0, word))), ("good", Ok(&good))]);
    }

    /// If the item of one UserID cannot be read, the others are read all the same, and the unreadable one never counts as a success.
    #[test]
    fn an_unreadable_item_does_not_affect_the_others() {
        let done = |command: Command, list: &str, items: &str| {
            let good = r#"{"UserID":"good","To_Account":"good","ResultCode":"0","AccountStatus":"Imported","Status":"Offline","Detail":[1],"New":{}}"#;
            let body = format!(r#"{{"ActionStatus":"OK","ErrorCode":0,"{list}":[null,{items},7,"x",[],{{}},{good}]}}"#);
            match read(command, body.as_bytes()) {
                CallOutcome::Done(found) => found,
                other => panic!("{body}: {other:?}"),
            }
        };
        let bad = |more: &str| format!(r#"{{"UserID":"bad","To_Account":"bad"{more}}}"#);
        let (check_list, delete, online) = (Command::AccountCheck, Command::AccountDelete, Command::QueryOnlineStatus);
        for (more, word) in [
            ("", "ResultCode is absent"),
            (r#","ResultCode":null,"AccountStatus":"Imported""#, "ResultCode is absent"),
            (r#","ResultCode":true,"AccountStatus":"Imported""#, "ResultCode is \"true\""),
            (r#","ResultCode":"","AccountStatus":"Imported""#, "ResultCode is \"\""),
            (r#","ResultCode":0,"ResultCode":1,"AccountStatus":"Imported""#, "ResultCode is absent"),
        ] {
            let Answer::Statuses(items) = done(check_list, "ResultItem", &bad(more)) else { panic!() };
            one_is_bad(&items, word, AccountStatus::Imported);
            let Answer::Results(items) = done(delete, "ResultItem", &bad(more)) else { panic!() };
            one_is_bad(&items, word, ());
        }
        let Answer::Statuses(items) = done(check_list, "ResultItem", &bad(r#","ResultCode":0,"AccountStatus":7"#)) else { panic!() };
        one_is_bad(&items, "AccountStatus is \"7\"", AccountStatus::Imported);
        for (more, word) in [
            ("", "State is absent"),
            (r#","Status":null"#, "State is absent"),
            (r#","Status":3"#, "Status is \"3\""),
            (r#","Status":"offline""#, "Status is \"offline\""),
            (r#","State":["Offline"]"#, "State is \"[\\\"Offline\\\"]\""),
            (r#","Status":"Offline","State":"Online""#, "State is \"Online\""),
        ] {
            let Answer::Presences(items) = done(online, "QueryResult", &bad(more)) else { panic!() };
            one_is_bad(&items, word, Presence::Offline);
        }
        let Answer::Profiles(profiles) = done(Command::PortraitGet, "UserProfileItem", &bad(r#","ResultCode":[]"#)) else { panic!() };
        assert_eq!(
            profiles.iter().map(|profile| (&*profile.user_id, profile.refused.is_some())).collect::<Vec<_>>(),
            [("bad", true), ("good", false)]
        );
    }

    #[test]
    fn presence_is_read_in_both_documented_forms() {
        let body = r#"{"ActionStatus":"OK","ErrorCode":0,"QueryResult":[{"To_Account":"a","State":"Online"},{"To_Account":"b","State":"PushOnline"},
            {"To_Account":"c","State":"Offline","Status":null},{"To_Account":"d","State":"Offline","Status":"Offline"},{"To_Account":5,"Status":"Offline"}],
            "ErrorList":[{"To_Account":"e","ErrorCode":"70107"},{"To_Account":"f"},null]}"#;
        let CallOutcome::Done(Answer::Presences(items)) = read(Command::QueryOnlineStatus, body.as_bytes()) else { panic!() };
        let said: Vec<_> = items.iter().map(|item| (&*item.user_id, item.said.as_ref().map_err(|refusal| refusal.code))).collect();
        let offline = Ok(&Presence::Offline);
        let expected = [("a", Ok(&Presence::Online)), ("b", Ok(&Presence::PushOnline)), ("c", offline), ("d", offline), ("5", offline)];
        assert_eq!(said[..5], expected);
        assert_eq!(said[5..], [("e", Err(70107)), ("f", Err(0))]);
    }

    #[test]
    fn a_profile_is_read_field_by_field() {
        let body = r#"{"ActionStatus":"OK","ErrorCode":0,"UserProfileItem":[{"To_Account":"a","ResultCode":"0","ProfileItem":[
            {"Tag":"Tag_Profile_IM_Nick","Value":"n","New":[]},null,{"Value":"x"},{"Tag":5,"Value":"y"},{"Tag":"Tag_Profile_IM_Image","Value":null},
            {"Tag":"Tag_Profile_IM_Level","Value":7},{"Tag":"Tag_Profile_Custom_Vip","Value":"\u0041"},{"Tag":"Tag_Profile_IM_Other","Value":1}]}]}"#;
        let tags = vec![(Tag::Level, "7".into()), (Tag::Custom("Vip".into()), "A".into())];
        let expected = Profile { user_id: "a".into(), fields: [Some("n".into()), None].into(), tags, ..Profile::default() };
        assert_eq!(read(Command::PortraitGet, body.as_bytes()), CallOutcome::Done(Answer::Profiles(vec![expected])));
    }
}
