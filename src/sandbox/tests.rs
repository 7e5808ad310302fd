//! Tests of the mock service from outside: the state machine with a table of requests, the HTTP server over real sockets.

mod nightly;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::*;
use crate::domain::account::Account as Row;
use crate::domain::answer::Answer;
use crate::domain::verdict::{CallOutcome, Departure};
use crate::io::api::http::{HttpApi, HttpSettings};
use crate::io::api::usersig::{Credential, LIFE, Signature, Signer, sign};
use crate::io::api::wire::{self, Command, Query};
use crate::io::api::{self, Api, ConnectionWish};

const NOW_S: u64 = 1_700_000_000;
const KEY: &str = "a key of the tests";

fn settings() -> SandboxSettings {
    SandboxSettings::with_key(KEY.into())
}

fn target(command: &str) -> String {
    let usersig = sign(&KEY.into(), SDKAPPID, IDENTIFIER, UNIX_EPOCH + Duration::from_secs(NOW_S), LIFE);
    let query = Query { sdkappid: SDKAPPID, identifier: IDENTIFIER, usersig: usersig.expose_secret() };
    format!("{}?{}&random=7&contenttype=json", wire::path(command), query.before_random())
}

/// A service and a clock, for requests one after the other.
struct Caller {
    service: Service,
    now: Moment,
}

impl Caller {
    fn new(settings: SandboxSettings) -> Self {
        Self { service: Service::new(settings), now: Moment { since_start: Duration::ZERO, unix_s: NOW_S } }
    }

    fn with_faults(faults: &[&str]) -> Self {
        Self::new(SandboxSettings { faults: faults.iter().map(|text| text.parse().unwrap()).collect(), ..settings() })
    }

    fn react(&mut self, command: &str, body: &str) -> Reaction {
        let request = ServiceRequest { method: "POST", target: &target(command), body: body.as_bytes() };
        let reaction = self.service.handle(self.now, request);
        self.service.finish(&reaction);
        reaction
    }

    fn call(&mut self, command: &str, body: &str) -> Value {
        match self.react(command, body).act {
            Act::Answer(reply) => serde_json::from_slice(&reply.body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn code(&mut self, command: &str, body: &str) -> i64 {
        self.call(command, body)["ErrorCode"].as_i64().unwrap()
    }

    fn import(&mut self, id: &str) -> i64 {
        self.code(wire::ACCOUNT_IMPORT, &json!({ "UserID": id, "Nick": "n" }).to_string())
    }
}

#[test]
fn bodies_are_read_strictly() {
    let check = |command: &str, body: &str, expected: (i64, u64)| {
        let mut caller = Caller::new(settings());
        let code = caller.code(command, body);
        assert_eq!((code, caller.service.audit().violations), expected, "{command} {body}");
    };
    let long = |bytes: usize| "n".repeat(bytes);
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","Nick":"n","FaceUrl":"f"}"#, (0, 0));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u"}"#, (0, 0));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","Nick":""}"#, (0, 1));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","nick":"n"}"#, (70402, 1));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","UserID":"u"}"#, (70402, 1));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":7}"#, (70402, 1));
    check(wire::ACCOUNT_IMPORT, "{}", (70402, 1));
    check(wire::ACCOUNT_IMPORT, "", (60003, 1));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"u"} x"#, (60003, 1));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":""}"#, (70402, 0));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"a b"}"#, (70402, 0));
    check(wire::ACCOUNT_IMPORT, r#"{"UserID":"@TLS#a"}"#, (70402, 0));
    check(wire::ACCOUNT_IMPORT, &json!({ "UserID": long(32) }).to_string(), (0, 0));
    check(wire::ACCOUNT_IMPORT, &json!({ "UserID": long(33) }).to_string(), (70402, 0));
    check(wire::ACCOUNT_IMPORT, &json!({ "UserID": "u", "Nick": long(500), "FaceUrl": long(500) }).to_string(), (0, 0));
    check(wire::ACCOUNT_IMPORT, &json!({ "UserID": "u", "FaceUrl": long(501) }).to_string(), (40601, 0));
    check(wire::ACCOUNT_IMPORT, &json!({ "UserID": "u", "Nick": "好".repeat(167) }).to_string(), (40601, 0));
    check(wire::MULTIACCOUNT_IMPORT, r#"{"AccountList":[]}"#, (70402, 1));
    // The documentation's own example has one, so it is taken; no careful client sends it.
    check(wire::MULTIACCOUNT_IMPORT, r#"{"AccountList":[{"UserID":"a"},{"UserID":"a"}]}"#, (0, 1));
    check(wire::MULTIACCOUNT_IMPORT, r#"{"AccountList":[{"UserID":"a"}],"Accounts":["b"]}"#, (70402, 1));
    check(wire::MULTIACCOUNT_IMPORT, &json!({ "Accounts": ids(100) }).to_string(), (0, 0));
    check(wire::MULTIACCOUNT_IMPORT, &json!({ "Accounts": ids(101) }).to_string(), (70402, 1));
    check(wire::QUERY_ONLINE_STATUS, &json!({ "To_Account": ids(500) }).to_string(), (0, 0));
    check(wire::QUERY_ONLINE_STATUS, &json!({ "To_Account": ids(501) }).to_string(), (40001, 1));
    check(wire::QUERY_ONLINE_STATUS, r#"{"To_Account":[]}"#, (40001, 1));
    check(wire::QUERY_ONLINE_STATUS, r#"{"To_Account":["u"],"IsNeedDetail":1}"#, (0, 0));
    check(wire::QUERY_ONLINE_STATUS, r#"{"To_Account":["u"],"IsNeedDetail":0}"#, (0, 0));
    check(wire::QUERY_ONLINE_STATUS, r#"{"To_Account":["u"],"IsNeedDetail":2}"#, (40001, 1));
    for (command, list) in [(wire::ACCOUNT_CHECK, "CheckItem"), (wire::ACCOUNT_DELETE, "DeleteItem")] {
        let users = |count: usize| ids(count).into_iter().map(|id| json!({ "UserID": id })).collect::<Vec<_>>();
        check(command, &json!({ list: users(100) }).to_string(), (0, 0));
        check(command, &json!({ list: users(101) }).to_string(), (70402, 1));
        check(command, &json!({ list: [] }).to_string(), (70402, 1));
        check(command, &json!({ list: ["u"] }).to_string(), (70402, 1));
        check(command, &json!({ list: [{ "UserID": "u", "Nick": "n" }] }).to_string(), (70402, 1));
        check(command, &json!({ list: users(1), "More": 1 }).to_string(), (70402, 1));
        check(command, &json!({ list: [{ "UserID": "u" }, { "UserID": "u" }] }).to_string(), (70402, 1));
    }
    let get = |users: usize, tags: &[&str]| json!({ "To_Account": ids(users), "TagList": tags }).to_string();
    check(wire::PORTRAIT_GET, &get(100, &[wire::TAG_NICK]), (0, 0));
    check(wire::PORTRAIT_GET, &get(101, &[wire::TAG_NICK]), (40001, 1));
    check(wire::PORTRAIT_GET, &get(0, &[wire::TAG_NICK]), (40001, 1));
    check(wire::PORTRAIT_GET, &get(1, &[]), (40001, 1));
    check(wire::PORTRAIT_GET, r#"{"To_Account":["u"],"TagList":["Tag_Profile_IM_Nick"],"More":1}"#, (40001, 1));
    check(wire::PORTRAIT_SET, r#"{"From_Account":"u","ProfileItem":[]}"#, (40001, 1));
    check(wire::PORTRAIT_SET, r#"{"From_Account":"u","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick"}]}"#, (40001, 1));
    check(wire::KICK, r#"{"UserID":"u","Reason":"r"}"#, (70402, 1));
    check(wire::KICK, r#"{"UserID":["u"]}"#, (70402, 1));
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("u{number}")).collect()
}

#[test]
fn an_import_keeps_absent_fields() {
    let mut caller = Caller::new(settings());
    caller.code(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","Nick":"n","FaceUrl":"f"}"#);
    caller.code(wire::ACCOUNT_IMPORT, r#"{"UserID":"u","FaceUrl":"g"}"#);
    let expected = StoredAccount { nick: Some("n".into()), face_url: Some("g".into()), imports: 2, ..StoredAccount::default() };
    assert_eq!(caller.service.account("u"), Some(&expected));
    let audit = caller.service.audit();
    assert_eq!((audit.accounts, audit.imports, audit.codes[&0], audit.overlaps, audit.max_in_flight), (1, 2, 2, 0, 1));
}

#[test]
fn a_batch_names_refused_users_without_a_reason() {
    let mut caller = Caller::new(SandboxSettings { account_limit: Some(2), ..settings() });
    let body = json!({ "AccountList": [{ "UserID": "a", "Nick": "n" }, { "UserID": "b c" }, { "UserID": "d" }, { "UserID": "e" }] });
    let answer = caller.call(wire::MULTIACCOUNT_IMPORT, &body.to_string());
    assert_eq!(answer, json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", "FailAccounts": ["b c", "e"] }));
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, r#"{"Accounts":["a"]}"#).get("FailAccounts"), None);
    assert_eq!((caller.import("a"), caller.import("e")), (0, 70398));
}

#[test]
fn deleted_accounts_cannot_be_imported_again_if_barred() {
    let mut caller = Caller::new(SandboxSettings { deleted_ids: DeletedIds::Barred, ..settings() });
    caller.import("a");
    let items = caller.call(wire::ACCOUNT_DELETE, r#"{"DeleteItem":[{"UserID":"a"},{"UserID":"b"}]}"#)["ResultItem"].clone();
    assert_eq!((&items[0]["ResultCode"], &items[1]["ResultCode"]), (&json!(0), &json!(70107)));
    assert_eq!((caller.import("a"), caller.import("b")), (70399, 0));
    let checked = caller.call(wire::ACCOUNT_CHECK, r#"{"CheckItem":[{"UserID":"a"},{"UserID":"b"}]}"#)["ResultItem"].clone();
    assert_eq!((&checked[0]["AccountStatus"], &checked[1]["AccountStatus"]), (&json!("NotImported"), &json!("Imported")));
    let mut off = Caller::new(SandboxSettings { deleting: Deleting::SwitchedOff, ..settings() });
    assert_eq!(off.code(wire::ACCOUNT_DELETE, r#"{"DeleteItem":[{"UserID":"a"}]}"#), 71000);
}

#[test]
fn profiles_are_read_and_set() {
    let mut caller = Caller::new(settings());
    caller.import("a");
    let set = |value: Value| json!({ "From_Account": "a", "ProfileItem": [{ "Tag": wire::TAG_IMAGE, "Value": value }] }).to_string();
    assert_eq!(caller.code(wire::PORTRAIT_SET, &set(json!("f"))), 0);
    assert_eq!(caller.code(wire::PORTRAIT_SET, &set(json!(7))), 40610);
    let unknown = r#"{"From_Account":"x","ProfileItem":[{"Tag":"Tag_Profile_IM_Nick","Value":"n"}]}"#;
    assert_eq!(caller.code(wire::PORTRAIT_SET, unknown), 40003);
    let get = json!({ "To_Account": ["a", "x"], "TagList": [wire::TAG_NICK, wire::TAG_IMAGE] }).to_string();
    let items = caller.call(wire::PORTRAIT_GET, &get)["UserProfileItem"].clone();
    assert_eq!(items[0]["ProfileItem"], json!([{ "Tag": wire::TAG_NICK, "Value": "n" }, { "Tag": wire::TAG_IMAGE, "Value": "f" }]));
    assert_eq!((&items[1]["To_Account"], &items[1]["ResultCode"]), (&json!("@TLS#NOT_FOUND"), &json!(40003)));
    let status = caller.call(wire::QUERY_ONLINE_STATUS, r#"{"To_Account":["a","x"]}"#);
    assert_eq!(status["QueryResult"], json!([{ "To_Account": "a", "Status": "Offline" }]));
    assert_eq!(status["ErrorList"], json!([{ "To_Account": "x", "ErrorCode": 70107 }]));
}

fn set(tag: &str, value: &Value) -> String {
    json!({ "From_Account": "a", "ProfileItem": [{ "Tag": tag, "Value": value }] }).to_string()
}

#[test]
fn a_field_of_a_profile_takes_what_the_documentation_says() {
    let custom_fields = CustomFields::These(vec!["Vip".to_owned()]);
    let mut caller = Caller::new(SandboxSettings { custom_fields, ..settings() });
    caller.import("a");
    let mut check = |tag: &str, value: Value, expected: i64| {
        assert_eq!(caller.code(wire::PORTRAIT_SET, &set(tag, &value)), expected, "{tag} {value}");
    };
    check("Tag_Profile_IM_Gender", json!("Gender_Type_Male"), 0);
    check("Tag_Profile_IM_Gender", json!("male"), 40605);
    check("Tag_Profile_IM_Gender", json!(1), 40610);
    check("Tag_Profile_IM_AllowType", json!("AllowType_Type_DenyAny"), 0);
    check("Tag_Profile_IM_AllowType", json!("AllowType_Type_Any"), 40605);
    check("Tag_Profile_IM_AdminForbidType", json!("AdminForbid_Type_SendOut"), 0);
    for number in ["BirthDay", "Language", "MsgSettings", "Level", "Role"] {
        let tag = format!("Tag_Profile_IM_{number}");
        check(&tag, json!(u32::MAX), 0);
        check(&tag, json!("20190419"), 40610);
        check(&tag, json!(u64::from(u32::MAX) + 1), 40610);
        check(&tag, json!(-1), 40610);
        check(&tag, json!(1.5), 40610);
    }
    for text in ["Tag_Profile_IM_Location", "Tag_Profile_IM_SelfSignature", "Tag_Profile_Custom_Vip"] {
        check(text, json!("t".repeat(500)), 0);
        check(text, json!("t".repeat(501)), 40601);
        check(text, json!(7), 40610);
    }
    check("Tag_Profile_Custom_Other", json!("v"), 40009);
    check("Tag_Profile_Custom_", json!("v"), 40009);
    check("Tag_Profile_IM_Star", json!("v"), 40009);
    assert_eq!(caller.service.audit().violations, 0);
}

#[test]
fn fields_of_profiles_are_read_as_they_were_set_and_answers_carry_what_clients_show() {
    let mut caller = Caller::new(SandboxSettings { custom_fields: CustomFields::Any, ..settings() });
    caller.import("a");
    let items = json!([{ "Tag": "Tag_Profile_IM_Level", "Value": 7 }, { "Tag": "Tag_Profile_Custom_Vip", "Value": "v" }]);
    let done = caller.call(wire::PORTRAIT_SET, &json!({ "From_Account": "a", "ProfileItem": items }).to_string());
    assert_eq!(done, json!({ "ActionStatus": "OK", "ErrorCode": 0, "ErrorInfo": "", "ErrorDisplay": "" }));
    let tags = ["Tag_Profile_Custom_Vip", "Tag_Profile_IM_Gender", "Tag_Profile_IM_Level"];
    let found = caller.call(wire::PORTRAIT_GET, &json!({ "To_Account": ["a", "x"], "TagList": tags }).to_string());
    assert_eq!(found["UserProfileItem"][0]["ProfileItem"], json!([items[1], items[0]]));
    assert_eq!((&found["Fail_Account"], &found["ErrorDisplay"]), (&json!(["x"]), &json!("")));
    let refused = caller.call(wire::PORTRAIT_SET, &set("Tag_Profile_IM_Level", &json!("7")));
    assert_eq!((&refused["ErrorCode"], &refused["ErrorDisplay"]), (&json!(40610), &json!("")));
    caller.code(wire::PORTRAIT_SET, &set("Tag_Profile_Custom_Vip", &json!("")));
    let account = caller.service.account("a").unwrap();
    assert_eq!(account.tags.iter().map(|(tag, value)| (&**tag, value)).collect::<Vec<_>>(), [("Tag_Profile_IM_Level", &json!(7))]);
}

#[test]
fn a_kick_invalidates_earlier_signatures() {
    let mut caller = Caller::new(settings());
    assert_eq!(caller.code(wire::KICK, r#"{"UserID":"nobody"}"#), 70107);
    caller.now.unix_s += 1;
    assert_eq!(caller.code(wire::KICK, r#"{"UserID":"administrator"}"#), 0);
    assert_eq!(caller.import("a"), 70052);
}

#[test]
fn requests_beyond_the_limit_are_refused_and_the_audit_has_the_pace() {
    let mut caller = Caller::new(SandboxSettings { limit_per_s: std::num::NonZeroU32::new(3), arrivals_kept: 2, ..settings() });
    let codes: Vec<i64> = [0, 1, 2, 3, 999, 1_000]
        .into_iter()
        .map(|ms| {
            caller.now.since_start = Duration::from_millis(ms);
            caller.import(&format!("u{ms}"))
        })
        .collect();
    assert_eq!(codes, [0, 0, 0, 60007, 60007, 0]);
    let audit = caller.service.audit();
    let imports = audit.of(Command::AccountImport);
    assert_eq!((imports.calls, imports.over_limit, imports.max_calls_in_1s, imports.arrivals.len()), (6, 2, 5, 2));
    assert!((imports.mean_calls_per_s - 5.0).abs() < 1e-9);
    assert_eq!(audit.repeated_randoms, 5, "these tests always send random=7");
}

#[test]
fn without_a_limit_nothing_is_refused() {
    let mut caller = Caller::new(SandboxSettings { limit_per_s: None, keep: Keep::Nothing, ..settings() });
    assert!((0..1_000).all(|number| caller.import(&format!("u{number}")) == 0));
    let audit = caller.service.audit();
    assert_eq!((audit.imports, audit.accounts), (1_000, 0));
}

#[test]
fn overlapping_imports_of_one_user_are_counted() {
    let mut caller = Caller::new(settings());
    let import = target(wire::ACCOUNT_IMPORT);
    let request = ServiceRequest { method: "POST", target: &import, body: br#"{"UserID":"u"}"# };
    let first = caller.service.handle(caller.now, request);
    let second = caller.service.handle(caller.now, request);
    caller.service.finish(&first);
    caller.service.finish(&second);
    caller.import("u");
    let audit = caller.service.audit();
    assert_eq!((audit.overlaps, audit.in_flight, audit.max_in_flight), (1, 0, 2));
}

#[test]
fn a_malformed_url_is_a_violation_without_the_signature_in_its_text() {
    let mut caller = Caller::new(settings());
    let twice = format!("{}&usersig=SECRET", target(wire::ACCOUNT_IMPORT));
    let reaction = caller.service.handle(caller.now, ServiceRequest { method: "POST", target: &twice, body: br#"{"UserID":"u"}"# });
    assert!(matches!(&reaction.act, Act::Answer(reply) if String::from_utf8_lossy(&reply.body).contains("60002")));
    let audit = caller.service.audit();
    assert_eq!((audit.violations, audit.accounts), (1, 0));
    assert!(!serde_json::to_string(&audit).unwrap().contains("SECRET"));
}

#[test]
fn each_fault_does_what_its_name_says() {
    let check = |fault: &str, expected: &dyn Fn(&Reaction) -> bool, accounts: usize| {
        let mut caller = Caller::with_faults(&[fault]);
        let reaction = caller.react(wire::ACCOUNT_IMPORT, r#"{"UserID":"u"}"#);
        assert!(expected(&reaction), "{fault}: {:?}", reaction.act);
        assert_eq!((caller.service.audit().accounts, caller.service.audit().faults), (accounts, vec![1]), "{fault}");
    };
    let body = |reaction: &Reaction| match &reaction.act {
        Act::Answer(reply) => (reply.status, String::from_utf8_lossy(&reply.body).into_owned()),
        Act::Drip(..) | Act::Reset | Act::Stall => (0, String::new()),
    };
    check("code=70169", &|reaction| body(reaction).1.contains("70169"), 0);
    check("http=502", &|reaction| body(reaction).0 == 502, 0);
    check("html", &|reaction| body(reaction).1.contains("<html>") && body(reaction).0 == 200, 0);
    check("empty", &|reaction| body(reaction) == (200, String::new()), 0);
    check("bigbody", &|reaction| body(reaction).1.len() > 1_000_000, 0);
    check("redirect=http://x/", &|reaction| matches!(&reaction.act, Act::Answer(reply) if reply.location.is_some()), 0);
    check("reset=before", &|reaction| reaction.act == Act::Reset, 0);
    check("reset=after", &|reaction| reaction.act == Act::Reset, 1);
    check("stall", &|reaction| reaction.act == Act::Stall, 0);
    check("slow=2s", &|reaction| reaction.delay == Duration::from_secs(2), 1);
    check("drip=2s", &|reaction| matches!(&reaction.act, Act::Drip(_, time) if time.as_secs() == 2), 1);
}

#[test]
fn a_fault_affects_single_users_of_a_batch() {
    let mut caller = Caller::with_faults(&["code=70169,id=b,times=1"]);
    let body = r#"{"Accounts":["a","b"]}"#;
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, body)["FailAccounts"], json!(["b"]));
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, body).get("FailAccounts"), None);
}

#[test]
fn the_latency_varies_within_its_jitter() {
    let ms = Duration::from_millis;
    let mut caller = Caller::new(SandboxSettings { latency: ms(50), jitter: ms(20), limit_per_s: None, ..settings() });
    let delays: Vec<Duration> = (0..500).map(|_| caller.react(wire::ACCOUNT_IMPORT, r#"{"UserID":"u"}"#).delay).collect();
    let (least, most) = (delays.iter().min().unwrap(), delays.iter().max().unwrap());
    assert!(*least >= ms(30) && *least < ms(35) && *most <= ms(70) && *most > ms(65), "{least:?} {most:?}");
}

/// A client for a running sandbox.
fn client(sandbox: &Sandbox, timeout: Duration) -> (HttpApi, Signature) {
    let settings = HttpSettings {
        endpoint: sandbox.endpoint().parse().unwrap(),
        sdkappid: SDKAPPID,
        identifier: IDENTIFIER.to_owned(),
        timeout,
        connections: 8,
        ca_pem: None,
        proxy: None,
    };
    let mut signer = Signer::new(Credential::Key(KEY.into()), SDKAPPID, IDENTIFIER, tokio::time::Instant::now(), SystemTime::now());
    let signature = signer.current(tokio::time::Instant::now(), SystemTime::now());
    (HttpApi::new(&settings).unwrap(), signature)
}

async fn import(client: &(HttpApi, Signature), id: &str) -> CallOutcome {
    let row = Row::parse(id.as_bytes(), "好".as_bytes(), b"").unwrap();
    client.0.call(api::Request::AccountImport(&row), ConnectionWish::Any, &client.1, || Departure::Leaves).await.unwrap()
}

#[tokio::test]
async fn the_client_imports_over_http() {
    let sandbox = Sandbox::start(settings()).unwrap();
    let client = client(&sandbox, Duration::from_secs(5));
    for id in ["a", "b", "a"] {
        assert_eq!(import(&client, id).await, CallOutcome::Done(Answer::Nothing));
    }
    let ids: Vec<(String, u32)> = sandbox.accounts().into_iter().map(|(id, account)| (id, account.imports)).collect();
    assert_eq!(ids, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert_eq!(sandbox.account("a").unwrap().nick.as_deref(), Some("好"));
    let audit = sandbox.audit();
    assert_eq!((audit.violations, &audit.first_violations, audit.repeated_randoms), (0, &vec![], 0));
    assert_eq!((audit.of(Command::AccountImport).calls, audit.in_flight, audit.max_in_flight), (3, 0, 1));
}

#[tokio::test]
async fn faults_reach_the_client() {
    let check = async |fault: &str, expected: fn(&CallOutcome) -> bool, accounts: usize| {
        let sandbox = Sandbox::start(SandboxSettings { faults: vec![fault.parse().unwrap()], ..settings() }).unwrap();
        let end = import(&client(&sandbox, Duration::from_millis(500)), "u").await;
        assert!(expected(&end), "{fault}: {end:?}");
        assert_eq!(sandbox.audit().accounts, accounts, "{fault}");
    };
    let lost: fn(&CallOutcome) -> bool = |end| matches!(end, CallOutcome::Lost { .. });
    check("code=40006", |end| matches!(end, CallOutcome::Refused { code: 40006, .. }), 0).await;
    check("http=502", lost, 0).await;
    check("http=429", |end| *end == CallOutcome::TooMany, 0).await;
    check("html", lost, 0).await;
    check("empty", lost, 0).await;
    check("bigbody", lost, 0).await;
    check("stall", lost, 0).await;
    check("reset=before", |end| matches!(end, CallOutcome::Lost { why } if why.contains("reset")), 0).await;
    check("reset=after", |end| matches!(end, CallOutcome::Lost { why } if why.contains("reset")), 1).await;
    check("drip=100ms", |end| matches!(end, CallOutcome::Done(_)), 1).await;
    check("drip=5s", lost, 1).await;
    check("redirect=http://127.0.0.1:1/", |end| *end == CallOutcome::Redirected { status: 307 }, 0).await;
}

#[tokio::test]
async fn a_request_that_its_client_drops_is_no_longer_in_flight() {
    let sandbox = Sandbox::start(SandboxSettings { faults: vec!["stall,count=1".parse().unwrap()], ..settings() }).unwrap();
    let client = client(&sandbox, Duration::from_millis(200));
    import(&client, "u").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    import(&client, "u").await;
    let audit = sandbox.audit();
    assert_eq!((audit.overlaps, audit.in_flight, audit.max_in_flight), (0, 0, 1));
}

#[tokio::test]
async fn the_server_serves_its_own_pages() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = Sandbox::start(settings()).unwrap();
    import(&client(&sandbox, Duration::from_secs(5)), "u").await;
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
        let host = sandbox.address();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let audit: Value = serde_json::from_str(&get("/audit").await).unwrap();
    assert_eq!((&audit["calls"], &audit["apis"]["account_import"]["max_calls_in_1s"]), (&json!(1), &json!(1)));
    assert_eq!(get("/accounts").await, "{\"FaceUrl\":null,\"Nick\":\"好\",\"UserID\":\"u\",\"imports\":1}\n");
    assert_eq!(get("/accounts.csv").await, "UserID,Nick,FaceUrl\nu,好,\n");
    let contents = get("/").await;
    assert!(Command::ALL.iter().all(|command| contents.contains(&format!("POST /v4/{}\n", command.spec().path))), "{contents}");
    assert!(contents.contains("GET /accounts.csv"), "{contents}");
    drop(sandbox);
}

#[test]
fn the_examples_of_the_documentation_are_played() {
    let mut caller = Caller::new(SandboxSettings { online: vec![("id1".to_owned(), PresenceField::PushOnline)], ..settings() });
    let list = |nicks: &[(&str, &str)]| {
        nicks.iter().map(|(id, nick)| json!({ "UserID": id, "Nick": nick, "FaceUrl": "http://www.qq.com" })).collect::<Vec<_>>()
    };
    let batch = json!({ "AccountList": list(&[("id1", "first"), ("id2", "n"), ("id1", "last")]) });
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, &batch.to_string())["ErrorCode"], 0);
    assert_eq!(caller.service.account("id1").unwrap().nick.as_deref(), Some("last"), "they are taken in their order");
    let status = caller.call(wire::QUERY_ONLINE_STATUS, r#"{"IsNeedDetail":1,"To_Account":["id1","id2"]}"#);
    let detail = json!([{ "Platform": "iPhone", "Status": "PushOnline" }]);
    let expected = json!([
        { "To_Account": "id1", "Status": "PushOnline", "Detail": detail },
        { "To_Account": "id2", "Status": "Offline" },
    ]);
    assert_eq!(status["QueryResult"], expected);
    let unknown = caller.call("openim/sendmsg", "{}");
    assert_eq!(unknown["ErrorCode"], 60009);
    assert!(unknown["ErrorInfo"].as_str().unwrap().contains("profile/portrait_set"), "{unknown}");
}

#[tokio::test]
async fn a_request_that_does_not_arrive_is_given_up() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = Sandbox::start(SandboxSettings { request_max: Duration::from_millis(100), ..settings() }).unwrap();
    let host = sandbox.address();
    let answer = async |sent: String| {
        let mut stream = tokio::net::TcpStream::connect(host).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer).unwrap_or_default()
    };
    let head = format!("POST {} HTTP/1.1\r\nHost: {host}\r\n", target(wire::ACCOUNT_IMPORT));
    answer(head.clone()).await;
    let body = answer(format!("{head}Content-Length: 100\r\n\r\n{{")).await;
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert_eq!(sandbox.audit().in_flight, 0);
}

#[test]
fn a_batch_can_lose_its_profiles_or_be_refused_as_a_whole() {
    let batch = r#"{"AccountList":[{"UserID":"a","Nick":"Ada"},{"UserID":"b"}]}"#;
    let mut caller = Caller::new(SandboxSettings { batch_profiles: BatchProfiles::Dropped, ..settings() });
    assert_eq!(caller.call(wire::MULTIACCOUNT_IMPORT, batch)["ErrorCode"], 0);
    assert_eq!(caller.service.account("a").unwrap().nick, None);
    let mut caller = Caller::with_faults(&["whole=40001,id=b,api=multiaccount_import"]);
    assert_eq!(caller.code(wire::MULTIACCOUNT_IMPORT, batch), 40001);
    assert_eq!(caller.service.account("a"), None);
    assert_eq!(caller.code(wire::ACCOUNT_IMPORT, r#"{"UserID":"b"}"#), 0);
}

#[tokio::test]
async fn a_request_counts_from_its_first_byte() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let sandbox = Sandbox::start(SandboxSettings { arrivals_kept: 10, ..settings() }).unwrap();
    let mut stream = tokio::net::TcpStream::connect(sandbox.address()).await.unwrap();
    let (target, host, pause) = (target(wire::ACCOUNT_IMPORT), sandbox.address(), Duration::from_millis(400));
    let head = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n");
    // The body of the first one and the head of the second one arrive slowly.
    let mut begun = Vec::new();
    for pieces in [[&head[..], "{", "}"], [&head[..30], &head[30..], "{}"]] {
        begun.push(tokio::time::Instant::now());
        for piece in pieces {
            stream.write_all(piece.as_bytes()).await.unwrap();
            if piece != "}" && piece != "{}" {
                tokio::time::sleep(pause / 2).await;
            }
        }
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
    }
    let arrivals = sandbox.audit().of(Command::AccountImport).arrivals.clone();
    let (counted, real) = (arrivals[1].checked_sub(arrivals[0]).unwrap(), begun[1] - begun[0]);
    assert!(counted.abs_diff(real) < pause / 4, "{counted:?} apart, really {real:?}");
}

/// The sandbox is kept from reading by a lock that the test holds, as by a machine that does something else.
#[test]
fn a_busy_sandbox_counts_when_requests_came() {
    use std::io::{Read, Write};
    let sandbox = Sandbox::start(SandboxSettings { arrivals_kept: 10, ..settings() }).unwrap();
    let mut streams = [0, 1, 2].map(|_| std::net::TcpStream::connect(sandbox.address()).unwrap());
    let (target, host, apart) = (target(wire::ACCOUNT_IMPORT), sandbox.address(), Duration::from_millis(150));
    let request = format!("POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 2\r\n\r\n{{}}");
    let lock = locked(&sandbox.service);
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).unwrap();
        let next = std::time::Instant::now() + apart;
        while std::time::Instant::now() < next {
            std::thread::park_timeout(next.saturating_duration_since(std::time::Instant::now()));
        }
    }
    drop(lock);
    for stream in &mut streams {
        assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
    }
    let arrivals = sandbox.audit().of(Command::AccountImport).arrivals.clone();
    for pair in arrivals.windows(2) {
        let seen = pair[1].checked_sub(pair[0]).unwrap();
        assert!(seen >= apart.mul_f64(0.9), "they came {apart:?} apart: {arrivals:?}");
    }
}
