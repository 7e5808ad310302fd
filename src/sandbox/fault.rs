//! Faults on request: the kind of failure, the requests that it affects, how often; and the syntax of `--fault`.

use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::command;
use crate::io::api::wire::Command;

/// A fault. If several apply to a request, the first one in the settings is injected.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub what: What,
    /// The command that it affects; `None` = all commands.
    pub api: Option<Command>,
    pub ids: Ids,
    /// This many matching requests pass before the first one fails.
    pub after: u64,
    /// Of the matching requests every n-th one fails; 1 = all.
    pub every: u64,
    /// The time since the sandbox's start in which it is active.
    pub period: Option<Range<Duration>>,
    /// How often it affects each UserID.
    pub times: Option<u32>,
    /// How often it is injected in total.
    pub count: Option<u64>,
}

/// The kind of failure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// The service answers with this code in its documented JSON and does nothing. In a batch only the chosen UserIDs fail; in another
    /// request with one result per user, only the UserIDs that the fault names.
    Code(i64),
    /// Like [`What::Code`], but a batch is refused as a whole.
    Whole(i64),
    /// An HTTP status other than 200, with a gateway's error page.
    Http(u16),
    /// A web page with status 200, like that of a captive portal.
    Html,
    /// Status 200 without a body.
    Empty,
    /// The connection is reset before the request takes effect.
    ResetBefore,
    /// The connection is reset after the request took effect.
    ResetAfter,
    /// The request is never answered and has no effect.
    Stall,
    /// The right answer comes this much later.
    Slow(Duration),
    /// The bytes of the right answer are spread over this time.
    Drip(Duration),
    /// A body of several megabytes, larger than a client should accept.
    BigBody,
    /// A redirect with status 307 to this URL.
    Redirect(String),
}

/// The users that a fault affects.
#[derive(Debug, Clone, PartialEq)]
pub enum Ids {
    All,
    /// This share of the users (0 to 1), chosen by a hash of the UserID, so always the same ones.
    Share(f64),
    Exact(String),
}

impl Fault {
    /// A fault that affects every request.
    #[must_use]
    pub const fn always(what: What) -> Self {
        Self { what, api: None, ids: Ids::All, after: 0, every: 1, period: None, times: None, count: None }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), FaultError> {
        match key {
            "api" => self.api = Some(command(value)?),
            "ids" => self.ids = Ids::Share(share(value).ok_or_else(|| wrong(key, value, "a share such as 10%"))?),
            "id" => self.ids = Ids::Exact(value.to_owned()),
            "after" => self.after = number(key, value)?,
            "every" => self.every = positive(key, value)?,
            "period" => self.period = Some(period(value)?),
            "times" => self.times = Some(positive(key, value)?),
            "count" => self.count = Some(positive(key, value)?),
            _ => return Err(FaultError::UnknownKey(key.to_owned())),
        }
        Ok(())
    }
}

/// Reads `WHAT[,KEY=VALUE]…`. WHAT is one of `code=N`, `whole=N`, `http=STATUS`, `html`, `empty`, `reset=before`, `reset=after`, `stall`, `slow=DURATION`,
/// `drip=DURATION`, `bigbody`, `redirect=URL`; the keys are `api`, `ids=10%`, `id`, `after`, `every`, `period=60s..120s`, `times`, `count`.
impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let mut what = None;
        let mut keys: Vec<(&str, &str)> = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match what_of(key, value)? {
                Some(_) if what.is_some() => return Err(FaultError::TwoFaults(text.to_owned())),
                Some(found) => what = Some(found),
                None if keys.iter().any(|&(known, _)| known == key) => return Err(FaultError::Twice(key.to_owned())),
                None => keys.push((key, value)),
            }
        }
        if keys.iter().any(|&(key, _)| key == "id") && keys.iter().any(|&(key, _)| key == "ids") {
            return Err(FaultError::IdAndIds);
        }
        let mut fault = Fault::always(what.ok_or_else(|| FaultError::NoFault(text.to_owned()))?);
        for (key, value) in keys {
            fault.set(key, value)?;
        }
        Ok(fault)
    }
}

/// The fault that this part of the text names; `None` if the part is one of the other keys.
fn what_of(key: &str, value: &str) -> Result<Option<What>, FaultError> {
    let bare = |what: What| if value.is_empty() { Ok(Some(what)) } else { Err(wrong(key, value, "nothing after it")) };
    match key {
        "html" => bare(What::Html),
        "empty" => bare(What::Empty),
        "stall" => bare(What::Stall),
        "bigbody" => bare(What::BigBody),
        "code" => number(key, value).map(|code: i64| Some(What::Code(code))),
        "whole" => number(key, value).map(|code: i64| Some(What::Whole(code))),
        "http" => match value.parse() {
            Ok(status @ 200..=599) => Ok(Some(What::Http(status))),
            Ok(_) | Err(_) => Err(wrong(key, value, "an HTTP status from 200 to 599")),
        },
        "reset" => match value {
            "before" => Ok(Some(What::ResetBefore)),
            "after" => Ok(Some(What::ResetAfter)),
            _ => Err(wrong(key, value, "before or after (the effect)")),
        },
        "slow" => duration(key, value).map(|time| Some(What::Slow(time))),
        "drip" => duration(key, value).map(|time| Some(What::Drip(time))),
        "redirect" if value.is_empty() || value.contains(|letter: char| !letter.is_ascii_graphic()) => Err(wrong(key, value, "a URL")),
        "redirect" => Ok(Some(What::Redirect(value.to_owned()))),
        _ => Ok(None),
    }
}

/// Why a text is not a valid fault.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FaultError {
    #[error(
        "{0:?} names no fault. Use one of code=N, whole=N, http=STATUS, html, empty, reset=before|after, stall, slow=TIME, drip=TIME, bigbody or redirect=URL"
    )]
    NoFault(String),
    #[error("{0:?} contains two faults; use one --fault for each")]
    TwoFaults(String),
    #[error("unknown key {0:?}; the keys are api, ids, id, after, every, period, times and count")]
    UnknownKey(String),
    #[error("{0:?} is given twice")]
    Twice(String),
    #[error("id and ids cannot be combined")]
    IdAndIds,
    #[error("{key}={value:?} must be {expected}")]
    Value { key: String, value: String, expected: &'static str },
}

fn wrong(key: &str, value: &str, expected: &'static str) -> FaultError {
    FaultError::Value { key: key.to_owned(), value: value.to_owned(), expected }
}

fn command(value: &str) -> Result<Command, FaultError> {
    command::by_name(value).ok_or_else(|| wrong("api", value, "the name of a command, e.g. account_import"))
}

fn number<T: FromStr>(key: &str, value: &str) -> Result<T, FaultError> {
    value.parse().map_err(|_| wrong(key, value, "a number"))
}

fn positive<T: FromStr + Default + PartialEq>(key: &str, value: &str) -> Result<T, FaultError> {
    match value.parse() {
        Ok(number) if number != T::default() => Ok(number),
        Ok(_) | Err(_) => Err(wrong(key, value, "a number from 1")),
    }
}

fn duration(key: &str, value: &str) -> Result<Duration, FaultError> {
    humantime::parse_duration(value).map_err(|_| wrong(key, value, "a time such as 500ms or 2s"))
}

fn share(value: &str) -> Option<f64> {
    let percent: f64 = value.strip_suffix('%')?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}

fn period(value: &str) -> Result<Range<Duration>, FaultError> {
    let expected = "a period such as 60s..120s";
    let (from, to) = value.split_once("..").ok_or_else(|| wrong("period", value, expected))?;
    match (humantime::parse_duration(from), humantime::parse_duration(to)) {
        (Ok(from), Ok(to)) if from < to => Ok(from..to),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Err(wrong("period", value, expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_text() {
        let check = |text: &str, expected: Fault| assert_eq!(text.parse::<Fault>(), Ok(expected), "{text}");
        let always = Fault::always;
        check("code=70169,ids=10%,times=2", Fault { ids: Ids::Share(0.1), times: Some(2), ..always(What::Code(70169)) });
        let minute = Duration::from_secs(60);
        check("http=502,period=60s..120s", Fault { period: Some(minute..minute * 2), ..always(What::Http(502)) });
        check("reset=after,ids=1%,times=1", Fault { ids: Ids::Share(0.01), times: Some(1), ..always(What::ResetAfter) });
        check("after=10,reset=before", Fault { after: 10, ..always(What::ResetBefore) });
        check("id=a=b,stall", Fault { ids: Ids::Exact("a=b".to_owned()), ..always(What::Stall) });
        check("slow=1s,every=3,count=5", Fault { every: 3, count: Some(5), ..always(What::Slow(Duration::from_secs(1))) });
        check("drip=200ms", always(What::Drip(Duration::from_millis(200))));
        check("html,api=account_check", Fault { api: Some(Command::AccountCheck), ..always(What::Html) });
        check("whole=40001,api=multiaccount_import", Fault { api: Some(Command::MultiaccountImport), ..always(What::Whole(40001)) });
        check("empty", always(What::Empty));
        check("bigbody", always(What::BigBody));
        check("redirect=http://127.0.0.1:1/x?y=1", always(What::Redirect("http://127.0.0.1:1/x?y=1".to_owned())));
    }

    #[test]
    fn an_invalid_fault_is_explained() {
        let check = |text: &str, expected: &str| {
            let told = text.parse::<Fault>().unwrap_err().to_string();
            assert!(told.contains(expected), "{text}: {told}");
        };
        check("", "names no fault");
        check("ids=10%", "names no fault");
        check("code=1,http=502", "two faults");
        check("code=x", r#"code="x" must be a number"#);
        check("code=", "must be a number");
        check("http=99", "an HTTP status");
        check("reset", "before or after");
        check("stall=1s", "nothing after it");
        check("html,ids=10", "a share such as 10%");
        check("html,ids=101%", "a share such as 10%");
        check("html,every=0", "a number from 1");
        check("html,period=2s..1s", "a period such as");
        check("html,period=2s", "a period such as");
        check("html,api=import", "the name of a command");
        check("html,times=1,times=2", "given twice");
        check("html,id=u,ids=1%", "cannot be combined");
        check("redirect=", "a URL");
        check("html,more=1", r#"unknown key "more""#);
    }
}
