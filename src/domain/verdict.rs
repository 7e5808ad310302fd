//! Classifies the end of a request: its meaning for the row, for the pace and for the run.
//!
//! One table has the service's codes, and one `match` reads it. This module says what a code means; its callers decide what to do and when.
//! The classes come from Tencent's error code pages, compared with each other where they disagree.

use std::fmt;

use super::profile::PerField;
use super::tag::Tag;

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
    Untrusted { why: String },
    /// The server redirected the request, which chatlift does not follow.
    Redirected { status: u16 },
    /// The proxy wants another password, or allows no connections to the service.
    ProxyRefused { status: u16 },
}

impl CallOutcome {
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

/// The content of a successful answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing else.
    Nothing,
    /// The refused UserIDs of a batch, without a reason; usually none.
    FailAccounts(Vec<Box<str>>),
    /// The profiles of the users that were found. An unknown user may be absent or have another name.
    Profiles(Vec<Profile>),
    /// Whether the users have accounts.
    Standings(Vec<Item<AccountStatus>>),
    /// Whether it was done for each user.
    Results(Vec<Item<()>>),
    /// The presence of the users, including those in the answer's list of errors.
    Presences(Vec<Item<Presence>>),
}

/// A profile from the service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    pub user_id: Box<str>,
    pub fields: PerField<Option<Box<str>>>,
    /// The tags that it shows, with their values as text, whatever their JSON type.
    pub tags: Vec<(Tag, Box<str>)>,
    /// Why the service does not return it, if it does not.
    pub refused: Option<ItemRefusal>,
}

/// The result for one UserID in an answer. An answer may contain other UserIDs than the request, and lack some.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item<T> {
    pub user_id: Box<str>,
    pub said: Result<T, ItemRefusal>,
}

/// The code for one UserID in an answer that is successful as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRefusal {
    /// 0 if the service reports no error but an undocumented value.
    pub code: i64,
    pub info: Box<str>,
}

/// Whether an account exists. Source: `AccountStatus` of `account_check`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountStatus {
    Imported,
    NotImported,
}

/// How a user can be reached. Source: `Status` of `query_online_status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Online,
    /// The app is in the background and can receive pushed messages.
    PushOnline,
    Offline,
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
    /// The signature was refused: sign again, try once more, then stop; counts as no attempt.
    Reauthenticate,
    /// The row itself is the cause; for a batch, some row in it.
    Reject,
    /// A code that is not in the table: after a few attempts the row fails.
    Unknown,
    /// Stop the run; no row is marked failed.
    Abort(HaltReason),
}

/// The effect of a request's end beyond its rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEffect {
    Nothing,
    /// The signature of the request was accepted.
    SignatureAccepted,
    Throttled(ThrottleScope),
    SignatureRefused,
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
        CallOutcome::Untrusted { .. } => Verdict::Abort(HaltReason::Untrusted),
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
        CallOutcome::Unreached { why } | CallOutcome::Lost { why } | CallOutcome::Untrusted { why } => (None, why),
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

/// Why the service will accept nothing more from this run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltReason {
    NotAdmin,
    AccountLimit,
    DailyVolume,
    FreeQuota,
    WrongKey,
    WrongIdentifier,
    WrongApp,
    WrongRegion,
    AppRefused,
    AppDisabled,
    SourceAddress,
    TooManyBadSignatures,
    Restricted,
    OwnFault,
    DeletionOff,
    InvalidRequest,
    /// A new signature was refused as well.
    Signature,
    /// A ready-made signature was refused and cannot be renewed.
    FixedSignature,
    /// Many records in a row were answered with a code that is not in the table.
    UnknownCodes,
    /// Many records in a row were refused as if they were the cause.
    AllRecordsRefused,
    /// … by `portrait_set`.
    AllProfilesRefused,
    /// The first batch lost its nicknames or avatars, and `--batch=strict` allows no other mode.
    BatchDropsProfiles,
    /// The service accepts single records but no batch, and `--batch=strict` allows no other mode.
    BatchesRefused,
    /// A field of the profile is none of the app's.
    NoSuchTag,
    /// A field of the profile may not be written.
    TagNotWritable,
    Untrusted,
    Redirected,
    ProxyPassword,
    ProxyForbids,
}

/// The class of a reason to stop; it decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HaltClass {
    /// Credentials, permission, region, or the server's identity.
    Credentials,
    /// A limit of the app or of the day. The same command continues once it is lifted.
    Limit,
    /// An error in chatlift itself.
    Internal,
    /// The command was given wrong settings.
    Settings,
}

impl HaltReason {
    #[must_use]
    pub const fn class(self) -> HaltClass {
        match self {
            HaltReason::AccountLimit | HaltReason::DailyVolume | HaltReason::FreeQuota => HaltClass::Limit,
            HaltReason::OwnFault => HaltClass::Internal,
            HaltReason::ProxyPassword | HaltReason::ProxyForbids | HaltReason::NoSuchTag | HaltReason::TagNotWritable => {
                HaltClass::Settings
            }
            HaltReason::NotAdmin
            | HaltReason::WrongKey
            | HaltReason::WrongIdentifier
            | HaltReason::WrongApp
            | HaltReason::WrongRegion
            | HaltReason::AppRefused
            | HaltReason::AppDisabled
            | HaltReason::SourceAddress
            | HaltReason::TooManyBadSignatures
            | HaltReason::Restricted
            | HaltReason::DeletionOff
            | HaltReason::InvalidRequest
            | HaltReason::Signature
            | HaltReason::FixedSignature
            | HaltReason::UnknownCodes
            | HaltReason::AllRecordsRefused
            | HaltReason::AllProfilesRefused
            | HaltReason::BatchDropsProfiles
            | HaltReason::BatchesRefused
            | HaltReason::Untrusted
            | HaltReason::Redirected => HaltClass::Credentials,
        }
    }

    /// The text of the `hint:` line.
    #[must_use]
    pub const fn hint(self) -> &'static str {
        match self {
            Self::NotAdmin => "name an app administrator with --identifier; the console lists them under the app's basic configuration",
            Self::AccountLimit => "upgrade the app: its plan allows no more accounts (a trial allows 100); then run the same command again",
            Self::DailyVolume => {
                "run the same command again tomorrow, or upgrade the app: a trial app may send only so many requests a day"
            }
            Self::FreeQuota => "wait until the app's free quota is renewed or upgrade the app, then run the same command again",
            Self::WrongKey => "copy the SecretKey of the app that --sdkappid names from the console: this key belongs to another app",
            Self::WrongIdentifier => "--identifier must be the one that the UserSig names: the signature was made for another identifier",
            Self::WrongApp => "--sdkappid and the key (or UserSig) must belong together: the signature was made for another app",
            Self::WrongRegion => "check --sdkappid, and take --region from the console's data center of the app: it isn't known here",
            Self::AppRefused => "check --sdkappid and that the app is enabled in the console: the service refuses requests for it",
            Self::AppDisabled => "check the app's state and the bill in the console",
            Self::SourceAddress => {
                "add this machine's public address in the console: the app takes REST requests from listed addresses only"
            }
            Self::TooManyBadSignatures => "correct the key, wait a minute, then run the same command again",
            Self::Restricted => "lift the restriction of the administrator's account in the console, or name another with --identifier",
            Self::OwnFault => "this is a bug in chatlift, or a proxy changed the request; the same command resumes",
            Self::DeletionOff => "switch on account deletion for the app in the console",
            Self::InvalidRequest => "check --sdkappid, --identifier and --region: the service refuses the very first request as invalid",
            Self::Signature => "check that the SecretKey belongs to --sdkappid, and this machine's clock (timedatectl)",
            Self::FixedSignature => {
                "make a new CHATLIFT_USERSIG, or give --secret-key-file instead: it is expired or wrong, and can't be renewed"
            }
            Self::UnknownCodes => "look the code up, or ask Tencent's support: it isn't documented; the same command resumes",
            Self::AllRecordsRefused => {
                "look up the code, then look at the rows that were refused: are their columns read as they should be (--map)? If the rows are \
                 right, the app refuses them all; the same command goes on after them"
            }
            Self::AllProfilesRefused => {
                "look up the code, then look at the rows that were refused: are their columns read as the right fields (--profile), and their \
                 words as the right values (--value)? If the rows are right, the app refuses them all; the same command goes on after them"
            }
            Self::BatchDropsProfiles | Self::BatchesRefused => {
                "write --batch instead of --batch=strict: the run continues with one account per request"
            }
            Self::NoSuchTag => {
                "create the custom user field in the app's console (a new one takes effect within ten minutes) or read the column no more, then \
                 run the same command again"
            }
            Self::TagNotWritable => {
                "let the app's administrator write the user field in the app's console (a change takes effect within ten minutes) or read the \
                 column no more, then run the same command again"
            }
            Self::Untrusted => {
                "something may be listening in: check --region or --endpoint; if the certificate is your own proxy's, give its CA with --ca-file"
            }
            Self::ProxyPassword => {
                "give the proxy's user name and password in CHATLIFT_PROXY (http://NAME:PASSWORD@HOST:PORT), or the name in --proxy and the \
                 password with --proxy-password-file"
            }
            Self::ProxyForbids => {
                "ask whoever runs the proxy to let this machine through to the service's address, then run the same command again"
            }
            Self::Redirected => "check --endpoint, and that no captive portal or proxy is in the way: the real service never redirects",
        }
    }
}

impl fmt::Display for HaltReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HaltReason::NotAdmin => "the identifier is not an administrator of the app",
            HaltReason::AccountLimit => "the app's limit of accounts is reached",
            HaltReason::DailyVolume => "the app's daily volume of requests is used up",
            HaltReason::FreeQuota => "the app's free quota is used up",
            HaltReason::WrongKey => "the signature was not made with this app's key",
            HaltReason::WrongIdentifier => "the signature and the identifier don't belong together",
            HaltReason::WrongApp => "the signature and the SDKAppID don't belong together",
            HaltReason::WrongRegion => "the app is not known at this address",
            HaltReason::AppRefused => "the service refuses this app",
            HaltReason::AppDisabled => "the app is disabled or in arrears",
            HaltReason::SourceAddress => "this machine's address is not allowed to call",
            HaltReason::TooManyBadSignatures => "the service has seen too many bad signatures",
            HaltReason::Restricted => "the administrator's account is restricted",
            HaltReason::OwnFault => "the service says that the request is malformed",
            HaltReason::DeletionOff => "deleting accounts is switched off for this app",
            HaltReason::InvalidRequest => "the service refuses the first request as invalid",
            HaltReason::Signature => "the service refuses the signature, a fresh one too",
            HaltReason::FixedSignature => "the service refuses the given UserSig",
            HaltReason::UnknownCodes => "row after row is refused with an unknown code",
            HaltReason::AllRecordsRefused => "the service refuses row after row",
            HaltReason::AllProfilesRefused => "portrait_set refuses row after row",
            HaltReason::BatchDropsProfiles => "a batch does not keep the profiles that it is sent with",
            HaltReason::BatchesRefused => "the service takes no batches",
            HaltReason::NoSuchTag => "the app has no such profile field",
            HaltReason::TagNotWritable => "the app's administrator may not write a profile field",
            HaltReason::Untrusted => "the server's certificate is not trusted",
            HaltReason::ProxyPassword => "the proxy wants another user name or password",
            HaltReason::ProxyForbids => "the proxy does not let through to the service",
            HaltReason::Redirected => "the server redirects to another address",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
