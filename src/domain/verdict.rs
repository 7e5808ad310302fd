//! Classifies the end of a request: its meaning for the row, for the pace and for the run.
//!
//! One table has the service's codes, and one `match` reads it. This module says what a code means; its callers decide what to do and when.
//! The classes come from Tencent's error code pages, compared with each other where they disagree.

use super::answer::Answer;
use super::halt_reason::HaltReason;

/// The code for a malformed request. If other records are accepted, the record is the cause. Source: the documentation of the error codes.
pub const INVALID_REQUEST: i64 = 60003;
/// The code for an account that does not exist. Where something was to be done to it, that is done. Source: the documentation of
/// `account_delete` and `query_online_status`.
pub const NO_ACCOUNT: i64 = 70107;
/// As [`NO_ACCOUNT`], from the profile service. Source: the documentation of the profile service's error codes.
pub const NO_PROFILE: i64 = 40003;
/// The codes for a field of a profile that the app doesn't have, or that its administrator may not write. Source: as [`NO_PROFILE`].
pub const NO_TAG: i64 = 40009;
pub const TAG_NOT_WRITABLE: i64 = 40008;
/// The code for an app in whose console deleting is switched off. Source: the documentation of the error codes.
pub const DELETION_OFF: i64 = 71000;
/// The code for a request in the wrong format. Source: the documentation of the error codes.
const WRONG_FORMAT: i64 = 60015;
/// Refusals that say nothing of how the records are read, however many there are: each is caused by a single record, which was deleted
/// recently, or has a field too long or with a wrong value. Source: the contract.
pub const NEVER_SYSTEMATIC: [i64; 6] = [70399, 40601, 40605, 40610, 80001, 80004];

/// Refusals of what a profile field is to hold: too long, no standard value, another type. The app has a field that is refused so.
/// Source: the documentation of the error codes.
pub const VALUE_REFUSED: [i64; 3] = [40601, 40605, 40610];

/// What becomes of a request that is about to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    Leaves,
    /// Its permit is void, so it may not leave.
    Void,
}

/// What stands before an HTTP status in the words of an answer that got lost.
pub const HTTP_STATUS: &str = "HTTP ";

/// How a single request ended, as `io::api` reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallOutcome {
    /// The service did what was asked.
    Done(Answer),
    /// The service refused, in its documented JSON.
    Refused { code: i64, info: String },
    /// The request never reached the service: name lookup, connecting or the TLS handshake failed. It counts as no attempt.
    Unreached { why: String },
    /// The request left, and no documented answer came back: timeout, reset, HTTP 5xx, or another content.
    Lost { why: String },
    /// HTTP 429.
    TooMany,
    /// The server's certificate is not trusted.
    Untrusted { why: String, flaw: CertificateFlaw },
    /// The server redirected the request, which chatlift does not follow.
    Redirected { status: u16 },
    /// The proxy wants another password, or allows no connections to the service.
    ProxyRefused { status: u16 },
}

/// What is wrong with a certificate, as far as the remedies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFlaw {
    /// It is for another name, which no trust in whoever has signed it changes.
    Name,
    Other,
}

impl CallOutcome {
    /// The HTTP status that came instead of an answer of the service.
    #[must_use]
    pub fn http_status(&self) -> Option<u16> {
        match self {
            CallOutcome::Lost { why } => why.strip_prefix(HTTP_STATUS)?.parse().ok(),
            CallOutcome::TooMany => Some(429),
            CallOutcome::Redirected { status } => Some(*status),
            CallOutcome::Done(_)
            | CallOutcome::Refused { .. }
            | CallOutcome::Unreached { .. }
            | CallOutcome::Untrusted { .. }
            | CallOutcome::ProxyRefused { .. } => None,
        }
    }

    /// Whether the request left, so that a later one for the same account is a repetition.
    #[must_use]
    pub const fn has_left(&self) -> bool {
        match self {
            CallOutcome::Unreached { .. } | CallOutcome::Untrusted { .. } | CallOutcome::ProxyRefused { .. } => false,
            CallOutcome::Done(_)
            | CallOutcome::Refused { .. }
            | CallOutcome::Lost { .. }
            | CallOutcome::TooMany
            | CallOutcome::Redirected { .. } => true,
        }
    }
}

/// The consequence of a request's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The service did what was asked.
    Accepted,
    /// A temporary error: try again later; counts as an attempt.
    Retry,
    /// The same as [`Verdict::Retry`], but nothing reached the service, so it counts as no attempt.
    ConnectFailed,
    /// Too many requests: slow down and try again; counts as no attempt.
    Throttle(ThrottleScope),
    /// The signature was rejected: sign again, try once more, then stop; counts as no attempt.
    Reauthenticate,
    /// The row itself is the cause; for a batch, some row in it.
    Reject,
    /// A code that is not in the table: after a few attempts the row fails.
    Unknown,
    /// Stop the run; no row is marked failed. The scheduler tries a malformed request again first, while another part of its batch may
    /// yet be accepted: that would show that the fault is the row's own.
    Abort(HaltReason),
}

/// The effect of a request's end beyond its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEffect {
    Nothing,
    /// The signature of the request was accepted.
    SignatureAccepted,
    Throttled(ThrottleScope),
    SignatureRejected,
    /// The breaker opened.
    Down,
    /// The breaker closed again.
    Back,
    Halt {
        reason: HaltReason,
        /// The service's code, if there was one.
        code: Option<i64>,
        /// The service's message, or what happened instead.
        says: String,
    },
}

/// Whether the service has accepted an account in this run. This decides what code 60003 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SuccessSeen {
    Yes,
    NotYet,
}

/// The rate that was too high.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThrottleScope {
    /// The rate of this API.
    Api,
    /// The rate of the whole app, or it is unknown whose.
    All,
}

/// How many records a request carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallSize {
    One,
    /// If it is refused as malformed, a single record may be the cause.
    Batch,
}

/// Classifies the end of a request.
#[must_use]
pub fn judge(end: &CallOutcome, seen: SuccessSeen, carried: CallSize) -> Verdict {
    match end {
        CallOutcome::Done(_) => Verdict::Accepted,
        CallOutcome::Refused { code: INVALID_REQUEST | WRONG_FORMAT, .. } if carried == CallSize::Batch => Verdict::Reject,
        CallOutcome::Refused { code, .. } => judge_code(*code, seen),
        CallOutcome::Unreached { .. } => Verdict::ConnectFailed,
        CallOutcome::Lost { .. } => Verdict::Retry,
        CallOutcome::TooMany => Verdict::Throttle(ThrottleScope::All),
        CallOutcome::Untrusted { flaw: CertificateFlaw::Name, .. } => Verdict::Abort(HaltReason::WrongName),
        CallOutcome::Untrusted { flaw: CertificateFlaw::Other, .. } => Verdict::Abort(HaltReason::Untrusted),
        CallOutcome::Redirected { .. } => Verdict::Abort(HaltReason::Redirected),
        CallOutcome::ProxyRefused { status: 407 } => Verdict::Abort(HaltReason::ProxyPassword),
        CallOutcome::ProxyRefused { .. } => Verdict::Abort(HaltReason::ProxyForbids),
    }
}

/// The service's code and the text for `error_info`.
///
/// # Panics
/// For a success, which has no text.
#[must_use]
pub fn words(end: CallOutcome) -> (Option<i64>, String) {
    match end {
        CallOutcome::Done(_) => unreachable!("a success has no text"),
        CallOutcome::Refused { code, info } => (Some(code), info),
        CallOutcome::Unreached { why } | CallOutcome::Lost { why } | CallOutcome::Untrusted { why, .. } => (None, why),
        CallOutcome::TooMany => (None, "HTTP 429".to_owned()),
        CallOutcome::Redirected { status } => (None, format!("HTTP {status}")),
        CallOutcome::ProxyRefused { status } => (None, format!("HTTP {status} from the proxy")),
    }
}

/// The table of codes. Code 0 with a failed status contradicts itself and counts as a temporary error.
fn judge_code(code: i64, seen: SuccessSeen) -> Verdict {
    match code {
        0 | 70169 | 70500 | 40006 | 70202 | 60008 | 60013 | 60014 | 30006 | 30007 | 30008 => Verdict::Retry,
        60007 => Verdict::Throttle(ThrottleScope::Api),
        60011 | 60018 | 60019 => Verdict::Throttle(ThrottleScope::All),
        70001 | 70003 | 70005 | 70017 | 70052 | 70346 | 60004 | 60005 => Verdict::Reauthenticate,
        40601 | 70402 | NO_ACCOUNT | 70399 | 40001 | NO_PROFILE | 40005 | TAG_NOT_WRITABLE | NO_TAG | 40605 | 40610 | 80001 | 80004 => {
            Verdict::Reject
        }
        INVALID_REQUEST => match seen {
            SuccessSeen::Yes => Verdict::Reject,
            SuccessSeen::NotYet => Verdict::Abort(HaltReason::InvalidRequest),
        },
        70403 | 60010 | 40004 => Verdict::Abort(HaltReason::NotAdmin),
        70398 => Verdict::Abort(HaltReason::AccountLimit),
        60028 => Verdict::Abort(HaltReason::DailyVolume),
        72000 | 72002 => Verdict::Abort(HaltReason::FreeQuota),
        70009 => Verdict::Abort(HaltReason::WrongKey),
        70013 => Verdict::Abort(HaltReason::WrongIdentifier),
        70014 => Verdict::Abort(HaltReason::WrongApp),
        70016 | 70020 | 60026 => Verdict::Abort(HaltReason::WrongRegion),
        60006 | 60012 | 60025 => Verdict::Abort(HaltReason::AppRefused),
        60016 | 60017 | 60020 | 80005 => Verdict::Abort(HaltReason::AppDisabled),
        60021 => Verdict::Abort(HaltReason::SourceAddress),
        70050 => Verdict::Abort(HaltReason::TooManyBadSignatures),
        70051 | 70114 => Verdict::Abort(HaltReason::Restricted),
        70002 | 70206 | 60002 | 60009 | WRONG_FORMAT => Verdict::Abort(HaltReason::OwnFault),
        DELETION_OFF => Verdict::Abort(HaltReason::DeletionOff),
        _ => Verdict::Unknown,
    }
}

/// Whether a refusal with this code is certain and caused by the record itself.
#[must_use]
pub fn is_certain_refusal(code: i64) -> bool {
    judge_code(code, SuccessSeen::Yes) == Verdict::Reject
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::halt_reason::HaltClass;

    fn answered(code: i64) -> CallOutcome {
        CallOutcome::Refused { code, info: String::new() }
    }

    #[test]
    fn every_documented_code_has_its_class() {
        let check = |codes: &[i64], expected: fn(&Verdict) -> bool| {
            for &code in codes {
                let verdict = judge(&answered(code), SuccessSeen::Yes, CallSize::One);
                assert!(expected(&verdict), "{code}: {verdict:?}");
            }
        };
        check(&[70169, 70500, 40006, 70202, 60008, 60013, 60014, 30006, 30007, 30008], |v| *v == Verdict::Retry);
        check(&[60007, 60011, 60018, 60019], |v| matches!(v, Verdict::Throttle(_)));
        check(&[70001, 70003, 70005, 70017, 70052, 70346, 60004, 60005], |v| *v == Verdict::Reauthenticate);
        check(&[40601, 70402, 70107, 70399, 40001, 40003, 40005, 40008, 40009, 40605, 40610, 80001, 80004, 60003], |v| {
            *v == Verdict::Reject
        });
        check(&[70403, 60010, 40004, 70009, 70013, 70014, 70016, 70020, 60026, 60006, 60012, 60025], halts_with(HaltClass::Credentials));
        check(&[60016, 60017, 60020, 80005, 60021, 70050, 70051, 70114, 71000], halts_with(HaltClass::Credentials));
        check(&[70398, 60028, 72000, 72002], halts_with(HaltClass::Limit));
        check(&[70002, 70206, 60002, 60009, 60015], halts_with(HaltClass::Internal));
        check(&[1, -1, 99999], |v| *v == Verdict::Unknown);
    }

    fn halts_with(class: HaltClass) -> fn(&Verdict) -> bool {
        match class {
            HaltClass::Credentials => |v| matches!(v, Verdict::Abort(reason) if reason.class() == HaltClass::Credentials),
            HaltClass::Limit => |v| matches!(v, Verdict::Abort(reason) if reason.class() == HaltClass::Limit),
            HaltClass::Internal => |v| matches!(v, Verdict::Abort(reason) if reason.class() == HaltClass::Internal),
            HaltClass::Settings => |v| matches!(v, Verdict::Abort(reason) if reason.class() == HaltClass::Settings),
        }
    }

    #[test]
    fn an_invalid_request_blames_the_row_only_after_another_row_succeeded() {
        assert_eq!(judge(&answered(60003), SuccessSeen::NotYet, CallSize::One), Verdict::Abort(HaltReason::InvalidRequest));
        assert_eq!(judge(&answered(60003), SuccessSeen::Yes, CallSize::One), Verdict::Reject);
    }

    #[test]
    fn a_malformed_batch_may_be_caused_by_one_record() {
        for code in [60003, 60015] {
            assert_eq!(judge(&answered(code), SuccessSeen::NotYet, CallSize::Batch), Verdict::Reject);
        }
        assert_eq!(judge(&answered(60002), SuccessSeen::NotYet, CallSize::Batch), Verdict::Abort(HaltReason::OwnFault));
    }

    #[test]
    fn only_the_limit_of_one_api_slows_that_api_alone() {
        for (end, scope) in
            [(answered(60007), ThrottleScope::Api), (answered(60011), ThrottleScope::All), (CallOutcome::TooMany, ThrottleScope::All)]
        {
            assert_eq!(judge(&end, SuccessSeen::Yes, CallSize::One), Verdict::Throttle(scope));
        }
    }

    #[test]
    fn a_failed_status_with_code_zero_is_not_a_success() {
        assert_eq!(judge(&answered(0), SuccessSeen::Yes, CallSize::One), Verdict::Retry);
    }
}
