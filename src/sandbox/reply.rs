//! What goes back to the client: answers of the service, refusals, and the ways to give no answer.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

/// What the shell is to do with a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Time from the call's arrival to the act.
    pub delay: Duration,
    pub act: Act,
    /// What [`super::Service::finish`] is to be given when the call is over.
    pub(super) in_flight: Vec<u64>,
}

/// How a call ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Answer(Reply),
    /// The answer comes in pieces, the whole taking this long.
    Drip(Reply, Duration),
    /// The connection is reset without an answer.
    Reset,
    /// No answer ever comes; the connection stays open.
    Stall,
}

/// An HTTP response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub content_type: &'static str,
    /// The Location header of a redirect.
    pub location: Option<String>,
    pub body: Bytes,
}

impl Reply {
    /// The service's success without further fields.
    pub(super) fn ok() -> Self {
        Self::json(Bytes::from_static(br#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}"#))
    }

    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type: "application/json", location: None, body: body.into() }
    }

    pub(super) fn html(status: u16, body: &'static str) -> Self {
        Self { status, content_type: "text/html", location: None, body: Bytes::from_static(body.as_bytes()) }
    }

    /// A success with the fields of `extra` besides the common three.
    pub(super) fn with(mut extra: serde_json::Map<String, serde_json::Value>) -> Self {
        extra.insert("ActionStatus".to_owned(), "OK".into());
        extra.insert("ErrorInfo".to_owned(), "".into());
        extra.insert("ErrorCode".to_owned(), 0.into());
        Self::json(serde_json::Value::Object(extra).to_string())
    }

    pub(super) fn refused(refusal: &RequestRefusal) -> Self {
        let body = serde_json::json!({ "ActionStatus": "FAIL", "ErrorInfo": refusal.info, "ErrorCode": refusal.code });
        Self::json(body.to_string())
    }
}

/// Why the service does not do as it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestRefusal {
    pub(super) code: i64,
    pub(super) info: Cow<'static, str>,
    pub(super) blame: Blame,
}

/// Whether a call is wrong by its form, which no client should ever send, or by what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// Against the protocol; the audit counts it as a violation.
    Form,
    /// Against a rule, a limit or a right.
    Content,
}

impl RequestRefusal {
    pub(super) fn form(code: i64, info: impl Into<Cow<'static, str>>) -> Self {
        Self { code, info: info.into(), blame: Blame::Form }
    }

    pub(super) fn content(code: i64, info: impl Into<Cow<'static, str>>) -> Self {
        Self { code, info: info.into(), blame: Blame::Content }
    }
}
