//! What an answer says: the service's JSON, read into what the flows know.
//!
//! Pure; tolerant where the documentation is vague (absent, null), and never more generous than the answer itself.

use super::wire::{self, Answer, ProfileItem, ResultItem, UserError, UserProfile, UserStatus};
use crate::command::Command;
use crate::verdict::{CallEnd, Item, ItemRefusal, Presence, Profile, Standing, Yield};

/// Reads the body of an answer to `command` with HTTP status 200.
#[must_use]
pub fn read(command: Command, body: &[u8]) -> CallEnd {
    let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
        return CallEnd::Lost { why: "an answer that is not the documented JSON".to_owned() };
    };
    tracing::trace!(code = answer.error_code, request_id = answer.request_id, "answered");
    if !answer.is_success() {
        return CallEnd::Refused { code: answer.error_code, info: answer.error_info };
    }
    CallEnd::Done(match command {
        Command::AccountImport | Command::Kick => Yield::Nothing,
        Command::MultiaccountImport => Yield::FailAccounts(answer.fail_accounts.unwrap_or_default()),
        Command::PortraitGet => Yield::Profiles(answer.profiles.into_iter().flatten().map(profile).collect()),
        Command::AccountCheck => Yield::Standings(answer.results.into_iter().flatten().map(standing).collect()),
        Command::AccountDelete => Yield::Deleted(answer.results.into_iter().flatten().map(deleted).collect()),
        Command::QueryOnlineStatus => {
            let (told, untold) = (answer.presences.into_iter().flatten().map(presence), answer.errors.into_iter().flatten());
            Yield::Presences(told.chain(untold.map(untold_presence)).collect())
        }
    })
}

fn profile(found: UserProfile) -> Profile {
    let refused = refusal(found.code, found.info);
    let mut profile = Profile { user_id: found.user, refused, ..Profile::default() };
    for ProfileItem { tag, value } in found.items.into_iter().flatten() {
        let text = value.as_str().map(Into::into);
        match tag.as_str() {
            wire::TAG_NICK => profile.nick = text,
            wire::TAG_IMAGE => profile.face_url = text,
            _ => {}
        }
    }
    profile
}

fn standing(ResultItem { user_id, code, info, account_status }: ResultItem) -> Item<Standing> {
    let said = match (refusal(code, info), account_status.as_deref()) {
        (Some(refusal), _) => Err(refusal),
        (None, Some("Imported")) => Ok(Standing::Imported),
        (None, Some("NotImported")) => Ok(Standing::NotImported),
        (None, other) => Err(undocumented("AccountStatus", other)),
    };
    Item { user_id, said }
}

fn deleted(ResultItem { user_id, code, info, .. }: ResultItem) -> Item<()> {
    Item { user_id, said: refusal(code, info).map_or(Ok(()), Err) }
}

fn presence(UserStatus { user, status }: UserStatus) -> Item<Presence> {
    let said = match &*status {
        "Online" => Ok(Presence::Online),
        "PushOnline" => Ok(Presence::PushOnline),
        "Offline" => Ok(Presence::Offline),
        other => Err(undocumented("Status", Some(other))),
    };
    Item { user_id: user, said }
}

fn untold_presence(UserError { user, code }: UserError) -> Item<Presence> {
    Item { user_id: user, said: Err(ItemRefusal { code, info: "".into() }) }
}

fn refusal(code: i64, info: Option<Box<str>>) -> Option<ItemRefusal> {
    (code != 0).then(|| ItemRefusal { code, info: info.unwrap_or_default() })
}

/// A word that isn't in the documentation means nothing.
fn undocumented(field: &str, found: Option<&str>) -> ItemRefusal {
    let info = found.map_or_else(|| format!("{field} is absent"), |found| format!("{field} is {found:?}"));
    ItemRefusal { code: 0, info: info.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_json_is_an_answer() {
        let check = |body: &str, expected: Option<(bool, i64)>| {
            let read = match read(Command::AccountImport, body.as_bytes()) {
                CallEnd::Done(Yield::Nothing) => Some((true, 0)),
                CallEnd::Refused { code, .. } => Some((false, code)),
                CallEnd::Lost { .. } => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(read, expected, "{body}");
        };
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":""}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","RequestId":"r","More":[1]}"#, Some((true, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":70169,"ErrorInfo":"x"}"#, Some((false, 70169)));
        check(r#"{"ActionStatus":"FAIL","ErrorCode":0,"ErrorInfo":"x"}"#, Some((false, 0)));
        check(r#"{"ActionStatus":"OK","ErrorCode":"0"}"#, None);
        check("<html>please log in</html>", None);
        check("", None);
        check("null", None);
    }

    #[test]
    fn what_a_batch_refused_and_what_a_profile_holds_is_read() {
        let ids = |body: &str| match read(Command::MultiaccountImport, body.as_bytes()) {
            CallEnd::Done(Yield::FailAccounts(ids)) => ids.iter().map(ToString::to_string).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"","FailAccounts":["a","b"]}"#), ["a", "b"]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0,"FailAccounts":null}"#), [""; 0]);
        assert_eq!(ids(r#"{"ActionStatus":"OK","ErrorCode":0}"#), [""; 0]);
        let body = r#"{"ActionStatus":"OK","ErrorCode":0,"UserProfileItem":[
            {"To_Account":"a","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick","Value":"n"},{"Tag":"Tag_Profile_IM_Level","Value":3}],"ResultCode":0},
            {"To_Account":"@TLS#NOT_FOUND","ResultCode":40003}]}"#;
        let found =
            |user_id: &str, nick: Option<&str>| Profile { user_id: user_id.into(), nick: nick.map(Into::into), ..Profile::default() };
        let unknown = Profile { refused: Some(ItemRefusal { code: 40003, info: "".into() }), ..found("@TLS#NOT_FOUND", None) };
        let expected = CallEnd::Done(Yield::Profiles(vec![found("a", Some("n")), unknown]));
        assert_eq!(read(Command::PortraitGet, body.as_bytes()), expected);
    }

    #[test]
    fn what_is_said_of_each_id_is_read() {
        let ok = r#""ActionStatus":"OK","ErrorCode":0,"ErrorInfo":"""#;
        let done = |command: Command, more: &str| match read(command, format!("{{{ok}{more}}}").as_bytes()) {
            CallEnd::Done(found) => found,
            other => panic!("{other:?}"),
        };
        let refused = |code: i64, info: &str| ItemRefusal { code, info: info.into() };
        let (check, delete, online) = (Command::AccountCheck, Command::AccountDelete, Command::QueryOnlineStatus);
        let items = r#","ResultItem":[{"UserID":"a","ResultCode":0,"ResultInfo":"","AccountStatus":"Imported"},
            {"UserID":"b","ResultCode":0,"AccountStatus":"NotImported"},{"UserID":"c","ResultCode":70402,"ResultInfo":"x"},
            {"UserID":"d","ResultCode":0,"AccountStatus":"Lent"},{"UserID":"e","ResultCode":0,"ResultInfo":null}]"#;
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let expected = vec![
            item("a", Ok(Standing::Imported)),
            item("b", Ok(Standing::NotImported)),
            item("c", Err(refused(70402, "x"))),
            item("d", Err(refused(0, "AccountStatus is \"Lent\""))),
            item("e", Err(refused(0, "AccountStatus is absent"))),
        ];
        assert_eq!(done(check, items), Yield::Standings(expected));
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let gone = r#","ResultItem":[{"UserID":"a","ResultCode":0,"ResultInfo":""},{"UserID":"b","ResultCode":70107,"ResultInfo":"y"}]"#;
        assert_eq!(done(delete, gone), Yield::Deleted(vec![item("a", Ok(())), item("b", Err(refused(70107, "y")))]));
        let item = |user_id: &str, said| Item { user_id: user_id.into(), said };
        let there = r#","QueryResult":[{"To_Account":"a","Status":"Online","Detail":[]},{"To_Account":"b","Status":"PushOnline"},
            {"To_Account":"c","Status":"Offline"}],"ErrorList":[{"To_Account":"d","ErrorCode":70107}]"#;
        let expected = vec![
            item("a", Ok(Presence::Online)),
            item("b", Ok(Presence::PushOnline)),
            item("c", Ok(Presence::Offline)),
            item("d", Err(refused(70107, ""))),
        ];
        assert_eq!(done(online, there), Yield::Presences(expected));
        for none in ["", r#","ResultItem":null,"QueryResult":null,"ErrorList":null"#] {
            assert_eq!(done(check, none), Yield::Standings(Vec::new()));
            assert_eq!(done(delete, none), Yield::Deleted(Vec::new()));
            assert_eq!(done(online, none), Yield::Presences(Vec::new()));
        }
        assert_eq!(done(Command::Kick, ""), Yield::Nothing);
        let without_a_code = format!(r#"{{{ok},"ResultItem":[{{"UserID":"a"}}]}}"#);
        assert!(matches!(read(delete, without_a_code.as_bytes()), CallEnd::Lost { .. }), "nothing is deleted that isn't said to be");
    }
}
