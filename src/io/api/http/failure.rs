//! What a failed request says: whether it was sent, and why it failed, in words that never contain the URL.

use std::error::Error as StdError;
use std::io;

use rustls::InvalidMessage;

use super::announced_body::CarriedBy;
use crate::domain::verdict::{CallOutcome, CertificateFlaw};
use crate::io::api::proxy::ProxyError;
use crate::io::api::tls;

/// How a request ended for which no answer was read.
pub(super) fn failed(error: &reqwest::Error, carried: CarriedBy) -> CallOutcome {
    if let Some((why, flaw)) = untrusted(error) {
        return CallOutcome::Untrusted { why, flaw };
    }
    if let Some(status) = refused_by_proxy(error) {
        return CallOutcome::ProxyRefused { status };
    }
    let why = match error {
        _ if error.is_timeout() => "no answer in time".to_owned(),
        _ if is_no_tls(error) => "the server does not speak TLS at this port: is it an http:// address?".to_owned(),
        _ => innermost(error),
    };
    match carried {
        CarriedBy::Not | CarriedBy::Void => CallOutcome::Unreached { why },
        CarriedBy::First | CarriedBy::Again => CallOutcome::Lost { why },
    }
}

/// The text of the innermost error. It names the cause; the outer ones contain the URL.
fn innermost(error: &dyn StdError) -> String {
    let mut cause = error.source();
    let mut words = "the request failed".to_owned();
    while let Some(inner) = cause {
        words = inner.to_string();
        cause = inner.source();
    }
    words
}

/// An error and its causes. An `io::Error` hides its inner error from `source`, and they may be nested.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |inner: &&'a (dyn StdError + 'static)| {
        let inner: &'a (dyn StdError + 'static) = *inner;
        let hidden = inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        hidden.map(|hidden| hidden as &(dyn StdError + 'static)).or_else(|| inner.source())
    })
}

/// Why the certificate is not trusted; `None` if the error has another cause.
fn untrusted(error: &reqwest::Error) -> Option<(String, CertificateFlaw)> {
    causes(error).find_map(|inner| match inner.downcast_ref() {
        Some(rustls::Error::InvalidCertificate(why)) => Some((tls::words(why), tls::flaw(why))),
        Some(_) | None => None,
    })
}

/// Whether what came during the handshake is nothing of TLS.
fn is_no_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|inner| matches!(inner.downcast_ref(), Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType))))
}

/// The proxy's status if it refuses this client for good: it wants a password, or does not allow connections to the service.
fn refused_by_proxy(error: &reqwest::Error) -> Option<u16> {
    causes(error).find_map(|inner| match inner.downcast_ref() {
        Some(ProxyError::Refused { status: status @ (403 | 407), .. }) => Some(*status),
        Some(_) | None => None,
    })
}

/// Whether the connection was closed or reset before the head of an answer was received. hyper does not tell whether a part of it was.
pub(super) fn is_closed_by_server(error: &reqwest::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let is_broken =
        |error: &io::Error| matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof);
    !error.is_timeout()
        && causes(error).any(|inner| {
            inner.downcast_ref().is_some_and(hyper::Error::is_incomplete_message) || inner.downcast_ref().is_some_and(is_broken)
        })
}
