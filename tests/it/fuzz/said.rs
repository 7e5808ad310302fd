//! Answers that are written in every way that JSON allows, each with what it means.

use chatlift::domain::answer::{Answer, Presence};
use chatlift::domain::command::Command;
use chatlift::domain::verdict::CallOutcome;
use chatlift::io::api::answer;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// An answer with what it means.
#[derive(Debug, Clone)]
pub(super) struct Said {
    body: Vec<u8>,
    is_ok: bool,
    code: i64,
    failed: Vec<String>,
    /// Users with what is said of them, if it can be read.
    presences: Vec<(String, Option<Presence>)>,
}

impl Said {
    pub(super) fn is_read_as_it_was_meant(&self) {
        let shown = self.body.escape_ascii();
        for command in Command::ALL {
            match answer::read(command, &self.body) {
                CallOutcome::Refused { code, .. } => assert!(code == self.code && !(self.is_ok && code == 0), "{shown}"),
                CallOutcome::Done(found) => {
                    assert!(self.is_ok && self.code == 0, "{shown}");
                    self.is_what_was_meant(found);
                }
                other => panic!("{shown}: {other:?}"),
            }
        }
    }

    fn is_what_was_meant(&self, found: Answer) {
        match found {
            Answer::FailAccounts(ids) => assert_eq!(ids.iter().map(AsRef::as_ref).collect::<Vec<&str>>(), self.failed),
            Answer::Presences(items) => {
                let found: Vec<_> = items.into_iter().map(|item| (item.user_id.into_string(), item.said.ok())).collect();
                assert_eq!(found, self.presences);
            }
            Answer::Nothing => {}
            Answer::Profiles(items) => assert_eq!(items, []),
            Answer::Statuses(items) => assert_eq!(items, []),
            Answer::Results(items) => assert_eq!(items, []),
        }
    }
}

/// Any JSON, as it is written.
fn junk() -> impl Strategy<Value = String> {
    const LEAVES: &[&str] =
        &["null", "true", "0", "-0", "1e999", "3.5", "\"\"", "\"\\ud800\"", "\"a\\\"b\"", "\"中\"", "[]", "{}", " [ ] "];
    select(LEAVES).prop_map(str::to_owned).boxed().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec(inner, 0..4)
                .prop_map(|items| format!("{{{}}}", items.iter().map(|item| format!("\"k\":{item}")).collect::<Vec<_>>().join(","))),
        ]
    })
}

/// What the words of an answer may be.
fn info() -> impl Strategy<Value = Option<Vec<u8>>> {
    // Of GBK, two of them with the byte of a backslash or a quote's neighbour, of nothing, and escapes.
    const WORDS: &[&[u8]] = &[b"\xb2\xce", b"\xd5\x5c", b"\xff", b"\xe4\xb8", b"x", b"\\n", b"\\ud800"];
    let text = prop_oneof![
        "[a-z \u{4e00}-\u{4e10}]{0,8}".prop_map(String::into_bytes),
        vec(select(WORDS), 0..6).prop_map(|parts| parts.concat()),
    ];
    let text = text.prop_map(|text| [b"\"", &text[..], b"\""].concat());
    option::of(prop_oneof![3 => text, 1 => junk().prop_map(String::into_bytes)])
}

/// Users, and null among them, in a list of bare ids.
fn failed() -> impl Strategy<Value = (String, Vec<String>)> {
    vec(option::of("[a-z]{1,4}"), 0..4).prop_map(|ids| {
        let text: Vec<_> = ids.iter().map(|id| id.as_ref().map_or_else(|| "null".to_owned(), |id| format!("\"{id}\""))).collect();
        (format!("[{}]", text.join(",")), ids.into_iter().flatten().collect())
    })
}

type Presences = (String, Vec<(String, Option<Presence>)>);

fn presences() -> impl Strategy<Value = Presences> {
    let word = prop_oneof![
        3 => select(vec![("\"Online\"", Some(Presence::Online)), ("\"PushOnline\"", Some(Presence::PushOnline)), ("\"Offline\"", Some(Presence::Offline))])
            .prop_map(|(text, presence)| (text.to_owned(), presence)),
        1 => junk().prop_map(|text| (text, None)),
    ];
    let item = ("[a-z]{1,4}", select(&["Status", "State", "\\u0053tate"][..]), word, option::of(junk()));
    let item = item.prop_map(|(id, key, (word, presence), more)| {
        let more = more.map(|more| format!("\"Detail\":{more},")).unwrap_or_default();
        (format!("{{{more}\"{key}\":{word},\"To_Account\":\"{id}\"}}"), Some((id, presence)))
    });
    let stray = select(&["null", "7", "[]", "{}", "{\"Status\":\"Online\"}"][..]).prop_map(|text| (text.to_owned(), None));
    vec(prop_oneof![4 => item, 1 => stray], 0..4).prop_map(|items| {
        let (texts, said): (Vec<_>, Vec<_>) = items.into_iter().unzip();
        (format!("[{}]", texts.join(",")), said.into_iter().flatten().collect())
    })
}

pub(super) fn answers() -> impl Strategy<Value = Said> {
    let code = prop_oneof![3 => Just(0), 1 => -3_i64..100_000];
    let code_form = select(&["N", "N.0", "Ne0", "\"N\"", "\" N \"", "\"N.00\""][..]);
    let extra = vec(("[a-z]{0,3}|\\\\ud800|errorcode", junk()), 0..3);
    let envelope = (any::<bool>(), code, code_form, info(), extra);
    (envelope, failed(), presences(), select(&["", " ", "\n", " \r\n\t"][..]), any::<bool>()).prop_flat_map(
        |((is_ok, code, form, info, extra), (failed_text, failed), (presences_text, presences), space, has_mark)| {
            let mut fields: Vec<(String, Vec<u8>)> = vec![
                ("ActionStatus".to_owned(), if is_ok { b"\"OK\"".to_vec() } else { b"\"FAIL\"".to_vec() }),
                ("ErrorCode".to_owned(), form.replace('N', &code.to_string()).into_bytes()),
                ("FailAccounts".to_owned(), failed_text.into_bytes()),
                ("QueryResult".to_owned(), presences_text.into_bytes()),
            ];
            fields.extend(info.map(|info| ("ErrorInfo".to_owned(), info)));
            fields.extend(extra.into_iter().map(|(key, value)| (key, value.into_bytes())));
            Just(fields).prop_shuffle().prop_map(move |fields| {
                let mut body = if has_mark { b"\xef\xbb\xbf".to_vec() } else { Vec::new() };
                let mut before = format!("{space}{{{space}");
                for (key, value) in fields {
                    body.extend(format!("{before}\"{key}\"{space}:{space}").into_bytes());
                    body.extend(value);
                    before = format!("{space},{space}");
                }
                body.extend(format!("{space}}}{space}").into_bytes());
                Said { body, is_ok, code, failed: failed.clone(), presences: presences.clone() }
            })
        },
    )
}
