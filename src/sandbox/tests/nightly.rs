//! The parts of the mock service that a nightly sync needs: deleting, kicking, presence, files that survive a restart, and the call log.

use std::fs;
use std::num::NonZeroU32;

use super::*;
use crate::io::api::wire::Command;

fn users(list: &str, ids: &[&str]) -> String {
    json!({ list: ids.iter().map(|id| json!({ "UserID": id })).collect::<Vec<_>>() }).to_string()
}

fn delete(ids: &[&str]) -> String {
    users("DeleteItem", ids)
}

fn to_account(ids: &[&str]) -> String {
    json!({ "To_Account": ids }).to_string()
}

fn portraits(ids: &[&str]) -> String {
    json!({ "To_Account": ids, "TagList": [wire::TAG_NICK] }).to_string()
}

/// The values of a key in the items of a list.
fn each<'a>(answer: &'a Value, list: &str, key: &str) -> Vec<&'a Value> {
    answer[list].as_array().unwrap().iter().map(|item| &item[key]).collect()
}

#[test]
fn every_command_has_a_limit_of_its_own() {
    let commands = [
        (wire::ACCOUNT_IMPORT, users("x", &[]), 200),
        (wire::MULTIACCOUNT_IMPORT, String::new(), 100),
        (wire::ACCOUNT_CHECK, users("CheckItem", &["u"]), 100),
        (wire::ACCOUNT_DELETE, delete(&["u"]), 100),
        (wire::PORTRAIT_GET, portraits(&["u"]), 200),
        (wire::PORTRAIT_SET, String::new(), 200),
        (wire::KICK, r#"{"UserID":"u"}"#.to_owned(), 200),
        (wire::QUERY_ONLINE_STATUS, to_account(&["u"]), 200),
    ];
    let mut caller = Caller::new(settings());
    for (command, body, limit) in &commands {
        let admitted = (0..*limit).filter(|_| caller.code(command, body) != 60007).count();
        assert_eq!((admitted, caller.code(command, body)), (*limit, 60007), "{command}");
    }
    let audit = caller.service.audit();
    for (command, _, limit) in &commands {
        let seen = audit.of(super::super::command::by_path(command).unwrap());
        assert_eq!((seen.calls, seen.over_limit, seen.max_calls_in_1s), (*limit as u64 + 1, 1, limit + 1), "{command}");
    }
    caller.now.since_start = Duration::from_secs(1);
    assert!(commands.iter().all(|(command, body, _)| caller.code(command, body) != 60007));
}

#[test]
fn deleted_users_are_unknown_to_every_command_and_may_return() {
    let mut caller = Caller::new(settings());
    caller.import("a");
    caller.import("b");
    let answer = caller.call(wire::ACCOUNT_DELETE, &delete(&["a", "x", "a b"]));
    assert_eq!((&answer["ActionStatus"], &answer["ErrorCode"]), (&json!("OK"), &json!(0)));
    assert_eq!(each(&answer, "ResultItem", "UserID"), ["a", "x", "a b"]);
    assert_eq!(each(&answer, "ResultItem", "ResultCode"), [0, 70107, 70402]);
    let checked = caller.call(wire::ACCOUNT_CHECK, &users("CheckItem", &["a", "b", "a b"]));
    assert_eq!(each(&checked, "ResultItem", "AccountStatus"), [&json!("NotImported"), &json!("Imported"), &Value::Null]);
    assert_eq!(each(&checked, "ResultItem", "ResultCode"), [0, 0, 70402]);
    assert_eq!(caller.code(wire::KICK, r#"{"UserID":"a"}"#), 70107);
    assert_eq!(each(&caller.call(wire::QUERY_ONLINE_STATUS, &to_account(&["a"])), "ErrorList", "ErrorCode"), [70107]);
    assert_eq!(caller.import("a"), 0);
    assert_eq!(caller.service.account("a").unwrap().imports, 1, "it is a new account");
    let again = caller.call(wire::ACCOUNT_DELETE, &delete(&["a"]));
    assert_eq!(each(&again, "ResultItem", "ResultCode"), [0]);
}

#[test]
fn a_batch_names_barred_users_too() {
    let mut caller = Caller::new(SandboxSettings { deleted_ids: DeletedIds::Barred, ..settings() });
    caller.import("a");
    caller.call(wire::ACCOUNT_DELETE, &delete(&["a"]));
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, r#"{"Accounts":["a","b"]}"#)["FailAccounts"], json!(["a"]));
}

#[test]
fn nobody_is_deleted_if_deleting_is_off() {
    let mut caller = Caller::new(SandboxSettings { deleting: Deleting::SwitchedOff, ..settings() });
    caller.import("a");
    let answer = caller.call(wire::ACCOUNT_DELETE, &delete(&["a"]));
    assert_eq!((&answer["ActionStatus"], &answer["ErrorCode"], &answer["ResultItem"]), (&json!("FAIL"), &json!(71000), &Value::Null));
    assert!(caller.service.account("a").is_some());
}

#[test]
fn unknown_profiles_can_be_left_out() {
    let mut caller = Caller::new(SandboxSettings { unknown_profiles: UnknownProfiles::Absent, ..settings() });
    caller.import("a");
    let answer = caller.call(wire::PORTRAIT_GET, &portraits(&["x", "a"]));
    assert_eq!(each(&answer, "UserProfileItem", "To_Account"), ["a"]);
}

#[test]
fn users_are_online_until_they_are_kicked_or_deleted() {
    let online =
        ["a", "b", "x"].map(|id| (id.to_owned(), PresenceField::Online)).into_iter().chain([("c".to_owned(), PresenceField::PushOnline)]);
    let mut caller = Caller::new(SandboxSettings { online: online.collect(), ..settings() });
    for id in ["a", "b", "c", "d"] {
        caller.import(id);
    }
    let statuses = |caller: &mut Caller| {
        let answer = caller.call(wire::QUERY_ONLINE_STATUS, &to_account(&["a", "b", "c", "d", "x"]));
        assert_eq!(answer["ErrorList"], json!([{ "To_Account": "x", "ErrorCode": 70107 }]), "an account must exist to be online");
        assert_eq!(each(&answer, "QueryResult", "To_Account"), ["a", "b", "c", "d"]);
        each(&answer, "QueryResult", "Status").into_iter().map(|status| status.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(statuses(&mut caller), ["Online", "Online", "PushOnline", "Offline"]);
    assert_eq!(caller.code(wire::KICK, r#"{"UserID":"c"}"#), 0);
    caller.call(wire::ACCOUNT_DELETE, &delete(&["b"]));
    caller.import("b");
    assert_eq!(statuses(&mut caller), ["Online", "Offline", "Offline", "Offline"]);
}

#[test]
fn a_fault_affects_one_command() {
    let mut caller = Caller::with_faults(&["code=71000,api=account_delete,count=1", "http=502,api=query_online_status"]);
    assert_eq!(caller.import("a"), 0);
    assert_eq!(caller.code(wire::ACCOUNT_DELETE, &delete(&["a"])), 71000);
    assert!(caller.service.account("a").is_some());
    assert_eq!(caller.code(wire::ACCOUNT_DELETE, &delete(&["a"])), 0);
    assert!(matches!(caller.react(wire::QUERY_ONLINE_STATUS, &to_account(&["a"])).act, Act::Answer(reply) if reply.status == 502));
    assert_eq!(caller.service.audit().faults, [1, 1]);
}

#[test]
fn a_code_for_named_users_affects_only_them() {
    let check = |command: &str, body: &str, list: &str, key: &str, expected: [i64; 2]| {
        let mut caller = Caller::with_faults(&["code=70169,id=b"]);
        caller.code(wire::MULTIACCOUNT_IMPORT, r#"{"Accounts":["a"]}"#);
        let answer = caller.call(command, body);
        assert_eq!(each(&answer, list, key), expected, "{answer}");
        assert_eq!(Caller::with_faults(&["code=70169"]).code(command, body), 70169, "{command}");
        assert_eq!(Caller::with_faults(&["whole=70169,id=b"]).code(command, body), 70169, "{command}");
    };
    check(wire::ACCOUNT_CHECK, &users("CheckItem", &["a", "b"]), "ResultItem", "ResultCode", [0, 70169]);
    check(wire::ACCOUNT_DELETE, &delete(&["a", "b"]), "ResultItem", "ResultCode", [0, 70169]);
    check(wire::PORTRAIT_GET, &portraits(&["a", "b"]), "UserProfileItem", "ResultCode", [0, 70169]);
    check(wire::QUERY_ONLINE_STATUS, &to_account(&["x", "b"]), "ErrorList", "ErrorCode", [70107, 70169]);
    let mut caller = Caller::with_faults(&["code=70169,id=b,api=account_delete"]);
    caller.import("b");
    caller.call(wire::ACCOUNT_DELETE, &delete(&["b"]));
    assert!(caller.service.account("b").is_some(), "an affected user is not deleted");
}

#[test]
fn the_call_log_has_each_user_with_its_code() {
    let faults = ["html,api=kick", "reset=after,api=account_check"].map(|text| text.parse().unwrap()).to_vec();
    let limit_per_s = NonZeroU32::new(2);
    let mut caller = Caller::new(SandboxSettings { faults, limit_per_s, call_log_kept: 100, ..settings() });
    caller.call(wire::MULTIACCOUNT_IMPORT, r#"{"Accounts":["a","b c"]}"#);
    caller.call(wire::ACCOUNT_DELETE, &delete(&["x", "a"]));
    caller.react(wire::KICK, r#"{"UserID":"a"}"#);
    caller.react(wire::ACCOUNT_CHECK, &users("CheckItem", &["a"]));
    for id in ["d", "e", "f"] {
        caller.import(id);
    }
    caller.react(wire::KICK, r#"{"UserID":"a","More":1}"#);
    let call_log: Vec<_> = caller.service.call_log().iter().map(|entry| (entry.command, entry.user_id.as_str(), entry.code)).collect();
    let expected = [
        (Command::MultiaccountImport, "a", Some(0)),
        (Command::MultiaccountImport, "b c", Some(70402)),
        (Command::AccountDelete, "x", Some(70107)),
        (Command::AccountDelete, "a", Some(0)),
        (Command::Kick, "a", None),
        (Command::AccountCheck, "a", Some(0)),
        (Command::AccountImport, "d", Some(0)),
        (Command::AccountImport, "e", Some(0)),
        (Command::AccountImport, "f", Some(60007)),
    ];
    assert_eq!(call_log, expected);
    let audit = caller.service.audit();
    let ids = |command| audit.of(command).ids;
    assert_eq!((ids(Command::MultiaccountImport), ids(Command::AccountDelete), ids(Command::Kick)), (2, 2, 1));
    assert_eq!(audit.imports, 3);
}

#[tokio::test]
async fn files_contain_every_answered_change() {
    let folder = tempfile::tempdir().unwrap();
    let (accounts, calls) = (folder.path().join("accounts.csv"), folder.path().join("calls.csv"));
    let open = || Files::open(Some(&accounts), Some(&calls)).unwrap();
    fs::write(&accounts, "UserID,Nick\nz,Zoë\n").unwrap();
    let sandbox = Sandbox::start_with(settings(), open()).unwrap();
    let client = client(&sandbox, Duration::from_secs(5));
    import(&client, "b").await;
    import(&client, "z").await;
    assert_eq!(fs::read_to_string(&calls).unwrap(), "command,UserID,code\naccount_import,b,0\naccount_import,z,0\n");
    // The sandbox is dropped, not stopped. As after a kill, only the log has the change.
    drop(sandbox);
    assert_eq!(fs::read_to_string(&accounts).unwrap(), "UserID,Nick,FaceUrl\nz,Zoë,\n");
    let mut sandbox = Sandbox::start_with(settings(), open()).unwrap();
    assert_eq!(sandbox.account("b").unwrap().nick.as_deref(), Some("好"));
    import(&self::client(&sandbox, Duration::from_secs(5)), "c").await;
    sandbox.stop().unwrap();
    assert_eq!(fs::read_to_string(&accounts).unwrap(), "UserID,Nick,FaceUrl\nb,好,\nc,好,\nz,好,\n");
    assert_eq!(fs::read_to_string(folder.path().join("accounts.csv.log")).unwrap(), "");
    assert_eq!(fs::read_to_string(&calls).unwrap().lines().last(), Some("account_import,c,0"));
}

#[test]
fn deleted_ids_stay_barred_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("accounts.csv");
    let barred = || SandboxSettings { deleted_ids: DeletedIds::Barred, ..settings() };
    let caller = |settings: SandboxSettings| {
        let mut files = Files::open(Some(&path), None).unwrap();
        let mut service = Service::with_accounts(settings, files.take_stored());
        files.ask(&mut service);
        (Caller { service, now: Moment { since_start: Duration::ZERO, unix_s: NOW_S } }, files)
    };
    let (mut first, mut files) = caller(barred());
    first.import("a");
    first.call(wire::ACCOUNT_DELETE, &delete(&["a"]));
    files.append(&first.service.take_traces()).unwrap();
    drop((first, files));
    for _ in 0..2 {
        assert_eq!(caller(barred()).0.import("a"), 70399);
    }
    let (mut lenient, mut files) = caller(settings());
    assert_eq!(lenient.import("a"), 0);
    files.append(&lenient.service.take_traces()).unwrap();
    drop((lenient, files));
    assert_eq!(caller(barred()).0.import("a"), 0, "it was imported again");
}

#[test]
fn a_request_without_effect_is_not_written() {
    let mut caller = Caller::new(settings());
    caller.service.note(service::Trace::Changes);
    caller.import("a");
    assert_eq!(caller.service.take_traces().changes, b"{\"op\":\"set\",\"UserID\":\"a\",\"Nick\":\"n\"}\n");
    caller.import("a");
    caller.call(wire::ACCOUNT_DELETE, &delete(&["x"]));
    assert_eq!(caller.service.take_traces(), service::Traces::default());
    let cleared = json!({ "From_Account": "a", "ProfileItem": [{ "Tag": wire::TAG_NICK, "Value": "" }] }).to_string();
    caller.call(wire::PORTRAIT_SET, &cleared);
    assert_eq!(caller.service.take_traces().changes, b"{\"op\":\"set\",\"UserID\":\"a\"}\n");
}
