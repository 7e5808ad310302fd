//! Replies to the client: answers of the service, refusals, and the ways to send no answer.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;

/// The action of the HTTP server for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reaction {
    /// Time from the request's arrival to the act.
    pub delay: Duration,
    pub act: Act,
    /// Imported users (by hash); [`super::Service::finish`] needs them when the request is over.
    pub(super) in_flight: Vec<u64>,
}

/// How a request ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Answer(Reply),
    /// The answer is sent in pieces over this time.
    Drip(Reply, Duration),
    /// The connection is reset without an answer.
    Reset,
    /// No answer is sent; the connection stays open.
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
    /// A success without further fields.
    pub(super) fn ok() -> Self {
        Self::json(Bytes::from_static(br#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0}"#))
    }

    /// As [`Self::ok`], by the profile service.
    pub(super) fn ok_with_display() -> Self {
        Self::json(Bytes::from_static(br#"{"ActionStatus":"OK","ErrorInfo":"","ErrorCode":0,"ErrorDisplay":""}"#))
    }

    pub(super) fn json(body: impl Into<Bytes>) -> Self {
        Self { status: 200, content_type: "application/json", location: None, body: body.into() }
    }

    pub(super) fn html(status: u16, body: &'static str) -> Self {
        Self { status, content_type: "text/html", location: None, body: Bytes::from_static(body.as_bytes()) }
    }

    /// A success with the fields of `extra` and the three common ones.
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

    /// As [`Self::refused`], by the profile service.
    pub(super) fn refused_with_display(refusal: &RequestRefusal) -> Self {
        let RequestRefusal { code, info, .. } = refusal;
        let body = serde_json::json!({ "ActionStatus": "FAIL", "ErrorInfo": info, "ErrorCode": code, "ErrorDisplay": "" });
        Self::json(body.to_string())
    }
}

/// Why the service refuses a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestRefusal {
    pub(super) code: i64,
    pub(super) info: Cow<'static, str>,
    pub(super) kind: RefusalKind,
}

/// Whether a request breaks the protocol, which no client should ever do, or only its content is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// The request breaks the protocol; the audit counts a violation.
    Form,
    /// A rule, a limit or a permission forbids the content.
    Content,
}

impl RequestRefusal {
    pub(super) fn form(code: i64, info: impl Into<Cow<'static, str>>) -> Self {
        Self { code, info: info.into(), kind: RefusalKind::Form }
    }

    pub(super) fn content(code: i64, info: impl Into<Cow<'static, str>>) -> Self {
        Self { code, info: info.into(), kind: RefusalKind::Content }
    }
}
